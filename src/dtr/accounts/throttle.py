"""
Slowing down those who guess.

Wrong log-ins are counted by account and address together, by address, and by account. Some are free; each further
one doubles the time in which no attempt is looked at, up to a quarter of an hour. A count goes down by itself, one
by one, so that an office whose people mistype now and then never comes to its bound. In a process, the attempts
from one address wait for each other: a thousand at once are not a thousand free ones.

An attacker must not be able to lock out others:

* whoever guesses at an account slows down only its own address at first;
* an address from which an account logged in successfully in the last weeks is known to that account: the counts
  by address and by account, which others can drive up, do not hold there;
* tokens, which nobody can guess, are not slowed down at all (`Accounts.authenticate`).

What remains: who shares the victim's address, behind one NAT, is the same as the victim. It can keep the victim's
password from being looked at there, as long as it goes on guessing, for a quarter of an hour at a time; it gets
about a hundred guesses a day for that. Other addresses, access tokens and the tokens of clients that are
logged in go on working.

A success costs one indexed read, and one write a fortnight for each account and address. IPv6 addresses count
by their /64, the smallest network that a provider hands out.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import weakref
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, bindparam, case, delete, select
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import TooManyAttempts
from dtr.db import Statement, in_list, now
from dtr.db.schema import login_failures
from dtr.events import record

if TYPE_CHECKING:
    from dtr.db import Database, Transaction
    from dtr.events import Event

_MINUTE = 60_000
_KNOWN_FOR = 30 * 24 * 60 * _MINUTE
_LONGEST_PAUSE = 15 * _MINUTE
_MOST_DOUBLINGS = 12
"""No count goes further beyond what is free: it would only take longer to come back."""


class _Rule(Struct, frozen=True):
    free: int
    """Wrong log-ins that cost nothing."""
    forget: int
    """So many milliseconds later the count is one less."""


_PAIR, _ADDRESS, _ACCOUNT = _Rule(5, 60 * _MINUTE), _Rule(50, 10 * _MINUTE), _Rule(100, 10 * _MINUTE)

_LOOK = Statement(
    lambda: select(
        login_failures.c.subject,
        login_failures.c.blocked_until - now(),
        login_failures.c.expires_at - now(),
    ).where(in_list(login_failures.c.subject, "subjects"), login_failures.c.expires_at > now())
)
_life = bindparam("life", type_=BigInteger)
_longest = bindparam("longest", type_=BigInteger)
_fresh = insert(login_failures).values(
    subject=bindparam("subject"), failures=1, blocked_until=now(), expires_at=now() + _life
)
# When nothing is left of the count. A wrong log-in moves it by what it takes to forget one.
_all_forgotten = case((login_failures.c.expires_at > now(), login_failures.c.expires_at), else_=now())
_COUNT = Statement(
    lambda: _fresh.on_conflict_do_update(
        index_elements=["subject"],
        set_={
            "failures": (_all_forgotten - now() + _life - 1) // _life + 1,
            "expires_at": case(
                (_all_forgotten + _life > now() + _longest, now() + _longest), else_=_all_forgotten + _life
            ),
        },
    ).returning(login_failures.c.failures)
)
_BLOCK = Statement(
    lambda: (
        login_failures.update()
        .where(login_failures.c.subject == bindparam("which"))
        .values(blocked_until=now() + bindparam("pause", type_=BigInteger))
    )
)
_KNOW = Statement(
    lambda: _fresh.on_conflict_do_update(
        index_elements=["subject"], set_={"expires_at": _fresh.excluded.expires_at}
    )
)
_FORGIVE = Statement(lambda: delete(login_failures).where(login_failures.c.subject == bindparam("subject")))
_SWEEP = Statement(lambda: delete(login_failures).where(login_failures.c.expires_at <= now()))


class Throttle:
    """Counts wrong log-ins. Where an account may be None, none was named."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def turn(self, address: str) -> asyncio.Lock:
        """What an attempt from `address` holds from its check until it is counted."""
        return self._turns.setdefault(_network(address), asyncio.Lock())

    async def check(self, account: str | None, address: str) -> bool:
        """
        Whether `succeeded` has something to note after a right log-in.

        Raises TooManyAttempts when an attempt would not be looked at.
        """
        counts = _counts(account, address)
        known, pair = _subject("known", account, address), _subject("pair", account, address)
        rows = await self._database.fetch_all(_LOOK, subjects=[*counts, known])
        found = {row[0]: (row[1], row[2]) for row in rows}
        is_known = known in found
        wait = max((found[one][0] for one in counts if one in found and (one == pair or not is_known)), default=0)
        if wait > 0:
            raise TooManyAttempts(-(-wait // 1000))
        return not is_known or found[known][1] < _KNOWN_FOR // 2 or pair in found

    async def failed(self, account: str | None, address: str, event: Event) -> None:
        """Count a wrong log-in, and record it."""
        counts = _counts(account, address)

        async def work(tx: Transaction) -> None:
            for subject, rule in sorted(counts.items(), key=lambda item: item[0]):
                longest = (rule.free + _MOST_DOUBLINGS) * rule.forget
                row = await tx.fetch_one(_COUNT, subject=subject, life=rule.forget, longest=longest)
                beyond = (row[0] if row else 0) - rule.free
                if beyond > 0:
                    pause = min(1000 * 2 ** (beyond - 1), _LONGEST_PAUSE)
                    await tx.execute(_BLOCK, which=subject, pause=pause)
            await tx.execute(_SWEEP)
            await record(tx, event)

        await self._database.unit(work)

    async def succeeded(self, account: str, address: str) -> None:
        """Make the address known to the account, and forget what was counted for the two."""

        async def work(tx: Transaction) -> None:
            await tx.execute(_KNOW, subject=_subject("known", account, address), life=_KNOWN_FOR)
            await tx.execute(_FORGIVE, subject=_subject("pair", account, address))

        await self._database.unit(work)


def _counts(account: str | None, address: str) -> dict[str, _Rule]:
    """What an attempt counts for."""
    by_address = {_subject("address", None, address): _ADDRESS}
    if account is None:
        return by_address
    return {
        _subject("pair", account, address): _PAIR,
        **by_address,
        _subject("account", account, None): _ACCOUNT,
    }


def _subject(kind: str, account: str | None, address: str | None) -> str:
    """Names and addresses of those who mistype are nobody's business in a backup."""
    parts = (kind, (account or "").lower(), "" if address is None else _network(address))
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a unix socket
        return "local"
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:  # what IPv4 looks like on a socket for both
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))
