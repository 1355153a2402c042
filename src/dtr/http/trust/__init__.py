"""The notary server's HTTP API: content trust, on the registry's own address."""

from __future__ import annotations

from dtr.http.trust.app import Options, TrustAPI

__all__ = ["Options", "TrustAPI"]
