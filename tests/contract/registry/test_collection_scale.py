"""
Collecting and checking cost what there is to do, not what is stored: every statement goes by an index.

`DTR_SCALE_ROWS=1000000` lets the tables be so large; the costs are printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
from typing import Any

import asyncpg
import pytest
from tests.support.plans import Cost, Seeded, make_tables

from dtr.accounts import retention
from dtr.db import Statement
from dtr.registry import collector, fsck, sweeper

ROWS = int(os.environ.get("DTR_SCALE_ROWS", "60000"))
DUE = 100
"""So many of each kind are due."""
SHARE = 5
"""So many repositories have all of it: what costs as much as a repository has is seen."""
LARGE = (
    "manifests",
    "repository_blobs",
    "blobs",
    "manifest_references",
    "tags",
    "gc_objects",
    "uploads",
    "tokens",
)
HOLD = {"hold": 1000}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def seeded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """Blobs, links, manifests and references, of which a few are due; half of the manifests have tags."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('collection')}/metadata.db"
        asyncio.run(make_tables(url))
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        connection.executescript(_seed("sqlite"))
        connection.close()
    else:
        url = request.getfixturevalue("postgresql_cluster").create()
        asyncio.run(make_tables(url))
        asyncio.run(_execute(url, _seed("postgresql"), "ANALYZE"))
    return Seeded(request.param, url)


async def _execute(url: str, *commands: str) -> None:
    connection = await asyncpg.connect(url)
    for command in commands:
        await connection.execute(command, timeout=600)
    await connection.close()


def _seed(kind: str) -> str:
    if kind == "sqlite":
        before, after, payload = "PRAGMA synchronous = OFF; BEGIN;", "COMMIT; ANALYZE;", "X'78'"
        counting = f"SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}"
        numbers = f"(WITH RECURSIVE n(i) AS ({counting}) SELECT i FROM n) AS n"

        def padded(text: str, number: str = "n.i", width: int = 64) -> str:
            return f"printf('{text}%0{width}d', {number})"
    else:
        before, after = "SET session_replication_role = replica; SET synchronous_commit = off;", ""
        payload, numbers = "'x'", f"generate_series(1, {ROWS}) AS n(i)"

        def padded(text: str, number: str = "n.i", width: int = 64) -> str:
            return f"'{text}' || lpad(({number})::text, {width}, '0')"

    due = f"CASE WHEN n.i % {ROWS // DUE} = 0 THEN 1 END"
    later = f"CASE WHEN n.i % {ROWS // DUE} = 0 THEN 1 ELSE 9000000000000 END"
    return f"""
        {before}
        INSERT INTO accounts (id, name, kind, is_admin, is_active, is_imported, created_at)
        VALUES ('a', 'acme', 'organization', false, true, false, 1);
        INSERT INTO repositories
            (id, namespace_id, path, visibility, scan_on_push, immutable_tags, tag_limit, created_at)
        SELECT n.i, 'a', {padded("acme/r", width=7)}, 'public', false, false, 0, 1 FROM {numbers}
        WHERE n.i <= {SHARE};
        INSERT INTO blobs (digest, size, location, state, created_at)
        SELECT {padded("sha256:")}, 10, {padded("20200101/0000/", width=9)}, 'present', 1 FROM {numbers};
        INSERT INTO repository_blobs (repository_id, digest, review_at)
        SELECT n.i % {SHARE} + 1, {padded("sha256:")}, {due} FROM {numbers};
        INSERT INTO manifests (repository_id, digest, media_type, content_size, payload, author, created_at,
            review_at, subject)
        SELECT n.i % {SHARE} + 1, {padded("sha256:1", width=63)}, 't', 1, {payload}, 'ada', 1, {due},
            CASE WHEN n.i % 20 = 0 THEN {padded("sha256:1", "n.i - 1000", width=63)} END FROM {numbers};
        INSERT INTO manifest_references (repository_id, manifest, kind, target)
        SELECT n.i % {SHARE} + 1, {padded("sha256:1", width=63)}, 'blob', {padded("sha256:")} FROM {numbers};
        INSERT INTO manifest_references (repository_id, manifest, kind, target)
        SELECT n.i % {SHARE} + 1, {padded("sha256:1", width=63)}, 'manifest',
            {padded("sha256:1", "n.i - 1000", width=63)} FROM {numbers} WHERE n.i % 10 = 0 AND n.i > 1000;
        INSERT INTO tags (repository_id, name, manifest, author, created_at, updated_at)
        SELECT n.i % {SHARE} + 1, {padded("v", width=7)}, {padded("sha256:1", width=63)}, 'ada', 1, 1
        FROM {numbers} WHERE n.i % 2 = 0;
        INSERT INTO gc_objects (location, size, delete_after, attempts)
        SELECT {padded("20190101/0000/", width=9)}, 10, {later}, 0 FROM {numbers};
        INSERT INTO uploads
            (id, repository_id, location, driver_state, "offset", algorithm, started_at, expires_at)
        SELECT {padded("u", width=7)}, n.i % {SHARE} + 1, {padded("20210101/0000/", width=9)}, '', 0, 'sha256', 1,
            {later}
        FROM {numbers};
        INSERT INTO tokens (id, account_id, kind, label, is_active, created_at, expires_at)
        SELECT {padded("t", width=7)}, 'a', 'refresh', '', true, 1, CASE WHEN n.i % 3 = 0 THEN {later} END
        FROM {numbers};
        {after}
    """


