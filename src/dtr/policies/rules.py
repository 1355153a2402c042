"""
The rules of policies: which tags of a repository one concerns. Without I/O.

DTR's rules are a field, an operator and values; a list of them holds when all hold. Beyond DTR they can be put
together with ``any``, ``all`` and ``not``, and ask for labels, platforms, signatures, sizes and pulls.

What a tag is like may not be known yet: whoever asks for vulnerabilities, licences or components waits for a
scan, and a signature comes after the push of what it signs. Hence an answer is one of three, and they are put
together as Kleene did: ``not`` of unknown is unknown, ``any`` holds as soon as one does, ``all`` fails as soon as
one does.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dtr.durations import to_milliseconds
from dtr.policies.errors import PolicyInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_MOST_VALUES = 1000
_LONGEST_VALUE = 1000
_MOST_RULES = 100
_DEEPEST = 10
_MOST_SHOWN, _LONGEST_SHOWN = 10, 200


class RuleInvalid(PolicyInvalid):
    """Not a rule; the message says which part, and why."""


class Answer(enum.Enum):
    """Whether a rule holds for a tag."""

    YES = "yes"
    NO = "no"
    WAITS = "waits"
    """For what is not known yet."""


class Findings(Struct, frozen=True):
    """What a scan found: numbers of vulnerabilities, names of licences and components."""

    critical: int = 0
    major: int = 0
    minor: int = 0
    licenses: frozenset[str] = frozenset()
    components: frozenset[str] = frozenset()

    @property
    def all(self) -> int:
        """Vulnerabilities of every severity."""
        return self.critical + self.major + self.minor


class TagFacts(Struct, frozen=True, kw_only=True):
    """What rules ask about. Moments in milliseconds since 1970 UTC, sizes in bytes."""

    name: str
    updated_at: int
    last_pulled_at: int | None = None
    """None: never."""
    size: int = 0
    platforms: frozenset[str] = frozenset()
    """``linux/amd64``, ``linux/arm/v7``, …"""
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    is_signed: bool | None = False
    """None: not known yet."""
    in_trust: bool = False
    """Content trust has a tag of this name, for what it names or for something else: so it cannot be deleted."""
    signed_by: frozenset[str] = frozenset()
    """Names of the identities of which a signature was verified."""
    more_may_sign: bool = False
    """Who has not signed yet may do so."""
    findings: Findings | None = None
    """None: not scanned yet."""


_Test: TypeAlias = "Callable[[TagFacts, int], bool | None]"
"""Whether something holds for a tag at a moment, milliseconds since 1970; None: that is not known yet."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A field, an operator, and values, which are right for them."""

    field: str
    operator: str
    values: tuple[str, ...]
    _test: _Test = dataclasses.field(init=False, repr=False, compare=False)
    """Made once: a hundred policies ask a hundred thousand tags."""

    def __post_init__(self) -> None:
        """Read the values."""
        object.__setattr__(self, "_test", _FIELDS[self.field].test(self.operator, self.values))

    def holds(self, tag: TagFacts, now: int) -> Answer:
        """Whether it holds for a tag at `now`, milliseconds since 1970."""
        return _ANSWERS[self._test(tag, now)]

    def found_in(self, tag: TagFacts) -> tuple[str, ...]:
        """What the tag has of what it asks for, the beginnings of ten at most; empty: nothing, or not known."""
        found = _FIELDS[self.field].show(self.operator, tag)
        return tuple(one[:_LONGEST_SHOWN] for one in sorted(found)[:_MOST_SHOWN])

    @property
    def document(self) -> dict[str, Any]:
        """As the API writes it."""
        return {"field": self.field, "operator": self.operator, "values": list(self.values)}


class Group(Struct, frozen=True):
    """Rules put together: all of them, any of them, or none of them (``not`` has one)."""

    kind: str
    rules: tuple[Rule, ...]

    def holds(self, tag: TagFacts, now: int) -> Answer:
        """Whether it holds for a tag at `now`."""
        if self.kind == "not":
            return _opposite(self.rules[0].holds(tag, now))
        decisive = Answer.YES if self.kind == "any" else Answer.NO
        otherwise = _opposite(decisive)
        for rule in self.rules:
            answer = rule.holds(tag, now)
            if answer is decisive:
                return decisive
            if answer is Answer.WAITS:
                otherwise = Answer.WAITS
        return otherwise

    def found_in(self, tag: TagFacts) -> tuple[str, ...]:
        """What the tag has of what the only rule in it asks for; empty: there are more rules than one."""
        return self.rules[0].found_in(tag) if len(self.rules) == 1 else ()

    @property
    def document(self) -> dict[str, Any]:
        """As the API writes it."""
        inner = [rule.document for rule in self.rules]
        return {self.kind: inner[0] if self.kind == "not" else inner}


