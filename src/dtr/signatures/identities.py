"""
Identities: whose signatures count, as a namespace or the whole registry registered them.

An identity is a public key, or certificates (of authorities, or of a signer itself), or, with a trust root of
sigstore that the operator configured, who logged in where to get a certificate for a moment. One of a namespace
counts in its repositories, one of the registry everywhere. Elsewhere the first is called ``NAMESPACE/NAME``, the
second ``NAME``: so none can be taken for another.

When an identity is changed or taken away, what was proved with it goes in the same transaction: to take one away
is to revoke it, at once. It keeps its id when it is changed, for those who name it by that.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, Text, and_, bindparam, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import ConstraintViolated, Statement, now
from dtr.db.schema import accounts, repositories, signature_proofs, signing_identities
from dtr.events import SYSTEM, Event, Object, record
from dtr.jobs import JobRequest, submit
from dtr.registry import VERIFY
from dtr.signatures.errors import IdentityInvalid, IdentityUnknown
from dtr.signatures.keys import fingerprint, key_of, normal_pem, read_certificates, read_key, read_subject

if TYPE_CHECKING:
    from dtr.db import Database, Row, Transaction
    from dtr.events import Actor

IdentityKind: TypeAlias = Literal["key", "certificate", "keyless"]

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,98}[A-Za-z0-9])?")
_MOST_IDENTITIES = 100
"""In a namespace, and of the whole registry: each signature is tried with all of them."""
_LONGEST_SUBJECT, _LONGEST_ISSUER = 1000, 1000

_namespace = bindparam("namespace", type_=Text)
_identities = select(
    signing_identities.c.id,
    signing_identities.c.namespace_id,
    func.coalesce(accounts.c.name, ""),
    signing_identities.c.name,
    signing_identities.c.kind,
    signing_identities.c.content,
    signing_identities.c.subject,
    signing_identities.c.fingerprint,
    signing_identities.c.created_at,
).outerjoin_from(signing_identities, accounts, accounts.c.id == signing_identities.c.namespace_id)
_of_namespace = signing_identities.c.namespace_id == _namespace
_of_registry = signing_identities.c.namespace_id.is_(None)
_named = signing_identities.c.name == bindparam("name", type_=Text)
_page = (
    _identities.where(signing_identities.c.name >= bindparam("start", type_=Text))
    .order_by(signing_identities.c.name)
    .limit(bindparam("limit", type_=BigInteger))
)
_LIST = {True: Statement(lambda: _page.where(_of_registry)), False: Statement(lambda: _page.where(_of_namespace))}
_GET = {
    True: Statement(lambda: _identities.where(_of_registry, _named)),
    False: Statement(lambda: _identities.where(_of_namespace, _named)),
}
_LOCK = {
    True: Statement(lambda: _identities.where(_of_registry, _named).with_for_update(of=signing_identities)),
    False: Statement(lambda: _identities.where(_of_namespace, _named).with_for_update(of=signing_identities)),
}
_COUNT = {
    True: Statement(lambda: select(func.count()).select_from(signing_identities).where(_of_registry)),
    False: Statement(lambda: select(func.count()).select_from(signing_identities).where(_of_namespace)),
}
_DELETE = {
    True: Statement(
        lambda: delete(signing_identities).where(_of_registry, _named).returning(signing_identities.c.id)
    ),
    False: Statement(
        lambda: delete(signing_identities).where(_of_namespace, _named).returning(signing_identities.c.id)
    ),
}
"""Of the whole registry (True), and of a namespace."""
_values: dict[str, Any] = {name: bindparam(name) for name in ("kind", "content", "subject", "fingerprint")}
_INSERT = Statement(
    lambda: insert(signing_identities).values(
        id=bindparam("id"), namespace_id=_namespace, name=bindparam("name"), created_at=now(), **_values
    )
)
_UPDATE = Statement(
    lambda: update(signing_identities).where(signing_identities.c.id == bindparam("which")).values(**_values)
)
_FORGET_PROOFS = Statement(
    lambda: delete(signature_proofs).where(signature_proofs.c.identity_id == bindparam("which"))
)
_ACCOUNT = Statement(lambda: select(accounts.c.id).where(accounts.c.id == bindparam("account")))
_of_repository = _identities.join(
    repositories,
    and_(
        repositories.c.id == bindparam("repository", type_=BigInteger),
        or_(_of_registry, signing_identities.c.namespace_id == repositories.c.namespace_id),
    ),
).order_by(signing_identities.c.id)
OF_REPOSITORY = Statement(_of_repository)
KEEP_OF_REPOSITORY = Statement(lambda: _of_repository.with_for_update(read=True, of=signing_identities))
"""All that count in a repository, by id; read with `identity_of`. The latter keeps them as they are."""


class Identity(Struct, frozen=True, kw_only=True):
    """Whose signatures count. `created_at` in milliseconds since 1970 UTC."""

    id: str = ""
    """Empty: it is to be registered."""
    namespace_id: str | None = None
    """The account in whose repositories it counts; None: in all."""
    namespace: str = ""
    """What that account is called."""
    name: str
    kind: IdentityKind
    content: str
    """PEM of a key, PEM of certificates; of a keyless one the issuer of the tokens that certificates tell of."""
    subject: str = ""
    """
    Whom certificates have to be of: attributes as RFC 4514 writes them, others may be there, too; empty: anybody.
    Of a keyless one the mail address or URL of who signs.
    """
    fingerprint: str = ""
    """SHA-256 of the key's DER form, of the first certificate's key; empty: keyless."""
    created_at: int = 0

    @property
    def qualified_name(self) -> str:
        """What it is called outside of its namespace."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def as_object(self) -> Object:
        """The identity as what an event is about."""
        content = json.dumps({"kind": self.kind, "subject": self.subject, "fingerprint": self.fingerprint})
        return Object("signing_identity", self.id, self.qualified_name, content)


