"""When tokens for Google Cloud Storage are asked for."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

import pytest

from dtr.storage.errors import AccessDenied, StorageUnavailable
from dtr.storage.gcs_auth import Tokens


class Service:
    """A metadata server whose answers the test says; `web` is the way to it."""

    def __init__(self):
        self.asked = 0
        self.status, self.answer = 200, None

    async def send(self, method, url, headers, data=b""):
        assert (method, url, data) == (
            "GET",
            "http://machine/computeMetadata/v1/instance/service-accounts/default/token",
            b"",
        )
        assert await headers() == {"Metadata-Flavor": "Google"}
        self.asked += 1
        await asyncio.sleep(0)
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def read(self, _):
        answer = {"access_token": f"token {self.asked}", "expires_in": 3600, "token_type": "Bearer"}
        return json.dumps(answer).encode() if self.answer is None else self.answer


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=1_000_000.0)
    monkeypatch.setattr("dtr.storage.gcs_auth.time", SimpleNamespace(time=lambda: now.time))
    return now


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def tokens(service):
    return Tokens(None, service, "http://machine")


async def test_a_token_is_used_until_shortly_before_its_end(tokens, service, clock):
    assert await asyncio.gather(*(tokens.get() for _ in range(5))) == ["token 1"] * 5
    clock.time += 3600 - 241
    assert await tokens.get() == "token 1"
    clock.time += 2
    assert await asyncio.gather(*(tokens.get() for _ in range(5))) == ["token 2"] * 5
    assert service.asked == 2


async def test_a_token_that_is_still_good_is_used_while_there_is_no_new_one(tokens, service, clock):
    await tokens.get()
    clock.time += 3500
    service.status, service.answer = 503, b"later"
    assert await tokens.get() == "token 1"
    clock.time += 100
    with pytest.raises(StorageUnavailable, match="it answers 503"):
        await tokens.get()
    service.status, service.answer = 200, None
    assert await tokens.get() == f"token {service.asked}"


async def test_a_token_that_the_store_does_not_take_is_forgotten_once(tokens, service, clock):
    old = await tokens.get()
    tokens.forget(old)
    new = await tokens.get()
    tokens.forget(old)  # whoever comes late
    assert await tokens.get() == new
    assert service.asked == 2


@pytest.mark.parametrize(
    ("status", "answer", "error", "reason"),
    [
        (400, b'{"error": "invalid_grant", "error_description": "Invalid JWT"}', AccessDenied, "Invalid JWT"),
        (403, b'{"error": "forbidden"}', AccessDenied, "forbidden"),
        (401, b"\xff", AccessDenied, "it answers 401"),
        (404, b"<html>", StorageUnavailable, "it answers 404"),
        (200, b"<html>", StorageUnavailable, "holds no token"),
        (200, b'{"access_token": 5}', StorageUnavailable, "holds no token"),
        (200, b"\xff", StorageUnavailable, "holds no token"),
    ],
)
async def test_an_answer_without_a_token_is_an_error(tokens, service, status, answer, error, reason):
    service.status, service.answer = status, answer
    with pytest.raises(error, match=reason):
        await tokens.get()
