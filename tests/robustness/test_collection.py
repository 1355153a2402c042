"""
Everything at once, for as long as one likes: clients push, mount, resume, tag, move, promote, delete and pull,
while several processes collect and sweep.

Time runs sixteen times as fast: the dates in the database are moved towards now. So promises of a minute are used
up by pushes of seconds. Afterwards every image that somebody was told to be there is pulled and compared, and
nothing else is left.

`DTR_GC_MINUTES=3` lets each of them take so long.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import text
from tests.support.api import User
from tests.support.client import Answer, Client, local
from tests.support.images import Image, digest_of, make_artifact, make_built_image, make_index
from tests.support.invariants import find_violations
from tests.support.s3 import S3Server
from tests.support.server import PASSWORD, Server

from dtr.app import Application
from dtr.config import load
from dtr.db import Statement
from dtr.registry.fsck import Fsck

pytestmark = pytest.mark.e2e

SECONDS = 60 * float(os.environ.get("DTR_GC_MINUTES", "0")) or 6
ENOUGH = 120
LEASE, SLACK, FASTER = 60, 60, 15
REPOSITORIES = [f"admin/r{number}" for number in range(5)]
SETTINGS = {
    "registry.lease_seconds": LEASE,
    "registry.slack_seconds": SLACK,
    "registry.untagged_seconds": 60,
    "registry.upload_seconds": 60,
    "registry.delete_delay_seconds": 30,
}
CLIENTS = 6


class Time:
    """Runs faster, as far as the dates in a database go."""

    _COLUMNS = (
        ("manifests", "repository_id, digest", "review_at"),
        ("repository_blobs", "repository_id, digest", "review_at"),
        ("gc_objects", "location", "delete_after"),
    )
    _UPLOAD_MS = 15_000
    """So old an upload is given up: requests that run take as long as they take."""
    _HELD_MS = 1000 * (LEASE + SLACK)
    _LONGEST_STEP = 1.0
    """Seconds, of which so many times as many pass at once. Where the machine stood still, time runs less fast."""

    def __init__(self) -> None:
        self._moved = 0.0

    @property
    def now(self) -> float:
        """Seconds."""
        return time.monotonic() + self._moved

    async def run(self, application: Application, stop: threading.Event) -> None:
        """Move dates until told to stop; those of rows that somebody has locked stay where they are."""
        locking = "" if application.database.dialect == "sqlite" else "FOR UPDATE SKIP LOCKED"
        last = time.monotonic()
        while not stop.is_set():
            await asyncio.sleep(0.3)
            # A push that begins before the dates are moved loses all of it unseen: it has to fit into the slack.
            step = FASTER * min(time.monotonic() - last, self._LONGEST_STEP)
            last = time.monotonic()
            self._moved += step  # before anything happens earlier for it
            for table, key, column in self._COLUMNS:
                chosen = f"SELECT {key} FROM {table} WHERE {column} > 0 ORDER BY {key} {locking}"
                await self._change(
                    application,
                    f"UPDATE {table} SET {column} = {column} - :step WHERE ({key}) IN ({chosen})",
                    step=int(1000 * step),
                )
            clock = _NOW[application.database.dialect]
            await self._change(
                application,
                f"UPDATE uploads SET expires_at = 0 WHERE id IN (SELECT id FROM uploads"
                f" WHERE started_at < {clock} - :old AND writer_until < {clock} ORDER BY id {locking})",
                old=self._UPLOAD_MS,
            )
            for table, key, column in self._COLUMNS[:2]:
                # Postponed by an hour, because somebody uploads: as long as any promise is enough here.
                chosen = f"SELECT {key} FROM {table} WHERE {column} > {clock} + 2 * :held ORDER BY {key} {locking}"
                await self._change(
                    application,
                    f"UPDATE {table} SET {column} = {clock} + :held WHERE ({key}) IN ({chosen})",
                    held=self._HELD_MS,
                )

    @staticmethod
    async def _change(application: Application, sql: str, **parameters: int) -> None:
        for name in parameters:
            sql = sql.replace(f":{name}", f"CAST(:{name} AS BIGINT)")
        statement = Statement(text(sql))
        await application.database.unit(lambda tx: tx.execute(statement, **parameters))


_NOW = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM CURRENT_TIMESTAMP) * 1000 AS BIGINT)",
}


class Layers:
    """What images are made of; few, so that they have much in common."""

    def __init__(self, chance: random.Random) -> None:
        sizes = (50, 900, 15_000, 20_000, 70_000, 200_000, *(chance.randrange(1_000, 90_000) for _ in range(8)))
        self._layers = [chance.randbytes(size) for size in sizes]

    def image(self, chance: random.Random, name: str) -> Image:
        config = {"architecture": "amd64", "os": "linux", "made": name}
        layers = chance.sample(self._layers, chance.randrange(1, 4))
        return make_built_image(config, *layers, annotations={"name": name})


@dataclass
class Somebody:
    """
    Somebody with tags and manifests of his own, of layers that all have in common.

    What he was told is in `tags` (by repository and tag) and `referrers` (by repository and subject). Those of
    images without a tag are `forgotten`: they go with the image, and stay when it gets a tag again before.
    """

    server: Server
    number: int
    clock: Time
    layers: Layers
    chance: random.Random
    tags: dict[tuple[str, str], Image] = field(default_factory=dict)
    referrers: dict[tuple[str, str], list[Image]] = field(default_factory=dict)
    forgotten: dict[tuple[str, str], list[Image]] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    error: BaseException | None = None

    def __post_init__(self) -> None:
        self.client = Client(self.server)
        self.api = User(self.server, "admin", PASSWORD)
        self._made = 0
        self._last: list[Image] = []

    def run(self, stop: threading.Event) -> None:
        ways = (
            self.push, self.push, self.push, self.push_index, self.retag, self.sign, self.promote, self.pull,
            self.pull, self.delete_tag, self.delete_tag, self.delete_image, self.resume, self.abandon,
        )  # fmt: skip
        try:
            while not stop.is_set():
                way = self.chance.choice(ways)
                if way() is not False:
                    self.done[way.__name__] += 1
        except BaseException as error:
            self.error = error
            stop.set()

    # --- what he does ---

    def push(self) -> None:
        self._push(self._repository(), self._image(), self._tag())

    def push_index(self) -> None:
        index = make_index(self._image(), self._image(), annotations={"name": self._name()})
        self._push(self._repository(), index, self._tag())

    def retag(self) -> bool:
        """Another tag for what has one; or a tag that moves to what had one before."""
        return self._with_a_tag(lambda repository, _, image: self._push(repository, image, self._tag()))

    def sign(self) -> bool:
        def work(repository: str, _: str, image: Image) -> None:
            signature = make_artifact("application/x-signature", self._name().encode(), subject=image)
            if self._push(repository, signature):
                self.referrers.setdefault((repository, image.digest), []).append(signature)

        return self._with_a_tag(work)

    def promote(self) -> bool:
        def work(repository: str, tag: str, image: Image) -> None:
            target, name = self._repository(), self._tag()
            path = f"/api/v0/repositories/{repository}/tags/{tag}/promotion"
            self.api.post(path, {"targetRepository": target, "targetTag": name}).expect(201)
            self._tagged(target, name, image)
            for subject in (image, *image.children):
                for made in (self.referrers, self.forgotten):
                    carried = made.get((repository, subject.digest), [])
                    known = made.setdefault((target, subject.digest), [])
                    known += [one for one in carried if one not in known]

        return self._with_a_tag(work)

    def pull(self) -> bool:
        return self._with_a_tag(self.assert_whole)

    def delete_tag(self) -> bool:
        def work(repository: str, tag: str, _: Image) -> None:
            self._call("DELETE", f"/v2/{repository}/manifests/{tag}").expect(202)
            del self.tags[repository, tag]
            self._forget(repository)

        return self._with_a_tag(work)

    def delete_image(self) -> bool:
        def work(repository: str, _: str, image: Image) -> None:
            answer = self._call("DELETE", f"/v2/{repository}/manifests/{image.digest}").expect(202, 405)
            if answer.status == 202:
                for key in [key for key, held in self.tags.items() if key[0] == repository and held == image]:
                    del self.tags[key]
                self._forget(repository)

        return self._with_a_tag(work)

    def resume(self) -> None:
        """An upload whose connection breaks, and that goes on."""
        repository, data = self._repository(), self.chance.randbytes(150_000)
        location = local(self._call("POST", f"/v2/{repository}/blobs/uploads/").expect(202).headers["location"])
        headers = {
            "Authorization": f"Bearer {self._token(repository)}",
            "Content-Length": str(len(data)),
            "Content-Range": f"0-{len(data) - 1}",  # it may come late, when others have gone on
        }
        connection = self.client.connect()
        connection.putrequest("PATCH", location)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(data[: self.chance.randrange(2, 100_000)])
        connection.close()
        deadline = time.monotonic() + 60
        while (answer := self._call("GET", location)).status != 404:
            answer.expect(204)
            offset = int(answer.headers["range"].partition("-")[2]) + 1
            offset = 0 if offset == 1 else offset
            if offset < len(data):
                # The request that broke may still be writing what came.
                headers = {"Content-Range": f"{offset}-{len(data) - 1}"}
                answer = self._call("PATCH", location, data[offset:], headers).expect(202, 404, 409, 416, 503)
            if offset == len(data) or answer.status == 202:
                path = f"{location}?digest={quote(digest_of(data))}"
                answer = self._call("PUT", path, b"").expect(201, 404, 409)
                self.done["resumed"] += answer.status == 201
                if answer.status != 409:
                    return
            assert time.monotonic() < deadline, answer.body
            time.sleep(0.05)

    def abandon(self) -> bool:
        if self.chance.random() > 0.05:
            return False
        path = f"/v2/{self._repository()}/blobs/uploads/"
        location = local(self._call("POST", path).expect(202).headers["location"])
        self._call("PATCH", location, self.chance.randbytes(70_000)).expect(202)
        return True

    # --- how he does it ---

    def _push(self, repository: str, image: Image, tag: str | None = None) -> bool:
        """As clients do: ask what is there, mount or upload what is not, then the manifest; whether it came."""
        begun = self.clock.now
        for child in image.children:
            if self._call("HEAD", f"/v2/{repository}/manifests/{child.digest}").status == 200:
                self.done["manifests that were there"] += 1
            elif not self._push(repository, child):
                return False
        for content in image.blobs:
            self._bring(repository, content)
        if self.chance.random() < 0.2:
            time.sleep(self.chance.uniform(0, 0.8 * LEASE / (FASTER + 1)))  # somebody slow
        path = f"/v2/{repository}/manifests/{tag or image.digest}"
        answer = self._call("PUT", path, image.payload, {"Content-Type": image.media_type}).expect(201, 400, 404)
        if answer.status != 201:
            took = self.clock.now - begun
            assert took > LEASE, f"refused {took:.0f} s after the first promise of {LEASE} s: {answer.body!r}"
            self.done["too late"] += 1
            return False
        if tag is not None:
            self._tagged(repository, tag, image)
        return True

    def _bring(self, repository: str, content: bytes) -> None:
        digest = digest_of(content)
        if self._call("HEAD", f"/v2/{repository}/blobs/{digest}").status == 200:
            self.done["blobs that were there"] += 1
            return
        source = self._repository()
        path = f"/v2/{repository}/blobs/uploads/"
        answer = self._call("POST", f"{path}?mount={quote(digest)}&from={source}").expect(201, 202)
        if answer.status == 201:
            self.done["mounted"] += 1
            return
        location = local(answer.headers["location"])
        if self.chance.random() < 0.3:
            half = len(content) // 2
            location = local(self._call("PATCH", location, content[:half]).expect(202).headers["location"])
            content = content[half:]
        self._call("PUT", f"{location}?digest={quote(digest)}", content).expect(201)

    def assert_whole(self, repository: str, reference: str, image: Image) -> None:
        """Pull it and compare every byte; what refers to it, too."""
        answer = self._call("GET", f"/v2/{repository}/manifests/{reference}").expect(200)
        assert answer.body == image.payload, f"{repository}:{reference} is another image"
        for child in image.children:
            self.assert_whole(repository, child.digest, child)
        for content in image.blobs:
            found = self._call("GET", f"/v2/{repository}/blobs/{digest_of(content)}").expect(200)
            assert found.body == content
        for signature in self.referrers.get((repository, image.digest), ()):
            self.assert_whole(repository, signature.digest, signature)

    def _call(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        given = {"Content-Type": "application/octet-stream", **(headers or {})} if body is not None else headers
        answer = self.client.call(method, path, body, given)
        if answer.status == 401:  # the token is as old as tokens get
            self.client._tokens.clear()
            answer = self.client.call(method, path, body, given)
        return answer

    def _token(self, repository: str) -> str:
        return self.client.token(f"repository:{repository}:pull,push,delete", fresh=True)

    def _with_a_tag(self, work: Callable[[str, str, Image], object]) -> bool:
        if not self.tags:
            return False
        repository, tag = self.chance.choice(sorted(self.tags))
        work(repository, tag, self.tags[repository, tag])
        return True

    def _tagged(self, repository: str, tag: str, image: Image) -> None:
        self.tags[repository, tag] = image
        self._forget(repository)

    def _forget(self, repository: str) -> None:
        """What refers to images that nothing holds any more, nobody was promised."""
        held = set[str]()
        for (where, _), image in self.tags.items():
            if where == repository:
                held |= {one.digest for one in (image, *image.children)}
        for key in [key for key in self.referrers if key[0] == repository and key[1] not in held]:
            self.forgotten.setdefault(key, []).extend(self.referrers.pop(key))

    def _repository(self) -> str:
        return self.chance.choice(REPOSITORIES)

    def _tag(self) -> str:
        return f"c{self.number}-{self.chance.randrange(3)}"

    def _name(self) -> str:
        self._made += 1
        return f"{self.number}-{self._made}"

    def _image(self) -> Image:
        """A new one, or one of the last: it may be there still, or again."""
        if self._last and self.chance.random() < 0.4:
            return self.chance.choice(self._last)
        image = self.layers.image(self.chance, self._name())
        self._last = [*self._last[-4:], image]
        return image


@contextlib.contextmanager
def in_the_background(works: list[Callable[[threading.Event], None]]) -> Iterator[threading.Event]:
    stop = threading.Event()
    threads = [threading.Thread(target=work, args=(stop,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield stop
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def collect_by_jobs(server: Server) -> Callable[[threading.Event], None]:
    """Somebody who queues collections, beside those that are always under way."""
    admin = User(server, "admin", PASSWORD)

    def work(stop: threading.Event) -> None:
        while not stop.wait(1.5):
            admin.post("/api/v0/jobs", {"action": "onlinegc"}).expect(202)

    return work


def hurry(server: Server, clock: Time) -> Callable[[threading.Event], None]:
    async def work(stop: threading.Event) -> None:
        application = Application(load(None, server.environment, {}).settings)
        try:
            await clock.run(application, stop)
        finally:
            await application.close()

    return lambda stop: asyncio.run(work(stop))


@pytest.mark.parametrize(
    ("database", "storage"), [("sqlite", "filesystem"), ("postgresql", "filesystem"), ("postgresql", "s3")]
)
def test_no_image_is_lost_and_nothing_is_left_whatever_goes_on_at_once(
    request: pytest.FixtureRequest,
    make_server: Callable[..., Server],
    database: str,
    storage: str,
):
    seed = int(os.environ.get("DTR_TEST_SEED") or random.randrange(2**32))
    print(f"DTR_TEST_SEED={seed} repeats the choices")
    settings: dict[str, Any] = dict(SETTINGS)
    if storage == "s3":
        s3: S3Server = request.getfixturevalue("s3_server")
        settings |= {**s3.settings, "storage.s3.prefix": "everything"}
    first = make_server(settings, database=database, workers=2)
    servers = [first]
    if database == "postgresql":
        settings["database.url"] = first.environment["DTR_DATABASE__URL"]
        if storage == "filesystem":
            settings["storage.filesystem.root"] = first.directory / "blobs"
        servers.append(make_server(settings))
    for repository in REPOSITORIES:
        first.make_repository(repository)
    clock, chance = Time(), random.Random(seed)
    layers = Layers(chance)
    clients = [
        Somebody(servers[number % len(servers)], number, clock, layers, random.Random(f"{seed}/{number}"))
        for number in range(CLIENTS)
    ]
    begun = time.monotonic()
    works = [*(client.run for client in clients), *(collect_by_jobs(one) for one in servers), hurry(first, clock)]
    with in_the_background(works) as stop:
        # On a slow machine a few seconds are a few operations, which let go of nothing.
        while not stop.wait(0.2):
            passed, operations = time.monotonic() - begun, sum(sum(list(one.done.values())) for one in clients)
            # Of a hundred operations two or three bring a mount: now and then, none.
            is_enough = operations > ENOUGH and any(one.done["mounted"] for one in clients)
            if passed > SECONDS and (is_enough or passed > SECONDS + 60):
                break
    for client in clients:
        if client.error is not None:
            raise client.error
    seconds = time.monotonic() - begun
    done = sum((client.done for client in clients), Counter[str]())
    images = sum(len(client.tags) for client in clients)
    for client in clients:
        for (repository, tag), image in client.tags.items():
            client.assert_whole(repository, tag, image)
    report = f"{seconds / 60:.1f} minutes, {sum(done.values())} operations ({dict(done)}), {images} tags whole"
    print(f"{database}, {storage}: {report}")
    first.do(_collect_the_rest)
    for client in clients:
        for (repository, tag), image in client.tags.items():
            client.assert_whole(repository, tag, image)
    held, still_held = set[tuple[str, str]](), set[tuple[str, str]]()
    for client in clients:
        for (repository, _), image in client.tags.items():
            for one in (image, *image.children):
                key = repository, one.digest
                known = (one, *client.referrers.get(key, ()))
                held |= {(repository, digest_of(blob)) for made in known for blob in made.blobs}
                forgotten = client.forgotten.get(key, ())
                still_held |= {(repository, digest_of(blob)) for made in forgotten for blob in made.blobs}
    left = first.do(_links)
    assert held <= left <= held | still_held, f"left: {left - held - still_held}; lost: {held - left}"
    assert first.do(lambda application: find_violations(application.database, application.storage)) == []
    assert first.do(_findings) == []
    assert first.do(_unnamed) == set()
    if storage == "filesystem":
        assert list((first.directory / "blobs").rglob("*.part")) == []
    assert done["mounted"] > 0, report
    assert done["blobs that were there"] > 0, report
    assert not any("Traceback" in server.log for server in servers), [server.log for server in servers]
    collected = first.do(_deleted_by_the_collector)
    print(f"{collected} manifests collected meanwhile and afterwards")
    assert collected > 0, report


async def _deleted_by_the_collector(application: Application) -> int:
    (row,) = await application.database.fetch_all(
        Statement(text("SELECT count(*) FROM events WHERE type = 'DELETE' AND actor_name = 'collector'"))
    )
    return int(row[0])


async def _collect_the_rest(application: Application) -> None:
    """Let the time of everything come, beside the servers that do the same."""

    async def change(sql: str) -> int:
        statement = Statement(text(sql))
        return await application.database.unit(lambda tx: tx.execute(statement))

    locking = "" if application.database.dialect == "sqlite" else "FOR UPDATE SKIP LOCKED"
    quiet = 0
    while quiet < 3:
        busy = 0
        for table, key, column in (*Time._COLUMNS, ("uploads", "id", "expires_at")):
            chosen = f"SELECT {key} FROM {table} WHERE {column} > 0 {locking}"
            busy += await change(f"UPDATE {table} SET {column} = 0 WHERE ({key}) IN ({chosen})")
        chosen = f"SELECT location FROM gc_objects WHERE repeat_after IS NOT NULL {locking}"
        busy += await change(f"UPDATE gc_objects SET repeat_after = 0 WHERE location IN ({chosen})")
        while (await application.collector.collect()).went_on:
            busy += 1
        swept = await application.sweeper.sweep()
        busy += swept.uploads + swept.objects
        quiet = 0 if busy else quiet + 1
        await asyncio.sleep(0.05)


async def _links(application: Application) -> set[tuple[str, str]]:
    query = "SELECT r.path, l.digest FROM repository_blobs l JOIN repositories r ON r.id = l.repository_id"
    return {(row[0], row[1]) for row in await application.database.fetch_all(Statement(text(query)))}


async def _findings(application: Application) -> list[str]:
    check = Fsck(application.database, application.storage)
    return [one.text async for one in check.run(content=True)]


async def _unnamed(application: Application) -> set[str]:
    """Objects that no blob has, and blobs that have no object."""
    query = "SELECT location FROM blobs WHERE location IS NOT NULL"
    named = {row[0] for row in await application.database.fetch_all(Statement(text(query)))}
    async with contextlib.aclosing(application.storage.list()) as objects:
        return {one.location async for one in objects} ^ named
