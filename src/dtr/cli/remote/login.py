"""``dtr login`` and ``dtr logout``."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from dtr.cli._common import Failure, password
from dtr.cli.remote.client import Access, Refused, Remote, Trust, server_name
from dtr.cli.remote.logins import Login, Logins
from dtr.cli.remote.options import ca_option, read_ca

if TYPE_CHECKING:
    from pathlib import Path

_TOKEN_PREFIX = "dtra_"  # noqa: S105 - no secret


@click.command()
@click.argument("server", metavar="HOST[:PORT]")
@click.option("--user", "-u", metavar="NAME", help="Who you are there.")
@click.option("--password-stdin", is_flag=True, help="Read the password from the standard input.")
@ca_option
@click.option("--insecure", is_flag=True, help="Do not check who the server is. For trying out only.")
def login(server: str, user: str | None, password_stdin: bool, ca: Path | None, insecure: bool) -> None:
    """
    Log in at a server that runs somewhere else.

    An access token is made for this machine and kept in ~/.config/dtr/logins.json, which only you can read; the
    password is not kept. An access token in place of the password is kept itself, as a robot needs it.
    """
    if ca and insecure:
        raise Failure("--ca and --insecure exclude each other")
    name = server_name(server)
    if name.startswith("http://") and not insecure:
        raise Failure(f"{name} would get the password in the clear: --insecure does it nevertheless")
    if user is None:
        if not sys.stdin.isatty():
            raise Failure("there is no terminal to ask who you are: --user says it")
        user = click.prompt("User")
    secret = password(password_stdin)
    if not secret:
        raise Failure("an empty password opens nothing")
    trust = Trust(read_ca(ca) if ca else None, insecure=insecure)
    made = _log_in(Access(server=name, user=user, secret=secret, trust=trust))
    logins = Logins()
    before = logins.find(name)
    logins.put(made)
    if before is not None and before.token_id != made.token_id:
        with suppress(Failure):  # it may be gone, and the new one works
            _end(before)
    click.echo(f"You are logged in at {name} as {user}.", err=True)


@click.command()
@click.argument("server", metavar="[HOST[:PORT]]", required=False)
def logout(server: str | None) -> None:
    """
    Log out of a server, by default of the last one.

    The access token that `dtr login` made ends, here and there.
    """
    logins = Logins()
    found = logins.find(server_name(server) if server else None)
    if found is None:
        raise Failure(f"you are not logged in{f' at {server}' if server else ''}")
    logins.remove(found.server)
    try:
        _end(found)
    except Failure as error:
        raise Failure(
            f"you are logged out here, but {found.server} may still know the token {found.token_id[:12]}: "
            f"{error.message}"
        ) from None
    click.echo(f"You are logged out of {found.server}.", err=True)


def _log_in(access: Access) -> Login:
    """Make a token for this machine, or check the token that was given. Raises Failure."""
    remote = Remote(access)
    try:
        kept = Login(
            server=access.server,
            user=access.user,
            token=access.secret,
            ca=access.trust.ca,
            insecure=access.trust.insecure,
        )
        if access.secret.startswith(_TOKEN_PREFIX):
            remote.call("GET", "/api/v0/accounts/language")
            return kept
        made = remote.call("POST", "/api/v0/api_tokens", body={"tokenLabel": f"dtr on {socket.gethostname()}"})
        if not isinstance(made, dict) or not isinstance(made.get("token"), str):
            raise Failure(f"{access.server} answers, but not as dtr does: is it the right address?")
        return replace(kept, token=made["token"], token_id=made["hashedToken"])
    except Refused as error:
        if error.code == "NOT_AUTHENTICATED":
            raise Failure(f"{access.server} does not know {access.user} with this password") from None
        raise
    finally:
        remote.close()


def _end(login: Login) -> None:
    """End the token that was made for a log-in, unless it has ended. Raises Failure."""
    if not login.token_id:
        return
    remote = Remote(login.access, seconds=10)
    try:
        remote.call("DELETE", "/api/v0/api_tokens/{token}", {"token": login.token_id})
    except Refused as error:
        if error.code not in {"NOT_AUTHENTICATED", "NO_SUCH_API_TOKEN"}:
            raise
    finally:
        remote.close()
