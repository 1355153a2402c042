"""The token service."""

from __future__ import annotations

from dtr.http.token.app import TokenService

__all__ = ["TokenService"]
