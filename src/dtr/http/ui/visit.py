"""
A request for a page: who looks, in which language, what they may, and how they are answered.

Handlers get one and give a response. What the API refuses becomes a page that says so, or the form again
(`Visit.submit`).
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import inspect
import json
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from fastapi import Response as Headers
from markupsafe import Markup
from msgspec import Struct
from pydantic import BaseModel, ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dtr.accounts import Operation, SessionUnknown, csrf_token, is_session_secret, may
from dtr.db import DatabaseError
from dtr.http.api import repositories
from dtr.http.api.caller import Caller, address_of, refuse_foreign, session_cookie
from dtr.http.api.errors import ApiError, refusal
from dtr.http.api.paging import COUNT, NEXT, Page
from dtr.http.ui.problems import Problems, Refused, problems_of
from dtr.http.ui.words import LANGUAGES, choose, words_of
from dtr.oci import NameInvalid, parse_repository_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jinja2 import Environment
    from starlette.datastructures import FormData
    from starlette.requests import Request

    from dtr.accounts import Account, Facts, Login
    from dtr.http.api.repositories import RepositoryRecord
    from dtr.http.api.rooms import Rooms

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

THEMES = ("light", "dark")
SIZES = (25, 50, 100)
"""How many rows a list may show."""
LARGEST_FORM = 6 * 1024 * 1024
"""Bytes: a README of 500,000 characters, three bytes each, three times as long in a form."""
FIELD = "csrf_token"
"""The form's field that repeats what only pages of ours know."""
_YEAR = 365 * 86_400
_RECENT = 6
"""So many repositories are remembered."""
_SAFE = frozenset({"GET", "HEAD"})


class Listing(Struct, Generic[T], frozen=True):
    """A page of a list."""

    records: T
    """What the operation answered."""
    next: str
    """What the next page starts with; empty: this is the last one."""
    count: int | None
    """Records on all pages, when it was asked for and is known."""


class Repository(Struct, frozen=True):
    """The repository that a page is about."""

    record: RepositoryRecord
    facts: Facts
    """How the visitor stands to it."""

    @property
    def path(self) -> str:
        """``namespace/name``."""
        return f"{self.record.namespace}/{self.record.name}"

    @property
    def url(self) -> str:
        """The address of its pages, without a slash at the end."""
        return f"/repositories/{quote(self.path)}"

    def may(self, operation: str) -> bool:
        """Whether the visitor may do what the `Operation` of this name is."""
        return may(self.facts, Operation[operation])


