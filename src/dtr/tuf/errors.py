"""What is wrong with metadata of notary v1, and with an update of a collection."""

from __future__ import annotations

from typing import Literal, TypeAlias

RuleName: TypeAlias = Literal["ErrValidation", "ErrBadRoot", "ErrBadTargets", "ErrBadSnapshot", "ErrBadHierarchy"]

_LONGEST_MESSAGE = 300
"""Clients read 1,024 bytes of an error's body; what is beyond ASCII may take six bytes for a character."""


class TufError(ValueError):
    """Base of this package's errors."""


class NotCanonical(TufError):
    """A value that canonical JSON cannot write: a fraction, a number beyond 2^53, or what is not JSON."""


class Malformed(TufError):
    """Bytes that are no metadata file at all (on the wire: MALFORMED_JSON)."""


class MetadataInvalid(TufError):
    """A metadata file whose `signed` is not what its role demands."""


class CertificateInvalid(TufError):
    """Not a certificate, or one that breaks a rule."""


class SignaturesMissing(TufError):
    """A file lacks signatures by its role's keys; the message says how many there are."""


class RuleBroken(TufError):
    """
    An update breaks a rule of validation (on the wire: INVALID_UPDATE with a detail).

    `name` is the type of error that clients know it by; `missing` names what was not there, for ErrBadHierarchy.
    """

    def __init__(self, name: RuleName, message: str, missing: str | None = None) -> None:
        message = message.encode("ascii", "backslashreplace").decode()
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[: _LONGEST_MESSAGE - 3]}..."
        super().__init__(message)
        self.name = name
        self.message = message
        self.missing = missing


class StoredBroken(TufError):
    """What is stored of the collection is broken (on the wire: INVALID_UPDATE without a detail)."""
