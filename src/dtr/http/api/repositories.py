"""``/api/v0/repositories``: repositories, and what an account's end means for its own."""

from __future__ import annotations

import asyncio
import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Depends, Query, Response
from pydantic import Field

from dtr.accounts import AccountInUse, AccountUnknown, Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import AccountName, Form, Record, RepositoryName, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.rooms import RoomsDep
from dtr.oci import NameInvalid, parse_repository_name
from dtr.registry import Counts, Settings
from dtr.registry.usage import DAYS_KEPT, of_repository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dtr.accounts import Account, Standing
    from dtr.http.api.caller import Caller
    from dtr.http.api.paging import Page
    from dtr.http.api.rooms import Rooms
    from dtr.registry import Repository

router = Router(prefix="/api/v0/repositories", tags=["repositories"])
one_router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}", tags=["repositories"])
accounts_router = Router(prefix="/api/v0/accounts", tags=["accounts"])

_ATTEMPTS = 10
_PORTION = 250
"""Records that are put together at once."""

ON_REPOSITORY = ("NO_SUCH_REPOSITORY", "NOT_AUTHORIZED")
"""How whatever concerns a repository may be refused."""
FROM_REPOSITORY = (*ON_REPOSITORY, "REPOSITORY_MOVED")
"""The same for what only reads."""
_INVALID = ("INVALID_SETTINGS", "INVALID_REPOSITORY_VISIBILITY")


def _domain(
    domain: Annotated[str, Query(description="Changes nothing: signatures under all addresses count.")] = "",
) -> None:
    """Take what DTR's clients send."""


TakesDomain = Depends(_domain)
DomainDep = Annotated[
    str,
    Query(
        max_length=1024,
        description="Content trust is asked for this address of the registry, `HOST[:PORT]`; missing: for all of"
        " its addresses.",
    ),
]
"""The address in the names of signed images that is asked for; empty: any."""


async def _path(namespace: str, reponame: str, caller: CallerDep) -> str:
    path = f"{namespace}/{reponame}"
    try:
        return parse_repository_name(path)
    except NameInvalid:  # nothing is called so: the answer is that for everything that is not there
        caller.user()
        raise ApiError("NO_SUCH_REPOSITORY", path[:255]) from None


PathDep = Annotated[str, Depends(_path)]
"""The path of the repository that a request names."""


def require_writable(rooms: Rooms) -> None:
    """Let through when content may change. Raises ApiError: READ_ONLY."""
    if rooms.live.current.read_only_registry:
        raise ApiError("READ_ONLY")


class RepositoryRecord(Record):
    """A repository."""

    id: str = Field(description="Never changes, and is no other's ever after.")
    namespace: str
    namespace_type: Literal["user", "organization"]
    name: str = Field(description="What it is called in its namespace; it may have slashes.")
    short_description: str
    long_description: str | None = Field(None, description="The README, Markdown. Lists leave it out.")
    visibility: Literal["public", "private"]
    scan_on_push: bool = Field(description="Images are scanned when they are pushed.")
    immutable_tags: bool = Field(description="No tag can be overwritten; it can be deleted.")
    immutable_tag_patterns: list[str] = Field(description="Tags that match one of these cannot be overwritten.")
    enable_manifest_lists: bool = Field(
        False, description="Always false. Manifest lists are pushed as such, and are never made by the registry."
    )
    tag_limit: int = Field(description="When there are more tags, the oldest go; 0: no limit.")
    pulls: int = Field(description="How often something was pulled: an image of an index once.")
    pushes: int = Field(description="How often something was pushed under a tag.")
    size: int = Field(description="Bytes that it holds, each layer once; what waits to be collected included.")
    created_at: dt.datetime
    last_pushed_at: dt.datetime = Field(description="Under a tag; the year 1: never.")
    last_pulled_at: dt.datetime = Field(description="The year 1: never.")
    your_access: Literal["none", "read-only", "read-write", "admin"] = Field(
        description="The caller's level. An auditor sees also what this says `none` of."
    )

    @classmethod
    def of(
        cls, repository: Repository, standing: Standing, counts: Counts, *, long_description: bool
    ) -> RepositoryRecord:
        """The record of a repository for the one whose standing this is."""
        settings = repository.settings
        return cls(
            id=str(repository.id),
            namespace=repository.namespace,
            namespace_type=repository.namespace_kind,
            name=repository.name,
            short_description=settings.short_description,
            long_description=settings.long_description if long_description else None,
            visibility=settings.visibility,
            scan_on_push=settings.scan_on_push,
            immutable_tags=settings.immutable_tags,
            immutable_tag_patterns=list(settings.immutable_patterns),
            tag_limit=settings.tag_limit,
            pulls=counts.pulls,
            pushes=counts.pushes,
            size=counts.bytes,
            created_at=moment(repository.created_at),
            last_pushed_at=moment(counts.pushed_at),
            last_pulled_at=moment(counts.pulled_at),
            your_access=standing.facts.level.label,
        )