class Visit:
    """One request."""

    def __init__(
        self, request: Request, rooms: Rooms, templates: Environment, caller: Caller, *, secret: str, ended: bool
    ) -> None:
        """`secret`: of the session, empty without one; `ended`: the request came with one that is over."""
        self.request = request
        self.rooms = rooms
        self.caller = caller
        self.ended = ended
        self._secret = secret
        self._templates = templates
        self._form: FormData | None = None
        self._cookies: list[tuple[str, str, int]] = []
        self.keeps_page = False
        """When it asks for a part of a page and is refused, the page stays: it is asked for again."""
        self.values: Mapping[str, str] = {}
        """The parts of the address that vary, by their names in the page's template."""

    # --- who, and what they sent ------------------------------------------------------------------------------

    @property
    def account(self) -> Account | None:
        """Who looks; None: nobody that we know."""
        return self.caller.account

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters in the address; of several of one name the last (see `queries`)."""
        return self.request.query_params

    def queries(self, name: str) -> list[str]:
        """All parameters of this name in the address."""
        return self.request.query_params.getlist(name)

    @property
    def path(self) -> str:
        """The path that was asked for."""
        return self.request.url.path

    @property
    def host(self) -> str:
        """``HOST[:PORT]`` of the registry, for commands to copy."""
        return self.rooms.live.current.dtr_host or self.request.url.netloc

    @property
    def is_partial(self) -> bool:
        """Whether the page's script asks, and will show a part of the answer."""
        return self.request.headers.get("hx-request") == "true"

    async def form(self) -> FormData:
        """The form that was sent."""
        if self._form is None:
            self._form = await self.request.form(max_fields=2_000, max_files=10, max_part_size=LARGEST_FORM)
        return self._form

    async def text(self, name: str) -> str:
        """A field of the form that was sent, without spaces around it; empty: it is missing."""
        value = (await self.form()).get(name, "")
        return value.strip() if isinstance(value, str) else ""

    async def texts(self, name: str) -> list[str]:
        """All values of a field of the form that was sent."""
        return [one for one in (await self.form()).getlist(name) if isinstance(one, str)]

    def may(self, operation: str) -> bool:
        """Whether the visitor may do what concerns no repository: the `Operation` of this name."""
        return self.caller.may(Operation[operation])

    async def may_in(self, namespace: str, operation: str) -> bool:
        """The same for what concerns a namespace, there or not."""
        return may((await self.caller.standing(f"{namespace}/")).facts, Operation[operation])

    def require_login(self) -> Account:
        """Who looks. Raises ApiError: NOT_AUTHENTICATED, which leads to the log-in and back."""
        return self.caller.user()

    async def repository(self, operation: str = "SEE") -> Repository:
        """
        The repository of the address, whose parts are called `namespace` and `repo`, for who may do that with it.

        Raises ApiError as `Caller.stand_on` does for who may not see it; NOT_AUTHENTICATED, NOT_AUTHORIZED.
        """
        path = f"{self.values['namespace']}/{self.values['repo']}"
        try:
            path = parse_repository_name(path)
        except NameInvalid:
            raise ApiError("NO_SUCH_REPOSITORY", path[:255]) from None
        _, facts = await self.caller.stand_on(path, Operation.SEE)
        found = Repository(await self.call(repositories.get_repository, path=path), facts)
        self._remember(path)
        if not found.may(operation):
            self.require_login()
            raise ApiError("NOT_AUTHORIZED")
        return found

    @property
    def recent(self) -> list[str]:
        """
        The paths of the repositories that this account looked at last in this browser, the last one first.

        The browser keeps them, and may send anything: whoever shows them asks what of it the visitor may see.
        """
        owner, _, paths = self.request.cookies.get("recent", "").partition("|")
        if owner != self._recent_owner or len(paths) > 4_000:
            return []
        return [one.replace(":", "/") for one in paths.split("|") if one][:_RECENT]

    @property
    def _recent_owner(self) -> str:
        return self.account.id.partition("-")[0] if self.account else ""

    def _remember(self, path: str) -> None:
        """Let a repository be the one that was looked at last."""
        before = self.recent
        if self.request.method in _SAFE and before[:1] != [path]:
            paths = [path, *(one for one in before if one != path)][:_RECENT]
            kept = "|".join(one.replace("/", ":") for one in paths)
            self.set_cookie("recent", f"{self._recent_owner}|{kept}", _YEAR)

    # --- the API ----------------------------------------------------------------------------------------------

    async def call(self, operation: Callable[..., Awaitable[T]], **given: object) -> T:
        """
        Call an operation of the API.

        `caller`, `rooms`, `request`, `response` and `page` need not be given. Raises what the operation raises.
        """
        return (await self._call(operation, Page("", SIZES[-1], wants_count=False), given))[0]

    async def listing(
        self,
        operation: Callable[..., Awaitable[T]],
        *,
        start: str | None = None,
        size: int | None = None,
        count: bool = False,
        **given: object,
    ) -> Listing[T]:
        """Call an operation that gives a page of a list: the one that the address asks for, unless it is given."""
        page = Page(
            self.query.get("start", "")[:1024] if start is None else start, size or self.size, wants_count=count
        )
        records, headers = await self._call(operation, page, given)
        counted = headers.headers.get(COUNT)
        return Listing(records, headers.headers.get(NEXT, ""), int(counted) if counted else None)

    async def _call(
        self, operation: Callable[..., Awaitable[T]], page: Page, given: Mapping[str, object]
    ) -> tuple[T, Headers]:
        response = Headers()
        own = {
            "caller": self.caller,
            "rooms": self.rooms,
            "request": self.request,
            "response": response,
            "page": page,
        }
        wanted = {name: own[name] for name in _parameters(operation) if name in own and name not in given}
        return await operation(**wanted, **given), response

    @property
    def size(self) -> int:
        """How many rows the address asks for: one of `SIZES`."""
        given = self.query.get("size", "")
        return int(given) if given in map(str, SIZES) else SIZES[0]

    async def submit(
        self,
        operation: Callable[..., Awaitable[T]],
        *,
        form: type[M] | None = None,
        data: Mapping[str, object] | None = None,
        fields: Mapping[str, str] | None = None,
        **given: object,
    ) -> T:
        """
        Call an operation with what somebody typed.

        `data` is made into the operation's `form`, by the names of its JSON. `fields` say which field of the page
        a problem belongs to: by the API's code (``NO_SUCH_ACCOUNT``), and by the JSON's field where the page calls
        it otherwise.

        Raises Refused, whose problems are shown beside the form; what is no fault of the form as `call` does.
        """
        try:
            if form is not None:
                given["form"] = form.model_validate(dict(data or {}))
            return await self.call(operation, **given)
        except ValidationError as error:
            raise Refused(problems_of(error, self.words, fields or {}), 422) from error
        except DatabaseError:
            raise
        except Exception as error:
            refused = refusal(error)
            if refused is None or refused.code in {"NOT_AUTHENTICATED", "CSRF_TOKEN_INVALID"}:
                raise
            raise Refused(problems_of(refused, self.words, fields or {}), refused.status) from error

    # --- answers ----------------------------------------------------------------------------------------------

    @cached_property
    def language(self) -> str:
        """By the address, the cookie (which a log-in sets to what the account chose), or the browser."""
        given = self.query.get("lang", "")
        if given in LANGUAGES:
            self.set_cookie("language", given, _YEAR)
            return given
        chosen = self.request.cookies.get("language", "")
        return chosen if chosen in LANGUAGES else choose(self.request.headers.get("accept-language", ""))

    @cached_property
    def theme(self) -> str:
        """By the address or the cookie; empty: the system's."""
        given = self.query.get("theme")
        if given is not None and given in {*THEMES, ""}:
            self.set_cookie("theme", given, _YEAR if given else 0)
            return given
        chosen = self.request.cookies.get("theme", "")
        return chosen if chosen in THEMES else ""

    @cached_property
    def words(self) -> Any:
        """The words of the visitor's language."""
        return words_of(self.language)

    def _(self, text: str, **values: object) -> str:
        """A text in the visitor's language: no HTML, so nothing in it is escaped yet."""
        return _plain(self.words(text, **values))

    def n_(self, one: str, many: str, number: int, **values: object) -> str:
        """A text in the visitor's language, with the number `{n}`: no HTML, too."""
        return _plain(self.words.plural(one, many, number, **values))

    @property
    def csrf(self) -> Markup:
        """The hidden field that every form with POST has."""
        return Markup('<input type="hidden" name="{}" value="{}">').format(FIELD, self.csrf_value)

    @property
    def csrf_value(self) -> str:
        """Its value; empty without a session."""
        return csrf_token(self._secret) if self._secret else ""

    def link(self, **changes: object) -> str:
        """Give this page's address with other parameters; None takes one away. A list begins anew."""
        pairs = [(name, value) for name, value in self.request.query_params.multi_items() if name not in changes]
        pairs = [(name, value) for name, value in pairs if name not in {"lang", "theme"} and value]
        if "start" not in changes:
            pairs = [(name, value) for name, value in pairs if name != "start"]
        for name, value in changes.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            pairs += [(name, str(one)) for one in values if one is not None]
        return f"{quote(self.path)}?{urlencode(pairs)}" if pairs else quote(self.path)

    def page(self, template: str, status: int = 200, **context: object) -> Response:
        """A page from a template, which sees the `context` beside what all see (`templates/base.html`)."""
        said = self._take_said()
        words = self.words
        body = self._templates.get_template(template).render(
            visit=self,
            account=self.account,
            csrf=self.csrf,
            _=words,
            n_=words.plural,
            num=words.number,
            size=words.size,
            ago=words.time,
            date=words.date,
            moment=words.moment,
            said=said,
            **{"problems": Problems(), **context},
        )
        return self._finish(HTMLResponse(body, status))

    def refuse(self, template: str, refused: Refused, **context: object) -> Response:
        """The form again, with what is wrong in it (`problems`). What was typed is for the handler to give."""
        return self.page(template, refused.status, problems=refused.problems, **context)

    def confirm(
        self,
        title: str,
        *,
        verb: str,
        action: str = "",
        text: str = "",
        items: list[str] | None = None,
        fields: Mapping[str, str | list[str]] | None = None,
        typed: str = "",
        back: str = "",
        problems: Problems | None = None,
    ) -> Response:
        """
        Ask before something is destroyed: as a page, or with script as a dialog over the one before.

        `title` names what goes, `text` says what stays, `items` list things and consequences; `verb` is on the
        button, which posts `fields` to `action` (empty: here). `typed` has to be typed into the field `typed`.
        """
        pairs = [
            (name, one)
            for name, value in (fields or {}).items()
            for one in ([value] if isinstance(value, str) else value)
        ]
        return self.page(
            "confirm.html",
            422 if problems else 200,
            title=title,
            verb=verb,
            action=action or self.path,
            text=text,
            items=items or [],
            pairs=pairs,
            typed=typed,
            back=back or self.back,
            problems=problems or Problems(),
        )

    @property
    def back(self) -> str:
        """The page of ours that the visitor came from, else the first one."""
        with contextlib.suppress(ValueError):  # it is no address
            referrer = urlsplit(self.request.headers.get("referer", ""))
            if referrer.netloc == self.request.url.netloc and referrer.path != self.path:
                return own_address(f"{referrer.path}?{referrer.query}" if referrer.query else referrer.path)
        return "/repositories"

    def redirect(
        self, to: str, said: str = "", *, undo: tuple[str, Mapping[str, str]] | None = None, status: int = 303
    ) -> Response:
        """
        Lead to another page of ours.

        It shows what is `said` for a while. `undo` is the address and the fields of the form that takes it back.
        """
        if said:
            note = {"text": said, "undo": [undo[0], dict(undo[1])] if undo else None}
            self.set_cookie("said", base64.urlsafe_b64encode(json.dumps(note).encode()).decode(), 60)
        return self._finish(RedirectResponse(to, status))

    def answer(self, response: Response) -> Response:
        """Any other response: a file, a stream."""
        return self._finish(response)

    def set_cookie(self, name: str, value: str, seconds: int) -> None:
        """Give the browser a cookie with the answer, or with 0 seconds take it away."""
        self._cookies.append((name, value, seconds))

    def _take_said(self) -> dict[str, Any] | None:
        given = self.request.cookies.get("said")
        if given is None or self.is_partial:
            return None
        self.set_cookie("said", "", 0)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            note = json.loads(base64.urlsafe_b64decode(given))
            undo = note["undo"] and {"action": own_address(str(note["undo"][0])), "fields": dict(note["undo"][1])}
            return {"text": str(note["text"])[:1_000], "undo": undo}
        return None

    def _finish(self, response: Response) -> Response:
        _ = self.language, self.theme  # they may set cookies
        secure = self.request.url.scheme == "https"
        for name, value, seconds in self._cookies:
            response.set_cookie(
                name, value, max_age=seconds, secure=secure, httponly=name != "theme", samesite="lax"
            )
        self._cookies.clear()
        response.headers.setdefault("cache-control", "private, no-cache")
        response.headers.setdefault("vary", "Cookie, Accept-Language, HX-Request")
        return response


