"""Trees that Debian's docker-registry made become ours: on a disk by a command that is killed, in S3 by a job."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from tests.support.api import User
from tests.support.client import Client
from tests.support.commands import Commands
from tests.support.containers import Containers
from tests.support.distribution import DockerRegistry
from tests.support.images import Image, descriptor, digest_of, make_artifact, make_image, make_index
from tests.support.jobs import ENDS
from tests.support.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.server import DTR, Server, clean_environment

PULLED_BY_SKOPEO = ("acme/app1:v1", "acme/app1:cosign", "acme/lists:docker", "deep/a/b/c:v1", "library/alpine:3")


def make_images() -> dict[str, Image]:
    """Images with layers in common, indexes, signatures and artifacts; by what they are to be called here."""
    base = make_image(layers=2, size=2000)
    images: dict[str, Image] = {}
    for number in range(20):
        images[f"acme/app{number % 4}:v{number}"] = over(base, number)
    signed = images["acme/app1:v1"]
    tag = f"{signed.digest.replace(':', '-')}.sig"
    images[f"acme/app1:{tag}"] = images["acme/app1:cosign"] = make_artifact("application/x-cosign", b"signature")
    images["acme/app1:sbom"] = make_artifact("application/x-sbom", b"parts", subject=signed)
    images["acme/lists:oci"] = make_index(over(base, 20), make_image(), subject=signed.descriptor)
    images["acme/lists:docker"] = make_index(over(base, 21, docker=True), make_image(docker=True), docker=True)
    images["acme/lists:of-lists"] = make_index(make_index(make_image()))
    images["deep/a/b/c:v1"] = over(base, 22)
    images["deep/a:v1"] = over(base, 23)
    images["deep/a-b:v1"] = over(base, 24)
    images["library/alpine:3"] = over(base, 25)
    return images


def over(base: Image, number: int, *, docker: bool = False) -> Image:
    """An image with the layers of another one, and one more."""
    image = make_image(docker=docker)
    manifest = json.loads(image.payload)
    layer = f"layer {number}".encode()
    media_type = manifest["layers"][0]["mediaType"]
    manifest["layers"] = [descriptor(media_type, one) for one in (*base.blobs[1:], layer)]
    return Image(json.dumps(manifest).encode(), image.media_type, (image.blobs[0], *base.blobs[1:], layer))


def fill(registry: DockerRegistry, images: Mapping[str, Image]) -> None:
    for name, image in images.items():
        repository, _, tag = name.partition(":")
        registry.push(repository.removeprefix("library/"), image, tag)


def compare(server: Server, directory: Path, images: Mapping[str, Image]) -> None:
    """Pull everything, by tag and digest; some of it by skopeo."""
    client = Client(server)
    for name, image in images.items():
        repository, _, tag = name.partition(":")
        client.assert_whole(repository, image, tag)
        client.assert_whole(repository, image)
    containers = Containers(server, directory)
    for name in PULLED_BY_SKOPEO:
        target = directory / name.replace("/", "_")
        containers.copy(containers.remote(name), f"dir:{target}", "--all", "--preserve-digests")
        copied = {one.read_bytes() for one in target.iterdir()}
        assert set(contents(images[name])) <= copied


def contents(image: Image) -> Iterator[bytes]:
    yield image.payload
    yield from image.blobs
    for child in image.children:
        yield from contents(child)


def size_of_blobs(images: Mapping[str, Image]) -> tuple[int, int]:
    """How many blobs they have, manifests aside, and how many bytes."""
    blobs: set[bytes] = set()

    def add(image: Image) -> None:
        blobs.update(image.blobs)
        for child in image.children:
            add(child)

    for image in images.values():
        add(image)
    return len(blobs), sum(map(len, blobs))


@pytest.fixture(scope="module")
def images() -> dict[str, Image]:
    return make_images()


def files(directory: Path) -> dict[str, tuple[int, int, int]]:
    """All files below a directory: inode, time and size of each."""
    return {
        str(one.relative_to(directory)): (status.st_ino, status.st_mtime_ns, status.st_size)
        for one in directory.rglob("*")
        if one.is_file()
        for status in (one.stat(),)
    }


OPTIONS = ("--namespace", "library", "--create-namespaces")


def test_a_tree_of_files_is_taken_over_by_a_command_that_is_killed_and_run_again(
    tmp_path: Path, images: dict[str, Image]
) -> None:
    registry = DockerRegistry(tmp_path / "registry").start()
    try:
        fill(registry, images)
    finally:
        registry.kill()
    before = files(registry.data)
    server = Server(tmp_path / "dtr", {"storage.filesystem.root": registry.data, "registry.inline_limit": 0})
    try:
        server.start()
        kill_in_the_middle(server)
        dtr = Commands(server)
        said = dtr("import-storage", *OPTIONS, "--verify")
        assert said.endswith("; 0 problems\n")
        repeated = dtr("import-storage", *OPTIONS)
        blobs, size = size_of_blobs(images)
        assert "0 blobs of 0 bytes taken over, 0 links; 0 manifests, 0 tags" in repeated
        compare(server, tmp_path / "skopeo", images)
        # Nothing was copied, moved or touched: all files are those that docker-registry wrote.
        after = files(registry.data)
        assert {name: after.get(name) for name in before} == before
        assert [name for name in after if name not in before] == []
        audit = dtr("fsck", "--verify")
        assert audit.startswith(f"{blobs} blobs, ")
        assert audit.endswith("; 0 damaged\n")
        with sqlite3.connect(server.directory / "metadata.db") as database:
            assert database.execute("SELECT count(*), sum(size) FROM blobs").fetchone() == (blobs, size)
    finally:
        server.close()


def kill_in_the_middle(server: Server) -> None:
    """Import, until the first manifests are there."""
    environment = {**clean_environment(), **server.environment}
    importing = subprocess.Popen([DTR, "import-storage", *OPTIONS], env=environment, stdout=subprocess.DEVNULL)
    database = sqlite3.connect(f"file:{server.directory}/metadata.db?mode=ro", uri=True)
    deadline = time.monotonic() + 120
    try:
        while True:
            has_ended = importing.poll() is not None
            if database.execute("SELECT count(*) FROM manifests").fetchone()[0]:
                break
            assert not has_ended
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        importing.kill()  # in the middle, or, on a slow machine, when it has just ended
        importing.wait(10)
        database.close()


def test_a_tree_in_a_bucket_is_taken_over_by_a_job(
    tmp_path: Path, images: dict[str, Image], s3_server: S3Server
) -> None:
    prefix = f"import-{uuid.uuid4().hex}"
    registry = DockerRegistry(
        tmp_path / "registry",
        storage=(
            f"s3: {{region: us-east-1, bucket: blobs, regionendpoint: '{s3_server.endpoint}', secure: false,"
            f" accesskey: {ACCESS_KEY}, secretkey: {SECRET_KEY}, rootdirectory: /{prefix}/old}}"
        ),
    ).start()
    try:
        fill(registry, images)
    finally:
        registry.kill()
    before = listing(s3_server, prefix)
    assert len(before) > 100
    settings: dict[str, Any] = {**s3_server.settings, "storage.s3.prefix": f"{prefix}/"}
    server = Server(tmp_path / "dtr", settings)
    try:
        server.start()
        parameters = {"prefix": "old", "namespace": "library", "createNamespaces": "true", "verify": "true"}
        admin = User(server, "admin")
        job = admin.post("/api/v0/jobs", {"action": "import_storage", "parameters": parameters}).expect(202).json
        deadline = time.monotonic() + 120
        while (job := admin.get(f"/api/v0/jobs/{job['id']}").expect(200).json)["status"] not in ENDS:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        log = admin.get(f"/api/v0/jobs/{job['id']}/logs").expect(200).json
        lines = [json.loads(line["data"])["msg"] for line in log]
        assert job["status"] == "done", lines
        blobs, size = size_of_blobs(images)
        assert f"{blobs} blobs of {size} bytes taken over" in lines[-1]
        assert lines[-1].endswith("; 0 problems")
        compare(server, tmp_path / "skopeo", images)
        assert listing(s3_server, prefix) == before
        assert digest_of(images["acme/app1:v1"].blobs[0]).partition(":")[2] in "".join(before)
    finally:
        server.close()


def listing(server: S3Server, prefix: str) -> dict[str, tuple[str, int, Any]]:
    """What a bucket has behind a prefix: tag, size and time of each object."""
    client = botocore.session.get_session().create_client(
        "s3", "us-east-1", endpoint_url=server.endpoint,
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
    )  # fmt: skip
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="blobs", Prefix=f"{prefix}/")
    return {
        one["Key"]: (one["ETag"], one["Size"], one["LastModified"])
        for page in pages
        for one in page.get("Contents", ())
    }
