"""Bytes that are no HTTP, or almost: never a failure of the server's own, never a traceback, and it goes on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.images import digest_of

if TYPE_CHECKING:
    from tests.integration.fuzz.conftest import Target

lines = st.sampled_from(
    [
        "GET /v2/admin/fuzz/manifests/v1 HTTP/1.1",
        "PUT /v2/admin/fuzz/manifests/x HTTP/1.1",
        f"POST /v2/admin/fuzz/blobs/uploads/?digest={digest_of(b'hello')} HTTP/1.1",
        "POST /auth/token HTTP/1.1",
        "GET /_ping HTTP/1.0",
    ]
)
headers = st.sampled_from(
    [
        *("Content-Length: 5", "Content-Length: 50", "Content-Length: -1", "Content-Length: 5, 5"),
        *("Content-Length: +5", "Content-Length: 99999999999999999999", "Content-Length:"),
        *("Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity"),
        *(
            "Expect: 100-continue",
            "Connection: close",
            "Connection: upgrade",
            "Upgrade: h2c",
            "Upgrade: websocket",
        ),
        *(
            "Authorization: Bearer <token>",
            "Authorization: Basic !",
            "Content-Type: application/x-www-form-urlencoded",
        ),
        *("Host: a", "Host:", " folded: x", "no colon", ": empty", "X: \xff\xfe", "X:" + 3000 * "y"),
    ]
)
bodies = st.binary(max_size=60) | st.sampled_from(
    [
        *(b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"5;x=y\r\nhello\r\n0\r\nT: x\r\n\r\n", b"z\r\n"),
        *(b"fffffffffffffffffff\r\nx", b"5\nhello\n0\n\n", b"-5\r\nhello\r\n"),
    ]
)
pieces = st.binary(max_size=4) | st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\xff", b"HTTP/"])


@st.composite
def almost_requests(draw: st.DrawFn) -> bytes:
    """A right request with wrong bytes in it, maybe cut off."""
    head = [draw(lines), "Host: localhost", *draw(st.lists(headers, max_size=5))]
    raw = "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + draw(bodies)
    for _ in range(draw(st.integers(0, 3))):
        where = draw(st.integers(0, len(raw)))
        raw = raw[:where] + draw(pieces) + raw[where + draw(st.integers(0, 4)) :]
    return raw[: draw(st.just(len(raw)) | st.integers(0, len(raw)))]


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=300)
@given(st.lists(almost_requests(), min_size=1, max_size=3))
def test_no_bytes_make_the_server_fail(target: Target, requests: list[bytes]) -> None:
    """Several one after another, as in a pipeline."""
    data = b"".join(requests).replace(b"<token>", target.token.encode())
    answer = target.throw(data)
    statuses = [int(one) for one in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]
    assert all(status < 500 for status in statuses), (data, answer)
    assert target.ask("GET", "/_ping").status == 200


def test_none_of_these_bytes_did_any_harm(target: Target) -> None:
    target.assert_well()
