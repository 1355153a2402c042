"""``dtr account import`` and ``export``: files, on both databases."""

from __future__ import annotations

import csv
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.support.commands import Commands

from dtr.accounts import BadCredentials, Level

FILES = {
    "users": (
        "name,full_name,admin,active,password\n"
        "ann,Ann Müller,yes,,\n"
        "bob,,,no,\n"
        'carl,"Carl, the second",no,yes,carls secret\n'
    ),
    "organizations": "name,full_name\nacme,Acme Inc\n",
    "teams": "organization,name,description\nacme,devs,who write\nacme,ops,\n",
    "members": "organization,team,user,role\nacme,,ann,owner\nacme,devs,bob,\nacme,devs,carl,admin\n",
    "repositories": (
        "repository,visibility,description,readme,immutable,tag_limit,scan_on_push\n"
        'acme/app,public,The app,"# App\n\nin lines",yes,,\n'
        "carl/own,,,,,5,\n"
    ),
    "grants": "on,to,level\nacme,acme/ops,read-only\nacme/app,acme/devs,read-write\ncarl/own,ann,admin\n",
}
ALL_NEW = {"users": 3, "organizations": 1, "teams": 2, "members": 3, "repositories": 2, "grants": 3}


def write_files(directory: Path, files: dict[str, str]) -> str:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / f"{name}.csv").write_text(text, encoding="utf-8")
    return str(directory)


@pytest.fixture
def files(tmp_path: Path) -> str:
    return write_files(tmp_path / "files", FILES)


def counts(output: str) -> dict[str, tuple[int, int]]:
    """How many were new and changed, by kind."""
    found = {}
    for line in output.splitlines():
        kind, colon, rest = line.partition(":")
        if colon and " new, " in rest:
            words = rest.split()
            found[kind] = (int(words[0]), int(words[2]))
    return found


def can_log_in(dtr: Commands, name: str, secret: str) -> bool:
    async def ask(application: Any) -> bool:
        try:
            await application.accounts.logins.authenticate(name, secret, "127.0.0.1")
        except BadCredentials:
            return False
        return True

    return dtr.server.do(ask)


def test_files_are_imported_and_a_second_run_changes_nothing(dtr: Commands, files: str) -> None:
    first = dtr("account", "import", files)
    assert counts(first) == {kind: (number, 0) for kind, number in ALL_NEW.items()}
    assert [line.strip() for line in first.splitlines() if line.startswith("  ")] == ["ann", "bob"]
    assert dtr("account", "list") == (
        "acme\torganization\tAcme Inc\n"
        "ann\tuser,admin\tAnn Müller\n"
        "bob\tuser,inactive\t\n"
        "carl\tuser\tCarl, the second\n"
    )
    assert dtr("repository", "list") == ("acme/app\tpublic,immutable\tThe app\ncarl/own\tprivate,tag-limit=5\t\n")
    assert dtr.level("carl", "acme/app") is Level.WRITE
    assert dtr.level("ann", "carl/own") is Level.ADMIN
    assert can_log_in(dtr, "carl", "carls secret")

    second = dtr("account", "import", files)
    assert counts(second) == dict.fromkeys(ALL_NEW, (0, 0))
    assert "password" not in second


def test_what_differs_is_changed_and_what_is_not_said_stays(dtr: Commands, files: str, tmp_path: Path) -> None:
    dtr("account", "import", files)
    changed = write_files(
        tmp_path / "changed",
        {
            "users": "name,full_name,active\nbob,Bob,yes\ncarl,,\n",
            "teams": "organization,name,description\nacme,devs,who write code\n",
            "members": "organization,team,user,role\nacme,,ann,member\n",
            "repositories": "repository,visibility\nacme/app,private\n",
            "grants": "on,to,level\nacme/app,acme/devs,admin\n",
        },
    )
    plan = dtr("account", "import", changed, "--dry-run")
    assert [line for line in plan.splitlines() if line.startswith("would")] == [
        "would change user bob: full name, is active",
        "would change team acme/devs: description",
        "would change ann in acme: is admin",
        "would change repository acme/app: visibility",
        "would change grant on acme/app to acme/devs: level",
    ]
    assert counts(dtr("account", "import", changed)) == {
        "users": (0, 1), "organizations": (0, 0), "teams": (0, 1), "members": (0, 1),
        "repositories": (0, 1), "grants": (0, 1),
    }  # fmt: skip
    assert "bob\tuser\tBob\n" in dtr("account", "list")
    assert "carl\tuser\tCarl, the second\n" in dtr("account", "list")
    assert "acme/app\tprivate,immutable\tThe app\n" in dtr("repository", "list")
    assert dtr.level("carl", "acme/app") is Level.ADMIN
    assert can_log_in(dtr, "carl", "carls secret")


