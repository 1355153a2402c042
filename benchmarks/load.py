"""What loads a registry: bounded in time and number, on loopback only."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import selectors
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from benchmarks.servers import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.servers import Server

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_WRK = """
done = function(s, l, r)
  io.write(string.format("RESULT %d %d %d\\n", s.requests, s.duration,
    s.errors.status + s.errors.connect + s.errors.read + s.errors.timeout))
end
"""


class Failed(Exception):
    """A registry answered something else than it should."""


class Connection:
    """A kept connection to the plain address of a server."""

    def __init__(self, server: Server) -> None:
        """Connect."""
        self._server = server
        address = urlsplit(server.url)
        self._http = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
        self._http.connect()
        self._http.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close."""
        self._http.close()

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """One request; its answer was read. Raises Failed."""
        self._http.request(method, path, body=body, headers={**self._server.headers(), **(headers or {})})
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise Failed(f"{self._server.name}: {method} {path}: {answer.status} {content[:200]!r}")
        return answer

    def start_upload(self) -> str:
        """The location of a new upload."""
        answer = self.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/", b"")
        return local(answer.headers["Location"])

    def finish_upload(self, location: str, digest: str, body: bytes = b"") -> None:
        """The closing PUT."""
        mark = "&" if "?" in location else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self.request("PUT", f"{location}{mark}digest={quote(digest)}", body, headers)

    def push_blob(self, data: bytes) -> str:
        """POST and PUT; the digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.finish_upload(self.start_upload(), digest, data)
        return digest


def local(location: str) -> str:
    """Path and query of a location."""
    parts = urlsplit(location)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def push_file(server: Server, file: Path, digest: str, *, chunked: bool = False, tls: bool = False) -> None:
    """A layer as clients push it: POST, one PATCH, over TLS or not, PUT."""
    connection = Connection(server)
    location = connection.start_upload()
    command = ["curl", "-sS", "-o", "/dev/null", "-D", "-", "-X", "PATCH", "-T", str(file), "-H", "Expect:"]
    if tls:
        command += ["-k", "--http1.1"]
    if chunked:
        command += ["-H", "Transfer-Encoding: chunked"]
    done = subprocess.run(
        [*command, *_header_options(server), (server.tls_url if tls else server.url) + location],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"(?im)^location:\s*(\S+)", done.stdout)
    if not found:
        raise Failed(f"{server.name}: PATCH: {done.stdout[:300]}")
    connection.finish_upload(local(found[-1]), digest)
    connection.close()


def pull(server: Server, digest: str, *, tls: bool = False, part: str = "") -> int:
    """A layer, or the `part` from one byte to another (``0-99``), to nowhere; how many bytes came."""
    url = f"{server.tls_url if tls else server.url}/v2/{REPOSITORY}/blobs/{digest}"
    command = ["curl", "-sS", "-k", "--http1.1", "-o", "/dev/null", "-w", "%{http_code} %{size_download}"]
    if part:
        command += ["-r", part]
    done = subprocess.run([*command, *_header_options(server), url], capture_output=True, text=True, check=True)
    status, size = done.stdout.split()
    if status != ("206" if part else "200"):
        raise Failed(f"{server.name}: GET {url}: {status}")
    return int(size)


def throttled(server: Server, digests: Sequence[str], file: Path, rate: str) -> list[subprocess.Popen[bytes]]:
    """Pulls of all `digests` and as many pushes of `file`, each no faster than `rate` bytes a second (``1M``)."""
    running = []
    for digest in digests:
        url = f"{server.url}/v2/{REPOSITORY}/blobs/{digest}"
        running.append(_curl(server, rate, "-o", "/dev/null", url))
        connection = Connection(server)
        location = connection.start_upload()
        connection.close()
        running.append(
            _curl(server, rate, "-o", "/dev/null", "-X", "PATCH", "-T", str(file), "-H", "Expect:",
                  server.url + location)
        )  # fmt: skip
    return running


def get_rate(
    server: Server, path: str, connections: int, seconds: int, headers: Mapping[str, str] | None = None
) -> tuple[float, int]:
    """GETs of one path for so long; requests a second, and how many there were."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_WRK)
        script.flush()
        options = [option for name, value in (headers or {}).items() for option in ("-H", f"{name}: {value}")]
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name, *options,
             *_header_options(server), server.url + path],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    match = re.search(r"RESULT (\d+) (\d+) (\d+)", done.stdout)
    if match is None or int(match[3]):
        raise Failed(f"{server.name}: GET {path}: {done.stdout[-300:]}")
    return int(match[1]) / int(match[2]) * 1e6, int(match[1])


