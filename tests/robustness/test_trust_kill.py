"""
Content trust when processes die, and when replicas meet: a client that walks through a collection verifies it.

What was acknowledged is there, what was not is there whole or not at all, and no reader ever sees a part of it.
"""

from __future__ import annotations

import base64
import copy
import http.client
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.support.notary import Key, Publisher, walk
from tests.support.server import Server
from tests.support.signer import dtr_signer, make_pair
from tests.support.trust import Trust
from tests.support.wire import wait_until

from dtr.app import Application
from dtr.db import Statement

pytestmark = pytest.mark.e2e

LOST = (http.client.HTTPException, OSError)
CLIENTS = 3
RELEASES = "targets/releases"
SECONDS = 60.0
TOKEN_USES = 20
"""Tokens last some minutes, and the long form longer: after so many uses another one is fetched."""

_FILES = Statement(text("SELECT gun, role, version, sha256, content FROM trust_files ORDER BY gun, role, version"))
_TARGETS = Statement(text("SELECT gun, role, name, digest FROM trust_targets"))


class Changer:
    """Somebody who changes a collection of their own without end, and knows what has to be there."""

    def __init__(self, server: Server, path: str, seed: str) -> None:
        server.make_repository(path)
        self.trust = Trust(server)
        self.trust.client._retries = False  # what was sent twice would be refused the second time
        self.gun = self.trust.gun(path)
        self.certain = self.trust.publisher(self.gun)
        self.asked: Publisher | None = None
        """What may be there instead: it was asked for, and there was no answer."""
        self.published = self.refused = 0
        self._chances = random.Random(seed)
        self.trust.publish(self.gun, self.certain.first({"first": self._target()})).expect(200)
        self.trust.publish(self.gun, self.certain.delegate(RELEASES, [Key.make()])).expect(200)

    def change(self) -> None:
        """Sign a tag, or change a key. Raises LOST."""
        if (self.published + self.refused) % TOKEN_USES == 0:
            self.trust.tokens.clear()
        next_ = copy_of(self.certain)
        files = self._files(next_)
        self.asked = next_
        answer = self.trust.publish(self.gun, files)
        self.asked = None
        if answer.status == 200:
            self.certain = next_
            self.published += 1
        else:  # nobody could sign
            assert answer.codes[0] in {"INVALID_UPDATE", "UPDATING", "UNKNOWN"}, answer.body
            self.refused += 1

    def check(self) -> None:
        """A walk finds what was acknowledged last, or what was asked for since then."""
        self.trust.tokens.clear()
        files = self.trust.files(self.gun)
        found = walk(self.gun, files, trusted=self.certain.files["root"])
        if self.asked is not None and contains(files, self.asked):
            self.certain = self.asked
        self.asked = None
        assert contains(files, self.certain)
        assert found == digests_of(self.certain)

    def _files(self, next_: Publisher) -> dict[str, bytes]:
        does = self._chances.choice(["tag", "tag", "release", "release", "root", "timestamp", "snapshot"])
        if does == "root":
            return next_.rotate_root()
        if does in {"timestamp", "snapshot"}:
            try:
                return next_.rotate_server_key(does, self.trust.key(self.gun, does, new=True))
            except AssertionError:  # nobody makes keys at the moment
                does = "tag"
        roles = (RELEASES,) if does == "release" else ()
        return next_.sign({f"t{self._chances.randrange(20)}": self._target()}, *roles)

    def _target(self) -> tuple[str, int]:
        return f"sha256:{self._chances.randbytes(32).hex()}", 400


def copy_of(publisher: Publisher) -> Publisher:
    """Somebody with the same keys, who goes on from the same files."""
    made = copy.copy(publisher)
    made.root, made.roles = copy.deepcopy(publisher.root), copy.deepcopy(publisher.roles)
    made.files, made.delegates = dict(publisher.files), dict(publisher.delegates)
    made.retired = list(publisher.retired)
    return made


def contains(files: dict[str, bytes], publisher: Publisher) -> bool:
    """Whether these are the current files, byte for byte."""
    return all(files.get(role) == content for role, content in publisher.files.items())


