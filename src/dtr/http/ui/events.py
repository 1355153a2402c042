"""What happened in the whole registry: ``/system/settings/events``, for administrators and auditors."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import urlencode

from dtr.accounts import Operation
from dtr.durations import to_milliseconds
from dtr.events import EventType, Filter, Kind
from dtr.http.api import events, settings
from dtr.http.ui.activity import THINGS, TYPES, tell
from dtr.http.ui.pages import Pages
from dtr.http.ui.schedules import duration

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.ui.visit import Visit

pages = Pages()

PLACE = "/system/settings/events"
FORMS = ("csv", "jsonl")
_MOST_COUNTED = 100_000


def N_(text: str) -> str:  # noqa: N802 - the mark of a text to translate
    """Mark a text that is translated later."""
    return text


_TYPES = {**TYPES, "LOGIN": N_("Logged in")}
_THINGS = {
    **THINGS,
    "repository": N_("Repositories"),
    "account": N_("Users, organizations and robots"),
    "member": N_("Members of organizations"),
    "team": N_("Teams"),
    "team_member": N_("Members of teams"),
    "token": N_("Access tokens"),
    "session": N_("Sessions"),
    "public_key": N_("Public keys"),
    "setting": N_("Settings"),
    "job": N_("Jobs"),
    "cron": N_("Schedules"),
    "action_config": N_("Defaults of jobs"),
    "worker": N_("Workers"),
    "remote": N_("Remote registries"),
    "signing_identity": N_("Signing identities"),
    "storage": N_("Storages"),
}
_FILTERS = ("actor", "eventType", "objectType", "repository", "address", "from", "until", "pulls")


@pages.get(PLACE)
async def list_events(visit: Visit) -> Response:
    """Who did what, the latest first."""
    wanted, typed = await _wanted(visit)
    listing = await visit.listing(events.get_events, wanted=wanted, count=True)
    chosen = {name: value for name, value in typed.items() if value}
    told = [
        {
            "event": one,
            "text": tell(visit, one),
            "actor": one.actor_name if one.actor_type in {"user", "robot"} else "",
        }
        for one in listing.records.events
    ]
    return visit.page(
        "events/list.html",
        listing=listing,
        told=told,
        typed=typed,
        is_filtered=bool(chosen),
        types=_options(visit, _TYPES),
        things=_options(visit, _THINGS),
        exports={form: f"{PLACE}/export?{urlencode({**chosen, 'format': form})}" for form in FORMS},
        most=_MOST_COUNTED,
        kept=await _kept(visit),
    )


def _options(visit: Visit, texts: dict[str, str]) -> list[tuple[str, str]]:
    return sorted(((name, visit._(text)) for name, text in texts.items()), key=lambda one: one[1].casefold())


async def _wanted(visit: Visit) -> tuple[Filter, dict[str, str]]:
    """What the address asks for, and as it says so; what makes no sense asks for nothing special."""
    visit.caller.require(Operation.SEE_GLOBAL_EVENTS)
    typed = {name: visit.query.get(name, "").strip()[:255] for name in _FILTERS}
    kind, thing = typed["eventType"], typed["objectType"]
    wanted = Filter(
        type=kind if kind in get_args(EventType) else None,  # type: ignore[arg-type]  # checked
        object_type=thing if thing in get_args(Kind) else None,  # type: ignore[arg-type]  # checked
        after=_day(typed["from"], 0),
        before=_day(typed["until"], 1),
        exclude_pulls=typed["pulls"] != "true" and kind != "GET",
    )
    names: dict[str, Any] = {name: typed[name] or None for name in ("actor", "repository", "address")}
    return await visit.call(events.wanted_anywhere, wanted=wanted, **names), typed


def _day(text: str, later: int) -> int | None:
    """The beginning of a day in UTC, or of the one so much later, in milliseconds; None: it is none."""
    try:
        day = dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC) + dt.timedelta(days=later)
    except (ValueError, OverflowError):
        return None
    return round(day.timestamp() * 1_000)


async def _kept(visit: Visit) -> str:
    """How long events are kept, in words."""
    found = await visit.call(settings.get_settings)
    age, count = found.repo_event_history_max_age, found.repo_event_history_to_keep
    if not found.repo_event_history_compaction_enabled or not (age or count):
        return visit._("Events are kept for good.")
    told = duration(visit.words, to_milliseconds(age)) if age else ""
    number = visit.words.number(count)
    if age and count:
        return visit._("Events older than {age} are deleted, and all but the newest {n}.", age=told, n=number)
    if age:
        return visit._("Events older than {age} are deleted.", age=told)
    return visit._("All events but the newest {n} are deleted.", n=number)


@pages.get(f"{PLACE}/export")
async def export_events(visit: Visit) -> Response:
    """All events that the filters mean, as a file, as long as it is."""
    wanted, _ = await _wanted(visit)
    form = visit.query.get("format", "")
    chosen: Any = form if form in FORMS else FORMS[0]
    return visit.answer(await visit.call(events.export_events, wanted=wanted, form=chosen, accept=""))
