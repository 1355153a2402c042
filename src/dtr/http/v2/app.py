"""
The registry's HTTP API, ``/v2/``: OCI distribution specification 1.1.

A plain ASGI application. One look at the path finds the handler; a token that was verified before costs one
dictionary look-up, reading a manifest one row. Reading trusts the token, whose life is short; whatever changes
something asks for the rights of this moment.
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlencode

import msgspec

from dtr.accounts import Claims, Operation, TokenExpired, TokenInvalid, may
from dtr.http.bodies import BodyError, BodyTooLarge, read_body, send_from_file
from dtr.http.v2.body import RequestBody
from dtr.http.v2.errors import Refused, answer, immutable, upload_range
from dtr.oci import (
    Digest,
    DigestInvalid,
    parse_content_range,
    parse_manifest,
    parse_range,
    parse_reference,
    parse_repository_name,
)
from dtr.registry import (
    SMALL,
    BlobUnknown,
    NamespaceUnknown,
    RepositoryExists,
    RepositoryUnknown,
    Settings,
    TagImmutable,
    UploadUnknown,
)
from dtr.storage import LocalFiles, ObjectMissing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from dtr.accounts import Accounts, Tokens
    from dtr.http.front import Facts
    from dtr.http.types import Receive, Scope, Send
    from dtr.registry import Blob, Blobs, Manifests, Repositories, Upload, Uploads
    from dtr.storage import Driver

_INDEX = b"application/vnd.oci.image.index.v1+json"
_JSON = b"application/json"
_UPLOAD_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ARTIFACT_TYPE_LIMIT = 255
"""Larger manifests are read in a thread."""
_PARSE_IN_LOOP = 64 * 1024

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an operator decides about this API. Sizes in bytes."""

    service: str = "dtr"
    manifest_limit: int = 4 * 1024 * 1024
    chunk_minimum: int | None = None
    create_on_push: bool = False
    delete_enabled: bool = True
    redirect_seconds: int | None = None
    """Pulls are sent to a signed address of the storage that is good for so long; None: they are not."""
    page_size: int = 1000
    """Most entries in one answer of tags, catalog or referrers."""


