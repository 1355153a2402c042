"""The whole way of an image: pushed, promoted, mirrored, told, pruned and collected; what remains is whole."""

from __future__ import annotations

import contextlib
import hmac
import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.api import Api
from tests.support.distribution import USER, USER_PASSWORD, DockerRegistry
from tests.support.engine import expected_greeting
from tests.support.images import digest_of
from tests.support.jobs import ENDS
from tests.support.receiver import Receiver, receiving
from tests.support.server import PASSWORD
from tests.support.wire import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.api import User
    from tests.support.engine import Docker
    from tests.support.server import Server

MIB = 1024 * 1024
SECRET = "what only the receiver knows"
DEV, PROD = "/api/v0/repositories/dev/app", "/api/v0/repositories/prod/app"
LOOPBACK = "127.0.0.0/8"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[DockerRegistry]:
    """The second registry: of others, with TLS by an authority of its own, and a password."""
    registry = DockerRegistry(tmp_path / "registry", tls=True, users=True).start()
    yield registry
    registry.kill()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def api(make_server: Callable[..., Server]) -> Api:
    """A registry of which ada has two namespaces, and what nobody holds goes as soon as it is collected."""
    server = make_server(
        {
            "webhooks.allowed_networks": LOOPBACK,
            "mirroring.allowed_networks": LOOPBACK,
            "registry.untagged_seconds": 60,
            "registry.delete_delay_seconds": 0,
        }
    )
    made = Api(server)
    made.make_users("ada")
    for namespace in ("dev", "prod"):
        made.make_organization(namespace, owners=("ada",))
        made.make_repository(f"{namespace}/app")
    return made


def tags(user: User, repository: str) -> dict[str, str]:
    """The digest of each tag."""
    return {one["name"]: one["digest"] for one in user.get(f"{repository}/tags").expect(200).json}


def stored(server: Server) -> dict[str, int]:
    """Size by digest of what lies in the storage."""
    found = {}
    for one in (server.directory / "blobs").rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it was just deleted
            if one.is_file():
                content = one.read_bytes()
                found[digest_of(content)] = len(content)
    return found


def run_job(admin: User, action: str, **parameters: str) -> str:
    """Run a job to its end; its log."""
    made = admin.post("/api/v0/jobs", {"action": action, "parameters": parameters}).expect(202).json
    job = f"/api/v0/jobs/{made['id']}"
    wait_until(lambda: admin.get(job).expect(200).json["status"] in ENDS)
    assert admin.get(job).json["status"] == "done", admin.get(f"{job}/logs").body
    return admin.get(f"{job}/logs").body.decode()


def test_an_image_from_its_push_to_what_remains(
    api: Api, docker: Docker, other: DockerRegistry, receiver: Receiver
) -> None:
    server, ada = api.server, api.as_("ada")
    year = f"{datetime.now(UTC):%Y}"
    set_up(ada, other, receiver)
    for address, user, password in (
        (server.address, "ada", PASSWORD),
        (f"127.0.0.1:{other.port}", USER, USER_PASSWORD),
    ):
        docker.login(address, user, password)

    # Pushed: two versions, and three builds of which only the last is to stay.
    pushed, layers = {}, {}
    for tag in ("build-1", "build-2", "build-3", "v1", "v2"):
        image = f"{server.address}/dev/app:{tag}"
        docker.build(image, files={"content": os.urandom(2 * MIB)})
        pushed[tag] = docker.push(image)
        manifest = ada.client.get_manifest("dev/app", tag).expect(200).json
        layers[tag] = [one["digest"] for one in manifest["layers"]]

    # Promoted under the names of the template, and mirrored from there.
    released = {f"{tag}-of-{year}": pushed[tag] for tag in ("v1", "v2")}
    wait_until(lambda: tags(ada, PROD) == released)
    (policy,) = ada.get(f"{PROD}/mirroringPolicies").expect(200).json
    mirrored = f"{PROD}/mirroringPolicies/{policy['id']}/tags"
    wait_until(
        lambda: (
            {one["tag"]: one["status"] for one in ada.get(mirrored).expect(200).json}
            == dict.fromkeys(released, "mirrored")
        ),
    )

    # Told, with signatures.
    told = [one.json for one in receiver.wait(6)]
    kinds = [one["type"] for one in told]
    assert sorted(kinds) == ["PROMOTION"] * 2 + ["PUSH_MIRRORING"] * 2 + ["TAG_PUSH"] * 2
    assert {one["contents"]["tag"] for one in told if one["type"] == "TAG_PUSH"} == set(released)
    for received in receiver.received:
        signature = hmac.new(SECRET.encode(), received.body, "sha256").hexdigest()
        assert received.headers["x-dtr-signature-256"] == f"sha256={signature}"

    # Pruned: the last build stays.
    rules = [{"field": "tag", "operator": "sw", "values": ["build-"]}]
    ada.post(f"{DEV}/pruningPolicies", {"rules": rules, "keep": 1}).expect(201)
    remaining = {tag: pushed[tag] for tag in ("build-3", "v1", "v2")}
    wait_until(lambda: tags(ada, DEV) == remaining)

    # Collected: the space is free.
    kept = {layer for tag in remaining for layer in layers[tag]}
    gone = {layer for tag in ("build-1", "build-2") for layer in layers[tag]} - kept
    before = stored(server)
    assert (len(gone), set(before) >= kept | gone) == (2, True)
    log = run_job(api.admin, "onlinegc", grace="0s", unsafe="true")
    wait_until(lambda: not gone & stored(server).keys())  # the server's own sweeper may have begun with some
    after = stored(server)
    assert set(after) >= kept
    assert sum(before.values()) - sum(after.values()) >= sum(before[layer] for layer in gone) >= 4 * MIB, log
    run_job(api.admin, "fsck", content="true")

    # What remains is what was pushed, wherever it is.
    docker.forget(*docker("image", "ls", "--quiet").stdout.split())
    places = {
        f"{server.address}/dev/app": remaining,
        f"{server.address}/prod/app": released,
        f"127.0.0.1:{other.port}/released/app": released,
    }
    for repository, digests in places.items():
        for tag, digest in digests.items():
            assert re.search(rf"^Digest: {digest}$", docker("pull", f"{repository}:{tag}").stdout, re.MULTILINE)
            assert docker.greeting(f"{repository}:{tag}") == expected_greeting()
            docker.forget(f"{repository}:{tag}")


def set_up(ada: User, other: DockerRegistry, receiver: Receiver) -> None:
    """Versions are promoted, what is promoted is mirrored, and all of that is told."""
    versions: list[dict[str, Any]] = [{"field": "tag", "operator": "sw", "values": ["v"]}]
    policy = {"rules": versions, "targetRepository": "prod/app", "tagTemplate": "%n-of-%Y"}
    ada.post(f"{DEV}/promotionPolicies", policy).expect(201)
    remote = {
        "remoteHost": other.url,
        "remoteRepository": "released/app",
        "username": USER,
        "password": USER_PASSWORD,
        "remoteCA": other.ca,
    }
    ada.post(f"{PROD}/pushMirroringPolicies", {**remote, "rules": [], "tagTemplate": "%n"}).expect(201)
    for kind, key in (("PROMOTION", "dev/app"), ("TAG_PUSH", "prod/app"), ("PUSH_MIRRORING", "prod/app")):
        webhook = {
            "type": kind,
            "key": key,
            "endpoint": receiver.url(host="127.0.0.1"),
            "skipTLSVerification": True,
            "secret": SECRET,
        }
        ada.post("/api/v0/webhooks", webhook).expect(200, 201)
