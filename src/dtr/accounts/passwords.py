"""
Passwords: Argon2id, in a few threads, always at the same cost.

Scripts send their password with every call, and a hash takes some 40 ms of a processor. So a process remembers for
a minute which password fitted which hash. A hash that is no longer stored is not asked for, so that a new password
ends what is remembered of the old one at once. What is kept is no password, but a code of both under a key that
no other process has, and that ends with this one.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from dtr.accounts.errors import PasswordInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from argon2 import PasswordHasher

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LONGEST = 1024
_THREADS = 2
_REMEMBERED = 4_096
_REMEMBERED_SECONDS = 60.0


class Passwords:
    """
    Hashes and compares.

    `memory_kib` and `passes` are the costs of new hashes; one thread each. RFC 9106, section 4, and OWASP's
    19 MiB and 2 passes.
    """

    def __init__(self, *, memory_kib: int = 19_456, passes: int = 2) -> None:
        self._memory_kib = memory_kib
        self._passes = passes
        # Bounded: a flood of log-ins must take neither all processors nor all memory.
        self._pool = ThreadPoolExecutor(_THREADS, "argon2")
        self._made: PasswordHasher | None = None
        self._decoy: str | None = None
        self._fits = _Memory()

    async def hash(self, password: str) -> str:
        """The hash to store. Raises PasswordInvalid."""
        if not password or len(password) > _LONGEST:
            raise PasswordInvalid(f"a password has 1 to {_LONGEST} characters")
        return await self._run(self._hash, password)

    async def verify(self, stored: str | None, password: str) -> tuple[bool, bool]:
        """
        Whether the password is right, and whether its hash should be made anew at today's cost.

        Takes as long when nothing is `stored`, and when the password is too long to be one; less only for a right
        one that is remembered.
        """
        if stored is not None and self._fits.has(stored, password):
            return True, False
        right, outdated = await self._run(self._verify, stored, password[:_LONGEST])
        right = right and len(password) <= _LONGEST
        if right and not outdated and stored is not None:
            self._fits.add(stored, password)
        return right, outdated

    async def _run(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def _hasher(self) -> PasswordHasher:
        if self._made is None:
            from argon2 import PasswordHasher

            self._made = PasswordHasher(time_cost=self._passes, memory_cost=self._memory_kib, parallelism=1)
        return self._made

    def _hash(self, password: str) -> str:
        return self._hasher().hash(password.encode("utf-8", "surrogatepass"))

    def _verify(self, stored: str | None, password: str) -> tuple[bool, bool]:
        from argon2.exceptions import InvalidHashError, VerificationError

        hasher = self._hasher()
        if self._decoy is None:
            self._decoy = hasher.hash(secrets.token_bytes(16))
        try:
            hasher.verify(stored or self._decoy, password.encode("utf-8", "surrogatepass"))
        except (VerificationError, InvalidHashError):
            return False, False
        return stored is not None, stored is not None and hasher.check_needs_rehash(stored)


class _Memory:
    """Which passwords fitted which hashes in the last minute."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._until: dict[bytes, float] = {}

    def has(self, stored: str, password: str) -> bool:
        return self._until.get(self._code(stored, password), 0.0) > time.monotonic()

    def add(self, stored: str, password: str) -> None:
        if len(self._until) >= _REMEMBERED:
            self._until.pop(next(iter(self._until)))
        code = self._code(stored, password)
        self._until.pop(code, None)  # in the order of time: the first one is the oldest
        self._until[code] = time.monotonic() + _REMEMBERED_SECONDS

    def _code(self, stored: str, password: str) -> bytes:
        return hmac.digest(self._key, f"{stored}\0{password}".encode("utf-8", "surrogatepass"), "sha256")
