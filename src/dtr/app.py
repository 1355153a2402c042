"""
The composition root: builds the rooms from the settings, and the applications over them.

Nothing else knows all the others, and nothing is looked up by name.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import re
import socket
from functools import cached_property
from typing import TYPE_CHECKING

from dtr import __version__
from dtr.accounts import (
    SHARED_ORGANIZATION,
    Accounts,
    NameTaken,
    Passwords,
    Retention,
    SessionRules,
    SigningKeys,
    Tokens,
)
from dtr.actions import (
    ACTIONS,
    AT_MOST,
    EXPIRY_SCHEDULE,
    PARAMETERS,
    PASSING,
    PRUNING_SCHEDULE,
    TRUST_SCHEDULE,
    Actions,
)
from dtr.backends import Backends, Own
from dtr.cluster import Alerts, Health, Replica, Replicas, replica_id
from dtr.config import split_address
from dtr.db import DatabaseError, open_database
from dtr.enforcement import Enforcement
from dtr.events import Bounds, Events
from dtr.events.tag_history import TagHistory
from dtr.http.front import Front
from dtr.http.hosts import Hosts
from dtr.http.limits import Limits as RequestLimits
from dtr.http.limits import Rule
from dtr.http.operations import Operations
from dtr.jobs import ActionDescription, Crons, JobRequest, Jobs, Level, Worker, Workers
from dtr.mirrors import (
    SCHEDULE,
    Cache,
    Local,
    MirroringPolicies,
    PollMirror,
    PushMirror,
    Refetch,
    Transfer,
    Upstreams,
)
from dtr.outbound import Addresses, Outside
from dtr.policies import Promotions, Pruning, TagReader
from dtr.policies.tag_search import TagSearch
from dtr.registry import (
    Blobs,
    Collector,
    ImageConfigs,
    Images,
    Lifetimes,
    Manifests,
    Migration,
    Move,
    Pins,
    Promotion,
    Pulls,
    Repositories,
    Search,
    Summaries,
    Sweeper,
    Totals,
    Uploads,
    Usage,
    show_signed,
)
from dtr.registry.attachments import Attachments
from dtr.registry.lifetimes import DAY
from dtr.remotes import Definitions, Remotes
from dtr.settings import LiveSettings, Values
from dtr.signatures import Identities, Signatures, Sigstore
from dtr.signer import LocalSigner, RemoteSigner
from dtr.storage import Storages
from dtr.storage.definitions import DEFAULT
from dtr.trust import OldFiles, Trust
from dtr.trust.index import TrustIndex
from dtr.vault import Vault
from dtr.webhooks import Deliveries, Dispatcher, Sender, Webhooks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dtr.config import Settings
    from dtr.db import Database
    from dtr.http.api.rooms import Rooms
    from dtr.http.front import Facts
    from dtr.http.types import ASGIApp, Scope
    from dtr.metrics import Metrics
    from dtr.pki import Certificate
    from dtr.registry.fsck import Fsck
    from dtr.registry.importing import Import, ImportPlan
    from dtr.signer import Signer
    from dtr.storage import Driver

_log = logging.getLogger("dtr.app")

_PASSWORD = re.compile(r"(?<=//)([^:/@]*):[^/]*@")
_AGAIN_SECONDS = 5.0
"""From an error that nothing else caught to the next attempt of the background work."""


class Application:
    """The rooms of one process, over one database and one storage."""

    def __init__(self, settings: Settings) -> None:
        """Build them; nothing is connected before the first use. Raises DatabaseError, TrustRootInvalid."""
        self.settings = settings
        self.database: Database = open_database(settings.database_url, size=settings.database.pool_size)
        self.storage = Storages({DEFAULT: open_storage(settings)}, DEFAULT, redirect=settings.storage.redirect)
        registry = settings.registry
        self.lifetimes = Lifetimes(
            lease=registry.lease_seconds * 1000,
            slack=registry.slack_seconds * 1000,
            untagged_after=registry.untagged_seconds * 1000,
            delete_delay=registry.delete_delay_seconds * 1000,
            upload_ttl=registry.upload_seconds * 1000,
        )
        self.live = LiveSettings(
            self.database,
            Values(create_repository_on_push=registry.create_on_push, dtr_host=settings.external_address or ""),
        )
        self.hosts = Hosts(self.live, settings.trust.names)
        self.accounts = Accounts(
            self.database,
            Passwords(memory_kib=settings.auth.hash_memory_kib, passes=settings.auth.hash_passes),
            self._session_rules,
        )
        self.tokens = Tokens(
            SigningKeys(self.database, key_days=settings.auth.key_days),
            service=settings.auth.service,
            life_seconds=settings.auth.token_seconds,
        )
        self.repositories = Repositories(self.database)
        self.blobs = Blobs(self.database, self.lifetimes)
        self.uploads = Uploads(
            self.database,
            self.storage,
            self.lifetimes,
            blob_limit=registry.blob_limit,
            inline_limit=registry.inline_limit,
        )
        self.manifests = Manifests(self.database, self.lifetimes, sparse_manifests=registry.sparse_manifests)
        self.promotion = Promotion(self.database, self.lifetimes, sparse_manifests=registry.sparse_manifests)
        self.pulls = Pulls(self.database)
        self.usage = Usage(self.database)
        self.events = Events(self.database)
        self.image_configs = ImageConfigs(self.database, self.storage)
        self.images = Images(self.database, self.image_configs)
        self.signed = TrustIndex(self.database, signed=show_signed)
        # Scanning will be another source of what it does not know by itself.
        trust_root = settings.signatures.trust_root
        sigstore = None if trust_root is None else Sigstore(trust_root)
        self.identities = Identities(self.database, takes_keyless=sigstore is not None)
        self.signatures = Signatures(self.database, self.storage, sigstore=sigstore)
        self.tag_reader = TagReader(
            self.database, self.images, trust=self.signed.signed, signers=self.signatures.verified_by
        )
        self.pruning = Pruning(self.database, self.tag_reader, self.manifests)
        self.promotions = Promotions(self.database, self.tag_reader, self.promotion)
        vault = Vault(settings.secret_key_file)
        self.backends = Backends(
            self.database,
            vault,
            self.storage,
            Own(
                settings.storage.driver,
                settings.storage_parameters,
                settings.storage.redirect_seconds,
                settings.storage.redirect_except,
            ),
            spool_directory=settings.data_dir.absolute(),
        )
        self.webhooks = Webhooks(self.database, vault)
        self.deliveries = Deliveries(
            self.database,
            vault,
            Sender(Outside(Addresses(settings.webhooks.allowed_networks), proxy_of=_proxy_of)),
            self._host,
        )
        self.remotes = Remotes(
            Outside(Addresses(settings.mirroring.allowed_networks), proxy_of=_proxy_of),
            user_agent=f"dtr/{__version__}",
            manifest_limit=registry.manifest_limit,
        )
        self.definitions = Definitions(self.database, vault)
        self.local = Local(
            self.database, self.storage, blobs=self.blobs, uploads=self.uploads, manifests=self.manifests
        )
        self.transfer = Transfer(self.local, self.manifests)
        self.mirroring = MirroringPolicies(self.database)
        self.upstreams = Upstreams(self.database)
        self.cache = Cache(
            self.database,
            self.upstreams,
            remotes=self.remotes,
            definitions=self.definitions,
            repositories=self.repositories,
            uploads=self.uploads,
            manifests=Manifests(self.database, self.lifetimes, sparse_manifests=True, fills_caches=True),
            configs=self.image_configs,
            is_read_only=lambda: self.live.current.read_only_registry,
            directory=settings.data_dir,
        )
        self.enforcement = Enforcement(self.database)
        self.signer = open_signer(settings, self.database)
        self.health = Health(self.database, self.storage, self.signer if settings.trust.enabled else None)
        self.trust = Trust(
            self.database, self.signer, key_algorithm=settings.trust.key_algorithm, signed=show_signed
        )
        self.sweeper = Sweeper(self.database, self.storage)
        self.collector = Collector(self.database, self.lifetimes)
        self.jobs = Jobs(self.database)
        self.crons = Crons(self.database)
        self.workers = Workers(self.database)
        self._metrics: Metrics | None = None
        self._certificate: Certificate | None = None

    async def ensure_admin(self, password: str) -> bool:
        """Make the first accounts when there are none; whether it did."""
        if not await self.accounts.is_empty():
            return False
        try:
            await self.accounts.create_user("admin", password, full_name="Administrator", is_admin=True)
            await self.accounts.create_organization(SHARED_ORGANIZATION)
            await self.accounts.organizations.put_member(SHARED_ORGANIZATION, "admin")
        except NameTaken:  # another host was first
            return False
        return True

    def front(
        self, certificate: Certificate | None, metrics: Metrics, limits: RequestLimits | None = None
    ) -> Front:
        """The ASGI application of the components that this process runs."""
        settings = self.settings
        self._metrics = metrics
        if "jobrunner" in settings.components:
            metrics.queue = self._queue
        self.database.observe = metrics.database_used
        self.storage.observe = metrics.storage_used
        self.enforcement.observe = metrics.pull_objected
        routes: dict[str, ASGIApp] = {}
        within: dict[str, tuple[str, ASGIApp]] = {}
        pages: tuple[str, ...] = ()
        people: ASGIApp | None = None
        if "registry" in settings.components:
            routes["v2"] = self._registry_api()
            if settings.trust.enabled:
                from dtr.http.trust.routes import HEALTH, MARK

                routes[HEALTH] = self._trust_api()
                within["v2"] = (MARK, routes[HEALTH])
        if "garant" in settings.components:
            from dtr.http.token import TokenService

            routes["auth"] = TokenService(
                self.accounts,
                self.tokens,
                self.upstreams,
                self.live,
                self.hosts,
                service=settings.auth.service,
            )
        if "api" in settings.components:
            from dtr.http.lazy import Lazy
            from dtr.http.ui import PLACES

            self._certificate = certificate
            api, ui = Lazy(self._api), Lazy(self._ui)
            routes.update(dict.fromkeys(("api", "enzi", "v1", "/auth/login", "/basic_info"), api))
            routes.update(dict.fromkeys(PLACES, ui))
            pages, people = PLACES, ui
        https_port = None
        if settings.https_address is not None and not settings.http_serves:
            https_port = int(settings.https_address.rpartition(":")[2])
        operations = Operations(
            self.health,
            authority=certificate.authority if certificate else None,
            metrics=metrics.render,
            pages=people,
        )
        return Front(
            routes,
            operations,
            finished=self._observer(metrics),
            started=metrics.request_started,
            within=within,
            https_port=https_port,
            trusted_proxies=settings.trusted_proxies,
            plain=("_ping", "health", "ca"),
            pages=pages,
            limits=limits,
        )

    def _host(self) -> str:
        """``HOST[:PORT]`` that clients use; empty: nobody said."""
        return self.live.current.dtr_host

    def _collects(self) -> bool:
        """Whether what nothing holds is collected all the time."""
        return self.live.current.garbage_collection == "continuous"

    def audit(self) -> Fsck:
        """An audit of database and storage."""
        from dtr.registry.fsck import Fsck

        return Fsck(
            self.database,
            self.storage,
            self.lifetimes,
            sparse_manifests=self.settings.registry.sparse_manifests,
            refetch=Refetch(
                self.database,
                self.upstreams,
                definitions=self.definitions,
                remotes=self.remotes,
                local=self.local,
            ),
        )

    def importing(self, plan: ImportPlan) -> Import:
        """An import of what another registry left in a storage."""
        from dtr.registry.importing import Import

        return Import(
            self.database,
            self.storage,
            accounts=self.accounts,
            repositories=self.repositories,
            manifests=self.manifests,
            lifetimes=self.lifetimes,
            manifest_limit=self.settings.registry.manifest_limit,
            plan=plan,
        )

    def migrating(self, move: Move, tell: Callable[[str, Level], None]) -> Migration:
        """A migration between storages; `tell` is given a text and a level."""
        return Migration(self.database, self.storage, self.lifetimes, move, tell)

    def _session_rules(self) -> SessionRules:
        minute, values = 60_000, self.live.current
        return SessionRules(
            lifetime=values.session_lifetime_minutes * minute,
            renewal=values.session_renewal_threshold_minutes * minute,
            per_user=values.sessions_per_user,
        )

    def _event_bounds(self) -> Bounds:
        values, days = self.live.current, self.settings.events.audit_days
        audit_age = None if days is None else days * 86_400_000
        if not values.repo_event_history_compaction_enabled:
            return Bounds(audit_age=audit_age)
        return Bounds(
            max_age=values.repo_event_history_max_age_ms,
            keep=values.repo_event_history_to_keep or None,
            audit_age=audit_age,
        )

    async def run_background(self) -> None:
        """What goes on beside the requests, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.sweeper.run(self._collects))
            group.create_task(self.collector.run(self._collects))
            await self.crons.ensure(PRUNING_SCHEDULE, JobRequest(action="tag_prune"))
            await self.crons.ensure(SCHEDULE, JobRequest(action="poll_mirror"))
            await self.crons.ensure(EXPIRY_SCHEDULE, JobRequest(action="cache_expire"))
            await self.crons.ensure(TRUST_SCHEDULE, JobRequest(action="trust_prune"))
            group.create_task(self.mirroring.keep_schedules())
            group.create_task(self._worker().run())
            group.create_task(self._dispatcher().run())
            group.create_task(self.usage.run())
            group.create_task(self.events.retention.run(self._event_bounds))
            given = self.settings.events
            if given.syslog_address is not None:
                from dtr.events.syslog import Syslog

                syslog = Syslog(
                    self.database, given.syslog_address, given.syslog_facility, holder=self.replicas.own.id
                )
                group.create_task(syslog.run())

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.database,
            self.deliveries,
            repositories=self.repositories,
            configs=self.image_configs,
            usage=self.usage,
            host=self._host,
            holder=self.replicas.own.id,
        )

    def _worker(self) -> Worker:
        """The worker of this replica."""
        mirror = (self.database, self.mirroring, self.definitions, self.remotes, self.transfer)
        actions = Actions(
            collector=Collector(self.database, self.lifetimes),
            sweeper=self.sweeper,
            pruning=self.pruning,
            promotions=self.promotions,
            signatures=self.signatures,
            push_mirror=PushMirror(*mirror, tags=self.tag_reader, repositories=self.repositories),
            poll_mirror=PollMirror(*mirror),
            cache=self.cache,
            old_files=OldFiles(self.database),
            deliveries=self.deliveries,
            events=self.events,
            logins=Retention(self.database, kept=self.settings.auth.ended_token_days * DAY),
            jobs=self.jobs,
            audit=self.audit,
            importing=self.importing,
            migrating=self.migrating,
            backends=self.backends,
            live=self.live,
            event_bounds=self._event_bounds,
            lifetimes=self.lifetimes,
        )
        own = self.replicas.own
        return Worker(
            self.database,
            self.crons,
            actions.by_name(),
            worker=own.id,
            node=own.node,
            at_most=AT_MOST,
            passing=PASSING,
            observe=self._metrics.job_ended if self._metrics is not None else None,
        )

    async def _queue(self) -> dict[str, tuple[int, float, int]]:
        """The queue of jobs, for the metrics; empty, when the database does not say."""
        try:
            return dict.fromkeys(ACTIONS, (0, 0.0, 0)) | await self.jobs.state()
        except DatabaseError:
            return {}

    async def close(self) -> None:
        """Give back connections, files and threads; what waits to be written is written."""
        await self.cache.close()
        await self.pulls.close()
        await self.enforcement.refusals.close()
        await self.image_configs.close()
        await self.signer.close()
        await self.storage.close()
        await self.database.close()

    def _registry_api(self) -> ASGIApp:
        from dtr.http.v2 import Options, RegistryAPI

        settings = self.settings
        return RegistryAPI(
            tokens=self.tokens,
            accounts=self.accounts,
            repositories=self.repositories,
            blobs=self.blobs,
            uploads=self.uploads,
            manifests=self.manifests,
            configs=self.image_configs,
            pulls=self.pulls,
            cache=self.cache,
            enforcement=self.enforcement,
            storage=self.storage,
            settings=self.live,
            options=Options(
                service=settings.auth.service,
                manifest_limit=settings.registry.manifest_limit,
                chunk_minimum=settings.registry.chunk_minimum,
                delete_enabled=settings.registry.delete,
                page_size=settings.registry.page_size,
            ),
        )

    def _trust_api(self) -> ASGIApp:
        from dtr.http.trust import Options, TrustAPI

        settings = self.settings
        return TrustAPI(
            trust=self.trust,
            tokens=self.tokens,
            accounts=self.accounts,
            settings=self.live,
            hosts=self.hosts,
            health=self.health,
            options=Options(
                service=settings.auth.service,
                current_age=settings.trust.current_age,
                consistent_age=settings.trust.consistent_age,
                update_limit=settings.trust.update_limit,
                changes_after=settings.trust.changes_after_seconds,
            ),
        )

    @cached_property
    def replicas(self) -> Replicas:
        """The process trees of this installation, this one among them. Raises OSError."""
        settings = self.settings
        http, https = (
            split_address(address)[1] if address else None
            for address in (settings.http_address, settings.https_address)
        )
        number = replica_id(settings.data_dir)
        own = Replica(number, socket.gethostname(), __version__, tuple(settings.components), http, https)
        return Replicas(self.database, own)

    def _api(self) -> ASGIApp:
        from dtr.http.api.app import build

        return build(self._rooms)

    def _ui(self) -> ASGIApp:
        from dtr.http.ui.app import build

        return build(self._rooms)

    @cached_property
    def _rooms(self) -> Rooms:
        """What the API and the pages call."""
        from dtr.http.api.rooms import Installation, Rooms

        certificate = self._certificate
        return Rooms(
            database=self.database,
            storage=self.storage,
            backends=self.backends,
            accounts=self.accounts,
            repositories=self.repositories,
            manifests=self.manifests,
            blobs=self.blobs,
            images=self.images,
            attachments=Attachments(self.database, self.images),
            signed=self.signed,
            trust=self.trust,
            promotion=self.promotion,
            usage=self.usage,
            totals=Totals(self.database, self.collector),
            live=self.live,
            search=Search(self.database, self.accounts),
            summaries=Summaries(self.database, self.accounts),
            pins=Pins(self.database),
            pulls=self.pulls,
            tokens=self.tokens,
            events=self.events,
            tag_history=TagHistory(self.database),
            pruning=self.pruning,
            promotions=self.promotions,
            tag_reader=self.tag_reader,
            tag_search=TagSearch(self.database),
            identities=self.identities,
            signatures=self.signatures,
            mirroring=self.mirroring,
            remotes=self.remotes,
            definitions=self.definitions,
            upstreams=self.upstreams,
            enforcement=self.enforcement,
            webhooks=self.webhooks,
            deliveries=self.deliveries,
            jobs=self.jobs,
            crons=self.crons,
            workers=self.workers,
            actions={name: ActionDescription(text, PARAMETERS.get(name, {})) for name, text in ACTIONS.items()},
            replicas=self.replicas,
            alerts=Alerts(
                self.database,
                self.health,
                self.replicas,
                self.live,
                lambda: self._certificate_findings(certificate),
            ),
            health=self.health,
            certificate_findings=lambda: self._certificate_findings(certificate),
            installation=Installation(
                log_level=self.settings.log.level,
                deletes=self.settings.registry.delete,
                proxies=_proxies() if self.settings.storage.driver not in {"filesystem", "memory"} else {},
                certificate=certificate.chain if certificate else None,
                authority=certificate.authority if certificate else None,
                makes_certificate=certificate is not None and self.settings.tls.certificate is None,
            ),
        )

    def _certificate_findings(self, certificate: Certificate | None) -> list[tuple[bool, str]]:
        """What is wrong with the certificate, and whether clients refuse it. For a thread."""
        if certificate is None:
            return []
        from dtr.pki import examine

        names = [*self.settings.tls.names, self.live.current.host_name]
        findings = examine(certificate, filter(None, names), dt.datetime.now(dt.UTC))
        return [(one.serious, one.text) for one in findings]

    @staticmethod
    def _observer(metrics: Metrics) -> Callable[[Scope, Facts], None]:
        from dtr.logs import access

        def finished(scope: Scope, facts: Facts) -> None:
            access(scope, facts)
            metrics.request_finished(scope, facts)

        return finished