def digests_of(publisher: Publisher) -> dict[str, dict[str, str]]:
    """What a client has to find, as `walk` gives it."""
    return {
        role: {name: f"sha256:{sha256_of(one)}" for name, one in publisher.roles[role]["targets"].items()}
        for role in publisher.files
        if role.startswith("targets")
    }


@contextmanager
def changing(changers: list[Changer]) -> Iterator[Callable[[int], None]]:
    """They change at once, until the end of the block or of the server; a function waits for so many changes."""
    ended = threading.Event()
    errors: list[BaseException] = []

    def run(changer: Changer) -> None:
        try:
            while not ended.is_set():
                changer.change()
        except LOST:
            pass
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in changers]
    begun = sum(one.published + one.refused for one in changers)
    for thread in threads:
        thread.start()

    def wait_for(changes: int) -> None:
        wait_until(
            lambda: bool(errors) or sum(one.published + one.refused for one in changers) >= begun + changes,
            SECONDS,
        )

    try:
        yield wait_for
    finally:
        ended.set()
        for thread in threads:
            thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


@contextmanager
def reading(server: Server, guns: list[str]) -> Iterator[list[int]]:
    """Somebody walks through the collections all the time, and verifies them; how often they did."""
    ended = threading.Event()
    walks = [0]
    errors: list[BaseException] = []

    def run() -> None:
        trust = Trust(server)
        while not ended.is_set():
            for gun in guns:
                ended.wait(0.05)  # the processors are for those who change
                try:
                    walk(gun, trust.files(gun))
                    walks[0] += 1
                    if walks[0] % TOKEN_USES == 0:
                        trust.tokens.clear()
                except LOST:
                    trust.client.close()
                    time.sleep(0.05)
                except BaseException as error:
                    errors.append(error)
                    return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield walks
    finally:
        ended.set()
        thread.join(SECONDS)
        if errors:  # before whatever came of it
            raise errors[0]


def check_everything(server: Server, guns: list[str]) -> None:
    """
    Every timestamp ever stored leads to files that are stored, no version is missing, and the index of targets
    says what clients find.
    """

    async def fetch(application: Application) -> tuple[Any, Any]:
        return await application.database.fetch_all(_FILES), await application.database.fetch_all(_TARGETS)

    files, targets = server.do(fetch)
    by_hash = {(gun, role, sha256): bytes(content) for gun, role, _, sha256, content in files}
    for gun in guns:
        for server_made in ("timestamp", "snapshot"):
            versions = [row[2] for row in files if row[:2] == (gun, server_made)]
            assert versions == list(range(1, len(versions) + 1))
        for content in (bytes(row[4]) for row in files if row[:2] == (gun, "timestamp")):
            snapshot = reached(by_hash, gun, "snapshot", json.loads(content)["signed"]["meta"]["snapshot"])
            for role, meta in json.loads(snapshot)["signed"]["meta"].items():
                reached(by_hash, gun, role, meta)
        found = walk(gun, Trust(server).files(gun))
        indexed = {(row[1], row[2], row[3]) for row in targets if row[0] == gun}
        assert indexed == {(role, name, digest) for role, tags in found.items() for name, digest in tags.items()}


def reached(by_hash: dict[Any, bytes], gun: str, role: str, meta: dict[str, Any]) -> bytes:
    """The stored file that another one names."""
    return by_hash[gun, role, sha256_of(meta)]


def sha256_of(meta: dict[str, Any]) -> str:
    """The hash of a file or target as its entry names it, hexadecimal."""
    return base64.b64decode(meta["hashes"]["sha256"]).hex()


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("DTR_TEST_SEED") or random.randrange(2**32))
    print(f"DTR_TEST_SEED={chosen} repeats the choices")
    return chosen


def make_changers(server: Server, seed: int) -> list[Changer]:
    return [Changer(server, f"admin/r{number}", f"{seed}/{number}") for number in range(CLIENTS)]


LONG = pytest.mark.thorough
ROUNDS = [
    ("sqlite", 2),
    ("postgresql", 2),
    pytest.param("sqlite", 40, marks=LONG),
    pytest.param("postgresql", 40, marks=LONG),
]


