"""The notary protocol, row by row: notary-v1, section 2."""

from __future__ import annotations

import datetime as dt
import email.utils
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.images import digest_of
from tests.support.notary import Key, Publisher, seal, walk
from tests.support.server import Server
from tests.support.trust import BOUNDARY, MANAGE, READ, SIGN, Trust, form
from tests.support.wire import wait_until

pytestmark = pytest.mark.parametrize("notary", ["sqlite"], indirect=True, scope="session")

TAG = {"v1": (digest_of(b"v1"), 123)}
OTHER = {"v2": (digest_of(b"v2"), 456)}


@pytest.fixture
def gun(trust: Trust, make_path: Callable[..., str]) -> str:
    """A collection that nobody published yet."""
    return trust.gun(make_path())


@pytest.fixture
def published(trust: Trust, gun: str) -> Publisher:
    """One with a tag."""
    publisher = trust.publisher(gun)
    assert trust.publish(gun, publisher.first(TAG)).expect(200).body == b""
    return publisher


def detail(answer: Any) -> Any:
    return answer.json["errors"][0].get("detail")


# --- routes (2.1) ------------------------------------------------------------------------------------------------


def test_every_route(trust: Trust, gun: str, published: Publisher) -> None:
    root = published.files["root"]
    digest = hashlib.sha256(root).hexdigest()
    for tail, status in (
        (f"tuf/root.{digest}.json", 200),
        (f"tuf/root.{digest.upper()}.json", 200),
        (f"tuf/targets.{digest}.json", 404),  # the hash of another role's
        (f"tuf/root.{digest}{digest}.json", 404),
        (f"tuf/root.{digest[:32]}{digest}.json", 404),
        (f"tuf/root.{'0' * 64}.json", 404),
        ("tuf/1.root.json", 200),
        ("tuf/01.root.json", 200),
        ("tuf/0.root.json", 404),
        ("tuf/2.root.json", 404),
        (f"tuf/{'9' * 400}.root.json", 404),
        ("tuf/root.json", 200),
        ("tuf/root.json?any=thing", 200),
        ("tuf/targets.json", 200),
        ("tuf/snapshot.json", 200),
        ("tuf/timestamp.json", 200),
        ("tuf/targets/nobody.json", 404),
        ("tuf/targets/a/b.json", 404),
        ("tuf/timestamp.key", 401),  # it needs more than pull
        ("changefeed?records=1", 200),
    ):
        answer = trust.ask("GET", gun, tail).expect(status)
        if status == 404:
            assert (answer.codes, detail(answer)) == (["METADATA_NOT_FOUND"], {}), tail
    assert trust.get(gun, f"root.{digest}.json").body == root
    assert trust.get(gun, "1.root.json").body == root
    for role in ("timestamp", "snapshot"):
        assert trust.key(gun, role)["keytype"] == "ecdsa"


def test_what_is_no_route_asks_for_the_catalog_and_is_not_found(
    trust: Trust, gun: str, published: Publisher
) -> None:
    bearer = {"Authorization": f"Bearer {trust.token('registry:catalog:*')}"}
    nothing = (
        ("HEAD", "tuf/root.json"),
        ("HEAD", "tuf/timestamp.json"),
        ("PUT", "tuf/"),
        ("POST", "tuf"),
        ("POST", "tuf/root.json"),
        ("DELETE", "tuf/root.json"),
        ("GET", "tuf/"),
        ("GET", "tuf/root.key"),
        ("GET", "tuf/targets.key"),
        ("POST", "tuf/targets.key"),
        ("GET", "tuf/other.json"),
        ("GET", "tuf/x.root.json"),
        ("GET", "tuf/root.abc.json"),
        ("GET", "tuf/targets/.json"),
        ("GET", "elsewhere"),
        ("POST", "changefeed"),
    )
    for method, tail in nothing:
        path = f"/v2/{gun}/_trust/{tail}"
        refused = trust.send(method, path).expect(401)
        assert 'scope="registry:catalog:*"' in refused.headers["www-authenticate"]
        found = trust.send(method, path, None, bearer).expect(404)
        if method != "HEAD":
            assert refused.codes == ["UNAUTHORIZED"]
            assert (found.codes, detail(found)) == (["METADATA_NOT_FOUND"], None)
    for method in ("OPTIONS", "PATCH", "TRACE"):
        assert trust.send(method, f"/v2/{gun}/_trust/tuf/root.json").expect(405).body == b""
    trust.send("GET", "/v2/_trust/elsewhere", None, bearer).expect(404)
    too_long = f"/v2/{'a' * 3000}/_trust/tuf/root.json"
    trust.send("GET", too_long, None, bearer).expect(404)


