"""
Reading what is known about manifests: who signed them, and what they are.

One statement for any number of manifests, in as many repositories: a pull asks for one, a report for a page of
them. It starts from the manifests and the indexes that list them, at whatever depth, and follows indexes alone.

Of content trust counts what current, unexpired files say, of any collection of the repository, and of keys only
those that have really signed the file. Of other signatures counts what was verified with an identity that is
registered still, for the whole registry or for the namespace in which the repository is now.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Text, and_, bindparam, case, cast, exists, literal, null, or_, select, union_all

from dtr.db import Statement, each_row, in_list, now
from dtr.db.schema import (
    accounts,
    manifest_references,
    manifests,
    public_keys,
    repositories,
    signature_proofs,
    signatures,
    signing_identities,
    tags,
    team_members,
    trust_delegations,
    trust_roles,
    trust_targets,
)
from dtr.enforcement.rules import Evidence, is_inert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import CTE, ColumnElement, Select

    from dtr.db import Database

_ANY_BYTES = frozenset({"cose"})
"""Forms of signatures that can hold anything, a program, too; all others are JSON."""

_one = and_(
    manifests.c.repository_id == bindparam("repository", type_=BigInteger),
    manifests.c.digest == bindparam("digest"),
)
_asked = each_row("asked", manifests.c.repository_id, manifests.c.digest)
_among = and_(manifests.c.repository_id == _asked.c.repository_id, manifests.c.digest == _asked.c.digest)
_tag_holds = or_(
    signatures.c.tag.is_(None),
    exists().where(
        tags.c.repository_id == signatures.c.repository_id,
        tags.c.name == signatures.c.tag,
        tags.c.manifest == signatures.c.manifest,
    ),
)
# By an index that has all that is asked of it, and then by the primary key: SQLite would rather walk over all
# signatures of the repository than look into rows by another index.
_listed = signatures.alias("listed")
_is_listed = and_(*(signatures.c[one.name] == _listed.c[one.name] for one in signatures.primary_key))
_none = cast(null(), Text)


def _covers(*, many: bool) -> CTE:
    """The manifests that are asked about, each with what vouches for it (`cover`): itself, and indexes."""
    # By the table's own columns: PostgreSQL wants one collation in all of a recursion.
    own = select(
        manifests.c.repository_id.label("repository"),
        manifests.c.digest.label("digest"),
        manifests.c.digest.label("cover"),
    )
    first = own.join_from(_asked, manifests, _among) if many else own.where(_one)
    covers = first.cte("covers", recursive=True)
    return covers.union(
        select(covers.c.repository, covers.c.digest, manifest_references.c.manifest).join_from(
            covers,
            manifest_references,
            and_(
                manifest_references.c.repository_id == covers.c.repository,
                manifest_references.c.kind == "manifest",
                manifest_references.c.target == covers.c.cover,
            ),
        )
    )


def _trusted(covers: CTE) -> CTE:
    """Roles of content trust that sign them."""
    return (
        select(covers.c.repository, covers.c.digest, trust_targets.c.gun, trust_targets.c.role)
        .join_from(
            covers,
            trust_targets,
            and_(
                trust_targets.c.repository_id == covers.c.repository,
                trust_targets.c.digest == covers.c.cover,
                trust_targets.c.forgotten_at.is_(None),
            ),
        )
        .join(
            trust_roles,
            and_(
                trust_roles.c.repository_id == trust_targets.c.repository_id,
                trust_roles.c.gun == trust_targets.c.gun,
                trust_roles.c.role == trust_targets.c.role,
                trust_roles.c.expires_at > now(),
            ),
        )
        .distinct()  # whatever they call it
        .cte("trusted")
    )


def _proven(covers: CTE) -> CTE:
    """Registered identities that signed them, and the keys of those that are keys."""
    return (
        select(
            covers.c.repository,
            covers.c.digest,
            case(
                (signing_identities.c.namespace_id.is_(None), signing_identities.c.name),
                else_=accounts.c.name.concat("/").concat(signing_identities.c.name),
            ).label("identity"),
            case((signing_identities.c.kind == "key", signing_identities.c.fingerprint), else_="").label("key"),
        )
        .join_from(
            covers,
            signature_proofs,
            and_(
                signature_proofs.c.repository_id == covers.c.repository,
                signature_proofs.c.subject == covers.c.cover,
                or_(signature_proofs.c.valid_until.is_(None), signature_proofs.c.valid_until > now()),
            ),
        )
        .join(
            signatures,
            and_(
                *(signatures.c[one.name] == signature_proofs.c[one.name] for one in signatures.primary_key),
                signatures.c.kind == "signature",
                signatures.c.problem == "",
                _tag_holds,
            ),
        )
        .join(signing_identities, signing_identities.c.id == signature_proofs.c.identity_id)
        .join(repositories, repositories.c.id == covers.c.repository)
        .outerjoin(accounts, accounts.c.id == signing_identities.c.namespace_id)
        .where(
            or_(
                signing_identities.c.namespace_id.is_(None),
                signing_identities.c.namespace_id == repositories.c.namespace_id,
            )
        )
        .cte("proven")
    )


def _keys(trusted: CTE, proven: CTE) -> CTE:
    """Keys that signed them."""
    return (
        select(trusted.c.repository, trusted.c.digest, trust_delegations.c.public_key_id.label("key"))
        .join_from(
            trusted,
            trust_delegations,
            and_(
                trust_delegations.c.repository_id == trusted.c.repository,
                trust_delegations.c.gun == trusted.c.gun,
                trust_delegations.c.role == trusted.c.role,
                trust_delegations.c.has_signed.is_(True),
            ),
        )
        .union(select(proven.c.repository, proven.c.digest, proven.c.key).where(proven.c.key != ""))
        .cte("keys")
    )


def _part(what: str, of: CTE, *said: ColumnElement[Any]) -> Select[Any]:
    """Rows of one kind: repository, digest, and up to four texts that say something of it."""
    texts = [cast(one, Text) for one in said]
    return select(literal(what, Text), of.c.repository, of.c.digest, *texts, *[_none] * (4 - len(said)))


@cache
def _statement(*, many: bool, with_teams: bool, with_tags: bool) -> Statement:
    """
    What reads it: of one manifest or of many, with no more than is asked for.

    For one there is no list in it: PostgreSQL then soon plans it once for all times, which takes ten times as long
    as running it.
    """
    covers = _covers(many=many)
    trusted, proven = _trusted(covers), _proven(covers)
    keys = _keys(trusted, proven)
    parts = [
        _part(
            "manifest",
            covers,
            manifests.c.media_type,
            manifests.c.artifact_type,
            manifests.c.config_media_type,
            manifests.c.subject,
        )
        .join_from(
            covers,
            manifests,
            and_(manifests.c.repository_id == covers.c.repository, manifests.c.digest == covers.c.digest),
        )
        .where(covers.c.cover == covers.c.digest),
        _part("layer", covers, signatures.c.problem, signatures.c.format)
        .join_from(
            covers,
            _listed,
            and_(_listed.c.repository_id == covers.c.repository, _listed.c.manifest == covers.c.digest),
        )
        .join(signatures, _is_listed)
        .where(covers.c.cover == covers.c.digest),
        _part("index", covers, covers.c.cover).where(covers.c.cover != covers.c.digest),
        _part("role", trusted, trusted.c.role),
        _part("identity", proven, proven.c.identity),
        _part("key", keys, keys.c.key),
    ]
    if with_teams:
        parts.append(
            _part("team", keys, team_members.c.team_id)
            .join_from(keys, public_keys, public_keys.c.id == keys.c.key)
            .join(accounts, and_(accounts.c.id == public_keys.c.account_id, accounts.c.is_active.is_(True)))
            .join(team_members, team_members.c.user_id == accounts.c.id)
            .where(in_list(team_members.c.team_id, "teams"))
        )
    if with_tags:
        parts.append(
            _part("tag", covers, tags.c.name).join_from(
                covers,
                tags,
                and_(tags.c.repository_id == covers.c.repository, tags.c.manifest == covers.c.cover),
            )
        )
    return Statement(union_all(*parts))


async def read_evidence(
    database: Database, asked: Sequence[tuple[int, str]], *, teams: Iterable[str] = (), with_tags: bool = False
) -> Mapping[tuple[int, str], Evidence]:
    """What is known of manifests, each a repository and a digest; one query."""
    wanted, many = sorted(set(teams)), len(asked) != 1
    parameters: dict[str, Any] = {"teams": wanted}
    if many:
        parameters["asked"] = json.dumps(asked)
    else:
        ((parameters["repository"], parameters["digest"]),) = asked
    statement = _statement(many=many, with_teams=bool(wanted), with_tags=with_tags)
    said: defaultdict[tuple[int, str], list[Sequence[Any]]] = defaultdict(list)
    for what, repository, digest, *texts in await database.fetch_all(statement, **parameters):
        said[repository, digest].append((what, *texts))
    return {one: _evidence(said[one]) for one in asked}


def _evidence(rows: Sequence[Sequence[Any]]) -> Evidence:
    found: defaultdict[str, set[str]] = defaultdict(set)
    described: Sequence[Any] | None = None
    layers: list[bool] = []
    for what, *texts in rows:
        value = texts[0]
        if what == "manifest":
            described = texts
        elif what == "layer":
            problem, form, *_ = texts
            layers.append(not problem and form not in _ANY_BYTES)
        elif what in {"role", "key", "identity"}:
            found["signers"].add(f"{what}:{value}")
        else:
            found[what].add(value)
    inert = False
    if described is not None:
        media_type, artifact_type, config, subject = described
        is_signature = bool(layers) and all(layers)
        inert = is_inert(
            media_type, artifact_type=artifact_type, config=config, subject=subject, is_signature=is_signature
        )
    return Evidence(
        signers=frozenset(found["signers"]),
        teams=frozenset(found["team"]),
        indexes=frozenset(found["index"]),
        tags=frozenset(found["tag"]),
        is_inert=inert,
    )
