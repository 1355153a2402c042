"""The notary command, over TLS that it verifies by the server's authority alone."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from typing import TYPE_CHECKING

import pytest
from tests.support.meddler import meddling
from tests.support.notary_client import Notary, Target

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.server import Server


@pytest.fixture(scope="module")
def acme(server: Server) -> str:
    """An organization in which rita may read, and wim and wanda write."""
    for user in ("rita", "wim", "wanda", "stranger"):
        server.make_user(user)
    server.make_organization("acme")
    server.grant("acme/readers", "read-only", users=("rita",))
    server.grant("acme/writers", "read-write", users=("wim", "wanda"))
    return "acme"


@pytest.fixture
def repository(server: Server, acme: str) -> str:
    """A new private repository of the organization."""
    path = f"{acme}/r{uuid.uuid4().hex[:12]}"
    server.make_repository(path)
    return path


@pytest.fixture
def gun(server: Server, repository: str) -> str:
    """The name of the repository's collection, which nobody has begun."""
    return f"{server.address}/{repository}"


@pytest.fixture
def notary_of(server: Server, tmp_path: Path) -> Callable[..., Notary]:
    """A function that gives the notary command, with nothing in its cache, of a user; None: of nobody known."""
    made = iter(range(1000))
    return lambda user="admin", **how: Notary(server, tmp_path / f"notary{next(made)}", user, **how)


@pytest.fixture
def publisher(notary_of: Callable[..., Notary]) -> Notary:
    return notary_of()


@pytest.fixture
def reader(notary_of: Callable[..., Notary]) -> Notary:
    return notary_of("rita")


@pytest.fixture
def collection(publisher: Notary, gun: str) -> str:
    """The name of a collection that the publisher has begun, and whose snapshots the server makes."""
    publisher.init(gun)
    publisher.give_snapshots(gun)
    return gun


def test_a_collection_is_begun_published_read_and_changed(publisher: Notary, reader: Notary, gun: str) -> None:
    file = publisher.directory / "file"
    file.write_bytes(b"the content")
    digest = hashlib.sha256(b"the content").hexdigest()

    publisher("init", gun)
    publisher("add", gun, "v1", file)
    assert re.search(r"create +targets +target +v1", publisher("status", gun).stdout)
    assert "does not have trust data" in reader("list", gun, fails=True).text
    publisher("publish", gun)

    assert reader.list(gun) == publisher.list(gun) == {"v1": Target(digest, 11, "targets")}
    assert reader("verify", gun, "v1", "--input", file).stdout == "the content"
    file.write_bytes(b"the kontent")
    assert "did not match" in reader("verify", gun, "v1", "--input", file, fails=True).text
    publisher("addhash", gun, "v2", "100", "--sha256", "ab" * 32, "--publish")
    assert reader("lookup", gun, "v2").stdout.split() == ["v2", f"sha256:{'ab' * 32}", "100"]
    publisher("remove", gun, "v1", "--publish")
    assert reader.list(gun) == {"v2": Target("ab" * 32, 100, "targets")}
    # What is staged stays with the client until it is published, or taken back.
    publisher("addhash", gun, "v3", "100", "--sha256", "cd" * 32)
    publisher("reset", gun, "--all")
    publisher("publish", gun)
    assert list(reader.list(gun)) == ["v2"]


def test_keys_are_rotated_and_readers_follow(publisher: Notary, reader: Notary, gun: str) -> None:
    publisher.init(gun)
    digest = publisher.sign(gun, "v1", b"one")
    expected = {"v1": Target(digest, 3, "targets")}
    rotations = [
        ("snapshot", "--server-managed"),
        ("timestamp", "--server-managed"),
        ("timestamp", "--server-managed"),
        ("targets",),
        ("snapshot",),  # back to the client
        ("snapshot", "--server-managed"),
    ]
    for number, rotation in enumerate(rotations):
        assert reader.list(gun) == expected, rotation
        publisher("key", "rotate", gun, *rotation)
        name = f"after{number}"
        expected[name] = Target(publisher.sign(gun, name, name.encode()), len(name), "targets")
    assert reader.list(gun) == expected


def test_a_reader_finds_the_way_to_a_root_several_versions_ahead(
    server: Server, publisher: Notary, notary_of: Callable[..., Notary], collection: str
) -> None:
    digest = publisher.sign(collection, "v1", b"one")
    with meddling(server) as between:
        reader = notary_of("rita", url=between.url)
        assert list(reader.list(collection)) == ["v1"]
        for _ in range(3):
            publisher.rotate_root(collection)
        publisher.sign(collection, "v2", b"two")
        between.seen.clear()

        listed = reader.list(collection)
    assert list(listed) == ["v1", "v2"]
    assert listed["v1"] == Target(digest, 3, "targets")

    # The root had a second version when the snapshot's key went to the server; the newest is found by its hash.
    # (It asks without a name first, as notary does.)
    given = [path.rpartition("/")[2] for _, path, status in between.seen if status == 200]
    assert [name for name in given if name.endswith(".root.json")] == ["3.root.json", "4.root.json"]
    assert {status for _, _, status in between.seen} == {200, 401}
    # Who held an old root key alone is nobody now: new ones are trusted by those who come, as well.
    assert list(notary_of().list(collection)) == ["v1", "v2"]


