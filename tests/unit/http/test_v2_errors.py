"""What clients of the registry API are told."""

from __future__ import annotations

import pytest

from dtr.http.v2.errors import Answer


@pytest.mark.parametrize(
    ("message", "header"),
    [
        ("denied", b'299 - "denied"'),
        ('the tag "v1" of a\\b', b"299 - \"the tag 'v1' of a/b\""),
        ("two\r\nlines\0\x7f", b'299 - "two  lines  "'),
        ("k\u00f6ln \u6771\u4eac", b'299 - "k?ln ??"'),
        ("a" * 5000, b'299 - "' + b"a" * 2000 + b'"'),
    ],
)
def test_a_warning_is_a_text_that_every_client_reads(message: str, header: bytes):
    assert Answer(403, "DENIED", message).warning() == (b"warning", header)
