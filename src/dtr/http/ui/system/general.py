"""
``/system/settings/general``: the settings of the running registry, in cards that are saved one by one.

A card sends what it showed along with what is wanted. What somebody else changed meanwhile is not overwritten: the
card comes back with both values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dtr.accounts import Operation
from dtr.durations import to_duration, to_milliseconds
from dtr.http.api import jobs, settings
from dtr.http.api.enzi import config
from dtr.http.api.errors import ApiError
from dtr.http.api.jobs import JobForm
from dtr.http.api.settings import SettingsForm
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused
from dtr.http.ui.schedules import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from dtr.http.ui.visit import Visit

pages = Pages()


def N_(text: str) -> str:  # noqa: N802 - the word by which texts are found
    """A text that is translated where it is shown."""
    return text


class Field(Struct, frozen=True):
    """A setting in a card: its name in the API, its kind, and what it is called where two values are compared."""

    name: str
    kind: str
    label: str


CARDS: Mapping[str, tuple[Field, ...]] = {
    "domain": (Field("dtrHost", "text", N_("Address of the registry")),),
    "sessions": (
        Field("lifetimeMinutes", "number", N_("Length of a session, in minutes")),
        Field("renewalThresholdMinutes", "number", N_("Renewed in the last minutes")),
        Field("perUserLimit", "number", N_("Most sessions of a user")),
    ),
    "repositories": (Field("createRepositoryOnPush", "switch", N_("Create repositories on push")),),
    "read-only": (Field("readOnlyRegistry", "switch", N_("Read-only mode")),),
    "events": (
        Field("repoEventHistoryCompactionEnabled", "switch", N_("Delete old events")),
        Field("repoEventHistoryMaxAge", "age", N_("Older than")),
        Field("repoEventHistoryToKeep", "number", N_("Most events to keep")),
    ),
    "jobs": (
        Field("jobHistoryCompactionEnabled", "switch", N_("Delete old jobs with their logs")),
        Field("jobHistoryMaxAge", "age", N_("Older than")),
        Field("jobHistoryToKeep", "number", N_("Most jobs to keep")),
    ),
}
"""The cards that can be changed, in DTR's order, by the names in their addresses."""
DELETIONS = {"events": "onlinegc_events", "jobs": "onlinegc_joblogs"}
"""The action that deletes now what a card says."""
UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}
"""Milliseconds of the units in which an age is typed."""
_SAYINGS = {
    "is HOST or HOST:PORT, without https://": N_("Type HOST or HOST:PORT, without https://."),
    "is at least 5 less than sessionLifetimeMinutes": N_("At least 5 minutes less than a session is long."),
    "is a duration such as 720h or 1h30m": N_("Type a number."),
    "is too long": N_("This is too long."),
    "Expected int >= 10": N_("At least 10 minutes."),
    "Expected int >= 0": N_("Type a number, 0 or more."),
    "Expected int <= 525600": N_("At most a year: 525,600 minutes."),
}
"""What the API says of a value, and what a page says."""
_BY_ROOM = {
    "sessionLifetimeMinutes": "lifetimeMinutes",
    "sessionRenewalThresholdMinutes": "renewalThresholdMinutes",
    "sessionsPerUser": "perUserLimit",
}
"""What the refusal of a session's setting calls it."""


class Card(Struct):
    """A card as it is shown: `typed` and `seen` by the names of the fields; `theirs` is what somebody changed."""

    typed: dict[str, Any]
    seen: dict[str, Any]
    theirs: dict[str, Any]


@pages.get("/system/settings")
async def show_first(visit: Visit) -> Response:
    """The first of the pages."""
    visit.caller.require(Operation.SEE_SYSTEM)
    return visit.redirect("/system/settings/general", status=308)


@pages.get("/system/settings/general")
async def show_general(visit: Visit) -> Response:
    """All cards, as the settings are."""
    return await _page(visit)


@pages.post("/system/settings/general/{card}")
async def save_card(visit: Visit) -> Response:
    """Save a card; all of it, or nothing."""
    name = visit.values["card"]
    if name not in CARDS:
        raise ApiError("NO_SUCH_OPERATION")
    visit.caller.require(Operation.ADMINISTER)
    problems = Problems()
    typed, seen = {}, {}
    for field in CARDS[name]:
        typed[field.name] = await _typed(visit, field, problems)
        seen[field.name] = _seen(field, await visit.text(f"was-{field.name}"))
    present = await _present(visit)
    if not problems:
        try:
            if name == "sessions":
                data = {**typed, "expected": seen}
                await visit.submit(
                    config.update_session_settings,
                    form=config.SessionSettingsForm,
                    data=data,
                    fields={**_BY_ROOM, **{f"expected.{one}": "" for one in seen}},
                )
            else:
                await visit.submit(settings.update_settings, form=SettingsForm, data={**typed, "expected": seen})
        except Refused as refused:
            if refused.problems.code != "SETTINGS_CHANGED":
                return await _page(visit, name, Card(typed, seen, {}), _translated(visit, refused.problems))
            present = await _present(visit)
            theirs = {one: present[one] for one in seen if present[one] != seen[one]}
            return await _page(
                visit, name, Card(typed, {one: present[one] for one in seen}, theirs), refused.problems, 409
            )
        return visit.redirect(f"/system/settings/general#{name}", visit._("The settings are saved."))
    return await _page(visit, name, Card(typed, seen, {}), problems)


