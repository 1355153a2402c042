"""
Pages of lists.

DTR's way: `pageStart` names the first record of the page, `pageSize` how many there may be, and the answer's
header ``X-Next-Page-Start`` names the first record of the next page, when there is one. With `count` the header
``X-Resource-Count`` says how many records there are on all pages, for whoever asks.

The account service's way is the same with `start` and `limit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

from fastapi import Depends, Query
from msgspec import Struct
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Response

T = TypeVar("T")

LARGEST_PAGE = 10_000
"""A client that asks for more gets so many, and the start of the next page."""
NEXT = "X-Next-Page-Start"
COUNT = "X-Resource-Count"


class Page(Struct, frozen=True):
    """What part of a list is asked for."""

    start: str
    """What names the first record; empty: the first of all."""
    size: int
    wants_count: bool

    @property
    def limit(self) -> int:
        """How many records to read: one more than the page has tells whether there is another page."""
        return self.size + 1

    def at_most(self, size: int) -> Page:
        """The same page, of at most `size` records."""
        return replace(self, size=min(self.size, size))

    def cut(self, response: Response, found: list[T], name: Callable[[T], str]) -> list[T]:
        """The page of the records that were `found`; the header says how the next one begins."""
        if len(found) > self.size:
            response.headers[NEXT] = name(found[self.size])
        return found[: self.size]


def _page(
    page_start: Annotated[
        str,
        Query(alias="pageStart", max_length=1024, description="First record of the page, from X-Next-Page-Start."),
    ] = "",
    page_size: Annotated[
        int, Query(alias="pageSize", ge=1, le=2**31 - 1, description="Most records on the page.")
    ] = 10,
    count: Annotated[bool, Query(description="Say in X-Resource-Count how many records there are.")] = False,
) -> Page:
    return Page(page_start, min(page_size, LARGEST_PAGE), count)


PageDep = Annotated[Page, Depends(_page)]


def _list(
    start: Annotated[
        str, Query(max_length=2048, description="First record of the page, from the answer before.")
    ] = "",
    limit: Annotated[int, Query(ge=1, le=2**31 - 1, description="Most records on the page.")] = 10,
) -> Page:
    return Page(start, min(limit, LARGEST_PAGE), wants_count=False)


ListDep = Annotated[Page, Depends(_list)]
