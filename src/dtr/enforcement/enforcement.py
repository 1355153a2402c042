"""
Enforcement: pulls only of what is signed. The rules are in `dtr.enforcement.rules`.

Each process keeps all policies that are switched on in memory, so that a pull that none concerns costs nothing.
It follows their revision (`dtr.db.revisions`): what is changed in one holds in the others a second later. A pull
that policies concern asks the database once.

Only manifests are looked at. Whoever shows a bearer token that grants pushing is not asked here at all: a push and
a signature begin with reading what is there, and who may write has other ways to get at what is written.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, Text, and_, bindparam, delete, func, or_, select, true
from sqlalchemy.dialects.postgresql import insert

from dtr.db import ConstraintViolated, Statement, each_row, in_list, now
from dtr.db.revisions import Revision
from dtr.db.schema import (
    accounts,
    enforcement_exceptions,
    enforcement_policies,
    repositories,
    tags,
    teams,
)
from dtr.enforcement.errors import (
    EnforcementExceptionUnknown,
    EnforcementPolicyInvalid,
    EnforcementPolicyUnknown,
    PullRefused,
)
from dtr.enforcement.evidence import read_evidence
from dtr.enforcement.refusals import Refusals
from dtr.enforcement.rules import REGISTRY, Policy, PolicyException, Pull, Scope, Team, decide
from dtr.events import SYSTEM, Event, Object, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dtr.db import Database, Reader, Row, Transaction
    from dtr.enforcement.rules import Verdict
    from dtr.events import Actor

_log = logging.getLogger("dtr.enforcement")

_MOST_EXCEPTIONS = 100
"""Of a policy: they are all kept in memory."""

_columns = (
    enforcement_policies.c.repository_id,
    enforcement_policies.c.namespace_id,
    enforcement_policies.c.mode,
    enforcement_policies.c.signers,
    enforcement_policies.c.teams,
    enforcement_policies.c.scope,
)
_scope = enforcement_policies.c.scope == bindparam("scope", type_=Text)
_GET = Statement(lambda: select(*_columns).where(_scope))
_LOCK = Statement(lambda: select(*_columns).where(_scope).with_for_update())
_ACTIVE = Statement(lambda: select(*_columns).where(enforcement_policies.c.mode != "off"))
_new = insert(enforcement_policies).values(
    scope=bindparam("scope"),
    repository_id=bindparam("repository", type_=BigInteger),
    namespace_id=bindparam("namespace"),
    mode=bindparam("mode"),
    signers=bindparam("signers"),
    teams=bindparam("teams"),
    created_at=now(),
    updated_at=now(),
)
_PUT = Statement(
    lambda: _new.on_conflict_do_update(
        index_elements=["scope"],
        set_={name: _new.excluded[name] for name in ("mode", "signers", "teams", "updated_at")},
    )
)
_DELETE = Statement(lambda: delete(enforcement_policies).where(_scope))
_named_account = (
    select(accounts.c.name)
    .where(enforcement_exceptions.c.kind == "account", accounts.c.id == enforcement_exceptions.c.value)
    .scalar_subquery()
)
_exception_columns = (
    enforcement_exceptions.c.id,
    enforcement_exceptions.c.kind,
    enforcement_exceptions.c.value,
    enforcement_exceptions.c.reason,
    enforcement_exceptions.c.author,
    enforcement_exceptions.c.created_at,
    enforcement_exceptions.c.expires_at,
    func.coalesce(_named_account, enforcement_exceptions.c.value),
)
_in_order = (enforcement_exceptions.c.created_at, enforcement_exceptions.c.id)
_EXCEPTIONS = Statement(
    lambda: (
        select(*_exception_columns)
        .where(enforcement_exceptions.c.scope == bindparam("scope", type_=Text))
        .order_by(*_in_order)
    )
)
_ACTIVE_EXCEPTIONS = Statement(
    lambda: (
        select(enforcement_exceptions.c.scope, *_exception_columns)
        .join(enforcement_policies, enforcement_policies.c.scope == enforcement_exceptions.c.scope)
        .where(enforcement_policies.c.mode != "off")
        .order_by(*_in_order)
    )
)
_COUNT_EXCEPTIONS = Statement(
    lambda: select(func.count()).where(enforcement_exceptions.c.scope == bindparam("scope", type_=Text))
)
_ADD_EXCEPTION = Statement(
    lambda: insert(enforcement_exceptions).values(
        id=bindparam("id"),
        scope=bindparam("scope"),
        kind=bindparam("kind"),
        value=bindparam("value"),
        reason=bindparam("reason"),
        author=bindparam("author"),
        created_at=now(),
        expires_at=bindparam("expires_at", type_=BigInteger),
    )
)
_its_exception = and_(
    enforcement_exceptions.c.scope == bindparam("scope", type_=Text),
    enforcement_exceptions.c.id == bindparam("which", type_=Text),
)
_GET_EXCEPTION = Statement(lambda: select(*_exception_columns).where(_its_exception))
_DELETE_EXCEPTION = Statement(lambda: delete(enforcement_exceptions).where(_its_exception))
_TEAMS = Statement(
    lambda: (
        select(teams.c.id, accounts.c.name, teams.c.name)
        .join(accounts, accounts.c.id == teams.c.organization_id)
        .where(in_list(teams.c.id, "teams"))
    )
)
_asked = each_row("asked", accounts.c.name, teams.c.name.label("team"))
_FIND_TEAMS = Statement(
    lambda: (
        select(teams.c.id, accounts.c.name, teams.c.name)
        .join_from(_asked, accounts, accounts.c.name == _asked.c.name)
        .join(teams, and_(teams.c.organization_id == accounts.c.id, teams.c.name == _asked.c.team))
    )
)
_HAS_ACCOUNT = Statement(lambda: select(accounts.c.id).where(accounts.c.id == bindparam("account")))
_NAMED = Statement(
    lambda: (
        select(repositories.c.namespace_id, repositories.c.path, tags.c.name, tags.c.manifest)
        .join(tags, tags.c.repository_id == repositories.c.id)
        .where(
            in_list(tags.c.name, "names", within=(tags.c.repository_id, bindparam("repository", type_=BigInteger)))
        )
    )
)
_path, _tag = bindparam("path", type_=Text), bindparam("tag", type_=Text)
_PAGES = {
    kind: Statement(
        select(
            repositories.c.id,
            repositories.c.namespace_id,
            repositories.c.path,
            tags.c.name,
            tags.c.manifest,
        )
        .join(tags, tags.c.repository_id == repositories.c.id)
        .where(
            repositories.c.deleted_at.is_(None),
            repositories.c.path >= _path,
            or_(repositories.c.path > _path, tags.c.name >= _tag),
            where,
        )
        .order_by(repositories.c.path, tags.c.name)
        .limit(bindparam("limit", type_=BigInteger))
    )
    for kind, where in {
        "repository": repositories.c.id == bindparam("repository", type_=BigInteger),
        "namespace": repositories.c.namespace_id == bindparam("namespace", type_=Text),
        "registry": true(),
    }.items()
}


class JudgedTag(Struct, frozen=True):
    """A tag (`path` is the repository's), and what the policies say of a pull of it by nobody in particular."""

    path: str
    tag: str
    digest: str
    verdict: Verdict


class Enforcement:
    """The policies of all repositories, and what they refuse. Who may make them is not decided here."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._revision = Revision(database, "enforcement", self._read)
        self._active: Mapping[str, Policy] = {}
        self.refusals = Refusals(database)
        self.observe: Callable[[str], None] | None = None
        """Told of each pull to which a policy objects: ``enforce`` when it is refused, else ``report``."""

    @property
    def is_on(self) -> bool:
        """Whether a policy is switched on anywhere."""
        return bool(self._active)

    # --- pulls ---

    def concerns(self, repository: int, namespace: str | None) -> bool:
        """
        Whether a policy is switched on for a repository, in a namespace (the id of its account).

        False is certain, but for what changed within the last second in another process.
        """
        return bool(self._active) and bool(self._policies(repository, namespace))

    async def check(
        self, repository: int, namespace: str | None, reference: str, digest: str, *, who: Actor
    ) -> None:
        """
        Let `who` pull a manifest that was asked for as `reference`, or not; objections are told. One query.

        Raises PullRefused, DatabaseError: then nobody knows, and it is not handed out.
        """
        policies = self._policies(repository, namespace)
        if not policies:
            return
        pull = Pull(digest=digest, account=who.id or None, moment=_moment())
        verdicts = await self._decide([(repository, policies, pull)])
        verdict = verdicts[0]
        if verdict.objections:
            self.refusals.add(repository, reference, digest, verdict, by=who)
            if self.observe is not None:
                self.observe("enforce" if verdict.refuses else "report")
        if verdict.refuses:
            raise PullRefused(reference, digest, verdict)

    def _policies(self, repository: int, namespace: str | None) -> tuple[Policy, ...]:
        """Those that are switched on for a repository, the widest first."""
        active = self._active
        if not active:
            return ()
        keys = (REGISTRY.key, Scope(namespace=namespace or "").key, Scope(repository=repository).key)
        return tuple(active[key] for key in keys if key in active)

    async def _decide(self, pulls: Sequence[tuple[int, Sequence[Policy], Pull]]) -> list[Verdict]:
        """What policies say of pulls from repositories; one query."""
        every = {policy.scope: policy for _, policies, _ in pulls for policy in policies}.values()
        evidence = await read_evidence(
            self._database,
            sorted({(repository, pull.digest) for repository, _, pull in pulls}),
            teams=[team.id for policy in every for team in policy.teams],
            with_tags=any(policy.names_tags for policy in every),
        )
        return [decide(policies, pull, evidence[repository, pull.digest]) for repository, policies, pull in pulls]

    async def judge(self, repository: int, names: Iterable[str]) -> dict[str, JudgedTag]:
        """
        What the policies that are switched on say of pulls of these tags by nobody in particular, by name.

        Nothing is refused or told. Without any policy no query, else two, however many tags there are.
        """
        wanted = list(names)
        if not self._active or not wanted:
            return {}
        rows = await self._database.fetch_all(_NAMED, repository=repository, names=wanted)
        policies = self._policies(repository, rows[0][0]) if rows else ()
        if not policies:
            return {}
        moment = _moment()
        verdicts = await self._decide(
            [(repository, policies, Pull(digest=digest, moment=moment)) for *_, digest in rows]
        )
        return {
            name: JudgedTag(path, name, digest, verdict)
            for (_, path, name, digest), verdict in zip(rows, verdicts, strict=True)
        }

    # --- what is kept in memory ---

    async def refresh(self) -> None:
        """Read the policies that are switched on, when they are not known yet. Raises DatabaseError."""
        await self._revision.refresh()

    async def _read(self) -> None:
        rows = await self._database.fetch_all(_ACTIVE)
        exceptions: defaultdict[str, list[PolicyException]] = defaultdict(list)
        for scope, *one in await self._database.fetch_all(_ACTIVE_EXCEPTIONS):
            exceptions[scope].append(_exception(one))
        names = await _names(self._database, rows)
        self._active = {row[-1]: _policy(row, exceptions[row[-1]], names) for row in rows}

    async def keep_fresh(self) -> None:
        """Follow the changes of other processes, until cancelled."""
        await self._revision.follow(
            lambda error: _log.warning("enforcement not read", extra={"reason": str(error)})
        )

    # --- managing them ---

    async def get(self, scope: Scope) -> Policy:
        """The policy of a repository, a namespace or the registry. Raises EnforcementPolicyUnknown."""
        return await _read(self._database, scope, _GET)

    async def put(self, policy: Policy, *, by: Actor = SYSTEM) -> Policy:
        """
        Let a scope have this policy; exceptions of the one before stay, and those given are not looked at.

        Raises EnforcementPolicyInvalid, EnforcementPolicyUnknown: the repository or the namespace is gone.
        """
        policy.check()
        scope = policy.scope
        wanted = [team.id for team in policy.teams]

        async def work(tx: Transaction) -> Policy:
            before = await tx.fetch_one(_LOCK, scope=scope.key)
            known = {row[0] for row in await tx.fetch_all(_TEAMS, teams=wanted)}
            if not known.issuperset(wanted):
                raise EnforcementPolicyInvalid("there is no such team")
            await tx.execute(
                _PUT,
                scope=scope.key,
                repository=scope.repository,
                namespace=scope.namespace,
                mode=policy.mode,
                signers=json.dumps(policy.signers),
                teams=json.dumps(wanted),
            )
            await self._revision.count_up(tx)
            await record(tx, _event("UPDATE" if before else "CREATE", policy, by))
            return await _read(tx, scope, _GET)

        try:
            made = await self._database.unit(work)
        except ConstraintViolated:  # it went meanwhile
            raise EnforcementPolicyUnknown from None
        await self.refresh()
        return made

    async def delete(self, scope: Scope, *, by: Actor = SYSTEM) -> None:
        """Remove a policy, with its exceptions. Raises EnforcementPolicyUnknown."""

        async def work(tx: Transaction) -> None:
            policy = await _read(tx, scope, _LOCK)
            await tx.execute(_DELETE, scope=scope.key)
            await self._revision.count_up(tx)
            await record(tx, _event("DELETE", policy, by))

        await self._database.unit(work)
        await self.refresh()

    async def add_exception(
        self, scope: Scope, exception: PolicyException, *, by: Actor = SYSTEM
    ) -> PolicyException:
        """
        Let a policy make an exception; with its id and author.

        Raises EnforcementPolicyUnknown, EnforcementPolicyInvalid.
        """
        exception.check(_moment())
        made = replace(exception, id=str(uuid.uuid4()), author=by.name)

        async def work(tx: Transaction) -> PolicyException:
            await _read(tx, scope, _LOCK)
            row = await tx.fetch_one(_COUNT_EXCEPTIONS, scope=scope.key)
            if row is not None and row[0] >= _MOST_EXCEPTIONS:
                raise EnforcementPolicyInvalid(f"a policy has at most {_MOST_EXCEPTIONS} exceptions")
            if made.kind == "account" and await tx.fetch_one(_HAS_ACCOUNT, account=made.value) is None:
                raise EnforcementPolicyInvalid("there is no such account")
            await tx.execute(
                _ADD_EXCEPTION,
                id=made.id,
                scope=scope.key,
                kind=made.kind,
                value=made.value,
                reason=made.reason,
                author=made.author,
                expires_at=made.expires_at,
            )
            await self._revision.count_up(tx)
            await record(tx, _exception_event("CREATE", scope, made, by))
            row = await tx.fetch_one(_GET_EXCEPTION, scope=scope.key, which=made.id)
            assert row is not None
            return _exception(row)

        written = await self._database.unit(work)
        await self.refresh()
        return written

    async def delete_exception(self, scope: Scope, exception: str, *, by: Actor = SYSTEM) -> None:
        """Let a policy make an exception no longer. Raises EnforcementExceptionUnknown."""

        async def work(tx: Transaction) -> None:
            row = await tx.fetch_one(_GET_EXCEPTION, scope=scope.key, which=exception)
            if row is None or not await tx.execute(_DELETE_EXCEPTION, scope=scope.key, which=exception):
                raise EnforcementExceptionUnknown(exception)
            await self._revision.count_up(tx)
            await record(tx, _exception_event("DELETE", scope, _exception(row), by))

        await self._database.unit(work)
        await self.refresh()

    async def find_teams(self, names: Iterable[str]) -> tuple[Team, ...]:
        """Teams by their names, ``ORGANIZATION/TEAM``; one query. Raises EnforcementPolicyInvalid."""
        wanted = list(dict.fromkeys(names))
        asked = [name.split("/") for name in wanted if name.count("/") == 1]
        rows = await self._database.fetch_all(_FIND_TEAMS, asked=json.dumps(asked))
        found = {f"{organization}/{name}": team for team, organization, name in rows}
        for name in wanted:
            if name not in found:
                raise EnforcementPolicyInvalid(f"there is no team {name[:200]!r}: ORGANIZATION/TEAM is one")
        return tuple(Team(found[name], name) for name in wanted)

    # --- before it is switched on ---

    async def report(
        self, scope: Scope, proposed: Policy | None = None, *, start: tuple[str, str] = ("", ""), limit: int
    ) -> list[JudgedTag]:
        """
        What is said of the tags in a scope, at most `limit`, by path and name, from those of `start` on.

        Asked are the policies that are switched on, and that of the scope, or `proposed` in its place, as if it
        were enforced. Nothing is refused or told. Five queries at most, whatever the limit.
        """
        rows = await self._database.fetch_all(
            _PAGES[scope.kind],
            path=start[0],
            tag=start[1],
            limit=limit,
            repository=scope.repository,
            namespace=scope.namespace,
        )
        own = proposed
        if own is None:
            try:
                own = await self.get(scope)
            except EnforcementPolicyUnknown:
                own = None
        moment = _moment()
        pulls = []
        for repository, namespace, _, _, digest in rows:
            others = (one for one in self._policies(repository, namespace) if one.scope != scope)
            asked = [*others, *([replace(own, mode="enforce")] if own is not None else [])]
            pulls.append((repository, asked, Pull(digest=digest, moment=moment)))
        verdicts = await self._decide(pulls) if pulls else []
        return [
            JudgedTag(path, tag, digest, verdict)
            for (_, _, path, tag, digest), verdict in zip(rows, verdicts, strict=True)
        ]


def _moment() -> int:
    """Now, in milliseconds since 1970 UTC."""
    return round(time.time() * 1000)


async def _read(reader: Reader, scope: Scope, statement: Statement) -> Policy:
    """The policy of a scope with its exceptions. Raises EnforcementPolicyUnknown."""
    row = await reader.fetch_one(statement, scope=scope.key)
    if row is None:
        raise EnforcementPolicyUnknown
    exceptions = [_exception(one) for one in await reader.fetch_all(_EXCEPTIONS, scope=scope.key)]
    return _policy(row, exceptions, await _names(reader, [row]))


async def _names(reader: Reader, rows: Iterable[Row]) -> dict[str, str]:
    """``ORGANIZATION/TEAM`` by id, of the teams in rows of policies."""
    ids = sorted({one for row in rows for one in json.loads(row[4])})
    found = await reader.fetch_all(_TEAMS, teams=ids) if ids else []
    return {team: f"{organization}/{name}" for team, organization, name in found}


def _policy(row: Row, exceptions: Iterable[PolicyException], names: Mapping[str, str]) -> Policy:
    repository, namespace, mode, signers, its_teams, _ = row
    return Policy(
        scope=Scope(repository, namespace),
        mode=mode,
        signers=tuple(json.loads(signers)),
        teams=tuple(Team(one, names.get(one, "")) for one in json.loads(its_teams)),
        exceptions=tuple(exceptions),
    )


def _exception(row: Row) -> PolicyException:
    number, kind, value, reason, author, created_at, expires_at, name = row
    return PolicyException(
        id=number,
        kind=kind,
        value=value,
        reason=reason,
        author=author,
        created_at=created_at,
        expires_at=expires_at,
        name=name,
    )


def _event(kind: Literal["CREATE", "UPDATE", "DELETE"], policy: Policy, by: Actor) -> Event:
    content: dict[str, Any] = {
        "mode": policy.mode,
        "signers": policy.signers,
        "teams": [team.id for team in policy.teams],
    }
    scope = policy.scope
    return Event(
        type=kind,
        actor=by,
        object=Object("enforcement_policy", scope.key, content=json.dumps(content)),
        target=None if scope.namespace is None else Object("account", scope.namespace),
        repository_id=scope.repository,
    )


def _exception_event(
    kind: Literal["CREATE", "DELETE"], scope: Scope, exception: PolicyException, by: Actor
) -> Event:
    content = {"kind": exception.kind, "value": exception.value, "reason": exception.reason}
    return Event(
        type=kind,
        actor=by,
        object=Object("enforcement_exception", exception.id, content=json.dumps(content)),
        target=Object("enforcement_policy", scope.key),
        repository_id=scope.repository,
    )
