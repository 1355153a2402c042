"""A server with a signer of its own: dtr's, or a stock notary-signer; and when it is not there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from tests.support.client import Client
from tests.support.notary import walk
from tests.support.server import Server
from tests.support.signer import dtr_signer, make_pair, stock_signer
from tests.support.stopping import stop
from tests.support.trust import Trust
from tests.support.wire import wait_until

from dtr.oci import parse_repository_name
from dtr.registry import Settings

TAGS = {"1": (f"sha256:{'ab' * 32}", 400)}
TAGS2 = {"2": (f"sha256:{'cd' * 32}", 400)}


@pytest.fixture(params=[dtr_signer, stock_signer], ids=["dtr", "stock"])
def signed_server(request, make_server, tmp_path: Path):
    """A server with two workers, its signer, and whether that is a stock one, with keys in memory."""
    pair = make_pair(tmp_path / "signer-tls")
    signing = request.param(tmp_path / "signer", pair).start()
    settings = {
        "trust.signer.address": f"localhost:{signing.port}",
        "trust.signer.ca": pair.server.authority,
        "trust.signer.certificate": pair.client.chain,
        "trust.signer.key": pair.client.key,
    }
    yield make_server(settings, workers=2), signing, request.param is stock_signer
    signing.kill()


def test_a_collection_lives_with_a_signer_of_its_own(signed_server):
    server, signing, is_stock = signed_server
    path = make_repository(server, "admin/app")
    trust = Trust(server)
    gun = trust.gun(path)
    publisher = trust.publisher(gun)
    trust.publish(gun, publisher.first(TAGS)).expect(200)
    assert walk(gun, trust.files(gun)) == {"targets": {"1": TAGS["1"][0]}}
    new = trust.key(gun, "timestamp", new=True)
    trust.publish(gun, publisher.rotate_server_key("timestamp", new)).expect(200)
    before = trust.files(gun)
    walk(gun, before)
    wait_until(lambda: wrong(server) == {})
    # The server itself has no keys, and made no passphrase.
    assert not (server.directory / "signer.passphrases").exists()

    if not is_stock:
        stop(signing.pid)
        begin = time.monotonic()
        assert trust.publish(gun, publisher.sign(TAGS2)).status == 400
        assert time.monotonic() - begin < 15
        assert trust.files(gun) == before  # reading needs no signer
        os.kill(signing.pid, signal.SIGCONT)
    trust.publish(gun, publisher.sign(TAGS2)).expect(200)
    after = trust.files(gun)
    assert set(walk(gun, after)["targets"]) == {"1", "2"}

    signing.kill()
    begin = time.monotonic()
    assert trust.publish(gun, publisher.revoke("2")).status == 400
    assert time.monotonic() - begin < 10
    wait_until(lambda: set(wrong(server)) == {"Trust operational"})
    assert trust.files(gun) == after
    wait_until(lambda: "does not answer: " in server.log)
    if is_stock:
        return  # its keys are gone with it
    signing.start()
    until = time.monotonic() + 60
    while trust.publish(gun, publisher.write("targets")).status != 200:
        assert time.monotonic() < until
        time.sleep(0.2)
    assert set(walk(gun, trust.files(gun))["targets"]) == {"1"}


def make_repository(server: Server, path: str) -> str:
    async def work(application) -> None:
        await application.repositories.create(parse_repository_name(path), Settings())

    server.do(work)
    return path


def wrong(server: Server) -> dict[str, str]:
    """What the health of the server says; it looks once a second."""
    found: dict[str, str] = Client(server).send("GET", "/_notary_server/health").json
    return found
