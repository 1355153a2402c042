"""The notary protocol in raw requests: `Publisher` makes files with real keys, `Trust` brings them to a server."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.client import Answer, Client
from tests.support.notary import Publisher
from tests.support.server import PASSWORD, Server

READ, SIGN, MANAGE = "pull", "push,pull", "*"
BOUNDARY = "b0undary"


def form(parts: Sequence[tuple[str, bytes]], boundary: str = BOUNDARY) -> bytes:
    """The body of an update as clients in Go write it; without parts it is just the end."""
    made = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in parts
    )
    return (made or b"\r\n") + f"--{boundary}--\r\n".encode()


class Trust:
    """A user who talks to the notary server about collections, by raw requests."""

    def __init__(
        self, server: Server, user: str | None = "admin", password: str = PASSWORD, *, host: str | None = None
    ) -> None:
        """`host`: what the client calls the server; by default its address."""
        self.client = Client(server, user, password)
        self.host = host or server.address
        self._headers = {"Host": host} if host else {}
        self.tokens: dict[str, str] = {}
        """Those that it has, by scope; cleared, it gets others."""

    def gun(self, path: str) -> str:
        """The collection of a repository."""
        return f"{self.host}/{path}"

    def token(self, scope: str) -> str:
        """A token for a scope."""
        if scope in self.tokens:
            return self.tokens[scope]
        query = f"service=dtr&scope={scope.replace('+', '%2B')}"
        headers = {} if self.client.user is None else {"Authorization": self.client.basic()}
        answer = self.client.send("GET", f"/auth/token?{query}", headers={**headers, **self._headers})
        token = str(answer.expect(200).json["token"])
        self.tokens[scope] = token
        return token

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A request as it is, without a token."""
        return self.client.send(method, path, body, {**self._headers, **(headers or {})})

    def ask(
        self,
        method: str,
        gun: str,
        tail: str,
        actions: str = READ,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """A request about a collection, with a token for some actions on it. `tail`: what follows ``_trust/``."""
        bearer = {"Authorization": f"Bearer {self.token(f'repository:{gun}:{actions}')}"}
        return self.send(method, f"/v2/{gun}/_trust/{tail}", body, {**bearer, **(headers or {})})

    def get(self, gun: str, file: str) -> Answer:
        """A file, such as ``timestamp.json``."""
        return self.ask("GET", gun, f"tuf/{file}")

    def key(self, gun: str, role: str, *, new: bool = False) -> dict[str, Any]:
        """The server's key for a role."""
        method, actions = ("POST", MANAGE) if new else ("GET", SIGN)
        found: dict[str, Any] = self.ask(method, gun, f"tuf/{role}.key", actions).expect(200).json
        return found

    def publisher(self, gun: str) -> Publisher:
        """Someone with new keys, who lets the server make snapshots."""
        return Publisher(gun, self.key(gun, "timestamp"), self.key(gun, "snapshot"))

    def publish(self, gun: str, files: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Answer:
        """An update."""
        parts = list(files.items()) if isinstance(files, Mapping) else list(files)
        return self.upload(gun, form(parts))

    def upload(
        self, gun: str, body: bytes, content_type: str = f"multipart/form-data; boundary={BOUNDARY}"
    ) -> Answer:
        """A body that should be an update."""
        return self.ask("POST", gun, "tuf/", SIGN, body, {"Content-Type": content_type})

    def delete(self, gun: str) -> Answer:
        """Delete a collection."""
        return self.ask("DELETE", gun, "tuf/", MANAGE)

    def files(self, gun: str) -> dict[str, bytes]:
        """All current files, found as clients find them: from the timestamp, by hashes."""
        timestamp = self.get(gun, "timestamp.json").expect(200).body
        snapshot = self.by_hash(gun, "snapshot", json.loads(timestamp)["signed"]["meta"]["snapshot"])
        found = {"timestamp": timestamp, "snapshot": snapshot}
        for role, meta in json.loads(snapshot)["signed"]["meta"].items():
            found[role] = self.by_hash(gun, role, meta)
        return found

    def by_hash(self, gun: str, role: str, meta: Mapping[str, Any]) -> bytes:
        """A file that another one names."""
        digest = base64.b64decode(meta["hashes"]["sha256"]).hex()
        body = self.get(gun, f"{role}.{digest}.json").expect(200).body
        assert hashlib.sha256(body).hexdigest() == digest
        assert len(body) == meta["length"]
        return body
