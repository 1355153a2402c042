"""
``/system/settings/gc``: when what nothing holds is deleted, what that freed, and whether everything is there.

DTR's form: until done, for some minutes, or never; by a choice of schedules or one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.accounts import Operation
from dtr.http.api import jobs, settings, system
from dtr.http.api.jobs import CronForm, JobForm
from dtr.http.api.settings import SettingsForm
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused
from dtr.http.ui.schedules import duration, in_words
from dtr.http.ui.system.general import UNITS, split_age
from dtr.http.ui.system.soon import begin, soon

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from dtr.http.api.jobs import CronRecord
    from dtr.http.ui.visit import Visit

pages = Pages()

_HERE = "/system/settings/gc"
_ACTION, _AUDIT = "onlinegc", "fsck"
_RUNS = 8
_COUNT_SECONDS = 0.03
_GRACE = "10m"
"""What was let go so long ago may be collected by hand: no push under way relies on it."""
_PRESETS: Mapping[str, str] = {"daily": "0 0 0 * * *", "saturday": "0 0 1 * * 6", "sunday": "0 0 1 * * 0"}
"""DTR's choices, by their names in the form."""
_MEGABYTE = 1_000_000
_LONGEST_NUMBER = 9


def N_(text: str) -> str:  # noqa: N802 - the word by which texts are found
    """A text that is translated where it is shown."""
    return text


_SAYINGS = {
    "names no moment to come": N_("This names no moment to come."),
    "repeats every second at most, and once a year at least": N_(
        "At most every second, and at least once a year."
    ),
}
"""What the API says of a schedule, and what a page says."""
_SIX_FIELDS = N_("Type six fields, from second to day of the week, or @daily, or @every 6h.")


@pages.get(_HERE)
async def show_gc(visit: Visit) -> Response:
    """The mode, the schedule, what could be freed, and what was."""
    visit.caller.require(Operation.SEE_SYSTEM)
    return await _page(visit)


async def _page(
    visit: Visit,
    *,
    wrong: str = "",
    problems: Problems | None = None,
    status: int = 200,
    typed: dict[str, str] | None = None,
) -> Response:
    """The page; `wrong` names the form that comes back with `problems`."""
    cron = await _cron(visit)
    mode = (await visit.call(settings.get_settings)).garbage_collection
    runs = await visit.call(jobs.list_jobs, action=_ACTION, limit=_RUNS)
    audits = await visit.call(jobs.list_jobs, action=_AUDIT, limit=_RUNS)
    shown = _shown(cron)
    counting = begin(_garbage(visit))
    garbage = await counting if "count" in visit.query else await soon(counting, _COUNT_SECONDS)
    return visit.page(
        "system/gc.html",
        status,
        mode=mode,
        cron=cron,
        schedule=in_words(visit.words, cron.schedule) or cron.schedule if cron else "",
        presets=_PRESETS,
        garbage=garbage,
        runs=runs.jobs,
        audits=audits.jobs,
        typed={**shown, "seen": _seen(cron), "mode": mode, "rate": "", "minutes": "", **(typed or {})},
        wrong=wrong,
        problems=problems or Problems(),
        admin=visit.may("ADMINISTER"),
        length=lambda milliseconds: duration(visit.words, milliseconds, short=True),
    )


async def _garbage(visit: Visit) -> system.GarbageRecord:
    """What could go; counted, row by row."""
    return await visit.call(system.get_garbage, grace=_GRACE)


# --- when -----------------------------------------------------------------------------------------------------


async def _cron(visit: Visit) -> CronRecord | None:
    return next((one for one in (await visit.call(jobs.list_crons)).crons if one.action == _ACTION), None)


def _seen(cron: CronRecord | None) -> str:
    """A schedule as the form shows it, to notice that somebody changed it."""
    if cron is None:
        return ""
    return f"{cron.schedule}|{cron.deadline}|{cron.parameters.get('grace', '')}"


