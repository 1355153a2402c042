"""
nginx in front: `python -m benchmarks.nginx --rounds 3 --big-mib 1024`.

dtr and Debian's docker-registry side by side, in turn: each alone, and each behind an nginx of the configuration
that `dtr nginx` makes. Processor seconds are those of all server processes, nginx included. nginx answers plain
HTTP here, too, to tell apart what TLS costs. Those behind nginx are compared with each other, and so are those
alone.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import MANIFEST, get_rate, pull, push_file, renew, together
from benchmarks.run import compare, in_turn, print_head, print_row
from benchmarks.scenarios import Content, Measured, Scenario, transfer
from benchmarks.servers import REPOSITORY, DockerRegistry, Dtr, free_port, stop_all
from dtr.config import Limits, Nginx
from dtr.nginx.configuration import Configuration, addresses_of
from dtr.pki import ensure_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.servers import Server

_SLICE = 64 * 1024 * 1024


def _nginx(directory: Path, server: Server, upstream: int, storages: Mapping[str, Path], tls: Path) -> list[str]:
    """The command of an nginx at the addresses of `server`, which it gets from a port of this machine."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "temporary").mkdir(exist_ok=True)
    given = Nginx(
        https_address=f"127.0.0.1:{server.tls_port}", http_address=None, upstreams=(f"127.0.0.1:{upstream}",)
    )
    text = Configuration(
        settings=given,
        clients=Limits(),
        upstreams=addresses_of(given, None),
        certificate=ensure_certificate(tls, ()),
        storages=storages,
        directory=directory,
        user="root root",
        external_port=server.tls_port,
        version=(1, 22),
    ).text()
    listen = f"listen 127.0.0.1:{server.tls_port} ssl http2;"
    (directory / "nginx.conf").write_text(text.replace(listen, f"{listen} listen 127.0.0.1:{server.port};"))
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin") or "nginx"
    return [
        program,
        "-p",
        str(directory),
        "-e",
        "stderr",
        "-c",
        str(directory / "nginx.conf"),
        "-g",
        "daemon off;",
    ]


def _wait(port: int) -> None:
    """Until somebody answers there."""
    for _ in range(1000):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/").close()
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("a registry behind nginx does not answer")


class DtrBehind(Dtr):
    """Ours, behind nginx."""

    name = "dtr behind nginx"

    def __init__(self, directory: Path, *, workers: int | None = None) -> None:
        """See `Dtr`."""
        super().__init__(directory, workers=workers)
        self._inner = free_port()

    def commands(self) -> list[list[str]]:
        """See `Server`."""
        storages = {"default": self.directory / "blobs"}
        own = _nginx(self.directory / "nginx", self, self._inner, storages, self.directory / "tls")
        return [*super().commands(), own]

    def environment(self) -> dict[str, str]:
        """See `Server`."""
        return super().environment() | {
            "DTR_HTTPS_ADDRESS": "",
            "DTR_HTTP_ADDRESS": f"127.0.0.1:{self._inner}",
            "DTR_TRUSTED_PROXIES": "127.0.0.0/8",
        }

    def start(self) -> float:
        """See `Server`; nginx alone is no answer."""
        seconds = super().start()
        _wait(self._inner)
        return seconds


class RegistryBehind(DockerRegistry):
    """The peer, behind nginx."""

    name = "docker-registry behind nginx"

    def commands(self) -> list[list[str]]:
        """See `Server`; it serves no TLS then."""
        return [
            super().commands()[0],
            _nginx(self.directory / "nginx", self, self._inner, {}, self.directory / "tls"),
        ]

    def start(self) -> float:
        """See `Server`; nginx alone is no answer."""
        seconds = super().start()
        _wait(self._inner)
        return seconds

    def _configuration(self, name: str, port: int, more: str) -> Path:
        if name == "plain":
            port = self._inner = free_port()
        return super()._configuration(name, port, more)


