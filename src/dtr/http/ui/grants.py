"""Giving, changing and taking what teams, users and robots may: what the pages about it have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtr.accounts import AccountError
from dtr.http.api import access
from dtr.http.api.errors import ApiError
from dtr.http.ui.problems import Problems, Refused

if TYPE_CHECKING:
    from dtr.http.ui.visit import Visit

_FIELDS = {
    "NO_SUCH_TEAM": "name",
    "NO_SUCH_USER": "name",
    "NO_SUCH_REPOSITORY": "name",
    "TEAM_ELSEWHERE": "name",
    "NOT_GRANTABLE": "name",
    "NOT_AN_ORGANIZATION": "kind",
    "accessLevel": "level",
}
"""Which field of a form a problem belongs to."""
_ON_REPOSITORY: dict[str, tuple[Any, Any, Any]] = {
    "team": (
        access.list_repository_team_access,
        access.set_repository_team_access,
        access.revoke_repository_team_access,
    ),
    "user": (
        access.list_repository_user_access,
        access.set_repository_user_access,
        access.revoke_repository_user_access,
    ),
}
_ON_NAMESPACE: dict[str, tuple[Any, Any, Any]] = {
    "team": (
        access.list_namespace_team_access,
        access.set_namespace_team_access,
        access.revoke_namespace_team_access,
    ),
    "user": (
        access.list_namespace_user_access,
        access.set_namespace_user_access,
        access.revoke_namespace_user_access,
    ),
}
"""The operations: to list, to give, to take."""


async def typed(visit: Visit, *names: str) -> dict[str, str]:
    """Fields of a form about a grant, and its `level`: ``none`` when the button was pressed that takes it."""
    form = {name: await visit.text(name) for name in names}
    return {**form, "level": "none" if await visit.text("take") else await visit.text("level")}


async def change(visit: Visit, kind: str, name: str, level: str, path: str) -> str:
    """
    Give a `team`, or a user or robot, a level on the repository or namespace at `path`; ``none`` takes it away.

    The level before that. Raises Refused.
    """
    if not name:
        raise Refused(Problems(fields={"name": visit._("Fill in this field.")}))
    kind = "team" if kind == "team" else "user"
    before = await find_level(visit, kind, name, path)
    _, give, take = _operations(path)[kind]
    given: dict[str, Any] = {**_place(path), "teamname" if kind == "team" else "username": name}
    if level == "none":
        await visit.submit(take, fields=_FIELDS, **given)
    else:
        data = {"accessLevel": level}
        await visit.submit(give, form=access.AccessForm, data=data, fields=_FIELDS, **given)
    return before


async def find_level(visit: Visit, kind: str, name: str, path: str) -> str:
    """What was granted so far; ``none``: nothing, or nothing that the visitor may know."""
    place: dict[str, Any] = _place(path)
    try:
        listed = await visit.listing(_operations(path)[kind][0], start=name[:255], size=1, **place)
    except (ApiError, AccountError):  # the change itself says what is wrong
        return "none"
    grants = listed.records.team_access_list if kind == "team" else listed.records.user_access_list
    for one in grants:
        if (one.team if kind == "team" else one.user).name == name:
            return str(one.access_level)
    return "none"


def said(visit: Visit, who: str, level: str, place: str) -> str:
    """What is said of a change."""
    match level:
        case "read-only":
            return visit._("{who} can pull from {place} now.", who=who, place=place)
        case "read-write":
            return visit._("{who} can push to {place} now.", who=who, place=place)
        case "admin":
            return visit._("{who} manages {place} now.", who=who, place=place)
        case _:
            return visit._("{who} has no grant on {place} any more.", who=who, place=place)


def _operations(path: str) -> dict[str, tuple[Any, Any, Any]]:
    return _ON_REPOSITORY if "/" in path else _ON_NAMESPACE


def _place(path: str) -> dict[str, str]:
    return {"path" if "/" in path else "namespace": path}
