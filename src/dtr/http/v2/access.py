"""
Who asks, and what they may.

A client shows a token of the token service; without a good one it is told where to get one, and for what.
Reading trusts the token, whose life is short; whatever changes something asks for the rights of this moment, and
whether the access token that the client logged in with is good still. What that is good for bounds everything.
The answer is the same for a repository that is not there and for one that the caller must not know of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from dtr.accounts import Operation, may
from dtr.http.bearer import Bearer, Unverified
from dtr.http.v2.errors import Refused
from dtr.oci import NameInvalid, parse_repository_name
from dtr.registry import NamespaceUnknown, RepositoryExists, RepositoryUnknown, Settings

if TYPE_CHECKING:
    from dtr.accounts import Accounts, Standing, Tokens
    from dtr.http.v2.request import Request
    from dtr.mirrors import Upstreams
    from dtr.registry import Repositories
    from dtr.settings import LiveSettings

_READ_ONLY = "the registry is read-only at present: pulls go on, pushes and deletions do not"


class Access:
    """Lets requests through, or raises Refused."""

    def __init__(
        self,
        tokens: Tokens,
        accounts: Accounts,
        repositories: Repositories,
        upstreams: Upstreams,
        settings: LiveSettings,
        *,
        service: str,
    ) -> None:
        self._bearer = Bearer(tokens, service=service)
        self._accounts = accounts
        self._repositories = repositories
        self._upstreams = upstreams
        self._settings = settings

    async def authenticate(self, request: Request) -> None:
        """Verify the token, and note in the request what it says. Raises Refused, NameInvalid."""
        try:
            request.claims = await self._bearer.verify(request.scope, request.headers)
        except Unverified as error:
            raise self._challenge(request, "UNAUTHORIZED", str(error), error.reason) from None

    def require(self, request: Request, action: str) -> None:
        """Let through whose token grants the action on the repository."""
        if action not in request.claims.access.get(request.name, ()):
            raise self._denied(request)

    def require_catalog(self, request: Request) -> None:
        """Let through whose token grants the catalog."""
        if not request.claims.catalog:
            raise self._denied(request)

    async def repository_to_change(self, request: Request, action: str, operation: Operation) -> int:
        """
        The repository, when the token grants `action` and the rights of this moment allow `operation`.

        A push may make it. Raises Refused, RepositoryUnknown (to whoever could make it).
        """
        if action not in request.claims.access.get(request.name, ()):
            was_renamed = await self._accounts.standings.find_name(request.name) is not None
            raise (was_renamed and self._moved(request, await self._standing(request))) or self._denied(request)
        if self._settings.current.read_only_registry:
            raise Refused(405, "UNSUPPORTED", _READ_ONLY)
        standing = await self._standing(request)
        if standing.repository_id is None:
            moved = self._moved(request, standing)
            if moved is not None:
                raise moved
            if operation is Operation.PUSH and self._settings.current.create_repository_on_push:
                if may(standing.facts, Operation.CREATE_ON_PUSH):
                    may_be_cache = self._upstreams.visibility_in(request.name.partition("/")[0]) is not None
                    if may_be_cache and await self._upstreams.source_for(request.name) is not None:
                        raise _of_cache(request)
                    return await self._create_repository(request)
            elif may(standing.facts, Operation.CREATE_REPOSITORY):
                raise RepositoryUnknown(request.name)
            raise self._denied(request)
        if not may(standing.facts, operation):
            raise self._denied(request)
        repository = standing.repository_id
        if (
            operation is Operation.PUSH
            and self._upstreams.concerns(request.name, repository)
            and await self._upstreams.source_of(repository) is not None
        ):
            raise _of_cache(request)
        return repository

    async def may_pull(self, request: Request) -> bool:
        """Whether the caller may pull from the repository now, whatever the token of the request is for."""
        standing = await self._standing(request)
        if standing.redirect is not None:
            standing = standing.redirect.standing
        return may(standing.facts, Operation.PULL)

    async def require_fetching(self, request: Request, *, is_public: bool) -> None:
        """Let through who may pull, now, from a repository that is not there yet and will be public or private."""
        standing = await self._standing(request)
        if not may(replace(standing.facts, is_public=is_public), Operation.PULL):
            raise self._denied(request)

    async def find_name(self, request: Request) -> str | None:
        """
        What the repository is called now that is or was called so, if the caller may pull from it.

        None also when it was never renamed.
        """
        name = await self._accounts.standings.find_name(request.name)
        if name is None or name == request.name:
            return name
        standing = await self._standing(request)
        if standing.repository_id is not None:  # it got its name back at this moment
            return request.name
        redirect = standing.redirect
        return redirect.path if redirect and may(redirect.standing.facts, Operation.PULL) else None

    async def require_reading(self, request: Request, name: str, repository: int) -> None:
        """
        Let through whose token speaks of the repository that was found under a name, or who may pull from it now.

        A token grants by name, and may outlive what had that name: another repository may have it by now.
        """
        claims = request.claims
        if name == request.name and claims.repositories.get(name) == repository:
            return
        standing = await self._accounts.standings.find(
            claims.account_id, name, scope=claims.scope, token=claims.shown
        )
        if standing.redirect is not None:  # it was renamed since it was found
            standing = standing.redirect.standing
        if standing.repository_id != repository or not may(standing.facts, Operation.PULL):
            raise self._denied(request)

    async def find_source(self, request: Request, name: str, digest: str) -> tuple[str, int] | None:
        """
        Where to mount from, that the caller may pull now: `name`, or, when that is empty, any with the blob.

        Its path, and its id: another one may have the path a moment later.
        """
        account, scope = request.claims.account_id, request.claims.scope
        if not name:
            return await self._accounts.standings.find_pullable_holder(account, digest, scope=scope)
        try:
            parse_repository_name(name)
        except NameInvalid:
            return None
        standing = await self._accounts.standings.find(account, name, scope=scope)
        if standing.redirect is not None:
            name, standing = standing.redirect.path, standing.redirect.standing
        if standing.repository_id is None or not may(standing.facts, Operation.PULL):
            return None
        return name, standing.repository_id

    async def _create_repository(self, request: Request) -> int:
        name = parse_repository_name(request.name)
        try:
            return await self._repositories.create(name, Settings(visibility="private"), by=request.actor)
        except RepositoryExists:  # another push of the same client was first
            return (await self._repositories.get(name)).id
        except NamespaceUnknown:
            raise RepositoryUnknown(name) from None

    async def _standing(self, request: Request) -> Standing:
        claims = request.claims
        return await self._accounts.standings.find(
            claims.account_id, request.name, scope=claims.scope, token=claims.shown
        )

    def _moved(self, request: Request, standing: Standing) -> Refused | None:
        """What is said to who would change a repository under a name that it had, and may know the new one."""
        redirect = standing.redirect
        if redirect is None or not may(redirect.standing.facts, Operation.SEE):
            return None
        # In words of its own, for the reason that NAME_UNKNOWN has in the table of errors.
        message = f"repository {request.name} was renamed, push to {redirect.path}"
        return Refused(404, "NAME_UNKNOWN", message, {"name": request.name, "renamed": redirect.path})

    def _denied(self, request: Request) -> Refused:
        return self._challenge(
            request, "DENIED", "requested access to the resource is denied", "insufficient_scope"
        )

    def _challenge(self, request: Request, code: str, message: str, reason: str | None = None) -> Refused:
        """Where to get a token, and for what."""
        wanted = None
        if request.name:
            parse_repository_name(request.name)  # nothing else goes into the header
            wanted = f"repository:{request.name}:{_actions(request)}"
        elif request.kind == "catalog":
            wanted = "registry:catalog:*"
        header = self._bearer.challenge(request.scope, request.headers, wanted, reason)
        return Refused(401, code, message, headers=(header,))


def _of_cache(request: Request) -> Refused:
    return Refused(405, "UNSUPPORTED", f"{request.name} is a cache of another registry: images are pushed there")


def _actions(request: Request) -> str:
    """What a token has to grant for the request."""
    if request.kind in {"uploads", "upload"} or request.method == "PUT":
        return "pull,push"
    return "delete" if request.method == "DELETE" else "pull"
