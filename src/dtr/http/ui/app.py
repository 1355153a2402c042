"""The application of the pages: finds the one that is asked for, and says what went wrong."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from dtr import __version__
from dtr.enforcement import PullRefused
from dtr.http.api.enforcement import EnforcementObjection
from dtr.http.api.errors import ApiError, Moved, refusal
from dtr.http.bodies import BodyTooLarge, bounded
from dtr.http.ui import (
    STATIC,
    account,
    accounts,
    activity,
    apidocs,
    details,
    events,
    job_forms,
    jobs,
    login,
    mirrors,
    organization_settings,
    organizations,
    permissions,
    policies,
    promotions,
    pruning,
    repositories,
    repository,
    robots,
    search,
    sessions,
    sharing,
    system,
    tag,
    tags,
    teams,
    webhooks,
)
from dtr.http.ui.banners import Banners
from dtr.http.ui.pages import Routes
from dtr.http.ui.running import Running
from dtr.http.ui.visit import LARGEST_FORM, SIZES, Visit, receive_visit
from dtr.http.ui.words import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dtr.http.api.rooms import Rooms
    from dtr.http.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger("dtr.ui")

SUBJECTS = (
    policies.pages,
    promotions.pages,
    mirrors.pages,
    pruning.pages,
    tags.pages,
    tag.pages,
    repositories.pages,
    search.pages,
    organizations.pages,
    organization_settings.pages,
    teams.pages,
    robots.pages,
    permissions.pages,
    sharing.pages,
    login.pages,
    accounts.pages,
    account.pages,
    repository.pages,
    activity.pages,
    webhooks.pages,
    *system.SUBJECTS,
    jobs.pages,
    job_forms.pages,
    events.pages,
    sessions.pages,
    apidocs.pages,
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""What the pages may load and run (Content Security Policy Level 3): files from here."""
_SECURITY = (
    (b"content-security-policy", POLICY.encode()),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"clipboard-write=(self)"),
)
_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


class Assets:
    """The files that pages refer to, by names that change with their content."""

    def __init__(self, directory: Path = STATIC) -> None:
        """Read what `directory` has. Raises OSError: nothing was built there."""
        self._names: dict[str, str] = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
        self._files = {
            file.name: file.read_bytes() for file in directory.iterdir() if file.name != "manifest.json"
        }

    def url(self, name: str) -> str:
        """Where ``app.js`` is."""
        return f"/static/{self._names[name]}"

    def answer(self, request: Request) -> Response:
        """A file, as it was packed when it was built."""
        name = request.url.path.removeprefix("/static/")
        content = self._files.get(name)
        if content is None or Path(name).suffix not in _KINDS:
            return Response(status_code=404)
        headers = {"cache-control": "public, max-age=31536000, immutable", "vary": "Accept-Encoding"}
        accepted = request.headers.get("accept-encoding", "")
        for coding, ending in (("br", ".br"), ("gzip", ".gz")):
            if coding in accepted and name + ending in self._files:
                headers["content-encoding"] = coding
                content = self._files[name + ending]
                break
        return Response(content, headers=headers, media_type=_KINDS[Path(name).suffix])


