"""``/api/v0/repositories``: made, listed, changed and deleted by those who may, seen by those who may."""

from __future__ import annotations

import datetime as dt
import json
import time

import pytest
from tests.support.api import Api
from tests.support.client import settle
from tests.support.images import make_image

REPOSITORIES = "/api/v0/repositories"


@pytest.fixture(scope="module", autouse=True)
def world(api: Api) -> None:
    api.make_users("owner", "dev", "reader", "stranger")
    api.make_organization("acme", owners=("owner",), members=("dev", "reader", "stranger"))
    api.make_team("acme/devs", "dev")
    api.make_team("acme/readers", "reader")
    api.grant("acme/devs", "admin")


def paths(answer) -> list[str]:
    return [f"{one['namespace']}/{one['name']}" for one in answer.json["repositories"]]


def test_a_script_of_dtr_makes_and_changes_a_repository(api: Api):
    made = api.as_("dev").post(f"{REPOSITORIES}/acme", {"name": "made", "visibility": "public"}).expect(201)
    assert made.json == {
        "id": made.json["id"],
        "namespace": "acme",
        "namespaceType": "organization",
        "name": "made",
        "shortDescription": "",
        "longDescription": "",
        "visibility": "public",
        "scanOnPush": False,
        "immutableTags": False,
        "immutableTagPatterns": [],
        "enableManifestLists": False,
        "tagLimit": 0,
        "pulls": 0,
        "pushes": 0,
        "size": 0,
        "createdAt": made.json["createdAt"],
        "lastPushedAt": "0001-01-01T00:00:00Z",
        "lastPulledAt": "0001-01-01T00:00:00Z",
        "yourAccess": "admin",
    }
    assert made.json["id"].isdecimal()
    form = {
        "shortDescription": "short",
        "longDescription": "# Long",
        "visibility": "private",
        "scanOnPush": True,
        "enableManifestLists": True,
        "tagLimit": 5,
    }
    changed = api.as_("dev").patch(f"{REPOSITORIES}/acme/made", form).expect(200)
    assert changed.json == {**made.json, **form, "enableManifestLists": False}
    assert api.as_("owner").get(f"{REPOSITORIES}/acme/made").expect(200).json == changed.json
    assert api.as_("dev").patch(f"{REPOSITORIES}/acme/made", {}).expect(200).json == changed.json
    patterns = {"tagLimit": 0, "immutableTagPatterns": ["v*"]}
    assert api.as_("dev").patch(f"{REPOSITORIES}/acme/made", patterns).json["immutableTagPatterns"] == ["v*"]
    api.as_("dev").delete(f"{REPOSITORIES}/acme/made", domain="registry.example.com").expect(204)
    api.as_("dev").get(f"{REPOSITORIES}/acme/made").expect(404)


def test_a_user_makes_repositories_in_the_own_namespace_private_by_default_and_of_several_parts(api: Api):
    user = api.as_("stranger")
    made = user.post(f"{REPOSITORIES}/stranger", {"name": "deep/er"}).expect(201).json
    assert (made["visibility"], made["namespaceType"], made["name"]) == ("private", "user", "deep/er")
    assert user.get(f"{REPOSITORIES}/stranger/deep/er").expect(200).json["id"] == made["id"]
    assert api.as_("dev").get(f"{REPOSITORIES}/stranger/deep/er").codes == ["NO_SUCH_REPOSITORY"]


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"name": "Upper"}, 400, "INVALID_REPOSITORY_NAME"),
        ({"name": "a b"}, 400, "INVALID_REPOSITORY_NAME"),
        ({"name": ""}, 400, "INVALID_REPOSITORY_NAME"),
        ({"name": "x" * 300}, 400, "INVALID_REPOSITORY_NAME"),
        ({"name": "x", "visibility": "secret"}, 400, "INVALID_REPOSITORY_VISIBILITY"),
        ({"name": "x", "tagLimit": -1}, 400, "INVALID_SETTINGS"),
        ({"name": "x", "tagLimit": 1, "immutableTags": True}, 400, "INVALID_SETTINGS"),
        ({"name": "x", "tagLimit": 1, "immutableTagPatterns": ["v*"]}, 400, "INVALID_SETTINGS"),
        ({"name": "x", "shortDescription": "x" * 2000}, 400, "INVALID_SETTINGS"),
        ({"name": "x", "tagLimit": "three"}, 400, "INVALID_JSON"),
        ({"visibility": "public"}, 400, "INVALID_JSON"),
        ({"name": "taken"}, 400, "REPOSITORY_EXISTS"),
    ],
)
def test_what_cannot_be_made_is_refused(api: Api, form: dict[str, object], status: int, code: str):
    api.as_("owner").post(f"{REPOSITORIES}/acme", {"name": "taken"})
    answer = api.as_("owner").post(f"{REPOSITORIES}/acme", form)
    assert (answer.status, answer.codes) == (status, [code])


