"""
Who may do what over the registry API.

The matrix is checked with tokens as clients fetch them; what a token of before is good for after rights were
taken away, on its own.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.backends import BACKENDS, run_server
from tests.support.client import Answer, Client
from tests.support.grants import grant_team
from tests.support.images import Image, digest_of, make_artifact, make_image
from tests.support.server import Server
from tests.support.wire import wait_until

from dtr.accounts import Claims, Level, Tokens
from dtr.app import Application
from dtr.oci import Digest, parse_repository_name

USERS = (
    "stranger",
    "reader",
    "writer",
    "manager",
    "space-reader",
    "space-writer",
    "space-manager",
    "owner",
    "gone",
)
EVERYBODY = (None, *USERS, "admin")
READERS = {"reader", "writer", "manager", "space-reader", "space-writer", "space-manager", "owner", "admin"}
WRITERS = {"writer", "manager", "space-writer", "space-manager", "owner", "admin"}


@dataclass
class World:
    """A server with an organisation, its people, and an image in a public and in a private repository."""

    server: Server
    image: Image
    clients: dict[str | None, Client]

    def __getitem__(self, user: str | None) -> Client:
        return self.clients[user]


@pytest.fixture(scope="module", params=BACKENDS[:2])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with run_server(request.param, request, tmp_path_factory, workers=2) as server:

        async def people(application: Application) -> None:
            for user in USERS:
                await application.accounts.create_user(user, "admin-password")
            await application.accounts.create_organization("org")
            await application.accounts.organizations.put_member("org", "owner", is_admin=True)
            for user in ("reader", "stranger"):
                await application.accounts.organizations.put_member("org", user)

        server.do(people)
        for name, visibility in (("public", "public"), ("private", "private"), ("other", "private")):
            server.make_repository(f"org/{name}", visibility=visibility)
        for repository in ("org/public", "org/private"):
            for user, level in (("reader", "read-only"), ("writer", "read-write"), ("manager", "admin")):
                server.grant(f"org/{user}s", level, users=(user, "gone"), repository=repository)
        for user, level in (
            ("space-reader", "read-only"),
            ("space-writer", "read-write"),
            ("space-manager", "admin"),
        ):
            server.grant(f"org/{user}s", level, users=(user,))
        clients = {user: Client(server, user) for user in EVERYBODY}
        image = make_image()
        for repository in ("org/public", "org/private"):
            clients["admin"].push(repository, image, "v1")
            clients["admin"].push(repository, make_artifact("text/plain", b"about it", subject=image))
        server.do(lambda application: application.accounts.update("gone", is_active=False))
        yield World(server, image, clients)


def attempts(repository: str, image: Image) -> dict[str, tuple[str, str, bytes | None]]:
    """The ways to look into a repository."""
    return {
        "manifest by tag": ("GET", f"/v2/{repository}/manifests/v1", None),
        "manifest by digest": ("GET", f"/v2/{repository}/manifests/{image.digest}", None),
        "blob": ("GET", f"/v2/{repository}/blobs/{digest_of(image.blobs[0])}", None),
        "tags": ("GET", f"/v2/{repository}/tags/list", None),
        "referrers": ("GET", f"/v2/{repository}/referrers/{image.digest}", None),
    }


@pytest.mark.parametrize("user", [user for user in EVERYBODY if user != "gone"])
def test_everybody_reads_a_public_repository(world: World, user: str | None) -> None:
    for method, path, body in attempts("org/public", world.image).values():
        world[user].call(method, path, body).expect(200)


@pytest.mark.parametrize("user", [user for user in EVERYBODY if user != "gone"])
def test_a_private_repository_is_read_by_those_with_a_grant(world: World, user: str | None) -> None:
    for method, path, body in attempts("org/private", world.image).values():
        answer = world[user].call(method, path, body)
        if user in READERS:
            answer.expect(200)
        else:
            assert answer.expect(401).codes == ["DENIED"]


@pytest.mark.parametrize("repository", ["org/public", "org/private"])
@pytest.mark.parametrize("user", [user for user in EVERYBODY if user != "gone"])
def test_only_writers_change_a_repository(world: World, user: str | None, repository: str) -> None:
    client, image = world[user], world.image
    upload = world["admin"].start_upload(repository)
    digest = digest_of(image.blobs[0])
    for method, path, body, good in (
        ("POST", f"/v2/{repository}/blobs/uploads/", None, 202),
        ("POST", f"/v2/{repository}/blobs/uploads/?digest={digest_of(b'one')}", b"one", 201),
        ("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={repository}", None, 201),
        ("GET", upload, None, 204),
        ("PATCH", upload, b"data", 202),
        ("PUT", f"{upload}?digest={digest_of(b'data')}", b"", 201),
        ("DELETE", world["admin"].start_upload(repository), None, 204),
        ("PUT", f"/v2/{repository}/manifests/by-{user}", image.payload, 201),
        ("DELETE", f"/v2/{repository}/manifests/by-{user}", None, 202),
        ("DELETE", f"/v2/{repository}/blobs/{digest_of(b'one')}", None, 202),
        ("DELETE", f"/v2/{repository}/manifests/{digest_of(b'never')}", None, 404),
    ):
        answer = client.call(method, path, body, {"Content-Type": image.media_type})
        if user in WRITERS:
            answer.expect(good)
        else:
            assert answer.expect(401).codes == ["DENIED"]
            assert f'scope="repository:{repository}:' in answer.headers["www-authenticate"]
            assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("user", [user for user in USERS if user != "gone"])
def test_the_catalog_names_what_a_user_may_see(world: World, user: str) -> None:
    listed = world[user].call("GET", "/v2/_catalog").expect(200).json["repositories"]
    expected = {"org/public"}
    if user in READERS:
        expected.add("org/private")
    if user.startswith("space-") or user == "owner":
        expected.add("org/other")
    assert set(listed) == expected


def test_the_catalog_is_not_for_anonymous(world: World) -> None:
    assert world[None].call("GET", "/v2/_catalog").expect(401).codes == ["DENIED"]


def test_a_user_reaches_the_own_namespace_and_no_other(world: World) -> None:
    world.server.make_repository("reader/own")
    image = make_image()
    world["reader"].push("reader/own", image, "v1")
    world["reader"].assert_whole("reader/own", image, "v1")
    for user in (None, "stranger", "owner"):
        assert world[user].get_manifest("reader/own", "v1").expect(401).codes == ["DENIED"]


@pytest.mark.parametrize("what", ["manifests/v1", "blobs/{digest}"])
def test_a_refused_head_says_why_in_a_header_and_only_where_no_other_token_helps(world: World, what: str) -> None:
    """Clients show such warnings (specification, "Warnings"), and would show one for a token that they replace."""
    path = f"/v2/org/private/{what.format(digest=digest_of(world.image.blobs[0]))}"
    said = '299 - "requested access to the resource is denied"'
    for user in (None, "stranger"):
        assert world[user].call("HEAD", path).expect(401).headers["warning"] == said
        assert "warning" not in world[user].call("GET", path).expect(401).headers  # it has a body
    reader = world["reader"]
    assert "warning" not in reader.send("HEAD", path).expect(401).headers
    assert "warning" not in reader.call("HEAD", path, scope="repository:org/public:pull").expect(401).headers
    assert "warning" not in reader.call("HEAD", path).expect(200).headers
    assert "warning" not in reader.call("HEAD", "/v2/org/private/manifests/never").expect(404).headers


# --- what must not be told apart --------------------------------------------------------------------------------


def anonymized(answer: Answer, name: str) -> str:
    """Everything of an answer but its time, its id, and the name that was in the question."""
    headers = {key: value for key, value in answer.headers.items() if key not in {"date", "x-request-id"}}
    return f"{answer.status}\n{json.dumps(headers)}\n{answer.body!r}".replace(name, "NAME")


@pytest.mark.parametrize("user", [None, "stranger", "gone"])
def test_a_private_repository_looks_like_one_that_is_not_there(world: World, user: str | None) -> None:
    client, image = world[user], world.image
    digest = digest_of(image.blobs[0])

    def ask(repository: str) -> list[str]:
        token = bearer(world, user, f"repository:{repository}:pull,push,delete")
        return [
            anonymized(client.send(method, path, body, {**token, "Content-Type": image.media_type}), repository)
            for method, path, body in (
                *attempts(repository, image).values(),
                ("HEAD", f"/v2/{repository}/manifests/v1", None),
                ("HEAD", f"/v2/{repository}/blobs/{digest}", None),
                ("GET", f"/v2/{repository}/manifests/never", None),
                ("PUT", f"/v2/{repository}/manifests/v1", image.payload),
                ("PUT", f"/v2/{repository}/manifests/v1", b"{"),
                ("DELETE", f"/v2/{repository}/manifests/v1", None),
                ("DELETE", f"/v2/{repository}/blobs/{digest}", None),
                ("POST", f"/v2/{repository}/blobs/uploads/", None),
                ("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from=org/private", None),
                ("GET", f"/v2/{repository}/blobs/uploads/00000000-0000-4000-8000-000000000000", None),
            )
        ]

    hidden = ask("org/private")
    assert hidden == ask("org/missing")
    assert hidden == ask("nobody/private")


def bearer(world: World, user: str | None, scope: str) -> dict[str, str]:
    """A header with a token; of a user who may not log in any more, with one from before."""
    if user == "gone":
        token = issue(world.server, user, {scope.split(":")[1]: frozenset({"push", "delete"})})
    else:
        token = world[user].token(scope)
    return {"Authorization": f"Bearer {token}"}


def issue(server: Server, user: str, access: dict[str, frozenset[str]], *, life_seconds: int = 60) -> str:
    """A token as the service issues it, with a life of one's own choice."""

    async def work(application: Application) -> str:
        account = await application.accounts.get(user)
        tokens = Tokens(application.tokens.keys, service="dtr", life_seconds=life_seconds)
        standings = await application.accounts.standings.find_all(account.id, access)
        ids = {path: one.repository_id for path, one in standings.items() if one.repository_id is not None}
        return await tokens.issue(account.id, account.name, access, repositories=ids)

    return server.do(work)


