"""Guessing is slowed down and nobody locks out somebody else, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import argon2
import pytest
from sqlalchemy import BigInteger, bindparam, func, select, update

from dtr.accounts import Accounts, BadCredentials, TooManyAttempts
from dtr.db import Database, Statement, Transaction
from dtr.db.schema import login_failures

VICTIM, ATTACKER = "192.0.2.1", "203.0.113.1"
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
FREE_BY_PAIR, FREE_BY_ADDRESS, FREE_BY_ACCOUNT = 5, 50, 100

_earlier = bindparam("milliseconds", type_=BigInteger)
SHIFT = Statement(
    update(login_failures).values(
        blocked_until=login_failures.c.blocked_until - _earlier, expires_at=login_failures.c.expires_at - _earlier
    )
)
ROWS = Statement(select(func.count()).select_from(login_failures))
SUBJECTS = Statement(select(login_failures.c.subject))


class Attempts:
    """Log-ins, and the time between them."""

    def __init__(self, accounts: Accounts, database: Database) -> None:
        self.accounts = accounts
        self.database = database

    async def attempt(self, name: str, secret: str, address: str) -> bool | int:
        """Whether it was right; or the seconds to wait."""
        try:
            await self.accounts.logins.authenticate(name, secret, address)
        except BadCredentials:
            return False
        except TooManyAttempts as error:
            return error.retry_after
        return True

    async def right(self, address: str = VICTIM, name: str = "ada") -> bool | int:
        return await self.attempt(name, "right", address)

    async def wrong(self, address: str = ATTACKER, name: str = "ada") -> bool | int:
        return await self.attempt(name, "wrong", address)

    async def later(self, milliseconds: int) -> None:
        """Let time go by, as the database sees it."""

        async def work(tx: Transaction) -> None:
            await tx.execute(SHIFT, milliseconds=milliseconds)

        await self.database.unit(work)

    async def hammer(self, addresses: Callable[[int], str], times: int, name: str = "ada") -> None:
        """So many wrong log-ins that count, each as soon as those before allow it."""
        for number in range(times):
            wait = await self.wrong(addresses(number), name)
            if wait:
                await self.later(wait * SECOND)
                assert await self.wrong(addresses(number), name) is False


@pytest.fixture
async def attempts(accounts: Accounts, database: Database) -> Attempts:
    await accounts.create_user("ada", "right")
    await accounts.create_user("bob", "right")
    return Attempts(accounts, database)


def one(_number: int) -> str:
    return ATTACKER


def each_another(number: int) -> str:
    return f"203.0.{number // 250}.{number % 250}"


# --- one who mistypes, one who guesses ----------------------------------------------------------------------


async def test_some_wrong_log_ins_cost_nothing(attempts: Attempts):
    for _ in range(FREE_BY_PAIR):
        assert await attempts.wrong(VICTIM) is False
    assert await attempts.right(VICTIM) is True


async def test_each_further_wrong_log_in_doubles_the_pause(attempts: Attempts):
    await attempts.hammer(one, FREE_BY_PAIR + 5)
    for pause in (32, 64, 128, 256, 512, 900, 900, 900):
        await attempts.later(min(pause, 512) * SECOND)
        assert await attempts.wrong() is False
        assert pause / 2 < await attempts.wrong() <= pause
        await attempts.later((pause - min(pause, 512)) * SECOND)


async def test_within_a_pause_no_attempt_is_looked_at_nor_counted(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch
):
    await attempts.hammer(one, FREE_BY_PAIR + 8)
    with monkeypatch.context() as patch:
        patch.setattr(argon2.PasswordHasher, "verify", None)
        for _ in range(20):
            assert await attempts.wrong() > 0
            assert await attempts.right(ATTACKER) > 0
    await attempts.later(128 * SECOND)
    assert await attempts.right(ATTACKER) is True


async def test_a_right_log_in_forgives_what_the_account_mistyped_there(attempts: Attempts):
    await attempts.hammer(one, FREE_BY_PAIR)
    assert await attempts.right(ATTACKER) is True
    for _ in range(FREE_BY_PAIR):
        assert await attempts.wrong() is False
    assert await attempts.right(ATTACKER) is True


async def test_wrong_log_ins_are_forgotten_one_by_one(attempts: Attempts):
    await attempts.hammer(one, FREE_BY_PAIR + 8)
    await attempts.later(2 * HOUR)
    assert await attempts.wrong() is False
    assert 32 < await attempts.right(ATTACKER) <= 64
    await attempts.later(8 * HOUR)
    for _ in range(FREE_BY_PAIR - 4):
        assert await attempts.wrong() is False
    assert await attempts.right(ATTACKER) is True


async def test_an_attack_that_ended_is_forgotten_within_a_day(attempts: Attempts, database: Database):
    await attempts.hammer(one, FREE_BY_PAIR + 40)
    await attempts.later(DAY)
    for _ in range(FREE_BY_PAIR):
        assert await attempts.wrong() is False
    assert await attempts.right(ATTACKER) is True


async def test_what_is_forgotten_leaves_no_rows(attempts: Attempts, database: Database):
    await attempts.hammer(each_another, 20)
    await attempts.later(31 * DAY)
    await attempts.wrong()
    assert tuple((await database.fetch_all(ROWS))[0]) == (3,)


async def test_a_success_is_noted_once_and_costs_one_read_more_then(attempts: Attempts, database: Database):
    seen: list[str] = []
    await attempts.right()
    database.observe = lambda kind, _: seen.append(kind)
    await attempts.right()
    assert seen == ["read", "read"]


async def test_no_name_and_no_address_is_kept(attempts: Attempts, database: Database):
    await attempts.wrong()
    await attempts.right()
    for row in await database.fetch_all(SUBJECTS):
        assert set(row[0]) <= set("0123456789abcdef")


# --- nobody locks out somebody else -------------------------------------------------------------------------


async def test_guessing_at_an_account_does_not_slow_down_its_user_elsewhere(attempts: Attempts):
    await attempts.hammer(one, FREE_BY_PAIR + 10)
    assert await attempts.wrong() > 0
    assert await attempts.right(VICTIM) is True


async def test_guessing_at_an_account_does_not_slow_down_others_at_the_same_address(attempts: Attempts):
    await attempts.hammer(one, FREE_BY_PAIR + 10)
    assert await attempts.right(ATTACKER, "bob") is True


async def test_a_known_address_goes_on_working_whoever_hammers_from_wherever(attempts: Attempts):
    assert await attempts.right(VICTIM) is True
    await attempts.hammer(each_another, FREE_BY_ACCOUNT + 15)
    assert await attempts.right("198.51.100.7") > 0
    assert await attempts.right(VICTIM) is True
    assert await attempts.right(VICTIM) is True


async def test_a_known_address_may_mistype_while_others_hammer(attempts: Attempts):
    assert await attempts.right(VICTIM) is True
    await attempts.hammer(each_another, FREE_BY_ACCOUNT + 15)
    for _ in range(FREE_BY_PAIR):
        assert await attempts.wrong(VICTIM) is False
    assert await attempts.right(VICTIM) is True


async def test_many_accounts_tried_from_one_address_slow_it_down_but_not_those_who_are_known_there(
    attempts: Attempts,
):
    assert await attempts.right(ATTACKER, "bob") is True
    for number in range((FREE_BY_ADDRESS + 10) // FREE_BY_PAIR):
        await attempts.hammer(one, FREE_BY_PAIR, f"user{number}")
    assert await attempts.right(ATTACKER, "ada") > 0
    assert await attempts.right(ATTACKER, "bob") is True
    assert await attempts.right(VICTIM, "ada") is True


async def test_an_address_is_known_for_weeks_and_longer_while_it_is_used(attempts: Attempts):
    assert await attempts.right(VICTIM) is True
    for _ in range(4):
        await attempts.later(16 * DAY)
        assert await attempts.right(VICTIM) is True
    await attempts.later(29 * DAY)
    await attempts.hammer(each_another, FREE_BY_ACCOUNT + 15)
    assert await attempts.right(VICTIM) is True


async def test_an_address_that_was_not_used_for_long_is_no_longer_known(attempts: Attempts):
    assert await attempts.right(VICTIM) is True
    await attempts.later(31 * DAY)
    await attempts.hammer(each_another, FREE_BY_ACCOUNT + 15)
    assert await attempts.right(VICTIM) > 0


async def test_an_office_that_mistypes_now_and_then_is_not_slowed_down(attempts: Attempts):
    for number in range(FREE_BY_ADDRESS + 20):
        assert await attempts.wrong(ATTACKER, f"user{number}") is False
        await attempts.later(10 * MINUTE)
    assert await attempts.right(ATTACKER) is True


async def test_who_shares_the_victims_address_gets_a_hundred_guesses_a_day_and_the_victim_its_turn(
    attempts: Attempts,
):
    assert await attempts.right(VICTIM) is True
    looked_at = waited = 0
    while waited < 6 * HOUR:
        wait = await attempts.wrong(VICTIM)
        looked_at += wait is False
        waited += wait * SECOND
        await attempts.later(wait * SECOND)
        assert wait * SECOND <= 15 * MINUTE
    assert looked_at < 20 + 6 * 4
    await attempts.later(15 * MINUTE)
    assert await attempts.right(VICTIM) is True


async def test_a_right_access_token_is_never_slowed_down(attempts: Attempts, accounts: Accounts):
    secret = await accounts.tokens.create("ada", "laptop")
    await attempts.hammer(lambda _: VICTIM, FREE_BY_PAIR + 10)
    await attempts.hammer(each_another, FREE_BY_ACCOUNT + 15)
    assert await attempts.right(VICTIM) > 0
    assert await attempts.attempt("ada", secret, VICTIM) is True


async def test_wrong_access_tokens_count_like_wrong_passwords(attempts: Attempts):
    for _ in range(FREE_BY_PAIR):
        assert await attempts.attempt("ada", "dtra_" + "x" * 43, ATTACKER) is False
    await attempts.hammer(one, 8)
    assert await attempts.attempt("ada", "dtra_" + "x" * 43, ATTACKER) > 32


async def test_wrong_refresh_tokens_slow_down_their_address_and_no_right_token(
    attempts: Attempts, accounts: Accounts
):
    refresh = await accounts.tokens.create("ada", "log-in", kind="refresh")
    for _ in range(FREE_BY_ADDRESS):
        with pytest.raises(BadCredentials):
            await accounts.logins.authenticate_token("dtrr_wrong", "refresh", ATTACKER)
    for number in range(2):
        await attempts.hammer(one, FREE_BY_PAIR, f"user{number}")
    with pytest.raises(TooManyAttempts):
        await accounts.logins.authenticate_token("dtrr_wrong", "refresh", ATTACKER)
    assert (await accounts.logins.authenticate_token(refresh, "refresh", ATTACKER)).account.name == "ada"
    assert (await accounts.logins.authenticate_token(refresh, "refresh", VICTIM)).account.name == "ada"
    assert await attempts.right(ATTACKER) > 0
    assert await attempts.right(VICTIM) is True


# --- many at once, and what an address is -------------------------------------------------------------------


async def test_attempts_that_come_at_once_are_not_all_free(attempts: Attempts):
    await attempts.hammer(one, FREE_BY_PAIR + 8)
    await attempts.later(128 * SECOND)
    results = await asyncio.gather(*(attempts.wrong() for _ in range(60)))
    assert results.count(False) == 1
    assert sorted(results)[1] > 128


async def test_wrong_log_ins_that_are_counted_at_once_are_all_counted(attempts: Attempts):
    await asyncio.gather(*(attempts.wrong(each_another(number)) for number in range(FREE_BY_ACCOUNT)))
    await attempts.hammer(lambda number: f"198.51.100.{number}", 8)
    assert 64 < await attempts.wrong("198.51.100.99") <= 128


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.8", False),
        ("192.0.2.7", "192.0.2.8", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "/run/dtr.sock", True),
    ],
)
async def test_what_counts_as_one_address(attempts: Attempts, one: str, other: str, same: bool):
    await attempts.hammer(lambda _: one, FREE_BY_PAIR + 8)
    assert await attempts.wrong(one) > 0
    assert (await attempts.wrong(other) is not False) is same


async def test_letters_of_another_case_do_not_give_further_guesses(attempts: Attempts):
    await attempts.hammer(one, FREE_BY_PAIR + 8, "ada")
    assert await attempts.wrong(ATTACKER, "ADA") > 0


async def test_any_text_may_be_tried_as_a_name(attempts: Attempts):
    for name in ("\ud800", "a\0b", "x" * 100_000, ""):
        assert await attempts.attempt(name, "wrong", VICTIM) is False
