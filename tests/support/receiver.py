"""A receiver of webhooks."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.ports import free_port

from dtr.pki import Certificate


@dataclass(frozen=True)
class Received:
    """A request that came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """How a request is answered, `seconds` later."""

    status: int = 200
    body: bytes = b"thanks"
    headers: Mapping[str, str] | None = None
    seconds: float = 0


class Receiver:
    """A server of the loopback network, on a port that nobody has after it. It keeps what it is sent."""

    def __init__(self, certificate: Certificate | None = None) -> None:
        self.received: list[Received] = []
        self.reply: Callable[[Received], Reply] = lambda _received: Reply()
        self._ended = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                received = Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                receiver.received.append(received)
                reply = receiver.reply(received)
                receiver._ended.wait(reply.seconds)
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **(reply.headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients go away
        self.port: int = self._server.server_address[1]
        self._scheme = "http"
        if certificate is not None:
            self._scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.chain, certificate.key)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def url(self, path: str = "/hook", host: str = "localhost") -> str:
        return f"{self._scheme}://{host}:{self.port}{path}"

    def wait(self, count: int, seconds: float = 60) -> list[Received]:
        """What came, when it is so many requests."""
        deadline = time.monotonic() + seconds
        while len(self.received) < count:
            assert time.monotonic() < deadline, self.received
            time.sleep(0.02)
        return list(self.received)

    def close(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def receiving(certificate: Certificate | None = None) -> Iterator[Receiver]:
    """A receiver, with TLS when it has a certificate."""
    receiver = Receiver(certificate)
    try:
        yield receiver
    finally:
        receiver.close()
