"""
Taking over what another registry left in a storage, without copying a byte.

The tree of Docker's distribution (`DistributionTree`) lies in a storage of this installation. Its blobs become
ours where they are: a row names the object in the tree, a link says which repository has it, and from then on it
lives and goes like any other. Manifests are read, and put through the same code as a push, children before the
indexes that name them; then tags are let name them. A repository gets no more than what it links to in the tree.

Pushes go on meanwhile, and come first: a tag that names something else here is left alone, and told. What is here
already costs one look, so an import that was stopped or killed is simply run again. Nothing of what the tree has
wrong ends it; all of it is told.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, OrderedDict, defaultdict
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct, field
from sqlalchemy import BigInteger, Text, bindparam, delete, exists, select, true
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts import AccountError, NameTaken
from dtr.at_once import at_once, first_failure
from dtr.db import Statement, in_list, now
from dtr.db.each import each_row
from dtr.db.schema import blobs, manifests, repositories, repository_blobs, tags
from dtr.events import SYSTEM, Actor
from dtr.oci import (
    Digest,
    ManifestInvalid,
    NameInvalid,
    OciError,
    parse_manifest,
    parse_reference,
    parse_repository_name,
)
from dtr.registry._links import link_all
from dtr.registry._objects import digest_of, give_object, take_back
from dtr.registry.distribution_tree import DistributionTree, LinkBroken
from dtr.registry.errors import (
    ManifestUnknown,
    NamespaceUnknown,
    RegistryError,
    RepositoryExists,
    RepositoryUnknown,
    TagImmutable,
    TagOfCache,
)
from dtr.registry.repositories import Settings
from dtr.registry.usage import WHOLE, Counts, count
from dtr.storage import ObjectMissing, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
    from typing import Any, Literal

    from dtr.accounts import Accounts
    from dtr.db import Database, Row, Transaction
    from dtr.oci import Manifest, RepositoryName
    from dtr.registry.distribution_tree import Portion
    from dtr.registry.lifetimes import Lifetimes
    from dtr.registry.manifests import Manifests
    from dtr.registry.repositories import Repositories
    from dtr.storage import Storages

V = TypeVar("V")

_PORTIONS_AT_ONCE = 8
_REQUESTS_AT_ONCE = 32
"""To the storage."""
_HASHED_AT_ONCE = 4
_MANIFESTS_AT_ONCE = 8
"""Of a portion; each is in memory until it is stored."""
_ATTEMPTS = 3
"""To link blobs that change while we look."""
_DEEPEST = 8
"""So deep indexes may name indexes."""
_REMEMBERED_PLACES = 1_000
_REMEMBERED_BLOBS = 50_000
"""In a dry run: those that several repositories share are counted once, as long as they are remembered."""
_MOST_TOLD = 10_000

_repository = bindparam("repository", type_=BigInteger)
_KNOWN_BLOBS = Statement(
    lambda: select(
        blobs.c.digest,
        blobs.c.size,
        blobs.c.location,
        blobs.c.state,
        exists().where(
            repository_blobs.c.repository_id == _repository, repository_blobs.c.digest == blobs.c.digest
        ),
    ).where(in_list(blobs.c.digest, "digests"))
)
_LOCK_BLOBS = Statement(
    lambda: (
        select(blobs.c.digest)
        .where(in_list(blobs.c.digest, "digests"), blobs.c.state == "present")
        .order_by(blobs.c.digest)
        .with_for_update(key_share=True)  # FOR NO KEY UPDATE
    )
)
_fresh = each_row("fresh", blobs.c.digest, blobs.c.size, blobs.c.location)
_TAKE_OVER = Statement(
    lambda: (insert(blobs)
    .from_select(
        ["digest", "size", "location", "state", "created_at"],
        select(
            _fresh.c.digest, _fresh.c.size, _fresh.c.location, bindparam("state", type_=Text), now()
        ).where(true()).order_by(_fresh.c.digest),
    )
    .on_conflict_do_nothing()
    .returning(blobs.c.digest, blobs.c.size, blobs.c.location))
)  # fmt: skip
_GIVE_UP = Statement(lambda: delete(blobs).where(in_list(blobs.c.digest, "digests")))
_KNOWN_MANIFESTS = Statement(
    lambda: select(manifests.c.digest).where(
        manifests.c.repository_id == _repository, in_list(manifests.c.digest, "digests")
    )
)
_KNOWN_TAGS = Statement(
    lambda: select(tags.c.name, tags.c.manifest).where(
        tags.c.repository_id == _repository, in_list(tags.c.name, "names")
    )
)
_SIZES = Statement(
    lambda: (
        select(blobs.c.digest, blobs.c.size)
        .join(repository_blobs, repository_blobs.c.digest == blobs.c.digest)
        .where(repository_blobs.c.repository_id == _repository, in_list(blobs.c.digest, "digests"))
    )
)
_LOCK_REPOSITORY = Statement(
    lambda: (
        select(repositories.c.id)
        .where(repositories.c.id == _repository, repositories.c.deleted_at.is_(None))
        .with_for_update(read=True, key_share=True)
    )
)


class ImportRefused(RegistryError):
    """What is asked for cannot be imported."""


class ImportPlan(Struct, frozen=True, kw_only=True):
    """
    What is imported, and what becomes of it.

    `names` says what repositories are called here: a name, or the parts of one that stand in front, and what takes
    their place. Those that have one part only then go to `namespace`, or nowhere.
    """

    storage: str = "default"
    prefix: str = ""
    """What stands before ``docker/registry/v2`` in the storage."""
    names: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    create_namespaces: bool = False
    """Organisations are made for namespaces that are not there."""
    visibility: Literal["public", "private"] = "private"
    """Of repositories that are made."""
    verify: bool = False
    """Every blob is read, and compared with its digest, before it is taken over."""
    dry_run: bool = False
    """Nothing is changed."""

    @property
    def place(self) -> str:
        """What stands before the tree, as a full location."""
        prefix = self.prefix.strip("/")
        return f"{self.storage}:{prefix}/" if prefix else f"{self.storage}:"

    def name_of(self, repository: str) -> RepositoryName:
        """What a repository of the tree is called here. Raises NameInvalid."""
        parts = repository.split("/")
        name = repository
        for length in range(len(parts), 0, -1):
            new = self.names.get("/".join(parts[:length]))
            if new is not None:
                name = "/".join([new, *parts[length:]])
                break
        if "/" not in name and self.namespace:
            name = f"{self.namespace}/{name}"
        parsed = parse_repository_name(name)
        if not parsed.rest:
            raise NameInvalid(name, "a repository is in a namespace: give one, or another name for it")
        return parsed


def parse_names(texts: Iterable[str]) -> dict[str, str]:
    """What ``OLD=NEW`` says of names, for each text. Raises ImportRefused."""
    names: dict[str, str] = {}
    for text in texts:
        old, equals, new = (part.strip().strip("/") for part in text.partition("="))
        if not (old and equals and new):
            raise ImportRefused(f"{text!r} is not OLD=NEW")
        try:
            parse_repository_name(new)
        except NameInvalid as error:
            raise ImportRefused(str(error)) from None
        if names.setdefault(old, new) != new:
            raise ImportRefused(f"{old} is to be called {names[old]} and {new}")
    return names


class _Place(Struct, frozen=True):
    """Where a repository of the tree comes to be; `id` 0: it is not there yet, and nothing is changed."""

    id: int
    name: RepositoryName


class Import:
    """One import."""

    def __init__(
        self,
        database: Database,
        storage: Storages,
        *,
        accounts: Accounts,
        repositories: Repositories,
        manifests: Manifests,
        lifetimes: Lifetimes,
        manifest_limit: int,
        plan: ImportPlan,
    ) -> None:
        """`manifest_limit` is the size of the largest manifest in bytes. Nothing is done yet."""
        self.counted: Counter[str] = Counter()
        """What came of it, in the words of `report`."""
        self.total: int | None = None
        """How many links the tree has; None: they are still being counted."""
        self.done = 0
        """How many of them were worked off."""
        self._database = database
        self._storage = storage
        self._accounts = accounts
        self._repositories = repositories
        self._manifests = manifests
        self._lifetimes = lifetimes
        self._manifest_limit = manifest_limit
        self._plan = plan
        self._tree = DistributionTree(storage, plan.place)
        self._by = SYSTEM
        self._tell: Callable[[str], None] = lambda _: None
        self._places: _Once[_Place | None] = _Once(_REMEMBERED_PLACES)
        self._namespaces: _Once[None] = _Once(_REMEMBERED_PLACES)
        self._looks: _Once[int | str] = _Once(_REMEMBERED_BLOBS if plan.dry_run else 0)
        self._requests = asyncio.Semaphore(_REQUESTS_AT_ONCE)
        self._hashing = asyncio.Semaphore(_HASHED_AT_ONCE)

    @property
    def report(self) -> str:
        """What came of it, in a line."""
        counted = self.counted
        made = f"{counted['repositories']} repositories, {counted['namespaces']} namespaces made"
        taken = f"{counted['blobs']} blobs of {counted['bytes']} bytes taken over, {counted['links']} links"
        images = f"{counted['manifests']} manifests, {counted['tags']} tags"
        elsewhere = f"{counted['duplicates']} links to blobs that are kept elsewhere"
        here = f"{counted['present']} were here already, {elsewhere}"
        start = "nothing is changed; it would be: " if self._plan.dry_run else ""
        return f"{start}{made}; {taken}; {images}; {here}; {counted['problems']} problems"

    async def run(self, tell: Callable[[str], None], *, by: Actor = SYSTEM) -> None:
        """
        Import everything, and tell what is wrong with it.

        Raises ImportRefused, when there is nothing, VisibilityInvalid, StorageError, DatabaseError.
        """
        self._tell, self._by = tell, by
        Settings(visibility=self._plan.visibility).check()
        try:
            await self._storage.prepare(self._plan.place)
        except StorageUnavailable as error:
            raise ImportRefused(str(error)) from None
        if not await self._tree.is_there():
            raise ImportRefused(f"there is no tree of a registry at {self._plan.place}")
        if not await self._tree.has_repositories():
            raise ImportRefused(
                f"there are blobs at {self._plan.place}, and nothing says what repositories have: DTR 2.6 and"
                " later keep that in their database. Let that DTR run, and pull and push its images, or let a"
                " mirroring policy poll them"
            )
        try:
            async with asyncio.TaskGroup() as group:
                counting = group.create_task(self._count())
                await self._take_all(group)
                counting.cancel()
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None
        finally:
            for one in (self._looks, self._places, self._namespaces):
                one.cancel()
        self.total = self.done
        if self.counted["problems"] > _MOST_TOLD:
            self._tell(f"{self.counted['problems'] - _MOST_TOLD} more problems are counted alone")

    async def _count(self) -> None:
        self.total = await self._tree.count()

    async def _take_all(self, group: asyncio.TaskGroup) -> None:
        turns = asyncio.Semaphore(_PORTIONS_AT_ONCE)
        before: tuple[str, asyncio.Task[None]] | None = None
        working: set[asyncio.Task[None]] = set()
        async with aclosing(self._tree.portions()) as portions:
            async for portion in portions:
                if before is not None and before[0] == portion.repository:
                    await asyncio.wait([before[1]])
                await turns.acquire()
                task = group.create_task(self._take(portion))
                working.add(task)
                task.add_done_callback(working.discard)
                task.add_done_callback(lambda _: turns.release())
                before = portion.repository, task
        if working:
            await asyncio.wait(working)

    async def _take(self, portion: Portion) -> None:
        for link in portion.broken:
            self._problem(portion.repository, f"link {link} is broken")
        place = await self._places.get(portion.repository, partial(self._find_place, portion.repository))
        if place is not None:
            try:
                if portion.layers:
                    await self._take_layers(portion.repository, place, portion.layers)
                if portion.manifests:
                    await self._take_manifests(portion.repository, place, portion.manifests)
                if portion.tags:
                    await self._take_tags(portion.repository, place, portion.tags)
            except RepositoryUnknown:  # deleted meanwhile
                self._problem(portion.repository, f"repository {place.name} is not there any more")
        self.done += len(portion)

    def _problem(self, repository: str, text: str) -> None:
        self.counted["problems"] += 1
        if self.counted["problems"] <= _MOST_TOLD:
            self._tell(f"{repository}: {text}")

    # --- repositories ---

    async def _find_place(self, repository: str) -> _Place | None:
        """Where a repository is or comes to be; None, which is told: nowhere."""
        try:
            name = self._plan.name_of(repository)
            place = await self._find(name)
            return place if place is not None else await self._make(name)
        except (NameInvalid, NamespaceUnknown, AccountError) as error:
            self._problem(repository, str(error))
            return None

    async def _find(self, name: RepositoryName) -> _Place | None:
        try:
            return _Place((await self._repositories.get(name)).id, name)
        except RepositoryUnknown:
            return None

    async def _make(self, name: RepositoryName) -> _Place | None:
        await self._require_namespace(name.namespace)
        self.counted["repositories"] += 1
        if self._plan.dry_run:
            return _Place(0, name)
        try:
            settings = Settings(visibility=self._plan.visibility)
            return _Place(await self._repositories.create(name, settings, by=self._by), name)
        except RepositoryExists:  # somebody else made it at this moment
            self.counted["repositories"] -= 1
            return await self._find(name)

    async def _require_namespace(self, name: str) -> None:
        """Make the namespace, if that is wanted. Raises NamespaceUnknown, AccountError."""
        if await self._accounts.find(name) is not None:
            return
        if not self._plan.create_namespaces:
            raise NamespaceUnknown(name)
        await self._namespaces.get(name, partial(self._make_namespace, name))

    async def _make_namespace(self, name: str) -> None:
        if not self._plan.dry_run:
            try:
                await self._accounts.create_organization(name, by=self._by)
            except NameTaken:  # somebody else made it at this moment
                return
        self.counted["namespaces"] += 1

    # --- blobs ---

    async def _take_layers(self, repository: str, place: _Place, digests: list[Digest], attempt: int = 1) -> None:
        rows = await self._database.fetch_all(_KNOWN_BLOBS, repository=place.id, digests=digests)
        known: dict[str, Row] = {row[0]: row for row in rows}
        present = {digest for digest, row in known.items() if row[3] == "present"}
        linked = {digest for digest in present if known[digest][4]}
        self.counted["present"] += len(linked)
        wanted = [digest for digest in digests if digest not in linked]
        sizes = await self._look_at(repository, [digest for digest in wanted if digest not in present])
        for digest in sorted(sizes.keys() & known.keys()):  # marked as missing
            if not await self._heal(digest, sizes.pop(digest)):
                self._problem(repository, f"blob {digest} is missing, and is not brought back from here")
            else:
                present.add(digest)
        elsewhere = sum(1 for one in wanted if one in known and known[one][2] != self._tree.blob(one))
        self.counted["duplicates"] += elsewhere
        there = sorted(digest for digest in wanted if digest in present or digest in sizes)
        if self._plan.dry_run:
            self.counted["links"] += len(there)
        elif there:
            gone = await self._link(repository, place, there, sizes)
            if gone and attempt == _ATTEMPTS:
                self._problem(repository, f"blobs {', '.join(gone)} come and go at this moment")
            elif gone:
                await self._take_layers(repository, place, gone, attempt + 1)

    async def _look_at(self, repository: str, digests: list[Digest]) -> dict[str, int]:
        """The sizes of those blobs of the tree that can be taken over; of the others it is told why not."""
        found = await asyncio.gather(*(self._looks.get(digest, partial(self._look, digest)) for digest in digests))
        sizes = {}
        for digest, one in zip(digests, found, strict=True):
            if isinstance(one, str):
                self._problem(repository, one)
            else:
                sizes[str(digest)] = one
        return sizes

    async def _look(self, digest: str) -> int | str:
        """The size of a blob of the tree, or what is wrong with it."""
        location = self._tree.blob(digest)
        try:
            async with self._requests:
                size = await self._tree.size(digest)
            if self._plan.verify:
                async with self._hashing:
                    actual = await digest_of(self._storage, location, digest.partition(":")[0])
                if actual != digest:
                    return f"blob {digest} has other content: {actual}"
        except ObjectMissing:
            return f"blob {digest} is not there"
        if self._plan.dry_run:
            self.counted["blobs"] += 1
            self.counted["bytes"] += size
        return size

    async def _heal(self, digest: str, size: int) -> bool:
        """Let a blob that is marked as missing have the object in the tree, if that is whole."""
        location = self._tree.blob(digest)
        try:
            async with self._hashing:
                if await digest_of(self._storage, location, digest.partition(":")[0]) != digest:
                    return False
        except ObjectMissing:
            return False
        if self._plan.dry_run:
            return True
        delay = self._lifetimes.delete_delay
        return await self._database.unit(lambda tx: give_object(tx, digest, location, size, delete_delay=delay))

    async def _link(
        self, repository: str, place: _Place, digests: list[Digest], sizes: dict[str, int]
    ) -> list[Digest]:
        """Let the repository have these blobs, of which those in `sizes` are the tree's; which have changed."""
        taken, lost, gone = await self._database.unit(partial(self._link_in, place, digests, sizes))
        self.counted["blobs"] += len(taken)
        self.counted["bytes"] += sum(taken.values())
        self.counted["links"] += len(digests) - len(lost) - len(gone)
        for digest in lost:
            self._problem(repository, f"blob {digest} is just being deleted, or in quarantine")
        return [digest for digest in digests if digest in gone]

    async def _link_in(
        self, place: _Place, digests: list[Digest], sizes: dict[str, int], tx: Transaction
    ) -> tuple[dict[str, int], set[str], set[str]]:
        """
        What was taken over, with its size; what cannot be had; and what is another matter than when we looked.

        The last went with its last link, was marked as missing, or was pushed meanwhile.
        """
        if await tx.fetch_one(_LOCK_REPOSITORY, repository=place.id) is None:
            raise RepositoryUnknown(place.name)
        here = {row[0] for row in await tx.fetch_all(_LOCK_BLOBS, digests=digests)}
        fresh = [(one, sizes[one], self._tree.blob(one)) for one in digests if one in sizes and one not in here]
        rows = await tx.fetch_all(_TAKE_OVER, fresh=json.dumps(fresh), state="present") if fresh else []
        by_location = {location: (digest, size) for digest, size, location in rows}
        # Now that rows name them, nobody leaves tombstones for them any more.
        gone = await take_back(tx, by_location, hashed=self._plan.verify) if by_location else set()
        lost = {by_location[one][0] for one in gone}
        if lost:
            await tx.execute(_GIVE_UP, digests=sorted(lost))
        taken = {digest: size for digest, size in by_location.values() if digest not in lost}
        await link_all(tx, place.id, sorted(here | taken.keys()), hold=self._lifetimes.hold)
        if taken:
            await count(tx, {WHOLE: Counts(bytes=sum(taken.values()))})
        return taken, lost, {str(one) for one in digests} - here - taken.keys() - lost

    # --- manifests ---

    async def _take_manifests(self, repository: str, place: _Place, digests: list[Digest]) -> None:
        known = await self._known_manifests(place, digests)
        self.counted["present"] += len(known)
        indexes: list[tuple[Digest, Manifest, bytes]] = []
        tried: set[str] = set(known)

        async def take(digest: Digest) -> None:
            tried.add(digest)
            read = await self._read_manifest(repository, digest)
            if read is None:
                return
            if read[0].children:
                indexes.append((digest, *read))
            else:
                await self._put_manifest(repository, place, digest, *read)

        await at_once(take, [digest for digest in digests if digest not in known], _MANIFESTS_AT_ONCE)
        waiting = {one[0]: one[1:] for one in indexes}
        tried -= waiting.keys()
        for digest in sorted(waiting):
            if digest not in tried:
                await self._take_index(repository, place, digest, *waiting[digest], tried, 1)

    async def _known_manifests(self, place: _Place, digests: Iterable[str]) -> set[str]:
        """Those of the manifests that are here."""
        rows = await self._database.fetch_all(_KNOWN_MANIFESTS, repository=place.id, digests=sorted(digests))
        return {row[0] for row in rows}

    async def _take_index(
        self,
        repository: str,
        place: _Place,
        digest: Digest,
        manifest: Manifest,
        payload: bytes,
        tried: set[str],
        depth: int,
    ) -> None:
        """Its children first, wherever in the tree they stand. What is in `tried` was looked at."""
        tried.add(digest)
        children = {child.digest for child in manifest.children if child.digest not in tried}
        if self._plan.dry_run or depth > _DEEPEST:
            children.clear()
        for child in sorted(children - await self._known_manifests(place, children)):
            if child in tried or not await self._tree.has_manifest(repository, child):
                continue
            tried.add(child)
            read = await self._read_manifest(repository, child)
            if read is not None and read[0].children:
                await self._take_index(repository, place, child, *read, tried, depth + 1)
            elif read is not None:
                await self._put_manifest(repository, place, child, *read)
        await self._put_manifest(repository, place, digest, manifest, payload)

    async def _read_manifest(self, repository: str, digest: Digest) -> tuple[Manifest, bytes] | None:
        """A manifest of the tree, and its bytes; None, which is told: it cannot be imported."""
        limit = self._manifest_limit
        try:
            async with self._requests:
                payload = await self._tree.read(digest, limit + 1)
            if len(payload) > limit:
                self._problem(repository, f"manifest {digest} has more than {limit} bytes")
                return None
            return await asyncio.to_thread(_parse, payload, digest), payload
        except ObjectMissing:
            self._problem(repository, f"manifest {digest} is not there")
        except OciError as error:
            self._problem(repository, f"manifest {digest}: {error}")
        return None

    async def _put_manifest(
        self, repository: str, place: _Place, digest: Digest, manifest: Manifest, payload: bytes
    ) -> None:
        try:
            if self._plan.dry_run:
                await self._foresee(repository, manifest)
            else:
                await self._compare_sizes(repository, place, digest, manifest)
                await self._manifests.put(place.id, manifest, payload, digest, (), by=self._by)
            self.counted["manifests"] += 1
        except RepositoryUnknown:
            raise
        except RegistryError as error:
            self._problem(repository, f"manifest {digest}: {error}")

    async def _foresee(self, repository: str, manifest: Manifest) -> None:
        """Look whether the tree has what the manifest names. Raises ImportRefused."""
        lacking: list[str] = []

        async def look(digest: Digest, has: Callable[[str, str], Awaitable[bool]]) -> None:
            async with self._requests:
                if not await has(repository, digest):
                    lacking.append(digest)

        layers, children = {one.digest for one in manifest.blobs}, {one.digest for one in manifest.children}
        await asyncio.gather(
            *(look(one, self._tree.has_layer) for one in layers),
            *(look(one, self._tree.has_manifest) for one in children),
        )
        if lacking:
            raise ImportRefused(f"the repository lacks {', '.join(sorted(lacking))}")

    async def _compare_sizes(self, repository: str, place: _Place, digest: str, manifest: Manifest) -> None:
        named = {blob.digest: blob.size for blob in manifest.blobs}
        rows = await self._database.fetch_all(_SIZES, repository=place.id, digests=sorted(named))
        for blob, size in rows:
            if named[blob] != size:
                text = f"manifest {digest} says that blob {blob} has {named[blob]} bytes, and it has {size}"
                self._problem(repository, text)

    # --- tags ---

    async def _take_tags(self, repository: str, place: _Place, names: list[str]) -> None:
        named: dict[str, Digest] = {}

        async def read(name: str) -> None:
            digest = await self._read_tag(repository, name)
            if digest is not None:
                named[name] = digest

        await at_once(read, names, _REQUESTS_AT_ONCE)
        rows = await self._database.fetch_all(_KNOWN_TAGS, repository=place.id, names=sorted(named))
        missing: dict[Digest, list[str]] = defaultdict(list)
        known = {row[0]: row[1] for row in rows}
        for name in sorted(named):
            if name not in known:
                missing[named[name]].append(name)
            elif known[name] == named[name]:
                self.counted["present"] += 1
            else:
                self._stays(repository, name, named[name])

        async def put(digest: Digest) -> None:
            await self._put_tags(repository, place, digest, missing[digest])

        await at_once(put, sorted(missing), _MANIFESTS_AT_ONCE)

    async def _read_tag(self, repository: str, name: str) -> Digest | None:
        try:
            parse_reference(name)
            async with self._requests:
                return await self._tree.tagged(repository, name)
        except ObjectMissing:
            self._problem(repository, f"tag {name} was deleted just now")
        except LinkBroken as error:
            self._problem(repository, f"tag {name} is broken: {error}")
        except OciError as error:
            self._problem(repository, f"tag {name!r}: {error}")
        return None

    async def _put_tags(self, repository: str, place: _Place, digest: Digest, names: list[str]) -> None:
        if self._plan.dry_run:
            if await self._tree.has_manifest(repository, digest):
                self.counted["tags"] += len(names)
            else:
                self._untagged(repository, digest, names)
            return
        try:
            stored = await self._manifests.get(place.name, digest)
        except ManifestUnknown:
            self._untagged(repository, digest, names)
            return
        manifest = await asyncio.to_thread(parse_manifest, stored.payload, stored.media_type)
        waiting = list(names)
        while waiting:
            try:
                await self._manifests.put(
                    stored.repository, manifest, stored.payload, digest, tuple(waiting), moves=False, by=self._by
                )
            except RepositoryUnknown:
                raise
            except RegistryError as error:
                if isinstance(error, TagImmutable) and error.tag in waiting and not isinstance(error, TagOfCache):
                    self._stays(repository, error.tag, digest)
                    waiting.remove(error.tag)
                else:
                    self._problem(repository, f"tags {', '.join(waiting)}: {error}")
                    return
            else:
                self.counted["tags"] += len(waiting)
                return

    def _stays(self, repository: str, name: str, digest: str) -> None:
        self._problem(
            repository, f"tag {name} names something else here, and stays; in the tree it names {digest}"
        )

    def _untagged(self, repository: str, digest: str, names: list[str]) -> None:
        self._problem(repository, f"tags {', '.join(names)} name manifest {digest}, which is not imported")


class _Once(Generic[V]):
    """What is looked up once by those who want it at the same time, and remembered for the `most` latest keys."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[str, V] = OrderedDict()
        self._running: dict[str, asyncio.Task[V]] = {}

    async def get(self, key: str, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """What `work` returns for `key`, by whomever."""
        if key in self._known:
            return self._known[key]
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.create_task(work())
            running.add_done_callback(partial(self._keep, key))
        return await asyncio.shield(running)

    def cancel(self) -> None:
        """Let nobody's work go on: whoever waited was cancelled."""
        for running in self._running.values():
            running.cancel()

    def _keep(self, key: str, done: asyncio.Task[V]) -> None:
        del self._running[key]
        if not done.cancelled() and done.exception() is None and self._most:
            self._known[key] = done.result()
            if len(self._known) > self._most:
                self._known.popitem(last=False)


def _parse(payload: bytes, digest: Digest) -> Manifest:
    """The manifest that has `digest`. Raises OciError."""
    if Digest.of(payload, digest.algorithm) != digest:
        raise ManifestInvalid("it has other content")
    return parse_manifest(payload)