class RepositoryList(Record):
    """A page of repositories."""

    repositories: list[RepositoryRecord]


class _Settings(Form):
    """What is missing has its default, or stays."""

    short_description: str | None = Field(None, json_schema_extra={"maxLength": 1_000})
    long_description: str | None = Field(None, description="Markdown.", json_schema_extra={"maxLength": 500_000})
    visibility: str | None = Field(None, json_schema_extra={"enum": ["public", "private"]})
    scan_on_push: bool | None = None
    immutable_tags: bool | None = None
    immutable_tag_patterns: list[str] | None = Field(
        None, description="Tags that cannot be overwritten: `*` is any characters, `?` is one (`v*`, `release-*`)."
    )
    enable_manifest_lists: bool | None = Field(None, description="Taken, and changes nothing.")
    tag_limit: int | None = Field(None, description="Not together with immutable tags.")

    @property
    def changes(self) -> dict[str, object]:
        """The fields of the room's `Settings` that are given."""
        patterns = self.immutable_tag_patterns
        given = {
            "short_description": self.short_description,
            "long_description": self.long_description,
            "visibility": self.visibility,
            "scan_on_push": self.scan_on_push,
            "immutable_tags": self.immutable_tags,
            "immutable_patterns": None if patterns is None else tuple(patterns),
            "tag_limit": self.tag_limit,
        }
        return {name: value for name, value in given.items() if value is not None}


class RepositoryForm(_Settings):
    """A repository to be made; private, unless it is to be public."""

    name: RepositoryName = Field(description="In the namespace; it may have slashes.")


class RepositoryChange(_Settings):
    """What of a repository is to be changed; what is missing stays."""

    expected: _Settings | None = Field(
        None,
        description="Values that settings have to have before; else nothing is changed (`SETTINGS_CHANGED`). For"
        " who changes what they looked at a while ago.",
    )


class UsageDay(Record):
    """What was counted of a repository on a day."""

    day: dt.date = Field(description="In UTC.")
    pulls: int = Field(description="How often something was pulled.")
    pushes: int = Field(description="How often something was pushed under a tag.")
    size: int = Field(description="Bytes that it held when the day ended; today: that it holds.")


class UsageHistory(Record):
    """What was counted of a repository, day by day."""

    days: list[UsageDay] = Field(description="The oldest first, without gaps; the last is today.")


class RenameForm(Form):
    """Where a repository goes; what is missing stays."""

    namespace: AccountName | None = None
    name: RepositoryName | None = None


class ScanToggle(Form):
    """What is to hold for all repositories."""

    scan_on_push: bool


# --- lists ----------------------------------------------------------------------------------------------------