@dataclass(slots=True)
class Request:
    """A request under way."""

    scope: Scope
    receive: Receive
    send: Send
    method: str
    kind: str
    """What the path asks for; see `_route`."""
    name: str
    """The repository's path as the client gave it."""
    argument: str
    """What follows in the path: a reference, a digest, the id of an upload."""
    claims: Claims | None = None
    headers: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def query(self) -> dict[str, list[str]]:
        """The parameters of the query."""
        try:
            return parse_qs(self.scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=100)
        except ValueError:
            raise Refused(400, "UNSUPPORTED", "the query cannot be read") from None


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
        storage: Driver,
        options: Options,
    ) -> None:
        self._tokens = tokens
        self._accounts = accounts
        self._repositories = repositories
        self._blobs = blobs
        self._uploads = uploads
        self._manifests = manifests
        self._storage = storage
        self._files: LocalFiles | None = storage if isinstance(storage, LocalFiles) else None
        self._options = options
        self._handlers: dict[str, dict[str, Callable[[Request], Awaitable[None]]]] = {
            "ping": {"GET": self._ping, "HEAD": self._ping},
            "catalog": {"GET": self._catalog},
            "tags": {"GET": self._list_tags},
            "referrers": {"GET": self._list_referrers},
            "manifests": {
                "GET": self._get_manifest,
                "HEAD": self._get_manifest,
                "PUT": self._put_manifest,
                "DELETE": self._delete_manifest,
            },
            "blobs": {"GET": self._get_blob, "HEAD": self._get_blob, "DELETE": self._delete_blob},
            "uploads": {"POST": self._start_upload},
            "upload": {
                "GET": self._upload_status,
                "HEAD": self._upload_status,
                "PATCH": self._append_upload,
                "PUT": self._finish_upload,
                "DELETE": self._cancel_upload,
            },
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request below ``/v2``."""
        kind, name, argument = _route(scope["path"])
        request = Request(scope, receive, send, scope["method"], kind, name, argument)
        facts: Facts | None = scope.get("dtr.facts")
        if facts is not None:
            facts.route, facts.repository = kind or "other", name
        try:
            request.headers = dict(scope["headers"])
            handlers = self._handlers.get(kind)
            if handlers is None:
                raise Refused(404, "UNSUPPORTED", "there is no such endpoint")
            handler = handlers.get(request.method)
            if handler is None:
                allowed = ", ".join(handlers).encode()
                raise Refused(405, "UNSUPPORTED", "the method is not allowed here", headers=((b"allow", allowed),))
            await self._authenticate(request)
            if name:
                parse_repository_name(name)
            await handler(request)
        except Exception as error:
            refusal = (
                immutable(error, f"{_host(request)}/{name}") if isinstance(error, TagImmutable) else answer(error)
            )
            if refusal is None:
                raise
            await _respond(request, refusal.status, refusal.body(), (*refusal.headers, (b"content-type", _JSON)))

    # --- who asks, and what they may -----------------------------------------------------------------------

    async def _authenticate(self, request: Request) -> None:
        scheme, _, token = request.headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            raise self._challenge(request, "UNAUTHORIZED", "authentication required")
        try:
            request.claims = await self._tokens.verify(token.strip().decode("ascii", "replace"))
        except TokenExpired:
            raise self._challenge(request, "UNAUTHORIZED", "the token has expired", "invalid_token") from None
        except TokenInvalid:
            raise self._challenge(request, "UNAUTHORIZED", "the token is not valid", "invalid_token") from None
        facts: Facts | None = request.scope.get("dtr.facts")
        if facts is not None:
            facts.actor = request.claims.account_name

    def _challenge(self, request: Request, code: str, message: str, reason: str | None = None) -> Refused:
        """Where to get a token, and for what (RFC 6750, section 3; the token specification of distribution)."""
        scheme = request.scope.get("scheme", "https")
        parts = [
            f'Bearer realm="{scheme}://{_host(request)}/auth/token"',
            f'service="{self._options.service}"',
        ]
        if request.name:
            parse_repository_name(request.name)  # nothing else goes into the header
            parts.append(f'scope="repository:{request.name}:{_actions(request)}"')
        elif request.scope["path"] == "/v2/_catalog":
            parts.append('scope="registry:catalog:*"')
        if reason:
            parts.append(f'error="{reason}"')
        return Refused(401, code, message, headers=((b"www-authenticate", ",".join(parts).encode()),))

    def _require(self, request: Request, action: str) -> Claims:
        claims = request.claims
        assert claims is not None
        if action not in claims.access.get(request.name, ()):
            raise self._denied(request)
        return claims

    def _denied(self, request: Request) -> Refused:
        # The same for a repository that is not there and for one that the caller must not know of.
        return self._challenge(
            request, "DENIED", "requested access to the resource is denied", "insufficient_scope"
        )

    async def _repository_to_change(self, request: Request, action: str, operation: Operation) -> int:
        """The repository, after asking for the rights of this moment."""
        claims = self._require(request, action)
        standing = await self._accounts.find_standing(claims.account_id, request.name)
        if standing.repository_id is None:
            if operation is Operation.PUSH and self._options.create_on_push:
                if may(standing.facts, Operation.CREATE_ON_PUSH):
                    return await self._create_repository(request)
            elif may(standing.facts, Operation.CREATE_REPOSITORY):
                raise RepositoryUnknown(request.name)
            raise self._denied(request)
        if not may(standing.facts, operation):
            raise self._denied(request)
        return standing.repository_id

    async def _create_repository(self, request: Request) -> int:
        try:
            return await self._repositories.create(
                parse_repository_name(request.name), Settings(visibility="private")
            )
        except RepositoryExists:  # another push of the same client was first
            return (await self._repositories.get(request.name)).id
        except NamespaceUnknown:
            raise RepositoryUnknown(request.name) from None

    # --- small endpoints -----------------------------------------------------------------------------------

    async def _ping(self, request: Request) -> None:
        await _respond(request, 200, b"{}", ((b"content-type", _JSON),))

    async def _catalog(self, request: Request) -> None:
        claims = request.claims
        assert claims is not None
        if not claims.catalog:
            raise self._challenge(
                request, "DENIED", "requested access to the resource is denied", "insufficient_scope"
            )
        limit, after = self._page(request)
        names = await self._accounts.list_visible(claims.account_id, after=after, limit=limit + 1)
        await self._answer_page(request, "repositories", names, limit, {})

    async def _list_tags(self, request: Request) -> None:
        self._require(request, "pull")
        limit, after = self._page(request)
        names = await self._manifests.list_tags(request.name, after=after, limit=limit + 1)
        await self._answer_page(request, "tags", names, limit, {"name": request.name})

    async def _answer_page(
        self, request: Request, key: str, names: list[str], limit: int, body: dict[str, Any]
    ) -> None:
        headers = [(b"content-type", _JSON)]
        if len(names) > limit:
            names = names[:limit]
            if names:
                headers.append(_next(request, {"n": str(limit), "last": names[-1]}))
        await _respond(request, 200, msgspec.json.encode({**body, key: names}), headers)

    async def _list_referrers(self, request: Request) -> None:
        self._require(request, "pull")
        subject = Digest.parse(request.argument)
        query = request.query
        artifact_type = query.get("artifactType", [""])[0]
        if len(artifact_type) > _ARTIFACT_TYPE_LIMIT:
            raise Refused(400, "UNSUPPORTED", "the artifact type is too long")
        limit, after = self._page(request)
        found = await self._manifests.list_referrers(
            request.name, subject, artifact_type=artifact_type or None, after=after, limit=limit + 1
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
        await _respond(request, 200, msgspec.json.encode(index), headers)

    def _page(self, request: Request) -> tuple[int, str]:
        """The parameters `n` and `last`: how many entries at most, and behind which."""
        query = request.query
        last = query.get("last", [""])[0]
        if "\0" in last or not last.isprintable():
            raise Refused(400, "PAGINATION_NUMBER_INVALID", "last is not the name of an entry")
        if "n" not in query:
            return self._options.page_size, last
        number = query["n"][0]
        if not (number.isascii() and number.isdecimal()) or len(number) > 18:
            raise Refused(400, "PAGINATION_NUMBER_INVALID", "n is not a number of entries", {"n": number[:100]})
        return min(int(number), self._options.page_size), last

    # --- manifests -----------------------------------------------------------------------------------------

    async def _get_manifest(self, request: Request) -> None:
        self._require(request, "pull")
        reference = parse_reference(request.argument)
        found = await self._manifests.get(request.name, reference)
        digest = found.digest.encode()
        headers = (
            (b"content-type", found.media_type.encode()),
            (b"docker-content-digest", digest),
            (b"etag", b'"%b"' % digest),
        )
        if _not_modified(request, digest):
            await _respond(request, 304, b"", headers[1:])
            return
        await _respond(request, 200, found.payload, headers)

    async def _put_manifest(self, request: Request) -> None:
        repository = await self._repository_to_change(request, "push", Operation.PUSH)
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
        claims = request.claims
        assert claims is not None
        await self._manifests.put(
            repository, manifest, payload, digest, tuple(str(tag) for tag in tags), claims.account_name
        )
        headers: list[Header] = [
            (b"location", f"/v2/{request.name}/manifests/{digest}".encode()),
            (b"docker-content-digest", digest.encode()),
        ]
        if manifest.subject is not None:
            headers.append((b"oci-subject", manifest.subject.digest.encode()))
        headers += [(b"oci-tag", str(tag).encode()) for tag in tags if str(tag) != request.argument]
        await _respond(request, 201, b"", headers)

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
        repository = await self._repository_to_change(request, "delete", Operation.DELETE_TAG)
        if isinstance(reference, Digest):
            await self._manifests.delete(repository, reference)
        else:
            await self._manifests.delete_tag(repository, reference)
        await _respond(request, 202, b"")

    def _require_deletion(self) -> None:
        if not self._options.delete_enabled:
            raise Refused(405, "UNSUPPORTED", "deletion is switched off in this registry")

    # --- blobs ---------------------------------------------------------------------------------------------

    async def _get_blob(self, request: Request) -> None:
        claims = self._require(request, "pull")
        digest = Digest.parse(request.argument)
        promise = request.method == "HEAD" and "push" in claims.access[request.name]
        blob = await self._blobs.get(request.name, digest, promise=promise)
        headers: list[Header] = [
            (b"content-type", b"application/octet-stream"),
            (b"docker-content-digest", digest.encode()),
            (b"etag", b'"%b"' % digest.encode()),
            (b"accept-ranges", b"bytes"),
            (b"cache-control", b"private, max-age=31536000"),
        ]
        if _not_modified(request, digest.encode()):
            await _respond(request, 304, b"", headers[1:])
            return
        status, offset, count = 200, 0, blob.size
        wanted = request.headers.get(b"range")
        if wanted is not None and request.method == "GET" and _range_applies(request, digest):
            part = parse_range(wanted.decode("latin-1"), blob.size)
            if part is not None:
                status, offset, count = 206, part.start, part.stop - part.start
                headers.append((b"content-range", b"bytes %d-%d/%d" % (part.start, part.stop - 1, blob.size)))
        if request.method == "HEAD":
            await _start(request, status, [*headers, (b"content-length", b"%d" % count)])
            await request.send({"type": "http.response.body"})
            return
        if self._options.redirect_seconds is not None:
            address = await self._storage.sign(blob.location, self._options.redirect_seconds)
            if address is not None:
                await _respond(
                    request, 307, b"", ((b"location", address.encode()), (b"cache-control", b"no-store"))
                )
                return
        headers.append((b"content-length", b"%d" % count))
        try:
            if self._files is not None:
                await self._send_file(request, self._files, blob, status, headers, offset, count)
            else:
                await self._send_stream(request, blob, status, headers, offset, count)
        except ObjectMissing:
            await self._blobs.mark_missing(blob)
            raise BlobUnknown(digest) from None

    async def _send_file(
        self,
        request: Request,
        files: LocalFiles,
        blob: Blob,
        status: int,
        headers: list[Header],
        offset: int,
        count: int,
    ) -> None:
        file = files.open_reader(blob.location)
        try:
            if count <= SMALL:
                data = os.pread(file, count, offset)
                if len(data) < count:
                    raise OSError(f"the object at {blob.location} is shorter than {blob.size} bytes")
                await _start(request, status, headers)
                await request.send({"type": "http.response.body", "body": data})
            else:
                await _start(request, status, headers)
                await send_from_file(request.scope, request.send, file, offset, count)
        finally:
            os.close(file)

    async def _send_stream(
        self, request: Request, blob: Blob, status: int, headers: list[Header], offset: int, count: int
    ) -> None:
        pieces = self._storage.open(blob.location, offset, count)
        try:
            # The first piece before the answer: a missing object is still an honest 404.
            piece = await anext(pieces, b"")
            await _start(request, status, headers)
            while piece:
                count -= len(piece)
                await request.send({"type": "http.response.body", "body": piece, "more_body": True})
                piece = await anext(pieces, b"")
            if count:
                raise OSError(f"the object at {blob.location} is shorter than {blob.size} bytes")
            await request.send({"type": "http.response.body"})
        finally:
            await pieces.aclose()

    async def _delete_blob(self, request: Request) -> None:
        self._require_deletion()
        digest = Digest.parse(request.argument)
        repository = await self._repository_to_change(request, "delete", Operation.DELETE_TAG)
        await self._blobs.delete(repository, digest)
        await _respond(request, 202, b"")

    # --- uploads -------------------------------------------------------------------------------------------

    async def _start_upload(self, request: Request) -> None:
        repository = await self._repository_to_change(request, "push", Operation.PUSH)
        query = request.query
        claims = request.claims
        assert claims is not None
        if "mount" in query:
            digest = Digest.parse(query["mount"][0])
            if await self._mount(claims, repository, digest, query.get("from", [""])[0]):
                await self._answer_blob(request, digest)
                return
        algorithm = query.get("digest-algorithm", ["sha256"])[0]
        if algorithm not in Digest.ALGORITHMS:
            raise DigestInvalid(algorithm)
        expected = Digest.parse(query["digest"][0]) if "digest" in query else None
        upload = await self._uploads.start(
            repository, claims.account_id, expected.algorithm if expected else algorithm
        )
        if expected is not None:
            await self._uploads.finish(upload, expected, RequestBody(request.scope, request.receive))
            await self._answer_blob(request, expected)
            return
        headers = self._upload_headers(request, upload)
        if self._options.chunk_minimum:
            headers.append((b"oci-chunk-min-length", b"%d" % self._options.chunk_minimum))
        await _respond(request, 202, b"", headers)

    async def _mount(self, claims: Claims, repository: int, digest: Digest, source: str) -> bool:
        """Take the blob from another repository that the caller may pull; False: it has to be uploaded."""
        if source:
            parse_repository_name(source)
            standing = await self._accounts.find_standing(claims.account_id, source)
            if standing.repository_id is None or not may(standing.facts, Operation.PULL):
                return False
            path: str | None = source
        else:
            path = await self._accounts.find_visible_holder(claims.account_id, digest)
        if path is None:
            return False
        try:
            blob = await self._blobs.get(path, digest)
        except BlobUnknown:
            return False
        return await self._blobs.mount(blob, repository)

    async def _upload(self, request: Request) -> Upload:
        repository = await self._repository_to_change(request, "push", Operation.PUSH)
        if not _UPLOAD_ID.fullmatch(request.argument):
            raise UploadUnknown(request.argument)
        return await self._uploads.get(repository, request.argument)

    async def _upload_status(self, request: Request) -> None:
        upload = await self._upload(request)
        await _respond(request, 204, b"", self._upload_headers(request, upload))

    async def _append_upload(self, request: Request) -> None:
        upload = await self._upload(request)
        body = RequestBody(request.scope, request.receive)
        upload = await self._uploads.append(upload, body, start=_chunk_start(request, body))
        await _respond(request, 202, b"", self._upload_headers(request, upload))

    async def _finish_upload(self, request: Request) -> None:
        upload = await self._upload(request)
        query = request.query
        if "digest" not in query:
            raise Refused(400, "DIGEST_INVALID", "the digest of the blob is missing")
        digest = Digest.parse(query["digest"][0])
        body = RequestBody(request.scope, request.receive)
        await self._uploads.finish(upload, digest, body, start=_chunk_start(request, body))
        await self._answer_blob(request, digest)

    async def _cancel_upload(self, request: Request) -> None:
        upload = await self._upload(request)
        await self._uploads.cancel(upload)
        await _respond(request, 204, b"")

    async def _answer_blob(self, request: Request, digest: Digest) -> None:
        headers = (
            (b"location", f"/v2/{request.name}/blobs/{digest}".encode()),
            (b"docker-content-digest", digest.encode()),
        )
        await _respond(request, 201, b"", headers)

    def _upload_headers(self, request: Request, upload: Upload) -> list[Header]:
        return [
            (b"location", f"/v2/{request.name}/blobs/uploads/{upload.id}".encode()),
            (b"range", upload_range(upload.offset)),
            (b"docker-upload-uuid", upload.id.encode()),
        ]


def _route(path: str) -> tuple[str, str, str]:
    """
    What a path below ``/v2`` asks for: kind, repository name, argument.

    The end of the path decides, as names have any number of parts.
    """
    if path in {"/v2/", "/v2"}:
        return "ping", "", ""
    if path == "/v2/_catalog":
        return "catalog", "", ""
    head, _, last = path.rpartition("/")
    head, _, kind = head.rpartition("/")
    name = head[4:]
    if kind == "uploads" and name.endswith("/blobs"):
        return ("upload" if last else "uploads"), name[:-6], last
    if kind == "blobs" and last == "uploads":
        return "uploads", name, ""
    if kind == "tags" and last != "list":
        return "", "", ""
    return (kind if name and last else ""), name, last


def _actions(request: Request) -> str:
    """What a token has to grant for the request."""
    if request.kind in {"uploads", "upload"} or request.method == "PUT":
        return "pull,push"
    return "delete" if request.method == "DELETE" else "pull"


def _host(request: Request) -> str:
    """The address that the client used; what could break out of a header is not repeated."""
    host = request.headers.get(b"host", b"").decode("latin-1")
    return host if re.fullmatch(r"[A-Za-z0-9.:\[\]_-]{1,255}", host) else "localhost"


def _not_modified(request: Request, digest: bytes) -> bool:
    """RFC 9110, section 13.1.2. The digest is the entity tag."""
    wanted = request.headers.get(b"if-none-match")
    if wanted is None:
        return False
    tags = {tag.strip().removeprefix(b"W/").strip(b'"') for tag in wanted.split(b",")}
    return digest in tags or b"*" in tags


def _range_applies(request: Request, digest: str) -> bool:
    """RFC 9110, section 13.1.5."""
    condition = request.headers.get(b"if-range")
    return condition is None or condition.strip(b' "') == digest.encode()


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


async def _start(request: Request, status: int, headers: Iterable[Header]) -> None:
    await request.send({"type": "http.response.start", "status": status, "headers": [_VERSION, *headers]})


async def _respond(request: Request, status: int, body: bytes, headers: Iterable[Header] = ()) -> None:
    every = list(headers)
    if status not in {204, 304}:
        every.append((b"content-length", b"%d" % len(body)))
    await _start(request, status, every)
    await request.send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})


_VERSION: Header = (b"docker-distribution-api-version", b"registry/2.0")
