"""
Being let in by another registry.

"Docker Registry v2 authentication" of the distribution project: a registry names a token service in its challenge,
which is asked with Basic credentials (GET), or with a token that stands for a log-in (POST, OAuth 2). With a user
name, a token is a password, and nothing else is tried: registries count wrong log-ins. Credentials go to the
registry and to the service that it names, never in the clear when the registry itself is behind TLS.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from dtr.outbound import OutboundError, find_fault
from dtr.remotes.answers import read_limited, refusal
from dtr.remotes.challenges import parse_challenges
from dtr.remotes.errors import RemoteBroken, RemoteDenied, RemoteUnreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dtr.outbound import Client
    from dtr.remotes.challenges import Challenge
    from dtr.remotes.remote import Remote

_LARGEST_ANSWER = 64 * 1024
_LONGEST_TOKEN = 16 * 1024
_LIFE_SECONDS = 60.0
"""Of a token of which nothing else is said: token authentication specification, `expires_in`."""
_LONGEST_LIFE = 86_400
_CLIENT = "dtr"
_UNSUPPORTED = frozenset({404, 405, 415, 501})
"""So answer services that do not know tokens that stand for a log-in."""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    renew_at: float

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() < self.renew_at


class Authorization:
    """What is sent as ``Authorization`` to one registry, whose challenges say how."""

    def __init__(self, client: Client, remote: Remote, headers: Mapping[str, str]) -> None:
        self._client = client
        self._remote = remote
        self._headers = headers
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, ...], _Token] = {}
        self._lock = asyncio.Lock()

    @property
    def challenge(self) -> Challenge | None:
        """The one that is answered; None: there was none yet."""
        return self._challenge

    def learn(self, headers: Iterable[str]) -> bool:
        """Read the challenges of an answer; whether there is one that can be met."""
        found = {one.scheme: one for one in reversed(parse_challenges(headers))}
        best = found.get("bearer") or found.get("basic")
        if best is not None:
            self._challenge = best
        return best is not None

    async def header(self, scopes: Iterable[str]) -> str | None:
        """The header for a request that needs these scopes; None: none was asked for. Raises RemoteError."""
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            if not self._remote.username and not self._remote.token:
                raise RemoteDenied("the remote wants credentials")
            return self._basic()
        return f"Bearer {(await self.token(scopes)).text}"

    async def token(self, scopes: Iterable[str]) -> _Token:
        """A token for these scopes, which is good for a while. Raises RemoteError."""
        wanted = tuple(scopes)
        async with self._lock:
            found = self._tokens.get(wanted)
            if found is None or not found.is_fresh:
                found = self._tokens[wanted] = await self._fetch(wanted)
            return found

    def forget(self) -> None:
        """The tokens were refused: get others."""
        self._tokens.clear()

    def redact(self, text: str) -> str:
        """A text of the remote without what is secret."""
        secrets = [self._remote.password, self._remote.token, *(one.text for one in self._tokens.values())]
        if self._remote.username or self._remote.token:
            secrets.append(self._basic().partition(" ")[2])
        for secret in filter(None, secrets):
            text = text.replace(secret, "********")
        return text

    def _basic(self) -> str:
        name = self._remote.username or "<token>"
        credentials = f"{name}:{self._remote.token or self._remote.password}"
        return "Basic " + base64.b64encode(credentials.encode()).decode()

    async def _fetch(self, scopes: tuple[str, ...]) -> _Token:
        assert self._challenge is not None
        realm = self._challenge.parameters.get("realm", "")
        if find_fault(realm) or not realm.startswith(("https://", *(("http://",) if self._is_plain else ()))):
            raise RemoteBroken("the remote names no token service that credentials may be sent to")
        about = {"service": self._challenge.parameters.get("service", ""), "client_id": _CLIENT}
        document = None
        if self._remote.token and not self._remote.username:
            form = {
                **about,
                "grant_type": "refresh_token",
                "refresh_token": self._remote.token,
                "scope": " ".join(scopes),
            }
            document = await self._ask("POST", realm, form)
        if document is None:
            query = [*about.items(), *(("scope", one) for one in scopes)]
            if self._remote.username:
                query.append(("account", self._remote.username))
            separator = "&" if urlsplit(realm).query else "?"
            document = await self._ask("GET", realm + separator + urlencode(query), None)
            assert document is not None
        return _read(document)

    @property
    def _is_plain(self) -> bool:
        return self._remote.url.startswith("http://")

    async def _ask(self, method: str, url: str, form: Mapping[str, str] | None) -> dict[str, Any] | None:
        """What the token service answers; None: it does not know such a form. Raises RemoteError."""
        headers = dict(self._headers)
        data = None
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            data = urlencode(form).encode()
        elif self._remote.username or self._remote.token:
            headers["Authorization"] = self._basic()
        try:
            async with self._client.request(method, url, headers=headers, data=data) as response:
                content = await read_limited(response, _LARGEST_ANSWER)
        except (OutboundError, TimeoutError) as error:
            reason = str(error) or "there was no answer in time"
            raise RemoteUnreachable(f"the token service of the remote: {reason}") from error
        if response.status == 200:
            try:
                document = json.loads(content)
            except (ValueError, RecursionError):
                document = None
            if not isinstance(document, dict):
                raise RemoteBroken("the token service of the remote does not answer with JSON")
            return document
        if form is not None and response.status in _UNSUPPORTED:
            return None
        if response.status in {400, 401, 403}:
            who = "these credentials" if self._remote.username or self._remote.token else "anonymous clients"
            raise RemoteDenied(f"the remote does not let {who} in")
        raise refusal(response, content, "the token service of the remote", self.redact)


def _read(document: dict[str, Any]) -> _Token:
    text = document.get("token") or document.get("access_token")
    if (
        not isinstance(text, str)
        or not 0 < len(text) <= _LONGEST_TOKEN
        or not (text.isascii() and text.isprintable())
    ):
        raise RemoteBroken("the token service of the remote gives no token")
    life = document.get("expires_in")
    seconds = float(min(life, _LONGEST_LIFE)) if isinstance(life, int | float) and life > 0 else _LIFE_SECONDS
    # It has to be good still when the request arrives, after it waited in line for others.
    return _Token(text, time.monotonic() + seconds - min(30.0, seconds / 4))
