"""What crane, oras and regctl say to those who may not do something; of what is hidden, nothing."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.support.client import Client
from tests.support.go_clients import GoClients
from tests.support.images import Image, make_image, write_layout
from tests.support.server import PASSWORD
from tests.support.workers import wait_for_workers

from dtr.accounts import Action, TokenScope

if TYPE_CHECKING:
    from tests.support.server import Server
    from tests.support.tools import Finished

DENIED = "requested access to the resource is denied"
WRONG = "the user name or the password is not right"

_OF_REGCTL = ("regctl manifest", "regctl tags", "regctl copy", "regctl blob", "regctl delete")
OWN_WORDS = {
    "crane push": "unexpected status code 401 Unauthorized",
    **dict.fromkeys(_OF_REGCTL, "unauthorized"),
}
"""What is shown instead of an answer's text: crane looks for the manifest first, by HEAD; regctl shows no body."""

ClientsOf = Callable[..., GoClients]


@pytest.fixture
def clients_of(server: Server, tmp_path: Path) -> ClientsOf:
    """``clients_of(user, secret)``: the three commands of a user; without one of nobody."""

    def make(user: str | None = None, secret: str = PASSWORD) -> GoClients:
        clients = GoClients(server, tmp_path / uuid.uuid4().hex)
        return clients if user is None else clients.log_in(user, secret)

    return make


@dataclass(frozen=True)
class Repository:
    """A private repository with an image `v1`, and `layout`: another one in a folder, to be pushed."""

    path: str
    image: Image
    layout: Path


@pytest.fixture(scope="module")
def people(server: Server) -> None:
    """acme, and users: a reader is in a team of it, an outsider is not."""
    server.make_organization("acme")
    for user in ("reader", "outsider"):
        server.make_user(user)


@pytest.fixture
def hidden(server: Server, people: None, tmp_path: Path) -> Repository:
    path = f"acme/r{uuid.uuid4().hex[:12]}"
    server.make_repository(path)
    server.grant("acme/readers", "read-only", users=("reader",), repository=path)
    image = make_image()
    Client(server).push(path, image, "v1")
    write_layout(tmp_path / "layout", make_image(), "v1")
    (tmp_path / "file").write_text("content")
    return Repository(path, image, tmp_path / "layout")


def pulls(clients: GoClients, path: str) -> dict[str, Finished]:
    """Every client tries to read; all fail."""
    name = clients.at(f"{path}:v1")
    return {
        "crane manifest": clients.crane("manifest", name, fails=True),
        "crane digest": clients.crane("digest", name, fails=True),
        "crane ls": clients.crane("ls", clients.at(path), fails=True),
        "oras manifest": clients.oras("manifest", "fetch", name, fails=True),
        "oras tags": clients.oras("repo", "tags", clients.at(path), fails=True),
        "oras discover": clients.oras("discover", name, fails=True),
        "regctl manifest": clients.regctl("manifest", "get", name, fails=True),
        "regctl tags": clients.regctl("tag", "ls", clients.at(path), fails=True),
        "regctl digest": clients.regctl("image", "digest", name, fails=True),
    }


def assert_denied(name: str, said: Finished) -> None:
    """A client shows that a right is missing: in our words where it shows any."""
    assert DENIED in said.text or OWN_WORDS[name] in said.text, said.text


def timeless(text: str) -> str:
    """What a client says, without the time of it."""
    return re.sub(r"(time=)?\d{4}[-/]\d\d[-/]\d\d[T ][\d:.]+Z?", "", text)


def pushes(clients: GoClients, path: str, layout: Path) -> dict[str, Finished]:
    """Every client tries to change something; all fail."""
    name = clients.at(f"{path}:v1")
    return {
        "crane push": clients.crane("push", layout, name, fails=True),
        "crane delete": clients.crane("delete", name, fails=True),
        "oras copy": clients.oras("cp", "--from-oci-layout", f"{layout}:v1", name, fails=True),
        "oras blob": clients.oras("blob", "push", clients.at(path), layout / "oci-layout", fails=True),
        "regctl copy": clients.regctl("image", "copy", f"ocidir://{layout}:v1", name, fails=True),
        "regctl blob": clients.regctl("blob", "put", clients.at(path), stdin="content", fails=True),
        "regctl delete": clients.regctl("tag", "delete", name, fails=True),
    }


