"""
The contract, as a server with data keeps it: answers have the fields of DTR's definitions, refusals its codes.

That everything is described alike is in tests/contract/api/test_contract.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema_rs
import pytest
from tests.contract.api.test_contract import BUILT, NEVER, OPEN_PROPERTIES, THEIRS
from tests.support.api import Api
from tests.support.client import Answer
from tests.support.contract import dtr, resolve
from tests.support.images import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Image, descriptor, digest_of, make_tar
from tests.support.receiver import Receiver, receiving
from tests.support.server import PASSWORD

SETTINGS = {"webhooks.allowed_networks": "127.0.0.1/32", "mirroring.allowed_networks": "127.0.0.1/32"}

# --- DTR's definitions as JSON schemas ------------------------------------------------------------------------


def _strict(schema: Any) -> Any:
    """A schema of Swagger 2 as one of JSON: what is not required may be null, and dates are checked."""
    if not isinstance(schema, dict):
        return schema
    made = {key: value for key, value in schema.items() if key in {"$ref", "type", "enum", "required"}}
    if schema.get("format") == "date-time":
        made["format"] = "date-time"
    if "items" in schema:
        made["items"] = _strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = _strict(schema["additionalProperties"])
    if "properties" in schema:
        required = schema.get("required", ())
        made["properties"] = {
            name: _strict(one) if name in required else {"anyOf": [_strict(one), {"type": "null"}]}
            for name, one in schema["properties"].items()
        }
    return made


DEFINITIONS = {name: _strict(one) for name, one in dtr()["definitions"].items()}


def _problems(schema: dict[str, Any], document: Any) -> list[str]:
    validator = jsonschema_rs.Draft202012Validator(
        {**_strict(schema), "definitions": DEFINITIONS}, validate_formats=True
    )
    return [f"{'/'.join(map(str, one.instance_path))}: {one.message}" for one in validator.iter_errors(document)]


def _seen(schema: dict[str, Any], document: Any, record: str = "") -> Iterator[tuple[str, str]]:
    """The documented properties that a document has, by the names of their definitions."""
    record = schema.get("$ref", record).rpartition("/")[2]
    schema = resolve(dtr(), schema)
    if isinstance(document, list):
        for one in document:
            yield from _seen(schema.get("items", {}), one, record)
    if isinstance(document, dict):
        for name, one in document.items():
            if name in schema.get("properties", {}):
                yield record, name
                yield from _seen(schema["properties"][name], one, f"{record}.{name}")
            elif isinstance(schema.get("additionalProperties"), dict):
                yield from _seen(schema["additionalProperties"], one, f"{record}.*")


def _documented(schema: dict[str, Any], record: str = "", above: frozenset[str] = frozenset()) -> Iterator[Any]:
    """All properties that are documented below a schema."""
    record = schema.get("$ref", record).rpartition("/")[2]
    if record in above or record in OPEN_RECORDS:
        return
    schema = resolve(dtr(), schema)
    above |= {record}
    if "items" in schema:
        yield from _documented(schema["items"], record, above - {record})
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _documented(schema["additionalProperties"], f"{record}.*", above)
    for name, one in schema.get("properties", {}).items():
        yield record, name
        yield from _documented(one, f"{record}.{name}", above)


OPEN_RECORDS = {
    "responses.OldScanSummary",
    "responses.Component",
    "responses.License",
    "schema.ScannerComponent",
    "schema.ScannerLicense",
}
"""What is of engines that are not there yet."""

FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar"

# --- what there is, and what is called ------------------------------------------------------------------------


def _image() -> Image:
    layers = (make_tar("a", b"a"), make_tar("b", b"b"))
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "os.version": "1.0",
            "author": "Ada",
            "created": "2024-05-06T07:08:09Z",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(one) for one in (*layers, b"elsewhere")]},
            "history": [
                {"created": "2024-05-06T07:08:09Z", "created_by": "COPY a /"},
                {"created": "2024-05-06T07:08:09Z", "created_by": "COPY b /"},
                {"created": "2024-05-06T07:08:09Z", "created_by": "COPY elsewhere /"},
                {"created": "2024-05-06T07:08:09Z", "created_by": 'CMD ["sh"]', "empty_layer": True},
            ],
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config),
        "layers": [descriptor(OCI_LAYER, one) for one in layers]
        + [descriptor(FOREIGN_LAYER, b"elsewhere", urls=["https://example.org/layer"])],
    }
    return Image(json.dumps(manifest).encode(), OCI_MANIFEST, (config, *layers))


PATH = {
    "namespace": "acme",
    "reponame": "app",
    "orgname": "acme",
    "teamname": "devs",
    "username": "ada",
    "tag": "v1",
    "reference": "v1",
    "action": "onlinegc",
}


@dataclass(frozen=True)
class Call:
    """How an operation is called when all goes well; what is not said of the path is in `PATH`."""

    path: dict[str, str] | None = None
    query: dict[str, Any] | None = None
    body: Any = None
    patient: bool = False
    """Until there is something: a job is done, settings have reached every process."""


PRUNING = "/api/v0/repositories/{namespace}/{reponame}/pruningPolicies"
OLD = {"field": "tag", "operator": "eq", "values": ["old"]}
WEBHOOK = {"type": "TAG_PUSH", "key": "acme/app", "endpoint": "https://receiver.example/"}
TEST: dict[str, Any] = {"type": "TAG_PUSH", "skipTLSVerification": True}
UPDATE: dict[str, Any] = {"inactive": True}
PROMOTIONS = "/api/v0/repositories/{namespace}/{reponame}/promotionPolicies"
PROMOTE = {"rules": [OLD], "targetRepository": "acme/more", "tagTemplate": "%n", "enabled": False}
MIRRORS = "/api/v0/repositories/{namespace}/{reponame}/mirroringPolicies"
PUSHES = "/api/v0/repositories/{namespace}/{reponame}/pushMirroringPolicies"
POLLS = "/api/v0/repositories/{namespace}/{reponame}/pollMirroringPolicies"
REMOTE: dict[str, Any] = {
    "remoteRepository": "acme/more",
    "remoteCA": "",
    "skipTLSVerification": True,
    "username": "admin",
    "password": PASSWORD,
    "authToken": "",
    "remoteTag": "mirrored",
    "rules": [OLD],
    "tagTemplate": "%n",
    "enabled": False,
}
"""The server itself, and a policy that has to do with it."""
CALLS = {
    # Each once, in this order: what makes comes before what looks, and what deletes last.
    "POST /api/v0/repositories/{namespace}": Call(body={"name": "made", "visibility": "public", "tagLimit": 3}),
    "PATCH /api/v0/repositories/{namespace}/{reponame}": Call(
        {"reponame": "made"},
        body={"shortDescription": "made here", "longDescription": "# Made", "scanOnPush": True},
    ),
    "GET /api/v0/repositories/{namespace}/{reponame}": Call(),
    "GET /api/v0/repositories": Call(query={"count": True}),
    "GET /api/v0/repositories/{namespace}": Call(query={"pageSize": 1, "count": True}),
    "PUT /api/v0/repositories/{namespace}/{reponame}/teamAccess/{teamname}": Call(
        body={"accessLevel": "read-write"}
    ),
    "GET /api/v0/repositories/{namespace}/{reponame}/teamAccess": Call(),
    "PUT /api/v0/repositoryNamespaces/{namespace}/teamAccess/{teamname}": Call(body={"accessLevel": "read-only"}),
    "GET /api/v0/repositoryNamespaces/{namespace}/teamAccess/{teamname}": Call(),
    "GET /api/v0/repositoryNamespaces/{namespace}/teamAccess": Call(),
    "GET /api/v0/accounts/{orgname}/teams/{teamname}/repositoryAccess": Call(),
    "GET /api/v0/accounts/{username}/repositoryAccess/{namespace}/{reponame}": Call(),
    "PATCH /api/v0/accounts/{username}/settings": Call(body={"language": "ja"}),
    "GET /api/v0/accounts/{username}/settings": Call(),
    "GET /api/v0/accounts/language": Call(),
    "POST /api/v0/api_tokens": Call(query={"username": "ada"}, body={"tokenLabel": "made"}),
    "GET /api/v0/api_tokens": Call(query={"username": "ada"}),
    "GET /api/v0/api_tokens/{hashedtoken}": Call(),
    "PATCH /api/v0/api_tokens/{hashedtoken}": Call(body={"tokenLabel": "renamed", "isActive": False}),
    "DELETE /api/v0/api_tokens/{hashedtoken}": Call(),
    "DELETE /api/v0/api_tokens": Call(query={"username": "ada", "usedbefore": "2030-01-01"}),
    "POST /api/v0/repositories/{namespace}/{reponame}/tags/{tag}/promotion": Call(
        body={"targetRepository": "acme/app", "targetTag": "promoted"}
    ),
    "POST /api/v0/repositories/{namespace}/{reponame}/tags/{tag}/pushMirroring": Call(body=REMOTE),
    "GET /api/v0/repositories/{namespace}/{reponame}/tags": Call(query={"includeManifests": True}),
    "GET /api/v0/repositories/{namespace}/{reponame}/tags/{reference}": Call(
        {"reference": "promoted"}, query={"domain": "x"}
    ),
    "GET /api/v0/repositories/{namespace}/{reponame}/manifests": Call(),
    "GET /api/v0/repositories/{namespace}/{reponame}/events": Call(),
    "GET /api/v0/events": Call(query={"pageSize": 1000}),
    "GET /api/v0/index/autocomplete": Call(
        query={"query": "a", "includeRepositories": True, "includeAccounts": True}
    ),
    "GET /api/v0/index/dockersearch": Call(query={"q": "app"}),
    f"POST {PRUNING}": Call(body={"rules": [OLD], "enabled": True}),
    f"POST {PRUNING}/test": Call(body={"rules": [{**OLD, "values": ["v1"]}], "enabled": True}),
    f"GET {PRUNING}": Call(),
    f"GET {PRUNING}/{{pruningpolicyid}}": Call(),
    f"PUT {PRUNING}/{{pruningpolicyid}}": Call(body={"enabled": False}),
    f"DELETE {PRUNING}/{{pruningpolicyid}}": Call(),
    "POST /api/v0/webhooks": Call(body=WEBHOOK),
    "POST /api/v0/webhooks/test": Call(body=TEST),
    "POST /api/v0/webhooks/update": Call(body=UPDATE),
    "GET /api/v0/webhooks": Call(query={"webhookType": "TAG_PUSH"}),
    "GET /api/v0/repositories/{namespace}/{reponame}/webhooks": Call(),
    "GET /api/v0/accounts/{namespace}/webhooks": Call(),
    "DELETE /api/v0/webhooks/{webhook}": Call(),
    "POST /api/v0/remote/registry": Call(body=REMOTE),
    f"POST {PUSHES}": Call(body=REMOTE),
    f"GET {PUSHES}": Call(),
    f"GET {PUSHES}/{{pushmirroringpolicyid}}": Call(),
    f"PUT {PUSHES}/{{pushmirroringpolicyid}}": Call(body={"tagTemplate": "new-%n"}),
    f"POST {POLLS}": Call(body=REMOTE),
    f"GET {POLLS}": Call(),
    f"GET {POLLS}/{{pollmirroringpolicyid}}": Call(),
    f"PUT {POLLS}/{{pollmirroringpolicyid}}": Call(body={"enabled": False}),
    f"GET {MIRRORS}": Call(query={"count": True}),
    f"DELETE {MIRRORS}": Call(body=[{"id": "none"}]),
    f"DELETE {PUSHES}/{{pushmirroringpolicyid}}": Call(),
    f"DELETE {POLLS}/{{pollmirroringpolicyid}}": Call(),
    f"POST {PROMOTIONS}": Call(body=PROMOTE),
    f"GET {PROMOTIONS}": Call(),
    f"GET {PROMOTIONS}/{{promotionpolicyid}}": Call(),
    f"PUT {PROMOTIONS}/{{promotionpolicyid}}": Call(body={"tagTemplate": "new-%n"}),
    f"DELETE {PROMOTIONS}/{{promotionpolicyid}}": Call(),
    "DELETE /api/v0/repositories/{namespace}/{reponame}/tags/{tag}": Call(),
    "DELETE /api/v0/repositories/{namespace}/{reponame}/manifests/{reference}": Call({"reference": "DIGEST"}),
    "DELETE /api/v0/repositories/{namespace}/{reponame}/teamAccess/{teamname}": Call(),
    "DELETE /api/v0/repositoryNamespaces/{namespace}/teamAccess/{teamname}": Call(),
    "POST /api/v0/repositories/scan/toggle": Call(body={"scanOnPush": False}),
    "DELETE /api/v0/repositories/{namespace}/{reponame}": Call({"reponame": "made"}),
    "DELETE /api/v0/accounts/{namespace}/repositories": Call({"namespace": "ada"}),
    "DELETE /api/v0/accounts/{namespace}": Call({"namespace": "gone"}),
    "POST /api/v0/action_configs": Call(body={"action": "onlinegc", "parameters": {"dryRun": "true"}}),
    "GET /api/v0/action_configs": Call(),
    "GET /api/v0/action_configs/{action}": Call(),
    "DELETE /api/v0/action_configs/{action}": Call(),
    "POST /api/v0/crons": Call(body={"action": "onlinegc", "schedule": "0 0 1 * * 6", "capacityMap": {"gc": 1}}),
    "GET /api/v0/crons": Call(),
    "GET /api/v0/crons/{action}": Call(),
    "DELETE /api/v0/crons/{action}": Call(),
    "POST /api/v0/jobs": Call(body={"action": "false", "parameters": {"why": "to see it"}}),
    "GET /api/v0/jobs": Call(),
    "GET /api/v0/jobs/{jobID}": Call(),
    "GET /api/v0/jobs/{jobID}/logs": Call(patient=True),
    "POST /api/v0/jobs/{jobID}/cancel": Call(),
    "DELETE /api/v0/jobs/{jobID}": Call(),
    "GET /api/v0/workers": Call(),
    "POST /api/v0/workers/{id}/capacity": Call(body={"capacityMap": {"gc": 1}}),
    # Nothing can be deleted any more, and somebody is alerted.
    "POST /api/v0/meta/settings": Call(body={"readOnlyRegistry": True}),
    "GET /api/v0/meta/settings": Call(),
    "GET /api/v0/meta/features": Call(),
    "GET /api/v0/meta/alerts": Call(patient=True),
    "GET /api/v0/meta/cluster_status": Call(),
}


class World:
    """A server with data, and the calls on it."""

    def __init__(self, api: Api, receiver: Receiver) -> None:
        self.api = api
        self.answers: dict[str, Answer] = {}
        api.make_users("ada", "bob", "carl")
        for name in ("acme", "gone", "other"):
            api.make_organization(name, owners=("ada",))
        api.make_team("acme/devs", "bob")
        api.make_team("acme/idle")
        api.make_team("other/strangers")
        for path in ("acme/app", "acme/more", "ada/own", "gone/app"):
            api.make_repository(path)
        api.make_repository("acme/public", visibility="public")
        api.grant("acme/devs", "read-only")
        image = _image()
        api.admin.client.push("acme/app", image, "v1")
        api.admin.client.push("acme/app", image, "v2")
        self.digest = image.digest
        api.make_repository("acme/signed")
        api.admin.client.push("acme/signed", image, "v1")
        api.sign("acme/signed", "v1", image.digest)
        made = api.as_("ada").post("/api/v0/api_tokens", {"tokenLabel": "hers"}).expect(200)
        scope = {"repositories": ["acme/*"], "actions": ["pull"]}
        scoped = api.as_("ada").post("/api/v0/api_tokens", {"scope": scope}).expect(200)
        worker = api.admin.get("/api/v0/workers").expect(200).json["workers"][0]
        job = api.admin.post("/api/v0/jobs", {"action": "false"}).expect(202)
        policy = api.admin.post(
            "/api/v0/repositories/acme/app/pruningPolicies", {"rules": [OLD], "enabled": False}
        )
        promotion = api.admin.post("/api/v0/repositories/acme/app/promotionPolicies", PROMOTE)
        REMOTE["remoteHost"] = f"https://127.0.0.1:{api.server.port}"
        places = {kind: f"/api/v0/repositories/acme/app/{kind}MirroringPolicies" for kind in ("push", "poll")}
        promoted = {"targetRepository": "acme/app", "targetTag": "promoted"}
        api.admin.post("/api/v0/repositories/acme/app/tags/v1/promotion", promoted).expect(201)
        self._mirror("promoted")
        self.found = {
            **{
                f"{kind}mirroringpolicyid": api.admin.post(place, REMOTE).expect(201).json["id"]
                for kind, place in places.items()
            },
            "promotionpolicyid": promotion.expect(201).json["id"],
            "pruningpolicyid": policy.expect(201).json["id"],
            "webhook": api.admin.post("/api/v0/webhooks", WEBHOOK).expect(200).json[0]["id"],
            "hashedtoken": made.json["hashedToken"],
            "id": worker["id"],
            "jobID": job.json["id"],
        }
        api.admin.post("/api/v0/webhooks", {**WEBHOOK, "key": "acme"}).expect(200)
        UPDATE["id"], TEST["endpoint"] = self.found["webhook"], receiver.url()
        self.scoped = api.as_("ada", scoped.json["token"])

    def _mirror(self, tag: str) -> None:
        """Mirror a tag, to its end."""
        place = f"/api/v0/repositories/acme/app/tags/{tag}"
        self.api.admin.post(f"{place}/pushMirroring", REMOTE).expect(201)
        deadline = time.monotonic() + 60
        while "mirroring" not in self.api.admin.get(place).expect(200).json[0]:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def path(self, name: str, values: dict[str, str] | None = None) -> str:
        given = {**PATH, **self.found, **((CALLS[name].path or {}) if values is None else values)}
        template = THEIRS[name].path
        for parameter, value in given.items():
            template = template.replace(f"{{{parameter}}}", self.digest if value == "DIGEST" else value)
        assert "{" not in template
        return template

    def call_all(self) -> None:
        for name, how in CALLS.items():
            method = THEIRS[name].method
            deadline = time.monotonic() + 60 if how.patient else 0
            while True:
                answer = self.api.admin.call(method, self.path(name), how.body, **(how.query or {}))
                if answer.body != b"[]" or time.monotonic() > deadline:
                    break
                time.sleep(0.1)
            self.answers[name] = answer


@pytest.fixture(scope="module")
def fresh(api: Api) -> Iterator[World]:
    """Nothing was deleted yet: refusals come first."""
    with receiving() as receiver:
        yield World(api, receiver)


@pytest.fixture(scope="module")
def world(fresh: World) -> World:
    fresh.call_all()
    return fresh


# --- refusals -------------------------------------------------------------------------------------------------

NOTHING = {
    "NO_SUCH_ACCOUNT": ("namespace", "orgname", "username"),
    "NO_SUCH_USER": ("username",),
    "NO_SUCH_TEAM": ("teamname",),
    "NO_SUCH_REPOSITORY": ("reponame",),
    "NO_SUCH_TAG": ("tag",),
    "NO_SUCH_REF": ("reference",),
    "NO_SUCH_API_TOKEN": ("hashedtoken",),
    "NO_SUCH_NAMESPACE_TEAM_ACCESS": ("teamname",),
    "NO_SUCH_PROMOTION_POLICY": ("promotionpolicyid",),
    "NO_SUCH_PRUNING_POLICY": ("pruningpolicyid",),
    "NO_SUCH_PUSH_MIRRORING_POLICY": ("pushmirroringpolicyid",),
    "NO_SUCH_POLL_MIRRORING_POLICY": ("pollmirroringpolicyid",),
    "NO_SUCH_WEBHOOK": ("webhook",),
}
"""The parameter that names what is not there."""
BODIES = {
    "INVALID_USER_SETTINGS": {"language": "tlh"},
    "INVALID_REPOSITORY_VISIBILITY": {"visibility": "secret"},
    "INVALID_SETTINGS": {"repoEventHistoryMaxAge": "soon"},
    "REPOSITORY_EXISTS": {"name": "app"},
    "INVALID_TAG_NAME": {"targetRepository": "acme/app", "targetTag": "-", **REMOTE, "remoteTag": "-"},
    "INVALID_PUSH_MIRRORING_POLICY": {**REMOTE, "tagTemplate": "no name"},
    "INVALID_POLL_MIRRORING_POLICY": {**REMOTE, "rules": [{**OLD, "field": "platform"}]},
    "INVALID_PROMOTION_POLICY": {**PROMOTE, "tagTemplate": "no name"},
    "INVALID_PRUNING_POLICY": {"rules": [{**OLD, "field": "mood"}], "enabled": True},
}
OPEN_CODES = {
    "SCANNING_NOT_ENABLED", "SCANNING_DB_NOT_READY", "NO_SUCH_LAYER", "NO_SUCH_CONTENT_CACHE",
}  # fmt: skip
"""Codes of what waits for its engine: of open operations."""
SIGNED = {"REPOSITORY_CONTAINS_TAGS_IN_NOTARY", "TAG_IN_NOTARY"}
"""Codes of what is signed in content trust."""
OF_ANY_USER = {"GET /api/v0/webhooks", "POST /api/v0/webhooks/test"}
REFUSALS = [
    (name, code)
    for name in BUILT
    for status, described in sorted(THEIRS[name].described["responses"].items())
    if status[0] == "4"
    for code in described.get("codes", ())
    if code not in OPEN_CODES and code not in NEVER.get(name, ())
]


@pytest.mark.parametrize(("name", "code"), REFUSALS)
def test_every_documented_refusal_can_be_had(fresh: World, elsewhere: dict[str, str], name: str, code: str):
    how, operation = CALLS[name], THEIRS[name]
    given = {**(how.path or {}), "reponame": "app"}
    caller, method, path = fresh.api.admin, operation.method, fresh.path(name, given)
    body, query = how.body, how.query or {}
    headers: dict[str, str] = {}
    if code == "NOT_AUTHENTICATED":
        caller, headers = fresh.api.anonymous, {"Authorization": "Bearer nonsense", **elsewhere}
    elif code == "NOT_AUTHORIZED" and ("{hashedtoken}" in name or name in OF_ANY_USER):
        caller = fresh.scoped  # others' tokens are not there
    elif code == "NO_SUCH_ACCOUNT" and name == "POST /api/v0/webhooks":
        body = {**WEBHOOK, "key": "nothing"}
    elif code == "NOT_AUTHORIZED" and ("Policies" in name or "pushMirroring" in name):
        caller, path = fresh.api.as_("carl"), fresh.path(name, {**given, "reponame": "public"})  # granted nothing
    elif code == "NOT_AUTHORIZED":
        sees = "repositories/" in name or "webhooks" in name
        caller = fresh.api.as_("bob" if sees else "carl")
    elif code == "NOT_ALLOWED":
        method = "TRACE"
    elif code == "NOT_ACCEPTABLE":
        headers = {"Accept": "image/png"}
    elif code == "UNSUPPORTED_MEDIA_TYPE":
        body, headers = {}, {"Content-Type": "text/plain"}
    elif code == "INVALID_PARAMETERS":
        query = {"pageSize": "many", "usedbefore": "soon"}
    elif code == "INVALID_JSON":
        body = ["no object"]
    elif code == "INVALID_DIGEST":
        path = fresh.path(name, {**given, "reference": "sha256:short"})
    elif code == "REMOTE_REGISTRY_INVALID_PERMISSIONS":
        body = {**REMOTE, "username": "carl"}  # who was granted nothing there
    elif code in SIGNED:
        path = fresh.path(name, {**given, "reponame": "signed"})
    elif code in BODIES:
        body = BODIES[code]
    else:
        value = "idle" if code == "NO_SUCH_NAMESPACE_TEAM_ACCESS" else "nothing"
        if code == "NO_SUCH_REF" and "manifests" in name:
            value = "sha256:" + 64 * "0"
        missing = dict.fromkeys(NOTHING[code], value)
        if "username" in operation.parameters("query"):
            query = {**query, "username": "nothing"}
        path = fresh.path(name, {**given, **missing})
    answer = caller.call(method, path, body, headers, **query)
    expected = next(
        status for status, one in operation.described["responses"].items() if code in one.get("codes", ())
    )
    assert (str(answer.status), answer.codes) == (expected, [code])
    error = answer.json["errors"][0]
    assert error.keys() == {"code", "message", "detail"}
    assert error["message"]


CODES = {
    code
    for operation in THEIRS.values()
    for described in operation.described["responses"].values()
    for code in described.get("codes", ())
}
"""All codes of DTR's documents."""


