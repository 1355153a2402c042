"""A token service on each database, with people and repositories."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.support.backends import BACKENDS, run_server
from tests.support.client import Answer, Client
from tests.support.server import PASSWORD, Server

from dtr.app import Application


@pytest.fixture(scope="session", params=BACKENDS[:2])
def garant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """
    A server with two workers; ada owns ada/tools and reads org/public and org/readable.

    It believes `X-Forwarded-For`, so that tests of wrong log-ins can come from addresses of their own.
    """
    with run_server(
        request.param, request, tmp_path_factory, {"trusted_proxies": "127.0.0.1/32"}, workers=2
    ) as running:

        async def fill(application: Application) -> None:
            for user in ("ada", "bob"):
                await application.accounts.create_user(user, PASSWORD)
            await application.accounts.create_organization("org")

        running.do(fill)
        running.make_repository("ada/tools")
        running.make_repository("org/public", visibility="public")
        running.make_repository("org/readable")
        running.make_repository("org/hidden")
        running.grant("org/team", "read-only", users=("ada",), repository="org/readable")
        yield running


@pytest.fixture
def elsewhere() -> dict[str, str]:
    """Headers of a request from an address of its own: wrong log-ins of one test slow down no other."""
    return {"X-Forwarded-For": str(ipaddress.IPv4Address(random.randrange(1 << 24, 1 << 31)))}


@pytest.fixture
def ask(garant: Server, elsewhere: dict[str, str]) -> Iterator[Callable[..., Answer]]:
    """``ask(*scopes, user="ada", **parameters)``: GET a token."""
    clients: dict[str | None, Client] = {}

    def get(*scopes: str, user: str | None = "ada", headers: dict[str, str] | None = None, **more: str) -> Answer:
        client = clients.setdefault(user, Client(garant, user))
        query = urlencode([("service", "dtr"), *(("scope", scope) for scope in scopes), *more.items()])
        sent = {} if user is None else {"Authorization": client.basic()}
        return client.send("GET", f"/auth/token?{query}", headers={**sent, **elsewhere, **(headers or {})})

    yield get
    for client in clients.values():
        client.close()


@pytest.fixture
def post(garant: Server, elsewhere: dict[str, str]) -> Iterator[Callable[..., Answer]]:
    """``post(grant_type=…, …)``: POST a form for a token."""
    client = Client(garant, None)

    def send(_scopes: tuple[str, ...] = (), **fields: Any) -> Answer:
        form = urlencode([*fields.items(), *(("scope", scope) for scope in _scopes)]).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", **elsewhere}
        return client.send("POST", "/auth/token", form, headers)

    yield send
    client.close()
