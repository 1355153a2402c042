"""
The contract: every operation of DTR's Swagger file is there, with its parameters, statuses and fields.

Here documents are compared; what a server really answers is in tests/integration/api/test_contract_answers.py.
"""

from __future__ import annotations

import pytest
from tests.support.contract import codes, content, differences, dtr, operations, ours, resolve

OPEN = {
    # Scanning for vulnerabilities.
    "GET /api/v0/imagescan/layeroverride",
    "POST /api/v0/imagescan/layeroverride/{layerid}",
    "DELETE /api/v0/imagescan/layeroverride/{vulnerabilityid}",
    "GET /api/v0/imagescan/repositories/{namespace}/{reponame}/{tag}",
    "POST /api/v0/imagescan/scan",
    "PUT /api/v0/imagescan/scan/update",
    "POST /api/v0/imagescan/scan/{namespace}/{reponame}/{tag}/{os}/{arch}",
    "GET /api/v0/imagescan/scansummary/component/{component}",
    "GET /api/v0/imagescan/scansummary/cve/{cve}",
    "GET /api/v0/imagescan/scansummary/layer/{layerid}",
    "GET /api/v0/imagescan/scansummary/license/{license}",
    "GET /api/v0/imagescan/scansummary/repositories/{namespace}/{reponame}/{reference}",
    "GET /api/v0/imagescan/scansummary/repositories/{namespace}/{reponame}/{tag}/export",
    "POST /api/v0/imagescan/scansummary/tags",
    "GET /api/v0/imagescan/status",
    # Content caches.
    "GET /api/v0/content_caches",
    "POST /api/v0/content_caches",
    "GET /api/v0/content_caches/{contentcacheuuid}",
    "DELETE /api/v0/content_caches/{contentcacheuuid}",
}
"""What waits for its engine, by name: who builds one takes its operations off this list."""


OPEN_PROPERTIES = {f"answer[].{name} is missing" for name in ("components", "licenses", "vuln_summary")}
"""What is not said of a tag before the engine is there that knows it."""


NEVER = {
    # Remote registries have nothing to do with pruning.
    **{
        f"{method} /api/v0/repositories/{{namespace}}/{{reponame}}/pruningPolicies{rest}": {
            "REMOTE_REGISTRY_INVALID_PERMISSIONS"
        }
        for method, rest in (("POST", ""), ("POST", "/test"), ("PUT", "/{pruningpolicyid}"))
    },
    # One that is not there is deleted already, their file says, too.
    "DELETE /api/v0/repositories/{namespace}/{reponame}/pruningPolicies/{pruningpolicyid}": {
        "NO_SUCH_PRUNING_POLICY"
    },
    "DELETE /api/v0/repositories/{namespace}/{reponame}/promotionPolicies/{promotionpolicyid}": {
        "NO_SUCH_PROMOTION_POLICY"
    },
    "DELETE /api/v0/repositories/{namespace}/{reponame}/pollMirroringPolicies/{pollmirroringpolicyid}": {
        "NO_SUCH_POLL_MIRRORING_POLICY"
    },
    "DELETE /api/v0/repositories/{namespace}/{reponame}/pushMirroringPolicies/{pushmirroringpolicyid}": {
        "NO_SUCH_PUSH_MIRRORING_POLICY"
    },
    # The same case answers 204, their file says of these.
    "DELETE /api/v0/repositories/{namespace}/{reponame}/teamAccess/{teamname}": {"NO_SUCH_TEAM"},
    "DELETE /api/v0/repositoryNamespaces/{namespace}/teamAccess/{teamname}": {"NO_SUCH_TEAM"},
    # It has no body.
    "GET /api/v0/webhooks": {"INVALID_JSON"},
    # Who may see a repository may see these; who may not does not find it.
    "GET /api/v0/index/dockersearch": {"NOT_AUTHORIZED"},
    "GET /api/v0/repositories/{namespace}/{reponame}/events": {"NOT_AUTHORIZED"},
    "GET /api/v0/repositories/{namespace}/{reponame}/tags": {"NOT_AUTHORIZED"},
    "GET /api/v0/repositories/{namespace}/{reponame}/tags/{reference}": {"NOT_AUTHORIZED"},
}
"""Codes that are documented, and that nothing can lead to."""

THEIRS = {one.name: one for one in operations(dtr())}
OURS = {one.shape: one for one in operations(ours())}
BUILT = sorted(THEIRS.keys() - OPEN)


def test_every_operation_is_there_or_waits_for_its_engine():
    assert len(THEIRS) == 109
    assert THEIRS.keys() >= OPEN, "a name that DTR has not"
    there = {name for name, one in THEIRS.items() if one.shape in OURS}
    assert sorted(OPEN & there) == [], "this is there now: take it off the list"
    assert sorted(THEIRS.keys() - there - OPEN) == [], "this is missing"


@pytest.mark.parametrize("name", BUILT)
def test_parameters_are_those_of_dtr(name: str):
    theirs, mine = THEIRS[name], OURS[THEIRS[name].shape]
    known = mine.parameters("query")
    problems = []
    for parameter, described in theirs.parameters("query").items():
        if parameter not in known:
            problems.append(f"{parameter} is missing")
            continue
        schema = known[parameter]["schema"]
        problems += differences({"type": described["type"]}, schema, parameter)
        if described.get("default") not in {None, schema.get("default")}:
            problems.append(f"{parameter} is {schema.get('default')!r} by default, not {described['default']!r}")
        if known[parameter].get("required", False) and not described.get("required", False):
            problems.append(f"{parameter} must be given")
    assert problems == []
    required = {one for one, described in known.items() if described.get("required", False)}
    assert required <= theirs.parameters("query").keys(), "clients of DTR do not know what is required"


@pytest.mark.parametrize("name", [one for one in BUILT if THEIRS[one].parameters("body")])
def test_bodies_are_those_of_dtr(name: str):
    form = THEIRS[name].parameters("body")["body"]["schema"]
    mine = content(OURS[THEIRS[name].shape].described["requestBody"])
    assert list(differences(form, mine, "body")) == []
    theirs, known = (set(resolve(one, two).get("required", ())) for one, two in ((dtr(), form), (ours(), mine)))
    assert known <= theirs, "clients of DTR do not send this"


@pytest.mark.parametrize("name", BUILT)
def test_answers_have_the_status_and_the_fields_of_dtr(name: str):
    theirs, mine = THEIRS[name], OURS[THEIRS[name].shape]
    if theirs.success is None:  # the file does not say what an account's deletion answers
        assert mine.success == "204"
        return
    assert theirs.success == mine.success
    schema = theirs.described["responses"][theirs.success].get("schema")
    if schema is not None:
        missed = differences(schema, content(mine.described["responses"][theirs.success]), "answer")
        assert [one for one in missed if one not in OPEN_PROPERTIES] == []


@pytest.mark.parametrize("name", BUILT)
def test_statuses_of_refusals_are_those_of_dtr(name: str):
    """405 belongs to a path, not to an operation."""
    theirs, mine = THEIRS[name].described["responses"], OURS[THEIRS[name].shape].described["responses"]
    problems = []
    for status, described in theirs.items():
        if status[0] == "4" and status != "405":
            problems += sorted(
                set(described.get("codes", ())) - set(codes(mine.get(status))) - NEVER.get(name, set())
            )
    assert problems == []
