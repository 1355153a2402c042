"""Search finds what is there and may be seen, the best first, on both databases."""

from __future__ import annotations

import random

import pytest
from tests.support.grants import grant_team

from dtr.accounts import Accounts, Action, Level, Operation, Passwords, TokenScope, may
from dtr.db import Database
from dtr.oci import parse_repository_name
from dtr.registry import Repositories, Search, Settings

PATHS = {
    "acme/web": ("public", "The shop's front"),
    "acme/web-admin": ("public", ""),
    "acme/web2": ("private", ""),
    "acme/tools/web": ("private", "Scripts"),
    "acme/backend": ("private", "Answers what the WEB asks"),
    "web/first": ("public", ""),
    "ada/cobweb": ("private", ""),
    "ada/x": ("private", 'Ärger mit 100%_echtem \\ "Text"'),
    "ada/x1": ("public", ""),
    "ada/py3.11": ("public", ""),
    "bob/secret-web": ("private", ""),
}


@pytest.fixture
def repositories(database: Database) -> Repositories:
    return Repositories(database)


@pytest.fixture
async def accounts(database: Database, repositories: Repositories) -> Accounts:
    accounts = Accounts(database, Passwords(memory_kib=64, passes=1))
    for name in ("ada", "bob", "root", "looker"):
        await accounts.create_user(name, None, is_admin=name == "root", full_name=name.title())
    await accounts.update("looker", is_auditor=True)
    for name in ("acme", "web"):
        await accounts.create_organization(name)
    for path, (visibility, description) in PATHS.items():
        settings = Settings(visibility=visibility, short_description=description)
        await repositories.create(parse_repository_name(path), settings)
    return accounts


@pytest.fixture
def search(database: Database, accounts: Accounts) -> Search:
    return Search(database, accounts)


async def found(
    search: Search,
    accounts: Accounts,
    repositories: Repositories,
    text: str,
    user: str | None = "root",
    *,
    namespace: str | None = None,
    limit: int = 25,
    scope: TokenScope | None = None,
) -> list[str]:
    account = (await accounts.get(user)).id if user else None
    owner = await accounts.get(namespace) if namespace else None
    ids = await search.find_repositories(text, account, scope=scope, namespace=owner, limit=limit)
    paths = {one.id: one.path for one in await repositories.get_many(ids)}
    return [paths[number] for number in ids]


async def test_the_best_come_first(search: Search, accounts: Accounts, repositories: Repositories):
    assert await found(search, accounts, repositories, "web") == [
        "acme/web",  # called so
        "acme/web-admin",  # called so at the beginning
        "acme/web2",
        "web/first",  # in a namespace that is
        "acme/tools/web",  # has it anywhere
        "ada/cobweb",
        "bob/secret-web",
        "acme/backend",  # is described so
    ]
    assert await found(search, accounts, repositories, "web", limit=3) == [
        "acme/web",
        "acme/web-admin",
        "acme/web2",
    ]


FOUND = [
    ("web2", ["acme/web2"]),
    ("x1", ["ada/x1"]),
    ("1", []),
    ("py3.11", ["ada/py3.11"]),
    ("3.1", ["ada/py3.11"]),
    ("x", ["ada/x", "ada/x1"]),
    ("co", ["ada/cobweb"]),
    ("ac", ["acme/backend", "acme/tools/web", "acme/web", "acme/web-admin", "acme/web2"]),
    ("acme/w", ["acme/web", "acme/web-admin", "acme/web2"]),
    ("tools/", ["acme/tools/web"]),
    ("WEB-ADMIN", ["acme/web-admin"]),
    ("  cobweb ", ["ada/cobweb"]),
    ("ärger", ["ada/x"]),
    ("ÄRGER", ["ada/x"]),
    ('"text"', ["ada/x"]),
    ("100%_e", ["ada/x"]),
    ("%%%", []),
    ("___", []),
    ('\\ "', ["ada/x"]),
    ("path : web", []),
    ("web OR x", []),
    ("x*", []),
    ("\x00", []),
    ("nothing", []),
]


async def test_what_is_found(search: Search, accounts: Accounts, repositories: Repositories):
    for text, expected in FOUND:
        assert await found(search, accounts, repositories, text) == expected, text


