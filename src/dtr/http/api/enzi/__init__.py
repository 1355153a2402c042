"""
The account service, ``/enzi/v0``: users, organizations, teams, keys, sessions.

It is the API of the account service that DTR was installed with. Lists page with `start` and `limit`; where a name
is wanted, an id does as well; an address may end with a slash.
"""

from __future__ import annotations

from dtr.http.api.enzi import accounts, config, identity, members, public_keys, teams, user_teams

ROUTERS = (
    accounts.router,
    public_keys.router,
    members.router,
    teams.router,
    user_teams.router,
    identity.router,
    config.router,
)

__all__ = ["ROUTERS"]
