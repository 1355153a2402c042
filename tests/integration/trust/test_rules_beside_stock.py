"""
The rules beside those of a stock notary-server: the same updates, with the keys of either, get the same answers.

Updates of delegations are left out: a stock server that a Go of today built cuts the names of their files.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from tests.support.bad_updates import (
    BAD_ROOTS,
    BAD_SNAPSHOTS,
    BAD_TARGETS,
    DIGEST,
    GUN,
    UPDATES,
    Scene,
    set_role,
    with_root_key,
)
from tests.support.collection import Collection, VersionTaken
from tests.support.notary import SHA1_CERTIFICATE, Key, Publisher
from tests.support.signer import stock_server
from tests.support.trust import BOUNDARY, form

from dtr.tuf import Malformed, RuleBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GOOD = "good"
STRICTER: dict[str, str] = {
    "targets: no hash of a target": "A target without a hash names nothing.",
    "snapshot: another size of root": "Clients compare sizes, too: they would refuse what is stored.",
    "snapshot: another size of targets": "The same.",
    "targets as {'signed':{'version':1,'version':2}}": "Readers in Go join what has the same name.",
    "root as {'signed':{'version':1,'version':2}}": "The same.",
    "targets as {'signed':{}} x": "Something behind the file is no part of it.",
    "root as {'signed':{}} x": "The same.",
    "targets as null": "Nothing is no file.",
    "root as null": "The same.",
}
"""Where dtr refuses more, or earlier, than the stock server, and why."""


class StockCollection:
    """The collection on a stock server, which begins anew."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v2/{GUN}/_trust/tuf/"
        self._send("DELETE", "")

    def publisher(self, *, holds_snapshot: bool = False) -> Publisher:
        timestamp, snapshot = (json.loads(self._send("GET", f"{role}.key")) for role in ("timestamp", "snapshot"))
        return Publisher(GUN, timestamp, Key.make() if holds_snapshot else snapshot)

    def publish(self, parts: Mapping[str, bytes]) -> None:
        assert self.verdict(parts) == GOOD

    def verdict(self, parts: Mapping[str, bytes]) -> str:
        """GOOD, the name of the rule that is broken, or the code of the error."""
        try:
            self._send("POST", "", form(list(parts.items())))
        except urllib.error.HTTPError as refused:
            error = json.loads(refused.read())["errors"][0]
            return str(error["detail"]["Name"] if error["code"] == "INVALID_UPDATE" else error["code"])
        return GOOD

    def _send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"} if body else {}
        request = urllib.request.Request(self._url + path, data=body, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())


class OwnCollection(Collection):
    """The collection by dtr's rules."""

    def verdict(self, parts: Mapping[str, bytes]) -> str:
        try:
            self.publish(parts)
        except RuleBroken as error:
            return error.name
        except Malformed:
            return "MALFORMED_JSON"
        except VersionTaken:
            return "VERSION"
        return GOOD


