"""
May X do A on R? Rules without I/O.

What somebody may do follows from where access comes from:

* a system administrator may do everything;
* a user owns the namespace of the own name, the owners of an organisation own its namespace; owners have every
  right on the namespace's repositories;
* teams of an organisation are granted a level on one of its repositories, or on its whole namespace, present and
  future repositories included; the grant `admin` on a namespace also allows to make repositories in it;
* a public repository can be read by everybody.

Beyond DTR:

* single users, and robots of an organisation, are granted levels like teams: a personal namespace can be shared;
* an auditor sees everything that there is to be seen, and changes and pulls nothing by that;
* a token may be good for some repositories and actions only (`TokenScope`): then its holder may do what is in
  both, the account's rights and the scope, and what everybody may;
* a robot has the rights that it was granted in its organisation's namespace, and whatever it shows counts as a
  token with a scope: it manages nothing else.

Rights only add up: the highest level wins, nothing takes away. Whoever may do something anonymously may do it
logged in, too. A user who is not active is nobody.

Where DTR's documents are silent or disagree:

* anonymous clients may pull from public repositories, as the rule about visibility says;
* with create-on-push, whoever may make a repository in the namespace may do so by pushing, hence also a team with
  the grant `admin` on it: pushing is another way to do the same, and must need neither more nor less;
* the scan mode is one of the repository's settings and needs `admin`, as in DTR's API; `read-write` starts scans;
* deleting a manifest needs what deleting a tag does, as the clients of the registry do either;
* signing with content trust needs what pushing does; keys of the server are made anew, and collections deleted, by
  who administers the repository.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable


class Level(enum.IntEnum):
    """What a grant gives; each level includes those below."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        """DTR's word for it, as it is stored."""
        return _LABELS[self]

    @classmethod
    def of(cls, label: str | None) -> Level:
        """The level with this label; None is none. Raises ValueError."""
        if label is None:
            return cls.NONE
        for level, known in _LABELS.items():
            if known == label:
                return level
        raise ValueError(f"{label!r} is no level: read-only, read-write, admin")


_PATTERN = re.compile(r"[a-z0-9._/-]{1,255}|[a-z0-9._/-]{0,254}\*")
_MOST_PATTERNS = 100
_LONGEST_SCOPE = 2_000
_LABELS = {Level.NONE: "none", Level.READ: "read-only", Level.WRITE: "read-write", Level.ADMIN: "admin"}


class Facts(Struct, frozen=True, kw_only=True):
    """What the answer depends on, about one account and one repository (or only its namespace)."""

    is_user: bool = False
    """Logged in, and active."""
    is_system_admin: bool = False
    is_auditor: bool = False
    is_member: bool = False
    """Of the organisation that owns the namespace."""
    owns_namespace: bool = False
    repository_level: Level = Level.NONE
    namespace_level: Level = Level.NONE
    is_public: bool = False
    actions: frozenset[Action] | None = None
    """What the token that was shown is good for here; None: for everything."""

    @property
    def granted(self) -> Level:
        """The level on the repository, without what everybody has."""
        if self.is_system_admin or self.owns_namespace:
            return Level.ADMIN
        return max(self.repository_level, self.namespace_level)

    @property
    def level(self) -> Level:
        """The level on the repository."""
        return max(self.granted, Level.READ if self.is_public else Level.NONE)

    @property
    def manages_namespace(self) -> bool:
        """May make repositories in the namespace, and watch it as a whole."""
        return self.is_system_admin or self.owns_namespace or self.namespace_level is Level.ADMIN


