"""Mounting blobs from other repositories: OCI distribution specification 1.1, "Mounting a blob"."""

from __future__ import annotations

import os

import pytest
from tests.support.backends import new_repository
from tests.support.client import Client, local
from tests.support.images import digest_of
from tests.support.server import Server


@pytest.fixture
def source(registry: Server) -> str:
    """Another repository of the administrator."""
    return new_repository(registry)


def test_a_blob_is_mounted_from_the_named_repository(client: Client, repository: str, source: str) -> None:
    data = os.urandom(100)
    digest = client.push_blob(source, data)
    answer = client.call("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}").expect(201)
    assert local(answer.headers["location"]) == f"/v2/{repository}/blobs/{digest}"
    assert answer.headers["docker-content-digest"] == digest
    assert client.get_blob(repository, digest).expect(200).body == data


def test_without_a_source_one_is_found(client: Client, repository: str, source: str) -> None:
    digest = client.push_blob(source, os.urandom(100))
    client.call("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}").expect(201)
    client.get_blob(repository, digest).expect(200)


def test_mounting_what_is_there_already_succeeds(client: Client, repository: str) -> None:
    digest = client.push_blob(repository, os.urandom(100))
    for query in (f"mount={digest}&from={repository}", f"mount={digest}"):
        client.call("POST", f"/v2/{repository}/blobs/uploads/?{query}").expect(201)


@pytest.mark.parametrize(
    "origin",
    ["", "&from=admin/never-made", "&from=nobody/at-all", "&from=Not%20A%20Name", "&from=a%00b", "&from="],
)
def test_what_cannot_be_mounted_is_uploaded_instead(client: Client, repository: str, origin: str) -> None:
    data = os.urandom(100)
    path = f"/v2/{repository}/blobs/uploads/?mount={digest_of(data)}{origin}"
    answer = client.call("POST", path, scope=f"repository:{repository}:pull,push").expect(202)
    location = local(answer.headers["location"])
    client.call("PUT", f"{location}?digest={digest_of(data)}", data).expect(201)


def test_a_source_without_the_blob_means_an_upload(client: Client, repository: str, source: str) -> None:
    answer = client.call("POST", f"/v2/{repository}/blobs/uploads/?mount={digest_of(b'not there')}&from={source}")
    assert answer.expect(202).headers["docker-upload-uuid"]


def test_a_mount_of_what_is_no_digest_is_refused(client: Client, repository: str, source: str) -> None:
    answer = client.call("POST", f"/v2/{repository}/blobs/uploads/?mount=latest&from={source}").expect(400)
    assert answer.codes == ["DIGEST_INVALID"]


def test_a_mounted_blob_stays_when_its_source_lets_it_go(client: Client, repository: str, source: str) -> None:
    data = os.urandom(100)
    digest = client.push_blob(source, data)
    client.call("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}").expect(201)
    client.call("DELETE", f"/v2/{source}/blobs/{digest}").expect(202)
    assert client.get_blob(repository, digest).expect(200).body == data
