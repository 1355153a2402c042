"""The how-to pages, command by command, with real servers."""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cluster
from tests.docs.pages import DOCS, codes_in, follow, tables_of
from tests.support.api import Api
from tests.support.azurite import ACCOUNT, ACCOUNT_KEY, AzureServer
from tests.support.client import Client
from tests.support.distribution import DockerRegistry
from tests.support.gcs import GCSServer
from tests.support.images import make_image
from tests.support.ports import free_port
from tests.support.s3 import S3Server
from tests.support.server import PASSWORD, Server
from tests.support.swift import SwiftServer
from tests.support.trees import Tree
from tests.support.wire import wait_until

from dtr.cli.transfer.content import PLURALS
from dtr.cli.transfer.files import COLUMNS
from dtr.mirrors import STATUS_CODES
from dtr.pki import ensure_certificate
from dtr.storage import FileSystem

HOW_TO = DOCS / "how-to"


@pytest.fixture
def directories(tmp_path: Path) -> dict[str, str]:
    """The directories of the pages, for this machine."""
    return {"/etc/": f"{tmp_path}/etc/", "/var/lib/dtr": f"{tmp_path}/dtr", "/srv/": f"{tmp_path}/srv/"}


@pytest.fixture
def places(directories: dict[str, str]) -> dict[str, str]:
    """The directories, and the address at which a page serves TLS."""
    port = free_port()
    return directories | {
        "0.0.0.0:443": f"127.0.0.1:{port}",
        "registry.example.org:443:": f"registry.example.org:{port}:",
        "https://registry.example.org/": f"https://registry.example.org:{port}/",
    }


def test_the_page_on_tls_works(tmp_path: Path, places: dict[str, str]) -> None:
    follow(HOW_TO / "tls.md", tmp_path, replaced=places)


