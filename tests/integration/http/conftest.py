"""A server with the protocol class and a small application, plain and over TLS, on both event loops."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.wire import Peer, Site, wait_until

from dtr.http.transport import Limits
from dtr.pki import Certificate, ensure_certificate, server_context


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return ensure_certificate(tmp_path_factory.mktemp("tls"), ())


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(params=["plain", "tls"])
def scheme(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def make_site(
    tmp_path: Path, certificate: Certificate, loop_kind: str, caplog: pytest.LogCaptureFixture
) -> Iterator[Callable[..., Site]]:
    """A function that starts a server. Nothing may be left of its connections, and nothing may go wrong unseen."""
    made: list[Site] = []
    caplog.set_level(logging.INFO)

    def make(limits: Limits | None = None, *, drain_seconds: float = 10.0) -> Site:
        site = Site(
            tmp_path, server_context(certificate), loop=loop_kind, limits=limits, drain_seconds=drain_seconds
        )
        made.append(site)
        return site.start()

    yield make
    for site in made:
        site.stop()
        assert site.problems == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


@pytest.fixture
def connect(certificate: Certificate, scheme: str) -> Iterator[Callable[..., Peer]]:
    """A function that connects to a site, in the scheme of the test."""
    assert certificate.authority is not None
    context = ssl.create_default_context(cafile=certificate.authority)
    made: list[Peer] = []

    def make(site: Site, *, buffer: int | None = None, shake_hands: bool = True) -> Peer:
        peer = (
            Peer(site.plain_port, buffer=buffer)
            if scheme == "plain"
            else Peer(site.tls_port, context, buffer=buffer, shake_hands=shake_hands)
        )
        made.append(peer)
        return peer

    yield make
    for peer in made:
        peer.close()


@pytest.fixture
def no_leak(site: Site) -> Iterator[None]:
    """The process has as many descriptors after the test as before."""
    before = _descriptors()
    yield
    wait_until(lambda: site.connections == 0 and site.tasks == 0)
    wait_until(lambda: _descriptors() <= before)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
