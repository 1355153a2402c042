"""Other registries, and the client that talks to them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.support.distribution import DockerRegistry

from dtr.outbound import Addresses, Outside
from dtr.pki import Certificate, ensure_certificate
from dtr.remotes import Remotes
from dtr.remotes import upload as upload_module


def pieces_of(content: bytes, size: int = 100_000) -> Callable[[int], AsyncIterator[bytes]]:
    """What `write_blob` reads."""

    async def read(offset: int) -> AsyncIterator[bytes]:
        for begin in range(offset, len(content), size):
            yield content[begin : begin + size]
            await asyncio.sleep(0)

    return read


@pytest.fixture
def remotes() -> Remotes:
    """For the loopback network; nothing that is said here is late: tests of silence have their own."""
    return Remotes(Outside(Addresses(["127.0.0.1/32"])), user_agent="dtr/test", silence_seconds=30)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is so at once."""
    monkeypatch.setattr(upload_module, "_PAUSE", 0.01)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return ensure_certificate(tmp_path_factory.mktemp("certificate"), [])


@pytest.fixture(scope="module")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """With TLS by its own authority, and a user."""
    directory: Path = tmp_path_factory.mktemp("docker-registry")
    registry = DockerRegistry(directory, tls=True, users=True)
    try:
        yield registry.start()
    finally:
        registry.kill()
