"""What the accounts refuse."""

from __future__ import annotations


class AccountError(Exception):
    """Base of this package's errors."""


class AccountUnknown(AccountError):
    """There is no such user or organisation."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no account {name}")
        self.name = name


class TeamUnknown(AccountError):
    """The organisation has no such team."""

    def __init__(self, organization: str, team: str) -> None:
        super().__init__(f"{organization} has no team {team}")
        self.organization = organization
        self.team = team


class NameTaken(AccountError):
    """An account or team has this name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} exists")
        self.name = name


class AccountNameInvalid(AccountError):
    """The name cannot be a namespace."""


class AccountInUse(AccountError):
    """The account has repositories, which would lose their owner."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} has repositories; delete them first")
        self.name = name


class PasswordInvalid(AccountError):
    """Not good as a password."""


class NotGrantable(AccountError):
    """A grant that the permission model does not know."""


class TeamElsewhere(NotGrantable):
    """The team is one of another organisation."""


class NotAnOrganization(NotGrantable):
    """What belongs to a user has no teams."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not owned by an organization")
        self.name = name


class TokenUnknown(AccountError):
    """There is no such access token."""

    def __init__(self, token: str) -> None:
        super().__init__(f"there is no token {token}")
        self.token = token


class TokenUnusable(AccountError):
    """An access token cannot be made so."""


class BadCredentials(AccountError):
    """Name and secret do not belong together, or the account may not log in. Which, is not told."""

    def __init__(self) -> None:
        super().__init__("the user name or the password is not right")


class TooManyAttempts(AccountError):
    """Too many wrong log-ins; `retry_after` in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("too many wrong log-ins; try again later")
        self.retry_after = retry_after


class TokenInvalid(AccountError):
    """Not a token of ours, or not for this."""


class TokenExpired(TokenInvalid):
    """It was a token of ours."""
