"""
``/api/v0/admin/settings/registry``, as DTR had it, and ``/api/v0/admin/storages``: where blobs are kept.

DTR knew one storage, and lost all tags when it was given another one. Here a configuration that says another place
makes one more storage, which takes new blobs; those that are there stay where they are, and are served from there,
until somebody moves them.

For administrators; auditors look. Secrets are shown to nobody: a mask stands for the one that is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt  # noqa: TC003 - the framework reads it
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fastapi import Depends, Query, Request
from pydantic import Field

from dtr.accounts import Operation
from dtr.backends import BackendUnknown, Definition
from dtr.backends.distribution import MASK, parse, read, show, theirs
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.jobs import JobRecord
from dtr.http.api.models import NEVER, Form, Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.rooms import RoomsDep
from dtr.http.api.tokens import Moment, milliseconds
from dtr.jobs import JobUnknown
from dtr.registry.migration import request_of
from dtr.storage.definitions import DefinitionInvalid, parameters_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from dtr.backends import Assignment, Backend, Trial
    from dtr.backends.distribution import Configuration
    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms
    from dtr.jobs import Job
    from dtr.storage.definitions import Parameters

settings_router = Router(prefix="/api/v0/admin/settings/registry", tags=["storages"])
router = Router(prefix="/api/v0/admin/storages", tags=["storages"], responses=errors("NOT_AUTHORIZED"))

_REDIRECT_SECONDS = 300
"""How long the address of a blob is good, when a document says no more than that clients are sent there."""
_LARGEST_RATE = 2**50
_STAND_IN = "AAAA"
"""For a secret that is kept, which nobody reads to find out whether the rest is right."""
_SETTINGS_CODES = ("NOT_AUTHORIZED", "INVALID_JSON", "INVALID_STORAGE", "STORAGE_REFUSED", "STORAGE_IN_USE")
_DOCUMENT = {
    "requestBody": {
        "required": True,
        "description": "The configuration, in JSON or YAML, whatever the type of the content says.",
        "content": {
            kind: {"schema": {"type": "object"}}
            for kind in (
                "application/json",
                "application/yaml",
                "application/x-yaml",
                "text/yaml",
                "text/plain",
                "application/x-www-form-urlencoded",  # what curl says when it is told nothing
            )
        },
    }
}


class RegistryChange(Record):
    """What became of a configuration."""

    storage: str = Field(description="The name of the storage that takes new blobs.")
    is_new: bool = Field(description="It was made for this; older blobs stay where they are.")
    job_id: str = Field(
        "",
        alias="jobID",
        description="With `keep_metadata`: the job that looks for the contents at the new place, and has them read"
        " there.",
    )
    ignored: list[str] = Field(description="What was said, and means nothing here.")


class StorageRecord(Record):
    """A storage."""

    name: str
    driver: str = Field(description="Its kind: `filesystem`, `s3`, …")
    place: str = Field(description="Where its objects are.")
    parameters: dict[str, Any] = Field(description="By the names of the settings; secrets are masked.")
    is_default: bool = Field(description="It takes the new blobs of namespaces that are assigned to none.")
    is_from_settings: bool = Field(description="The settings file describes it.")
    redirect_seconds: int | None = Field(
        description="Pulls are sent to its own addresses, which are good for so long; null: they are not."
    )
    redirect_except: list[str] = Field(description="Networks of clients that are not sent there.")
    namespaces: list[str] = Field(description="Those whose new blobs it takes.")
    blobs: int | None = Field(description="How many blobs it has; null: that was not asked.")
    bytes: int | None = Field(description="The bytes of these; null: the same.")
    uploads: int | None = Field(description="How many uploads to it are not finished; null: the same.")
    deletions: int | None = Field(description="How many objects wait to be deleted there; null: the same.")
    is_open: bool = Field(description="The process that answered could open it.")
    created_at: dt.datetime
    changed_at: dt.datetime = Field(description="When it was described anew, or its part in things changed, last.")


class StorageForm(Form):
    """What a storage is to be."""

    driver: str = Field(description="Its kind: `filesystem`, `s3`, …")
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="By the names of the settings. A secret that is masked or not there stays as it is; null:"
        " there is none.",
    )
    redirect_seconds: int | None = Field(
        None, description="Send pulls to its own addresses, which are good for so long; null: do not."
    )
    redirect_except: list[str] = Field(
        default_factory=list, description="Networks of clients that are not sent there."
    )
    changed_at: Moment | None = Field(
        None,
        description="When it was changed last, as its record said; the year 1: there was none. Else nothing is"
        " changed (`STORAGE_CHANGED`). For who changes what they looked at a while ago.",
    )


class StepRecord(Record):
    """A step of trying a storage."""

    step: Literal["open", "write", "read", "list", "sign", "delete", "rest"] = Field(
        description="`sign`: an address for pulls that are sent there; `rest`: what its kind needs besides,"
        " such as a place where parts of uploads wait."
    )
    state: Literal["good", "failed", "absent", "skipped"] = Field(
        description="`absent`: it does not offer that, and need not. `skipped`: an earlier one failed."
    )
    message: str = Field(description="Why it failed.")
    milliseconds: int = Field(description="How long it took.")


class TrialRecord(Record):
    """How it went to try a storage."""

    works: bool = Field(description="No step failed.")
    place: str = Field(description="Where its objects would be.")
    steps: list[StepRecord]

    @classmethod
    def of(cls, trial: Trial) -> TrialRecord:
        """The record of a trial."""
        return cls(
            works=all(step.state != "failed" for step in trial.steps),
            place=trial.place,
            steps=[
                StepRecord(step=one.name, state=one.state, message=one.text, milliseconds=one.milliseconds)
                for one in trial.steps
            ],
        )


class MigrationForm(Form):
    """What is to be moved, and how."""

    sources: list[str] = Field(
        default_factory=list, alias="from", description="The storages that are emptied; without any, all others."
    )
    rate: int = Field(
        0, ge=0, le=_LARGEST_RATE, description="Bytes a second, of all copies together; 0: no limit."
    )
    parallel: int = Field(4, ge=1, le=64, description="How many blobs are copied at a time.")
    keep_source: bool = Field(False, description="The old objects stay, and nothing knows of them any more.")
    copied: bool = Field(False, description="The contents were copied by hand: they are looked for, not copied.")
    verify: bool = Field(False, description="With `copied`: read each whole, and compare it with its digest.")


# --- as DTR had it --------------------------------------------------------------------------------------------


@settings_router.get("", summary="The registry's configuration", responses=errors("NOT_AUTHORIZED"))
async def get_registry_settings(caller: CallerDep, rooms: RoomsDep) -> dict[str, Any]:
    """
    For administrators and auditors: what of a registry's configuration has a meaning here, secrets masked.

    With `"keep_metadata": true` in it, and another place, it can be sent back: see there.
    """
    caller.require(Operation.SEE_SYSTEM)
    return {"version": "0.1", "log": {"level": rooms.installation.log_level}, "storage": await _section(rooms)}


async def _body(request: Request) -> bytes:
    return await request.body()


_BodyDep = Annotated[bytes, Depends(_body)]
"""The body as it came: JSON or YAML."""


@settings_router.put(
    "",
    status_code=202,
    summary="Change the registry's configuration",
    openapi_extra=_DOCUMENT,
    responses=errors(*_SETTINGS_CODES),
)
async def update_registry_settings(document: _BodyDep, caller: CallerDep, rooms: RoomsDep) -> RegistryChange:
    """
    For administrators. The document is that of the open-source registry, with its names, and `keep_metadata`.

    A place is tried before it is saved, by writing, reading and deleting. Another place than that of the default
    storage becomes a storage of its own, which takes new blobs. All tags stay: blobs that are there go on to be
    read where they are. With `keep_metadata` they were copied to the new place by hand: a job looks for each, and
    has it read there from then on; what it does not find stays where it is.
    """
    caller.require(Operation.ADMINISTER)
    return await _configure(document, caller, rooms)


@settings_router.get("/simple", summary="The storage", responses=errors("NOT_AUTHORIZED"))
async def get_registry_storage(caller: CallerDep, rooms: RoomsDep) -> dict[str, Any]:
    """For administrators and auditors: the part `storage` of the registry's configuration, secrets masked."""
    caller.require(Operation.SEE_SYSTEM)
    return {"storage": await _section(rooms)}


