"""A repository: its overview, its README, its settings, its other name, its end."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup
from msgspec import Struct
from starlette.responses import Response

from dtr.http.api import listings, reasons, repositories, tags, trust
from dtr.http.api.errors import ApiError
from dtr.http.api.models import NEVER
from dtr.http.api.repositories import RenameForm, RepositoryChange
from dtr.http.ui import enforcement
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Mapping, Sequence

    from dtr.http.api.repositories import UsageDay
    from dtr.http.ui.visit import Repository, Visit

pages = Pages()

AT = "/repositories/{namespace}/{repo:path}"
PERIODS = {"30": 1, "90": 1, "364": 7}
"""How many days are drawn, and how many of them are one point."""


def N_(text: str) -> str:  # noqa: N802 - the word by which texts are found
    """A text that is translated where it is shown."""
    return text


# --- overview -------------------------------------------------------------------------------------------------


@pages.get(AT)
async def show_repository(visit: Visit) -> Response:
    """The address of the repository itself leads to its overview, one with a slash at its end to the page."""
    if visit.path.endswith("/"):
        return visit.redirect(quote(visit.path.rstrip("/")), status=308)
    repo = await visit.repository()
    return visit.redirect(f"{repo.url}/info", status=308)


def _rendered(text: str, *, whole: bool) -> tuple[Markup, bool]:
    """A README, or its beginning, as HTML, and whether that is all. For a thread."""
    if not text:
        return Markup(), True
    from dtr.http.ui.markdown import LONGEST, render, render_beginning  # most repositories have none

    return (render(text), len(text) <= LONGEST) if whole else render_beginning(text)


@pages.get(f"{AT}/info")
async def show_overview(visit: Visit) -> Response:
    """What it is for, how to pull from it and push to it, what the visitor may, how much it is used."""
    repo = await visit.repository()
    text = repo.record.long_description or ""
    wants_all = visit.query.get("readme") == "all"
    readme, complete = await asyncio.to_thread(_rendered, text, whole=wants_all)
    newest = await visit.listing(
        tags.list_repo_tags, path=repo.path, start="", size=1, count=True, sort="newest", attached=False
    )
    period = visit.query.get("days", "")
    period = period if period in PERIODS else "30"
    usage = await visit.call(repositories.get_repository_usage, path=repo.path, days=int(period))
    account, access, pinned = visit.account, None, None
    if account is not None:
        access = await visit.call(reasons.get_repository_access, path=repo.path, username=account.name)
        pin = await visit.call(listings.get_pinned_repository, path=repo.path, username=account.name)
        pinned = pin.pinned
    return visit.page(
        "repository/overview.html",
        repo=repo,
        readme=readme,
        has_readme=bool(text.strip()),
        complete=complete,
        wants_all=wants_all,
        newest=newest.records[0] if newest.records else None,
        tags=newest.count or 0,
        days=_drawn(usage.days, PERIODS[period]),
        period=period,
        step=PERIODS[period],
        access=access,
        pinned=pinned,
        never=NEVER,
    )


class Drawn(Struct, frozen=True):
    """One point of the charts: what came in some days, and what was held at their end."""

    day: dt.date
    pulls: int
    pushes: int
    size: int


def _drawn(days: Sequence[UsageDay], step: int) -> list[Drawn]:
    """The days in portions of `step`, each called by its last day."""
    portions = [days[at : at + step] for at in range(len(days) % step, len(days), step)]
    return [
        Drawn(one[-1].day, sum(day.pulls for day in one), sum(day.pushes for day in one), one[-1].size)
        for one in portions
    ]


# --- README ---------------------------------------------------------------------------------------------------


@pages.get(f"{AT}/info/source")
async def show_source(visit: Visit) -> Response:
    """The README as it was written."""
    repo = await visit.repository()
    headers = {"content-disposition": 'inline; filename="README.md"'}
    text = (repo.record.long_description or "").encode("utf-8", "replace")
    return visit.answer(Response(text, media_type="text/plain; charset=utf-8", headers=headers))


@pages.get(f"{AT}/info/edit")
async def show_editor(visit: Visit) -> Response:
    """The README to be changed."""
    repo = await visit.repository("EDIT_DESCRIPTION")
    text = repo.record.long_description or ""
    return visit.page("repository/edit.html", repo=repo, text=text, seen=_mark(text), preview=None, theirs=None)


@pages.post(f"{AT}/info/edit")
async def edit_readme(visit: Visit) -> Response:
    """Show what it would look like, or keep it; when another one changed it meanwhile, ask with both texts."""
    repo = await visit.repository("EDIT_DESCRIPTION")
    form = await visit.form()
    given = form.get("readme", "")
    text = given.replace("\r\n", "\n") if isinstance(given, str) else ""
    seen = await visit.text("seen")
    if "preview" in form:
        preview, _ = await asyncio.to_thread(_rendered, text, whole=True)
        return visit.page("repository/edit.html", repo=repo, text=text, seen=seen, preview=preview, theirs=None)
    present = repo.record.long_description or ""
    if _mark(present) != seen and present != text:
        return _conflict(visit, repo, text, present)
    data = {"longDescription": text, "expected": {"longDescription": present}}
    try:
        await visit.submit(
            repositories.patch_repository,
            form=RepositoryChange,
            data=data,
            fields={"INVALID_SETTINGS": "readme"},
            path=repo.path,
        )
    except Refused as refused:
        if refused.problems.code == "SETTINGS_CHANGED":
            repo = await visit.repository()
            return _conflict(visit, repo, text, repo.record.long_description or "")
        return visit.refuse(
            "repository/edit.html", refused, repo=repo, text=text, seen=seen, preview=None, theirs=None
        )
    return visit.redirect(f"{repo.url}/info", visit._("The README is saved."))


def _conflict(visit: Visit, repo: Repository, text: str, theirs: str) -> Response:
    problems = Problems(code="SETTINGS_CHANGED")
    problems.add("readme", visit._("Somebody else changed the README while you did. Both texts are below."))
    return visit.page(
        "repository/edit.html",
        409,
        repo=repo,
        text=text,
        seen=_mark(theirs),
        preview=None,
        theirs=theirs,
        problems=problems,
    )


def _mark(text: str) -> str:
    """What tells a text from another one, in a field of a form."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# --- settings -------------------------------------------------------------------------------------------------