def test_the_page_on_postgresql_works(tmp_path: Path, places: dict[str, str], postgresql_cluster: Cluster) -> None:
    port = postgresql_cluster.port
    follow(
        HOW_TO / "postgresql.md",
        tmp_path,
        environment={"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "dtr"},
        replaced=places | {"db1.example.org": f"127.0.0.1:{port}", "db2.example.org": f"127.0.0.1:{free_port()}"},
        answers=["password", "password"],
    )


def test_the_page_on_storages_works(tmp_path: Path, places: dict[str, str]) -> None:
    (tmp_path / "srv").mkdir()
    address = f"127.0.0.1:{free_port()}"
    follow(HOW_TO / "storages.md", tmp_path, replaced=places, environment={"DTR_HTTPS_ADDRESS": address})


def test_the_page_on_s3_works(tmp_path: Path, places: dict[str, str], s3_server: S3Server) -> None:
    follow(HOW_TO / "s3.md", tmp_path, replaced=places | {"http://s3.example.org:7070": s3_server.endpoint})


def test_the_page_on_google_works(tmp_path: Path, places: dict[str, str], gcs_server: GCSServer) -> None:
    key = tmp_path / "etc" / "dtr" / "key.json"
    key.parent.mkdir(parents=True)
    key.write_text(gcs_server.key())
    follow(HOW_TO / "gcs.md", tmp_path, replaced=places | {"https://gcs.example.org": gcs_server.endpoint})


def test_the_page_on_swift_works(tmp_path: Path, places: dict[str, str], swift_server: SwiftServer) -> None:
    addresses = {
        "https://keystone.example.org:5000": f"{swift_server.endpoint}/identity/http",
        "https://swift.example.org": swift_server.endpoint,
    }
    follow(HOW_TO / "swift.md", tmp_path, replaced=places | addresses)


def test_the_page_on_azure_works(tmp_path: Path, places: dict[str, str], azure_server: AzureServer) -> None:
    here = {
        "https://blobs.example.org/exampleaccount": azure_server.settings["storage.azure.endpoint"],
        "exampleaccount": ACCOUNT,
        "c2VjcmV0IGtleSBvZiB0aGUgYWNjb3VudA==": ACCOUNT_KEY,
    }
    follow(HOW_TO / "azure.md", tmp_path, replaced=places | here)


def test_the_page_on_nginx_works(tmp_path: Path, places: dict[str, str]) -> None:
    ports = {one: f"127.0.0.1:{free_port()}" for one in ("127.0.0.1:5080", "127.0.0.1:5081", "0.0.0.0:80")}
    follow(HOW_TO / "nginx.md", tmp_path, replaced=places | ports)


def test_the_page_on_proxies_works(tmp_path: Path, directories: dict[str, str]) -> None:
    address = {"127.0.0.1:5080": f"127.0.0.1:{free_port()}"}
    output = follow(HOW_TO / "proxy.md", tmp_path, replaced=directories | address)
    assert '"remote":"198.51.100.7"' in (tmp_path / "server-a.log").read_text(), output


def test_the_page_on_several_hosts_works(
    tmp_path: Path, directories: dict[str, str], postgresql_cluster: Cluster
) -> None:
    tls = tmp_path / "etc" / "dtr" / "tls"
    tls.parent.mkdir(parents=True)
    ensure_certificate(tls, ["registry.example.org"])
    given = {
        "postgresql://registry@db1.example.org/registry": postgresql_cluster.create(),
        "127.0.0.1:5443": f"127.0.0.1:{free_port()}",
        "127.0.0.1:5444": f"127.0.0.1:{free_port()}",
    }
    follow(HOW_TO / "several-hosts.md", tmp_path, replaced=directories | given)


def test_backups_of_a_running_and_of_a_stopped_registry_have_everything(
    tmp_path: Path, directories: dict[str, str], make_server: Callable[..., Server]
) -> None:
    server = make_server()
    server.make_repository("admin/app")
    image = make_image(layers=2, size=100_000)
    Client(server).push("admin/app", image, "latest")
    server.stop()
    address = {"0.0.0.0:443": f"127.0.0.1:{free_port()}", "/var/lib/dtr": str(server.directory)}
    follow(HOW_TO / "backup.md", tmp_path, replaced=directories | address)
    for directory in (server.directory, tmp_path / "srv" / "backup-of-all"):
        restored = Server(directory).start()
        try:
            Client(restored).assert_whole("admin/app", image, "latest")
        finally:
            restored.close()


def test_the_page_on_the_command_line_works(tmp_path: Path, make_server: Callable[..., Server]) -> None:
    server = make_server()
    follow(
        HOW_TO / "command-line.md",
        tmp_path / "page",
        replaced={"registry.example.org": server.address},
        answers=[PASSWORD],
    )


def test_the_page_on_the_signer_works(tmp_path: Path, directories: dict[str, str]) -> None:
    port = str(free_port())
    places = {"127.0.0.1:5443": f"127.0.0.1:{free_port()}", ":7899": f":{port}"}
    output = follow(HOW_TO / "signer.md", tmp_path, replaced=directories | places)
    assert re.search(r"ok +signer +localhost", output)


def test_the_page_on_enforcement_works(tmp_path: Path, make_server: Callable[..., Server]) -> None:
    server = make_server(workers=1)
    api = Api(server)
    api.make_organization("acme")
    for team in ("acme/dev", "acme/security"):
        api.make_team(team)
    api.make_repository("acme/app")
    digest = api.admin.client.push("acme/app", make_image(), "1.4")
    api.admin.post("/api/v0/accounts/acme/robots", {"name": "scanner"}).expect(201)
    output = follow(
        HOW_TO / "enforce-signatures.md",
        tmp_path / "page",
        environment={
            "DTR_SERVER": server.address, "DTR_USER": "admin", "DTR_TOKEN": PASSWORD, "DTR_CA": str(server.ca),
        },
        replaced={"sha256:6a3f…": digest},
    )  # fmt: skip
    assert re.search(r"acme/app +1.4 +yes", output)
    policy = api.admin.get("/api/v0/repositoryNamespaces/acme/enforcement").expect(200).json
    assert (policy["mode"], policy["teams"]) == ("enforce", ["acme/dev", "acme/security"])
    assert [one["value"] for one in policy["exceptions"]] == ["dev-*", digest, "acme+scanner"]


def test_the_page_on_moving_from_dtr_works(tmp_path: Path, make_server: Callable[..., Server]) -> None:
    old, new = make_server(), make_server()
    old.make_user("ann")
    old.make_organization("acme")
    old.make_repository("acme/app")
    old.grant("acme/devs", "read-write", users=("ann",), repository="acme/app")
    places = {"https://old.example.org": f"https://{old.address}", "/var/lib/dtr": str(new.directory)}
    follow(HOW_TO / "move-from-dtr.md", tmp_path / "page", replaced=places, answers=[PASSWORD, PASSWORD])
    columns = {row[0].strip("`"): codes_in(row[1]) for row in tables_of(HOW_TO / "move-from-dtr.md")[0]}
    assert columns == {f"{PLURALS[kind]}.csv": list(read) for kind, read in COLUMNS.items()}


def test_the_page_on_collecting_works(tmp_path: Path, make_server: Callable[..., Server]) -> None:
    server = make_server()
    output = follow(
        HOW_TO / "collect.md",
        tmp_path / "page",
        replaced={"registry.example.org": server.address},
        answers=[PASSWORD],
    )
    assert "manifests" in output
    crons = server.do(lambda application: application.crons.list_crons())
    assert {"onlinegc", "tag_prune"} <= {one.request.action for one in crons}


def test_the_pages_on_promotion_and_pruning_work(tmp_path: Path, make_server: Callable[..., Server]) -> None:
    server = make_server(workers=1)
    server.make_organization("acme")
    for path in ("acme/dev", "acme/prod", "acme/app"):
        server.make_repository(path)
    client = Client(server)
    for tag in ("1.0", "v1"):
        client.push("acme/dev", make_image(), tag)
    client.push("acme/app", make_image(), "dev-1")
    how: dict[str, Any] = {"replaced": {"registry.example.org": server.address}, "answers": [PASSWORD]}
    output = follow(HOW_TO / "promote.md", tmp_path / "promote", **how)
    assert '"target":"acme/prod:1.0"' in output
    assert re.search(r'"promote":true,"targetTag":"v1-[0-9]{8}"', output)
    output = follow(HOW_TO / "prune.md", tmp_path / "prune", **how)
    assert '"name":"dev-1"' in output
    repository = server.do(lambda application: application.repositories.get("acme/app"))
    (policy,) = server.do(lambda application: application.pruning.list_policies(repository.id, limit=10))
    assert policy.keep == 5


def is_there(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=60):
            return True
    except urllib.error.HTTPError:
        return False


def test_the_page_on_mirroring_works(tmp_path: Path, make_server: Callable[..., Server]) -> None:
    registry = DockerRegistry(tmp_path / "registry").start()
    server = make_server({"mirroring.allowed_networks": "127.0.0.0/8"}, workers=1)
    server.make_organization("acme")
    server.make_repository("acme/app")
    Client(server).push("acme/app", make_image(), "v1")
    try:
        # What Docker Hub has, this registry has to be given.
        given = {"remoteHost": registry.url, "remoteRepository": "library/alpine", "remoteTag": "v1"}
        given |= {"username": "", "password": ""}
        Api(server).admin.post("/api/v0/repositories/acme/app/tags/v1/pushMirroring", given).expect(200, 201, 202)
        wait_until(lambda: is_there(f"{registry.url}/v2/library/alpine/tags/list"))
        output = follow(
            HOW_TO / "mirror.md",
            tmp_path / "page",
            replaced={
                "registry.example.org": server.address,
                "https://mirror.example.net": registry.url,
                '"docker.io"': f'"{registry.url}"',
                '"username": "bot", "password": "…"': '"username": "", "password": ""',
            },
            answers=[PASSWORD],
        )
    finally:
        registry.kill()
    assert '"permissions":{"read":true,"write":true}' in output
    assert '"mirror":true' in output
    assert '"mirroringType":"poll"' in output
    page = (HOW_TO / "mirror.md").read_text()
    assert dict(re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", page, re.MULTILINE)) == STATUS_CODES


def test_the_page_on_metrics_and_logs_works(tmp_path: Path, make_server: Callable[..., Server]) -> None:
    server = make_server()
    places = {
        "/var/lib/dtr": str(server.directory),
        "localhost:5443": server.address,
        "127.0.0.1:5444": f"127.0.0.1:{free_port()}",
    }
    follow(HOW_TO / "monitoring.md", tmp_path / "page", replaced=places)


def test_the_page_on_checking_works(tmp_path: Path, make_server: Callable[..., Server]) -> None:
    server = make_server()
    server.make_repository("admin/app")
    Client(server).push("admin/app", make_image(), "latest")
    follow(HOW_TO / "check-and-repair.md", tmp_path / "page", replaced={"/var/lib/dtr": str(server.directory)})


def test_the_page_on_taking_over_a_storage_works(tmp_path: Path, places: dict[str, str]) -> None:
    image = make_image()
    tree = Tree(FileSystem(tmp_path))
    asyncio.run(tree.image("acme/app", image, "v1"))
    asyncio.run(tree.image("alpine", image, "3"))
    (tmp_path / "srv" / "registry").mkdir(parents=True)
    (tmp_path / "docker").rename(tmp_path / "srv" / "registry" / "docker")
    follow(HOW_TO / "import-storage.md", tmp_path, replaced=places)


def test_a_lost_blob_is_found_as_the_page_says_and_a_push_brings_it_back(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    server.make_repository("admin/app")
    client = Client(server)
    blob = b"precious" * 3000
    digest = client.push_blob("admin/app", blob)
    (stored,) = (one for one in (server.directory / "blobs").rglob("*") if one.is_file())
    stored.unlink()
    row = codes_in(tables_of(HOW_TO / "check-and-repair.md")[1][0][0])[0]
    found = server.cli("fsck", "--repair", check=False)
    assert found.returncode == 1
    assert re.search(r"DAMAGE +" + ".*".join(map(re.escape, row.split("…"))), found.stdout)
    client.call("HEAD", f"/v2/admin/app/blobs/{digest}").expect(404)
    client.push_blob("admin/app", blob)
    assert client.get_blob("admin/app", digest).expect(200).body == blob
    assert "0 damaged" in server.cli("fsck", "--content").stdout
