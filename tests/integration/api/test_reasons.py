"""Who can do what on a repository, and why, as the API tells it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from tests.support.api import Api, User

from dtr.accounts import Level
from dtr.app import Application

ACCESS = "/api/v0/repositories/why/app/access"
GRANTS = "/api/v0/repositories/why/app/grants"


@pytest.fixture(scope="module", autouse=True)
def world(api: Api) -> None:
    """
    The organisation why with olga as its owner, and a public and a private repository.

    rea administers the private one and is no member; dan is in devs, which writes it; ron reads it; its robot,
    too.
    """
    api.make_users("olga", "rea", "dan", "ron", "eve", "audrey")
    api.make_organization("why", owners=("olga",), members=("dan",))
    api.make_organization("elsewhere")
    api.make_team("why/devs", "dan")
    api.make_repository("why/app")
    api.make_repository("why/public", visibility="public")
    api.grant("why/devs", "read-write", repository="why/app")

    async def fill(application: Application) -> None:
        accounts = application.accounts
        await accounts.update("audrey", is_auditor=True)
        for organization in ("why", "elsewhere"):
            await accounts.robots.create(await accounts.get(organization), "ci", description="builds")
        for user, level in (("rea", Level.ADMIN), ("ron", Level.READ), ("why+ci", Level.READ)):
            await accounts.grants.set_user(await accounts.grants.on("why/app"), user, level)

    api.server.do(fill)


def people(found: Any) -> list[tuple[str, str, str]]:
    return [
        (
            one["user"]["name"],
            one["accessLevel"],
            ", ".join(f"{why['kind']} on {why['on']} {why['team']}".strip() for why in one["reasons"]),
        )
        for one in found["people"]
    ]


ALL = [
    ("admin", "admin", "administrator on registry"),
    ("olga", "admin", "owner on namespace"),
    ("rea", "admin", "user on repository"),
    ("dan", "read-write", "team on repository devs"),
    ("ron", "read-only", "user on repository"),
    ("why+ci", "read-only", "user on repository"),
    ("audrey", "none", "auditor on registry"),
]


@pytest.mark.parametrize("who", ["admin", "olga", "rea", "audrey"])
def test_all_who_have_access_are_listed_with_their_reasons(api: Api, who: str) -> None:
    answer = api.as_(who).get(ACCESS, pageSize=100, count=True).expect(200)
    assert people(answer.json) == ALL
    assert answer.headers["x-resource-count"] == str(len(ALL))
    assert answer.json["repository"]["name"] == "app"
    rights = {one["user"]["name"]: one for one in answer.json["people"]}
    columns = ("canSee", "canPull", "canPush", "canManage")
    assert [rights["rea"][one] for one in columns] == [True, True, True, True]
    assert [rights["dan"][one] for one in columns] == [True, True, True, False]
    assert [rights["ron"][one] for one in columns] == [True, True, False, False]
    assert [rights["audrey"][one] for one in columns] == [True, False, False, False]


def test_the_list_is_paged_and_searched(api: Api) -> None:
    pages = [people(one) for one in api.as_("rea").pages(ACCESS, 2)]
    assert [len(one) for one in pages] == [2, 2, 2, 1]
    assert [*itertools.chain.from_iterable(pages)] == ALL
    assert people(api.as_("rea").get(ACCESS, contains="R", level="read-only").json) == [ALL[4]]
    assert people(api.as_("rea").get(ACCESS, level="none").json) == [ALL[6]]
    found = api.as_("rea").get(ACCESS, contains="builds", count=True)
    assert people(found.json) == [ALL[5]]
    assert found.headers["x-resource-count"] == "1"


def test_who_is_granted_something_sees_the_own_reasons_and_who_can_give_more(api: Api) -> None:
    told = api.as_("ron").get(f"{ACCESS}/ron").expect(200).json
    assert told["accessLevel"] == "read-only"
    assert [one["kind"] for one in told["reasons"]] == ["user"]
    assert [one["name"] for one in told["managers"]] == ["olga", "rea"]
    assert api.as_("ron").get(f"{ACCESS}/dan").expect(403).codes == ["NOT_AUTHORIZED"]
    assert api.as_("ron").get(ACCESS).expect(403).codes == ["NOT_AUTHORIZED"]
    assert api.as_("ron").get(GRANTS).expect(403).codes == ["NOT_AUTHORIZED"]


def test_who_only_reads_what_is_public_does_not_learn_who_manages_it(api: Api) -> None:
    told = api.as_("eve").get("/api/v0/repositories/why/public/access/eve").expect(200).json
    assert (told["accessLevel"], told["reasons"], told["managers"]) == ("read-only", [], [])
    assert (told["canPull"], told["canPush"]) == (True, False)


@pytest.fixture
def rea(api: Api) -> User:
    return api.as_("rea")


def test_who_administers_it_asks_about_anybody(rea: User) -> None:
    told = rea.get(f"{ACCESS}/eve").expect(200).json
    assert (told["accessLevel"], told["reasons"], told["canSee"]) == ("none", [], False)
    assert [one["name"] for one in told["managers"]] == ["olga", "rea"]
    assert rea.get(f"{ACCESS}/why+ci").expect(200).json["accessLevel"] == "read-only"
    for nobody in ("none", "why", "elsewhere+ci"):
        assert rea.get(f"{ACCESS}/{nobody}").expect(404).codes == ["NO_SUCH_USER"]


def test_grants_are_listed_with_those_on_everything(api: Api, rea: User) -> None:
    api.grant("why/devs", "read-only")
    answer = rea.get(GRANTS, count=True).expect(200)
    assert [(one["kind"], one["name"], one["accessLevel"], one["on"]) for one in answer.json["grants"]] == [
        ("team", "devs", "read-write", "repository"),
        ("team", "devs", "read-only", "namespace"),
        ("user", "rea", "admin", "repository"),
        ("user", "ron", "read-only", "repository"),
        ("robot", "why+ci", "read-only", "repository"),
    ]
    assert answer.headers["x-resource-count"] == "5"
    assert answer.json["grants"][0]["membersCount"] == 1
    counts = ("ownersCount", "administratorsCount", "auditorsCount")
    assert [answer.json[one] for one in counts] == [1, 1, 1]
    assert [len(one["grants"]) for one in rea.pages(GRANTS, 2)] == [2, 2, 1]
    of_namespace = api.as_("dan").get("/api/v0/repositoryNamespaces/why/grants", count=True).expect(200)
    assert (of_namespace.json["grants"], of_namespace.headers["x-resource-count"]) == (
        [answer.json["grants"][1]],
        "1",
    )
    assert [one["name"] for one in rea.get(GRANTS, contains="build").json["grants"]] == ["why+ci"]