def test_two_delegates_sign_witness_and_lose_the_right_to(
    publisher: Notary, reader: Notary, notary_of: Callable[..., Notary], collection: str
) -> None:
    wim, wanda = notary_of("wim"), notary_of("wanda")
    keys = {"targets/wim": wim.make_key("wim"), "targets/wanda": wanda.make_key("wanda")}
    for role, key in keys.items():
        publisher.delegate(collection, role, key)
    publisher.delegate(collection, "targets/releases", *keys.values())
    listed = publisher("delegation", "list", collection).stdout
    assert sorted(set(re.findall(r"^targets/\S+", listed, re.MULTILINE))) == [
        "targets/releases", "targets/wanda", "targets/wim",
    ]  # fmt: skip

    by_wim = wim.sign(collection, "v1", b"of wim", "targets/wim", "targets/releases")
    by_wanda = wanda.sign(collection, "v2", b"of wanda", "targets/wanda", "targets/releases")
    assert wim.list(collection, "targets/wanda") == {"v2": Target(by_wanda, 8, "targets/wanda")}
    assert reader.list(collection, "targets/releases") == {
        "v1": Target(by_wim, 6, "targets/releases"),
        "v2": Target(by_wanda, 8, "targets/releases"),
    }
    # Nobody signs with a key that a role does not list.
    assert wanda.list(collection, "targets/wim") == {"v1": Target(by_wim, 6, "targets/wim")}
    wanda(
        "addhash", collection, "v3", "1", "--sha256", "ab" * 32, "--roles", "targets/wim", "--publish", fails=True
    )
    wanda("reset", collection, "--all")

    # Wim's key leaves the releases: what he signed there last is void until another one witnesses it.
    wanda.sign(collection, "v2", b"again", "targets/wanda")
    wim.sign(collection, "v3", b"three", "targets/releases")
    gone = key_id(publisher, collection, "targets/wim")
    publisher("delegation", "remove", collection, "targets/releases", gone, "--yes", "--publish")
    assert "targets/releases" not in {one.role for one in reader.list(collection).values()}
    wanda("witness", collection, "targets/releases", "--publish")
    assert set(reader.list(collection, "targets/releases")) == {"v1", "v2", "v3"}
    publisher("delegation", "remove", collection, "targets/wim", "--yes", "--publish")
    assert "targets/wim" not in publisher("delegation", "list", collection).stdout


def key_id(notary: Notary, gun: str, role: str) -> str:
    """The id of a role's only key."""
    listed = notary("delegation", "list", gun).stdout
    (found,) = re.findall(rf"^{re.escape(role)} .* ([0-9a-f]{{64}}) ", listed, re.MULTILINE)
    return str(found)


def test_custom_data_that_the_client_signs_in_another_form_than_it_verifies_is_refused(
    publisher: Notary, reader: Notary, collection: str
) -> None:
    good, bad = publisher.directory / "good.json", publisher.directory / "bad.json"
    good.write_text(json.dumps({"a": 1, "b": [True, None, "text"]}))
    bad.write_text(json.dumps({"b": 1, "a": 2}))
    publisher("add", collection, "good", good, "--custom", good, "--publish")
    refused = publisher("add", collection, "bad", bad, "--custom", bad, "--publish", fails=True)
    assert "targets" in refused.text
    assert list(reader.list(collection)) == ["good"]


def test_a_deleted_collection_is_gone_for_those_who_come_and_begins_anew(
    publisher: Notary, reader: Notary, notary_of: Callable[..., Notary], collection: str
) -> None:
    publisher.sign(collection, "v1", b"one")
    assert list(reader.list(collection)) == ["v1"]

    publisher("delete", collection, "--remote")

    assert "does not have trust data" in notary_of("rita")("list", collection, fails=True).text
    again = notary_of()
    again.init(collection)
    again.sign(collection, "v2", b"two")
    assert list(notary_of("rita").list(collection)) == ["v2"]
    # Who remembers the first one takes nothing of the second: its root was never handed over.
    reader("list", collection, fails=True)


