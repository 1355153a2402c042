"""
What the configs of images say: for which system one is, how it was built, its labels.

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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
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
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

_KNOWN = Statement(
    select(
        image_configs.c.digest,
        image_configs.c.os,
        image_configs.c.os_version,
        image_configs.c.architecture,
        image_configs.c.variant,
        image_configs.c.history,
        image_configs.c.labels,
    ).where(in_list(image_configs.c.digest, "digests"))
)
_PRESENT = Statement(
    select(blobs.c.digest, blobs.c.size, blobs.c.location, blob_contents.c.content)
    .outerjoin(blob_contents, blob_contents.c.digest == blobs.c.digest)
    .where(
        in_list(blobs.c.digest, "digests"),
        blobs.c.state == "present",
        blobs.c.size <= bindparam("largest", type_=BigInteger),
    )
)
_text = image_configs.c.os.type
_KEEP = Statement(
    insert(image_configs)
    .from_select(
        ["digest", "os", "os_version", "architecture", "variant", "history", "labels"],
        select(
            blobs.c.digest,
            *(
                bindparam(name, type_=_text)
                for name in ("os", "os_version", "architecture", "variant", "history", "labels")
            ),
        ).where(blobs.c.digest == bindparam("which")),
    )
    .on_conflict_do_nothing()
)


@dataclass(frozen=True, slots=True)
class Step:
    """A step of how an image was built: the command; empty ones made no layer."""

    created_by: str
    is_empty: bool


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What is kept of a config; empty: it does not say."""

    os: str = ""
    os_version: str = ""
    architecture: str = ""
    variant: str = ""
    history: tuple[Step, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


class _Step(msgspec.Struct):
    created_by: str | None = None
    empty_layer: bool | None = None


class _Section(msgspec.Struct):
    Labels: dict[str, str | None] | None = None


class _Document(msgspec.Struct):
    os: str | None = None
    os_version: str | None = msgspec.field(name="os.version", default=None)
    architecture: str | None = None
    variant: str | None = None
    history: list[_Step | None] | None = None
    config: _Section | None = None


_decoder = msgspec.json.Decoder(_Document)


def read_config(data: bytes) -> ImageConfig:
    """What the bytes of a config say; what is none says nothing."""
    try:
        document = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ImageConfig()
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
        configs = await asyncio.gather(*(self._read(*row[1:]) for row in rows))
        read = {row[0]: config for row, config in zip(rows, configs, strict=True) if config is not None}

        async def work(tx: Transaction) -> None:
            await tx.execute_many(_KEEP, [_parameters(digest, config) for digest, config in sorted(read.items())])

        # One that goes at this moment is no loss: the others are read again when they are wanted.
        with contextlib.suppress(DatabaseError):
            await self._database.unit(work, durable=False)
        return read

    async def _read(self, size: int, location: str | None, content: bytes | None) -> ImageConfig | None:
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


def _parameters(digest: str, config: ImageConfig) -> dict[str, object]:
    return {
        "which": digest,
        "os": config.os,
        "os_version": config.os_version,
        "architecture": config.architecture,
        "variant": config.variant,
        "history": json.dumps([[one.created_by, one.is_empty] for one in config.history]),
        "labels": json.dumps(dict(config.labels)),
    }
