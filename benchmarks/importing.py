"""
Taking over the storage of docker-registry: `python -m benchmarks.importing --images 1000`.

A real docker-registry gets images over HTTP: in nested repositories, with layers that many share and one of their
own, every tenth as an index of two, every tenth with a signature of cosign. Then it is stopped, and
`dtr import-storage` takes its directory over: once, once more (everything is here already), and, over a database
of its own, with `--verify`. All files are compared before and after, by inode, time and size; and everything is
pulled from dtr by tag and digest, and compared.

1,000 images take about three minutes, most of them for pushing and pulling.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import http.client
import json
import os
import random
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from benchmarks.servers import DockerRegistry, Dtr
from dtr.pki import ensure_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEDIA = "application/vnd.oci.image."
_MANIFEST, _INDEX = f"{_MEDIA}manifest.v1+json", f"{_MEDIA}index.v1+json"
_BASES = 20
_IN_REPOSITORY = 20
_CLIENTS = 4


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


@dataclass
class Image:
    """A manifest, what it names, and the tags that name it."""

    media_type: str
    payload: bytes
    blobs: list[bytes] = field(default_factory=list)
    children: list[Image] = field(default_factory=list)


def make_image(number: int, size: int) -> Image:
    """An image of three layers, of which two are those of many; all follow from the number."""
    base = number % _BASES
    layers = [random.Random(seed).randbytes(size) for seed in (f"{base}/0", f"{base}/1", f"own {number}")]
    config = json.dumps({"architecture": "amd64", "os": "linux", "number": number}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _descriptor(f"{_MEDIA}config.v1+json", config),
        "layers": [_descriptor(f"{_MEDIA}layer.v1.tar", one) for one in layers],
    }
    return Image(_MANIFEST, json.dumps(document).encode(), [config, *layers])


def images(number: int, size: int) -> Iterator[tuple[str, str, Image]]:
    """So many: repository, tag and image, and signatures besides."""
    for one in range(number):
        repository = f"team{one // _IN_REPOSITORY // 5}/apps/app{one // _IN_REPOSITORY}"
        image = make_image(one, size)
        if one % 10 == 1:
            other = make_image(number + one, size)
            document = {
                "schemaVersion": 2,
                "mediaType": _INDEX,
                "manifests": [_descriptor(_MANIFEST, child.payload) for child in (image, other)],
            }
            image = Image(_INDEX, json.dumps(document).encode(), [], [image, other])
        yield repository, f"v{one}", image
        if one % 10 == 2:
            signature = make_image(2 * number + one, 100)
            yield repository, f"{_digest(image.payload).replace(':', '-')}.sig", signature


class Client:
    """One connection to a registry; `basic`: tokens are fetched with that."""

    def __init__(self, url: str, basic: str = "") -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        self._basic = basic
        self._headers: dict[str, str] = {}
        self._has: set[tuple[str, str]] = set()

    def log_in(self, repository: str) -> None:
        """Get a token for a repository."""
        query = urlencode({"service": "dtr", "scope": f"repository:{repository}:pull"})
        answer = self.call("GET", f"/auth/token?{query}", headers={"Authorization": f"Basic {self._basic}"})
        self._headers = {"Authorization": f"Bearer {json.loads(answer[0])['token']}"}

    def call(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[bytes, http.client.HTTPResponse]:
        """A request: what was answered."""
        self._connection.request(method, path, body, {**self._headers, **(headers or {})})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 400:
            raise SystemExit(f"{method} {path}: {answer.status} {content[:200]!r}")
        return content, answer

    def push(self, repository: str, reference: str, image: Image) -> None:
        """Push what the repository does not have from here yet."""
        for child in image.children:
            self.push(repository, _digest(child.payload), child)
        for blob in image.blobs:
            digest = _digest(blob)
            if (repository, digest) not in self._has:
                self._has.add((repository, digest))
                _, started = self.call("POST", f"/v2/{repository}/blobs/uploads/")
                parts = urlsplit(started.headers["Location"])
                query = f"{parts.query}&{urlencode({'digest': digest})}"
                self.call("PUT", f"{parts.path}?{query}", blob, {"Content-Type": "application/octet-stream"})
        path = f"/v2/{repository}/manifests/{reference}"
        self.call("PUT", path, image.payload, {"Content-Type": image.media_type})

    def compare(self, repository: str, reference: str, image: Image) -> None:
        """Pull an image, by what names it and by its digest."""
        for one in (reference, _digest(image.payload)):
            if self.call("GET", f"/v2/{repository}/manifests/{one}")[0] != image.payload:
                raise SystemExit(f"{repository}:{one} is another image")
        for child in image.children:
            self.compare(repository, _digest(child.payload), child)
        for blob in image.blobs:
            if self.call("GET", f"/v2/{repository}/blobs/{_digest(blob)}")[0] != blob:
                raise SystemExit(f"{repository}: a blob has other content")


def files(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, time and size of all files."""
    found = {}
    for place, _, names in os.walk(directory):
        for name in names:
            status = Path(place, name).stat()
            found[f"{place}/{name}"] = status.st_ino, status.st_mtime_ns, status.st_size
    return found