def test_paths_are_cleaned(trust: Trust, gun: str) -> None:
    clean = f"/v2/{gun}/_trust/tuf/root.json"
    for path in (
        f"/v2//{gun}/_trust/tuf/root.json",
        f"/v2/{gun}/_trust//tuf/root.json",
        f"/v2/{gun}/./_trust/tuf/./root.json",
        f"/v2/{gun}/x/../_trust/tuf/root.json",
        f"/v2/{gun}/_trust/tuf/x/%2e%2e/root.json",
    ):
        assert trust.send("GET", path).expect(301).headers["location"] == clean
    moved = trust.send("POST", f"/v2/{gun}/_trust//tuf/?a=b").expect(301)
    assert moved.headers["location"] == f"/v2/{gun}/_trust/tuf/?a=b"


def test_health(trust: Trust) -> None:
    answer = trust.send("GET", "/_notary_server/health").expect(200)
    assert answer.json == {}
    assert trust.send("GET", "/health").expect(200).json["Checks"]["trust"] == ""


def test_the_ping_is_the_registrys_and_its_tokens_are_good_here(trust: Trust, gun: str) -> None:
    challenge = trust.send("GET", "/v2/").expect(401).headers["www-authenticate"]
    ours = trust.send("GET", f"/v2/{gun}/_trust/tuf/root.json").expect(401).headers["www-authenticate"]
    for part in ("realm", "service"):
        assert (
            challenge.partition(f'{part}="')[2].partition('"')[0]
            == ours.partition(f'{part}="')[2].partition('"')[0]
        )
    assert f'scope="repository:{gun}:pull"' in ours


def test_requests_are_counted_and_logged(notary: Server, trust: Trust, gun: str, published: Publisher) -> None:
    for file in ("root.json", "1.root.json", f"root.{'0' * 64}.json"):
        trust.get(gun, file)
    trust.key(gun, "snapshot", new=True)
    trust.ask("GET", gun, "changefeed?records=1")
    trust.delete(gun)
    operations = {
        "UpdateTUF", "GetRole", "GetRoleByVersion", "GetRoleByHash", "GetKey", "RotateKey", "DeleteTUF",
        "Changefeed",
    }  # fmt: skip

    def counted(family: str) -> set[str]:
        text = trust.send("GET", "/metrics").expect(200).body.decode()
        return set(re.findall(rf'^notary_server_http_{family}\{{.*?operation="(\w+)"', text, re.MULTILINE))

    wait_until(lambda: counted("requests_total") == operations)
    for family in ("request_duration_microseconds", "request_size_bytes", "response_size_bytes"):
        assert counted(f"{family}_count") == counted(f"{family}_sum") == operations

    def logged() -> dict[str, Any] | None:
        lines = [json.loads(line) for line in notary.log.splitlines() if line.startswith("{")]
        updates = [one for one in lines if one.get("path") == f"/v2/{gun}/_trust/tuf/" and one["method"] == "POST"]
        return updates[0] if updates else None

    wait_until(lambda: logged() is not None)
    line = logged()
    assert line is not None
    assert (line["actor"], line["repository"]) == ("admin", gun.partition("/")[2])


# --- headers (2.2) -----------------------------------------------------------------------------------------------


def test_what_caches_may_keep(trust: Trust, make_path: Callable[..., str]) -> None:
    for visibility, current, consistent in (
        (
            "public",
            "public, max-age=300, s-maxage=300, must-revalidate",
            "public, max-age=2592000, s-maxage=2592000",
        ),
        ("private", "private, max-age=300, must-revalidate", "private, max-age=2592000"),
    ):
        gun = trust.gun(make_path(visibility))
        before = dt.datetime.now(dt.UTC).replace(microsecond=0)
        publisher = trust.publisher(gun)
        trust.publish(gun, publisher.first(TAG)).expect(200)
        digest = hashlib.sha256(publisher.files["root"]).hexdigest()
        for file, caching in (
            ("root.json", current),
            ("timestamp.json", current),
            ("1.root.json", consistent),
            (f"root.{digest}.json", consistent),
        ):
            headers = trust.get(gun, file).expect(200).headers
            assert headers["cache-control"] == caching
            assert headers["last-modified"].endswith(" GMT")
            stored = email.utils.parsedate_to_datetime(headers["last-modified"])
            assert before <= stored <= dt.datetime.now(dt.UTC)
            assert headers["content-type"] == "application/json"
            assert "etag" not in headers
            assert "docker-distribution-api-version" not in headers
        missing = trust.get(gun, "9.root.json").expect(404).headers
        assert "last-modified" not in missing
        assert "cache-control" not in missing
        assert missing["content-type"] == "application/json; charset=utf-8"


