"""The permission model, compared with DTR's published matrix."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtr.accounts import Facts, Level, Operation, may

# Columns: An anonymous; Au logged in, without grants; R, RW, A read-only, read-write, admin on the repository, by
# a grant on it or on its namespace; NA admin by a grant on the namespace; O owner of the namespace, also of the
# personal one; S system administrator. x: yes; pub: when the repository is public; empty: no. Events are for users
# who see the repository.
MATRIX = """
| Operation                                     | An  | Au  | R | RW | A | NA | O | S |
|-----------------------------------------------|-----|-----|---|----|---|----|---|---|
| See, browse, search the repository            | pub | pub | x | x  | x | x  | x | x |
| Pull                                          | pub | pub | x | x  | x | x  | x | x |
| See tags, manifests, scan results             | pub | pub | x | x  | x | x  | x | x |
| Push                                          |     |     |   | x  | x | x  | x | x |
| Start a scan                                  |     |     |   | x  | x | x  | x | x |
| Delete a tag                                  |     |     |   | x  | x | x  | x | x |
| Delete a manifest                             |     |     |   | x  | x | x  | x | x |
| Change the scan mode                          |     |     |   |    | x | x  | x | x |
| Edit descriptions                             |     |     |   |    | x | x  | x | x |
| Set visibility, immutability, tag limit       |     |     |   |    | x | x  | x | x |
| Manage team access of the repository          |     |     |   |    | x | x  | x | x |
| Delete the repository                         |     |     |   |    | x | x  | x | x |
| Create a repository in the namespace          |     |     |   |    |   | x  | x | x |
| Create on push                                |     |     |   |    |   | x  | x | x |
| Promotion policy: list                        |     |     | x | x  | x | x  | x | x |
| Promotion policy: create, edit, delete        |     |     |   |    | x | x  | x | x |
| Manual promotion of a tag: source             |     |     | x | x  | x | x  | x | x |
| Manual promotion of a tag: target             |     |     |   | x  | x | x  | x | x |
| Mirroring policy: list                        |     |     | x | x  | x | x  | x | x |
| Mirroring policy: create, edit, delete        |     |     |   |    | x | x  | x | x |
| Manual push-mirror of a tag                   |     |     | x | x  | x | x  | x | x |
| Check a remote registry                       |     | x   | x | x  | x | x  | x | x |
| Pruning policy: list                          |     |     | x | x  | x | x  | x | x |
| Pruning policy: create, edit, delete, test    |     |     |   |    | x | x  | x | x |
| Webhooks on a repository                      |     |     |   |    | x | x  | x | x |
| Webhooks on a namespace                       |     |     |   |    |   | x  | x | x |
| Global webhooks                               |     |     |   |    |   |    |   | x |
| Events: push, scan, tag delete, repo create   |     | pub | x | x  | x | x  | x | x |
| Events: pull, promotion, mirror               |     |     |   |    | x | x  | x | x |
| Global events                                 |     |     |   |    |   |    |   | x |
| Trust changes of one repository               |     | pub | x | x  | x | x  | x | x |
| Trust changes of all repositories             |     |     |   |    |   |    |   | x |
| Own access tokens                             |     | x   | x | x  | x | x  | x | x |
| Access tokens of other users                  |     |     |   |    |   |    |   | x |
| Own settings                                  |     | x   | x | x  | x | x  | x | x |
| List and read content caches                  |     | x   | x | x  | x | x  | x | x |
| Create and delete content caches              |     |     |   |    |   |    |   | x |
| Hide a vulnerability                          |     |     |   |    |   |    |   | x |
| Jobs, crons, workers, settings, cluster status|     |     |   |    |   |    |   | x |
| Features                                      |     | x   | x | x  | x | x  | x | x |
| Create users and organizations                |     |     |   |    |   |    |   | x |
| Manage organization members, teams            |     |     |   |    |   |    | x | x |
| See what administrators decide                |     |     |   |    |   |    |   | x |
| See accounts                                  |     | x   | x | x  | x | x  | x | x |
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
    "Pruning policy: list": Operation.LIST_POLICIES,
    "Pruning policy: create, edit, delete, test": Operation.EDIT_POLICIES,
    "Webhooks on a repository": Operation.MANAGE_REPOSITORY_WEBHOOKS,
    "Webhooks on a namespace": Operation.MANAGE_NAMESPACE_WEBHOOKS,
    "Global webhooks": Operation.MANAGE_GLOBAL_WEBHOOKS,
    "Events: push, scan, tag delete, repo create": Operation.SEE_EVENTS,
    "Events: pull, promotion, mirror": Operation.SEE_ALL_EVENTS,
    "Global events": Operation.SEE_GLOBAL_EVENTS,
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
    owns_namespace=st.booleans(),
    repository_level=levels,
    namespace_level=levels,
    is_public=st.booleans(),
)


def rights(who: Facts) -> set[Operation]:
    return {operation for operation in Operation if may(who, operation)}


@given(facts, facts)
@settings(max_examples=300, deadline=None)
def test_rights_add_up_and_nothing_takes_away(one: Facts, other: Facts):
    both = Facts(
        is_user=True,
        is_system_admin=one.is_system_admin or other.is_system_admin,
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
    inactive = Facts(
        is_user=False,
        is_system_admin=who.is_system_admin,
        owns_namespace=who.owns_namespace,
        repository_level=who.repository_level,
        namespace_level=who.namespace_level,
        is_public=who.is_public,
    )
    assert rights(inactive) == rights(Facts(is_public=who.is_public))


def test_each_level_includes_those_below():
    for source in ("repository_level", "namespace_level"):
        for low, high in itertools.pairwise(Level):
            assert rights(Facts(is_user=True, **{source: low})) < rights(Facts(is_user=True, **{source: high}))


def test_a_member_without_a_grant_has_what_everybody_has():
    assert rights(Facts(is_user=True)) == rights(Facts(is_user=True, repository_level=Level.NONE))
    assert Operation.PULL not in rights(Facts(is_user=True))


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
