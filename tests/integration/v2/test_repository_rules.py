"""What settings of a repository and the registry do to a push: immutable tags, tag limit, create on push."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text
from tests.support.backends import BACKENDS, new_repository, run_server
from tests.support.client import Client
from tests.support.images import Image, digest_of, make_image
from tests.support.server import Server

from dtr.accounts import Action, TokenScope
from dtr.db import Statement

NEEDS_NO_BLOBS = True


def tags(client: Client, repository: str) -> list[str]:
    found: list[str] = client.call("GET", f"/v2/{repository}/tags/list").expect(200).json["tags"]
    return found


# --- immutable tags ---------------------------------------------------------------------------------------------


def test_an_immutable_tag_is_not_overwritten_and_dtr_says_why(registry: Server, client: Client) -> None:
    repository = new_repository(registry, immutable_tags=True)
    first, second = make_image(), make_image()
    client.push(repository, first, "v1")
    client.push(repository, second)
    answer = client.put_manifest(repository, second, "v1").expect(409)
    assert answer.json == {
        "errors": [
            {
                "code": "UNKNOWN",
                "message": f"tag=v1 cannot be overwritten because {registry.address}/{repository} "
                "is an immutable repository",
            }
        ]
    }
    client.assert_whole(repository, first, "v1")


def test_an_immutable_tag_may_be_pushed_again_as_it_is(registry: Server, client: Client) -> None:
    repository = new_repository(registry, immutable_tags=True)
    image = make_image()
    client.push(repository, image, "v1")
    client.put_manifest(repository, image, "v1").expect(201)


def test_new_tags_and_deletions_are_free_in_an_immutable_repository(registry: Server, client: Client) -> None:
    repository = new_repository(registry, immutable_tags=True)
    image, other = make_image(), make_image()
    client.push(repository, image, "v1")
    client.push(repository, image, "v2")
    client.call("DELETE", f"/v2/{repository}/manifests/v1").expect(202)
    client.push(repository, other, "v1")
    client.assert_whole(repository, other, "v1")


# --- tag limit --------------------------------------------------------------------------------------------------


def test_the_oldest_tags_give_way_to_new_ones_beyond_the_limit(registry: Server, client: Client) -> None:
    repository = new_repository(registry, tag_limit=2)
    images = [make_image() for _ in range(4)]
    for number, image in enumerate(images):
        client.push(repository, image, f"v{number}")
    assert tags(client, repository) == ["v2", "v3"]
    for number in (2, 3):
        client.assert_whole(repository, images[number], f"v{number}")
    client.assert_whole(repository, images[0])  # by its digest, until it is collected


def test_moving_a_tag_costs_no_other_at_the_limit(registry: Server, client: Client) -> None:
    repository = new_repository(registry, tag_limit=2)
    for tag in ("v1", "v2", "v1", "v2"):
        client.push(repository, make_image(), tag)
    assert tags(client, repository) == ["v1", "v2"]


# --- create on push ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=BACKENDS[:2])
def creating(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server where pushes may create repositories, with an organisation, its owner, a member and an outsider."""
    settings = {"registry.create_on_push": "true"}
    with run_server(request.param, request, tmp_path_factory, settings) as running:
        for user in ("owner", "manager", "writer", "outsider"):
            running.make_user(user)
        running.make_organization("org")
        running.do(
            lambda application: application.accounts.organizations.put_member("org", "owner", is_admin=True)
        )
        running.grant("org/managers", "admin", users=("manager",))
        running.grant("org/writers", "read-write", users=("writer",))
        yield running


def push(client: Client, repository: str, image: Image) -> int:
    """Push; the status of the first request that was not answered well, or that of the last."""
    answer = client.call("POST", f"/v2/{repository}/blobs/uploads/")
    if answer.status != 202:
        return answer.status
    client.push(repository, image, "v1")
    return 201


@pytest.mark.parametrize(
    ("user", "repository"),
    [
        ("outsider", "outsider/new"),
        ("outsider", "outsider/deep/er/new"),
        ("owner", "org/by-owner"),
        ("manager", "org/by-manager"),
        ("admin", "org/by-admin"),
        ("admin", "outsider/by-admin"),
    ],
)
def test_a_push_creates_a_private_repository_where_the_pusher_may_make_them(
    creating: Server, as_user: Callable[..., Client], user: str, repository: str
) -> None:
    client, image = as_user(creating, user), make_image()
    assert push(client, repository, image) == 201
    client.assert_whole(repository, image, "v1")
    stranger = as_user(creating, None)
    assert stranger.get_manifest(repository, "v1").expect(401).codes == ["DENIED"]


