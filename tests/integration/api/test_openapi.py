"""``/api/v0/openapi.json``."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import schemathesis
from tests.support.api import Api
from tests.support.contract import codes, operations, ours, resolve

from dtr.http.api.errors import _CODES

OBVIOUS = {
    "id", "name", "fullName", "namespace", "reponame", "password", "username", "code", "message", "language",
    "description", "createdAt", "updatedAt",
}  # fmt: skip
"""Fields and parameters whose name says it all."""
VERBS = (
    "get", "list", "search", "export", "create", "put", "set", "update", "patch", "change", "rename", "toggle",
    "delete", "revoke", "log", "submit", "try", "test", "check", "run", "cancel", "redeliver", "verify",
    "autocomplete",
)  # fmt: skip


OPERATIONS = {one.name: one for one in operations(ours())}


def _refs(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*map(_refs, value.values()))
    return set().union(*map(_refs, value)) if isinstance(value, list) else set()


def test_the_document_is_valid():
    assert ours()["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(ours()).validate()
    for reference in _refs(ours()):
        assert resolve(ours(), {"$ref": reference})


def test_no_path_is_there_twice():
    shapes = Counter(re.sub(r"\{[^}]+\}", "{}", path) for path in ours()["paths"])
    assert [shape for shape, count in shapes.items() if count > 1] == []


def test_operations_have_names_of_their_own():
    names = Counter(one.described["operationId"] for one in OPERATIONS.values())
    assert [name for name, count in names.items() if count > 1] == []
    assert [name for name in names if not re.fullmatch(rf"({'|'.join(VERBS)})([A-Z][a-z]+)*", name)] == []


def test_operations_belong_to_subjects_that_are_described():
    subjects = {one["name"]: one["description"] for one in ours()["tags"]}
    used = {tag for one in OPERATIONS.values() for tag in one.described["tags"]}
    assert used <= subjects.keys()
    assert all(len(one.described["tags"]) == 1 and one.described["summary"] for one in OPERATIONS.values())


@pytest.mark.parametrize("name", OPERATIONS)
def test_parameters_are_described(name: str):
    unsaid = [
        one["name"]
        for one in OPERATIONS[name].described.get("parameters", ())
        if one["name"] not in OBVIOUS and not one.get("description")
    ]
    assert unsaid == []


def test_records_have_names_of_their_own():
    assert [name for name in ours()["components"]["schemas"] if "__" in name] == []


def test_fields_are_described():
    unsaid = [
        f"{record}.{name}"
        for record, schema in ours()["components"]["schemas"].items()
        for name, one in schema.get("properties", {}).items()
        if name not in OBVIOUS and not one.get("description") and not _described(one)
    ]
    assert unsaid == []


def _described(schema: dict[str, Any]) -> bool:
    """Whether it is, or is made of, a record that is described."""
    inner = [schema, *schema.get("anyOf", ()), *schema.get("allOf", ()), schema.get("items", {})]
    return any("$ref" in one and resolve(ours(), one).get("description") for one in inner)


@pytest.mark.parametrize("name", OPERATIONS)
def test_refusals_have_one_form(name: str):
    for status, response in OPERATIONS[name].described["responses"].items():
        if status >= "400":
            assert codes(resolve(ours(), response)), status


def test_every_code_belongs_to_an_operation():
    described = {
        code
        for one in OPERATIONS.values()
        for status, response in one.described["responses"].items()
        if status >= "300"
        for code in codes(resolve(ours(), response))
    }
    assert described | {"NO_SUCH_OPERATION", "NOT_ALLOWED"} == _CODES.keys()


def test_everybody_may_read_it(api: Api):
    answer = api.anonymous.get("/api/v0/openapi.json").expect(200)
    assert answer.json == ours()
    assert answer.headers["content-type"] == "application/json"


def test_the_page_for_people_is_elsewhere(api: Api):
    answer = api.anonymous.get("/api/v0/docs").expect(308)
    assert answer.headers["location"] == "/docs/api"
