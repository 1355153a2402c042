"""Follows every link of the pages that somebody sees, and notes every form."""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit

from tests.support.site import Shown, Visitor

from dtr.http.ui.app import SUBJECTS
from dtr.http.ui.pages import Routes

ROUTES = Routes(SUBJECTS)
STARTS = ("/repositories", "/search?q=a", "/")
LARGEST = 50_000
"""Bytes of a page's HTML, at most."""
_PER_SHAPE = 2
_ELSEWHERE = re.compile(r"/(static|ca|v2|api|enzi)\b")
"""What is no page: files and documents."""


@dataclass(frozen=True)
class Form:
    """A form that changes something."""

    action: str
    fields: tuple[tuple[str, str], ...]
    page: str
    asks: bool
    """It asks before something is destroyed."""


@dataclass
class Crawl:
    """What somebody saw."""

    pages: dict[str, Shown] = field(default_factory=dict)
    """By address: two of each kind at most."""
    forms: dict[str, Form] = field(default_factory=dict)
    """By the address that they are sent to."""
    faults: list[str] = field(default_factory=list)


def shape(address: str) -> str:
    """What is equal for pages of the same kind: the template of the path, and the names of the parameters."""
    parts = urlsplit(address)
    path = unquote(parts.path)
    names = ",".join(sorted({name for name, _ in parse_qsl(parts.query)}))
    template = next((page.path for page in ROUTES.pages if page.pattern.fullmatch(path)), path)
    return f"{template}?{names}" if names else template


def crawl(visitor: Visitor, starts: tuple[str, ...] = STARTS) -> Crawl:
    """Look at every page that links lead to: each has to be there, and small, and its forms to have a token."""
    seen = Crawl()
    met: Counter[str] = Counter()
    waiting = deque((start, "") for start in starts)
    while waiting:
        address, source = waiting.popleft()
        kind = shape(address)
        if address in seen.pages or met[kind] >= _PER_SHAPE:
            continue
        met[kind] += 1
        shown = visitor.get(address)
        seen.pages[address] = shown
        if shown.status != 200:
            seen.faults.append(f"{address} (from {source}): {shown.status} {shown.title}")
            continue
        if not shown.answer.headers.get("content-type", "").startswith("text/html"):
            continue
        if len(shown.answer.body) > LARGEST:
            seen.faults.append(f"{address}: {len(shown.answer.body)} bytes")
        for link in shown.links:
            if not _ELSEWHERE.match(link) and not re.search(r"[?&](lang|theme)=", link):
                waiting.append((link, address))
        for action, form in note_forms(shown).items():
            seen.forms.setdefault(action, form)
        if any(not form.select("input[name=csrf_token]") for form in shown.all("form[method=post]")):
            seen.faults.append(f"{address}: a form without its token")
    return seen


def note_forms(shown: Shown) -> dict[str, Form]:
    """The forms of a page that change something, by the address that they are sent to."""
    found: dict[str, Form] = {}
    for form in shown.all("form[method=post]"):
        fields = []
        for one in form.select("input[name], textarea[name], select[name]"):
            if one.get("type") in {"checkbox", "radio"} and not one.has_attr("checked"):
                continue
            if one.name == "select":
                options = one.select("option[selected]") or one.select("option")[:1]
                fields += [(str(one["name"]), str(option.get("value", option.get_text()))) for option in options]
            else:
                value = one.get_text() if one.name == "textarea" else str(one.get("value", ""))
                fields.append((str(one["name"]), value))
        for button in form.select("button[name]")[:1]:
            fields.append((str(button["name"]), str(button.get("value", ""))))
        kept = tuple((name, value) for name, value in fields if name != "csrf_token")
        targets = [str(form.get("action", "")) or shown.url]
        targets += [str(button["formaction"]) for button in form.select("button[formaction]")]
        for target in targets:
            parts = urlsplit(urljoin(shown.url, target))
            action = parts.path + (f"?{parts.query}" if parts.query else "")
            asks = form.find_parent(id="confirm") is not None
            found.setdefault(action, Form(action, kept, shown.url, asks))
    return found
