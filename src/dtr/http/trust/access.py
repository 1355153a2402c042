"""
Who asks for which collection, and what they may.

Tokens are the registry's: a client asks for the collection's whole name, and the token has to say that name, with
the actions of the route or with ``*``. Everything asks for the rights of this moment, too: the look-up that finds
the repository finds them. A repository that is not there and one that the caller must not know of look alike.

A repository that was renamed is found under the names that it had as long as they lead to it: its collections keep
their names, which are part of what was signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from dtr.accounts import Operation, may
from dtr.http.bearer import Bearer, Unverified
from dtr.http.trust.errors import Refused, not_ours, rejected, unknown_repository
from dtr.oci import NameInvalid, parse_repository_name
from dtr.trust import Collection

if TYPE_CHECKING:
    from dtr.accounts import Accounts, Tokens
    from dtr.http.hosts import Hosts
    from dtr.http.trust.request import Request
    from dtr.settings import LiveSettings

_LONGEST_GUN = 255
_READ_ONLY = "the registry is read-only at present: nothing is signed, and no trust data deleted"


class Right(Struct, frozen=True):
    """What a route needs: the actions of a token, and an operation on the repository at this moment."""

    actions: tuple[str, ...]
    operation: Operation
    changes: bool = False
    """Whether it is refused while the registry is read-only."""


class _Wanted(Struct, frozen=True):
    """What a token has to grant."""

    kind: str
    name: str
    actions: tuple[str, ...]

    @property
    def scope(self) -> str:
        """As the token service is asked for it."""
        return f"{self.kind}:{self.name}:{','.join(self.actions)}"

    @property
    def detail(self) -> list[dict[str, str]]:
        """As the error says it."""
        return [{"Type": self.kind, "Class": "", "Name": self.name, "Action": one} for one in self.actions]


_CATALOG = _Wanted("registry", "catalog", ("*",))
READ = Right(("pull",), Operation.SEE_TAGS)
FOLLOW = Right(("pull",), Operation.SEE_TRUST_CHANGES)
SIGN = Right(("push", "pull"), Operation.PUSH, changes=True)
MANAGE = Right(("*",), Operation.MANAGE_TRUST, changes=True)


class Access:
    """Lets requests through, or raises Refused."""

    def __init__(
        self, tokens: Tokens, accounts: Accounts, settings: LiveSettings, hosts: Hosts, *, service: str
    ) -> None:
        self._bearer = Bearer(tokens, service=service)
        self._accounts = accounts
        self._settings = settings
        self._hosts = hosts

    def locate(self, request: Request) -> None:
        """Note in the request which repository is meant. Asks nobody. Raises Refused for what is not of here."""
        gun = request.route.gun
        server, path = self._hosts.split(gun, request.host)
        try:
            if not server or len(gun) > _LONGEST_GUN:
                raise NameInvalid(gun, "it does not begin with an address of this registry")
            request.path = parse_repository_name(path)
        except NameInvalid:
            message = f"{gun} is no repository under an address of this registry"
            raise not_ours(request.route.operation, message) from None

    async def collection(self, request: Request, right: Right) -> tuple[Collection, bool]:
        """The collection that is asked for, and whether it is public. Raises Refused."""
        gun = request.route.gun
        wanted = _Wanted("repository", gun, right.actions)
        await self._authenticate(request, wanted)
        claims = request.claims
        granted = claims.collections.get(gun, frozenset())
        if "*" not in granted and not granted.issuperset(right.actions):
            raise self._denied(request, wanted)
        standing = await self._accounts.standings.find(
            claims.account_id, request.path, scope=claims.scope, token=claims.shown
        )
        if standing.repository_id is None and standing.redirect is not None:
            standing = standing.redirect.standing
        if standing.repository_id is None and may(standing.facts, Operation.CREATE_REPOSITORY):
            raise unknown_repository(request.route.operation, request.path)
        if standing.repository_id is None or not may(standing.facts, right.operation):
            raise self._denied(request, wanted)
        if right.changes and self._settings.current.read_only_registry:
            raise rejected("UNSUPPORTED", _READ_ONLY)
        return Collection(standing.repository_id, gun), standing.facts.is_public

    async def require_catalog(self, request: Request) -> None:
        """Let through whose token grants the catalog. Raises Refused."""
        await self._authenticate(request, _CATALOG)
        if not request.claims.catalog:
            raise self._denied(request, _CATALOG)

    async def _authenticate(self, request: Request, wanted: _Wanted) -> None:
        try:
            request.claims = await self._bearer.verify(request.scope, request.headers)
        except Unverified as error:
            raise self._challenge(request, wanted, str(error), error.reason) from None

    def _denied(self, request: Request, wanted: _Wanted) -> Refused:
        return self._challenge(request, wanted, "the token does not grant this", "insufficient_scope")

    def _challenge(self, request: Request, wanted: _Wanted, message: str, reason: str | None) -> Refused:
        header = self._bearer.challenge(request.scope, request.headers, wanted.scope, reason)
        return Refused(401, "UNAUTHORIZED", message, wanted.detail, (header,))
