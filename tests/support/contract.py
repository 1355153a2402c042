"""DTR's published contract, and what ours says of the same operation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "contract" / "api" / "dtr-2.6.json"
"""DTR 2.6's Swagger file: without its texts, with the codes of the errors beside their statuses."""


@dataclass(frozen=True)
class Operation:
    """One operation of a document."""

    method: str
    path: str
    described: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def shape(self) -> tuple[str, str]:
        """What is equal for the same operation: parameters of paths may have other names."""
        return self.method, re.sub(r"\{[^}]+\}", "{}", self.path)

    def parameters(self, place: str) -> dict[str, dict[str, Any]]:
        """By name."""
        return {one["name"]: one for one in self.described.get("parameters", ()) if one["in"] == place}

    @property
    def success(self) -> str | None:
        """The status of the answer when all goes well."""
        return next((status for status in self.described["responses"] if status.startswith("2")), None)


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """All operations of a document."""
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield Operation(method.upper(), path, described)


@cache
def dtr() -> dict[str, Any]:
    """DTR's document."""
    document: dict[str, Any] = json.loads(FILE.read_text())
    return document


def ours() -> dict[str, Any]:
    """Our document."""
    from dtr.http.api.app import document

    return document()


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a reference refers to."""
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def differences(theirs: dict[str, Any], mine: dict[str, Any], where: str = "") -> Iterator[str]:
    """
    What a client that knows their schema would miss in ours.

    Ours may say more (another property, a limit, null where theirs is not required), but not something else.
    """
    yield from _differences(theirs, mine, where or "it", frozenset())


def _differences(theirs: dict[str, Any], mine: dict[str, Any], where: str, above: frozenset[str]) -> Iterator[str]:
    if theirs.get("$ref") in above:  # a record within itself
        return
    above |= {theirs["$ref"]} if "$ref" in theirs else set()
    theirs = resolve(dtr(), theirs)
    kinds = _alternatives(mine)
    if "type" not in theirs and "properties" not in theirs:
        return
    kind = theirs.get("type", "object")
    fitting = [one for one in kinds if _kind(one) == kind or (kind == "number" and _kind(one) == "integer")]
    if not fitting:
        yield f"{where} is {[_kind(one) for one in kinds]}, not {kind}"
        return
    found = fitting[0]
    if theirs.get("format") == "date-time" and found.get("format") != "date-time":
        yield f"{where} is no date"
    missing = set(theirs.get("enum", ())) - set(found.get("enum", theirs.get("enum", ())))
    if missing:
        yield f"{where} cannot be {sorted(missing)}"
    if kind == "array":
        yield from _differences(theirs["items"], found.get("items", {}), f"{where}[]", above)
    values = theirs.get("additionalProperties")
    if isinstance(values, dict) and values:
        yield from _differences(values, found.get("additionalProperties") or {}, f"{where}.*", above)
    for name, one in theirs.get("properties", {}).items():
        if name in found.get("properties", {}):
            yield from _differences(one, found["properties"][name], f"{where}.{name}", above)
        else:
            yield f"{where}.{name} is missing"


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    schema = resolve(ours(), schema)
    if "anyOf" in schema:
        found = [one for part in schema["anyOf"] for one in _alternatives(part)]
        return [one for one in found if one.get("type") != "null"]
    if "allOf" in schema and "type" not in schema:
        return _alternatives(schema["allOf"][0])
    return [schema]


def _kind(schema: dict[str, Any]) -> str | None:
    if "type" in schema:
        return str(schema["type"])
    values = schema.get("enum") or [schema.get("const")]
    return {str: "string", bool: "boolean", int: "integer"}.get(type(values[0]))


def content(described: dict[str, Any]) -> dict[str, Any]:
    """The schema of a body or answer of our document."""
    schema: dict[str, Any] = resolve(ours(), described)["content"]["application/json"]["schema"]
    return schema


def codes(response: dict[str, Any] | None) -> list[str]:
    """The codes that a refusal of our document may have; None: it is not described."""
    if response is None:
        return []
    schema = content(response)
    found: list[str] = schema["properties"]["errors"]["items"]["properties"]["code"]["enum"]
    return found
