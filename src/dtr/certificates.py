"""The certificate that clients see: the one that the settings name, or one that dtr makes itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dtr.config import split_address
from dtr.pki import Certificate, ensure_certificate

if TYPE_CHECKING:
    from dtr.config import Settings

_HOST_OF = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::[0-9]+)?")
"""The host of ``HOST[:PORT]``, without brackets."""
_ALL = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def web_certificate(settings: Settings) -> Certificate:
    """
    The certificate for all addresses of TLS, dtr's own and nginx's.

    One that dtr makes itself is made, or renewed when it is time. Raises OSError.
    """
    if settings.tls.certificate is not None and settings.tls.key is not None:
        return Certificate(settings.tls.certificate, settings.tls.key, settings.tls.ca)
    names = list(settings.tls.names)
    if settings.external_address:
        names.append(_HOST_OF.sub(r"\1\2", settings.external_address))
    addresses = filter(None, (settings.https_address, settings.nginx.https_address))
    hosts = {split_address(one)[0] for one in addresses}
    return ensure_certificate(settings.data_dir / "tls", [*names, *(hosts - _ALL)])


def changed_at(certificate: Certificate) -> tuple[int, int]:
    """When its files changed, to notice that they did. Raises OSError."""
    return certificate.chain.stat().st_mtime_ns, certificate.key.stat().st_mtime_ns
