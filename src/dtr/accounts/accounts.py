"""
Users and organisations.

Names of accounts are namespaces, hence the first part of repository names. Where a name is wanted, an id does as
well.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict, replace
from sqlalchemy import BigInteger, Boolean, bindparam, delete, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.access_tokens import AccessTokens
from dtr.accounts.errors import AccountInUse, AccountUnknown, LastAdministrator, NameTaken, NotAUser
from dtr.accounts.grants import Grants
from dtr.accounts.holdings import Holdings
from dtr.accounts.lists import AccountQuery
from dtr.accounts.logins import Logins
from dtr.accounts.organizations import Organizations
from dtr.accounts.passwords import Passwords
from dtr.accounts.public_keys import PublicKeys
from dtr.accounts.reasons import Reasons
from dtr.accounts.records import (
    ACCOUNT_COLUMNS,
    SHARED_ORGANIZATION,
    Account,
    AccountKind,
    account_of,
    check_name,
    findable,
    folded,
    is_id,
    new_id,
)
from dtr.accounts.robots import Robots
from dtr.accounts.sessions import END_ALL as END_SESSIONS
from dtr.accounts.sessions import SessionRules, Sessions
from dtr.accounts.standings import Standings
from dtr.accounts.user_settings import AllUserSettings
from dtr.db import ConstraintViolated, Statement, in_list, now
from dtr.db.schema import accounts, organization_members, repositories, tokens, usage, usage_deltas
from dtr.events import SYSTEM, Event, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dtr.db import Database, Transaction
    from dtr.events import Actor, EventType

_INSERT = Statement(
    lambda: (
        insert(accounts)
        .values(
            id=bindparam("id"),
            name=bindparam("name"),
            kind=bindparam("kind"),
            full_name=bindparam("full_name"),
            folded=bindparam("folded"),
            is_admin=bindparam("is_admin", type_=Boolean),
            is_active=bindparam("is_active", type_=Boolean),
            is_auditor=bindparam("is_auditor", type_=Boolean),
            is_imported=False,
            password_hash=bindparam("password_hash"),
            created_at=now(),
        )
        .on_conflict_do_nothing(index_elements=["name"])
    )
)
_JOIN_SHARED_ORGANIZATION = Statement(
    lambda: insert(organization_members).from_select(
        ["organization_id", "user_id", "is_admin"],
        select(accounts.c.id, bindparam("user"), literal(False)).where(
            accounts.c.name == SHARED_ORGANIZATION, accounts.c.kind == "organization"
        ),
    )
)
_FIND = Statement(lambda: select(*ACCOUNT_COLUMNS).where(accounts.c.name == bindparam("name")))
_FIND_BY_ID = Statement(lambda: select(*ACCOUNT_COLUMNS).where(accounts.c.id == bindparam("id")))
_LOCK = Statement(
    lambda: select(*ACCOUNT_COLUMNS).where(accounts.c.id == bindparam("id")).with_for_update(key_share=True)
)
_LOCK_ADMINISTRATORS = Statement(
    lambda: (
        select(accounts.c.id)
        .where(accounts.c.kind == "user", accounts.c.is_admin.is_(True), accounts.c.is_active.is_(True))
        .order_by(accounts.c.id)
        .with_for_update(key_share=True)
    )
)
_COUNT = Statement(
    lambda: select(accounts.c.kind, func.count()).where(accounts.c.kind != "robot").group_by(accounts.c.kind)
)
_IS_THERE_ONE = Statement(lambda: select(accounts.c.id).limit(1))
_SET_PASSWORD = Statement(
    lambda: (
        update(accounts)
        .where(accounts.c.id == bindparam("which"))
        .values(password_hash=bindparam("password_hash"), password_is_own=bindparam("own", type_=Boolean))
    )
)
_DETAILS = Statement(
    lambda: select(
        accounts.c.id, accounts.c.created_at, accounts.c.last_login_at, accounts.c.password_is_own
    ).where(in_list(accounts.c.id, "ids"))
)
_number_of_organization = func.row_number().over(
    partition_by=organization_members.c.user_id, order_by=accounts.c.name
)
_of_users = (
    select(
        organization_members.c.user_id,
        accounts.c.name,
        _number_of_organization.label("number"),
        func.count().over(partition_by=organization_members.c.user_id).label("count"),
    )
    .join_from(organization_members, accounts, organization_members.c.organization_id == accounts.c.id)
    .where(in_list(organization_members.c.user_id, "ids"))
    .subquery()
)
_ORGANIZATIONS = Statement(
    lambda: (
        select(_of_users.c.user_id, _of_users.c.name, _of_users.c.count)
        .where(_of_users.c.number <= bindparam("most", type_=BigInteger))
        .order_by(_of_users.c.user_id, _of_users.c.number)
    )
)
_CHANGE = Statement(
    lambda: (
        update(accounts)
        .where(accounts.c.id == bindparam("which"))
        .values(
            full_name=bindparam("new_full_name"),
            folded=bindparam("new_folded"),
            is_active=bindparam("active", type_=Boolean),
            is_admin=bindparam("admin", type_=Boolean),
            is_auditor=bindparam("auditor", type_=Boolean),
        )
    )
)
_DELETE = Statement(lambda: delete(accounts).where(accounts.c.id == bindparam("which")))
_FORGET_USAGE = tuple(
    Statement(delete(table).where(table.c.scope == bindparam("scope"))) for table in (usage_deltas, usage)
)
_OWNS_REPOSITORIES = Statement(
    lambda: (
        select(repositories.c.id)
        .where(repositories.c.namespace_id == bindparam("id"), repositories.c.deleted_at.is_(None))
        .limit(1)
    )
)
_END_TOKENS = Statement(
    lambda: delete(tokens).where(tokens.c.account_id == bindparam("account"), tokens.c.kind == bindparam("kind"))
)
_CHANGEABLE: Mapping[AccountKind, frozenset[str]] = {
    "user": frozenset({"full_name", "is_active", "is_admin", "is_auditor"}),
    "robot": frozenset({"full_name", "is_active"}),
    "organization": frozenset({"full_name"}),
}


class Counts(Struct, frozen=True):
    """How many accounts there are."""

    users: int
    organizations: int


class Details(Struct, frozen=True):
    """What is not everybody's business of an account; times in milliseconds since 1970."""

    created_at: int
    last_login_at: int | None
    """When its password was shown last, to the minute; None: never."""
    password_is_own: bool
    """The user set the password, and nobody else."""
    organizations: tuple[str, ...]
    """The first of those that the user is in, by name."""
    organizations_count: int
    """How many organisations the user is in."""


