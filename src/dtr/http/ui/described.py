"""What the pages of the API show, taken from its description (OpenAPI 3.1). Without I/O."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup, escape
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SCHEMAS = "#/components/schemas/"
RECORDS = "/docs/api/records"


class Part(Struct, frozen=True):
    """A parameter of an operation, or a field of a record."""

    name: str
    place: str
    """``path``, ``query``, ``header`` or ``cookie``; of a field empty."""
    schema: Mapping[str, Any]
    required: bool
    text: str

    @property
    def values(self) -> list[str]:
        """What it is one of; none: anything."""
        for schema in (self.schema, *self.schema.get("anyOf", ())):
            if schema.get("enum"):
                return [str(one) for one in schema["enum"]]
            if schema.get("type") == "boolean":
                return ["true", "false"]
        return []

    def choices(self, nothing: str) -> list[tuple[str, str]]:
        """The same as options of a form: values and texts; `nothing` says that it is not given."""
        return ([] if self.required else [("", nothing)]) + [(one, one) for one in self.values]

    @property
    def default(self) -> str:
        """What it is when nobody says, as JSON; empty: nothing."""
        found = self.schema.get("default")
        return "" if found in (None, "") else json.dumps(found)


class Answer(Struct, frozen=True):
    """What an operation may answer."""

    status: str
    text: str
    schema: Mapping[str, Any] | None


class Operation(Struct, frozen=True):
    """One operation of the API."""

    id: str
    group: str
    method: str
    path: str
    summary: str
    text: str
    parameters: tuple[Part, ...]
    body: Mapping[str, Any] | None
    media_type: str
    answers: tuple[Answer, ...]
    common: tuple[str, ...]
    """Statuses with which all operations may refuse."""

    @property
    def url(self) -> str:
        """Its page."""
        return f"/docs/api/{quote(self.group)}/{quote(self.id)}"

    @property
    def words(self) -> str:
        """What it is found by."""
        return f"{self.id} {self.method} {self.path} {self.summary}".lower()


class Description:
    """The whole API."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.text: str = document["info"]["description"]
        self.version: str = document["info"]["version"]
        self.operations = {one.id: one for one in self._operations()}
        self.groups = {one["name"]: one["description"] for one in document["tags"] if self.of_group(one["name"])}
        self.records: Mapping[str, Mapping[str, Any]] = dict(sorted(document["components"]["schemas"].items()))
        self.refusals = [one["description"] for one in document["components"]["responses"].values()]

    def of_group(self, group: str) -> list[Operation]:
        """The operations of a group."""
        return [one for one in self.operations.values() if one.group == group]

    def find(self, text: str) -> list[Operation]:
        """The operations in which all words of a text occur."""
        wanted = text.lower().split()
        return [one for one in self.operations.values() if all(word in one.words for word in wanted)]

    def _operations(self) -> Iterator[Operation]:
        for path, methods in self._document["paths"].items():
            for method, one in methods.items():
                content = one.get("requestBody", {}).get("content", {})
                media_type, body = next(((kind, part.get("schema")) for kind, part in content.items()), ("", None))
                yield Operation(
                    id=one["operationId"],
                    group=one["tags"][0],
                    method=method.upper(),
                    path=path,
                    summary=one["summary"],
                    text=one.get("description", ""),
                    parameters=tuple(map(_parameter, one.get("parameters", ()))),
                    body=body,
                    media_type="application/json" if media_type == "*/*" else media_type,
                    answers=tuple(
                        Answer(status, answer["description"], _schema(answer))
                        for status, answer in one["responses"].items()
                        if "$ref" not in answer
                    ),
                    common=tuple(status for status, answer in one["responses"].items() if "$ref" in answer),
                )

    def fields(self, schema: Mapping[str, Any]) -> list[Part]:
        """What a record has."""
        schema = self._resolved(schema)
        required = schema.get("required", ())
        return [
            Part(name, "", one, name in required, one.get("description", ""))
            for name, one in schema.get("properties", {}).items()
        ]

    def _resolved(self, described: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in described:
            found: Any = self._document
            for part in described["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            described = found
        return described

    def example(self, operation: Operation) -> str:
        """A body that fits, as JSON; empty: there is none."""
        if operation.body is None:
            return ""
        return json.dumps(self._example(operation.body), indent=2, ensure_ascii=False)

    def curl(self, origin: str, operation: Operation) -> str:
        """How to call it in a shell: what is written in capitals is to be filled in."""
        given = [one.name for one in operation.parameters if one.place == "query" and one.required]
        query = "&".join(f"{name}={name.upper()}" for name in given)
        target = re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), operation.path) + (query and f"?{query}")
        parts = ["curl -u NAME:PASSWORD"]
        if operation.method != "GET":
            parts[0] += f" -X {operation.method}"
        if operation.body is not None:
            example = json.dumps(self._example(operation.body)).replace("'", "'\\''")
            parts += [f"-H 'Content-Type: {operation.media_type}'", f"-d '{example}'"]
        return " \\\n  ".join([*parts, f"'{origin}{target}'"])

    def _example(self, schema: Mapping[str, Any], name: str = "…", depth: int = 0) -> Any:
        """
        Something that fits: what is required of a record, or, when nothing is, the first that it has.

        Texts are the `name` of their field, in capitals.
        """
        schema = self._resolved(schema)
        for known in ("const", "default"):
            if schema.get(known) is not None:
                return schema[known]
        for several in ("examples", "enum"):
            if schema.get(several):
                return schema[several][0]
        if "anyOf" in schema:
            return self._example(schema["anyOf"][0], name, depth)
        kind = schema.get("type")
        if kind == "array":
            return [self._example(schema.get("items", {}), name, depth + 1)]
        if kind == "object":
            fields = self.fields(schema)
            shown = [one for one in fields if one.required] or fields[:1]
            return {one.name: self._example(one.schema, one.name, depth + 1) for one in shown} if depth < 3 else {}
        return {"string": name.upper(), "integer": 1, "number": 1, "boolean": True}.get(str(kind))


