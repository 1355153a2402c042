"""
docker's content trust, on a host where nothing is lenient: a name of its own, port 443, a private authority.

The client is told the authority, for the engine and for itself, and nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.docs.pages import DOCS, follow
from tests.support.engine import Docker, Engine, run_engine
from tests.support.island import ADDRESS, Island, island
from tests.support.server import PASSWORD, Server
from tests.support.tools import find_go_program, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "registry.example.org"
ADMINISTRATIVE = {"DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE": "of the root key"}
PASSPHRASES = ADMINISTRATIVE | {"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE": "of the other keys"}
UNSIGNED = "No valid trust data for"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Island]:
    with island(tmp_path_factory.mktemp("island"), HOST) as made:
        yield made


@pytest.fixture(scope="module")
def server(host: Island, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the host, of whose organization ada and bob may write, and rita reads."""
    made = Server(tmp_path_factory.mktemp("shared") / "dtr", {"tls.names": HOST}, workers=2)
    made.environment |= {"DTR_HTTPS_ADDRESS": f"{ADDRESS}:443", "DTR_HTTP_ADDRESS": f"{ADDRESS}:80"}
    made.start(prefix=host.prefix)
    for user in ("ada", "bob", "rita", "stranger"):
        made.make_user(user)
    made.make_organization("acme")
    made.grant("acme/writers", "read-write", users=("ada", "bob"))
    made.grant("acme/readers", "read-only", users=("rita",))
    certificates = host.certs / HOST
    certificates.mkdir(parents=True)
    shutil.copy(made.ca, certificates / "ca.crt")
    yield made
    made.close()


@pytest.fixture(scope="module")
def engine(host: Island) -> Iterator[Engine]:
    """A Docker engine on the host."""
    with run_engine(prefix=host.prefix) as running:
        yield running


@pytest.fixture
def docker_of(engine: Engine, server: Server, tmp_path: Path) -> Callable[[str], Docker]:
    """A function that gives the docker command of a user who is logged in, and trusts the authority."""

    def make(user: str) -> Docker:
        command = Docker(engine, tmp_path / user)
        command.environment |= PASSPHRASES
        trusted = command.directory / "config" / "tls" / HOST
        trusted.mkdir(parents=True)
        shutil.copy(server.ca, trusted / "ca.crt")
        command.login(HOST, user, PASSWORD)
        return command

    return make


@pytest.fixture
def image(server: Server) -> str:
    """The name, without a tag, of a new private repository of the organization."""
    path = f"acme/r{uuid.uuid4().hex[:12]}"
    server.make_repository(path)
    return f"{HOST}/{path}"


def trusted(docker: Docker, *words: str, **how: Any) -> str:
    """What docker says while it trusts nothing that is not signed."""
    docker.environment["DOCKER_CONTENT_TRUST"] = "1"
    try:
        return docker(*words, **how).text
    finally:
        del docker.environment["DOCKER_CONTENT_TRUST"]


def signers(docker: Docker, image: str) -> dict[str, list[str]]:
    """Who signed each tag, as docker says, verified by it."""
    (listed,) = json.loads(docker("trust", "inspect", image).stdout)
    return {one["SignedTag"]: sorted(one["Signers"]) for one in listed["SignedTags"]}


def make_key(docker: Docker, name: str) -> Path:
    """A key of a signer, kept by docker; the file with its public half."""
    docker("trust", "key", "generate", name, "--dir", docker.directory)
    return docker.directory / f"{name}.pub"


def test_a_tag_is_signed_pulled_with_trust_and_its_signature_revoked(
    docker_of: Callable[[str], Docker], image: str
) -> None:
    ada, rita = docker_of("ada"), docker_of("rita")
    built = ada.build(f"{image}:1", f"{image}:unsigned")
    ada("trust", "sign", f"{image}:1")
    ada.push(f"{image}:unsigned")
    # The first signature makes its signer, by the name of the account.
    assert signers(rita, image) == {"1": ["ada"]}

    trusted(ada, "push", f"{image}:1")  # nothing new is signed once more
    ada("image", "tag", f"{image}:1", f"{image}:2")
    assert f"Successfully signed {image}:2" in trusted(ada, "push", f"{image}:2")
    ada.forget(f"{image}:1", f"{image}:2", f"{image}:unsigned")
    assert "sha256:" in trusted(rita, "pull", f"{image}:2")
    assert rita.id(f"{image}:2") == built
    assert UNSIGNED in trusted(rita, "pull", f"{image}:unsigned", fails=True)
    rita("pull", f"{image}:unsigned")

    ada("trust", "revoke", f"{image}:2")
    assert UNSIGNED in trusted(rita, "pull", f"{image}:2", fails=True)
    assert signers(rita, image) == {"1": ["ada"]}
    ada("trust", "revoke", "--yes", image)
    assert signers(rita, image) == {}