def head_rate(
    server: Server, path: str, connections: int, seconds: int, headers: Mapping[str, str]
) -> tuple[float, int]:
    """The same with HEAD, which wrk cannot do."""
    address = urlsplit(server.url)
    lines = [f"HEAD {path} HTTP/1.1", f"Host: {address.netloc}"]
    lines += [f"{name}: {value}" for name, value in {**server.headers(), **headers}.items()]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        one = socket.create_connection((address.hostname, address.port), timeout=30)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(one, selectors.EVENT_READ, [b""])
        one.sendall(request)
    count = 0
    started = time.perf_counter()
    while time.perf_counter() < started + seconds:
        for key, _ in selector.select(1):
            sock: Any = key.fileobj
            key.data[0] += sock.recv(65536)
            if key.data[0].endswith(b"\r\n\r\n"):
                if key.data[0][9:12] != b"200":
                    raise Failed(f"{server.name}: HEAD {path}: {key.data[0][:100]!r}")
                count += 1
                key.data[0] = b""
                sock.sendall(request)
    took = time.perf_counter() - started
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]  # they are sockets
    return count / took, count


def push_small(server: Server, layers: Sequence[bytes], connections: int) -> float:
    """POST and PUT of each layer, over so many connections at once; seconds."""
    address = urlsplit(server.url)
    common = "".join(
        f"{name}: {value}\r\n" for name, value in {"Host": address.netloc, **server.headers()}.items()
    )
    post = f"POST /v2/{REPOSITORY}/blobs/uploads/ HTTP/1.1\r\n{common}Content-Length: 0\r\n\r\n".encode()
    waiting = [(f"sha256%3A{hashlib.sha256(layer).hexdigest()}", layer) for layer in layers]
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        one = socket.create_connection((address.hostname, address.port), timeout=30)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(one, selectors.EVENT_READ, [b"", None])
    started = time.perf_counter()
    left = len(layers)
    for key in selector.get_map().values():
        key.data[1] = waiting.pop()
        key.fileobj.sendall(post)  # type: ignore[union-attr]  # they are sockets
    while left:
        for key, _ in selector.select(30):
            sock: Any = key.fileobj
            key.data[0] += sock.recv(65536)
            if not key.data[0].endswith(b"\r\n\r\n"):
                continue
            answer, key.data[0] = key.data[0], b""
            if answer[9:12] == b"202":
                digest, layer = key.data[1]
                match = re.search(rb"(?i)\r\nlocation: *(\S+)", answer)
                location = local(match[1].decode() if match else "")
                mark = "&" if "?" in location else "?"
                head = (
                    f"PUT {location}{mark}digest={digest} HTTP/1.1\r\n{common}Content-Length: {len(layer)}\r\n\r\n"
                )
                sock.sendall(head.encode() + layer)
            elif answer[9:12] == b"201":
                left -= 1
                if waiting:
                    key.data[1] = waiting.pop()
                    sock.sendall(post)
            else:
                raise Failed(f"{server.name}: {answer[:200]!r}")
    seconds = time.perf_counter() - started
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]  # they are sockets
    return seconds


def together(works: Sequence[Callable[[], object]]) -> None:
    """Run them all at once, each in a thread. Raises what one of them raises."""
    with ThreadPoolExecutor(len(works)) as pool:
        for done in [pool.submit(work) for work in works]:
            done.result()


def make_file(file: Path, mib: int) -> None:
    """Random bytes that no registry can compress or share."""
    block = os.urandom(1024 * 1024)
    with file.open("wb") as stream:
        for number in range(mib):
            stream.write(number.to_bytes(8, "big") + block[8:])


def renew(file: Path) -> str:
    """Change the content, so that no registry has it; the digest."""
    with file.open("r+b") as stream:
        stream.write(os.urandom(64))
    with file.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def settle() -> None:
    """
    Have written what was written to files before: an idle disk, the same for each registry.

    A registry that syncs waits for what others left unwritten, too: the files of the measurement, and those of a
    registry that does not sync.
    """
    os.sync()


def fetch_memory(directory: Path, mib: int) -> None:
    """
    Let the machine have `mib` of free memory at hand, by a file that comes and goes.

    Virtual machines give back what is free for a while. To get it again costs more than the rest of a push.
    """
    scratch = directory / "scratch"
    block = bytes(1024 * 1024)
    with scratch.open("wb") as stream:
        for _ in range(mib):
            stream.write(block)
    scratch.unlink()


def _curl(server: Server, rate: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["curl", "-sS", "--limit-rate", rate, "--max-time", "60", *_header_options(server), *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _header_options(server: Server) -> list[str]:
    return [option for name, value in server.headers().items() for option in ("-H", f"{name}: {value}")]
