"""
Rules as people read and write them: sentences, and the rows of a form.

A form has the top rules in a list, all of which have to hold. A row is a condition, or a group of rows. What the
API writes with ``not`` is a comparison of its own here ("does not start with"), or another kind of group ("none
of these"), so that no row needs a switch. Rows are called by their places: ``rules.0``, in a group ``rules.2.0``.
"""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from markupsafe import Markup, escape
from msgspec import Struct, field

from dtr.durations import to_duration, to_milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dtr.http.api.policies import JudgedRecord, RuleRecord
    from dtr.http.ui.problems import Problems
    from dtr.http.ui.words import Words

Kind: TypeAlias = Literal["name", "names", "number", "size", "moment", "age", "truth"]
GroupKind: TypeAlias = Literal["any", "none", "all", "notall"]


def N_(text: str) -> str:  # noqa: N802 - gettext's name
    """Mark a text that is translated where it is shown."""
    return text


# --- what there is --------------------------------------------------------------------------------------------

FIELDS: Mapping[str, tuple[Kind, str]] = {
    "tag": ("name", N_("Tag name")),
    "updated_at_duration": ("age", N_("Last push, how long ago")),
    "last_pulled_at_duration": ("age", N_("Last pull, how long ago")),
    "updated_at": ("moment", N_("Last push, date")),
    "last_pulled_at": ("moment", N_("Last pull, date")),
    "signed": ("truth", N_("Signature")),
    "signed_by": ("names", N_("Signer")),
    "label": ("names", N_("Label")),
    "platform": ("names", N_("Platform")),
    "size": ("size", N_("Size")),
    "vulnerability_critical": ("number", N_("Critical vulnerabilities")),
    "vulnerability_major": ("number", N_("Major vulnerabilities")),
    "vulnerability_minor": ("number", N_("Minor vulnerabilities")),
    "vulnerability_all": ("number", N_("All vulnerabilities")),
    "license.name": ("names", N_("License")),
    "component.name": ("names", N_("Component")),
}
"""The fields of rules, in the order in which they are offered: how they are compared, and their names."""
FIELD_NAMES: Mapping[str, str] = {name: text for name, (_, text) in FIELDS.items()}
SCANNED = frozenset(name for name in FIELDS if name.startswith(("vulnerability", "license", "component")))
"""What only a scan knows."""
_TEXTS = {
    "eq": N_("is"),
    "!eq": N_("is not"),
    "sw": N_("starts with"),
    "!sw": N_("does not start with"),
    "ew": N_("ends with"),
    "!ew": N_("does not end with"),
    "c": N_("contains"),
    "!c": N_("does not contain"),
    "oo": N_("is one of"),
    "noo": N_("is not one of"),
}
_NUMBERS = {
    "lte": N_("is at most"),
    "lt": N_("is less than"),
    "eq": N_("is exactly"),
    "neq": N_("is not"),
    "gte": N_("is at least"),
    "gt": N_("is more than"),
}
OPERATORS: Mapping[Kind, Mapping[str, str]] = {
    "name": _TEXTS,
    "names": _TEXTS,
    "number": _NUMBERS,
    "size": _NUMBERS,
    "moment": {
        "bf": N_("is before"),
        "af": N_("is after"),
        "!bf": N_("is not before"),
        "!af": N_("is not after"),
    },
    "age": {
        "bf": N_("is longer ago than"),
        "af": N_("is within the last"),
        "!af": N_("is not within the last"),
        "!bf": N_("is not longer ago than"),
    },
    "truth": {"eq": N_("is")},
}
"""How each kind is compared: the API's operators, ``!`` before them says ``not``; and what is offered."""
LISTS = frozenset({"oo", "noo"})
"""These compare with several values, the others with one."""
_OPPOSITES = {
    "gte": "lt", "lt": "gte", "gt": "lte", "lte": "gt", "eq": "neq", "neq": "eq", "oo": "noo", "noo": "oo",
}  # fmt: skip
"""Of numbers; of texts those that take lists."""
GROUPS: Mapping[GroupKind, str] = {
    "any": N_("One of these holds"),
    "none": N_("None of these holds"),
    "all": N_("All of these hold"),
    "notall": N_("Not all of these hold"),
}
UNITS = {"s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
"""Milliseconds."""
UNIT_NAMES = {
    "min": N_("minutes"),
    "h": N_("hours"),
    "d": N_("days"),
    "w": N_("weeks"),
    "s": N_("seconds"),
}
SIZES = {"MB": 1_000_000, "GB": 1_000_000_000, "kB": 1_000, "B": 1}
"""Bytes."""
MOST_ROWS = 100
LONG = 8
"""In a form with more rows the texts to choose from are in the page once, not in every row."""
DEEPEST = 3
"""Groups that can be put into each other in the form; those that are deeper are shown, and stay."""
_DEEPEST_READ = 12
_SHOWN = 5
"""Values in a sentence."""

# --- sentences ------------------------------------------------------------------------------------------------

_NAME = {
    "eq": N_("the tag name is {value}"),
    "!eq": N_("the tag name is not {value}"),
    "sw": N_("the tag name starts with {value}"),
    "!sw": N_("the tag name does not start with {value}"),
    "ew": N_("the tag name ends with {value}"),
    "!ew": N_("the tag name does not end with {value}"),
    "c": N_("the tag name contains {value}"),
    "!c": N_("the tag name does not contain {value}"),
    "oo": N_("the tag name is one of {value}"),
    "noo": N_("the tag name is not one of {value}"),
}
_SOME = {
    "eq": N_("a {field} is {value}"),
    "!eq": N_("no {field} is {value}"),
    "sw": N_("a {field} starts with {value}"),
    "!sw": N_("no {field} starts with {value}"),
    "ew": N_("a {field} ends with {value}"),
    "!ew": N_("no {field} ends with {value}"),
    "c": N_("a {field} contains {value}"),
    "!c": N_("no {field} contains {value}"),
    "oo": N_("a {field} is one of {value}"),
    "noo": N_("no {field} is one of {value}"),
}
_AMOUNT = {
    "lte": N_("{field} is at most {value}"),
    "lt": N_("{field} is less than {value}"),
    "eq": N_("{field} is exactly {value}"),
    "neq": N_("{field} is not {value}"),
    "gte": N_("{field} is at least {value}"),
    "gt": N_("{field} is more than {value}"),
}
_SENTENCES: Mapping[Kind, Mapping[str, str]] = {
    "name": _NAME,
    "names": _SOME,
    "number": _AMOUNT,
    "size": _AMOUNT,
    "moment": {
        "bf": N_("{field} is before {value}"),
        "af": N_("{field} is after {value}"),
        "!bf": N_("{field} is not before {value}"),
        "!af": N_("{field} is not after {value}"),
    },
    "age": {
        "bf": N_("{field} is longer ago than {value}"),
        "af": N_("{field} is within the last {value}"),
        "!af": N_("{field} is not within the last {value}"),
        "!bf": N_("{field} is not longer ago than {value}"),
    },
}
_NOUNS = {
    "signed_by": N_("signer"),
    "label": N_("label"),
    "platform": N_("platform"),
    "license.name": N_("license"),
    "component.name": N_("component"),
    "size": N_("the size"),
    "updated_at": N_("the last push"),
    "updated_at_duration": N_("the last push"),
    "last_pulled_at": N_("the last pull"),
    "last_pulled_at_duration": N_("the last pull"),
    "vulnerability_critical": N_("the number of critical vulnerabilities"),
    "vulnerability_major": N_("the number of major vulnerabilities"),
    "vulnerability_minor": N_("the number of minor vulnerabilities"),
    "vulnerability_all": N_("the number of vulnerabilities"),
}


class Row(Struct):
    """A condition, as it stands in the form: whatever was typed."""

    field: str = "tag"
    operator: str = "sw"
    value: str = ""
    """Of a list a value in each line."""
    unit: str = ""
    """Of an age, and of a size."""
    is_open: bool = False
    """In a long form: it has all texts to choose from, without script."""

    @property
    def kind(self) -> Kind:
        """How the field is compared."""
        return FIELDS[self.field][0]

    @property
    def is_list(self) -> bool:
        """Whether it takes several values."""
        return self.operator in LISTS

    @property
    def operators(self) -> Mapping[str, str]:
        """The comparisons that the field has."""
        return OPERATORS[self.kind]

    @property
    def comparisons(self) -> str:
        """What the page calls the list of its comparisons: the kind that has the same ones."""
        return {"names": "name", "size": "number"}.get(self.kind, self.kind)

    @property
    def is_scanned(self) -> bool:
        """Whether only a scan knows it."""
        return self.field in SCANNED


class Group(Struct):
    """Rows that are put together."""

    kind: GroupKind = "any"
    rows: list[Item] = field(default_factory=list)


Item: TypeAlias = "Row | Group"


# --- from and to the API --------------------------------------------------------------------------------------


def rows_of(rules: Iterable[RuleRecord]) -> list[Item]:
    """The rows of rules."""
    return [_row_of(one) for one in rules]


def _row_of(rule: RuleRecord) -> Item:
    if rule.any is not None:
        return Group("any", rows_of(rule.any))
    if rule.all is not None:
        return Group("all", rows_of(rule.all))
    if rule.not_ is not None:
        return _negated(rule.not_)
    name, values = rule.field or "tag", rule.values or []
    row = Row(name, rule.operator or "eq", "\n".join(values))
    if row.kind == "age":
        row.value, row.unit = _largest(to_milliseconds(values[0]), UNITS)
    elif row.kind == "size":
        row.value, row.unit = _largest(int(values[0]), SIZES)
    elif row.kind == "moment":
        row.value = _as_typed(values[0])
    return row


def _negated(rule: RuleRecord) -> Item:
    inner = _row_of(rule)
    if isinstance(inner, Group):
        opposites: dict[GroupKind, GroupKind] = {"any": "none", "all": "notall", "none": "any", "notall": "all"}
        return Group(opposites[inner.kind], inner.rows)
    if inner.kind == "truth":
        inner.value = "false" if inner.value == "true" else "true"
    elif inner.operator in LISTS or inner.kind in {"number", "size"}:
        inner.operator = _OPPOSITES[inner.operator]
    else:
        inner.operator = inner.operator[1:] if inner.operator.startswith("!") else f"!{inner.operator}"
    return inner


def documents_of(rows: Iterable[Item]) -> list[dict[str, Any]]:
    """The rules of rows, as the API takes them."""
    return [_document_of(one) for one in rows]


def _document_of(item: Item) -> dict[str, Any]:
    if isinstance(item, Group):
        inner = documents_of(item.rows)
        document = {"any" if item.kind in {"any", "none"} else "all": inner}
        return {"not": document} if item.kind in {"none", "notall"} else document
    values = [one.strip() for one in item.value.splitlines() if one.strip()] if item.is_list else [item.value]
    if item.kind == "age":
        values = [to_duration(int(item.value) * UNITS[item.unit]) or "0s"]
    elif item.kind == "size":
        values = [str(int(item.value) * SIZES[item.unit])]
    elif item.kind == "moment":
        values = [_moment(item.value).isoformat()]
    condition = {"field": item.field, "operator": item.operator.removeprefix("!"), "values": values}
    return {"not": condition} if item.operator.startswith("!") else condition


def _largest(amount: int, units: Mapping[str, int]) -> tuple[str, str]:
    """An amount in the largest unit in which it is a whole number; less than the smallest is rounded up."""
    for name, one in sorted(units.items(), key=lambda unit: -unit[1]):
        if amount and amount % one == 0:
            return str(amount // one), name
    name, smallest = min(units.items(), key=lambda unit: unit[1])
    return str(math.ceil(amount / smallest)), name


def _moment(text: str) -> dt.datetime:
    """A moment that was typed; without a zone it is in UTC. Raises ValueError."""
    found = dt.datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def _as_typed(text: str) -> str:
    """A moment as the form's field has it, in UTC."""
    found = _moment(text).astimezone(dt.UTC)
    return found.replace(tzinfo=None).isoformat(timespec="seconds" if found.second else "minutes")


# --- the form -------------------------------------------------------------------------------------------------


def read_rows(fields: Mapping[str, str], place: str = "rules") -> list[Item]:
    """The rows of a form that was sent, by names like ``rules.0.field`` and ``rules.1.0.value``."""
    heads = {name.removeprefix(f"{place}.").partition(".")[0] for name in fields if name.startswith(f"{place}.")}
    rows: list[Item] = []
    for number in sorted(int(one) for one in heads if one.isascii() and one.isdecimal())[:MOST_ROWS]:
        here = f"{place}.{number}"
        kind = fields.get(f"{here}.group", "")
        if kind in GROUPS:
            inner = read_rows(fields, here) if here.count(".") <= _DEEPEST_READ else []
            rows.append(Group(kind, inner))  # type: ignore[arg-type]  # it is one of them
            continue
        name = fields.get(f"{here}.field", "tag")
        row = Row(name if name in FIELDS else "tag", value=fields.get(f"{here}.value", "").strip())
        operator = fields.get(f"{here}.operator", "")
        row.operator = operator if operator in row.operators else next(iter(row.operators))
        units = {"age": UNITS, "size": SIZES}.get(row.kind, {})
        unit = fields.get(f"{here}.unit", "")
        row.unit = unit if unit in units else {"age": "d", "size": "MB"}.get(row.kind, "")
        if row.kind == "truth" and row.value not in {"true", "false"}:
            row.value = "true"
        row.is_open = f"{here}.open" in fields
        rows.append(row)
    return rows


def change(rows: list[Item], action: str) -> bool:
    """
    Do what a button of the form says; whether it was one of those that change rows.

    ``add:``, ``group:``, ``remove:`` and ``open:`` with a place: ``2.0`` is the first row in the group at place 2,
    empty the list itself. The row that is opened or added is the only one that is open.
    """
    verb, _, place = action.partition(":")
    if verb not in {"add", "group", "remove", "open"}:
        return False
    if verb != "remove":
        for row in conditions(rows):
            row.is_open = False
    parts = [int(one) for one in place.split(".") if one.isascii() and one.isdecimal()]
    *outer, last = parts if verb in {"remove", "open"} and parts else [*parts, -1]
    here = rows
    for number in outer:
        group = here[number] if 0 <= number < len(here) else None
        if not isinstance(group, Group):
            return True
        here = group.rows
    if verb == "remove":
        if 0 <= last < len(here):
            del here[last]
    elif verb == "open":
        found = here[last] if 0 <= last < len(here) else None
        if isinstance(found, Row):
            found.is_open = True
    elif count(rows) < MOST_ROWS:
        added = Row(is_open=True)
        here.append(added if verb == "add" else Group("any", [added, Row(is_open=True)]))
    return True


def conditions(rows: Iterable[Item]) -> Iterator[Row]:
    """The rows that are no groups, those in groups included."""
    for one in rows:
        if isinstance(one, Group):
            yield from conditions(one.rows)
        else:
            yield one


def is_long(rows: Iterable[Item]) -> bool:
    """Whether a form has so many rows that they share their texts to choose from."""
    return count(rows) > LONG


def lists(rows: Sequence[Item]) -> dict[str, Mapping[str, str]]:
    """The texts to choose from that the rows of a long form share, by what the page calls them; else none."""
    if not is_long(rows):
        return {}
    return {"field": FIELD_NAMES, **{row.comparisons: row.operators for row in conditions(rows)}}


def count(rows: Iterable[Item]) -> int:
    """How many rows there are, those in groups included."""
    return sum(1 + (count(one.rows) if isinstance(one, Group) else 0) for one in rows)


def check(rows: Iterable[Item], problems: Problems, words: Words, place: str = "rules") -> None:
    """Add what is wrong with rows: by the place of the field."""
    for number, item in enumerate(rows):
        here = f"{place}.{number}"
        if isinstance(item, Group):
            if not item.rows:
                problems.add(f"{here}.group", words("This group is empty. Add a rule to it, or remove it."))
            check(item.rows, problems, words, here)
            continue
        text = _fault(item, words)
        if text:
            problems.add(f"{here}.value", text)


def _fault(row: Row, words: Words) -> str:
    if not row.value.strip():
        return words("Fill in what the rule compares with.")
    if row.kind in {"number", "age", "size"} and not (
        row.value.isascii() and row.value.isdecimal() and len(row.value) <= 9
    ):
        return words("Type a whole number.")
    if row.kind == "moment":
        try:
            _moment(row.value)
        except ValueError:
            return words("Type a date and a time, like 2030-01-31T12:00.")
    return ""


# --- sentences ------------------------------------------------------------------------------------------------


def sentences(rows: Iterable[Item], words: Words) -> list[Markup]:
    """A sentence for each row, which begins small: it goes on from "if"."""
    return [_sentence(one, words) for one in rows]


def joined(rows: Sequence[Item], words: Words) -> Markup:
    """All of them as one: "a, b, and c"; empty without rules."""
    return _list(sentences(rows, words), "and", words)


def _sentence(item: Item, words: Words) -> Markup:
    if isinstance(item, Group):
        inner = sentences(item.rows, words)
        if item.kind == "any":
            return Markup("({})").format(_list(inner, "or", words))
        if item.kind == "all":
            return Markup("({})").format(_list(inner, "and", words))
        if item.kind == "none":
            return escape(words("not ({rules})", rules=_list(inner, "or", words)))
        return escape(words("not ({rules})", rules=_list(inner, "and", words)))
    if item.kind == "truth":
        return escape(words("it is signed") if item.value == "true" else words("it is not signed"))
    noun = _NOUNS.get(item.field, "")
    return escape(
        words(
            _SENTENCES[item.kind][item.operator],
            field=words(noun) if noun else "",
            value=_value(item, words),
        )
    )


def _value(row: Row, words: Words) -> Markup:
    if row.kind == "age" and row.value.isdecimal():
        return escape(_length(int(row.value), row.unit, words))
    if row.kind == "size" and row.value.isdecimal():
        return escape(words.size(int(row.value) * SIZES[row.unit]))
    if row.kind == "number" and row.value.isdecimal():
        return escape(words.number(int(row.value)))
    if row.kind == "moment":
        try:
            return escape(words.moment(_moment(row.value)))
        except ValueError:
            return escape(row.value)
    values = [one for one in row.value.splitlines() if one.strip()] if row.is_list else [row.value]
    shown = [_code(one) for one in values[:_SHOWN]]
    if len(values) > _SHOWN:
        shown.append(escape(words.plural("{n} more", "{n} more", len(values) - _SHOWN)))
    return _list(shown, "and" if len(values) > _SHOWN else "or", words) if row.is_list else shown[0]


def _length(amount: int, unit: str, words: Words) -> str:
    if unit == "s":
        return words.plural("{n} second", "{n} seconds", amount)
    if unit == "min":
        return words.plural("{n} minute", "{n} minutes", amount)
    if unit == "h":
        return words.plural("{n} hour", "{n} hours", amount)
    if unit == "d":
        return words.plural("{n} day", "{n} days", amount)
    return words.plural("{n} week", "{n} weeks", amount)


def _code(text: str) -> Markup:
    """A foreign text in a sentence."""
    return Markup("<bdi><code>{}</code></bdi>").format(text)


def _list(parts: Sequence[Markup], style: Literal["and", "or"], words: Words) -> Markup:
    if len(parts) < 2:
        return parts[0] if parts else Markup()
    first = escape(words(", ")).join(parts[:-1])
    if style == "or":
        return escape(words("{first} or {last}", first=first, last=parts[-1]))
    return escape(words("{first} and {last}", first=first, last=parts[-1]))


def reason(rows: Sequence[Item], judged: JudgedRecord, words: Words) -> Markup:
    """Why rules say what they say of a tag: the first that does not hold, and what the tag has of it."""
    place = judged.decided_by
    if place is None or place >= len(rows):
        return escape(words("All rules hold."))
    row = rows[place]
    if judged.answer == "waits":
        if judged.waits_for == "signature":
            return escape(words("Not signed yet: decided when a signature comes."))
        return escape(words("Not scanned yet: decided after the scan."))
    if isinstance(row, Row) and row.kind in {"name", "truth"}:
        return _capital(_sentence(_opposite(row), words))
    said = _sentence(row, words)
    if not judged.found:
        return escape(words("Not so: {rule}", rule=said))
    if isinstance(row, Row) and row.kind in {"moment", "age"}:
        return escape(words("It was {found}. Rule: {rule}", found=_found(row, judged.found, words), rule=said))
    return escape(words("Here {found}. Rule: {rule}", found=_found(row, judged.found, words), rule=said))


def _capital(text: Markup) -> Markup:
    return Markup(text[:1].upper() + text[1:]) if not text.startswith("<") else text  # noqa: S704 - it was one


def _opposite(row: Row) -> Row:
    operator = row.operator
    if row.kind == "truth":
        return Row(row.field, operator, "false" if row.value == "true" else "true")
    if operator in LISTS:
        return Row(row.field, _OPPOSITES[operator], row.value)
    return Row(row.field, operator[1:] if operator.startswith("!") else f"!{operator}", row.value)


def _found(item: Item, found: Sequence[str], words: Words) -> Markup:
    kind = item.kind if isinstance(item, Row) else "names"
    if kind == "number":
        return escape(words.number(int(found[0])))
    if kind == "size":
        return escape(words.size(int(found[0])))
    if kind in {"moment", "age"}:
        return words.time(dt.datetime.fromisoformat(found[0]))
    shown = [_code(one) for one in found[:_SHOWN]]
    return _list(shown, "and", words)