def make_templates(assets: Assets) -> Environment:
    """The templates of the pages."""
    templates = Environment(
        loader=PackageLoader("dtr.http.ui"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        extensions=["jinja2.ext.loopcontrols"],
    )

    def icon(name: str, kind: str = "") -> Markup:
        return Markup('<svg class="{}" aria-hidden="true"><use href="{}#{}"/></svg>').format(
            f"i {kind}".strip(), assets.url("icons.svg"), name
        )

    templates.globals.update(
        detail=details.told,
        asset=assets.url,
        icon=icon,
        languages=LANGUAGES,
        sizes=SIZES,
        version=__version__,
        quote=quote,
        len=len,
    )
    return templates


class UI:
    """The ASGI application of the pages."""

    def __init__(self, rooms: Rooms) -> None:
        """Raises OSError: the assets were not built."""
        self._rooms = rooms
        self._assets = Assets()
        self.templates = make_templates(self._assets)
        self._running = Running()
        self.templates.globals.update(banners=Banners(), active_jobs=self._running)
        self.routes = Routes(SUBJECTS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        facts = scope.get("dtr.facts")
        if facts is not None:
            facts.route = "ui"
        started = False

        async def secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message["headers"], *_SECURITY]}
            elif scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        request = Request(scope, bounded(receive, LARGEST_FORM))
        if request.url.path.startswith("/static/"):
            await self._assets.answer(request)(scope, receive, secured)
            return
        try:
            refused = scope.get("dtr.refused")
            response = await (self._answer(request) if refused is None else self._refuse_unknown(request, refused))
            await response(scope, receive, secured)
        except ClientDisconnect:
            return
        except Exception:
            if started:
                raise
            _log.exception("page failed", extra={"request_id": facts.id if facts else ""})
            response = await self._fail(request, ApiError("INTERNAL_ERROR"))
            await response(scope, receive, secured)

    async def _answer(self, request: Request) -> Response:
        try:
            visit = await receive_visit(request, self._rooms, self.templates)
        except Exception as error:  # noqa: BLE001 - what is no refusal is raised again
            return await self._refuse_unknown(request, error)
        try:
            await self._running.look(visit)
            return await self._visit(visit)
        except Exception as error:  # noqa: BLE001 - what is no refusal is written down, and told
            found = _refusal(error)
            if found is None:
                facts = request.scope.get("dtr.facts")
                _log.exception("page failed", extra={"request_id": facts.id if facts else ""})
                found = ApiError("INTERNAL_ERROR")
            return self._refuse(visit, found, error)

    async def _visit(self, visit: Visit) -> Response:
        path, method = visit.path, "GET" if visit.request.method == "HEAD" else visit.request.method
        if "\0" in path or "%00" in visit.request.url.query:
            raise ApiError("INVALID_PARAMETERS")
        found = self.routes.find(path)
        if not found and path.endswith("/") and self.routes.find(path.rstrip("/")):
            return RedirectResponse(quote(path.rstrip("/")), 308)
        if not found:
            raise ApiError("NO_SUCH_OPERATION")
        fitting = [(handlers[method], values) for handlers, values in found if method in handlers]
        if not fitting:
            raise ApiError("NOT_ALLOWED", None, {"Allow": ", ".join(sorted({one for h, _ in found for one in h}))})
        for number, (handler, values) in enumerate(fitting, 1):
            visit.values = values
            try:
                return await handler(visit)
            except ApiError as error:
                if error.code != "NO_SUCH_REPOSITORY" or isinstance(error, Moved) or number == len(fitting):
                    raise
        raise AssertionError("the last one returns or raises")

    def _refuse(self, visit: Visit, refused: ApiError, error: Exception) -> Response:
        request = visit.request
        facts = request.scope.get("dtr.facts")
        if facts is not None and refused.status >= 500:
            facts.reason = str(error)
        if isinstance(error, Moved) and request.method in {"GET", "HEAD"}:
            old, new = (f"/repositories/{one}" for one in (error.path, error.new_path))
            path = visit.path.replace(old, new, 1)
            return RedirectResponse(quote(path) + (f"?{request.url.query}" if request.url.query else ""), 308)
        if refused.status == 401:
            return _to_login(visit)
        objections = error.verdict.objections if isinstance(error, PullRefused) else ()
        return _show(visit, "error.html", refused, objections=[EnforcementObjection.of(one) for one in objections])

    async def _refuse_unknown(self, request: Request, error: Exception) -> Response:
        """Refuse who could not be told from others: a wrong token, a form that is too large, no database."""
        found = _refusal(error)
        if found is None:
            raise error
        facts = request.scope.get("dtr.facts")
        if facts is not None and found.status >= 500:
            facts.reason = str(error)
        return await self._fail(request, found)

    async def _fail(self, request: Request, refused: ApiError) -> Response:
        """A page of its own, which asks no room for anything."""
        from dtr.http.api.caller import Caller, address_of

        caller = Caller(self._rooms.accounts, None, address_of(request))
        visit = Visit(request, self._rooms, self.templates, caller, secret="", ended=False)
        return _show(visit, "failure.html", refused)


def _show(
    visit: Visit, template: str, refused: ApiError, *, objections: Sequence[EnforcementObjection] = ()
) -> Response:
    facts = visit.request.scope.get("dtr.facts")
    response = visit.page(
        template,
        refused.status,
        refused=refused,
        request_id=facts.id if facts else "",
        objections=objections,
    )
    response.headers.update(refused.headers)
    if visit.is_partial:  # it takes the place of the page, not of the part of it that was asked for
        over = {"HX-Retarget": "#main", "HX-Reselect": "#main", "HX-Reswap": "outerHTML"}
        response.headers.update({"HX-Reswap": "none"} if visit.keeps_page else over)
    return response


def _refusal(error: Exception) -> ApiError | None:
    """The refusal that an exception is; None: a failure of ours."""
    if isinstance(error, BodyTooLarge) or isinstance(error.__cause__, BodyTooLarge):
        return ApiError("TOO_LARGE")
    if isinstance(error, HTTPException):  # the form cannot be read
        return ApiError("INVALID_PARAMETERS", str(error.detail))
    if isinstance(error, MultiPartException):  # nor this one
        return ApiError("INVALID_PARAMETERS", error.message)
    return refusal(error)


def _to_login(visit: Visit) -> Response:
    """Lead to the log-in, and from there back to where the visitor was."""
    request = visit.request
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method not in {"GET", "HEAD"}:  # back to the page with the form
        here = visit.back
    if visit.is_partial:
        with contextlib.suppress(ValueError):  # what the header has is no address
            shown = urlsplit(request.headers.get("hx-current-url", ""))
            here = f"{shown.path}?{shown.query}" if shown.query else shown.path or here
    parameters: Mapping[str, str] = {"next": here, **({"ended": "1"} if visit.ended else {})}
    to = f"/login?{urlencode(parameters)}"
    if visit.is_partial:  # the script goes there with the whole window
        return visit.answer(Response(status_code=204, headers={"HX-Redirect": to}))
    return visit.redirect(to)


def build(rooms: Rooms) -> ASGIApp:
    """The application over `rooms`. Raises OSError: the assets were not built."""
    return UI(rooms)


__all__ = ["POLICY", "SUBJECTS", "UI", "Assets", "build", "make_templates"]
