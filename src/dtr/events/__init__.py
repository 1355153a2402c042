"""
Events: the history of the registry, and its audit trail.

`record` writes down what happened, in the transaction of the change itself.
"""

from __future__ import annotations

from dtr.events.event import SYSTEM, Actor, Event, EventType, Kind, Object, record

__all__ = ["SYSTEM", "Actor", "Event", "EventType", "Kind", "Object", "record"]
