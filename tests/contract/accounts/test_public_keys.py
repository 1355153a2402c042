"""Public keys of accounts, on both databases."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select
from tests.support.keys import KeyPair

import dtr.accounts.public_keys as module
from dtr.accounts import Accounts, AccountUnknown, Certificate, PublicKeyInvalid, PublicKeyTaken, PublicKeyUnknown
from dtr.db import Database, Statement
from dtr.db.schema import events, public_keys
from dtr.events import Actor

EVE = Actor("user", "id-of-eve", "eve", "192.0.2.1")
EVENTS = Statement(
    select(events.c.type, events.c.object_id, events.c.object_name, events.c.target_name)
    .where(events.c.object_type == "public_key", events.c.actor_name == "eve")
    .order_by(events.c.id)
)
ROWS = Statement(select(public_keys.c.id))
KEY, OTHER = KeyPair(), KeyPair()


@pytest.fixture
async def ada(accounts: Accounts) -> Accounts:
    await accounts.create_user("ada", None)
    await accounts.create_organization("org")
    return accounts


async def test_a_key_is_known_by_the_hash_of_its_der_form(ada: Accounts):
    made = await ada.public_keys.create("ada", f"\n{KEY.pem.strip()}\n\n", label="laptop")
    assert (made.id, made.public_key, made.label, made.certificates) == (KEY.id, KEY.pem, "laptop", ())
    assert made.account_id == (await ada.get("ada")).id
    assert await ada.public_keys.get("ada", KEY.id) == made
    assert await ada.public_keys.list_keys("ada", limit=10) == [made]


async def test_certificates_are_kept_with_their_key(ada: Accounts):
    cert = Certificate("bundle", KEY.certificate())
    chain = Certificate("chain", KEY.certificate() + OTHER.certificate())
    made = await ada.public_keys.create("org", KEY.pem, certificates=[cert, chain])
    assert made.certificates == (cert, chain)
    assert await ada.public_keys.get("org", KEY.id) == made
    changed = await ada.public_keys.update("org", KEY.id, label="new")
    assert (changed.label, changed.certificates) == ("new", (cert, chain))
    changed = await ada.public_keys.update("org", KEY.id, certificates=[cert])
    assert (changed.label, changed.certificates) == ("new", (cert,))
    assert await ada.public_keys.get("org", KEY.id) == changed


async def test_there_are_not_too_many(ada: Accounts, monkeypatch: pytest.MonkeyPatch):
    """Everybody may list them."""
    monkeypatch.setattr(module, "_MOST_KEYS", 1)
    await ada.public_keys.create("ada", KEY.pem)
    with pytest.raises(PublicKeyInvalid, match="at most 1 keys"):
        await ada.public_keys.create("ada", OTHER.pem)
    assert [one.id for one in await ada.public_keys.list_keys("ada", limit=10)] == [KEY.id]
    long = KEY.certificate() * 15
    with pytest.raises(PublicKeyInvalid, match="together"):
        await ada.public_keys.update("ada", KEY.id, certificates=[Certificate("", long)] * 10)


async def test_what_two_change_of_a_key_at_once_is_both_changed(ada: Accounts):
    await ada.public_keys.create("ada", KEY.pem)
    cert = Certificate("bundle", KEY.certificate())
    await asyncio.gather(
        ada.public_keys.update("ada", KEY.id, label="laptop"),
        ada.public_keys.update("ada", KEY.id, certificates=[cert]),
    )
    found = await ada.public_keys.get("ada", KEY.id)
    assert (found.label, found.certificates) == ("laptop", (cert,))


async def test_what_is_no_key_or_not_its_certificate_is_refused(ada: Accounts):
    private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    for text in ("", "x", private, KEY.pem[:-40], KEY.certificate(), "ä", "\ud800", "\0", KEY.pem + "x" * 20_000):
        with pytest.raises(PublicKeyInvalid):
            await ada.public_keys.create("ada", text)
    good = KEY.certificate()
    for text in ("", "x", KEY.pem, OTHER.certificate(), good[:-60], good + "x" * 20_000):
        with pytest.raises(PublicKeyInvalid):
            await ada.public_keys.create("ada", KEY.pem, certificates=[Certificate("", text)])
    for how in (
        {"label": "x" * 1_001},
        {"certificates": [Certificate("x" * 1_001, good)]},
        {"certificates": [Certificate("", good)] * 21},
    ):
        with pytest.raises(PublicKeyInvalid):
            await ada.public_keys.create("ada", KEY.pem, **how)
    assert await ada.public_keys.list_keys("ada", limit=10) == []


async def test_keys_are_listed_by_id_in_pages(ada: Accounts):
    keys = sorted([KeyPair() for _ in range(4)], key=lambda one: one.id)
    for key in keys:
        await ada.public_keys.create("ada", key.pem)
    await ada.public_keys.create("org", KEY.pem)
    for place, key in enumerate(keys):
        page = await ada.public_keys.list_keys("ada", start=key.id, limit=2)
        assert [one.id for one in page] == [one.id for one in keys[place : place + 2]]


async def test_an_account_has_a_key_once_and_two_accounts_may_have_the_same(ada: Accounts):
    await ada.public_keys.create("ada", KEY.pem)
    with pytest.raises(PublicKeyTaken):
        await ada.public_keys.create("ada", KEY.pem)
    await ada.public_keys.create("org", KEY.pem)


async def test_a_key_that_is_gone_or_of_another_account_is_unknown(ada: Accounts):
    await ada.public_keys.create("org", KEY.pem)
    for account in ("ada", "org"):
        if account == "org":
            await ada.public_keys.delete("org", KEY.id)
        for attempt in (
            ada.public_keys.get(account, KEY.id),
            ada.public_keys.update(account, KEY.id, label="x"),
            ada.public_keys.delete(account, KEY.id),
            ada.public_keys.get(account, "\ud800"),
        ):
            with pytest.raises(PublicKeyUnknown):
                await attempt
    with pytest.raises(AccountUnknown):
        await ada.public_keys.create("nobody", KEY.pem)


async def test_keys_go_with_their_account(ada: Accounts, database: Database):
    await ada.public_keys.create("ada", KEY.pem)
    await ada.delete("ada")
    assert await database.fetch_all(ROWS) == []


async def test_every_change_is_written_down(ada: Accounts, database: Database):
    await ada.public_keys.create("ada", KEY.pem, label="laptop", by=EVE)
    await ada.public_keys.update("ada", KEY.id, label="laptop", by=EVE)  # changes nothing
    await ada.public_keys.update("ada", KEY.id, label="desk", by=EVE)
    await ada.public_keys.delete("ada", KEY.id, by=EVE)
    assert [tuple(row) for row in await database.fetch_all(EVENTS)] == [
        ("CREATE", KEY.id, "laptop", "ada"),
        ("UPDATE", KEY.id, "desk", "ada"),
        ("DELETE", KEY.id, "desk", "ada"),
    ]
