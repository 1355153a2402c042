"""
The web interface as somebody without a browser's script uses it, and as a real browser does.

A `Visitor` keeps cookies, follows links and sends forms as they stand in the page. A `Tab` is one of a real
Chromium: whatever its console says of errors, and whatever the content security policy stopped, fails the test.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page
from tests.support.api import Api
from tests.support.chromium import SECONDS
from tests.support.client import Answer, Client
from tests.support.server import PASSWORD, Server

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
MIDDLE = {"width": 833, "height": 900}
"""The narrowest window in which lists are tables."""


@dataclass(frozen=True)
class Shown:
    """A page that was answered."""

    url: str
    """Where it is: after redirects."""
    answer: Answer

    @property
    def status(self) -> int:
        return self.answer.status

    @cached_property
    def soup(self) -> BeautifulSoup:
        return BeautifulSoup(self.answer.body.decode("utf-8", "replace"), "html.parser")

    @property
    def text(self) -> str:
        """What a person reads of it, with single spaces."""
        body = self.soup.body
        return " ".join(body.get_text(" ").split()) if body else ""

    @property
    def title(self) -> str:
        heading = self.soup.h1
        return " ".join(heading.get_text(" ").split()) if heading else ""

    def expect(self, *statuses: int) -> Shown:
        assert self.status in statuses, f"{self.url}: {self.status} instead of {statuses}: {self.text[:600]}"
        return self

    def all(self, selector: str) -> list[Tag]:
        """The elements that a CSS selector finds."""
        return list(self.soup.select(selector))

    def one(self, selector: str) -> Tag:
        """The only element that a CSS selector finds."""
        found = self.all(selector)
        assert len(found) == 1, f"{self.url}: {len(found)} times {selector}: {self.text[:600]}"
        return found[0]

    def has(self, selector: str) -> bool:
        return bool(self.all(selector))

    @property
    def links(self) -> dict[str, str]:
        """The addresses of this site that it links to, by address: the text."""
        found = {}
        for link in self.all("a[href]"):
            target = urlsplit(urljoin(self.url, str(link["href"])))
            if target.netloc == urlsplit(self.url).netloc and not str(link["href"]).startswith("#"):
                address = target.path + (f"?{target.query}" if target.query else "")
                found[address] = " ".join(link.get_text(" ").split()) or str(link.get("aria-label", ""))
        return found

    @property
    def problems(self) -> dict[str, str]:
        """What is said beside the fields, by the field's name."""
        return {str(one["id"]).removeprefix("e-"): one.get_text(" ").strip() for one in self.all("p.err")}


class Visitor:
    """Somebody who looks at the pages; `name` None: nobody."""

    def __init__(self, server: Server, name: str | None, password: str = PASSWORD) -> None:
        self.client = Client(server, None)
        self.server = server
        self.name = name
        self.cookies: dict[str, str] = {}
        if name is not None:
            credentials = json.dumps({"username": name, "password": password}).encode()
            sent = {"Content-Type": "application/json"}
            self._keep(self.client.send("POST", "/enzi/v0/id/login", credentials, sent).expect(200))

    @property
    def origin(self) -> str:
        return f"https://{self.server.address}"

    def _keep(self, answer: Answer) -> None:
        for line in answer.cookies:
            name, _, rest = line.partition("=")
            value, _, attributes = rest.partition(";")
            if "max-age=0" in attributes.lower() or not value.strip('"'):
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value.strip('"')

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Shown:
        """One request, without following where it leads."""
        sent = {"Host": self.server.address, **(headers or {})}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = self.client.send(method, path, body, sent)
        self._keep(answer)
        return Shown(f"{self.origin}{path}", answer)

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, follow: bool = True) -> Shown:
        """A page, and the one that it leads to."""
        shown = self.send("GET", path, headers=headers)
        return self._follow(shown) if follow else shown

    def _follow(self, shown: Shown) -> Shown:
        for _ in range(10):
            if shown.status not in {301, 302, 303, 307, 308}:
                return shown
            target = urlsplit(urljoin(shown.url, shown.answer.headers["location"]))
            assert target.netloc == self.server.address, f"it leads to {target.netloc}"
            shown = self.send("GET", target.path + (f"?{target.query}" if target.query else ""))
        raise AssertionError("it leads in circles")

    def post(
        self,
        path: str,
        fields: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        follow: bool = True,
        csrf: bool = True,
    ) -> Shown:
        """Send a form's fields (a list: several of one name), with the session's token unless `csrf` is False."""
        pairs = dict(fields or {})
        if csrf and "csrftoken" in self.cookies:
            pairs.setdefault("csrf_token", self.cookies["csrftoken"])
        body = urlencode(pairs, doseq=True).encode()
        sent = {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.origin, **(headers or {})}
        shown = self.send("POST", path, body, sent)
        return self._follow(shown) if follow else shown

    def submit(
        self, shown: Shown, selector: str = "main form", button: str | None = None, **changes: Any
    ) -> Shown:
        """
        Send a form as it stands in a page, with some fields changed; None takes one away.

        `button`: the text of the one that is pressed; by default the first.
        """
        form = shown.one(selector)
        fields: dict[str, list[str]] = {}
        for one in form.select("input[name], select[name], textarea[name]"):
            if one.has_attr("disabled"):
                continue
            name = str(one["name"])
            if one.name == "select":
                chosen = [option for option in one.select("option") if option.has_attr("selected")]
                chosen = chosen or ([] if one.has_attr("multiple") else one.select("option")[:1])
                fields.setdefault(name, []).extend(
                    str(option.get("value", option.get_text())) for option in chosen
                )
            elif one.name == "textarea":
                fields.setdefault(name, []).append(one.get_text().removeprefix("\n"))
            elif one.get("type") in {"checkbox", "radio"}:
                if one.has_attr("checked"):
                    fields.setdefault(name, []).append(str(one.get("value", "on")))
            elif one.get("type") not in {"submit", "button", "file"}:
                fields.setdefault(name, []).append(str(one.get("value", "")))
        buttons = [one for one in form.select("button") if one.get("type", "submit") == "submit"]
        pressed = next(
            (one for one in buttons if button is None or " ".join(one.get_text(" ").split()) == button), None
        )
        assert pressed is not None, f"{shown.url}: no button {button!r}"
        if pressed.has_attr("name"):
            fields[str(pressed["name"])] = [str(pressed.get("value", ""))]
        for name, value in changes.items():
            if value is None:
                fields.pop(name, None)
            else:
                fields[name] = [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]
        action = urlsplit(urljoin(shown.url, str(pressed.get("formaction", form.get("action", shown.url)))))
        target = action.path + (f"?{action.query}" if action.query else "")
        if str(form.get("method", "get")).lower() == "get":
            return self.get(f"{action.path}?{urlencode(fields, doseq=True)}")
        return self.post(target, fields, csrf=False)


