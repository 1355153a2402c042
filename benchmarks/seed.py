"""
Fill an empty database as a large company would: `python -m benchmarks.seed sqlite:////tmp/x/metadata.db`.

By default 100,000 repositories with 1,000,000 tags (100,000 of them in `big/huge`), 10,000 users, 500
organisations with 5,000 teams, grants and events. Rows are written past the program, in bulk; everything follows
from the numbers of the shape, without chance. Nobody has a password.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sqlite3
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg

from dtr.accounts import folded
from dtr.db import open_database
from dtr.db.migrate import migrate
from dtr.registry.usage import of_repository
from dtr.registry.versions import version_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Rows: TypeAlias = "Iterator[tuple[Any, ...]]"
Table: TypeAlias = "tuple[str, Sequence[str], Rows]"
"""A name, columns, and rows of these columns."""

AT = 1_700_000_000_000
HUGE = "big/huge"
_WORDS = (
    "web", "api", "app", "auth", "billing", "cache", "cart", "catalog", "chat", "core", "data", "edge", "event",
    "feed", "file", "front", "gateway", "graph", "image", "index", "job", "ledger", "log", "mail", "map", "media",
    "metric", "order", "page", "pay", "profile", "proxy", "queue", "report", "search", "session", "shop", "stock",
    "stream", "user",
)  # fmt: skip
_CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
_LAYER = b"layer"
_BIG = 10
"""One repository of so many is in the namespace `big`."""
_OWN = 10
"""And another one is a user's own."""


