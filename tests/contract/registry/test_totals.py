"""What the whole registry has and could lose, on both databases."""

from __future__ import annotations

from pathlib import Path

from tests.support.images import make_image
from tests.support.plans import Seeded
from tests.support.rooms import Rooms

from dtr.db import open_database
from dtr.db.migrate import migrate
from dtr.registry import Total, Totals, collector


async def test_blobs_are_counted_once_and_once_for_every_repository(rooms: Rooms):
    totals = Totals(rooms.database, rooms.collector)
    assert await totals.total() == Total(0, 0)
    image = make_image(layers=2)
    for path in ("acme/one", "acme/two"):
        await rooms.push(await rooms.make_repository(path), image, "v1")
    size = sum(map(len, image.blobs))
    assert await totals.total() == Total(size, 2)
    for _ in range(2):
        counted = await totals.counted()
        assert (counted.bytes, counted.pushes, counted.pulls) == (2 * size, 2, 0)
        while await rooms.usage_counts.fold():  # counted alike before and after it is added up
            pass
    # Others have names that sort beside those of repositories.
    await rooms.change("INSERT INTO usage (scope, bytes) VALUES ('repository', 1), ('repository;1', 2), ('s', 4)")
    assert (await totals.counted()).bytes == 2 * size


async def test_what_a_collection_would_free_is_what_it_frees(rooms: Rooms):
    totals = Totals(rooms.database, rooms.collector)
    repository = await rooms.make_repository()
    kept, gone = make_image(layers=1), make_image(layers=2)
    await rooms.push(repository, kept, "kept")
    await rooms.push(repository, gone, "gone")
    await rooms.manifests.delete(repository, str(gone.digest))
    await rooms.make_reviews_due()
    found = await totals.garbage()
    assert (found.blobs, found.blob_bytes) == (3, sum(map(len, gone.blobs)))
    assert found.objects == 0
    collected = await rooms.collect_all()
    assert (collected.blobs, collected.size) == (found.blobs, found.blob_bytes)
    after = await totals.garbage()
    assert (after.manifests, after.links, after.blobs) == (0, 0, 0)
    locations = await rooms.query("SELECT count(*), coalesce(sum(size), 0) FROM gc_objects")
    assert (after.objects, after.object_bytes) == tuple(locations[0])


async def test_what_would_be_freed_is_looked_for_among_what_is_due(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'metadata.db'}"
    database = open_database(url)
    await migrate(database, url)
    await database.close()
    (cost,) = await Seeded("sqlite", url).cost(collector._COUNT_FREE, ahead=0)
    assert "SEARCH repository_blobs USING COVERING INDEX ix_repository_blobs_review_at" in cost.plan
    assert "SCAN repository_blobs" not in cost.plan
