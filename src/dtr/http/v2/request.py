"""A request of the registry API: what its path asks for, its conditions, and the answer to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from dtr.http.bearer import actor_of, host_of
from dtr.http.bodies import ANSWER
from dtr.http.v2.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dtr.accounts import Claims
    from dtr.events import Actor
    from dtr.http.bodies import AnswerAtOnce
    from dtr.http.types import Header, Receive, Scope, Send

_WITH_ARGUMENT = frozenset({"manifests", "blobs", "referrers"})
_NONE: dict[str, Any] = {}
_VERSION: Header = (b"docker-distribution-api-version", b"registry/2.0")


@dataclass(slots=True)
class Request:
    """A request under way."""

    scope: Scope
    receive: Receive
    send: Send
    method: str
    kind: str
    """What the path asks for; see `route`."""
    name: str
    """The repository's path as the client gave it."""
    argument: str
    """What follows in the path: a reference, a digest, the id of an upload."""
    headers: dict[bytes, bytes]
    claims: Claims = field(init=False)
    """What its token says, once that was verified."""
    is_answered: bool = False
    """Whether the head of an answer was sent: no other can be given then."""

    @property
    def host(self) -> str:
        """The registry's address as the client uses it."""
        return host_of(self.headers)

    @property
    def actor(self) -> Actor:
        """Who sent it, for events, once its token was verified."""
        return actor_of(self.claims, self.scope)

    @property
    def query(self) -> dict[str, list[str]]:
        """The parameters of the query."""
        try:
            return parse_qs(self.scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=100)
        except ValueError:
            raise Refused(400, "UNSUPPORTED", "the query cannot be read") from None


def route(path: str) -> tuple[str, str, str]:
    """
    What a path below ``/v2`` asks for: kind ("": nothing there is), repository name, argument.

    The end of the path decides, as names have any number of parts.
    """
    if path in {"/v2/", "/v2"}:
        return "ping", "", ""
    if path == "/v2/_catalog":
        return "catalog", "", ""
    head, _, last = path.rpartition("/")
    head, _, kind = head.rpartition("/")
    name = head[4:]
    if kind == "uploads" and name.endswith("/blobs"):
        return ("upload" if last else "uploads"), name[:-6], last
    if not name:
        return "", "", ""
    if kind == "blobs" and last == "uploads":
        return "uploads", name, ""
    if (kind in _WITH_ARGUMENT and last) or (kind == "tags" and last == "list"):
        return kind, name, last
    return "", "", ""


def not_modified(request: Request, digest: bytes) -> bool:
    """RFC 9110, section 13.1.2. The digest is the entity tag."""
    wanted = request.headers.get(b"if-none-match")
    if wanted is None:
        return False
    tags = {tag.strip().removeprefix(b"W/").strip(b'"') for tag in wanted.split(b",")}
    return digest in tags or b"*" in tags


def range_applies(request: Request, digest: bytes) -> bool:
    """RFC 9110, section 13.1.5."""
    condition = request.headers.get(b"if-range")
    return condition is None or condition.strip(b' "') == digest


async def start_response(request: Request, status: int, headers: Iterable[Header]) -> None:
    """Send the head of the answer."""
    request.is_answered = True
    await request.send({"type": "http.response.start", "status": status, "headers": [_VERSION, *headers]})


async def respond(
    request: Request, status: int, body: bytes, headers: Iterable[Header] = (), *, length: int | None = None
) -> None:
    """Send an answer with a small body, which HEAD does not get; `length` is that of one that was not fetched."""
    every = [_VERSION, *headers]
    at_once: AnswerAtOnce | None = request.scope.get("extensions", _NONE).get(ANSWER)
    if at_once is not None and at_once(status, every, body, length=length):
        request.is_answered = True
        return
    if status not in {204, 304}:
        every.append((b"content-length", b"%d" % (len(body) if length is None else length)))
    request.is_answered = True
    await request.send({"type": "http.response.start", "status": status, "headers": every})
    await request.send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})