@pytest.mark.parametrize("user", [None, "stranger"])
def test_the_token_service_does_not_tell_private_from_missing(world: World, user: str | None) -> None:
    headers = {} if user is None else {"Authorization": world[user].basic()}

    def ask(repository: str) -> tuple[int, int, str, list[str]]:
        path = f"/auth/token?service=dtr&scope=repository:{repository}:pull,push,delete"
        answer = world[user].send("GET", path, headers=headers)
        body = answer.json
        claims = body["token"].split(".")[1]
        return answer.status, len(claims), body["scope"], sorted(body)

    assert ask("org/private") == ask("org/missing") == ask("nob/private")


def test_a_digest_is_no_key_to_the_content(world: World) -> None:
    """Neither a pull from another repository, nor a manifest that names it, nor a mount gives a secret away."""
    world.server.make_repository("stranger/own")
    stranger, image = world["stranger"], world.image
    for blob in image.blobs:
        assert stranger.get_blob("stranger/own", digest_of(blob)).expect(404).codes == ["BLOB_UNKNOWN"]
        stranger.call("HEAD", f"/v2/stranger/own/blobs/{digest_of(blob)}").expect(404)
    assert stranger.get_manifest("stranger/own", image.digest).expect(404).codes == ["MANIFEST_UNKNOWN"]
    refused = stranger.put_manifest("stranger/own", image, "v1").expect(404)
    assert set(refused.codes) == {"MANIFEST_BLOB_UNKNOWN"}
    other = make_image()
    refused_too = stranger.put_manifest("stranger/own", other, "v1").expect(404)
    assert len(refused.json["errors"]) == len(refused_too.json["errors"])


