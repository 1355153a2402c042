"""``dtr user``, ``dtr org`` and ``dtr team``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dtr.cli._common import Failure, password
from dtr.cli.remote.client import Refused
from dtr.cli.remote.options import changes, confirm, with_list, with_record, with_remote, yes_option
from dtr.cli.remote.output import Column
from dtr.cli.remote.repositories import LEVELS, grant_path, path_of

if TYPE_CHECKING:
    from dtr.cli.remote.client import Remote
    from dtr.cli.remote.output import Output, Record

_ACCOUNTS = "/enzi/v0/accounts"
_ACCOUNT = "/enzi/v0/accounts/{account}"
_MEMBERS = "/enzi/v0/accounts/{organization}/members"
_TEAMS = "/enzi/v0/accounts/{organization}/teams"
_TEAM = "/enzi/v0/accounts/{organization}/teams/{team}"

_password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the standard input instead of asking for it."
)
_repositories_option = click.option(
    "--repositories", is_flag=True, help="Delete the repositories of the account, too."
)


def _roles(record: Record) -> str:
    roles = ("admin", record.get("isAdmin")), ("auditor", record.get("isAuditor"))
    return ",".join(role for role, has in roles if has)


_USER_COLUMNS = (
    Column("USER", "name"),
    Column("FULL NAME", "fullName"),
    Column("ROLE", _roles),
    Column("ACTIVE", "isActive"),
)
_USER_DETAILS = (*_USER_COLUMNS, Column("FROM A DIRECTORY", "isImported"), Column("ID", "id"))
_ORGANIZATION_COLUMNS = (
    Column("ORGANIZATION", "name"),
    Column("FULL NAME", "fullName"),
    Column("MEMBERS", "membersCount", "number"),
    Column("TEAMS", "teamsCount", "number"),
)
_ORGANIZATION_DETAILS = (*_ORGANIZATION_COLUMNS, Column("ID", "id"))
_MEMBER_COLUMNS = (
    Column("USER", lambda record: record["member"]["name"]),
    Column("FULL NAME", lambda record: record["member"].get("fullName")),
)
_TEAM_COLUMNS = (
    Column("TEAM", "name"),
    Column("MEMBERS", "membersCount", "number"),
    Column("DESCRIPTION", "description"),
)


def _member_name(record: Record) -> str:
    return str(record["member"]["name"])


# --- users ----------------------------------------------------------------------------------------------------


@click.group()
def user() -> None:
    """Users of a server, over its API."""


@user.command("list")
@with_remote
@with_list
@click.option("--admins", "chosen", flag_value="admins", help="Only administrators.")
@click.option("--inactive", "chosen", flag_value="inactive-users", help="Only those who may not log in.")
@click.option("--contains", metavar="TEXT", help="Only those with it in their name or full name.")
def list_users(
    remote: Remote, chosen: str | None, contains: str | None, output: Output, limit: int | None
) -> None:
    """List users."""
    query = {"filter": chosen or "users", "contains": contains}
    output.listing(remote.records(_ACCOUNTS, key="accounts", limit=limit, query=query), _USER_COLUMNS)


@user.command("show")
@with_remote
@with_record
@click.argument("account", metavar="USER")
def show_user(remote: Remote, account: str, output: Output) -> None:
    """Show a user."""
    output.record(_get(remote, account, is_organization=False), _USER_DETAILS)


@user.command("create")
@with_remote
@with_record
@click.argument("name")
@click.option("--full-name", default="", help="The name of the person.")
@click.option("--admin", is_flag=True, help="Make a system administrator.")
@click.option("--auditor", is_flag=True, help="Let the user see all, changing nothing.")
@_password_option
def create_user(
    remote: Remote, name: str, full_name: str, admin: bool, auditor: bool, password_stdin: bool, output: Output
) -> None:
    """Make a user."""
    secret = password(password_stdin, f"Password of {name}", confirm=True)
    body = {"name": name, "fullName": full_name, "isAdmin": admin, "isAuditor": auditor, "password": secret}
    made = remote.call("POST", _ACCOUNTS, body=body)
    if output.as_json:
        output.record(made, _USER_DETAILS)


@user.command("edit")
@with_remote
@with_record
@click.argument("account", metavar="USER")
@click.option("--full-name", help="The name of the person.")
@click.option("--admin/--no-admin", "is_admin", default=None, help="Whether a system administrator.")
@click.option("--auditor/--no-auditor", "is_auditor", default=None, help="Whether to see all, changing nothing.")
@click.option("--active/--inactive", "is_active", default=None, help="Whether to be let in.")
def edit_user(
    remote: Remote,
    account: str,
    full_name: str | None,
    is_admin: bool | None,
    is_auditor: bool | None,
    is_active: bool | None,
    output: Output,
) -> None:
    """Change a user; what is not given stays as it is."""
    _edit(
        remote,
        account,
        output,
        {"fullName": full_name, "isAdmin": is_admin, "isAuditor": is_auditor, "isActive": is_active},
    )


@user.command("delete")
@with_remote
@click.argument("account", metavar="USER")
@_repositories_option
@yes_option
def delete_user(remote: Remote, account: str, repositories: bool, yes: bool) -> None:
    """Delete a user, with the tokens and grants of that user."""
    _delete(remote, _get(remote, account, is_organization=False), repositories=repositories, yes=yes)


@user.command("password")
@with_remote
@click.argument("account", metavar="USER")
@_password_option
def set_password(remote: Remote, account: str, password_stdin: bool) -> None:
    """
    Give a user, or yourself, a new password.

    Whoever is logged in with the old one has to log in again; access tokens stay. With --password-stdin, your own
    old password comes first, in a line of its own.
    """
    body = {}
    if account == remote.whoami():
        body["oldPassword"] = password(password_stdin, "Old password")
    body["newPassword"] = password(password_stdin, "New password", confirm=True)
    remote.call("POST", f"{_ACCOUNT}/changePassword", {"account": account}, body=body)


# --- organizations --------------------------------------------------------------------------------------------


@click.group()
def org() -> None:
    """Organisations of a server, over its API."""


@org.command("list")
@with_remote
@with_list
@click.option("--contains", metavar="TEXT", help="Only those with it in their name or full name.")
def list_organizations(remote: Remote, contains: str | None, output: Output, limit: int | None) -> None:
    """List organisations."""
    query = {"filter": "orgs", "contains": contains}
    output.listing(remote.records(_ACCOUNTS, key="accounts", limit=limit, query=query), _ORGANIZATION_COLUMNS)


@org.command("show")
@with_remote
@with_record
@click.argument("account", metavar="ORGANIZATION")
def show_organization(remote: Remote, account: str, output: Output) -> None:
    """Show an organisation."""
    output.record(_get(remote, account, is_organization=True), _ORGANIZATION_DETAILS)


@org.command("create")
@with_remote
@with_record
@click.argument("name")
@click.option("--full-name", default="", help="Its whole name.")
def create_organization(remote: Remote, name: str, full_name: str, output: Output) -> None:
    """Make an organisation."""
    made = remote.call("POST", _ACCOUNTS, body={"name": name, "fullName": full_name, "isOrg": True})
    if output.as_json:
        output.record(made, _ORGANIZATION_DETAILS)


@org.command("edit")
@with_remote
@with_record
@click.argument("account", metavar="ORGANIZATION")
@click.option("--full-name", required=True, help="Its whole name.")
def edit_organization(remote: Remote, account: str, full_name: str, output: Output) -> None:
    """Give an organisation another full name."""
    _edit(remote, account, output, {"fullName": full_name})


@org.command("delete")
@with_remote
@click.argument("account", metavar="ORGANIZATION")
@_repositories_option
@yes_option
def delete_organization(remote: Remote, account: str, repositories: bool, yes: bool) -> None:
    """Delete an organisation with its teams, robots and grants."""
    _delete(remote, _get(remote, account, is_organization=True), repositories=repositories, yes=yes)


@org.command("members")
@with_remote
@with_list
@click.argument("organization")
def list_members(remote: Remote, organization: str, output: Output, limit: int | None) -> None:
    """List the members of an organisation."""
    columns = (*_MEMBER_COLUMNS, Column("ROLE", lambda record: "owner" if record["isAdmin"] else "member"))
    records = remote.records(_MEMBERS, {"organization": organization}, key="members", limit=limit)
    output.listing(records, columns, name=_member_name)


@org.command("add")
@with_remote
@click.argument("organization")
@click.argument("users", metavar="USER...", nargs=-1, required=True)
@click.option("--owner/--member", default=None, help="Whether they own it; by default as they were.")
def add_members(remote: Remote, organization: str, users: tuple[str, ...], owner: bool | None) -> None:
    """Put users into an organisation."""
    body = {} if owner is None else {"isAdmin": owner}
    for one in users:
        remote.call("PUT", f"{_MEMBERS}/{{user}}", {"organization": organization, "user": one}, body=body)


@org.command("remove")
@with_remote
@click.argument("organization")
@click.argument("users", metavar="USER...", nargs=-1, required=True)
def remove_members(remote: Remote, organization: str, users: tuple[str, ...]) -> None:
    """Take users out of an organisation and its teams."""
    for one in users:
        remote.call("DELETE", f"{_MEMBERS}/{{user}}", {"organization": organization, "user": one})


# --- teams ----------------------------------------------------------------------------------------------------


class TeamName(click.ParamType[dict[str, str]]):
    """A team, ``ORGANIZATION/TEAM``; the command gets the names of both."""

    name = "organization/team"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        """Divide it."""
        organization, _, team = str(value).partition("/")
        if not organization or not team or "/" in team:
            self.fail(f"{value!r} is no team: ORGANIZATION/TEAM", param, ctx)
        return {"organization": organization, "team": team}


_team_argument = click.argument("which", metavar="ORGANIZATION/TEAM", type=TeamName())


@click.group()
def team() -> None:
    """Teams of a server's organisations, over its API."""