@router.get("", summary="Repositories", response_model_exclude_none=True)
async def list_repositories(
    caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> RepositoryList:
    """Those that the caller may see, by path, which is what the page starts with (``namespace/name``)."""
    return await _page(caller, rooms, page, response, None)


@router.get(
    "/{namespace}",
    summary="Repositories of an account",
    response_model_exclude_none=True,
    responses=errors("NO_SUCH_ACCOUNT"),
)
async def list_namespace_repositories(
    namespace: str, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> RepositoryList:
    """Those that the caller may see, by path, which is what the page starts with (``namespace/name``)."""
    owner = await find_owner(caller, rooms, namespace)
    return await _page(caller, rooms, page, response, owner.id if owner else "")


async def find_owner(caller: Caller, rooms: Rooms, namespace: str) -> Account | None:
    """
    The account whose repositories are asked for.

    None: there is none, and the caller must not learn which accounts there are; for the others this raises
    AccountUnknown.
    """
    try:
        return await rooms.accounts.get(namespace)
    except AccountUnknown:
        if caller.may(Operation.SEE_ACCOUNTS):
            raise
        return None


async def _page(
    caller: Caller, rooms: Rooms, page: Page, response: Response, namespace: str | None
) -> RepositoryList:
    standings = rooms.accounts.standings
    if page.wants_count:
        counted = await standings.count_visible(caller.account_id, scope=caller.scope, namespace=namespace)
        response.headers[COUNT] = str(counted)
    found = await standings.list_visible(
        caller.account_id, scope=caller.scope, namespace=namespace, start=page.start, limit=page.limit
    )
    shown = page.cut(response, found, lambda one: one[1])
    records = await repository_records(caller, rooms, [number for number, _ in shown])
    return RepositoryList(repositories=records)


async def repository_records(caller: Caller, rooms: Rooms, ids: Sequence[int]) -> list[RepositoryRecord]:
    """The records of repositories that the caller may see, without READMEs; by path, if `ids` are so."""
    records: list[RepositoryRecord] = []
    for start in range(0, len(ids), _PORTION):
        found = await rooms.repositories.get_many(ids[start : start + _PORTION])
        standings = await rooms.accounts.standings.find_all(
            caller.account_id, [one.path for one in found], scope=caller.scope
        )
        counts = await rooms.usage.get(of_repository(one.id) for one in found)
        records += [
            RepositoryRecord.of(one, standings[one.path], counts[of_repository(one.id)], long_description=False)
            for one in found
        ]
        await asyncio.sleep(0)  # others have their turn, however long the page is
    return records


# --- one ------------------------------------------------------------------------------------------------------


@router.post(
    "/{namespace}",
    summary="Make a repository",
    status_code=201,
    responses=errors(
        "INVALID_REPOSITORY_NAME", *_INVALID, "REPOSITORY_EXISTS", "NOT_AUTHORIZED", "NO_SUCH_ACCOUNT"
    ),
)
async def create_repository(
    namespace: str, form: RepositoryForm, caller: CallerDep, rooms: RoomsDep
) -> RepositoryRecord:
    """For the owners of the namespace, and for teams that administer it."""
    owner = await caller.require_in(namespace, Operation.CREATE_REPOSITORY)
    path = parse_repository_name(f"{owner.name}/{form.name}")
    await rooms.repositories.create(path, Settings(**form.changes), by=caller.actor)  # type: ignore[arg-type]  # checked by the form
    return await _record(caller, rooms, path)


@one_router.get("", summary="A repository", responses=errors(*FROM_REPOSITORY))
async def get_repository(path: PathDep, caller: CallerDep, rooms: RoomsDep) -> RepositoryRecord:
    """For everybody who may see it."""
    number = await caller.require_on(path, Operation.SEE)
    return await _record(caller, rooms, path, number)


@one_router.get("/usage", summary="Use of a repository over time", responses=errors(*FROM_REPOSITORY))
async def get_repository_usage(
    path: PathDep,
    caller: CallerDep,
    rooms: RoomsDep,
    days: Annotated[int, Query(ge=1, le=DAYS_KEPT, description="How many days.")] = 30,
) -> UsageHistory:
    """For everybody who may see it: pulls, pushes and size of each of the last days."""
    scope = of_repository(await caller.require_on(path, Operation.SEE))
    history = await rooms.usage.history([scope], days=days)
    return UsageHistory(
        days=[UsageDay(day=one.day, pulls=one.pulls, pushes=one.pushes, size=one.bytes) for one in history[scope]]
    )


@one_router.patch(
    "", summary="Change a repository", responses=errors(*_INVALID, *ON_REPOSITORY, "SETTINGS_CHANGED")
)
async def patch_repository(
    path: PathDep, form: RepositoryChange, caller: CallerDep, rooms: RoomsDep
) -> RepositoryRecord:
    """For those who administer it."""
    number = await caller.require_on(path, Operation.CHANGE_SETTINGS)
    expected = form.expected.changes if form.expected else {}
    await rooms.repositories.update(path, number=number, expected=expected, by=caller.actor, **form.changes)
    return await _record(caller, rooms, path, number)


@one_router.delete(
    "",
    summary="Delete a repository",
    status_code=204,
    dependencies=[TakesDomain],
    responses=errors(*ON_REPOSITORY, "REPOSITORY_CONTAINS_TAGS_IN_NOTARY", "READ_ONLY"),
)
async def delete_repository(path: PathDep, caller: CallerDep, rooms: RoomsDep) -> None:
    """
    For those who administer it. Its tags are gone and its name is free at once; content is collected later.

    As long as one of its tags is signed in content trust, it stays.
    """
    number = await caller.require_on(path, Operation.DELETE_REPOSITORY)
    require_writable(rooms)
    await rooms.repositories.delete(path, number=number, by=caller.actor)


@one_router.post(
    "/rename",
    summary="Rename a repository, or move it to another namespace",
    responses=errors("INVALID_REPOSITORY_NAME", "REPOSITORY_EXISTS", *ON_REPOSITORY, "NO_SUCH_ACCOUNT"),
)
async def rename_repository(
    path: PathDep, form: RenameForm, caller: CallerDep, rooms: RoomsDep
) -> RepositoryRecord:
    """
    For those who administer it and may make repositories where it goes; to leave a namespace, for its owners.

    Nothing is copied. Pulls under the old name go on, until another repository has it; pushes are told the new
    one. When it leaves an organization, what teams and robots of that were granted on it ends.
    """
    number = await caller.require_on(path, Operation.DELETE_REPOSITORY)
    namespace, _, name = path.partition("/")
    target = namespace if form.namespace is None else form.namespace
    if target != namespace:
        await caller.require_in(namespace, Operation.MANAGE_ORGANIZATION)
    owner = await caller.require_in(target, Operation.CREATE_REPOSITORY)
    renamed = await rooms.repositories.rename(
        path,
        parse_repository_name(f"{owner.name}/{name if form.name is None else form.name}"),
        number=number,
        by=caller.actor,
    )
    return await _record(caller, rooms, renamed.path)


@router.post(
    "/scan/toggle",
    summary="Scan on push, for all repositories",
    response_class=Response,
    responses=errors("NOT_AUTHORIZED"),
)
async def toggle_all_repositories_scan_on_push(form: ScanToggle, caller: CallerDep, rooms: RoomsDep) -> Response:
    """For system administrators: set `scanOnPush` of every repository that there is."""
    caller.require(Operation.ADMINISTER)
    await rooms.repositories.set_scan_on_push(form.scan_on_push, by=caller.actor)
    return Response(status_code=200)


async def _record(caller: Caller, rooms: Rooms, path: str, number: int | None = None) -> RepositoryRecord:
    repository = await rooms.repositories.get(path, number=number)
    scope = of_repository(repository.id)
    counts = await rooms.usage.get([scope])
    return RepositoryRecord.of(repository, await caller.standing(path), counts[scope], long_description=True)


# --- accounts -------------------------------------------------------------------------------------------------


@accounts_router.delete(
    "/{namespace}/repositories",
    summary="Delete all repositories of an account",
    status_code=204,
    responses=errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT", "REPOSITORY_CONTAINS_TAGS_IN_NOTARY", "READ_ONLY"),
)
async def delete_namespace_repositories(namespace: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For the user or the owners of the organization. None goes when tags of one are signed in content trust."""
    owner = await caller.require_in(namespace, Operation.MANAGE_ORGANIZATION)
    require_writable(rooms)
    await rooms.repositories.delete_all(owner.id, by=caller.actor)


@accounts_router.delete(
    "/{namespace}",
    summary="Delete an account with all its repositories",
    status_code=204,
    responses=errors(
        "NOT_AUTHORIZED",
        "NO_SUCH_ACCOUNT",
        "REPOSITORY_CONTAINS_TAGS_IN_NOTARY",
        "ACCOUNT_IN_USE",
        "LAST_ADMINISTRATOR",
        "READ_ONLY",
    ),
)
async def delete_namespace(namespace: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For system administrators. It stays, with its repositories, when one has tags that are signed."""
    caller.require(Operation.ADMINISTER)
    account = await rooms.accounts.get(namespace)
    if account.kind == "robot":  # no namespace: its organization ends it
        raise AccountUnknown(namespace)
    require_writable(rooms)
    for _ in range(_ATTEMPTS):
        try:  # the account first: when it must stay, so do its repositories
            await rooms.accounts.delete(account.name, by=caller.actor)
        except AccountInUse:
            await rooms.repositories.delete_all(account.id, by=caller.actor)
        else:
            return
    raise AccountInUse(account.name)
