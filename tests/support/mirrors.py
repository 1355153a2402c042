"""Mirrors over a database, a registry that they mirror to and from, and jobs that are run by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.registry_double import RegistryDouble
from tests.support.rooms import Rooms

from dtr.events import Actor
from dtr.jobs import Run
from dtr.mirrors import (
    Local,
    MirroringFailed,
    MirroringPolicies,
    MirroringPolicy,
    PollMirror,
    PushMirror,
    Transfer,
)
from dtr.policies import TagReader, parse_rules
from dtr.registry import PROMOTE
from dtr.remotes import Definition, Definitions, add
from dtr.vault import Vault

ADA = Actor("user", "id of ada", "ada")
REMOTE = "https://registry.example"


@dataclass
class Mirrors:
    """The rooms of mirroring, with what they need, and jobs run by hand."""

    rooms: Rooms
    registry: RegistryDouble
    key: Path
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        rooms = self.rooms
        self.local = Local(
            rooms.database, rooms.storage, blobs=rooms.blobs, uploads=rooms.uploads, manifests=rooms.manifests
        )
        self.transfer = Transfer(self.local, rooms.manifests)
        self.definitions = Definitions(rooms.database, Vault(self.key))
        self.policies = MirroringPolicies(rooms.database)
        mirror = (rooms.database, self.policies, self.definitions, self.registry, self.transfer)
        tags = TagReader(rooms.database, rooms.images)
        self.push_mirror = PushMirror(*mirror, tags=tags, repositories=rooms.repositories)
        self.poll_mirror = PollMirror(*mirror)

    async def make(self, repository: int, direction: Any, *rules: tuple[str, ...], **more: Any) -> MirroringPolicy:
        """A policy with a remote of its own; rules are field, operator and values."""
        evaluate = more.pop("evaluate", False)
        policy = MirroringPolicy(
            direction=direction,
            repository=repository,
            path="acme/app",
            remote="",
            remote_repository=more.pop("there", "mirror/app"),
            rules=parse_rules(
                [{"field": name, "operator": how, "values": values} for name, how, *values in rules]
            ),
            **more,
        )
        prepared = await self.definitions.prepare(
            Definition(repository_id=repository, host=REMOTE, username="bot"), password="hunter2 of the bot"
        )

        async def put(tx: Any) -> str:
            await add(tx, prepared)
            return prepared.id

        return await self.policies.create(policy, put, evaluate=evaluate, by=ADA)

    async def again(self, policy: MirroringPolicy) -> MirroringPolicy:
        """The policy as it is now."""
        return await self.policies.get(policy.id)

    async def work(self, *, failing: bool = False) -> list[str]:
        """Run all jobs of mirrors that wait until there is none; what they logged, and how they failed."""
        self.log = []
        while jobs := await self.rooms.query(
            "SELECT id, action, parameters FROM jobs WHERE status = 'waiting' AND action <> 'verify_signatures'"
            " ORDER BY scheduled_at, id"
        ):
            for job, action, parameters in jobs:
                done = "UPDATE jobs SET status = 'done', unique_key = NULL WHERE id = :job"
                await self.rooms.change(done, job=job)
                await self.run(job, action, parameters, failing=failing)
        return self.log

    async def run(self, job: str, action: str, parameters: str, *, failing: bool) -> None:
        run = Run(job, action, json.loads(parameters))
        work = {
            PROMOTE: self.push_mirror.show,
            "push_mirror_tag": self.push_mirror.work,
            "poll_mirror": self.poll_mirror.work,
        }[action]
        try:
            await work(run)
        except MirroringFailed as error:
            if not failing:
                raise
            self.log.append(f"failed: {error}")
        finally:
            self.log += [json.loads(line.data)["msg"] for line in run.lines]

    async def queued(self) -> list[tuple[str, dict[str, str]]]:
        """Action and parameters of the jobs that wait."""
        rows = await self.rooms.query("SELECT action, parameters FROM jobs WHERE status = 'waiting' ORDER BY id")
        return [(action, json.loads(parameters)) for action, parameters in rows]

    async def tags(self, policy: MirroringPolicy) -> dict[str, tuple[str, str]]:
        """Status and detail of the tags that a policy knows."""
        known = await self.policies.known_tags(policy)
        return {name: (tag.status, tag.detail) for name, tag in known.items()}

    async def happened(self, *kinds: str) -> list[tuple[Any, ...]]:
        """Type, kind, name, and the target's name of the events of these kinds."""
        rows = await self.rooms.query("SELECT type, object_type, object_name, target_name FROM events ORDER BY id")
        return [row for row in rows if row[1] in kinds]
