"""
``…/enforcement`` of a repository, a namespace or the registry: what has to be signed to be pulled.

The same operations for each of the three; whoever may change a policy may also see what it would refuse.
"""

from __future__ import annotations

import contextlib
import datetime as dt  # noqa: TC003 - records need it
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from fastapi import Depends, Response
from pydantic import Field

from dtr.accounts import Operation
from dtr.enforcement import REGISTRY, EnforcementPolicyUnknown, Policy, PolicyException, Scope
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import errors
from dtr.http.api.models import Form, Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import PageDep
from dtr.http.api.repositories import ON_REPOSITORY, PathDep
from dtr.http.api.rooms import RoomsDep
from dtr.http.api.tokens import Moment, milliseconds

if TYPE_CHECKING:
    from dtr.enforcement import JudgedTag, Objection
    from dtr.http.api.caller import Caller
    from dtr.http.api.paging import Page
    from dtr.http.api.rooms import Rooms

router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}/enforcement", tags=["repositories"])
namespace_router = Router(
    prefix="/api/v0/repositoryNamespaces/{namespace}/enforcement", tags=["repositoryNamespaces"]
)
registry_router = Router(prefix="/api/v0/enforcement", tags=["enforcement"])

_ON_NAMESPACE = ("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT")
_ON_REGISTRY = ("NOT_AUTHORIZED",)
_LARGEST_PAGE = 500

Find: TypeAlias = Callable[[], Awaitable[Scope]]
"""Where a policy holds, if the caller may. Asked after the body was read: one that is none is told first."""
_Mode = Annotated[
    Literal["off", "report", "enforce"],
    Field(
        description="`enforce`: what is not signed so is not handed out; `report`: it is, but an event tells of"
        " it; `off`: nothing is asked."
    ),
]
_Signers = Annotated[
    list[str],
    Field(
        description="One of these has to have signed: `role:targets/NAME`, a role of content trust; `key:SHA256`,"
        " a key by the SHA-256 of its DER form; `identity:NAME` or `identity:NAMESPACE/NAME`, a registered"
        " identity. Without any, everybody's signature will do."
    ),
]
_Teams = Annotated[
    list[str],
    Field(
        description="`ORGANIZATION/TEAM`: of each, a member has to have signed, with a key that is among the"
        " member's public keys. One member of all of them is enough."
    ),
]
_Kind = Annotated[
    Literal["tag", "digest", "account"],
    Field(description="What is let pass: what tags of a pattern name, a digest, or whatever an account pulls."),
]
_Value = Annotated[
    str,
    Field(
        description="A pattern of tags (`*` is anything, `?` one character), a digest, or the name of an account."
    ),
]


class EnforcementExceptionRecord(Record):
    """What a policy lets pass."""

    id: str
    kind: _Kind
    value: _Value
    reason: str = Field(description="Why, in the words of who made it.")
    author: str = Field(description="Who made it.")
    created_at: dt.datetime
    expires_at: dt.datetime | None = Field(description="From then on it does not count; null: it does not end.")

    @classmethod
    def of(cls, exception: PolicyException) -> EnforcementExceptionRecord:
        """The record of an exception."""
        return cls(
            id=exception.id,
            kind=exception.kind,
            value=exception.name,
            reason=exception.reason,
            author=exception.author,
            created_at=moment(exception.created_at),
            expires_at=None if exception.expires_at is None else moment(exception.expires_at),
        )


class EnforcementPolicyRecord(Record):
    """What has to be signed to be pulled."""

    mode: _Mode
    signers: _Signers
    teams: Annotated[list[str], Field(description="Each has to sign; one that is gone is known by its id.")]
    exceptions: list[EnforcementExceptionRecord]

    @classmethod
    def of(cls, policy: Policy) -> EnforcementPolicyRecord:
        """The record of a policy."""
        return cls(
            mode=policy.mode,
            signers=list(policy.signers),
            teams=[team.name or team.id for team in policy.teams],
            exceptions=[EnforcementExceptionRecord.of(one) for one in policy.exceptions],
        )


class EnforcementPolicyForm(Form):
    """A policy as it is to be; its exceptions stay."""

    mode: _Mode
    signers: _Signers = Field(default_factory=list)
    teams: _Teams = Field(default_factory=list)


class EnforcementExceptionForm(Form):
    """What a policy is to let pass."""

    kind: _Kind
    value: _Value
    reason: str = Field(description="Why, for those who look at it later.", json_schema_extra={"minLength": 1})
    expires_at: Moment | None = Field(None, description="From then on it does not count; null: it does not end.")


class EnforcementMissing(Record):
    """A signature that a policy wants, and that is not there."""

    kind: Literal["signature", "signer", "team"] = Field(
        description="`signature`: any. `signer`: by one of the signers that are named. `team`: by a member of each"
        " of the teams that are named."
    )
    names: list[str] = Field(description="Of the signers or teams; that of a team that is gone is empty.")


