"""
Searching for repositories and tags: the best matches first, and nothing that the one who asks must not see.

Best is a name that is, then one that begins with what was asked for; then a path that begins with it, hence a
namespace; then one that has it anywhere; then a description that has it. Each is looked for in an index of its own
(`dtr.db.texts`), and only as long as there are too few. Words of one or two letters are looked for at beginnings.

Tags are found as people name images: ``repository:tag``, each of them in part, with or without the address of a
registry before it; or by a digest or its beginning, of a manifest or of what it names: config and layers.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from sqlalchemy import BigInteger, and_, bindparam, func, or_, select

from dtr.accounts import AccountQuery, folded
from dtr.accounts.visibility import (
    AFTER_ALL,
    PATH_NOT_INDEXED,
    VISIBLE,
    asking,
    bounds,
    own_range,
    page_statement,
    pieces,
)
from dtr.db import Statement, in_list
from dtr.db.schema import manifest_references, manifests, repositories, repository_blobs, tags
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


_DIGEST = re.compile(r"(?:(sha256|sha512):)?([0-9a-f]{6,128})")
_HOLDERS_LOOKED_AT = 1_000
"""Of a digest: it may be in every repository that there is."""
_REPOSITORIES_LOOKED_AT = 25

_from: ColumnElement[str] = bindparam("digest")
_to: ColumnElement[str] = bindparam("digest_end")
_tagged = (
    select(func.min(tags.c.name))
    .where(tags.c.repository_id == manifests.c.repository_id, tags.c.manifest == manifests.c.digest)
    .correlate(manifests)
    .scalar_subquery()
)
_holders = (
    select(manifests.c.repository_id, manifests.c.digest)
    .where(manifests.c.digest >= _from, manifests.c.digest < _to)
    .order_by(manifests.c.digest, manifests.c.repository_id)
    .limit(_HOLDERS_LOOKED_AT)
    .subquery("holders")
)
_BY_DIGEST = Statement(
    lambda: (
        select(repositories.c.id, repositories.c.path, _tagged, manifests.c.digest)
        .join_from(_holders, repositories, repositories.c.id == _holders.c.repository_id)
        .join(
            manifests,
            and_(manifests.c.repository_id == _holders.c.repository_id, manifests.c.digest == _holders.c.digest),
        )
        .where(repositories.c.deleted_at.is_(None), VISIBLE)
        .order_by(manifests.c.digest, repositories.c.path)
        .limit(_limit)
    )
)
_links = (
    select(repository_blobs.c.repository_id, repository_blobs.c.digest)
    .where(repository_blobs.c.digest >= _from, repository_blobs.c.digest < _to)
    .order_by(repository_blobs.c.digest)
    .limit(_HOLDERS_LOOKED_AT)
    .subquery("links")
)
_BY_BLOB = Statement(
    lambda: (
        select(repositories.c.id, repositories.c.path, _tagged, manifests.c.digest)
        .join_from(_links, repositories, repositories.c.id == _links.c.repository_id)
        .join(
            manifest_references,
            and_(
                manifest_references.c.repository_id == _links.c.repository_id,
                manifest_references.c.kind == "blob",
                manifest_references.c.target == _links.c.digest,
            ),
        )
        .join(
            manifests,
            and_(
                manifests.c.repository_id == manifest_references.c.repository_id,
                manifests.c.digest == manifest_references.c.manifest,
            ),
        )
        .where(repositories.c.deleted_at.is_(None), VISIBLE)
        .order_by(repositories.c.path, manifests.c.created_at.desc())
        .limit(_limit)
    )
)
_BY_NAME = Statement(
    lambda: (
        select(repositories.c.id, repositories.c.path, tags.c.name, tags.c.manifest)
        .join_from(tags, repositories, repositories.c.id == tags.c.repository_id)
        .where(
            in_list(tags.c.repository_id, "ids"),
            tags.c.name >= bindparam("tag"),
            or_(tags.c.name < bindparam("tag_end"), tags.c.name == bindparam("tag")),
            repositories.c.deleted_at.is_(None),
        )
        .order_by(tags.c.name, repositories.c.path)
        .limit(_limit)
    )
)


class FoundTag(Struct, frozen=True):
    """An image that was found: in which repository, by a tag (empty: it has none), and its digest."""

    repository: int
    path: str
    tag: str
    digest: str


class Search:
    """Finds repositories, and what is in them."""

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

    async def find_tags(
        self, text: str, account: str | None, *, scope: TokenScope | None = None, limit: int
    ) -> list[FoundTag]:
        """
        At most `limit` images that the account may see: by ``repository:tag``, or by a digest.

        What is a digest and found as one is not looked for otherwise. Takes at most seven queries.
        """
        text = text.strip()
        if not text.isprintable():
            return []
        asked = asking(account, scope)
        digest = _DIGEST.fullmatch(text.rpartition("@")[2].lower())
        if digest is not None:
            begin = f"{digest[1] or 'sha256'}:{digest[2]}"
            bounds_ = {"digest": begin, "digest_end": begin + AFTER_ALL}
            for statement in (_BY_DIGEST, _BY_BLOB):
                rows = await self._database.fetch_all(statement, limit=limit, **bounds_, **asked)
                if rows:
                    return [FoundTag(number, path, tag or "", found) for number, path, tag, found in rows]
        name, colon, tag = text.rpartition(":")
        if not name or not colon or "/" in tag:
            return []
        host, slash, rest = name.partition("/")
        if slash and ("." in host or ":" in host):  # a registry's address
            name = rest
        ids = await self.find_repositories(name, account, scope=scope, limit=_REPOSITORIES_LOOKED_AT)
        found = await self._database.fetch_all(_BY_NAME, ids=ids, tag=tag, tag_end=tag + AFTER_ALL, limit=limit)
        place = {number: place for place, number in enumerate(ids)}
        rows = sorted(found, key=lambda row: (row[2] != tag, place[row[0]]))
        return [FoundTag(*row) for row in rows]

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
