"""
``/api/v0/signingIdentities``: whose signatures count; ``…/signatures/{reference}``: those of an image.

Identities of the whole registry are the business of system administrators, those of a namespace of its owners.
"""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import Query, Response
from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Form, Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.repositories import FROM_REPOSITORY, ON_REPOSITORY, PathDep
from dtr.http.api.rooms import RoomsDep
from dtr.oci import Digest, OciError, parse_reference
from dtr.signatures import Identity, IdentityUnknown
from dtr.storage import StorageError

if TYPE_CHECKING:
    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms
    from dtr.signatures import ProvenBy, SignatureRecord, Summary

router = Router(prefix="/api/v0/signingIdentities", tags=["signatures"])
repository_router = Router(
    prefix="/api/v0/repositories/{namespace}/{reponame:path}/signatures", tags=["signatures"]
)

_SEE = (Operation.SEE_ACCOUNTS, Operation.SEE_NAMESPACE_ACCESS)
_MANAGE = (Operation.ADMINISTER, Operation.MANAGE_SIGNING_IDENTITIES)
"""On identities of the whole registry, and on those of a namespace."""
_IN_NAMESPACE = ("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT")
_MOST_RECORDS = 1000

_Kind = Annotated[
    Literal["key", "certificate", "keyless"],
    Field(
        description="`key`: a public key. `certificate`: whom an authority certified, or one certified signer."
        " `keyless`: who logged in somewhere for a certificate of sigstore's."
    ),
]
_Namespace = Annotated[str, Query(description="Those of a namespace; empty: of the whole registry.")]


class SigningIdentityRecord(Record):
    """Whose signatures count."""

    name: str
    namespace: str = Field(description="In whose repositories they do; empty: in all.")
    id: str = Field(description="Never changes.")
    kind: _Kind
    content: str = Field(description="PEM of the key or the certificates; of `keyless` the issuer of the log-ins.")
    subject: str = Field(description="Whom the certificate has to be of; empty: anybody.")
    fingerprint: str = Field(
        description="SHA-256 of the key, or of that of the first certificate, in DER; `keyless`: empty."
    )
    created_at: dt.datetime

    @classmethod
    def of(cls, identity: Identity) -> SigningIdentityRecord:
        """The record of an identity."""
        return cls(
            name=identity.name,
            namespace=identity.namespace,
            id=identity.id,
            kind=identity.kind,
            content=identity.content,
            subject=identity.subject,
            fingerprint=identity.fingerprint,
            created_at=moment(identity.created_at),
        )


class SigningIdentityForm(Form):
    """Whose signatures are to count."""

    kind: _Kind
    content: str = Field(
        max_length=65_536,
        description="PEM of the public key, or of certificates (authorities, or the signer's own); of `keyless`"
        " `https://` and the issuer of the log-ins.",
    )
    subject: str = Field(
        "",
        max_length=1000,
        description="Of `certificate`: attributes that the signer's has to have, `CN=release,O=Acme` (RFC 4514);"
        " empty: any. Of `keyless`: the mail address or URL of who signs.",
    )


class ProofRecord(Record):
    """Whose a signature is."""

    identity: str = Field(description="`NAMESPACE/NAME`; of the whole registry `NAME`.")
    kind: _Kind
    fingerprint: str = Field(description="That of the identity; `keyless`: empty.")
    valid_until: dt.datetime | None = Field(None, description="Missing: for ever.")

    @classmethod
    def of(cls, proof: ProvenBy) -> ProofRecord:
        """The record of what was proved."""
        return cls(
            identity=proof.name,
            kind=proof.kind,
            fingerprint=proof.fingerprint,
            valid_until=None if proof.valid_until is None else moment(proof.valid_until),
        )


class SignatureView(Record):
    """A signature, or an attestation, of an image."""

    id: str
    manifest: str = Field(description="Digest of the manifest that it is in.")
    tag: str | None = Field(None, description="The tag by which it is found; missing: it is a referrer.")
    kind: Literal["signature", "attestation"] = Field(
        description="An attestation states something of the image, and does not sign it."
    )
    format: Literal["cosign", "dsse", "bundle", "jws", "cose", ""] = Field(
        description="`cosign`, `dsse` and `bundle` are cosign's, `jws` and `cose` Notation's; empty: it is none"
        " that can be read."
    )
    predicate_type: str | None = Field(None, description="What is stated.")
    state: Literal["verified", "unknown", "invalid"] = Field(
        description="`verified`: it is that of an identity. `unknown`: of nobody who is registered. `invalid`: it"
        " cannot count for anybody."
    )
    reason: str | None = Field(None, description="Why it is not verified, where that is known.")
    signer: str | None = Field(None, description="Who it says that it is of; that may be anybody's word.")
    signed_at: dt.datetime | None = Field(None, description="When it says that it was made.")
    checked_at: dt.datetime = Field(description="When it was last verified, or tried to be.")
    verified_by: list[ProofRecord]

    @classmethod
    def of(cls, signature: SignatureRecord) -> SignatureView:
        """The record of a signature."""
        return cls(
            id=signature.id,
            manifest=signature.manifest,
            tag=signature.tag,
            kind=signature.kind,
            format=signature.format,
            predicate_type=signature.predicate_type or None,
            state="verified" if signature.proofs else "invalid" if signature.problem else "unknown",
            reason=signature.problem or signature.objection or None,
            signer=signature.signer or None,
            signed_at=None if signature.signed_at is None else moment(signature.signed_at),
            checked_at=moment(signature.checked_at),
            verified_by=[ProofRecord.of(one) for one in signature.proofs],
        )