def scenarios(content: Content, *, seconds: int) -> list[tuple[Scenario, float | None]]:
    """What is measured, and the goal behind nginx."""
    gib = content.big_mib / 1024
    path = f"/v2/{REPOSITORY}/manifests/tag-000000"

    def requests(connections: int) -> Callable[[Server], Measured]:
        def run(server: Server) -> Measured:
            server.headers()
            before = server.cpu_seconds()
            rate, count = get_rate(server, path, connections, seconds, {"Accept": MANIFEST})
            return Measured(rate, (server.cpu_seconds() - before) / max(count, 1) * 1e6)

        return run

    def pull_all(server: Server, *, tls: bool) -> None:
        together([partial(pull, server, digest, tls=tls) for digest in content.part_digests])

    def pull_slices(server: Server, *, tls: bool) -> None:
        size = content.big_mib << 20
        for start in range(0, size, _SLICE):
            pull(server, content.big_digest, tls=tls, part=f"{start}-{min(start + _SLICE, size) - 1}")

    def push(server: Server, *, chunked: bool, tls: bool) -> Measured:
        file = content.parts[0]
        digest = renew(file)
        content.make_room()
        return transfer(server, lambda: push_file(server, file, digest, chunked=chunked, tls=tls), gib / 4)

    def pulled(name: str, work: Callable[[Server], object], goal: float | None) -> Any:
        return Scenario(name, "GiB/s", "s/GiB", lambda server: transfer(server, partial(work, server), gib)), goal

    def pushed(name: str, goal: float | None, *, chunked: bool, tls: bool) -> Any:
        return Scenario(name, "GiB/s", "s/GiB", partial(push, chunked=chunked, tls=tls)), goal

    found: list[tuple[Scenario, float | None]] = [
        (Scenario("manifest GET, 1 connection", "req/s", "us", requests(1)), None),
        (Scenario("manifest GET, 16 connections", "req/s", "us", requests(16)), 6),
    ]
    for tls, over in ((False, ""), (True, " over TLS")):
        found += [
            pulled(f"pull{over}, 1 stream", partial(_pull_big, content, tls=tls), 1.3 if tls else None),
            pulled(f"pull{over}, 4 streams", partial(pull_all, tls=tls), 1.3 if tls else None),
            pulled(f"pull{over}, ranges of 64 MiB", partial(pull_slices, tls=tls), None),
            pushed(f"push{over} with its length", None, chunked=False, tls=tls),
            pushed(f"push{over} in chunks", 1.6, chunked=True, tls=tls),
        ]
    return found


def _pull_big(content: Content, server: Server, *, tls: bool) -> None:
    pull(server, content.big_digest, tls=tls)


def main() -> None:
    """Measure, and print two tables in one: alone, and behind nginx."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each scenario runs on each")
    parser.add_argument("--seconds", type=int, default=4, help="how long a rate is measured")
    parser.add_argument("--big-mib", type=int, default=1024, help="size of the large layer; a quarter is pushed")
    parser.add_argument("--workers", type=int, help="worker processes of dtr (default: its own)")
    parser.add_argument("--only", default="", help="scenarios whose name contains this text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dtr-bench-") as name:
        measure(Path(name), options)


def measure(directory: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run everything in `directory`; the rows of the table."""
    content = Content(directory, big_mib=options.big_mib, tags=10)
    ours = Dtr(directory / "dtr", workers=options.workers)
    ours.start()
    certificate = ours.directory / "tls/server.pem", ours.directory / "tls/server-key.pem"
    behind = DtrBehind(directory / "dtr-behind", workers=options.workers)
    peer = DockerRegistry(directory / "registry", *certificate)
    peer_behind = RegistryBehind(directory / "registry-behind", *certificate)
    servers = (peer, ours, peer_behind, behind)
    rows: list[dict[str, Any]] = []
    try:
        for server in servers:
            if server is not ours:
                server.start()
            server.prepare()
            content.push_to(server)
        print_head()
        for scenario, goal in scenarios(content, seconds=options.seconds):
            if options.only not in scenario.name:
                continue
            results = in_turn(scenario, servers, options.rounds)
            for where, (theirs, mine) in (("alone", results[:2]), ("nginx", results[2:])):
                row = compare(scenario, theirs, mine)
                rows.append(
                    {**row, "name": f"{where}: {scenario.name}", "goal": goal if where == "nginx" else None}
                )
                print_row(rows[-1])
    finally:
        stop_all(servers)
    return rows


if __name__ == "__main__":
    main()
