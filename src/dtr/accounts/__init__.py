"""
Accounts: who somebody is, and the one answer to "may X do A on R?".

`Accounts` knows users and organisations, and has one attribute for each of what belongs to them: `logins`,
`sessions`, `tokens`, `public_keys`, `organizations` (members and teams), `robots`, `grants`, `standings`,
`reasons`, `user_settings`. `may` is the rule; `Tokens` issues and verifies what clients of the registry carry.
"""

from __future__ import annotations

from dtr.accounts.access_tokens import TOKEN_KINDS, AccessToken, TokenKind, token_id
from dtr.accounts.accounts import Accounts, Details
from dtr.accounts.errors import (
    AccountError,
    AccountInUse,
    AccountNameInvalid,
    AccountUnknown,
    BadCredentials,
    LastAdministrator,
    MemberUnknown,
    NameTaken,
    NotAnOrganization,
    NotAUser,
    NotGrantable,
    PasswordInvalid,
    PlaceUnknown,
    PublicKeyInvalid,
    PublicKeyTaken,
    PublicKeyUnknown,
    RobotUnknown,
    SessionUnknown,
    TeamElsewhere,
    TeamNameInvalid,
    TeamNameTaken,
    TeamUnknown,
    TokenExpired,
    TokenInvalid,
    TokenUnknown,
    TokenUnusable,
    TooManyAttempts,
    UserSettingsInvalid,
    UserUnknown,
)
from dtr.accounts.grants import GrantedTeam, Place
from dtr.accounts.lists import AccountFilter, AccountOrder, AccountQuery, MemberFilter, MemberOrder, MemberQuery
from dtr.accounts.logins import Login
from dtr.accounts.organizations import Member, Team
from dtr.accounts.passwords import Passwords
from dtr.accounts.permissions import Action, Facts, Level, Operation, TokenScope, may
from dtr.accounts.public_keys import Certificate, PublicKey
from dtr.accounts.reasons import Grant, Person, Reason
from dtr.accounts.records import SHARED_ORGANIZATION, Account, AccountKind, check_name, folded
from dtr.accounts.retention import Retention
from dtr.accounts.robots import Robot
from dtr.accounts.sessions import OpenSession, SessionRules, csrf_token, is_session_secret
from dtr.accounts.standings import Standing
from dtr.accounts.tokens import Claims, SigningKeys, Tokens
from dtr.accounts.user_settings import UserSettings

__all__ = [
    "SHARED_ORGANIZATION",
    "TOKEN_KINDS",
    "AccessToken",
    "Account",
    "AccountError",
    "AccountFilter",
    "AccountInUse",
    "AccountKind",
    "AccountNameInvalid",
    "AccountOrder",
    "AccountQuery",
    "AccountUnknown",
    "Accounts",
    "Action",
    "BadCredentials",
    "Certificate",
    "Claims",
    "Details",
    "Facts",
    "Grant",
    "GrantedTeam",
    "LastAdministrator",
    "Level",
    "Login",
    "Member",
    "MemberFilter",
    "MemberOrder",
    "MemberQuery",
    "MemberUnknown",
    "NameTaken",
    "NotAUser",
    "NotAnOrganization",
    "NotGrantable",
    "OpenSession",
    "Operation",
    "PasswordInvalid",
    "Passwords",
    "Person",
    "Place",
    "PlaceUnknown",
    "PublicKey",
    "PublicKeyInvalid",
    "PublicKeyTaken",
    "PublicKeyUnknown",
    "Reason",
    "Retention",
    "Robot",
    "RobotUnknown",
    "SessionRules",
    "SessionUnknown",
    "SigningKeys",
    "Standing",
    "Team",
    "TeamElsewhere",
    "TeamNameInvalid",
    "TeamNameTaken",
    "TeamUnknown",
    "TokenExpired",
    "TokenInvalid",
    "TokenKind",
    "TokenScope",
    "TokenUnknown",
    "TokenUnusable",
    "Tokens",
    "TooManyAttempts",
    "UserSettings",
    "UserSettingsInvalid",
    "UserUnknown",
    "check_name",
    "csrf_token",
    "folded",
    "is_session_secret",
    "may",
    "token_id",
]
