"""What Swift promises besides, how one logs in to it, and what it answers when all is not as it should be."""

from __future__ import annotations

import asyncio
import os
import time
import types
import urllib.error
import urllib.request
from contextlib import aclosing
from urllib.parse import quote, urlsplit

import pytest
from aiohttp import web
from tests.support.proxy import carry, proxy
from tests.support.scripted import scripted
from tests.support.storage import MIB, body, left_of_uploads, locations, read, upload
from tests.support.swift import CONTAINER, TEMP_URL_KEY, swift_settings

from dtr.storage import (
    AccessDenied,
    ObjectMissing,
    StorageError,
    StorageFull,
    StorageUnavailable,
    Swift,
    SwiftSettings,
    new_location,
    swift,
)
from dtr.storage.definitions import open_driver as open_described
from dtr.storage.swift_auth import Credentials

V1 = {"username": "contract:tester", "password": "testing"}
USER = {"username": "tester", "password": "testing"}


@pytest.fixture
async def open_driver(swift_server, tmp_path):
    """A function that opens a driver with other settings than usual; the names of each test are apart."""
    opened = []

    def make(**changes):
        opened.append(Swift(swift_settings(swift_server, **{"root_directory": tmp_path.name, **changes})))
        return opened[-1]

    yield make
    for driver in opened:
        await driver.close()


@pytest.fixture
async def log_in(swift_server, tmp_path):
    """A function that opens a driver with only these credentials; `auth_url` goes on from the server's address."""
    opened = []

    def make(auth_url, *, container=CONTAINER, **credentials):
        given = Credentials(f"{swift_server.endpoint}/{auth_url}", **credentials)
        settings = SwiftSettings(given, container, root_directory=tmp_path.name, time_limit=20)
        opened.append(Swift(settings))
        return opened[-1]

    yield make
    for driver in opened:
        await driver.close()


def names(server, directory):
    """What is stored below a directory, whatever it is."""
    return [name.removeprefix(f"{directory.name}/") for name in server.names(f"{directory.name}/")]


# --- Logging in ---------------------------------------------------------------------------------------------

V2, V3 = "identity/http/v2.0", "identity/http/v3"
NORTH, SOUTH = {"region": "north"}, {"region": "south", "endpoint_type": "internal"}
PROJECTS = {"project": "contract", "project_domain": "Projects"}
APPLICATION = {"application_credential_id": "a-1", "application_credential_secret": "applying"}


@pytest.mark.parametrize(
    ("auth_url", "credentials"),
    [
        ("auth/v1.0", V1),
        ("auth/v1.0", {**V1, "auth_version": "1", "region": "of no meaning"}),
        (V2, {**USER, "project": "contract", **NORTH}),
        (V2 + "/tokens", {**USER, "project_id": "p-1", **SOUTH}),
        (V3, {**USER, **PROJECTS, **NORTH}),
        (V3 + "/auth", {**USER, **PROJECTS, "user_domain": "Default", **SOUTH}),
        (V3 + "/", {"user_id": "u-1", "password": "testing", "project_id": "p-1", **NORTH}),
        (
            "identity/http",
            {**USER, "user_domain_id": "default", "project": "contract", "project_domain_id": "d-2", **NORTH},
        ),
        (V3, {**USER, "trust_id": "t-1", **NORTH}),
        (V3, {**APPLICATION, **NORTH}),
        (
            V3,
            {
                "username": "tester",
                "application_credential_name": "registry",
                "application_credential_secret": "applying",
                **NORTH,
            },
        ),
    ],
)
async def test_all_ways_to_log_in_lead_to_the_same_account(open_driver, log_in, auth_url, credentials):
    location = await upload(open_driver(), b"the same")
    assert await read(log_in(auth_url, **credentials), location) == b"the same"


