"""What Google Cloud Storage has besides: composed objects, tokens that end, reasons of refusals."""

from __future__ import annotations

import asyncio
import json
import os
import time
import types
import urllib.request
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.support.gcs import gcs_settings
from tests.support.proxy import proxy
from tests.support.storage import MIB, PART, body, left_of_uploads, locations, read, upload

from dtr.storage import (
    GCS,
    AccessDenied,
    GCSSettings,
    StorageError,
    StorageFull,
    StorageUnavailable,
    UploadState,
    new_location,
)
from dtr.storage.definitions import DefinitionInvalid, open_driver, parameters_of
from dtr.storage.gcs import PART_SIZE

KIB = 1024


@pytest.fixture
async def open_gcs(gcs_server, tmp_path):
    """A function that opens a driver with other settings than usual; objects of each test are apart."""
    opened = []

    def make(server=gcs_server, **changes):
        opened.append(GCS(gcs_settings(server, **{"root_directory": tmp_path.name, **changes})))
        return opened[-1]

    yield make
    for driver in opened:
        await driver.close()


# --- Composed objects ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "at_once"),
    [(32, 32), (33, 32), (70, 4), pytest.param(1030, 32, marks=pytest.mark.thorough)],
)
async def test_parts_are_composed_however_many_there_are_and_go(open_gcs, monkeypatch, count, at_once):
    monkeypatch.setattr("dtr.storage.gcs._GROWTH", count)
    monkeypatch.setattr("dtr.storage.gcs._SOURCES", at_once)
    driver = open_gcs(part_size=KIB)
    content = os.urandom(count * KIB)
    state = await driver.write(await driver.create_upload(new_location()), body(content))
    assert len(state.parts) == count
    await driver.complete(state)
    assert await read(driver, state.location) == content
    assert await locations(driver) == [state.location]
    assert await left_of_uploads(driver) == set()
    await driver.complete(state)


async def test_an_object_that_was_composed_when_the_answer_got_lost_is_complete(gcs_server, open_gcs):
    content = os.urandom(PART + MIB)
    state = await open_gcs().create_upload(new_location())
    state = await open_gcs().write(state, body(content))
    lost = []

    async def losing(reader, writer):
        while piece := await reader.read(65536):
            if not lost:
                lost.append(piece)
                return
            writer.write(piece)

    async with proxy(urlsplit(gcs_server.endpoint).port, answers=losing) as port:
        driver = open_gcs(endpoint=f"http://127.0.0.1:{port}")
        await driver.complete(state)
        await driver.close()
    assert b"200" in lost[0]
    assert await read(open_gcs(), state.location) == content
    assert await left_of_uploads(open_gcs()) == set()


async def test_a_composition_that_fails_half_way_can_be_repeated_and_leaves_what_it_had(gcs_server, open_gcs):
    driver = open_gcs(part_size=KIB)
    content = os.urandom(70 * KIB)
    state = await driver.write(await driver.create_upload(new_location()), body(content))

    async def put_aside():
        return [stored async for stored in driver.list_uploads()]

    assert len(await put_aside()) == 70
    gcs_server.fail_next("POST", 503, count=7)  # two of three groups, or one and its last
    with pytest.raises(StorageUnavailable, match="503"):
        await driver.complete(state)
    assert len(await put_aside()) == 70
    gcs_server.fail_next("POST", 0, count=0)  # it may have been told of fewer
    await driver.complete(state)
    assert await read(driver, state.location) == content
    assert await put_aside() == []


def test_the_longest_object_has_no_more_parts_than_it_may():
    sizes = GCS(GCSSettings("blobs"))._sizes
    offset = parts = 0
    while offset < 5 * 1024 * KIB * MIB:
        offset += sizes.full(offset)
        parts += 1
    assert parts <= sizes.most
    assert sizes.full(0) == PART_SIZE


# --- Who asks -----------------------------------------------------------------------------------------------


