"""
Which operations a path has, and which path is meant.

Names of repositories have slashes, so that several paths of the API may fit one address: the most specific one is
meant (OpenAPI 3.1, Paths Object), whatever its methods. ``…/repositories/acme/app/tags`` are the tags of
``acme/app``, never the repository ``acme/app/tags``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dtr.http.api.operations import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.routing import BaseRoute


class Path:
    """A template of paths, ``/api/v0/repositories/{namespace}/{reponame}``, and its operations by method."""

    def __init__(self, template: str) -> None:
        # A line break is a character like others.
        self.match = re.compile("/".join(map(_pattern, template.split("/"))), re.DOTALL).fullmatch
        self.operations: dict[str, Operation] = {}

    @property
    def allowed(self) -> str:
        """The methods that are described, for ``Allow``."""
        methods = {name for name, one in self.operations.items() if one.is_described}
        return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


class Paths:
    """All of the API's."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """`routes` are those of the routers."""
        self.operations = sorted(
            (route for route in routes if isinstance(route, Operation)), key=lambda one: _shape(one.path)
        )
        paths: dict[tuple[tuple[int, str], ...], Path] = {}
        for operation in self.operations:
            shape = _shape(operation.path)
            if shape not in paths:
                paths[shape] = Path(operation.path)
            for method in operation.methods:
                paths[shape].operations[method] = operation
        self._paths = [*paths.values()]

    def find(self, path: str) -> tuple[Path, tuple[str, ...]] | None:
        """The one that is meant by a request's path, and the values of its parameters, in their order."""
        for one in self._paths:
            match = one.match(path)
            if match:
                return one, match.groups()
        return None


def _pattern(part: str) -> str:
    """The expression for a part of a template."""
    return "(.*)" if part.endswith(":path}") else "([^/]+)" if part[:1] == "{" else re.escape(part)


def _shape(template: str) -> tuple[tuple[int, str], ...]:
    """What is equal for the same paths, and sorts what is fixed before what varies, and longer before shorter."""
    parts = (
        (2, "") if one.endswith(":path}") else (1, "") if one[:1] == "{" else (0, one)
        for one in template.split("/")
    )
    return (*parts, (3, ""))
