"""
``/api/v0/webhooks``: who is told what happens in repositories, and what was told.

Webhooks of a repository are the business of its administrators, those of a namespace of whoever may make
repositories in it, those without a key of system administrators. Who made one may delete it, also when these
rights have gone, and sees it as long as the repository.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Depends, Query, Response
from pydantic import Field

from dtr.accounts import Operation, may
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Form, Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, Page, PageDep
from dtr.http.api.reach import with_setting
from dtr.http.api.repositories import ON_REPOSITORY, PathDep
from dtr.http.api.rooms import RoomsDep
from dtr.oci import NameInvalid, parse_repository_name
from dtr.outbound import AddressRefused
from dtr.webhooks import TYPES, Receiver, Webhook, WebhookInvalid, WebhookUnknown

if TYPE_CHECKING:
    from typing import Any

    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms
    from dtr.webhooks import Delivery

router = Router(prefix="/api/v0/webhooks", tags=["webhooks"])
accounts_router = Router(prefix="/api/v0/accounts/{namespace}/webhooks", tags=["accounts"])
repository_router = Router(
    prefix="/api/v0/repositories/{namespace}/{reponame:path}/webhooks", tags=["repositories"]
)

_TYPES = "What it tells. " + "; ".join(f"`{name}`: {text}" for name, text in TYPES.items()) + "."
_ENDPOINT = (
    "Where it is sent with POST, `https://…`; `http://…` needs skipTLSVerification. It has to be a public address,"
    " unless the administrator allows others."
)
_CERTIFICATE = "The certificate of the endpoint, or of its authority, in PEM; empty: one that the system trusts."
_SECRET = (
    "Deliveries are signed with it: `X-DTR-Signature-256` is `sha256=` and the HMAC of the body. Never shown."  # noqa: S105
)
_LARGEST_PAGE = 1000
"""They are large, with their certificates."""
_ON_WEBHOOK = ("NO_SUCH_WEBHOOK", "NOT_AUTHORIZED")
_Type = Annotated[str, Field(description=_TYPES, json_schema_extra={"enum": list(TYPES)})]
_Endpoint = Annotated[str, Field(description=_ENDPOINT)]
_Certificate = Annotated[str, Field(description=_CERTIFICATE)]
_Skip = Annotated[bool, Field(alias="skipTLSVerification", description="Whatever the endpoint shows is trusted.")]
_Format = Annotated[
    str,
    Field(
        description="`dtr`, or `cloudevents`: CloudEvents 1.0 in JSON.",
        json_schema_extra={"enum": ["dtr", "cloudevents"]},
    ),
]


def _page(
    page_start: Annotated[
        str,
        Query(alias="pageStart", max_length=1024, description="First record of the page, from X-Next-Page-Start."),
    ] = "",
    page_size: Annotated[
        int, Query(alias="pageSize", ge=1, le=2**31 - 1, description="Most records on the page.")
    ] = _LARGEST_PAGE,
    count: Annotated[bool, Query(description="Say in X-Resource-Count how many records there are.")] = False,
) -> Page:
    """DTR had no pages here: who does not ask for one gets as many as there may be."""
    return Page(page_start, min(page_size, _LARGEST_PAGE), count)


_PageDep = Annotated[Page, Depends(_page)]


class WebhookRecord(Record):
    """A webhook."""

    id: str
    type: _Type
    key: str = Field(
        description="`NAMESPACE/REPOSITORY` or `NAMESPACE` in which it has to happen; empty: anywhere."
    )
    endpoint: _Endpoint
    author_id: str = Field(alias="authorID", description="Id of the account that made it; empty: the program.")
    created_at: dt.datetime
    last_successful_at: dt.datetime = Field(description="When a delivery was taken last; the year 1: never.")
    inactive: bool = Field(description="Nothing is sent. One whose deliveries fail for three days gets so.")
    tls_cert: _Certificate
    skip_tls_verification: _Skip
    name: str
    format: _Format
    has_secret: bool = Field(description="Deliveries are signed.")
    failing_since: dt.datetime = Field(description="Since when no delivery is taken; the year 1: they are.")
    last_error: str = Field(description="Why the last delivery was not taken.")

    @classmethod
    def of(cls, webhook: Webhook) -> WebhookRecord:
        """The record of a webhook."""
        return cls(
            id=webhook.id,
            type=webhook.type,
            key=webhook.key,
            endpoint=webhook.receiver.endpoint,
            author_id=webhook.author_id,
            created_at=moment(webhook.created_at),
            last_successful_at=moment(webhook.last_successful_at),
            inactive=not webhook.is_active,
            tls_cert=webhook.receiver.tls_cert,
            skip_tls_verification=webhook.receiver.skip_tls_verification,
            name=webhook.name,
            format=webhook.format,
            has_secret=webhook.has_secret,
            failing_since=moment(webhook.failing_since),
            last_error=webhook.last_error,
        )


class WebhookForm(Form):
    """A webhook to be made."""

    type: _Type = ""
    key: str = Field("", description="`NAMESPACE/REPOSITORY` or `NAMESPACE`; empty: anywhere, for administrators.")
    endpoint: _Endpoint
    tls_cert: _Certificate = ""
    skip_tls_verification: _Skip = False
    name: str = Field("", description="For people.")
    format: _Format = "dtr"
    secret: str = Field("", description=_SECRET)


class WebhookUpdateForm(Form):
    """What is to be different about a webhook; what is missing or null stays."""

    id: str
    inactive: bool | None = Field(None, description="Send nothing; false: send again.")
    tls_cert: str | None = Field(None, description=_CERTIFICATE)
    skip_tls_verification: bool | None = Field(
        None, alias="skipTLSVerification", description="Whatever the endpoint shows is trusted."
    )
    name: str | None = Field(None, description="For people.")
    secret: str | None = Field(None, description=_SECRET + " Empty: there is none any more.")


class WebhookTestForm(Form):
    """What is sent to try a receiver out, and where."""

    type: _Type
    endpoint: _Endpoint
    tls_cert: _Certificate = ""
    skip_tls_verification: _Skip = False
    format: _Format = "dtr"


class WebhookAnswer(Record):
    """What a receiver answered."""

    status_code: int = Field(description="Of HTTP.")
    body: str = Field(description="How it begins.")
    duration: int = Field(description="Milliseconds.")


class WebhookTrial(Record):
    """What came of trying a webhook out."""

    delivered: bool = Field(description="The receiver took it.")
    status_code: int = Field(description="Of the answer; 0: there was none.")
    body: str = Field(description="How the answer begins.")
    error: str = Field(description="Why it was not taken; empty: it was.")
    duration: int = Field(description="Milliseconds.")


class DeliveryRecord(Record):
    """What a webhook was told, how it was sent, and what came of it."""

    id: str
    redelivery_of: str = Field(description="Id of the delivery that this one told once more; empty: of none.")
    status: Literal["waiting", "delivered", "failed"] = Field(
        description="How the last attempt ended; one that failed is tried again, sixteen times."
    )
    created_at: dt.datetime
    attempted_at: dt.datetime = Field(description="The last time; the year 1: never.")
    attempts: int
    body: str = Field(description="What is sent.")
    status_code: int = Field(description="Of the last answer; 0: there was none.")
    answer: str = Field(description="How the last answer begins.")
    error: str = Field(description="Why the last attempt failed; empty: it did not.")
    duration: int = Field(description="Milliseconds that the last attempt took.")

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryRecord:
        """The record of a delivery."""
        return cls(
            id=delivery.id,
            redelivery_of=delivery.repeats,
            status=delivery.status,
            created_at=moment(delivery.created_at),
            attempted_at=moment(delivery.attempted_at),
            attempts=delivery.attempts,
            body=delivery.body,
            status_code=delivery.status_code or 0,
            answer=delivery.answer,
            error=delivery.error,
            duration=delivery.duration or 0,
        )


# --- lists ---


@router.get("", summary="Webhooks", responses=errors("NOT_AUTHORIZED"))
async def list_webhooks(
    caller: CallerDep,
    rooms: RoomsDep,
    page: _PageDep,
    response: Response,
    webhook_type: Annotated[str, Query(alias="webhookType", description="Only those of this type.")] = "any",
    everywhere: Annotated[
        bool, Query(description="Only those without a key, of everybody; for system administrators.")
    ] = False,
) -> list[WebhookRecord]:
    """
    One's own, but of repositories that one does not see any more; for system administrators all.

    The oldest first.
    """
    account = caller.require(Operation.MANAGE_OWN_SETTINGS)
    kind = "" if webhook_type == "any" else webhook_type
    if everywhere:
        caller.require(Operation.MANAGE_GLOBAL_WEBHOOKS)
        return await _list(rooms, page, response, everywhere=True, kind=kind)
    author = None if caller.may(Operation.MANAGE_GLOBAL_WEBHOOKS) else account.id
    return await _list(rooms, page, response, author=author, kind=kind)


@repository_router.get("", summary="Webhooks of a repository", responses=errors(*ON_REPOSITORY))
async def list_repo_webhooks(
    path: PathDep, caller: CallerDep, rooms: RoomsDep, page: _PageDep, response: Response
) -> list[WebhookRecord]:
    """Everybody's; for administrators of the repository."""
    repository = await caller.require_on(path, Operation.MANAGE_REPOSITORY_WEBHOOKS)
    return await _list(rooms, page, response, repository=repository)


