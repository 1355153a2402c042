"""``dtr trust``: what content trust has of a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dtr.cli.remote.options import TagName, confirm, with_list, with_remote, yes_option
from dtr.cli.remote.output import Column
from dtr.cli.remote.repositories import repository_argument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dtr.cli.remote.client import Remote
    from dtr.cli.remote.output import Output, Record

_TRUST = "/api/v0/repositories/{repository}/trustData"
_COLUMNS = (
    Column("COLLECTION", "gun"),
    Column("ROLE", "name"),
    Column("VERSION", "version", "number"),
    Column("STORED", "storedAt", "time"),
    Column("EXPIRES", "expiresAt", "time"),
    Column("TAGS", "tags", "number"),
    Column("FORGOTTEN", "forgotten", "number"),
)


@click.group()
def trust() -> None:
    """Content trust of repositories, over the API."""


@trust.command("list")
@with_remote
@with_list
@repository_argument
def list_collections(remote: Remote, repository: str, output: Output, limit: int | None) -> None:
    """
    List the collections of a repository, with their roles.

    Who signed which tag is shown by `dtr tag show`.
    """
    found = remote.records(_TRUST, {"repository": repository}, limit=limit)
    output.listing(found if output.as_json else _roles(found), _COLUMNS, name="gun")


def _roles(collections: Iterator[Record]) -> Iterator[Record]:
    for one in collections:
        yield from ({"gun": one["gun"], **role} for role in one["roles"])


@trust.command("delete")
@with_remote
@repository_argument
@click.option("--domain", metavar="HOST[:PORT]", help="Only what is signed for this address of the registry.")
@yes_option
def delete_collections(remote: Remote, repository: str, domain: str | None, yes: bool) -> None:
    """
    Delete all that content trust has of a repository.

    Nothing of it is signed afterwards. Clients that saw it signed go on to expect the keys that signed it.
    """
    confirm(f"delete all signatures of {repository} in content trust", yes=yes)
    remote.call("DELETE", _TRUST, {"repository": repository}, query={"domain": domain})


@trust.command("forget")
@with_remote
@repository_argument
@click.argument("tag", type=TagName())
@yes_option
def forget_tag(remote: Remote, repository: str, tag: str, yes: bool) -> None:
    """
    Let the signatures of a tag in content trust count no longer.

    The tag can be deleted then. What its signers published stays until they remove it: only they have the keys.
    """
    confirm(f"have the signatures of {repository}:{tag} forgotten", yes=yes)
    remote.call("DELETE", f"{_TRUST}/{{tag}}", {"repository": repository, "tag": tag})