def import_storage(dtr: Dtr, *options: str) -> str:
    """Run the command; what it said, and what it cost."""
    program = dtr.commands()[0][0]
    command = ["import-storage", "--create-namespaces", *options]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([program, *command], env=dtr.environment(), stdout=said, stderr=said, cwd="/")
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().strip()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {text}")
    cpu = used.ru_utime + used.ru_stime
    return f"{seconds:.1f} s, {cpu:.1f} s of processor, {used.ru_maxrss / 1024:.0f} MiB at most\n    {text}"


def in_parts(work: list[Any], do: Any) -> None:
    """Let some clients do their part each."""
    with concurrent.futures.ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(do, [work[start::_CLIENTS] for start in range(_CLIENTS)]))


def main() -> None:
    """Fill a docker-registry, take it over, and say what it cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000, help="how many tags there are, signatures aside")
    parser.add_argument("--size", type=int, default=20_000, help="bytes of a layer")
    parser.add_argument("--database", help="an empty PostgreSQL database, instead of SQLite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dtr-bench-") as place:
        directory = Path(place)
        certificate = ensure_certificate(directory / "tls", [])
        peer = DockerRegistry(directory / "docker-registry", certificate.chain, certificate.key)
        work = list(images(given.images, given.size))

        def push(part: list[tuple[str, str, Image]]) -> None:
            client = Client(peer.url)
            for one in part:
                client.push(*one)

        peer.start()
        try:
            in_parts(work, push)
        finally:
            peer.stop()
        data = directory / "docker-registry" / "data"
        before = files(data)
        size = sum(one[2] for one in before.values())
        print(f"{len(work)} tags; the tree has {len(before)} files of {size / 2**20:.0f} MiB")
        verified = Dtr(directory / "verified")
        dtr = Dtr(directory / "dtr", database=given.database)
        for one in (verified, dtr):
            one.directory.mkdir()
            one.more = {"DTR_STORAGE__FILESYSTEM__ROOT": str(data)}
            one.start()  # which makes the tables and the first accounts
            one.stop()
        for text, one, options in (
            ("import", dtr, ()),
            ("import again", dtr, ()),
            ("import --verify", verified, ("--verify",)),
        ):
            print(f"{text}: {import_storage(one, *options)}")
        if files(data) != before:
            raise SystemExit("files of the tree changed, or came")
        print("no file of the tree changed, none came")

        def compare(part: list[tuple[str, str, Image]]) -> None:
            client = Client(dtr.url, dtr.basic)
            latest = ""
            for repository, tag, image in part:
                if repository != latest:
                    client.log_in(repository)
                    latest = repository
                client.compare(repository, tag, image)

        dtr.start()
        try:
            started = time.perf_counter()
            in_parts(work, compare)
            print(f"everything was pulled and compared in {time.perf_counter() - started:.1f} s")
        finally:
            dtr.stop()


if __name__ == "__main__":
    main()
