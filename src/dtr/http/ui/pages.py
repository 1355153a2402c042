"""Which function answers which address."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from dtr.http.api.templates import pattern, rank

if TYPE_CHECKING:
    import re
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from starlette.responses import Response

    from dtr.http.ui.visit import Visit

Handler: TypeAlias = "Callable[[Visit], Awaitable[Response]]"


@dataclass
class Page:
    """A template of addresses, and what answers its methods."""

    path: str
    handlers: dict[str, Handler] = field(default_factory=dict)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What fits it."""
        return pattern(self.path)


class Pages:
    """The pages of one subject: its functions are registered by decorators."""

    def __init__(self) -> None:
        self._pages: dict[str, Page] = {}

    def get(self, *paths: str) -> Callable[[Handler], Handler]:
        """Answer GET (and HEAD) at these templates, like ``/repositories/{namespace}/{repo:path}/tags``."""
        return lambda handler: self._add("GET", paths, handler)

    def post(self, *paths: str) -> Callable[[Handler], Handler]:
        """Answer POST at these templates. The form's CSRF token has been checked."""
        return lambda handler: self._add("POST", paths, handler)

    def _add(self, method: str, paths: tuple[str, ...], handler: Handler) -> Handler:
        for path in paths:
            self._pages.setdefault(path, Page(path)).handlers[method] = handler
        return handler

    def __iter__(self) -> Iterator[Page]:
        return iter(self._pages.values())


class Routes:
    """All pages of all subjects."""

    def __init__(self, subjects: Iterable[Pages]) -> None:
        pages: dict[str, Page] = {}
        for one in (page for subject in subjects for page in subject):
            pages.setdefault(one.path, Page(one.path)).handlers.update(one.handlers)
        self.pages = sorted(pages.values(), key=lambda page: rank(page.path))
        """Every template of addresses with its handlers, the most specific first."""

    def find(self, path: str) -> list[tuple[dict[str, Handler], dict[str, str]]]:
        """
        What may answer a path: the handlers by method, and the values of the template's parts.

        Names of repositories have slashes, so there may be several. The most specific one is first; the next is
        meant when there is no repository of the name that the first one reads.
        """
        found = ((page.handlers, page.pattern.fullmatch(path)) for page in self.pages)
        return [(handlers, match.groupdict()) for handlers, match in found if match]
