"""``dtr account import --from-dtr``: a second dtr acts as the old one."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.api import Api
from tests.support.commands import Commands, RemoteCommands
from tests.support.ports import free_port
from tests.support.server import PASSWORD, Server

from dtr.accounts import Level


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry with users, an organisation, teams, repositories and grants of every kind."""
    directory = tmp_path_factory.mktemp("old")
    server = Server(directory / "dtr").start()
    api = Api(server)
    api.make_users("ann", "bob", "carl")
    api.make_organization("acme", owners=("ann",), members=("carl",))
    api.make_team("acme/devs", "bob")
    api.make_team("acme/ops")
    for number in range(3):
        api.make_repository(f"acme/app{number}", visibility="public", short_description="An app", tag_limit=7)
    api.make_repository("acme/deep/er", long_description="# Deeper\n\nText", immutable_tags=True)
    api.make_repository("ann/own")
    api.grant("acme/devs", "read-write", repository="acme/deep/er")
    api.grant("acme/ops", "read-only")
    admin = RemoteCommands(server, directory / "config").log_in()
    admin("user", "edit", "carl", "--inactive", "--full-name", "Carl C")
    admin("user", "edit", "bob", "--auditor")
    admin("team", "add", "acme/devs", "bob", "--admin")
    admin("repo", "grant", "ann/own", "bob", "admin")
    admin("repo", "grant", "acme", "bob", "read-only")
    admin("robot", "create", "acme+ci")
    admin("repo", "grant", "acme/app1", "acme+ci", "read-write")
    yield server
    server.close()


@pytest.fixture
def new(tmp_path: Path) -> Commands:
    """The command over empty tables of another registry."""
    commands = Commands(Server(tmp_path / "new"))
    commands("migrate")
    return commands


def import_from(new: Commands, old: Server, *options: str) -> str:
    arguments = ("--from-dtr", f"https://{old.address}", "--ca", str(old.ca), "--password-stdin", *options)
    return new("account", "import", *arguments, stdin=f"{PASSWORD}\n")


def exported(commands: Commands, directory: Path) -> dict[str, list[dict[str, str]]]:
    commands("account", "export", str(directory))
    found = {}
    for path in directory.glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            found[path.stem] = list(csv.DictReader(file))
    return found


def test_all_is_taken_over_and_a_second_run_changes_nothing(new: Commands, old: Server, tmp_path: Path) -> None:
    plan = import_from(new, old, "--dry-run")
    assert "would make user bob\n" in plan
    assert new("account", "list") == ""

    first = import_from(new, old)
    assert "users:         4 new, 0 changed, 0 as they were\n" in first
    assert "4 of the new users have no password" in first
    assert PASSWORD not in first

    theirs = exported(Commands(old), tmp_path / "theirs")
    ours = exported(new, tmp_path / "ours")
    assert ours == theirs
    assert {name: len(rows) for name, rows in theirs.items()} == {
        "users": 4, "organizations": 2, "teams": 2, "members": 8, "repositories": 5, "grants": 4,
    }  # fmt: skip
    assert new.level("bob", "acme/deep/er") is Level.WRITE

    second = import_from(new, old)
    lines = [line for line in second.splitlines() if " new, " in line]
    assert len(lines) == 6
    assert all(" 0 new, 0 changed, " in line for line in lines)


def test_what_changes_there_is_changed_here_by_another_run(new: Commands, old: Server, tmp_path: Path) -> None:
    import_from(new, old)
    admin = RemoteCommands(old, tmp_path / "config").log_in()
    admin("user", "edit", "ann", "--full-name", "Ann A")
    admin("repo", "edit", "ann/own", "--public")
    again = import_from(new, old)
    assert "users:         0 new, 1 changed, 3 as they were\n" in again
    assert "repositories:  0 new, 1 changed, 4 as they were\n" in again
    assert "ann/own\tpublic" in new("repository", "list")


@pytest.mark.parametrize(
    ("options", "password", "said"),
    [
        (("--user", "ann"), "a wrong secret", "does not take these credentials"),
        (("--user", "bob"), PASSWORD, "is no administrator there"),
    ],
)
def test_an_administrator_of_the_old_one_is_needed(
    new: Commands, old: Server, options: tuple[str, ...], password: str, said: str
) -> None:
    arguments = ("--from-dtr", old.address, "--ca", str(old.ca), "--password-stdin", *options)
    assert said in new.fail("account", "import", *arguments, stdin=f"{password}\n")
    assert new("account", "list") == ""


def test_an_old_one_that_cannot_be_reached_or_trusted_is_told(new: Commands, old: Server) -> None:
    gone = f"localhost:{free_port()}"
    given = ("--password-stdin", "--ca", str(old.ca))
    assert f"{gone} cannot be reached" in new.fail("account", "import", "--from-dtr", gone, *given, stdin="x\n")
    said = new.fail("account", "import", "--from-dtr", old.address, "--password-stdin", stdin="x\n")
    assert "is not one that this machine trusts" in said
    unsure = ("--from-dtr", old.address, "--password-stdin", "--insecure")
    assert " new, " in new("account", "import", *unsure, "--dry-run", stdin=f"{PASSWORD}\n")
