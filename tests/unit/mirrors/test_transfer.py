"""What another registry has where an index of referrers belongs."""

from __future__ import annotations

import json

import pytest
from tests.support.images import make_image, make_index

from dtr.mirrors.transfer import descriptors_in


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"3",
        b'"text"',
        b"{}",
        b'{"manifests": 3}',
        b'{"manifests": [3]}',
        b"[" * 100_000,
        b'{"schemaVersion": 2, "manifests": null}',
    ],
)
def test_of_what_is_no_index_nothing_is_kept(content: bytes):
    assert descriptors_in(content) == []


def test_descriptors_of_an_index_are_kept_as_they_are_written():
    index = json.loads(make_index(make_image(), make_image()).payload)
    index["manifests"][0]["org.example.unknown"] = {"a": 1}
    assert descriptors_in(json.dumps(index).encode()) == index["manifests"]
    assert descriptors_in(make_image().payload) == []
