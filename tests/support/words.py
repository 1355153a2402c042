"""
The texts that the pages and their code have, and what the catalogues make of them.

``python -m tests.support.words [SUBJECT]`` prints what lacks a translation, ready to be filled in, and what is
translated and nowhere used.
"""

from __future__ import annotations

import re
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from babel.messages.extract import extract_from_dir

from dtr.http.api.errors import _CODES
from dtr.http.ui.words import entries

UI = Path(__file__).parents[2] / "src/dtr/http/ui"
# `_` is also the method of a visit; N_ marks what is translated elsewhere.
KEYWORDS: dict[str, Any] = {"_": None, "n_": (1, 2), "N_": None, "words": None, "plural": (1, 2)}


@dataclass(frozen=True)
class Text:
    """A text of the pages: the English one, with its plural, if it has one."""

    one: str
    many: str | None
    where: str

    @property
    def places(self) -> set[str]:
        """The names of what is filled in."""
        return places(self.many or self.one)


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def texts() -> Iterator[Text]:
    """Every text: of templates, of the code beside them, and what the API says for its codes."""
    methods = [("templates/**.html", "jinja2.ext:babel_extract"), ("**.py", "python")]
    options = {
        "templates/**.html": {"trimmed": "false", "extensions": "jinja2.ext.loopcontrols", "silent": "false"}
    }
    for file, line, found, _, _ in extract_from_dir(UI, methods, options, keywords=KEYWORDS):
        where = f"{file}:{line}"
        if isinstance(found, tuple):
            yield Text(found[0], found[1], where)
        else:
            yield Text(found, None, where)
    for code, (_, message) in _CODES.items():
        yield Text(message, None, f"code {code}")


def main() -> None:
    subject = sys.argv[1] if len(sys.argv) > 1 else ""
    used = {text.one: text for text in texts()}
    known = {
        (message.id if isinstance(message.id, str) else message.id[0]): file for file, message in entries("ja")
    }
    for text in sorted(used.values(), key=lambda one: one.where):
        if text.one in known or (subject and subject not in text.where):
            continue
        print(f"#: {text.where}")
        print(f"msgid {_quoted(text.one)}")
        if text.many is not None:
            print(f'msgid_plural {_quoted(text.many)}\nmsgstr[0] ""\n')
        else:
            print('msgstr ""\n')
    for one, file in known.items():
        if one not in used:
            print(f"# not used, in {file.name}: {one}")


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text).replace("\n", "\\n") + '"'


if __name__ == "__main__":
    main()
