"""Repositories: the list, a new one, those that somebody pinned, and the first steps with the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, get_args
from urllib.parse import quote

from msgspec import Struct
from msgspec.structs import replace

from dtr.accounts import AccountUnknown
from dtr.http.api import listings, repositories
from dtr.http.api.errors import ApiError
from dtr.http.api.repositories import RepositoryForm
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused
from dtr.http.ui.visit import Listing
from dtr.oci import NameInvalid, parse_repository_name
from dtr.registry import KINDS
from dtr.registry.summaries import RepositoryOrder

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.api.listings import FoundRepositories, FoundRepository
    from dtr.http.ui.visit import Visit

pages = Pages()


def N_(text: str) -> str:  # noqa: N802 - as catalogues have it
    """Mark a text that is translated where it is shown."""
    return text


KIND_TEXTS = {
    "image": N_("Image"),
    "helm chart": N_("Helm chart"),
    "app": N_("App"),
    "plugin": N_("Plugin"),
    "wasm": N_("WebAssembly"),
    "sbom": N_("SBOM"),
    "signature": N_("Signature"),
    "attestation": N_("Attestation"),
    "artifact": N_("Other artifact"),
}
LEVEL_TEXTS = {"admin": N_("Manage"), "read-write": N_("Push"), "read-only": N_("Pull"), "none": N_("Look")}
_ORDERS: dict[RepositoryOrder, str] = {
    "pushed": N_("Last pushed"),
    "name": N_("Name"),
    "size": N_("Size"),
    "pulls": N_("Pulls"),
}
_PUSHED = {
    "7": N_("In the last 7 days"),
    "30": N_("In the last 30 days"),
    "365": N_("In the last year"),
    "-90": N_("Not for 90 days"),
    "-365": N_("Not for a year"),
}
"""Days; with a minus: not for so long."""
_MOST_NAMESPACES = 100
"""So many are to choose from, then a namespace is typed."""
_IMMUTABILITY = ("off", "all", "some")


# --- the list -------------------------------------------------------------------------------------------------


class Filters(Struct, frozen=True):
    """What the list is asked for, by the address; what is no such value counts as nothing."""

    q: str
    namespace: str
    visibility: str
    signed: str
    type: str
    pushed: str
    sort: RepositoryOrder

    @classmethod
    def of(cls, visit: Visit) -> Filters:
        """The filters in the address of a visit. Of two that exclude each other neither counts."""

        def only(name: str, *values: str) -> str:
            given = {one for one in visit.queries(name) if one in values}
            return given.pop() if len(given) == 1 else ""

        sort = only("sort", *get_args(RepositoryOrder)) or "pushed"
        return cls(
            q=visit.query.get("q", "").strip()[:256],
            namespace=visit.query.get("namespace", "").strip()[:255],
            visibility=only("visibility", "public", "private"),
            signed=only("signed", "yes", "no"),
            type=only("type", *KINDS),
            pushed=only("pushed", *_PUSHED),
            sort=cast("RepositoryOrder", sort),
        )

    @property
    def are_any(self) -> bool:
        """Whether something is left out by them."""
        return any((self.q, self.namespace, self.visibility, self.signed, self.type, self.pushed))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the API's operation."""
        days = int(self.pushed or 0)
        return {
            "query": self.q,
            "namespace": self.namespace,
            "visibility": self.visibility or None,
            "kind": self.type or None,
            "signed": {"yes": True, "no": False}.get(self.signed),
            "pushed_within": days if days > 0 else None,
            "not_pushed_for": -days if days < 0 else None,
            "sort": self.sort,
        }


