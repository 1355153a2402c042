"""``dtr user``, ``dtr org`` and ``dtr team``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.support.api import Api
from tests.support.commands import RemoteCommands
from tests.support.server import PASSWORD

NEW = "another password"


@pytest.fixture(scope="module")
def api(admin: RemoteCommands) -> Api:
    api = Api(admin.server)
    api.make_users("owner", "plain")
    api.make_organization("globex", owners=("owner",))
    return api


@pytest.fixture
def owner(api: Api, logged_in: Callable[[str], RemoteCommands]) -> RemoteCommands:
    return logged_in("owner")


def lets_in(api: Api, user: str, password: str) -> bool:
    return api.as_(user, password).get("/api/v0/accounts/language").status == 200


def test_a_user_lives_from_creation_to_deletion(admin: RemoteCommands, api: Api) -> None:
    admin("user", "create", "eve", "--full-name", "Eve E", "--auditor", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert admin.rows("user", "list", "--contains", "eve e") == [["eve", "Eve E", "auditor", "yes"]]
    assert lets_in(api, "eve", PASSWORD)
    (changed,) = admin.json("user", "edit", "eve", "--no-auditor", "--inactive", "--full-name", "E")
    assert (changed["isAuditor"], changed["isActive"], changed["fullName"]) == (False, False, "E")
    assert "eve" in admin("user", "list", "--inactive", "-q").splitlines()
    (shown,) = admin.json("user", "show", "eve")
    assert shown["name"] == "eve"
    admin("user", "delete", "eve", "--yes")
    assert admin.fail("user", "show", "eve") == "there is no user eve"


def test_a_user_is_shown_for_people(admin: RemoteCommands, api: Api) -> None:
    shown = dict(line.split(":", 1) for line in admin("user", "show", "admin").splitlines())
    assert {title: value.strip() for title, value in shown.items() if title != "Id"} == {
        "User": "admin", "Full name": "Administrator", "Role": "admin", "Active": "yes", "From a directory": "no",
    }  # fmt: skip


def test_a_password_is_changed_by_an_administrator_and_by_oneself(
    admin: RemoteCommands, api: Api, logged_in: Callable[[str], RemoteCommands]
) -> None:
    api.make_users("zoe")
    zoe = logged_in("zoe")
    assert (
        "old password" in zoe.fail("user", "password", "zoe", "--password-stdin", stdin=f"wrong\n{NEW}\n").lower()
    )
    zoe("user", "password", "zoe", "--password-stdin", stdin=f"{PASSWORD}\n{NEW}\n")
    assert lets_in(api, "zoe", NEW)
    assert not lets_in(api, "zoe", PASSWORD)
    admin("user", "password", "zoe", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert lets_in(api, "zoe", PASSWORD)
    assert zoe.rows("token", "list")  # the command stays logged in


def test_lists_go_through_all_pages(admin: RemoteCommands, api: Api) -> None:
    api.make_users(*(f"many{number:03}" for number in range(30)))
    names = admin("user", "list", "-q", "--contains", "many").splitlines()
    assert names == [f"many{number:03}" for number in range(30)]
    assert admin("user", "list", "-q", "--contains", "many", "--limit", "7").splitlines() == names[:7]
    assert [one["name"] for one in admin.json("user", "list", "--contains", "many")] == names


def test_a_user_is_no_organization_and_the_other_way(admin: RemoteCommands, api: Api) -> None:
    assert admin.fail("user", "show", "globex") == "globex is an organization, not a user"
    assert admin.fail("org", "show", "plain") == "plain is a user, not an organization"
    assert admin.fail("user", "delete", "globex", "--yes") == "globex is an organization, not a user"


def test_an_organization_lives_from_creation_to_deletion(admin: RemoteCommands, api: Api) -> None:
    admin("org", "create", "initech", "--full-name", "Initech")
    admin("org", "add", "initech", "owner", "--owner")
    admin("org", "add", "initech", "plain")
    assert sorted(admin.rows("org", "members", "initech")) == [["owner", "", "owner"], ["plain", "", "member"]]
    admin("org", "add", "initech", "owner")  # who is there stays what it is
    admin("org", "remove", "initech", "plain")
    assert admin("org", "members", "initech", "-q") == "owner\n"
    admin("org", "edit", "initech", "--full-name", "Initech Inc")
    assert ["initech", "Initech Inc", "1", "0"] in admin.rows("org", "list")
    admin("org", "delete", "initech", "--yes")
    assert admin.fail("org", "show", "initech") == "there is no organization initech"


def test_an_account_goes_with_its_repositories_when_that_is_said(admin: RemoteCommands, api: Api) -> None:
    admin("org", "create", "hooli")
    api.make_repository("hooli/app")
    assert admin.fail("org", "delete", "hooli", "--yes") == (
        "hooli has repositories: delete them first, or all together with --repositories"
    )
    admin("org", "delete", "hooli", "--repositories", "--yes")
    assert "hooli" not in admin("org", "list", "-q").splitlines()


def test_a_team_lives_from_creation_to_deletion(owner: RemoteCommands, api: Api) -> None:
    owner("team", "create", "globex/devs", "--description", "who write")
    owner("team", "add", "globex/devs", "plain", "owner")
    owner("team", "add", "globex/devs", "plain", "--admin")
    assert sorted(owner.rows("team", "members", "globex/devs")) == [
        ["owner", "", "member"],
        ["plain", "", "team admin"],
    ]
    owner("team", "remove", "globex/devs", "owner")
    (changed,) = owner.json("team", "edit", "globex/devs", "--name", "writers")
    assert (changed["name"], changed["description"], changed["membersCount"]) == ("writers", "who write", 1)
    assert owner.rows("team", "list", "globex") == [["writers", "1", "who write"]]
    assert owner.json("team", "show", "globex/writers")[0]["name"] == "writers"
    owner("team", "delete", "globex/writers", "--yes")
    assert owner("team", "list", "globex") == ""


def test_what_is_not_there_is_told(owner: RemoteCommands, api: Api) -> None:
    assert owner.fail("team", "show", "globex/nothing") == "globex has no team nothing"
    assert owner.fail("org", "members", "nothing") == "there is no account nothing"
    assert owner.run("team", "show", "globex").exit_code == 2
    assert "nothing to change" in owner.fail("user", "edit", "plain")
    assert "nothing to change" in owner.fail("team", "edit", "globex/devs")


def test_what_one_may_not_do_is_told(
    api: Api, logged_in: Callable[[str], RemoteCommands], admin: RemoteCommands
) -> None:
    said = logged_in("plain").fail("org", "create", "mine")
    assert said == f"plain may not do that on {admin.server.address}: it needs more rights"
    assert "make another one first" in admin.fail("user", "delete", "admin", "--yes")
