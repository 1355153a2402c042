"""
All policies of a repository on one page, and what their forms share.

A form of a policy does not only save: its buttons add and remove rules, and try the rules out. Each of them sends
the whole form (the field `do` says what is wanted) and gets the whole page; with script only the part that differs
is taken.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec import Struct, field

from dtr.accounts import Operation, may
from dtr.http.api import jobs, mirroring, promotion, pruning, tags, upstreams
from dtr.http.api.errors import ApiError, refusal
from dtr.http.ui import rules
from dtr.http.ui.pages import Pages
from dtr.http.ui.visit import Listing
from dtr.jobs import JobUnknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from markupsafe import Markup
    from starlette.responses import Response

    from dtr.http.api.models import Record
    from dtr.http.api.policies import JudgedRecord
    from dtr.http.ui.problems import Problems
    from dtr.http.ui.rules import Item
    from dtr.http.ui.visit import Repository, Visit

pages = Pages()

NEWEST = 25
"""So many tags are tried out while somebody types."""
_EDITS = frozenset({"", "update", "test", "test-all", "targets", "connect", "remote-tags"})
"""What a form may want beside changing its rules and saving."""
Try: TypeAlias = "Callable[..., Awaitable[Any]]"


class Verdict(Struct, frozen=True):
    """A tag, and what would happen to it."""

    name: str
    state: str
    """``yes``, ``no``, ``waits``, or ``kept`` (of what would else be deleted)."""
    why: Markup | str
    target: str = ""
    """What it would be called."""


class Tested(Struct, frozen=True):
    """What rules and a template would do now."""

    verdicts: list[Verdict]
    """Of the newest tags; of all, those that are meant."""
    matches: int
    """How many tags are meant: of those that were looked at."""
    looked_at: int
    total: int
    """How many tags there are."""

    @property
    def is_all(self) -> bool:
        """Whether every tag was looked at."""
        return self.looked_at >= self.total


class Draft(Struct):
    """A policy as it stands in the form."""

    rows: list[Item] = field(default_factory=list)
    enabled: bool = True
    was: str = ""
    """The version of the policy that the form was made from (`version_of`); empty: a new one."""

    @property
    def documents(self) -> list[dict[str, Any]]:
        """Its rules for the API, when they have no faults."""
        return rules.documents_of(self.rows)


# --- the list -------------------------------------------------------------------------------------------------


@pages.get("/repositories/{namespace}/{repo:path}/policies")
async def show_policies(visit: Visit) -> Response:
    """All policies of a repository."""
    return await _show(visit, "")


@pages.get("/repositories/{namespace}/{repo:path}/promotions")
async def show_promotions(visit: Visit) -> Response:
    """Those that promote from here or, with `as=target`, to here."""
    return await _show(visit, "target" if visit.query.get("as") == "target" else "source")


@pages.get("/repositories/{namespace}/{repo:path}/mirrors")
async def show_mirrors(visit: Visit) -> Response:
    """Those that bring tags to other registries, and from there."""
    return await _show(visit, "mirrors")


@pages.get("/repositories/{namespace}/{repo:path}/pruning")
async def show_pruning(visit: Visit) -> Response:
    """Those that delete tags."""
    return await _show(visit, "pruning")


async def _show(visit: Visit, kind: str) -> Response:
    repo = await visit.repository()
    lists: dict[str, tuple[Try, dict[str, object]]] = {
        "source": (promotion.list_promotion_policies, {"source": True}),
        "target": (promotion.list_promotion_policies, {"source": False}),
        "mirrors": (mirroring.list_repo_mirroring_policies, {}),
        "pruning": (pruning.list_pruning_policies, {}),
    }
    shown = {
        name: await visit.listing(
            operation,
            path=repo.path,
            count=True,
            start=None if kind else "",
            **given,  # type: ignore[arg-type]  # parameters of the operation
        )
        if kind in {"", name}
        else Listing([], "", 0)
        for name, (operation, given) in lists.items()
    }
    return visit.page(
        "policies/list.html",
        repo=repo,
        kind=kind,
        shown=shown,
        sentence=lambda records: rules.joined(rules.rows_of(records), visit.words),
        upstream=None if kind else await _upstream(visit, repo),
        patience=waits_for_scan,
    )


async def _upstream(visit: Visit, repo: Repository) -> upstreams.RepositoryUpstreamRecord | None:
    """What the repository is a cache of; None: of nothing."""
    try:
        return await visit.call(upstreams.get_repository_upstream, path=repo.path)
    except Exception as error:
        refused = refusal(error)
        if refused is None or refused.code != "NO_SUCH_UPSTREAM":
            raise
        return None


# --- what forms share -----------------------------------------------------------------------------------------


def waits_for_scan(rows: list[Item]) -> bool:
    """Whether a rule is about what only a scan knows."""
    return any(waits_for_scan(one.rows) if isinstance(one, rules.Group) else one.is_scanned for one in rows)


async def read_fields(visit: Visit) -> dict[str, str]:
    """The texts of the form that was sent, by name."""
    return {name: value for name, value in (await visit.form()).items() if isinstance(value, str)}


def is_edit(draft: Draft, action: str) -> bool:
    """Whether a button of the form only changes or tries what stands in it; rules are changed here."""
    return rules.change(draft.rows, action) or action in _EDITS


def version_of(record: Record) -> str:
    """What tells versions of a policy apart: what people decide about it, not what it did."""
    kept = {
        name: value
        for name, value in record.model_dump(mode="json").items()
        if not name.startswith(("last", "next", "waiting", "deleted", "newest", "signed", "protected", "tags"))
    }
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def check_rows(draft: Draft, problems: Problems, visit: Visit) -> None:
    """Add what is wrong with the rules."""
    rules.check(draft.rows, problems, visit.words)


async def try_out(
    visit: Visit,
    path: str,
    operation: Try,
    form: Any,
    rows: list[Item],
    *,
    everything: bool,
    meant: Callable[[Any], bool],
) -> Tested | None:
    """
    What would happen to the newest tags, or to all; None: the rules or the name are not right yet.

    `meant` says of a record whether its tag is meant.
    """
    try:
        if everything:
            found = await visit.listing(
                operation, path=path, form=form, explain=False, start="", size=NEWEST, count=True
            )
            total = await count_tags(visit, path)
            matched = [Verdict(one.name, "yes", visit._("All rules hold."), _target(one)) for one in found.records]
            return Tested(matched, found.count or 0, total, total)
        judged = await visit.call(operation, path=path, form=form, explain=True, newest=NEWEST)
    except ApiError as error:
        if error.status >= 500 or error.code in {"NOT_AUTHENTICATED", "NOT_AUTHORIZED", "NO_SUCH_REPOSITORY"}:
            raise
        return None
    total = len(judged) if len(judged) < NEWEST else await count_tags(visit, path)
    verdicts = [_verdict(visit, rows, one, is_meant=meant(one)) for one in judged]
    return Tested(verdicts, sum(meant(one) for one in judged), len(judged), total)


async def count_tags(visit: Visit, path: str) -> int:
    """How many tags a repository has, without those of signatures and the like."""
    return (await visit.call(tags.get_repo_tag_counts, path=path, attached=False)).total


def _target(record: Any) -> str:
    return getattr(record, "target_tag", None) or ""


def _verdict(visit: Visit, rows: list[Item], record: JudgedRecord, *, is_meant: bool) -> Verdict:
    words = visit.words
    if is_meant:
        return Verdict(record.name, "yes", words("All rules hold."), _target(record))
    if record.answer == "yes":
        kept = {
            "newest": words("Stays: it is one of the newest."),
            "signed": words("Stays: it is signed."),
            "protected": words("Stays: a pattern of immutable tags protects it."),
        }
        if getattr(record, "blocked", False):
            return Verdict(record.name, "kept", words("The target has this tag, and it cannot be overwritten."))
        why = kept.get(
            getattr(record, "kept_by", ""), words("Its name in the target is none that a tag may have.")
        )
        return Verdict(record.name, "kept", why)
    return Verdict(record.name, record.answer, rules.reason(rows, record, words))


async def find_job(visit: Visit, job: str) -> str:
    """The job of this id, for who may see it; empty: it is not kept any more."""
    if not job or not visit.may("SEE_SYSTEM"):
        return ""
    try:
        return (await visit.call(jobs.get_job, jobID=job)).id
    except JobUnknown:
        return ""


async def may_on(visit: Visit, path: str, operation: str) -> bool:
    """Whether the visitor may do something on the repository of another path."""
    standing = await visit.caller.standing(path)
    return standing.repository_id is not None and may(standing.facts, Operation[operation])


def form_context(draft: Draft, tested: Tested | None) -> Mapping[str, object]:
    """What the templates of all forms see."""
    return {
        "draft": draft,
        "tested": tested,
        "fields": rules.FIELD_NAMES,
        "is_long": rules.is_long(draft.rows),
        "lists": rules.lists(draft.rows),
        "groups": rules.GROUPS,
        "units": rules.UNIT_NAMES,
        "sizes_of": rules.SIZES,
        "deepest": rules.DEEPEST,
        "newest": NEWEST,
        "is_full": rules.count(draft.rows) >= rules.MOST_ROWS,
    }