_MOST_NAMESPACES = 50
"""As many are offered in a list; of more, one is typed."""
SECTIONS = {
    "general": ("shortDescription", "visibility"),
    "tags": ("immutableTags", "immutableTagPatterns", "tagLimit"),
    "scanning": ("scanOnPush",),
}
"""The forms of the page, and the settings that each changes, as the API calls them."""
_SAYINGS = (
    (
        "is no pattern of tags",
        "patterns",
        N_("One of these is no pattern: letters, digits, “.”, “_”, “-”, “*” and “?”."),
    ),
    ("there are at most", "patterns", N_("There are at most 100 patterns.")),
    ("a tag limit is", "limit", N_("A tag limit is at most 1,000,000.")),
    ("a tag limit needs", "limit", N_("A tag limit needs tags that can go: choose no protection.")),
    ("descriptions have at most", "short", N_("A short description has at most 1,000 characters.")),
)
"""A part of what the API says is wrong with settings, the field that it is about, and what the page says."""
_FIELDS = {
    "INVALID_REPOSITORY_VISIBILITY": "visibility",
    "shortDescription": "short",
    "tagLimit": "limit",
    "immutableTagPatterns": "patterns",
}


@pages.get(f"{AT}/settings")
async def show_settings(visit: Visit) -> Response:
    """Everything that its administrators decide."""
    return await _settings(visit, await visit.repository("CHANGE_SETTINGS"), {})


