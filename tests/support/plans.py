"""What statements cost on databases with many rows, and how the databases go about them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from dataclasses import dataclass
from typing import Any

import asyncpg

from dtr.db import Statement, open_database
from dtr.db.migrate import migrate


@dataclass(frozen=True)
class Cost:
    plan: str
    work: int
    """Blocks (PostgreSQL) or steps (SQLite)."""
    rows: int


@dataclass
class Seeded:
    kind: str
    url: str

    async def cost(self, statement: Statement, **parameters: Any) -> list[Cost]:
        """What it costs; on PostgreSQL planned for these values, and for any."""
        text, values = statement.prepare(self.kind, parameters)  # type: ignore[arg-type]
        if self.kind == "sqlite":
            return [await asyncio.to_thread(self._sqlite, text, values)]
        return [await self._postgresql(text, values, mode) for mode in ("custom", "generic")]

    def _sqlite(self, text: str, values: list[Any]) -> Cost:
        connection = sqlite3.connect(self.url.removeprefix("sqlite:///"))
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values)]
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1
            return 0

        connection.set_progress_handler(step, 1)
        rows = connection.execute(text, values).fetchall()
        connection.close()
        return Cost("; ".join(plan), steps, len(rows))

    async def _postgresql(self, text: str, values: list[Any], mode: str) -> Cost:
        given = ", ".join(
            f"ARRAY[{', '.join(map(repr, value))}]" if isinstance(value, list) else f"'{value}'"
            for value in values
        )
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f"SET plan_cache_mode = force_{mode}_plan; SET jit = off")
            await connection.execute(f"PREPARE page AS {text}")
            rows = len(await connection.fetch(f"EXECUTE page ({given})"))
            found = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page ({given})")
        finally:
            await connection.close()
        (root,) = json.loads(found)
        blocks = root["Plan"]["Shared Hit Blocks"] + root["Plan"]["Shared Read Blocks"]
        return Cost(json.dumps(root["Plan"]), blocks, rows)


async def make_tables(url: str) -> None:
    """Current tables in an empty database."""
    database = open_database(url)
    await migrate(database, url)
    await database.close()
