"""
A process that writes to a database without end: ``python -m tests.support.writer URL NAME``.

Each unit of work adds a row ``(NAME, number)`` to `usage_deltas` and one to the row `*` of `usage`. A number is
printed when its unit was acknowledged. It ends at the end of its standard input.
"""

from __future__ import annotations

import asyncio
import sys

from sqlalchemy import bindparam, insert, update

from dtr.db import Statement, Transaction, open_database
from dtr.db.schema import usage, usage_deltas

_AT_ONCE = 8
_ADD = Statement(insert(usage_deltas).values(scope=bindparam("scope"), bytes=bindparam("number")))
_COUNT = Statement(update(usage).where(usage.c.scope == "*").values(bytes=usage.c.bytes + 1))


async def main(url: str, name: str) -> None:
    database = open_database(url)
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    number = 0

    async def write(number: int) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(_ADD, scope=name, number=number)
            await tx.execute(_COUNT)

        await database.unit(work)
        print(number, flush=True)

    while not ended.done():
        await asyncio.gather(*(write(number + n) for n in range(_AT_ONCE)))
        number += _AT_ONCE
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
