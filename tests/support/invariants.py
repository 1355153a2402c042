"""What must hold in database and storage at every moment when nothing is under way."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from sqlalchemy import text

from dtr.db import Database, Statement
from dtr.oci import Digest
from dtr.storage import Driver

if TYPE_CHECKING:
    from tests.support.rooms import Rooms

# Each query gives what breaks a rule; the rules are numbered as in "Garbage collection: the protocol".
_RULES = {
    "a blob lives exactly as long as it has a link": """
        SELECT b.digest FROM blobs b
        WHERE NOT EXISTS (SELECT 1 FROM repository_blobs l WHERE l.digest = b.digest)
    """,
    "a location is named once": """
        SELECT location, count(*) FROM (
            SELECT location FROM uploads
            UNION ALL SELECT location FROM blobs WHERE location IS NOT NULL
            UNION ALL SELECT location FROM gc_objects
        ) AS named GROUP BY location HAVING count(*) > 1
    """,
    "a link without a date of review is held by a manifest": """
        SELECT l.repository_id, l.digest FROM repository_blobs l
        WHERE l.review_at IS NULL AND NOT EXISTS (
            SELECT 1 FROM manifest_references r
            WHERE r.repository_id = l.repository_id AND r.kind = 'blob' AND r.target = l.digest
        )
    """,
    "a manifest without a date of review is held by a tag, an index or its subject": """
        SELECT m.repository_id, m.digest FROM manifests m
        WHERE m.review_at IS NULL
        AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repository_id = m.repository_id AND t.manifest = m.digest)
        AND NOT EXISTS (
            SELECT 1 FROM manifest_references r
            WHERE r.repository_id = m.repository_id AND r.kind = 'manifest' AND r.target = m.digest
        )
        AND NOT EXISTS (
            SELECT 1 FROM manifests s WHERE s.repository_id = m.repository_id AND s.digest = m.subject
        )
    """,
    "a tag names a manifest": """
        SELECT t.repository_id, t.name FROM tags t
        WHERE NOT EXISTS (
            SELECT 1 FROM manifests m WHERE m.repository_id = t.repository_id AND m.digest = t.manifest
        )
    """,
    "the usage of a repository is the sum of its blobs": """
        SELECT counted.scope, counted.bytes, held.bytes FROM (
            SELECT scope, sum(bytes) AS bytes FROM (
                SELECT scope, bytes FROM usage_deltas UNION ALL SELECT scope, bytes FROM usage
            ) AS every_delta GROUP BY scope
        ) AS counted
        FULL JOIN (
            SELECT 'repository:' || l.repository_id AS scope, sum(b.size) AS bytes
            FROM repository_blobs l JOIN blobs b ON b.digest = l.digest GROUP BY l.repository_id
            UNION ALL
            SELECT 'namespace:' || once.namespace_id, sum(once.size) FROM (
                SELECT DISTINCT r.namespace_id, b.digest, b.size FROM repository_blobs l
                JOIN blobs b ON b.digest = l.digest JOIN repositories r ON r.id = l.repository_id
                WHERE r.namespace_id IS NOT NULL
            ) AS once GROUP BY once.namespace_id
            UNION ALL
            SELECT '*', sum(size) FROM blobs
        ) AS held ON held.scope = counted.scope
        WHERE coalesce(counted.bytes, 0) <> coalesce(held.bytes, 0)
    """,
}
_WHOLE = {
    "a manifest's blobs are in its repository": """
        SELECT r.repository_id, r.manifest, r.target FROM manifest_references r
        WHERE r.kind = 'blob' AND NOT EXISTS (
            SELECT 1 FROM repository_blobs l WHERE l.repository_id = r.repository_id AND l.digest = r.target
        )
    """,
    "an index's manifests are in its repository": """
        SELECT r.repository_id, r.manifest, r.target FROM manifest_references r
        WHERE r.kind = 'manifest' AND NOT EXISTS (
            SELECT 1 FROM manifests m WHERE m.repository_id = r.repository_id AND m.digest = r.target
        )
    """,
}


async def find_violations(database: Database, storage: Driver, *, sparse: bool = False) -> list[str]:
    """
    What breaks a rule, in words. Nothing may be under way.

    With `sparse`, manifests may name what is not there.
    """
    found: list[str] = []
    for rule, query in (_RULES if sparse else _RULES | _WHOLE).items():
        rows = await database.fetch_all(Statement(text(query)))
        found += [f"{rule}: not so for {tuple(row)}" for row in rows]
    # In one statement: PostgreSQL may still commit what a client that was killed sent, and a row takes the place
    # of another then.
    named = " UNION ALL ".join(f"SELECT location FROM {table}" for table in ("uploads", "blobs", "gc_objects"))
    known = {row[0] for row in await database.fetch_all(Statement(text(named)))}
    sizes = {}
    async with aclosing(storage.list()) as objects:
        async for stored in objects:
            sizes[stored.location] = stored.size
            # Of a tree that another registry left there, only the blobs that were taken over are ours.
            if stored.location not in known and "docker/registry/v2/" not in stored.location:
                found.append(f"an object is named by a row: not so for {stored.location}")
    for digest, size, location in await database.fetch_all(
        Statement(
            text("SELECT digest, size, location FROM blobs WHERE state = 'present' AND location IS NOT NULL")
        )
    ):
        if location not in sizes:
            found.append(f"a blob has an object: not so for {digest} at {location}")
        elif sizes[location] != size:
            found.append(f"a blob's object has its size: {sizes[location]} instead of {size} for {digest}")
        else:
            async with aclosing(storage.open(location)) as pieces:
                content = b"".join([piece async for piece in pieces])
            if Digest.of(content, digest.partition(":")[0]) != digest:
                found.append(f"a blob's object has its content: not so for {digest}")
    for digest, size, content in await database.fetch_all(
        Statement(
            text(
                "SELECT b.digest, b.size, c.content FROM blobs b LEFT JOIN blob_contents c ON c.digest = b.digest"
                " WHERE b.state = 'present' AND (b.location IS NULL OR c.digest IS NOT NULL)"
            )
        )
    ):
        if content is None or len(content) != size or Digest.of(content, digest.partition(":")[0]) != digest:
            found.append(f"a blob without an object has its content: not so for {digest}")
    found += [
        f"a manifest has its content: not so for {digest} in repository {repository}"
        for repository, digest, payload in await database.fetch_all(
            Statement(text("SELECT repository_id, digest, payload FROM manifests"))
        )
        if Digest.of(bytes(payload), digest.partition(":")[0]) != digest
    ]
    return found


async def assert_invariants(rooms: Rooms, *, sparse: bool = False) -> None:
    """Fail with all that breaks a rule."""
    violations = await find_violations(rooms.database, rooms.storage, sparse=sparse)
    assert not violations, "\n".join(violations)
