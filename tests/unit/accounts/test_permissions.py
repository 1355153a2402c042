"""The permission model, compared with DTR's published matrix."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dtr.accounts import Action, Facts, Level, Operation, TokenScope, may

# Columns: An anonymous; Au logged in, without grants; M a member of the organization, without grants; V auditor,
# without grants; R, RW, A read-only, read-write, admin on the repository, by a grant on it or on its namespace; NA
# admin by a grant on the namespace; O owner of the namespace, also of the personal one; S system administrator.
# x: yes; pub: when the repository is public; empty: no. Events are for users who see the repository.
MATRIX = """
| Operation                                      | An  | Au  | M   | V   | R | RW | A | NA | O | S |
|------------------------------------------------|-----|-----|-----|-----|---|----|---|----|---|---|
| See, browse, search the repository             | pub | pub | pub | x   | x | x  | x | x  | x | x |
| Pull                                           | pub | pub | pub | pub | x | x  | x | x  | x | x |
| See tags, manifests, scan results              | pub | pub | pub | x   | x | x  | x | x  | x | x |
| Push                                           |     |     |     |     |   | x  | x | x  | x | x |
| Start a scan                                   |     |     |     |     |   | x  | x | x  | x | x |
| Delete a tag                                   |     |     |     |     |   | x  | x | x  | x | x |
| Delete a manifest                              |     |     |     |     |   | x  | x | x  | x | x |
| Change the scan mode                           |     |     |     |     |   |    | x | x  | x | x |
| Edit descriptions                              |     |     |     |     |   |    | x | x  | x | x |
| Set visibility, immutability, tag limit        |     |     |     |     |   |    | x | x  | x | x |
| Manage team access of the repository           |     |     |     |     |   |    | x | x  | x | x |
| See team access of the repository              |     |     |     | x   |   |    | x | x  | x | x |
| Manage team access of the namespace            |     |     |     |     |   |    |   | x  | x | x |
| See team access of the namespace               |     |     | x   | x   |   |    |   | x  | x | x |
| Delete the repository                          |     |     |     |     |   |    | x | x  | x | x |
| Create a repository in the namespace           |     |     |     |     |   |    |   | x  | x | x |
| Create on push                                 |     |     |     |     |   |    |   | x  | x | x |
| Promotion policy: list                         |     |     |     | x   | x | x  | x | x  | x | x |
| Promotion policy: create, edit, delete         |     |     |     |     |   |    | x | x  | x | x |
| Manual promotion of a tag: source              |     |     |     |     | x | x  | x | x  | x | x |
| Manual promotion of a tag: target              |     |     |     |     |   | x  | x | x  | x | x |
| Mirroring policy: list                         |     |     |     | x   | x | x  | x | x  | x | x |
| Mirroring policy: create, edit, delete         |     |     |     |     |   |    | x | x  | x | x |
| Manual push-mirror of a tag                    |     |     |     |     | x | x  | x | x  | x | x |
| Check a remote registry                        |     | x   | x   | x   | x | x  | x | x  | x | x |
| Remotes of the namespace: use                  |     |     |     |     |   |    |   | x  | x | x |
| Remotes of the namespace: see                  |     |     |     | x   |   |    |   | x  | x | x |
| Remotes of the namespace: manage               |     |     |     |     |   |    |   |    | x | x |
| Signing identities of the namespace: manage    |     |     |     |     |   |    |   |    | x | x |
| Pruning policy: list                           |     |     |     | x   | x | x  | x | x  | x | x |
| Pruning policy: create, edit, delete, test     |     |     |     |     |   |    | x | x  | x | x |
| Webhooks on a repository                       |     |     |     |     |   |    | x | x  | x | x |
| Webhooks on a namespace                        |     |     |     |     |   |    |   | x  | x | x |
| Global webhooks                                |     |     |     |     |   |    |   |    |   | x |
| Events: push, scan, tag delete, repo create    |     | pub | pub | x   | x | x  | x | x  | x | x |
| Events: pull, promotion, mirror                |     |     |     | x   |   |    | x | x  | x | x |
| Global events                                  |     |     |     | x   |   |    |   |    |   | x |
| Trust: new keys, delete the collection         |     |     |     |     |   |    | x | x  | x | x |
| Trust changes of one repository                |     | pub | pub | x   | x | x  | x | x  | x | x |
| Trust changes of all repositories              |     |     |     | x   |   |    |   |    |   | x |
| Own access tokens                              |     | x   | x   | x   | x | x  | x | x  | x | x |
| Access tokens of other users                   |     |     |     |     |   |    |   |    |   | x |
| Own settings                                   |     | x   | x   | x   | x | x  | x | x  | x | x |
| List and read content caches                   |     | x   | x   | x   | x | x  | x | x  | x | x |
| Create and delete content caches               |     |     |     |     |   |    |   |    |   | x |
| Hide a vulnerability                           |     |     |     |     |   |    |   |    |   | x |
| Jobs, crons, workers, settings, cluster status |     |     |     |     |   |    |   |    |   | x |
| Features                                       |     | x   | x   | x   | x | x  | x | x  | x | x |
| Create users and organizations                 |     |     |     |     |   |    |   |    |   | x |
| Manage organization members, teams             |     |     |     |     |   |    |   |    | x | x |
| See what administrators decide                 |     |     |     | x   |   |    |   |    |   | x |
| See accounts                                   |     | x   | x   | x   | x | x  | x | x  | x | x |
"""
OPERATIONS = {
    "See, browse, search the repository": Operation.SEE,
    "Pull": Operation.PULL,
    "See tags, manifests, scan results": Operation.SEE_TAGS,
    "Push": Operation.PUSH,
    "Start a scan": Operation.START_SCAN,
    "Delete a tag": Operation.DELETE_TAG,
    "Delete a manifest": Operation.DELETE_MANIFEST,
    "Change the scan mode": Operation.CHANGE_SCAN_MODE,
    "Edit descriptions": Operation.EDIT_DESCRIPTION,
    "Set visibility, immutability, tag limit": Operation.CHANGE_SETTINGS,
    "Manage team access of the repository": Operation.MANAGE_TEAM_ACCESS,
    "See team access of the repository": Operation.SEE_TEAM_ACCESS,
    "Manage team access of the namespace": Operation.MANAGE_NAMESPACE_ACCESS,
    "See team access of the namespace": Operation.SEE_NAMESPACE_ACCESS,
    "Delete the repository": Operation.DELETE_REPOSITORY,
    "Create a repository in the namespace": Operation.CREATE_REPOSITORY,
    "Create on push": Operation.CREATE_ON_PUSH,
    "Promotion policy: list": Operation.LIST_POLICIES,
    "Promotion policy: create, edit, delete": Operation.EDIT_POLICIES,
    "Manual promotion of a tag: source": Operation.PROMOTE_FROM,
    "Manual promotion of a tag: target": Operation.PROMOTE_TO,
    "Mirroring policy: list": Operation.LIST_POLICIES,
    "Mirroring policy: create, edit, delete": Operation.EDIT_POLICIES,
    "Manual push-mirror of a tag": Operation.MIRROR_TAG,
    "Check a remote registry": Operation.CHECK_REMOTE_REGISTRY,
    "Remotes of the namespace: use": Operation.USE_REMOTES,
    "Remotes of the namespace: see": Operation.SEE_REMOTES,
    "Remotes of the namespace: manage": Operation.MANAGE_REMOTES,
    "Signing identities of the namespace: manage": Operation.MANAGE_SIGNING_IDENTITIES,
    "Pruning policy: list": Operation.LIST_POLICIES,
    "Pruning policy: create, edit, delete, test": Operation.EDIT_POLICIES,
    "Webhooks on a repository": Operation.MANAGE_REPOSITORY_WEBHOOKS,
    "Webhooks on a namespace": Operation.MANAGE_NAMESPACE_WEBHOOKS,
    "Global webhooks": Operation.MANAGE_GLOBAL_WEBHOOKS,
    "Events: push, scan, tag delete, repo create": Operation.SEE_EVENTS,
    "Events: pull, promotion, mirror": Operation.SEE_ALL_EVENTS,
    "Global events": Operation.SEE_GLOBAL_EVENTS,
    "Trust: new keys, delete the collection": Operation.MANAGE_TRUST,
    "Trust changes of one repository": Operation.SEE_TRUST_CHANGES,
    "Trust changes of all repositories": Operation.SEE_GLOBAL_TRUST_CHANGES,
    "Own access tokens": Operation.MANAGE_OWN_TOKENS,
    "Access tokens of other users": Operation.MANAGE_OTHERS_TOKENS,
    "Own settings": Operation.MANAGE_OWN_SETTINGS,
    "List and read content caches": Operation.SEE_CONTENT_CACHES,
    "Create and delete content caches": Operation.MANAGE_CONTENT_CACHES,
    "Hide a vulnerability": Operation.HIDE_VULNERABILITY,
    "Jobs, crons, workers, settings, cluster status": Operation.ADMINISTER,
    "Features": Operation.SEE_FEATURES,
    "Create users and organizations": Operation.CREATE_ACCOUNTS,
    "Manage organization members, teams": Operation.MANAGE_ORGANIZATION,
    "See what administrators decide": Operation.SEE_SYSTEM,
    "See accounts": Operation.SEE_ACCOUNTS,
}
# Who is in a column: R, RW and A come from a grant on the repository or from one on its namespace, but for `admin`
# on the namespace, which is the column NA.
COLUMNS = {
    "An": [{}],
    "Au": [{"is_user": True}],
    "M": [{"is_user": True, "is_member": True}],
    "V": [{"is_user": True, "is_auditor": True}],
    "R": [
        {"is_user": True, "repository_level": Level.READ},
        {"is_user": True, "namespace_level": Level.READ},
    ],
    "RW": [
        {"is_user": True, "repository_level": Level.WRITE},
        {"is_user": True, "namespace_level": Level.WRITE},
        {"is_user": True, "repository_level": Level.READ, "namespace_level": Level.WRITE},
        {"is_user": True, "repository_level": Level.WRITE, "namespace_level": Level.READ},
    ],
    "A": [
        {"is_user": True, "repository_level": Level.ADMIN},
        {"is_user": True, "repository_level": Level.ADMIN, "namespace_level": Level.WRITE},
    ],
    "NA": [{"is_user": True, "namespace_level": Level.ADMIN}],
    "O": [{"is_user": True, "owns_namespace": True}],
    "S": [{"is_user": True, "is_system_admin": True}],
}


def cells() -> list[tuple[str, str, str]]:
    """Operation, column, and what stands there."""
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in MATRIX.strip().splitlines()
    ]
    return [(row[0], column, cell) for row in rows for column, cell in zip(header[1:], row[1:], strict=True)]


def test_the_matrix_covers_every_operation_and_every_column():
    assert {OPERATIONS[row] for row, _, _ in cells()} == set(Operation)
    assert {column for _, column, _ in cells()} == set(COLUMNS)
    assert {cell for _, _, cell in cells()} == {"", "x", "pub"}


@pytest.mark.parametrize("is_public", [False, True], ids=["private", "public"])
@pytest.mark.parametrize(("row", "column", "cell"), cells())
def test_the_rule_is_the_matrix(row: str, column: str, cell: str, is_public: bool):
    expected = cell == "x" or (cell == "pub" and is_public)
    for who in COLUMNS[column]:
        assert may(Facts(**who, is_public=is_public), OPERATIONS[row]) is expected, who


levels = st.sampled_from(list(Level))
facts = st.builds(
    Facts,
    is_user=st.just(True),
    is_system_admin=st.booleans(),
    is_auditor=st.booleans(),
    is_member=st.booleans(),
    owns_namespace=st.booleans(),
    repository_level=levels,
    namespace_level=levels,
    is_public=st.booleans(),
)
actions = st.frozensets(st.sampled_from(list(Action)))


def rights(who: Facts) -> set[Operation]:
    return {operation for operation in Operation if may(who, operation)}


@given(facts, facts)
@settings(max_examples=300, deadline=None)
def test_rights_add_up_and_nothing_takes_away(one: Facts, other: Facts):
    both = Facts(
        is_user=True,
        is_system_admin=one.is_system_admin or other.is_system_admin,
        is_auditor=one.is_auditor or other.is_auditor,
        is_member=one.is_member or other.is_member,
        owns_namespace=one.owns_namespace or other.owns_namespace,
        repository_level=max(one.repository_level, other.repository_level),
        namespace_level=max(one.namespace_level, other.namespace_level),
        is_public=one.is_public or other.is_public,
    )
    assert rights(one) | rights(other) <= rights(both)
    assert both.level == max(one.level, other.level)


@given(facts)
@settings(max_examples=300, deadline=None)
def test_whoever_may_do_it_anonymously_may_do_it_logged_in(who: Facts):
    assert rights(Facts(is_public=who.is_public)) <= rights(who)


@given(facts)
@settings(max_examples=300, deadline=None)
def test_who_is_not_active_is_nobody_whatever_else_holds(who: Facts):
    assert rights(replace(who, is_user=False)) == rights(Facts(is_public=who.is_public))


def test_each_level_includes_those_below():
    for source in ("repository_level", "namespace_level"):
        for low, high in itertools.pairwise(Level):
            assert rights(Facts(is_user=True, **{source: low})) < rights(Facts(is_user=True, **{source: high}))


def test_a_member_without_a_grant_has_on_repositories_what_everybody_has():
    more = rights(Facts(is_user=True, is_member=True)) - rights(Facts(is_user=True))
    assert more == {Operation.SEE_NAMESPACE_ACCESS}
    assert Operation.PULL not in rights(Facts(is_user=True, is_member=True))


@given(facts)
@settings(max_examples=300, deadline=None)
def test_an_auditor_has_no_right_more_than_others_to_change_or_pull(who: Facts):
    sees = {
        Operation.SEE,
        Operation.SEE_TAGS,
        Operation.LIST_POLICIES,
        Operation.SEE_EVENTS,
        Operation.SEE_ALL_EVENTS,
        Operation.SEE_GLOBAL_EVENTS,
        Operation.SEE_TRUST_CHANGES,
        Operation.SEE_GLOBAL_TRUST_CHANGES,
        Operation.SEE_SYSTEM,
        Operation.SEE_REMOTES,
        Operation.SEE_TEAM_ACCESS,
        Operation.SEE_NAMESPACE_ACCESS,
    }
    assert rights(replace(who, is_auditor=True)) == rights(replace(who, is_auditor=False)) | sees


# --- tokens that are good for a part ---------------------------------------------------------------------------

GOOD_FOR = {
    Action.PULL: {
        Operation.SEE,
        Operation.PULL,
        Operation.SEE_TAGS,
        Operation.SEE_EVENTS,
        Operation.SEE_TRUST_CHANGES,
        Operation.LIST_POLICIES,
        Operation.PROMOTE_FROM,
        Operation.MIRROR_TAG,
    },
    Action.PUSH: {Operation.PUSH, Operation.START_SCAN, Operation.PROMOTE_TO, Operation.CREATE_ON_PUSH},
    Action.DELETE: {Operation.DELETE_TAG, Operation.DELETE_MANIFEST},
    Action.ADMIN: {
        Operation.CHANGE_SCAN_MODE,
        Operation.EDIT_DESCRIPTION,
        Operation.CHANGE_SETTINGS,
        Operation.MANAGE_TEAM_ACCESS,
        Operation.SEE_TEAM_ACCESS,
        Operation.MANAGE_NAMESPACE_ACCESS,
        Operation.SEE_NAMESPACE_ACCESS,
        Operation.DELETE_REPOSITORY,
        Operation.CREATE_REPOSITORY,
        Operation.MANAGE_TRUST,
        Operation.EDIT_POLICIES,
        Operation.MANAGE_REPOSITORY_WEBHOOKS,
        Operation.SEE_ALL_EVENTS,
    },
}
"""What an action allows to whom the account's rights allow it; nothing else does any token with a scope."""


