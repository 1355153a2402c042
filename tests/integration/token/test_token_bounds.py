"""
What bounds a log-in bounds all that comes from it: access tokens with a scope and an end, robots, auditors.

At the token service, and at the registry with the bearer tokens that it gave.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from tests.integration.token.test_token_requests import Ask, access, claims
from tests.support.client import Answer, Client
from tests.support.images import make_image
from tests.support.server import Server

from dtr.accounts import Action, Level, TokenScope, token_id
from dtr.app import Application

ALL = frozenset(Action)


@pytest.fixture(scope="module", autouse=True)
def world(garant: Server) -> None:
    """Beside ada's world: the auditor audrey, the robot org+ci, which may push to org/hidden; ada/lib."""

    async def fill(application: Application) -> None:
        accounts = application.accounts
        if await accounts.find("audrey") is not None:
            return
        await accounts.create_user("audrey", None, is_auditor=True)
        await accounts.robots.create(await accounts.get("org"), "ci")
        await accounts.grants.set_user(await accounts.grants.on("org/hidden"), "org+ci", Level.WRITE)

    garant.do(fill)


@pytest.fixture
def make(garant: Server) -> Callable[..., str]:
    """``make(*patterns, actions=…, user="ada", …)``: an access token; without patterns, one without a scope."""

    def secret(*patterns: str, actions: frozenset[Action] = ALL, user: str = "ada", **how: Any) -> str:
        scope = TokenScope(patterns, actions) if patterns else None
        return garant.do(lambda application: application.accounts.tokens.create(user, "x", scope=scope, **how))

    return secret


@pytest.fixture
def ask_with(garant: Server) -> Callable[..., Answer]:
    """``ask_with(secret, *scopes, user="ada")``: GET a token, and a refresh token."""

    def get(secret: str, *scopes: str, user: str = "ada") -> Answer:
        client = Client(garant, user, secret)
        query = "&".join(["service=dtr", "offline_token=true", *(f"scope={scope}" for scope in scopes)])
        return client.send("GET", f"/auth/token?{query}", headers={"Authorization": client.basic()})

    return get


def change(garant: Server, secret: str, **how: Any) -> None:
    garant.do(lambda application: application.accounts.tokens.update(token_id(secret), **how))


def delete(garant: Server, secret: str, user: str = "ada") -> None:
    assert garant.do(lambda application: application.accounts.tokens.delete(user, token_id(secret)))


# --- scopes -----------------------------------------------------------------------------------------------------


def test_a_token_grants_what_is_in_both_the_rights_and_the_scope(
    garant: Server, make: Callable[..., str], ask_with: Ask
) -> None:
    wanted = [f"repository:{path}:pull,push,delete" for path in ("ada/tools", "org/readable", "org/public")]
    for patterns, actions, granted in (
        (("ada/*",), ALL, {"ada/tools": {"pull", "push", "delete"}, "org/public": {"pull"}}),
        (("ada/tools",), {Action.PUSH}, {"ada/tools": {"push"}, "org/public": {"pull"}}),
        (("*",), {Action.PULL}, {path: {"pull"} for path in ("ada/tools", "org/readable", "org/public")}),
        (("*",), {Action.PUSH, Action.DELETE}, {"ada/tools": {"push", "delete"}, "org/public": {"pull"}}),
        (("org/read*", "ada/too"), ALL, {"org/readable": {"pull"}, "org/public": {"pull"}}),
        (("nobody/*",), ALL, {"org/public": {"pull"}}),
    ):
        answer = ask_with(make(*patterns, actions=frozenset(actions)), *wanted)
        assert access(garant, answer) == {f"repository:{path}": what for path, what in granted.items()}


