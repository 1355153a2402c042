"""What people with and without rights get to see with their clients."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client, local
from tests.support.images import Image, digest_of, make_artifact, make_image
from tests.support.server import Server

if TYPE_CHECKING:
    from tests.support.containers import Containers
    from tests.support.engine import Docker

DENIED = "requested access to the resource is denied"

DockerOf = Callable[[str], "Docker"]
ContainersOf = Callable[[str | None], "Containers"]


@dataclass(frozen=True)
class Acme:
    """A repository of an organisation with an image `v1` in it."""

    server: Server
    path: str
    image: Image

    @property
    def name(self) -> str:
        """The full name of the image."""
        return f"{self.server.address}/{self.path}:v1"


@pytest.fixture(scope="module")
def organization(server: Server) -> str:
    """An organisation, and users: a reader and a writer are in its teams, an outsider is not."""
    server.make_organization("acme")
    for user in ("reader", "writer", "outsider"):
        server.make_user(user)
    return "acme"


@pytest.fixture
def make_acme(server: Server, organization: str) -> Callable[[str], Acme]:
    """A function that makes a repository that is private or public; its reader may read it, its writer write."""

    def make(visibility: str) -> Acme:
        path = f"{organization}/r{uuid.uuid4().hex[:12]}"
        server.make_repository(path, visibility=visibility)
        server.grant("acme/readers", "read-only", users=("reader",), repository=path)
        server.grant("acme/writers", "read-write", users=("writer",), repository=path)
        image = make_image(docker=True)
        Client(server).push(path, image, "v1")
        return Acme(server, path, image)

    return make


@pytest.fixture
def private(make_acme: Callable[[str], Acme]) -> Acme:
    """A private repository."""
    return make_acme("private")


@pytest.fixture
def public(make_acme: Callable[[str], Acme]) -> Acme:
    """A public repository."""
    return make_acme("public")


# --- without rights ---


def test_docker_pulls_no_private_image_without_a_grant(private: Acme, docker_of: DockerOf) -> None:
    said = docker_of("outsider")("pull", private.name, fails=True).text
    assert "pull access denied" in said
    assert DENIED in said


def test_docker_pulls_no_private_image_without_a_log_in(private: Acme, docker: Docker) -> None:
    assert "pull access denied" in docker("pull", private.name, fails=True).text


@pytest.mark.parametrize("kind", ["private", "public"])
def test_docker_pushes_nothing_without_a_grant(
    make_acme: Callable[[str], Acme], docker_of: DockerOf, kind: str
) -> None:
    acme, docker = make_acme(kind), docker_of("outsider")
    docker.build(acme.name)
    assert f"denied: {DENIED}" in docker("push", acme.name, fails=True).text
    Client(acme.server).assert_whole(acme.path, acme.image, "v1")


@pytest.mark.parametrize("user", ["outsider", None])
def test_skopeo_sees_and_changes_nothing_of_a_private_repository_without_a_grant(
    private: Acme, containers_of: ContainersOf, tmp_path: Path, user: str | None
) -> None:
    tools = containers_of(user)
    remote = tools.remote(f"{private.path}:v1")
    assert DENIED in tools.list_tags(private.path, fails=True).text
    assert DENIED in tools.inspect(f"{private.path}:v1", fails=True).text
    assert DENIED in tools.copy(remote, f"dir:{tmp_path}/copy", fails=True).text
    assert DENIED in tools.skopeo("delete", f"--cert-dir={tools.certificates}", remote, fails=True).text
    assert DENIED in tools.podman("pull", f"--cert-dir={tools.certificates}", private.name, fails=True).text
    Client(private.server).assert_whole(private.path, private.image, "v1")


def test_skopeo_says_the_same_of_a_private_and_of_a_missing_repository(
    private: Acme, containers_of: ContainersOf
) -> None:
    tools = containers_of("outsider")
    missing = f"acme/r{uuid.uuid4().hex[:12]}"
    for look in (tools.list_tags, lambda path, **how: tools.inspect(f"{path}:v1", **how)):
        said, of_missing = (look(path, fails=True).text for path in (private.path, missing))
        assert _timeless(said).replace(private.path, "X") == _timeless(of_missing).replace(missing, "X")


def test_docker_says_the_same_of_a_private_and_of_a_missing_repository(private: Acme, docker_of: DockerOf) -> None:
    docker = docker_of("outsider")
    missing = f"acme/r{uuid.uuid4().hex[:12]}"
    said, of_missing = (
        docker("pull", f"{private.server.address}/{path}:v1", fails=True).text for path in (private.path, missing)
    )
    assert said.replace(private.path, "X") == of_missing.replace(missing, "X")


def test_a_layer_of_a_private_repository_is_not_mounted_without_a_grant(private: Acme) -> None:
    outsider, own = Client(private.server, "outsider"), f"outsider/r{uuid.uuid4().hex[:12]}"
    private.server.make_repository(own)
    digest = digest_of(private.image.blobs[-1])

    outsider.call("POST", f"/v2/{own}/blobs/uploads/?mount={digest}&from={private.path}").expect(202)
    outsider.call("POST", f"/v2/{own}/blobs/uploads/?mount={digest}").expect(202)

    outsider.get_blob(own, digest).expect(404)


def test_the_list_of_repositories_shows_private_ones_to_those_with_a_grant_only(
    private: Acme, public: Acme, containers_of: ContainersOf
) -> None:
    seen = {}
    for user in ("outsider", "reader"):
        words = ("search", "--tls-verify=false", "--limit=1000", f"{private.server.address}/")
        seen[user] = containers_of(user).podman(*words).stdout.split()
    assert public.name.removesuffix(":v1") in seen["outsider"]
    assert private.name.removesuffix(":v1") not in seen["outsider"]
    assert private.name.removesuffix(":v1") in seen["reader"]


def test_referrers_of_a_private_image_are_denied_without_a_grant(private: Acme) -> None:
    bill = make_artifact("application/spdx+json", b"bill", subject=private.image)
    Client(private.server).push(private.path, bill)
    path = f"/v2/{private.path}/referrers/{private.image.digest}"
    for user in ("outsider", None):
        assert Client(private.server, user).call("GET", path).expect(401).codes == ["DENIED"]
    found = Client(private.server, "reader").call("GET", path).expect(200).json["manifests"]
    assert [one["digest"] for one in found] == [bill.digest]


# --- with some rights ---


def test_docker_pulls_a_public_image_without_a_log_in(public: Acme, docker: Docker) -> None:
    docker("pull", public.name)
    assert docker.holds(public.name)


def test_skopeo_copies_and_lists_a_public_repository_without_a_log_in(
    public: Acme, containers_of: ContainersOf, tmp_path: Path
) -> None:
    tools = containers_of(None)
    tools.copy(tools.remote(f"{public.path}:v1"), f"dir:{tmp_path}/copy")
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == public.image.payload
    assert json.loads(tools.list_tags(public.path).stdout)["Tags"] == ["v1"]


def test_a_reader_pulls_and_is_denied_a_push(private: Acme, docker_of: DockerOf) -> None:
    docker = docker_of("reader")
    docker("pull", private.name)
    docker.build(private.name)
    assert f"denied: {DENIED}" in docker("push", private.name, fails=True).text
    Client(private.server).assert_whole(private.path, private.image, "v1")


def test_a_reader_deletes_nothing(private: Acme, containers_of: ContainersOf) -> None:
    tools = containers_of("reader")
    remote = tools.remote(f"{private.path}:v1")
    assert DENIED in tools.skopeo("delete", f"--cert-dir={tools.certificates}", remote, fails=True).text
    Client(private.server).assert_whole(private.path, private.image, "v1")


def test_a_writer_pushes_pulls_and_deletes(
    private: Acme, docker_of: DockerOf, containers_of: ContainersOf
) -> None:
    docker = docker_of("writer")
    image = private.name.replace(":v1", ":v2")
    built = docker.build(image)
    docker.push(image)
    docker.forget(image)
    docker("pull", image)
    assert docker.id(image) == built

    tools = containers_of("writer")
    tools.skopeo("delete", f"--cert-dir={tools.certificates}", tools.remote(f"{private.path}:v2"))
    assert json.loads(tools.list_tags(private.path).stdout)["Tags"] == ["v1"]


# --- rights that change ---


def test_a_grant_lets_in_whoever_was_denied_before(private: Acme, docker_of: DockerOf) -> None:
    server = private.server
    server.make_user(user := f"u{uuid.uuid4().hex[:8]}")
    docker = docker_of(user)
    docker("pull", private.name, fails=True)
    server.cli("account", "member", "acme", user)
    server.cli("account", "team", "acme", "readers", user)
    docker("pull", private.name)


def test_a_removed_grant_stops_docker_at_once(private: Acme, docker_of: DockerOf) -> None:
    docker = docker_of("writer")
    image = private.name.replace(":v1", ":v2")
    docker.build(image)
    docker.push(image)
    private.server.cli("repository", "grant", private.path, "acme/writers", "none")
    docker.build(image)

    assert f"denied: {DENIED}" in docker("push", image, fails=True).text
    docker.forget(image)
    assert "pull access denied" in docker("pull", image, fails=True).text


def test_a_removed_grant_stops_a_push_that_is_under_way(private: Acme) -> None:
    writer = Client(private.server, "writer")
    location = writer.start_upload(private.path)
    after_first = writer.call("PATCH", location, b"first part").expect(202)
    private.server.cli("repository", "grant", private.path, "acme/writers", "none")

    # The token is the one from before.
    answer = writer.call("PATCH", local(after_first.headers["location"]), b"second part")

    assert answer.expect(401).codes == ["DENIED"]
    digest = digest_of(b"first part")
    writer.call("PUT", f"{location}?digest={digest}").expect(401)
    Client(private.server).get_blob(private.path, digest).expect(404)


def test_a_tag_of_an_immutable_repository_is_not_overwritten_and_docker_says_why(
    private: Acme, docker_of: DockerOf
) -> None:
    private.server.cli("repository", "update", private.path, "--immutable")
    docker = docker_of("admin")
    docker.build(private.name)

    said = docker("push", private.name, fails=True).text

    repository = f"{private.server.address}/{private.path}"
    assert f"tag=v1 cannot be overwritten because {repository} is an immutable repository" in said
    Client(private.server).assert_whole(private.path, private.image, "v1")
    new = private.name.replace(":v1", ":v2")
    docker.build(new)
    docker.push(new)


# --- repositories that are not there ---


def test_a_push_to_a_missing_repository_of_ones_own_fails_at_once_and_says_why(
    server: Server, organization: str, docker_of: DockerOf
) -> None:
    docker = docker_of("outsider")
    image = f"{server.address}/outsider/missing:v1"
    docker.build(image)

    said = docker("push", image, fails=True).text

    assert "name unknown: repository outsider/missing does not exist" in said
    assert "Retrying" not in said


@pytest.mark.parametrize("path", ["acme/missing", "nobody/missing", "missing"])
def test_a_push_to_a_missing_repository_of_somebody_else_is_denied(
    server: Server, organization: str, docker_of: DockerOf, path: str
) -> None:
    docker = docker_of("outsider")
    image = f"{server.address}/{path}:v1"
    docker.build(image)
    said = docker("push", image, fails=True).text
    assert f"denied: {DENIED}" in said
    assert "Retrying" not in said


def _timeless(text: str) -> str:
    """What skopeo says, without the time of it."""
    return text.partition(" level=")[2]
