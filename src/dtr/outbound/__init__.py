"""
The way to hosts outside, which users name: which of them may be reached, how, and with whose certificates.

`Addresses` are the rules; an `Outside` makes connections by them.
"""

from __future__ import annotations

from dtr.outbound.addresses import Addresses
from dtr.outbound.errors import (
    AddressInvalid,
    AddressRefused,
    CertificateUntrusted,
    ConnectionFailed,
    OutboundError,
)
from dtr.outbound.outside import Client, Outside, find_fault, trusting

__all__ = [
    "AddressInvalid",
    "AddressRefused",
    "Addresses",
    "CertificateUntrusted",
    "Client",
    "ConnectionFailed",
    "OutboundError",
    "Outside",
    "find_fault",
    "trusting",
]
