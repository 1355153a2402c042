"""Whatever a client does one after another, the rooms answer as a model of a few dictionaries does."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.support.images import Image, make_artifact, make_image, make_index
from tests.support.invariants import find_violations
from tests.support.rooms import Rooms, annotated, make_body

from dtr.oci import Digest, parse_manifest
from dtr.registry import (
    BlobReferenced,
    BlobUnknown,
    DigestMismatch,
    ManifestIncomplete,
    ManifestReferenced,
    ManifestUnknown,
    RepositoryExists,
    RepositoryUnknown,
    TagImmutable,
    UploadOutOfOrder,
    UploadUnknown,
)
from dtr.storage import Memory

_plain, _other = make_image(layers=2, size=10), make_image(layers=1, size=10)
_singles = [annotated(_plain, n="1"), annotated(_plain, n="2"), annotated(_other, n="1")]
_index = make_index(_singles[0], _singles[2])
IMAGES: list[Image] = [
    *_singles,
    _index,
    make_index(_index, _singles[1], annotations={"outer": "yes"}),
    make_artifact("application/x-sbom", b"sbom", subject=_singles[0]),
    make_artifact("application/x-signature", b"sbom", subject=_index),
]
CONTENTS = sorted({content for image in IMAGES for content in image.blobs})

paths = st.sampled_from(["acme/a", "acme/b", "beta/a"])
images = st.sampled_from(IMAGES)
contents = st.sampled_from(CONTENTS)
tag_names = st.sampled_from(["1", "2", "latest"])


@dataclass
class Repository:
    """What the model knows of one."""

    number: int
    is_immutable: bool
    blobs: set[str] = field(default_factory=set)
    manifests: dict[str, Image] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def blob_holders(self, digest: str) -> set[str]:
        return {
            name for name, image in self.manifests.items() if digest in {Digest.of(one) for one in image.blobs}
        }

    def forget_what_nothing_holds(self) -> None:
        """A tag holds its manifest, an index its children, a subject its referrers, a manifest its blobs."""
        held: set[str] = set()
        more = set(self.tags.values())
        while more:
            held |= more
            children = {child.digest for name in held for child in self.manifests[name].children}
            referrers = {name for name, image in self.manifests.items() if _subject(image) in held}
            more = (children | referrers) - held
        self.manifests = {name: image for name, image in self.manifests.items() if name in held}
        self.blobs = {Digest.of(one) for image in self.manifests.values() for one in image.blobs}

    def index_holders(self, digest: str) -> set[str]:
        return {
            name for name, image in self.manifests.items() if digest in {child.digest for child in image.children}
        }


@dataclass
class Session:
    """An upload that the model knows of."""

    upload: Any
    path: str
    repository: Repository
    received: bytes = b""


class Registry(RuleBasedStateMachine):
    """The rooms and the model side by side."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        shared = Memory()
        self.rooms = Rooms(type(self).fresh_url(), lambda: Memory(shared))
        self.other = self.rooms.another(inline_limit=16384)
        self._hosts = itertools.cycle((self.rooms, self.other))
        self.repositories: dict[str, Repository] = {}
        self.sessions: list[Session] = []

    @classmethod
    def fresh_url(cls) -> str:
        raise NotImplementedError

    def teardown(self) -> None:
        try:
            assert self.wait(find_violations(self.rooms.database, self.rooms.storage)) == []
        finally:
            self.wait(self.rooms.close())
            self._runner.close()

    def wait(self, work: Any) -> Any:
        return self._runner.run(work)

    @property
    def host(self) -> Rooms:
        """One of two processes, in turn."""
        return next(self._hosts)

    def refuses(self, error: type[Exception], work: Any) -> Any:
        with pytest.raises(error) as refused:
            self.wait(work)
        return refused.value

    # --- repositories ----------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self._create("acme/a", is_immutable=False)

    @rule(path=paths, is_immutable=st.booleans())
    def create(self, path: str, is_immutable: bool) -> None:
        if path in self.repositories:
            self.refuses(RepositoryExists, self.host.make_repository(path))
        else:
            self._create(path, is_immutable=is_immutable)

    def _create(self, path: str, *, is_immutable: bool) -> None:
        number = self.wait(self.host.make_repository(path, immutable_tags=is_immutable))
        self.repositories[path] = Repository(number, is_immutable)

    @rule(path=paths)
    def delete_repository(self, path: str) -> None:
        if path not in self.repositories:
            self.refuses(RepositoryUnknown, self.host.repositories.delete(path))
            return
        self.wait(self.host.repositories.delete(path))
        gone = self.repositories.pop(path)
        for session in self.sessions:
            if session.repository is gone:
                if session.upload.is_begun:  # else its id alone tells nothing of its repository
                    self.refuses(UploadUnknown, self.host.upload_again(session.upload))
                self.refuses(UploadUnknown, self.host.uploads.append(session.upload, make_body(b"more")))
        self.sessions = [one for one in self.sessions if one.repository is not gone]

    # --- blobs -----------------------------------------------------------------------------------------------

    @rule(path=paths, content=contents)
    def push_blob(self, path: str, content: bytes) -> None:
        if (repository := self.repositories.get(path)) is None:
            return
        self.wait(self.host.push_blob(repository.number, content))
        repository.blobs.add(Digest.of(content))

    @rule(origin=paths, path=paths, content=contents)
    def mount(self, origin: str, path: str, content: bytes) -> None:
        digest = Digest.of(content)
        if (repository := self.repositories.get(path)) is None:
            return
        if origin not in self.repositories or digest not in self.repositories[origin].blobs:
            self.refuses(BlobUnknown, self.host.blobs.get(origin, digest))
            return
        found = self.wait(self.host.blobs.get(origin, digest, promise=True))
        assert self.wait(self.host.blobs.mount(found, repository.number))
        repository.blobs.add(digest)

    @rule(path=paths, content=contents)
    def delete_blob(self, path: str, content: bytes) -> None:
        digest = Digest.of(content)
        if (repository := self.repositories.get(path)) is None:
            return
        work = self.host.blobs.delete(repository.number, digest)
        if digest not in repository.blobs:
            self.refuses(BlobUnknown, work)
        elif holders := repository.blob_holders(digest):
            assert self.refuses(BlobReferenced, work).manifest in holders
        else:
            self.wait(work)
            repository.blobs.discard(digest)

    # --- uploads ---------------------------------------------------------------------------------------------

    @rule(path=paths, announced=st.booleans())
    def start_upload(self, path: str, announced: bool) -> None:
        if (repository := self.repositories.get(path)) is not None:
            uploads, number = self.host.uploads, repository.number
            upload = self.wait(uploads.announce(number) if announced else uploads.start(number))
            self.sessions.append(Session(upload, path, repository))

    @rule(data=st.data(), size=st.integers(0, 7), start=st.none() | st.integers(0, 9))
    def append(self, data: st.DataObject, size: int, start: int | None) -> None:
        if not self.sessions:
            return
        session = data.draw(st.sampled_from(self.sessions))
        piece = CONTENTS[0][len(session.received) :][:size]
        host = self.host
        upload = self.wait(host.upload_again(session.upload))
        assert upload.offset == len(session.received)
        work = host.uploads.append(upload, make_body(piece), start=start)
        if start is not None and start != len(session.received):
            self.refuses(UploadOutOfOrder, work)
        else:
            session.upload = self.wait(work)
            session.received += piece

    @rule(data=st.data(), is_right=st.booleans())
    def finish(self, data: st.DataObject, is_right: bool) -> None:
        if not self.sessions:
            return
        session = data.draw(st.sampled_from(self.sessions))
        self.sessions.remove(session)
        host = self.host
        upload = self.wait(host.upload_again(session.upload))
        rest = make_body(CONTENTS[0][len(session.received) :])
        if is_right:
            digest = Digest.of(CONTENTS[0])
            self.wait(host.uploads.finish(upload, digest, rest))
            session.repository.blobs.add(digest)
        else:
            self.refuses(DigestMismatch, host.uploads.finish(upload, Digest.of(b"wrong"), rest))
        self.refuses(UploadUnknown, host.upload_again(upload))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.sessions:
            session = data.draw(st.sampled_from(self.sessions))
            self.sessions.remove(session)
            self.wait(self.host.uploads.cancel(session.upload))
            self.refuses(UploadUnknown, self.host.uploads.cancel(session.upload))

    # --- manifests -------------------------------------------------------------------------------------------

    @rule(path=paths, image=images, names=st.lists(tag_names, max_size=2))
    def put(self, path: str, image: Image, names: list[str]) -> None:
        self._put(path, image, names)

    @rule(path=paths, image=images, names=st.lists(tag_names, min_size=1, max_size=3))
    def push(self, path: str, image: Image, names: list[str]) -> None:
        """All that an image needs, then the image."""
        if (repository := self.repositories.get(path)) is None:
            return
        for content in image.blobs:
            self.push_blob(path, content)
        for child in image.children:
            self.push(path, child, [])
        self._put(path, image, names)
        assert image.digest in repository.manifests or repository.is_immutable

    def _put(self, path: str, image: Image, names: list[str]) -> None:
        if (repository := self.repositories.get(path)) is None:
            return
        digest = Digest.of(image.payload)
        work = self.host.manifests.put(
            repository.number, parse_manifest(image.payload, image.media_type), image.payload, digest,
            tuple(names),
        )  # fmt: skip
        lacking_blobs = {Digest.of(one) for one in image.blobs} - repository.blobs
        lacking = {child.digest for child in image.children} - set(repository.manifests)
        if repository.is_immutable and any(repository.tags.get(name, digest) != digest for name in names):
            self.refuses(TagImmutable, work)
        elif lacking_blobs or lacking:
            error = self.refuses(ManifestIncomplete, work)
            assert (set(error.blobs), set(error.manifests)) == (lacking_blobs, lacking)
        else:
            self.wait(work)
            repository.manifests[digest] = image
            repository.tags |= dict.fromkeys(names, str(digest))

    @rule(path=paths, name=tag_names)
    def delete_tag(self, path: str, name: str) -> None:
        if (repository := self.repositories.get(path)) is None:
            return
        work = self.host.manifests.delete_tag(repository.number, name)
        if repository.tags.pop(name, None) is None:
            self.refuses(ManifestUnknown, work)
        else:
            self.wait(work)

    @rule(path=paths, image=images)
    def delete_manifest(self, path: str, image: Image) -> None:
        if (repository := self.repositories.get(path)) is None:
            return
        work = self.host.manifests.delete(repository.number, image.digest)
        if image.digest not in repository.manifests:
            self.refuses(ManifestUnknown, work)
        elif holders := repository.index_holders(image.digest):
            assert self.refuses(ManifestReferenced, work).index in holders
        else:
            self.wait(work)
            del repository.manifests[image.digest]
            repository.tags = {name: held for name, held in repository.tags.items() if held != image.digest}

    # --- the rest --------------------------------------------------------------------------------------------

    @rule(at_once=st.booleans())
    def sweep(self, at_once: bool) -> None:
        if at_once:
            self.wait(self.rooms.make_due())
        assert self.wait(self.host.sweeper.sweep()).failures == 0

    @rule()
    def collect(self) -> None:
        """Let time pass. What nothing holds goes, but not from repositories to which somebody uploads."""
        self.wait(self.host.collect_all())
        busy = {session.path for session in self.sessions if session.upload.is_begun}  # else nobody knows of it
        for path, repository in self.repositories.items():
            if path not in busy:
                repository.forget_what_nothing_holds()

    @rule()
    def audit(self) -> None:
        assert self.wait(self.host.findings(content=True, repair=True)) == []

    @invariant()
    def answers_agree(self) -> None:
        self.wait(self._compare(self.host))

    async def _compare(self, host: Rooms) -> None:
        for path in ("acme/a", "acme/b", "beta/a"):
            repository = self.repositories.get(path)
            if repository is None:
                with pytest.raises(RepositoryUnknown):
                    await host.manifests.list_tags(path, limit=10)
                continue
            names = await host.manifests.list_tags(path, limit=10)
            assert {name: (await host.manifests.get(path, name)).digest for name in names} == repository.tags
            for image in IMAGES:
                if image.digest in repository.manifests:
                    assert (await host.manifests.get(path, image.digest)).payload == image.payload
                else:
                    with pytest.raises(ManifestUnknown):
                        await host.manifests.get(path, image.digest)
            for content in CONTENTS:
                if Digest.of(content) in repository.blobs:
                    assert await host.read(path, Digest.of(content)) == content
                else:
                    with pytest.raises(BlobUnknown):
                        await host.blobs.get(path, Digest.of(content))
            for subject in (_singles[0], _index):
                found = await host.manifests.list_referrers(path, subject.digest, limit=10)
                assert [one.digest for one in found] == sorted(
                    image.digest for image in repository.manifests.values() if _subject(image) == subject.digest
                )


def _subject(image: Image) -> str | None:
    subject = parse_manifest(image.payload, image.media_type).subject
    return subject.digest if subject else None


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_rooms_answer_as_the_model_does(kind: str, fresh_database_urls):
    class OnThisDatabase(Registry):
        @classmethod
        def fresh_url(cls) -> str:
            return fresh_database_urls(kind)

    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=25 if kind == "sqlite" else 12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
