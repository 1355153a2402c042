"""Users, organisations, teams and grants, on both databases."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select
from tests.support.grants import grant_team

from dtr.accounts import (
    AccountInUse,
    AccountNameInvalid,
    AccountQuery,
    Accounts,
    AccountUnknown,
    Facts,
    Level,
    NameTaken,
    NotAUser,
    NotGrantable,
    PasswordInvalid,
    TeamUnknown,
)
from dtr.db import Database, Statement
from dtr.db.schema import organization_members, team_members
from dtr.oci import parse_repository_name
from dtr.registry import Repositories, Settings

MEMBERS = Statement(select(organization_members.c.user_id))
TEAM_MEMBERS = Statement(select(team_members.c.user_id))


@pytest.fixture
async def org(accounts: Accounts) -> Accounts:
    """An organisation `org` with a team `devs`, and a user `ada` who belongs to nothing."""
    await accounts.create_organization("org")
    await accounts.organizations.create_team("org", "devs")
    await accounts.create_user("ada", "password")
    return accounts


async def facts(accounts: Accounts, user: str, path: str) -> Facts:
    account = await accounts.get(user)
    return (await accounts.standings.find(account.id, path)).facts


async def make(repositories: Repositories, path: str, **settings) -> int:
    return await repositories.create(parse_repository_name(path), Settings(**settings))


# --- accounts -----------------------------------------------------------------------------------------------


async def test_a_user_is_found_as_it_was_made(accounts: Accounts):
    made = await accounts.create_user("ada", "password", full_name="Ada Lovelace", is_admin=True)
    found = await accounts.get("ada")
    assert (found.id, found.kind, found.full_name) == (made, "user", "Ada Lovelace")
    assert (found.is_admin, found.is_active) == (True, True)


async def test_an_organization_is_an_account_that_is_no_user(accounts: Accounts):
    await accounts.create_organization("org", full_name="Org, Inc.")
    assert (await accounts.get("org", "organization")).full_name == "Org, Inc."
    with pytest.raises(AccountUnknown):
        await accounts.get("org", "user")


async def test_nobody_is_found_by_a_name_that_nobody_has(accounts: Accounts):
    await accounts.create_user("ada", None)
    for name in ("nobody", "", "a\0b", "\ud800", "ä", "a\nb", "x" * 10_000):
        assert await accounts.find(name) is None
        with pytest.raises(AccountUnknown):
            await accounts.get(name)


async def test_a_name_that_can_be_a_namespace_is_taken(accounts: Accounts):
    for name in ("a", "0", "ada.l", "a_b", "a__b", "a-b", "a--b", "x" * 100):
        await accounts.create_user(name, None)
        assert parse_repository_name(f"{name}/hello").namespace == (await accounts.get(name)).name


async def test_a_name_that_can_be_no_namespace_is_refused(accounts: Accounts):
    for name in ["", "Ada", "-a", "a-", ".a", "a..b", "a b", "a/b", "a:b", "ä", "a\0", "a\n", "\ud800", "x" * 101]:
        for create in (accounts.create_user(name, "password"), accounts.create_organization(name)):
            with pytest.raises(AccountNameInvalid):
                await create


async def test_users_and_organizations_share_one_space_of_names(accounts: Accounts):
    await accounts.create_user("ada", None)
    await accounts.create_organization("org")
    for create in (
        accounts.create_user("ada", None),
        accounts.create_organization("ada"),
        accounts.create_user("org", None),
    ):
        with pytest.raises(NameTaken):
            await create


async def test_of_several_who_want_a_name_at_once_one_gets_it(accounts: Accounts):
    results = await asyncio.gather(*(accounts.create_user("ada", None) for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in results if not isinstance(one, str)] == [NameTaken] * 4


async def test_a_password_of_no_or_too_many_characters_is_refused(accounts: Accounts):
    for password in ("", "x" * 1025):
        with pytest.raises(PasswordInvalid):
            await accounts.create_user("ada", password)
    assert await accounts.find("ada") is None


async def test_the_list_is_in_the_order_of_names_and_goes_on_where_it_ended(accounts: Accounts):
    assert await accounts.is_empty()
    names = ["b", "a-z", "a", "a0", "a.b", "c__d", "z"]
    for name in names:
        await accounts.create_user(name, None)
    assert not await accounts.is_empty()
    found: list[str] = []
    start: str | None = ""
    while start is not None:
        page = await accounts.list_accounts(AccountQuery(start=start), limit=3)
        assert len(page) <= 3
        found += [one.name for one in page[:2]]
        start = page[2].name if len(page) > 2 else None
    assert found == sorted(names)


async def test_deactivating_and_naming_an_administrator_can_be_undone(accounts: Accounts):
    await accounts.create_user("admin", None, is_admin=True)
    await accounts.create_user("ada", None)
    await accounts.update("ada", is_active=False)
    await accounts.update("ada", is_admin=True)
    assert (await accounts.get("ada")).is_active is False
    assert (await accounts.get("ada")).is_admin is True
    await accounts.update("ada", is_active=True)
    await accounts.update("ada", is_admin=False)
    assert (await accounts.get("ada")).is_active is True
    assert (await accounts.get("ada")).is_admin is False


async def test_what_is_for_users_is_not_for_organizations(org: Accounts):
    for attempt in (
        org.set_password("org", "password"),
        org.tokens.create("org", "label"),
        org.organizations.put_member("org", "org"),
        org.organizations.put_member("ada", "ada"),
        org.organizations.put_team_member("org", "devs", "org"),
    ):
        with pytest.raises(AccountUnknown):
            await attempt
    for change in ({"is_active": False}, {"is_admin": True}, {"is_auditor": True}):
        with pytest.raises(NotAUser):
            await org.update("org", **change)


# --- deleting -----------------------------------------------------------------------------------------------


async def test_a_deleted_account_frees_its_name_and_leaves_nothing(org: Accounts, database: Database):
    await org.organizations.put_team_member("org", "devs", "ada")
    await org.tokens.create("ada", "label")
    await org.delete("ada")
    assert await org.find("ada") is None
    assert await database.fetch_all(MEMBERS) == []
    assert await database.fetch_all(TEAM_MEMBERS) == []
    await org.create_user("ada", None)
    assert await org.tokens.list_tokens("ada") == []


async def test_a_deleted_organization_takes_its_teams_with_it(org: Accounts):
    await org.organizations.put_team_member("org", "devs", "ada")
    await org.delete("org")
    await org.create_organization("org")
    with pytest.raises(TeamUnknown):
        await org.organizations.delete_team("org", "devs")


async def test_an_account_with_repositories_is_not_deleted(org: Accounts, repositories: Repositories):
    await make(repositories, "ada/hello")
    with pytest.raises(AccountInUse):
        await org.delete("ada")
    assert (await org.get("ada")).name == "ada"


async def test_an_account_whose_repositories_were_deleted_is_deleted(org: Accounts, repositories: Repositories):
    await make(repositories, "ada/hello")
    await repositories.delete("ada/hello")
    await org.delete("ada")
    assert await org.find("ada") is None


async def test_nobody_is_deleted_twice(org: Accounts):
    await org.delete("ada")
    with pytest.raises(AccountUnknown):
        await org.delete("ada")


async def test_a_repository_and_the_end_of_its_namespace_do_not_meet(org: Accounts, repositories: Repositories):
    results = await asyncio.gather(org.delete("ada"), make(repositories, "ada/hello"), return_exceptions=True)
    deleted, made = (not isinstance(result, Exception) for result in results)
    assert deleted != made
    assert (await org.find("ada") is None) == deleted


# --- organisations and teams --------------------------------------------------------------------------------


async def test_an_owner_owns_what_is_in_the_organization_and_a_member_nothing(org: Accounts):
    await org.organizations.put_member("org", "ada")
    assert (await facts(org, "ada", "org/hello")).owns_namespace is False
    await org.organizations.put_member("org", "ada", is_admin=True)
    assert (await facts(org, "ada", "org/hello")).owns_namespace is True
    await org.organizations.put_member("org", "ada")  # as it is
    assert (await facts(org, "ada", "org/hello")).owns_namespace is True
    await org.organizations.put_member("org", "ada", is_admin=False)
    assert (await facts(org, "ada", "org/hello")).owns_namespace is False


async def test_whoever_is_put_into_a_team_belongs_to_the_organization(org: Accounts, database: Database):
    await org.organizations.put_team_member("org", "devs", "ada")
    await org.organizations.put_team_member("org", "devs", "ada")
    assert len(await database.fetch_all(MEMBERS)) == 1
    assert len(await database.fetch_all(TEAM_MEMBERS)) == 1


async def test_an_owner_who_is_put_into_a_team_stays_an_owner(org: Accounts):
    await org.organizations.put_member("org", "ada", is_admin=True)
    await org.organizations.put_team_member("org", "devs", "ada")
    assert (await facts(org, "ada", "org/hello")).owns_namespace is True


async def test_whoever_leaves_a_team_stays_in_the_organization(org: Accounts, database: Database):
    await org.organizations.put_team_member("org", "devs", "ada")
    await org.organizations.remove_team_member("org", "devs", "ada")
    assert len(await database.fetch_all(MEMBERS)) == 1
    assert await database.fetch_all(TEAM_MEMBERS) == []


async def test_whoever_leaves_the_organization_leaves_its_teams_but_not_others(org: Accounts):
    await org.create_organization("other")
    await org.organizations.create_team("other", "devs")
    for organization in ("org", "other"):
        await org.organizations.put_team_member(organization, "devs", "ada")
        await grant_team(org, organization, "devs", Level.READ)
    await org.organizations.remove_member("org", "ada")
    assert (await facts(org, "ada", "org/hello")).namespace_level is Level.NONE
    assert (await facts(org, "ada", "other/hello")).namespace_level is Level.READ


async def test_nobody_is_in_a_team_without_being_in_its_organization_whoever_acts_at_once(
    org: Accounts, database: Database
):
    for _ in range(10):
        await org.organizations.put_member("org", "ada")
        rooms = org.organizations
        await asyncio.gather(rooms.put_team_member("org", "devs", "ada"), rooms.remove_member("org", "ada"))
        in_organization = bool(await database.fetch_all(MEMBERS))
        in_team = bool(await database.fetch_all(TEAM_MEMBERS))
        assert in_organization or not in_team
        await org.organizations.remove_member("org", "ada")


async def test_a_team_has_its_name_once_in_its_organization(org: Accounts):
    with pytest.raises(NameTaken):
        await org.organizations.create_team("org", "devs")
    await org.create_organization("other")
    await org.organizations.create_team("other", "devs")


async def test_a_team_with_a_bad_name_is_refused(org: Accounts):
    for name in ("", "Devs", "a b", "a/b", "\ud800", "a\0"):
        with pytest.raises(AccountNameInvalid):
            await org.organizations.create_team("org", name)


async def test_a_user_has_no_teams(org: Accounts):
    with pytest.raises(AccountUnknown):
        await org.organizations.create_team("ada", "devs")


async def test_what_is_done_to_a_team_that_is_not_there_is_refused(org: Accounts):
    for team in ("ops", "\ud800", "a\0"):
        for attempt in (
            org.organizations.delete_team("org", team),
            org.organizations.put_team_member("org", team, "ada"),
            org.organizations.remove_team_member("org", team, "ada"),
            grant_team(org, "org", team, Level.READ),
        ):
            with pytest.raises(TeamUnknown):
                await attempt


async def test_a_deleted_team_grants_nothing(org: Accounts):
    await org.organizations.put_team_member("org", "devs", "ada")
    await grant_team(org, "org", "devs", Level.WRITE)
    await org.organizations.delete_team("org", "devs")
    assert (await facts(org, "ada", "org/hello")).namespace_level is Level.NONE


# --- grants -------------------------------------------------------------------------------------------------


async def test_a_grant_on_a_repository_holds_there_only(org: Accounts, repositories: Repositories):
    await make(repositories, "org/one")
    await make(repositories, "org/two")
    await org.organizations.put_team_member("org", "devs", "ada")
    await grant_team(org, "org/one", "devs", Level.WRITE)
    assert (await facts(org, "ada", "org/one")).repository_level is Level.WRITE
    assert (await facts(org, "ada", "org/two")).level is Level.NONE


async def test_a_grant_on_the_namespace_holds_for_present_and_future_repositories(
    org: Accounts, repositories: Repositories
):
    await make(repositories, "org/one")
    await org.organizations.put_team_member("org", "devs", "ada")
    await grant_team(org, "org", "devs", Level.READ)
    await make(repositories, "org/two/deep")
    for path in ("org/one", "org/two/deep", "org/not/there"):
        assert (await facts(org, "ada", path)).namespace_level is Level.READ


async def test_a_grant_that_is_given_again_replaces_the_old_one(org: Accounts, repositories: Repositories):
    await make(repositories, "org/one")
    await org.organizations.put_team_member("org", "devs", "ada")
    for level in (Level.ADMIN, Level.READ, Level.NONE, Level.NONE, Level.WRITE):
        await grant_team(org, "org/one", "devs", level)
        await grant_team(org, "org", "devs", level)
        found = await facts(org, "ada", "org/one")
        assert (found.repository_level, found.namespace_level) == (level, level)


async def test_the_highest_of_several_grants_wins(org: Accounts, repositories: Repositories):
    await make(repositories, "org/one")
    for team, level in (("ops", Level.ADMIN), ("readers", Level.READ), ("devs", Level.WRITE)):
        if team != "devs":
            await org.organizations.create_team("org", team)
        await org.organizations.put_team_member("org", team, "ada")
        await grant_team(org, "org/one", team, level)
    assert (await facts(org, "ada", "org/one")).repository_level is Level.ADMIN


async def test_a_team_is_granted_nothing_on_what_its_organization_does_not_own(
    org: Accounts, repositories: Repositories
):
    await org.create_organization("other")
    await make(repositories, "other/one")
    await make(repositories, "ada/one")
    devs = await org.grants.find_team(await org.grants.on("org"), "devs")
    for path in ("other/one", "ada/one"):
        with pytest.raises(NotGrantable):
            await grant_team(org, path, devs.id, Level.READ)


async def test_nothing_is_granted_on_a_repository_that_is_not_there(org: Accounts):
    for path in ("org/missing", "", "\ud800", "a\0b"):
        with pytest.raises(AccountUnknown):
            await grant_team(org, path, "devs", Level.READ)


async def test_a_grant_does_not_come_back_with_the_name_of_a_deleted_repository(
    org: Accounts, repositories: Repositories
):
    await make(repositories, "org/one")
    await org.organizations.put_team_member("org", "devs", "ada")
    await grant_team(org, "org/one", "devs", Level.ADMIN)
    await repositories.delete("org/one")
    await make(repositories, "org/one")
    assert (await facts(org, "ada", "org/one")).level is Level.NONE
