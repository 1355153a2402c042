"""
``/api/v0/meta/health``, ``usage``, ``garbage``, ``certificate``: how the whole installation is.

For administrators and auditors; what DTR showed on its pages alone, or not at all.
"""

from __future__ import annotations

import asyncio
import datetime as dt  # noqa: TC003 - the framework reads it
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Query
from pydantic import Field

from dtr.accounts import Operation
from dtr.durations import to_milliseconds
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.rooms import RoomsDep
from dtr.pki import Details, describe
from dtr.registry import WHOLE

if TYPE_CHECKING:
    from pathlib import Path

router = Router(prefix="/api/v0/meta", tags=["meta"], responses=errors("NOT_AUTHORIZED"))

_MOST_DAYS = 366


class ComponentRecord(Record):
    """Something that the installation needs."""

    kind: Literal["metadata", "storage", "trust"] = Field(
        description="`metadata`: the database; `storage`; `trust`: the signer of content trust."
    )
    name: str = Field(description="Of a storage; else empty.")
    is_healthy: bool = Field(description="It answers.")
    message: str = Field(description="What is wrong; empty: nothing.")


class ReplicaRecord(Record):
    """A process tree of the installation, with a data directory of its own."""

    id: str
    node: str = Field(description="The name of its host.")
    version: str = Field(description="The version that it runs.")
    components: list[str] = Field(description="What it does.")
    http_port: int = Field(alias="HTTPPort", description="For plain HTTP; 0: it does not listen there.")
    https_port: int = Field(alias="HTTPSPort", description="For TLS; 0: it does not listen there.")
    started_at: dt.datetime = Field(description="When it was started.")
    seen_at: dt.datetime = Field(description="When it was heard of last.")
    is_there: bool = Field(description="It was, within half a minute.")
    is_own: bool = Field(description="It gave this answer.")


class HealthRecord(Record):
    """How the parts of an installation are."""

    components: list[ComponentRecord]
    replicas: list[ReplicaRecord] = Field(description="Those that are there, or were a week ago.")


class DayRecord(Record):
    """A day, in UTC."""

    day: dt.date
    bytes: int = Field(description="What was stored at its end; today: what is.")
    pulls: int = Field(description="How many there were.")
    pushes: int = Field(description="How many there were.")


class UsageRecord(Record):
    """What the registry has, and what was done with it."""

    bytes: int = Field(description="Of all blobs, each once.")
    counted_bytes: int | None = Field(
        description="Of the blobs of each repository, added up: what would be stored if they shared nothing; null:"
        " that was not asked."
    )
    repositories: int = Field(description="How many there are.")
    pulls: int | None = Field(description="Of all repositories that are there; null: that was not asked.")
    pushes: int | None = Field(description="Of all repositories that are there; null: that was not asked.")
    days: list[DayRecord] = Field(description="The last ones, the earliest first; today is the last.")


class GarbageRecord(Record):
    """What nothing holds any more, or perhaps so."""

    manifests: int = Field(description="How many manifests a collection would look at.")
    links: int = Field(description="How many blobs of repositories it would look at.")
    repositories: int = Field(description="How many deleted repositories are not emptied yet.")
    blobs: int = Field(description="How many blobs nothing holds: a collection takes them at once.")
    blob_bytes: int = Field(description="The bytes of these.")
    objects: int = Field(description="How many objects wait for their deletion at the storage.")
    object_bytes: int = Field(description="The bytes of these.")
    uploads: int = Field(description="How many uploads are not finished.")
    upload_bytes: int = Field(description="The bytes that came of them.")


class TLSCertificateRecord(Record):
    """What is in a certificate."""

    subject: str = Field(description="Whose it is (RFC 4514).")
    issuer: str = Field(description="Who signed it.")
    names: list[str] = Field(description="The hosts that it is good for.")
    begins_at: dt.datetime = Field(description="From when on it is valid.")
    ends_at: dt.datetime = Field(description="Until when.")
    fingerprint: str = Field(description="SHA-256 of its DER form.")
    key: str = Field(description="The kind of its key.")

    @classmethod
    def of(cls, details: Details) -> TLSCertificateRecord:
        """The record of a certificate."""
        return cls(
            subject=details.subject,
            issuer=details.issuer,
            names=list(details.names),
            begins_at=details.begins_at,
            ends_at=details.ends_at,
            fingerprint=details.fingerprint,
            key=details.key,
        )


class CertificateProblem(Record):
    """Something about a certificate that clients will not like."""

    is_serious: bool = Field(description="They refuse it.")
    message: str


