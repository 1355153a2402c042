"""The page on jobs lists what they can do."""

from __future__ import annotations

import re
from pathlib import Path

from dtr.actions import ACTIONS, PARAMETERS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "collect.md"


def test_every_parameter_is_of_an_action_that_says_so() -> None:
    assert PARAMETERS.keys() <= ACTIONS.keys()
    told = {"onlinegc_metadata": "onlinegc", "tag_pruning": "tag_prune", "push_mirror_tag": "poll_mirror"}
    for action, parameters in PARAMETERS.items():
        words = ACTIONS[told.get(action, action)] + ACTIONS[action]
        assert [name for name in parameters if f"`{name}`" not in words] == []


def test_every_action_is_on_the_page_and_no_other() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+) \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`([a-z_]+)`", row)) == sorted(ACTIONS)
