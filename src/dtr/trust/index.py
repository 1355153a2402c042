"""
What content trust signs, as others ask for it: by repository, with one indexed query.

A target of a collection is a tag here, and its digest that of a manifest. A tag is signed when any role of any
collection of its repository names it, whatever the registry's tag names now: clients that verify signatures follow
the collection. What an administrator told to be forgotten does not count.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, and_, bindparam, case, exists, func, or_, select, update

from dtr.db import Statement, in_list, now
from dtr.db.schema import repositories, trust_files, trust_roles, trust_targets
from dtr.events import SYSTEM, Actor, Event, Object, record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement

    from dtr.db import Database, Transaction
    from dtr.trust.files import Signed

RELEASES = "targets/releases"
"""The role that docker's clients publish tags in, whoever signs them."""

_MOST_SIGNATURES = 50
"""Of a tag: more are not shown. Those of the roles that clients follow come first."""

_repository = bindparam("repository", type_=BigInteger)
_counts = and_(trust_targets.c.repository_id == _repository, trust_targets.c.forgotten_at.is_(None))
_counts_named = and_(
    in_list(trust_targets.c.name, "names", within=(trust_targets.c.repository_id, _repository)),
    trust_targets.c.forgotten_at.is_(None),
)

_SIGNED_AMONG = Statement(lambda: select(trust_targets.c.name).where(_counts_named).distinct())
_FIRST_SIGNED = Statement(
    lambda: (
        select(trust_targets.c.repository_id)
        .where(in_list(trust_targets.c.repository_id, "repositories"), trust_targets.c.forgotten_at.is_(None))
        .limit(1)
    )
)
_FIRST_SIGNED_OF_NAMESPACE = Statement(
    lambda: (
        select(repositories.c.path)
        .join(trust_targets, trust_targets.c.repository_id == repositories.c.id)
        .where(
            repositories.c.namespace_id == bindparam("namespace"),
            repositories.c.deleted_at.is_(None),
            trust_targets.c.forgotten_at.is_(None),
        )
        .limit(1)
    )
)
_is_followed = or_(trust_targets.c.role == RELEASES, trust_targets.c.role == "targets")
_signatures = (
    select(
        trust_targets.c.name,
        trust_targets.c.gun,
        trust_targets.c.role,
        trust_targets.c.digest,
        trust_targets.c.signed_at,
        func.row_number()
        .over(
            partition_by=trust_targets.c.name,
            order_by=(case((_is_followed, 0), else_=1), trust_targets.c.gun, trust_targets.c.role),
        )
        .label("place"),
    )
    .where(_counts_named)
    .subquery()
)
_SIGNATURES = Statement(
    lambda: (
        select(*(one for one in _signatures.c if one.name != "place"))
        .where(_signatures.c.place <= _MOST_SIGNATURES)
        .order_by(_signatures.c.name, _signatures.c.gun, _signatures.c.role)
    )
)
_FORGET = Statement(
    lambda: (
        update(trust_targets)
        .where(_counts, trust_targets.c.name == bindparam("which"))
        .values(forgotten_at=now())
        .returning(trust_targets.c.gun, trust_targets.c.digest)
    )
)
_LOCK = Statement(
    lambda: select(repositories.c.id).where(repositories.c.id == _repository).with_for_update(key_share=True)
)
_COLLECTIONS = Statement(
    lambda: (
        select(
            trust_roles.c.gun,
            trust_roles.c.role,
            trust_roles.c.version,
            trust_roles.c.expires_at,
            trust_files.c.created_at,
        )
        .join(
            trust_files,
            and_(
                trust_files.c.repository_id == trust_roles.c.repository_id,
                trust_files.c.gun == trust_roles.c.gun,
                trust_files.c.role == trust_roles.c.role,
                trust_files.c.version == trust_roles.c.version,
            ),
        )
        .where(trust_roles.c.repository_id == _repository)
        .order_by(trust_roles.c.gun, trust_roles.c.role)
        .limit(10_000)
    )
)
_COUNTS = Statement(
    lambda: (
        select(trust_targets.c.gun, trust_targets.c.role, func.count(), func.count(trust_targets.c.forgotten_at))
        .where(trust_targets.c.repository_id == _repository)
        .group_by(trust_targets.c.gun, trust_targets.c.role)
    )
)


class TargetSignature(Struct, frozen=True, kw_only=True):
    """A role of a collection signs a digest under the name of a tag, since so many milliseconds after 1970 UTC."""

    tag: str
    gun: str
    role: str
    digest: str
    signed_at: int

    @property
    def signer(self) -> str:
        """What docker calls the signer whose role it is; empty: it is nobody's in particular."""
        return "" if self.role in {"targets", RELEASES} else self.role.removeprefix("targets/")

    @property
    def host(self) -> str:
        """The address of the server in the name of the collection."""
        return self.gun.partition("/")[0]


class CollectionRole(Struct, frozen=True, kw_only=True):
    """A role of a collection: its current file, when that was stored and expires, and the tags in it."""

    name: str
    version: int
    stored_at: int
    expires_at: int
    tags: int
    forgotten: int
    """So many of the tags do not count."""


class CollectionRecord(Struct, frozen=True):
    """What a repository has signed under one of the server's names."""

    gun: str
    roles: tuple[CollectionRole, ...]

    @property
    def host(self) -> str:
        """The address of the server in its name."""
        return self.gun.partition("/")[0]


