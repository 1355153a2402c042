"""
The signatures that repositories hold, and whose they are.

What refers to an image is read once, when it comes: a job reads the manifest with its layers, writes down what
each says, and with which identities it was proved. So nobody who asks later waits for cryptography, and one query
answers for a page of tags. When identities change, all that they concern is verified again.

A signature counts as long as it is there: one with a tag of cosign's as long as the tag names its manifest, a
referrer as long as the repository has it; as long as the identity is registered for the whole registry or for the
namespace in which the repository is now; and as long as its certificates are valid. All of this is asked in the
query, and holds at once.

What is read is bounded: so many layers of a manifest, and so many bytes of each.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import insert

from dtr.db import ConstraintViolated, Statement, in_list, now
from dtr.db.schema import (
    accounts,
    blob_contents,
    blobs,
    manifests,
    repositories,
    repository_blobs,
    signature_proofs,
    signatures,
    signing_identities,
    tags,
)
from dtr.oci import (
    ATTESTATIONS,
    SIGNATURES,
    ManifestInvalid,
    ManifestUnsupported,
    companion_of,
    companions,
    is_signature_tag,
    parse_manifest,
)
from dtr.registry import show_again
from dtr.registry.usage import touch
from dtr.signatures.envelopes import read_signature
from dtr.signatures.errors import SignatureInvalid
from dtr.signatures.identities import KEEP_OF_REPOSITORY, OF_REPOSITORY, identity_of
from dtr.signatures.judging import Judge, Judgement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Select

    from dtr.db import Database, Row, Transaction
    from dtr.signatures.envelopes import Format, Kind
    from dtr.signatures.identities import Identity, IdentityKind
    from dtr.signatures.keyless import Sigstore
    from dtr.storage import Driver

_MOST_LAYERS = 250
"""Signatures of one manifest that are read: cosign writes each further one into it."""
_LARGEST = 4 * 1024 * 1024
"""Bytes of a layer: attestations may have a bill of materials in them."""
_MOST_BYTES = 16 * 1024 * 1024
"""Of all layers of a manifest."""
_MOST_SUBJECTS = 10
"""Images of which a manifest is read as their signature, by tags of cosign's."""
_MOST_SECONDS = 10.0
"""Of processor time for a manifest: whoever may push could have keys tried for hours."""
_MOST_AGAIN = 100
"""Manifests with signatures of one image that are verified while somebody waits for it."""
_PAGE = 200
_READ_AT_ONCE = 2
"""Manifests of a process whose layers are in memory at a time."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

_repository = bindparam("repository", type_=BigInteger)
_manifest = bindparam("manifest", type_=Text)
_limit = bindparam("limit", type_=BigInteger)

# --- reading what was pushed ----------------------------------------------------------------------------------

_FIND = Statement(
    lambda: (
        select(manifests.c.media_type, manifests.c.subject, manifests.c.payload)
        .join(repositories, repositories.c.id == manifests.c.repository_id)
        .where(
            manifests.c.repository_id == _repository,
            manifests.c.digest == _manifest,
            repositories.c.deleted_at.is_(None),
        )
    )
)
_TAGS_OF = Statement(
    lambda: (
        select(tags.c.name)
        .where(
            tags.c.repository_id == _repository,
            tags.c.manifest == _manifest,
            or_(tags.c.name.endswith(".sig"), tags.c.name.endswith(".att")),
        )
        .order_by(tags.c.name)
        .limit(_MOST_SUBJECTS)
    )
)
_LAYERS = Statement(
    lambda: (
        select(blobs.c.digest, blobs.c.size, blobs.c.location, blob_contents.c.content)
        .join_from(repository_blobs, blobs, blobs.c.digest == repository_blobs.c.digest)
        .outerjoin(blob_contents, blob_contents.c.digest == blobs.c.digest)
        .where(
            repository_blobs.c.repository_id == _repository,
            in_list(repository_blobs.c.digest, "digests"),
            blobs.c.state == "present",
            blobs.c.size <= _LARGEST,
        )
    )
)

# --- writing down what it says --------------------------------------------------------------------------------

_LOCK = Statement(
    lambda: (
        select(repositories.c.has_policies)
        .join_from(manifests, repositories, repositories.c.id == manifests.c.repository_id)
        .where(
            manifests.c.repository_id == _repository,
            manifests.c.digest == _manifest,
            repositories.c.deleted_at.is_(None),
        )
        .with_for_update(key_share=True, of=manifests)  # FOR NO KEY UPDATE
    )
)
_PROVEN = Statement(
    lambda: select(signature_proofs.c.subject, signature_proofs.c.identity_id).where(
        signature_proofs.c.repository_id == _repository, signature_proofs.c.manifest == _manifest
    )
)
_FORGET = Statement(
    lambda: delete(signatures).where(signatures.c.repository_id == _repository, signatures.c.manifest == _manifest)
)
_INSERT = Statement(
    lambda: insert(signatures).values(
        repository_id=_repository,
        subject=bindparam("subject"),
        manifest=_manifest,
        number=bindparam("number", type_=Integer),
        tag=bindparam("tag", type_=Text),
        kind=bindparam("kind"),
        format=bindparam("format"),
        predicate_type=bindparam("predicate_type"),
        signer=bindparam("signer"),
        signed_at=bindparam("signed_at", type_=BigInteger),
        problem=bindparam("problem"),
        objection=bindparam("objection"),
        checked_at=now(),
    )
)
_PROVE = Statement(
    lambda: insert(signature_proofs).values(
        repository_id=_repository,
        subject=bindparam("subject"),
        manifest=_manifest,
        number=bindparam("number", type_=Integer),
        identity_id=bindparam("identity"),
        valid_until=bindparam("until", type_=BigInteger),
    )
)

# --- asking ---------------------------------------------------------------------------------------------------

_key = ("repository_id", "subject", "manifest", "number")
_is_there = or_(
    signatures.c.tag.is_(None),
    select(tags.c.name)
    .where(
        tags.c.repository_id == signatures.c.repository_id,
        tags.c.name == signatures.c.tag,
        tags.c.manifest == signatures.c.manifest,
    )
    .exists(),
)
_has_subject = in_list(signatures.c.subject, "subjects", within=(signatures.c.repository_id, _repository))
_called = case(
    (signing_identities.c.namespace_id.is_(None), signing_identities.c.name),
    else_=accounts.c.name.concat("/").concat(signing_identities.c.name),
)
"""The qualified name of an identity."""


def _with_proofs(*columns: ColumnElement[Any]) -> Select[Any]:
    """Signatures with each identity whose they are, as long as it counts there and they are valid."""
    return (
        select(*columns)
        .join_from(
            signatures, signature_proofs, and_(*(signature_proofs.c[one] == signatures.c[one] for one in _key))
        )
        .join(signing_identities, signing_identities.c.id == signature_proofs.c.identity_id)
        .join(repositories, repositories.c.id == signatures.c.repository_id)
        .outerjoin(accounts, accounts.c.id == signing_identities.c.namespace_id)
        .where(
            _is_there,
            or_(signature_proofs.c.valid_until.is_(None), signature_proofs.c.valid_until > now()),
            or_(
                signing_identities.c.namespace_id.is_(None),
                signing_identities.c.namespace_id == repositories.c.namespace_id,
            ),
        )
    )


_verified = (
    _with_proofs(signatures.c.subject, _called).where(_has_subject, signatures.c.kind == "signature").distinct()
)
_VERIFIED_BY = Statement(_verified)
_SUMMARIES = Statement(  # of each subject: an identity (its name), or how many there are of a kind
    lambda: union_all(
        _verified.add_columns(literal(0, Integer)),
        select(signatures.c.subject, signatures.c.kind, func.count())
        .where(_has_subject, _is_there)
        .group_by(signatures.c.subject, signatures.c.kind),
    )
)


def is_signed(digest: ColumnElement[str]) -> ColumnElement[bool]:
    """A condition: a signature refers to what has `digest`, whoever it is of; parameter `repository`."""
    return (
        select(signatures.c.number)
        .where(
            signatures.c.repository_id == _repository,
            signatures.c.subject == digest,
            signatures.c.kind == "signature",
            _is_there,
        )
        .exists()
    )


def is_verified(digest: ColumnElement[str]) -> ColumnElement[bool]:
    """A condition: a signature of what has `digest` is that of an identity; parameter `repository`."""
    return (
        _with_proofs(signatures.c.number)
        .where(
            signatures.c.repository_id == _repository,
            signatures.c.subject == digest,
            signatures.c.kind == "signature",
        )
        .exists()
    )


_LIST = Statement(
    lambda: (
        select(
            signatures.c.manifest,
            signatures.c.number,
            signatures.c.tag,
            signatures.c.kind,
            signatures.c.format,
            signatures.c.predicate_type,
            signatures.c.signer,
            signatures.c.signed_at,
            signatures.c.problem,
            signatures.c.objection,
            signatures.c.checked_at,
        )
        .where(
            signatures.c.repository_id == _repository,
            signatures.c.subject == bindparam("subject"),
            _is_there,
            or_(
                signatures.c.manifest > _manifest,
                and_(
                    signatures.c.manifest == _manifest, signatures.c.number >= bindparam("number", type_=Integer)
                ),
            ),
        )
        .order_by(signatures.c.manifest, signatures.c.number)
        .limit(_limit)
    )
)
_PROOFS = Statement(
    lambda: (
        _with_proofs(
            signatures.c.manifest,
            signatures.c.number,
            _called,
            signing_identities.c.kind,
            signing_identities.c.fingerprint,
            signature_proofs.c.valid_until,
        )
        .where(
            signatures.c.repository_id == _repository,
            signatures.c.subject == bindparam("subject"),
            in_list(signatures.c.manifest, "manifests"),
        )
        .order_by(_called)
    )
)

# --- finding them all -----------------------------------------------------------------------------------------

_after = bindparam("after", type_=BigInteger)
_live = repositories.c.deleted_at.is_(None)
_all_repositories = (
    select(repositories.c.id).where(_live, repositories.c.id > _after).order_by(repositories.c.id).limit(_limit)
)
_REPOSITORIES = Statement(_all_repositories)
_REPOSITORIES_OF = Statement(
    lambda: _all_repositories.where(repositories.c.namespace_id == bindparam("namespace"))
)
_may_hold = or_(*(manifests.c.artifact_type.startswith(one, autoescape=True) for one in SIGNATURES + ATTESTATIONS))
_behind = bindparam("behind", type_=Text)
_has_tag_of_cosign = or_(tags.c.name.endswith(".sig"), tags.c.name.endswith(".att"))
_HOLDERS = Statement(
    lambda: (
        select(manifests.c.digest.label("digest"))
        .where(
            manifests.c.repository_id == _repository,
            manifests.c.subject.is_not(None),
            manifests.c.digest > _behind,
            _may_hold,
        )
        .union(
            select(tags.c.manifest).where(
                tags.c.repository_id == _repository,
                tags.c.name > "sha256-",
                tags.c.name < "sha256.",
                _has_tag_of_cosign,
                tags.c.manifest > _behind,
            )
        )
        .order_by("digest")
        .limit(_limit)
    )
)
_HOLDERS_OF = Statement(
    lambda: (select(manifests.c.digest.label("digest"))
    .where(manifests.c.repository_id == _repository, manifests.c.subject == bindparam("subject"), _may_hold)
    .union(
        select(tags.c.manifest).where(tags.c.repository_id == _repository, in_list(tags.c.name, "names"))
    )
    .order_by("digest")
    .limit(_limit))
)  # fmt: skip


class ProvenBy(Struct, frozen=True):
    """An identity whose a signature is; `valid_until` in milliseconds since 1970 UTC (None: for ever)."""

    name: str
    """``NAMESPACE/NAME``, or of the whole registry ``NAME``."""
    kind: IdentityKind
    fingerprint: str
    valid_until: int | None


class SignatureRecord(Struct, frozen=True, kw_only=True):
    """A signature that a repository holds. Moments in milliseconds since 1970 UTC."""

    manifest: str
    """Digest of the manifest that it is in, as the layer of this number."""
    number: int
    tag: str | None
    """The tag by which it is one; None: its manifest is a referrer."""
    kind: Kind
    format: Format | Literal[""]
    """Empty: it cannot be read."""
    predicate_type: str
    signer: str
    """Who it says that it is of; nobody has checked that."""
    signed_at: int | None
    problem: str
    """Why it cannot count for anybody."""
    objection: str
    """Why it does not count for whom it seems to be of."""
    checked_at: int
    proofs: tuple[ProvenBy, ...] = ()

    @property
    def id(self) -> str:
        """In the order of lists."""
        return f"{self.manifest}/{self.number}"


class Summary(Struct, frozen=True):
    """What is known of the signatures of an image."""

    signatures: int = 0
    attestations: int = 0
    """How many there are, whoever they are of."""
    verified_by: tuple[str, ...] = ()
    """Names of the identities of which one of the signatures is."""


class _Read(Struct, frozen=True, kw_only=True):
    """What a layer says of a subject, and whose it is."""

    subject: str
    tag: str | None
    number: int
    kind: Kind
    format: Format | Literal[""] = ""
    predicate_type: str = ""
    signer: str = ""
    signed_at: int | None = None
    judgement: Judgement


class Signatures:
    """The signatures of all repositories."""

    def __init__(self, database: Database, storage: Driver, *, sigstore: Sigstore | None = None) -> None:
        """`sigstore` verifies what certificates of a moment sign; None: nothing of that counts."""
        self._database = database
        self._storage = storage
        self._sigstore = sigstore
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)

    # --- asking ---

    async def verified_by(self, repository: int, digests: Iterable[str]) -> dict[str, frozenset[str]]:
        """
        Whose signatures there are of what has one of the digests: qualified names of identities, by digest.

        Attestations are none. Those without any are missing. One query.
        """
        found: dict[str, set[str]] = {}
        rows = await self._database.fetch_all(_VERIFIED_BY, repository=repository, subjects=sorted(set(digests)))
        for subject, name in rows:
            found.setdefault(subject, set()).add(name)
        return {subject: frozenset(names) for subject, names in found.items()}

    async def summaries(self, repository: int, digests: Iterable[str]) -> dict[str, Summary]:
        """What is known of the signatures of each of the digests; those without any are missing. One query."""
        names: dict[str, list[str]] = {}
        counts: dict[tuple[str, str], int] = {}
        wanted = sorted(set(digests))
        rows = await self._database.fetch_all(_SUMMARIES, repository=repository, subjects=wanted) if wanted else []
        for subject, what, number in rows:
            if number:
                counts[subject, what] = number
            else:
                names.setdefault(subject, []).append(what)
        return {
            subject: Summary(
                counts.get((subject, "signature"), 0),
                counts.get((subject, "attestation"), 0),
                tuple(sorted(names.get(subject, ()))),
            )
            for subject in sorted({one for one, _ in counts})
        }

    async def list_signatures(
        self, repository: int, digest: str, *, start: str = "", limit: int
    ) -> list[SignatureRecord]:
        """At most `limit` signatures and attestations of what has the digest, by id, from the id `start` on."""
        manifest, _, number = start.rpartition("/")
        rows = await self._database.fetch_all(
            _LIST,
            repository=repository,
            subject=digest,
            manifest=manifest or start,
            number=int(number) if number.isascii() and number.isdecimal() and len(number) < 9 else 0,
            limit=limit,
        )
        holders = sorted({row[0] for row in rows})
        found: dict[tuple[str, int], list[ProvenBy]] = {}
        if holders:
            for holder, place, *proof in await self._database.fetch_all(
                _PROOFS, repository=repository, subject=digest, manifests=holders
            ):
                found.setdefault((holder, place), []).append(ProvenBy(*proof))
        return [_record(row, found.get((row[0], row[1]), ())) for row in rows]

    # --- verifying ---

    async def verify(self, repository: int, manifest: str) -> None:
        """
        Find out whose the signatures in a manifest are, and write it down.

        Nothing happens when the repository has no such manifest, or that refers to nothing. Raises StorageError.
        """
        row = await self._database.fetch_one(_FIND, repository=repository, manifest=manifest)
        if row is None:
            return
        media_type, subject, payload = row
        about = await self._subjects(repository, manifest, subject)
        layers = await asyncio.to_thread(_layers, bytes(payload), media_type) if about else []
        contents = await self._contents(repository, layers)
        while True:
            rows = await self._database.fetch_all(OF_REPOSITORY, repository=repository)
            identities = tuple(map(identity_of, rows))
            read = await asyncio.to_thread(self._judge, about, layers, contents, identities)
            try:
                if await self._write(repository, manifest, read, identities):
                    return
            except ConstraintViolated:  # an identity went meanwhile
                continue

    async def verify_of(self, repository: int, digest: str) -> None:
        """The same for all that refers to the manifest of a digest, up to a bound. Raises StorageError."""
        names = [one for one in companions(digest) if is_signature_tag(one)]
        rows = await self._database.fetch_all(
            _HOLDERS_OF, repository=repository, subject=digest, names=names, limit=_MOST_AGAIN
        )
        for row in rows:
            await self.verify(repository, row[0])

    async def verify_all(
        self, *, namespace: str | None = None, repository: int | None = None
    ) -> AsyncIterator[int]:
        """
        The same for all manifests of a repository, of a namespace (the id of its account), or of the registry.

        Says after each repository how many manifests it had. Raises StorageError.
        """
        if repository is not None:
            yield await self._verify_repository(repository)
            return
        after = 0
        while True:
            rows = (
                await self._database.fetch_all(_REPOSITORIES, after=after, limit=_PAGE)
                if namespace is None
                else await self._database.fetch_all(
                    _REPOSITORIES_OF, namespace=namespace, after=after, limit=_PAGE
                )
            )
            for row in rows:
                yield await self._verify_repository(row[0])
            if len(rows) < _PAGE:
                return
            after = rows[-1][0]

    async def _verify_repository(self, repository: int) -> int:
        count, behind = 0, ""
        while rows := await self._database.fetch_all(_HOLDERS, repository=repository, behind=behind, limit=_PAGE):
            for row in rows:
                await self.verify(repository, row[0])
            count += len(rows)
            behind = rows[-1][0]
        return count

    async def _subjects(self, repository: int, manifest: str, subject: str | None) -> dict[str, str | None]:
        """What a manifest refers to, by its subject (None) or by a tag of cosign's."""
        rows = await self._database.fetch_all(_TAGS_OF, repository=repository, manifest=manifest)
        by_tag = {companion_of(row[0]): row[0] for row in rows if is_signature_tag(row[0])}
        found: dict[str, str | None] = {digest: tag for digest, tag in by_tag.items() if digest is not None}
        return {**found, subject: None} if subject is not None else found

    async def _contents(self, repository: int, layers: Sequence[_Layer]) -> dict[str, bytes]:
        """The bytes of layers by digest; those that are too large, or too many, are missing."""
        if not layers:
            return {}
        rows = await self._database.fetch_all(
            _LAYERS, repository=repository, digests=sorted({one.digest for one in layers})
        )
        found, left = {}, _MOST_BYTES
        async with self._reading:
            for digest, size, location, content in sorted(rows, key=lambda row: row[1]):
                left -= size
                if left < 0:
                    break
                found[digest] = bytes(content) if location is None else await self._load(location, size)
        return found

    async def _load(self, location: str, size: int) -> bytes:
        async with aclosing(self._storage.open(location, 0, size)) as opened:
            return b"".join([piece async for piece in opened])

    def _judge(
        self,
        about: Mapping[str, str | None],
        layers: Sequence[_Layer],
        contents: Mapping[str, bytes],
        identities: tuple[Identity, ...],
    ) -> list[_Read]:
        """For a thread."""
        judge, moment = Judge(identities, self._sigstore), dt.datetime.now(dt.UTC)
        end, read = time.thread_time() + _MOST_SECONDS, []
        for subject, tag in about.items():
            for number, layer in enumerate(layers[:_MOST_LAYERS]):
                if time.thread_time() < end:
                    read.append(_read(subject, tag, number, layer, contents.get(layer.digest), judge, moment))
                else:
                    read.append(_unread(subject, tag, number, "to verify all of its manifest takes too long"))
            if len(layers) > _MOST_LAYERS:
                read.append(_unread(subject, tag, _MOST_LAYERS, "it has more layers than are read"))
        return read

    async def _write(
        self, repository: int, manifest: str, read: Sequence[_Read], identities: tuple[Identity, ...]
    ) -> bool:
        """False: identities changed since."""

        async def work(tx: Transaction) -> bool:
            row = await tx.fetch_one(_LOCK, repository=repository, manifest=manifest)
            if row is None:
                return True
            rows = await tx.fetch_all(KEEP_OF_REPOSITORY, repository=repository)
            if tuple(map(identity_of, rows)) != identities:
                return False
            before = await tx.fetch_all(_PROVEN, repository=repository, manifest=manifest)
            await tx.execute(_FORGET, repository=repository, manifest=manifest)
            await touch(tx, repository)
            where = {"repository": repository, "manifest": manifest}
            await tx.execute_many(_INSERT, [where | _parameters(one) for one in read])
            proofs = [(one, proof) for one in read for proof in one.judgement.proofs]
            await tx.execute_many(
                _PROVE,
                [
                    where
                    | {
                        "subject": one.subject,
                        "number": one.number,
                        "identity": proof.identity,
                        "until": proof.until,
                    }
                    for one, proof in proofs
                ],
            )
            new = {(one.subject, proof.identity) for one, proof in proofs} - {(row[0], row[1]) for row in before}
            if row[0]:
                for subject in sorted({subject for subject, _ in new}):
                    await show_again(tx, repository, subject)
            return True

        return await self._database.unit(work)


