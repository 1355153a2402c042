"""``/api/v0/events`` and ``/api/v0/repositories/{namespace}/{reponame}/events``: who did what, and when."""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Depends, Header, Query, Response
from fastapi.responses import StreamingResponse
from msgspec.structs import replace
from pydantic import Field

from dtr.accounts import Operation, may
from dtr.events import ActorType, EventType, Filter, Kind
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.rooms import RoomsDep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from dtr.events import Object, Recorded
    from dtr.http.api.caller import Caller
    from dtr.http.api.paging import Page
    from dtr.http.api.rooms import Rooms

router = Router(prefix="/api/v0")

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)
_RFC_3339 = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)
_PRINTABLE = "^[ -~]*$"
_FORMULA = re.compile(r"[=+\-@\t\r\n]")
"""What a spreadsheet takes for the beginning of a formula."""


class ObjectRecord(Record):
    """What an event is about, or what it leads to; all fields are empty where there is none."""

    type: Kind | Literal[""] = Field("", description="The kind of thing.")
    id: str = Field("", description="What names it for good.")
    name: str = Field("", description="What it was called.")
    content: str = Field("", description="More about it: the digest that a tag names, for example.")

    @classmethod
    def of(cls, thing: Object | None) -> ObjectRecord:
        """The record of an object or target."""
        if thing is None:
            return cls()
        return cls(type=thing.kind, id=thing.id, name=thing.name, content=thing.content)


class EventRecord(Record):
    """One thing that happened."""

    id: str
    type: EventType = Field(description="What was done.")
    published_at: dt.datetime = Field(description="When.")
    actor: str = Field(description="Id of the account, or of the policy, that did it; empty where there is none.")
    actor_name: str = Field(description="What it was called.")
    actor_type: ActorType = Field(description="What kind of actor it was.")
    remote_address: str = Field(
        description="Where the actor called from. Empty where that is unknown, and for those who do not administer"
        " the repository."
    )
    repository: str = Field(description="Path of the repository in which it happened, then; empty: in none.")
    object: ObjectRecord = Field(description="What it was done to.")
    target: ObjectRecord = Field(description="What it was changed into, or where it went to.")
    times: int = Field(description="How often: the same pulls within about a second are one event.")

    @classmethod
    def of(cls, event: Recorded, *, address: bool = True) -> EventRecord:
        """The record of an event; `address` says whether the caller may know it."""
        return cls(
            id=str(event.id),
            type=event.type,
            published_at=moment(event.published_at),
            actor=event.actor.id,
            actor_name=event.actor.name,
            actor_type=event.actor.type,
            remote_address=event.actor.address if address else "",
            repository=event.repository,
            object=ObjectRecord.of(event.object),
            target=ObjectRecord.of(event.target),
            times=event.times,
        )


class EventList(Record):
    """A page of events, newest first."""

    events: list[EventRecord]


def _wanted(
    published_before: Annotated[
        str | None,
        Query(
            alias="publishedBefore",
            pattern=_RFC_3339,
            description="Only what happened before this moment (RFC 3339).",
            json_schema_extra={"format": "date-time"},
        ),
    ] = None,
    published_after: Annotated[
        str | None,
        Query(
            alias="publishedAfter",
            pattern=_RFC_3339,
            description="Only what happened at this moment (RFC 3339) or after it.",
            json_schema_extra={"format": "date-time"},
        ),
    ] = None,
    actor_id: Annotated[
        str | None,
        Query(
            alias="actorId", pattern=_PRINTABLE, max_length=100, description="Only what this account did: its id."
        ),
    ] = None,
    event_type: Annotated[EventType | None, Query(alias="eventType", description="Only this was done.")] = None,
    object_type: Annotated[
        Kind | None, Query(alias="objectType", description="Only what was done to things of this kind.")
    ] = None,
    exclude_pull: Annotated[bool, Query(alias="excludePull", description="Leave out pulls.")] = False,
) -> Filter:
    return Filter(
        before=_milliseconds("publishedBefore", published_before),
        after=_milliseconds("publishedAfter", published_after),
        actor=actor_id,
        type=event_type,
        object_type=object_type,
        exclude_pulls=exclude_pull,
    )


FilterDep = Annotated[Filter, Depends(_wanted)]


