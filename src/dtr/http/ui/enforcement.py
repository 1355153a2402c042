"""
What has to be signed to be pulled: the same page for the registry, a namespace and a repository.

Whoever has pages of one of them adds these with `add`, and says by `Place` where the policy holds and in which
frame the page is shown. It has the policy, its exceptions, and what it would refuse now.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct, field
from pydantic import ValidationError

from dtr.enforcement import EnforcementPolicyInvalid, EnforcementPolicyUnknown
from dtr.http.api import enforcement, signatures
from dtr.http.api.enforcement import EnforcementExceptionForm, EnforcementPolicyForm
from dtr.http.api.errors import ApiError
from dtr.http.ui.problems import Problems, Refused, problems_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.responses import Response

    from dtr.http.api.enforcement import EnforcementPolicyRecord, EnforcementReportRecord
    from dtr.http.ui.pages import Pages
    from dtr.http.ui.visit import Listing, Visit

Finder: TypeAlias = "Callable[[Visit], Awaitable[Place]]"

_ROWS = 25
_MOST_IDENTITIES = 100


def N_(text: str) -> str:  # noqa: N802 - the word by which texts are found
    """A text that is translated where it is shown."""
    return text


_SAYINGS = (
    (
        "is no signer",
        "signers",
        N_("One of these is no signer: role:targets/NAME, key:SHA256 or identity:NAME is one."),
    ),
    ("there is no team", "teams", N_("One of these teams is not there: ORGANIZATION/TEAM is one.")),
    ("there is no such team", "teams", N_("One of these teams is not there: ORGANIZATION/TEAM is one.")),
    ("has a reason", "reason", N_("Say why, in at most 1,000 characters.")),
    ("no pattern of tags", "value", N_("This is no pattern of tags: * is anything, ? one character.")),
    ("is no digest", "value", N_("This is no digest: sha256: and 64 hexadecimal digits.")),
    ("ends later than now", "until", N_("The day has to be later than today.")),
    ("names no account", "value", N_("There is no such account.")),
    ("no such account", "value", N_("There is no such account.")),
)
"""What the API says in a refusal, the field that it is about, and what a page says."""


class Place(Struct, frozen=True):
    """Where a policy holds, and the frame of its page."""

    kind: Literal["registry", "namespace", "repository"]
    name: str
    """Of the namespace or the repository, with its namespace; of the registry empty."""
    url: str
    """The address of the page."""
    may_edit: bool
    template: str
    """It includes ``enforcement/policy.html``."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """What the template sees besides."""


async def _see(visit: Visit, place: Place) -> enforcement.Find:
    if place.kind == "repository":
        return await enforcement.see_of_repository(place.name, visit.caller)
    if place.kind == "namespace":
        return await enforcement.see_of_namespace(place.name, visit.caller)
    return await enforcement.see_of_registry(visit.caller)


async def _edit(visit: Visit, place: Place) -> enforcement.Find:
    if place.kind == "repository":
        return await enforcement.edit_of_repository(place.name, visit.caller)
    if place.kind == "namespace":
        return await enforcement.edit_of_namespace(place.name, visit.caller)
    return await enforcement.edit_of_registry(visit.caller)


_GET = {
    "registry": enforcement.get_registry_enforcement,
    "namespace": enforcement.get_namespace_enforcement,
    "repository": enforcement.get_repository_enforcement,
}
_SET = {
    "registry": enforcement.set_registry_enforcement,
    "namespace": enforcement.set_namespace_enforcement,
    "repository": enforcement.set_repository_enforcement,
}
_DELETE = {
    "registry": enforcement.delete_registry_enforcement,
    "namespace": enforcement.delete_namespace_enforcement,
    "repository": enforcement.delete_repository_enforcement,
}
_EXCEPT = {
    "registry": enforcement.create_registry_enforcement_exception,
    "namespace": enforcement.create_namespace_enforcement_exception,
    "repository": enforcement.create_repository_enforcement_exception,
}
_END = {
    "registry": enforcement.delete_registry_enforcement_exception,
    "namespace": enforcement.delete_namespace_enforcement_exception,
    "repository": enforcement.delete_repository_enforcement_exception,
}
_REPORT = {
    "registry": enforcement.try_registry_enforcement,
    "namespace": enforcement.try_namespace_enforcement,
    "repository": enforcement.try_repository_enforcement,
}


async def load(visit: Visit, place: Place) -> EnforcementPolicyRecord | None:
    """The policy of a place; None: it has none of its own. Raises ApiError."""
    try:
        return await visit.call(_GET[place.kind], find=await _see(visit, place))
    except EnforcementPolicyUnknown:
        return None


def add(pages: Pages, address: str, find: Finder) -> None:
    """Answer a template of addresses, and what is below it, with the policy of the place that `find` gives."""

    @pages.get(address)
    async def show(visit: Visit) -> Response:
        return await _page(visit, await find(visit))

    @pages.post(address)
    async def save(visit: Visit) -> Response:
        return await _save(visit, await find(visit))

    @pages.post(f"{address}/report")
    async def report(visit: Visit) -> Response:
        return await _report(visit, await find(visit))

    @pages.post(f"{address}/exceptions")
    async def make_exception(visit: Visit) -> Response:
        return await _except(visit, await find(visit))

    @pages.post(f"{address}/exceptions/{{exception}}/delete")
    async def end_exception(visit: Visit) -> Response:
        return await _end(visit, await find(visit))

    @pages.get(f"{address}/delete")
    async def ask(visit: Visit) -> Response:
        return await _ask(visit, await find(visit))

    @pages.post(f"{address}/delete")
    async def delete(visit: Visit) -> Response:
        place = await find(visit)
        await visit.call(_DELETE[place.kind], find=await _edit(visit, place))
        return visit.redirect(place.url, visit._("Nothing has to be signed here any more."))


async def _page(
    visit: Visit,
    place: Place,
    *,
    wrong: str = "",
    refused: Refused | None = None,
    typed: dict[str, Any] | None = None,
    listing: Listing[list[EnforcementReportRecord]] | None = None,
) -> Response:
    """The page; `wrong` names the form that comes back: ``policy`` or ``exception``."""
    policy = await load(visit, place)
    identities = await _identities(visit, place)
    known = {f"identity:{one}" for one in identities}
    signers = policy.signers if policy else []
    shown: dict[str, Any] = {
        "mode": policy.mode if policy else "off",
        "identity": [one for one in signers if one in known],
        "signers": "\n".join(one for one in signers if one not in known),
        "teams": "\n".join(policy.teams if policy else []),
        "seen": _seen(policy),
        "kind": "tag",
        "value": "",
        "reason": "",
        "until": "",
    }
    return visit.page(
        place.template,
        refused.status if refused else 200,
        where=place,
        policy=policy,
        identities=identities,
        typed={**shown, **(typed or {})},
        listing=listing,
        wrong=wrong,
        problems=refused.problems if refused else Problems(),
        **place.context,
    )


async def _identities(visit: Visit, place: Place) -> list[str]:
    """The names of registered identities that a policy of the place may ask for, as it writes them."""
    found = await visit.listing(signatures.list_signing_identities, start="", size=_MOST_IDENTITIES)
    names = [one.name for one in found.records]
    namespace = place.name.partition("/")[0]
    if namespace:
        try:
            own = await visit.listing(
                signatures.list_signing_identities, start="", size=_MOST_IDENTITIES, namespace=namespace
            )
        except ApiError:  # of a namespace whose identities the visitor does not see
            return names
        names += [f"{namespace}/{one.name}" for one in own.records]
    return names


def _seen(policy: EnforcementPolicyRecord | None) -> str:
    """A policy as the form showed it, to notice that somebody changed it."""
    if policy is None:
        return ""
    return "|".join((policy.mode, " ".join(policy.signers), " ".join(policy.teams)))


async def _typed(visit: Visit) -> dict[str, Any]:
    typed: dict[str, Any] = {name: await visit.text(name) for name in ("mode", "signers", "teams", "seen")}
    typed["identity"] = await visit.texts("identity")
    return typed


def _data(typed: dict[str, Any]) -> dict[str, object]:
    signers = [*typed["identity"], *typed["signers"].split("\n")]
    return {
        "mode": typed["mode"],
        "signers": [one.strip() for one in signers if one.strip()],
        "teams": [one.strip() for one in typed["teams"].split("\n") if one.strip()],
    }


async def _save(visit: Visit, place: Place) -> Response:
    typed = await _typed(visit)
    find = await _edit(visit, place)
    await find()
    present = await load(visit, place)
    try:
        if typed["seen"] != _seen(present):
            typed["seen"] = _seen(present)
            raise Refused(_conflict(visit, present), 409)
        await visit.submit(_SET[place.kind], form=EnforcementPolicyForm, data=_data(typed), find=find)
    except Refused as refused:
        return await _page(visit, place, wrong="policy", refused=_said(visit, refused), typed=typed)
    return visit.redirect(place.url, visit._("The policy is saved. It holds within two seconds."))


def _conflict(visit: Visit, present: EnforcementPolicyRecord | None) -> Problems:
    problems = Problems()
    modes = {"off": visit._("Off"), "report": visit._("Only report"), "enforce": visit._("Refuse pulls")}
    problems.add(
        "",
        visit._(
            "Somebody else changed the policy meanwhile. Theirs: {mode}; {who}. Save again to replace it.",
            mode=modes[present.mode if present else "off"],
            who=", ".join((*present.signers, *present.teams)) if present else visit._("nobody"),
        ),
    )
    return problems


def _said(visit: Visit, refused: Refused) -> Refused:
    """The refusal with the API's words in the visitor's, beside the field that they are about."""
    problems = refused.problems
    for known, name, text in _SAYINGS:
        if known in problems.detail:
            problems.general.clear()
            problems.add(name, visit._(text))
            break
    return refused


async def _report(visit: Visit, place: Place) -> Response:
    """What the policy that is typed would refuse, a page of tags at a time."""
    typed = await _typed(visit)
    find = await _edit(visit, place)
    await find()
    try:
        form = EnforcementPolicyForm.model_validate(_data(typed))
    except ValidationError as error:
        refused = Refused(problems_of(error, visit.words, {}))
        return await _page(visit, place, wrong="policy", refused=refused, typed=typed)
    try:
        listing = await visit.listing(
            _REPORT[place.kind], find=find, form=form, start=await visit.text("start"), size=_ROWS
        )
    except EnforcementPolicyInvalid as error:
        problems = Problems(detail=str(error))
        problems.add("", visit._("What has to be signed cannot be said so."))
        return await _page(visit, place, wrong="policy", refused=_said(visit, Refused(problems)), typed=typed)
    return await _page(visit, place, typed=typed, listing=listing)


async def _except(visit: Visit, place: Place) -> Response:
    names = ("kind", "value", "reason", "until")
    typed = {name: await visit.text(name) for name in names}
    data: dict[str, object] = {name: typed[name] for name in ("kind", "value", "reason")}
    find = await _edit(visit, place)
    await find()
    try:
        if typed["until"]:
            data["expiresAt"] = _end_of(visit, typed["until"])
        await visit.submit(
            _EXCEPT[place.kind],
            form=EnforcementExceptionForm,
            data=data,
            fields={"NO_SUCH_ACCOUNT": "value", "expiresAt": "until", "expires_at": "until"},
            find=find,
        )
    except Refused as refused:
        return await _page(visit, place, wrong="exception", refused=_said(visit, refused), typed=dict(typed))
    return visit.redirect(f"{place.url}#exceptions", visit._("The exception holds within two seconds."))


def _end_of(visit: Visit, day: str) -> str:
    """The end of a day, in UTC. Raises Refused."""
    try:
        begin = dt.datetime.combine(dt.date.fromisoformat(day), dt.time(), dt.UTC)
        return (begin + dt.timedelta(days=1)).isoformat()
    except (ValueError, OverflowError):
        problems = Problems()
        problems.add("until", visit._("Type a date and a time, like 2030-01-31."))
        raise Refused(problems) from None


async def _end(visit: Visit, place: Place) -> Response:
    exception = visit.values["exception"]
    policy = await load(visit, place)
    ended = next((one for one in policy.exceptions if one.id == exception), None) if policy else None
    await visit.call(_END[place.kind], find=await _edit(visit, place), exceptionid=exception)
    undo = None
    if ended is not None:
        until = (ended.expires_at - dt.timedelta(days=1)).date().isoformat() if ended.expires_at else ""
        kept = {"kind": ended.kind, "value": ended.value, "reason": ended.reason, "until": until}
        undo = (f"{place.url}/exceptions", kept)
    return visit.redirect(f"{place.url}#exceptions", visit._("The exception is over."), undo=undo)


async def _ask(visit: Visit, place: Place) -> Response:
    await (await _edit(visit, place))()
    policy = await load(visit, place)
    count = len(policy.exceptions) if policy else 0
    items = [visit._("Every image can be pulled, signed or not, as far as other policies let it pass.")]
    if count:
        items.append(visit.n_("{n} exception goes with it.", "{n} exceptions go with it.", count))
    return visit.confirm(
        visit._("Ask for no signatures here?"), verb=visit._("Delete the policy"), items=items, back=place.url
    )