def test_rights_are_those_of_the_repository(
    server: Server, publisher: Notary, notary_of: Callable[..., Notary], collection: str
) -> None:
    publisher.sign(collection, "v1", b"one")
    for user in (None, "stranger"):
        refused = notary_of(user)("list", collection, fails=True)
        assert "401" in refused.text or "not authorized" in refused.text
    reader = notary_of("rita")
    assert list(reader.list(collection)) == ["v1"]
    # Who may read signs nothing, whatever keys they hold; who may write deletes nothing.
    stolen = notary_of("rita")
    stolen.take_keys(publisher)
    assert "401" in stolen("addhash", collection, "v2", "1", "--sha256", "ab" * 32, "--publish", fails=True).text
    assert notary_of("wim")("delete", collection, "--remote", fails=True)
    assert list(notary_of("rita").list(collection)) == ["v1"]
    # For a repository that is not there nobody begins a collection.
    missing = f"{server.address}/acme/missing"
    publisher("init", missing, fails=True)
    # What is public, everybody reads without a name.
    server.make_repository("acme/public", visibility="public")
    public = f"{server.address}/acme/public"
    publisher.init(public)
    publisher.sign(public, "v1", b"one")
    assert list(notary_of(None).list(public)) == ["v1"]


def test_a_publisher_with_an_old_copy_publishes_on_top_of_the_newest(
    publisher: Notary, notary_of: Callable[..., Notary], reader: Notary, collection: str
) -> None:
    other = notary_of()
    other.take_keys(publisher)
    publisher.sign(collection, "v1", b"one")
    other.sign(collection, "v2", b"two")
    publisher.sign(collection, "v3", b"three")
    assert list(reader.list(collection)) == ["v1", "v2", "v3"]


SHORT = {"root": "rt", "timestamp": "ts", "snapshot": "sn", "targets": "tg"}


def short(method: str, path: str, status: int) -> str:
    """A request as the table below has it: ``sn.h`` a snapshot by its hash, a status unless it is 200."""
    name = re.sub(r"\.[0-9a-f]{64}\.json$", ".h", path.partition("/_trust/tuf/")[2]).removesuffix(".json")
    for role, word in SHORT.items():
        name = re.sub(rf"(^|\.){role}\b(?!/)", rf"\1{word}", name)
    said = {"GET": name, "POST": f"POST {name}".strip()}.get(method, method)
    return said if status == 200 else f"{said} {status}"


TRACE: list[tuple[str, str, list[str]]] = [
    ("owner", "init {gun}", ["ts.key"]),
    ("owner", "add {gun} v1 configuration.json", []),
    ("owner", "publish {gun}", ["rt 404", "POST"]),
    ("owner", "list {gun}", ["ts", "sn.h", "tg.h"]),
    ("reader", "list {gun}", ["rt", "ts", "sn.h", "tg.h"]),
    ("owner", f"addhash {{gun}} v2 100 --sha256 {'ab' * 32} --publish", ["rt", "ts", "POST"]),
    ("owner", "key rotate {gun} snapshot -r", ["POST sn.key", "rt", "ts", "sn.h", "tg.h", "POST"]),
    (
        "owner", "key rotate {gun} timestamp -r",
        ["POST ts.key", "rt", "ts", "sn.h", "rt", "ts", "sn.h", "POST"],
    ),
    (
        "owner", "delegation add {gun} targets/releases releases.crt --all-paths --publish",
        ["rt", "ts", "rt", "ts", "sn.h", "POST"],
    ),
    (
        "owner", "add {gun} v3 configuration.json --roles targets/releases --publish",
        ["rt", "ts", "sn.h", "tg.h", "POST"],
    ),
    ("reader", "list {gun}", ["ts", "rt", "ts", "sn.h", "tg.h", "targets/releases.h"]),
    ("owner", "remove {gun} v2 --publish", ["rt", "ts", "sn.h", "targets/releases.h", "POST"]),
    ("owner", "witness {gun} targets/releases --publish", ["rt", "ts", "sn.h", "tg.h", "POST"]),
    ("owner", "key rotate {gun} root", ["rt", "ts", "sn.h", "targets/releases.h", "POST"]),
    ("owner", "key rotate {gun} root", ["rt", "ts", "sn.h", "rt.h", "ts", "sn.h", "POST"]),
    ("owner", "key rotate {gun} root", ["rt", "ts", "sn.h", "rt.h", "ts", "sn.h", "POST"]),
    ("reader", "list {gun}", ["ts", "sn.h", "rt.h", "4.rt", "5.rt", "ts", "sn.h", "tg.h", "targets/releases.h"]),
    ("owner", "delete {gun} --remote", ["DELETE"]),
    ("newcomer", "list {gun}", ["rt 404"]),
]  # fmt: skip
"""
Who does what, and what the client asks for behind ``GET /v2/``: recorded of a stock notary-server.

Without what is answered by 401: notary asks without a name first.
"""


def test_each_command_makes_the_requests_that_it_makes_of_a_stock_server(
    server: Server, notary_of: Callable[..., Notary], gun: str
) -> None:
    with meddling(server) as between:
        users = {name: notary_of(url=between.url) for name in ("owner", "reader", "newcomer")}
        users["owner"].make_key("releases")
        for user, line, expected in TRACE:
            between.seen.clear()
            users[user](*line.format(gun=gun).split(), stdin="yes\n", fails=expected == ["rt 404"])
            asked = [short(*one) for one in between.seen if one[2] != 401 and one[1] != "/v2/"]
            assert asked == expected, (user, line)
