"""skopeo: copies between folders and repositories, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client
from tests.support.containers import Containers
from tests.support.images import make_image, make_index, write_layout

if TYPE_CHECKING:
    from tests.support.server import Server


@pytest.fixture
def client(server: Server) -> Client:
    """The administrator."""
    return Client(server)


def contents(directory: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(one.relative_to(directory)): one.read_bytes() for one in directory.rglob("*") if one.is_file()}


@pytest.mark.parametrize("docker", [False, True], ids=["oci image", "docker image"])
def test_a_folder_comes_back_byte_for_byte(
    containers: Containers, client: Client, repository: str, tmp_path: Path, docker: bool
) -> None:
    client.push(repository, make_image(layers=3, docker=docker), "v1")
    containers.copy(containers.remote(f"{repository}:v1"), f"dir:{tmp_path}/first")
    containers.copy(f"dir:{tmp_path}/first", containers.remote(f"{repository}:v2"))
    containers.copy(containers.remote(f"{repository}:v2"), f"dir:{tmp_path}/second")
    first = contents(tmp_path / "first")
    assert len(first) == 6  # version, manifest, configuration, layers
    assert contents(tmp_path / "second") == first


def test_an_image_from_an_oci_layout_is_stored_byte_for_byte(
    containers: Containers, client: Client, repository: str, tmp_path: Path
) -> None:
    image = make_image(layers=2)
    write_layout(tmp_path / "layout", image, "v1")
    source = f"oci:{tmp_path}/layout:v1"
    containers.copy(source, containers.remote(f"{repository}:v1"), "--preserve-digests")
    client.assert_whole(repository, image, "v1")


def test_an_image_reaches_an_oci_layout_byte_for_byte(
    containers: Containers, client: Client, repository: str, tmp_path: Path
) -> None:
    image = make_image(layers=2)
    client.push(repository, image, "v1")
    containers.copy(containers.remote(f"{repository}:v1"), f"oci:{tmp_path}/layout:v1", "--preserve-digests")
    stored = contents(tmp_path / "layout" / "blobs" / "sha256")
    assert set(stored.values()) == {image.payload, *image.blobs}


def test_an_index_is_copied_with_all_its_images(
    containers: Containers, client: Client, repository: str, tmp_path: Path
) -> None:
    index = make_index(make_image(), make_image())
    write_layout(tmp_path / "layout", index, "v1")
    source = f"oci:{tmp_path}/layout:v1"
    containers.copy(source, containers.remote(f"{repository}:v1"), "--all", "--preserve-digests")
    client.assert_whole(repository, index, "v1")


def test_a_copy_between_two_repositories_uploads_no_layer(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server()
    for name in ("source", "target"):
        server.make_repository(f"admin/{name}")
    containers = Containers(server, tmp_path / "containers")
    image = make_image(layers=2)
    # By skopeo itself: it remembers where it has seen a layer.
    write_layout(tmp_path / "layout", image, "v1")
    containers.copy(f"oci:{tmp_path}/layout:v1", containers.remote("admin/source:v1"), "--preserve-digests")
    places = containers.remote("admin/source:v1"), containers.remote("admin/target:v1")

    requests = server.requests_of(lambda: containers.copy(*places, "--preserve-digests"))

    uploads = [one["status"] for one in requests if one["method"] == "POST" and "/blobs/uploads" in one["path"]]
    assert sorted(uploads) == [201, 201, 202]  # both layers are mounted; the configuration skopeo always sends
    Client(server.restart()).assert_whole("admin/target", image, "v1")


def test_tags_are_listed(containers: Containers, client: Client, repository: str) -> None:
    for tag in ("v2", "v1", "latest"):
        client.push(repository, make_image(), tag)
    listed = json.loads(containers.list_tags(repository).stdout)
    assert listed == {"Repository": containers.at(repository), "Tags": ["latest", "v1", "v2"]}


def test_an_image_is_inspected(containers: Containers, client: Client, repository: str) -> None:
    image = make_image(layers=2)
    client.push(repository, image, "v1")
    seen = json.loads(containers.inspect(f"{repository}:v1").stdout)
    assert seen["Digest"] == image.digest
    assert seen["Architecture"] == "amd64"
    assert len(seen["Layers"]) == 2
    raw = containers.inspect(f"{repository}:v1", "--raw").stdout
    assert raw.encode() == image.payload


def test_an_image_is_deleted_with_its_tags(containers: Containers, client: Client, repository: str) -> None:
    image, other = make_image(), make_image()
    client.push(repository, image, "v1")
    client.push(repository, image, "latest")
    client.push(repository, other, "v2")

    containers.skopeo("delete", f"--cert-dir={containers.certificates}", containers.remote(f"{repository}:v1"))

    assert json.loads(containers.list_tags(repository).stdout)["Tags"] == ["v2"]
    client.get_manifest(repository, image.digest).expect(404)
    assert "manifest unknown" in containers.inspect(f"{repository}:v1", fails=True).text
    client.assert_whole(repository, other, "v2")


def test_a_repository_is_mirrored_into_a_folder(
    containers: Containers, client: Client, repository: str, tmp_path: Path
) -> None:
    images = {tag: make_image() for tag in ("v1", "v2")}
    for tag, image in images.items():
        client.push(repository, image, tag)
    target = tmp_path / "mirror"
    target.mkdir()
    containers.skopeo(
        "sync", f"--src-cert-dir={containers.certificates}", "--src", "docker", "--dest", "dir",
        containers.at(repository), str(target),
    )  # fmt: skip
    name = repository.rpartition("/")[2]
    for tag, image in images.items():
        assert (target / f"{name}:{tag}" / "manifest.json").read_bytes() == image.payload
