"""
Events: the history of the registry, and its audit trail.

`record` writes down what happened, in the transaction of the change itself; `Events` reads it, and
`Retention` deletes what is old.
"""

from __future__ import annotations

from dtr.events.event import SYSTEM, Actor, ActorType, Event, EventType, Kind, Object, record
from dtr.events.history import MOST_COUNTED, Events, Filter, Recorded
from dtr.events.retention import Bounds, Retention

__all__ = [
    "MOST_COUNTED",
    "SYSTEM",
    "Actor",
    "ActorType",
    "Bounds",
    "Event",
    "EventType",
    "Events",
    "Filter",
    "Kind",
    "Object",
    "Recorded",
    "Retention",
    "record",
]
