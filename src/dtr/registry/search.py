"""
Searching for repositories: the best matches first, and nothing that the one who asks must not see.

Best is a name that is, then one that begins with what was asked for; then a path that begins with it, hence a
namespace; then one that has it anywhere; then a description that has it. Each is looked for in an index of its own
(`dtr.db.texts`), and only as long as there are too few. Words of one or two letters are looked for at beginnings.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import BigInteger, and_, bindparam, select

from dtr.accounts import AccountQuery, folded
from dtr.accounts.visibility import (
    AFTER_ALL,
    PATH_NOT_INDEXED,
    asking,
    bounds,
    own_range,
    page_statement,
    pieces,
)
from dtr.db import Statement
from dtr.db.schema import repositories
from dtr.db.texts import has_text, text_parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement

    from dtr.accounts import Account, Accounts, TokenScope
    from dtr.accounts.visibility import View
    from dtr.db import Database

_SHORTEST_PART = 3
_limit = bindparam("limit", type_=BigInteger)


@cache
def _names(view: View) -> Statement:
    """Names between `text` and `text_end`, by name."""

    def within(name: ColumnElement[str]) -> ColumnElement[bool]:
        return and_(name >= bindparam("text"), name < bindparam("text_end"))

    name: ColumnElement[str] = repositories.c.name
    in_bounds = own_range(PATH_NOT_INDEXED)
    found = pieces(
        view,
        public=within(name),
        own=and_(within(name if view == "all" else name.concat("")), in_bounds),
        granted=and_(within(name.concat("")), in_bounds),
        order=(name, repositories.c.path),
        in_namespace=False,
    ).subquery("found")
    return Statement(select(found.c.id).order_by(found.c.name, found.c.path).limit(_limit))


@cache
def _parts(view: View, column: Literal["path", "folded"], *, in_namespace: bool, scoped: bool) -> Statement:
    """Paths or descriptions that have the text anywhere, by path."""
    walked = repositories.c[column].like(bindparam("pattern"), escape="\\")
    found = pieces(
        view,
        public=walked if in_namespace else has_text(column, "public"),
        own=(
            has_text(column, "private")
            if view == "all" and not in_namespace and not scoped
            else and_(walked, own_range(repositories.c.path))
        ),
        granted=and_(walked, own_range(PATH_NOT_INDEXED)),
        order=(repositories.c.path,),
        in_namespace=in_namespace,
    ).subquery("found")
    return Statement(select(found.c.id).order_by(found.c.path).limit(_limit))


class Search:
    """Finds repositories."""

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._database = database
        self._accounts = accounts

    async def find_repositories(
        self,
        text: str,
        account: str | None,
        *,
        scope: TokenScope | None = None,
        namespace: Account | None = None,
        limit: int,
    ) -> list[int]:
        """
        The ids of at most `limit` repositories that the account may see, the best matches first.

        `namespace` is the account whose repositories are meant; None: all. Takes at most five queries.
        """
        text = folded(text.strip())
        if not text.isprintable():
            return []
        view = await self._accounts.standings.view(account)
        found: dict[int, None] = {}
        for statement, parameters in _steps(text, view, scope, namespace):
            rows = await self._database.fetch_all(
                statement,
                limit=limit,
                namespace=namespace.id if namespace else None,
                **asking(account, scope),
                **parameters,
            )
            found |= dict.fromkeys(row[0] for row in rows)
            if len(found) >= limit:
                break
        return list(found)[:limit]

    async def find_accounts(self, text: str, *, limit: int) -> list[Account]:
        """Users and organisations, the best first: names that are or begin so, then parts of both names."""
        text = folded(text.strip())
        beginning = await self._accounts.list_accounts(AccountQuery(start=text), limit=limit)
        found = {one.id: one for one in beginning if one.name.startswith(text)}
        if len(found) < limit:
            others = await self._accounts.list_accounts(AccountQuery(contains=text), limit=limit)
            found |= {one.id: one for one in others if one.id not in found}
        return list(found.values())[:limit]


def _steps(
    text: str, view: View, scope: TokenScope | None, namespace: Account | None
) -> Iterator[tuple[Statement, dict[str, Any]]]:
    """What to ask for, the best first: statements and their parameters."""
    everything = bounds(scope)
    in_namespace = namespace is not None
    if namespace is None:
        yield _names(view), everything | {"text": text, "text_end": text + AFTER_ALL}
    beginning = f"{namespace.name}/{text}" if namespace else text
    beginnings = bounds(scope, start=beginning, end=beginning + AFTER_ALL)
    yield page_statement(view, in_namespace=in_namespace), beginnings
    if len(text) < _SHORTEST_PART:
        return
    parts = everything | text_parameters(text)
    columns: tuple[Literal["path", "folded"], ...] = ("path", "folded")
    for column in columns:
        yield _parts(view, column, in_namespace=in_namespace, scoped=scope is not None), parts
