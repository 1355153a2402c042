"""``dtr storage``: where blobs are kept, on the machine of the registry."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from dtr.cli._common import Failure, printable, run_with, with_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dtr.app import Application
    from dtr.backends import Assignment, Backend
    from dtr.backends.distribution import Configuration
    from dtr.config import Loaded
    from dtr.jobs import Job

_REDIRECT_SECONDS = 300
_FOLLOW_SECONDS = 0.5
_PAGE = 1000


@click.group()
def storage() -> None:
    """Storages: where blobs are kept. A running server follows what is changed here within two seconds."""


@storage.command("list")
@with_settings()
@click.option("--json", "as_json", is_flag=True, help="Print a list of records.")
def list_storages(loaded: Loaded, as_json: bool) -> None:
    """
    List all storages.

    A line each: name, kind, blobs, bytes, place, and the namespaces whose new blobs it takes (`*`: all others),
    with tabs between.
    """

    async def work(application: Application) -> None:
        backends = application.backends
        assignments = await backends.assignments()
        found = [await _record(application, one, assignments) for one in await backends.list_storages()]
        if as_json:
            click.echo(json.dumps(found, ensure_ascii=False))
            return
        for one in found:
            takes = ",".join([*(["*"] if one["default"] else []), *one["namespaces"]])
            columns = (one["name"], one["driver"], one["blobs"], one["bytes"], one["place"], takes)
            click.echo("\t".join(printable(str(column)) for column in columns))

    run_with(loaded, work)


@storage.command("show")
@with_settings()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a record.")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print it as Docker's registry would have it configured.")
def show_storage(loaded: Loaded, name: str | None, as_json: bool, as_yaml: bool) -> None:
    """
    Show a storage.

    The one that is called NAME, or else the default one. Secrets are masked.
    """

    async def work(application: Application) -> None:
        backends = application.backends
        found = await backends.get(name) if name else _default(await backends.list_storages())
        if as_yaml:
            click.echo(_yaml(found), nl=False)
            return
        one = await _record(application, found, await backends.assignments())
        if as_json:
            click.echo(json.dumps(one, ensure_ascii=False))
            return
        parameters = one.pop("parameters")
        for key, value in {**one, **parameters}.items():
            text = value if isinstance(value, str) else json.dumps(value)
            click.echo(f"{key}: {printable(text)}".rstrip())

    run_with(loaded, work)


@storage.command("check")
@with_settings()
@click.argument("name", required=False)
def check_storage(loaded: Loaded, name: str | None) -> None:
    """
    Try a storage: write, read and delete something there.

    The one that is called NAME, or else all.
    """

    async def work(application: Application) -> None:
        names = [name] if name else [one.name for one in await application.backends.list_storages()]
        failed = False
        for one in names:
            try:
                await application.backends.check(one)
            except BackendRefused as error:
                failed = True
                click.echo(f"FAIL  {one}: {printable(str(error))}")
            else:
                click.echo(f"ok    {one}")
        if failed:
            sys.exit(1)

    from dtr.backends import BackendRefused

    run_with(loaded, work)


@storage.command("set")
@with_settings()
@click.argument("name")
@click.argument("parameters", metavar="[PARAMETER=VALUE]...", nargs=-1)
@click.option("--driver", help="Its kind: filesystem, s3, azure, …")
@click.option(
    "--file",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A configuration of Docker's registry (YAML), of which the section `storage` is taken.",
)
@click.option(
    "--redirect-seconds", type=int, help="Send pulls to its own addresses, good for so long; 0: do not (default)."
)
@click.option("--redirect-except", metavar="NETWORK", multiple=True, help="Clients in it are not sent there.")
@click.option("--default", "is_default", is_flag=True, help="Let it take new blobs.")
def set_storage(
    loaded: Loaded,
    name: str,
    parameters: tuple[str, ...],
    driver: str | None,
    file: Path | None,
    redirect_seconds: int | None,
    redirect_except: tuple[str, ...],
    is_default: bool,
) -> None:
    """
    Make a storage, or change one.

    What is not said of one that is there stays as it is; `PARAMETER=` takes a parameter away. Secrets are read
    from files (`secret_key=@FILE`) or from standard input (`secret_key=@-`). It is saved when writing, reading
    and deleting succeed there. A storage that has blobs cannot be sent to another place: make another one, and
    `dtr storage migrate` the blobs to it.
    """

    async def work(application: Application) -> None:
        backends = application.backends
        present = next((one for one in await backends.list_storages() if one.name == name), None)
        seconds, networks = (present.redirect_seconds, present.redirect_except) if present else (None, ())
        if file is not None:
            said = _read_file(file)
            kind, given = said.driver, _unmasked(said.parameters)
            if said.redirect is not None:
                seconds = (seconds or _REDIRECT_SECONDS) if said.redirect else None
        elif driver or present:
            kind = driver or (present.driver if present else "")
            given = dict(present.parameters) if present and present.driver == kind else {}
        else:
            raise Failure(f"there is no storage {name} yet: --driver or --file says what it is")
        if redirect_seconds is not None:
            seconds = redirect_seconds or None
        definition = Definition(
            driver=kind,
            parameters=given | _read_parameters(kind, parameters),
            redirect_seconds=seconds,
            redirect_except=redirect_except or networks,
        )
        await backends.put(name, definition)
        if is_default:
            await backends.make_default(name)

    from dtr.backends import Definition

    run_with(loaded, work)


@storage.command("default")
@with_settings()
@click.argument("name")
def make_default(loaded: Loaded, name: str) -> None:
    """
    Let a storage take new blobs.

    Those that are there stay where they are.
    """
    run_with(loaded, lambda application: application.backends.make_default(name))


@storage.command("assign")
@with_settings()
@click.argument("namespace")
@click.argument("name", required=False)
def assign(loaded: Loaded, namespace: str, name: str | None) -> None:
    """
    Let a storage take the new blobs of a namespace.

    The storage NAME, or, without one, the default one.
    """

    async def work(application: Application) -> None:
        owner = await application.accounts.get(namespace)
        if name is None:
            await application.backends.unassign(owner.id)
        else:
            await application.backends.assign(owner.id, name)

    run_with(loaded, work)


@storage.command("remove")
@with_settings()
@click.argument("name")
def remove(loaded: Loaded, name: str) -> None:
    """
    Forget a storage.

    One in which there is nothing any more that this registry knows of.
    """
    run_with(loaded, lambda application: application.backends.delete(name))


@storage.command("migrate")
@with_settings()
@click.option(
    "--from", "sources", metavar="NAME", multiple=True, help="A storage to empty; without it, all others."
)
@click.option("--to", "target", metavar="NAME", required=True, help="The storage that gets the blobs.")
@click.option("--rate", type=click.IntRange(min=1), help="Bytes a second, of all copies together.")
@click.option("--parallel", type=click.IntRange(1, 64), default=4, help="So many blobs at a time (default: 4).")
@click.option("--keep-source", is_flag=True, help="Leave the old objects, of which nothing knows any more.")
@click.option("--copied", is_flag=True, help="The contents were copied by hand: look for them, and copy nothing.")
@click.option("--verify", is_flag=True, help="With --copied: read each whole, and compare it with its digest.")
@click.option("--detach", is_flag=True, help="Do not wait for the end.")
def migrate(loaded: Loaded, target: str, detach: bool, **how: Any) -> None:
    """
    Move blobs to a storage, while pushes and pulls go on.

    It takes new blobs from then on. This is a job, which a running server works off; interrupting this command
    leaves it running, and `--detach` does not wait for it. What cannot be moved stays where it is, and is told:
    then the exit status is 1.
    """

    async def work(application: Application) -> None:
        job = await _submit(application, target, how)
        click.echo(f"job {job.id}")
        if not detach and not await _follow(application, job):
            sys.exit(1)

    run_with(loaded, work)


async def _submit(application: Application, target: str, how: dict[str, Any]) -> Job:
    """Queue a migration. Raises Failure, BackendUnknown."""
    from dtr.jobs import JobUnknown
    from dtr.registry.migration import request_of

    for name in (target, *how["sources"]):
        await application.backends.get(name)
    if target in how["sources"]:
        raise Failure(f"{target} is where the blobs go")
    try:
        return await application.jobs.submit(request_of(target, **how))
    except JobUnknown:
        raise Failure("another migration waits already") from None


async def _follow(application: Application, job: Job) -> bool:
    """Print the log of a job until it ends; whether it did what it should."""
    line = 0
    while True:
        found = await application.jobs.get(job.id)
        while page := await application.jobs.logs(job.id, offset=line, limit=_PAGE):
            for number, text in page:
                line = number + 1
                click.echo(printable(json.loads(text)["msg"]))
        if found.ended_at is not None:
            return found.status == "done"
        await asyncio.sleep(_FOLLOW_SECONDS)


async def _record(application: Application, one: Backend, assignments: Iterable[Assignment]) -> dict[str, Any]:
    from dtr.backends.distribution import MASK

    usage = await application.backends.usage(one.name)
    return {
        "name": one.name,
        "driver": one.driver,
        "place": one.place,
        "default": one.is_default,
        "from_settings": one.is_from_settings,
        "namespaces": [assigned.namespace for assigned in assignments if assigned.storage == one.name],
        "blobs": usage.blobs,
        "bytes": usage.bytes,
        "uploads": usage.uploads,
        "deletions": usage.deletions,
        "redirect_seconds": one.redirect_seconds,
        "redirect_except": list(one.redirect_except),
        "parameters": {**one.parameters, **dict.fromkeys(one.secrets, MASK)},
    }


def _default(found: Iterable[Backend]) -> Backend:
    for one in found:
        if one.is_default:
            return one
    raise Failure("no server has started on this data yet")


def _yaml(one: Backend) -> str:
    """A configuration of Docker's registry that has this storage; secrets are masked."""
    import yaml

    from dtr.backends.distribution import MASK, show

    section = show(one.driver, {**one.parameters, **dict.fromkeys(one.secrets, MASK)})
    section["redirect"] = {"disable": one.redirect_seconds is None}
    return yaml.safe_dump({"version": 0.1, "storage": section}, sort_keys=False)