class Both:
    """What both say of the same update."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.differences: dict[str, tuple[str, str]] = {}
        self.agreed = 0

    def compare(
        self,
        name: str,
        make: Callable[[Publisher], dict[str, bytes]],
        bend: Callable[[Scene], object] = lambda _: None,
        *,
        holds_snapshot: bool = False,
        is_first: bool = False,
    ) -> None:
        """An update of a collection that has one already, unless `is_first`."""
        verdicts = []
        for collection in (OwnCollection(GUN), StockCollection(self._port)):
            publisher = collection.publisher(holds_snapshot=holds_snapshot)
            if not is_first:
                collection.publish(publisher.first({"latest": DIGEST}))
            one = Scene(collection, publisher, make(publisher))
            bend(one)
            verdicts.append(collection.verdict(one.parts))
        if verdicts[0] == verdicts[1]:
            self.agreed += 1
        else:
            self.differences[name] = (verdicts[0], verdicts[1])


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory):
    server = stock_server(tmp_path_factory.mktemp("stock"))
    yield server.start().port
    server.kill()


def put(role: str, content: bytes) -> Callable[[Scene], object]:
    return lambda one: one.parts.update({role: content})


FILES = [
    b"{}",
    b"null",
    b"[]",
    b"",
    b"{'signed':null}",
    b"{'signed':[]}",
    b"{'signed':{}} x",
    b"{'signed':{'version':1,'version':2}}",
    b"{'signed':{'version':1.0}}",
    b"{'signed':{'version':'1'}}",
    b"{'signed':{'version':99999999999999999999}}",
    b"{'signed':{'_type':1}}",
    b"{'signed':{'expires':'tomorrow'}}",
    b"{'signed':{'x':'\\ud800'}}",
    b"{'signed':{},'signatures':[{'sig':'no base64'}]}",
    b"\xef\xbb\xbf{}",
]
CERTIFICATES: dict[str, Callable[[], Key]] = {
    "of all of alice's": lambda: Key.certified("dtr.example/alice/*"),
    "of all": lambda: Key.certified("**"),
    "rsa": lambda: Key.certified(GUN, "rsa"),
    "sha1": lambda: Key("ecdsa-x509", SHA1_CERTIFICATE, Key.make().private),
    "authority behind": lambda: chained(Key.certified(GUN), Key.certified("ca", is_ca=True), leaf_first=True),
    "authority before": lambda: chained(Key.certified(GUN), Key.certified("ca", is_ca=True), leaf_first=False),
}


def chained(leaf: Key, authority: Key, *, leaf_first: bool) -> Key:
    both = [leaf.public, authority.public]
    return Key(leaf.type, b"".join(both if leaf_first else both[::-1]), leaf.private)


def test_both_give_the_same_answers(port: int) -> None:
    both = Both(port)
    for name, update, bend, _ in BAD_ROOTS:
        both.compare(f"root: {name}", UPDATES[update], bend)
    for name, bend_role, _ in BAD_TARGETS:
        both.compare(f"targets: {name}", only_next, lambda one, bend=bend_role: bend(one, "targets"))
    for name, bend, _ in BAD_SNAPSHOTS:
        if "targets/a" not in name:
            both.compare(f"snapshot: {name}", top_level, bend, holds_snapshot=True)
    for role in ("targets", "root"):
        for content in FILES:
            name = f"{role} as {content.decode()}"
            both.compare(name, UPDATES["targets"], put(role, content.replace(b"'", b'"')))
    for name, key in CERTIFICATES.items():
        both.compare(f"certificate: {name}", UPDATES["root"], lambda one, key=key: with_root_key(one, key()))
    for number in range(4):
        both.compare(
            f"first root, version {number}",
            Publisher.first,
            lambda one, number=number: one.bend("root", lambda signed: signed.update(version=number)),
            is_first=True,
        )
    for missing in ("root", "targets"):
        both.compare(
            f"no {missing}", Publisher.first, lambda one, role=missing: one.parts.pop(role), is_first=True
        )
    both.compare("nothing at first", UPDATES["none"], is_first=True)
    both.compare("nothing", UPDATES["none"])
    both.compare("rotation", UPDATES["rotation"])
    both.compare("only a snapshot", Publisher.write, holds_snapshot=True)
    both.compare("no snapshot", UPDATES["targets"], lambda one: one.parts.pop("snapshot"), holds_snapshot=True)
    both.compare("another timestamp key", lambda one: one.rotate_server_key("timestamp", Key.make().json))
    for role in ("timestamp", "snapshot"):
        both.compare(f"threshold of {role}", UPDATES["root"], set_role(role, threshold=2))
    assert both.differences.keys() == STRICTER.keys(), both.differences
    assert all(ours != GOOD for ours, _ in both.differences.values())
    assert both.agreed > 90


def only_next(publisher: Publisher) -> dict[str, bytes]:
    publisher.roles["targets"]["targets"] = {}
    return publisher.sign({"next": DIGEST})


def top_level(publisher: Publisher) -> dict[str, bytes]:
    return publisher.write("root", "targets")
