"""
The actions: what jobs can do, by name.

Each is a function that may be repeated, and that stops when it is cancelled. DTR's names are kept; its `gc`, which
needed a read-only mode, has no counterpart.
"""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING

from dtr.durations import to_milliseconds
from dtr.jobs import JobFailed, JobFilter
from dtr.mirrors import POLL, PUSH, MirroringFailed
from dtr.registry import PROMOTE, VERIFY, RegistryError
from dtr.registry.collector import Collected
from dtr.registry.migration import MIGRATE, Move
from dtr.registry.sweeper import Swept
from dtr.storage import StorageError
from dtr.webhooks import DeliveryFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from dtr.accounts import Retention
    from dtr.backends import Backends
    from dtr.events import Bounds, Events
    from dtr.jobs import Action, Jobs, Level, ParameterKind, Run
    from dtr.mirrors import Cache, PollMirror, PushMirror
    from dtr.policies import Promotions, Pruning
    from dtr.registry import Collector, Lifetimes, Sweeper
    from dtr.registry.fsck import Fsck
    from dtr.registry.importing import Import, ImportPlan
    from dtr.registry.migration import Migration
    from dtr.settings import LiveSettings
    from dtr.signatures import Signatures
    from dtr.trust import OldFiles
    from dtr.webhooks import Deliveries

ACTIONS = {
    "onlinegc": "collects what nothing holds any more, and what is old: uploads, sessions, tokens, events, jobs;"
    " `grace`, `dryRun`, `unsafe`",
    "onlinegc_metadata": "collects manifests, blobs and deleted repositories; the same parameters",
    "onlinegc_blobs": "gives up expired uploads, and deletes objects that nothing names at the storage; `dryRun`",
    "onlinegc_events": "deletes old events, as the settings say; `dryRun`",
    "onlinegc_joblogs": "deletes old jobs and their logs, as the settings say; `dryRun`",
    "tag_prune": "works pruning policies off: all, or those of the repository with the id `repository`, or"
    " of these the one with the id `policy`",
    "promote": "shows a push, or what has become known of one, to the promotion policies of its repository, or all"
    " tags to one policy",
    "verify_signatures": "finds out whose signatures are: those in the manifest `manifest` of the repository with"
    " the id `repository`, in all of that, in the namespace of the account with the id `namespace`, or everywhere",
    "push_mirror_tag": "mirrors a tag to another registry, or shows all tags to the policy with the id `policy`",
    "poll_mirror": "brings tags from another registry by the policy with the id `policy`, or queues this for each;"
    " `everything`: also what has not changed; `anyDeletions`: however many are gone there",
    "cache_expire": "deletes tags of caches that nobody pulled for as long as their upstreams keep them",
    "trust_prune": "deletes files of content trust that newer ones took the place of long ago, but for roots",
    "webhook": "sends the delivery of a webhook with the id `delivery`",
    "fsck": "compares database and storages; `content` reads every blob, at most `rate` bytes a second, for"
    " `time`, from the one behind `after` on, and with `resume` goes on where the last one stopped; `repair`"
    " brings back what is lost, or marks it",
    "import_storage": "takes over what another registry left in a storage; `storage`, `prefix`, `names`,"
    " `namespace`, `createNamespaces`, `visibility`, `verify`, `dryRun`",
    "storage_migrate": "moves blobs to the storage `to`, which takes new ones from then on, from those in `from`"
    " or all others; `rate`, `parallel`, `keepSource`; `copied` only looks for what was copied by hand, `verify`"
    " reads it",
    "tag_pruning": "another name of tag_prune",
    "sleep": "sleeps for `seconds` (60), to try the queue",
    "false": "fails, to try the queue",
}
"""What each does, and its parameters."""
PARAMETERS: Mapping[str, Mapping[str, ParameterKind]] = {
    "onlinegc": {"grace": "duration", "dryRun": "flag", "unsafe": "flag"},
    "onlinegc_metadata": {"grace": "duration", "dryRun": "flag", "unsafe": "flag"},
    "onlinegc_blobs": {"dryRun": "flag"},
    "onlinegc_events": {"dryRun": "flag"},
    "onlinegc_joblogs": {"dryRun": "flag"},
    "tag_prune": {"repository": "number", "policy": "text"},
    "tag_pruning": {"repository": "number", "policy": "text"},
    "verify_signatures": {"repository": "number", "manifest": "text", "namespace": "text"},
    "push_mirror_tag": {"policy": "text", "everything": "flag", "anyDeletions": "flag"},
    "poll_mirror": {"policy": "text", "everything": "flag", "anyDeletions": "flag"},
    "webhook": {"delivery": "text"},
    "fsck": {
        "content": "flag",
        "repair": "flag",
        "rate": "number",
        "time": "duration",
        "after": "text",
        "resume": "flag",
    },
    "import_storage": {
        "storage": "text",
        "prefix": "text",
        "names": "text",
        "namespace": "text",
        "createNamespaces": "flag",
        "visibility": "text",
        "verify": "flag",
        "dryRun": "flag",
    },
    "storage_migrate": {
        "to": "text",
        "from": "text",
        "rate": "number",
        "parallel": "number",
        "keepSource": "flag",
        "copied": "flag",
        "verify": "flag",
    },
    "sleep": {"seconds": "number"},
}
"""Of what kind the parameters are that somebody may give, in the order in which a form has them."""
PASSING = frozenset({"promote", "verify_signatures", "push_mirror_tag", "poll_mirror", "webhook"})
"""What is queued by the thousand, and whose results are kept elsewhere: such jobs are forgotten a day later."""
AT_MOST = {"webhook": 6, "verify_signatures": 2, "push_mirror_tag": 4, "poll_mirror": 2}
"""How much of what waits for others, or computes, a worker does at once: places are left for the rest."""

