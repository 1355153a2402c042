"""Clients pull through a cache of another registry, also when that is gone: by its name here, and as a mirror."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.api import Api
from tests.support.containers import Containers
from tests.support.distribution import DockerRegistry
from tests.support.engine import Docker, expected_greeting, run_engine
from tests.support.server import PASSWORD, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIRROR = """
unqualified-search-registries = []
[[registry]]
prefix = "elsewhere.example"
location = "elsewhere.example"
[[registry.mirror]]
location = "{}/elsewhere"
"""


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    registry = DockerRegistry(tmp_path_factory.mktemp("upstream"))
    yield registry
    registry.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: DockerRegistry) -> Iterator[Server]:
    """Its namespaces `hub`, of those who log in, and, for all, `library` and `elsewhere` are caches."""
    settings = {"mirroring.allowed_networks": "127.0.0.1/32"}
    made = Server(tmp_path_factory.mktemp("cache") / "dtr", settings, workers=2).start()
    api = Api(made)
    remote = api.admin.post("/api/v0/remotes", {"name": "upstream", "remoteHost": upstream.url}).expect(201)
    for namespace, there, visibility in (
        ("hub", "", "private"),
        ("library", "library", "public"),
        ("elsewhere", "", "public"),
    ):
        api.make_organization(namespace)
        form = {"remoteID": remote.json["id"], "remoteRepository": there, "visibility": visibility}
        api.admin.put(f"/api/v0/repositoryNamespaces/{namespace}/upstream", form).expect(200)
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    """Of an image that nobody has, in Docker Hub's own namespace."""
    return f"app{uuid.uuid4().hex[:12]}"


@pytest.fixture
def there(docker: Docker, upstream: DockerRegistry, name: str) -> Iterator[str]:
    """The id of an image that the upstream has as ``library/NAME:v1``."""
    upstream.start()
    image = f"127.0.0.1:{upstream.port}/library/{name}:v1"
    built = docker.build(image, files={"large": bytes(5_000_000)})
    docker.push(image)
    docker.forget(image)
    yield built
    upstream.kill()


def test_docker_pulls_through_and_again_when_the_upstream_is_gone(
    docker: Docker, server: Server, upstream: DockerRegistry, name: str, there: str
) -> None:
    image = f"{server.address}/hub/library/{name}:v1"
    docker("pull", image, fails=True)
    docker.login(server.address, "admin", PASSWORD)
    docker("pull", image)
    assert docker.id(image) == there
    assert docker.greeting(image) == expected_greeting()
    upstream.kill()
    docker.forget(image)
    docker("pull", image)
    assert docker.id(image) == there
    refused = docker("push", image, fails=True)
    assert "cache" in refused.text


def test_a_docker_engine_has_it_as_its_mirror(server: Server, name: str, there: str, tmp_path: Path) -> None:
    with run_engine(f"https://{server.address}") as engine:
        docker = Docker(engine, tmp_path / "docker-of-mirror")
        docker("pull", f"{name}:v1")
        assert docker.id(f"{name}:v1") == there


def test_skopeo_has_it_as_a_mirror_of_any_registry(
    server: Server, upstream: DockerRegistry, name: str, there: str, tmp_path: Path
) -> None:
    containers = Containers(server, tmp_path / "containers", None)
    mirrors = tmp_path / "registries.conf"
    mirrors.write_text(_MIRROR.format(server.address))
    for folder in ("first", "second"):
        image, target = f"docker://elsewhere.example/library/{name}:v1", f"dir:{tmp_path / folder}"
        certificates = f"--src-cert-dir={containers.certificates}"
        containers.skopeo("--registries-conf", str(mirrors), "copy", certificates, image, target)
        upstream.kill()
    names = {file.name for file in (tmp_path / "first").iterdir()}
    assert there.removeprefix("sha256:") in names
    assert names == {file.name for file in (tmp_path / "second").iterdir()}