class Action(enum.Enum):
    """What a token can be good for, on the repositories that it is good for."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    ADMIN = "admin"
    """The settings, grants, policies and webhooks of a repository, and its deletion."""


class Operation(enum.Enum):
    """Everything that is asked about."""

    SEE = enum.auto()
    PULL = enum.auto()
    SEE_TAGS = enum.auto()
    PUSH = enum.auto()
    START_SCAN = enum.auto()
    DELETE_TAG = enum.auto()
    DELETE_MANIFEST = enum.auto()
    CHANGE_SCAN_MODE = enum.auto()
    EDIT_DESCRIPTION = enum.auto()
    CHANGE_SETTINGS = enum.auto()
    MANAGE_TEAM_ACCESS = enum.auto()
    """What teams and users are granted on a repository."""
    SEE_TEAM_ACCESS = enum.auto()
    MANAGE_NAMESPACE_ACCESS = enum.auto()
    """What teams and users are granted on a namespace."""
    SEE_NAMESPACE_ACCESS = enum.auto()
    DELETE_REPOSITORY = enum.auto()
    CREATE_REPOSITORY = enum.auto()
    CREATE_ON_PUSH = enum.auto()
    LIST_POLICIES = enum.auto()
    EDIT_POLICIES = enum.auto()
    """Of a promotion policy: to make or change it on its source and on its target, to delete it on one of them."""
    PROMOTE_FROM = enum.auto()
    PROMOTE_TO = enum.auto()
    MIRROR_TAG = enum.auto()
    CHECK_REMOTE_REGISTRY = enum.auto()
    MANAGE_REMOTES = enum.auto()
    """Other registries, with credentials, that the policies of a namespace use."""
    USE_REMOTES = enum.auto()
    SEE_REMOTES = enum.auto()
    """Never their secrets."""
    MANAGE_SIGNING_IDENTITIES = enum.auto()
    """Whose signatures count in the repositories of a namespace."""
    MANAGE_REPOSITORY_WEBHOOKS = enum.auto()
    MANAGE_NAMESPACE_WEBHOOKS = enum.auto()
    MANAGE_GLOBAL_WEBHOOKS = enum.auto()
    SEE_EVENTS = enum.auto()
    """Push, scan, deletion of tags, creation."""
    SEE_ALL_EVENTS = enum.auto()
    """Pull, promotion, mirroring, too."""
    SEE_GLOBAL_EVENTS = enum.auto()
    MANAGE_TRUST = enum.auto()
    """Ask for new keys of the server for a collection of content trust, and delete it; to sign is to push."""
    SEE_TRUST_CHANGES = enum.auto()
    SEE_GLOBAL_TRUST_CHANGES = enum.auto()
    MANAGE_OWN_TOKENS = enum.auto()
    MANAGE_OTHERS_TOKENS = enum.auto()
    MANAGE_OWN_SETTINGS = enum.auto()
    SEE_CONTENT_CACHES = enum.auto()
    MANAGE_CONTENT_CACHES = enum.auto()
    HIDE_VULNERABILITY = enum.auto()
    ADMINISTER = enum.auto()
    """Jobs, crons, workers, settings, alerts, status of the cluster."""
    SEE_FEATURES = enum.auto()
    CREATE_ACCOUNTS = enum.auto()
    MANAGE_ORGANIZATION = enum.auto()
    SEE_SYSTEM = enum.auto()
    """What administrators decide, without deciding it: settings, alerts, jobs, status, all accounts' records."""
    SEE_ACCOUNTS = enum.auto()
    """Users, organisations and their public records."""


def may(facts: Facts, operation: Operation) -> bool:
    """Whether an account of which these facts hold may do it."""
    rule = _RULES[operation]
    everybody = Facts(is_public=facts.is_public)
    if not facts.is_user:
        return rule(everybody)
    if facts.actions is not None and _ACTIONS.get(operation) not in facts.actions:
        return rule(everybody)
    return rule(facts)


def _reads(facts: Facts) -> bool:
    return facts.level >= Level.READ


def _sees(facts: Facts) -> bool:
    return facts.level >= Level.READ or facts.is_auditor


def _writes(facts: Facts) -> bool:
    return facts.level >= Level.WRITE


def _administers(facts: Facts) -> bool:
    return facts.level >= Level.ADMIN


def _audits(facts: Facts) -> bool:
    return facts.is_system_admin or facts.is_auditor


def _administers_or_audits(facts: Facts) -> bool:
    return facts.level >= Level.ADMIN or facts.is_auditor


