"""Which addresses a request that a user made the server send may go to. Rules without I/O."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORMS = [  # of IPv4 in IPv6, and what leads there: who gets it, some gateway decides
    ipaddress.ip_network(one)
    for one in (
        "::/96",  # IPv4-compatible (RFC 4291)
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765)
        "64:ff9b::/96",  # NAT64 (RFC 6052)
        "64:ff9b:1::/48",  # NAT64, local (RFC 8215)
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "192.88.99.0/24",  # relays of 6to4
    )
]


class Addresses:
    """All public addresses, and the networks that the administrator allows."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """`allowed`: networks such as ``10.0.0.0/8``, or addresses. Raises ValueError."""
        self._allowed: list[Network] = [ipaddress.ip_network(one) for one in allowed]

    def allows(self, text: str) -> bool:
        """Whether a connection to this address may be made."""
        address = ipaddress.ip_address(text)
        mapped = getattr(address, "ipv4_mapped", None)  # to connect to it is to connect to that
        if any(one in network for one in (address, mapped) if one is not None for network in self._allowed):
            return True
        return (
            address.is_global
            and not (
                address.is_multicast
                or address.is_reserved
                or address.is_loopback
                or address.is_link_local
                or address.is_unspecified
                or getattr(address, "is_site_local", False)
            )
            and not any(address in form for form in _FORMS)
        )
