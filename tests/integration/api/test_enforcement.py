"""Enforcement on a running server: policies by the API, pulls by the registry's, and what is told of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from tests.support.api import Api, User
from tests.support.backends import run_server
from tests.support.client import Answer
from tests.support.images import Image, make_artifact, make_image, make_index
from tests.support.rooms import annotated
from tests.support.signing import cosign_layer, cosign_signature, make_key, public_pem, signature_tag
from tests.support.wire import wait_until

IMAGE = make_image()
REPOSITORY = "/api/v0/repositories/acme/app/enforcement"
NAMESPACE = "/api/v0/repositoryNamespaces/acme/enforcement"
REGISTRY = "/api/v0/enforcement"
ENFORCED = {"mode": "enforce"}


@pytest.fixture(scope="module")
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One process, which knows a policy as soon as it was set; others learn of it a second later."""
    with run_server("sqlite", request, tmp_path_factory, {}, workers=1) as server:
        yield Api(server)


@pytest.fixture(scope="module", autouse=True)
def people(api: Api) -> None:
    api.make_users("olga", "will", "rita")
    api.make_organization("acme", owners=("olga",), members=("will", "rita"))
    for team, user, level in (("writers", "will", "read-write"), ("readers", "rita", "read-only")):
        api.make_team(f"acme/{team}", user)
        api.grant(f"acme/{team}", level)
    api.make_repository("acme/app")
    api.make_repository("acme/open", visibility="public")


@pytest.fixture(autouse=True)
def nothing_enforced(api: Api) -> Iterator[None]:
    yield
    for place in (REPOSITORY, NAMESPACE, REGISTRY):
        api.admin.delete(place).expect(204)


def enforce(api: Api, place: str, **policy: Any) -> Any:
    """Set a policy."""
    return api.admin.put(place, {**ENFORCED, **policy}).expect(200).json


def pull(user: User, reference: str, path: str = "acme/app", method: str = "GET", **headers: str) -> Answer:
    """A request with a token that is good for pulling, as clients get one for a pull."""
    where = f"/v2/{path}/manifests/{reference}"
    return user.client.call(method, where, headers=headers, scope=f"repository:{path}:pull")


def is_pulled(user: User, reference: str) -> bool:
    return pull(user, reference).status == 200


def push(api: Api, tag: str, image: Image | None = None, path: str = "acme/app") -> str:
    return api.as_("will").client.push(path, image or annotated(IMAGE, tag=tag), tag)


def test_only_what_is_signed_is_pulled_and_the_error_says_why(api: Api):
    unsigned, signed = push(api, "unsigned"), push(api, "signed")
    api.sign("acme/app", "signed", signed)
    rita = api.as_("rita")
    pull(rita, "unsigned").expect(200)
    enforce(api, REPOSITORY)
    for reference in ("signed", signed):
        pull(rita, reference).expect(200)
        pull(rita, reference, method="HEAD").expect(200)
    for reference in ("unsigned", unsigned):
        answer = pull(rita, reference).expect(403)
        assert answer.json["errors"] == [
            {
                "code": "DENIED",
                "message": f"{reference} must not be pulled: the policy of the repository wants a signature of the"
                " image",
                "detail": {"reference": reference, "digest": unsigned},
            }
        ]
        said = pull(rita, reference, method="HEAD").expect(403).headers["warning"]
        assert said == f'299 - "{answer.json["errors"][0]["message"]}"'
        pull(rita, reference, **{"If-None-Match": f'"{unsigned}"'}).expect(403)
    # Rights come first: who may not know of the repository does not learn of its policy.
    pull(api.anonymous, "unsigned").expect(401)
    assert "policy" not in pull(api.anonymous, "unsigned").body.decode()