def test_trusted_push_begins_a_collection_without_delegations(
    docker_of: Callable[[str], Docker], image: str
) -> None:
    ada, rita = docker_of("ada"), docker_of("rita")
    ada.build(f"{image}:1")
    assert f"Successfully signed {image}:1" in trusted(ada, "push", f"{image}:1")
    assert signers(rita, image) == {"1": ["Repo Admin"]}
    # The tag moves: what was signed is what is pulled, until the new one is signed.
    first = ada.id(f"{image}:1")
    second = ada.build(f"{image}:1")
    ada.push(f"{image}:1")
    ada.forget(f"{image}:1")
    trusted(rita, "pull", f"{image}:1")
    assert rita.id(f"{image}:1") == first
    rita("pull", f"{image}:1")
    assert rita.id(f"{image}:1") == second


def test_two_signers_sign_one_image_and_one_of_them_leaves(docker_of: Callable[[str], Docker], image: str) -> None:
    ada, bob, rita = (docker_of(user) for user in ("ada", "bob", "rita"))
    # Ada holds the collection's keys; a key made elsewhere is loaded, too.
    ada_key, bob_key = make_key(ada, "ada"), make_key(bob, "bob")
    ada("trust", "signer", "add", "--key", ada_key, "ada", image)
    ada("trust", "signer", "add", "--key", bob_key, "bob", image)
    ada.build(f"{image}:1")
    ada("trust", "sign", f"{image}:1")
    bob("trust", "sign", f"{image}:1")
    assert signers(rita, image) == {"1": ["ada", "bob"]}
    bob("image", "tag", f"{image}:1", f"{image}:2")
    bob("trust", "sign", f"{image}:2")
    assert signers(rita, image) == {"1": ["ada", "bob"], "2": ["bob"]}

    # Docker asks, as his is the only signature of releases at the moment; with --force it would do nothing.
    ada("trust", "signer", "remove", "bob", image, stdin="y\n")
    # The list of releases was signed by bob last: nobody believes it any more, and so no tag.
    assert signers(rita, image) == {}
    bob("trust", "sign", f"{image}:2", fails=True)


def test_a_key_is_loaded_and_signs_from_another_machine(docker_of: Callable[[str], Docker], image: str) -> None:
    ada, elsewhere = docker_of("ada"), docker_of("bob")
    key, public = ada.directory / "key.pem", ada.directory / "public.pem"
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    run("openssl", "ec", "-in", key, "-pubout", "-out", public)
    ada("trust", "signer", "add", "--key", public, "signer", image)
    elsewhere("trust", "key", "load", key, "--name", "signer")
    elsewhere.build(f"{image}:1")
    elsewhere("trust", "sign", f"{image}:1")
    assert signers(ada, image) == {"1": ["signer"]}


def test_what_is_private_is_signed_by_those_who_write_and_seen_by_those_who_read(
    docker_of: Callable[[str], Docker], image: str
) -> None:
    ada, rita, stranger = (docker_of(user) for user in ("ada", "rita", "stranger"))
    assert "no signatures or cannot access" in rita("trust", "inspect", image, fails=True).text
    ada.build(f"{image}:1")
    ada("trust", "sign", f"{image}:1")
    assert signers(rita, image) == {"1": ["ada"]}
    rita("trust", "sign", f"{image}:1", fails=True)
    rita("trust", "revoke", f"{image}:1", fails=True)
    for words in (("trust", "inspect", image), ("trust", "sign", f"{image}:1")):
        refused = stranger(*words, fails=True).text
        assert "ada" not in refused
    assert UNSIGNED not in trusted(rita, "pull", f"{image}:1")


def test_the_page_on_signing_works(
    engine: Engine, server: Server, host: Island, docker_of: Callable[[str], Docker], tmp_path: Path
) -> None:
    server.make_repository("acme/app")
    server.grant("acme/owners", "admin", users=("ada",), repository="acme/app")
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(server.ca, home / "dtr-ca.crt")
    ada = docker_of("ada")
    ada.build("app:1.0", f"{HOST}/acme/app:2.0")
    ada.push(f"{HOST}/acme/app:2.0")
    notary = find_go_program("notary")
    assert notary
    output = follow(
        DOCS / "how-to" / "sign-with-docker.md",
        home,
        environment={"DOCKER_HOST": engine.host, "PATH": f"{Path(notary).parent}:{os.environ['PATH']}"},
        answers=[PASSWORD, PASSWORD],
        prefix=(*host.prefix, f"--wd={home}"),
    )
    assert re.search(r"^1.0 +[0-9a-f]{64} +ada$", output, re.MULTILINE)
    assert f"{UNSIGNED} 2.0" in output
    assert re.search(r"^targets/bob +", output, re.MULTILINE)
    assert "Successfully rotated root key" in output


def test_nothing_is_believed_of_a_server_whose_authority_docker_does_not_know(
    docker_of: Callable[[str], Docker], image: str
) -> None:
    ada = docker_of("ada")
    ada.build(f"{image}:1")
    shutil.rmtree(ada.directory / "config" / "tls")
    assert "certificate signed by unknown authority" in ada("trust", "sign", f"{image}:1", fails=True).text
