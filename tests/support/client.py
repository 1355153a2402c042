"""A small client of the registry API, which can also say what no proper client would."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from tests.support.images import Image, digest_of
from tests.support.server import PASSWORD, Server

_RENEWED = 200
"""So many seconds old, a token is fetched anew: it is good for 300, and the tests of a module may take longer."""


@dataclass(frozen=True)
class Answer:
    """A response; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    """Of several of one name the last."""
    body: bytes
    cookies: tuple[str, ...] = ()
    """Every header `Set-Cookie`."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        """The codes of the error body."""
        return [one["code"] for one in self.json["errors"]]

    def expect(self, *statuses: int) -> Self:
        assert self.status in statuses, f"{self.status} instead of {statuses}: {self.body[:500]!r}"
        return self


class Client:
    """
    Talks to a server as `user` (None: anonymous), and fetches tokens as clients do.

    One kept connection, so not for several threads at once. `port` chooses another of several servers that
    share their data. A kept connection that turns out to be closed is replaced, unless `retries` is False.
    """

    def __init__(
        self,
        server: Server,
        user: str | None = "admin",
        password: str = PASSWORD,
        *,
        port: int | None = None,
        retries: bool = True,
    ) -> None:
        self.server = server
        self.user = user
        self.password = password
        self.port = port or server.port
        self._retries = retries
        self._tls = server.tls
        self._tokens: dict[str, str] = {}
        self._fetched: dict[str, float] = {}
        self._connection: http.client.HTTPSConnection | None = None
        server.clients.append(self)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def local_port(self) -> int:
        """The client's end of the kept connection."""
        assert self._connection is not None
        return int(self._connection.sock.getsockname()[1])

    def connect(self) -> http.client.HTTPSConnection:
        """A connection of the caller's own."""
        return http.client.HTTPSConnection("localhost", self.port, context=self._tls, timeout=60)

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def token(self, *scopes: str, fresh: bool = False) -> str:
        """A token for the scopes, from the token service; remembered, while it is good."""
        key = " ".join(scopes)
        if fresh or key not in self._tokens or time.monotonic() > self._fetched[key] + _RENEWED:
            asked = time.monotonic()
            query = urlencode([("service", "dtr"), *(("scope", scope) for scope in scopes)])
            headers = {} if self.user is None else {"Authorization": self.basic()}
            answer = self.send("GET", f"/auth/token?{query}", headers=headers).expect(200)
            self._tokens[key], self._fetched[key] = answer.json["token"], asked
        return self._tokens[key]

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request as it is, without a token; an iterable body is sent in chunks."""
        repeat = body is None or isinstance(body, bytes)
        for attempt in range(0 if self._retries else 1, 2):
            if self._connection is None:
                self._connection = self.connect()
                attempt = 1  # noqa: PLW2901 - a fresh connection has no excuse
            try:
                with contextlib.suppress(BrokenPipeError, ssl.SSLEOFError):  # maybe answered before all was sent
                    self._connection.request(
                        method, path, body=body, headers=dict(headers or {}), encode_chunked=not repeat
                    )
                with self._connection.getresponse() as response:
                    content = response.read()
                return Answer(
                    response.status,
                    {name.lower(): value for name, value in response.getheaders()},
                    content,
                    tuple(response.headers.get_all("set-cookie", ())),
                )
            except (http.client.HTTPException, OSError) as error:
                self.close()
                if attempt or not repeat or isinstance(error, TimeoutError):
                    raise
        raise AssertionError("not reached")

    def call(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        scope: str | None = None,
    ) -> Answer:
        """
        A request with a token for `scope`; by default for everything on the repository in the path.

        A mount asks for pull on its source, too, as clients do.
        """
        scopes = [scope] if scope else _scopes(path)
        sent = dict(headers or {})
        sent.setdefault("Authorization", f"Bearer {self.token(*scopes)}")
        return self.send(method, path, body, sent)

    # --- whole operations ---

    def start_upload(self, repository: str) -> str:
        """The location of a new upload."""
        return local(self.call("POST", f"/v2/{repository}/blobs/uploads/").expect(202).headers["location"])

    def push_blob(self, repository: str, data: bytes) -> str:
        """POST and PUT; the digest."""
        location = self.start_upload(repository)
        digest = digest_of(data)
        headers = {"Content-Type": "application/octet-stream"}
        self.call("PUT", f"{location}?digest={quote(digest)}", data, headers).expect(201)
        return digest

    def put_manifest(self, repository: str, image: Image, reference: str | None = None) -> Answer:
        path = f"/v2/{repository}/manifests/{reference or image.digest}"
        return self.call("PUT", path, image.payload, {"Content-Type": image.media_type})

    def push(self, repository: str, image: Image, reference: str | None = None) -> str:
        """Push an image with everything that it names; its digest."""
        for child in image.children:
            self.push(repository, child)
        for blob in image.blobs:
            self.push_blob(repository, blob)
        self.put_manifest(repository, image, reference).expect(201)
        return image.digest

    def get_manifest(self, repository: str, reference: str) -> Answer:
        return self.call("GET", f"/v2/{repository}/manifests/{reference}")

    def get_blob(self, repository: str, digest: str) -> Answer:
        return self.call("GET", f"/v2/{repository}/blobs/{digest}")

    def assert_whole(self, repository: str, image: Image, reference: str | None = None) -> None:
        """Pull an image and compare every byte."""
        answer = self.get_manifest(repository, reference or image.digest).expect(200)
        assert answer.body == image.payload
        for child in image.children:
            self.assert_whole(repository, child)
        for blob in image.blobs:
            assert self.get_blob(repository, digest_of(blob)).expect(200).body == blob


def settle(server: Server) -> None:
    """
    Let every worker know the settings of this moment, instead of within a second or so.

    Whoever is asked for them reads them anew before it answers: each worker is asked.
    """
    unasked = set(server.worker_pids)
    while unasked:
        client = Client(server)
        headers = {"Authorization": client.basic()}
        client.send("GET", "/api/v0/meta/settings", headers=headers).expect(200)
        unasked.discard(server.worker_of(client.local_port))
        client.close()


def local(location: str) -> str:
    """Path and query of a location."""
    parts = urlsplit(location)
    return parts.path + (f"?{parts.query}" if parts.query else "")


_WITH_NAME = re.compile(r"/v2/(.+)/(?:blobs/uploads(?:/[^/]*)?|(?:blobs|manifests|referrers)/[^/]+|tags/list)")


def _scopes(path: str) -> list[str]:
    parts = urlsplit(path)
    if parts.path == "/v2/_catalog":
        return ["registry:catalog:*"]
    match = _WITH_NAME.fullmatch(parts.path)
    if match is None:
        return []
    source = [one.partition("=")[2] for one in parts.query.split("&") if one.startswith("from=")]
    return [f"repository:{match[1]}:pull,push,delete", *(f"repository:{one}:pull" for one in source)]
