"""Whatever is sent to the notary protocol, it is answered, and never with a failure."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.client import Answer
from tests.support.images import digest_of
from tests.support.notary import Publisher
from tests.support.server import Server
from tests.support.trust import BOUNDARY, MANAGE, READ, SIGN, Trust, form
from tests.support.wire import Peer

pytestmark = pytest.mark.parametrize("notary", ["postgresql"], indirect=True, scope="session")

TAG = {"v1": (digest_of(b"v1"), 123)}
KIND = f"multipart/form-data; boundary={BOUNDARY}"
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture(scope="module")
def target(notary: Server) -> tuple[Trust, str, Publisher]:
    """Somebody who may do everything, and a collection of theirs."""
    trust = Trust(notary)
    path = f"admin/hostile{time.monotonic_ns()}"
    notary.make_repository(path)
    gun = trust.gun(path)
    publisher = trust.publisher(gun)
    trust.publish(gun, publisher.first(TAG)).expect(200)
    return trust, gun, publisher


def check(answer: Answer) -> None:
    """An answer of the protocol; clients read no more of an error than it has."""
    assert answer.status < 500, answer
    if answer.status in {400, 401, 404} and answer.body:
        assert len(answer.body) < 1024
        (error,) = answer.json["errors"]
        assert error["code"]
        assert error["message"]


PIECES = st.sampled_from(
    [
        "root", "targets", "snapshot", "timestamp", "targets/a", "targets/releases", ".json", ".key", ".", "/",
        "//", "..", "0", "1", "-1", "99999999999999999999", "a" * 64, "A" * 64, "0" * 96, "f" * 128, "%00", "%2f",
        "%2e%2e", "%ff", "%0a", "*", " ", "é", "%F0%9F%98%80", "_trust", "/_trust/", "tuf", "tuf/", "changefeed",
        "?", "&", "records=", "change_id=", "=", "localhost", ":", "admin", "v2",
    ]
)  # fmt: skip
METHODS = st.sampled_from(["GET", "GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "PATCH"])


@given(method=METHODS, tail=st.lists(PIECES, max_size=7), collection=st.booleans())
@quick
def test_any_path(target: tuple[Trust, str, Publisher], method: str, tail: list[str], collection: bool) -> None:
    trust, gun, _ = target
    before = f"/v2/{gun}/_trust/" if collection else "/v2/"
    path = before + quote("".join(tail), safe="%/:?&=*+-_.~") + ("" if collection else "/_trust/tuf/root.json")
    if method == "DELETE" and path.rstrip("/?").endswith("_trust/tuf"):
        return  # that one exists
    scope = f"repository:{gun}:*%20registry:catalog:*"
    bearer = {"Authorization": f"Bearer {trust.token(scope)}"}
    check(trust.send(method, path, None, bearer))
    check(trust.send(method, path))


@given(
    cuts=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 30), st.binary(max_size=12)), max_size=4),
    kind=st.sampled_from(
        [KIND, KIND, KIND, "multipart/form-data; boundary=B", "multipart/mixed;boundary=" + BOUNDARY]
    ),
)
@quick
def test_any_body(target: tuple[Trust, str, Publisher], cuts: list[tuple[int, int, bytes]], kind: str) -> None:
    trust, gun, publisher = target
    body = form([("root", publisher.files["root"]), ("targets/a", publisher.files["targets"])])
    for start, length, given_instead in cuts:
        body = body[:start] + given_instead + body[start + length :]
    check(trust.upload(gun, body, kind))


LINES = st.sampled_from(
    [
        f"--{BOUNDARY}\r\n", f"--{BOUNDARY}--\r\n", f"--{BOUNDARY}", "\r\n", "\n", "--",
        'Content-Disposition: form-data; name="files"; filename="targets"\r\n',
        'Content-Disposition: form-data; filename="\\"\r\n', "Content-Disposition: ;;==\r\n",
        "Content-Disposition:\r\n",
        "content-disposition: form-data; filename*=utf-8''root\r\n", "X: y\r\n" * 50, "X" * 9000, ": x\r\n",
        "{}", '{"signed":{},"signatures":[]}', "\x00\xff", "[" * 5000, '{"signed":{"version":1e400}}',
    ]
)  # fmt: skip


@given(lines=st.lists(LINES, max_size=12))
@quick
def test_any_form(target: tuple[Trust, str, Publisher], lines: list[str]) -> None:
    trust, gun, _ = target
    check(trust.upload(gun, "".join(lines).encode("latin-1"), KIND))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(role=st.sampled_from(["root", "targets", "snapshot", "targets/a"]), member=st.sampled_from(
    ["_type", "version", "expires", "keys", "roles", "targets", "delegations", "meta", "signatures"]
), value=json_values)  # fmt: skip
@quick
def test_any_member_of_a_file(target: tuple[Trust, str, Publisher], role: str, member: str, value: object) -> None:
    trust, gun, publisher = target
    document = json.loads(publisher.files["root" if role == "root" else "targets"])
    (document if member == "signatures" else document["signed"])[member] = value
    check(trust.publish(gun, [(role, json.dumps(document).encode("utf-8", "surrogatepass"))]))


def test_an_update_that_is_too_large_is_refused_before_it_was_sent(target: tuple[Trust, str, Publisher]) -> None:
    trust, gun, _ = target
    token = trust.token(f"repository:{gun}:{SIGN}")
    with Peer(trust.client.port, trust.client.server.tls) as peer:
        peer.send(
            f"POST /v2/{gun}/_trust/tuf/ HTTP/1.1\r\nHost: {trust.host}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: {KIND}\r\nContent-Length: 900000000\r\n\r\n".encode()
        )
        assert peer.receive().startswith(b"HTTP/1.1 400 ")


def test_many_parts_are_bounded(target: tuple[Trust, str, Publisher]) -> None:
    trust, gun, _ = target
    one = b'{"signed":{},"signatures":[]}'
    refused = trust.publish(gun, [("targets/a", one)] * 1_001).expect(400)
    assert refused.codes == ["MALFORMED_UPLOAD"]
    assert trust.publish(gun, [(f"targets/{number}", one) for number in range(300)]).expect(400).codes


def test_long_paths_cost_no_time(target: tuple[Trust, str, Publisher]) -> None:
    trust, gun, _ = target
    for path in (
        "/v2/" + "a/_trust/tuf/" * 600 + "root.json",
        "/v2/" + "/_trust/tuf/targets" * 400,
        f"/v2/{gun}/_trust/tuf/targets" + "/a" * 3000 + ".json",
    ):
        took = []
        for _ in range(3):  # the machine may be busy with other things
            started = time.monotonic()
            check(trust.send("GET", path))
            took.append(time.monotonic() - started)
        assert min(took) < 1


def test_names_that_no_role_has_are_not_found(
    target: tuple[Trust, str, Publisher], make_path: Callable[..., str]
) -> None:
    trust, gun, _ = target
    for role in (
        "targets/Upper",
        "targets/%00",
        "targets/%ff",
        "targets/é",
        "targets/" + "a" * 300,
        "targets/a.b",
    ):
        answer = trust.ask("GET", gun, f"tuf/{quote(role, safe='/%')}.json", READ)
        assert answer.expect(404).codes == ["METADATA_NOT_FOUND"], role
        trust.ask("GET", gun, f"tuf/{quote(role, safe='/%')}.{'0' * 64}.json", MANAGE).expect(404)