class EnforcementObjection(Record):
    """What a policy misses."""

    scope: Literal["repository", "namespace", "registry"] = Field(description="Whose policy it is.")
    mode: _Mode
    missing: list[str] = Field(description="In words.")
    wants: list[EnforcementMissing] = Field(description="The same, for programs.")

    @classmethod
    def of(cls, objection: Objection) -> EnforcementObjection:
        """The record of an objection."""
        return cls(
            scope=objection.policy.scope.kind,
            mode=objection.policy.mode,
            missing=list(objection.missing),
            wants=[EnforcementMissing(kind=one.kind, names=list(one.names)) for one in objection.wants],
        )


class EnforcementReportRecord(Record):
    """A tag, and what would become of a pull of it by whom no exception is about."""

    repository: str
    tag: str = Field(description="Its name.")
    digest: str
    refused: bool = Field(description="It would be, by a policy that is enforced.")
    objections: list[EnforcementObjection]
    exceptions: list[str] = Field(description="Ids of the exceptions that let it pass.")

    @classmethod
    def of(cls, judged: JudgedTag) -> EnforcementReportRecord:
        """The record of a tag."""
        return cls(
            repository=judged.path,
            tag=judged.tag,
            digest=judged.digest,
            refused=judged.verdict.refuses,
            objections=[EnforcementObjection.of(one) for one in judged.verdict.objections],
            exceptions=[one.id for one in judged.verdict.exceptions],
        )


_POLICY = "NO_SUCH_ENFORCEMENT_POLICY"
_EXCEPTION = "NO_SUCH_ENFORCEMENT_EXCEPTION"
_INVALID = "INVALID_ENFORCEMENT_POLICY"


# --- who may --------------------------------------------------------------------------------------------------


async def see_of_repository(path: PathDep, caller: CallerDep) -> Find:
    """Lets through who may look at what the repository wants signed."""
    return partial(_of_repository, path, caller, Operation.LIST_POLICIES)


async def edit_of_repository(path: PathDep, caller: CallerDep) -> Find:
    """Lets through who may change what the repository wants signed."""
    return partial(_of_repository, path, caller, Operation.EDIT_POLICIES)


async def _of_repository(path: str, caller: Caller, operation: Operation) -> Scope:
    return Scope(repository=await caller.require_on(path, operation))


async def see_of_namespace(namespace: str, caller: CallerDep) -> Find:
    """Lets through who may look at what the namespace wants signed."""
    return partial(_of_namespace, namespace, caller, Operation.SEE_NAMESPACE_ACCESS)


async def edit_of_namespace(namespace: str, caller: CallerDep) -> Find:
    """Lets through who may change what the namespace wants signed."""
    return partial(_of_namespace, namespace, caller, Operation.MANAGE_NAMESPACE_ACCESS)


async def _of_namespace(namespace: str, caller: Caller, operation: Operation) -> Scope:
    return Scope(namespace=(await caller.require_in(namespace, operation)).id)


async def see_of_registry(caller: CallerDep) -> Find:
    """Lets through who may look at what the registry wants signed."""
    return partial(_of_registry, caller, Operation.SEE_SYSTEM)


async def edit_of_registry(caller: CallerDep) -> Find:
    """Lets through who may change what the registry wants signed."""
    return partial(_of_registry, caller, Operation.ADMINISTER)


async def _of_registry(caller: Caller, operation: Operation) -> Scope:
    caller.require(operation)
    return REGISTRY


_SeenRepository = Annotated[Find, Depends(see_of_repository)]
_Repository = Annotated[Find, Depends(edit_of_repository)]
_SeenNamespace = Annotated[Find, Depends(see_of_namespace)]
_Namespace = Annotated[Find, Depends(edit_of_namespace)]
_SeenRegistry = Annotated[Find, Depends(see_of_registry)]
_Registry = Annotated[Find, Depends(edit_of_registry)]


# --- what is done, wherever -----------------------------------------------------------------------------------


async def _get(rooms: Rooms, find: Find) -> EnforcementPolicyRecord:
    return EnforcementPolicyRecord.of(await rooms.enforcement.get(await find()))


async def _set(rooms: Rooms, find: Find, form: EnforcementPolicyForm, caller: Caller) -> EnforcementPolicyRecord:
    policy = await _policy(rooms, await find(), form)
    return EnforcementPolicyRecord.of(await rooms.enforcement.put(policy, by=caller.actor))


async def _delete(rooms: Rooms, find: Find, caller: Caller) -> None:
    with contextlib.suppress(EnforcementPolicyUnknown):
        await rooms.enforcement.delete(await find(), by=caller.actor)


