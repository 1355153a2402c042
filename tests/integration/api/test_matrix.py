"""
Who may do what: every operation, called by everybody, against the matrix.

Operations on a repository are called on a private one of an organisation, on a public one, and on a private one in
a personal namespace, where the same was granted to single users.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from tests.support.api import Api, User
from tests.support.client import Answer
from tests.support.contract import Operation, operations, ours
from tests.support.images import Image, digest_of, make_image
from tests.support.people import PEOPLE, make_people, make_repository
from tests.support.receiver import Receiver, receiving
from tests.support.rooms import annotated
from tests.support.signing import make_key, public_pem

from dtr.app import Application

SETTINGS = {"webhooks.allowed_networks": "127.0.0.1/32", "mirroring.allowed_networks": "127.0.0.1/32"}

# --- the matrix -----------------------------------------------------------------------------------------------

RIGHTS = """
                     An  Au  R   RW  A   NA  TA  O   P   Ad  S   In  St  Ro  Sc

    see private      401 404 +   +   +   +   404 +   404 +   +   401 404 +   +
    see public       +   +   +   +   +   +   +   +   +   +   +   401 +   +   +
    pull private     401 404 +   +   +   +   404 +   404 403 +   401 404 +   +
    pull public      +   +   +   +   +   +   +   +   +   +   +   401 +   +   +
    watch private    401 404 +   +   +   +   404 +   404 +   +   401 404 +   +
    watch public     401 +   +   +   +   +   +   +   +   +   +   401 +   +   +
    write private    401 404 403 +   +   +   404 +   404 403 +   401 404 +   403
    write public     401 403 403 +   +   +   403 +   403 403 +   401 403 +   403
    look at private  401 404 403 403 +   +   404 +   404 +   +   401 404 403 403
    look at public   401 403 403 403 +   +   403 +   403 +   +   401 403 403 403
    rename private   401 404 403 403 403 +   404 +   404 403 +   401 404 403 403
    rename public    401 403 403 403 403 +   403 +   403 403 +   401 403 403 403
    paul at private  401 404 403 403 403 403 403 403 403 +   +   401 403 403 403
    paul at public   401 +   403 403 403 403 403 403 403 +   +   401 403 403 403
    why private      401 404 403 403 +   +   404 +   404 +   +   401 404 403 403
    why public       401 +   403 403 +   +   403 +   403 +   +   401 403 403 403
    paul's private   401 404 403 403 403 403 403 403 403 403 +   401 403 403 403
    paul's public    401 +   403 403 403 403 403 403 403 403 +   401 403 403 403
    manage private   401 404 403 403 +   +   404 +   404 403 +   401 404 403 403
    manage public    401 403 403 403 +   +   403 +   403 403 +   401 403 403 403
    cache private    401 404 403 403 404 +   404 +   404 403 +   401 404 403 403
    cache public     401 403 403 403 404 +   403 +   403 403 +   401 403 403 403

    mirror private   401 404 +   +   +   +   404 +   404 403 +   401 404 +   +
    mirror public    401 403 +   +   +   +   403 +   403 403 +   401 403 +   +

    policies private 401 404 +   +   +   +   404 +   404 +   +   401 404 +   +
    policies public  401 403 +   +   +   +   403 +   403 +   +   401 403 +   +

    remotes of one   401 403 403 403 403 +   403 +   403 +   +   401 403 403 403
    see remote       401 404 404 404 404 +   404 +   404 +   +   401 404 404 404
    use remote       401 404 404 404 404 +   404 +   404 403 +   401 404 404 404
    manage remote    401 404 404 404 404 403 404 +   404 403 +   401 404 404 404

    found            +   +   +   +   +   +   +   +   +   +   +   401 +   +   +
    logged in        401 +   +   +   +   +   +   +   +   +   +   401 +   +   +
    any user         401 +   +   +   +   +   +   +   +   +   +   401 +   403 403
    member           401 403 +   +   +   +   +   +   403 +   +   401 403 403 403
    namespace        401 403 403 403 403 +   403 +   403 403 +   401 403 403 403
    owner            401 403 403 403 403 403 403 +   403 403 +   401 403 403 403
    owner or auditor 401 403 403 403 403 403 403 +   403 +   +   401 403 403 403
    team's           401 403 403 403 403 403 +   +   403 403 +   401 403 403 403
    teams' and above 401 403 403 403 403 403 +   +   403 +   +   401 403 403 403
    namespace's      401 403 403 403 403 +   403 +   403 +   +   401 403 403 403
    self             401 +   403 403 403 403 403 403 403 403 +   401 403 403 403
    self or auditor  401 +   403 403 403 403 403 403 403 +   +   401 403 403 403
    own token        401 +   404 404 404 404 404 404 404 404 +   401 404 403 403
    see own token    401 +   404 404 404 404 404 404 404 +   +   401 404 403 403
    auditor          401 403 403 403 403 403 403 403 403 +   +   401 403 403 403
    administrator    401 403 403 403 403 403 403 403 403 403 +   401 403 403 403
    nobody needed    +   +   +   +   +   +   +   +   +   +   +   401 +   +   +
"""
"""By right: allowed, or the status. A repository of nobody's knowledge is not there: 404."""


@dataclass(frozen=True)
class Row:
    """The right that an operation needs, and how it is called."""

    right: str
    body: Any = None
    query: dict[str, Any] = field(default_factory=dict)
    path: dict[str, str] = field(default_factory=dict)
    before: Callable[[World, str], object] | None = None
    """Makes what the call on a repository (or elsewhere: on nothing, "") needs, or destroys; before each."""
    destroys: bool = False
    """The repository: each call has its own."""
    in_organization: bool = False
    """Not on the repository in the personal namespace: that has no teams, or others than those of the row."""
    credentials: bool = True
    """False: the caller is in the body."""