def test_every_code_of_dtr_is_provoked_or_waits():
    elsewhere = {"INTERNAL_ERROR"}  # test_errors.py
    provoked = {code for _, code in REFUSALS} | elsewhere
    assert sorted(CODES - provoked - OPEN_CODES) == []
    assert sorted(provoked & OPEN_CODES) == []


# --- answers --------------------------------------------------------------------------------------------------


def test_every_operation_is_called():
    assert sorted(CALLS) == sorted(BUILT)


@pytest.mark.parametrize("name", CALLS)
def test_answers_are_as_documented(world: World, name: str):
    operation, answer = THEIRS[name], world.answers[name]
    assert str(answer.status) == (operation.success or "204"), answer.body
    schema = operation.described["responses"].get(str(answer.status), {}).get("schema")
    if schema is not None:
        assert _problems(schema, answer.json) == []


def test_every_documented_property_is_in_an_answer(world: World):
    documented: set[tuple[str, str]] = set()
    seen: set[tuple[str, str]] = set()
    for name, answer in world.answers.items():
        schema = THEIRS[name].described["responses"].get(str(answer.status), {}).get("schema")
        if schema is not None:
            documented.update(_documented(schema))
            seen.update(_seen(schema, answer.json))
    waiting = {one.split(".")[1].split()[0] for one in OPEN_PROPERTIES}
    missing = sorted(one for one in documented - seen if not (one[1] in waiting and "Tag" in one[0]))
    assert missing == [], missing
    assert len(documented) > 100