async def _add_exception(
    rooms: Rooms, find: Find, form: EnforcementExceptionForm, caller: Caller
) -> EnforcementExceptionRecord:
    scope = await find()
    value = form.value
    if form.kind == "account":
        value = (await rooms.accounts.get(form.value)).id
    exception = PolicyException(
        kind=form.kind,
        value=value,
        reason=form.reason,
        expires_at=None if form.expires_at is None else milliseconds(form.expires_at),
    )
    return EnforcementExceptionRecord.of(await rooms.enforcement.add_exception(scope, exception, by=caller.actor))


async def _report(
    rooms: Rooms, find: Find, form: EnforcementPolicyForm | None, page: Page, response: Response
) -> list[EnforcementReportRecord]:
    scope = await find()
    page = page.at_most(_LARGEST_PAGE)
    path, _, tag = page.start.partition(":")
    proposed = None if form is None else await _policy(rooms, scope, form)
    found = await rooms.enforcement.report(scope, proposed, start=(path, tag), limit=page.limit)
    shown = page.cut(response, found, lambda one: f"{one.path}:{one.tag}")
    return [EnforcementReportRecord.of(one) for one in shown]


async def _policy(rooms: Rooms, scope: Scope, form: EnforcementPolicyForm) -> Policy:
    """The policy of a form. Raises EnforcementPolicyInvalid."""
    teams = await rooms.enforcement.find_teams(form.teams)
    policy = Policy(scope=scope, mode=form.mode, signers=tuple(form.signers), teams=teams)
    policy.check()
    return policy


# --- of a repository ------------------------------------------------------------------------------------------


@router.get("", summary="What a repository wants signed", responses=errors(*ON_REPOSITORY, _POLICY))
async def get_repository_enforcement(find: _SeenRepository, rooms: RoomsDep) -> EnforcementPolicyRecord:
    """
    For whoever was granted something on the repository, and auditors.

    What its namespace and the registry want holds besides.
    """
    return await _get(rooms, find)


@router.put("", summary="Say what a repository wants signed", responses=errors(*ON_REPOSITORY, _POLICY, _INVALID))
async def set_repository_enforcement(
    find: _Repository, form: EnforcementPolicyForm, caller: CallerDep, rooms: RoomsDep
) -> EnforcementPolicyRecord:
    """For its administrators. It adds to what its namespace and the registry want, within two seconds."""
    return await _set(rooms, find, form, caller)


@router.delete(
    "", status_code=204, summary="Let a repository want nothing of its own", responses=errors(*ON_REPOSITORY)
)
async def delete_repository_enforcement(find: _Repository, caller: CallerDep, rooms: RoomsDep) -> None:
    """For its administrators; also when it has no policy. Its exceptions go with it."""
    await _delete(rooms, find, caller)


@router.post(
    "/exceptions",
    status_code=201,
    summary="Except something from a repository's policy",
    responses=errors(*ON_REPOSITORY, _POLICY, _INVALID, "NO_SUCH_ACCOUNT"),
)
async def create_repository_enforcement_exception(
    find: _Repository, form: EnforcementExceptionForm, caller: CallerDep, rooms: RoomsDep
) -> EnforcementExceptionRecord:
    """For its administrators. Policies of its namespace and the registry have exceptions of their own."""
    return await _add_exception(rooms, find, form, caller)


@router.delete(
    "/exceptions/{exceptionid}",
    status_code=204,
    summary="End an exception from a repository's policy",
    responses=errors(*ON_REPOSITORY, _EXCEPTION),
)
async def delete_repository_enforcement_exception(
    find: _Repository, exceptionid: str, caller: CallerDep, rooms: RoomsDep
) -> None:
    """For its administrators."""
    await rooms.enforcement.delete_exception(await find(), exceptionid, by=caller.actor)


@router.post(
    "/report", summary="What would be refused in a repository", responses=errors(*ON_REPOSITORY, _INVALID)
)
async def try_repository_enforcement(
    find: _Repository,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    form: EnforcementPolicyForm | None = None,
) -> list[EnforcementReportRecord]:
    """
    For its administrators: its tags, with what the policies say of each, at most 500 at once; nothing changes.

    With a policy as the body, what it would say in the place of the one that is there; as if it were enforced.
    """
    return await _report(rooms, find, form, page, response)


# --- of a namespace -------------------------------------------------------------------------------------------


@namespace_router.get("", summary="What a namespace wants signed", responses=errors(*_ON_NAMESPACE, _POLICY))
async def get_namespace_enforcement(find: _SeenNamespace, rooms: RoomsDep) -> EnforcementPolicyRecord:
    """For whoever may make repositories in it, its members, and auditors."""
    return await _get(rooms, find)