async def wanted_anywhere(
    wanted: FilterDep,
    rooms: RoomsDep,
    repository: Annotated[
        str | None,
        Query(
            pattern=_PRINTABLE,
            max_length=255,
            description="Only what happened in this repository: the one that is called so now, or was so last.",
        ),
    ] = None,
    address: Annotated[
        str | None, Query(pattern=_PRINTABLE, max_length=100, description="Only what was done from this address.")
    ] = None,
    actor: Annotated[
        str | None,
        Query(
            pattern=_PRINTABLE,
            max_length=255,
            description="Only what the account of this name did: the one that is called so now, or was so last.",
        ),
    ] = None,
) -> Filter:
    """What is asked for of the whole registry. What nobody and nothing is called did nothing."""
    if actor is not None:
        account = await rooms.accounts.find(actor)
        found = account.id if account is not None else await rooms.events.find_account(actor)
        wanted = replace(wanted, actor=found or "nobody")
    number = None
    if repository is not None:
        number = await rooms.events.find_repository(repository)
        number = -1 if number is None else number  # no repository has that
    return replace(wanted, repository_id=number, address=address)


@router.get(
    "/events", tags=["events"], summary="What happened, in the whole registry", responses=errors("NOT_AUTHORIZED")
)
async def get_events(
    caller: CallerDep,
    rooms: RoomsDep,
    wanted: Annotated[Filter, Depends(wanted_anywhere)],
    page: PageDep,
    response: Response,
) -> EventList:
    """For system administrators and auditors: newest first; the page starts with an id."""
    caller.require(Operation.SEE_GLOBAL_EVENTS)
    found = await event_page(rooms, wanted, page, response)
    return EventList(events=[EventRecord.of(one) for one in found])


@router.get(
    "/repositories/{namespace}/{reponame:path}/events",
    tags=["repositories"],
    summary="What happened in a repository",
    responses=errors("NOT_AUTHORIZED", "NO_SUCH_REPOSITORY"),
)
async def list_repo_events(
    namespace: str,
    reponame: str,
    caller: CallerDep,
    rooms: RoomsDep,
    wanted: FilterDep,
    page: PageDep,
    response: Response,
) -> EventList:
    """
    Newest first, also of the time when it was called otherwise; the page starts with an id.

    Whoever sees the repository sees what happened to it, its tags and manifests. Pulls, grants and the addresses
    of clients are for those who administer it, and for auditors.
    """
    here, sees_all = await _within(caller, f"{namespace}/{reponame}", wanted)
    found = await event_page(rooms, here, page, response)
    return EventList(events=[EventRecord.of(one, address=sees_all) for one in found])


async def _within(caller: Caller, path: str, wanted: Filter) -> tuple[Filter, bool]:
    """The events of a repository that the caller may see; and whether clients' addresses are for the caller."""
    repository, facts = await caller.stand_on(path, Operation.SEE_EVENTS)
    sees_all = may(facts, Operation.SEE_ALL_EVENTS)
    return replace(wanted, repository_id=repository, content_only=not sees_all), sees_all


def start_of(page: Page) -> int | None:
    """The event that a page starts with; None: the newest. Raises ApiError."""
    if not page.start:
        return None
    if not page.start.isascii() or not page.start.isdecimal() or int(page.start) >= 2**63:
        raise ApiError("INVALID_PARAMETERS", [{"field": "pageStart", "message": "is the id of an event"}])
    return int(page.start)


async def event_page(rooms: Rooms, wanted: Filter, page: Page, response: Response) -> list[Recorded]:
    """The events of a page, with its headers. Raises ApiError."""
    start = start_of(page)
    if page.wants_count:
        response.headers[COUNT] = str(await rooms.events.count(wanted))
    found = await rooms.events.list_events(wanted, start=start, limit=page.limit)
    return page.cut(response, found, lambda one: str(one.id))


# --- export ---------------------------------------------------------------------------------------------------


_EXPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A line for each event.",
        "content": {
            "application/x-ndjson": {"schema": {"type": "string"}},
            "text/csv": {"schema": {"type": "string"}},
        },
    }
}
_Form = Annotated[
    Literal["jsonl", "csv"] | None,
    Query(alias="format", description="Lines of JSON, or of CSV; else what `Accept` says, or JSON."),
]


