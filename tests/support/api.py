"""What talks to DTR's API, and makes accounts and repositories for it quickly."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import text
from tests.support.client import Answer, Client
from tests.support.rooms import sign
from tests.support.server import PASSWORD, Server
from tests.support.wire import wait_until

from dtr.accounts import NameTaken
from dtr.app import Application
from dtr.db import Statement


class User:
    """
    Somebody who calls the API with Basic credentials; `name` None: nobody.

    A keyword of a call is a parameter of the query; None is left out.
    """

    def __init__(self, server: Server, name: str | None, password: str = PASSWORD) -> None:
        self.name = name
        self.client = Client(server, name, password)

    def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, **query: Any
    ) -> Answer:
        """One request; `body` is sent as JSON."""
        given = {name: str(value).lower() if value in (True, False) else value for name, value in query.items()}
        parameters = urlencode({name: value for name, value in given.items() if value is not None})
        sent = {} if self.name is None else {"Authorization": self.client.basic()}
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        where = f"{path}?{parameters}" if parameters else path
        return self.client.send(method, where, content, {**sent, **(headers or {})})

    def get(self, path: str, **query: Any) -> Answer:
        return self.call("GET", path, **query)

    def post(self, path: str, body: Any = None, **query: Any) -> Answer:
        return self.call("POST", path, body, **query)

    def put(self, path: str, body: Any = None, **query: Any) -> Answer:
        return self.call("PUT", path, body, **query)

    def patch(self, path: str, body: Any = None, **query: Any) -> Answer:
        return self.call("PATCH", path, body, **query)

    def delete(self, path: str, **query: Any) -> Answer:
        return self.call("DELETE", path, **query)

    def pages(self, path: str, size: int, **query: Any) -> Iterator[Any]:
        """The documents of a list's pages, in the way of ``/api/v0``."""
        start = None
        while True:
            answer = self.get(path, pageStart=start, pageSize=size, **query).expect(200)
            yield answer.json
            start = answer.headers.get("x-next-page-start")
            if not start:
                return


class Api:
    """A server, those who call it, and what there is on it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._users: dict[tuple[str | None, str], User] = {}

    def as_(self, name: str | None, password: str = PASSWORD) -> User:
        """Somebody who calls the API; None: nobody."""
        if (name, password) not in self._users:
            self._users[name, password] = User(self.server, name, password)
        return self._users[name, password]

    @property
    def admin(self) -> User:
        return self.as_("admin")

    @property
    def anonymous(self) -> User:
        return self.as_(None)

    def make_users(self, *names: str, is_admin: bool = False) -> None:
        """Users with the password `PASSWORD`; those that are there stay."""

        async def work(application: Application) -> None:
            for name in names:
                if await application.accounts.find(name) is None:
                    await application.accounts.create_user(name, PASSWORD, is_admin=is_admin)

        self.server.do(work)

    def make_organization(self, name: str, *, owners: tuple[str, ...] = (), members: tuple[str, ...] = ()) -> None:
        """An organisation with owners and plain members, who have to be there."""

        async def work(application: Application) -> None:
            if await application.accounts.find(name) is None:
                await application.accounts.create_organization(name)
            for user in (*owners, *members):
                await application.accounts.organizations.put_member(name, user, is_admin=user in owners)

        self.server.do(work)

    def make_team(self, team: str, *users: str) -> None:
        """The team ``organization/team`` with these users, who have to be there."""
        organization, _, name = team.partition("/")

        async def work(application: Application) -> None:
            with contextlib.suppress(NameTaken):
                await application.accounts.organizations.create_team(organization, name)
            for user in users:
                await application.accounts.organizations.put_team_member(organization, name, user)

        self.server.do(work)

    def make_repository(self, path: str, **settings: Any) -> int:
        """A repository, whose namespace has to be there; `settings` are fields of `dtr.registry.Settings`."""
        return self.server.make_repository(path, **settings)

    def grant(self, team: str, level: str, *, repository: str | None = None) -> None:
        """Give the team ``organization/team`` a level on a repository; None: on the namespace."""
        self.server.grant(team, level, repository=repository)

    def sign(self, path: str, tag: str, digest: str, **how: str) -> None:
        """Let content trust name a tag of the repository at a path (`rooms.sign`)."""

        async def work(application: Application) -> None:
            number = (await application.repositories.get(path)).id
            await sign(application.database, number, tag, digest, **how)

        self.server.do(work)

    def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """What a question to the database gives."""

        async def work(application: Application) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in await application.database.fetch_all(Statement(text(sql)), **parameters)]

        return self.server.do(work)

    def change(self, sql: str, **parameters: Any) -> int:
        """Change rows by hand, time for example; how many."""
        statement = Statement(text(sql))
        return self.server.do(
            lambda application: application.database.unit(lambda tx: tx.execute(statement, **parameters))
        )

    def stop_schedules(self) -> None:
        """
        No schedule queues a job any more, and those that were queued have ended: for tests that count all jobs.

        Some schedules are of every quarter of an hour.
        """
        # The last one that a server gives itself, a moment after its start.
        wait_until(lambda: self.rows("SELECT 1 FROM crons WHERE action = 'trust_prune'"))
        self.change("UPDATE crons SET next_run = 4102444800000")
        wait_until(lambda: not self.rows("SELECT 1 FROM jobs WHERE cause = 'schedule' AND ended_at IS NULL"))
