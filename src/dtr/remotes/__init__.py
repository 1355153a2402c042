"""
Other registries: `Remotes` talks to them, as the distribution specification says.

A `Remote` says where, what and as whom; `Remotes.connect` gives the `RemoteRepository` behind it. `Definitions`
are those that are stored, which policies point to.
"""

from __future__ import annotations

from dtr.remotes.client import Permissions, RemoteManifest, RemoteRepository, Remotes
from dtr.remotes.definitions import Definition, Definitions, Prepared, add, drop, replace_with
from dtr.remotes.errors import (
    DefinitionError,
    DefinitionInUse,
    DefinitionInvalid,
    DefinitionTaken,
    DefinitionUnknown,
    RemoteBroken,
    RemoteBusy,
    RemoteDenied,
    RemoteError,
    RemoteRefused,
    RemoteUnknown,
    RemoteUnreachable,
)
from dtr.remotes.remote import DOCKER_HUB, Remote

__all__ = [
    "DOCKER_HUB",
    "Definition",
    "DefinitionError",
    "DefinitionInUse",
    "DefinitionInvalid",
    "DefinitionTaken",
    "DefinitionUnknown",
    "Definitions",
    "Permissions",
    "Prepared",
    "Remote",
    "RemoteBroken",
    "RemoteBusy",
    "RemoteDenied",
    "RemoteError",
    "RemoteManifest",
    "RemoteRefused",
    "RemoteRepository",
    "RemoteUnknown",
    "RemoteUnreachable",
    "Remotes",
    "add",
    "drop",
    "replace_with",
]
