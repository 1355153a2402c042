"""Renaming and moving: who may, what pulls and pushes under the old name get, and what the API says of it."""

from __future__ import annotations

import threading

import pytest
from tests.support.api import Api
from tests.support.client import Client
from tests.support.images import make_artifact, make_image, make_index

REPOSITORIES = "/api/v0/repositories"


@pytest.fixture(scope="module", autouse=True)
def world(api: Api) -> None:
    api.make_users("owner", "dev", "builder", "reader", "stranger")
    api.make_organization("acme", owners=("owner",))
    api.make_organization("other", owners=("owner",))
    for team, level in (("builders", "admin"), ("readers", "read-only")):
        api.make_team(f"acme/{team}", team.removesuffix("s"))
        api.grant(f"acme/{team}", level)
    api.make_team("acme/devs", "dev")


def rename(api: Api, user: str | None, path: str, **form: str):
    return api.as_(user).post(f"{REPOSITORIES}/{path}/rename", form)


def test_an_image_is_pulled_under_the_old_name_as_before(api: Api):
    api.make_repository("acme/old")
    index = make_index(make_image(), make_image())
    sbom = make_artifact("application/spdx+json", b"{}", subject=index)
    api.admin.client.push("acme/old", index, "latest")
    api.admin.client.push("acme/old", sbom)
    renamed = rename(api, "owner", "acme/old", name="new/er").expect(200)
    assert (renamed.json["namespace"], renamed.json["name"]) == ("acme", "new/er")
    for path in ("acme/old", "acme/new/er"):
        client = Client(api.server, "reader")
        client.assert_whole(path, index, "latest")
        tags = client.call("GET", f"/v2/{path}/tags/list").expect(200).json
        assert tags == {"name": path, "tags": ["latest"]}
        found = client.call("GET", f"/v2/{path}/referrers/{index.digest}").expect(200).json["manifests"]
        assert [one["digest"] for one in found] == [sbom.digest]
        client.call("HEAD", f"/v2/{path}/manifests/latest").expect(200)
        client.get_manifest(path, "nothing").expect(404)
        client.close()


def test_only_whoever_may_pull_the_new_one_pulls_under_the_old_name(api: Api):
    api.make_repository("acme/moving", visibility="public")
    image = make_image()
    api.admin.client.push("acme/moving", image, "latest")
    kept = Client(api.server, "stranger")  # whose token was issued before
    kept.get_manifest("acme/moving", "latest").expect(200)
    rename(api, "owner", "acme/moving", namespace="other").expect(200)
    kept.get_manifest("acme/moving", "latest").expect(200)
    api.as_("owner").patch(f"{REPOSITORIES}/other/moving", {"visibility": "private"}).expect(200)
    for user, status in (("owner", 200), ("reader", 401), ("stranger", 401), (None, 401)):
        client = Client(api.server, user)
        client.get_manifest("acme/moving", "latest").expect(status)
        client.close()
    kept.get_manifest("acme/moving", "latest").expect(404)
    kept.close()


def test_pushes_under_the_old_name_are_refused_with_the_new_one_for_who_may_know_it(api: Api):
    api.make_repository("acme/pushed")
    image = make_image()
    api.admin.client.push("acme/pushed", image, "latest")
    kept = Client(api.server, "builder")
    kept.token("repository:acme/pushed:pull,push,delete")
    rename(api, "builder", "acme/pushed", name="pushed-to").expect(200)
    for client in (kept, Client(api.server, "builder"), Client(api.server, "reader")):
        for method, path, body in (
            ("POST", "blobs/uploads/", None),
            ("PUT", "manifests/latest", image.payload),
            ("DELETE", "manifests/latest", None),
        ):
            answer = client.call(method, f"/v2/acme/pushed/{path}", body).expect(404)
            assert answer.codes == ["NAME_UNKNOWN"]
            message = "repository acme/pushed was renamed, push to acme/pushed-to"
            assert answer.json["errors"][0]["message"] == message
        client.close()
    stranger = Client(api.server, "stranger")
    answer = stranger.call("POST", "/v2/acme/pushed/blobs/uploads/").expect(401)
    assert "pushed-to" not in answer.body.decode()
    stranger.close()


def test_blobs_are_mounted_from_the_old_name(api: Api):
    api.make_repository("acme/source")
    api.make_repository("acme/target")
    image = make_image()
    api.admin.client.push("acme/source", image)
    rename(api, "owner", "acme/source", name="origin").expect(200)
    client = Client(api.server, "builder")
    digest = client.push_blob("acme/origin", b"something")
    query = f"mount={digest}&from=acme/source"
    client.call("POST", f"/v2/acme/target/blobs/uploads/?{query}").expect(201)
    client.close()


def test_a_new_repository_at_the_old_name_ends_the_redirect(api: Api):
    api.make_repository("acme/name")
    image = make_image()
    api.admin.client.push("acme/name", image, "latest")
    rename(api, "owner", "acme/name", name="name2").expect(200)
    api.as_("owner").post(f"{REPOSITORIES}/acme", {"name": "name"}).expect(201)
    client = Client(api.server, "reader")
    client.get_manifest("acme/name", "latest").expect(404)
    client.get_manifest("acme/name2", "latest").expect(200)
    client.close()
    assert api.as_("reader").get(f"{REPOSITORIES}/acme/name").expect(200).json["name"] == "name"


