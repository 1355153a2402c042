"""
Deliveries: what is told to whom, how it was sent, and what came of it.

A delivery is a row, and a job that sends it: once more when its worker was killed in between, so that it arrives
at least once. Receivers know it by its id. One that fails is tried again, later each time. A webhook whose
deliveries fail for days is switched off.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct
from sqlalchemy import BigInteger, Text, bindparam, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, in_list, now
from dtr.db.schema import webhook_deliveries, webhooks
from dtr.events import SYSTEM, Event, Object, record
from dtr.jobs import JobRequest, submit
from dtr.vault import VaultError
from dtr.webhooks.errors import DeliveryFailed, DeliveryUnknown, WebhookInvalid, WebhookUnknown
from dtr.webhooks.payloads import CONTENT_TYPES, sample
from dtr.webhooks.sender import Answer, Sender
from dtr.webhooks.subscriptions import COLUMNS, SOURCE, Webhook, purpose, webhook_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtr.db import Database, Row, Transaction
    from dtr.events import Actor
    from dtr.vault import Vault
    from dtr.webhooks.payloads import Format
    from dtr.webhooks.sender import Receiver

DeliveryStatus: TypeAlias = Literal["waiting", "delivered", "failed"]

ACTION = "webhook"
"""The job that sends a delivery, whose id is the parameter `delivery`."""
RETRIES = 16
"""After 1, 2, 4 … seconds, and at most ten minutes: more than an hour in all."""
SIGNATURE = "X-DTR-Signature-256"

_DEADLINE_MS = 60_000
_DAY_MS = 86_400_000
_GIVEN_UP_MS = 3 * _DAY_MS
"""A webhook that fails for so long is switched off, when a delivery was tried as often as can be once more."""
_KEPT, _KEPT_MS = 100, 30 * _DAY_MS
_FRESH_MS = 3_600_000
"""
So long every delivery is kept: who follows the events may get one twice some minutes later, and tells it once.
"""
_BATCH = 1_000
_REST_SECONDS = 15.0

_COLUMNS = (
    webhook_deliveries.c.id,
    webhook_deliveries.c.repeats,
    webhook_deliveries.c.body,
    webhook_deliveries.c.created_at,
    webhook_deliveries.c.status,
    webhook_deliveries.c.attempts,
    webhook_deliveries.c.attempted_at,
    webhook_deliveries.c.status_code,
    webhook_deliveries.c.answer,
    webhook_deliveries.c.error,
    webhook_deliveries.c.duration,
)
_webhook = bindparam("webhook", type_=Text)
_QUEUE = Statement(
    lambda: (
        insert(webhook_deliveries)
        .from_select(
            ["id", "webhook_id", "event_id", "repeats", "body", "created_at", "status"],
            select(
                bindparam("id", type_=Text),
                webhooks.c.id,
                bindparam("event", type_=BigInteger),
                bindparam("repeats", type_=Text),
                bindparam("body", type_=Text),
                now(),
                bindparam("status", type_=Text),
            ).where(webhooks.c.id == _webhook, webhooks.c.is_active.is_(True), webhooks.c.deleted_at.is_(None)),
        )
        .on_conflict_do_nothing()
    )
)
_LIST = Statement(
    lambda: (
        select(*_COLUMNS)
        .where(
            webhook_deliveries.c.webhook_id == _webhook,
            or_(
                bindparam("moment", type_=BigInteger).is_(None),
                webhook_deliveries.c.created_at < bindparam("moment", type_=BigInteger),
                (webhook_deliveries.c.created_at == bindparam("moment", type_=BigInteger))
                & (webhook_deliveries.c.id <= bindparam("start", type_=Text)),
            ),
        )
        .order_by(webhook_deliveries.c.created_at.desc(), webhook_deliveries.c.id.desc())
        .limit(bindparam("limit", type_=BigInteger))
    )
)
_COUNT = Statement(
    lambda: select(func.count()).select_from(webhook_deliveries).where(webhook_deliveries.c.webhook_id == _webhook)
)
_GET = Statement(
    lambda: select(*_COLUMNS).where(
        webhook_deliveries.c.webhook_id == _webhook, webhook_deliveries.c.id == bindparam("delivery", type_=Text)
    )
)
_SECRET = Statement(lambda: select(webhooks.c.secret).where(webhooks.c.id == _webhook))
_OPEN = Statement(
    lambda: (
        select(*COLUMNS, webhooks.c.secret, webhooks.c.deleted_at, *_COLUMNS)
        .select_from(SOURCE.join(webhook_deliveries, webhook_deliveries.c.webhook_id == webhooks.c.id))
        .where(webhook_deliveries.c.id == bindparam("delivery", type_=Text))
    )
)
_DONE = Statement(
    lambda: (
        update(webhook_deliveries)
        .where(webhook_deliveries.c.id == bindparam("which"))
        .values(
            status=bindparam("status"),
            attempts=webhook_deliveries.c.attempts + 1,
            attempted_at=now(),
            status_code=bindparam("status_code"),
            answer=bindparam("answer"),
            error=bindparam("error"),
            duration=bindparam("duration"),
        )
    )
)
_LOCK_WEBHOOK = Statement(
    lambda: (
        select(webhooks.c.is_active, webhooks.c.failing_since, now())
        .where(webhooks.c.id == _webhook)
        .with_for_update()
    )
)
_SUCCEEDED = Statement(
    lambda: (
        update(webhooks)
        .where(webhooks.c.id == bindparam("which"))
        .values(last_successful_at=now(), failing_since=None, last_error="")
    )
)
_FAILED = Statement(
    lambda: (
        update(webhooks)
        .where(webhooks.c.id == bindparam("which"))
        .values(failing_since=func.coalesce(webhooks.c.failing_since, now()), last_error=bindparam("error"))
    )
)
_SWITCH_OFF = Statement(
    lambda: update(webhooks).where(webhooks.c.id == bindparam("which")).values(is_active=False)
)
_END_OF_REPOSITORIES = Statement(
    lambda: (
        update(webhooks)
        .where(in_list(webhooks.c.repository_id, "repositories"), webhooks.c.deleted_at.is_(None))
        .values(deleted_at=now(), is_active=False)
    )
)
_placed = select(
    webhook_deliveries.c.id,
    webhook_deliveries.c.created_at,
    func.row_number()
    .over(
        partition_by=webhook_deliveries.c.webhook_id,
        order_by=(webhook_deliveries.c.created_at.desc(), webhook_deliveries.c.id.desc()),
    )
    .label("place"),
).subquery()
_OLD = Statement(
    lambda: (
        select(_placed.c.id)
        .where(
            or_(
                _placed.c.created_at < now() - _KEPT_MS,
                (_placed.c.place > _KEPT) & (_placed.c.created_at < now() - _FRESH_MS),
            )
        )
        .limit(_BATCH)
    )
)
_FORGET = Statement(lambda: delete(webhook_deliveries).where(in_list(webhook_deliveries.c.id, "ids")))
_FORGET_ENDED = Statement(lambda: delete(webhooks).where(webhooks.c.deleted_at < now() - _DAY_MS))


class Delivery(Struct, frozen=True):
    """
    A delivery; moments in milliseconds since 1970 UTC, `duration` in milliseconds.

    `status` is how the last attempt ended; one that failed may be tried again. `repeats` is the id of the one that
    it tells once more.
    """

    id: str
    repeats: str
    body: str
    created_at: int
    status: DeliveryStatus
    attempts: int
    attempted_at: int | None
    status_code: int | None
    answer: str
    error: str
    duration: int | None


class _Rests:
    """
    Receivers that do not answer, by webhook: in this process nothing is sent to them for a while.

    Then one delivery is sent, and the others wait for what comes of it: those who hang keep no worker busy.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def allow(self, webhook: str) -> bool:
        """Whether to send now."""
        until = self._until.get(webhook)
        if until is None:
            return True
        if time.monotonic() < until:
            return False
        self._until[webhook] = time.monotonic() + _REST_SECONDS
        return True

    def note(self, webhook: str, *, answered: bool) -> None:
        """What came of it."""
        if answered:
            self._until.pop(webhook, None)
        else:
            self._until[webhook] = time.monotonic() + _REST_SECONDS


