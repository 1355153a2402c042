"""
``/api/v0/remotes``, and DTR's ``/api/v0/remote/registry``: other registries, for mirrors and caches.

Those of the whole registry are the business of system administrators, those of a namespace of its owners. To use
one in a policy is to act with its credentials: so only administrators may use those of the whole registry, and
whoever may make repositories in a namespace the ones of it.
"""

from __future__ import annotations

import asyncio
import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from fastapi import Query, Response
from msgspec.structs import replace
from pydantic import Field

from dtr.accounts import Operation, may
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Form, Record, RemoteRepositoryName, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.reach import with_setting
from dtr.http.api.rooms import RoomsDep
from dtr.outbound import AddressRefused, CertificateUntrusted
from dtr.remotes import (
    Definition,
    DefinitionUnknown,
    Remote,
    RemoteBroken,
    RemoteBusy,
    RemoteDenied,
    RemoteError,
    RemoteRefused,
)

if TYPE_CHECKING:
    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms

router = Router(prefix="/api/v0/remotes", tags=["remotes"])
registry_router = Router(prefix="/api/v0/remote/registry", tags=["remote"])

_Step: TypeAlias = Literal["reach", "trust", "speak", "login", "read", "write"]
_ORDER: tuple[_Step, ...] = ("reach", "trust", "speak", "login", "read", "write")
_Right: TypeAlias = tuple[Operation, Operation]
_SEE = (Operation.SEE_SYSTEM, Operation.SEE_REMOTES)
_USE = (Operation.ADMINISTER, Operation.USE_REMOTES)
_MANAGE = (Operation.ADMINISTER, Operation.MANAGE_REMOTES)
"""On remotes of the whole registry, and on those of a namespace."""

_CHECK_SECONDS, _CHECK_PATIENCE = 30.0, 5.0
_CHECKED = ("INVALID_REMOTE", "REMOTE_REGISTRY_INVALID_PERMISSIONS", "REMOTE_REGISTRY_FAILED")

RemoteHost = Annotated[
    str,
    Field(
        description="`https://HOST[:PORT]` of a registry, without TLS `http://…`; `docker.io` is Docker Hub. It"
        " has to have a public address, unless the administrator allows others."
    ),
]
RemoteCA = Annotated[
    str,
    Field(
        alias="remoteCA",
        description="The certificate of the registry, or of its authority, in PEM; empty: what the system trusts.",
    ),
]
SkipVerification = Annotated[
    bool, Field(alias="skipTLSVerification", description="Whatever the registry shows is trusted.")
]
Password = Annotated[str, Field(description="Of that user. Never shown.")]
AuthToken = Annotated[
    str,
    Field(description="An access or identity token, instead of a password. Never shown."),
]
_Name = Annotated[
    str,
    Field(
        description="What people call it; once in its namespace.",
        json_schema_extra={"pattern": "^[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,98}[A-Za-z0-9])?$"},
    ),
]
_Username = Annotated[str, Field(description="As whom it is asked; empty, and without a token: as nobody.")]


ExplainCheck = Annotated[bool, Query(description="Answer the steps also when one failed, instead of an error.")]


class RemoteRecord(Record):
    """Another registry, and as whom it is asked."""

    id: str
    name: _Name
    namespace: str = Field(description="Whose policies may use it; empty: those of administrators.")
    remote_host: RemoteHost
    username: _Username
    has_password: bool = Field(description="A password is kept.")
    has_auth_token: bool = Field(description="A token is kept.")
    remote_ca: RemoteCA
    skip_tls_verification: SkipVerification
    created_at: dt.datetime
    updated_at: dt.datetime

    @classmethod
    def of(cls, definition: Definition) -> RemoteRecord:
        """The record of a remote."""
        return cls(
            id=definition.id,
            name=definition.name or "",
            namespace=definition.namespace,
            remote_host=definition.host,
            username=definition.username,
            has_password=definition.has_password,
            has_auth_token=definition.has_token,
            remote_ca=definition.ca,
            skip_tls_verification=definition.skip_tls_verification,
            created_at=moment(definition.created_at),
            updated_at=moment(definition.updated_at),
        )