@settings_router.put(
    "/simple",
    status_code=202,
    summary="Change the storage",
    openapi_extra=_DOCUMENT,
    responses=errors(*_SETTINGS_CODES),
)
async def update_registry_storage(document: _BodyDep, caller: CallerDep, rooms: RoomsDep) -> RegistryChange:
    """
    For administrators: `{"storage": {"s3": {…}, "delete": {"enabled": true}, …}}`.

    What becomes of it is said at the whole configuration.
    """
    caller.require(Operation.ADMINISTER)
    return await _configure(document, caller, rooms, only_storage=True)


async def _section(rooms: Rooms) -> dict[str, Any]:
    """The section `storage` of a document that says how things are."""
    found = await default_storage(rooms)
    live = await rooms.live.refresh()
    return {
        **show(found.driver, _masked(found)),
        "delete": {"enabled": rooms.installation.deletes},
        "redirect": {"disable": found.redirect_seconds is None},
        "maintenance": {"readonly": {"enabled": live.read_only_registry}},
    }


async def default_storage(rooms: Rooms) -> Backend:
    """The storage that takes new blobs."""
    return next(one for one in await rooms.backends.list_storages() if one.is_default)


def directory_of(backend: Backend) -> Path | None:
    """Where a storage has its files; None: it has none."""
    return Path(url2pathname(urlsplit(backend.place).path)) if backend.driver == "filesystem" else None