class Deliveries:
    """The deliveries of all webhooks."""

    def __init__(self, database: Database, vault: Vault, sender: Sender, host: Callable[[], str]) -> None:
        """`host` says the registry's ``HOST[:PORT]``; empty: unknown."""
        self._database = database
        self._vault = vault
        self._sender = sender
        self._host = host
        self._rests = _Rests()

    async def list_deliveries(self, webhook: str, *, start: str = "", limit: int) -> list[Delivery]:
        """At most `limit` deliveries from the one with the id `start` on, the latest first."""
        moment = None
        if start:
            row = await self._database.fetch_one(_GET, webhook=webhook, delivery=start)
            if row is None:  # forgotten, and so are all behind it
                return []
            moment = _delivery(row).created_at
        rows = await self._database.fetch_all(_LIST, webhook=webhook, moment=moment, start=start, limit=limit)
        return [_delivery(row) for row in rows]

    async def count(self, webhook: str) -> int:
        """How many `list_deliveries` lists in the end."""
        row = await self._database.fetch_one(_COUNT, webhook=webhook)
        return int(row[0]) if row else 0

    async def get(self, webhook: str, delivery: str) -> Delivery:
        """A delivery of a webhook. Raises DeliveryUnknown."""
        row = await self._database.fetch_one(_GET, webhook=webhook, delivery=delivery)
        if row is None:
            raise DeliveryUnknown(delivery)
        return _delivery(row)

    async def redeliver(self, webhook: Webhook, delivery: str, *, by: Actor = SYSTEM) -> Delivery:
        """Queue what was told before once more. Raises DeliveryUnknown, WebhookInvalid: it is inactive."""

        async def work(tx: Transaction) -> Delivery:
            row = await tx.fetch_one(_GET, webhook=webhook.id, delivery=delivery)
            if row is None:
                raise DeliveryUnknown(delivery)
            before = _delivery(row)
            made = await queue(tx, webhook.id, before.body, repeats=before.repeats or delivery)
            if made is None:
                raise WebhookInvalid("the webhook is inactive")
            about = webhook.as_object(delivery)
            target = Object("webhook", webhook.id, webhook.name or webhook.type, made)
            happened = Event(
                type="SEND", actor=by, object=about, target=target, repository_id=webhook.repository_id
            )
            await record(tx, happened)
            queued = await tx.fetch_one(_GET, webhook=webhook.id, delivery=made)
            assert queued is not None
            return _delivery(queued)

        return await self._database.unit(work)

    async def send_sample(self, kind: str, form: Format, receiver: Receiver, moment: int) -> Answer:
        """Send what a webhook of a type is told, once, now. Raises WebhookInvalid."""
        await receiver.check()
        return await self._sender.send(
            receiver, sample(kind, form, moment, self._host()).encode(), _headers(kind, form, str(uuid.uuid4()))
        )

    async def try_out(self, webhook: Webhook, moment: int) -> Answer:
        """
        Send a webhook what it is told, as a delivery would, signed too, once, now; what came of it.

        Nothing of it is written down. `moment` in milliseconds since 1970 UTC. Raises WebhookUnknown.
        """
        row = await self._database.fetch_one(_SECRET, webhook=webhook.id)
        if row is None:
            raise WebhookUnknown(webhook.id)
        body = sample(webhook.type, webhook.format, moment, self._host()).encode()
        headers = _headers(webhook.type, webhook.format, str(uuid.uuid4()))
        try:
            await self._sign(webhook.id, row[0], body, headers)
        except VaultError as error:
            return Answer(None, "", str(error), 0)
        return await self._sender.send(webhook.receiver, body, headers)

    async def deliver(self, delivery: str) -> str:
        """
        Send a delivery, and write down what came of it; what there is to say about it.

        Raises DeliveryFailed, which is worth another attempt.
        """
        row = await self._database.fetch_one(_OPEN, delivery=delivery)
        if row is None:
            return "the webhook was deleted"
        webhook, (secret, deleted_at, *rest) = webhook_of(row), row[len(COLUMNS) :]
        found = Delivery(*rest)
        if found.status == "delivered":  # by a job whose worker did not come to say so
            return "it was delivered"
        if not webhook.is_active and deleted_at is None:
            await self._write(webhook, found, Answer(None, "", "the webhook is inactive", 0), counts=False)
            return "the webhook is inactive"
        if not self._rests.allow(webhook.id):
            answer = Answer(None, "", "the receiver did not answer a moment ago", 0)
            await self._write(webhook, found, answer, counts=False)
            raise DeliveryFailed(answer.error)
        body = found.body.encode()
        headers = _headers(webhook.type, webhook.format, found.repeats or found.id)
        try:
            await self._sign(webhook.id, secret, body, headers)
            answer = await self._sender.send(webhook.receiver, body, headers)
            self._rests.note(webhook.id, answered=answer.status is not None)
        except VaultError as error:
            answer = Answer(None, "", str(error), 0)
        await self._write(webhook, found, answer, counts=True)
        if not answer.is_taken:
            raise DeliveryFailed(answer.error)
        return f"delivered: the receiver answered {answer.status}"

    async def forget(self) -> int:
        """Remove deliveries that are old or too many, and webhooks whose repository went; how many deliveries."""

        async def work(tx: Transaction) -> int:
            ids = [row[0] for row in await tx.fetch_all(_OLD)]
            return await tx.execute(_FORGET, ids=sorted(ids)) if ids else 0

        await self._database.unit(lambda tx: tx.execute(_FORGET_ENDED))
        total = 0
        while True:
            removed = await self._database.unit(work, durable=False)
            total += removed
            if removed < _BATCH:
                return total

    async def _sign(self, webhook: str, secret: str | None, body: bytes, headers: dict[str, str]) -> None:
        """Add the signature to the headers, if the webhook has a (sealed) secret. Raises VaultError."""
        if secret is not None:
            key = await asyncio.to_thread(self._vault.open, secret, purpose(webhook))
            headers[SIGNATURE] = "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()

    async def _write(self, webhook: Webhook, delivery: Delivery, answer: Answer, *, counts: bool) -> None:
        """Write an attempt down; one that `counts` says something about the receiver."""

        async def work(tx: Transaction) -> None:
            await tx.execute(
                _DONE,
                which=delivery.id,
                status="delivered" if answer.is_taken else "failed",
                status_code=answer.status,
                answer=answer.text,
                error=answer.error,
                duration=answer.duration,
            )
            row = await tx.fetch_one(_LOCK_WEBHOOK, webhook=webhook.id)
            if row is None or not counts:
                return
            if answer.is_taken:
                await tx.execute(_SUCCEEDED, which=webhook.id)
                return
            is_active, failing_since, moment = row
            await tx.execute(_FAILED, which=webhook.id, error=answer.error)
            # Where little happens, that the last one failed is long ago, and says little.
            is_hopeless = delivery.attempts >= RETRIES
            if is_active and is_hopeless and failing_since and moment - failing_since > _GIVEN_UP_MS:
                await tx.execute(_SWITCH_OFF, which=webhook.id)
                content = json.dumps({"inactive": True, "failingSince": failing_since, "error": answer.error})
                await record(
                    tx,
                    Event(
                        type="FAIL",
                        actor=SYSTEM,
                        object=webhook.as_object(content),
                        repository_id=webhook.repository_id,
                    ),
                )

        await self._database.unit(work)


async def queue(
    tx: Transaction, webhook: str, body: str, *, event: int | None = None, repeats: str = ""
) -> str | None:
    """Queue a delivery and its job in a transaction; its id, None: the event is told, or nobody is to be told."""
    made = str(uuid.uuid4())
    queued = await tx.execute(
        _QUEUE, id=made, webhook=webhook, event=event, repeats=repeats, body=body, status="waiting"
    )
    if not queued:
        return None
    request = JobRequest(
        action=ACTION,
        parameters={"delivery": made},
        retries=RETRIES,
        deadline=_DEADLINE_MS,
        unique_key=f"{ACTION}:{made}",
    )
    await submit(tx, request)
    return made


async def end_of_repositories(tx: Transaction, repositories: list[int]) -> None:
    """Take the webhooks of repositories that were deleted away; what was queued is delivered still."""
    await tx.execute(_END_OF_REPOSITORIES, repositories=repositories)


def _headers(kind: str, form: Format, delivery: str) -> dict[str, str]:
    return {
        "Content-Type": CONTENT_TYPES[form],
        "User-Agent": "dtr",
        "X-DTR-Event": kind,
        "X-DTR-Delivery": delivery,
    }


def _delivery(row: Row) -> Delivery:
    return Delivery(*row)
