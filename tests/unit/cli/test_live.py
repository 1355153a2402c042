"""What a DTR answers, read as its own documents say it: of a team's access the team is known by its id alone."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from dtr.cli._common import Failure
from dtr.cli.remote.client import Access, Remote
from dtr.cli.transfer import live
from dtr.cli.transfer.content import Grant, Member, Organization, Repository, Team, User

REPOSITORY = {
    "id": "9f1c",
    "namespace": "acme",
    "namespaceType": "organization",
    "name": "app",
    "shortDescription": "An app",
    "visibility": "public",
    "scanOnPush": True,
    "immutableTags": False,
    "enableManifestLists": False,
    "tagLimit": 7,
    "pulls": 3,
    "pushes": 2,
}
ADMIN = {
    "name": "admin",
    "id": "1",
    "fullName": "",
    "isOrg": False,
    "isAdmin": True,
    "isActive": True,
    "isImported": False,
}
ANN = {**ADMIN, "name": "Ann", "id": "2", "isAdmin": False, "isImported": True}
ACME = {"name": "acme", "id": "3", "fullName": "Acme Inc", "isOrg": True, "membersCount": 1, "teamsCount": 1}
TEAM = {"id": "4", "orgID": "3", "name": "devs", "description": "", "membersCount": 1}
ANSWERS: dict[str, Any] = {
    "/enzi/v0/accounts/admin": ADMIN,
    "/enzi/v0/accounts": {"accounts": [ADMIN, ANN, ACME], "usersCount": 2, "orgsCount": 1, "nextPageStart": ""},
    "/enzi/v0/accounts/acme/members": {"members": [{"member": ADMIN, "isAdmin": True}], "nextPageStart": ""},
    "/enzi/v0/accounts/acme/teams": {"teams": [TEAM], "nextPageStart": ""},
    "/enzi/v0/accounts/acme/teams/devs/members": {"members": [{"member": ADMIN, "isAdmin": False}]},
    "/api/v0/accounts/acme/teams/devs/repositoryAccess": {
        "team": {"id": "4", "clientUserIsMember": False},
        "repositoryAccessList": [{"accessLevel": "read-write", "repository": REPOSITORY}],
    },
    "/api/v0/repositoryNamespaces/acme/teamAccess": {
        "namespace": "acme",
        "teamAccessList": [{"accessLevel": "admin", "team": {"id": "4", "clientUserIsMember": False}}],
    },
    "/api/v0/repositories": {"repositories": [REPOSITORY]},
    "/api/v0/repositories/acme/app": {**REPOSITORY, "longDescription": "# App"},
}


def old(answers: dict[str, Any]) -> Remote:
    def handler(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=answers[request.url.path])

    remote = Remote(Access(server="old.example.org", user="admin", secret="a secret"))
    remote._http = httpx2.Client(base_url=remote.access.url, transport=httpx2.MockTransport(handler))
    return remote


def test_a_dtr_is_read() -> None:
    seen: list[str] = []
    content = live.read(old(ANSWERS), seen.append)
    assert list(content) == [
        User(name="admin", is_admin=True, is_active=True),
        Organization(name="acme", full_name="Acme Inc"),
        Team(organization="acme", name="devs"),
        Member(organization="acme", user="admin", is_admin=True),
        Member(organization="acme", team="devs", user="admin", is_admin=False),
        Repository(
            path="acme/app", visibility="public", short_description="An app", long_description="# App",
            immutable_tags=False, immutable_patterns=(), tag_limit=7, scan_on_push=True,
        ),
        Grant(on="acme/app", who="acme/devs", level="read-write"),
        Grant(on="acme", who="acme/devs", level="admin"),
    ]  # fmt: skip
    (problem,) = content.problems
    assert problem.startswith("user Ann cannot be called so: a name is lower-case letters")
    assert "repository acme/app" in seen


def test_what_answers_otherwise_is_told() -> None:
    strange = {**ANSWERS, "/enzi/v0/accounts/acme/teams": {"teams": [{"id": "4"}]}}
    with pytest.raises(Failure, match="not as DTR does"):
        live.read(old(strange), lambda _item: None)
