"""Lists of accounts and their changes, on both databases."""

from __future__ import annotations

import asyncio
import json

import pytest
from sqlalchemy import select

from dtr.accounts import SHARED_ORGANIZATION, AccountQuery, Accounts, AccountUnknown, LastAdministrator, NameTaken
from dtr.db import Database, Statement
from dtr.db.schema import events
from dtr.events import Actor

EVENTS = Statement(
    select(events.c.type, events.c.object_type, events.c.object_name, events.c.object_content, events.c.actor_name)
    .where(events.c.actor_name != "")
    .order_by(events.c.id)
)
EVE = Actor("user", "id-of-eve", "eve", "192.0.2.1")


@pytest.fixture
async def people(accounts: Accounts) -> Accounts:
    """Users, organisations and a robot, of names and full names that sort differently."""
    for name, full_name, is_admin in (
        ("ada", "Zoë", True),
        ("bob", "", False),
        ("cher", "Äsa 100%", False),
        ("dora", "", True),
    ):
        await accounts.create_user(name, None, full_name=full_name, is_admin=is_admin)
    await accounts.update("bob", is_active=False)
    for name in ("acme", "zeta"):
        await accounts.create_organization(name, full_name=f"The {name}")
    await accounts.robots.create(await accounts.get("acme"), "ci")
    return accounts


async def names(accounts: Accounts, query: AccountQuery, limit: int = 100) -> list[str]:
    return [one.name for one in await accounts.list_accounts(query, limit=limit)]


async def test_each_filter_gives_its_accounts(people: Accounts):
    for which, expected in {
        "all": ["acme", "ada", "bob", "cher", "dora", "zeta"],
        "users": ["ada", "bob", "cher", "dora"],
        "orgs": ["acme", "zeta"],
        "admins": ["ada", "dora"],
        "non-admins": ["bob", "cher"],
        "active-users": ["ada", "cher", "dora"],
        "inactive-users": ["bob"],
        "robots": ["acme+ci"],
    }.items():
        assert await names(people, AccountQuery(filter=which)) == expected, which
    counts = await people.count()
    assert (counts.users, counts.organizations) == (4, 2)


async def test_pages_are_cut_where_they_were_also_when_their_first_account_is_gone(people: Accounts):
    by_full_name = ["bob", "dora", "acme", "zeta", "ada", "cher"]
    for order, expected in (("name", sorted(by_full_name)), ("fullName", by_full_name)):
        for descending in (False, True):
            wanted = expected[::-1] if descending else expected
            query = AccountQuery(order=order, descending=descending)
            assert await names(people, query) == wanted
            listed = await people.list_accounts(query, limit=100)
            for place, account in enumerate(listed):
                start = query.marker(account)
                page = AccountQuery(order=order, descending=descending, start=start)
                assert await names(people, page, limit=2) == wanted[place : place + 2]
    query = AccountQuery(order="fullName")
    start = query.marker(await people.get("dora"))
    await people.delete("dora")
    assert await names(people, AccountQuery(order="fullName", start=start)) == by_full_name[2:]


async def test_what_cannot_be_a_place_in_a_list_harms_nobody(people: Accounts):
    for start in ("nobody", "ä", "\ud800", "a/b/c", "/", "\x7f"):
        for order in ("name", "fullName"):
            if start == "\ud800" and order == "fullName":
                continue  # refused as any text that no database takes
            await names(people, AccountQuery(order=order, start=start))


async def test_parts_of_names_are_found_whatever_their_case_and_signs_mean_themselves(people: Accounts):
    for part, expected in {
        "ZOË": ["ada"],
        "zoe\u0308": ["ada"],
        "äSA": ["cher"],
        "the": ["acme", "zeta"],
        "A": ["acme", "ada", "cher", "dora", "zeta"],
        "0%": ["cher"],
        "%": ["cher"],
        "_": [],
        "\\": [],
        "acme+": [],
    }.items():
        assert await names(people, AccountQuery(contains=part)) == expected, part
    assert await names(people, AccountQuery(contains="acme+", filter="robots")) == ["acme+ci"]
    await people.update("bob", full_name="Özgür")
    assert await names(people, AccountQuery(contains="özgÜR")) == ["bob"]


# --- changes --------------------------------------------------------------------------------------------------


