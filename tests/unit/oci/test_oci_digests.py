"""Digests: what is one, what is none, and what is one of a kind that is not known."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtr.oci import Digest, DigestInvalid, DigestUnsupported, OciError

SHA256 = "sha256:" + "a" * 64
SHA512 = "sha512:" + "0123456789abcdef" * 8


@pytest.mark.parametrize("text", [SHA256, SHA512])
def test_a_registered_digest_is_read_as_it_is_written(text: str):
    digest = Digest.parse(text)
    assert digest == text
    assert f"{digest.algorithm}:{digest.hex}" == text


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_digest_of_bytes_is_that_of_hashlib(algorithm: str):
    made = Digest.of(b"content", algorithm)
    assert made.hex == hashlib.new(algorithm, b"content").hexdigest()
    assert made.algorithm == algorithm
    assert len(made.hex) == Digest.ALGORITHMS[algorithm]


def test_sha256_is_the_default():
    assert Digest.of(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "text",
    [
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "sha384:" + "a" * 96,
        "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
        "blake3:" + "0" * 64,
    ],
)
def test_a_well_formed_digest_by_another_algorithm_is_unsupported(text: str):
    with pytest.raises(DigestUnsupported, match="sha256 and sha512") as caught:
        Digest.parse(text)
    assert caught.value.digest == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "sha256",
        "sha256:",
        ":" + "a" * 64,
        "a" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "SHA256:" + "a" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 128,
        "sha512:" + "a" * 64,
        "sha256:" + "a" * 64 + "\n",
        " sha256:" + "a" * 64,
        "sha256:" + "a" * 63 + "\0",
        "sha256:" + "\u0661" * 64,
        "sha256:" + "a" * 64 + "@",
        "md5:../../etc/passwd",
        "sha256++x:abc",
        "md5:",
    ],
)
def test_what_is_no_digest_is_invalid(text: str):
    with pytest.raises(DigestInvalid) as caught:
        Digest.parse(text)
    assert not isinstance(caught.value, DigestUnsupported)


@given(st.binary(max_size=64), st.sampled_from(sorted(Digest.ALGORITHMS)))
@settings(max_examples=100, deadline=None)
def test_reading_a_written_digest_gives_the_same(data: bytes, algorithm: str):
    made = Digest.of(data, algorithm)
    assert Digest.parse(str(made)) == made


@given(
    st.text(max_size=200)
    | st.from_regex(r"[a-z0-9+._:-]{0,20}:[a-zA-Z0-9=_-]{0,130}\Z")
    | st.builds(str.__add__, st.just("sha256:"), st.text("0123456789abcdefABCg\n", min_size=62, max_size=66))
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_digest_or_an_error_of_this_package(text: str):
    try:
        digest = Digest.parse(text)
    except OciError:
        return
    assert digest == text
    assert len(digest.hex) == Digest.ALGORITHMS[digest.algorithm]
    assert set(digest.hex) <= set("0123456789abcdef")
