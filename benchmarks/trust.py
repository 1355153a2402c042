"""
Content trust: `python -m benchmarks.trust`.

A collection of 1,000 tags, as docker makes one: signed by a signer and in `targets/releases`. Over HTTP, one
request after the other on one connection: how long each takes, and how much CPU time dtr's processes need for it,
without the client's. Then in this process, how much it is to make timestamps anew that are about to expire.
Nothing else should run meanwhile; it takes half a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import hashlib
import json
import statistics
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import aiohttp
from tests.support.notary import Key, Publisher

from benchmarks.servers import REPOSITORY, Dtr
from dtr.accounts import Accounts, Passwords
from dtr.db import open_database
from dtr.db.migrate import migrate
from dtr.oci import parse_repository_name
from dtr.registry import Repositories, Settings
from dtr.signer import LocalSigner
from dtr.trust import Collection, Trust
from dtr.tuf import Envelope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

_SIGNERS = ("targets/ada", "targets/releases")


class Client:
    """Who publishes and reads the collection."""

    def __init__(self, server: Dtr, session: aiohttp.ClientSession) -> None:
        self._server = server
        self._session = session
        self.gun = f"127.0.0.1:{server.port}/{REPOSITORY}"
        self._place = f"{server.url}/v2/{self.gun}/_trust/tuf/"
        server.repository = self.gun

    async def get(self, file: str) -> bytes:
        """A file, or a key."""
        async with self._session.get(self._place + file, headers=self._server.headers()) as answer:
            answer.raise_for_status()
            return await answer.read()

    async def publish(self, files: Mapping[str, bytes]) -> None:
        """An update."""
        form = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
        for role, content in files.items():
            form.add_field("files", content, filename=role, content_type="application/octet-stream")
        async with self._session.post(self._place, data=form, headers=self._server.headers()) as answer:
            if answer.status != 200:
                raise SystemExit(f"publishing: {answer.status} {await answer.text()}")

    async def publisher(self) -> Publisher:
        """Somebody who signs; the server's keys make snapshots and timestamps."""
        timestamp, snapshot = [json.loads(await self.get(f"{role}.key")) for role in ("timestamp", "snapshot")]
        return Publisher(self.gun, timestamp, snapshot)


async def measure(name: str, server: Dtr, times: int, work: Callable[[int], Awaitable[Any]]) -> None:
    """Do something so often, and tell what each takes."""
    await work(0)  # with what is imported and opened the first time
    seconds, cpu = [], server.cpu_seconds()
    for number in range(1, times + 1):
        started = perf_counter()
        await work(number)
        seconds.append(perf_counter() - started)
    each = (server.cpu_seconds() - cpu) / times
    print(f"{name:44} {statistics.median(seconds) * 1000:7.2f} ms, {each * 1000:7.2f} ms CPU")


def digest(number: int) -> tuple[str, int]:
    """A digest and a length."""
    return f"sha256:{number:064x}", 1000


async def over_http(directory: Path, size: int, times: int) -> None:
    """What clients see."""
    server = Dtr(directory)
    server.start()
    server.prepare()
    try:
        async with aiohttp.ClientSession() as session:
            await _requests(Client(server, session), server, size, times)
    finally:
        server.stop()


async def _requests(client: Client, server: Dtr, size: int, times: int) -> None:
    publisher = await client.publisher()
    tags = {f"v{number}": digest(number) for number in range(size)}
    started = perf_counter()
    await client.publish(publisher.first(tags))
    print(f"{f'first publication of {size} tags':44} {(perf_counter() - started) * 1000:7.2f} ms")
    key = Key.make()
    for role in _SIGNERS:
        await client.publish(publisher.delegate(role, [key]))
    await client.publish(publisher.sign(tags, *_SIGNERS))
    few = max(1, times // 20)
    in_targets = [publisher.sign({"latest": digest(size + number)}) for number in range(few + 1)]
    await measure(
        f"publish one tag more in {size}", server, few, lambda number: client.publish(in_targets[number])
    )
    in_two = [publisher.sign({"latest": digest(size + number)}, *_SIGNERS) for number in range(few + 1)]
    await measure("the same in two roles", server, few, lambda number: client.publish(in_two[number]))
    await measure("fetch the timestamp", server, times, lambda _: client.get("timestamp.json"))
    targets = hashlib.sha256(publisher.files["targets"]).hexdigest()
    await measure(f"fetch {size} targets by hash", server, times, lambda _: client.get(f"targets.{targets}.json"))


async def renewals(directory: Path, collections: int) -> None:
    """What the first fetch costs after a timestamp came near its end."""
    url = f"sqlite:///{directory / 'metadata.db'}"
    database = open_database(url)
    await migrate(database, url)
    ahead = dt.timedelta()
    signer = LocalSigner(database, directory / "passphrases")
    trust = Trust(database, signer, clock=lambda: dt.datetime.now(dt.UTC) + ahead)
    await Accounts(database, Passwords()).create_organization("bench")
    repositories, made = Repositories(database), []
    for number in range(collections):
        path = f"bench/app{number}"
        collection = Collection(
            await repositories.create(parse_repository_name(path), Settings()), f"b.test/{path}"
        )
        timestamp, snapshot = [await trust.get_key(collection, role) for role in ("timestamp", "snapshot")]
        files = Publisher(collection.gun, timestamp.to_json(), snapshot.to_json()).first(
            {"latest": digest(number)}
        )
        await trust.publish(collection, [(role, Envelope.parse(content)) for role, content in files.items()])
        made.append(collection)
    for name, is_due in (("fetch it in this process", False), ("make it anew in this process", True)):
        ahead = dt.timedelta(days=13, hours=23, minutes=30) if is_due else dt.timedelta()
        started, cpu = perf_counter(), process_time()
        for collection in made:
            assert (await trust.get(collection, "timestamp")).version == 1 + is_due
        seconds, cpu = perf_counter() - started, process_time() - cpu
        print(f"{name:44} {seconds * 1000 / collections:7.2f} ms, {cpu * 1000 / collections:7.2f} ms CPU")
    await database.close()


async def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tags", type=int, default=1000)
    parser.add_argument("--times", type=int, default=1000, help="fetches; a twentieth of them publications")
    parser.add_argument("--collections", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dtr-bench-") as directory:
        await over_http(Path(directory), given.tags, given.times)
    with tempfile.TemporaryDirectory(prefix="dtr-bench-") as directory:
        await renewals(Path(directory), given.collections)


if __name__ == "__main__":
    asyncio.run(main())
