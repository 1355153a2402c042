"""``dtr settings`` and ``dtr status``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.api import Api
from tests.support.commands import RemoteCommands


@pytest.fixture(scope="module")
def api(admin: RemoteCommands) -> Api:
    api = Api(admin.server)
    api.make_users("watcher")
    return api


def test_settings_are_shown_and_changed(admin: RemoteCommands, tmp_path: Path) -> None:
    before = json.loads(admin("settings", "show", "--json"))
    assert before["createRepositoryOnPush"] is False
    age = tmp_path / "age"
    age.write_text("720h")
    admin(
        "settings",
        "set",
        "createRepositoryOnPush=true",
        "repoEventHistoryToKeep=1000",
        f"repoEventHistoryMaxAge=@{age}",
    )
    names = ("createRepositoryOnPush", "repoEventHistoryToKeep", "repoEventHistoryMaxAge")
    shown = dict(line.split(None, 1) for line in admin("settings", "show", *names).splitlines())
    assert shown == dict(zip(names, ("true", "1000", "720h"), strict=True))
    admin("settings", "set", *(f"{name}={before[name]}" for name in names[1:]), "createRepositoryOnPush=false")
    assert json.loads(admin("settings", "show", "--json")) == before


def test_a_text_stays_a_text(admin: RemoteCommands) -> None:
    admin("settings", "set", "dtrHost=12345")
    assert json.loads(admin("settings", "show", "dtrHost", "--json")) == {"dtrHost": "12345"}
    admin("settings", "set", "dtrHost=")


def test_what_cannot_be_set_is_told(admin: RemoteCommands) -> None:
    assert admin.fail("settings", "set", "createRepositoryOnpush=true") == (
        "there is no setting createRepositoryOnpush; did you mean createRepositoryOnPush?"
    )
    assert "sso: cannot be changed here" in admin.fail("settings", "set", "sso=true")
    assert "is no change: NAME=VALUE" in admin.fail("settings", "set", "sso")
    assert "No such file" in admin.fail("settings", "set", "dtrHost=@/nowhere/at/all")
    assert admin.fail("settings", "show", "nothing") == "there is no setting nothing"


def test_a_server_says_how_it_is(
    admin: RemoteCommands, api: Api, logged_in: Callable[[str], RemoteCommands]
) -> None:
    assert admin("status").splitlines()[0] == f"{admin.server.address}: healthy"
    whole = json.loads(admin("status", "--json"))
    assert whole["health"]["Healthy"] is True
    assert set(whole["cluster"]["replica_health"].values()) == {"OK"}
    assert json.loads(logged_in("watcher")("status", "--json"))["cluster"] is None
