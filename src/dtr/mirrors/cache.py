"""
The pull-through cache: what is asked for and is not here is fetched from the upstream, and stored on the way.

A manifest is stored as it comes, before what it names, which follows when somebody asks for it; so an index is
here with the one image that is used of it. A blob is fetched only when a manifest of the repository names it.

A tag is believed for the upstream's `max_age`; then one HEAD tells whether it moved. When the upstream does not
answer, what is here is served. What it does not have is remembered for a moment, and one that fails or is busy is
left alone for as long as it says, or a moment. What several ask for at the same time is fetched once in a process;
two processes may fetch the same, and the later one changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct
from sqlalchemy import BigInteger, Text, and_, bindparam, case, func, or_, select
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, now
from dtr.db.schema import (
    blobs,
    cached_repositories,
    cached_tags,
    manifest_references,
    manifests,
    pulls,
    repositories,
    repository_blobs,
    tags,
    upstreams,
)
from dtr.events import Actor
from dtr.mirrors.downloads import Download
from dtr.mirrors.errors import UpstreamFailed
from dtr.mirrors.local import read_manifest
from dtr.oci import Digest, OciError, Tag, parse_manifest, parse_repository_name
from dtr.oci.media_types import IMAGE_CONFIGS
from dtr.registry import (
    BlobUnknown,
    DigestMismatch,
    ManifestUnknown,
    NamespaceUnknown,
    RepositoryExists,
    RepositoryUnknown,
    Settings,
    TagImmutable,
)
from dtr.remotes import (
    DefinitionError,
    RemoteBroken,
    RemoteBusy,
    RemoteDenied,
    RemoteError,
    RemoteRefused,
    RemoteUnknown,
)
from dtr.vault import VaultError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Hashable
    from pathlib import Path

    from dtr.db import Database, Transaction
    from dtr.mirrors.upstreams import Source, Upstreams
    from dtr.registry import ImageConfigs, Manifests, Repositories, StoredManifest, Uploads
    from dtr.remotes import Definitions, Remote, RemoteManifest, RemoteRepository, Remotes

_log = logging.getLogger("dtr.cache")
T = TypeVar("T")

_PATIENCE_SECONDS = 2.0
"""So long a client is kept waiting because the upstream is busy."""
_ABSENT_SECONDS = 30.0
"""So long it is remembered that the upstream does not have something."""
_MOST_REMEMBERED = 10_000
_REST_SECONDS = 15.0
"""So long an upstream that fails is left alone, unless it says more."""
_LONGEST_REST_SECONDS = 3600.0
_BELIEVED_SECONDS = 10.0
"""So long a process does not look again into the database how old a tag is."""
_KEPT_SECONDS = 60.0
"""So long a connection without use is kept."""
_BATCH = 500

_repository = bindparam("repository", type_=BigInteger)
_AGE = Statement(
    lambda: select(now() - cached_tags.c.checked_at).where(
        cached_tags.c.repository_id == _repository, cached_tags.c.name == bindparam("tag")
    )
)
_checked = insert(cached_tags).from_select(
    ["repository_id", "name", "checked_at"],
    select(tags.c.repository_id, tags.c.name, now()).where(
        tags.c.repository_id == _repository, tags.c.name == bindparam("tag", type_=Text)
    ),
)
_CHECKED = Statement(
    lambda: _checked.on_conflict_do_update(
        index_elements=["repository_id", "name"], set_={"checked_at": _checked.excluded.checked_at}
    )
)
_TAG_IS_HERE = Statement(
    lambda: select(tags.c.name).where(tags.c.repository_id == _repository, tags.c.name == bindparam("reference"))
)
_MANIFEST_IS_HERE = Statement(
    lambda: select(manifests.c.digest).where(
        manifests.c.repository_id == _repository, manifests.c.digest == bindparam("reference")
    )
)
_BLOB_IS_HERE = Statement(
    lambda: (
        select(blobs.c.digest)
        .join(repository_blobs, repository_blobs.c.digest == blobs.c.digest)
        .where(
            repository_blobs.c.repository_id == _repository,
            repository_blobs.c.digest == bindparam("digest"),
            blobs.c.state == "present",
        )
    )
)
_NAMED = Statement(  # whether an index that is here names a manifest
    lambda: (
        select(manifest_references.c.manifest)
        .where(
            manifest_references.c.repository_id == _repository,
            manifest_references.c.kind == "manifest",
            manifest_references.c.target == bindparam("digest"),
        )
        .limit(1)
    )
)
_NAMES_BLOB = Statement(
    lambda: (
        select(manifests.c.repository_id, manifests.c.media_type, manifests.c.payload)
        .join_from(repositories, cached_repositories, cached_repositories.c.repository_id == repositories.c.id)
        .join(
            manifest_references,
            and_(
                manifest_references.c.repository_id == repositories.c.id,
                manifest_references.c.kind == "blob",
                manifest_references.c.target == bindparam("digest"),
            ),
        )
        .join(
            manifests,
            and_(
                manifests.c.repository_id == repositories.c.id,
                manifests.c.digest == manifest_references.c.manifest,
            ),
        )
        .where(
            repositories.c.path == bindparam("path"),
            repositories.c.deleted_at.is_(None),
            cached_repositories.c.upstream_id.is_not(None),
        )
        .limit(1)
    )
)
_later = case(
    (func.coalesce(pulls.c.last_pulled_at, 0) > tags.c.updated_at, pulls.c.last_pulled_at),
    else_=tags.c.updated_at,
)
_UNUSED = Statement(
    lambda: (
        select(tags.c.repository_id, tags.c.name, tags.c.manifest, repositories.c.path, upstreams.c.id)
        .join_from(upstreams, cached_repositories, cached_repositories.c.upstream_id == upstreams.c.id)
        .join(repositories, repositories.c.id == cached_repositories.c.repository_id)
        .join(tags, tags.c.repository_id == repositories.c.id)
        .outerjoin(pulls, and_(pulls.c.repository_id == tags.c.repository_id, pulls.c.reference == tags.c.name))
        .where(
            upstreams.c.keep_for.is_not(None),
            repositories.c.deleted_at.is_(None),
            or_(
                tags.c.repository_id > _repository,
                and_(tags.c.repository_id == _repository, tags.c.name > bindparam("tag", type_=Text)),
            ),
            _later < now() - upstreams.c.keep_for,
        )
        .order_by(tags.c.repository_id, tags.c.name)
        .limit(_BATCH)
    )
)


class Wanted(Struct, frozen=True):
    """A blob of `size` bytes that a manifest of a repository names, and that is not here."""

    repository: int
    digest: Digest
    size: int
    is_config: bool
    """Of an image."""


class Cache:
    """Fetches for the caches among the repositories. Who may pull from them is not decided here."""

    def __init__(
        self,
        database: Database,
        upstreams: Upstreams,
        *,
        remotes: Remotes,
        definitions: Definitions,
        repositories: Repositories,
        uploads: Uploads,
        manifests: Manifests,
        configs: ImageConfigs,
        is_read_only: Callable[[], bool],
        directory: Path | None = None,
    ) -> None:
        """`manifests` takes what lacks its blobs; blobs of stores without files pass through `directory`."""
        self.upstreams = upstreams
        self._database = database
        self._definitions = definitions
        self._repositories = repositories
        self._uploads = uploads
        self._manifests = manifests
        self._configs = configs
        self._is_read_only = is_read_only
        self._directory = directory
        self._connections = _Connections(remotes)
        self._flights = _Flights()
        self._downloads: dict[tuple[int, str], Download] = {}
        self._absent = _Memory()
        self._believed = _Memory()
        self._resting: dict[str, tuple[float, UpstreamFailed]] = {}

    async def close(self) -> None:
        """Give up what is being fetched, and the connections."""
        await self._flights.close()
        await self._connections.close()

    # --- manifests ---

    async def fetch(self, repository: int, reference: Tag | Digest) -> None:
        """
        Bring the manifest that a tag or digest names at the upstream into a repository.

        Raises ManifestUnknown, also when the repository is no cache, and UpstreamFailed.
        """
        source = await self.upstreams.source_of(repository)
        if source is None or not await self._is_wanted(repository, source, reference):
            raise ManifestUnknown(reference)
        # A repository that has another name now and the one that came to be at its old name have the same source.
        key = (repository, source, reference)
        await self._flights.share(key, lambda: self._bring(repository, source, reference))

    async def fetch_into(self, path: str, source: Source, reference: Tag | Digest) -> None:
        """
        The same for a path at which there is no repository: it is made when the upstream has the manifest.

        `source` is what `Upstreams.source_for` says of the path.
        """
        if not isinstance(reference, Tag) and source.upstream.tag_patterns:
            raise ManifestUnknown(reference)
        if isinstance(reference, Tag) and not source.upstream.fetches(reference):
            raise ManifestUnknown(reference)

        async def work() -> None:
            found = await self._get(source, reference)
            repository = await self._make(path, source)
            key = (repository, source, reference)  # whoever finds the repository by now waits, too
            try:
                await self._flights.share(key, lambda: self._store(repository, source, found, reference))
            finally:
                await self.upstreams.refresh()

        try:
            repository = await self._manifests.find_repository(path)
        except RepositoryUnknown:
            await self._flights.share((path, source, reference), work)
        else:  # somebody else was first
            await self.fetch(repository, reference)

    async def check(self, found: StoredManifest, tag: Tag) -> bool:
        """
        Ask the upstream for a tag that was found here, when that is due; whether it has to be looked for again.

        An upstream that fails leaves things as they are; that is logged.
        """
        key = (found.repository, tag)
        if key in self._believed:
            return False
        source = await self.upstreams.source_of(found.repository)
        if source is None or not source.upstream.fetches(tag):
            self._believed.add(key, _BELIEVED_SECONDS)
            return False
        row = await self._database.fetch_one(_AGE, repository=found.repository, tag=tag)
        left = (source.upstream.max_age - int(row[0])) / 1000 if row else 0
        if left > 0:
            self._believed.add(key, min(left, _BELIEVED_SECONDS))
            return False
        try:
            changed = await self._flights.share(
                ("check", *key), lambda: self._check(found, source, tag, is_ours=row is None)
            )
        except (UpstreamFailed, RemoteDenied, ManifestUnknown, TagImmutable) as error:
            self._believed.add(key, _BELIEVED_SECONDS)
            _log.warning(
                "tag not checked",
                extra={"repository": found.repository, "reference": tag, "reason": str(error)},
            )
            return False
        return changed

    async def _is_wanted(self, repository: int, source: Source, reference: Tag | Digest) -> bool:
        """Whether it is one of those that the upstream's owner lets in."""
        if isinstance(reference, Tag):
            return source.upstream.fetches(reference)
        if not source.upstream.tag_patterns:
            return True
        return await self._database.fetch_one(_NAMED, repository=repository, digest=reference) is not None

    async def _bring(self, repository: int, source: Source, reference: Tag | Digest) -> None:
        """Fetch and store a manifest, unless somebody else just did."""
        here = _TAG_IS_HERE if isinstance(reference, Tag) else _MANIFEST_IS_HERE
        if await self._database.fetch_one(here, repository=repository, reference=reference) is None:
            await self._store(repository, source, await self._get(source, reference), reference)

    async def _check(self, found: StoredManifest, source: Source, tag: Tag, *, is_ours: bool) -> bool:
        """Look whether the tag moved at the upstream; whether something changed."""
        async with self._asking(source) as there:
            head = await there.head_manifest(tag)
        if head is not None and head.digest != found.digest:
            await self._store(found.repository, source, await self._get(source, head.digest), tag)
            return True
        if head is None:
            if is_ours:  # it was promoted here, or this was no cache then
                return False
            await self._manifests.delete_tags(
                found.repository, [tag], by=source.upstream.actor, unless_moved={tag: found.digest}
            )
            return True
        await self._note(found.repository, tag)
        return False

    async def _get(self, source: Source, reference: Tag | Digest) -> RemoteManifest:
        """The manifest from the upstream, which is asked once. Raises ManifestUnknown, UpstreamFailed."""
        return await self._flights.share((source, reference), lambda: self._ask(source, reference))

    async def _ask(self, source: Source, reference: Tag | Digest) -> RemoteManifest:
        key = (source.upstream.remote, source.path, reference)
        if key in self._absent:
            raise ManifestUnknown(reference)
        try:
            async with self._asking(source) as there:
                return await there.get_manifest(reference)
        except (RemoteUnknown, RemoteDenied) as error:  # Docker Hub denies what it does not have
            if isinstance(error, RemoteDenied):
                _log.warning(
                    "upstream denied", extra={"reference": f"{source.path}:{reference}", "reason": str(error)}
                )
            self._absent.add(key, _ABSENT_SECONDS)
            raise ManifestUnknown(reference) from None

    async def _make(self, path: str, source: Source) -> int:
        """A repository that is filled from there; its number. Raises ManifestUnknown: an ordinary one is there."""
        name = parse_repository_name(path)
        settings = Settings(visibility=source.upstream.visibility)

        async def fill(tx: Transaction, repository: int) -> None:
            await self.upstreams.fill(tx, repository, source)

        try:
            repository = await self._repositories.create(name, settings, by=source.upstream.actor, also=fill)
        except NamespaceUnknown:
            raise RepositoryUnknown(path) from None
        except RepositoryExists:  # another process was first
            repository = (await self._repositories.get(path)).id
            if await self.upstreams.source_of(repository) is None:
                raise ManifestUnknown(path) from None
        return repository

    async def _store(
        self, repository: int, source: Source, found: RemoteManifest, reference: Tag | Digest
    ) -> None:
        """
        Store a manifest; when it was asked for by a tag, that names it.

        Raises UpstreamFailed, TagImmutable.
        """
        new_tags = (reference,) if isinstance(reference, Tag) else ()
        try:
            digest, manifest = await asyncio.to_thread(read_manifest, found.content, found.media_type)
        except OciError as error:
            raise UpstreamFailed(f"it is no manifest that is taken here: {error}", retry_after=60) from None
        await self._manifests.put(
            repository, manifest, found.content, found.digest, new_tags, by=source.upstream.actor
        )
        if isinstance(reference, Tag):
            await self._note(repository, reference)
        _log.info("manifest fetched", extra={"repository": repository, "reference": reference, "digest": digest})

    async def _note(self, repository: int, tag: Tag) -> None:
        """The tag is known to be what it is at the upstream."""

        async def work(tx: Transaction) -> None:
            await tx.execute(_CHECKED, repository=repository, tag=tag)

        await self._database.unit(work)

    # --- blobs ---

    async def find_blob(self, path: str, digest: Digest) -> Wanted:
        """
        What is known of a blob that is not here.

        Raises BlobUnknown: no manifest of a cache at `path` names it.
        """
        row = await self._database.fetch_one(_NAMES_BLOB, path=path, digest=digest)
        if row is None:
            raise BlobUnknown(digest)
        repository, media_type, payload = row
        manifest = await asyncio.to_thread(parse_manifest, payload, media_type)
        blob = next(one for one in manifest.blobs if one.digest == digest)
        return Wanted(repository, digest, blob.size, blob.media_type in IMAGE_CONFIGS)

    async def fetch_blob(self, wanted: Wanted) -> Download | None:
        """
        The download of a blob, which may be under way already, and goes on when nobody waits for it any more.

        The caller has joined it, and leaves it. None: the blob is here by now. Raises BlobUnknown, UpstreamFailed.
        """
        repository, digest = wanted.repository, wanted.digest
        key = (repository, digest)
        if key not in self._downloads:
            source = await self.upstreams.source_of(repository)
            if source is None:
                raise BlobUnknown(digest)
            self._require_awake(source)
            if await self._database.fetch_one(_BLOB_IS_HERE, repository=repository, digest=digest) is not None:
                return None
            if key not in self._downloads:  # still
                download = self._downloads[key] = Download(digest, wanted.size, self._directory)
                self._flights.start(self._download(wanted, source, download))
        found = self._downloads[key]
        found.join()
        return found

    async def _download(self, wanted: Wanted, source: Source, download: Download) -> None:
        async def store() -> None:
            try:
                async with self._asking(source) as there:
                    download.source = partial(there.read_blob, wanted.digest, wanted.size)
                    await self._uploads.store(wanted.repository, wanted.digest, download)
            except RemoteUnknown:
                raise BlobUnknown(wanted.digest) from None
            except RemoteDenied as error:
                raise UpstreamFailed(str(error), retry_after=60) from None
            except DigestMismatch as error:
                raise UpstreamFailed(str(error), retry_after=60) from None

        started = time.monotonic()
        try:
            await download.run(store)
        finally:
            del self._downloads[wanted.repository, wanted.digest]
        if download.failure is not None:
            _log.warning(
                "blob not fetched",
                extra={
                    "repository": wanted.repository,
                    "digest": wanted.digest,
                    "bytes": wanted.size,
                    "reason": str(download.failure),
                },
            )
            return
        if wanted.is_config:
            self._configs.note(wanted.digest)
        _log.info(
            "blob fetched",
            extra={
                "repository": wanted.repository,
                "digest": wanted.digest,
                "bytes": wanted.size,
                "seconds": round(time.monotonic() - started, 3),
            },
        )

    # --- the upstream ---

    @contextlib.asynccontextmanager
    async def _asking(self, source: Source) -> AsyncIterator[RemoteRepository]:
        """
        The repository at the upstream.

        What it raises inside is RemoteUnknown and RemoteDenied, or becomes UpstreamFailed; that, too, when nothing
        is to be asked now.
        """
        self._require_awake(source)
        key = source.upstream.remote
        try:
            remote = await self._definitions.remote(key, source.path)
            async with self._connections.use(remote) as there:
                yield there
        except (RemoteUnknown, RemoteDenied):
            raise
        except (RemoteBroken, RemoteRefused, DefinitionError, VaultError) as error:
            raise UpstreamFailed(str(error), retry_after=60) from error
        except RemoteError as error:
            seconds = min(max(error.retry_after or 0, _REST_SECONDS), _LONGEST_REST_SECONDS)
            failure = UpstreamFailed(str(error), retry_after=round(seconds), is_busy=isinstance(error, RemoteBusy))
            self._resting[key] = (time.monotonic() + seconds, failure)
            raise failure from error

    def _require_awake(self, source: Source) -> None:
        """Raise UpstreamFailed while nothing is to be asked."""
        if self._is_read_only():
            raise UpstreamFailed("the registry is read-only at present", retry_after=60)
        until, failure = self._resting.get(source.upstream.remote, (0.0, None))
        left = until - time.monotonic()
        if failure is not None:
            if left > 0:
                raise UpstreamFailed(failure.reason, retry_after=round(left) + 1, is_busy=failure.is_busy)
            self._resting.pop(source.upstream.remote, None)

    # --- what is used no longer ---

    async def expire(self) -> AsyncGenerator[tuple[str, frozenset[str]], None]:
        """Delete tags that nobody pulled for as long as their upstreams keep them: by repository, which."""
        place: tuple[int, str] = (0, "")
        while rows := await self._database.fetch_all(_UNUSED, repository=place[0], tag=place[1]):
            place = (rows[-1][0], rows[-1][1])
            found: dict[tuple[int, str, str], dict[str, str]] = {}
            for repository, tag, digest, path, upstream in rows:
                found.setdefault((repository, path, upstream), {})[tag] = digest
            for (repository, path, upstream), named in found.items():
                by = Actor("policy", upstream, "cache")
                yield path, (await self._manifests.delete_tags(repository, named, by=by, unless_moved=named)).gone


