"""What Azure promises besides, and what it answers when something is not as it should be."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import AsyncExitStack, aclosing, suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from aiohttp import web
from tests.support.azurite import ACCOUNT, ACCOUNT_KEY, CONTAINER, azure_settings, run_azure_server
from tests.support.storage import MIB, body, left_of_uploads, locations, read, upload

from dtr.storage import (
    AccessDenied,
    Azure,
    AzureSettings,
    ObjectMissing,
    StorageError,
    StorageFull,
    StorageUnavailable,
    UploadState,
    new_location,
)
from dtr.storage.azure import SIZES
from dtr.storage.azure_identity import Identity
from dtr.storage.definitions import DefinitionInvalid, open_driver, parameters_of
from dtr.storage.spool import Spool
from dtr.storage.web import Web


@pytest.fixture
async def open_azure(azure_server, tmp_path):
    """A function that opens a driver with other settings than usual; names of each test are apart."""
    opened = []

    def make(**changes):
        opened.append(Azure(azure_settings(azure_server, **{"root_directory": tmp_path.name, **changes})))
        return opened[-1]

    yield make
    for driver in opened:
        await driver.close()


class Canned:
    """A server that gives one answer after the other, the last one for good, and notes what it was asked."""

    def __init__(self):
        self.answers = []
        self.asked = []
        self.endpoint = ""

    def will(self, status, code="", text="", **headers):
        """The next answer; with `code`, an error as Azure writes it."""
        if code:
            text = f"<Error><Code>{code}</Code><Message>Said so.\nTime:now</Message>{text}</Error>"
            headers["x-ms-error-code"] = code
        self.answers.append((status, text, headers))

    async def answer(self, request):
        self.asked.append((request.method, request.path_qs, await request.read()))
        status, text, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, text=text, headers=headers)


@pytest.fixture
async def canned(monkeypatch):
    monkeypatch.setattr("dtr.storage.web._FIRST_PAUSE", 0.001)
    made = Canned()
    runner = web.ServerRunner(web.Server(made.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def grant(rights, *, until, resource=f"/blob/{ACCOUNT}/{CONTAINER}", kind="c"):
    """A shared access signature, as an administrator makes one in Azure's portal."""
    version, expiry = "2021-08-06", until.strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [rights, "", expiry, resource, "", "", "", version, kind, "", "", "", "", "", "", ""]
    signature = hmac.digest(base64.b64decode(ACCOUNT_KEY), "\n".join(lines).encode(), "sha256")
    given = {"sp": rights, "se": expiry, "sv": version, "sr": kind, "sig": base64.b64encode(signature).decode()}
    return urlencode(given)


def later(seconds=600):
    return datetime.now(UTC) + timedelta(seconds=seconds)


# --- Blocks ---------------------------------------------------------------------------------------------------


def test_the_longest_object_fits_into_the_blocks_that_a_blob_may_have():
    for short in (0, 25_000):  # so many as short as may be at its beginning
        offset, parts = short * 64 * 1024, short
        while offset < 5 * 1024 * 1024 * MIB:
            size = SIZES.full(offset)
            assert size <= 4000 * MIB
            offset, parts = offset + size, parts + 1
        assert parts <= 50_000


async def test_many_small_writes_are_few_blocks(open_azure):
    driver = open_azure()
    content = os.urandom(90 * 10_240)
    state = await driver.create_upload(new_location())
    for start in range(0, len(content), 10_240):
        state = await driver.write(state, body(content[start : start + 10_240]))
    assert len(state.parts) == len(content) // (7 * 10_240)
    await driver.complete(state)
    assert await read(driver, state.location) == content
    assert await locations(driver) == [state.location]


async def test_blocks_of_writers_who_were_given_up_on_are_in_no_object(open_azure):
    driver = open_azure()
    before, mine, other = (os.urandom(100_000) for _ in range(3))
    state = await driver.write(await driver.create_upload(new_location()), body(before))
    await driver.write(state, body(other))
    reached = await driver.write(state, body(mine))
    await driver.write(state, body(other))
    assert await left_of_uploads(driver) == {state.location}
    await driver.complete(reached)
    assert await read(driver, state.location) == before + mine
    assert await left_of_uploads(driver) == set()


