"""The registry's rooms over a database and a storage, and bodies as a server hands them in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import text
from tests.support.images import Image

from dtr.accounts import Accounts, Passwords
from dtr.db import Database, Statement, open_database
from dtr.events import Actor
from dtr.http.v2.body import RequestBody
from dtr.oci import Digest, parse_manifest, parse_repository_name
from dtr.policies import TagReader
from dtr.registry import (
    Blobs,
    Collector,
    ImageConfigs,
    Images,
    Lifetimes,
    Manifests,
    Promotion,
    Repositories,
    Settings,
    Sweeper,
    Upload,
    Uploads,
    Usage,
)
from dtr.registry.collector import Collected
from dtr.registry.fsck import Fsck
from dtr.storage import Driver, Storages
from dtr.trust.index import TrustIndex

GUN = "dtr.test/acme/app"
"""The name of a collection of content trust."""


class Rooms:
    """The rooms of one process."""

    def __init__(
        self,
        database_url: str,
        open_storage: Callable[[], Driver],
        *,
        lifetimes: Lifetimes | None = None,
        blob_limit: int | None = None,
        inline_limit: int = 0,
        sparse_manifests: bool = False,
        pool_size: int = 10,
    ) -> None:
        self._database_url = database_url
        self._open_storage = open_storage
        self._peers: list[Rooms] = []
        self.lifetimes = lifetimes or Lifetimes()
        self.database: Database = open_database(database_url, size=pool_size)
        self.storage = Storages({"default": open_storage()}, "default")
        self.accounts = Accounts(self.database, Passwords(memory_kib=8, passes=1))
        self.repositories = Repositories(self.database)
        self.blobs = Blobs(self.database, self.lifetimes)
        self.uploads = Uploads(
            self.database, self.storage, self.lifetimes, blob_limit=blob_limit, inline_limit=inline_limit
        )
        self.manifests = Manifests(self.database, self.lifetimes, sparse_manifests=sparse_manifests)
        self.promotion = Promotion(self.database, self.lifetimes, sparse_manifests=sparse_manifests)
        self.usage_counts = Usage(self.database)
        self.image_configs = ImageConfigs(self.database, self.storage)
        self.images = Images(self.database, self.image_configs)
        self.signed = TrustIndex(self.database)
        self.tag_reader = TagReader(self.database, self.images, trust=self.signed.signed)
        self.sweeper = Sweeper(self.database, self.storage)
        self.collector = Collector(self.database, self.lifetimes)
        self.fsck = Fsck(self.database, self.storage)

    def another(self, **changes: Any) -> Rooms:
        """The rooms of another process or host: the same data, nothing of it in common memory."""
        peer = Rooms(self._database_url, self._open_storage, **{"lifetimes": self.lifetimes, **changes})
        self._peers.append(peer)
        return peer

    async def close(self) -> None:
        for peer in self._peers:
            await peer.close()
        await self.image_configs.close()
        await self.storage.close()
        await self.database.close()

    # --- making things ---

    async def make_repository(self, path: str = "acme/app", **settings: Any) -> int:
        """A repository, and its namespace when there is none; its id."""
        namespace = path.partition("/")[0]
        if not await self.query("SELECT id FROM accounts WHERE name = :name", name=namespace):
            await self.accounts.create_organization(namespace)
        return await self.repositories.create(parse_repository_name(path), Settings(**settings))

    async def push_blob(self, repository: int, content: bytes, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(content, algorithm)
        upload = await self.uploads.start(repository, algorithm)
        await self.uploads.finish(upload, digest, make_body(content))
        return digest

    async def push(self, repository: int, image: Image, *tags: str, author: str = "ada") -> Digest:
        """All blobs, all children, then the manifest."""
        for content in image.blobs:
            await self.push_blob(repository, content)
        for child in image.children:
            await self.push(repository, child)
        return await self.put(repository, image, *tags, author=author)

    async def put(self, repository: int, image: Image, *tags: str, author: str = "ada") -> Digest:
        """The manifest alone."""
        manifest = parse_manifest(image.payload, image.media_type)
        digest = Digest.of(image.payload)
        await self.manifests.put(
            repository, manifest, image.payload, digest, tags, by=Actor("user", f"id of {author}", author)
        )
        return digest

    async def sign(self, repository: int, tag: str, digest: str, *, role: str = "targets", gun: str = GUN) -> None:
        """Let the index of content trust have a tag, as a publication of the role would write it down."""
        await sign(self.database, repository, tag, digest, role=role, gun=gun)

    # --- looking ---

    async def read(self, path: str, digest: str) -> bytes:
        """The content of a blob, through the repository."""
        blob = await self.blobs.get(path, digest, content=True)
        return blob.content if blob.location is None else await read_object(self.storage, blob.location)

    async def locations(self) -> list[str]:
        """Where the storage has objects."""
        async with aclosing(self.storage.list()) as found:
            return [stored.location async for stored in found]

    async def findings(self, **how: Any) -> list[tuple[bool, str]]:
        """What an audit says."""
        return [(found.is_damage, found.text) async for found in Fsck(self.database, self.storage).run(**how)]

    async def query(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.database.fetch_all(Statement(text(sql)), **parameters)]

    async def change(self, sql: str, **parameters: Any) -> int:
        """Change rows by hand; how many."""
        statement = Statement(text(sql))
        return await self.database.unit(lambda tx: tx.execute(statement, **parameters))

    async def count(self, table: str) -> int:
        return int((await self.query(f"SELECT count(*) FROM {table}"))[0][0])

    async def usage(self) -> dict[str, int]:
        """Bytes by scope, as counted; scopes with nothing are left out."""
        rows = await self.query(
            "SELECT scope, sum(bytes) FROM (SELECT scope, bytes FROM usage_deltas"
            " UNION ALL SELECT scope, bytes FROM usage) AS counted GROUP BY scope"
        )
        return {scope: int(total) for scope, total in rows if total}

    async def expire_uploads(self) -> None:
        await self.change("UPDATE uploads SET expires_at = 0")

    async def pass_time(self, milliseconds: int) -> None:
        """Let time pass, as far as anybody notices: every date is so much nearer."""
        for table, column in (
            ("manifests", "review_at"),
            ("repository_blobs", "review_at"),
            ("uploads", "expires_at"),
            ("gc_objects", "delete_after"),
            ("gc_objects", "repeat_after"),
        ):
            await self.change(
                f"UPDATE {table} SET {column} = {column} - CAST(:passed AS BIGINT) WHERE {column} IS NOT NULL",
                passed=milliseconds,
            )

    async def make_reviews_due(self) -> None:
        """Let the time of every review come that is still to come."""
        for table in ("manifests", "repository_blobs"):
            await self.change(f"UPDATE {table} SET review_at = 0 WHERE review_at > 0")

    async def collect_all(self) -> Collected:
        """Let time pass, and collect until there is nothing more to do."""
        total = Collected()
        while True:
            await self.make_reviews_due()
            done = await self.collector.collect()
            total += done
            if not done.went_on:
                return total

    async def make_due(self) -> None:
        """Let all tombstones be due that no sweeper is busy with."""
        free = "" if self.database.dialect == "sqlite" else " ORDER BY location FOR UPDATE SKIP LOCKED"
        await self.change(
            f"UPDATE gc_objects SET delete_after = 0 WHERE location IN (SELECT location FROM gc_objects{free})"
        )

    async def upload_again(self, upload: Upload) -> Upload:
        """The session as another request sees it."""
        return await self.uploads.get(upload.repository, upload.id)


async def sign(
    database: Database, repository: int, tag: str, digest: str, *, role: str = "targets", gun: str = GUN
) -> None:
    """Let the index of content trust have a tag, without the files that sign it."""

    async def work(tx: Any) -> None:
        for statement in _SIGN:
            await tx.execute(
                statement, repository=repository, gun=gun, role=role, tag=tag, digest=digest, content=b"{}"
            )

    await database.unit(work)


_SIGN = [
    Statement(text(f"INSERT INTO {one}"))
    for one in (
        """trust_files (repository_id, gun, role, version, sha256, content, created_at)
        VALUES (:repository, :gun, :role, 1, 'none', :content, 1000),
        (:repository, :gun, 'timestamp', 1, 'none', :content, 1000) ON CONFLICT DO NOTHING""",
        """trust_roles (repository_id, gun, role, version, expires_at)
        VALUES (:repository, :gun, :role, 1, 4000000000000), (:repository, :gun, 'timestamp', 1, 4000000000000)
        ON CONFLICT DO NOTHING""",
        """trust_targets (repository_id, gun, role, name, digest, length, signed_at)
        VALUES (:repository, :gun, :role, :tag, :digest, 1, 2000) ON CONFLICT (repository_id, name, gun, role)
        DO UPDATE SET digest = excluded.digest, forgotten_at = NULL""",
    )
]


@dataclass
class Counter:
    """What a database was asked while it watched: statements outside of units, units, and their statements."""

    reads: int = 0
    units: int = 0
    statements: int = 0
    _undo: list[Callable[[], None]] = field(default_factory=list)

    def watch(self, database: Database) -> Counter:
        unit = database.unit

        def observe(kind: str, _seconds: float) -> None:
            if kind == "read":
                self.reads += 1
            else:
                self.units += 1

        async def counted(work: Any, **how: bool) -> Any:
            return await unit(lambda tx: work(_CountingTransaction(tx, self)), **how)

        database.observe = observe
        database.unit = counted  # type: ignore[method-assign]
        return self

    def reset(self) -> None:
        self.reads = self.units = self.statements = 0

    @property
    def seen(self) -> tuple[int, int]:
        """Reads and units since the last look."""
        seen = self.reads, self.units
        self.reset()
        return seen


class _CountingTransaction:
    def __init__(self, transaction: Any, counter: Counter) -> None:
        self._transaction = transaction
        self._counter = counter

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._transaction, name)

        def counted(statement: Any, *rows: Any, **parameters: Any) -> Any:
            # execute_many runs its statement for each row.
            self._counter.statements += len(rows[0]) if rows else 1
            return call(statement, *rows, **parameters)

        return counted


def make_body(*pieces: bytes, length: int | None = -1, cut: bool = False) -> RequestBody:
    """
    The body of a request that sends `pieces`.

    `length` as announced: -1 is the true one, None none (chunked). With `cut` the client goes away at the end.
    """
    if length == -1:
        length = sum(map(len, pieces))
    return RequestBody(*_request(_messages(pieces, cut=cut), length))


class SlowBody:
    """A body that comes when it is told to: `await send(piece)`, which returns when the piece was taken."""

    def __init__(self, length: int | None = None) -> None:
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._taken = asyncio.Semaphore(0)
        self._waiting = asyncio.Event()
        self.body = RequestBody(*_request(self._receive, length))

    async def _receive(self) -> dict[str, Any]:
        self._waiting.set()
        return await self._messages.get()

    async def begun(self) -> None:
        """Until somebody reads it."""
        await self._waiting.wait()

    async def send(self, piece: bytes) -> None:
        await self.begun()
        self._waiting.clear()
        self._messages.put_nowait({"type": "http.request", "body": piece, "more_body": True})
        await self._waiting.wait()

    def end(self) -> None:
        self._messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})

    def cut(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})


def _messages(pieces: Iterable[bytes], *, cut: bool) -> Callable[[], Any]:
    waiting: list[dict[str, Any]] = [{"type": "http.request", "body": one, "more_body": True} for one in pieces]
    waiting.append(
        {"type": "http.disconnect"} if cut else {"type": "http.request", "body": b"", "more_body": False}
    )
    following = iter(waiting)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0)
        return next(following)

    return receive


def _request(receive: Any, length: int | None) -> tuple[dict[str, Any], Any]:
    header = (b"transfer-encoding", b"chunked") if length is None else (b"content-length", b"%d" % length)
    return {"type": "http", "headers": [header], "extensions": {}}, receive


async def read_object(storage: Driver, location: str) -> bytes:
    async with aclosing(storage.open(location)) as pieces:
        return b"".join([piece async for piece in pieces])


def annotated(image: Image, **annotations: str) -> Image:
    """The same manifest with annotations: another digest, the same blobs."""
    manifest = json.loads(image.payload)
    manifest["annotations"] = annotations
    return Image(json.dumps(manifest).encode(), image.media_type, image.blobs, image.children)
