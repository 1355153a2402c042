"""
How signatures are written: cosign's payloads, DSSE, sigstore's bundles, Notation's JWS and COSE. No I/O.

What is read is what somebody pushed. A layer gives one `Signature`, which says what it is about, which
certificates it comes with, and whether it was made with a key; whose that is, is decided elsewhere (`judging`).
Where it is about another manifest than the one that it refers to, it is of no use: somebody copied it.

Sources: cosign's specifications SIGNATURE_SPEC.md and BUNDLE_SPEC.md; DSSE 1.0 ("protocol"); the in-toto statement
1.0; sigstore's bundle 0.1 to 0.3 (protobuf-specs, `sigstore_bundle.proto`); Notary Project, "Signature
Specification", "JWS Envelope", "COSE Envelope"; RFC 7515, RFC 9052, RFC 9360.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dtr.signatures.errors import SignatureInvalid
from dtr.signatures.keys import (
    is_signed,
    is_signed_by_notation,
    name_of,
    read_chain,
    read_pem_chain,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.x509 import Certificate

    from dtr.signatures.keys import PublicKey

Kind: TypeAlias = Literal["signature", "attestation"]
Format: TypeAlias = Literal["cosign", "dsse", "bundle", "jws", "cose"]
"""cosign's payloads, DSSE envelopes by themselves, sigstore's bundles; the last two are Notation's."""

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle"
JWS = "application/jose+json"
COSE = "application/cose"

_COSIGN_STATEMENT = "https://sigstore.dev/cosign/sign/v1"
"""What cosign's bundles state of an image: that it was signed, and nothing more."""
_STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
_NOTATION_PAYLOAD = "application/vnd.cncf.notary.payload.v1+json"
_SCHEME = "io.cncf.notary.signingScheme"
_TIME = "io.cncf.notary.signingTime"
_EXPIRY = "io.cncf.notary.expiry"
_X509 = "notary.x509"
_COSE_ALGORITHMS = {-7: "ES256", -35: "ES384", -36: "ES512", -37: "PS256", -38: "PS384", -39: "PS512"}
_COSE_SIGN1, _COSE_DATE = 18, 1
_ALG, _CRIT, _CTY, _X5CHAIN = 1, 2, 3, 33
"""Parameters of COSE's headers (RFC 9052, section 3.1; RFC 9360, section 2)."""
_REFUSED_TAGS = (4, 5, 25, 28, 29, 30, 35, 36, 256, 258)
"""Of fractions, references, sets, regular expressions, mail: no envelope has them, and to decode them is work."""
_DEEPEST = 20
_LATEST = 253_402_300_799_999
"""The end of the year 9999."""
_LONGEST_TEXT = 500
_MOST_SUBJECTS, _MOST_SIGNERS = 1000, 10

_Check: TypeAlias = "Callable[[PublicKey], bool]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """
    A signature, which may be nobody's. Moments in milliseconds since 1970 UTC.

    `subjects` are the digests of what it is about: that it says so is part of what was signed.
    """

    kind: Kind
    format: Format
    subjects: frozenset[str]
    check: _Check = field(repr=False, compare=False)
    """Whether it was made with a key; raises SignatureInvalid for one that cannot have."""
    chain: tuple[Certificate, ...] = ()
    """The certificates that it comes with, the signer's first; without any, only a key tells whose it is."""
    predicate_type: str = ""
    """Of an attestation: what it states."""
    signer: str = ""
    """Who it says that it is of."""
    signed_at: int | None = None
    """When it says that it was made."""
    expires_at: int | None = None
    """When it ends to count, as its signer wanted."""
    bundle: bytes | None = field(default=None, repr=False, compare=False)
    """sigstore's bundle as it was written, for those whose certificate lived for a moment."""
    needs_chain: bool = False
    """It is made with a certificate, and a key alone is not enough."""

    def require_about(self, digest: str) -> None:
        """Raise SignatureInvalid unless it is about what has this digest."""
        if digest not in self.subjects:
            raise SignatureInvalid("it is a signature of something else")


