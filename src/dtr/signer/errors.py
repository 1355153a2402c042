"""What the signer refuses, and what goes wrong on the way to it."""

from __future__ import annotations

_SHOWN = 64
"""Characters of what was asked for that a message repeats."""


class SignerError(Exception):
    """Base of this package's errors. No message of them holds anything secret."""


class KeyUnknown(SignerError):
    """The signer has no key of this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"the signer has no key {key_id[:_SHOWN]}")
        self.key_id = key_id


class AlgorithmUnsupported(SignerError):
    """The signer makes no keys of this algorithm."""

    def __init__(self, algorithm: str) -> None:
        super().__init__(f"the signer makes no keys of the algorithm {algorithm[:_SHOWN]}")
        self.algorithm = algorithm


class RequestRefused(SignerError):
    """The signer will not do this: a key of a client's role, or a text that is not of the key's."""


class SignerFailed(SignerError):
    """The signer cannot do it: the passphrase of the key is missing or another one, or its row is damaged."""


class SignerUnavailable(SignerError):
    """The signer did not answer in time, is not there, or one of the two did not show the right certificate."""