@pages.get("/repositories")
async def list_repositories(visit: Visit) -> Response:
    """All that the visitor may see, as the filters say; those that were pinned or looked at last come before."""
    filters = Filters.of(visit)
    # The script takes the list alone. Whoever owns how many says how many there are, without filters.
    found = None if visit.is_partial else await visit.call(listings.list_owners, limit=_MOST_NAMESPACES)
    total = None if found is None or filters.are_any else found.total
    listing: Listing[FoundRepositories]
    try:
        listing = await visit.listing(
            listings.search_repositories, count=total is None, recent_pulls=True, **filters.parameters
        )
    except AccountUnknown:
        listing = Listing(listings.FoundRepositories(repositories=[]), "", 0)
    if total is not None:
        listing = replace(listing, count=total)
    pinned = await _pinned(visit)
    whole = not filters.are_any and not visit.query.get("start")
    recent: list[FoundRepository] = []
    owners: list[tuple[str, int]] = []
    if found is not None:
        owners = [(one.name, one.repositories) for one in found.owners]
        known = {name for name, _ in owners}
        is_cut = len(owners) == _MOST_NAMESPACES
        wanted = (filters.namespace, visit.account.name if visit.account and is_cut else "")
        owners = [*((name, 0) for name in dict.fromkeys(wanted) if name and name not in known), *owners]
        if whole and visit.recent:
            kept = await visit.call(listings.list_named_repositories, path=visit.recent)
            recent = [one for one in kept.repositories if path_of(one) not in pinned]
    may_create = await _may_create(visit)
    is_first = listing.count == 0 and not filters.are_any
    return visit.page(
        "repositories/list.html",
        listing=listing,
        filters=filters,
        owners=owners,
        pinned=pinned,
        recent=recent,
        shows_shelves=whole,
        may_create=may_create,
        wanted=filters.q if _is_name(filters.q) else "",
        steps=await _first_steps(visit) if is_first and may_create else None,
        kinds=KIND_TEXTS,
        levels=LEVEL_TEXTS,
        orders=[(name, visit._(text)) for name, text in _ORDERS.items()],
        pushed=_PUSHED,
    )


def path_of(found: FoundRepository) -> str:
    """``namespace/name`` of a repository in a list."""
    return f"{found.repository.namespace}/{found.repository.name}"


async def _pinned(visit: Visit) -> dict[str, FoundRepository]:
    """What the visitor pinned, by path."""
    if visit.account is None:
        return {}
    found = await visit.call(listings.list_pinned_repositories, username=visit.account.name)
    return {path_of(one): one for one in found.repositories}


async def _may_create(visit: Visit) -> bool:
    """Whether there is a namespace in which the visitor may make repositories: the own one, as a rule."""
    return visit.account is not None and await visit.may_in(visit.account.name, "CREATE_REPOSITORY")


def _is_name(text: str) -> bool:
    """Whether a repository may be called so, with a namespace or without."""
    try:
        parse_repository_name(text if "/" in text else f"a/{text}")
    except NameInvalid:
        return False
    return True


# --- pins -----------------------------------------------------------------------------------------------------


@pages.post("/repositories/pin")
async def pin(visit: Visit) -> Response:
    """Pin a repository (the field `pin`), or no longer (`unpin`), and go back."""
    username = visit.require_login().name
    path, unpinned = await visit.text("pin"), await visit.text("unpin")
    operation = listings.put_pinned_repository if path else listings.delete_pinned_repository
    try:
        await visit.submit(operation, username=username, path=_path(path or unpinned))
    except Refused as refused:
        return visit.redirect(visit.back, " ".join([*refused.problems.general, *refused.problems.fields.values()]))
    if path:
        return visit.redirect(
            visit.back, visit._("{name} is pinned.", name=path), undo=("/repositories/pin", {"unpin": path})
        )
    return visit.redirect(
        visit.back,
        visit._("{name} is no longer pinned.", name=unpinned),
        undo=("/repositories/pin", {"pin": unpinned}),
    )


def _path(text: str) -> str:
    try:
        return parse_repository_name(text)
    except NameInvalid:
        raise ApiError("NO_SUCH_REPOSITORY", text[:255]) from None


# --- a new one ------------------------------------------------------------------------------------------------

_FIELDS = {
    "REPOSITORY_EXISTS": "name",
    "INVALID_REPOSITORY_NAME": "name",
    "NO_SUCH_ACCOUNT": "namespace",
    "NOT_AUTHORIZED": "namespace",
    "shortDescription": "about",
    "longDescription": "readme",
    "tagLimit": "limit",
    "immutableTagPatterns": "patterns",
}


@pages.get("/repositories/new")
async def show_new(visit: Visit) -> Response:
    """The form of a new repository; `name` in the address says how it is to be called."""
    account = visit.require_login()
    if not await _may_create(visit):
        raise ApiError("NOT_AUTHORIZED")
    namespace, slash, name = visit.query.get("name", "").strip()[:255].rpartition("/")
    typed = {
        "namespace": namespace if slash else visit.query.get("namespace", account.name)[:255],
        "name": name,
        "visibility": "private",
        "about": "",
        "readme": "",
        "scan": "manual",
        "immutability": "off",
        "patterns": "",
        "limit": "",
    }
    return visit.page("repositories/new.html", **await _form(visit, typed))


