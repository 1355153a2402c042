"""``dtr repo`` and ``dtr tag``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dtr.cli._common import Failure
from dtr.cli.remote.options import (
    RepositoryName,
    TagName,
    changes,
    confirm,
    with_list,
    with_record,
    with_remote,
    yes_option,
)
from dtr.cli.remote.output import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dtr.cli.remote.client import Remote
    from dtr.cli.remote.output import Output, Record

LEVELS = click.Choice(["read-only", "read-write", "admin"])
_REPOSITORY = "/api/v0/repositories/{repository}"
_TAGS = "/api/v0/repositories/{repository}/tags"
_AT_ONCE = 1000

repository_argument = click.argument("repository", type=RepositoryName())


def path_of(record: Record) -> str:
    """The path of a repository's record."""
    return f"{record['namespace']}/{record['name']}"


_COLUMNS = (
    Column("REPOSITORY", path_of),
    Column("VISIBILITY", "visibility"),
    Column("SIZE", "size", "size"),
    Column("PULLS", "pulls", "number"),
    Column("PUSHED", "lastPushedAt", "time"),
    Column("DESCRIPTION", "shortDescription"),
)


def _immutable(record: Record) -> str:
    patterns = record.get("immutableTagPatterns") or []
    return "all tags" if record.get("immutableTags") else " ".join(patterns) or "no tags"


_DETAILS = (
    *_COLUMNS,
    Column("PUSHES", "pushes", "number"),
    Column("PULLED", "lastPulledAt", "time"),
    Column("IMMUTABLE", _immutable),
    Column("TAG LIMIT", lambda record: record.get("tagLimit") or "none"),
    Column("SCAN ON PUSH", "scanOnPush"),
    Column("YOUR ACCESS", "yourAccess"),
    Column("ID", "id"),
    Column("README", "longDescription"),
)


@click.group()
def repo() -> None:
    """Repositories on a server, over its API."""


@repo.command("list")
@with_remote
@with_list
@click.argument("namespace", required=False)
def list_repositories(remote: Remote, namespace: str | None, output: Output, limit: int | None) -> None:
    """
    List the repositories that you may see.

    All, or those of one NAMESPACE.
    """
    path = "/api/v0/repositories/{namespace}" if namespace else "/api/v0/repositories"
    names = {"namespace": namespace} if namespace else {}
    output.listing(remote.records(path, names, key="repositories", limit=limit), _COLUMNS, name=path_of)


@repo.command("show")
@with_remote
@with_record
@repository_argument
def show_repository(remote: Remote, repository: str, output: Output) -> None:
    """Show a repository."""
    output.record(remote.call("GET", _REPOSITORY, {"repository": repository}), _DETAILS)


def _settings(function: Callable[..., None]) -> Callable[..., None]:
    """Options for the settings of a repository; those that are not given are None."""
    for option in (
        click.option("--public/--private", default=None, help="Whether everybody may pull."),
        click.option("--immutable/--mutable", default=None, help="Whether tags cannot be overwritten."),
        click.option(
            "--immutable-tags",
            metavar="PATTERN",
            multiple=True,
            help="Tags that cannot be overwritten, such as v*; may be repeated; '' for none.",
        ),
        click.option("--tag-limit", type=click.IntRange(min=0), help="Keep at most so many tags; 0: all."),
        click.option("--scan-on-push/--scan-by-hand", default=None, help="Whether each push is scanned."),
        click.option("--description", help="A short description."),
        click.option("--readme", type=click.File(encoding="utf-8"), help="A file with the long description."),
    ):
        function = option(function)
    return function


def _body(
    *,
    public: bool | None,
    immutable: bool | None,
    immutable_tags: tuple[str, ...],
    tag_limit: int | None,
    scan_on_push: bool | None,
    description: str | None,
    readme: Any,
) -> dict[str, Any]:
    """The form of the API for what was given."""
    try:
        long_description = None if readme is None else readme.read()
    except UnicodeDecodeError:
        raise Failure(f"{readme.name} is not in UTF-8") from None
    given = {
        "visibility": None if public is None else "public" if public else "private",
        "immutableTags": immutable,
        "immutableTagPatterns": [one for one in immutable_tags if one] if immutable_tags else None,
        "tagLimit": tag_limit,
        "scanOnPush": scan_on_push,
        "shortDescription": description,
        "longDescription": long_description,
    }
    return {name: value for name, value in given.items() if value is not None}


