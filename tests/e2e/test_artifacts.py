"""What is no image: charts, bills of materials, signatures; and how they are found through what they describe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client
from tests.support.images import Image, descriptor, make_artifact, make_image
from tests.support.server import PASSWORD
from tests.support.tools import run

if TYPE_CHECKING:
    from tests.support.containers import Containers
    from tests.support.server import Server

SBOM = "application/spdx+json"
SIGNATURE = "application/vnd.example.signature.v1"
CHART_CONFIG = "application/vnd.cncf.helm.config.v1+json"
CHART = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

Curl = Callable[..., bytes]


@pytest.fixture
def curl(server: Server, repository: str, tmp_path: Path) -> Curl:
    """A function that asks the server as the administrator, by curl, and gives the body: path, further options."""
    common = ["curl", "--silent", "--show-error", "--fail", "--cacert", str(server.ca)]
    asked = run(
        *common, "--user", f"admin:{PASSWORD}", "--get", "--data-urlencode", "service=dtr",
        "--data-urlencode", f"scope=repository:{repository}:pull,push", f"https://{server.address}/auth/token",
    )  # fmt: skip
    header = f"Authorization: Bearer {json.loads(asked.stdout)['token']}"

    def ask(path: str, *options: str) -> bytes:
        url = f"https://{server.address}/v2/{repository}/{path}"
        body = tmp_path / "body"
        run(*common, "--header", header, "--output", body, *options, url)
        return body.read_bytes()

    return ask


def folder_of(directory: Path, image: Image) -> str:
    """Write an artifact as skopeo's plain folder; how skopeo names it."""
    directory.mkdir()
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    (directory / "manifest.json").write_bytes(image.payload)
    for blob in image.blobs:
        (directory / hashlib.sha256(blob).hexdigest()).write_bytes(blob)
    return f"dir:{directory}"


def test_a_helm_chart_is_pushed_and_pulled_byte_for_byte(
    containers: Containers, server: Server, repository: str, tmp_path: Path
) -> None:
    config, chart = b'{"name":"web","version":"1.0.0"}', b"a chart, packed"
    payload = {
        "schemaVersion": 2,
        "config": descriptor(CHART_CONFIG, config),
        "layers": [descriptor(CHART, chart)],
    }
    media_type = "application/vnd.oci.image.manifest.v1+json"
    image = Image(json.dumps({**payload, "mediaType": media_type}).encode(), media_type, (config, chart))

    source = folder_of(tmp_path / "chart", image)
    containers.copy(source, containers.remote(f"{repository}:1.0.0"), "--preserve-digests")
    containers.copy(containers.remote(f"{repository}:1.0.0"), f"dir:{tmp_path}/back", "--preserve-digests")

    assert (tmp_path / "back" / "manifest.json").read_bytes() == image.payload
    assert (tmp_path / "back" / hashlib.sha256(chart).hexdigest()).read_bytes() == chart
    Client(server).assert_whole(repository, image, "1.0.0")


def test_a_bill_of_materials_is_found_through_the_image_that_it_describes(
    containers: Containers, server: Server, repository: str, curl: Curl, tmp_path: Path
) -> None:
    image = make_image()
    Client(server).push(repository, image, "v1")
    bill = make_artifact(SBOM, b'{"spdxVersion":"SPDX-2.3"}', subject=image, annotations={"made.by": "a test"})
    source = folder_of(tmp_path / "bill", bill)
    containers.copy(source, containers.remote(f"{repository}:bill"), "--preserve-digests")

    index = json.loads(curl(f"referrers/{image.digest}"))

    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert index["manifests"] == [{**bill.descriptor, "artifactType": SBOM, "annotations": {"made.by": "a test"}}]
    found = index["manifests"][0]["digest"]
    manifest = json.loads(curl(f"manifests/{found}"))
    assert curl(f"blobs/{manifest['layers'][0]['digest']}") == b'{"spdxVersion":"SPDX-2.3"}'


def test_referrers_are_filtered_by_the_type_of_the_artifact(
    server: Server, repository: str, curl: Curl, tmp_path: Path
) -> None:
    client, image = Client(server), make_image()
    client.push(repository, image, "v1")
    bill = make_artifact(SBOM, b"bill", subject=image)
    signature = make_artifact(SIGNATURE, b"signature", subject=image)
    for one in (bill, signature):
        client.push(repository, one)

    everything = json.loads(curl(f"referrers/{image.digest}"))
    head = tmp_path / "head"
    signatures = json.loads(curl(f"referrers/{image.digest}?artifactType={SIGNATURE}", "--dump-header", str(head)))

    assert {one["digest"] for one in everything["manifests"]} == {bill.digest, signature.digest}
    assert [one["digest"] for one in signatures["manifests"]] == [signature.digest]
    assert "oci-filters-applied: artifacttype" in head.read_text().lower()


def test_an_artifact_may_come_before_what_it_describes(server: Server, repository: str, curl: Curl) -> None:
    client, image = Client(server), make_image()
    bill = make_artifact(SBOM, b"bill", subject=image)
    client.push(repository, bill)
    assert [one["digest"] for one in json.loads(curl(f"referrers/{image.digest}"))["manifests"]] == [bill.digest]
    client.push(repository, image, "v1")
    assert [one["digest"] for one in json.loads(curl(f"referrers/{image.digest}"))["manifests"]] == [bill.digest]


def test_an_image_without_referrers_has_an_empty_list(server: Server, repository: str, curl: Curl) -> None:
    image = make_image()
    Client(server).push(repository, image, "v1")
    assert json.loads(curl(f"referrers/{image.digest}"))["manifests"] == []


def test_curl_pushes_a_file_as_an_artifact(server: Server, repository: str, curl: Curl, tmp_path: Path) -> None:
    model = make_artifact("application/vnd.example.model.v1", b"weights" * 100_000)
    for blob in model.blobs:
        file = tmp_path / "blob"
        file.write_bytes(blob)
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        curl(
            f"blobs/uploads/?digest={digest}", "--request", "POST",
            "--header", "Content-Type: application/octet-stream", "--data-binary", f"@{file}",
        )  # fmt: skip
    (tmp_path / "manifest").write_bytes(model.payload)
    curl(
        "manifests/v1", "--request", "PUT", "--header", f"Content-Type: {model.media_type}",
        "--data-binary", f"@{tmp_path}/manifest",
    )  # fmt: skip
    Client(server).assert_whole(repository, model, "v1")
