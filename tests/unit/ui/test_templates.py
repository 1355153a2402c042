"""What the policy of the pages forbids does not stand in a template, and no form lacks its token."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dtr.http.ui.visit import own_address

TEMPLATES = sorted((Path(__file__).parents[3] / "src/dtr/http/ui/templates").rglob("*.html"))
FORBIDDEN = {
    "a style of its own": re.compile(r"\sstyle=|<style"),
    "a script of its own": re.compile(r"<script(?![^>]*\ssrc=)|\son[a-z]+=|javascript:"),
    "what htmx evaluates": re.compile(r"hx-on|\bjs:|hx-trigger=\"[^\"]*\["),
    "text that is not escaped": re.compile(r"\|\s*safe\b"),
}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.stem)
def test_a_template_has_nothing_that_the_policy_forbids(template: Path):
    text = template.read_text(encoding="utf-8")
    assert not [why for why, pattern in FORBIDDEN.items() if pattern.search(text)]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.stem)
def test_every_form_that_changes_something_has_the_sessions_token(template: Path):
    text = template.read_text(encoding="utf-8")
    for form in re.findall(r"<form\b[^>]*method=\"post\".*?</form>", text, re.DOTALL | re.IGNORECASE):
        assert "{{ csrf }}" in form, form[:200]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/orgs?q=1", "/orgs?q=1"),
        ("https://other.example/", "/repositories"),
        ("//other.example/", "/repositories"),
        ("/\\other.example/", "/repositories"),
        ("\t//other.example", "/repositories"),
        ("", "/repositories"),
        ("orgs", "/repositories"),
    ],
)
def test_an_address_that_somebody_gave_is_one_of_this_site(given: str, kept: str):
    assert own_address(given) == kept
