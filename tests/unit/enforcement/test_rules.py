"""The rules of enforcement, against the words of their documentation."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dtr.enforcement.errors import EnforcementPolicyInvalid
from dtr.enforcement.rules import (
    Evidence,
    Policy,
    PolicyException,
    Pull,
    Scope,
    Team,
    decide,
    is_inert,
)

DIGEST, INDEX, OTHER = (f"sha256:{digit * 64}" for digit in "abc")
KEY = f"key:{'1' * 64}"
NOW = 1_800_000_000_000
PULL = Pull(digest=DIGEST, account="ann", moment=NOW)
DEV, SECURITY = Team("t1", "acme/dev"), Team("t2", "acme/security")
UNSIGNED = Evidence(indexes=frozenset({INDEX}), tags=frozenset({"dev-1", "latest"}))
SIGNED = replace(UNSIGNED, signers=frozenset({"role:targets", "role:targets/releases", KEY}))
ANY = Policy(mode="enforce")
OF_RELEASES = replace(ANY, signers=("role:targets/releases", "identity:x"))
OF_KEY = replace(ANY, signers=(f"key:{'2' * 64}",))
OF_TEAMS = replace(ANY, teams=(DEV, SECURITY))


def by(*teams: Team) -> Evidence:
    return replace(SIGNED, teams=frozenset(team.id for team in teams))


def refused(policy: Policy, found: Evidence, pull: Pull = PULL) -> bool:
    return decide([policy], pull, found).refuses


TABLE = [
    (ANY, UNSIGNED, True),
    (ANY, SIGNED, False),
    (ANY, replace(UNSIGNED, is_inert=True), False),
    (OF_RELEASES, UNSIGNED, True),
    (OF_RELEASES, SIGNED, False),
    (OF_RELEASES, replace(UNSIGNED, signers=frozenset({"identity:x"})), False),
    (OF_RELEASES, replace(UNSIGNED, signers=frozenset({"role:targets"})), True),
    (OF_KEY, SIGNED, True),
    (OF_TEAMS, UNSIGNED, True),
    (OF_TEAMS, by(), True),
    (OF_TEAMS, by(DEV), True),
    (OF_TEAMS, by(SECURITY), True),
    (OF_TEAMS, by(DEV, SECURITY), False),
    (replace(OF_TEAMS, signers=OF_KEY.signers), by(DEV, SECURITY), True),
    (replace(ANY, teams=(Team("gone"),)), by(DEV, SECURITY), True),
]


@pytest.mark.parametrize(("policy", "found", "refuses"), TABLE)
def test_what_a_policy_asks_for(policy: Policy, found: Evidence, refuses: bool):
    assert refused(policy, found) is refuses
    for mode in ("off", "report"):
        verdict = decide([replace(policy, mode=mode)], PULL, found)
        assert not verdict.refuses
        assert bool(verdict.objections) is (mode == "report" and refuses)


EXCEPTIONS = [
    (PolicyException(kind="tag", value="dev-*", reason="r"), PULL, True),
    (PolicyException(kind="tag", value="dev", reason="r"), PULL, False),
    (PolicyException(kind="tag", value="DEV-*", reason="r"), PULL, False),
    (PolicyException(kind="digest", value=DIGEST, reason="r"), PULL, True),
    (PolicyException(kind="digest", value=INDEX, reason="r"), PULL, True),
    (PolicyException(kind="digest", value=OTHER, reason="r"), PULL, False),
    (PolicyException(kind="account", value="ann", reason="r"), PULL, True),
    (PolicyException(kind="account", value="bob", reason="r"), PULL, False),
    (PolicyException(kind="account", value="ann", reason="r"), replace(PULL, account=None), False),
    (PolicyException(kind="digest", value=DIGEST, reason="r", expires_at=NOW + 1), PULL, True),
    (PolicyException(kind="digest", value=DIGEST, reason="r", expires_at=NOW), PULL, False),
]


@pytest.mark.parametrize(("exception", "pull", "holds"), EXCEPTIONS)
def test_what_an_exception_lets_pass(exception: PolicyException, pull: Pull, holds: bool):
    exception.check(0)
    verdict = decide([replace(ANY, exceptions=(exception,))], pull, UNSIGNED)
    assert verdict.refuses is not holds
    assert verdict.exceptions == ((exception,) if holds else ())


def test_an_exception_of_one_policy_is_none_of_another():
    exception = PolicyException(kind="digest", value=DIGEST, reason="r")
    narrow = Policy(scope=Scope(repository=1), mode="enforce", exceptions=(exception,))
    assert not decide([narrow], PULL, UNSIGNED).refuses
    verdict = decide([ANY, narrow], PULL, UNSIGNED)
    assert [one.policy for one in verdict.objections] == [ANY]


policies = st.builds(
    Policy,
    mode=st.sampled_from(["off", "report", "enforce"]),
    signers=st.lists(st.sampled_from(["role:targets", KEY, "identity:x"]), max_size=2).map(tuple),
    teams=st.lists(st.sampled_from([DEV, SECURITY]), max_size=2).map(tuple),
)
evidence = st.builds(
    Evidence,
    signers=st.frozensets(st.sampled_from(["role:targets", KEY, "identity:x"])),
    teams=st.frozensets(st.sampled_from(["t1", "t2"])),
)


@settings(max_examples=300)
@given(st.lists(policies, max_size=3), policies, evidence)
def test_another_policy_never_weakens_and_another_signature_never_harms(
    some: list[Policy], more: Policy, found: Evidence
):
    before, after = decide(some, PULL, found), decide([*some, more], PULL, found)
    assert after.refuses >= before.refuses
    assert after.refuses == (before.refuses or decide([more], PULL, found).refuses)
    richer = replace(found, signers=found.signers | {"role:targets"}, teams=found.teams | {"t1"})
    assert decide(some, PULL, richer).refuses <= before.refuses


def test_the_text_says_which_policy_and_what_is_missing():
    both = decide([OF_RELEASES, replace(OF_TEAMS, scope=Scope(repository=7))], PULL, by(SECURITY))
    assert both.text == "the policy of the repository wants a signature by a member of acme/dev"
    wide = decide([replace(OF_KEY, scope=Scope(namespace="x"))], PULL, UNSIGNED)
    assert wide.text == f"the policy of the namespace wants a signature by key:{'2' * 64}"
    assert decide([ANY], PULL, UNSIGNED).text == "the policy of the registry wants a signature of the image"
    reported = decide([replace(OF_KEY, mode="report"), ANY], PULL, UNSIGNED)
    assert reported.text == "the policy of the registry wants a signature of the image"


@pytest.mark.parametrize(
    "broken",
    [
        Policy(mode="on"),  # type: ignore[arg-type]
        Policy(signers=("targets",)),
        Policy(signers=("role:root",)),
        Policy(signers=("role:targets/" + "x" * 300,)),
        Policy(signers=("key:abc",)),
        Policy(signers=("identity:",)),
        Policy(signers=("role:targets",) * 51),
        Policy(teams=(DEV,) * 51),
        PolicyException(kind="tag", value="", reason="r"),
        PolicyException(kind="tag", value="a:b", reason="r"),
        PolicyException(kind="digest", value="sha256:abc", reason="r"),
        PolicyException(kind="account", value="", reason="r"),
        PolicyException(kind="tag", value="*", reason=" "),
        PolicyException(kind="tag", value="*", reason="r", expires_at=NOW),
        PolicyException(kind="tag", value="*", reason="r", expires_at=1 << 62),
        PolicyException(kind="tag", value="*", reason="r" * 1001),
        PolicyException(kind="else", value="*", reason="r"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_refused(broken: Policy | PolicyException):
    with pytest.raises(EnforcementPolicyInvalid):
        broken.check(NOW) if isinstance(broken, PolicyException) else broken.check()


MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE = "application/vnd.oci.image.config.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
NOTATION = "application/vnd.cncf.notary.signature"


@pytest.mark.parametrize(
    ("artifact_type", "config", "subject", "inert"),
    [
        (NOTATION, EMPTY, DIGEST, True),
        (None, NOTATION, DIGEST, True),
        ("application/vnd.dev.sigstore.bundle.v0.3+json", EMPTY, DIGEST, True),
        ("application/vnd.example.report", EMPTY, DIGEST, True),
        ("application/spdx+json", EMPTY, None, True),
        ("application/vnd.example.app", EMPTY, None, False),
        # What Docker runs, whatever else is said of it.
        (None, IMAGE, None, False),
        (None, IMAGE, DIGEST, False),
        (NOTATION, IMAGE, DIGEST, False),
        (NOTATION, "application/octet-stream", DIGEST, False),
        (NOTATION, "", DIGEST, False),
        (NOTATION, None, DIGEST, False),
        # What other runtimes run.
        (None, "application/vnd.wasm.config.v0+json", DIGEST, False),
        (None, "application/vnd.cncf.helm.config.v1+json", None, False),
    ],
)
def test_what_describes_an_image_is_known_by_what_no_runtime_takes(
    artifact_type: str | None, config: str | None, subject: str | None, inert: bool
):
    for media_type, known in itertools.product([MANIFEST], [False, True]):
        found = is_inert(
            media_type, artifact_type=artifact_type, config=config, subject=subject, is_signature=known
        )
        assert found is (inert or known)