async def _configure(body: bytes, caller: Caller, rooms: Rooms, *, only_storage: bool = False) -> RegistryChange:
    document = await _document(body)
    keeps_metadata = document.pop("keep_metadata", False)
    try:
        if not isinstance(keeps_metadata, bool):
            raise DefinitionInvalid({"keep_metadata": "is true or false"})
        if only_storage and (others := document.keys() - {"storage"}):
            raise DefinitionInvalid(dict.fromkeys(sorted(map(str, others)), "only `storage` can be said here"))
        said = read(document)
        if said.delete is not None and said.delete != rooms.installation.deletes:
            raise DefinitionInvalid({"storage.delete.enabled": "cannot be changed here: registry.delete says it"})
        found = await rooms.backends.list_storages()
        before, at_place = _places(said, found)
    except DefinitionInvalid as error:
        raise _invalid(error.problems) from None
    name = at_place.name if at_place else _free_name(said.driver, found)
    await rooms.backends.put(name, _definition(said, at_place), by=caller.actor)
    await rooms.backends.make_default(name, by=caller.actor)
    if said.read_only is not None and said.read_only != (await rooms.live.refresh()).read_only_registry:
        await rooms.live.change({"readOnlyRegistry": said.read_only}, by=caller.actor)
    job = ""
    if keeps_metadata and name != before.name:
        job = (await _migrate(rooms, caller, name, sources=[before.name], copied=True)).id
    return RegistryChange(storage=name, is_new=at_place is None, job_id=job, ignored=list(said.ignored))


async def _document(body: bytes) -> dict[str, Any]:
    """What is in a body. Raises ApiError."""
    try:
        return await asyncio.to_thread(parse, body.decode())
    except UnicodeDecodeError:
        raise ApiError("INVALID_JSON", "is not in UTF-8") from None
    except DefinitionInvalid as error:
        raise ApiError("INVALID_JSON", error.problems[""]) from None


def _places(said: Configuration, found: Iterable[Backend]) -> tuple[Backend, Backend | None]:
    """
    The default storage, and the one at the place that a configuration says, when there is one.

    Raises DefinitionInvalid, also when a secret that is for another place is not given.
    """
    before = next(one for one in found if one.is_default)
    given = _unmasked(said.parameters)
    known = [one for one in found if one.driver == said.driver]
    for one in known:
        with contextlib.suppress(DefinitionInvalid):
            if _checked(said.driver, given, one.secrets).place == one.place:
                return before, one
    masked = [name for name in said.parameters if name not in given]
    try:
        _checked(said.driver, given, masked)
        if masked:
            raise DefinitionInvalid(dict.fromkeys(masked, "has to be given again for another place"))
    except DefinitionInvalid as error:
        raise DefinitionInvalid(theirs(said.driver, error.problems)) from None
    return before, None


def _definition(said: Configuration, before: Backend | None) -> Definition:
    seconds = before.redirect_seconds if before else None
    if said.redirect is not None:
        seconds = (seconds or _REDIRECT_SECONDS) if said.redirect else None
    return Definition(
        driver=said.driver,
        parameters=_unmasked(said.parameters),
        redirect_seconds=seconds,
        redirect_except=before.redirect_except if before else (),
    )


