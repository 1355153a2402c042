"""
The configuration of nginx, as a text made from the settings.

nginx does TLS, sends requests to where the components are, and the files of blobs from where they lie: dtr answers
with the place of a file (``X-Accel-Redirect``) when nginx says in a header of its own that it can read that
storage. What nginx cannot read after all it asks dtr for again, without that header.

Limits on bodies and rates are dtr's own, with nginx as without. Every answer has each security header once.
"""

from __future__ import annotations

import re
import resource
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from dtr.config import split_address
from dtr.http.bodies import ACCOUNT, FILES, REACHABLE
from dtr.http.front import HSTS, SECURITY
from dtr.http.transport import Limits
from dtr.nginx.errors import NginxFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jinja2 import Template

    from dtr.config import Limits as ClientLimits
    from dtr.config import Nginx
    from dtr.pki import Certificate

PLACES: tuple[tuple[str, Literal["registry", "garant", "api"]], ...] = (
    ("/", "api"),
    ("/v2", "registry"),
    ("/_notary_server", "registry"),
    ("/auth", "garant"),
    ("= /auth/login", "api"),
)
"""Which component answers where, as nginx writes places; see `Application.front`."""

_PATIENCE_SECONDS = 900
"""For dtr to say something: balancers are asked for more than ten minutes, too."""
_MOST_DESCRIPTORS = 32_768
_HTTP2_DIRECTIVE = (1, 25, 1)
"""The version that has one; those before have a parameter of ``listen``."""
_UNSPEAKABLE = re.compile(r"[\x00-\x1f$]")
"""What nginx cannot be told: a dollar sign begins a variable, and cannot be escaped."""


class Configuration(Struct, frozen=True, kw_only=True):
    """What one depends on."""

    settings: Nginx
    clients: ClientLimits
    """Of the files that nginx sends, how many at once."""
    upstreams: Mapping[str, tuple[str, ...]]
    """``HOST:PORT`` of dtr, by component."""
    certificate: Certificate
    storages: Mapping[str, Path]
    """The roots of the storages with files, by name."""
    directory: Path
    """Where nginx has its own files."""
    user: str | None
    """Whom the workers run as; None: whoever starts nginx."""
    external_port: int
    """Where clients reach HTTPS."""
    version: tuple[int, ...]

    def text(self) -> str:
        """The file. Raises NginxFailed."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return _template().render(
            account_header=ACCOUNT,
            account_transfers=self.clients.account_transfers,
            address_transfers=self.clients.address_transfers,
            authority=None if self.certificate.authority is None else self.directory / "ca.pem",
            certificate=self.certificate,
            client_ca=self.settings.client_ca if self.settings.client_certificates != "off" else None,
            client_certificates=self.settings.client_certificates,
            descriptors=_MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS),
            exempt_networks=self.clients.exempt_networks,
            files_place=FILES,
            has_http2=self.version >= _HTTP2_DIRECTIVE,
            http=self.settings.http_address,
            https=self.settings.https_address,
            limits=Limits(),
            patience=_PATIENCE_SECONDS,
            pid=self.directory / "nginx.pid",
            places=PLACES,
            reachable_header=REACHABLE,
            redirect_port="" if self.external_port == 443 else f":{self.external_port}",
            security_headers=[(header, header.lower().replace("-", "_")) for header in _security()],
            security_values=_security(),
            storages={name: root for name, root in sorted(self.storages.items()) if is_speakable(root)},
            temporary=self.directory / "temporary",
            upstreams=self.upstreams,
            user=self.user,
        )


def is_speakable(path: Path) -> bool:
    """Whether nginx can be told this path."""
    return not _UNSPEAKABLE.search(str(path))


def _security() -> dict[str, str]:
    return {name.decode().title(): value.decode() for name, value in (*SECURITY, HSTS)}


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dtr.nginx", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no page; what is written is quoted by the filters
    )
    environment.filters |= {"path": _quoted, "listen": _listened}
    return environment.get_template("nginx.conf.j2")


def _quoted(path: Path, end: str = "") -> str:
    """A path as nginx reads it."""
    if not is_speakable(path):
        raise NginxFailed(f"nginx cannot be told the path {str(path)!r}: rename it")
    text = f"{path}{end}".replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _listened(address: str) -> str:
    """An address to listen on; one of IPv6 is good for IPv4, too, as it is for dtr itself."""
    host, _ = split_address(address)
    return f"{address} ipv6only=off" if ":" in host else address


def addresses_of(settings: Nginx, own: str | None) -> dict[str, tuple[str, ...]]:
    """
    Where each component is; `own` is where dtr serves plain HTTP here, if it does.

    Raises NginxFailed.
    """
    found: dict[str, tuple[str, ...]] = {}
    given: dict[str, Any] = {"registry": settings.registry, "garant": settings.garant, "api": settings.api}
    for component, addresses in given.items():
        found[component] = addresses or settings.upstreams or ((own,) if own else ())
        if not found[component]:
            raise NginxFailed(
                "nginx has to know where dtr is: set nginx.upstreams, or http_address together with http_serves"
            )
    return found
