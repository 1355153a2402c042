"""Lists of repositories: all of what somebody sees, filtered and sorted, on both databases."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.support.grants import grant_team
from tests.support.images import make_artifact, make_image
from tests.support.notary import Publisher
from tests.support.rooms import GUN, Rooms

from dtr.accounts import Action, Level, Operation, TokenScope, may
from dtr.oci import companions, parse_repository_name
from dtr.registry import Pins, RepositoryQuery, RepositoryUnknown, Summaries, TooManyPins, show_signed
from dtr.registry.pins import MOST
from dtr.registry.usage import of_repository, touch
from dtr.signer import LocalSigner
from dtr.trust import Collection, Trust
from dtr.trust.index import TrustIndex
from dtr.tuf import Envelope

PATHS = {
    "acme/web": ("public", "The shop's front"),
    "acme/web2": ("private", ""),
    "acme/tools/web": ("private", "Scripts"),
    "acme/backend": ("private", "Answers what the WEB asks"),
    "ada/cobweb": ("private", ""),
    "ada/x": ("private", 'Ärger mit 100%_echtem \\ "Text"'),
    "ada/x1": ("public", ""),
    "bob/secret-web": ("private", ""),
}


@pytest.fixture
async def numbers(rooms: Rooms) -> dict[str, int]:
    """The ids of the repositories, by path."""
    for name in ("ada", "bob", "root", "looker"):
        await rooms.accounts.create_user(name, None, is_admin=name == "root")
    await rooms.accounts.update("looker", is_auditor=True)
    return {
        path: await rooms.make_repository(path, visibility=visibility, short_description=description)
        for path, (visibility, description) in PATHS.items()
    }


async def found(
    rooms: Rooms, user: str | None = "root", *, scope: TokenScope | None = None, page: int = 100, **query: Any
) -> list[str]:
    """The paths, page by page; counted they are as many."""
    account = (await rooms.accounts.get(user)).id if user else None
    summaries, wanted = Summaries(rooms.database, rooms.accounts), RepositoryQuery(**query)
    ids: list[int] = []
    start = ""
    while True:
        rows = await summaries.list_repositories(account, wanted, scope=scope, start=start, limit=page + 1)
        ids += [number for number, _ in rows[:page]]
        if len(rows) <= page:
            break
        start = rows[page][1]
    assert await summaries.count(account, wanted, scope=scope) == len(ids)
    counted = await summaries.list_and_count(account, wanted, scope=scope, start=start, limit=page + 1)
    assert counted == (rows, len(ids))
    paths = {one.id: one.path for one in await rooms.repositories.get_many(ids)}
    return [paths[number] for number in ids]


async def fold(rooms: Rooms) -> None:
    while await rooms.usage_counts.fold():
        pass


async def test_without_filters_all_that_is_to_be_seen_is_listed_by_path(rooms: Rooms, numbers: dict[str, int]):
    assert await found(rooms) == sorted(PATHS)
    assert await found(rooms, None) == ["acme/web", "ada/x1"]


TEXTS = {
    "web": ["acme/backend", "acme/tools/web", "acme/web", "acme/web2", "ada/cobweb", "bob/secret-web"],
    "WEB2": ["acme/web2"],
    "x": ["ada/x", "ada/x1"],
    "we": ["acme/tools/web", "acme/web", "acme/web2"],
    "ad": ["ada/cobweb", "ada/x", "ada/x1"],
    "ÄRGER": ["ada/x"],
    "100%_e": ["ada/x"],
    '\\ "': ["ada/x"],
    "%%%": [],
    "%": [],
    "__": [],
    "web OR x": [],
    "\x00": [],
}


async def test_a_text_is_looked_for_in_paths_and_descriptions(rooms: Rooms, numbers: dict[str, int]):
    for text, expected in TEXTS.items():
        assert await found(rooms, text=text) == expected, text


async def test_nobody_finds_what_is_not_to_be_seen(rooms: Rooms, numbers: dict[str, int]):
    """Each asker, with each order and page, with and without a scope, against the rule for each repository."""
    accounts = rooms.accounts
    await accounts.organizations.put_member("acme", "bob")
    await accounts.organizations.create_team("acme", "devs")
    await accounts.organizations.put_team_member("acme", "devs", "bob")
    await grant_team(accounts, "acme/web2", "devs", Level.READ)
    await accounts.grants.set_user(await accounts.grants.on("ada/cobweb"), "bob", Level.READ)
    reads = frozenset({Action.PULL})
    scopes = [None, TokenScope(("acme/*",), reads), TokenScope(("ada/cobweb", "acme/back*"), reads)]
    for user, scope in itertools.product((None, "ada", "bob", "root", "looker"), scopes):
        account = (await accounts.get(user)).id if user else None
        standings = await accounts.standings.find_all(account, PATHS, scope=scope)
        visible = sorted(path for path, one in standings.items() if may(one.facts, Operation.SEE))
        for order in ("name", "pushed"):
            assert await found(rooms, user, scope=scope, order=order, page=2) == visible
        owners, total = await Summaries(rooms.database, accounts).list_owners(account, scope=scope, limit=9)
        assert owners == sorted(Counter(path.partition("/")[0] for path in visible).items())
        assert total == len(visible)
        inside = [path for path in visible if path.startswith("acme/")]
        acme = (await accounts.get("acme")).id
        assert await found(rooms, user, scope=scope, namespace=acme) == inside


async def test_what_changes_is_listed_as_it_is_now(rooms: Rooms, numbers: dict[str, int]):
    await rooms.repositories.update("ada/x", visibility="public")
    assert await found(rooms, None) == ["acme/web", "ada/x", "ada/x1"]
    await rooms.repositories.update("ada/x", visibility="private")
    await rooms.repositories.rename("ada/x1", parse_repository_name("bob/y"))
    assert await found(rooms, None) == ["acme/web", "bob/y"]
    bob = (await rooms.accounts.get("bob")).id
    assert await found(rooms, "bob", namespace=bob) == ["bob/secret-web", "bob/y"]
    await rooms.repositories.delete("bob/y")
    assert await found(rooms, None) == ["acme/web"]
    await rooms.repositories.delete_all(bob)
    assert await found(rooms, "bob") == ["acme/web"]


async def test_sorted_by_what_was_pushed_pulled_and_is_held(rooms: Rooms, numbers: dict[str, int]):
    first, second = numbers["acme/web2"], numbers["ada/x1"]
    await rooms.push(first, make_image(layers=3), "1.0")
    await asyncio.sleep(0.01)
    await rooms.push(second, make_image(layers=1), "1.0")
    await rooms.change(
        "INSERT INTO usage_deltas (scope, bytes, pulls, pushes, pulled_at) VALUES (:scope, 0, 7, 0, 1)",
        scope=of_repository(numbers["bob/secret-web"]),
    )
    await fold(rooms)
    for page in (1, 3, 100):
        assert (await found(rooms, order="pushed", page=page))[:3] == ["ada/x1", "acme/web2", "acme/backend"]
        assert (await found(rooms, order="size", page=page))[:3] == ["acme/web2", "ada/x1", "acme/backend"]
        assert (await found(rooms, order="pulls", page=page))[:2] == ["bob/secret-web", "acme/backend"]


async def test_a_marker_that_is_none_begins_at_the_beginning(rooms: Rooms, numbers: dict[str, int]):
    summaries = Summaries(rooms.database, rooms.accounts)
    for marker in ("x", "1e5/a", "9999999999999999999999/a", "/", "-1/a"):
        rows = await summaries.list_repositories(None, RepositoryQuery(order="pulls"), start=marker, limit=5)
        assert len(rows) == 2, marker


async def test_filtered_by_what_the_latest_tag_names(rooms: Rooms, numbers: dict[str, int]):
    chart = make_artifact("application/vnd.cncf.helm.config.v1+json")
    image = make_image()
    await rooms.push(numbers["acme/web"], image, "1.0")
    await rooms.push(numbers["ada/x"], chart, "1.0")
    await fold(rooms)
    assert await found(rooms, kind="image") == ["acme/web"]
    assert await found(rooms, kind="helm chart") == ["ada/x"]
    assert await found(rooms, is_signed=True) == []
    digest = str((await rooms.images.get_tag(numbers["acme/web"], "1.0")).manifest.digest)
    await rooms.sign(numbers["acme/web"], "1.0", digest)
    await rooms.database.unit(lambda tx: touch(tx, numbers["acme/web"]))
    await fold(rooms)
    assert await found(rooms, is_signed=True) == ["acme/web"]
    assert "acme/web" not in await found(rooms, is_signed=False)
    await rooms.push(numbers["acme/web"], chart, "2.0")
    await fold(rooms)
    assert await found(rooms, is_signed=True) == []
    assert await found(rooms, kind="helm chart") == ["acme/web", "ada/x"]
    await rooms.manifests.delete_tag(numbers["acme/web"], "2.0")
    await fold(rooms)
    assert await found(rooms, kind="image", is_signed=True) == ["acme/web"]


async def test_what_is_signed_follows_content_trust(rooms: Rooms, numbers: dict[str, int], tmp_path: Path):
    number, image = numbers["acme/web"], make_image()
    digest = await rooms.push(number, image, "1.0")
    trust = Trust(rooms.database, LocalSigner(rooms.database, tmp_path / "passphrases"), signed=show_signed)
    collection = Collection(number, GUN)

    async def make_publisher() -> Publisher:
        return Publisher(
            GUN, *[(await trust.get_key(collection, role)).to_json() for role in ("timestamp", "snapshot")]
        )

    publisher = await make_publisher()
    tag = (str(digest), len(image.payload))

    async def is_signed_after(files: dict[str, bytes]) -> bool:
        await trust.publish(collection, [(role, Envelope.parse(content)) for role, content in files.items()])
        await fold(rooms)
        return await found(rooms, is_signed=True) == ["acme/web"]

    assert not await is_signed_after(publisher.first({"2.0": tag}))
    assert await is_signed_after(publisher.sign({"1.0": tag}))
    assert not await is_signed_after(publisher.revoke("1.0"))
    assert await is_signed_after(publisher.sign({"1.0": tag}))
    await trust.delete(collection)
    await fold(rooms)
    assert await found(rooms, is_signed=True) == []
    assert await is_signed_after((await make_publisher()).first({"1.0": tag}))
    assert await trust.delete_all(number) == [GUN]
    await fold(rooms)
    assert await found(rooms, is_signed=True) == []
    assert await is_signed_after((await make_publisher()).first({"1.0": tag}))
    assert await TrustIndex(rooms.database, signed=show_signed).forget(number, "1.0")
    await fold(rooms)
    assert await found(rooms, is_signed=True) == []


async def test_filtered_by_the_last_push(rooms: Rooms, numbers: dict[str, int]):
    await rooms.push(numbers["acme/web"], make_image(), "1.0")
    await rooms.push(numbers["ada/x"], make_image(), "1.0")
    await fold(rooms)
    days = 40 * 86_400_000
    await rooms.change(
        "UPDATE repository_summaries SET pushed_at = pushed_at - :age WHERE repository_id = :id",
        age=days,
        id=numbers["ada/x"],
    )
    assert await found(rooms, pushed_within=30) == ["acme/web"]
    assert await found(rooms, pushed_within=90) == ["acme/web", "ada/x"]
    old = await found(rooms, not_pushed_for=30)
    assert "ada/x" in old
    assert "bob/secret-web" in old  # never
    assert "acme/web" not in old


async def test_details_are_those_of_now(rooms: Rooms, numbers: dict[str, int]):
    number = numbers["acme/web"]
    image = make_image()
    digest = await rooms.push(number, image, "1.0", author="ada")
    await rooms.push(number, make_artifact("text/spdx"), *companions(str(digest)), author="bob")
    summaries = Summaries(rooms.database, rooms.accounts)
    details = await summaries.details([number, numbers["ada/x"]])
    assert details[number].tags == 1
    latest = details[number].latest
    assert latest is not None
    assert (latest.name, latest.digest, latest.author, latest.kind) == ("1.0", str(digest), "ada", "image")
    assert not latest.is_signed
    assert (details[numbers["ada/x"]].tags, details[numbers["ada/x"]].latest) == (0, None)


async def test_two_who_add_up_at_once_leave_what_is_true(rooms: Rooms, numbers: dict[str, int]):
    number = numbers["acme/web"]
    others = [rooms.another() for _ in range(3)]
    for turn in range(8):
        await rooms.push(number, make_image(layers=1), f"{turn}.0")
        await asyncio.gather(*(one.usage_counts.fold() for one in (rooms, *others)))
    await fold(rooms)
    rows = await rooms.query("SELECT latest_tag FROM repository_summaries WHERE repository_id = :id", id=number)
    assert rows == [("7.0",)]


async def test_repositories_are_pinned_and_no_longer(rooms: Rooms, numbers: dict[str, int]):
    pins, ada, bob = Pins(rooms.database), await rooms.accounts.get("ada"), await rooms.accounts.get("bob")
    await pins.pin(ada, numbers["acme/web"])
    await asyncio.sleep(0.01)
    await pins.pin(ada, numbers["ada/x"])
    await pins.pin(ada, numbers["acme/web"])
    assert await pins.list_pinned(ada) == [numbers["ada/x"], numbers["acme/web"]]
    assert await pins.list_pinned(bob) == []
    assert await pins.is_pinned(ada, numbers["ada/x"])
    assert not await pins.is_pinned(bob, numbers["ada/x"])
    await pins.unpin(ada, numbers["acme/web"])
    await pins.unpin(ada, numbers["acme/web"])
    await rooms.repositories.delete("ada/x")
    assert await pins.list_pinned(ada) == []
    for gone in (pins.pin, pins.unpin):
        with pytest.raises(RepositoryUnknown):
            await gone(ada, numbers["ada/x"])


async def test_only_so_many_can_be_pinned(rooms: Rooms, numbers: dict[str, int]):
    pins, ada = Pins(rooms.database), await rooms.accounts.get("ada")
    for turn in range(MOST):
        await pins.pin(ada, await rooms.make_repository(f"many/of-{turn}"))
    with pytest.raises(TooManyPins):
        await pins.pin(ada, numbers["acme/web"])
    assert len(await pins.list_pinned(ada)) == MOST
