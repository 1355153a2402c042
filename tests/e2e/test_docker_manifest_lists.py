"""
docker manifest: a list of images, one a platform.

To a registry on the loopback interface docker pushes lists over plain HTTP, whatever is there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client
from tests.support.images import DOCKER_LIST
from tests.support.server import PASSWORD

if TYPE_CHECKING:
    from tests.support.engine import Docker
    from tests.support.server import Server


@pytest.fixture
def address(server: Server) -> str:
    """Where docker finds the registry."""
    return server.address


@pytest.fixture
def docker(docker: Docker, address: str) -> Docker:
    """The docker command of the administrator."""
    docker.login(address, "admin", PASSWORD)
    return docker


class Listed:
    """A pushed list: its name, its digest, and the images in it by architecture (id, digest of the manifest)."""

    def __init__(self, docker: Docker, path: str) -> None:
        self.own = docker("version", "--format", "{{.Server.Arch}}").stdout.strip()
        self.other = "arm64" if self.own != "arm64" else "amd64"
        self.name = f"{path}:latest"
        names = {one: f"{path}:{one}" for one in (self.own, self.other)}
        self.ids = {one: docker.build(name) for one, name in names.items()}
        self.digests = {one: docker.push(name) for one, name in names.items()}
        docker("manifest", "create", "--insecure", self.name, *names.values())
        docker("manifest", "annotate", self.name, names[self.other], "--os", "linux", "--arch", self.other)
        self.digest = docker("manifest", "push", "--insecure", self.name).stdout.split()[-1]
        docker.forget(*names.values())


@pytest.fixture
def listed(docker: Docker, address: str, repository: str) -> Listed:
    """A list of two platforms."""
    return Listed(docker, f"{address}/{repository}")


def test_a_pushed_list_names_an_image_for_each_platform(docker: Docker, listed: Listed) -> None:
    seen = json.loads(docker("manifest", "inspect", "--insecure", listed.name).stdout)
    assert seen["mediaType"] == DOCKER_LIST
    assert {one["platform"]["architecture"]: one["digest"] for one in seen["manifests"]} == listed.digests


def test_a_list_is_served_with_the_digest_that_docker_names(
    server: Server, repository: str, listed: Listed
) -> None:
    answer = Client(server).get_manifest(repository, "latest").expect(200)
    assert answer.headers["docker-content-digest"] == listed.digest
    assert answer.headers["content-type"] == DOCKER_LIST


def test_a_pull_of_a_list_takes_the_image_of_the_own_platform(docker: Docker, listed: Listed) -> None:
    docker("pull", listed.name)
    assert docker.id(listed.name) == listed.ids[listed.own]


def test_an_image_in_a_list_is_pulled_by_its_own_digest(docker: Docker, listed: Listed) -> None:
    name = f"{listed.name.removesuffix(':latest')}@{listed.digests[listed.other]}"
    docker("pull", name)
    assert docker.id(name) == listed.ids[listed.other]


def test_a_list_is_pulled_by_its_digest(docker: Docker, listed: Listed) -> None:
    name = f"{listed.name.removesuffix(':latest')}@{listed.digest}"
    docker("pull", name)
    assert docker.id(name) == listed.ids[listed.own]


def test_a_list_of_images_in_another_repository_is_pushed_by_mounting_them(
    docker: Docker, server: Server, address: str, repository: str, listed: Listed
) -> None:
    other = f"{repository}-lists"
    server.make_repository(other)
    name = f"{address}/{other}:v1"
    path = listed.name.removesuffix(":latest")
    docker("manifest", "create", "--insecure", name, *(f"{path}@{one}" for one in listed.digests.values()))
    docker("manifest", "push", "--insecure", name)

    docker("pull", name)

    assert docker.id(name) in listed.ids.values()