def is_signed_as(signatures: Sequence[TargetSignature], digest: str) -> bool:
    """
    Whether one of the collections that name a tag leads clients to this digest.

    docker looks for a tag in the role `targets/releases`, then in `targets`; other roles only say who agrees, but
    where these two say nothing, they are all that there is.
    """
    return any(_leads_to(list(found), digest) for _, found in groupby(signatures, lambda one: one.gun))


_stronger = trust_targets.alias("stronger")


def _rank(role: ColumnElement[str]) -> ColumnElement[int]:
    return case((role == RELEASES, 0), (role == "targets", 1), else_=2)


def signs(name: ColumnElement[str], digest: ColumnElement[str]) -> ColumnElement[bool]:
    """What `is_signed_as` says, as a condition on a tag of `name` that names `digest`; parameter `repository`."""
    is_overruled = exists().where(
        _stronger.c.repository_id == trust_targets.c.repository_id,
        _stronger.c.name == trust_targets.c.name,
        _stronger.c.gun.concat("") == trust_targets.c.gun,  # not by the index over it: a tag has few signatures
        _stronger.c.forgotten_at.is_(None),
        _rank(_stronger.c.role) < _rank(trust_targets.c.role),
    )
    return exists().where(_counts, trust_targets.c.name == name, trust_targets.c.digest == digest, ~is_overruled)


def is_named(name: ColumnElement[str]) -> ColumnElement[bool]:
    """A condition: something is signed under `name`; parameter `repository`."""
    return exists().where(_counts, trust_targets.c.name == name)


def _leads_to(signatures: list[TargetSignature], digest: str) -> bool:
    by_role = {one.role: one.digest for one in signatures}
    followed = next((by_role[role] for role in (RELEASES, "targets") if role in by_role), None)
    return digest in by_role.values() if followed is None else digest == followed


# --- for units of work of others ------------------------------------------------------------------------------


async def signed_among(tx: Transaction, repository: int, names: list[str]) -> set[str]:
    """Those of the names under which content trust signs something in a repository."""
    return {row[0] for row in await tx.fetch_all(_SIGNED_AMONG, repository=repository, names=names)}


async def first_signed(tx: Transaction, among: list[int]) -> int | None:
    """One of the repositories in which something is signed; None: there is none."""
    row = await tx.fetch_one(_FIRST_SIGNED, repositories=among)
    return None if row is None else int(row[0])


async def first_signed_of(tx: Transaction, namespace: str) -> str | None:
    """The path of a repository of an account, by its id, in which something is signed."""
    row = await tx.fetch_one(_FIRST_SIGNED_OF_NAMESPACE, namespace=namespace)
    return None if row is None else str(row[0])


# --- for everybody --------------------------------------------------------------------------------------------


class TrustIndex:
    """What is signed in all repositories."""

    def __init__(self, database: Database, *, signed: Signed | None = None) -> None:
        self._database = database
        self._signed = signed

    async def signatures(self, repository: int, names: Iterable[str]) -> dict[str, list[TargetSignature]]:
        """Who signed what under these names of tags, by tag, at most 50 of each; one query."""
        rows = await self._database.fetch_all(_SIGNATURES, repository=repository, names=sorted(set(names)))
        found: defaultdict[str, list[TargetSignature]] = defaultdict(list)
        for name, gun, role, digest, signed_at in rows:
            found[name].append(TargetSignature(tag=name, gun=gun, role=role, digest=digest, signed_at=signed_at))
        return found

    async def signed(self, repository: int, named: Mapping[str, str]) -> dict[str, bool]:
        """
        Those of the tags that are signed, and whether what each names (its digest) is; one query.

        False: the tag was moved since, or the roles do not agree with the registry for another reason.
        """
        found = await self.signatures(repository, named)
        return {name: is_signed_as(given, named[name]) for name, given in found.items()}

    async def forget(self, repository: int, tag: str, *, by: Actor = SYSTEM) -> bool:
        """
        Let what is signed under the name of a tag count no longer; whether there was anything.

        The files stay as they are: only who has the keys can sign others. What a role signs anew counts again.
        """

        async def work(tx: Transaction) -> bool:
            await tx.fetch_one(_LOCK, repository=repository)  # as publications do: one after the other
            rows = await tx.fetch_all(_FORGET, repository=repository, which=tag)
            digests = {row[1] for row in rows}
            await record(tx, *(_forgotten(repository, tag, digest, by) for digest in sorted(digests)))
            if rows and self._signed is not None:
                await self._signed(tx, repository, [])
            return bool(rows)

        return await self._database.unit(work)

    async def list_collections(self, repository: int) -> list[CollectionRecord]:
        """The collections of a repository, by name, with their roles; two queries."""
        counts = {
            (row[0], row[1]): (row[2], row[3])
            for row in await self._database.fetch_all(_COUNTS, repository=repository)
        }
        roles: dict[str, list[CollectionRole]] = {}
        for gun, role, version, expires_at, stored_at in await self._database.fetch_all(
            _COLLECTIONS, repository=repository
        ):
            total, forgotten = counts.get((gun, role), (0, 0))
            roles.setdefault(gun, []).append(
                CollectionRole(
                    name=role,
                    version=version,
                    stored_at=stored_at,
                    expires_at=expires_at,
                    tags=total,
                    forgotten=forgotten,
                )
            )
        return [CollectionRecord(gun, tuple(found)) for gun, found in roles.items()]


def _forgotten(repository: int, tag: str, digest: str, by: Actor) -> Event:
    return Event(
        type="DELETE",
        actor=by,
        object=Object("trust_tag", tag, tag, digest),
        repository_id=repository,
    )
