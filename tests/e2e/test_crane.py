"""crane: images are pushed, copied, listed, deleted and made out of others, byte for byte."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client
from tests.support.go_clients import GoClients
from tests.support.images import Image, digest_of, make_image, make_index, make_tar, write_layout

if TYPE_CHECKING:
    from tests.support.server import Server


@pytest.fixture
def client(server: Server) -> Client:
    """The administrator."""
    return Client(server)


def files(directory: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(one.relative_to(directory)): one.read_bytes() for one in directory.rglob("*") if one.is_file()}


@pytest.mark.parametrize(
    "make",
    [lambda: make_image(layers=3), lambda: make_index(make_image(), make_image())],
    ids=["image", "two platforms"],
)
def test_a_layout_is_pushed_and_comes_back_byte_for_byte(
    go_clients: GoClients, client: Client, repository: str, tmp_path: Path, make: Callable[[], Image]
) -> None:
    image, name = make(), go_clients.at(f"{repository}:v1")
    write_layout(tmp_path / "layout", image, "v1")

    pushed = go_clients.crane("push", tmp_path / "layout", name).stdout.strip()
    go_clients.crane("pull", "--format", "oci", name, tmp_path / "back")

    assert pushed == go_clients.at(f"{repository}@{image.digest}")
    assert go_clients.crane("digest", name).stdout.strip() == image.digest
    assert go_clients.crane("manifest", name).stdout.encode() == image.payload
    assert files(tmp_path / "back" / "blobs") == files(tmp_path / "layout" / "blobs")
    client.assert_whole(repository, image, "v1")


def test_an_image_saved_as_a_tarball_is_pushed_again(
    go_clients: GoClients, client: Client, repository: str, tmp_path: Path
) -> None:
    image = make_image(layers=2, docker=True)
    client.push(repository, image, "v1")
    first, second = (go_clients.at(f"{repository}:{tag}") for tag in ("v1", "v2"))

    go_clients.crane("pull", first, tmp_path / "image.tar")
    go_clients.crane("push", tmp_path / "image.tar", second)

    # The configuration has the digests of the layers, as they are in the container.
    assert go_clients.crane("config", second).stdout.encode() == image.blobs[0]
    go_clients.crane("export", second, tmp_path / "container.tar")
    with tarfile.open(tmp_path / "container.tar") as container:
        assert sorted(container.getnames()) == ["file0", "file1"]


def test_a_copy_between_two_repositories_uploads_nothing(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server()
    for name in ("source", "target"):
        server.make_repository(f"admin/{name}")
    image = make_index(make_image(layers=2), make_image())
    Client(server).push("admin/source", image, "v1")
    go_clients = GoClients(server, tmp_path / "go-clients").log_in()
    places = go_clients.at("admin/source:v1"), go_clients.at("admin/target:v1")

    requests = server.requests_of(lambda: go_clients.crane("copy", *places))

    uploads = [one for one in requests if "/blobs/uploads" in one["path"]]
    assert [(one["method"], one["status"]) for one in uploads] == [("POST", 201)] * 5  # all are mounted
    Client(server.restart()).assert_whole("admin/target", image, "v1")


def test_all_tags_of_a_repository_are_copied(go_clients: GoClients, server: Server, repository: str) -> None:
    client, target = Client(server), f"{repository}-copy"
    server.make_repository(target)
    images = {tag: make_image() for tag in ("v1", "v2", "latest")}
    for tag, image in images.items():
        client.push(repository, image, tag)

    go_clients.crane("copy", "--all-tags", go_clients.at(repository), go_clients.at(target))

    for tag, image in images.items():
        client.assert_whole(target, image, tag)


def test_tags_are_listed_added_and_deleted_one_by_one(
    go_clients: GoClients, client: Client, repository: str
) -> None:
    image, other = make_image(), make_image()
    client.push(repository, image, "v1")
    client.push(repository, other, "other")

    go_clients.crane("tag", go_clients.at(f"{repository}:v1"), "v2")
    assert go_clients.crane("ls", go_clients.at(repository)).stdout.split() == ["other", "v1", "v2"]
    client.assert_whole(repository, image, "v2")

    go_clients.crane("delete", go_clients.at(f"{repository}@{image.digest}"))
    assert go_clients.crane("ls", go_clients.at(repository)).stdout.split() == ["other"]
    said = go_clients.crane("manifest", go_clients.at(f"{repository}:v1"), fails=True).text
    assert "MANIFEST_UNKNOWN: manifest unknown" in said


def test_the_catalog_has_every_repository(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server()
    paths = [f"admin/r{number:04}" for number in range(5)]
    for path in paths:
        server.make_repository(path)
    go_clients = GoClients(server, tmp_path / "go-clients").log_in()
    assert go_clients.crane("catalog", server.address).stdout.split() == paths


def test_a_platform_of_an_index_is_chosen_and_kept(go_clients: GoClients, client: Client, repository: str) -> None:
    index = make_index(make_image(), make_image())
    client.push(repository, index, "v1")
    name, arm = (go_clients.at(f"{repository}:{tag}") for tag in ("v1", "arm"))
    digest = go_clients.crane("digest", "--platform", "linux/arm64", name).stdout.strip()
    assert digest == index.children[1].digest

    said = go_clients.crane("delete", go_clients.at(f"{repository}@{digest}"), fails=True).text
    assert f"manifest is part of the index {index.digest}; delete that first" in said

    go_clients.crane("index", "filter", name, "--platform", "linux/arm64", "--tag", arm)
    filtered = json.loads(go_clients.crane("manifest", arm).stdout)
    assert [one["digest"] for one in filtered["manifests"]] == [digest]


def test_an_index_is_made_of_images_that_are_there(go_clients: GoClients, client: Client, repository: str) -> None:
    images = {tag: make_image() for tag in ("one", "two")}
    for tag, image in images.items():
        client.push(repository, image, tag)
    parts = [word for tag in images for word in ("--manifest", go_clients.at(f"{repository}:{tag}"))]

    go_clients.crane("index", "append", *parts, "--tag", go_clients.at(f"{repository}:both"))

    index = client.get_manifest(repository, "both").expect(200).json
    assert [one["digest"] for one in index["manifests"]] == [image.digest for image in images.values()]


def test_a_layer_is_appended_and_the_image_is_labelled(
    go_clients: GoClients, client: Client, repository: str, tmp_path: Path
) -> None:
    image = make_image()
    client.push(repository, image, "base")
    base, app, labelled = (go_clients.at(f"{repository}:{tag}") for tag in ("base", "app", "labelled"))
    (tmp_path / "layer.tar").write_bytes(layer := make_tar("added", b"new"))

    go_clients.crane("append", "--base", base, "--new_layer", tmp_path / "layer.tar", "--new_tag", app)
    go_clients.crane("mutate", app, "--label", "team=web", "--annotation", "made.by=a test", "--tag", labelled)

    assert image.payload == client.get_manifest(repository, "base").body
    manifest = json.loads(go_clients.crane("manifest", labelled).stdout)
    assert manifest["annotations"] == {"made.by": "a test"}
    assert manifest["layers"][0]["digest"] == digest_of(image.blobs[-1])
    config = json.loads(go_clients.crane("config", labelled).stdout)
    assert config["config"]["Labels"] == {"team": "web"}
    assert config["rootfs"]["diff_ids"] == [digest_of(image.blobs[-1]), digest_of(layer)]


def test_a_layer_is_read_by_its_digest(go_clients: GoClients, client: Client, repository: str) -> None:
    image = make_image()
    client.push(repository, image, "v1")
    config = image.blobs[0]
    name = go_clients.at(f"{repository}@{digest_of(config)}")
    assert go_clients.crane("blob", name).stdout.encode() == config
    missing = go_clients.at(f"{repository}@{digest_of(b'nothing')}")
    assert "BLOB_UNKNOWN: blob unknown to registry" in go_clients.crane("blob", missing, fails=True).text
