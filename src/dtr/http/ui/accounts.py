"""Users: the list, new ones, and of each one repositories, teams and settings."""

from __future__ import annotations

import csv
import io
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args
from urllib.parse import quote

from msgspec import Struct

from dtr.accounts import AccountFilter, AccountUnknown, MemberQuery, Operation
from dtr.http.api import accounts as own_settings
from dtr.http.api import holdings, repositories, sessions, tokens
from dtr.http.api.enzi import accounts, members, user_teams
from dtr.http.api.errors import ApiError
from dtr.http.api.models import NEVER
from dtr.http.ui.login import open_session
from dtr.http.ui.pages import Pages
from dtr.http.ui.people import find_person
from dtr.http.ui.problems import Problems, Refused
from dtr.http.ui.visit import THEMES
from dtr.http.ui.words import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from dtr.http.ui.people import Person
    from dtr.http.ui.visit import Visit

pages = Pages()

_FILTERS = tuple(one for one in get_args(AccountFilter) if one not in {"all", "orgs"})
_ORDERS = ("name", "-name", "fullName", "-fullName")
_CREATE = Operation.CREATE_ACCOUNTS
_EMPTY: dict[str, object] = {"fullName": "", "isAdmin": False, "isAuditor": False}
_ROLES = ("isActive", "isAdmin", "isAuditor")
_LONGEST = 1_000
_MOST_LINES = 200
_MOST_PICKED = 200
_NAMED = 20
"""Of those who are to be deleted so many are named."""
_YEAR = 365 * 86_400
_MONTH = 30 * 86_400
_FIELDS = {
    "INVALID_ACCOUNT_NAME": "name",
    "ACCOUNT_EXISTS": "name",
    "INVALID_PASSWORD": "password",
    "LAST_ADMINISTRATOR": "roles",
}


# --- the list ---------------------------------------------------------------------------------------------------


@pages.get("/users")
async def list_users(visit: Visit) -> Response:
    """All users, found by a part of their names."""
    visit.require_login()
    sees = visit.may("SEE_SYSTEM")
    contains = visit.query.get("q", "")[:_LONGEST]
    which, order = visit.query.get("show", "users"), visit.query.get("sort", "name")
    if which not in _FILTERS or (which == "robots" and not sees):
        which = "users"
    if order not in _ORDERS:
        order = "name"
    listing = await visit.listing(
        accounts.list_accounts,
        which=which,
        order=order,
        contains=contains,
        details=sees,
        counted=True,
    )
    return visit.page(
        "accounts/list.html", listing=listing, q=contains, which=which, order=order, sees=sees, NEVER=NEVER
    )


@pages.post("/users/change")
async def change_users(visit: Visit) -> Response:
    """Do something to those that were picked; some of it may fail."""
    visit.caller.require(_CREATE)
    operation = await visit.text("do")
    names = [one for one in await visit.texts("user") if "\0" not in one][:_MOST_PICKED]
    if operation == "delete" and names:
        return await _delete_users(visit, names)
    if operation not in {"activate", "deactivate"} or not names:
        return visit.redirect("/users")
    form = accounts.BulkForm(operations=[accounts.BulkOperation(op=operation, ref=one) for one in names])
    done = await visit.call(accounts.update_accounts, form=form)
    failed = [
        Kept(one.ref, visit._(one.error.message), one.error.code) for one in done.results if one.error is not None
    ]
    number = len(done.results) - len(failed)
    if not failed:
        said = (
            visit.n_("{n} user can log in now.", "{n} users can log in now.", number)
            if operation == "activate"
            else visit.n_("{n} user is deactivated.", "{n} users are deactivated.", number)
        )
        opposite = "deactivate" if operation == "activate" else "activate"
        undo = ("/users/change", {"do": opposite, "user": names[0]}) if len(names) == 1 else None
        return visit.redirect(visit.back if visit.back.startswith("/users") else "/users", said, undo=undo)
    return visit.page("accounts/changed.html", 422, operation=operation, number=number, failed=failed)


class Kept(Struct, frozen=True):
    """A user that was picked and stays as it was: why, and the API's word for that (empty: it was not asked)."""

    name: str
    reason: str
    code: str = ""


