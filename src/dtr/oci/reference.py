"""
Names of repositories, and what names a manifest in one: OCI distribution specification 1.1, "Pulling manifests".

All patterns are matched in linear time, whatever the input.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from dtr.oci.digest import Digest
from dtr.oci.errors import NameInvalid, ReferenceInvalid

_LONGEST_NAME = 255
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class RepositoryName(str):
    """The path of a repository: its namespace, and one part or more within it."""

    __slots__ = ()

    @property
    def namespace(self) -> str:
        """The first part: the account that owns it."""
        return self.partition("/")[0]

    @property
    def rest(self) -> str:
        """All but the first part."""
        return self.partition("/")[2]


class Tag(str):
    """A name for a manifest that may move to another one."""

    __slots__ = ()


Reference: TypeAlias = Tag | Digest


def parse_repository_name(text: str) -> RepositoryName:
    """The repository name written as `text`, of one part or more. Raises NameInvalid."""
    if len(text) > _LONGEST_NAME:
        raise NameInvalid(text, f"it is longer than {_LONGEST_NAME} characters")
    for part in text.split("/"):
        if _PART.fullmatch(part) is None:
            raise NameInvalid(
                text,
                "parts are lower-case letters and digits, separated by one '.', '_', '__' or any number of '-'",
            )
    return RepositoryName(text)


def parse_reference(text: str) -> Reference:
    """A tag or a digest. Raises ReferenceInvalid, DigestInvalid, DigestUnsupported."""
    if ":" in text:
        return Digest.parse(text)
    if _TAG.fullmatch(text) is None:
        raise ReferenceInvalid(text)
    return Tag(text)
