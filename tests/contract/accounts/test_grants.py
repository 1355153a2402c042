"""Grants to teams, users and robots, on both databases."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select
from tests.support.grants import grant_team

from dtr.accounts import (
    Accounts,
    AccountUnknown,
    Facts,
    Level,
    NotAnOrganization,
    NotGrantable,
    TeamElsewhere,
    TeamUnknown,
    UserUnknown,
)
from dtr.accounts.grants import Place
from dtr.db import Database, Statement
from dtr.db.schema import events
from dtr.events import Actor
from dtr.oci import parse_repository_name
from dtr.registry import Repositories, Settings

BOB = Actor("user", "id-of-bob", "bob", "192.0.2.7")
EVENTS = Statement(
    select(
        events.c.type,
        events.c.actor_name,
        events.c.object_name,
        events.c.object_content,
        events.c.target_type,
        events.c.target_name,
        events.c.repository,
    )
    .where(events.c.object_type == "grant")
    .order_by(events.c.id)
)


@pytest.fixture
async def acme(accounts: Accounts, repositories: Repositories) -> Accounts:
    """Users ada, bob, cid; acme with the team devs (ada), and its robot ci; acme/app and ada/tools."""
    for name in ("ada", "bob", "cid"):
        await accounts.create_user(name, None)
    for organization in ("acme", "other"):
        await accounts.create_organization(organization)
        await accounts.organizations.create_team(organization, "devs")
        await accounts.robots.create(await accounts.get(organization), "ci")
    await accounts.organizations.put_team_member("acme", "devs", "ada")
    for path in ("acme/app", "acme/lib", "ada/tools"):
        await repositories.create(parse_repository_name(path), Settings())
    return accounts


async def facts(accounts: Accounts, name: str, path: str) -> Facts:
    return (await accounts.standings.find((await accounts.get(name)).id, path)).facts


async def grant(accounts: Accounts, user: str, where: str, level: Level, **how) -> None:
    await accounts.grants.set_user(await accounts.grants.on(where), user, level, **how)


@pytest.mark.parametrize("where", ["acme/app", "ada/tools"])
async def test_a_user_is_granted_a_level_on_a_repository_and_no_other(acme: Accounts, where: str):
    for level in (Level.READ, Level.ADMIN, Level.WRITE, Level.NONE, Level.NONE):
        await grant(acme, "bob", where, level)
        found = await facts(acme, "bob", where)
        assert (found.repository_level, found.namespace_level) == (level, Level.NONE)
        assert (await facts(acme, "cid", where)).level is Level.NONE
        assert (await facts(acme, "bob", "acme/lib")).level is Level.NONE


@pytest.mark.parametrize("namespace", ["acme", "ada"])
async def test_a_user_is_granted_a_level_on_a_whole_namespace(
    acme: Accounts, repositories: Repositories, namespace: str
):
    await grant(acme, "bob", namespace, Level.WRITE)
    await repositories.create(parse_repository_name(f"{namespace}/later"), Settings())
    for path in (f"{namespace}/later", f"{namespace}/not-there"):
        assert (await facts(acme, "bob", path)).namespace_level is Level.WRITE
    await grant(acme, "bob", namespace, Level.NONE)
    assert (await facts(acme, "bob", f"{namespace}/later")).level is Level.NONE


async def test_the_highest_of_the_grants_to_a_user_and_to_the_teams_wins(acme: Accounts):
    await grant_team(acme, "acme/app", "devs", Level.WRITE)
    for level, expected in ((Level.READ, Level.WRITE), (Level.ADMIN, Level.ADMIN), (Level.NONE, Level.WRITE)):
        await grant(acme, "ada", "acme/app", level)
        assert (await facts(acme, "ada", "acme/app")).level is expected
    await grant(acme, "ada", "acme", Level.ADMIN)
    assert (await facts(acme, "ada", "acme/app")).level is Level.ADMIN


async def test_a_robot_is_granted_what_its_own_organization_owns_and_nothing_else(acme: Accounts):
    for where in ("acme/app", "acme"):
        await grant(acme, "acme+ci", where, Level.WRITE)
        assert (await facts(acme, "acme+ci", "acme/app")).level is Level.WRITE
        with pytest.raises(NotGrantable, match="its own organization"):
            await grant(acme, "other+ci", where, Level.READ)
    for where in ("ada/tools", "ada", "other"):
        with pytest.raises(NotGrantable):
            await grant(acme, "acme+ci", where, Level.READ)


async def test_nothing_is_granted_to_whom_is_no_user_or_on_what_is_not_there(acme: Accounts):
    for user in ("nobody", "acme", "acme+", "acme+no", "", "a\0", "\ud800"):
        with pytest.raises(UserUnknown):
            await grant(acme, user, "acme/app", Level.READ)
    for where in ("acme/no", "nobody", "acme+ci", "", "/", "a\0/b", "\ud800", 4711):
        with pytest.raises(AccountUnknown):
            await acme.grants.on(where)


async def test_what_belongs_to_a_user_has_no_teams(acme: Accounts):
    for where in ("ada", "ada/tools"):
        place = await acme.grants.on(where)
        with pytest.raises(NotAnOrganization):
            await acme.grants.set_team(place, "devs", Level.READ)
        with pytest.raises(NotAnOrganization):
            await acme.grants.find_team(place, "devs")


async def test_a_team_is_known_by_its_name_or_id_and_one_of_elsewhere_told_apart(acme: Accounts):
    place = await acme.grants.on("acme/app")
    ids = {name: (await acme.organizations.get_team(name, "devs")).id for name in ("acme", "other")}
    ada, bob = (await acme.get("ada")).id, (await acme.get("bob")).id
    for team in ("devs", ids["acme"]):
        found = await acme.grants.find_team(place, team, ada)
        assert (found.id, found.name, found.has_asker) == (ids["acme"], "devs", True)
        assert not (await acme.grants.find_team(place, team, bob)).has_asker
        assert not (await acme.grants.find_team(place, team)).has_asker
    with pytest.raises(TeamElsewhere):
        await acme.grants.set_team(place, ids["other"], Level.READ)
    for team in ("ops", "", "\ud800"):
        with pytest.raises(TeamUnknown):
            await acme.grants.set_team(place, team, Level.READ)


async def test_lists_are_by_name_in_pages_from_an_inclusive_start(acme: Accounts):
    place = await acme.grants.on("acme/app")
    teams = [f"t{number}" for number in range(5)]
    for team in teams:
        await acme.organizations.create_team("acme", team)
        await acme.grants.set_team(place, team, Level.READ)
    await acme.organizations.put_team_member("acme", "t3", "bob")
    bob = (await acme.get("bob")).id
    page = await acme.grants.list_teams(place, asker=bob, start="t2", limit=2)
    assert [(team.name, team.has_asker, level) for team, level in page] == [
        ("t2", False, Level.READ),
        ("t3", True, Level.READ),
    ]
    assert [team.name for team, _ in await acme.grants.list_teams(place, limit=10)] == teams
    assert await acme.grants.count_teams(place) == 5
    assert await acme.grants.list_teams(await acme.grants.on("acme"), limit=10) == []
    for user, level in (("cid", Level.ADMIN), ("acme+ci", Level.READ), ("bob", Level.WRITE)):
        await grant(acme, user, "acme/app", level)
    users = [
        (account.name, account.kind, level) for account, level in await acme.grants.list_users(place, limit=9)
    ]
    assert users == [
        ("acme+ci", "robot", Level.READ),
        ("bob", "user", Level.WRITE),
        ("cid", "user", Level.ADMIN),
    ]
    assert [one.name for one, _ in await acme.grants.list_users(place, start="bob", limit=1)] == ["bob"]
    assert await acme.grants.count_users(place) == 3


async def test_the_repositories_of_a_team_are_listed_without_those_that_were_deleted(
    acme: Accounts, repositories: Repositories
):
    for path in ("acme/lib", "acme/app"):
        await grant_team(acme, path, "devs", Level.WRITE)
    place = await acme.grants.on("acme")
    team = await acme.grants.find_team(place, "devs")
    assert [path for _, path, _ in await acme.grants.list_of_team(team, limit=9)] == ["acme/app", "acme/lib"]
    assert [path for _, path, _ in await acme.grants.list_of_team(team, start="acme/b", limit=9)] == ["acme/lib"]
    await repositories.delete("acme/app")
    assert [path for _, path, _ in await acme.grants.list_of_team(team, limit=9)] == ["acme/lib"]
    assert await acme.grants.count_of_team(team) == 1


async def test_the_repositories_of_a_team_are_found_by_a_part_of_their_paths(acme: Accounts):
    for path in ("acme/lib", "acme/app"):
        await grant_team(acme, path, "devs", Level.WRITE)
    team = await acme.grants.find_team(await acme.grants.on("acme"), "devs")
    for part, found in (("LIB", ["acme/lib"]), ("e/", ["acme/app", "acme/lib"]), ("a_p", []), ("%", [])):
        listed = await acme.grants.list_of_team(team, contains=part, limit=9)
        assert [path for _, path, _ in listed] == found


async def test_what_one_was_granted_is_listed_the_whole_namespace_first(
    acme: Accounts, repositories: Repositories
):
    for where, level in (("acme/lib", Level.WRITE), ("acme", Level.READ), ("acme/app", Level.ADMIN)):
        await grant(acme, "acme+ci", where, level)
    robot = await acme.get("acme+ci")
    listed = [("acme", Level.READ), ("acme/app", Level.ADMIN), ("acme/lib", Level.WRITE)]
    assert await acme.grants.list_of_user(robot, limit=9) == listed
    assert await acme.grants.list_of_user(robot, start="acme/app", limit=1) == listed[1:2]
    await repositories.delete("acme/app")
    assert await acme.grants.list_of_user(robot, limit=9) == [listed[0], listed[2]]
    assert await acme.grants.count_of_user(robot) == 2


async def test_grants_go_with_the_user_the_robot_and_the_team(acme: Accounts, database: Database):
    for where in ("acme/app", "acme"):
        for user in ("bob", "acme+ci"):
            await grant(acme, user, where, Level.READ)
        await acme.grants.set_team(await acme.grants.on(where), "devs", Level.READ)
    await acme.delete("bob")
    await acme.robots.delete(await acme.get("acme"), "ci")
    await acme.organizations.delete_team("acme", "devs")
    for where in ("acme/app", "acme"):
        place = await acme.grants.on(where)
        assert await acme.grants.list_users(place, limit=9) == []
        assert await acme.grants.list_teams(place, limit=9) == []


async def test_every_change_is_an_event_and_what_changes_nothing_is_none(acme: Accounts, database: Database):
    for level in (Level.READ, Level.READ, Level.WRITE, Level.NONE, Level.NONE):
        await grant(acme, "bob", "acme/app", level, by=BOB)
        await grant_team(acme, "acme", "devs", level, by=BOB)
    told = [tuple(row) for row in await database.fetch_all(EVENTS)]
    expected = [("CREATE", "read-only"), ("UPDATE", "read-write"), ("DELETE", "read-write")]
    assert [row for row in told if row[4] == "account"] == [
        (kind, "bob", "acme/app", level, "account", "bob", "acme/app") for kind, level in expected
    ]
    assert [row for row in told if row[4] == "team"] == [
        (kind, "bob", "acme", level, "team", "acme/devs", "") for kind, level in expected
    ]


async def test_what_moved_to_another_owner_meanwhile_is_not_granted_to_the_old_ones(
    acme: Accounts, repositories: Repositories
):
    before: Place = await acme.grants.on("acme/app")
    await repositories.rename("acme/app", parse_repository_name("other/app"))
    for attempt in (
        acme.grants.set_team(before, "devs", Level.ADMIN),
        acme.grants.set_user(before, "acme+ci", Level.ADMIN),
    ):
        with pytest.raises(NotGrantable):
            await attempt
    assert (await facts(acme, "ada", "other/app")).level is Level.NONE


async def test_whoever_grants_and_removes_at_once_leaves_one_of_both(acme: Accounts):
    await acme.organizations.create_team("acme", "ops")
    for _ in range(5):
        await asyncio.gather(
            grant_team(acme, "acme/app", "devs", Level.ADMIN),
            grant_team(acme, "acme/app", "devs", Level.READ),
            grant_team(acme, "acme/app", "devs", Level.NONE),
        )
        assert (await facts(acme, "ada", "acme/app")).level in {Level.ADMIN, Level.READ, Level.NONE}
    results = await asyncio.gather(
        acme.organizations.delete_team("acme", "ops"),
        grant_team(acme, "acme", "ops", Level.READ),
        return_exceptions=True,
    )
    assert all(result is None or isinstance(result, TeamUnknown) for result in results)
    assert await acme.grants.list_teams(await acme.grants.on("acme"), limit=9) == []
