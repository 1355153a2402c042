"""
What is moved from one registry to another: accounts, what they are members of, repositories, and grants.

Robots, tokens and passwords do not move: what opens an account is known to nobody but its owner. (A file may give
new users a password.) A field that is None is not known: what is there stays as it is.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dtr.accounts import AccountNameInvalid, Level, check_name
from dtr.oci import NameInvalid, parse_repository_name
from dtr.registry import InvalidSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Somebody who logs in."""

    name: str
    full_name: str | None = None
    is_admin: bool | None = None
    is_auditor: bool | None = None
    is_active: bool | None = None
    password: str | None = field(default=None, repr=False, compare=False)
    """For a user who is not there yet; nobody can say what the others have."""

    @property
    def key(self) -> Hashable:
        """What there is one of."""
        return self.name

    def __str__(self) -> str:
        return f"user {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """An organisation."""

    name: str
    full_name: str | None = None

    @property
    def key(self) -> Hashable:
        """What there is one of."""
        return self.name

    def __str__(self) -> str:
        return f"organization {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """A team."""

    organization: str
    name: str
    description: str | None = None

    @property
    def key(self) -> Hashable:
        """What there is one of."""
        return self.organization, self.name

    def __str__(self) -> str:
        return f"team {self.organization}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user in a team, or (`team` empty) in an organisation. `is_admin`: edits that, or owns it."""

    organization: str
    team: str = ""
    user: str
    is_admin: bool | None = None

    @property
    def key(self) -> Hashable:
        """What there is one of."""
        return self.organization, self.team, self.user

    def __str__(self) -> str:
        return f"{self.user} in {'/'.join(filter(None, (self.organization, self.team)))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository, without what is in it."""

    path: str
    visibility: str | None = None
    short_description: str | None = None
    long_description: str | None = None
    immutable_tags: bool | None = None
    immutable_patterns: tuple[str, ...] | None = None
    tag_limit: int | None = None
    scan_on_push: bool | None = None

    @property
    def key(self) -> Hashable:
        """What there is one of."""
        return self.path

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that are known."""
        return {name: value for name, value in _fields(self) if name != "path" and value is not None}

    def __str__(self) -> str:
        return f"repository {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A level for `who`, a user or ``ORGANIZATION/TEAM``, `on` a repository or a namespace."""

    on: str
    who: str
    level: str

    @property
    def key(self) -> Hashable:
        """What there is one of."""
        return self.on, self.who

    def __str__(self) -> str:
        return f"grant on {self.on} to {self.who}"


Item: TypeAlias = User | Organization | Team | Member | Repository | Grant
KINDS: tuple[type[Item], ...] = (User, Organization, Team, Member, Repository, Grant)
"""In an order in which they can be made: each needs only those before."""
PLURALS: dict[type[Item], str] = {
    User: "users",
    Organization: "organizations",
    Team: "teams",
    Member: "members",
    Repository: "repositories",
    Grant: "grants",
}


@dataclass(frozen=True, slots=True)
class Change:
    """Something to do: to make `after`, or to change `before` into it."""

    before: Item | None
    after: Item

    @property
    def action(self) -> Literal["make", "change"]:
        """Which of both."""
        return "change" if self.before else "make"

    @property
    def differences(self) -> list[str]:
        """The fields that change."""
        if self.before is None:
            return []
        before = dict(_fields(self.before))
        return [name for name, value in _fields(self.after) if value != before[name] and name != "password"]

    def __str__(self) -> str:
        changed = f": {', '.join(name.replace('_', ' ') for name in self.differences)}" if self.before else ""
        return f"{self.action} {self.after}{changed}"


