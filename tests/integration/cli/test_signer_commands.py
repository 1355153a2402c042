"""``dtr signer``: certificates and passphrases. That it serves is seen in tests/contract/signer."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.support.commands import Commands
from tests.support.server import Server

from dtr.app import Application


def test_passphrases_are_replaced_and_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    dtr = Commands(Server(tmp_path / "dtr"))
    dtr("migrate")
    file = dtr.server.directory / "signer.passphrases"

    async def make(application: Application) -> list[str]:
        made = [await application.signer.create_key(f"host/a/{n}", "timestamp", "ecdsa") for n in range(3)]
        return [key.id for key in made]

    keys = dtr.server.do(make)
    ((old, secret),) = (line.split() for line in file.read_text().splitlines())
    said = dtr("signer", "rotate-passphrase")
    ((new, _),) = (line.split() for line in file.read_text().splitlines())
    assert said == f"3 keys are encrypted with {new} now\nforgotten: {old}\n"
    assert secret not in file.read_text()

    # The file comes from elsewhere, and one of the keys is damaged.
    given = f"given {'g' * 32}\n{file.read_text()}"
    file.write_text(given)
    with sqlite3.connect(dtr.server.directory / "metadata.db") as connection:
        connection.execute("UPDATE signer_keys SET private = 'damaged' WHERE key_id = ?", [keys[0]])
    connection.close()
    failed = dtr.server.cli("signer", "rotate-passphrase", "--keep-file", check=False)
    assert failed.returncode == 1
    assert failed.stdout == "2 keys are encrypted with given now\n"
    assert keys[0] in failed.stderr
    assert "keys that could not be opened: 1" in failed.stderr
    assert "ggg" not in failed.stderr
    assert file.read_text() == given

    file.write_text("wrong\n")
    failed = dtr.server.cli("signer", "rotate-passphrase", check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(f"dtr: {file}, line 1: ")
