"""Robots of organisations, on both databases."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from dtr.accounts import (
    Account,
    AccountNameInvalid,
    Accounts,
    AccountUnknown,
    Action,
    BadCredentials,
    Level,
    NameTaken,
    NotAnOrganization,
    Operation,
    RobotUnknown,
    TokenScope,
    may,
    token_id,
)
from dtr.db import Database, Statement
from dtr.db.schema import events, tokens
from dtr.events import Actor
from dtr.oci import parse_repository_name
from dtr.registry import Repositories, Settings

HERE = "192.0.2.1"
BOB = Actor("user", "id-of-bob", "bob", "192.0.2.7")
TOLD = Statement(
    select(events.c.type, events.c.actor_name, events.c.object_name, events.c.object_content)
    .where(events.c.object_type == "account", events.c.actor_name == "bob")
    .order_by(events.c.id)
)
TOKENS = Statement(select(tokens.c.id))


@pytest.fixture
async def acme(accounts: Accounts, repositories: Repositories) -> Account:
    """An organisation with the repositories acme/app and acme/lib, and the robot ci."""
    await accounts.create_organization("acme")
    await accounts.create_organization("other")
    await accounts.create_user("ada", None)
    for path, visibility in (("acme/app", "private"), ("acme/lib", "private"), ("other/public", "public")):
        await repositories.create(parse_repository_name(path), Settings(visibility=visibility))
    found = await accounts.get("acme")
    await accounts.robots.create(found, "ci", description="Builds")
    return found


async def test_a_robot_is_found_as_it_was_made(accounts: Accounts, acme: Account):
    robot = await accounts.robots.get(acme, "ci")
    assert (robot.account.name, robot.short_name, robot.account.full_name) == ("acme+ci", "ci", "Builds")
    assert (robot.account.kind, robot.account.organization_id) == ("robot", acme.id)
    assert (robot.account.is_active, robot.account.is_admin, robot.account.is_auditor) == (True, False, False)
    assert robot.account == await accounts.get("acme+ci")
    assert robot.created_at > 1_500_000_000_000


async def test_a_robot_has_its_name_once_in_its_organization(accounts: Accounts, acme: Account):
    with pytest.raises(NameTaken):
        await accounts.robots.create(acme, "ci")
    other = await accounts.robots.create(await accounts.get("other"), "ci")
    assert other.account.name == "other+ci"


async def test_no_user_has_the_name_of_a_robot_and_no_robot_a_bad_one(accounts: Accounts, acme: Account):
    with pytest.raises(AccountNameInvalid):
        await accounts.create_user("acme+ci2", None)
    for name in ("", "CI", "a+b", "a/b", "a b", "\ud800", "a\0"):
        with pytest.raises(AccountNameInvalid):
            await accounts.robots.create(acme, name)
    with pytest.raises(AccountNameInvalid, match="description"):
        await accounts.robots.create(acme, "ci2", description="x" * 1001)


async def test_users_have_no_robots(accounts: Accounts, acme: Account):
    ada = await accounts.get("ada")
    for attempt in (
        accounts.robots.create(ada, "ci"),
        accounts.robots.get(ada, "ci"),
        accounts.robots.list_robots(ada, limit=9),
        accounts.robots.update(ada, "ci", is_active=False),
        accounts.robots.delete(ada, "ci"),
    ):
        with pytest.raises(NotAnOrganization):
            await attempt


async def test_robots_are_listed_by_name_in_pages(accounts: Accounts, acme: Account):
    for name in ("a", "z-1", "z"):
        await accounts.robots.create(acme, name)
    await accounts.robots.create(await accounts.get("other"), "b")
    listed = [one.short_name for one in await accounts.robots.list_robots(acme, limit=9)]
    assert listed == ["a", "ci", "z", "z-1"]
    assert [one.short_name for one in await accounts.robots.list_robots(acme, start="ci", limit=2)] == listed[1:3]
    assert await accounts.robots.count_robots(acme) == 4


async def test_what_is_not_there_is_told(accounts: Accounts, acme: Account):
    for name in ("no", "", "\ud800", "a\0"):
        for attempt in (
            accounts.robots.get(acme, name),
            accounts.robots.update(acme, name, is_active=False),
            accounts.robots.delete(acme, name),
        ):
            with pytest.raises(RobotUnknown):
                await attempt


# --- logging in, rights -----------------------------------------------------------------------------------------


async def test_a_robot_logs_in_with_a_token_and_with_nothing_else(accounts: Accounts, acme: Account):
    secret = await accounts.tokens.create("acme+ci", "build")
    login = await accounts.logins.authenticate("acme+ci", secret, HERE)
    assert login.account == (await accounts.robots.get(acme, "ci")).account
    for name, wrong in (("acme+ci", ""), ("acme+ci", "x"), ("ci", secret), ("acme", secret), ("ada", secret)):
        with pytest.raises(BadCredentials):
            await accounts.logins.authenticate(name, wrong, HERE)
    with pytest.raises(AccountUnknown):
        await accounts.set_password("acme+ci", "a good password")


async def test_whatever_a_robot_shows_is_good_for_its_organizations_repositories_only(
    accounts: Accounts, acme: Account
):
    narrow = TokenScope(("acme/app",), frozenset({Action.PULL}))
    whole = TokenScope(("acme/*",), frozenset(Action))
    for scope, expected in ((None, whole), (narrow, narrow)):
        secret = await accounts.tokens.create("acme+ci", "build", scope=scope)
        assert (await accounts.logins.authenticate_token(secret, "access", HERE)).scope == expected
        child = await accounts.tokens.create("acme+ci", "log-in", kind="refresh", parent=token_id(secret))
        assert (await accounts.logins.authenticate_token(child, "refresh", HERE)).scope == expected


async def rights(accounts: Accounts, path: str) -> set[Operation]:
    """What the robot may do who shows a token without a scope."""
    secret = await accounts.tokens.create("acme+ci", "build")
    login = await accounts.logins.authenticate_token(secret, "access", HERE)
    standing = await accounts.standings.find(login.account.id, path, scope=login.scope, token=login.token)
    return {operation for operation in Operation if may(standing.facts, operation)}


async def test_a_robot_has_what_it_was_granted_and_what_everybody_has(accounts: Accounts, acme: Account):
    assert await rights(accounts, "acme/app") == set()
    assert await rights(accounts, "acme/") == set()
    assert Operation.PULL in await rights(accounts, "other/public")
    app = await accounts.grants.on("acme/app")
    await accounts.grants.set_user(app, "acme+ci", Level.WRITE)
    assert {Operation.PULL, Operation.PUSH} <= await rights(accounts, "acme/app")
    assert await rights(accounts, "acme/lib") == set()
    await accounts.grants.set_user(app, "acme+ci", Level.NONE)
    assert await rights(accounts, "acme/app") == set()


async def test_a_robot_manages_nothing_but_what_it_was_granted(accounts: Accounts, acme: Account):
    await accounts.grants.set_user(await accounts.grants.on("acme"), "acme+ci", Level.ADMIN)
    assert Operation.CREATE_REPOSITORY in await rights(accounts, "acme/")
    for where in ("acme/app", "acme/"):
        assert not await rights(accounts, where) & {
            Operation.MANAGE_ORGANIZATION,
            Operation.MANAGE_OWN_TOKENS,
            Operation.MANAGE_OWN_SETTINGS,
            Operation.SEE_ACCOUNTS,
            Operation.CHECK_REMOTE_REGISTRY,
            Operation.ADMINISTER,
        }


async def test_the_name_of_a_robot_is_no_namespace(accounts: Accounts, acme: Account):
    assert await rights(accounts, "acme+ci/") == set()
    assert await rights(accounts, "acme+ci/app") == set()


# --- switching off, end -----------------------------------------------------------------------------------------


async def test_a_robot_that_is_switched_off_is_nobody_until_it_is_on_again(accounts: Accounts, acme: Account):
    await accounts.grants.set_user(await accounts.grants.on("acme"), "acme+ci", Level.READ)
    secret = await accounts.tokens.create("acme+ci", "build")
    robot = await accounts.robots.update(acme, "ci", is_active=False)
    assert (robot.account.is_active, robot.account.full_name) == (False, "Builds")
    with pytest.raises(BadCredentials):
        await accounts.logins.authenticate("acme+ci", secret, HERE)
    assert not (await accounts.standings.find(robot.account.id, "acme/app")).facts.is_user
    await accounts.robots.update(acme, "ci", is_active=True, description="Builds again")
    assert (await accounts.logins.authenticate("acme+ci", secret, HERE)).account.full_name == "Builds again"


async def test_a_robot_goes_with_its_tokens_and_with_its_organization(
    accounts: Accounts, acme: Account, database: Database, repositories: Repositories
):
    await accounts.robots.create(acme, "other")
    await accounts.tokens.create("acme+ci", "build")
    await accounts.robots.delete(acme, "ci")
    assert await accounts.find("acme+ci") is None
    assert await database.fetch_all(TOKENS) == []
    await accounts.tokens.create("acme+other", "build")
    for path in ("acme/app", "acme/lib"):
        await repositories.delete(path)
    await accounts.delete("acme")
    assert await accounts.find("acme+other") is None
    assert await database.fetch_all(TOKENS) == []
    with pytest.raises(AccountUnknown):
        await accounts.robots.create(acme, "late")


async def test_every_change_is_an_event(accounts: Accounts, acme: Account, database: Database):
    await accounts.robots.create(acme, "two", description="Two", by=BOB)
    await accounts.robots.update(acme, "two", is_active=False, description="Two", by=BOB)
    await accounts.robots.update(acme, "two", is_active=False, by=BOB)
    await accounts.robots.delete(acme, "two", by=BOB)
    told = [(*row[:3], json.loads(row[3] or "{}")) for row in await database.fetch_all(TOLD)]
    assert told == [
        ("CREATE", "bob", "acme+two", {"kind": "robot", "full_name": "Two"}),
        ("UPDATE", "bob", "acme+two", {"is_active": False}),
        ("DELETE", "bob", "acme+two", {}),
    ]