@pytest.mark.parametrize(
    ("auth_url", "credentials"),
    [
        ("auth/v1.0", {**V1, "password": "wrong"}),
        ("auth/v1.0", {"username": "other:tester", "password": "testing"}),  # not ours, and has no such container
        (V2, {**USER, "password": "wrong", "project": "contract", **NORTH}),
        (V3, {**USER, **PROJECTS, "user_domain": "Elsewhere", **NORTH}),
        (V3, {**USER, "project": "contract", **NORTH}),  # in another domain
        (V3, {**USER, "trust_id": "t-2", **NORTH}),
        (V3, {**APPLICATION, "application_credential_secret": "wrong", **NORTH}),
        (
            V3,
            {**USER, **PROJECTS, "region": "north", "endpoint_type": "internal"},
        ),  # the address of another account
    ],
)
async def test_who_is_wrong_is_refused_and_sees_nothing_missing(open_driver, log_in, auth_url, credentials):
    location = await upload(open_driver(), b"there")
    driver = log_in(auth_url, **credentials)
    for action in (driver.check(), driver.stat(location), read(driver, location), driver.delete(location)):
        with pytest.raises((AccessDenied, StorageUnavailable)) as caught:
            await action
        assert isinstance(caught.value, AccessDenied) or "container blobs is not there" in str(caught.value)
        assert "testing" not in str(caught.value)


@pytest.mark.parametrize(
    ("auth_url", "credentials", "says"),
    [
        (V3, {**USER, **NORTH}, "is a project .tenant. missing"),
        (V3, {**USER, **PROJECTS, "region": "west"}, "no object store is in the region west, but in north, south"),
        (V3, {"password": "testing"}, "a user, or an application credential, is needed"),
        (V2, {"password": "testing"}, "a user name is needed"),
        ("identity/http/v4", {**USER, **PROJECTS, "auth_version": "3"}, "answered 404"),
        ("auth/v1.0", {**USER, "auth_version": "2"}, "answered 4"),
    ],
)
async def test_a_log_in_that_cannot_be_says_why(log_in, auth_url, credentials, says):
    with pytest.raises(StorageError, match=says):
        await log_in(auth_url, **credentials).check()


@pytest.mark.parametrize("answer", [b"no JSON", b"{}", b'{"token": 1}', b'{"token": {"catalog": [{}]}}', b"\xff"])
async def test_an_answer_that_is_none_of_a_token_service_is_an_error(answer):
    async def say(_):
        return web.Response(status=201, body=answer, headers={"X-Subject-Token": "x"})

    async with scripted(say) as server:
        driver = Swift(SwiftSettings(Credentials(f"{server.url}/v3", **USER, **PROJECTS), CONTAINER))
        with pytest.raises(StorageError, match="the token service at"):
            await driver.check()
        await driver.close()


async def test_tokens_end_and_are_renewed_by_one_task_for_all(swift_server, open_driver, tmp_path):
    asked = 0

    async def count(reader, writer):
        nonlocal asked
        while piece := await reader.read(65536):
            asked += piece.count(b"/auth/tokens ")
            writer.write(piece)
            await writer.drain()

    async with proxy(urlsplit(swift_server.endpoint).port, requests=count, answers=carry) as port:
        driver = open_driver(endpoint=f"http://127.0.0.1:{port}")
        location = await upload(driver, content := os.urandom(2 * MIB))
        assert asked == 1
        swift_server.end_tokens()
        results = await asyncio.gather(
            *(read(driver, location) for _ in range(8)), *(upload(driver, bytes(2 * MIB)) for _ in range(4))
        )
        assert results[:8] == [content] * 8
        assert asked == 2
        # What was lost with the server is asked for again, as often as need be.
        swift_server.kill()
        swift_server.start()
        assert await read(driver, await upload(driver, content)) == content
        assert asked == 3
        await driver.close()


async def test_a_token_is_renewed_before_it_ends(open_driver, monkeypatch):
    driver = open_driver()
    await driver.check()
    first = driver._access
    clock = types.SimpleNamespace(time=time.time, monotonic=lambda: now + ahead)
    monkeypatch.setattr(swift, "time", clock)  # not that of the event loop, which would stand still
    now, ahead = time.monotonic(), 3500
    await driver.check()
    assert driver._access is first
    ahead = 3545
    await driver.check()
    assert driver._access is not first


