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
_NAMES_OF_SECRETS = (
    "password|passwd|secret|token|authorization|cookie|credential|signature|(?:private|access|api)[_-]?key"
)
# Every repetition that may fail is bounded, so that no text takes longer than its length allows.
_SECRETS = re.compile(
    r"\beyJ[A-Za-z0-9_-]{5,1000}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # a JSON Web Token
    r"|dtr[ars]_[A-Za-z0-9_-]{8,}"  # one of our own tokens
    r"|\$argon2[a-z]{0,2}\$[^\s\"';)]+"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]{0,20000}"
    r"|(?P<jwk>[\"']d[\"']\s{0,2}:\s{0,2}[\"'])[A-Za-z0-9_-]{16,}"
    r"|(?P<header>\b(?:Basic|Bearer)\s{1,4})[A-Za-z0-9+/=_.~-]{4,}"
    r"|(?P<url>://[^:/@\s]{0,256}:)[^/\s]{1,1024}(?=@)"
    rf"|(?P<field>(?:{_NAMES_OF_SECRETS})[\w-]{{0,24}}(?:\\{{0,3}}[\"']?\s{{0,3}}[=:]\s{{0,3}}|[\"'],\s{{0,2}}b?))"
    r"(?:"
    r"\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?"  # quoted, with escapes in it
    r"|\\{1,3}[\"'](?:(?!\\{1,3}[\"']).)*"  # quoted with escaped quotes: JSON within a text
    r"|(?:(?:Basic|Bearer|Digest)\s{1,4})?[^\s\"'&,;)}\]]+"
    r")",
    re.IGNORECASE | re.DOTALL,
)
_SECRET_NAMES = re.compile(_NAMES_OF_SECRETS, re.IGNORECASE)
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_OWN = frozenset({"time", "level", "logger", "event"})
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_access = logging.getLogger("dtr.access")
_DELAY_SECONDS = 0.1
_MOST_WAITING = 64 * 1024
_SHORT_PATH = 512
_LONGEST_PATH = 2048


def configure(level: str, form: str) -> None:
    """Set the log up; `level` and `form` as the settings name them."""
    output = (
        _Output(_line_of_json, _request_of_json) if form == "json" else _Output(_line_of_text, _request_of_text)
    )
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
    moment = time.time()
    line = _Request(
        time=_time(moment),
        level="info",
        logger="dtr.access",
        event="request",
        request_id=facts.id,
        remote=facts.remote,
        method=scope["method"],
        path=_masked(scope["path"]),  # without the query: it may carry secrets
        status=facts.status,
        actor=facts.actor,
        repository=facts.repository and _masked(facts.repository),
        bytes_in=facts.bytes_in,
        bytes_out=facts.bytes_out,
        ms=round(facts.seconds * 1000, 2),
        reason=facts.reason and mask(facts.reason),
    )
    for handler in logging.root.handlers:
        if isinstance(handler, _Output):
            handler.append(moment, line)


class _Request(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The line of a request, in the order of its fields: what is empty is left out."""

    time: str
    level: str
    logger: str
    event: str
    request_id: str
    remote: str
    method: str
    path: str
    status: int
    actor: str = ""
    repository: str = ""
    bytes_in: int
    bytes_out: int
    ms: float
    reason: str = ""


def mask(text: str) -> str:
    """`text` without what looks like a secret."""
    return _SECRETS.sub(_hidden, text)


def _hidden(match: re.Match[str]) -> str:
    return (match["jwk"] or match["header"] or match["url"] or match["field"] or "") + _MASK


def _masked(path: str) -> str:
    """The same for paths, of which many come again; clients may send very long ones."""
    return _masked_short(path) if len(path) <= _SHORT_PATH else mask(path[:_LONGEST_PATH])


@lru_cache(maxsize=4096)
def _masked_short(path: str) -> str:
    return mask(path)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in record.__dict__.items():
        if name in _STANDARD or (isinstance(value, str) and not value):
            continue
        key = f"{name}_" if name in _OWN else name
        if _SECRET_NAMES.search(name):
            found[key] = _MASK
        elif isinstance(value, int | float | None):
            found[key] = value
        else:
            found[key] = mask(_text(value))
    return found


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - whatever it is, the line must be written
        return f"<{type(value).__name__} without a text: {type(error).__name__}>"


def _message(record: logging.LogRecord) -> str:
    try:
        return mask(record.getMessage())
    except Exception:  # noqa: BLE001 - the arguments do not fit, and are not shown: they may be secrets
        return mask(_text(record.msg))


class _Output(logging.Handler):
    """Writes lines to the standard error output."""

    def __init__(
        self,
        form: Callable[[float, str, str, str, dict[str, Any]], bytes],
        form_request: Callable[[float, _Request], bytes],
    ) -> None:
        super().__init__()
        self._form = form
        self._form_request = form_request
        assert self.lock is not None
        self._guard = self.lock
        self._waiting: list[bytes] = []
        self._size = 0

    def append(self, moment: float, request: _Request) -> None:
        """The line of a request, which may wait a moment for others."""
        try:
            line = self._form_request(moment, request)
        except UnicodeEncodeError:  # `_line_of_json` knows what to do
            line = self._form(moment, *_parts(request))
        with self._guard:  # other threads log, too
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
        fields = _fields(record)
        error = _error(record)
        if error is not None:
            fields["error"] = error
        line = self._form(record.created, record.levelname.lower(), record.name, _message(record), fields)
        with self._guard:
            self._waiting.append(line)
        self.flush()

    def flush(self) -> None:
        """See `logging.Handler`. What cannot be written is lost: the log never breaks the program."""
        with self._guard, contextlib.suppress(OSError, ValueError):
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
        cleaned = {
            _printable(key): _printable(value) if isinstance(value, str) else value for key, value in line.items()
        }
        return _encode(cleaned) + b"\n"


def _line_of_text(moment: float, level: str, logger: str, event: str, fields: dict[str, Any]) -> bytes:
    shown = " ".join(f"{key}={value}" for key, value in fields.items() if key != "error")
    text = f"{_time(moment)[11:23]} {level.upper():<7} {logger} {event} {shown}".rstrip()
    # Only an error has several lines: nobody makes up others.
    text = _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)
    error = fields.get("error")
    return (f"{text}\n{str(error).rstrip()}\n" if error else f"{text}\n").encode("utf-8", "backslashreplace")


def _request_of_json(_moment: float, request: _Request) -> bytes:
    return _encode(request) + b"\n"


def _request_of_text(moment: float, request: _Request) -> bytes:
    return _line_of_text(moment, *_parts(request))


def _parts(request: _Request) -> tuple[str, str, str, dict[str, Any]]:
    """Level, logger, event and further fields."""
    fields = msgspec.structs.asdict(request)
    level, logger, event = fields["level"], fields["logger"], fields["event"]
    return level, logger, event, {name: fields[name] for name in fields if name not in _OWN and fields[name] != ""}


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _time(moment: float) -> str:
    return f"{_second(int(moment))}.{int(moment % 1 * 1000):03d}+00:00"


_encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
