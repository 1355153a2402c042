"""
Public keys of accounts, for content trust and for what signs in their name.

A key is known by the SHA-256 of its DER form (SubjectPublicKeyInfo, RFC 5280), and kept as PEM (RFC 7468), with
the certificates that were made for it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import AccountUnknown, PublicKeyInvalid, PublicKeyTaken, PublicKeyUnknown
from dtr.accounts.records import findable
from dtr.db import ConstraintViolated, Statement, now
from dtr.db.schema import public_keys
from dtr.events import SYSTEM, Event, Object, record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dtr.accounts.accounts import Accounts
    from dtr.accounts.records import Account
    from dtr.db import Database, Row, Transaction
    from dtr.events import Actor, EventType

_LONGEST_PEM = 16 * 1024
_LONGEST_LABEL = 1_000
_MOST_CERTIFICATES, _LONGEST_CERTIFICATES = 20, 64 * 1024
_MOST_KEYS = 100
"""Of an account. Everybody may list them: a page must not be large."""

_INSERT = Statement(
    lambda: (
        insert(public_keys)
        .values(
            account_id=bindparam("account"),
            id=bindparam("id"),
            public_key=bindparam("public_key"),
            label=bindparam("label"),
            certificates=bindparam("certificates"),
            created_at=now(),
        )
        .on_conflict_do_nothing()
    )
)
_columns = (public_keys.c.id, public_keys.c.public_key, public_keys.c.label, public_keys.c.certificates)
_of_account = public_keys.c.account_id == bindparam("account")
_LIST = Statement(
    lambda: (
        select(*_columns)
        .where(_of_account, public_keys.c.id >= bindparam("start"))
        .order_by(public_keys.c.id)
        .limit(bindparam("limit", type_=BigInteger))
    )
)
_FIND = Statement(lambda: select(*_columns).where(_of_account, public_keys.c.id == bindparam("id")))
_LOCK = Statement(
    lambda: select(*_columns).where(_of_account, public_keys.c.id == bindparam("id")).with_for_update()
)
_COUNT = Statement(lambda: select(func.count()).select_from(public_keys).where(_of_account))
_CHANGE = Statement(
    lambda: (
        update(public_keys)
        .where(public_keys.c.account_id == bindparam("owner"), public_keys.c.id == bindparam("which"))
        .values(label=bindparam("new_label"), certificates=bindparam("new_certificates"))
    )
)
_DELETE = Statement(lambda: delete(public_keys).where(_of_account, public_keys.c.id == bindparam("id")))


class Certificate(Struct, frozen=True):
    """A certificate of a key: PEM, which may have those that signed it behind it."""

    label: str
    cert: str


class PublicKey(Struct, frozen=True):
    """A key; `id` is the SHA-256 of its DER form, `public_key` PEM."""

    id: str
    account_id: str
    public_key: str
    label: str
    certificates: tuple[Certificate, ...]


class PublicKeys:
    """The public keys of all accounts."""

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._database = database
        self._accounts = accounts

    async def create(
        self,
        name: str,
        public_key: str,
        *,
        label: str = "",
        certificates: Sequence[Certificate] = (),
        by: Actor = SYSTEM,
    ) -> PublicKey:
        """
        Keep a key of an account, given as PEM.

        Raises AccountUnknown, PublicKeyInvalid, PublicKeyTaken.
        """
        account = await self._accounts.get(name)
        key_id, pem = _parse(public_key)
        made = PublicKey(key_id, account.id, pem, label, tuple(certificates))
        _check(made)

        async def work(tx: Transaction) -> None:
            if not await tx.execute(
                _INSERT,
                account=account.id,
                id=key_id,
                public_key=pem,
                label=label,
                certificates=_document(made.certificates),
            ):
                raise PublicKeyTaken(key_id)
            row = await tx.fetch_one(_COUNT, account=account.id)
            if row is not None and row[0] > _MOST_KEYS:
                raise PublicKeyInvalid(f"an account has at most {_MOST_KEYS} keys")
            await record(tx, _event("CREATE", account, made, by))

        try:
            await self._database.unit(work)
        except ConstraintViolated:  # the account ended meanwhile
            raise AccountUnknown(name) from None
        return made

    async def list_keys(self, name: str, *, start: str = "", limit: int) -> list[PublicKey]:
        """At most `limit` keys of an account, by id, from the id `start` on. Raises AccountUnknown."""
        account = await self._accounts.get(name)
        rows = await self._database.fetch_all(_LIST, account=account.id, start=findable(start), limit=limit)
        return [_key(account, row) for row in rows]

    async def get(self, name: str, key_id: str) -> PublicKey:
        """A key of an account. Raises AccountUnknown, PublicKeyUnknown."""
        account = await self._accounts.get(name)
        row = await self._database.fetch_one(_FIND, account=account.id, id=findable(key_id))
        if row is None:
            raise PublicKeyUnknown(key_id)
        return _key(account, row)

    async def update(
        self,
        name: str,
        key_id: str,
        *,
        label: str | None = None,
        certificates: Sequence[Certificate] | None = None,
        by: Actor = SYSTEM,
    ) -> PublicKey:
        """
        Change of a key what is not None; how it is then.

        Raises AccountUnknown, PublicKeyUnknown, PublicKeyInvalid.
        """
        account = await self._accounts.get(name)
        given: dict[str, Any] = {
            "label": label,
            "certificates": None if certificates is None else tuple(certificates),
        }
        changes = {key: value for key, value in given.items() if value is not None}
        _check(replace(await self.get(account.id, key_id), **changes))

        async def work(tx: Transaction) -> PublicKey:
            row = await tx.fetch_one(_LOCK, account=account.id, id=findable(key_id))
            if row is None:
                raise PublicKeyUnknown(key_id)
            before = _key(account, row)
            after = replace(before, **changes)
            if after != before:
                await tx.execute(
                    _CHANGE,
                    owner=account.id,
                    which=after.id,
                    new_label=after.label,
                    new_certificates=_document(after.certificates),
                )
                await record(tx, _event("UPDATE", account, after, by))
            return after

        return await self._database.unit(work)

    async def delete(self, name: str, key_id: str, *, by: Actor = SYSTEM) -> None:
        """Forget a key of an account. Raises AccountUnknown, PublicKeyUnknown."""
        account = await self._accounts.get(name)
        found = await self.get(account.id, key_id)

        async def work(tx: Transaction) -> None:
            if await tx.execute(_DELETE, account=account.id, id=found.id):
                await record(tx, _event("DELETE", account, found, by))

        await self._database.unit(work)


def _parse(text: str) -> tuple[str, str]:
    """The id of a key given as PEM, and the key as PEM in its usual form. Raises PublicKeyInvalid."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

    if len(text) > _LONGEST_PEM:
        raise PublicKeyInvalid("the key is too long")
    try:
        key = load_pem_public_key(text.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        raise PublicKeyInvalid("not a public key in PEM") from None
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest(), pem.decode("ascii")


def _check(key: PublicKey) -> None:
    """Raise PublicKeyInvalid for labels that are too long, and for certificates that are not of this key."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if max(map(len, [key.label, *(one.label for one in key.certificates)])) > _LONGEST_LABEL:
        raise PublicKeyInvalid(f"a label has at most {_LONGEST_LABEL} characters")
    if len(key.certificates) > _MOST_CERTIFICATES:
        raise PublicKeyInvalid(f"a key has at most {_MOST_CERTIFICATES} certificates")
    if sum(len(one.cert) for one in key.certificates) > _LONGEST_CERTIFICATES:
        raise PublicKeyInvalid(
            f"the certificates of a key have at most {_LONGEST_CERTIFICATES} characters together"
        )
    for one in key.certificates:
        if len(one.cert) > _LONGEST_PEM:
            raise PublicKeyInvalid("a certificate is too long")
        try:
            certified = x509.load_pem_x509_certificates(one.cert.encode("ascii"))[0].public_key()
            der = certified.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, UnsupportedAlgorithm):
            raise PublicKeyInvalid("not a certificate in PEM") from None
        if hashlib.sha256(der).hexdigest() != key.id:
            raise PublicKeyInvalid("the certificate is one of another key")


def _document(certificates: Sequence[Certificate]) -> str:
    return json.dumps([{"label": one.label, "cert": one.cert} for one in certificates])


def _key(account: Account, row: Row) -> PublicKey:
    certificates = tuple(Certificate(one["label"], one["cert"]) for one in json.loads(row[3]))
    return PublicKey(row[0], account.id, row[1], row[2], certificates)


def _event(kind: EventType, account: Account, key: PublicKey, by: Actor) -> Event:
    return Event(type=kind, actor=by, object=Object("public_key", key.id, key.label), target=account.as_object())