class Content:
    """Items of all kinds, and where each was read."""

    def __init__(self) -> None:
        self.items: dict[type[Item], dict[Hashable, Item]] = {kind: {} for kind in KINDS}
        self.problems: list[str] = []
        """What could not be taken, and why: ``users.csv, line 3: …``."""
        self._places: dict[tuple[type[Item], Hashable], str] = {}

    def __iter__(self) -> Iterator[Item]:
        for kind in KINDS:
            yield from self.items[kind].values()

    def has(self, kind: type[Item], key: Hashable) -> bool:
        """Whether there is such an item."""
        return key in self.items[kind]

    def put(self, item: Item) -> None:
        """Take an item as it is, in place of the one with its key."""
        self.items[type(item)][item.key] = item

    def add(self, item: Item, place: str = "") -> None:
        """Take an item that was read at `place`; what is wrong with it becomes a problem."""
        kind = type(item)
        wrong = _wrong(item)
        first = self._places.get((kind, item.key))
        if wrong is None and first is not None:
            wrong = f"{item} was there before, in {first}" if first else f"{item} was there before"
        if wrong is not None:
            self.problems.append(f"{place}: {wrong}" if place else wrong)
            return
        self.put(item)
        self._places[kind, item.key] = place

    def settle(self, current: Content) -> None:
        """
        Take out what cannot be made, because it needs what is neither here nor in `current`.

        Each becomes a problem, and so what needs it in turn.
        """
        for kind in KINDS:
            for key, item in list(self.items[kind].items()):
                missing = self._missing(item, current)
                if missing:
                    place = self._places[kind, key]
                    self.problems.append(f"{place}: {missing}" if place else f"{item}: {missing}")
                    del self.items[kind][key]

    def _missing(self, item: Item, current: Content) -> str | None:
        def known(kind: type[Item], key: Hashable) -> bool:
            return self.has(kind, key) or current.has(kind, key)

        match item:
            case User(name=name) if known(Organization, name):
                return f"there is an organization {name}, which cannot be a user, too"
            case Organization(name=name) if known(User, name):
                return f"there is a user {name}, who cannot be an organization, too"
            case Team(organization=name) | Member(organization=name) if not known(Organization, name):
                return f"there is no organization {name}"
            case Member(user=name) if not known(User, name):
                return f"there is no user {name}"
            case Member(organization=organization, team=team) if team and not known(Team, (organization, team)):
                return f"there is no team {organization}/{team}"
            case Repository(path=path):
                namespace = path.partition("/")[0]
                if not (known(User, namespace) or known(Organization, namespace)):
                    return f"there is no user or organization {namespace}"
            case Grant(on=on, who=who):
                namespace, _, name = on.partition("/")
                organization, _, team = who.partition("/")
                if name and not known(Repository, on):
                    return f"there is no repository {on}"
                if not (known(User, namespace) or known(Organization, namespace)):
                    return f"there is no user or organization {namespace}"
                if team and not known(Team, (organization, team)):
                    return f"there is no team {who}"
                if team and organization != namespace:
                    return f"{who} can be granted something in {organization} only, where it belongs"
                if not team and not known(User, who):
                    return f"there is no user {who}"
        return None


def changes(current: Content, wanted: Content) -> Iterator[Change]:
    """What has to be done so that `current` has all that is `wanted`; nothing goes, and nothing is done twice."""
    for item in wanted:
        before = current.items[type(item)].get(item.key)
        if before is None:
            yield Change(None, item)
            continue
        after = _over(before, item)
        if after != before:
            yield Change(before, after)


def _over(before: Item, item: Item) -> Item:
    """`before`, with what is known of `item`."""
    known = {name: value for name, value in _fields(item) if value is not None}
    return dataclasses.replace(before, **known)


def _fields(item: Item) -> list[tuple[str, Any]]:
    return [(one.name, getattr(item, one.name)) for one in dataclasses.fields(item)]


def _wrong(item: Item) -> str | None:
    """What is wrong with an item by itself."""
    try:
        match item:
            case User(name=name) | Organization(name=name):
                check_name(name)
            case Team(organization=organization, name=name):
                check_name(organization)
                check_name(name)
            case Repository(path=path):
                parse_repository_name(path)
                if "/" not in path:
                    return f"{item}: a repository is NAMESPACE/NAME"
                Settings(**item.settings).check()
            case Grant(level=level):
                Level.of(level)
            case Member():
                pass
    except AccountNameInvalid as error:
        return f"{item} cannot be called so: {error}"
    except (NameInvalid, InvalidSettings, ValueError) as error:
        return f"{item}: {error}"
    return None
