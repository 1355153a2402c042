"""
Requests made by grammars: every text is right by the letter of some rule, and most make no sense.

Beside the random ones of `test_fuzz_requests` these go deep: through the parsers to what comes behind them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.lark import from_lark
from lark import Lark
from tests.support.images import EMPTY, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, digest_of

if TYPE_CHECKING:
    from tests.integration.fuzz.conftest import Target

fuzz = settings(deadline=None, suppress_health_check=list(HealthCheck))

PATHS = r"""
start: "/v2/" name "/" what query?
name: "admin/fuzz" | "admin/other" | part ("/" part)~1..3
part: WORD (SEPARATOR WORD)~0..2
what: "manifests/" reference | "blobs/" digest | "referrers/" digest | "tags/list" | "blobs/uploads/" ID?
reference: TAG | digest
digest: "<image>" | "<index>" | "<blob>" | ALGORITHM ":" HEX
query: "?" parameter ("&" parameter)~0..2
parameter: "n=" NUMBER | "last=" TAG | "mount=" digest | "from=" name | "digest=" digest | "tag=" TAG
    | "artifactType=" WORD "%2F" WORD
WORD: /[a-z0-9]{1,5}/
SEPARATOR: "." | "_" | "__" | "-" | "---" | "..."
TAG: /[A-Za-z0-9_][A-Za-z0-9._-]{0,8}/
ALGORITHM: "sha256" | "sha512" | "sha1" | "blake3"
HEX: /[0-9a-f]{64}/ | /[0-9a-f]{128}/ | /[0-9a-f]{1,5}/
ID: /[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}/
NUMBER: /[0-9]{1,25}/ | "-1"
"""

RANGES = r"""
start: UNIT "=" spec (SPACE? "," SPACE? spec)~0..2
spec: FIRST "-" LAST? | "-" LAST
UNIT: "bytes" | "BYTES" | "lines"
FIRST: /[0-9]{1,6}/ | /[0-9]{17,22}/
LAST: /[0-9]{1,6}/ | /[0-9]{17,22}/
SPACE: " " | "\t"
"""

MANIFESTS = r"""
start: image | index
image: "{" version "," TYPE_OF_IMAGE "," "\"config\":" descriptor "," "\"layers\":[" list "]" more? "}"
index: "{" version "," TYPE_OF_INDEX "," "\"manifests\":[" list "]" more? "}"
version: "\"schemaVersion\":2" | "\"schemaVersion\":2.0" | "\"schemaVersion\":20e-1" | "\"schemaVersion\":true"
list: (descriptor ("," descriptor)~0..2)?
more: ("," field)~1..3
field: "\"subject\":" descriptor | "\"artifactType\":" TEXT | "\"annotations\":{" annotations? "}" | TEXT ":" value
annotations: TEXT ":" TEXT ("," TEXT ":" TEXT)~0..2
descriptor: "{\"mediaType\":" TEXT ",\"digest\":" DIGEST ",\"size\":" SIZE extra? "}"
extra: ",\"urls\":[" TEXT "]" | ",\"data\":\"e30=\"" | ",\"platform\":" value | ",\"artifactType\":" TEXT
value: TEXT | SIZE | "null" | "true" | "[" value "]" | "{" TEXT ":" value "}"
TYPE_OF_IMAGE: "\"mediaType\":\"@image\""
TYPE_OF_INDEX: "\"mediaType\":\"@index\""
TEXT: "\"a\"" | "\"\"" | "\"a/b\"" | "\"\\u0000\"" | "\"\\ud83d\\udc33\"" | "\"\\udc33\"" | "\"@config\"" | "\"A\""
DIGEST: "\"@empty\"" | "\"<image>\"" | "\"<index>\"" | "\"<blob>\"" | "\"sha256:\""
SIZE: "0" | "2" | "-1" | "9223372036854775807" | "9223372036854775808" | "1e3" | "2.0"
"""


@settings(fuzz, max_examples=400)
@given(from_lark(Lark(PATHS)), st.sampled_from(["GET", "HEAD", "DELETE", "POST", "PUT", "PATCH"]))
def test_no_path_of_the_grammar_makes_the_server_fail(target: Target, path: str, method: str) -> None:
    target.ask(method, path, {"Authorization": f"Bearer {target.token}"})


@settings(fuzz, max_examples=200)
@given(from_lark(Lark(RANGES)))
def test_every_range_is_answered_with_its_bytes_or_refused(target: Target, wanted: str) -> None:
    whole = target.blob
    sent = {"Authorization": f"Bearer {target.token}", "Range": wanted}
    answer = target.ask("GET", "/v2/admin/fuzz/blobs/<blob>", sent)
    if answer.status == 206:
        first, last, size = map(
            int, answer.headers["content-range"].removeprefix("bytes ").replace("/", "-").split("-")
        )
        assert size == len(whole)
        assert answer.body == whole[first : last + 1]
    elif answer.status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(whole)}"
    else:
        assert answer.status == 200
        assert answer.body == whole


@settings(fuzz, max_examples=300)
@given(from_lark(Lark(MANIFESTS)))
def test_every_manifest_of_the_grammar_is_kept_as_it_is_or_refused(target: Target, text: str) -> None:
    for place, value in (
        ("@image", OCI_MANIFEST),
        ("@index", OCI_INDEX),
        ("@config", OCI_CONFIG),
        ("@empty", digest_of(EMPTY)),
    ):
        text = text.replace(place, value)
    payload = target.fill(text).encode()
    auth = {"Authorization": f"Bearer {target.token}"}
    path = f"/v2/admin/fuzz/manifests/{digest_of(payload)}"
    answer = target.ask("PUT", path, auth, payload)
    assert answer.status in {201, 400, 404}
    found = target.ask("GET", path, auth)
    if answer.status == 201:
        assert found.body == payload
        subject = json.loads(payload).get("subject")
        if subject:
            assert answer.headers["oci-subject"] == subject["digest"]
            listed = target.ask("GET", f"/v2/admin/fuzz/referrers/{subject['digest']}", auth).json["manifests"]
            assert digest_of(payload) in {one["digest"] for one in listed}
    else:
        assert found.status == 404


def test_none_of_these_texts_did_any_harm(target: Target) -> None:
    target.assert_well()
