"""
Upload sessions: how the bytes of a blob come in.

A session is a row: where its bytes are, how many came, and their digest as far as it is known. Any worker on
any host goes on from it. The location of the bytes is in the row before the first of them is written, so that
whatever happens, something knows what to clean up. Bytes become a blob in one transaction, after they are
durable and their digest is right; nothing is copied then.

One that is merely announced has no row: its id (`dtr.registry._upload_ids`) tells that it was given out here, for
which repository and until when. The row comes with the first request that brings bytes, before they are written;
where all come at once and are few, none ever does. Such an id is used once: whoever begins, ends or gives up a
session without a row writes its id down, and the primary key decides between two of them.

One request at a time has its *turn* at a session; a second one is refused before it writes anything, because a
store that is told to write the same part twice keeps the later one, whoever sent it. A storage with real files
takes the fast path (`LocalFiles`): threads move bytes from the socket to the file and hash them on the way, and
the lock of that file is the turn; the kernel gives it back when the writer dies. The file is opened in the step
that writes the first bytes, or that completes it. Whoever has the lock looks at the row again, unless the file
itself shows that nobody went on since the last look (`LocalFiles.is_current`). With any other storage the turn
is a lease in the row: a dead writer's ends after `_LEASE_SECONDS`, a living one renews it, and stops writing when
it cannot. A session stays in the storage in which it began, whatever its namespace is assigned to meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct
from sqlalchemy import BigInteger, Boolean, and_, bindparam, delete, exists, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import DatabaseBusy, DatabaseError, DatabaseUnavailable, Statement, now
from dtr.db.schema import (
    blob_contents,
    blobs,
    gc_objects,
    repositories,
    repository_blobs,
    shared_keys,
    uploads,
    used_upload_ids,
)
from dtr.oci import Digest
from dtr.registry import _upload_ids
from dtr.registry._links import REPEAT, bury, link
from dtr.registry.errors import (
    BlobTooLarge,
    BodyFailed,
    DigestMismatch,
    RepositoryUnknown,
    UploadOccupied,
    UploadOutOfOrder,
    UploadUnknown,
)
from dtr.shielded import in_thread, to_its_end
from dtr.storage import (
    Interrupted,
    ObjectMissing,
    StorageFull,
    StorageUnavailable,
    UploadBusy,
    UploadState,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dtr.db import Database, Row, Transaction
    from dtr.registry.lifetimes import Lifetimes
    from dtr.storage import Storages

SMALL = 64 * 1024
"""Bodies up to so many bytes are taken in one piece: a thread would cost more than they do."""
_NOWHERE = UploadState("")
_KEPT_HASHERS = 1024
_KEY_BYTES = 32
_SYNCED_EARLY = 8 * 1024 * 1024
"""
A body of at most so many bytes is on its way to the disk when it has come: its end has less to wait for then.

