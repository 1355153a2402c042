"""Grants: which level teams have on the repositories of their organisation, or on its whole namespace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from dtr.accounts.errors import AccountUnknown, NotGrantable
from dtr.accounts.records import findable
from dtr.db import Statement
from dtr.db.schema import namespace_grants, repositories, repository_grants

if TYPE_CHECKING:
    from dtr.accounts.organizations import Organizations
    from dtr.accounts.permissions import Level
    from dtr.db import Database, Transaction

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


class Grants:
    """All grants."""

    def __init__(self, database: Database, organizations: Organizations) -> None:
        self._database = database
        self._organizations = organizations

    async def grant_team(
        self, organization: str, team: str, level: Level, *, repository: str | None = None
    ) -> None:
        """
        Give a team a level on a repository, or on the whole namespace of its organisation; NONE takes it away.

        Raises TeamUnknown, AccountUnknown (no such repository), NotGrantable.
        """
        team_id, organization_id = await self._organizations.team_ids(organization, team)
        if repository is None:
            await self._change(
                _GRANT_NAMESPACE if level else _REVOKE_NAMESPACE, team_id, level, namespace=organization_id
            )
            return
        row = await self._database.fetch_one(_FIND_REPOSITORY, path=findable(repository))
        if row is None:
            raise AccountUnknown(repository)
        if row[1] != organization_id:
            raise NotGrantable("the team does not belong to the organization that owns the repository")
        await self._change(_GRANT_REPOSITORY if level else _REVOKE_REPOSITORY, team_id, level, repository=row[0])

    async def _change(self, statement: Statement, team: str, level: Level, **what: object) -> None:
        async def work(tx: Transaction) -> None:
            await tx.execute(statement, team=team, level=level.label, **what)

        await self._database.unit(work)