Rule: TypeAlias = "Condition | Group"
_ANSWERS = {True: Answer.YES, False: Answer.NO, None: Answer.WAITS}


def _opposite(answer: Answer) -> Answer:
    if answer is Answer.WAITS:
        return answer
    return Answer.NO if answer is Answer.YES else Answer.YES


class Decision(Struct, frozen=True):
    """What the rules say of a tag, and the place of the rule that decided: the first that was not a yes."""

    answer: Answer
    decided_by: int | None
    """None: all rules hold, or there are none."""
    waits_for: str = ""
    """``scan`` or ``signature``; empty: it waits for nothing."""


def decide(rules: Sequence[Rule], tag: TagFacts, now: int) -> Decision:
    """What a list of rules, which all have to hold, says of a tag at `now` (milliseconds since 1970)."""
    waits = None
    for number, rule in enumerate(rules):
        answer = rule.holds(tag, now)
        if answer is Answer.NO:
            return _refusal(number)
        if answer is Answer.WAITS and waits is None:
            waits = number
    if waits is None:
        return Decision(Answer.YES, None)
    is_scanned = tag.findings is not None or not needs_scan([rules[waits]])
    return Decision(Answer.WAITS, waits, "signature" if is_scanned else "scan")


@cache
def _refusal(number: int) -> Decision:
    return Decision(Answer.NO, number)


def decide_once(rules: Sequence[Rule], tag: TagFacts, now: int) -> Decision:
    """The same for what happens once for a push: a no that a signature would change waits for it."""
    decision = decide(rules, tag, now)
    if decision.answer is not Answer.NO:
        return decision
    later = decide(rules, replace(tag, is_signed=tag.is_signed or None, more_may_sign=True), now)
    return later if later.answer is Answer.WAITS else decision


def found_in(rules: Sequence[Rule], decision: Decision, tag: TagFacts) -> tuple[str, ...]:
    """What a tag has of what the rule that decided asks for, as texts; empty: nothing, or it is not known."""
    return () if decision.decided_by is None else rules[decision.decided_by].found_in(tag)


def needs_scan(rules: Iterable[Rule]) -> bool:
    """Whether a rule asks for what only a scan knows."""
    return any(
        needs_scan(rule.rules) if isinstance(rule, Group) else _FIELDS[rule.field].needs_scan for rule in rules
    )


def asks_for(rules: Iterable[Rule], *names: str) -> bool:
    """Whether a rule is about one of the fields of these names."""
    return any(asks_for(rule.rules, *names) if isinstance(rule, Group) else rule.field in names for rule in rules)


# --- reading --------------------------------------------------------------------------------------------------


def parse_rules(document: Any) -> tuple[Rule, ...]:
    """The rules of a list as the API takes it. Raises RuleInvalid."""
    if not isinstance(document, list):
        raise RuleInvalid("rules are a list")
    rules = tuple(_parse(one, f"rules[{number}]", 0) for number, one in enumerate(document))
    if _size(rules) > _MOST_RULES:
        raise RuleInvalid(f"there are {_MOST_RULES} rules at most")
    return rules


