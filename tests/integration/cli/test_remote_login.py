"""``dtr login`` and ``logout``, and what a script does instead."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
from pathlib import Path

import pytest
from tests.support.api import Api
from tests.support.commands import RemoteCommands
from tests.support.ports import free_port
from tests.support.server import DTR, PASSWORD, Server


@pytest.fixture
def stranger(registry: Server, tmp_path: Path) -> RemoteCommands:
    """The command of somebody who never logged in."""
    return RemoteCommands(registry, tmp_path / "config")


@pytest.fixture
def api(registry: Server) -> Api:
    return Api(registry)


def stored(commands: RemoteCommands) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((commands.directory / "dtr" / "logins.json").read_text())
    return found


def test_a_log_in_makes_a_token_that_only_the_user_can_read(stranger: RemoteCommands) -> None:
    stranger.log_in()
    file = stranger.directory / "dtr" / "logins.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert PASSWORD not in file.read_text()
    (login,) = stored(stranger)
    labels = {row[0]: row[1] for row in stranger.rows("token", "list")}
    assert labels[login["token_id"][:12]].startswith("dtr on ")


def test_logging_in_again_ends_the_token_of_the_last_time(stranger: RemoteCommands) -> None:
    first = stored(stranger.log_in())[0]["token_id"][:12]
    second = stored(stranger.log_in())[0]["token_id"][:12]
    known = {row[0] for row in stranger.rows("token", "list")}
    assert second in known
    assert first not in known


def test_logging_out_ends_the_token_here_and_there(stranger: RemoteCommands, api: Api) -> None:
    (login,) = stored(stranger.log_in())
    assert "logged out of" in stranger.run("logout").stderr
    assert stored(stranger) == []
    api.as_("admin", login["token"]).get("/api/v0/accounts/language").expect(401)
    assert "which server?" in stranger.fail("token", "list")
    assert "not logged in" in stranger.fail("logout")


def test_logging_out_works_without_the_server_too(stranger: RemoteCommands) -> None:
    stranger.log_in()
    file = stranger.directory / "dtr" / "logins.json"
    gone = f"localhost:{free_port()}"
    file.write_text(file.read_text().replace(stranger.server.address, gone))
    assert f"you are logged out here, but {gone} may still know" in stranger.fail("logout")
    assert stored(stranger) == []


def test_an_access_token_in_place_of_the_password_is_kept_itself(
    stranger: RemoteCommands, admin: RemoteCommands
) -> None:
    token = admin("token", "create", "for a machine").strip()
    stranger.log_in(password=token)
    assert stored(stranger)[0]["token"] == token
    assert stored(stranger)[0]["token_id"] == ""
    stranger.run("logout")
    assert "for a machine" in {row[1] for row in admin.rows("token", "list")}


def test_a_wrong_password_is_refused_and_not_repeated(stranger: RemoteCommands) -> None:
    result = stranger.run(
        "login", stranger.server.address, "-u", "nobody", "--password-stdin", "--ca", str(stranger.server.ca),
        stdin="a wrong secret\n",
    )  # fmt: skip
    assert result.exit_code == 1
    assert result.stderr == f"dtr: {stranger.server.address} does not know nobody with this password\n"
    assert not (stranger.directory / "dtr").exists()


def test_a_certificate_that_is_not_trusted_says_how_to_get_the_authority(stranger: RemoteCommands) -> None:
    said = stranger.fail("login", stranger.server.address, "-u", "admin", "--password-stdin", stdin="x\n")
    assert "is not one that this machine trusts" in said
    assert f"`curl -k https://{stranger.server.address}/ca -o ca.pem`" in said
    assert "`--ca ca.pem`" in said


def test_a_server_need_not_be_checked_when_that_is_asked_for(stranger: RemoteCommands) -> None:
    stranger.run(
        "login", stranger.server.address, "-u", "admin", "--password-stdin", "--insecure", stdin=f"{PASSWORD}\n"
    )
    assert stranger.rows("token", "list")
    both = ("--insecure", "--ca", str(stranger.server.ca))
    assert "exclude each other" in stranger.fail("login", "x", "-u", "admin", "--password-stdin", *both)


def test_a_password_is_not_sent_in_the_clear_unasked(stranger: RemoteCommands) -> None:
    assert "in the clear" in stranger.fail("login", "http://localhost:1", "-u", "admin", "--password-stdin")


def test_a_server_that_is_not_there_is_told(stranger: RemoteCommands) -> None:
    address = f"localhost:{free_port()}"
    said = stranger.fail("login", address, "-u", "admin", "--password-stdin", stdin="x\n")
    assert said == f"{address} cannot be reached: Connection refused"


def test_what_is_no_dtr_is_told(stranger: RemoteCommands, registry: Server) -> None:
    address = f"http://localhost:{registry.http_port}"  # which redirects to TLS
    said = stranger.fail("login", address, "-u", "admin", "--password-stdin", "--insecure", stdin="x\n")
    assert "not as dtr does" in said


@pytest.mark.parametrize("with_user", [True, False], ids=["with a user", "a token alone"])
def test_a_script_needs_no_log_in(stranger: RemoteCommands, admin: RemoteCommands, with_user: bool) -> None:
    stranger.variables = {
        "DTR_SERVER": stranger.server.address,
        "DTR_CA": str(stranger.server.ca),
        "DTR_TOKEN": admin("token", "create", "for a script").strip(),
        **({"DTR_USER": "admin"} if with_user else {}),
    }
    rows = stranger.rows("token", "list")
    assert "for a script" in {row[1] for row in rows}
    assert [row[0] for row in rows] == [row[0] for row in admin.rows("token", "list")]  # no others'
    assert not (stranger.directory / "dtr").exists()


def test_a_token_is_sent_to_no_server_but_the_one_that_is_named(stranger: RemoteCommands) -> None:
    stranger.log_in()
    assert "which server?" in stranger.fail("token", "list", DTR_TOKEN="dtra_x")


def test_a_token_that_ended_says_to_log_in_again(stranger: RemoteCommands, admin: RemoteCommands) -> None:
    (login,) = stored(stranger.log_in())
    admin("token", "delete", login["token_id"], "--yes")
    address = stranger.server.address
    assert stranger.fail("token", "list") == (
        f"{address} does not take these credentials: `dtr login {address}` gets new ones"
    )


def test_the_variables_of_a_client_are_no_settings(stranger: RemoteCommands) -> None:
    stranger("config", "show", DTR_SERVER="x", DTR_USER="x", DTR_TOKEN="a secret", DTR_CA="x")


def test_log_ins_that_cannot_be_read_are_told(stranger: RemoteCommands) -> None:
    file = stranger.directory / "dtr" / "logins.json"
    file.parent.mkdir(parents=True)
    file.write_text("{")
    assert "remove it, and log in again" in stranger.fail("token", "list")


def test_the_password_is_asked_for_on_a_terminal_and_not_shown(registry: Server, tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [DTR, "login", registry.address, "--ca", str(registry.ca)],
        env={"PATH": os.environ["PATH"], "XDG_CONFIG_HOME": str(tmp_path)},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown = b""
    for prompt, answer in ((b"User:", "admin"), (b"Password:", PASSWORD), (b"logged in at", "")):
        while prompt not in shown:
            shown += os.read(master, 1000)
        os.write(master, f"{answer}\n".encode())
    assert process.wait(60) == 0
    os.close(master)
    assert PASSWORD.encode() not in shown
    (login,) = json.loads((tmp_path / "dtr" / "logins.json").read_text())
    assert login["user"] == "admin"
