"""Stored remotes on both databases: secrets are sealed, and stay with their host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.support.rooms import Rooms

from dtr.accounts import Accounts, AccountUnknown, Passwords
from dtr.db import ConstraintViolated
from dtr.events import Actor
from dtr.remotes import (
    Definition,
    DefinitionInUse,
    DefinitionInvalid,
    Definitions,
    DefinitionTaken,
    DefinitionUnknown,
    add,
    drop,
    replace_with,
)
from dtr.storage import Memory
from dtr.vault import Vault, VaultError

ADA = Actor("user", "id of ada", "ada")
PASSWORD, TOKEN = "the password of the bot", "the token of the bot"
HUB = Definition(name="hub", host="https://registry.example:5000", username="bot")


@pytest.fixture
async def rooms(database_url: str) -> AsyncIterator[Rooms]:
    made = Rooms(database_url, Memory)
    yield made
    await made.close()


@pytest.fixture
def definitions(rooms: Rooms, tmp_path: Path) -> Definitions:
    return Definitions(rooms.database, Vault(tmp_path / "secret.key"))


async def test_a_remote_is_kept_and_opened(rooms: Rooms, definitions: Definitions, tmp_path: Path):
    made = await definitions.create(HUB, password=PASSWORD, token=TOKEN, by=ADA)
    assert (made.name, made.has_password, made.has_token, made.namespace) == ("hub", True, True, "")
    assert made == await definitions.get(made.id)
    remote = await definitions.remote(made.id, "acme/app")
    assert (remote.full_name, remote.username) == ("registry.example:5000/acme/app", "bot")
    assert (remote.password, remote.token) == (PASSWORD, TOKEN)
    (row,) = await rooms.query("SELECT * FROM remotes")
    events = await rooms.query("SELECT * FROM events")
    assert not any(secret in str(text) for secret in (PASSWORD, TOKEN) for text in (row, events, made, remote))
    other = Definitions(rooms.database, Vault(tmp_path / "other.key"))
    with pytest.raises(VaultError):
        await other.remote(made.id, "acme/app")
    # What is sealed for one remote is good for no other.
    another = await definitions.create(replace(HUB, name="other"), password="x")
    await rooms.change(
        "UPDATE remotes SET password = (SELECT password FROM remotes WHERE name = 'hub') WHERE name = 'other'"
    )
    with pytest.raises(VaultError):
        await definitions.remote(another.id, "acme/app")


async def test_a_remote_is_changed(definitions: Definitions):
    made = await definitions.create(HUB, password=PASSWORD)
    changed = await definitions.change(replace(made, name="Hub 2", skip_tls_verification=True))
    assert (changed.name, changed.skip_tls_verification, changed.has_password) == ("Hub 2", True, True)
    assert (await definitions.remote(made.id, "a/b")).password == PASSWORD
    await definitions.change(changed, password="", token=TOKEN)
    remote = await definitions.remote(made.id, "a/b")
    assert (remote.password, remote.token) == ("", TOKEN)
    with pytest.raises(DefinitionUnknown):
        await definitions.change(replace(made, id="nothing"))


async def test_secrets_do_not_go_to_another_host(definitions: Definitions):
    """Whoever may change a remote may not know its secrets."""
    elsewhere = ["https://evil.example", "http://registry.example:5000", "registry.example"]
    for name, given in (("a", {"password": PASSWORD}), ("b", {"token": TOKEN})):
        made = await definitions.create(replace(HUB, name=name), **given)
        for host in elsewhere:
            with pytest.raises(DefinitionInvalid, match="have to be given again"):
                await definitions.change(replace(made, host=host))
        assert (await definitions.get(made.id)).host == HUB.host
        again = dict.fromkeys(given, "another")
        assert (await definitions.change(replace(made, host=elsewhere[0]), **again)).host == elsewhere[0]
    bare = await definitions.create(replace(HUB, name="c", host=f"{HUB.host}/"))
    await definitions.change(replace(bare, host=elsewhere[0]))


async def test_what_is_no_remote(definitions: Definitions):
    made = await definitions.create(HUB)
    for wrong in (
        {"name": ""}, {"name": " x"}, {"name": "x" * 101}, {"host": "no host"}, {"username": "a:b"}, {"ca": "x"},
    ):  # fmt: skip
        with pytest.raises(DefinitionInvalid):
            await definitions.create(replace(HUB, **wrong))
        with pytest.raises(DefinitionInvalid):
            await definitions.change(replace(made, **wrong))


async def test_names_are_unique_in_their_place(rooms: Rooms, definitions: Definitions):
    accounts = Accounts(rooms.database, Passwords(memory_kib=8, passes=1))
    acme = await accounts.create_organization("acme-inc")
    names = ["b", "a", "c"]
    for name in names:
        await definitions.create(replace(HUB, name=name))
        await definitions.create(replace(HUB, name=name, namespace_id=acme))
    for place in (None, acme):
        with pytest.raises(DefinitionTaken):
            await definitions.create(replace(HUB, name="a", namespace_id=place))
        found = await definitions.list_definitions(place, limit=10)
        assert [one.name for one in found] == ["a", "b", "c"]
        assert {one.namespace for one in found} == {"" if place is None else "acme-inc"}
        assert [one.name for one in await definitions.list_definitions(place, start="b", limit=1)] == ["b"]
        assert await definitions.count(place) == 3
        with pytest.raises(DefinitionTaken):
            await definitions.change(replace(found[0], name="b"))
    await accounts.delete("acme-inc")
    assert await definitions.count(acme) == 0
    assert await definitions.count(None) == 3
    with pytest.raises(AccountUnknown):
        await accounts.get("acme-inc")


async def test_a_remote_in_use_stays(rooms: Rooms, definitions: Definitions):
    made = await definitions.create(HUB)
    repository = await rooms.make_repository("acme/cached")
    await rooms.change(
        "INSERT INTO upstreams (id, repository_id, remote_id, remote_path, tag_patterns, visibility, max_age,"
        " created_at) VALUES ('u', :repository, :remote, 'a/b', '[]', 'private', 0, 0)",
        repository=repository,
        remote=made.id,
    )
    with pytest.raises(DefinitionInUse):
        await definitions.delete(made.id)
    await rooms.repositories.delete("acme/cached")  # its content is collected later
    await definitions.delete(made.id, by=ADA)
    assert await rooms.query("SELECT id FROM upstreams") == []
    with pytest.raises(DefinitionUnknown):
        await definitions.delete(made.id)


async def test_the_remote_of_a_single_policy(rooms: Rooms, definitions: Definitions):
    """It is written with the policy, is in no list, and goes with the policy or its repository."""
    number = await rooms.make_repository("acme/app")
    single = Definition(repository_id=number, host="registry.example", username="bot")
    made = await definitions.prepare(single, password=PASSWORD)
    await rooms.database.unit(lambda tx: add(tx, made))
    assert (await definitions.remote(made.id, "a/b")).password == PASSWORD
    assert await definitions.list_definitions(None, limit=10) == []
    moved = await definitions.prepare(replace(await definitions.get(made.id), host="evil.example"))
    with pytest.raises(DefinitionInvalid):
        await rooms.database.unit(lambda tx: replace_with(tx, moved))
    shared = await definitions.create(HUB)
    await rooms.database.unit(lambda tx: drop(tx, shared.id))  # that is no single policy's
    await rooms.database.unit(lambda tx: drop(tx, made.id))
    assert await rooms.query("SELECT name FROM remotes") == [("hub",)]
    lost = await definitions.prepare(Definition(host="registry.example"))
    with pytest.raises(ConstraintViolated):  # whose would it be?
        await rooms.database.unit(lambda tx: add(tx, lost))
    await rooms.database.unit(lambda tx: add(tx, made))
    await rooms.change("DELETE FROM repositories WHERE id = :id", id=number)
    assert await rooms.query("SELECT name FROM remotes") == [("hub",)]
