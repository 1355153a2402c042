"""``/api/v0/events`` and the events of a repository: who sees what, pages, filters, exports."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import time
from typing import Any

import pytest
from tests.support.api import Api, User
from tests.support.images import make_image, make_index
from tests.support.rooms import annotated

from dtr.oci import parse_repository_name

IMAGE = make_image()
REPOSITORY = "/api/v0/repositories/acme/app/events"


@pytest.fixture(scope="module")
def world(api: Api) -> Api:
    """An image that one pushed and another pulled, a deleted tag, grants; and nothing after that."""
    api.make_users("ada", "bob", "eve", "carol")
    api.make_users("iris")
    api.change("UPDATE accounts SET is_auditor = true WHERE name = 'iris'")
    api.make_organization("acme", owners=("ada",), members=("bob",))
    api.make_repository("acme/app")
    api.make_team("acme/readers", "bob")
    api.make_team("acme/admins", "carol")
    api.grant("acme/readers", "read-only", repository="acme/app")
    api.grant("acme/admins", "admin", repository="acme/app")
    ada, bob = api.as_("ada").client, api.as_("bob").client
    ada.push("acme/app", IMAGE, "v1")
    ada.put_manifest("acme/app", annotated(IMAGE, n="2"), "v1").expect(201)
    ada.put_manifest("acme/app", IMAGE, "v2").expect(201)
    ada.call("DELETE", "/v2/acme/app/manifests/v2").expect(202)
    for _ in range(2):
        bob.get_manifest("acme/app", "v1").expect(200)
    bob.get_manifest("acme/app", IMAGE.digest).expect(200)
    bob.call("HEAD", "/v2/acme/app/manifests/v1").expect(200)
    bob.call("GET", "/v2/acme/app/manifests/v1", headers={"If-None-Match": "*"}).expect(304)
    bob.get_manifest("acme/app", "none").expect(404)
    wait_for_pulls(api, 3)
    return api


def wait_for_pulls(api: Api, count: int) -> None:
    """They are written within about a second."""
    deadline = time.monotonic() + 60
    while api.rows("SELECT coalesce(sum(times), 0) FROM events WHERE type = 'GET'") != [(count,)]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def events(user: User, path: str = REPOSITORY, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = user.get(path, pageSize=100, **query).expect(200).json["events"]
    return found


def labels(found: list[dict[str, Any]]) -> list[str]:
    """Oldest first; as often as each happened."""
    return [
        f"{one['type']} {one['object']['type']} {one['object']['name']}".rstrip()
        for one in reversed(found)
        for _ in range(one["times"])
    ]


CONTENT = [
    "CREATE repository acme/app",
    "CREATE manifest",
    "CREATE tag v1",
    "CREATE manifest",
    "UPDATE tag v1",
    "CREATE tag v2",
    "DELETE tag v2",
]


def test_who_administers_a_repository_sees_everything_that_happened_there(world: Api):
    for name in ("admin", "ada", "carol", "iris"):
        found = labels(events(world.as_(name)))
        assert [one for one in found if " grant " not in one][:-3] == CONTENT
        assert [one for one in found if " grant " in one] == [
            one for one in found if one.startswith("CREATE grant")
        ]
        assert sorted(found[-3:]) == ["GET manifest", "GET tag v1", "GET tag v1"]
        assert labels(events(world.as_(name), excludePull=True)) == found[:-3]


def test_a_reader_does_not_see_who_pulled_who_was_granted_and_from_where(world: Api):
    found = events(world.as_("bob"))
    assert labels(found) == CONTENT
    assert {one["remoteAddress"] for one in found} == {""}
    assert events(world.as_("bob"), eventType="GET") == []
    assert events(world.as_("bob"), objectType="grant") == []
    assert {one["remoteAddress"] for one in events(world.as_("ada"))} == {"127.0.0.1", ""}
    answer = world.as_("bob").get(REPOSITORY, count=True).expect(200)
    assert answer.headers["x-resource-count"] == str(len(CONTENT))


def test_who_does_not_see_the_repository(world: Api):
    assert world.as_("eve").get(REPOSITORY).expect(404).codes == ["NO_SUCH_REPOSITORY"]
    assert world.anonymous.get(REPOSITORY).expect(401).codes == ["NOT_AUTHENTICATED"]
    world.make_repository("acme/public", visibility="public")
    assert world.anonymous.get("/api/v0/repositories/acme/public/events").expect(401)
    assert labels(events(world.as_("eve"), "/api/v0/repositories/acme/public/events")) == [
        "CREATE repository acme/public"
    ]


def test_events_of_the_registry_are_for_administrators_and_auditors(world: Api):
    for path in ("/api/v0/events", "/api/v0/events/export"):
        for name in ("ada", "bob", "carol", "eve"):
            assert world.as_(name).get(path).expect(403).codes == ["NOT_AUTHORIZED"]
        assert world.anonymous.get(path).expect(401).codes == ["NOT_AUTHENTICATED"]
        for name in ("admin", "iris"):
            world.as_(name).get(path).expect(200)
    kinds = {one["object"]["type"] for one in events(world.admin, "/api/v0/events")}
    assert {"account", "repository", "tag", "manifest", "team", "grant"} <= kinds


def test_a_record(world: Api):
    found = events(world.admin, eventType="UPDATE")
    (moved,) = [one for one in found if one["object"]["type"] == "tag"]
    ada = world.rows("SELECT id FROM accounts WHERE name = 'ada'")[0][0]
    other = annotated(IMAGE, n="2").digest
    assert moved | {"id": "", "publishedAt": ""} == {
        "id": "",
        "type": "UPDATE",
        "publishedAt": "",
        "actor": ada,
        "actorName": "ada",
        "actorType": "user",
        "remoteAddress": "127.0.0.1",
        "repository": "acme/app",
        "object": {"type": "tag", "id": "v1", "name": "v1", "content": IMAGE.digest},
        "target": {"type": "tag", "id": "v1", "name": "v1", "content": other},
        "times": 1,
    }
    assert moved["publishedAt"].endswith("Z")
    pull = events(world.admin, eventType="GET", objectType="tag")[0]
    assert pull["object"] == {"type": "tag", "id": "v1", "name": "v1", "content": other}
    assert pull["target"] == {"type": "", "id": "", "name": "", "content": ""}
    assert pull["actorName"] == "bob"


def test_filters(world: Api):
    everything = events(world.admin, "/api/v0/events")
    assert len(everything) < 100
    ada = world.rows("SELECT id FROM accounts WHERE name = 'ada'")[0][0]
    middle = everything[len(everything) // 2]["publishedAt"]

    def is_before(one: dict[str, Any]) -> bool:
        """By the moments: as texts they have no order, for a whole second is written without a fraction."""
        return dt.datetime.fromisoformat(one["publishedAt"]) < dt.datetime.fromisoformat(middle)

    for query, chosen in (
        ({"actorId": ada}, lambda one: one["actor"] == ada),
        ({"eventType": "DELETE"}, lambda one: one["type"] == "DELETE"),
        ({"objectType": "tag"}, lambda one: one["object"]["type"] == "tag"),
        ({"excludePull": True}, lambda one: one["type"] != "GET"),
        ({"repository": "acme/app"}, lambda one: one["repository"] == "acme/app"),
        ({"repository": "acme/none"}, lambda one: False),
        ({"address": "127.0.0.1"}, lambda one: one["remoteAddress"] == "127.0.0.1"),
        ({"publishedBefore": middle}, is_before),
        ({"publishedAfter": middle}, lambda one: not is_before(one)),
        ({"publishedAfter": "1999-01-01t00:00:00.5-01:00"}, lambda _: True),
        ({"publishedBefore": "1999-01-01 00:00:00Z"}, lambda _: False),
        ({"actorId": ada, "eventType": "CREATE", "objectType": "tag", "repository": "acme/app"},
         lambda one: one["actor"] == ada and one["type"] == "CREATE" and one["object"]["type"] == "tag"),
    ):  # fmt: skip
        expected = [one for one in everything if chosen(one)]
        assert events(world.admin, "/api/v0/events", **query) == expected, query
        answer = world.admin.get("/api/v0/events", count=True, pageSize=1, **query).expect(200)
        assert answer.headers["x-resource-count"] == str(len(expected))
        lines = world.admin.get("/api/v0/events/export", **query).expect(200).body.decode().splitlines()
        assert [json.loads(line) for line in lines] == expected


@pytest.mark.parametrize("path", ["/api/v0/events", REPOSITORY, "/api/v0/events/export"])
@pytest.mark.parametrize(
    "query",
    [
        {"publishedBefore": "yesterday"},
        {"publishedAfter": "2026-13-01T00:00:00Z"},
        {"publishedAfter": "2026-01-01T00:00:00"},
        {"publishedAfter": "1700000000"},
        {"eventType": "WHATEVER"},
        {"objectType": "nothing"},
        {"excludePull": "maybe"},
        {"actorId": "\x00"},
    ],
)
def test_what_cannot_be_read_is_refused(world: Api, path: str, query: dict[str, str]):
    assert world.admin.get(path, **query).expect(400).codes == ["INVALID_PARAMETERS"]


def test_a_page_starts_with_an_id(world: Api):
    everything = events(world.admin)
    pages = [page["events"] for page in world.admin.pages(REPOSITORY, 4)]
    assert [len(page) for page in pages[:-1]] == [4] * (len(pages) - 1)
    assert [one for page in pages for one in page] == everything
    assert events(world.admin, pageStart=everything[3]["id"]) == everything[3:]
    assert len(world.admin.get(REPOSITORY).json["events"]) == 10
    for start in ("x", "-1", "²", str(2**63), "9" * 1000):
        assert world.admin.get(REPOSITORY, pageStart=start).expect(400).codes == ["INVALID_PARAMETERS"]
    assert events(world.admin, pageStart=str(2**63 - 1)) == everything


def test_events_follow_a_repository_that_is_renamed(world: Api):
    world.make_repository("acme/before")

    async def rename(application: Any) -> None:
        await application.repositories.rename("acme/before", parse_repository_name("acme/after"))

    world.server.do(rename)
    found = events(world.admin, "/api/v0/repositories/acme/after/events")
    assert labels(found)[0] == "CREATE repository acme/before"
    for path in ("acme/after", "acme/before"):
        assert events(world.admin, "/api/v0/events", repository=path) == found
    world.server.do(lambda application: application.repositories.delete("acme/after"))
    deleted = events(world.admin, "/api/v0/events", repository="acme/after")
    assert deleted[1:] == found
    assert labels(deleted)[-1] == "DELETE repository acme/after"


def test_a_pull_is_by_whom_the_token_says(world: Api):
    world.make_repository("acme/open", visibility="public")
    index = make_index(IMAGE)
    world.as_("ada").client.push("acme/open", index, "all")
    ((before,),) = world.rows("SELECT sum(times) FROM events WHERE type = 'GET'")
    world.anonymous.client.get_manifest("acme/open", "all").expect(200)
    world.anonymous.client.get_manifest("acme/open", IMAGE.digest).expect(200)
    wait_for_pulls(world, before + 2)
    found = events(world.admin, "/api/v0/repositories/acme/open/events", eventType="GET")
    assert [(one["actor"], one["actorName"], one["actorType"]) for one in found] == [("", "", "anonymous")] * 2
    rows = world.rows(
        "SELECT reference, pulls FROM pulls JOIN repositories ON id = repository_id WHERE path = 'acme/open'"
    )
    assert sorted(rows) == sorted([("all", 1), (IMAGE.digest, 1)])
    counted = world.rows(
        "SELECT sum(pulls) FROM (SELECT scope, pulls FROM usage UNION ALL SELECT scope, pulls FROM usage_deltas)"
        " WHERE scope = 'repository:' || (SELECT id FROM repositories WHERE path = 'acme/open')"
    )
    assert counted == [(1,)]


# --- export ---------------------------------------------------------------------------------------------------


def test_csv_is_safe_to_open_in_a_spreadsheet(world: Api):
    async def plant(application: Any) -> None:
        from dtr.events import SYSTEM, Event, Object, record

        nasty = Object("setting", '=HYPERLINK("http://evil")', "+1", '@SUM(A1)\n"quoted", and more')
        await application.database.unit(
            lambda tx: record(tx, Event(type="UPDATE", actor=SYSTEM, object=nasty, target=Object("setting", "-2")))
        )

    world.server.do(plant)
    answer = world.admin.get("/api/v0/events/export", format="csv", objectType="setting").expect(200)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="events.csv"'
    header, row = csv.reader(io.StringIO(answer.body.decode(), newline=""))
    assert header == [
        "id", "publishedAt", "type", "actor", "actorName", "actorType", "remoteAddress", "repository",
        "objectType", "objectId", "objectName", "objectContent",
        "targetType", "targetId", "targetName", "targetContent", "times",
    ]  # fmt: skip
    assert row[9:14] == ['\'=HYPERLINK("http://evil")', "'+1", '\'@SUM(A1)\n"quoted", and more', "setting", "'-2"]
    line = world.admin.get("/api/v0/events/export", objectType="setting").expect(200).json
    assert line["object"]["id"] == '=HYPERLINK("http://evil")'  # JSON has it as it is


def test_the_client_chooses_the_form(world: Api):
    def kind(accept: str, **query: str) -> str:
        answer = world.admin.call("GET", "/api/v0/events/export", headers={"Accept": accept}, **query)
        return answer.expect(200).headers["content-type"].partition(";")[0]

    assert kind("*/*") == "application/x-ndjson"
    assert kind("text/csv") == "text/csv"
    assert kind("application/x-ndjson") == "application/x-ndjson"
    assert kind("text/csv", format="jsonl") == "application/x-ndjson"
    assert kind("*/*", format="csv") == "text/csv"
    answer = world.admin.call("GET", "/api/v0/events/export", headers={"Accept": "image/png"})
    assert answer.expect(406).codes == ["NOT_ACCEPTABLE"]
    assert world.admin.get("/api/v0/events/export", format="xml").expect(400).codes == ["INVALID_PARAMETERS"]


def test_a_long_export_comes_whole(world: Api):
    world.change(
        "INSERT INTO events (published_at, type, actor, actor_name, actor_type, address, repository,"
        " object_type, object_id, object_name, object_content)"
        " WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5000)"
        " SELECT 0, 'CREATE', 'many', '', 'system', '', '', 'setting', n, '', '' FROM n"
    )
    answer = world.admin.get("/api/v0/events/export", format="csv", actorId="many").expect(200)
    rows = list(csv.reader(io.StringIO(answer.body.decode())))
    assert [row[9] for row in rows[1:]] == [str(number) for number in range(5000, 0, -1)]
    answer = world.admin.get("/api/v0/events/export", actorId="many").expect(200)
    assert len(answer.body.splitlines()) == 5000
    assert world.admin.get("/api/v0/events/export", actorId="nobody").expect(200).body == b""
    world.change("DELETE FROM events WHERE actor = 'many'")


def test_writing_is_not_enough_to_see_pulls(world: Api):
    world.make_users("dave")
    world.make_team("acme/writers", "dave")
    world.grant("acme/writers", "read-write", repository="acme/app")
    found = events(world.as_("dave"))
    assert labels(found) == CONTENT
    assert {one["remoteAddress"] for one in found} == {""}


def test_the_events_of_a_repository_are_exported_as_they_are_listed(world: Api):
    carol, bob = world.as_("carol"), world.as_("bob")
    answer = carol.get(f"{REPOSITORY}/export", format="jsonl").expect(200)
    listed = events(carol)
    assert [json.loads(line) for line in answer.body.splitlines()] == listed
    assert any(one["type"] == "GET" for one in listed)
    assert answer.headers["content-disposition"] == 'attachment; filename="acme-app-events.jsonl"'
    # A reader neither learns who pulled nor from where.
    rows = list(
        csv.DictReader(io.StringIO(bob.get(f"{REPOSITORY}/export", format="csv").expect(200).body.decode()))
    )
    assert [row["id"] for row in rows] == [one["id"] for one in events(bob)]
    assert {row["remoteAddress"] for row in rows} == {""}
    assert "GET" not in {row["type"] for row in rows}
    only = bob.get(f"{REPOSITORY}/export", format="csv", eventType="DELETE", objectType="tag").expect(200)
    assert [row["objectName"] for row in csv.DictReader(io.StringIO(only.body.decode()))] == ["v2"]


def test_what_an_account_did_is_found_by_its_name_also_when_it_is_gone(world: Api):
    found = events(world.admin, "/api/v0/events", actor="bob")
    assert {one["actorName"] for one in found} == {"bob"}
    ((bob,),) = world.rows("SELECT id FROM accounts WHERE name = 'bob'")
    assert events(world.admin, "/api/v0/events", actor=bob) == found
    world.make_users("gone")
    world.make_repository("gone/own")
    world.as_("gone").patch("/api/v0/repositories/gone/own", {"shortDescription": "mine"}).expect(200)
    world.admin.delete("/api/v0/repositories/gone/own").expect(204)
    world.admin.delete("/enzi/v0/accounts/gone").expect(204)
    (change,) = events(world.admin, "/api/v0/events", actor="gone", eventType="UPDATE")
    assert (change["actorName"], change["object"]["name"]) == ("gone", "gone/own")
    assert events(world.admin, "/api/v0/events", actor="never-there") == []
