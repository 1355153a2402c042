"""
Robots: accounts of an organisation for its programs.

A robot is called ``organisation+robot``, which no user can be called. It has no password and logs in with access
tokens; it is in no team, and has what it was granted itself in the namespace of its organisation. It goes with its
organisation.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, Boolean, and_, bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import AccountNameInvalid, AccountUnknown, NameTaken, NotAnOrganization, RobotUnknown
from dtr.accounts.records import ACCOUNT_COLUMNS, Account, account_of, check_name, findable, folded, new_id
from dtr.db import ConstraintViolated, Statement, now
from dtr.db.schema import accounts
from dtr.events import SYSTEM, Actor, Event, record

if TYPE_CHECKING:
    from dtr.db import Database, Row, Transaction
    from dtr.events import EventType

SEPARATOR = "+"
_LONGEST_DESCRIPTION = 1_000

_INSERT = Statement(
    lambda: (
        insert(accounts)
        .values(
            id=bindparam("id"),
            name=bindparam("name"),
            kind="robot",
            organization_id=bindparam("organization"),
            full_name=bindparam("description"),
            folded=bindparam("folded"),
            is_admin=False,
            is_active=True,
            is_imported=False,
            created_at=now(),
        )
        .on_conflict_do_nothing(index_elements=["name"])
    )
)
_of_organization = and_(accounts.c.organization_id == bindparam("organization"), accounts.c.kind == "robot")
_robots = select(*ACCOUNT_COLUMNS, accounts.c.created_at).where(_of_organization)
_FIND = Statement(lambda: _robots.where(accounts.c.name == bindparam("name")))
_LOCK = Statement(lambda: _robots.where(accounts.c.name == bindparam("name")).with_for_update(key_share=True))
_LIST = Statement(
    lambda: (
        _robots.where(accounts.c.name >= bindparam("start"))
        .order_by(accounts.c.name)
        .limit(bindparam("limit", type_=BigInteger))
    )
)
_COUNT = Statement(lambda: select(func.count()).select_from(accounts).where(_of_organization))
_UPDATE = Statement(
    lambda: (
        update(accounts)
        .where(accounts.c.id == bindparam("which"))
        .values(
            full_name=bindparam("description"),
            folded=bindparam("folds"),
            is_active=bindparam("active", type_=Boolean),
        )
    )
)
_DELETE = Statement(lambda: delete(accounts).where(accounts.c.id == bindparam("which")))


class Robot(Struct, frozen=True):
    """A robot, whose description is its account's full name; `created_at` in milliseconds since 1970."""

    account: Account
    created_at: int

    @property
    def short_name(self) -> str:
        """What it is called in its organisation."""
        return self.account.name.partition(SEPARATOR)[2]


class Robots:
    """The robots of all organisations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, organization: Account, robot: str, *, description: str = "", by: Actor = SYSTEM
    ) -> Robot:
        """Make a robot. Raises NotAnOrganization, AccountUnknown, AccountNameInvalid, NameTaken."""
        _check_organization(organization)
        check_name(robot)
        _check_description(description)
        name = _name(organization, robot)
        number = new_id()

        async def work(tx: Transaction) -> Robot:
            made = await tx.execute(
                _INSERT,
                id=number,
                name=name,
                organization=organization.id,
                description=description,
                folded=folded(f"{name}\n{description}"),
            )
            row = await tx.fetch_one(_FIND, organization=organization.id, name=name)
            if row is None or row[0] != number:
                raise NameTaken(name)
            found = _robot(row)
            if made:
                await record(tx, _event("CREATE", found, by, kind="robot", full_name=description))
            return found

        try:
            return await self._database.unit(work)
        except ConstraintViolated:  # the organisation is gone meanwhile
            raise AccountUnknown(organization.name) from None

    async def list_robots(self, organization: Account, *, start: str = "", limit: int) -> list[Robot]:
        """At most `limit` robots of an organisation from the short name `start` on, by name."""
        _check_organization(organization)
        begin = _name(organization, start)
        rows = await self._database.fetch_all(_LIST, organization=organization.id, start=begin, limit=limit)
        return [_robot(row) for row in rows]

    async def count_robots(self, organization: Account) -> int:
        """How many robots an organisation has."""
        row = await self._database.fetch_one(_COUNT, organization=organization.id)
        return int(row[0]) if row else 0

    async def get(self, organization: Account, robot: str) -> Robot:
        """The robot of this short name. Raises NotAnOrganization, RobotUnknown."""
        _check_organization(organization)
        name = findable(_name(organization, robot))
        row = await self._database.fetch_one(_FIND, organization=organization.id, name=name)
        if row is None:
            raise RobotUnknown(organization.name, robot)
        return _robot(row)

    async def update(
        self,
        organization: Account,
        robot: str,
        *,
        description: str | None = None,
        is_active: bool | None = None,
        by: Actor = SYSTEM,
    ) -> Robot:
        """
        Describe a robot anew, switch it off or on again; None: that stays as it is.

        Raises NotAnOrganization, RobotUnknown.
        """
        _check_organization(organization)
        if description is not None:
            _check_description(description)
        given = {"full_name": description, "is_active": is_active}
        name = findable(_name(organization, robot))

        async def work(tx: Transaction) -> Robot:
            row = await tx.fetch_one(_LOCK, organization=organization.id, name=name)
            if row is None:
                raise RobotUnknown(organization.name, robot)
            before = _robot(row)
            changes = {
                key: value
                for key, value in given.items()
                if value is not None and value != getattr(before.account, key)
            }
            if not changes:
                return before
            account = replace(before.account, **changes)
            await tx.execute(
                _UPDATE,
                which=account.id,
                description=account.full_name,
                folds=folded(f"{account.name}\n{account.full_name}"),
                active=account.is_active,
            )
            after = replace(before, account=account)
            await record(tx, _event("UPDATE", after, by, **changes))
            return after

        return await self._database.unit(work)

    async def delete(self, organization: Account, robot: str, *, by: Actor = SYSTEM) -> None:
        """Remove a robot, its grants and tokens. Raises NotAnOrganization, RobotUnknown."""
        found = await self.get(organization, robot)

        async def work(tx: Transaction) -> None:
            if await tx.execute(_DELETE, which=found.account.id):
                await record(tx, _event("DELETE", found, by))

        await self._database.unit(work)


def _name(organization: Account, robot: str) -> str:
    return f"{organization.name}{SEPARATOR}{robot}"


def _check_organization(account: Account) -> None:
    if account.kind != "organization":
        raise NotAnOrganization(account.name)


def _check_description(description: str) -> None:
    if len(description) > _LONGEST_DESCRIPTION or "\0" in description:
        raise AccountNameInvalid(f"a description has at most {_LONGEST_DESCRIPTION} characters, and no NUL")


def _robot(row: Row) -> Robot:
    return Robot(account_of(row), row[len(ACCOUNT_COLUMNS)])


def _event(happened: EventType, robot: Robot, by: Actor, **content: object) -> Event:
    return Event(type=happened, actor=by, object=robot.account.as_object(json.dumps(content) if content else ""))
