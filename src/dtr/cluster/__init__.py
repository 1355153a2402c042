"""
The installation as a whole: its replicas, its health, and what its administrators should know.

A replica is a process tree with a data directory of its own; all of an installation share database and storage.
"""

from __future__ import annotations

from dtr.cluster.alerts import Alert, Alerts
from dtr.cluster.health import Component, Health
from dtr.cluster.replicas import Replica, Replicas, Seen, replica_id

__all__ = ["Alert", "Alerts", "Component", "Health", "Replica", "Replicas", "Seen", "replica_id"]
