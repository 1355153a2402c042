"""``dtr repo``, ``dtr tag`` and ``dtr search``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.api import Api
from tests.support.client import Client
from tests.support.commands import RemoteCommands
from tests.support.images import make_image, make_index
from tests.support.rooms import GUN


@pytest.fixture(scope="module")
def api(admin: RemoteCommands) -> Api:
    api = Api(admin.server)
    api.make_users("boss", "guest", "friend")
    api.make_organization("wayne", owners=("boss",))
    api.make_team("wayne/devs", "guest")
    return api


@pytest.fixture
def boss(api: Api, logged_in: Callable[[str], RemoteCommands]) -> RemoteCommands:
    return logged_in("boss")


@pytest.fixture
def guest(api: Api, logged_in: Callable[[str], RemoteCommands]) -> RemoteCommands:
    return logged_in("guest")


def test_a_repository_lives_from_creation_to_deletion(boss: RemoteCommands, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Müller\n")
    (made,) = boss.json(
        "repo", "create", "wayne/app", "--public", "--description", "The app", "--readme", str(readme)
    )
    assert (made["visibility"], made["longDescription"]) == ("public", "# Müller\n")
    (changed,) = boss.json("repo", "edit", "wayne/app", "--private", "--immutable-tags", "v*", "--scan-on-push")
    assert (changed["visibility"], changed["immutableTagPatterns"]) == ("private", ["v*"])
    assert changed["shortDescription"] == "The app"
    shown = boss("repo", "show", "wayne/app")
    assert "Immutable:    v*\n" in shown
    (changed,) = boss.json("repo", "edit", "wayne/app", "--immutable-tags", "", "--tag-limit", "5")
    assert (changed["immutableTagPatterns"], changed["tagLimit"]) == ([], 5)
    assert ["wayne/app", "private", "0", "0", "", "The app"] in boss.rows("repo", "list", "wayne")
    boss("repo", "rename", "wayne/app", "wayne/app/renamed")
    assert boss("repo", "list", "wayne", "-q") == "wayne/app/renamed\n"
    boss("repo", "delete", "wayne/app/renamed", "--yes")
    assert boss("repo", "list", "wayne") == ""


def test_what_cannot_be_is_told(boss: RemoteCommands, guest: RemoteCommands) -> None:
    boss("repo", "create", "wayne/secret")
    missing = "there is no repository wayne/secret, or you may not see it"
    assert guest.fail("repo", "show", "wayne/secret") == missing
    assert guest.fail("repo", "delete", "wayne/secret", "--yes") == missing
    assert "guest may not do that" in guest.fail("repo", "create", "wayne/mine")
    assert boss.fail("repo", "create", "wayne/secret") == "there is a repository wayne/secret already"
    assert "cannot" in boss.fail("repo", "edit", "wayne/secret", "--immutable", "--tag-limit", "3")
    assert "nothing to change" in boss.fail("repo", "edit", "wayne/secret")
    assert boss.run("repo", "show", "secret").exit_code == 2
    assert "is no repository" in boss.fail("repo", "delete", "../accounts/wayne", "--yes")
    assert boss("repo", "list", "wayne", "-q") == "wayne/secret\n"
    boss("repo", "delete", "wayne/secret", "--yes")


def test_deleting_names_what_goes(boss: RemoteCommands, api: Api) -> None:
    api.make_repository("boss/full")
    image = make_image()
    client = Client(api.server, "boss")
    for tag in ("1", "2"):
        client.push("boss/full", image, tag)
    assert "delete boss/full with 2 tags:" in boss.fail("repo", "delete", "boss/full")


def test_grants_are_given_listed_and_taken(boss: RemoteCommands, guest: RemoteCommands, api: Api) -> None:
    boss("repo", "create", "wayne/granted")
    boss("repo", "grant", "wayne/granted", "wayne/devs", "read-only")
    boss("repo", "grant", "wayne/granted", "friend", "admin")
    boss("repo", "grant", "wayne", "friend", "read-write")
    boss("team", "grant", "wayne/devs", "wayne", "read-only")
    assert boss.rows("repo", "access", "wayne/granted") == [
        ["wayne/devs", "team", "read-only"], ["friend", "user", "admin"],
    ]  # fmt: skip
    assert boss.rows("repo", "access", "wayne") == [
        ["wayne/devs", "team", "read-only"], ["friend", "user", "read-write"],
    ]  # fmt: skip
    assert boss.rows("team", "access", "wayne/devs") == [["wayne/granted", "read-only"]]
    assert boss("repo", "access", "wayne", "-q") == "wayne/devs\nfriend\n"
    assert [sorted(one) for one in boss.json("repo", "access", "wayne/granted")] == [
        ["accessLevel", "team"], ["accessLevel", "user"],
    ]  # fmt: skip
    assert "wayne/granted" in guest("repo", "list", "-q").splitlines()
    boss("repo", "revoke", "wayne/granted", "wayne/devs")
    boss("repo", "revoke", "wayne", "wayne/devs")
    assert "wayne/granted" not in guest("repo", "list", "-q").splitlines()
    assert "in other only" in boss.fail("repo", "grant", "wayne/granted", "other/devs", "admin")
    boss("repo", "delete", "wayne/granted", "--yes")


def test_tags_are_listed_shown_and_deleted(boss: RemoteCommands, api: Api) -> None:
    api.make_repository("boss/tagged")
    client = Client(api.server, "boss")
    image, index = make_image(), make_index(make_image(), make_image())
    for tag in ("1.0", "1.1", "2.0"):
        client.push("boss/tagged", image, tag)
    client.push("boss/tagged", index, "all")
    rows = boss.rows("tag", "list", "boss/tagged")
    assert [row[0] for row in rows] == ["1.0", "1.1", "2.0", "all"]
    assert {row[5] for row in rows} == {"boss"}
    assert rows[0][2] == image.digest[:19]
    (shown,) = boss.json("tag", "show", "boss/tagged", "1.0")
    assert shown["manifest"]["digest"] == image.digest
    assert len(boss.json("tag", "show", "boss/tagged", "all")) == 2
    assert boss("tag", "show", "boss/tagged", "all").count("Digest:") == 2
    boss("tag", "delete", "boss/tagged", "1.0", "--yes")
    said = boss.fail("tag", "delete", "boss/tagged", "1.1", "9", "2.0", "--yes")
    assert said == "boss/tagged has no tag 9; the others are deleted"
    assert boss("tag", "list", "boss/tagged", "-q") == "all\n"
    assert boss.fail("tag", "delete", "boss/tagged", "9", "--yes") == "boss/tagged has no tag 9"
    assert boss.fail("tag", "show", "boss/tagged", "9") == "boss/tagged has no tag or digest 9"


def test_what_content_trust_has_is_shown_forgotten_and_deleted(boss: RemoteCommands, api: Api) -> None:
    api.make_repository("boss/signed")
    client = Client(api.server, "boss")
    image = make_image()
    for tag in ("1.0", "2.0", "3.0", "4.0"):
        client.push("boss/signed", image, tag)
    for role in ("targets/bob", "targets/alice", "targets/releases"):
        api.sign("boss/signed", "1.0", image.digest, role=role)
    api.sign("boss/signed", "2.0", image.digest)
    api.sign("boss/signed", "3.0", make_image().digest)
    rows = boss.rows("tag", "list", "boss/signed")
    assert [row[7] for row in rows] == ["alice, bob", "yes", "for another image", ""]
    assert "Signed:     alice, bob\n" in boss("tag", "show", "boss/signed", "1.0")
    said = boss.fail("tag", "delete", "boss/signed", "1.0", "--yes")
    assert said.startswith("boss/signed:1.0 is signed in content trust")
    assert "dtr trust forget boss/signed 1.0" in said
    said = boss.fail("tag", "delete", "boss/signed", "1.0", "2.0", "4.0", "9", "--yes")
    assert said == "boss/signed has no tag 9; signed in content trust: 1.0, 2.0; the others are deleted"
    assert "dtr trust delete boss/signed" in boss.fail("repo", "delete", "boss/signed", "--yes")
    boss("trust", "forget", "boss/signed", "2.0", "--yes")
    assert boss.fail("trust", "forget", "boss/signed", "2.0", "--yes") == (
        "content trust has no tag 2.0 of boss/signed"
    )
    boss("tag", "delete", "boss/signed", "2.0", "--yes")
    roles = {row[1]: row[5:] for row in boss.rows("trust", "list", "boss/signed")}
    assert roles["targets"] == ["2", "1"]
    assert roles["targets/alice"] == ["1", "0"]
    assert [one["gun"] for one in boss.json("trust", "list", "boss/signed")] == [GUN]
    boss("trust", "delete", "boss/signed", "--domain", "other.example.org", "--yes")
    assert boss.rows("trust", "list", "boss/signed")
    boss("trust", "delete", "boss/signed", "--yes")
    assert boss.rows("trust", "list", "boss/signed") == []
    boss("repo", "delete", "boss/signed", "--yes")


def test_what_is_visible_is_found(boss: RemoteCommands, guest: RemoteCommands, api: Api) -> None:
    api.make_repository("boss/needle", short_description="A private one")
    api.make_repository("boss/needles", visibility="public", short_description="A public one")
    assert boss.rows("search", "needle") == [
        ["boss/needle", "repository", "A private one"], ["boss/needles", "repository", "A public one"],
    ]  # fmt: skip
    assert guest("search", "needle", "-q") == "boss/needles\n"
    assert ["boss", "user", ""] in guest.rows("search", "boss")


def complete(commands: RemoteCommands, *words: str) -> list[str]:
    """What bash is given for the last of the words."""
    result = commands.run(
        _DTR_COMPLETE="bash_complete", COMP_WORDS=" ".join(("dtr", *words)), COMP_CWORD=str(len(words))
    )
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_a_shell_completes_commands_repositories_and_tags(boss: RemoteCommands, api: Api) -> None:
    api.make_repository("boss/complete")
    api.make_repository("boss/completely")
    client = Client(api.server, "boss")
    for tag in ("10", "11", "20"):
        client.push("boss/complete", make_image(), tag)
    assert complete(boss, "rep") == ["repo", "repository"]
    assert sorted(complete(boss, "repo", "show", "boss/compl")) == ["boss/complete", "boss/completely"]
    assert sorted(complete(boss, "tag", "delete", "boss/complete", "1")) == ["10", "11"]


def test_a_shell_is_shown_no_failure(tmp_path: Path, api: Api) -> None:
    assert complete(RemoteCommands(api.server, tmp_path), "repo", "show", "x") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_told_how(boss: RemoteCommands, shell: str) -> None:
    assert "_DTR_COMPLETE" in boss("completion", shell)