def _proxies() -> dict[str, str]:
    """The proxies that the environment names, without passwords."""
    from urllib.request import getproxies_environment

    return {kind: _PASSWORD.sub(r"\1:********@", address) for kind, address in getproxies_environment().items()}


def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies_environment, proxy_bypass

    parts, proxies = urlsplit(url), getproxies_environment()
    if proxy_bypass(parts.netloc):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


def open_storage(settings: Settings) -> Driver:
    """The storage that the settings describe. Raises StorageError."""
    if settings.storage.driver == "filesystem" and settings.storage.filesystem.root is None:
        # One that was named may be a mount that is not there now.
        settings.blob_directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    return settings.storage_parameters.open(settings.data_dir.absolute())


def request_limits(settings: Settings) -> RequestLimits | None:
    """What limits one client, for all workers together: made before they are forked. None: nothing does."""
    given = settings.limits
    address = Rule(given.address_rate, given.address_burst, given.address_transfers)
    account = Rule(given.account_rate, given.account_burst, given.account_transfers)
    if all(one is None for rule in (address, account) for one in (rule.rate, rule.transfers)):
        return None
    return RequestLimits(address, account, exempt=given.exempt_networks, workers=settings.workers)


def open_signer(settings: Settings, database: Database) -> Signer:
    """The signer that the settings name: a remote one, or one in this process over the database."""
    given = settings.trust.signer
    if given.address is not None and given.ca and given.certificate and given.key:
        return RemoteSigner(given.address, ca=given.ca, certificate=given.certificate, key=given.key)
    return LocalSigner(database, settings.passphrase_file)


def preload(components: Sequence[str]) -> None:
    """
    Import what all workers will need, before they are forked: done once, and the memory is shared.

    What is built only when somebody asks for it cannot fail then for a reason that is not in the log by now.
    """
    import joserfc.jwk
    import joserfc.jwt  # noqa: F401 - imported for those who import it later

    if "registry" in components:
        import dtr.http.trust
        import dtr.http.v2
    if "garant" in components:
        import dtr.http.token  # noqa: F401 - the same
    if "api" in components:
        from dtr.http import ui

        try:
            ui.check()
        except (OSError, ValueError) as error:  # the rest serves without them
            _log.error("pages have no assets", extra={"reason": str(error)})


async def background(application: Application, stop: asyncio.Event) -> None:
    """Run the background work until `stop`; an error of it is logged, and it begins again."""

    async def go_on() -> None:
        while True:
            try:
                await application.run_background()
            except Exception:  # noqa: BLE001 - whatever it was, nobody else would go on
                _log.exception("background work failed")
            await asyncio.sleep(_AGAIN_SECONDS)

    task = asyncio.create_task(go_on())
    await stop.wait()
    task.cancel()
    await asyncio.wait([task])