@pytest.mark.parametrize(
    ("user", "status", "code"),
    [
        (None, 401, "NOT_AUTHENTICATED"),
        ("stranger", 403, "NOT_AUTHORIZED"),
        ("reader", 403, "NOT_AUTHORIZED"),
        ("dev", 201, None),
        ("owner", 201, None),
        ("admin", 201, None),
    ],
)
def test_repositories_are_made_by_those_who_administer_the_namespace(api: Api, user, status, code):
    answer = api.as_(user).post(f"{REPOSITORIES}/acme", {"name": f"by-{user}".lower()})
    assert (answer.status, answer.codes if code else None) == (status, [code] if code else None)
    api.admin.delete(f"{REPOSITORIES}/acme/by-{user}".lower())
    assert api.as_(user).post(f"{REPOSITORIES}/nobody", {"name": "x"}).status == (404 if user else 401)


def test_an_invisible_repository_is_as_none_and_a_visible_one_says_what_is_not_allowed(api: Api):
    api.make_repository("acme/hidden")
    api.make_repository("acme/seen", visibility="public")
    for method, body in (("GET", None), ("PATCH", {"tagLimit": 1}), ("DELETE", None)):
        for path in ("acme/hidden", "acme/missing", "acme/MISSING"):
            answer = api.as_("stranger").call(method, f"{REPOSITORIES}/{path}", body)
            assert (answer.status, answer.codes) == (404, ["NO_SUCH_REPOSITORY"]), path
            assert api.anonymous.call(method, f"{REPOSITORIES}/{path}", body).status == 401
    for method, body in (("PATCH", {"tagLimit": 1}), ("DELETE", None)):
        assert api.as_("stranger").call(method, f"{REPOSITORIES}/acme/seen", body).codes == ["NOT_AUTHORIZED"]
        assert api.anonymous.call(method, f"{REPOSITORIES}/acme/seen", body).codes == ["NOT_AUTHENTICATED"]
    assert api.anonymous.get(f"{REPOSITORIES}/acme/seen").expect(200).json["yourAccess"] == "read-only"


def test_pages_have_no_holes_and_right_counts_for_everybody(api: Api):
    api.make_organization("mixed", owners=("owner",))
    api.make_team("mixed/some", "reader")
    for n in range(30):
        api.make_repository(f"mixed/r{n:02}", visibility="public" if n % 3 == 0 else "private")
    for n in (1, 2, 29):
        api.grant("mixed/some", "read-only", repository=f"mixed/r{n:02}")
    public = {n for n in range(30) if n % 3 == 0}
    for user, visible in (
        (None, public),
        ("stranger", public),
        ("reader", public | {1, 2, 29}),
        ("owner", set(range(30))),
        ("admin", set(range(30))),
    ):
        caller = api.as_(user)
        expected = [f"mixed/r{n:02}" for n in sorted(visible)]
        pages = [
            [f"{one['namespace']}/{one['name']}" for one in page["repositories"]]
            for page in caller.pages(f"{REPOSITORIES}/mixed", 4)
        ]
        assert all(len(page) == 4 for page in pages[:-1])
        assert [path for page in pages for path in page] == expected
        answer = caller.get(f"{REPOSITORIES}/mixed", pageSize=1, count=True, pageStart="mixed/r02")
        assert answer.headers["x-resource-count"] == str(len(expected))
        assert paths(answer) == [next(path for path in expected if path >= "mixed/r02")]
        everywhere = [path for page in caller.pages(REPOSITORIES, 7) for path in
                      (f"{one['namespace']}/{one['name']}" for one in page["repositories"])]  # fmt: skip
        assert [path for path in everywhere if path.startswith("mixed/")] == expected
        count = caller.get(REPOSITORIES, pageSize=1, count=True).headers["x-resource-count"]
        assert count == str(len(everywhere))
    assert api.admin.get(f"{REPOSITORIES}/nobody").codes == ["NO_SUCH_ACCOUNT"]


