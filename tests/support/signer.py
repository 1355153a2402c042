"""Signers in processes of their own, dtr's and a stock one, and a stock notary-server: all with mutual TLS."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.server import DTR
from tests.support.tools import find_go_program

from dtr.pki import Certificate, ensure_certificate, ensure_client_certificate
from dtr.signer import RemoteSigner


@dataclass(frozen=True)
class Pair:
    """What a signer shows, and what those show who ask it."""

    server: Certificate
    client: Certificate

    def remote(self, port: int, **options: Any) -> RemoteSigner:
        """A client of the signer on this port, with more patience than one that somebody waits for."""
        assert self.server.authority is not None
        return RemoteSigner(
            f"localhost:{port}",
            ca=self.server.authority,
            certificate=self.client.chain,
            key=self.client.key,
            **{"deadline_seconds": 60.0, **options},
        )


def make_pair(directory: Path) -> Pair:
    """Certificates by a new authority in the directory."""
    return Pair(ensure_certificate(directory, []), ensure_client_certificate(directory))


class Process:
    """A program that listens on a port of loopback."""

    def __init__(self, words: list[str], port: int, log: Path, environment: dict[str, str] | None = None) -> None:
        self.port = port
        self.log_file = log
        self._words = words
        self._environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, seconds: float = 60) -> Process:
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(
                self._words,
                env={"PATH": os.environ["PATH"], **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        until = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise AssertionError(f"it did not start: {self.log_file.read_text()}") from None
                time.sleep(0.02)
            else:
                return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self, *, seconds: float = 20) -> int:
        """SIGTERM, and the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait(60)


def dtr_signer(directory: Path, pair: Pair, **environment: str) -> Process:
    """``dtr signer serve`` over a data directory of its own."""
    port = free_port()
    server, client_ca = pair.server, pair.client.authority
    return Process(
        [
            DTR, "signer", "serve", "--data-dir", str(directory), "--address", f"127.0.0.1:{port}",
            "--cert", str(server.chain), "--key", str(server.key), "--client-ca", str(client_ca),
        ],
        port,
        directory.with_name(f"{directory.name}.log"),
        environment,
    )  # fmt: skip


def stock_signer(directory: Path, pair: Pair) -> Process:
    """A notary-signer with keys in memory."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = {
        "server": {
            "grpc_addr": f"127.0.0.1:{port}",
            "tls_cert_file": str(pair.server.chain),
            "tls_key_file": str(pair.server.key),
            "client_ca_file": str(pair.client.authority),
        },
        "storage": {"backend": "memory"},
        "logging": {"level": "info"},
    }
    file = directory / "signer.json"
    file.write_text(json.dumps(configuration))
    return Process([_program("notary-signer"), "-config", str(file)], port, directory / "signer.log")


def stock_server(
    directory: Path, pair: Pair | None = None, signer_port: int = 0, algorithm: str = "ecdsa"
) -> Process:
    """A notary-server over plain HTTP, with collections in memory; without a signer it has the keys itself."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = {
        "server": {"http_addr": f"127.0.0.1:{port}"},
        "trust_service": {"type": "local"},
        "storage": {"backend": "memory"},
        "logging": {"level": "info"},
    }
    if pair is not None:
        configuration["trust_service"] = {
            "type": "remote",
            "hostname": "localhost",
            "port": str(signer_port),
            "tls_ca_file": str(pair.server.authority),
            "tls_client_cert": str(pair.client.chain),
            "tls_client_key": str(pair.client.key),
            "key_algorithm": algorithm,
        }
    file = directory / "server.json"
    file.write_text(json.dumps(configuration))
    return Process([_program("notary-server"), "-config", str(file)], port, directory / "server.log")


def _program(name: str) -> str:
    found = find_go_program(name)
    assert found, f"{name} is missing: scripts/prepare-tests builds it"
    return found
