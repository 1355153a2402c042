"""What of content trust is in the database: the statements, and the unit of work that stores an update."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from sqlalchemy import (
    BigInteger,
    LargeBinary,
    Text,
    and_,
    bindparam,
    case,
    column,
    delete,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, each, each_row, in_list, now
from dtr.db.schema import (
    repositories,
    trust_changes,
    trust_delegations,
    trust_files,
    trust_roles,
    trust_targets,
)
from dtr.trust.errors import RepositoryGone, VersionConflict
from dtr.tuf import SNAPSHOT, TIMESTAMP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, FromClause

    from dtr.db import Transaction
    from dtr.trust.current import Current
    from dtr.trust.files import Collection, File


_repository, _gun = bindparam("repository", type_=BigInteger), bindparam("gun", type_=Text)


def _its(table: FromClause) -> ColumnElement[bool]:
    """The rows of a collection: parameters `repository` and `gun`."""
    return and_(table.c.repository_id == _repository, table.c.gun == _gun)


# --- reading --------------------------------------------------------------------------------------------------

_FILE = (
    trust_files.c.role,
    trust_files.c.version,
    trust_files.c.sha256,
    trust_files.c.content,
    trust_files.c.created_at,
)
_is_current = and_(
    trust_files.c.repository_id == trust_roles.c.repository_id,
    trust_files.c.gun == trust_roles.c.gun,
    trust_files.c.role == trust_roles.c.role,
    trust_files.c.version == trust_roles.c.version,
)
_current = select(*_FILE).join_from(trust_roles, trust_files, _is_current).where(_its(trust_roles))
_ends = trust_roles.alias("ends")
_ROLE = trust_files.c.role == bindparam("role")

ALL_CURRENT = Statement(_current)
"""The current files of a collection."""
CURRENT_OF = Statement(lambda: _current.where(in_list(trust_roles.c.role, "roles")))
"""The current files of some roles."""
CURRENT = Statement(
    lambda: _current.add_columns(
        select(func.min(_ends.c.expires_at))
        .where(_its(_ends), or_(_ends.c.role == TIMESTAMP, _ends.c.role == SNAPSHOT))
        .scalar_subquery()
    ).where(trust_roles.c.role == bindparam("role"))
)
"""The current file of a role, and when the timestamp or the snapshot expires, whichever is first."""
BY_HASH = Statement(
    lambda: select(*_FILE).where(_its(trust_files), trust_files.c.sha256 == bindparam("sha256"), _ROLE).limit(1)
)
BY_VERSION = Statement(
    lambda: select(*_FILE).where(
        _its(trust_files), _ROLE, trust_files.c.version == bindparam("version", type_=BigInteger)
    )
)
BY_HASHES = Statement(lambda: select(*_FILE).where(_its(trust_files), in_list(trust_files.c.sha256, "hashes")))
TARGETS = Statement(
    lambda: select(
        trust_targets.c.role, trust_targets.c.name, trust_targets.c.digest, trust_targets.c.length
    ).where(_its(trust_targets))
)
"""What a collection signs, forgotten or not."""
FOREIGN_KEYS = Statement(
    lambda: select(trust_delegations.c.key_id).where(
        in_list(trust_delegations.c.key_id, "keys"),
        trust_delegations.c.gun != _gun,
        or_(trust_delegations.c.role == TIMESTAMP, trust_delegations.c.role == SNAPSHOT),
    )
)
"""Those of the keys with which the server signs for collections of other GUNs."""

# --- storing an update ----------------------------------------------------------------------------------------

_LOCK = Statement(  # FOR NO KEY UPDATE: pushes go on, another update or a deletion does not
    lambda: (
        select(repositories.c.id)
        .where(
            repositories.c.id == _repository,
            repositories.c.deleted_at.is_(None),
        )
        .with_for_update(key_share=True)
    )
)
_BASE = Statement(
    lambda: (
        select(trust_files.c.version, trust_files.c.sha256)
        .join_from(trust_roles, trust_files, _is_current)
        .where(_its(trust_roles), trust_roles.c.role == TIMESTAMP)
    )
)
_role = each("roles")
_NEWEST = Statement(
    lambda: select(
        _role.c.value,
        select(func.max(trust_files.c.version))
        .where(_its(trust_files), trust_files.c.role == _role.c.value)
        .scalar_subquery(),
    ).order_by(_role.c.value)
)
_OF_COLLECTION = {"repository_id": _repository, "gun": _gun}
_INSERT_FILE = Statement(
    lambda: insert(trust_files).values(
        **_OF_COLLECTION,
        role=bindparam("role"),
        version=bindparam("version", type_=BigInteger),
        sha256=bindparam("sha256"),
        content=bindparam("content", type_=LargeBinary),
        created_at=now(),
    )
)
_new_roles = each_row("current", trust_roles.c.role, trust_roles.c.version, trust_roles.c.expires_at)
_put_roles = insert(trust_roles).from_select(
    [*_OF_COLLECTION, "role", "version", "expires_at"],
    select(_repository, _gun, *_new_roles.c).where(true()),  # SQLite takes ON for a join's without it
)
_PUT_ROLES = Statement(
    lambda: _put_roles.on_conflict_do_update(
        index_elements=[*_OF_COLLECTION, "role"],
        set_={"version": _put_roles.excluded.version, "expires_at": _put_roles.excluded.expires_at},
    )
)
_END_ROLES = Statement(lambda: delete(trust_roles).where(_its(trust_roles), in_list(trust_roles.c.role, "roles")))
_END_TARGETS = Statement(
    lambda: delete(trust_targets).where(
        _its(trust_targets), trust_targets.c.role == bindparam("role"), in_list(trust_targets.c.name, "names")
    )
)
_new_targets = each_row(
    "signed", trust_targets.c.role, trust_targets.c.name, trust_targets.c.digest, trust_targets.c.length
)
_put_targets = insert(trust_targets).from_select(
    [*_OF_COLLECTION, "role", "name", "digest", "length", "signed_at"],
    select(_repository, _gun, *_new_targets.c, now()).where(true()),
)
_is_same = trust_targets.c.digest == _put_targets.excluded.digest
_PUT_TARGETS = Statement(  # who forgot that a digest is signed did not do so for another one
    lambda: _put_targets.on_conflict_do_update(
        index_elements=["repository_id", "name", "gun", "role"],
        set_={
            "digest": _put_targets.excluded.digest,
            "length": _put_targets.excluded.length,
            "signed_at": case((_is_same, trust_targets.c.signed_at), else_=_put_targets.excluded.signed_at),
            "forgotten_at": case((_is_same, trust_targets.c.forgotten_at)),
        },
    )
)
_END_KEYS = Statement(
    lambda: delete(trust_delegations).where(_its(trust_delegations), in_list(trust_delegations.c.role, "roles"))
)
_new_keys = each_row(
    "keys",
    trust_delegations.c.role,
    trust_delegations.c.key_id,
    trust_delegations.c.public_key_id,
    column("signed", BigInteger),
)
_PUT_KEYS = Statement(
    lambda: insert(trust_delegations).from_select(
        [*_OF_COLLECTION, "role", "key_id", "public_key_id", "has_signed"],
        select(
            _repository,
            _gun,
            _new_keys.c.role,
            _new_keys.c.key_id,
            _new_keys.c.public_key_id,
            _new_keys.c.signed == 1,
        ),
    )
)
_INSERT_CHANGE = Statement(
    lambda: insert(trust_changes).values(
        **_OF_COLLECTION,
        version=bindparam("version", type_=BigInteger),
        sha256=bindparam("sha256"),
        category="update",
        created_at=now(),
    )
)


class Moved(Exception):
    """The collection is not what it was when the update was made: it has to be looked at again."""


class Update(Struct, frozen=True, kw_only=True):
    """What is to be stored of a collection."""

    collection: Collection
    base: File | None
    """The timestamp that was current when this was made."""
    files: list[File]
    """The new ones; a timestamp is among them, and the last."""
    roles: dict[str, tuple[int, int]]
    """By role whose current file or end is another: the version, and when it expires."""
    gone: set[str]
    """Roles that have no current file any more."""
    current: Current
    """What the roles come to whose standing may be another."""
    put: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    """By role and tag: digest and length of what is signed and was not so."""
    end: dict[tuple[str, str], str] = field(default_factory=dict)
    """By role and tag: digest of what is not signed any more."""

    @property
    def timestamp(self) -> File:
        """The new one."""
        return self.files[-1]


async def store(tx: Transaction, update: Update) -> bool:
    """
    Store an update; False: it is stored already (nobody could know whether the first try was committed).

    Raises RepositoryGone, Moved, VersionConflict.
    """
    its: dict[str, Any] = {"repository": update.collection.repository, "gun": update.collection.gun}
    if await tx.fetch_one(_LOCK, repository=update.collection.repository) is None:
        raise RepositoryGone(update.collection.gun)
    row = await tx.fetch_one(_BASE, **its)
    base = None if row is None else (row[0], row[1])
    if base == (update.timestamp.version, update.timestamp.sha256):
        return False
    if base != (None if update.base is None else (update.base.version, update.base.sha256)):
        raise Moved
    await _check_versions(tx, its, update.files)
    await tx.execute_many(
        _INSERT_FILE,
        [
            its | {"role": one.role, "version": one.version, "sha256": one.sha256, "content": one.content}
            for one in update.files
        ],
    )
    await tx.execute(
        _PUT_ROLES, **its, current=json.dumps([[role, *facts] for role, facts in sorted(update.roles.items())])
    )
    await _index(tx, its, update)
    await tx.execute(_INSERT_CHANGE, **its, version=update.timestamp.version, sha256=update.timestamp.sha256)
    return True


async def _check_versions(tx: Transaction, its: dict[str, Any], files: Iterable[File]) -> None:
    """Each version has to be above all that are stored of its role (section 6)."""
    new = {file.role: file.version for file in files}
    for role, newest in await tx.fetch_all(_NEWEST, **its, roles=sorted(new)):
        if newest is not None and newest >= new[role]:
            raise VersionConflict(role)


async def _index(tx: Transaction, its: dict[str, Any], update: Update) -> None:
    """Bring the index of targets and keys up to date."""
    ended: dict[str, list[str]] = {}
    for role, name in sorted(update.end):
        ended.setdefault(role, []).append(name)
    for role, names in ended.items():
        await tx.execute(_END_TARGETS, **its, role=role, names=names)
    if update.put:
        signed = [[*key, *update.put[key]] for key in sorted(update.put)]
        await tx.execute(_PUT_TARGETS, **its, signed=json.dumps(signed))
    roles = sorted(update.gone | update.current.roles)
    if roles:
        await tx.execute(_END_KEYS, **its, roles=roles)
    if update.current.keys:
        keys = [[one.role, one.key_id, one.public_key_id, int(one.has_signed)] for one in update.current.keys]
        await tx.execute(_PUT_KEYS, **its, keys=json.dumps(keys))
    if update.gone:
        await tx.execute(_END_ROLES, **its, roles=sorted(update.gone))


# --- deleting -------------------------------------------------------------------------------------------------

_LOCK_ALL = Statement(  # whoever deletes a collection or repository; even one that is deleted
    lambda: (
        select(repositories.c.id)
        .where(in_list(repositories.c.id, "repositories"))
        .order_by(repositories.c.id)
        .with_for_update(key_share=True)
    )
)
_COLLECTIONS = Statement(
    lambda: (
        select(trust_roles.c.repository_id, trust_roles.c.gun)
        .where(in_list(trust_roles.c.repository_id, "repositories"), trust_roles.c.role == TIMESTAMP)
        .order_by(trust_roles.c.repository_id, trust_roles.c.gun)
    )
)
_DELETE = tuple(
    Statement(delete(table).where(_its(table))) for table in (trust_roles, trust_files, trust_delegations)
)
_INSERT_DELETION = Statement(
    lambda: insert(trust_changes).values(
        **_OF_COLLECTION, version=0, sha256="", category="deletion", created_at=now()
    )
)


async def collections_of(tx: Transaction, numbers: list[int]) -> list[tuple[int, str]]:
    """The collections of repositories, by number and GUN; the repositories are locked."""
    await tx.fetch_all(_LOCK_ALL, repositories=numbers)
    return [(row[0], row[1]) for row in await tx.fetch_all(_COLLECTIONS, repositories=numbers)]


async def delete_collection(tx: Transaction, repository: int, gun: str) -> None:
    """Delete a collection, which is there, with its index; followers of changes are told."""
    for statement in _DELETE:
        await tx.execute(statement, repository=repository, gun=gun)
    await tx.execute(_INSERT_DELETION, repository=repository, gun=gun)