class SignaturesOfTag(Record):
    """What is known of the signatures of what a tag names."""

    signatures: int = Field(description="How many there are, whoever they are of.")
    attestations: int = Field(description="What is stated of it, by whomever.")
    verified_by: list[str] = Field(
        description="Identities of which one was verified: `NAMESPACE/NAME`, or `NAME` of the whole registry."
    )

    @classmethod
    def of(cls, summary: Summary) -> SignaturesOfTag:
        """The record of a summary."""
        return cls(
            signatures=summary.signatures,
            attestations=summary.attestations,
            verified_by=list(summary.verified_by),
        )


# --- identities -----------------------------------------------------------------------------------------------


@router.get("", summary="Signing identities", responses=errors(*_IN_NAMESPACE))
async def list_signing_identities(
    caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response, namespace: _Namespace = ""
) -> list[SigningIdentityRecord]:
    """Of a namespace for its members, and auditors; of the whole registry for all users. By name."""
    owner = await _place(caller, namespace, _SEE)
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.identities.count(owner))
    found = await rooms.identities.list_identities(owner, start=page.start, limit=page.limit)
    return [SigningIdentityRecord.of(one) for one in page.cut(response, found, lambda one: one.name)]


@router.get(
    "/{identity}", summary="A signing identity", responses=errors(*_IN_NAMESPACE, "NO_SUCH_SIGNING_IDENTITY")
)
async def get_signing_identity(
    identity: str, caller: CallerDep, rooms: RoomsDep, namespace: _Namespace = ""
) -> SigningIdentityRecord:
    """For those who may list them."""
    owner = await _place(caller, namespace, _SEE)
    return SigningIdentityRecord.of(await rooms.identities.get(owner, identity))


@router.put(
    "/{identity}",
    summary="Register whose signatures count",
    responses=errors(*_IN_NAMESPACE, "INVALID_SIGNING_IDENTITY"),
)
async def put_signing_identity(
    identity: str, form: SigningIdentityForm, caller: CallerDep, rooms: RoomsDep, namespace: _Namespace = ""
) -> SigningIdentityRecord:
    """
    For the owners of the namespace; for the whole registry, administrators. One of this name gets another key.

    Signatures that are there are verified again soon; what was verified with the key before counts no more.
    """
    owner = await _place(caller, namespace, _MANAGE)
    wanted = Identity(
        name=identity, namespace_id=owner, kind=form.kind, content=form.content, subject=form.subject
    )
    return SigningIdentityRecord.of(await rooms.identities.put(wanted, by=caller.actor))


@router.delete(
    "/{identity}", status_code=204, summary="Revoke a signing identity", responses=errors(*_IN_NAMESPACE)
)
async def delete_signing_identity(
    identity: str, caller: CallerDep, rooms: RoomsDep, namespace: _Namespace = ""
) -> None:
    """For the same. Its signatures count no more, at once; also when there is none."""
    owner = await _place(caller, namespace, _MANAGE)
    try:
        await rooms.identities.delete(owner, identity, by=caller.actor)
    except IdentityUnknown:
        return


# --- signatures -----------------------------------------------------------------------------------------------


@repository_router.get(
    "/{reference}",
    summary="Signatures of an image",
    response_model_exclude_none=True,
    responses=errors(*FROM_REPOSITORY, "NO_SUCH_REF"),
)
async def list_signatures(
    path: PathDep, reference: str, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[SignatureView]:
    """And attestations, of what a tag or digest names; for those who see tags. The page starts with an id."""
    repository = await caller.require_on(path, Operation.SEE_TAGS)
    digest = await _digest(rooms, path, reference)
    page = page.at_most(_MOST_RECORDS)
    found = await rooms.signatures.list_signatures(repository, digest, start=page.start, limit=page.limit)
    return [SignatureView.of(one) for one in page.cut(response, found, lambda one: one.id)]


@repository_router.post(
    "/{reference}",
    summary="Verify the signatures of an image again",
    status_code=204,
    responses=errors(*ON_REPOSITORY, "NO_SUCH_REF"),
)
async def verify_signatures(path: PathDep, reference: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """
    For those who may push. Up to 100 manifests that refer to it are read again.

    It is done by itself when a signature comes or an identity changes: this is for whoever does not want to wait.
    """
    repository = await caller.require_on(path, Operation.PUSH)
    digest = await _digest(rooms, path, reference)
    try:
        await rooms.signatures.verify_of(repository, digest)
    except StorageError as error:
        raise ApiError("UNAVAILABLE", f"a signature cannot be read: {error}") from None


async def _digest(rooms: Rooms, path: str, reference: str) -> str:
    """What a tag or digest names. Raises ApiError: NO_SUCH_REF."""
    try:
        named = parse_reference(reference)
    except OciError:
        raise ApiError("NO_SUCH_REF", reference[:255]) from None
    if isinstance(named, Digest):
        return str(named)  # a signature may have come before what it signs
    return (await rooms.manifests.get(path, str(named))).digest


async def _place(caller: Caller, namespace: str, rights: tuple[Operation, Operation]) -> str | None:
    """The id of the account with that namespace; None: the whole registry. Raises ApiError."""
    if not namespace:
        caller.require(rights[0])
        return None
    return (await caller.require_in(namespace, rights[1])).id