@repo.command("create")
@with_remote
@with_record
@repository_argument
@_settings
def create_repository(remote: Remote, repository: str, output: Output, **settings: Any) -> None:
    """Make a repository, private unless told otherwise."""
    namespace, _, name = repository.partition("/")
    body = {"name": name, "visibility": "private", **_body(**settings)}
    made = remote.call("POST", "/api/v0/repositories/{namespace}", {"namespace": namespace}, body=body)
    if output.as_json:
        output.record(made, _DETAILS)


@repo.command("edit")
@with_remote
@with_record
@repository_argument
@_settings
def edit_repository(remote: Remote, repository: str, output: Output, **settings: Any) -> None:
    """
    Change the settings of a repository.

    What is not given stays as it is.
    """
    body = changes(_body(**settings))
    changed = remote.call("PATCH", _REPOSITORY, {"repository": repository}, body=body)
    if output.as_json:
        output.record(changed, _DETAILS)


@repo.command("rename")
@with_remote
@repository_argument
@click.argument("to", type=RepositoryName())
def rename_repository(remote: Remote, repository: str, to: str) -> None:
    """
    Rename a repository, or move it to another namespace.

    Pulls under the old name go on until another repository has it; pushes are told the new one.
    """
    namespace, _, name = to.partition("/")
    body = {"namespace": namespace, "name": name}
    names = {"repository": repository}
    remote.call("POST", f"{_REPOSITORY}/rename", names, body=body)


@repo.command("delete")
@with_remote
@repository_argument
@yes_option
def delete_repository(remote: Remote, repository: str, yes: bool) -> None:
    """Delete a repository with all its tags and grants."""
    remote.call("GET", _REPOSITORY, {"repository": repository})
    if not yes:
        tags = remote.count(_TAGS, {"repository": repository})
        confirm(f"delete {repository} with {tags} tag{'' if tags == 1 else 's'}", yes=yes)
    remote.call("DELETE", _REPOSITORY, {"repository": repository})


# --- grants ---------------------------------------------------------------------------------------------------

_ACCESS_COLUMNS = (
    Column("WHO", "who"),
    Column("KIND", "kind"),
    Column("LEVEL", "accessLevel"),
)


def grant_path(on: str, who: str) -> tuple[str, dict[str, str]]:
    """
    The operation for a grant to `who`, a user or ``ORGANIZATION/TEAM``, and the names in its path.

    `on` is a repository or a namespace. Raises Failure.
    """
    place, names = _granted_on(on)
    organization, slash, team = who.partition("/")
    if not slash:
        return f"{place}/userAccess/{{user}}", {**names, "user": who}
    if organization != on.partition("/")[0]:
        raise Failure(f"{who} can be granted something in {organization} only, where it belongs")
    return f"{place}/teamAccess/{{team}}", {**names, "organization": organization, "team": team}


def _granted_on(on: str) -> tuple[str, dict[str, str]]:
    if "/" in on:
        return _REPOSITORY, {"repository": on}
    return "/api/v0/repositoryNamespaces/{namespace}", {"namespace": on}


@repo.command("grant")
@with_remote
@click.argument("on", metavar="REPOSITORY|NAMESPACE", type=click.UNPROCESSED)
@click.argument("who", metavar="USER|ORGANIZATION/TEAM")
@click.argument("level", type=LEVELS)
def grant(remote: Remote, on: str, who: str, level: str) -> None:
    """
    Let a user or a team use a repository, or all in a namespace.

    A grant replaces the one that was there.
    """
    path, names = grant_path(on, who)
    remote.call("PUT", path, names, body={"accessLevel": level})


@repo.command("revoke")
@with_remote
@click.argument("on", metavar="REPOSITORY|NAMESPACE")
@click.argument("who", metavar="USER|ORGANIZATION/TEAM")
def revoke(remote: Remote, on: str, who: str) -> None:
    """Take a grant away."""
    path, names = grant_path(on, who)
    remote.call("DELETE", path, names)


@repo.command("access")
@with_remote
@with_list
@click.argument("on", metavar="REPOSITORY|NAMESPACE")
def access(remote: Remote, on: str, output: Output, limit: int | None) -> None:
    """List who was granted what, on a repository or a namespace."""
    place, names = _granted_on(on)

    def both() -> Iterator[Record]:
        for kind in ("team", "user"):
            for one in remote.records(f"{place}/{kind}Access", names, key=f"{kind}AccessList", limit=limit):
                yield one if output.as_json else {"kind": kind, "who": _who(on, kind, one), **one}

    output.listing(both(), _ACCESS_COLUMNS, name="who")


