"""
The token service over HTTP.

"Token Authentication Specification" and "OAuth2 Token Authentication" of the distribution project; its scopes.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from sqlalchemy import bindparam, select
from tests.support.client import Answer, Client
from tests.support.images import make_image
from tests.support.server import PASSWORD, Server

from dtr.db import Statement
from dtr.db.schema import events

Ask = Callable[..., Answer]

LOG_INS = Statement(
    select(events.c.type, events.c.actor_name, events.c.object_type)
    .where(events.c.address == bindparam("address"))
    .order_by(events.c.id)
)


def claims(garant: Server, token: str) -> dict[str, Any]:
    """What a token says, verified with the published keys by a library of its own."""
    keys = KeySet.import_key_set(Client(garant, None).send("GET", "/auth/jwks.json").expect(200).json)
    verified = jwt.decode(token, keys, algorithms=["ES256"])
    assert verified.header["kid"] in {key.kid for key in keys.keys}
    return verified.claims


def access(garant: Server, answer: Answer) -> dict[str, set[str]]:
    """What a token grants, by type and name."""
    entries = claims(garant, answer.expect(200).json["access_token"])["access"]
    return {f"{one['type']}:{one['name']}": set(one["actions"]) for one in entries}


# --- GET --------------------------------------------------------------------------------------------------------


def test_a_user_gets_a_token_with_what_the_user_may_do(garant: Server, ask: Ask) -> None:
    answer = ask("repository:ada/tools:pull,push")
    assert access(garant, answer) == {"repository:ada/tools": {"pull", "push"}}
    assert answer.json["token"] == answer.json["access_token"]
    assert answer.json["scope"] == "repository:ada/tools:pull,push"
    assert answer.json["expires_in"] == 300
    issued = datetime.fromisoformat(answer.json["issued_at"])
    assert abs(datetime.now(UTC) - issued) < timedelta(minutes=1)
    assert "refresh_token" not in answer.json
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"


def test_a_token_says_who_asked_and_for_whom_it_is(garant: Server, ask: Ask) -> None:
    found = claims(garant, ask("repository:ada/tools:pull").json["token"])
    assert (found["iss"], found["aud"], found["sub"]) == ("dtr", "dtr", "ada")
    assert found["nbf"] <= found["iat"] <= time.time() < found["exp"] == found["iat"] + 300
    assert len({claims(garant, ask().json["token"])["jti"] for _ in range(5)}) == 5


def test_what_the_user_may_not_do_is_not_in_the_token(garant: Server, ask: Ask) -> None:
    for scope, granted in (
        ("repository:org/readable:pull,push,delete", {"pull"}),
        ("repository:org/public:pull,push", {"pull"}),
        ("repository:org/hidden:pull", set()),
        ("repository:org/never:pull", set()),
        ("repository:nobody/never:pull", set()),
        ("repository:ada/never:pull,push", {"pull", "push"}),
    ):
        answer = ask(scope)
        name = scope.split(":")[1]
        assert access(garant, answer) == ({f"repository:{name}": granted} if granted else {})
        assert answer.json["scope"] == (f"repository:{name}:{','.join(sorted(granted))}" if granted else "")


def test_anonymous_pulls_what_is_public(garant: Server, ask: Ask) -> None:
    answer = ask("repository:org/public:pull,push", "repository:ada/tools:pull", user=None)
    assert access(garant, answer) == {"repository:org/public": {"pull"}}
    assert claims(garant, answer.json["token"])["sub"] == ""


def test_several_scopes_come_as_parameters_or_separated_by_spaces(garant: Server, ask: Ask) -> None:
    scopes = ("repository:ada/tools:push", "repository:org/readable:pull")
    expected = {"repository:ada/tools": {"push"}, "repository:org/readable": {"pull"}}
    assert access(garant, ask(*scopes)) == expected
    assert access(garant, ask(" ".join(scopes))) == expected
    assert access(garant, ask("repository:ada/tools:pull", "repository:ada/tools:push")) == {
        "repository:ada/tools": {"pull", "push"}
    }


def test_an_asterisk_is_every_action_that_is_allowed(garant: Server, ask: Ask) -> None:
    assert access(garant, ask("repository:ada/tools:*")) == {"repository:ada/tools": {"pull", "push", "delete"}}
    assert access(garant, ask("repository:org/readable:*")) == {"repository:org/readable": {"pull"}}


def test_the_class_of_a_resource_does_not_matter(garant: Server, ask: Ask) -> None:
    assert access(garant, ask("repository(plugin):ada/tools:pull")) == {"repository:ada/tools": {"pull"}}


def test_the_catalog_is_for_users(garant: Server, ask: Ask) -> None:
    answer = ask("registry:catalog:*")
    assert access(garant, answer) == {"registry:catalog": {"*"}}
    assert answer.json["scope"] == "registry:catalog:*"
    assert access(garant, ask("registry:catalog:*", user=None)) == {}
    assert access(garant, ask("registry:catalog:pull")) == {}


@pytest.mark.parametrize(
    "scope",
    [
        "unknown:ada/tools:pull",
        "registry:other:*",
        "repository:Not/A/Name:pull",
        "repository:ada/tools:fly",
        "repository:ada/tools:",
        "repository:ada/tools",
        "repository::pull",
        "repository:ada/tools:pull:more",
        "REPOSITORY:ada/tools:pull",
        "repository(:ada/tools:pull",
        "nonsense",
        ":::",
        "repository:ada/t\0ols:pull",
        "repository:ada/tools:pull\n",
        "repository:" + 5000 * "a" + ":pull",
        "repository:ada/../ada/tools:pull",
        "\U0001f433",
    ],
)
def test_what_is_no_scope_grants_nothing_beside_those_that_are(garant: Server, ask: Ask, scope: str) -> None:
    granted = access(garant, ask(scope, "repository:org/readable:pull"))
    assert granted == {"repository:org/readable": {"pull"}}


def test_a_client_that_knows_more_actions_gets_those_that_are_known(garant: Server, ask: Ask) -> None:
    answer = ask("repository:ada/tools:metadata_read,pull,scanner-pull")
    assert access(garant, answer) == {"repository:ada/tools": {"pull"}}


def test_too_many_scopes_are_refused(ask: Ask) -> None:
    assert ask(*(f"repository:ada/r{number}:pull" for number in range(101))).expect(400).codes == ["UNSUPPORTED"]


def test_a_token_that_no_header_takes_is_not_issued(garant: Server, ask: Ask) -> None:
    long = [f"repository:ada/{number}{200 * 'x'}:pull,push" for number in range(90)]
    assert ask(*long).expect(400).codes == ["UNSUPPORTED"]
    several = [f"repository:ada/r{number}:pull" for number in range(40)]
    answer = ask(*several)
    assert len(access(garant, answer)) == 40
    bearer = {"Authorization": f"Bearer {answer.json['token']}"}
    Client(garant, "ada").send("GET", "/v2/", headers=bearer).expect(200)


def log_in(garant: Server, name: str, secret: str, headers: dict[str, str]) -> Answer:
    client = Client(garant, name, secret)
    path = "/auth/token?service=dtr&scope=repository:org/public:pull"
    return client.send("GET", path, headers={"Authorization": client.basic(), **headers})


@pytest.mark.parametrize("secret", ["wrong", "", PASSWORD + " ", 5000 * "x", "p\0w", "pä"])
def test_wrong_credentials_are_refused_with_a_challenge_and_never_taken_for_none(
    garant: Server, elsewhere: dict[str, str], secret: str
) -> None:
    answer = log_in(garant, "bob", secret, elsewhere)
    assert answer.expect(401).codes == ["UNAUTHORIZED"]
    assert answer.headers["www-authenticate"] == 'Basic realm="dtr"'


@pytest.mark.parametrize("name", ["nobody", "", "org", "ADA", "a\0da", "ädä", 3000 * "n"])
def test_whoever_is_not_a_user_is_refused_in_the_same_words(
    garant: Server, elsewhere: dict[str, str], name: str
) -> None:
    known = log_in(garant, "bob", "wrong", elsewhere).expect(401)
    assert log_in(garant, name, PASSWORD, elsewhere).expect(401).body == known.body


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic " + base64.b64encode(b"nocolon").decode(),
        "Basic /w==",
        "Bearer x",
        "x",
    ],
)
def test_credentials_that_cannot_be_read_are_refused(ask: Ask, header: str) -> None:
    answer = ask(user=None, headers={"Authorization": header}).expect(401)
    assert answer.codes == ["UNAUTHORIZED"]
    assert answer.headers["www-authenticate"].startswith("Basic ")


def test_an_access_token_is_as_good_as_the_password(garant: Server, post: Ask, elsewhere: dict[str, str]) -> None:
    secret = garant.do(lambda application: application.accounts.tokens.create("ada", "a robot"))
    client = Client(garant, "ada", secret)
    image = make_image()
    client.push("ada/tools", image, "robot")
    client.assert_whole("ada/tools", image, "robot")
    post(grant_type="password", service="dtr", client_id="x", username="ada", password=secret).expect(200)
    for user in ("bob", "admin", ""):
        log_in(garant, user, secret, elsewhere).expect(401)


def test_a_deleted_access_token_opens_nothing(garant: Server, elsewhere: dict[str, str]) -> None:
    secret = garant.do(lambda application: application.accounts.tokens.create("ada", "short-lived"))
    log_in(garant, "ada", secret, elsewhere).expect(200)

    async def end(application: Any) -> None:
        for one in await application.accounts.tokens.list_tokens("ada"):
            if one.label == "short-lived":
                await application.accounts.tokens.delete("ada", one.id)

    garant.do(end)
    log_in(garant, "ada", secret, elsewhere).expect(401)


# --- refresh tokens, POST ---------------------------------------------------------------------------------------


def test_a_refresh_token_stands_for_the_log_in(garant: Server, ask: Ask, post: Ask) -> None:
    refresh = ask("repository:ada/tools:pull", offline_token="true", client_id="docker").json["refresh_token"]
    answer = post(
        ("repository:ada/tools:push",),
        grant_type="refresh_token",
        service="dtr",
        client_id="docker",
        refresh_token=refresh,
    )
    assert access(garant, answer) == {"repository:ada/tools": {"push"}}
    assert answer.json["refresh_token"] == refresh
    assert answer.json["expires_in"] == 300
    assert answer.json["issued_at"]
    assert answer.json["scope"] == "repository:ada/tools:push"


def test_a_refresh_token_is_no_password_and_an_access_token_no_refresh_token(
    garant: Server, ask: Ask, post: Ask, elsewhere: dict[str, str]
) -> None:
    refresh = ask(offline_token="true").json["refresh_token"]
    log_in(garant, "ada", refresh, elsewhere).expect(401)
    secret = garant.do(lambda application: application.accounts.tokens.create("ada", "a label"))
    post(grant_type="refresh_token", refresh_token=secret).expect(401)


def test_a_log_in_that_leaves_a_refresh_token_is_written_down_and_no_other_is(
    garant: Server, ask: Ask, post: Ask, elsewhere: dict[str, str]
) -> None:
    ask(offline_token="true").expect(200)
    post(grant_type="password", username="ada", password=PASSWORD, access_type="offline").expect(200)
    ask("repository:ada/tools:pull").expect(200)
    post(grant_type="password", username="ada", password=PASSWORD).expect(200)
    found = garant.do(
        lambda application: application.database.fetch_all(LOG_INS, address=elsewhere["X-Forwarded-For"])
    )
    assert [tuple(row) for row in found] == [("LOGIN", "ada", "session")] * 2


def test_nobody_gets_a_refresh_token_unasked_or_anonymously(ask: Ask, post: Ask) -> None:
    assert "refresh_token" not in ask().json
    assert "refresh_token" not in ask(offline_token="false").json
    assert "refresh_token" not in ask(user=None, offline_token="true").json
    assert "refresh_token" not in post(grant_type="password", username="ada", password=PASSWORD).json


def test_a_password_gets_a_token_by_post(garant: Server, post: Ask) -> None:
    answer = post(
        ("repository:ada/tools:pull repository:org/readable:pull",),
        grant_type="password",
        service="dtr",
        client_id="containerd",
        username="ada",
        password=PASSWORD,
        access_type="offline",
    )
    assert access(garant, answer) == {"repository:ada/tools": {"pull"}, "repository:org/readable": {"pull"}}
    again = post(grant_type="refresh_token", refresh_token=answer.json["refresh_token"]).expect(200)
    assert claims(garant, again.json["access_token"])["sub"] == "ada"


@pytest.mark.parametrize("grant", ["", "client_credentials", "authorization_code", "PASSWORD"])
def test_other_grants_are_refused(post: Ask, grant: str) -> None:
    answer = post(grant_type=grant, username="ada", password=PASSWORD).expect(400)
    assert answer.codes == ["UNSUPPORTED"]


@pytest.mark.parametrize(
    "fields",
    [
        {"grant_type": "password", "username": "bob", "password": "wrong"},
        {"grant_type": "password"},
        {"grant_type": "password", "username": "nobody", "password": PASSWORD},
        {"grant_type": "refresh_token"},
        {"grant_type": "refresh_token", "refresh_token": "dtrr_" + 43 * "x"},
        {"grant_type": "refresh_token", "refresh_token": "\0"},
    ],
)
def test_a_wrong_secret_in_a_form_is_refused(post: Ask, fields: dict[str, str]) -> None:
    answer = post(**fields).expect(401)
    assert answer.codes == ["UNAUTHORIZED"]
    assert answer.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/form-data; boundary=x", "text/plain"])
def test_the_form_has_to_be_one(garant: Server, kind: str) -> None:
    client = Client(garant, None)
    body = json.dumps({"grant_type": "password", "username": "ada", "password": PASSWORD}).encode()
    assert client.send("POST", "/auth/token", body, {"Content-Type": kind}).expect(415).codes == ["UNSUPPORTED"]


def test_the_type_of_the_form_may_have_parameters(garant: Server) -> None:
    client = Client(garant, None)
    headers = {"Content-Type": "Application/X-WWW-Form-URLencoded; charset=utf-8"}
    form = f"grant_type=password&username=ada&password={quote(PASSWORD)}".encode()
    client.send("POST", "/auth/token", form, headers).expect(200)
    client.send("POST", "/auth/token", iter([form[:10], form[10:]]), headers).expect(200)


def test_a_form_that_is_too_large_or_cannot_be_read_is_refused(garant: Server) -> None:
    client = Client(garant, None)
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.send("POST", "/auth/token", 70_000 * b"x", headers).status == 413
    assert client.send("POST", "/auth/token", iter(70 * [1000 * b"x"]), headers).status == 413
    assert client.send("POST", "/auth/token", b"a=1&" * 300, headers).status == 400
    assert client.send("POST", "/auth/token", b"grant_type=\xff", headers).status == 400
    assert client.send("GET", "/auth/token?" + "&".join(300 * ["scope=x"])).status == 400


# --- other methods and paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused_with_those_that_are_allowed(garant: Server, method: str) -> None:
    client = Client(garant, None)
    assert client.send(method, "/auth/token").expect(405).headers["allow"] == "GET, POST"
    if method != "HEAD":
        assert client.send(method, "/auth/jwks.json").expect(405).headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/auth", "/auth/", "/auth/token/", "/auth/other", "/auth/token/x"])
def test_there_is_nothing_else_below_auth(garant: Server, path: str) -> None:
    assert Client(garant, None).send("GET", path).status == 404


def test_the_published_keys_are_public_keys_only(garant: Server) -> None:
    answer = Client(garant, None).send("GET", "/auth/jwks.json").expect(200)
    assert answer.json["keys"]
    for key in answer.json["keys"]:
        assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")
    assert Client(garant, None).send("HEAD", "/auth/jwks.json").expect(200).body == b""


# --- names that carry the registry's address ---------------------------------------------------------------------


@pytest.mark.parametrize("host", ["{own}", "localhost:5443", "registry.example:443", "10.0.0.1:5000"])
def test_a_name_with_the_registrys_address_means_the_repository_and_is_kept(
    garant: Server, ask: Ask, host: str
) -> None:
    name = f"{host.format(own=garant.address)}/ada/tools"
    answer = ask(f"repository:{name}:pull,push")
    entries = claims(garant, answer.json["token"])["access"]
    assert entries == [
        {"type": "repository", "name": name, "actions": ["pull", "push"], "repository": "ada/tools"}
    ]
    assert answer.json["scope"] == f"repository:{name}:pull,push"


def test_the_address_without_port_is_known_when_the_client_uses_it(garant: Server, ask: Ask) -> None:
    scope = "repository:registry.example/ada/tools:pull"
    assert access(garant, ask(scope, headers={"Host": "registry.example"})) == {
        "repository:registry.example/ada/tools": {"pull"}
    }
    assert access(garant, ask(scope)) == {}


def test_such_a_token_grants_only_what_the_repository_grants(garant: Server, ask: Ask) -> None:
    for scope, granted in (
        ("repository:localhost:5443/org/hidden:pull", {}),
        ("repository:localhost:5443/org/readable:pull,push", {"repository:localhost:5443/org/readable": {"pull"}}),
    ):
        assert access(garant, ask(scope)) == granted


def test_a_collection_of_content_trust_has_rights_of_its_own(garant: Server, ask: Ask) -> None:
    """To administer the repository is to have everything; the registry's own names never have a star."""
    prefix = f"repository:{garant.address}"
    for path, wanted, granted in (
        ("ada/tools", "*", {"*", "pull", "push"}),
        ("ada/tools", "push,pull", {"pull", "push"}),
        ("org/readable", "*", {"pull"}),
        ("org/public", "*", {"pull"}),
        ("org/hidden", "*", set()),
        ("ada/never", "*", {"*", "pull", "push"}),  # who may make it is told that it is missing
        ("org/never", "*", set()),
    ):
        found = access(garant, ask(f"{prefix}/{path}:{wanted}"))
        assert found == ({f"{prefix}/{path}": granted} if granted else {}), path
    assert access(garant, ask("repository:ada/tools:*")) == {"repository:ada/tools": {"pull", "push", "delete"}}
    anonymous = ask(f"{prefix}/org/public:*", user=None)
    assert access(garant, anonymous) == {f"{prefix}/org/public": {"pull"}}