@team.command("list")
@with_remote
@with_list
@click.argument("organization")
def list_teams(remote: Remote, organization: str, output: Output, limit: int | None) -> None:
    """List the teams of an organisation."""
    output.listing(remote.records(_TEAMS, {"organization": organization}, key="teams", limit=limit), _TEAM_COLUMNS)


@team.command("show")
@with_remote
@with_record
@_team_argument
def show_team(remote: Remote, which: dict[str, str], output: Output) -> None:
    """Show a team."""
    output.record(remote.call("GET", _TEAM, which), (*_TEAM_COLUMNS, Column("ID", "id")))


@team.command("create")
@with_remote
@with_record
@_team_argument
@click.option("--description", default="", help="What it is for.")
def create_team(remote: Remote, which: dict[str, str], description: str, output: Output) -> None:
    """Make a team."""
    body = {"name": which["team"], "description": description}
    made = remote.call("POST", _TEAMS, {"organization": which["organization"]}, body=body)
    if output.as_json:
        output.record(made, _TEAM_COLUMNS)


@team.command("edit")
@with_remote
@with_record
@_team_argument
@click.option("--name", help="What it is called from now on.")
@click.option("--description", help="What it is for.")
def edit_team(
    remote: Remote, which: dict[str, str], name: str | None, description: str | None, output: Output
) -> None:
    """Change a team; what is not given stays as it is."""
    body = changes({"name": name, "description": description})
    changed = remote.call("PATCH", _TEAM, which, body=body)
    if output.as_json:
        output.record(changed, _TEAM_COLUMNS)