def _who(on: str, kind: str, record: Record) -> str:
    known: Record = record[kind]
    name = known.get("name") or known["id"]
    return f"{on.partition('/')[0]}/{name}" if kind == "team" else str(name)


# --- tags -----------------------------------------------------------------------------------------------------


def _manifest(field: str) -> Callable[[Record], Any]:
    return lambda record: (record.get("manifest") or {}).get(field)


def _platform(record: Record) -> str:
    manifest = record.get("manifest") or {}
    several = manifest.get("platforms")
    if several is not None:
        return ", ".join(filter(None, map(_named, several)))
    return _named(manifest)


def _named(platform: Record) -> str:
    return "/".join(filter(None, (platform.get(part) for part in ("os", "architecture", "variant"))))


def _signed(record: Record) -> str:
    """By whom in content trust; empty: by nobody."""
    if record.get("hashMismatch"):
        return "for another image"
    names = {one["signer"] for one in record.get("trust") or () if one["digest"] == record.get("digest")} - {""}
    return ", ".join(sorted(names)) or ("yes" if record.get("inNotary") else "")


_TAG_COLUMNS = (
    Column("TAG", "name"),
    Column("TYPE", _manifest("type")),
    Column("DIGEST", lambda record: str(record.get("digest", ""))[:19]),
    Column("SIZE", _manifest("size"), "size"),
    Column("PUSHED", "updatedAt", "time"),
    Column("BY", "author"),
    Column("PULLS", "pulls", "number"),
    Column("SIGNED", _signed),
    Column("PLATFORM", _platform),
)
_TAG_DETAILS = (
    Column("TAG", "name"),
    Column("DIGEST", _manifest("digest")),
    Column("PLATFORM", _platform),
    Column("TYPE", _manifest("type")),
    Column("MEDIA TYPE", _manifest("mediaType")),
    Column("SIZE", _manifest("size"), "size"),
    Column("MADE", "createdAt", "time"),
    Column("PUSHED", "updatedAt", "time"),
    Column("BY", "author"),
    Column("SIGNED", _signed),
)


@click.group()
def tag() -> None:
    """Tags on a server, over its API."""


@tag.command("list")
@with_remote
@with_list
@repository_argument
def list_tags(remote: Remote, repository: str, output: Output, limit: int | None) -> None:
    """List the tags of a repository."""
    output.listing(remote.records(_TAGS, {"repository": repository}, limit=limit), _TAG_COLUMNS)


@tag.command("show")
@with_remote
@with_record
@repository_argument
@click.argument("tag", metavar="TAG|DIGEST", type=TagName())
def show_tag(remote: Remote, repository: str, tag: str, output: Output) -> None:
    """Show what a tag names; of several platforms, each."""
    found = remote.call("GET", f"{_TAGS}/{{tag}}", {"repository": repository, "tag": tag})
    for place, one in enumerate(found):
        if place and not output.as_json:
            click.echo()
        output.record(one, _TAG_DETAILS)


@tag.command("delete")
@with_remote
@repository_argument
@click.argument("tags", metavar="TAG...", type=TagName(), nargs=-1, required=True)
@yes_option
def delete_tags(remote: Remote, repository: str, tags: tuple[str, ...], yes: bool) -> None:
    """
    Delete tags.

    What nothing else names goes with them, after a while.
    """
    confirm(f"delete {', '.join(tags)} of {repository}", yes=yes)
    if len(tags) == 1:
        remote.call("DELETE", f"{_TAGS}/{{tag}}", {"repository": repository, "tag": tags[0]})
        return
    missing, signed = [], []
    for begin in range(0, len(tags), _AT_ONCE):
        body = {"tags": list(tags[begin : begin + _AT_ONCE])}
        answer = remote.call("POST", f"{_TAGS}/delete", {"repository": repository}, body=body)
        signed += [one["name"] for one in answer if one["inNotary"]]
        missing += [one["name"] for one in answer if not one["deleted"] and not one["inNotary"]]
    said = [f"{repository} has no tag {', '.join(missing)}"] if missing else []
    said += [f"signed in content trust: {', '.join(signed)}"] if signed else []
    if said:
        raise Failure(f"{'; '.join(said)}; the others are deleted")
