"""
``…/repositories/{namespace}/{reponame}/access``: who can do what on a repository, and why.

Whoever decides over the access to a repository sees all who have it, also by teams of whose organization it is no
member: who cannot see it cannot answer for it. Everybody sees the own reasons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Query, Response
from pydantic import Field

from dtr.accounts import Level, Operation, UserUnknown, may
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import AccountRecord, Record
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.repositories import FROM_REPOSITORY, PathDep, RepositoryRecord, repository_records
from dtr.http.api.rooms import RoomsDep

if TYPE_CHECKING:
    from dtr.accounts import Facts, Grant, Person, Place, Reason
    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms

router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}/access", tags=["repositories"])

AnyLevel = Literal["none", "read-only", "read-write", "admin"]

_MOST_MANAGERS = 10
_LONGEST_PART = 1_000
_Contains = Annotated[
    str, Query(max_length=_LONGEST_PART, description="A part of name or full name, in whatever case.")
]


class AccessReason(Record):
    """One reason why an account can do something on a repository."""

    kind: Literal["administrator", "auditor", "owner", "team", "user"] = Field(
        description="`administrator` and `auditor` are those of the registry, `owner` of the namespace; `team` and"
        " `user`: it was granted to a team that the account is in, or to itself."
    )
    access_level: AnyLevel = Field(description="`none`: an auditor sees everything, and that is no level.")
    on: Literal["registry", "namespace", "repository"] = Field(description="On what it has that.")
    team: str = Field(description="The name of the team; empty: there is none.")

    @classmethod
    def of(cls, reason: Reason) -> AccessReason:
        """The record of a reason."""
        return cls(kind=reason.kind, access_level=reason.level.label, on=reason.on, team=reason.team)


class PersonAccess(Record):
    """What a user, or a robot, can do on a repository, and why."""

    user: AccountRecord
    access_level: AnyLevel = Field(description="The highest of all, what everybody has included.")
    can_see: bool = Field(description="Knows of it, and looks at its tags.")
    can_pull: bool = Field(description="Downloads images.")
    can_push: bool = Field(description="And deletes tags.")
    can_manage: bool = Field(description="Decides over settings, policies and access; deletes the repository.")
    reasons: list[AccessReason] = Field(
        description="All of the account's own, the strongest first; that a repository is public is none."
    )

    @classmethod
    def of(cls, person: Person) -> PersonAccess:
        """The record of somebody's access."""
        facts = person.facts
        return cls(user=AccountRecord.of(person.account), **_rights(facts), reasons=_reasons(person))


class OnePersonAccess(PersonAccess):
    """What one user, or robot, can do on a repository, why, and who can give more."""

    repository: RepositoryRecord
    managers: list[AccountRecord] = Field(
        description="At most 10 who can give more: they manage the repository, and not only as administrators of"
        " the registry. Empty for an account to which nothing was granted."
    )


class RepositoryAccessList(Record):
    """Who has access to a repository."""

    repository: RepositoryRecord
    people: list[PersonAccess]


class GrantRecord(Record):
    """What a team, a user or a robot was granted."""

    kind: Literal["team", "user", "robot"] = Field(description="To whom it was granted.")
    id: str
    name: str = Field(description="Of a robot the one that it logs in as.")
    full_name: str = Field(description="Of a user; the description of a team or robot.")
    access_level: Literal["read-only", "read-write", "admin"]
    on: Literal["namespace", "repository"]
    is_active: bool = Field(description="Users and robots: may log in.")
    members_count: int = Field(description="Of a team.")

    @classmethod
    def of(cls, grant: Grant) -> GrantRecord:
        """The record of a grant."""
        return cls(
            kind=grant.kind,
            id=grant.id,
            name=grant.name,
            full_name=grant.full_name,
            access_level=grant.level.label,
            on=grant.on,
            is_active=grant.is_active,
            members_count=grant.members,
        )


class NamespaceGrantList(Record):
    """What was granted on a namespace."""

    namespace: str
    grants: list[GrantRecord]


class RepositoryGrantList(Record):
    """What was granted on a repository and its namespace, and how many have access without a grant."""

    repository: RepositoryRecord
    grants: list[GrantRecord]
    owners_count: int = Field(description="Owners of the organization who are active; 0 in a personal namespace.")
    administrators_count: int = Field(description="Administrators of the registry who are active.")
    auditors_count: int = Field(description="Auditors who are active.")


@router.get("", summary="Who can do what on a repository, and why", responses=errors(*FROM_REPOSITORY))
async def list_repository_access(
    path: PathDep,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    contains: _Contains = "",
    level: Annotated[
        AnyLevel | None, Query(description="Who has this one; `none` are those who only audit.")
    ] = None,
) -> RepositoryAccessList:
    """
    Active users and robots, those of the highest level first, then by name.

    For those who administer the repository, and auditors. What everybody has on a public repository is not among
    it.
    """
    place, repository = await _place(caller, rooms, path, Operation.SEE_TEAM_ACCESS)
    reasons, wanted = rooms.accounts.reasons, None if level is None else _LEVELS[level]
    found, counted = await reasons.list_people(
        place,
        is_public=repository.visibility == "public",
        level=wanted,
        contains=contains,
        start=page.start,
        limit=page.limit,
    )
    if page.wants_count:
        response.headers[COUNT] = str(counted)
    shown = page.cut(response, found, lambda one: one.marker)
    return RepositoryAccessList(repository=repository, people=[PersonAccess.of(one) for one in shown])