def _free_name(driver: str, found: Iterable[Backend]) -> str:
    """A name for a new storage: that of its kind, with a number when it is taken."""
    taken, name, number = {one.name for one in found}, driver, 1
    while name in taken:
        number += 1
        name = f"{driver}-{number}"
    return name


# --- all storages ---------------------------------------------------------------------------------------------


@router.get("", summary="Storages")
async def list_storages(
    caller: CallerDep,
    rooms: RoomsDep,
    usage: Annotated[
        bool, Query(description="Count what each has, which takes seconds when that is much.")
    ] = True,
) -> list[StorageRecord]:
    """For administrators and auditors, by name."""
    caller.require(Operation.SEE_SYSTEM)
    assignments = await rooms.backends.assignments()
    return [await _record(rooms, one, assignments, counted=usage) for one in await rooms.backends.list_storages()]


@router.get("/{storage}", summary="A storage", responses=errors("NO_SUCH_STORAGE"))
async def get_storage(storage: str, caller: CallerDep, rooms: RoomsDep) -> StorageRecord:
    """For administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM)
    return await _record(rooms, await rooms.backends.get(storage), await rooms.backends.assignments())


@router.put(
    "/{storage}",
    summary="Make or change a storage",
    responses=errors("INVALID_STORAGE", "STORAGE_REFUSED", "STORAGE_IN_USE", "STORAGE_CHANGED"),
)
async def put_storage(storage: str, form: StorageForm, caller: CallerDep, rooms: RoomsDep) -> StorageRecord:
    """
    For administrators. It is tried before it is saved, by writing, reading and deleting.

    One in which something is stays at its place; its keys can change.
    """
    caller.require(Operation.ADMINISTER)
    definition = await _described(rooms, storage, form)
    known = form.changed_at
    changed_at = None if known is None else 0 if known == NEVER else milliseconds(known)
    made = await rooms.backends.put(storage, definition, changed_at=changed_at, by=caller.actor)
    return await _record(rooms, made, await rooms.backends.assignments())


async def _described(rooms: Rooms, storage: str, form: StorageForm) -> Definition:
    """What a form says. Raises ApiError: INVALID_STORAGE."""
    given = _unmasked(form.parameters)
    try:
        kept = (await rooms.backends.get(storage)).secrets
    except BackendUnknown:
        kept = ()
    try:
        _checked(form.driver, given, kept)
    except DefinitionInvalid as error:
        raise _invalid(
            {
                name if name == "driver" else f"parameters.{name}".rstrip("."): text
                for name, text in error.problems.items()
            }
        ) from None
    return Definition(
        driver=form.driver,
        parameters=given,
        redirect_seconds=form.redirect_seconds,
        redirect_except=tuple(form.redirect_except),
    )


@router.delete(
    "/{storage}",
    status_code=204,
    summary="Forget a storage",
    responses=errors("NO_SUCH_STORAGE", "STORAGE_IN_USE"),
)
async def delete_storage(storage: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators: one in which there is nothing, and that takes nothing."""
    caller.require(Operation.ADMINISTER)
    await rooms.backends.delete(storage, by=caller.actor)