async def _settings(
    visit: Visit, repo: Repository, typed: Mapping[str, Any], refused: Refused | None = None, section: str = ""
) -> Response:
    record = repo.record
    immutability = "all" if record.immutable_tags else "some" if record.immutable_tag_patterns else "none"
    values = {
        "short": record.short_description,
        "visibility": record.visibility,
        "immutability": immutability,
        "patterns": "\n".join(record.immutable_tag_patterns),
        "limit": str(record.tag_limit or ""),
        "scan": "push" if record.scan_on_push else "manual",
        "namespace": record.namespace,
        "name": record.name,
        **typed,
    }
    document = record.model_dump(by_alias=True, mode="json")
    seen = {name: json.dumps({one: document[one] for one in SECTIONS[name]}) for name in SECTIONS}
    namespaces = await _namespaces(visit, record.namespace)
    collections = await visit.call(trust.list_trust_collections, path=repo.path)
    signed = [one for one in collections if any(role.tags > role.forgotten for role in one.roles)]
    return visit.page(
        "repository/settings.html",
        refused.status if refused else 200,
        repo=repo,
        values=values,
        seen=seen,
        section=section,
        signed=signed,
        signed_tags=await _signed_tags(visit, repo) if signed else [],
        policy=await enforcement.load(visit, _signing(repo)),
        namespaces=namespaces,
        offers=[(one, one) for one in namespaces] if len(namespaces) <= _MOST_NAMESPACES else None,
        is_read_only=visit.rooms.live.current.read_only_registry,
        problems=refused.problems if refused else Problems(),
    )


async def _signed_tags(visit: Visit, repo: Repository) -> list[str]:
    """Some of the tags because of which the repository cannot be deleted."""
    found = await visit.listing(tags.list_repo_tags, path=repo.path, start="", size=25, show=["signed"])
    return [one.name for one in found.records if one.in_notary][:10]


def _signing(repo: Repository) -> enforcement.Place:
    return enforcement.Place(
        "repository",
        repo.path,
        f"{repo.url}/settings/signing",
        may_edit=True,
        template="repository/signing.html",
        context={"repo": repo},
    )


async def _find_signing(visit: Visit) -> enforcement.Place:
    return _signing(await visit.repository("EDIT_POLICIES"))


enforcement.add(pages, f"{AT}/settings/signing", _find_signing)


async def _namespaces(visit: Visit, own: str) -> list[str]:
    """The namespaces in which the visitor may let the repository be; empty: it keeps its name."""
    if not await visit.may_in(own, "CREATE_REPOSITORY"):
        return []
    if not await visit.may_in(own, "MANAGE_ORGANIZATION"):
        return [own]
    found = (await visit.call(listings.list_namespaces, limit=_MOST_NAMESPACES + 1)).namespaces
    return found if own in found else [own, *found]


@pages.post(f"{AT}/settings")
async def change_settings(visit: Visit) -> Response:
    """Save one of the forms."""
    repo = await visit.repository("CHANGE_SETTINGS")
    section = await visit.text("section")
    if section not in SECTIONS:
        raise ApiError("INVALID_PARAMETERS")
    typed = {name: await visit.text(name) for name in _TYPED[section]}
    data, problems = _read(visit, section, typed)
    try:
        data["expected"] = json.loads(await visit.text("seen") or "{}")
    except ValueError:
        raise ApiError("INVALID_PARAMETERS") from None
    try:
        if problems:
            raise Refused(problems)
        await visit.submit(
            repositories.patch_repository, form=RepositoryChange, data=data, fields=_FIELDS, path=repo.path
        )
    except Refused as refused:
        if refused.problems.code == "SETTINGS_CHANGED":
            repo = await visit.repository()
            refused = Refused(_changed(visit, repo, section), 409)
        elif refused.problems.code == "INVALID_SETTINGS":
            _say(visit, refused.problems)
        return await _settings(visit, repo, typed, refused, section)
    return visit.redirect(f"{repo.url}/settings", visit._("The settings are saved."))


_TYPED = {
    "general": ("short", "visibility"),
    "tags": ("immutability", "patterns", "limit"),
    "scanning": ("scan",),
}


