"""Something of everything that pages show, on an installation with everybody (`tests.support.people`)."""

from __future__ import annotations

import time

from tests.support.api import Api, User
from tests.support.images import Image, make_artifact, make_built_image, make_image, make_index, make_tar
from tests.support.people import make_people
from tests.support.rooms import annotated
from tests.support.signing import make_key, public_pem

README = "# Payments\n\nWhat it *does*, and how to **run** it.\n"
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2026-01-02T03:04:05Z",
    "config": {
        "Entrypoint": ["/app"],
        "Cmd": ["--serve"],
        "Env": ["PATH=/usr/bin", "MODE=production"],
        "Labels": {"org.opencontainers.image.source": "https://code.example/payments"},
        "ExposedPorts": {"8080/tcp": {}},
        "User": "1000",
        "WorkingDir": "/srv",
    },
    "rootfs": {"type": "layers", "diff_ids": ["sha256:" + "1" * 64, "sha256:" + "2" * 64]},
    "history": [
        {"created_by": "/bin/sh -c #(nop) ADD file:base in / "},
        {"created_by": "ENV MODE=production", "empty_layer": True},
        {"created_by": "RUN /bin/sh -c apk add --no-cache curl # buildkit"},
    ],
}
RULES = {"rules": [{"field": "tag", "operator": "eq", "values": ["1.0"]}]}


def furnish(api: Api) -> dict[str, User]:
    """
    Make people, and what they work with. Gives who calls the API, by the keys of `people.PEOPLE`.

    In ``acme/private``, ``acme/public`` and ``pia/private``: tags, an index, policies of each kind, a webhook; in
    ``acme`` a remote, an identity, a robot with a token; a webhook and a policy about signatures at each place; a
    job that waits, a schedule, sessions, tokens and a key, a second storage, an identity of the whole registry.
    """
    users = {who: User(api.server, name, secret) for who, (name, secret) in api.server.do(make_people).items()}
    root = users["S"]
    layers = [make_tar(f"file{number}", b"content") for number in range(2)]
    image, other = make_built_image(CONFIG, *layers), make_image(layers=2)
    root.post(
        "/api/v0/remotes",
        {"name": "partner", "namespace": "acme", "remoteHost": "https://registry.example", "username": "robot",
         "password": "hush"},
    ).expect(201)  # fmt: skip
    identity = {"kind": "key", "content": public_pem(make_key())}
    root.put("/api/v0/signingIdentities/release", identity, namespace="acme").expect(200)
    for path in ("acme/private", "acme/public", "pia/private"):
        _furnish_repository(root, path, image, other)
    root.post("/api/v0/accounts/acme/robots/bot/tokens", {"tokenLabel": "deploy"}).expect(201)
    root.post("/api/v0/api_tokens", {"tokenLabel": "laptop"}, username="paul").expect(200)
    key = {"publicKey": public_pem(make_key()), "label": "laptop"}
    root.post("/enzi/v0/accounts/paul/publicKeys", key).expect(201)
    root.post("/api/v0/jobs", {"action": "sleep", "scheduledAt": "2100-01-01T00:00:00Z"}).expect(202)
    root.post("/api/v0/jobs", {"action": "false"}).expect(202)
    root.post("/api/v0/crons", {"action": "onlinegc", "schedule": "@daily"}).expect(202)
    root.client.push("acme/target", image, "signed")
    api.sign("acme/target", "signed", image.digest)
    for place in ("repositories/acme/private", "repositoryNamespaces/acme", ""):
        root.put(f"/api/v0/{place}/enforcement".replace("//", "/"), {"mode": "off"}).expect(200)
    root.put("/api/v0/signingIdentities/release", identity).expect(200)
    exception = {"kind": "tag", "value": "old-*", "reason": "made before"}
    root.post("/api/v0/enforcement/exceptions", exception).expect(201)
    second = api.server.directory / "second"
    second.mkdir(exist_ok=True)
    storage = {"driver": "filesystem", "parameters": {"root": str(second)}}
    root.put("/api/v0/admin/storages/second", storage).expect(200)
    root.put("/api/v0/admin/storages/second/namespaces/pia").expect(204)
    _furnish_webhooks(root, image)
    return users


def _furnish_webhooks(root: User, image: Image) -> None:
    """One of each place, with a delivery."""
    places = ("acme/private", "acme", "pia", "")
    form = {"type": "TAG_PUSH", "endpoint": "https://receiver.example/"}
    made = [root.post("/api/v0/webhooks", {**form, "key": key}).expect(200).json[0]["id"] for key in places]
    for path in ("acme/private", "pia/private"):
        root.client.push(path, image, "told")
    deadline = time.monotonic() + 60
    while not all(root.get(f"/api/v0/webhooks/{one}/deliveries").expect(200).json for one in made):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _furnish_repository(root: User, path: str, image: Image, other: Image) -> None:
    client, repository = root.client, f"/api/v0/repositories/{path}"
    client.push(path, image, "1.0")
    client.push(path, image, "latest")
    client.push(path, annotated(image, version="two"), "2.0")
    client.push(path, other)
    client.push(path, make_index(image, other), "multi")
    client.push(path, make_artifact("application/spdx+json", b'{"spdxVersion": "SPDX-2.3"}', subject=image))
    root.patch(repository, {"shortDescription": f"What {path} is for", "longDescription": README}).expect(200)
    off = {"enabled": False, **RULES}
    root.post(f"{repository}/pruningPolicies", off).expect(201)
    promotion = {**off, "targetRepository": "acme/target", "tagTemplate": "%n-released"}
    root.post(f"{repository}/promotionPolicies", promotion).expect(201)
    mirror = {
        "remoteHost": f"https://127.0.0.1:{root.client.server.port}",
        "remoteRepository": "acme/target",
        "username": "root",
        "password": root.client.password,
        "skipTLSVerification": True,
        "enabled": False,
        "remoteTag": "mirrored",
    }
    for direction in ("push", "poll"):
        root.post(f"{repository}/{direction}MirroringPolicies", mirror).expect(201)
    webhook = {"type": "TAG_PUSH", "key": path, "endpoint": "https://receiver.example/"}
    root.post("/api/v0/webhooks", webhook).expect(200)