# --- updates (2.3) and errors (2.4) ------------------------------------------------------------------------------


def test_parts_come_in_any_order_with_or_without_a_suffix(trust: Trust, gun: str) -> None:
    publisher = trust.publisher(gun)
    bob = Key.make()
    publisher.first(TAG)
    publisher.delegate("targets/bob", [bob])
    files = {**publisher.files, **publisher.write("targets/bob")}
    parts = [
        ("targets/bob.json", files["targets/bob"]),
        ("targets", files["targets"]),
        ("root.json", files["root"]),
    ]
    trust.publish(gun, parts).expect(200)
    assert walk(gun, trust.files(gun)).keys() == {"targets", "targets/bob"}


def test_an_update_without_a_part_makes_a_new_snapshot_and_timestamp(
    trust: Trust, gun: str, published: Publisher
) -> None:
    assert form([]) == b"\r\n--b0undary--\r\n"
    assert trust.publish(gun, []).expect(200).body == b""
    found = trust.files(gun)
    assert {role: json.loads(file)["signed"]["version"] for role, file in found.items()} == {
        "root": 1, "targets": 1, "snapshot": 2, "timestamp": 2,
    }  # fmt: skip


def test_a_timestamp_that_a_client_sends_is_dropped(trust: Trust, gun: str, published: Publisher) -> None:
    theirs = seal({"_type": "Timestamp", "version": 99, "expires": "2030-01-01T00:00:00Z"}, [Key.make()])
    trust.publish(gun, {**published.sign(OTHER), "timestamp": theirs}).expect(200)
    assert trust.get(gun, "timestamp.json").json["signed"]["version"] == 2


def test_what_is_stored_are_the_bytes_of_the_part(trust: Trust, gun: str) -> None:
    """Also those of a file with other white space, and what looks like the end of a line or of a part."""
    publisher = trust.publisher(gun)
    publisher.roles["targets"]["custom"] = f"--{BOUNDARY}--"
    files = publisher.first(TAG)
    odd = json.dumps(json.loads(files["targets"]), indent=3).replace("\n", "\r\n").encode() + b"\r\n\r\n"
    trust.publish(gun, {"root": files["root"], "targets": odd}).expect(200)
    assert trust.get(gun, "targets.json").body == odd


def test_every_error_of_an_update(trust: Trust, gun: str, published: Publisher) -> None:
    good = published.files["targets"]
    plain = b"--B\r\nContent-Type: text/plain\r\n\r\n{}\r\n--B--\r\n"
    nameless = b'--B\r\nContent-Disposition: form-data; name="files"\r\n\r\n{}\r\n--B--\r\n'
    empty = b'--B\r\nContent-Disposition: form-data; name="files"; filename=""\r\n\r\n{}\r\n--B--\r\n'
    kind = "multipart/form-data; boundary=B"
    for body, content_type, code in (
        (plain, kind, "NO_FILENAME"),
        (nameless, kind, "NO_FILENAME"),
        (empty, kind, "NO_FILENAME"),
        (b"", kind, "MALFORMED_UPLOAD"),
        (b"{}", "application/json", "MALFORMED_UPLOAD"),
        (form([]), "multipart/form-data", "MALFORMED_UPLOAD"),
        (form([]), "", "MALFORMED_UPLOAD"),
        (form([]), f"multipart/form-data; boundary={'b' * 71}", "MALFORMED_UPLOAD"),
        (form([("targets", good)])[:-9], f"multipart/form-data; boundary={BOUNDARY}", "MALFORMED_UPLOAD"),
        (form([("targets", good)]), kind, "MALFORMED_UPLOAD"),
    ):
        refused = trust.upload(gun, body, content_type).expect(400)
        assert refused.codes == [code], body
    for name in ("bogus", "targets/", "targets/Upper", "../root", "targets/a b", "root.json.json", "t\u00e4rgets"):
        refused = trust.publish(gun, [(name, good)]).expect(400)
        assert refused.codes == ["INVALID_ROLE"]
    assert detail(trust.publish(gun, [("bogus.json", good)])) == "bogus"
    for content in (
        b"",
        b"{",
        b"[]",
        b'{"signed":[]}',
        b'{"signed":{"version":"1"}}',
        b"\xff",
        b"[" * 99_999,
    ):
        assert trust.publish(gun, [("targets", content)]).expect(400).codes == ["MALFORMED_JSON"], content[:20]
    # The first that is wrong is told.
    for parts, code in (
        ([("targets", b"{"), ("bogus", good)], "MALFORMED_JSON"),
        ([("bogus", good), ("targets", b"{")], "INVALID_ROLE"),
        ([("timestamp", b"{")], "MALFORMED_JSON"),
    ):
        assert trust.publish(gun, parts).expect(400).codes == [code]
    # The same or an older version, and a role twice.
    for parts in ([("targets", good)], [("targets", good), ("targets", good)]):
        conflict = trust.publish(gun, parts).expect(400)
        assert (conflict.codes, detail(conflict)) == (["VERSION"], {})
    too_large = trust.publish(gun, [("targets", b" " * 2_000_000)]).expect(400)
    assert too_large.codes == ["MALFORMED_UPLOAD"]
    assert "2000000 bytes" in detail(too_large)["Error"]["Msg"]
    assert trust.get(gun, "timestamp.json").json["signed"]["version"] == 1, "nothing of that was stored"