class World:
    """A server with everybody on it."""

    def __init__(self, api: Api, receiver: Receiver) -> None:
        self.api = api
        self.receiver = receiver
        self.image: Image = make_image()
        self.other = annotated(self.image, other="yes")
        self.ids: dict[str, str] = {}
        self.users: dict[str, User] = {}
        secrets = api.server.do(make_people)
        for who, (name, secret) in secrets.items():
            self.users[who] = User(api.server, name, secret)
        self.admin = self.users["S"]
        files = api.server.directory
        (files / "more").mkdir()
        STORAGE["parameters"] = {"root": str(files / "more")}
        DOCUMENT["storage"] = {"filesystem": {"rootdirectory": str(files / "blobs")}}
        MIRROR.update(remoteHost=f"https://127.0.0.1:{api.server.port}", password=secrets["S"][1])
        for target in ("acme/private", "acme/public", "pia/private"):
            self.admin.client.push(target, self.image, "v1")

    def disposable(self, target: str) -> dict[str, str]:
        """A repository like `target` for each person."""
        paths = {who: f"{target}-{number}-{len(self.ids)}" for number, who in enumerate(PEOPLE)}
        self.ids[next(iter(paths.values()))] = ""

        async def make(application: Application) -> None:
            for path in paths.values():
                await make_repository(application, path)

        self.api.server.do(make)
        return paths


STORAGE: dict[str, Any] = {"driver": "filesystem"}
DOCUMENT: dict[str, Any] = {}


def _layer(world: World, _target: str) -> None:
    world.ids["digest"] = digest_of(world.image.blobs[-1])


def _team(world: World, _target: str) -> None:
    world.admin.post("/enzi/v0/accounts/acme/teams", {"name": "spare"}).expect(201, 400)


def _teams_member(world: World, _target: str) -> None:
    world.admin.put("/enzi/v0/accounts/acme/teams/idle/members/spare", {}).expect(200)


def _member(world: World, _target: str) -> None:
    world.admin.put("/enzi/v0/accounts/acme/members/spare", {}).expect(200)


def _account(name: str, **more: Any) -> Callable[[World, str], None]:
    def before(world: World, _target: str) -> None:
        world.admin.post("/enzi/v0/accounts", {"name": name, "password": "secret", **more}).expect(201, 400)

    return before


def _no_account(name: str) -> Callable[[World, str], None]:
    return lambda world, _target: world.admin.delete(f"/enzi/v0/accounts/{name}").expect(204, 404)


def _no_team(world: World, _target: str) -> None:
    world.admin.delete("/enzi/v0/accounts/acme/teams/fresh").expect(204, 404)


def _no_repository(world: World, target: str) -> None:
    namespace = target.partition("/")[0] or "acme"
    world.admin.delete(f"/api/v0/repositories/{namespace}/fresh").expect(204, 404)


def _repository(namespace: str) -> Callable[[World, str], None]:
    def before(world: World, _target: str) -> None:
        world.admin.post(f"/api/v0/repositories/{namespace}", {"name": "app"}).expect(201, 400)

    return before


def _tag(world: World, target: str) -> None:
    world.admin.client.put_manifest(target, world.image, "gone").expect(201)


def _signed(world: World, target: str) -> None:
    world.api.sign(target, "gone", world.image.digest)


def _manifest(world: World, target: str) -> None:
    world.admin.client.put_manifest(target, world.other).expect(201)


def _session(world: World, _target: str) -> None:
    """One of paul's, of which the matrix ends all others."""
    world.api.anonymous.post("/auth/login", {"username": "paul", "password": "secret"}).expect(200)
    (found, *_) = world.admin.get("/api/v0/sessions", username="paul").expect(200).json
    world.ids["session"] = found["id"]


def _no_robot(world: World, _target: str) -> None:
    world.admin.delete("/api/v0/accounts/acme/robots/fresh").expect(204, 404)


def _robot(world: World, _target: str) -> None:
    world.admin.post("/api/v0/accounts/acme/robots", {"name": "spare"}).expect(201, 400)


def _robots_token(world: World, _target: str) -> None:
    made = world.admin.post("/api/v0/accounts/acme/robots/bot/tokens", {}).expect(201)
    world.ids["hashedtoken"] = made.json["hashedToken"]


def _token(world: World, _target: str) -> None:
    made = world.admin.post("/api/v0/api_tokens", {"tokenLabel": "paul's"}, username="paul").expect(200)
    world.ids["hashedtoken"] = made.json["hashedToken"]


def _key(account: str) -> Callable[[World, str], None]:
    def before(world: World, _target: str) -> None:
        world.admin.delete(f"/enzi/v0/accounts/{account}/publicKeys/{KEY_ID}").expect(204, 404)
        world.admin.post(f"/enzi/v0/accounts/{account}/publicKeys", {"publicKey": KEY}).expect(201)

    return before


def _no_key(account: str) -> Callable[[World, str], None]:
    return lambda world, _target: world.admin.delete(f"/enzi/v0/accounts/{account}/publicKeys/{KEY_ID}").expect(
        204, 404
    )


def _job(world: World, _target: str) -> None:
    made = world.admin.post("/api/v0/jobs", {"action": "sleep", "scheduledAt": "2100-01-01T00:00:00Z"}).expect(202)
    world.ids["jobID"] = made.json["id"]


PRUNING = {"enabled": False, "rules": [{"field": "tag", "operator": "eq", "values": ["gone"]}]}


def _pruning_policy(world: World, target: str) -> None:
    made = world.admin.post(f"/api/v0/repositories/{target}/pruningPolicies", PRUNING).expect(201)
    world.ids["pruningpolicyid"] = made.json["id"]


