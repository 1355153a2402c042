"""
The token service, ``/auth/token``.

It speaks the "Docker Registry v2 authentication" of the distribution project: GET with Basic credentials ("Token
Authentication Specification") and POST with OAuth 2 grants ("OAuth2 Token Authentication"). Whoever asks gets a
token; what the caller may not do is simply not in it. Wrong credentials are refused, never taken for none.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dtr.accounts import AccountUnknown, Action, BadCredentials, Facts, Operation, TooManyAttempts, may
from dtr.db import DatabaseError, DatabaseFull
from dtr.http.bearer import host_of
from dtr.http.bodies import BodyError, BodyTooLarge, read_body
from dtr.oci import NameInvalid, parse_repository_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dtr.accounts import Accounts, Login, Standing, Tokens
    from dtr.http.hosts import Hosts
    from dtr.http.types import Receive, Scope, Send
    from dtr.mirrors import Upstreams
    from dtr.settings import LiveSettings

_LARGEST_FORM = 64 * 1024
_MOST_SCOPES = 100
_SCOPE = re.compile(r"(?P<type>[a-z]+)(?:\([a-z]+\))?:(?P<name>[^\s]{1,320}):(?P<actions>[^\s:]{0,100})")
_LONGEST_TOKEN = 7 * 1024
"""Proxies take no longer line in a header: nginx has 8 KiB for it."""
_CATALOG = "registry:catalog:*"
_ALL = frozenset({"pull", "push", "delete"})
_EVERYTHING = "*"
"""What clients of content trust ask for to delete a collection, or to get new keys of the server."""


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = tuple(headers)


class _Wanted(Struct, frozen=True):
    """A scope of a repository: the name as it was asked for, the repository that it means, and actions."""

    name: str
    path: str
    actions: frozenset[str]

    @property
    def is_collection(self) -> bool:
        """Whether it is asked for under the registry's address, as content trust does."""
        return self.name != self.path


