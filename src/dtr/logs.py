"""
The log: lines of JSON on the standard error output, or text for people.

Everything goes through the standard `logging` module. What looks like a secret is masked wherever it stands: in
messages, in fields, and in the texts of exceptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import sys
import time
import traceback
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtr.http.front import Facts
    from dtr.http.types import Scope

_MASK = "********"
_SECRETS = re.compile(
    r"(?P<jwt>\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*)"
    r"|(?P<own>\bdtr[ar]_[A-Za-z0-9_-]{8,})"
    r"|(?P<header>\b(?:Basic|Bearer)\s+)[A-Za-z0-9+/=_.~-]{6,}"
    r"|(?P<url>://[^:/@\s]*:)[^@/\s]+(?=@)"
    r"|(?P<field>\b(?:password|passwd|secret|token|refresh_token|access_token|authorization)[\"']?\s*[=:]\s*[\"']?)"
    r"[^\s\"'&,;)}]+",
    re.IGNORECASE,
)
_SECRET_NAMES = re.compile(r"password|passwd|secret|token|authorization|cookie", re.IGNORECASE)
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_access = logging.getLogger("dtr.access")
_DELAY_SECONDS = 0.1
_MOST_WAITING = 64 * 1024
_SHORT_PATH = 512


def configure(level: str, form: str) -> None:
    """Set the log up; `level` and `form` as the settings name them."""
    output = _Output(_line_of_json if form == "json" else _line_of_text)
    root = logging.getLogger()
    root.handlers[:] = [output]
    root.setLevel(_LEVELS[level])
    for name in ("botocore", "aiobotocore", "asyncio", "alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def access(scope: Scope, facts: Facts) -> None:
    """
    Log a request that was answered.

    A record of the `logging` module would cost as much as the rest of a small request: such lines are made
    directly, and written together after a moment.
    """
    if not _access.isEnabledFor(logging.INFO):
        return
    fields: dict[str, Any] = {
        "request_id": facts.id,
        "remote": facts.remote,
        "method": scope["method"],
        "path": _masked(scope["path"]),  # without the query: it may carry secrets
        "status": facts.status,
    }
    if facts.actor:
        fields["actor"] = facts.actor
    if facts.repository:
        fields["repository"] = _masked(facts.repository)
    fields["bytes_in"] = facts.bytes_in
    fields["bytes_out"] = facts.bytes_out
    fields["ms"] = round(facts.seconds * 1000, 2)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Output):
            handler.append("info", "dtr.access", "request", fields)


def mask(text: str) -> str:
    """`text` without what looks like a secret."""
    return _SECRETS.sub(lambda match: (match["header"] or match["url"] or match["field"] or "") + _MASK, text)


def _masked(path: str) -> str:
    """The same for paths, of which many come again."""
    return _masked_short(path) if len(path) <= _SHORT_PATH else mask(path)


@lru_cache(maxsize=4096)
def _masked_short(path: str) -> str:
    return mask(path)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.__dict__.items():
        if name in _STANDARD or value == "":
            continue
        if _SECRET_NAMES.search(name):
            found[name] = _MASK
        elif isinstance(value, int | float | None):
            found[name] = value
        else:
            found[name] = mask(str(value))
    return found


class _Output(logging.Handler):
    """Writes lines to the standard error output."""

    def __init__(self, form: Callable[[float, str, str, str, dict[str, Any]], bytes]) -> None:
        super().__init__()
        self._form = form
        self._waiting: list[bytes] = []
        self._size = 0

    def append(self, level: str, logger: str, event: str, fields: dict[str, Any]) -> None:
        """A line that may wait a moment for others."""
        line = self._form(time.time(), level, logger, event, fields)
        self._waiting.append(line)
        self._size += len(line)
        if self._size >= _MOST_WAITING:
            self.flush()
        elif len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_later(_DELAY_SECONDS, self.flush)
            except RuntimeError:  # no loop: nobody would come back
                self.flush()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            fields = _fields(record)
            error = _error(record)
            if error is not None:
                fields["error"] = error
            level = record.levelname.lower()
            self._waiting.append(self._form(record.created, level, record.name, mask(record.getMessage()), fields))
            self.flush()
        except Exception:  # noqa: BLE001 - as the logging module has it: the log never breaks the program
            self.handleError(record)

    def flush(self) -> None:
        """See `logging.Handler`."""
        with self.lock or contextlib.nullcontext():
            lines, self._waiting = self._waiting, []
            self._size = 0
            if lines:
                sys.stderr.buffer.write(b"".join(lines))
                sys.stderr.buffer.flush()


def _error(record: logging.LogRecord) -> str | None:
    if not record.exc_info or record.exc_info[1] is None:
        return None
    return mask("".join(traceback.format_exception(*record.exc_info)))


def _line_of_json(moment: float, level: str, logger: str, event: str, fields: dict[str, Any]) -> bytes:
    line = {"time": _time(moment), "level": level, "logger": logger, "event": event, **fields}
    try:
        return _encode(line) + b"\n"
    except UnicodeEncodeError:  # a lone surrogate in a path is nothing that JSON can say
        cleaned = {key: _printable(value) if isinstance(value, str) else value for key, value in line.items()}
        return _encode(cleaned) + b"\n"


def _line_of_text(moment: float, level: str, logger: str, event: str, fields: dict[str, Any]) -> bytes:
    error = fields.pop("error", None)
    shown = " ".join(f"{key}={value}" for key, value in fields.items())
    text = f"{_time(moment)[11:23]} {level.upper():<7} {logger} {event} {shown}".rstrip()
    return _printable(f"{text}\n{error.rstrip()}\n" if error else f"{text}\n").encode()


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _time(moment: float) -> str:
    return f"{_second(int(moment))}.{int(moment % 1 * 1000):03d}+00:00"


_encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
