"""``dtr event``."""

from __future__ import annotations

import csv
import io
import json
import os
import select
import signal
import subprocess

import pytest
from tests.support.api import Api
from tests.support.commands import RemoteCommands
from tests.support.server import DTR


@pytest.fixture(scope="module")
def api(admin: RemoteCommands) -> Api:
    return Api(admin.server)


def test_what_happened_is_listed_latest_first(admin: RemoteCommands) -> None:
    before = int(admin.json("event", "list", "--limit", "1")[0]["id"])
    admin("org", "create", "umbrella")
    admin("team", "create", "umbrella/devs")
    happened = [one for one in admin.json("event", "list", "--limit", "10") if int(one["id"]) > before]
    assert [(one["type"], one["object"]["type"]) for one in happened] == [
        ("CREATE", "team"),
        ("CREATE", "account"),
    ]
    time, kind, thing, repository, by = admin.rows("event", "list", "--kind", "account", "--limit", "1")[0]
    assert (kind, thing, repository, by) == ("CREATE", "account umbrella", "", "admin")
    assert time.endswith("+00:00")


def test_events_are_chosen(admin: RemoteCommands, api: Api) -> None:
    admin("org", "create", "chosen")
    (account,) = admin.json("user", "show", "admin")
    found = admin.json(
        "event", "list", "--type", "create", "--after", "1h", "--actor", account["id"], "--no-pulls"
    )
    assert {one["type"] for one in found} == {"CREATE"}
    assert {one["actor"] for one in found} == {account["id"]}
    assert admin("event", "list", "--before", "2020-01-01") == ""
    assert "eventType" in admin.fail("event", "list", "--type", "nothing")


def test_events_of_a_repository_are_listed(admin: RemoteCommands, api: Api) -> None:
    api.make_repository("admin/eventful")
    found = admin.rows("event", "list", "admin/eventful")
    assert len(found) == 1, found
    ((_, kind, _, repository, by),) = found
    assert (kind, repository, by) == ("CREATE", "admin/eventful", "system")
    assert (
        admin.fail("event", "list", "admin/missing")
        == "there is no repository admin/missing, or you may not see it"
    )


def test_events_are_exported(admin: RemoteCommands) -> None:
    lines = [json.loads(line) for line in admin("event", "export").splitlines()]
    rows = list(csv.DictReader(io.StringIO(admin("event", "export", "--format", "csv"))))
    assert len(lines) > 1
    assert [one["id"] for one in lines] == [row["id"] for row in rows]
    assert admin("event", "export", "--before", "2020-01-01") == ""


def test_events_are_followed_as_they_happen_until_it_is_interrupted(admin: RemoteCommands) -> None:
    process = subprocess.Popen(
        [DTR, "event", "follow", "--json", "--kind", "account"],
        env={"PATH": os.environ["PATH"], **admin.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background may have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - there are no threads
    )
    assert process.stdout is not None
    printed = select.poll()  # not select, which knows no more than a thousand descriptors
    printed.register(process.stdout, select.POLLIN)
    try:
        number = 0
        while not printed.poll(1000):  # until it has begun
            number += 1
            assert number < 60
            admin("org", "create", f"followed{number}")
        first = json.loads(process.stdout.readline())["object"]["name"]
        rest = [f"followed{one}" for one in range(int(first.removeprefix("followed")) + 1, number + 3)]
        for more in (1, 2):
            admin("org", "create", f"followed{number + more}")
        assert [json.loads(process.stdout.readline())["object"]["name"] for _ in rest] == rest
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
