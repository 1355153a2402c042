"""``dtr repository``: repositories, and what teams and users may do on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dtr.cli._common import Failure, run_with, with_settings

if TYPE_CHECKING:
    from dtr.app import Application
    from dtr.config import Loaded
    from dtr.registry import Repository


@click.group()
def repository() -> None:
    """Repositories and grants, in the data on this machine."""


@repository.command("create")
@with_settings()
@click.argument("name")
@click.option("--public", is_flag=True, help="Everybody may pull.")
@click.option("--immutable", is_flag=True, help="Tags cannot be overwritten.")
@click.option("--tag-limit", type=int, default=0, help="Keep at most so many tags; 0: all.")
@click.option("--description", default="", help="A short description.")
def create(loaded: Loaded, name: str, public: bool, immutable: bool, tag_limit: int, description: str) -> None:
    """Make repository NAME (NAMESPACE/…), private unless told otherwise."""
    from dtr.oci import parse_repository_name
    from dtr.registry import Settings

    async def work(application: Application) -> None:
        await application.repositories.create(
            parse_repository_name(name),
            Settings(
                visibility="public" if public else "private",
                short_description=description,
                immutable_tags=immutable,
                tag_limit=tag_limit,
            ),
        )

    run_with(loaded, work)


@repository.command("list")
@with_settings()
def list_repositories(loaded: Loaded) -> None:
    """
    List all repositories.

    A line each: name, visibility and marks, description, with tabs between.
    """

    async def work(application: Application) -> None:
        after = ""
        while page := await application.repositories.list_repositories(after=after, limit=1000):
            for one in page:
                click.echo(f"{one.path}\t{_marks(one)}\t{one.settings.short_description}")
            after = page[-1].path

    run_with(loaded, work)


@repository.command("update")
@with_settings()
@click.argument("name")
@click.option("--visibility", type=click.Choice(["public", "private"]), help="Who may pull.")
@click.option("--immutable/--mutable", default=None, help="Whether tags cannot be overwritten.")
@click.option("--tag-limit", type=int, default=None, help="Keep at most so many tags; 0: all.")
@click.option("--description", default=None, help="A short description.")
def update(
    loaded: Loaded,
    name: str,
    visibility: str | None,
    immutable: bool | None,
    tag_limit: int | None,
    description: str | None,
) -> None:
    """
    Change the settings of a repository.

    What is not given stays as it is.
    """
    given = {
        "visibility": visibility,
        "immutable_tags": immutable,
        "tag_limit": tag_limit,
        "short_description": description,
    }
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    run_with(loaded, lambda application: application.repositories.update(name, **changes))


@repository.command("delete")
@with_settings()
@click.argument("name")
def delete(loaded: Loaded, name: str) -> None:
    """Delete a repository and all that is in it."""
    run_with(loaded, lambda application: application.repositories.delete(name))


@repository.command("grant")
@with_settings()
@click.argument("name")
@click.argument("grantee")
@click.argument("level", type=click.Choice(["none", "read-only", "read-write", "admin"]))
def grant(loaded: Loaded, name: str, grantee: str, level: str) -> None:
    """
    Give GRANTEE a LEVEL on repository NAME.

    GRANTEE is a team (ORGANISATION/TEAM), a user, or a robot (ORGANISATION+ROBOT). A NAME without a slash is that
    of an account, and means its whole namespace. The level `none` takes the grant away.
    """
    from dtr.accounts import Level

    organization, slash, team = grantee.partition("/")

    async def work(application: Application) -> None:
        grants = application.accounts.grants
        place = await grants.on(name)
        if not slash:
            await grants.set_user(place, grantee, Level.of(level))
        elif organization == place.owner:
            await grants.set_team(place, team, Level.of(level))
        else:
            raise Failure("the team does not belong to the organisation that owns what is granted")

    run_with(loaded, work)


def _marks(one: Repository) -> str:
    settings = one.settings
    marks: list[str] = [settings.visibility]
    if settings.immutable_tags:
        marks.append("immutable")
    if settings.tag_limit:
        marks.append(f"tag-limit={settings.tag_limit}")
    return ",".join(marks)