def test_a_dry_run_changes_nothing(dtr: Commands, files: str) -> None:
    output = dtr("account", "import", files, "--dry-run")
    assert "would make user ann\n" in output
    assert "carls secret" not in output
    assert output.endswith("nothing was changed.\n")
    assert counts(output) == {kind: (number, 0) for kind, number in ALL_NEW.items()}
    assert dtr("account", "list") == ""


def test_what_is_exported_is_what_was_imported(dtr: Commands, files: str, tmp_path: Path) -> None:
    dtr("account", "import", files)
    dtr("account", "export", str(tmp_path / "out"))
    for name in FILES:
        text = (tmp_path / "out" / f"{name}.csv").read_text(encoding="utf-8")
        assert "secret" not in text
        assert "password" not in text
    with (tmp_path / "out" / "repositories.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["readme"] == "# App\n\nin lines"
    assert counts(dtr("account", "import", str(tmp_path / "out"))) == dict.fromkeys(ALL_NEW, (0, 0))
    assert "exists" in dtr.fail("account", "export", str(tmp_path / "out"))


def test_an_invitation_is_for_new_users_without_a_password(dtr: Commands, files: str, tmp_path: Path) -> None:
    invitations = tmp_path / "invitations.csv"
    output = dtr("account", "import", files, "--invite-file", str(invitations))
    assert "no password" not in output
    assert stat.S_IMODE(invitations.stat().st_mode) == 0o600
    with invitations.open(encoding="utf-8") as file:
        passwords = {row["name"]: row["password"] for row in csv.DictReader(file)}
    assert passwords.keys() == {"ann", "bob"}
    assert can_log_in(dtr, "ann", passwords["ann"])
    assert passwords["ann"] not in output
    assert "is there already" in dtr.fail("account", "import", files, "--invite-file", str(invitations))
    dtr("account", "import", files, "--invite-file", str(tmp_path / "more.csv"))
    assert not (tmp_path / "more.csv").exists()


def test_what_is_wrong_is_told_with_its_line_and_nothing_is_imported(dtr: Commands, tmp_path: Path) -> None:
    files = {"organizations": "name\nfine\n", "teams": "organization,name\nfine,devs\nacme,devs\n"}
    result = dtr.run("account", "import", write_files(tmp_path / "wrong", files))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "dtr: teams.csv, line 3: there is no organization acme",
        "dtr: nothing was imported; --skip-invalid imports the rest",
    ]
    assert dtr("account", "list") == ""


def test_what_is_invalid_can_be_left_out(dtr: Commands, tmp_path: Path) -> None:
    directory = write_files(
        tmp_path / "some",
        {
            "users": "name,password\nann,\nBob B,very secret\n",
            "organizations": "name\nacme\n",
            "members": "organization,user\nacme,ann\nacme,Bob B\n",
        },
    )
    result = dtr.run("account", "import", directory, "--skip-invalid")
    assert result.exit_code == 0
    assert len(result.stderr.splitlines()) == 2
    assert "very secret" not in result.output
    assert counts(result.stdout)["users"] == (1, 0)
    assert counts(result.stdout)["members"] == (1, 0)


def test_one_source_is_given(dtr: Commands, tmp_path: Path) -> None:
    assert dtr.run("account", "import").exit_code == 2
    assert dtr.run("account", "import", str(tmp_path), "--from-dtr", "old.example.org").exit_code == 2


def test_an_export_that_cannot_be_written_is_told(dtr: Commands, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Not a directory" in dtr.fail("account", "export", str(tmp_path / "file" / "out"))