# --- log-ins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", ["password", "access token"])
def test_a_password_and_an_access_token_pull_and_push(
    server: Server, clients_of: ClientsOf, hidden: Repository, secret: str
) -> None:
    server.make_user(user := f"u{uuid.uuid4().hex[:8]}")
    server.grant("acme/writers", "read-write", users=(user,), repository=hidden.path)
    if secret == "password":
        clients = clients_of(user)
    else:
        token = server.do(lambda application: application.accounts.tokens.create(user, "test"))
        clients = clients_of(user, token)
    old = clients.at(f"{hidden.path}:v1")
    assert clients.crane("digest", old).stdout.strip() == hidden.image.digest
    assert clients.oras("resolve", old).stdout.strip() == hidden.image.digest
    assert clients.regctl("image", "digest", old).stdout.strip() == hidden.image.digest
    layout = f"{hidden.layout}:v1"
    clients.crane("push", hidden.layout, clients.at(f"{hidden.path}:crane"))
    clients.oras("cp", "--from-oci-layout", layout, clients.at(f"{hidden.path}:oras"))
    clients.regctl("image", "copy", f"ocidir://{layout}", clients.at(f"{hidden.path}:regctl"))
    assert clients.crane("ls", clients.at(hidden.path)).stdout.split() == ["crane", "oras", "regctl", "v1"]


def test_a_wrong_password_is_refused_in_words(server: Server, clients_of: ClientsOf) -> None:
    clients, address = clients_of(), server.address
    users = [f"u{uuid.uuid4().hex[:8]}" for _ in range(3)]  # who tries too often is told to wait
    for user in users:
        server.make_user(user)
    words: tuple[str, ...] = ("login", address, "--username", users[0], "--password-stdin")
    assert WRONG in clients.oras(*words, stdin="wrong", fails=True).text
    words = ("auth", "login", address, "--username", users[1], "--password-stdin")
    clients.crane(*words, stdin="wrong")  # it asks nobody
    assert f"UNAUTHORIZED: {WRONG}" in clients.crane("catalog", address, fails=True).text
    words = ("registry", "login", address, "--user", users[2], "--pass-stdin")
    assert "unauthorized" in clients.regctl(*words, stdin="wrong", fails=True).text


def test_a_token_is_good_for_its_scope_only(server: Server, clients_of: ClientsOf, hidden: Repository) -> None:
    scope = TokenScope((hidden.path,), frozenset({Action.PULL}))
    token = server.do(lambda application: application.accounts.tokens.create("admin", "test", scope=scope))
    clients = clients_of("admin", token)
    assert clients.crane("digest", clients.at(f"{hidden.path}:v1")).stdout.strip() == hidden.image.digest
    for name, said in pushes(clients, hidden.path, hidden.layout).items():
        assert_denied(name, said)
    Client(server).assert_whole(hidden.path, hidden.image, "v1")


# --- rights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["outsider", None])
def test_who_has_no_rights_sees_nothing_and_is_told_so(
    clients_of: ClientsOf, hidden: Repository, user: str | None
) -> None:
    clients, missing = clients_of(user), f"acme/r{uuid.uuid4().hex[:12]}"
    said, of_missing = pulls(clients, hidden.path), pulls(clients, missing)
    for name, one in said.items():
        assert_denied(name, one)
        of_other = timeless(of_missing[name].text)
        assert timeless(one.text).replace(hidden.path, "X") == of_other.replace(missing, "X")
        assert hidden.image.digest not in one.text
    # There is no body: they show the header.
    assert all(DENIED in said[name].text for name in ("oras discover", "regctl digest"))


@pytest.mark.parametrize("user", ["outsider", "reader", None])
def test_who_may_not_push_changes_nothing_and_is_told_so(
    server: Server, clients_of: ClientsOf, hidden: Repository, user: str | None
) -> None:
    for name, said in pushes(clients_of(user), hidden.path, hidden.layout).items():
        assert_denied(name, said)
    admin = Client(server)
    admin.assert_whole(hidden.path, hidden.image, "v1")
    listed = admin.call("GET", f"/v2/{hidden.path}/tags/list").expect(200).json["tags"]
    assert listed == ["v1"]


