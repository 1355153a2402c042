"""
What is said about jobs before there are any: starting one, schedules, parameters of actions, capacities.

Auditors look; the forms are for administrators.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgspec import Struct

from dtr.accounts import Operation
from dtr.http.api import jobs as api
from dtr.http.api.errors import ApiError
from dtr.http.ui.job_words import HINTS, LABELS, NAMESPACE_OF_SIGNATURES, TEXTS
from dtr.http.ui.jobs import JOBS, Show, title
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused
from dtr.http.ui.schedules import in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from dtr.http.ui.visit import Visit

pages = Pages()

CRONS = "/system/settings/crons"
ACTIONS = "/system/settings/actions"
WORKERS = "/system/settings/workers"

# --- what somebody types --------------------------------------------------------------------------------------


class Field(Struct, frozen=True):
    """A parameter of an action, in a form."""

    name: str
    kind: str
    label: str
    hint: str


async def _action(visit: Visit, name: str) -> api.ActionRecord:
    """What a job can do, by its name. Raises ApiError."""
    for one in (await visit.call(api.list_actions)).actions:
        if one.action == name:
            return one
    raise ApiError("NO_SUCH_OPERATION", name[:64])


def _fields(visit: Visit, action: api.ActionRecord) -> list[Field]:
    def hint(name: str) -> str:
        if (action.action, name) == ("verify_signatures", "namespace"):
            return visit._(NAMESPACE_OF_SIGNATURES)
        return visit._(HINTS[name]) if name in HINTS else ""

    return [
        Field(one.name, one.kind, visit._(LABELS.get(one.name, one.name)), hint(one.name))
        for one in action.parameters
    ]


async def _typed(visit: Visit, action: api.ActionRecord) -> dict[str, str]:
    """The parameters that were typed."""
    values = {one.name: await visit.text(f"p-{one.name}") for one in action.parameters}
    return {name: value for name, value in values.items() if value}


_WORK = ("scheduledAt", "retries", "deadline", "stopTimeout", "capacityMap", "schedule")


async def _work(visit: Visit) -> dict[str, str]:
    """What else was typed about a job or a schedule."""
    return {name: await visit.text(name) for name in _WORK}


def _data(visit: Visit, action: str, parameters: dict[str, str], work: dict[str, str]) -> dict[str, Any]:
    """What was typed, as the API takes it. Raises Refused."""
    problems = Problems()
    retries = work["retries"] or "0"
    if not re.fullmatch(r"[0-9]{1,6}", retries, re.ASCII):
        problems.add("retries", visit._("Type a number."))
        retries = "0"
    capacity = _capacity(visit, work["capacityMap"], "capacityMap", problems)
    if problems:
        raise Refused(problems)
    data = {name: work[name] for name in ("deadline", "stopTimeout", "scheduledAt", "schedule") if work[name]}
    return {**data, "action": action, "parameters": parameters, "retries": int(retries), "capacityMap": capacity}


def _capacity(visit: Visit, text: str, field: str, problems: Problems) -> dict[str, int]:
    """``scan=1, gc=2`` as a mapping."""
    found: dict[str, int] = {}
    for part in filter(None, (one.strip() for one in re.split(r"[,\n]", text))):
        name, _, number = (one.strip() for one in part.partition("="))
        if not name or not re.fullmatch(r"[0-9]{1,18}", number, re.ASCII):
            problems.add(field, visit._("Write it like scan=1, gc=2: names and whole numbers."))
            return {}
        found[name] = int(number)
    return found


def capacity_text(capacity: Mapping[str, int]) -> str:
    """The same the other way."""
    return ", ".join(f"{name}={number}" for name, number in capacity.items())


def _about(refused: Refused) -> Refused:
    """Put what the API says of one field beside it: it names the field first."""
    problems = refused.problems
    if problems.code == "INVALID_JOB" and problems.detail:
        name, _, text = problems.detail.partition(" ")
        if name in _WORK:
            problems.general.clear()
            problems.add(name, text[:1].upper() + text[1:] + ".")
            problems.detail = ""
    return refused


# --- starting one ---------------------------------------------------------------------------------------------


@pages.get(f"{JOBS}/new")
async def choose_or_fill_in(visit: Visit) -> Response:
    """Choose what is to be done, then fill in its parameters."""
    visit.caller.require(Operation.ADMINISTER)
    if not visit.query.get("action"):
        return await _choose(visit, f"{JOBS}/new", frozenset())
    action = await _action(visit, visit.query["action"])
    return _start_form(visit, action, {}, dict.fromkeys(_WORK, ""))


async def _choose(visit: Visit, address: str, taken: frozenset[str]) -> Response:
    """Choose what somebody may start: by name, title and text."""
    listed = (await visit.call(api.list_actions)).actions
    chosen = [
        (one.action, title(visit, one.action), visit._(TEXTS[one.action]))
        for one in listed
        if one.action in TEXTS and one.action not in taken
    ]
    chosen.sort(key=lambda one: (one[0] in {"sleep", "false"}, one[1].casefold()))
    return visit.page("jobs/choose.html", choices=chosen, address=address)


def _context(
    visit: Visit, action: api.ActionRecord, parameters: dict[str, str], work: dict[str, str]
) -> dict[str, Any]:
    """What the form of an action shows, for one job or for a schedule."""
    return {
        "action": action,
        "title": title(visit, action.action),
        "text": visit._(TEXTS[action.action]) if action.action in TEXTS else action.description,
        "fields": _fields(visit, action),
        "parameters": parameters,
        "work": work,
    }


def _start_form(
    visit: Visit,
    action: api.ActionRecord,
    parameters: dict[str, str],
    work: dict[str, str],
    refused: Refused | None = None,
) -> Response:
    context = _context(visit, action, parameters, work)
    if refused is not None:
        return visit.refuse("jobs/new.html", _about(refused), **context)
    return visit.page("jobs/new.html", **context)


@pages.post(f"{JOBS}/new")
async def start_job(visit: Visit) -> Response:
    """Queue a job."""
    visit.caller.require(Operation.ADMINISTER)
    action = await _action(visit, await visit.text("action"))
    parameters, work = await _typed(visit, action), await _work(visit)
    try:
        data = _data(visit, action.action, parameters, work)
        made = await visit.submit(api.submit_job, form=api.JobForm, data=data)
    except Refused as refused:
        return _start_form(visit, action, parameters, work, refused)
    return visit.redirect(f"{JOBS}/{made.id}", visit._("The job is queued."))


# --- schedules ------------------------------------------------------------------------------------------------


@pages.get(CRONS)
async def list_crons(visit: Visit) -> Response:
    """All schedules."""
    crons = (await visit.call(api.list_crons)).crons
    return visit.page("jobs/crons.html", crons=sorted(crons, key=lambda one: one.next_run), show=Show(visit))


@pages.get(f"{CRONS}/new")
async def choose_or_schedule(visit: Visit) -> Response:
    """Choose an action that has no schedule, then say when."""
    visit.caller.require(Operation.ADMINISTER)
    if not visit.query.get("action"):
        taken = frozenset(one.action for one in (await visit.call(api.list_crons)).crons)
        return await _choose(visit, f"{CRONS}/new", taken)
    action = await _action(visit, visit.query["action"])
    return _cron_form(visit, action, {}, dict.fromkeys(_WORK, ""), is_new=True)


def _cron_form(
    visit: Visit,
    action: api.ActionRecord,
    parameters: dict[str, str],
    work: dict[str, str],
    *,
    is_new: bool,
    refused: Refused | None = None,
) -> Response:
    context = _context(visit, action, parameters, work) | {
        "is_new": is_new,
        "told": in_words(visit.words, work["schedule"]),
    }
    if refused is not None:
        return visit.refuse("jobs/cron.html", _about(refused), **context)
    return visit.page("jobs/cron.html", **context)


@pages.get(f"{CRONS}/{{action}}")
async def show_cron(visit: Visit) -> Response:
    """The schedule of an action, to be changed."""
    cron = await visit.call(api.get_cron, action=visit.values["action"])
    action = await _action(visit, cron.action)
    work = {
        "schedule": cron.schedule,
        "retries": str(cron.retries or ""),
        "deadline": cron.deadline,
        "stopTimeout": cron.stop_timeout,
        "capacityMap": capacity_text(cron.capacity_map),
        "scheduledAt": "",
    }
    if not visit.may("ADMINISTER"):
        return visit.page("jobs/crons.html", crons=[cron], show=Show(visit))
    return _cron_form(visit, action, dict(cron.parameters), work, is_new=False)


@pages.post(f"{CRONS}/new", f"{CRONS}/{{action}}")
async def put_cron(visit: Visit) -> Response:
    """Give an action a schedule, or another one."""
    visit.caller.require(Operation.ADMINISTER)
    is_new = "action" not in visit.values
    action = await _action(visit, visit.values.get("action") or await visit.text("action"))
    parameters, work = await _typed(visit, action), await _work(visit)
    try:
        data = _data(visit, action.action, parameters, work)
        await visit.submit(api.put_cron, form=api.CronForm, data={"schedule": "", **data})
    except Refused as refused:
        return _cron_form(visit, action, parameters, work, is_new=is_new, refused=refused)
    return visit.redirect(CRONS, visit._("The schedule is saved."))


@pages.get(f"{CRONS}/{{action}}/delete")
async def ask_delete_cron(visit: Visit) -> Response:
    """Ask whether the schedule is to go."""
    visit.caller.require(Operation.ADMINISTER)
    cron = await visit.call(api.get_cron, action=visit.values["action"])
    return visit.confirm(
        visit._("Remove the schedule of {job}?", job=title(visit, cron.action)),
        verb=visit._("Remove the schedule"),
        text=visit._("Jobs that it queued go on. Nothing is queued any more until somebody gives it a new one."),
        items=[f"{in_words(visit.words, cron.schedule)} ({cron.schedule})".strip()],
        back=CRONS,
    )


@pages.post(f"{CRONS}/{{action}}/delete")
async def delete_cron(visit: Visit) -> Response:
    """Take a schedule away."""
    await visit.call(api.delete_cron, action=visit.values["action"])
    return visit.redirect(CRONS, visit._("The schedule is removed."))


# --- parameters of actions ------------------------------------------------------------------------------------


@pages.get(ACTIONS)
async def list_actions(visit: Visit) -> Response:
    """What jobs can do, and what they have as parameters when nobody says."""
    configured = {one.action: one.parameters for one in (await visit.call(api.list_action_configs)).action_configs}
    listed = (await visit.call(api.list_actions)).actions
    chosen = [one for one in listed if (one.action in TEXTS and one.parameters) or one.action in configured]
    return visit.page(
        "jobs/actions.html",
        actions=sorted(chosen, key=lambda one: title(visit, one.action).casefold()),
        configured=configured,
        texts={one: visit._(text) for one, text in TEXTS.items()},
        show=Show(visit),
    )


@pages.get(f"{ACTIONS}/{{action}}")
async def show_action(visit: Visit) -> Response:
    """The parameters of an action, to be changed."""
    visit.caller.require(Operation.ADMINISTER)
    action = await _action(visit, visit.values["action"])
    configs = (await visit.call(api.list_action_configs)).action_configs
    found = next((one.parameters for one in configs if one.action == action.action), None)
    return _action_form(visit, action, found or {}, is_set=found is not None)


def _action_form(
    visit: Visit,
    action: api.ActionRecord,
    parameters: dict[str, str],
    *,
    is_set: bool,
    refused: Refused | None = None,
) -> Response:
    context: dict[str, Any] = {
        "action": action,
        "title": title(visit, action.action),
        "fields": _fields(visit, action),
        "parameters": parameters,
        "is_set": is_set,
    }
    if refused is not None:
        return visit.refuse("jobs/action.html", refused, **context)
    return visit.page("jobs/action.html", **context)


@pages.post(f"{ACTIONS}/{{action}}")
async def put_action(visit: Visit) -> Response:
    """Say what jobs with an action have as parameters when nobody says; nothing: its defaults."""
    visit.caller.require(Operation.ADMINISTER)
    action = await _action(visit, visit.values["action"])
    parameters = await _typed(visit, action)
    data = {"action": action.action, "parameters": parameters}
    try:
        await visit.submit(api.put_action_config, form=api.ActionConfigForm, data=data)
    except Refused as refused:
        return _action_form(visit, action, parameters, is_set=True, refused=refused)
    return visit.redirect(ACTIONS, visit._("The parameters are saved. Jobs that begin from now on have them."))


@pages.post(f"{ACTIONS}/{{action}}/reset")
async def reset_action(visit: Visit) -> Response:
    """Let an action have its defaults."""
    name = visit.values["action"]
    before = (await visit.call(api.get_action_config, action=name)).parameters
    await visit.call(api.delete_action_config, action=name)
    undo = {f"p-{key}": value for key, value in before.items()}
    return visit.redirect(
        ACTIONS, visit._("The action has its defaults again."), undo=(f"{ACTIONS}/{quote(name)}", undo)
    )


# --- workers --------------------------------------------------------------------------------------------------


@pages.get(WORKERS)
async def list_workers(visit: Visit) -> Response:
    """All workers, those that live first."""
    workers = (await visit.call(api.list_workers)).workers
    return visit.page(
        "jobs/workers.html",
        workers=sorted(workers, key=lambda one: (one.status != "alive", one.id)),
        capacity=capacity_text,
        show=Show(visit),
    )


@pages.get(f"{WORKERS}/{{worker}}")
async def show_worker(visit: Visit) -> Response:
    """What a worker may do at once, to be changed."""
    visit.caller.require(Operation.ADMINISTER)
    worker = await _worker(visit)
    return visit.page(
        "jobs/worker.html", worker=worker, typed=capacity_text(worker.capacity_map), show=Show(visit)
    )


async def _worker(visit: Visit) -> api.WorkerRecord_:
    """The worker of the address. Raises ApiError."""
    for one in (await visit.call(api.list_workers)).workers:
        if one.id == visit.values["worker"]:
            return one
    raise ApiError("NO_SUCH_WORKER", visit.values["worker"][:64])


@pages.post(f"{WORKERS}/{{worker}}")
async def put_worker(visit: Visit) -> Response:
    """Say what a worker may do at once."""
    visit.caller.require(Operation.ADMINISTER)
    worker, typed = await _worker(visit), await visit.text("capacityMap")
    problems = Problems()
    capacity = _capacity(visit, typed, "capacityMap", problems)
    try:
        if problems:
            raise Refused(problems)
        await visit.submit(
            api.set_worker_capacity,
            form=api.CapacityForm,
            data={"capacityMap": capacity},
            fields={"INVALID_JOB": "capacityMap"},
            id=worker.id,
        )
    except Refused as refused:
        return visit.refuse("jobs/worker.html", refused, worker=worker, typed=typed, show=Show(visit))
    return visit.redirect(WORKERS, visit._("The capacity is saved. It holds from the next job on."))
