"""``/api/v0/repositories/{namespace}/{reponame}/pruningPolicies``: tags that go by themselves."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Literal

from fastapi import Response  # noqa: TC002 - operations need it
from msgspec.structs import replace
from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import errors
from dtr.http.api.models import Form, Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.paging import PageDep
from dtr.http.api.policies import (
    RULES,
    Explain,
    InitialEvaluation,
    JudgedRecord,
    Newest,
    RuleForm,
    RuleRecord,
    judged_fields,
    page_of_tags,
    policy_page,
    read_rules,
    refused_as,
    rule_records,
)
from dtr.http.api.repositories import ON_REPOSITORY, PathDep, require_writable
from dtr.http.api.rooms import RoomsDep
from dtr.jobs import CronUnknown
from dtr.policies import PolicyInvalid, PruningPolicy
from dtr.policies.pruning import ACTION

if TYPE_CHECKING:
    from dtr.http.api.rooms import Rooms
    from dtr.jobs import Cron
    from dtr.policies import Judged

router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}/pruningPolicies", tags=["repositories"])


class PruningPolicyRecord(Record):
    """A pruning policy."""

    id: str
    repository: str
    enabled: bool
    rules: list[RuleRecord] = Field(description=RULES)
    keep: int = Field(description="So many of the newest tags that the rules mean stay.")
    since: dt.datetime = Field(description="It means tags that were pushed since then; the year 1: all.")
    last_pruned_at: dt.datetime = Field(description="The year 1: never.")
    deleted: int = Field(description="So many tags went then.")
    newest: int = Field(description="So many stayed then as the newest.")
    signed: int = Field(description="So many stayed then, for they are signed.")
    protected: int = Field(description="So many stayed then, for they are immutable.")
    waiting: int = Field(description="For so many tags it waited for a scan then.")
    last_job: str = Field(description="Id of the job that did it, as far as jobs are kept.")
    schedule: str = Field(
        description="When the policies of all repositories are worked off, as crons have it; empty: never."
    )
    next_run: dt.datetime = Field(description="When that is next; the year 1: never.")

    @classmethod
    def of(cls, policy: PruningPolicy, path: str, cron: Cron | None) -> PruningPolicyRecord:
        """The record of a policy of the repository at `path`; `cron` says when it is worked off."""
        return cls(
            id=policy.id,
            repository=path,
            enabled=policy.enabled,
            rules=rule_records(policy.rules),
            keep=policy.keep,
            since=moment(policy.since or None),
            last_pruned_at=moment(policy.last_pruned_at),
            deleted=policy.last.deleted,
            newest=policy.last.newest,
            signed=policy.last.signed,
            protected=policy.last.protected,
            waiting=policy.last.waiting,
            last_job=policy.last_job,
            schedule=cron.schedule if cron else "",
            next_run=moment(cron.next_run if cron else None),
        )


class PruningPolicyForm(Form):
    """A pruning policy as it is to be."""

    enabled: bool = True
    rules: list[RuleForm] = Field(default_factory=list, description=RULES)
    keep: int = Field(0, description="So many of the newest tags that the rules mean stay.")


class PruningTrial(PruningPolicyForm):
    """A pruning policy to be tried out."""

    since: str = Field("", description="Only tags that were pushed since then (RFC 3339); empty: all.")


class PruningPolicyChanges(Form):
    """What is to be different; what is missing or null stays."""

    enabled: bool | None = None
    rules: list[RuleForm] | None = Field(None, description=RULES)
    keep: int | None = Field(None, description="So many of the newest tags that the rules mean stay.")


class PrunedTag(Record):
    """A tag that would go."""

    name: str
    digest: str


class JudgedTag(JudgedRecord):
    """A tag, and what the rules say of it."""

    prune: bool = Field(description="It would go.")
    kept_by: Literal["", "newest", "signed", "protected"] = Field(
        description="Why it stays though all rules hold: it is among the newest, it is signed, in content trust or"
        " without a rule that asks for that, or a pattern of immutable tags protects it. Empty: nothing keeps it."
    )

    @classmethod
    def of(cls, judged: Judged) -> JudgedTag:
        """The record of a decision."""
        return cls(
            **judged_fields(judged.tag, judged.decision, judged.found), prune=judged.goes, kept_by=judged.kept
        )


@router.get(
    "",
    summary="Pruning policies of a repository",
    response_model_exclude_none=True,
    responses=errors(*ON_REPOSITORY),
)
async def list_pruning_policies(
    path: PathDep, caller: CallerDep, rooms: RoomsDep, page: PageDep, response: Response
) -> list[PruningPolicyRecord]:
    """For whoever was granted something on the repository, and auditors."""
    repository = await caller.require_on(path, Operation.LIST_POLICIES)
    found = await policy_page(page, response, rooms.pruning.list_policies, repository)
    cron = await _find_cron(rooms)
    return [PruningPolicyRecord.of(one, path, cron) for one in found]


@router.post(
    "",
    status_code=201,
    summary="Make a pruning policy",
    response_model_exclude_none=True,
    responses=errors(*ON_REPOSITORY, "INVALID_PRUNING_POLICY"),
)
async def create_pruning_policy(
    path: PathDep,
    form: PruningPolicyForm,
    caller: CallerDep,
    rooms: RoomsDep,
    initial_evaluation: InitialEvaluation = True,
) -> PruningPolicyRecord:
    """For administrators of the repository. It is worked off at once, and then every quarter of an hour."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    with refused_as("INVALID_PRUNING_POLICY"):
        policy = _policy(repository, form)
        made = await rooms.pruning.create(policy, only_future=not initial_evaluation, by=caller.actor)
    return PruningPolicyRecord.of(made, path, await _find_cron(rooms))