class RemoteForm(Form):
    """A remote to be made."""

    name: _Name
    namespace: str = Field("", description="Whose policies may use it; empty: those of administrators.")
    remote_host: RemoteHost
    username: _Username = ""
    password: Password = ""
    auth_token: AuthToken = ""
    remote_ca: RemoteCA = ""
    skip_tls_verification: SkipVerification = False


class RemoteChanges(Form):
    """What is to be different about a remote; what is missing or null stays."""

    name: str | None = Field(None, description="What people call it; once in its namespace.")
    remote_host: str | None = Field(
        None, description="Another registry, for which password and token have to be given again."
    )
    username: str | None = Field(None, description="As whom it is asked.")
    password: str | None = Field(None, description="Empty: there is none any more.")
    auth_token: str | None = Field(None, description="Empty: there is none any more.")
    remote_ca: str | None = Field(None, alias="remoteCA", description="In PEM; empty: what the system trusts.")
    skip_tls_verification: bool | None = Field(
        None, alias="skipTLSVerification", description="Whatever the registry shows is trusted."
    )


class RemoteCheckForm(Form):
    """What is to be tried."""

    remote_repository: RemoteRepositoryName


class RemoteRegistryForm(Form):
    """A registry, and as whom it is to be asked."""

    remote_host: RemoteHost
    remote_repository: RemoteRepositoryName
    username: _Username = ""
    password: Password = ""
    auth_token: AuthToken = ""
    remote_ca: RemoteCA = ""
    skip_tls_verification: SkipVerification = False


class RemotePermissions(Record):
    """What may be done in a repository of another registry."""

    read: bool = Field(description="To pull from it.")
    write: bool = Field(description="To push to it.")


class RemoteStepRecord(Record):
    """A step on the way to a repository of another registry."""

    name: _Step = Field(
        description="`reach`: it answers; `trust`: its certificate is trusted; `speak`: it is a registry; `login`:"
        " it takes the credentials; `read`, `write`: the repository can be pulled from, pushed to."
    )
    state: Literal["ok", "failed", "open"] = Field(description="`open`: it did not come to that.")
    detail: str = Field(description="Why it failed.")


class RemoteCheckRecord(Record):
    """What came of asking another registry."""

    registry_type: str = Field(
        description="As far as it shows; empty: it did not come to that.",
        json_schema_extra={"enum": ["dtr", "dockerhub", "registry", ""]},
    )
    permissions: RemotePermissions
    steps: list[RemoteStepRecord] = Field(description="In their order.")


@registry_router.post(
    "", status_code=201, summary="Try another registry out", responses=errors("NOT_AUTHORIZED", *_CHECKED)
)
async def create_remote_registry_check(
    form: RemoteRegistryForm, caller: CallerDep, rooms: RoomsDep, explain: ExplainCheck = False
) -> RemoteCheckRecord:
    """For any user. It leaves nothing there."""
    caller.require(Operation.CHECK_REMOTE_REGISTRY)
    remote = Remote(
        host=form.remote_host,
        repository=form.remote_repository,
        username=form.username,
        password=form.password,
        token=form.auth_token,
        ca=form.remote_ca,
        skip_tls_verification=form.skip_tls_verification,
    )
    return await check_remote(caller, rooms, remote, explain=explain)


@router.get("", summary="Remotes", responses=errors("NO_SUCH_ACCOUNT", "NOT_AUTHORIZED"))
async def list_remotes(
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    namespace: Annotated[str, Query(description="Those of a namespace; empty: of the whole registry.")] = "",
) -> list[RemoteRecord]:
    """For those who may use them, and auditors; by name."""
    owner = await _place(caller, namespace, _SEE)
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.definitions.count(owner))
    found = await rooms.definitions.list_definitions(owner, start=page.start, limit=page.limit)
    return [RemoteRecord.of(one) for one in page.cut(response, found, lambda one: one.name or "")]


