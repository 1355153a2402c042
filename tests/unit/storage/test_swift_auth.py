"""What is said to a token service of OpenStack, and what its answers mean."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from dtr.storage.definitions import parameters_of
from dtr.storage.swift_auth import Credentials, LoginFailed, access_of, login_request

SECRETS = {"password": "secret-1", "application_credential_secret": "secret-2"}


@pytest.mark.parametrize(
    ("auth_url", "version", "sent_to"),
    [
        ("https://k.example/v3", "3", "https://k.example/v3/auth/tokens"),
        ("https://k.example/v3/", "3", "https://k.example/v3/auth/tokens"),
        ("https://k.example/v3/auth", "3", "https://k.example/v3/auth/tokens"),
        ("https://k.example/v3/auth/tokens", "3", "https://k.example/v3/auth/tokens"),
        ("https://k.example:5000", "3", "https://k.example:5000/v3/auth/tokens"),
        ("https://k.example/identity/", "3", "https://k.example/identity/v3/auth/tokens"),
        ("https://k.example/v2.0", "2", "https://k.example/v2.0/tokens"),
        ("https://k.example/v2.0/tokens", "2", "https://k.example/v2.0/tokens"),
        ("https://s.example/auth/v1.0", "1", "https://s.example/auth/v1.0"),
        ("https://gateway.example/auth/1.0", "1", "https://gateway.example/auth/1.0"),
    ],
)
def test_the_address_says_the_version_and_may_be_as_short_or_long_as_people_have_it(auth_url, version, sent_to):
    credentials = Credentials(auth_url, username="u", password="p", project="x")
    assert credentials.version == version
    assert login_request(credentials).url == sent_to


def test_the_version_given_is_the_one():
    credentials = Credentials("https://k.example/v3", auth_version="2", username="u", password="p")
    assert json.loads(login_request(credentials).body)["auth"]["passwordCredentials"]["username"] == "u"


@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_no_secret_is_shown(version):
    credentials = Credentials("https://k.example/", auth_version=version, username="u", **SECRETS)
    request = login_request(credentials)
    assert "secret" not in repr(credentials) + repr(request)
    assert "secret-1" in request.body.decode() + str(request.headers)


def test_an_access_does_not_show_its_token():
    headers = {"X-Auth-Token": "secret", "X-Storage-Url": "https://s.example/v1/a/", "X-Auth-Token-Expires": "60"}
    access = access_of(Credentials("https://s.example/auth/v1.0"), headers, b"")
    assert "secret" not in repr(access)
    assert (access.token, access.url, access.life) == ("secret", "https://s.example/v1/a", 60)
    del headers["X-Auth-Token-Expires"]
    assert access_of(Credentials("https://s.example/auth/v1.0"), headers, b"").life is None


def of_v3(issued_at, expires_at, **endpoint):
    given = {"interface": "public", "region": "r", "url": "https://s.example/v1/a", **endpoint}
    services = [{"type": "object-store", "endpoints": [given]}]
    token = {"issued_at": issued_at, "expires_at": expires_at, "catalog": services}
    return json.dumps({"token": {name: value for name, value in token.items() if value}}).encode()


@pytest.mark.parametrize(
    ("issued_at", "expires_at", "life"),
    [
        ("2001-02-03T04:05:06.000000Z", "2001-02-03T05:05:06.000000Z", 3600),  # by its own clock
        ("2001-02-03T04:05:06", "2001-02-03T06:05:07+01:00", 3601),
        (None, None, None),
    ],
)
def test_how_long_a_token_is_good(issued_at, expires_at, life):
    access = access_of(Credentials("https://k/v3"), {"X-Subject-Token": "t"}, of_v3(issued_at, expires_at))
    assert access.life == life


def test_without_the_time_of_issue_our_clock_has_to_do():
    in_an_hour = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    body = of_v3(None, in_an_hour.isoformat())
    life = access_of(Credentials("https://k/v3"), {"X-Subject-Token": "t"}, body).life
    assert life is not None
    assert 3500 < life <= 3600


@pytest.mark.parametrize(
    ("asked", "endpoint", "is_found"),
    [
        ({}, {}, True),
        ({"region": "r"}, {"region": None, "region_id": "r"}, True),
        ({"region": "q"}, {}, False),
        ({}, {"interface": "publicURL"}, True),
        ({"endpoint_type": "admin"}, {}, False),
        ({}, {"url": None}, False),
    ],
)
def test_the_address_of_the_account_is_of_the_region_and_type(asked, endpoint, is_found):
    credentials, headers = Credentials("https://k/v3", **asked), {"X-Subject-Token": "t"}
    body = of_v3(None, None, **endpoint)
    if is_found:
        assert access_of(credentials, headers, body).url == "https://s.example/v1/a"
    else:
        with pytest.raises(LoginFailed):
            access_of(credentials, headers, body)


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"project": "p"}, "swift://k.example:5000/p/blobs"),
        ({"project": "p", "region": "r", "prefix": "/x/"}, "swift://k.example:5000/r/p/blobs/x"),
        ({"username": "account:user", "auth_version": 1}, "swift://k.example:5000/account/blobs"),
    ],
)
def test_a_place_is_whose_container_it_is_and_where(more, place):
    described = {"auth_url": "https://K.example:5000/v3", "username": "u", "container": "blobs", **SECRETS, **more}
    del described["application_credential_secret"]
    assert parameters_of("swift", described).place == place
