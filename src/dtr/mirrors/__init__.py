"""
Mirrors: what is here is brought to other registries, and what is there comes here.

`Local` is our side of a transfer, and a `Transfer` brings images from side to side: a `PushMirror` and
a `PollMirror` as the `MirroringPolicies` say, a `Cache` what is asked for and is not here, from its `Upstreams`.
"""

from __future__ import annotations

from dtr.mirrors.cache import Cache, Wanted
from dtr.mirrors.errors import (
    BlobShort,
    MirrorError,
    MirroringFailed,
    MirroringPolicyUnknown,
    TransferFailed,
    UpstreamFailed,
    UpstreamInvalid,
    UpstreamUnknown,
)
from dtr.mirrors.local import Local, Place, read_manifest
from dtr.mirrors.policies import (
    POLL,
    PUSH,
    SCHEDULE,
    Direction,
    MirroredTag,
    Mirroring,
    MirroringPolicies,
    MirroringPolicy,
    Status,
)
from dtr.mirrors.polling import PollMirror
from dtr.mirrors.pushing import PushMirror
from dtr.mirrors.refetching import Refetch
from dtr.mirrors.transfer import Transfer
from dtr.mirrors.upstreams import Upstream, Upstreams
from dtr.mirrors.work import STATUS_CODES

__all__ = [
    "POLL",
    "PUSH",
    "SCHEDULE",
    "STATUS_CODES",
    "BlobShort",
    "Cache",
    "Direction",
    "Local",
    "MirrorError",
    "MirroredTag",
    "Mirroring",
    "MirroringFailed",
    "MirroringPolicies",
    "MirroringPolicy",
    "MirroringPolicyUnknown",
    "Place",
    "PollMirror",
    "PushMirror",
    "Refetch",
    "Status",
    "Transfer",
    "TransferFailed",
    "Upstream",
    "UpstreamFailed",
    "UpstreamInvalid",
    "UpstreamUnknown",
    "Upstreams",
    "Wanted",
    "read_manifest",
]
