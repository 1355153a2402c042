"""What a client refuses, though somebody on the way, or the server itself, wants it to believe it."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.meddler import Meddler, meddling
from tests.support.notary import Key, canonical, meta_of, moment, now, seal
from tests.support.notary_client import Notary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.meddler import Answer
    from tests.support.server import Server

Signed = dict[str, Any]


class Collection:
    """A collection that lists `v1`, then `v2` as well; a reader between whom and dtr somebody stands."""

    def __init__(self, server: Server, directory: Path, between: Meddler) -> None:
        self.server = server
        self.between = between
        self.gun = f"{server.address}/admin/r{uuid.uuid4().hex[:12]}"
        server.make_repository(self.gun.partition("/")[2])
        self.publisher = Notary(server, directory / "publisher")
        self.reader = Notary(server, directory / "reader", url=between.url)
        self.publisher.init(self.gun)
        self.publisher.give_snapshots(self.gun)
        self.sign("v1")
        assert list(self.reader.list(self.gun)) == ["v1"]
        self.first = self.current()

    def sign(self, name: str) -> None:
        self.publisher.sign(self.gun, name, name.encode())

    def current(self) -> dict[str, bytes]:
        """The files of this moment by role, as whoever stands between sees them."""
        head = f"/v2/{self.gun}/_trust/tuf/"
        seen = Notary(self.server, self.reader.directory.parent / uuid.uuid4().hex, url=self.between.url)
        self.between.bodies.clear()
        seen.list(self.gun)
        names = {path.removeprefix(head).partition(".")[0]: body for path, body in self.between.bodies.items()}
        return {role: names[role] for role in ("root", "targets", "snapshot", "timestamp")}

    def forge(self, content: bytes, change: Callable[[Signed], object]) -> bytes:
        """A file with other content, signed by the server's own key: somebody has broken into it."""
        signed = json.loads(content)["signed"]
        change(signed)
        (key,) = [one["keyid"] for one in json.loads(content)["signatures"]]
        message = canonical(signed)
        made = self.server.do(lambda application: application.signer.sign(key, message))
        signature = {"keyid": key, "method": made.method, "sig": base64.b64encode(made.content).decode()}
        return json.dumps({"signed": signed, "signatures": [signature]}, separators=(",", ":")).encode()

    def serve(self, timestamp: bytes, *files: bytes) -> None:
        """From now on this timestamp is served, and these files where they are asked for by their hashes."""
        by_hash = {hashlib.sha256(one).hexdigest(): one for one in files}

        def meddle(_: str, path: str, answer: Answer) -> Answer:
            if path.endswith("/timestamp.json"):
                return 200, timestamp
            content = next((by_hash[word] for word in path.split(".") if word in by_hash), None)
            return answer if content is None else (200, content)

        self.between.meddle = meddle

    def refuses(self, *words: str) -> None:
        """The reader refuses what is served, in these words."""
        said = self.reader("list", self.gun, fails=True).text
        assert all(word in said for word in words), said

    def recovers(self) -> None:
        """As soon as the right files are served again, the reader has lost nothing."""
        self.between.meddle = None
        assert "v2" in self.reader.list(self.gun)


@pytest.fixture
def collection(server: Server, tmp_path: Path) -> Iterator[Collection]:
    with meddling(server) as between:
        made = Collection(server, tmp_path, between)
        made.sign("v2")
        assert list(made.reader.list(made.gun)) == ["v1", "v2"]
        yield made


def test_files_of_yesterday_are_refused(collection: Collection) -> None:
    collection.serve(*(collection.first[role] for role in ("timestamp", "snapshot", "targets")))
    collection.refuses("version")
    collection.recovers()


def naming(content: bytes, role: str) -> Callable[[Signed], None]:
    """A change of a snapshot or timestamp: it is newer, and names this file of the role."""

    def change(signed: Signed) -> None:
        signed["version"] += 1
        signed["meta"][role] = meta_of(content)

    return change


def test_an_old_snapshot_is_refused_though_a_new_timestamp_names_it(collection: Collection) -> None:
    newest, old = collection.current(), collection.first["snapshot"]
    timestamp = collection.forge(newest["timestamp"], naming(old, "snapshot"))
    collection.serve(timestamp, old, collection.first["targets"])
    collection.refuses("version")


def test_other_targets_are_refused_at_the_place_of_the_right_ones(collection: Collection, server: Server) -> None:
    collection.sign("v3")
    newest = collection.current()
    targets = newest["targets"].replace(b'"v3"', b'"v4"')
    assert len(targets) == len(newest["targets"])
    there = hashlib.sha256(newest["targets"]).hexdigest()
    collection.between.meddle = lambda _, path, answer: (200, targets) if there in path else answer
    collection.refuses("checksum")
    collection.recovers()


def test_targets_of_others_are_refused_though_the_server_vouches_for_them(collection: Collection) -> None:
    newest = collection.current()
    signed = json.loads(newest["targets"])["signed"]
    signed["version"] += 1
    signed["targets"]["v1"] = signed["targets"]["v2"]
    mallory = Key.make()
    for others in (seal(signed, [mallory]), canonical(json.loads(newest["targets"]) | {"signed": signed})):
        snapshot = collection.forge(newest["snapshot"], naming(others, "targets"))
        timestamp = collection.forge(newest["timestamp"], naming(snapshot, "snapshot"))
        collection.serve(timestamp, snapshot, others)
        collection.refuses("signature", "targets")


def test_an_expired_timestamp_is_refused(collection: Collection) -> None:
    def let_expire(signed: Signed) -> None:
        signed["version"] += 1
        signed["expires"] = moment(now() - dt.timedelta(minutes=1))

    newest = collection.current()
    collection.serve(collection.forge(newest["timestamp"], let_expire))
    collection.refuses("expired")


def test_a_timestamp_by_a_key_that_the_root_does_not_list_is_refused(collection: Collection) -> None:
    signed = json.loads(collection.current()["timestamp"])["signed"]
    signed["version"] += 1
    collection.serve(seal(signed, [Key.make()]))
    collection.refuses("signature", "timestamp")
    collection.recovers()


def test_the_root_of_another_collection_is_refused_by_those_who_see_it_first(
    collection: Collection, server: Server, tmp_path: Path
) -> None:
    newcomer = Notary(server, tmp_path / "newcomer", url=collection.between.url)
    other = f"{server.address}/admin/r{uuid.uuid4().hex[:12]}"
    server.make_repository(other.partition("/")[2])
    collection.publisher.init(other)
    collection.publisher.sign(other, "v1", b"other")
    newcomer.list(other)
    files = {path.replace(other, collection.gun): body for path, body in collection.between.bodies.items()}
    collection.between.meddle = lambda _, path, answer: (200, files[path]) if path in files else answer
    assert "root" in newcomer("list", collection.gun, fails=True).text