def test_the_level_of_the_caller_is_said_of_each(api: Api):
    api.make_organization("levels", owners=("owner",))
    api.make_team("levels/some", "dev")
    for level in ("read-only", "read-write", "admin"):
        api.make_repository(f"levels/{level}")
        api.grant("levels/some", level, repository=f"levels/{level}")
    found = api.as_("dev").get(f"{REPOSITORIES}/levels").json["repositories"]
    assert {one["name"]: one["yourAccess"] for one in found} == {
        level: level for level in ("admin", "read-only", "read-write")
    }
    assert all("longDescription" not in one for one in found)


def test_pushes_and_pulls_are_counted_and_bytes_once(api: Api):
    api.make_repository("acme/counted")
    image = make_image(layers=2)
    for tag in ("v1", "v2"):
        api.admin.client.push("acme/counted", image, tag)
    for _ in range(3):
        api.admin.client.get_manifest("acme/counted", "v1").expect(200)
    deadline = time.monotonic() + 60
    while (found := api.admin.get(f"{REPOSITORIES}/acme/counted").json)["pulls"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (found["pulls"], found["pushes"]) == (3, 2)
    assert found["size"] == sum(len(blob) for blob in image.blobs)
    made, pushed, pulled = (
        dt.datetime.fromisoformat(found[name]) for name in ("createdAt", "lastPushedAt", "lastPulledAt")
    )
    assert made < pushed < pulled


def test_use_over_time_is_for_everybody_who_sees_the_repository(api: Api):
    api.make_users("uma", "vic")
    api.make_repository("uma/used")
    image = make_image()
    api.as_("uma").client.push("uma/used", image, "v1")
    path = "/api/v0/repositories/uma/used/usage"
    days = api.as_("uma").get(path).expect(200).json["days"]
    assert len(days) == 30
    assert (days[-1]["pushes"], days[-1]["size"]) == (1, sum(map(len, image.blobs)))
    assert {(one["pulls"], one["pushes"], one["size"]) for one in days[:-2]} == {(0, 0, 0)}
    assert [one["day"] for one in days] == sorted({one["day"] for one in days})
    assert len(api.as_("uma").get(path, days=400).expect(200).json["days"]) == 400
    api.as_("uma").get(path, days=401).expect(400)
    api.as_("vic").get(path).expect(404)


def test_who_looked_a_while_ago_does_not_overwrite_what_another_one_changed(api: Api):
    api.make_users("wes")
    api.make_repository("wes/text", long_description="first", immutable_patterns=("v*",))
    path, wes = "/api/v0/repositories/wes/text", api.as_("wes")
    seen = {"longDescription": "first"}
    wes.patch(path, {"longDescription": "second", "expected": seen}).expect(200)
    refused = wes.patch(path, {"longDescription": "third", "expected": seen}).expect(409).json["errors"][0]
    assert (refused["code"], refused["detail"]) == (
        "SETTINGS_CHANGED",
        [{"field": "longDescription", "value": "second"}],
    )
    assert wes.get(path).expect(200).json["longDescription"] == "second"
    # Only what is expected counts.
    wes.patch(path, {"shortDescription": "new", "expected": {"visibility": "private"}}).expect(200)
    refused = wes.patch(path, {"expected": {"immutableTagPatterns": []}}).expect(409).json["errors"][0]
    assert refused["detail"] == [{"field": "immutableTagPatterns", "value": ["v*"]}]


def test_the_scan_mode_of_all_is_for_administrators(api: Api):
    api.make_repository("acme/scanned")
    toggle = f"{REPOSITORIES}/scan/toggle"
    assert api.as_("owner").post(toggle, {"scanOnPush": True}).codes == ["NOT_AUTHORIZED"]
    for wanted in (True, False):
        api.admin.post(toggle, {"scanOnPush": wanted}).expect(200)
        assert api.admin.get(f"{REPOSITORIES}/acme/scanned").json["scanOnPush"] is wanted
    assert api.admin.post(toggle, {}).codes == ["INVALID_JSON"]


def test_all_repositories_of_an_account_and_the_account_itself_are_deleted(api: Api):
    api.make_users("leaver")
    api.make_organization("ending", owners=("leaver",))
    for path in ("ending/a", "ending/b", "leaver/own", "leaver/more"):
        api.make_repository(path)
    api.admin.client.push("ending/a", make_image(), "latest")
    assert api.as_("stranger").delete("/api/v0/accounts/ending/repositories").codes == ["NOT_AUTHORIZED"]
    api.as_("leaver").delete("/api/v0/accounts/ending/repositories").expect(204)
    assert api.admin.get(f"{REPOSITORIES}/ending").json == {"repositories": []}
    assert len(api.admin.get(f"{REPOSITORIES}/leaver").json["repositories"]) == 2
    assert api.as_("leaver").delete("/api/v0/accounts/ending").codes == ["NOT_AUTHORIZED"]
    api.admin.delete("/api/v0/accounts/ending").expect(204)
    api.admin.delete("/api/v0/accounts/leaver").expect(204)
    for name in ("ending", "leaver"):
        assert api.admin.get(f"{REPOSITORIES}/{name}").codes == ["NO_SUCH_ACCOUNT"]
        assert api.admin.delete(f"/api/v0/accounts/{name}").codes == ["NO_SUCH_ACCOUNT"]


def test_the_last_administrator_keeps_account_and_repositories(api: Api):
    api.make_repository("admin/own")
    assert api.admin.delete("/api/v0/accounts/admin").codes == ["LAST_ADMINISTRATOR"]
    api.admin.get(f"{REPOSITORIES}/admin/own").expect(200)


def test_every_change_is_an_event_of_who_did_it(api: Api):
    owner = api.as_("owner")
    owner.post(f"{REPOSITORIES}/acme", {"name": "told"}).expect(201)
    owner.patch(f"{REPOSITORIES}/acme/told", {"tagLimit": 2}).expect(200)
    owner.post(f"{REPOSITORIES}/acme/told/rename", {"name": "retold"}).expect(200)
    owner.delete(f"{REPOSITORIES}/acme/retold").expect(204)
    rows = api.rows(
        "SELECT type, actor_name, address, object_name, target_name FROM events"
        " WHERE object_type = 'repository' AND object_name IN ('acme/told', 'acme/retold') ORDER BY id"
    )
    assert [row[:2] + row[3:] for row in rows] == [
        ("CREATE", "owner", "acme/told", None),
        ("UPDATE", "owner", "acme/told", None),
        ("UPDATE", "owner", "acme/told", "acme/retold"),
        ("DELETE", "owner", "acme/retold", None),
    ]
    assert {row[2] for row in rows} == {"127.0.0.1"}


def test_while_the_registry_is_read_only_nothing_is_deleted(api: Api):
    api.make_repository("acme/kept")
    api.admin.client.push("acme/kept", make_image(), "latest")
    where = f"{REPOSITORIES}/acme/kept"
    api.admin.post("/api/v0/meta/settings", {"readOnlyRegistry": True}).expect(202)
    try:
        settle(api.server)
        for method, path, body in (
            ("DELETE", where, None),
            ("DELETE", f"{where}/tags/latest", None),
            ("POST", f"{where}/tags/delete", {"tags": ["latest"]}),
            ("DELETE", f"{where}/manifests/latest", None),
            ("DELETE", "/api/v0/accounts/acme", None),
            ("DELETE", "/api/v0/accounts/acme/repositories", None),
        ):
            assert api.admin.call(method, path, body).codes == ["READ_ONLY"], path
        api.admin.patch(where, {"shortDescription": json.dumps("allowed")}).expect(200)
    finally:
        api.admin.post("/api/v0/meta/settings", {"readOnlyRegistry": False}).expect(202)
