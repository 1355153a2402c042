"""Another registry that does as it is told, and counts what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.images import Image, digest_of
from tests.support.ports import free_port


@dataclass
class Scripted:
    """
    A registry without TLS and without log-in, on loopback.

    `asked` is what came, as ``GET manifests NAME REFERENCE``. `status` and `headers` answer everything, when they
    are set. A blob whose digest is in `gates` is sent up to its half; the rest waits for the event.
    """

    asked: list[str] = field(default_factory=list)
    manifests: dict[tuple[str, str], tuple[bytes, str]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    """Blobs whose connection is cut at the half."""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    is_closed: bool = False
    delay: Callable[[], None] = lambda: None
    """Called before each answer."""

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", free_port()), type("Handler", (_Handler,), {"registry": self})
        )
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def push(self, name: str, image: Image, *tags: str) -> None:
        for child in image.children:
            self.push(name, child)
        for blob in image.blobs:
            self.blobs[digest_of(blob)] = blob
        for reference in (image.digest, *tags):
            self.manifests[name, reference] = (image.payload, image.media_type)

    def count(self, text: str) -> int:
        """How many requests had this in them."""
        return sum(text in one for one in self.asked)

    def close(self) -> None:
        """It is gone, for those who are connected, too."""
        self.is_closed = True
        for gate in self.gates.values():
            gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    registry: Scripted
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        registry = self.registry
        if registry.is_closed:
            self.close_connection = True
            return
        parts = self.path.removeprefix("/v2/").split("/")
        if len(parts) < 3:
            self._answer(200, b"{}", {})
            return
        name, kind, reference = "/".join(parts[:-2]), parts[-2], parts[-1]
        registry.asked.append(f"{self.command} {kind} {name} {reference}")
        registry.delay()
        if registry.status:
            self._answer(registry.status, b"{}", registry.headers)
        elif kind == "manifests" and (name, reference) in registry.manifests:
            content, media_type = registry.manifests[name, reference]
            self._answer(200, content, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(content)})
        elif kind == "blobs" and reference in registry.blobs:
            self._send_blob(reference, registry.blobs[reference])
        else:
            code = "MANIFEST_UNKNOWN" if kind == "manifests" else "BLOB_UNKNOWN"
            self._answer(404, json.dumps({"errors": [{"code": code, "message": "not here"}]}).encode(), {})

    def _send_blob(self, digest: str, content: bytes) -> None:
        start = 0
        if "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        half = max(start, len(content) // 2)
        self.wfile.write(content[start:half])
        self.wfile.flush()
        gate = self.registry.gates.get(digest)
        if gate is not None:
            gate.wait(600)
        if digest in self.registry.cut:
            self.registry.cut.discard(digest)
            self.close_connection = True
            return
        self.wfile.write(content[half:])

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
