"""What a request asks the database does not grow with what there is: the benchmark's requests, in small."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.api import Case, Subject, cases
from benchmarks.seed import Shape, seed

SMALL = Shape(repositories=400, tags=1000, huge_tags=300, users=60, organizations=4, teams=16, events=300)
LARGER = Shape(repositories=1200, tags=3000, huge_tags=900, users=180, organizations=4, teams=48, events=900)
MOST = 12
"""No request of the lists, of search and of permissions asks more often."""


async def queries_of(shape: Shape, url: str, directory: Path) -> dict[Case, int]:
    await seed(url, shape)
    subject = Subject(url, directory)
    try:
        await subject.prepare(["admin", "plain", "owner", "lonely"])
        asked = {}
        for case in cases():
            await subject.call(case)  # what is read once and kept
            _, _, asked[case] = await subject.call(case)
    finally:
        await subject.close()
    return asked


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_queries_are_as_many_whatever_the_size(
    kind: str, make_database_url, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Else it is chance how many of them are asked: what is remembered is so for a second.
    monkeypatch.setattr("dtr.db.seldom._REMEMBERED_SECONDS", 0.0)
    small = await queries_of(SMALL, await make_database_url(kind), tmp_path / "small")
    (tmp_path / "metadata.db").unlink(missing_ok=True)
    larger = await queries_of(LARGER, await make_database_url(kind), tmp_path / "larger")
    for (case, few), many in zip(small.items(), larger.values(), strict=True):
        assert 0 < many <= MOST, f"{case.title} as {case.user}"
        if "/index/" not in case.path:  # search looks further as long as it has found too little
            assert few == many, f"{case.title} as {case.user}"
