"""
From events to deliveries.

What happens is written down in the transaction of its cause (`dtr.events`), and that is all it costs whoever
causes it. Here somebody follows, in one process at a time, and queues what is to be told together with how far
that came: each event once to each webhook, whatever is killed in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from sqlalchemy import and_, or_, select

from dtr.db import DatabaseError, Statement, in_list
from dtr.db.schema import accounts, manifests, webhooks
from dtr.events.follower import BATCH, Follower
from dtr.registry.usage import of_repository
from dtr.webhooks.deliveries import end_of_repositories, queue
from dtr.webhooks.payloads import Known, digest_of, types_of, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dtr.db import Database, Transaction
    from dtr.events import Recorded
    from dtr.registry import Counts, ImageConfigs, Repositories, Repository, Usage
    from dtr.webhooks.deliveries import Deliveries
    from dtr.webhooks.payloads import Format

_log = logging.getLogger("dtr.webhooks")

_POLL_SECONDS = 0.5
_FORGET_SECONDS = 600.0
_PORTION = 100
_LONGEST_PAUSE = 60.0

_FIND = Statement(
    lambda: (
        select(
            webhooks.c.id,
            webhooks.c.type,
            webhooks.c.format,
            webhooks.c.repository_id,
            accounts.c.name,
            webhooks.c.created_at,
        )
        .outerjoin(accounts, accounts.c.id == webhooks.c.namespace_id)
        .where(
            webhooks.c.is_active.is_(True),
            webhooks.c.deleted_at.is_(None),
            in_list(webhooks.c.type, "types"),
            or_(
                in_list(webhooks.c.repository_id, "repositories"),
                in_list(accounts.c.name, "namespaces"),
                and_(webhooks.c.repository_id.is_(None), webhooks.c.namespace_id.is_(None)),
            ),
        )
    )
)

_CONFIGS = Statement(
    lambda: select(manifests.c.repository_id, manifests.c.digest, manifests.c.config_digest).where(
        in_list(manifests.c.repository_id, "repositories"),
        in_list(manifests.c.digest, "digests"),
        manifests.c.config_digest.is_not(None),
    )
)


class _Subscription(Struct, frozen=True):
    """A webhook, as far as it decides what it is told; both places None: everywhere."""

    id: str
    type: str
    format: Format
    repository: int | None
    namespace: str | None
    created_at: int

    def wants(self, event: Recorded) -> bool:
        """Whether an event of its type happened where it looks, and since it does."""
        if event.published_at < self.created_at:
            return False
        if self.repository is not None:
            return event.repository_id == self.repository
        return self.namespace in {None, event.repository.partition("/")[0]}


class Dispatcher:
    """Follows the events, when no other process does."""

    def __init__(
        self,
        database: Database,
        deliveries: Deliveries,
        *,
        repositories: Repositories,
        configs: ImageConfigs,
        usage: Usage,
        host: Callable[[], str],
        holder: str = "",
    ) -> None:
        """`host` says the registry's ``HOST[:PORT]``, empty: unknown; `holder` is that of the `Follower`."""
        self._database = database
        self._deliveries = deliveries
        self._repositories = repositories
        self._configs = configs
        self._usage = usage
        self._host = host
        self._follower = Follower(database, "webhooks", holder)
        self._forgotten = 0.0

    async def run(self) -> None:
        """Follow until cancelled."""
        pause = 0.0
        try:
            while True:
                try:
                    await self._follow()
                    pause = 0.0
                except Exception as error:  # noqa: BLE001 - it goes on, whatever it was
                    if not pause:
                        _log.warning("webhooks not told", extra={"reason": str(error) or type(error).__name__})
                    pause = min(max(pause * 2, 1.0), _LONGEST_PAUSE)
                # Not all processes at the same time.
                await asyncio.sleep((pause or _POLL_SECONDS) * random.uniform(0.75, 1.25))  # noqa: S311
        finally:
            with contextlib.suppress(DatabaseError):  # then it ends by itself
                await self._follower.release()

    async def _follow(self) -> None:
        """Queue as long as this is ours to do. Raises DatabaseError."""
        if not await self._follower.claim():
            return
        while True:
            found = await self._follower.fetch()
            if not await self._tell(found):
                return
            if len(found) < BATCH:
                if time.monotonic() - self._forgotten > _FORGET_SECONDS:
                    self._forgotten = time.monotonic()
                    await self._deliveries.forget()
                await asyncio.sleep(_POLL_SECONDS)

    async def _tell(self, found: Sequence[Recorded]) -> bool:
        """Queue what is to be told of events; False: another process follows now, and does it."""
        position = self._follower.position
        told = await self._told(found)
        gone = sorted({one.repository_id for one in found if one.repository_id is not None and _is_end(one)})
        if not told and not gone:
            return await self._follower.advance(position)

        # In portions, for others want to write, too. What is queued is not queued again, should the last one fail.
        while len(told) > _PORTION:
            portion, told = told[:_PORTION], told[_PORTION:]
            await self._database.unit(partial(_queue, told=portion))

        async def work(tx: Transaction) -> bool:
            if not await self._follower.advance_within(tx, position):
                return False
            await _queue(tx, told)
            if gone:
                await end_of_repositories(tx, gone)
            return True

        return await self._database.unit(work)

    async def _told(self, found: Sequence[Recorded]) -> list[tuple[str, int, str]]:
        """Webhook, event, and what is sent."""
        typed = [(one, types) for one in found if (types := types_of(one))]
        if not typed:
            return []
        rows = await self._database.fetch_all(
            _FIND,
            types=sorted({kind for _, types in typed for kind in types}),
            repositories=sorted({one.repository_id for one, _ in typed if one.repository_id is not None}),
            namespaces=sorted({one.repository.partition("/")[0] for one, _ in typed}),
        )
        subscriptions = [_Subscription(*row) for row in rows]
        meant = [
            (one, subscription)
            for one, types in typed
            for subscription in subscriptions
            if subscription.type in types and subscription.wants(one)
        ]
        if not meant:
            return []
        known = await self._known({one.id: one for one, _ in meant}.values())
        return [
            (subscription.id, one.id, write(subscription.type, subscription.format, one, known))
            for one, subscription in meant
        ]

    async def _known(self, happened: Iterable[Recorded]) -> Known:
        """What has to be known to tell these events."""
        images, about = set(), set()
        for one in happened:
            assert one.repository_id is not None
            if one.object.kind == "repository":
                about.add(one.repository_id)
            else:
                images.add((one.repository_id, digest_of(one)))
        return Known(
            host=self._host(),
            platforms=await self._platforms(images) if images else {},
            repositories=await self._records(about) if about else {},
        )

    async def _platforms(self, images: set[tuple[int, str]]) -> Mapping[tuple[int, str], tuple[str, str]]:
        rows = await self._database.fetch_all(
            _CONFIGS, repositories=sorted({one[0] for one in images}), digests=sorted({one[1] for one in images})
        )
        configs = await self._configs.get_many(row[2] for row in rows)
        return {
            (repository, digest): (configs[config].os, configs[config].architecture)
            for repository, digest, config in rows
            if config in configs
        }

    async def _records(self, ids: set[int]) -> Mapping[int, dict[str, Any]]:
        found = await self._repositories.get_many(ids)
        counts = await self._usage.get(of_repository(one.id) for one in found)
        return {one.id: _record(one, counts[of_repository(one.id)]) for one in found}


async def _queue(tx: Transaction, told: Sequence[tuple[str, int, str]]) -> None:
    for webhook, event, body in told:
        await queue(tx, webhook, body, event=event)


def _is_end(event: Recorded) -> bool:
    return event.object.kind == "repository" and event.type == "DELETE"


def _record(repository: Repository, counts: Counts) -> dict[str, Any]:
    """A repository as lists of the API show it."""
    settings = repository.settings
    return {
        "id": str(repository.id),
        "namespace": repository.namespace,
        "namespaceType": repository.namespace_kind,
        "name": repository.name,
        "shortDescription": settings.short_description,
        "visibility": settings.visibility,
        "scanOnPush": settings.scan_on_push,
        "immutableTags": settings.immutable_tags,
        "immutableTagPatterns": list(settings.immutable_patterns),
        "enableManifestLists": False,
        "tagLimit": settings.tag_limit,
        "pulls": counts.pulls,
        "pushes": counts.pushes,
    }
