"""``dtr enforce``."""

from __future__ import annotations

import pytest
from tests.support.api import Api
from tests.support.commands import RemoteCommands
from tests.support.images import make_image


@pytest.fixture(scope="module")
def digest(admin: RemoteCommands) -> str:
    api = Api(admin.server)
    api.make_organization("strict")
    api.make_team("strict/dev")
    api.make_repository("strict/app")
    return api.admin.client.push("strict/app", make_image(), "v1")


def test_what_has_to_be_signed_is_said_reported_and_ended(admin: RemoteCommands, digest: str) -> None:
    assert admin.fail("enforce", "show", "strict") == "strict wants nothing signed"
    assert admin.rows("enforce", "report", "strict/app") == [["strict/app", "v1", "no", ""]]
    assert admin.rows("enforce", "report", "strict", "--signer", "role:targets") == [
        ["strict/app", "v1", "yes", "namespace: a signature by role:targets"]
    ]
    words = ("--mode", "off", "--signer", "role:targets", "--signer", "role:targets/ci", "--team", "strict/dev")
    (made,) = admin.json("enforce", "set", "strict", *words)
    assert (made["signers"], made["teams"]) == (["role:targets", "role:targets/ci"], ["strict/dev"])
    assert admin("enforce", "report", "strict", "-q") == "strict/app:v1\n"
    (exception,) = admin.json(
        "enforce", "except", "strict", "--digest", digest, "--reason", "it is old", "--expires", "90d"
    )
    assert (exception["kind"], exception["value"], exception["author"]) == ("digest", digest, "admin")
    shown = admin("enforce", "show", "strict")
    assert f"{exception['id']}: digest {digest} (it is old, by admin)" in shown
    assert admin.rows("enforce", "report", "strict") == [["strict/app", "v1", "no", ""]]
    admin("enforce", "unexcept", exception["id"], "strict")
    assert admin.rows("enforce", "report", "strict")[0][2] == "yes"
    admin("enforce", "delete", "strict", "--yes")
    assert admin.fail("enforce", "show", "strict") == "strict wants nothing signed"
    assert admin.fail("enforce", "show", "strict/app") == "strict/app wants nothing signed"
    assert admin.fail("enforce", "show") == f"{admin.server.address} wants nothing signed"
    assert "one of --tag, --digest and --account" in admin.run("enforce", "except", "--reason", "none").stderr
