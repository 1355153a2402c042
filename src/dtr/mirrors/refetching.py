"""Bringing a blob that was lost from where its repository came: the upstream of a cache, or what is polled."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, bindparam, select

from dtr.db import Statement
from dtr.db.schema import mirroring_policies, repositories
from dtr.mirrors.local import Place
from dtr.mirrors.work import FAILURES

if TYPE_CHECKING:
    from dtr.db import Database
    from dtr.mirrors.local import Local
    from dtr.mirrors.upstreams import Upstreams
    from dtr.remotes import Definitions, Remote, Remotes

_log = logging.getLogger("dtr.mirrors")

_repository = bindparam("repository", type_=BigInteger)
_PATH = Statement(
    lambda: select(repositories.c.path).where(
        repositories.c.id == _repository, repositories.c.deleted_at.is_(None)
    )
)
_POLLED = Statement(
    lambda: (
        select(mirroring_policies.c.remote_id, mirroring_policies.c.remote_repository)
        .where(
            mirroring_policies.c.repository_id == _repository,
            mirroring_policies.c.direction == "poll",
            mirroring_policies.c.enabled.is_(True),
        )
        .order_by(mirroring_policies.c.id)
    )
)


class Refetch:
    """Fetches single blobs again. What comes is stored as a push would store it, its digest is compared."""

    def __init__(
        self, database: Database, upstreams: Upstreams, *, definitions: Definitions, remotes: Remotes, local: Local
    ) -> None:
        self._database = database
        self._upstreams = upstreams
        self._definitions = definitions
        self._remotes = remotes
        self._local = local

    async def __call__(self, repository: int, digest: str, size: int) -> str | None:
        """
        Bring a blob of `size` bytes to a repository that does not hold it; from where.

        None: the repository came from nowhere, or nothing that it came from has the blob. Failures are logged.
        """
        row = await self._database.fetch_one(_PATH, repository=repository)
        if row is None:
            return None
        place = Place(repository, row[0])
        for definition, path in await self._sources(repository):
            try:
                return await self._fetch(place, await self._definitions.remote(definition, path), digest, size)
            except FAILURES as error:
                _log.warning(
                    "blob not fetched again",
                    extra={"repository": repository, "digest": digest, "reason": str(error)},
                )
        return None

    async def _fetch(self, place: Place, remote: Remote, digest: str, size: int) -> str:
        async with self._remotes.connect(remote) as there:
            await self._local.store_blob(place, digest, size, lambda offset: there.read_blob(digest, size, offset))
        return remote.full_name

    async def _sources(self, repository: int) -> list[tuple[str, str]]:
        """The remotes that a repository came from, and what it is called there."""
        rows = await self._database.fetch_all(_POLLED, repository=repository)
        found = [(row[0], row[1]) for row in rows]
        source = await self._upstreams.source_of(repository)
        return found if source is None else [(source.upstream.remote, source.path), *found]
