"""A registry on each database that is asked the impossible, over plain HTTP."""

from __future__ import annotations

import contextlib
import math
import random
import re
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from urllib.parse import quote

import pytest
from tests.support.backends import BACKENDS, run_server
from tests.support.client import Client
from tests.support.images import EMPTY, Image, digest_of, make_artifact, make_image, make_index
from tests.support.server import Server
from tests.support.wire import Answer, Peer, request

NAME, KEPT = "admin/fuzz", "admin/kept"
_addresses = random.SystemRandom()
"""Hypothesis begins the usual numbers anew with each example: all would be of the same few addresses."""


class Target:
    """
    A server with some content, and what an attacker knows of it.

    In whatever is asked, ``<image>``, ``<index>`` and ``<blob>`` stand for digests of the content, ``<upload>``
    for a running upload.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        for repository in (NAME, "admin/other", KEPT):
            server.make_repository(repository)
        self.client = Client(server)
        self.image: Image = make_image()
        self.index: Image = make_index(self.image)
        self.blob = bytes(range(256)) * 400
        self.client.push(KEPT, self.index, "v1")
        self._push()
        self.refresh_token = self.client.send(
            "GET", "/auth/token?offline_token=true", headers={"Authorization": self.client.basic()}
        ).json["refresh_token"]
        self._known = {
            "<image>": self.image.digest,
            "<index>": self.index.digest,
            "<blob>": digest_of(self.blob),
        }
        self._peer: Peer | None = None
        self._token = ""
        self._renewed_at = -math.inf

    def _push(self) -> None:
        self.client.token(f"repository:{NAME}:pull,push,delete", fresh=True)
        self.client.push(NAME, self.index, "v1")
        self.client.push(NAME, make_artifact("text/plain", b"about it", subject=self.image))
        self.client.push_blob(NAME, EMPTY)
        self.client.push_blob(NAME, self.blob)

    @property
    def token(self) -> str:
        """A live token for everything."""
        if time.monotonic() - self._renewed_at > 120:
            scopes = [f"repository:{one}:pull,push,delete" for one in (NAME, "admin/other", "admin/missing")]
            self._token = self.client.token(*scopes, "registry:catalog:*", fresh=True)
            self._renewed_at = time.monotonic()
        return self._token

    def fill(self, text: str) -> str:
        """With what is known in its places, also where these are percent-encoded."""
        if "<upload>" in text or quote("<upload>") in text:
            auth = {"Authorization": f"Bearer {self.token}"}
            started = self.ask("POST", f"/v2/{NAME}/blobs/uploads/", auth)
            self._known["<upload>"] = started.headers["docker-upload-uuid"]
        for place, value in self._known.items():
            text = text.replace(place, value).replace(quote(place), quote(value))
        return text

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
        """
        A request, whose answer is never the server's own failure.

        Each comes from an address of its own, so that wrong log-ins do not end in being slowed down.
        """
        address = str(IPv4Address(_addresses.randrange(1 << 24, 1 << 31)))
        sent = {"X-Forwarded-For": address, **{name: self.fill(value) for name, value in (headers or {}).items()}}
        data = request(method, self.fill(path), body, **sent)
        answer = self._answer(data)
        assert answer.status < 500, (answer, data)
        if method == "DELETE" and answer.status == 202:
            self._push()  # what comes next shall find it
        return answer

    def _answer(self, data: bytes) -> Answer:
        kept, self._peer = self._peer, None
        if kept is not None:
            try:
                return self._keep(kept, kept.ask(data))
            except OSError:  # it was closed meanwhile
                kept.close()
        peer = Peer(self.server.http_port)
        return self._keep(peer, peer.ask(data))

    def _keep(self, peer: Peer, answer: Answer) -> Answer:
        if answer.closes or not answer.is_whole:
            peer.close()
        else:
            self._peer = peer
        return answer

    def throw(self, data: bytes) -> bytes:
        """Bytes as they are; everything that comes back."""
        with Peer(self.server.http_port) as peer:
            with contextlib.suppress(OSError):  # it had enough
                peer.send(data).finish_writing()
            return peer.read_all()

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()

    def assert_well(self) -> None:
        """Other content is whole, and nothing failed inside."""
        self.client.token(f"repository:{KEPT}:pull,push,delete", fresh=True)
        self.client.assert_whole(KEPT, self.index, "v1")
        log = self.server.log
        assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:5000]
        assert not re.search(r'"status":5\d\d', log)
        assert '"level":"error"' not in log


@pytest.fixture(scope="session", params=BACKENDS[:2])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    settings = {"http_serves": "true", "trusted_proxies": "127.0.0.1/32"}
    with run_server(request.param, request, tmp_path_factory, settings) as running:
        made = Target(running)
        yield made
        made.close()
