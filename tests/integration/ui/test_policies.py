"""Promotion, mirrors and pruning in the web interface, without script."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.images import make_image
from tests.support.policies import APP, TAGS, make_policies, rule
from tests.support.policies import IMAGE as POLICY_IMAGE
from tests.support.rooms import annotated
from tests.support.server import PASSWORD
from tests.support.site import Shown, Site, Visitor

SETTINGS = {"mirroring.allowed_networks": "127.0.0.0/8"}
HERE = "/repositories/acme/app"
IMAGE = make_image()


@pytest.fixture(scope="module")
def ids(site: Site) -> dict[str, str]:
    """The policies of acme/app."""
    return make_policies(site.api)


@pytest.fixture
def ada(site: Site, ids: dict[str, str]) -> Visitor:
    """Who owns the organization."""
    return site.as_("ada")


def verdicts(shown: Shown) -> dict[str, str]:
    """What the tester says, by tag: the reason, and the new name."""
    found = {}
    for one in shown.all("#tester .verdict"):
        name = one.select_one("code")
        assert name is not None
        said = " ".join(one.get_text(" ").split())
        found[name.get_text()] = said
    return found


def policies(site: Site, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.api.as_("ada").get(f"{APP}/{kind}", pageSize=100).expect(200).json
    return found


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.1)


# --- the list -------------------------------------------------------------------------------------------------


def test_all_policies_are_on_one_page_with_their_rules_as_sentences(ada: Visitor, ids: dict[str, str]):
    wait_until(lambda: "2 tags wait" in ada.get(f"{HERE}/policies").expect(200).text)  # a job shows it all tags
    shown = ada.get(f"{HERE}/policies").expect(200)
    text = shown.text
    assert "To acme/prod as %n-%Y%m%d" in text
    assert "If the tag name starts with 1. and the number of critical vulnerabilities is exactly 0" in text
    assert "From acme/test" in text
    assert (
        "If (the tag name starts with dev- or no label is stage=production ) and the last pull is longer" in text
    )
    assert "but the 2 newest stay" in text
    assert f"Push to https://127.0.0.1:{ada.server.port} acme/test" in text
    for kind, name in (("promotion", "promotions"), ("pruning", "pruning"), ("mirror", "mirrors")):
        assert f"{HERE}/{name}/{ids[kind]}" in shown.links
        assert f"{HERE}/{name}/new" in shown.links
    assert len(shown.answer.body) < 50_000


@pytest.mark.parametrize(
    ("path", "kind", "others"),
    [
        ("promotions", "To acme/prod", ["Mirrors", "Pruning policies", "From acme/test"]),
        ("promotions?as=target", "From acme/test", ["To acme/prod"]),
        ("mirrors", "Push to", ["To acme/prod", "Pruning policies"]),
        ("pruning", "stage=production", ["To acme/prod", "Push to"]),
    ],
)
def test_the_old_addresses_show_one_kind(ada: Visitor, path: str, kind: str, others: list[str]):
    text = ada.get(f"{HERE}/{path}").expect(200).text
    assert kind in text
    assert not [one for one in others if one in text]


def test_lists_of_one_kind_are_paged(site: Site, ada: Visitor):
    site.api.make_repository("acme/many")
    made = {
        site.api.as_("ada")
        .post(
            "/api/v0/repositories/acme/many/pruningPolicies", {"enabled": False, "rules": [rule("tag", "eq", "x")]}
        )
        .expect(201)
        .json["id"]
        for _ in range(27)
    }
    first = ada.get("/repositories/acme/many/policies").expect(200)
    assert "/repositories/acme/many/pruning" in first.links
    shown, found = ada.get("/repositories/acme/many/pruning").expect(200), set[str]()
    while True:
        found |= {one.rpartition("/")[2] for one in shown.links if re.search(r"pruning/[0-9a-f-]{36}$", one)}
        following = shown.all("a[rel=next]")
        if not following:
            break
        shown = ada.get(str(following[0]["href"])).expect(200)
    assert found == made


def test_who_may_not_change_policies_sees_no_control_and_is_refused(site: Site, ids: dict[str, str]):
    for name in ("rita", "will"):
        visitor = site.as_(name)
        shown = visitor.get(f"{HERE}/policies").expect(200)
        assert not [one for one in shown.links if one.endswith("/new")]
        for kind, path in (("promotion", "promotions"), ("pruning", "pruning"), ("mirror", "mirrors")):
            one = visitor.get(f"{HERE}/{path}/{ids[kind]}").expect(200)
            assert not one.all("main form"), path
            assert not [link for link in one.links if link.startswith(f"{HERE}/{path}/{ids[kind]}/")]
            for address in ("new", f"{ids[kind]}/edit", f"{ids[kind]}/delete"):
                visitor.get(f"{HERE}/{path}/{address}").expect(403)
                visitor.post(f"{HERE}/{path}/{address}", {"do": "save"}).expect(403)
            visitor.post(f"{HERE}/{path}/{ids[kind]}/switch", {"enabled": "true"}).expect(403)
            visitor.post(f"{HERE}/{path}/{ids[kind]}/run").expect(403)
    site.as_("pia").get(f"{HERE}/policies").expect(404)
    assert "/login" in site.as_(None).get(f"{HERE}/promotions/new").url


def test_who_manages_one_side_of_a_promotion_deletes_it_and_does_not_change_it(site: Site, ids: dict[str, str]):
    adam = site.as_("adam")
    shown = adam.get(f"{HERE}/promotions/{ids['promotion']}").expect(200)
    assert f"{HERE}/promotions/{ids['promotion']}/delete" in shown.links
    assert f"{HERE}/promotions/{ids['promotion']}/edit" not in shown.links
    assert "/repositories/acme/prod" not in shown.links  # he may not see it
    adam.get(f"{HERE}/promotions/{ids['promotion']}/edit").expect(403)
    adam.get(f"{HERE}/promotions/{ids['promotion']}/delete").expect(200)


def test_a_promotion_is_changed_from_its_target_as_well(site: Site, ada: Visitor, ids: dict[str, str]):
    listed = ada.get(f"{HERE}/promotions?as=target").expect(200)
    assert not [one for one in listed.links if one.endswith("/new")]  # it would be one from here
    shown = ada.get(f"{HERE}/promotions/{ids['arriving']}/edit").expect(200)
    assert shown.one("#f-target")["value"] == "acme/app"
    done = ada.submit(shown, "main form", "Save for future tags", template="from-test-%n").expect(200)
    assert done.url.endswith(f"{HERE}/promotions/{ids['arriving']}")
    now = site.api.as_("ada").get(f"/api/v0/repositories/acme/test/promotionPolicies/{ids['arriving']}").json
    assert (now["sourceRepository"], now["targetRepository"], now["tagTemplate"]) == (
        "acme/test", "acme/app", "from-test-%n",
    )  # fmt: skip
    site.as_("adam").get(f"{HERE}/promotions/{ids['arriving']}/edit").expect(403)


# --- the form -------------------------------------------------------------------------------------------------


def test_rules_are_put_together_by_buttons_and_the_policy_is_saved(site: Site, ada: Visitor):
    shown = ada.get(f"{HERE}/promotions/new").expect(200)
    shown = ada.submit(
        shown, "main form", "Add a rule", **{"rules.0.value": "1.", "target": "acme/test", "template": "%n-ok"}
    ).expect(200)
    shown = ada.submit(shown, "main form", "Add a group", **{"rules.1.field": "signed"}).expect(200)
    assert [one["value"] for one in shown.all("[name='rules.1.field'] [selected]")] == ["signed"]
    # The comparisons are those of the field only when the form was sent again.
    assert [one["value"] for one in shown.all("[name='rules.1.operator'] option")] == ["eq"]
    shown = ada.submit(
        shown, "main form", "Update the form",
        **{"rules.1.value": "false", "rules.2.group": "none", "rules.2.0.operator": "ew", "rules.2.0.value": ".1",
           "rules.2.1.field": "size"},
    ).expect(200)  # fmt: skip
    said = verdicts(shown)
    assert said == {}  # a rule is not complete
    shown = ada.submit(
        shown, "main form", "Test all tags" if shown.has("[value=test-all]") else None,
        **{"rules.2.1.value": "5", "rules.2.1.operator": "gt", "rules.2.1.unit": "GB"},
    ).expect(200)  # fmt: skip
    said = verdicts(shown)
    assert "All rules hold." in said["1.0"]
    assert "1.0-ok" in said["1.0"]
    assert "Not so: not (" in said["1.1"]
    assert "The tag name does not start with 1." in said["latest"]
    done = ada.submit(shown, "main form", "Save for future tags").expect(200)
    (made,) = [one for one in policies(site, "promotionPolicies") if one["tagTemplate"] == "%n-ok"]
    assert done.url.endswith(f"{HERE}/promotions/{made['id']}")
    assert made["rules"] == [
        rule("tag", "sw", "1."),
        rule("signed", "eq", "false"),
        {"not": {"any": [rule("tag", "ew", ".1"), rule("size", "gt", "5000000000")]}},
    ]
    assert (made["targetRepository"], made["enabled"]) == ("acme/test", True)
    assert "If the tag name starts with 1." in done.text
    assert "Nothing yet" in done.text


def test_in_a_long_form_a_row_is_opened_to_change_what_it_compares(ada: Visitor):
    shown = ada.get(f"{HERE}/pruning/new").expect(200)
    for _ in range(9):
        shown = ada.submit(shown, "main form", "Add a rule").expect(200)
    assert shown.has("[name='rules.9.open']")  # what was added last has all texts to choose from
    assert len(shown.all("[name='rules.3.field'] option")) == 1
    assert len(shown.all("#o-field option")) == len(shown.all("[name='rules.9.field'] option")) == 16
    opener = shown.one("button[value='open:3']").get_text()
    assert opener == "Change the rule"
    shown = ada.submit(shown, "main form", "Update the form", do="open:3").expect(200)
    assert [one["name"] for one in shown.all("[name$='.open']")] == ["rules.3.open"]
    shown = ada.submit(shown, "main form", "Update the form", **{"rules.3.field": "size"}).expect(200)
    assert [one["value"] for one in shown.all("[name='rules.3.operator'] option")] == [
        "lte", "lt", "eq", "neq", "gte", "gt",
    ]  # fmt: skip


def test_existing_tags_are_promoted_when_that_is_wanted(site: Site, ada: Visitor):
    shown = ada.get(f"{HERE}/promotions/new?target=acme/test").expect(200)
    shown = ada.submit(shown, **{"rules.0.value": "debug", "template": "from-%n"}).expect(200)
    done = ada.submit(shown, "main form", "Save and promote 1 existing tag").expect(200)
    wait_until(lambda: "acme/test:from-debug-shell" in ada.get(done.url.removeprefix(ada.origin)).text)
    # The target does not let it be overwritten: the tester says so.
    site.api.as_("ada").patch("/api/v0/repositories/acme/test", {"immutableTags": True}).expect(200)
    try:
        site.api.as_("ada").client.put_manifest(
            "acme/app", annotated(POLICY_IMAGE, n="new"), "debug-shell"
        ).expect(201)
        again = ada.get(f"{done.url.removeprefix(ada.origin)}/edit").expect(200)
        assert "cannot be overwritten" in verdicts(again)["debug-shell"]
    finally:
        site.api.as_("ada").patch("/api/v0/repositories/acme/test", {"immutableTags": False}).expect(200)


def test_a_refused_form_keeps_what_was_typed_and_names_the_fields(site: Site, ada: Visitor):
    before = len(policies(site, "promotionPolicies"))
    shown = ada.get(f"{HERE}/promotions/new").expect(200)
    typed = {"rules.0.value": "", "target": "", "template": "%n-%q"}
    refused = ada.submit(shown, "main form", "Save for future tags", **typed).expect(422)
    assert refused.problems == {
        "rules.0.value": "Fill in what the rule compares with.",
        "target": "Choose the repository that receives the image.",
        "template": "“%q” is not a code. Did you mean %n?",
    }
    assert refused.one("#f-template")["value"] == "%n-%q"
    assert {one["href"] for one in refused.all("[data-error-summary] a")} == {
        "#f-rules.0.value", "#f-target", "#f-template",
    }  # fmt: skip
    for target in ("acme/none", "No Name", "<b>"):
        typed = {"rules.0.value": "x", "target": target, "template": "%n"}
        refused = ada.submit(shown, "main form", "Save for future tags", **typed).expect(422)
        assert refused.problems == {"target": "There is no such repository, or you do not manage it."}
        assert refused.one("#f-target")["value"] == target
    itself = ada.submit(
        shown, "main form", "Save for future tags", **{"rules.0.value": "x", "target": "acme/app"}
    ).expect(422)
    assert "a repository is not promoted to itself" in itself.text
    assert len(policies(site, "promotionPolicies")) == before


def test_suggested_targets_are_those_that_the_visitor_manages(site: Site, ids: dict[str, str]):
    found = [one["value"] for one in site.as_("ada").get(f"{HERE}/promotions/new").all("#targets option")]
    assert {"acme/prod", "acme/test"} <= set(found)
    assert "acme/app" not in found
    assert site.as_("adam").get(f"{HERE}/promotions/new").all("#targets option") == []


def test_two_editors_of_a_policy_do_not_overwrite_each_other_unseen(site: Site, ada: Visitor):
    made = site.api.as_("ada").post(
        f"{APP}/promotionPolicies",
        {"rules": [rule("tag", "eq", "one")], "targetRepository": "acme/test", "tagTemplate": "edited"},
        initialEvaluation="false",
    ).expect(201).json  # fmt: skip
    edit = f"{HERE}/promotions/{made['id']}/edit"
    mine, theirs = ada.get(edit).expect(200), ada.get(edit).expect(200)
    ada.submit(theirs, "main form", "Save for future tags", **{"rules.0.value": "theirs"}).expect(200)
    conflict = ada.submit(mine, "main form", "Save for future tags", **{"rules.0.value": "mine"}).expect(409)
    assert "Somebody else changed this policy" in conflict.text
    assert conflict.one("[name='rules.0.value']")["value"] == "mine"
    ada.submit(conflict, "main form", "Save for future tags").expect(200)
    now = site.api.as_("ada").get(f"{APP}/promotionPolicies/{made['id']}").expect(200).json
    assert now["rules"] == [rule("tag", "eq", "mine")]


def test_the_newest_tags_are_tried_out_at_once_and_all_when_asked(site: Site, ada: Visitor):
    site.api.make_repository("acme/large")
    client = site.api.as_("ada").client
    client.push("acme/large", IMAGE, "t00")
    for number in range(1, 31):
        client.put_manifest("acme/large", annotated(IMAGE, n=str(number)), f"t{number:02}").expect(201)
    shown = ada.get("/repositories/acme/large/pruning/new").expect(200)
    shown = ada.submit(shown, **{"rules.0.value": "t", "keep": "3"}).expect(200)
    assert list(verdicts(shown)) == [f"t{number:02}" for number in range(30, 5, -1)]
    assert "Stays: it is one of the newest." in verdicts(shown)["t28"]
    assert "All rules hold." in verdicts(shown)["t27"]
    assert "The 25 newest of 31 tags" in shown.text
    assert shown.has("[value=apply]")
    tested = ada.submit(shown, "main form", "Test all tags").expect(200)
    assert "28 of 31 tags" in tested.text
    asked = ada.submit(tested, "main form", "Save and delete 28 existing tags…").expect(200)
    assert asked.title == "Save the policy and delete 28 tags"
    assert "18 more tags" in asked.text
    assert len(site.api.as_("ada").get("/api/v0/repositories/acme/large/tags", pageSize=99).json) == 31
    done = ada.submit(asked, "#confirm form", "Save and delete 28 tags").expect(200)
    wait_until(lambda: "Deleted 28" in ada.get(done.url.removeprefix(ada.origin)).text)
    text = ada.get(done.url.removeprefix(ada.origin)).text
    assert "Stayed as the newest 3" in text
    assert "t05" in text  # what it deleted


# --- one policy -----------------------------------------------------------------------------------------------


def test_a_policy_is_switched_off_and_on(site: Site, ada: Visitor, ids: dict[str, str]):
    for kind, path, listed in (
        ("promotion", "promotions", "promotionPolicies"),
        ("mirror", "mirrors", "mirroringPolicies"),
        ("pruning", "pruning", "pruningPolicies"),
    ):
        page = f"{HERE}/{path}/{ids[kind]}"

        def is_on(kind: str = kind, listed: str = listed) -> bool:
            return next(bool(one["enabled"]) for one in policies(site, listed) if one["id"] == ids[kind])

        before = is_on()
        button = "Switch off" if before else "Switch on"
        ada.submit(ada.get(page).expect(200), f"form[action$='{ids[kind]}/switch']", button).expect(200)
        assert is_on() is not before
        button = "Switch on" if before else "Switch off"
        ada.submit(ada.get(page).expect(200), f"form[action$='{ids[kind]}/switch']", button).expect(200)
        assert is_on() is before


def test_a_pruning_policy_says_what_goes_before_it_runs(site: Site, ada: Visitor):
    made = site.api.as_("ada").post(
        f"{APP}/pruningPolicies", {"enabled": False, "rules": [rule("tag", "eq", "latest")]}
    ).expect(201).json  # fmt: skip
    page = f"{HERE}/pruning/{made['id']}"
    asked = ada.get(f"{page}/run").expect(200)
    assert asked.title == "Delete 1 tag by this policy"
    assert "latest" in asked.text
    ada.submit(asked, "#confirm form", "Delete 1 tag").expect(200)
    wait_until(
        lambda: "latest" in ada.get(page).one("table tbody").get_text() if ada.get(page).has("tbody") else False
    )
    shown = ada.get(page).expect(200)
    assert "Deleted 1" in shown.text
    assert "Job log" not in shown.text
    shown = site.as_("admin").get(page).expect(200)
    (job,) = [one for one, text in shown.links.items() if text == "Job log"]
    assert site.as_("admin").get(job).status == 200
    site.api.admin.delete(f"/api/v0/jobs/{job.rpartition('/')[2]}").expect(204)
    assert "Job log" not in site.as_("admin").get(page).expect(200).text  # it is not kept any more
    ada.submit(ada.get(f"{page}/delete").expect(200), "#confirm form", "Delete policy").expect(200)
    assert made["id"] not in [one["id"] for one in policies(site, "pruningPolicies")]
    ada.get(page).expect(404)


def test_a_pruning_policy_needs_a_rule(ada: Visitor):
    shown = ada.get(f"{HERE}/pruning/new").expect(200)
    shown = ada.submit(shown, "main form", "", do="remove:0").expect(200)
    refused = ada.submit(shown, "main form", "Save for future tags").expect(422)
    assert "without any, every tag would be deleted" in refused.text
    refused = ada.submit(shown, "main form", "Save for future tags", keep="-1").expect(422)
    assert refused.problems["keep"] == "Type a whole number up to 100,000."


# --- mirrors --------------------------------------------------------------------------------------------------


def at_itself(site: Site, **more: str) -> dict[str, str]:
    return {
        "host": f"https://127.0.0.1:{site.server.port}",
        "repository": "acme/prod",
        "username": "ada",
        "skip_tls": "on",
        **more,
    }


def test_a_remote_is_tried_out_step_by_step_and_the_password_is_kept_unseen(site: Site, ada: Visitor):
    shown = ada.get(f"{HERE}/mirrors/new?direction=push").expect(200)
    wrong = at_itself(site, password="hunter2 & more")
    tried = ada.submit(shown, "main form", "Test the connection", **wrong).expect(200)
    steps = {one.get_text(" ").strip().partition("  ")[0]: one for one in tried.all("#checks li")}
    said = [" ".join(one.get_text(" ").split()) for one in tried.all("#checks li")]
    assert len(steps) == len(said) == 5
    assert said[0] == "It answers yes"
    assert said[2].startswith("It takes the credentials no")
    assert said[4].startswith("The repository can be pushed to not tried")
    assert "hunter2" not in tried.answer.body.decode()
    assert tried.answer.headers["cache-control"] == "no-store"
    kept = tried.one("[name=kept_password]")["value"]
    assert kept
    # Another session makes nothing of it.
    other = site.as_("ada")
    fresh = other.get(f"{HERE}/mirrors/new?direction=push").expect(200)
    good = {**at_itself(site), "kept_password": str(kept)}
    assert (
        not other.submit(fresh, "main form", "Test the connection", **good).expect(200).has("[name=kept_password]")
    )
    right = ada.submit(tried, "main form", "Test the connection", password=PASSWORD).expect(200)
    assert [" ".join(one.get_text(" ").split()) for one in right.all("#checks li")][-1] == (
        "The repository can be pushed to yes"
    )
    right = ada.submit(right, "main form", "Add a rule").expect(200)
    done = ada.submit(
        right, "main form", "Save for future tags", **{"rules.0.value": "1.", "template": "mirrored-%n"}
    ).expect(200)
    (made,) = [one for one in policies(site, "mirroringPolicies") if one["tagTemplate"] == "mirrored-%n"]
    assert done.url.endswith(made["id"])
    assert (made["mirroringType"], made["username"]) == ("push", "ada")
    assert {name: made["rules"][0][name] for name in ("field", "operator", "values")} == rule("tag", "sw", "1.")
    # With the credentials that are kept: the connection, a run, and what became of the tags.
    page = f"{HERE}/mirrors/{made['id']}"
    tried = ada.submit(ada.get(page), "form[action$='/check']", "Test the connection").expect(200)
    assert tried.text.count("yes") == 5
    ada.submit(ada.get(page), "form[action$='/run']", "Run now").expect(200)
    wait_until(lambda: ada.get(f"{page}?state=mirrored").text.count("mirrored-1.") == 2)
    assert "mirrored-1.0" in ada.get(f"{page}?state=mirrored").text
    assert "No tag is in this state." in ada.get(f"{page}?state=failed").text
    wait_until(lambda: "2 tags mirrored" in ada.get(f"{HERE}/policies").text)  # when a job of them has ended


def test_a_policy_of_a_remote_that_refuses_says_why(site: Site, ada: Visitor):
    shown = ada.get(f"{HERE}/mirrors/new?direction=push").expect(200)
    before = len(policies(site, "mirroringPolicies"))
    refused = ada.submit(shown, "main form", "Save for future tags", **at_itself(site, password="wrong")).expect(
        422
    )
    assert "host" in refused.problems
    assert refused.has("#checks .bad")
    refused = ada.submit(shown, "main form", "Save for future tags", host="", repository="").expect(422)
    assert {"host", "repository"} <= set(refused.problems)
    refused = ada.submit(
        shown, "main form", "Save for future tags", **at_itself(site, password=PASSWORD, schedule="never")
    ).expect(422)
    assert "schedule" in refused.text
    assert len(policies(site, "mirroringPolicies")) == before


def test_the_tags_of_the_other_side_are_shown_before_a_pull(site: Site, ada: Visitor):
    shown = ada.get(f"{HERE}/mirrors/new").expect(200)
    shown = ada.submit(shown, "main form", "Add a rule").expect(200)
    there = at_itself(site, repository="acme/app", password=PASSWORD, **{"rules.0.value": "dev-"})
    shown = ada.submit(shown, "main form", "Look at the tags there", **there).expect(200)
    said = verdicts(shown)
    assert set(TAGS) <= set(said)
    assert "All rules hold." in said["dev-1"]
    assert "A rule does not hold." in said["1.0"]
    done = ada.submit(shown, "main form", "Save for future tags", password=PASSWORD).expect(200)
    edit = ada.get(f"{done.url.removeprefix(ada.origin)}/edit").expect(200)
    again = ada.submit(edit, "main form", "Look at the tags there").expect(200)
    assert verdicts(again) == said  # with the credentials that are kept
    wrong = ada.submit(
        shown, "main form", "Save for future tags", **{"rules.0.field": "size", "rules.0.value": "5"}
    ).expect(422)
    assert "ask for the tag name alone" in wrong.text


def test_an_edited_mirror_keeps_its_credentials(site: Site, ada: Visitor, ids: dict[str, str]):
    page = f"{HERE}/mirrors/{ids['mirror']}"
    shown = ada.get(f"{page}/edit").expect(200)
    assert PASSWORD not in shown.answer.body.decode()
    ada.submit(shown, "main form", "Save for future tags", template="kept-%n").expect(200)
    tried = ada.submit(ada.get(page), "form[action$='/check']", "Test the connection").expect(200)
    assert tried.text.count("yes") == 5
    moved = ada.submit(shown, "main form", "Save for future tags", repository="acme/prod").expect(422, 409)
    assert "have to be given again" in moved.text or "Somebody else" in moved.text


def test_a_stored_remote_brings_its_credentials(site: Site, ada: Visitor):
    remote = {
        "name": "hub 1",
        "namespace": "acme",
        "remoteHost": f"https://127.0.0.1:{site.server.port}",
        "skipTLSVerification": True,
        "username": "ada",
        "password": PASSWORD,
    }
    made = site.api.as_("ada").post("/api/v0/remotes", remote).expect(201).json
    shown = ada.get(f"{HERE}/mirrors/new?direction=push").expect(200)
    assert "hub 1" in shown.one("#f-remote").get_text()
    tried = ada.submit(
        shown, "main form", "Test the connection", remote=made["id"], repository="acme/prod"
    ).expect(200)
    assert len(tried.all("#checks .good")) == 5
    assert not site.as_("adam").get(f"{HERE}/mirrors/new?direction=push").expect(200).has("#f-remote")


def test_a_cache_says_that_it_is_one(site: Site, ada: Visitor):
    remote = site.api.as_("ada").post(
        "/api/v0/remotes", {"name": "hub 2", "namespace": "acme", "remoteHost": "docker.io"}
    ).expect(201).json  # fmt: skip
    site.api.make_repository("acme/cache")
    upstream = {"remoteID": remote["id"], "remoteRepository": "library/alpine"}
    site.api.as_("ada").put("/api/v0/repositories/acme/cache/upstream", upstream).expect(200, 201)
    assert "is a cache of library/alpine" in ada.get("/repositories/acme/cache/policies").expect(200).text
    assert "is a cache" not in ada.get(f"{HERE}/policies").text


# --- foreign texts --------------------------------------------------------------------------------------------


def test_hostile_texts_are_inert(site: Site, ada: Visitor):
    evil = '"><script>alert(1)</script>\u202egnp'
    made = site.api.as_("ada").post(
        f"{APP}/promotionPolicies",
        {
            "rules": [rule("label", "oo", evil, "x" * 900), {"not": rule("component.name", "c", evil)}],
            "targetRepository": "acme/test",
            "tagTemplate": "%n",
            "enabled": False,
        },
    ).expect(201).json  # fmt: skip
    page = f"{HERE}/promotions/{made['id']}"
    for path in (f"{HERE}/policies", page, f"{page}/edit"):
        shown = ada.get(path).expect(200)
        assert not [one for one in shown.all("script") if one.get_text().strip()]
        assert b"<script>alert" not in shown.answer.body
    typed = {"rules.0.value": evil, "target": evil, "template": evil}
    refused = ada.submit(ada.get(f"{HERE}/promotions/new"), "main form", "Save for future tags", **typed).expect(
        422
    )
    assert b"<script>alert" not in refused.answer.body
    assert refused.one("#f-target")["value"] == evil
    ada.submit(ada.get(f"{page}/delete"), "#confirm form", "Delete policy").expect(200)
