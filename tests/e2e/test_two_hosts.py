"""Two hosts behind one nginx, over one PostgreSQL and one S3: docker pushes while one of them dies, and again."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from tests.support.engine import Docker
from tests.support.invariants import find_violations
from tests.support.nginx import BEHIND, Nginx, run_nginx
from tests.support.server import PASSWORD, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Cluster
    from tests.support.engine import Engine
    from tests.support.s3 import S3Server

DEATHS = int(os.environ.get("DTR_TEST_DEATHS", "3"))
"""How often a host dies; each takes about five seconds."""
LAYER = 8_000_000
PUSHERS = 2
ATTEMPTS = 8
"""So often a push may fail; docker itself tries each layer five times."""


@pytest.fixture
def hosts(tmp_path: Path, postgresql_cluster: Cluster, s3_server: S3Server) -> Iterator[tuple[Server, Server]]:
    """Two hosts, each with a data directory of its own."""
    settings = {
        **BEHIND,
        **s3_server.settings,
        "storage.s3.prefix": tmp_path.name,
        "database.url": postgresql_cluster.create(tables=True),
        "secrets.key_file": tmp_path / "secret.key",
    }
    both = Server(tmp_path / "one", settings, workers=2), Server(tmp_path / "two", settings)
    for one in both:
        one.start()
    yield both
    for one in both:
        one.close()


@pytest.fixture
def nginx(hosts: tuple[Server, Server]) -> Iterator[Nginx]:
    """In front of both; whichever has less to do gets the next request."""
    with run_nginx(*hosts) as running:
        yield running


@dataclass
class Pushed:
    """What became of pushes."""

    acknowledged: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The digest, and the id of the image, of each tag whose push ended well."""
    failures: list[str] = field(default_factory=list)
    """What docker said where it did not."""
    interrupted: int = 0
    """Layers that docker tried again."""


def push(docker: Docker, repository: str, number: int, seed: str, pushed: Pushed) -> None:
    """Build an image and push it, until that ends well."""
    image = f"{repository}:v{number}"
    content = random.Random(f"{seed}/{image}")
    image_id = docker.build(image, files={name: content.randbytes(LAYER) for name in ("one", "two")})
    for _ in range(ATTEMPTS):
        done = subprocess.run(
            ["docker", "push", image],
            env={**os.environ, **docker.environment},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        pushed.interrupted += done.stdout.count("Retrying in 1 second")
        if done.returncode == 0:
            digest = done.stdout.rpartition("digest: ")[2].split()[0]
            pushed.acknowledged[image] = digest, image_id
            return
        assert done.stderr.strip(), "docker does not say why it failed"
        pushed.failures.append(done.stderr.strip())
    raise AssertionError("\n".join(pushed.failures))


def test_whatever_was_acknowledged_is_there_and_every_push_ends_well_in_the_end(
    engine: Engine, tmp_path: Path, hosts: tuple[Server, Server], nginx: Nginx
) -> None:
    seed = os.environ.get("DTR_TEST_SEED") or str(random.randrange(2**32))
    dice = random.Random(seed)
    over = threading.Event()
    pushed = Pushed()
    dockers = [Docker(engine, tmp_path / f"docker{number}") for number in range(PUSHERS)]
    for number, docker in enumerate(dockers):
        docker.login(nginx.address, "admin", PASSWORD)
        hosts[0].make_repository(f"admin/pushed{number}")

    def go_on(number: int) -> None:
        count = 0
        while not over.is_set():
            push(dockers[number], f"{nginx.address}/admin/pushed{number}", count, seed, pushed)
            count += 1

    with ThreadPoolExecutor(PUSHERS) as threads:
        pushing = [threads.submit(go_on, number) for number in range(PUSHERS)]
        try:
            for _ in range(DEATHS):
                time.sleep(dice.uniform(1.5, 3))
                victim = dice.choice(hosts)
                victim.kill()
                time.sleep(dice.uniform(0.3, 1.5))
                victim.start()
        finally:
            over.set()
        for one in pushing:
            one.result()

    print(f"seed {seed}: {len(pushed.acknowledged)} pushes, {pushed.interrupted} layers tried again, "
          f"{len(pushed.failures)} failures")  # fmt: skip
    assert pushed.acknowledged
    for image, (digest, image_id) in pushed.acknowledged.items():
        dockers[0].forget(image, f"{image.rpartition(':')[0]}@{digest}")
        assert digest in dockers[0]("pull", image).stdout
        assert dockers[0].id(image) == image_id
        assert dockers[0].greeting(image)
    assert hosts[1].do(lambda application: find_violations(application.database, application.storage)) == []
