"""What names other registries, and what their headers say."""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtr.remotes import DOCKER_HUB, DefinitionInvalid, Remote
from dtr.remotes.answers import retry_after
from dtr.remotes.challenges import Challenge, parse_challenges
from dtr.remotes.errors import RemoteBroken
from dtr.remotes.session import lead


@pytest.mark.parametrize(
    ("host", "repository", "url", "name"),
    [
        ("https://registry.example:5000", "a/b", "https://registry.example:5000", "registry.example:5000/a/b"),
        ("registry.example", "app", "https://registry.example", "registry.example/app"),
        ("http://Registry.Example/", "a/b/c", "http://registry.example", "registry.example/a/b/c"),
        ("docker.io", "alpine", DOCKER_HUB, "docker.io/library/alpine"),
        ("https://index.docker.io", "acme/app", DOCKER_HUB, "docker.io/acme/app"),
        ("https://registry-1.docker.io", "library/alpine", DOCKER_HUB, "docker.io/library/alpine"),
        ("https://index.docker.io/v1/", "alpine", DOCKER_HUB, "docker.io/library/alpine"),
        ("https://[2001:db8::1]:5000", "a", "https://[2001:db8::1]:5000", "[2001:db8::1]:5000/a"),
    ],
)
def test_names_of_registries(host: str, repository: str, url: str, name: str):
    remote = Remote(host=host, repository=repository)
    remote.check()
    assert (remote.url, remote.full_name) == (url, name)


@pytest.mark.parametrize(
    "host",
    [
        "", "https://", "ftp://registry.example", "https://a@registry.example", "https://registry.example/path",
        "https://registry.example?q", "https://registry.example#f", "https://registry.example:0", "https://[::1",
        "https://registry.example:99999", "https://regi stry.example", "https://registry.exämple", "https://a;b",
        "https://docker.io@evil.example", "https://evil.example/docker.io", "//registry.example", "https://a\\b",
    ],
)  # fmt: skip
def test_what_is_no_registry(host: str):
    with pytest.raises(DefinitionInvalid):
        Remote(host=host, repository="a/b").check()


@pytest.mark.parametrize(
    "given",
    [
        {"repository": ""}, {"repository": "A/b"}, {"repository": "../x"}, {"repository": "a/b?x"},
        {"username": "a:b"}, {"username": "a\n"}, {"password": "without user"}, {"ca": "no PEM"},
        {"token": "x" * 20_000}, {"username": "ada", "password": "x" * 20_000},
    ],
)  # fmt: skip
def test_what_is_no_remote(given: dict[str, str]):
    with pytest.raises(DefinitionInvalid):
        Remote(**{"host": "https://registry.example", "repository": "a/b", **given}).check()


def test_a_remote_does_not_show_its_secrets():
    remote = Remote(host="registry.example", repository="a", username="u", password="hunter2", token="t0ken")
    assert "hunter2" not in repr(remote)
    assert "t0ken" not in repr(remote)


# --- challenges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"'],
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "registry.example",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        (['Basic realm="a \\"b\\", c"'], [Challenge("basic", {"realm": 'a "b", c'})]),
        (["Negotiate, Basic realm=x"], [Challenge("negotiate", {}), Challenge("basic", {"realm": "x"})]),
        (
            ["Basic realm=x", "Bearer REALM = y"],
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})],
        ),
        (["", "=", "a=b"], []),
    ],
)  # fmt: skip
def test_challenges(headers: list[str], expected: list[Challenge]):
    assert parse_challenges(headers) == expected


@given(st.lists(st.text(max_size=200), max_size=3))
def test_any_header_can_be_read(headers: list[str]):
    for one in parse_challenges(headers):
        assert one.scheme == one.scheme.lower()


# --- waiting --------------------------------------------------------------------------------------------------

MANY = "9" * 20
PARTS = ["Mon,", "1", "Jan", "2001", "00:00:00", "GMT", "+0000", "-2359", MANY]
DATES = st.lists(st.sampled_from(PARTS) | st.text(max_size=4), max_size=7).map(" ".join)


def test_how_long_a_server_wants_to_be_left_alone():
    assert retry_after({}) is None
    assert retry_after({"Retry-After": "17"}) == 17
    assert retry_after({"Retry-After": "999999999"}) == 86_400
    for nonsense in ("soon", f"{MANY} Jan 2001 00:00 GMT", f"1 Jan {MANY} 00:00 GMT", f"1 Jan 2001 00:00 +{MANY}"):
        assert retry_after({"Retry-After": nonsense}) is None
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert 3500 < (retry_after({"Retry-After": format_datetime(later, usegmt=True)}) or 0) <= 3600
    assert retry_after({"Retry-After": "Mon, 01 Jan 2001 00:00:00 GMT"}) == 0
    assert retry_after({"RateLimit-Remaining": "0;w=21600"}) == 3600
    assert retry_after({"RateLimit-Remaining": "7;w=21600"}) is None


def test_where_an_answer_may_lead():
    assert lead("https://a.example/v2/x", "/y") == "https://a.example/y"
    assert lead("https://a.example/x", "https://b.example/y?signed=1") == "https://b.example/y?signed=1"
    assert lead("http://a.example/x", "https://a.example/x") == "https://a.example/x"
    assert lead("https://a.example/x", "https://b.example/" + "?" + "s" * 8000).startswith("https://b.example/")
    for place in (
        "http://a.example/y",
        "ftp://a.example",
        "https://user@a.example/",
        "https://[::1",
        "/a b",
        "/a?b c",
        "/ä",
        "https://a;b/",
    ):
        with pytest.raises(RemoteBroken):
            lead("https://a.example/x", place)


@given(st.text(max_size=60) | DATES, st.text(max_size=60))
def test_any_answer_of_who_is_busy_can_be_read(given_: str, left: str):
    seconds = retry_after({"Retry-After": given_, "RateLimit-Remaining": left})
    assert seconds is None or 0 <= seconds <= 86_400