@accounts_router.get("", summary="Webhooks of a namespace", responses=errors("NO_SUCH_ACCOUNT", "NOT_AUTHORIZED"))
async def list_namespace_webhooks(
    namespace: str, caller: CallerDep, rooms: RoomsDep, page: _PageDep, response: Response
) -> list[WebhookRecord]:
    """Everybody's, without those of single repositories; for whoever may make repositories in the namespace."""
    owner = await caller.require_in(namespace, Operation.MANAGE_NAMESPACE_WEBHOOKS)
    return await _list(rooms, page, response, namespace=owner.id)


async def _list(rooms: Rooms, page: Page, response: Response, **which: Any) -> list[WebhookRecord]:
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.webhooks.count(**which))
    found = await rooms.webhooks.list_webhooks(**which, start=page.start, limit=page.limit)
    return [WebhookRecord.of(one) for one in page.cut(response, found, lambda one: one.id)]


# --- changes ---


@router.post(
    "",
    summary="Make a webhook",
    responses=errors("INVALID_WEBHOOK", "NO_SUCH_ACCOUNT", "NO_SUCH_REPOSITORY", "NOT_AUTHORIZED"),
)
async def create_webhook(form: WebhookForm, caller: CallerDep, rooms: RoomsDep) -> list[WebhookRecord]:
    """
    For administrators of the repository or whoever may make repositories in the namespace.

    Without a key it tells what happens anywhere, for system administrators. It tells what happens from now on,
    each event at least once, also when it cannot be delivered at once.
    """
    repository, namespace = await _place(form.key, caller)
    webhook = Webhook(
        type=form.type,
        repository_id=repository,
        namespace_id=namespace,
        receiver=Receiver(
            endpoint=form.endpoint, tls_cert=form.tls_cert, skip_tls_verification=form.skip_tls_verification
        ),
        name=form.name,
        format=form.format,  # type: ignore[arg-type]  # the room checks it
    )
    return [WebhookRecord.of(await rooms.webhooks.create(webhook, secret=form.secret, by=caller.actor))]


