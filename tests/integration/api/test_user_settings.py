"""A user's settings, and the language that follows from them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.api import Api

ADA = "/api/v0/accounts/ada/settings"
LANGUAGE = "/api/v0/accounts/language"


@pytest.fixture(scope="module", autouse=True)
def world(api: Api) -> None:
    api.make_users("ada", "bob", "audrey")
    api.make_organization("acme", owners=("ada",))
    api.server.do(lambda application: application.accounts.update("audrey", is_auditor=True))


@pytest.fixture(autouse=True)
def _nothing_chosen(api: Api) -> None:
    api.change("DELETE FROM user_settings")


def test_nothing_is_chosen_at_first_and_what_is_given_changes(api: Api) -> None:
    ada = api.as_("ada")
    assert ada.get(ADA).expect(200).json == {"ContentCacheUUID": "", "language": ""}
    for form, language in (
        ({"language": "ja"}, "ja"),
        ({}, "ja"),
        ({"contentCacheUUID": ""}, "ja"),
        ({"language": ""}, ""),
    ):
        assert ada.patch(ADA, form).expect(200).json == {"ContentCacheUUID": "", "language": language}
        assert ada.get(ADA).json["language"] == language


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"contentCacheUUID": "9d5c0c4e-4a34-4b0f-a3a5-0a7a3c6dd5b1"}, "INVALID_USER_SETTINGS"),
        ({"contentCacheUUID": "no uuid"}, "INVALID_USER_SETTINGS"),
        ({"language": "tlh"}, "INVALID_USER_SETTINGS"),
        ({"language": 5}, "INVALID_JSON"),
        ([], "INVALID_JSON"),
    ],
)
def test_what_cannot_be_chosen_is_refused_and_changes_nothing(api: Api, form: Any, code: str) -> None:
    api.as_("ada").patch(ADA, {"language": "en"}).expect(200)
    assert api.as_("ada").patch(ADA, form).expect(400).codes == [code]
    assert api.as_("ada").get(ADA).json["language"] == "en"


def test_settings_are_their_users_and_administrators_business(api: Api) -> None:
    for name, looking, changing in (
        ("ada", 200, 200),
        ("admin", 200, 200),
        ("audrey", 200, 403),
        ("bob", 403, 403),
    ):
        api.as_(name).get(ADA).expect(looking)
        api.as_(name).patch(ADA, {"language": "en"}).expect(changing)
    api.anonymous.get(ADA).expect(401)
    api.anonymous.patch(ADA, {}).expect(401)
    for name in ("nobody", "acme"):
        path = f"/api/v0/accounts/{name}/settings"
        assert api.admin.get(path).expect(404).codes == ["NO_SUCH_USER"]
        assert api.admin.patch(path, {}).expect(404).codes == ["NO_SUCH_USER"]


def test_the_language_is_the_chosen_one_or_the_browsers(api: Api) -> None:
    ada = api.as_("ada")

    def language(accepted: str) -> str:
        answer = ada.call("GET", LANGUAGE, headers={"Accept-Language": accepted})
        return answer.expect(200).json["language"]

    assert [language(one) for one in ("ja", "ja-JP,en;q=0.5", "de", "")] == ["ja", "ja", "en", "en"]
    ada.patch(ADA, {"language": "en"}).expect(200)
    assert language("ja") == "en"
    ada.patch(ADA, {"language": "ja"}).expect(200)
    assert language("en") == "ja"
    api.anonymous.get(LANGUAGE).expect(401)


def test_a_change_is_an_event(api: Api) -> None:
    api.as_("admin").patch(ADA, {"language": "ja"}).expect(200)
    api.as_("admin").patch(ADA, {"language": "ja"}).expect(200)
    told = api.rows(
        "SELECT actor_name, object_name FROM events WHERE object_content LIKE '%content_cache%' ORDER BY id DESC"
    )
    assert told[0] == ("admin", "ada")
    before = len(told)
    api.as_("admin").patch(ADA, {"language": "ja"}).expect(200)
    assert len(api.rows("SELECT id FROM events WHERE object_content LIKE '%content_cache%'")) == before
