"""
``/api/v0/accounts/{orgname}/robots``: accounts of an organization for its programs, and their tokens.

They are the business of the organization's owners; auditors look at them.
"""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Header, Response
from pydantic import Field

from dtr.accounts import TOKEN_KINDS, Operation, TokenUnknown
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import errors
from dtr.http.api.models import AccountName, Form, Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.rooms import RoomsDep
from dtr.http.api.tokens import NewTokenRecord, TokenForm, TokenRecord, make_token

if TYPE_CHECKING:
    from dtr.accounts import Account, Robot
    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms

router = Router(prefix="/api/v0/accounts/{orgname}/robots", tags=["accounts"])

_ORGANIZATION = ("NOT_AN_ORGANIZATION", "NOT_AUTHORIZED", "NO_SUCH_ACCOUNT")
_ROBOT = (*_ORGANIZATION, "NO_SUCH_ROBOT")


class RobotRecord(Record):
    """A robot of an organization."""

    name: str = Field(description="What it logs in as: the organization, a plus sign, its short name.")
    short_name: str = Field(description="What it is called in the organization, and in paths.")
    id: str
    organization: str
    description: str
    is_active: bool = Field(description="May log in.")
    created_at: dt.datetime

    @classmethod
    def of(cls, robot: Robot, organization: Account) -> RobotRecord:
        """The record of a robot."""
        return cls(
            name=robot.account.name,
            short_name=robot.short_name,
            id=robot.account.id,
            organization=organization.name,
            description=robot.account.full_name,
            is_active=robot.account.is_active,
            created_at=moment(robot.created_at),
        )


class RobotForm(Form):
    """A robot to be made."""

    name: AccountName = Field(description="Its short name.")
    description: str = ""


class RobotChange(Form):
    """What of a robot can be changed; what is missing stays."""

    description: str | None = None
    is_active: bool | None = None


class RobotAccess(Record):
    """What a robot was granted."""

    path: str = Field(description="`NAMESPACE/NAME` of a repository, or `NAMESPACE` alone: on all of it.")
    access_level: Literal["read-only", "read-write", "admin"]


async def _owned(caller: Caller, orgname: str) -> Account:
    """The organization, when the caller manages it. Raises ApiError."""
    return await caller.require_in(orgname, Operation.MANAGE_ORGANIZATION)


async def _seen(caller: Caller, rooms: Rooms, orgname: str) -> Account:
    """The organization, when the caller manages it or is an auditor. Raises ApiError, AccountUnknown."""
    if caller.may(Operation.SEE_SYSTEM):
        return await rooms.accounts.get(orgname)
    return await _owned(caller, orgname)


@router.get("", summary="The robots of an organization", responses=errors(*_ORGANIZATION))
async def list_robots(
    orgname: str, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[RobotRecord]:
    """By name; the page starts with a short name."""
    organization = await _seen(caller, rooms, orgname)
    found = await rooms.accounts.robots.list_robots(organization, start=page.start, limit=page.limit)
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.accounts.robots.count_robots(organization))
    cut = page.cut(response, found, lambda one: one.short_name)
    return [RobotRecord.of(one, organization) for one in cut]


@router.post(
    "",
    summary="Make a robot",
    status_code=201,
    responses=errors("INVALID_ACCOUNT_NAME", "ACCOUNT_EXISTS", *_ORGANIZATION),
)
async def create_robot(orgname: str, form: RobotForm, caller: CallerDep, rooms: RoomsDep) -> RobotRecord:
    """It can log in with a token of its own, and has no rights before it is granted some."""
    organization = await _owned(caller, orgname)
    made = await rooms.accounts.robots.create(
        organization, form.name, description=form.description, by=caller.actor
    )
    return RobotRecord.of(made, organization)


@router.get("/{robot}", summary="A robot", responses=errors(*_ROBOT))
async def get_robot(orgname: str, robot: str, caller: CallerDep, rooms: RoomsDep) -> RobotRecord:
    """A robot of the organization by its short name."""
    organization = await _seen(caller, rooms, orgname)
    return RobotRecord.of(await rooms.accounts.robots.get(organization, robot), organization)