@router.post(
    "/test",
    summary="Try a receiver out",
    responses=errors("INVALID_WEBHOOK", "WEBHOOK_TEST_FAILED", "NOT_AUTHORIZED"),
)
async def test_webhook(form: WebhookTestForm, caller: CallerDep, rooms: RoomsDep) -> WebhookAnswer:
    """For any user. It is sent a sample of the type, once; the answer is that of the receiver."""
    caller.require(Operation.MANAGE_OWN_SETTINGS)
    if form.type not in TYPES or form.format not in {"dtr", "cloudevents"}:
        raise WebhookInvalid(f"a type is one of {', '.join(TYPES)}, a format dtr or cloudevents")
    answer = await rooms.deliveries.send_sample(
        form.type,
        form.format,  # type: ignore[arg-type]  # checked above
        Receiver(endpoint=form.endpoint, tls_cert=form.tls_cert, skip_tls_verification=form.skip_tls_verification),
        round(dt.datetime.now(dt.UTC).timestamp() * 1000),
    )
    if answer.status is None or not answer.is_taken:
        text = answer.error
        if text == str(AddressRefused()):
            text = with_setting(text, "webhooks.allowed_networks", caller)
        raise ApiError("WEBHOOK_TEST_FAILED", text)
    return WebhookAnswer(status_code=answer.status, body=answer.text, duration=answer.duration)


@router.post("/update", summary="Change a webhook", responses=errors("INVALID_WEBHOOK", *_ON_WEBHOOK))
async def update_webhook(form: WebhookUpdateForm, caller: CallerDep, rooms: RoomsDep) -> list[WebhookRecord]:
    """For whoever may make it. Its type, key, endpoint and format stay."""
    found = await _managed(form.id, caller, rooms)
    changed = await rooms.webhooks.change(
        found.id,
        name=form.name,
        tls_cert=form.tls_cert,
        skip_tls_verification=form.skip_tls_verification,
        is_active=None if form.inactive is None else not form.inactive,
        secret=form.secret,
        by=caller.actor,
    )
    return [WebhookRecord.of(changed)]


@router.get("/{webhook}", summary="A webhook", responses=errors(*_ON_WEBHOOK))
async def get_webhook(webhook: str, caller: CallerDep, rooms: RoomsDep) -> WebhookRecord:
    """For whoever may make it, and who made it."""
    return WebhookRecord.of(await _managed(webhook, caller, rooms, for_author=True))


