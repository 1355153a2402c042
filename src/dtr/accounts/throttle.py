"""
Slowing down those who guess.

Wrong log-ins are counted by account and address together, by address, and by account. After some free ones,
each doubles the time in which no further attempt is looked at. An attacker must not be able to lock out others:

* whoever guesses at an account slows down only its own address at first;
* an address from which an account logged in successfully in the last weeks is known to that account: the counts
  by address and by account, which others can drive up, do not hold there.

A success costs one indexed read, and one write a fortnight for each account and address. IPv6 addresses count
by their /64, the smallest network that a provider hands out.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Integer, bindparam, case, delete, select
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import TooManyAttempts
from dtr.db import Statement, in_list, now
from dtr.db.schema import login_failures

if TYPE_CHECKING:
    from dtr.db import Database, Transaction

_DAY = 86_400_000
_FORGET = _DAY
_KNOWN_FOR = 30 * _DAY
_LONGEST_PAUSE = 900_000


@dataclass(frozen=True, slots=True)
class _Rule:
    free: int
    """Wrong log-ins that cost nothing."""


_PAIR, _ADDRESS, _ACCOUNT = _Rule(5), _Rule(50), _Rule(100)

_LOOK = Statement(
    select(
        login_failures.c.subject,
        login_failures.c.blocked_until - now(),
        login_failures.c.expires_at - now(),
    ).where(in_list(login_failures.c.subject, "subjects"), login_failures.c.expires_at > now())
)
_free = bindparam("free", type_=Integer)
_fresh = insert(login_failures).values(
    subject=bindparam("subject"),
    failures=1,
    blocked_until=now(),
    expires_at=now() + bindparam("forget", type_=BigInteger),
)
_failures = case((login_failures.c.expires_at > now(), login_failures.c.failures + 1), else_=1)
_COUNT = Statement(
    _fresh.on_conflict_do_update(
        index_elements=["subject"],
        set_={"failures": _failures, "expires_at": _fresh.excluded.expires_at},
    ).returning(login_failures.c.failures)
)
_BLOCK = Statement(
    login_failures.update()
    .where(login_failures.c.subject == bindparam("which"))
    .values(blocked_until=now() + bindparam("pause", type_=BigInteger))
)
_KNOW = Statement(
    _fresh.on_conflict_do_update(index_elements=["subject"], set_={"expires_at": _fresh.excluded.expires_at})
)
_FORGIVE = Statement(delete(login_failures).where(in_list(login_failures.c.subject, "subjects")))
_SWEEP = Statement(delete(login_failures).where(login_failures.c.expires_at <= now()))


class Throttle:
    """Counts wrong log-ins."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def check(self, account: str, address: str) -> bool:
        """
        Whether `succeeded` has something to note after a right log-in.

        Raises TooManyAttempts when an attempt would not be looked at.
        """
        pair, by_address, by_account, known = _subjects(account, address)
        rows = await self._database.fetch_all(_LOOK, subjects=[pair, by_address, by_account, known])
        found = {row[0]: (row[1], row[2]) for row in rows}
        is_known = known in found
        counts = (pair,) if is_known else (pair, by_address, by_account)
        wait = max((found[one][0] for one in counts if one in found), default=0)
        if wait > 0:
            raise TooManyAttempts(-(-wait // 1000))
        return not is_known or found[known][1] < _KNOWN_FOR // 2 or pair in found

    async def failed(self, account: str, address: str) -> None:
        """Count a wrong log-in."""
        pair, by_address, by_account, _ = _subjects(account, address)

        async def work(tx: Transaction) -> None:
            for subject, rule in sorted(
                ((pair, _PAIR), (by_address, _ADDRESS), (by_account, _ACCOUNT)), key=_first
            ):
                row = await tx.fetch_one(_COUNT, subject=subject, forget=_FORGET)
                beyond = (row[0] if row else 0) - rule.free
                if beyond > 0:
                    pause = min(1000 * 2 ** min(beyond - 1, 20), _LONGEST_PAUSE)
                    await tx.execute(_BLOCK, which=subject, pause=pause)
            await tx.execute(_SWEEP)

        await self._database.unit(work)

    async def succeeded(self, account: str, address: str) -> None:
        """Make the address known to the account, and forget what was counted for the two."""
        pair, _, _, known = _subjects(account, address)

        async def work(tx: Transaction) -> None:
            await tx.execute(_KNOW, subject=known, forget=_KNOWN_FOR)
            await tx.execute(_FORGIVE, subjects=[pair])

        await self._database.unit(work)


def _first(item: tuple[str, _Rule]) -> str:
    return item[0]


def _subjects(account: str, address: str) -> tuple[str, str, str, str]:
    try:
        parsed = ipaddress.ip_address(address)
        if parsed.version == 6:
            address = str(ipaddress.ip_network((parsed, 64), strict=False))
    except ValueError:  # a unix socket
        address = "local"
    name = account.lower()
    return (
        _hashed("pair", name, address),
        _hashed("address", address),
        _hashed("account", name),
        _hashed("known", name, address),
    )


def _hashed(*parts: str) -> str:
    """Names and addresses of those who mistype are nobody's business in a backup."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]