class _Layer(Struct, frozen=True):
    media_type: str
    digest: str
    annotations: Mapping[str, str]


def _layers(payload: bytes, media_type: str) -> list[_Layer]:
    """The layers of a manifest; none, when the database is damaged, or it is an index."""
    try:
        manifest = parse_manifest(payload, media_type)
    except (ManifestInvalid, ManifestUnsupported):
        return []
    if not manifest.layers:
        return []
    written = json.loads(payload)["layers"]
    return [
        _Layer(one.media_type, one.digest, given.get("annotations") or {})
        for one, given in zip(manifest.layers, written, strict=True)
    ]


def _read(
    subject: str,
    tag: str | None,
    number: int,
    layer: _Layer,
    content: bytes | None,
    judge: Judge,
    moment: dt.datetime,
) -> _Read:
    """What a layer says of a subject, and whose it is."""
    if content is None:
        return _unread(subject, tag, number, "it is too large to be read, or not there")
    try:
        signature = read_signature(layer.media_type, layer.annotations, content)
    except SignatureInvalid as error:
        return _unread(subject, tag, number, str(error))
    if signature is None:
        return _unread(subject, tag, number, "it is no signature of a kind that is known")
    return _Read(
        subject=subject,
        tag=tag,
        number=number,
        kind=signature.kind,
        format=signature.format,
        predicate_type=_clean(signature.predicate_type),
        signer=_clean(signature.signer),
        signed_at=signature.signed_at,
        judgement=judge.judge(signature, subject, moment),
    )


