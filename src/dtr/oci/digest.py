"""Digests: OCI image specification 1.1, "Descriptors", section "Digests"."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, ClassVar, Self

from dtr.oci.errors import DigestInvalid, DigestUnsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

_REGISTERED = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_ANY = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")


class Digest(str):
    """``algorithm:hex`` of some bytes, in its one valid form; made by `parse` and `of`."""

    __slots__ = ()

    ALGORITHMS: ClassVar[Mapping[str, int]] = {"sha256": 64, "sha512": 128}
    """The known algorithms, and how many hexadecimal digits they give."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The digest written as `text`. Raises DigestInvalid, DigestUnsupported."""
        if _REGISTERED.fullmatch(text) is None:
            algorithm = text.partition(":")[0]
            if _ANY.fullmatch(text) and algorithm not in cls.ALGORITHMS:
                raise DigestUnsupported(text)
            raise DigestInvalid(text)
        return cls(text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Self:
        """The digest of `data`."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()}")

    @property
    def algorithm(self) -> str:
        """The part before the colon."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The part after the colon."""
        return self.partition(":")[2]
