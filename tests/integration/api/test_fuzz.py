"""
Fuzzing of the whole API from its own description, by schemathesis: every operation, every check.

What it calls is the same each time (`--generation-deterministic`), as far as the server's answers are. Who calls
is nobody that is named by chance, and no two calls come from one address: wrong credentials are among them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.api import Api
from tests.support.images import make_image
from tests.support.server import PASSWORD

NAMES = {
    "namespace": ["acme", "ada"],
    "reponame": ["app", "team/tool"],
    "tag": ["v1"],
    "reference": ["v1"],
    "username": ["ada", "bob"],
    "account": ["ada", "acme"],
    "user": ["ada", "bob"],
    "org": ["acme"],
    "team": ["devs"],
    "orgname": ["acme"],
    "teamname": ["devs"],
}
"""What there is, by the name of the parameter: most paths are to lead somewhere."""

EXAMPLES = int(os.environ.get("DTR_FUZZ_EXAMPLES", "3"))
"""Of each operation, beside those that cover its schema: `make thorough` tries more."""

REFUSES = {
    # 400 for what the schema allows, as DTR says it, where other APIs have 404 or 409.
    "POST /api/v0/repositories/{namespace}": "REPOSITORY_EXISTS; a limit of tags that are immutable",
    "PATCH /api/v0/repositories/{namespace}/{reponame}": "a limit of tags that are immutable",
    "POST /api/v0/repositories/{namespace}/{reponame}/rename": "REPOSITORY_EXISTS",
    "GET /api/v0/repositories/{namespace}/{reponame}/teamAccess": "NOT_AN_ORGANIZATION",
    "PUT /api/v0/repositories/{namespace}/{reponame}/teamAccess/{teamname}": "NOT_AN_ORGANIZATION",
    "DELETE /api/v0/repositories/{namespace}/{reponame}/teamAccess/{teamname}": "NOT_AN_ORGANIZATION",
    "PUT /api/v0/repositories/{namespace}/{reponame}/userAccess/{username}": "NOT_GRANTABLE",
    "GET /api/v0/repositoryNamespaces/{namespace}/teamAccess": "NOT_AN_ORGANIZATION",
    "GET /api/v0/repositoryNamespaces/{namespace}/teamAccess/{teamname}": "NOT_AN_ORGANIZATION",
    "PUT /api/v0/repositoryNamespaces/{namespace}/teamAccess/{teamname}": "NOT_AN_ORGANIZATION",
    "DELETE /api/v0/repositoryNamespaces/{namespace}/teamAccess/{teamname}": "NOT_AN_ORGANIZATION",
    "PUT /api/v0/repositoryNamespaces/{namespace}/userAccess/{username}": "NOT_GRANTABLE",
    "GET /api/v0/accounts/{orgname}/teams/{teamname}/repositoryAccess": "NOT_AN_ORGANIZATION",
    "GET /api/v0/accounts/{orgname}/robots": "NOT_AN_ORGANIZATION",
    "POST /api/v0/accounts/{orgname}/robots": "ACCOUNT_EXISTS",
    "POST /enzi/v0/accounts": "ACCOUNT_EXISTS; there is no directory to search",
    "PATCH /enzi/v0/accounts/{account}": "NOT_A_USER",
    "POST /enzi/v0/accounts/{org}/teams": "TEAM_EXISTS",
    "PATCH /enzi/v0/accounts/{org}/teams/{team}": "TEAM_EXISTS",
    # What a schema cannot say.
    "GET /api/v0/events": "a page begins with the id of an event",
    "GET /api/v0/repositories/{namespace}/{reponame}/events": "a page begins with the id of an event",
    "GET /api/v0/jobs": "a page begins where an answer said",
    "GET /api/v0/repositories/{namespace}/{reponame}/tags": "a page begins where an answer said, in this order",
    "GET /api/v0/meta/garbage": "a length of time is written as such",
    "POST /api/v0/repositories/{namespace}/{reponame}/promotionPolicies/test": "a rule says one thing",
    "POST /api/v0/api_tokens": "a token expires in the future",
    "POST /api/v0/accounts/{orgname}/robots/{robot}/tokens": "a token expires in the future",
    "POST /api/v0/meta/settings": "settings that are read-only are refused when they are changed",
    "POST /enzi/v0/accounts/{account}/publicKeys": "keys are PEM",
    "PATCH /enzi/v0/accounts/{account}/publicKeys/{key_id}": "certificates are PEM",
    "PUT /enzi/v0/config/sessions": "the threshold is less than the lifetime",
    "POST /api/v0/action_configs": "actions are known by name",
    "POST /api/v0/crons": "actions are known by name, schedules are such",
    "POST /api/v0/jobs": "actions are known by name",
    "POST /api/v0/webhooks": "an endpoint is an address of TLS",
    "POST /api/v0/webhooks/test": "an endpoint is an address of TLS, where somebody is",
    "POST /api/v0/webhooks/update": "certificates are PEM",
    "POST /api/v0/remotes": "a host is an address, certificates are PEM",
    "POST /api/v0/remote/registry": "a host is an address, where a registry is",
    "POST /api/v0/repositories/{namespace}/{reponame}/tags/{tag}/pushMirroring": "as for remotes",
    "POST /api/v0/repositories/{namespace}/{reponame}/pushMirroringPolicies": "as for remotes; templates",
    "POST /api/v0/repositories/{namespace}/{reponame}/pushMirroringPolicies/test": "templates, schedules",
    "POST /api/v0/repositories/{namespace}/{reponame}/pollMirroringPolicies": "as for remotes; templates",
    "POST /api/v0/repositories/{namespace}/{reponame}/pollMirroringPolicies/test": "as for remotes; templates",
    "PUT /api/v0/signingIdentities/{identity}": "keys and certificates are PEM",
    "PUT /api/v0/admin/storages/{storage}": "every kind of storage has its parameters, and has to work",
    "POST /api/v0/admin/storages/{storage}/test": "the same, but for having to work",
    "POST /api/v0/admin/storages/{storage}/migration": "no storage is moved to itself",
    "PUT /api/v0/admin/settings/registry": "a document has a storage that works",
    "PUT /api/v0/admin/settings/registry/simple": "the same",
    **{
        operation: why
        for place in (
            "/api/v0",
            "/api/v0/repositoryNamespaces/{namespace}",
            "/api/v0/repositories/{namespace}/{reponame}",
        )
        for operation, why in (
            (f"PUT {place}/enforcement", "signers and teams are such"),
            (f"POST {place}/enforcement/report", "signers and teams are such"),
            (f"POST {place}/enforcement/exceptions", "a value is one of its kind; it ends in the future"),
        )
    },
    "POST /auth/login": "the body is JSON, whatever its type says",
}
"""Operations that refuse some of what their schema allows with 400, and why."""
CONFIGURATION = "\n".join(
    [
        *(f"[dictionaries.{name}]\nvalues = {values}" for name, values in NAMES.items()),
        "[parameters]",
        *(f'"path.{name}" = {{ dictionary = "{name}", probability = 0.7 }}' for name in NAMES),
        "[generation]",
        "allow-x00 = false",  # no text has NUL: test_errors.py
        *(
            f'[[operations]]\ninclude-name = "{name}"\n'
            "checks.positive_data_acceptance.expected-statuses = "
            '["2xx", "3xx", "400", "401", "403", "404", "409", "429"]'
            for name in REFUSES
        ),
    ]
)


HOOKS = """
import itertools
import schemathesis
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoverageScenario

numbers = itertools.count()

@schemathesis.hook
def before_call(context, case, kwargs):
    number = next(numbers)
    case.headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    if getattr(case.meta.phase.data, "scenario", None) == CoverageScenario.OBJECT_UNEXPECTED_PROPERTIES:
        # What is sent stays the same; but as a text a number would not fit the schema beside what is unknown.
        raw = case.meta.raw_containers.get(ParameterLocation.QUERY, {})
        case.query.update({name: value for name, value in raw.items() if case.query.get(name) == str(value)})
"""


@pytest.fixture(scope="module")
def populated(api: Api) -> Api:
    """An administrator `root` and a plain user `fred`, and something for them to find."""
    api.make_users("ada", "bob", "fred")
    api.make_users("root", is_admin=True)
    api.make_organization("acme", members=("ada", "bob"))
    api.make_team("acme/devs", "fred")
    for path in ("acme/app", "acme/team/tool", "ada/app"):
        api.make_repository(path)
    api.grant("acme/devs", "read-write")
    api.admin.client.push("acme/app", make_image(), "v1")
    return api


@pytest.mark.parametrize(("user", "phases"), [("fred", "fuzzing"), ("root", "coverage,fuzzing")])
def test_no_request_finds_an_answer_that_is_not_described(populated: Api, tmp_path: Path, user: str, phases: str):
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(CONFIGURATION)
    (tmp_path / "hooks.py").write_text(HOOKS)
    # The first read of it builds it, for which schemathesis may not have the patience on a busy machine.
    description = tmp_path / "openapi.json"
    description.write_text(json.dumps(populated.admin.get("/api/v0/openapi.json").expect(200).json))
    done = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"),
            f"--config-file={settings}",
            "run",
            description,
            f"--url=https://{populated.server.address}",
            f"--tls-verify={populated.server.ca}",
            f"--auth={user}:{PASSWORD}",
            "--checks=all",
            f"--phases={phases}",
            f"--max-examples={EXAMPLES}",
            "--generation-deterministic",
            "--continue-on-failure",
            "--no-color",
            "--warnings=off",
            "--workers=1",
            "--request-timeout=60",
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=900 + 60 * EXAMPLES,
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks"},
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
