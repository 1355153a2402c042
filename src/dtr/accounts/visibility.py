"""
Which repositories of all somebody sees: the rule of `may`, for lists.

What an account sees beside the public repositories comes from few places: whole namespaces (`SPACES`: its own,
those that it owns, those that it was granted) and single repositories (`GRANTED`). They are known without looking
at anything that it does not see. `VISIBLE` says so as a condition for any statement. A page of the list is put
together from an ordered, indexed piece of each place, so that it costs what is on it, whatever else there is.

A test holds this and `may` together.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Text,
    and_,
    bindparam,
    exists,
    func,
    or_,
    select,
    true,
    union,
    union_all,
)

from dtr.accounts.permissions import Action
from dtr.db import Statement, each, in_list, in_query
from dtr.db.schema import (
    accounts,
    namespace_grants,
    namespace_user_grants,
    organization_members,
    repositories,
    repository_grants,
    repository_user_grants,
    team_members,
)

if TYPE_CHECKING:
    from sqlalchemy import CompoundSelect, Select

    from dtr.accounts.permissions import TokenScope

View: TypeAlias = Literal["public", "some", "all"]
"""What somebody sees: what everybody does, some of the others, all."""

AFTER_ALL = "\U0010ffff"
"""Behind every path."""
_BEHIND = "\x01"
"""Behind a path, and before every other one that comes after it."""

_me = bindparam("account", type_=Text)
_asker = accounts.alias("asker")
_is_asker = and_(_asker.c.id == _me, _asker.c.is_active.is_(True))
WHO = Statement(select(_asker.c.is_admin, _asker.c.is_auditor).where(_is_asker))
"""Whether the `account` is an administrator, and an auditor; no row: it is nobody."""

SPACES: CompoundSelect[Any] = union(
    select(accounts.c.id.label("namespace_id")).where(accounts.c.id == _me),
    select(organization_members.c.organization_id).where(
        organization_members.c.user_id == _me, organization_members.c.is_admin.is_(True)
    ),
    select(namespace_grants.c.namespace_id)
    .join_from(team_members, namespace_grants, namespace_grants.c.team_id == team_members.c.team_id)
    .where(team_members.c.user_id == _me),
    select(namespace_user_grants.c.namespace_id).where(namespace_user_grants.c.user_id == _me),
)
"""The ids of the namespaces of which the `account` sees everything."""
GRANTED: CompoundSelect[Any] = union(
    select(repository_grants.c.repository_id)
    .join_from(team_members, repository_grants, repository_grants.c.team_id == team_members.c.team_id)
    .where(team_members.c.user_id == _me),
    select(repository_user_grants.c.repository_id).where(repository_user_grants.c.user_id == _me),
)
"""The ids of the repositories that the `account` was granted by themselves."""

_prefixes = each("scope_prefixes")
IN_SCOPE = or_(
    bindparam("unscoped", type_=Boolean),
    in_list(repositories.c.path, "scope_paths"),
    exists(
        select(1)
        .select_from(_prefixes)
        .where(func.substr(repositories.c.path, 1, func.length(_prefixes.c.value)) == _prefixes.c.value)
        .correlate(repositories)
    ),
)
"""A condition on `repositories`: the token that was shown is good for it."""


def _readable(*, by_auditors: bool) -> ColumnElement[bool]:
    """The rule of `may` as a condition on `repositories`: who may see, or (not `by_auditors`) pull."""
    everywhere = or_(_asker.c.is_admin, _asker.c.is_auditor) if by_auditors else _asker.c.is_admin
    return or_(
        repositories.c.visibility == "public",
        and_(
            IN_SCOPE,
            exists().where(_is_asker),
            or_(
                exists().where(_is_asker, everywhere),
                repositories.c.namespace_id.in_(SPACES),
                repositories.c.id.in_(GRANTED),
            ),
        ),
    )


VISIBLE = _readable(by_auditors=True)
"""A condition on `repositories`, for statements with the parameters of `asking`."""
PULLABLE = _readable(by_auditors=False)


def asking(account: str | None, scope: TokenScope | None = None) -> dict[str, Any]:
    """The parameters of `VISIBLE`: an account's id (None: anonymous), and what the token it showed is good for."""
    reads = scope is not None and Action.PULL in scope.actions
    return {
        "account": account or "",
        "unscoped": scope is None,
        "scope_paths": scope.paths if scope and reads else [],
        "scope_prefixes": scope.prefixes if scope and reads else [],
    }


