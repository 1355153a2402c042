"""
Who may do what at the account service, beyond what `Operation` says.

It depends on whether something concerns the caller itself, an organization that it is in or owns, or a team that
it administers. Every operation begins with `Operation.SEE_ACCOUNTS`, which no token with a scope has. Whoever
audits sees what a member sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.accounts import AccountUnknown, Operation, may
from dtr.http.api.errors import ApiError

if TYPE_CHECKING:
    from dtr.accounts import Account, AccountKind, Accounts, Team
    from dtr.http.api.caller import Caller


async def seen(caller: Caller, accounts: Accounts, name: str, kind: AccountKind | None = None) -> Account:
    """
    An account, for any user; a robot, for who manages its organization, or audits.

    Raises ApiError, AccountUnknown.
    """
    caller.require(Operation.SEE_ACCOUNTS)
    account = await accounts.get(name, kind)
    if account.kind == "robot" and not caller.may(Operation.SEE_SYSTEM):
        organization = account.name.partition("+")[0]
        if not may((await caller.standing(f"{organization}/")).facts, Operation.MANAGE_ORGANIZATION):
            raise AccountUnknown(name)
    return account


async def own(
    caller: Caller, accounts: Accounts, name: str, others: Operation, kind: AccountKind | None = None
) -> Account:
    """An account that is the caller's, or for who may do `others`. Raises ApiError, AccountUnknown."""
    caller.require(Operation.SEE_ACCOUNTS)
    if not is_self(caller, name):
        caller.require(others)
    return await accounts.get(name, kind)


def is_self(caller: Caller, name: str) -> bool:
    """Whether a name or id is the caller's."""
    account = caller.account
    return account is not None and name in {account.name, account.id}


async def managed(caller: Caller, accounts: Accounts, name: str) -> Account:
    """An account that the caller is, or owns as an organization. Raises ApiError, AccountUnknown."""
    account = await seen(caller, accounts, name)
    if account.id != caller.account_id:
        await caller.require_in(account.name, Operation.MANAGE_ORGANIZATION)
    return account


async def joined(caller: Caller, accounts: Accounts, name: str, *, user: str = "") -> Account:
    """
    An organization that the caller is in, or for who asks about itself as its `user`.

    Raises ApiError, AccountUnknown.
    """
    organization = await seen(caller, accounts, name, "organization")
    if caller.may(Operation.SEE_SYSTEM) or is_self(caller, user):
        return organization
    facts = (await caller.standing(f"{organization.name}/")).facts
    if not (facts.is_member or may(facts, Operation.MANAGE_ORGANIZATION)):
        raise ApiError("NOT_AUTHORIZED")
    return organization


async def owned(caller: Caller, accounts: Accounts, name: str) -> Account:
    """An organization that the caller owns. Raises ApiError, AccountUnknown."""
    organization = await seen(caller, accounts, name, "organization")
    await caller.require_in(organization.name, Operation.MANAGE_ORGANIZATION)
    return organization


async def led(caller: Caller, accounts: Accounts, name: str, team: str) -> tuple[Account, Team]:
    """A team that the caller administers, or whose organization it owns. Raises ApiError, AccountError."""
    organization = await seen(caller, accounts, name, "organization")
    facts = (await caller.standing(f"{organization.name}/")).facts
    if may(facts, Operation.MANAGE_ORGANIZATION):
        return organization, await accounts.organizations.get_team(organization.id, team)
    if not facts.is_member:  # who is not does not learn which teams there are
        raise ApiError("NOT_AUTHORIZED")
    found = await accounts.organizations.get_team(organization.id, team)
    if not await accounts.organizations.find_team_membership(found.id, caller.user().id):
        raise ApiError("NOT_AUTHORIZED")
    return organization, found
