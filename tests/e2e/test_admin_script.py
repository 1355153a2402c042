"""The script of an administrator, as the page on scripts shows it, on both databases."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.pages import DOCS, blocks_of, follow
from tests.support.api import Api
from tests.support.backends import run_server
from tests.support.client import Client
from tests.support.images import make_image
from tests.support.server import PASSWORD, Server

PAGE = DOCS / "how-to" / "administer-with-scripts.md"
SECRET = "change me soon"


@pytest.fixture
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A server of two workers, with other accounts and repositories than those of the script."""
    with run_server(request.param, request, tmp_path_factory, workers=2) as server:
        api = Api(server)
        api.make_organization("other")
        api.make_repository("other/private")
        api.make_repository("other/public", visibility="public")
        yield api


def environment(server: Server) -> dict[str, str]:
    """What the page says to set."""
    return {
        "ADMIN": f"admin:{PASSWORD}",
        "DTR": f"https://{server.address}",
        "CURL_CA_BUNDLE": str(server.ca),
    }


def left(api: Api) -> dict[str, list[tuple[int]]]:
    """How much there is of what the script makes."""
    questions = {
        table: f"SELECT count(*) FROM {table}"
        for table in ("accounts", "teams", "team_members", "repository_grants", "namespace_grants")
    }
    questions["repositories"] = "SELECT count(*) FROM repositories WHERE deleted_at IS NULL"
    return {name: api.rows(question) for name, question in questions.items()}


@pytest.mark.parametrize("api", ["sqlite"], indirect=True)
def test_the_page_works_and_leaves_nothing(api: Api, tmp_path: Path) -> None:
    before = left(api)
    output = follow(PAGE, tmp_path, environment=environment(api.server))
    assert '"errors"' not in output
    assert left(api) == before


@pytest.mark.parametrize("api", ["postgresql"], indirect=True)
def test_what_the_script_makes_is_what_it_says(api: Api, tmp_path: Path) -> None:
    server, before = api.server, left(api)
    script = script_of(tmp_path)
    run(script, server, "create")
    names = [f"service-{number:03}" for number in range(1, 201)]

    def seen(user: str, size: int) -> list[str]:
        found = api.as_(user, SECRET).pages("/api/v0/repositories/acme", size)
        pages = [[one["name"] for one in page["repositories"]] for page in found]
        assert all(len(page) == size for page in pages[:-1]), "a page that is not the last has a hole"
        return [name for page in pages for name in page]

    public = {name for name in names if name.endswith("0")}
    assert seen("acme-user01", 7) == [name for name in names if name <= "service-100" or name in public]
    assert seen("acme-user13", 11) == [name for name in names if int(name[-3:]) % 4 == 0 or name in public]
    for user in ("acme-user18", "acme-user20"):
        assert seen(user, 50) == names
    developer, tester, operator = (Client(server, f"acme-user{one}", SECRET) for one in ("01", "13", "20"))
    image = make_image(size=1000)
    developer.push("acme/service-001", image, "v1")
    operator.push("acme/service-199", image, "v1")
    tester.call("GET", "/v2/acme/service-004/tags/list").expect(200)
    tester.call("POST", "/v2/acme/service-004/blobs/uploads/").expect(401)
    tester.call("GET", "/v2/acme/service-001/tags/list").expect(401)
    token = (tmp_path / "build.token").read_text().strip()
    Client(server, "acme-user01", token).assert_whole("acme/service-001", image, "v1")
    run(script, server, "change")
    assert api.as_("acme-user03", SECRET).get("/api/v0/api_tokens").status == 401
    assert api.as_("acme-user01", token).get("/api/v0/api_tokens").status == 401
    assert "service-001" in seen("acme-user13", 100)
    assert "service-004" not in seen("acme-user13", 100)
    run(script, server, "delete")
    assert api.admin.get("/enzi/v0/accounts/acme").codes == ["NO_SUCH_ACCOUNT"]
    assert left(api) == before


def script_of(directory: Path) -> Path:
    """The script of the page, as a reader saves it."""
    (block,) = (one for one in blocks_of(PAGE) if one.language == "bash")
    script = directory / "acme.sh"
    script.write_text(block.text)
    return script


def run(script: Path, server: Server, *arguments: str) -> str:
    """Run the script as the administrator of a server; what it printed."""
    done = subprocess.run(
        ["bash", script.name, *arguments],
        cwd=script.parent,
        env={**os.environ, **environment(server)},
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