@team.command("delete")
@with_remote
@_team_argument
@yes_option
def delete_team(remote: Remote, which: dict[str, str], yes: bool) -> None:
    """Delete a team, and what it was granted."""
    found = remote.call("GET", _TEAM, which)
    confirm(f"delete the team {which['organization']}/{found['name']} and its grants", yes=yes)
    remote.call("DELETE", _TEAM, which)


@team.command("members")
@with_remote
@with_list
@_team_argument
def list_team_members(remote: Remote, which: dict[str, str], output: Output, limit: int | None) -> None:
    """List the members of a team."""
    columns = (*_MEMBER_COLUMNS, Column("ROLE", lambda record: "team admin" if record["isAdmin"] else "member"))
    output.listing(
        remote.records(f"{_TEAM}/members", which, key="members", limit=limit), columns, name=_member_name
    )


@team.command("add")
@with_remote
@_team_argument
@click.argument("users", metavar="USER...", nargs=-1, required=True)
@click.option("--admin/--member", default=None, help="Whether they may edit the team; by default as they were.")
def add_team_members(remote: Remote, which: dict[str, str], users: tuple[str, ...], admin: bool | None) -> None:
    """Put users into a team, and thereby into its organisation."""
    body = {} if admin is None else {"isAdmin": admin}
    for one in users:
        remote.call("PUT", f"{_TEAM}/members/{{user}}", {**which, "user": one}, body=body)


