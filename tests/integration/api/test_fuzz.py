"""
Fuzzing of the whole API from its own description, by schemathesis: every operation, every check.

What it calls is the same each time (`--generation-deterministic`), as far as the server's answers are.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.api import Api

NAMES = {
    "namespace": ["acme", "ada"],
    "reponame": ["app", "team/tool"],
    "tag": ["v1"],
    "reference": ["v1"],
    "username": ["ada", "bob"],
    "account": ["ada", "acme"],
    "orgname": ["acme"],
    "teamname": ["devs"],
}
"""What there is, by the name of the parameter: most paths are to lead somewhere."""


@pytest.fixture(scope="module")
def token(api: Api) -> dict[str, str]:
    """Access tokens of an administrator and of a plain user: who shows one is never slowed down."""
    api.make_users("ada", "bob", "root")
    api.change("UPDATE accounts SET is_admin = true WHERE name = 'root'")
    api.make_organization("acme", members=("ada", "bob"))
    api.make_team("acme/devs", "ada")
    for path in ("acme/app", "acme/team/tool", "ada/app"):
        api.make_repository(path)
    api.grant("acme/devs", "read-write")
    return {
        name: api.as_(name).post("/api/v0/api_tokens", {"tokenLabel": "fuzz"}).expect(200).json["token"]
        for name in ("root", "ada")
    }


@pytest.mark.parametrize(
    ("user", "examples", "phases"), [("ada", 6, "coverage,fuzzing"), ("root", 6, "coverage,fuzzing")]
)
def test_no_request_finds_an_answer_that_is_not_described(
    api: Api, token: dict[str, str], tmp_path: Path, user: str, examples: int, phases: str
):
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(
        "\n".join(
            [
                *(f"[dictionaries.{name}]\nvalues = {values}" for name, values in NAMES.items()),
                "[parameters]",
                *(f'"path.{name}" = {{ dictionary = "{name}", probability = 0.7 }}' for name in NAMES),
            ]
        )
    )
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            f"--config-file={settings}",
            "run",
            f"https://{api.server.address}/api/v0/openapi.json",
            f"--tls-verify={api.server.ca}",
            f"--header=Authorization: Bearer {token[user]}",
            "--checks=all",
            f"--phases={phases}",
            f"--max-examples={examples}",
            "--generation-deterministic",
            "--continue-on-failure",
            "--no-color",
            "--warnings=off",
            "--workers=1",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