def read_signature(media_type: str, annotations: Mapping[str, str], content: bytes) -> Signature | None:
    """
    The signature in a layer of this type, with the annotations that the manifest has for it.

    None: it is none of those that are known. Raises SignatureInvalid.
    """
    if media_type == SIMPLE_SIGNING:
        return _read_simple_signing(annotations, content)
    if media_type == DSSE:
        return _with_annotated_chain(_read_dsse(_object(content, "the envelope"), "dsse"), annotations)
    if media_type.startswith(BUNDLE):
        return _read_bundle(content)
    if media_type == JWS:
        return _read_jws(content)
    if media_type == COSE:
        return _read_cose(content)
    return None


# --- cosign ---------------------------------------------------------------------------------------------------


def _read_simple_signing(annotations: Mapping[str, str], content: bytes) -> Signature:
    """Cosign's SIGNATURE_SPEC: the layer is what was signed, the signature stands beside it."""
    critical = _member(_object(content, "the payload"), "critical", dict)
    if _member(critical, "type", str) != "cosign container image signature":
        raise SignatureInvalid("the payload is not that of an image's signature")
    digest = _member(_member(critical, "image", dict), "docker-manifest-digest", str)
    signature = _base64(annotations.get("dev.cosignproject.cosign/signature", ""), "the signature")
    made = Signature(
        kind="signature",
        format="cosign",
        subjects=frozenset({digest}),
        check=partial(is_signed, signature=signature, message=content),
    )
    return _with_annotated_chain(made, annotations)


def _with_annotated_chain(signature: Signature, annotations: Mapping[str, str]) -> Signature:
    """With the certificates that cosign writes beside it, as PEM."""
    leaf = annotations.get("dev.sigstore.cosign/certificate")
    if not leaf:
        return signature
    chain = read_pem_chain(leaf + "\n" + annotations.get("dev.sigstore.cosign/chain", ""))
    return replace(signature, chain=chain, signer=name_of(chain[0])[:_LONGEST_TEXT])


# --- DSSE, bundles --------------------------------------------------------------------------------------------


def _read_dsse(envelope: Mapping[str, Any], written_as: Format) -> Signature:
    """DSSE: what was signed is a type and a payload, here a statement of in-toto."""
    payload_type = _member(envelope, "payloadType", str)
    payload = _base64(_member(envelope, "payload", str), "the payload")
    given = _member(envelope, "signatures", list)
    if not 0 < len(given) <= _MOST_SIGNERS:
        raise SignatureInvalid(f"an envelope has 1 to {_MOST_SIGNERS} signatures")
    signatures = [_base64(_member(_mapping(one, "a signature"), "sig", str), "a signature") for one in given]
    if payload_type != "application/vnd.in-toto+json":
        raise SignatureInvalid("the envelope has no statement of in-toto")
    statement = _object(payload, "the statement")
    if _member(statement, "_type", str) not in _STATEMENTS:
        raise SignatureInvalid("the envelope has no statement of a known version")
    subjects = _member(statement, "subject", list)
    if len(subjects) > _MOST_SUBJECTS:
        raise SignatureInvalid(f"a statement is about {_MOST_SUBJECTS} things at most")
    predicate = _member(statement, "predicateType", str)
    kind: Kind = "signature" if predicate == _COSIGN_STATEMENT and written_as == "bundle" else "attestation"
    return Signature(
        kind=kind,
        format=written_as,
        subjects=frozenset(filter(None, map(_digest_of, subjects))),
        check=partial(_is_signed_by_one, signatures=signatures, message=_dsse_message(payload_type, payload)),
        predicate_type=predicate[:_LONGEST_TEXT],
    )


def _is_signed_by_one(key: PublicKey, *, signatures: list[bytes], message: bytes) -> bool:
    return any(is_signed(key, one, message) for one in signatures)


