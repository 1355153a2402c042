"""
Other registries: `Remotes` talks to them, as the distribution specification says.

A `Remote` says where, what and as whom; `Remotes.connect` gives the `RemoteRepository` behind it.
"""

from __future__ import annotations

from dtr.remotes.client import Permissions, RemoteManifest, RemoteRepository, Remotes
from dtr.remotes.errors import (
    DefinitionError,
    DefinitionInUse,
    DefinitionInvalid,
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
    "DefinitionError",
    "DefinitionInUse",
    "DefinitionInvalid",
    "DefinitionUnknown",
    "Permissions",
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
]