async def test_an_update_changes_what_is_given_and_is_written_down(people: Accounts, database: Database):
    before = await people.get("cher")
    assert await people.update("cher", by=EVE) == before
    assert await people.update("cher", full_name=before.full_name, is_active=True, by=EVE) == before
    changed = await people.update(before.id, full_name="C", is_auditor=True, is_admin=False, by=EVE)
    assert (changed.full_name, changed.is_auditor, changed.is_admin) == ("C", True, False)
    assert await people.get("cher") == changed
    await people.set_password("cher", "x", by=EVE)
    await people.delete("cher", by=EVE)
    await people.create_user("new", "secret", full_name="N", by=EVE)
    found = await database.fetch_all(EVENTS)
    assert [(row[0], row[2]) for row in found] == [
        ("UPDATE", "cher"),
        ("UPDATE", "cher"),
        ("DELETE", "cher"),
        ("CREATE", "new"),
    ]
    assert json.loads(found[0][3]) == {"full_name": "C", "is_auditor": True}
    assert {row[4] for row in found} == {"eve"}
    assert "secret" not in str([tuple(row) for row in found])


async def test_what_fails_is_not_written_down(people: Accounts, database: Database):
    with pytest.raises(NameTaken):
        await people.create_user("ada", None, by=EVE)
    with pytest.raises(AccountUnknown):
        await people.update("nobody", full_name="x", by=EVE)
    assert await database.fetch_all(EVENTS) == []


async def test_an_id_is_found_and_nothing_can_be_called_like_one(people: Accounts):
    ada = await people.get("ada")
    assert await people.get(ada.id) == ada
    assert await people.find("00000000-0000-0000-0000-000000000000") is None
    for create in (people.create_user(ada.id, None), people.create_organization(ada.id)):
        with pytest.raises(Exception, match="looks like an id"):
            await create


async def test_somebody_stays_who_administers(people: Accounts):
    await people.update("dora", is_admin=False)
    for attempt in (
        people.update("ada", is_admin=False),
        people.update("ada", is_active=False),
        people.update("ada", is_active=False, full_name="x"),
        people.delete("ada"),
    ):
        with pytest.raises(LastAdministrator):
            await attempt
    assert (await people.get("ada")).full_name == "Zoë"
    # One who may not log in does not count.
    await people.update("bob", is_admin=True)
    with pytest.raises(LastAdministrator):
        await people.delete("ada")
    await people.update("bob", is_active=True)
    await people.delete("ada")


async def test_administrators_who_dismiss_each_other_at_once_leave_one(people: Accounts):
    for _ in range(5):
        for name in ("ada", "dora"):
            await people.update(name, is_admin=True, is_active=True)
        results = await asyncio.gather(
            people.update("ada", is_admin=False), people.update("dora", is_active=False), return_exceptions=True
        )
        assert [type(one) for one in results if isinstance(one, Exception)] == [LastAdministrator]


async def test_a_new_user_is_in_the_organization_that_all_are_in_and_nobody_else(accounts: Accounts):
    await accounts.create_user("early", None)
    await accounts.create_organization(SHARED_ORGANIZATION)
    await accounts.create_user("late", None)
    await accounts.create_organization("other")
    members = await accounts.organizations.list_members(SHARED_ORGANIZATION, limit=10)
    assert [(one.account.name, one.is_admin) for one in members] == [("late", False)]


async def test_lists_are_counted(accounts: Accounts):
    for number in range(5):
        await accounts.create_user(f"ada{number}", None, is_auditor=number < 2, is_active=number > 0)
    await accounts.create_organization("adas")
    for query, expected in {
        AccountQuery(): 6,
        AccountQuery(filter="users", contains="ADA", start="ada3"): 5,
        AccountQuery(filter="auditors"): 2,
        AccountQuery(filter="auditors", contains="ada1"): 1,
        AccountQuery(filter="inactive-users"): 1,
        AccountQuery(contains="%"): 0,
    }.items():
        assert await accounts.count_accounts(query) == expected
    found = await accounts.list_accounts(AccountQuery(filter="auditors"), limit=10)
    assert [one.name for one in found] == ["ada0", "ada1"]


async def test_details_tell_organizations_and_whose_word_the_password_is(accounts: Accounts):
    ada = await accounts.get(await accounts.create_user("ada", "given"))
    bob = await accounts.get(await accounts.create_user("bob", None))
    for name in ("zoo", "acme", "club", "dorm"):
        await accounts.create_organization(name)
        await accounts.organizations.put_member(name, "ada")
    found = await accounts.details([ada, bob])
    assert found[ada.id].organizations == ("acme", "club", "dorm")
    assert (found[ada.id].organizations_count, found[bob.id].organizations_count) == (4, 0)
    assert found[ada.id].created_at <= found[bob.id].created_at
    assert not found[ada.id].password_is_own
    await accounts.set_password("ada", "chosen", by=ada.acting())
    assert (await accounts.details([ada]))[ada.id].password_is_own
    await accounts.set_password("ada", "given again", by=bob.acting())
    assert not (await accounts.details([ada]))[ada.id].password_is_own
    assert await accounts.details([]) == {}
