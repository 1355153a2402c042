"""
Blobs in S3: `python -m benchmarks.s3 --rounds 3 --big-mib 1024`.

dtr and Debian's docker-registry side by side, in turn, over one versitygw: the bytes pass through both, no client
is redirected. What the store itself costs is not counted, and is the same for both.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.s3 import ACCESS_KEY, SECRET_KEY, run_s3_server

from benchmarks.run import compare, in_turn, print_head, print_row
from benchmarks.scenarios import Content, scenarios
from benchmarks.servers import DockerRegistry, Dtr, stop_all
from dtr.pki import ensure_certificate

if TYPE_CHECKING:
    from tests.support.s3 import S3Server

    from dtr.pki import Certificate

_WANTED = ("pull", "push", "200 layers")


class S3Registry(DockerRegistry):
    """The peer over S3."""

    def __init__(self, directory: Path, certificate: Path, key: Path, store: S3Server) -> None:
        """In a bucket of this store."""
        self._store = store
        super().__init__(directory, certificate, key)

    def environment(self) -> dict[str, str]:
        """See `Server`; its library stumbles over settings of Amazon's."""
        return {name: value for name, value in super().environment().items() if not name.startswith("AWS_")}

    def _configuration(self, name: str, port: int, more: str) -> Path:
        s3 = {
            "accesskey": ACCESS_KEY,
            "secretkey": SECRET_KEY,
            "region": "us-east-1",
            "regionendpoint": self._store.endpoint,
            "bucket": "blobs",
            "rootdirectory": "/peer",
            "secure": self._store.endpoint.startswith("https:"),
            "skipverify": True,
        }
        file = self.directory / f"{name}.yml"
        file.write_text(
            "version: 0.1\n"
            "log: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{s3: {json.dumps(s3)}, delete: {{enabled: true}}, redirect: {{disable: true}}}}\n"
            f"http:\n  addr: 127.0.0.1:{port}\n{more}"
        )
        return file


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each scenario runs on each")
    parser.add_argument("--big-mib", type=int, default=1024, help="size of the large layer")
    parser.add_argument("--workers", type=int, help="worker processes of dtr (default: its own)")
    parser.add_argument("--only", default="", help="scenarios whose name contains this text")
    parser.add_argument("--store-tls", action="store_true", help="reach the store over TLS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dtr-bench-") as name:
        directory = Path(name)
        (directory / "store").mkdir()
        more: list[str] = []
        certificate = ensure_certificate(directory / "store", ())
        if options.store_tls:
            more = ["--cert", str(certificate.chain), "--key", str(certificate.key)]
        # Connections are kept, as stores do.
        with run_s3_server(directory / "store", "--keep-alive", "--quiet", *more) as store:
            if options.store_tls:
                store.endpoint = store.endpoint.replace("http:", "https:")
            measure(directory, store, options, certificate)


def measure(
    directory: Path, store: S3Server, options: argparse.Namespace, certificate: Certificate
) -> list[dict[str, Any]]:
    """Run everything in `directory`; the rows of the table."""
    content = Content(directory, big_mib=options.big_mib, tags=10)
    ours = Dtr(directory / "dtr", workers=options.workers)
    ours.more = {f"DTR_{key.upper().replace('.', '__')}": value for key, value in store.settings.items()}
    ours.more["DTR_STORAGE__S3__PREFIX"] = "ours"
    ours.more["DTR_STORAGE__S3__CA_BUNDLE"] = str(certificate.authority)
    ours.start()
    peer = S3Registry(
        directory / "registry", ours.directory / "tls/server.pem", ours.directory / "tls/server-key.pem", store
    )
    peer.start()
    rows = []
    try:
        for server in (peer, ours):
            server.prepare()
            content.push_to(server)
        print_head()
        for scenario in scenarios(content, seconds=4):
            if not any(one in scenario.name for one in _WANTED) or options.only not in scenario.name:
                continue
            theirs, mine = in_turn(scenario, (peer, ours), options.rounds)
            rows.append({**compare(scenario, theirs, mine), "goal": None})
            print_row(rows[-1])
    finally:
        stop_all((ours, peer))
    return rows


if __name__ == "__main__":
    main()