# --- Large objects ------------------------------------------------------------------------------------------


async def test_a_large_object_is_made_of_its_parts_and_goes_with_them(
    swift_server, open_driver, tmp_path, monkeypatch
):
    driver = open_driver(segment_size=MIB)
    content = os.urandom(3 * MIB + 100_000)
    state = await driver.write(await driver.create_upload(new_location()), body(content[: 2 * MIB]))
    lost = await driver.write(state, body(bytes(MIB)))  # its answer did not reach the database
    state = await driver.write(state, body(content[2 * MIB :]))
    assert await left_of_uploads(driver) == {state.location}
    await driver.complete(state)
    parts = sorted(f"{state.location}.part.{part.name}" for part in state.parts)
    stored = names(swift_server, tmp_path)
    assert set(parts) < set(stored)
    assert f"{state.location}.part.{lost.parts[-1].name}" in stored
    assert await locations(driver) == [state.location]
    assert await left_of_uploads(driver) == set()
    everything = driver._list_everything

    async def lagging(prefix):
        async with aclosing(everything(prefix)) as found:
            async for one in found:
                if one.location != state.location:
                    yield one

    with monkeypatch.context() as patched:  # the container has not heard of the manifest yet
        patched.setattr(driver, "_list_everything", lagging)
        assert await left_of_uploads(driver) == set()
    async with aclosing(driver.list()) as found:
        assert [one.size async for one in found] == [len(content)]
    assert await read(driver, state.location) == content
    await driver.delete(state.location)
    await driver.delete(state.location)
    assert names(swift_server, tmp_path) == []


async def test_more_parts_than_a_manifest_may_name(swift_server, open_driver, tmp_path):
    driver = open_driver(segment_size=MIB)
    driver._info = {"slo": {"max_manifest_segments": 3}}
    content = os.urandom(13 * MIB + 5)  # thirteen parts and a tail: five manifests, two, and one
    location = await upload(driver, content)
    assert len(names(swift_server, tmp_path)) == 14 + 5 + 2 + 1
    assert await driver.stat(location) == len(content)
    assert await read(driver, location) == content
    assert await read(driver, location, 3 * MIB - 1, 2) == content[3 * MIB - 1 : 3 * MIB + 1]
    assert await locations(driver) == [location]
    assert await left_of_uploads(driver) == set()
    await driver.delete(location)
    assert names(swift_server, tmp_path) == []


def test_the_longest_object_has_no_more_parts_than_it_may():
    sizes = Swift(SwiftSettings(Credentials("https://k.example/v3"), CONTAINER))._sizes
    offset = parts = 0
    while offset < 5 * 1024 * 1024 * MIB:
        assert sizes.full(offset) <= 5 * 1024 * MIB
        offset, parts = offset + sizes.full(offset), parts + 1
    assert 4000 < parts <= sizes.most


async def test_a_deletion_that_was_cut_short_is_finished_by_the_next(swift_server, open_driver, tmp_path):
    driver = open_driver(segment_size=MIB)
    for left in (1, 2):
        location = await upload(driver, os.urandom(2 * MIB))
        stored = sorted(names(swift_server, tmp_path), key=lambda name: name == location)
        for name in stored[: len(stored) - left]:  # in Swift's order: the manifest at last
            swift_server.ask("DELETE", f"/{CONTAINER}/{tmp_path.name}/{name}")
        await driver.delete(location)
        assert names(swift_server, tmp_path) == []
    # Parts whose manifest is gone.
    location = await upload(driver, os.urandom(2 * MIB))
    swift_server.ask("DELETE", f"/{CONTAINER}/{tmp_path.name}/{location}")
    await driver.delete(location)
    assert names(swift_server, tmp_path) == []


