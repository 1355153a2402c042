"""``/api/v0/index``: repositories with filters, images by tag or digest, where to make repositories; and pins."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import Field

from dtr.accounts import Operation, may
from dtr.http.api.accounts import find_user
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import errors
from dtr.http.api.models import Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.repositories import ON_REPOSITORY, PathDep, RepositoryRecord, find_owner, repository_records
from dtr.http.api.rooms import RoomsDep
from dtr.registry import RepositoryKind, RepositoryQuery
from dtr.registry.usage import of_repository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms
    from dtr.registry import Details, LatestTag
    from dtr.registry.search import FoundTag

router = Router(prefix="/api/v0/index", tags=["index"])

_LARGEST_PAGE = 100
"""What a repository holds is looked for when it is shown."""
_MOST_DAYS = 36_500
_DAYS = 14
_MOST_NAMED = 50


class LatestTagRecord(Record):
    """The tag of a repository that was moved last; those by which signatures are found are none."""

    name: str
    digest: str
    author: str = Field(description="Name of the account that pushed it; empty: not known.")
    updated_at: dt.datetime = Field(description="When it was made to name what it names now.")
    type: RepositoryKind = Field(description="What it names; an index is an image for several systems.")
    signed: bool = Field(description="In content trust, or by an artifact that can be verified.")

    @classmethod
    def of(cls, tag: LatestTag) -> LatestTagRecord:
        """The record of a tag."""
        return cls(
            name=tag.name,
            digest=tag.digest,
            author=tag.author,
            updated_at=moment(tag.updated_at),
            type=tag.kind,
            signed=tag.is_signed,
        )


class FoundRepository(Record):
    """A repository, and what it holds."""

    repository: RepositoryRecord
    tags: int = Field(description="How many tags it has, without those by which signatures are found.")
    latest_tag: LatestTagRecord | None = Field(None, description="Missing: there is none.")
    recent_pulls: list[int] | None = Field(
        None, description="How often something was pulled on each of the last 14 days (UTC), today last."
    )

    @classmethod
    def of(cls, record: RepositoryRecord, details: Details, pulls: list[int] | None) -> FoundRepository:
        """The record of a repository."""
        latest = LatestTagRecord.of(details.latest) if details.latest else None
        return cls(repository=record, tags=details.tags, latest_tag=latest, recent_pulls=pulls)


class FoundRepositories(Record):
    """A page of repositories."""

    repositories: list[FoundRepository]


class Owner(Record):
    """An account with repositories."""

    name: str
    repositories: int = Field(description="How many of them the caller may see.")


class Owners(Record):
    """Accounts with repositories."""

    owners: list[Owner]
    total: int = Field(description="How many repositories the caller may see, those of all accounts.")


class FoundImage(Record):
    """An image that was found."""

    namespace: str
    repository: str = Field(description="The name of the repository in its namespace.")
    tag: str = Field(description="Empty: no tag names it.")
    digest: str

    @classmethod
    def of(cls, found: FoundTag) -> FoundImage:
        """The record of an image."""
        namespace, _, name = found.path.partition("/")
        return cls(namespace=namespace, repository=name, tag=found.tag, digest=found.digest)


class FoundImages(Record):
    """Images that fit."""

    images: list[FoundImage]


class Namespaces(Record):
    """Where somebody may make repositories."""

    namespaces: list[str] = Field(description="The caller's own comes first, then organizations, then users.")


@router.get(
    "/repositories",
    summary="Repositories, filtered and sorted",
    response_model_exclude_none=True,
    responses=errors("NO_SUCH_ACCOUNT"),
)
async def search_repositories(
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    query: Annotated[
        str,
        Query(max_length=256, description="A part of path or description; one or two letters: a beginning."),
    ] = "",
    namespace: Annotated[str, Query(description="Only repositories of this account.")] = "",
    visibility: Annotated[Literal["public", "private"] | None, Query(description="Only such ones.")] = None,
    kind: Annotated[
        RepositoryKind | None, Query(alias="type", description="Only those whose latest tag names such a thing.")
    ] = None,
    signed: Annotated[
        bool | None, Query(description="Only those whose latest tag names what is signed, or not signed.")
    ] = None,
    pushed_within: Annotated[
        int | None,
        Query(alias="pushedWithin", ge=1, le=_MOST_DAYS, description="Only with a push in so many days."),
    ] = None,
    not_pushed_for: Annotated[
        int | None,
        Query(alias="notPushedFor", ge=1, le=_MOST_DAYS, description="Only without a push for so many days."),
    ] = None,
    sort: Annotated[
        Literal["name", "pushed", "size", "pulls"],
        Query(description="By path; or the last push, the largest, the most pulled first."),
    ] = "name",
    recent_pulls: Annotated[
        bool, Query(alias="recentPulls", description="Say how often something was pulled on the last 14 days.")
    ] = False,
) -> FoundRepositories:
    """
    Those that the caller may see. A page has at most 100.

    Type, signatures, pushes, size and pulls count for filters and order some seconds later; what is answered of
    each repository is how it is now.
    """
    page = page.at_most(_LARGEST_PAGE)
    owner = await find_owner(caller, rooms, namespace) if namespace else None
    wanted = RepositoryQuery(
        namespace=(owner.id if owner else "") if namespace else None,
        text=query.strip(),
        visibility=visibility,
        kind=kind,
        is_signed=signed,
        pushed_within=pushed_within,
        not_pushed_for=not_pushed_for,
        order=sort,
    )
    listed: dict[str, Any] = {"scope": caller.scope, "start": page.start, "limit": page.limit}
    if page.wants_count:
        found, counted = await rooms.summaries.list_and_count(caller.account_id, wanted, **listed)
        response.headers[COUNT] = str(counted)
    else:
        found = await rooms.summaries.list_repositories(caller.account_id, wanted, **listed)
    shown = page.cut(response, found, lambda one: one[1])
    return await _found(caller, rooms, [number for number, _ in shown], with_pulls=recent_pulls)


async def _found(
    caller: Caller, rooms: Rooms, ids: Sequence[int], *, with_pulls: bool = False
) -> FoundRepositories:
    """The records of repositories that the caller may see, in the order of `ids`."""
    details = await rooms.summaries.details(ids)
    place = {str(number): place for place, number in enumerate(ids)}
    records = sorted(await repository_records(caller, rooms, ids), key=lambda one: place[one.id])
    days = await rooms.usage.history(map(of_repository, ids), days=_DAYS) if with_pulls and ids else {}
    pulls = {scope: [day.pulls for day in counted] for scope, counted in days.items()}
    return FoundRepositories(
        repositories=[
            FoundRepository.of(one, details[int(one.id)], pulls.get(of_repository(int(one.id))))
            for one in records
            if int(one.id) in details
        ]
    )


@router.get("/repositories/named", summary="Repositories by their paths", response_model_exclude_none=True)
async def list_named_repositories(
    caller: CallerDep,
    rooms: RoomsDep,
    path: Annotated[
        list[str],
        Query(alias="repository", max_length=_MOST_NAMED, description="What they are called, `NAMESPACE/NAME`."),
    ],
) -> FoundRepositories:
    """Those of them that are there, and that the caller may see, in the order of the paths."""
    standings = await rooms.accounts.standings.find_all(caller.account_id, path, scope=caller.scope)
    ids = [
        one.repository_id
        for one in standings.values()
        if one.repository_id is not None and may(one.facts, Operation.SEE)
    ]
    return await _found(caller, rooms, ids)


@router.get("/owners", summary="Accounts with repositories")
async def list_owners(
    caller: CallerDep,
    rooms: RoomsDep,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Most results: those with the most.")] = 50,
) -> Owners:
    """Whose repositories the caller may see; by name."""
    found, total = await rooms.summaries.list_owners(caller.account_id, scope=caller.scope, limit=limit)
    return Owners(owners=[Owner(name=name, repositories=count) for name, count in found], total=total)


@router.get("/images", summary="Images by tag or digest")
async def search_images(
    caller: CallerDep,
    rooms: RoomsDep,
    query: Annotated[
        str,
        Query(
            max_length=512,
            description="`repository:tag`, each of them in part; or a digest or its beginning, of six digits or"
            " more: of an image, of its config (its ID for docker) or of a layer.",
        ),
    ],
    limit: Annotated[int, Query(ge=1, le=100, description="Most results.")] = 25,
) -> FoundImages:
    """For everybody; whoever is not logged in finds those of public repositories."""
    found = await rooms.search.find_tags(query, caller.account_id, scope=caller.scope, limit=limit)
    return FoundImages(images=[FoundImage.of(one) for one in found])


@router.get("/namespaces", summary="Where the caller may make repositories", responses=errors())
async def list_namespaces(
    caller: CallerDep,
    rooms: RoomsDep,
    query: Annotated[str, Query(max_length=256, description="A part of their names.")] = "",
    limit: Annotated[int, Query(ge=1, le=1_000, description="Most results.")] = 100,
) -> Namespaces:
    """For every user."""
    found = await rooms.accounts.standings.list_managed(
        caller.user().id, contains=query, scope=caller.scope, limit=limit
    )
    return Namespaces(namespaces=found)


# --- pinned ---------------------------------------------------------------------------------------------------

accounts_router = Router(prefix="/api/v0/accounts/{username}/pinnedRepositories", tags=["accounts"])


_PATH = "/{namespace}/{reponame:path}"


@accounts_router.get(
    "",
    summary="Repositories that a user pinned",
    response_model_exclude_none=True,
    responses=errors("NOT_AUTHORIZED", "NO_SUCH_USER"),
)
async def list_pinned_repositories(username: str, caller: CallerDep, rooms: RoomsDep) -> FoundRepositories:
    """
    For the user, and for administrators. The one that was pinned last comes first.

    Those that the caller may see no longer are missing.
    """
    user = await find_user(caller, rooms, username, Operation.SEE_SYSTEM)
    found = await _found(caller, rooms, await rooms.pins.list_pinned(user))
    sees_all = caller.may(Operation.SEE_SYSTEM)
    return FoundRepositories(
        repositories=[one for one in found.repositories if sees_all or one.repository.your_access != "none"]
    )


class Pin(Record):
    """A repository, as a user has it."""

    pinned: bool = Field(description="Whether the user pinned it.")


@accounts_router.get(
    _PATH,
    summary="Whether a user pinned a repository",
    responses=errors(*ON_REPOSITORY, "NO_SUCH_USER"),
)
async def get_pinned_repository(username: str, path: PathDep, caller: CallerDep, rooms: RoomsDep) -> Pin:
    """For the user, and for administrators."""
    user = await find_user(caller, rooms, username, Operation.SEE_SYSTEM)
    repository = await caller.require_on(path, Operation.SEE)
    return Pin(pinned=await rooms.pins.is_pinned(user, repository))


@accounts_router.put(
    _PATH,
    summary="Pin a repository",
    status_code=204,
    responses=errors(*ON_REPOSITORY, "NO_SUCH_USER", "TOO_MANY_PINNED_REPOSITORIES"),
)
async def put_pinned_repository(username: str, path: PathDep, caller: CallerDep, rooms: RoomsDep) -> None:
    """By the user, and by administrators, if there are not 50 already. One that is pinned stays where it is."""
    user = await find_user(caller, rooms, username, Operation.ADMINISTER)
    await rooms.pins.pin(user, await caller.require_on(path, Operation.SEE), by=caller.actor)


@accounts_router.delete(
    _PATH,
    summary="Pin a repository no longer",
    status_code=204,
    responses=errors(*ON_REPOSITORY, "NO_SUCH_USER"),
)
async def delete_pinned_repository(username: str, path: PathDep, caller: CallerDep, rooms: RoomsDep) -> None:
    """By the user, and by administrators; also when it was not pinned."""
    user = await find_user(caller, rooms, username, Operation.ADMINISTER)
    await rooms.pins.unpin(user, await caller.require_on(path, Operation.SEE), by=caller.actor)
