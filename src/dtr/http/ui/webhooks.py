"""
Webhooks of a repository, of a namespace, and of the whole registry: the same pages at four places.

Who made a webhook and may not manage it any more does not come here; over the API it can still be deleted.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dtr.http.api import webhooks
from dtr.http.api.errors import ApiError
from dtr.http.api.models import NEVER
from dtr.http.api.webhooks import WebhookForm, WebhookTestForm, WebhookUpdateForm
from dtr.http.ui.keeping import keep_secrets, not_stored, read_secrets
from dtr.http.ui.organizations import organization
from dtr.http.ui.pages import Pages
from dtr.http.ui.people import find_person
from dtr.http.ui.problems import Problems, Refused
from dtr.http.ui.repository import AT, N_

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.responses import Response

    from dtr.http.api.webhooks import WebhookRecord
    from dtr.http.ui.organizations import Organization
    from dtr.http.ui.people import Person
    from dtr.http.ui.visit import Listing, Repository, Visit

pages = Pages()

PLACES = (
    f"{AT}/webhooks",
    "/orgs/{org}/webhooks",
    "/users/{name}/webhooks",
    "/system/settings/webhooks",
)
TYPES = {
    "TAG_PUSH": N_("An image is pushed under a tag"),
    "TAG_PULL": N_("An image is pulled by a tag"),
    "TAG_DELETE": N_("A tag is deleted"),
    "MANIFEST_PUSH": N_("A manifest is pushed"),
    "MANIFEST_PULL": N_("A manifest is pulled"),
    "MANIFEST_DELETE": N_("A manifest is deleted"),
    "PROMOTION": N_("An image is promoted from a repository"),
    "PUSH_MIRRORING": N_("An image is mirrored to another registry"),
    "POLL_MIRRORING": N_("An image is mirrored from another registry"),
    "REPO_CREATED": N_("A repository is made"),
    "REPO_UPDATED": N_("A repository is changed or renamed"),
    "REPO_DELETED": N_("A repository is deleted"),
    "REPO_EVENT": N_("A repository is made, changed or deleted"),
}
"""What can be told, in words. What only a scanner causes is not offered before there is one."""
_OF_NAMESPACES = ("REPO_CREATED",)
"""What cannot happen in a repository that is there already."""
_FORMATS = {"dtr": N_("JSON as Docker Trusted Registry sent it"), "cloudevents": N_("CloudEvents 1.0")}
_FIELDS = {
    "tlsCert": "certificate",
    "skipTLSVerification": "skip",
    "INVALID_WEBHOOK": "endpoint",
    "WEBHOOK_TEST_FAILED": "endpoint",
}


class Place(Struct, frozen=True):
    """Where webhooks are for."""

    url: str
    """The address of their list."""
    key: str
    """As the API has it: a repository, a namespace, or empty."""
    repo: Repository | None = None
    org: Organization | None = None
    person: Person | None = None

    @property
    def types(self) -> list[str]:
        """What can be told there."""
        return [one for one in TYPES if self.repo is None or one not in _OF_NAMESPACES]


async def _place(visit: Visit) -> Place:
    """The place of the address, for who may manage its webhooks. Raises ApiError."""
    if visit.path.startswith("/system/"):
        visit.require_login()
        if not visit.may("MANAGE_GLOBAL_WEBHOOKS"):
            raise ApiError("NOT_AUTHORIZED")
        return Place("/system/settings/webhooks", "")
    if visit.path.startswith("/repositories/"):
        repo = await visit.repository("MANAGE_REPOSITORY_WEBHOOKS")
        return Place(f"{repo.url}/webhooks", repo.path, repo)
    if visit.path.startswith("/orgs/"):
        org = await organization(visit)
        if not org.may("MANAGE_NAMESPACE_WEBHOOKS"):
            raise ApiError("NOT_AUTHORIZED")
        return Place(f"{org.url}/webhooks", org.name, org=org)
    person = await find_person(visit)
    if not person.has_webhooks:
        raise ApiError("NOT_AUTHORIZED")
    return Place(f"{person.url}/webhooks", person.name, person=person)


def _at(ending: str = "") -> tuple[str, ...]:
    return tuple(f"{place}{ending}" for place in PLACES)


async def _one(visit: Visit, place: Place) -> WebhookRecord:
    """The webhook of the address, if it is one of the place. Raises ApiError."""
    webhook = await visit.call(webhooks.get_webhook, webhook=visit.values["webhook"])
    if webhook.key != place.key:
        raise ApiError("NO_SUCH_WEBHOOK", webhook.id)
    return webhook


# --- list -----------------------------------------------------------------------------------------------------


@pages.get(*_at())
async def list_webhooks(visit: Visit) -> Response:
    """All of a place: what each tells, where, and how that goes."""
    place = await _place(visit)
    listing: Listing[list[WebhookRecord]]
    if place.repo is not None:
        listing = await visit.listing(webhooks.list_repo_webhooks, path=place.key, count=True)
    elif place.key:
        listing = await visit.listing(webhooks.list_namespace_webhooks, namespace=place.key, count=True)
    else:
        listing = await visit.listing(webhooks.list_webhooks, everywhere=True, count=True)
    return visit.page("webhooks/list.html", at=place, listing=listing, types=_types(visit), never=NEVER)


def _types(visit: Visit) -> dict[str, str]:
    return {name: visit._(text) for name, text in TYPES.items()}


# --- new ------------------------------------------------------------------------------------------------------


@pages.get(*_at("/new"))
async def show_form(visit: Visit) -> Response:
    """A webhook to be made."""
    place = await _place(visit)
    kind = visit.query.get("type", "")
    return _form(visit, place, {}, [kind if kind in place.types else "TAG_PUSH"])


def _form(
    visit: Visit,
    place: Place,
    typed: Mapping[str, str],
    chosen: Sequence[str],
    refused: Refused | None = None,
    **more: Any,
) -> Response:
    values = {"name": "", "endpoint": "", "format": "dtr", "certificate": "", "skip": "", "secret": "", **typed}
    # A secret is not sent back.
    kept = keep_secrets(visit, {"secret": values.pop("secret")}, f"{place.url}/new")
    context: dict[str, Any] = {
        "at": place,
        "values": values,
        "types": [(one, visit._(TYPES[one]), one in chosen) for one in place.types],
        "formats": [(one, visit._(text), "") for one, text in _FORMATS.items()],
        "kept": kept,
        "trial": None,
        **more,
    }
    if refused is None:
        return not_stored(visit.page("webhooks/new.html", **context))
    return not_stored(visit.refuse("webhooks/new.html", refused, **context))


_TYPED = ("name", "endpoint", "format", "certificate", "skip")


@pages.post(*_at("/new"))
async def create(visit: Visit) -> Response:
    """Try the receiver out with the first of what was chosen, or make a webhook for each."""
    place = await _place(visit)
    typed = {name: await visit.text(name) for name in _TYPED}
    typed |= await read_secrets(visit, ["secret"], f"{place.url}/new")
    chosen = list(dict.fromkeys(await visit.texts("type")))[: len(TYPES)]
    data = {
        "endpoint": typed["endpoint"],
        "format": typed["format"],
        "tlsCert": typed["certificate"],
        "skipTLSVerification": bool(typed["skip"]),
    }
    made: list[WebhookRecord] = []
    try:
        if not chosen:
            raise Refused(_nothing_chosen(visit))
        if "try" in await visit.form():
            data["type"] = chosen[0]
            answer = await visit.submit(webhooks.test_webhook, form=WebhookTestForm, data=data, fields=_FIELDS)
            return _form(visit, place, typed, chosen, trial=answer)
        data |= {"key": place.key, "name": typed["name"], "secret": typed["secret"]}
        for kind in chosen:
            data["type"] = kind
            made += await visit.submit(webhooks.create_webhook, form=WebhookForm, data=data, fields=_FIELDS)
    except Refused as refused:
        refused = _said(visit, refused)
        if made:
            said = visit.n_("{n} webhook was made before this.", "{n} webhooks were made before this.", len(made))
            refused.problems.add("", said)
        return _form(visit, place, typed, chosen[len(made) :], refused)
    if len(made) > 1:
        said = visit.n_(
            "{n} webhook is there. It tells what happens from now on.",
            "{n} webhooks are there. They tell what happens from now on.",
            len(made),
        )
        return visit.redirect(place.url, said)
    return visit.redirect(
        f"{place.url}/{made[0].id}", visit._("The webhook is there. It tells what happens from now on.")
    )


def _nothing_chosen(visit: Visit) -> Problems:
    problems = Problems()
    problems.add("type", visit._("Choose at least one."))
    return problems


_SAYINGS = (
    ("an endpoint without tls", "endpoint", N_("Without TLS (http://), “Trust whatever it shows” has to be on.")),
    (
        "an endpoint",
        "endpoint",
        N_("Nothing can be sent to this address. One looks like https://ci.example.org/hook."),
    ),
    ("the certificate is not", "certificate", N_("This is no certificate in PEM.")),
    ("certificates have at most", "certificate", N_("This is too long to be a certificate.")),
    ("a name has at most", "name", N_("A name has at most 200 characters, a secret 1,000.")),
    ("there are at most", "", N_("There are as many webhooks for this as there can be: 100.")),
    ("a type is one of", "type", N_("Choose one of the values.")),
    ("a format is one of", "format", N_("Choose one of the values.")),
    ("the webhook is inactive", "", N_("The webhook is switched off. Switch it on, then send once more.")),
)
"""How the API begins to say what is wrong with a webhook, the field that it is about, and what the page says."""


def _said(visit: Visit, refused: Refused) -> Refused:
    """What is wrong with a webhook, at its field, in the visitor's words."""
    problems = refused.problems
    detail = problems.detail.lower()
    found = next(((name, text) for part, name, text in _SAYINGS if detail.startswith(part)), None)
    if problems.code == "INVALID_WEBHOOK" and found is not None:
        problems.fields.clear()
        problems.general.clear()
        problems.detail = ""
        problems.add(found[0], visit._(found[1]))
    return refused