async def test_parts_that_are_gone_or_others_make_no_object(swift_server, open_driver, tmp_path):
    driver = open_driver(segment_size=MIB)
    for method, content in (("DELETE", b""), ("PUT", b"other"), ("PUT", bytes(MIB))):
        state = await driver.write(await driver.create_upload(new_location()), body(os.urandom(2 * MIB)))
        part = f"/{CONTAINER}/{tmp_path.name}/{state.location}.part.{state.parts[1].name}"
        swift_server.ask(method, part, body=content)
        with pytest.raises(ObjectMissing) as caught:
            await driver.complete(state)
        assert caught.value.location == state.location
        await driver.abort(state)
    assert names(swift_server, tmp_path) == []


async def test_an_object_without_one_of_its_parts_is_never_short_nor_missing(swift_server, open_driver, tmp_path):
    driver = open_driver(segment_size=4 * MIB)
    content = os.urandom(12 * MIB)
    location = await upload(driver, content)
    parts = [name for name in names(swift_server, tmp_path) if ".part." in name]
    of_size = {swift_server.ask("GET", f"/{CONTAINER}/{tmp_path.name}/{name}")[1]: name for name in parts}
    for start in (8 * MIB, 0):  # the last, which is noticed on the way; then the first
        swift_server.ask("DELETE", f"/{CONTAINER}/{tmp_path.name}/{of_size[content[start : start + 4 * MIB]]}")
        received = bytearray()

        async def receive(received=received):
            async with aclosing(driver.open(location)) as pieces:
                async for piece in pieces:
                    received.extend(piece)

        with pytest.raises(StorageError) as caught:
            await receive()
        assert not isinstance(caught.value, ObjectMissing)
        assert content.startswith(received)
        assert len(received) <= start


async def test_an_object_of_a_tree_of_docker_registry_is_read_sized_and_deleted_whole(
    swift_server, open_driver, tmp_path
):
    pieces = [os.urandom(100_000), os.urandom(7)]
    root = f"/{CONTAINER}/{tmp_path.name}"
    for number, piece in enumerate(pieces):
        swift_server.ask("PUT", f"{root}/segments/abc/def/{number:016}", body=piece)
    swift_server.ask("PUT", f"{root}/segments/abc/deg/0000000000000000", body=b"of another")
    manifest = quote(f"{CONTAINER}/{tmp_path.name}/segments/abc/def")
    swift_server.ask("PUT", f"{root}/files/blobs/data", headers={"X-Object-Manifest": manifest})
    swift_server.ask("PUT", f"{root}/files/empty")
    driver = open_driver(root_directory=f"{tmp_path.name}/files")
    content = b"".join(pieces)
    async with aclosing(driver.list()) as found:
        assert {one.location: one.size async for one in found} == {"blobs/data": len(content), "empty": 0}
    assert await driver.stat("blobs/data") == len(content)
    assert await read(driver, "blobs/data") == content
    assert await read(driver, "blobs/data", 99_999, 5) == content[99_999:100_004]
    await driver.delete("blobs/data")
    assert names(swift_server, tmp_path) == ["files/empty", "segments/abc/deg/0000000000000000"]


async def test_names_and_prefixes_may_have_any_characters(swift_server, open_driver, tmp_path):
    driver = open_driver(root_directory=f"{tmp_path.name}/what? 100%/ä#&+")
    for name in ("a b", "%41", "q?x=1&y#z", "ünï/cødé", "+plus;semi,comma"):
        await driver.put_small(name, name.encode())
        assert await read(driver, name) == name.encode()
        assert await locations(driver, name) == [name]
        url = await driver.sign(name, 60)
        with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
            assert answer.read() == name.encode()
    state = await driver.write(await driver.create_upload("l/ä %?"), body(os.urandom(2 * MIB)))
    await driver.complete(state)
    assert await driver.stat("l/ä %?") == 2 * MIB
    for name in await locations(driver):
        await driver.delete(name)
    assert swift_server.names(quote(f"{tmp_path.name}/")) == []


