"""What the tests of content trust share: repositories, a signer that counts, and somebody who publishes."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.notary import Json, Key, Publisher, walk
from tests.support.rooms import Rooms

from dtr.signer import LocalSigner
from dtr.storage import Memory
from dtr.trust import Collection, FileUnknown, Published, Trust
from dtr.tuf import Envelope, PublicKey, Signature

HOST = "dtr.test"


class Clock:
    """A clock that is set forward."""

    def __init__(self) -> None:
        self.ahead = dt.timedelta()

    def __call__(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + self.ahead


class CountingSigner:
    """A signer that counts what it is asked for. `after_signing`: called when something was signed."""

    def __init__(self, signer: LocalSigner) -> None:
        self._signer = signer
        self.counts: Counter[str] = Counter()
        self.after_signing: Any = None

    async def create_key(self, gun: str, role: str, algorithm: str) -> PublicKey:
        self.counts["create_key"] += 1
        return await self._signer.create_key(gun, role, algorithm)

    async def find_key(self, key_id: str) -> PublicKey | None:
        self.counts["find_key"] += 1
        return await self._signer.find_key(key_id)

    async def sign(self, key_id: str, content: bytes) -> Signature:
        self.counts["sign"] += 1
        made = await self._signer.sign(key_id, content)
        if self.after_signing is not None:
            await self.after_signing()
        return made

    async def delete_key(self, key_id: str) -> None:
        await self._signer.delete_key(key_id)

    async def check(self) -> None:
        await self._signer.check()

    async def close(self) -> None:
        await self._signer.close()


class House:
    """The room of content trust in one process, and its registry's rooms."""

    def __init__(self, rooms: Rooms, passphrases: Path, **how: Any) -> None:
        self.rooms = rooms
        self.passphrases = passphrases
        self.signer = CountingSigner(LocalSigner(rooms.database, passphrases))
        self.clock = Clock()
        self.trust = Trust(rooms.database, self.signer, clock=self.clock, **how)

    def another(self) -> House:
        """Another replica."""
        return House(self.rooms.another(), self.passphrases)

    async def collection(self, path: str = "acme/app", host: str = HOST) -> Collection:
        """A collection of a new repository."""
        return Collection(await self.rooms.make_repository(path), f"{host}/{path}")

    async def publisher(self, collection: Collection, *, snapshot: Key | None = None) -> Publisher:
        """Somebody who has published nothing yet; without `snapshot`, the server's key makes snapshots."""
        timestamp = (await self.trust.get_key(collection, "timestamp")).to_json()
        its = snapshot or (await self.trust.get_key(collection, "snapshot")).to_json()
        return Publisher(collection.gun, timestamp, its)

    async def publish(self, collection: Collection, files: Mapping[str, bytes], **how: Any) -> Published:
        parts = [(role, Envelope.parse(content)) for role, content in files.items()]
        return await self.trust.publish(collection, parts, **how)

    async def begin(self, path: str = "acme/app", **tags: str) -> tuple[Collection, Publisher]:
        """A collection that has been published, with tags in targets."""
        collection = await self.collection(path)
        publisher = await self.publisher(collection)
        await self.publish(collection, publisher.first({tag: (one, 7) for tag, one in tags.items()}))
        return collection, publisher

    async def files(self, collection: Collection) -> dict[str, bytes]:
        """The current files, as a reader gets them that walks from the timestamp."""
        files = {"timestamp": await self.trust.get(collection, "timestamp")}
        says = signed(files["timestamp"].content)
        files["snapshot"] = await self._by_meta(collection, "snapshot", says["meta"]["snapshot"])
        for role, meta in signed(files["snapshot"].content)["meta"].items():
            files[role] = await self._by_meta(collection, role, meta)
        return {role: file.content for role, file in files.items()}

    async def walk(self, collection: Collection) -> dict[str, dict[str, str]]:
        """What a client finds: digests of tags, by role."""
        return walk(collection.gun, await self.files(collection), when=self.clock())

    async def version(self, collection: Collection, role: str) -> int:
        """The version of the current file of a role; 0: there is none."""
        try:
            return (await self.trust.get(collection, role)).version
        except FileUnknown:
            return 0

    async def index(self, collection: Collection) -> dict[tuple[str, str], str]:
        """The digests in the index, by role and tag."""
        rows = await self.rooms.query(
            "SELECT role, name, digest FROM trust_targets WHERE repository_id = :repository AND gun = :gun",
            repository=collection.repository,
            gun=collection.gun,
        )
        return {(role, name): digest for role, name, digest in rows}

    async def _by_meta(self, collection: Collection, role: str, meta: Json) -> Any:
        return await self.trust.get_by_hash(collection, role, sha256_of(meta))


def signed(content: bytes) -> Json:
    """What a file says."""
    said: Json = json.loads(content)["signed"]
    return said


def sha256_of(meta: Json) -> str:
    """The SHA-256 of a file meta, hexadecimal."""
    return base64.b64decode(meta["hashes"]["sha256"]).hex()


def digest(number: int) -> str:
    """A digest that is none of anything."""
    return f"sha256:{number:064x}"


@pytest.fixture
async def rooms(database_url: str) -> AsyncIterator[Rooms]:
    made = Rooms(database_url, Memory)
    yield made
    await made.close()


@pytest.fixture
def house(rooms: Rooms, tmp_path: Path) -> House:
    return House(rooms, tmp_path / "passphrases")
