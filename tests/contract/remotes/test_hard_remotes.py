"""Registries that break, lie, are busy, or want to lead us elsewhere."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from tests.contract.remotes.conftest import pieces_of
from tests.support.images import OCI_INDEX, OCI_MANIFEST, digest_of
from tests.support.ports import free_port
from tests.support.scripted import Scripted, cut, scripted

from dtr.outbound import Addresses, Outside
from dtr.pki import Certificate
from dtr.remotes import (
    Permissions,
    Remote,
    RemoteBroken,
    RemoteBusy,
    RemoteDenied,
    RemoteError,
    RemoteRefused,
    RemoteRepository,
    Remotes,
    RemoteUnreachable,
    client,
    session,
)

BLOB = os.urandom(300_000)
DIGEST = digest_of(BLOB)
SECRET = "hunter2 of the mirror"
BASIC = "Basic " + base64.b64encode(f"ada:{SECRET}".encode()).decode()
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()

pytestmark = pytest.mark.usefixtures("no_pauses")


def open_to_all(answers: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    """A registry without log-in."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response() if request.path == "/v2/" else await answers(request)

    return handler


def at(server: Scripted, **more: Any) -> Remote:
    return Remote(host=server.url, repository="a/b", **more)


async def read_all(repository: RemoteRepository, size: int = len(BLOB), digest: str = DIGEST) -> bytes:
    return b"".join([piece async for piece in repository.read_blob(digest, size)])


def with_tokens(server: Scripted, realm: str, *, life: float = 300, refused: Callable[[str], bool] = bool) -> Any:
    """A registry whose token service is at `realm`; `refused` says of which tokens it wants others."""
    challenge = f'Bearer realm="{realm}",service="here",scope="repository:a/b:pull"'

    async def handler(request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token or refused(token):
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        if request.path.endswith("/tags/list"):
            return web.json_response({"tags": ["v1"]})
        return web.Response()

    return handler


class TokenService:
    """Gives tokens `t1`, `t2`, …, and keeps what it was asked for."""

    def __init__(self, **answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, list[str]], str | None]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        form = request.query_string if request.method == "GET" else await request.text()
        self.asked.append((request.method, parse_qs(form), request.headers.get("Authorization")))
        return web.json_response({"token": f"t{len(self.asked)}", **self.answer})


# --- tokens ---------------------------------------------------------------------------------------------------


async def test_tokens_come_from_the_service_that_the_registry_names(remotes: Remotes):
    service = TokenService()
    async with scripted() as registry, scripted(service) as auth:
        registry.handler = with_tokens(registry, f"{auth.url}/token?x=1", refused=lambda _token: False)
        async with remotes.connect(at(registry, username="ada", password=SECRET)) as there:
            assert [tag async for tag in there.tags()] == ["v1"]
            assert await there.has_blob(DIGEST)
        method, query, authorization = service.asked[0]
        assert (method, authorization) == ("GET", BASIC)
        assert query == {
            "x": ["1"], "service": ["here"], "client_id": ["dtr"], "account": ["ada"],
            "scope": ["repository:a/b:pull"],
        }  # fmt: skip
        assert len(service.asked) == 1  # it is good for both
        assert registry.authorizations == [None, "Bearer t1", "Bearer t1"]  # never the password


async def test_a_token_that_expires_is_renewed_before(remotes: Remotes):
    service = TokenService(expires_in=1)
    async with scripted() as registry, scripted(service) as auth:
        registry.handler = with_tokens(registry, f"{auth.url}/token", refused=lambda _token: False)
        async with remotes.connect(at(registry)) as there:
            await there.has_blob(DIGEST)
            await asyncio.sleep(0.8)
            await there.has_blob(DIGEST)
        assert registry.authorizations[1:] == ["Bearer t1", "Bearer t2"]
        assert service.asked[0][2] is None  # nobody


async def test_a_token_that_is_refused_in_the_middle_is_renewed_once(remotes: Remotes):
    service = TokenService()
    async with scripted() as registry, scripted(service) as auth:
        bad = {"t1", "t3"}
        registry.handler = with_tokens(registry, f"{auth.url}/token", refused=bad.__contains__)
        async with remotes.connect(at(registry)) as there:
            assert await there.has_blob(DIGEST)
            bad |= {"t2", "t4"}
            with pytest.raises(RemoteDenied):
                await there.get_manifest("v1")
        assert registry.authorizations[1:] == ["Bearer t1", "Bearer t2", "Bearer t2", "Bearer t3"]