def _dsse_message(payload_type: str, payload: bytes) -> bytes:
    """DSSE, "Signature Definition": PAE(type, payload)."""
    encoded = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(encoded), encoded, len(payload), payload)


def _digest_of(subject: Any) -> str | None:
    digests = subject.get("digest") if isinstance(subject, dict) else None
    sha256 = digests.get("sha256") if isinstance(digests, dict) else None
    return f"sha256:{sha256}" if isinstance(sha256, str) else None


def _read_bundle(content: bytes) -> Signature:
    bundle = _object(content, "the bundle")
    envelope = bundle.get("dsseEnvelope")
    if envelope is None:
        raise SignatureInvalid("a bundle about an image has a statement")
    made = _read_dsse(_mapping(envelope, "the envelope"), "bundle")
    material = _mapping(bundle.get("verificationMaterial"), "the verification material")
    chain: list[Any] = []
    if isinstance(material.get("certificate"), dict):
        chain = [material["certificate"]]
    elif isinstance(material.get("x509CertificateChain"), dict):
        chain = _member(material["x509CertificateChain"], "certificates", list)
    if chain:
        ders = [
            _base64(_member(_mapping(one, "a certificate"), "rawBytes", str), "a certificate") for one in chain
        ]
        certificates = read_chain(ders)
        signer = name_of(certificates[0])[:_LONGEST_TEXT]
        return replace(made, chain=certificates, signer=signer, bundle=content)
    hint = material.get("publicKey")
    hint = hint.get("hint") if isinstance(hint, dict) else None
    return replace(made, signer=hint[:_LONGEST_TEXT] if isinstance(hint, str) else "")


# --- Notation -------------------------------------------------------------------------------------------------


def _read_jws(content: bytes) -> Signature:
    """Notary Project, "JWS Envelope": the flattened JSON form (RFC 7515, section 7.2.2)."""
    envelope = _object(content, "the envelope")
    protected, payload = _member(envelope, "protected", str), _member(envelope, "payload", str)
    header = _object(_base64url(protected, "the header"), "the header")
    critical = header.get("crit")
    chain = read_chain(
        _base64(one, "a certificate") for one in _texts(_member(envelope, "header", dict).get("x5c"), "x5c")
    )
    check = partial(
        is_signed_by_notation,
        algorithm=_member(header, "alg", str),
        signature=_base64url(_member(envelope, "signature", str), "the signature"),
        message=f"{protected}.{payload}".encode(),
    )
    return _notation(
        "jws", header, critical, header.get("cty"), _base64url(payload, "the payload"), chain, check, _rfc3339
    )


def _read_cose(content: bytes) -> Signature:
    """Notary Project, "COSE Envelope": a COSE_Sign1 with its tag (RFC 9052, section 4.2)."""
    import cbor2

    envelope = _cbor(content)
    if not isinstance(envelope, cbor2.CBORTag) or envelope.tag != _COSE_SIGN1:
        raise SignatureInvalid("the envelope is no COSE_Sign1")
    parts = envelope.value
    if not isinstance(parts, list | tuple) or len(parts) != 4:
        raise SignatureInvalid("the envelope is no COSE_Sign1")
    protected, unprotected, payload, signature = parts
    if not all(isinstance(one, bytes) for one in (protected, payload, signature)):
        raise SignatureInvalid("the envelope is no COSE_Sign1")
    header = _mapping(_cbor(protected), "the header")
    given = _mapping(unprotected, "the header").get(_X5CHAIN)
    chain = read_chain([given] if isinstance(given, bytes) else given if isinstance(given, list | tuple) else [])
    algorithm = header.get(_ALG)
    check = partial(
        is_signed_by_notation,
        algorithm=_COSE_ALGORITHMS.get(algorithm, "") if isinstance(algorithm, int) else "",
        signature=signature,
        message=cbor2.dumps(["Signature1", protected, b"", payload]),
    )
    return _notation("cose", header, header.get(_CRIT), header.get(_CTY), payload, chain, check, _cbor_date)


