"""What the accounts refuse."""

from __future__ import annotations


class AccountError(Exception):
    """Base of this package's errors."""


class AccountUnknown(AccountError):
    """There is no such user or organisation."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no account {name}")
        self.name = name


class UserUnknown(AccountUnknown):
    """There is no such user."""


class PlaceUnknown(AccountUnknown):
    """There is no such repository, or namespace."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.args = (f"there is no repository, user or organisation {name}",)


class RobotUnknown(AccountError):
    """The organisation has no such robot."""

    def __init__(self, organization: str, robot: str) -> None:
        super().__init__(f"{organization} has no robot {robot}")
        self.organization = organization
        self.robot = robot


class TeamUnknown(AccountError):
    """The organisation has no such team."""

    def __init__(self, organization: str, team: str) -> None:
        super().__init__(f"{organization} has no team {team}")
        self.organization = organization
        self.team = team


class MemberUnknown(AccountError):
    """The user is not in the organisation or team."""

    def __init__(self, user: str, where: str) -> None:
        super().__init__(f"{user} is not a member of {where}")
        self.user = user
        self.where = where


class NameTaken(AccountError):
    """An account or team has this name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} exists")
        self.name = name


class TeamNameTaken(NameTaken):
    """The organisation has a team of this name."""


class AccountNameInvalid(AccountError):
    """The name cannot be a namespace."""


class TeamNameInvalid(AccountNameInvalid):
    """The name cannot be one of a team."""


class NotAUser(AccountError):
    """Something was to be done to an account that only users can have done to them."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not a user: only users log in, administer and audit")
        self.name = name


class LastAdministrator(AccountError):
    """The account is the last one that may administer the system."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is the last active administrator; make another one first")
        self.name = name


class AccountInUse(AccountError):
    """The account has repositories, which would lose their owner."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} has repositories; delete them first")
        self.name = name


class PasswordInvalid(AccountError):
    """Not good as a password."""


class UserSettingsInvalid(AccountError):
    """A user cannot choose that."""


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


class SessionUnknown(AccountError):
    """There is no such session, or it is over."""

    def __init__(self) -> None:
        super().__init__("the session is over; log in again")


class PublicKeyInvalid(AccountError):
    """Not a public key, or a certificate that is not one of this key."""


class PublicKeyTaken(AccountError):
    """The account has this key already."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the account has the key {key}")
        self.key = key


class PublicKeyUnknown(AccountError):
    """The account has no such key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the account has no key {key}")
        self.key = key


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