@team.command("remove")
@with_remote
@_team_argument
@click.argument("users", metavar="USER...", nargs=-1, required=True)
def remove_team_members(remote: Remote, which: dict[str, str], users: tuple[str, ...]) -> None:
    """Take users out of a team; they stay in its organisation."""
    for one in users:
        remote.call("DELETE", f"{_TEAM}/members/{{user}}", {**which, "user": one})


@team.command("grant")
@with_remote
@_team_argument
@click.argument("on", metavar="REPOSITORY|NAMESPACE")
@click.argument("level", type=LEVELS)
def grant_team(remote: Remote, which: dict[str, str], on: str, level: str) -> None:
    """Let a team use a repository, or all in its organisation."""
    path, names = grant_path(on, f"{which['organization']}/{which['team']}")
    remote.call("PUT", path, names, body={"accessLevel": level})


@team.command("access")
@with_remote
@with_list
@_team_argument
def team_access(remote: Remote, which: dict[str, str], output: Output, limit: int | None) -> None:
    """List the repositories that a team was granted."""
    columns = (
        Column("REPOSITORY", lambda record: path_of(record["repository"])),
        Column("LEVEL", "accessLevel"),
    )
    path = "/api/v0/accounts/{organization}/teams/{team}/repositoryAccess"
    output.listing(
        remote.records(path, which, key="repositoryAccessList", limit=limit),
        columns,
        name=lambda record: path_of(record["repository"]),
    )


# --- what they share ------------------------------------------------------------------------------------------


def _get(remote: Remote, account: str, *, is_organization: bool) -> Record:
    """The record of an account, of this kind. Raises Failure."""
    kind = "organization" if is_organization else "user"
    try:
        found: Record = remote.call("GET", _ACCOUNT, {"account": account})
    except Refused as error:
        if error.status == 404:
            raise Failure(f"there is no {kind} {account}") from None
        raise
    if found["isOrg"] is not is_organization:
        raise Failure(
            f"{account} is a user, not an organization"
            if is_organization
            else f"{account} is an organization, not a user"
        )
    return found


def _edit(remote: Remote, account: str, output: Output, given: dict[str, Any]) -> None:
    changed = remote.call("PATCH", _ACCOUNT, {"account": account}, body=changes(given))
    if output.as_json:
        output.record(changed, _USER_DETAILS)


def _delete(remote: Remote, found: Record, *, repositories: bool, yes: bool) -> None:
    name = found["name"]
    kind = "organization" if found["isOrg"] else "user"
    if not yes:
        owned = remote.count("/api/v0/repositories/{namespace}", {"namespace": name}) if repositories else 0
        having = f" with {owned} repositor{'y' if owned == 1 else 'ies'}" if repositories else ""
        confirm(f"delete the {kind} {name}{having}", yes=yes)
    if repositories:
        remote.call("DELETE", "/api/v0/accounts/{account}", {"account": name})
    else:
        remote.call("DELETE", _ACCOUNT, {"account": name})