def _digest(number: int, kind: str = "") -> str:
    return f"sha256:{kind}{number:0{64 - len(kind)}}"


def _pairs(kind: str = "") -> dict[str, Any]:
    numbers = [ROWS // DUE * step for step in range(1, 51)]
    return {"pairs": json.dumps([(number % SHARE + 1, _digest(number, kind)) for number in numbers])}


MANIFESTS, LINKS = _pairs("1"), _pairs()
REPOSITORIES = [number for number, _ in json.loads(MANIFESTS["pairs"])]
DIGESTS = [digest for _, digest in json.loads(LINKS["pairs"])]
BEHIND = {"after_date": -1, "after_repository": -1, "after_digest": ""}
AHEAD = {"ahead": 0}
MIDDLE = {"repository": SHARE // 2, "digest": _digest(ROWS // 2)}
WORK: dict[str, tuple[Statement, dict[str, Any]]] = {
    "due manifests": (collector._DUE_MANIFESTS, AHEAD | {"limit": 50}),
    "busy repositories": (collector._BUSY, {"repositories": REPOSITORIES, "active": 0}),
    "tagged": (collector._TAGGED, MANIFESTS),
    "holders": (collector._HOLDERS, MANIFESTS),
    "kept": (collector._KEPT, MANIFESTS | AHEAD),
    "a holder": (collector._LOCK_A_HOLDER, MANIFESTS),
    "locks to delete": (collector._LOCK_TO_DELETE, MANIFESTS),
    "locks to let go": (collector._LOCK_TO_LET_GO, MANIFESTS),
    "held manifests": (collector._HELD_MANIFESTS, MANIFESTS),
    "held links": (collector._HELD_LINKS, MANIFESTS),
    "due links": (collector._DUE_LINKS, AHEAD | BEHIND | {"limit": 50}),
    "locks on blobs": (collector._LOCK_BLOBS, {"digests": DIGESTS}),
    "locks on links": (collector._LOCK_LINKS_TO_DELETE, LINKS | AHEAD),
    "locks on links to let go": (collector._LOCK_LINKS_TO_LET_GO, LINKS),
    "used links": (collector._USED_LINKS, LINKS),
    "last of namespace": (collector._LAST_OF_NAMESPACE, LINKS),
    "what is due": (collector._COUNT_DUE, AHEAD | {"ahead_of_manifests": 0}),
    "expired uploads": (sweeper._EXPIRED, {}),
    "due objects": (sweeper._DUE, {}),
    "due at the sweeper": (sweeper._COUNT_DUE, {}),
    "ended tokens": (retention._ENDED_TOKENS, {"kept": 1}),
}
PAGES: dict[str, tuple[Statement, dict[str, Any]]] = {
    "blobs by location": (fsck._BLOBS, {"after": f"20200101/0000/{ROWS // 2:09}", "before": "20200102"}),
    "blobs in the database": (fsck._CONTENTS, {"after": ""}),
    "a location": (fsck._NAMED, {"location": f"20200101/0000/{ROWS // 2:09}"}),
    "manifests": (fsck._MANIFESTS, MIDDLE),
    "links": (fsck._LINKS, MIDDLE),
    "references": (
        fsck._REFERENCES,
        {"repository": SHARE // 2, "manifest": _digest(ROWS // 2, "1"), "kind": "blob", "target": ""},
    ),
}


def scanned(kind: str, cost: Cost) -> set[str]:
    """Large tables that are read from one end to the other."""
    if kind == "sqlite":
        found = re.findall(r"SCAN (\w+)(?! USING (?:COVERING )?INDEX ix_\w+_review_at)", cost.plan)
        return {one for one in found if one in LARGE}
    found = re.findall(r'"Seq Scan".*?"Relation Name": "(\w+)"', cost.plan)
    return {one for one in found if one in LARGE}


async def test_collecting_goes_by_indexes_and_costs_what_is_due(seeded: Seeded):
    report = {}
    for name, (statement, parameters) in WORK.items():
        for cost in await seeded.cost(statement, **parameters):
            report[name] = cost.work
            assert not scanned(seeded.kind, cost), (name, cost.plan)
            limit = 3_000 if seeded.kind == "postgresql" else 10_000
            assert cost.work < limit, (name, cost.work, cost.plan)
    print(f"{seeded.kind}, {ROWS} rows, {'blocks' if seeded.kind == 'postgresql' else 'steps'}: {report}")


async def test_a_page_of_an_audit_goes_by_indexes(seeded: Seeded):
    report = {}
    for name, (statement, parameters) in PAGES.items():
        for cost in await seeded.cost(statement, **parameters):
            report[name] = cost.work
            # A page of a thousand out of few rows is no matter for an index.
            assert ROWS < 500_000 or not scanned(seeded.kind, cost), (name, cost.plan)
            limit = 25_000 if seeded.kind == "postgresql" else 200_000
            assert cost.work < limit, (name, cost.work, cost.plan)
    print(f"{seeded.kind}, {ROWS} rows, {'blocks' if seeded.kind == 'postgresql' else 'steps'}: {report}")
