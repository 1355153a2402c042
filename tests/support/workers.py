"""The workers of a server, each asked by itself."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.client import Client
from tests.support.server import Server
from tests.support.wire import wait_until


def wait_for_workers(server: Server, knows: Callable[[Client], bool], user: str = "admin") -> None:
    """Until each worker `knows` of something, as a client of `user` sees it whose connection that worker has."""
    for worker in server.worker_pids:
        client = _client_of(server, worker, user)
        try:
            wait_until(lambda client=client: knows(client))  # type: ignore[misc]
        finally:
            client.close()


def _client_of(server: Server, worker: int, user: str) -> Client:
    """A client whose connection goes to this worker."""
    for _ in range(200):
        client = Client(server, user, retries=False)
        client.send("GET", "/v2/").expect(401)
        if server.worker_of(client.local_port) == worker:
            return client
        client.close()
    raise AssertionError("all connections go to other workers")
