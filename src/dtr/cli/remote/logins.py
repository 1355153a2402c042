"""Where this user is logged in: one file of the user's own, which nobody else can read."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import mkstemp
from typing import Any

from dtr.cli._common import Failure
from dtr.cli.remote.client import Access, Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What is kept of a log-in."""

    server: str
    user: str
    token: str = field(repr=False)
    token_id: str = ""
    """Of a token that was made for this log-in, and ends with it."""
    ca: str | None = None
    insecure: bool = False

    @property
    def access(self) -> Access:
        """What a client needs."""
        return Access(
            server=self.server, user=self.user, secret=self.token, trust=Trust(self.ca, insecure=self.insecure)
        )


class Logins:
    """The log-ins of this user, by server. The last one is the current one."""

    def __init__(self, file: Path | None = None) -> None:
        base = os.environ.get("XDG_CONFIG_HOME")
        self.file = file or (Path(base) if base else Path.home() / ".config") / "dtr" / "logins.json"

    def find(self, server: str | None = None) -> Login | None:
        """The log-in at a server; None: the current one. Raises Failure."""
        known = self._read()
        return known.get(server) if server is not None else next(reversed(known.values()), None)

    def put(self, login: Login) -> None:
        """Keep a log-in, which is then the current one. Raises Failure."""
        known = self._read()
        known.pop(login.server, None)
        self._write({**known, login.server: login})

    def remove(self, server: str) -> None:
        """Forget a log-in. Raises Failure."""
        known = self._read()
        if known.pop(server, None) is not None:
            self._write(known)

    def _read(self) -> dict[str, Login]:
        try:
            entries: list[dict[str, Any]] = json.loads(self.file.read_text(encoding="utf-8"))
            return {entry["server"]: Login(**entry) for entry in entries}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError):
            raise Failure(f"{self.file} cannot be understood: remove it, and log in again") from None
        except OSError as error:
            raise Failure(f"{self.file}: {error.strerror}") from None

    def _write(self, logins: dict[str, Login]) -> None:
        """Replace the file as a whole; it is never readable by others (mkstemp)."""
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = mkstemp(dir=self.file.parent, prefix=".logins-")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    json.dump([asdict(one) for one in logins.values()], file, indent=2)
                Path(temporary).replace(self.file)
            except BaseException:
                with suppress(OSError):
                    Path(temporary).unlink()
                raise
        except OSError as error:
            raise Failure(f"{self.file}: {error.strerror}") from None