async def _delete_users(visit: Visit, names: list[str]) -> Response:
    """Ask, naming what goes; then delete those that were picked, each with its repositories."""
    others = [one for one in dict.fromkeys(names) if one != visit.require_login().name]
    if not others:
        return visit.redirect("/users", visit._("Only you were picked: nobody deletes themselves here."))
    asked = await visit.text("confirmed") == "yes"
    if not asked or await visit.text("typed") != str(len(others)):
        problems = Problems()
        if asked:
            problems.add("typed", visit._("This is another number."))
        return await _ask_to_delete_users(visit, names, others, problems)
    kept = []
    for name in others:
        try:
            record = await visit.submit(accounts.get_account, account=name)
            if record.is_org:
                kept.append(Kept(name, visit._("There is no such user."), "NO_SUCH_USER"))
            else:
                await visit.submit(repositories.delete_namespace, namespace=record.name)
        except Refused as refused:
            found = refused.problems
            kept.append(Kept(name, " ".join([*found.general, *found.fields.values()]), found.code))
    gone = len(others) - len(kept)
    if len(others) < len(set(names)):
        kept.append(Kept(visit.require_login().name, visit._("Nobody deletes themselves here.")))
    if not kept:
        return visit.redirect("/users", visit.n_("{n} user is deleted.", "{n} users are deleted.", gone))
    return visit.page("accounts/changed.html", 422, operation="delete", number=gone, failed=kept)


async def _ask_to_delete_users(visit: Visit, names: list[str], others: list[str], problems: Problems) -> Response:
    """The question, with the users that own something first."""
    owned = {}
    for name in others:
        try:
            listing = await visit.listing(
                repositories.list_namespace_repositories, start="", size=25, count=True, namespace=name
            )
            owned[name] = listing.count or 0
        except AccountUnknown:  # deleted meanwhile, which is what is wanted
            owned[name] = 0
    items = [
        visit.n_("{name}, with {n} repository", "{name}, with {n} repositories", owned[name], name=name)
        if owned[name]
        else name
        for name in sorted(others, key=lambda one: -owned[one])
    ]
    if len(items) > _NAMED:
        more = len(items) - _NAMED
        items[_NAMED:] = [visit.n_("and {n} more", "and {n} more", more)]
    text = visit._(
        "With them go their tokens, sessions, keys, memberships and grants, and their repositories with all"
        " images. This cannot be undone. To keep the repositories, deactivate the users instead."
    )
    if len(others) < len(set(names)):
        text = " ".join([text, visit._("You are among those who were picked, and stay.")])
    count = len(others)
    return visit.confirm(
        visit.n_("Delete {n} user?", "Delete {n} users?", count),
        verb=visit.n_("Delete {n} user", "Delete {n} users", count),
        text=text,
        items=items,
        fields={"do": "delete", "user": names, "confirmed": "yes"},
        typed=str(count),
        back="/users",
        problems=problems,
    )


# --- new ones ---------------------------------------------------------------------------------------------------


@pages.get("/users/new")
async def new_user(visit: Visit) -> Response:
    """The form for one."""
    visit.caller.require(_CREATE)
    return visit.page("accounts/new.html", form={"name": visit.query.get("name", ""), **_EMPTY})


