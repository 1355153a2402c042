"""``/api/v0/meta``: what the whole installation is and has."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - the framework reads it
from typing import Literal

from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import errors
from dtr.http.api.models import Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.rooms import RoomsDep
from dtr.jobs import JobFilter

router = Router(prefix="/api/v0/meta", tags=["meta"])


_ALWAYS = "Always."


class Features(Record):
    """What this installation can do. There are no licences: whatever was licensed once is."""

    scanning_enabled: bool = Field(description="Images are scanned for vulnerabilities.")
    scanning_licensed: bool = Field(True, description=_ALWAYS)
    promotion_licensed: bool = Field(True, description=_ALWAYS)
    mirroring_licensed: bool = Field(True, description=_ALWAYS)
    online_gc_enabled: bool = Field(
        True, alias="onlineGCEnabled", description="Garbage is collected while images are pushed."
    )
    metadata_store_opted_in: bool = Field(True, description="Always: there is one place for metadata only.")
    db_version: int = Field(0, alias="db_version", description="Version of the vulnerability database; 0: none.")
    ucp_host: str = Field("", description="Always empty: accounts are kept here.")
    read_only_registry: bool = Field(description="Pushes and deletions through `/v2/` are refused; pulls go on.")


class AlertRecord(Record):
    """Something that an administrator should know."""

    id: str = Field(description="The same for the same thing, whenever it is found.")
    class_: Literal["danger", "warning", "info"] = Field(alias="class", description="How serious it is.")
    message: str
    kind: Literal["component", "certificate", "replica", "deletions", "jobs", "webhooks", "read-only"] = Field(
        description="What it is about."
    )
    facts: dict[str, str | int] = Field(description="What the message says, by name, for programs.")
    url: str = Field("", description="Where to read more; empty: nowhere.")
    img: str = Field("", description="Always empty.")


class ClusterStatus(Record):
    """The replicas of the installation: process trees over one database and one storage."""

    rethink_system_tables: dict[str, object] = Field(
        default_factory=dict, alias="rethink_system_tables", description="Always empty: there is no such database."
    )
    replica_health: dict[str, Literal["OK", "NOT SEEN"]] = Field(
        alias="replica_health", description="By the ids of the replicas; not seen: for half a minute or longer."
    )
    replica_timestamp: dict[str, dt.datetime] = Field(
        alias="replica_timestamp", description="When each was heard of last."
    )
    replica_readonly: dict[str, bool] = Field(
        alias="replica_readonly", description="Whether each refuses pushes and deletions."
    )
    replica_version: dict[str, str] = Field(alias="replica_version", description="The version that each runs.")
    gc_lock_holder: str = Field(
        "",
        alias="gc_lock_holder",
        description="The replica that runs a job of `onlinegc`. No lock is needed: others may collect as well.",
    )


@router.get("/features", summary="What this installation can do")
async def get_features(caller: CallerDep, rooms: RoomsDep) -> Features:
    """For everybody who is logged in. What another process has changed is here within two seconds."""
    caller.require(Operation.SEE_FEATURES)
    return Features(scanning_enabled=False, read_only_registry=rooms.live.current.read_only_registry)


@router.get("/alerts", summary="What needs attention", responses=errors("NOT_AUTHORIZED"))
async def get_alerts(caller: CallerDep, rooms: RoomsDep) -> list[AlertRecord]:
    """
    For administrators and auditors, the most serious first.

    Database or storage that do not answer, certificates that expire or that clients refuse, replicas that are not
    seen any more, deletions that the storage refuses, webhooks that were given up, and the read-only mode.
    """
    caller.require(Operation.SEE_SYSTEM)
    await rooms.live.refresh()
    return [
        AlertRecord(id=one.id, class_=one.severity, message=one.message, kind=one.kind, facts=dict(one.facts))
        for one in await rooms.alerts.find()
    ]


@router.get("/cluster_status", summary="The replicas, and how they are", responses=errors("NOT_AUTHORIZED"))
async def get_cluster_status(caller: CallerDep, rooms: RoomsDep) -> ClusterStatus:
    """For administrators and auditors. A replica that ended in order is gone from here, any other after a week."""
    caller.require(Operation.SEE_SYSTEM)
    settings = await rooms.live.refresh()
    replicas = await rooms.replicas.list_replicas()
    collections = await rooms.jobs.list_jobs(JobFilter(action="onlinegc", state="running"), limit=1)
    return ClusterStatus(
        replica_health={one.replica.id: "OK" if one.is_there else "NOT SEEN" for one in replicas},
        replica_timestamp={one.replica.id: moment(one.seen_at) for one in replicas},
        replica_readonly={one.replica.id: settings.read_only_registry for one in replicas},
        replica_version={one.replica.id: one.replica.version for one in replicas},
        gc_lock_holder=collections[0].worker if collections else "",
    )
