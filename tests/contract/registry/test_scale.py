"""
A page costs the same wherever it is and whatever else is stored.

Not measured with a clock: PostgreSQL says how many blocks a page reads, SQLite how many steps its machine takes,
and both how they would go about it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import asyncpg
import pytest
from sqlalchemy import select
from tests.support.plans import Cost, Seeded, make_tables

from dtr.accounts import standings
from dtr.db import Statement, schema
from dtr.db.texts import says, text_parameters
from dtr.registry import _tags, images, manifests, repositories

TAGS, REPOSITORIES, REFERRERS, RARE, OTHERS = 1_000_000, 100_000, 10_000, 20, 100_000
PAGE = 100
SUBJECT = "sha256:" + "0" * 64


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def seeded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    """A database with many rows, made once."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('scale')}/metadata.db"
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
        before, after = "PRAGMA synchronous = OFF; BEGIN;", "COMMIT; ANALYZE;"

        def numbers(last: int) -> str:
            return (
                "(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < "
                f"{last}) SELECT i FROM n) AS n"
            )

        def padded(text: str, width: int) -> str:
            return f"printf('{text}%0{width}d', n.i)"
    else:
        before, after = "SET session_replication_role = replica; SET synchronous_commit = off;", ""

        def numbers(last: int) -> str:
            return f"generate_series(1, {last}) AS n(i)"

        def padded(text: str, width: int) -> str:
            return f"'{text}' || lpad(n.i::text, {width}, '0')"

    manifest = (
        "INSERT INTO manifests (repository_id, digest, media_type, artifact_type, subject, content_size, payload,"
        " author, created_at) "
    )
    return f"""
        {before}
        INSERT INTO accounts (id, name, kind, is_admin, is_active, is_imported, created_at)
        VALUES ('a', 'acme', 'organization', false, true, false, 1);
        INSERT INTO repositories
            (namespace_id, path, visibility, scan_on_push, immutable_tags, tag_limit, created_at)
        SELECT 'a', {padded("acme/r", 7)}, 'public', false, false, 0, 1 FROM {numbers(REPOSITORIES)};
        INSERT INTO tags (repository_id, name, manifest, author, created_at, updated_at)
        SELECT 500, {padded("v", 7)}, '{SUBJECT}', 'ada', n.i, n.i FROM {numbers(TAGS)};
        INSERT INTO tags (repository_id, name, manifest, author, created_at, updated_at)
        SELECT n.i % 50000 + 1000, {padded("v", 7)}, '{SUBJECT}', 'ada', n.i, n.i FROM {numbers(OTHERS)};
        {manifest} VALUES (500, '{SUBJECT}', 't', NULL, NULL, 1, 'x', 'ada', 1);
        {manifest} SELECT 500, {padded("sha256:1", 63)}, 't',
            CASE WHEN n.i % {REFERRERS // RARE} = 7 THEN 'rare' ELSE 'common' END, '{SUBJECT}', 1, 'x', 'ada', 1
        FROM {numbers(REFERRERS)};
        {manifest} SELECT n.i % 1000 + 1, {padded("sha256:2", 63)}, 't', 'signature', {padded("sha256:3", 63)},
            1, 'x', 'ada', 1
        FROM {numbers(OTHERS)};
        {after}
    """


async def pages(
    seeded: Seeded, statement: Statement, positions: dict[str, str], **parameters: Any
) -> dict[str, list[Cost]]:
    return {
        name: await seeded.cost(statement, after=after, limit=PAGE, **parameters)
        for name, after in positions.items()
    }


ONE_ACCOUNT = (
    '"Node Type": "Seq Scan", "Parent Relationship": "Outer", "Parallel Aware": false, "Async Capable": false,'
    ' "Relation Name": "accounts"'
)


def assert_equal_costs(found: dict[str, list[Cost]], *, blocks: int, rows: dict[str, int] | None = None) -> None:
    """No page costs more than another by more than a few blocks, or steps; and none much at all."""
    for costs in zip(*found.values(), strict=True):
        for name, cost in zip(found, costs, strict=True):
            assert cost.rows == (rows or {}).get(name, PAGE), (name, cost)
            assert "TEMP B-TREE" not in cost.plan, cost.plan
            assert "SCAN" not in cost.plan.replace("Index Scan", "").replace("Index Only Scan", ""), cost.plan
            assert '"Sort"' not in cost.plan, cost.plan
            # There is one account: PostgreSQL reads such a table whole, however it is asked.
            assert "Seq Scan" not in cost.plan.replace(ONE_ACCOUNT, ""), cost.plan
        work = [cost.work for cost in costs]
        if costs[0].plan.startswith("{"):
            assert max(work) <= blocks, (work, costs[0].plan)
        else:
            assert max(work) < 40 * PAGE, work
            assert max(work) - min(work) < 50, work