def _notation(
    written_as: Format,
    header: Mapping[Any, Any],
    critical: Any,
    content_type: Any,
    payload: bytes,
    chain: tuple[Certificate, ...],
    check: _Check,
    read_moment: Callable[[Any], int],
) -> Signature:
    """What both envelopes have: the attributes of "Signed Attributes", and the payload."""
    if (
        not isinstance(critical, list | tuple)
        or not set(critical) <= {_SCHEME, _EXPIRY}
        or _SCHEME not in critical
    ):
        raise SignatureInvalid("the envelope demands what is not understood")
    if header.get(_SCHEME) != _X509:
        # A signing authority vouches for the moment: that takes keys of such authorities.
        raise SignatureInvalid("its signing scheme is not notary.x509")
    if content_type != _NOTATION_PAYLOAD:
        raise SignatureInvalid("the payload is none of Notation's")
    target = _member(_object(payload, "the payload"), "targetArtifact", dict)
    if (_EXPIRY in header) is not (_EXPIRY in critical):
        raise SignatureInvalid("when it expires is not marked as critical")
    return Signature(
        kind="signature",
        format=written_as,
        subjects=frozenset({_member(target, "digest", str)}),
        check=check,
        chain=chain,
        signer=name_of(chain[0])[:_LONGEST_TEXT],
        signed_at=read_moment(header.get(_TIME)),
        expires_at=read_moment(header[_EXPIRY]) if _EXPIRY in header else None,
        needs_chain=True,
    )


def _rfc3339(value: Any) -> int:
    try:
        moment = dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise SignatureInvalid("a moment in it cannot be read") from None
    return _milliseconds(moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC))


def _cbor_date(value: Any) -> int:
    """Tag 1, which the decoder takes for a date already (RFC 8949, section 3.4.2)."""
    if not isinstance(value, dt.datetime):
        raise SignatureInvalid("a moment in it cannot be read")
    return _milliseconds(value)


def _milliseconds(moment: dt.datetime) -> int:
    found = int(moment.timestamp() * 1000)
    if not 0 <= found <= _LATEST:
        raise SignatureInvalid("a moment in it is none of these times")
    return found


# --- reading what others wrote --------------------------------------------------------------------------------


def _object(content: bytes, what: str) -> Mapping[str, Any]:
    """A JSON object; keys that are given twice mean two things to two readers, and are refused."""
    try:
        found = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise SignatureInvalid(f"{what} is nested too deeply") from None
    except ValueError:
        raise SignatureInvalid(f"{what} is not JSON") from None
    return _mapping(found, what)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise SignatureInvalid("a key is given twice")
    return made


def _mapping(value: Any, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise SignatureInvalid(f"{what} is no object")
    return value


def _member(document: Mapping[str, Any], name: str, kind: type) -> Any:
    value = document.get(name)
    if not isinstance(value, kind):
        raise SignatureInvalid(f"{name} is missing, or is something else than it has to be")
    return value


def _texts(value: Any, what: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise SignatureInvalid(f"{what} is not a list of texts")
    return value


def _base64(text: str, what: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise SignatureInvalid(f"{what} is not base64")
    return found


def _base64url(text: str, what: str) -> bytes:
    """RFC 7515, section 2: without padding."""
    try:
        found = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found or "=" in text:
        raise SignatureInvalid(f"{what} is not base64url")
    return found


def _cbor(content: bytes) -> Any:
    import cbor2

    try:
        return cbor2.loads(
            content,
            max_depth=_DEEPEST,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            semantic_decoders=dict.fromkeys(_REFUSED_TAGS, _refuse_tag),
        )
    except (cbor2.CBORDecodeError, ValueError, OverflowError, TypeError):
        raise SignatureInvalid("the envelope is not CBOR") from None


def _refuse_tag(_decoder: Any) -> Any:
    raise SignatureInvalid("the envelope has what none of this kind has")
