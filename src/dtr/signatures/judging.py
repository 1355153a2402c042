"""Whose a signature is: each identity is asked whether it made it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import Struct

from dtr.signatures.errors import SignatureInvalid
from dtr.signatures.keys import is_subject, key_of, read_certificates, read_key, read_subject, trust

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable
    from typing import TypeAlias

    from dtr.signatures.envelopes import Signature
    from dtr.signatures.identities import Identity
    from dtr.signatures.keyless import Sigstore

    _Ask: TypeAlias = Callable[[Signature, dt.datetime], "Proof | None"]


class Proof(Struct, frozen=True):
    """A signature is an identity's; until a moment in milliseconds since 1970 UTC (None: for ever)."""

    identity: str
    """Its id."""
    until: int | None


class Judgement(Struct, frozen=True):
    """Whose a signature is."""

    proofs: tuple[Proof, ...] = ()
    problem: str = ""
    """Why it cannot be anybody's."""
    objection: str = ""
    """Why it does not count for whom it seems to be of."""


@dataclass(slots=True)
class Judge:
    """Knows the identities that count somewhere, with their keys read."""

    identities: tuple[Identity, ...]
    sigstore: Sigstore | None = None
    _asks: list[_Ask] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Read the keys."""
        self._asks = [_ask(one, self.sigstore) for one in self.identities]

    def judge(self, signature: Signature, digest: str, moment: dt.datetime) -> Judgement:
        """Whose a signature of what has `digest` is, at a moment."""
        try:
            signature.require_about(digest)
            if signature.expires_at is not None and signature.expires_at <= moment.timestamp() * 1000:
                raise SignatureInvalid("it is over: its signer wanted it to end")
        except SignatureInvalid as error:
            return Judgement(problem=str(error))
        proofs: list[Proof] = []
        objections: list[str] = []
        for ask in self._asks:
            try:
                proof = ask(signature, moment)
            except SignatureInvalid as error:
                objections.append(str(error))
            else:
                proofs += [proof] if proof else []
        return Judgement(tuple(proofs), objection="" if proofs else next(iter(objections), ""))


def _ask(identity: Identity, sigstore: Sigstore | None) -> _Ask:
    if identity.kind == "key":
        return _ask_key(identity)
    if identity.kind == "certificate":
        return _ask_authority(identity)
    return _ask_keyless(identity, sigstore)


def _ask_key(identity: Identity) -> _Ask:
    key = read_key(identity.content)

    def ask(signature: Signature, _moment: dt.datetime) -> Proof | None:
        if signature.needs_chain or not signature.check(key):
            return None
        return Proof(identity.id, signature.expires_at)

    return ask


def _ask_authority(identity: Identity) -> _Ask:
    registered = read_certificates(identity.content)
    wanted = read_subject(identity.subject) if identity.subject else None

    def ask(signature: Signature, moment: dt.datetime) -> Proof | None:
        trusted = trust(signature.chain, registered, moment) if signature.chain else None
        if trusted is None or (wanted is not None and not is_subject(trusted.leaf, wanted)):
            return None
        if not signature.check(key_of(trusted.leaf)):
            raise SignatureInvalid("it was not made with the key of its certificate")
        ends = [one for one in (trusted.until, signature.expires_at) if one is not None]
        return Proof(identity.id, min(ends))

    return ask


def _ask_keyless(identity: Identity, sigstore: Sigstore | None) -> _Ask:
    def ask(signature: Signature, _moment: dt.datetime) -> Proof | None:
        if sigstore is None or signature.bundle is None or not signature.chain:
            return None
        if not sigstore.verify(signature.bundle, issuer=identity.content, subject=identity.subject):
            return None
        return Proof(identity.id, None)

    return ask