def test_errors_of_validation_have_the_form_that_clients_know(
    trust: Trust, gun: str, make_path: Callable[..., str]
) -> None:
    def refused(parts: dict[str, bytes], name: str, at: str = gun) -> Any:
        answer = trust.publish(at, parts).expect(400)
        assert answer.codes == ["INVALID_UPDATE"]
        assert len(answer.body) < 1024
        found = detail(answer)
        assert found["Name"] == name
        assert found["Error"]["Msg"]
        return found

    refused({}, "ErrValidation")
    publisher = trust.publisher(gun)
    files = publisher.first(TAG)
    refused({"targets": files["targets"]}, "ErrValidation")
    elsewhere = trust.gun(make_path())
    refused(files, "ErrBadRoot", elsewhere)  # the certificate is for another collection
    refused({**files, "targets": seal(publisher.roles["targets"], [Key.make()])}, "ErrBadTargets")
    alone = Publisher(gun, publisher.timestamp, Key.make())
    files = alone.first(TAG)
    refused({**files, "snapshot": seal(json.loads(files["snapshot"])["signed"], [Key.make()])}, "ErrBadSnapshot")
    del files["snapshot"]
    assert refused(files, "ErrBadHierarchy")["Error"]["Missing"] == "snapshot"
    assert trust.get(gun, "root.json").expect(404).codes == ["METADATA_NOT_FOUND"]


def test_two_who_publish_at_once(trust: Trust, gun: str, published: Publisher) -> None:
    """Who comes second with the same base is told so, and publishes when it has read again."""
    other = json.loads(json.dumps(published.roles))
    trust.publish(gun, published.sign(OTHER)).expect(200)
    published.roles = other
    assert trust.publish(gun, published.sign({"v3": TAG["v1"]})).expect(400).codes == ["VERSION"]
    assert walk(gun, trust.files(gun))["targets"].keys() == {"v1", "v2"}


# --- the changefeed (2.6) ----------------------------------------------------------------------------------------


def test_the_changefeed_of_a_collection(trust: Trust, gun: str, published: Publisher) -> None:
    def feed(query: str) -> list[dict[str, Any]]:
        found = trust.ask("GET", gun, f"changefeed?{query}").expect(200).json
        assert found["count"] == len(found["records"])
        records: list[dict[str, Any]] = found["records"]
        return records

    trust.publish(gun, published.sign(OTHER)).expect(200)
    timestamp = trust.get(gun, "timestamp.json").body
    trust.delete(gun).expect(200)
    first, second, gone = feed("records=10")
    assert set(first) == {"ID", "CreatedAt", "GUN", "Version", "SHA256", "Category"}
    assert (second["GUN"], second["Version"], second["Category"]) == (gun, 2, "update")
    assert second["SHA256"] == hashlib.sha256(timestamp).hexdigest()
    assert (gone["Version"], gone["SHA256"], gone["Category"]) == (0, "", "deletion")
    assert isinstance(first["ID"], str)
    assert int(first["ID"]) < int(second["ID"]) < int(gone["ID"])
    assert dt.datetime.fromisoformat(first["CreatedAt"]).tzinfo is not None
    for query, expected in (
        ("records=0", [first, second, gone]),
        ("records=+2", [first, second]),
        ("records=2&change_id=", [first, second]),
        (f"records=5&change_id={first['ID']}", [second, gone]),
        (f"records=5&change_id={gone['ID']}", []),
        (f"records=-5&change_id={gone['ID']}", [first, second]),
        (f"records=-1&change_id={gone['ID']}", [second]),
        ("records=-2", [second, gone]),
        ("records=1&change_id=-1", [gone]),
        ("records=2147483647", [first, second, gone]),
    ):
        assert feed(query.replace("+", "%2B")) == expected, query
    for query in (
        "",
        "records=",
        "records=x",
        "records=1.5",
        "records=1_0",
        "records=2147483648",
        "records=1&change_id=x",
    ):
        refused = trust.ask("GET", gun, f"changefeed?{query}").expect(400)
        assert refused.codes == ["INVALID_PARAMETERS"], query


