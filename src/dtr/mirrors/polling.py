"""
Poll mirroring: tags of another registry come here.

A poll lists the tags there, and asks for the digest of each that the policy means, with one HEAD. What was
mirrored, and is the same there, is left alone, also when it was moved or deleted here since. A tag that comes is a
push, to which the image came through the remote: promotions and push mirroring go on from there, but not back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from dtr.at_once import at_once
from dtr.mirrors.errors import MirroringFailed, MirroringPolicyUnknown, TransferFailed
from dtr.mirrors.policies import MirroredTag
from dtr.mirrors.work import (
    FAILED,
    FAILURES,
    SUCCESS,
    TOO_MANY_DELETIONS,
    Mirror,
    moment_of,
    place_of,
    too_many,
)
from dtr.registry import RepositoryUnknown
from dtr.remotes import RemoteBusy, RemoteDenied, RemoteUnreachable
from dtr.storage import StorageError

if TYPE_CHECKING:
    from dtr.jobs import Level, Run
    from dtr.mirrors.policies import MirroringPolicy
    from dtr.remotes import RemoteRepository

_AT_ONCE = 4
"""Tags that are under way."""
_MOST_TAGS = 100_000
_ENDS_ALL = (RemoteDenied, RemoteUnreachable, RemoteBusy, StorageError, RepositoryUnknown)
"""What will be no better for the next tag."""


class _Poll(Struct):
    """A poll under way."""

    run: Run
    policy: MirroringPolicy
    there: RemoteRepository
    remote: str
    moment: int
    known: dict[str, MirroredTag]
    total: int = 0
    done: int = 0
    mirrored: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def everything(self) -> bool:
        """Also what did not change since it was mirrored is looked at."""
        return self.run.parameters.get("everything") == "true"

    def log(self, tag: str, text: str, level: Level = "info") -> None:
        """Write a line about a tag."""
        self.run.log(f"tag {tag}: {text}", level)


class PollMirror(Mirror):
    """The poll mirroring policies of all repositories at work."""

    direction = "poll"

    async def work(self, run: Run) -> None:
        """
        Do what the parameters of a job say: poll for `policy`, or queue the work of all. Raises MirroringFailed.

        Also pushes are queued then, of policies that follow deletions or whose tags wait.
        """
        given = run.parameters
        if "policy" not in given:
            run.log(f"queued the work of {await self._policies.queue_all()} policies")
            await self._policies.forget_remotes()
            return
        try:
            policy = await self._policies.get(given["policy"], direction="poll")
        except MirroringPolicyUnknown as error:
            run.log(f"policy {error} is not there any more")
            return
        if not policy.enabled:
            run.log(f"policy {policy.id} is switched off")
            return
        async with self._working(run, policy) as (there, remote):
            known = await self._policies.known_tags(policy)
            await self._poll(_Poll(run, policy, there, remote, moment_of(run), known))

    async def _poll(self, poll: _Poll) -> None:
        policy, run = poll.policy, poll.run
        listed: set[str] = set()
        async for tag in poll.there.tags():
            listed.add(tag)
            if len(listed) > _MOST_TAGS:
                raise TransferFailed(f"the repository there has more than {_MOST_TAGS} tags")
        wanted = [tag for tag in sorted(listed) if policy.means(tag, poll.moment)]
        poll.total = len(wanted)
        run.log(f"{len(wanted)} of {len(listed)} tags of {poll.remote} are meant")
        run.progress(0, poll.total, "tags")
        await at_once(lambda tag: self._look(poll, tag), wanted, _AT_ONCE)
        refused = await self._follow(poll, listed)
        text = f"{poll.mirrored} tags mirrored, {len(poll.failed)} failed"
        run.log(text)
        if refused:
            await self._end(run, policy, TOO_MANY_DELETIONS, refused, saw_all=True)
        elif poll.failed:
            await self._end(run, policy, FAILED, f"{text}: {', '.join(sorted(poll.failed)[:10])}", saw_all=True)
        else:
            await self._end(run, policy, SUCCESS, text, saw_all=True)
        if poll.failed:
            # What is wrong with a tag is so the next time, too, which comes by the schedule.
            raise MirroringFailed(f"{len(poll.failed)} tags could not be mirrored", is_lasting=True)

    async def _look(self, poll: _Poll, tag: str) -> None:
        """Bring a tag, if it is not what was brought last."""
        policy, known = poll.policy, poll.known.get(tag)
        try:
            found = await poll.there.head_manifest(tag)
            if found is None:
                poll.log(tag, "is gone meanwhile")
            elif (
                known is not None
                and known.digest == found.digest
                and known.status in {"mirrored", "skipped"}
                and not poll.everything
            ):
                if policy.referrers and known.status == "mirrored":
                    await self._transfer.fetch_referrers(
                        poll.there, place_of(policy), found.digest, by=policy.actor
                    )
            elif policy.skips_present:
                noted = MirroredTag(
                    tag=tag, target_tag="", remote=poll.remote, digest=found.digest, status="skipped"
                )
                await self._note(policy, noted)
                poll.log(tag, "was there before the policy")
            else:
                await self._bring(poll, tag, found.digest)
        except _ENDS_ALL:
            raise
        except FAILURES as error:
            poll.failed.append(tag)
            poll.log(tag, f"not mirrored: {error}", "error")
        poll.done += 1
        poll.run.progress(poll.done, poll.total, "tags")

    async def _bring(self, poll: _Poll, tag: str, digest: str) -> None:
        """Bring what a tag names there, and let a tag name it here."""
        policy, place = poll.policy, place_of(poll.policy)
        name = policy.target_of(tag, poll.moment)
        noted = MirroredTag(tag=tag, target_tag=name or "", remote=poll.remote, digest=digest, status="mirrored")
        try:
            if name is None:
                raise TransferFailed(f"{policy.template} gives no name that a tag may have")
            here = await self._local.find_manifest(place, name)
            if here is None or here.digest != digest:
                await self._transfer.fetch(
                    poll.there,
                    place,
                    digest,
                    [name],
                    referrers=policy.referrers,
                    chain=[poll.remote],
                    by=policy.actor,
                )
        except FAILURES as error:
            await self._failed(policy.repository, policy.id, noted, error, policy.actor)
            raise
        await self._succeeded(policy.repository, policy.id, noted, policy.actor)
        poll.mirrored += 1
        poll.log(tag, f"mirrored to {policy.path}:{name}")

    async def _follow(self, poll: _Poll, listed: set[str]) -> str:
        """Delete here what was deleted there, unless it was moved since; why not, or empty."""
        policy = poll.policy
        gone = [one for one in poll.known.values() if one.tag not in listed]
        mirrored = [one for one in gone if one.mirrored_at is not None]
        await self._forget(policy, [one for one in gone if one.mirrored_at is None])
        if not policy.deletions or not mirrored:
            return ""
        total = sum(one.mirrored_at is not None for one in poll.known.values())
        if (not listed or too_many(len(mirrored), total)) and poll.run.parameters.get("anyDeletions") != "true":
            text = f"{len(mirrored)} of {total} tags are gone there: none is deleted here without being told so"
            poll.run.log(text, "error")
            return text
        named = {one.target_tag: one.digest for one in mirrored}
        deleted = await self._local.delete_tags(place_of(policy), named, by=policy.actor)
        for tag in sorted(deleted.gone):
            poll.log(tag, "deleted, as it was there")
        for tag in sorted(deleted.signed):
            poll.log(tag, "stays, though it is gone there: it is signed in content trust")
        await self._forget(policy, mirrored)
        return ""
