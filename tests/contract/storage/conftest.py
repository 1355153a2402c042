"""The kinds of storage that the contract suite runs on. A new one is a function here, and its name in `SERVED`."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.azurite import azure_settings
from tests.support.gcs import gcs_settings
from tests.support.storage import Store, s3_settings
from tests.support.swift import swift_settings

from dtr.pki import Certificate, ensure_certificate
from dtr.storage import GCS, S3, Azure, Driver, FileSystem, Memory, Swift


def memory(_: pytest.FixtureRequest, __: Path) -> Store:
    shared = Memory()
    return Store(partial(Memory, shared))


def filesystem(_: pytest.FixtureRequest, path: Path) -> Store:
    return Store(partial(FileSystem, path))


def s3(request: pytest.FixtureRequest, path: Path) -> Store:
    server = request.getfixturevalue("s3_server")

    def open_driver(*, verify: bool = True, ca_bundle: Path | None = None, **changes: object) -> Driver:
        given = {"root_directory": f"/test/{path.name}/", "verify": str(ca_bundle) if ca_bundle else verify}
        return S3(s3_settings(server, **{**given, **changes}))

    return Store(
        open_driver,
        server,
        wrong_keys=({"secret_key": "wrong"}, {"access_key": "nobody"}),
        missing_place={"bucket": "no-such-bucket"},
    )


def azure(request: pytest.FixtureRequest, path: Path) -> Store:
    server = request.getfixturevalue("azure_server")

    def open_driver(*, verify: bool = True, ca_bundle: Path | None = None, **changes: object) -> Driver:
        given = {"root_directory": f"/test/{path.name}/", "verify": str(ca_bundle) if ca_bundle else verify}
        return Azure(azure_settings(server, **{**given, **changes}))

    return Store(
        open_driver,
        server,
        wrong_keys=({"account_key": "d3Jvbmc="}, {"account": "nobody"}, {"account_key": "", "sas_token": "sig=x"}),
        missing_place={"container": "no-such-container"},
        missing_name="no-such-container",
        signed_methods=frozenset({"GET", "HEAD"}),
    )


def swift(request: pytest.FixtureRequest, path: Path) -> Store:
    server = request.getfixturevalue("swift_server")

    def open_driver(*, verify: bool = True, ca_bundle: Path | None = None, **changes: object) -> Driver:
        given = {"root_directory": f"/test/{path.name}/", "verify": str(ca_bundle) if ca_bundle else verify}
        return Swift(swift_settings(server, **{**given, **changes}))

    return Store(
        open_driver,
        server,
        wrong_keys=({"password": "wrong"}, {"username": "nobody"}, {"region": "south"}),
        missing_place={"container": "no-such-container"},
        missing_name="no-such-container",
        signed_methods=frozenset({"GET", "HEAD"}),
    )


def gcs(request: pytest.FixtureRequest, path: Path) -> Store:
    server = request.getfixturevalue("gcs_server")

    def open_driver(*, verify: bool = True, ca_bundle: Path | None = None, **changes: Any) -> Driver:
        given = {"root_directory": f"/test/{path.name}/", "verify": str(ca_bundle) if ca_bundle else verify}
        return GCS(gcs_settings(server, **{**given, **changes}))

    return Store(
        open_driver,
        server,
        wrong_keys=({"key": server.key("unknown")}, {"key": server.key(client_email="nobody@nowhere")}),
        missing_place={"bucket": "no-such-bucket"},
    )


ALONE: dict[str, Callable[[pytest.FixtureRequest, Path], Store]] = {
    "memory": memory,
    "filesystem": filesystem,
}
SERVED: dict[str, Callable[[pytest.FixtureRequest, Path], Store]] = {
    "s3": s3,
    "azure": azure,
    "gcs": gcs,
    "swift": swift,
}
"""Those that talk to a server."""


@pytest.fixture(params=[*ALONE, *SERVED])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each kind of storage."""
    made = {**ALONE, **SERVED}[request.param](request, tmp_path)
    yield made
    await made.close()


@pytest.fixture(params=SERVED)
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each kind of storage that has a server, on which things may happen; it must be up again at the end."""
    made = SERVED[request.param](request, tmp_path)
    yield made
    await made.close()


@pytest.fixture(scope="session")
def own_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for ``localhost`` and ``storage.test``, by an authority that nobody knows."""
    return ensure_certificate(tmp_path_factory.mktemp("tls"), ["storage.test"])


@pytest.fixture(scope="session")
def tls(own_certificate: Certificate) -> ssl.SSLContext:
    """For a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_certificate.chain, own_certificate.key)
    return context
