"""What the operations on policies share: rules as they are written, lists of policies, and trying rules out."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from fastapi import Query
from pydantic import Field

from dtr.http.api.errors import ApiError
from dtr.http.api.models import Form, Record
from dtr.http.api.paging import COUNT, LARGEST_PAGE
from dtr.policies import FIELDS, PolicyInvalid, parse_rules

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from fastapi import Response

    from dtr.http.api.paging import Page
    from dtr.policies.rules import Decision, Rule
    from dtr.registry.images import TagRecord

_OPERATORS = "; ".join(f"`{field}`: {', '.join(operators)}" for field, operators in FIELDS.items())
RULES = (
    f"All have to hold. Fields and operators: {_OPERATORS}. Instead of a field, `any`, `all` (lists of rules) or"
    " `not` (a rule) put rules together."
)
InitialEvaluation = Annotated[
    bool,
    Query(alias="initialEvaluation", description="Also for tags that are there; else for those to come."),
]
Newest = Annotated[
    int,
    Query(
        ge=0,
        le=500,
        description="Only so many of the tags that were moved last, the newest first; 0: all, by name.",
    ),
]
Explain = Annotated[bool, Query(description="Answer every tag, with the rule that decided.")]


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


def rule_records(rules: Iterable[Rule]) -> list[RuleRecord]:
    """The records of rules."""
    return [RuleRecord.model_validate(rule.document) for rule in rules]


def read_rules(forms: list[RuleForm]) -> tuple[Rule, ...]:
    """The rules of a form. Raises PolicyInvalid."""
    return parse_rules([one.model_dump(by_alias=True, exclude_none=True) for one in forms])


@contextmanager
def refused_as(code: str) -> Iterator[None]:
    """Within it, a policy that cannot be is refused with this code."""
    try:
        yield
    except PolicyInvalid as error:
        raise ApiError(code, str(error)) from None


# --- lists ----------------------------------------------------------------------------------------------------


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


_Policy = TypeVar("_Policy", bound=_HasId)
_Found = TypeVar("_Found")


async def policy_page(
    page: Page, response: Response, read: Callable[..., Awaitable[list[_Policy]]], *args: Any, **more: Any
) -> list[_Policy]:
    """A page of the policies, by id, that `read` returns from `start` on, at most `limit`; with its headers."""
    if page.wants_count:
        response.headers[COUNT] = str(len(await read(*args, **more, start="", limit=LARGEST_PAGE)))
    found = await read(*args, **more, start=page.start, limit=page.limit)
    return page.cut(response, found, lambda one: one.id)


async def page_of_tags(
    page: Page,
    response: Response,
    found: AsyncIterator[_Found],
    name: Callable[[_Found], str],
    *,
    newest: int = 0,
) -> list[_Found]:
    """
    A page of what is found by the name of a tag, all of which is looked at when it is to be counted.

    When only the newest are asked for, they are one page, in their order.
    """
    if newest:
        shown = [one async for one in found]
        if page.wants_count:
            response.headers[COUNT] = str(len(shown))
        return shown
    shown = []
    count = 0
    async for one in found:
        count += 1
        if name(one) >= page.start and len(shown) < page.limit:
            shown.append(one)
        elif len(shown) == page.limit and not page.wants_count:
            break
    if page.wants_count:
        response.headers[COUNT] = str(count)
    return page.cut(response, shown, name)


class JudgedRecord(Record):
    """A tag, and what rules say of it."""

    name: str
    digest: str
    answer: str = Field(description="`yes`: all rules hold; `no`; `waits`: for what is not known yet.")
    decided_by: int | None = Field(description="The place of the rule that does not hold, from 0; null: all hold.")
    waits_for: str = Field(description="`scan` or `signature`; empty: nothing.")
    found: list[str] = Field(
        description="What the tag has of what that rule asks for: its number, names, or moment. Empty: nothing, it"
        " is not known, or rules are put together in it."
    )


def judged_fields(tag: TagRecord, decision: Decision, found: Iterable[str]) -> dict[str, Any]:
    """The fields of `JudgedRecord`."""
    return {
        "name": tag.name,
        "digest": tag.manifest.digest,
        "answer": decision.answer.value,
        "decided_by": decision.decided_by,
        "waits_for": decision.waits_for,
        "found": list(found),
    }
