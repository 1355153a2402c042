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
from dtr.db.texts import has_text

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
WHO = Statement(lambda: select(_asker.c.is_admin, _asker.c.is_auditor).where(_is_asker))
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
MANAGED: CompoundSelect[Any] = union(
    select(accounts.c.id.label("namespace_id")).where(accounts.c.id == _me),
    select(organization_members.c.organization_id).where(
        organization_members.c.user_id == _me, organization_members.c.is_admin.is_(True)
    ),
    select(namespace_grants.c.namespace_id)
    .join_from(team_members, namespace_grants, namespace_grants.c.team_id == team_members.c.team_id)
    .where(team_members.c.user_id == _me, namespace_grants.c.level == "admin"),
    select(namespace_user_grants.c.namespace_id).where(
        namespace_user_grants.c.user_id == _me, namespace_user_grants.c.level == "admin"
    ),
)
"""The ids of the namespaces in which the `account` may make repositories, unless it is an administrator."""
GRANTED: CompoundSelect[Any] = union(
    select(repository_grants.c.repository_id)
    .join_from(team_members, repository_grants, repository_grants.c.team_id == team_members.c.team_id)
    .where(team_members.c.user_id == _me),
    select(repository_user_grants.c.repository_id).where(repository_user_grants.c.user_id == _me),
)
"""The ids of the repositories that the `account` was granted by themselves."""

_prefixes = each("scope_prefixes")


def _in_scope(path: ColumnElement[str]) -> ColumnElement[bool]:
    return or_(
        bindparam("unscoped", type_=Boolean),
        in_list(path, "scope_paths"),
        exists(
            select(1)
            .select_from(_prefixes)
            .where(func.substr(path, 1, func.length(_prefixes.c.value)) == _prefixes.c.value)
            .correlate_except(_prefixes)
        ),
    )


IN_SCOPE = _in_scope(repositories.c.path)
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


def sees(
    view: View,
    number: ColumnElement[int],
    namespace: ColumnElement[str],
    visibility: ColumnElement[str],
    path: ColumnElement[str],
    *,
    scoped: bool,
) -> ColumnElement[bool]:
    """
    `VISIBLE` for whoever has the view, as a condition on these columns of another table.

    Paths are only looked at for a token that is `scoped`: indexes need not have them.
    """
    is_public = visibility == "public"
    in_scope = _in_scope(path) if scoped else true()
    if view == "public":
        return is_public
    if view == "all":
        return or_(is_public, in_scope)
    return or_(is_public, and_(in_scope, or_(namespace.in_(SPACES), number.in_(GRANTED))))


def asking(account: str | None, scope: TokenScope | None = None) -> dict[str, Any]:
    """The parameters of `VISIBLE`: an account's id (None: anonymous), and what the token it showed is good for."""
    reads = scope is not None and Action.PULL in scope.actions
    return {
        "account": account or "",
        "unscoped": scope is None,
        "scope_paths": scope.paths if scope and reads else [],
        "scope_prefixes": scope.prefixes if scope and reads else [],
    }


def bounds(scope: TokenScope | None, *, start: str = "", after: str = "", end: str = AFTER_ALL) -> dict[str, Any]:
    """
    The parameters `start` and `end`, `own_start` and `own_end` of the statements of pages and counts.

    A page begins with the path `start`, or behind the path `after`, and ends before the path `end`. Beside public
    repositories it ends where the scope does.
    """
    begin = max(start, after + _BEHIND if after else "")
    ends = [*scope.paths, *scope.prefixes] if scope else [""]
    return {
        "start": begin,
        "end": end,
        "own_start": max(begin, min(ends)),
        "own_end": min(end, AFTER_ALL if scope is None else max(ends) + AFTER_ALL),
    }


_there = repositories.c.deleted_at.is_(None)
_limit = bindparam("limit", type_=BigInteger)
_namespace: ColumnElement[str] = repositories.c.namespace_id
_path: ColumnElement[str] = repositories.c.path
PATH_NOT_INDEXED = _path.concat("")
"""The path in a form that no index serves: the repositories are found by something else."""


def own_range(path: ColumnElement[str]) -> ColumnElement[bool]:
    """What of the repositories that are not public is within the `bounds`."""
    return and_(path >= bindparam("own_start"), path < bindparam("own_end"))