async def test_a_token_expires_in_the_middle_of_an_upload(remotes: Remotes):
    """The rest goes with another."""
    service, arrived, valid = TokenService(), bytearray(), ["t1"]

    async def answers(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {valid[0]}":
            headers = {"WWW-Authenticate": f'Bearer realm="{auth.url}/token"'}
            return web.Response(status=401, headers=headers)
        if request.method == "POST":
            valid[0] = "t2"
            return web.Response(status=202, headers={"Location": "/v2/a/b/blobs/uploads/1"})
        if request.method == "PATCH":
            arrived.extend(await request.read())
            return web.Response(status=202, headers={"Location": str(request.rel_url)})
        if request.method == "GET":
            return web.Response(status=204, headers={"Range": f"0-{max(0, len(arrived) - 1)}"})
        return web.Response(status=201)

    async with scripted(answers) as registry, scripted(service) as auth, remotes.connect(at(registry)) as there:
        await there.write_blob(DIGEST, len(BLOB), pieces_of(BLOB))
    assert arrived == BLOB
    assert len(service.asked) == 2


async def test_identity_tokens(remotes: Remotes):
    """They are shown by OAuth, or, to a service that does not know that, as a password."""
    service = TokenService()
    async with scripted() as registry, scripted(service) as auth:
        registry.handler = with_tokens(registry, f"{auth.url}/token", refused=lambda _token: False)
        async with remotes.connect(at(registry, token=SECRET)) as there:
            assert await there.has_blob(DIGEST)
        method, form, authorization = service.asked[0]
        assert (method, authorization) == ("POST", None)
        assert form["grant_type"] == ["refresh_token"]
        assert form["refresh_token"] == [SECRET]
        assert form["scope"] == ["repository:a/b:pull"]

        async def gets_only(request: web.Request) -> web.StreamResponse:
            return await service(request) if request.method == "GET" else web.Response(status=405)

        auth.handler = gets_only
        async with remotes.connect(at(registry, token=SECRET)) as there:
            assert await there.has_blob(DIGEST)
        shown = base64.b64encode(f"<token>:{SECRET}".encode()).decode()
        assert service.asked[1][0::2] == ("GET", f"Basic {shown}")


async def test_access_tokens_are_passwords(remotes: Remotes):
    """Nothing else is tried with them, which a registry could take for wrong log-ins."""
    service = TokenService()
    async with scripted() as registry, scripted(service) as auth:
        registry.handler = with_tokens(registry, f"{auth.url}/token", refused=lambda _token: False)
        async with remotes.connect(at(registry, username="ada", password="another", token=SECRET)) as there:
            assert await there.has_blob(DIGEST)
        assert [one[0::2] for one in service.asked] == [("GET", BASIC)]


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_credentials_that_the_token_service_refuses(remotes: Remotes, status: int):
    async def refuse(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"details": f"{SECRET} is wrong"}, status=status)

    async with scripted() as registry, scripted(refuse) as auth:
        registry.handler = with_tokens(registry, f"{auth.url}/token")
        async with remotes.connect(at(registry, username="ada", password=SECRET)) as there:
            with pytest.raises(RemoteDenied, match="does not let these credentials in") as caught:
                await there.permissions()
            assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"[" * 60_000,
        b"{}",
        b'{"token": 7}',
        b'{"token": "a\\nb"}',
        b'{"token": "' + b"x" * 20_000 + b'"}',
        b"x" * 70_000,
    ],
    ids=lambda one: repr(one[:12]),
)
async def test_what_is_no_token(remotes: Remotes, answer: bytes):
    async def answers(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=answer)

    async with scripted() as registry, scripted(answers) as auth:
        registry.handler = with_tokens(registry, f"{auth.url}/token")
        async with remotes.connect(at(registry)) as there:
            with pytest.raises(RemoteBroken):
                await there.has_blob(DIGEST)


