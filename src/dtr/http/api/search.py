"""``/api/v0/index``: search, and the address at which ``docker search HOST/TERM`` asks, ``/v1/search``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

from fastapi import Depends, Query, Request
from pydantic import Field

from dtr.accounts import Operation, TokenExpired, TokenInvalid
from dtr.http.api.caller import CallerDep, identify
from dtr.http.api.enzi.records import account_records
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import AccountRecord, Record
from dtr.http.api.operations import Router
from dtr.http.api.repositories import RepositoryRecord, find_owner, repository_records
from dtr.http.api.rooms import RoomsDep

if TYPE_CHECKING:
    from dtr.accounts import TokenScope
    from dtr.http.api.rooms import Rooms

router = Router(prefix="/api/v0/index", tags=["index"])
docker_router = Router(prefix="/v1", tags=["index"])

_MOST = 100
_NOBODY = "Basic Og=="
"""An empty name with an empty password."""
_NEVER = "Always `false`: that is of Docker Hub."
_Q = Query(max_length=256, description="A part of what is looked for; one or two letters: its beginning.")


class Autocomplete(Record):
    """What fits, the best first: what is called so, begins so, has it in its name, is described so."""

    repository_results: list[RepositoryRecord] = Field(description="Those that the caller may see.")
    account_results: list[AccountRecord] = Field(
        description="Whatever the caller may see; empty for whoever is not logged in."
    )


class DockerRepository(Record):
    """A repository, as ``docker search`` shows it."""

    name: str
    description: str
    star_count: int = Field(0, alias="star_count", description="Always 0: there are no stars.")
    is_official: bool = Field(False, alias="is_official", description=_NEVER)
    is_trusted: bool = Field(False, alias="is_trusted", description=_NEVER)
    is_automated: bool = Field(False, alias="is_automated", description=_NEVER)


class DockerSearch(Record):
    """What ``docker search`` is told."""

    num_results: int = Field(alias="num_results", description="How many there are here.")
    query: str = Field(description="What was looked for.")
    results: list[DockerRepository]


@router.get(
    "/autocomplete",
    summary="Repositories and accounts that fit",
    response_model_exclude_none=True,
    responses=errors("NO_SUCH_ACCOUNT"),
)
async def autocomplete(
    caller: CallerDep,
    rooms: RoomsDep,
    query: Annotated[str, _Q],
    include_repositories: Annotated[
        bool, Query(alias="includeRepositories", description="Look for repositories.")
    ] = True,
    include_accounts: Annotated[bool, Query(alias="includeAccounts", description="Look for accounts.")] = True,
    namespace: Annotated[str, Query(description="Only repositories of this account.")] = "",
    limit: Annotated[int, Query(ge=1, le=2**31 - 1, description="Most results of each kind.")] = 25,
) -> Autocomplete:
    """For everybody; whoever is not logged in finds public repositories."""
    limit = min(limit, _MOST)
    repositories: list[RepositoryRecord] = []
    owner = await find_owner(caller, rooms, namespace) if namespace else None
    if include_repositories and not (namespace and owner is None):
        ids = await rooms.search.find_repositories(
            query, caller.account_id, scope=caller.scope, namespace=owner, limit=limit
        )
        place = {str(number): place for place, number in enumerate(ids)}
        repositories = sorted(await repository_records(caller, rooms, ids), key=lambda one: place[one.id])
    accounts: list[AccountRecord] = []
    if include_accounts and caller.may(Operation.SEE_ACCOUNTS):
        accounts = [*await account_records(rooms.accounts, await rooms.search.find_accounts(query, limit=limit))]
    return Autocomplete(repository_results=repositories, account_results=accounts)


@router.get("/dockersearch", summary="Repositories, as docker search shows them")
async def search_for_docker(caller: CallerDep, rooms: RoomsDep, q: Annotated[str, _Q]) -> DockerSearch:
    """For everybody; whoever is not logged in finds public repositories."""
    return await _docker_search(rooms, q, caller.account_id, caller.scope, 25)


class _Searcher(NamedTuple):
    """Who searches: an account's id (None: anonymous), and what the token that it showed is good for."""

    account: str | None
    scope: TokenScope | None


async def _identify(request: Request) -> _Searcher:
    """
    Who searches.

    docker sends Basic credentials, or, when it has logged in, a token of the token service, as for ``/v2/``. When
    it has not, its credentials are empty.
    """
    header = request.headers.get("authorization", "")
    if header == _NOBODY:
        return _Searcher(None, None)
    scheme, _, token = header.partition(" ")
    if scheme.lower() == "bearer" and token.count(".") == 2:
        try:
            claims = await request.app.state.rooms.tokens.verify(token.strip())
        except (TokenExpired, TokenInvalid) as error:
            raise ApiError("NOT_AUTHENTICATED", str(error)) from None
        return _Searcher(claims.account_id, claims.scope)
    caller = await identify(request)
    return _Searcher(caller.account_id, caller.scope)


@docker_router.get("/_ping", summary="What docker asks before it searches", include_in_schema=False)
async def docker_ping() -> dict[str, bool]:
    """`standalone`: credentials may be sent with each request."""
    return {"standalone": True}


@docker_router.get("/search", summary="Repositories, as docker search asks for them", include_in_schema=False)
async def docker_v1_search(
    rooms: RoomsDep,
    searcher: Annotated[_Searcher, Depends(_identify)],
    q: Annotated[str, _Q] = "",
    n: Annotated[int, Query(ge=1, le=2**31 - 1)] = 25,
) -> DockerSearch:
    """For everybody; whoever is not logged in finds public repositories."""
    return await _docker_search(rooms, q, *searcher, min(n, _MOST))


async def _docker_search(
    rooms: Rooms, text: str, account: str | None, scope: TokenScope | None, limit: int
) -> DockerSearch:
    ids = await rooms.search.find_repositories(text, account, scope=scope, limit=limit)
    found = {one.id: one for one in await rooms.repositories.get_many(ids)}
    results = [
        DockerRepository(name=found[number].path, description=found[number].settings.short_description)
        for number in ids
        if number in found
    ]
    return DockerSearch(num_results=len(results), query=text, results=results)
