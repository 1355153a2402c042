"""Somebody between a client and a server, who reads everything and answers what they like."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.server import Server

Answer = tuple[int, bytes]
"""Status and body."""
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"}


@dataclass
class Meddler:
    """
    A server in front of dtr, with dtr's own certificate.

    `meddle` gets method, path and dtr's answer, and says what the client gets; what is asked under which path
    is kept in `seen`: method, path and status of dtr's answer.
    """

    url: str
    meddle: Callable[[str, str, Answer], Answer] | None = None
    seen: list[tuple[str, str, int]] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    """What dtr answered last to a GET of each path with status 200."""

    def asked(self, method: str = "") -> list[str]:
        """The paths that were asked for, in their order."""
        return [path for one, path, _ in self.seen if one == method or not method]


@contextmanager
def meddling(server: Server) -> Iterator[Meddler]:
    """Somebody between, until the end of the block. The host that dtr sees stays dtr's own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            headers["Host"] = server.address
            headers["Accept-Encoding"] = "identity"
            upstream = http.client.HTTPSConnection("localhost", server.port, context=server.tls, timeout=60)
            upstream.request(self.command, self.path, body=sent, headers=headers)
            response = upstream.getresponse()
            answer: Answer = response.status, response.read()
            upstream.close()
            made.seen.append((self.command, self.path, answer[0]))
            if self.command == "GET" and answer[0] == 200:
                made.bodies[self.path] = answer[1]
            if made.meddle is not None:
                answer = made.meddle(self.command, self.path, answer)
            self.send_response(answer[0])
            for name, value in response.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer[1])))
            self.end_headers()
            self.wfile.write(answer[1])

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - the names that the library looks for

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls = server.directory / "tls"
    context.load_cert_chain(tls / "server.pem", tls / "server-key.pem")
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    listening.socket = context.wrap_socket(listening.socket, server_side=True, do_handshake_on_connect=False)
    made = Meddler(f"https://localhost:{listening.server_address[1]}")
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
