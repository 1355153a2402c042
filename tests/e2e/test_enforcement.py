"""What docker says and does where only signed images may be pulled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.api import Api
from tests.support.workers import wait_for_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.engine import Docker
    from tests.support.server import Server

POLICY = "/api/v0/repositoryNamespaces/guarded/enforcement"


@pytest.fixture
def api(server: Server) -> Iterator[Api]:
    """The organization `guarded`, of which ann and bob write, each in a team, and rita reads."""
    made = Api(server)
    made.make_users("ann", "bob", "rita")
    made.make_organization("guarded", members=("ann", "bob", "rita"))
    for team, user in (("dev", "ann"), ("security", "bob")):
        made.make_team(f"guarded/{team}", user)
        made.grant(f"guarded/{team}", "admin")
    made.make_team("guarded/readers", "rita")
    made.grant("guarded/readers", "read-only")
    made.make_repository("guarded/app")
    yield made
    made.admin.delete(POLICY).expect(204)


def register(api: Api, docker: Docker, name: str) -> Path:
    """A new key of a signer, which is among the public keys of the account; the file with its public half."""
    docker("trust", "key", "generate", name, "--dir", docker.directory)
    file = docker.directory / f"{name}.pub"
    api.as_(name).post(f"/enzi/v0/accounts/{name}/publicKeys", {"publicKey": file.read_text()}).expect(201)
    return file


def test_docker_runs_only_what_a_member_of_each_team_signed(
    api: Api, server: Server, docker_of: Callable[[str], Docker]
) -> None:
    image = f"{server.address}/guarded/app"
    ann, bob, rita = docker_of("ann"), docker_of("bob"), docker_of("rita")
    for docker in (ann, bob):
        docker.environment["DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE"] = "of the root key"
        docker.environment["DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE"] = "of the other keys"
    keys = {name: register(api, docker, name) for name, docker in (("ann", ann), ("bob", bob))}
    built = ann.build(f"{image}:1", f"{image}:2")
    ann.push(f"{image}:1")
    ann.forget(f"{image}:1")

    rita("pull", f"{image}:1")
    rita.forget(f"{image}:1")
    api.admin.put(POLICY, {"mode": "enforce", "teams": ["guarded/dev", "guarded/security"]}).expect(200)
    manifest = "/v2/guarded/app/manifests/1"
    wait_for_workers(server, lambda client: client.call("GET", manifest).status != 200, "rita")
    said = rita("pull", f"{image}:1", fails=True).text
    assert "denied: 1 must not be pulled: the policy of the namespace wants a signature by a member of" in said
    assert "guarded/dev and one by a member of guarded/security" in said

    # Pushing and signing go on.
    for name, file in keys.items():
        ann("trust", "signer", "add", "--key", file, name, image)
    ann("trust", "sign", f"{image}:2")
    said = rita("pull", f"{image}:2", fails=True).text
    assert "the policy of the namespace wants a signature by a member of guarded/security" in said
    assert "guarded/dev" not in said
    bob("trust", "sign", f"{image}:2")
    ann.forget(f"{image}:2")
    rita("pull", f"{image}:2")
    assert rita.id(f"{image}:2") == built
    # It is what they signed, whatever it is called.
    rita("pull", f"{image}:1")