# --- one ------------------------------------------------------------------------------------------------------


@pages.get(*_at("/{webhook}"))
async def show_webhook(visit: Visit) -> Response:
    """What it tells and where, and what became of its deliveries."""
    place = await _place(visit)
    return await _show(visit, place, await _one(visit, place))


async def _show(
    visit: Visit, place: Place, webhook: WebhookRecord, refused: Refused | None = None, **more: Any
) -> Response:
    deliveries = await visit.listing(webhooks.list_webhook_deliveries, webhook=webhook.id, count=True)
    values = {
        "name": webhook.name,
        "certificate": webhook.tls_cert,
        "skip": webhook.skip_tls_verification,
        "active": not webhook.inactive,
    }
    context: dict[str, Any] = {
        "at": place,
        "webhook": webhook,
        "deliveries": deliveries,
        "types": _types(visit),
        "formats": {name: visit._(text) for name, text in _FORMATS.items()},
        "values": values,
        "kept": {},
        "trial": None,
        "never": NEVER,
        **more,
    }
    if refused is None:
        return visit.page("webhooks/one.html", **context)
    return not_stored(visit.refuse("webhooks/one.html", refused, **context))


@pages.post(*_at("/{webhook}"))
async def change(visit: Visit) -> Response:
    """Save what can be changed of it, or switch it on and off."""
    place = await _place(visit)
    webhook = await _one(visit, place)
    form = await visit.form()
    here = f"{place.url}/{webhook.id}"
    secrets: dict[str, str] = {}
    if "switch" in form:
        data: dict[str, Any] = {"id": webhook.id, "inactive": await visit.text("switch") == "off"}
    else:
        ends = bool(await visit.text("unsigned"))
        secrets = await read_secrets(visit, ["secret"], here, forgotten=["secret"] if ends else [])
        data = {
            "id": webhook.id,
            "name": await visit.text("name"),
            "tlsCert": await visit.text("certificate"),
            "skipTLSVerification": bool(await visit.text("skip")),
            **({"secret": ""} if ends else {}),
        }
        if secrets["secret"]:
            data |= secrets
    try:
        await visit.submit(webhooks.update_webhook, form=WebhookUpdateForm, data=data, fields=_FIELDS)
    except Refused as refused:
        values = {
            "name": data.get("name", webhook.name),
            "certificate": data.get("tlsCert", webhook.tls_cert),
            "skip": data.get("skipTLSVerification", webhook.skip_tls_verification),
            "active": not webhook.inactive,
        }
        kept = keep_secrets(visit, secrets, here)
        return await _show(visit, place, webhook, _said(visit, refused), values=values, kept=kept)
    if "switch" not in form:
        return visit.redirect(here, visit._("The webhook is saved."))
    said = visit._("The webhook is switched off.") if data["inactive"] else visit._("The webhook is switched on.")
    undo = (here, {"switch": "on" if data["inactive"] else "off", "back": visit.back})
    return visit.redirect(await _back(visit, place, webhook), said, undo=undo)