@router.patch(
    "/{robot}",
    summary="Describe a robot anew, switch it off or on",
    responses=errors("INVALID_ACCOUNT_NAME", *_ROBOT),
)
async def update_robot(
    orgname: str, robot: str, form: RobotChange, caller: CallerDep, rooms: RoomsDep
) -> RobotRecord:
    """A robot that is not active is nobody, whatever it shows, until it is active again."""
    organization = await _owned(caller, orgname)
    changed = await rooms.accounts.robots.update(
        organization, robot, description=form.description, is_active=form.is_active, by=caller.actor
    )
    return RobotRecord.of(changed, organization)


@router.delete("/{robot}", summary="Delete a robot", status_code=204, responses=errors(*_ROBOT))
async def delete_robot(orgname: str, robot: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """Its tokens and what it was granted go with it."""
    organization = await _owned(caller, orgname)
    await rooms.accounts.robots.delete(organization, robot, by=caller.actor)


@router.get("/{robot}/access", summary="What a robot was granted", responses=errors(*_ROBOT))
async def list_robot_access(
    orgname: str, robot: str, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[RobotAccess]:
    """By path; what it was granted on the whole namespace comes first."""
    organization = await _seen(caller, rooms, orgname)
    account = (await rooms.accounts.robots.get(organization, robot)).account
    grants = rooms.accounts.grants
    found = await grants.list_of_user(account, start=page.start, limit=page.limit)
    if page.wants_count:
        response.headers[COUNT] = str(await grants.count_of_user(account))
    return [
        RobotAccess(path=path, access_level=level.label)
        for path, level in page.cut(response, found, lambda one: one[0])
    ]


@router.get("/{robot}/tokens", summary="The access tokens of a robot", responses=errors(*_ROBOT))
async def list_robot_tokens(
    orgname: str, robot: str, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[TokenRecord]:
    """By id. What clients that logged in keep is among them."""
    organization = await _seen(caller, rooms, orgname)
    name = (await rooms.accounts.robots.get(organization, robot)).account.name
    found = await rooms.accounts.tokens.list_tokens(name, kinds=TOKEN_KINDS, start=page.start, limit=page.limit)
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.accounts.tokens.count_tokens(name, kinds=TOKEN_KINDS))
    return [TokenRecord.of(one) for one in page.cut(response, found, lambda one: one.id)]


@router.post(
    "/{robot}/tokens",
    summary="Make an access token of a robot",
    status_code=201,
    responses=errors("INVALID_TOKEN", "INVALID_TOKEN_SCOPE", *_ROBOT),
)
async def create_robot_token(
    orgname: str,
    robot: str,
    form: TokenForm,
    caller: CallerDep,
    rooms: RoomsDep,
    user_agent: Annotated[str, Header(include_in_schema=False)] = "",
) -> NewTokenRecord:
    """Without a scope, it is good for all that the robot was granted."""
    organization = await _owned(caller, orgname)
    account = (await rooms.accounts.robots.get(organization, robot)).account
    return await make_token(rooms, caller, account, form, user_agent)


@router.delete(
    "/{robot}/tokens/{hashedtoken}",
    summary="Delete an access token of a robot",
    status_code=204,
    responses=errors("NO_SUCH_API_TOKEN", *_ROBOT),
)
async def delete_robot_token(
    orgname: str, robot: str, hashedtoken: str, caller: CallerDep, rooms: RoomsDep
) -> None:
    """It opens nothing from this moment on, and neither does what was left behind by log-ins with it."""
    organization = await _owned(caller, orgname)
    account = (await rooms.accounts.robots.get(organization, robot)).account
    if not await rooms.accounts.tokens.delete(account.name, hashedtoken, by=caller.actor):
        raise TokenUnknown(hashedtoken)