PRUNING_SCHEDULE = "0 */15 * * * *"
"""When pruning policies are worked off, unless an administrator says otherwise."""
EXPIRY_SCHEDULE = "0 40 3 * * *"
"""When tags of caches expire, unless an administrator says otherwise."""
TRUST_SCHEDULE = "0 50 3 * * *"
"""When old files of content trust go, unless an administrator says otherwise."""
_SHORTEST_GRACE = 600_000
"""Milliseconds. A shorter one may take what a push under way was told to be there."""
_REPORT_SECONDS = 1.0
_MOST_FINDINGS = 10_000
"""In the log of a job."""
_LONGEST_NUMBER = 16
_WORDS = {"blobBytes": "bytes of blobs", "storedBytes": "bytes at the storage"}
"""What is freed, as the log of a job calls it; the rest is called there as in its result."""
_COPIES, _MOST_COPIES = 4, 64
"""Of blobs, at a time."""
_KNOWN_SECONDS = 3.0
"""Until every process knows where new blobs go."""


class Actions:
    """The actions over the rooms of a process."""

    def __init__(
        self,
        *,
        collector: Collector,
        sweeper: Sweeper,
        pruning: Pruning,
        promotions: Promotions,
        signatures: Signatures,
        push_mirror: PushMirror,
        poll_mirror: PollMirror,
        cache: Cache,
        old_files: OldFiles,
        deliveries: Deliveries,
        events: Events,
        logins: Retention,
        jobs: Jobs,
        audit: Callable[[], Fsck],
        importing: Callable[[ImportPlan], Import],
        migrating: Callable[[Move, Callable[[str, Level], None]], Migration],
        backends: Backends,
        live: LiveSettings,
        event_bounds: Callable[[], Bounds],
        lifetimes: Lifetimes,
    ) -> None:
        self._collector = collector
        self._sweeper = sweeper
        self._pruning = pruning
        self._promotions = promotions
        self._signatures = signatures
        self._push_mirror = push_mirror
        self._poll_mirror = poll_mirror
        self._cache = cache
        self._old_files = old_files
        self._deliveries = deliveries
        self._events = events
        self._logins = logins
        self._jobs = jobs
        self._audit = audit
        self._importing = importing
        self._migrating = migrating
        self._backends = backends
        self._live = live
        self._event_bounds = event_bounds
        self._lifetimes = lifetimes

    def by_name(self) -> Mapping[str, Action]:
        """All of them."""
        return {
            "onlinegc": partial(self._free, self._collect_everything),
            "onlinegc_metadata": partial(self._free, self._collect),
            "onlinegc_blobs": partial(self._free, self._sweep),
            "onlinegc_events": partial(self._free, self._compact_events),
            "onlinegc_joblogs": partial(self._free, self._prune_jobs),
            "tag_prune": self._prune,
            "tag_pruning": self._prune,
            PROMOTE: self._promote,
            VERIFY: self._verify,
            PUSH: self._push,
            POLL: self._poll,
            "cache_expire": self._expire,
            "trust_prune": self._forget_files,
            "webhook": self._deliver,
            "fsck": self._check,
            "import_storage": self._import,
            MIGRATE: self._migrate,
            "sleep": _sleep,
            "false": _fail,
        }

    async def _collect_everything(self, run: Run) -> dict[str, int]:
        freed: dict[str, int] = {}
        for part in (
            self._prune_jobs,
            self._compact_events,
            self._forget_logins,
            self._collect,
            self._sweep,
        ):
            if run.is_nearly_over:
                break
            freed |= await part(run)
        return freed

    async def _free(self, part: Callable[[Run], Awaitable[dict[str, int]]], run: Run) -> None:
        """Do what frees something, unless that is switched off; or (`dryRun`) only say what there is."""
        if (await self._live.refresh()).garbage_collection == "off":
            run.log("garbage collection is switched off: nothing is deleted", "warning")
        elif _flag(run, "dryRun"):
            await self._foresee(run)
        else:
            freed = await part(run)
            if run.is_nearly_over:
                run.log("its time is over: what is left is for the next one", "warning")
            run.report(freed)
            words = (f"{_WORDS.get(name, name)} {number}" for name, number in freed.items())
            run.log(f"freed: {', '.join(words)}")

    async def _foresee(self, run: Run) -> None:
        due = await self._collector.count_due(_grace(run))
        free = await self._collector.count_free(_grace(run))
        run.log(f"{_due(due)}; {free.blobs} blobs of {free.size} bytes would go at once")
        waiting = await self._sweeper.count_due()
        run.log(f"{waiting.uploads} uploads are over; {waiting.objects} objects of {waiting.size} bytes are due")
        ended = await self._logins.count()
        run.log(f"{ended.sessions} sessions and {ended.tokens} tokens are over")
        run.log("this is a dry run: nothing is deleted; old events and jobs are not counted")
        run.report(
            {
                "repositories": due.repositories,
                "manifests": due.manifests,
                "links": due.links,
                "blobs": free.blobs,
                "blobBytes": free.size,
                "uploads": waiting.uploads,
                "objects": waiting.objects,
                "storedBytes": waiting.size,
                "sessions": ended.sessions,
                "tokens": ended.tokens,
            }
        )

    async def _collect(self, run: Run) -> dict[str, int]:
        grace = _grace(run)
        due = await self._collector.count_due(grace)
        run.log(_due(due))
        expected = due.manifests + due.links
        total, reported = Collected(), asyncio.get_running_loop().time()
        while not run.is_nearly_over:
            collected = await self._collector.collect(grace=grace)
            total += collected
            looked_at = total.manifests + total.links + total.kept
            run.progress(looked_at, max(expected, looked_at), "rows")
            if not collected.went_on:
                break
            if asyncio.get_running_loop().time() - reported > _REPORT_SECONDS:
                reported = asyncio.get_running_loop().time()
                run.log(f"looked at {looked_at}, freed {total.size} bytes so far")
        minutes = self._lifetimes.delete_delay // 60_000
        run.log(f"kept {total.kept}, postponed {total.postponed}; objects go {minutes} minutes after their blobs")
        return {
            "repositories": total.repositories,
            "manifests": total.manifests,
            "links": total.links,
            "blobs": total.blobs,
            "blobBytes": total.size,
        }

    async def _sweep(self, run: Run) -> dict[str, int]:
        total = Swept()
        while not run.is_nearly_over:
            swept = await self._sweeper.sweep()
            total += swept
            run.progress(total.objects, None, "objects")
            if not swept.is_full:
                break
        if total.failures:
            run.log(f"{total.failures} objects could not be deleted: they are tried again later", "warning")
        return {"uploads": total.uploads, "objects": total.objects, "storedBytes": total.size}

    async def _compact_events(self, _run: Run) -> dict[str, int]:
        await self._live.refresh()
        return {"events": await self._events.retention.compact(self._event_bounds())}

    async def _forget_logins(self, _run: Run) -> dict[str, int]:
        forgotten = await self._logins.forget()
        return {"sessions": forgotten.sessions, "tokens": forgotten.tokens}

    async def _prune_jobs(self, run: Run) -> dict[str, int]:
        values = await self._live.refresh()  # whoever starts this may just have switched it on
        if not values.job_history_compaction_enabled:
            run.log("jobs are kept: their deletion is not switched on")
            return {"jobs": 0}
        removed = await self._jobs.prune(
            max_age=values.job_history_max_age_ms, keep=values.job_history_to_keep or None
        )
        return {"jobs": removed}

    async def _prune(self, run: Run) -> None:
        if (await self._live.refresh()).read_only_registry:
            run.log("the registry is read-only: no tag is deleted", "warning")
            return
        repository = run.parameters.get("repository", "")
        if repository and not repository.isdecimal():
            raise JobFailed("repository is the id of a repository")
        which = run.parameters.get("policy", "") if repository else ""
        number = int(repository) if repository else None
        async for done in self._pruning.work_off(number, policy=which, job=run.job):
            run.log(done.text)
        if not repository:
            await self._promotions.pushes.forget_gone()

    async def _promote(self, run: Run) -> None:
        if "policy" not in run.parameters:
            await self._push_mirror.show(run)
        if (await self._live.refresh()).read_only_registry:
            run.log("the registry is read-only: nothing is promoted", "warning")
            return
        failed = 0
        async for outcome in self._promotions.work_off(run.parameters, job=run.job):
            run.log(outcome.text, "error" if outcome.failed else "info")
            failed += outcome.failed
        if failed:
            raise JobFailed(f"{failed} tags could not be promoted")

    async def _verify(self, run: Run) -> None:
        repository, manifest = run.parameters.get("repository", ""), run.parameters.get("manifest", "")
        if (repository or manifest) and not repository.isdecimal():
            raise JobFailed("repository is the id of a repository")
        try:
            if manifest:
                await self._signatures.verify(int(repository), manifest)
                return
            total = 0
            async for count in self._signatures.verify_all(
                namespace=run.parameters.get("namespace"), repository=int(repository) if repository else None
            ):
                total += count
                run.progress(total, None, "manifests")
        except StorageError as error:
            raise JobFailed(f"a signature cannot be read: {error}") from None
        run.log(f"looked at {total} manifests with signatures")

    async def _push(self, run: Run) -> None:
        await _mirror(self._push_mirror.work(run))

    async def _poll(self, run: Run) -> None:
        if (await self._live.refresh()).read_only_registry:
            run.log("the registry is read-only: nothing comes here", "warning")
            return
        await _mirror(self._poll_mirror.work(run))

    async def _expire(self, run: Run) -> None:
        if (await self._live.refresh()).read_only_registry:
            run.log("the registry is read-only: no tag is deleted", "warning")
            return
        async for path, deleted in self._cache.expire():
            run.log(f"deleted of {path}: {', '.join(sorted(deleted))}")

    async def _forget_files(self, run: Run) -> None:
        total = 0
        async for count in self._old_files.forget():
            total += count
            run.progress(total, None, "files")
        run.log(f"deleted {total} files of content trust")

    async def _deliver(self, run: Run) -> None:
        try:
            run.log(await self._deliveries.deliver(run.parameters.get("delivery", "")))
        except DeliveryFailed as error:
            raise JobFailed(str(error)) from None

    async def _check(self, run: Run) -> None:
        from dtr.registry.fsck import Audit  # this and the next are rare, and large

        await self._backends.refresh()  # a storage that was replaced a moment ago is no damage
        fsck = self._audit()
        rate, seconds = _number(run, "rate"), _milliseconds(run, "time")
        ends_at = None if seconds is None else asyncio.get_running_loop().time() + seconds / 1000

        def is_over() -> bool:
            late = ends_at is not None and asyncio.get_running_loop().time() > ends_at
            return late or run.is_nearly_over

        how = Audit(
            content=_flag(run, "content"),
            repair=_flag(run, "repair"),
            rate=rate,
            after=run.parameters.get("after", ""),
            resume=_flag(run, "resume"),
            is_over=is_over,
        )
        damage = told = 0
        async for found in fsck.run(how):
            damage += found.is_damage
            told += 1
            if told <= _MOST_FINDINGS:
                run.log(found.text, "error" if found.is_damage else "warning")
            run.progress(fsck.blobs, None, "blobs")
        if told > _MOST_FINDINGS:
            run.log(f"{told - _MOST_FINDINGS} more findings are counted alone", "warning")
        run.log(fsck.counted)
        run.report({**fsck.numbers, "damage": damage, "notes": told - damage})
        if damage:
            raise JobFailed(f"{damage} findings are damage")

    async def _import(self, run: Run) -> None:
        from dtr.registry.importing import ImportPlan, parse_names

        given = run.parameters
        if (await self._live.refresh()).read_only_registry and not _flag(run, "dryRun"):
            run.log("the registry is read-only: nothing comes here", "warning")
            return
        try:
            plan = ImportPlan(
                storage=given.get("storage") or "default",
                prefix=given.get("prefix", ""),
                names=parse_names(filter(None, given.get("names", "").split(","))),
                namespace=given.get("namespace", ""),
                create_namespaces=_flag(run, "createNamespaces"),
                visibility=given.get("visibility") or "private",  # type: ignore[arg-type]  # checked there
                verify=_flag(run, "verify"),
                dry_run=_flag(run, "dryRun"),
            )
            importing = self._importing(plan)
            async with _reporting(lambda: run.progress(importing.done, importing.total, "links")):
                await importing.run(lambda text: run.log(text, "warning"))
        except (RegistryError, StorageError) as error:
            raise JobFailed(str(error)) from None
        run.log(importing.report)

    async def _migrate(self, run: Run) -> None:
        for other in await self._jobs.list_jobs(JobFilter(action=MIGRATE, state="running"), limit=2):
            if other.id != run.job:  # they might send the same blobs back and forth
                raise JobFailed(f"the job {other.id} moves blobs already", retry_after=60)
        move = await self._move(run)
        await self._send_new_blobs(move)
        migration = self._migrating(move, run.log)
        progress = migration.progress
        try:
            async with _reporting(
                lambda: run.progress(progress.size, max(progress.all_size, progress.size), "bytes")
            ):
                if _flag(run, "copied"):
                    await migration.adopt(verify=_flag(run, "verify"))
                else:
                    await migration.run()
        except RegistryError as error:
            raise JobFailed(str(error)) from None
        finally:
            run.log(f"moved {progress.blobs} blobs of {progress.size} bytes to {move.target}")
            run.report(
                {
                    "blobs": progress.blobs,
                    "bytes": progress.size,
                    "failed": progress.failed,
                    "uploads": progress.uploads,
                }
            )
        if progress.uploads:
            run.log(f"{progress.uploads} uploads that nobody went on with stay where they are", "warning")
        if progress.failed:
            raise JobFailed(f"{progress.failed} blobs stay where they are", is_lasting=True)

    async def _move(self, run: Run) -> Move:
        await self._backends.refresh()  # whoever starts this may just have described the storage
        target = run.parameters.get("to", "")
        names = [one.name for one in await self._backends.list_storages()]
        sources = tuple(filter(None, run.parameters.get("from", "").split(",")))
        for name in (target, *sources):
            if name not in names:
                raise JobFailed(f"there is no storage called {name!r}", is_lasting=True)
        if target in sources:
            raise JobFailed(f"{target} is where the blobs go", is_lasting=True)
        return Move(
            sources=sources or tuple(name for name in names if name != target),
            target=target,
            rate=_number(run, "rate"),
            parallel=min(_number(run, "parallel") or _COPIES, _MOST_COPIES),
            keep_source=_flag(run, "keepSource"),
        )

    async def _send_new_blobs(self, move: Move) -> None:
        """Let new blobs go where the old ones are moved to: else there would be no end of it."""
        changed = False
        if any(one.is_default and one.name in move.sources for one in await self._backends.list_storages()):
            await self._backends.make_default(move.target)
            changed = True
        for one in await self._backends.assignments():
            if one.storage in move.sources:
                await self._backends.assign(one.namespace_id, move.target)
                changed = True
        if changed:
            await asyncio.sleep(_KNOWN_SECONDS)


