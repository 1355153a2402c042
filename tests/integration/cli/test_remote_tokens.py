"""``dtr token`` and ``dtr robot``."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import subprocess
from collections.abc import Callable

import pytest
from tests.support.api import Api
from tests.support.commands import RemoteCommands
from tests.support.server import DTR


@pytest.fixture(scope="module")
def api(admin: RemoteCommands) -> Api:
    api = Api(admin.server)
    api.make_users("ann", "bob")
    api.make_organization("acme", owners=("ann",))
    return api


@pytest.fixture
def ann(api: Api, logged_in: Callable[[str], RemoteCommands]) -> RemoteCommands:
    return logged_in("ann")


def opens(api: Api, user: str, token: str) -> bool:
    return api.as_(user, token).get("/api/v0/accounts/language").status == 200


def test_a_token_is_made_shown_once_and_ended(api: Api, ann: RemoteCommands) -> None:
    secret = ann("token", "create", "for CI").strip()
    assert opens(api, "ann", secret)
    (row,) = [row for row in ann.rows("token", "list") if row[1] == "for CI"]
    assert row[2] == "yes"
    assert secret not in ann("token", "list", "--json")
    ann("token", "delete", row[0], "--yes")
    assert not opens(api, "ann", secret)
    assert ann.fail("token", "delete", row[0], "--yes") == f"there is no token whose id begins with {row[0]!r}"


def test_a_token_is_good_for_what_was_said(ann: RemoteCommands) -> None:
    (made,) = ann.json(
        "token", "create", "little", "--on", "acme/*", "--on", "ann/x", "--for", "push", "--expires", "2d"
    )
    assert made["scope"] == {"repositories": ["acme/*", "ann/x"], "actions": ["push"]}
    away = dt.datetime.fromisoformat(made["expiresAt"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(days=1, hours=23) < away < dt.timedelta(days=2, minutes=1)
    (reader,) = ann.json("token", "create", "reader", "--on", "acme/app")
    assert reader["scope"] == {"repositories": ["acme/app"], "actions": ["pull"]}
    assert "pull on acme/app" in {row[-1] for row in ann.rows("token", "list")}


def test_a_token_is_renamed_and_switched_off(api: Api, ann: RemoteCommands) -> None:
    (made,) = ann.json("token", "create", "old name")
    (changed,) = ann.json("token", "edit", made["hashedToken"][:20], "--label", "new name", "--inactive")
    assert (changed["tokenLabel"], changed["isActive"]) == ("new name", False)
    assert not opens(api, "ann", made["token"])
    assert "nothing to change" in ann.fail("token", "edit", made["hashedToken"])


def test_what_begins_with_a_beginning_of_several_is_not_guessed(ann: RemoteCommands) -> None:
    for _ in range(17):  # of 17 ids, two begin with the same of 16 digits
        ann("token", "create", "one of many")
    beginnings = [row[0][0] for row in ann.rows("token", "list")]
    (twice, *_) = [one for one in beginnings if beginnings.count(one) > 1]
    assert "give more of it" in ann.fail("token", "delete", twice, "--yes")
    assert "begins with ''" in ann.fail("token", "delete", "", "--yes")


def test_administrators_manage_the_tokens_of_others(admin: RemoteCommands, ann: RemoteCommands) -> None:
    ann("token", "create", "of ann")
    (token,) = [one for one in admin.json("token", "list", "--user", "ann") if one["tokenLabel"] == "of ann"]
    assert "of ann" not in {one["tokenLabel"] for one in admin.json("token", "list")}
    assert ["ann", "of ann"] in [row[1:3] for row in admin.rows("token", "list", "--all")]
    admin("token", "delete", token["hashedToken"], "--user", "ann", "--yes")
    assert "ann may not do that" in ann.fail("token", "list", "--user", "bob")


def test_ids_alone_are_printed_for_scripts(ann: RemoteCommands) -> None:
    ann("token", "create", "one more")
    ids = ann("token", "list", "-q").splitlines()
    assert ids == [one["hashedToken"] for one in ann.json("token", "list")]
    assert ann("token", "list", "-q", "--limit", "1").splitlines() == ids[:1]


def test_robots_are_made_changed_and_deleted_by_their_organization(api: Api, ann: RemoteCommands) -> None:
    ann("robot", "create", "acme+ci", "--description", "Builds")
    assert [row[0] for row in ann.rows("robot", "list", "acme")] == ["acme+ci"]
    secret = ann("robot", "token", "acme+ci", "for the builder", "--for", "push").strip()
    ((short, label, *_, good_for),) = ann.rows("robot", "tokens", "acme+ci")
    assert (label, good_for) == ("for the builder", "push on *")
    ann("robot", "revoke", "acme+ci", short, "--yes")
    assert ann("robot", "tokens", "acme+ci") == ""
    assert not opens(api, "acme+ci", secret)
    (changed,) = ann.json("robot", "edit", "acme+ci", "--inactive", "--description", "Built")
    assert (changed["isActive"], changed["description"]) == (False, "Built")
    ann("robot", "delete", "acme+ci", "--yes")
    assert ann("robot", "list", "acme") == ""


def test_a_robot_logs_in_with_its_token(ann: RemoteCommands, registry: object, tmp_path: object) -> None:
    ann("robot", "create", "acme+reader")
    secret = ann("robot", "token", "acme+reader", "for a machine").strip()
    robot = RemoteCommands(ann.server, ann.directory / "robot").log_in("acme+reader", secret)
    assert json.loads((robot.directory / "dtr" / "logins.json").read_text())[0]["token"] == secret
    ann("robot", "delete", "acme+reader", "--yes")


@pytest.mark.parametrize(
    "arguments",
    [("robot", "list", "nobody"), ("robot", "create", "nobody+x"), ("robot", "delete", "acme+x", "--yes"),
     ("robot", "list", "bob")],
)  # fmt: skip
def test_what_cannot_be_is_told(ann: RemoteCommands, arguments: tuple[str, ...]) -> None:
    assert ann.fail(*arguments)


def test_a_robot_is_named_with_its_organization(ann: RemoteCommands) -> None:
    result = ann.run("robot", "create", "ci")
    assert result.exit_code == 2
    assert "ORGANIZATION+ROBOT" in result.stderr


def test_without_a_terminal_nothing_goes_unless_it_was_said(ann: RemoteCommands) -> None:
    (made,) = ann.json("token", "create", "precious")
    said = ann.fail("token", "delete", made["hashedToken"])
    assert said.startswith(
        f"there is no terminal to ask whether to end the token {made['hashedToken'][:12]} (precious)"
    )


@pytest.mark.parametrize("answer", ["n", "y"])
def test_on_a_terminal_it_is_asked_by_name(ann: RemoteCommands, answer: str) -> None:
    (made,) = ann.json("token", "create", "asked for")
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [DTR, "token", "delete", made["hashedToken"]],
        env={"PATH": os.environ["PATH"], **ann.environment},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(master, 1000)
    os.write(master, f"{answer}\n".encode())
    assert process.wait(60) == (0 if answer == "y" else 1)
    os.close(master)
    assert f"End the token {made['hashedToken'][:12]} (asked for)?".encode() in shown
    assert (made["hashedToken"] in ann("token", "list", "-q")) is (answer == "n")
