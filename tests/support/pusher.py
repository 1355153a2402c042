"""Clients that push without end, and remember what they were told: to see what a crash took."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

from sqlalchemy import text
from tests.support.client import Answer, Client, local
from tests.support.images import Image, digest_of, make_image
from tests.support.server import Server

from dtr.app import Application
from dtr.db import Statement

LOST = (http.client.HTTPException, OSError)
"""What a client sees when a server is gone."""


@dataclass
class Session:
    """An upload whose end the client does not know."""

    location: str
    data: bytes
    offset: int = 0
    """So many bytes were acknowledged."""
    ending: bool = False
    """The last request was sent: the session may be over."""


@dataclass
class Ledger:
    """What one client was told, and what it asked for without getting an answer."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    tags: dict[str, set[str]] = field(default_factory=dict)
    """The digests that a tag may name: the last that was acknowledged, and later ones that were not."""
    new_tags: set[str] = field(default_factory=set)
    """Tags of which nothing was acknowledged."""
    asked_blobs: dict[str, bytes] = field(default_factory=dict)
    asked_images: dict[str, Image] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    unchecked: set[str] = field(default_factory=set)
    """Digests that were acknowledged since the last check."""
    resumed: int = 0
    """Uploads that were begun before a crash and ended after it."""

    @property
    def size(self) -> int:
        return len(self.blobs) + len(self.images)

    def has_blob(self, data: bytes) -> None:
        digest = digest_of(data)
        self.asked_blobs.pop(digest, None)
        self.blobs[digest] = data
        self.unchecked.add(digest)