def test_a_repository_that_is_missing_is_granted_within_the_scope_only(
    garant: Server, make: Callable[..., str], ask_with: Ask
) -> None:
    missing = "repository:ada/never:pull,push,delete"
    for patterns, actions, granted in (
        (("ada/*",), ALL, {"pull", "push", "delete"}),
        (("ada/*",), {Action.PUSH, Action.ADMIN}, {"push"}),
        (("ada/*",), {Action.PUSH, Action.PULL}, set()),  # who may not make it is not told
        (("ada/tools",), ALL, set()),
    ):
        found = access(garant, ask_with(make(*patterns, actions=frozenset(actions)), missing))
        assert found == ({"repository:ada/never": granted} if granted else {})


def test_what_a_client_keeps_is_good_for_what_its_access_token_is(
    garant: Server, make: Callable[..., str], ask_with: Ask, post: Ask
) -> None:
    wanted = ("repository:ada/tools:pull,push", "repository:org/readable:pull")
    for secret, granted in (
        (make("ada/*", actions=frozenset({Action.PULL})), {"repository:ada/tools": {"pull"}}),
        (make(), {"repository:ada/tools": {"pull", "push"}, "repository:org/readable": {"pull"}}),
    ):
        got = ask_with(secret, *wanted)
        by_password = post(grant_type="password", username="ada", password=secret, access_type="offline")
        assert access(garant, got) == granted
        for refresh in (got.json["refresh_token"], by_password.expect(200).json["refresh_token"]):
            assert access(garant, post(wanted, grant_type="refresh_token", refresh_token=refresh)) == granted


def test_what_a_client_keeps_ends_with_its_access_token(
    garant: Server, make: Callable[..., str], ask_with: Ask, post: Ask
) -> None:
    secret = make("ada/*")
    refresh = ask_with(secret).json["refresh_token"]

    def statuses() -> tuple[int, int]:
        return ask_with(secret).status, post(grant_type="refresh_token", refresh_token=refresh).status

    assert statuses() == (200, 200)
    change(garant, secret, active=False)
    assert statuses() == (401, 401)
    change(garant, secret, active=True)
    assert statuses() == (200, 200)
    delete(garant, secret)
    assert statuses() == (401, 401)


def test_a_bearer_token_ends_with_the_access_token(
    garant: Server, make: Callable[..., str], ask_with: Ask, post: Ask
) -> None:
    now = int(time.time())
    secret = make(expires_at=(now + 100) * 1000 + 999)
    got = ask_with(secret, "repository:ada/tools:pull")
    renewed = post(grant_type="refresh_token", refresh_token=got.json["refresh_token"])
    for answer in (got, renewed):
        assert claims(garant, answer.expect(200).json["access_token"])["exp"] == now + 100
        assert 0 < answer.json["expires_in"] <= 100
    far = ask_with(make(expires_at=(now + 1000) * 1000)).json
    assert far["expires_in"] == 300
    assert claims(garant, far["token"])["exp"] <= int(time.time()) + 300


# --- at the registry --------------------------------------------------------------------------------------------


def mount(client: Client, digest: str, source: str | None, *scopes: str) -> int:
    """The answer to a mount into ada/tools."""
    origin = "" if source is None else f"&from={source}"
    bearer = {"Authorization": f"Bearer {client.token('repository:ada/tools:pull,push', *scopes)}"}
    return client.send("POST", f"/v2/ada/tools/blobs/uploads/?mount={digest}{origin}", headers=bearer).status


@pytest.fixture
def sources(garant: Server) -> dict[str, str]:
    """Digests of blobs that one repository has each: one of ada's, one that ada reads, one that everybody does."""
    garant_admin = Client(garant)
    private = f"ada/private{uuid.uuid4().hex[:8]}"
    garant.make_repository(private)
    paths = (private, "org/readable", "org/public")
    return {path: garant_admin.push_blob(path, os.urandom(100)) for path in paths}


