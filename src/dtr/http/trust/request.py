"""A request of the notary protocol, and the answer to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dtr.http.bearer import actor_of, host_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dtr.accounts import Claims
    from dtr.events import Actor
    from dtr.http.trust.routes import Route
    from dtr.http.types import Header, Receive, Scope, Send


@dataclass(slots=True)
class Request:
    """A request under way."""

    scope: Scope
    receive: Receive
    send: Send
    route: Route
    headers: dict[bytes, bytes]
    claims: Claims = field(init=False)
    """What its token says, once that was verified."""
    path: str = ""
    """The repository of the collection, as the collection's name has it."""
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


async def respond(request: Request, status: int, body: bytes, headers: Iterable[Header] = ()) -> None:
    """Send an answer, which HEAD gets without the body."""
    request.is_answered = True
    await request.send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    is_head = request.scope["method"] == "HEAD"
    await request.send({"type": "http.response.body", "body": b"" if is_head else body})
