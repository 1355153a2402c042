"""Events to write, and who does things in them."""

from __future__ import annotations

from typing import Any

from dtr.db import Database
from dtr.events import Actor, Event, Object, record

ADA = Actor("user", "id of ada", "ada", "192.0.2.1")
BOB = Actor("user", "id of bob", "bob", "192.0.2.2")


def made(kind: Any = "CREATE", what: Any = "tag", by: Actor = ADA, **more: Any) -> Event:
    """An event of this type, about a thing of this kind."""
    return Event(type=kind, actor=by, object=Object(what, f"id of {what}", f"name of {what}", "content"), **more)


async def write(database: Database, *happened: Event) -> None:
    """Write them down, each with an id of its own."""
    await database.unit(lambda tx: record(tx, *happened))
