"""
Finding tags among all of a repository: by parts of names, by digests, by what they are; in several orders.

All of it is done by the database, over all tags. A page begins with a tag, and with what that is ordered by, so it
begins there also when tags came or went. The orders by moments and versions walk along an index.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Text,
    and_,
    bindparam,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    tuple_,
)

from dtr.db import Statement, array_of, each, now, read_array
from dtr.db.schema import manifest_references, manifests, pulls, tags
from dtr.registry.versions import version_key
from dtr.signatures.signatures import is_signed, is_verified
from dtr.trust.index import is_named, signs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import ColumnElement, FromClause

    from dtr.db import Database

Trait: TypeAlias = Literal["signed", "unverified", "mismatched", "unsigned", "multiPlatform", "unpulled"]
"""
What tags can be.

`signed`: in content trust for what it names, or with a signature that is that of an identity; `unverified`: with
signatures of others only; `unsigned`: with none; `mismatched`: in content trust, but for something else;
`multiPlatform`: an index with images for several systems; `unpulled`: neither it nor what it names was pulled for
90 days, and it is that old.
"""
Order: TypeAlias = Literal["name", "newest", "version", "size", "pulled"]
"""`name` goes up, the others down: the highest version, the largest, and the last pulled come first."""

UNPULLED_DAYS = 90
_UNPULLED_MS = UNPULLED_DAYS * 86_400_000

_LARGEST = 2**62
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")
_repository = bindparam("repository", type_=BigInteger)
_limit = bindparam("limit", type_=BigInteger)
_found = tags.alias("found")
_child = manifests.alias("child")


class TagFilter(Struct, frozen=True, kw_only=True):
    """Which tags are asked for."""

    text: str = ""
    """A part of the name, whatever its case; or how a digest begins, of what a tag names or of an image in it."""
    traits: frozenset[Trait] = frozenset()
    """All of these."""
    attached: bool = False
    """Also tags that only hold what is attached to an image (``sha256-….sig``)."""

    def __post_init__(self) -> None:
        """Raise ValueError for a trait that there is not."""
        if not self.traits <= frozenset(get_args(Trait)):
            raise ValueError("there is no such trait")


class FoundTag(Struct, frozen=True):
    """A tag, and its place in the order that was asked for."""

    name: str
    place: str
    """What a page begins with that begins with this tag."""


class TagCounts(Struct, frozen=True):
    """How many tags a filter finds, how many of them have which trait, and how many hold what is attached."""

    total: int
    traits: dict[Trait, int]
    attached: int


class Aliases(Struct, frozen=True):
    """The tags that name something: the highest versions of them, the highest first, and how many there are."""

    names: list[str]
    total: int


class TagSearch:
    """Finds tags of all repositories."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self, repository: int, wanted: TagFilter, order: Order, *, start: str = "", limit: int
    ) -> list[FoundTag]:
        """At most `limit` tags, from the place `start` on. Raises ValueError for one that is none."""
        begins, has_start = _begins(order, start), bool(start)
        statement = _page(
            wanted.traits, order, text=_kind(wanted.text), attached=wanted.attached, starts=has_start
        )
        rows = await self._database.fetch_all(
            statement, repository=repository, limit=limit, **_texts(wanted.text), **(begins if has_start else {})
        )
        return [FoundTag(row[0], row[0] if order in _BY_NAME else f"{row[1]}/{row[0]}") for row in rows]

    async def total(self, repository: int, wanted: TagFilter) -> int:
        """How many there are, and nothing else."""
        statement = _total(wanted.traits, text=_kind(wanted.text), attached=wanted.attached)
        row = await self._database.fetch_one(statement, repository=repository, **_texts(wanted.text))
        return int(row[0]) if row else 0

    async def count(self, repository: int, wanted: TagFilter) -> TagCounts:
        """How many there are; the numbers of traits are of what the text alone finds."""
        statement = _counts(wanted.traits, text=_kind(wanted.text), attached=wanted.attached)
        row = await self._database.fetch_one(statement, repository=repository, **_texts(wanted.text))
        total, attached, *numbers = [int(one or 0) for one in row] if row else [0] * (2 + len(_TRAITS))
        return TagCounts(total, dict(zip(_TRAITS, numbers, strict=True)), attached)

    async def aliases(self, repository: int, digests: Iterable[str], *, most: int) -> dict[str, Aliases]:
        """The tags that name each of the digests; one query."""
        rows = await self._database.fetch_all(
            _ALIASES, repository=repository, digests=sorted(set(digests)), most=most
        )
        return {digest: Aliases(read_array(names), total) for digest, names, total in rows}


# --- conditions -----------------------------------------------------------------------------------------------