@pytest.mark.parametrize(("database", "rounds"), ROUNDS)
def test_nothing_is_torn_when_all_processes_are_killed_while_collections_change(
    make_server: Callable[..., Server], seed: int, database: str, rounds: int
) -> None:
    server = make_server(database=database, workers=2)
    changers = make_changers(server, seed)
    guns = [one.gun for one in changers]
    moments = random.Random(seed)
    with reading(server, guns) as walks:
        for _ in range(rounds):
            with changing(changers) as wait_for:
                wait_for(moments.randrange(3, 20))
                time.sleep(moments.uniform(0, 0.05))  # the moment, not a wait for something
                server.kill()
            server.start()
            for changer in changers:
                changer.check()
        with changing(changers) as wait_for:
            wait_for(10)
            wait_until(lambda: walks[0] > rounds)
    for changer in changers:
        changer.check()
    assert walks[0] > rounds
    assert all(one.published and not one.refused for one in changers)
    check_everything(server, guns)


@pytest.mark.parametrize(("database", "rounds"), ROUNDS)
def test_nothing_is_torn_when_the_signer_is_killed_while_collections_change(
    make_server: Callable[..., Server], tmp_path: Path, seed: int, database: str, rounds: int
) -> None:
    pair = make_pair(tmp_path / "signer-tls")
    signer = dtr_signer(tmp_path / "signer", pair).start()
    server = make_server(
        {
            "trust.signer.address": f"localhost:{signer.port}",
            "trust.signer.ca": pair.server.authority,
            "trust.signer.certificate": pair.client.chain,
            "trust.signer.key": pair.client.key,
        },
        database=database,
        workers=2,
    )
    try:
        changers = make_changers(server, seed)
        guns = [one.gun for one in changers]
        moments = random.Random(seed)
        # Who reads needs no signer, and notices nothing.
        with reading(server, guns) as walks, changing(changers) as wait_for:
            for _ in range(rounds):
                wait_for(moments.randrange(3, 20))
                time.sleep(moments.uniform(0, 0.05))
                signer.kill()
                refused = sum(one.refused for one in changers)
                wait_until(lambda: sum(one.refused for one in changers) > refused, SECONDS)  # noqa: B023
                signer.start()
                published = sum(one.published for one in changers)
                wait_until(lambda: sum(one.published for one in changers) > published, SECONDS)  # noqa: B023
            wait_until(lambda: walks[0] > rounds)
        for changer in changers:
            changer.check()
        assert walks[0] > rounds
        check_everything(server, guns)
    finally:
        signer.kill()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_replicas_publish_one_collection_at_once_and_lose_nothing(
    make_server: Callable[..., Server], tmp_path: Path, postgresql_cluster: Any, database: str
) -> None:
    server = make_server(database=database, workers=2)
    replicas = [server]
    if database == "postgresql":  # another host: on SQLite, two processes of one host
        shared = {
            "database.url": server.environment["DTR_DATABASE__URL"],
            "storage.filesystem.root": server.directory / "blobs",
            "signer.passphrase_file": server.directory / "signer.passphrases",
            "secrets.key_file": server.directory / "secret.key",
        }
        replicas.append(make_server(shared))
    path = "admin/app"
    server.make_repository(path)
    gun = server.address + "/" + path
    first = Trust(server).publisher(gun)
    Trust(server).publish(gun, first.first()).expect(200)
    signed: list[str] = []
    conflicts: list[str] = []
    errors: list[BaseException] = []
    together = threading.Barrier(2)

    def publish(number: int) -> None:
        try:
            trust = Trust(replicas[number % len(replicas)], host=server.address)
            own = copy_of(first)
            for tag in (f"t{number}-{count}" for count in range(8)):
                while tag not in signed:
                    # As clients do: what is there, and the new tag.
                    own.roles["targets"] = json.loads(trust.files(gun)["targets"])["signed"]
                    if not (signed or conflicts):
                        together.wait(SECONDS)  # both are about to publish the same version
                    answer = trust.publish(gun, own.sign({tag: (f"sha256:{number:064x}", 400)}))
                    if answer.status == 200:
                        signed.append(tag)
                    else:
                        assert answer.expect(400).codes == ["VERSION"]
                        conflicts.append(tag)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(2)]
    with reading(server, [gun]):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    assert conflicts
    assert set(walk(gun, Trust(server).files(gun))["targets"]) == set(signed)
    assert len(signed) == len(set(signed)) == 16
    check_everything(server, [gun])
