"""Lists of accounts: which of them, in which order, and where a page begins. Rules and statements without I/O."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct
from sqlalchemy import BigInteger, ColumnElement, and_, bindparam, func, or_, select, true, tuple_

from dtr.accounts.records import ACCOUNT_COLUMNS, Account, findable, folded
from dtr.db import Statement
from dtr.db.schema import accounts

if TYPE_CHECKING:
    from collections.abc import Mapping

AccountFilter: TypeAlias = Literal[
    "all", "users", "orgs", "admins", "non-admins", "auditors", "active-users", "inactive-users", "robots"
]
"""Which accounts; robots are in no list but their own."""
AccountOrder: TypeAlias = Literal["name", "fullName"]

MemberFilter: TypeAlias = Literal["all", "admins", "non-admins"]
"""Which members of an organisation or a team."""
MemberOrder: TypeAlias = Literal["id", "name"]

_is_user = accounts.c.kind == "user"
_FILTERS: Mapping[AccountFilter, ColumnElement[bool]] = {
    "all": or_(_is_user, accounts.c.kind == "organization"),
    "users": _is_user,
    "orgs": accounts.c.kind == "organization",
    "admins": and_(_is_user, accounts.c.is_admin.is_(True)),
    "non-admins": and_(_is_user, accounts.c.is_admin.is_(False)),
    "auditors": and_(_is_user, accounts.c.is_auditor.is_(True)),
    "active-users": and_(_is_user, accounts.c.is_active.is_(True)),
    "inactive-users": and_(_is_user, accounts.c.is_active.is_(False)),
    "robots": accounts.c.kind == "robot",
}


class AccountQuery(Struct, frozen=True, kw_only=True):
    """A list of accounts."""

    filter: AccountFilter = "all"
    order: AccountOrder = "name"
    descending: bool = False
    contains: str = ""
    """A part of name or full name, in whatever case; empty: any."""
    start: str = ""
    """Where the page begins: `marker` of its first record; empty: at the beginning."""

    def marker(self, account: Account) -> str:
        """
        What names an account as the first record of a page.

        That is its name; where full names come first, they do here, too, so that the place is known even when the
        account is gone: ``Ada Lovelace/ada``.
        """
        return account.name if self.order == "name" else f"{account.full_name}/{account.name}"

    @property
    def statement(self) -> Statement:
        """Reads `ACCOUNT_COLUMNS`, with `parameters` and a `limit`."""
        return _statement(self.filter, self.order, self.descending, bool(self.contains), bool(self.start))

    @property
    def count(self) -> Statement:
        """Counts the whole list; its parameter is `pattern`, of those of `parameters`."""
        return _count(self.filter, bool(self.contains))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of `statement`."""
        given: dict[str, Any] = {}
        if self.contains:
            given["pattern"] = pattern_of(self.contains)
        if self.start and self.order == "name":
            given["start"] = findable(self.start)
        elif self.start:
            full_name, slash, name = self.start.rpartition("/")
            given |= {"start_full": full_name if slash else name, "start": findable(name) if slash else ""}
        return given


class MemberQuery(Struct, frozen=True, kw_only=True):
    """A list of members of an organisation or team, or of the organisations of a user."""

    filter: MemberFilter = "all"
    order: MemberOrder = "id"
    contains: str = ""
    """A part of name or full name, in whatever case; empty: any."""
    start: str = ""
    """Where the page begins: id or name, as the order is; empty: at the beginning."""

    def marker(self, account: Account) -> str:
        """What names an account as the first record of a page."""
        return account.name if self.order == "name" else account.id


@cache
def _statement(
    which: AccountFilter, order: AccountOrder, descending: bool, contains: bool, starts: bool
) -> Statement:
    by_name = order == "name"
    keys = [accounts.c.name] if by_name else [accounts.c.full_name, accounts.c.name]
    begin: list[ColumnElement[str]] = [bindparam("start")]
    if not by_name:
        begin.insert(0, bindparam("start_full"))
    here = tuple_(*keys) <= tuple_(*begin) if descending else tuple_(*keys) >= tuple_(*begin)
    return Statement(
        select(*ACCOUNT_COLUMNS)
        .where(
            _FILTERS[which],
            accounts.c.folded.like(bindparam("pattern"), escape="\\") if contains else true(),
            here if starts else true(),
        )
        .order_by(*(key.desc() if descending else key for key in keys))
        .limit(bindparam("limit", type_=BigInteger))
    )


@cache
def _count(which: AccountFilter, contains: bool) -> Statement:
    return Statement(
        select(func.count())
        .select_from(accounts)
        .where(_FILTERS[which], accounts.c.folded.like(bindparam("pattern"), escape="\\") if contains else true())
    )


def pattern_of(part: str) -> str:
    """A pattern of what contains this part, for texts that are `folded`; it is escaped by a backslash."""
    escaped = folded(part).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