class Accounts:
    """All accounts, and what belongs to them."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords | None = None,
        session_rules: Callable[[], SessionRules] = SessionRules,
    ) -> None:
        """`session_rules` gives the rules of the moment."""
        self._database = database
        self._passwords = passwords or Passwords()
        self.logins = Logins(database, self._passwords)
        self.sessions = Sessions(database, session_rules)
        self.tokens = AccessTokens(database, self)
        self.public_keys = PublicKeys(database, self)
        self.organizations = Organizations(database, self)
        self.robots = Robots(database)
        self.grants = Grants(database)
        self.holdings = Holdings(database)
        self.user_settings = AllUserSettings(database)
        self.standings = Standings(database)
        self.reasons = Reasons(database)

    async def create_user(
        self,
        name: str,
        password: str | None,
        *,
        full_name: str = "",
        is_admin: bool = False,
        is_active: bool = True,
        is_auditor: bool = False,
        by: Actor = SYSTEM,
    ) -> str:
        """
        Make a user, a member of the shared organisation if there is one; its id.

        Raises AccountNameInvalid, NameTaken, PasswordInvalid.
        """
        check_name(name)
        hashed = None if password is None else await self._passwords.hash(password)
        made = Account(new_id(), name, "user", full_name, is_admin, is_active, is_auditor)
        return await self._create(made, hashed, by)

    async def create_organization(self, name: str, *, full_name: str = "", by: Actor = SYSTEM) -> str:
        """Make an organisation; its id. Raises AccountNameInvalid, NameTaken."""
        check_name(name)
        made = Account(new_id(), name, "organization", full_name, is_admin=False, is_active=True)
        return await self._create(made, None, by)

    async def find(self, name: str) -> Account | None:
        """The account of this name or id."""
        if is_id(name):
            row = await self._database.fetch_one(_FIND_BY_ID, id=name)
        else:
            row = await self._database.fetch_one(_FIND, name=findable(name))
        return account_of(row) if row else None

    async def get(self, name: str, kind: AccountKind | None = None) -> Account:
        """The account of this name or id (and kind). Raises AccountUnknown."""
        found = await self.find(name)
        if found is None or kind not in {None, found.kind}:
            raise AccountUnknown(name)
        return found

    async def list_accounts(self, query: AccountQuery | None = None, *, limit: int) -> list[Account]:
        """At most `limit` accounts, from where the query starts."""
        query = query or AccountQuery()
        rows = await self._database.fetch_all(query.statement, limit=limit, **query.parameters)
        return [account_of(row) for row in rows]

    async def count_accounts(self, query: AccountQuery) -> int:
        """How many accounts a list has in all."""
        parameters = query.parameters
        given = {"pattern": parameters["pattern"]} if "pattern" in parameters else {}
        row = await self._database.fetch_one(query.count, **given)
        return int(row[0]) if row else 0

    async def details(self, found: Iterable[Account], *, organizations: int = 3) -> dict[str, Details]:
        """The details of accounts, by id, in two queries; of each so many `organizations` at most."""
        ids = [one.id for one in found]
        if not ids:
            return {}
        names: dict[str, list[str]] = {}
        counts: dict[str, int] = {}
        for user, name, count in await self._database.fetch_all(_ORGANIZATIONS, ids=ids, most=organizations):
            names.setdefault(user, []).append(name)
            counts[user] = int(count)
        return {
            number: Details(
                created_at, last_login_at, bool(is_own), tuple(names.get(number, ())), counts.get(number, 0)
            )
            for number, created_at, last_login_at, is_own in await self._database.fetch_all(_DETAILS, ids=ids)
        }

    async def count(self) -> Counts:
        """How many users and organisations there are."""
        found = {kind: int(number) for kind, number in await self._database.fetch_all(_COUNT)}
        return Counts(found.get("user", 0), found.get("organization", 0))

    async def is_empty(self) -> bool:
        """Whether there is no account at all: the first start."""
        return await self._database.fetch_one(_IS_THERE_ONE) is None

    async def set_password(self, name: str, password: str, *, by: Actor = SYSTEM) -> None:
        """Give a user a new password; what log-ins left behind ends. Raises AccountUnknown, PasswordInvalid."""
        user = await self.get(name, "user")
        hashed = await self._passwords.hash(password)

        async def work(tx: Transaction) -> None:
            if not await tx.execute(_SET_PASSWORD, which=user.id, password_hash=hashed, own=by.id == user.id):
                raise AccountUnknown(name)
            await _end_logins(tx, user)
            await record(tx, _event("UPDATE", user, by, {"password": "new"}))

        await self._database.unit(work)

    async def update(
        self,
        name: str,
        *,
        full_name: str | None = None,
        is_active: bool | None = None,
        is_admin: bool | None = None,
        is_auditor: bool | None = None,
        by: Actor = SYSTEM,
    ) -> Account:
        """
        Change of an account what is not None; how it is then.

        Who is no longer active has no sessions any more. Raises AccountUnknown, NotAUser, LastAdministrator.
        """
        account = await self.get(name)
        wanted: dict[str, Any] = {
            "full_name": full_name,
            "is_active": is_active,
            "is_admin": is_admin,
            "is_auditor": is_auditor,
        }
        given = {key: value for key, value in wanted.items() if value is not None}
        if not given.keys() <= _CHANGEABLE[account.kind]:
            raise NotAUser(account.name)

        async def work(tx: Transaction) -> Account:
            administrators = await _lock_administrators(tx) if False in given.values() else []
            row = await tx.fetch_one(_LOCK, id=account.id)
            if row is None:
                raise AccountUnknown(name)
            before = account_of(row)
            after = replace(before, **given)
            if after == before:
                return before
            if not (after.is_admin and after.is_active) and administrators == [before.id]:
                raise LastAdministrator(before.name)
            await tx.execute(
                _CHANGE,
                which=after.id,
                new_full_name=after.full_name,
                new_folded=_folded(after),
                active=after.is_active,
                admin=after.is_admin,
                auditor=after.is_auditor,
            )
            if not after.is_active:
                await _end_logins(tx, after)
            old, new = asdict(before), asdict(after)
            await record(tx, _event("UPDATE", after, by, {key: new[key] for key in given if new[key] != old[key]}))
            return after

        return await self._database.unit(work)

    async def delete(self, name: str, *, by: Actor = SYSTEM) -> None:
        """
        Remove an account, its teams, grants and tokens.

        Raises AccountUnknown, AccountInUse, LastAdministrator.
        """
        account = await self.get(name)

        async def work(tx: Transaction) -> None:
            if await _lock_administrators(tx) == [account.id]:
                raise LastAdministrator(account.name)
            if await tx.fetch_one(_OWNS_REPOSITORIES, id=account.id):
                raise AccountInUse(account.name)
            if await tx.execute(_DELETE, which=account.id):
                await record(tx, _event("DELETE", account, by))
            for statement in _FORGET_USAGE:
                await tx.execute(statement, scope=f"namespace:{account.id}")

        try:
            await self._database.unit(work)
        except ConstraintViolated:  # a repository was made meanwhile
            raise AccountInUse(account.name) from None

    async def _create(self, account: Account, password_hash: str | None, by: Actor) -> str:
        async def work(tx: Transaction) -> None:
            if await tx.execute(
                _INSERT,
                id=account.id,
                name=account.name,
                kind=account.kind,
                full_name=account.full_name,
                folded=_folded(account),
                is_admin=account.is_admin,
                is_active=account.is_active,
                is_auditor=account.is_auditor,
                password_hash=password_hash,
            ):
                if account.kind == "user":
                    await tx.execute(_JOIN_SHARED_ORGANIZATION, user=account.id)
                facts = {"kind": account.kind, "full_name": account.full_name, "is_admin": account.is_admin}
                await record(tx, _event("CREATE", account, by, facts))
            elif not await tx.fetch_one(_FIND_BY_ID, id=account.id):  # not made when the unit ran before
                raise NameTaken(account.name)

        await self._database.unit(work)
        return account.id


async def _lock_administrators(tx: Transaction) -> list[str]:
    """The ids of the active administrators, of whom nobody else takes one away meanwhile."""
    return [row[0] for row in await tx.fetch_all(_LOCK_ADMINISTRATORS)]


async def _end_logins(tx: Transaction, user: Account) -> None:
    """End what log-ins with the password left behind."""
    await tx.execute(_END_TOKENS, account=user.id, kind="refresh")
    await tx.execute(END_SESSIONS, account=user.id)


def _folded(account: Account) -> str:
    return folded(f"{account.name}\n{account.full_name}")


def _event(kind: EventType, account: Account, by: Actor, content: Mapping[str, object] | None = None) -> Event:
    return Event(type=kind, actor=by, object=account.as_object(json.dumps(content) if content else ""))