def test_a_name_that_looks_like_the_path_of_an_operation_leads_to_the_new_one_too(api: Api):
    api.make_users("v0")
    api.make_repository("v0/repositories")
    rename(api, "v0", "v0/repositories", name="moved").expect(200)
    for path in ("", "/tags"):
        asked = f"{REPOSITORIES}/v0/repositories{path}"
        answer = api.as_("v0").get(asked, pageStart="v0/repositories").expect(308)
        assert answer.headers["location"] == f"{REPOSITORIES}/v0/moved{path}?pageStart=v0%2Frepositories"


def test_the_api_sends_who_reads_to_the_new_name(api: Api):
    api.make_repository("acme/asked")
    api.admin.client.push("acme/asked", make_image(), "a b".replace(" ", "."))
    rename(api, "owner", "acme/asked", namespace="other", name="answered").expect(200)
    for path, query in (
        ("", {}),
        ("/tags", {"pageSize": 3, "count": True}),
        ("/tags/a.b", {}),
        ("/manifests", {}),
    ):
        answer = api.as_("owner").get(f"{REPOSITORIES}/acme/asked{path}", **query).expect(308)
        assert answer.codes == ["REPOSITORY_MOVED"]
        location = answer.headers["location"]
        assert location.partition("?")[0] == f"{REPOSITORIES}/other/answered{path}"
        assert location.partition("?")[2] == "&".join(
            f"{key}={str(value).lower()}" for key, value in query.items()
        )
        api.as_("owner").get(location).expect(200)
    for method, path, body in (
        ("PATCH", "", {"tagLimit": 1}),
        ("DELETE", "", None),
        ("DELETE", "/tags/a.b", None),
    ):
        answer = api.as_("owner").call(method, f"{REPOSITORIES}/acme/asked{path}", body).expect(404)
        assert answer.json["errors"][0]["detail"] == "acme/asked is called other/answered now"
    for user, status in (("reader", 404), (None, 401)):
        answer = api.as_(user).get(f"{REPOSITORIES}/acme/asked").expect(status)
        assert "answered" not in answer.body.decode()


@pytest.mark.parametrize(
    ("user", "form", "status", "code"),
    [
        (None, {"name": "x"}, 401, "NOT_AUTHENTICATED"),
        ("stranger", {"name": "x"}, 404, "NO_SUCH_REPOSITORY"),
        ("reader", {"name": "x"}, 403, "NOT_AUTHORIZED"),
        ("dev", {"name": "x"}, 403, "NOT_AUTHORIZED"),  # administers it, and may make none
        ("builder", {"namespace": "other"}, 403, "NOT_AUTHORIZED"),
        ("builder", {"namespace": "builder"}, 403, "NOT_AUTHORIZED"),  # may make one there, and owns none here
        ("owner", {"namespace": "reader"}, 403, "NOT_AUTHORIZED"),
        ("owner", {"namespace": "nobody"}, 404, "NO_SUCH_ACCOUNT"),
        ("owner", {"name": "Upper"}, 400, "INVALID_REPOSITORY_NAME"),
        ("owner", {"name": "rights"}, 200, None),
        ("owner", {}, 200, None),
        ("owner", {"name": "there"}, 400, "REPOSITORY_EXISTS"),
        ("builder", {"name": "x"}, 200, None),
        ("owner", {"namespace": "other"}, 200, None),
        ("admin", {"namespace": "reader"}, 200, None),
    ],
)
def test_renaming_needs_the_rights_of_both_ends(api: Api, user, form, status, code):
    if api.admin.get(f"{REPOSITORIES}/acme/rights").status != 200:
        for path in ("acme/rights", "acme/there"):
            if api.admin.get(f"{REPOSITORIES}/{path}").status != 200:
                api.make_repository(path)
        api.grant("acme/devs", "admin", repository="acme/rights")
    for path in ("acme/x", "other/rights", "reader/rights"):
        if api.admin.get(f"{REPOSITORIES}/{path}").status == 200:
            api.admin.delete(f"{REPOSITORIES}/{path}")
    answer = rename(api, user, "acme/rights", **form)
    assert (answer.status, answer.codes if code else None) == (status, [code] if code else None)


def test_pulls_go_on_while_a_repository_is_renamed_to_and_fro(api: Api):
    api.make_repository("acme/here", visibility="public")
    image = make_image()
    api.admin.client.push("acme/here", image, "latest")
    stop, failures = threading.Event(), []

    def pull(path: str) -> None:
        client = Client(api.server, "stranger")
        while not stop.is_set():
            answer = client.get_manifest(path, "latest")
            if answer.status != 200 or answer.body != image.payload:
                failures.append((path, answer.status, answer.body))
        client.close()

    rename(api, "owner", "acme/here", name="there-now").expect(200)
    rename(api, "owner", "acme/there-now", name="here").expect(200)
    pullers = [threading.Thread(target=pull, args=(path,)) for path in ("acme/here", "acme/there-now")]
    for puller in pullers:
        puller.start()
    for _ in range(15):
        rename(api, "owner", "acme/here", name="there-now").expect(200)
        rename(api, "owner", "acme/there-now", name="here").expect(200)
    stop.set()
    for puller in pullers:
        puller.join()
    assert failures == []
