"""The registry on this machine: what it has, read as a whole, and changes to it, made through its rooms."""

from __future__ import annotations

import asyncio
import json
from itertools import groupby
from typing import TYPE_CHECKING, assert_never

from sqlalchemy import literal, select

from dtr.accounts import Level
from dtr.cli.transfer.content import Content, Grant, Member, Organization, Repository, Team, User
from dtr.db import Statement
from dtr.db.schema import (
    accounts,
    namespace_grants,
    namespace_user_grants,
    organization_members,
    repositories,
    repository_grants,
    repository_user_grants,
    team_members,
    teams,
)
from dtr.oci import parse_repository_name
from dtr.registry import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dtr.app import Application
    from dtr.cli.transfer.content import Change, Item

_AT_ONCE = 32
"""So many changes of one kind are on their way together: a database commits them together, too."""

_owner = accounts.alias("owner")
_live = repositories.c.deleted_at.is_(None)
_team = _owner.c.name + "/" + teams.c.name

_ACCOUNTS = Statement(
    lambda: (
        select(
            accounts.c.kind,
            accounts.c.name,
            accounts.c.full_name,
            accounts.c.is_admin,
            accounts.c.is_auditor,
            accounts.c.is_active,
        )
        .where(accounts.c.kind != "robot")
        .order_by(accounts.c.name)
    )
)
_TEAMS = Statement(
    lambda: (
        select(_owner.c.name, teams.c.name, teams.c.description)
        .join_from(teams, _owner, _owner.c.id == teams.c.organization_id)
        .order_by(_owner.c.name, teams.c.name)
    )
)
_MEMBERS = Statement(
    lambda: (
        select(_owner.c.name, literal(""), accounts.c.name, organization_members.c.is_admin)
        .join_from(organization_members, _owner, _owner.c.id == organization_members.c.organization_id)
        .join(accounts, accounts.c.id == organization_members.c.user_id)
        .order_by(_owner.c.name, accounts.c.name)
    )
)
_TEAM_MEMBERS = Statement(
    lambda: (
        select(_owner.c.name, teams.c.name, accounts.c.name, team_members.c.is_admin)
        .join_from(team_members, teams, teams.c.id == team_members.c.team_id)
        .join(_owner, _owner.c.id == teams.c.organization_id)
        .join(accounts, accounts.c.id == team_members.c.user_id)
        .order_by(_owner.c.name, teams.c.name, accounts.c.name)
    )
)
_REPOSITORIES = Statement(
    lambda: (
        select(
            repositories.c.path,
            repositories.c.visibility,
            repositories.c.short_description,
            repositories.c.long_description,
            repositories.c.immutable_tags,
            repositories.c.immutable_patterns,
            repositories.c.tag_limit,
            repositories.c.scan_on_push,
        )
        .where(_live)
        .order_by(repositories.c.path)
    )
)
_GRANTS = (
    Statement(
        lambda: (
            select(_owner.c.name, _team, namespace_grants.c.level)
            .join_from(namespace_grants, teams, teams.c.id == namespace_grants.c.team_id)
            .join(_owner, _owner.c.id == teams.c.organization_id)
            .order_by(_owner.c.name, teams.c.name)
        )
    ),
    Statement(
        lambda: (
            select(_owner.c.name, accounts.c.name, namespace_user_grants.c.level)
            .join_from(namespace_user_grants, _owner, _owner.c.id == namespace_user_grants.c.namespace_id)
            .join(accounts, accounts.c.id == namespace_user_grants.c.user_id)
            .where(accounts.c.kind != "robot")
            .order_by(_owner.c.name, accounts.c.name)
        )
    ),
    Statement(
        lambda: (
            select(repositories.c.path, _team, repository_grants.c.level)
            .join_from(repository_grants, repositories, repositories.c.id == repository_grants.c.repository_id)
            .join(teams, teams.c.id == repository_grants.c.team_id)
            .join(_owner, _owner.c.id == teams.c.organization_id)
            .where(_live)
            .order_by(repositories.c.path, teams.c.name)
        )
    ),
    Statement(
        lambda: (
            select(repositories.c.path, accounts.c.name, repository_user_grants.c.level)
            .join_from(
                repository_user_grants, repositories, repositories.c.id == repository_user_grants.c.repository_id
            )
            .join(accounts, accounts.c.id == repository_user_grants.c.user_id)
            .where(_live, accounts.c.kind != "robot")
            .order_by(repositories.c.path, accounts.c.name)
        )
    ),
)
"""On namespaces and on repositories, to teams and to users."""


