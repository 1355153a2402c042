"""``dtr account`` against real data, on both databases."""

from __future__ import annotations

import os
import pty
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.commands import Commands
from tests.support.server import DTR, Server

from dtr.accounts import BadCredentials, Level

PASSWORD = "a new secret"


def can_log_in(dtr: Commands, name: str, secret: str) -> bool:
    async def ask(application: Any) -> bool:
        try:
            await application.accounts.logins.authenticate(name, secret, "127.0.0.1")
        except BadCredentials:
            return False
        return True

    return dtr.server.do(ask)


def test_a_user_is_made_with_a_password_from_the_standard_input(dtr: Commands) -> None:
    dtr("account", "create", "ann", "--password-stdin", "--full-name", "Ann B", stdin=f"{PASSWORD}\n")
    assert can_log_in(dtr, "ann", PASSWORD)
    assert not can_log_in(dtr, "ann", PASSWORD + "\n")
    assert dtr("account", "list") == "ann\tuser\tAnn B\n"


def test_a_password_is_asked_for_on_a_terminal_and_not_shown(dtr: Commands) -> None:
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [DTR, "account", "create", "ann"],
        env={**os.environ, **dtr.server.environment},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=None,
    )
    os.close(terminal)
    shown = b""
    for prompt in (b"Password:", b"confirm"):
        while prompt not in shown:
            shown += os.read(master, 1000)
        os.write(master, PASSWORD.encode() + b"\n")
    assert process.wait(60) == 0
    os.set_blocking(master, False)
    try:
        while more := os.read(master, 1000):
            shown += more
    except OSError:  # the terminal is closed
        pass
    os.close(master)
    assert PASSWORD.encode() not in shown
    assert can_log_in(dtr, "ann", PASSWORD)


def test_without_a_terminal_the_password_has_to_be_piped(dtr: Commands) -> None:
    assert "--password-stdin" in dtr.fail("account", "create", "ann")


@pytest.mark.parametrize("given", ["", "\n"])
def test_an_empty_password_is_refused(dtr: Commands, given: str) -> None:
    assert "password" in dtr.fail("account", "create", "ann", "--password-stdin", stdin=given)
    assert dtr("account", "list") == ""


def test_names_are_checked_and_unique(dtr: Commands) -> None:
    assert "lower-case" in dtr.fail("account", "create", "Ann Müller", "--password-stdin", stdin="x\n")
    dtr("account", "create", "ann", "--password-stdin", stdin="x\n")
    assert dtr.fail("account", "create", "ann", "--password-stdin", stdin="y\n") == "ann exists"
    assert dtr.fail("account", "create", "ann", "--organization") == "ann exists"
    assert can_log_in(dtr, "ann", "x")


def test_an_organization_has_no_password(dtr: Commands) -> None:
    dtr("account", "create", "acme", "--organization", "--full-name", "Acme Inc")
    assert dtr("account", "list") == "acme\torganization\tAcme Inc\n"
    dtr.fail("account", "create", "other", "--organization", "--password-stdin", stdin="x\n")
    dtr.fail("account", "create", "other", "--organization", "--admin")
    assert "no account acme" in dtr.fail("account", "passwd", "acme", "--password-stdin", stdin="x\n")


def test_passwd_replaces_the_password(dtr: Commands) -> None:
    dtr("account", "create", "ann", "--password-stdin", stdin="old\n")
    dtr("account", "passwd", "ann", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert can_log_in(dtr, "ann", PASSWORD)
    assert not can_log_in(dtr, "ann", "old")


def test_admin_gives_the_right_and_takes_it(dtr: Commands) -> None:
    dtr("account", "create", "ann", "--password-stdin", stdin="x\n")
    dtr("account", "create", "bob", "--password-stdin", "--admin", stdin="x\n")
    assert dtr("account", "list") == "ann\tuser\t\nbob\tuser,admin\t\n"
    dtr("account", "admin", "ann")
    dtr("account", "admin", "--remove", "bob")
    assert dtr("account", "list") == "ann\tuser,admin\t\nbob\tuser\t\n"


def test_a_deactivated_user_cannot_log_in_until_activated(dtr: Commands) -> None:
    dtr("account", "create", "ann", "--password-stdin", stdin="x\n")
    dtr("account", "deactivate", "ann")
    assert dtr("account", "list") == "ann\tuser,inactive\t\n"
    assert not can_log_in(dtr, "ann", "x")
    dtr("account", "activate", "ann")
    assert can_log_in(dtr, "ann", "x")


def test_an_account_is_deleted_unless_it_has_repositories(dtr: Commands) -> None:
    dtr("account", "create", "ann", "--password-stdin", stdin="x\n")
    dtr.server.make_repository("ann/app")
    assert "has repositories" in dtr.fail("account", "delete", "ann")
    dtr("account", "create", "bob", "--password-stdin", stdin="x\n")
    dtr("account", "delete", "bob")
    assert dtr("account", "list") == "ann\tuser\t\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("activate", "nobody"), ("deactivate", "nobody"), ("delete", "nobody"), ("admin", "nobody"),
        ("token", "nobody"), ("tokens", "nobody"), ("revoke", "nobody", "abc"),
        ("member", "nobody", "ann"), ("passwd", "nobody", "--password-stdin"), ("team", "nobody", "team"),
    ],
)  # fmt: skip
def test_an_unknown_account_is_named(dtr: Commands, arguments: tuple[str, ...]) -> None:
    assert dtr.fail("account", *arguments, stdin="x\n") == "there is no account nobody"


