"""
What the configs of images say: for which system one is, how it was built, its labels, how its containers run.

OCI image specification 1.1, "Image Configuration"; Docker's has the same form. A config is read once, some moments
after its push or when somebody wants to see it, and what is needed of it is kept in `image_configs`. Whoever
pushed it may have written anything: what is too large, too much or no config says nothing, and harms nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import asdict
from sqlalchemy import BigInteger, bindparam, select
from sqlalchemy.dialects.postgresql import insert

from dtr.db import DatabaseError, Statement, in_list
from dtr.db.schema import blob_contents, blobs, image_configs
from dtr.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dtr.db import Database, Row, Transaction
    from dtr.storage import Driver

_log = logging.getLogger("dtr.images")

_LARGEST = 4 * 1024 * 1024
_DECODE_IN_LOOP = 64 * 1024
_READ_AT_ONCE = 4
"""So many configs of a process are in memory at a time, until they are read."""
_BATCH = 50
_MOST_NOTED = 10_000
_MOMENT_SECONDS = 1.0
"""After a push, before its config is read: others come with it."""

_LONGEST_NAME, _LONGEST_LINE = 100, 4_096
_MOST_STEPS, _MOST_LINES = 1_000, 65_536
"""Steps of a history, and the characters of all of them."""
_MOST_LABELS, _LONGEST_LABEL, _MOST_TEXT = 200, 4_096, 32_768
_MOST_ENTRIES = 500
"""Of each list of how containers run; they share `_MOST_TEXT`."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

_KNOWN = Statement(
    lambda: select(
        image_configs.c.digest,
        image_configs.c.os,
        image_configs.c.os_version,
        image_configs.c.architecture,
        image_configs.c.variant,
        image_configs.c.history,
        image_configs.c.labels,
    ).where(in_list(image_configs.c.digest, "digests"))
)
_RUNTIME = Statement(lambda: select(image_configs.c.runtime).where(image_configs.c.digest == bindparam("digest")))
_PRESENT = Statement(
    lambda: (
        select(blobs.c.digest, blobs.c.size, blobs.c.location, blob_contents.c.content)
        .outerjoin(blob_contents, blob_contents.c.digest == blobs.c.digest)
        .where(
            in_list(blobs.c.digest, "digests"),
            blobs.c.state == "present",
            blobs.c.size <= bindparam("largest", type_=BigInteger),
        )
    )
)
_text = image_configs.c.os.type
_SAID = ("os", "os_version", "architecture", "variant", "history", "labels", "runtime")
_KEEP = Statement(
    lambda: (
        insert(image_configs)
        .from_select(
            ["digest", *_SAID],
            select(
                blobs.c.digest,
                *(bindparam(name, type_=_text) for name in _SAID),
            ).where(blobs.c.digest == bindparam("which")),
        )
        .on_conflict_do_nothing()
    )
)


class Step(Struct, frozen=True):
    """A step of how an image was built: the command; empty ones made no layer."""

    created_by: str
    is_empty: bool


