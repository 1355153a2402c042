"""
Reading what is known about manifests: who signed them, and what they are.

One statement for any number of manifests, in as many repositories: a pull asks for one, a report for a page of
them. It starts from the manifests and the indexes that list them, at whatever depth, and follows indexes alone.

Of content trust counts what current, unexpired files say, of any collection of the repository, and of keys only
those that have really signed the file. Of other signatures counts what was verified with an identity that is
registered still, for the whole registry or for the namespace in which the repository is now.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, Text, and_, bindparam, case, cast, exists, literal, null, or_, select, union_all

from dtr.db import Statement, each_pair, in_list, now
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

    from sqlalchemy import ColumnElement, Select

    from dtr.db import Database

_asked = each_pair("repositories", "digests")
_covers = (  # by the table's own columns: PostgreSQL wants one collation in all of a recursion
    select(
        manifests.c.repository_id.label("repository"),
        manifests.c.digest.label("digest"),
        manifests.c.digest.label("cover"),
    )
    .join_from(
        _asked,
        manifests,
        and_(manifests.c.repository_id == _asked.c.number, manifests.c.digest == _asked.c.text),
    )
    .cte("covers", recursive=True)
)
_covers = _covers.union(  # each index that lists a manifest vouches for it
    select(_covers.c.repository, _covers.c.digest, manifest_references.c.manifest).join_from(
        _covers,
        manifest_references,
        and_(
            manifest_references.c.repository_id == _covers.c.repository,
            manifest_references.c.kind == "manifest",
            manifest_references.c.target == _covers.c.cover,
        ),
    )
)
_trusted = (
    select(
        _covers.c.repository,
        _covers.c.digest,
        trust_targets.c.gun,
        trust_targets.c.role,
    )
    .join_from(
        _covers,
        trust_targets,
        and_(
            trust_targets.c.repository_id == _covers.c.repository,
            trust_targets.c.digest == _covers.c.cover,
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
    .cte("trusted")
)
_tag_holds = or_(
    signatures.c.tag.is_(None),
    exists().where(
        tags.c.repository_id == signatures.c.repository_id,
        tags.c.name == signatures.c.tag,
        tags.c.manifest == signatures.c.manifest,
    ),
)
_proven = (
    select(
        _covers.c.repository,
        _covers.c.digest,
        case(
            (signing_identities.c.namespace_id.is_(None), signing_identities.c.name),
            else_=accounts.c.name.concat("/").concat(signing_identities.c.name),
        ).label("identity"),
        case((signing_identities.c.kind == "key", signing_identities.c.fingerprint), else_="").label("key"),
    )
    .join_from(
        _covers,
        signature_proofs,
        and_(
            signature_proofs.c.repository_id == _covers.c.repository,
            signature_proofs.c.subject == _covers.c.cover,
            or_(signature_proofs.c.valid_until.is_(None), signature_proofs.c.valid_until > now()),
        ),
    )
    .join(
        signatures,
        and_(
            signatures.c.repository_id == signature_proofs.c.repository_id,
            signatures.c.subject == signature_proofs.c.subject,
            signatures.c.manifest == signature_proofs.c.manifest,
            signatures.c.number == signature_proofs.c.number,
            signatures.c.kind == "signature",
            signatures.c.problem == "",
            _tag_holds,
        ),
    )
    .join(signing_identities, signing_identities.c.id == signature_proofs.c.identity_id)
    .join(repositories, repositories.c.id == _covers.c.repository)
    .outerjoin(accounts, accounts.c.id == signing_identities.c.namespace_id)
    .where(
        or_(
            signing_identities.c.namespace_id.is_(None),
            signing_identities.c.namespace_id == repositories.c.namespace_id,
        )
    )
    .cte("proven")
)
_keys = (
    select(_trusted.c.repository, _trusted.c.digest, trust_delegations.c.public_key_id.label("key"))
    .join_from(
        _trusted,
        trust_delegations,
        and_(
            trust_delegations.c.repository_id == _trusted.c.repository,
            trust_delegations.c.gun == _trusted.c.gun,
            trust_delegations.c.role == _trusted.c.role,
            trust_delegations.c.has_signed.is_(True),
        ),
    )
    .union(select(_proven.c.repository, _proven.c.digest, _proven.c.key).where(_proven.c.key != ""))
    .cte("keys")
)
_described = and_(manifests.c.repository_id == _covers.c.repository, manifests.c.digest == _covers.c.digest)
_read_whole = and_(  # all of its layers are known to be JSON that signatures consist of: no program can be in them
    exists().where(
        signatures.c.repository_id == manifests.c.repository_id, signatures.c.manifest == manifests.c.digest
    ),
    ~exists().where(
        signatures.c.repository_id == manifests.c.repository_id,
        signatures.c.manifest == manifests.c.digest,
        or_(signatures.c.problem != "", signatures.c.format == "cose"),
    ),
)
_none = cast(null(), Text)


def _part(what: str, *columns: ColumnElement[Any]) -> Select[Any]:
    """Rows of one kind: repository, digest, and up to five texts that say something of it."""
    repository, digest, *said = columns
    texts = [cast(one, Text) for one in said]
    return select(literal(what, Text), repository, digest, *texts, *[_none] * (5 - len(said)))


_EVIDENCE = Statement(
    union_all(
        _part(
            "manifest",
            _covers.c.repository,
            _covers.c.digest,
            manifests.c.media_type,
            manifests.c.artifact_type,
            manifests.c.config_media_type,
            manifests.c.subject,
            _read_whole,
        )
        .join_from(_covers, manifests, _described)
        .where(_covers.c.cover == _covers.c.digest),
        _part("index", _covers.c.repository, _covers.c.digest, _covers.c.cover).where(
            _covers.c.cover != _covers.c.digest
        ),
        _part("role", _trusted.c.repository, _trusted.c.digest, _trusted.c.role).distinct(),
        _part("identity", _proven.c.repository, _proven.c.digest, _proven.c.identity).distinct(),
        _part("key", _keys.c.repository, _keys.c.digest, _keys.c.key).distinct(),
        _part("team", _keys.c.repository, _keys.c.digest, team_members.c.team_id)
        .join_from(_keys, public_keys, public_keys.c.id == _keys.c.key)
        .join(accounts, and_(accounts.c.id == public_keys.c.account_id, accounts.c.is_active.is_(True)))
        .join(team_members, team_members.c.user_id == accounts.c.id)
        .where(in_list(team_members.c.team_id, "teams"))
        .distinct(),
        _part("tag", _covers.c.repository, _covers.c.digest, tags.c.name)
        .join_from(
            _covers,
            tags,
            and_(tags.c.repository_id == _covers.c.repository, tags.c.manifest == _covers.c.cover),
        )
        .where(bindparam("with_tags", type_=Boolean))
        .distinct(),
    )
)


async def read_evidence(
    database: Database, asked: Sequence[tuple[int, str]], *, teams: Iterable[str] = (), with_tags: bool = False
) -> Mapping[tuple[int, str], Evidence]:
    """What is known of manifests, each a repository and a digest; one query."""
    rows = await database.fetch_all(
        _EVIDENCE,
        repositories=[repository for repository, _ in asked],
        digests=[digest for _, digest in asked],
        teams=sorted(set(teams)),
        with_tags=with_tags,
    )
    said: defaultdict[tuple[int, str], list[Sequence[Any]]] = defaultdict(list)
    for what, repository, digest, *texts in rows:
        said[repository, digest].append((what, *texts))
    return {one: _evidence(said[one]) for one in asked}


def _evidence(rows: Sequence[Sequence[Any]]) -> Evidence:
    found: defaultdict[str, set[str]] = defaultdict(set)
    inert = False
    for what, value, artifact_type, config, subject, is_signature in rows:
        if what == "manifest":
            inert = is_inert(
                value,
                artifact_type=artifact_type,
                config=config,
                subject=subject,
                is_signature=is_signature in {"1", "true", "t"},
            )
        elif what in {"role", "key", "identity"}:
            found["signers"].add(f"{what}:{value}")
        else:
            found[what].add(value)
    return Evidence(
        signers=frozenset(found["signers"]),
        teams=frozenset(found["team"]),
        indexes=frozenset(found["index"]),
        tags=frozenset(found["tag"]),
        is_inert=inert,
    )