def test_nothing_is_mounted_from_outside_of_the_scope_but_what_is_public(
    garant: Server, make: Callable[..., str], sources: dict[str, str]
) -> None:
    """Neither from a source that is named, nor from one that is found; whatever the account may."""
    asked = [f"repository:{path}:pull" for path in sources]
    narrow = Client(garant, "ada", make("ada/tools"))
    pushes = Client(garant, "ada", make("*", actions=frozenset({Action.PUSH})))
    for client in (narrow, pushes):
        for path, digest in sources.items():
            expected = 201 if path == "org/public" else 202
            assert mount(client, digest, path, *asked) == expected
            assert mount(client, digest, None, *asked) == expected
    wide = Client(garant, "ada", make("*", actions=frozenset({Action.PUSH, Action.PULL})))
    for path, digest in sources.items():
        assert mount(wide, digest, path, *asked) == 201
        assert mount(wide, digest, None, *asked) == 201


def test_a_mount_within_the_scope_works_out(
    garant: Server, make: Callable[..., str], sources: dict[str, str]
) -> None:
    client = Client(garant, "ada", make("ada/*"))
    (path, digest), *_ = sources.items()
    assert mount(client, digest, None) == 201
    assert mount(client, digest, path) == 201


def test_the_catalog_is_of_what_the_scope_pulls(garant: Server, make: Callable[..., str]) -> None:
    def listed(secret: str, user: str = "ada") -> list[str]:
        return Client(garant, user, secret).call("GET", "/v2/_catalog").expect(200).json["repositories"]

    everything = listed(make())
    assert {"ada/tools", "org/readable", "org/public"} <= set(everything)
    assert listed(make("ada/*")) == [
        path for path in everything if path.startswith("ada/") or path == "org/public"
    ]
    assert listed(make("ada/tools")) == ["ada/tools", "org/public"]
    assert listed(make("*", actions=frozenset({Action.PUSH}))) == ["org/public"]
    assert listed(make("*")) == everything


def test_tags_and_referrers_are_of_what_the_scope_pulls(garant: Server, make: Callable[..., str]) -> None:
    image = make_image()
    Client(garant).push("ada/tools", image, "v1")
    for patterns, actions, status in (
        ("ada/*", ALL, 200),
        ("ada/*", frozenset({Action.PUSH, Action.DELETE}), 401),
        ("org/*", ALL, 401),
    ):
        client = Client(garant, "ada", make(patterns, actions=actions))
        for path in ("tags/list", f"referrers/{image.digest}", "manifests/v1", f"manifests/{image.digest}"):
            assert client.call("GET", f"/v2/ada/tools/{path}").status == status


def test_a_scope_that_pushes_deletes_nothing(garant: Server, make: Callable[..., str]) -> None:
    client = Client(garant, "ada", make("ada/*", actions=frozenset({Action.PULL, Action.PUSH})))
    image = make_image()
    client.push("ada/tools", image, "kept")
    for path in (f"manifests/{image.digest}", "manifests/kept"):
        assert client.call("DELETE", f"/v2/ada/tools/{path}").expect(401).codes == ["DENIED"]
    Client(garant, "ada", make("ada/*", actions=frozenset({Action.DELETE}))).call(
        "DELETE", "/v2/ada/tools/manifests/kept"
    ).expect(202)


@pytest.mark.parametrize("how", ["switched off", "deleted", "expired"])
@pytest.mark.parametrize("by", ["access token", "refresh token"])
def test_writes_stop_with_the_next_request_when_the_access_token_ends(
    garant: Server, make: Callable[..., str], ask_with: Ask, post: Ask, how: str, by: str
) -> None:
    """The bearer token is from before, and good for five minutes."""
    secret = make()
    scope = "repository:ada/tools:pull,push,delete"
    answer = ask_with(secret, scope)
    if by == "refresh token":
        answer = post((scope,), grant_type="refresh_token", refresh_token=answer.json["refresh_token"])
    client = Client(garant, "ada")
    bearer = {"Authorization": f"Bearer {answer.json['access_token']}"}

    def statuses() -> list[int]:
        start = client.send("POST", "/v2/ada/tools/blobs/uploads/", None, bearer)
        remove = client.send("DELETE", "/v2/ada/tools/manifests/no-such-tag", None, bearer)
        return [start.status, remove.status]

    assert statuses() == [202, 404]
    if how == "switched off":
        change(garant, secret, active=False)
    elif how == "deleted":
        delete(garant, secret)
    else:
        expire(garant, secret)
    assert statuses() == [401, 401]
    assert client.send("GET", "/v2/ada/tools/tags/list", None, bearer).status == 200


