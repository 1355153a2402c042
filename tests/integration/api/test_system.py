"""``/api/v0/meta/health``, ``usage``, ``garbage``, ``certificate``: how the whole installation is."""

from __future__ import annotations

import datetime as dt
import shutil
import time

from cryptography import x509
from tests.support.api import Api
from tests.support.client import settle
from tests.support.images import make_image

META = "/api/v0/meta"


def test_usage_counts_what_is_shared_once_and_for_each(api: Api):
    for name in ("one", "two"):
        api.make_repository(f"admin/{name}")
    image = make_image(layers=1, size=60_000)
    before = api.admin.get(f"{META}/usage").expect(200).json
    began = dt.datetime.now(dt.UTC).date()
    for name in ("one", "two"):
        api.admin.client.push(f"admin/{name}", image, "v1")
        api.admin.client.get_manifest(f"admin/{name}", "v1").expect(200)
    deadline = time.monotonic() + 60
    while True:
        after = api.admin.get(f"{META}/usage", days=7).expect(200).json
        today = after["days"][-1]
        passed = (dt.date.fromisoformat(today["day"]) - began).days  # none, unless a day ended meanwhile
        pulls, pushes = (sum(one[name] for one in after["days"][-1 - passed :]) for name in ("pulls", "pushes"))
        if (pulls, pushes, after["pulls"] - before["pulls"]) == (2, 2, 2):
            break
        assert time.monotonic() < deadline, after
        time.sleep(0.2)
    size = after["bytes"] - before["bytes"]
    assert size >= 60_000
    assert after["countedBytes"] - before["countedBytes"] == 2 * size
    assert after["repositories"] - before["repositories"] == 0
    assert after["repositories"] == 2
    assert after["pushes"] - before["pushes"] == 2
    assert len(after["days"]) == 7
    assert today["bytes"] == after["bytes"]
    assert began.isoformat() <= today["day"] <= dt.datetime.now(dt.UTC).date().isoformat()
    quick = api.admin.get(f"{META}/usage", counted="false").expect(200).json
    assert (quick["countedBytes"], quick["pulls"], quick["pushes"], quick["bytes"]) == (
        None,
        None,
        None,
        after["bytes"],
    )
    assert api.admin.get(f"{META}/usage", days=0).expect(400).codes == ["INVALID_PARAMETERS"]


def test_garbage_is_counted_before_it_is_collected(api: Api):
    api.admin.post(f"{META}/settings", {"garbageCollection": "off"}).expect(202)
    settle(api.server)
    api.make_repository("admin/waste")
    image = make_image(layers=1, size=50_000)
    api.admin.client.push("admin/waste", image, "v1")
    api.admin.client.call("DELETE", "/v2/admin/waste/manifests/v1").expect(202)
    assert api.admin.get(f"{META}/garbage").expect(200).json["manifests"] == 0
    time.sleep(0.01)
    due = api.admin.get(f"{META}/garbage", grace="1ms").expect(200).json
    assert (due["manifests"], due["blobs"]) == (1, 0)  # the manifest holds its blobs still
    api.change("DELETE FROM manifests WHERE review_at IS NOT NULL")
    api.change(
        "UPDATE repository_blobs SET review_at = 1 WHERE repository_id NOT IN (SELECT repository_id FROM tags)"
    )
    api.change(
        "INSERT INTO gc_objects (location, size, delete_after, attempts) VALUES ('default:x', 7, :l, 0)", l=2**50
    )
    client = api.admin.client
    client.call("PATCH", client.start_upload("admin/waste"), b"begun").expect(202)
    free = api.admin.get(f"{META}/garbage", grace="10m").expect(200).json
    assert free["blobs"] == 2
    assert free["blobBytes"] >= 50_000
    assert (free["objects"], free["objectBytes"], free["uploads"]) == (1, 7, 1)
    assert api.admin.get(f"{META}/garbage", grace="soon").expect(400).codes == ["INVALID_PARAMETERS"]
    api.change("DELETE FROM gc_objects")


def test_health_says_what_does_not_answer(api: Api):
    health = api.admin.get(f"{META}/health").expect(200).json
    found = {(one["kind"], one["name"]): one["isHealthy"] for one in health["components"]}
    assert found == {("metadata", ""): True, ("storage", "default"): True, ("trust", ""): True}
    (replica,) = health["replicas"]
    assert (replica["isThere"], replica["isOwn"], replica["HTTPSPort"]) == (True, True, api.server.port)
    assert {"registry", "api"} <= set(replica["components"])
    blobs = api.server.directory / "blobs"
    moved = blobs.with_name("elsewhere")
    blobs.rename(moved)
    blobs.write_bytes(b"")
    try:
        deadline = time.monotonic() + 60
        while True:
            health = api.admin.get(f"{META}/health").expect(200).json
            storage = next(one for one in health["components"] if one["kind"] == "storage")
            if not storage["isHealthy"]:
                break
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert storage["message"] == "the storage default does not answer"
    finally:
        blobs.unlink()
        shutil.move(moved, blobs)


def test_the_certificate_is_told_as_it_is(api: Api):
    told = api.admin.get(f"{META}/certificate").expect(200).json
    (authority,) = x509.load_pem_x509_certificates(api.server.ca.read_bytes())
    assert told["isOwn"] is True
    assert told["problems"] == []
    assert told["authority"][0]["subject"] == authority.subject.rfc4514_string() == told["chain"][0]["issuer"]
    assert "localhost" in told["chain"][0]["names"]
    assert told["chain"][0]["key"] == "EC secp256r1"
    assert len(told["chain"][0]["fingerprint"]) == 64
    assert told["chain"][0]["endsAt"] > dt.datetime.now(dt.UTC).isoformat()
    api.admin.post(f"{META}/settings", {"dtrHost": "registry.example:8443"}).expect(202)
    (problem,) = api.admin.get(f"{META}/certificate").expect(200).json["problems"]
    assert problem == {"isSerious": True, "message": "the certificate is not valid for registry.example"}
    api.admin.post(f"{META}/settings", {"dtrHost": ""}).expect(202)
