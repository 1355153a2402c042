"""How tokens for Google Cloud Storage are asked for."""

from __future__ import annotations

import json

import pytest

from dtr.storage.access_tokens import Granted
from dtr.storage.errors import AccessDenied, StorageUnavailable
from dtr.storage.gcs_auth import TokenService


class Service:
    """A metadata server whose answers the test says; `web` is the way to it."""

    def __init__(self):
        self.status, self.answer = 200, None

    async def send(self, method, url, headers, data=b""):
        assert (method, url, data) == (
            "GET",
            "http://machine/computeMetadata/v1/instance/service-accounts/default/token",
            b"",
        )
        assert await headers() == {"Metadata-Flavor": "Google"}
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def read(self, _):
        answer = {"access_token": "token", "expires_in": 3600, "token_type": "Bearer"}
        return json.dumps(answer).encode() if self.answer is None else self.answer


@pytest.fixture
def service():
    return Service()


@pytest.mark.parametrize(
    ("status", "answer", "error", "reason"),
    [
        (400, b'{"error": "invalid_grant", "error_description": "Invalid JWT"}', AccessDenied, "Invalid JWT"),
        (403, b'{"error": "forbidden"}', AccessDenied, "forbidden"),
        (401, b"\xff", AccessDenied, "it answers 401"),
        (404, b"<html>", StorageUnavailable, "it answers 404"),
        (200, b"<html>", StorageUnavailable, "holds no token"),
        (200, b'{"access_token": 5}', StorageUnavailable, "holds no token"),
        (200, b"\xff", StorageUnavailable, "holds no token"),
    ],
)
async def test_an_answer_without_a_token_is_an_error(service, status, answer, error, reason):
    service.status, service.answer = status, answer
    with pytest.raises(error, match=reason):
        await TokenService(None, service, "http://machine").ask()


async def test_a_machine_gets_its_token_of_the_metadata_server(service):
    assert await TokenService(None, service, "http://machine").ask() == Granted("token", 3600)
