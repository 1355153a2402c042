"""
Lists of repositories, filtered and sorted by what is known of each, and always of all that somebody sees.

What is filtered and sorted by stands in narrow rows of its own, `repository_summaries`, which a database reads
through in some milliseconds, however many filters there are. Those that were pushed to last, which everybody sees
first, are in an index, with all that says who sees them. Where a repository is and who sees it changes there
in the transaction that changes it (`add`, `change`, `move`, `remove`). What it holds follows some seconds later,
when the usage of the repository is added up (`refresh`): whoever changes that counts something, or says so
(`touch` of `dtr.registry.usage`). What is shown of a repository is read anew (`Summaries.details`), hence exact.

The latest tag of a repository is the one that was moved last; tags by which signatures and the like are found
without referrers are none (`companion_of`), and do not count.
"""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Boolean,
    Text,
    and_,
    bindparam,
    cast,
    delete,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts import folded
from dtr.accounts.visibility import asking, sees
from dtr.db import Statement, in_list, now
from dtr.db.schema import (
    accounts,
    manifests,
    repositories,
    repository_summaries,
    signatures,
    tags,
    trust_targets,
    usage,
)
from dtr.db.texts import says, text_parameters
from dtr.oci import artifact_kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement

    from dtr.accounts import Accounts, TokenScope
    from dtr.accounts.visibility import View
    from dtr.db import Database, Row, Transaction
    from dtr.oci import ArtifactKind

RepositoryOrder: TypeAlias = Literal["name", "pushed", "size", "pulls"]
"""By path; or the last push, the largest, the most pulled first."""
RepositoryKind: TypeAlias = Literal[
    "image", "helm chart", "sbom", "signature", "attestation", "plugin", "app", "wasm", "artifact"
]
"""What the latest tag of a repository names: an index is an image for several systems."""
KINDS: tuple[RepositoryKind, ...] = get_args(RepositoryKind)

_SHORTEST_PART = 3
_DAY_MS = 86_400_000
_COMPANION_LENGTHS = (71, 75, 76)
"""``sha256-`` and 64 digits, alone or with ``.sig`` or ``.att``, or with ``.sbom``."""

_summary = repository_summaries.c
_access = (_summary.repository_id, _summary.namespace_id, _summary.visibility, _summary.path)
_repository = bindparam("repository", type_=BigInteger)
_limit = bindparam("limit", type_=BigInteger)
_is_no_companion = or_(
    func.substr(tags.c.name, 1, 7) != "sha256-",
    and_(*(func.length(tags.c.name) != length for length in _COMPANION_LENGTHS)),
)

# --- where it is, and who sees it -----------------------------------------------------------------------------

_ADD = Statement(
    lambda: insert(repository_summaries).from_select(
        ["repository_id", "namespace_id", "visibility", "path"],
        select(
            repositories.c.id, repositories.c.namespace_id, repositories.c.visibility, repositories.c.path
        ).where(repositories.c.id == _repository),
    )
)
_CHANGE = Statement(
    lambda: (
        update(repository_summaries)
        .where(_summary.repository_id == _repository)
        .values(visibility=bindparam("visibility_now"))
    )
)
_MOVE = Statement(
    lambda: (
        update(repository_summaries)
        .where(_summary.repository_id == _repository)
        .values(path=bindparam("new_path"), namespace_id=bindparam("new_namespace"))
    )
)
_REMOVE = Statement(lambda: delete(repository_summaries).where(in_list(_summary.repository_id, "ids")))


async def add(tx: Transaction, repository: int) -> None:
    """There is a new repository."""
    await tx.execute(_ADD, repository=repository)


async def change(tx: Transaction, repository: int, visibility: str) -> None:
    """A repository has this visibility now."""
    await tx.execute(_CHANGE, repository=repository, visibility_now=visibility)


async def move(tx: Transaction, repository: int, path: str, namespace: str) -> None:
    """A repository has this path now, in the namespace of this id."""
    await tx.execute(_MOVE, repository=repository, new_path=path, new_namespace=namespace)


async def remove(tx: Transaction, repositories_: list[int]) -> None:
    """These repositories are deleted."""
    await tx.execute(_REMOVE, ids=repositories_)


# --- what it holds --------------------------------------------------------------------------------------------