def test_such_a_token_is_no_key_to_the_registry(garant: Server, ask: Ask) -> None:
    """Neither for the repository that is meant, nor for one whose name looks like the address."""
    client = Client(garant, "ada")
    client.push("ada/tools", make_image(), "v1")
    garant.make_organization("tools.example")
    garant.make_repository("tools.example/ada/tools")
    for scope, headers in (
        ("repository:localhost:5443/ada/tools:pull,push", {}),
        ("repository:tools.example/ada/tools:pull,push", {"Host": "tools.example"}),
    ):
        token = ask(scope, headers=headers).json["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        for name in ("ada/tools", "tools.example/ada/tools"):
            assert client.send("GET", f"/v2/{name}/manifests/v1", headers=bearer).expect(401).codes == ["DENIED"]
            assert client.send("POST", f"/v2/{name}/blobs/uploads/", None, bearer).expect(401).codes == ["DENIED"]


# --- the way of clients -----------------------------------------------------------------------------------------


def test_docker_login_works_out(garant: Server, elsewhere: dict[str, str]) -> None:
    """Ping, challenge, token with an offline one, ping; as the Docker engine does it."""
    client = Client(garant, "ada")
    challenge = client.send("GET", "/v2/").expect(401).headers["www-authenticate"]
    realm = challenge.split('realm="')[1].split('"')[0]
    assert realm == f"https://{garant.address}/auth/token"
    answer = client.send(
        "GET",
        "/auth/token?account=ada&client_id=docker&offline_token=true&service=dtr",
        headers={"Authorization": client.basic()},
    ).expect(200)
    client.send("GET", "/v2/", headers={"Authorization": f"Bearer {answer.json['token']}"}).expect(200)
    log_in(garant, "ada", "wrong", elsewhere).expect(401)


def test_newer_clients_log_in_by_post_first(garant: Server, post: Ask) -> None:
    """As containerd and BuildKit do it, with the service and scope of the challenge."""
    client = Client(garant, None)
    challenge = client.send("GET", "/v2/ada/tools/tags/list").expect(401).headers["www-authenticate"]
    parameters = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    answer = post(
        (parameters["scope"],),
        grant_type="password",
        service=parameters["service"],
        client_id="containerd-client",
        username="ada",
        password=PASSWORD,
    ).expect(200)
    bearer = {"Authorization": f"Bearer {answer.json['access_token']}"}
    client.send("GET", "/v2/ada/tools/tags/list", headers=bearer).expect(200)
