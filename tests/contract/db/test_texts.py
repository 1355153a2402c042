"""Indexes of parts of words: where the extension must not be made, everything works without, and says so."""

from __future__ import annotations

import uuid

import asyncpg

from dtr.accounts import Accounts, Passwords
from dtr.db import open_database
from dtr.db.migrate import migrate
from dtr.db.texts import HAS_TEXTS
from dtr.oci import parse_repository_name
from dtr.registry import Repositories, Search, Settings


async def execute(url: str, *commands: str) -> None:
    connection = await asyncpg.connect(url)
    for command in commands:
        await connection.execute(command)
    await connection.close()


async def find(url: str, part: str) -> tuple[bool, int]:
    """Whether there are the indexes, and how many repositories have the part."""
    database = open_database(url)
    try:
        await migrate(database, url)
        has_texts = await database.fetch_one(HAS_TEXTS) is not None
        accounts = Accounts(database, Passwords(memory_kib=64, passes=1))
        if await accounts.is_empty():
            await accounts.create_user("ada", None)
            name = parse_repository_name("ada/cobweb")
            await Repositories(database).create(name, Settings(visibility="public"))
        return has_texts, len(await Search(database, accounts).find_repositories(part, None, limit=5))
    finally:
        await database.close()


async def test_a_role_that_must_not_make_the_extension_searches_without(postgresql_cluster, empty_database_url):
    url = await empty_database_url("postgresql")
    role = f"weak{uuid.uuid4().hex}"
    await execute(url, f"CREATE ROLE {role} LOGIN", f"GRANT ALL ON SCHEMA public TO {role}")
    weak = url.replace("//dtr@", f"//{role}@")
    assert await find(weak, "obwe") == (False, 1)
    await execute(url, "CREATE EXTENSION pg_trgm")
    assert await find(weak, "obwe") == (True, 1)
