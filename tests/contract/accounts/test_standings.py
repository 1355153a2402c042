"""What the database knows of somebody and a repository agrees with the rule, on both databases."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts import Accounts, Facts, Level, Operation, Standing, may
from dtr.db import Database, Statement, Transaction, now
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
    repositories: dict[str, int] = field(default_factory=dict)
    public: set[str] = field(default_factory=set)

    def standing(self, user: str | None, path: str) -> Standing:
        """What is to be found, by the words of the permission model."""
        namespace = path.partition("/")[0]
        public = path in self.public and path in self.repositories
        if user is None or user in self.inactive:
            return Standing(self.repositories.get(path), Facts(is_public=public))
        exists = namespace in self.users or namespace in self.organizations
        mine = {team for team, members in self.teams.items() if user in members}
        facts = Facts(
            is_user=exists,
            is_system_admin=exists and user in self.admins,
            owns_namespace=namespace == user or (namespace, user) in self.owners,
            namespace_level=max(
                (level for team, level in self.namespace_grants.items() if team in mine and team[0] == namespace),
                default=Level.NONE,
            ),
            repository_level=max(
                (
                    level
                    for (organization, team, granted), level in self.repository_grants.items()
                    if (organization, team) in mine and granted == path and path in self.repositories
                ),
                default=Level.NONE,
            ),
            is_public=public,
        )
        return Standing(self.repositories.get(path), facts)

    def visible(self, user: str | None) -> list[str]:
        return sorted(path for path in self.repositories if may(self.standing(user, path).facts, Operation.PULL))


async def fill(seed: int, accounts: Accounts, repositories: Repositories) -> World:
    """Ten users, four organisations, sixty repositories, and whatever chance puts between them."""
    chance = random.Random(seed)
    world = World()
    levels = [Level.READ, Level.WRITE, Level.ADMIN]
    for number in range(10):
        name = f"user{number}"
        world.users[name] = await accounts.create_user(name, None, is_admin=number == 0)
    world.admins = {"user0"}
    world.organizations = ["org", "org-2", "org.3", "other"]
    names = list(world.users)
    for organization in world.organizations:
        await accounts.create_organization(organization)
        for user in chance.sample(names, 3):
            is_admin = chance.random() < 0.4
            await accounts.organizations.put_member(organization, user, is_admin=is_admin)
            if is_admin:
                world.owners.add((organization, user))
        for team in ("devs", "ops", "readers"):
            await accounts.organizations.create_team(organization, team)
            members = world.teams[organization, team] = set(chance.sample(names, 3))
            for user in members:
                await accounts.organizations.put_team_member(organization, team, user)
            if chance.random() < 0.3:
                level = world.namespace_grants[organization, team] = chance.choice(levels)
                await accounts.grants.grant_team(organization, team, level)
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
                await accounts.grants.grant_team(namespace, team, level, repository=path)
    for path in chance.sample(sorted(world.repositories), 5):
        await repositories.delete(path)
        del world.repositories[path]
    for user in ("user8", "user9"):
        await accounts.update(user, is_active=False)
    await accounts.update("user9", is_admin=True)
    world.inactive = {"user8", "user9"}
    world.admins.add("user9")
    return world


@pytest.fixture(params=[1, 2, 3])
async def world(request: pytest.FixtureRequest, accounts: Accounts, repositories: Repositories) -> World:
    return await fill(request.param, accounts, repositories)


async def test_what_is_found_is_what_the_model_says_for_everybody_and_every_repository(
    world: World, accounts: Accounts
):
    extra = ["org/missing", "user1/missing", "nobody/missing", "org", ""]
    paths = [*world.repositories, *world.public, *extra]
    for user in (None, *world.users):
        account = None if user is None else world.users[user]
        found = await accounts.standings.find_all(account, paths)
        assert found == {path: world.standing(user, path) for path in paths}, user
    mine = world.users["user1"]
    assert await accounts.standings.find(mine, paths[0]) == world.standing("user1", paths[0])


async def list_visible(accounts: Accounts, account: str | None, **how) -> list[str]:
    return [path for _, path in await accounts.standings.list_visible(account, **how)]


async def test_the_list_of_the_visible_holds_exactly_what_may_be_pulled(world: World, accounts: Accounts):
    for user in (None, *world.users):
        account = None if user is None else world.users[user]
        expected = world.visible(user)
        assert await list_visible(accounts, account, limit=1000) == expected
        paged: list[str] = []
        while page := await list_visible(accounts, account, after=paged[-1] if paged else "", limit=7):
            assert len(page) == min(7, len(expected) - len(paged))
            paged += page
        assert paged == expected
    assert world.visible("user0") == sorted(world.repositories)
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
    for user in (None, *world.users):
        account = None if user is None else world.users[user]
        for digest, paths in holders.items():
            visible = paths & set(world.visible(user))
            found = await accounts.standings.find_pullable_holder(account, digest)
            assert (found in visible) if visible else (found is None), (user, digest)
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
