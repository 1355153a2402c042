"""
Users, organisations, teams, grants and access tokens, and what follows from them.

Names of accounts are namespaces, hence the first part of repository names. An access token is stored as its
SHA-256: it has 256 bits, nobody guesses it, and it needs no slow hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import (
    AccountInUse,
    AccountNameInvalid,
    AccountUnknown,
    BadCredentials,
    NameTaken,
    NotGrantable,
    TeamUnknown,
)
from dtr.accounts.passwords import Passwords
from dtr.accounts.permissions import Facts, Level
from dtr.accounts.throttle import Throttle
from dtr.db import ConstraintViolated, DatabaseError, Statement, in_list, now
from dtr.db.schema import (
    accounts,
    blobs,
    namespace_grants,
    organization_members,
    repositories,
    repository_blobs,
    repository_grants,
    team_members,
    teams,
    tokens,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from dtr.db import Database, Row, Transaction

Kind: TypeAlias = Literal["user", "organization"]
TokenKind: TypeAlias = Literal["access", "refresh"]

SHARED_ORGANIZATION = "docker-datacenter"
"""There from the start, as in DTR."""
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_LONGEST_NAME = 100
_PREFIXES: dict[TokenKind, str] = {"access": "dtra_", "refresh": "dtrr_"}
_TOUCH_MS = 60_000
_HOLDERS_LOOKED_AT = 100

_ACCOUNT_COLUMNS = (
    accounts.c.id,
    accounts.c.name,
    accounts.c.kind,
    accounts.c.full_name,
    accounts.c.is_admin,
    accounts.c.is_active,
)
_INSERT = Statement(
    insert(accounts)
    .values(
        id=bindparam("id"),
        name=bindparam("name"),
        kind=bindparam("kind"),
        full_name=bindparam("full_name"),
        is_admin=bindparam("is_admin", type_=Boolean),
        is_active=True,
        is_imported=False,
        password_hash=bindparam("password_hash"),
        created_at=now(),
    )
    .on_conflict_do_nothing(index_elements=["name"])
)
_FIND = Statement(select(*_ACCOUNT_COLUMNS).where(accounts.c.name == bindparam("name")))
_FIND_SECRET = Statement(
    select(*_ACCOUNT_COLUMNS, accounts.c.password_hash).where(accounts.c.name == bindparam("name"))
)
_FIND_BY_TOKEN = Statement(
    select(
        *_ACCOUNT_COLUMNS,
        tokens.c.kind,
        or_(tokens.c.last_used_at.is_(None), tokens.c.last_used_at < now() - _TOUCH_MS),
    )
    .join_from(tokens, accounts, tokens.c.account_id == accounts.c.id)
    .where(
        tokens.c.id == bindparam("id"),
        tokens.c.is_active.is_(True),
        or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now()),
    )
)
_TOUCH = Statement(update(tokens).where(tokens.c.id == bindparam("which")).values(last_used_at=now()))
_LIST = Statement(
    select(*_ACCOUNT_COLUMNS)
    .where(accounts.c.name > bindparam("after"))
    .order_by(accounts.c.name)
    .limit(bindparam("limit", type_=BigInteger))
)
_COUNT = Statement(select(func.count()).select_from(select(accounts.c.id).limit(1).subquery()))
_SET_PASSWORD = Statement(
    update(accounts).where(accounts.c.id == bindparam("which")).values(password_hash=bindparam("password_hash"))
)
_SET_ACTIVE = Statement(
    update(accounts)
    .where(accounts.c.id == bindparam("which"))
    .values(is_active=bindparam("active", type_=Boolean))
)
_SET_ADMIN = Statement(
    update(accounts).where(accounts.c.id == bindparam("which")).values(is_admin=bindparam("admin", type_=Boolean))
)
_DELETE = Statement(delete(accounts).where(accounts.c.id == bindparam("which")))
_OWNS_REPOSITORIES = Statement(
    select(repositories.c.id).where(repositories.c.namespace_id == bindparam("id")).limit(1)
)
_END_TOKENS = Statement(
    delete(tokens).where(tokens.c.account_id == bindparam("account"), tokens.c.kind == bindparam("kind"))
)

# --- organisations, teams, grants ---------------------------------------------------------------------------

_PUT_MEMBER = Statement(
    insert(organization_members)
    .values(
        organization_id=bindparam("organization"),
        user_id=bindparam("user"),
        is_admin=bindparam("is_admin", type_=Boolean),
    )
    .on_conflict_do_update(
        index_elements=["organization_id", "user_id"], set_={"is_admin": bindparam("is_admin", type_=Boolean)}
    )
)
_ADD_MEMBER = Statement(
    insert(organization_members)
    .values(organization_id=bindparam("organization"), user_id=bindparam("user"), is_admin=False)
    # The update changes nothing: it locks the row, so that nobody is put into a team while leaving.
    .on_conflict_do_update(
        index_elements=["organization_id", "user_id"], set_={"is_admin": organization_members.c.is_admin}
    )
)
_REMOVE_MEMBER = Statement(
    delete(organization_members).where(
        organization_members.c.organization_id == bindparam("organization"),
        organization_members.c.user_id == bindparam("user"),
    )
)
_REMOVE_FROM_TEAMS = Statement(
    delete(team_members).where(
        team_members.c.user_id == bindparam("user"),
        team_members.c.team_id.in_(select(teams.c.id).where(teams.c.organization_id == bindparam("organization"))),
    )
)
_INSERT_TEAM = Statement(
    insert(teams)
    .values(
        id=bindparam("id"),
        organization_id=bindparam("organization"),
        name=bindparam("name"),
        description=bindparam("description"),
    )
    .on_conflict_do_nothing(index_elements=["organization_id", "name"])
)
_FIND_TEAM = Statement(
    select(teams.c.id, teams.c.organization_id)
    .join_from(teams, accounts, teams.c.organization_id == accounts.c.id)
    .where(accounts.c.name == bindparam("organization"), teams.c.name == bindparam("team"))
)
_DELETE_TEAM = Statement(delete(teams).where(teams.c.id == bindparam("team")))
_PUT_TEAM_MEMBER = Statement(
    insert(team_members)
    .values(team_id=bindparam("team"), user_id=bindparam("user"), is_admin=False)
    .on_conflict_do_nothing()
)
_REMOVE_TEAM_MEMBER = Statement(
    delete(team_members).where(
        team_members.c.team_id == bindparam("team"), team_members.c.user_id == bindparam("user")
    )
)
_FIND_REPOSITORY = Statement(
    select(repositories.c.id, repositories.c.namespace_id).where(
        repositories.c.path == bindparam("path"), repositories.c.deleted_at.is_(None)
    )
)
_GRANT_REPOSITORY = Statement(
    insert(repository_grants)
    .values(repository_id=bindparam("repository"), team_id=bindparam("team"), level=bindparam("level"))
    .on_conflict_do_update(index_elements=["repository_id", "team_id"], set_={"level": bindparam("level")})
)
_REVOKE_REPOSITORY = Statement(
    delete(repository_grants).where(
        repository_grants.c.repository_id == bindparam("repository"),
        repository_grants.c.team_id == bindparam("team"),
    )
)
_GRANT_NAMESPACE = Statement(
    insert(namespace_grants)
    .values(namespace_id=bindparam("namespace"), team_id=bindparam("team"), level=bindparam("level"))
    .on_conflict_do_update(index_elements=["namespace_id", "team_id"], set_={"level": bindparam("level")})
)
_REVOKE_NAMESPACE = Statement(
    delete(namespace_grants).where(
        namespace_grants.c.namespace_id == bindparam("namespace"), namespace_grants.c.team_id == bindparam("team")
    )
)

# --- access tokens ------------------------------------------------------------------------------------------

_INSERT_TOKEN = Statement(
    insert(tokens).values(
        id=bindparam("id"),
        account_id=bindparam("account"),
        kind=bindparam("kind"),
        label=bindparam("label"),
        is_active=True,
        created_at=now(),
        generated_by=bindparam("generated_by"),
        creator_user_agent=bindparam("user_agent"),
    )
)
_LIST_TOKENS = Statement(
    select(tokens.c.id, tokens.c.label, tokens.c.is_active, tokens.c.created_at, tokens.c.last_used_at)
    .where(tokens.c.account_id == bindparam("account"), tokens.c.kind == "access")
    .order_by(tokens.c.created_at, tokens.c.id)
)
_DELETE_TOKEN = Statement(
    delete(tokens).where(tokens.c.account_id == bindparam("account"), tokens.c.id == bindparam("id"))
)

# --- what somebody may do -----------------------------------------------------------------------------------

_me = bindparam("account", type_=Text)
_asker = accounts.alias("asker")
_owner = accounts.alias("owner")


def _level(column: ColumnElement[str]) -> ColumnElement[int]:
    return case({level.label: int(level) for level in Level if level}, value=column, else_=0)


_repository_level = (
    select(func.max(_level(repository_grants.c.level)))
    .join_from(repository_grants, team_members, repository_grants.c.team_id == team_members.c.team_id)
    .where(repository_grants.c.repository_id == repositories.c.id, team_members.c.user_id == _asker.c.id)
    .scalar_subquery()
)
_namespace_level = (
    select(func.max(_level(namespace_grants.c.level)))
    .join_from(namespace_grants, team_members, namespace_grants.c.team_id == team_members.c.team_id)
    .where(namespace_grants.c.namespace_id == _owner.c.id, team_members.c.user_id == _asker.c.id)
    .scalar_subquery()
)
_STANDINGS = Statement(
    select(
        _owner.c.name,
        repositories.c.path,
        repositories.c.id,
        repositories.c.visibility,
        _asker.c.id,
        _asker.c.is_admin,
        or_(_owner.c.id == _asker.c.id, func.coalesce(organization_members.c.is_admin, False)),
        _repository_level,
        _namespace_level,
    )
    .select_from(_owner)
    .outerjoin(
        repositories,
        and_(
            in_list(repositories.c.path, "paths"),
            # No index serves this form: the one over paths is to be used, whatever the size of the namespace.
            repositories.c.namespace_id.concat("") == _owner.c.id,
            repositories.c.deleted_at.is_(None),
        ),
    )
    .outerjoin(_asker, and_(_asker.c.id == _me, _asker.c.is_active.is_(True)))
    .outerjoin(
        organization_members,
        and_(
            organization_members.c.organization_id == _owner.c.id,
            organization_members.c.user_id == _asker.c.id,
        ),
    )
    .where(in_list(_owner.c.name, "namespaces"))
)
# The same rule as `Facts.level >= READ`, for lists. A test holds the two together. What is inside of a subquery is
# correlated by name: SQLAlchemy itself looks at the next enclosing query only.
_visible = or_(
    repositories.c.visibility == "public",
    exists().where(
        _asker.c.id == _me,
        _asker.c.is_active.is_(True),
        or_(
            _asker.c.is_admin.is_(True),
            repositories.c.namespace_id == _asker.c.id,
            *(
                exists().where(*conditions).correlate(repositories, _asker)
                for conditions in (
                    (
                        organization_members.c.organization_id == repositories.c.namespace_id,
                        organization_members.c.user_id == _asker.c.id,
                        organization_members.c.is_admin.is_(True),
                    ),
                    (
                        repository_grants.c.repository_id == repositories.c.id,
                        repository_grants.c.team_id == team_members.c.team_id,
                        team_members.c.user_id == _asker.c.id,
                    ),
                    (
                        namespace_grants.c.namespace_id == repositories.c.namespace_id,
                        namespace_grants.c.team_id == team_members.c.team_id,
                        team_members.c.user_id == _asker.c.id,
                    ),
                )
            ),
        ),
    ),
)
_LIST_VISIBLE = Statement(
    select(repositories.c.path)
    .where(repositories.c.path > bindparam("after"), repositories.c.deleted_at.is_(None), _visible)
    .order_by(repositories.c.path)
    .limit(bindparam("limit", type_=BigInteger))
)
_holders = (
    select(repository_blobs.c.repository_id)
    .join(blobs, blobs.c.digest == repository_blobs.c.digest)
    .where(repository_blobs.c.digest == bindparam("digest"), blobs.c.state == "present")
    .limit(_HOLDERS_LOOKED_AT)
    .subquery()
)
_VISIBLE_HOLDER = Statement(
    select(repositories.c.path)
    .join_from(_holders, repositories, repositories.c.id == _holders.c.repository_id)
    .where(repositories.c.deleted_at.is_(None), _visible)
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Account:
    """A user or an organisation."""

    id: str
    name: str
    kind: Kind
    full_name: str
    is_admin: bool
    is_active: bool


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What is known of an access token; times in milliseconds since 1970."""

    id: str
    label: str
    is_active: bool
    created_at: int
    last_used_at: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands to a repository; None: there is no such repository."""

    repository_id: int | None
    facts: Facts


class Accounts:
    """All accounts."""

    def __init__(self, database: Database, passwords: Passwords | None = None) -> None:
        self._database = database
        self._passwords = passwords or Passwords()
        self._throttle = Throttle(database)

    # --- accounts ---

    async def create_user(
        self, name: str, password: str | None, *, full_name: str = "", is_admin: bool = False
    ) -> str:
        """Make a user; its id. Raises AccountNameInvalid, NameTaken, PasswordInvalid."""
        hashed = None if password is None else await self._passwords.hash(password)
        return await self._create(name, "user", full_name, is_admin=is_admin, password_hash=hashed)

    async def create_organization(self, name: str, *, full_name: str = "") -> str:
        """Make an organisation; its id. Raises AccountNameInvalid, NameTaken."""
        return await self._create(name, "organization", full_name, is_admin=False, password_hash=None)

    async def find(self, name: str) -> Account | None:
        """The account of this name."""
        row = await self._database.fetch_one(_FIND, name=_findable(name))
        return _account(row) if row else None

    async def get(self, name: str, kind: Kind | None = None) -> Account:
        """The account of this name (and kind). Raises AccountUnknown."""
        found = await self.find(name)
        if found is None or kind not in {None, found.kind}:
            raise AccountUnknown(name)
        return found

    async def list_accounts(self, *, after: str = "", limit: int) -> list[Account]:
        """At most `limit` accounts behind the name `after`, by name."""
        return [_account(row) for row in await self._database.fetch_all(_LIST, after=after, limit=limit)]

    async def is_empty(self) -> bool:
        """Whether there is no account at all: the first start."""
        row = await self._database.fetch_one(_COUNT)
        return row is None or row[0] == 0

    async def set_password(self, name: str, password: str) -> None:
        """Give a user a new password; what log-ins left behind ends. Raises AccountUnknown, PasswordInvalid."""
        user = await self.get(name, "user")
        hashed = await self._passwords.hash(password)

        async def work(tx: Transaction) -> None:
            await tx.execute(_SET_PASSWORD, which=user.id, password_hash=hashed)
            await tx.execute(_END_TOKENS, account=user.id, kind="refresh")

        await self._database.unit(work)

    async def set_active(self, name: str, active: bool) -> None:
        """Let a user log in, or no longer. Raises AccountUnknown."""
        user = await self.get(name, "user")

        async def work(tx: Transaction) -> None:
            await tx.execute(_SET_ACTIVE, which=user.id, active=active)
            if not active:
                await tx.execute(_END_TOKENS, account=user.id, kind="refresh")

        await self._database.unit(work)

    async def set_admin(self, name: str, admin: bool) -> None:
        """Make a user a system administrator, or no longer. Raises AccountUnknown."""
        user = await self.get(name, "user")

        async def work(tx: Transaction) -> None:
            await tx.execute(_SET_ADMIN, which=user.id, admin=admin)

        await self._database.unit(work)

    async def delete(self, name: str) -> None:
        """Remove an account, its teams, grants and tokens. Raises AccountUnknown, AccountInUse."""
        account = await self.get(name)

        async def work(tx: Transaction) -> None:
            if await tx.fetch_one(_OWNS_REPOSITORIES, id=account.id):
                raise AccountInUse(name)
            await tx.execute(_DELETE, which=account.id)

        try:
            await self._database.unit(work)
        except ConstraintViolated:  # a repository was made meanwhile
            raise AccountInUse(name) from None

    # --- organisations, teams, grants ---

    async def put_member(self, organization: str, user: str, *, is_admin: bool = False) -> None:
        """Make a user a member of an organisation, `is_admin`: an owner. Raises AccountUnknown."""
        organization_id = (await self.get(organization, "organization")).id
        user_id = (await self.get(user, "user")).id

        async def work(tx: Transaction) -> None:
            await tx.execute(_PUT_MEMBER, organization=organization_id, user=user_id, is_admin=is_admin)

        await self._database.unit(work)

    async def remove_member(self, organization: str, user: str) -> None:
        """Take a user out of an organisation and its teams. Raises AccountUnknown."""
        organization_id = (await self.get(organization, "organization")).id
        user_id = (await self.get(user, "user")).id

        async def work(tx: Transaction) -> None:
            await tx.execute(_REMOVE_MEMBER, organization=organization_id, user=user_id)
            await tx.execute(_REMOVE_FROM_TEAMS, organization=organization_id, user=user_id)

        await self._database.unit(work)

    async def create_team(self, organization: str, team: str, *, description: str = "") -> str:
        """Make a team of an organisation; its id. Raises AccountUnknown, AccountNameInvalid, NameTaken."""
        _check_name(team)
        organization_id = (await self.get(organization, "organization")).id
        made = str(uuid.uuid4())

        async def work(tx: Transaction) -> None:
            if not await tx.execute(
                _INSERT_TEAM, id=made, organization=organization_id, name=team, description=description
            ):
                raise NameTaken(team)

        await self._database.unit(work)
        return made

    async def delete_team(self, organization: str, team: str) -> None:
        """Remove a team and what it was granted. Raises TeamUnknown."""
        team_id, _ = await self._team(organization, team)

        async def work(tx: Transaction) -> None:
            await tx.execute(_DELETE_TEAM, team=team_id)

        await self._database.unit(work)

    async def put_team_member(self, organization: str, team: str, user: str) -> None:
        """Put a user into a team, and thereby into the organisation. Raises TeamUnknown, AccountUnknown."""
        team_id, organization_id = await self._team(organization, team)
        user_id = (await self.get(user, "user")).id

        async def work(tx: Transaction) -> None:
            await tx.execute(_ADD_MEMBER, organization=organization_id, user=user_id)
            await tx.execute(_PUT_TEAM_MEMBER, team=team_id, user=user_id)

        await self._database.unit(work)

    async def remove_team_member(self, organization: str, team: str, user: str) -> None:
        """Take a user out of a team. Raises TeamUnknown, AccountUnknown."""
        team_id, _ = await self._team(organization, team)
        user_id = (await self.get(user, "user")).id

        async def work(tx: Transaction) -> None:
            await tx.execute(_REMOVE_TEAM_MEMBER, team=team_id, user=user_id)

        await self._database.unit(work)

    async def grant(self, organization: str, team: str, level: Level, *, repository: str | None = None) -> None:
        """
        Give a team a level on a repository, or on the whole namespace of its organisation; NONE takes it away.

        Raises TeamUnknown, AccountUnknown (no such repository), NotGrantable.
        """
        team_id, organization_id = await self._team(organization, team)
        if repository is None:
            await self._change(
                _GRANT_NAMESPACE if level else _REVOKE_NAMESPACE, team_id, level, namespace=organization_id
            )
            return
        row = await self._database.fetch_one(_FIND_REPOSITORY, path=_findable(repository))
        if row is None:
            raise AccountUnknown(repository)
        if row[1] != organization_id:
            raise NotGrantable("the team does not belong to the organization that owns the repository")
        await self._change(_GRANT_REPOSITORY if level else _REVOKE_REPOSITORY, team_id, level, repository=row[0])

    async def _change(self, statement: Statement, team: str, level: Level, **what: object) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(statement, team=team, level=level.label, **what)

        await self._database.unit(work)

    async def _team(self, organization: str, team: str) -> tuple[str, str]:
        row = await self._database.fetch_one(
            _FIND_TEAM, organization=_findable(organization), team=_findable(team)
        )
        if row is None:
            raise TeamUnknown(organization, team)
        return row[0], row[1]

    # --- logging in ---

    async def authenticate(self, name: str, secret: str, address: str) -> Account:
        """
        The user who gives this name and password, or access token, from `address`.

        A right token is not slowed down: nobody guesses it, so nobody can keep its owner out. Raises
        BadCredentials, TooManyAttempts.
        """
        if secret.startswith(_PREFIXES["access"]):
            found = await self._check_token(secret, "access")
            if found is not None and found.name == name:
                return found
        async with self._throttle.turn(address):
            noteworthy = await self._throttle.check(name, address)
            found = await self._check_password(name, secret)
            if found is None:
                await self._throttle.failed(name, address)
                raise BadCredentials
            if noteworthy:
                await self._note(self._throttle.succeeded(name, address))
        return found

    async def authenticate_token(self, secret: str, kind: TokenKind, address: str) -> Account:
        """The user whose token this is; as for `authenticate`. Raises BadCredentials, TooManyAttempts."""
        found = await self._check_token(secret, kind)
        if found is None:
            await self._throttle.check(None, address)
            await self._throttle.failed(None, address)
            raise BadCredentials
        return found

    async def create_token(
        self, name: str, label: str, *, kind: TokenKind = "access", generated_by: str = "", user_agent: str = ""
    ) -> str:
        """A new secret that opens the account; it is not kept. Raises AccountUnknown."""
        user = await self.get(name, "user")
        secret = _PREFIXES[kind] + secrets.token_urlsafe(32)

        async def work(tx: Transaction) -> None:
            await tx.execute(
                _INSERT_TOKEN,
                id=_token_id(secret),
                account=user.id,
                kind=kind,
                label=label,
                generated_by=generated_by or name,
                user_agent=user_agent[:500],
            )

        await self._database.unit(work)
        return secret

    async def list_tokens(self, name: str) -> list[AccessToken]:
        """The access tokens of a user, oldest first. Raises AccountUnknown."""
        user = await self.get(name, "user")
        rows = await self._database.fetch_all(_LIST_TOKENS, account=user.id)
        return [AccessToken(row[0], row[1], bool(row[2]), row[3], row[4]) for row in rows]

    async def delete_token(self, name: str, token: str) -> bool:
        """End a token by its id; whether it was there. Raises AccountUnknown."""
        user = await self.get(name, "user")

        async def work(tx: Transaction) -> bool:
            return await tx.execute(_DELETE_TOKEN, account=user.id, id=token) > 0

        return await self._database.unit(work)

    @staticmethod
    async def _note(writing: Awaitable[None]) -> None:
        """Write down something about a right log-in, which it stays when that fails, on a full disk."""
        with contextlib.suppress(DatabaseError):
            await writing

    async def _check_password(self, name: str, secret: str) -> Account | None:
        row = await self._database.fetch_one(_FIND_SECRET, name=_findable(name))
        right, outdated = await self._passwords.verify(row[6] if row else None, secret)
        if row is None or not right:
            return None
        found = _account(row)
        if found.kind != "user" or not found.is_active:
            return None
        if outdated:
            hashed = await self._passwords.hash(secret)

            async def work(tx: Transaction) -> None:
                await tx.execute(_SET_PASSWORD, which=found.id, password_hash=hashed)

            await self._note(self._database.unit(work))
        return found

    async def _check_token(self, secret: str, kind: TokenKind) -> Account | None:
        token = _token_id(secret)
        row = await self._database.fetch_one(_FIND_BY_TOKEN, id=token)
        if row is None or row[6] != kind:
            return None
        found = _account(row)
        if not found.is_active:
            return None
        if row[7]:

            async def work(tx: Transaction) -> None:
                await tx.execute(_TOUCH, which=token)

            await self._note(self._database.unit(work))
        return found

    # --- what somebody may do ---

    async def find_standing(self, account: str | None, path: str) -> Standing:
        """How an account (None: anonymous) stands to a repository."""
        return (await self.find_standings(account, [path]))[path]

    async def find_standings(self, account: str | None, paths: Iterable[str]) -> dict[str, Standing]:
        """The same for several, in one query."""
        wanted = list(paths)
        rows = await self._database.fetch_all(
            _STANDINGS,
            account=account or "",
            paths=wanted,
            namespaces=sorted({path.partition("/")[0] for path in wanted}),
        )
        found: dict[str, Standing] = {}
        namespaces: dict[str, Facts] = {}
        for namespace, path, repository, visibility, asker, is_admin, owns, level, namespace_level in rows:
            facts = Facts(
                is_user=asker is not None,
                is_system_admin=bool(is_admin),
                owns_namespace=asker is not None and bool(owns),
                namespace_level=Level(namespace_level or 0),
            )
            namespaces[namespace] = facts
            if path is not None:
                facts = replace(facts, repository_level=Level(level or 0), is_public=visibility == "public")
                found[path] = Standing(repository, facts)
        nothing = Facts()
        return {
            path: found.get(path) or Standing(None, namespaces.get(path.partition("/")[0], nothing))
            for path in wanted
        }

    async def list_visible(self, account: str | None, *, after: str = "", limit: int) -> list[str]:
        """At most `limit` paths behind `after` of repositories that the account may see, in order."""
        rows = await self._database.fetch_all(_LIST_VISIBLE, account=account or "", after=after, limit=limit)
        return [row[0] for row in rows]

    async def find_visible_holder(self, account: str | None, digest: str) -> str | None:
        """The path of a repository with this blob that the account may pull from, if one is found quickly."""
        row = await self._database.fetch_one(_VISIBLE_HOLDER, account=account or "", digest=digest)
        return row[0] if row else None

    async def _create(
        self, name: str, kind: Kind, full_name: str, *, is_admin: bool, password_hash: str | None
    ) -> str:
        _check_name(name)
        made = str(uuid.uuid4())

        async def work(tx: Transaction) -> None:
            if not await tx.execute(
                _INSERT,
                id=made,
                name=name,
                kind=kind,
                full_name=full_name,
                is_admin=is_admin,
                password_hash=password_hash,
            ):
                raise NameTaken(name)

        await self._database.unit(work)
        return made


def _check_name(name: str) -> None:
    if len(name) > _LONGEST_NAME or _NAME.fullmatch(name) is None:
        raise AccountNameInvalid(
            f"a name is lower-case letters and digits with single '.', '_', '-' between, at most {_LONGEST_NAME}"
        )


def _findable(name: str) -> str:
    """`name`, or what nothing is called: not every text can be sent to a database."""
    return name if name.isascii() and name.isprintable() else ""


def _token_id(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _account(row: Row) -> Account:
    number, name, kind, full_name, is_admin, is_active, *_ = row
    return Account(number, name, kind, full_name, bool(is_admin), bool(is_active))
