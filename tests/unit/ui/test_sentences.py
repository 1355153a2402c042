"""Events in words: there is a sentence for everything that happens, and none for what does not."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from dtr.events import EventType, Kind
from dtr.http.api.events import EventRecord, ObjectRecord
from dtr.http.ui.activity import SENTENCES, tell
from dtr.http.ui.words import LANGUAGES, words_of

REFERENCE = (Path(__file__).parents[3] / "docs/reference/events.md").read_text(encoding="utf-8")
HAPPENS = {
    (kind, name)
    for kind, names in re.findall(r"^\| `(\w+)` \| ((?:`[A-Z]+`(?:, )?)+) \|", REFERENCE, re.MULTILINE)
    for name in re.findall(r"[A-Z]+", names)
    if kind in get_args(Kind)
}


def record(kind: Any = "tag", name: EventType = "CREATE", **more: Any) -> EventRecord:
    given: dict[str, Any] = {
        "id": "1",
        "type": name,
        "published_at": dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        "actor": "id",
        "actor_name": "ada",
        "actor_type": "user",
        "remote_address": "",
        "repository": "acme/app",
        "object": ObjectRecord(type=kind, id="id", name="<b>v1</b>", content="sha256:" + "0" * 64),
        "target": ObjectRecord(type="tag", id="t", name="<i>there</i>", content="sha256:" + "1" * 64),
        "times": 1,
    }
    return EventRecord(**{**given, **more})


def visit(language: str = "en") -> Any:
    words = words_of(language)
    return SimpleNamespace(words=words, _=lambda text, **values: str(words(text, **values)))


def test_everything_that_happens_has_its_sentence():
    assert len(HAPPENS) > 70
    assert set(SENTENCES) == HAPPENS


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("kind", "name"), sorted(HAPPENS))
def test_a_sentence_is_whole_and_what_others_wrote_in_it_is_inert(kind: Any, name: Any, language: str):
    for here in ("", "acme/app"):
        told = tell(visit(language), record(kind, name), here=here, by="/activity?actorId=")
        assert not re.search(r"<[bi]>", told)
        assert "{" not in told


def test_who_did_it_is_a_link_to_what_else_they_did():
    told = tell(visit(), record(actor='a"b', actor_name="<ada>"), by="/x?actorId=")
    assert '<a href="/x?actorId=a%22b"><bdi>&lt;ada&gt;</bdi></a>' in told
    assert "<a" not in tell(visit(), record())
    assert tell(visit(), record(actor_type="anonymous")).startswith("Somebody without a log-in")
    assert tell(visit(), record(actor_type="system")).startswith("The registry")
    assert "The policy <bdi>nightly</bdi>" in tell(visit(), record(actor_type="policy", actor_name="nightly"))


def test_what_a_setting_became_is_told():
    content = (
        '{"visibility": "public", "tag_limit": 0, "immutable_tags": true, "long_description": null, "other": []}'
    )
    told = tell(
        visit(),
        record(
            "repository",
            "UPDATE",
            object=ObjectRecord(type="repository", name="a/b", content=content),
            target=ObjectRecord(),
        ),
    )
    assert told.endswith("visibility (public), tag limit (0), immutable tags (yes), README, other")
    renamed = record(
        "repository",
        "UPDATE",
        object=ObjectRecord(type="repository", name="a/b"),
        target=ObjectRecord(type="repository", name="a/c"),
    )
    assert tell(visit(), renamed).endswith("renamed the repository <bdi>a/b</bdi> to <bdi>a/c</bdi>")


def test_a_refused_pull_is_told_apart_from_one_that_was_only_noted():
    for mode, word in (("enforce", "was refused"), ("report", "pulled")):
        content = f'{{"mode": "{mode}", "missing": ["a signature", "a team"]}}'
        told = tell(
            visit(), record("pull", "FAIL", object=ObjectRecord(type="pull", id="d", name="v1", content=content))
        )
        assert word in told
        assert told.endswith("<bdi>a signature, a team</bdi>")
