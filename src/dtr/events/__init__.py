"""
Events: the history of the registry, and its audit trail.

`record` writes down what happened, in the transaction of the change itself; `Events` reads it.
"""

from __future__ import annotations

from dtr.events.event import SYSTEM, Actor, ActorType, Event, EventType, Kind, Object, record
from dtr.events.history import MOST_COUNTED, Events, Filter, Recorded

__all__ = [
    "MOST_COUNTED",
    "SYSTEM",
    "Actor",
    "ActorType",
    "Event",
    "EventType",
    "Events",
    "Filter",
    "Kind",
    "Object",
    "Recorded",
    "record",
]
