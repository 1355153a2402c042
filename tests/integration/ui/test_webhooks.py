"""Webhooks on pages: of a repository, a namespace and the registry; made, tried out, switched, told again."""

from __future__ import annotations

import hmac
import time
from collections.abc import Iterator

import pytest
from tests.support.images import make_image
from tests.support.receiver import Receiver, Reply, receiving
from tests.support.site import Shown, Site

SETTINGS = {"webhooks.allowed_networks": "127.0.0.1/32"}
AT = "/repositories/acme/app/webhooks"
FORM = "#new-webhook"


@pytest.fixture(scope="module")
def world(site: Site) -> Site:
    api = site.api
    api.make_users("ada", "adam", "rita", "will", "stan")
    api.make_organization("acme", owners=("ada",), members=("stan",))
    api.make_repository("acme/app")
    levels = {"readers": ("rita", "read-only"), "writers": ("will", "read-write"), "admins": ("adam", "admin")}
    for team, (user, level) in levels.items():
        api.make_team(f"acme/{team}", user)
        api.grant(f"acme/{team}", level, repository="acme/app")
    return site


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def make(world: Site, receiver: Receiver, who: str = "adam", at: str = AT, **typed: str) -> Shown:
    visitor = world.as_(who)
    shown = visitor.get(f"{at}/new").expect(200)
    typed = {"endpoint": receiver.url(host="127.0.0.1"), "skip": "on", **typed}
    return visitor.submit(shown, FORM, "Make the webhook", **typed)


def address(shown: Shown) -> str:
    return "/" + shown.url.partition("//")[2].partition("/")[2]


def deliveries(world: Site, at: str, count: int, name: str = "adam") -> Shown:
    """The webhook's page, when it has so many deliveries, and none waits."""
    deadline = time.monotonic() + 60
    while True:
        shown = world.as_(name).get(at).expect(200)
        rows = shown.all("[aria-labelledby=log] tbody tr")
        if len(rows) == count and not any("Waiting" in row.get_text() for row in rows):
            return shown
        assert time.monotonic() < deadline, shown.text
        time.sleep(0.1)


def test_from_an_empty_list_to_a_delivery_and_once_more(world: Site, receiver: Receiver):
    adam = world.as_("adam")
    assert "Nobody is told anything" in adam.get(AT).expect(200).text
    shown = make(world, receiver, secret="open sesame").expect(200)
    at = address(shown)
    assert "It tells what happens from now on." in shown.text
    assert "Nothing sent yet" in shown.text
    world.api.as_("ada").client.push("acme/app", make_image(), "v1")
    receiver.wait(1)
    shown = deliveries(world, at, 1)
    assert "Delivers" in shown.text
    row = shown.one("[aria-labelledby=log] tbody tr")
    assert "200 · " in row.get_text()
    one = adam.get(str(row.a["href"])).expect(200)  # type: ignore[index]
    assert '"type": "TAG_PUSH"' in one.text
    assert one.one("[aria-labelledby=answered] pre").get_text() == "thanks"
    assert "sesame" not in one.answer.body.decode()
    again = adam.submit(one, "form[action$=redeliver]").expect(200)
    assert "It tells once more what another delivery told" in again.text
    first, second = receiver.wait(2)
    assert (first.body, first.headers["x-dtr-delivery"]) == (second.body, second.headers["x-dtr-delivery"])
    deliveries(world, at, 2)
    asked = adam.get(f"{at}/delete").expect(200)
    gone = adam.submit(asked, "#confirm form").expect(200)
    assert "The webhook is deleted." in gone.text
    adam.get(at).expect(404)


def test_a_receiver_is_tried_out_before_and_after(world: Site, receiver: Receiver):
    adam = world.as_("adam")
    typed = {"endpoint": receiver.url(host="127.0.0.1"), "skip": "on", "name": "Chat", "type": "PROMOTION"}
    tried = adam.submit(adam.get(f"{AT}/new"), FORM, "Send a sample first", **typed, secret="s3cret").expect(200)
    assert "It answered 200" in tried.one("#trial").get_text()
    assert receiver.received[0].json["type"] == "PROMOTION"
    # Everything is still there, also the secret, which nobody can read.
    assert (tried.one("#f-name")["value"], tried.one("#f-endpoint")["value"]) == ("Chat", typed["endpoint"])
    assert not tried.one("#f-secret").has_attr("required")
    assert "s3cret" not in tried.answer.body.decode()
    assert tried.one("[name=kept_secret]")["value"]
    assert tried.answer.headers["cache-control"] == "no-store"
    receiver.reply = lambda _: Reply(503, b"<b>no room</b>")
    refused = adam.submit(tried, FORM, "Send a sample first").expect(422)
    assert "the receiver answered 503" in refused.text
    assert "s3cret" not in refused.answer.body.decode()
    made = adam.submit(refused, FORM, "Make the webhook").expect(200)
    shown = adam.submit(made, "form[action$='/test']").expect(200)
    assert "The receiver did not take the sample." in shown.one("#trial").get_text()
    assert shown.one("#trial pre").get_text() == "<b>no room</b>"
    receiver.reply = lambda _: Reply()
    shown = adam.submit(shown, "form[action$='/test']").expect(200)
    assert "The receiver took the sample." in shown.one("#trial").get_text()
    assert is_signed_with(receiver, "s3cret")


