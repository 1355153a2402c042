"""
Every page and every control, for people of every standing.

Whatever is linked is there for who sees the link. Whatever can be sent is taken from who sees the form, and
refused to everybody else: nothing is shown in vain, and nothing is guarded by being hidden.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from tests.support.crawler import ROUTES, Crawl, Form, crawl, note_forms, shape
from tests.support.furniture import furnish
from tests.support.site import Site, Visitor

SETTINGS = {"webhooks.allowed_networks": "127.0.0.1/32", "mirroring.allowed_networks": "127.0.0.1/32"}
NAMES = {
    "An": None, "Au": "paul", "R": "rita", "RW": "will", "A": "adam", "NA": "nan", "TA": "tom", "O": "olga",
    "P": "pia", "Ad": "audrey", "S": "root",
}  # fmt: skip
REFUSED = {303, 403, 404}
"""303: to the log-in."""


@pytest.fixture(scope="module")
def visitors(site: Site) -> dict[str, Visitor]:
    furnish(site.api)
    return {who: site.as_(name, "secret") for who, name in NAMES.items()}


@pytest.fixture(scope="module")
def seen(visitors: dict[str, Visitor]) -> dict[str, Crawl]:
    return {who: crawl(visitor) for who, visitor in visitors.items()}


@pytest.mark.parametrize("who", NAMES)
def test_every_link_leads_to_a_page(seen: dict[str, Crawl], who: str):
    assert not seen[who].faults
    assert len(seen[who].pages) > 5


def test_somebody_is_led_to_every_page(seen: dict[str, Crawl]):
    met = {shape(address).partition("?")[0] for one in seen.values() for address in one.pages}
    met |= {shape(urlsplit(shown.url).path) for one in seen.values() for shown in one.pages.values()}
    pages = {page.path for page in ROUTES.pages if "GET" in page.handlers}
    assert " ".join(sorted(pages - met - UNLINKED)) == ""


UNLINKED: set[str] = {
    "/orgs/{org}/teams/{team}",
    "/orgs/{org}/teams/id:{team}",
    "/orgs/{org}/teams/id:{team}/users",
    "/orgs/{org}/teams/id:{team}/repos",
    "/orgs/{org}/teams/id:{team}/settings",
    "/search/suggest",
    "/repositories/{namespace}/{repo:path}/images",
    "/repositories/{namespace}/{repo:path}/{tag}/{os}/{arch}/layers",
    "/repositories/{namespace}/{repo:path}/{tag}/{os}/{arch}/components",
    "/repositories/{namespace}/{repo:path}/{tag}/{os}/{arch}/components/{component:path}",
    "/repositories/{namespace}/{repo:path}/mirrors",
    "/repositories/{namespace}/{repo:path}/promotions",
    "/repositories/{namespace}/{repo:path}/pruning",
    "/system/settings",
    # Forms are sent there; who comes otherwise begins anew.
    "/repositories/{namespace}/{repo:path}/delete-tags",
    "/repositories/{namespace}/{repo:path}/copy-tags",
    "/users/{name}/settings/language",
    "/users/{name}/settings/password",
    "/users/{name}/settings/profile",
    "/users/{name}/settings/roles",
    # Linked where there is something to do: tags that wait at the other side or here, tokens that nobody uses.
    "/repositories/{namespace}/{repo:path}/mirrors/{id}/delete-there",
    "/repositories/{namespace}/{repo:path}/promotions/{id}/run",
    "/users/{name}/access-tokens/delete-unused",
    # The lines of a job's log as they come.
    "/system/settings/jobs/{job}/log",
}
"""Pages without a link to them: addresses of DTR's that lead on, and what only a script asks for."""


def _is_own(action: str) -> bool:
    """Whether it is of nobody but who sends it, so that it is shown only where there is something to do."""
    return action in {"/login", "/logout"} or bool(re.fullmatch(r"/users/[^/]+/sessions/end", action))


def _every_kind(seen: dict[str, Crawl]) -> list[Form]:
    """One form of each kind that anybody sees."""
    kinds: dict[str, Form] = {}
    for who in ("S", "O", *seen):
        for action, form in seen[who].forms.items():
            if not _is_own(action):
                kinds.setdefault(shape(action), form)
    return list(kinds.values())


def _sees(visitor: Visitor, form: Form) -> bool:
    shown = visitor.get(form.page.removeprefix(visitor.origin))
    return shown.status == 200 and form.action in note_forms(shown)


def test_what_somebody_does_not_see_is_refused(seen: dict[str, Crawl], visitors: dict[str, Visitor]):
    wrong, tried = [], 0
    for form in _every_kind(seen):
        for who, visitor in visitors.items():
            if form.action in seen[who].forms or _sees(visitor, form):
                continue
            tried += 1
            shown = visitor.post(form.action, _fields(form), follow=False)
            led = shown.answer.headers.get("location", "")
            if shown.status not in REFUSED or (shown.status == 303 and not led.startswith("/login")):
                wrong.append(f"{who}: {form.action} of {form.page}: {shown.status} {led} {shown.title}")
    assert not wrong, "\n".join(wrong)
    assert tried > 500


def test_what_somebody_sees_is_taken(seen: dict[str, Crawl], visitors: dict[str, Visitor]):
    wrong = []
    for who, one in seen.items():
        for form in one.forms.values():
            if form.asks or _is_own(form.action) or _TAKES_AWAY.search(form.action):
                continue
            shown = visitors[who].post(form.action, _fields(form), follow=False)
            if shown.status in {401, 403, 404, 405} or shown.status >= 500:
                wrong.append(f"{who}: {form.action} of {form.page}: {shown.status} {shown.title}")
    assert not wrong, "\n".join(wrong)


_TAKES_AWAY = re.compile(r"/(remove|delete|end|revoke|cancel|role|unused)\b")
"""What undoes without asking, as it can be undone; afterwards other forms have nothing to work on."""


def _fields(form: Form) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in form.fields:
        fields.setdefault(name, []).append(value)
    return fields
