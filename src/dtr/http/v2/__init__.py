"""The registry's HTTP API."""

from __future__ import annotations

from dtr.http.v2.app import Options, RegistryAPI

__all__ = ["Options", "RegistryAPI"]