def is_signed_with(receiver: Receiver, secret: str) -> bool:
    """Whether the last delivery is signed, with this secret."""
    last = receiver.received[-1]
    signature = hmac.new(secret.encode(), last.body, "sha256").hexdigest()
    return last.headers["x-dtr-signature-256"] == f"sha256={signature}"


def test_a_secret_that_is_kept_is_good_for_its_session_and_form_alone(world: Site, receiver: Receiver):
    adam = world.as_("adam")
    typed = {"endpoint": receiver.url(host="127.0.0.1"), "skip": "on"}
    shown = adam.get(f"{AT}/new")
    assert not shown.has("[name=kept_secret]")
    tried = adam.submit(shown, FORM, "Send a sample first", **typed, secret="first one").expect(200)
    kept = str(tried.one("[name=kept_secret]")["value"])
    # Another session, another form, and what is no secret at all: as if nothing had been typed.
    other = world.as_("adam")
    for visitor, value in ((other, kept), (adam, f"{kept[:-8]}AAAAAAA="), (adam, "é"), (adam, "AAAA")):
        again = visitor.submit(visitor.get(f"{AT}/new"), FORM, "Send a sample first", **typed, kept_secret=value)
        assert not again.expect(200).has("[name=kept_secret]")
    made = other.submit(other.get(f"{AT}/new"), FORM, "Make the webhook", **typed, kept_secret=kept).expect(200)
    at = address(made)
    assert "not signed" in made.text
    elsewhere = adam.submit(adam.get(at), "#edit-webhook", kept_secret=kept).expect(200)
    assert "not signed" in elsewhere.text
    # It can be forgotten, and replaced.
    forgot = adam.submit(tried, FORM, "Send a sample first", forget_secret="on").expect(200)
    assert not forgot.has("[name=kept_secret]")
    replaced = adam.submit(tried, FORM, "Make the webhook", secret="second").expect(200)
    adam.submit(replaced, "form[action$='/test']").expect(200)
    assert is_signed_with(receiver, "second")


def test_a_new_secret_is_kept_when_a_change_is_refused(world: Site, receiver: Receiver):
    adam = world.as_("adam")
    at = address(make(world, receiver, secret="old").expect(200))
    refused = adam.submit(adam.get(at), "#edit-webhook", certificate="no certificate", secret="brand-new").expect(
        422
    )
    assert "brand-new" not in refused.answer.body.decode()
    assert refused.one("#f-secret")["value"] == ""
    assert refused.answer.headers["cache-control"] == "no-store"
    saved = adam.submit(refused, "#edit-webhook", certificate="").expect(200)
    adam.submit(saved, "form[action$='/test']").expect(200)
    assert is_signed_with(receiver, "brand-new")
    # Who wants no signature any more gets none, whatever was typed before.
    unsigned = adam.submit(refused, "#edit-webhook", certificate="", unsigned="on").expect(200)
    assert "not signed" in unsigned.text


def test_it_is_switched_and_changed(world: Site, receiver: Receiver):
    adam = world.as_("adam")
    at = address(make(world, receiver, name="Build", type="TAG_DELETE").expect(200))
    row = f"form[action='{at}']"
    off = adam.submit(adam.get(AT), row, "Switch off")
    assert "The webhook is switched off." in off.text
    assert off.url.endswith(AT)
    assert adam.get(at).has("form:has(button[value=on])")
    undone = adam.submit(off, ".toast form").expect(200)
    assert "The webhook is switched on." in undone.text
    saved = adam.submit(adam.get(at), "#edit-webhook", name="<i>CI</i>", secret="s", skip=None).expect(422)
    # Without TLS it needs to be trusted: what was typed stays, the secret does not.
    assert (saved.one("#f-name")["value"], saved.one("#f-secret")["value"]) == ("<i>CI</i>", "")
    saved = adam.submit(adam.get(at), "#edit-webhook", name="<i>CI</i>", secret="s").expect(200)
    assert ("The webhook is saved." in saved.text, "<i>CI</i>" in saved.text) == (True, True)
    assert not saved.has("main i")
    refused = adam.submit(saved, "#edit-webhook", certificate="no certificate").expect(422)
    assert refused.one("#f-certificate").get_text().strip() == "no certificate"
    assert "certificate" in refused.problems
    unsigned = adam.submit(adam.get(at), "#edit-webhook", unsigned="on").expect(200)
    assert "not signed" in unsigned.text


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        ({"endpoint": "ftp://x.example/"}, "endpoint"),
        ({"endpoint": "http://x.example/", "skip": None}, "endpoint"),
        ({"certificate": "nonsense"}, "certificate"),
        ({"name": "n" * 201}, "name"),
        ({"type": "NOTHING"}, "type"),
    ],
)
def test_what_no_webhook_can_be_is_said_at_its_field(
    world: Site, receiver: Receiver, typed: dict[str, str], field: str
):
    adam = world.as_("adam")
    given = {"endpoint": receiver.url(host="127.0.0.1"), "skip": "on", **typed}
    refused = adam.submit(adam.get(f"{AT}/new"), FORM, "Make the webhook", **given).expect(422)
    assert field in refused.problems
    assert refused.one("#f-endpoint")["value"] == given["endpoint"]


