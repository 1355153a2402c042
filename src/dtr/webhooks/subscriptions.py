"""
Webhooks: who wants to be told what.

A webhook is about one type of event, and about one repository, all repositories of a namespace, or all there are.
It belongs to the repository and the namespace themselves, whatever they are called.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.visibility import VISIBLE, asking
from dtr.db import Statement, now
from dtr.db.schema import accounts, repositories, webhooks
from dtr.events import SYSTEM, Event, Object, record
from dtr.webhooks.errors import WebhookInvalid, WebhookUnknown
from dtr.webhooks.payloads import TYPES, Format
from dtr.webhooks.sender import Receiver

if TYPE_CHECKING:
    from dtr.db import Database, Row, Transaction
    from dtr.events import Actor, EventType
    from dtr.vault import Vault

_MOST_WEBHOOKS = 100
_LONGEST_NAME, _LONGEST_SECRET, _LONGEST_CERTIFICATE = 200, 1_000, 20_000

COLUMNS = (
    webhooks.c.id,
    webhooks.c.type,
    webhooks.c.repository_id,
    webhooks.c.namespace_id,
    func.coalesce(repositories.c.path, accounts.c.name, ""),
    webhooks.c.author_id,
    webhooks.c.name,
    webhooks.c.endpoint,
    webhooks.c.format,
    webhooks.c.tls_cert,
    webhooks.c.skip_tls_verification,
    webhooks.c.secret.is_not(None),
    webhooks.c.is_active,
    webhooks.c.created_at,
    webhooks.c.last_successful_at,
    webhooks.c.failing_since,
    webhooks.c.last_error,
)
"""What `webhook_of` reads, in its order; from `SOURCE`."""
SOURCE = webhooks.outerjoin(repositories, repositories.c.id == webhooks.c.repository_id).outerjoin(
    accounts, accounts.c.id == webhooks.c.namespace_id
)
# A repository that was deleted takes its webhooks along; that is done a moment later.
_is_there = and_(
    webhooks.c.deleted_at.is_(None),
    case((webhooks.c.repository_id.is_(None), True), else_=repositories.c.path.is_not(None)),
    repositories.c.deleted_at.is_(None),
)
_there = select(*COLUMNS).select_from(SOURCE).where(_is_there)
_GET = Statement(lambda: _there.where(webhooks.c.id == bindparam("id")))
_LOCK = Statement(lambda: _there.where(webhooks.c.id == bindparam("id")).with_for_update(of=webhooks))

_SCOPES: dict[str, tuple[ColumnElement[bool], ...]] = {
    "all": (),
    # What a repository is called now, and whether something happens there, is for those who see it.
    "author": (
        webhooks.c.author_id == bindparam("author", type_=Text),
        or_(webhooks.c.repository_id.is_(None), VISIBLE),
    ),
    "repository": (webhooks.c.repository_id == bindparam("repository", type_=BigInteger),),
    "namespace": (webhooks.c.namespace_id == bindparam("namespace", type_=Text),),
    "everywhere": (webhooks.c.repository_id.is_(None), webhooks.c.namespace_id.is_(None)),
}
_kind = bindparam("kind", type_=Text)
_since = func.coalesce(
    select(webhooks.c.created_at).where(webhooks.c.id == bindparam("start", type_=Text)).scalar_subquery(),
    literal(0, BigInteger),
)
_LISTS, _COUNTS = (
    {
        name: Statement(shape.where(_is_there, *conditions, (_kind == "") | (webhooks.c.type == _kind)))
        for name, conditions in _SCOPES.items()
    }
    for shape in (
        select(*COLUMNS)
        .select_from(SOURCE)
        .where(tuple_(webhooks.c.created_at, webhooks.c.id) >= tuple_(_since, bindparam("start", type_=Text)))
        .order_by(webhooks.c.created_at, webhooks.c.id)
        .limit(bindparam("limit", type_=BigInteger)),
        select(func.count()).select_from(SOURCE),
    )
)
_INSERT = Statement(
    lambda: insert(webhooks).values(
        id=bindparam("id"),
        type=bindparam("type"),
        repository_id=bindparam("repository", type_=BigInteger),
        namespace_id=bindparam("namespace", type_=Text),
        author_id=bindparam("author"),
        name=bindparam("name"),
        endpoint=bindparam("endpoint"),
        format=bindparam("format"),
        tls_cert=bindparam("tls_cert"),
        skip_tls_verification=bindparam("skip_tls_verification", type_=Boolean),
        secret=bindparam("secret"),
        is_active=True,
        created_at=now(),
    )
)
_UPDATE = Statement(
    lambda: (
        update(webhooks)
        .where(webhooks.c.id == bindparam("which"))
        .values(
            name=bindparam("name"),
            tls_cert=bindparam("tls_cert"),
            skip_tls_verification=bindparam("skip_tls_verification", type_=Boolean),
            is_active=bindparam("active", type_=Boolean),
            # Who switches it on again begins anew.
            failing_since=case(
                (and_(bindparam("active", type_=Boolean), webhooks.c.is_active.is_(False)), None),
                else_=webhooks.c.failing_since,
            ),
        )
    )
)
_SET_SECRET = Statement(
    lambda: (
        update(webhooks).where(webhooks.c.id == bindparam("which")).values(secret=bindparam("secret", type_=Text))
    )
)
_DELETE = Statement(lambda: delete(webhooks).where(webhooks.c.id == bindparam("which")))


class Webhook(Struct, frozen=True, kw_only=True):
    """
    A webhook. Moments in milliseconds since 1970 UTC.

    With neither a repository nor a namespace it is about all repositories.
    """

    id: str = ""
    type: str
    repository_id: int | None = None
    namespace_id: str | None = None
    key: str = ""
    """What the repository or the namespace is called now."""
    author_id: str = ""
    name: str = ""
    receiver: Receiver
    format: Format = "dtr"
    has_secret: bool = False
    is_active: bool = True
    created_at: int = 0
    last_successful_at: int | None = None
    failing_since: int | None = None
    """None: the last delivery was taken, or there was none."""
    last_error: str = ""

    def as_object(self, content: str = "") -> Object:
        """The webhook as what an event is about: without its endpoint, which may be a secret."""
        return Object("webhook", self.id, self.name or self.type, content)


class Webhooks:
    """All webhooks. Who may make them is not decided here."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def list_webhooks(
        self,
        *,
        author: str | None = None,
        repository: int | None = None,
        namespace: str | None = None,
        everywhere: bool = False,
        kind: str = "",
        start: str = "",
        limit: int,
    ) -> list[Webhook]:
        """
        At most `limit` webhooks from the id `start` on: of an author, a repository or a namespace, or all.

        The oldest first; when the one of `start` is gone, from the first on. An author has none of repositories
        that it does not see any more. `everywhere`: those that are about all repositories. `kind` is their type;
        empty: any.
        """
        scope, parameters = _scope(author, repository, namespace, everywhere=everywhere)
        rows = await self._database.fetch_all(_LISTS[scope], **parameters, kind=kind, start=start, limit=limit)
        return [webhook_of(row) for row in rows]

    async def count(
        self,
        *,
        author: str | None = None,
        repository: int | None = None,
        namespace: str | None = None,
        everywhere: bool = False,
        kind: str = "",
    ) -> int:
        """How many `list_webhooks` lists in the end."""
        scope, parameters = _scope(author, repository, namespace, everywhere=everywhere)
        row = await self._database.fetch_one(_COUNTS[scope], **parameters, kind=kind)
        return int(row[0]) if row else 0

    async def get(self, webhook: str) -> Webhook:
        """A webhook by its id. Raises WebhookUnknown."""
        row = await self._database.fetch_one(_GET, id=webhook)
        if row is None:
            raise WebhookUnknown(webhook)
        return webhook_of(row)

    async def create(self, webhook: Webhook, *, secret: str = "", by: Actor = SYSTEM) -> Webhook:
        """Make a webhook, whose id is new. Raises WebhookInvalid, VaultError."""
        if webhook.type not in TYPES:
            raise WebhookInvalid(f"a type is one of {', '.join(TYPES)}")
        if webhook.type == "SCANNER_UPDATE_COMPLETED" and (webhook.repository_id or webhook.namespace_id):
            raise WebhookInvalid("the scanner belongs to no repository: SCANNER_UPDATE_COMPLETED has no key")
        if webhook.format not in get_args(Format):
            raise WebhookInvalid(f"a format is one of {', '.join(get_args(Format))}")
        await _check(webhook, secret)
        made = replace(webhook, id=secrets.token_hex(32), author_id=by.id, has_secret=bool(secret))
        sealed = await self._sealed(made.id, secret)
        scope, parameters = _scope(None, made.repository_id, made.namespace_id, everywhere=True)

        async def work(tx: Transaction) -> Webhook:
            row = await tx.fetch_one(_COUNTS[scope], **parameters, kind=made.type)
            if row is not None and row[0] >= _MOST_WEBHOOKS:
                raise WebhookInvalid(f"there are at most {_MOST_WEBHOOKS} webhooks of a type with the same key")
            await tx.execute(
                _INSERT,
                id=made.id,
                type=made.type,
                repository=made.repository_id,
                namespace=made.namespace_id,
                author=made.author_id,
                endpoint=made.receiver.endpoint,
                format=made.format,
                secret=sealed,
                **_changeable(made),
            )
            await _note(tx, "CREATE", made, by)
            written = await tx.fetch_one(_GET, id=made.id)
            if written is None:  # the repository went meanwhile
                raise WebhookInvalid("there is no such repository any more")
            return webhook_of(written)

        return await self._database.unit(work)

    async def change(
        self,
        webhook: str,
        *,
        name: str | None = None,
        tls_cert: str | None = None,
        skip_tls_verification: bool | None = None,
        is_active: bool | None = None,
        secret: str | None = None,
        by: Actor = SYSTEM,
    ) -> Webhook:
        """
        Change of a webhook what is not None; how it is then. `secret` empty: there is none any more.

        Raises WebhookUnknown, WebhookInvalid, VaultError.
        """
        of_receiver = _given(tls_cert=tls_cert, skip_tls_verification=skip_tls_verification)
        of_webhook = _given(name=name, is_active=is_active, has_secret=None if secret is None else bool(secret))

        def changed(before: Webhook) -> Webhook:
            return replace(before, **of_webhook, receiver=replace(before.receiver, **of_receiver))

        # Outside of the unit, for it takes a thread: what else may be changed meanwhile goes with each of these.
        await _check(changed(await self.get(webhook)), secret or "")
        sealed = await self._sealed(webhook, secret or "")

        async def work(tx: Transaction) -> Webhook:
            row = await tx.fetch_one(_LOCK, id=webhook)
            if row is None:
                raise WebhookUnknown(webhook)
            before = webhook_of(row)
            after = changed(before)
            if after == before and not secret:
                return before
            await tx.execute(_UPDATE, which=webhook, active=after.is_active, **_changeable(after))
            if secret is not None:
                await tx.execute(_SET_SECRET, which=webhook, secret=sealed)
            told = {} if secret is None else {"secret": "new" if secret else "none"}
            await _note(tx, "UPDATE", after, by, **told)
            row = await tx.fetch_one(_GET, id=webhook)
            assert row is not None
            return webhook_of(row)

        return await self._database.unit(work)

    async def delete(self, webhook: str, *, by: Actor = SYSTEM) -> None:
        """Remove a webhook; what was not delivered yet is not delivered. Raises WebhookUnknown."""

        async def work(tx: Transaction) -> None:
            row = await tx.fetch_one(_LOCK, id=webhook)
            if row is None:
                raise WebhookUnknown(webhook)
            await tx.execute(_DELETE, which=webhook)
            await _note(tx, "DELETE", webhook_of(row), by)

        await self._database.unit(work)

    async def _sealed(self, webhook: str, secret: str) -> str | None:
        return await asyncio.to_thread(self._vault.seal, secret, purpose(webhook)) if secret else None