class Pusher:
    """
    A client with a repository of its own that pushes blobs in every way, images and tags.

    `patient`: while it gets 503 it waits, as clients do. Every other unexpected answer is an error, as is 503
    for others. `forgiving`: an upload that is not finished may be gone, or go back; then it begins another one.
    """

    def __init__(
        self,
        server: Server,
        repository: str,
        seed: str,
        *,
        others: list[Pusher] | None = None,
        port: int | None = None,
        patient: bool = False,
        forgiving: bool = False,
    ) -> None:
        self.ledger = Ledger()
        self.repository = repository
        self.error: BaseException | None = None
        self.lost = 0
        """Requests without an answer."""
        self.client = Client(server, retries=False, port=port)
        self._others = others if others is not None else []
        self._random = random.Random(seed)
        self._patient = patient
        self._forgiving = forgiving
        self._stop = threading.Event()

    # --- pushing ---

    def push(self, stop: threading.Event, *, until_lost: bool) -> None:
        """Push until `stop`, or until the first request without an answer."""
        self._stop = stop
        try:
            while not stop.is_set():
                try:
                    self._something()
                except _Unavailable:
                    stop.wait(0.1)
                except _Forgotten:
                    self.ledger.sessions.pop()
                except LOST:
                    self.lost += 1
                    self.client.close()
                    if until_lost:
                        return
                    stop.wait(0.05)
        except BaseException as error:
            self.error = error

    def _something(self) -> None:
        if self.ledger.sessions:
            self._resume(self.ledger.sessions[-1])
            return
        ways = (self._put, self._put, self._post, self._patch, self._patch, self._mount, self._image, self._image)
        self._random.choice(ways)()

    def _blob(self) -> bytes:
        # Around the border between small bodies and those that threads move, and beyond one buffer.
        size = self._random.choice((1, 300, 65_536, 65_537, 300_000, self._random.randrange(1, 1_500_000)))
        return self._random.randbytes(size)

    def _put(self) -> None:
        self.put(self._blob())

    def put(self, data: bytes) -> None:
        """POST and PUT."""
        session = self._start(data)
        session.ending = True
        self._end(session, data)

    def _post(self) -> None:
        data = self._blob()
        digest = digest_of(data)
        self.ledger.asked_blobs[digest] = data
        path = f"/v2/{self.repository}/blobs/uploads/?digest={quote(digest)}"
        self._call("POST", path, data, 201)
        self.ledger.has_blob(data)

    def _patch(self) -> None:
        session = self._start(self._blob() + b"..")
        self._go_on(session)

    def _go_on(self, session: Session) -> None:
        """Send the rest in pieces, with a length or in chunks, and close the upload."""
        data = session.data
        # Never one byte at the beginning: the status of an upload cannot tell it from none. Where that is all, it
        # comes with the end.
        while session.offset < len(data) > 1:
            end = min(len(data), session.offset + self._random.randrange(2, 400_000))
            piece = data[session.offset : end]
            headers = {"Content-Type": "application/octet-stream"}
            if self._random.random() < 0.5:
                headers["Content-Range"] = f"{session.offset}-{end - 1}"
                self._call("PATCH", session.location, piece, 202, headers)
            else:
                self._call("PATCH", session.location, iter((piece[:1000], piece[1000:])), 202, headers)
            session.offset = end
        session.ending = True
        self._end(session, data[session.offset :])

    def _resume(self, session: Session) -> None:
        """Ask how far it came, and go on from there."""
        answer = self._call("GET", session.location, None, 204, 404)
        if answer.status == 404:
            # Gone: then what was asked for last was done, although nobody heard of it.
            digest = digest_of(session.data)
            answer = self._call("GET", f"/v2/{self.repository}/blobs/{digest}", None, 200, 404)
            if answer.status == 404 and self._forgiving:
                raise _Forgotten
            assert session.ending, f"{session.location} was acknowledged and is gone"
            assert answer.status == 200, f"{session.location} is gone, and so is the blob"
            assert answer.body == session.data
            self.ledger.has_blob(session.data)
            self.ledger.sessions.remove(session)
            return
        offset = reported_offset(answer)
        assert offset >= session.offset or self._forgiving, (
            f"{session.offset} bytes were acknowledged, {offset} are there"
        )
        session.offset = offset
        self._go_on(session)
        self.ledger.resumed += 1

    def _mount(self) -> None:
        sources = [(other.repository, dict(other.ledger.blobs)) for other in self._others if other.ledger.blobs]
        if not sources:
            return
        repository, blobs = self._random.choice(sources)
        digest = self._random.choice(list(blobs))
        self.ledger.asked_blobs[digest] = blobs[digest]
        path = f"/v2/{self.repository}/blobs/uploads/?mount={quote(digest)}&from={repository}"
        self._call("POST", path, None, 201)
        self.ledger.has_blob(blobs[digest])

    def _image(self) -> None:
        image = make_image(layers=self._random.randrange(1, 3), size=self._random.randrange(1, 30_000))
        for blob in image.blobs:
            self.put(blob)
        tag = f"t{self._random.randrange(4)}"
        by_tag = self._random.random() < 0.7
        self.ledger.asked_images[image.digest] = image
        if by_tag:
            if tag not in self.ledger.tags:
                self.ledger.new_tags.add(tag)
            self.ledger.tags.setdefault(tag, set()).add(image.digest)
        path = f"/v2/{self.repository}/manifests/{tag if by_tag else image.digest}"
        self._call("PUT", path, image.payload, 201, {"Content-Type": image.media_type})
        self.ledger.asked_images.pop(image.digest)
        self.ledger.images[image.digest] = image
        self.ledger.unchecked.add(image.digest)
        if by_tag:
            self.ledger.tags[tag] = {image.digest}
            self.ledger.new_tags.discard(tag)

    def _start(self, data: bytes) -> Session:
        answer = self._call("POST", f"/v2/{self.repository}/blobs/uploads/", None, 202)
        session = Session(local(answer.headers["location"]), data)
        self.ledger.sessions.append(session)
        return session

    def _end(self, session: Session, rest: bytes) -> None:
        digest = digest_of(session.data)
        self.ledger.asked_blobs[digest] = session.data
        headers = {"Content-Type": "application/octet-stream"}
        self._call("PUT", f"{session.location}?digest={quote(digest)}", rest, 201, headers)
        self.ledger.has_blob(session.data)
        self.ledger.sessions.remove(session)

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None,
        *expected: int | dict[str, str],
    ) -> Answer:
        statuses = tuple(one for one in expected if isinstance(one, int))
        headers = next((one for one in expected if isinstance(one, dict)), {})
        try:
            answer = self.client.call(method, path, body, headers)
        except AssertionError as error:
            if self._patient and "503" in str(error):  # for a token
                raise _Unavailable from None
            raise
        if self._patient and answer.status == 503:
            assert answer.codes == ["UNAVAILABLE"]
            raise _Unavailable
        if self._patient and answer.status == 409 and answer.codes == ["BLOB_UPLOAD_INVALID"]:
            # The request before it was cut, and has its turn until the database tells it so.
            raise _Unavailable
        if self._forgiving and "/blobs/uploads/" in path and answer.status in {400, 404, 416} - set(statuses):
            assert answer.codes[0] in {"DIGEST_INVALID", "BLOB_UPLOAD_UNKNOWN", "RANGE_INVALID"}
            raise _Forgotten
        return answer.expect(*statuses)

    # --- looking ---

    def check(self, client: Client, *, everything: bool = False) -> None:
        """What was acknowledged is there and whole; what was only asked for is so, or is not there at all."""
        ledger, repository = self.ledger, self.repository
        for digest in list(ledger.blobs) + list(ledger.images) if everything else sorted(ledger.unchecked):
            if digest in ledger.blobs:
                answer = client.get_blob(repository, digest)
                assert answer.status == 200, f"blob {digest} of {repository} was acknowledged: {answer.status}"
                assert answer.body == ledger.blobs[digest]
            else:
                self._check_image(client, ledger.images[digest])
        ledger.unchecked.clear()
        for digest, data in list(ledger.asked_blobs.items()):
            answer = client.get_blob(repository, digest).expect(200, 404)
            del ledger.asked_blobs[digest]
            if answer.status == 200:
                assert answer.body == data
                ledger.blobs[digest] = data
        for digest, image in list(ledger.asked_images.items()):
            status = client.get_manifest(repository, digest).expect(200, 404).status
            del ledger.asked_images[digest]
            if status == 200:
                self._check_image(client, image)
                ledger.images[digest] = image
        for tag, digests in list(ledger.tags.items()):
            answer = client.get_manifest(repository, tag).expect(200, 404)
            if answer.status == 404:
                assert tag in ledger.new_tags, f"tag {tag} of {repository} was acknowledged"
                del ledger.tags[tag]
            else:
                assert digest_of(answer.body) in digests, f"tag {tag} of {repository} names something else"
                ledger.tags[tag] = {digest_of(answer.body)}
            ledger.new_tags.discard(tag)
        listed = client.call("GET", f"/v2/{repository}/tags/list").expect(200).json["tags"]
        assert sorted(listed) == sorted(ledger.tags)

    def _check_image(self, client: Client, image: Image) -> None:
        answer = client.get_manifest(self.repository, image.digest)
        assert answer.status == 200, f"manifest {image.digest} of {self.repository}: {answer.status}"
        assert answer.body == image.payload
        for blob in image.blobs:
            assert client.get_blob(self.repository, digest_of(blob)).expect(200).body == blob