def test_several_events_are_several_webhooks(world: Site, receiver: Receiver):
    adam = world.as_("adam")
    world.api.make_repository("acme/several")
    world.api.grant("acme/admins", "admin", repository="acme/several")
    at = "/repositories/acme/several/webhooks"
    form = adam.get(f"{at}/new")
    given = {"endpoint": receiver.url(host="127.0.0.1"), "skip": "on"}
    none = adam.submit(form, FORM, "Make the webhook", **given, type=None).expect(422)
    assert none.problems == {"type": "Choose at least one."}
    shown = adam.submit(form, FORM, "Make the webhook", **given, type=["TAG_PUSH", "TAG_DELETE"]).expect(200)
    assert "2 webhooks are there." in shown.text
    found = world.api.admin.get("/api/v0/repositories/acme/several/webhooks").expect(200).json
    assert {one["type"] for one in found} == {"TAG_PUSH", "TAG_DELETE"}
    # One that cannot be says how far it came, and leaves only what is still to be made.
    part = adam.submit(form, FORM, "Make the webhook", **given, type=["TAG_PULL", "NOTHING", "PROMOTION"]).expect(
        422
    )
    assert "1 webhook was made before this." in part.text
    assert [one["value"] for one in part.all("#f-type input[checked]")] == ["PROMOTION"]


def test_of_a_namespace_and_of_the_registry(world: Site, receiver: Receiver):
    for name, at, key in (
        ("ada", "/orgs/acme/webhooks", "acme"),
        ("ada", "/users/ada/webhooks", "ada"),
        ("admin", "/system/settings/webhooks", ""),
    ):
        shown = make(world, receiver, name, at, type="REPO_CREATED").expect(200)
        made = address(shown)
        assert made.startswith(f"{at}/")
        record = world.api.admin.get(f"/api/v0/webhooks/{made.rpartition('/')[2]}").expect(200).json
        assert (record["key"], record["type"]) == (key, "REPO_CREATED")
        visitor = world.as_(name)
        assert [
            link for link in visitor.get(at).links if link.startswith(f"{at}/") and not link.endswith("/new")
        ] == [made]
        # It is found where it belongs, and nowhere else.
        visitor.get(f"{AT}/{made.rpartition('/')[2]}").expect(404)
    # What cannot happen in a repository that is there is not offered there.
    assert "REPO_CREATED" not in [one["value"] for one in world.as_("adam").get(f"{AT}/new").all("#f-type input")]


@pytest.mark.parametrize(
    ("name", "at", "status"),
    [
        (None, AT, 303),
        ("rita", AT, 403),
        ("will", AT, 403),
        ("stan", AT, 404),
        ("stan", "/orgs/acme/webhooks", 403),
        ("adam", "/orgs/acme/webhooks", 403),
        ("stan", "/users/ada/webhooks", 403),
        ("ada", "/system/settings/webhooks", 403),
        ("ada", "/orgs/ada/webhooks", 404),
        ("ada", "/orgs/nobody/webhooks", 404),
        (None, "/system/settings/webhooks", 303),
    ],
)
def test_who_may_not_neither_sees_nor_sends(
    world: Site, receiver: Receiver, name: str | None, at: str, status: int
):
    visitor = world.as_(name)
    for path in (at, f"{at}/new"):
        assert visitor.get(path, follow=False).status == status
    fields = {"type": "TAG_PUSH", "endpoint": receiver.url(host="127.0.0.1"), "skip": "on", "format": "dtr"}
    assert visitor.post(f"{at}/new", fields, follow=False).status == status
    assert not receiver.received


def test_one_that_fails_says_so(world: Site, receiver: Receiver):
    receiver.reply = lambda _: Reply(500, b"broken")
    at = address(make(world, receiver, type="MANIFEST_DELETE", name="Broken").expect(200))
    webhook = at.rpartition("/")[2]
    moment = round(time.time() * 1000) - 86_400_000
    world.api.change(
        "UPDATE webhooks SET failing_since = :since, last_error = 'the receiver answered 500' WHERE id = :id",
        since=moment,
        id=webhook,
    )
    adam = world.as_("adam")
    assert "Failing" in adam.get(AT).text
    shown = adam.get(at).expect(200)
    assert "The receiver has taken nothing since" in shown.text
    assert "the receiver answered 500" in shown.text
    japanese = adam.get(f"{at}?lang=ja").expect(200)
    assert "受信側の応答: 500" in japanese.text
    assert "the receiver answered" not in japanese.text
    adam.get(f"{at}?lang=en")
    world.api.change("UPDATE webhooks SET is_active = :no WHERE id = :id", no=False, id=webhook)
    shown = adam.get(at).expect(200)
    assert "It was switched off, because its deliveries failed for days." in shown.text
    assert not shown.has("form[action$=redeliver]")
