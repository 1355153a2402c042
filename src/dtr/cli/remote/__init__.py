"""
The command as a client: it asks a server that runs anywhere, over the public HTTP API, as the user who logged in.

What it imports beside click (the HTTP client, tables) is imported when it is used: `dtr serve` does without.
"""

from __future__ import annotations

from dtr.cli.remote.accounts import org, team, user
from dtr.cli.remote.completion import completion
from dtr.cli.remote.enforcement import enforce
from dtr.cli.remote.events import event
from dtr.cli.remote.login import login, logout
from dtr.cli.remote.repositories import repo, tag
from dtr.cli.remote.robots import robot
from dtr.cli.remote.system import search, settings, status
from dtr.cli.remote.tokens import token
from dtr.cli.remote.trust import trust

COMMANDS = (
    login,
    logout,
    repo,
    tag,
    trust,
    enforce,
    user,
    org,
    team,
    token,
    robot,
    event,
    search,
    settings,
    status,
)

__all__ = ["COMMANDS", "completion"]
