"""
A running DTR, or dtr, read through its public API as an administrator of it.

Of DTR's records about teams' access the team is known by its id alone, so names come from the account service.
What DTR had not, grants to single users, is asked for when the other one is a dtr, as its records of users show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.cli._common import Failure
from dtr.cli.remote.client import Refused
from dtr.cli.transfer.content import Content, Grant, Member, Organization, Repository, Team, User

if TYPE_CHECKING:
    from collections.abc import Callable

    from dtr.cli.remote.client import Remote
    from dtr.cli.remote.output import Record
    from dtr.cli.transfer.content import Item

_ORGANIZATION = "/enzi/v0/accounts/{organization}"
_TEAM = "/enzi/v0/accounts/{organization}/teams/{team}"


def read(remote: Remote, progress: Callable[[str], None]) -> Content:
    """All that is moved, of the server; `progress` is told what is read. Raises Failure."""
    try:
        return _read(remote, progress)
    except (KeyError, TypeError, AttributeError) as error:
        raise Failure(f"{remote.access.server} answers, but not as DTR does ({error!r})") from None


def _read(remote: Remote, progress: Callable[[str], None]) -> Content:
    asker = remote.call("GET", "/enzi/v0/accounts/{user}", {"user": remote.access.user})
    if not asker.get("isAdmin"):
        raise Failure(f"{remote.access.user} is no administrator there, and cannot see all")
    content = Content()

    def take(item: Item) -> None:
        content.add(item)
        progress(str(item))

    for account in remote.records("/enzi/v0/accounts", key="accounts", query={"filter": "all"}):
        take(_account(account))
    for organization in [str(key) for key in content.items[Organization]]:
        _read_organization(remote, organization, take)
    for record in remote.records("/api/v0/repositories", key="repositories"):
        take(_repository(remote, record))
    if "isAuditor" in asker:
        _read_user_grants(remote, content, take)
    return content


def _read_user_grants(remote: Remote, content: Content, take: Callable[[Item], None]) -> None:
    """Grants to single users, not to robots, which are not moved."""
    namespaces = [*content.items[User], *content.items[Organization]]
    for path, name, places in (
        ("/api/v0/repositoryNamespaces/{namespace}/userAccess", "namespace", namespaces),
        ("/api/v0/repositories/{repository}/userAccess", "repository", list(content.items[Repository])),
    ):
        for place in map(str, places):
            for access in remote.records(path, {name: place}, key="userAccessList"):
                who = access["user"]["name"]
                if content.has(User, who):
                    take(Grant(on=place, who=who, level=access["accessLevel"]))


def _read_organization(remote: Remote, organization: str, take: Callable[[Item], None]) -> None:
    names = {"organization": organization}
    for member in remote.records(f"{_ORGANIZATION}/members", names, key="members"):
        take(Member(organization=organization, user=member["member"]["name"], is_admin=bool(member["isAdmin"])))
    team_names: dict[str, str] = {}
    for team in list(remote.records(f"{_ORGANIZATION}/teams", names, key="teams")):
        name = team["name"]
        team_names[team["id"]] = name
        take(Team(organization=organization, name=name, description=team.get("description") or None))
        for member in remote.records(f"{_TEAM}/members", {**names, "team": name}, key="members"):
            take(
                Member(
                    organization=organization,
                    team=name,
                    user=member["member"]["name"],
                    is_admin=bool(member["isAdmin"]),
                )
            )
        path = "/api/v0/accounts/{organization}/teams/{team}/repositoryAccess"
        for access in remote.records(path, {**names, "team": name}, key="repositoryAccessList"):
            repository = f"{access['repository']['namespace']}/{access['repository']['name']}"
            take(Grant(on=repository, who=f"{organization}/{name}", level=access["accessLevel"]))
    path = "/api/v0/repositoryNamespaces/{organization}/teamAccess"
    for access in remote.records(path, names, key="teamAccessList"):
        who = f"{organization}/{team_names[access['team']['id']]}"
        take(Grant(on=organization, who=who, level=access["accessLevel"]))


def _account(record: Record) -> Item:
    full_name = record.get("fullName") or None
    if record["isOrg"]:
        return Organization(name=record["name"], full_name=full_name)
    return User(
        name=record["name"],
        full_name=full_name,
        is_admin=record.get("isAdmin"),
        is_auditor=record.get("isAuditor"),
        is_active=record.get("isActive"),
    )


def _repository(remote: Remote, record: Record) -> Repository:
    path = f"{record['namespace']}/{record['name']}"
    if "longDescription" not in record:  # a list may leave it out
        try:
            record = remote.call("GET", "/api/v0/repositories/{repository}", {"repository": path})
        except Refused as error:
            if error.code != "NO_SUCH_REPOSITORY":  # else it went meanwhile
                raise
    return Repository(
        path=path,
        visibility=record["visibility"],
        short_description=record.get("shortDescription") or None,
        long_description=record.get("longDescription") or None,
        immutable_tags=record.get("immutableTags"),
        immutable_patterns=tuple(record.get("immutableTagPatterns") or ()),
        tag_limit=record.get("tagLimit"),
        scan_on_push=record.get("scanOnPush"),
    )
