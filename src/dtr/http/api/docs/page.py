"""The page of the API's description: what the template shows, taken from the document."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jinja2 import Template

_SCHEMAS = "#/components/schemas/"


def render(document: dict[str, Any], address: str) -> str:
    """The page; `address` is the server's, with its scheme."""
    described = _Description(document)
    tags = [
        {**tag, "operations": [one for one in described.operations(address) if tag["name"] in one["tags"]]}
        for tag in document["tags"]
    ]
    return _template().render(
        info=document["info"],
        tags=[tag for tag in tags if tag["operations"]],
        refusals=document["components"]["responses"].values(),
        records=sorted(document["components"]["schemas"].items()),
        fields=described.fields,
    )


@lru_cache(1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("dtr.http.api.docs", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": _prose, "kind": _kind}
    return environment.get_template("docs.html")


class _Description:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def operations(self, address: str) -> Iterator[dict[str, Any]]:
        """All of them, with what the template needs."""
        for path, methods in self._document["paths"].items():
            for method, operation in methods.items():
                body = self._content(operation.get("requestBody", {}))
                yield {
                    **operation,
                    "method": method.upper(),
                    "path": path,
                    "body": body,
                    "answers": [
                        (status, answer, self._content(answer))
                        for status, answer in operation["responses"].items()
                        if "$ref" not in answer
                    ],
                    "common": [status for status, answer in operation["responses"].items() if "$ref" in answer],
                    "curl": self._curl(address, method, path, operation, body),
                }

    def fields(self, schema: dict[str, Any]) -> list[tuple[str, dict[str, Any], bool]]:
        """Names, descriptions and whether they are required, of what a record has."""
        schema = self._resolved(schema)
        required = schema.get("required", ())
        return [(name, one, name in required) for name, one in schema.get("properties", {}).items()]

    def _resolved(self, described: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in described:
            found: Any = self._document
            for part in described["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            described = found
        return described

    @staticmethod
    def _content(described: dict[str, Any]) -> dict[str, Any] | None:
        """The schema of a body."""
        return next((one.get("schema") for one in described.get("content", {}).values()), None)

    def _curl(
        self, address: str, method: str, path: str, operation: dict[str, Any], body: dict[str, Any] | None
    ) -> str:
        """How to call it in a shell: what is written in capitals is to be filled in."""
        given = [one for one in operation.get("parameters", ()) if one["in"] == "query" and one.get("required")]
        query = "&".join(f"{one['name']}={one['name'].upper()}" for one in given)
        target = re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), path) + (query and f"?{query}")
        parts = ["curl -u NAME:PASSWORD"]
        if method != "get":
            parts[0] += f" -X {method.upper()}"
        if body is not None:
            media = next(iter(operation["requestBody"]["content"]))
            example = json.dumps(self._example(body)).replace("'", "'\\''")
            parts += [f"-H 'Content-Type: {media}'", f"-d '{example}'"]
        return " \\\n  ".join([*parts, f"'{address}{target}'"])

    def _example(self, schema: dict[str, Any], name: str = "…", depth: int = 0) -> Any:
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
            shown = [one for one in fields if one[2]] or fields[:1]
            return {field: self._example(one, field, depth + 1) for field, one, _ in shown} if depth < 3 else {}
        return {"string": name.upper(), "integer": 1, "number": 1, "boolean": True}.get(str(kind))


def _prose(text: str) -> Markup:
    """Paragraphs, with `code` and **bold**: what of Markdown descriptions use."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        words = str(escape(paragraph))
        words = re.sub(r"`+([^`]+)`+", r"<code>\1</code>", words)
        words = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", words)
        paragraphs.append(f"<p>{words}</p>")
    return Markup("\n".join(paragraphs))  # noqa: S704 - escaped above


def _kind(schema: dict[str, Any]) -> Markup:
    """The type in words; records are links."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_SCHEMAS)
        return Markup('<a href="#record-{0}">{0}</a>').format(name)
    if "allOf" in schema:
        return _kind(schema["allOf"][0])
    if "anyOf" in schema:
        kinds = [_kind(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return Markup(" or ").join(kinds) + ("" if len(kinds) == len(schema["anyOf"]) else ", or null")
    values = schema.get("enum") or ([schema["const"]] if "const" in schema else None)
    if values:
        return Markup(", ").join(Markup("<code>{}</code>").format(one) for one in values)
    kind = schema.get("type", "anything")
    if kind == "array":
        return Markup("list of ") + _kind(schema.get("items", {}))
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return Markup("map of ") + _kind(schema["additionalProperties"])
    words = schema.get("format", kind)
    low, high = (schema.get(one) for one in ("minimum", "maximum"))
    if low is not None or high is not None:
        words += f", {'' if low is None else low}…{'' if high is None else high}"
    return escape(words)