async def test_tokens_are_renewed_in_the_middle_of_an_upload_and_by_one_request_for_all(
    gcs_server, open_gcs, monkeypatch
):
    ahead = 0
    clock = types.SimpleNamespace(time=lambda: time.time() + ahead)
    monkeypatch.setattr("dtr.storage.access_tokens.time", clock)
    driver = open_gcs()
    content = os.urandom(3 * PART)

    async def slow():
        nonlocal ahead
        for start in range(0, len(content), PART):
            yield content[start : start + PART]
            ahead += 3600

    before = gcs_server.count_tokens()
    state = await driver.write(await driver.create_upload(new_location()), slow())
    await driver.complete(state)
    assert await read(driver, state.location) == content
    assert gcs_server.count_tokens() >= before + 3
    ahead += 3600
    before = gcs_server.count_tokens()
    await asyncio.gather(*(driver.stat(state.location) for _ in range(20)))
    assert gcs_server.count_tokens() == before + 1


async def test_a_token_that_ends_early_is_replaced_also_for_what_is_long(gcs_server, open_gcs):
    driver = open_gcs(part_size=16 * MIB)
    content = os.urandom(34 * MIB)

    async def ended():
        yield content[: 16 * MIB]
        yield content[16 * MIB : 33 * MIB]
        await asyncio.to_thread(gcs_server.revoke)
        yield content[33 * MIB :]

    gcs_server.revoke()
    state = await driver.write(await driver.create_upload(new_location()), ended())
    gcs_server.revoke()
    await driver.complete(state)
    gcs_server.revoke()
    assert await read(driver, state.location) == content


async def test_a_machine_at_google_needs_no_key(gcs_server, open_gcs, monkeypatch):
    driver = open_gcs(account=None, machine=gcs_server.endpoint)
    location = await upload(driver, b"by the machine")
    assert await read(driver, location) == b"by the machine"
    assert await driver.sign(location, 60) is None
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert await open_gcs(account=None, machine=gcs_server.endpoint)._tokens.get()


async def test_a_machine_elsewhere_is_told_that_a_key_is_missing(open_gcs):
    with pytest.raises(StorageUnavailable, match="there is no key, and this machine is not known at Google"):
        await open_gcs(account=None, machine="http://127.0.0.1:1").check()


async def test_why_a_key_is_refused_is_told(gcs_server, open_gcs):
    for key, reason in (
        (gcs_server.key("unknown"), "Invalid JWT Signature"),
        (gcs_server.key(client_email="nobody@nowhere"), "account not found"),
        (gcs_server.key(token_uri=f"{gcs_server.endpoint}/elsewhere"), "it answers 403"),
    ):
        with pytest.raises(AccessDenied, match=reason):
            await open_gcs(key=key).check()


def elliptic():
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


async def test_a_key_is_looked_at_when_it_is_given_and_not_repeated(gcs_server, tmp_path):
    whole = json.loads(gcs_server.key())
    for text, problem in (
        ("open-sesame", "not the JSON text"),
        (json.dumps([whole]), "not the JSON text"),
        (json.dumps({**whole, "type": "authorized_user"}), "not the key of a service account"),
        (json.dumps({**whole, "client_email": ""}), "no `client_email`"),
        (json.dumps({**whole, "private_key": "open-sesame"}), "`private_key` that is damaged"),
        (json.dumps({**whole, "private_key": whole["private_key"][:200]}), "`private_key` that is damaged"),
        (json.dumps({**whole, "private_key": elliptic()}), "`private_key` that is not of RSA"),
        (json.dumps({**whole, "token_uri": "file:///open-sesame"}), "`token_uri` that is no address"),
    ):
        with pytest.raises(DefinitionInvalid, match=problem) as caught:
            parameters_of("gcs", {"bucket": "blobs", "key": text})
        assert list(caught.value.problems) == ["key"]
        assert "open-sesame" not in str(caught.value)
        file = tmp_path / "key.json"
        file.write_text(text)
        parameters = parameters_of("gcs", {"bucket": "blobs", "key_file": str(file)})
        with pytest.raises(StorageError, match=f"{file} .*{problem}"):
            open_driver("gcs", parameters, spool_directory=tmp_path)
    with pytest.raises(StorageError, match="the key cannot be read from /no/key: No such file"):
        open_driver("gcs", {"bucket": "blobs", "key_file": "/no/key"}, spool_directory=tmp_path)
    with pytest.raises(DefinitionInvalid, match="key: is given instead of key_file"):
        parameters_of("gcs", {"bucket": "blobs", "key_file": "/key", "key": gcs_server.key()})


