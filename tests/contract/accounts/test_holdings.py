"""What users have agrees with the rule, has its reasons, and costs what is on a page, on both databases."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest
from tests.contract.accounts.test_standings import World, fill
from tests.support.grants import grant_team

from dtr.accounts import Accounts, Level
from dtr.accounts.holdings import page_statement
from dtr.oci import parse_repository_name
from dtr.registry import Repositories, Settings

if TYPE_CHECKING:
    from dtr.db.sqlite import SQLite


@pytest.fixture(params=[1, 2])
async def world(request: pytest.FixtureRequest, accounts: Accounts, repositories: Repositories) -> World:
    """The world of the standings, with grants to users."""
    world = await fill(request.param, accounts, repositories)
    chance = random.Random(request.param)
    for user in ("user3", "user4", "user5"):
        places = [chance.choice(["org", "user1", "other"]), *chance.sample(sorted(world.repositories), 5)]
        for place in places:
            await accounts.grants.set_user(
                await accounts.grants.on(place), user, chance.choice([Level.READ, Level.WRITE, Level.ADMIN])
            )
    return world


async def test_they_are_what_the_rule_gives_beyond_what_everybody_has(world: World, accounts: Accounts):
    seen = 0
    for user in ("user1", "user2", "user3", "user4", "user5", "user8"):
        account = await accounts.get(user)
        if account.is_admin or account.is_auditor:
            continue
        standings = await accounts.standings.find_all(account.id, world.repositories)
        expected = {
            path: max(
                Level.ADMIN if one.facts.owns_namespace else Level.NONE,
                one.facts.repository_level,
                one.facts.namespace_level,
            )
            for path, one in standings.items()
        }
        expected = {path: level for path, level in sorted(expected.items()) if level}
        found = await accounts.holdings.list_of(account, limit=1000)
        assert {one.path: one.level for one in found} == expected
        assert [one.path for one in found] == list(expected)
        assert await accounts.holdings.count_of(account) == len(expected)
        assert all(world.repositories[one.path] == one.repository_id for one in found)
        walked: list[str] = []
        start = ""
        while page := await accounts.holdings.list_of(account, start=start, limit=4):
            walked += [one.path for one in page[:3]]
            if len(page) < 4:
                break
            start = page[3].path
        assert walked == list(expected)
        fitting = [path for path in expected if "a1" in path]
        assert [one.path for one in await accounts.holdings.list_of(account, contains="A1", limit=99)] == fitting
        assert await accounts.holdings.count_of(account, contains="A1") == len(fitting)
        assert await accounts.holdings.list_of(account, contains="%", limit=9) == []
        seen += len(expected)
    assert seen > 20


async def test_every_reason_is_told(accounts: Accounts, repositories: Repositories):
    await accounts.create_user("ada", None)
    await accounts.create_user("bob", None)
    await accounts.create_organization("acme")
    await accounts.organizations.create_team("acme", "devs")
    await accounts.organizations.create_team("acme", "ops")
    for path in ("ada/own", "bob/lent", "bob/hidden", "acme/app", "acme/tool"):
        await repositories.create(parse_repository_name(path), Settings(visibility="private"))
    for team in ("devs", "ops"):
        await accounts.organizations.put_team_member("acme", team, "ada")
    await grant_team(accounts, "acme/app", "devs", Level.WRITE)
    await grant_team(accounts, "acme", "ops", Level.READ)
    await accounts.grants.set_user(await accounts.grants.on("acme/app"), "ada", Level.READ)
    await accounts.grants.set_user(await accounts.grants.on("bob/lent"), "ada", Level.ADMIN)

    async def told() -> dict[str, list[tuple[str, str, str, str]]]:
        found = await accounts.holdings.list_of(await accounts.get("ada"), limit=10)
        return {one.path: [(why.kind, why.on, why.team, why.level.label) for why in one.reasons] for one in found}

    everything = {
        "acme/app": [
            ("team", "repository", "devs", "read-write"),
            ("team", "namespace", "ops", "read-only"),
            ("user", "repository", "", "read-only"),
        ],
        "acme/tool": [("team", "namespace", "ops", "read-only")],
        "ada/own": [("owner", "namespace", "", "admin")],
        "bob/lent": [("user", "repository", "", "admin")],
    }
    assert await told() == everything
    await accounts.organizations.put_member("acme", "ada", is_admin=True)
    await accounts.grants.set_user(await accounts.grants.on("bob"), "ada", Level.READ)
    more = await told()
    assert more["acme/tool"] == [("owner", "namespace", "", "admin"), *everything["acme/tool"]]
    assert more["bob/hidden"] == [("user", "namespace", "", "read-only")]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_page_walks_over_nothing_but_what_is_on_it(
    accounts: Accounts, repositories: Repositories, database: SQLite
):
    """SQLite tells how many steps a statement took: others, also its own, change little."""
    ada = await accounts.create_user("ada", None)
    await accounts.create_user("bob", None)

    async def make(names: list[str]) -> None:
        for name in names:
            await repositories.create(parse_repository_name(name), Settings(visibility="public"))

    def steps() -> int:
        count = itertools.count()
        sql, values = page_statement(contains=False).prepare("sqlite", {"account": ada, "start": "", "limit": 5})
        database._reader.set_progress_handler(lambda: next(count) < 0, 1)
        assert len(database._reader.execute(sql, values).fetchall()) == 5
        return next(count)

    await make([f"ada/{number}" for number in range(10)])
    few = steps()
    await make([f"{whose}/more-{number}" for number in range(100) for whose in ("ada", "bob")])
    assert steps() < few * 1.2