async def test_listings_have_pages(open_driver, monkeypatch):
    monkeypatch.setattr(swift, "_LISTING", 3)
    driver = open_driver()
    for stored in (0, 1, 3, 6, 7):
        for number in range(len(await locations(driver)), stored):
            await driver.put_small(f"{number} &", b"x")
        assert await locations(driver) == [f"{number} &" for number in range(stored)]


# --- Room, keys, and answers that nobody likes --------------------------------------------------------------


async def test_a_quota_that_is_used_up_is_no_room(swift_server, open_driver, tmp_path):
    swift_server.ask("PUT", "/narrow", {"X-Container-Meta-Quota-Bytes": "100000"})
    driver = open_driver(container="narrow", segment_size=MIB)
    await driver.check()
    with pytest.raises(StorageFull, match="container narrow"):
        await driver.put_small(new_location(), bytes(200_000))
    state = await driver.create_upload(new_location())
    with pytest.raises(StorageFull):
        await driver.write(state, body(bytes(5 * MIB)))
    await driver.abort(state)


async def test_keys_for_signed_addresses_are_those_of_the_container_the_account_or_given(
    swift_server, open_driver, log_in
):
    def get(url):
        with urllib.request.urlopen(url) as answer:
            return answer.read()

    other = {"username": "other:tester", "password": "testing"}
    driver = log_in("auth/v1.0", container="signed", **other)
    access = await driver._log_in()
    headers = {"X-Auth-Token": access.token}

    def ask(method, path, **more):
        request = urllib.request.Request(access.url + path, method=method, headers={**headers, **more})
        urllib.request.urlopen(request).close()

    ask("PUT", "/signed")
    location = await upload(driver, b"signed")
    assert await driver.sign(location, 60) is None  # nobody has a key
    ask("POST", "/signed", **{"X-Container-Meta-Temp-URL-Key": "of the container"})
    assert await driver.sign(location, 60) is None  # that is believed for a while
    driver = log_in("auth/v1.0", container="signed", **other)
    assert await asyncio.to_thread(get, await driver.sign(location, 60)) == b"signed"
    large = await upload(driver, content := os.urandom(3 * MIB))
    assert await asyncio.to_thread(get, await driver.sign(large, 60)) == content

    await open_driver(temp_url_key=TEMP_URL_KEY).check()
    with pytest.raises(AccessDenied, match="signed with the key given"):
        await open_driver(temp_url_key="wrong").check()

    # One who may use the container, but not see the account's key.
    swift_server.ask(
        "PUT", "/shared", {"X-Container-Read": "contract:guest", "X-Container-Write": "contract:guest"}
    )
    guest = log_in("auth/v1.0", container="shared", username="contract:guest", password="visiting")
    location = await upload(guest, b"shared")
    assert await guest.sign(location, 60) is None


@pytest.mark.parametrize(
    ("features", "length"),
    [
        ({}, 64),  # the cluster tells nothing
        ({"tempurl": {"methods": ["GET"]}}, 40),  # it is old
        ({"tempurl": {"allowed_digests": ["sha512"]}}, 128),
        ({"tempurl": {"allowed_digests": ["sha1", "sha256", "sha512"]}}, 64),
        ({"tempurl": {"methods": ["PUT"], "allowed_digests": ["sha256"]}}, None),
    ],
)
async def test_addresses_are_signed_in_a_way_that_the_cluster_knows(open_driver, features, length):
    driver = open_driver(temp_url_key="key")
    driver._info = features
    url = await driver.sign("a/b", 60)
    if length is None:
        assert url is None
    else:
        assert len(url.partition("temp_url_sig=")[2].partition("&")[0]) == length


async def test_a_cluster_without_large_objects_is_told_by_the_check(open_driver):
    driver = open_driver()
    driver._info = {"swift": {}}
    with pytest.raises(StorageError, match="static large objects"):
        await driver.check()


