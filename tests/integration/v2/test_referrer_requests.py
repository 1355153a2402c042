"""Referrers over HTTP: OCI distribution specification 1.1, "Listing referrers", "Pushing … with subject"."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.client import Client
from tests.support.images import OCI_INDEX, OCI_MANIFEST, Image, digest_of, make_artifact, make_image, make_index

NEEDS_NO_BLOBS = True

SBOM, SIGNATURE = "application/spdx+json", "application/vnd.dev.cosign.artifact.sig.v1+json"


@pytest.fixture
def subject(client: Client, repository: str) -> Image:
    image = make_image()
    client.push(repository, image, "v1")
    return image


def referrers(client: Client, repository: str, digest: str, query: str = "") -> list[dict[str, Any]]:
    answer = client.call("GET", f"/v2/{repository}/referrers/{digest}{query}").expect(200)
    assert answer.headers["content-type"] == OCI_INDEX
    assert answer.json["schemaVersion"] == 2
    assert answer.json["mediaType"] == OCI_INDEX
    found: list[dict[str, Any]] = answer.json["manifests"]
    return found


def test_a_push_with_a_subject_says_that_the_registry_lists_it(
    client: Client, repository: str, subject: Image
) -> None:
    artifact = make_artifact(SBOM, b"a", subject=subject)
    for blob in artifact.blobs:
        client.push_blob(repository, blob)
    answer = client.put_manifest(repository, artifact).expect(201)
    assert answer.headers["oci-subject"] == subject.digest


def test_a_push_without_subject_does_not_say_so(client: Client, repository: str, subject: Image) -> None:
    assert "oci-subject" not in client.put_manifest(repository, subject, "again").expect(201).headers


def test_referrers_are_listed_with_what_a_client_chooses_by(
    client: Client, repository: str, subject: Image
) -> None:
    artifact = make_artifact(SBOM, b"a", subject=subject, annotations={"org.example.key": "value"})
    client.push(repository, artifact)
    assert referrers(client, repository, subject.digest) == [
        {
            "mediaType": OCI_MANIFEST,
            "digest": artifact.digest,
            "size": len(artifact.payload),
            "artifactType": SBOM,
            "annotations": {"org.example.key": "value"},
        }
    ]


def test_an_image_as_referrer_is_listed_by_the_type_of_its_config(
    client: Client, repository: str, subject: Image
) -> None:
    image = make_image(subject=subject)
    client.push(repository, image)
    assert referrers(client, repository, subject.digest)[0]["artifactType"].startswith(
        "application/vnd.oci.image.config"
    )


def test_an_index_may_be_a_referrer(client: Client, repository: str, subject: Image) -> None:
    index = make_index(make_image(), subject=subject.descriptor, artifactType="application/x-bundle")
    client.push(repository, index)
    found = referrers(client, repository, subject.digest)
    assert [(one["mediaType"], one["artifactType"]) for one in found] == [(OCI_INDEX, "application/x-bundle")]


def test_nothing_refers_to_most_things(client: Client, repository: str, subject: Image) -> None:
    assert referrers(client, repository, subject.digest) == []
    assert referrers(client, repository, digest_of(b"never pushed")) == []


def test_a_referrer_may_come_before_its_subject(client: Client, repository: str) -> None:
    image = make_image()
    artifact = make_artifact(SBOM, b"first", subject=image)
    client.push(repository, artifact)
    assert [one["digest"] for one in referrers(client, repository, image.digest)] == [artifact.digest]
    client.push(repository, image)
    assert [one["digest"] for one in referrers(client, repository, image.digest)] == [artifact.digest]


def test_a_filter_gives_only_its_type_and_says_that_it_was_applied(
    client: Client, repository: str, subject: Image
) -> None:
    made = [make_artifact(kind, kind.encode(), subject=subject) for kind in (SBOM, SIGNATURE)]
    for artifact in made:
        client.push(repository, artifact)
    path = f"/v2/{repository}/referrers/{subject.digest}"
    answer = client.call("GET", f"{path}?artifactType={quote(SIGNATURE, safe='')}").expect(200)
    assert [one["digest"] for one in answer.json["manifests"]] == [made[1].digest]
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert "oci-filters-applied" not in client.call("GET", path).expect(200).headers
    assert referrers(client, repository, subject.digest, "?artifactType=none%2Fsuch") == []


@pytest.mark.parametrize("kind", ["a%00b", 300 * "a", "a%0D%0AInjected:%20yes"])
def test_a_filter_that_is_no_type_is_refused(client: Client, repository: str, subject: Image, kind: str) -> None:
    answer = client.call("GET", f"/v2/{repository}/referrers/{subject.digest}?artifactType={kind}").expect(400)
    assert answer.codes == ["UNSUPPORTED"]
    assert "injected" not in answer.headers


def test_following_the_links_gives_every_referrer_once(client: Client, repository: str, subject: Image) -> None:
    made = [make_artifact(SBOM, b"%d" % number, subject=subject) for number in range(7)]
    for artifact in [*made, make_artifact(SIGNATURE, b"s", subject=subject)]:
        client.push(repository, artifact)
    seen: list[str] = []
    path = f"/v2/{repository}/referrers/{subject.digest}?n=3&artifactType={quote(SBOM, safe='')}"
    while path:
        answer = client.call("GET", path).expect(200)
        assert answer.headers["oci-filters-applied"] == "artifactType"
        seen += [one["digest"] for one in answer.json["manifests"]]
        match = re.fullmatch(r'<([^<>]*)>; rel="next"', answer.headers.get("link", ""))
        path = match[1] if match else ""
    assert sorted(seen) == sorted(one.digest for one in made)


def test_no_referrers_are_given_when_none_are_wanted(client: Client, repository: str, subject: Image) -> None:
    client.push(repository, make_artifact(SBOM, b"a", subject=subject))
    answer = client.call("GET", f"/v2/{repository}/referrers/{subject.digest}?n=0").expect(200)
    assert answer.json["manifests"] == []
    assert "link" not in answer.headers


def test_a_deleted_referrer_is_no_longer_listed(client: Client, repository: str, subject: Image) -> None:
    artifact = make_artifact(SBOM, b"a", subject=subject)
    client.push(repository, artifact)
    client.call("DELETE", f"/v2/{repository}/manifests/{artifact.digest}").expect(202)
    assert referrers(client, repository, subject.digest) == []


def test_referrers_are_asked_for_by_digest(client: Client, repository: str) -> None:
    for reference in ("v1", "sha256:abc", "md5:" + 32 * "0"):
        answer = client.call("GET", f"/v2/{repository}/referrers/{reference}").expect(400)
        assert answer.codes == ["DIGEST_INVALID"]


def test_referrers_of_a_subject_by_sha512_are_listed(client: Client, repository: str) -> None:
    image = make_image()
    digest = digest_of(image.payload, "sha512")
    descriptor = {"mediaType": image.media_type, "digest": digest, "size": len(image.payload)}
    artifact = make_artifact(SBOM, b"a")
    payload = artifact.payload[:-1] + b', "subject": ' + json.dumps(descriptor).encode() + b"}"
    referring = Image(payload, OCI_MANIFEST, artifact.blobs)
    client.push(repository, referring)
    assert [one["digest"] for one in referrers(client, repository, digest)] == [referring.digest]