def _shown(cron: CronRecord | None) -> dict[str, str]:
    """What the form shows for a schedule."""
    if cron is None:
        return {"repeat": "never", "schedule": "", "limit": "", "limit-unit": "m", "grace": "", "grace-unit": "h"}
    repeat = next((name for name, schedule in _PRESETS.items() if schedule == cron.schedule), "custom")
    limit, limit_unit = split_age(cron.deadline)
    grace, grace_unit = split_age(cron.parameters.get("grace", ""))
    return {
        "repeat": repeat,
        "schedule": cron.schedule if repeat == "custom" else "",
        "limit": limit,
        "limit-unit": limit_unit if limit else "m",
        "grace": grace,
        "grace-unit": grace_unit if grace else "h",
    }


@pages.post(f"{_HERE}/mode")
async def set_mode(visit: Visit) -> Response:
    """Say when what nothing holds is deleted."""
    visit.caller.require(Operation.ADMINISTER)
    mode, seen = await visit.text("mode"), await visit.text("was-mode")
    data: dict[str, object] = {"garbageCollection": mode, "expected": {"garbageCollection": seen}}
    try:
        await visit.submit(
            settings.update_settings, form=SettingsForm, data=data, fields={"garbageCollection": "mode"}
        )
    except Refused as refused:
        return await _page(
            visit, wrong="mode", problems=refused.problems, status=refused.status, typed={"mode": mode}
        )
    return visit.redirect(_HERE, visit._("The settings are saved."))


@pages.post(f"{_HERE}/schedule")
async def set_schedule(visit: Visit) -> Response:
    """Give collections a schedule, or none; with the button for it, begin one now as well."""
    visit.caller.require(Operation.ADMINISTER)
    names = ("repeat", "schedule", "limit", "limit-unit", "grace", "grace-unit", "seen")
    typed = {name: await visit.text(name) for name in names}
    problems = Problems()
    present = await _cron(visit)
    status = 422
    if typed["seen"] != _seen(present):
        told = in_words(visit.words, present.schedule) or present.schedule if present else visit._("never")
        problems.add(
            "",
            visit._(
                "Somebody else changed the schedule meanwhile. Theirs: {schedule}. Save again to replace it.",
                schedule=told,
            ),
        )
        typed["seen"] = _seen(present)
        status = 409
    limit = _length(visit, "limit", typed, problems)
    grace = _length(visit, "grace", typed, problems)
    schedule = _PRESETS.get(typed["repeat"], typed["schedule"])
    if typed["repeat"] == "custom" and not schedule:
        problems.add("schedule", visit._("Fill in this field."))
    if not problems:
        try:
            await _save(visit, typed["repeat"], schedule, limit, grace, present)
        except Refused as refused:
            problems, status = _translated(visit, refused.problems), refused.status
    if problems:
        return await _page(visit, wrong="schedule", problems=problems, status=status, typed=typed)
    if await visit.text("start"):
        form = JobForm(action=_ACTION, deadline=limit, parameters={"grace": grace} if grace else {})
        job = await visit.call(jobs.submit_job, form=form)
        return visit.redirect(f"/system/settings/jobs/{job.id}", visit._("The schedule is saved."))
    return visit.redirect(_HERE, visit._("The schedule is saved."))


async def _save(
    visit: Visit, repeat: str, schedule: str, limit: str, grace: str, present: CronRecord | None
) -> None:
    """Put the schedule, or take it away. Raises Refused."""
    if repeat == "never":
        if present is not None:
            await visit.submit(jobs.delete_cron, action=_ACTION)
        return
    await visit.submit(
        jobs.put_cron,
        form=CronForm,
        data={
            "action": _ACTION,
            "schedule": schedule,
            "deadline": limit,
            "parameters": {"grace": grace} if grace else {},
        },
        fields={"INVALID_JOB": "schedule", "deadline": "limit"},
    )


def _length(visit: Visit, name: str, typed: dict[str, str], problems: Problems) -> str:
    """A length of time that was typed as number and unit, as the API takes it; empty: none."""
    text, unit = typed[name], typed[f"{name}-unit"]
    if not text:
        return ""
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER and unit in UNITS):
        problems.add(name, visit._("Type a number."))
        return ""
    hours = {"w": 168, "d": 24}.get(unit)
    return f"{int(text) * hours}h" if hours else f"{int(text)}{unit}"


