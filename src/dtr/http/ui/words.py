"""
The languages of the pages.

A text in the code is the English one, whole sentences with named places: ``_("Delete {tag}", tag=tag)``. The
others are in `words/LANGUAGE/SUBJECT.po`, Babel's catalogues, read when the first page is wanted.
"""

from __future__ import annotations

import datetime as dt
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from babel import Locale
from babel.dates import format_date, format_datetime, format_timedelta
from babel.messages.pofile import read_po
from babel.numbers import format_decimal
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LANGUAGES = {"en": "English", "ja": "日本語"}
"""By code (ISO 639), what its speakers call it."""
CATALOGUES = Path(__file__).with_name("words")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


class Words:
    """One language: its texts, numbers and times."""

    def __init__(self, code: str, texts: Mapping[str, tuple[str, ...]] | None = None) -> None:
        """`texts`: by the English one, the forms of its plural; without any the texts are English."""
        self.code = code
        self._locale = Locale.parse(code)
        self._texts = texts or {}

    def __call__(self, text: str, **values: object) -> str:
        """
        A text in this language, with its places filled in.

        With `values` it is safe HTML: they are escaped, and so is the text.
        """
        return self._fill(self._texts.get(text, (text,))[0], values)

    def plural(self, one: str, many: str, number: int, **values: object) -> str:
        """`one` or `many`, as the language counts; the place `{n}` is the number."""
        forms = self._texts.get(one)
        if forms is None:
            chosen = one if number == 1 else many
        else:
            chosen = forms[min(int(self._locale.plural_form(number) != "one"), len(forms) - 1)]
        return self._fill(chosen, {"n": self.number(number), **values})

    @staticmethod
    def _fill(text: str, values: Mapping[str, object]) -> str:
        return escape(text).format(**values) if values else text

    def number(self, value: float) -> str:
        """12,000"""  # noqa: D400, D415 - an example says it
        return str(format_decimal(value, locale=self._locale))

    def size(self, count: int) -> str:
        """Bytes in the unit that fits: ``88.4 MB``, by 1,000."""
        value, unit = float(count), 0
        while value >= 999.95 and unit < len(_UNITS) - 1:
            value, unit = value / 1000, unit + 1
        shown = format_decimal(value, format="#,##0.#" if unit and value < 99.95 else "#,##0", locale=self._locale)
        return f"{shown} {_UNITS[unit]}"

    def ago(self, moment: dt.datetime) -> str:
        """How long ago (or in how long) it is: ``5 minutes ago``."""
        passed = moment - dt.datetime.now(dt.UTC)
        if abs(passed) < dt.timedelta(seconds=45):
            words = self  # the name by which the texts are found
            return words("just now") if passed <= dt.timedelta() else words("in a moment")
        return str(format_timedelta(passed, add_direction=True, threshold=1.2, locale=self._locale))

    def moment(self, moment: dt.datetime) -> str:
        """Date and time, exactly, in UTC."""
        return f"{format_datetime(moment.astimezone(dt.UTC), 'medium', locale=self._locale)} UTC"

    def date(self, moment: dt.date) -> str:
        """The date."""
        return str(format_date(moment, "medium", locale=self._locale))

    def time(self, moment: dt.datetime) -> Markup:
        """The HTML element: how long ago, and exactly for who points at it."""
        return Markup('<time datetime="{}" title="{}">{}</time>').format(
            moment.astimezone(dt.UTC).isoformat(timespec="seconds"), self.moment(moment), self.ago(moment)
        )


def entries(language: str) -> Iterator[tuple[Path, Any]]:
    """The messages of a language's catalogues (Babel's), and the files that they are in."""
    for file in sorted((CATALOGUES / language).glob("*.po")):
        with file.open("rb") as opened:
            for message in read_po(opened, locale=language):
                if message.id:
                    yield file, message


@cache
def words_of(language: str) -> Words:
    """The words of one of `LANGUAGES`. Reads files when it is first asked for a language."""
    texts: dict[str, tuple[str, ...]] = {}
    for _, message in entries(language):
        key = message.id if isinstance(message.id, str) else message.id[0]
        forms = (message.string,) if isinstance(message.string, str) else tuple(message.string)
        texts[key] = forms
    return Words(language, texts)


def choose(accept: str) -> str:
    """The language for a header `Accept-Language` (RFC 9110, section 12.5.4)."""
    weighed = []
    for place, one in enumerate(accept.split(",")):
        tag, _, weight = one.strip().partition(";")
        try:
            quality = float(weight.strip().removeprefix("q=")) if weight else 1.0
        except ValueError:
            continue
        weighed.append((-quality, place, tag.strip().lower().partition("-")[0]))
    return next((code for quality, _, code in sorted(weighed) if quality < 0 and code in LANGUAGES), "en")
