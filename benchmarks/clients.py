"""
Real clients that push and pull a whole image, and a registry that keeps nothing.

A client takes time of its own, which no registry makes shorter. How much that is shows against the registry that
keeps nothing: it takes and gives the bytes, and looks at none of them.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from tests.support.tools import find_go_program

from benchmarks.load import MANIFEST
from benchmarks.servers import PASSWORD, REPOSITORY, Dtr

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.servers import Server

_MIB = 1024 * 1024
SHAPES: Mapping[str, tuple[int, ...]] = {
    "20 layers of 1 MiB": (_MIB,) * 20,
    "7 layers of 380 MB": (49_000_000, 24_000_000, 64_000_000, 211_000_000, 6_000_000, 25_000_000, 1_000),
}
"""Images by the sizes of their layers: many small ones, and as those of a language's official image are."""
_NEW_BYTES = 1024
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_NAME = "bench"
_PIECE = 1024 * 1024
_THREADS = 8
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_TLS_HELLO = 0x16

Command: TypeAlias = Callable[["Image", str, str, str], list[str]]
"""How a client copies an image, to or from a reference, with credentials (none: empty), `push` or `pull`."""


class Image:
    """An image in the layout of OCI, and where it comes back to."""

    def __init__(self, directory: Path, sizes: Sequence[int]) -> None:
        """Everything is in `directory`; `sizes` are those of the layers, in bytes."""
        self.directory = directory
        self.sizes = sizes
        self._content = os.urandom(max(sizes))
        self.layout = directory / "layout"
        self.pulled = directory / "pulled"
        self.config = directory / "config"
        self.blobs = self.layout / "blobs" / "sha256"
        self.manifest = b""

    def renew(self) -> None:
        """Other content, so that no registry has it."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.blobs.mkdir(parents=True)
        diff_ids: list[str] = []
        layers: list[dict[str, object]] = []
        for size in self.sizes:
            content = os.urandom(_NEW_BYTES) + self._content[: size - _NEW_BYTES]
            diff_ids.append(f"sha256:{hashlib.sha256(content).hexdigest()}")
            # Packed, as layers of images are: of others, most of the time a client packs them.
            layers.append(self._add(gzip.compress(content, 0), _LAYER))
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._add(json.dumps(config).encode(), _CONFIG),
            "layers": layers,
        }
        self.manifest = json.dumps(manifest).encode()
        entry = {
            **self._add(self.manifest, MANIFEST),
            "annotations": {"org.opencontainers.image.ref.name": _NAME},
        }
        (self.layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (self.layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))

    def empty(self) -> None:
        """Nothing was pulled."""
        shutil.rmtree(self.pulled, ignore_errors=True)

    def _add(self, data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (self.blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _skopeo(image: Image, reference: str, credentials: str, way: str) -> list[str]:
    side = "dest" if way == "push" else "src"
    options = [f"--{side}-tls-verify=false", *([f"--{side}-creds={credentials}"] if credentials else [])]
    remote = f"docker://{reference}"
    if way == "push":
        return ["skopeo", "copy", "-q", *options, f"oci:{image.layout}:{_NAME}", remote]
    return ["skopeo", "copy", "-q", *options, remote, f"oci:{image.pulled}:{_NAME}"]


def _crane(image: Image, reference: str, _credentials: str, way: str) -> list[str]:
    if way == "push":
        return ["crane", "push", "--insecure", str(image.layout), reference]
    return ["crane", "pull", "--insecure", "--format=oci", reference, str(image.pulled)]


CLIENTS: Mapping[str, Command] = {"skopeo": _skopeo, "crane": _crane}


@cache
def find(client: str) -> str | None:
    """The program, if it is here."""
    return shutil.which(client) or find_go_program(client)


def copy(client: str, image: Image, server: Server | Nothing, way: str) -> float:
    """Let a client push the image, or pull it; seconds."""
    address = server.url.partition("//")[2]
    credentials = f"admin:{PASSWORD}" if isinstance(server, Dtr) else ""
    _, *arguments = CLIENTS[client](image, f"{address}/{REPOSITORY}:{client}", credentials, way)
    image.config.mkdir(exist_ok=True)  # some have credentials in a file only
    logins = {address: {"auth": base64.b64encode(credentials.encode()).decode()}} if credentials else {}
    (image.config / "config.json").write_text(json.dumps({"auths": logins}))
    image.empty()
    environment = {**os.environ, "DOCKER_CONFIG": str(image.config)}
    command = [find(client) or client, *arguments]
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


class Nothing:
    """
    A registry that keeps nothing, on loopback: threads that answer what a client has to hear, and no more.

    What is pulled are the files of an image, sent by the kernel.
    """

    def __init__(self, image: Image) -> None:
        """It has the image. To be closed by `close`."""
        self._image = image
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        for _ in range(_THREADS):
            threading.Thread(target=self._serve_all, daemon=True).start()

    def close(self) -> None:
        """Listen no longer; the threads end."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve_all(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # it is closed
                return
            with connection, contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                piece = connection.recv(65536)
                if not piece:
                    return
                received += piece
                if received[0] == _TLS_HELLO:  # so that the client tries without at once
                    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                    return
            head, _, received = received.partition(b"\r\n\r\n")
            method, path, _ = head.partition(b"\r\n")[0].split(b" ")
            length = _LENGTH.search(head)
            left = int(length[1]) if length else 0
            received, left = received[left:], left - len(received)
            while left > 0:
                piece = connection.recv(min(left, _PIECE))
                if not piece:
                    return
                left -= len(piece)
            self._answer(connection, method.decode(), path.decode())

    def _answer(self, connection: socket.socket, method: str, path: str) -> None:
        place, _, name = path.rpartition("/")
        if path == "/v2/":
            _say(connection, "200 OK", body=b"{}")
        elif "/uploads/" in path:
            status = "201 Created" if method == "PUT" else "202 Accepted"
            _say(connection, status, f"Location: /v2/{REPOSITORY}/blobs/uploads/1", "Range: 0-0")
        elif method == "PUT":
            _say(connection, "201 Created", f"Location: {path}")
        elif method == "GET" and place.endswith("/manifests"):
            digest = hashlib.sha256(self._image.manifest).hexdigest()
            headers = (f"Content-Type: {MANIFEST}", f"Docker-Content-Digest: sha256:{digest}")
            _say(connection, "200 OK", *headers, body=self._image.manifest)
        elif method == "GET" and place.endswith("/blobs"):
            file = self._image.blobs / name.partition(":")[2]
            with file.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
                connection.sendfile(stream)
        else:  # HEAD before a push
            _say(connection, "404 Not Found")


def _say(connection: socket.socket, status: str, *headers: str, body: bytes = b"") -> None:
    lines = (f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "", "")
    connection.sendall("\r\n".join(lines).encode() + body)
