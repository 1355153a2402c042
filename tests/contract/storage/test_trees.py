"""On every storage, the tree of another registry is taken over where it lies, and goes like what is ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

from tests.support.images import digest_of, make_image, make_index
from tests.support.rooms import Rooms
from tests.support.storage import Store
from tests.support.trees import Tree

from dtr.registry.importing import Import, ImportPlan


async def test_a_tree_is_taken_over_where_it_lies(
    store: Store, make_database_url: Callable[[str], Awaitable[str]]
) -> None:
    rooms = Rooms(await make_database_url("sqlite"), store.open)
    try:
        driver = rooms.storage.driver("default")
        tree = Tree(driver, "some/place/")
        index = make_index(make_image(layers=2, size=50_000))
        await tree.image("acme/app", index, "latest")
        await tree.image("acme/app-x", index.children[0], "v1")
        async with aclosing(driver.list("some/")) as found:
            before = [stored async for stored in found]
        plan = ImportPlan(prefix="some/place", create_namespaces=True, verify=True)
        made = Import(
            rooms.database, rooms.storage, accounts=rooms.accounts, repositories=rooms.repositories,
            manifests=rooms.manifests, lifetimes=rooms.lifetimes, manifest_limit=10_000, plan=plan,
        )  # fmt: skip
        told: list[str] = []
        await made.run(told.append)
        assert told == []
        assert (made.counted["blobs"], made.counted["manifests"], made.counted["tags"]) == (3, 3, 2)
        async with aclosing(driver.list("some/")) as found:
            assert [stored async for stored in found] == before
        assert (await rooms.manifests.get("acme/app", "latest")).payload == index.payload
        for content in index.children[0].blobs:
            assert await rooms.read("acme/app", digest_of(content)) == content
        assert await rooms.findings(content=True) == []
        for path in ("acme/app", "acme/app-x"):
            await rooms.repositories.delete(path)
        await rooms.collect_all()
        await rooms.make_due()
        assert (await rooms.sweeper.sweep()).objects == 3
        left = [stored.location for stored in before if "/blobs/" not in stored.location]
        async with aclosing(driver.list("some/")) as found:
            remaining = [stored.location async for stored in found]
        assert [one for one in remaining if "/blobs/" not in one] == left, "links are nobody's business"
        assert len(remaining) == len(left) + 2, "and so are its copies of manifests"
    finally:
        await rooms.close()
