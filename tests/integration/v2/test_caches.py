"""Caches through the registry's API: whoever may pull causes a fetch, and gets the bytes as they come."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.api import Api
from tests.support.client import Client
from tests.support.images import digest_of, make_image, make_index
from tests.support.server import Server
from tests.support.upstream import Scripted

IMAGE = make_image(layers=2, size=400_000)
LAYER = IMAGE.blobs[1]


@pytest.fixture(scope="module")
def upstream():
    scripted = Scripted()
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, upstream: Scripted):
    server = Server(tmp_path_factory.mktemp("data") / "data", {"mirroring.allowed_networks": "127.0.0.0/8"})
    server.start()
    made = Api(server)
    made.make_users("ada", "rita", "eve")
    made.make_organization("hub", owners=("ada",), members=("rita",))
    made.make_organization("open", owners=("ada",))
    made.make_team("hub/readers", "rita")
    made.grant("hub/readers", "read-only")
    ada = made.as_("ada")
    for namespace, visibility in (("hub", "private"), ("open", "public")):
        remote = ada.post(
            "/api/v0/remotes", {"name": "other", "namespace": namespace, "remoteHost": upstream.url}
        ).expect(201)
        ada.put(
            f"/api/v0/repositoryNamespaces/{namespace}/upstream",
            {"remoteID": remote.json["id"], "remoteRepository": "library", "visibility": visibility, "maxAge": 0},
        ).expect(200)
    yield made
    server.close()


def get(client: Client, repository: str, kind: str, reference: str, method: str = "GET", **headers: str) -> Any:
    scope = f"repository:{repository}:pull"
    sent = {"Authorization": f"Bearer {client.token(scope, fresh=True)}", **headers}
    return client.send(method, f"/v2/{repository}/{kind}/{reference}", headers=sent)


def test_who_may_pull_causes_a_fetch_and_nobody_else(api: Api, upstream: Scripted):
    upstream.push("library/rights", IMAGE, "latest")
    for name in (None, "eve"):
        get(api.as_(name).client, "hub/rights", "manifests", "latest").expect(401)
    assert upstream.count("rights") == 0
    assert get(api.as_("rita").client, "hub/rights", "manifests", "latest").expect(200).body == IMAGE.payload
    # From now on it is a private repository like others.
    get(api.as_("eve").client, "hub/rights", "manifests", "latest").expect(401)
    get(api.as_("eve").client, "hub/rights", "blobs", digest_of(LAYER)).expect(401)
    assert get(api.as_("rita").client, "hub/rights", "blobs", digest_of(LAYER)).expect(200).body == LAYER
    assert get(api.as_(None).client, "open/rights", "manifests", "latest").expect(200).body == IMAGE.payload
    get(api.as_(None).client, "open/none", "manifests", "latest").expect(404)
    assert "open/none" not in {row[0] for row in api.rows("SELECT path FROM repositories")}


def test_a_whole_index_is_pulled_through_and_then_from_here(api: Api, upstream: Scripted):
    index = make_index(make_image(size=200_000), make_image())
    upstream.push("library/index", index, "v1")
    client = api.as_("rita").client
    assert get(client, "hub/index", "manifests", "v1", "HEAD").expect(200).headers["docker-content-digest"] == (
        index.digest
    )
    for _ in range(2):
        assert get(client, "hub/index", "manifests", index.digest).expect(200).body == index.payload
        for child in index.children:
            assert get(client, "hub/index", "manifests", child.digest).expect(200).body == child.payload
            for blob in child.blobs:
                head = get(client, "hub/index", "blobs", digest_of(blob), "HEAD").expect(200)
                assert head.headers["content-length"] == str(len(blob))
                assert get(client, "hub/index", "blobs", digest_of(blob)).expect(200).body == blob
        assert upstream.count("library/index") == 7  # three manifests, four blobs, once


def test_ranges_are_answered_while_the_blob_is_fetched(api: Api, upstream: Scripted):
    upstream.push("library/ranges", IMAGE, "latest")
    client = api.as_("rita").client
    get(client, "hub/ranges", "manifests", "latest").expect(200)
    digest = digest_of(LAYER)
    part = get(client, "hub/ranges", "blobs", digest, Range="bytes=300000-300009").expect(206)
    assert part.body == LAYER[300_000:300_010]
    assert part.headers["content-range"] == f"bytes 300000-300009/{len(LAYER)}"
    get(client, "hub/ranges", "blobs", digest, Range=f"bytes={len(LAYER)}-").expect(416)
    small = digest_of(IMAGE.blobs[0])
    assert get(client, "hub/ranges", "blobs", small, Range="bytes=0-3").expect(206).body == IMAGE.blobs[0][:4]


def test_the_first_byte_comes_before_the_last_is_fetched(api: Api, upstream: Scripted):
    image = make_image(size=500_000)
    layer, digest = image.blobs[1], digest_of(image.blobs[1])
    gate = upstream.gates[digest] = threading.Event()
    upstream.push("library/slow", image, "latest")
    client = api.as_("rita").client
    get(client, "hub/slow", "manifests", "latest").expect(200)
    token = client.token("repository:hub/slow:pull", fresh=True)
    connections = [client.connect() for _ in range(16)]
    answers = []
    for connection in connections:
        connection.request("GET", f"/v2/hub/slow/blobs/{digest}", headers={"Authorization": f"Bearer {token}"})
    for connection in connections:
        answer = connection.getresponse()
        assert answer.status == 200
        answers.append((answer, answer.read(100_000)))
    connections.pop().close()  # one goes away
    answers.pop()
    gate.set()
    for answer, beginning in answers:
        assert beginning + answer.read() == layer
    for connection in connections:
        connection.close()
    assert upstream.count(f"blobs library/slow {digest}") == 1


def test_wrong_content_reaches_nobody_whole(api: Api, upstream: Scripted):
    image = make_image(size=300_000)
    upstream.push("library/wrong", image, "latest")
    client = api.as_("rita").client
    get(client, "hub/wrong", "manifests", "latest").expect(200)
    small, large = image.blobs
    for content in image.blobs:
        upstream.blobs[digest_of(content)] = b"?" * len(content)
    get(client, "hub/wrong", "blobs", digest_of(small)).expect(503)
    token = client.token("repository:hub/wrong:pull", fresh=True)
    gate = upstream.gates[digest_of(large)] = threading.Event()
    connection = client.connect()
    connection.request(
        "GET", f"/v2/hub/wrong/blobs/{digest_of(large)}", headers={"Authorization": f"Bearer {token}"}
    )
    answer = connection.getresponse()
    assert answer.status == 200
    gate.set()  # what has begun can only be cut
    with pytest.raises(Exception, match=r"IncompleteRead|closed|reset|EOF"):
        answer.read()
    connection.close()
    linked = {row[0] for row in api.rows("SELECT digest FROM repository_blobs")}
    assert not linked & {digest_of(small), digest_of(large)}
    for content in image.blobs:  # when it is right again, it is fetched
        upstream.blobs[digest_of(content)] = content
        assert get(client, "hub/wrong", "blobs", digest_of(content)).expect(200).body == content


def test_images_are_not_pushed_to_a_cache(api: Api, upstream: Scripted):
    upstream.push("library/pushed", IMAGE, "latest")
    get(api.as_("rita").client, "hub/pushed", "manifests", "latest").expect(200)
    ada = api.as_("ada").client
    ada.send("GET", "/v2/")
    api.as_("admin").post("/api/v0/meta/settings", {"createRepositoryOnPush": True}).expect(202)
    for path in ("hub/pushed", "hub/never"):
        token = ada.token(f"repository:{path}:pull,push", fresh=True)
        for _ in range(2):
            answer = ada.send(
                "POST", f"/v2/{path}/blobs/uploads/", headers={"Authorization": f"Bearer {token}"}
            ).expect(405)
        assert "cache" in answer.json["errors"][0]["message"]
    # One that somebody makes is an ordinary one.
    api.as_("ada").post("/api/v0/repositories/hub", {"name": "own", "visibility": "private"}).expect(201)
    ada.push("hub/own", IMAGE, "mine")
    assert get(ada, "hub/own", "manifests", "mine").expect(200).body == IMAGE.payload
    upstream.push("library/own", IMAGE, "latest")
    get(ada, "hub/own", "manifests", "latest").expect(404)


def test_a_tag_that_moves_or_goes_there_does_so_here(api: Api, upstream: Scripted):
    first, second = make_image(), make_image()
    upstream.push("library/moves", first, "latest")
    client = api.as_("rita").client
    assert get(client, "hub/moves", "manifests", "latest").expect(200).body == first.payload
    upstream.push("library/moves", second, "latest")
    deadline = time.monotonic() + 60
    while get(client, "hub/moves", "manifests", "latest").expect(200).body != second.payload:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert get(client, "hub/moves", "manifests", first.digest).expect(200).body == first.payload


def test_what_is_here_is_served_when_the_upstream_is_down(api: Api, tmp_path: Path, upstream: Scripted):
    other = Scripted()
    other.push("library/app", IMAGE, "latest")
    ada = api.as_("ada")
    api.make_repository("hub/down")
    remote = ada.post("/api/v0/remotes", {"name": "dying", "namespace": "hub", "remoteHost": other.url}).expect(
        201
    )
    ada.put(
        "/api/v0/repositories/hub/down/upstream",
        {"remoteID": remote.json["id"], "remoteRepository": "library/app", "maxAge": 0},
    ).expect(200)
    client = api.as_("rita").client
    get(client, "hub/down", "manifests", "latest").expect(200)
    get(client, "hub/down", "blobs", digest_of(LAYER)).expect(200)
    other.close()
    assert get(client, "hub/down", "manifests", "latest").expect(200).body == IMAGE.payload
    assert get(client, "hub/down", "blobs", digest_of(LAYER)).expect(200).body == LAYER
    for kind, reference in (("manifests", "other"), ("blobs", digest_of(IMAGE.blobs[2]))):
        answer = get(client, "hub/down", kind, reference).expect(503)
        assert answer.codes == ["UNAVAILABLE"]
        assert int(answer.headers["retry-after"]) > 0
    assert "tag not checked" in api.server.log


def test_upstreams_are_set_looked_at_and_ended(api: Api, upstream: Scripted):
    ada = api.as_("ada")
    path = "/api/v0/repositories/hub/managed/upstream"
    api.make_repository("hub/managed")
    assert ada.get(path).expect(404).codes == ["NO_SUCH_UPSTREAM"]
    remotes = {one["name"]: one["id"] for one in ada.get("/api/v0/remotes", namespace="hub").expect(200).json}
    everywhere = api.admin.post("/api/v0/remotes", {"name": "all", "remoteHost": upstream.url}).expect(201)
    elsewhere = ada.get("/api/v0/remotes", namespace="open").expect(200).json[0]["id"]
    for remote in ("none", everywhere.json["id"], elsewhere):  # to use one is to act with its credentials
        answer = ada.put(path, {"remoteID": remote, "remoteRepository": "a"}).expect(404)
        assert answer.codes == ["NO_SUCH_REMOTE"]
    form = {"remoteID": remotes["other"], "remoteRepository": "library/managed"}
    for wrong in ({"remoteRepository": ""}, {"maxAge": -1}, {"tagPatterns": ["[a]"]}, {"keepFor": 10**6}):
        assert ada.put(path, {**form, **wrong}).expect(400).codes == ["INVALID_UPSTREAM"]
    defaults = {"tagPatterns": [], "maxAge": 3600, "keepFor": 30}
    assert ada.put(path, form).expect(200).json == {**form, **defaults}
    changed = {**form, "tagPatterns": ["v*"], "maxAge": 0, "keepFor": 0}
    assert ada.put(path, changed).expect(200).json == changed
    assert api.as_("rita").get(path).expect(200).json == changed
    api.as_("rita").put(path, form).expect(403)
    api.as_("eve").get(path).expect(404)
    answer = ada.delete(f"/api/v0/remotes/{remotes['other']}").expect(409)
    assert answer.codes == ["REMOTE_IN_USE"]
    for _ in range(2):
        ada.delete(path).expect(204)
    assert ada.get(path).expect(404).codes == ["NO_SUCH_UPSTREAM"]
    # What was promoted stays out of caches.
    own = ada.post("/api/v0/repositories/hub", {"name": "promoted", "visibility": "private"}).expect(201)
    assert own.json["name"] == "promoted"
    ada.client.push("hub/promoted", IMAGE, "mine")
    assert ada.put("/api/v0/repositories/hub/promoted/upstream", form).expect(400).codes == ["INVALID_UPSTREAM"]
    upstream.push("library/target", IMAGE, "latest")
    get(ada.client, "hub/target", "manifests", "latest").expect(200)
    to = {"targetRepository": "hub/target", "targetTag": "mine"}
    answer = ada.post("/api/v0/repositories/hub/promoted/tags/mine/promotion", to).expect(409)
    assert answer.codes == ["TAG_IMMUTABLE"]
    assert "cache" in answer.json["errors"][0]["detail"] + answer.json["errors"][0]["message"]


def test_many_clients_cause_one_fetch(api: Api, upstream: Scripted):
    image = make_image(size=300_000)
    upstream.push("library/many", image, "latest")
    clients = [Client(api.server, "rita") for _ in range(8)]

    def pull(client: Client) -> None:
        assert get(client, "hub/many", "manifests", "latest").expect(200).body == image.payload
        for blob in image.blobs:
            assert get(client, "hub/many", "blobs", digest_of(blob)).expect(200).body == blob

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(pull, clients))
    assert upstream.count("GET blobs library/many") == 2
    assert upstream.count("GET manifests library/many") == 1


def test_every_process_knows_a_new_cache_at_once(tmp_path: Path, upstream: Scripted):
    upstream.push("library/new", IMAGE, "latest")
    server = Server(tmp_path / "data", {"mirroring.allowed_networks": "127.0.0.0/8"}, workers=2).start()
    try:
        api = Api(server)
        remote = api.admin.post("/api/v0/remotes", {"name": "other", "remoteHost": upstream.url}).expect(201)
        form = {"remoteID": remote.json["id"], "remoteRepository": "library"}
        for number in range(3):
            api.make_organization(f"hub{number}")
            clients = [Client(server) for _ in range(8)]  # a process of its own each, by chance
            api.admin.put(f"/api/v0/repositoryNamespaces/hub{number}/upstream", form).expect(200)
            for client in clients:
                get(client, f"hub{number}/new", "manifests", "latest").expect(200)
                get(client, f"hub{number}/new", "blobs", digest_of(LAYER)).expect(200)
    finally:
        server.close()
