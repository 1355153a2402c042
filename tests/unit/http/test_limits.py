"""What one client may take, as the processes of a host count it together."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from dtr.http import limits
from dtr.http.limits import Limits, Rule, TooManyRequests

ANY = Rule()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is, in its only element."""
    now = [1000.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    return now


def taken(count: Callable[[str], None], client: str, most: int = 1000) -> int:
    """How many requests in a row a client may send."""
    for number in range(most):
        try:
            count(client)
        except TooManyRequests:
            return number
    return most


def in_a_child(work: Callable[[], object]) -> None:
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_a_burst_is_taken_and_then_what_the_rate_allows(clock: list[float]) -> None:
    counted = Limits(Rule(rate=2, burst=5), ANY)
    assert taken(counted.count_address, "192.0.2.1") == 5
    with pytest.raises(TooManyRequests) as refused:
        counted.count_address("192.0.2.1")
    assert refused.value.retry_after == 1
    clock[0] += 0.5
    assert taken(counted.count_address, "192.0.2.1") == 1
    clock[0] += 100
    assert taken(counted.count_address, "192.0.2.1") == 5


def test_who_was_told_when_to_come_again_is_served_then(clock: list[float]) -> None:
    counted = Limits(Rule(rate=0.1, burst=1), ANY)
    counted.count_address("192.0.2.1")
    with pytest.raises(TooManyRequests) as refused:
        counted.count_address("192.0.2.1")
    assert 10 <= refused.value.retry_after <= 11
    clock[0] += refused.value.retry_after
    counted.count_address("192.0.2.1")


def test_what_is_refused_costs_nothing(clock: list[float]) -> None:
    counted = Limits(Rule(rate=1, burst=1), ANY)
    counted.count_address("192.0.2.1")
    assert [taken(counted.count_address, "192.0.2.1") for _ in range(50)] == [0] * 50
    clock[0] += 1
    assert taken(counted.count_address, "192.0.2.1") == 1


@pytest.mark.parametrize(
    ("one", "other", "are_the_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_addresses_are_clients_of_their_own_and_networks_of_ipv6_are_one(
    clock: list[float], one: str, other: str, are_the_same: bool
) -> None:
    counted = Limits(Rule(rate=1, burst=3), ANY)
    assert taken(counted.count_address, one) == 3
    assert taken(counted.count_address, other) == (0 if are_the_same else 3)


def test_an_account_and_an_address_are_counted_apart(clock: list[float]) -> None:
    counted = Limits(Rule(rate=1, burst=3), Rule(rate=1, burst=2))
    assert taken(counted.count_address, "192.0.2.1") == 3
    assert taken(counted.count_account, "192.0.2.1") == 2


def test_who_is_exempt_or_has_no_address_is_not_counted(clock: list[float]) -> None:
    counted = Limits(Rule(rate=1, burst=1, transfers=1), ANY, exempt=("192.0.2.0/24", "2001:db8::/32"))
    for address in ("192.0.2.77", "::ffff:192.0.2.77", "2001:db8::1", ""):
        assert taken(counted.count_address, address) == 1000
        with counted.transfer(address, ""), counted.transfer(address, ""):
            pass


def test_processes_count_together() -> None:
    counted = Limits(Rule(rate=0.001, burst=10), ANY, workers=2)
    in_a_child(lambda: [counted.count_address("192.0.2.1") for _ in range(6)])
    assert taken(counted.count_address, "192.0.2.1") == 4


def test_transfers_at_once_are_limited_by_address_and_by_account() -> None:
    counted = Limits(Rule(transfers=2), Rule(transfers=3))
    with ExitStack() as running:
        for _ in range(2):
            running.enter_context(counted.transfer("192.0.2.1", "alice"))
        with pytest.raises(TooManyRequests, match="this address has 2"), counted.transfer("192.0.2.1", "bob"):
            pass
        running.enter_context(counted.transfer("192.0.2.2", "alice"))
        with pytest.raises(TooManyRequests, match="this account has 3"), counted.transfer("192.0.2.2", "alice"):
            pass
        # What was refused for its account does not count for its address.
        running.enter_context(counted.transfer("192.0.2.2", ""))
    for _ in range(5):
        with counted.transfer("192.0.2.1", "alice"), counted.transfer("192.0.2.1", "alice"):
            pass


def test_a_transfer_that_fails_has_ended() -> None:
    counted = Limits(Rule(transfers=1), ANY)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), counted.transfer("192.0.2.1", ""):
            raise ValueError("broken")


def test_transfers_of_a_process_that_died_end_with_its_successor() -> None:
    counted = Limits(Rule(transfers=3), ANY, workers=2)
    with counted.transfer("192.0.2.1", ""):

        def die_in_the_middle() -> None:
            counted.begin(1)
            with counted.transfer("192.0.2.1", ""), counted.transfer("192.0.2.1", ""):
                os._exit(0)

        in_a_child(die_in_the_middle)
        with pytest.raises(TooManyRequests), counted.transfer("192.0.2.1", ""):
            pass
        in_a_child(lambda: counted.begin(1))
        with counted.transfer("192.0.2.1", ""), counted.transfer("192.0.2.1", ""):
            pass


def test_a_flood_of_others_does_not_make_a_running_transfer_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_SETS", 16)
    monkeypatch.setattr(limits, "_ROWS", 16 * 8)
    counted = Limits(Rule(rate=1, burst=2, transfers=1), ANY)
    with counted.transfer("192.0.2.1", ""):
        for number in range(5000):
            counted.count_address(f"10.0.{number // 250}.{number % 250}")
        with pytest.raises(TooManyRequests), counted.transfer("192.0.2.1", ""):
            pass
    with counted.transfer("192.0.2.1", ""):
        pass