class ImageConfig(Struct, frozen=True):
    """What is kept of a config; empty: it does not say."""

    os: str = ""
    os_version: str = ""
    architecture: str = ""
    variant: str = ""
    history: tuple[Step, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


class Runtime(Struct, frozen=True, kw_only=True):
    """How containers of an image run, and where it is from; empty: its config does not say."""

    created: str = ""
    """When it was built, as it says itself (RFC 3339)."""
    author: str = ""
    user: str = ""
    working_dir: str = ""
    stop_signal: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    """``NAME=value`` each."""
    ports: tuple[str, ...] = ()
    """``80/tcp``."""
    volumes: tuple[str, ...] = ()


class _Step(msgspec.Struct):
    created_by: str | None = None
    empty_layer: bool | None = None


class _Section(msgspec.Struct):
    Labels: dict[str, str | None] | None = None
    # What is no text or list of texts here says nothing, and the rest of the config all the same.
    User: Any = None
    WorkingDir: Any = None
    StopSignal: Any = None
    Entrypoint: Any = None
    Cmd: Any = None
    Shell: Any = None
    Env: Any = None
    ExposedPorts: Any = None
    Volumes: Any = None


class _Document(msgspec.Struct):
    os: str | None = None
    os_version: str | None = msgspec.field(name="os.version", default=None)
    architecture: str | None = None
    variant: str | None = None
    history: list[_Step | None] | None = None
    config: _Section | None = None
    created: Any = None
    author: Any = None


_decoder = msgspec.json.Decoder(_Document)


def read_config(data: bytes) -> tuple[ImageConfig, Runtime]:
    """What the bytes of a config say of the image, and of how its containers run; what is none says nothing."""
    try:
        document = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        document = _Document()
    return _config(document), _runtime(document)


def _runtime(document: _Document) -> Runtime:
    section, left = document.config or _Section(), _MOST_TEXT

    def text(given: Any) -> str:
        nonlocal left
        found = _clean(given, min(_LONGEST_LINE, left)) if isinstance(given, str) else ""
        left -= len(found)
        return found

    def texts(given: Any) -> tuple[str, ...]:
        if isinstance(given, str):  # builders of old wrote a single command so
            given = [given]
        found = [text(one) for one in given[:_MOST_ENTRIES] if left > 0] if isinstance(given, list) else []
        return tuple(found)

    def names(given: Any) -> tuple[str, ...]:
        return texts(sorted(given)) if isinstance(given, dict) else ()

    return Runtime(
        created=text(document.created),
        author=text(document.author),
        user=text(section.User),
        working_dir=text(section.WorkingDir),
        stop_signal=text(section.StopSignal),
        entrypoint=texts(section.Entrypoint),
        cmd=texts(section.Cmd),
        shell=texts(section.Shell),
        env=texts(section.Env),
        ports=names(section.ExposedPorts),
        volumes=names(section.Volumes),
    )


def _config(document: _Document) -> ImageConfig:
    steps, left = [], _MOST_LINES
    for one in (document.history or [])[:_MOST_STEPS]:
        line = _clean(one.created_by if one else None, min(_LONGEST_LINE, left))
        left -= len(line)
        steps.append(Step(line, bool(one and one.empty_layer)))
    labels: dict[str, str] = {}
    left = _MOST_TEXT
    for name, value in sorted(((document.config and document.config.Labels) or {}).items())[:_MOST_LABELS]:
        label = _clean(name, _LONGEST_LABEL)
        labels[label] = _clean(value, _LONGEST_LABEL)
        left -= len(label) + len(labels[label])
        if left < 0:
            del labels[label]
            break
    return ImageConfig(
        _clean(document.os, _LONGEST_NAME),
        _clean(document.os_version, _LONGEST_NAME),
        _clean(document.architecture, _LONGEST_NAME),
        _clean(document.variant, _LONGEST_NAME),
        tuple(steps),
        labels,
    )


class ImageConfigs:
    """The configs of all images."""

    def __init__(self, database: Database, storage: Driver) -> None:
        self._database = database
        self._storage = storage
        self._reading = asyncio.Semaphore(_READ_AT_ONCE)
        self._noted: set[str] = set()
        self._filling: asyncio.Task[None] | None = None

    async def get_many(self, digests: Iterable[str]) -> dict[str, ImageConfig]:
        """What the configs say, those that can be read; one query, when all were read before."""
        wanted = sorted(set(digests))
        if not wanted:
            return {}
        found = {row[0]: _known(row) for row in await self._database.fetch_all(_KNOWN, digests=wanted)}
        missing = [digest for digest in wanted if digest not in found]
        for start in range(0, len(missing), _BATCH):
            found |= await self._fill(missing[start : start + _BATCH])
        return found

    async def get_runtime(self, digest: str) -> Runtime:
        """What a config says of how containers run; one that cannot be read says nothing."""
        for _ in range(2):
            row = await self._database.fetch_one(_RUNTIME, digest=digest)
            if row is not None:
                return msgspec.json.decode(row[0], type=Runtime)
            await self._fill([digest])
        return Runtime()

    def note(self, digest: str) -> None:
        """A config was pushed: read it soon, beside the requests."""
        if len(self._noted) < _MOST_NOTED:
            self._noted.add(digest)
        if self._filling is None or self._filling.done():
            self._filling = asyncio.create_task(self._fill_noted())

    async def close(self) -> None:
        """Read no more; what was noted is read when somebody wants it."""
        if self._filling is not None:
            self._filling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._filling

    async def _fill_noted(self) -> None:
        await asyncio.sleep(_MOMENT_SECONDS)
        while self._noted:
            some = [self._noted.pop() for _ in range(min(_BATCH, len(self._noted)))]
            try:
                await self.get_many(some)
            except DatabaseError as error:
                _log.warning("configs of images were not read", extra={"reason": str(error)})

    async def _fill(self, digests: list[str]) -> dict[str, ImageConfig]:
        """Read configs from where their bytes are, and keep what they say."""
        rows = await self._database.fetch_all(_PRESENT, digests=digests, largest=_LARGEST)
        said = await asyncio.gather(*(self._read(*row[1:]) for row in rows))
        read = {row[0]: both for row, both in zip(rows, said, strict=True) if both is not None}

        async def work(tx: Transaction) -> None:
            await tx.execute_many(_KEEP, [_parameters(digest, *read[digest]) for digest in sorted(read)])

        # One that goes at this moment is no loss: the others are read again when they are wanted.
        with contextlib.suppress(DatabaseError):
            await self._database.unit(work, durable=False)
        return {digest: config for digest, (config, _) in read.items()}

    async def _read(
        self, size: int, location: str | None, content: bytes | None
    ) -> tuple[ImageConfig, Runtime] | None:
        async with self._reading:
            data = content if location is None else await self._load(location, size)
            if data is None:
                return None
            if len(data) > _DECODE_IN_LOOP:
                return await asyncio.to_thread(read_config, data)
            return read_config(data)

    async def _load(self, location: str, size: int) -> bytes | None:
        try:
            async with aclosing(self._storage.open(location, 0, size)) as opened:
                return b"".join([piece async for piece in opened])
        except (StorageError, OSError) as error:
            _log.warning("config of an image was not read", extra={"location": location, "reason": str(error)})
            return None


def _clean(text: str | None, longest: int) -> str:
    return _UNSTORABLE.sub("", (text or "")[:longest])


def _known(row: Row) -> ImageConfig:
    _, os, os_version, architecture, variant, history, labels = row
    steps = tuple(Step(line, is_empty) for line, is_empty in json.loads(history))
    return ImageConfig(os, os_version, architecture, variant, steps, json.loads(labels))


def _parameters(digest: str, config: ImageConfig, runtime: Runtime) -> dict[str, object]:
    return {
        "which": digest,
        "os": config.os,
        "os_version": config.os_version,
        "architecture": config.architecture,
        "variant": config.variant,
        "history": json.dumps([[one.created_by, one.is_empty] for one in config.history]),
        "labels": json.dumps(dict(config.labels)),
        "runtime": json.dumps({name: value for name, value in asdict(runtime).items() if value}),
    }
