"""
Which operations a path has, what they take, and what they give.

Names of repositories have slashes, so that several paths of the API may fit one address: the most specific one is
meant (OpenAPI 3.1, Paths Object), whatever its methods. ``…/repositories/acme/app/tags`` are the tags of
``acme/app``, never the repository ``acme/app/tags``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.routing import BaseRoute

_JSON = "application/json"


class Operation:
    """One method of a path."""

    def __init__(self, route: APIRoute) -> None:
        self.is_described = route.include_in_schema
        self._taken = set((route.openapi_extra or {}).get("requestBody", {}).get("content", {})) or {_JSON}
        if route.body_field is not None:
            self._taken = {getattr(route.body_field.field_info, "media_type", _JSON)}
        contents = [
            one.get("content", {}) for status, one in route.responses.items() if str(status).startswith("2")
        ]
        self._given = {_JSON, *(kind for content in contents for kind in content)}

    def takes(self, content_type: str) -> bool:
        """Whether a body may be of this type."""
        kind = content_type.partition(";")[0].strip().lower()
        return not self._taken.isdisjoint({kind, "*/*"}) or (_JSON in self._taken and kind.endswith("+json"))

    def gives(self, accept: str) -> bool:
        """Whether a client that accepts this can have the answer (RFC 9110, section 12.5.1)."""
        ranges = [one.partition(";") for one in accept.lower().split(",")]
        accepted = {kind.strip() for kind, _, parameters in ranges if not _is_refused(parameters)}
        wanted = {"*/*", "", *self._given, *(f"{kind.partition('/')[0]}/*" for kind in self._given)}
        return not accepted.isdisjoint(wanted)


class Path:
    """A template of paths, ``/api/v0/repositories/{namespace}/{reponame}``, and its operations by method."""

    def __init__(self, route: APIRoute) -> None:
        self.matches = route.path_regex.match
        self.operations: dict[str, Operation] = {}

    @property
    def allowed(self) -> str:
        """The methods that are described, for ``Allow``."""
        methods = {name for name, one in self.operations.items() if one.is_described}
        return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


class Paths:
    """All of the API's."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """`routes` are those of the routers; each gets the id of its operation, the function's name."""
        self.routes: list[APIRoute] = sorted(
            (route for route in routes if isinstance(route, APIRoute)), key=lambda route: _shape(route.path)
        )
        self._paths: dict[tuple[tuple[int, str], ...], Path] = {}
        for route in self.routes:
            # A line break is a character like others, also at the end.
            route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + r"\Z", re.DOTALL)
            route.operation_id = route.operation_id or to_camel(route.name)
            path = self._paths.setdefault(_shape(route.path), Path(route))
            for method in route.methods or ():
                path.operations[method] = Operation(route)

    def find(self, path: str) -> Path | None:
        """The one that is meant by a request's path."""
        return next((one for one in self._paths.values() if one.matches(path)), None)


def _shape(template: str) -> tuple[tuple[int, str], ...]:
    """What is equal for the same paths, and sorts what is fixed before what varies, and longer before shorter."""
    parts = (
        (2, "") if one.endswith(":path}") else (1, "") if one[:1] == "{" else (0, one)
        for one in template.split("/")
    )
    return (*parts, (3, ""))


def _is_refused(parameters: str) -> bool:
    """Whether a media range has the weight 0."""
    weights = [
        value for name, _, value in (one.partition("=") for one in parameters.split(";")) if name.strip() == "q"
    ]
    return any(value.strip().rstrip("0") in {"", "."} for value in weights)
