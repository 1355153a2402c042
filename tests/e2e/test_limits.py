"""What one client may take: the same with dtr alone and with nginx in front of it."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from tests.support.client import Answer, Client
from tests.support.images import make_built_image
from tests.support.nginx import Nginx, run_nginx
from tests.support.server import Server

BODY = os.urandom(16_000_000)
DIGEST = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
SCOPE = "repository:admin/limited:pull,push"
OTHERS = {"X-Forwarded-For": "192.0.2.9"}
"""From a trusted proxy it makes another client; nginx does not hand it on."""
# Both ways: TLS of its own, and plain HTTP for nginx.
BOTH = {"http_serves": True, "trusted_proxies": "127.0.0.0/8"}


@pytest.fixture(params=["dtr alone", "behind nginx"])
def start(request: pytest.FixtureRequest, make_server: Callable[..., Server]) -> Iterator[Callable[..., Server]]:
    """A function that starts a server with settings, and gives what clients talk to."""
    with ExitStack() as stack:

        def make(settings: dict[str, object]) -> Server | Nginx:
            server = make_server(BOTH | settings, workers=2)
            return server if request.param == "dtr alone" else stack.enter_context(run_nginx(server))

        yield make


def refused(answers: list[Answer]) -> Answer:
    """The only kind of refusal there is among them."""
    found = [one for one in answers if one.status == 429]
    assert len({one.body for one in found}) == 1
    assert 1 <= int(found[0].headers["retry-after"]) <= 1000
    return found[0]


def test_requests_of_one_account_and_of_one_address_are_limited(start: Callable[..., Server]) -> None:
    """In the words of each protocol. Those who watch a server are not turned away."""
    server = start(
        {
            "limits.account_rate": 0.01,
            "limits.account_burst": 10,
            "limits.address_rate": 0.01,
            "limits.address_burst": 40,
        }
    )
    (server.server if isinstance(server, Nginx) else server).make_user("busy")
    busy, other, anybody = Client(server, "busy"), Client(server), Client(server, None)
    headers = {"Authorization": f"Bearer {busy.token()}"}  # the first
    answers = [busy.send("GET", "/v2/", headers=headers) for _ in range(12)]
    assert [one.status for one in answers] == [200] * 9 + [429] * 3
    assert refused(answers).codes == ["TOOMANYREQUESTS"]
    basic = {"Authorization": busy.basic()}
    assert busy.send("GET", "/auth/token?service=dtr", headers=basic).codes == ["TOOMANYREQUESTS"]
    answer = busy.send("GET", "/api/v0/repositories", headers=basic)
    assert (answer.status, answer.codes) == (429, ["TOO_MANY_REQUESTS"])
    assert int(answer.headers["retry-after"]) >= 1
    # Others go on, from the same address, as long as that may. That makes 17 of 40.
    other.call("GET", "/v2/").expect(200)

    answers = [anybody.send("GET", "/v2/") for _ in range(25)]
    assert [one.status for one in answers] == [401] * 23 + [429] * 2
    assert refused(answers).codes == ["TOOMANYREQUESTS"]
    assert anybody.send("GET", "/auth/token?service=dtr").codes == ["TOOMANYREQUESTS"]
    assert anybody.send("GET", "/api/v0/repositories").codes == ["TOO_MANY_REQUESTS"]
    for path in ("/_ping", "/health", "/ca"):
        assert {anybody.send("GET", path).status for _ in range(20)} == {200}
    status = anybody.send("GET", "/v2/", headers=OTHERS).status
    assert status == (429 if isinstance(server, Nginx) else 401)


@contextmanager
def begun_push(client: Client, upload: str) -> Iterator[None]:
    """A push that has begun and does not go on."""
    connection = client.connect()
    connection.putrequest("PATCH", upload)
    connection.putheader("Authorization", f"Bearer {client.token(SCOPE)}")
    connection.putheader("Content-Length", "2000000")
    connection.endheaders()
    connection.send(bytes(1_000_000))
    try:
        yield
    finally:
        connection.close()


@contextmanager
def begun_pull(client: Client, path: str) -> Iterator[None]:
    """A pull that has begun and does not go on."""
    headers = {"Authorization": f"Bearer {client.token(SCOPE)}" if path.startswith("/v2/") else client.basic()}
    while True:
        connection = client.connect()
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.request("GET", path, headers=headers)
        if connection.getresponse().status == 200:
            break
        connection.close()  # what ended before is still counted
    try:
        yield
    finally:
        connection.close()


def until(ask: Callable[[], Answer], status: int) -> Answer:
    """The answer, when it is this one; transfers have a moment to begin and to end."""
    deadline = time.monotonic() + 60
    while (answer := ask()).status != status and time.monotonic() < deadline:
        pass
    return answer.expect(status)


@pytest.mark.parametrize("who", ["address", "account"])
def test_transfers_at_once_are_limited(start: Callable[..., Server], who: str) -> None:
    server = start({f"limits.{who}_transfers": 2})
    (server.server if isinstance(server, Nginx) else server).make_repository("admin/limited")
    client = Client(server)
    client.push_blob("admin/limited", BODY)
    path = f"/v2/admin/limited/blobs/{DIGEST}"
    uploads = [client.start_upload("admin/limited") for _ in range(3)]
    for pause in (0.1, 0.5, 2, 5, 15):
        with begun_push(client, uploads[0]), begun_push(client, uploads[1]):
            time.sleep(pause)  # nothing tells when both are counted, and to ask too early takes the place of one
            answer = client.call("PATCH", uploads[2], b"")
        if answer.status == 429:
            break
    assert refused([answer]).codes == ["TOOMANYREQUESTS"]
    with begun_pull(client, path), begun_pull(client, path):
        assert refused([until(lambda: client.call("GET", path), 429)]).codes == ["TOOMANYREQUESTS"]
        # What is no transfer goes on.
        client.call("HEAD", path).expect(200)
        client.call("GET", "/v2/admin/limited/tags/list").expect(200)
    until(lambda: client.call("GET", path), 200)
    until(lambda: client.call("PATCH", uploads[2], b""), 202)


def test_layers_that_are_fetched_as_files_are_transfers_too(start: Callable[..., Server]) -> None:
    server = start({"limits.address_transfers": 2})
    (server.server if isinstance(server, Nginx) else server).make_repository("admin/limited")
    client = Client(server)
    body = os.urandom(64_000_000)  # more than the kernel's buffers of three connections can hold
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    image = make_built_image({"os": "linux"}, body)
    client.push("admin/limited", image, "files")
    basic = {"Authorization": client.basic()}
    path = f"/api/v0/repositories/admin/limited/manifests/files/files/{digest}"
    pull = f"/v2/admin/limited/blobs/{digest}"
    with begun_pull(client, path), begun_pull(client, path):
        answer = until(lambda: client.send("GET", path, headers=basic), 429)
        assert (refused([answer]).codes, "content-disposition" in answer.headers) == (["TOO_MANY_REQUESTS"], False)
        if not isinstance(server, Nginx):  # which counts the files that it sends by itself
            assert refused([until(lambda: client.call("GET", pull), 429)]).codes == ["TOOMANYREQUESTS"]
        client.send("HEAD", path, headers=basic).expect(200)
    for _ in range(4):
        assert until(lambda: client.send("GET", path, headers=basic), 200).body == body
