"""The activity of a repository: sentences, filters, who sees what, as CSV."""

from __future__ import annotations

import csv
import datetime as dt
import io
import time

import pytest
from tests.support.images import make_image
from tests.support.rooms import annotated
from tests.support.site import Shown, Site

AT = "/repositories/acme/app/activity"


@pytest.fixture(scope="module")
def world(site: Site) -> Site:
    api = site.api
    api.make_users("ada", "rita")
    api.make_organization("acme", owners=("ada",))
    api.make_team("acme/readers", "rita")
    api.make_repository("acme/app")
    api.grant("acme/readers", "read-only", repository="acme/app")
    ada = api.as_("ada")
    image = make_image()
    ada.client.push("acme/app", image, "v1")
    ada.client.put_manifest("acme/app", annotated(image, n="2"), "v1").expect(201)
    ada.client.push("acme/app", image, "v2")
    ada.delete("/api/v0/repositories/acme/app/tags/v2").expect(204)
    ada.patch("/api/v0/repositories/acme/app", {"tagLimit": 9, "visibility": "public"}).expect(200)
    for _ in range(3):
        api.as_("rita").client.get_manifest("acme/app", "v1").expect(200)
    deadline = time.monotonic() + 60
    while api.rows("SELECT coalesce(sum(times), 0) FROM events WHERE type = 'GET'") != [(3,)]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # They are written together, unless the second ended in between: then they are put together here.
    first = "(SELECT min(id) FROM events WHERE type = 'GET')"
    api.change(f"DELETE FROM events WHERE type = 'GET' AND id > {first}")
    api.change("UPDATE events SET times = 3 WHERE type = 'GET'")
    return site


def told(shown: Shown) -> list[str]:
    return [" ".join(one.p.get_text().split()) for one in shown.all(".timeline li")]  # type: ignore[union-attr]


def test_what_happened_is_told_in_sentences_the_latest_first_without_pulls(world: Site):
    shown = world.as_("ada").get(AT).expect(200)
    sentences = told(shown)
    assert sentences[0] == "ada changed the settings of acme/app: visibility (public), tag limit (9)"
    assert any(one.startswith("ada deleted the tag v2 (") for one in sentences)
    assert any(one.startswith("ada pushed v1 again (") and ", before " in one for one in sentences)
    assert any(one.startswith("ada pushed v1 for the first time (") for one in sentences)
    assert "The registry gave acme/readers the level read only on acme/app" in sentences
    assert sentences[-1] == "The registry made the repository acme/app"
    assert not any("pulled" in one for one in sentences)
    assert "from 127.0.0.1" in shown.text


def test_who_administers_it_sees_pulls_and_others_do_not(world: Site):
    shown = world.as_("ada").get(f"{AT}?excludePull=false").expect(200)
    (pull,) = (one for one in told(shown) if "pulled" in one)
    assert pull.startswith("rita pulled v1 (")
    assert "3 times" in pull
    reader = world.as_("rita").get(f"{AT}?excludePull=false").expect(200)
    assert not any("pulled" in one or "gave" in one for one in told(reader))
    assert "127.0.0.1" not in reader.text
    assert not reader.has("input[name=excludePull]")
    assert [one["value"] for one in reader.all("select[name=objectType] option")] == [
        "",
        "tag",
        "manifest",
        "repository",
        "blob",
    ]
    # It is public: the activity is for who is logged in.
    assert world.as_(None).get(AT).title == "Log in"


def test_filters_are_in_the_address(world: Site):
    ada = world.as_("ada")
    assert [one.split()[1] for one in told(ada.get(f"{AT}?eventType=DELETE"))] == ["deleted"]
    assert all("pulled" in one for one in told(ada.get(f"{AT}?eventType=GET")))
    tags = told(ada.get(f"{AT}?objectType=tag&eventType=CREATE"))
    assert len(tags) == 2
    moments = world.api.rows("SELECT min(published_at), max(published_at) FROM events")[0]
    first, last = (dt.datetime.fromtimestamp(one / 1000, dt.UTC).date() for one in moments)
    assert told(ada.get(f"{AT}?from={first}&until={last}"))
    assert not told(ada.get(f"{AT}?until={first - dt.timedelta(days=1)}"))
    nothing = ada.get(f"{AT}?from={last + dt.timedelta(days=1)}").expect(200)
    assert "Nothing like that happened" in nothing.text
    # What makes no sense asks for nothing special.
    assert len(told(ada.get(f"{AT}?eventType=NONE&objectType=x&from=soon"))) == len(told(ada.get(AT)))
    # Whoever did something links to what else they did.
    link = next(link for link in ada.get(AT).links if "actorId=" in link)
    only = ada.get(link).expect(200)
    assert {one.split()[0] for one in told(only)} == {"ada"}
    assert "Only what ada did" in only.text


def test_links_lead_to_lists_also_when_what_they_name_is_gone(world: Site):
    ada = world.as_("ada")
    links = {link for link in ada.get(f"{AT}?excludePull=false").links if "/tags?q=" in link or "activity" in link}
    assert any(link.endswith("/tags?q=v2") for link in links)
    for link in links:
        ada.get(link).expect(200)


def test_pages_go_on_where_the_one_before_ended(world: Site):
    world.api.make_repository("acme/busy")
    ada = world.api.as_("ada")
    for number in range(30):
        ada.patch("/api/v0/repositories/acme/busy", {"shortDescription": str(number)}).expect(200)
    visitor = world.as_("ada")
    first = visitor.get("/repositories/acme/busy/activity").expect(200)
    assert "31 events" in first.text
    second = visitor.get(str(first.one("a[rel=next]")["href"])).expect(200)
    assert (len(told(first)), len(told(second))) == (25, 6)
    assert not second.has("a[rel=next]")
    assert len(first.answer.body) < 50_000


def test_the_table_has_the_same_events_and_is_safe_to_open(world: Site):
    ada = world.as_("ada")
    shown = ada.get(f"{AT}?eventType=DELETE")
    link = next(link for link in shown.links if "activity.csv" in link)
    answer = ada.get(link).expect(200).answer
    assert answer.headers["content-type"].startswith("text/csv")
    assert 'filename="acme-app-events.csv"' in answer.headers["content-disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.body.decode()))
    assert (row["type"], row["objectName"], row["actorName"]) == ("DELETE", "v2", "ada")
    readers = world.as_("rita").get("/repositories/acme/app/activity.csv?excludePull=false").answer.body.decode()
    assert "GET" not in {row["type"] for row in csv.DictReader(io.StringIO(readers))}
    assert world.as_(None).get("/repositories/acme/app/activity.csv").title == "Log in"
