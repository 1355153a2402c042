"""When access tokens for a cloud's storage are asked for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from dtr.storage.access_tokens import AccessTokens, Granted
from dtr.storage.errors import AccessDenied, StorageUnavailable


class Service:
    """A token service whose tokens are good for an hour, unless it fails."""

    def __init__(self):
        self.asked = 0
        self.life = 3600.0
        self.failure: Exception | None = None

    async def ask(self) -> Granted:
        self.asked += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return Granted(f"token {self.asked}", self.life)


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=1_000_000.0)
    monkeypatch.setattr("dtr.storage.access_tokens.time", SimpleNamespace(time=lambda: now.time))
    return now


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def tokens(service, clock):
    return AccessTokens(service.ask)


async def test_a_token_is_used_until_shortly_before_its_end(tokens, service, clock):
    assert await asyncio.gather(*(tokens.get() for _ in range(5))) == ["token 1"] * 5
    clock.time += 3600 - 241
    assert await tokens.get() == "token 1"
    clock.time += 2
    assert await asyncio.gather(*(tokens.get() for _ in range(5))) == ["token 2"] * 5
    assert service.asked == 2


async def test_a_token_of_a_short_life_is_used_for_most_of_it(tokens, service, clock):
    service.life = 100
    await tokens.get()
    clock.time += 74
    assert await tokens.get() == "token 1"
    clock.time += 2
    assert await tokens.get() == "token 2"


@pytest.mark.parametrize("failure", [StorageUnavailable("not now"), AccessDenied("not you")])
async def test_a_token_that_is_still_good_is_used_while_the_service_is_away(tokens, service, clock, failure):
    await tokens.get()
    clock.time += 3500
    service.failure = failure
    if isinstance(failure, StorageUnavailable):
        assert await tokens.get() == "token 1"
        clock.time += 100
    with pytest.raises(type(failure), match=str(failure)):
        await tokens.get()
    service.failure = None
    assert await tokens.get() == f"token {service.asked}"


async def test_a_token_that_the_store_does_not_take_is_forgotten_once(tokens, service):
    old = await tokens.get()
    tokens.forget(old)
    new = await tokens.get()
    tokens.forget(old)  # whoever comes late
    assert await tokens.get() == new
    assert service.asked == 2