def purpose(webhook: str) -> str:
    """What the secret of a webhook is sealed for."""
    return f"webhook {webhook}"


def webhook_of(row: Row) -> Webhook:
    """The webhook of a row that begins with `COLUMNS`."""
    (
        made, kind, repository, namespace, key, author, name, endpoint, form, tls_cert, skips, has_secret,
        is_active, created_at, last_successful_at, failing_since, last_error, *_,
    ) = row  # fmt: skip
    return Webhook(
        id=made,
        type=kind,
        repository_id=repository,
        namespace_id=namespace,
        key=key,
        author_id=author,
        name=name,
        receiver=Receiver(endpoint=endpoint, tls_cert=tls_cert, skip_tls_verification=bool(skips)),
        format=form,
        has_secret=bool(has_secret),
        is_active=bool(is_active),
        created_at=created_at,
        last_successful_at=last_successful_at,
        failing_since=failing_since,
        last_error=last_error,
    )


def _scope(
    author: str | None, repository: int | None, namespace: str | None, *, everywhere: bool
) -> tuple[str, dict[str, object]]:
    """The name of a list, and what it is asked with; `everywhere` says what is meant without a place."""
    if author is not None:
        return "author", {"author": author, **asking(author)}
    given: dict[str, object] = {"repository": repository, "namespace": namespace}
    otherwise: tuple[str, dict[str, object]] = ("everywhere" if everywhere else "all", {})
    return next(((name, {name: value}) for name, value in given.items() if value is not None), otherwise)


async def _check(webhook: Webhook, secret: str) -> None:
    if len(webhook.name) > _LONGEST_NAME or len(secret) > _LONGEST_SECRET:
        raise WebhookInvalid(f"a name has at most {_LONGEST_NAME} characters, a secret {_LONGEST_SECRET}")
    if len(webhook.receiver.tls_cert) > _LONGEST_CERTIFICATE:
        raise WebhookInvalid(f"certificates have at most {_LONGEST_CERTIFICATE} characters")
    await webhook.receiver.check()


def _changeable(webhook: Webhook) -> dict[str, object]:
    return {
        "name": webhook.name,
        "tls_cert": webhook.receiver.tls_cert,
        "skip_tls_verification": webhook.receiver.skip_tls_verification,
    }


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


async def _note(tx: Transaction, kind: EventType, webhook: Webhook, by: Actor, **more: str) -> None:
    content = {
        "type": webhook.type,
        "host": urlsplit(webhook.receiver.endpoint).hostname,
        "inactive": not webhook.is_active,
        **more,
    }
    about = webhook.as_object(json.dumps(content))
    await record(tx, Event(type=kind, actor=by, object=about, repository_id=webhook.repository_id))