async def test_nothing_is_every_beginning(search: Search, accounts: Accounts, repositories: Repositories):
    assert sorted(await found(search, accounts, repositories, "")) == sorted(PATHS)


async def test_a_namespace_is_searched_by_itself(search: Search, accounts: Accounts, repositories: Repositories):
    inside = await found(search, accounts, repositories, "web", namespace="acme")
    assert inside == ["acme/web", "acme/web-admin", "acme/web2", "acme/tools/web", "acme/backend"]
    assert await found(search, accounts, repositories, "web", namespace="bob") == ["bob/secret-web"]
    assert await found(search, accounts, repositories, "web", "ada", namespace="bob") == []
    assert await found(search, accounts, repositories, "we", "ada", namespace="acme") == [
        "acme/web",
        "acme/web-admin",
    ]


async def test_nobody_finds_what_is_not_to_be_seen(search: Search, accounts: Accounts, repositories: Repositories):
    """Each query, by each asker, with and without a scope, against the rule for each repository by itself."""
    await accounts.organizations.put_member("acme", "bob")
    await accounts.organizations.create_team("acme", "devs")
    await accounts.organizations.put_team_member("acme", "devs", "bob")
    await grant_team(accounts, "acme/web2", "devs", Level.READ)
    await accounts.grants.set_user(await accounts.grants.on("ada/cobweb"), "bob", Level.READ)
    reads = frozenset({Action.PULL})
    scopes = [None, TokenScope(("acme/*",), reads), TokenScope(("ada/cobweb", "acme/back*"), reads)]
    for user in (None, "ada", "bob", "root", "looker"):
        account = (await accounts.get(user)).id if user else None
        for scope in scopes:
            standings = await accounts.standings.find_all(account, PATHS, scope=scope)
            visible = {path for path, one in standings.items() if may(one.facts, Operation.SEE)}
            for text in ("web", "e", "ac", "acme/", "the", "shop", "answers", "cobweb", ""):
                everything = await found(search, accounts, repositories, text)
                expected = [path for path in everything if path in visible]
                assert await found(search, accounts, repositories, text, user, scope=scope) == expected


async def test_what_changes_is_found_as_it_is_now(search: Search, accounts: Accounts, repositories: Repositories):
    await repositories.update("ada/x", short_description="Verkehr", visibility="public")
    assert await found(search, accounts, repositories, "ärger") == []
    assert await found(search, accounts, repositories, "kehr", None) == ["ada/x"]
    await repositories.update("ada/x", visibility="private")
    assert await found(search, accounts, repositories, "kehr", None) == []
    await repositories.rename("ada/cobweb", parse_repository_name("ada/spider"))
    assert await found(search, accounts, repositories, "cobweb") == []
    assert await found(search, accounts, repositories, "pider") == ["ada/spider"]
    await repositories.delete("ada/spider")
    assert await found(search, accounts, repositories, "pider") == []
    await repositories.create(parse_repository_name("ada/spider"), Settings(visibility="public"))
    assert await found(search, accounts, repositories, "pider", None) == ["ada/spider"]


async def test_a_chance_part_of_every_path_finds_it(
    search: Search, accounts: Accounts, repositories: Repositories
):
    chance = random.Random(5)
    for path in PATHS:
        start = chance.randrange(len(path) - 2)
        part = path[start : start + chance.randrange(3, 8)]
        assert path in await found(search, accounts, repositories, part), part


async def test_accounts_are_found_by_both_names(search: Search, accounts: Accounts):
    await accounts.create_user("bobby", None, full_name="Ada's friend")
    await accounts.create_user("c-bob", None)

    async def names(text: str, limit: int = 25) -> list[str]:
        return [one.name for one in await search.find_accounts(text, limit=limit)]

    assert await names("bob") == ["bob", "bobby", "c-bob"]
    assert await names("bob", 2) == ["bob", "bobby"]
    assert await names("ADA") == ["ada", "bobby"]
    assert await names("%") == []


@pytest.mark.parametrize("user", [None, "ada", "root"])
async def test_a_search_takes_few_queries(database: Database, accounts: Accounts, user: str | None):
    account = (await accounts.get(user)).id if user else None
    asked: list[str] = []
    database.observe = lambda kind, _: asked.append(kind)
    await Search(database, accounts).find_repositories("nothing", account, limit=25)
    assert asked == ["read"] * (5 if user else 4)