_latest = (
    select(tags.c.name)
    .where(tags.c.repository_id == _summary.repository_id, _is_no_companion)
    .order_by(tags.c.updated_at.desc(), tags.c.name.desc())
    .limit(1)
    .correlate(repository_summaries)
    .scalar_subquery()
)
_named = tags.alias("named")
_is_signed = or_(
    exists().where(
        trust_targets.c.repository_id == _named.c.repository_id,
        trust_targets.c.name == _named.c.name,
        trust_targets.c.digest == _named.c.manifest,
        trust_targets.c.forgotten_at.is_(None),
    ),
    exists().where(
        signatures.c.repository_id == _named.c.repository_id,
        signatures.c.subject == _named.c.manifest,
        signatures.c.kind == "signature",
        signatures.c.problem == "",
    ),
)
_LATEST = Statement(
    lambda: (
        select(
            _summary.repository_id,
            _named.c.name,
            _named.c.manifest,
            _named.c.author,
            _named.c.updated_at,
            manifests.c.media_type,
            manifests.c.artifact_type,
            manifests.c.config_media_type,
            manifests.c.annotations,
            _is_signed,
            usage.c.bytes,
            usage.c.pulls,
            usage.c.pushed_at,
        )
        .select_from(repository_summaries)
        .outerjoin(_named, and_(_named.c.repository_id == _summary.repository_id, _named.c.name == _latest))
        .outerjoin(
            manifests,
            and_(manifests.c.repository_id == _named.c.repository_id, manifests.c.digest == _named.c.manifest),
        )
        .outerjoin(usage, usage.c.scope == literal("repository:").concat(cast(_summary.repository_id, Text)))
        .where(in_list(_summary.repository_id, "ids"))
    )
)
_COUNT_TAGS = Statement(
    lambda: (
        select(tags.c.repository_id, func.count())
        .where(in_list(tags.c.repository_id, "ids"), _is_no_companion)
        .group_by(tags.c.repository_id)
    )
)
_REFRESH = Statement(
    lambda: (
        update(repository_summaries)
        .where(_summary.repository_id == bindparam("which", type_=BigInteger))
        .values(
            latest_tag=bindparam("tag_now"),
            kind=bindparam("kind_now"),
            is_signed=bindparam("signed_now", type_=Boolean),
            bytes=bindparam("bytes_now", type_=BigInteger),
            pulls=bindparam("pulls_now", type_=BigInteger),
            pushed_at=bindparam("pushed_now", type_=BigInteger),
        )
    )
)