def expire(garant: Server, secret: str) -> None:
    from sqlalchemy import bindparam, update

    from dtr.db import Statement
    from dtr.db.schema import tokens

    statement = Statement(update(tokens).where(tokens.c.id == bindparam("which")).values(expires_at=1))
    garant.do(
        lambda application: application.database.unit(lambda tx: tx.execute(statement, which=token_id(secret)))
    )


# --- robots, auditors -------------------------------------------------------------------------------------------


def test_a_robot_pushes_and_pulls_where_it_was_granted_that_and_nowhere_else(
    garant: Server, make: Callable[..., str], ask_with: Ask, elsewhere: dict[str, str]
) -> None:
    secret = make(user="org+ci")
    client, image = Client(garant, "org+ci", secret), make_image()
    client.push("org/hidden", image, "v1")
    client.assert_whole("org/hidden", image, "v1")
    wanted = [f"repository:{path}:pull,push" for path in ("org/hidden", "org/readable", "org/public", "ada/tools")]
    answer = ask_with(secret, *wanted, user="org+ci")
    assert access(garant, answer) == {
        "repository:org/hidden": {"pull", "push"},
        "repository:org/public": {"pull"},
    }
    assert claims(garant, answer.json["token"])["sub"] == "org+ci"
    assert client.call("GET", "/v2/_catalog").json["repositories"] == ["org/hidden", "org/public"]
    for user in ("org", "ci", "ada"):
        wrong = Client(garant, user, secret)
        headers = {"Authorization": wrong.basic(), **elsewhere}
        assert wrong.send("GET", "/auth/token?service=dtr", headers=headers).status == 401


def test_a_grant_to_a_robot_and_its_removal_count_without_a_new_log_in(
    garant: Server, make: Callable[..., str], ask_with: Ask, post: Ask
) -> None:
    refresh = ask_with(make(user="org+ci"), user="org+ci").json["refresh_token"]

    def granted() -> dict[str, set[str]]:
        wanted = ("repository:org/readable:pull,push",)
        return access(garant, post(wanted, grant_type="refresh_token", refresh_token=refresh))

    async def grant(application: Application, level: Level) -> None:
        grants = application.accounts.grants
        await grants.set_user(await grants.on("org/readable"), "org+ci", level)

    assert granted() == {}
    garant.do(lambda application: grant(application, Level.WRITE))
    assert granted() == {"repository:org/readable": {"pull", "push"}}
    garant.do(lambda application: grant(application, Level.NONE))
    assert granted() == {}


def test_an_auditor_sees_all_names_and_pulls_what_everybody_does(
    garant: Server, make: Callable[..., str], ask_with: Ask
) -> None:
    secret = make(user="audrey")
    client = Client(garant, "audrey", secret)
    everything = Client(garant).call("GET", "/v2/_catalog").expect(200).json["repositories"]
    assert client.call("GET", "/v2/_catalog").expect(200).json["repositories"] == everything
    wanted = [
        f"repository:{path}:pull,push,delete" for path in ("ada/tools", "org/hidden", "org/public", "org/new")
    ]
    assert access(garant, ask_with(secret, *wanted, user="audrey")) == {"repository:org/public": {"pull"}}
    for path in ("tags/list", "manifests/v1"):
        assert client.call("GET", f"/v2/org/hidden/{path}").expect(401).codes == ["DENIED"]
    scoped = Client(garant, "audrey", make("org/*", user="audrey"))
    seen = scoped.call("GET", "/v2/_catalog").expect(200).json["repositories"]
    assert seen == [path for path in everything if path.startswith("org/")]