@pytest.mark.parametrize("user", ["stranger", "reader", "writer"])
def test_a_blob_is_not_mounted_from_where_the_caller_may_not_pull(world: World, user: str) -> None:
    """Whatever else the caller may pull."""
    digest = world["admin"].push_blob("org/other", os.urandom(100))
    target = f"{user}/r{uuid.uuid4().hex[:10]}"
    world.server.make_repository(target)
    for query in (f"mount={digest}&from=org/other", f"mount={digest}"):
        world[user].call("POST", f"/v2/{target}/blobs/uploads/?{query}").expect(202)
    world[user].get_blob(target, digest).expect(404)


def test_a_mount_that_is_refused_looks_like_one_of_nothing(world: World) -> None:
    hidden = world["admin"].push_blob("org/other", os.urandom(100))
    world.server.make_repository("stranger/looks")
    client = world["stranger"]

    def ask(digest: str, source: str) -> str:
        answer = client.call("POST", f"/v2/stranger/looks/blobs/uploads/?mount={digest}{source}").expect(202)
        upload = answer.headers["docker-upload-uuid"]
        return anonymized(answer, upload)

    assert ask(hidden, "&from=org/other") == ask(digest_of(b"nowhere"), "&from=org/missing")
    assert ask(hidden, "") == ask(digest_of(b"nowhere"), "")


