"""
Mirrors: what is here is brought to other registries, and what is there comes here.

`Local` is our side of a transfer; `transfer` brings images from the one side to the other.
"""

from __future__ import annotations

from dtr.mirrors.errors import BlobShort, MirrorError, TransferFailed
from dtr.mirrors.local import Local, Place, read_manifest
from dtr.mirrors.transfer import Transfer

__all__ = [
    "BlobShort",
    "Local",
    "MirrorError",
    "Place",
    "Transfer",
    "TransferFailed",
    "read_manifest",
]