_is_attached = and_(  # as `companion_of` says
    _found.c.name >= "sha256-0",
    _found.c.name < "sha256-g",
    or_(
        func.length(_found.c.name) == 71,
        and_(
            func.length(_found.c.name).between(75, 76),
            or_(*(_found.c.name.endswith(one) for one in (".sig", ".att", ".sbom"))),
        ),
    ),
)
_is_old = _found.c.updated_at < now() - _UNPULLED_MS


def _pulled(reference: ColumnElement[str], *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(
        pulls.c.repository_id == _found.c.repository_id, pulls.c.reference == reference, *conditions
    )


_lately = pulls.c.last_pulled_at >= now() - _UNPULLED_MS
_LOOKED_UP: dict[str, ColumnElement[bool]] = {
    "in_trust": signs(_found.c.name, _found.c.manifest),
    "is_named": is_named(_found.c.name),
    "is_signed": is_signed(_found.c.manifest),
    "is_verified": is_verified(_found.c.manifest),
    "has_platforms": exists().where(
        manifests.c.repository_id == _found.c.repository_id,
        manifests.c.digest == _found.c.manifest,
        manifests.c.platforms > 1,
    ),
    "is_unpulled": and_(_is_old, ~_pulled(_found.c.name, _lately), ~_pulled(_found.c.manifest, _lately)),
}
# Of a case a planner makes no join: one that knows nothing of the tables yet could walk over them for each tag.
_FACTS = {name: case((fact, true()), else_=false()) for name, fact in _LOOKED_UP.items()}


def _traits(facts: Mapping[str, ColumnElement[bool]]) -> dict[Trait, ColumnElement[bool]]:
    in_trust, is_verified_ = facts["in_trust"], facts["is_verified"]
    return {
        "signed": or_(in_trust, is_verified_),
        "unverified": and_(facts["is_signed"], not_(in_trust), not_(is_verified_)),
        "mismatched": and_(facts["is_named"], not_(in_trust)),
        "unsigned": and_(not_(in_trust), not_(facts["is_signed"])),
        "multiPlatform": facts["has_platforms"],
        "unpulled": facts["is_unpulled"],
    }


_TRAITS = _traits(_FACTS)


_named, _by_name, _by_digest = manifests.alias("named"), pulls.alias("by_name"), pulls.alias("by_digest")
_zero = literal(0, BigInteger)
_size_of_image = (
    select(_child.c.content_size)
    .where(
        _child.c.repository_id == manifest_references.c.repository_id,
        _child.c.digest == manifest_references.c.target,
    )
    .scalar_subquery()
)
_size_of_images = (
    select(cast(func.sum(_size_of_image), BigInteger))
    .where(
        manifest_references.c.repository_id == _found.c.repository_id,
        manifest_references.c.manifest == _found.c.manifest,
        manifest_references.c.kind.concat("") == "manifest",  # not by an index over it
    )
    .scalar_subquery()
)


def _pulls(alias: FromClause, reference: ColumnElement[str]) -> ColumnElement[bool]:
    return and_(alias.c.repository_id == _found.c.repository_id, alias.c.reference == reference)


def _latest(one: ColumnElement[int | None], other: ColumnElement[int | None]) -> ColumnElement[int]:
    first, second = func.coalesce(one, _zero), func.coalesce(other, _zero)
    return case((first >= second, first), else_=second)


_ORDERS: dict[Order, tuple[FromClause, ColumnElement[Any]]] = {
    "newest": (_found, _found.c.updated_at),
    "version": (_found, _found.c.version_key),
    "size": (
        _found.outerjoin(
            _named,
            and_(_named.c.repository_id == _found.c.repository_id, _named.c.digest == _found.c.manifest),
        ),
        func.coalesce(_size_of_images, _named.c.content_size, _zero),
    ),
    "pulled": (
        _found.outerjoin(_by_name, _pulls(_by_name, _found.c.name)).outerjoin(
            _by_digest, _pulls(_by_digest, _found.c.manifest)
        ),
        _latest(_by_name.c.last_pulled_at, _by_digest.c.last_pulled_at),
    ),
}
_BY_NAME: frozenset[Order] = frozenset({"name", "version"})
"""The place in these follows from the name."""

_TextKind: TypeAlias = Literal["", "name", "digest"]


def _kind(text: str) -> _TextKind:
    text = _narrowed(text)
    if not text:
        return ""
    return "digest" if _DIGEST.fullmatch(text) else "name"


def _narrowed(text: str) -> str:
    """What of a name that was copied as a whole, ``registry/name:tag`` or ``name@digest``, is looked for."""
    text = text.strip().lower()
    if "@" in text:
        return text.rpartition("@")[2]
    return text if text.startswith("sha256:") else text.rpartition(":")[2]


def _texts(text: str) -> dict[str, str]:
    """The parameters of the conditions for a text."""
    kind, text = _kind(text), _narrowed(text)
    if not kind:
        return {}
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    found = {"pattern": f"%{escaped}%"}
    if kind == "digest":
        digest = f"sha256:{text.removeprefix('sha256:')}"
        found |= {"digest": digest, "behind": f"{digest}g"}
    return found


def _matches(kind: _TextKind) -> list[ColumnElement[bool]]:
    if not kind:
        return []
    in_name = func.lower(_found.c.name).like(bindparam("pattern", type_=Text), escape="\\")
    if kind == "name":
        return [in_name]
    first, behind = bindparam("digest", type_=Text), bindparam("behind", type_=Text)
    in_index = _found.c.manifest.in_(
        select(manifest_references.c.manifest).where(
            manifest_references.c.repository_id == _repository,
            manifest_references.c.kind == "manifest",
            manifest_references.c.target >= first,
            manifest_references.c.target < behind,
        )
    )
    return [or_(in_name, and_(_found.c.manifest >= first, _found.c.manifest < behind), in_index)]


def _conditions(text: _TextKind, *, attached: bool) -> list[ColumnElement[bool]]:
    return [_found.c.repository_id == _repository, *_matches(text), *(() if attached else (~_is_attached,))]


# --- statements -----------------------------------------------------------------------------------------------


def _begins(order: Order, start: str) -> dict[str, Any]:
    """The parameters of the place where a page begins. Raises ValueError."""
    if order == "name":
        return {"name": start}
    if order == "version":
        return {"name": start, "value": version_key(start)}
    value, slash, name = start.partition("/")
    if start and not (slash and value.isascii() and value.isdecimal() and int(value) < 2**63):
        raise ValueError("this is no place in the order")
    return {"name": name, "value": int(value or 0)}


@lru_cache(maxsize=512)
def _page(traits: frozenset[Trait], order: Order, *, text: _TextKind, attached: bool, starts: bool) -> Statement:
    conditions = [*_conditions(text, attached=attached), *(_TRAITS[one] for one in sorted(traits))]
    name = bindparam("name", type_=Text)
    if order == "name":
        query = select(_found.c.name).where(*conditions, *([_found.c.name >= name] if starts else []))
        return Statement(query.order_by(_found.c.name).limit(_limit))
    source, by = _ORDERS[order]
    if order in {"newest", "version"}:
        place = tuple_(by, _found.c.name) <= tuple_(bindparam("value", type_=by.type), name)
        query = select(_found.c.name, by).where(*conditions, *([place] if starts else []))
        return Statement(query.order_by(by.desc(), _found.c.name.desc()).limit(_limit))
    ordered = select(_found.c.name.label("name"), by.label("value")).select_from(source).where(*conditions)
    all_ = ordered.subquery("ordered")
    place = tuple_(all_.c.value, all_.c.name) <= tuple_(bindparam("value", type_=BigInteger), name)
    query = select(all_.c.name, all_.c.value).where(*([place] if starts else []))
    return Statement(query.order_by(all_.c.value.desc(), all_.c.name.desc()).limit(_limit))


@lru_cache(maxsize=128)
def _total(traits: frozenset[Trait], *, text: _TextKind, attached: bool) -> Statement:
    conditions = (*_conditions(text, attached=attached), *(_TRAITS[one] for one in sorted(traits)))
    return Statement(select(func.count()).select_from(_found).where(*conditions))


@lru_cache(maxsize=128)
def _counts(traits: frozenset[Trait], *, text: _TextKind, attached: bool) -> Statement:
    """The total, the attached, and each of the traits."""
    facts = [fact.label(name) for name, fact in _FACTS.items()]
    # The limit keeps planners from asking each fact as often as it is counted.
    found = select(*facts).where(*_conditions(text, attached=attached)).limit(_LARGEST).subquery("facts")
    known = _traits({name: found.c[name] for name in _FACTS})
    hidden = select(func.count()).select_from(_found).where(*_conditions(text, attached=True), _is_attached)

    def number(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
        return func.count(case((and_(True, *conditions), 1)))

    return Statement(
        select(
            number(*(known[one] for one in sorted(traits))),
            hidden.scalar_subquery(),
            *(number(one) for one in known.values()),
        ).select_from(found)
    )


_digests = each("digests")
_names_it = and_(tags.c.repository_id == _repository, tags.c.manifest == _digests.c.value)
_first_names = (
    select(tags.c.name)
    .where(_names_it)
    .order_by(tags.c.version_key.desc())  # and by nothing else, which would have all of them sorted
    .limit(bindparam("most", type_=BigInteger))
    .correlate(_digests)
)
_number_of_names = select(func.count()).select_from(tags).where(_names_it).correlate(_digests).scalar_subquery()
_ALIASES = Statement(lambda: select(_digests.c.value, array_of(_first_names), _number_of_names))
