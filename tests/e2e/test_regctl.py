"""regctl: images, artifacts and blobs, which it sends whole or in pieces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client
from tests.support.go_clients import GoClients
from tests.support.images import Image, digest_of, make_artifact, make_image, make_index, write_layout
from tests.support.proxy import proxy

if TYPE_CHECKING:
    from tests.support.server import Server

MODEL = "application/vnd.example.model.v1"
SBOM = "application/spdx+json"


@pytest.fixture
def client(server: Server) -> Client:
    """The administrator."""
    return Client(server)


def referrers(go_clients: GoClients, name: str, *options: str) -> list[str]:
    """The digests of what refers to an image."""
    found = json.loads(go_clients.regctl("artifact", "list", name, "--format", "{{json .}}", *options).stdout)
    return [one["digest"] for one in found["descriptors"] or ()]


@pytest.mark.parametrize(
    "make",
    [lambda: make_image(layers=3), lambda: make_index(make_image(), make_image())],
    ids=["image", "two platforms"],
)
def test_a_layout_is_copied_here_and_back_byte_for_byte(
    go_clients: GoClients, client: Client, repository: str, tmp_path: Path, make: Callable[[], Image]
) -> None:
    image, name = make(), go_clients.at(f"{repository}:v1")
    write_layout(tmp_path / "layout", image, "v1")

    go_clients.regctl("image", "copy", f"ocidir://{tmp_path}/layout:v1", name)
    go_clients.regctl("image", "copy", name, f"ocidir://{tmp_path}/back:v1")

    assert go_clients.regctl("image", "digest", name).stdout.strip() == image.digest
    assert go_clients.regctl("manifest", "get", name, "--format", "raw-body").stdout.encode() == image.payload
    client.assert_whole(repository, image, "v1")
    old, new = (
        {one.name: one.read_bytes() for one in (tmp_path / layout / "blobs" / "sha256").iterdir()}
        for layout in ("layout", "back")
    )
    assert old == new


def test_an_exported_image_is_imported_again(
    go_clients: GoClients, client: Client, repository: str, tmp_path: Path
) -> None:
    index = make_index(make_image(), make_image())
    client.push(repository, index, "v1")
    go_clients.regctl("image", "export", go_clients.at(f"{repository}:v1"), tmp_path / "image.tar")
    go_clients.regctl("image", "import", go_clients.at(f"{repository}:v2"), tmp_path / "image.tar")
    client.assert_whole(repository, index, "v2")


def test_an_image_is_copied_with_what_is_attached_and_nothing_is_uploaded_again(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server()
    for repository in ("source", "target"):
        server.make_repository(f"admin/{repository}")
    client, image = Client(server), make_image(layers=2)
    bill = make_artifact(SBOM, b"bill", subject=image)
    client.push("admin/source", image, "v1")
    client.push("admin/source", bill)
    go_clients = GoClients(server, tmp_path / "go-clients").log_in()
    places = go_clients.at("admin/source:v1"), go_clients.at("admin/target:v1")

    requests = server.requests_of(lambda: go_clients.regctl("image", "copy", "--referrers", *places))

    uploads = [one for one in requests if "/blobs/uploads" in one["path"] and one["status"] != 401]
    assert {(one["method"], one["status"]) for one in uploads} == {("POST", 201)}  # all are mounted
    client = Client(server.restart())
    client.assert_whole("admin/target", image, "v1")
    client.assert_whole("admin/target", bill)
    assert referrers(go_clients, places[1]) == [bill.digest]


def test_tags_are_listed_and_one_is_deleted_alone(go_clients: GoClients, client: Client, repository: str) -> None:
    image = make_image()
    for tag in ("v1", "v2", "latest"):
        client.push(repository, image, tag)
    name = go_clients.at(repository)
    assert go_clients.regctl("tag", "ls", name).stdout.split() == ["latest", "v1", "v2"]
    assert go_clients.regctl("tag", "ls", name, "--limit", "2").stdout.split() == ["latest", "v1"]

    go_clients.regctl("tag", "delete", go_clients.at(f"{repository}:v1"))

    assert go_clients.regctl("tag", "ls", name).stdout.split() == ["latest", "v2"]
    client.assert_whole(repository, image, "v2")


def test_a_manifest_is_deleted_by_its_digest_and_by_what_a_tag_names(
    go_clients: GoClients, client: Client, repository: str
) -> None:
    first, second, kept = make_image(), make_image(), make_image()
    for tag, image in (("v1", first), ("v2", second), ("v3", kept)):
        client.push(repository, image, tag)

    go_clients.regctl("manifest", "delete", go_clients.at(f"{repository}@{first.digest}"))
    go_clients.regctl("manifest", "delete", "--force-tag-dereference", go_clients.at(f"{repository}:v2"))

    assert go_clients.regctl("tag", "ls", go_clients.at(repository)).stdout.split() == ["v3"]
    said = go_clients.regctl("manifest", "get", go_clients.at(f"{repository}:v1"), fails=True).text
    assert "manifest unknown" in said


def test_repositories_are_listed(go_clients: GoClients, repository: str) -> None:
    assert repository in go_clients.regctl("repo", "ls", go_clients.server.address).stdout.split()


def test_an_artifact_is_put_with_annotations_and_read(
    go_clients: GoClients, client: Client, repository: str
) -> None:
    name = go_clients.at(f"{repository}:v1")
    words = ("artifact", "put", name, "--artifact-type", MODEL, "--annotation", "made.by=a test")
    go_clients.regctl(*words, stdin="the weights")
    manifest = client.get_manifest(repository, "v1").expect(200).json
    assert (manifest["artifactType"], manifest["annotations"]) == (MODEL, {"made.by": "a test"})
    assert go_clients.regctl("artifact", "get", name).stdout == "the weights"


def test_artifacts_of_an_image_are_listed_and_chosen_by_type_and_annotation(
    go_clients: GoClients, client: Client, repository: str
) -> None:
    image, name = make_image(), go_clients.at(f"{repository}:v1")
    client.push(repository, image, "v1")
    for kind, note in ((SBOM, "a"), (SBOM, "b"), (MODEL, "a")):
        go_clients.regctl(
            "artifact", "put", "--subject", name, "--artifact-type", kind, "--annotation", f"note={note}",
            stdin=f"{kind} {note}",
        )  # fmt: skip
    assert len(referrers(go_clients, name)) == 3
    (chosen,) = referrers(
        go_clients, name, "--filter-artifact-type", SBOM, "--filter-annotation", "note=b"
    )  # fmt: skip
    assert go_clients.regctl("artifact", "get", go_clients.at(f"{repository}@{chosen}")).stdout == f"{SBOM} b"
    assert chosen in go_clients.regctl("artifact", "tree", name).stdout


def test_an_image_without_layers_is_made(go_clients: GoClients, client: Client, repository: str) -> None:
    """As a list of null, which is how Go writes one that was never filled."""
    go_clients.regctl("image", "create", go_clients.at(f"{repository}:scratch"))
    assert client.get_manifest(repository, "scratch").expect(200).json["layers"] is None
    assert go_clients.regctl("tag", "ls", go_clients.at(repository)).stdout.split() == ["scratch"]


def test_an_index_is_made_and_an_image_is_added(go_clients: GoClients, client: Client, repository: str) -> None:
    images = {tag: make_image() for tag in ("amd", "arm")}
    for tag, image in images.items():
        client.push(repository, image, tag)
    amd, arm, both = (go_clients.at(f"{repository}:{tag}") for tag in ("amd", "arm", "both"))
    go_clients.regctl("index", "create", both, "--ref", amd, "--desc-platform", "linux/amd64")
    go_clients.regctl("index", "add", both, "--ref", arm, "--desc-platform", "linux/arm64")
    listed = client.get_manifest(repository, "both").expect(200).json["manifests"]
    assert [(one["digest"], one["platform"]["architecture"]) for one in listed] == [
        (images["amd"].digest, "amd64"),
        (images["arm"].digest, "arm64"),
    ]
    assert (
        go_clients.regctl("image", "digest", "--platform", "linux/arm64", both).stdout.strip()
        == images["arm"].digest
    )


def test_an_image_is_changed_in_place(go_clients: GoClients, client: Client, repository: str) -> None:
    image, name = make_image(), go_clients.at(f"{repository}:v1")
    client.push(repository, image, "v1")
    words = ("image", "mod", name, "--create", "v2", "--annotation", "made.by=a test", "--label", "team=web")
    go_clients.regctl(*words)
    manifest = client.get_manifest(repository, "v2").expect(200).json
    assert manifest["annotations"] == {"made.by": "a test"}
    assert manifest["layers"][0]["digest"] == digest_of(image.blobs[-1])
    config = json.loads(go_clients.regctl("image", "config", go_clients.at(f"{repository}:v2")).stdout)
    assert config["config"]["Labels"] == {"team": "web"}


# --- blobs ----------------------------------------------------------------------------------------------------


def test_a_blob_is_put_looked_at_got_copied_and_deleted(
    go_clients: GoClients, server: Server, client: Client, repository: str
) -> None:
    content, other = "content " * 1000, f"{repository}-other"
    server.make_repository(other)
    name = go_clients.at(repository)
    digest = go_clients.regctl("blob", "put", name, stdin=content).stdout.strip()
    assert digest == digest_of(content.encode())
    assert f"Content-Length: {len(content)}" in go_clients.regctl("blob", "head", name, digest).stdout
    assert go_clients.regctl("blob", "get", name, digest).stdout == content

    go_clients.regctl("blob", "copy", name, go_clients.at(other), digest)
    go_clients.regctl("blob", "delete", name, digest)

    assert "not found" in go_clients.regctl("blob", "head", name, digest, fails=True).text
    assert client.get_blob(other, digest).expect(200).body == content.encode()


@pytest.mark.parametrize("chunk", [100_000, 1_000_000])
def test_a_layer_is_sent_in_pieces(make_server: Callable[..., Server], tmp_path: Path, chunk: int) -> None:
    server = make_server()
    server.make_repository("admin/app")
    image = make_image(size=1_234_567)
    write_layout(tmp_path / "layout", image, "v1")
    go_clients = GoClients(server, tmp_path / "go-clients").log_in()
    go_clients.set_regctl("--blob-chunk", str(chunk), "--blob-max", str(chunk))
    words = ("image", "copy", f"ocidir://{tmp_path}/layout:v1", go_clients.at("admin/app:v1"))

    requests = server.requests_of(lambda: go_clients.regctl(*words))

    pieces = [one["status"] for one in requests if one["method"] == "PATCH"]
    assert pieces == [202] * (len(image.blobs[-1]) // chunk + 1)
    Client(server.restart()).assert_whole("admin/app", image, "v1")


def test_pieces_are_as_large_as_the_registry_wants_them(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server({"registry.chunk_minimum": 500_000})
    server.make_repository("admin/app")
    image = make_image(size=1_234_567)
    write_layout(tmp_path / "layout", image, "v1")
    go_clients = GoClients(server, tmp_path / "go-clients").log_in()
    go_clients.set_regctl("--blob-chunk", "100000", "--blob-max", "100000")
    words = ("image", "copy", f"ocidir://{tmp_path}/layout:v1", go_clients.at("admin/app:v1"))

    requests = server.requests_of(lambda: go_clients.regctl(*words))

    assert [one["status"] for one in requests if one["method"] == "PATCH"] == [202] * 3
    Client(server.restart()).assert_whole("admin/app", image, "v1")


def test_an_upload_goes_on_where_its_connection_was_cut(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = make_server()
    server.make_repository("admin/app")
    image = make_image(size=3_000_000)
    write_layout(tmp_path / "layout", image, "v1")
    cuts = 0

    async def requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes over: of one connection as many as half of the layer, of later ones all."""
        nonlocal cuts
        carried = 0
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
            carried += len(piece)
            if carried > 1_500_000 and not cuts:
                cuts += 1
                return

    def push(port: int) -> None:
        clients = GoClients(server, tmp_path / "go-clients", address=f"localhost:{port}").log_in()
        clients.set_regctl("--blob-chunk", "1000000", "--blob-max", "100000")
        clients.regctl("image", "copy", f"ocidir://{tmp_path}/layout:v1", clients.at("admin/app:v1"))

    async def push_through_proxy() -> None:
        async with proxy(server.port, requests=requests) as port:
            await asyncio.to_thread(push, port)

    seen = server.requests_of(lambda: asyncio.run(push_through_proxy()))

    assert cuts == 1
    pieces = [one for one in seen if one["method"] == "PATCH"]
    # Each byte came once: those of the piece that broke, too.
    assert sum(one["bytes_in"] for one in pieces if one["status"] in {202, 400}) == len(image.blobs[-1])
    assert ("GET", 204) in {(one["method"], one["status"]) for one in seen if "/blobs/uploads/" in one["path"]}
    Client(server.restart()).assert_whole("admin/app", image, "v1")