def test_a_public_repository_is_read_without_a_log_in(server: Server, clients_of: ClientsOf, people: None) -> None:
    path, image = f"acme/r{uuid.uuid4().hex[:12]}", make_image()
    server.make_repository(path, visibility="public")
    Client(server).push(path, image, "v1")
    clients = clients_of()
    name = clients.at(f"{path}:v1")
    assert clients.crane("manifest", name).stdout.encode() == image.payload
    assert clients.oras("manifest", "fetch", name).stdout.encode() == image.payload
    assert clients.regctl("manifest", "get", name, "--format", "raw-body").stdout.encode() == image.payload
    assert clients.regctl("tag", "ls", clients.at(path)).stdout.split() == ["v1"]
    clients.regctl("blob", "put", clients.at(path), stdin="content", fails=True)


def test_a_reader_attaches_nothing(server: Server, clients_of: ClientsOf, hidden: Repository) -> None:
    clients, name = clients_of("reader"), f"{hidden.path}:v1"
    words = ("attach", clients.at(name), "--artifact-type", "application/spdx+json", "file")
    assert f"denied: {DENIED}" in clients.oras(*words, directory=hidden.layout.parent, fails=True).text
    found = Client(server).call("GET", f"/v2/{hidden.path}/referrers/{hidden.image.digest}").expect(200).json
    assert found["manifests"] == []


def test_the_catalog_shows_what_one_may_see(server: Server, clients_of: ClientsOf, hidden: Repository) -> None:
    for user, sees in (("reader", True), ("outsider", False), ("admin", True)):
        clients = clients_of(user)
        listed = (
            clients.crane("catalog", server.address),
            clients.oras("repo", "ls", server.address),
            clients.regctl("repo", "ls", server.address),
        )
        assert [hidden.path in one.stdout.split() for one in listed] == [sees] * 3


# --- what nobody may ------------------------------------------------------------------------------------------


def test_a_push_to_a_missing_repository_of_ones_own_says_so(clients_of: ClientsOf, hidden: Repository) -> None:
    clients = clients_of("admin")
    said = pushes(clients, "admin/missing", hidden.layout)
    for name in ("crane push", "oras copy", "oras blob", "regctl copy", "regctl blob"):
        assert "repository admin/missing does not exist" in said[name].text


def test_a_tag_of_an_immutable_repository_stays_and_every_client_says_why(
    server: Server, clients_of: ClientsOf, hidden: Repository
) -> None:
    server.cli("repository", "update", hidden.path, "--immutable")
    clients = clients_of("admin")
    name = clients.at(f"{hidden.path}:v1")
    why = f"tag=v1 cannot be overwritten because {clients.at(hidden.path)} is an immutable repository"
    layout = f"{hidden.layout}:v1"
    assert why in clients.crane("push", hidden.layout, name, fails=True).text
    assert why in clients.oras("cp", "--from-oci-layout", layout, name, fails=True).text
    assert why in clients.regctl("image", "copy", f"ocidir://{layout}", name, fails=True).text
    Client(server).assert_whole(hidden.path, hidden.image, "v1")


@pytest.fixture
def read_only(server: Server, repository: str) -> Iterator[None]:
    """The registry takes nothing."""
    begin = f"/v2/{repository}/blobs/uploads/"

    def switch(*, on: bool) -> None:
        server.do(lambda application: application.live.change({"readOnlyRegistry": on}))
        wait_for_workers(server, lambda client: (client.call("POST", begin).status == 202) is not on)

    switch(on=True)
    yield
    switch(on=False)


def test_a_registry_that_is_read_only_says_so_and_pulls_go_on(
    clients_of: ClientsOf, hidden: Repository, read_only: None
) -> None:
    clients = clients_of("admin")
    for said in pushes(clients, hidden.path, hidden.layout).values():
        assert "the registry is read-only at present: pulls go on, pushes and deletions do not" in said.text
    name = clients.at(f"{hidden.path}:v1")
    assert clients.crane("digest", name).stdout.strip() == hidden.image.digest
    assert clients.oras("resolve", name).stdout.strip() == hidden.image.digest
    assert clients.regctl("image", "digest", name).stdout.strip() == hidden.image.digest
