"""What operators and their tools ask: ``/_ping``, ``/health``, ``/metrics``, ``/ca``."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cluster
from tests.support.client import Answer, Client
from tests.support.images import digest_of, make_image
from tests.support.server import Server
from tests.support.wire import wait_until

from dtr.http.operations import Operations


def ask(server: Server, path: str, method: str = "GET") -> Answer:
    client = Client(server, None)
    answer = client.send(method, path)
    client.close()
    return answer


def until(server: Server, path: str, status: int) -> Answer:
    """Ask until the answer has this status."""
    deadline = time.monotonic() + 60
    while (answer := ask(server, path)).status != status:
        assert time.monotonic() < deadline, f"{path} still answers {answer.status}: {answer.body!r}"
        time.sleep(0.2)
    return answer


# --- health -----------------------------------------------------------------------------------------------------


def test_a_healthy_registry_says_so_in_dtrs_words(server: Server) -> None:
    assert ask(server, "/_ping").expect(200).body == b'{"Error":"","Healthy":true}'
    health = ask(server, "/health").expect(200)
    assert health.json == {"Error": "", "Healthy": True, "Checks": {"metadata": "", "storage": "", "trust": ""}}
    for answer in (ask(server, "/_ping"), health):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"


def test_a_storage_that_is_away_is_named_and_comes_back(make_server: Callable[..., Server]) -> None:
    server = make_server()
    blobs = server.directory / "blobs"
    blobs.rename(server.directory / "away")
    health = until(server, "/health", 503)
    assert not health.json["Healthy"]
    assert health.json["Checks"] == {"metadata": "", "storage": "the storage default does not answer", "trust": ""}
    assert ask(server, "/_ping").expect(503).json == {
        "Error": "the storage default does not answer",
        "Healthy": False,
    }
    assert str(server.directory) not in health.body.decode()
    (server.directory / "away").rename(blobs)
    until(server, "/health", 200)
    until(server, "/_ping", 200)


def test_a_database_that_is_away_is_named_and_comes_back(
    make_server: Callable[..., Server], own_postgresql: Cluster
) -> None:
    url = own_postgresql.create().replace("dtr@", "dtr:secret-word@")
    server = make_server({"database.url": url}, start=False)
    server.directory.mkdir()
    server.cli("migrate")
    server.start()
    server.make_repository("admin/r")
    client = Client(server)
    image = make_image()
    client.push("admin/r", image, "v1")
    own_postgresql.stop()
    health = until(server, "/health", 503)
    assert health.json["Checks"] == {
        "metadata": "the metadata database does not answer",
        "storage": "",
        "trust": "",
    }
    refused = client.get_manifest("admin/r", "v1").expect(503)
    assert refused.codes == ["UNAVAILABLE"]
    assert int(refused.headers["retry-after"]) > 0
    token = Client(server).send("GET", "/auth/token", headers={"Authorization": client.basic()}).expect(503)
    for answer in (health, refused, token):
        for secret in ("secret-word", "127.0.0.1", str(own_postgresql.port)):
            assert secret not in answer.body.decode()
    own_postgresql.start()
    until(server, "/health", 200)
    client.assert_whole("admin/r", image, "v1")
    assert "secret-word" not in server.log


def test_many_that_ask_for_health_wear_nothing_out(server: Server) -> None:
    """An answer is good for some seconds: not each of them reads the database."""
    before, began = metric(server, "dtr_database_seconds_count", operation="read"), time.monotonic()
    client = Client(server, None)
    for _ in range(600):
        client.send("GET", "/health").expect(200)
    seconds = time.monotonic() - began
    reads = metric(server, "dtr_database_seconds_count", operation="read") - before
    # What looks after jobs, settings and storages reads some fifteen times a second.
    assert reads < 300 + 25 * seconds


# --- metrics ----------------------------------------------------------------------------------------------------


def metric(server: Server, name: str, **labels: str) -> float:
    """The value of a metric; 0 when nothing was counted."""
    text = ask(server, "/metrics").expect(200).body.decode()
    for line in text.splitlines():
        match = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? (\S+)", line)
        if match and match[1] == name and dict(re.findall(r'(\w+)="([^"]*)"', match[2] or "")) == labels:
            return float(match[3])
    return 0.0


def until_metric(server: Server, least: float, name: str, **labels: str) -> float:
    """The value of a metric once it is at least so much: workers tell each other with a delay."""
    deadline = time.monotonic() + 60
    while (value := metric(server, name, **labels)) < least:
        assert time.monotonic() < deadline, f"{name} {labels} is {value}, not {least}"
        time.sleep(0.1)
    return value


def test_requests_are_counted_by_route_method_and_status_over_all_workers(
    make_server: Callable[..., Server],
) -> None:
    server = make_server(workers=3)
    server.make_repository("admin/r")
    image = make_image()
    pusher = Client(server)
    pusher.push("admin/r", image, "v1")
    for number in range(24):
        client = Client(server)  # each connection may go to another worker
        client.get_manifest("admin/r", "v1").expect(200)
        client.get_manifest("admin/r", f"none{number}").expect(404)
        client.close()
    labels = {"route": "manifests", "method": "GET"}
    assert until_metric(server, 24, "dtr_requests_total", **labels, status="200") == 24
    assert until_metric(server, 24, "dtr_requests_total", **labels, status="404") == 24
    assert until_metric(server, 48, "dtr_request_seconds_count", route="manifests") >= 48
    assert until_metric(server, 25, "dtr_requests_total", route="token", method="GET", status="200") >= 25


def test_bytes_are_counted_in_both_directions_however_they_go(make_server: Callable[..., Server]) -> None:
    server = make_server()
    server.make_repository("admin/r")
    client = Client(server)
    small, large = 1000 * b"s", 700_000 * b"l"
    for data in (small, large):
        client.push_blob("admin/r", data)
    until_metric(server, len(small + large), "dtr_transfer_bytes_total", direction="in")
    before = metric(server, "dtr_transfer_bytes_total", direction="out")
    for data in (small, large):
        client.get_blob("admin/r", digest_of(data)).expect(200)
    until_metric(server, before + len(small + large), "dtr_transfer_bytes_total", direction="out")


def test_times_of_database_and_storage_are_counted(server: Server) -> None:
    server.make_repository("admin/timed")
    Client(server).push_blob("admin/timed", bytes(100_000))  # what is small is in the database
    for operation in ("read", "write"):
        until_metric(server, 1, "dtr_database_seconds_count", operation=operation)
        until_metric(server, 1e-9, "dtr_database_seconds_sum", operation=operation)
    storage = re.compile(rb'^dtr_storage_seconds_count\{operation="\w+",storage="default"\} [1-9]', re.MULTILINE)
    wait_until(lambda: storage.search(ask(server, "/metrics").body))  # of whichever worker


def test_the_request_that_asks_is_the_one_that_runs(make_server: Callable[..., Server]) -> None:
    server = make_server()
    assert metric(server, "dtr_requests_running") == 1
    assert metric(server, "dtr_requests_running") == 1


def test_metrics_are_text_for_prometheus_and_tell_no_names(make_server: Callable[..., Server]) -> None:
    server = make_server()
    server.make_user("someone")
    server.make_repository("someone/secret-name")
    Client(server, "someone").push("someone/secret-name", make_image(), "v1")
    for path in ("/v2/a/made-up-path", "/made-up-path", "/v2/made/up/tags/list"):
        ask(server, path)
    answer = ask(server, "/metrics").expect(200)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"# TYPE dtr_requests_total counter" in answer.body
    for name in (b"someone", b"secret-name", b"made-up-path"):
        assert name not in answer.body


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("127.0.0.1", 200),
        ("10.1.2.3", 200),
        ("192.168.0.9", 200),
        ("fd00::1", 200),
        ("::1", 200),
        ("::ffff:10.1.2.3", 200),
        ("8.8.8.8", 403),
        ("2606:4700::1111", 403),
        ("::ffff:8.8.8.8", 403),
    ],
)
async def test_metrics_are_for_private_networks(address: str, status: int) -> None:
    assert (await answer_of(operations(), "/metrics", client=(address, 1)))[0] == status


def operations(authority: Path | None = None) -> Operations:
    async def render() -> bytes:
        return b"metrics"

    nothing: Any = None  # neither database nor storage is asked
    return Operations(nothing, authority=authority, metrics=render)


async def answer_of(application: Operations, path: str, client: tuple[str, int] | None) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await application({"path": path, "method": "GET", "client": client}, receive, send)
    return sent[0]["status"], sent[1]["body"]


# --- the certificate --------------------------------------------------------------------------------------------


def test_the_authority_is_served_as_clients_need_it(server: Server) -> None:
    answer = ask(server, "/ca").expect(200)
    assert answer.body == server.ca.read_bytes()
    assert b"PRIVATE" not in answer.body
    assert answer.headers["content-type"] == "application/x-pem-file"
    context = ssl.create_default_context(cadata=answer.body.decode())
    assert context.cert_store_stats()["x509_ca"] == 1


async def test_there_is_no_authority_to_serve_for_a_certificate_of_a_public_one() -> None:
    status, body = await answer_of(operations(), "/ca", client=None)
    assert status == 404
    assert b"public authority" in body


# --- for all of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/_ping", "/health", "/metrics", "/ca"])
def test_only_reading_is_allowed(server: Server, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(server, path, method).expect(405).headers["allow"] == "GET, HEAD"
    head = ask(server, path, "HEAD").expect(200)
    assert head.body == b""
    assert int(head.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/nothing", "/_ping/", "/health/x", "/metrics/", "/.well-known/x"])
def test_there_is_nothing_elsewhere(server: Server, path: str) -> None:
    for method in ("GET", "POST"):
        assert ask(server, path, method).status == 404
