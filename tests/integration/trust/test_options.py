"""The notary protocol in this process: what operators set, what a request costs, and what waits for what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.images import digest_of
from tests.support.notary import Publisher
from tests.support.trust import BOUNDARY, form

from dtr.app import Application
from dtr.config import load
from dtr.http.trust import Options, TrustAPI
from dtr.metrics import Metrics, prepare
from dtr.oci import parse_repository_name
from dtr.registry import Settings

TAG = {"v1": (digest_of(b"v1"), 123)}
HOST = "registry.example"
GUN = f"{HOST}/admin/app"
Answer = tuple[int, dict[bytes, bytes], bytes]


@pytest.fixture
async def application(
    tmp_path: Path, make_database_url: Callable[[str], Awaitable[str]]
) -> AsyncIterator[Callable[..., Application]]:
    """``application(**settings)``, with an administrator and a private repository."""
    made: list[Application] = []
    url = await make_database_url("sqlite")

    def make(**settings: str) -> Application:
        given = {"DTR_DATA_DIR": str(tmp_path), "DTR_DATABASE__URL": url, "DTR_AUTH__HASH_MEMORY_KIB": "64"}
        given |= {f"DTR_TRUST__{name.upper()}": value for name, value in settings.items()}
        made.append(Application(load(None, given, {}).settings))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
async def rooms(application: Callable[..., Application]) -> Application:
    return await filled(application())


async def filled(made: Application) -> Application:
    await made.ensure_admin("admin-password")
    await made.repositories.create(parse_repository_name("admin/app"), Settings())
    return made


async def token(application: Application, gun: str = GUN) -> str:
    """One that grants everything on a collection."""
    account = await application.accounts.get("admin")
    path = gun.partition("/")[2]
    return await application.tokens.issue(
        account.id, "admin", {gun: frozenset({"*"})}, aliases={gun: path}, catalog=True
    )


async def send(app: Any, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> Answer:
    """One request to an ASGI application."""
    sent: list[dict[str, Any]] = []
    lines = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    lines.append((b"content-length", b"%d" % len(body)))
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path.partition("?")[0],
        "scheme": "https",
        "client": None,
    }
    scope |= {"query_string": path.partition("?")[2].encode(), "headers": lines}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def collect(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, collect)
    head, *rest = sent
    return head["status"], dict(head["headers"]), b"".join(one["body"] for one in rest)


async def ask(application: Application, method: str, tail: str, body: bytes = b"", gun: str = GUN) -> Answer:
    headers = {
        "Host": HOST,
        "Authorization": f"Bearer {await token(application, gun)}",
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
    }
    path = f"/v2/{gun}/_trust/{tail}" if tail.startswith(("tuf", "changefeed?")) else tail
    return await send(application._trust_api(), method, path, headers, body)


async def publish(application: Application, gun: str = GUN) -> Publisher:
    keys = [
        json.loads((await ask(application, "GET", f"tuf/{role}.key", gun=gun))[2])
        for role in ("timestamp", "snapshot")
    ]
    publisher = Publisher(gun, *keys)
    status, _, answer = await ask(application, "POST", "tuf/", form(list(publisher.first(TAG).items())), gun)
    assert (status, answer) == (200, b"")
    return publisher


async def test_an_age_of_zero_keeps_everything_out_of_caches(application: Callable[..., Application]) -> None:
    made = await filled(application(current_age="0", consistent_age="17"))
    await publish(made)
    status, headers, _ = await ask(made, "GET", "tuf/root.json")
    assert (status, headers[b"cache-control"]) == (200, b"max-age=0, no-cache, no-store")
    assert headers[b"pragma"] == b"no-cache"
    assert (await ask(made, "GET", "tuf/1.root.json"))[1][b"cache-control"] == b"private, max-age=17"


async def test_a_kind_of_keys(application: Callable[..., Application]) -> None:
    made = await filled(application(key_algorithm="ed25519"))
    await publish(made)
    for method, tail in (("GET", "tuf/timestamp.key"), ("POST", "tuf/snapshot.key")):
        assert json.loads((await ask(made, method, tail))[2])["keytype"] == "ed25519"


async def test_changes_are_listed_after_a_minute(
    rooms: Application, application: Callable[..., Application]
) -> None:
    await publish(rooms)
    at_once = application(changes_after_seconds="0")
    for feed in ("changefeed?records=5", "/v2/_trust/changefeed?records=5"):
        assert json.loads((await ask(rooms, "GET", feed))[2]) == {"count": 0, "records": []}
        assert json.loads((await ask(at_once, "GET", feed))[2])["count"] == 1


async def test_the_address_that_the_settings_say_clients_use_is_one_of_the_server(rooms: Application) -> None:
    gun = "known.example:8443/admin/app"
    assert (await ask(rooms, "GET", "tuf/root.json", gun=gun))[0] == 404
    assert b"no repository under an address" in (await ask(rooms, "POST", "tuf/", form([]), gun=gun))[2]
    await rooms.live.change({"dtrHost": "known.example:8443"})
    await publish(rooms, gun)
    assert (await ask(rooms, "GET", "tuf/root.json", gun=gun))[0] == 200


async def test_reading_takes_two_statements_and_one_where_no_right_changed(
    rooms: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights and file; the token was verified before."""
    monkeypatch.setattr("dtr.db.seldom._REMEMBERED_SECONDS", 600.0)
    await publish(rooms)
    taken: list[str] = []
    api = rooms._trust_api()
    headers = {"Host": HOST, "Authorization": f"Bearer {await token(rooms)}"}
    rooms.database.observe = lambda operation, _: taken.append(operation)
    for number, file in enumerate(("root.json", "timestamp.json", "1.root.json", f"root.{'0' * 64}.json")):
        await rooms.repositories.update("admin/app", visibility="private" if number % 2 else "public")
        for expected in (["read", "read"], ["read"]):
            taken.clear()
            await send(api, "GET", f"/v2/{GUN}/_trust/tuf/{file}", headers)
            assert taken == expected, file


