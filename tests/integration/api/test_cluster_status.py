"""``/api/v0/meta/cluster_status``: every process tree reports itself, and is missed when it does not."""

from __future__ import annotations

import datetime as dt
import re
import time

from tests.support.api import Api

PATH = "/api/v0/meta/cluster_status"
BACKEND = "postgresql"


def test_this_replica_is_well(api: Api):
    status = api.admin.get(PATH).expect(200).json
    (replica,) = status["replica_health"]
    assert re.fullmatch("[0-9a-f]{12}", replica)
    assert status["replica_health"][replica] == "OK"
    assert status["replica_readonly"][replica] is False
    assert status["gc_lock_holder"] == ""
    assert status["rethink_system_tables"] == {}
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(status["replica_timestamp"][replica])
    assert age < dt.timedelta(seconds=30)
    assert api.admin.get("/api/v0/meta/settings").json["replicaID"] == replica


def test_another_one_is_not_seen_when_it_is_silent_for_half_a_minute(api: Api):
    now = int(time.time() * 1000)
    for number, ago in (("b" * 12, 10_000), ("c" * 12, 31_000)):
        api.change(
            "INSERT INTO replicas (id, node, version, components, started_at, seen_at)"
            " VALUES (:number, 'h', '0.9', '[]', :at, :at)",
            number=number,
            at=now - ago,
        )
    status = api.admin.get(PATH).expect(200).json
    api.change("DELETE FROM replicas WHERE node = 'h'")
    assert status["replica_health"]["b" * 12] == "OK"
    assert status["replica_health"]["c" * 12] == "NOT SEEN"
    assert status["replica_version"]["c" * 12] == "0.9"


def test_it_is_for_administrators_and_auditors(api: Api):
    api.make_users("plain", "looker")
    api.change("UPDATE accounts SET is_auditor = true WHERE name = 'looker'")
    assert api.anonymous.get(PATH).expect(401).codes == ["NOT_AUTHENTICATED"]
    assert api.as_("plain").get(PATH).expect(403).codes == ["NOT_AUTHORIZED"]
    api.as_("looker").get(PATH).expect(200)


def test_a_replica_keeps_its_id_and_takes_its_row_with_it(api: Api):
    before = api.admin.get(PATH).json["replica_health"].keys()
    api.server.stop()
    assert api.rows("SELECT id FROM replicas") == []
    api.server.start()
    assert api.admin.get(PATH).json["replica_health"].keys() == before