async def test_a_page_of_a_million_tags_costs_the_same_wherever_it_is(seeded: Seeded):
    found = await pages(
        seeded,
        manifests._LIST_TAGS,
        {"first": "", "middle": "v0500000", "last": f"v{TAGS - PAGE:07}", "behind": "w"},
        repository=500,
    )
    last = found.pop("behind")
    assert all(cost.rows == 0 for cost in last)
    assert_equal_costs(found, blocks=20)
    for costs in found.values():
        for cost in costs:
            assert "USING PRIMARY KEY" in cost.plan or "Index Only Scan" in cost.plan


async def test_a_page_of_the_repositories_costs_the_same_wherever_it_is(seeded: Seeded):
    found = await pages(
        seeded,
        repositories._LIST,
        {"first": "", "middle": "acme/r0050000", "last": f"acme/r{REPOSITORIES - PAGE:07}"},
    )
    assert_equal_costs(found, blocks=PAGE + 20)


async def test_a_page_of_referrers_costs_the_same_wherever_it_is(seeded: Seeded):
    positions = {
        "first": "",
        "middle": f"sha256:1{REFERRERS // 2:063}",
        "last": f"sha256:1{REFERRERS - PAGE:063}",
    }
    found = await pages(seeded, manifests._REFERRERS, positions, repository=500, subject=SUBJECT)
    assert_equal_costs(found, blocks=3 * PAGE)


async def test_referrers_of_a_rare_type_are_found_without_a_walk_over_the_others(seeded: Seeded):
    for after in ("", f"sha256:1{REFERRERS // 2:063}"):
        for cost in await seeded.cost(
            manifests._REFERRERS_OF_TYPE,
            repository=500,
            subject=SUBJECT,
            artifact_type="rare",
            after=after,
            limit=PAGE,
        ):
            assert cost.rows == (RARE if not after else RARE // 2)
            assert "ix_manifests_subject_artifact_type" in cost.plan
            assert cost.work < (3 * RARE if cost.plan.startswith("{") else 40 * RARE), cost


@pytest.mark.parametrize("reference", ["v0500000", SUBJECT])
async def test_a_manifest_is_found_by_keys_alone(seeded: Seeded, reference: str):
    statement = manifests._BY_DIGEST if ":" in reference else manifests._BY_TAG
    parameters = {"lease": 1} if ":" in reference else {}
    for cost in await seeded.cost(statement, path="acme/r0000500", reference=reference, **parameters):
        assert cost.rows == 1
        assert cost.work < (20 if cost.plan.startswith("{") else 100), cost


async def test_a_push_to_a_repository_with_a_tag_limit_walks_no_further_than_the_limit(seeded: Seeded):
    for cost in await seeded.cost(_tags._SURPLUS_TAGS, repository=500, names=["v0000001"], kept=10):
        assert cost.rows == 1000
        assert '"Sort"' not in cost.plan
        assert "TEMP B-TREE" not in cost.plan
        assert cost.work < (1200 if cost.plan.startswith("{") else 40_000), cost


async def test_what_somebody_may_do_costs_the_same_in_a_large_namespace(seeded: Seeded):
    for cost in await seeded.cost(
        standings._STANDINGS, account="nobody", token="", paths=["acme/r0050000"], namespaces=["acme"]
    ):
        assert cost.rows == 1
        assert "uq_repositories_path" in cost.plan
        assert cost.work < (20 if cost.plan.startswith("{") else 300), cost


@pytest.mark.parametrize("statement", [images._NAMED_TAGS, _tags._LOCK_FREE_TAGS])
async def test_some_tags_of_a_million_are_found_one_by_one(seeded: Seeded, statement: Statement):
    names = [f"v{number:07}" for number in range(1, TAGS, TAGS // 50)]
    for cost in await seeded.cost(statement, repository=500, names=[*names, "no-such"]):
        assert cost.rows == 50
        assert cost.work < (51 * 8 if cost.plan.startswith("{") else 51 * 60), cost


async def test_some_manifests_of_many_are_found_one_by_one(seeded: Seeded):
    digests = [f"sha256:1{number:063}" for number in range(1, REFERRERS, REFERRERS // 50)]
    for cost in await seeded.cost(images._FIND_MANIFESTS, repository=500, digests=digests, largest=1):
        assert cost.rows == 50
        assert cost.work < (50 * 12 if cost.plan.startswith("{") else 50 * 100), cost


async def test_a_rare_part_of_a_word_is_found_without_a_walk_over_all_repositories(seeded: Seeded):
    """PostgreSQL as it plans for this word; for any it thinks of one that a hundredth has."""
    statement = Statement(select(schema.repositories.c.id).where(says(schema.repositories.c.id)))
    cost = (await seeded.cost(statement, **text_parameters("r0050000")))[0]
    assert cost.rows == 1
    assert "Seq Scan" not in cost.plan, cost.plan
    assert cost.work < (600 if cost.plan.startswith("{") else 10_000), cost