class TLSRecord(Record):
    """What clients see when they connect with TLS."""

    chain: list[TLSCertificateRecord] = Field(
        description="The certificate, and those that signed it. Empty: dtr speaks no TLS, or cannot read it."
    )
    authority: list[TLSCertificateRecord] = Field(
        description="What clients have to trust, from `/ca`. Empty: one that they know anyway."
    )
    is_own: bool = Field(description="dtr made it, and renews it.")
    problems: list[CertificateProblem]


@router.get("/health", summary="How the parts of the installation are")
async def get_health(caller: CallerDep, rooms: RoomsDep) -> HealthRecord:
    """For administrators and auditors. It may take ten seconds, as long as something is waited for."""
    caller.require(Operation.SEE_SYSTEM)
    components = await rooms.health.components()
    return HealthRecord(
        components=[
            ComponentRecord(kind=one.kind, name=one.name, is_healthy=not one.wrong, message=one.wrong)
            for one in components
        ],
        replicas=[
            ReplicaRecord(
                id=one.replica.id,
                node=one.replica.node,
                version=one.replica.version,
                components=list(one.replica.components),
                http_port=one.replica.http_port or 0,
                https_port=one.replica.https_port or 0,
                started_at=moment(one.started_at),
                seen_at=moment(one.seen_at),
                is_there=one.is_there,
                is_own=one.replica.id == rooms.replicas.own.id,
            )
            for one in await rooms.replicas.list_replicas()
        ],
    )


@router.get("/usage", summary="What the registry has, and had")
async def get_usage(
    caller: CallerDep,
    rooms: RoomsDep,
    days: Annotated[int, Query(ge=1, le=_MOST_DAYS, description="How many days, with today.")] = 30,
    counted: Annotated[bool, Query(description="Add up what every repository counts.")] = True,
) -> UsageRecord:
    """For administrators and auditors. Pulls and pushes of a day are there some seconds later."""
    caller.require(Operation.SEE_SYSTEM)
    total = await rooms.totals.total()
    parts = await rooms.totals.counted() if counted else None
    history = await rooms.usage.history([WHOLE], days=days)
    return UsageRecord(
        bytes=total.stored,
        counted_bytes=parts and parts.bytes,
        repositories=total.repositories,
        pulls=parts and parts.pulls,
        pushes=parts and parts.pushes,
        days=[
            DayRecord(day=one.day, bytes=one.bytes, pulls=one.pulls, pushes=one.pushes) for one in history[WHOLE]
        ],
    )


@router.get("/garbage", summary="What could be deleted")
async def get_garbage(
    caller: CallerDep,
    rooms: RoomsDep,
    grace: Annotated[
        str,
        Query(
            max_length=20,
            description="Only what was let go so long ago, `10m` for example; empty: what is due by the settings.",
        ),
    ] = "",
) -> GarbageRecord:
    """For administrators and auditors. It is counted for this, which takes a while when there is much."""
    caller.require(Operation.SEE_SYSTEM)
    try:
        milliseconds = to_milliseconds(grace) if grace else None
    except ValueError as error:
        raise ApiError("INVALID_PARAMETERS", [{"field": "grace", "message": str(error)}]) from None
    found = await rooms.totals.garbage(milliseconds)
    return GarbageRecord(
        manifests=found.manifests,
        links=found.links,
        repositories=found.repositories,
        blobs=found.blobs,
        blob_bytes=found.blob_bytes,
        objects=found.objects,
        object_bytes=found.object_bytes,
        uploads=found.uploads,
        upload_bytes=found.upload_bytes,
    )


@router.get("/certificate", summary="The certificate that clients see")
async def get_certificate(caller: CallerDep, rooms: RoomsDep) -> TLSRecord:
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    here = rooms.installation
    await rooms.live.refresh()  # for the name that it has to be good for

    def look() -> TLSRecord:
        chain, authority = (_described(file) for file in (here.certificate, here.authority))
        return TLSRecord(
            chain=chain,
            authority=authority,
            is_own=here.makes_certificate,
            problems=[
                CertificateProblem(is_serious=serious, message=text)
                for serious, text in rooms.certificate_findings()
            ],
        )

    return await asyncio.to_thread(look)


def _described(file: Path | None) -> list[TLSCertificateRecord]:
    """The certificates of a file; none when there is none, or it cannot be read: that is a finding, too."""
    try:
        return [TLSCertificateRecord.of(one) for one in describe(file)] if file else []
    except (OSError, ValueError):
        return []
