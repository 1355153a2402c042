"""Granting by names, as the API and the command do it."""

from __future__ import annotations

from dtr.accounts import Accounts, Level
from dtr.events import SYSTEM, Actor


async def grant_team(accounts: Accounts, where: str, team: str, level: Level, *, by: Actor = SYSTEM) -> None:
    """Give a team a level on a namespace, or on a repository (with a slash), of its organisation."""
    await accounts.grants.set_team(await accounts.grants.on(where), team, level, by=by)
