"""
Push mirroring: tags of ours go to another registry.

Each push of a tag is shown to the policies of its repository, and queues a job for each that means it; a policy
that was made, or whose time has come, is shown all tags, which finds what was missed, and what was deleted here. A
tag that came from a remote, also through promotions, does not go back to it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dtr.events import Actor
from dtr.jobs import JobRequest, submit
from dtr.mirrors.errors import MirroringPolicyUnknown
from dtr.mirrors.local import Place
from dtr.mirrors.policies import PUSH, RETRIES, MirroredTag
from dtr.mirrors.work import (
    FAILURES,
    SUCCESS,
    TOO_MANY_DELETIONS,
    Mirror,
    failure,
    moment_of,
    place_of,
    too_many,
)
from dtr.oci import companion_of
from dtr.policies import Answer, decide_once
from dtr.registry import ManifestUnknown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from dtr.db import Transaction
    from dtr.jobs import Run
    from dtr.mirrors.policies import MirroringPolicy
    from dtr.mirrors.transfer import Mounts
    from dtr.policies import TagReader
    from dtr.policies.rules import TagFacts
    from dtr.registry import Repositories
    from dtr.remotes import RemoteRepository

_MOST_POLICIES = 1000


class PushMirror(Mirror):
    """The push mirroring policies of all repositories at work."""

    direction = "push"

    def __init__(self, *rooms: Any, tags: TagReader, repositories: Repositories) -> None:
        """`tags` reads them with all that rules ask for; the others are those of `Mirror`."""
        super().__init__(*rooms)
        self._tags = tags
        self._repositories = repositories

    async def show(self, run: Run) -> None:
        """
        Show a push to the policies of its repository: for each that means the tag a job is queued.

        The parameters are those of the job of the push: `repository`, and `tag`, `digest`, `chain` and `moment`,
        or `known`, the digest of a manifest of which something has become known, or to which something refers now.
        """
        given = run.parameters
        repository, tag = int(given["repository"]), given.get("tag", "")
        found = await self._policies.list_policies(repository, direction="push", limit=_MOST_POLICIES)
        policies = {one.id: one for one in found if one.enabled}
        if not policies:
            return
        known = given.get("known") or companion_of(tag)
        if known:
            await self._go_on(run, repository, policies, known)
            return
        shown = await self._find(repository, tag, given["digest"])
        if shown is None:  # it is left to the job of its next push
            return
        for policy in policies.values():
            remote = await self._name(policy)
            if remote in json.loads(given.get("chain", "[]")):
                run.log(f"policy {policy.id}, tag {tag}: not mirrored, it comes from {remote}")
            else:
                await self._show(run, policy, remote, shown, given["digest"], moment_of(run))

    async def _go_on(
        self, run: Run, repository: int, policies: Mapping[str, MirroringPolicy], digest: str
    ) -> None:
        """Where policies waited for what is known now of a manifest; and what refers to it follows it."""
        for one, tag in await self._policies.of_digest(repository, digest):
            policy = policies.get(one)
            if policy is None:
                continue
            if tag.status == "waiting":
                shown = await self._find(repository, tag.tag, digest)
                if shown is not None:
                    await self._show(run, policy, tag.remote, shown, digest, moment_of(run))
            elif tag.status == "mirrored" and policy.referrers:
                await self._queue(run, policy, tag)

    async def _find(self, repository: int, tag: str, digest: str) -> TagFacts | None:
        """What rules ask about a tag; None: it is gone, or names something else."""
        try:
            found, facts = await self._tags.get(repository, tag)
        except ManifestUnknown:
            return None
        return facts if found.manifest.digest == digest else None

    async def work(self, run: Run) -> None:
        """
        Do what the parameters of a job say. Raises MirroringFailed.

        `policy` with `tag`, `digest` and `remoteTag` mirrors that tag; `policy` with `moment` alone shows all tags
        to it, and follows deletions; `remote` instead of `policy`: somebody mirrors a tag by hand.
        """
        given = run.parameters
        if "remote" in given:
            await self._push_by_hand(run)
            return
        try:
            policy = await self._policies.get(given.get("policy", ""), direction="push")
        except MirroringPolicyUnknown as error:
            run.log(f"policy {error} is not there any more")
            return
        if not policy.enabled:
            run.log(f"policy {policy.id} is switched off")
        elif "tag" in given:
            await self._push(run, policy)
        else:
            await self._show_all(run, policy)

    async def _name(self, policy: MirroringPolicy) -> str:
        return (await self._remote(policy)).full_name

    # --- showing ---

    async def _show(
        self, run: Run, policy: MirroringPolicy, remote: str, facts: TagFacts, digest: str, moment: int
    ) -> None:
        """Queue the transfer of a tag, if the policy means it."""
        said = f"policy {policy.id}, tag {facts.name}"
        decision = decide_once(policy.rules, facts, moment)
        if decision.answer is Answer.NO:
            run.log(f"{said}: not mirrored, rule {decision.decided_by} does not hold")
            return
        name = policy.target_of(facts.name, moment)
        if name is None:
            run.log(f"{said}: {policy.template} gives no name that a tag may have", "error")
            return
        noted = MirroredTag(tag=facts.name, target_tag=name, remote=remote, digest=digest, status="waiting")
        if decision.answer is Answer.WAITS:
            waits = f"waits for a {decision.waits_for}"
            run.log(f"{said}: not mirrored, a rule {waits}")
            await self._note(policy, replace(noted, detail=waits))
            return
        await self._queue(run, policy, noted)

    async def _queue(self, run: Run, policy: MirroringPolicy, tag: MirroredTag) -> None:
        """Queue the transfer of a tag."""
        parameters = {
            "policy": policy.id,
            "tag": tag.tag,
            "digest": tag.digest,
            "remoteTag": tag.target_tag,
        }
        request = JobRequest(
            action=PUSH,
            parameters=parameters,
            retries=RETRIES[PUSH],
            unique_key=":".join((PUSH, *parameters.values())),
        )

        async def work(tx: Transaction) -> None:
            await submit(tx, request)

        await self._database.unit(work)
        run.log(f"policy {policy.id}, tag {tag.tag}: goes to {tag.remote}:{tag.target_tag}")

    async def _show_all(self, run: Run, policy: MirroringPolicy) -> None:
        """Show all tags to a policy, and follow deletions."""
        moment = moment_of(run)
        everything = run.parameters.get("everything") == "true"
        async with self._working(run, policy) as (there, remote):
            known = await self._policies.known_tags(policy)
            came = await self._policies.polled(policy.repository, remote)
            renewed = await self._policies.referred_since(policy) if policy.referrers else set()
            present = set()
            async for tag, facts in self._tags.read(policy.repository):
                present.add(tag.name)
                run.progress(len(present), None, "tags")
                digest, before = tag.manifest.digest, known.get(tag.name)
                is_done = before is not None and (before.status, before.digest) == ("mirrored", digest)
                if companion_of(tag.name) or came.get(tag.name) == digest:
                    continue
                if is_done and not everything and tag.name not in renewed:
                    continue
                await self._show(run, policy, remote, facts, digest, moment)
            gone = [one for one in known.values() if one.tag not in present]
            mirrored = [one for one in gone if one.mirrored_at is not None]
            await self._forget(policy, [one for one in gone if one.mirrored_at is None])
            if policy.deletions and mirrored:
                await self._follow(run, policy, there, mirrored, len(known))

    async def _follow(
        self, run: Run, policy: MirroringPolicy, there: RemoteRepository, gone: Sequence[MirroredTag], total: int
    ) -> None:
        """Delete at the remote what was deleted here, as long as it is there what was mirrored."""
        if too_many(len(gone), total) and run.parameters.get("anyDeletions") != "true":
            text = (
                f"{len(gone)} of {total} tags are gone here: none is deleted at the remote without being told so"
            )
            run.log(text, "error")
            await self._end(run, policy, TOO_MANY_DELETIONS, text)
            return
        for one in gone:
            named = await there.head_manifest(one.target_tag)
            if named is not None and named.digest == one.digest:
                if not await there.delete_manifest(one.target_tag):
                    text = f"tag {one.target_tag} stays at the remote, which cannot delete tags"
                    run.log(text, "warning")
                    await self._end(run, policy, "REMOTE_REFUSED", text)
                    continue
                await self._deleted(policy, one)
                run.log(f"policy {policy.id}: deleted {one.remote}:{one.target_tag}")
            await self._forget(policy, [one])

    # --- sending ---

    async def _push(self, run: Run, policy: MirroringPolicy) -> None:
        """Mirror the tag of a job, unless it was moved since: then it is left to the job of its next push."""
        given = run.parameters
        tag, digest, target = given["tag"], given["digest"], given["remoteTag"]
        said, place = f"policy {policy.id}, tag {tag}", place_of(policy)
        if not await self._names(place, tag, digest):
            run.log(f"{said}: not mirrored, it was moved meanwhile")
            return

        async def mounts(blob: str) -> list[str]:
            return await self._policies.mounts(policy, blob)

        async with self._working(run, policy) as (there, remote):
            mirrored = MirroredTag(tag=tag, target_tag=target, remote=remote, digest=digest, status="mirrored")
            await self._send(
                there, place, mirrored, policy.actor, policy=policy.id, referrers=policy.referrers, mounts=mounts
            )
            await self._end(run, policy, SUCCESS, f"tag {tag}")
            run.log(f"{said}: mirrored to {remote}:{target}")

    async def _push_by_hand(self, run: Run) -> None:
        """Mirror what somebody asked for, whatever the tag names by now."""
        given = run.parameters
        tag, digest, target = given["tag"], given["digest"], given["remoteTag"]
        found = await self._repositories.get_many([int(given["repository"])])
        if not found:
            run.log("the repository is not there any more")
            return
        place = Place(found[0].id, found[0].path)
        try:
            remote = await self._definitions.remote(given["remote"], given["remoteRepository"])
            name = remote.full_name
            mirrored = MirroredTag(tag=tag, target_tag=target, remote=name, digest=digest, status="mirrored")
            async with self._remotes.connect(remote) as there:
                await self._send(there, place, mirrored, Actor(*json.loads(given["by"])))
        except FAILURES as error:
            raise failure(error, f"tag {tag}") from None
        await self._policies.forget_remote(given["remote"])
        run.log(f"tag {tag}: mirrored to {name}:{target}")

    async def _names(self, place: Place, tag: str, digest: str) -> bool:
        """Whether a tag of ours names the digest still."""
        stored = await self._local.find_manifest(place, tag)
        return stored is not None and stored.digest == digest

    async def _send(
        self,
        there: RemoteRepository,
        place: Place,
        mirrored: MirroredTag,
        by: Actor,
        *,
        policy: str = "",
        referrers: bool = False,
        mounts: Mounts | None = None,
    ) -> None:
        """Transfer an image, and write down what became of it."""
        try:
            await self._transfer.send(
                there, place, mirrored.digest, mirrored.target_tag, referrers=referrers, mounts=mounts
            )
        except FAILURES as error:
            await self._failed(place.id, policy, mirrored, error, by)
            raise
        await self._succeeded(place.id, policy, mirrored, by)