class _Connections:
    """Connections to upstreams, kept for a while: an image is many requests."""

    def __init__(self, remotes: Remotes) -> None:
        self._remotes = remotes
        self._open: dict[Remote, _Connection] = {}
        self._opening = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def use(self, remote: Remote) -> AsyncIterator[RemoteRepository]:
        """A connection to the remote, which others may use at the same time."""
        async with self._opening:
            for other in [one for one, it in self._open.items() if it.is_over]:
                await self._open.pop(other).stack.aclose()
            connection = self._open.get(remote)
            if connection is None:
                stack = contextlib.AsyncExitStack()
                there = await stack.enter_async_context(self._remotes.connect(remote, patience=_PATIENCE_SECONDS))
                connection = self._open[remote] = _Connection(there, stack)
        connection.users += 1
        try:
            yield connection.there
        finally:
            connection.users -= 1
            connection.used_at = time.monotonic()

    async def close(self) -> None:
        """Close all."""
        async with self._opening:
            while self._open:
                await self._open.popitem()[1].stack.aclose()


class _Connection(Struct, eq=False):
    there: RemoteRepository
    stack: contextlib.AsyncExitStack
    users: int = 0
    used_at: float = 0.0

    @property
    def is_over(self) -> bool:
        return not self.users and time.monotonic() - self.used_at > _KEPT_SECONDS


class _Flights:
    """Work that goes on to its end, whoever waits for it, and that is done once for all who want it together."""

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._others: set[asyncio.Task[None]] = set()

    async def share(self, key: Hashable, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `work` gives, or what the same work of somebody else that is under way gives."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(work())
            task.add_done_callback(partial(self._end, key))
        result: T = await asyncio.shield(task)
        return result

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin work that nobody waits for."""
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def close(self) -> None:
        """Give everything up."""
        running = [*self._running.values(), *self._others]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _end(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # it was looked at, also when everybody has gone


class _Memory:
    """What holds for a while; what was learned first is forgotten first."""

    def __init__(self) -> None:
        self._until: dict[Hashable, float] = {}

    def __contains__(self, key: Hashable) -> bool:
        until = self._until.get(key)
        if until is None:
            return False
        if until > time.monotonic():
            return True
        del self._until[key]
        return False

    def add(self, key: Hashable, seconds: float) -> None:
        """Remember it for so long."""
        self._until.pop(key, None)
        if len(self._until) >= _MOST_REMEMBERED:
            del self._until[next(iter(self._until))]
        self._until[key] = time.monotonic() + seconds
