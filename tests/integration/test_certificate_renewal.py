"""A certificate that was renewed is used without a restart."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.wire import Peer, request, wait_until

from dtr.pki import Certificate, ensure_certificate

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.server import Server

OFTEN = {"tls.reload_seconds": 1}


@pytest.fixture
def own(tmp_path: Path) -> Certificate:
    """A certificate of the operator's own."""
    return ensure_certificate(tmp_path / "own", ["localhost"])


def settings(certificate: Certificate) -> dict[str, object]:
    return {**OFTEN, "tls.certificate": certificate.chain, "tls.key": certificate.key}


def serves(server: Server, authority: Path | None) -> bool:
    """Whether who trusts this authority alone can connect."""
    assert authority is not None
    context = ssl.create_default_context(cafile=authority)
    with socket.create_connection(("127.0.0.1", server.port), 30) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost"):
                return True
        except ssl.SSLCertVerificationError:
            return False


def test_a_certificate_that_its_owner_renewed_is_used_from_then_on(
    make_server: Callable[..., Server], own: Certificate, tmp_path: Path
) -> None:
    server = make_server(settings(own), workers=2)
    assert own.authority is not None
    renewed = ensure_certificate(tmp_path / "renewed", ["localhost"])
    assert not serves(server, renewed.authority)
    with Peer(server.port, ssl.create_default_context(cafile=own.authority)) as old:
        assert old.ask(request("GET", "/_ping")).status == 200
        shutil.copy(renewed.key, own.key)
        shutil.copy(renewed.chain, own.chain)
        # Every worker looks by itself.
        wait_until(lambda: all(serves(server, renewed.authority) for _ in range(20)))
        assert old.ask(request("GET", "/_ping")).status == 200


def test_half_of_a_renewed_certificate_changes_nothing(
    make_server: Callable[..., Server], own: Certificate, tmp_path: Path
) -> None:
    server = make_server(settings(own))
    renewed = ensure_certificate(tmp_path / "renewed", ["localhost"])
    shutil.copy(renewed.chain, own.chain)
    wait_until(lambda: "certificate not reloaded" in server.log)
    assert serves(server, own.authority)
    shutil.copy(renewed.key, own.key)
    wait_until(lambda: serves(server, renewed.authority))


def test_what_dtr_made_itself_is_renewed_in_time(make_server: Callable[..., Server]) -> None:
    server = make_server(OFTEN)
    note = server.directory / "tls" / "server.json"
    before = (server.directory / "tls" / "server.pem").read_bytes()
    content = json.loads(note.read_text())
    note.write_text(json.dumps({**content, "until": "2020-01-01T00:00:00+00:00"}))
    wait_until(lambda: "certificate reloaded" in server.log)
    assert (server.directory / "tls" / "server.pem").read_bytes() != before
    assert serves(server, server.ca)
