"""No text of the pages is missing in a language, none is left over, and each has the places that are filled in."""

from __future__ import annotations

import datetime as dt
from collections import Counter

import pytest
from tests.support.words import places, texts

from dtr.http.ui.visit import _plain
from dtr.http.ui.words import LANGUAGES, choose, entries, words_of

OTHERS = [code for code in LANGUAGES if code != "en"]


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_translated_once_and_none_is_left_over(language: str):
    used = {text.one: text for text in texts()}
    found = [
        (message.id if isinstance(message.id, str) else message.id[0], file.name)
        for file, message in entries(language)
    ]
    assert not {text.one: text.where for text in used.values() if text.one not in {one for one, _ in found}}
    assert not [(one, file) for one, file in found if one not in used]
    assert not [one for one, count in Counter(one for one, _ in found).items() if count > 1]


@pytest.mark.parametrize("language", OTHERS)
def test_every_translation_says_something_and_has_the_places_of_the_text(language: str):
    for file, message in entries(language):
        text = message.id if isinstance(message.id, str) else message.id[1]
        forms = (message.string,) if isinstance(message.string, str) else tuple(message.string)
        assert all(forms), (file.name, text)
        assert not message.fuzzy, (file.name, text)
        for form in forms:
            assert places(form) == places(text), (file.name, text, form)


def test_numbers_sizes_and_times_are_those_of_the_language():
    english, japanese = words_of("en"), words_of("ja")
    assert english.number(12000) == "12,000"
    assert [english.size(count) for count in (0, 999, 1000, 88_400_000, 999_999, 2 * 10**12)] == [
        "0 B", "999 B", "1 kB", "88.4 MB", "1 MB", "2 TB",
    ]  # fmt: skip
    now = dt.datetime.now(dt.UTC)
    assert english.ago(now - dt.timedelta(minutes=5)) == "5 minutes ago"
    assert english.ago(now - dt.timedelta(seconds=2)) == "just now"
    assert japanese.ago(now - dt.timedelta(minutes=5)) == "5 分前"
    assert 'datetime="2026-01-02T03:04:05+00:00"' in english.time(dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC))


def test_what_is_filled_in_is_inert():
    assert words_of("en")("Delete {tag}", tag="<b>&") == "Delete &lt;b&gt;&amp;"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("ja", "ja"),
        ("ja-JP,ja;q=0.9,en;q=0.8", "ja"),
        ("fr, en;q=0.5, ja;q=0.7", "ja"),
        ("de", "en"),
        ("ja;q=0", "en"),
        ("ja;q=x,en", "en"),
    ],
)
def test_the_browser_says_which_language(header: str, language: str):
    assert choose(header) == language


def test_a_text_for_code_is_no_html():
    said = words_of("en")("{name} isn't there", name="<b>&amp;")
    assert _plain(said) == "<b>&amp; isn't there"
    assert said == "&lt;b&gt;&amp;amp; isn&#39;t there"