async def _back(visit: Visit, place: Place, webhook: WebhookRecord) -> str:
    """Where the switch was: in the list, or on the webhook's page."""
    return place.url if await visit.text("from") == "list" else f"{place.url}/{webhook.id}"


@pages.post(*_at("/{webhook}/test"))
async def try_out(visit: Visit) -> Response:
    """Send it a sample, and show what its receiver answers."""
    place = await _place(visit)
    webhook = await _one(visit, place)
    return await _show(visit, place, webhook, trial=await visit.call(webhooks.try_webhook, webhook=webhook.id))


@pages.get(*_at("/{webhook}/delete"))
async def ask_delete(visit: Visit) -> Response:
    """Ask; say what goes."""
    place = await _place(visit)
    webhook = await _one(visit, place)
    return visit.confirm(
        visit._("Delete the webhook {name}?", name=webhook.name or visit._(TYPES.get(webhook.type, webhook.type))),
        verb=visit._("Delete the webhook"),
        items=[
            visit._(
                "Nothing is sent to {endpoint} any more, also what waits to be sent.", endpoint=webhook.endpoint
            ),
            visit._("Its deliveries are forgotten."),
        ],
        back=f"{place.url}/{webhook.id}",
    )


@pages.post(*_at("/{webhook}/delete"))
async def delete(visit: Visit) -> Response:
    """Delete it."""
    place = await _place(visit)
    webhook = await _one(visit, place)
    await visit.call(webhooks.delete_webhook, webhook=webhook.id)
    return visit.redirect(place.url, visit._("The webhook is deleted."))


