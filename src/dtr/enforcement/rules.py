"""
What may be pulled: the rules, without I/O.

A policy belongs to a repository, to a namespace (all of its repositories) or to the registry. All that are there
for a repository are asked, and each has to agree: a narrower one adds to a wider one and never weakens it. What is
asked of a manifest, by each of them:

* it is signed: a collection of content trust in the repository has a target with its digest, or an artifact that
  is a signature of it was verified with a registered identity;
* if the policy names signers: at least one of them signed it;
* if the policy names teams: of each of them a member signed it, with a key that is registered as the member's. One
  person in all of the teams is enough, as it was for UCP's "run only the images you trust".

An index that is signed vouches for everything that it lists. Signatures and what else describes an image, and is
none itself, need no signature (`is_inert`).

A signer is written as ``KIND:NAME``:

* ``role:targets/releases``: a role of content trust. Whoever holds the repository's own keys decides who is in it;
* ``key:HEX``: a key of content trust, by the SHA-256 of its DER form (SubjectPublicKeyInfo), as in the accounts'
  public keys: nobody else can stand for it;
* ``identity:NAME``, ``identity:NAMESPACE/NAME``: an identity that is registered for signatures of cosign, Notation
  and others, for the whole registry or for a namespace, whose administrators decide which key it is.

An exception lets pass what a policy would refuse: a tag pattern (what those tags name at the moment of the pull),
a digest, or whatever an account pulls. It has a reason and an author, and may end by itself.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from msgspec import Struct, field

from dtr.enforcement.errors import EnforcementPolicyInvalid
from dtr.oci import Digest, DigestInvalid, DigestUnsupported, artifact_kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Mode: TypeAlias = Literal["off", "report", "enforce"]
"""What becomes of a pull that a policy does not agree with: nothing; it is told; it is refused and told."""
ExceptionKind: TypeAlias = Literal["tag", "digest", "account"]

_SIGNER = re.compile(
    r"role:targets(?:/[a-z0-9_.-]+)*|key:[0-9a-f]{64}|identity:[A-Za-z0-9][A-Za-z0-9 ._/-]{0,200}"
)
_TAG_PATTERN = re.compile(r"[A-Za-z0-9_*?][A-Za-z0-9._*?-]{0,127}")
_MOST_NAMED = 50
_LONGEST_SIGNER = 300
_LONGEST_REASON = 1_000
_LAST_MOMENT = 253_402_300_800_000
"""The year 10000, in milliseconds since 1970: no date is later."""
_EMPTY = "application/vnd.oci.empty.v1+json"
_DESCRIPTIONS = frozenset({"signature", "attestation", "sbom"})


class Scope(Struct, frozen=True):
    """Where a policy holds: in a repository, in the namespace of an account, or, with neither, everywhere."""

    repository: int | None = None
    namespace: str | None = None
    """Id of the account."""

    @property
    def key(self) -> str:
        """The scope as one text, by which its policy is kept."""
        number = self.namespace if self.repository is None else self.repository
        return self.kind if number is None else f"{self.kind}:{number}"

    @property
    def kind(self) -> Literal["repository", "namespace", "registry"]:
        """What it is the scope of."""
        if self.repository is not None:
            return "repository"
        return "namespace" if self.namespace is not None else "registry"


REGISTRY = Scope()
"""Everything."""


class Team(Struct, frozen=True):
    """A team whose members have to sign: its id, and ``ORGANIZATION/TEAM`` for people (empty: it is gone)."""

    id: str
    name: str = ""


class PolicyException(Struct, frozen=True, kw_only=True):
    """What a policy lets pass. Moments in milliseconds since 1970 UTC; `expires_at` None: it does not end."""

    id: str = ""
    kind: ExceptionKind
    value: str
    """A pattern of tags (``*`` is anything, ``?`` one character), a digest, or the id of an account."""
    reason: str
    author: str = ""
    """Name of the account that made it."""
    created_at: int = 0
    expires_at: int | None = None
    name: str = ""
    """What is called so for people: the name of the account (its id, when that is gone), or `value`."""

    def check(self, moment: int) -> None:
        """Raise EnforcementPolicyInvalid for what no exception can be that is made at a moment."""
        if self.kind not in get_args(ExceptionKind):
            raise EnforcementPolicyInvalid("an exception is of the kind tag, digest or account")
        if not self.reason.strip() or len(self.reason) > _LONGEST_REASON:
            raise EnforcementPolicyInvalid(f"an exception has a reason, of at most {_LONGEST_REASON} characters")
        if self.kind == "tag" and _TAG_PATTERN.fullmatch(self.value) is None:
            raise EnforcementPolicyInvalid(
                f"{self.value[:200]!r} is no pattern of tags: * is anything, ? one character"
            )
        if self.kind == "digest":
            try:
                Digest.parse(self.value)
            except (DigestInvalid, DigestUnsupported):
                raise EnforcementPolicyInvalid(f"{self.value[:200]!r} is no digest") from None
        if self.expires_at is not None and not moment < self.expires_at < _LAST_MOMENT:
            raise EnforcementPolicyInvalid("an exception ends later than now, or never")
        if self.kind == "account" and not self.value:
            raise EnforcementPolicyInvalid("the exception names no account")

    def holds(self, pull: Pull, found: Evidence) -> bool:
        """Whether it lets a pull pass."""
        if self.expires_at is not None and self.expires_at <= pull.moment:
            return False
        if self.kind == "account":
            return pull.account is not None and pull.account == self.value
        if self.kind == "digest":
            return self.value == pull.digest or self.value in found.indexes
        return any(fnmatchcase(tag, self.value) for tag in found.tags)


class Policy(Struct, frozen=True, kw_only=True):
    """What has to be signed, and by whom."""

    scope: Scope = REGISTRY
    mode: Mode = "off"
    signers: tuple[str, ...] = ()
    teams: tuple[Team, ...] = ()
    exceptions: tuple[PolicyException, ...] = ()

    def check(self) -> None:
        """Raise EnforcementPolicyInvalid for what no policy can be."""
        if self.mode not in get_args(Mode):
            raise EnforcementPolicyInvalid("the mode is off, report or enforce")
        if len(self.signers) > _MOST_NAMED or len(self.teams) > _MOST_NAMED:
            raise EnforcementPolicyInvalid(f"a policy names at most {_MOST_NAMED} signers and {_MOST_NAMED} teams")
        for signer in self.signers:
            if len(signer) > _LONGEST_SIGNER or _SIGNER.fullmatch(signer) is None:
                raise EnforcementPolicyInvalid(
                    f"{signer[:200]!r} is no signer: role:targets/NAME, key:SHA256 or identity:NAME is one"
                )

    @property
    def names_tags(self) -> bool:
        """Whether an exception asks for tags."""
        return any(one.kind == "tag" for one in self.exceptions)


class Pull(Struct, frozen=True, kw_only=True):
    """Somebody asks for a manifest: the id of the account (None: anonymous), and when, in milliseconds."""

    digest: str
    account: str | None = None
    moment: int = 0


class Evidence(Struct, frozen=True, kw_only=True):
    """What is known about a manifest in its repository."""

    signers: frozenset[str] = frozenset()
    """Who signed it, or an index that lists it; see the module for how they are written."""
    teams: frozenset[str] = frozenset()
    """Ids of those of the teams that were asked about of which a member signed it."""
    indexes: frozenset[str] = frozenset()
    """Digests of the indexes that list it."""
    tags: frozenset[str] = frozenset()
    """What names it, or an index that lists it; only known when an exception asks for tags."""
    is_inert: bool = False
    """It describes an image, and is none; see `is_inert`."""


MissingKind: TypeAlias = Literal["signature", "signer", "team"]
"""What can be missing: any signature; one by one of the signers that are named; one of each of the teams."""


class Missing(Struct, frozen=True):
    """A signature that a policy wants and that is not there; `names` are those of the signers or teams."""

    kind: MissingKind
    names: tuple[str, ...] = ()
    """Of a team that is gone: empty."""

    @property
    def text(self) -> str:
        """For people."""
        if self.kind == "signature":
            return "a signature of the image"
        if self.kind == "signer":
            return f"a signature by {' or '.join(self.names)}"
        named = [name or "(a team that is gone)" for name in self.names]
        return f"a signature by a member of {' and one by a member of '.join(named)}"


class Objection(Struct, frozen=True):
    """What a policy misses."""

    policy: Policy
    wants: tuple[Missing, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """It, as texts for people."""
        return tuple(one.text for one in self.wants)

    @property
    def text(self) -> str:
        """For whoever pulls."""
        return f"the policy of the {self.policy.scope.kind} wants {' and '.join(self.missing)}"


class Verdict(Struct, frozen=True):
    """What the policies say of a pull."""

    objections: tuple[Objection, ...] = ()
    exceptions: tuple[PolicyException, ...] = field(default=())
    """Those that let it pass where a policy misses something."""

    @property
    def refuses(self) -> bool:
        """Whether it must not be."""
        return any(one.policy.mode == "enforce" for one in self.objections)

    @property
    def text(self) -> str:
        """Why, for whoever pulls: what is enforced; with nothing of that, what is only reported."""
        enforced = [one for one in self.objections if one.policy.mode == "enforce"]
        return "; ".join(one.text for one in enforced or self.objections)


def decide(policies: Iterable[Policy], pull: Pull, found: Evidence) -> Verdict:
    """What the policies of a repository, of its namespace and of the registry say of a pull; see the module."""
    objections, passed = [], []
    for policy in policies:
        missing = () if policy.mode == "off" or found.is_inert else tuple(_missing(policy, found))
        if not missing:
            continue
        exception = next((one for one in policy.exceptions if one.holds(pull, found)), None)
        if exception is None:
            objections.append(Objection(policy, missing))
        else:
            passed.append(exception)
    return Verdict(tuple(objections), tuple(passed))


def _missing(policy: Policy, found: Evidence) -> Iterator[Missing]:
    if policy.signers:
        if found.signers.isdisjoint(policy.signers):
            yield Missing("signer", policy.signers)
    elif not found.signers and not policy.teams:
        yield Missing("signature")
    lacking = tuple(team.name for team in policy.teams if team.id not in found.teams)
    if lacking:
        yield Missing("team", lacking)


def is_inert(
    media_type: str, *, artifact_type: str | None, config: str | None, subject: str | None, is_signature: bool
) -> bool:
    """
    Whether a manifest describes an image, and no runtime would take it for one.

    What it says of itself is not enough: Docker runs whatever has an image's config, or one of no clear type,
    whatever the manifest refers to and however its layers are called. So its config has to be empty or that of a
    signature, an attestation or a bill of materials; cosign's older signatures, which have an image's config, have
    to be known as signatures by their content (`is_signature`). An index of referrers (OCI distribution
    specification 1.1, "Referrers Tag Schema") is no exception: what it lists can be pulled without it.
    """
    if is_signature:
        return True
    if config == _EMPTY:
        kind = artifact_kind(media_type, artifact_type=artifact_type)
        return subject is not None or kind in _DESCRIPTIONS
    return config is not None and artifact_kind(media_type, config=config) in _DESCRIPTIONS
