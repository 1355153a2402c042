"""Who may do what to collections: of private and public repositories, at this moment, by which tokens."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator

import pytest
from tests.support.client import settle
from tests.support.images import digest_of
from tests.support.server import Server
from tests.support.trust import MANAGE, READ, SIGN, Trust

from dtr.accounts import Action, Level, TokenScope
from dtr.app import Application
from dtr.oci import parse_repository_name

pytestmark = pytest.mark.parametrize("notary", ["postgresql"], indirect=True, scope="session")

TAG = {"v1": (digest_of(b"v1"), 123)}
EVERYBODY = ("admin", "owner", "keeper", "writer", "reader", "auditor", "stranger", None)
READERS = {"admin", "owner", "keeper", "writer", "reader", "auditor"}
WRITERS = {"admin", "owner", "keeper", "writer"}
KEEPERS = {"admin", "owner", "keeper"}


@pytest.fixture
def people(notary: Server) -> dict[str | None, Trust]:
    return {user: Trust(notary, user) for user in EVERYBODY}


@pytest.fixture(params=["private", "public"])
def visibility(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_who_may_what(people: dict[str | None, Trust], make_path: Callable[..., str], visibility: str) -> None:
    gun = people["admin"].gun(make_path(visibility))
    publisher = people["admin"].publisher(gun)
    people["admin"].publish(gun, publisher.first(TAG)).expect(200)
    digest = hashlib.sha256(publisher.files["root"]).hexdigest()
    is_public = visibility == "public"
    for user, (method, tail, actions, allowed) in itertools.product(
        EVERYBODY,
        (
            ("GET", "tuf/root.json", READ, set(EVERYBODY) if is_public else READERS),
            ("GET", "tuf/1.root.json", READ, set(EVERYBODY) if is_public else READERS),
            ("GET", f"tuf/root.{digest}.json", READ, set(EVERYBODY) if is_public else READERS),
            ("GET", "tuf/9.root.json", READ, set(EVERYBODY) if is_public else READERS),
            ("GET", f"tuf/root.{'0' * 64}.json", READ, set(EVERYBODY) if is_public else READERS),
            ("GET", "changefeed?records=1", READ, set(EVERYBODY) - {None} if is_public else READERS),
            ("GET", "tuf/timestamp.key", SIGN, WRITERS),
            ("POST", "tuf/", SIGN, WRITERS),
            ("POST", "tuf/snapshot.key", MANAGE, KEEPERS),
        ),
    ):
        answer = people[user].ask(method, gun, tail, actions, b"")
        assert (answer.status != 401) is (user in allowed), (user, method, tail)
        assert (
            answer.status in {200, 401} or b"MALFORMED_UPLOAD" in answer.body or "9.root" in tail or "000" in tail
        )
        # And not with more than that, which the token service does not grant.
        assert people[user].ask(method, gun, tail, MANAGE, b"").status == answer.status, (user, method, tail)
    for user in EVERYBODY:
        answer = people[user].delete(gun)
        assert answer.status == (200 if user in KEEPERS else 401), user


def test_what_is_not_there_looks_like_what_must_not_be_known(
    people: dict[str | None, Trust], make_path: Callable[..., str]
) -> None:
    admin = people["admin"]
    private, missing = admin.gun(make_path()), admin.gun("org/never")
    admin.publish(private, admin.publisher(private).first(TAG)).expect(200)
    for user in ("stranger", None):
        for method, tail, actions in (
            ("GET", "tuf/root.json", READ),
            ("GET", "tuf/timestamp.key", SIGN),
            ("POST", "tuf/", SIGN),
            ("DELETE", "tuf/", MANAGE),
            ("GET", "changefeed?records=1", READ),
        ):
            shown, hidden = (people[user].ask(method, gun, tail, actions, b"") for gun in (private, missing))
            assert shown.status == hidden.status == 401
            assert shown.body.replace(private.encode(), missing.encode()) == hidden.body
    # Who could make it is told that it is missing; and first publications begin with that.
    for user in ("admin", "owner"):
        assert people[user].get(missing, "root.json").expect(404).codes == ["METADATA_NOT_FOUND"]
        assert people[user].ask("GET", missing, "tuf/timestamp.key", SIGN).expect(404).codes == [
            "METADATA_NOT_FOUND"
        ]
        refused = people[user].publish(missing, {}).expect(400)
        assert refused.codes == ["INVALID_GUN"]
        assert "org/never does not exist" in refused.json["errors"][0]["detail"]["Error"]["Msg"]
        people[user].delete(missing).expect(404)
    for user in ("keeper", "writer", "reader", "auditor"):
        people[user].get(missing, "root.json").expect(401)


def test_rights_are_those_of_the_moment(
    notary: Server, people: dict[str | None, Trust], make_path: Callable[..., str]
) -> None:
    path = make_path()
    gun = people["admin"].gun(path)
    writer = people["writer"]
    writer.publish(gun, writer.publisher(gun).first(TAG)).expect(200)
    writer.get(gun, "root.json").expect(200)

    async def take(application: Application) -> None:
        grants = application.accounts.grants
        await grants.set_user(await grants.on(path), "writer", Level.NONE)

    notary.do(take)
    for answer in (
        writer.publish(gun, {}),
        writer.get(gun, "root.json"),
        writer.ask("GET", gun, "tuf/snapshot.key", SIGN),
    ):
        assert 'error="insufficient_scope"' in answer.expect(401).headers["www-authenticate"]
    # Another repository of the name has none of it.
    people["admin"].delete(gun).expect(200)

    async def replace(application: Application) -> None:
        await application.repositories.delete(parse_repository_name(path))

    owner = people["owner"]
    owner.publish(gun, owner.publisher(gun).first(TAG)).expect(200)
    owner.delete(gun).expect(200)
    notary.do(replace)
    notary.make_repository(path)
    for file in ("root.json", "1.root.json", "timestamp.json"):
        owner.get(gun, file).expect(404)


def test_a_hash_is_no_key_to_private_files(people: dict[str | None, Trust], make_path: Callable[..., str]) -> None:
    """Who knows the hash of a private file cannot have it, nor learn of it through another collection."""
    admin, stranger = people["admin"], people["stranger"]
    private, public = admin.gun(make_path()), admin.gun(make_path("public"))
    publisher = admin.publisher(private)
    admin.publish(private, publisher.first(TAG)).expect(200)
    admin.publish(public, admin.publisher(public).first(TAG)).expect(200)
    bearer = {"Authorization": f"Bearer {stranger.token(f'repository:{public}:pull')}"}
    for role, content in admin.files(private).items():
        name = f"{role}.{hashlib.sha256(content).hexdigest()}.json"
        guess = f"{role}.{hashlib.sha256(content + b'x').hexdigest()}.json"
        right, wrong = (stranger.get(private, file).expect(401) for file in (name, guess))
        assert right.body == wrong.body
        stranger.send("GET", f"/v2/{private}/_trust/tuf/{name}", None, bearer).expect(401)
        right, wrong = (stranger.get(public, file).expect(404) for file in (name, guess))
        assert right.body == wrong.body


def test_an_access_token_with_a_scope_bounds_what_may_be_signed(
    notary: Server, make_path: Callable[..., str]
) -> None:
    path = make_path()

    def make(*actions: Action) -> Trust:
        scope = TokenScope((path,), frozenset(actions))
        secret = notary.do(lambda application: application.accounts.tokens.create("keeper", "t", scope=scope))
        return Trust(notary, "keeper", secret)

    gun = f"{notary.address}/{path}"
    for actions, allowed in (
        ((Action.PULL,), {READ}),
        ((Action.PULL, Action.PUSH), {READ, SIGN}),
        ((Action.PULL, Action.PUSH, Action.DELETE), {READ, SIGN}),
        ((Action.PULL, Action.PUSH, Action.ADMIN), {READ, SIGN, MANAGE}),
    ):
        user = make(*actions)
        assert (user.get(gun, "root.json").status == 404) is (READ in allowed)
        assert (user.ask("GET", gun, "tuf/timestamp.key", SIGN).status == 200) is (SIGN in allowed)
        assert (user.ask("POST", gun, "tuf/timestamp.key", MANAGE).status == 200) is (MANAGE in allowed)


def test_the_changes_of_all_collections_are_those_of_repositories_that_one_sees(
    people: dict[str | None, Trust], make_path: Callable[..., str], notary: Server
) -> None:
    admin = people["admin"]
    private, public = admin.gun(make_path()), admin.gun(make_path("public"))
    for gun in (private, public):
        admin.publish(gun, admin.publisher(gun).first(TAG)).expect(200)

    def feed(user: str | None, query: str = "records=-2") -> list[str]:
        bearer = {"Authorization": f"Bearer {people[user].token('registry:catalog:*')}"}
        answer = people[user].send("GET", f"/v2/_trust/changefeed?{query}", None, bearer).expect(200)
        assert answer.json["count"] == len(answer.json["records"])
        return [record["GUN"] for record in answer.json["records"]]

    for user in ("admin", "auditor", "owner", "reader"):
        assert feed(user) == [private, public], user
    assert private not in feed("stranger", "records=-50")
    assert feed("stranger", "records=-1") == [public]
    refused = people[None].send("GET", "/v2/_trust/changefeed?records=1").expect(401)
    assert refused.headers["www-authenticate"].endswith('scope="registry:catalog:*"')
    bearer = {"Authorization": f"Bearer {people[None].token('registry:catalog:*')}"}
    people[None].send("GET", "/v2/_trust/changefeed?records=1", None, bearer).expect(401)
    # Deleting its repository is told to who sees all, and a token with a scope sees no more than that.
    secret = notary.do(
        lambda application: application.accounts.tokens.create(
            "admin", "t", scope=TokenScope((public.partition("/")[2],), frozenset({Action.PULL}))
        )
    )
    people["stranger"] = Trust(notary, "admin", secret)
    assert private not in feed("stranger", "records=-50")


@pytest.fixture
def read_only(notary: Server) -> Iterator[None]:
    notary.do(lambda application: application.live.change({"readOnlyRegistry": True}))
    settle(notary)
    yield
    notary.do(lambda application: application.live.change({"readOnlyRegistry": False}))
    settle(notary)


def test_a_registry_that_is_read_only_goes_on_to_serve(
    people: dict[str | None, Trust], make_path: Callable[..., str], request: pytest.FixtureRequest
) -> None:
    admin = people["admin"]
    gun = admin.gun(make_path())
    publisher = admin.publisher(gun)
    admin.publish(gun, publisher.first(TAG)).expect(200)
    request.getfixturevalue("read_only")
    admin.files(gun)
    for answer in (
        admin.publish(gun, publisher.sign({"v2": TAG["v1"]})),
        admin.delete(gun),
        admin.ask("POST", gun, "tuf/timestamp.key", MANAGE),
    ):
        assert answer.expect(400).codes == ["UNSUPPORTED"]
        assert "read-only" in answer.json["errors"][0]["detail"]["Error"]["Msg"]


def test_a_collection_goes_on_under_the_name_that_its_repository_had(
    notary: Server, people: dict[str | None, Trust], make_path: Callable[..., str]
) -> None:
    path = make_path()
    admin, writer = people["admin"], people["writer"]
    gun, renamed = admin.gun(path), f"{path}-renamed"
    publisher = writer.publisher(gun)
    writer.publish(gun, publisher.first(TAG)).expect(200)

    async def rename(application: Application) -> None:
        await application.repositories.rename(parse_repository_name(path), parse_repository_name(renamed))

    notary.do(rename)
    for user in ("admin", "writer", "reader"):
        people[user].tokens.clear()
        people[user].get(gun, "timestamp.json").expect(200)
    people["stranger"].get(gun, "timestamp.json").expect(401)
    writer.publish(gun, publisher.sign({"v2": TAG["v1"]})).expect(200)
    people["reader"].publish(gun, {}).expect(401)
    assert admin.get(admin.gun(renamed), "root.json").expect(404).codes == ["METADATA_NOT_FOUND"]
