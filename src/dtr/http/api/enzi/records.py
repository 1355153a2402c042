"""What the account service answers and is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.routing import APIRoute
from pydantic import Field

from dtr.http.api.models import AccountRecord, Form, Record
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


async def account_records(accounts: Accounts, found: Iterable[Account]) -> list[AccountRecord]:
    """The records of accounts; the sizes of all organizations among them are one query."""
    listed = list(found)
    sizes = await accounts.organizations.sizes(listed)
    return [
        AccountRecord.of(one, members=sizes[one.id].members, teams=sizes[one.id].teams)
        if one.id in sizes
        else AccountRecord.of(one)
        for one in listed
    ]


async def account_record(accounts: Accounts, account: Account) -> AccountRecord:
    """The record of one account."""
    (record,) = await account_records(accounts, [account])
    return record


def member_record(member: Member) -> MemberRecord:
    """The record of a member."""
    return MemberRecord(member=AccountRecord.of(member.account), is_admin=member.is_admin)
