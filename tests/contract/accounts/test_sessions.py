"""Sessions, on both databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import BigInteger, bindparam, select, update

from dtr.accounts import (
    Accounts,
    AccountUnknown,
    BadCredentials,
    Login,
    Passwords,
    SessionRules,
    SessionUnknown,
    csrf_token,
    token_id,
)
from dtr.db import Database, DatabaseFull, Statement, Transaction
from dtr.db.schema import accounts as accounts_table
from dtr.db.schema import events, sessions
from dtr.events import Actor

HERE = "192.0.2.1"
MINUTE = 60_000

_earlier = bindparam("milliseconds", type_=BigInteger)
SHIFT = Statement(
    update(sessions).values(
        created_at=sessions.c.created_at - _earlier,
        last_used_at=sessions.c.last_used_at - _earlier,
        expires_at=sessions.c.expires_at - _earlier,
    )
)
EARLIER = Statement(update(accounts_table).values(last_login_at=accounts_table.c.last_login_at - 2 * MINUTE))
ROWS = Statement(select(sessions.c.id, sessions.c.address, sessions.c.user_agent))
EVENTS = Statement(
    select(events.c.type, events.c.actor_name, events.c.address)
    .where(events.c.object_type == "session")
    .order_by(events.c.id)
)


class Room:
    """Accounts with the user ada, rules that a test may change, and time that goes by."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.rules = SessionRules()
        self.accounts = Accounts(database, Passwords(memory_kib=8, passes=1), lambda: self.rules)
        self.sessions = self.accounts.sessions

    async def login(self, password: str = "right") -> Login:
        return await self.accounts.logins.authenticate_password("ada", password, HERE)

    async def open(self) -> str:
        return await self.sessions.create(await self.login(), HERE, user_agent="Tester/1.0")

    async def is_open(self, secret: str) -> bool:
        try:
            found = await self.sessions.find(secret)
        except SessionUnknown:
            return False
        assert (found.account.name, found.means) == ("ada", "session")
        return True

    async def later(self, minutes: float) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(SHIFT, milliseconds=int(minutes * MINUTE))

        await self.database.unit(work)


@pytest.fixture
async def room(database: Database) -> Room:
    made = Room(database)
    await made.accounts.create_user("ada", "right")
    return made


async def test_a_session_is_found_by_its_secret_which_is_not_kept(room: Room):
    secret = await room.open()
    assert await room.is_open(secret)
    for wrong in (secret[:-1], secret + "x", "", "\ud800", "a\0"):
        assert not await room.is_open(wrong)
    ((stored, address, user_agent),) = await room.database.fetch_all(ROWS)
    assert stored not in secret
    assert secret not in stored
    assert (address, user_agent) == (HERE, "Tester/1.0")
    assert len({await room.open() for _ in range(5)}) == 5


async def test_the_token_against_forged_requests_follows_from_the_secret_and_does_not_tell_it(room: Room):
    first, second = await room.open(), await room.open()
    assert csrf_token(first) == csrf_token(first)
    assert csrf_token(first) != csrf_token(second)
    ((stored, *_), *_) = await room.database.fetch_all(ROWS)
    assert stored not in {csrf_token(first), csrf_token(second)}


async def test_a_session_that_is_used_in_its_last_minutes_lives_on_for_its_whole_life(room: Room):
    secret = await room.open()
    await room.later(39)
    assert await room.is_open(secret)
    await room.later(20)
    assert await room.is_open(secret)
    await room.later(59)
    assert await room.is_open(secret)
    await room.later(61)
    assert not await room.is_open(secret)


async def test_without_renewal_use_does_not_prolong_a_session(room: Room):
    room.rules = SessionRules(lifetime=10 * MINUTE, renewal=0)
    secret = await room.open()
    await room.later(9)
    assert await room.is_open(secret)
    await room.later(1.1)
    assert not await room.is_open(secret)


async def test_use_writes_at_most_once_a_minute(room: Room):
    secret = await room.open()
    seen: list[str] = []
    room.database.observe = lambda kind, _: seen.append(kind)
    for _ in range(3):
        assert await room.is_open(secret)
    assert seen == ["read"] * 3
    await room.later(1.1)
    seen.clear()
    for _ in range(3):
        assert await room.is_open(secret)
    assert sorted(seen) == ["read", "read", "read", "write"]


@pytest.mark.parametrize("limit", [1, 3])
async def test_the_least_recently_used_of_too_many_sessions_ends(room: Room, limit: int):
    room.rules = SessionRules(per_user=limit)
    opened = []
    for _ in range(limit):
        opened.append(await room.open())
        await room.later(2)
    assert await room.is_open(opened[0])
    opened.append(await room.open())
    expected = [False, True] if limit == 1 else [True, False, True, True]
    assert [await room.is_open(one) for one in opened] == expected


async def test_many_log_ins_at_once_leave_no_more_sessions_than_there_may_be(room: Room):
    room.rules = SessionRules(per_user=3)
    login = await room.login()
    await asyncio.gather(*(room.sessions.create(login, HERE) for _ in range(12)))
    assert len(await room.database.fetch_all(ROWS)) == 3


async def test_without_a_limit_all_sessions_stay_and_others_are_left_alone(room: Room):
    room.rules = SessionRules(per_user=0)
    opened = [await room.open() for _ in range(12)]
    room.rules = SessionRules(per_user=1)
    await room.accounts.create_user("bob", "right")
    await room.sessions.create(await room.accounts.logins.authenticate_password("bob", "right", HERE), HERE)
    assert all([await room.is_open(one) for one in opened])


async def test_sessions_that_are_over_are_swept_by_the_next_log_in(room: Room):
    for _ in range(3):
        await room.open()
    await room.later(61)
    await room.open()
    assert len(await room.database.fetch_all(ROWS)) == 1


