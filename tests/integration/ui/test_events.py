"""The page of all events, and their export."""

from __future__ import annotations

import csv
import io
import json

import pytest
from tests.support.site import Site, Visitor

EVENTS = "/system/settings/events"
HOSTILE = "\u202e<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module", autouse=True)
def world(site: Site) -> None:
    api = site.api
    api.make_users("ada", "iris", "paul")
    api.change("UPDATE accounts SET is_auditor = true WHERE name = 'iris'")
    api.make_repository("ada/own")
    ada = api.as_("ada")
    ada.patch("/api/v0/repositories/ada/own", {"shortDescription": "mine"}).expect(200)
    ada.patch("/api/v0/repositories/ada/own", {"visibility": "public"}).expect(200)


@pytest.fixture
def admin(site: Site) -> Visitor:
    return site.as_("admin")


def test_events_are_told_and_filtered_by_the_address(site: Site, admin: Visitor):
    shown = admin.get(f"{EVENTS}?actor=ada&objectType=repository").expect(200)
    assert "2 events" in shown.text
    assert "ada changed the settings of ada/own" in shown.text
    assert "127.0.0.1" in shown.text
    assert "Events are kept for good." in shown.text
    assert len(admin.get(f"{EVENTS}?repository=ada/own&eventType=UPDATE").all("#list tbody tr")) == 2
    assert "Nothing like that happened" in admin.get(f"{EVENTS}?actor=nobody-of-this-name").text
    assert "Nothing like that happened" in admin.get(f"{EVENTS}?actor=ada&until=2020-01-01").text
    assert "2 events" in admin.get(f"{EVENTS}?actor=ada&objectType=repository&from=2020-01-01").text
    assert "Nothing like that happened" in admin.get(f"{EVENTS}?address=192.0.2.99").text
    for senseless in ("eventType=NONE", "objectType=none", "from=yesterday", "until=9999-12-31", "size=7"):
        assert admin.get(f"{EVENTS}?{senseless}").has("#list tbody tr")
    assert admin.get(f"{EVENTS}?start=x").status == 400


def test_every_link_of_the_list_leads_to_a_page(admin: Visitor):
    shown = admin.get(f"{EVENTS}?actor=ada").expect(200)
    for address in shown.links:
        if address.startswith(EVENTS):
            admin.get(address).expect(200)


def test_foreign_texts_are_shown_as_text(site: Site, admin: Visitor):
    site.api.admin.post("/api/v0/crons", {"action": "sleep", "schedule": "@yearly"}).expect(202)
    site.api.admin.delete("/api/v0/crons/sleep").expect(204)
    site.api.change(
        "UPDATE events SET actor_name = :text, address = :text, repository = :text, object_name = :text"
        " WHERE object_type = 'cron'",
        text=HOSTILE,
    )
    shown = admin.get(f"{EVENTS}?objectType=cron").expect(200)
    assert b"<img src=x" not in shown.answer.body
    (row, *_) = shown.all("#list tbody tr")
    assert row.get_text().count(HOSTILE) >= 4
    for address in (one for one in shown.links if one.startswith(f"{EVENTS}?")):
        assert b"<img src=x" not in admin.get(address).expect(200).answer.body
    assert not admin.get(f"{EVENTS}?actor=%3Cscript%3E").has("main script")


def test_events_come_in_pages(site: Site, admin: Visitor):
    for number in range(30):
        site.api.admin.post("/api/v0/action_configs", {"action": "sleep", "parameters": {"seconds": str(number)}})
    first = admin.get(f"{EVENTS}?objectType=action_config").expect(200)
    second = admin.get(str(first.one("a[rel=next]")["href"])).expect(200)
    assert (len(first.all("#list tbody tr")), len(second.all("#list tbody tr"))) == (25, 5)
    assert f"{EVENTS}?objectType=action_config" in second.links
    assert len(first.answer.body) < 50_000


def test_what_the_filters_mean_is_exported(admin: Visitor):
    shown = admin.get(f"{EVENTS}?actor=ada&objectType=repository").expect(200)
    by_form = {one.rpartition("=")[2]: one for one in shown.links if one.startswith(f"{EVENTS}/export")}
    table = admin.get(by_form["csv"]).expect(200).answer
    assert "attachment" in table.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(table.body.decode())))
    assert {(row["actorName"], row["objectType"]) for row in rows} == {("ada", "repository")}
    lines = [json.loads(one) for one in admin.get(by_form["jsonl"]).expect(200).answer.body.splitlines()]
    assert [one["id"] for one in lines] == [row["id"] for row in rows]
    assert len(lines) == 2


def test_how_long_events_are_kept_is_told(site: Site, admin: Visitor):
    settings = {
        "repoEventHistoryCompactionEnabled": True,
        "repoEventHistoryMaxAge": "720h",
        "repoEventHistoryToKeep": 1000,
    }
    site.api.admin.post("/api/v0/meta/settings", settings).expect(202)
    told = "Events older than 30 days are deleted, and all but the newest 1,000."
    assert told in admin.get(EVENTS).text
    site.api.admin.post("/api/v0/meta/settings", {"repoEventHistoryCompactionEnabled": False}).expect(202)


def test_auditors_see_them_and_others_do_not(site: Site):
    for path in (EVENTS, f"{EVENTS}/export"):
        site.as_("iris").get(path).expect(200)
        assert site.as_("paul").get(path).status == 403
        assert site.as_(None).get(path).title == "Log in"
    assert "/system/settings/general" not in str(site.as_("iris").get(EVENTS).one("#list"))