def _translated(visit: Visit, problems: Problems) -> Problems:
    """What the API says of a schedule, in the visitor's words."""
    if problems.code == "INVALID_JOB":
        said = problems.detail
        text = next((told for known, told in _SAYINGS.items() if known in said), _SIX_FIELDS)
        problems.detail = ""
        problems.fields["schedule"] = visit._(text)
    return problems


# --- now ------------------------------------------------------------------------------------------------------


@pages.get(f"{_HERE}/run")
async def ask_to_run(visit: Visit) -> Response:
    """Ask before a collection begins; say what would go."""
    visit.caller.require(Operation.ADMINISTER)
    found = await visit.call(system.get_garbage, grace=_GRACE)
    items = [
        visit.n_(
            "{n} blob of {size} goes at once.",
            "{n} blobs of {size} go at once.",
            found.blobs,
            size=visit.words.size(found.blob_bytes),
        ),
        visit._(
            "{manifests} manifests, {links} links of blobs and {repositories} deleted repositories are looked at:"
            " more may go.",
            manifests=visit.words.number(found.manifests),
            links=visit.words.number(found.links),
            repositories=visit.words.number(found.repositories),
        ),
    ]
    if not (found.blobs or found.manifests or found.links or found.repositories):
        items = [visit._("At present there is nothing that could go.")]
    return visit.confirm(
        visit._("Collect garbage now?"),
        verb=visit._("Collect garbage"),
        text=visit._(
            "What nothing has held for ten minutes goes for good, untagged manifests among it."
            " Pushes and pulls go on."
        ),
        items=items,
        back=_HERE,
    )


@pages.post(f"{_HERE}/run")
async def run_now(visit: Visit) -> Response:
    """Queue a collection."""
    return await _queue(visit, _ACTION, {"grace": _GRACE})


@pages.post(f"{_HERE}/dry-run")
async def run_dry(visit: Visit) -> Response:
    """Queue a collection that only says what it would do."""
    return await _queue(visit, _ACTION, {"grace": _GRACE, "dryRun": "true"})


@pages.post(f"{_HERE}/check")
async def check(visit: Visit) -> Response:
    """Queue an audit that changes nothing."""
    visit.caller.require(Operation.ADMINISTER)
    typed = {name: await visit.text(name) for name in ("what", "rate", "minutes", "resume")}
    problems = Problems()
    parameters = {"content": "true"} if typed["what"] == "content" else {}
    for name in ("rate", "minutes"):
        text = typed[name]
        if text and not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER and int(text)):
            problems.add(name, visit._("Type a number."))
    if problems:
        return await _page(visit, wrong="check", problems=problems, status=422, typed=typed)
    if typed["rate"]:
        parameters["rate"] = str(int(typed["rate"]) * _MEGABYTE)
    if typed["minutes"]:
        parameters["time"] = f"{int(typed['minutes'])}m"
    if typed["resume"]:
        parameters["resume"] = "true"
    return await _queue(visit, _AUDIT, parameters)


@pages.get(f"{_HERE}/repair")
async def ask_to_repair(visit: Visit) -> Response:
    """Ask before anything is repaired."""
    visit.caller.require(Operation.ADMINISTER)
    return visit.confirm(
        visit._("Check and repair?"),
        verb=visit._("Repair"),
        text=visit._("Every size is compared, and what is wrong is mended. Pushes and pulls go on. No tag goes."),
        items=[
            visit._("Lost blobs are brought back, where their content is still somewhere."),
            visit._("Blobs that are nowhere are marked as missing: the next push brings them again."),
            visit._("Damaged objects are put aside, and deleted after 30 days."),
            visit._("Objects that nothing names are deleted a day later."),
        ],
        back=_HERE,
    )


@pages.post(f"{_HERE}/repair")
async def repair(visit: Visit) -> Response:
    """Queue an audit that repairs."""
    return await _queue(visit, _AUDIT, {"repair": "true"})


async def _queue(visit: Visit, action: str, parameters: dict[str, str]) -> Response:
    job = await visit.call(jobs.submit_job, form=JobForm(action=action, parameters=parameters))
    return visit.redirect(f"/system/settings/jobs/{job.id}")
