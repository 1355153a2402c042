"""
The registry's HTTP API, ``/v2/``: OCI distribution specification 1.1.

A plain ASGI application. One look at the path finds the handler; a token that was verified before costs one
dictionary look-up, reading a manifest one row.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import Struct

from dtr.accounts import Operation
from dtr.db import DatabaseError
from dtr.http.bodies import BodyError, BodyTooLarge, read_body
from dtr.http.v2.access import Access
from dtr.http.v2.body import RequestBody
from dtr.http.v2.errors import Refused, answer, immutable, upload_range
from dtr.http.v2.request import Request, not_modified, respond, route, start_response
from dtr.http.v2.sending import BlobSender, begin_blob
from dtr.oci import (
    Digest,
    DigestInvalid,
    Tag,
    parse_content_range,
    parse_manifest,
    parse_reference,
    parse_repository_name,
)
from dtr.oci.media_types import IMAGE_CONFIGS
from dtr.registry import (
    SMALL,
    BlobUnknown,
    ManifestUnknown,
    RepositoryUnknown,
    TagImmutable,
    UploadOccupied,
    UploadUnknown,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dtr.accounts import Accounts, Tokens
    from dtr.enforcement import Enforcement
    from dtr.http.front import Facts
    from dtr.http.types import Header, Receive, Scope, Send
    from dtr.http.v2.errors import Answer
    from dtr.mirrors import Cache, Wanted
    from dtr.registry import (
        Blob,
        Blobs,
        ImageConfigs,
        Manifests,
        Pulls,
        Repositories,
        StoredManifest,
        Upload,
        Uploads,
    )
    from dtr.settings import LiveSettings
    from dtr.storage import Storages

T = TypeVar("T", bound="int | Blob | StoredManifest | Wanted")
"""What is found in a repository, of which it knows the number."""
R = TypeVar("R")

_INDEX = b"application/vnd.oci.image.index.v1+json"
_JSON = b"application/json"
_UPLOAD_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TRANSFERS = frozenset({("blobs", "GET"), ("uploads", "POST"), ("upload", "PATCH"), ("upload", "PUT")})
"""Requests with which blobs come and go, by kind and method."""
_LONGEST_ARTIFACT_TYPE = 255
_RENAMES_FOLLOWED = 5
"""A repository may be renamed while it is looked for; so often a read is tried."""
_OCCUPIED_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.4)
_PARSE_IN_LOOP = 64 * 1024
"""Larger manifests are read in a thread."""


class Options(Struct, frozen=True, kw_only=True):
    """What an operator decides about this API. Sizes in bytes."""

    service: str = "dtr"
    manifest_limit: int = 4 * 1024 * 1024
    chunk_minimum: int | None = None
    delete_enabled: bool = True
    page_size: int = 1000
    """Most entries in one answer of tags, catalog or referrers."""


class RegistryAPI:
    """The ASGI application."""

    def __init__(
        self,
        *,
        tokens: Tokens,
        accounts: Accounts,
        repositories: Repositories,
        blobs: Blobs,
        uploads: Uploads,
        manifests: Manifests,
        configs: ImageConfigs,
        pulls: Pulls,
        cache: Cache,
        enforcement: Enforcement,
        storage: Storages,
        settings: LiveSettings,
        options: Options,
    ) -> None:
        self._access = Access(tokens, accounts, repositories, cache.upstreams, settings, service=options.service)
        self._accounts = accounts
        self._blobs = blobs
        self._uploads = uploads
        self._manifests = manifests
        self._configs = configs
        self._pulls = pulls
        self._cache = cache
        self._enforcement = enforcement
        self._sender = BlobSender(storage, blobs)
        self._options = options
        self._handlers: dict[str, dict[str, Callable[[Request], Awaitable[None]]]] = {
            "ping": {"GET": self._ping},
            "catalog": {"GET": self._catalog},
            "tags": {"GET": self._list_tags},
            "referrers": {"GET": self._list_referrers},
            "manifests": {
                "GET": self._get_manifest,
                "PUT": self._put_manifest,
                "DELETE": self._delete_manifest,
            },
            "blobs": {"GET": self._get_blob, "DELETE": self._delete_blob},
            "uploads": {"POST": self._start_upload},
            "upload": {
                "GET": self._upload_status,
                "PATCH": self._append_upload,
                "PUT": self._finish_upload,
                "DELETE": self._cancel_upload,
            },
        }
        for methods in self._handlers.values():
            if "GET" in methods:
                methods["HEAD"] = methods["GET"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request below ``/v2``."""
        kind, name, argument = route(scope["path"])
        request = Request(scope, receive, send, scope["method"], kind, name, argument, dict(scope["headers"]))
        facts: Facts | None = scope.get("dtr.facts")
        if facts is not None:
            facts.route, facts.repository = kind if kind in self._handlers else "other", name
        try:
            handlers = self._handlers.get(kind)
            if handlers is None:
                raise Refused(404, "UNSUPPORTED", "there is no such endpoint")
            handler = handlers.get(request.method)
            if handler is None:
                allowed = ", ".join(sorted(handlers)).encode()
                raise Refused(405, "UNSUPPORTED", "the method is not allowed here", headers=((b"allow", allowed),))
            await self._access.authenticate(request)
            if name:
                parse_repository_name(name)
            if facts is not None and (kind, request.method) in _TRANSFERS:
                with facts.transferring():
                    await handler(request)
            else:
                await handler(request)
        except Exception as error:
            refusal = _refusal(error, request)
            if refusal is None or request.is_answered:
                raise
            if refusal.status >= 500 and facts is not None:
                facts.reason = str(error)
            headers = [*refusal.headers, (b"content-type", _JSON)]
            if request.method == "HEAD" and await self._is_final(request, refusal):
                headers.append(refusal.warning())
            await respond(request, refusal.status, refusal.body(), headers)

    async def _is_final(self, request: Request, refusal: Answer) -> bool:
        """
        Whether the user has to hear of it: no other token would help, and it is not that something is missing.

        Clients ask for what may be missing all the time.
        """
        if refusal.status == 404:
            return False
        if refusal.status != 401:
            return True
        try:
            return refusal.code == "DENIED" and bool(request.name) and not await self._access.may_pull(request)
        except DatabaseError:
            return False

    # --- small endpoints -----------------------------------------------------------------------------------

    async def _ping(self, request: Request) -> None:
        await respond(request, 200, b"{}", ((b"content-type", _JSON),))

    async def _catalog(self, request: Request) -> None:
        self._access.require_catalog(request)
        limit, after = self._page(request)
        claims = request.claims
        found = await self._accounts.standings.list_visible(
            claims.account_id, scope=claims.scope, after=after, limit=limit + 1
        )
        names = [path for _, path in found]
        await self._answer_page(request, "repositories", names, limit, {})

    async def _list_tags(self, request: Request) -> None:
        self._access.require(request, "pull")
        limit, after = self._page(request)
        repository = await self._read(request, self._manifests.find_repository)
        names = await self._manifests.list_tags(repository, after=after, limit=limit + 1)
        await self._answer_page(request, "tags", names, limit, {"name": request.name})

    async def _answer_page(
        self, request: Request, key: str, names: list[str], limit: int, body: dict[str, Any]
    ) -> None:
        headers = [(b"content-type", _JSON)]
        if len(names) > limit:
            names = names[:limit]
            if names:
                headers.append(_next(request, {"n": str(limit), "last": names[-1]}))
        await respond(request, 200, msgspec.json.encode({**body, key: names}), headers)

    async def _list_referrers(self, request: Request) -> None:
        self._access.require(request, "pull")
        subject = Digest.parse(request.argument)
        query = request.query
        artifact_type = query.get("artifactType", [""])[0]
        if len(artifact_type) > _LONGEST_ARTIFACT_TYPE or not artifact_type.isprintable():
            raise Refused(400, "UNSUPPORTED", "artifactType is not a media type")
        limit, after = self._page(request)
        repository = await self._read(request, self._manifests.find_repository)
        found = await self._manifests.list_referrers(
            repository, subject, artifact_type=artifact_type or None, after=after, limit=limit + 1
        )
        headers = [(b"content-type", _INDEX)]
        if artifact_type:
            headers.append((b"oci-filters-applied", b"artifactType"))
        if len(found) > limit:
            found = found[:limit]
            if found:
                more = {"n": str(limit), "last": found[-1].digest}
                headers.append(_next(request, more | ({"artifactType": artifact_type} if artifact_type else {})))
        descriptors = [
            {"mediaType": one.media_type, "digest": one.digest, "size": one.size}
            | ({"artifactType": one.artifact_type} if one.artifact_type else {})
            | ({"annotations": one.annotations} if one.annotations else {})
            for one in found
        ]
        index = {"schemaVersion": 2, "mediaType": _INDEX.decode(), "manifests": descriptors}
        await respond(request, 200, msgspec.json.encode(index), headers)

    def _page(self, request: Request) -> tuple[int, str]:
        """The parameters `n` and `last`: how many entries at most, and behind which."""
        query = request.query
        last = query.get("last", [""])[0]
        if not last.isprintable():
            raise Refused(400, "PAGINATION_NUMBER_INVALID", "last is not the name of an entry")
        if "n" not in query:
            return self._options.page_size, last
        number = query["n"][0]
        if not (number.isascii() and number.isdecimal()) or len(number) > 18:
            raise Refused(400, "PAGINATION_NUMBER_INVALID", "n is not a number of entries", {"n": number[:100]})
        return min(int(number), self._options.page_size), last

    async def _read(self, request: Request, read: Callable[..., Awaitable[T]], *what: object) -> T:
        """What `read` finds in the repository that the request names, or that had this name before."""
        name = request.name
        for attempt in itertools.count(1):
            try:
                found = await read(name, *what)
            except (RepositoryUnknown, ManifestUnknown, BlobUnknown):
                now_called = await self._access.find_name(request)
                if now_called is None or attempt == _RENAMES_FOLLOWED:
                    raise
                name = now_called
            else:
                await self._access.require_reading(
                    request, name, found if isinstance(found, int) else found.repository
                )
                return found
        raise AssertionError("not reached")

    # --- manifests -----------------------------------------------------------------------------------------

    async def _get_manifest(self, request: Request) -> None:
        self._access.require(request, "pull")
        found = await self._find_manifest(request, parse_reference(request.argument))
        if self._enforcement.concerns(found.repository, found.namespace):
            await self._enforce(request, found)
        digest = found.digest.encode()
        headers = (
            (b"content-type", found.media_type.encode()),
            (b"docker-content-digest", digest),
            (b"etag", b'"%b"' % digest),
        )
        if not_modified(request, digest):
            await respond(request, 304, b"", headers[1:])
            return
        await respond(request, 200, found.payload, headers)
        if request.method == "GET":
            self._pulls.add(found.repository, request.argument, found.digest, by=request.actor)

    async def _enforce(self, request: Request, found: StoredManifest) -> None:
        """Let only what is signed be pulled, where that is enforced. Raises PullRefused."""
        claims, name = request.claims, request.name
        if "push" in claims.access[name] and claims.repositories.get(name, found.repository) == found.repository:
            return  # a push, or the making of a signature: both look for what is there
        await self._enforcement.check(
            found.repository, found.namespace, request.argument, found.digest, who=request.actor
        )

    async def _find_manifest(self, request: Request, reference: Tag | Digest) -> StoredManifest:
        """The manifest of a tag or digest; one of a cache is fetched, or asked for again at the upstream."""
        try:
            found = await self._read(request, self._manifests.get, reference)
        except ManifestUnknown:
            if not await self._may_be_cached(request):
                raise
            await self._fetch_manifest(request, reference)
        else:
            if (
                not isinstance(reference, Tag)
                or not self._cache.upstreams.concerns(request.name, found.repository)
                or not await self._cache.check(found, reference)
            ):
                return found
        return await self._read(request, self._manifests.get, reference)

    async def _fetch_manifest(self, request: Request, reference: Tag | Digest) -> None:
        """Bring a manifest here that is not, when it is one of a cache. Raises ManifestUnknown, UpstreamFailed."""
        try:
            repository = await self._read(request, self._manifests.find_repository)
        except RepositoryUnknown:
            source = await self._cache.upstreams.source_for(request.name)
            if source is None:
                raise ManifestUnknown(reference) from None
            await self._access.require_fetching(request, is_public=source.upstream.visibility == "public")
            await self._cache.fetch_into(request.name, source, reference)
        else:
            await self._cache.fetch(repository, reference)

    async def _may_be_cached(self, request: Request) -> bool:
        """
        Whether what is not in the repository may have to be fetched.

        The requests of one pull reach several processes: none may say that there is no such thing because it has
        not heard yet what the one before it knew.
        """
        upstreams, repository = self._cache.upstreams, request.claims.repositories.get(request.name)
        if not upstreams.concerns(request.name, repository):
            await upstreams.refresh()
        return upstreams.concerns(request.name, repository)

    async def _put_manifest(self, request: Request) -> None:
        repository = await self._access.repository_to_change(request, "push", Operation.PUSH)
        reference = parse_reference(request.argument)
        tags = [parse_reference(tag) for tag in request.query.get("tag", [])]
        payload = await self._read_manifest(request)
        if isinstance(reference, Digest):
            digest = Digest.of(payload, reference.algorithm)
            if digest != reference:
                raise Refused(
                    400,
                    "DIGEST_INVALID",
                    "provided digest did not match uploaded content",
                    {"computed": digest, "provided": reference},
                )
        else:
            digest = Digest.of(payload)
            tags.append(reference)
        if any(isinstance(tag, Digest) for tag in tags):
            raise Refused(400, "TAG_INVALID", "a digest is no tag")
        content_type = request.headers.get(b"content-type")
        kind = content_type.decode("latin-1") if content_type else None
        if len(payload) <= _PARSE_IN_LOOP:
            manifest = parse_manifest(payload, kind)
        else:
            manifest = await asyncio.to_thread(parse_manifest, payload, kind)
        await self._manifests.put(
            repository, manifest, payload, digest, tuple(str(tag) for tag in tags), by=request.actor
        )
        if manifest.config is not None and manifest.config.media_type in IMAGE_CONFIGS:
            self._configs.note(manifest.config.digest)
        headers: list[Header] = [
            (b"location", f"/v2/{request.name}/manifests/{digest}".encode()),
            (b"docker-content-digest", digest.encode()),
        ]
        if manifest.subject is not None:
            headers.append((b"oci-subject", manifest.subject.digest.encode()))
        headers += [(b"oci-tag", str(tag).encode()) for tag in tags if str(tag) != request.argument]
        await respond(request, 201, b"", headers)

    async def _read_manifest(self, request: Request) -> bytes:
        limit = self._options.manifest_limit
        try:
            return await read_body(request.scope, request.receive, limit)
        except BodyTooLarge:
            message = f"a manifest has at most {limit} bytes here"
            raise Refused(413, "MANIFEST_INVALID", message, {"limit": limit}) from None
        except BodyError:
            raise Refused(400, "MANIFEST_INVALID", "the manifest did not arrive whole") from None

    async def _delete_manifest(self, request: Request) -> None:
        self._require_deletion()
        reference = parse_reference(request.argument)
        repository = await self._access.repository_to_change(request, "delete", Operation.DELETE_TAG)
        if isinstance(reference, Digest):
            await self._manifests.delete(repository, reference, by=request.actor)
        else:
            await self._manifests.delete_tag(repository, reference, by=request.actor)
        await respond(request, 202, b"")

    def _require_deletion(self) -> None:
        if not self._options.delete_enabled:
            raise Refused(405, "UNSUPPORTED", "deletion is switched off in this registry")

    # --- blobs ---------------------------------------------------------------------------------------------

    async def _get_blob(self, request: Request) -> None:
        self._access.require(request, "pull")
        digest = Digest.parse(request.argument)
        promise = request.method == "HEAD" and "push" in request.claims.access[request.name]
        content = request.method == "GET"
        try:
            if promise:  # a push looks for what it need not send, and nobody pushes under an old name
                blob = await self._blobs.get(request.name, digest, promise=True)
                await self._access.require_reading(request, request.name, blob.repository)
            else:
                blob = await self._read(request, lambda name: self._blobs.get(name, digest, content=content))
        except BlobUnknown:
            if promise or not await self._may_be_cached(request):
                raise
            await self._fetch_blob(request, digest)
            return
        await self._sender.send(request, digest, blob)

    async def _fetch_blob(self, request: Request, digest: Digest) -> None:
        """Answer with a blob that is not here and belongs to a cache, while it comes."""
        wanted = await self._read(request, self._cache.find_blob, digest)
        head = await begin_blob(request, digest, wanted.size)
        if head is None:
            return
        status, headers, offset, count = head
        download = await self._cache.fetch_blob(wanted)
        if download is not None:
            try:
                await download.wait(None if wanted.size <= SMALL else offset + 1)
                if wanted.size > SMALL:
                    await start_response(request, status, [*headers, (b"content-length", b"%d" % count)])
                    async with aclosing(download.follow(offset, count)) as pieces:
                        async for piece in pieces:
                            await request.send({"type": "http.response.body", "body": piece, "more_body": True})
                    await request.send({"type": "http.response.body"})
                    return
            except Exception as error:
                if not request.is_answered or error is not download.failure:
                    raise
                return  # the log has it; the server cuts the connection of an answer that is not whole
            finally:
                download.leave()
        blob = await self._read(request, lambda name: self._blobs.get(name, digest, content=True))
        await self._sender.send(request, digest, blob)

    async def _delete_blob(self, request: Request) -> None:
        self._require_deletion()
        digest = Digest.parse(request.argument)
        repository = await self._access.repository_to_change(request, "delete", Operation.DELETE_TAG)
        await self._blobs.delete(repository, digest, by=request.actor)
        await respond(request, 202, b"")

    # --- uploads -------------------------------------------------------------------------------------------

    async def _start_upload(self, request: Request) -> None:
        repository = await self._access.repository_to_change(request, "push", Operation.PUSH)
        query = request.query
        if "mount" in query:
            digest = Digest.parse(query["mount"][0])
            if await self._mount(request, repository, digest, query.get("from", [""])[0]):
                await self._answer_blob(request, digest)
                return
        if "digest" in query:
            expected = Digest.parse(query["digest"][0])
            body = RequestBody(request.scope, request.receive)
            await self._uploads.store(repository, expected, body)
            await self._answer_blob(request, expected)
            return
        algorithm = query.get("digest-algorithm", ["sha256"])[0]
        if algorithm not in Digest.ALGORITHMS:
            raise DigestInvalid(algorithm)
        if algorithm == "sha256":
            upload = await self._uploads.announce(repository)
        else:
            upload = await self._uploads.start(repository, algorithm)
        headers = self._upload_headers(request, upload)
        if self._options.chunk_minimum:
            headers.append((b"oci-chunk-min-length", b"%d" % self._options.chunk_minimum))
        await respond(request, 202, b"", headers)

    async def _mount(self, request: Request, repository: int, digest: Digest, source: str) -> bool:
        """Take the blob from another repository that the caller may pull; False: it has to be uploaded."""
        found = await self._access.find_source(request, source, digest)
        if found is None:
            return False
        path, holder = found
        try:
            blob = await self._blobs.get(path, digest)
        except (BlobUnknown, RepositoryUnknown):
            return False
        return blob.repository == holder and await self._blobs.mount(blob, repository)

    async def _upload(self, request: Request) -> Upload:
        return await self._uploads.get(*await self._upload_named(request))

    async def _upload_named(self, request: Request) -> tuple[int, str]:
        """The repository, in which something may be pushed, and what may be the id of an upload."""
        repository = await self._access.repository_to_change(request, "push", Operation.PUSH)
        if not _UPLOAD_ID.fullmatch(request.argument):
            raise UploadUnknown(request.argument)
        return repository, request.argument

    async def _upload_status(self, request: Request) -> None:
        upload = await self._upload(request)
        await respond(request, 204, b"", self._upload_headers(request, upload))

    async def _append_upload(self, request: Request) -> None:
        upload = await self._upload(request)
        body = RequestBody(request.scope, request.receive)
        start = _chunk_start(request, body)

        async def append() -> Upload:
            return await self._uploads.append(upload, body, start=start)

        upload = await _when_free(append)
        await respond(request, 202, b"", self._upload_headers(request, upload))

    async def _finish_upload(self, request: Request) -> None:
        repository, upload = await self._upload_named(request)
        query = request.query
        if "digest" not in query:
            raise Refused(400, "DIGEST_INVALID", "the digest of the blob is missing")
        digest = Digest.parse(query["digest"][0])
        body = RequestBody(request.scope, request.receive)
        start = _chunk_start(request, body)

        async def finish() -> int:
            return await self._uploads.finish_named(repository, upload, digest, body, start=start)

        await _when_free(finish)
        await self._answer_blob(request, digest)

    async def _cancel_upload(self, request: Request) -> None:
        upload = await self._upload(request)
        await self._uploads.cancel(upload)
        await respond(request, 204, b"")

    async def _answer_blob(self, request: Request, digest: Digest) -> None:
        headers = (
            (b"location", f"/v2/{request.name}/blobs/{digest}".encode()),
            (b"docker-content-digest", digest.encode()),
        )
        await respond(request, 201, b"", headers)

    def _upload_headers(self, request: Request, upload: Upload) -> list[Header]:
        return [
            (b"location", f"/v2/{request.name}/blobs/uploads/{upload.id}".encode()),
            (b"range", upload_range(upload.offset)),
            (b"docker-upload-uuid", upload.id.encode()),
        ]


