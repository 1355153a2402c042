"""
An installation with everybody on it: people of every standing, three organisations, repositories of each kind.

``acme/private``, ``acme/public`` and ``acme/target`` belong to an organisation whose teams were granted every
level, ``pia/private`` to a user who granted the same to single users.
"""

from __future__ import annotations

from tests.support.grants import grant_team

from dtr.accounts import Action, Level, TokenScope
from dtr.app import Application
from dtr.oci import parse_repository_name
from dtr.registry import Settings

PEOPLE = {
    "An": "nobody: no credentials",
    "Au": "a user without any grant",
    "R": "was granted read-only on the repository",
    "RW": "was granted read-write on it",
    "A": "was granted admin on it",
    "NA": "was granted admin on the namespace",
    "TA": "administers a team, to which nothing was granted",
    "O": "owns the namespace",
    "P": "owns another, personal namespace (of the personal one: the organisation)",
    "Ad": "an auditor",
    "S": "a system administrator",
    "In": "a user of all these grants who is not active",
    "St": "owner of another organisation",
    "Ro": "a robot that was granted read-write on the repository",
    "Sc": "a token of the owner's, good for pulling from the repository",
}
TEAMS = {
    "readers": ("rita", "ian"),
    "writers": ("will", "ian"),
    "admins": ("adam", "ian"),
    "namespace": ("nan", "ian"),
    "idle": ("tom",),
}
LEVELS = {"rita": Level.READ, "will": Level.WRITE, "adam": Level.ADMIN, "ian": Level.ADMIN}


async def make_repository(application: Application, path: str) -> None:
    """A repository, public when it is called so, with its grants."""
    visibility = "public" if "public" in path else "private"
    await application.repositories.create(parse_repository_name(path), Settings(visibility=visibility))
    grants = application.accounts.grants
    place = await grants.on(path)
    if path.startswith("acme/"):
        for team, level in (("readers", Level.READ), ("writers", Level.WRITE), ("admins", Level.ADMIN)):
            await grants.set_team(place, team, level)
        await grants.set_user(place, "acme+bot", Level.WRITE)
    else:
        for user, level in LEVELS.items():
            await grants.set_user(place, user, level)


async def make_people(application: Application) -> dict[str, tuple[str | None, str]]:
    """By the keys of `PEOPLE`: the name, and an access token. The password of users is ``secret``."""
    accounts = application.accounts
    names = {
        "Au": "paul", "R": "rita", "RW": "will", "A": "adam", "NA": "nan", "TA": "tom", "O": "olga",
        "P": "pia", "Ad": "audrey", "S": "root", "In": "ian", "St": "stan",
    }  # fmt: skip
    for name in (*names.values(), "spare"):
        await accounts.create_user(name, "secret", is_admin=name == "root", is_auditor=name == "audrey")
    for name, owner in (("acme", "olga"), ("branch", "olga"), ("other", "stan")):
        await accounts.create_organization(name)
        await accounts.organizations.put_member(name, owner, is_admin=True)
    await accounts.organizations.put_member("acme", "spare")
    for team, members in TEAMS.items():
        await accounts.organizations.create_team("acme", team)
        for member in members:
            await accounts.organizations.put_team_member("acme", team, member, is_admin=team == "idle")
    acme = await accounts.get("acme")
    await accounts.robots.create(acme, "bot")
    for path in ("acme/private", "acme/public", "pia/private", "acme/target"):
        await make_repository(application, path)
    await grant_team(accounts, "acme", "namespace", Level.ADMIN)
    for user in ("nan", "ian"):
        await accounts.grants.set_user(await accounts.grants.on("pia"), user, Level.ADMIN)
    found = {who: (name, await accounts.tokens.create(name, who)) for who, name in names.items()}
    await accounts.update("ian", is_active=False)
    scope = TokenScope(("acme/*",), frozenset({Action.PULL}))
    return {
        **found,
        "An": (None, ""),
        "Ro": ("acme+bot", await accounts.tokens.create("acme+bot", "robot")),
        "Sc": ("olga", await accounts.tokens.create("olga", "scoped", scope=scope)),
    }
