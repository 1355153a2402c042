"""Pruning policies: the form with its rule tester, one policy with its history, and what is done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.events import Filter
from dtr.http.api import events, pruning
from dtr.http.api.pruning import PruningPolicyChanges, PruningPolicyForm, PruningTrial
from dtr.http.ui import rules
from dtr.http.ui.pages import Pages
from dtr.http.ui.policies import (
    Draft,
    Tested,
    check_rows,
    find_job,
    form_context,
    is_edit,
    read_fields,
    try_out,
    version_of,
    waits_for_scan,
)
from dtr.http.ui.problems import Problems, Refused
from dtr.http.ui.schedules import in_words

if TYPE_CHECKING:
    import datetime as dt

    from starlette.responses import Response

    from dtr.http.api.pruning import PruningPolicyRecord
    from dtr.http.ui.visit import Repository, Visit

pages = Pages()

_AT = "/repositories/{namespace}/{repo:path}/pruning"
_NAMED = 10
"""Tags that are named before they go."""
_SURE = "sure"
"""The field of a form that was asked about."""


class PruningDraft(Draft):
    """A pruning policy as it stands in the form."""

    keep: str = "0"


@pages.get(f"{_AT}/new")
async def new_pruning(visit: Visit) -> Response:
    """The form of a new policy."""
    repo = await visit.repository("EDIT_POLICIES")
    return await _form(visit, repo, PruningDraft([rules.Row()]))


@pages.post(f"{_AT}/new")
async def create_pruning(visit: Visit) -> Response:
    """Make the policy, ask before tags go by it, or do what a button of the form says."""
    repo = await visit.repository("EDIT_POLICIES")
    return await _save(visit, repo, None)


@pages.get(f"{_AT}/{{id}}/edit")
async def edit_pruning(visit: Visit) -> Response:
    """The form of a policy that is there."""
    repo, record = await _found(visit, manage=True)
    draft = PruningDraft(
        rules.rows_of(record.rules), enabled=record.enabled, was=version_of(record), keep=str(record.keep)
    )
    return await _form(visit, repo, draft, record=record)


@pages.post(f"{_AT}/{{id}}/edit")
async def change_pruning(visit: Visit) -> Response:
    """Change the policy, ask before tags go by it, or do what a button of the form says."""
    repo, record = await _found(visit, manage=True)
    return await _save(visit, repo, record)


async def _save(visit: Visit, repo: Repository, record: PruningPolicyRecord | None) -> Response:
    fields = await read_fields(visit)
    draft = PruningDraft(
        rules.read_rows(fields),
        enabled="enabled" in fields,
        was=fields.get("was", ""),
        keep=fields.get("keep", "").strip()[:20],
    )
    action = fields.get("do", "")
    if is_edit(draft, action):
        return await _form(visit, repo, draft, action, record=record)
    problems, status = _check(draft, visit), 422
    if record is not None and draft.was != version_of(record):
        problems.add(
            "", visit._("Somebody else changed this policy meanwhile. To save yours all the same, save again.")
        )
        draft.was, status = version_of(record), 409
    if problems:
        return await _form(visit, repo, draft, record=record, refused=Refused(problems, status))
    applies = action == "apply"
    if applies and draft.enabled and _SURE not in fields:
        tested = await _try(visit, repo, draft, everything=True)
        if tested is not None and tested.matches:
            return _ask(visit, fields, tested)
    try:
        if record is None:
            made = await visit.submit(
                pruning.create_pruning_policy,
                form=PruningPolicyForm,
                data=_data(draft),
                path=repo.path,
                initial_evaluation=applies,
            )
        else:
            made = await visit.submit(
                pruning.update_pruning_policy,
                form=PruningPolicyChanges,
                data=_data(draft),
                path=repo.path,
                pruningpolicyid=record.id,
                initial_evaluation=applies,
            )
    except Refused as refused:
        return await _form(visit, repo, draft, record=record, refused=refused)
    said = visit._("The policy is there now.") if record is None else visit._("The policy was changed.")
    return visit.redirect(f"{repo.url}/pruning/{made.id}", said)


def _ask(visit: Visit, fields: dict[str, str], tested: Tested) -> Response:
    """Ask before tags go, with all that stands in the form."""
    kept = {name: value for name, value in fields.items() if name not in {"csrf_token", "do"}}
    names = [one.name for one in tested.verdicts[:_NAMED]]
    rest = tested.matches - len(names)
    return visit.confirm(
        visit.n_("Save the policy and delete {n} tag", "Save the policy and delete {n} tags", tested.matches),
        verb=visit.n_("Save and delete {n} tag", "Save and delete {n} tags", tested.matches),
        text=visit._(
            "Deleted tags do not come back. Their images go with the next garbage collection, unless another tag"
            " names them."
        ),
        items=[*names, *([visit.n_("{n} more tag", "{n} more tags", rest)] if rest > 0 else [])],
        fields={**kept, "do": "apply", _SURE: "yes"},
        back=visit.path,
    )


def _data(draft: PruningDraft) -> dict[str, object]:
    return {"enabled": draft.enabled, "rules": draft.documents, "keep": int(draft.keep or 0)}


def _check(draft: PruningDraft, visit: Visit) -> Problems:
    problems = Problems()
    if not draft.rows:
        problems.add("", visit._("Add a rule: without any, every tag would be deleted."))
    check_rows(draft, problems, visit)
    if draft.keep and not (draft.keep.isascii() and draft.keep.isdecimal() and int(draft.keep) <= 100_000):
        problems.add("keep", visit._("Type a whole number up to 100,000."))
    return problems


async def _form(
    visit: Visit,
    repo: Repository,
    draft: PruningDraft,
    action: str = "",
    *,
    record: PruningPolicyRecord | None = None,
    refused: Refused | None = None,
) -> Response:
    tested = await _try(visit, repo, draft, everything=action == "test-all")
    return visit.page(
        "policies/pruning_form.html",
        refused.status if refused else 200,
        problems=refused.problems if refused else Problems(),
        repo=repo,
        record=record,
        **form_context(draft, tested),
    )


async def _try(
    visit: Visit, repo: Repository, draft: PruningDraft, *, everything: bool, since: dt.datetime | None = None
) -> Tested | None:
    """What would go of the tags, with `since` of those that were pushed since then."""
    if _check(draft, visit):
        return None
    start = since.isoformat() if since is not None and since.year > 1 else ""
    return await try_out(
        visit,
        repo.path,
        pruning.try_pruning_policy,
        PruningTrial.model_validate({**_data(draft), "since": start}),
        draft.rows,
        everything=everything,
        meant=lambda one: one.prune,
    )


async def _found(visit: Visit, *, manage: bool = False) -> tuple[Repository, PruningPolicyRecord]:
    """The policy of the address. Raises ApiError: there is none, or (`manage`) the visitor may not change it."""
    repo = await visit.repository("EDIT_POLICIES" if manage else "SEE")
    return repo, await visit.call(pruning.get_pruning_policy, path=repo.path, pruningpolicyid=visit.values["id"])


# --- one policy -----------------------------------------------------------------------------------------------


@pages.get(f"{_AT}/{{id}}")
async def show_policy(visit: Visit) -> Response:
    """A policy: what it does, when, and what it did."""
    repo, record = await _found(visit)
    rows = rules.rows_of(record.rules)
    history = None
    if repo.may("SEE_EVENTS"):
        wanted = Filter(actor=record.id, object_type="tag", type="DELETE")
        namespace, _, name = repo.path.partition("/")
        history = await visit.listing(events.list_repo_events, namespace=namespace, reponame=name, wanted=wanted)
    return visit.page(
        "policies/pruning.html",
        repo=repo,
        record=record,
        sentences=rules.sentences(rows, visit.words),
        needs_scan=waits_for_scan(rows),
        job=await find_job(visit, record.last_job),
        in_words=lambda schedule: in_words(visit.words, schedule),
        history=history,
    )


@pages.post(f"{_AT}/{{id}}/switch")
async def switch_policy(visit: Visit) -> Response:
    """Switch a policy on or off."""
    repo, record = await _found(visit, manage=True)
    enabled = await visit.text("enabled") == "true"
    await visit.call(
        pruning.update_pruning_policy,
        path=repo.path,
        pruningpolicyid=record.id,
        form=PruningPolicyChanges(enabled=enabled),
        initial_evaluation=False,
    )
    here = f"{repo.url}/pruning/{record.id}"
    said = visit._("The policy is on.") if enabled else visit._("The policy is off.")
    return visit.redirect(here, said, undo=(f"{here}/switch", {"enabled": str(not enabled).lower()}))


@pages.get(f"{_AT}/{{id}}/run")
async def ask_run(visit: Visit) -> Response:
    """Ask before tags go, and name them."""
    repo, record = await _found(visit, manage=True)
    draft = PruningDraft(rules.rows_of(record.rules), keep=str(record.keep))
    tested = await _try(visit, repo, draft, everything=True, since=record.since)
    count = tested.matches if tested else 0
    names = [one.name for one in tested.verdicts[:_NAMED]] if tested else []
    rest = count - len(names)
    return visit.confirm(
        visit.n_("Delete {n} tag by this policy", "Delete {n} tags by this policy", count),
        verb=visit.n_("Delete {n} tag", "Delete {n} tags", count),
        text=visit._(
            "Deleted tags do not come back. Their images go with the next garbage collection, unless another tag"
            " names them."
        ),
        items=[*names, *([visit.n_("{n} more tag", "{n} more tags", rest)] if rest > 0 else [])],
        back=f"{repo.url}/pruning/{record.id}",
    )


@pages.post(f"{_AT}/{{id}}/run")
async def run_policy(visit: Visit) -> Response:
    """Have a policy work now."""
    repo, record = await _found(visit, manage=True)
    here = f"{repo.url}/pruning/{record.id}"
    await visit.call(pruning.run_pruning_policy, path=repo.path, pruningpolicyid=record.id)
    return visit.redirect(here, visit._("The policy works. What it deletes stands below."))


@pages.get(f"{_AT}/{{id}}/delete")
async def ask_delete(visit: Visit) -> Response:
    """Ask before a policy goes."""
    repo, record = await _found(visit, manage=True)
    sentence = rules.joined(rules.rows_of(record.rules), visit.words).striptags()
    return visit.confirm(
        visit._("Delete the pruning policy"),
        verb=visit._("Delete policy"),
        text=visit._("Tags stay from then on. Tags that it deleted do not come back."),
        items=[sentence],
        back=f"{repo.url}/pruning/{record.id}",
    )


@pages.post(f"{_AT}/{{id}}/delete")
async def delete_policy(visit: Visit) -> Response:
    """Delete a policy."""
    repo, record = await _found(visit, manage=True)
    await visit.call(pruning.delete_pruning_policy, path=repo.path, pruningpolicyid=record.id)
    return visit.redirect(f"{repo.url}/policies", visit._("The policy is gone."))
