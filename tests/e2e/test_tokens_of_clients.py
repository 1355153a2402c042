"""Docker with access tokens, robots and grants that change: what a log-in is good for, and when that ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from tests.support.api import Api
from tests.support.client import Client
from tests.support.images import Image, make_image
from tests.support.server import PASSWORD, Server

from dtr.accounts import Action, Level, TokenScope, token_id

if TYPE_CHECKING:
    from tests.support.engine import Docker

    from dtr.app import Application

DENIED = "requested access to the resource is denied"
WRONG = "unauthorized: the user name or the password is not right"

Grant = Callable[[str, str, Level], None]

pytestmark = pytest.mark.usefixtures("world")


@pytest.fixture(scope="module")
def image() -> Image:
    return make_image(docker=True)


@pytest.fixture(scope="module")
def world(server: Server, image: Image) -> None:
    """ada, who owns ada/app and ada/lib with an image v1 in each; bob; acme/app, and the robot acme+ci."""

    async def fill(application: Application) -> None:
        accounts = application.accounts
        for name in ("ada", "bob"):
            await accounts.create_user(name, PASSWORD)
        await accounts.create_organization("acme")
        await accounts.robots.create(await accounts.get("acme"), "ci")

    server.do(fill)
    for path in ("ada/app", "ada/lib", "acme/app"):
        server.make_repository(path)
        Client(server).push(path, image, "v1")


@pytest.fixture
def token(server: Server) -> Callable[..., str]:
    """``token(user="ada", …)``: a new access token."""

    def make(user: str = "ada", **how: object) -> str:
        return server.do(lambda application: application.accounts.tokens.create(user, "docker", **how))

    return make


@pytest.fixture
def grant(server: Server) -> Grant:
    """``grant(user, path, level)``."""

    def change(user: str, path: str, level: Level) -> None:
        async def work(application: Application) -> None:
            grants = application.accounts.grants
            await grants.set_user(await grants.on(path), user, level)

        server.do(work)

    return change


def pull(docker: Docker, name: str, *, refused: str = "") -> None:
    """The engine gets the image from the registry, or is `refused` in these words."""
    docker("image", "rm", "--force", name)
    assert refused in docker("pull", name, fails=bool(refused)).text


def push(docker: Docker, name: str, *, refused: str = "") -> None:
    """The engine pushes a new image, or is `refused` in these words."""
    docker.build(name)
    assert refused in docker("push", name, fails=bool(refused)).text


def assert_no_log_in(docker: Docker, server: Server, user: str, secret: str) -> None:
    """The answer is the one for wrong credentials."""
    words = ("login", server.address, "--username", user, "--password-stdin")
    said = docker(*words, stdin=secret, fails=True).text
    assert WRONG in said
    assert "Login Succeeded" not in said


# --- access tokens ----------------------------------------------------------------------------------------------


def test_a_log_in_with_the_password_and_one_with_an_access_token_do_the_same(
    docker: Docker, server: Server, token: Callable[..., str]
) -> None:
    for secret in (PASSWORD, token()):
        docker.login(server.address, "ada", secret)
        pull(docker, f"{server.address}/ada/app:v1")
        push(docker, f"{server.address}/ada/lib:new")
        docker("logout", server.address)
        pull(docker, f"{server.address}/ada/app:v1", refused=DENIED)


def test_an_access_token_that_expired_or_was_ended_logs_nobody_in(
    docker: Docker, server: Server, token: Callable[..., str]
) -> None:
    expired = token(expires_at=int((time.time() + 3600) * 1000))
    passed = "UPDATE tokens SET expires_at = expires_at - 3600000 WHERE id = :id"
    assert Api(server).change(passed, id=token_id(expired)) == 1
    off, deleted = token(), token()
    server.do(lambda application: application.accounts.tokens.update(token_id(off), active=False))
    server.do(lambda application: application.accounts.tokens.delete("ada", token_id(deleted)))
    for secret in (off, deleted, expired):
        assert_no_log_in(docker, server, "ada", secret)
    assert_no_log_in(docker, server, "bob", token())


def test_the_end_of_an_access_token_ends_what_docker_does_with_it(
    docker: Docker, server: Server, token: Callable[..., str]
) -> None:
    secret, old, new = token(), f"{server.address}/ada/app:v1", f"{server.address}/ada/lib:new"
    docker.login(server.address, "ada", secret)

    def switch(*, on: bool) -> None:
        server.do(lambda application: application.accounts.tokens.update(token_id(secret), active=on))

    for on in (True, False, True):
        switch(on=on)
        pull(docker, old, refused="" if on else WRONG)
        push(docker, new, refused="" if on else WRONG)
    server.do(lambda application: application.accounts.tokens.delete("ada", token_id(secret)))
    pull(docker, old, refused=WRONG)
    push(docker, new, refused=WRONG)


def test_a_token_with_a_scope_pulls_and_pushes_within_it(
    docker: Docker, server: Server, token: Callable[..., str], image: Image
) -> None:
    scope = TokenScope(("ada/app",), frozenset({Action.PULL}))
    docker.login(server.address, "ada", token(scope=scope))
    pull(docker, f"{server.address}/ada/app:v1")
    pull(docker, f"{server.address}/ada/lib:v1", refused=DENIED)
    push(docker, f"{server.address}/ada/app:v1", refused=DENIED)
    Client(server).assert_whole("ada/app", image, "v1")
    docker.login(server.address, "ada", token(scope=TokenScope(("ada/l*",), frozenset(Action))))
    push(docker, f"{server.address}/ada/lib:new")
    push(docker, f"{server.address}/ada/app:new", refused=DENIED)
    pull(docker, f"{server.address}/ada/app:v1", refused=DENIED)


# --- grants that change, robots ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("user", "path"), [("bob", "ada/app"), ("acme+ci", "acme/app")])
def test_a_grant_and_its_removal_count_without_a_new_log_in(
    docker: Docker, server: Server, token: Callable[..., str], grant: Grant, user: str, path: str
) -> None:
    """A user whom another one lets into the own namespace, and a robot of an organisation."""
    old, new = f"{server.address}/{path}:v1", f"{server.address}/{path}:new"
    docker.login(server.address, user, token(user))
    pull(docker, old, refused=DENIED)
    for level, may_pull, may_push in (
        (Level.READ, True, False),
        (Level.WRITE, True, True),
        (Level.NONE, False, False),
    ):
        grant(user, path, level)
        pull(docker, old, refused="" if may_pull else DENIED)
        push(docker, new, refused="" if may_push else DENIED)


def test_a_robot_logs_in_with_its_token_until_it_is_switched_off(
    docker: Docker, server: Server, token: Callable[..., str], grant: Grant
) -> None:
    grant("acme+ci", "acme/app", Level.READ)
    secret, name = token("acme+ci"), f"{server.address}/acme/app:v1"
    assert_no_log_in(docker, server, "acme+ci", PASSWORD)
    assert_no_log_in(docker, server, "acme", secret)
    docker.login(server.address, "acme+ci", secret)
    pull(docker, name)
    pull(docker, f"{server.address}/ada/app:v1", refused=DENIED)

    async def switch(application: Application, *, on: bool) -> None:
        await application.accounts.robots.update(await application.accounts.get("acme"), "ci", is_active=on)

    server.do(lambda application: switch(application, on=False))
    pull(docker, name, refused=WRONG)
    assert_no_log_in(docker, server, "acme+ci", secret)
    server.do(lambda application: switch(application, on=True))
    pull(docker, name)