def _grace(run: Run) -> int | None:
    """So many milliseconds ago something must have been let go to be due; None: as long as promises last."""
    text = run.parameters.get("grace", "")
    if not text:
        return None
    try:
        grace = to_milliseconds(text)
    except ValueError as error:
        raise JobFailed(f"grace {error}") from None
    if grace < _SHORTEST_GRACE and not _flag(run, "unsafe"):
        raise JobFailed("a grace below 10m may break pushes that are under way: give unsafe=true with it")
    return grace


def _milliseconds(run: Run, name: str) -> int | None:
    """A time that the parameters give. Raises JobFailed."""
    text = run.parameters.get(name, "")
    try:
        return to_milliseconds(text) if text else None
    except ValueError as error:
        raise JobFailed(f"{name} {error}") from None


def _number(run: Run, name: str) -> int | None:
    """A number above 0 that the parameters give. Raises JobFailed."""
    text = run.parameters.get(name, "")
    if text and not (text.isdecimal() and len(text) < _LONGEST_NUMBER and int(text)):
        raise JobFailed(f"{name} is a whole number above 0")
    return int(text) if text else None


@contextlib.asynccontextmanager
async def _reporting(report: Callable[[], None]) -> AsyncIterator[None]:
    """Report each second, while the block goes on, and at its end."""

    async def again() -> None:
        while True:
            report()
            await asyncio.sleep(_REPORT_SECONDS)

    reporting = asyncio.create_task(again())
    try:
        yield
    finally:
        reporting.cancel()
        report()


def _due(due: Collected) -> str:
    return f"{due.manifests} manifests, {due.links} links of blobs and {due.repositories} repositories are due"


async def _mirror(work: Awaitable[None]) -> None:
    try:
        await work
    except MirroringFailed as error:
        raise JobFailed(str(error), retry_after=error.retry_after, is_lasting=error.is_lasting) from None


async def _sleep(run: Run) -> None:
    text = run.parameters.get("seconds", "60")
    if not text.isdecimal() or int(text) > 86_400:
        raise JobFailed("seconds is a whole number, a day at most")
    run.log(f"sleeps for {text} seconds")
    for second in range(int(text)):
        run.progress(second, int(text), "seconds")
        await asyncio.sleep(1)


async def _fail(_run: Run) -> None:
    raise JobFailed("this action fails always")


def _flag(run: Run, name: str) -> bool:
    return run.parameters.get(name, "").lower() in {"true", "t", "1", "yes"}
