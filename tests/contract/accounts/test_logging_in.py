"""Logging in: passwords, access tokens, refresh tokens, on both databases."""

from __future__ import annotations

import time

import argon2
import pytest
from sqlalchemy import BigInteger, bindparam, select, update

from dtr.accounts import Accounts, AccountUnknown, BadCredentials, Login, Passwords, TooManyAttempts
from dtr.db import Database, Statement, Transaction, now
from dtr.db.schema import accounts as accounts_table
from dtr.db.schema import tokens as tokens_table

HERE = "192.0.2.1"

HASHES = Statement(select(accounts_table.c.password_hash).where(accounts_table.c.name == "ada"))
TOKEN_IDS = Statement(select(tokens_table.c.id))
SWITCH_OFF = Statement(update(tokens_table).values(is_active=False))
EXPIRE = Statement(update(tokens_table).values(expires_at=now() + bindparam("left", type_=BigInteger)))
USED = Statement(select(tokens_table.c.last_used_at))


@pytest.fixture
async def ada(accounts: Accounts) -> Accounts:
    """Accounts among which is the user `ada` with the password `right`."""
    await accounts.create_user("ada", "right")
    return accounts


async def refused(accounts: Accounts, name: str, secret: str) -> None:
    with pytest.raises(BadCredentials) as caught:
        await accounts.logins.authenticate(name, secret, HERE)
    assert str(caught.value) == "the user name or the password is not right"


async def run(database: Database, statement: Statement, **parameters) -> None:
    async def work(tx: Transaction) -> None:
        await tx.execute(statement, **parameters)

    await database.unit(work)


# --- passwords ----------------------------------------------------------------------------------------------


async def test_the_right_password_opens_the_account(ada: Accounts):
    found = await ada.logins.authenticate("ada", "right", HERE)
    assert found == Login(await ada.get("ada"), "password")


async def test_wrong_names_and_passwords_are_refused_alike(ada: Accounts):
    await ada.create_organization("org")
    await ada.create_user("empty", None)
    wrong = (
        ("ada", "wrong"),
        ("ada", ""),
        ("ada", "Right"),
        ("ada", "right\0"),
        ("ada", "right "),
        ("Ada", "right"),
        ("", "right"),
        ("nobody", "right"),
        ("org", "right"),
        ("org", ""),
        ("empty", ""),
        ("empty", "None"),
        ("a\0", "right"),
        ("\ud800", "\ud800"),
    )
    for number, (name, secret) in enumerate(wrong):
        with pytest.raises(BadCredentials) as caught:
            await ada.logins.authenticate(name, secret, f"198.51.100.{number}")
        assert str(caught.value) == "the user name or the password is not right"


async def test_a_password_may_be_any_text(ada: Accounts):
    for password in ("ä☃", "\ud800", "with spaces ", "a\0b", "a:b", "x" * 1024, "dtra_looks-like-a-token"):
        await ada.set_password("ada", password)
        assert (await ada.logins.authenticate("ada", password, HERE)).account.name == "ada"


async def test_a_password_that_only_begins_like_the_right_one_is_wrong(ada: Accounts):
    await ada.set_password("ada", "x" * 1024)
    await refused(ada, "ada", "x" * 1025)
    await refused(ada, "ada", "x" * 1023)


async def test_a_deactivated_user_cannot_log_in_until_activated(ada: Accounts):
    await ada.update("ada", is_active=False)
    await refused(ada, "ada", "right")
    await ada.update("ada", is_active=True)
    assert (await ada.logins.authenticate("ada", "right", HERE)).account.name == "ada"


async def test_a_new_password_takes_the_place_of_the_old_one(ada: Accounts):
    await ada.set_password("ada", "new")
    await refused(ada, "ada", "right")
    assert (await ada.logins.authenticate("ada", "new", HERE)).account.name == "ada"


async def test_no_password_is_kept(ada: Accounts, database: Database):
    ((stored,),) = await database.fetch_all(HASHES)
    assert stored.startswith("$argon2id$")
    assert "right" not in stored


async def test_a_hash_of_another_cost_is_made_anew_at_the_next_log_in(ada: Accounts, database: Database):
    ((before,),) = await database.fetch_all(HASHES)
    dearer = Accounts(database, Passwords(memory_kib=16, passes=2))
    await ada.logins.authenticate("ada", "right", HERE)
    await refused(dearer, "ada", "wrong")
    ((still,),) = await database.fetch_all(HASHES)
    assert still == before
    await dearer.logins.authenticate("ada", "right", HERE)
    ((after,),) = await database.fetch_all(HASHES)
    assert after.startswith("$argon2id$v=19$m=16,t=2,p=1$")
    assert (await dearer.logins.authenticate("ada", "right", HERE)).account.name == "ada"