async def test_an_upload_is_listed_with_its_time_and_no_object_is(open_azure):
    driver, began = open_azure(), time.time()
    await driver.put_small("20200101/0000/empty", b"")
    state = await driver.write(await driver.create_upload(new_location()), body(bytes(100_000)))
    async with aclosing(driver.list_uploads()) as found:
        [stored] = [one async for one in found]
    assert (stored.location, stored.size) == (state.location, 0)
    assert began - 120 < stored.modified_at.timestamp() < time.time() + 120
    await driver.abort(state)
    assert await left_of_uploads(driver) == set()
    assert await locations(driver) == ["20200101/0000/empty"]


async def test_an_upload_whose_blocks_azure_dropped_is_missing(open_azure):
    driver = open_azure()
    state = await driver.write(await driver.create_upload(new_location()), body(bytes(100_000)))
    await driver.abort(state)
    with pytest.raises(ObjectMissing):
        await driver.complete(state)
    await driver.put_small(state.location, b"another object")
    with pytest.raises(ObjectMissing):
        await driver.complete(state)
    assert await read(driver, state.location) == b"another object"


async def test_azure_itself_does_not_say_when_an_upload_was_written_to(canned):
    blobs = "".join(
        f"<Blob><Name>{name}</Name><Properties><Content-Length>{size}</Content-Length>{more}</Properties></Blob>"
        for name, size, more in (
            ("20260102/0304/blocks", 0, "<BlobType>BlockBlob</BlobType>"),
            ("20260102/0305/object", 7, "<Content-Type>application/octet-stream</Content-Type>"),
            ("of-others/blocks", 0, "<BlobType>BlockBlob</BlobType>"),
        )
    )
    canned.will(200, text=f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>")
    driver = Azure(azure_settings(canned))
    async with aclosing(driver.list_uploads()) as found:
        assert [(one.location, one.modified_at) async for one in found] == [
            ("20260102/0304/blocks", datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
        ]
    await driver.close()


async def test_a_body_that_cannot_be_read_again_is_told_as_that(open_azure, monkeypatch):
    driver = open_azure()

    def lost(self, offset, size):
        raise StorageFull("the disk lost them")

    monkeypatch.setattr(Spool, "_read_at_once", lost)
    state = await driver.create_upload(new_location())
    with pytest.raises(StorageFull, match="the disk lost them"):
        await driver.write(state, body(bytes(MIB)))


# --- Reading --------------------------------------------------------------------------------------------------


async def test_a_read_during_which_the_object_is_replaced_is_of_one_of_the_two(open_azure):
    driver = open_azure()
    old, new = os.urandom(12 * MIB), os.urandom(11 * MIB)
    await driver.put_small("0/replaced", old)
    received = bytearray()
    with suppress(StorageError):
        async with aclosing(driver.open("0/replaced")) as pieces:
            received += await anext(pieces)
            await driver.put_small("0/replaced", new)
            async for piece in pieces:
                received += piece
        assert bytes(received) == old
    assert old.startswith(received)
    assert await read(driver, "0/replaced") == new


async def test_an_answer_with_other_bytes_or_fewer_is_no_object(canned):
    driver = Azure(azure_settings(canned, time_limit=5))
    for headers in ({}, {"Content-Range": "bytes 0-1/9"}):
        canned.answers.clear()
        canned.will(206, text="xy", **headers)
        with pytest.raises(StorageError, match="other bytes"):
            await read(driver, "a/b", 5, 2)
    await driver.close()


async def test_reading_is_one_request(canned):
    canned.will(200, text="content")
    driver = Azure(azure_settings(canned))
    assert await read(driver, "a/b") == b"content"
    assert [asked[0] for asked in canned.asked] == ["GET"]
    await driver.close()


# --- Listings -------------------------------------------------------------------------------------------------


async def test_a_listing_of_more_than_a_page_is_whole_and_in_order(open_azure, monkeypatch):
    monkeypatch.setattr("dtr.storage.azure._PAGE", 3)
    driver = open_azure()
    names = sorted(f"{number % 3}/a&b <{number}>" for number in range(10))
    for name in names:
        await driver.put_small(name, b"x")
    assert await locations(driver) == names
    assert await locations(driver, "1/") == [name for name in names if name.startswith("1/")]


async def test_listings_that_cannot_be_trusted_are_refused(canned):
    blob = "<Blob><Name>{}</Name><Properties><Content-Type>x/y</Content-Type></Properties></Blob>"
    driver = Azure(azure_settings(canned))
    for text, reason in (
        (f"<L><Blobs>{blob.format('b/1')}{blob.format('a/1')}</Blobs></L>", "hierarchical namespace"),
        ("<html>", "cannot be read"),
        (f"<L><Blobs>{blob.format('a').replace('Type', 'Length')}</Blobs></L>", "cannot be read"),
    ):
        canned.answers.clear()
        canned.will(200, text=text)
        with pytest.raises(StorageError, match=reason):
            await locations(driver)
    await driver.close()


# --- Errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "expected", "attempts"),
    [
        (503, "ServerBusy", StorageUnavailable, 3),
        (500, "OperationTimedOut", StorageUnavailable, 3),
        (429, "TooManyRequests", StorageUnavailable, 3),
        (404, "ContainerNotFound", StorageUnavailable, 1),
        (409, "ContainerBeingDeleted", StorageUnavailable, 1),
        (404, "BlobNotFound", ObjectMissing, 1),
        (403, "AuthenticationFailed", AccessDenied, 1),
        (403, "AuthorizationFailure", AccessDenied, 1),
        (401, "NoAuthenticationInformation", AccessDenied, 1),
        (409, "BlobImmutableDueToPolicy", AccessDenied, 1),
        (507, "InsufficientStorage", StorageFull, 1),
        (409, "AccountQuotaExceeded", StorageFull, 1),
        (409, "LeaseIdMissing", StorageError, 1),
        (404, "", StorageError, 1),
        (302, "", StorageError, 1),
    ],
)
async def test_what_errors_mean(canned, status, code, expected, attempts):
    canned.will(status, code)
    driver = Azure(azure_settings(canned))
    with pytest.raises(StorageError) as caught:
        await driver.put_small("a/b", b"content")
    assert type(caught.value) is expected
    if expected is not ObjectMissing:
        assert CONTAINER in str(caught.value)
        assert (code or str(status)) in str(caught.value)
    assert [asked[2] for asked in canned.asked] == [b"content"] * attempts
    await driver.close()


async def test_a_store_that_is_busy_for_a_moment_is_asked_again(canned):
    canned.will(503, "ServerBusy")
    canned.will(201)
    driver = Azure(azure_settings(canned))
    await driver.put_small("a/b", b"content")
    assert len(canned.asked) == 2
    await driver.close()


async def test_a_clock_that_is_wrong_is_told(canned):
    detail = "<AuthenticationErrorDetail>Request date header too old: 'Sat'</AuthenticationErrorDetail>"
    canned.will(403, "AuthenticationFailed", text=detail)
    driver = Azure(azure_settings(canned))
    with pytest.raises(AccessDenied, match=r"AuthenticationFailed: Said so\.: Request date header too old"):
        await read(driver, "a/b")
    await driver.close()


# --- Keys, signatures and addresses -----------------------------------------------------------------------------


async def test_a_signed_address_is_for_reading_this_object_for_a_while(open_azure):
    began = datetime.now(UTC)
    url = await open_azure().sign("a b/c", 60)
    given = parse_qs(urlsplit(url).query)
    assert (given["sp"], given["sr"], given["spr"]) == (["r"], ["b"], ["https,http"])
    expiry = datetime.fromisoformat(given["se"][0])
    assert began + timedelta(seconds=50) <= expiry <= datetime.now(UTC) + timedelta(seconds=60)
    url = await Azure(AzureSettings("acme", "blobs", account_key=ACCOUNT_KEY)).sign("a b/c", 60)
    assert url.startswith("https://acme.blob.core.windows.net/blobs/a%20b/c?")
    assert parse_qs(urlsplit(url).query)["spr"] == ["https"]
    assert ACCOUNT_KEY not in url


async def test_a_shared_access_signature_is_enough_and_never_told(open_azure):
    token = grant("racwdl", until=later())
    driver = open_azure(account_key=None, sas_token=f"?{token}")
    await driver.check()
    location = await upload(driver, os.urandom(100_000), b"end")
    assert await locations(driver) == [location]
    assert await driver.sign(location, 60) is None
    await driver.abort(UploadState(location))
    assert await locations(driver) == []
    await open_azure().put_small("a/b", b"")
    for wrong in (
        grant("r", until=later()),
        grant("rcwd", until=later()),  # without the right to list
        grant("racwdl", until=later(-5)),
    ):
        with pytest.raises(AccessDenied) as caught:
            await open_azure(account_key=None, sas_token=wrong).check()
        assert "sig=" not in str(caught.value)
    with pytest.raises(StorageUnavailable) as unreachable:
        await open_azure(account_key=None, sas_token=token, endpoint="http://127.0.0.1:1").stat("a/b")
    assert "sig=" not in str(unreachable.value)
    assert token not in repr(AzureSettings("acme", "blobs", sas_token=token))


def access_token(seconds=3600, **changes):
    """An access token as Azure gives them out; Azurite looks at all but the signature."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/72f988bf-86f1-41af-91ab-2d7cd011db47/",
        "iat": now,
        "nbf": now - 60,
        "exp": now + seconds,
        "oid": "11059fcc-5514-4800-b5f8-49808b9cfab6",
        "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47",
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, {**claims, **changes})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


def give_token(canned, token, seconds=3600):
    """What the metadata service answers from now on."""
    canned.answers.clear()
    canned.will(200, text=json.dumps({"access_token": token, "expires_in": str(seconds), "token_type": "Bearer"}))


async def test_what_the_machine_is_at_azure_is_enough(canned, own_certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # not for what only the machine itself reaches
    trusted = ssl.create_default_context(cafile=own_certificate.authority)

    async def fetch(url):
        with await asyncio.to_thread(urllib.request.urlopen, url, context=trusted) as answer:
            return answer.read()

    async with AsyncExitStack() as opened:
        server = opened.enter_context(run_azure_server(tmp_path / "server", own_certificate))

        def open_as(identity):
            given = {"account_key": None, "identity": identity, "metadata": canned.endpoint}
            driver = Azure(azure_settings(server, verify=str(own_certificate.authority), **given))
            opened.push_async_callback(driver.close)
            return driver

        driver, assigned = open_as("machine"), open_as("00000000-1111-2222-3333-444444444444")
        give_token(canned, access_token())
        await driver.check()
        location = await upload(driver, content := os.urandom(100_000), b"end")
        assert await left_of_uploads(driver) == set()
        [(_, path, _)] = canned.asked  # once for all of these requests
        assert parse_qs(urlsplit(path).query) == {
            "api-version": ["2018-02-01"],
            "resource": ["https://storage.azure.com/"],
        }
        for url in (await driver.sign(location, 60), await driver.sign(location, 60)):
            assert parse_qs(urlsplit(url).query)["sp"] == ["r"]
            assert await fetch(url) == content + b"end"
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            await fetch(url.replace(location, "a/b"))
        refused.value.close()

        give_token(canned, access_token(-60))
        with pytest.raises(AccessDenied):
            await assigned.stat(location)
        give_token(canned, access_token())  # the one that was not taken is not used again
        assert await assigned.stat(location) == 100_003
        assert "client_id=00000000-1111-2222-3333-444444444444" in canned.asked[-1][1]

        canned.answers.clear()
        canned.will(400, text='{"error": "invalid_request", "error_description": "Identity not found"}')
        with pytest.raises(AccessDenied, match="no such identity"):
            await open_as("machine").stat(location)
        assert await driver.stat(location) == 100_003


async def test_an_answer_without_a_token_is_an_error(canned):
    web = Web("the metadata service", time_limit=5)
    identity = Identity("machine", web, canned.endpoint)
    for status, error, reason in (
        (403, AccessDenied, "no such identity"),
        (500, StorageUnavailable, "answers 500"),
        (200, StorageUnavailable, "without a token"),
    ):
        canned.answers.clear()
        canned.will(status, text="<html>")
        with pytest.raises(error, match=reason):
            await identity.ask()
    await web.close()


GIVEN = {"account_name": "acme", "account_key": ACCOUNT_KEY, "container": "blobs"}


@pytest.mark.parametrize(
    ("more", "service"),
    [
        ({}, "https://acme.blob.core.windows.net"),
        ({"realm": "core.chinacloudapi.cn"}, "https://acme.blob.core.chinacloudapi.cn"),
        ({"realm": "core.usgovcloudapi.net"}, "https://acme.blob.core.usgovcloudapi.net"),
        ({"endpoint": "https://storage.example.org/acme/"}, "https://storage.example.org/acme"),
    ],
)
async def test_the_realm_leads_to_its_cloud(more, service, tmp_path):
    parameters = parameters_of("azure", {**GIVEN, **more, "prefix": "/registry/"})
    assert parameters.place == f"azure://{service.removeprefix('https://')}/blobs/registry"
    driver = open_driver("azure", parameters, spool_directory=tmp_path)
    url = await driver.sign("a/b", 60)
    assert url.startswith(f"{service}/blobs/registry/a/b?")
    await driver.close()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"account_key": None}, "account_key"),
        ({"account_name": ""}, "account_name"),
        ({"container": ""}, "container"),
        ({"container": "No Container"}, "container"),
        ({"account_key": "no base64!"}, "account_key"),
        ({"sas_token": "sig=x"}, ""),
        ({"identity": "machine"}, ""),
        ({"account_key": None, "identity": "me"}, "identity"),
        ({"account_key": None, "identity": "machine", "endpoint": "http://storage.example.org"}, ""),
        ({"endpoint": "storage.example.org"}, "endpoint"),
        ({"realm": "https://core.windows.net"}, "realm"),
    ],
)
def test_parameters_that_are_wrong_are_named_and_not_repeated(change, named):
    with pytest.raises(DefinitionInvalid) as caught:
        parameters_of("azure", {**GIVEN, **change})
    assert list(caught.value.problems) == [named]
    assert ACCOUNT_KEY not in str(caught.value)
    assert "no base64" not in str(caught.value)


# --- Memory ---------------------------------------------------------------------------------------------------

MEMORY = """
import asyncio, resource, sys
from dtr.storage import Azure, AzureSettings, new_location

MIB = 1024 * 1024
PIECE = bytes(65536)

async def body(mib):
    for _ in range(mib * 16):
        yield PIECE

async def move(driver, mib):
    state = await driver.write(await driver.create_upload(new_location()), body(mib))
    await driver.complete(state)
    read = 0
    async for piece in driver.open(state.location):
        read += len(piece)
    assert read == mib * MIB
    await driver.delete(state.location)

async def main():
    driver = Azure(AzureSettings(sys.argv[1], "blobs", account_key=sys.argv[2], endpoint=sys.argv[3]))
    await move(driver, 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await move(driver, 50)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    await driver.close()

asyncio.run(main())
"""


def test_streaming_takes_less_memory_than_a_part(azure_server):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, ACCOUNT, ACCOUNT_KEY, f"{azure_server.endpoint}/{ACCOUNT}"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(f"growth: {int(done.stdout) / 1024:.1f} MiB")
    assert int(done.stdout) < 2 * 1024  # KiB, beyond what an upload of two parts took