class _Forgotten(Exception):
    """The server knows less of an upload than it said before."""


class _Unavailable(Exception):
    """The server says that it cannot at the moment."""


def reported_offset(answer: Answer) -> int:
    """How many bytes of an upload the server has, by the header `Range` of its status."""
    start, _, end = answer.headers["range"].partition("-")
    assert start == "0"
    # "0-0" is said of nothing and of one byte.
    return int(end) + 1 if int(end) else 0


def end_leases(server: Server) -> None:
    """Let the time pass after which the upload of a dead writer is free; where files are locked there is none."""

    async def pass_time(application: Application) -> None:
        statement = Statement(text("UPDATE uploads SET writer_until = 0"))
        await application.database.unit(lambda tx: tx.execute(statement))

    server.do(pass_time)


@contextmanager
def pushing(pushers: list[Pusher], *, until_lost: bool = False) -> Iterator[Callable[[int], None]]:
    """
    All push, each in a thread, until the end of the block; what they found wrong is raised there.

    The block gets a function that waits until so many more blobs and manifests were acknowledged.
    """
    stop = threading.Event()
    threads = [
        threading.Thread(target=one.push, args=(stop,), kwargs={"until_lost": until_lost}) for one in pushers
    ]
    for thread in threads:
        thread.start()

    def wait_for(more: int) -> None:
        target = sum(one.ledger.size for one in pushers) + more
        deadline = time.monotonic() + 60
        while sum(one.ledger.size for one in pushers) < target:
            for one in pushers:
                if one.error is not None:
                    raise one.error
            assert time.monotonic() < deadline, "the clients do not get on"
            time.sleep(0.002)

    try:
        yield wait_for
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
    for one in pushers:
        if one.error is not None:
            raise one.error
