"""
Accounts: who somebody is, and the one answer to "may X do A on R?".

`Accounts` knows users and organisations, and has one attribute for each of what belongs to them: `logins`,
`tokens`, `organizations` (members and teams), `grants`, `standings`. `may` is the rule; `Tokens` issues and
verifies what clients of the registry carry.
"""

from __future__ import annotations

from dtr.accounts.access_tokens import AccessToken
from dtr.accounts.accounts import Accounts
from dtr.accounts.errors import (
    AccountError,
    AccountInUse,
    AccountNameInvalid,
    AccountUnknown,
    BadCredentials,
    NameTaken,
    NotAnOrganization,
    NotGrantable,
    PasswordInvalid,
    TeamElsewhere,
    TeamUnknown,
    TokenExpired,
    TokenInvalid,
    TokenUnknown,
    TokenUnusable,
    TooManyAttempts,
)
from dtr.accounts.logins import Login
from dtr.accounts.passwords import Passwords
from dtr.accounts.permissions import Action, Facts, Level, Operation, TokenScope, may
from dtr.accounts.records import SHARED_ORGANIZATION, Account
from dtr.accounts.standings import Standing
from dtr.accounts.tokens import Claims, SigningKeys, Tokens

__all__ = [
    "SHARED_ORGANIZATION",
    "AccessToken",
    "Account",
    "AccountError",
    "AccountInUse",
    "AccountNameInvalid",
    "AccountUnknown",
    "Accounts",
    "Action",
    "BadCredentials",
    "Claims",
    "Facts",
    "Level",
    "Login",
    "NameTaken",
    "NotAnOrganization",
    "NotGrantable",
    "Operation",
    "PasswordInvalid",
    "Passwords",
    "SigningKeys",
    "Standing",
    "TeamElsewhere",
    "TeamUnknown",
    "TokenExpired",
    "TokenInvalid",
    "TokenScope",
    "TokenUnknown",
    "TokenUnusable",
    "Tokens",
    "TooManyAttempts",
    "may",
]
