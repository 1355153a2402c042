"""
Which operations a path has, and which path is meant.

Names of repositories have slashes, so that several paths of the API may fit one address: the most specific one is
meant (OpenAPI 3.1, Paths Object), whatever its methods. ``…/repositories/acme/app/tags`` are the tags of
``acme/app``, never the repository ``acme/app/tags``.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from dtr.http.api.operations import Operation
from dtr.http.api.templates import pattern, rank

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable

    from starlette.routing import BaseRoute


class Path:
    """A template of paths, ``/api/v0/repositories/{namespace}/{reponame}``, and its operations by method."""

    def __init__(self, template: str) -> None:
        self.template = template
        self.operations: dict[str, Operation] = {}

    @cached_property
    def match(self) -> Callable[[str], re.Match[str] | None]:
        """Whether a path fits; its groups are the values of what varies."""
        return pattern(self.template).fullmatch

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
            (route for route in routes if isinstance(route, Operation)), key=lambda one: rank(one.path)
        )
        paths: dict[tuple[tuple[int, str], ...], Path] = {}
        for operation in self.operations:
            path = paths.setdefault(rank(operation.path), Path(operation.path))
            path.operations |= dict.fromkeys(operation.methods, operation)
        self._paths = [*paths.values()]

    def find(self, path: str) -> tuple[Path, tuple[str, ...]] | None:
        """The one that is meant by a request's path, and the values of its parameters, in their order."""
        for one in self._paths:
            match = one.match(path)
            if match:
                return one, match.groups()
        return None