@given(facts, actions)
@settings(max_examples=500, deadline=None)
def test_a_scope_only_takes_rights_away_and_none_that_everybody_has(who: Facts, good_for: frozenset[Action]):
    everybody = rights(Facts(is_public=who.is_public))
    within = set().union(*(GOOD_FOR[action] for action in good_for))
    assert rights(replace(who, actions=good_for)) == (rights(who) & within) | everybody


@given(facts, actions, actions)
@settings(max_examples=300, deadline=None)
def test_a_wider_scope_leaves_more(who: Facts, one: frozenset[Action], other: frozenset[Action]):
    both = rights(replace(who, actions=one | other))
    assert both == rights(replace(who, actions=one)) | rights(replace(who, actions=other))


def test_a_scope_is_good_for_its_actions_on_what_its_patterns_match():
    scope = TokenScope(("acme/app", "acme/ci-*", "tools/*"), frozenset({Action.PULL, Action.PUSH}))
    for path in ("acme/app", "acme/ci-", "acme/ci-1", "acme/ci-1/deep", "tools/x", "tools/"):
        assert scope.on(path) == {Action.PULL, Action.PUSH}, path
    for path in ("acme", "acme/", "acme/app2", "acme/ap", "acme/app/x", "acme/c", "tools", "tool/x", ""):
        assert scope.on(path) == frozenset(), path
    assert TokenScope(("*",), frozenset({Action.PULL})).on("what/ever") == {Action.PULL}