async def test_the_same_work_is_done_whether_or_not_there_is_such_a_user(
    ada: Accounts, monkeypatch: pytest.MonkeyPatch
):
    await ada.create_organization("org")
    await ada.create_user("empty", None)
    await ada.create_user("gone", "right")
    await ada.update("gone", is_active=False)
    await refused(ada, "nobody", "x")  # whatever is done once is done
    hashed: list[str] = []
    verify = argon2.PasswordHasher.verify

    def counted(self: argon2.PasswordHasher, stored: str | bytes, password: str | bytes) -> bool:
        hashed.append(str(stored).rsplit("$", 2)[0])
        return verify(self, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    monkeypatch.setattr(argon2.PasswordHasher, "hash", None)
    for name, secret in (
        ("ada", "wrong"),
        ("nobody", "wrong"),
        ("org", "wrong"),
        ("empty", "wrong"),
        ("gone", "wrong"),
        ("gone", "right"),
        ("ä", "wrong"),
        ("", "wrong"),
    ):
        hashed.clear()
        await refused(ada, name, secret)
        assert hashed == ["$argon2id$v=19$m=8,t=1,p=1"], name


# --- what is remembered of passwords --------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One entry for each hash that is computed to compare a password."""
    computed: list[bool] = []
    verify = argon2.PasswordHasher.verify

    def counted(self: argon2.PasswordHasher, stored: str | bytes, password: str | bytes) -> bool:
        computed.append(True)
        return verify(self, stored, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counted)
    return computed


async def test_a_right_password_is_hashed_once_a_minute(
    ada: Accounts, hashed: list[bool], monkeypatch: pytest.MonkeyPatch
):
    before = time.monotonic()
    for _ in range(5):
        assert (await ada.logins.authenticate("ada", "right", HERE)).account.name == "ada"
    assert len(hashed) == 1
    after = time.monotonic()
    monkeypatch.setattr("dtr.accounts.passwords.time.monotonic", lambda: before + 59)
    await ada.logins.authenticate("ada", "right", HERE)
    assert len(hashed) == 1
    monkeypatch.setattr("dtr.accounts.passwords.time.monotonic", lambda: after + 61)
    await ada.logins.authenticate("ada", "right", HERE)
    assert len(hashed) == 2


async def test_what_is_remembered_ends_at_once_with_password_and_account(ada: Accounts):
    await ada.logins.authenticate("ada", "right", HERE)
    await ada.update("ada", is_active=False)
    await refused(ada, "ada", "right")
    await ada.update("ada", is_active=True)
    await ada.logins.authenticate("ada", "right", HERE)
    await ada.set_password("ada", "new")
    await refused(ada, "ada", "right")
    await ada.logins.authenticate("ada", "new", HERE)
    await ada.set_password("ada", "right")  # with another salt, hence another hash
    await refused(ada, "ada", "new")
    await ada.delete("ada")
    await refused(ada, "ada", "right")


async def test_wrong_passwords_are_not_remembered_and_right_ones_only_for_their_user(
    ada: Accounts, hashed: list[bool]
):
    await ada.create_user("bob", "other")
    await ada.logins.authenticate("ada", "right", HERE)
    hashed.clear()
    for number in range(3):
        with pytest.raises(BadCredentials):
            await ada.logins.authenticate("ada", "wrong", f"198.51.100.{number}")
        with pytest.raises(BadCredentials):
            await ada.logins.authenticate("bob", "right", f"198.51.100.{number}")
    assert len(hashed) == 6


async def test_a_password_that_is_remembered_is_slowed_down_as_any_other(ada: Accounts):
    await ada.logins.authenticate("ada", "right", "198.51.100.1")
    for _ in range(6):
        with pytest.raises((BadCredentials, TooManyAttempts)):
            await ada.logins.authenticate("ada", "wrong", HERE)
    with pytest.raises(TooManyAttempts):
        await ada.logins.authenticate("ada", "right", HERE)


async def test_so_many_passwords_are_remembered_and_none_of_them_as_it_is(
    ada: Accounts, hashed: list[bool], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dtr.accounts.passwords._REMEMBERED", 3)
    for number in range(6):
        await ada.create_user(f"u{number}", f"secret-{number}")
        await ada.logins.authenticate(f"u{number}", f"secret-{number}", HERE)
    memory = ada._passwords._fits
    assert len(memory._until) == 3
    assert all(b"secret" not in code and len(code) == 32 for code in memory._until)
    hashed.clear()
    await ada.logins.authenticate("u5", "secret-5", HERE)
    assert len(hashed) == 0
    await ada.logins.authenticate("u0", "secret-0", HERE)
    assert len(hashed) == 1


# --- access tokens ------------------------------------------------------------------------------------------


async def test_an_access_token_works_where_the_password_does(ada: Accounts):
    secret = await ada.tokens.create("ada", "laptop")
    assert (await ada.logins.authenticate("ada", secret, HERE)).account.name == "ada"
    assert (await ada.logins.authenticate("ada", "right", HERE)).account.name == "ada"


async def test_an_access_token_opens_the_account_of_its_user_only(ada: Accounts):
    await ada.create_user("bob", "right")
    secret = await ada.tokens.create("ada", "laptop")
    for name in ("bob", "nobody", "", "Ada", "\ud800"):
        await refused(ada, name, secret)


async def test_a_secret_that_is_nearly_a_token_is_refused(ada: Accounts):
    secret = await ada.tokens.create("ada", "laptop")
    for wrong in (secret[:-1], secret + "=", secret.removeprefix("dtra_"), "dtra_", "dtra_" + "A" * 43):
        await refused(ada, "ada", wrong)


async def test_a_deactivated_user_has_no_use_of_tokens(ada: Accounts):
    access = await ada.tokens.create("ada", "laptop")
    refresh = await ada.tokens.create("ada", "log-in", kind="refresh")
    await ada.update("ada", is_active=False)
    await refused(ada, "ada", access)
    with pytest.raises(BadCredentials):
        await ada.logins.authenticate_token(refresh, "refresh", HERE)
    await ada.update("ada", is_active=True)
    assert (await ada.logins.authenticate("ada", access, HERE)).account.name == "ada"
    with pytest.raises(BadCredentials):  # it ended with the deactivation
        await ada.logins.authenticate_token(refresh, "refresh", HERE)


async def test_tokens_of_one_kind_are_of_no_use_as_the_other(ada: Accounts):
    access = await ada.tokens.create("ada", "laptop")
    refresh = await ada.tokens.create("ada", "log-in", kind="refresh")
    await refused(ada, "ada", refresh)
    for secret, kind in ((access, "refresh"), (refresh, "access")):
        with pytest.raises(BadCredentials):
            await ada.logins.authenticate_token(secret, kind, HERE)
    for secret, kind in ((access, "access"), (refresh, "refresh")):
        assert (await ada.logins.authenticate_token(secret, kind, HERE)).account.name == "ada"


async def test_a_password_change_ends_refresh_tokens_and_leaves_access_tokens(ada: Accounts):
    access = await ada.tokens.create("ada", "laptop")
    refresh = await ada.tokens.create("ada", "log-in", kind="refresh")
    await ada.create_user("bob", "right")
    other = await ada.tokens.create("bob", "log-in", kind="refresh")
    await ada.set_password("ada", "new")
    with pytest.raises(BadCredentials):
        await ada.logins.authenticate_token(refresh, "refresh", HERE)
    assert (await ada.logins.authenticate("ada", access, HERE)).account.name == "ada"
    assert (await ada.logins.authenticate_token(other, "refresh", HERE)).account.name == "bob"


async def test_a_token_that_is_switched_off_or_expired_opens_nothing(ada: Accounts, database: Database):
    secret = await ada.tokens.create("ada", "laptop")
    await run(database, EXPIRE, left=3_600_000)
    assert (await ada.logins.authenticate("ada", secret, HERE)).account.name == "ada"
    await run(database, EXPIRE, left=-1)
    await refused(ada, "ada", secret)
    secret = await ada.tokens.create("ada", "laptop")
    await run(database, SWITCH_OFF)
    await refused(ada, "ada", secret)


async def test_the_secret_of_a_token_is_not_kept_and_differs_each_time(ada: Accounts, database: Database):
    secrets = {await ada.tokens.create("ada", "laptop") for _ in range(5)}
    assert len(secrets) == 5
    for row in await database.fetch_all(TOKEN_IDS):
        assert all(row[0] not in secret and secret not in row[0] for secret in secrets)


async def test_the_list_of_tokens_shows_labels_and_use_and_no_refresh_tokens(ada: Accounts):
    used = await ada.tokens.create("ada", "used")
    await ada.tokens.create("ada", "unused")
    await ada.tokens.create("ada", "log-in", kind="refresh")
    await ada.logins.authenticate("ada", used, HERE)
    listed = {one.label: one for one in await ada.tokens.list_tokens("ada")}
    assert set(listed) == {"used", "unused"}
    assert listed["used"].is_active
    assert listed["used"].last_used_at is not None
    assert listed["used"].last_used_at >= listed["used"].created_at
    assert listed["unused"].last_used_at is None


async def test_the_use_of_a_token_is_noted_once_a_minute(ada: Accounts, database: Database):
    secret = await ada.tokens.create("ada", "laptop")
    await ada.logins.authenticate("ada", secret, HERE)
    writes: list[str] = []
    database.observe = lambda kind, _: writes.append(kind)
    await ada.logins.authenticate("ada", secret, HERE)
    assert writes == ["read"]


async def test_a_deleted_token_opens_nothing_and_is_deleted_once(ada: Accounts):
    secret = await ada.tokens.create("ada", "laptop")
    await ada.create_user("bob", None)
    (token,) = await ada.tokens.list_tokens("ada")
    assert not await ada.tokens.delete("bob", token.id)
    assert (await ada.logins.authenticate("ada", secret, HERE)).account.name == "ada"
    assert await ada.tokens.delete("ada", token.id)
    assert not await ada.tokens.delete("ada", token.id)
    await refused(ada, "ada", secret)


async def test_nobody_has_tokens_who_is_not_there(ada: Accounts):
    for attempt in (
        ada.tokens.create("nobody", "x"),
        ada.tokens.list_tokens("nobody"),
        ada.tokens.delete("nobody", "x"),
    ):
        with pytest.raises(AccountUnknown):
            await attempt
