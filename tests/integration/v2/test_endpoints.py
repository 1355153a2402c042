"""What holds for all endpoints: ping, paths, methods, names, error bodies, headers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import pytest
from tests.support.client import Client, local
from tests.support.images import digest_of, make_image
from tests.support.server import Server

DIGEST = digest_of(b"nothing")
UPLOAD = "00000000-0000-4000-8000-000000000000"
ENDPOINTS = {
    "/v2/": "GET, HEAD",
    "/v2": "GET, HEAD",
    "/v2/_catalog": "GET, HEAD",
    "/v2/admin/r/tags/list": "GET, HEAD",
    f"/v2/admin/r/referrers/{DIGEST}": "GET, HEAD",
    "/v2/admin/r/manifests/v1": "DELETE, GET, HEAD, PUT",
    f"/v2/admin/r/blobs/{DIGEST}": "DELETE, GET, HEAD",
    "/v2/admin/r/blobs/uploads/": "POST",
    "/v2/admin/r/blobs/uploads": "POST",
    f"/v2/admin/r/blobs/uploads/{UPLOAD}": "DELETE, GET, HEAD, PATCH, PUT",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def test_ping_answers_whoever_logged_in(admin: Client) -> None:
    for path in ("/v2/", "/v2"):
        answer = admin.call("GET", path, scope="registry:catalog:*").expect(200)
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
        assert answer.json == {}
        assert admin.call("HEAD", path, scope="registry:catalog:*").expect(200).body == b""


def test_ping_answers_an_anonymous_token(standard: Server, as_user: Callable[..., Client]) -> None:
    nobody = as_user(standard, None)
    nobody.send("GET", "/v2/", headers={"Authorization": f"Bearer {nobody.token()}"}).expect(200)


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_method_that_does_not_belong_is_refused_with_those_that_do(admin: Client, path: str) -> None:
    allowed = ENDPOINTS[path]
    for method in METHODS:
        if method not in allowed.split(", "):
            answer = admin.send(method, path).expect(405)
            assert answer.headers["allow"] == allowed
            assert method == "HEAD" or answer.codes == ["UNSUPPORTED"]


@pytest.mark.parametrize(
    "path",
    [
        "/v2/nothing",
        "/v2/_catalog/",
        "/v2/_nothing",
        "/v2/admin/r",
        "/v2/admin/r/",
        "/v2/admin/r/tags",
        "/v2/admin/r/tags/",
        "/v2/admin/r/tags/list/",
        "/v2/admin/r/tags/other",
        "/v2/admin/r/manifests",
        "/v2/admin/r/manifests/",
        "/v2/admin/r/manifests/v1/",
        "/v2/admin/r/blobs/",
        f"/v2/admin/r/blobs/{DIGEST}/",
        f"/v2/admin/r/referrers/{DIGEST}/",
        f"/v2/admin/r/blobs/uploads/{UPLOAD}/",
        f"/v2/admin/r/uploads/{UPLOAD}",
        f"/v2/admin/r/upload/{UPLOAD}",
        "/v2/admin/r/uploads/",
        "/v2/admin/ping/x",
        "/v2/admin/catalog/x",
        "/v2/admin/r/other/x",
        "/v2/blobs/uploads/",
        "/v2/manifests/v1",
        "/v2/tags/list",
        "/v2//tags/list/x",
        "/v2x",
        "/v2x/",
    ],
)
def test_what_is_no_endpoint_is_not_found(admin: Client, path: str) -> None:
    for method in ("GET", "POST"):
        answer = admin.send(method, path)
        assert answer.status == 404 or (answer.status == 405 and not path.startswith("/v2/"))
        assert answer.json["errors"][0]["code"]


@pytest.mark.parametrize(
    "name",
    [
        "Admin/r",
        "admin/R",
        "admin//r",
        "/admin/r",
        "admin/r/",
        "admin/-r",
        "admin/r-",
        "admin/r..s",
        "admin/r___s",
        "admin/r._s",
        "admin/_r",
        "admin/%C3%A4",
        "admin/r%00",
        "admin/r%0A",
        "admin/a%20b",
        "admin/%FF",
        "admin/r%22",
        "admin/r,s",
        "admin/..",
        "admin/" + 250 * "r",
    ],
)
def test_what_is_no_name_is_refused_with_and_without_token(admin: Client, name: str) -> None:
    for method, path in (
        ("GET", f"/v2/{name}/tags/list"),
        ("GET", f"/v2/{name}/manifests/v1"),
        ("GET", f"/v2/{name}/blobs/{DIGEST}"),
        ("GET", f"/v2/{name}/referrers/{DIGEST}"),
        ("POST", f"/v2/{name}/blobs/uploads/"),
    ):
        assert admin.send(method, path).expect(400).codes == ["NAME_INVALID"]
        assert admin.call(method, path, scope="registry:catalog:*").expect(400).codes == ["NAME_INVALID"]


@pytest.mark.parametrize(
    "name",
    [
        "admin/r",
        "admin/r.s",
        "admin/r_s",
        "admin/r__s",
        "admin/r---s",
        "admin/0",
        "admin/a/b/c/d/e",
        "admin/tags/list",
        "admin/manifests/latest",
        "admin/blobs/uploads",
        "admin/blobs/uploads/" + UPLOAD,
        "admin/v2/x",
        "admin/referrers/x",
        "admin/" + "/".join(["deep"] * 49) + "/end",
        "admin/" + 249 * "r",
    ],
)
def test_names_of_two_parts_and_more_work_for_everything(standard: Server, admin: Client, name: str) -> None:
    assert len(name) <= 255
    standard.make_repository(name)
    image = make_image()
    admin.push(name, image, "v1")
    admin.assert_whole(name, image, "v1")
    assert admin.call("GET", f"/v2/{name}/tags/list").expect(200).json == {"name": name, "tags": ["v1"]}
    admin.call("GET", f"/v2/{name}/referrers/{image.digest}").expect(200)
    location = admin.start_upload(name)
    admin.call("GET", location).expect(204)
    assert name in admin.call("GET", "/v2/_catalog").json["repositories"]


def test_a_percent_encoded_path_is_the_same_path(admin: Client, home: str) -> None:
    image = make_image()
    admin.push(home, image, "v1.0")
    encoded = "".join(f"%{ord(char):02X}" for char in home)
    path = f"/v2/{encoded}/%6Danifests/v1%2E0"
    answer = admin.call("GET", path, scope=f"repository:{home}:pull").expect(200)
    assert answer.body == image.payload


def test_every_error_has_a_body_as_the_specification_has_it(admin: Client, home: str) -> None:
    for method, path, body in (
        ("GET", "/v2/", None),
        ("GET", "/v2/nothing", None),
        ("POST", "/v2/", None),
        ("GET", "/v2/Not/a/name/tags/list", None),
        ("GET", f"/v2/{home}/manifests/v1", None),
        ("GET", f"/v2/{home}/blobs/{DIGEST}", None),
        ("GET", f"/v2/{home}/blobs/nothing", None),
        ("PUT", f"/v2/{home}/manifests/v1", b"{}"),
        ("PUT", f"/v2/{home}/blobs/uploads/{UPLOAD}?digest={DIGEST}", b""),
        ("GET", "/v2/_catalog?n=x", None),
    ):
        answer = admin.send(method, path) if path == "/v2/" else admin.call(method, path, body)
        assert 400 <= answer.status < 500
        assert answer.headers["content-type"] == "application/json"
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
        errors = json.loads(answer.body)["errors"]
        assert errors
        for one in errors:
            assert set(one) <= {"code", "message", "detail"}
            assert re.fullmatch("[A-Z][A-Z_]*", one["code"])
            assert one["message"]


def test_without_a_token_a_client_is_told_where_to_get_which(admin: Client, standard: Server) -> None:
    realm = f'Bearer realm="https://{standard.address}/auth/token",service="dtr"'
    for method, path, scope in (
        ("GET", "/v2/", ""),
        ("GET", "/v2/_catalog", ',scope="registry:catalog:*"'),
        ("GET", "/v2/a/b/tags/list", ',scope="repository:a/b:pull"'),
        ("HEAD", "/v2/a/b/manifests/v1", ',scope="repository:a/b:pull"'),
        ("PUT", "/v2/a/b/manifests/v1", ',scope="repository:a/b:pull,push"'),
        ("DELETE", "/v2/a/b/manifests/v1", ',scope="repository:a/b:delete"'),
        ("POST", "/v2/a/b/blobs/uploads/", ',scope="repository:a/b:pull,push"'),
        ("DELETE", f"/v2/a/b/blobs/uploads/{UPLOAD}", ',scope="repository:a/b:pull,push"'),
    ):
        answer = admin.send(method, path).expect(401)
        assert answer.headers["www-authenticate"] == realm + scope
        assert method == "HEAD" or answer.codes == ["UNAUTHORIZED"]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a.b.c",
        "bearer " + 20_000 * "x",
        "Basic YWRtaW46eA==",
        "Negotiate x",
        "\xff",
    ],
)
def test_what_is_no_token_is_refused_with_the_way_to_one(admin: Client, header: str) -> None:
    answer = admin.send("GET", "/v2/admin/r/tags/list", headers={"Authorization": header}).expect(401)
    assert answer.codes == ["UNAUTHORIZED"]
    assert answer.headers["www-authenticate"].startswith("Bearer realm=")


@pytest.mark.parametrize("host", ['x"y', "a b", "a/b", "evil\tx", 300 * "h", "a,b", "ä"])
def test_a_strange_host_does_not_come_back(admin: Client, host: str) -> None:
    """What breaks out of a quoted string would add parameters to the challenge."""
    answer = admin.send("GET", "/v2/", headers={"Host": host.encode()})  # type: ignore[dict-item]
    if answer.status != 400:
        assert answer.headers["www-authenticate"] == 'Bearer realm="https://localhost/auth/token",service="dtr"'


def test_the_host_that_the_client_uses_comes_back(admin: Client) -> None:
    for host in ("registry.example", "registry.example:8443", "[::1]:5443", "10.1.2.3"):
        answer = admin.send("GET", "/v2/", headers={"Host": host}).expect(401)
        assert f'realm="https://{host}/auth/token"' in answer.headers["www-authenticate"]


def test_every_answer_has_a_date_and_the_security_headers(admin: Client, home: str) -> None:
    image = make_image()
    admin.push(home, image, "v1")
    for answer in (
        admin.send("GET", "/v2/"),
        admin.call("GET", f"/v2/{home}/manifests/v1"),
        admin.call("GET", f"/v2/{home}/blobs/{digest_of(image.blobs[0])}"),
        admin.call("GET", f"/v2/{home}/manifests/none"),
    ):
        assert parsedate_to_datetime(answer.headers["date"]).tzinfo is not None
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["strict-transport-security"]
        assert answer.headers["x-request-id"]
        assert "server" not in answer.headers


def test_what_may_change_is_not_cached_and_content_by_digest_only_by_its_reader(admin: Client, home: str) -> None:
    image = make_image()
    admin.push(home, image, "v1")
    blob = admin.call("GET", f"/v2/{home}/blobs/{digest_of(image.blobs[0])}")
    assert blob.headers["cache-control"].startswith("private, max-age=")
    for path in (f"/v2/{home}/manifests/v1", f"/v2/{home}/tags/list", f"/v2/{home}/manifests/none"):
        headers = admin.call("GET", path).headers
        assert headers.get("cache-control", "no-cache") in {"no-cache", "no-store"}
        assert "last-modified" not in headers
        assert "expires" not in headers


def test_a_query_that_cannot_be_read_is_refused(admin: Client, home: str) -> None:
    for query in ("&".join(f"a{number}=1" for number in range(150)), "n=1&" * 200):
        assert admin.call("GET", f"/v2/{home}/tags/list?{query}").expect(400).codes == ["UNSUPPORTED"]


def test_places_are_given_without_the_host(admin: Client, home: str) -> None:
    """Whatever name a client uses, and whatever proxies stand between."""
    answer = admin.call("POST", f"/v2/{home}/blobs/uploads/", headers={"Host": "other.example"}).expect(202)
    assert answer.headers["location"] == local(answer.headers["location"])