async def test_what_a_token_is_good_for(remotes: Remotes):
    """It is read of the token, and nothing is begun to find it out."""

    def token(*access: dict[str, Any]) -> str:
        part = base64.urlsafe_b64encode(json.dumps({"access": access}).encode()).decode().rstrip("=")
        return f"e30.{part}.e30"

    def scope(name: str, *actions: str) -> dict[str, Any]:
        return {"type": "repository", "name": name, "actions": actions}

    service = TokenService(token=token(scope("a/b", "pull"), scope("a/c", "pull", "push")))
    async with scripted() as registry, scripted(service) as auth:
        registry.handler = with_tokens(registry, f"{auth.url}/token", refused=lambda _token: False)
        async with remotes.connect(at(registry)) as there:
            assert await there.permissions() == Permissions(read=True, write=False)
        service.answer = {"token": token(scope("a/b", "pull", "push"))}
        async with remotes.connect(at(registry)) as there:
            assert await there.permissions() == Permissions(read=True, write=True)
        assert registry.count("POST", "") == 0


# --- credentials stay where they belong -----------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirection_to_another_host_carries_no_credentials(remotes: Remotes, status: int):
    signed = "/signed/%61?credential=a%2Fb%2B+c%20d&signature=e%3D&%7E"

    async def stored(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=BLOB)

    async with scripted() as registry, scripted(stored) as storage:

        async def handler(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization") != BASIC:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            return web.Response(status=status, headers={"Location": storage.url + signed})

        registry.handler = handler
        async with remotes.connect(at(registry, username="ada", password=SECRET)) as there:
            assert await read_all(there) == BLOB
        assert registry.authorizations == [None, BASIC]
        assert storage.authorizations == [None]
        assert storage.asked == [("GET", signed)]  # to the letter, else the signature is wrong


async def test_another_host_cannot_ask_for_the_credentials(remotes: Remotes):
    """Neither with a challenge of its own, nor as the place where an upload goes on."""

    async def greedy(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="give"'})

    async with scripted() as registry, scripted(greedy) as other:

        async def handler(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization") != BASIC:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            status = 202 if request.method == "POST" else 307
            return web.Response(status=status, headers={"Location": f"{other.url}/there"})

        registry.handler = handler
        async with remotes.connect(at(registry, username="ada", password=SECRET)) as there:
            with pytest.raises(RemoteDenied):
                await read_all(there)
            with pytest.raises(RemoteDenied):
                await there.write_blob(DIGEST, len(BLOB), pieces_of(BLOB))
        assert set(other.authorizations) == {None}


async def test_nothing_leads_from_tls_to_the_clear(remotes: Remotes, certificate: Certificate):
    ca = certificate.authority.read_text() if certificate.authority else ""
    async with scripted(certificate=certificate) as registry, scripted() as plain:

        async def handler(request: web.Request) -> web.StreamResponse:
            if request.path == "/v2/":
                return web.Response()
            if request.method == "POST":
                return web.Response(status=202, headers={"Location": f"{plain.url}/there"})
            return web.Response(status=307, headers={"Location": f"{plain.url}/there"})

        registry.handler = handler
        async with remotes.connect(at(registry, ca=ca)) as there:
            with pytest.raises(RemoteBroken, match="without TLS"):
                await read_all(there)
            with pytest.raises(RemoteBroken, match="without TLS"):
                await there.write_blob(DIGEST, len(BLOB), pieces_of(BLOB))
        registry.handler = with_tokens(registry, f"{plain.url}/token")
        async with remotes.connect(at(registry, ca=ca, username="ada", password=SECRET)) as there:
            with pytest.raises(RemoteBroken, match="no token service"):
                await there.has_blob(DIGEST)
        assert plain.asked == []


async def test_errors_of_the_remote_are_told_without_secrets(remotes: Remotes):
    async with scripted() as registry:

        async def handler(request: web.Request) -> web.StreamResponse:
            shown = request.headers.get("Authorization", "")
            if not shown:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            text = f"{shown} and {SECRET}\x1b[2J are no good" + "x" * 5000
            return web.json_response({"errors": [{"code": "UNSUPPORTED", "message": text}]}, status=405)

        registry.handler = handler
        async with remotes.connect(at(registry, username="ada", password=SECRET)) as there:
            with pytest.raises(RemoteRefused, match=r"405 .UNSUPPORTED: Basic [*]+ and [*]+") as caught:
                await there.get_manifest("v1")
            text = str(caught.value)
            assert SECRET not in text
            assert BASIC.split()[1] not in text
            assert len(text) < 400


# --- addresses that must not be reached -----------------------------------------------------------------------


async def test_no_private_address_is_reached_unless_it_is_allowed():
    async def never(_request: web.Request) -> web.StreamResponse:
        return web.Response()

    nobody = Remotes(Outside(Addresses()), silence_seconds=30)
    async with scripted(never) as inside:
        port = urlsplit(inside.url).port
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "0x7f.1", "nowhere.invalid"):
            async with nobody.connect(Remote(host=f"http://{host}:{port}", repository="a/b")) as there:
                with pytest.raises(RemoteUnreachable, match=r"no address, or none that may be reached|is not one"):
                    await there.has_blob(DIGEST)
        assert inside.asked == []


async def test_neither_redirections_nor_challenges_nor_locations_lead_inside(remotes: Remotes):
    """127.0.0.1 is allowed, and 127.0.0.2 is not."""

    async def never(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=BLOB)

    async with scripted() as registry, scripted(never, host="127.0.0.2") as inside:

        async def leads(request: web.Request) -> web.StreamResponse:
            status = 202 if request.method == "POST" else 307
            return web.Response(status=status, headers={"Location": f"{inside.url}/x"})

        registry.handler = open_to_all(leads)
        async with remotes.connect(at(registry)) as there:
            for work in (
                read_all(there),
                there.has_blob(DIGEST),
                there.write_blob(DIGEST, 300_000, pieces_of(BLOB)),
            ):
                with pytest.raises(RemoteUnreachable, match="none that may be reached"):
                    await work
        registry.handler = with_tokens(registry, f"{inside.url}/token")
        async with remotes.connect(at(registry)) as there:
            with pytest.raises(
                RemoteUnreachable, match=r"token service of the remote: .*none that may be reached"
            ):
                await there.has_blob(DIGEST)
        assert inside.asked == []


async def test_through_a_proxy():
    """It knows names that are unknown here; what is known here to lead inside is refused all the same."""

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=BLOB)

    async with scripted(handler) as proxy:
        remotes = Remotes(Outside(Addresses(), proxy_of=lambda _url: proxy.url), silence_seconds=30)
        async with remotes.connect(Remote(host="http://registry.invalid:5000", repository="a/b")) as there:
            assert await read_all(there) == BLOB
        paths = ["/v2/", f"/v2/a/b/blobs/{DIGEST}"]
        assert proxy.asked == [("GET", f"http://registry.invalid:5000{path}") for path in paths]
        for host in ("127.0.0.1", "localhost", "10.0.0.1"):
            async with remotes.connect(Remote(host=f"http://{host}:5000", repository="a/b")) as there:
                with pytest.raises(RemoteUnreachable, match="none that may be reached"):
                    await there.has_blob(DIGEST)
        assert len(proxy.asked) == 2


# --- busy -----------------------------------------------------------------------------------------------------


async def test_who_is_busy_is_asked_again_when_it_says(remotes: Remotes, monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(session, "asyncio", SimpleNamespace(sleep=noted, Lock=asyncio.Lock))
    answers = [
        web.Response(status=429, headers={"Retry-After": "0"}),
        web.Response(status=503, headers={"Retry-After": "1"}),
    ]

    async def handler(_request: web.Request) -> web.StreamResponse:
        return answers.pop(0) if answers else web.Response()

    async with scripted(open_to_all(handler)) as registry, remotes.connect(at(registry)) as there:
        began = asyncio.get_running_loop().time()
        assert await there.has_blob(DIGEST)
        assert asyncio.get_running_loop().time() - began >= 1
        assert pauses == [0, 1]
        assert registry.count("HEAD", "blobs") == 3


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "3600"}, 3600),
        ({"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "0;w=21600"}, 3600),
    ],
)
async def test_who_is_busy_for_long_is_left_alone(remotes: Remotes, headers: dict[str, str], expected: float):
    async def handler(_request: web.Request) -> web.StreamResponse:
        refusal = {"errors": [{"code": "TOOMANYREQUESTS", "message": "slow"}]}
        return web.json_response(refusal, status=429, headers=headers)

    async with scripted(open_to_all(handler)) as registry, remotes.connect(at(registry)) as there:
        with pytest.raises(RemoteBusy, match=r"429 .TOOMANYREQUESTS: slow") as caught:
            await there.get_manifest("v1")
        assert caught.value.retry_after == expected
        assert registry.count("GET", "manifests") == 1


