"""
Who was granted what: teams and users, on repositories and on whole namespaces.

DTR knew grants to teams alone; those to users, and to robots, are asked for and changed in the same way.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import Field

from dtr.accounts import Level, Operation, TeamUnknown, UserUnknown, may
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import AccountRecord, Form, Record
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.repositories import ON_REPOSITORY, PathDep, RepositoryRecord, repository_records
from dtr.http.api.rooms import RoomsDep

if TYPE_CHECKING:
    from dtr.accounts import GrantedTeam, Place
    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms

router = Router()

AccessLevel = Literal["read-only", "read-write", "admin"]

_PATH = "{namespace}/{reponame:path}"
_REPOSITORY = f"/api/v0/repositories/{_PATH}"
_NAMESPACE = "/api/v0/repositoryNamespaces/{namespace}"
_OF_REPOSITORY: dict[str, Any] = {"tags": ["repositories"], "response_model_exclude_none": True}
_OF_NAMESPACE: dict[str, Any] = {"tags": ["repositoryNamespaces"], "response_model_exclude_none": True}
_OF_ACCOUNT: dict[str, Any] = {"tags": ["accounts"], "response_model_exclude_none": True}
_ON_NAMESPACE = ("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT")
_TO_TEAM = ("NOT_AN_ORGANIZATION", "TEAM_ELSEWHERE", "NOT_GRANTABLE", "NO_SUCH_TEAM")
_TO_USER = ("NOT_GRANTABLE", "NO_SUCH_USER")


class GrantedTeamRecord(Record):
    """A team of the organization that owns what is granted."""

    id: str
    name: str
    client_user_is_member: bool = Field(description="The caller is in it.")

    @classmethod
    def of(cls, team: GrantedTeam) -> GrantedTeamRecord:
        """The record of a team."""
        return cls(id=team.id, name=team.name, client_user_is_member=team.has_asker)


class TeamAccess(Record):
    """What a team was granted."""

    access_level: AccessLevel
    team: GrantedTeamRecord


class UserAccess(Record):
    """What a user, or a robot, was granted."""

    access_level: AccessLevel
    user: AccountRecord


class RepositoryTeamAccess(Record):
    """What teams were granted on a repository."""

    repository: RepositoryRecord
    team_access_list: list[TeamAccess]


class RepositoryUserAccess(Record):
    """What users were granted on a repository."""

    repository: RepositoryRecord
    user_access_list: list[UserAccess]


class NamespaceTeamAccessList(Record):
    """What teams were granted on a namespace."""

    namespace: str
    team_access_list: list[TeamAccess]


class NamespaceUserAccessList(Record):
    """What users were granted on a namespace."""

    namespace: str
    user_access_list: list[UserAccess]


class NamespaceTeamAccess(TeamAccess):
    """What a team was granted on a namespace."""

    namespace: str


class NamespaceUserAccess(UserAccess):
    """What a user was granted on a namespace."""

    namespace: str


class RepositoryAccess(Record):
    """What is granted on a repository."""

    access_level: AccessLevel
    repository: RepositoryRecord


class TeamRepositoryAccess(Record):
    """What a team was granted on single repositories."""

    team: GrantedTeamRecord
    repository_access_list: list[RepositoryAccess]


class EffectiveAccess(Record):
    """What a user may do on a repository, wherever that comes from."""

    access_level: Literal["none", "read-only", "read-write", "admin"]
    user: AccountRecord
    repository: RepositoryRecord


class AccessForm(Form):
    """What is to be granted."""

    access_level: AccessLevel

    @property
    def level(self) -> Level:
        """The level."""
        return Level.of(self.access_level)


# --- on a repository, to teams ----------------------------------------------------------------------------------


@router.get(
    f"{_REPOSITORY}/teamAccess",
    summary="What teams were granted on a repository",
    responses=errors("NOT_AN_ORGANIZATION", *ON_REPOSITORY),
    **_OF_REPOSITORY,
)
async def list_repository_team_access(
    path: PathDep, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> RepositoryTeamAccess:
    """By the team's name, which is what the page starts with. For those who administer the repository."""
    place = await _repository(caller, rooms, path, Operation.SEE_TEAM_ACCESS)
    place.require_organization()
    teams = await _teams(caller, rooms, place, page, response)
    return RepositoryTeamAccess(repository=await _record(caller, rooms, place), team_access_list=teams)


