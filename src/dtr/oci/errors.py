"""What is wrong with a name, a digest, a range or a manifest."""

from __future__ import annotations


class OciError(ValueError):
    """Base of this package's errors."""


class NameInvalid(OciError):
    """Not the name of a repository."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"invalid repository name: {reason}")
        self.name = name


class ReferenceInvalid(OciError):
    """Neither a tag nor a digest."""

    def __init__(self, reference: str) -> None:
        super().__init__(
            "invalid tag: letters, digits, '_', '.' and '-', at most 128, not beginning with '.' or '-'"
        )
        self.reference = reference


class DigestInvalid(OciError):
    """Not a digest."""

    def __init__(self, digest: str, reason: str = "invalid digest") -> None:
        super().__init__(reason)
        self.digest = digest


class DigestUnsupported(DigestInvalid):
    """A digest by an algorithm that the registry does not know."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest, "unsupported digest algorithm: the registry knows sha256 and sha512")


class ManifestInvalid(OciError):
    """The manifest breaks a rule; the message says which."""


class ManifestUnsupported(ManifestInvalid):
    """A kind of manifest that the registry does not take."""


class RangeNotSatisfiable(OciError):
    """The range begins behind the last byte."""

    def __init__(self, size: int) -> None:
        super().__init__(f"the range is outside of the {size} bytes")
        self.size = size


class ContentRangeInvalid(OciError):
    """The header cannot be read."""

    def __init__(self) -> None:
        super().__init__("Content-Range is not <first>-<last>")
