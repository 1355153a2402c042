"""What can go wrong with signatures and with whose they are."""

from __future__ import annotations


class SignaturesError(Exception):
    """Base of all of them."""


class IdentityInvalid(SignaturesError):
    """Not an identity: no key, no certificate, a name that none can have; the message says why."""


class IdentityUnknown(SignaturesError):
    """There is no identity of this name."""


class SignatureInvalid(SignaturesError):
    """Bytes that are no signature of the kind that they say they are; the message says why."""


class TrustRootInvalid(SignaturesError):
    """The trust root of sigstore that is configured cannot be used; the message says why."""
