"""What both directions of mirroring share: the way to the remote, and writing down what became of tags."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dtr.events import Event, Object, record
from dtr.mirrors.errors import MirrorError, MirroringFailed, TransferFailed
from dtr.mirrors.local import Place
from dtr.mirrors.policies import MirroredTag, drop_tags, note_end, note_mirrored, note_tag
from dtr.oci import OciError
from dtr.registry import RegistryError
from dtr.remotes import (
    DefinitionError,
    RemoteBroken,
    RemoteBusy,
    RemoteDenied,
    RemoteError,
    RemoteRefused,
    RemoteUnknown,
    RemoteUnreachable,
)
from dtr.storage import StorageError
from dtr.vault import VaultError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from typing import Literal

    from dtr.db import Database, Transaction
    from dtr.events import Actor
    from dtr.jobs import Run
    from dtr.mirrors.policies import Direction, MirroringPolicies, MirroringPolicy
    from dtr.mirrors.transfer import Transfer
    from dtr.remotes import Definitions, Remote, RemoteRepository, Remotes

_CODES: dict[type[Exception], str] = {
    RemoteDenied: "REMOTE_DENIED",
    RemoteUnreachable: "REMOTE_UNREACHABLE",
    RemoteBusy: "REMOTE_BUSY",
    RemoteUnknown: "REMOTE_UNKNOWN",
    RemoteRefused: "REMOTE_REFUSED",
    RemoteBroken: "REMOTE_BROKEN",
    DefinitionError: "REMOTE_INVALID",
    VaultError: "REMOTE_INVALID",
}
_LASTING = (RemoteDenied, RemoteRefused, DefinitionError, VaultError, OciError, RegistryError, TransferFailed)
FAILURES = (RemoteError, DefinitionError, VaultError, OciError, RegistryError, StorageError, MirrorError)
"""What a transfer fails with."""
SUCCESS, FAILED, TOO_MANY_DELETIONS = "SUCCESS", "FAILED", "TOO_MANY_DELETIONS"
STATUS_CODES = {
    SUCCESS: "all that was to be done was done",
    FAILED: "some tags could not be mirrored, or the image is no whole one: see the status of the tags",
    TOO_MANY_DELETIONS: "more tags are gone at the source than are deleted at once without being told so",
    "REMOTE_DENIED": "the credentials are wrong, or good for less",
    "REMOTE_UNREACHABLE": "the remote does not answer, or may not be reached",
    "REMOTE_BUSY": "the remote wants to be asked less",
    "REMOTE_UNKNOWN": "the repository is not there",
    "REMOTE_REFUSED": "the remote does not take what it is given",
    "REMOTE_BROKEN": "the remote answers with what it must not answer",
    "REMOTE_INVALID": "the stored remote cannot be used",
}
"""How the work of a policy ends."""
_SAFE_SHARE = 4
_LONGEST_DETAIL = 1000
_LONGEST_MOMENT = 14


class Mirror:
    """A direction of mirroring: the rooms that it works with."""

    direction: Direction

    def __init__(
        self,
        database: Database,
        policies: MirroringPolicies,
        definitions: Definitions,
        remotes: Remotes,
        transfer: Transfer,
    ) -> None:
        self._database = database
        self._policies = policies
        self._definitions = definitions
        self._remotes = remotes
        self._transfer = transfer
        self._local = transfer.local

    async def _remote(self, policy: MirroringPolicy) -> Remote:
        """The remote of a policy, with its secrets. Raises DefinitionError, VaultError."""
        return await self._definitions.remote(policy.remote, policy.remote_repository)

    @contextlib.asynccontextmanager
    async def _working(self, run: Run, policy: MirroringPolicy) -> AsyncIterator[tuple[RemoteRepository, str]]:
        """The remote of a policy, and its name; a failure is the end of the policy's work, and MirroringFailed."""
        try:
            remote = await self._remote(policy)
            async with self._remotes.connect(remote) as there:
                yield there, remote.full_name
        except MirroringFailed:
            raise
        except FAILURES as error:
            await self._end(run, policy, code_of(error), str(error))
            raise failure(error, f"policy {policy.id}") from None

    async def _end(
        self, run: Run, policy: MirroringPolicy, code: str, detail: str, *, saw_all: bool = False
    ) -> None:
        """Write down how the work of a policy ended; `saw_all`: of a poll, which went over all tags."""
        text = detail[:_LONGEST_DETAIL]
        await self._database.unit(lambda tx: note_end(tx, policy.id, code, text, job=run.job, saw_all=saw_all))

    async def _note(self, policy: MirroringPolicy, tag: MirroredTag) -> None:
        """Write down what became of a tag, when nothing was mirrored."""
        await self._database.unit(lambda tx: note_tag(tx, policy.repository, policy.id, self.direction, tag))

    async def _succeeded(self, repository: int, policy: str, tag: MirroredTag, by: Actor) -> None:
        """A tag was mirrored, by a policy (its id; empty: by hand): its status, the policy's, and an event."""

        async def work(tx: Transaction) -> None:
            await note_tag(tx, repository, policy, self.direction, tag)
            if policy:
                await note_mirrored(tx, policy)
            await record(tx, self._event("CREATE", repository, policy, tag, by))

        await self._database.unit(work)

    async def _failed(self, repository: int, policy: str, tag: MirroredTag, error: Exception, by: Actor) -> None:
        """A tag was not mirrored: its status, and an event, unless it failed like that before."""
        noted = replace(tag, status="failed", detail=str(error)[:_LONGEST_DETAIL])

        async def work(tx: Transaction) -> None:
            if await note_tag(tx, repository, policy, self.direction, noted):
                await record(tx, self._event("FAIL", repository, policy, noted, by))

        await self._database.unit(work)

    async def _deleted(self, policy: MirroringPolicy, tag: MirroredTag) -> None:
        """A tag was deleted at the remote, because it is gone here."""
        event = self._event("DELETE", policy.repository, policy.id, tag, policy.actor)
        await self._database.unit(lambda tx: record(tx, event))

    async def _forget(self, policy: MirroringPolicy, tags: Iterable[MirroredTag]) -> None:
        """Tags are gone on both sides."""
        names = [one.tag for one in tags]
        await self._database.unit(lambda tx: drop_tags(tx, policy, names))

    def _event(
        self, kind: Literal["CREATE", "DELETE", "FAIL"], repository: int, policy: str, tag: MirroredTag, by: Actor
    ) -> Event:
        ours, theirs = (tag.tag, tag.target_tag) if self.direction == "push" else (tag.target_tag, tag.tag)
        return Event(
            type=kind,
            actor=by,
            object=Object(
                "push_mirroring" if self.direction == "push" else "poll_mirroring", policy, ours, tag.digest
            ),
            target=Object("tag", theirs, f"{tag.remote}:{theirs}", tag.detail or tag.digest),
            repository_id=repository,
        )


def place_of(policy: MirroringPolicy) -> Place:
    """The repository of a policy."""
    return Place(policy.repository, policy.path)


def code_of(error: Exception) -> str:
    """The status of a policy that failed with an error."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), FAILED)


def failure(error: Exception, said: str) -> MirroringFailed:
    """The failure of a job that an error is."""
    return MirroringFailed(
        f"{said}: {error}",
        retry_after=error.retry_after if isinstance(error, RemoteError) else None,
        is_lasting=isinstance(error, _LASTING),
    )


def moment_of(run: Run) -> int:
    """The moment with which a job makes names, milliseconds since 1970 UTC: the same when it is tried again."""
    text = run.parameters.get("moment", "")
    if not text:
        return int(time.time() * 1000)
    if not text.isdecimal() or len(text) > _LONGEST_MOMENT:
        raise MirroringFailed("moment is in milliseconds since 1970", is_lasting=True)
    return int(text)


def too_many(gone: int, mirrored: int) -> bool:
    """Whether so many tags do not go at once without being told so: more than a quarter, but for one alone."""
    return gone > max(1, mirrored // _SAFE_SHARE)
