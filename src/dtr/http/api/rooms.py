"""The rooms that the API's operations call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from dtr.accounts import Accounts, Tokens
    from dtr.backends import Backends
    from dtr.cluster import Alerts, Health, Replicas
    from dtr.db import Database
    from dtr.enforcement import Enforcement
    from dtr.events import Events
    from dtr.events.tag_history import TagHistory
    from dtr.jobs import ActionDescription, Crons, Jobs, Workers
    from dtr.mirrors import MirroringPolicies, Upstreams
    from dtr.policies import Promotions, Pruning, TagReader
    from dtr.policies.tag_search import TagSearch
    from dtr.registry import (
        Blobs,
        Images,
        Manifests,
        Pins,
        Promotion,
        Pulls,
        Repositories,
        Search,
        Summaries,
        Totals,
        Usage,
    )
    from dtr.registry.attachments import Attachments
    from dtr.remotes import Definitions, Remotes
    from dtr.settings import LiveSettings
    from dtr.signatures import Identities, Signatures
    from dtr.storage import Driver
    from dtr.trust import Trust
    from dtr.trust.index import TrustIndex
    from dtr.webhooks import Deliveries, Webhooks


class Installation(Struct, frozen=True, kw_only=True):
    """What the configuration says about this replica, for administrators."""

    log_level: str
    deletes: bool
    """Clients may delete manifests, tags and blobs."""
    proxies: Mapping[str, str]
    """What leads to the storage: `http`, `https`, and `no` for hosts without; without passwords."""
    certificate: Path | None
    authority: Path | None
    makes_certificate: bool
    """dtr made it, and renews it."""


class Rooms(Struct, frozen=True, kw_only=True):
    """One of each."""

    database: Database
    storage: Driver
    backends: Backends
    accounts: Accounts
    repositories: Repositories
    manifests: Manifests
    blobs: Blobs
    images: Images
    attachments: Attachments
    """What refers to them."""
    signed: TrustIndex
    """What of it is signed in content trust."""
    trust: Trust
    promotion: Promotion
    usage: Usage
    totals: Totals
    live: LiveSettings
    search: Search
    summaries: Summaries
    pins: Pins
    pulls: Pulls
    tokens: Tokens
    events: Events
    tag_history: TagHistory
    pruning: Pruning
    promotions: Promotions
    tag_reader: TagReader
    tag_search: TagSearch
    identities: Identities
    signatures: Signatures
    mirroring: MirroringPolicies
    remotes: Remotes
    definitions: Definitions
    upstreams: Upstreams
    enforcement: Enforcement
    webhooks: Webhooks
    deliveries: Deliveries
    jobs: Jobs
    crons: Crons
    workers: Workers
    actions: Mapping[str, ActionDescription]
    """What jobs can do, by name."""
    replicas: Replicas
    alerts: Alerts
    health: Health
    certificate_findings: Callable[[], Sequence[tuple[bool, str]]]
    """What is wrong with the certificate, and whether clients refuse it. For a thread."""
    installation: Installation


def _rooms(request: Request) -> Rooms:
    rooms: Rooms = request.app.state.rooms
    return rooms


RoomsDep = Annotated[Rooms, Depends(_rooms)]
