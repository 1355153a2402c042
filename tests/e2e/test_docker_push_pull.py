"""docker push and pull of images built from local files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client
from tests.support.engine import expected_greeting
from tests.support.server import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.engine import Docker
    from tests.support.server import Server


@pytest.fixture
def docker(docker_of: Callable[[str], Docker]) -> Docker:
    """The docker command of the administrator."""
    return docker_of("admin")


@pytest.fixture
def image(server: Server, repository: str) -> str:
    """The full name of an image that nobody has pushed."""
    return f"{server.address}/{repository}:v1"


def test_a_pulled_image_is_the_one_that_was_pushed_and_runs(docker: Docker, image: str) -> None:
    built = docker.build(image)
    docker.push(image)
    docker.forget(image)
    assert not docker.holds(image)

    docker("pull", image)

    assert docker.id(image) == built
    assert docker.greeting(image) == expected_greeting()


def test_the_digest_that_docker_names_is_the_one_that_the_registry_serves(
    docker: Docker, server: Server, repository: str, image: str
) -> None:
    docker.build(image)
    digest = docker.push(image)
    answer = Client(server).get_manifest(repository, "v1").expect(200)
    assert answer.headers["docker-content-digest"] == digest
    assert answer.json["config"]["digest"] == docker.id(image)


def test_an_image_is_pulled_by_its_digest(docker: Docker, image: str) -> None:
    built = docker.build(image)
    digest = docker.push(image)
    by_digest = f"{image.removesuffix(':v1')}@{digest}"
    docker.forget(image)

    docker("pull", by_digest)

    assert docker.id(by_digest) == built


def test_a_second_push_of_the_same_sends_nothing(make_server: Callable[..., Server], docker: Docker) -> None:
    server = make_server()
    server.make_repository("admin/twice")
    docker.login(server.address, "admin", PASSWORD)
    image = f"{server.address}/admin/twice:v1"
    docker.build(image, files={"one": os.urandom(1000), "two": os.urandom(1000)})
    first = docker.push(image)
    digests = []

    requests = server.requests_of(lambda: digests.append(docker.push(image)))

    assert digests == [first]
    assert {one["method"] for one in requests if "/blobs/" in one["path"]} == {"HEAD"}


def test_a_layer_that_another_repository_holds_is_mounted(docker: Docker, server: Server, repository: str) -> None:
    other = f"{repository}-other"
    server.make_repository(other)
    source, target = f"{server.address}/{repository}:v1", f"{server.address}/{other}:v1"
    docker.build(source, target)
    first = docker.push(source)

    pushed = docker("push", target).stdout

    assert first in pushed
    assert pushed.count(f"Mounted from {repository}") == 2


def test_two_tags_of_one_image_have_one_digest(docker: Docker, server: Server, repository: str) -> None:
    names = [f"{server.address}/{repository}:{tag}" for tag in ("v1", "latest")]
    built = docker.build(*names)
    first, second = (docker.push(name) for name in names)
    assert first == second
    docker.forget(*names)
    for name in names:
        docker("pull", name)
        assert docker.id(name) == built
    assert Client(server).call("GET", f"/v2/{repository}/tags/list").json["tags"] == ["latest", "v1"]


def test_all_tags_are_pushed_and_pulled_at_once(docker: Docker, server: Server, repository: str) -> None:
    path = f"{server.address}/{repository}"
    built = {tag: docker.build(f"{path}:{tag}") for tag in ("v1", "v2", "v3")}
    docker("push", "--all-tags", path)
    docker.forget(*(f"{path}:{tag}" for tag in built))

    docker("pull", "--all-tags", path)

    assert {tag: docker.id(f"{path}:{tag}") for tag in built} == built


def test_a_tag_moves_to_the_image_that_was_pushed_last(docker: Docker, image: str) -> None:
    docker.build(image)
    docker.push(image)
    newer = docker.build(image)
    docker.push(image)
    docker.forget(image)

    docker("pull", image)

    assert docker.id(image) == newer


def test_a_large_layer_arrives_whole(docker: Docker, server: Server, image: str) -> None:
    content = os.urandom(60_000_000)
    built = docker.build(image, files={"large": content})
    docker.push(image)
    docker.forget(image)

    docker("pull", image)

    # The engine checks every layer against the image's configuration.
    assert docker.id(image) == built
    container = docker("create", image).stdout.strip()
    docker("cp", f"{container}:/large", docker.directory / "large")
    assert (docker.directory / "large").read_bytes() == content
    docker("rm", container)


def test_an_image_of_many_layers_arrives_whole(docker: Docker, image: str) -> None:
    built = docker.build(image, files={f"file{number}": os.urandom(20_000) for number in range(15)})
    docker.push(image)
    docker.forget(image)

    docker("pull", image)

    assert docker.id(image) == built


def test_a_deep_repository_name_is_pushed_to_and_pulled_from(docker: Docker, server: Server) -> None:
    server.make_repository("admin/a/very/deep/name")
    image = f"{server.address}/admin/a/very/deep/name:v1"
    built = docker.build(image)
    docker.push(image)
    docker.forget(image)

    docker("pull", image)

    assert docker.id(image) == built


def test_a_pull_of_an_unknown_tag_says_so(docker: Docker, server: Server, repository: str) -> None:
    answer = docker("pull", f"{server.address}/{repository}:missing", fails=True)
    assert "not found" in answer.text or "manifest unknown" in answer.text