def pieces(
    view: View,
    *,
    public: ColumnElement[bool],
    own: ColumnElement[bool],
    granted: ColumnElement[bool],
    order: tuple[ColumnElement[Any], ...],
    in_namespace: bool,
) -> CompoundSelect[Any]:
    """
    The columns id and path, and those of `order`, of what the `account` sees: of each place the first `limit`.

    The conditions say which of them: of the `public` ones; of its `own`, namespace by namespace; of those that
    were `granted` by themselves, where no index is to be used but that of the ids.
    """
    columns = tuple(dict.fromkeys((repositories.c.id, _path, *order)))
    inside = _inside(_namespace, in_namespace=in_namespace)

    def piece(visibility: str, wanted: ColumnElement[bool], *conditions: ColumnElement[bool]) -> Select[Any]:
        if isinstance(wanted, has_text):  # which says by their ids which they are, and how many
            unindexed = repositories.c.visibility.concat("") == visibility
            return select(*columns).where(_there, unindexed, wanted, *conditions, inside)
        indexed = repositories.c.visibility == visibility
        return select(*columns).where(_there, indexed, wanted, *conditions, inside).order_by(*order).limit(_limit)

    found = [piece("public", public)]
    if view == "all":
        found.append(piece("private", own, IN_SCOPE))
    if view == "some":
        spaces = SPACES.subquery("spaces")
        of_space = (
            select(repositories.c.id)
            .where(
                _there, _namespace == spaces.c.namespace_id, repositories.c.visibility == "private", own, IN_SCOPE
            )
            .order_by(_path)  # in a namespace names have the same order
            .limit(_limit)
            .correlate(spaces)
        )
        there = repositories.alias("there")
        found.append(
            select(*(there.c[str(column.key)] for column in columns))
            .select_from(spaces)
            .join(there, in_query(there.c.id, of_space))
            .where(_inside(spaces.c.namespace_id, in_namespace=in_namespace))
        )
        found.append(select(*columns).where(*_granted(granted, in_namespace=in_namespace)))
    return union(*(select(one.subquery()) for one in found))


@cache
def page_statement(view: View, *, in_namespace: bool) -> Statement:
    """
    At most `limit` repositories, ids and paths, by path.

    Its parameters are those of `asking` and `bounds`, and, `in_namespace`, the id `namespace`.
    """
    page = pieces(
        view,
        public=and_(_path >= bindparam("start"), _path < bindparam("end")),
        own=own_range(_path),
        granted=own_range(PATH_NOT_INDEXED),
        order=(_path,),
        in_namespace=in_namespace,
    ).subquery("page")
    return Statement(select(page.c.id, page.c.path).order_by(page.c.path).limit(_limit))


@cache
def count_statement(view: View, *, in_namespace: bool, scoped: bool) -> Statement:
    """
    How many the pages of `page_statement` have in all, with its parameters but `limit`.

    Where everything is counted (not `scoped`), no paths are compared: that takes longer than counting.
    """
    inside = _inside(_namespace, in_namespace=in_namespace)
    is_public = repositories.c.visibility == "public"
    if view == "all" and not scoped:
        return Statement(_count(_there, inside))
    counts = [_count(_there, is_public, inside)]
    if view == "all":
        is_private = repositories.c.visibility == "private"
        counts.append(_count(_there, is_private, own_range(_path), IN_SCOPE, inside))
    if view == "some":
        is_private = repositories.c.visibility.concat("") == "private"  # the index is that of the namespace
        in_spaces = _namespace.in_(SPACES)
        counts.append(_count(_there, is_private, own_range(PATH_NOT_INDEXED), IN_SCOPE, inside, in_spaces))
        granted = _granted(own_range(PATH_NOT_INDEXED), in_namespace=in_namespace)
        counts.append(_count(*granted, ~in_spaces))
    counted = union_all(*counts).subquery("counted")
    return Statement(select(func.sum(counted.c.count)))


def _granted(wanted: ColumnElement[bool], *, in_namespace: bool) -> tuple[ColumnElement[bool], ...]:
    """Those that were granted by themselves, are not public, and are `wanted`; found by their ids."""
    inside = _inside(_namespace.concat(""), in_namespace=in_namespace)
    is_private = repositories.c.visibility.concat("") == "private"
    return (_there, is_private, wanted, IN_SCOPE, inside, repositories.c.id.in_(GRANTED))


def _inside(column: ColumnElement[str], *, in_namespace: bool) -> ColumnElement[bool]:
    return column == bindparam("namespace", type_=Text) if in_namespace else true()


def _count(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(func.count().label("count")).select_from(repositories).where(*conditions)