def _was_granted_reading(facts: Facts) -> bool:
    return facts.granted >= Level.READ


def _was_granted_seeing(facts: Facts) -> bool:
    return facts.granted >= Level.READ or facts.is_auditor


def _sees_as_user(facts: Facts) -> bool:
    return facts.is_user and _sees(facts)


def _is_user(facts: Facts) -> bool:
    return facts.is_user


def _is_system_admin(facts: Facts) -> bool:
    return facts.is_system_admin


def _manages_namespace(facts: Facts) -> bool:
    return facts.manages_namespace


def _manages_namespace_or_audits(facts: Facts) -> bool:
    return facts.manages_namespace or facts.is_auditor


def _sees_namespace(facts: Facts) -> bool:
    return facts.manages_namespace or facts.is_member or facts.is_auditor


def _owns_namespace(facts: Facts) -> bool:
    return facts.is_system_admin or facts.owns_namespace


_RULES: dict[Operation, Callable[[Facts], bool]] = {
    Operation.SEE: _sees,
    Operation.PULL: _reads,
    Operation.SEE_TAGS: _sees,
    Operation.PUSH: _writes,
    Operation.START_SCAN: _writes,
    Operation.DELETE_TAG: _writes,
    Operation.DELETE_MANIFEST: _writes,
    Operation.CHANGE_SCAN_MODE: _administers,
    Operation.EDIT_DESCRIPTION: _administers,
    Operation.CHANGE_SETTINGS: _administers,
    Operation.MANAGE_TEAM_ACCESS: _administers,
    Operation.SEE_TEAM_ACCESS: _administers_or_audits,
    Operation.MANAGE_NAMESPACE_ACCESS: _manages_namespace,
    Operation.SEE_NAMESPACE_ACCESS: _sees_namespace,
    Operation.DELETE_REPOSITORY: _administers,
    Operation.CREATE_REPOSITORY: _manages_namespace,
    Operation.CREATE_ON_PUSH: _manages_namespace,
    Operation.LIST_POLICIES: _was_granted_seeing,
    Operation.EDIT_POLICIES: _administers,
    Operation.PROMOTE_FROM: _was_granted_reading,
    Operation.PROMOTE_TO: _writes,
    Operation.MIRROR_TAG: _was_granted_reading,
    Operation.CHECK_REMOTE_REGISTRY: _is_user,
    Operation.MANAGE_REMOTES: _owns_namespace,
    Operation.USE_REMOTES: _manages_namespace,
    Operation.SEE_REMOTES: _manages_namespace_or_audits,
    Operation.MANAGE_SIGNING_IDENTITIES: _owns_namespace,
    Operation.MANAGE_REPOSITORY_WEBHOOKS: _administers,
    Operation.MANAGE_NAMESPACE_WEBHOOKS: _manages_namespace,
    Operation.MANAGE_GLOBAL_WEBHOOKS: _is_system_admin,
    Operation.SEE_EVENTS: _sees_as_user,
    Operation.SEE_ALL_EVENTS: _administers_or_audits,
    Operation.SEE_GLOBAL_EVENTS: _audits,
    Operation.MANAGE_TRUST: _administers,
    Operation.SEE_TRUST_CHANGES: _sees_as_user,
    Operation.SEE_GLOBAL_TRUST_CHANGES: _audits,
    Operation.MANAGE_OWN_TOKENS: _is_user,
    Operation.MANAGE_OTHERS_TOKENS: _is_system_admin,
    Operation.MANAGE_OWN_SETTINGS: _is_user,
    Operation.SEE_CONTENT_CACHES: _is_user,
    Operation.MANAGE_CONTENT_CACHES: _is_system_admin,
    Operation.HIDE_VULNERABILITY: _is_system_admin,
    Operation.ADMINISTER: _is_system_admin,
    Operation.SEE_FEATURES: _is_user,
    Operation.CREATE_ACCOUNTS: _is_system_admin,
    Operation.MANAGE_ORGANIZATION: _owns_namespace,
    Operation.SEE_SYSTEM: _audits,
    Operation.SEE_ACCOUNTS: _is_user,
}
# What a token must be good for; what is not here, no token with a scope is.
_ACTIONS = {
    Operation.SEE: Action.PULL,
    Operation.PULL: Action.PULL,
    Operation.SEE_TAGS: Action.PULL,
    Operation.SEE_EVENTS: Action.PULL,
    Operation.SEE_TRUST_CHANGES: Action.PULL,
    Operation.LIST_POLICIES: Action.PULL,
    Operation.PROMOTE_FROM: Action.PULL,
    Operation.MIRROR_TAG: Action.PULL,
    Operation.PUSH: Action.PUSH,
    Operation.START_SCAN: Action.PUSH,
    Operation.PROMOTE_TO: Action.PUSH,
    Operation.CREATE_ON_PUSH: Action.PUSH,
    Operation.DELETE_TAG: Action.DELETE,
    Operation.DELETE_MANIFEST: Action.DELETE,
    Operation.CHANGE_SCAN_MODE: Action.ADMIN,
    Operation.EDIT_DESCRIPTION: Action.ADMIN,
    Operation.CHANGE_SETTINGS: Action.ADMIN,
    Operation.MANAGE_TEAM_ACCESS: Action.ADMIN,
    Operation.SEE_TEAM_ACCESS: Action.ADMIN,
    Operation.MANAGE_NAMESPACE_ACCESS: Action.ADMIN,
    Operation.SEE_NAMESPACE_ACCESS: Action.ADMIN,
    Operation.DELETE_REPOSITORY: Action.ADMIN,
    Operation.CREATE_REPOSITORY: Action.ADMIN,
    Operation.EDIT_POLICIES: Action.ADMIN,
    Operation.MANAGE_TRUST: Action.ADMIN,
    Operation.MANAGE_REPOSITORY_WEBHOOKS: Action.ADMIN,
    Operation.SEE_ALL_EVENTS: Action.ADMIN,
}