@router.post(
    "",
    status_code=201,
    summary="Make a remote",
    responses=errors("INVALID_REMOTE", "REMOTE_EXISTS", "NO_SUCH_ACCOUNT", "NOT_AUTHORIZED"),
)
async def create_remote(form: RemoteForm, caller: CallerDep, rooms: RoomsDep) -> RemoteRecord:
    """For owners of the namespace; without one, for system administrators."""
    owner = await _place(caller, form.namespace, _MANAGE)
    definition = Definition(
        name=form.name,
        namespace_id=owner,
        host=form.remote_host,
        username=form.username,
        ca=form.remote_ca,
        skip_tls_verification=form.skip_tls_verification,
    )
    made = await rooms.definitions.create(
        definition, password=form.password, token=form.auth_token, by=caller.actor
    )
    return RemoteRecord.of(made)


@router.get("/{remote}", summary="A remote", responses=errors("NO_SUCH_REMOTE"))
async def get_remote(remote: str, caller: CallerDep, rooms: RoomsDep) -> RemoteRecord:
    """For those who may use it, and auditors."""
    return RemoteRecord.of(await _required(caller, rooms, remote, _SEE))


@router.patch(
    "/{remote}",
    summary="Change a remote",
    responses=errors("INVALID_REMOTE", "REMOTE_EXISTS", "NO_SUCH_REMOTE", "NOT_AUTHORIZED"),
)
async def update_remote(remote: str, form: RemoteChanges, caller: CallerDep, rooms: RoomsDep) -> RemoteRecord:
    """For owners of its namespace, or system administrators. Whose it is stays."""
    present = await _required(caller, rooms, remote, _MANAGE)
    given: dict[str, Any] = {
        "name": form.name,
        "host": form.remote_host,
        "username": form.username,
        "ca": form.remote_ca,
        "skip_tls_verification": form.skip_tls_verification,
    }
    changed = replace(present, **{name: value for name, value in given.items() if value is not None})
    made = await rooms.definitions.change(changed, password=form.password, token=form.auth_token, by=caller.actor)
    return RemoteRecord.of(made)


