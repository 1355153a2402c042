"""``/api/v0/meta/features``."""

from __future__ import annotations

from tests.support.api import Api


def test_everybody_who_is_logged_in_sees_the_features(api: Api):
    api.make_users("ada")
    features = api.as_("ada").get("/api/v0/meta/features").expect(200).json
    assert features["onlineGCEnabled"] is True
    assert api.anonymous.get("/api/v0/meta/features").expect(401).codes == ["NOT_AUTHENTICATED"]