class TokenScope(Struct, frozen=True):
    """
    What a token is good for: `actions`, on the repositories whose path a pattern of `repositories` matches.

    A pattern is a path (`acme/app`), or a beginning and a star (`acme/*`, `acme/ci-*`, `*`): such patterns a
    database can look for, too. Bearer tokens carry the scope of the log-in, which bounds its size.
    """

    repositories: tuple[str, ...]
    actions: frozenset[Action]

    def __post_init__(self) -> None:
        """Raise ValueError for a pattern that is none."""
        if not self.repositories or not self.actions:
            raise ValueError("a scope names repositories and actions")
        if sum(map(len, self.repositories)) > _LONGEST_SCOPE or len(self.repositories) > _MOST_PATTERNS:
            raise ValueError(
                f"a scope has at most {_MOST_PATTERNS} patterns of {_LONGEST_SCOPE} characters in all"
            )
        for pattern in self.repositories:
            if _PATTERN.fullmatch(pattern) is None:
                raise ValueError(f"{pattern!r} is no pattern: a repository, or a beginning and *")

    @classmethod
    def of(cls, document: dict[str, list[str]]) -> TokenScope:
        """The scope that `document` says. Raises ValueError."""
        return cls(tuple(document["repositories"]), frozenset(Action(one) for one in document["actions"]))

    @property
    def document(self) -> dict[str, list[str]]:
        """The scope as it is written into columns, bearer tokens and answers."""
        return {
            "repositories": list(self.repositories),
            "actions": [action.value for action in Action if action in self.actions],
        }

    @property
    def paths(self) -> list[str]:
        """The patterns that name one repository."""
        return [one for one in self.repositories if not one.endswith("*")]

    @property
    def prefixes(self) -> list[str]:
        """What the paths of the other patterns begin with."""
        return [one.removesuffix("*") for one in self.repositories if one.endswith("*")]

    def on(self, path: str) -> frozenset[Action]:
        """What it is good for on the repository at `path`."""
        matches = path in self.paths or any(path.startswith(one) for one in self.prefixes)
        return self.actions if matches else frozenset()