WEBHOOK = {"type": "TAG_PUSH", "key": "acme/private", "endpoint": "https://receiver.example/"}
TEST: dict[str, Any] = {"type": "TAG_PUSH", "skipTLSVerification": True}
UPDATE: dict[str, Any] = {}


PROMOTION = {**PRUNING, "targetRepository": "acme/target", "tagTemplate": "%n"}


def _promotion_policy(world: World, target: str) -> None:
    made = world.admin.post(f"/api/v0/repositories/{target}/promotionPolicies", PROMOTION).expect(201)
    world.ids["promotionpolicyid"] = made.json["id"]
    for one in world.admin.get(f"/api/v0/repositories/{target}/promotionPolicies").expect(200).json:
        if one["id"] != made.json["id"]:
            world.admin.delete(f"/api/v0/repositories/{target}/promotionPolicies/{one['id']}").expect(204)


REMOTE = {"name": "of acme", "namespace": "acme", "remoteHost": "https://registry.example"}
REGISTRY: dict[str, Any] = {"remoteRepository": "acme/public", "skipTLSVerification": True}
"""The server itself."""


def _no_remote(world: World, _target: str) -> None:
    for one in world.admin.get("/api/v0/remotes", namespace="acme").expect(200).json:
        if one["name"] == REMOTE["name"]:
            world.admin.delete(f"/api/v0/remotes/{one['id']}").expect(204)


def _remote(world: World, target: str) -> None:
    _no_remote(world, target)
    _registry(world, target)
    form = {**REMOTE, "remoteHost": REGISTRY["remoteHost"], "skipTLSVerification": True}
    world.ids["remote"] = world.admin.post("/api/v0/remotes", form).expect(201).json["id"]


def _registry(world: World, _target: str) -> None:
    REGISTRY["remoteHost"] = f"https://127.0.0.1:{world.api.server.port}"


MIRROR: dict[str, Any] = {
    "remoteRepository": "acme/target",
    "skipTLSVerification": True,
    "username": "root",
    "remoteTag": "mirrored",
    "enabled": False,
}
"""The server itself is the remote, as root."""


def _mirroring_policy(direction: str) -> Callable[[World, str], None]:
    def before(world: World, target: str) -> None:
        policies = f"/api/v0/repositories/{target}/{direction}MirroringPolicies"
        found = world.admin.get(policies).expect(200).json
        policy = found[0] if found else world.admin.post(policies, MIRROR).expect(201).json
        world.ids[f"{direction}mirroringpolicyid"] = world.ids["mirroringpolicyid"] = policy["id"]

    return before


UPSTREAM: dict[str, Any] = {"remoteRepository": "library/app"}


def _remote_of_caches(world: World, _target: str) -> None:
    form = {"name": "of caches", "namespace": "acme", "remoteHost": "registry.example"}
    world.admin.post("/api/v0/remotes", form).expect(201, 400)
    for one in world.admin.get("/api/v0/remotes", namespace="acme").expect(200).json:
        if one["name"] == form["name"]:
            UPSTREAM["remoteID"] = one["id"]


def _upstream(world: World, target: str) -> None:
    form = {"name": "of all caches", "remoteHost": "registry.example"}
    world.admin.post("/api/v0/remotes", form).expect(201, 400)
    (remote,) = [one for one in world.admin.get("/api/v0/remotes").expect(200).json if one["name"] == form["name"]]
    path = f"/api/v0/repositories/{target}/upstream"
    world.admin.put(path, {**UPSTREAM, "remoteID": remote["id"]}).expect(200)


IDENTITY = {"kind": "key", "content": public_pem(make_key())}


def _identity(world: World, _target: str) -> None:
    world.admin.put("/api/v0/signingIdentities/release", IDENTITY, namespace="acme").expect(200)


EXCEPTION = {"kind": "tag", "value": "dev-*", "reason": "for developers"}


def _enforcement_of(place: str, *, excepts: bool) -> Callable[[World, str], None]:
    """A policy that is switched off, with one more exception or not."""

    def before(world: World, target: str) -> None:
        namespace, _, name = target.partition("/")
        path = place.replace("{namespace}", namespace or "acme").replace("{reponame}", name) + "/enforcement"
        world.admin.put(path, {"mode": "off"}).expect(200)
        if excepts:
            world.ids["exceptionid"] = world.admin.post(f"{path}/exceptions", EXCEPTION).expect(201).json["id"]

    return before


def _namespace_upstream(world: World, target: str) -> None:
    _remote_of_caches(world, target)
    world.admin.put("/api/v0/repositoryNamespaces/acme/upstream", UPSTREAM).expect(200)


def _webhook(world: World, _target: str) -> None:
    (made,) = world.admin.post("/api/v0/webhooks", WEBHOOK).expect(200).json
    world.admin.delete(f"/api/v0/webhooks/{world.ids.get('webhook', 'none')}").expect(200, 404)
    world.ids["webhook"] = UPDATE["id"] = made["id"]


def _delivery(world: World, target: str) -> None:
    """The webhook tells a push."""
    _webhook(world, target)
    world.admin.client.put_manifest("acme/private", annotated(world.image, n=UPDATE["id"]), "told").expect(201)
    deadline = time.monotonic() + 60
    while not (found := world.admin.get(f"/api/v0/webhooks/{UPDATE['id']}/deliveries").expect(200).json):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    world.ids["delivery"] = found[0]["id"]


def _receiver(world: World, _target: str) -> None:
    TEST["endpoint"] = world.receiver.url()