@pytest.mark.parametrize(
    ("user", "repository"),
    [
        ("outsider", "org/new"),
        ("writer", "org/new"),
        ("outsider", "owner/new"),
        ("owner", "outsider/by-owner"),
        ("admin", "nobody/new"),
        (None, "org/new"),
    ],
)
def test_a_push_creates_nothing_elsewhere(
    creating: Server, as_user: Callable[..., Client], user: str | None, repository: str
) -> None:
    answer = as_user(creating, user).call("POST", f"/v2/{repository}/blobs/uploads/")
    assert answer.expect(401).codes == ["DENIED"]
    assert repository not in as_user(creating, "admin").call("GET", "/v2/_catalog").json["repositories"]


def test_a_token_with_a_scope_creates_within_it_and_grants_no_more_than_it_afterwards(
    creating: Server, as_user: Callable[..., Client]
) -> None:
    def client(*patterns: str) -> Client:
        scope = TokenScope(patterns, frozenset({Action.PUSH}))
        secret = creating.do(lambda application: application.accounts.tokens.create("owner", "ci", scope=scope))
        return as_user(creating, "owner", password=secret)

    image = make_image()
    for patterns, repository, status in (
        (("org/elsewhere",), "org/scoped", 401),
        (("org/scop*",), "org/scoped", 201),
        (("*",), "owner/scoped", 201),
    ):
        pusher = client(*patterns)
        assert push(pusher, repository, image) == status
        # With the bearer token from before the creation, and with a new one.
        for fresh in (False, True) if status == 201 else ():
            pusher.token(f"repository:{repository}:pull,push,delete", fresh=fresh)
            assert pusher.get_manifest(repository, "v1").status == 401
            assert pusher.call("DELETE", f"/v2/{repository}/manifests/v1").status == 401


def test_what_a_push_created_is_told_with_who_pushed(creating: Server, as_user: Callable[..., Client]) -> None:
    assert push(as_user(creating, "manager"), "org/told", make_image()) == 201
    told = creating.do(
        lambda application: application.database.fetch_all(
            Statement(text("SELECT type, actor_name, address FROM events WHERE object_name = 'org/told'"))
        )
    )
    assert [tuple(row) for row in told] == [("CREATE", "manager", "127.0.0.1")]


def test_a_namespace_alone_is_no_repository(creating: Server, as_user: Callable[..., Client]) -> None:
    answer = as_user(creating, "outsider").call("POST", "/v2/outsider/blobs/uploads/").expect(400)
    assert answer.codes == ["NAME_INVALID"]
    assert "outsider" not in as_user(creating, "admin").call("GET", "/v2/_catalog").json["repositories"]


def test_pulling_creates_nothing(creating: Server, as_user: Callable[..., Client]) -> None:
    client = as_user(creating, "outsider")
    client.get_manifest("outsider/pulled", "v1").expect(404)
    client.call("GET", "/v2/outsider/pulled/tags/list").expect(404)
    client.call("DELETE", "/v2/outsider/pulled/manifests/v1").expect(404)
    assert "outsider/pulled" not in client.call("GET", "/v2/_catalog").json["repositories"]


def test_two_first_pushes_at_once_make_one_repository(creating: Server, as_user: Callable[..., Client]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    clients = [as_user(creating, "outsider") for _ in range(6)]
    image = make_image()
    for one in clients:
        one.token("repository:outsider/race:pull,push,delete")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda one: one.push("outsider/race", image, "v1"), clients))
    clients[0].assert_whole("outsider/race", image, "v1")


def test_switched_off_a_push_creates_nothing_and_says_that_the_repository_is_missing(
    registry: Server, client: Client
) -> None:
    for method, path in (
        ("POST", "/v2/admin/never-made/blobs/uploads/"),
        ("PUT", "/v2/admin/never-made/manifests/v1"),
        ("GET", "/v2/admin/never-made/tags/list"),
        ("GET", f"/v2/admin/never-made/referrers/{digest_of(b'')}"),
    ):
        answer = client.call(method, path, b"{}" if method == "PUT" else None).expect(404)
        assert answer.codes == ["NAME_UNKNOWN"]
    assert "admin/never-made" not in client.call("GET", "/v2/_catalog").json["repositories"]