async def test_an_ended_session_is_over_and_ends_once(room: Room):
    secret, other = await room.open(), await room.open()
    login = await room.sessions.find(secret)
    for _ in range(2):
        await room.sessions.end(login, by=login.account.acting(HERE))
    await room.sessions.end(await room.login())  # no session at all
    assert not await room.is_open(secret)
    assert await room.is_open(other)
    assert await room.database.fetch_all(EVENTS) == [
        ("LOGIN", "ada", HERE),
        ("LOGIN", "ada", HERE),
        ("DELETE", "ada", HERE),
    ]


async def end_password(room: Room) -> Any:
    await room.accounts.set_password("ada", "new")


async def end_active(room: Room) -> Any:
    await room.accounts.update("ada", is_active=False)


async def end_account(room: Room) -> Any:
    await room.accounts.delete("ada")


@pytest.mark.parametrize("end", [end_password, end_active, end_account])
async def test_sessions_end_with_the_password_or_the_account(room: Room, end: Any):
    secret, login = await room.open(), await room.login()
    await end(room)
    assert not await room.is_open(secret)
    assert await room.database.fetch_all(ROWS) == []
    # A log-in that was right a moment ago opens none any more.
    with pytest.raises(BadCredentials):
        await room.sessions.create(login, HERE)
    assert await room.database.fetch_all(ROWS) == []
    # Nor does it leave a refresh token behind.
    with pytest.raises((BadCredentials, AccountUnknown)):
        await room.accounts.tokens.create("ada", "log-in", kind="refresh", proof=login.proof)


async def test_only_a_password_opens_a_session(room: Room):
    token = await room.accounts.tokens.create("ada", "laptop")
    by_token = await room.accounts.logins.authenticate("ada", token, HERE)
    by_session = await room.sessions.find(await room.open())
    for login in (by_token, by_session):
        with pytest.raises(BadCredentials):
            await room.sessions.create(login, HERE)
    with pytest.raises(BadCredentials):
        await room.accounts.logins.authenticate_password("ada", token, HERE)


async def test_a_hash_that_is_made_anew_at_the_log_in_opens_a_session_all_the_same(room: Room):
    dearer = Accounts(room.database, Passwords(memory_kib=16, passes=2))
    login = await dearer.logins.authenticate_password("ada", "right", HERE)
    assert await room.is_open(await dearer.sessions.create(login, HERE))


async def test_a_session_is_not_renewed_when_nothing_can_be_written_but_it_goes_on(
    room: Room, monkeypatch: pytest.MonkeyPatch
):
    secret = await room.open()
    await room.later(41)

    async def full(*_: Any, **__: Any) -> None:
        raise DatabaseFull("no room")

    monkeypatch.setattr(room.database, "unit", full)
    assert await room.is_open(secret)


async def test_open_sessions_are_listed_the_one_used_last_first(room: Room):
    await room.accounts.create_user("bob", "right")
    first, second = token_id(await room.open()), token_id(await room.open())
    await room.later(5)
    other = await room.accounts.logins.authenticate_password("bob", "right", HERE)
    theirs = token_id(await room.sessions.create(other, "192.0.2.9", user_agent="Other/2.0"))
    ada = await room.accounts.get("ada")
    assert {one.id for one in await room.sessions.list_open(ada.id, limit=10)} == {first, second}
    (newest, *others) = await room.sessions.list_open(limit=10)
    assert (newest.id, newest.account, newest.address, newest.user_agent) == (
        theirs,
        "bob",
        "192.0.2.9",
        "Other/2.0",
    )
    assert newest.expires_at - newest.created_at == room.rules.lifetime
    assert newest.last_used_at - others[0].last_used_at >= 5 * MINUTE
    assert await room.sessions.count_open() == 3
    assert await room.sessions.count_open(ada.id) == 2
    found = await room.sessions.list_open(contains="BO", limit=10)
    assert [one.account for one in found] == ["bob"]
    assert await room.sessions.count_open(contains="BO") == 1
    walked = [newest]
    for expected in others:
        page = await room.sessions.list_open(start=walked[-1].marker, limit=2)
        assert page[1] == expected
        walked.append(page[1])
    assert len(await room.sessions.list_open(start="none", limit=10)) == 3
    await room.later(55.5)
    assert [one.account for one in await room.sessions.list_open(limit=10)] == ["bob"]
    assert await room.sessions.find_open(first) is None
    assert await room.sessions.count_open() == 1


async def test_an_open_session_is_ended_by_somebody_once(room: Room):
    secret, other = await room.open(), await room.open()
    found = await room.sessions.find_open(token_id(secret))
    assert found is not None
    assert await room.sessions.end_open(found, by=Actor("user", "1", "root")) == 1
    assert not await room.is_open(secret)
    assert await room.is_open(other)
    assert await room.sessions.end_open(found) == 0
    assert (await room.database.fetch_all(EVENTS))[-1] == ("DELETE", "root", "")
    assert await room.sessions.find_open("\ud800") is None


async def test_a_log_in_is_noted_to_the_minute(room: Room):
    async def noted() -> int | None:
        ada = await room.accounts.get("ada")
        return (await room.accounts.details([ada]))[ada.id].last_login_at

    assert await noted() is None
    with pytest.raises(BadCredentials):
        await room.login("wrong")
    assert await noted() is None
    await room.login()
    first = await noted()
    assert first is not None
    await room.login()
    assert await noted() == first

    async def earlier(tx: Transaction) -> None:
        await tx.execute(EARLIER)

    await room.database.unit(earlier)
    await room.login()
    assert (await noted() or 0) >= first