@dataclass(frozen=True)
class Shape:
    """How much there is of what; `public` is a percentage."""

    repositories: int = 100_000
    tags: int = 1_000_000
    huge_tags: int = 100_000
    users: int = 10_000
    organizations: int = 500
    teams: int = 5_000
    events: int = 200_000
    public: int = 50

    @property
    def teams_each(self) -> int:
        """Teams of one organisation."""
        return self.teams // self.organizations

    def namespace(self, number: int) -> str:
        """The name of the account that owns a repository."""
        if number % _BIG == 0:
            return "big"
        if number % _OWN == 1:
            return user(number // _OWN % self.users)
        return organization(number % self.organizations)

    def path(self, number: int) -> str:
        """The path of a repository."""
        if number == 0:
            return HUGE
        first, second = _WORDS[number % len(_WORDS)], _WORDS[number // 7 % len(_WORDS)]
        return f"{self.namespace(number)}/{first}-{second}-{number}"

    def is_public(self, number: int) -> bool:
        """Whether a repository is public; the huge one is not."""
        return number > 0 and (number + number // self.organizations) * 37 % 100 < self.public

    @property
    def tags_each(self) -> int:
        """Tags of each repository but the huge one."""
        return (self.tags - self.huge_tags) // max(1, self.repositories - 1)

    def latest_tag(self, number: int) -> str:
        """The tag of a repository that was moved last; empty: it has none."""
        if number == 0:
            return f"build-{self.huge_tags - 1:06}" if self.huge_tags else ""
        return f"1.{self.tags_each - 1}" if self.tags_each else ""

    def repositories_of(self, number: int) -> range:
        """Numbers of repositories; those of the organisation of this number are among them."""
        return range(number, self.repositories, self.organizations)


def user(number: int) -> str:
    """The name of a user."""
    return f"user-{number:05}"


def organization(number: int) -> str:
    """The name of an organisation."""
    return f"org-{number:03}"


def account_id(name: str) -> str:
    """The id of an account, or of a team (``organization/team``)."""
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"


def digest_of(data: bytes) -> str:
    """``sha256:…`` of the bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tables(shape: Shape) -> Iterator[Table]:
    """All rows, in an order that foreign keys allow."""
    yield (
        "accounts",
        (
            "id",
            "name",
            "kind",
            "full_name",
            "folded",
            "is_admin",
            "is_auditor",
            "is_active",
            "is_imported",
            "created_at",
        ),
        _accounts(shape),
    )
    members = dict.fromkeys(_team_members(shape))
    owners = {(organization(one), user(one)) for one in range(shape.organizations)}
    owners.add(("big", "owner"))
    joined = sorted(owners | {(team.partition("/")[0], name) for team, name in members})
    yield (
        "organization_members",
        ("organization_id", "user_id", "is_admin"),
        ((account_id(one), account_id(name), (one, name) in owners) for one, name in joined),
    )
    yield (
        "teams",
        ("id", "organization_id", "name", "description"),
        ((account_id(one), account_id(one.partition("/")[0]), one.partition("/")[2], "") for one in _teams(shape)),
    )
    yield (
        "team_members",
        ("team_id", "user_id", "is_admin"),
        ((account_id(team), account_id(name), False) for team, name in members),
    )
    yield (
        "repositories",
        (
            "id", "namespace_id", "path", "visibility", "short_description", "folded", "long_description",
            "scan_on_push", "immutable_tags", "immutable_patterns", "tag_limit", "created_at",
        ),
        _repositories(shape),
    )  # fmt: skip
    yield (
        "repository_summaries",
        (
            "repository_id", "namespace_id", "visibility", "path", "latest_tag", "kind", "is_signed", "bytes",
            "pulls", "pushed_at",
        ),
        (
            (
                number + 1, account_id(shape.namespace(number)),
                "public" if shape.is_public(number) else "private",
                shape.path(number), shape.latest_tag(number), "image", False, 100, number % 1000, AT,
            )
            for number in range(shape.repositories)
        ),
    )  # fmt: skip
    yield (
        "repository_grants",
        ("repository_id", "team_id", "level"),
        ((repository + 1, account_id(team), "read-write") for repository, team in dict.fromkeys(_grants(shape))),
    )
    yield (
        "namespace_grants",
        ("namespace_id", "team_id", "level"),
        (
            (account_id(organization(one)), account_id(f"{organization(one)}/team-0"), "read-only")
            for one in range(1, shape.organizations)
        ),
    )
    yield (
        "repository_user_grants",
        ("repository_id", "user_id", "level"),
        (
            (one + 1, account_id(user(one * 7 % shape.users)), "read-only")
            for one in range(1, shape.repositories, 50)
        ),
    )
    yield from _content(shape)
    yield "usage", ("scope", "bytes", "pulls", "pushes", "pulled_at", "pushed_at"), _usage(shape)
    yield (
        "events",
        (
            "published_at", "type", "actor", "actor_name", "actor_type", "address", "repository_id", "repository",
            "object_type", "object_id", "object_name", "object_content",
        ),
        _events(shape),
    )  # fmt: skip


def _accounts(shape: Shape) -> Rows:
    def row(name: str, kind: str, *, is_admin: bool = False, is_auditor: bool = False) -> tuple[Any, ...]:
        full_name = f"{name.replace('-', ' ').title()}"
        found = folded(f"{name}\n{full_name}")
        return account_id(name), name, kind, full_name, found, is_admin, is_auditor, True, False, AT

    yield row("admin", "user", is_admin=True)
    yield row("auditor", "user", is_auditor=True)
    for name in ("plain", "owner", "lonely"):
        yield row(name, "user")
    for number in range(shape.users):
        yield row(user(number), "user")
    yield row("big", "organization")
    for number in range(shape.organizations):
        yield row(organization(number), "organization")


def _teams(shape: Shape) -> Iterator[str]:
    yield "org-002/fifty"
    for one in range(shape.organizations):
        for team in range(shape.teams_each):
            yield f"{organization(one)}/team-{team}"


def _team_members(shape: Shape) -> Iterator[tuple[str, str]]:
    yield "org-002/fifty", "plain"
    for number, team in enumerate(islice(_teams(shape), 1, None)):
        for member in range(10):
            yield team, user((number * 11 + member * 997) % shape.users)


def _grants(shape: Shape) -> Iterator[tuple[int, str]]:
    """The user `plain` gets fifty that are not public; every team five of its organisation's."""
    private = (one for one in shape.repositories_of(2) if not shape.is_public(one))
    for repository in islice((one for one in private if shape.namespace(one) == "org-002"), 50):
        yield repository, "org-002/fifty"
    for one in range(shape.organizations):
        own = [number for number in shape.repositories_of(one) if shape.namespace(number) == organization(one)]
        for team in range(shape.teams_each):
            for repository in own[team * 5 : team * 5 + 5]:
                yield repository, f"{organization(one)}/team-{team}"


def _repositories(shape: Shape) -> Rows:
    for number in range(shape.repositories):
        text = f"The {_WORDS[number % len(_WORDS)]} of the {_WORDS[number // 3 % len(_WORDS)]}"
        text += " pipeline" if number % 10 == 5 else ""
        yield (
            number + 1,
            account_id(shape.namespace(number)),
            shape.path(number),
            "public" if shape.is_public(number) else "private",
            text,
            folded(text),
            "",
            False,
            False,
            "[]",
            0,
            AT + number,
        )


def _content(shape: Shape) -> Iterator[Table]:
    config, layer = digest_of(_CONFIG), digest_of(_LAYER)
    blobs = ((config, _CONFIG), (layer, _LAYER))
    yield (
        "blobs",
        ("digest", "size", "state", "created_at"),
        ((digest, len(content), "present", AT) for digest, content in blobs),
    )
    yield "blob_contents", ("digest", "content"), (one for one in blobs)
    yield (
        "image_configs",
        ("digest", "os", "os_version", "architecture", "variant", "history", "labels"),
        (
            one
            for one in [(config, "linux", "", "amd64", "", '[{"created_by": "make", "empty_layer": false}]', "{}")]
        ),
    )
    yield (
        "repository_blobs",
        ("repository_id", "digest"),
        ((number + 1, digest) for number in range(shape.repositories) for digest in sorted((config, layer))),
    )
    payloads = [_manifest(number) for number in range(100)]
    digests = [digest_of(one) for one in payloads]

    def held(number: int) -> Sequence[int]:
        return range(100) if number == 0 else (number % 100,)

    yield (
        "manifests",
        (
            "repository_id", "digest", "media_type", "config_digest", "config_media_type", "content_size",
            "payload", "author", "created_at",
        ),
        (
            (
                number + 1, digests[one], "application/vnd.oci.image.manifest.v1+json", config,
                "application/vnd.oci.image.config.v1+json", len(_CONFIG) + len(_LAYER), payloads[one], "admin", AT,
            )
            for number in range(shape.repositories)
            for one in held(number)
        ),
    )  # fmt: skip
    yield (
        "manifest_references",
        ("repository_id", "manifest", "kind", "target"),
        (
            (number + 1, digests[one], "blob", target)
            for number in range(shape.repositories)
            for one in held(number)
            for target in sorted((config, layer))
        ),
    )
    yield (
        "tags",
        ("repository_id", "name", "manifest", "author", "created_at", "updated_at", "version_key"),
        _tags(shape, digests),
    )


def _manifest(number: int) -> bytes:
    def descriptor(kind: str, data: bytes) -> dict[str, Any]:
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest_of(data), "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", _CONFIG),
        "layers": [descriptor("layer.v1.tar", _LAYER)],
        "annotations": {"number": str(number)},
    }
    return json.dumps(manifest).encode()


def _tags(shape: Shape, digests: list[str]) -> Rows:
    for tag in range(min(shape.huge_tags, shape.tags)):
        name = f"build-{tag:06}"
        yield 1, name, digests[tag % 100], "admin", AT + tag, AT + tag, version_key(name)
    names = [(f"1.{tag}", version_key(f"1.{tag}")) for tag in range(shape.tags_each)]
    for number in range(1, shape.repositories):
        for tag, (name, key) in enumerate(names):
            yield number + 1, name, digests[number % 100], "admin", AT + tag, AT + tag, key


def _usage(shape: Shape) -> Rows:
    for number in range(shape.repositories):
        yield of_repository(number + 1), 100, number % 1000, 10, AT, AT


def _events(shape: Shape) -> Rows:
    for number in range(shape.events):
        repository = 0 if number % 20 == 0 else number * 31 % shape.repositories
        name = user(number % shape.users)
        kind = "GET" if number % 2 else "UPDATE"
        yield (
            AT + number, kind, account_id(name), name, "user", "192.0.2.1", repository + 1, shape.path(repository),
            "tag", "1.0", "1.0", "",
        )  # fmt: skip


async def seed(url: str, shape: Shape) -> float:
    """Make the tables at `url`, and fill them; the seconds that filling took."""
    database = open_database(url)
    await migrate(database, url)
    await database.close()
    started = time.perf_counter()
    if url.startswith("sqlite:///"):
        _fill_sqlite(url.removeprefix("sqlite:///"), shape)
    else:
        await _fill_postgresql(url, shape)
    return time.perf_counter() - started


def _fill_sqlite(path: str, shape: Shape) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous = OFF", "foreign_keys = OFF", "cache_size = -500000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    for name, columns, rows in tables(shape):
        places = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({places})", rows)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


async def _fill_postgresql(url: str, shape: Shape) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SET session_replication_role = replica")  # what refers to what is known to be right
    for name, columns, rows in tables(shape):
        await connection.copy_records_to_table(name, records=rows, columns=list(columns))
    await connection.execute(
        "SELECT setval(pg_get_serial_sequence('repositories', 'id'), (SELECT max(id) FROM repositories))"
    )
    await connection.execute("VACUUM ANALYZE")  # as the server does by itself some time later
    await connection.close()


def main() -> None:
    """Fill a database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", help="sqlite:///PATH or postgresql://…, empty; PostgreSQL as a superuser")
    for name, value in vars(Shape()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    options = vars(parser.parse_args())
    url = options.pop("database")
    print(f"{asyncio.run(seed(url, Shape(**options))):.0f} s")


if __name__ == "__main__":
    main()