Of a larger one most would have to be waited for all the same.
"""
_LEASE_SECONDS = 60
_BEAT_SECONDS = 20

_ttl = bindparam("ttl", type_=BigInteger)
_INSERT = Statement(
    lambda: (insert(uploads).from_select(
        [
            "id", "repository_id", "location", "driver_state", "offset", "algorithm", "started_at", "expires_at",
        ],
        select(
            bindparam("id", type_=uploads.c.id.type),
            repositories.c.id,
            bindparam("location", type_=uploads.c.location.type),
            bindparam("driver_state", type_=uploads.c.driver_state.type),
            bindparam("offset", type_=BigInteger),
            bindparam("algorithm", type_=uploads.c.algorithm.type),
            now(),
            now() + _ttl,
        ).where(repositories.c.id == bindparam("repository"), repositories.c.deleted_at.is_(None)),
    ))
)  # fmt: skip
_NAMESPACE = Statement(
    lambda: select(repositories.c.namespace_id).where(
        repositories.c.id == bindparam("repository", type_=BigInteger)
    )
)
_lives = (
    uploads.c.id == bindparam("which"),
    uploads.c.repository_id == bindparam("repository"),
    exists().where(repositories.c.id == uploads.c.repository_id, repositories.c.deleted_at.is_(None)),
)
_columns = (
    uploads.c.driver_state,
    uploads.c.algorithm,
    uploads.c.digest,
    (uploads.c.expires_at < now() + _LEASE_SECONDS * 1000).label("expires_soon"),
)
_me = bindparam("me", type_=uploads.c.writer.type)
_lease = bindparam("lease", type_=BigInteger)
_is_alive = or_(bindparam("looked", type_=Boolean), uploads.c.expires_at > now())
_FIND = Statement(lambda: select(*_columns).where(*_lives, uploads.c.expires_at > now()))
_FIND_ANNOUNCED = Statement(  # no row: its id was never used; no session: it came to its end
    lambda: (
        select(*_columns)
        .select_from(used_upload_ids)
        .outerjoin(uploads, and_(uploads.c.id == used_upload_ids.c.id, *_lives, uploads.c.expires_at > now()))
        .where(used_upload_ids.c.id == bindparam("which"))
    )
)
_USE_ID = Statement(
    lambda: (
        insert(used_upload_ids)
        .from_select(
            ["id"],
            select(bindparam("which", type_=used_upload_ids.c.id.type))
            .where(repositories.c.id == bindparam("repository"), repositories.c.deleted_at.is_(None))
            .with_for_update(read=True, key_share=True),
        )
        .on_conflict_do_nothing()
    )
)
_KEY = Statement(lambda: select(shared_keys.c.key).where(shared_keys.c.name == "uploads"))
_MAKE_KEY = Statement(
    lambda: insert(shared_keys).values(name="uploads", key=bindparam("made")).on_conflict_do_nothing()
)
_CLAIM = Statement(
    lambda: (
        update(uploads)
        .where(
            *_lives,
            uploads.c.expires_at > now(),
            or_(uploads.c.writer_until <= now(), uploads.c.writer == _me),
        )
        .values(writer=_me, writer_until=now() + _lease, expires_at=now() + _ttl)
        .returning(*_columns)
    )
)
_KEEP = Statement(
    lambda: (
        update(uploads)
        .where(*_lives, uploads.c.writer == _me)
        .values(writer_until=now() + _lease, expires_at=now() + _ttl)
    )
)
_LEAVE = Statement(
    lambda: (
        update(uploads)
        .where(uploads.c.id == bindparam("which"), uploads.c.writer == _me)
        .values(writer="", writer_until=0)
    )
)
_ADVANCE = Statement(
    lambda: (
        update(uploads)
        .where(*_lives, _is_alive, uploads.c.writer == _me, uploads.c.offset == bindparam("expected"))
        .values(
            driver_state=bindparam("driver_state"),
            offset=bindparam("reached"),
            digest=bindparam("digest"),
            # Nobody, when the turn is over: a late beat does not find it any more.
            writer=bindparam("next_writer"),
            writer_until=now() + _lease,
            expires_at=now() + _ttl,
        )
    )
)
_CONSUME = Statement(
    lambda: delete(uploads).where(
        *_lives, _is_alive, uploads.c.writer == _me, uploads.c.offset == bindparam("expected")
    )
)
_CANCEL = Statement(
    lambda: delete(uploads).where(*_lives).returning(uploads.c.location, uploads.c.driver_state, uploads.c.offset)
)
_CLAIM_BLOB = Statement(
    lambda: (
        insert(blobs)
        .values(
            digest=bindparam("digest"),
            size=bindparam("size"),
            location=bindparam("location"),
            state="present",
            created_at=now(),
        )
        # The update changes nothing: it locks the row that is there.
        .on_conflict_do_update(index_elements=["digest"], set_={"size": blobs.c.size})
        .returning(blobs.c.location, blobs.c.state, blobs.c.size)
    )
)
_HEAL_BLOB = Statement(
    lambda: (
        update(blobs)
        .where(blobs.c.digest == bindparam("which"))
        .values(location=bindparam("location"), size=bindparam("size"), state="present")
    )
)
_NEW_BLOB = Statement(  # without an object
    lambda: (
        insert(blobs)
        .values(digest=bindparam("digest"), size=bindparam("size"), state="present", created_at=now())
        .on_conflict_do_nothing()
        .returning(blobs.c.digest)
    )
)
_LOCK_BLOB = Statement(
    lambda: (
        select(blobs.c.location, blobs.c.state, blobs.c.size)
        .where(blobs.c.digest == bindparam("digest"))
        .with_for_update(key_share=True)  # FOR NO KEY UPDATE
    )
)
_PUT_CONTENT = Statement(
    lambda: insert(blob_contents).values(digest=bindparam("digest"), content=bindparam("content"))
)
_DROP_CONTENT = Statement(lambda: delete(blob_contents).where(blob_contents.c.digest == bindparam("digest")))
_CONSUME_EMPTY = Statement(
    lambda: delete(uploads).where(*_lives, uploads.c.offset == 0, uploads.c.writer_until <= now())
)
_LOCK_REPOSITORY = Statement(
    lambda: (
        select(repositories.c.id)
        .where(repositories.c.id == bindparam("repository"), repositories.c.deleted_at.is_(None))
        .with_for_update(read=True, key_share=True)
    )
)
_BURY_UNKNOWN = Statement(
    lambda: insert(gc_objects).from_select(
        ["location", "driver_state", "size", "delete_after", "repeat_after"],
        select(
            bindparam("location", type_=gc_objects.c.location.type),
            bindparam("driver_state", type_=gc_objects.c.driver_state.type),
            bindparam("size", type_=BigInteger),
            now(),
            now() + REPEAT,
        ).where(
            *(~exists().where(table.c.location == bindparam("location")) for table in (blobs, uploads, gc_objects))
        ),
    )
)
_FINISHED = Statement(
    lambda: (
        select(blobs.c.size)
        .join_from(blobs, repository_blobs, repository_blobs.c.digest == blobs.c.digest)
        .join(repositories, repositories.c.id == repository_blobs.c.repository_id)
        .where(
            repositories.c.id == bindparam("repository"),
            repositories.c.deleted_at.is_(None),
            blobs.c.digest == bindparam("digest"),
            blobs.c.state == "present",
        )
    )
)


class Hasher(Protocol):
    """What is told every byte that was kept, in order, maybe in another thread."""

    def update(self, data: bytes | memoryview, /) -> None:
        """The next bytes."""


class File(Protocol):
    """A file to which bytes are appended. Threads call it."""

    def open(self) -> int:
        """Its descriptor, ready for the first bytes. Raises what keeps them from being written."""

    def arrived(self, size: int) -> None:
        """The last of `size` bytes was written."""


class Body(Protocol):
    """The bytes that a client sends with one request."""

    length: int | None
    """How many were announced; None: unknown."""

    async def read(self) -> bytes:
        """All of it, for a small one. `Uploads.finish_named` may take it again, in any way. Raises BodyFailed."""

    async def into_file(self, file: File, hasher: Hasher, limit: int | None) -> int:
        """
        Append it to a file, which is opened before anything is taken, and update `hasher`; how many bytes.

        Raises what opening raised: then it may be called again. Raises BodyFailed, BlobTooLarge beyond `limit`,
        StorageError: then file and hasher agree on what came. However it ends, cancelled too, nothing uses the
        file afterwards.
        """

    def pieces(self) -> AsyncIterator[bytes]:
        """It in pieces. Iterating raises BodyFailed."""


@dataclass(frozen=True, slots=True)
class Upload:
    """
    A session: `state` is how far it came; `digest` is of these bytes, None when nobody has computed it.

    One that was announced and not begun has no location.
    """

    id: str
    repository: int
    state: UploadState
    algorithm: str
    digest: str | None
    expires_soon: bool = field(default=False, compare=False)
    """Whether it has less time left than passes before a request prolongs it."""

    @property
    def offset(self) -> int:
        """How many bytes came."""
        return self.state.offset

    @property
    def is_begun(self) -> bool:
        """Whether it has a row."""
        return bool(self.state.location)


class _Turn(Struct):
    """A request's turn at a session: `upload` is how far it came by now."""

    upload: Upload
    has_files: bool = False
    """Whether the storage has files."""
    file: int | None = None
    """The descriptor of its bytes, when it was opened: the turn begins with that."""
    is_local: bool = False
    """Whether the file can be closed in passing."""
    has_looked: bool = False
    """Whether the row was looked at since the turn began."""
    writer: str = ""
    """Who has the lease in the row; empty where there is none."""
    has_written: bool = False
    """Whether bytes went through the descriptor."""
    is_completed: bool = False
    """Whether the bytes are an object already."""
    is_over: bool = False

    @property
    def is_durable(self) -> bool:
        """
        Whether how far the session came has to outlive a failure of the power.

        Where there are files, the client begins again, and at worst a partial file stays. The parts of a forgotten
        upload to a store elsewhere would cost, unseen.
        """
        return not self.has_files

    @property
    def lease(self) -> int:
        """For how many milliseconds the row has to keep others away."""
        return _LEASE_SECONDS * 1000 if self.writer else 0


