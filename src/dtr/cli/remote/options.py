"""What the commands for a server share: which server, how to print, and asking before something goes."""

from __future__ import annotations

import os
import sys
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dtr.cli._common import Failure
from dtr.cli.remote.client import Access, Remote, Trust, server_name
from dtr.cli.remote.logins import Logins
from dtr.cli.remote.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.shell_completion import CompletionItem


SERVER, USER, TOKEN, CA = "DTR_SERVER", "DTR_USER", "DTR_TOKEN", "DTR_CA"
"""Variables of the environment, for scripts that do not log in."""

_COMPLETION_SECONDS = 2
_COMPLETIONS = 50


def access(server: str | None, ca: Path | None) -> Access:
    """The server that the options, the environment and the log-ins say, and who asks it. Raises Failure."""
    given = server or os.environ.get(SERVER)
    login = Logins().find(server_name(given) if given else None)
    token = os.environ.get(TOKEN, "")
    if not given and (login is None or token):
        raise Failure(f"which server? `dtr login SERVER` logs in; else --server or {SERVER} names one")
    trust = Trust(read_ca(ca)) if ca else login.access.trust if login else Trust()
    if token:
        return Access(server=server_name(given or ""), user=os.environ.get(USER, ""), secret=token, trust=trust)
    if login is None:
        name = server_name(given or "")
        raise Failure(f"you are not logged in at {name}: `dtr login {name}`, or {TOKEN} for a script")
    known = login.access
    return Access(server=known.server, user=known.user, secret=known.secret, trust=trust)


def read_ca(file: Path) -> str:
    """The authority in a file (PEM). Raises Failure."""
    try:
        return file.read_text(encoding="ascii")
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failure(f"{file} is not PEM") from None


def changes(given: dict[str, Any]) -> dict[str, Any]:
    """Those of the options, by the names of the API, that were given. Raises Failure: none was."""
    found = {name: value for name, value in given.items() if value is not None}
    if not found:
        raise Failure("nothing to change: --help lists what can be")
    return found


ca_option = click.option(
    "--ca",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar=CA,
    help="The authority of the server's certificate (PEM).",
)


def with_remote(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options ``--server`` and ``--ca``; it gets the server as its first argument."""

    @click.option("--server", metavar="HOST[:PORT]", help="The server, when it is not where you logged in last.")
    @ca_option
    @wraps(function)
    def command(server: str | None, ca: Path | None, **parameters: Any) -> None:
        remote = Remote(access(server, ca))
        try:
            function(remote, **parameters)
        finally:
            remote.close()

    return command


def with_record(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option ``--json``; it gets `output`."""

    @click.option("--json", "as_json", is_flag=True, help="Print what the API answers.")
    @wraps(function)
    def command(*arguments: Any, as_json: bool, **parameters: Any) -> None:
        function(*arguments, output=Output(as_json), **parameters)

    return command


def with_list(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options ``--json``, ``--quiet`` and ``--limit``; it gets `output` and `limit`."""

    @click.option("--json", "as_json", is_flag=True, help="Print the API's records, one a line.")
    @click.option("-q", "--quiet", is_flag=True, help="Print names only.")
    @click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Print at most N; by default all.")
    @wraps(function)
    def command(*arguments: Any, as_json: bool, quiet: bool, limit: int | None, **parameters: Any) -> None:
        function(*arguments, output=Output(as_json, quiet), limit=limit, **parameters)

    return command


yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def confirm(what: str, *, yes: bool) -> None:
    """Ask whether to do `what`, which cannot be undone, unless `yes`. Raises Failure when it is not wanted."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failure(f"there is no terminal to ask whether to {what}: --yes does it without asking")
    if not click.confirm(f"{what[0].upper()}{what[1:]}?"):
        raise Failure("nothing was done")


# --- completion by the shell --------------------------------------------------------------------------------


class RepositoryName(click.ParamType[str]):
    """A repository, ``NAMESPACE/NAME``. A shell completes it from the server."""

    name = "repository"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check that it has a namespace."""
        if "/" not in value.strip("/"):
            self.fail(f"{value!r} is no repository: NAMESPACE/NAME", param, ctx)
        return value

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - as click calls it
        incomplete: str,
    ) -> list[CompletionItem]:
        """The repositories that begin so."""
        return _complete(
            ctx,
            lambda remote: [
                f"{one['namespace']}/{one['name']}"
                for one in remote.call(
                    "GET",
                    "/api/v0/index/autocomplete",
                    query={
                        "query": incomplete,
                        "includeRepositories": True,
                        "includeAccounts": False,
                        "limit": _COMPLETIONS,
                    },
                ).get("repositoryResults")
                or ()
            ],
            incomplete,
        )


class TagName(click.ParamType[str]):
    """A tag of the repository that the command names before it. A shell completes it from the server."""

    name = "tag"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - as click calls it
        incomplete: str,
    ) -> list[CompletionItem]:
        """The tags that begin so."""
        repository = ctx.params.get("repository") or ""
        path = "/api/v0/repositories/{repository}/tags"
        return _complete(
            ctx,
            lambda remote: [one["name"] for one in remote.records(path, {"repository": repository}, limit=1000)],
            incomplete,
        )


def _complete(
    context: click.Context, find: Callable[[Remote], list[str]], incomplete: str
) -> list[CompletionItem]:
    """What `find` finds on the server, of what begins so. A shell is shown no failure, and does not wait long."""
    from click.shell_completion import CompletionItem

    try:
        remote = Remote(
            access(context.params.get("server"), context.params.get("ca")), seconds=_COMPLETION_SECONDS
        )
        try:
            return [CompletionItem(one) for one in find(remote) if one.startswith(incomplete)]
        finally:
            remote.close()
    except Failure:
        return []
