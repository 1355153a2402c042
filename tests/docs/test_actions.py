"""The page on jobs lists what they can do."""

from __future__ import annotations

import re
from pathlib import Path

from dtr.actions import ACTIONS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "collect.md"


def test_every_action_is_on_the_page_and_no_other() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+) \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`([a-z_]+)`", row)) == sorted(ACTIONS)
