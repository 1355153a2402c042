"""Alerts: what an administrator should know, found at the moment of asking."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct, field
from sqlalchemy import func, select

from dtr.db import Statement, now
from dtr.db.schema import gc_objects, jobs, webhooks
from dtr.jobs.job import CLAIMABLE, is_one_of
from dtr.registry import ALERT_AFTER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dtr.cluster.health import Health
    from dtr.cluster.replicas import Replicas
    from dtr.db import Database
    from dtr.settings import LiveSettings

Severity: TypeAlias = Literal["danger", "warning", "info"]
Kind: TypeAlias = Literal["component", "certificate", "replica", "deletions", "jobs", "webhooks", "read-only"]

_FAILING = Statement(
    lambda: select(func.count(), func.max(gc_objects.c.last_error)).where(gc_objects.c.attempts >= ALERT_AFTER)
)
_WAITING_MS = 900_000
"""A job that waits for longer is worth a word."""
_WAITING = Statement(
    lambda: select(func.count(), func.min(jobs.c.action)).where(
        jobs.c.ended_at.is_(None), is_one_of(CLAIMABLE), jobs.c.scheduled_at < now() - _WAITING_MS
    )
)
_GIVEN_UP = Statement(
    lambda: select(func.count(), func.max(webhooks.c.last_error)).where(
        webhooks.c.is_active.is_(False), webhooks.c.failing_since.is_not(None), webhooks.c.deleted_at.is_(None)
    )
)


class Alert(Struct, frozen=True):
    """One thing to know; the same thing has the same `id` whenever it is found."""

    id: str
    severity: Severity
    message: str
    kind: Kind
    facts: Mapping[str, str | int] = field(default_factory=dict)
    """What the message says, for those who say it otherwise."""


class Alerts:
    """Looks at everything that there can be alerts about."""

    def __init__(
        self,
        database: Database,
        health: Health,
        replicas: Replicas,
        settings: LiveSettings,
        certificate: Callable[[], Sequence[tuple[bool, str]]],
    ) -> None:
        """`certificate` says in a thread what is wrong with that, and whether clients refuse it."""
        self._database = database
        self._health = health
        self._replicas = replicas
        self._settings = settings
        self._certificate = certificate

    async def find(self) -> list[Alert]:
        """All of them, the most serious first. Raises DatabaseError."""
        found = [
            Alert(f"unhealthy-{name.replace(' ', '-')}", "danger", text, "component", {"component": name})
            for name, text in (await self._health.look()).items()
        ]
        for number, (serious, text) in enumerate(await asyncio.to_thread(self._certificate)):
            severity: Severity = "danger" if serious else "warning"
            found.append(Alert(f"certificate-{number}", severity, text, "certificate"))
        for seen in await self._replicas.list_replicas():
            if not seen.is_there:
                one = seen.replica
                text = f"replica {one.id} on {one.node} is not seen any more"
                facts: dict[str, str | int] = {"id": one.id, "node": one.node, "seenAt": seen.seen_at}
                found.append(Alert(f"replica-{one.id}", "danger", text, "replica", facts))
        row = await self._database.fetch_one(_FAILING)
        if row is not None and row[0]:
            text = f"{row[0]} objects cannot be deleted from the storage: {row[1]}"
            found.append(
                Alert("deletions", "warning", text, "deletions", {"count": row[0], "error": row[1] or ""})
            )
        row = await self._database.fetch_one(_WAITING)
        if row is not None and row[0]:
            text = f"{row[0]} jobs wait for more than {_WAITING_MS // 60_000} minutes, {row[1]} among them:"
            text = f"{text} no worker has time or capacity for them"
            found.append(Alert("jobs", "warning", text, "jobs", {"count": row[0], "action": row[1]}))
        row = await self._database.fetch_one(_GIVEN_UP)
        if row is not None and row[0]:
            text = f"{row[0]} webhooks are switched off, for their deliveries failed for days: {row[1]}"
            found.append(Alert("webhooks", "warning", text, "webhooks", {"count": row[0], "error": row[1] or ""}))
        if self._settings.current.read_only_registry:
            text = "the registry is read-only: pulls go on, pushes and deletions are refused"
            found.append(Alert("read-only", "info", text, "read-only"))
        order: tuple[Severity, ...] = ("danger", "warning", "info")
        return sorted(found, key=lambda alert: order.index(alert.severity))
