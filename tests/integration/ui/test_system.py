"""The pages of the system: what administrators change, and auditors see."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.images import make_image
from tests.support.s3 import ACCESS_KEY, SECRET_KEY, S3Server
from tests.support.signing import make_key, public_pem
from tests.support.site import Shown, Site, Visitor

GENERAL, STORAGE = "/system/settings/general", "/system/settings/storage"
SECURITY, GC = "/system/settings/security", "/system/settings/gc"
SEEN = ("/system", GENERAL, STORAGE, f"{STORAGE}/default", SECURITY, f"{SECURITY}/signing", GC)
"""What auditors may see."""
CHANGED = (
    f"{STORAGE}/new",
    f"{STORAGE}/move",
    f"{STORAGE}/yaml",
    f"{STORAGE}/default/delete",
    f"{SECURITY}/identities/new",
    f"{SECURITY}/signing/delete",
    f"{GC}/run",
    f"{GC}/repair",
    f"{GENERAL}/events/delete",
    f"{GENERAL}/jobs/delete",
)
"""What only administrators may."""


@pytest.fixture(scope="module", autouse=True)
def people(site: Site) -> None:
    site.api.make_users("ada", "looker")
    site.api.change("UPDATE accounts SET is_auditor = true WHERE name = 'looker'")
    site.api.make_organization("acme", owners=("ada",))
    site.api.make_repository("acme/app")
    site.api.admin.client.push("acme/app", make_image(layers=2, size=70_000), "v1")


@pytest.fixture(scope="module")
def admin(site: Site, people: None) -> Visitor:
    return site.as_("admin")


@pytest.fixture(scope="module")
def looker(site: Site, people: None) -> Visitor:
    """An auditor."""
    return site.as_("looker")


@pytest.fixture(scope="module")
def ada(site: Site, people: None) -> Visitor:
    """A user, who owns an organisation."""
    return site.as_("ada")


def settings(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.api.admin.get("/api/v0/meta/settings").expect(200).json
    return found


def ended(site: Site, shown: Shown) -> dict[str, Any]:
    """The job whose page was shown, when it ended."""
    job = shown.url.rpartition("/")[2]
    deadline = time.monotonic() + 60
    while True:
        found: dict[str, Any] = site.api.admin.get(f"/api/v0/jobs/{job}").expect(200).json
        if found["status"] in {"done", "errored", "canceled"}:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.1)


# --- who sees what --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SEEN)
def test_auditors_see_and_change_nothing(site: Site, ada: Visitor, looker: Visitor, path: str):
    shown = looker.get(path).expect(200)
    assert not shown.has("main form[method=post]")
    assert not [one for one in CHANGED if one in shown.links]
    assert len(shown.answer.body) < 50_000
    assert ada.get(path).status == 403
    assert "/login?next=" in site.as_(None).get(path).url


@pytest.mark.parametrize("path", CHANGED)
def test_what_changes_something_is_for_administrators(
    site: Site, admin: Visitor, ada: Visitor, looker: Visitor, path: str
):
    assert looker.get(path).status == 403
    assert ada.get(path).status == 403
    shown = admin.get(path).expect(200)
    assert len(shown.answer.body) < 50_000


@pytest.mark.parametrize(
    "path",
    [
        f"{GENERAL}/domain",
        f"{GENERAL}/sessions",
        f"{GENERAL}/events/delete",
        f"{STORAGE}/new",
        f"{STORAGE}/new/test",
        f"{STORAGE}/default",
        f"{STORAGE}/default/test",
        f"{STORAGE}/default/default",
        f"{STORAGE}/default/delete",
        f"{STORAGE}/move",
        f"{STORAGE}/yaml",
        f"{STORAGE}/namespaces",
        f"{SECURITY}/signing",
        f"{SECURITY}/signing/report",
        f"{SECURITY}/signing/exceptions",
        f"{SECURITY}/signing/exceptions/x/delete",
        f"{SECURITY}/signing/delete",
        f"{SECURITY}/identities/new",
        f"{SECURITY}/identities/x/delete",
        f"{GC}/mode",
        f"{GC}/schedule",
        f"{GC}/run",
        f"{GC}/dry-run",
        f"{GC}/check",
        f"{GC}/repair",
    ],
)
def test_no_form_of_another_is_taken(site: Site, looker: Visitor, ada: Visitor, path: str):
    asked_for = "SELECT count(*) FROM jobs WHERE cause <> 'schedule'"
    before = site.api.rows(asked_for)
    for visitor in (looker, ada):
        assert visitor.post(path, {"mode": "off", "repeat": "never"}).status == 403
    assert site.api.rows(asked_for) == before


@pytest.mark.parametrize("path", [*SEEN, *CHANGED])
def test_pages_are_there_in_japanese(site: Site, admin: Visitor, path: str):
    shown = admin.get(f"{path}?lang=ja").expect(200)
    admin.cookies.pop("language")
    assert shown.one("html")["lang"] == "ja"
    assert any("\u3040" <= letter <= "\u30ff" for letter in shown.title + shown.text)


def test_the_old_address_leads_to_the_first_tab(site: Site, admin: Visitor):
    assert admin.get("/system/settings").url.endswith(GENERAL)


# --- overview and banners -------------------------------------------------------------------------------------


def test_the_overview_says_how_all_is(site: Site, admin: Visitor):
    shown = admin.get("/system").expect(200)
    for text in ("Metadata database", "Storage default", "Signer of content trust", "(this one)"):
        assert text in shown.text
    assert "Nothing. All parts answer." in shown.text
    stored = site.api.admin.get("/api/v0/meta/usage").json["bytes"]
    assert f"{stored / 1000:.0f} kB stored" in shown.text
    label = next(
        str(one["aria-label"]) for one in shown.all("svg[role=img]") if "Stored" in str(one["aria-label"])
    )
    assert label.startswith("Stored bytes over 90 days: from 0 B to")
    assert len(shown.all("table tbody tr")) >= 90


def test_what_needs_attention_is_told_with_what_helps_and_on_every_page(site: Site, ada: Visitor, admin: Visitor):
    now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
    site.api.change(
        "INSERT INTO replicas (id, node, version, components, started_at, seen_at)"
        " VALUES ('aaaaaaaaaaaa', '<b>lost</b>.example', '1', '[]', :at, :at)",
        at=now - 60_000,
    )
    try:
        shown = admin.get("/system").expect(200)
        assert "Replica aaaaaaaaaaaa on <b>lost</b>.example is not seen any more." in shown.text
        assert "it is forgotten after a week" in shown.text
        assert not shown.has(".banner")
        deadline = time.monotonic() + 60
        while not (banners := admin.get(GC).expect(200).all(".banner.bad")):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert "is not seen any more" in banners[0].get_text()
        assert not ada.get("/repositories").has(".banner.bad")
    finally:
        site.api.change("DELETE FROM replicas WHERE id = 'aaaaaaaaaaaa'")


def test_a_storage_that_does_not_answer_is_told(site: Site, admin: Visitor):
    blobs = site.server.directory / "blobs"
    moved = blobs.with_name("elsewhere")
    blobs.rename(moved)
    blobs.write_bytes(b"")
    try:
        deadline = time.monotonic() + 60
        while "The storage does not answer." not in (text := admin.get("/system").expect(200).text):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert "Test the storage: the steps say what is refused." in text
        tried = admin.submit(admin.get(f"{STORAGE}/default"), "form.split", "Test the connection").expect(200)
        assert "1 problem" in tried.one("#checks").get_text()
    finally:
        blobs.unlink()
        shutil.move(moved, blobs)


# --- general --------------------------------------------------------------------------------------------------


def test_each_card_is_saved_on_its_own(site: Site, looker: Visitor, admin: Visitor):
    def save(card: str, **fields: Any) -> Shown:
        shown = admin.get(GENERAL).expect(200)
        return admin.submit(shown, f"#{card} form", **fields).expect(200)

    assert "The settings are saved." in save("domain", dtrHost="registry.example:8443").text
    save("repositories", createRepositoryOnPush="on")
    save(
        "events", repoEventHistoryCompactionEnabled="on", repoEventHistoryMaxAge="2", repoEventHistoryToKeep="1000"
    )
    save("jobs", jobHistoryMaxAge="3", **{"jobHistoryMaxAge-unit": "w"})
    save("sessions", lifetimeMinutes="90", renewalThresholdMinutes="30", perUserLimit="0")
    found = settings(site)
    assert (found["dtrHost"], found["createRepositoryOnPush"]) == ("registry.example:8443", True)
    assert (found["repoEventHistoryMaxAge"], found["repoEventHistoryToKeep"]) == ("48h", 1000)
    assert found["jobHistoryMaxAge"] == "504h"
    shown = admin.get(GENERAL)
    assert (shown.one("#f-jobHistoryMaxAge")["value"], shown.one("#f-repoEventHistoryMaxAge")["value"]) == (
        "3",
        "2",
    )
    assert shown.one("#f-lifetimeMinutes")["value"] == "90"
    assert "90" in looker.get(SECURITY).text
    assert "2 days" in admin.get(f"{GENERAL}/events/delete").text
    for card, fields in (
        ("domain", {"dtrHost": ""}),
        ("repositories", {"createRepositoryOnPush": None}),
        (
            "events",
            {"repoEventHistoryCompactionEnabled": None, "repoEventHistoryMaxAge": "", "repoEventHistoryToKeep": 0},
        ),
        ("jobs", {"jobHistoryMaxAge": ""}),
        ("sessions", {"lifetimeMinutes": 60, "renewalThresholdMinutes": 20, "perUserLimit": 10}),
    ):
        save(card, **fields)
    assert settings(site) == found | {
        "dtrHost": "",
        "createRepositoryOnPush": False,
        "repoEventHistoryCompactionEnabled": False,
        "repoEventHistoryMaxAge": "",
        "repoEventHistoryToKeep": 0,
        "jobHistoryMaxAge": "",
    }


def test_a_refused_card_keeps_what_was_typed(admin: Visitor):
    for card, field, value, said in (
        ("domain", "dtrHost", "https://registry.example", "Type HOST or HOST:PORT, without https://."),
        ("sessions", "renewalThresholdMinutes", "58", "At least 5 minutes less than a session is long."),
        ("sessions", "lifetimeMinutes", "9", "At least 10 minutes."),
        ("sessions", "perUserLimit", "many", "Type a number, 0 or more."),
        ("events", "repoEventHistoryMaxAge", "-1", "Type a number, 0 or more."),
    ):
        refused = admin.submit(admin.get(GENERAL), f"#{card} form", **{field: value}).expect(422)
        assert refused.problems == {field: said}
        assert refused.one(f"#f-{field}")["value"] == value or field == "repoEventHistoryMaxAge"
        assert refused.one("[data-error-summary]").get_text()
    assert admin.post(f"{GENERAL}/nothing", {}).status == 404


def test_two_editors_of_a_card_see_each_others_values(site: Site, admin: Visitor):
    shown = admin.get(GENERAL)
    site.api.admin.post("/api/v0/meta/settings", {"dtrHost": "theirs.example"}).expect(202)
    late = admin.submit(shown, "#domain form", dtrHost="mine.example").expect(409)
    told = late.one("#domain [data-error-summary]").get_text()
    assert "theirs is theirs.example, yours is mine.example" in told
    assert late.one("#f-dtrHost")["value"] == "mine.example"
    assert settings(site)["dtrHost"] == "theirs.example"
    admin.submit(late, "#domain form").expect(200)
    assert settings(site)["dtrHost"] == "mine.example"
    admin.submit(admin.get(GENERAL), "#domain form", dtrHost="")


def test_the_read_only_mode_is_switched_and_told_to_everybody(site: Site, ada: Visitor, admin: Visitor):
    admin.submit(admin.get(GENERAL), "#read-only form", readOnlyRegistry="on").expect(200)
    try:
        assert settings(site)["readOnlyRegistry"] is True
        told = ada.get("/repositories").expect(200)
        assert "The registry is read-only." in told.one(".banner").get_text()
    finally:
        admin.submit(admin.get(GENERAL), "#read-only form", readOnlyRegistry=None).expect(200)
    assert not ada.get("/repositories").has(".banner")


def test_what_is_old_is_deleted_after_a_question(site: Site, admin: Visitor):
    question = admin.get(f"{GENERAL}/jobs/delete").expect(200)
    assert "By the settings that are saved, nothing goes." in question.text
    job = ended(site, admin.submit(question, "#confirm form"))
    assert (job["action"], job["status"], job["result"]) == ("onlinegc_joblogs", "done", {"jobs": 0})


# --- storage --------------------------------------------------------------------------------------------------


@pytest.fixture
def place(site: Site, tmp_path: Path) -> Iterator[Path]:
    """An empty directory; afterwards blobs are where they were, and storages as they were."""
    directory = tmp_path / "blobs"
    directory.mkdir()
    yield directory
    api = site.api.admin
    job = api.post("/api/v0/admin/storages/default/migration", {"keepSource": True}).expect(202).json["id"]
    deadline = time.monotonic() + 60
    while api.get(f"/api/v0/jobs/{job}").json["status"] not in {"done", "errored"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    site.api.change("DELETE FROM gc_objects WHERE location NOT LIKE 'default:%'")
    site.api.change("UPDATE storages SET used_until = 0")
    for one in api.get("/api/v0/admin/storages").json:
        if one["name"] != "default":
            api.delete(f"/api/v0/admin/storages/{one['name']}").expect(204)


def test_a_storage_is_tested_added_used_and_forgotten(site: Site, admin: Visitor, place: Path):
    shown = admin.get(f"{STORAGE}/new?driver=filesystem").expect(200)
    tried = admin.submit(shown, "form.split", "Test the connection", name="fast", root=place, use="none").expect(
        200
    )
    assert "It works" in tried.one("#checks").get_text()
    assert tried.one("#f-root")["value"] == str(place)
    assert [one.get_text() for one in admin.get(STORAGE).all("td .name.mono")] == ["default"]
    admin.submit(tried, "form.split", "Test and save").expect(200)
    index = admin.get(STORAGE).expect(200)
    assert [one.get_text() for one in index.all("td .name.mono")] == ["default", "fast"]
    assert "nothing new" in index.text
    again = admin.submit(shown, "form.split", "Test and save", name="fast", root=place).expect(409)
    assert again.problems == {"name": "There is a storage of this name."}
    chosen = admin.submit(index, "form[action$='/fast/default']").expect(200)
    assert "New images go to the storage fast." in chosen.text
    kept = admin.submit(admin.get(f"{STORAGE}/fast/delete"), "#confirm form").expect(422)
    assert "STORAGE_IN_USE" in kept.text
    back = admin.submit(chosen, ".toast form").expect(200)  # Undo
    assert "New images go to the storage default." in back.text
    site.api.change("UPDATE storages SET used_until = 0")
    gone = admin.submit(admin.get(f"{STORAGE}/fast/delete"), "#confirm form").expect(200)
    assert "The storage fast is forgotten." in gone.text
    assert admin.get(f"{STORAGE}/fast").status == 404


def test_what_takes_long_to_count_comes_by_itself_or_when_it_is_asked_for(site: Site, admin: Visitor):
    (pattern,) = site.api.rows("SELECT * FROM repositories LIMIT 1")
    columns = [row[0] for row in site.api.rows("SELECT name FROM pragma_table_info('repositories')")]
    copied = ", ".join({"id": "id + n", "path": "path || n"}.get(one, one) for one in columns)
    site.api.change(
        "WITH RECURSIVE numbers (n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM numbers WHERE n < 6000)"
        f" INSERT INTO repositories ({', '.join(columns)}) SELECT {copied} FROM numbers,"
        f" (SELECT * FROM repositories WHERE id = {pattern[0]})"
    )
    try:
        shown = admin.get(STORAGE).expect(200)
        assert shown.one("#counted")["hx-get"] == f"{STORAGE}?count=1"
        assert "… can be freed" in shown.text
        counted = admin.get(f"{STORAGE}?count=1").expect(200)
        assert not counted.one("#counted").has_attr("hx-get")
        assert "Count it" not in counted.text
        assert "…" not in counted.one("#counted table tbody td.lead").get_text()
    finally:
        site.api.change("DELETE FROM repositories WHERE id > 999")


def test_a_storage_that_does_not_work_is_not_saved_and_the_steps_say_why(admin: Visitor, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    shown = admin.get(f"{STORAGE}/new?driver=filesystem")
    refused = admin.submit(shown, "form.split", "Test and save", name="broken", root=tmp_path / "file").expect(422)
    assert "The storage does not work like that: nothing was changed." in refused.text
    checks = " ".join(refused.one("#checks").get_text(" ").split())
    assert "1 problem" in checks
    assert "Not tried: an earlier step comes first." in checks
    assert refused.one("#f-name")["value"] == "broken"
    empty = admin.submit(shown, "form.split", "Test and save").expect(422)
    assert empty.problems == {"name": "Fill in this field."}
    missing = admin.submit(shown, "form.split", "Test the connection", name="broken").expect(422)
    assert missing.problems == {"root": "Fill in this field."}


def test_secrets_are_shown_to_nobody_and_kept(
    site: Site, looker: Visitor, admin: Visitor, place: Path, s3_server: S3Server
):
    shown = admin.get(f"{STORAGE}/new?driver=s3").expect(200)
    typed = {
        "name": "cloud",
        "bucket": "blobs",
        "prefix": "ui",
        "endpoint": s3_server.endpoint,
        "access_key": ACCESS_KEY,
        "secret_key": SECRET_KEY,
        "path_style": "on",
        "redirect": "on",
        "redirect_seconds": "120",
        "redirect_except": "10.0.0.0/8\n192.0.2.0/24",
        "use": "none",
    }
    wrong = admin.submit(shown, "form.split", "Test the connection", **typed | {"secret_key": "wr0ng-secret"})
    assert "Writing a small object was refused" in wrong.expect(200).text
    assert b"wr0ng-secret" not in wrong.answer.body
    bad = admin.submit(
        shown, "form.split", "Test and save", **typed | {"endpoint": "s3.example", "part_size": "x"}
    )
    assert bad.expect(422).problems == {"part_size": "Type a number."}
    bad = admin.submit(shown, "form.split", "Test and save", **typed | {"endpoint": "s3.example"}).expect(422)
    assert bad.problems == {"endpoint": "Type https://HOST[:PORT]."}
    # The secret is kept without being shown, and need not be typed again after the refusal and a test.
    assert SECRET_KEY.encode() not in bad.answer.body
    assert (bad.one("#f-secret_key")["value"], bad.answer.headers["cache-control"]) == ("", "no-store")
    good = admin.submit(bad, "form.split", "Test the connection", endpoint=s3_server.endpoint).expect(200)
    assert "It works" in good.one("#checks").get_text()
    assert SECRET_KEY.encode() not in good.answer.body
    forgot = admin.submit(good, "form.split", "Test the connection", forget_secret_key="on")
    assert not forgot.has("[name=kept_secret_key]")
    saved = admin.submit(good, "form.split", "Test and save").expect(200)
    assert saved.url.endswith(f"{STORAGE}/cloud")
    assert SECRET_KEY.encode() not in saved.answer.body
    assert saved.one("#f-secret_key")["value"] == ""
    assert saved.one("#f-secret_key")["placeholder"]
    changed = admin.submit(saved, "form.split", "Test and save", region="eu-west-1").expect(200)
    record = site.api.admin.get("/api/v0/admin/storages/cloud").json
    assert (record["parameters"]["region"], record["parameters"]["secret_key"]) == ("eu-west-1", "********")
    assert (record["redirectSeconds"], record["redirectExcept"]) == (120, ["10.0.0.0/8", "192.0.2.0/24"])
    # Another session makes nothing of what is kept, nor do another storage's form and another field.
    kept = str(good.one("[name=kept_secret_key]")["value"])
    other = site.as_("admin")
    fresh = typed | {"name": "other", "secret_key": "", "kept_secret_key": kept}
    refused = other.submit(other.get(f"{STORAGE}/new?driver=s3"), "form.split", "Test the connection", **fresh)
    assert not refused.has("[name=kept_secret_key]")
    assert "It works" not in refused.one("#checks").get_text()
    assert not admin.submit(changed, "form.split", "Test the connection", kept_secret_key=kept).has(
        "[name^=kept_]"
    )
    again = admin.submit(changed, "form.split", "Test the connection", kept_session_token=kept)
    assert not again.has("[name^=kept_]")
    late = admin.submit(saved, "form.split", "Test and save", region="eu-west-2").expect(409)
    assert "Somebody else changed the storage meanwhile." in late.text
    assert late.one("#f-region")["value"] == "eu-west-2"
    elsewhere = admin.submit(changed, "form.split", "Test and save", prefix="other").expect(422)
    assert "must be given again" in elsewhere.text
    seen = looker.get(f"{STORAGE}/cloud").expect(200)
    assert "stored, and shown to nobody" in seen.text
    assert SECRET_KEY not in seen.answer.body.decode()


def test_images_are_copied_when_a_storage_is_added(site: Site, admin: Visitor, place: Path):
    shown = admin.get(f"{STORAGE}/new?driver=filesystem")
    job = ended(
        site, admin.submit(shown, "form.split", "Test and save", name="all", root=place, use="copy").expect(200)
    )
    assert (job["action"], job["status"]) == ("storage_migrate", "done")
    assert job["result"]["blobs"] >= 2
    index = admin.get(STORAGE).expect(200)
    assert "blobs moved" in index.text
    row = next(
        one for one in index.all("#counted tbody tr:has(a.name)") if one.select("a.name")[0].get_text() == "all"
    )
    assert "new images" in row.get_text()
    site.api.admin.client.get_manifest("acme/app", "v1").expect(200)


def test_images_are_moved_by_a_form(site: Site, admin: Visitor, place: Path):
    assert "There is only one storage" in admin.get(f"{STORAGE}/move").expect(200).text
    shown = admin.get(f"{STORAGE}/new?driver=filesystem")
    admin.submit(shown, "form.split", "Test and save", name="second", root=place, use="none").expect(200)
    form = admin.get(f"{STORAGE}/move?to=second").expect(200)
    assert form.one("#f-to option[selected]")["value"] == "second"
    for fields, said in (
        ({"to": ""}, {"to": "Choose one of the values."}),
        ({"rate": "fast"}, {"rate": "Type a number."}),
        ({"parallel": "65"}, {"parallel": "At most 64."}),
        ({"from": "second"}, {"from": "second is where they go"}),
    ):
        refused = admin.submit(form, "main form", "Move the images", **fields).expect(422)
        assert refused.problems == said
    job = ended(site, admin.submit(form, "main form", "Move the images", rate="500", keep="on").expect(200))
    assert job["parameters"]["to"] == "second"
    assert (job["parameters"]["rate"], job["parameters"]["keepSource"]) == ("500000000", "true")
    assert job["status"] == "done"


def test_a_namespace_gets_a_storage_of_its_own_and_back(site: Site, admin: Visitor, place: Path):
    shown = admin.get(f"{STORAGE}/new?driver=filesystem")
    admin.submit(shown, "form.split", "Test and save", name="own", root=place, use="none").expect(200)
    index = admin.get(STORAGE)
    refused = admin.submit(
        index, "main form[action$='/namespaces']", namespace="nobody-of-this-name", storage="own"
    ).expect(422)
    assert refused.problems == {"namespace": "There is no such account."}
    assert refused.one("#f-namespace")["value"] == "nobody-of-this-name"
    given = admin.submit(index, "main form[action$='/namespaces']", namespace="acme", storage="own").expect(200)
    assert site.api.admin.get("/api/v0/admin/storages/own").json["namespaces"] == ["acme"]
    assert "New images of acme go to own." in given.text
    admin.post(f"{STORAGE}/namespaces", {"namespace": "acme"}).expect(200)
    assert site.api.admin.get("/api/v0/admin/storages/own").json["namespaces"] == []
    again = admin.get(STORAGE)
    assert "None: all use the default storage." in again.text
    assert "sends new images of acme to own" in again.text


def test_a_configuration_in_yaml_is_shown_and_taken(site: Site, admin: Visitor, place: Path, s3_server: S3Server):
    shown = admin.get(f"{STORAGE}/yaml").expect(200)
    text = shown.one("#f-document").get_text()
    assert "filesystem:" in text
    refused = admin.submit(shown, document="storage: [").expect(422)
    assert "document" in refused.problems
    assert refused.one("#f-document").get_text().strip() == "storage: ["
    unknown = admin.submit(shown, document="storage: {tape: {}}").expect(422)
    assert "storage" in unknown.one("[data-error-summary]").get_text()
    made = admin.submit(
        shown, document=f"version: 0.1\nstorage:\n  filesystem: {{rootdirectory: {place}}}\n"
    ).expect(200)
    assert "New images go to the storage filesystem." in made.text
    masked = admin.get(f"{STORAGE}/yaml").one("#f-document").get_text()
    assert str(place) in masked
    parts = {"csrf_token": admin.cookies["csrftoken"], "document": masked}
    body = "".join(f'--x\r\nContent-Disposition: form-data; name="{one}"\r\n\r\n{parts[one]}\r\n' for one in parts)
    file = f"storage: {{filesystem: {{rootdirectory: {site.server.directory / 'blobs'}}}}}"
    body += f'--x\r\nContent-Disposition: form-data; name="file"; filename="c.yml"\r\n\r\n{file}\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Origin": admin.origin}
    assert admin.send("POST", f"{STORAGE}/yaml", body.encode(), headers).status == 303
    assert site.api.admin.get("/api/v0/admin/storages/default").json["isDefault"] is True


# --- security -------------------------------------------------------------------------------------------------


def test_a_policy_is_tried_saved_excepted_and_deleted(site: Site, looker: Visitor, admin: Visitor):
    page = f"{SECURITY}/signing"
    shown = admin.get(page).expect(200)
    tried = admin.submit(shown, f"form[action='{page}']", "Show what it would refuse", mode="enforce").expect(200)
    assert "acme/app:v1" in tried.text
    assert tried.has("#report-card .badge.crit")
    assert tried.one("input[name=mode][checked]")["value"] == "enforce"
    assert site.api.admin.get("/api/v0/enforcement").status == 404
    for fields, said in (
        ({"signers": "everybody"}, ("signers", "One of these is no signer")),
        ({"teams": "acme/nobody"}, ("teams", "One of these teams is not there")),
    ):
        refused = admin.submit(shown, f"form[action='{page}']", "Save the policy", mode="report", **fields).expect(
            422
        )
        assert refused.problems[said[0]].startswith(said[1])
        assert refused.one("input[name=mode][checked]")["value"] == "report"
    saved = admin.submit(
        shown, f"form[action='{page}']", "Save the policy", mode="report", signers="role:targets/release\n"
    ).expect(200)
    assert site.api.admin.get("/api/v0/enforcement").json["signers"] == ["role:targets/release"]
    late = admin.submit(shown, f"form[action='{page}']", "Save the policy", mode="enforce").expect(409)
    assert "Theirs: Only report; role:targets/release." in late.text
    assert "reports only" in admin.get(SECURITY).text
    assert "role:targets/release" in looker.get(page).text
    form = "form[action$='/signing/exceptions']"
    for fields, field in (
        ({"kind": "tag", "value": "a b", "reason": "x"}, "value"),
        ({"kind": "digest", "value": "sha256:1", "reason": "x"}, "value"),
        ({"kind": "account", "value": "nobody-of-this-name", "reason": "x"}, "value"),
        ({"kind": "tag", "value": "v*", "reason": ""}, "reason"),
        ({"kind": "tag", "value": "v*", "reason": "x", "until": "2001-01-01"}, "until"),
        ({"kind": "tag", "value": "v*", "reason": "x", "until": "soon"}, "until"),
    ):
        refused = admin.submit(saved, form, **fields).expect(422)
        assert list(refused.problems) == [field], fields
        assert refused.one("#f-value")["value"] == fields["value"]
    until = (dt.datetime.now(dt.UTC) + dt.timedelta(days=9)).date().isoformat()
    kept = admin.submit(saved, form, kind="tag", value="v*", reason="<i>old</i> ones", until=until).expect(200)
    assert "<i>old</i> ones" in kept.text
    ended_ = admin.submit(kept, "form[action$='/delete']").expect(200)
    assert site.api.admin.get("/api/v0/enforcement").json["exceptions"] == []
    admin.submit(ended_, ".toast form").expect(200)
    (exception,) = site.api.admin.get("/api/v0/enforcement").json["exceptions"]
    assert (exception["value"], exception["expiresAt"][:10]) == (
        "v*",
        (dt.date.fromisoformat(until) + dt.timedelta(days=1)).isoformat(),
    )
    question = admin.get(f"{page}/delete").expect(200)
    assert "1 exception goes with it." in question.text
    admin.submit(question, "#confirm form").expect(200)
    assert site.api.admin.get("/api/v0/enforcement").status == 404


def test_identities_are_registered_changed_and_revoked(site: Site, looker: Visitor, admin: Visitor):
    shown = admin.get(f"{SECURITY}/identities/new").expect(200)
    pem = public_pem(make_key())
    for fields, field in (
        ({"name": ""}, "name"),
        ({"name": "a/b", "content": pem}, "name"),
        ({"name": "release", "content": "nonsense"}, "content"),
        ({"name": "release", "content": pem, "subject": "CN=x"}, "subject"),
        ({"name": "release", "kind": "keyless", "content": "https://x.example", "subject": "a@b"}, "kind"),
    ):
        refused = admin.submit(shown, "main form", **fields).expect(422)
        assert list(refused.problems) == [field], (fields, refused.problems)
    made = admin.submit(shown, "main form", name="release", content=pem).expect(200)
    assert "Signatures of release count now." in made.text
    assert admin.submit(shown, "main form", name="release", content=pem).expect(422).problems == {
        "name": "There is an identity of this name."
    }
    assert "identity:release" in str(admin.get(f"{SECURITY}/signing").one("input[name=identity]"))
    one = admin.get(f"{SECURITY}/identities/release").expect(200)
    assert not looker.get(f"{SECURITY}/identities/release").expect(200).has("main form[method=post]")
    admin.submit(one, "main form.card", content=public_pem(make_key())).expect(200)
    fingerprint = site.api.admin.get("/api/v0/signingIdentities/release").json["fingerprint"]
    assert fingerprint[:16] in admin.get(SECURITY).text
    admin.submit(admin.get(f"{SECURITY}/identities/release/delete"), "#confirm form").expect(200)
    assert site.api.admin.get("/api/v0/signingIdentities/release").status == 404
    assert admin.get(f"{SECURITY}/identities/release").status == 404


def test_the_certificate_is_shown_with_what_is_wrong(site: Site, admin: Visitor):
    shown = admin.get(SECURITY).expect(200)
    told = site.api.admin.get("/api/v0/meta/certificate").json["chain"][0]
    assert told["fingerprint"] in shown.text
    assert "valid" in shown.one("#certificate header").get_text()
    assert "/ca" in shown.links
    site.api.admin.post("/api/v0/meta/settings", {"dtrHost": "other.example"}).expect(202)
    try:
        assert "the certificate is not valid for other.example" in admin.get(SECURITY).text
    finally:
        site.api.admin.post("/api/v0/meta/settings", {"dtrHost": ""}).expect(202)


# --- collection -----------------------------------------------------------------------------------------------


def test_the_mode_and_the_schedule_are_set(site: Site, admin: Visitor):
    crons = "/api/v0/crons/onlinegc"
    admin.submit(admin.get(GC), f"form[action='{GC}/mode']", mode="scheduled").expect(200)
    assert settings(site)["garbageCollection"] == "scheduled"
    stale = admin.get(GC)
    form = f"form[action='{GC}/schedule']"
    saved = admin.submit(
        stale, form, "Save", repeat="saturday", limit="30", grace="2", **{"grace-unit": "d"}
    ).expect(200)
    cron = site.api.admin.get(crons).expect(200).json
    assert (cron["schedule"], cron["deadline"], cron["parameters"]) == ("0 0 1 * * 6", "30m", {"grace": "48h"})
    assert "Every week on Saturday at 01:00 UTC. Next:" in saved.text
    assert (saved.one("#f-limit")["value"], saved.one("#f-grace")["value"]) == ("30", "2")
    late = admin.submit(stale, form, "Save", repeat="daily").expect(409)
    assert "Theirs: Every week on Saturday at 01:00 UTC." in late.text
    admin.submit(late, form, "Save").expect(200)
    assert site.api.admin.get(crons).json["schedule"] == "0 0 0 * * *"
    for fields, said in (
        (
            {"repeat": "custom", "schedule": "0 * * *"},
            {"schedule": "Type six fields, from second to day of the week, or @daily, or @every 6h."},
        ),
        ({"repeat": "custom", "schedule": "0 0 0 31 2 *"}, {"schedule": "This names no moment to come."}),
        ({"repeat": "custom", "schedule": ""}, {"schedule": "Fill in this field."}),
        ({"repeat": "daily", "limit": "long"}, {"limit": "Type a number."}),
    ):
        refused = admin.submit(admin.get(GC), form, "Save", **fields).expect(422)
        assert refused.problems == said
        assert refused.one("#f-repeat option[selected]")["value"] == fields["repeat"]
    admin.submit(admin.get(GC), form, "Save", repeat="custom", schedule="@every 6h", limit="", grace="").expect(
        200
    )
    assert "Every 6 hours." in admin.get(GC).text
    started = ended(site, admin.submit(admin.get(GC), form, "Save and start", repeat="never").expect(200))
    assert started["action"] == "onlinegc"
    assert site.api.admin.get(crons).status == 404
    two = admin.get(GC)
    site.api.admin.post("/api/v0/meta/settings", {"garbageCollection": "off"}).expect(202)
    assert admin.submit(two, f"form[action='{GC}/mode']", mode="continuous").expect(409).text
    site.api.admin.post("/api/v0/meta/settings", {"garbageCollection": "continuous"}).expect(202)


def test_what_could_be_freed_is_counted_tried_and_freed(site: Site, admin: Visitor):
    site.api.admin.post("/api/v0/meta/settings", {"garbageCollection": "scheduled"}).expect(202)
    site.api.make_repository("acme/waste")
    site.api.admin.client.push("acme/waste", make_image(layers=1, size=50_000), "v1")
    site.api.admin.client.call("DELETE", "/v2/acme/waste/manifests/v1").expect(202)
    site.api.change("UPDATE manifests SET review_at = 1 WHERE review_at IS NOT NULL")
    shown = admin.get(f"{GC}?count=1").expect(200)
    assert "1 manifests without a tag or index" in shown.text
    dry = ended(site, admin.submit(shown, f"form[action='{GC}/dry-run']").expect(200))
    assert (dry["parameters"]["dryRun"], dry["result"]["manifests"]) == ("true", 1)
    question = admin.get(f"{GC}/run").expect(200)
    assert "1 manifests, " in question.text
    done = ended(site, admin.submit(question, "#confirm form").expect(200))
    assert (done["status"], done["result"]["manifests"]) == ("done", 1)
    rows = [" ".join(one.get_text(" ").split()) for one in admin.get(GC).all("section:has(#runs) tbody tr")]
    assert any("dry run" in row for row in rows)
    assert any("Done" in row and "1 manifest" in row and "dry run" not in row for row in rows)
    site.api.admin.post("/api/v0/meta/settings", {"garbageCollection": "continuous"}).expect(202)


def test_a_check_reports_and_repairs_after_a_question(site: Site, admin: Visitor):
    form = f"form[action='{GC}/check']"
    refused = admin.submit(admin.get(GC), form, "Check", rate="fast", what="content").expect(422)
    assert refused.problems == {"rate": "Type a number."}
    assert refused.one("input[name=what][checked]")["value"] == "content"
    job = ended(
        site,
        admin.submit(admin.get(GC), form, "Check", what="content", rate="50", minutes="5", resume="on").expect(
            200
        ),
    )
    assert job["parameters"] == {"content": "true", "rate": "50000000", "time": "5m", "resume": "true"}
    assert job["status"] == "done"
    question = admin.get(f"{GC}/repair").expect(200)
    assert "marked as missing" in question.text
    repaired = ended(site, admin.submit(question, "#confirm form").expect(200))
    assert (repaired["parameters"], repaired["status"]) == ({"repair": "true"}, "done")
    rows = [" ".join(one.get_text(" ").split()) for one in admin.get(GC).all("#check tbody tr")]
    assert any("repair" in row and "no damage" in row for row in rows)
    assert any("every byte" in row for row in rows)
    site.api.change("DELETE FROM blob_contents")
    site.api.admin.client.push("acme/app", make_image(layers=1), "tiny")
    site.api.change("DELETE FROM blob_contents")
    damaged = ended(site, admin.submit(admin.get(GC), form, "Check").expect(200))
    assert damaged["status"] == "errored"
    shown = admin.get(GC)
    link = next(one for one in shown.links if one.endswith("?level=error"))
    assert damaged["id"] in link
    assert "has not its content in the database" in admin.get(link).expect(200).text