@router.post("/{webhook}/test", summary="Try a webhook out", responses=errors(*_ON_WEBHOOK))
async def try_webhook(webhook: str, caller: CallerDep, rooms: RoomsDep) -> WebhookTrial:
    """
    For whoever may make it. It is sent a sample of its type, once, signed as its deliveries are, active or not.

    What the receiver answers is told, whatever it is, and not written down.
    """
    found = await _managed(webhook, caller, rooms)
    answer = await rooms.deliveries.try_out(found, round(dt.datetime.now(dt.UTC).timestamp() * 1000))
    error = answer.error
    if error == str(AddressRefused()):
        error = with_setting(error, "webhooks.allowed_networks", caller)
    return WebhookTrial(
        delivered=answer.is_taken,
        status_code=answer.status or 0,
        body=answer.text,
        error=error,
        duration=answer.duration,
    )


@router.delete("/{webhook}", summary="Delete a webhook", response_class=Response, responses=errors(*_ON_WEBHOOK))
async def delete_webhook(webhook: str, caller: CallerDep, rooms: RoomsDep) -> Response:
    """For whoever may make it, and who made it. What was not delivered yet is not delivered."""
    found = await _managed(webhook, caller, rooms, for_author=True)
    await rooms.webhooks.delete(found.id, by=caller.actor)
    return Response(status_code=200)


# --- deliveries ---


@router.get("/{webhook}/deliveries", summary="Deliveries of a webhook", responses=errors(*_ON_WEBHOOK))
async def list_webhook_deliveries(
    webhook: str, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[DeliveryRecord]:
    """For whoever may make it. The latest first: a hundred, of thirty days, or more when they are new."""
    found = await _managed(webhook, caller, rooms)
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.deliveries.count(found.id))
    deliveries = await rooms.deliveries.list_deliveries(found.id, start=page.start, limit=page.limit)
    return [DeliveryRecord.of(one) for one in page.cut(response, deliveries, lambda one: one.id)]


@router.get(
    "/{webhook}/deliveries/{delivery}",
    summary="A delivery of a webhook",
    responses=errors("NO_SUCH_WEBHOOK_DELIVERY", *_ON_WEBHOOK),
)
async def get_webhook_delivery(webhook: str, delivery: str, caller: CallerDep, rooms: RoomsDep) -> DeliveryRecord:
    """For whoever may make the webhook."""
    found = await _managed(webhook, caller, rooms)
    return DeliveryRecord.of(await rooms.deliveries.get(found.id, delivery))


@router.post(
    "/{webhook}/deliveries/{delivery}/redeliver",
    status_code=202,
    summary="Deliver once more",
    responses=errors("INVALID_WEBHOOK", "NO_SUCH_WEBHOOK_DELIVERY", *_ON_WEBHOOK),
)
async def redeliver_webhook(webhook: str, delivery: str, caller: CallerDep, rooms: RoomsDep) -> DeliveryRecord:
    """For whoever may make it. What is sent is the same; the webhook has to be active."""
    found = await _managed(webhook, caller, rooms)
    return DeliveryRecord.of(await rooms.deliveries.redeliver(found, delivery, by=caller.actor))


async def _place(key: str, caller: Caller) -> tuple[int | None, str | None]:
    """The repository or the namespace of a key, for whoever may make webhooks there. Raises ApiError."""
    if not key:
        caller.require(Operation.MANAGE_GLOBAL_WEBHOOKS)
        return None, None
    if "/" not in key:
        owner = await caller.require_in(key, Operation.MANAGE_NAMESPACE_WEBHOOKS)
        return None, owner.id
    try:
        path = parse_repository_name(key)
    except NameInvalid:
        caller.user()
        raise ApiError("NO_SUCH_REPOSITORY", key[:255]) from None
    return await caller.require_on(path, Operation.MANAGE_REPOSITORY_WEBHOOKS), None


async def _managed(webhook: str, caller: Caller, rooms: Rooms, *, for_author: bool = False) -> Webhook:
    """
    A webhook, for whoever may change it; with `for_author` also for who made it.

    Raises ApiError, and WebhookUnknown also for one of a repository of which the caller must not know.
    """
    account = caller.user()
    found = await rooms.webhooks.get(webhook)
    knows = True
    if found.repository_id is not None:
        standing = await caller.standing(found.key)
        knows = standing.repository_id == found.repository_id and may(standing.facts, Operation.SEE)
        manages = knows and may(standing.facts, Operation.MANAGE_REPOSITORY_WEBHOOKS)
    elif found.namespace_id is not None:
        standing = await caller.standing(f"{found.key}/")
        manages = may(standing.facts, Operation.MANAGE_NAMESPACE_WEBHOOKS)
    else:
        manages = caller.may(Operation.MANAGE_GLOBAL_WEBHOOKS)
    is_author = found.author_id == account.id and caller.scope is None
    if manages or (for_author and is_author):
        return found
    if not (knows or is_author):
        raise WebhookUnknown(webhook)
    raise ApiError("NOT_AUTHORIZED")