def _canceled_job(world: World, target: str) -> None:
    _job(world, target)
    world.admin.post(f"/api/v0/jobs/{world.ids['jobID']}/cancel").expect(204)


def _cron(world: World, _target: str) -> None:
    world.admin.post("/api/v0/crons", {"action": "sleep", "schedule": "@yearly"}).expect(202)


def _action_config(world: World, _target: str) -> None:
    world.admin.post("/api/v0/action_configs", {"action": "sleep"}).expect(202)


def _storage(world: World, _target: str) -> None:
    world.admin.put("/api/v0/admin/storages/gone", STORAGE).expect(200)


def _worker(world: World, _target: str) -> None:
    (worker,) = world.admin.get("/api/v0/workers").expect(200).json["workers"]
    world.ids["id"] = worker["id"]


KEY = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEPqiEnguN8eRjZaq0OqkJMYQBqPFw
VwF4pwuHlJOC1rrbcETCRmwBXIRFficL5DOEh1ZvFRXrmpqGf0f9qJNv6g==
-----END PUBLIC KEY-----
"""
KEY_ID = hashlib.sha256(base64.b64decode("".join(KEY.splitlines()[1:-1]))).hexdigest()
REPOSITORY = "/api/v0/repositories/{namespace}/{reponame}"
NAMESPACE = "/api/v0/repositoryNamespaces/{namespace}"
ENZI = "/enzi/v0/accounts"
ROBOTS = "/api/v0/accounts/{orgname}/robots"

MATRIX = {
    # --- accounts: the account service
    f"GET {ENZI}": Row("any user"),
    f"POST {ENZI}": Row("administrator", {"name": "fresh", "password": "secret"}, before=_no_account("fresh")),
    f"PATCH {ENZI}": Row("administrator", {"operations": []}),
    f"GET {ENZI}/{{account}}": Row("any user"),
    f"PATCH {ENZI}/{{account}}": Row("self", {"fullName": "Paul"}, path={"account": "paul"}),
    f"DELETE {ENZI}/{{account}}": Row("administrator", path={"account": "gone"}, before=_account("gone")),
    f"POST {ENZI}/{{user}}/changePassword": Row(
        "self", {"oldPassword": "secret", "newPassword": "secret"}, path={"user": "paul"}
    ),
    f"GET {ENZI}/{{user}}/organizations": Row("self or auditor", path={"user": "paul"}),
    f"GET {ENZI}/{{user}}/memberTeams": Row("self or auditor", path={"user": "paul"}),
    f"GET {ENZI}/{{org}}/members": Row("member"),
    f"GET {ENZI}/{{org}}/members/{{user}}": Row("member"),
    f"GET {ENZI}/{{org}}/members/{{user}}/teams": Row("member"),
    f"PUT {ENZI}/{{org}}/members/{{user}}": Row("owner", {"isAdmin": False}),
    f"DELETE {ENZI}/{{org}}/members/{{user}}": Row("owner", before=_member),
    f"GET {ENZI}/{{org}}/teams": Row("member"),
    f"POST {ENZI}/{{org}}/teams": Row("owner", {"name": "fresh"}, before=_no_team),
    f"GET {ENZI}/{{org}}/teams/{{team}}": Row("member"),
    f"PATCH {ENZI}/{{org}}/teams/{{team}}": Row("team's", {"description": "idle"}),
    f"DELETE {ENZI}/{{org}}/teams/{{team}}": Row("owner", path={"team": "spare"}, before=_team),
    f"GET {ENZI}/{{org}}/teams/{{team}}/members": Row("member"),
    f"GET {ENZI}/{{org}}/teams/{{team}}/members/{{user}}": Row("member", before=_teams_member),
    f"PUT {ENZI}/{{org}}/teams/{{team}}/members/{{user}}": Row("team's", {"isAdmin": False}),
    f"DELETE {ENZI}/{{org}}/teams/{{team}}/members/{{user}}": Row("team's", before=_teams_member),
    f"GET {ENZI}/{{account}}/publicKeys": Row("any user"),
    f"POST {ENZI}/{{account}}/publicKeys": Row("owner", {"publicKey": KEY}, before=_no_key("acme")),
    f"GET {ENZI}/{{account}}/publicKeys/{{key_id}}": Row("any user", before=_key("acme")),
    f"PATCH {ENZI}/{{account}}/publicKeys/{{key_id}}": Row("owner", {"label": "x"}, before=_key("acme")),
    f"DELETE {ENZI}/{{account}}/publicKeys/{{key_id}}": Row("owner", before=_key("acme")),
    "GET /enzi/v0/config/sessions": Row("auditor"),
    "PUT /enzi/v0/config/sessions": Row("administrator", {"lifetimeMinutes": 60}),
    # --- who one is
    "POST /enzi/v0/id/login": Row("nobody needed", {"username": "spare", "password": "secret"}, credentials=False),
    "POST /auth/login": Row("nobody needed", {"username": "spare", "password": "secret"}, credentials=False),
    "POST /enzi/v0/id/logout": Row("logged in"),
    "GET /enzi/v0/id": Row("logged in"),
    "GET /basic_info": Row("logged in"),
    # --- settings and tokens of users
    "GET /api/v0/accounts/language": Row("logged in"),
    "GET /api/v0/accounts/{username}/repositoryAccess": Row("self or auditor", path={"username": "paul"}),
    "GET /api/v0/accounts/{username}/settings": Row("self or auditor", path={"username": "paul"}),
    "PATCH /api/v0/accounts/{username}/settings": Row("self", {"language": "ja"}, path={"username": "paul"}),
    "GET /api/v0/api_tokens": Row("self or auditor", query={"username": "paul"}),
    "POST /api/v0/api_tokens": Row("self", {"tokenLabel": "x"}, query={"username": "paul"}),
    "DELETE /api/v0/api_tokens": Row("self", query={"username": "paul", "usedbefore": "2020-01-01"}),
    "GET /api/v0/api_tokens/{hashedtoken}": Row("see own token", before=_token),
    "PATCH /api/v0/api_tokens/{hashedtoken}": Row("own token", {"tokenLabel": "y"}, before=_token),
    "DELETE /api/v0/api_tokens/{hashedtoken}": Row("own token", before=_token),
    "GET /api/v0/sessions": Row("self or auditor", query={"username": "paul"}),
    "DELETE /api/v0/sessions": Row("self", query={"username": "paul"}, before=_session),
    "DELETE /api/v0/sessions/{session}": Row("own token", before=_session),
    # --- robots
    f"GET {ROBOTS}": Row("owner or auditor"),
    f"POST {ROBOTS}": Row("owner", {"name": "fresh"}, before=_no_robot),
    f"GET {ROBOTS}/{{robot}}": Row("owner or auditor"),
    f"PATCH {ROBOTS}/{{robot}}": Row("owner", {"description": "x"}),
    f"DELETE {ROBOTS}/{{robot}}": Row("owner", path={"robot": "spare"}, before=_robot),
    f"GET {ROBOTS}/{{robot}}/access": Row("owner or auditor"),
    f"GET {ROBOTS}/{{robot}}/tokens": Row("owner or auditor"),
    f"POST {ROBOTS}/{{robot}}/tokens": Row("owner", {"tokenLabel": "x"}),
    f"DELETE {ROBOTS}/{{robot}}/tokens/{{hashedtoken}}": Row("owner", before=_robots_token),
    # --- events
    "GET /api/v0/events": Row("auditor"),
    "GET /api/v0/events/export": Row("auditor"),
    "GET /api/v0/repositories/{namespace}/{reponame}/events": Row("watch"),
    "GET /api/v0/repositories/{namespace}/{reponame}/events/export": Row("watch"),
    # --- repositories
    "GET /api/v0/repositories": Row("found"),
    "GET /api/v0/repositories/{namespace}": Row("found"),
    "POST /api/v0/repositories/{namespace}": Row("namespace", {"name": "fresh"}, before=_no_repository),
    f"GET {REPOSITORY}": Row("see"),
    f"GET {REPOSITORY}/usage": Row("see"),
    f"PATCH {REPOSITORY}": Row("manage", {"shortDescription": "x"}),
    f"DELETE {REPOSITORY}": Row("manage", destroys=True),
    f"POST {REPOSITORY}/rename": Row("rename", {"name": "fresh"}, destroys=True, before=_no_repository),
    "POST /api/v0/repositories/scan/toggle": Row("administrator", {"scanOnPush": False}),
    "DELETE /api/v0/accounts/{namespace}/repositories": Row(
        "owner", path={"namespace": "branch"}, before=_repository("branch")
    ),
    "DELETE /api/v0/accounts/{namespace}": Row(
        "administrator", path={"namespace": "gone"}, before=_account("gone")
    ),
    f"GET {REPOSITORY}/tags": Row("see"),
    f"GET {REPOSITORY}/tagCounts": Row("see"),
    f"GET {REPOSITORY}/tags/{{tag}}/history": Row("watch"),
    f"GET {REPOSITORY}/tags/{{reference}}": Row("see"),
    f"DELETE {REPOSITORY}/tags/{{reference}}": Row("write", path={"reference": "gone"}, before=_tag),
    f"POST {REPOSITORY}/tags/delete": Row("write", {"tags": ["gone"]}),
    f"POST {REPOSITORY}/tags/{{tag}}/promotion": Row(
        "write", {"targetRepository": "acme/public", "targetTag": "promoted"}, in_organization=True
    ),
    f"GET {REPOSITORY}/trustData": Row("see"),
    f"DELETE {REPOSITORY}/trustData": Row("manage", before=_signed, destroys=True),
    f"DELETE {REPOSITORY}/trustData/{{tag}}": Row("manage", path={"tag": "gone"}, before=_signed, destroys=True),
    f"GET {REPOSITORY}/manifests": Row("see"),
    f"GET {REPOSITORY}/manifests/{{reference}}": Row("see"),
    f"GET {REPOSITORY}/manifests/{{reference}}/attachments": Row("see"),
    f"GET {REPOSITORY}/manifests/{{reference}}/files/{{digest}}": Row("pull", before=_layer),
    f"DELETE {REPOSITORY}/manifests/{{reference}}": Row("write", path={"reference": "OTHER"}, before=_manifest),
    # --- what was granted
    f"GET {REPOSITORY}/teamAccess": Row("look at", in_organization=True),
    f"PUT {REPOSITORY}/teamAccess/{{teamname}}": Row(
        "manage", {"accessLevel": "read-only"}, path={"teamname": "spare"}, before=_team, in_organization=True
    ),
    f"DELETE {REPOSITORY}/teamAccess/{{teamname}}": Row("manage", in_organization=True),
    f"GET {REPOSITORY}/userAccess": Row("look at"),
    f"GET {REPOSITORY}/access": Row("look at"),
    f"GET {REPOSITORY}/access/{{username}}": Row("why", path={"username": "paul"}),
    f"GET {REPOSITORY}/grants": Row("look at"),
    f"PUT {REPOSITORY}/userAccess/{{username}}": Row("manage", {"accessLevel": "read-only"}),
    f"DELETE {REPOSITORY}/userAccess/{{username}}": Row("manage"),
    f"GET {NAMESPACE}/teamAccess": Row("member"),
    f"GET {NAMESPACE}/teamAccess/{{teamname}}": Row("namespace's", path={"teamname": "namespace"}),
    f"PUT {NAMESPACE}/teamAccess/{{teamname}}": Row(
        "namespace", {"accessLevel": "read-only"}, path={"teamname": "spare"}, before=_team
    ),
    f"DELETE {NAMESPACE}/teamAccess/{{teamname}}": Row("namespace"),
    f"GET {NAMESPACE}/userAccess": Row("member"),
    f"GET {NAMESPACE}/grants": Row("member"),
    f"PUT {NAMESPACE}/userAccess/{{username}}": Row("namespace", {"accessLevel": "read-only"}),
    f"DELETE {NAMESPACE}/userAccess/{{username}}": Row("namespace"),
    "GET /api/v0/accounts/{orgname}/teams/{teamname}/repositoryAccess": Row("teams' and above"),
    "GET /api/v0/accounts/{username}/repositoryAccess/{namespace}/{reponame}": Row(
        "paul at", path={"username": "paul"}, in_organization=True
    ),
    # --- search
    "GET /api/v0/index/repositories": Row("found"),
    "GET /api/v0/index/repositories/named": Row("found", query={"repository": "acme/public"}),
    "GET /api/v0/index/owners": Row("found"),
    "GET /api/v0/index/images": Row("found", query={"query": "a:v1"}),
    "GET /api/v0/index/namespaces": Row("logged in"),
    "GET /api/v0/accounts/{username}/pinnedRepositories": Row("self or auditor", path={"username": "paul"}),
    "GET /api/v0/accounts/{username}/pinnedRepositories/{namespace}/{reponame}": Row(
        "paul at", path={"username": "paul"}, in_organization=True
    ),
    "PUT /api/v0/accounts/{username}/pinnedRepositories/{namespace}/{reponame}": Row(
        "paul's", path={"username": "paul"}, in_organization=True
    ),
    "DELETE /api/v0/accounts/{username}/pinnedRepositories/{namespace}/{reponame}": Row(
        "paul's", path={"username": "paul"}, in_organization=True
    ),
    "GET /api/v0/index/autocomplete": Row("found", query={"query": "a"}),
    "GET /api/v0/index/dockersearch": Row("found", query={"q": "a"}),
    # --- the installation
    f"GET {REPOSITORY}/mirroringPolicies": Row("policies"),
    f"DELETE {REPOSITORY}/mirroringPolicies": Row("manage", [{"id": "none"}]),
    f"GET {REPOSITORY}/mirroringPolicies/{{mirroringpolicyid}}/tags": Row(
        "policies", before=_mirroring_policy("push")
    ),
    f"POST {REPOSITORY}/mirroringPolicies/{{mirroringpolicyid}}/run": Row(
        "manage", before=_mirroring_policy("poll")
    ),
    f"POST {REPOSITORY}/mirroringPolicies/{{mirroringpolicyid}}/check": Row(
        "manage", before=_mirroring_policy("push")
    ),
    **{
        f"{method} {REPOSITORY}/{kind}MirroringPolicies{rest}": row
        for kind in ("push", "poll")
        for method, rest, row in (
            ("GET", "", Row("policies")),
            ("POST", "", Row("manage", MIRROR)),
            ("POST", "/test", Row("manage", MIRROR)),
            (
                "GET",
                f"/{{{kind}mirroringpolicyid}}",
                Row("policies", before=_mirroring_policy(kind)),
            ),
            (
                "PUT",
                f"/{{{kind}mirroringpolicyid}}",
                Row("manage", {"tagTemplate": "x-%n"}, before=_mirroring_policy(kind)),
            ),
            ("DELETE", f"/{{{kind}mirroringpolicyid}}", Row("manage", before=_mirroring_policy(kind))),
        )
    },
    f"POST {REPOSITORY}/tags/{{tag}}/pushMirroring": Row("mirror", MIRROR),
    f"GET {REPOSITORY}/pruningPolicies": Row("policies"),
    f"POST {REPOSITORY}/pruningPolicies": Row("manage", PRUNING),
    f"POST {REPOSITORY}/pruningPolicies/test": Row("manage", PRUNING),
    f"GET {REPOSITORY}/pruningPolicies/{{pruningpolicyid}}": Row("policies", before=_pruning_policy),
    f"PUT {REPOSITORY}/pruningPolicies/{{pruningpolicyid}}": Row("manage", PRUNING, before=_pruning_policy),
    f"POST {REPOSITORY}/pruningPolicies/{{pruningpolicyid}}/run": Row("manage", before=_pruning_policy),
    f"DELETE {REPOSITORY}/pruningPolicies/{{pruningpolicyid}}": Row("manage", before=_pruning_policy),
    f"GET {REPOSITORY}/promotionPolicies": Row("policies"),
    f"POST {REPOSITORY}/promotionPolicies": Row("manage", PROMOTION, in_organization=True),
    f"POST {REPOSITORY}/promotionPolicies/test": Row("manage", PROMOTION, in_organization=True),
    f"GET {REPOSITORY}/promotions": Row("look at"),
    f"GET {REPOSITORY}/promotionPolicies/{{promotionpolicyid}}/waiting": Row("look at", before=_promotion_policy),
    f"GET {REPOSITORY}/promotionPolicies/{{promotionpolicyid}}": Row("policies", before=_promotion_policy),
    f"PUT {REPOSITORY}/promotionPolicies/{{promotionpolicyid}}": Row(
        "manage", PROMOTION, before=_promotion_policy, in_organization=True
    ),
    f"DELETE {REPOSITORY}/promotionPolicies/{{promotionpolicyid}}": Row("manage", before=_promotion_policy),
    f"GET {REPOSITORY}/upstream": Row("policies", before=_upstream, destroys=True),
    f"PUT {REPOSITORY}/upstream": Row(
        "cache", UPSTREAM, before=_remote_of_caches, destroys=True, in_organization=True
    ),
    f"DELETE {REPOSITORY}/upstream": Row("manage", before=_upstream, destroys=True),
    **{
        f"{method} {place}/enforcement{rest}": Row(right, body, before=make(place) if make else None)
        for place, see, edit in (
            (REPOSITORY, "policies", "manage"),
            (NAMESPACE, "member", "namespace"),
            ("/api/v0", "auditor", "administrator"),
        )
        for method, rest, right, body, make in (
            ("GET", "", see, None, partial(_enforcement_of, excepts=False)),
            ("PUT", "", edit, {"mode": "off"}, None),
            ("POST", "/exceptions", edit, EXCEPTION, partial(_enforcement_of, excepts=False)),
            ("DELETE", "/exceptions/{exceptionid}", edit, None, partial(_enforcement_of, excepts=True)),
            ("POST", "/report", edit, {"mode": "report"}, None),
            ("DELETE", "", edit, None, None),
        )
    },
    f"GET {NAMESPACE}/upstream": Row("member", before=_namespace_upstream),
    f"PUT {NAMESPACE}/upstream": Row("namespace", UPSTREAM, before=_remote_of_caches),
    f"DELETE {NAMESPACE}/upstream": Row("namespace", before=_namespace_upstream),
    "POST /api/v0/remote/registry": Row("any user", REGISTRY, before=_registry),
    "GET /api/v0/remotes": Row("remotes of one", query={"namespace": "acme"}),
    "POST /api/v0/remotes": Row("owner", REMOTE, before=_no_remote),
    "GET /api/v0/remotes/{remote}": Row("see remote", before=_remote),
    "PATCH /api/v0/remotes/{remote}": Row("manage remote", {"username": "bot"}, before=_remote),
    "DELETE /api/v0/remotes/{remote}": Row("manage remote", before=_remote),
    "POST /api/v0/remotes/{remote}/check": Row("use remote", REGISTRY, before=_remote),
    "GET /api/v0/signingIdentities": Row("member", query={"namespace": "acme"}),
    "GET /api/v0/signingIdentities/{identity}": Row("member", query={"namespace": "acme"}, before=_identity),
    "PUT /api/v0/signingIdentities/{identity}": Row("owner", IDENTITY, query={"namespace": "acme"}),
    "DELETE /api/v0/signingIdentities/{identity}": Row("owner", query={"namespace": "acme"}, before=_identity),
    f"GET {REPOSITORY}/signatures/{{reference}}": Row("see"),
    f"POST {REPOSITORY}/signatures/{{reference}}": Row("write"),
    "GET /api/v0/webhooks": Row("any user"),
    "POST /api/v0/webhooks": Row("manage private", WEBHOOK),
    "POST /api/v0/webhooks/test": Row("any user", TEST, before=_receiver),
    "POST /api/v0/webhooks/update": Row("manage private", UPDATE, before=_webhook),
    "GET /api/v0/webhooks/{webhook}": Row("manage private", before=_webhook),
    "POST /api/v0/webhooks/{webhook}/test": Row("manage private", before=_webhook),
    "DELETE /api/v0/webhooks/{webhook}": Row("manage private", before=_webhook),
    "GET /api/v0/webhooks/{webhook}/deliveries/{delivery}": Row("manage private", before=_delivery),
    "GET /api/v0/webhooks/{webhook}/deliveries": Row("manage private", before=_webhook),
    "POST /api/v0/webhooks/{webhook}/deliveries/{delivery}/redeliver": Row("manage private", before=_delivery),
    "GET /api/v0/accounts/{namespace}/webhooks": Row("namespace"),
    f"GET {REPOSITORY}/webhooks": Row("manage"),
    "GET /api/v0/jobs": Row("auditor"),
    "POST /api/v0/jobs": Row("administrator", {"action": "sleep", "scheduledAt": "2100-01-01T00:00:00Z"}),
    "GET /api/v0/actions": Row("auditor"),
    "GET /api/v0/jobs/counts": Row("auditor"),
    "GET /api/v0/jobs/{jobID}": Row("auditor", before=_job),
    "DELETE /api/v0/jobs/{jobID}": Row("administrator", before=_job),
    "POST /api/v0/jobs/{jobID}/cancel": Row("administrator", before=_job),
    "POST /api/v0/jobs/{jobID}/retry": Row("administrator", before=_canceled_job),
    "GET /api/v0/jobs/{jobID}/logs": Row("auditor", before=_job),
    "GET /api/v0/crons": Row("auditor"),
    "POST /api/v0/crons": Row("administrator", {"action": "sleep", "schedule": "@yearly"}),
    "GET /api/v0/crons/{action}": Row("auditor", path={"action": "sleep"}, before=_cron),
    "DELETE /api/v0/crons/{action}": Row("administrator", path={"action": "sleep"}, before=_cron),
    "GET /api/v0/action_configs": Row("auditor"),
    "POST /api/v0/action_configs": Row("administrator", {"action": "sleep", "parameters": {}}),
    "GET /api/v0/action_configs/{action}": Row("auditor", path={"action": "sleep"}, before=_action_config),
    "DELETE /api/v0/action_configs/{action}": Row(
        "administrator", path={"action": "sleep"}, before=_action_config
    ),
    "GET /api/v0/workers": Row("auditor"),
    "POST /api/v0/workers/{id}/capacity": Row("administrator", {"capacityMap": {}}, before=_worker),
    "GET /api/v0/admin/settings/registry": Row("auditor"),
    "PUT /api/v0/admin/settings/registry": Row("administrator", DOCUMENT),
    "GET /api/v0/admin/settings/registry/simple": Row("auditor"),
    "PUT /api/v0/admin/settings/registry/simple": Row("administrator", DOCUMENT),
    "GET /api/v0/admin/storages": Row("auditor"),
    "GET /api/v0/admin/storages/{storage}": Row("auditor"),
    "PUT /api/v0/admin/storages/{storage}": Row("administrator", STORAGE, path={"storage": "gone"}),
    "DELETE /api/v0/admin/storages/{storage}": Row("administrator", path={"storage": "gone"}, before=_storage),
    "POST /api/v0/admin/storages/{storage}/check": Row("administrator"),
    "POST /api/v0/admin/storages/{storage}/test": Row("administrator", STORAGE, path={"storage": "gone"}),
    "PUT /api/v0/admin/storages/{storage}/default": Row("administrator"),
    "PUT /api/v0/admin/storages/{storage}/namespaces/{namespace}": Row("administrator"),
    "DELETE /api/v0/admin/storages/{storage}/namespaces/{namespace}": Row("administrator"),
    "POST /api/v0/admin/storages/{storage}/migration": Row("administrator", {}),
    "GET /api/v0/meta/alerts": Row("auditor"),
    "GET /api/v0/meta/cluster_status": Row("auditor"),
    "GET /api/v0/meta/health": Row("auditor"),
    "GET /api/v0/meta/usage": Row("auditor"),
    "GET /api/v0/meta/garbage": Row("auditor"),
    "GET /api/v0/meta/certificate": Row("auditor"),
    "GET /api/v0/meta/settings": Row("auditor"),
    "POST /api/v0/meta/settings": Row("administrator", {}),
    "GET /api/v0/meta/features": Row("any user"),
}

# --- the calls ------------------------------------------------------------------------------------------------

TARGETS = ("acme/private", "acme/public", "pia/private")
PARAMETERS = {
    "account": "acme",
    "org": "acme",
    "orgname": "acme",
    "team": "idle",
    "teamname": "idle",
    "storage": "default",
    "user": "spare",
    "username": "spare",
    "robot": "bot",
    "tag": "v1",
    "reference": "v1",
    "identity": "release",
    "namespace": "acme",
}


def _expected() -> dict[str, dict[str, str]]:
    lines = [line for line in RIGHTS.splitlines() if line.strip()]
    people = lines[0].split()
    assert people == list(PEOPLE)
    found = {}
    for line in lines[1:]:
        words = line.split()
        found[" ".join(words[: -len(people)])] = dict(zip(people, words[-len(people) :], strict=True))
    return found


EXPECTED = _expected()


def expected(row: Row, target: str | None) -> dict[str, str]:
    """What each person gets."""
    if target is None or row.right in EXPECTED:
        return EXPECTED[row.right]
    wanted = EXPECTED[f"{row.right} {target.partition('/')[2].partition('-')[0]}"]
    if target.startswith("acme/"):
        return wanted
    stranger = wanted["Au"]
    return {**wanted, "O": wanted["P"], "P": wanted["O"], "Ro": stranger, "Sc": stranger}


def got(answer: Answer) -> str:
    return "+" if answer.status < 300 else str(answer.status)


OPERATIONS = {one.name: one for one in operations(ours())}


@pytest.fixture(scope="module")
def world(api: Api) -> Iterator[World]:
    with receiving() as receiver:
        yield World(api, receiver)


def test_the_matrix_has_every_operation():
    assert sorted(OPERATIONS.keys() - MATRIX.keys()) == [], "not in the matrix"
    assert sorted(MATRIX.keys() - OPERATIONS.keys()) == [], "not in the program"


COUNTED = {"cases": 0}


@pytest.mark.parametrize("name", [name for name in MATRIX if name in OPERATIONS])
def test_everybody_gets_what_the_matrix_says(world: World, name: str):
    differences = []
    targets = [one for one in TARGETS if one.startswith("acme/") or not MATRIX[name].in_organization]
    for target in targets if "{reponame}" in name else (None,):
        differences += _differences(world, OPERATIONS[name], MATRIX[name], target)
    assert differences == []


def _differences(world: World, operation: Operation, row: Row, target: str | None) -> list[str]:
    differences = []
    paths = world.disposable(target) if row.destroys and target else {}
    for who, wanted in expected(row, target).items():
        if not row.credentials and who != "An":
            continue
        if row.before is not None:
            row.before(world, paths.get(who, target or ""))
        path = _path(world, operation, row, paths.get(who, target))
        COUNTED["cases"] += 1
        headers = {}
        if who == "In":  # wrong credentials each time: not from one address, and in nobody's name
            count = COUNTED["cases"]
            bearer = f"Bearer {world.users[who].client.password}"
            headers = {"X-Forwarded-For": f"10.0.{count >> 8}.{count & 255}", "Authorization": bearer}
        answer = world.users[who].call(operation.method, path, row.body, headers, **row.query)
        if got(answer) != wanted:
            said = answer.body[:200].decode(errors="replace")
            differences.append(f"{who} ({target}): {got(answer)} instead of {wanted}: {said}")
    return differences


def _path(world: World, operation: Operation, row: Row, target: str | None) -> str:
    values = {**PARAMETERS, "key_id": KEY_ID, **world.ids, **row.path}
    if target is not None:
        values["namespace"], _, values["reponame"] = target.partition("/")
    path = operation.path
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", world.other.digest if value == "OTHER" else value)
    assert "{" not in path
    return path


def test_the_number_of_cases_is_told(world: World, record_property: Callable[[str, object], None]):
    """Behind the others."""
    record_property("cases", COUNTED["cases"])
    print(json.dumps(COUNTED))