@pages.post("/users/new")
async def create_user(visit: Visit) -> Response:
    """Make one. Without a password one is made up, and shown once."""
    typed: dict[str, object] = {
        "name": await visit.text("name"),
        "fullName": await visit.text("fullName"),
        "isAdmin": bool(await visit.text("isAdmin")),
        "isAuditor": bool(await visit.text("isAuditor")),
    }
    given = await _password(visit, "password")
    password = given or make_password()
    try:
        made = await visit.submit(
            accounts.create_account,
            form=accounts.AccountForm,
            data={**typed, "password": password},
            fields=_FIELDS,
        )
    except Refused as refused:
        return visit.refuse("accounts/new.html", refused, form=typed)
    if not given:
        results = [Result(made.name, password=password)]
        return shown_once(visit.page("accounts/made.html", results=results, lines=""))
    said = visit._("{name} can log in now.", name=made.name)
    return visit.redirect("/users/new" if await visit.text("another") else f"/users/{quote(made.name)}", said)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a line: a user, with the password that was made up (if it was), or why not."""

    name: str
    line: str = ""
    password: str = field(default="", repr=False)
    problem: str = ""


@pages.get("/users/new/many")
async def new_users(visit: Visit) -> Response:
    """The form for many."""
    visit.caller.require(_CREATE)
    return visit.page("accounts/new_many.html", lines="", most=_MOST_LINES)


@pages.post("/users/new/many")
async def create_users(visit: Visit) -> Response:
    """Make a user of each line; those that failed come back, to be mended."""
    visit.caller.require(_CREATE)
    lines = [one for one in (await visit.text("lines")).splitlines() if one.strip()]
    problems = Problems()
    if not lines:
        problems.add("lines", visit._("Fill in this field."))
    if len(lines) > _MOST_LINES:
        problems.add("lines", visit.n_("At most {n} line.", "At most {n} lines.", _MOST_LINES))
    if problems:
        return visit.page(
            "accounts/new_many.html", 422, lines="\n".join(lines), most=_MOST_LINES, problems=problems
        )
    results = [await _make(visit, line) for line in lines]
    failed = "\n".join(one.line for one in results if one.problem)
    return shown_once(visit.page("accounts/made.html", results=results, lines=failed))


async def _make(visit: Visit, line: str) -> Result:
    """Make the user of a line ``name, full name, password``, of which only the first is needed."""
    row = [one.strip() for one in next(csv.reader(io.StringIO(line), skipinitialspace=True))]
    name, full_name, given = (*row, "", "")[:3]
    if len(row) > 3:
        return Result(name, line, problem=visit._("There are more than three parts."))
    password = given or make_password()
    data = {"name": name, "fullName": full_name, "password": password}
    try:
        made = await visit.submit(accounts.create_account, form=accounts.AccountForm, data=data)
    except Refused as refused:
        found = refused.problems
        return Result(name, line, problem=" ".join([*found.general, *found.fields.values()]))
    return Result(made.name, line, "" if given else password)


def make_password() -> str:
    """A password that nobody guesses and that can be read aloud: four groups of letters and digits."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(5)) for _ in range(4))


# --- one --------------------------------------------------------------------------------------------------------


@pages.get("/users/{name}")
async def show_user(visit: Visit) -> Response:
    """The first of its pages; organisations and robots have theirs elsewhere."""
    visit.require_login()
    record = await visit.call(accounts.get_account, account=visit.values["name"])
    if record.is_org:
        return visit.redirect(f"/orgs/{quote(record.name)}", status=308)
    organization, plus, robot = record.name.partition("+")
    if plus:
        return visit.redirect(f"/orgs/{quote(organization)}/robots/{quote(robot)}", status=308)
    return visit.redirect(f"/users/{quote(record.name)}/repos", status=302)


@pages.get("/users/{name}/repos")
async def list_repositories(visit: Visit) -> Response:
    """What the user owns or was granted, and why; to others, what they see of what the user owns."""
    person = await find_person(visit)
    creates = await visit.may_in(person.name, "CREATE_REPOSITORY")
    if person.sees:
        contains = visit.query.get("q", "")[:_LONGEST]
        listing = await visit.listing(
            holdings.list_user_repository_access, count=True, username=person.name, contains=contains
        )
        return visit.page(
            "accounts/held.html", person=person, listing=listing, creates=creates, q=contains, NEVER=NEVER
        )
    owned = await visit.listing(repositories.list_namespace_repositories, count=True, namespace=person.name)
    return visit.page("accounts/owned.html", person=person, listing=owned, creates=creates, NEVER=NEVER)


@pages.get("/users/{name}/teams")
async def list_teams(visit: Visit) -> Response:
    """In which organisations and teams the user is."""
    person = await _seen(visit)
    listing = await visit.listing(user_teams.list_teams_of_user, user=person.name)
    organizations = await visit.listing(
        members.list_organizations_of_user, start="", size=100, user=person.name, query=MemberQuery(order="name")
    )
    return visit.page("accounts/teams.html", person=person, listing=listing, organizations=organizations)


async def _seen(visit: Visit) -> Person:
    """The user, for itself, administrators and auditors. Raises ApiError."""
    person = await find_person(visit)
    if not person.sees:
        raise ApiError("NOT_AUTHORIZED")
    return person


# --- settings ---------------------------------------------------------------------------------------------------


@pages.get("/users/{name}/settings")
async def show_settings(visit: Visit) -> Response:
    """All that can be set; each card is sent by itself."""
    return await _settings(visit, await _managed(visit))