@pages.get("/system/settings/general/{card}/delete")
async def ask_to_delete(visit: Visit) -> Response:
    """Ask before what is old is deleted."""
    visit.caller.require(Operation.ADMINISTER)
    name = visit.values["card"]
    if name not in DELETIONS:
        raise ApiError("NO_SUCH_OPERATION")
    present = await _present(visit)
    if name == "events":
        title = visit._("Delete old events now?")
        verb = visit._("Delete old events")
    else:
        title = visit._("Delete old jobs and their logs now?")
        verb = visit._("Delete old jobs")
    switch, age, keep = (present[field.name] for field in CARDS[name])
    items = []
    if switch and age:
        items.append(
            visit._("Whatever is older than {age} goes.", age=duration(visit.words, to_milliseconds(age)))
        )
    if switch and keep:
        items.append(visit._("Whatever is not among the newest {n} goes.", n=visit.words.number(keep)))
    if not items:
        items.append(visit._("By the settings that are saved, nothing goes."))
    text = visit._("A job does it. What it deletes is gone for good.")
    return visit.confirm(title, verb=verb, text=text, items=items, back="/system/settings/general")


@pages.post("/system/settings/general/{card}/delete")
async def delete_now(visit: Visit) -> Response:
    """Queue the job that deletes what is old."""
    name = visit.values["card"]
    if name not in DELETIONS:
        raise ApiError("NO_SUCH_OPERATION")
    job = await visit.call(jobs.submit_job, form=JobForm(action=DELETIONS[name]))
    return visit.redirect(f"/system/settings/jobs/{job.id}")


async def _page(
    visit: Visit,
    card: str = "",
    shown: Card | None = None,
    problems: Problems | None = None,
    status: int = 422,
) -> Response:
    """The page; `card` names the one that comes back with `problems`."""
    record = await visit.call(settings.get_settings)
    present = await _present(visit, record)
    cards = {
        name: Card(
            {one.name: present[one.name] for one in fields}, {one.name: present[one.name] for one in fields}, {}
        )
        for name, fields in CARDS.items()
    }
    if shown is not None:
        cards[card] = shown
    return visit.page(
        "system/general.html",
        200 if shown is None else status,
        settings=record,
        cards=cards,
        fields=CARDS,
        wrong=card,
        problems=problems or Problems(),
        split_age=split_age,
        in_words=lambda age: duration(visit.words, to_milliseconds(age)),
        admin=visit.may("ADMINISTER"),
    )


async def _present(visit: Visit, record: settings.SettingsRecord | None = None) -> dict[str, Any]:
    """What holds now, by the names of the cards' fields."""
    if record is None:
        record = await visit.call(settings.get_settings)
    sessions = await visit.call(config.get_session_settings)
    return record.model_dump(by_alias=True) | sessions.model_dump(by_alias=True)


async def _typed(visit: Visit, field: Field, problems: Problems) -> Any:
    """What was typed into a field; what cannot be read is a problem, and stays as it is."""
    text = await visit.text(field.name)
    if field.kind == "switch":
        return text == "on"
    if field.kind == "number":
        return _number(visit, field.name, text, problems)
    if field.kind == "age":
        unit = await visit.text(f"{field.name}-unit")
        number = _number(visit, field.name, text or "0", problems)
        if not isinstance(number, int) or unit not in UNITS:
            return text
        return to_duration(number * UNITS[unit]) if number else ""
    return text


def _number(visit: Visit, name: str, text: str, problems: Problems) -> int | str:
    if text.isascii() and text.isdecimal() and len(text) <= 18:
        return int(text)
    problems.add(name, visit._("Type a number, 0 or more."))
    return text


def _seen(field: Field, text: str) -> Any:
    """What a field showed, from the hidden one beside it."""
    if field.kind == "switch":
        return text == "on"
    if field.kind == "number":
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else -1
    return text


def split_age(age: str) -> tuple[str, str]:
    """A duration as number and unit, the largest that fits; what is none is shown as it is."""
    try:
        milliseconds = to_milliseconds(age)
    except ValueError:
        return age, "d"
    if not milliseconds:
        return "", "d"
    unit = next((unit for unit, length in UNITS.items() if milliseconds % length == 0), "s")
    return str(milliseconds // UNITS[unit]), unit


def _translated(visit: Visit, problems: Problems) -> Problems:
    """The API's words for what is wrong with a value, in the visitor's language where they are known."""
    for name, text in problems.fields.items():
        problems.fields[name] = visit._(_SAYINGS[text]) if text in _SAYINGS else text
    return problems
