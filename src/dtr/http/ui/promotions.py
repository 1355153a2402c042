"""Promotion policies: the form with its rule tester, one policy with its history, and what is done with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dtr.http.api import listings, promotion
from dtr.http.api.errors import ApiError
from dtr.http.api.promotion import PromotionPolicyChanges, PromotionPolicyForm, PromotionTrial
from dtr.http.ui import rules
from dtr.http.ui.pages import Pages
from dtr.http.ui.policies import (
    Draft,
    Tested,
    check_rows,
    find_job,
    form_context,
    is_edit,
    may_on,
    read_fields,
    try_out,
    version_of,
    waits_for_scan,
)
from dtr.http.ui.problems import Problems, Refused
from dtr.policies.templates import CODES

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.api.promotion import PromotionPolicyRecord
    from dtr.http.ui.visit import Repository, Visit

pages = Pages()

_AT = "/repositories/{namespace}/{repo:path}/promotions"
_MOST_TARGETS = 50
_FIELDS = {
    "NO_SUCH_REPOSITORY": "target",
    "NOT_AUTHORIZED": "target",
    "targetRepository": "target",
    "tagTemplate": "template",
}


class PromotionDraft(Draft):
    """A promotion policy as it stands in the form."""

    target: str = ""
    template: str = "%n"


# --- the form -------------------------------------------------------------------------------------------------


@pages.get(f"{_AT}/new")
async def new_promotion(visit: Visit) -> Response:
    """The form of a new policy."""
    repo = await visit.repository("EDIT_POLICIES")
    return await _form(visit, repo, PromotionDraft([rules.Row()], target=visit.query.get("target", "")[:255]))


@pages.post(f"{_AT}/new")
async def create_promotion(visit: Visit) -> Response:
    """Make the policy, or do what a button of the form says."""
    repo = await visit.repository("EDIT_POLICIES")
    draft, action = await _read(visit), await visit.text("do")
    if is_edit(draft, action):
        return await _form(visit, repo, draft, action)
    problems = _check(draft, visit)
    if not problems:
        try:
            made = await visit.submit(
                promotion.create_promotion_policy,
                form=PromotionPolicyForm,
                data=_data(draft),
                fields=_FIELDS,
                path=repo.path,
                initial_evaluation=action == "apply",
            )
        except Refused as refused:
            return await _refuse(visit, repo, draft, refused)
        return visit.redirect(f"{repo.url}/promotions/{made.id}", visit._("The policy is there now."))
    return await _refuse(visit, repo, draft, Refused(problems))


@pages.get(f"{_AT}/{{id}}/edit")
async def edit_promotion(visit: Visit) -> Response:
    """The form of a policy that is there."""
    repo, record = await _found(visit, manage=True)
    draft = PromotionDraft(
        rules.rows_of(record.rules),
        enabled=record.enabled,
        was=version_of(record),
        target=record.target_repository,
        template=record.tag_template,
    )
    return await _form(visit, repo, draft, record=record)


@pages.post(f"{_AT}/{{id}}/edit")
async def change_promotion(visit: Visit) -> Response:
    """Change the policy, or do what a button of the form says."""
    repo, record = await _found(visit, manage=True)
    draft, action = await _read(visit), await visit.text("do")
    if is_edit(draft, action):
        return await _form(visit, repo, draft, action, record=record)
    problems = _check(draft, visit)
    status = 422
    if draft.was != version_of(record):
        problems.add(
            "", visit._("Somebody else changed this policy meanwhile. To save yours all the same, save again.")
        )
        draft.was, status = version_of(record), 409
    if not problems:
        try:
            await visit.submit(
                promotion.update_promotion_policy,
                form=PromotionPolicyChanges,
                data=_data(draft),
                fields=_FIELDS,
                path=repo.path,
                promotionpolicyid=record.id,
                initial_evaluation=action == "apply",
            )
        except Refused as refused:
            return await _refuse(visit, repo, draft, refused, record=record)
        return visit.redirect(f"{repo.url}/promotions/{record.id}", visit._("The policy was changed."))
    return await _refuse(visit, repo, draft, Refused(problems, status), record=record)


async def _found(visit: Visit, *, manage: bool = False) -> tuple[Repository, PromotionPolicyRecord]:
    """The policy of the address. Raises ApiError: there is none, or (`manage`) the visitor may not change it."""
    repo = await visit.repository("EDIT_POLICIES" if manage else "SEE")
    record = await visit.call(promotion.get_promotion_policy, path=repo.path, promotionpolicyid=visit.values["id"])
    if manage and not await _may_change(visit, repo, record):
        raise ApiError("NOT_AUTHORIZED")
    return repo, record


async def _may_change(visit: Visit, repo: Repository, record: PromotionPolicyRecord) -> bool:
    if not repo.may("EDIT_POLICIES"):
        return False
    others = {record.source_repository, record.target_repository} - {repo.path}
    return all([await may_on(visit, one, "EDIT_POLICIES") for one in others])


async def _read(visit: Visit) -> PromotionDraft:
    fields = await read_fields(visit)
    return PromotionDraft(
        rules.read_rows(fields),
        enabled="enabled" in fields,
        was=fields.get("was", ""),
        target=fields.get("target", "").strip()[:300],
        template=fields.get("template", "").strip()[:300],
    )


def _data(draft: PromotionDraft) -> dict[str, object]:
    return {
        "enabled": draft.enabled,
        "rules": draft.documents,
        "targetRepository": draft.target,
        "tagTemplate": draft.template,
    }


def _check(draft: PromotionDraft, visit: Visit) -> Problems:
    problems = Problems()
    check_rows(draft, problems, visit)
    if not draft.target:
        problems.add("target", visit._("Choose the repository that receives the image."))
    problem = fault_of_template(draft.template, visit)
    if problem:
        problems.add("template", problem)
    return problems


def fault_of_template(template: str, visit: Visit) -> str:
    """What is wrong with a template of names; empty: nothing that can be seen without a tag."""
    if not template:
        return visit._("Fill in this field.")
    for code in re.findall(r"%(.?)", template.replace("%%", "")):
        if code not in CODES or not code:
            like = next((one for one in CODES if one.lower() == code.lower()), "n")
            said: str = visit.words(
                "“{code}” is not a code. Did you mean {other}?", code="%" + code, other="%" + like
            )
            return said
    return ""


async def _form(
    visit: Visit,
    repo: Repository,
    draft: PromotionDraft,
    action: str = "",
    *,
    record: PromotionPolicyRecord | None = None,
    refused: Refused | None = None,
) -> Response:
    source = record.source_repository if record else repo.path
    tested = await _try(visit, source, draft, everything=action == "test-all")
    return visit.page(
        "policies/promotion_form.html",
        refused.status if refused else 200,
        problems=refused.problems if refused else Problems(),
        repo=repo,
        record=record,
        targets=await _targets(visit, source, draft.target),
        template_fault=fault_of_template(draft.template, visit) if action else "",
        **form_context(draft, tested),
    )


async def _refuse(
    visit: Visit,
    repo: Repository,
    draft: PromotionDraft,
    refused: Refused,
    *,
    record: PromotionPolicyRecord | None = None,
) -> Response:
    if refused.problems.code in {"NO_SUCH_REPOSITORY", "NOT_AUTHORIZED"}:
        text = visit._("There is no such repository, or you do not manage it.")
        refused.problems.fields["target"] = text
    return await _form(visit, repo, draft, record=record, refused=refused)


async def _try(visit: Visit, source: str, draft: PromotionDraft, *, everything: bool) -> Tested | None:
    problems = Problems()
    check_rows(draft, problems, visit)
    if problems or fault_of_template(draft.template, visit):
        return None
    knows_target = bool(draft.target) and await may_on(visit, draft.target, "EDIT_POLICIES")
    form = PromotionTrial.model_validate(
        {**_data(draft), "targetRepository": draft.target if knows_target else ""}
    )
    return await try_out(
        visit,
        source,
        promotion.try_promotion_policy,
        form,
        draft.rows,
        everything=everything,
        meant=lambda one: one.promote,
    )


async def _targets(visit: Visit, source: str, typed: str) -> list[str]:
    """Repositories that may be the target: those whose name has what was typed, or of the source's namespace."""
    given = {"query": typed} if typed else {"namespace": source.partition("/")[0]}
    found = await visit.call(listings.search_repositories, **given)
    records = [one.repository for one in found.repositories]
    paths = [f"{one.namespace}/{one.name}" for one in records if one.your_access == "admin"]
    return [one for one in paths if one != source][:_MOST_TARGETS]