async def refresh(tx: Transaction, ids: Iterable[int]) -> None:
    """
    Write down what repositories hold now, as far as their usage is added up.

    Two that do so for the same repository have to wait for each other before: the later one reads more.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return
    rows = await tx.fetch_all(_LATEST, ids=wanted)
    await tx.execute_many(_REFRESH, [_told_of(row) for row in sorted(rows, key=lambda row: row[0])])


def _told_of(row: Row) -> dict[str, object]:
    repository, name, *_, is_signed, size, pulls, pushed_at = row
    return {
        "which": repository,
        "tag_now": name or "",
        "kind_now": _kind(row) if name is not None else "",
        "signed_now": bool(is_signed),
        "bytes_now": size or 0,
        "pulls_now": pulls or 0,
        "pushed_now": pushed_at or 0,
    }


def _kind(row: Row) -> RepositoryKind:
    """What a row of `_LATEST` names, as far as its media types tell."""
    media_type, artifact_type, config, annotations = row[5:9]
    if media_type is None:  # the tag went between two looks at it
        return "artifact"
    kind: ArtifactKind = artifact_kind(
        media_type,
        artifact_type=artifact_type,
        config=config,
        annotations=json.loads(annotations) if annotations else {},
    )
    return "image" if kind == "index" else kind


# --- lists ----------------------------------------------------------------------------------------------------


class RepositoryQuery(Struct, frozen=True, kw_only=True):
    """Which repositories, and in which order; None and empty: whatever they are."""

    namespace: str | None = None
    """The id of the account that owns them."""
    text: str = ""
    """A part of path or description, in whatever case; of one or two letters: how path or name begin."""
    visibility: Literal["public", "private"] | None = None
    kind: RepositoryKind | None = None
    is_signed: bool | None = None
    """What the latest tag names; one without tags is not."""
    pushed_within: int | None = None
    """Days."""
    not_pushed_for: int | None = None
    """Days; one that nobody ever pushed to is meant, too."""
    order: RepositoryOrder = "name"


class LatestTag(Struct, frozen=True, kw_only=True):
    """The tag of a repository that was moved last; `updated_at` in milliseconds since 1970 UTC."""

    name: str
    digest: str
    author: str
    updated_at: int
    kind: RepositoryKind
    is_signed: bool
    """In content trust, or by an artifact that can be verified."""


class Details(Struct, frozen=True, kw_only=True):
    """What a repository holds."""

    tags: int = 0
    latest: LatestTag | None = None


class Summaries:
    """Lists of repositories, for those who may see them."""

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._database = database
        self._accounts = accounts

    async def list_repositories(
        self,
        account: str | None,
        query: RepositoryQuery,
        *,
        scope: TokenScope | None = None,
        start: str = "",
        limit: int,
    ) -> list[tuple[int, str]]:
        """
        At most `limit` repositories that the account (None: anonymous) may see: ids and markers.

        The page begins with the repository of the marker `start`, or where it would be. Takes two queries.
        """
        return (await self._page(account, query, scope, start, limit, counts=False))[0]

    async def list_and_count(
        self,
        account: str | None,
        query: RepositoryQuery,
        *,
        scope: TokenScope | None = None,
        start: str = "",
        limit: int,
    ) -> tuple[list[tuple[int, str]], int]:
        """The same, and how many there are on all pages. Takes two or three queries."""
        # To look for a text takes longer than all else: it is done once. To carry the number through all rows
        # takes longer than to count them.
        if query.text and not _begin(query, start):
            return await self._page(account, query, scope, start, limit, counts=True)
        rows, _ = await self._page(account, query, scope, start, limit, counts=False)
        return rows, await self.count(account, query, scope=scope)

    async def count(self, account: str | None, query: RepositoryQuery, *, scope: TokenScope | None = None) -> int:
        """How many `list_repositories` lists in the end. Takes two queries."""
        if not query.text.isprintable():
            return 0
        view = await self._accounts.standings.view(account)
        row = await self._database.fetch_one(
            _count(view, scope is not None, *_shape(query)), **asking(account, scope), **_parameters(query)
        )
        return int(row[0]) if row else 0

    async def _page(
        self,
        account: str | None,
        query: RepositoryQuery,
        scope: TokenScope | None,
        start: str,
        limit: int,
        *,
        counts: bool,
    ) -> tuple[list[tuple[int, str]], int]:
        if not query.text.isprintable():
            return [], 0
        view = await self._accounts.standings.view(account)
        begin = _begin(query, start)
        rows = await self._database.fetch_all(
            _page(view, scope is not None, *_shape(query), query.order, bool(begin), counts),
            limit=limit,
            **asking(account, scope),
            **_parameters(query),
            **begin,
        )
        by_path = query.order == "name"
        found = [(number, path if by_path else f"{key}/{path}") for number, path, key, _ in rows]
        return found, int(rows[0][3]) if rows else 0

    async def list_owners(
        self, account: str | None, *, scope: TokenScope | None = None, limit: int
    ) -> tuple[list[tuple[str, int]], int]:
        """
        The accounts that own most of the repositories that somebody may see, and how many; and of all, how many.

        By name. Takes two queries.
        """
        view = await self._accounts.standings.view(account)
        rows = await self._database.fetch_all(
            _owners(view, scope is not None), limit=limit, **asking(account, scope)
        )
        return sorted((row[0], row[1]) for row in rows), int(rows[0][2]) if rows else 0

    async def details(self, ids: Iterable[int]) -> dict[int, Details]:
        """What repositories hold, by id; two queries."""
        wanted = sorted(set(ids))
        if not wanted:
            return {}
        counts = {row[0]: row[1] for row in await self._database.fetch_all(_COUNT_TAGS, ids=wanted)}
        rows = await self._database.fetch_all(_LATEST, ids=wanted)
        return {row[0]: Details(tags=counts.get(row[0], 0), latest=_latest_of(row)) for row in rows}


def _latest_of(row: Row) -> LatestTag | None:
    _, name, digest, author, updated_at, *_, is_signed, _, _, _ = row
    if name is None:
        return None
    return LatestTag(
        name=name,
        digest=digest,
        author=author,
        updated_at=updated_at,
        kind=_kind(row),
        is_signed=bool(is_signed),
    )


_Text: TypeAlias = Literal["", "beginning", "part"]


def _shape(query: RepositoryQuery) -> tuple[bool, _Text, bool, bool, bool | None, bool, bool]:
    """What of a query the text of its statement depends on."""
    return (
        query.namespace is not None,
        "" if not query.text else "beginning" if len(query.text) < _SHORTEST_PART else "part",
        query.visibility is not None,
        query.kind is not None,
        query.is_signed,
        query.pushed_within is not None,
        query.not_pushed_for is not None,
    )


def _wanted(
    view: View,
    scoped: bool,
    in_namespace: bool,
    text: _Text,
    of_visibility: bool,
    of_kind: bool,
    is_signed: bool | None,
    pushed_within: bool,
    not_pushed_for: bool,
) -> list[ColumnElement[bool]]:
    """The conditions of a list, with the parameters of `asking` and `_parameters`."""
    wanted: list[ColumnElement[bool]] = [sees(view, *_access, scoped=scoped)]
    if in_namespace:
        wanted.append(_summary.namespace_id == bindparam("namespace"))
    if text == "part":
        wanted.append(says(_summary.repository_id))
    if text == "beginning":
        begins = (_summary.path.like(bindparam(name), escape="\\") for name in ("beginning", "name_beginning"))
        wanted.append(or_(*begins))
    if of_visibility:
        wanted.append(_summary.visibility == bindparam("of_visibility"))
    if of_kind:
        wanted.append(_summary.kind == bindparam("of_kind"))
    if is_signed is not None:
        wanted.append(_summary.is_signed.is_(is_signed))
    if pushed_within:
        wanted.append(_summary.pushed_at >= now() - bindparam("within", type_=BigInteger))
    if not_pushed_for:
        wanted.append(_summary.pushed_at < now() - bindparam("before", type_=BigInteger))
    return wanted


@cache
def _count(view: View, scoped: bool, *shape: Any) -> Statement:
    """How many fit."""
    return Statement(select(func.count()).select_from(repository_summaries).where(*_wanted(view, scoped, *shape)))


@cache
def _page(view: View, scoped: bool, *shape: Any) -> Statement:
    """
    Of those that fit, by the order, at most `limit` from `start` (and `key`) on: id, path, key, and how many fit.

    The last three of the `shape` are the order, whether there is a start, and whether they are counted.
    """
    *filters, order, starts, counts = shape
    wanted = _wanted(view, scoped, *filters)
    key = _KEYS.get(order)
    _, text, _, of_kind, is_signed, _, _ = filters
    if key is not None and (text or of_kind or is_signed is not None):
        key += literal_column("0", BigInteger)  # the index of the order does not say which fit: it is not walked
    if starts:
        at_path = _summary.path >= bindparam("start")
        if key is None:
            wanted.append(at_path)
        else:
            wanted += [key <= _key_now, or_(key < _key_now, at_path)]
    return Statement(
        select(
            _summary.repository_id,
            _summary.path,
            _summary.pulls if key is None else key,
            func.count().over() if counts else literal(0, BigInteger),
        )
        .where(*wanted)
        .order_by(*([] if key is None else [key.desc()]), _summary.path)
        .limit(_limit)
    )


@cache
def _owners(view: View, scoped: bool) -> Statement:
    owned = func.count().label("owned")
    total = cast(func.sum(func.count()).over(), BigInteger).label("total")
    found = (
        select(_summary.namespace_id, owned, total)
        .where(sees(view, *_access, scoped=scoped))
        .group_by(_summary.namespace_id)
        .order_by(owned.desc(), _summary.namespace_id)
        .limit(_limit)
        .subquery("found")
    )
    return Statement(
        select(accounts.c.name, found.c.owned, found.c.total).join_from(
            found, accounts, accounts.c.id == found.c.namespace_id
        )
    )


_KEYS: dict[str, ColumnElement[int]] = {
    "pushed": _summary.pushed_at,
    "size": _summary.bytes,
    "pulls": _summary.pulls,
}
_key_now = bindparam("key", type_=BigInteger)


def _begin(query: RepositoryQuery, start: str) -> dict[str, Any]:
    """The parameters of where a page begins; none: at the beginning, also for a marker that is none."""
    if query.order == "name":
        return {"start": start} if start else {}
    key, _, path = start.partition("/")
    return {"key": int(key), "start": path} if key.isdecimal() and len(key) < 19 else {}


def _parameters(query: RepositoryQuery) -> dict[str, Any]:
    text = folded(query.text)
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return {
        "namespace": query.namespace,
        "of_visibility": query.visibility,
        "of_kind": query.kind,
        "within": _DAY_MS * (query.pushed_within or 0),
        "before": _DAY_MS * (query.not_pushed_for or 0),
        "beginning": f"{escaped}%",
        "name_beginning": f"%/{escaped}%",
        **text_parameters(text),
    }
