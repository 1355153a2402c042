"""
``/api/v0/meta/settings``: the settings of the installation, as DTR called them.

Those that a part of this program obeys can be changed, and hold everywhere within two seconds. The others say how
things are, and can only be sent back as they were: scripts that read all settings, change one and write all go on
to work, and nobody believes to have changed what was not.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from fastapi import Response
from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Form, Record
from dtr.http.api.operations import Router
from dtr.http.api.rooms import RoomsDep
from dtr.http.api.storages import default_storage, directory_of
from dtr.storage.mounts import nfs_export

if TYPE_CHECKING:
    from pathlib import Path

    from dtr.http.api.rooms import Rooms

router = Router(prefix="/api/v0/meta/settings", tags=["meta"])

_LIVE = {
    "dtrHost",
    "createRepositoryOnPush",
    "readOnlyRegistry",
    "repoEventHistoryCompactionEnabled",
    "repoEventHistoryToKeep",
    "repoEventHistoryMaxAge",
    "jobHistoryCompactionEnabled",
    "jobHistoryToKeep",
    "jobHistoryMaxAge",
    "garbageCollection",
}


class ReplicaSettings(Record):
    """Where a replica runs, and the ports that it listens on; 0: not on this one."""

    http_port: int = Field(alias="HTTPPort", description="For plain HTTP.")
    https_port: int = Field(alias="HTTPSPort", description="For TLS.")
    node: str = Field(description="The name of its host.")


class SettingsRecord(Record):
    """All settings. What the configuration decides, and what no part of this program does, is read-only."""

    dtr_host: str = Field(description="`HOST[:PORT]` that clients use; empty: the one that they ask.")
    create_repository_on_push: bool = Field(description="A push makes the repository that is missing.")
    read_only_registry: bool = Field(description="Pushes and deletions through `/v2/` are refused; pulls go on.")
    repo_event_history_compaction_enabled: bool = Field(description="Old events are deleted.")
    repo_event_history_max_age: str = Field(description="Older ones are: a duration such as `720h`; empty: none.")
    repo_event_history_to_keep: int = Field(description="Those behind so many newer ones are; 0: none.")
    replica_id: str = Field(alias="replicaID", description="Read-only. The replica that answered.")
    replica_settings: dict[str, ReplicaSettings] = Field(description="Read-only. By the ids of the replicas.")
    http_proxy: str = Field(description="Read-only. The proxy to the storage.")
    https_proxy: str = Field(description="Read-only. The proxy to the storage, for TLS.")
    no_proxy: str = Field(description="Read-only. Hosts that are reached without a proxy.")
    log_protocol: str = Field("internal", description="Read-only. Logs are written to the standard error stream.")
    log_host: str = Field("", description="Read-only.")
    log_level: str = Field(description="Read-only.")
    web_tls_cert: str = Field(alias="webTLSCert", description="Read-only. The certificate with its chain, in PEM.")
    web_tls_ca: str = Field(alias="webTLSCA", description="Read-only. The authority that clients trust, in PEM.")
    storage_volume: str = Field(description="Read-only. The directory of the default storage; empty: it is none.")
    nfs_host: str = Field(description="Read-only. The NFS server that has it; empty: none has.")
    nfs_path: str = Field(description="Read-only. What that server exports.")
    sso: bool = Field(False, description="Read-only.")
    disable_upgrades: bool = Field(True, description="Read-only. Nobody is asked for newer versions.")
    report_analytics: bool = Field(False, description="Read-only. Nothing is reported to anybody.")
    anonymize_analytics: bool = Field(False, description="Read-only.")
    disable_backup_warning: bool = Field(True, description="Read-only. There are no warnings of missing backups.")
    scanning_enabled: bool = Field(False, description="Read-only.")
    scanning_sync_online: bool = Field(False, description="Read-only.")
    scanning_deadline: int = Field(0, description="Read-only.")
    scanning_enable_auto_recheck: bool = Field(False, description="Read-only.")
    job_history_compaction_enabled: bool = Field(description="Old jobs are deleted, with their logs.")
    job_history_to_keep: int = Field(description="Those behind so many newer ones are; 0: none.")
    job_history_max_age: str = Field(description="Older ones are: a duration such as `720h`; empty: none.")
    garbage_collection: Literal["continuous", "scheduled", "off"] = Field(
        description="When what nothing holds is deleted: all the time, by jobs of `onlinegc` alone, or never."
    )


class SettingsForm(Form):
    """Settings to be changed; what is missing or null stays. What is read-only can be sent as it is."""

    dtr_host: str | None = None
    create_repository_on_push: bool | None = None
    read_only_registry: bool | None = None
    repo_event_history_compaction_enabled: bool | None = None
    repo_event_history_max_age: str | None = None
    repo_event_history_to_keep: int | None = None
    replica_id: str | None = Field(None, alias="replicaID")
    replica_settings: dict[str, Any] | None = None
    http_proxy: str | None = None
    https_proxy: str | None = None
    no_proxy: str | None = None
    log_protocol: str | None = None
    log_host: str | None = None
    log_level: str | None = None
    web_tls_cert: str | None = Field(None, alias="webTLSCert")
    web_tls_key: str | None = Field(None, alias="webTLSKey", description="Read-only, and never shown.")
    web_tls_ca: str | None = Field(None, alias="webTLSCA")
    storage_volume: str | None = None
    nfs_host: str | None = None
    nfs_path: str | None = None
    sso: bool | None = None
    disable_upgrades: bool | None = None
    report_analytics: bool | None = None
    anonymize_analytics: bool | None = None
    disable_backup_warning: bool | None = None
    scanning_enabled: bool | None = Field(None, description="Read-only.")
    scanning_sync_online: bool | None = None
    scanning_deadline: int | None = None
    scanning_enable_auto_recheck: bool | None = None
    job_history_compaction_enabled: bool | None = None
    job_history_to_keep: int | None = None
    job_history_max_age: str | None = None
    garbage_collection: str | None = Field(None, description="`continuous`, `scheduled` or `off`.")
    expected: dict[str, Any] | None = Field(
        None,
        description="Values that settings which can be changed have to have before; else nothing is changed"
        " (`SETTINGS_CHANGED`). For who changes what they looked at a while ago.",
    )


@router.get("", summary="The settings", responses=errors("NOT_AUTHORIZED"))
async def get_settings(caller: CallerDep, rooms: RoomsDep) -> SettingsRecord:
    """For administrators and auditors. What another process has changed a moment ago is here already."""
    caller.require(Operation.SEE_SYSTEM)
    return await _read(rooms)


@router.post(
    "",
    status_code=202,
    summary="Change settings",
    response_class=Response,
    responses=errors("INVALID_SETTINGS", "SETTINGS_CHANGED", "NOT_AUTHORIZED"),
)
async def update_settings(caller: CallerDep, rooms: RoomsDep, form: SettingsForm) -> Response:
    """
    All of the changes are made, or none. They hold in this process at once, in all others within two seconds.

    A read-only setting with another value than it has is refused by name.
    """
    caller.require(Operation.ADMINISTER)
    given = {name: value for name, value in form.model_dump(by_alias=True).items() if value is not None}
    expected: dict[str, Any] = given.pop("expected", {})
    present: dict[str, Any] = (await _read(rooms)).model_dump(by_alias=True)
    present["webTLSKey"] = ""
    problems = [
        {"field": f"expected.{name}", "message": "is no setting that can be changed here"}
        for name in expected.keys() - _LIVE
    ]
    problems += [
        {"field": name, "message": "cannot be changed here"}
        for name, value in given.items()
        if name not in _LIVE and value != present[name]
    ]
    if problems:
        raise ApiError("INVALID_SETTINGS", problems)
    changes = {name: value for name, value in given.items() if name in _LIVE and value != present[name]}
    if changes or expected:
        await rooms.live.change(changes, expected=expected, by=caller.actor)
    return Response(status_code=202)


async def _read(rooms: Rooms) -> SettingsRecord:
    live = await rooms.live.refresh()
    here = rooms.installation
    chain, authority = await asyncio.gather(_text(here.certificate), _text(here.authority))
    volume = directory_of(await default_storage(rooms))
    export = await asyncio.to_thread(nfs_export, volume) if volume else None
    return SettingsRecord(
        dtr_host=live.dtr_host,
        create_repository_on_push=live.create_repository_on_push,
        read_only_registry=live.read_only_registry,
        repo_event_history_compaction_enabled=live.repo_event_history_compaction_enabled,
        repo_event_history_max_age=live.repo_event_history_max_age,
        repo_event_history_to_keep=live.repo_event_history_to_keep,
        job_history_compaction_enabled=live.job_history_compaction_enabled,
        job_history_max_age=live.job_history_max_age,
        job_history_to_keep=live.job_history_to_keep,
        garbage_collection=live.garbage_collection,
        replica_id=rooms.replicas.own.id,
        replica_settings={
            seen.replica.id: ReplicaSettings(
                http_port=seen.replica.http_port or 0,
                https_port=seen.replica.https_port or 0,
                node=seen.replica.node,
            )
            for seen in await rooms.replicas.list_replicas()
        },
        http_proxy=here.proxies.get("http", ""),
        https_proxy=here.proxies.get("https", ""),
        no_proxy=here.proxies.get("no", ""),
        log_level=here.log_level,
        web_tls_cert=chain,
        web_tls_ca=authority,
        storage_volume=str(volume or ""),
        nfs_host=export.host if export else "",
        nfs_path=export.path if export else "",
    )


async def _text(file: Path | None) -> str:
    """The content of a file; empty when there is none, or it is being replaced."""
    if file is None:
        return ""
    try:
        return await asyncio.to_thread(file.read_text)
    except OSError:
        return ""
