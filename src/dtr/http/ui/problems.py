"""What is wrong with a form: the API's refusals, field by field, in the visitor's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from pydantic import ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dtr.http.api.errors import ApiError
    from dtr.http.ui.words import Words


class Problems(Struct):
    """The problems of a form; false when there are none."""

    general: list[str] = field(default_factory=list)
    """Those of no single field."""
    fields: dict[str, str] = field(default_factory=dict)
    """By the name of the field."""
    code: str = ""
    """The API's word for it, to look up."""
    detail: str = ""
    """What the API said more, in English."""

    def __bool__(self) -> bool:
        return bool(self.general or self.fields)

    def of(self, name: str) -> str:
        """What is wrong with a field; empty: nothing."""
        return self.fields.get(name, "")

    def add(self, name: str, text: str) -> None:
        """Something is wrong with a field; with an empty name, with the whole form."""
        if name:
            self.fields.setdefault(name, text)
        else:
            self.general.append(text)


class Refused(Exception):
    """A form was refused; `status` is that of the answer."""

    def __init__(self, problems: Problems, status: int = 422) -> None:
        super().__init__(problems)
        self.problems = problems
        # 422 for what can be mended in the form; a conflict, a missing right and a full disk stay what they are.
        self.status = 422 if status in {400, 404} else status


def problems_of(error: ApiError | ValidationError, words: Words, fields: Mapping[str, str]) -> Problems:
    """
    The problems that an operation has with a form.

    `fields` lead from a code of the API, or a field of the operation's form, to a field of the page.
    """
    problems = Problems()
    if isinstance(error, ValidationError):
        for one in error.errors(include_url=False, include_context=True, include_input=False):
            name = ".".join(str(part) for part in one["loc"])
            problems.add(fields.get(name, name), _said(one, words))
        return problems
    # What the API says in English for each code is a text of the catalogues.
    text = words(error.message)
    problems.code = error.code
    found: list[Any] = error.detail if isinstance(error.detail, list) else []
    for finding in found:
        if isinstance(finding, dict) and "field" in finding and "message" in finding:
            name = str(finding["field"])
            problems.add(fields.get(name, name), str(finding["message"]))
    if not problems:
        problems.add(fields.get(error.code, ""), text)
        if isinstance(error.detail, str):
            problems.detail = error.detail
    return problems


def _said(problem: Any, words: Words) -> str:
    """A finding of pydantic in plain words."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "missing":
        return words("Fill in this field.")
    if kind in {"string_too_short", "too_short"}:
        return words("Fill in this field.") if context.get("min_length") == 1 else words("This is too short.")
    if kind in {"string_too_long", "too_long"}:
        return words("At most {n} characters.", n=words.number(context.get("max_length", 0)))
    if kind in {"int_parsing", "int_type", "float_parsing", "int_from_float"}:
        return words("Type a number.")
    if kind in {"greater_than_equal", "greater_than"}:
        return words("At least {n}.", n=words.number(context.get("ge", context.get("gt", 0))))
    if kind in {"less_than_equal", "less_than"}:
        return words("At most {n}.", n=words.number(context.get("le", context.get("lt", 0))))
    if kind in {"literal_error", "enum", "bool_parsing"}:
        return words("Choose one of the values.")
    if kind.startswith(("datetime", "date", "timezone")):
        return words("Type a date and a time, like 2030-01-31.")
    return str(problem["msg"])