# --- one policy -----------------------------------------------------------------------------------------------


@pages.get(f"{_AT}/{{id}}")
async def show_promotion(visit: Visit) -> Response:
    """A policy: what it does, what it did, and what it waits for."""
    repo, record = await _found(visit)
    rows = rules.rows_of(record.rules)
    history = waiting = None
    if await may_on(visit, record.source_repository, "SEE_ALL_EVENTS"):
        history = await visit.listing(promotion.list_promotions, path=record.source_repository, policy=record.id)
        if record.waiting:
            waiting = await visit.listing(
                promotion.list_waiting_tags,
                path=record.source_repository,
                promotionpolicyid=record.id,
                start=visit.query.get("waiting", ""),
            )
    return visit.page(
        "policies/promotion.html",
        repo=repo,
        record=record,
        sentences=rules.sentences(rows, visit.words),
        needs_scan=waits_for_scan(rows),
        job=await find_job(visit, record.last_job),
        may_change=await _may_change(visit, repo, record),
        sees_source=await may_on(visit, record.source_repository, "SEE"),
        sees_target=await may_on(visit, record.target_repository, "SEE"),
        history=history,
        waiting=waiting,
    )


@pages.post(f"{_AT}/{{id}}/switch")
async def switch_promotion(visit: Visit) -> Response:
    """Switch a policy on or off."""
    repo, record = await _found(visit, manage=True)
    enabled = await visit.text("enabled") == "true"
    form = PromotionPolicyChanges(enabled=enabled)
    await visit.call(
        promotion.update_promotion_policy,
        path=repo.path,
        promotionpolicyid=record.id,
        form=form,
        initial_evaluation=False,
    )
    here = f"{repo.url}/promotions/{record.id}"
    said = visit._("The policy is on.") if enabled else visit._("The policy is off.")
    return visit.redirect(here, said, undo=(f"{here}/switch", {"enabled": str(not enabled).lower()}))


