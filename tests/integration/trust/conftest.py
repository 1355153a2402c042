"""A server with people and repositories, whose changefeed lists changes at once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from tests.support.backends import run_server
from tests.support.server import PASSWORD, Server
from tests.support.trust import Trust

from dtr.accounts import Level
from dtr.app import Application
from dtr.oci import parse_repository_name
from dtr.registry import Settings

PEOPLE = ("owner", "reader", "writer", "keeper", "stranger", "auditor")
LEVELS = {"reader": Level.READ, "writer": Level.WRITE, "keeper": Level.ADMIN}
SETTINGS = {
    "trust.changes_after_seconds": 0,
    "trust.names": "old.example,old.example:8443",
    "trust.update_limit": 2_000_000,
}


@pytest.fixture(scope="session")
def notary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """
    A server with two workers, over the database that the parameter names: each module says which.

    Of the organisation `org`, owner owns all, and reader, writer and keeper read, write and administer the
    repositories that tests make with `make_path`. The auditor sees everything, the stranger what everybody does.
    """
    with run_server(request.param, request, tmp_path_factory, SETTINGS, workers=2) as running:

        async def fill(application: Application) -> None:
            accounts = application.accounts
            for user in PEOPLE:
                await accounts.create_user(user, PASSWORD, is_auditor=user == "auditor")
            await accounts.create_organization("org")
            await accounts.organizations.put_member("org", "owner", is_admin=True)

        running.do(fill)
        yield running


@pytest.fixture
def make_path(notary: Server) -> Callable[..., str]:
    """``make_path(visibility="private")``: the path of a new repository of the organisation."""

    def make(visibility: Literal["public", "private"] = "private") -> str:
        path = f"org/r{uuid.uuid4().hex[:12]}"

        async def work(application: Application) -> None:
            await application.repositories.create(parse_repository_name(path), Settings(visibility=visibility))
            grants = application.accounts.grants
            place = await grants.on(path)
            for user, level in LEVELS.items():
                await grants.set_user(place, user, level)

        notary.do(work)
        return path

    return make


@pytest.fixture
def trust(notary: Server) -> Trust:
    """The administrator."""
    return Trust(notary)
