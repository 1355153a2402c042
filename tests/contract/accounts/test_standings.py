"""What the database knows of somebody and a repository agrees with the rule, on both databases."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert
from tests.support.grants import grant_team

from dtr.accounts import (
    Accounts,
    Action,
    Facts,
    Level,
    Operation,
    Passwords,
    Standing,
    TokenScope,
    may,
    token_id,
)
from dtr.db import Database, Statement, Transaction, now, open_database
from dtr.db.schema import blobs, repository_blobs
from dtr.oci import parse_repository_name
from dtr.registry import Repositories, Settings

BLOB = Statement(
    insert(blobs).values(
        digest=bindparam("digest"),
        size=1,
        location=bindparam("digest"),
        state=bindparam("state"),
        created_at=now(),
    )
)
LINK = Statement(
    insert(repository_blobs).values(repository_id=bindparam("repository"), digest=bindparam("digest"))
)


@dataclass
class World:
    """What was written into the database, kept in the simplest form."""

    users: dict[str, str] = field(default_factory=dict)
    """Ids by name."""
    admins: set[str] = field(default_factory=set)
    inactive: set[str] = field(default_factory=set)
    organizations: list[str] = field(default_factory=list)
    auditors: set[str] = field(default_factory=set)
    owners: set[tuple[str, str]] = field(default_factory=set)
    """Organisation and user."""
    members: set[tuple[str, str]] = field(default_factory=set)
    """The same; owners and those in teams are members, too."""
    teams: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """Members by organisation and team."""
    namespace_grants: dict[tuple[str, str], Level] = field(default_factory=dict)
    repository_grants: dict[tuple[str, str, str], Level] = field(default_factory=dict)
    """By organisation, team and path."""
    user_grants: dict[tuple[str, str], Level] = field(default_factory=dict)
    """By path or namespace, and user or robot."""
    repositories: dict[str, int] = field(default_factory=dict)
    public: set[str] = field(default_factory=set)

    def standing(self, user: str | None, path: str, scope: TokenScope | None = None) -> Standing:
        """What is to be found, by the words of the permission model."""
        found = self._standing(user, path)
        return found if scope is None else replace(found, facts=replace(found.facts, actions=scope.on(path)))

    def _standing(self, user: str | None, path: str) -> Standing:
        namespace = path.partition("/")[0]
        public = path in self.public and path in self.repositories
        if user is None or user in self.inactive:
            return Standing(self.repositories.get(path), Facts(is_public=public))
        exists = namespace in self.users or namespace in self.organizations
        mine = {team for team, members in self.teams.items() if user in members}
        facts = Facts(
            is_user=exists,
            is_system_admin=exists and user in self.admins,
            is_auditor=exists and user in self.auditors,
            is_member=(namespace, user) in self.members,
            owns_namespace=namespace == user or (namespace, user) in self.owners,
            namespace_level=max(
                self.user_grants.get((namespace, user), Level.NONE),
                *(level for team, level in self.namespace_grants.items() if team in mine and team[0] == namespace),
                Level.NONE,
            ),
            repository_level=max(
                self.user_grants.get((path, user), Level.NONE) if path in self.repositories else Level.NONE,
                *(
                    level
                    for (organization, team, granted), level in self.repository_grants.items()
                    if (organization, team) in mine and granted == path and path in self.repositories
                ),
                Level.NONE,
            ),
            is_public=public,
        )
        return Standing(self.repositories.get(path), facts)

    def visible(self, user: str | None, scope: TokenScope | None = None) -> list[str]:
        return self.those_that_allow(Operation.SEE, user, scope)

    def those_that_allow(self, operation: Operation, user: str | None, scope: TokenScope | None) -> list[str]:
        """The paths of the repositories where the rule allows it."""
        return sorted(path for path in self.repositories if may(self.standing(user, path, scope).facts, operation))


async def fill(seed: int, accounts: Accounts, repositories: Repositories) -> World:
    """Ten users, four organisations with robots, sixty repositories, and whatever chance puts between them."""
    chance = random.Random(seed)
    world = World()
    levels = [Level.READ, Level.WRITE, Level.ADMIN]
    for number in range(10):
        name = f"user{number}"
        world.users[name] = await accounts.create_user(name, None, is_admin=number == 0)
    world.admins = {"user0"}
    world.auditors = {"user6", "user8"}
    for auditor in world.auditors:
        await accounts.update(auditor, is_auditor=True)
    world.organizations = ["org", "org-2", "org.3", "other"]
    names = list(world.users)
    for organization in world.organizations:
        await accounts.create_organization(organization)
        for user in chance.sample(names, 3):
            is_admin = chance.random() < 0.4
            await accounts.organizations.put_member(organization, user, is_admin=is_admin)
            world.members.add((organization, user))
            if is_admin:
                world.owners.add((organization, user))
        for team in ("devs", "ops", "readers"):
            await accounts.organizations.create_team(organization, team)
            members = world.teams[organization, team] = set(chance.sample(names, 3))
            for user in members:
                await accounts.organizations.put_team_member(organization, team, user)
                world.members.add((organization, user))
            if chance.random() < 0.3:
                level = world.namespace_grants[organization, team] = chance.choice(levels)
                await grant_team(accounts, organization, team, level)
    for number in range(60):
        namespace = chance.choice([*world.organizations, *names[:5]])
        path = f"{namespace}/{chance.choice(['a', 'a/b', 'z', 'm-n'])}{number}"
        if chance.random() < 0.25:
            world.public.add(path)
        visibility = "public" if path in world.public else "private"
        made = await repositories.create(parse_repository_name(path), Settings(visibility=visibility))
        world.repositories[path] = made
        for team in ("devs", "ops", "readers"):
            if namespace in world.organizations and chance.random() < 0.25:
                level = world.repository_grants[namespace, team, path] = chance.choice(levels)
                await grant_team(accounts, path, team, level)
    places = [*world.organizations, "user1", "user2", *sorted(world.repositories)]
    grantees = [(user, place) for user in names for place in chance.sample(places, 4)]
    for organization in world.organizations:
        robot = (await accounts.robots.create(await accounts.get(organization), "ci")).account
        world.users[robot.name] = robot.id
        own = [place for place in places if place.partition("/")[0] == organization]
        grantees += [(robot.name, place) for place in chance.sample(own, min(3, len(own)))]
    for user, place in grantees:
        level = world.user_grants[place, user] = chance.choice(levels)
        await accounts.grants.set_user(await accounts.grants.on(place), user, level)
    for path in chance.sample(sorted(world.repositories), 5):
        await repositories.delete(path)
        del world.repositories[path]
    for user in ("user8", "user9"):
        await accounts.update(user, is_active=False)
    await accounts.update("user9", is_admin=True)
    world.inactive = {"user8", "user9"}
    world.admins.add("user9")
    return world


SCOPES = [
    None,
    TokenScope(("*",), frozenset({Action.PUSH, Action.ADMIN})),
    TokenScope(("org*", "user1/*", "other/a*"), frozenset({Action.PULL, Action.DELETE})),
]


@pytest.fixture(params=[1, 2])
async def world(request: pytest.FixtureRequest, accounts: Accounts, repositories: Repositories) -> World:
    return await fill(request.param, accounts, repositories)


async def test_what_is_found_is_what_the_model_says_for_everybody_and_every_repository(
    world: World, accounts: Accounts
):
    extra = ["org/missing", "user1/missing", "nobody/missing", "org", ""]
    paths = [*world.repositories, *world.public, *extra]
    for user in (None, *world.users):
        account = None if user is None else world.users[user]
        for scope in SCOPES:
            found = await accounts.standings.find_all(account, paths, scope=scope)
            assert found == {path: world.standing(user, path, scope) for path in paths}, user
    mine = world.users["user1"]
    assert await accounts.standings.find(mine, paths[0]) == world.standing("user1", paths[0])


async def list_visible(accounts: Accounts, account: str | None, **how) -> list[str]:
    return [path for _, path in await accounts.standings.list_visible(account, **how)]


async def test_the_list_of_the_visible_holds_exactly_what_may_be_seen(world: World, accounts: Accounts):
    for user, scope in itertools.product((None, *world.users), SCOPES):
        account = None if user is None else world.users[user]
        expected = world.visible(user, scope)
        assert await list_visible(accounts, account, scope=scope, limit=1000) == expected
        assert await accounts.standings.count_visible(account, scope=scope) == len(expected)
        if scope is not None:
            continue
        paged: list[str] = []
        while page := await list_visible(accounts, account, after=paged[-1] if paged else "", limit=7):
            assert len(page) == min(7, len(expected) - len(paged))
            paged += page
        assert paged == expected
    assert world.visible("user0") == world.visible("user6") == sorted(world.repositories)
    assert set(world.visible(None)) == world.public & world.repositories.keys()
    assert world.visible("user9") == world.visible(None)


async def test_a_holder_of_a_blob_is_found_exactly_when_one_may_be_pulled_from(
    world: World, accounts: Accounts, database: Database
):
    chance = random.Random(4)
    holders: dict[str, set[str]] = {}

    async def work(tx: Transaction) -> None:
        for number in range(20):
            digest = f"sha256:{number:064}"
            holders[digest] = set(chance.sample(sorted(world.repositories), chance.choice([0, 1, 1, 2, 3])))
            await tx.execute(BLOB, digest=digest, state="present")
            for path in holders[digest]:
                await tx.execute(LINK, repository=world.repositories[path], digest=digest)
        await tx.execute(BLOB, digest="sha256:missing", state="missing")
        for repository in world.repositories.values():
            await tx.execute(LINK, repository=repository, digest="sha256:missing")

    await database.unit(work)
    for user, scope in itertools.product((None, *world.users), SCOPES):
        account = None if user is None else world.users[user]
        pullable = set(world.those_that_allow(Operation.PULL, user, scope))
        for digest, paths in holders.items():
            holder = await accounts.standings.find_pullable_holder(account, digest, scope=scope)
            found = holder[0] if holder else None
            assert (found in paths & pullable) if paths & pullable else (found is None), (user, digest)
        assert await accounts.standings.find_pullable_holder(account, "sha256:missing") is None
        assert await accounts.standings.find_pullable_holder(account, "sha256:unknown") is None


async def test_who_has_no_account_is_anonymous(world: World, accounts: Accounts):
    anonymous = await accounts.standings.find_all(None, world.repositories)
    for account in ("", "no-such-id", "user0"):
        assert await accounts.standings.find_all(account, world.repositories) == anonymous
        assert await list_visible(accounts, account, limit=1000) == world.visible(None)


async def test_fifty_repositories_are_one_query_and_one_for_the_names_that_none_has(
    database: Database, accounts: Accounts, repositories: Repositories
):
    world = await fill(1, accounts, repositories)
    paths = [*sorted(world.repositories)[:40], *(f"nobody{n}/x" for n in range(10))]
    statements: list[str] = []
    database.observe = lambda kind, _: statements.append(kind)
    found = await accounts.standings.find_all(world.users["user1"], paths)
    assert statements == ["read"] * 2
    assert list(found) == paths
    statements.clear()
    await accounts.standings.find_all(world.users["user1"], paths[:40])
    assert statements == ["read"]


async def test_the_visible_and_their_holders_are_few_queries(
    database: Database, accounts: Accounts, repositories: Repositories
):
    world = await fill(1, accounts, repositories)
    statements: list[str] = []
    database.observe = lambda kind, _: statements.append(kind)
    await accounts.standings.list_visible(world.users["user1"], limit=50)
    await accounts.standings.find_pullable_holder(world.users["user1"], "sha256:x")
    assert statements == ["read"] * 3


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_standing_of_this_moment_is_found_whatever_another_process_changes(
    seed: int, database_url: str, accounts: Accounts, repositories: Repositories
):
    """The same question is asked again and again, as by pushes: what is remembered never outlives a change."""
    world = await fill(seed, accounts, repositories)
    chance = random.Random(seed)
    database = open_database(database_url)
    rival, their_repositories = Accounts(database, Passwords(memory_kib=8, passes=1)), Repositories(database)
    users, paths = [None, *sorted(world.users)], sorted(world.repositories)
    teams = sorted(world.teams)

    async def change() -> None:
        path, (organization, team), user = chance.choice(paths), chance.choice(teams), chance.choice(users[1:])
        level = chance.choice([Level.NONE, Level.READ, Level.WRITE, Level.ADMIN])
        match chance.randrange(8):
            case 0:
                await rival.grants.set_user(await rival.grants.on(path.partition("/")[0]), "user1", level)
            case 1:
                own = [path for path in paths if path.startswith(f"{organization}/")]
                await grant_team(rival, chance.choice(own), team, level)
            case 2:
                await grant_team(rival, organization, team, level)
            case 3 if user != "user0" and "+" not in user:
                await rival.update(user, is_active=chance.random() < 0.7, is_admin=chance.random() < 0.2)
            case 4 if "+" not in user:
                await rival.organizations.put_team_member(organization, team, user)
            case 5 if "+" not in user:
                await rival.organizations.remove_member(organization, user)
            case 6:
                visibility = chance.choice(["public", "private"])
                await their_repositories.update(path, visibility=visibility)
            case 7 if len(paths) > 30:
                paths.remove(path)
                await their_repositories.delete(path)

    changed = 0
    for _ in range(80):
        asked = [(chance.choice(users), chance.choice(paths)) for _ in range(6)]
        before = [await accounts.standings.find(user and world.users[user], path) for user, path in asked]
        await change()
        for (user, path), old in zip(asked, before, strict=True):
            account = user and world.users[user]
            found = await accounts.standings.find(account, path)
            assert found == (await accounts.standings.find_all(account, [path]))[path], (user, path)
            changed += found != old
    assert changed
    await database.close()


async def test_names_tokens_and_accounts_that_another_process_ends_are_gone_at_once(
    database_url: str, accounts: Accounts, repositories: Repositories
):
    """Each is asked for before, so that what is remembered is there to be wrong."""
    database = open_database(database_url)
    rival, theirs = Accounts(database, Passwords(memory_kib=8, passes=1)), Repositories(database)
    ada = await accounts.create_user("ada", None)
    await accounts.create_organization("org")
    robot = (await accounts.robots.create(await accounts.get("org"), "ci")).account
    first = await repositories.create(parse_repository_name("org/app"), Settings(visibility="private"))
    for name in ("ada", robot.name):
        await accounts.grants.set_user(await accounts.grants.on("org/app"), name, Level.WRITE)
    shown = token_id(await accounts.tokens.create("ada", "laptop"))
    child = token_id(await accounts.tokens.create("ada", "client", kind="refresh", parent=shown))

    async def found(path: str, account: str = ada, token: str = "") -> tuple[int | None, Level, bool]:
        standing = await accounts.standings.find(account, path, token=token)
        return standing.repository_id, standing.facts.level, standing.facts.is_user

    async def pushers() -> list[bool]:
        tokens = [(ada, ""), (ada, shown), (ada, child), (robot.id, "")]
        return [await found("org/app", *who) == (first, Level.WRITE, True) for who in tokens]

    assert await pushers() == [True] * 4
    await rival.tokens.update(shown, active=False)
    assert await pushers() == [True, False, False, True]
    await rival.tokens.update(shown, active=True)
    assert await pushers() == [True] * 4
    await rival.tokens.delete("ada", shown)
    assert await pushers() == [True, False, False, True]
    await rival.robots.delete(await rival.get("org"), "ci")
    assert await pushers() == [True, False, False, False]
    await rival.update("ada", is_active=False)
    assert await found("org/app") == (first, Level.NONE, False)
    await rival.update("ada", is_active=True)
    assert await pushers() == [True, False, False, False]

    assert (await found("org/new"))[0] is None
    await theirs.rename("org/app", parse_repository_name("org/new"))
    assert (await found("org/app"))[0] is None
    assert await found("org/new") == (first, Level.WRITE, True)
    second = await theirs.create(parse_repository_name("org/app"), Settings(visibility="public"))
    assert await found("org/app") == (second, Level.READ, True)
    await theirs.delete("org/app")
    await theirs.rename("org/new", parse_repository_name("org/app"))
    assert await found("org/app") == (first, Level.WRITE, True)
    assert (await found("org/new"))[0] is None
    await rival.delete("ada")
    assert await found("org/app") == (first, Level.NONE, False)
    await database.close()