@router.delete(
    "/{remote}",
    status_code=204,
    summary="Delete a remote",
    responses=errors("NO_SUCH_REMOTE", "NOT_AUTHORIZED", "REMOTE_IN_USE"),
)
async def delete_remote(remote: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For owners of its namespace, or system administrators, while no policy uses it."""
    found = await _required(caller, rooms, remote, _MANAGE)
    await rooms.definitions.delete(found.id, by=caller.actor)


@router.post(
    "/{remote}/check", summary="Try a remote out", responses=errors("NO_SUCH_REMOTE", "NOT_AUTHORIZED", *_CHECKED)
)
async def check_stored_remote(
    remote: str, form: RemoteCheckForm, caller: CallerDep, rooms: RoomsDep, explain: ExplainCheck = False
) -> RemoteCheckRecord:
    """For those who may use it. It leaves nothing there."""
    found = await _required(caller, rooms, remote, _USE)
    there = await rooms.definitions.remote(found.id, form.remote_repository)
    return await check_remote(caller, rooms, there, explain=explain)


async def check_remote(
    caller: Caller, rooms: Rooms, remote: Remote, *, explain: bool = False
) -> RemoteCheckRecord:
    """
    What may be done at a remote.

    Raises DefinitionInvalid, ApiError: nothing may, or it cannot be found out; with `explain` the steps say that.
    """
    await asyncio.to_thread(remote.check)
    way = _Way(remote)
    kind, permissions = "", RemotePermissions(read=False, write=False)
    refused: ApiError | None = None
    try:
        async with (
            asyncio.timeout(_CHECK_SECONDS),
            rooms.remotes.connect(remote, patience=_CHECK_PATIENCE) as repository,
        ):
            kind = await repository.kind()
            way.reached("speak")
            found = await repository.permissions()
            way.reached("login")
            permissions = RemotePermissions(read=found.read, write=found.write)
    except RemoteError as error:
        refused = remote_refusal(error, caller)
        way.stopped(error, str(refused.detail))
    except TimeoutError:
        refused = ApiError("REMOTE_REGISTRY_FAILED", "the remote did not answer in time")
        way.stopped(None, str(refused.detail))
    else:
        way.ends(permissions)
        if not (permissions.read or permissions.write):
            refused = ApiError("REMOTE_REGISTRY_INVALID_PERMISSIONS", remote.repository)
    if refused is not None and not explain:
        raise refused
    return RemoteCheckRecord(registry_type=kind, permissions=permissions, steps=way.steps)


class _Way:
    """The steps to a repository, and how far one came."""

    def __init__(self, remote: Remote) -> None:
        names: list[_Step] = ["reach", "trust", "speak", "login", "read", "write"]
        if remote.url.startswith("http:") or remote.skip_tls_verification:
            names.remove("trust")
        if not (remote.username or remote.token):
            names.remove("login")
        self.steps = [RemoteStepRecord(name=name, state="open", detail="") for name in names]

    def reached(self, name: _Step) -> None:
        """It came to this step, if there is such, and through all before."""
        last = _ORDER.index(name)
        for one in self.steps:
            if _ORDER.index(one.name) <= last:
                one.state = "ok"

    def stopped(self, error: RemoteError | None, detail: str) -> None:
        """It came no further, for this reason."""
        if error is not None and isinstance(error.__cause__, CertificateUntrusted):
            self.reached("reach")
        elif isinstance(error, (RemoteBroken, RemoteRefused, RemoteDenied, RemoteBusy)):
            self.reached("trust")
        failed = next(one for one in self.steps if one.state == "open")
        failed.state, failed.detail = "failed", detail

    def ends(self, permissions: RemotePermissions) -> None:
        """It came to the end, where it says what may be done."""
        self.steps[-2].state = "ok" if permissions.read else "failed"
        self.steps[-1].state = "ok" if permissions.write else "failed"


def remote_refusal(error: RemoteError, caller: Caller) -> ApiError:
    """How the API says that another registry failed; who may change the settings is told which one forbids it."""
    if isinstance(error, RemoteDenied):
        return ApiError("REMOTE_REGISTRY_INVALID_PERMISSIONS", str(error))
    text = str(error)
    if isinstance(error.__cause__, AddressRefused):
        text = with_setting(text, "mirroring.allowed_networks", caller)
    return ApiError("REMOTE_REGISTRY_FAILED", text)


async def require_usable(caller: Caller, rooms: Rooms, remote: str, path: str) -> Definition:
    """
    A remote that the caller may use in policies of the repository (or ``namespace/``) at `path`.

    Raises ApiError: NO_SUCH_REMOTE also for one of another namespace, NOT_AUTHORIZED.
    """
    found = await _required(caller, rooms, remote, _USE)
    if found.namespace_id is not None and found.namespace != path.partition("/")[0]:
        raise DefinitionUnknown(remote)
    return found


async def _required(caller: Caller, rooms: Rooms, remote: str, right: _Right) -> Definition:
    """
    A remote on which the caller has a right.

    Raises ApiError, and DefinitionUnknown also for one of a single policy, or of which the caller must not know.
    """
    caller.user()
    found = await rooms.definitions.get(remote)
    if found.namespace_id is None:
        facts, place = caller.facts, 0
    else:
        facts, place = (await caller.standing(f"{found.namespace}/")).facts, 1
    if found.name is None or not may(facts, _SEE[place]):
        raise DefinitionUnknown(remote)
    if not may(facts, right[place]):
        raise ApiError("NOT_AUTHORIZED")
    return found


async def _place(caller: Caller, namespace: str, right: _Right) -> str | None:
    """The id of the account that owns a namespace; None: there is none. Raises ApiError: the caller may not."""
    if not namespace:
        caller.require(right[0])
        return None
    return (await caller.require_in(namespace, right[1])).id