def _read_file(file: Path) -> Configuration:
    """What a configuration of Docker's registry says. Raises Failure."""
    from dtr.backends.distribution import parse, read
    from dtr.storage.definitions import DefinitionInvalid

    try:
        said = read(parse(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failure(f"{file} is not in UTF-8") from None
    except DefinitionInvalid as error:
        raise Failure(f"{file}: {error}") from None
    if said.ignored:
        click.echo(f"means nothing here: {', '.join(said.ignored)}", err=True)
    return said


def _unmasked(parameters: dict[str, Any]) -> dict[str, Any]:
    from dtr.backends.distribution import MASK

    return {name: value for name, value in parameters.items() if value != MASK}


def _read_parameters(kind: str, given: Iterable[str]) -> dict[str, Any]:
    """Parameters from the command line; an empty value is none. Raises Failure."""
    from pydantic import SecretStr

    from dtr.storage.definitions import KINDS

    fields = KINDS[kind].model_fields if kind in KINDS else {}
    secrets = {name for name, info in fields.items() if SecretStr in (info.annotation, *get_args(info.annotation))}
    found: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise Failure(f"{one!r} is no parameter: PARAMETER=VALUE")
        if name in secrets and value and not value.startswith("@"):
            raise Failure(f"{name} is a secret, which others could read in the list of processes: {name}=@FILE")
        found[name] = _content(value[1:]) if value.startswith("@") else value or None
    return found


def _content(name: str) -> str:
    """What is in a file, without the line break at its end; of ``-``, what comes from standard input."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failure(f"{name} is not in UTF-8") from None
    return text.rstrip("\r\n")