def checked(identity: Identity) -> Identity:
    """The identity in its usual form, with its fingerprint. Raises IdentityInvalid for what is none."""
    if _NAME.fullmatch(identity.name) is None:
        raise IdentityInvalid("a name has at most 100 letters, digits, spaces, '.', '_' and '-'")
    if len(identity.subject) > _LONGEST_SUBJECT:
        raise IdentityInvalid(f"subject has at most {_LONGEST_SUBJECT} characters")
    if identity.kind == "key":
        if identity.subject:
            raise IdentityInvalid("a key has no subject")
        key = read_key(identity.content)
        return replace(identity, content=normal_pem(key), fingerprint=fingerprint(key))
    if identity.kind == "certificate":
        found = read_certificates(identity.content)
        if identity.subject:
            read_subject(identity.subject)
        return replace(identity, fingerprint=fingerprint(key_of(found[0])))
    if not identity.content.startswith("https://") or len(identity.content) > _LONGEST_ISSUER:
        raise IdentityInvalid("the issuer of a keyless identity is an address with https://")
    if not identity.subject:
        raise IdentityInvalid("a keyless identity has a subject: the mail address or URL of who signs")
    return replace(identity, fingerprint="")


class Identities:
    """The identities of all namespaces and of the registry. Who may change them is not decided here."""

    def __init__(self, database: Database, *, takes_keyless: bool = False) -> None:
        """With `takes_keyless` there is a trust root of sigstore to verify what keyless ones sign."""
        self._database = database
        self._takes_keyless = takes_keyless

    async def list_identities(self, namespace: str | None, *, start: str = "", limit: int) -> list[Identity]:
        """At most `limit` from the name `start` on, by name, of a namespace (its account's id; None: registry)."""
        rows = await self._database.fetch_all(
            _LIST[namespace is None], **_of(namespace), start=start, limit=limit
        )  # fmt: skip
        return [identity_of(row) for row in rows]

    async def count(self, namespace: str | None) -> int:
        """How many `list_identities` lists in the end."""
        row = await self._database.fetch_one(_COUNT[namespace is None], **_of(namespace))
        return int(row[0]) if row else 0

    async def get(self, namespace: str | None, name: str) -> Identity:
        """The identity of this name. Raises IdentityUnknown."""
        row = await self._database.fetch_one(_GET[namespace is None], **_of(namespace), name=name)
        if row is None:
            raise IdentityUnknown(name)
        return identity_of(row)

    async def put(self, identity: Identity, *, by: Actor = SYSTEM) -> Identity:
        """
        Register an identity, or change the one of its name, with which nothing is proved any more.

        All signatures that it concerns are verified again soon, by a job. Raises IdentityInvalid.
        """
        if identity.kind == "keyless" and not self._takes_keyless:
            raise IdentityInvalid("keyless signatures count for nobody: no trust root of sigstore is configured")
        made = await asyncio.to_thread(checked, identity)
        namespace, is_global = made.namespace_id, made.namespace_id is None
        values = {name: getattr(made, name) for name in _values}

        async def work(tx: Transaction) -> Identity:
            before = await tx.fetch_one(_LOCK[is_global], **_of(namespace), name=made.name)
            if before is None:
                row = await tx.fetch_one(_COUNT[is_global], **_of(namespace))
                if row is not None and row[0] >= _MOST_IDENTITIES:
                    raise IdentityInvalid(f"there are at most {_MOST_IDENTITIES} identities in one place")
                await tx.execute(_INSERT, id=str(uuid.uuid4()), namespace=namespace, name=made.name, **values)
            else:
                await tx.execute(_UPDATE, which=before[0], **values)
                await tx.execute(_FORGET_PROOFS, which=before[0])
            stored = identity_of(await tx.fetch_one(_GET[is_global], **_of(namespace), name=made.name))
            await _note(tx, "UPDATE" if before else "CREATE", stored, by)
            parameters = {} if namespace is None else {"namespace": namespace}
            await submit(tx, JobRequest(action=VERIFY, parameters=parameters, retries=3))
            return stored

        while True:
            try:
                return await self._database.unit(work)
            except ConstraintViolated:  # somebody registered one of this name, or the account went
                if namespace is not None and not await self._has_account(namespace):
                    raise IdentityUnknown(made.name) from None

    async def delete(self, namespace: str | None, name: str, *, by: Actor = SYSTEM) -> None:
        """Take an identity away, with all that was proved with it. Raises IdentityUnknown."""
        found = await self.get(namespace, name)

        async def work(tx: Transaction) -> None:
            row = await tx.fetch_one(_DELETE[namespace is None], **_of(namespace), name=name)
            if row is None:
                raise IdentityUnknown(name)
            await _note(tx, "DELETE", replace(found, id=row[0]), by)

        await self._database.unit(work)

    async def _has_account(self, account: str) -> bool:
        return await self._database.fetch_one(_ACCOUNT, account=account) is not None


async def _note(
    tx: Transaction, kind: Literal["CREATE", "UPDATE", "DELETE"], identity: Identity, by: Actor
) -> None:
    target = Object("account", identity.namespace_id, identity.namespace) if identity.namespace_id else None
    await record(tx, Event(type=kind, actor=by, object=identity.as_object(), target=target))


def _of(namespace: str | None) -> dict[str, str]:
    return {} if namespace is None else {"namespace": namespace}


def identity_of(row: Row | None) -> Identity:
    """The identity of a row of the statements here."""
    assert row is not None
    number, namespace_id, namespace, name, kind, content, subject, print_, created_at = row
    return Identity(
        id=number,
        namespace_id=namespace_id,
        namespace=namespace,
        name=name,
        kind=kind,
        content=content,
        subject=subject,
        fingerprint=print_,
        created_at=created_at,
    )
