"""
Events: what happened, who did it, and writing it down.

A change and its event commit together: whoever changes something calls `record` in its unit of work.

Types are DTR's (CREATE, GET, UPDATE, DELETE, SEND, FAIL, SCAN) and LOGIN, which an audit needs beside them. What
an event is about is its object, of a `Kind`; where something went to, or what it was changed into, is its target.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct
from sqlalchemy import BigInteger, column, func, select
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, each_row, now
from dtr.db.schema import events, repositories

if TYPE_CHECKING:
    from dtr.db import Transaction

EventType: TypeAlias = Literal["CREATE", "GET", "UPDATE", "DELETE", "SEND", "FAIL", "SCAN", "LOGIN"]
ActorType: TypeAlias = Literal["user", "robot", "anonymous", "policy", "system"]
Kind: TypeAlias = Literal[
    "repository",
    "tag",
    "manifest",
    "blob",
    "account",
    "member",
    "team",
    "team_member",
    "grant",
    "token",
    "session",
    "public_key",
    "setting",
    "job",
    "cron",
    "action_config",
    "worker",
    "promotion",
    "push_mirroring",
    "poll_mirroring",
    "pruning_policy",
    "promotion_policy",
    "mirroring_policy",
    "upstream",
    "remote",
    "webhook",
    "signing_identity",
    "enforcement_policy",
    "enforcement_exception",
    "pull",
    "trust_collection",
    "trust_tag",
    "storage",
]
"""What can be an object. Later parts of the program add theirs."""


class Actor(Struct, frozen=True):
    """Who does something: the id and name of an account (empty: none), and the address that it came from."""

    type: ActorType
    id: str = ""
    name: str = ""
    address: str = ""


LATEST = 60_000
"""So long after it happened an event is still written down with its moment, in milliseconds."""

SYSTEM = Actor("system")
"""The program itself, and whoever may run its commands on the server."""


class Object(Struct, frozen=True):
    """What an event is about: its id never changes, its name may; `content` is more about it, without secrets."""

    kind: Kind
    id: str
    name: str = ""
    content: str = ""


class Event(Struct, frozen=True, kw_only=True):
    """One thing that happened."""

    type: EventType
    actor: Actor
    object: Object
    target: Object | None = None
    repository: str = ""
    """Path of the repository in which it happened; empty: what the one of this id is called now, or none."""
    repository_id: int | None = None
    age: int = 0
    """Milliseconds since it happened, for what is written down later; at most `LATEST`."""
    times: int = 1
    """How often it happened within about a second, when that is told once."""


FACTS = (
    events.c.type,
    events.c.actor,
    events.c.actor_name,
    events.c.actor_type,
    events.c.address,
    events.c.repository_id,
    events.c.repository,
    events.c.object_type,
    events.c.object_id,
    events.c.object_name,
    events.c.object_content,
    events.c.target_type,
    events.c.target_id,
    events.c.target_name,
    events.c.target_content,
    events.c.times,
)
"""What is written down of an event, beside when."""
_columns = (column("age", BigInteger), *FACTS)
"""What `_row` gives, in its order."""
_given = each_row("happened", *_columns)
_path = select(repositories.c.path).where(repositories.c.id == _given.c.repository_id).scalar_subquery()
_INSERT = Statement(
    lambda: insert(events).from_select(
        ["published_at", *(one.name for one in FACTS)],
        select(
            now() - _given.c.age,
            *(
                func.coalesce(_given.c.repository, _path, "") if one is events.c.repository else _given.c[one.name]
                for one in FACTS
            ),
        ),
    )
)


async def record(tx: Transaction, *happened: Event) -> None:
    """Write events down, in the transaction of what they tell."""
    if happened:
        await tx.execute(_INSERT, happened=json.dumps([_row(event) for event in happened]))


def _row(event: Event) -> list[object]:
    actor, thing, target = event.actor, event.object, event.target
    return [
        min(event.age, LATEST),
        event.type,
        actor.id,
        actor.name,
        actor.type,
        actor.address,
        event.repository_id,
        event.repository or None,
        thing.kind,
        thing.id,
        thing.name,
        thing.content,
        *((target.kind, target.id, target.name, target.content) if target else (None, None, None, None)),
        event.times,
    ]