@pages.get(f"{_AT}/{{id}}/run")
async def ask_run(visit: Visit) -> Response:
    """Ask before all tags are shown to a policy."""
    repo, record = await _found(visit, manage=True)
    return visit.confirm(
        visit._("Promote the tags that are there"),
        verb=visit._("Promote existing tags"),
        text=visit._(
            "Every tag of {source} that the rules mean is promoted to {target}, whatever was promoted before.",
            source=record.source_repository,
            target=record.target_repository,
        ),
        back=f"{repo.url}/promotions/{record.id}",
    )


@pages.post(f"{_AT}/{{id}}/run")
async def run_promotion(visit: Visit) -> Response:
    """Show all tags to a policy."""
    repo, record = await _found(visit, manage=True)
    await visit.call(
        promotion.update_promotion_policy,
        path=repo.path,
        promotionpolicyid=record.id,
        form=PromotionPolicyChanges(),
        initial_evaluation=True,
    )
    return visit.redirect(
        f"{repo.url}/promotions/{record.id}",
        visit._("The tags are being looked at. What is promoted stands below."),
    )


@pages.get(f"{_AT}/{{id}}/delete")
async def ask_delete(visit: Visit) -> Response:
    """Ask before a policy goes."""
    repo, record = await _deletable(visit)
    return visit.confirm(
        visit._("Delete the promotion policy"),
        verb=visit._("Delete policy"),
        text=visit._("The tags that it promoted stay."),
        items=[
            visit._(
                "Tags of {source} are not promoted to {target} any more.",
                source=record.source_repository,
                target=record.target_repository,
            )
        ],
        back=f"{repo.url}/promotions/{record.id}",
    )


@pages.post(f"{_AT}/{{id}}/delete")
async def delete_promotion(visit: Visit) -> Response:
    """Delete a policy."""
    repo, record = await _deletable(visit)
    await visit.call(promotion.delete_promotion_policy, path=repo.path, promotionpolicyid=record.id)
    return visit.redirect(f"{repo.url}/policies", visit._("The policy is gone."))


async def _deletable(visit: Visit) -> tuple[Repository, PromotionPolicyRecord]:
    """The policy, for who may delete it: whoever manages the repository of the address. Raises ApiError."""
    repo = await visit.repository("EDIT_POLICIES")
    return repo, await visit.call(
        promotion.get_promotion_policy, path=repo.path, promotionpolicyid=visit.values["id"]
    )
