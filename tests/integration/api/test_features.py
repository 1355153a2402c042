"""``/api/v0/meta/features``."""

from __future__ import annotations

import time

from tests.support.api import Api


def test_everybody_who_is_logged_in_sees_the_features(api: Api):
    api.make_users("ada")
    features = api.as_("ada").get("/api/v0/meta/features").expect(200).json
    assert features["onlineGCEnabled"] is True
    assert features["readOnlyRegistry"] is False
    api.admin.post("/api/v0/meta/settings", {"readOnlyRegistry": True}).expect(202)
    try:
        deadline = time.monotonic() + 60
        while not all(
            api.as_("ada").get("/api/v0/meta/features").json["readOnlyRegistry"] is True for _ in range(10)
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        api.admin.post("/api/v0/meta/settings", {"readOnlyRegistry": False}).expect(202)
    assert api.anonymous.get("/api/v0/meta/features").expect(401).codes == ["NOT_AUTHENTICATED"]