@pages.get(
    "/users/{name}/settings/profile",
    "/users/{name}/settings/password",
    "/users/{name}/settings/roles",
    "/users/{name}/settings/language",
)
async def show_again(visit: Visit) -> Response:
    """A refused form was loaded again: the page that it is on."""
    return visit.redirect(f"{(await _managed(visit)).url}/settings", status=302)


async def _managed(visit: Visit) -> Person:
    """The user, for itself and administrators. Raises ApiError."""
    person = await find_person(visit)
    if not person.manages:
        raise ApiError("NOT_AUTHORIZED")
    return person


async def _settings(
    visit: Visit,
    person: Person,
    part: str = "",
    refused: Refused | None = None,
    **typed: object,
) -> Response:
    """The page, with what was typed into the form `part`, if that was refused."""
    shown: dict[str, object] = {
        "fullName": person.record.full_name,
        "isActive": person.record.is_active,
        "isAdmin": person.record.is_admin,
        "isAuditor": person.record.is_auditor,
        "theme": visit.theme,
        **typed,
    }
    if person.is_self and "language" not in shown:
        chosen = await visit.call(own_settings.get_user_settings, username=person.name)
        shown["language"] = chosen.language
    return visit.page(
        "accounts/settings.html",
        refused.status if refused else 200,
        person=person,
        form=shown,
        part=part,
        problems=refused.problems if refused else Problems(),
    )


@pages.post("/users/{name}/settings/profile")
async def change_profile(visit: Visit) -> Response:
    """The full name."""
    person, data = await _managed(visit), {"fullName": await visit.text("fullName")}
    try:
        await _change(visit, person, data)
    except Refused as refused:
        return await _settings(visit, person, "profile", refused, **data)
    return visit.redirect(f"{person.url}/settings", visit._("Saved."))


@pages.post("/users/{name}/settings/roles")
async def change_roles(visit: Visit) -> Response:
    """Whether the user may log in, administer, audit."""
    person = await _managed(visit)
    visit.caller.require(_CREATE)
    typed = {name: bool(await visit.text(name)) for name in _ROLES}
    before = (await visit.text("before")).split()
    # What was not touched stays as somebody else may have set it meanwhile.
    data = {name: on for name, on in typed.items() if on != (name in before)}
    try:
        await _change(visit, person, data)
    except Refused as refused:
        return await _settings(visit, person, "roles", refused, **typed)
    if person.is_self and not (typed["isActive"] and typed["isAdmin"]):  # the page is no longer as it was
        return visit.redirect(f"{person.url}/repos", visit._("Saved."))
    return visit.redirect(f"{person.url}/settings", visit._("Saved."))


async def _change(visit: Visit, person: Person, data: Mapping[str, object]) -> None:
    await visit.submit(
        accounts.update_account, form=accounts.AccountChange, data=data, fields=_FIELDS, account=person.name
    )


@pages.post("/users/{name}/settings/password")
async def change_password(visit: Visit) -> Response:
    """Who changes the own one shows the old one. All sessions are over, and this browser gets a new one."""
    person = await _managed(visit)
    new, again = await _password(visit, "newPassword"), await _password(visit, "again")
    problems = Problems()
    if not new:
        problems.add("newPassword", visit._("Fill in this field."))
    elif new != again:
        problems.add("again", visit._("The two are not the same."))
    data: dict[str, object] = {"newPassword": new}
    if person.is_self:
        data["oldPassword"] = await _password(visit, "oldPassword")
        if not data["oldPassword"]:
            problems.add("oldPassword", visit._("Fill in this field."))
    try:
        if problems:
            raise Refused(problems)
        await visit.submit(
            accounts.change_password,
            form=accounts.PasswordForm,
            data=data,
            fields={"INVALID_PASSWORD": "newPassword", "INCORRECT_PASSWORD": "oldPassword"},
            user=person.name,
        )
    except Refused as refused:
        # A wrong old password is a fault of the form, whatever the API calls it.
        mendable = Refused(refused.problems, 422 if refused.status == 403 else refused.status)
        return await _settings(visit, person, "password", mendable)
    if person.is_self:  # this session is over, too: here is a new one
        said = visit._("Your password is changed; all other sessions are over.")
        return await open_session(visit, person.name, new, f"{person.url}/settings", said)
    return visit.redirect(
        f"{person.url}/settings",
        visit._("The password of {name} is changed; all sessions are over.", name=person.name),
    )