def test_a_blob_is_mounted_from_what_the_caller_may_pull(world: World) -> None:
    world.server.make_repository("reader/mounts")
    for repository, blob in (("org/private", b"private"), ("org/public", b"public")):
        digest = world["admin"].push_blob(repository, blob + uuid.uuid4().bytes)
        world["reader"].call("POST", f"/v2/reader/mounts/blobs/uploads/?mount={digest}&from={repository}").expect(
            201
        )
        world["reader"].get_blob("reader/mounts", digest).expect(200)
    found = world["admin"].push_blob("org/private", uuid.uuid4().bytes)
    world["reader"].call("POST", f"/v2/reader/mounts/blobs/uploads/?mount={found}").expect(201)


def test_what_gets_the_name_of_the_source_meanwhile_is_no_source(world: World) -> None:
    """The caller may pull from org/was; when it is looked at, a private repository is called so."""
    target = world.server.make_repository("reader/races")
    world.server.make_repository("org/was", visibility="public")
    world.server.make_repository("org/secret")
    digest = Digest.parse(world["admin"].push_blob("org/secret", os.urandom(100)))

    async def mount(application: Application) -> bool:
        api: Any = application._registry_api()
        reader = await application.accounts.get("reader")
        request = SimpleNamespace(claims=Claims(reader.id, "reader", {}, catalog=False, expires_at=0))
        find = api._access.find_source

        async def find_slowly(*arguments: Any) -> Any:
            found = await find(*arguments)
            assert found is not None
            await application.repositories.rename("org/was", parse_repository_name("org/is"))
            await application.repositories.rename("org/secret", parse_repository_name("org/was"))
            return found

        api._access.find_source = find_slowly
        mounted: bool = await api._mount(request, target, digest, "org/was")
        return mounted

    assert world.server.do(mount) is False


def test_an_upload_of_another_repository_is_unknown_to_those_who_guess_its_id(world: World) -> None:
    world.server.make_repository("stranger/guess")
    upload = world["admin"].start_upload("org/private").rpartition("/")[2]
    for method, body in (("GET", None), ("PATCH", b"x"), ("PUT", b"x"), ("DELETE", None)):
        path = f"/v2/stranger/guess/blobs/uploads/{upload}?digest={digest_of(b'x')}"
        assert world["stranger"].call(method, path, body).expect(404).codes == ["BLOB_UPLOAD_UNKNOWN"]
    world["admin"].call("GET", f"/v2/org/private/blobs/uploads/{upload}").expect(204)


def test_a_token_for_one_repository_is_none_for_another(world: World) -> None:
    admin, image = world["admin"], world.image
    token = {"Authorization": f"Bearer {admin.token('repository:org/public:pull,push,delete')}"}
    for method, path, body in (
        *attempts("org/private", image).values(),
        ("POST", "/v2/org/private/blobs/uploads/", None),
        ("PUT", "/v2/org/private/manifests/v1", image.payload),
        ("DELETE", "/v2/org/private/manifests/v1", None),
        ("GET", "/v2/_catalog", None),
    ):
        assert admin.send(method, path, body, token).expect(401).codes == ["DENIED"]


def test_a_token_grants_only_the_actions_that_were_asked_for(world: World) -> None:
    admin = world["admin"]
    for actions, allowed in (("pull", {"GET"}), ("push", {"POST"}), ("delete", {"DELETE"})):
        token = {"Authorization": f"Bearer {admin.token(f'repository:org/public:{actions}')}"}
        for method, path, good in (
            ("GET", "/v2/org/public/manifests/v1", 200),
            ("POST", "/v2/org/public/blobs/uploads/", 202),
            ("DELETE", f"/v2/org/public/manifests/{digest_of(b'none')}", 404),
        ):
            answer = admin.send(method, path, None, token)
            if method in allowed:
                answer.expect(good)
            else:
                assert answer.expect(401).codes == ["DENIED"]


# --- rights that were taken away --------------------------------------------------------------------------------


@pytest.fixture
def leaver(world: World) -> Iterator[tuple[Client, str]]:
    """Somebody with a grant of their own, and the private repository that it is for."""
    user = f"u{uuid.uuid4().hex[:10]}"
    repository = f"org/r{uuid.uuid4().hex[:10]}"
    world.server.make_user(user)
    world.server.make_repository(repository)
    world.server.grant(f"org/{user}", "read-write", users=(user,), repository=repository)
    client = Client(world.server, user)
    yield client, repository
    client.close()


