"""Plain HTTP for a proxy in front, which says who the client is and what it asked for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client
from tests.support.images import make_image
from tests.support.server import PASSWORD, Server
from tests.support.tools import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.engine import Docker

HOST = "registry.example.org"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that serves plain HTTP, and believes a proxy on the loopback interface."""
    settings = {"http_serves": True, "trusted_proxies": "127.0.0.0/8"}
    shared = Server(tmp_path_factory.mktemp("shared") / "dtr", settings, workers=2).start()
    yield shared
    shared.close()


def curl(server: Server, path: str, *options: str) -> tuple[str, str]:
    """What a proxy gets for a client that asks `HOST` over TLS: head and body."""
    answer = run(
        "curl", "--silent", "--show-error", "--include", "--header", f"X-Forwarded-Host: {HOST}",
        "--header", "X-Forwarded-Proto: https", "--header", "X-Forwarded-For: 192.0.2.7",
        *options, f"http://127.0.0.1:{server.http_port}{path}",
    )  # fmt: skip
    head, _, body = answer.stdout.partition("\n\n")
    return head.lower(), body


def test_the_challenge_names_the_address_that_the_client_used(server: Server) -> None:
    head, _ = curl(server, "/v2/")
    assert head.startswith("http/1.1 401")
    assert f'realm="https://{HOST}/auth/token"' in head


def test_a_token_is_given_and_taken_through_the_proxy(server: Server, repository: str) -> None:
    image = make_image()
    Client(server).push(repository, image, "v1")
    _, body = curl(
        server, f"/auth/token?service=dtr&scope=repository:{repository}:pull", "--user", f"admin:{PASSWORD}"
    )
    token = json.loads(body)["token"]

    head, body = curl(server, f"/v2/{repository}/manifests/v1", "--header", f"Authorization: Bearer {token}")

    assert head.startswith("http/1.1 200")
    assert body.encode() == image.payload


def test_the_place_of_an_upload_leads_through_the_proxy_again(server: Server, repository: str) -> None:
    token = Client(server).token(f"repository:{repository}:pull,push")
    path = f"/v2/{repository}/blobs/uploads/"
    head, _ = curl(server, path, "--request", "POST", "--header", f"Authorization: Bearer {token}")
    assert head.startswith("http/1.1 202")
    location = re.search(r"^location: (\S+)", head, re.MULTILINE)
    assert location is not None
    assert location[1].removeprefix(f"https://{HOST}").startswith(path)


def test_what_comes_through_the_proxy_counts_as_encrypted(server: Server) -> None:
    assert "strict-transport-security" in curl(server, "/v2/")[0]
    plain = run("curl", "--silent", "--include", f"http://127.0.0.1:{server.http_port}/v2/").stdout.lower()
    assert plain.startswith("http/1.1 401")
    assert "strict-transport-security" not in plain


def test_the_log_names_the_client_and_not_the_proxy(make_server: Callable[..., Server]) -> None:
    server = make_server({"http_serves": True, "trusted_proxies": "127.0.0.0/8"})
    requests = server.requests_of(lambda: curl(server, "/v2/"))
    assert [one["remote"] for one in requests if one["path"] == "/v2/"] == ["192.0.2.7"]


def test_a_stranger_who_claims_to_be_a_proxy_is_not_believed(make_server: Callable[..., Server]) -> None:
    server = make_server({"http_serves": True, "trusted_proxies": "192.0.2.0/24"})
    heads: list[str] = []
    requests = server.requests_of(lambda: heads.append(curl(server, "/v2/")[0]))
    assert [one["remote"] for one in requests if one["path"] == "/v2/"] == ["127.0.0.1"]
    assert HOST not in heads[0]
    assert "strict-transport-security" not in heads[0]


def test_without_the_setting_plain_http_only_leads_to_https(make_server: Callable[..., Server]) -> None:
    server = make_server()
    url = f"http://127.0.0.1:{server.http_port}/v2/"
    answer = run("curl", "--silent", "--include", url).stdout.lower()
    assert answer.startswith("http/1.1 308")
    assert f"location: https://127.0.0.1:{server.port}/v2/" in answer
    followed = run("curl", "--silent", "--location", "--include", "--cacert", server.ca, url).stdout
    assert "401" in followed


def test_docker_logs_in_pushes_and_pulls_over_plain_http(docker: Docker, server: Server, repository: str) -> None:
    address = f"127.0.0.1:{server.http_port}"
    docker.login(address, "admin", PASSWORD)
    image = f"{address}/{repository}:v1"
    built = docker.build(image)
    docker.push(image)
    docker.forget(image)
    docker("pull", image)
    assert docker.id(image) == built
