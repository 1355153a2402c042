"""``dtr storage``: storages are made, tried, used, shown, emptied and forgotten on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.support.client import Client
from tests.support.commands import Commands
from tests.support.images import make_image
from tests.support.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.server import Server

from dtr.db import Statement

IMAGE = make_image(layers=2, size=70_000)
_LONG_AGO = Statement(text("UPDATE storages SET used_until = 0"))
_STILL = Statement(text("UPDATE storages SET used_until = 4102444800000 WHERE used_until > 0"))


@pytest.fixture
def dtr(make_server: Callable[..., Server]) -> Commands:
    """The command beside a running server, with an image in it."""
    server = make_server()
    server.make_repository("admin/app")
    client = Client(server)
    client.push("admin/app", IMAGE, "v1")
    client.close()
    return Commands(server)


def rows(dtr: Commands) -> dict[str, list[str]]:
    lines = [line.split("\t") for line in dtr("storage", "list").splitlines()]
    return {name: rest for name, *rest in lines}


def test_a_storage_from_its_making_to_its_end(dtr: Commands, tmp_path: Path):
    root = tmp_path / "more"
    assert str(root) in dtr.fail("storage", "set", "more", "--driver", "filesystem", f"root={root}")
    root.mkdir()
    dtr("storage", "set", "more", "--driver", "filesystem", f"root={root}")
    default = dtr.server.directory / "blobs"
    found = rows(dtr)
    assert found["more"] == ["filesystem", "0", "0", root.as_uri(), ""]
    assert (found["default"][0], found["default"][3:]) == ("filesystem", [default.as_uri(), "*"])
    blobs = found["default"][1]
    dtr("storage", "assign", "admin", "more")
    assert rows(dtr)["more"][4] == "admin"
    dtr("storage", "assign", "admin")
    assert rows(dtr)["more"][4] == ""
    assert dtr("storage", "check") == "ok    default\nok    more\n"
    printed = dtr("storage", "migrate", "--to", "more", "--rate", "100000000")
    assert printed.splitlines()[-1].startswith(f"moved {blobs} blobs of ")
    found = rows(dtr)
    assert (found["more"][1], found["more"][4], found["default"][1]) == (blobs, "*", "0")
    client = Client(dtr.server)
    client.assert_whole("admin/app", IMAGE, "v1")
    client.close()
    # Back again, as somebody would who had copied everything.
    shutil.copytree(root, default, dirs_exist_ok=True)
    dtr("storage", "migrate", "--from", "more", "--to", "default", "--copied", "--verify")
    assert rows(dtr)["default"][1] == blobs
    client = Client(dtr.server)
    client.assert_whole("admin/app", IMAGE, "v1")
    client.close()
    # The moment is some seconds, and may have passed on a busy machine.
    dtr.server.do(lambda application: application.database.unit(lambda tx: tx.execute(_STILL)))
    assert "a moment ago" in dtr.fail("storage", "remove", "more")
    dtr.server.do(lambda application: application.database.unit(lambda tx: tx.execute(_LONG_AGO)))
    dtr("storage", "remove", "more")
    assert rows(dtr).keys() == {"default"}


def test_secrets_come_from_files_and_are_not_shown(dtr: Commands, tmp_path: Path, s3_server: S3Server):
    file = tmp_path / "secret"
    file.write_text(f"{SECRET_KEY}\n")
    parameters = (
        "bucket=blobs",
        f"endpoint={s3_server.endpoint}",
        f"access_key={ACCESS_KEY}",
        "path_style=true",
        "prefix=commands",
    )
    refused = dtr.fail("storage", "set", "far", "--driver", "s3", *parameters, f"secret_key={SECRET_KEY}")
    assert "secret_key=@FILE" in refused
    dtr("storage", "set", "far", "--driver", "s3", *parameters, f"secret_key=@{file}", "--redirect-seconds", "60")
    dtr("storage", "set", "far", "region=eu-west-1")  # the rest stays
    shown = dtr("storage", "show", "far")
    assert SECRET_KEY not in shown
    assert {"region: eu-west-1", "secret_key: ********", "redirect_seconds: 60"} <= set(shown.splitlines())
    document = json.loads(dtr("storage", "show", "far", "--json"))
    assert document["parameters"]["prefix"] == "commands"
    described = dtr("storage", "show", "far", "--yaml")
    settings = tmp_path / "registry.yml"
    settings.write_text(f"{described}log:\n  level: debug\n")
    assert dtr.run("storage", "set", "far", "--file", str(settings)).stderr == "means nothing here: log\n"
    assert dtr("storage", "show", "far", "--yaml") == described
    file.write_text("wrong")
    assert "wrong" not in dtr.fail("storage", "set", "far", f"secret_key=@{file}")
    assert dtr("storage", "check", "far") == "ok    far\n"


def test_what_cannot_be_done_is_said(dtr: Commands, tmp_path: Path):
    odd = tmp_path / "odd.yml"
    odd.write_text("storage: {s3: {bucket: b, secretkey: hidden, buckett: b}}")
    for arguments, reason in (
        (("show", "nowhere"), "there is no storage called 'nowhere'"),
        (("check", "nowhere"), "there is no storage called 'nowhere'"),
        (("default", "nowhere"), "there is no storage called 'nowhere'"),
        (("set", "new"), "--driver or --file says what it is"),
        (("set", "new", "--driver", "tape"), "driver"),
        (("set", "new", "--driver", "s3", "bucket"), "is no parameter"),
        (("set", "new", "--file", str(odd)), "storage.s3.buckett: is not known"),
        (("set", "new", "--file", str(tmp_path / "none.yml")), "No such file"),
        (("remove", "default"), "cannot be removed"),
        (("migrate", "--to", "default", "--from", "default"), "is where the blobs go"),
        (("migrate", "--to", "nowhere"), "there is no storage called 'nowhere'"),
    ):
        printed = dtr.fail("storage", *arguments)
        assert reason in printed, printed
        assert "hidden" not in printed
