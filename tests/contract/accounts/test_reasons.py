"""Who can do what on a repository, and why, is what `standings` answers of each, on both databases."""

from __future__ import annotations

import pytest
from tests.contract.accounts.test_standings import World, fill
from tests.support.grants import grant_team

from dtr.accounts import Account, Accounts, Level, Operation, Person, Place, Reason, may
from dtr.db import Database
from dtr.oci import parse_repository_name
from dtr.registry import Repositories, Settings

LEVELS = [None, Level.NONE, Level.READ, Level.WRITE, Level.ADMIN]
KINDS = ["team", "user", "robot"]


@pytest.fixture(params=[1, 2])
async def world(request: pytest.FixtureRequest, accounts: Accounts, repositories: Repositories) -> World:
    return await fill(request.param, accounts, repositories)


async def everybody(accounts: Accounts, place: Place, *, is_public: bool, size: int = 3) -> list[Person]:
    """All people, read in small pages."""
    found: list[Person] = []
    start = ""
    while True:
        page, count = await accounts.reasons.list_people(place, is_public=is_public, start=start, limit=size + 1)
        found += page[:size]
        if len(page) <= size:
            assert len(found) == count
            return found
        start = page[size].marker


async def test_those_who_are_listed_are_those_who_have_more_than_everybody_and_no_others(
    world: World, accounts: Accounts
):
    for path in sorted(world.repositories)[:20]:
        place, is_public = await accounts.grants.on(path), path in world.public
        listed = await everybody(accounts, place, is_public=is_public)
        for person in listed:
            standing = await accounts.standings.find(person.account.id, path)
            assert person.facts.granted == standing.facts.granted
            differs = [one for one in Operation if may(person.facts, one) != may(standing.facts, one)]
            # Membership alone is no access to a repository; it shows what was granted on the namespace.
            assert set(differs) <= {Operation.SEE_NAMESPACE_ACCESS}
        names = {person.account.name for person in listed}
        for name in world.users.keys() - names:
            facts = world.standing(name, path).facts
            assert facts.granted is Level.NONE
            assert not (facts.is_user and facts.is_auditor)
        assert len(names) == len(listed)


async def test_the_highest_levels_come_first_and_pages_leave_nobody_out(world: World, accounts: Accounts):
    path = max(world.repositories, key=lambda one: sum(place == one for place, _ in world.user_grants))
    place = await accounts.grants.on(path)
    listed = await everybody(accounts, place, is_public=False)
    assert (listed, len(listed)) == await accounts.reasons.list_people(place, is_public=False, limit=100)
    assert listed == sorted(listed, key=lambda one: (-one.facts.granted, one.account.name))
    assert all(one.reasons[0].level == max(reason.level for reason in one.reasons) for one in listed)


@pytest.mark.parametrize("level", LEVELS)
async def test_a_level_and_a_part_of_a_name_choose_among_all(
    world: World, accounts: Accounts, level: Level | None
):
    path = max(world.repositories, key=lambda one: sum(place == one for place, _ in world.user_grants))
    place = await accounts.grants.on(path)
    all_of_them, _ = await accounts.reasons.list_people(place, is_public=False, limit=100)
    wanted = [one for one in all_of_them if level in {None, one.facts.granted} and "r" in one.account.name]
    chosen = {"level": level, "contains": "R"}
    found = await accounts.reasons.list_people(place, is_public=False, limit=100, **chosen)
    assert found == (wanted, len(wanted))
    page, count = await accounts.reasons.list_people(place, is_public=False, start="0/~", limit=9, **chosen)
    assert (page, count) == ([], len(wanted)), "how many there are is known behind the last one, too"


async def test_without_the_system_those_are_left_who_were_given_something_here(world: World, accounts: Accounts):
    path = min(world.repositories)
    place = await accounts.grants.on(path)
    listed, count = await accounts.reasons.list_people(place, is_public=False, system=False, limit=100)
    assert count == len(listed)
    assert not [one for one in listed for reason in one.reasons if reason.on == "registry"]
    everyone, _ = await accounts.reasons.list_people(place, is_public=False, limit=100)
    assert {one.account.name for one in everyone} - {one.account.name for one in listed} <= world.admins | {
        "user6",
        "user8",
    }