@router.get(
    "/{username}",
    summary="What somebody can do on a repository, and why",
    responses=errors("NO_SUCH_USER", *FROM_REPOSITORY),
)
async def get_repository_access(
    path: PathDep, username: str, caller: CallerDep, rooms: RoomsDep
) -> OnePersonAccess:
    """For the user itself, for those who administer the repository, and auditors."""
    account = caller.user()
    is_self = username in {account.name, account.id}
    place, repository = await _place(caller, rooms, path, Operation.SEE if is_self else Operation.SEE_TEAM_ACCESS)
    if not is_self:
        found = await rooms.accounts.find(username)
        elsewhere = found is not None and found.kind == "robot" and found.organization_id != place.owner_id
        if found is None or found.kind == "organization" or elsewhere:
            raise UserUnknown(username)
        account = found
    is_public = repository.visibility == "public"
    reasons = rooms.accounts.reasons
    person = await reasons.explain(place, account, is_public=is_public)
    managers: list[Person] = []
    if not is_self or person.reasons:
        managers, _ = await reasons.list_people(
            place, is_public=is_public, level=Level.ADMIN, system=False, limit=_MOST_MANAGERS
        )
    return OnePersonAccess(
        user=AccountRecord.of(account),
        **_rights(person.facts),
        reasons=_reasons(person),
        repository=repository,
        managers=[AccountRecord.of(one.account) for one in managers],
    )


grants_router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}/grants", tags=["repositories"])


@grants_router.get(
    "", summary="What was granted on a repository and on its namespace", responses=errors(*FROM_REPOSITORY)
)
async def list_repository_grants(
    path: PathDep,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    contains: _Contains = "",
) -> RepositoryGrantList:
    """
    To teams, then to users, then to robots, by name; those on the repository itself come first.

    For those who administer the repository, and auditors.
    """
    place, repository = await _place(caller, rooms, path, Operation.SEE_TEAM_ACCESS)
    reasons = rooms.accounts.reasons
    found = await reasons.list_grants(place, contains=contains, start=page.start, limit=page.limit)
    if page.wants_count:
        response.headers[COUNT] = str(await reasons.count_grants(place, contains=contains))
    numbers = await reasons.numbers(place)
    return RepositoryGrantList(
        repository=repository,
        grants=[GrantRecord.of(one) for one in page.cut(response, found, lambda one: one.marker)],
        owners_count=numbers.owners,
        administrators_count=numbers.administrators,
        auditors_count=numbers.auditors,
    )


namespace_router = Router(prefix="/api/v0/repositoryNamespaces/{namespace}/grants", tags=["repositoryNamespaces"])


@namespace_router.get(
    "", summary="What was granted on a namespace", responses=errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT")
)
async def list_namespace_grants(
    namespace: str,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    contains: _Contains = "",
) -> NamespaceGrantList:
    """To teams, then to users, then to robots, by name. For the owner, the members, and auditors."""
    owner = await caller.require_in(namespace, Operation.SEE_NAMESPACE_ACCESS)
    place = await rooms.accounts.grants.on(owner.name)
    reasons = rooms.accounts.reasons
    found = await reasons.list_grants(place, contains=contains, start=page.start, limit=page.limit)
    if page.wants_count:
        response.headers[COUNT] = str(await reasons.count_grants(place, contains=contains))
    return NamespaceGrantList(
        namespace=place.path,
        grants=[GrantRecord.of(one) for one in page.cut(response, found, lambda one: one.marker)],
    )


_LEVELS = {level.label: level for level in Level}


async def _place(caller: Caller, rooms: Rooms, path: str, operation: Operation) -> tuple[Place, RepositoryRecord]:
    """A repository on which the caller may do it, and its record. Raises ApiError."""
    place = await rooms.accounts.grants.on(await caller.require_on(path, operation))
    records = await repository_records(caller, rooms, [int(place.id)])
    if not records:
        raise ApiError("NO_SUCH_REPOSITORY", path)
    return place, records[0]


def _rights(facts: Facts) -> dict[str, bool | str]:
    return {
        "access_level": facts.level.label if facts.is_user else Level.NONE.label,
        "can_see": may(facts, Operation.SEE_TAGS),
        "can_pull": may(facts, Operation.PULL),
        "can_push": may(facts, Operation.PUSH),
        "can_manage": may(facts, Operation.CHANGE_SETTINGS),
    }


def _reasons(person: Person) -> list[AccessReason]:
    return [AccessReason.of(one) for one in person.reasons]
