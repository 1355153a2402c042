"""``/system``: how the parts are, what needs attention, and what was stored, pulled and pushed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.accounts import Operation
from dtr.http.api import jobs, meta, system
from dtr.http.ui.pages import Pages
from dtr.http.ui.system.soon import begin, soon

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.api.system import HealthRecord
    from dtr.http.ui.visit import Visit

pages = Pages()

_DAYS = 90
_RECENT = 30
_PATIENCE_SECONDS = 1.0
"""So long the page waits for components to answer; what does not is asked for again."""
_MOST_JOBS = 5


@pages.get("/system")
async def show_overview(visit: Visit) -> Response:
    """The overview; what does not answer at once is left out, and asked for again by the page."""
    visit.caller.require(Operation.SEE_SYSTEM)
    looking = begin(_look(visit))
    usage = await visit.call(system.get_usage, days=_DAYS, counted=False)
    running = await visit.call(jobs.list_jobs, state="running", limit=_MOST_JOBS)
    found = await soon(looking, _PATIENCE_SECONDS)
    return visit.page(
        "system/overview.html",
        health=found[0] if found else None,
        alerts=found[1] if found else None,
        usage=usage,
        recent=usage.days[-_RECENT:],
        running=running.jobs,
    )


async def _look(visit: Visit) -> tuple[HealthRecord, list[meta.AlertRecord]]:
    """How the components are, and what needs attention."""
    return await visit.call(system.get_health), await visit.call(meta.get_alerts)