def test_a_token_is_made_listed_and_revoked(dtr: Commands) -> None:
    dtr("account", "create", "ann", "--password-stdin", stdin="x\n")
    secret = dtr("account", "token", "ann", "--label", "for CI").strip()
    assert can_log_in(dtr, "ann", secret)
    listed = dtr("account", "tokens", "ann")
    number, made, used, label = listed.rstrip("\n").split("\t")
    assert label == "for CI"
    assert made <= used  # used just now
    assert secret not in listed
    dtr("account", "revoke", "ann", number)
    assert not can_log_in(dtr, "ann", secret)
    assert dtr("account", "tokens", "ann") == ""
    assert dtr.fail("account", "revoke", "ann", number) == "ann has no token of this id"


def test_members_owners_and_teams_get_what_their_organization_grants(dtr: Commands) -> None:
    for name in ("ann", "bob", "cid"):
        dtr("account", "create", name, "--password-stdin", stdin="x\n")
    dtr("account", "create", "acme", "--organization")
    dtr.server.make_repository("acme/app")
    dtr("account", "member", "acme", "ann", "--owner")
    dtr("account", "member", "acme", "bob")
    dtr("account", "team", "acme", "dev", "cid")
    dtr("repository", "grant", "acme/app", "acme/dev", "read-write")
    assert [dtr.level(name, "acme/app") for name in ("ann", "bob", "cid")] == [
        Level.ADMIN, Level.NONE, Level.WRITE,
    ]  # fmt: skip
    dtr("account", "member", "acme", "ann")  # no longer an owner
    assert dtr.level("ann", "acme/app") is Level.NONE
    dtr("account", "team", "acme", "dev", "ann", "bob")  # the team is there already
    assert dtr.level("bob", "acme/app") is Level.WRITE
    dtr("account", "team", "acme", "dev", "bob", "--remove")
    assert dtr.level("bob", "acme/app") is Level.NONE
    dtr("account", "member", "acme", "ann", "--remove")
    assert dtr.level("ann", "acme/app") is Level.NONE
    dtr("account", "team", "acme", "dev", "--remove")
    assert dtr.level("cid", "acme/app") is Level.NONE
    assert dtr.fail("account", "team", "acme", "dev", "--remove") == "acme has no team dev"
    dtr.fail("account", "member", "acme", "ann", "--owner", "--remove")


def test_a_list_longer_than_a_page_is_whole(dtr: Commands) -> None:
    async def make(application: Any) -> None:
        for number in range(1010):
            await application.accounts.create_organization(f"o{number:04}")

    dtr.server.do(make)
    listed = dtr("account", "list").splitlines()
    assert [line.partition("\t")[0] for line in listed] == [f"o{number:04}" for number in range(1010)]


def test_account_commands_work_while_a_server_runs(make_server: Callable[..., Server]) -> None:
    from tests.support.client import Client

    server = make_server(workers=2)
    dtr = Commands(server)
    dtr("account", "create", "ann", "--password-stdin", stdin=f"{PASSWORD}\n")
    dtr("repository", "create", "ann/app")
    ann = Client(server, "ann", PASSWORD)
    ann.push_blob("ann/app", b"blob")
    secret = dtr("account", "token", "ann").strip()
    Client(server, "ann", secret).push_blob("ann/app", b"other blob")
    dtr("account", "deactivate", "ann")
    ann.call("POST", "/v2/ann/app/blobs/uploads/").expect(401, 403)
    Client(server, "ann", PASSWORD).send(
        "GET", "/auth/token?service=dtr", headers={"Authorization": ann.basic()}
    ).expect(401)
    dtr("account", "activate", "ann")
    ann.push_blob("ann/app", b"third blob")
    dtr("repository", "delete", "ann/app")
    ann.call("POST", "/v2/ann/app/blobs/uploads/").expect(404)
    dtr("account", "list")
    assert "; 0 damaged" in dtr("fsck", "--content")


def test_passwords_are_not_in_the_list_of_processes(dtr: Commands, tmp_path: Path) -> None:
    """While a command waits for its password, everything that others may read of it is without it."""
    process = subprocess.Popen(
        [DTR, "account", "create", "ann", "--password-stdin"],
        env={**os.environ, **dtr.server.environment},
        stdin=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    seen = Path(f"/proc/{process.pid}/cmdline").read_text()
    process.stdin.write(PASSWORD + "\n")
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            seen += Path(f"/proc/{process.pid}/cmdline").read_text()
        except OSError:
            break
    process.stdin.close()
    assert process.wait(60) == 0
    assert "account" in seen
    assert PASSWORD not in seen
