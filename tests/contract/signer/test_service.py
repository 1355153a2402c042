"""The signer as a service: who is let in, what its calls answer on the wire, and what is when it is not there."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import time
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode, aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tests.contract.signer.conftest import serving
from tests.support.notary import Publisher, walk
from tests.support.ports import free_port
from tests.support.proxy import proxy
from tests.support.signer import Pair, dtr_signer, make_pair, stock_server
from tests.support.stopping import stop

from dtr import serve_signer
from dtr.config import load
from dtr.db import open_database
from dtr.signer import LocalSigner, RemoteSigner, SignerFailed, SignerUnavailable
from dtr.signer.proto.signer_pb2 import (
    CreateKeyRequest,
    GetKeyInfoResponse,
    KeyID,
    PublicKey,
    Signature,
    SignatureRequest,
    Void,
)
from dtr.signer.service import Credentials, Service

CONTENT = b'{"_type":"Timestamp","version":1}'


@pytest.fixture
async def local(make_database_url, passphrases: Path):
    database = open_database(await make_database_url("sqlite"))
    yield LocalSigner(database, passphrases)
    await database.close()


@pytest.fixture
async def port(local: LocalSigner, pair: Pair):
    async with serving(local, pair) as port:
        yield port


@asynccontextmanager
async def connected(pair: Pair, port: int):
    """A channel without our client."""
    assert pair.server.authority is not None
    credentials = grpc.ssl_channel_credentials(
        pair.server.authority.read_bytes(), pair.client.key.read_bytes(), pair.client.chain.read_bytes()
    )
    async with aio.secure_channel(f"localhost:{port}", credentials) as channel:
        yield channel


async def ask(channel: aio.Channel, path: str, request, answer):
    """The answer, or the status code of the error."""
    call = channel.unary_unary(
        path, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
    )
    try:
        return await call(request, timeout=60)
    except aio.AioRpcError as error:
        return error.code()


async def test_calls_and_status_codes(pair: Pair, port: int, local: LocalSigner, passphrases: Path):
    """Section 5.1, to the letter."""
    async with connected(pair, port) as channel:
        request = CreateKeyRequest(algorithm="ed25519", gun="host/ada/app", role="timestamp")
        made = await ask(channel, "/proto.KeyManagement/CreateKey", request, PublicKey)
        key_id = made.keyInfo.keyID
        assert (made.keyInfo.algorithm.algorithm, len(made.publicKey)) == ("ed25519", 32)
        found = await ask(channel, "/proto.KeyManagement/GetKeyInfo", key_id, GetKeyInfoResponse)
        assert (found.keyInfo, found.publicKey, found.role) == (made.keyInfo, made.publicKey, "timestamp")
        signing = SignatureRequest(keyID=key_id, content=CONTENT)
        signed = await ask(channel, "/proto.Signer/Sign", signing, Signature)
        assert (signed.keyInfo, signed.algorithm.algorithm, len(signed.content)) == (made.keyInfo, "eddsa", 64)
        unknown = KeyID(ID="0" * 64)
        codes = [
            await ask(channel, "/proto.KeyManagement/GetKeyInfo", unknown, GetKeyInfoResponse),
            await ask(channel, "/proto.Signer/Sign", SignatureRequest(keyID=unknown, content=CONTENT), Signature),
            await ask(channel, "/proto.Signer/Sign", SignatureRequest(content=CONTENT), Signature),
            await ask(channel, "/proto.Signer/Sign", SignatureRequest(keyID=key_id, content=b"{}"), Signature),
            await ask(
                channel,
                "/proto.KeyManagement/CreateKey",
                CreateKeyRequest(algorithm="rsa", gun="host/ada/app", role="timestamp"),
                PublicKey,
            ),
            await ask(channel, "/proto.Signer/Other", unknown, Void),
        ]
        assert codes == [
            StatusCode.NOT_FOUND,
            StatusCode.NOT_FOUND,
            StatusCode.NOT_FOUND,
            StatusCode.INVALID_ARGUMENT,
            StatusCode.UNKNOWN,
            StatusCode.UNIMPLEMENTED,
        ]
        for one in (unknown, key_id, key_id):
            assert await ask(channel, "/proto.KeyManagement/DeleteKey", one, Void) == Void()
        assert await ask(channel, "/proto.Signer/Sign", signing, Signature) is StatusCode.NOT_FOUND
        passphrases.write_text("broken")
        assert await ask(channel, "/proto.KeyManagement/CreateKey", request, PublicKey) is StatusCode.INTERNAL


async def test_what_is_no_request_harms_nothing(pair: Pair, port: int, caplog):
    async with connected(pair, port) as channel:
        call = channel.unary_unary("/proto.Signer/Sign")
        answers = []
        for body in (
            b"\xff" * 20,
            b"\x0a\xff\xff\xff\xff\x0f",
            b"\x12\x03abc",
            b"\x00",
            b"\x12" + b"\xff" * 9,
            b"a" * 5_000_000,
        ):
            try:
                await call(body, timeout=60)
            except aio.AioRpcError as error:
                answers.append(error.code())
        assert len(answers) == 6
        assert set(answers) <= {StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.RESOURCE_EXHAUSTED}
    remote = pair.remote(port)
    await remote.check()
    await remote.close()
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


async def test_its_health(pair: Pair, port: int, passphrases: Path):
    path = "/grpc.health.v1.Health/Check"
    names = ("", "grpc.health.v1.Health.KeyManagement", "grpc.health.v1.Health.Signer")
    remote = pair.remote(port)
    async with connected(pair, port) as channel:
        for serves in (True, False):
            for name in names:
                answer = await ask(channel, path, HealthCheckRequest(service=name), HealthCheckResponse)
                expected = HealthCheckResponse.SERVING if serves else HealthCheckResponse.NOT_SERVING
                assert answer.status == expected
            passphrases.parent.mkdir(exist_ok=True)
            passphrases.write_text("broken")
        answer = await ask(channel, path, HealthCheckRequest(service="other"), HealthCheckResponse)
        assert answer is StatusCode.NOT_FOUND
    with pytest.raises(SignerUnavailable):
        await remote.check()
    with pytest.raises(SignerFailed):
        await remote.create_key("host/ada/app", "timestamp", "ecdsa")
    await remote.close()


@pytest.fixture
async def elsewhere(local: LocalSigner, pair: Pair):
    """The port of a signer on an address that its certificate is not for."""
    async with serving(local, pair, host="127.0.0.2") as port:
        yield port


async def test_only_those_with_the_right_certificate_get_in(pair: Pair, port: int, elsewhere: int, tmp_path: Path):
    """And the signer has to be the right one, too; what is wrong costs no more than a moment."""
    other = make_pair(tmp_path / "other")
    ca, foreign_ca = pair.server.authority, other.server.authority
    assert ca is not None
    assert foreign_ca is not None
    wrong = {
        "by another authority": RemoteSigner(
            f"localhost:{port}", ca=ca, certificate=other.client.chain, key=other.client.key
        ),
        "for servers": RemoteSigner(
            f"localhost:{port}", ca=ca, certificate=pair.server.chain, key=pair.server.key
        ),
        "the signer is another's": RemoteSigner(
            f"localhost:{port}", ca=foreign_ca, certificate=pair.client.chain, key=pair.client.key
        ),
        "of another name": RemoteSigner(
            f"127.0.0.2:{elsewhere}", ca=ca, certificate=pair.client.chain, key=pair.client.key
        ),
        "missing": RemoteSigner(
            f"localhost:{port}", ca=ca, certificate=tmp_path / "none.pem", key=pair.client.key
        ),
    }
    for what, remote in wrong.items():
        begin = time.monotonic()
        with pytest.raises(SignerUnavailable):
            await remote.create_key("host/ada/app", "timestamp", "ecdsa")
        assert time.monotonic() - begin < 15, what
        await remote.close()
    # Without any certificate, and without TLS.
    async with aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(ca.read_bytes())) as channel:
        assert await ask(channel, "/proto.KeyManagement/DeleteKey", KeyID(), Void) is StatusCode.UNAVAILABLE
    async with aio.insecure_channel(f"localhost:{port}") as channel:
        assert await ask(channel, "/proto.KeyManagement/DeleteKey", KeyID(), Void) is StatusCode.UNAVAILABLE
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pair.client.chain, pair.client.key)
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    writer.close()
    right = pair.remote(port)
    assert await right.create_key("host/ada/app", "timestamp", "ecdsa")
    await right.close()


async def test_certificates_that_were_renewed_are_used(tmp_path: Path, local: LocalSigner):
    """By the signer for the next connection, and by its client when those that it had do no longer."""
    directory = tmp_path / "tls"
    pair = make_pair(directory)
    port = free_port()
    remote = pair.remote(port)
    async with serving(local, pair, port):
        key = await remote.create_key("host/ada/app", "timestamp", "ecdsa")
        shutil.rmtree(directory)
        make_pair(directory)  # by another authority
        fresh = pair.remote(port)
        assert await fresh.find_key(key.id) == key
        await fresh.close()
        assert await remote.find_key(key.id) == key  # its connection goes on
    async with serving(local, pair, port):
        assert await remote.find_key(key.id) == key
    await remote.close()


async def test_what_is_being_signed_when_it_ends_is_signed(local: LocalSigner, pair: Pair, monkeypatch):
    key = await local.create_key("host/ada/app", "timestamp", "ecdsa")
    begun, sign = asyncio.Event(), local.sign

    async def slowly(key_id: str, content: bytes):
        begun.set()
        await asyncio.sleep(0.5)
        return await sign(key_id, content)

    monkeypatch.setattr(local, "sign", slowly)
    credentials = Credentials(pair.server.chain, pair.server.key, pair.client.authority)
    service = Service(local, "127.0.0.1:0", credentials)
    await service.start()
    remote = pair.remote(service.port)
    signing = asyncio.create_task(remote.sign(key.id, CONTENT))
    await begun.wait()
    stopping = asyncio.create_task(service.stop(10))
    assert key.verifies("ecdsa", (await signing).content, CONTENT)
    await stopping
    with pytest.raises(SignerUnavailable):
        await remote.sign(key.id, CONTENT)
    await remote.close()


async def test_a_signer_far_away_is_reached(pair: Pair, port: int):
    """Connecting takes some ways to and fro: they may take as long as a call."""

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            await asyncio.sleep(0.15)
            writer.write(piece)

    async with proxy(port, requests=far, answers=far) as there:
        remote = pair.remote(there)
        await remote.check()
        await remote.close()


async def test_a_signer_that_is_killed_stopped_and_started_again(pair: Pair, tmp_path: Path):
    """Whoever asks is told in time; what the signer had, it has."""
    running = dtr_signer(tmp_path / "signer", pair).start()
    remote = pair.remote(running.port)
    try:
        key = await remote.create_key("localhost/ada/app", "timestamp", "ecdsa")
        await remote.sign(key.id, CONTENT)
        stop(running.pid)
        usual, remote._deadline = remote._deadline, 1.5
        begin = time.monotonic()
        with pytest.raises(SignerUnavailable, match="does not answer"):
            await remote.sign(key.id, CONTENT)
        assert 1 < time.monotonic() - begin < 10
        os.kill(running.pid, signal.SIGCONT)
        remote._deadline = usual
        assert (await remote.sign(key.id, CONTENT)).key_id == key.id
        running.kill()
        begin = time.monotonic()
        for asked in (remote.sign(key.id, CONTENT), remote.find_key(key.id), remote.check()):
            with pytest.raises(SignerUnavailable):
                await asked
        assert time.monotonic() - begin < 15
        running.start()
        until = time.monotonic() + 60
        while True:
            try:
                assert await remote.find_key(key.id) == key
                break
            except SignerUnavailable:
                assert time.monotonic() < until
                await asyncio.sleep(0.1)
        assert (await remote.sign(key.id, CONTENT)).key_id == key.id
        assert running.stop() == 0
        log = running.log_file.read_text()
        assert '"event":"signer answered"' in log
        assert key.id in log
    finally:
        await remote.close()
        running.kill()


def test_it_does_not_start_on_what_it_cannot_use(pair: Pair, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(serve_signer.logs, "configure", lambda *_: None)
    (tmp_path / "signer.passphrases").write_text("broken\n")
    taken = socket.create_server(("127.0.0.1", 0))
    usual = {
        "DTR_DATA_DIR": str(tmp_path),
        "DTR_SIGNER__ADDRESS": f"127.0.0.1:{free_port()}",
        "DTR_SIGNER__CERTIFICATE": str(pair.server.chain),
        "DTR_SIGNER__KEY": str(pair.server.key),
        "DTR_SIGNER__CLIENT_CA": str(pair.client.authority),
        "DTR_SIGNER__PASSPHRASE_FILE": str(tmp_path / "other"),
    }
    for environment, reason in (
        ({"DTR_SIGNER__PASSPHRASE_FILE": str(tmp_path / "signer.passphrases")}, "signer.passphrases, line 1"),
        ({"DTR_DATABASE__URL": f"postgresql://nobody@127.0.0.1:{free_port()}/none"}, "the signer's database"),
        ({"DTR_SIGNER__KEY": str(pair.client.key)}, "KEY_VALUES_MISMATCH"),
        ({"DTR_SIGNER__CLIENT_CA": str(tmp_path / "none.pem")}, "none.pem: No such file"),
        ({"DTR_SIGNER__ADDRESS": f"127.0.0.1:{taken.getsockname()[1]}"}, "the address is taken"),
    ):
        with pytest.raises(serve_signer.SignerNotStarted, match=reason):
            serve_signer.serve(load(None, usual | environment, {}).settings)
    taken.close()


@pytest.mark.parametrize("algorithm", ["ecdsa", "ed25519"])
async def test_a_stock_notary_server_uses_our_signer(
    pair: Pair, port: int, local: LocalSigner, tmp_path: Path, algorithm: str
):
    """Keys are ours, and snapshot and timestamp of a collection are signed by them, as a client verifies."""
    import aiohttp

    running = await asyncio.to_thread(stock_server(tmp_path / "server", pair, port, algorithm).start)
    gun = "localhost:5000/ada/app"
    base = f"http://127.0.0.1:{running.port}/v2/{gun}/_trust/tuf"
    try:
        async with aiohttp.ClientSession() as session:
            keys = {}
            for role in ("timestamp", "snapshot"):
                async with session.get(f"{base}/{role}.key") as answer:
                    assert answer.status == 200, running.log_file.read_text()
                    keys[role] = await answer.json(content_type=None)
            publisher = Publisher(gun, keys["timestamp"], keys["snapshot"])
            form = aiohttp.FormData(quote_fields=False)
            for role, content in publisher.first({"1": (f"sha256:{'ab' * 32}", 400)}).items():
                form.add_field("files", content, filename=role, content_type="application/octet-stream")
            async with session.post(f"{base}/", data=form) as answer:
                assert answer.status == 200, await answer.text()
            files = dict(publisher.files)
            for role in ("timestamp", "snapshot"):
                async with session.get(f"{base}/{role}.json") as answer:
                    assert answer.status == 200
                    files[role] = await answer.read()
            async with session.get(f"http://127.0.0.1:{running.port}/_notary_server/health") as answer:
                assert (answer.status, await answer.text()) == (200, "{}")
    finally:
        running.kill()
    assert walk(gun, files) == {"targets": {"1": f"sha256:{'ab' * 32}"}}
    for role, key in keys.items():
        assert key["keytype"] == algorithm
        found = [await local.create_key(gun, role, algorithm)]
        assert found[0].to_json() != key  # that one signed, and is no pending one any more