# --- deliveries -----------------------------------------------------------------------------------------------


@pages.get(*_at("/{webhook}/deliveries/{delivery}"))
async def show_delivery(visit: Visit) -> Response:
    """What was sent, what was answered."""
    place = await _place(visit)
    webhook = await _one(visit, place)
    delivery = await visit.call(
        webhooks.get_webhook_delivery, webhook=webhook.id, delivery=visit.values["delivery"]
    )
    return visit.page(
        "webhooks/delivery.html",
        at=place,
        webhook=webhook,
        delivery=delivery,
        body=_pretty(delivery.body),
        types=_types(visit),
        never=NEVER,
    )


@pages.post(*_at("/{webhook}/deliveries/{delivery}/redeliver"))
async def redeliver(visit: Visit) -> Response:
    """Send it once more."""
    place = await _place(visit)
    webhook = await _one(visit, place)
    delivery = visit.values["delivery"]
    try:
        again = await visit.submit(webhooks.redeliver_webhook, webhook=webhook.id, delivery=delivery)
    except Refused as refused:
        return await _show(visit, place, webhook, _said(visit, refused))
    return visit.redirect(
        f"{place.url}/{webhook.id}/deliveries/{again.id}",
        visit._("It is sent once more: this is the new delivery."),
    )


def _pretty(body: str) -> str:
    """JSON in lines; what is none as it is."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body