def _read(visit: Visit, section: str, typed: Mapping[str, str]) -> tuple[dict[str, Any], Problems]:
    """What a form means for the API, and what in it means nothing."""
    problems = Problems()
    if section == "general":
        return {"shortDescription": typed["short"], "visibility": typed["visibility"]}, problems
    if section == "scanning":
        return {"scanOnPush": typed["scan"] == "push"}, problems
    patterns = typed["patterns"].split() if typed["immutability"] == "some" else []
    if typed["immutability"] == "some" and not patterns:
        problems.add("patterns", visit._("Write at least one pattern, or choose another kind of protection."))
    limit = typed["limit"] if typed["immutability"] == "none" else ""
    if limit and not (limit.isascii() and limit.isdecimal()):
        problems.add("limit", visit._("Type a number."))
        limit = ""
    return {
        "immutableTags": typed["immutability"] == "all",
        "immutableTagPatterns": patterns,
        "tagLimit": int(limit or 0),
    }, problems


def _say(visit: Visit, problems: Problems) -> None:
    """Say at its field, in the visitor's words, what is wrong with a setting."""
    for part, name, text in _SAYINGS:
        if part in problems.detail:
            problems.general.clear()
            problems.fields = {name: visit._(text)}
            problems.detail = ""
            return


def _changed(visit: Visit, repo: Repository, section: str) -> Problems:
    """Somebody else changed the settings meanwhile: what they are now."""
    record = repo.record
    problems = Problems(code="SETTINGS_CHANGED")
    problems.add(
        "", visit._("Somebody else changed these settings while you did. Save again to overwrite theirs:")
    )
    if section == "general":
        problems.add("", visit._("Description: {description}", description=record.short_description or "-"))
        public = record.visibility == "public"
        problems.add("", visit._("Visibility: public") if public else visit._("Visibility: private"))
    elif section == "tags":
        if record.immutable_tags:
            problems.add("", visit._("No tag can be overwritten."))
        elif record.immutable_tag_patterns:
            patterns = ", ".join(record.immutable_tag_patterns)
            problems.add("", visit._("Tags that cannot be overwritten: {patterns}", patterns=patterns))
        else:
            problems.add("", visit._("All tags can be overwritten."))
        problems.add("", visit._("Tag limit: {number}", number=visit.words.number(record.tag_limit)))
    else:
        pushed = record.scan_on_push
        problems.add("", visit._("Scans: on push") if pushed else visit._("Scans: when somebody starts one"))
    return problems


# --- another name ---------------------------------------------------------------------------------------------


@pages.post(f"{AT}/settings/rename")
async def rename(visit: Visit) -> Response:
    """Give it another name; to leave a namespace is asked about first."""
    repo = await visit.repository("DELETE_REPOSITORY")
    namespace, name = await visit.text("namespace"), await visit.text("name")
    own = repo.record.namespace
    to = f"{namespace}/{name}"
    if not await visit.may_in(own, "CREATE_REPOSITORY"):
        raise ApiError("NOT_AUTHORIZED")
    if to == repo.path:
        return visit.redirect(f"{repo.url}/settings")
    if namespace != own and await visit.text("confirmed") != "yes":
        items = [
            visit._(
                "Pulls under the old name go on, until another repository gets it. Pushes have to use the new one."
            )
        ]
        if repo.record.namespace_type == "organization":
            items.append(visit._("What teams and robots of {namespace} may do here ends.", namespace=own))
        items.append(visit._("The owners of {namespace} manage it from then on.", namespace=namespace))
        return visit.confirm(
            visit._("Move {repository} to {namespace}?", repository=repo.path, namespace=namespace),
            verb=visit._("Move the repository"),
            items=items,
            fields={"namespace": namespace, "name": name, "confirmed": "yes"},
            back=f"{repo.url}/settings",
        )
    try:
        renamed = await visit.submit(
            repositories.rename_repository,
            form=RenameForm,
            data={"namespace": namespace, "name": name},
            fields={
                "INVALID_REPOSITORY_NAME": "name",
                "REPOSITORY_EXISTS": "name",
                "NO_SUCH_ACCOUNT": "namespace",
                "NOT_AUTHORIZED": "namespace",
            },
            path=repo.path,
        )
    except Refused as refused:
        return await _settings(visit, repo, {"namespace": namespace, "name": name}, refused, "rename")
    path = f"{renamed.namespace}/{renamed.name}"
    return visit.redirect(
        f"/repositories/{path}/settings", visit._("{old} is called {new} now.", old=repo.path, new=path)
    )


