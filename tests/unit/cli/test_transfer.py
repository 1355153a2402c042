"""What is imported: files that are read, what is wrong in them, and what has to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtr.cli._common import Failure
from dtr.cli.transfer import files
from dtr.cli.transfer.content import Content, Grant, Member, Organization, Repository, Team, User, changes


def content(*items: User | Organization | Team | Member | Repository | Grant) -> Content:
    made = Content()
    for item in items:
        made.put(item)
    return made


def problems(directory: Path, current: Content | None = None, **texts: str) -> list[str]:
    """What is wrong with files of these names and texts."""
    for name, text in texts.items():
        (directory / f"{name}.csv").write_text(text, encoding="utf-8")
    found = files.read(directory)
    found.settle(current or Content())
    return found.problems


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("users", "name\nAnn B\n", "users.csv, line 2: user Ann B cannot be called so"),
        ("users", "name\nann\nann\n", "users.csv, line 3: user ann was there before, in users.csv, line 2"),
        ("users", "name,admin\nann,maybe\n", "users.csv, line 2: admin: 'maybe' is neither yes nor no"),
        ("users", "name,full_name\n,Ann\n", "users.csv, line 2: name is empty"),
        ("teams", "organization,name\nacme,devs\n", "teams.csv, line 2: there is no organization acme"),
        ("members", "organization,user\nacme,ann\n", "members.csv, line 2: there is no organization acme"),
        ("members", "organization,user,role\na,b,king\n", "members.csv, line 2: role: 'king' is no role"),
        ("repositories", "repository\nnobody/app\n", "line 2: there is no user or organization nobody"),
        ("repositories", "repository\napp\n", "repositories.csv, line 2: repository app: "),
        ("repositories", "repository,tag_limit\na/b,ten\n", "line 2: tag_limit: 'ten' is no number"),
        ("grants", "on,to,level\na/b,a/t,owner\n", "grants.csv, line 2: grant on a/b to a/t: 'owner' is no level"),
        ("grants", "on,to,level\na/b,a/t,admin\n", "grants.csv, line 2: there is no repository a/b"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    first, *_ = problems(tmp_path, **{name: text})
    assert said in first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,fullname\nann,Ann\n", "users.csv, line 1: there is no column 'fullname'; did you mean full_name?"),
        ("full_name\nAnn\n", "users.csv, line 1: the column name is missing"),
        ("name,name\nann,ann\n", "users.csv, line 1: the column name is there twice"),
        ("name\nann\nbob,what\n", "users.csv, line 3: 2 fields, but 1 columns"),
        ('name,full_name\nann,"Ann\n', "users.csv, line 2: unexpected end of data"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Failure) as caught:
        problems(tmp_path, users=text)
    assert said in caught.value.message


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"has none of users\.csv"):
        files.read(tmp_path)
    (tmp_path / "users.csv").write_bytes(b"name\n\xff\n")
    with pytest.raises(Failure, match="is not in UTF-8"):
        files.read(tmp_path)


def test_a_line_is_that_where_a_row_begins(tmp_path: Path) -> None:
    text = 'repository,readme\na/b,"one\ntwo\nthree"\na/b,again\n'
    assert problems(tmp_path, content(User(name="a")), repositories=text) == [
        "repositories.csv, line 5: repository a/b was there before, in repositories.csv, line 2"
    ]


def test_spreadsheets_write_a_mark_and_other_ends_of_lines(tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_bytes("\ufeffName,Full_Name\r\nann,Ann\r\n\r\n".encode())
    assert list(files.read(tmp_path)) == [User(name="ann", full_name="Ann")]


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (User(name="acme"), "there is an organization acme"),
        (Organization(name="ann"), "there is a user ann"),
        (Team(organization="ann", name="x"), "there is no organization ann"),
        (Member(organization="acme", user="nobody"), "there is no user nobody"),
        (Member(organization="acme", team="ops", user="ann"), "there is no team acme/ops"),
        (Repository(path="nobody/app"), "there is no user or organization nobody"),
        (Grant(on="nobody", who="ann", level="admin"), "there is no user or organization nobody"),
        (Grant(on="acme/app", who="nobody", level="admin"), "there is no user nobody"),
        (Grant(on="acme/app", who="acme/ops", level="admin"), "there is no team acme/ops"),
        (Grant(on="ann", who="acme/devs", level="admin"), "acme/devs can be granted something in acme only"),
    ],
    ids=str,
)
def test_what_needs_what_is_not_there_is_a_problem(item: User, said: str) -> None:
    current = content(
        User(name="ann"),
        Organization(name="acme"),
        Team(organization="acme", name="devs"),
        Repository(path="acme/app"),
    )
    wanted = Content()
    wanted.add(item, "here")
    wanted.settle(current)
    assert [one[: len(said) + 6] for one in wanted.problems] == [f"here: {said}"]
    assert list(wanted) == []


def test_what_needs_something_that_is_wrong_is_left_out_with_it() -> None:
    wanted = Content()
    wanted.add(Organization(name="Acme Inc"), "1")
    wanted.add(Team(organization="Acme Inc", name="devs"), "2")
    wanted.add(Team(organization="missing", name="devs"), "3")
    wanted.add(Member(organization="missing", team="devs", user="ann"), "4")
    wanted.add(User(name="ann"), "5")
    wanted.settle(Content())
    assert [one.partition(":")[0] for one in wanted.problems] == ["1", "2", "3", "4"]
    assert list(wanted) == [User(name="ann")]


def test_changes_are_what_is_missing_and_what_differs() -> None:
    current = content(
        User(name="ann", full_name="Ann", is_admin=True, is_auditor=False, is_active=True),
        User(name="bob", full_name="", is_admin=False, is_auditor=False, is_active=True),
        Grant(on="acme", who="ann", level="admin"),
    )
    wanted = content(
        User(name="ann", full_name="Ann B", is_admin=True, password="ignored"),
        User(name="bob"),
        User(name="carl", password="a secret"),
        Grant(on="acme", who="ann", level="read-only"),
    )
    found = list(changes(current, wanted))
    assert [str(one) for one in found] == [
        "change user ann: full name",
        "make user carl",
        "change grant on acme to ann: level",
    ]
    assert found[0].after == User(name="ann", full_name="Ann B", is_admin=True, is_auditor=False, is_active=True)
    assert "a secret" not in repr(found)
    assert "ignored" not in repr(found)


def test_nothing_changes_twice() -> None:
    item = Repository(path="a/b", visibility="public", tag_limit=3)
    whole = Repository(
        path="a/b", visibility="public", short_description="", long_description="", immutable_tags=False,
        immutable_patterns=(),
        tag_limit=3, scan_on_push=False,
    )  # fmt: skip
    assert [one.action for one in changes(Content(), content(item))] == ["make"]
    assert list(changes(content(whole), content(item))) == []