async def test_patience_has_an_end(remotes: Remotes):
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=503)

    async with scripted(open_to_all(handler)) as registry, remotes.connect(at(registry), patience=0) as there:
        with pytest.raises(RemoteBusy):
            await there.get_manifest("v1")
        assert registry.count("GET", "manifests") == 1


# --- blobs that break -----------------------------------------------------------------------------------------


def partly(sent: list[int], *, ranges: bool = True) -> Any:
    """Each answer has so many bytes more, and then the connection is cut."""

    async def handler(request: web.Request) -> web.StreamResponse:
        begin = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0]) if ranges else 0
        headers = {"Content-Length": str(len(BLOB) - begin)}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(BLOB) - 1}/{len(BLOB)}"
        response = web.StreamResponse(status=206 if begin else 200, headers=headers)
        await response.prepare(request)
        count = sent.pop(0) if sent else len(BLOB)
        await response.write(BLOB[begin : begin + count])
        if begin + count < len(BLOB):
            await asyncio.sleep(0.05)
            cut(request)
        return response

    return open_to_all(handler)


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_blob_goes_on_where_it_broke(remotes: Remotes, ranges: bool):
    async with scripted(partly([100_000, 150_000], ranges=ranges)) as registry:
        async with remotes.connect(at(registry)) as there:
            assert await read_all(there) == BLOB
        assert registry.count("GET", "blobs") == 3


