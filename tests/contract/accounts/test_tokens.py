"""Access tokens with a scope and an end, and what log-ins with them leave behind, on both databases."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import BigInteger, bindparam, select, update

from dtr.accounts import (
    AccessToken,
    Accounts,
    AccountUnknown,
    Action,
    BadCredentials,
    Facts,
    Login,
    Operation,
    TokenScope,
    TokenUnknown,
    TokenUnusable,
    may,
    token_id,
)
from dtr.db import Database, Statement, Transaction, now
from dtr.db.schema import events, tokens
from dtr.events import Actor
from dtr.oci import parse_repository_name
from dtr.registry import Repositories, Settings

HERE = "192.0.2.1"
BOB = Actor("user", "id-of-bob", "bob", "192.0.2.7")
PULL = TokenScope(("ada/tools", "acme/*"), frozenset({Action.PULL}))
FAR = 32_503_680_000_000
"""The year 3000."""
BOTH = ("access", "refresh")

EXPIRE = Statement(
    update(tokens)
    .where(tokens.c.id == bindparam("which"))
    .values(expires_at=now() + bindparam("left", type_=BigInteger))
)
USE = Statement(
    update(tokens)
    .where(tokens.c.label == bindparam("which"))
    .values(created_at=bindparam("made", type_=BigInteger), last_used_at=bindparam("used", type_=BigInteger))
)
TOLD = Statement(
    select(events.c.type, events.c.actor_name, events.c.object_name, events.c.object_content, events.c.target_name)
    .where(events.c.object_type == "token")
    .order_by(events.c.id)
)


@pytest.fixture
async def ada(accounts: Accounts, repositories: Repositories) -> Accounts:
    """Accounts with ada, who owns ada/tools and ada/secret, and bob."""
    for name in ("ada", "bob"):
        await accounts.create_user(name, None)
    for path in ("ada/tools", "ada/secret"):
        await repositories.create(parse_repository_name(path), Settings())
    return accounts


async def run(database: Database, statement: Statement, **parameters: object) -> None:
    async def work(tx: Transaction) -> None:
        await tx.execute(statement, **parameters)

    await database.unit(work)


async def child_of(accounts: Accounts, secret: str) -> str:
    """What a client keeps that logs in with an access token."""
    return await accounts.tokens.create("ada", "log-in", kind="refresh", parent=token_id(secret))


async def log_in(accounts: Accounts, secret: str) -> Login:
    kind = "access" if secret.startswith("dtra_") else "refresh"
    return await accounts.logins.authenticate_token(secret, kind, HERE)


async def opens(accounts: Accounts, *secrets: str) -> list[bool]:
    """Which of the secrets open an account, and whether rights of the moment agree."""
    found = []
    for secret in secrets:
        try:
            await log_in(accounts, secret)
        except BadCredentials:
            found.append(False)
        else:
            found.append(True)
        ada = (await accounts.get("ada")).id
        standing = await accounts.standings.find(ada, "ada/tools", token=token_id(secret))
        assert standing.facts == (Facts(is_user=True, owns_namespace=True) if found[-1] else Facts())
    return found


async def get(accounts: Accounts, secret: str) -> AccessToken:
    found = await accounts.tokens.find(token_id(secret))
    assert found is not None
    return found


# --- what they are good for -------------------------------------------------------------------------------------


async def test_a_token_is_kept_as_it_was_made(ada: Accounts):
    secret = await ada.tokens.create("ada", "ci ☃", scope=PULL, expires_at=FAR, user_agent="curl/8")
    found = await get(ada, secret)
    assert (found.id, found.account, found.account_id) == (token_id(secret), "ada", (await ada.get("ada")).id)
    assert (found.kind, found.label, found.is_active, found.last_used_at) == ("access", "ci ☃", True, None)
    assert (found.expires_at, found.user_agent, found.scope) == (FAR, "curl/8", PULL)
    plain = await get(ada, await ada.tokens.create("ada", ""))
    assert (plain.expires_at, plain.user_agent, plain.scope) == (None, "", None)


async def test_a_log_in_says_what_its_token_is_good_for_and_until_when(ada: Accounts):
    account = await ada.get("ada")
    for scope, expires_at in ((PULL, FAR), (None, None)):
        secret = await ada.tokens.create("ada", "ci", scope=scope, expires_at=expires_at)
        assert await log_in(ada, secret) == Login(account, "token", scope, token_id(secret), expires_at)
        child = await child_of(ada, secret)
        assert await log_in(ada, child) == Login(account, "token", scope, token_id(child), expires_at)


async def test_rights_are_those_in_both_the_account_and_the_scope(ada: Accounts):
    secret = await ada.tokens.create("ada", "ci", scope=PULL)
    for one in (secret, await child_of(ada, secret)):
        login = await log_in(ada, one)
        allowed = {
            path: [
                may((await ada.standings.find(login.account.id, path, scope=login.scope)).facts, operation)
                for operation in (Operation.PULL, Operation.PUSH, Operation.DELETE_REPOSITORY)
            ]
            for path in ("ada/tools", "ada/secret")
        }
        assert allowed == {"ada/tools": [True, False, False], "ada/secret": [False, False, False]}


async def test_a_token_has_an_end_in_the_future_and_a_label_of_a_bounded_size(ada: Accounts, database: Database):
    for expires_at in (0, -5, 1_000_000_000_000):
        with pytest.raises(TokenUnusable, match="in the future"):
            await ada.tokens.create("ada", "late", expires_at=expires_at)
    with pytest.raises(TokenUnusable, match="10000"):
        await ada.tokens.create("ada", "late", expires_at=253_402_300_800_000)
    for label in ("x" * 1001, "a\0b"):
        with pytest.raises(TokenUnusable, match="label"):
            await ada.tokens.create("ada", label)
        with pytest.raises(TokenUnusable, match="label"):
            await ada.tokens.update(token_id(await ada.tokens.create("ada", "")), label=label)


# --- how they end -----------------------------------------------------------------------------------------------


async def test_a_token_that_expired_opens_nothing_and_neither_do_its_children(ada: Accounts, database: Database):
    secret = await ada.tokens.create("ada", "ci", expires_at=FAR)
    child, other = await child_of(ada, secret), await ada.tokens.create("ada", "other")
    assert await opens(ada, secret, child, other) == [True, True, True]
    await run(database, EXPIRE, which=token_id(secret), left=-1)
    assert await opens(ada, secret, child, other) == [False, False, True]


async def test_a_token_that_is_switched_off_opens_nothing_until_it_is_on_again(ada: Accounts):
    secret = await ada.tokens.create("ada", "ci")
    child = await child_of(ada, secret)
    assert not (await ada.tokens.update(token_id(secret), active=False)).is_active
    assert await opens(ada, secret, child) == [False, False]
    assert (await ada.tokens.update(token_id(secret), active=True)).is_active
    assert await opens(ada, secret, child) == [True, True]
    await ada.tokens.update(token_id(child), active=False)
    assert await opens(ada, secret, child) == [True, False]


async def test_a_deleted_token_takes_its_children_with_it(ada: Accounts):
    secret, other = await ada.tokens.create("ada", "ci"), await ada.tokens.create("ada", "other")
    child, others = await child_of(ada, secret), await child_of(ada, other)
    assert await ada.tokens.delete("ada", token_id(secret))
    assert await opens(ada, secret, child, other, others) == [False, False, True, True]
    assert await ada.tokens.find(token_id(child)) is None
    with pytest.raises(AccountUnknown):  # its parent has ended meanwhile
        await child_of(ada, secret)


async def test_rights_end_with_the_account_whatever_token_is_shown(ada: Accounts):
    secret = await ada.tokens.create("ada", "ci")
    await ada.update("ada", is_active=False)
    account = (await ada.get("ada")).id
    assert (await ada.standings.find(account, "ada/tools", token=token_id(secret))).facts == Facts()


async def test_an_id_of_no_token_opens_nothing(ada: Accounts):
    account = (await ada.get("ada")).id
    assert (await ada.standings.find(account, "ada/tools", token="0" * 64)).facts == Facts()
    assert (await ada.standings.find(account, "ada/tools")).facts.owns_namespace


# --- renaming, lists --------------------------------------------------------------------------------------------


async def test_what_is_not_given_stays(ada: Accounts):
    secret = await ada.tokens.create("ada", "first", scope=PULL, expires_at=FAR)
    before = await get(ada, secret)
    renamed = await ada.tokens.update(before.id, label="second")
    assert (renamed.label, renamed.is_active, renamed.scope, renamed.expires_at) == ("second", True, PULL, FAR)
    await asyncio.gather(ada.tokens.update(before.id, active=False), ada.tokens.update(before.id))
    assert not (await get(ada, secret)).is_active
    assert (await get(ada, secret)).label == "second"
    with pytest.raises(TokenUnknown):
        await ada.tokens.update("0" * 64, label="x")
    assert await ada.tokens.find("no\0token") is None


async def test_lists_are_pages_by_id_of_one_account_or_of_all(ada: Accounts):
    mine = sorted([token_id(await ada.tokens.create("ada", str(number))) for number in range(5)])
    other = token_id(await ada.tokens.create("bob", "x"))
    refresh = token_id(await ada.tokens.create("ada", "log-in", kind="refresh"))
    assert [one.id for one in await ada.tokens.list_tokens("ada")] == mine
    assert [one.id for one in await ada.tokens.list_tokens("ada", start=mine[2], limit=2)] == mine[2:4]
    assert [one.id for one in await ada.tokens.list_tokens("ada", kinds=BOTH)] == sorted([*mine, refresh])
    assert [one.id for one in await ada.tokens.list_tokens(kinds=BOTH)] == sorted([*mine, refresh, other])
    assert await ada.tokens.count_tokens("ada") == 5
    assert await ada.tokens.count_tokens("ada", kinds=BOTH) == 6
    assert await ada.tokens.count_tokens(kinds=BOTH) == 7


async def test_those_that_were_not_used_for_long_are_deleted_together(ada: Accounts, database: Database):
    # label: owner, kind, made, used
    world = {
        "old": ("ada", "access", 10, 20),
        "new": ("ada", "access", 10, 99),
        "never": ("ada", "access", 10, None),
        "fresh": ("ada", "access", 99, None),
        "client": ("ada", "refresh", 10, 20),
        "bobs": ("bob", "access", 10, 20),
    }

    async def fill() -> None:
        await ada.tokens.delete_used_before(before=FAR)
        for label, (owner, kind, made, used) in world.items():
            await ada.tokens.create(owner, label, kind=kind)
            await run(database, USE, which=label, made=made, used=used)

    async def left() -> set[str]:
        return {one.label for one in await ada.tokens.list_tokens(kinds=BOTH)}

    await fill()
    assert await ada.tokens.delete_used_before("ada", kinds=("refresh",), before=50) == 1
    assert await left() == world.keys() - {"client"}
    await fill()
    assert await ada.tokens.delete_used_before("ada", before=50) == 3
    assert await left() == {"new", "fresh", "bobs"}
    await fill()
    assert await ada.tokens.delete_used_before(before=50) == 4
    assert await left() == {"new", "fresh"}
    assert await ada.tokens.delete_used_before(before=50) == 0


async def test_any_number_is_deleted_together(ada: Accounts, monkeypatch: pytest.MonkeyPatch):
    await asyncio.gather(*(ada.tokens.create("ada", "x") for _ in range(25)))
    monkeypatch.setattr("dtr.accounts.access_tokens._LOOKED_AT_ONCE", 10)
    assert await ada.tokens.delete_used_before("ada", before=FAR) == 25
    assert await ada.tokens.count_tokens("ada", kinds=BOTH) == 0


# --- events -----------------------------------------------------------------------------------------------------


async def test_every_change_is_an_event_without_the_secret(ada: Accounts, database: Database):
    secret = await ada.tokens.create("ada", "ci", scope=PULL, by=BOB)
    await child_of(ada, secret)
    for _ in range(2):  # the second time nothing changes
        await ada.tokens.update(token_id(secret), label="ci-2", active=False, by=BOB)
    await ada.tokens.delete("ada", token_id(secret), by=BOB)
    assert [tuple(row) for row in await database.fetch_all(TOLD)] == [
        ("CREATE", "bob", "ci", "", "ada"),
        ("UPDATE", "bob", "ci-2", "inactive", "ada"),
        ("DELETE", "bob", "ci-2", "", "ada"),
    ]
    everything = json.dumps([list(row) for row in await database.fetch_all(Statement(select(events)))])
    assert secret not in everything


async def test_the_newest_tokens_come_first_and_tell_from_where_they_were_used(accounts: Accounts):
    await accounts.create_user("ada", None)
    await accounts.create_user("bob", None)
    await accounts.tokens.create("bob", "not ada's")
    secrets = [await accounts.tokens.create("ada", f"token {number}") for number in range(5)]
    await accounts.tokens.create("ada", "a client", kind="refresh")
    expected = sorted(await accounts.tokens.list_tokens("ada"), key=lambda one: (-one.created_at, one.id))
    found = await accounts.tokens.list_newest("ada", limit=10)
    assert sorted(found, key=lambda one: (-one.created_at, one.id)) == expected
    assert [one.created_at for one in found] == [one.created_at for one in expected]
    for number in range(5):
        assert await accounts.tokens.list_newest("ada", start=found[number].marker, limit=10) == found[number:]
    assert await accounts.tokens.list_newest("ada", start="nothing", limit=2) == found[:2]
    assert [one.kind for one in await accounts.tokens.list_newest("ada", kinds=("refresh",), limit=2)] == [
        "refresh"
    ]
    assert [one.last_used_address for one in found] == [""] * 5
    await accounts.logins.authenticate("ada", secrets[0], "192.0.2.7")
    used = await accounts.tokens.find(token_id(secrets[0]))
    assert used is not None
    assert used.last_used_address == "192.0.2.7"
    assert used.last_used_at is not None