def writes(client: Client, repository: str, upload: str, image: Image) -> list[Answer]:
    """Every way to change something, with the token that the client has."""
    return [
        client.call("POST", f"/v2/{repository}/blobs/uploads/"),
        client.call("POST", f"/v2/{repository}/blobs/uploads/?digest={digest_of(b'late')}", b"late"),
        client.call("PATCH", upload, b"late"),
        client.call("PUT", f"{upload}?digest={digest_of(b'')}", b""),
        client.call("DELETE", upload),
        client.call("GET", upload),
        client.put_manifest(repository, image, "late"),
        client.call("DELETE", f"/v2/{repository}/manifests/v1"),
        client.call("DELETE", f"/v2/{repository}/blobs/{digest_of(image.blobs[0])}"),
    ]


def assert_stopped(answers: list[Answer]) -> None:
    for answer in answers:
        assert answer.expect(401).codes == ["DENIED"]


@pytest.mark.parametrize("how", ["grant", "team", "team member", "member", "deactivation", "deletion"])
def test_writes_stop_at_once_when_a_right_ends(world: World, leaver: tuple[Client, str], how: str) -> None:
    client, repository = leaver
    user, image = str(client.user), make_image()
    client.push(repository, image, "v1")
    upload = client.start_upload(repository)

    async def end(application: Application) -> None:
        accounts = application.accounts
        if how == "grant":
            await grant_team(accounts, repository, user, Level.NONE)
        elif how == "team":
            await accounts.organizations.delete_team("org", user)
        elif how == "team member":
            await accounts.organizations.remove_team_member("org", user, user)
        elif how == "member":
            await accounts.organizations.remove_member("org", user)
        elif how == "deactivation":
            await accounts.update(user, is_active=False)
        else:
            await accounts.delete(user)

    world.server.do(end)
    assert_stopped(writes(client, repository, upload, image))
    world["admin"].assert_whole(repository, image, "v1")
    assert world["admin"].call("GET", f"/v2/{repository}/tags/list").json["tags"] == ["v1"]
    assert world["admin"].call("GET", upload).expect(204).headers["range"] == "0-0"


def test_a_grant_that_is_lowered_leaves_what_it_still_gives(world: World, leaver: tuple[Client, str]) -> None:
    client, repository = leaver
    image = make_image()
    client.push(repository, image, "v1")
    upload = client.start_upload(repository)
    world.server.grant(f"org/{client.user}", "read-only", repository=repository)
    assert_stopped(writes(client, repository, upload, image))
    client.token(f"repository:{repository}:pull,push,delete", fresh=True)
    client.assert_whole(repository, image, "v1")
    assert_stopped(writes(client, repository, upload, image))


def test_a_new_token_grants_nothing_any_more(world: World, leaver: tuple[Client, str]) -> None:
    client, repository = leaver
    client.push(repository, make_image(), "v1")
    world.server.grant(f"org/{client.user}", "none", repository=repository)
    client.token(f"repository:{repository}:pull,push,delete", fresh=True)
    assert client.get_manifest(repository, "v1").expect(401).codes == ["DENIED"]