def bounds(scope: TokenScope | None, *, start: str = "", after: str = "") -> dict[str, Any]:
    """
    The parameters `start`, `own_start` and `own_end` of the statements of pages and counts.

    A page begins with the path `start`, or behind the path `after`. Beside public repositories it ends where the
    scope does.
    """
    begin = max(start, after + _BEHIND if after else "")
    ends = [*scope.paths, *scope.prefixes] if scope else [""]
    return {
        "start": begin,
        "own_start": max(begin, min(ends)),
        "own_end": AFTER_ALL if scope is None else max(ends) + AFTER_ALL,
    }


_there = repositories.c.deleted_at.is_(None)
_public = and_(_there, repositories.c.visibility == "public", repositories.c.path >= bindparam("start"))


def _private(visibility: ColumnElement[str], path: ColumnElement[str]) -> ColumnElement[bool]:
    here = and_(path >= bindparam("own_start"), path < bindparam("own_end"))
    return and_(_there, visibility == "private", here, IN_SCOPE)


_own = _private(repositories.c.visibility, repositories.c.path)
# No index serves this form: the repositories are found by what was granted.
_granted = and_(
    _private(repositories.c.visibility.concat(""), repositories.c.path.concat("")), repositories.c.id.in_(GRANTED)
)
_limit = bindparam("limit", type_=BigInteger)
_namespace: ColumnElement[str] = repositories.c.namespace_id


@cache
def page_statement(view: View, *, in_namespace: bool) -> Statement:
    """
    At most `limit` repositories, ids and paths, by path.

    Its parameters are those of `asking` and `bounds`, and, `in_namespace`, the id `namespace`.
    """
    inside = _inside(_namespace, in_namespace=in_namespace)
    pieces = [_piece(_public, inside)]
    if view == "all":
        pieces.append(_piece(_own, inside))
    if view == "some":
        spaces = SPACES.subquery("spaces")
        of_space = (
            select(repositories.c.id)
            .where(repositories.c.namespace_id == spaces.c.namespace_id, _own)
            .order_by(repositories.c.path)
            .limit(_limit)
            .correlate(spaces)
        )
        found = repositories.alias("found")
        pieces.append(
            select(found.c.id, found.c.path)
            .select_from(spaces)
            .join(found, in_query(found.c.id, of_space))
            .where(_inside(spaces.c.namespace_id, in_namespace=in_namespace))
        )
        pieces.append(
            select(repositories.c.id, repositories.c.path).where(
                _granted, _inside(_namespace.concat(""), in_namespace=in_namespace)
            )
        )
    page = union(*(select(piece.subquery()) for piece in pieces)).subquery("page")
    return Statement(select(page.c.id, page.c.path).order_by(page.c.path).limit(_limit))


@cache
def count_statement(view: View, *, in_namespace: bool) -> Statement:
    """How many the pages of `page_statement` have in all, with its parameters but `limit`."""
    inside = _inside(_namespace, in_namespace=in_namespace)
    counts = [_count(_public, inside)]
    if view == "all":
        counts.append(_count(_own, inside))
    if view == "some":
        in_spaces = repositories.c.namespace_id.in_(SPACES)
        counts.append(_count(_own, inside, in_spaces))
        counts.append(_count(_granted, _inside(_namespace.concat(""), in_namespace=in_namespace), ~in_spaces))
    pieces = union_all(*counts).subquery("pieces")
    return Statement(select(func.sum(pieces.c.count)))


def _inside(column: ColumnElement[str], *, in_namespace: bool) -> ColumnElement[bool]:
    return column == bindparam("namespace", type_=Text) if in_namespace else true()


def _piece(*conditions: ColumnElement[bool]) -> Select[Any]:
    return (
        select(repositories.c.id, repositories.c.path)
        .where(*conditions)
        .order_by(repositories.c.path)
        .limit(_limit)
    )


def _count(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(func.count().label("count")).select_from(repositories).where(*conditions)
