"""Names of repositories, tags and references: OCI distribution specification 1.1, "Pulling manifests"."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.lark import from_lark
from lark import Lark

from dtr.oci import (
    Digest,
    DigestInvalid,
    NameInvalid,
    OciError,
    ReferenceInvalid,
    Tag,
    parse_reference,
    parse_repository_name,
)

# As the specification writes them, for comparison.
NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

GRAMMAR = Lark(
    r"""
    start: part ("/" part)*
    part: WORD (SEPARATOR WORD)*
    WORD: /[a-z0-9]{1,12}/
    SEPARATOR: "." | "_" | "__" | /-{1,5}/
    """
)


@pytest.mark.parametrize(
    "name",
    [
        "busybox",
        "admin/hello",
        "a/b/c/d/e/f",
        "0/1",
        "a.b/c_d",
        "a__b/c---d",
        "team-1/sub.project/app__v2",
        "a" * 255,
        "a" * 127 + "/" + "b" * 127,
    ],
)
def test_names_of_the_grammar_are_read_as_they_are_written(name: str):
    assert parse_repository_name(name) == name


def test_the_first_part_is_the_namespace_and_the_others_the_rest():
    name = parse_repository_name("org/team/app")
    assert (name.namespace, name.rest) == ("org", "team/app")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "A/b",
        "a/B",
        "-a/b",
        "a-/b",
        ".a/b",
        "a./b",
        "a..b",
        "a___b",
        "_a",
        "a_",
        "a._b",
        "a-_b",
        "a b",
        "a/b:c",
        "a/../b",
        "a/./b",
        "ä/b",
        "a/b\n",
        "a\0b",
        "a%2fb",
        "a\\b",
        "a@b",
        "\uff41/b",
    ],
)
def test_names_that_break_the_grammar_are_refused(name: str):
    with pytest.raises(NameInvalid) as caught:
        parse_repository_name(name)
    assert caught.value.name == name


def test_a_name_has_at_most_255_characters():
    with pytest.raises(NameInvalid, match="longer than 255"):
        parse_repository_name("a" * 256)


@pytest.mark.parametrize("tag", ["latest", "1.0", "_x", "A", "v1.2.3-rc.1_build", "a" * 128, "..".join("abc")])
def test_tags_of_the_grammar_are_read_as_they_are_written(tag: str):
    found = parse_reference(tag)
    assert found == tag
    assert isinstance(found, Tag)


@pytest.mark.parametrize(
    "tag", ["", ".a", "-a", "a" * 129, "a b", "a/b", "a\n", "é", "a\0", "a+b", "a@b", "../x", "²"]
)
def test_tags_that_break_the_grammar_are_refused(tag: str):
    with pytest.raises(ReferenceInvalid) as caught:
        parse_reference(tag)
    assert caught.value.reference == tag


def test_a_reference_with_a_colon_is_a_digest():
    text = "sha256:" + "0" * 64
    found = parse_reference(text)
    assert found == text
    assert isinstance(found, Digest)


def test_a_reference_with_a_colon_that_is_no_digest_is_refused_as_a_digest():
    with pytest.raises(DigestInvalid):
        parse_reference("latest:1")


@given(from_lark(GRAMMAR))
@settings(max_examples=200, deadline=None)
def test_every_name_that_the_grammar_derives_is_read(name: str):
    assume(len(name) <= 255)
    assert parse_repository_name(name) == name


@given(st.text("ab0./_-A \n", max_size=30) | st.text(max_size=30) | from_lark(GRAMMAR))
@settings(max_examples=400, deadline=None)
def test_a_name_is_accepted_exactly_when_the_specification_says_so(name: str):
    try:
        accepted = parse_repository_name(name) == name
    except OciError:
        accepted = False
    assert accepted == (NAME.fullmatch(name) is not None and len(name) <= 255)


@given(st.text("aA0._-:/ \n", max_size=140) | st.from_regex(TAG, fullmatch=True) | st.text(max_size=140))
@settings(max_examples=300, deadline=None)
def test_a_tag_is_accepted_exactly_when_the_specification_says_so(text: str):
    assume(":" not in text)
    try:
        accepted = parse_reference(text) == text
    except OciError:
        accepted = False
    assert accepted == (TAG.fullmatch(text) is not None)


@given(st.text(max_size=100))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_reference_or_an_error_of_this_package(text: str):
    try:
        found = parse_reference(text)
    except OciError:
        return
    assert found == text


@pytest.mark.parametrize(
    "pattern",
    ["{}!", "a-{}!", "a{}/", "{}"],
)
@pytest.mark.parametrize("piece", ["a", "-", "a-", "a_", "a__", "a.", "_", "a/", "a--"])
def test_hostile_texts_are_refused_in_linear_time(piece: str, pattern: str):
    # A pattern that backtracks exponentially would not end; one that does so quadratically takes minutes.
    hostile = pattern.format(piece * 500_000)
    started = time.process_time()
    for parse in (parse_repository_name, parse_reference, Digest.parse):
        with pytest.raises(OciError):
            parse(hostile)
    for text in (hostile[:250] + "!", hostile[:127] + "!"):
        with pytest.raises(OciError):
            parse_repository_name(text)
    assert time.process_time() - started < 5
