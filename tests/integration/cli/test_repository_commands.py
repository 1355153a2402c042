"""``dtr repository`` against real data, on both databases."""

from __future__ import annotations

import pytest
from tests.support.commands import Commands

from dtr.accounts import Level


@pytest.fixture(autouse=True)
def accounts(dtr: Commands) -> None:
    dtr.server.make_user("ann")
    dtr.server.make_organization("acme")


def test_a_repository_is_private_unless_told_otherwise(dtr: Commands) -> None:
    dtr("repository", "create", "ann/app")
    dtr("repository", "create", "ann/deep/er/path", "--public", "--description", "For all")
    dtr("repository", "create", "acme/fixed", "--immutable")
    dtr("repository", "create", "acme/short", "--tag-limit", "3")
    assert dtr("repository", "list") == (
        "acme/fixed\tprivate,immutable\t\n"
        "acme/short\tprivate,tag-limit=3\t\n"
        "ann/app\tprivate\t\n"
        "ann/deep/er/path\tpublic\tFor all\n"
    )


def test_update_changes_what_is_given_and_nothing_else(dtr: Commands) -> None:
    dtr("repository", "create", "ann/app", "--description", "First")
    dtr("repository", "update", "ann/app", "--visibility", "public")
    assert dtr("repository", "list") == "ann/app\tpublic\tFirst\n"
    dtr("repository", "update", "ann/app", "--immutable", "--description", "Second")
    assert dtr("repository", "list") == "ann/app\tpublic,immutable\tSecond\n"
    dtr("repository", "update", "ann/app", "--mutable", "--tag-limit", "5")
    assert dtr("repository", "list") == "ann/app\tpublic,tag-limit=5\tSecond\n"
    dtr("repository", "update", "ann/app", "--tag-limit", "0", "--description", "", "--visibility", "private")
    assert dtr("repository", "list") == "ann/app\tprivate\t\n"


def test_settings_that_do_not_go_together_are_refused(dtr: Commands) -> None:
    assert "tag limit" in dtr.fail("repository", "create", "ann/app", "--immutable", "--tag-limit", "2")
    assert "tag limit" in dtr.fail("repository", "create", "ann/app", "--tag-limit", "-1")
    assert dtr("repository", "list") == ""


@pytest.mark.parametrize("name", ["app", "ann/App", "ann//app", "../app", f"ann/{'a' * 300}"])
def test_a_wrong_name_is_refused(dtr: Commands, name: str) -> None:
    dtr.fail("repository", "create", name)
    assert dtr("repository", "list") == ""


def test_a_namespace_has_to_be_there(dtr: Commands) -> None:
    assert dtr.fail("repository", "create", "nobody/app") == "there is no user or organisation nobody"


def test_a_name_is_taken_until_the_repository_is_deleted(dtr: Commands) -> None:
    dtr("repository", "create", "ann/app")
    assert dtr.fail("repository", "create", "ann/app") == "repository ann/app exists"
    dtr("repository", "delete", "ann/app")
    assert dtr("repository", "list") == ""
    dtr("repository", "create", "ann/app", "--public")
    assert dtr("repository", "list") == "ann/app\tpublic\t\n"


def test_an_unknown_repository_is_named(dtr: Commands) -> None:
    assert dtr.fail("repository", "delete", "ann/no") == "repository ann/no is not known"
    assert dtr.fail("repository", "update", "ann/no", "--mutable") == "repository ann/no is not known"
    dtr("account", "team", "acme", "dev")
    assert "acme/no" in dtr.fail("repository", "grant", "acme/no", "acme/dev", "admin")


@pytest.mark.parametrize("target", ["acme/app", "acme"])
@pytest.mark.parametrize(
    ("name", "expected"), [("read-only", Level.READ), ("read-write", Level.WRITE), ("admin", Level.ADMIN)]
)
def test_a_grant_gives_the_team_its_level_and_none_takes_it(
    dtr: Commands, target: str, name: str, expected: Level
) -> None:
    dtr("repository", "create", "acme/app")
    dtr("account", "team", "acme", "dev", "ann")
    dtr("repository", "grant", target, "acme/dev", name)
    assert dtr.level("ann", "acme/app") is expected
    dtr("repository", "grant", target, "acme/dev", "none")
    assert dtr.level("ann", "acme/app") is Level.NONE


def test_a_team_is_granted_only_what_its_organization_owns(dtr: Commands) -> None:
    dtr.server.make_organization("other")
    dtr("repository", "create", "acme/app")
    dtr("account", "team", "other", "dev", "ann")
    assert "belong" in dtr.fail("repository", "grant", "acme/app", "other/dev", "admin")
    assert "belong" in dtr.fail("repository", "grant", "acme", "other/dev", "admin")
    assert dtr.fail("repository", "grant", "acme/app", "acme", "admin") == "there is no account acme"
    assert dtr.fail("repository", "grant", "ann", "ann/dev", "admin") == "ann is not owned by an organization"
    assert dtr.fail("repository", "grant", "acme/app", "acme/no", "admin") == "acme has no team no"
    assert dtr.level("ann", "acme/app") is Level.NONE


@pytest.mark.parametrize("target", ["acme/app", "acme", "bob/app", "bob"])
def test_a_grant_gives_a_user_a_level_and_none_takes_it(dtr: Commands, target: str) -> None:
    dtr.server.make_user("bob")
    owner = target.partition("/")[0]
    dtr("repository", "create", f"{owner}/app")
    dtr("repository", "grant", target, "ann", "read-write")
    assert dtr.level("ann", f"{owner}/app") is Level.WRITE
    dtr("repository", "grant", target, "ann", "none")
    assert dtr.level("ann", f"{owner}/app") is Level.NONE
    assert dtr.fail("repository", "grant", target, "nobody", "admin") == "there is no account nobody"


def test_an_unknown_level_is_wrong_usage(dtr: Commands) -> None:
    result = dtr.run("repository", "grant", "acme/app", "acme/dev", "owner")
    assert result.exit_code == 2
    assert "read-only" in result.stderr
    assert "Traceback" not in result.stderr