async def test_large_updates_are_published_one_after_the_other(rooms: Application) -> None:
    running, most = [], []

    class Slow:
        async def publish(self, *_: object, by: object) -> None:
            running.append(1)
            most.append(len(running))
            async with asyncio.timeout(60):
                while max(most) < together:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)  # nobody else comes
            running.pop()

    options = Options(update_limit=4_000_000)
    api = TrustAPI(
        trust=Slow(),  # type: ignore[arg-type]
        tokens=rooms.tokens,
        accounts=rooms.accounts,
        settings=rooms.live,
        hosts=rooms.hosts,
        health=rooms.health,
        options=options,
    )
    headers = {
        "Host": HOST,
        "Authorization": f"Bearer {await token(rooms)}",
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
    }
    for size, together in ((1_500_000, 1), (1_000, 3)):
        most.clear()
        body = form([("targets", b'{"signed":{}}' + b" " * size)])
        answers = await asyncio.gather(
            *(send(api, "POST", f"/v2/{GUN}/_trust/tuf/", headers, body) for _ in range(3))
        )
        assert [one[0] for one in answers] == [200] * 3
        assert max(most) == together


async def test_content_trust_can_be_switched_off(application: Callable[..., Application], tmp_path: Path) -> None:
    prepare(tmp_path / "metrics")
    for enabled, path, status, word in (
        ("true", f"/v2/{GUN}/_trust/tuf/root.json", 401, b"UNAUTHORIZED"),
        ("true", "/_notary_server/health", 200, b"{}"),
        ("false", f"/v2/{GUN}/_trust/tuf/root.json", 404, b"UNSUPPORTED"),
        ("false", "/_notary_server/health", 404, b"NOT_FOUND"),
        ("false", "/health", 200, b'"trust":""'),
    ):
        front = application(enabled=enabled).front(None, Metrics(tmp_path / "metrics"))
        found = await send(front, "GET", path, {"Host": HOST})
        assert (found[0], word in found[2]) == (status, True), (enabled, path, found)