def test_reads_end_with_the_life_of_the_token(world: World, leaver: tuple[Client, str]) -> None:
    client, repository = leaver
    client.push(repository, make_image(), "v1")
    world.server.grant(f"org/{client.user}", "none", repository=repository)
    # As one that was issued before: whoever reads is asked for nothing else.
    short = issue(world.server, str(client.user), {repository: frozenset({"pull"})}, life_seconds=5)
    issued = time.monotonic()
    seen = set()
    while True:
        asked = time.monotonic()
        answer = client.send("GET", f"/v2/{repository}/manifests/v1", headers={"Authorization": f"Bearer {short}"})
        seen.add(answer.status)
        if answer.status == 401:
            break
        assert asked - issued < 5 + 5  # what is asked for later is refused, however long it takes
        time.sleep(0.1)
    assert seen == {200, 401}
    assert answer.codes == ["UNAUTHORIZED"]
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_the_life_of_a_token_is_the_setting_and_at_most_five_minutes(
    world: World, make_server: Callable[..., Server]
) -> None:
    """The bound of how long reading may go on after a right was removed."""
    for server, seconds in ((world.server, 300), (make_server({"auth.token_seconds": 60}), 60)):
        client = Client(server)
        answer = client.send("GET", "/auth/token?service=dtr", headers={"Authorization": client.basic()}).json
        payload = answer["token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        assert answer["expires_in"] == seconds
        assert claims["exp"] - claims["iat"] == seconds


def test_a_deactivated_user_gets_no_token_by_any_secret(world: World, leaver: tuple[Client, str]) -> None:
    client, _ = leaver
    user = str(client.user)
    access = world.server.do(lambda application: application.accounts.tokens.create(user, "a label"))
    headers = {"Authorization": client.basic()}
    refresh = client.send("GET", "/auth/token?service=dtr&offline_token=true", headers=headers).json[
        "refresh_token"
    ]

    def statuses() -> list[int]:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        by_access = Client(world.server, user, access)
        return [
            client.send("GET", "/auth/token?service=dtr", headers=headers).status,
            by_access.send("GET", "/auth/token?service=dtr", headers={"Authorization": by_access.basic()}).status,
            client.send(
                "POST", "/auth/token", f"grant_type=refresh_token&refresh_token={refresh}".encode(), form
            ).status,
        ]

    assert statuses() == [200, 200, 200]
    world.server.do(lambda application: application.accounts.update(user, is_active=False))
    assert statuses() == [401, 401, 401]
    # Whoever comes back logs in again; the access token is the user's own and not ended for good.
    world.server.do(lambda application: application.accounts.update(user, is_active=True))
    assert statuses() == [200, 200, 401]


def test_the_catalog_of_a_deactivated_user_ends_with_the_right(world: World, leaver: tuple[Client, str]) -> None:
    client, repository = leaver
    assert repository in client.call("GET", "/v2/_catalog").json["repositories"]
    world.server.do(lambda application: application.accounts.update(str(client.user), is_active=False))
    listed = client.call("GET", "/v2/_catalog")  # with the token from before
    assert repository not in listed.json.get("repositories", [])


def test_rights_hold_for_all_workers_at_once(world: World, leaver: tuple[Client, str]) -> None:
    client, repository = leaver
    client.push(repository, make_image(), "v1")
    world.server.grant(f"org/{client.user}", "none", repository=repository)
    statuses = set()
    for _ in range(12):
        client.close()  # the next connection may go to the other worker
        statuses.add(client.call("POST", f"/v2/{repository}/blobs/uploads/").status)
    assert statuses == {401}


def test_rights_that_come_and_go_hold_at_once_at_every_connection(
    world: World, leaver: tuple[Client, str]
) -> None:
    """All workers have just looked at them, for connections that stay where they are."""
    client, repository = leaver
    start = f"/v2/{repository}/blobs/uploads/"
    others = [Client(world.server, str(client.user)) for _ in range(7)]
    connections = [client, *others]
    for one in connections:
        one.start_upload(repository)
    for level, status in [("none", 401), ("read-write", 202)] * 5:
        world.server.grant(f"org/{client.user}", level, repository=repository)
        for _ in range(2):
            assert [one.call("POST", start).status for one in connections] == [status] * 8
    for one in others:
        one.close()


def test_visibility_that_changes_holds_for_the_next_token(world: World) -> None:
    path = f"org/v{uuid.uuid4().hex[:10]}"
    world.server.make_repository(path, visibility="public")
    world["admin"].push(path, make_image(), "v1")
    nobody = world[None]
    nobody.get_manifest(path, "v1").expect(200)
    world.server.do(lambda application: application.repositories.update(path, visibility="private"))
    nobody.token(f"repository:{path}:pull,push,delete", fresh=True)
    assert nobody.get_manifest(path, "v1").expect(401).codes == ["DENIED"]
    world.server.do(lambda application: application.repositories.update(path, visibility="public"))
    nobody.token(f"repository:{path}:pull,push,delete", fresh=True)
    nobody.get_manifest(path, "v1").expect(200)


def test_no_secret_is_in_the_log(world: World) -> None:
    token = world["admin"].token("repository:org/private:pull,push,delete")
    answer = world["admin"].get_manifest("org/private", "v1").expect(200)
    wait_until(lambda: answer.headers["x-request-id"] in world.server.log)
    log = world.server.log
    assert token not in log
    assert token.split(".")[2] not in log
    assert "admin-password" not in log
    assert not re.search(r"Basic [A-Za-z0-9+/=]{6,}", log)
