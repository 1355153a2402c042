"""
What one client may take: requests a second, and transfers at once, of an address and of an account.

The worker processes of a host count together, in memory that they share; several hosts count each for themselves.
Nothing there is locked. Two processes that change the same row at the same moment may lose a request, which does
not matter to a limit; of transfers, which have to come down to none again, each process counts its own.

Requests are counted by GCRA, the leaky bucket that is one number: the time at which the bucket will be empty
(ITU-T I.371). A row is given to another client when it holds nothing: its bucket is empty, and no transfer runs.
"""

from __future__ import annotations

import hashlib
import ipaddress
import mmap
import os
import struct
import time
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

_SETS = 4096
_WAYS = 8
_ROWS = _SETS * _WAYS
"""So many clients are known at once; those of one set push each other out."""
_SET = struct.Struct(f"={_WAYS}Q{_WAYS}d")
_KEY = struct.Struct("=Q")
_TIME = struct.Struct("=d")
_COUNT = struct.Struct("=H")
_IPV6_BITS = 64
"""Who has IPv6 has that many addresses: they are one."""
_TRANSFER_RETRY_SECONDS = 5


class TooManyRequests(Exception):
    """The client has to wait, `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Rule(Struct, frozen=True):
    """What one client may take; None: as much as it wants."""

    rate: float | None = None
    """Requests a second."""
    burst: int = 100
    """So many at once are within the rate."""
    transfers: int | None = None
    """Pushes and pulls of blobs at once."""


class Limits:
    """
    The limits, and what counts for them.

    It is made before the workers are forked; each says its number by `begin`.
    """

    def __init__(self, address: Rule, account: Rule, *, exempt: tuple[str, ...] = (), workers: int = 1) -> None:
        """`exempt` are the networks of addresses that are not counted."""
        self._address = address
        self._account = account
        networks = [ipaddress.ip_network(one) for one in exempt]
        self._salt = os.urandom(16)  # nobody can choose an address that shares another's row
        self._key_of_address = lru_cache(4096)(lambda text: self._key(_client(text, networks)))
        self._key_of_account = lru_cache(4096)(lambda name: self._key(f"account {name}"))
        self._table = mmap.mmap(-1, _SETS * _SET.size)
        self._running = mmap.mmap(-1, workers * _ROWS * _COUNT.size)
        self._workers = workers
        self._worker = 0

    def begin(self, worker: int) -> None:
        """Count for this worker; what its predecessor had running has ended with it."""
        self._worker = worker
        size = _ROWS * _COUNT.size
        self._running[worker * size : (worker + 1) * size] = bytes(size)

    def count_address(self, address: str) -> None:
        """Count a request of an address. Raises TooManyRequests."""
        self._count(self._address, self._key_of_address(address), "this address")

    def count_account(self, name: str) -> None:
        """Count a request of an account. Raises TooManyRequests."""
        self._count(self._account, self._key_of_account(name), "this account")

    @contextmanager
    def transfer(self, address: str, account: str) -> Iterator[None]:
        """A transfer of an address, and of an account unless that is empty. Raises TooManyRequests."""
        taken = []
        try:
            for rule, key, whose in (
                (self._address, self._key_of_address(address), "this address"),
                (self._account, self._key_of_account(account) if account else 0, "this account"),
            ):
                if rule.transfers is not None and key:
                    row = self._row(key)
                    if sum(self._counts(row)) >= rule.transfers:
                        raise TooManyRequests(
                            f"{whose} has {rule.transfers} transfers running", _TRANSFER_RETRY_SECONDS
                        )
                    self._add(row, 1)
                    taken.append((row, key))
            yield
        finally:
            for row, key in taken:
                if self._key_in(row) == key:  # else somebody else has it, and we are forgotten
                    self._add(row, -1)

    def _count(self, rule: Rule, key: int, whose: str) -> None:
        if rule.rate is None or not key:
            return
        row = self._row(key)
        place = row // _WAYS * _SET.size + _WAYS * _KEY.size + row % _WAYS * _TIME.size
        (empty_at,) = _TIME.unpack_from(self._table, place)
        now = time.monotonic()  # the same clock for all processes of the host
        empty_at = max(empty_at, now) + 1 / rule.rate
        wait = empty_at - now - rule.burst / rule.rate
        if wait > 0:
            raise TooManyRequests(f"too many requests of {whose}", max(1, round(wait + 0.5)))
        _TIME.pack_into(self._table, place, empty_at)

    # --- the table ---

    def _key(self, text: str) -> int:
        """The number of a client, never 0; 0 for none."""
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=self._salt).digest()
        return int.from_bytes(digest) | 1 if text else 0

    def _row(self, key: int) -> int:
        """The row of a client, made when there is none."""
        number = (key >> 1) % _SETS
        fields = _SET.unpack_from(self._table, number * _SET.size)
        keys, times = fields[:_WAYS], fields[_WAYS:]
        first = number * _WAYS
        if key in keys:
            return first + keys.index(key)
        idle = [way for way in range(_WAYS) if not any(self._counts(first + way))] or range(_WAYS)
        way = min(idle, key=times.__getitem__)
        _TIME.pack_into(self._table, number * _SET.size + _WAYS * _KEY.size + way * _TIME.size, 0.0)
        _KEY.pack_into(self._table, number * _SET.size + way * _KEY.size, key)
        for worker in range(self._workers):
            _COUNT.pack_into(self._running, (worker * _ROWS + first + way) * _COUNT.size, 0)
        return first + way

    def _key_in(self, row: int) -> int:
        key: int = _KEY.unpack_from(self._table, row // _WAYS * _SET.size + row % _WAYS * _KEY.size)[0]
        return key

    def _counts(self, row: int) -> list[int]:
        """How many transfers run, by worker."""
        places = ((worker * _ROWS + row) * _COUNT.size for worker in range(self._workers))
        return [_COUNT.unpack_from(self._running, place)[0] for place in places]

    def _add(self, row: int, change: int) -> None:
        """Count for this worker."""
        place = (self._worker * _ROWS + row) * _COUNT.size
        (count,) = _COUNT.unpack_from(self._running, place)
        _COUNT.pack_into(self._running, place, min(max(count + change, 0), 2**16 - 1))


def _client(address: str, exempt: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> str:
    """What counts as one client; empty: it is not counted."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a unix socket
        return ""
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    if any(parsed in network for network in exempt):
        return ""
    if parsed.version == 6:
        return str(ipaddress.ip_network((parsed, _IPV6_BITS), strict=False))
    return str(parsed)
