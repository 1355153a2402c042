"""``/api/v0/accounts/{username}/repositoryAccess``: which repositories a user can do something on, and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import Field

from dtr.accounts import Operation, UserUnknown
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import errors
from dtr.http.api.models import AccountRecord, Record
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.reasons import AccessReason, AnyLevel
from dtr.http.api.repositories import RepositoryRecord, repository_records
from dtr.http.api.rooms import RoomsDep

router = Router(prefix="/api/v0/accounts", tags=["accounts"])

_MOST = 1_000


class HeldRepository(Record):
    """A repository that a user can do something on."""

    access_level: AnyLevel = Field(description="The highest of the levels that the reasons give.")
    repository: RepositoryRecord
    reasons: list[AccessReason] = Field(description="All of them, the strongest first.")


class UserRepositoryAccess(Record):
    """What a user, or a robot, can do something on."""

    user: AccountRecord
    repository_access_list: list[HeldRepository]


@router.get(
    "/{username}/repositoryAccess",
    summary="What a user has access to, and why",
    responses=errors("NOT_AUTHORIZED", "NO_SUCH_USER"),
    response_model_exclude_none=True,
)
async def list_user_repository_access(
    username: str,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    contains: Annotated[
        str, Query(max_length=1_000, description="A part of the repository's path, in whatever case.")
    ] = "",
) -> UserRepositoryAccess:
    """
    By path, which is what the page starts with. For the user, and for administrators.

    What everybody can do on public repositories, and what administrators and auditors of the registry can do on
    all, is not among it. A page has at most 1,000 repositories.
    """
    user = caller.require(Operation.MANAGE_OWN_SETTINGS)
    if username not in {user.name, user.id}:
        caller.require(Operation.SEE_SYSTEM)
        found = await rooms.accounts.find(username)
        if found is None or found.kind == "organization":
            raise UserUnknown(username)
        user = found
    page = page.at_most(_MOST)
    held = await rooms.accounts.holdings.list_of(user, contains=contains, start=page.start, limit=page.limit)
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.accounts.holdings.count_of(user, contains=contains))
    shown = {str(one.repository_id): one for one in page.cut(response, held, lambda one: one.path)}
    records = await repository_records(caller, rooms, [int(number) for number in shown])
    return UserRepositoryAccess(
        user=AccountRecord.of(user),
        repository_access_list=[
            HeldRepository(
                access_level=shown[one.id].level.label,
                repository=one,
                reasons=[AccessReason.of(reason) for reason in shown[one.id].reasons],
            )
            for one in records
        ],
    )