def _parameter(one: Mapping[str, Any]) -> Part:
    required = one["in"] == "path" or bool(one.get("required"))
    return Part(one["name"], one["in"], one["schema"], required, one.get("description", ""))


def _schema(described: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((one.get("schema") for one in described.get("content", {}).values()), None)


def prose(text: str) -> Markup:
    """Paragraphs, with `code` and **bold**: what of Markdown descriptions use."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        words = str(escape(paragraph))
        words = re.sub(r"`+([^`]+)`+", r"<code>\1</code>", words)
        words = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", words)
        paragraphs.append(f"<p>{words}</p>")
    return Markup("\n".join(paragraphs))  # noqa: S704 - escaped above


def kind_of(schema: Mapping[str, Any]) -> Markup:
    """The type in words; records are links."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_SCHEMAS)
        return Markup('<a href="{}/{}">{}</a>').format(RECORDS, quote(name), name)
    if "allOf" in schema:
        return kind_of(schema["allOf"][0])
    if "anyOf" in schema:
        kinds = [kind_of(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return Markup(" or ").join(kinds) + ("" if len(kinds) == len(schema["anyOf"]) else ", or null")
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    if values:
        return Markup(", ").join(Markup("<code>{}</code>").format(one) for one in values)
    kind = schema.get("type", "anything")
    if kind == "array":
        return Markup("list of ") + kind_of(schema.get("items", {}))
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return Markup("map of ") + kind_of(schema["additionalProperties"])
    words = schema.get("format", kind)
    low, high = (schema.get(one) for one in ("minimum", "maximum"))
    if low is not None or high is not None:
        words += f", {'' if low is None else low}…{'' if high is None else high}"
    return escape(words)
