"""
The signer in this process: private keys in the database, encrypted with passphrases that are not in it.

A key is **pending** until it signed for the first time (`last_used_at` NULL). There is at most one pending key of
an algorithm for a role of a collection, and whoever asks for a new key gets it: who asks and then publishes
nothing leaves no litter. Keys stay when they were replaced, for a client's new root may not have arrived yet.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from sqlalchemy import LargeBinary, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, now
from dtr.db.schema import signer_keys
from dtr.signer.envelopes import seal, unseal
from dtr.signer.errors import KeyUnknown, SignerFailed
from dtr.signer.keys import PrivateKey, check_content, check_request
from dtr.signer.passphrases import Passphrases
from dtr.tuf import PublicKey

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dtr.db import Database, Row, Transaction
    from dtr.tuf import Signature

_KEY_ID = re.compile(r"[0-9a-f]{64}")
_REMEMBERED = 1_024
"""Decrypted keys in memory."""
_BATCH = 50
"""Keys that are encrypted anew in one unit of work."""

_PENDING = Statement(
    lambda: (
        select(signer_keys.c.key_id, signer_keys.c.public)
        .where(
            signer_keys.c.gun == bindparam("gun"),
            signer_keys.c.role == bindparam("role"),
            signer_keys.c.algorithm == bindparam("algorithm"),
            signer_keys.c.last_used_at.is_(None),
        )
        .order_by(signer_keys.c.key_id)
        .limit(1)
    )
)
_INSERT = Statement(
    lambda: (
        insert(signer_keys)
        .values(
            key_id=bindparam("key_id"),
            gun=bindparam("gun"),
            role=bindparam("role"),
            algorithm=bindparam("algorithm"),
            public=bindparam("public", type_=LargeBinary),
            private=bindparam("private"),
            alias=bindparam("alias"),
            created_at=now(),
        )
        .on_conflict_do_nothing()
    )
)
_FIND = Statement(
    lambda: select(
        signer_keys.c.algorithm,
        signer_keys.c.public,
        signer_keys.c.role,
        signer_keys.c.private,
        signer_keys.c.alias,
        signer_keys.c.last_used_at,
    ).where(signer_keys.c.key_id == bindparam("key_id"))
)
_USED = Statement(
    lambda: (
        update(signer_keys)
        .values(last_used_at=now())
        .where(signer_keys.c.key_id == bindparam("key_id"), signer_keys.c.last_used_at.is_(None))
    )
)
_DELETE = Statement(lambda: delete(signer_keys).where(signer_keys.c.key_id == bindparam("key_id")))
_NEXT_ALIAS = Statement(
    lambda: select(func.min(signer_keys.c.alias)).where(signer_keys.c.alias > bindparam("after"))
)
_OLD = Statement(
    lambda: (
        select(signer_keys.c.key_id, signer_keys.c.algorithm, signer_keys.c.private, signer_keys.c.alias)
        .where(signer_keys.c.alias != bindparam("alias"), signer_keys.c.key_id > bindparam("after"))
        .order_by(signer_keys.c.key_id)
        .limit(_BATCH)
    )
)
_REWRAP = Statement(
    lambda: (
        update(signer_keys)
        .values(private=bindparam("sealed"), alias=bindparam("new"))
        .where(signer_keys.c.key_id == bindparam("id"), signer_keys.c.private == bindparam("old"))
    )
)


class Rotation(Struct):
    """What came of a rotation: keys that are now encrypted with the passphrase `alias`, and why others are not."""

    alias: str
    keys: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    """Passphrases that no key needs any more."""


class LocalSigner:
    """A `Signer` over a database; nothing is opened before the first call."""

    def __init__(self, database: Database, passphrase_file: Path) -> None:
        """`passphrase_file` is made with the first key when it is not there."""
        self._database = database
        self._passphrases = Passphrases(passphrase_file)
        self._opened: OrderedDict[str, PrivateKey] = OrderedDict()

    async def create_key(self, gun: str, role: str, algorithm: str) -> PublicKey:
        """`Signer.create_key`."""
        check_request(gun, role, algorithm)
        wanted = {"gun": gun, "role": role, "algorithm": algorithm}
        found = await self._database.fetch_one(_PENDING, **wanted)
        while found is None:  # a pending key of somebody else may sign between insertion and look
            async with self._passphrases.using():
                alias, passphrase = await self._current()
                made, sealed = await asyncio.to_thread(_made, algorithm, passphrase)
                key = {"key_id": made.id, "public": made.public, "private": sealed, "alias": alias}
                await self._execute(_INSERT, wanted | key)
            found = await self._database.fetch_one(_PENDING, **wanted)
        return _public(found[0], algorithm, found[1])

    async def find_key(self, key_id: str) -> PublicKey | None:
        """`Signer.find_key`."""
        found = await self.find_key_and_role(key_id)
        return found[0] if found else None

    async def find_key_and_role(self, key_id: str) -> tuple[PublicKey, str] | None:
        """The public half of a key, and the role that it may sign for. Raises SignerFailed."""
        row = await self._find(key_id)
        return (_public(key_id, row[0], row[1]), row[2]) if row else None

    async def sign(self, key_id: str, content: bytes) -> Signature:
        """`Signer.sign`."""
        row = await self._find(key_id)
        if row is None:
            raise KeyUnknown(key_id)
        role, last_used_at = row[2], row[5]
        check_content(role, content)
        key = self._opened.get(key_id) or await self._open(key_id, row)
        self._remember(key)
        signature = key.sign(content)
        if last_used_at is None:
            await self._execute(_USED, {"key_id": key_id})
        return signature

    async def delete_key(self, key_id: str) -> None:
        """`Signer.delete_key`."""
        self._opened.pop(key_id, None)
        if _KEY_ID.fullmatch(key_id):
            await self._execute(_DELETE, {"key_id": key_id})

    async def check(self) -> None:
        """`Signer.check`: whether all keys could be opened, as far as aliases tell."""
        known = await self._passphrases.aliases()
        missing = [alias for alias in await self._used() if alias not in known]
        if missing:  # a passphrase is in the file before a key is encrypted with it, so it may be there by now
            known = await self._passphrases.aliases()
            missing = [alias for alias in missing if alias not in known]
        if missing:
            raise SignerFailed(
                f"{self._passphrases.file} has no passphrase {', '.join(missing)}, which keys are encrypted with: "
                "hosts that share a database share the file"
            )

    async def close(self) -> None:
        """Nothing to give back: the database is another's."""

    async def rotate_passphrase(
        self, *, make: bool = True, progress: Callable[[Rotation], None] | None = None
    ) -> Rotation:
        """
        Encrypt every key with a new passphrase, and forget the old ones when no key needs them.

        Keys go on to be made and to sign meanwhile. It may be cut off at any moment: each key is encrypted with
        one passphrase of the file, and the next rotation goes on. Not `make`: with the passphrase that the file
        has first, and the file stays as it is, for somebody else brings it to all hosts. `progress` is called now
        and then. Raises SignerFailed; keys that cannot be opened are left as they are, and named.
        """
        if make:
            async with self._passphrases.changing():
                await self._current()
                alias = await self._passphrases.add()
        else:
            alias, _ = await self._current()
        rotation = Rotation(alias)
        passphrase, after = await self._passphrases.find(alias), ""
        while rows := await self._database.fetch_all(_OLD, alias=alias, after=after):
            changes = []
            for key_id, algorithm, private, old_alias in rows:
                try:
                    old = await self._passphrases.find(old_alias)
                    sealed = await asyncio.to_thread(_resealed, key_id, algorithm, private, old, passphrase)
                except SignerFailed as error:
                    rotation.failed[key_id] = str(error)
                else:
                    changes.append({"id": key_id, "old": private, "sealed": sealed, "new": alias})
            rotation.keys += await self._execute(_REWRAP, *changes)
            after = rows[-1][0]
            if progress is not None:
                progress(rotation)
        async with self._passphrases.changing():
            unused = set(await self._passphrases.aliases()) - {alias, *await self._used()}
            if make:
                await self._passphrases.remove(unused)
        rotation.unused = sorted(unused)
        return rotation

    async def _find(self, key_id: str) -> Row | None:
        """The row of a key; what is no id is not asked for."""
        return await self._database.fetch_one(_FIND, key_id=key_id) if _KEY_ID.fullmatch(key_id) else None

    async def _current(self) -> tuple[str, str]:
        """
        Alias and passphrase for new keys; the file is made when there are no keys yet.

        A file that is missing later was lost, or is on another host: a new one would hide that. Raises
        SignerFailed.
        """
        if not await self._passphrases.aliases():
            await self.check()
        return await self._passphrases.current()

    async def _used(self) -> list[str]:
        """The aliases of passphrases that keys are encrypted with: as many look-ups in the index, and one."""
        found: list[str] = []
        while row := await self._database.fetch_one(_NEXT_ALIAS, after=found[-1] if found else ""):
            if row[0] is None:
                break
            found.append(row[0])
        return found

    async def _execute(self, statement: Statement, *parameters: dict[str, Any]) -> int:
        """Run a statement with each of these, as one unit; how many rows it changed."""

        async def work(tx: Transaction) -> int:
            return sum([await tx.execute(statement, **one) for one in parameters])

        return await self._database.unit(work)

    async def _open(self, key_id: str, row: Row) -> PrivateKey:
        """The private key of a row that was just read. Raises KeyUnknown, SignerFailed."""
        while True:
            algorithm, _public_bytes, _role, private, alias, _last_used_at = row
            try:
                passphrase = await self._passphrases.find(alias)
                return await asyncio.to_thread(_opened, key_id, algorithm, private, passphrase)
            except SignerFailed:
                # Perhaps it was encrypted anew meanwhile, and its passphrase forgotten.
                found = await self._find(key_id)
                if found is None:
                    raise KeyUnknown(key_id) from None
                if found[3] == private:
                    raise
                row = found

    def _remember(self, key: PrivateKey) -> None:
        self._opened[key.public.id] = key
        self._opened.move_to_end(key.public.id)
        while len(self._opened) > _REMEMBERED:
            self._opened.popitem(last=False)


def _made(algorithm: str, passphrase: str) -> tuple[PublicKey, str]:
    key = PrivateKey.generate(algorithm)
    return key.public, seal(key.dump(), passphrase)


def _opened(key_id: str, algorithm: str, private: str, passphrase: str) -> PrivateKey:
    """The private key of a row. Raises SignerFailed, also for the key of another row."""
    try:
        key = PrivateKey.load(algorithm, unseal(private, passphrase))
    except SignerFailed as error:
        raise SignerFailed(f"key {key_id}: {error}") from None
    if key.public.id != key_id:
        raise SignerFailed(f"key {key_id}: its row is damaged: it holds another key")
    return key


def _resealed(key_id: str, algorithm: str, private: str, old: str, new: str) -> str:
    return seal(_opened(key_id, algorithm, private, old).dump(), new)


def _public(key_id: str, algorithm: str, public: bytes) -> PublicKey:
    """The public half of a row. Raises SignerFailed."""
    key = PublicKey(algorithm, bytes(public))
    if key.id != key_id:
        raise SignerFailed(f"key {key_id}: its row is damaged: the public half is another key's")
    return key
