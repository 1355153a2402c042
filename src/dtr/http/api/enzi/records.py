"""What the account service answers and is given."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute
from pydantic import Field

from dtr.http.api.models import AccountRecord, Form, Record, moment
from dtr.http.api.paging import COUNT, NEXT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi import Response

    from dtr.accounts import Account, Accounts, Member, Team

LONGEST_TEXT = 1_000
"""Of a full name or a description."""


class Route(APIRoute):
    """An operation whose records leave out what an account of their kind has not."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "response_model_exclude_none": True})


class List(Record):
    """What all lists say beside their records."""

    next_page_start: str = Field("", description="The `start` of the next page; empty: this is the last one.")

    def told(self, response: Response, count: int | None = None) -> None:
        """Say in the headers, too, how it goes on, and how many records there are."""
        if self.next_page_start:
            response.headers[NEXT] = self.next_page_start
        if count is not None:
            response.headers[COUNT] = str(count)


class DetailedAccountRecord(AccountRecord):
    """An account, for some with what is not everybody's business of a user."""

    created_at: dt.datetime | None = None
    last_login: dt.datetime | None = Field(
        None, description="When its password was shown last, to the minute; the year 1: never."
    )
    password_is_own: bool | None = Field(
        None, description="The user set its password; `false`: whoever made the account, or an administrator."
    )
    organizations: list[str] | None = Field(None, description="The first three that the user is in, by name.")
    organizations_count: int | None = Field(None, description="How many organizations the user is in.")


class MembershipForm(Form):
    """How somebody is in an organization or team."""

    is_admin: bool | None = Field(None, description="Missing: as it is, and at first `false`.")


class MemberRecord(Record):
    """A user in an organization or team."""

    member: AccountRecord
    is_admin: bool = Field(description="An owner of the organization; in a team: may edit it and its members.")


class TeamRecord(Record):
    """A team of an organization."""

    id: str
    org_id: str = Field(alias="orgID", description="The id of its organization.")
    name: str
    description: str
    members_count: int

    @classmethod
    def of(cls, team: Team) -> TeamRecord:
        """The record of a team."""
        return cls(
            id=team.id,
            org_id=team.organization_id,
            name=team.name,
            description=team.description,
            members_count=team.members,
        )


async def account_records(accounts: Accounts, found: Iterable[Account]) -> list[DetailedAccountRecord]:
    """The records of accounts, without details; the sizes of all organizations among them are one query."""
    listed = list(found)
    sizes = await accounts.organizations.sizes(listed)
    return [
        DetailedAccountRecord.of(one, members=sizes[one.id].members, teams=sizes[one.id].teams)
        if one.id in sizes
        else DetailedAccountRecord.of(one)
        for one in listed
    ]


async def detailed_records(accounts: Accounts, found: Iterable[Account]) -> list[DetailedAccountRecord]:
    """The records of accounts with their details, for who may know them; three queries."""
    listed = list(found)
    details = await accounts.details(listed)
    records = await account_records(accounts, listed)
    for record, account in zip(records, listed, strict=True):
        one = details.get(account.id)
        if one is not None and account.kind == "user":
            record.created_at = moment(one.created_at)
            record.last_login = moment(one.last_login_at)
            record.password_is_own = one.password_is_own
            record.organizations = list(one.organizations)
            record.organizations_count = one.organizations_count
    return records


async def account_record(accounts: Accounts, account: Account) -> DetailedAccountRecord:
    """The record of one account."""
    (record,) = await account_records(accounts, [account])
    return record


def member_record(member: Member) -> MemberRecord:
    """The record of a member."""
    return MemberRecord(member=AccountRecord.of(member.account), is_admin=member.is_admin)
