"""Why a request to the outside was not answered. Messages are for users, and name nothing inside."""

from __future__ import annotations


class OutboundError(Exception):
    """Base of this package's errors; the message says what happened, without the address."""


class AddressRefused(OutboundError):
    """The host has no address, or none that may be reached: which of the two is not said."""

    def __init__(self) -> None:
        super().__init__("the host has no address, or none that may be reached from here")


class AddressInvalid(OutboundError):
    """What was given is no address, or that of the proxy is none."""

    def __init__(self) -> None:
        super().__init__("the address, or that of the proxy, is not one")


class CertificateUntrusted(OutboundError):
    """TLS was spoken, but with somebody whose certificate is not trusted."""


class ConnectionFailed(OutboundError):
    """There was no connection, or it broke."""