def test_whoever_pushes_and_signs_is_not_hindered(api: Api):
    enforce(api, NAMESPACE)
    digest = push(api, "fresh", make_image(layers=2))
    will, rita = api.as_("will"), api.as_("rita")
    will.client.get_manifest("acme/app", "fresh").expect(200)
    pull(will, "fresh").expect(403)
    signature = make_artifact("application/vnd.cncf.notary.signature", b"{}", subject=annotated(IMAGE, tag="x"))
    pushed = will.client.push("acme/app", signature)
    pull(rita, pushed).expect(200)
    referrers = f"/v2/acme/app/referrers/{digest}"
    rita.client.call("GET", referrers, scope="repository:acme/app:pull").expect(200)
    pull(rita, "fresh").expect(403)
    api.sign("acme/app", "fresh", digest)
    pull(rita, "fresh").expect(200)


def test_the_strictest_policy_wins_and_each_has_its_exceptions(api: Api):
    image = make_image()
    index = make_index(image)
    digest = push(api, "candidate", index)
    rita = api.as_("rita")
    enforce(api, REGISTRY)
    made = enforce(api, REPOSITORY, signers=["role:targets/releases"])
    assert (made["mode"], made["signers"], made["teams"], made["exceptions"]) == (
        "enforce", ["role:targets/releases"], [], [],
    )  # fmt: skip
    api.sign("acme/app", "candidate", digest)
    message = pull(rita, "candidate").expect(403).json["errors"][0]["message"]
    assert message.endswith("the policy of the repository wants a signature by role:targets/releases")
    form = {"kind": "tag", "value": "cand*", "reason": "to be tried", "expiresAt": "2100-01-01T00:00:00Z"}
    exception = api.as_("olga").post(f"{REPOSITORY}/exceptions", form).expect(201).json
    assert exception["author"] == "olga"
    assert api.as_("olga").get(REPOSITORY).expect(200).json["exceptions"] == [exception]
    pull(rita, "candidate").expect(200)
    pull(rita, image.digest).expect(200)
    api.change("DELETE FROM trust_targets")
    message = pull(rita, "candidate").expect(403).json["errors"][0]["message"]
    assert message.endswith("the policy of the registry wants a signature of the image")
    robots = "/api/v0/accounts/acme/robots"
    api.as_("olga").post(robots, {"name": "scanner"}).expect(201)
    api.as_("olga").put(
        "/api/v0/repositories/acme/app/userAccess/acme+scanner", {"accessLevel": "read-only"}
    ).expect(200)
    secret = api.as_("olga").post(f"{robots}/scanner/tokens", {}).expect(201).json["token"]
    scanner = api.as_("acme+scanner", secret)
    pull(scanner, "candidate").expect(403)
    form = {"kind": "account", "value": "acme+scanner", "reason": "it looks for holes"}
    excepted = api.admin.post(f"{REGISTRY}/exceptions", form).expect(201).json
    assert excepted["value"] == "acme+scanner"
    pull(scanner, "candidate").expect(200)
    pull(rita, "candidate").expect(403)
    api.admin.delete(f"{REGISTRY}/exceptions/{excepted['id']}").expect(204)
    pull(scanner, "candidate").expect(403)


def test_a_renamed_repository_takes_its_namespaces_policy_along_with_its_old_name(api: Api):
    api.make_repository("admin/moved", visibility="public")
    api.admin.client.push("admin/moved", IMAGE, "v1")
    rita = api.as_("rita")
    enforce(api, NAMESPACE)
    pull(rita, "v1", "admin/moved").expect(200)
    api.change("UPDATE repositories SET path = 'acme/moved' WHERE path = 'admin/moved'")
    api.change(
        "UPDATE repositories SET namespace_id = (SELECT id FROM accounts WHERE name = 'acme')"
        " WHERE path = 'acme/moved'"
    )
    api.change(
        "INSERT INTO repository_redirects (path, repository_id, created_at)"
        " SELECT 'admin/moved', id, 1 FROM repositories WHERE path = 'acme/moved'"
    )
    pull(rita, "v1", "acme/moved").expect(403)
    pull(rita, "v1", "admin/moved").expect(403)


