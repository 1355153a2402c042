"""
The passphrases that encrypt private keys: outside the database, in a file.

A line is an alias, which the rows in the database name, and the passphrase. The first line encrypts new keys, the
others are there for keys that it did not encrypt yet. The file is made with the first key. Hosts that share a
database share the file, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
import time
from typing import TYPE_CHECKING

from dtr.signer.errors import SignerFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

SHORTEST = 32
"""Characters of a passphrase: it is made by a machine, so that nobody can guess it, however fast guessing is."""
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})[ \t]+(\S.*)")
_SECRET_BYTES = 32
_PATIENCE_SECONDS = 10.0
_PAUSE_SECONDS = 0.02


class Passphrases:
    """The file. What is read is remembered as long as the file is the same."""

    def __init__(self, file: Path) -> None:
        """Nothing is read before the first key."""
        self.file = file
        self._known: Mapping[str, str] = {}
        self._version: tuple[int, ...] = ()

    async def current(self) -> tuple[str, str]:
        """Alias and passphrase for new keys; made when there is no file. Raises SignerFailed."""
        return await asyncio.to_thread(lambda: next(iter(self._read(make=True).items())))

    async def find(self, alias: str) -> str:
        """The passphrase of this alias. Raises SignerFailed."""
        found = (await asyncio.to_thread(self._read)).get(alias)
        if found is None:
            raise SignerFailed(f"{self.file} has no passphrase {alias}, which keys are encrypted with")
        return found

    async def aliases(self) -> list[str]:
        """All aliases, the current one first; none when there is no file. Raises SignerFailed."""
        return list(await asyncio.to_thread(lambda: self._read() if self.file.exists() else ()))

    async def add(self) -> str:
        """Make a passphrase up, for the keys to come; its alias. Within `changing`. Raises SignerFailed."""
        alias, made = _new()
        await asyncio.to_thread(lambda: self._write({alias: made} | dict(self._read())))
        return alias

    async def remove(self, aliases: set[str]) -> None:
        """Forget passphrases, for good. Within `changing`. Raises SignerFailed."""
        await asyncio.to_thread(
            lambda: self._write({one: text for one, text in self._read().items() if one not in aliases})
        )

    def using(self) -> contextlib.AbstractAsyncContextManager[None]:
        """
        While a key is encrypted and stored: no passphrase is removed meanwhile.

        Without it, a key could be stored that nothing opens any more. Raises SignerFailed when it takes too long.
        """
        return self._locked(fcntl.LOCK_SH)

    def changing(self) -> contextlib.AbstractAsyncContextManager[None]:
        """While the file is changed. Raises SignerFailed when it takes too long."""
        return self._locked(fcntl.LOCK_EX)

    @contextlib.asynccontextmanager
    async def _locked(self, how: int) -> AsyncIterator[None]:
        """Hold the lock of the file's directory: the file itself is replaced."""
        try:
            opened = await asyncio.to_thread(self._open_directory)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            until = time.monotonic() + _PATIENCE_SECONDS
            while True:
                try:
                    fcntl.flock(opened, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise SignerFailed(f"another process holds {self.file} for too long") from None
                    await asyncio.sleep(_PAUSE_SECONDS)
            yield
        finally:
            os.close(opened)

    def _open_directory(self) -> int:
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(self.file.parent, os.O_RDONLY | os.O_DIRECTORY)

    def _read(self, *, make: bool = False) -> Mapping[str, str]:
        """What the file says, in its order; made when it is missing and `make`. Raises SignerFailed."""
        try:
            if make and not self.file.exists():
                alias, made = _new()
                self._write({alias: made}, replace=False)
            status = self.file.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if version != self._version:
                self._known = self._parsed(self.file.read_text(encoding="utf-8"))
                self._version = version
        except OSError as error:
            raise self._unusable(error) from None
        except UnicodeDecodeError:
            raise SignerFailed(f"{self.file} is no text in UTF-8") from None
        return self._known

    def _parsed(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line.strip())
            if match is None or len(match[2]) < SHORTEST or match[1] in found:
                wanted = f"an alias of its own and a passphrase of at least {SHORTEST} characters"
                raise SignerFailed(f"{self.file}, line {number}: a line is {wanted}")
            found[match[1]] = match[2]
        if not found:
            raise SignerFailed(f"{self.file} holds no passphrase")
        return found

    def _write(self, passphrases: Mapping[str, str], *, replace: bool = True) -> None:
        """Whole and durable, never readable by others; not `replace`: unless another process was first."""
        directory = self.file.parent
        made = directory / f".{self.file.name}.{secrets.token_hex(8)}"
        text = "".join(f"{alias} {passphrase}\n" for alias, passphrase in passphrases.items())
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                    stream.write(text)
                    stream.flush()
                    os.fsync(stream.fileno())
                if replace:
                    made.replace(self.file)
                else:
                    with contextlib.suppress(FileExistsError):
                        os.link(made, self.file)
            finally:
                made.unlink(missing_ok=True)
            opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> SignerFailed:
        return SignerFailed(f"{self.file} cannot be used: {error.strerror}")


def _new() -> tuple[str, str]:
    """An alias that no other host makes up, and a passphrase."""
    return f"k{secrets.token_hex(4)}", secrets.token_hex(_SECRET_BYTES)