# --- tokens (1.4, 2.4) -------------------------------------------------------------------------------------------


def test_a_challenge_says_what_is_needed(trust: Trust, gun: str) -> None:
    scopes = {"pull": READ, "push,pull": SIGN, "*": MANAGE}
    for method, tail, actions in (
        ("POST", "tuf/", "push,pull"),
        ("GET", "tuf/root.json", "pull"),
        ("GET", "tuf/1.root.json", "pull"),
        ("GET", f"tuf/root.{'0' * 64}.json", "pull"),
        ("GET", "tuf/timestamp.key", "push,pull"),
        ("POST", "tuf/snapshot.key", "*"),
        ("DELETE", "tuf/", "*"),
        ("GET", "changefeed?records=1", "pull"),
    ):
        path = f"/v2/{gun}/_trust/{tail}"
        refused = trust.send(method, path).expect(401)
        assert refused.codes == ["UNAUTHORIZED"]
        assert refused.headers["www-authenticate"].endswith(f'scope="repository:{gun}:{actions}"')
        assert detail(refused) == [
            {"Type": "repository", "Class": "", "Name": gun, "Action": one} for one in actions.split(",")
        ]
        bad = trust.send(method, path, None, {"Authorization": "Bearer x.y.z"}).expect(401)
        assert bad.headers["www-authenticate"].endswith('error="invalid_token"')
        if actions != "pull":
            weaker = READ if actions == "push,pull" else SIGN
            low = trust.ask(method, gun, tail, weaker).expect(401)
            assert low.headers["www-authenticate"].endswith('error="insufficient_scope"')
        assert trust.ask(method, gun, tail, scopes[actions], b"").status != 401
        assert trust.ask(method, gun, tail, MANAGE, b"").status != 401, "the star grants all"


def test_a_token_is_for_one_collection(trust: Trust, gun: str, make_path: Callable[..., str]) -> None:
    other = trust.gun(make_path())
    path = gun.partition("/")[2]
    for scope in (
        f"repository:{other}:*",
        f"repository:{path}:pull,push",
        f"repository:{path}:*",
        "registry:catalog:*",
    ):
        bearer = {"Authorization": f"Bearer {trust.token(scope)}"}
        trust.send("GET", f"/v2/{gun}/_trust/tuf/root.json", None, bearer).expect(401)
        trust.send("DELETE", f"/v2/{gun}/_trust/tuf/", None, bearer).expect(401)


# --- names of the server -----------------------------------------------------------------------------------------


def test_a_collection_begins_with_a_name_of_this_server(notary: Server, make_path: Callable[..., str]) -> None:
    path = make_path()
    for host, name in ((None, "old.example"), (None, "old.example:8443"), ("other.example", "other.example")):
        trust = Trust(notary, host=host)
        gun = f"{name}/{path}"
        trust.publish(gun, trust.publisher(gun).first(TAG)).expect(200)
        assert walk(gun, trust.files(gun)) == {"targets": {"v1": TAG["v1"][0]}}
    trust = Trust(notary)
    for gun in (
        f"strange.example/{path}",
        f"old.example:1/{path}",
        f"localhost/{path}",
        path,
        "old.example",
        f"{trust.host}/UP/case",
        f"{trust.host}/{'a/' * 120}b",
    ):
        answer = trust.send("GET", f"/v2/{gun}/_trust/tuf/root.json").expect(404)
        assert (answer.codes, detail(answer)) == (["METADATA_NOT_FOUND"], None)
        trust.send("GET", f"/v2/{gun}/_trust/tuf/timestamp.key").expect(404)
        refused = trust.send("POST", f"/v2/{gun}/_trust/tuf/", form([])).expect(400)
        assert refused.codes == ["INVALID_GUN"]
        assert detail(refused)["Name"] == "ErrValidation"
        assert len(refused.body) < 1024


def test_each_name_has_a_collection_of_its_own(trust: Trust, gun: str, published: Publisher) -> None:
    other = f"old.example/{gun.partition('/')[2]}"
    assert trust.get(other, "root.json").expect(404).codes == ["METADATA_NOT_FOUND"]
    trust.publish(other, trust.publisher(other).first(OTHER)).expect(200)
    trust.delete(other).expect(200)
    assert walk(gun, trust.files(gun)) == {"targets": {"v1": TAG["v1"][0]}}
