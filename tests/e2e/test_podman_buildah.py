"""podman and buildah: push and pull."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client
from tests.support.server import PASSWORD

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.containers import Containers
    from tests.support.server import Server


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A folder to build an image from."""
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "data").write_bytes(os.urandom(200_000))
    (folder / "Containerfile").write_text("FROM scratch\nCOPY data /data\nLABEL made=here\n")
    return folder


def test_podman_logs_in_and_out(containers: Containers, server: Server) -> None:
    certificates = f"--cert-dir={containers.certificates}"
    words = ("login", certificates, "--username", "admin", "--password-stdin", server.address)
    containers.podman("logout", server.address)
    assert "Login Succeeded" in containers.podman(*words, stdin=PASSWORD).text
    assert "invalid username/password" in containers.podman(*words, stdin="wrong", fails=True).text


def test_an_image_that_podman_built_is_pushed_and_pulled(
    containers: Containers, server: Server, repository: str, context: Path
) -> None:
    image, certificates = containers.at(f"{repository}:v1"), f"--cert-dir={containers.certificates}"
    built = containers.podman("build", "--quiet", "--tag", image, context).stdout.strip()
    containers.podman("push", certificates, image)
    containers.podman("rmi", image)

    pulled = containers.podman("pull", "--quiet", certificates, image).stdout.strip()

    assert pulled == built
    manifest = Client(server).get_manifest(repository, "v1").expect(200)
    assert manifest.json["config"]["digest"] == f"sha256:{built}"


def test_a_list_that_podman_made_is_pushed_with_all_its_images(
    containers: Containers, server: Server, repository: str, context: Path
) -> None:
    certificates = f"--cert-dir={containers.certificates}"
    containers.podman("manifest", "create", "list")
    for architecture in ("amd64", "arm64"):
        containers.podman(
            "build", "--quiet", "--no-cache", "--platform", f"linux/{architecture}", "--manifest", "list", context
        )  # fmt: skip
    containers.podman(
        "manifest", "push", "--all", certificates, "list", containers.remote(f"{repository}:v1")
    )  # fmt: skip

    client = Client(server)
    index = client.get_manifest(repository, "v1").expect(200).json
    assert {one["platform"]["architecture"] for one in index["manifests"]} == {"amd64", "arm64"}
    for one in index["manifests"]:
        client.get_manifest(repository, one["digest"]).expect(200)
    assert containers.podman("pull", "--quiet", certificates, containers.at(f"{repository}:v1")).stdout.strip()


@pytest.mark.parametrize("format_", ["oci", "docker"])
def test_an_image_that_buildah_built_is_pushed_and_pulled(
    containers: Containers, server: Server, repository: str, context: Path, format_: str
) -> None:
    image, certificates = containers.at(f"{repository}:{format_}"), f"--cert-dir={containers.certificates}"
    built = containers.buildah("build", "--quiet", "--format", format_, "--tag", image, context).stdout.strip()
    containers.buildah("push", certificates, image)
    containers.buildah("rmi", image)

    pulled = containers.buildah("pull", "--quiet", certificates, image).stdout.strip()

    assert pulled == built
    manifest = Client(server).get_manifest(repository, format_).expect(200)
    assert manifest.json["config"]["digest"] == f"sha256:{built}"
    assert format_ in manifest.headers["content-type"]


def test_a_push_with_another_compression_is_pulled_as_the_same_image(
    containers: Containers, repository: str, context: Path
) -> None:
    image, certificates = containers.at(f"{repository}:zstd"), f"--cert-dir={containers.certificates}"
    built = containers.buildah("build", "--quiet", "--tag", image, context).stdout.strip()
    containers.podman("push", "--compression-format", "zstd", certificates, image)
    containers.podman("rmi", image)
    assert containers.podman("pull", "--quiet", certificates, image).stdout.strip() == built
