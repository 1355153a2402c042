"""
Events: what happened, who did it, and writing it down.

A change and its event commit together: whoever changes something calls `record` in its unit of work.

Types are DTR's (CREATE, GET, UPDATE, DELETE, SEND, FAIL, SCAN) and LOGIN, which an audit needs beside them. What
an event is about is its object, of a `Kind`; where something went to, or what it was changed into, is its target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from sqlalchemy import BigInteger, bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from dtr.db import Statement, now
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
]
"""What can be an object. Later parts of the program add theirs."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: the id and name of an account (empty: none), and the address that it came from."""

    type: ActorType
    id: str = ""
    name: str = ""
    address: str = ""


LATEST = 60_000
"""So long after it happened an event is still written down with its moment, in milliseconds."""

SYSTEM = Actor("system")
"""The program itself, and whoever may run its commands on the server."""


@dataclass(frozen=True, slots=True)
class Object:
    """What an event is about: its id never changes, its name may; `content` is more about it, without secrets."""

    kind: Kind
    id: str
    name: str = ""
    content: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
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


_repository_id = bindparam("repository_id", type_=BigInteger)
_path = select(repositories.c.path).where(repositories.c.id == _repository_id).scalar_subquery()
_INSERT = Statement(
    insert(events).values(
        published_at=now() - bindparam("age", type_=BigInteger),
        type=bindparam("type"),
        actor=bindparam("actor"),
        actor_name=bindparam("actor_name"),
        actor_type=bindparam("actor_type"),
        address=bindparam("address"),
        repository_id=_repository_id,
        repository=func.coalesce(bindparam("repository", type_=events.c.repository.type), _path, ""),
        object_type=bindparam("object_type"),
        object_id=bindparam("object_id"),
        object_name=bindparam("object_name"),
        object_content=bindparam("object_content"),
        target_type=bindparam("target_type"),
        target_id=bindparam("target_id"),
        target_name=bindparam("target_name"),
        target_content=bindparam("target_content"),
    )
)


async def record(tx: Transaction, *happened: Event) -> None:
    """Write events down, in the transaction of what they tell."""
    await tx.execute_many(_INSERT, [_parameters(event) for event in happened])


def _parameters(event: Event) -> dict[str, object]:
    target = event.target
    return {
        "age": min(event.age, LATEST),
        "type": event.type,
        "actor": event.actor.id,
        "actor_name": event.actor.name,
        "actor_type": event.actor.type,
        "address": event.actor.address,
        "repository_id": event.repository_id,
        "repository": event.repository or None,
        "object_type": event.object.kind,
        "object_id": event.object.id,
        "object_name": event.object.name,
        "object_content": event.object.content,
        "target_type": target.kind if target else None,
        "target_id": target.id if target else None,
        "target_name": target.name if target else None,
        "target_content": target.content if target else None,
    }
