"""Several workers and process trees that issue and check the same tokens; slowing down those who guess."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import BigInteger, bindparam, func, select, update
from tests.conftest import Cluster
from tests.support.client import Client
from tests.support.images import make_image
from tests.support.server import Server

from dtr.app import Application
from dtr.db import Statement, Transaction
from dtr.db.schema import login_failures, signing_keys

_DAY = 86_400_000
_AGE = Statement(
    update(signing_keys).values(
        created_at=signing_keys.c.created_at - bindparam("by", type_=BigInteger),
        signs_from=signing_keys.c.signs_from - bindparam("by", type_=BigInteger),
    )
)
_LENGTHEN = Statement(  # the pause of who has to wait: of the others it is over
    update(login_failures)
    .where(login_failures.c.blocked_until == select(func.max(login_failures.c.blocked_until)).scalar_subquery())
    .values(blocked_until=login_failures.c.blocked_until + 50_000)
)


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(
    request: pytest.FixtureRequest, make_server: Callable[..., Server], postgresql_cluster: Cluster
) -> Iterator[tuple[Server, Server]]:
    """Two process trees over the same data, the second not started yet."""
    settings = {"database.url": postgresql_cluster.create(tables=True)} if request.param == "postgresql" else {}
    first = make_server(settings, start=False)
    first.start()
    first.make_repository("admin/shared")
    shared = {
        "database.url": settings.get("database.url", f"sqlite:///{first.directory / 'metadata.db'}"),
        "storage.filesystem.root": first.directory / "blobs",
    }
    return first, make_server(shared, start=False)


def works(token: str, *servers: Server) -> bool:
    headers = {"Authorization": f"Bearer {token}"}
    answers = {
        Client(one, None).send("GET", "/v2/admin/shared/tags/list", headers=headers).status for one in servers
    }
    assert len(answers) == 1
    return answers == {200}


def test_a_token_of_one_is_accepted_by_the_other_at_once(pair: tuple[Server, Server]) -> None:
    first, second = pair
    early = Client(first).token("repository:admin/shared:pull")
    second.start()
    assert works(early, first, second)
    assert works(Client(second).token("repository:admin/shared:pull"), second, first)


def test_content_pushed_through_one_is_pulled_through_the_other(pair: tuple[Server, Server]) -> None:
    first, second = pair
    second.start()
    image = make_image()
    Client(first).push("admin/shared", image, "v1")
    Client(second).assert_whole("admin/shared", image, "v1")


def test_keys_change_between_the_two_without_anybody_noticing(pair: tuple[Server, Server]) -> None:
    first, second = pair
    old = Client(first).token("repository:admin/shared:pull")

    async def age(application: Application, by: int) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(_AGE, by=by)

        await application.database.unit(work)

    def key_ids(server: Server) -> set[str]:
        return {key["kid"] for key in Client(server, None).send("GET", "/auth/jwks.json").json["keys"]}

    before = key_ids(first)
    first.do(lambda application: age(application, 31 * _DAY))
    second.start()
    Client(second).token("repository:admin/shared:pull")
    published = key_ids(second)
    assert before < published, "the next key is published before it signs"
    assert works(old, first, second)
    # When the new key has begun to sign somewhere, those who do not know it look it up.
    second.stop()
    first.do(lambda application: age(application, 3_600_000))
    second.start()
    new = Client(second).token("repository:admin/shared:pull")
    time.sleep(1.1)  # nobody looks twice in a second
    assert works(new, second, first)
    assert works(old, second, first)
    assert works(Client(first).token("repository:admin/shared:pull", fresh=True), second, first)


def test_all_workers_accept_what_one_of_them_issued(make_server: Callable[..., Server]) -> None:
    server = make_server(workers=3)
    server.make_repository("admin/shared")
    client = Client(server)
    for _ in range(5):
        client.close()
        token = client.token("repository:admin/shared:pull", fresh=True)
        for _ in range(5):
            assert works(token, server)


def test_guessing_is_slowed_down_and_the_client_told_for_how_long(make_server: Callable[..., Server]) -> None:
    server = make_server(workers=2)
    server.make_user("victim")
    guesser = Client(server, "victim", "wrong")
    headers = {"Authorization": guesser.basic()}
    deadline = time.monotonic() + 60
    while (answer := guesser.send("GET", "/auth/token", headers=headers)).status == 401:
        assert time.monotonic() < deadline
    assert answer.expect(429).codes == ["TOOMANYREQUESTS"]
    assert int(answer.headers["retry-after"]) >= 1

    async def lengthen(application: Application) -> None:  # the first pauses are short
        await application.database.unit(lambda tx: tx.execute(_LENGTHEN))

    server.do(lengthen)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = b"grant_type=password&username=victim&password=wrong"
    guesser.send("POST", "/auth/token", body, form).expect(429)
    # Others are not concerned, and neither is a right access token of the same user.
    Client(server).token()
    secret = server.do(lambda application: application.accounts.tokens.create("victim", "a robot"))
    Client(server, "victim", secret).token()
