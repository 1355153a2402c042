"""
Collection while pushes go on, next to `docker-registry garbage-collect`: `python -m benchmarks.collect`.

Both registries get the same images over HTTP: each has layers of its own, and half of the images lose their tags.
dtr then collects by jobs of `onlinegc` and deletes the objects, while somebody pushes small images to another
repository all the time (to the same one, collection would be put off); the pushes are timed before and meanwhile.
docker-registry is stopped, for its collector wants nobody to push.

`--blobs 100000` takes about half an hour, most of it for pushing.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import copy
import hashlib
import http.client
import json
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from benchmarks.servers import REPOSITORY, DockerRegistry, Dtr, Server
from dtr.pki import ensure_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYERS = 9
"""Of an image; with its config ten blobs."""
SIZE = 20_000
"""Of a layer, in bytes: a file of its own in both."""
_MEDIA = "application/vnd.oci.image."
_CLIENTS = 4


class Pusher:
    """A client with one connection."""

    def __init__(self, server: Server) -> None:
        """Connect when it is first needed."""
        self._server = server
        parts = urlsplit(server.url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port)

    def call(self, method: str, path: str, body: bytes = b"", media_type: str = "") -> http.client.HTTPResponse:
        """A request; its answer is read."""
        headers = {**self._server.headers(), **({"Content-Type": media_type} if media_type else {})}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        answer.read()
        if answer.status >= 400:
            raise SystemExit(f"{self._server.name}: {method} {path}: {answer.status}")
        return answer

    def push(self, name: str, tag: str, *, layers: int = LAYERS) -> str:
        """An image of contents that follow from its name; its digest."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "name": name}).encode()
        contents = [_content(f"{name}/{number}") for number in range(layers)]
        for content in (config, *contents):
            self.put(content)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": f"{_MEDIA}manifest.v1+json",
                "config": _descriptor("config.v1+json", config),
                "layers": [_descriptor("layer.v1.tar", one) for one in contents],
            }
        ).encode()
        self.call("PUT", f"/v2/{self._server.repository}/manifests/{tag}", manifest, f"{_MEDIA}manifest.v1+json")
        return _digest(manifest)

    def put(self, content: bytes) -> None:
        """POST and PUT."""
        location = self.call("POST", f"/v2/{self._server.repository}/blobs/uploads/").headers["Location"]
        parts = urlsplit(location)
        query = f"{parts.query}&digest={_digest(content)}".lstrip("&")
        self.call("PUT", f"{parts.path}?{query}", content, "application/octet-stream")


@dataclass
class Timed:
    """Pushes of small images, one after the other, until told to stop; how long each took, in seconds."""

    server: Server
    seconds: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        client, number = Pusher(self.server), 0
        while not self._stop.is_set():
            number += 1
            started = time.perf_counter()
            client.push(f"meanwhile/{id(self)}/{number}", f"meanwhile-{number % 10}", layers=2)
            self.seconds.append(time.perf_counter() - started)
            time.sleep(0.02)

    def __str__(self) -> str:
        """Number, median and 95th percentile."""
        if len(self.seconds) < 2:
            return f"{len(self.seconds)} pushes"
        p95 = statistics.quantiles(self.seconds, n=20)[-1]
        median = statistics.median(self.seconds)
        return f"{len(self.seconds)} pushes, median {1000 * median:.1f} ms, p95 {1000 * p95:.1f} ms"