async def make(accounts: Accounts, repositories: Repositories) -> tuple[Place, Account]:
    """A repository on which one user has every reason that there is; another one has none."""
    await accounts.create_organization("acme")
    await accounts.create_user("ada", None, is_admin=True, is_auditor=True, full_name="Ada Lovelace")
    await accounts.create_user("bob", None)
    await accounts.organizations.put_member("acme", "ada", is_admin=True)
    for team in ("devs", "ops"):
        await accounts.organizations.create_team("acme", team, description=f"the {team}")
        await accounts.organizations.put_team_member("acme", team, "ada")
    await repositories.create(parse_repository_name("acme/app"), Settings())
    await grant_team(accounts, "acme", "devs", Level.WRITE)
    await grant_team(accounts, "acme/app", "devs", Level.READ)
    await grant_team(accounts, "acme/app", "ops", Level.WRITE)
    place = await accounts.grants.on("acme/app")
    await accounts.grants.set_user(place, "ada", Level.READ)
    await accounts.grants.set_user(await accounts.grants.on("acme"), "ada", Level.ADMIN)
    return place, await accounts.get("ada")


async def test_all_reasons_of_one_account_are_told_the_strongest_first(
    accounts: Accounts, repositories: Repositories
):
    place, ada = await make(accounts, repositories)
    person = await accounts.reasons.explain(place, ada, is_public=False)
    assert person.reasons == (
        Reason("administrator", Level.ADMIN, "registry"),
        Reason("owner", Level.ADMIN, "namespace"),
        Reason("user", Level.ADMIN, "namespace"),
        Reason("team", Level.WRITE, "repository", "ops"),
        Reason("team", Level.WRITE, "namespace", "devs"),
        Reason("user", Level.READ, "repository"),
        Reason("team", Level.READ, "repository", "devs"),
        Reason("auditor", Level.NONE, "registry"),
    )
    bob = await accounts.get("bob")
    assert (await accounts.reasons.explain(place, bob, is_public=False)).reasons == ()
    assert (await accounts.reasons.explain(place, bob, is_public=True)).facts.level is Level.READ


async def test_who_is_not_active_has_no_reason(accounts: Accounts, repositories: Repositories):
    place, _ = await make(accounts, repositories)
    await accounts.create_user("eve", None, is_admin=True)
    gone = await accounts.update("ada", is_active=False)
    people, count = await accounts.reasons.list_people(place, is_public=False, limit=9)
    assert ([one.account.name for one in people], count) == (["eve"], 1)
    assert (await accounts.reasons.explain(place, gone, is_public=True)).reasons == ()
    assert not may((await accounts.reasons.explain(place, gone, is_public=False)).facts, Operation.SEE)
    numbers = await accounts.reasons.numbers(place)
    assert (numbers.administrators, numbers.auditors, numbers.owners) == (1, 0, 0)


async def test_owners_administrators_and_auditors_are_counted(accounts: Accounts, repositories: Repositories):
    place, _ = await make(accounts, repositories)
    numbers = await accounts.reasons.numbers(place)
    assert (numbers.administrators, numbers.auditors, numbers.owners) == (1, 1, 1)


async def test_grants_to_teams_come_first_and_what_is_granted_here_before_what_is_on_everything(
    accounts: Accounts, repositories: Repositories
):
    place, _ = await make(accounts, repositories)
    robot = await accounts.robots.create(await accounts.get("acme"), "ci", description="builds")
    await accounts.grants.set_user(place, robot.account.name, Level.WRITE)
    await accounts.update("bob", is_active=False)
    await accounts.grants.set_user(place, "bob", Level.READ)
    listed = await accounts.reasons.list_grants(place, limit=100)
    assert [(one.kind, one.name, one.level, one.on, one.is_active, one.members) for one in listed] == [
        ("team", "devs", Level.READ, "repository", True, 1),
        ("team", "devs", Level.WRITE, "namespace", True, 1),
        ("team", "ops", Level.WRITE, "repository", True, 1),
        ("user", "ada", Level.READ, "repository", True, 0),
        ("user", "ada", Level.ADMIN, "namespace", True, 0),
        ("user", "bob", Level.READ, "repository", False, 0),
        ("robot", "acme+ci", Level.WRITE, "repository", True, 0),
    ]
    assert listed[0].full_name == "the devs"
    assert await accounts.reasons.count_grants(place) == len(listed)
    for start, one in enumerate(listed):
        assert await accounts.reasons.list_grants(place, start=one.marker, limit=2) == listed[start : start + 2]
    found = await accounts.reasons.list_grants(place, contains="LOVE", limit=9)
    assert [one.name for one in found] == ["ada", "ada"]
    assert await accounts.reasons.count_grants(place, contains="LOVE") == 2


@pytest.mark.parametrize("start", ["", "/", "9/x/y", "é", "1/a%_\\/1", "\0"])
async def test_any_text_is_a_place_to_start(
    accounts: Accounts, repositories: Repositories, database: Database, start: str
):
    place, _ = await make(accounts, repositories)
    assert database
    people, count = await accounts.reasons.list_people(place, is_public=False, start=start, limit=9)
    assert (len(people) <= 1, count) == (True, 1)
    assert len(await accounts.reasons.list_grants(place, start=start, limit=9)) <= 5
