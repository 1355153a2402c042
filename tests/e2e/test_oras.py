"""oras: files as artifacts, what is attached to them, and blobs by themselves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client
from tests.support.go_clients import GoClients
from tests.support.images import digest_of, make_artifact, make_image, make_index, write_layout

if TYPE_CHECKING:
    from tests.support.server import Server

MODEL = "application/vnd.example.model.v1"
SBOM = "application/spdx+json"
SIGNATURE = "application/vnd.example.signature.v1"


@pytest.fixture
def client(server: Server) -> Client:
    """The administrator."""
    return Client(server)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    """A small and a large file in ``tmp_path/files``."""
    made = {"card.txt": b"of a model", "weights.bin": os.urandom(3_000_000)}
    (tmp_path / "files").mkdir()
    for name, content in made.items():
        (tmp_path / "files" / name).write_bytes(content)
    return made


def push(go_clients: GoClients, name: str, directory: Path) -> str:
    """Push the two files as a model; its digest."""
    done = go_clients.oras(
        "push", name, "--artifact-type", MODEL, "--annotation", "made.by=a test", "--format", "json",
        "card.txt:text/plain", "weights.bin:application/octet-stream", directory=directory,
    )  # fmt: skip
    digest: str = json.loads(done.stdout)["digest"]
    return digest


def attach(go_clients: GoClients, name: str, kind: str, directory: Path) -> str:
    """Attach a file to what is there; the digest of what refers to it."""
    done = go_clients.oras(
        "attach", name, "--artifact-type", kind, "--annotation", f"kind={kind}", "--format", "json",
        "card.txt", directory=directory,
    )  # fmt: skip
    digest: str = json.loads(done.stdout)["digest"]
    return digest


def discover(go_clients: GoClients, name: str, *options: str) -> dict[str, str]:
    """What refers to an artifact: types by digest."""
    found = json.loads(go_clients.oras("discover", name, "--format", "json", *options).stdout)
    return {one["digest"]: one["artifactType"] for one in found["referrers"]}


def test_files_are_pushed_as_an_artifact_and_come_back(
    go_clients: GoClients, client: Client, repository: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    name = go_clients.at(f"{repository}:v1")
    digest = push(go_clients, name, tmp_path / "files")

    assert go_clients.oras("resolve", name).stdout.strip() == digest
    go_clients.oras("pull", name, "--output", tmp_path / "back")

    assert {one.name: one.read_bytes() for one in (tmp_path / "back").iterdir()} == files
    manifest = client.get_manifest(repository, "v1").expect(200).json
    assert manifest["artifactType"] == MODEL
    assert manifest["annotations"]["made.by"] == "a test"
    assert [(one["mediaType"], one["digest"]) for one in manifest["layers"]] == [
        ("text/plain", digest_of(files["card.txt"])),
        ("application/octet-stream", digest_of(files["weights.bin"])),
    ]


def test_what_is_attached_is_found_by_its_type_until_it_is_deleted(
    go_clients: GoClients, repository: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    name = go_clients.at(f"{repository}:v1")
    push(go_clients, name, tmp_path / "files")
    assert discover(go_clients, name) == {}

    bill = attach(go_clients, name, SBOM, tmp_path / "files")
    signature = attach(go_clients, name, SIGNATURE, tmp_path / "files")

    assert discover(go_clients, name) == {bill: SBOM, signature: SIGNATURE}
    assert discover(go_clients, name, "--artifact-type", SIGNATURE) == {signature: SIGNATURE}
    go_clients.oras("manifest", "delete", "--force", go_clients.at(f"{repository}@{bill}"))
    assert discover(go_clients, name) == {signature: SIGNATURE}


def test_what_is_attached_to_what_is_attached_is_found_too(
    go_clients: GoClients, repository: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    name = go_clients.at(f"{repository}:v1")
    push(go_clients, name, tmp_path / "files")
    bill = attach(go_clients, name, SBOM, tmp_path / "files")
    signature = attach(go_clients, go_clients.at(f"{repository}@{bill}"), SIGNATURE, tmp_path / "files")

    found = json.loads(go_clients.oras("discover", name, "--format", "json").stdout)["referrers"]

    assert [one["digest"] for one in found] == [bill]
    assert [one["digest"] for one in found[0]["referrers"]] == [signature]


def test_an_artifact_is_copied_with_what_is_attached_and_nothing_is_uploaded_again(
    make_server: Callable[..., Server], files: dict[str, bytes], tmp_path: Path
) -> None:
    server = make_server()
    for repository in ("source", "target"):
        server.make_repository(f"admin/{repository}")
    go_clients = GoClients(server, tmp_path / "go-clients").log_in()
    source, target = (go_clients.at(f"admin/{repository}:v1") for repository in ("source", "target"))
    push(go_clients, source, tmp_path / "files")
    attached = {attach(go_clients, source, kind, tmp_path / "files"): kind for kind in (SBOM, SIGNATURE)}

    requests = server.requests_of(lambda: go_clients.oras("cp", "--recursive", source, target))

    uploads = {(one["method"], one["status"]) for one in requests if "/blobs/uploads" in one["path"]}
    assert uploads == {("POST", 201)}  # all are mounted
    server.restart()
    assert discover(go_clients, target) == attached
    go_clients.oras("pull", target, "--output", tmp_path / "back")
    assert {one.name: one.read_bytes() for one in (tmp_path / "back").iterdir()} == files


def test_an_index_is_copied_from_a_layout_and_back(
    go_clients: GoClients, client: Client, repository: str, tmp_path: Path
) -> None:
    index, name = make_index(make_image(), make_image()), go_clients.at(f"{repository}:v1")
    write_layout(tmp_path / "layout", index, "v1")

    # Of the side that is a folder it does not take what the other one needs.
    go_clients.oras("cp", "--from-oci-layout", f"{tmp_path}/layout:v1", name)
    go_clients.oras("cp", name, "--to-oci-layout", f"{tmp_path}/back:v1")

    client.assert_whole(repository, index, "v1")
    old, new = (
        {one.name: one.read_bytes() for one in (tmp_path / layout / "blobs" / "sha256").iterdir()}
        for layout in ("layout", "back")
    )
    assert old == new


def test_one_platform_of_an_index_is_copied(go_clients: GoClients, client: Client, repository: str) -> None:
    index = make_index(make_image(), make_image())
    client.push(repository, index, "v1")
    source, target = (go_clients.at(f"{repository}:{tag}") for tag in ("v1", "arm"))
    go_clients.oras("cp", "--platform", "linux/arm64", source, target)
    client.assert_whole(repository, index.children[1], "arm")


def test_an_index_is_made_and_changed(go_clients: GoClients, client: Client, repository: str) -> None:
    images = [make_image() for _ in range(3)]
    for number, image in enumerate(images):
        client.push(repository, image, f"v{number}")
    name = go_clients.at(f"{repository}:all")
    go_clients.oras("manifest", "index", "create", name, "v0", images[1].digest)
    go_clients.oras("manifest", "index", "update", name, "--add", "v2", "--remove", images[0].digest)
    index = client.get_manifest(repository, "all").expect(200).json
    assert {one["digest"] for one in index["manifests"]} == {images[1].digest, images[2].digest}


def test_tags_are_added_and_listed_and_all_of_an_artifact_go_with_it(
    go_clients: GoClients, client: Client, repository: str
) -> None:
    model, other = make_artifact(MODEL, b"one"), make_artifact(MODEL, b"other")
    client.push(repository, model, "v1")
    client.push(repository, other, "v0")

    go_clients.oras("tag", go_clients.at(f"{repository}:v1"), "v2", "latest")
    listed = go_clients.oras("repo", "tags", go_clients.at(repository)).stdout.split()
    assert listed == ["latest", "v0", "v1", "v2"]

    go_clients.oras("manifest", "delete", "--force", go_clients.at(f"{repository}:v2"))
    assert go_clients.oras("repo", "tags", go_clients.at(repository)).stdout.split() == ["v0"]


def test_lists_of_several_pages_are_read_to_their_end(make_server: Callable[..., Server], tmp_path: Path) -> None:
    server = make_server({"registry.page_size": 2})
    paths = [f"admin/r{number}" for number in range(5)]
    for path in paths:
        server.make_repository(path)
    client, image = Client(server), make_image()
    tags = [f"v{number}" for number in range(5)]
    for tag in tags:
        client.push(paths[0], image, tag)
    attached = {client.push(paths[0], make_artifact(SBOM, tag.encode(), subject=image)): SBOM for tag in tags}
    go_clients = GoClients(server, tmp_path / "go-clients").log_in()

    assert go_clients.oras("repo", "ls", server.address).stdout.split() == paths
    assert go_clients.oras("repo", "tags", go_clients.at(paths[0])).stdout.split() == tags
    assert discover(go_clients, go_clients.at(f"{paths[0]}:v0")) == attached


def test_repositories_are_listed_all_and_of_a_namespace(go_clients: GoClients, repository: str) -> None:
    namespace, _, name = repository.partition("/")
    address = go_clients.server.address
    assert repository in go_clients.oras("repo", "ls", address).stdout.split()
    assert name in go_clients.oras("repo", "ls", f"{address}/{namespace}/").stdout.split()


def test_a_manifest_is_pushed_and_fetched_as_it_is(
    go_clients: GoClients, client: Client, repository: str, tmp_path: Path
) -> None:
    image = make_image(annotations={"org.example": "ünïcode"})
    for blob in image.blobs:
        client.push_blob(repository, blob)
    (tmp_path / "manifest.json").write_bytes(image.payload)
    name = go_clients.at(f"{repository}:v1")
    go_clients.oras("manifest", "push", name, tmp_path / "manifest.json")
    go_clients.oras("manifest", "fetch", name, "--output", tmp_path / "back.json")
    assert (tmp_path / "back.json").read_bytes() == image.payload


def test_a_blob_is_pushed_looked_at_fetched_and_deleted(
    go_clients: GoClients, repository: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    content = files["weights.bin"]
    name = go_clients.at(f"{repository}@{digest_of(content)}")
    go_clients.oras("blob", "push", go_clients.at(repository), "weights.bin", directory=tmp_path / "files")

    described = json.loads(go_clients.oras("blob", "fetch", "--descriptor", name).stdout)
    assert (described["digest"], described["size"]) == (digest_of(content), len(content))
    go_clients.oras("blob", "fetch", "--output", tmp_path / "back", name)
    assert (tmp_path / "back").read_bytes() == content

    go_clients.oras("blob", "delete", "--force", name)
    assert "not found" in go_clients.oras("blob", "fetch", "--descriptor", name, fails=True).text


def test_a_blob_that_a_manifest_names_is_not_deleted_and_oras_says_of_which(
    go_clients: GoClients, client: Client, repository: str
) -> None:
    model = make_artifact(MODEL, b"weights")
    client.push(repository, model, "v1")
    name = go_clients.at(f"{repository}@{digest_of(b'weights')}")
    said = go_clients.oras("blob", "delete", "--force", name, fails=True).text
    assert f"blob is part of the manifest {model.digest}; delete that first" in said
    client.assert_whole(repository, model, "v1")


def test_a_backup_of_a_repository_is_restored_elsewhere(
    go_clients: GoClients, server: Server, repository: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    source = go_clients.at(f"{repository}:v1")
    digest = push(go_clients, source, tmp_path / "files")
    attached = {attach(go_clients, source, SBOM, tmp_path / "files"): SBOM}
    server.make_repository(f"{repository}-new")
    target = go_clients.at(f"{repository}-new:v1")

    archive = f"{tmp_path}/backup.tar"
    go_clients.oras("backup", "--output", archive, "--include-referrers", source)
    go_clients.oras("restore", "--input", archive, target)

    assert go_clients.oras("resolve", target).stdout.strip() == digest
    assert discover(go_clients, target) == attached
