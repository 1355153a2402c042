"""``/enzi/v0/accounts``: users and organizations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Query, Response
from pydantic import Field, ValidationError

from dtr.accounts import AccountFilter, AccountQuery, BadCredentials, Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.enzi.records import (
    LONGEST_TEXT,
    DetailedAccountRecord,
    List,
    Route,
    account_record,
    account_records,
    detailed_records,
)
from dtr.http.api.enzi.rights import is_self, own, seen
from dtr.http.api.errors import ApiError, Problem, errors, refusal
from dtr.http.api.models import AccountName, AccountRecord, Form, Password, Record
from dtr.http.api.operations import Router
from dtr.http.api.paging import ListDep
from dtr.http.api.rooms import RoomsDep

if TYPE_CHECKING:
    from dtr.accounts import Account
    from dtr.http.api.caller import Caller
    from dtr.http.api.rooms import Rooms

router = Router(prefix="/enzi/v0/accounts", tags=["enzi"], route_class=Route)

_MOST_OPERATIONS = 1_000


class AccountList(List):
    """A page of accounts."""

    accounts: list[DetailedAccountRecord]
    users_count: int = Field(description="How many users there are, whatever was asked for.")
    orgs_count: int = Field(description="How many organizations there are, whatever was asked for.")
    resource_count: int = Field(description="Both together.")
    found_count: int | None = Field(None, description="With `count`: how many accounts were asked for.")


class AccountForm(Form):
    """An account to be made."""

    name: AccountName = Field(description="Lower-case letters and digits with single `.`, `_`, `-` between.")
    full_name: str = Field("", max_length=LONGEST_TEXT)
    is_org: bool = Field(False, description="Make an organization.")
    password: str | None = Field(None, description="Of a user.")
    is_active: bool = Field(True, description="Users: may log in.")
    is_admin: bool = Field(False, description="Users: administers the whole system.")
    is_auditor: bool = Field(False, description="Users: sees everything, and changes nothing.")
    search_ldap: bool = Field(
        False, alias="searchLDAP", description="Find the user in a directory; there is none yet."
    )


class AccountChange(Form):
    """What of an account is to be changed; what is missing stays."""

    full_name: str | None = Field(None, max_length=LONGEST_TEXT)
    is_active: bool | None = None
    is_admin: bool | None = None
    is_auditor: bool | None = None


class BulkOperation(Form):
    """One of many changes."""

    op: str = Field(description="`update`, `activate`, `deactivate` or `delete`.")
    ref: str = Field(description="Name or id of the account.")
    value: dict[str, Any] | None = Field(None, description="Of `update`: what is to be changed.")


class BulkForm(Form):
    """Many changes."""

    operations: list[BulkOperation] = Field(max_length=_MOST_OPERATIONS)


class BulkResult(Record):
    """What became of one of many changes."""

    op: str
    ref: str
    success: bool = Field(description="It was made.")
    error: Problem | None = Field(None, description="Why it failed.")


class BulkResults(Record):
    """What became of many changes, in their order."""

    results: list[BulkResult]


class PasswordForm(Form):
    """A new password."""

    old_password: str | None = Field(None, description="An administrator may leave it out for somebody else.")
    new_password: Password = Field(description="1 to 1024 characters.")


@router.get("", summary="List users and organizations", responses=errors("NOT_AUTHORIZED"))
async def list_accounts(
    page: ListDep,
    caller: CallerDep,
    rooms: RoomsDep,
    response: Response,
    which: Annotated[
        AccountFilter, Query(alias="filter", description="Which accounts; robots are in their own list only.")
    ] = "all",
    order: Annotated[
        str,
        Query(
            description="`name` or `fullName`, with `+` or `-` before it.",
            json_schema_extra={"enum": ["name", "+name", "-name", "fullName", "+fullName", "-fullName"]},
        ),
    ] = "name",
    contains: Annotated[
        str, Query(max_length=LONGEST_TEXT, description="A part of name or full name, in whatever case.")
    ] = "",
    details: Annotated[bool, Query(description="With what is for administrators and auditors.")] = False,
    counted: Annotated[
        bool, Query(alias="count", description="Count what is asked for, in `foundCount`.")
    ] = False,
) -> AccountList:
    """For any user; the list of robots, and the details, are for administrators and auditors."""
    caller.require(Operation.SEE_SYSTEM if which == "robots" or details else Operation.SEE_ACCOUNTS)
    query = _query(which, order, contains, page.start)
    found = await rooms.accounts.list_accounts(query, limit=page.limit)
    counts = await rooms.accounts.count()
    listed = AccountList(
        accounts=await (detailed_records if details else account_records)(rooms.accounts, found[: page.size]),
        users_count=counts.users,
        orgs_count=counts.organizations,
        resource_count=counts.users + counts.organizations,
        found_count=await rooms.accounts.count_accounts(query) if counted else None,
        next_page_start=query.marker(found[page.size]) if len(found) > page.size else "",
    )
    listed.told(response, listed.resource_count)
    return listed


def _query(which: AccountFilter, order: str, contains: str, start: str) -> AccountQuery:
    key = order.lstrip("+- ")  # a plus sign that a client did not encode is a space
    descending = order.startswith("-")
    if key == "name":
        return AccountQuery(filter=which, descending=descending, contains=contains, start=start)
    if key == "fullName":
        return AccountQuery(filter=which, order="fullName", descending=descending, contains=contains, start=start)
    raise ApiError("INVALID_PARAMETERS", [{"field": "order", "message": "is name or fullName"}])


@router.post(
    "",
    status_code=201,
    summary="Make a user or an organization",
    responses=errors(
        "INVALID_ACCOUNT_NAME", "INVALID_PASSWORD", "ACCOUNT_EXISTS", "NO_DIRECTORY", "NOT_AUTHORIZED"
    ),
)
async def create_account(form: AccountForm, caller: CallerDep, rooms: RoomsDep) -> AccountRecord:
    """For administrators. A user needs a password."""
    caller.require(Operation.CREATE_ACCOUNTS)
    accounts = rooms.accounts
    if form.is_org:
        made = await accounts.create_organization(form.name, full_name=form.full_name, by=caller.actor)
    elif form.search_ldap:
        raise ApiError("NO_DIRECTORY", "searchLDAP")
    elif form.password is None:
        raise ApiError("INVALID_PASSWORD", "a user needs a password")
    else:
        made = await accounts.create_user(
            form.name,
            form.password,
            full_name=form.full_name,
            is_active=form.is_active,
            is_admin=form.is_admin,
            is_auditor=form.is_auditor,
            by=caller.actor,
        )
    return await account_record(accounts, await accounts.get(made))


@router.patch("", summary="Change many accounts", responses=errors("NOT_AUTHORIZED"))
async def update_accounts(form: BulkForm, caller: CallerDep, rooms: RoomsDep) -> BulkResults:
    """For administrators. Each change is one of its own: some may fail, and the answer says which and why."""
    caller.require(Operation.CREATE_ACCOUNTS)
    return BulkResults(results=[await _result(one, caller, rooms) for one in form.operations])


async def _result(operation: BulkOperation, caller: Caller, rooms: Rooms) -> BulkResult:
    failure = None
    try:
        await _apply(operation, caller, rooms)
    except Exception as error:
        failure = refusal(error)
        if failure is None:
            raise
    problem = None if failure is None else Problem(**failure.document["errors"][0])
    return BulkResult(op=operation.op, ref=operation.ref, success=problem is None, error=problem)


async def _apply(operation: BulkOperation, caller: Caller, rooms: Rooms) -> None:
    accounts, ref, by = rooms.accounts, operation.ref, caller.actor
    match operation.op:
        case "update" | "patch":
            try:
                change = AccountChange.model_validate(operation.value or {})
            except ValidationError as error:
                problems = error.errors(include_url=False, include_context=False, include_input=False)
                raise ApiError("INVALID_JSON", problems) from None
            await accounts.update(ref, **change.model_dump(), by=by)
        case "activate":
            await accounts.update(ref, is_active=True, by=by)
        case "deactivate":
            await accounts.update(ref, is_active=False, by=by)
        case "delete":
            await accounts.delete(ref, by=by)
        case _:
            raise ApiError("INVALID_JSON", "op is update, activate, deactivate or delete")


@router.get("/{account}", summary="An account", responses=errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT"))
async def get_account(
    account: str,
    caller: CallerDep,
    rooms: RoomsDep,
    details: Annotated[bool, Query(description="With what is for the user, administrators and auditors.")] = False,
) -> DetailedAccountRecord:
    """For any user; the details are for the user itself, and for administrators and auditors."""
    found = await seen(caller, rooms.accounts, account)
    if not details:
        return await account_record(rooms.accounts, found)
    if found.id != caller.account_id:
        caller.require(Operation.SEE_SYSTEM)
    (record,) = await detailed_records(rooms.accounts, [found])
    return record


@router.patch(
    "/{account}",
    summary="Change an account",
    responses=errors("NOT_A_USER", "NOT_AUTHORIZED", "NO_SUCH_ACCOUNT", "LAST_ADMINISTRATOR"),
)
async def update_account(account: str, form: AccountChange, caller: CallerDep, rooms: RoomsDep) -> AccountRecord:
    """For administrators; the full name also for the user itself, and for owners of the organization."""
    found = await seen(caller, rooms.accounts, account)
    given = {key: value for key, value in form.model_dump().items() if value is not None}
    changes = {key: value for key, value in given.items() if value != getattr(found, key)}
    if not caller.may(Operation.CREATE_ACCOUNTS):
        if found.id != caller.account_id:
            await caller.require_in(found.name, Operation.MANAGE_ORGANIZATION)
        if not changes.keys() <= {"full_name"}:
            raise ApiError("NOT_AUTHORIZED", "this is for administrators")
    elif found.kind == "user":  # all of it, so that two who change it at once are not mixed
        changes = given
    changed = await rooms.accounts.update(found.id, **changes, by=caller.actor)
    return await account_record(rooms.accounts, changed)


@router.delete(
    "/{account}",
    status_code=204,
    summary="Remove an account",
    responses=errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT", "ACCOUNT_IN_USE", "LAST_ADMINISTRATOR"),
)
async def delete_account(account: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators. One that has repositories stays until they are deleted or moved."""
    caller.require(Operation.CREATE_ACCOUNTS)
    await rooms.accounts.delete(account, by=caller.actor)


@router.post(
    "/{user}/changePassword",
    summary="Change a password",
    responses=errors("INVALID_PASSWORD", "INCORRECT_PASSWORD", "NOT_AUTHORIZED", "NO_SUCH_ACCOUNT"),
)
async def change_password(user: str, form: PasswordForm, caller: CallerDep, rooms: RoomsDep) -> AccountRecord:
    """For the user itself, and for administrators. All sessions of the user end, wherever they are."""
    found = await own(caller, rooms.accounts, user, Operation.CREATE_ACCOUNTS, "user")
    if is_self(caller, user):
        await _confirm(found, form.old_password, caller, rooms)
    await rooms.accounts.set_password(found.id, form.new_password, by=caller.actor)
    return AccountRecord.of(found)


async def _confirm(account: Account, password: str | None, caller: Caller, rooms: Rooms) -> None:
    """Let through who knows the password. Raises ApiError, TooManyAttempts."""
    if password is None:
        raise ApiError("INCORRECT_PASSWORD", "oldPassword is missing")
    try:
        await rooms.accounts.logins.authenticate_password(account.name, password, caller.address)
    except BadCredentials:
        raise ApiError("INCORRECT_PASSWORD", "oldPassword") from None