@pages.post("/users/{name}/settings/language")
async def change_language(visit: Visit) -> Response:
    """Language and theme of the user itself: the language wherever it logs in, the theme in this browser."""
    person = await _managed(visit)
    language, theme = await visit.text("language"), await visit.text("theme")
    if not person.is_self:
        raise ApiError("NOT_AUTHORIZED")
    try:
        await visit.submit(
            own_settings.update_user_settings,
            form=own_settings.UserSettingsForm,
            data={"language": language},
            fields={"INVALID_USER_SETTINGS": "language"},
            username=person.name,
        )
    except Refused as refused:
        return await _settings(visit, person, "language", refused, language=language, theme=theme)
    visit.set_cookie("language", language if language in LANGUAGES else "", _YEAR if language else 0)
    visit.set_cookie("theme", theme if theme in THEMES else "", _YEAR if theme in THEMES else 0)
    return visit.redirect(f"{person.url}/settings")


@pages.post("/account/later")
async def put_off(visit: Visit) -> Response:
    """Say no more for a month that the password should be changed."""
    visit.set_cookie("advice", "later", _MONTH)
    return visit.redirect(visit.back)


@pages.get("/account")
async def show_account(visit: Visit) -> Response:
    """The visitor's own settings."""
    return visit.redirect(f"/users/{quote(visit.require_login().name)}/settings", status=302)


# --- the end ----------------------------------------------------------------------------------------------------


@pages.get("/users/{name}/delete")
async def ask_to_delete(visit: Visit) -> Response:
    """What goes with a user."""
    visit.caller.require(_CREATE)
    return await _ask_to_delete(visit, await find_person(visit))


async def _ask_to_delete(visit: Visit, person: Person, problems: Problems | None = None) -> Response:
    name = person.name
    owned = await visit.listing(
        repositories.list_namespace_repositories, start="", size=25, count=True, namespace=name
    )
    secrets_ = await visit.listing(tokens.list_tokens, start="", size=25, count=True, username=name)
    opened = await visit.listing(sessions.list_sessions, start="", size=25, count=True, username=name)
    items = []
    if owned.count:
        items.append(
            visit.n_(
                "{n} repository of {name}, with its tags and images, is deleted.",
                "{n} repositories of {name}, with their tags and images, are deleted.",
                owned.count,
                name=name,
            )
        )
    if secrets_.count:
        items.append(
            visit.n_(
                "{n} access token or logged-in client stops working.",
                "{n} access tokens and logged-in clients stop working.",
                secrets_.count,
            )
        )
    if opened.count:
        items.append(visit.n_("{n} session ends.", "{n} sessions end.", opened.count))
    items.append(visit._("Memberships, grants, public keys and settings are gone. This cannot be undone."))
    return visit.confirm(
        visit._("Delete the user {name}", name=name),
        verb=visit._("Delete user"),
        text=visit._(
            "What the user did stays in the events. To keep the repositories, deactivate the user instead."
        ),
        items=items,
        typed=name,
        back=f"{person.url}/settings",
        problems=problems,
    )


@pages.post("/users/{name}/delete")
async def delete_user(visit: Visit) -> Response:
    """Remove a user with all its repositories."""
    visit.caller.require(_CREATE)
    person = await find_person(visit)
    if await visit.text("typed") != person.name:
        problems = Problems()
        problems.add("typed", visit._("This is another name."))
        return await _ask_to_delete(visit, person, problems)
    try:
        await visit.submit(repositories.delete_namespace, namespace=person.name)
    except Refused as refused:
        return await _ask_to_delete(visit, person, refused.problems)
    return visit.redirect("/users", visit._("The user {name} is deleted.", name=person.name))


# --- parts ------------------------------------------------------------------------------------------------------


async def _password(visit: Visit, name: str) -> str:
    """A field as it was typed: spaces belong to a password."""
    given = (await visit.form()).get(name, "")
    return given if isinstance(given, str) else ""


def shown_once(response: Response) -> Response:
    """Show what no cache may keep."""
    response.headers["cache-control"] = "no-store"
    return response
