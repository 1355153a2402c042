"""``dtr robot``: accounts of organisations for their programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dtr.cli.remote import tokens
from dtr.cli.remote.options import changes, confirm, with_list, with_record, with_remote, yes_option
from dtr.cli.remote.output import Column

if TYPE_CHECKING:
    from dtr.cli.remote.client import Remote
    from dtr.cli.remote.output import Output

_ROBOTS = "/api/v0/accounts/{organization}/robots"
_ROBOT = "/api/v0/accounts/{organization}/robots/{robot}"
_COLUMNS = (
    Column("ROBOT", "name"),
    Column("ACTIVE", "isActive"),
    Column("MADE", "createdAt", "time"),
    Column("DESCRIPTION", "description"),
)


class RobotName(click.ParamType[dict[str, str]]):
    """A robot, ``ORGANIZATION+ROBOT``; the command gets the names of both."""

    name = "organization+robot"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        """Divide it."""
        organization, _, robot = str(value).partition("+")
        if not organization or not robot:
            self.fail(f"{value!r} is no robot: ORGANIZATION+ROBOT", param, ctx)
        return {"organization": organization, "robot": robot}


_robot_argument = click.argument("which", metavar="ORGANIZATION+ROBOT", type=RobotName())


@click.group()
def robot() -> None:
    """Robots of a server's organisations, over its API."""


@robot.command("list")
@with_remote
@with_list
@click.argument("organization")
def list_robots(remote: Remote, organization: str, output: Output, limit: int | None) -> None:
    """List the robots of an organisation."""
    output.listing(remote.records(_ROBOTS, {"organization": organization}, limit=limit), _COLUMNS)


@robot.command("create")
@with_remote
@with_record
@_robot_argument
@click.option("--description", default="", help="What it is for.")
def create_robot(remote: Remote, which: dict[str, str], description: str, output: Output) -> None:
    """
    Make a robot.

    It logs in with a token (`dtr robot token`), and may do what it is granted (`dtr repo grant`).
    """
    body = {"name": which["robot"], "description": description}
    made = remote.call("POST", _ROBOTS, {"organization": which["organization"]}, body=body)
    if output.as_json:
        output.record(made, _COLUMNS)


@robot.command("edit")
@with_remote
@with_record
@_robot_argument
@click.option("--description", help="What it is for.")
@click.option("--active/--inactive", default=None, help="Whether to be let in.")
def edit_robot(
    remote: Remote, which: dict[str, str], description: str | None, active: bool | None, output: Output
) -> None:
    """Change a robot; what is not given stays as it is."""
    body = changes({"description": description, "isActive": active})
    changed = remote.call("PATCH", _ROBOT, which, body=body)
    if output.as_json:
        output.record(changed, _COLUMNS)


@robot.command("delete")
@with_remote
@_robot_argument
@yes_option
def delete_robot(remote: Remote, which: dict[str, str], yes: bool) -> None:
    """Delete a robot with its tokens and grants."""
    found = remote.call("GET", _ROBOT, which)
    confirm(f"delete the robot {found['name']} with its tokens and grants", yes=yes)
    remote.call("DELETE", _ROBOT, which)


@robot.command("token")
@with_remote
@with_record
@_robot_argument
@click.argument("label")
@tokens.scope_options
def create_robot_token(remote: Remote, which: dict[str, str], label: str, output: Output, **scope: Any) -> None:
    """
    Make an access token of a robot.

    It is printed now and never again. LABEL says what it is for. It is good for all that the robot was granted,
    or with --on or --for for less.
    """
    made = remote.call("POST", f"{_ROBOT}/tokens", which, body=tokens.form(label, **scope))
    tokens.show_new(made, output)


@robot.command("tokens")
@with_remote
@with_list
@_robot_argument
def list_robot_tokens(remote: Remote, which: dict[str, str], output: Output, limit: int | None) -> None:
    """List the access tokens of a robot."""
    output.listing(remote.records(f"{_ROBOT}/tokens", which, limit=limit), tokens.COLUMNS, name="hashedToken")


@robot.command("revoke")
@with_remote
@_robot_argument
@click.argument("token", metavar="ID")
@yes_option
def revoke_robot_token(remote: Remote, which: dict[str, str], token: str, yes: bool) -> None:
    """End an access token of a robot. ID is its beginning in `dtr robot tokens`."""
    found = tokens.find(remote.records(f"{_ROBOT}/tokens", which), token)
    confirm(f"end the token {tokens.named(found)} of {'+'.join(which.values())}", yes=yes)
    remote.call("DELETE", f"{_ROBOT}/tokens/{{token}}", {**which, "token": found["hashedToken"]})