@dataclass
class Tab:
    """A tab of a browser in which somebody is logged in."""

    page: Page
    origin: str
    complaints: list[str] = field(default_factory=list)
    """What the console said of errors, what the policy stopped, what asked another host."""
    expected: tuple[str, ...] = ()
    """Texts of complaints that belong to the story: a refused form's status."""

    def open(self, path: str) -> Page:
        """Go to a page of the site."""
        self.page.goto(f"{self.origin}{path}")
        return self.page

    def check(self) -> None:
        """Nothing went wrong, and nothing on the page keeps anybody from using it (axe-core)."""
        unexpected = [one for one in self.complaints if not any(text in one for text in self.expected)]
        assert not unexpected, unexpected
        assert not (found := self.findings()), found

    def findings(self) -> list[str]:
        """What axe-core finds on the page as it is now, and whether it is wider than the window."""
        return [*self._objections(), *self.overflow()]

    def overflow(self) -> list[str]:
        """Says so when the page is wider than the window."""
        width = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        return [f"{self.page.url} is {width[0]} wide in a window of {width[1]}"] if width[0] > width[1] else []

    def _objections(self) -> list[str]:
        # By evaluate, which is no script of the page, so the policy does not stop it.
        self.page.evaluate(AXE.read_text(encoding="utf-8") + "\n;undefined")
        result = self.page.evaluate(
            "rules => axe.run(document, {runOnly: rules, resultTypes: ['violations']})", RULES
        )
        return [
            f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for one in result["violations"]
            for node in one["nodes"]
        ]


@dataclass
class Site:
    """A server's pages, and who looks at them."""

    api: Api
    browser: Browser | None = None

    @property
    def server(self) -> Server:
        return self.api.server

    def as_(self, name: str | None, password: str = PASSWORD) -> Visitor:
        """Somebody new, who is logged in; None: nobody."""
        return Visitor(self.server, name, password)

    @contextlib.contextmanager
    def tab(
        self,
        name: str | None,
        password: str = PASSWORD,
        *,
        script: bool = True,
        size: Mapping[str, int] = WIDE,
        theme: str = "light",
        language: str = "en",
    ) -> Iterator[Tab]:
        """A tab of a browser of its own, somebody is logged in. Nothing must have gone wrong at its end."""
        assert self.browser is not None
        origin = f"https://{self.server.address}"
        context: BrowserContext = self.browser.new_context(
            viewport={"width": size["width"], "height": size["height"]},
            java_script_enabled=script,
            ignore_https_errors=True,
            color_scheme="dark" if theme == "dark" else "light",
            locale={"en": "en-GB", "ja": "ja-JP"}[language],
            permissions=["clipboard-read", "clipboard-write"],
            reduced_motion="reduce",  # what is half faded in would have too little contrast
        )
        try:
            if name is not None:
                visitor = self.as_(name, password)
                context.add_cookies(
                    [
                        {"name": one, "value": value, "url": origin, "secure": True}
                        for one, value in visitor.cookies.items()
                    ]
                )
            page = context.new_page()
            page.set_default_timeout(1000 * SECONDS)
            tab = Tab(page, origin)

            def heard(message: ConsoleMessage) -> None:
                if message.type in {"error", "warning"}:
                    tab.complaints.append(f"{message.text} ({message.location.get('url', '')})")

            page.on("console", heard)
            page.on("pageerror", lambda error: tab.complaints.append(str(error)))
            page.on(
                "request",
                lambda request: (
                    None
                    if request.url.startswith((origin, "data:", "blob:"))
                    else tab.complaints.append(f"asked {request.url}")
                ),
            )
            yield tab
            unexpected = [one for one in tab.complaints if not any(text in one for text in tab.expected)]
            assert not unexpected, unexpected
        finally:
            context.close()