def test_what_would_be_refused_is_told_before_it_is(api: Api):
    push(api, "signed", path="acme/open")
    push(api, "unsigned", path="acme/open")
    api.sign(
        "acme/open",
        "signed",
        api.admin.client.get_manifest("acme/open", "signed").headers["docker-content-digest"],
    )
    place = "/api/v0/repositories/acme/open/enforcement/report"
    olga = api.as_("olga")

    def report(place: str, body: Any) -> dict[str, bool]:
        found = {}
        start = None
        while True:
            answer = olga.post(place, body, pageSize=1, pageStart=start).expect(200)
            found |= {f"{one['repository']}:{one['tag']}": one["refused"] for one in answer.json}
            start = answer.headers.get("x-next-page-start")
            if start is None:
                return found

    assert report(place, None) == {"acme/open:signed": False, "acme/open:unsigned": False}
    assert report(place, {"mode": "report"}) == {"acme/open:signed": False, "acme/open:unsigned": True}
    whole = report(f"{NAMESPACE}/report", {"mode": "report"})
    assert whole["acme/open:unsigned"]
    assert any(one.startswith("acme/app:") for one in whole)
    signer = f"key:{'1' * 64}"
    (one, _) = olga.post(place, {"mode": "enforce", "signers": [signer]}).expect(200).json
    assert one["objections"] == [
        {
            "scope": "repository",
            "mode": "enforce",
            "missing": [f"a signature by {signer}"],
            "wants": [{"kind": "signer", "names": [signer]}],
        }
    ]
    pull(api.anonymous, "unsigned", "acme/open").expect(200)
    # The same of real pulls.
    enforce(api, REGISTRY, mode="report")
    pull(api.anonymous, "unsigned", "acme/open").expect(200)
    pull(api.anonymous, "signed", "acme/open").expect(200)

    def told() -> list[Any]:
        answer = olga.get("/api/v0/repositories/acme/open/events", eventType="FAIL").expect(200)
        return [one for one in answer.json["events"] if one["object"]["type"] == "pull"]

    def metrics() -> str:
        return api.admin.client.send("GET", "/metrics").body.decode()

    wait_until(lambda: bool(told()))  # both are written about once a second
    (event,) = told()
    assert json.loads(event["object"]["content"]) == {
        "mode": "report",
        "missing": ["a signature of the image"],
    }
    assert event["object"]["name"] == "unsigned"
    wait_until(lambda: 'dtr_pulls_objected_total{mode="report"} 1.0' in metrics())
    assert 'dtr_pulls_objected_total{mode="enforce"}' in metrics()