class TokenService:
    """The ASGI application of ``/auth/token`` and ``/auth/jwks.json``."""

    def __init__(
        self,
        accounts: Accounts,
        tokens: Tokens,
        upstreams: Upstreams,
        settings: LiveSettings,
        hosts: Hosts,
        *,
        service: str,
    ) -> None:
        self._accounts = accounts
        self._tokens = tokens
        self._service = service
        self._upstreams = upstreams
        self._settings = settings
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        facts = scope.get("dtr.facts")
        if facts is not None:
            facts.route = "token"
        headers: tuple[tuple[bytes, bytes], ...] = ()
        try:
            status, document = await self._answer(scope, receive)
        except _Refused as refused:
            status, headers = refused.status, refused.headers
            document = {"errors": [{"code": refused.code, "message": str(refused), "detail": None}]}
        except DatabaseFull:
            status = 507
            document = {"errors": [{"code": "TOOMANYREQUESTS", "message": "the registry's database is full"}]}
        except DatabaseError as error:
            if facts is not None:
                facts.reason = str(error)
            status, headers = 503, ((b"retry-after", b"5"),)
            document = {"errors": [{"code": "UNAVAILABLE", "message": "the metadata database does not answer"}]}
        body = msgspec.json.encode(document)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(body)),
                    (b"cache-control", b"no-store"),
                    *headers,
                ],
            }
        )
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, dict[str, Any]]:
        path, method = scope["path"], scope["method"]
        if path == "/auth/jwks.json":
            if method not in {"GET", "HEAD"}:
                raise _Refused(405, "UNSUPPORTED", "the method is not allowed here", [(b"allow", b"GET, HEAD")])
            return 200, await self._tokens.keys.jwks()
        if path != "/auth/token":
            raise _Refused(404, "UNSUPPORTED", "there is no such endpoint")
        if method == "GET":
            return 200, await self._get(scope)
        if method == "POST":
            return 200, await self._post(scope, receive)
        raise _Refused(405, "UNSUPPORTED", "the method is not allowed here", [(b"allow", b"GET, POST")])

    async def _get(self, scope: Scope) -> dict[str, Any]:
        query = _form(scope["query_string"])
        headers = dict(scope["headers"])
        login = None
        if b"authorization" in headers:
            credentials = _basic(headers[b"authorization"])
            if credentials is None:
                raise self._unauthorized("the credentials cannot be read")
            login = await self._log_in(scope, *credentials)
        answer = await self._issue(scope, login, _scopes(query))
        answer["token"] = answer["access_token"]
        if login is not None and query.get("offline_token", [""])[0] == "true":
            answer["refresh_token"] = await self._refresh_token(scope, login, query)
        return answer

    async def _post(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        headers = dict(scope["headers"])
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/x-www-form-urlencoded":
            raise _Refused(415, "UNSUPPORTED", "the form is application/x-www-form-urlencoded")
        try:
            form = _form(await read_body(scope, receive, _LARGEST_FORM))
        except BodyTooLarge:
            raise _Refused(413, "UNSUPPORTED", f"the form has at most {_LARGEST_FORM} bytes") from None
        except BodyError:
            raise _Refused(400, "UNSUPPORTED", "the form did not arrive whole") from None
        grant = form.get("grant_type", [""])[0]
        refresh = None
        if grant == "password":
            name, secret = form.get("username", [""])[0], form.get("password", [""])[0]
            login = await self._log_in(scope, name, secret)
            if form.get("access_type", [""])[0] == "offline":
                refresh = await self._refresh_token(scope, login, form)
        elif grant == "refresh_token":
            given = form.get("refresh_token", [""])[0]
            login = await self._authenticate(
                scope, lambda remote: self._accounts.logins.authenticate_token(given, "refresh", remote)
            )
            refresh = given
        else:
            raise _Refused(400, "UNSUPPORTED", "grant_type is password or refresh_token")
        answer = await self._issue(scope, login, _scopes(form))
        if refresh is not None:
            answer["refresh_token"] = refresh
        return answer

    async def _log_in(self, scope: Scope, name: str, secret: str) -> Login:
        return await self._authenticate(
            scope, lambda remote: self._accounts.logins.authenticate(name, secret, remote)
        )

    async def _authenticate(self, scope: Scope, check: Callable[[str], Any]) -> Login:
        try:
            login: Login = await check(_address(scope))
        except BadCredentials as error:
            raise self._unauthorized(str(error)) from None
        except TooManyAttempts as error:
            retry = [(b"retry-after", b"%d" % error.retry_after)]
            raise _Refused(429, "TOOMANYREQUESTS", str(error), retry) from None
        facts = scope.get("dtr.facts")
        if facts is not None:
            facts.identify(login.account.name)
        return login

    def _unauthorized(self, message: str) -> _Refused:
        challenge = f'Basic realm="{self._service}"'.encode()
        return _Refused(401, "UNAUTHORIZED", message, [(b"www-authenticate", challenge)])

    async def _refresh_token(self, scope: Scope, login: Login, form: dict[str, list[str]]) -> str:
        client = form.get("client_id", [""])[0]
        user_agent = dict(scope["headers"]).get(b"user-agent", b"").decode("latin-1")
        try:
            return await self._accounts.tokens.create(
                login.account.name,
                f"log-in of {_printable(client) or 'a client'}",
                kind="refresh",
                parent=login.token or None,
                proof=login.proof,
                user_agent=_printable(user_agent),
                by=login.account.acting(_address(scope)),
            )
        except (AccountUnknown, BadCredentials):  # the account, or its password, has just ended
            raise self._unauthorized(str(BadCredentials())) from None

    async def _issue(self, scope: Scope, login: Login | None, texts: list[str]) -> dict[str, Any]:
        host = host_of(dict(scope["headers"]))
        wanted, catalog = _parse(texts, lambda name: self._path(name, host))
        account = login.account if login else None
        account_id = account.id if account else None
        limits = login.scope if login else None
        paths = {one.path for one in wanted}
        standings = await self._accounts.standings.find_all(account_id, paths, scope=limits) if paths else {}
        access: dict[str, frozenset[str]] = {}
        for one in wanted:
            standing = standings[one.path]
            granted = one.actions & (
                _of_collection(standing) if one.is_collection else self._actions(one.path, standing)
            )
            if granted:
                access[one.name] = access.get(one.name, frozenset()) | granted
        may_list = catalog and account is not None
        until = login.expires_at // 1000 if login and login.expires_at is not None else None
        token = await self._tokens.issue(
            account_id,
            account.name if account else "",
            access,
            repositories={
                one.name: number
                for one in wanted
                if not one.is_collection and (number := standings[one.path].repository_id) is not None
            },
            aliases={one.name: one.path for one in wanted if one.is_collection},
            catalog=may_list,
            scope=limits,
            shown=login.token if login else "",
            until=until,
        )
        if len(token) > _LONGEST_TOKEN:
            raise _Refused(400, "UNSUPPORTED", "these are too many scopes for one token")
        life = self._tokens.life_seconds
        granted_scopes = [f"repository:{name}:{','.join(sorted(actions))}" for name, actions in access.items()]
        if may_list:
            granted_scopes.append(_CATALOG)
        return {
            "access_token": token,
            "expires_in": life if until is None else min(life, max(0, until - int(time.time()))),
            "issued_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "scope": " ".join(granted_scopes),
        }

    def _actions(self, path: str, standing: Standing) -> frozenset[str]:
        """What a token may grant on the repository at `path`, there or not."""
        facts: Facts = standing.facts
        if standing.repository_id is None:
            # Whoever may make it is told that it is missing; for the others it looks as any private one.
            may_make = may(facts, Operation.CREATE_REPOSITORY) or (
                self._settings.current.create_repository_on_push and may(facts, Operation.CREATE_ON_PUSH)
            )
            # Under a name that a repository had, pulls of it go on.
            redirect = standing.redirect
            pulls = (
                frozenset({"pull"}) if redirect and may(redirect.standing.facts, Operation.PULL) else frozenset()
            )
            # A pull may make it, when an upstream has it.
            visibility = self._upstreams.visibility_in(path.partition("/")[0])
            if visibility and may(replace(facts, is_public=visibility == "public"), Operation.PULL):
                pulls |= {"pull"}
            return pulls | {one for one in _ALL if may_make and _is_good_for(facts, one)}
        granted = set()
        if may(facts, Operation.PULL):
            granted.add("pull")
        if may(facts, Operation.PUSH):
            granted.add("push")
        if may(facts, Operation.DELETE_TAG):
            granted.add("delete")
        return frozenset(granted)

    def _path(self, name: str, host: str) -> str:
        """
        The path that a name means.

        Content trust puts the registry's address before it: one of this server, or one with a port, which no
        namespace looks like.
        """
        server, path = self._hosts.split(name, host)
        first, _, rest = name.partition("/")
        return rest if not server and ":" in first else path


def _of_collection(standing: Standing) -> frozenset[str]:
    """
    What a token may grant on the collection of content trust of a repository, there or not.

    A collection keeps its name when the repository gets another one. It is a list of tags: auditors see it.
    """
    if standing.repository_id is None and standing.redirect is not None:
        standing = standing.redirect.standing
    if standing.repository_id is None:  # who may make it is told that it is missing
        everything = frozenset({"pull", "push", _EVERYTHING})
        return everything if may(standing.facts, Operation.CREATE_REPOSITORY) else frozenset()
    rights = {"pull": Operation.SEE_TAGS, "push": Operation.PUSH, _EVERYTHING: Operation.MANAGE_TRUST}
    return frozenset(action for action, operation in rights.items() if may(standing.facts, operation))


def _is_good_for(facts: Facts, action: str) -> bool:
    """Whether the token that was shown is good for an action."""
    return facts.actions is None or Action(action) in facts.actions


def _address(scope: Scope) -> str:
    """Where a request came from; empty: unknown."""
    client = scope.get("client")
    return client[0] if client else ""


def _form(raw: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(raw.decode("utf-8"), keep_blank_values=True, max_num_fields=2 * _MOST_SCOPES)
    except ValueError:
        raise _Refused(400, "UNSUPPORTED", "the parameters cannot be read") from None


def _basic(header: bytes) -> tuple[str, str] | None:
    """Name and password of a header `Authorization` (RFC 7617); None: it is something else."""
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except ValueError:
        return None
    return (name, secret) if colon else None


def _scopes(form: dict[str, list[str]]) -> list[str]:
    found = [scope for value in form.get("scope", []) for scope in value.split(" ") if scope]
    if len(found) > _MOST_SCOPES:
        raise _Refused(400, "UNSUPPORTED", f"at most {_MOST_SCOPES} scopes")
    return found


def _parse(texts: list[str], path_of: Callable[[str], str]) -> tuple[list[_Wanted], bool]:
    """
    The scopes of repositories, and whether the catalog is among them. What else there is grants nothing.

    `path_of` says which path a name means.
    """
    wanted = []
    catalog = False
    for text in texts:
        match = _SCOPE.fullmatch(text)
        if match is None:
            continue
        name, actions = match["name"], frozenset(match["actions"].split(","))
        if match["type"] == "registry" and name == "catalog":
            catalog = catalog or _EVERYTHING in actions
        elif match["type"] == "repository":
            with contextlib.suppress(NameInvalid):
                path = parse_repository_name(path_of(name))
                all_of_them = _ALL | {_EVERYTHING}
                wanted.append(_Wanted(name, path, all_of_them if _EVERYTHING in actions else actions & _ALL))
    return wanted, catalog


def _printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable())[:200]
