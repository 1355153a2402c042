"""
Pulling through a cache: `python -m benchmarks.cache --layers 4 --mib 64`.

An image at a docker-registry is pulled through dtr and through another docker-registry that is its proxy: when
nothing is there (cold), when all is (warm), and by eight clients at once when nothing is there. Seconds until the
first byte of a layer came, and all. Everything is on loopback, so that it is the caches that are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp

from benchmarks.servers import DockerRegistry, Dtr, stop_all
from dtr.pki import ensure_certificate

if TYPE_CHECKING:
    from collections.abc import Mapping

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_AT_ONCE = 3
"""So many layers Docker pulls at once."""
_CLIENTS = 8


class Proxy(DockerRegistry):
    """The peer as a proxy of a registry."""

    name = "docker-registry"

    def __init__(self, directory: Path, certificate: Path, key: Path, remote: str) -> None:
        """Of the registry at this address."""
        self._remote = remote
        super().__init__(directory, certificate, key)

    def _configuration(self, name: str, port: int, more: str) -> Path:
        return super()._configuration(name, port, f"{more}proxy: {{remoteurl: {self._remote}}}\n")


class Cache(Dtr):
    """Ours, which may talk to the loopback interface."""

    def environment(self) -> dict[str, str]:
        """See `Server`."""
        return {**super().environment(), "DTR_MIRRORING__ALLOWED_NETWORKS": "127.0.0.1/32"}


@dataclass
class Pulled:
    """Seconds: until the first byte of the first layer came, and all."""

    first: float
    total: float


async def push(url: str, name: str, layers: int, size: int) -> int:
    """Push an image of random layers; bytes of its layers."""
    async with aiohttp.ClientSession(url) as session:
        descriptors = []
        for content in (b"{}", *(os.urandom(size) for _ in range(layers))):
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            async with session.post(f"/v2/{name}/blobs/uploads/") as answer:
                where = answer.headers["Location"]
            async with session.put(f"{where}&digest={digest}", data=content) as answer:
                answer.raise_for_status()
            descriptors.append({"digest": digest, "size": len(content)})
        config, *rest = descriptors
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **one} for one in rest],
        }
        headers = {"Content-Type": _MANIFEST}
        async with session.put(f"/v2/{name}/manifests/v1", data=json.dumps(manifest), headers=headers) as answer:
            answer.raise_for_status()
    return layers * size


async def pull(url: str, name: str, headers: Mapping[str, str]) -> Pulled:
    """Pull it as Docker does, and look at every byte."""
    started = perf_counter()
    first: list[float] = []
    slots = asyncio.Semaphore(_AT_ONCE)
    async with aiohttp.ClientSession(url, headers=headers, read_bufsize=1 << 20) as session:
        async with session.get(f"/v2/{name}/manifests/v1", headers={"Accept": _MANIFEST}) as answer:
            answer.raise_for_status()
            manifest = json.loads(await answer.read())

        async def fetch(blob: Mapping[str, Any]) -> None:
            hasher = hashlib.sha256()
            async with slots, session.get(f"/v2/{name}/blobs/{blob['digest']}") as answer:
                answer.raise_for_status()
                async for piece in answer.content.iter_any():
                    if not first:
                        first.append(perf_counter() - started)
                    hasher.update(piece)
            if f"sha256:{hasher.hexdigest()}" != blob["digest"]:
                raise SystemExit(f"{url} gave something else for {blob['digest']}")

        await asyncio.gather(*(fetch(one) for one in manifest["layers"]))
    return Pulled(first[0], perf_counter() - started)


async def prepare(cache: Cache, upstream: str) -> None:
    """Make the namespace `hub` a cache."""
    headers = {"Authorization": f"Basic {cache.basic}"}
    async with aiohttp.ClientSession(cache.url, headers=headers, raise_for_status=True) as session:
        await session.post("/enzi/v0/accounts", json={"name": "hub", "isOrg": True})
        async with session.post("/api/v0/remotes", json={"name": "upstream", "remoteHost": upstream}) as answer:
            remote = (await answer.json())["id"]
        form = {"remoteID": remote, "visibility": "public"}
        await session.put("/api/v0/repositoryNamespaces/hub/upstream", json=form)
    await asyncio.sleep(1.5)  # until every worker knows


async def token(cache: Cache, name: str) -> dict[str, str]:
    """The header of somebody who pulls without a log-in."""
    query = urlencode({"service": "dtr", "scope": f"repository:{name}:pull"})
    async with aiohttp.ClientSession(cache.url) as session, session.get(f"/auth/token?{query}") as answer:
        return {"Authorization": f"Bearer {(await answer.json())['token']}"}


async def measure(layers: int, size: int, directory: Path) -> None:
    """Start all, pull, and print."""
    made = ensure_certificate(directory / "tls", [])
    upstream = DockerRegistry(directory / "upstream", made.chain, made.key)
    proxy = Proxy(directory / "proxy", made.chain, made.key, upstream.url)
    cache = Cache(directory / "cache")
    servers = (upstream, cache, proxy)
    try:
        for server in servers:
            server.start()
        await prepare(cache, upstream.url)
        print(f"{layers} layers of {size / 2**20:g} MiB; seconds until the first byte / all")
        print(f"{'':24}{'directly':>18}{'dtr':>18}{'docker-registry':>18}")
        await push(upstream.url, "bench/first", 1, 1000)  # what is imported with the first pull
        headers = await token(cache, "hub/bench/first")
        await asyncio.gather(*(pull(cache.url, "hub/bench/first", headers) for _ in range(_CLIENTS)))
        for title, clients, times in (("cold", 1, 1), ("warm", 1, 3), (f"cold, {_CLIENTS} clients", _CLIENTS, 1)):
            name = f"bench/{'many' if clients > 1 else 'one'}"
            if title != "warm":
                await push(upstream.url, name, layers, size)
            row = []
            for server, path in ((upstream, name), (cache, f"hub/{name}"), (proxy, name)):
                headers = await token(cache, path) if server is cache else {}
                best: Pulled | None = None
                for _ in range(times):
                    all_pulled = await asyncio.gather(*(pull(server.url, path, headers) for _ in range(clients)))
                    slowest = max(all_pulled, key=lambda one: one.total)
                    best = slowest if best is None or slowest.total < best.total else best
                assert best is not None
                row.append(f"{best.first:8.3f} /{best.total:8.2f}")
            print(f"{title:24}" + "".join(f"{one:>18}" for one in row), flush=True)
    finally:
        stop_all(servers)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--mib", type=float, default=64, help="of each layer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dtr-bench-cache-") as directory:
        asyncio.run(measure(given.layers, round(given.mib * 2**20), Path(directory)))


if __name__ == "__main__":
    main()