@pages.post("/repositories/new")
async def create(visit: Visit) -> Response:
    """Make a repository, and lead to its tags, where the commands of the first push are."""
    visit.require_login()
    names = (
        "namespace", "name", "visibility", "about", "readme", "scan", "immutability", "patterns", "limit",
    )  # fmt: skip
    typed = {name: await visit.text(name) for name in names}
    namespace, slash, name = typed["name"].partition("/")
    if slash and namespace == typed["namespace"]:  # typed as it is pushed to
        typed["name"] = name
    data: dict[str, object] = {
        "name": typed["name"],
        "visibility": "public" if typed["visibility"] == "public" else "private",
        "shortDescription": typed["about"],
        "longDescription": typed["readme"],
        "scanOnPush": typed["scan"] == "push",
        "immutableTags": typed["immutability"] == "all",
        "immutableTagPatterns": typed["patterns"].split() if typed["immutability"] == "some" else [],
    }
    problems = _problems(visit, typed, data)
    try:
        if problems:
            raise Refused(problems)
        made = await visit.submit(
            repositories.create_repository,
            form=RepositoryForm,
            data=data,
            fields=_FIELDS,
            namespace=typed["namespace"],
        )
    except Refused as refused:
        return visit.refuse("repositories/new.html", refused, **await _form(visit, typed))
    path = f"{made.namespace}/{made.name}"
    return visit.redirect(f"/repositories/{quote(path)}/tags", visit._("{name} is there now.", name=path))


def _problems(visit: Visit, typed: dict[str, str], data: dict[str, object]) -> Problems:
    """What is wrong with what was typed, as far as the API cannot say it; the tag limit is put into `data`."""
    problems = Problems()
    if not typed["name"]:
        problems.add("name", visit._("Fill in this field."))
    elif not _is_name(f"a/{typed['name']}"):
        problems.add("name", visit._("Use small letters, digits, and . _ - between them."))
    if not typed["namespace"]:
        problems.add("namespace", visit._("Fill in this field."))
    if typed["immutability"] == "some" and not typed["patterns"]:
        problems.add("patterns", visit._("Say which tags: a pattern in each line."))
    limit = typed["limit"]
    if limit and not (limit.isascii() and limit.isdecimal() and len(limit) < 10):
        problems.add("limit", visit._("The tag limit is a number."))
    elif int(limit or 0) and typed["immutability"] != "off":
        problems.add(
            "limit", visit._("Tags that stay cannot be pushed out. Leave the limit empty, or let all tags move.")
        )
    else:
        data["tagLimit"] = int(limit or 0)
    return problems


async def _form(visit: Visit, typed: dict[str, str]) -> dict[str, Any]:
    """What the form's template needs."""
    found = await visit.call(listings.list_namespaces, limit=_MOST_NAMESPACES + 1)
    namespaces = found.namespaces[:_MOST_NAMESPACES]
    if typed["namespace"] and typed["namespace"] not in namespaces:
        namespaces.append(typed["namespace"])
    return {
        "typed": typed,
        "namespaces": namespaces,
        "pairs": [(name, name) for name in namespaces],
        "has_more": len(found.namespaces) > _MOST_NAMESPACES,
        "immutability": typed["immutability"] if typed["immutability"] in _IMMUTABILITY else "off",
    }


# --- the first steps ------------------------------------------------------------------------------------------


@pages.get("/")
async def show_first(visit: Visit) -> Response:
    """The first page: the repositories; the first steps as long as there is nothing; the log-in for nobody."""
    if visit.account is None:
        return visit.redirect(f"/login?next={quote('/repositories', safe='')}")
    found = await visit.call(listings.list_owners, limit=1)
    return visit.redirect("/repositories" if found.owners else "/welcome")


@pages.get("/welcome")
async def show_first_steps(visit: Visit) -> Response:
    """How to get an image into the registry, with commands to copy."""
    visit.require_login()
    return visit.page(
        "repositories/first_steps.html",
        steps=await _first_steps(visit),
        may_create=await _may_create(visit),
        has_authority=visit.rooms.installation.authority is not None,
    )


class FirstSteps(Struct, frozen=True):
    """What the commands of the first steps say."""

    username: str
    host: str
    path: str
    """Of the repository that they push to."""
    is_there: bool
    """Whether there is such a repository; else it has to be made before."""


async def _first_steps(visit: Visit) -> FirstSteps:
    username = visit.require_login().name
    own = await visit.call(listings.list_namespaces, limit=1)
    namespace = own.namespaces[0] if own.namespaces else username
    found = await visit.listing(listings.search_repositories, start="", size=1, namespace=namespace, sort="pushed")
    mine = [path_of(one) for one in found.records.repositories]
    return FirstSteps(username, visit.host, mine[0] if mine else f"{namespace}/my-app", bool(mine))
