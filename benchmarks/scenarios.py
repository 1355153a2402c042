"""
What is measured. Each scenario gives a rate (more is better), a time or an amount of memory (less is better).

The goals are ratios to docker-registry 2.8 without authentication, ours with it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import statistics
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.clients import CLIENTS, SHAPES, Image, Nothing, copy, find
from benchmarks.load import (
    MANIFEST,
    Connection,
    fetch_memory,
    get_rate,
    head_rate,
    make_file,
    pull,
    push_file,
    push_small,
    renew,
    settle,
    throttled,
    together,
)
from benchmarks.servers import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.servers import Server

_STREAMS = 4
_TRANSFERS = 32  # of each direction
_SMALL_IMAGE = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Measured:
    """One result; `cpu` in microseconds per request or seconds per GiB, None where it means nothing."""

    value: float
    cpu: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A thing to measure; `goal` is the wanted ratio, as "so many times better than the peer"."""

    name: str
    unit: str
    cpu_unit: str
    run: Callable[[Server], Measured]
    goal: float | None = None
    less_is_better: bool = False


class Content:
    """What the registries hold while they are measured: the same files on each."""

    def __init__(self, directory: Path, *, big_mib: int, tags: int) -> None:
        """`tags` is the number of tags of the repository."""
        self.big_mib = big_mib
        self.tags = tags
        self.big = directory / "big"
        self.parts = [directory / f"part{number}" for number in range(_STREAMS)]
        self.images = [Image(directory / f"image{number}", sizes) for number, sizes in enumerate(SHAPES.values())]
        make_file(self.big, big_mib)
        for part in self.parts:
            make_file(part, big_mib // _STREAMS)
        self.big_digest = renew(self.big)
        self.part_digests = [renew(part) for part in self.parts]
        self.config = json.dumps({"architecture": "amd64", "os": "linux", "salt": os.urandom(9).hex()}).encode()
        self.config_digest = f"sha256:{hashlib.sha256(self.config).hexdigest()}"

    def push_to(self, server: Server) -> None:
        """Push it all."""
        push_file(server, self.big, self.big_digest)
        for part, digest in zip(self.parts, self.part_digests, strict=True):
            push_file(server, part, digest)
        connection = Connection(server)
        connection.push_blob(self.config)
        connection.close()
        layers = [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size << 20}
            for digest, size in (
                (self.big_digest, self.big_mib),
                *((digest, self.big_mib // _STREAMS) for digest in self.part_digests),
            )
        ]
        config = {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": self.config_digest,
            "size": len(self.config),
        }
        payload = json.dumps(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        ).encode()

        def put(first: int) -> None:
            mine = Connection(server)
            for number in range(first, self.tags, 8):
                path = f"/v2/{REPOSITORY}/manifests/tag-{number:06d}"
                mine.request("PUT", path, payload, {"Content-Type": MANIFEST})
            mine.close()

        together([partial(put, first) for first in range(8)])

    def make_room(self) -> None:
        """Have memory for what is pushed next, the same for each registry."""
        settle()  # before: while that is waited for, the memory could go again
        fetch_memory(self.big.parent, self.big_mib * 5 // 4)


def scenarios(content: Content, *, seconds: int) -> list[Scenario]:
    """All of them; `seconds` is how long a rate is measured."""
    manifest = f"/v2/{REPOSITORY}/manifests/tag-000000"
    accept = {"Accept": MANIFEST}
    small = f"/v2/{REPOSITORY}/blobs/{content.config_digest}"
    page = f"/v2/{REPOSITORY}/tags/list?n=100"
    whole = f"/v2/{REPOSITORY}/tags/list?n={content.tags}"
    gib = content.big_mib / 1024

    def rate(path: str, connections: int, headers: dict[str, str] | None = None) -> Callable[[Server], Measured]:
        return lambda server: _requests(server, lambda: get_rate(server, path, connections, seconds, headers))

    def heads(path: str, connections: int) -> Callable[[Server], Measured]:
        return lambda server: _requests(server, lambda: head_rate(server, path, connections, seconds, accept))

    def push_big(server: Server, *, chunked: bool) -> Measured:
        digest = renew(content.big)
        content.make_room()
        return transfer(server, lambda: push_file(server, content.big, digest, chunked=chunked), gib)

    def push_streams(server: Server) -> Measured:
        digests = [renew(part) for part in content.parts]
        content.make_room()
        works = [
            partial(push_file, server, part, digest, chunked=True)
            for part, digest in zip(content.parts, digests, strict=True)
        ]
        return transfer(server, lambda: together(works), gib)

    def pull_streams(server: Server, *, tls: bool) -> Measured:
        works = [partial(pull, server, digest, tls=tls) for digest in content.part_digests]
        return transfer(server, lambda: together(works), gib)

    def less(name: str, unit: str, run: Callable[[Server], Measured], goal: float | None = None) -> Scenario:
        return Scenario(name, unit, "", run, goal, less_is_better=True)

    def pull_big(server: Server, *, tls: bool) -> Measured:
        return transfer(server, lambda: pull(server, content.big_digest, tls=tls), gib)

    return [
        less("start to first answer", "s", _start, 0.5),
        less("CPU until the first answer", "s", _start_cpu),
        less("memory after the start, largest process", "MiB", _memory_after_start, 60),
        less("memory at rest, largest process", "MiB", partial(_memory_at_rest, whole=False), 60),
        less("memory at rest, all processes", "MiB", partial(_memory_at_rest, whole=True)),
        less("memory after API and pages, largest process", "MiB", partial(_memory_of_pages, whole=False)),
        less("memory after API and pages, all processes", "MiB", partial(_memory_of_pages, whole=True)),
        Scenario("manifest GET, 1 connection", "req/s", "us", rate(manifest, 1, accept), 4),
        Scenario("manifest GET, 16 connections", "req/s", "us", rate(manifest, 16, accept), 10),
        Scenario("manifest GET, 64 connections", "req/s", "us", rate(manifest, 64, accept), 10),
        Scenario("manifest HEAD, 1 connection", "req/s", "us", heads(manifest, 1)),
        Scenario("manifest HEAD, 16 connections", "req/s", "us", heads(manifest, 16), 8),
        Scenario("manifest HEAD, 64 connections", "req/s", "us", heads(manifest, 64), 8),
        Scenario("blob of 80 bytes GET, 16 connections", "req/s", "us", rate(small, 16), 10),
        Scenario(f"page of 100 out of {content.tags} tags", "req/s", "us", rate(page, 4), 20),
        Scenario(f"list of {content.tags} tags", "req/s", "us", rate(whole, 4)),
        Scenario("200 layers of 10 KiB, 16 connections", "blobs/s", "us", partial(_small_layers, 16), 5),
        Scenario("200 layers of 10 KiB, 4 connections", "blobs/s", "us", partial(_small_layers, 4), 5),
        Scenario(f"pull {content.big_mib} MiB, 1 stream", "GiB/s", "s/GiB", partial(pull_big, tls=False), 1.1),
        Scenario(
            f"pull {content.big_mib} MiB, 4 streams", "GiB/s", "s/GiB", partial(pull_streams, tls=False), 1.1
        ),
        Scenario(
            f"pull {content.big_mib} MiB over TLS, 1 stream", "GiB/s", "s/GiB", partial(pull_big, tls=True), 1.2
        ),
        Scenario(
            f"pull {content.big_mib} MiB over TLS, 4 streams", "GiB/s", "s/GiB", partial(pull_streams, tls=True)
        ),
        Scenario(
            f"push {content.big_mib} MiB with its length", "GiB/s", "s/GiB", partial(push_big, chunked=False), 2
        ),
        Scenario(f"push {content.big_mib} MiB in chunks", "GiB/s", "s/GiB", partial(push_big, chunked=True), 1.5),
        Scenario(f"push {content.big_mib} MiB in chunks, 4 streams", "GiB/s", "s/GiB", push_streams),
        *_whole_images(content.images),
        Scenario(
            "memory under 64 transfers, all processes", "MiB", "", partial(_memory_of_transfers, content),
            less_is_better=True,
        ),
    ]  # fmt: skip


def _requests(server: Server, load: Callable[[], tuple[float, int]]) -> Measured:
    server.headers()  # a token that lasts
    settle()
    before = server.cpu_seconds()
    rate, count = load()
    return Measured(rate, (server.cpu_seconds() - before) / max(count, 1) * 1e6)


def transfer(server: Server, work: Callable[[], object], gib: float) -> Measured:
    """`work` moves so many GiB to or from a registry, from an idle disk."""
    server.headers()
    settle()
    before, started = server.cpu_seconds(), time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return Measured(gib / seconds, (server.cpu_seconds() - before) / gib)


def _small_layers(connections: int, server: Server) -> Measured:
    layers = [os.urandom(10 * 1024) for _ in range(200)]
    server.headers()
    settle()
    before = server.cpu_seconds()
    seconds = push_small(server, layers, connections)
    return Measured(len(layers) / seconds, (server.cpu_seconds() - before) / len(layers) * 1e6)


def _start(server: Server) -> Measured:
    server.stop()
    return Measured(server.start())


def _start_cpu(server: Server) -> Measured:
    server.stop()
    server.start()
    return Measured(server.cpu_seconds())


def _memory_after_start(server: Server) -> Measured:
    server.stop()
    server.start()
    time.sleep(1)
    return Measured(server.memory()[0])


def _memory_at_rest(server: Server, *, whole: bool) -> Measured:
    server.stop()
    server.start()
    server.rest()
    return Measured(server.whole_memory() if whole else server.memory()[0])


def _memory_of_pages(server: Server, *, whole: bool) -> Measured:
    server.stop()
    server.start()
    server.browse()
    server.rest()
    return Measured(server.whole_memory() if whole else server.memory()[0])


def _memory_of_transfers(content: Content, server: Server) -> Measured:
    digests = [content.part_digests[number % _STREAMS] for number in range(_TRANSFERS)]
    running = throttled(server, digests, content.parts[0], "1M")
    most = 0.0
    until = time.monotonic() + 5
    while time.monotonic() < until:
        most = max(most, sum(server.memory()))
        time.sleep(0.2)
    for process in running:
        process.kill()
        process.wait()
    return Measured(most)


class _Copies:
    """A client that copies an image, to or from a registry: `push` or `pull`."""

    def __init__(self, client: str, image: Image, way: str) -> None:
        self._client = client
        self._image = image
        self._way = way
        # A copy of a small one takes a fifth of a second: of such the median of some.
        self._times = 5 if sum(image.sizes) <= _SMALL_IMAGE else 1

    def whole(self, server: Server) -> Measured:
        """With a registry."""
        taken: list[float] = []
        spent = 0.0
        for _ in range(self._times):
            self._image.renew()
            if self._way == "pull":
                copy(self._client, self._image, server, "push")
            settle()
            before = server.cpu_seconds()
            taken.append(copy(self._client, self._image, server, self._way))
            spent += server.cpu_seconds() - before
        return Measured(statistics.median(taken), spent / self._times)

    def alone(self, _server: Server) -> Measured:
        """What the client needs for itself: no registry makes it faster."""
        taken: list[float] = []
        for _ in range(self._times):
            self._image.renew()
            settle()
            with closing(Nothing(self._image)) as nothing:
                taken.append(copy(self._client, self._image, nothing, self._way))
        return Measured(statistics.median(taken))

    def added(self, server: Server) -> Measured:
        """How much longer the client takes with the registry than by itself."""
        alone, whole = self.alone(server), self.whole(server)
        return Measured(whole.value - alone.value, whole.cpu)


def _whole_images(images: Sequence[Image]) -> list[Scenario]:
    """Real clients, those that are here, with images that are new each time."""
    found = []
    clients = [client for client in CLIENTS if find(client)]
    for client, (shape, image), way in itertools.product(
        clients, zip(SHAPES, images, strict=True), ("push", "pull")
    ):
        name = f"{client} {'pushes' if way == 'push' else 'pulls'} {shape}"
        copies = _Copies(client, image, way)
        found += [
            Scenario(f"{name}, to nothing", "s", "", copies.alone, less_is_better=True),
            Scenario(name, "s", "s", copies.whole, 2, less_is_better=True),
            Scenario(f"{name}, what the registry adds", "s", "s", copies.added, less_is_better=True),
        ]
    return found