@router.put(
    f"{_REPOSITORY}/teamAccess/{{teamname}}",
    summary="Grant something on a repository to a team",
    responses=errors(*_TO_TEAM, *ON_REPOSITORY),
    **_OF_REPOSITORY,
)
async def set_repository_team_access(
    path: PathDep, teamname: str, form: AccessForm, caller: CallerDep, rooms: RoomsDep
) -> RepositoryTeamAccess:
    """The team has this level from now on. By those who administer the repository."""
    place = await _repository(caller, rooms, path, Operation.MANAGE_TEAM_ACCESS)
    team = await _set_team(caller, rooms, place, teamname, form.level)
    access = TeamAccess(access_level=form.access_level, team=GrantedTeamRecord.of(team))
    return RepositoryTeamAccess(repository=await _record(caller, rooms, place), team_access_list=[access])


@router.delete(
    f"{_REPOSITORY}/teamAccess/{{teamname}}",
    summary="Take back what a team was granted on a repository",
    status_code=204,
    responses=errors("NOT_AN_ORGANIZATION", "TEAM_ELSEWHERE", *ON_REPOSITORY),
    **_OF_REPOSITORY,
)
async def revoke_repository_team_access(path: PathDep, teamname: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """There may have been nothing to take. What the team has on the whole namespace stays."""
    place = await _repository(caller, rooms, path, Operation.MANAGE_TEAM_ACCESS)
    with contextlib.suppress(TeamUnknown):
        await rooms.accounts.grants.set_team(place, teamname, Level.NONE, by=caller.actor)


# --- on a repository, to users ----------------------------------------------------------------------------------


@router.get(
    f"{_REPOSITORY}/userAccess",
    summary="What users were granted on a repository",
    responses=errors(*ON_REPOSITORY),
    **_OF_REPOSITORY,
)
async def list_repository_user_access(
    path: PathDep, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> RepositoryUserAccess:
    """By the user's name, which is what the page starts with. For those who administer the repository."""
    place = await _repository(caller, rooms, path, Operation.SEE_TEAM_ACCESS)
    users = await _users(rooms, place, page, response)
    return RepositoryUserAccess(repository=await _record(caller, rooms, place), user_access_list=users)


@router.put(
    f"{_REPOSITORY}/userAccess/{{username}}",
    summary="Grant something on a repository to a user",
    responses=errors(*_TO_USER, *ON_REPOSITORY),
    **_OF_REPOSITORY,
)
async def set_repository_user_access(
    path: PathDep, username: str, form: AccessForm, caller: CallerDep, rooms: RoomsDep
) -> RepositoryUserAccess:
    """A user, or a robot of the organization, has this level from now on. By those who administer it."""
    place = await _repository(caller, rooms, path, Operation.MANAGE_TEAM_ACCESS)
    access = await _set_user(caller, rooms, place, username, form)
    return RepositoryUserAccess(repository=await _record(caller, rooms, place), user_access_list=[access])


@router.delete(
    f"{_REPOSITORY}/userAccess/{{username}}",
    summary="Take back what a user was granted on a repository",
    status_code=204,
    responses=errors(*ON_REPOSITORY),
    **_OF_REPOSITORY,
)
async def revoke_repository_user_access(path: PathDep, username: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """There may have been nothing to take. What the user has by other ways stays."""
    place = await _repository(caller, rooms, path, Operation.MANAGE_TEAM_ACCESS)
    with contextlib.suppress(UserUnknown):
        await rooms.accounts.grants.set_user(place, username, Level.NONE, by=caller.actor)


# --- on a namespace, to teams -----------------------------------------------------------------------------------


@router.get(
    f"{_NAMESPACE}/teamAccess",
    summary="What teams were granted on a namespace",
    responses=errors("NOT_AN_ORGANIZATION", *_ON_NAMESPACE),
    **_OF_NAMESPACE,
)
async def list_namespace_team_access(
    namespace: str, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> NamespaceTeamAccessList:
    """By the team's name, which is what the page starts with. For the members of the organization."""
    place = await _namespace(caller, rooms, namespace, Operation.SEE_NAMESPACE_ACCESS)
    place.require_organization()
    teams = await _teams(caller, rooms, place, page, response)
    return NamespaceTeamAccessList(namespace=place.path, team_access_list=teams)


@router.get(
    f"{_NAMESPACE}/teamAccess/{{teamname}}",
    summary="What a team was granted on a namespace",
    responses=errors("NOT_AN_ORGANIZATION", "TEAM_ELSEWHERE", "NO_SUCH_NAMESPACE_TEAM_ACCESS", *_ON_NAMESPACE),
    **_OF_NAMESPACE,
)
async def get_namespace_team_access(
    namespace: str, teamname: str, caller: CallerDep, rooms: RoomsDep
) -> NamespaceTeamAccess:
    """For those who are in the team, and those who administer the namespace."""
    place = await _namespace(caller, rooms, namespace, Operation.SEE_NAMESPACE_ACCESS)
    try:
        team = await rooms.accounts.grants.find_team(place, teamname, caller.account_id)
    except TeamUnknown:
        raise ApiError("NO_SUCH_NAMESPACE_TEAM_ACCESS", teamname) from None
    if not team.has_asker and not caller.may(Operation.SEE_SYSTEM):
        await caller.require_in(namespace, Operation.MANAGE_NAMESPACE_ACCESS)
    found = await rooms.accounts.grants.get_team(place, team, asker=caller.account_id)
    if found is None:
        raise ApiError("NO_SUCH_NAMESPACE_TEAM_ACCESS", teamname)
    return NamespaceTeamAccess(
        access_level=_label(found[1]), team=GrantedTeamRecord.of(found[0]), namespace=place.path
    )


@router.put(
    f"{_NAMESPACE}/teamAccess/{{teamname}}",
    summary="Grant something on a namespace to a team",
    responses=errors(*_TO_TEAM, *_ON_NAMESPACE),
    **_OF_NAMESPACE,
)
async def set_namespace_team_access(
    namespace: str, teamname: str, form: AccessForm, caller: CallerDep, rooms: RoomsDep
) -> NamespaceTeamAccess:
    """
    The team has this level from now on, on all repositories of the organization, those to come included.

    With `admin` it makes repositories, too. By those who administer the namespace.
    """
    place = await _namespace(caller, rooms, namespace, Operation.MANAGE_NAMESPACE_ACCESS)
    team = await _set_team(caller, rooms, place, teamname, form.level)
    return NamespaceTeamAccess(
        access_level=form.access_level, team=GrantedTeamRecord.of(team), namespace=place.path
    )


@router.delete(
    f"{_NAMESPACE}/teamAccess/{{teamname}}",
    summary="Take back what a team was granted on a namespace",
    status_code=204,
    responses=errors("NOT_AN_ORGANIZATION", "TEAM_ELSEWHERE", *_ON_NAMESPACE),
    **_OF_NAMESPACE,
)
async def revoke_namespace_team_access(namespace: str, teamname: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """There may have been nothing to take. What the team has on single repositories stays."""
    place = await _namespace(caller, rooms, namespace, Operation.MANAGE_NAMESPACE_ACCESS)
    with contextlib.suppress(TeamUnknown):
        await rooms.accounts.grants.set_team(place, teamname, Level.NONE, by=caller.actor)


# --- on a namespace, to users -----------------------------------------------------------------------------------


@router.get(
    f"{_NAMESPACE}/userAccess",
    summary="What users were granted on a namespace",
    responses=errors(*_ON_NAMESPACE),
    **_OF_NAMESPACE,
)
async def list_namespace_user_access(
    namespace: str, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> NamespaceUserAccessList:
    """By the user's name, which is what the page starts with. For the owner, and the members."""
    place = await _namespace(caller, rooms, namespace, Operation.SEE_NAMESPACE_ACCESS)
    users = await _users(rooms, place, page, response)
    return NamespaceUserAccessList(namespace=place.path, user_access_list=users)


@router.put(
    f"{_NAMESPACE}/userAccess/{{username}}",
    summary="Grant something on a namespace to a user",
    responses=errors(*_TO_USER, *_ON_NAMESPACE),
    **_OF_NAMESPACE,
)
async def set_namespace_user_access(
    namespace: str, username: str, form: AccessForm, caller: CallerDep, rooms: RoomsDep
) -> NamespaceUserAccess:
    """
    The user, or the organization's robot, has this level from now on, on all repositories, those to come included.

    With `admin`, repositories can be made, too. By those who administer the namespace: a user shares the own one.
    """
    place = await _namespace(caller, rooms, namespace, Operation.MANAGE_NAMESPACE_ACCESS)
    access = await _set_user(caller, rooms, place, username, form)
    return NamespaceUserAccess(access_level=access.access_level, user=access.user, namespace=place.path)


@router.delete(
    f"{_NAMESPACE}/userAccess/{{username}}",
    summary="Take back what a user was granted on a namespace",
    status_code=204,
    responses=errors(*_ON_NAMESPACE),
    **_OF_NAMESPACE,
)
async def revoke_namespace_user_access(namespace: str, username: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """There may have been nothing to take. What the user has by other ways stays."""
    place = await _namespace(caller, rooms, namespace, Operation.MANAGE_NAMESPACE_ACCESS)
    with contextlib.suppress(UserUnknown):
        await rooms.accounts.grants.set_user(place, username, Level.NONE, by=caller.actor)


# --- of a team, of a user ---------------------------------------------------------------------------------------


@router.get(
    "/api/v0/accounts/{orgname}/teams/{teamname}/repositoryAccess",
    summary="What a team was granted on repositories",
    responses=errors("NOT_AN_ORGANIZATION", "TEAM_ELSEWHERE", "NOT_AUTHORIZED", "NO_SUCH_ACCOUNT", "NO_SUCH_TEAM"),
    **_OF_ACCOUNT,
)
async def list_team_repository_access(
    orgname: str,
    teamname: str,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    contains: Annotated[str, Query(max_length=255, description="A part of the path, in whatever case.")] = "",
) -> TeamRepositoryAccess:
    """
    By path, which is what the page starts with. For those who are in the team, and the organization's owners.

    What the team was granted on the whole namespace is not among it.
    """
    caller.require(Operation.SEE_ACCOUNTS)
    grants = rooms.accounts.grants
    owner = await rooms.accounts.get(orgname)
    place = await grants.on(owner.name)
    place.require_organization()
    facts = (await caller.standing(f"{place.path}/")).facts
    sees_all = may(facts, Operation.MANAGE_ORGANIZATION) or may(facts, Operation.SEE_SYSTEM)
    if not (sees_all or facts.is_member):
        raise ApiError("NOT_AUTHORIZED")
    team = await grants.find_team(place, teamname, caller.account_id)
    if not (sees_all or team.has_asker):
        raise ApiError("NOT_AUTHORIZED")
    found = await grants.list_of_team(team, contains=contains, start=page.start, limit=page.limit)
    if page.wants_count:
        response.headers[COUNT] = str(await grants.count_of_team(team))
    levels = {str(number): level for number, _, level in page.cut(response, found, lambda one: one[1])}
    records = await repository_records(caller, rooms, [int(number) for number in levels])
    return TeamRepositoryAccess(
        team=GrantedTeamRecord.of(team),
        repository_access_list=[
            RepositoryAccess(access_level=_label(levels[one.id]), repository=one) for one in records
        ],
    )


@router.get(
    f"/api/v0/accounts/{{username}}/repositoryAccess/{_PATH}",
    summary="What a user may do on a repository",
    responses=errors("NO_SUCH_USER", *ON_REPOSITORY),
    **_OF_ACCOUNT,
)
async def get_user_repository_access(
    username: str, path: PathDep, caller: CallerDep, rooms: RoomsDep
) -> EffectiveAccess:
    """The highest of all levels that the user has there. For the user, and for administrators."""
    account = caller.user()
    user = account
    if username not in {account.name, account.id}:
        caller.require(Operation.SEE_SYSTEM)
        found = await rooms.accounts.find(username)
        if found is None or found.kind == "organization":
            raise UserUnknown(username)
        user = found
    place = await rooms.accounts.grants.on(await caller.require_on(path, Operation.SEE))
    standing = await rooms.accounts.standings.find(user.id, place.path)
    return EffectiveAccess(
        access_level=standing.facts.level.label,
        user=AccountRecord.of(user),
        repository=await _record(caller, rooms, place),
    )


# --- parts ------------------------------------------------------------------------------------------------------


async def _repository(caller: Caller, rooms: Rooms, path: str, operation: Operation) -> Place:
    return await rooms.accounts.grants.on(await caller.require_on(path, operation))


async def _namespace(caller: Caller, rooms: Rooms, namespace: str, operation: Operation) -> Place:
    owner = await caller.require_in(namespace, operation)
    return await rooms.accounts.grants.on(owner.name)


async def _record(caller: Caller, rooms: Rooms, place: Place) -> RepositoryRecord:
    found = await repository_records(caller, rooms, [int(place.id)])
    if not found:
        raise ApiError("NO_SUCH_REPOSITORY", place.path)
    return found[0]


async def _teams(
    caller: Caller, rooms: Rooms, place: Place, page: PageDep, response: Response
) -> list[TeamAccess]:
    grants = rooms.accounts.grants
    found = await grants.list_teams(place, asker=caller.account_id, start=page.start, limit=page.limit)
    if page.wants_count:
        response.headers[COUNT] = str(await grants.count_teams(place))
    cut = page.cut(response, found, lambda one: one[0].name)
    return [TeamAccess(access_level=_label(level), team=GrantedTeamRecord.of(team)) for team, level in cut]


async def _users(rooms: Rooms, place: Place, page: PageDep, response: Response) -> list[UserAccess]:
    found = await rooms.accounts.grants.list_users(place, start=page.start, limit=page.limit)
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.accounts.grants.count_users(place))
    cut = page.cut(response, found, lambda one: one[0].name)
    return [UserAccess(access_level=_label(level), user=AccountRecord.of(user)) for user, level in cut]


async def _set_team(caller: Caller, rooms: Rooms, place: Place, teamname: str, level: Level) -> GrantedTeam:
    grants = rooms.accounts.grants
    team = await grants.find_team(place, teamname, caller.account_id)
    await grants.set_team(place, team.id, level, by=caller.actor)
    return team


async def _set_user(caller: Caller, rooms: Rooms, place: Place, username: str, form: AccessForm) -> UserAccess:
    await rooms.accounts.grants.set_user(place, username, form.level, by=caller.actor)
    user = await rooms.accounts.find(username)
    if user is None:
        raise UserUnknown(username)
    return UserAccess(access_level=form.access_level, user=AccountRecord.of(user))


def _label(level: Level) -> AccessLevel:
    return level.label  # type: ignore[return-value]  # grants have no other