def own_address(text: str) -> str:
    """An address within this site, for who was told one; the first page when it is none."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/repositories"
    printable = all(one.isprintable() and one != "\\" for one in text)
    fine = printable and not parts.scheme and not parts.netloc and text.startswith("/") and text[1:2] != "/"
    return text if fine else "/repositories"


async def receive_visit(request: Request, rooms: Rooms, templates: Environment) -> Visit:
    """
    Who sent a request.

    What changes something has to come from a page of ours: it is refused when the browser says that another site
    made it send it, and when a session's form lacks the session's token. Raises ApiError, DatabaseError.
    """
    accounts = rooms.accounts
    secret = request.cookies.get(session_cookie(request), "")
    login: Login | None = None
    ended = False
    if secret and is_session_secret(secret):
        try:
            login = await accounts.sessions.find(secret)
        except SessionUnknown:
            ended = True
    caller = Caller(accounts, login, address_of(request))
    visit = Visit(request, rooms, templates, caller, secret=secret if login else "", ended=ended)
    facts = request.scope.get("dtr.facts")
    if facts is not None and login is not None:
        facts.identify(login.account.name)
    if request.method not in _SAFE:
        refuse_foreign(request)
        if login is not None:
            given = request.headers.get("x-csrf-token") or await visit.text(FIELD)
            if not hmac.compare_digest(given.encode("utf-8", "replace"), visit.csrf_value.encode()):
                raise ApiError("CSRF_TOKEN_INVALID")
    return visit


def _plain(text: str) -> str:
    return text.unescape() if isinstance(text, Markup) else text


@cache
def _parameters(operation: Callable[..., object]) -> frozenset[str]:
    return frozenset(inspect.signature(operation).parameters)