def _parse(document: Any, place: str, depth: int) -> Rule:
    if not isinstance(document, Mapping):
        raise RuleInvalid(f"{place} is an object")
    if depth > _DEEPEST:
        raise RuleInvalid(f"{place} is too deep: groups are {_DEEPEST} deep at most")
    for kind in ("any", "all", "not"):
        if kind in document:
            inner = document[kind]
            if kind == "not":
                return Group(kind, (_parse(inner, f"{place}.not", depth + 1),))
            if not isinstance(inner, list) or not inner:
                raise RuleInvalid(f"{place}.{kind} is a list of rules")
            return Group(
                kind,
                tuple(_parse(one, f"{place}.{kind}[{number}]", depth + 1) for number, one in enumerate(inner)),
            )
    name, operator, values = document.get("field"), document.get("operator"), document.get("values")
    known = _FIELDS.get(name) if isinstance(name, str) else None
    if known is None or not isinstance(name, str):
        raise RuleInvalid(f"{place}.field is one of {', '.join(_FIELDS)}")
    if not isinstance(operator, str) or operator not in known.operators:
        raise RuleInvalid(f"{place}.operator of {name} is one of {', '.join(known.operators)}")
    if (
        not isinstance(values, list)
        or not 1 <= len(values) <= (_MOST_VALUES if operator in _ON_LISTS else 1)
        or not all(isinstance(one, str) and len(one) <= _LONGEST_VALUE for one in values)
    ):
        number = f"1 to {_MOST_VALUES} texts" if operator in _ON_LISTS else "one text"
        raise RuleInvalid(f"{place}.values of {name} {operator} are {number}")
    try:
        for value in values:
            known.check(value)
    except ValueError as error:
        raise RuleInvalid(f"{place}.values: {error}") from None
    return Condition(name, operator, tuple(values))


def write_rules(rules: Iterable[Rule]) -> str:
    """Rules as a text that is stored."""
    return json.dumps([rule.document for rule in rules])


def _size(rules: Iterable[Rule]) -> int:
    return sum(1 + (_size(rule.rules) if isinstance(rule, Group) else 0) for rule in rules)


# --- fields ---------------------------------------------------------------------------------------------------

_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    "gte": lambda one, other: one >= other,
    "gt": lambda one, other: one > other,
    "eq": lambda one, other: one == other,
    "neq": lambda one, other: one != other,
    "lte": lambda one, other: one <= other,
    "lt": lambda one, other: one < other,
}
_TEXTS: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda one, other: one == other,
    "sw": lambda one, other: one.startswith(other),
    "ew": lambda one, other: one.endswith(other),
    "c": lambda one, other: other in one,
}
_ON_LISTS = ("oo", "noo")
"""One of, not one of: these take several values, the others one."""
_MOMENTS = ("bf", "af")
"""Before, after."""


class _Field(Struct, frozen=True):
    operators: tuple[str, ...]
    test: Callable[[str, tuple[str, ...]], _Test]
    """What an operator and its values ask."""
    show: Callable[[str, TagFacts], Iterable[str]]
    """What a tag has of what an operator compares, for people; empty: nothing, or it is not known."""
    check: Callable[[str], object] = str
    """Raises ValueError for a value that it cannot have."""
    needs_scan: bool = False


def _texts(get: Callable[[TagFacts], Iterable[str] | None], *, needs_scan: bool = False) -> _Field:
    """A field of texts: an operator holds when it does for one of them; `noo` when `oo` does not."""

    def test(operator: str, values: tuple[str, ...]) -> _Test:
        if operator in _ON_LISTS:
            return among(frozenset(values), is_wanted=operator == "oo")
        compare, value = _TEXTS[operator], values[0]

        def holds(tag: TagFacts, _now: int) -> bool | None:
            found = get(tag)
            if found is None:
                return None
            for one in found:  # noqa: SIM110 - half the time of any()
                if compare(one, value):
                    return True
            return False

        return holds

    def among(values: frozenset[str], *, is_wanted: bool) -> _Test:
        def holds(tag: TagFacts, _now: int) -> bool | None:
            found = get(tag)
            return None if found is None else values.isdisjoint(found) is not is_wanted

        return holds

    return _Field((*_TEXTS, *_ON_LISTS), test, lambda _operator, tag: get(tag) or (), needs_scan=needs_scan)


def _number(get: Callable[[TagFacts], int | None], *, needs_scan: bool = False) -> _Field:
    def test(operator: str, values: tuple[str, ...]) -> _Test:
        compare, value = _NUMBERS[operator], int(values[0])

        def holds(tag: TagFacts, _now: int) -> bool | None:
            found = get(tag)
            return None if found is None else compare(found, value)

        return holds

    def show(_operator: str, tag: TagFacts) -> tuple[str, ...]:
        found = get(tag)
        return () if found is None else (str(found),)

    return _Field(tuple(_NUMBERS), test, show, _whole_number, needs_scan)


_Moments: TypeAlias = "Callable[[TagFacts], tuple[int, int | None]]"
"""The moments that have to be before one (`bf`), and after one (`af`; None: it never came)."""