class _Outdated(Exception):
    """Perhaps another request went on with the session before this one got its turn."""


class _File:
    """See `File`: that of a turn."""

    def __init__(self, turn: _Turn, storage: Storages) -> None:
        self._turn = turn
        self._storage = storage

    def open(self) -> int:
        """
        See `File`. It is opened, unless the turn has it already, and then positioned.

        Raises UploadBusy, ObjectMissing, _Outdated.
        """
        turn, storage, state = self._turn, self._storage, self._turn.upload.state
        if turn.file is None:
            file = turn.file = storage.open_writer(state)
            turn.is_local = storage.is_local(file, state)
            if not storage.is_current(file, state):
                raise _Outdated
        else:
            file = turn.file
            storage.position(file, state)
        turn.has_written = True
        return file

    def arrived(self, size: int) -> None:
        """See `File`."""
        if self._turn.is_local and size <= _SYNCED_EARLY:
            assert self._turn.file is not None
            self._storage.begin_sync(self._turn.file, self._turn.upload.state, size)


class Uploads:
    """The upload sessions of all repositories."""

    def __init__(
        self,
        database: Database,
        storage: Storages,
        lifetimes: Lifetimes,
        *,
        blob_limit: int | None = None,
        inline_limit: int = 0,
    ) -> None:
        """`blob_limit` is the largest size of a blob, `inline_limit` of one that is kept in the database."""
        self._database = database
        self._storage = storage
        self._lifetimes = lifetimes
        self._blob_limit = blob_limit
        self._inline_limit = min(inline_limit, SMALL, SMALL if blob_limit is None else blob_limit)
        # Hash contexts cannot be stored. Whoever continues in another process hashes what is there again.
        self._hashers: OrderedDict[str, _Hasher] = OrderedDict()
        self._key: bytes | None = None

    async def announce(self, repository: int) -> Upload:
        """A new session that is not begun, hashed by SHA-256. Whether the repository is there is not asked."""
        until = time.time() + self._lifetimes.upload_ttl / 1000
        number = _upload_ids.make_id(self._key or await self._find_key(), repository, int(until))
        return Upload(number, repository, _NOWHERE, "sha256", None)

    async def start(self, repository: int, algorithm: str = "sha256") -> Upload:
        """A new session, with a row. Raises RepositoryUnknown."""
        state = await self._storage.create_upload(await self._new_location(repository))
        upload = Upload(str(uuid.uuid4()), repository, state, algorithm, None)
        if not await self._database.unit(
            lambda tx: self._insert(tx, upload), durable=not self._storage.has_files(state.location)
        ):
            raise RepositoryUnknown(str(repository))
        return upload

    async def get(self, repository: int, upload: str) -> Upload:
        """The session. Raises UploadUnknown."""
        if not _upload_ids.is_made(upload):
            row = await self._database.fetch_one(_FIND, which=upload, repository=repository)
        else:
            row = await self._database.fetch_one(_FIND_ANNOUNCED, which=upload, repository=repository)
            if row is None and (announced := await self._announced(repository, upload)):
                return announced
        if row is None or row[0] is None:
            raise UploadUnknown(upload)
        return _upload(upload, repository, row)

    async def append(self, upload: Upload, body: Body, *, start: int | None = None) -> Upload:
        """
        Take what a client sends; the session as it is then.

        `start` is the position that the client gave. Raises UploadOutOfOrder, UploadOccupied, UploadUnknown,
        BlobTooLarge, BodyFailed (what came is kept) and StorageError.
        """
        upload = await self._begun(upload)
        async with self._turn(upload) as turn:
            await self._append(turn, body, start, is_last=True)
            return turn.upload

    async def finish(self, upload: Upload, digest: Digest, body: Body, *, start: int | None = None) -> int:
        """
        Take the last bytes, and make all of them the blob `digest` of the repository; its size.

        A wrong digest ends the session. It may be repeated when the answer got lost. Raises DigestMismatch and
        what `append` raises.
        """
        try:
            if upload.offset == 0 and not start and self._fits_inline(body):
                data = await self._read_small(upload, digest, body)
                return await self._store_inline(upload.repository, upload, digest, data)
            upload = await self._begun(upload)
            is_sent = body.length == 0 and start is None
            # What is known to be wrong, or has to be prolonged or hashed first, is not.
            at_once = is_sent and upload.offset > 0 and upload.digest == digest and not upload.expires_soon
            async with self._turn(upload, completed=at_once) as turn:
                # Not with files: whoever opens one while another takes its place has a turn, too. There the
                # offset in the row decides before anything gets its name.
                if not turn.has_files and turn.upload.offset == 0 and _is_small(body):
                    return await self._finish_small(turn, digest, body, start)
                if not is_sent:
                    await self._append(turn, body, start)
                elif turn.has_files and not turn.is_completed:
                    await self._look_again(turn)
                return await self._finish_large(turn, digest)
        except UploadUnknown:
            return await self._finished(upload, digest)

    async def finish_named(
        self, repository: int, upload: str, digest: Digest, body: Body, *, start: int | None = None
    ) -> int:
        """
        The same for the session that a client names by its id.

        One that is announced and comes with all of a small blob is not looked for: the unit of work that stores
        the blob tells whether anybody used the id before.
        """
        announced = None
        if body.length and not start and self._fits_inline(body):
            announced = await self._announced(repository, upload)
        if announced is not None and Digest.of(data := await body.read(), digest.algorithm) == digest:
            try:
                return await self._store_inline(repository, announced, digest, data)
            except UploadUnknown:
                return await self._finished(announced, digest)
            except UploadOccupied:
                pass  # it has bytes already: these are its last
        return await self.finish(await self.get(repository, upload), digest, body, start=start)

    async def store(self, repository: int, digest: Digest, body: Body) -> int:
        """
        Take a whole blob with one request; its size. Nothing stays of one that fails.

        Raises RepositoryUnknown and what `finish` raises.
        """
        if self._fits_inline(body):
            return await self._store_inline(repository, None, digest, await self._read_small(None, digest, body))
        upload = await self.start(repository, digest.algorithm)
        try:
            if _is_small(body):  # nobody else knows the session, so there is no turn to wait for
                return await self._finish_small(_Turn(upload, has_looked=True), digest, body, None)
            return await self.finish(upload, digest, body)
        except Exception:
            with contextlib.suppress(UploadUnknown, DatabaseError):
                await self.cancel(upload)
            raise

    async def cancel(self, upload: Upload) -> None:
        """End the session; its bytes go. Raises UploadUnknown."""

        async def work(tx: Transaction) -> None:
            if not upload.is_begun and await _use(tx, upload):
                return
            row = await tx.fetch_one(_CANCEL, which=upload.id, repository=upload.repository)
            if row is None:
                raise UploadUnknown(upload.id)
            await bury(tx, row[0], size=row[2], driver_state=row[1])

        await to_its_end(self._database.unit(work))
        self._hashers.pop(upload.id, None)

    async def _announced(self, repository: int, upload: str) -> Upload | None:
        """The session as it was announced, if one was under this id and is not too old; it may be begun since."""
        if not _upload_ids.is_made(upload):
            return None
        key = self._key or await self._find_key()
        if not _upload_ids.is_good(key, repository, upload, time.time()):
            return None
        return Upload(upload, repository, _NOWHERE, "sha256", None)

    async def _finished(self, upload: Upload, digest: str) -> int:
        """The size of the blob that the session became; nobody knows which one it was. Raises UploadUnknown."""
        row = await self._database.fetch_one(_FINISHED, repository=upload.repository, digest=digest)
        if row is None:
            raise UploadUnknown(upload.id)
        return int(row[0])

    async def _insert(self, tx: Transaction, upload: Upload) -> bool:
        made = await tx.execute(
            _INSERT,
            id=upload.id,
            repository=upload.repository,
            location=upload.state.location,
            driver_state=upload.state.encode(),
            offset=0,
            algorithm=upload.algorithm,
            ttl=self._lifetimes.upload_ttl,
        )
        return made > 0

    async def _begun(self, upload: Upload) -> Upload:
        """The session with a row, perhaps one that another request made just now. Raises UploadUnknown."""
        if upload.is_begun:
            return upload
        state = await self._storage.create_upload(await self._new_location(upload.repository))
        begun = replace(upload, state=state)

        async def work(tx: Transaction) -> bool:
            return await _use(tx, upload) and await self._insert(tx, begun)

        durable = not self._storage.has_files(state.location)
        if await to_its_end(self._database.unit(work, durable=durable)):
            return begun
        found = await self.get(upload.repository, upload.id)
        if not found.is_begun:  # the repository is gone
            raise UploadUnknown(upload.id)
        return found

    async def _append(self, turn: _Turn, body: Body, start: int | None, *, is_last: bool = False) -> None:
        """Take a body, and note how far the session came. With `is_last` the turn ends with that."""
        # To a client that names another position it came further, or not so far.
        if turn.has_files and (turn.upload.expires_soon or start not in {None, turn.upload.offset}):
            await self._look_again(turn)
        with contextlib.suppress(_Outdated, UploadBusy):  # then nothing was taken
            await self._append_to(turn, body, start, is_last=is_last)
            return
        await self._look_again(turn)
        await self._append_to(turn, body, start, is_last=is_last)

    async def _append_to(self, turn: _Turn, body: Body, start: int | None, *, is_last: bool) -> None:
        upload = turn.upload
        if start is not None and start != upload.offset:
            raise UploadOutOfOrder(upload.id, upload.offset)
        room = None if self._blob_limit is None else self._blob_limit - upload.offset
        if room is not None and (body.length or 0) > room:
            raise BlobTooLarge(self._blob_limit or 0)
        hasher = self._hashers.pop(upload.id, None) or _Hasher(upload.algorithm)
        failure: BaseException | None = None
        try:
            reached = await self._receive(turn, body, hasher, room)
        except BodyFailed as failed:
            if turn.has_files and not turn.has_written:
                raise  # before it began
            failure = failed
            reached = msgspec.structs.replace(upload.state, offset=upload.offset + failed.written)
        except Interrupted as interrupted:
            failure = interrupted.__cause__ or interrupted
            reached = interrupted.state
        except (_Outdated, UploadBusy):
            if hasher.size:
                self._remember(upload, hasher)
            raise
        # Without the bytes before them, or with some that were not kept, the hash of the rest is of no use.
        complete = hasher.size == reached.offset
        digest = hasher.digest() if complete else None
        advanced = replace(upload, state=reached, digest=digest, expires_soon=False)
        await self._save(turn, advanced, is_last=is_last)
        if complete:
            self._remember(advanced, hasher)
        if failure is not None:
            raise failure

    async def _receive(self, turn: _Turn, body: Body, hasher: _Hasher, room: int | None) -> UploadState:
        state = turn.upload.state
        if not turn.has_files:
            return await self._storage.write(state, _hashing(body.pieces(), hasher, room, self._blob_limit))
        try:
            written = await body.into_file(_File(turn, self._storage), hasher, room)
        except (StorageFull, BlobTooLarge) as error:
            # Give the room back; what was acknowledged before stays.
            if turn.has_written:
                assert turn.file is not None
                await in_thread(os.ftruncate, turn.file, state.offset)
            if isinstance(error, BlobTooLarge):
                raise BlobTooLarge(self._blob_limit or 0) from None
            raise
        return msgspec.structs.replace(state, offset=state.offset + written)

    async def _store_inline(self, repository: int, upload: Upload | None, digest: Digest, data: bytes) -> int:
        """
        Make a whole body a blob without an object: one unit of work, and nothing in the storage.

        Raises UploadOccupied for a session that has bytes already, UploadUnknown.
        """
        size = len(data)
        lifetimes = self._lifetimes

        async def work(tx: Transaction) -> None:
            if upload is None:
                if await tx.fetch_one(_LOCK_REPOSITORY, repository=repository) is None:
                    raise RepositoryUnknown(str(repository))
            elif not (
                (not upload.is_begun and await _use(tx, upload))
                or await tx.execute(_CONSUME_EMPTY, which=upload.id, repository=repository)
            ):
                if await tx.fetch_one(_FIND, which=upload.id, repository=repository) is not None:
                    raise UploadOccupied(upload.id)
                raise UploadUnknown(upload.id)
            is_new = await tx.fetch_one(_NEW_BLOB, digest=digest, size=size) is not None
            if is_new:
                await tx.execute(_PUT_CONTENT, digest=digest, content=data)
            else:
                found = await tx.fetch_one(_LOCK_BLOB, digest=digest)
                if found is None:
                    raise DatabaseBusy("the blob was collected at this moment")
                location, state, known_size = found
                if state == "missing":
                    await tx.execute(_HEAL_BLOB, which=digest, location=None, size=size)
                    await tx.execute(_DROP_CONTENT, digest=digest)
                    await tx.execute(_PUT_CONTENT, digest=digest, content=data)
                    if location is not None:
                        await bury(tx, location, size=known_size, delay=lifetimes.delete_delay)
            await link(tx, repository, digest, size=size, hold=lifetimes.hold, is_new=is_new)

        await to_its_end(self._database.unit(work))
        return size

    def _fits_inline(self, body: Body) -> bool:
        return self._inline_limit > 0 and body.length is not None and body.length <= self._inline_limit

    async def _read_small(self, upload: Upload | None, digest: Digest, body: Body) -> bytes:
        if self._blob_limit is not None and (body.length or 0) > self._blob_limit:
            raise BlobTooLarge(self._blob_limit)
        data = await body.read()
        actual = Digest.of(data, digest.algorithm)
        if actual != digest:
            if upload is not None:
                await self._give_up(upload)
            raise DigestMismatch(digest, actual)
        return data

    async def _finish_small(self, turn: _Turn, digest: Digest, body: Body, start: int | None) -> int:
        upload = turn.upload
        if start:
            raise UploadOutOfOrder(upload.id, upload.offset)
        data = await self._read_small(upload, digest, body)
        await to_its_end(self._storage.put_small(upload.state.location, data))
        await self._commit(turn, digest, len(data))
        return len(data)

    async def _finish_large(self, turn: _Turn, digest: Digest) -> int:
        upload = turn.upload
        known = upload.digest if upload.algorithm == digest.algorithm else None
        if known is None or known == digest:
            if turn.is_completed:
                pass
            elif upload.offset == 0:
                await to_its_end(self._storage.put_small(upload.state.location, b""))
            else:
                if upload.expires_soon and turn.has_files:  # a lease has prolonged it
                    await self._keep(turn)
                await to_its_end(self._storage.complete(upload.state))
            if known is None:
                known = await self._hash(upload.state.location, digest.algorithm)
        if known != digest:
            await self._give_up(upload)
            raise DigestMismatch(digest, known)
        await self._commit(turn, digest, upload.offset)
        return upload.offset

    async def _commit(self, turn: _Turn, digest: str, size: int) -> None:
        upload, lifetimes = turn.upload, self._lifetimes
        location = upload.state.location

        async def work(tx: Transaction) -> None:
            if not await tx.execute(
                _CONSUME,
                which=upload.id,
                repository=upload.repository,
                me=turn.writer,
                looked=turn.has_looked,
                expected=upload.offset,
            ):
                # Expired or cancelled; or this unit ran before, and its answer was lost.
                if await tx.fetch_one(_FINISHED, repository=upload.repository, digest=digest) is None:
                    raise UploadUnknown(upload.id)
                return
            row = await tx.fetch_one(_CLAIM_BLOB, digest=digest, size=size, location=location)
            assert row is not None
            present, state, known_size = row
            if present != location:
                if state == "missing":
                    await tx.execute(_HEAL_BLOB, which=digest, location=location, size=size)
                    await tx.execute(_DROP_CONTENT, digest=digest)
                    if present is not None:
                        await bury(tx, present, size=known_size, delay=lifetimes.delete_delay)
                else:
                    await bury(tx, location, size=size)
            await link(tx, upload.repository, digest, size=size, hold=lifetimes.hold, is_new=present == location)

        await to_its_end(self._database.unit(work))
        turn.is_over = True
        self._hashers.pop(upload.id, None)

    async def _save(self, turn: _Turn, reached: Upload, *, is_last: bool) -> None:
        before = turn.upload

        async def work(tx: Transaction) -> bool:
            changed = await tx.execute(
                _ADVANCE,
                which=before.id,
                repository=before.repository,
                me=turn.writer,
                looked=turn.has_looked,
                expected=before.offset,
                reached=reached.offset,
                driver_state=reached.state.encode(),
                digest=reached.digest,
                next_writer="" if is_last else turn.writer,
                lease=0 if is_last else turn.lease,
                ttl=self._lifetimes.upload_ttl,
            )
            return changed > 0

        if not await to_its_end(self._database.unit(work, durable=turn.is_durable)):
            found = await self.get(before.repository, before.id)
            if found.state != reached.state:  # the same: this unit ran before, and its answer was lost
                raise UploadOutOfOrder(before.id, found.offset)
        turn.upload = reached
        turn.is_over = is_last

    async def _give_up(self, upload: Upload) -> None:
        with contextlib.suppress(UploadUnknown):
            await self.cancel(upload)

    @contextlib.asynccontextmanager
    async def _turn(self, upload: Upload, *, completed: bool = False) -> AsyncIterator[_Turn]:
        """
        The session, which no other request writes to meanwhile, and which does not expire.

        It is as it is now, but where there are files: there it is as given until the turn's file is opened, or
        until `_look_again`. With `completed` the bytes there become an object with that, if nobody went on.
        Raises UploadOccupied, UploadUnknown.
        """
        storage = await self._storage.prepare(upload.state.location)
        turns = self._locked_file(upload, completed=completed) if storage.has_files else self._leased(upload)
        async with turns as turn, self._kept(turn):
            try:
                yield turn
            except ObjectMissing:
                if not turn.has_files or turn.file is not None:  # else its end is not ours to decide
                    await self._give_up(turn.upload)  # what was acknowledged is no longer in the storage
                raise UploadUnknown(upload.id) from None

    @contextlib.asynccontextmanager
    async def _locked_file(self, upload: Upload, *, completed: bool) -> AsyncIterator[_Turn]:
        turn = _Turn(upload, has_files=True)
        try:
            if completed:
                await self._complete_at_once(turn)
            yield turn
        finally:
            if turn.file is not None:
                await self._close(turn, turn.file)
                if not turn.is_over:
                    await self._leave(upload)

    async def _complete_at_once(self, turn: _Turn) -> None:
        """Open the file and complete it, if it is as `turn.upload` says and nobody else has it."""

        async def work() -> None:  # the file is the turn's, whoever still waits
            turn.file, turn.is_completed = await self._storage.complete_current(turn.upload.state)
            turn.is_local = turn.is_completed

        with contextlib.suppress(UploadBusy, ObjectMissing):  # then a look at the row tells what it means
            await to_its_end(work())

    async def _look_again(self, turn: _Turn) -> None:
        """Let the turn have its file, and the session as it is now. Raises UploadOccupied, UploadUnknown."""
        while turn.file is None:
            try:
                await in_thread(self._open, turn)
            except UploadBusy:
                upload = turn.upload
                now_at = await self.get(upload.repository, upload.id)  # by now it may have come to its end
                if not now_at.offset or upload.offset:
                    raise UploadOccupied(upload.id) from None
                turn.upload = now_at
        # Another request may have gone on between the caller's look and the lock.
        turn.upload = await self.get(turn.upload.repository, turn.upload.id)
        turn.has_looked = True

    def _open(self, turn: _Turn) -> None:
        """Open the file of a turn, in a thread: it is the turn's, whoever still waits."""
        turn.file = self._storage.open_writer(turn.upload.state)
        turn.is_local = self._storage.is_local(turn.file, turn.upload.state)

    async def _close(self, turn: _Turn, file: int) -> None:
        """Close the file. NFS sends what is still unwritten, and tells only once that this failed."""
        try:
            if turn.is_local:
                os.close(file)
            else:
                await in_thread(os.close, file)
        except OSError as error:
            if turn.has_written:
                await self._give_up(turn.upload)
                raise StorageUnavailable(str(error)) from error

    @contextlib.asynccontextmanager
    async def _leased(self, upload: Upload) -> AsyncIterator[_Turn]:
        writer = uuid.uuid4().hex

        async def work(tx: Transaction) -> Row:
            claimed = await tx.fetch_one(
                _CLAIM,
                which=upload.id,
                repository=upload.repository,
                me=writer,
                lease=_LEASE_SECONDS * 1000,
                ttl=self._lifetimes.upload_ttl,
            )
            if claimed is not None:
                return claimed
            if await tx.fetch_one(_FIND, which=upload.id, repository=upload.repository) is None:
                raise UploadUnknown(upload.id)
            raise UploadOccupied(upload.id)

        claiming = asyncio.ensure_future(self._database.unit(work))
        try:
            row = await to_its_end(claiming)
        except asyncio.CancelledError:
            if not claiming.cancelled() and claiming.exception() is None:
                await self._leave(upload, writer)
            raise
        turn = _Turn(_upload(upload.id, upload.repository, row), has_looked=True, writer=writer)
        try:
            yield turn
        finally:
            if not turn.is_over:
                await self._leave(upload, writer)

    async def _leave(self, upload: Upload, writer: str = "") -> None:
        """
        End a turn that did not come to its end.

        Another request, which needed none, may have ended the session: then nobody else knows of our bytes.
        """
        state = upload.state

        async def work(tx: Transaction) -> None:
            if not await tx.execute(_LEAVE, which=upload.id, me=writer):
                await tx.execute(
                    _BURY_UNKNOWN, location=state.location, driver_state=state.encode(), size=state.offset
                )

        with contextlib.suppress(DatabaseError):
            await to_its_end(self._database.unit(work))

    @contextlib.asynccontextmanager
    async def _kept(self, turn: _Turn) -> AsyncIterator[None]:
        """While the request lives its turn is prolonged; when that fails for too long, the request ends."""
        loop = asyncio.get_running_loop()
        is_lost = False
        beating: asyncio.Task[None] | None = None

        async def beat() -> None:
            nonlocal is_lost
            while not is_lost:
                asked_at = loop.time()
                with contextlib.suppress(DatabaseError):
                    is_lost = not await self._keep(turn)
                    limit.reschedule(asked_at if is_lost else asked_at + _LEASE_SECONDS)
                await asyncio.sleep(_BEAT_SECONDS)

        def begin() -> None:  # most requests have ended by then, and cost no task
            nonlocal beating
            beating = asyncio.create_task(beat())

        try:
            async with asyncio.timeout(_LEASE_SECONDS) as limit:
                waiting = loop.call_later(_BEAT_SECONDS, begin)
                try:
                    yield
                finally:
                    waiting.cancel()
                    if beating is not None:
                        beating.cancel()
        except TimeoutError:
            if not limit.expired():
                raise
            if is_lost:  # cancelled meanwhile
                raise UploadUnknown(turn.upload.id) from None
            raise DatabaseUnavailable("the database did not prolong the upload's turn") from None

    async def _keep(self, turn: _Turn) -> bool:
        async def work(tx: Transaction) -> bool:
            changed = await tx.execute(
                _KEEP,
                which=turn.upload.id,
                repository=turn.upload.repository,
                me=turn.writer,
                lease=turn.lease,
                ttl=self._lifetimes.upload_ttl,
            )
            return changed > 0

        return await to_its_end(self._database.unit(work, durable=turn.is_durable))

    async def _hash(self, location: str, algorithm: str) -> str:
        hasher = hashlib.new(algorithm)
        async with contextlib.aclosing(self._storage.open(location)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(hasher.update, piece)
        return f"{algorithm}:{hasher.hexdigest()}"

    async def _new_location(self, repository: int) -> str:
        """A location in the storage for what is pushed into this repository."""
        namespace = None
        if self._storage.assigned:
            row = await self._database.fetch_one(_NAMESPACE, repository=repository)
            namespace = row[0] if row else None
        return self._storage.new_location(namespace)

    async def _find_key(self) -> bytes:
        """The key of ids, which all processes share."""
        row = await self._database.fetch_one(_KEY)
        if row is None:
            made = secrets.token_hex(_KEY_BYTES)
            await self._database.unit(lambda tx: tx.execute(_MAKE_KEY, made=made))  # unless another one is first
            row = await self._database.fetch_one(_KEY)
        assert row is not None
        self._key = bytes.fromhex(row[0])
        return self._key

    def _remember(self, upload: Upload, hasher: _Hasher) -> None:
        self._hashers[upload.id] = hasher
        while len(self._hashers) > _KEPT_HASHERS:
            self._hashers.popitem(last=False)


async def _use(tx: Transaction, upload: Upload) -> bool:
    """Whether the id of a session without a row was used by nobody before."""
    return await tx.execute(_USE_ID, which=upload.id, repository=upload.repository) > 0


def _upload(number: str, repository: int, row: Row) -> Upload:
    driver_state, algorithm, digest, expires_soon = row
    return Upload(number, repository, UploadState.decode(driver_state), algorithm, digest, bool(expires_soon))


def _is_small(body: Body) -> bool:
    return body.length is not None and body.length <= SMALL


class _Hasher:
    """A hash that counts its bytes."""

    __slots__ = ("_algorithm", "_hash", "size")

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm)
        self.size = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> str:
        return f"{self._algorithm}:{self._hash.hexdigest()}"


async def _hashing(
    pieces: AsyncIterator[bytes], hasher: _Hasher, room: int | None, limit: int | None
) -> AsyncIterator[bytes]:
    total = 0
    async for piece in pieces:
        total += len(piece)
        if room is not None and total > room:
            raise BlobTooLarge(limit or 0)
        hasher.update(piece)
        yield piece
