"""
What each error is on the wire of the notary protocol (notary-v1, section 2.4).

Clients read the first 1,024 bytes of an error and, where they get 400, know its `detail` by its name: that is the
only text of the server that they show. What the protocol has no code for is told in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from dtr.db import DatabaseError
from dtr.signer import SignerError
from dtr.trust import CannotSign, FileUnknown, RepositoryGone, VersionConflict
from dtr.tuf import Malformed, RuleBroken, StoredBroken

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtr.http.trust.routes import Operation
    from dtr.http.types import Header

_LARGEST_BODY = 1023
_LONGEST_MESSAGE = 150
_LONGEST_DETAIL = 300
"""Both together, with every character escaped, are below that."""


class Refused(Exception):
    """A request that this layer refuses by itself."""

    def __init__(
        self, status: int, code: str, message: str, detail: Any = None, headers: tuple[Header, ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers = headers


def rejected(code: str, message: str) -> Refused:
    """A change that is refused for a reason that clients show."""
    return Refused(400, code, message, _detail("ErrValidation", message))


def unknown_repository(operation: Operation, path: str) -> Refused:
    """What is said to who may know that there is no such repository."""
    return not_ours(operation, f"repository {path} does not exist: it has to be created first")


def not_ours(operation: Operation, message: str) -> Refused:
    """What is said of a collection that this server does not have, and would not take."""
    if operation == "UpdateTUF":
        return rejected("INVALID_GUN", message)
    return Refused(404, "METADATA_NOT_FOUND", message)


_TABLE: dict[type[Exception], Callable[[Any], Refused]] = {
    Malformed: lambda e: Refused(400, "MALFORMED_JSON", str(e)),
    RuleBroken: lambda e: Refused(
        400, "INVALID_UPDATE", "the update is not valid", _detail(e.name, e.message, e.missing)
    ),
    VersionConflict: lambda e: Refused(400, "VERSION", str(e), {}),
    FileUnknown: lambda _: Refused(404, "METADATA_NOT_FOUND", "there is no such metadata", {}),
    RepositoryGone: lambda _: Refused(404, "METADATA_NOT_FOUND", "the repository was deleted"),
    CannotSign: lambda e: Refused(500, "UNKNOWN", str(e)),
    StoredBroken: lambda _: Refused(500, "UNKNOWN", "what is stored of the collection is broken"),
    SignerError: lambda _: Refused(500, "UNKNOWN", "the signer does not sign"),
    DatabaseError: lambda _: Refused(500, "UNKNOWN", "the database does not answer"),
}
_OF_UPDATES: dict[type[Exception], Callable[[Any], Refused]] = {
    RepositoryGone: lambda _: rejected("INVALID_GUN", "the repository was deleted"),
    CannotSign: lambda e: rejected("INVALID_UPDATE", str(e)),
    StoredBroken: lambda _: Refused(400, "INVALID_UPDATE", "what is stored of the collection is broken"),
    SignerError: lambda _: rejected("INVALID_UPDATE", "the signer does not sign at present"),
    DatabaseError: lambda _: Refused(500, "UPDATING", "the update was not stored"),
}


def refusal(error: Exception, operation: Operation) -> Refused | None:
    """What a client is told about `error`; None: nothing but that something went wrong."""
    if isinstance(error, Refused):
        return error
    table = _TABLE | _OF_UPDATES if operation == "UpdateTUF" else _TABLE
    for kind in type(error).__mro__:
        known = table.get(kind)
        if known is not None:
            return known(error)
    return None


def body_of(refused: Refused) -> bytes:
    """The error body; what would make it too long for clients is cut, and then left out."""
    error = {"code": refused.code, "message": _cut(refused.message, _LONGEST_MESSAGE)}
    detail = refused.detail
    if detail is not None:
        body = msgspec.json.encode({"errors": [{**error, "detail": detail}]})
        if len(body) <= _LARGEST_BODY:
            return body
    return msgspec.json.encode({"errors": [error]})


def _detail(name: str, message: str, missing: str | None = None) -> dict[str, Any]:
    """The form in which clients know errors of validation."""
    error = {"Msg": _cut(message, _LONGEST_DETAIL)}
    return {"Name": name, "Error": error if missing is None else {"Missing": missing, **error}}


def _cut(text: str, longest: int) -> str:
    printable = "".join(char if char.isascii() and char.isprintable() else "?" for char in text[: longest + 1])
    return printable if len(printable) <= longest else f"{printable[: longest - 3]}..."