def test_what_cannot_be_is_refused(api: Api):
    olga = api.as_("olga")
    assert olga.get(REPOSITORY).expect(404).codes == ["NO_SUCH_ENFORCEMENT_POLICY"]
    form = {"kind": "tag", "value": "*", "reason": "none"}
    assert olga.post(f"{REPOSITORY}/exceptions", form).expect(404).codes == ["NO_SUCH_ENFORCEMENT_POLICY"]
    for body in (
        {"mode": "enforce", "signers": ["somebody"]},
        {"mode": "enforce", "teams": ["acme/nobody"]},
        {"mode": "enforce", "teams": ["nobody"]},
    ):
        assert olga.put(REPOSITORY, body).expect(400).codes == ["INVALID_ENFORCEMENT_POLICY"]
        assert olga.post(f"{REPOSITORY}/report", body).expect(400).codes == ["INVALID_ENFORCEMENT_POLICY"]
    assert olga.put(REPOSITORY, {"mode": "sometimes"}).expect(400).codes == ["INVALID_JSON"]
    olga.put(REPOSITORY, {"mode": "off", "teams": ["acme/readers"]}).expect(200)
    assert olga.post(f"{REPOSITORY}/exceptions", {**form, "reason": ""}).expect(400).codes == [
        "INVALID_ENFORCEMENT_POLICY"
    ]
    for moment in ("2001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        answer = olga.post(f"{REPOSITORY}/exceptions", {**form, "expiresAt": moment}).expect(400)
        assert answer.codes == ["INVALID_ENFORCEMENT_POLICY"]
    account = {"kind": "account", "value": "nobody", "reason": "none"}
    assert olga.post(f"{REPOSITORY}/exceptions", account).expect(404).codes == ["NO_SUCH_ACCOUNT"]
    assert olga.delete(f"{REPOSITORY}/exceptions/none").expect(404).codes == ["NO_SUCH_ENFORCEMENT_EXCEPTION"]


def test_verified_signatures_count_and_can_be_pulled_themselves(api: Api):
    """Signatures of cosign's, with a key that the namespace registers, and with another one."""
    key = make_key()
    form = {"kind": "key", "content": public_pem(key)}
    api.as_("olga").put("/api/v0/signingIdentities/release", form, namespace="acme").expect(200)
    digest, other = push(api, "cosigned"), push(api, "by-another")
    will, rita = api.as_("will"), api.as_("rita")
    enforce(api, REPOSITORY, signers=["identity:acme/release"])
    for signer, signed in ((key, digest), (make_key(), other)):
        signature = cosign_signature(cosign_layer(signer, signed))
        will.client.push("acme/app", signature, signature_tag(signed))
        # It looks like an image until a job has read it.
        wait_until(partial(is_pulled, rita, signature_tag(signed)))
    pull(rita, "cosigned").expect(200)
    pull(rita, digest).expect(200)
    message = pull(rita, "by-another").expect(403).json["errors"][0]["message"]
    assert message.endswith("wants a signature by identity:acme/release")
    api.as_("olga").delete("/api/v0/signingIdentities/release", namespace="acme").expect(204)
    pull(rita, "cosigned").expect(403)


def test_tags_whose_pulls_are_refused_are_marked_and_found(api: Api):
    api.make_repository("acme/many")
    where, tags = "/api/v0/repositories/acme/many", "/api/v0/repositories/acme/many/tags"
    rita = api.as_("rita")
    for number in range(6):
        digest = push(api, f"t{number}", path="acme/many")
        if number % 2:
            api.sign("acme/many", f"t{number}", digest)
    assert rita.get(tags, refused=True).expect(200).json == []
    assert not any("refused" in one for one in rita.get(tags).expect(200).json)
    api.admin.put(f"{where}/enforcement", ENFORCED).expect(200)
    marked = {one["name"]: one.get("refused") for one in rita.get(tags).expect(200).json}
    objection = {
        "scope": "repository",
        "mode": "enforce",
        "missing": ["a signature of the image"],
        "wants": [{"kind": "signature", "names": []}],
    }
    assert marked == {f"t{number}": None if number % 2 else [objection] for number in range(6)}
    assert rita.get(f"{tags}/t2").expect(200).json[0]["refused"] == [objection]
    assert "refused" not in rita.get(f"{tags}/t1").expect(200).json[0]
    first = rita.get(tags, refused=True, pageSize=2, sort="newest", count=True).expect(200)
    assert [one["name"] for one in first.json] == ["t4", "t2"]
    assert "x-resource-count" not in first.headers
    second = rita.get(
        tags, refused=True, pageSize=2, sort="newest", pageStart=first.headers["x-next-page-start"]
    ).expect(200)
    assert [one["name"] for one in second.json] == ["t0"]
    assert "x-next-page-start" not in second.headers
    assert [one["name"] for one in rita.get(tags, refused=True, q="t2").expect(200).json] == ["t2"]
    pull(rita, "t2", path="acme/many").expect(403)
    api.admin.put(f"{where}/enforcement", {"mode": "report"}).expect(200)
    assert rita.get(tags, refused=True).expect(200).json == []