def _moment(get: _Moments) -> _Field:
    def test(operator: str, values: tuple[str, ...]) -> _Test:
        bound = _milliseconds(values[0])
        return lambda tag, _now: _compare(get(tag), operator, bound)

    return _Field(_MOMENTS, test, _shown_moment(get), _milliseconds)


def _age(get: _Moments) -> _Field:
    """The same, but the value is how long ago: before 12 h means earlier than 12 hours ago."""

    def test(operator: str, values: tuple[str, ...]) -> _Test:
        length = to_milliseconds(values[0])
        return lambda tag, now: _compare(get(tag), operator, now - length)

    return _Field(_MOMENTS, test, _shown_moment(get), to_milliseconds)


def _shown_moment(get: _Moments) -> Callable[[str, TagFacts], tuple[str, ...]]:
    """The moment as the API writes moments; nothing: it never came."""

    def show(operator: str, tag: TagFacts) -> tuple[str, ...]:
        latest, came = get(tag)
        shown = latest if operator == "bf" else came
        return () if shown is None else (dt.datetime.fromtimestamp(shown / 1000, dt.UTC).isoformat(),)

    return show


def _compare(moments: tuple[int, int | None], operator: str, bound: int) -> bool:
    latest, came = moments
    return latest < bound if operator == "bf" else came is not None and came > bound


def _updated(tag: TagFacts) -> tuple[int, int]:
    return tag.updated_at, tag.updated_at


def _pulled(tag: TagFacts) -> tuple[int, int | None]:
    """What was pushed a moment ago is not one that nobody wants: before means neither pulled nor pushed since."""
    return max(tag.updated_at, tag.last_pulled_at or 0), tag.last_pulled_at


def _signed() -> _Field:
    def test(_operator: str, values: tuple[str, ...]) -> _Test:
        wanted = values[0] == "true"
        return lambda tag, _now: None if tag.is_signed is None else tag.is_signed is wanted

    def show(_operator: str, tag: TagFacts) -> tuple[str, ...]:
        return () if tag.is_signed is None else (str(tag.is_signed).lower(),)

    return _Field(("eq",), test, show, _truth)


def _signers() -> _Field:
    """Who signed: who did has done so, who did not may do it later."""
    known = _texts(lambda tag: tag.signed_by)

    def test(operator: str, values: tuple[str, ...]) -> _Test:
        holds, settled = known.test(operator, values), operator != "noo"

        def asked(tag: TagFacts, now: int) -> bool | None:
            answer = holds(tag, now)
            return None if tag.more_may_sign and answer is not settled else answer

        return asked

    return _Field(known.operators, test, known.show)


def _whole_number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def _truth(text: str) -> None:
    if text not in {"true", "false"}:
        raise ValueError(f"{text!r} is neither true nor false")


def _milliseconds(text: str) -> int:
    try:
        moment = dt.datetime.fromisoformat(text)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no moment (RFC 3339)") from None


def _found(get: Callable[[Findings], Any]) -> Callable[[TagFacts], Any]:
    return lambda tag: None if tag.findings is None else get(tag.findings)


_FIELDS: dict[str, _Field] = {
    # DTR's.
    "tag": _texts(lambda tag: (tag.name,)),
    "component.name": _texts(_found(lambda found: found.components), needs_scan=True),
    "license.name": _texts(_found(lambda found: found.licenses), needs_scan=True),
    "vulnerability_all": _number(_found(lambda found: found.all), needs_scan=True),
    "vulnerability_critical": _number(_found(lambda found: found.critical), needs_scan=True),
    "vulnerability_major": _number(_found(lambda found: found.major), needs_scan=True),
    "vulnerability_minor": _number(_found(lambda found: found.minor), needs_scan=True),
    "updated_at": _moment(_updated),
    "updated_at_duration": _age(_updated),
    # Beyond DTR.
    "last_pulled_at": _moment(_pulled),
    "last_pulled_at_duration": _age(_pulled),
    "size": _number(lambda tag: tag.size),
    "platform": _texts(lambda tag: tag.platforms),
    "label": _texts(lambda tag: (f"{name}={value}" for name, value in tag.labels.items())),
    "signed": _signed(),
    "signed_by": _signers(),
}
FIELDS = {name: known.operators for name, known in _FIELDS.items()}
"""The operators of every field."""
