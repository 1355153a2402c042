"""The room of the notary server: see the package."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import json
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from dtr.db import ConstraintViolated
from dtr.events import SYSTEM, Event, Object, record
from dtr.signer import KeyUnknown, RequestRefused, SignerError
from dtr.trust import store
from dtr.trust.changes import find_changes
from dtr.trust.current import Current, affected, read_current
from dtr.trust.errors import CannotSign, FileUnknown, RepositoryGone, VersionConflict
from dtr.trust.files import Collection, File, Published
from dtr.tuf import (
    ROOT,
    SNAPSHOT,
    TIMESTAMP,
    Envelope,
    RuleBroken,
    StoredBroken,
    ancestors_of,
    check_update,
    is_targets,
    read_snapshot,
    stored_root,
    what_to_renew,
)
from dtr.tuf.times import read_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dtr.db import Database, Row, Transaction
    from dtr.events import Actor, EventType
    from dtr.signer import Signer
    from dtr.trust.files import Change, Signed
    from dtr.tuf import CheckedUpdate, Draft, PublicKey, Renewal, Root

_EARLY = dt.timedelta(hours=1)
"""So long before they expire, timestamps and snapshots are made anew: for clients whose clocks are fast."""
_TRIES = 5
"""So often an update is made anew because others changed the collection meanwhile."""
_MOST_KEYS = 20
"""Of a role that are asked for: a root that lists more wants the signer to be busy."""
_MOST_ROLES, _LARGEST_COLLECTION = 1_000, 64 * 1024 * 1024
"""What a collection may come to, roles and bytes of current files: an update has them all in memory."""
_MOST_TAGS_TOLD = 100
"""In an event."""
_LARGEST_VERSION = 2**53
_REST_SECONDS = 30.0
"""So long after the signer failed nothing is made early."""
_NEVER = 2**62
"""In milliseconds since 1970 UTC."""


class Trust:
    """
    All collections.

    Whether there is a repository, and who may do what, the caller has asked. Every method lets the errors of the
    signer (`SignerError`) and of the database through.
    """

    def __init__(
        self,
        database: Database,
        signer: Signer,
        *,
        key_algorithm: str = "ecdsa",
        signed: Signed | None = None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        """`key_algorithm`: of keys that the signer makes, ``ecdsa`` or ``ed25519``."""
        self._database = database
        self._signer = signer
        self._algorithm = key_algorithm
        self._signed = signed
        self._clock = clock
        self._turns: WeakValueDictionary[Collection, asyncio.Lock] = WeakValueDictionary()
        """Who changes a collection in this process does so alone: nothing is signed in vain."""
        self._signer_rests_until = 0.0

    # --- reading ---

    async def get(self, collection: Collection, role: str) -> File:
        """
        The current file of a role. Timestamp and snapshot are made anew when they expire (section 4.3).

        Raises FileUnknown, CannotSign, StoredBroken.
        """
        file, end = await self._current(collection, role)
        if not self._is_due(end):
            return file
        turn = self._turn(collection)
        is_good = end >= _milliseconds(self._clock())
        # Nobody waits, or fails, for what is only made early.
        if is_good and (turn.locked() or monotonic() < self._signer_rests_until):
            return file
        try:
            async with turn:
                return await self._renewed(collection, role)
        except (CannotSign, SignerError, StoredBroken) as error:
            if not is_good:
                raise
            if isinstance(error, SignerError):
                self._signer_rests_until = monotonic() + _REST_SECONDS
            return file

    async def get_by_hash(self, collection: Collection, role: str, sha256: str) -> File:
        """The file of a role with this SHA-256, hexadecimal. Raises FileUnknown."""
        return _found(role, await self._fetch_one(store.BY_HASH, collection, role=role, sha256=sha256))

    async def get_by_version(self, collection: Collection, role: str, version: int) -> File:
        """The file of a role with this version. Raises FileUnknown."""
        if version > _LARGEST_VERSION:
            raise FileUnknown(role)
        return _found(role, await self._fetch_one(store.BY_VERSION, collection, role=role, version=version))

    async def list_changes(
        self,
        *,
        after: int,
        records: int,
        collection: Collection | None = None,
        readable_by: dict[str, Any] | None = None,
        age: int = 60_000,
    ) -> list[Change]:
        """
        Changes, oldest first (section 2.6, 6): of one collection, or of all.

        `records` of them behind the id `after`; as many before it when that is negative, from the newest when
        `after` is negative. `readable_by` (the parameters of `dtr.accounts.visibility.asking`) leaves out those
        of repositories that somebody cannot see. Changes younger than `age` milliseconds are not told yet: on
        PostgreSQL one with a lower id may come after one with a higher.
        """
        return await find_changes(
            self._database,
            after=after,
            records=records,
            collection=collection,
            readable_by=readable_by,
            age=age,
        )

    # --- changing ---

    async def publish(
        self, collection: Collection, parts: Sequence[tuple[str, Envelope]], *, by: Actor = SYSTEM
    ) -> Published:
        """
        Check an update (role and file of each part, in any order; timestamps are dropped) and store it, whole.

        Others may change the collection meanwhile; the update is checked against what it is then. Raises
        RuleBroken, StoredBroken (section 4.1), VersionConflict, RepositoryGone.
        """
        given = dict(parts)
        if len(given) < len(parts):
            raise VersionConflict(_given_twice(parts))
        given.pop(TIMESTAMP, None)
        async with self._turn(collection):
            for _ in range(_TRIES):
                try:
                    return await self._publish(collection, given, by)
                except store.Moved:
                    continue
        raise VersionConflict(TIMESTAMP)

    async def delete(self, collection: Collection, *, by: Actor = SYSTEM) -> bool:
        """Delete all files of a collection; False: there were none. Its keys stay with the signer."""

        async def work(tx: Transaction) -> bool:
            if (collection.repository, collection.gun) not in await store.collections_of(
                tx, [collection.repository]
            ):
                return False
            await store.delete_collection(tx, collection.repository, collection.gun)
            await record(tx, _event("DELETE", by, collection))
            if self._signed is not None:
                await self._signed(tx, collection.repository, [])
            return True

        async with self._turn(collection):
            return await self._database.unit(work)

    async def delete_all(self, repository: int, *, by: Actor = SYSTEM) -> list[str]:
        """Delete the collections of a repository, whatever their GUNs; those GUNs."""

        async def work(tx: Transaction) -> list[str]:
            gone = await end(tx, [repository], by)
            if gone and self._signed is not None:
                await self._signed(tx, repository, [])
            return gone

        return await self._database.unit(work)

    # --- keys ---

    async def get_key(self, collection: Collection, role: str) -> PublicKey:
        """
        The key with which the server signs ``timestamp`` or ``snapshot`` (section 2.5).

        The one that the root lists, when the signer has it; else one that signed nothing yet. Raises StoredBroken.
        """
        row = await self._fetch_one(store.CURRENT, collection, role=ROOT)
        if row is not None:
            root = stored_root(collection.gun, _file(row[:-1]).content)
            for key_id in root.authorities[role].keys:
                if key := await self._signer.find_key(key_id):
                    return key
        return await self._signer.create_key(collection.gun, role, self._algorithm)

    async def rotate_key(self, collection: Collection, role: str, *, by: Actor = SYSTEM) -> PublicKey:
        """A key that signed nothing yet; it signs when a root that lists it was published."""
        key = await self._signer.create_key(collection.gun, role, self._algorithm)
        event = _event("UPDATE", by, collection, {"role": role, "key": key.id})
        await self._database.unit(lambda tx: record(tx, event))
        return key

    # --- inside ---

    async def _publish(self, collection: Collection, parts: Mapping[str, Envelope], by: Actor) -> Published:
        files = await self._fetch_all(store.ALL_CURRENT, collection)
        contents = {role: file.content for role, file in files.items()}
        now = self._clock()
        checked = await asyncio.to_thread(check_update, collection.gun, parts, contents, now)
        made = [_new(role, part.content, part.version) for role, part in checked.files.items()]
        made += await self._sign_update(collection, checked, now)
        after = await self._after(collection, files, made)
        rows = await self._database.fetch_all(store.TARGETS, repository=collection.repository, gun=collection.gun)
        before = {(role, name): (digest, length) for role, name, digest, length in rows}
        update = await asyncio.to_thread(_prepare, collection, files, made, after, before, checked.files)
        told = _told(update, before)

        async def work(tx: Transaction) -> None:
            if not await store.store(tx, update):
                return
            kind: EventType = "UPDATE" if update.base else "CREATE"
            await record(tx, _event(kind, by, collection, _content(told)))
            digests = sorted({digest for digest, _ in update.put.values()})
            if (digests or update.end) and self._signed is not None:
                await self._signed(tx, collection.repository, digests)

        try:
            await self._database.unit(work)
        except ConstraintViolated:  # an old file went, to which a snapshot of a client goes back
            raise store.Moved from None
        return told

    async def _sign_update(self, collection: Collection, checked: CheckedUpdate, now: dt.datetime) -> list[File]:
        """The snapshot, unless the update has one, and the timestamp (section 4.2)."""
        foreign = await self._foreign_keys(collection, checked.root) if ROOT in checked.files else frozenset()
        made = []
        content = checked.snapshot
        if content is None:
            draft = checked.draft_snapshot(now)
            content = await self._sign(draft, foreign)
            made.append(_new(SNAPSHOT, content, draft.version))
        draft = checked.draft_timestamp(content, now)
        return [*made, _new(TIMESTAMP, await self._sign(draft, foreign), draft.version)]

    async def _foreign_keys(self, collection: Collection, root: Root) -> frozenset[str]:
        """
        Keys that a new root lists, and the roots of other collections, too.

        They would sign, for whoever lists them, files that the clients of those collections take.
        """
        keys = sorted({key_id for role in (TIMESTAMP, SNAPSHOT) for key_id in root.authorities[role].keys})
        rows = await self._database.fetch_all(store.FOREIGN_KEYS, keys=keys, gun=collection.gun)
        return frozenset(row[0] for row in rows)

    async def _sign(self, draft: Draft, foreign: frozenset[str] = frozenset()) -> bytes:
        """Sign with all the keys that the root lists and the signer has. Raises RuleBroken: those are too few."""
        signatures = []
        for key_id in sorted(draft.authority.keys.keys() - foreign)[:_MOST_KEYS]:
            with contextlib.suppress(KeyUnknown, RequestRefused):  # refused: it is a key for another role
                signatures.append(await self._signer.sign(key_id, draft.signed))
        return draft.seal(signatures)

    async def _renewed(self, collection: Collection, role: str) -> File:
        """The file of a role, timestamp or snapshot, that is good for a while, made if need be."""
        for _ in range(_TRIES):
            file, end = await self._current(collection, role)
            if not self._is_due(end):
                return file
            try:
                made = await self._renew(collection)
            except store.Moved:  # another replica was faster: its files are as good
                continue
            # Not made: it cannot be yet, or another replica did so since it was looked at.
            return made[role] if role in made else (await self._current(collection, role))[0]
        raise CannotSign(f"{collection.gun} is changed all the time")

    async def _renew(self, collection: Collection) -> dict[str, File]:
        """Make timestamp, and snapshot if need be, anew; what was made, by role. Raises Moved."""
        files = await self._fetch_all(store.CURRENT_OF, collection, roles=[ROOT, SNAPSHOT, TIMESTAMP])
        now = self._clock()
        contents = {role: file.content for role, file in files.items()}
        renewal = await asyncio.to_thread(what_to_renew, collection.gun, contents, now, _EARLY)
        made = [] if renewal is None else await self._sign_renewal(renewal, now)
        if not made:
            return {}
        update = store.Update(
            collection=collection,
            base=files[TIMESTAMP],
            files=made,
            roles={file.role: (file.version, _expiry(Envelope.parse(file.content))) for file in made},
            gone=set(),
            current=Current(set()),
        )

        async def work(tx: Transaction) -> None:
            await store.store(tx, update)

        try:
            await self._database.unit(work)
        except (VersionConflict, RepositoryGone):
            raise store.Moved from None
        return {file.role: file for file in made}

    async def _sign_renewal(self, renewal: Renewal, now: dt.datetime) -> list[File]:
        """What has to be made anew, if it can be. Raises CannotSign."""
        made = []
        snapshot = None
        try:
            if renewal.snapshot_is_due:
                draft = renewal.draft_snapshot(now)
                try:
                    snapshot = await self._sign(draft)
                    made.append(_new(SNAPSHOT, snapshot, draft.version))
                except RuleBroken:
                    if renewal.snapshot_is_expired:
                        raise
            if renewal.timestamp_is_due or snapshot is not None:
                draft = renewal.draft_timestamp(now, snapshot)
                made.append(_new(TIMESTAMP, await self._sign(draft), draft.version))
        except RuleBroken as error:
            raise CannotSign(error.message) from None
        return made

    async def _current(self, collection: Collection, role: str) -> tuple[File, int]:
        """The current file of a role, and when it, or what leads to it, is to be made anew. Raises FileUnknown."""
        row = await self._fetch_one(store.CURRENT, collection, role=role)
        if row is None:
            raise FileUnknown(role)
        return _file(row[:-1]), row[-1] if role in {TIMESTAMP, SNAPSHOT} else _NEVER

    def _is_due(self, end: int) -> bool:
        return end < _milliseconds(self._clock() + _EARLY)

    async def _after(
        self, collection: Collection, before: Mapping[str, File], made: list[File]
    ) -> dict[str, File]:
        """
        The files that are current with those that were made: what the timestamp leads to, by role.

        Clients may make snapshots that name older files, or some that nobody has: then a role has no current file.
        Raises RuleBroken: it would be too much.
        """
        new = {file.role: file for file in made}
        snapshot = read_snapshot(Envelope.parse(new[SNAPSHOT].content))
        after = {SNAPSHOT: new[SNAPSHOT], TIMESTAMP: new[TIMESTAMP]}
        elsewhere = {}
        for role, meta in snapshot.meta.items():
            candidates = (files[role] for files in (new, before) if role in files)
            found = next((file for file in candidates if file.sha256 == meta.hex), None)
            if found is not None:
                after[role] = found
            else:
                elsewhere[role] = meta.hex
        if elsewhere:
            rows = await self._database.fetch_all(
                store.BY_HASHES,
                repository=collection.repository,
                gun=collection.gun,
                hashes=sorted(set(elsewhere.values())),
            )
            after |= {file.role: file for file in map(_file, rows) if elsewhere.get(file.role) == file.sha256}
        if len(after) > _MOST_ROLES or sum(len(file.content) for file in after.values()) > _LARGEST_COLLECTION:
            limits = f"{_MOST_ROLES} roles and {_LARGEST_COLLECTION} bytes"
            raise RuleBroken("ErrValidation", f"the collection would be larger than {limits}")
        return after

    async def _fetch_one(self, statement: Any, collection: Collection, **more: Any) -> Row | None:
        return await self._database.fetch_one(
            statement, repository=collection.repository, gun=collection.gun, **more
        )

    async def _fetch_all(self, statement: Any, collection: Collection, **more: Any) -> dict[str, File]:
        """Files by role."""
        rows = await self._database.fetch_all(
            statement, repository=collection.repository, gun=collection.gun, **more
        )
        return {file.role: file for file in map(_file, rows)}

    def _turn(self, collection: Collection) -> asyncio.Lock:
        return self._turns.setdefault(collection, asyncio.Lock())


async def end(tx: Transaction, repositories: list[int], by: Actor = SYSTEM) -> list[str]:
    """Delete the collections of repositories; their GUNs. The repositories are locked."""
    found = await store.collections_of(tx, repositories)
    for repository, gun in found:
        await store.delete_collection(tx, repository, gun)
        await record(tx, _event("DELETE", by, Collection(repository, gun)))
    return [gun for _, gun in found]


# --- without a database ---------------------------------------------------------------------------------------


def _prepare(
    collection: Collection,
    before: Mapping[str, File],
    made: list[File],
    after: Mapping[str, File],
    signed: Mapping[tuple[str, str], tuple[str, int]],
    parsed: Mapping[str, Envelope],
) -> store.Update:
    """
    What is to be stored when the current files are to be those of `after`.

    `signed` is what the index has: digest and length by role and tag. `parsed` are those of the files that were
    read before.
    """
    changed = {role for role in {*before, *after} if before.get(role) != after.get(role)}
    looked = affected(changed, after)
    needed = {ROOT, SNAPSHOT, TIMESTAMP, *looked}.union(*map(ancestors_of, looked)) & after.keys()
    envelopes = {role: _envelope(after[role], parsed) for role in needed}
    current = read_current(envelopes, looked)
    ends = {role: _expiry(envelopes[role]) for role in (ROOT, SNAPSHOT, TIMESTAMP)}
    ends |= {role: current.ends.get(role, 0) for role in looked if is_targets(role)}
    gone = before.keys() - after.keys()
    return store.Update(
        collection=collection,
        base=before.get(TIMESTAMP),
        files=made,
        roles={role: (after[role].version, ends[role]) for role in ends},
        gone=set(gone),
        current=current,
        put={key: facts for key, facts in current.targets.items() if signed.get(key) != facts},
        end={
            key: digest
            for key, (digest, _) in signed.items()
            if key not in current.targets and (key[0] in looked or key[0] in gone)
        },
    )


def _told(update: store.Update, signed: Mapping[tuple[str, str], tuple[str, int]]) -> Published:
    """What an update does; `signed` is what the index had."""
    remaining = {name for _, name in signed.keys() - update.end.keys()} | {name for _, name in update.put}
    return Published(
        version=update.timestamp.version,
        roles=tuple(sorted(file.role for file in update.files if file.role != TIMESTAMP)),
        signed=tuple(sorted({name for _, name in update.put})),
        revoked=tuple(sorted({name for _, name in update.end} - remaining)),
    )


def _content(told: Published) -> dict[str, Any]:
    """What the event of a publication says."""
    return {
        "roles": told.roles[:_MOST_TAGS_TOLD],
        "signed": told.signed[:_MOST_TAGS_TOLD],
        "revoked": told.revoked[:_MOST_TAGS_TOLD],
        "more": max(0, *(len(one) - _MOST_TAGS_TOLD for one in (told.roles, told.signed, told.revoked))),
    }


def _event(kind: EventType, by: Actor, collection: Collection, content: dict[str, Any] | None = None) -> Event:
    return Event(
        type=kind,
        actor=by,
        object=Object(
            "trust_collection", collection.gun, collection.gun, "" if content is None else json.dumps(content)
        ),
        repository_id=collection.repository,
    )


def _given_twice(parts: Sequence[tuple[str, Envelope]]) -> str:
    roles = [role for role, _ in parts]
    return next(role for role in roles if roles.count(role) > 1)


def _envelope(file: File, parsed: Mapping[str, Envelope]) -> Envelope:
    known = parsed.get(file.role)
    return known if known is not None and known.content == file.content else Envelope.parse(file.content)


def _expiry(envelope: Envelope) -> int:
    """When a file expires, in milliseconds since 1970 UTC."""
    return read_moment(envelope.signed["expires"]) // 10**6


def _milliseconds(moment: dt.datetime) -> int:
    """Since 1970 UTC."""
    return int(moment.timestamp() * 1000)


def _new(role: str, content: bytes, version: int) -> File:
    moment = _milliseconds(dt.datetime.now(dt.UTC))
    return File(role, version, hashlib.sha256(content).hexdigest(), content, moment)


def _found(role: str, row: Row | None) -> File:
    if row is None:
        raise FileUnknown(role)
    return _file(row)


def _file(row: Sequence[Any]) -> File:
    role, version, sha256, content, created_at = row
    return File(role, version, sha256, bytes(content), created_at)
