"""
Content trust: the room of the notary server. Signed files of collections, and an index of what they sign.

A **collection** is a repository under one name of the server (its GUN). Its files are checked by the rules of
`dtr.tuf`, stored byte for byte and never changed: an update is one unit of work, with all its files, the index of
targets, the change that others follow, and its event. Who reads walks from the timestamp, so an update is seen
whole or not at all.

A repository that is renamed keeps its collections under the GUNs that they have: those are part of what was
signed. They are found as long as the old name leads to the repository, and protect its tags; under the new name
trust begins anew. Deleting a repository ends its collections (`end`): who takes its name finds nothing of them.
"""

from __future__ import annotations

from dtr.trust.errors import CannotSign, FileUnknown, RepositoryGone, TrustError, VersionConflict
from dtr.trust.files import Change, Collection, File, Published
from dtr.trust.retention import OldFiles
from dtr.trust.room import Trust, end

__all__ = [
    "CannotSign",
    "Change",
    "Collection",
    "File",
    "FileUnknown",
    "OldFiles",
    "Published",
    "RepositoryGone",
    "Trust",
    "TrustError",
    "VersionConflict",
    "end",
]
