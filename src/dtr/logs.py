"""
The log: lines of JSON on the standard error output, or text for people.

Everything goes through the standard `logging` module. What looks like a secret is masked wherever it stands: in
messages, in fields, and in the texts of exceptions.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import sys
import traceback
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
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


def configure(level: str, form: str) -> None:
    """Set the log up; `level` and `form` as the settings name them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JSON() if form == "json" else _Console())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    for name in ("botocore", "aiobotocore", "asyncio", "alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def access(scope: Scope, facts: Facts) -> None:
    """Log a request that was answered."""
    if not _access.isEnabledFor(logging.INFO):
        return
    _access.info(
        "request",
        extra={
            "request_id": facts.id,
            "remote": facts.remote,
            "method": scope["method"],
            "path": scope["path"],  # without the query: it may carry secrets
            "status": facts.status,
            "actor": facts.actor,
            "repository": facts.repository,
            "bytes_in": facts.bytes_in,
            "bytes_out": facts.bytes_out,
            "ms": round(facts.seconds * 1000, 2),
        },
    )


def mask(text: str) -> str:
    """`text` without what looks like a secret."""
    return _SECRETS.sub(lambda match: (match["header"] or match["url"] or match["field"] or "") + _MASK, text)


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


def _time(record: logging.LogRecord) -> str:
    return dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds")


def _error(record: logging.LogRecord) -> str | None:
    if not record.exc_info or record.exc_info[1] is None:
        return None
    return mask("".join(traceback.format_exception(*record.exc_info)))


class _JSON(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": mask(record.getMessage()),
            **_fields(record),
        }
        error = _error(record)
        if error is not None:
            line["error"] = error
        # A lone surrogate in a path is nothing that JSON can say.
        try:
            return msgspec.json.encode(line).decode()
        except UnicodeEncodeError:
            cleaned = {key: _printable(value) for key, value in line.items()}
            return msgspec.json.encode(cleaned).decode()


class _Console(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={_printable(value)}" for key, value in _fields(record).items())
        message = _printable(mask(record.getMessage()))
        text = f"{_time(record)[11:23]} {record.levelname:<7} {message} {fields}".rstrip()
        error = _error(record)
        return f"{text}\n{error.rstrip()}" if error else text


def _printable(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
