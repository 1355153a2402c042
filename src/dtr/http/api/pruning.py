"""``/api/v0/repositories/{namespace}/{reponame}/pruningPolicies``: tags that go by themselves."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Form, Record, moment
from dtr.http.api.paging import COUNT, PageDep
from dtr.http.api.repositories import ON_REPOSITORY, PathDep
from dtr.http.api.rooms import RoomsDep
from dtr.policies import FIELDS, PolicyInvalid, PruningPolicy, parse_rules

if TYPE_CHECKING:
    from dtr.policies import Judged
    from dtr.policies.rules import Rule

router = APIRouter(
    prefix="/api/v0/repositories/{namespace}/{reponame:path}/pruningPolicies", tags=["repositories"]
)

_OPERATORS = "; ".join(f"`{field}`: {', '.join(operators)}" for field, operators in FIELDS.items())
RULES = (
    f"All have to hold. Fields and operators: {_OPERATORS}. Instead of a field, `any`, `all` (lists of rules) or"
    " `not` (a rule) put rules together."
)
InitialEvaluation = Annotated[
    bool,
    Query(alias="initialEvaluation", description="Also for tags that are there; else for those to come."),
]


class RuleRecord(Record):
    """A rule: a field with an operator and values, or rules put together."""

    field: str | None = None
    operator: str | None = None
    values: list[str] | None = None
    any: list[RuleRecord] | None = Field(None, description="Holds when one of them does.")
    all: list[RuleRecord] | None = Field(None, description="Holds when all of them do.")
    not_: RuleRecord | None = Field(None, alias="not", description="Holds when it does not.")


class RuleForm(Form):
    """A rule: a field with an operator and values, or rules put together."""

    field: str | None = None
    operator: str | None = None
    values: list[str] | None = None
    any: list[RuleForm] | None = Field(None, description="Holds when one of them does.")
    all: list[RuleForm] | None = Field(None, description="Holds when all of them do.")
    not_: RuleForm | None = Field(None, alias="not", description="Holds when it does not.")


class PruningPolicyRecord(Record):
    """A pruning policy."""

    id: str
    repository: str
    enabled: bool
    rules: list[RuleRecord] = Field(description=RULES)
    keep: int = Field(description="So many of the newest tags that the rules mean stay.")
    last_pruned_at: dt.datetime = Field(description="The year 1: never.")

    @classmethod
    def of(cls, policy: PruningPolicy, path: str) -> PruningPolicyRecord:
        """The record of a policy of the repository at `path`."""
        return cls(
            id=policy.id,
            repository=path,
            enabled=policy.enabled,
            rules=[RuleRecord.model_validate(rule.document) for rule in policy.rules],
            keep=policy.keep,
            last_pruned_at=moment(policy.last_pruned_at),
        )


class PruningPolicyForm(Form):
    """A pruning policy as it is to be."""

    enabled: bool = True
    rules: list[RuleForm] = Field(default_factory=list, description=RULES)
    keep: int = Field(0, description="So many of the newest tags that the rules mean stay.")


class PruningPolicyChanges(Form):
    """What is to be different; what is missing or null stays."""

    enabled: bool | None = None
    rules: list[RuleForm] | None = Field(None, description=RULES)
    keep: int | None = Field(None, description="So many of the newest tags that the rules mean stay.")


class PrunedTag(Record):
    """A tag that would go."""

    name: str
    digest: str


class JudgedTag(PrunedTag):
    """A tag, and what the rules say of it."""

    prune: bool = Field(description="It would go.")
    answer: str = Field(description="`yes`: all rules hold; `no`; `waits`: for a scan.")
    decided_by: int | None = Field(description="The place of the rule that does not hold, from 0; null: all hold.")

    @classmethod
    def of(cls, judged: Judged) -> JudgedTag:
        """The record of a decision."""
        return cls(
            name=judged.tag.name,
            digest=judged.tag.manifest.digest,
            prune=judged.goes,
            answer=judged.decision.answer.value,
            decided_by=judged.decision.decided_by,
        )


def _invalid(error: PolicyInvalid) -> ApiError:
    return ApiError("INVALID_PRUNING_POLICY", str(error))


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
    if page.wants_count:
        response.headers[COUNT] = str(len(await rooms.pruning.list_policies(repository, limit=10_000)))
    found = await rooms.pruning.list_policies(repository, start=page.start, limit=page.limit)
    return [PruningPolicyRecord.of(one, path) for one in page.cut(response, found, lambda one: one.id)]


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
    try:
        policy = _policy(repository, form)
        made = await rooms.pruning.create(policy, only_future=not initial_evaluation, by=caller.actor)
    except PolicyInvalid as error:
        raise _invalid(error) from None
    return PruningPolicyRecord.of(made, path)


@router.post(
    "/test",
    summary="Try a pruning policy out",
    response_model=list[PrunedTag] | list[JudgedTag],
    responses=errors(*ON_REPOSITORY, "INVALID_PRUNING_POLICY"),
)
async def try_pruning_policy(
    path: PathDep,
    form: PruningPolicyForm,
    caller: CallerDep,
    rooms: RoomsDep,
    page: PageDep,
    response: Response,
    explain: Annotated[bool, Query(description="Answer every tag, with the rule that decided.")] = False,
) -> list[PrunedTag] | list[JudgedTag]:
    """For administrators of the repository. The answer lists the tags that would go, by name; none goes."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    try:
        policy = _policy(repository, form)
        policy.check()
    except PolicyInvalid as error:
        raise _invalid(error) from None
    found: list[JudgedTag] = []
    count = 0
    async for judged in rooms.pruning.judge(policy):
        if not (explain or judged.goes):
            continue
        count += 1
        if judged.tag.name >= page.start and len(found) < page.limit:
            found.append(JudgedTag.of(judged))
        elif len(found) == page.limit and not page.wants_count:
            break
    if page.wants_count:
        response.headers[COUNT] = str(count)
    shown = page.cut(response, found, lambda one: one.name)
    return shown if explain else [PrunedTag(name=one.name, digest=one.digest) for one in shown]


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
    return PruningPolicyRecord.of(await rooms.pruning.get(repository, pruningpolicyid), path)


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
    """For administrators of the repository. It is worked off at once."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    present = await rooms.pruning.get(repository, pruningpolicyid)
    try:
        policy = PruningPolicy(
            id=present.id,
            repository=repository,
            enabled=present.enabled if form.enabled is None else form.enabled,
            rules=present.rules if form.rules is None else read_rules(form.rules),
            keep=present.keep if form.keep is None else form.keep,
            last_pruned_at=present.last_pruned_at,
        )
        changed = await rooms.pruning.change(policy, only_future=not initial_evaluation, by=caller.actor)
    except PolicyInvalid as error:
        raise _invalid(error) from None
    return PruningPolicyRecord.of(changed, path)


@router.delete(
    "/{pruningpolicyid}", status_code=204, summary="Delete a pruning policy", responses=errors(*ON_REPOSITORY)
)
async def delete_pruning_policy(path: PathDep, pruningpolicyid: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For administrators of the repository; also when there is no such policy."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    await rooms.pruning.delete(repository, pruningpolicyid, by=caller.actor)


def _policy(repository: int, form: PruningPolicyForm) -> PruningPolicy:
    """The policy of a form, without an id. Raises PolicyInvalid."""
    return PruningPolicy(
        id="", repository=repository, enabled=form.enabled, rules=read_rules(form.rules), keep=form.keep
    )


def read_rules(forms: list[RuleForm]) -> tuple[Rule, ...]:
    """The rules of a form. Raises PolicyInvalid."""
    return parse_rules([one.model_dump(by_alias=True, exclude_none=True) for one in forms])