def _unread(subject: str, tag: str | None, number: int, problem: str) -> _Read:
    kind: Kind = "attestation" if tag is not None and tag.endswith(".att") else "signature"
    return _Read(subject=subject, tag=tag, number=number, kind=kind, judgement=Judgement(problem=problem))


def _parameters(read: _Read) -> dict[str, object]:
    return {
        "subject": read.subject,
        "number": read.number,
        "tag": read.tag,
        "kind": read.kind,
        "format": read.format,
        "predicate_type": read.predicate_type,
        "signer": read.signer,
        "signed_at": read.signed_at,
        "problem": _clean(read.judgement.problem),
        "objection": _clean(read.judgement.objection),
    }


def _clean(text: str) -> str:
    """What a database keeps of a text that somebody pushed."""
    return _UNSTORABLE.sub("", text)


def _record(row: Row, proofs: Iterable[ProvenBy]) -> SignatureRecord:
    manifest, number, tag, kind, format_, predicate_type, signer, signed_at, problem, objection, checked_at = row
    return SignatureRecord(
        manifest=manifest,
        number=number,
        tag=tag,
        kind=kind,
        format=format_,
        predicate_type=predicate_type,
        signer=signer,
        signed_at=signed_at,
        problem=problem,
        objection=objection,
        checked_at=checked_at,
        proofs=tuple(proofs),
    )