@pytest.mark.parametrize("given", ["key", "key_file"])
async def test_parameters_open_the_driver(gcs_server, tmp_path, given):
    key = {"key": gcs_server.key(), "key_file": str(gcs_server.key_file)}[given]
    parameters = parameters_of(
        "gcs", {"bucket": "blobs", given: key, "endpoint": gcs_server.endpoint, "prefix": f"/{tmp_path.name}/"}
    )
    assert parameters.place == f"gcs://{urlsplit(gcs_server.endpoint).netloc}/blobs/{tmp_path.name}"
    driver = open_driver("gcs", parameters, spool_directory=tmp_path)
    await driver.check()
    await driver.close()


# --- Refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "count"),
    [
        (429, "rateLimitExceeded", 2),
        (403, "rateLimitExceeded", 1),
        (503, "backendError", 2),
        (401, "authError", 1),
    ],
)
async def test_what_passes_is_waited_for(gcs_server, open_gcs, status, reason, count):
    driver = open_gcs()
    state = await driver.write(await driver.create_upload(new_location()), body(bytes(PART)))
    gcs_server.fail_next("POST", status, reason, count)
    await driver.complete(await driver.write(state, body(bytes(PART))))
    gcs_server.fail_next("GET", status, reason, count)
    assert await read(driver, state.location) == bytes(2 * PART)


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (429, "rateLimitExceeded", StorageUnavailable),
        (403, "userRateLimitExceeded", StorageUnavailable),
        (500, "internalError", StorageUnavailable),
        (507, "", StorageFull),
        (401, "authError", AccessDenied),
        (403, "forbidden", AccessDenied),
        (403, "accountDisabled", AccessDenied),
        (403, "retentionPolicyNotMet", StorageError),
        (400, "invalid", StorageError),
        (412, "conditionNotMet", StorageError),
    ],
)
async def test_what_does_not_pass_is_told_apart(gcs_server, open_gcs, status, reason, error):
    driver = open_gcs()
    await driver.put_small(location := new_location(), b"x")
    gcs_server.fail_next("DELETE", status, reason, count=20)
    started = time.monotonic()
    with pytest.raises(StorageError, match="a fault that a test wants") as caught:
        await driver.delete(location)
    gcs_server.fail_next("DELETE", 0, count=0)
    assert type(caught.value) is error
    assert time.monotonic() - started < 8
    assert await driver.stat(location) == 1


# --- Names --------------------------------------------------------------------------------------------------


async def test_names_of_all_kinds_are_written_read_listed_and_signed(gcs_server, open_gcs, tmp_path):
    driver = open_gcs(root_directory=f"{tmp_path.name}/ä b+c%20?#&=~")
    names = ["x y", "ü/+", "a%2Fb", "q?a=b&c", "~tilde", "#"]
    for name in names:
        await driver.put_small(name, name.encode())
    assert await locations(driver) == sorted(names)
    for name in names:
        assert await read(driver, name, 1) == name.encode()[1:]
        url = await driver.sign(name, 60)
        with await asyncio.to_thread(urllib.request.urlopen, url) as answer:
            assert answer.read() == name.encode()
        await driver.delete(name)
    assert await locations(driver) == []


async def test_a_listing_of_more_than_a_page_is_whole_and_in_order(open_gcs, monkeypatch):
    monkeypatch.setattr("dtr.storage.gcs._PAGE", 4)
    driver = open_gcs()
    names = sorted(f"{number % 3}/{number}" for number in range(19))
    for name in names:
        await driver.put_small(name, b"")
    assert await locations(driver) == names
    assert await locations(driver, "1/") == [name for name in names if name.startswith("1/")]


async def test_an_abort_takes_nothing_of_uploads_with_longer_names(open_gcs):
    driver = open_gcs()
    location = new_location()
    other = await driver.write(await driver.create_upload(f"{location}0"), body(bytes(PART)))
    await driver.put_small(f"{location}.part.x", b"an object")
    await driver.write(await driver.create_upload(location), body(bytes(PART)))
    await driver.abort(UploadState(location))
    assert await locations(driver) == [f"{location}.part.x"]
    await driver.complete(other)
