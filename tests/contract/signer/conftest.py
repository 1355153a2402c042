"""Signers: in this process, and behind gRPC."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from tests.support.signer import Pair, make_pair, stock_signer

from dtr.db import Database, open_database
from dtr.signer import LocalSigner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("signer-tls"))


@pytest.fixture(scope="session")
def stock(tmp_path_factory, pair: Pair) -> Iterator[int]:
    """The port of a stock notary-signer."""
    running = stock_signer(tmp_path_factory.mktemp("stock"), pair).start()
    yield running.port
    running.kill()


@asynccontextmanager
async def serving(signer: LocalSigner, pair: Pair, port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """The port of our service over a signer."""
    from dtr.signer.service import Credentials, Service

    assert pair.client.authority is not None
    credentials = Credentials(pair.server.chain, pair.server.key, pair.client.authority)
    service = Service(signer, f"{host}:{port}", credentials)
    await service.start()
    try:
        yield service.port
    finally:
        await service.stop(0)


@pytest.fixture
def passphrases(tmp_path: Path) -> Path:
    """The file of passphrases, not made yet."""
    return tmp_path / "signer" / "passphrases"


@pytest.fixture
def local(database: Database, passphrases: Path) -> LocalSigner:
    """The signer in this process, on both databases."""
    return LocalSigner(database, passphrases)


@pytest.fixture(params=["local-sqlite", "local-postgresql", "remote", "stock"])
async def signer(request, make_database_url, passphrases: Path, pair: Pair):
    """Every implementation."""
    kind = request.param
    async with AsyncExitStack() as stack:
        if kind == "stock":
            remote = pair.remote(request.getfixturevalue("stock"))
        else:
            database = open_database(await make_database_url("postgresql" if "postgresql" in kind else "sqlite"))
            stack.push_async_callback(database.close)
            local = LocalSigner(database, passphrases)
            if kind != "remote":
                yield local
                return
            remote = pair.remote(await stack.enter_async_context(serving(local, pair)))
        stack.push_async_callback(remote.close)
        yield remote
