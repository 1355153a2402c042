"""The golden trace of the notary protocol: notary-v1, section 7.3."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.support.backends import BACKENDS
from tests.support.images import digest_of
from tests.support.notary import Key, Publisher, id_of, seal, walk
from tests.support.trust import SIGN, Trust

pytestmark = pytest.mark.parametrize("notary", BACKENDS[:2], indirect=True, scope="session")

TAG = {"v1": (digest_of(b"v1"), 123)}
OTHER = {"v2": (digest_of(b"v2"), 456)}


def test_the_golden_trace(trust: Trust, make_path: Callable[..., str]) -> None:
    """What the notary command sends from the first publication to the deletion; status and form of the answers."""
    gun = trust.gun(make_path())
    # init
    assert trust.send("GET", "/v2/").expect(401).headers["www-authenticate"].startswith("Bearer realm=")
    key = trust.ask("GET", gun, "tuf/timestamp.key", SIGN).expect(200)
    assert key.json["keytype"] == "ecdsa"
    assert key.json["keyval"]["private"] is None
    assert len(key.body) == 181
    assert trust.key(gun, "timestamp") == key.json, "a pending key is given again"
    # publish, with a snapshot of the client's
    assert trust.get(gun, "root.json").expect(404).codes == ["METADATA_NOT_FOUND"]
    publisher = Publisher(gun, key.json, Key.make())
    first = trust.publish(gun, publisher.first(TAG)).expect(200)
    assert (first.body, first.headers["content-length"]) == (b"", "0")
    found = trust.files(gun)
    assert {role: json.loads(file)["signed"]["version"] for role, file in found.items()} == {
        "root": 1, "targets": 1, "snapshot": 1, "timestamp": 1,
    }  # fmt: skip
    assert {role: found[role] for role in publisher.files} == publisher.files, "byte for byte"
    assert walk(gun, found) == {"targets": {"v1": TAG["v1"][0]}}
    # addhash
    trust.publish(gun, publisher.sign(OTHER)).expect(200)
    # key rotate snapshot -r, timestamp -r
    for role in ("snapshot", "timestamp"):
        new = trust.key(gun, role, new=True)
        assert trust.key(gun, role, new=True) == new, "until it has signed"
        trust.publish(gun, publisher.rotate_server_key(role, new)).expect(200)
        found = trust.files(gun)
        assert [one["keyid"] for one in json.loads(found[role])["signatures"]] == [id_of(new)]
        assert trust.key(gun, role) == new
    # delegation add; add --roles; witness
    bob = Key.make()
    trust.publish(gun, publisher.delegate("targets/releases", [bob])).expect(200)
    trust.publish(gun, publisher.sign({"v3": TAG["v1"]}, "targets/releases")).expect(200)
    assert walk(gun, trust.files(gun))["targets/releases"] == {"v3": TAG["v1"][0]}
    trust.publish(gun, publisher.revoke("v2")).expect(200)
    # key rotate root, three times; a reader that was away
    for _ in range(3):
        trust.publish(gun, publisher.rotate_root()).expect(200)
    found = trust.files(gun)
    newest = json.loads(found["root"])["signed"]["version"]
    behind = publisher.files["root"]
    assert found["root"] == behind
    for version in range(2, newest + 1):
        file = trust.get(gun, f"{version}.root.json").expect(200).body
        assert json.loads(file)["signed"]["version"] == version
    walk(gun, found, trusted=trust.get(gun, f"{newest - 1}.root.json").body)
    # bad custom data: signed over another form than it is read in
    publisher.sign({"v5": TAG["v1"]})
    custom = publisher.roles["targets"]["targets"]["v5"]
    custom["custom"] = {"b": 1, "a": 2}
    unsorted = json.dumps(publisher.roles["targets"], separators=(",", ":")).encode()
    bad = seal(publisher.roles["targets"], publisher.targets_keys, message=unsorted)
    refused = trust.publish(gun, {"targets": bad}).expect(400)
    assert (refused.codes, refused.json["errors"][0]["detail"]["Name"]) == (["INVALID_UPDATE"], "ErrBadTargets")
    # delete --remote
    gone = trust.delete(gun).expect(200)
    assert gone.body == b""
    for name in ("root.json", "timestamp.json", "1.root.json"):
        assert trust.get(gun, name).expect(404).codes == ["METADATA_NOT_FOUND"]
    trust.delete(gun).expect(200)  # also when nothing is there