# --- its end --------------------------------------------------------------------------------------------------


@pages.get(f"{AT}/settings/delete")
async def ask_delete(visit: Visit) -> Response:
    """Ask; say what goes."""
    return await _ask_delete(visit, await visit.repository("DELETE_REPOSITORY"))


async def _ask_delete(visit: Visit, repo: Repository, problems: Problems | None = None) -> Response:
    tagged = await visit.listing(tags.list_repo_tags, path=repo.path, start="", size=1, count=True)
    count = tagged.count or 0
    items = [
        visit._("Its settings, policies, webhooks and grants go, too. Nothing of it can be brought back."),
        visit._("Its events stay. The name is free for another repository."),
    ]
    if count:
        items.insert(
            0, visit.n_("{n} tag goes at once, with its image.", "{n} tags go at once, with their images.", count)
        )
    if repo.record.size:
        items.insert(
            -1,
            visit._(
                "{size} are freed later, by the garbage collection, but for what other repositories hold, too.",
                size=visit.words.size(repo.record.size),
            ),
        )
    return visit.confirm(
        visit._("Delete the repository {repository}?", repository=repo.path),
        verb=visit._("Delete the repository"),
        items=items,
        typed=repo.path,
        back=f"{repo.url}/settings",
        problems=problems,
    )


@pages.post(f"{AT}/settings/delete")
async def delete(visit: Visit) -> Response:
    """Delete it, when its name was typed."""
    repo = await visit.repository("DELETE_REPOSITORY")
    problems = Problems()
    if await visit.text("typed") != repo.path:
        problems.add("typed", visit._("This is not the name of the repository."))
        return await _ask_delete(visit, repo, problems)
    try:
        await visit.submit(repositories.delete_repository, path=repo.path)
    except Refused as refused:
        return await _settings(visit, repo, {}, refused, "delete")
    return visit.redirect("/repositories", visit._("{repository} is deleted.", repository=repo.path))


@pages.get(f"{AT}/settings/forget-signatures")
async def ask_forget_signatures(visit: Visit) -> Response:
    """Ask before content trust is deleted, which is the way out when nobody has the signers' keys."""
    repo = await visit.repository("MANAGE_TRUST")
    collections = await visit.call(trust.list_trust_collections, path=repo.path)
    items = [
        visit.n_(
            "{collection}: {n} signed tag",
            "{collection}: {n} signed tags",
            sum(role.tags - role.forgotten for role in one.roles),
            collection=one.gun,
        )
        for one in collections
    ]
    return visit.confirm(
        visit._("Delete the signatures of {repository} in content trust?", repository=repo.path),
        verb=visit._("Delete the signatures"),
        text=visit._(
            "The images stay. Clients that verify signatures find none any more, and refuse to pull; those that"
            " saw one trust the old keys, and have to be told of new ones."
        ),
        items=items,
        back=f"{repo.url}/settings",
    )


@pages.post(f"{AT}/settings/forget-signatures")
async def forget_signatures(visit: Visit) -> Response:
    """Delete content trust of the repository."""
    repo = await visit.repository("MANAGE_TRUST")
    try:
        await visit.submit(trust.delete_trust_collections, path=repo.path)
    except Refused as refused:
        return await _settings(visit, repo, {}, refused, "delete")
    return visit.redirect(f"{repo.url}/settings", visit._("Nothing is signed in content trust here any more."))
