"""What the registry refuses, with the facts that a reader of the message needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class RegistryError(Exception):
    """Base of this package's errors."""


class RepositoryUnknown(RegistryError):
    """There is no such repository."""

    def __init__(self, path: str) -> None:
        super().__init__(f"repository {path} is not known")
        self.path = path


class RepositoryExists(RegistryError):
    """The name is taken."""

    def __init__(self, path: str) -> None:
        super().__init__(f"repository {path} exists")
        self.path = path


class NamespaceUnknown(RegistryError):
    """There is no account of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no user or organisation {name}")
        self.name = name


class InvalidSettings(RegistryError):
    """The settings of a repository do not go together."""


class RepositoryChanged(RegistryError):
    """Settings have other values than who changes them has seen: `values` are those that they have."""

    def __init__(self, path: str, values: Mapping[str, object]) -> None:
        super().__init__(f"the settings of repository {path} were changed meanwhile: {', '.join(values)}")
        self.path = path
        self.values = dict(values)


class VisibilityInvalid(InvalidSettings):
    """A repository is public or private, and nothing else."""


class BlobUnknown(RegistryError):
    """The repository holds no such blob."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"blob {digest} is not in this repository")
        self.digest = digest


class BlobReferenced(RegistryError):
    """A manifest of the repository needs the blob."""

    def __init__(self, digest: str, manifest: str) -> None:
        super().__init__(f"blob {digest} is part of manifest {manifest}")
        self.digest = digest
        self.manifest = manifest


class ManifestUnknown(RegistryError):
    """The repository holds no manifest of that tag or digest."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"manifest {reference} is not in this repository")
        self.reference = reference


class ManifestIncomplete(RegistryError):
    """The manifest names blobs or manifests that the repository does not hold."""

    def __init__(self, blobs: Sequence[str], manifests: Sequence[str]) -> None:
        super().__init__(f"the repository lacks {', '.join((*blobs, *manifests))}")
        self.blobs = tuple(blobs)
        self.manifests = tuple(manifests)


class ManifestReferenced(RegistryError):
    """An index of the repository needs the manifest."""

    def __init__(self, digest: str, index: str) -> None:
        super().__init__(f"manifest {digest} is part of index {index}")
        self.digest = digest
        self.index = index


class TooManyManifests(RegistryError):
    """More manifests belong to one than are copied at once."""

    def __init__(self, digest: str, most: int) -> None:
        super().__init__(f"more than {most} manifests belong to {digest}")
        self.digest = digest


class TagImmutable(RegistryError):
    """The repository does not let an existing tag go elsewhere: no tag, or none that `pattern` matches."""

    def __init__(self, tag: str, pattern: str | None = None) -> None:
        super().__init__(f"tag {tag} cannot be overwritten")
        self.tag = tag
        self.pattern = pattern


class TagOfCache(TagImmutable):
    """The repository is a cache: its upstream says what its tags name."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.args = (f"tag {tag} cannot be written: the repository is a cache of another registry",)


class TagSigned(RegistryError):
    """Content trust names the tag, or what it names: it stays until that is taken back, or forgotten."""

    def __init__(self, tag: str) -> None:
        super().__init__(f"tag {tag} is signed in content trust")
        self.tag = tag


class RepositorySigned(RegistryError):
    """Content trust names tags of the repository, which stays until that is taken back."""

    def __init__(self, path: str) -> None:
        super().__init__(f"tags of repository {path} are signed in content trust")
        self.path = path


class DigestMismatch(RegistryError):
    """The content is not what the digest says."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"the content has digest {actual}, not {expected}")
        self.expected = expected
        self.actual = actual


class UploadUnknown(RegistryError):
    """There is no such upload, or no longer."""

    def __init__(self, upload: str) -> None:
        super().__init__(f"upload {upload} is not known")
        self.upload = upload


class UploadOutOfOrder(RegistryError):
    """The bytes do not begin where the upload ends, or are not as many as announced."""

    def __init__(self, upload: str, offset: int) -> None:
        super().__init__(f"upload {upload} goes on at byte {offset}")
        self.upload = upload
        self.offset = offset


class UploadOccupied(RegistryError):
    """Another request writes to the upload."""

    def __init__(self, upload: str) -> None:
        super().__init__(f"another request writes to upload {upload}")
        self.upload = upload


class BlobTooLarge(RegistryError):
    """The blob is larger than the registry takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"a blob has at most {limit} bytes here")
        self.limit = limit


class BodyFailed(RegistryError):
    """The client's body ended early; what came before it is kept."""

    def __init__(self, written: int) -> None:
        super().__init__(f"the body broke off after {written} bytes")
        self.written = written