async def read(application: Application) -> Content:
    """All that is moved, of this registry."""
    fetch = application.database.fetch_all
    content = Content()
    for kind, name, full_name, is_admin, is_auditor, is_active in await fetch(_ACCOUNTS):
        content.put(
            Organization(name=name, full_name=full_name)
            if kind == "organization"
            else User(
                name=name,
                full_name=full_name,
                is_admin=bool(is_admin),
                is_auditor=bool(is_auditor),
                is_active=bool(is_active),
            )
        )
    for organization, name, description in await fetch(_TEAMS):
        content.put(Team(organization=organization, name=name, description=description))
    for statement in (_MEMBERS, _TEAM_MEMBERS):
        for organization, team, user, is_admin in await fetch(statement):
            content.put(Member(organization=organization, team=team, user=user, is_admin=bool(is_admin)))
    for path, visibility, short, long, immutable, patterns, tag_limit, scan_on_push in await fetch(_REPOSITORIES):
        content.put(
            Repository(
                path=path,
                visibility=visibility,
                short_description=short,
                long_description=long,
                immutable_tags=bool(immutable),
                immutable_patterns=tuple(json.loads(patterns)),
                tag_limit=tag_limit,
                scan_on_push=bool(scan_on_push),
            )
        )
    for statement in _GRANTS:
        for on, who, level in await fetch(statement):
            content.put(Grant(on=on, who=who, level=level))
    return content


async def apply(application: Application, changes: Iterable[Change], done: Callable[[Change], None]) -> None:
    """
    Make changes, in their order as far as it matters; `done` is told of each.

    Raises what the rooms raise. What was done until then stays, and the same changes can be worked out again.
    """

    async def one(change: Change) -> None:
        await _apply(application, change.before, change.after)
        done(change)

    for _, group in groupby(changes, key=lambda change: type(change.after)):
        waiting = list(group)
        for begin in range(0, len(waiting), _AT_ONCE):
            results = await asyncio.gather(
                *(one(change) for change in waiting[begin : begin + _AT_ONCE]), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result


async def _apply(application: Application, before: Item | None, after: Item) -> None:
    accounts, organizations = application.accounts, application.accounts.organizations
    match after:
        case User(name=name, full_name=full_name, password=password):
            flags = {name: getattr(after, name) for name in ("is_admin", "is_auditor", "is_active")}
            if before is None:
                given = {name: value for name, value in flags.items() if value is not None}
                await accounts.create_user(name, password, full_name=full_name or "", **given)
            else:
                await accounts.update(name, full_name=full_name, **flags)
        case Organization(name=name, full_name=full_name):
            if before is None:
                await accounts.create_organization(name, full_name=full_name or "")
            else:
                await accounts.update(name, full_name=full_name)
        case Team(organization=organization, name=name, description=description):
            if before is None:
                await organizations.create_team(organization, name, description=description or "")
            else:
                await organizations.update_team(organization, name, description=description)
        case Member(organization=organization, team=team, user=user, is_admin=is_admin):
            if team:
                await organizations.put_team_member(organization, team, user, is_admin=is_admin)
            else:
                await organizations.put_member(organization, user, is_admin=is_admin)
        case Repository(path=path, settings=settings):
            if before is None:
                await application.repositories.create(parse_repository_name(path), Settings(**settings))
            else:
                await application.repositories.update(path, **settings)
        case Grant(on=on, who=who, level=level):
            place = await accounts.grants.on(on)
            _, is_team, team = who.partition("/")
            if is_team:
                await accounts.grants.set_team(place, team, Level.of(level))
            else:
                await accounts.grants.set_user(place, who, Level.of(level))
        case _:
            assert_never(after)