@pytest.mark.parametrize("status", [429, 498, 500, 503])
async def test_a_busy_cluster_is_asked_again_a_few_times(status):
    answers = []

    async def say(request):
        if request.path == "/v1.0":
            return web.Response(headers={"X-Auth-Token": "t", "X-Storage-Url": f"{server.url}/v1/a"})
        await request.read()
        return web.Response(status=answers.pop(0))

    async with scripted(say) as server:
        driver = Swift(SwiftSettings(Credentials(f"{server.url}/v1.0", username="u", password="p"), "c"))
        answers[:] = [status, status, 201]
        await driver.put_small("a", b"x")
        assert answers == []
        answers[:] = [status] * 9
        with pytest.raises(StorageUnavailable, match=f"Swift answered {status}"):
            await driver.put_small("a", b"x")
        assert 0 < len(answers) < 9
        await driver.close()


@pytest.mark.parametrize("root", ["", "/swift", "/very/deep"])
async def test_a_store_that_is_not_swift_itself_may_say_otherwise_that_an_object_is_none_of_parts(root):
    stored, asked = {"plain", "manifest"}, []

    async def say(request):
        if request.path == "/v1.0":
            return web.Response(headers={"X-Auth-Token": "t", "X-Storage-Url": f"{server.url}{root}/v1"})
        asked.append(request.path)
        name = request.path.removeprefix(f"{root}/v1/c/")
        if request.method == "GET":
            return web.json_response({} if request.path.endswith("/info") else [])
        if request.method == "HEAD" or name not in stored:
            return web.Response(status=200 if name in {*stored, f"{root}/v1/c"} else 404)
        if name == "plain" and request.query:
            return web.Response(status=400)
        stored.remove(name)
        return web.Response(status=204)

    async with scripted(say) as server:
        driver = Swift(SwiftSettings(Credentials(f"{server.url}/v1.0", username="u", password="p"), "c"))
        for name in ("plain", "manifest", "missing"):
            await driver.delete(name)
        assert stored == set()
        assert await driver.sign("x", 60) is None
        assert f"{root.rpartition('/')[0]}/info" in asked
        await driver.close()


async def test_answers_that_make_no_sense_are_errors():
    answers = {}

    async def say(request):
        if request.path == "/v1.0":
            return web.Response(headers={"X-Auth-Token": "t", "X-Storage-Url": f"{server.url}/v1/a"})
        return answers[request.method]

    async with scripted(say) as server:
        driver = Swift(SwiftSettings(Credentials(f"{server.url}/v1.0", username="u", password="p"), "c"))
        for method, action in (("DELETE", lambda: driver.delete("a")), ("GET", lambda: locations(driver))):
            for text in ("no JSON", '{"Response Status": 1}', "[1]"):
                answers[method] = web.Response(text=text)
                with pytest.raises(StorageError, match="an answer that is none"):
                    await action()
        for response in (web.Response(status=302, headers={"Location": "/elsewhere"}), web.Response(status=418)):
            answers["GET"] = response
            with pytest.raises(StorageError, match=f"Swift answered {response.status}"):
                await read(driver, "a")
        answers["GET"] = web.Response(status=206, body=b"abc", headers={"Content-Range": "bytes 0-2/3"})
        with pytest.raises(StorageError, match="other bytes"):
            await read(driver, "a", 1, 3)
        await driver.close()


async def test_a_described_storage_is_opened_as_it_is_described(swift_server, tmp_path):
    described = {
        name.removeprefix("storage.swift."): value
        for name, value in swift_server.settings.items()
        if name.startswith("storage.swift.")
    }
    driver = open_described(
        "swift", {**described, "prefix": f"/{tmp_path.name}/", "segment_size": 2 * MIB}, spool_directory=tmp_path
    )
    await driver.check()
    location = await upload(driver, os.urandom(5 * MIB))
    assert len([name for name in names(swift_server, tmp_path) if ".part." in name]) == 3
    await driver.delete(location)
    await driver.close()
