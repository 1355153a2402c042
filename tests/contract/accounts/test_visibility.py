"""Lists of repositories hold exactly what the rule lets see, and cost what is on them, on both databases."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, get_args

import pytest
from sqlalchemy import select, text
from tests.contract.accounts.test_standings import World, fill

from dtr.accounts import Accounts, Action, Level, Operation, TokenScope, may
from dtr.accounts.visibility import VISIBLE, View, asking, bounds, count_statement, page_statement
from dtr.db import Database, Statement
from dtr.db.schema import accounts as accounts_table
from dtr.db.schema import repositories as table
from dtr.oci import parse_repository_name
from dtr.registry import Repositories, Settings

if TYPE_CHECKING:
    from dtr.db.sqlite import SQLite

_ALL_VISIBLE = Statement(select(table.c.path).where(table.c.deleted_at.is_(None), VISIBLE).order_by(table.c.path))
_IDS = Statement(select(accounts_table.c.name, accounts_table.c.id))
READS = frozenset({Action.PULL})
SCOPES = [
    None,
    TokenScope(("*",), READS),
    TokenScope(("org/*",), READS),
    TokenScope(("org-2/a*", "user1/*"), READS),
    TokenScope(("org/a1", "other/*"), READS),
    TokenScope(("*",), frozenset({Action.PUSH})),
]


@pytest.fixture(params=[1, 2])
async def world(request: pytest.FixtureRequest, accounts: Accounts, repositories: Repositories) -> World:
    """The world of the standings, with an auditor and grants to users."""
    world = await fill(request.param, accounts, repositories)
    await accounts.update("user7", is_auditor=True)
    chance = random.Random(request.param)
    for user in ("user3", "user4", "user5", "user8"):
        places = [chance.choice(["org", "user1", "other"]), *chance.sample(sorted(world.repositories), 5)]
        for place in places:
            await accounts.grants.set_user(await accounts.grants.on(place), user, Level.READ)
    return world


async def visible(accounts: Accounts, account: str | None, world: World, scope: TokenScope | None) -> list[str]:
    """What the rule says of each."""
    standings = await accounts.standings.find_all(account, world.repositories, scope=scope)
    return sorted(path for path, standing in standings.items() if may(standing.facts, Operation.SEE))


async def test_lists_pages_counts_and_the_condition_agree_with_the_rule(
    world: World, accounts: Accounts, database: Database
):
    ids = dict(await database.fetch_all(_IDS))
    standings = accounts.standings
    for user in (None, "user0", "user1", "user3", "user4", "user7", "user8"):
        account = world.users[user] if user else None
        for scope in SCOPES:
            expected = await visible(accounts, account, world, scope)
            rows = await database.fetch_all(_ALL_VISIBLE, **asking(account, scope))
            assert [row[0] for row in rows] == expected
            assert await standings.count_visible(account, scope=scope) == len(expected)
            found: list[str] = []
            while page := await standings.list_visible(
                account, scope=scope, after=found[-1] if found else "", limit=7
            ):
                assert len(page) == min(7, len(expected) - len(found))
                found += [path for _, path in page]
            assert found == expected
            for start in ("org", *expected[::20]):
                rest = await standings.list_visible(account, scope=scope, start=start, limit=1000)
                assert [path for _, path in rest] == [path for path in expected if path >= start]
            for namespace in ("org", "user1"):
                inside = [path for path in expected if path.startswith(f"{namespace}/")]
                how = {"scope": scope, "namespace": ids[namespace]}
                assert [path for _, path in await standings.list_visible(account, **how, limit=1000)] == inside
                assert await standings.count_visible(account, **how) == len(inside)


async def test_numbers_are_those_of_the_repositories(world: World, accounts: Accounts):
    for user in ("user0", "user3", "user7"):
        for number, path in await accounts.standings.list_visible(world.users[user], limit=100):
            assert world.repositories[path] == number


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_page_walks_over_nothing_but_what_is_on_it(
    accounts: Accounts, repositories: Repositories, database: SQLite
):
    """SQLite tells how many steps a statement took: thousands of others change nothing."""
    ada = await accounts.create_user("ada", None)
    await accounts.create_organization("org")
    await accounts.create_user("bob", None)
    for number in range(20):
        await repositories.create(parse_repository_name(f"ada/{number}"), Settings(visibility="private"))
        await repositories.create(parse_repository_name(f"org/{number}"), Settings(visibility="private"))
        place = await accounts.grants.on(f"org/{number}")
        await accounts.grants.set_user(place, "ada", Level.READ)
    parameters = asking(ada) | bounds(None) | {"namespace": (await accounts.get("org")).id, "limit": 5}

    def steps_of(statement: Statement) -> int:
        count = itertools.count()
        sql, values = statement.prepare("sqlite", parameters)
        database._reader.set_progress_handler(lambda: next(count) < 0, 1)
        database._reader.execute(sql, values).fetchall()
        return next(count)

    def steps() -> dict[tuple[View, bool], int]:
        return {
            (view, in_namespace): steps_of(page_statement(view, in_namespace=in_namespace))
            for view in get_args(View)
            for in_namespace in (False, True)
        }

    async def make_others(visibility: str) -> None:
        row = (
            "INSERT INTO repositories (namespace_id, path, visibility, scan_on_push, immutable_tags,"
            " tag_limit, created_at)"
            " VALUES ((SELECT id FROM accounts WHERE name = :owner), :path, :visibility, 0, 0, 0, 0)"
        )
        rows = [
            {"owner": owner, "path": f"{owner}/{visibility}-{number}", "visibility": visibility}
            for owner in ("bob", "org")
            for number in range(2000)
        ]
        await database.unit(lambda tx: tx.execute_many(Statement(text(row)), rows))

    count = count_statement("some", in_namespace=False, scoped=False)
    few, few_counted = steps(), steps_of(count)
    await make_others("private")
    many = steps()
    assert steps_of(count) <= few_counted + 100
    del few["all", False], few["all", True]  # an administrator sees them
    for key, count in few.items():
        assert many[key] <= count + 100, key
    await make_others("public")
    for key, count in steps().items():
        assert count <= many[key] + 1000, key