def main() -> None:
    """Fill both, collect, and say what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blobs", type=int, default=2_000, help="how many blobs there are, half of them garbage")
    parser.add_argument("--database", help="a PostgreSQL database, instead of SQLite")
    given = parser.parse_args()
    images = max(2, given.blobs // (LAYERS + 1))
    with tempfile.TemporaryDirectory(prefix="dtr-collect-") as directory:
        _measure_dtr(Path(directory) / "dtr", images, given.database)
        _measure_peer(Path(directory), images)


def _measure_dtr(directory: Path, images: int, database: str | None) -> None:
    directory.mkdir()
    server = Dtr(directory, database=database)
    server.more["DTR_REGISTRY__DELETE_DELAY_SECONDS"] = "0"
    server.start()
    try:
        server.prepare()
        _ask(server, "/api/v0/meta/settings", {"garbageCollection": "scheduled"})
        _fill(server, images)
        for number in range(0, images, 2):
            Pusher(server).call("DELETE", f"/v2/{REPOSITORY}/manifests/image-{number}")
        elsewhere = copy.copy(server)
        elsewhere.repository = "bench/other"
        elsewhere.forget_token()
        with Timed(elsewhere) as idle:
            time.sleep(10)
        before = _bytes(directory / "blobs")
        started = time.perf_counter()
        # What manifests let go is due in a second run, and the objects of both are gone in a third.
        with Timed(elsewhere) as busy:
            for _ in range(3):
                _wait_for(server, _ask(server, "/api/v0/jobs", _COLLECT)["id"])
        seconds = time.perf_counter() - started
        print(f"dtr: {seconds:.1f} s, freed {before - _bytes(directory / 'blobs')} bytes while pushes went on")
        print(f"dtr, pushes before: {idle}")
        print(f"dtr, pushes meanwhile: {busy}")
    finally:
        server.stop()


_COLLECT = {"action": "onlinegc", "parameters": {"grace": "1ms", "unsafe": "true"}}


def _measure_peer(directory: Path, images: int) -> None:
    certificate = ensure_certificate(directory / "tls", ["localhost"])
    peer = DockerRegistry(directory / "peer", certificate.chain, certificate.key)
    peer.start()
    try:
        digests = _fill(peer, images)
    finally:
        peer.stop()
    # What its DELETE does. That looks through all tags for every manifest: hours for 5,000 of 10,000.
    manifests = peer.directory / f"data/docker/registry/v2/repositories/{REPOSITORY}/_manifests"
    for number in range(0, images, 2):
        shutil.rmtree(manifests / f"tags/image-{number}")
        shutil.rmtree(manifests / f"revisions/sha256/{digests[number].removeprefix('sha256:')}")
    before = _bytes(peer.directory / "data")
    started = time.perf_counter()
    program = peer.commands()[0][0]
    subprocess.run(
        [program, "garbage-collect", str(peer.directory / "plain.yml")],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - started
    freed = before - _bytes(peer.directory / "data")
    print(f"docker-registry: {seconds:.1f} s, freed {freed} bytes; it was stopped, no push was possible")


def _fill(server: Server, images: int) -> dict[int, str]:
    def push(numbers: Iterator[int]) -> dict[int, str]:
        client = Pusher(server)
        return {number: client.push(f"image/{number}", f"image-{number}") for number in numbers}

    started, digests = time.perf_counter(), dict[int, str]()
    with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as pool:
        for done in pool.map(push, (iter(range(first, images, _CLIENTS)) for first in range(_CLIENTS))):
            digests |= done
    blobs = images * (LAYERS + 1)
    print(f"{server.name}: {images} images with {blobs} blobs pushed in {time.perf_counter() - started:.0f} s")
    return digests


def _ask(server: Dtr, path: str, body: dict[str, Any] | None = None) -> Any:
    headers = {"Authorization": f"Basic {server.basic}", "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(server.url + path, content, headers)) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def _wait_for(server: Dtr, job: str) -> None:
    while (found := _ask(server, f"/api/v0/jobs/{job}"))["status"] != "done":
        if found["status"] in {"errored", "canceled"}:
            raise SystemExit(f"the collection ended as {found['status']}")
        time.sleep(0.1)
    print(f"dtr: {json.loads(_ask(server, f'/api/v0/jobs/{job}/logs')[-1]['data'])['msg']}")


def _bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def _content(name: str) -> bytes:
    return hashlib.shake_128(name.encode()).digest(SIZE)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": _MEDIA + kind, "digest": _digest(content), "size": len(content)}


if __name__ == "__main__":
    main()