@router.post(
    "/{storage}/check",
    status_code=204,
    summary="Try a storage",
    responses=errors("NO_SUCH_STORAGE", "STORAGE_REFUSED"),
)
async def check_storage(storage: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators. Something is written, read and deleted there."""
    caller.require(Operation.ADMINISTER)
    await rooms.backends.check(storage)


@router.post(
    "/{storage}/test",
    summary="Try a storage step by step",
    responses=errors("NO_SUCH_STORAGE", "INVALID_STORAGE", "STORAGE_REFUSED"),
)
async def try_storage(
    storage: str, caller: CallerDep, rooms: RoomsDep, form: StorageForm | None = None
) -> TrialRecord:
    """
    For administrators: how far one gets with writing, reading, listing and deleting; nothing is saved.

    With a body, of a storage that is described so, with the secrets of the one of this name where they are masked;
    else of that one as it is.
    """
    caller.require(Operation.ADMINISTER)
    definition = None if form is None else await _described(rooms, storage, form)
    return TrialRecord.of(await rooms.backends.try_out(storage, definition))


@router.put(
    "/{storage}/default",
    status_code=204,
    summary="Let a storage take new blobs",
    responses=errors("NO_SUCH_STORAGE"),
)
async def set_default_storage(storage: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators. Blobs that are there stay where they are."""
    caller.require(Operation.ADMINISTER)
    await rooms.backends.make_default(storage, by=caller.actor)


@router.put(
    "/{storage}/namespaces/{namespace}",
    status_code=204,
    summary="Let a storage take the new blobs of a namespace",
    responses=errors("NO_SUCH_STORAGE", "NO_SUCH_ACCOUNT"),
)
async def put_storage_namespace(storage: str, namespace: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators. Blobs that are there stay where they are."""
    caller.require(Operation.ADMINISTER)
    owner = await rooms.accounts.get(namespace)
    await rooms.backends.assign(owner.id, storage, by=caller.actor)


@router.delete(
    "/{storage}/namespaces/{namespace}",
    status_code=204,
    summary="Let the default storage take the new blobs of a namespace",
    responses=errors("NO_SUCH_STORAGE", "NO_SUCH_ACCOUNT"),
)
async def delete_storage_namespace(storage: str, namespace: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators; also when it is assigned to no storage, or to another one: then nothing changes."""
    caller.require(Operation.ADMINISTER)
    owner = await rooms.accounts.get(namespace)
    await rooms.backends.get(storage)
    if any(one.namespace_id == owner.id and one.storage == storage for one in await rooms.backends.assignments()):
        await rooms.backends.unassign(owner.id, by=caller.actor)


@router.post(
    "/{storage}/migration",
    status_code=202,
    summary="Move blobs to a storage",
    responses=errors("NO_SUCH_STORAGE", "STORAGE_IN_USE"),
)
async def run_storage_migration(
    storage: str, form: MigrationForm, caller: CallerDep, rooms: RoomsDep
) -> JobRecord:
    """
    For administrators. A job moves them, while pushes and pulls go on; the storage takes new blobs from then on.

    Each is compared with its digest. What cannot be moved stays where it is, and the log of the job tells it.
    """
    caller.require(Operation.ADMINISTER)
    return JobRecord.of(await _migrate(rooms, caller, storage, **form.model_dump()))


async def _migrate(rooms: Rooms, caller: Caller, target: str, **how: Any) -> Job:
    for name in (target, *how["sources"]):
        await rooms.backends.get(name)
    if target in how["sources"]:
        raise _invalid({"from": f"{target} is where they go"})
    try:
        return await rooms.jobs.submit(request_of(target, **how), by=caller.actor)
    except JobUnknown:
        raise ApiError("STORAGE_IN_USE", "another migration waits already") from None


async def _record(
    rooms: Rooms,
    one: Backend,
    assignments: Iterable[Assignment],
    *,
    counted: bool = True,
) -> StorageRecord:
    usage = await rooms.backends.usage(one.name) if counted else None
    return StorageRecord(
        name=one.name,
        driver=one.driver,
        place=one.place,
        parameters=_masked(one),
        is_default=one.is_default,
        is_from_settings=one.is_from_settings,
        redirect_seconds=one.redirect_seconds,
        redirect_except=list(one.redirect_except),
        namespaces=[assigned.namespace for assigned in assignments if assigned.storage == one.name],
        blobs=usage and usage.blobs,
        bytes=usage and usage.bytes,
        uploads=usage and usage.uploads,
        deletions=usage and usage.deletions,
        is_open=one.is_open,
        created_at=moment(one.created_at),
        changed_at=moment(one.changed_at),
    )


def _masked(one: Backend) -> dict[str, Any]:
    return {**one.parameters, **dict.fromkeys(one.secrets, MASK)}


def _unmasked(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value != MASK}


def _checked(driver: str, given: Mapping[str, Any], kept: Collection[str]) -> Parameters:
    """
    The parameters, without the secrets that are kept, or with something in their place where one is needed.

    Raises DefinitionInvalid for what is wrong with the others.
    """
    said = {name: value for name, value in given.items() if value is not None}
    try:
        return parameters_of(driver, said)
    except DefinitionInvalid as error:
        try:
            return parameters_of(driver, dict.fromkeys(kept, _STAND_IN) | said)
        except DefinitionInvalid:
            problems = {name: text for name, text in error.problems.items() if name not in kept}
            raise DefinitionInvalid(problems or error.problems) from None


def _invalid(problems: Mapping[str, str]) -> ApiError:
    return ApiError("INVALID_STORAGE", [{"field": name, "message": text} for name, text in problems.items()])
