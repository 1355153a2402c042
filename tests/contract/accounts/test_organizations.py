"""Members and teams of organisations, on both databases."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from dtr.accounts import (
    Accounts,
    AccountUnknown,
    MemberQuery,
    MemberUnknown,
    Team,
    TeamNameInvalid,
    TeamNameTaken,
    TeamUnknown,
)
from dtr.db import Database, Statement
from dtr.db.schema import events
from dtr.events import Actor

EVE = Actor("user", "id-of-eve", "eve", "192.0.2.1")
EVENTS = Statement(
    select(
        events.c.type, events.c.object_type, events.c.object_name, events.c.object_content, events.c.target_name
    )
    .where(events.c.actor_name == "eve")
    .order_by(events.c.id)
)
NAMES = ("ada", "bob", "cher", "dora", "emil")


@pytest.fixture
async def org(accounts: Accounts) -> Accounts:
    """An organisation with five members, of whom two are owners, and three teams; and one with nobody."""
    await accounts.create_organization("org")
    await accounts.create_organization("empty")
    for name in NAMES:
        await accounts.create_user(name, None)
        await accounts.organizations.put_member("org", name, is_admin=name in {"ada", "bob"})
    for team in ("ops", "devs", "a.b"):
        await accounts.organizations.create_team("org", team)
    for name in ("ada", "cher", "dora"):
        await accounts.organizations.put_team_member("org", "devs", name, is_admin=name == "cher")
    return accounts


async def ids(accounts: Accounts, *names: str) -> list[str]:
    return sorted([(await accounts.get(name)).id for name in names])


async def test_members_are_listed_by_id_in_pages_and_filtered(org: Accounts):
    rooms = org.organizations
    for list_members, all_of_them, admins in (
        (lambda *which, **how: rooms.list_members("org", *which, **how), NAMES, ("ada", "bob")),
        (
            lambda *which, **how: rooms.list_team_members("org", "devs", *which, **how),
            ("ada", "cher", "dora"),
            ("cher",),
        ),
    ):
        others = tuple(set(all_of_them) - set(admins))
        for which, expected in (("all", all_of_them), ("admins", admins), ("non-admins", others)):
            wanted = await ids(org, *expected)
            found = await list_members(MemberQuery(filter=which), limit=10)
            assert [one.account.id for one in found] == wanted
            for place, start in enumerate(wanted):
                page = await list_members(MemberQuery(filter=which, start=start), limit=2)
                assert [one.account.id for one in page] == wanted[place : place + 2]
    assert await rooms.list_members("empty", limit=10) == []


async def test_members_are_listed_by_name_and_found_by_a_part_of_either_name(org: Accounts):
    rooms = org.organizations
    await org.update("cher", full_name="Cher Ângel_a")
    await org.organizations.put_member("empty", "cher", is_admin=True)
    for list_members, names in (
        (lambda *which, **how: rooms.list_members("org", *which, **how), list(NAMES)),
        (lambda *which, **how: rooms.list_team_members("org", "devs", *which, **how), ["ada", "cher", "dora"]),
        (lambda *which, **how: rooms.list_organizations("cher", *which, **how), ["empty", "org"]),
    ):
        found = await list_members(MemberQuery(order="name"), limit=10)
        assert [one.account.name for one in found] == names
        for place, start in enumerate(names):
            page = await list_members(MemberQuery(order="name", start=start), limit=2)
            assert [one.account.name for one in page] == names[place : place + 2]
    for part, names in (
        ("ÂNGEL", ["cher"]),
        ("a", ["ada", "cher", "dora"]),
        ("l_a", ["cher"]),
        ("l%a", []),
        ("R_", []),
    ):
        found = await rooms.list_members("org", MemberQuery(order="name", contains=part), limit=10)
        assert [one.account.name for one in found] == names
    found = await rooms.list_members("org", MemberQuery(filter="admins", contains="a"), limit=10)
    assert [one.account.name for one in found] == ["ada"]
    found = await rooms.list_organizations("cher", MemberQuery(filter="admins"), limit=10)
    assert [one.account.name for one in found] == ["empty"]


async def test_teams_of_many_members_are_one_question(org: Accounts, database: Database):
    await org.organizations.put_team_member("org", "ops", "cher")
    await org.organizations.create_team("empty", "devs")
    await org.organizations.put_team_member("empty", "devs", "ada")
    users = [(await org.get(name)).id for name in ("ada", "bob", "cher")]
    group = await org.get("org")
    seen: list[str] = []
    database.observe = lambda kind, _: seen.append(kind)
    found = await org.organizations.teams_of(group.id, users)
    assert seen == ["read"]
    assert [found[user] for user in users] == [
        [("devs", False)],
        [],
        [("devs", True), ("ops", False)],
    ]
    assert await org.organizations.teams_of(group.id, []) == {}


async def test_teams_are_found_by_a_part_of_their_names(org: Accounts):
    for part, names in (("S", ["devs", "ops"]), ("a.b", ["a.b"]), ("a_b", []), ("%", [])):
        found = await org.organizations.list_teams("org", contains=part, limit=10)
        assert [one.name for one in found] == names
    (second,) = await org.organizations.list_teams("org", contains="s", start="e", limit=10)
    assert (second.name, second.members) == ("ops", 0)


async def test_teams_are_listed_by_name_with_the_number_of_their_members(org: Accounts):
    found = await org.organizations.list_teams("org", limit=10)
    assert [(one.name, one.members) for one in found] == [("a.b", 0), ("devs", 3), ("ops", 0)]
    assert [one.name for one in await org.organizations.list_teams("org", start="devs", limit=1)] == ["devs"]
    assert await org.organizations.list_teams("org", start="z", limit=10) == []


async def test_what_a_user_is_in_is_listed_with_its_role(org: Accounts):
    await org.organizations.put_member("empty", "cher", is_admin=True)
    await org.organizations.put_team_member("org", "ops", "cher")
    found = await org.organizations.list_organizations("cher", limit=10)
    assert [one.account.id for one in found] == await ids(org, "org", "empty")
    assert {one.account.name: one.is_admin for one in found} == {"org": False, "empty": True}
    (second,) = await org.organizations.list_organizations(
        "cher", MemberQuery(start=found[1].account.id), limit=10
    )
    assert second == found[1]
    teams = await org.organizations.list_teams_of("org", "cher", limit=10)
    assert {team.name: is_admin for team, is_admin in teams} == {"devs": True, "ops": False}
    assert [team.id for team, _ in teams] == sorted(team.id for team, _ in teams)
    assert {team.name: team.members for team, _ in teams} == {"devs": 3, "ops": 1}
    assert await org.organizations.list_teams_of("org", "bob", limit=10) == []


async def test_sizes_of_many_organizations_are_one_question(org: Accounts, database: Database):
    listed = [await org.get(name) for name in ("org", "empty", "ada")]
    seen: list[str] = []
    database.observe = lambda kind, _: seen.append(kind)
    sizes = await org.organizations.sizes(listed)
    assert seen == ["read"]
    assert {one.name: (sizes[one.id].members, sizes[one.id].teams) for one in listed[:2]} == {
        "org": (5, 3),
        "empty": (0, 0),
    }
    assert listed[2].id not in sizes
    assert await org.organizations.sizes(listed[2:]) == {}


async def test_a_member_is_read_and_who_is_none_is_unknown(org: Accounts):
    member = await org.organizations.get_member("org", "ada")
    assert (member.account.name, member.is_admin) == ("ada", True)
    member = await org.organizations.get_team_member("org", "devs", "cher")
    assert (member.account.name, member.is_admin) == ("cher", True)
    for attempt in (
        org.organizations.get_member("empty", "ada"),
        org.organizations.get_team_member("org", "devs", "bob"),
    ):
        with pytest.raises(MemberUnknown):
            await attempt
    with pytest.raises(AccountUnknown):
        await org.organizations.get_member("org", "nobody")


async def test_ids_do_as_well_as_names(org: Accounts):
    organization, team = await org.get("org"), await org.organizations.get_team("org", "devs")
    assert await org.organizations.get_team(organization.id, team.id) == team
    assert await org.organizations.get_team("org", team.id) == team
    assert await org.organizations.get_team(organization.id, "devs") == team
    with pytest.raises(TeamUnknown):  # it is not one of that organisation
        await org.organizations.get_team("empty", team.id)


async def test_a_team_is_renamed_and_described_and_keeps_who_is_in_it(org: Accounts):
    before = await org.organizations.get_team("org", "devs")
    assert await org.organizations.update_team("org", "devs", by=EVE) == before
    after = await org.organizations.update_team("org", "devs", name="makers", description="Who make it")
    assert after == Team(before.id, before.organization_id, "makers", "Who make it", 3)
    assert await org.organizations.get_team("org", "makers") == after
    with pytest.raises(TeamUnknown):
        await org.organizations.get_team("org", "devs")
    with pytest.raises(TeamNameTaken):
        await org.organizations.update_team("org", "makers", name="ops")
    with pytest.raises(TeamNameInvalid):
        await org.organizations.update_team("org", "makers", name="Ops")
    assert await org.organizations.get_team("org", "makers") == after


async def test_of_two_teams_that_want_a_name_at_once_one_gets_it(org: Accounts):
    results = await asyncio.gather(
        org.organizations.update_team("org", "devs", name="new"),
        org.organizations.update_team("org", "ops", name="new"),
        return_exceptions=True,
    )
    assert [type(one) for one in results if isinstance(one, Exception)] == [TeamNameTaken]


async def test_what_two_change_of_a_team_at_once_is_both_changed(org: Accounts):
    devs = (await org.organizations.get_team("org", "devs")).id
    await asyncio.gather(
        org.organizations.update_team("org", devs, name="makers"),
        org.organizations.update_team("org", devs, description="Who make it"),
    )
    team = await org.organizations.get_team("org", devs)
    assert (team.name, team.description) == ("makers", "Who make it")


async def test_a_role_that_is_not_given_stays(org: Accounts):
    await org.organizations.put_member("org", "ada")
    await org.organizations.put_team_member("org", "devs", "cher")
    assert (await org.organizations.get_member("org", "ada")).is_admin is True
    assert (await org.organizations.get_team_member("org", "devs", "cher")).is_admin is True
    await org.organizations.put_member("org", "ada", is_admin=False)
    await org.organizations.put_team_member("org", "devs", "cher", is_admin=False)
    assert (await org.organizations.get_member("org", "ada")).is_admin is False
    assert (await org.organizations.get_team_member("org", "devs", "cher")).is_admin is False


async def test_what_ends_while_somebody_is_put_into_it_is_named(org: Accounts):
    for _ in range(5):
        await org.create_user("zed", None)
        results = await asyncio.gather(
            org.organizations.put_team_member("org", "devs", "zed"), org.delete("zed"), return_exceptions=True
        )
        assert results[1] is None
        assert results[0] is None or isinstance(results[0], AccountUnknown)
        await org.organizations.create_team("org", "brief")
        results = await asyncio.gather(
            org.organizations.put_team_member("org", "brief", "ada"),
            org.organizations.delete_team("org", "brief"),
            return_exceptions=True,
        )
        assert results[1] is None
        assert results[0] is None or isinstance(results[0], TeamUnknown)


async def test_every_change_is_written_down_once(org: Accounts, database: Database):
    rooms = org.organizations
    for _ in range(2):
        await rooms.put_member("empty", "ada", by=EVE)
    await rooms.put_member("empty", "ada", is_admin=True, by=EVE)
    await rooms.create_team("empty", "devs", description="d", by=EVE)
    for _ in range(2):
        await rooms.put_team_member("empty", "devs", "bob", is_admin=True, by=EVE)
    await rooms.put_team_member("empty", "devs", "bob", is_admin=False, by=EVE)
    await rooms.update_team("empty", "devs", name="makers", by=EVE)
    for _ in range(2):
        await rooms.remove_team_member("empty", "makers", "bob", by=EVE)
        await rooms.remove_member("empty", "bob", by=EVE)
    await rooms.delete_team("empty", "makers", by=EVE)
    assert [tuple(row) for row in await database.fetch_all(EVENTS)] == [
        ("CREATE", "member", "ada", '{"is_admin": false}', "empty"),
        ("UPDATE", "member", "ada", '{"is_admin": true}', "empty"),
        ("CREATE", "team", "empty/devs", "d", None),
        ("CREATE", "member", "bob", '{"is_admin": false}', "empty"),
        ("CREATE", "team_member", "bob", '{"is_admin": true}', "empty/devs"),
        ("UPDATE", "team_member", "bob", '{"is_admin": false}', "empty/devs"),
        ("UPDATE", "team", "empty/devs", "d", "empty/makers"),
        ("DELETE", "team_member", "bob", "", "empty/makers"),
        ("DELETE", "member", "bob", "", "empty"),
        ("DELETE", "team", "empty/makers", "d", None),
    ]


async def test_all_teams_of_a_user_are_listed_by_organization_and_team(accounts: Accounts):
    await accounts.create_user("ada", None)
    await accounts.create_user("bob", None)
    for organization, teams in {"zoo": ("apes", "bats"), "acme": ("ops", "devs")}.items():
        await accounts.create_organization(organization)
        for team in teams:
            await accounts.organizations.create_team(organization, team)
            await accounts.organizations.put_team_member(organization, team, "ada", is_admin=team == "ops")
    await accounts.organizations.put_team_member("zoo", "apes", "bob")
    expected = [("acme", "devs", False), ("acme", "ops", True), ("zoo", "apes", False), ("zoo", "bats", False)]

    async def told(start: str, limit: int) -> list[tuple[str, str, bool]]:
        found = await accounts.organizations.list_all_teams_of("ada", start=start, limit=limit)
        return [(organization, team.name, is_admin) for organization, team, is_admin in found]

    assert await told("", 10) == expected
    assert await told("acme/ops", 2) == expected[1:3]
    assert await told("acme/p", 10) == expected[2:]
    ((_, apes, _),) = await accounts.organizations.list_all_teams_of("bob", limit=10)
    assert apes.members == 2
    with pytest.raises(AccountUnknown):
        await accounts.organizations.list_all_teams_of("zoo", limit=10)