@pytest.mark.parametrize(
    "patterns",
    [
        (), ("",), ("**",), ("*/app",), ("acme/*/x",), ("ACME/*",), ("acme/a b",), ("acme/%",), ("a" * 256,),
        ("acme/app\n",), ("acme/?",), tuple(f"acme/{number}" for number in range(101)),
        tuple(f"acme/{number}{'x' * 240}" for number in range(9)),
    ],
)  # fmt: skip
def test_what_is_no_scope_is_refused(patterns: tuple[str, ...]):
    with pytest.raises(ValueError, match=r"pattern|names repositories"):
        TokenScope(patterns, frozenset({Action.PULL}))
    with pytest.raises(ValueError, match="names repositories and actions"):
        TokenScope(("acme/*",), frozenset())


@given(
    st.lists(st.from_regex(r"[a-z0-9._/-]{1,30}\*?", fullmatch=True), min_size=1, max_size=20),
    st.frozensets(st.sampled_from(list(Action)), min_size=1),
)
def test_a_scope_is_read_as_it_was_written(patterns: list[str], good_for: frozenset[Action]):
    scope = TokenScope(tuple(patterns), good_for)
    assert TokenScope.of(json.loads(json.dumps(scope.document))) == scope


@pytest.mark.parametrize(
    ("level", "label"),
    [(Level.NONE, "none"), (Level.READ, "read-only"), (Level.WRITE, "read-write"), (Level.ADMIN, "admin")],
)
def test_a_level_is_known_by_the_word_of_dtr(level: Level, label: str):
    assert level.label == label
    assert Level.of(label) is level


def test_no_word_is_no_level():
    assert Level.of(None) is Level.NONE


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="'write' is no level"):
        Level.of("write")
