"""
Every page in a real browser, for people of every standing.

Nothing is written to the console, nothing is stopped by the policy, nothing is asked of another host, no page is
wider than the window; and axe-core finds nothing that keeps anybody from using it.
"""

from __future__ import annotations

import pytest
from tests.support.crawler import crawl, shape
from tests.support.furniture import furnish
from tests.support.site import MIDDLE, NARROW, WIDE, Site

SETTINGS = {"webhooks.allowed_networks": "127.0.0.1/32", "mirroring.allowed_networks": "127.0.0.1/32"}
PEOPLE = {
    "anonymous": None,
    "reader": "rita",
    "writer": "will",
    "repository administrator": "adam",
    "organisation owner": "olga",
    "auditor": "audrey",
    "system administrator": "root",
}


@pytest.fixture(scope="module")
def furnished(site: Site) -> Site:
    furnish(site.api)
    return site


def _pages(site: Site, name: str | None) -> list[str]:
    """One page of each kind that somebody is led to."""
    seen = crawl(site.as_(name, "secret"))
    assert not seen.faults
    kinds: dict[str, str] = {}
    for address, shown in seen.pages.items():
        if shown.answer.headers.get("content-type", "").startswith("text/html"):
            kinds.setdefault(shape(address), address)
    return list(kinds.values())


@pytest.mark.parametrize("who", PEOPLE)
def test_nothing_is_complained_about(furnished: Site, who: str):
    """
    With axe-core for who sees most, light and wide; for an owner, dark and on a phone; and for nobody.

    An auditor, who sees as much, has half a screen.
    """
    name = PEOPLE[who]
    looks = {
        "anonymous": {"theme": "light", "size": NARROW},
        "organisation owner": {"theme": "dark", "size": NARROW},
        "system administrator": {"theme": "light", "size": WIDE},
        "auditor": {"size": MIDDLE},
    }
    audited = looks.keys() - {"auditor"}
    with furnished.tab(name, "secret", **looks.get(who, {})) as tab:
        found = {}
        for address in _pages(furnished, name):
            tab.open(address)
            if findings := tab.findings() if who in audited else tab.overflow():
                found[address] = findings
        assert not found, found


@pytest.mark.thorough
@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("who", PEOPLE)
def test_everybody_can_use_every_page(furnished: Site, who: str, size: dict[str, int], theme: str, language: str):
    with furnished.tab(PEOPLE[who], "secret", size=size, theme=theme, language=language) as tab:
        found = {}
        for address in _pages(furnished, PEOPLE[who]):
            tab.open(address)
            if findings := tab.findings():
                found[address] = findings
        assert not found, found