@router.post(
    "/test",
    summary="Try a pruning policy out",
    response_model=list[PrunedTag] | list[JudgedTag],
    responses=errors(*ON_REPOSITORY, "INVALID_PRUNING_POLICY"),
)
async def try_pruning_policy(
    path: PathDep,
    form: PruningTrial,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    explain: Explain = False,
    newest: Newest = 0,
) -> list[PrunedTag] | list[JudgedTag]:
    """For administrators of the repository. The answer lists the tags that would go, by name; none goes."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    with refused_as("INVALID_PRUNING_POLICY"):
        policy = replace(_policy(repository, form), since=_milliseconds(form.since))
        policy.check()
    judged = (one async for one in rooms.pruning.judge(policy, newest=newest) if explain or one.goes)
    shown = await page_of_tags(page, response, judged, lambda one: one.tag.name, newest=newest)
    if explain:
        return [JudgedTag.of(one) for one in shown]
    return [PrunedTag(name=one.tag.name, digest=one.tag.manifest.digest) for one in shown]


@router.get(
    "/{pruningpolicyid}",
    summary="A pruning policy",
    response_model_exclude_none=True,
    responses=errors(*ON_REPOSITORY, "NO_SUCH_PRUNING_POLICY"),
)
async def get_pruning_policy(
    path: PathDep, pruningpolicyid: str, caller: CallerDep, rooms: RoomsDep
) -> PruningPolicyRecord:
    """For whoever was granted something on the repository, and auditors."""
    repository = await caller.require_on(path, Operation.LIST_POLICIES)
    found = await rooms.pruning.get(repository, pruningpolicyid)
    return PruningPolicyRecord.of(found, path, await _find_cron(rooms))


@router.put(
    "/{pruningpolicyid}",
    summary="Change a pruning policy",
    response_model_exclude_none=True,
    responses=errors(*ON_REPOSITORY, "INVALID_PRUNING_POLICY", "NO_SUCH_PRUNING_POLICY"),
)
async def update_pruning_policy(
    path: PathDep,
    pruningpolicyid: str,
    form: PruningPolicyChanges,
    caller: CallerDep,
    rooms: RoomsDep,
    initial_evaluation: InitialEvaluation = True,
) -> PruningPolicyRecord:
    """
    For administrators of the repository. It is worked off at once.

    When neither rules nor the number of tags that it keeps are given, and `initialEvaluation` is false, it means
    the tags that it meant.
    """
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    present = await rooms.pruning.get(repository, pruningpolicyid)
    with refused_as("INVALID_PRUNING_POLICY"):
        policy = replace(
            present,
            enabled=present.enabled if form.enabled is None else form.enabled,
            rules=present.rules if form.rules is None else read_rules(form.rules),
            keep=present.keep if form.keep is None else form.keep,
        )
        stays = not initial_evaluation and form.rules is None and form.keep is None
        only_future = None if stays else not initial_evaluation
        changed = await rooms.pruning.change(policy, only_future=only_future, by=caller.actor)
    return PruningPolicyRecord.of(changed, path, await _find_cron(rooms))


@router.post(
    "/{pruningpolicyid}/run",
    status_code=202,
    summary="Have a pruning policy work now",
    responses=errors(*ON_REPOSITORY, "NO_SUCH_PRUNING_POLICY", "READ_ONLY"),
)
async def run_pruning_policy(path: PathDep, pruningpolicyid: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators of the repository, also when the policy is switched off. A job does it."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    require_writable(rooms)
    policy = await rooms.pruning.get(repository, pruningpolicyid)
    await rooms.pruning.start(policy, by=caller.actor)


@router.delete(
    "/{pruningpolicyid}", status_code=204, summary="Delete a pruning policy", responses=errors(*ON_REPOSITORY)
)
async def delete_pruning_policy(path: PathDep, pruningpolicyid: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators of the repository; also when there is no such policy."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    await rooms.pruning.delete(repository, pruningpolicyid, by=caller.actor)


async def _find_cron(rooms: Rooms) -> Cron | None:
    """When policies are worked off; None: no schedule says so."""
    try:
        return await rooms.crons.get(ACTION)
    except CronUnknown:
        return None


def _milliseconds(text: str) -> int:
    """A moment in milliseconds since 1970 UTC; 0: none, or one that is earlier. Raises PolicyInvalid."""
    try:
        found = dt.datetime.fromisoformat(text) if text else None
        if found is None or found.year < 1970:
            return 0
        return max(0, round((found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp() * 1000))
    except (ValueError, OverflowError):
        raise PolicyInvalid("since is a moment (RFC 3339)") from None


def _policy(repository: int, form: PruningPolicyForm) -> PruningPolicy:
    """The policy of a form, without an id. Raises PolicyInvalid."""
    return PruningPolicy(
        id="", repository=repository, enabled=form.enabled, rules=read_rules(form.rules), keep=form.keep
    )
