"""Keeping the newest: so many of them, whatever the order in which tags are looked at."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dtr.policies import Answer, Judged, Pruned, PruningPolicy
from dtr.policies.rules import Decision
from dtr.registry.images import ManifestRecord, TagRecord


def judged(name: int, moved: int, answer: Answer, kept: Any) -> Judged:
    tag = TagRecord(
        name=f"t{name:02}",
        author="",
        created_at=0,
        updated_at=moved,
        manifest=ManifestRecord(digest=f"digest {name}", media_type="", kind="image"),
        pulls=0,
        last_pulled_at=None,
    )
    return Judged(tag, Decision(answer, None), kept if answer is Answer.YES else "")


some = st.builds(
    lambda rows: [judged(number, *row) for number, row in enumerate(rows)],
    st.lists(
        st.tuples(
            st.integers(0, 9),  # many were moved at the same moment
            st.sampled_from([Answer.YES, Answer.YES, Answer.YES, Answer.NO, Answer.WAITS]),
            st.sampled_from(["", "", "", "signed", "protected"]),
        ),
        max_size=40,
    ),
)


@given(some, st.integers(0, 12), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_the_newest_stay_whatever_the_order(tags: list[Judged], keep: int, random: Any):
    policy = PruningPolicy(id="", repository=1, enabled=True, rules=(), keep=keep)
    found = []
    for _ in range(2):
        random.shuffle(tags)
        tally = Pruned(policy)
        for one in tags:
            tally.see(one)
        found.append((sorted(tally.newest), tally.doomed))
    assert found[0] == found[1]
    newest, doomed = found[0]
    meant = sorted((one.tag.updated_at, one.tag.name, one.tag.manifest.digest) for one in tags if one.goes)
    assert newest == (meant[-keep:] if keep else [])
    assert doomed == {name: digest for _, name, digest in meant[: max(0, len(meant) - keep)]}
    assert tally.signed == sum(one.kept == "signed" for one in tags)
    assert tally.waiting == sum(one.decision.answer is Answer.WAITS for one in tags)


@given(some, st.integers(0, 12), st.integers(0, 12))
@settings(max_examples=100, deadline=None)
def test_who_keeps_more_deletes_no_other(tags: list[Judged], fewer: int, more: int):
    fewer, more = sorted((fewer, more))
    doomed = []
    for keep in (fewer, more):
        tally = Pruned(PruningPolicy(id="", repository=1, enabled=True, rules=(), keep=keep))
        for one in tags:
            tally.see(one)
        doomed.append(set(tally.doomed))
    assert doomed[1] <= doomed[0]
