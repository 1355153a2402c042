"""
Accounts: who somebody is, and the one answer to "may X do A on R?".

`Accounts` knows users, organisations, teams and grants; `may` is the rule; `Tokens` issues and verifies what
clients carry.
"""

from __future__ import annotations

from dtr.accounts.accounts import SHARED_ORGANIZATION, AccessToken, Account, Accounts, Standing
from dtr.accounts.errors import (
    AccountError,
    AccountInUse,
    AccountNameInvalid,
    AccountUnknown,
    BadCredentials,
    NameTaken,
    NotGrantable,
    PasswordInvalid,
    TeamUnknown,
    TokenExpired,
    TokenInvalid,
    TooManyAttempts,
)
from dtr.accounts.passwords import Passwords
from dtr.accounts.permissions import Facts, Level, Operation, may
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
    "BadCredentials",
    "Claims",
    "Facts",
    "Level",
    "NameTaken",
    "NotGrantable",
    "Operation",
    "PasswordInvalid",
    "Passwords",
    "SigningKeys",
    "Standing",
    "TeamUnknown",
    "TokenExpired",
    "TokenInvalid",
    "Tokens",
    "TooManyAttempts",
    "may",
]