def _refusal(error: Exception, request: Request) -> Answer | None:
    if isinstance(error, TagImmutable):
        return immutable(error, f"{request.host}/{request.name}")
    if isinstance(error, RepositoryUnknown):
        error = RepositoryUnknown(request.name)  # the rooms may know it by its number only
    return answer(error)


async def _when_free(work: Callable[[], Awaitable[R]]) -> R:
    """
    Do it, when another request no longer has the upload.

    Who goes on with an upload that was cut may come before that was noticed, and how far it came was written down.
    """
    for pause in _OCCUPIED_SECONDS:
        try:
            return await work()
        except UploadOccupied:  # nothing was taken, or a small body was read, which can be read again
            await asyncio.sleep(pause)
    return await work()


def _chunk_start(request: Request, body: RequestBody) -> int | None:
    """Where the client says that its bytes belong; None: it does not say."""
    header = request.headers.get(b"content-range")
    if header is None:
        return None
    start, end = parse_content_range(header.decode("latin-1"))
    if body.length is not None and body.length != end - start + 1:
        raise Refused(400, "SIZE_INVALID", "Content-Range and Content-Length disagree")
    return start


def _next(request: Request, parameters: dict[str, str]) -> Header:
    """The header `Link` to the next page (RFC 8288)."""
    target = f"{quote(request.scope['path'], safe='/:')}?{urlencode(parameters)}"
    return (b"link", f'<{target}>; rel="next"'.encode())
