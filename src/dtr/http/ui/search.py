"""Search over everything, as a page and as the list below the search field; and the keys that lead there."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from msgspec import Struct

from dtr.http.api import listings, search
from dtr.http.ui.pages import Pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

    from dtr.http.api.listings import FoundImage
    from dtr.http.api.models import AccountRecord
    from dtr.http.api.repositories import RepositoryRecord
    from dtr.http.ui.visit import Visit

pages = Pages()

_LONGEST = 256
_IN_PALETTE, _IN_PAGE = 5, 25
"""Results of each kind."""


class Place(Struct, frozen=True):
    """A page that one can go to by its name."""

    address: str
    icon: str
    text: str


class Found(Struct, frozen=True):
    """What fits; of nothing the repositories that were looked at last, and all places."""

    repositories: list[RepositoryRecord]
    images: list[FoundImage]
    organizations: list[AccountRecord]
    users: list[AccountRecord]
    places: list[Place]

    @property
    def count(self) -> int:
        """How much it is in all."""
        people = len(self.organizations) + len(self.users)
        return len(self.repositories) + len(self.images) + people + len(self.places)


@pages.get("/search")
async def show_results(visit: Visit) -> Response:
    """Everything that fits `q`; with ``part=palette`` the first few, for the list below the search field."""
    q = visit.query.get("q", "").strip()[:_LONGEST]
    is_palette = visit.query.get("part") == "palette"
    found = await _find(visit, q, _IN_PALETTE if is_palette else _IN_PAGE)
    template = "search/palette.html" if is_palette else "search/page.html"
    return visit.page(template, q=q, found=found, address=image_address, most=_IN_PAGE)


@pages.get("/docs/keyboard")
async def show_keys(visit: Visit) -> Response:
    """The keys that do something; with script in a dialog."""
    return visit.page("search/keys.html")


async def _find(visit: Visit, q: str, limit: int) -> Found:
    places = [one for one in _places(visit) if q.lower() in one.text.lower()]
    if not q:
        seen = await visit.call(listings.list_named_repositories, path=visit.recent) if visit.recent else None
        return Found([one.repository for one in seen.repositories] if seen else [], [], [], [], places)
    text = q.removeprefix("https://").removeprefix(f"{visit.host}/")  # an address of an image, as docker takes it
    # A digest behind an image's name says all; a tag belongs to the images.
    found = await visit.call(search.autocomplete, query=text.partition("@")[0], limit=limit)
    images = await visit.call(listings.search_images, query=text, limit=limit)
    return Found(
        repositories=found.repository_results,
        images=images.images,
        organizations=[one for one in found.account_results if one.is_org],
        users=[one for one in found.account_results if not one.is_org],
        places=places,
    )


def _places(visit: Visit) -> Iterator[Place]:
    """The pages that the visitor may open, by name."""
    yield Place("/repositories", "package", visit._("Repositories"))
    account = visit.account
    if account is not None:
        own = f"/users/{quote(account.name)}"
        yield Place("/repositories/new", "plus", visit._("New repository"))
        yield Place("/orgs", "building-2", visit._("Organizations"))
        yield Place("/users", "users", visit._("Users"))
        yield Place(own, "user", visit._("Profile"))
        yield Place(f"{own}/access-tokens", "key-round", visit._("Access tokens"))
        yield Place("/welcome", "terminal", visit._("First steps"))
    if visit.may("SEE_SYSTEM"):
        yield Place("/system", "layers", visit._("System overview"))
        yield Place("/system/settings/general", "settings", visit._("General settings"))
        yield Place("/system/settings/storage", "hard-drive", visit._("Storage"))
        yield Place("/system/settings/security", "shield-check", visit._("Security"))
        yield Place("/system/settings/gc", "trash-2", visit._("Garbage collection"))
        yield Place("/system/settings/jobs", "activity", visit._("Jobs"))
        yield Place("/system/settings/events", "list-tree", visit._("Events"))
        yield Place("/system/settings/sessions", "clock", visit._("Sessions"))
    yield Place("/docs/api", "file-code", visit._("API"))
    yield Place("/docs/keyboard", "keyboard", visit._("Keyboard shortcuts"))


def image_address(image: FoundImage) -> str:
    """Where an image is shown: by its tag, or the tags of its repository that have its digest."""
    path = quote(f"/repositories/{image.namespace}/{image.repository}/tags")
    return f"{path}/{quote(image.tag)}" if image.tag else f"{path}?{urlencode({'q': image.digest})}"