@namespace_router.put(
    "", summary="Say what a namespace wants signed", responses=errors(*_ON_NAMESPACE, _POLICY, _INVALID)
)
async def set_namespace_enforcement(
    find: _Namespace, form: EnforcementPolicyForm, caller: CallerDep, rooms: RoomsDep
) -> EnforcementPolicyRecord:
    """For whoever manages access to it. It holds for all of its repositories, within two seconds."""
    return await _set(rooms, find, form, caller)


@namespace_router.delete(
    "", status_code=204, summary="Let a namespace want nothing of its own", responses=errors(*_ON_NAMESPACE)
)
async def delete_namespace_enforcement(find: _Namespace, caller: CallerDep, rooms: RoomsDep) -> None:
    """For whoever manages access to it; also when it has no policy. Its exceptions go with it."""
    await _delete(rooms, find, caller)


@namespace_router.post(
    "/exceptions",
    status_code=201,
    summary="Except something from a namespace's policy",
    responses=errors(*_ON_NAMESPACE, _POLICY, _INVALID),
)
async def create_namespace_enforcement_exception(
    find: _Namespace, form: EnforcementExceptionForm, caller: CallerDep, rooms: RoomsDep
) -> EnforcementExceptionRecord:
    """For whoever manages access to it; in all of its repositories."""
    return await _add_exception(rooms, find, form, caller)


@namespace_router.delete(
    "/exceptions/{exceptionid}",
    status_code=204,
    summary="End an exception from a namespace's policy",
    responses=errors(*_ON_NAMESPACE, _EXCEPTION),
)
async def delete_namespace_enforcement_exception(
    find: _Namespace, exceptionid: str, caller: CallerDep, rooms: RoomsDep
) -> None:
    """For whoever manages access to it."""
    await rooms.enforcement.delete_exception(await find(), exceptionid, by=caller.actor)


@namespace_router.post(
    "/report", summary="What would be refused in a namespace", responses=errors(*_ON_NAMESPACE, _INVALID)
)
async def try_namespace_enforcement(
    find: _Namespace,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    form: EnforcementPolicyForm | None = None,
) -> list[EnforcementReportRecord]:
    """
    For whoever manages access to it: the tags of its repositories, at most 500 at once; nothing changes.

    With a policy as the body, what it would say in the place of the one that is there; as if it were enforced.
    """
    return await _report(rooms, find, form, page, response)


# --- of the registry ------------------------------------------------------------------------------------------


@registry_router.get("", summary="What the registry wants signed", responses=errors(*_ON_REGISTRY, _POLICY))
async def get_registry_enforcement(find: _SeenRegistry, rooms: RoomsDep) -> EnforcementPolicyRecord:
    """For administrators and auditors."""
    return await _get(rooms, find)


@registry_router.put("", summary="Say what the registry wants signed", responses=errors(*_ON_REGISTRY, _INVALID))
async def set_registry_enforcement(
    find: _Registry, form: EnforcementPolicyForm, caller: CallerDep, rooms: RoomsDep
) -> EnforcementPolicyRecord:
    """For administrators. It holds for all repositories, within two seconds."""
    return await _set(rooms, find, form, caller)


@registry_router.delete(
    "", status_code=204, summary="Let the registry want nothing signed", responses=errors(*_ON_REGISTRY)
)
async def delete_registry_enforcement(find: _Registry, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators; also when it has no policy. Its exceptions go with it, those of namespaces stay."""
    await _delete(rooms, find, caller)


@registry_router.post(
    "/exceptions",
    status_code=201,
    summary="Except something from the registry's policy",
    responses=errors(*_ON_REGISTRY, _POLICY, _INVALID, "NO_SUCH_ACCOUNT"),
)
async def create_registry_enforcement_exception(
    find: _Registry, form: EnforcementExceptionForm, caller: CallerDep, rooms: RoomsDep
) -> EnforcementExceptionRecord:
    """For administrators; in all repositories."""
    return await _add_exception(rooms, find, form, caller)


@registry_router.delete(
    "/exceptions/{exceptionid}",
    status_code=204,
    summary="End an exception from the registry's policy",
    responses=errors(*_ON_REGISTRY, _EXCEPTION),
)
async def delete_registry_enforcement_exception(
    find: _Registry, exceptionid: str, caller: CallerDep, rooms: RoomsDep
) -> None:
    """For administrators."""
    await rooms.enforcement.delete_exception(await find(), exceptionid, by=caller.actor)


@registry_router.post(
    "/report", summary="What would be refused in the registry", responses=errors(*_ON_REGISTRY, _INVALID)
)
async def try_registry_enforcement(
    find: _Registry,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    form: EnforcementPolicyForm | None = None,
) -> list[EnforcementReportRecord]:
    """
    For administrators: the tags of all repositories, at most 500 at once; nothing changes.

    With a policy as the body, what it would say in the place of the one that is there; as if it were enforced.
    """
    return await _report(rooms, find, form, page, response)
