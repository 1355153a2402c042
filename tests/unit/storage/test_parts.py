"""The sizes of parts, and the files in which they wait."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from dtr.storage.driver import Part, UploadState
from dtr.storage.parted import PartSizes, aside, upload_of
from dtr.storage.spool import SPOOL_PIECE, Spool

MIB = 1024 * 1024
SIZES = PartSizes(usual=8 * MIB, shortest=5 * MIB, most=1000, growth=100, longest=64 * MIB)


def test_parts_grow_with_what_is_stored_up_to_the_longest():
    assert [SIZES.full(offset * MIB) for offset in (0, 800, 801, 2000, 10_000_000)] == [
        8 * MIB, 8 * MIB, 801 * MIB // 100, 20 * MIB, 64 * MIB,
    ]  # fmt: skip


def test_the_end_of_a_request_is_a_part_while_many_are_left():
    few, many = (
        UploadState("x", offset=2000 * MIB, parts=tuple(Part(str(n), "", 1) for n in range(count)))
        for count in (499, 500)
    )
    assert SIZES.enough(few) == 5 * MIB
    assert SIZES.enough(many) == 20 * MIB


def test_what_is_put_aside_tells_whose_it_is():
    location = "20260101/0000/abc"
    assert upload_of(aside(location, "tail")) == location
    assert upload_of(aside(location, "part")) == location
    assert aside(location, "part") != aside(location, "part")
    for other in (location, f"{location}.tail.x", f"{aside(location, 'tail')}/data"):
        assert upload_of(other) is None


@pytest.fixture
def make_spool(tmp_path):
    threads = ThreadPoolExecutor(1)
    made = []

    def make(in_memory=1000):
        made.append(Spool(str(tmp_path), threads, in_memory))
        return made[-1]

    yield make
    for one in made:
        one.close()
    threads.shutdown()


async def contents(spool):
    return b"".join([bytes(piece) async for piece in spool])


@pytest.mark.parametrize("is_remembered", [True, False])
async def test_a_spool_gives_back_what_it_was_given_however_it_came(make_spool, monkeypatch, is_remembered):
    if not is_remembered:  # by the system: it has to be read from the disk

        def preadv(*_):
            raise BlockingIOError

        monkeypatch.setattr(os, "preadv", preadv)
    dice = random.Random(7)
    spool = make_spool()
    for _ in range(2):
        given = bytearray()
        assert spool.short == b""
        while len(given) < 3 * SPOOL_PIECE:
            pieces = [dice.randbytes(dice.randrange(4000)) for _ in range(dice.choice((0, 1, 5, 200)))]
            await spool.add(*pieces)
            given += b"".join(pieces)
            assert len(spool) == len(given)
            assert spool.short == (bytes(given) if len(given) <= 1000 else None)
        for _ in range(2):
            assert await contents(spool) == given
        spool.clear()


async def test_each_piece_that_is_read_is_told(make_spool):
    spool, told = make_spool(), []
    await spool.add(bytes(2 * SPOOL_PIECE + 1))
    spool.on_piece = lambda: told.append(1)
    assert len(await contents(spool)) == 2 * SPOOL_PIECE + 1
    assert len(told) == 3