@router.get(
    "/events/export",
    tags=["events"],
    summary="All events, for other programs",
    response_class=StreamingResponse,
    responses={**_EXPORT, **errors("NOT_AUTHORIZED")},
)
async def export_events(
    caller: CallerDep,
    rooms: RoomsDep,
    wanted: Annotated[Filter, Depends(wanted_anywhere)],
    form: _Form = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> StreamingResponse:
    """
    For system administrators and auditors: newest first, as many as there are.

    In CSV, what a spreadsheet would take for a formula has a quote before it. A line of JSON is the event as the
    lists have it.
    """
    caller.require(Operation.SEE_GLOBAL_EVENTS)
    return await _exported(rooms, wanted, form, accept, "events", addresses=True)


@router.get(
    "/repositories/{namespace}/{reponame:path}/events/export",
    tags=["repositories"],
    summary="What happened in a repository, for other programs",
    response_class=StreamingResponse,
    responses={**_EXPORT, **errors("NOT_AUTHORIZED", "NO_SUCH_REPOSITORY")},
)
async def export_repo_events(
    namespace: str,
    reponame: str,
    caller: CallerDep,
    rooms: RoomsDep,
    wanted: FilterDep,
    form: _Form = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> StreamingResponse:
    """For whoever may list them: the same events, newest first, as many as there are."""
    here, sees_all = await _within(caller, f"{namespace}/{reponame}", wanted)
    name = f"{namespace}-{reponame.replace('/', '-')}-events"
    return await _exported(rooms, here, form, accept, name, addresses=sees_all)


async def _exported(
    rooms: Rooms, wanted: Filter, form: str | None, accept: str, name: str, *, addresses: bool
) -> StreamingResponse:
    """The answer with the events, as a file called `name`; `addresses`: with those of clients."""
    if form is None:
        form = "csv" if "text/csv" in accept.lower() and "json" not in accept.lower() else "jsonl"
    write, media_type = (_csv, "text/csv; charset=utf-8") if form == "csv" else (_lines, "application/x-ndjson")
    pages = rooms.events.walk(wanted)
    # Before the answer begins: that the database fails can still be told.
    first: list[Recorded] = await anext(pages, [])
    return StreamingResponse(
        _written(first, pages, partial(EventRecord.of, address=addresses), write),
        media_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}.{form}"'},
    )


async def _written(
    first: list[Recorded],
    pages: AsyncIterator[list[Recorded]],
    record: Callable[[Recorded], EventRecord],
    write: Callable[[Iterable[Any], bool], str],
) -> AsyncIterator[str]:
    yield write(map(record, first), True)
    async for page in pages:
        yield write(map(record, page), False)


def _lines(found: Iterable[EventRecord], _is_first: bool) -> str:
    return "".join(f"{one.model_dump_json(by_alias=True)}\n" for one in found)


_PLAIN = (
    "id",
    "published_at",
    "type",
    "actor",
    "actor_name",
    "actor_type",
    "remote_address",
    "repository",
)
_THING = ("type", "id", "name", "content")


def _csv(found: Iterable[EventRecord], is_first: bool) -> str:
    """RFC 4180, with a header line before the first."""
    text = io.StringIO()
    writer = csv.writer(text)
    if is_first:
        names = [EventRecord.model_fields[name].alias or name for name in _PLAIN]
        sides = [f"{side}{part.title()}" for side in ("object", "target") for part in _THING]
        writer.writerow([*names, *sides, "times"])
    for one in found:
        row = one.model_dump(mode="json")
        cells = [row[name] for name in _PLAIN]
        cells += [row[side][part] for side in ("object", "target") for part in _THING]
        cells.append(str(row["times"]))
        writer.writerow([f"'{cell}" if _FORMULA.match(cell) else cell for cell in cells])
    return text.getvalue()


def _milliseconds(name: str, text: str | None) -> int | None:
    """A moment in milliseconds since 1970 UTC. Raises ApiError."""
    if text is None:
        return None
    try:
        value = dt.datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ApiError("INVALID_PARAMETERS", [{"field": name, "message": str(error)}]) from None
    return -(-(value - _EPOCH) // _MILLISECOND)  # what is within a millisecond is after its beginning