async def test_a_blob_that_does_not_go_on_is_given_up(remotes: Remotes):
    async with scripted(partly([1000, 0, 0, 0, 0, 0, 0])) as registry, remotes.connect(at(registry)) as there:
        with pytest.raises(RemoteUnreachable):
            await read_all(there)
        assert registry.count("GET", "blobs") == 4


async def test_silence_is_an_end_too(remotes: Remotes):
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(BLOB))})
        await response.prepare(request)
        await response.write(BLOB[:1000])
        await asyncio.sleep(600)
        return response

    quick = Remotes(Outside(Addresses(["127.0.0.1/32"])), silence_seconds=0.2)
    async with scripted(open_to_all(handler)) as registry, quick.connect(at(registry)) as there:
        with pytest.raises(RemoteUnreachable, match="did not answer in time"):
            await read_all(there)


@pytest.mark.parametrize(
    "wrong", [BLOB[:-1] + b"?", BLOB[:-1], BLOB + b"?", b""], ids=["other", "short", "long", "none"]
)
@pytest.mark.parametrize("chunked", [True, False])
async def test_wrong_content_never_comes_whole(remotes: Remotes, wrong: bytes, chunked: bool):
    """Not the last piece of it, so that nobody takes it for the blob."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(wrong)
        await response.prepare(request)
        await response.write(wrong)
        return response

    received = bytearray()
    async with scripted(open_to_all(handler)) as registry, remotes.connect(at(registry)) as there:
        with pytest.raises((RemoteBroken, RemoteUnreachable)):  # noqa: PT012
            async for piece in there.read_blob(DIGEST, len(BLOB)):
                received += piece
    assert len(received) < len(BLOB)


async def test_another_part_than_was_asked_for(remotes: Remotes):
    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Range": f"bytes 5-{len(BLOB) - 1}/{len(BLOB)}"}
        return web.Response(status=206, body=BLOB[5:], headers=headers)

    async with scripted(open_to_all(handler)) as registry, remotes.connect(at(registry)) as there:
        with pytest.raises(RemoteBroken, match="another part"):
            [piece async for piece in there.read_blob(DIGEST, len(BLOB), 7)]


# --- uploads that break ---------------------------------------------------------------------------------------


class Uploads:
    """Takes a blob, and breaks when told."""

    def __init__(self) -> None:
        self.arrived = bytearray()
        self.stored: bytes | None = None
        self.cut_after: list[int] = []
        self.forgets = False
        self.loses_answer = False
        self.cancelled = 0
        self.begun = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        location = {"Location": f"/v2/a/b/blobs/uploads/{self.begun}?state={len(self.arrived)}"}
        if request.method == "HEAD":
            return web.Response(status=404 if self.stored is None else 200)
        if request.method == "POST":
            self.begun += 1
            self.arrived.clear()
            return web.Response(status=202, headers={"Location": f"/v2/a/b/blobs/uploads/{self.begun}"})
        if request.method == "PATCH":
            begin = int(request.headers["Content-Range"].split("-")[0])
            assert begin == len(self.arrived)
            most = self.cut_after.pop(0) if self.cut_after else None
            async for piece in request.content.iter_any():
                self.arrived += piece
                if most is not None and len(self.arrived) >= most:
                    cut(request)
                    break
            location["Location"] += "0"
            return web.Response(status=202, headers=location)
        if request.method == "GET":
            if self.forgets:
                self.forgets = False
                return web.Response(status=404)
            return web.Response(status=204, headers={"Range": f"0-{max(0, len(self.arrived) - 1)}", **location})
        if request.method == "DELETE":
            self.cancelled += 1
            return web.Response(status=204)
        body = await request.read()
        if self.stored is not None:  # the upload has ended
            return web.Response(status=404)
        self.arrived += body
        if digest_of(bytes(self.arrived)) != request.query["digest"]:
            return web.json_response({"errors": [{"code": "DIGEST_INVALID"}]}, status=400)
        self.stored = bytes(self.arrived)
        if self.loses_answer:
            self.loses_answer = False
            cut(request)
        return web.Response(status=201)


@pytest.mark.parametrize("forgets", [False, True])
async def test_an_upload_goes_on_where_it_broke(remotes: Remotes, forgets: bool):
    """An upload that the remote does not know any more begins anew."""
    uploads = Uploads()
    uploads.cut_after, uploads.forgets = [100_000, 200_000], forgets
    offsets: list[int] = []

    def read(offset: int) -> AsyncIterator[bytes]:
        offsets.append(offset)
        return pieces_of(BLOB, 10_000)(offset)

    async with scripted(open_to_all(uploads)) as registry, remotes.connect(at(registry)) as there:
        await there.write_blob(DIGEST, len(BLOB), read)
    assert uploads.stored == BLOB
    assert uploads.begun == (2 if forgets else 1)
    assert len(offsets) == 3
    assert offsets[0] == 0
    assert offsets[2] > 0


@pytest.mark.parametrize("size", [1000, len(BLOB)])
async def test_an_answer_that_got_lost_is_no_harm(remotes: Remotes, size: int):
    uploads, blob = Uploads(), BLOB[:size]
    uploads.loses_answer = True
    async with scripted(open_to_all(uploads)) as registry, remotes.connect(at(registry)) as there:
        uploads.forgets = True
        await there.write_blob(digest_of(blob), size, pieces_of(blob))
    assert uploads.stored == blob
    assert uploads.begun == 1


async def test_what_cannot_be_read_here_is_not_the_remotes_fault(remotes: Remotes):
    class Broken(Exception):
        pass

    async def read(offset: int) -> AsyncIterator[bytes]:
        yield BLOB[:1000]
        raise Broken

    uploads = Uploads()
    async with scripted(open_to_all(uploads)) as registry, remotes.connect(at(registry)) as there:
        for size in (2000, len(BLOB)):
            with pytest.raises(Broken):
                await there.write_blob(DIGEST, size, read)
        for content in (BLOB[:-1], BLOB + b"?"):
            with pytest.raises(ValueError, match="other than"):
                await there.write_blob(DIGEST, len(BLOB), pieces_of(content))
    assert uploads.stored is None
    assert uploads.cancelled == 4


async def test_a_remote_that_takes_nothing(remotes: Remotes):
    """It is given up, in spite of the body that was not sent."""
    quick = Remotes(Outside(Addresses(["127.0.0.1/32"])), silence_seconds=1)  # the other answers come within it
    blob = bytes(10_000_000)

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            return web.Response(status=202, headers={"Location": "/v2/a/b/blobs/uploads/1"})
        if request.method == "GET":
            return web.Response(status=204, headers={"Range": "0-0", "Location": "/v2/a/b/blobs/uploads/1"})
        if request.method == "PATCH":
            await asyncio.sleep(600)
        return web.Response(status=204)

    async with scripted(open_to_all(handler)) as registry, quick.connect(at(registry)) as there:
        async with asyncio.timeout(60):
            with pytest.raises(RemoteUnreachable):
                await there.write_blob(digest_of(blob), len(blob), pieces_of(blob, 1_000_000))
        assert registry.count("PATCH", "uploads") == 4


async def test_a_wrong_digest_is_refused_once(remotes: Remotes):
    uploads = Uploads()
    async with scripted(open_to_all(uploads)) as registry, remotes.connect(at(registry)) as there:
        with pytest.raises(RemoteRefused, match="DIGEST_INVALID"):
            await there.write_blob("sha256:" + 64 * "0", len(BLOB), pieces_of(BLOB))
        assert (uploads.begun, uploads.cancelled) == (1, 1)


# --- manifests and lists --------------------------------------------------------------------------------------


async def test_manifests_that_are_not_what_they_should_be(remotes: Remotes):
    said: dict[str, str] = {}
    body = [MANIFEST]

    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=body[0], headers={"Content-Type": OCI_INDEX, **said})

    async with scripted(open_to_all(handler)) as registry, remotes.connect(at(registry)) as there:
        assert (await there.get_manifest("v1")).digest == digest_of(MANIFEST)  # that says nothing of the digest
        found = await there.head_manifest("v1")
        assert found is not None
        assert (found.digest, found.size) == (digest_of(MANIFEST), len(MANIFEST))
        assert (await there.get_manifest(digest_of(MANIFEST, "sha512"))).digest == digest_of(MANIFEST, "sha512")
        with pytest.raises(RemoteBroken, match="something else"):
            await there.get_manifest(DIGEST)
        said["Docker-Content-Digest"] = DIGEST
        with pytest.raises(RemoteBroken, match="something else"):
            await there.get_manifest("v1")
        with pytest.raises(RemoteBroken, match="for something else"):
            await there.put_manifest("v1", MANIFEST, OCI_MANIFEST)
        body[0] = b" " * (4 * 1024 * 1024 + 1)
        with pytest.raises(RemoteBroken, match="more than 4194304 bytes"):
            await there.get_manifest("v1")


async def test_lists_without_an_end(remotes: Remotes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(client, "_MOST_PAGES", 20)

    async def circle(request: web.Request) -> web.StreamResponse:
        link = '</v2/a/b/tags/list?n=1000&last=v1>; rel="next"'
        return web.json_response({"tags": ["v1"]}, headers={"Link": link})

    async def counted(request: web.Request) -> web.StreamResponse:
        last = int(request.query.get("last", "0")) + 1
        return web.json_response({"tags": None}, headers={"Link": f'<?last={last}>; rel="next"'})

    async def elsewhere(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"tags": []}, headers={"Link": '<http://127.0.0.1:1/v2/>; rel="next"'})

    async def huge(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=b" " * (8 * 1024 * 1024 + 1))

    async def no_list(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"tags": [1]})

    for handler, text in (
        (circle, "without an end"),
        (elsewhere, "another host"),
        (huge, "more than 8388608 bytes"),
        (no_list, "no list of tags"),
    ):
        async with scripted(open_to_all(handler)) as registry, remotes.connect(at(registry)) as there:
            with pytest.raises(RemoteBroken, match=text):
                [tag async for tag in there.tags()]
            assert len(registry.asked) <= 4

    async with scripted(open_to_all(counted)) as registry, remotes.connect(at(registry)) as there:
        with pytest.raises(RemoteBroken, match="without an end"):
            [tag async for tag in there.tags()]
        assert len(registry.asked) == 21


async def test_tags_of_many_pages(remotes: Remotes):
    names = [f"v{number:04}" for number in range(250)] + ["-no-tag", "so/neither"]

    async def handler(request: web.Request) -> web.StreamResponse:
        begin = names.index(request.query["last"]) + 1 if "last" in request.query else 0
        found = names[begin : begin + 100]
        headers = {"Link": f'</v2/a/b/tags/list?last={found[-1]}&n=100>; rel="next"'} if begin < 200 else {}
        return web.json_response({"name": "a/b", "tags": found}, headers=headers)

    async with scripted(open_to_all(handler)) as registry, remotes.connect(at(registry)) as there:
        assert [tag async for tag in there.tags()] == names[:250]


async def test_referrers_by_the_api(remotes: Remotes):
    referrer = {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 7, "artifactType": "application/x"}

    async def handler(request: web.Request) -> web.StreamResponse:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [referrer]}
        assert request.path == f"/v2/a/b/referrers/{digest_of(b'x')}"
        headers = {} if "page" in request.query else {"Link": '<?page=2>; rel="next"'}
        return web.json_response(index, content_type=OCI_INDEX, headers=headers)

    async with scripted(open_to_all(handler)) as registry, remotes.connect(at(registry)) as there:
        found = await there.referrers(digest_of(b"x"))
        assert [(one.digest, one.size, one.artifact_type) for one in found] == 2 * [(DIGEST, 7, "application/x")]


@pytest.mark.parametrize(
    ("status", "headers", "text"),
    [
        (404, {}, "is no registry"),
        (301, {"Location": "https://elsewhere.example/v2/"}, "at another address"),
        (401, {}, "a way that is not known"),
        (401, {"WWW-Authenticate": "Negotiate"}, "a way that is not known"),
        (500, {}, "answered 500"),
    ],
)
async def test_what_is_no_registry(remotes: Remotes, status: int, headers: dict[str, str], text: str):
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    async with scripted(handler) as registry, remotes.connect(at(registry)) as there:
        with pytest.raises(RemoteBroken, match=text):
            await there.permissions()


@pytest.mark.parametrize(
    "headers",
    [
        {"WWW-Authenticate": 'Bearer realm="https://[::1"'},
        {"WWW-Authenticate": "Bearer"},
        {"WWW-Authenticate": 'Bearer realm="file:///etc/passwd"'},
        {"WWW-Authenticate": 'Bearer realm="http://a b/"'},
    ],
    ids=str,
)
async def test_challenges_that_lead_nowhere(remotes: Remotes, headers: dict[str, str]):
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers=headers)

    async with scripted(handler) as registry, remotes.connect(at(registry)) as there:
        assert await there.kind() == "registry"
        with pytest.raises(RemoteBroken, match="no token service"):
            await there.permissions()


async def test_answers_that_lead_nowhere(remotes: Remotes):
    """Whatever goes wrong by them is an error of the remote."""
    odd = [
        "https://[::1",
        "//",
        "http://:80/",
        "\x00",
        "x" * 5000,
        "?" * 10,
        "http://127.0.0.1:99999/",
        "javascript:x",
    ]
    said: dict[str, str] = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("list"):
            return web.json_response({"tags": []}, headers={"Link": f'<{said["place"]}>; rel="next"'})
        status = 202 if request.method in {"POST", "PATCH"} else 307 if request.method == "GET" else 200
        headers = {"Location": said["place"], "Docker-Content-Digest": said["place"]}
        return web.Response(status=status, headers=headers)

    async with scripted(open_to_all(handler)) as registry, remotes.connect(at(registry)) as there:
        for said["place"] in odd:
            for work in (
                read_all(there),
                there.get_manifest("v1"),
                there.mount_blob(DIGEST, "a/c"),
                there.write_blob(DIGEST, len(BLOB), pieces_of(BLOB)),
                there.referrers(DIGEST),
            ):
                with contextlib.suppress(RemoteError):  # some are places here
                    await work
            with contextlib.suppress(RemoteError):
                [tag async for tag in there.tags()]
        assert len(registry.asked) > 6 * len(odd)


async def test_what_does_not_speak_http(remotes: Remotes):
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    port = free_port()  # which nobody else is given when the server has ended
    server = await asyncio.start_server(talk, "127.0.0.1", port)
    async with server, remotes.connect(Remote(host=f"http://127.0.0.1:{port}", repository="a/b")) as there:
        with pytest.raises(RemoteUnreachable):
            await there.permissions()
    async with remotes.connect(Remote(host=f"http://127.0.0.1:{port}", repository="a/b")) as there:
        with pytest.raises(RemoteUnreachable, match="Connection refused"):
            await there.permissions()
