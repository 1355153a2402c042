"""
Mirroring next to `skopeo copy`: `python -m benchmarks.mirror --layers 4 --mib 256`.

Images of random layers go from a docker-registry to dtr (poll) and from dtr to a docker-registry (push), by a
policy and by skopeo. Each is another image, so that nobody has a layer already. Seconds from the order until it is
there, as a client sees it; the memory of dtr's processes is told, too. Everything is on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import aiohttp

from benchmarks.cache import Cache, push
from benchmarks.servers import PASSWORD, DockerRegistry, stop_all
from dtr.pki import ensure_certificate

if TYPE_CHECKING:
    from collections.abc import Awaitable

_LOOK_SECONDS = 0.05
_PATIENCE_SECONDS = 600.0


async def skopeo(source: str, target: str, *options: str) -> None:
    """Copy an image."""
    program = shutil.which("skopeo")
    if program is None:
        raise SystemExit("skopeo is not installed")
    process = await asyncio.create_subprocess_exec(
        program,
        "copy",
        "--quiet",
        "--insecure-policy",
        "--preserve-digests",  # else it would compress what is not
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        *options,
        f"docker://{source}",
        f"docker://{target}",
    )
    if await process.wait():
        raise SystemExit(f"skopeo did not copy {source}")


def place(server: DockerRegistry | Cache, name: str) -> str:
    """An image as skopeo names it."""
    return f"{server.url.partition('://')[2]}/{name}:v1"


class Mirroring:
    """The policies of dtr."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def make(self, kind: str, name: str, remote: str) -> dict[str, Any]:
        """A policy that begins at once."""
        form = {"remoteHost": remote, "remoteRepository": name}
        async with self._session.post(
            f"/api/v0/repositories/admin/{name.partition('/')[2]}/{kind}MirroringPolicies", json=form
        ) as answer:
            made: dict[str, Any] = await answer.json()
            return made

    async def run(self, kind: str, name: str, remote: str) -> None:
        """Mirror it, to the end."""
        made = await self.make(kind, name, remote)
        where = f"/api/v0/repositories/{made['localRepository']}/mirroringPolicies/{made['id']}/tags"
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while True:
                async with self._session.get(where) as answer:
                    tags = await answer.json()
                if tags and tags[0]["status"] == "mirrored":
                    return
                if tags and tags[0]["status"] == "failed":
                    raise SystemExit(tags[0]["detail"])
                await asyncio.sleep(_LOOK_SECONDS)


async def timed(work: Awaitable[None]) -> float:
    """Seconds that it takes."""
    started = perf_counter()
    await work
    return perf_counter() - started


async def measure(layers: int, size: int, directory: Path) -> None:
    """Start all, mirror, and print."""
    made = ensure_certificate(directory / "tls", [])
    other = DockerRegistry(directory / "other", made.chain, made.key)
    cache = Cache(directory / "dtr")
    servers: tuple[DockerRegistry | Cache, ...] = (other, cache)
    try:
        for server in servers:
            server.start()
        headers = {"Authorization": f"Basic {cache.basic}"}
        async with aiohttp.ClientSession(cache.url, headers=headers, raise_for_status=True) as session:
            mirroring = Mirroring(session)
            for name in ("first", "poll", "poll-skopeo"):
                await session.post("/api/v0/repositories/admin", json={"name": name})
            await push(other.url, "bench/first", 1, 1000)  # what is imported with the first of all
            await mirroring.run("poll", "bench/first", other.url)
            print(f"{layers} layers of {size / 2**20:g} MiB; seconds, and MiB a second")
            print(f"{'':32}{'dtr':>18}{'skopeo':>18}")
            for name in ("bench/poll", "bench/poll-skopeo"):
                await push(other.url, name, layers, size)
            credentials = f"admin:{PASSWORD}"
            mine = await timed(mirroring.run("poll", "bench/poll", other.url))
            theirs = await timed(
                skopeo(
                    place(other, "bench/poll-skopeo"),
                    place(cache, "admin/poll-skopeo"),
                    "--dest-creds",
                    credentials,
                )
            )
            show("docker-registry to dtr", layers * size, mine, theirs)
            # Back to repositories that do not have them: another docker-registry's data would be deleted first.
            back = DockerRegistry(directory / "back", made.chain, made.key)
            servers = (*servers, back)
            back.start()
            mine = await timed(mirroring.run("push", "bench/poll", back.url))
            theirs = await timed(
                skopeo(
                    place(cache, "admin/poll-skopeo"),
                    place(back, "bench/poll-skopeo"),
                    "--src-creds",
                    credentials,
                )
            )
            show("dtr to docker-registry", layers * size, mine, theirs)
            print(f"memory of dtr's processes afterwards: {sum(cache.memory()):.0f} MiB")
    finally:
        stop_all(servers)


def show(title: str, size: int, *seconds: float) -> None:
    """A line of the table."""
    cells = (f"{one:.2f} / {size / 2**20 / one:.0f}" for one in seconds)
    print(f"{title:32}" + "".join(f"{one:>18}" for one in cells), flush=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--mib", type=float, default=256, help="of each layer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dtr-bench-mirror-") as directory:
        asyncio.run(measure(given.layers, round(given.mib * 2**20), Path(directory)))


if __name__ == "__main__":
    main()
