"""
Requests that no client sends: never a failure of the server's own, never a traceback, and it goes on.

Texts are mostly right and somewhere wrong, so that they get past the first check.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_from_bytes, urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.images import EMPTY, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, descriptor, digest_of

if TYPE_CHECKING:
    from tests.integration.fuzz.conftest import Target

NAME = "admin/fuzz"
fuzz = settings(deadline=None, suppress_health_check=list(HealthCheck))
LARGE = 2**63
DIGEST = digest_of(b"nothing")


def mostly(usual: st.SearchStrategy[Any], unusual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(usual, usual, usual, unusual)


nasty = st.sampled_from(
    [
        *("", "\0", "a\0b", "\ud800", "\uffff", "\U0001f433", "ä", "٣", "\x7f", "\x1b[31m", "\r\n", "\t", " "),
        *("..", "../..", "%", "%00", "*", '"', "'", "';--", "sha256:", ":", "::", "@", "{}", "[]", 300 * "a"),
        *("-1", "0", str(LARGE - 1), str(LARGE), 30 * "9", "1e9", "NaN"),
    ]
)
text = nasty | st.text(max_size=30) | st.text("abc019-_./:@,=+", max_size=40)
numbers = st.integers(-5, 300) | st.sampled_from([LARGE, LARGE - 1, -LARGE, 10**30])

# What the content of the target is called stands in for it until the target is known.
KNOWN = ("<image>", "<index>", "<blob>", "<upload>")
names = mostly(
    st.sampled_from(["admin/fuzz", "admin/fuzz", "admin/other"]),
    st.sampled_from(["admin/missing", "nobody/x", "admin", "a/b/c/d"]) | text | st.lists(text).map("/".join),
)
digests = mostly(
    st.sampled_from([*KNOWN, DIGEST, digest_of(b"x", "sha512")]),
    st.sampled_from([DIGEST.upper(), DIGEST[:-1], "md5:" + 32 * "0", "sha256:" + 64 * "g"])
    | st.builds("{}:{}".format, st.sampled_from(["sha256", "sha512", "SHA256", "sha-256", ""]), text)
    | text,
)
references = st.sampled_from(["v1", "latest", "v1\0"]) | digests
ranges = st.sampled_from(["bytes=0-0", "bytes=0-", "bytes=-5", "bytes=5-2", "bytes=0-1,3-4"]) | st.builds(
    "{}{}{}-{}".format,
    st.sampled_from(["bytes", "Bytes", "lines", "", "\xff"]),
    st.sampled_from(["=", " ", ""]),
    numbers | text,
    numbers | text,
)
uploads = mostly(st.sampled_from(["<upload>", "00000000-0000-4000-8000-000000000000"]), text)


def encoded(value: str) -> str:
    """As it can stand in a path; also what is no UTF-8."""
    return quote(value.encode("utf-8", "surrogatepass"), safe="/:@<>")


def endpoint(methods: str, pattern: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, str]]:
    every = st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"])
    return st.tuples(
        mostly(st.sampled_from(methods.split()), every), st.builds(pattern.format, *parts).map(encoded)
    )


endpoints = st.one_of(
    endpoint("GET HEAD", "/v2/_catalog"),
    endpoint("GET HEAD", "/v2/{}/tags/list", names),
    endpoint("GET HEAD PUT DELETE", "/v2/{}/manifests/{}", names, references),
    endpoint("GET HEAD DELETE", "/v2/{}/blobs/{}", names, digests),
    endpoint("GET HEAD", "/v2/{}/referrers/{}", names, digests),
    endpoint("POST", "/v2/{}/blobs/uploads/", names),
    endpoint("GET HEAD PATCH PUT DELETE", "/v2/{}/blobs/uploads/{}", names, uploads),
    endpoint("GET", "{}", st.sampled_from(["/v2/", "/auth/token", "/auth/jwks.json", "/health", "/ca"])),
    endpoint("GET", "{}/{}", st.sampled_from(["", "/v2", "/auth", "/v2/admin"]), text),
)
parameters = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["n"]), mostly(numbers.map(str), text)),
        st.tuples(st.sampled_from(["mount", "digest", "last"]), digests),
        st.tuples(st.sampled_from(["from", "last"]), names),
        st.tuples(st.sampled_from(["tag", "last"]), references),
        st.tuples(st.sampled_from(["artifactType"]), st.just("text/plain") | text),
        st.tuples(st.sampled_from(["digest-algorithm"]), st.sampled_from(["sha512", "md5"]) | text),
        st.tuples(text, text),
    ),
    max_size=3,
).map(lambda pairs: urlencode([tuple(one.encode("utf-8", "surrogatepass") for one in pair) for pair in pairs]))
queries = mostly(
    parameters, st.text("n=last&%;+19abf", max_size=30) | st.binary(max_size=20).map(quote_from_bytes)
)


def printable(value: str) -> str:
    """Of `value`, what a header can hold."""
    return "".join(char for char in value if " " <= char <= "\xff" and char != "\x7f").strip()


headers = st.dictionaries(
    st.sampled_from(
        [
            *("Range", "Range", "If-Range", "If-None-Match", "If-Match", "Content-Range", "Accept"),
            *("Content-Type", "Host", "Origin", "User-Agent", "Cookie", "Referer", "Accept-Encoding"),
            *("X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-For"),
        ]
    ),
    st.one_of(
        ranges,
        text,
        st.sampled_from(["*", '"<blob>"', 'W/"<blob>"', "100-continue", "Wed, 21 Oct 2015 07:28:00 GMT", "a/b"]),
    ).map(printable),
    max_size=3,
)


@settings(fuzz, max_examples=900)
@given(endpoints, queries, headers, st.integers(0, 9), st.binary(max_size=300))
def test_no_request_makes_the_server_fail(
    target: Target, asked: tuple[str, str], query: str, extra: dict[str, str], known: int, body: bytes
) -> None:
    method, path = asked
    sent = {**({"Authorization": f"Bearer {target.token}"} if known else {}), **extra}
    target.ask(method, f"{path}?{query}", sent, body if method in {"PUT", "POST", "PATCH"} else b"")


@settings(fuzz, max_examples=300)
@given(st.data())
def test_no_way_of_uploading_makes_the_server_fail(target: Target, data: st.DataObject) -> None:
    """Steps of an upload in any order, with ranges, lengths and digests that do not belong."""
    auth = {"Authorization": f"Bearer {target.token}"}
    start = target.ask("POST", f"/v2/{NAME}/blobs/uploads/?{data.draw(parameters)}", auth)
    location = start.headers.get("location", f"/v2/{NAME}/blobs/uploads/x")
    content = b""
    for _ in range(data.draw(st.integers(1, 4))):
        method = data.draw(st.sampled_from(["PATCH", "PATCH", "PUT", "GET", "DELETE"]))
        body = data.draw(st.binary(max_size=100) | st.just(70_000 * b"x"))
        honest = f"{len(content)}-{len(content) + len(body) - 1}"
        where = data.draw(st.none() | st.just(honest) | ranges)
        sent = {**auth, **({} if where is None else {"Content-Range": printable(where)})}
        digest = data.draw(st.just(digest_of(content + body)) | digests)
        path = f"{location}?{urlencode({'digest': digest.encode('utf-8', 'surrogatepass')})}"
        answer = target.ask(method, path, sent, body if method in {"PATCH", "PUT"} else b"")
        if method == "PATCH" and answer.status == 202:
            content += body
    target.ask("DELETE", location, auth)


# --- manifests --------------------------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.floats()
    | numbers
    | text
    | digests
    | st.sampled_from([OCI_MANIFEST, OCI_INDEX, "a/b"])
)
keys = (
    st.sampled_from(
        [
            *("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject"),
            *("annotations", "digest", "size", "urls", "data", "platform", "fsLayers", "blobs"),
        ]
    )
    | text
)
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6), max_leaves=20
)


@st.composite
def almost_manifests(draw: st.DrawFn) -> Any:
    """A right manifest in which some things were replaced."""
    config = descriptor(OCI_CONFIG, EMPTY)
    document: dict[str, Any] = draw(
        st.sampled_from(
            [
                {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [dict(config)]},
                {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [dict(config)], "subject": dict(config)},
                {
                    "schemaVersion": 2,
                    "config": config,
                    "layers": [],
                    "artifactType": "a/b",
                    "annotations": {"a": "b"},
                },
            ]
        )
    )
    document = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = document
        while True:
            spots = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not spots:
                break
            spot = draw(st.sampled_from(spots))
            if isinstance(place[spot], dict | list) and draw(st.booleans()):
                place = place[spot]
                continue
            place[draw(keys) if isinstance(place, dict) and draw(st.booleans()) else spot] = draw(documents)
            break
    return document


def put(target: Target, payload: bytes, kind: str = OCI_MANIFEST) -> int:
    sent = {"Authorization": f"Bearer {target.token}", "Content-Type": printable(kind)}
    return target.ask("PUT", f"/v2/{NAME}/manifests/fuzzed", sent, payload).status


kinds = st.sampled_from([OCI_MANIFEST, OCI_INDEX, "", "application/json"]) | text


@settings(fuzz, max_examples=400)
@given(almost_manifests() | documents, st.booleans(), kinds)
def test_no_manifest_makes_the_server_fail(target: Target, document: Any, is_ascii: bool, kind: str) -> None:
    filled = target.fill(json.dumps(document, ensure_ascii=is_ascii))
    payload = filled.encode("utf-8", "surrogatepass")
    if put(target, payload, kind) == 201:
        auth = {"Authorization": f"Bearer {target.token}"}
        assert target.ask("GET", f"/v2/{NAME}/manifests/fuzzed", auth).body == payload
        subject = json.loads(payload).get("subject")
        if subject:
            target.ask("GET", f"/v2/{NAME}/referrers/{subject['digest']}", auth)


damage = st.sampled_from(
    [
        *(b"\xff", b"\0", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b'"', b"{", b"}", b"//"),
        *(b'"schemaVersion":2,', b'"a":1,"a":2,', 2000 * b"[", 5000 * b"9", b"-0", b"1e999", b"NaN"),
    ]
)


@settings(fuzz, max_examples=150)
@given(almost_manifests(), st.data())
def test_no_damage_to_the_text_of_a_manifest_makes_the_server_fail(
    target: Target, document: Any, data: st.DataObject
) -> None:
    """Keys twice, bytes that are no UTF-8, texts cut off, numbers without end."""
    payload = json.dumps(document).encode()
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(payload)))
        piece = data.draw(damage | st.binary(max_size=3))
        cut = data.draw(st.integers(0, 5))
        payload = payload[:where] + piece + payload[where + cut :]
    put(target, payload, data.draw(st.sampled_from([OCI_MANIFEST, OCI_INDEX])))


def test_no_depth_and_no_size_of_a_manifest_makes_the_server_fail(target: Target) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        for depth in (60, 500, 990, 1000, 5000, 100_000):
            for inside in (opening * depth + b"1" + closing * depth, opening * depth):
                payload = b'{"schemaVersion":2,"manifests":[],"x":' + inside + b"}"
                assert put(target, payload, OCI_INDEX) in {201, 400}
    many = [descriptor(OCI_MANIFEST, b"%d" % number) for number in range(15_000)]
    payload = json.dumps({"schemaVersion": 2, "manifests": many}).encode()
    assert put(target, payload, OCI_INDEX) in {404, 413}
    annotations = {str(number): "x" for number in range(100_000)}
    payload = json.dumps({"schemaVersion": 2, "manifests": [], "annotations": annotations}).encode()
    assert put(target, payload, OCI_INDEX) in {201, 400, 413}


# --- tokens -----------------------------------------------------------------------------------------------------

segments = documents.map(lambda one: json.dumps(one).encode("utf-8", "surrogatepass")) | st.binary(max_size=60)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@settings(fuzz, max_examples=300)
@given(st.data())
def test_no_token_makes_the_server_fail(target: Target, data: st.DataObject) -> None:
    whole = target.token
    good = whole.split(".")
    header = json.loads(base64.urlsafe_b64decode(good[0] + "=="))
    changed = st.builds(
        lambda key, value: json.dumps({**header, key: value}).encode(),
        st.sampled_from(["kid", "alg", "typ", "crit", "b64", "jwk", "zip", "enc"]),
        scalars,
    )
    parts = [
        data.draw(st.just(good[0]) | (changed | segments).map(b64)),
        data.draw(st.just(good[1]) | segments.map(b64)),
        data.draw(st.just(good[2]) | st.binary(max_size=70).map(b64)),
    ]
    glue = data.draw(st.sampled_from([".", ".", ".", "", ".."]))
    token = glue.join(parts[: data.draw(st.sampled_from([3, 3, 3, 1, 2]))])
    sent = {"Authorization": f"Bearer {printable(token)}"}
    answer = target.ask("GET", f"/v2/{NAME}/tags/list", sent)
    assert answer.status == (200 if token == whole else 401)


scopes = st.one_of(
    text,
    st.builds(
        "{}:{}:{}".format, st.sampled_from(["repository", "registry", "repository(plugin)", "x", ""]), names, text
    ),
    st.builds(
        "repository:{}/{}:pull,push".format, st.sampled_from(["localhost:5443", "h", "[::1]:5"]) | text, names
    ),
)
credentials = st.one_of(
    st.just(base64.b64encode(b"admin:wrong").decode()),
    st.binary(max_size=40).map(lambda raw: base64.b64encode(raw).decode()),
    st.tuples(text, text).map(
        lambda pair: base64.b64encode(":".join(pair).encode("utf-8", "surrogatepass")).decode()
    ),
    text.map(printable),
)


@settings(fuzz, max_examples=300)
@given(
    st.lists(scopes, max_size=4),
    st.none() | credentials,
    st.sampled_from(["Basic", "basic", "Bearer", ""]),
    headers,
)
def test_no_question_to_the_token_service_makes_it_fail(
    target: Target, wanted: list[str], secret: str | None, scheme: str, extra: dict[str, str]
) -> None:
    query = urlencode([("scope", one.encode("utf-8", "surrogatepass")) for one in wanted])
    sent = extra if secret is None else {**extra, "Authorization": f"{scheme} {secret}"}
    target.ask("GET", f"/auth/token?service=dtr&{query}", sent)


@settings(fuzz, max_examples=250)
@given(st.data())
def test_no_form_makes_the_token_service_fail(target: Target, data: st.DataObject) -> None:
    fields = data.draw(
        st.dictionaries(
            st.sampled_from(
                [
                    "grant_type",
                    "username",
                    "password",
                    "refresh_token",
                    "scope",
                    "client_id",
                    "access_type",
                    "service",
                ]
            )
            | text,
            st.sampled_from(["password", "refresh_token", "admin", "offline", target.refresh_token, "dtra_x"])
            | scopes
            | text,
            max_size=7,
        )
    )
    body = urlencode(
        {key.encode("utf-8", "replace"): value.encode("utf-8", "surrogatepass") for key, value in fields.items()}
    ).encode()
    body = data.draw(st.just(body) | st.binary(max_size=50))
    target.ask("POST", "/auth/token", {"Content-Type": "application/x-www-form-urlencoded"}, body)


def test_nothing_of_all_this_did_any_harm(target: Target) -> None:
    target.assert_well()


def test_no_depth_of_a_token_makes_the_server_fail(target: Target) -> None:
    for depth in (10, 500, 1000, 5000):
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            nested = opening * depth + b"1" + closing * depth
            for header in (nested, b'{"alg":"ES256","kid":' + nested + b"}"):
                token = f"{b64(header)}.{b64(nested)}.{b64(b'x' * 64)}"
                answer = target.ask("GET", "/v2/", {"Authorization": f"Bearer {token}"})
                assert answer.status in {400, 401}
