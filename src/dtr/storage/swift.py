"""
Objects in OpenStack Swift, or a store that speaks its protocol (Ceph's gateway, appliances).

An upload of several parts is a *static large object* (Swift API reference, "Large objects"): each part is an
object of its own, ``<location>.part.<random>``, and the object at the location is a manifest that names them with
their sizes and checksums; no byte is sent twice. A manifest names at most 1,000 objects, or what the cluster says:
longer uploads have manifests of manifests. Parts of less than 1 MiB would be handed out slowly (Swift limits the
rate of small segments), so that only the last one may be that short.

The parts stay with the object, hidden from listings, and are deleted with it: first by the manifest, which is
exact, then by a listing, which may lag, but also finds what the manifest does not name: parts of requests whose
answers were lost. Such parts are not removed earlier, because only the deletion of the object is sure that no
other manifest names them.

Trees of docker-registry have *dynamic large objects*, made of all objects whose names begin alike. They are read,
listed with their true size, and deleted with what they are made of.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import tempfile
import time
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import msgspec
from msgspec.structs import replace

from dtr.storage.driver import Part, Stored, UploadState, new_location
from dtr.storage.errors import AccessDenied, ObjectMissing, StorageError, StorageFull, StorageUnavailable
from dtr.storage.parted import Parted, PartSizes, aside, upload_of
from dtr.storage.swift_auth import Access, Credentials, LoginFailed, access_of, login_request
from dtr.storage.web import Web

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncGenerator, Mapping

    from aiohttp import ClientResponse

    from dtr.storage.lending import Answer
    from dtr.storage.spool import Spool
    from dtr.storage.web import Body

SEGMENT_SIZE = 16 * 1024 * 1024
_SHORTEST_SEGMENT = 1024 * 1024
_MOST_SEGMENTS, _GROWTH = 5000, 600
"""600 parts of 16 MiB, and 3,900 growing ones, of 5 GiB at last, make 5 TiB."""
_MOST_IN_MANIFEST = 1000
"""Where the cluster does not say."""

_BUSY = frozenset({429, 498, 500, 502, 503, 504})
"""Answers after which another attempt may succeed; 498 is Swift's own for too many requests."""
_LISTING = 1000
_KEY_SECONDS = 300
"""How long a key for signed addresses, or that there is none, is believed."""


@dataclass(frozen=True, slots=True)
class SwiftSettings:
    """
    Where the container is and how to reach it.

    Parts of `segment_size` bytes wait below `spool_directory`, by default where the system has its temporary
    files, served by so many `threads`. `temp_url_key` signs addresses; by default it is the one that the container
    or the account has. `verify` and `time_limit` (seconds) are those of `dtr.storage.web`, for the token service
    and the store.
    """

    credentials: Credentials
    container: str
    root_directory: str = ""
    segment_size: int = SEGMENT_SIZE
    temp_url_key: str | None = field(default=None, repr=False)
    verify: bool | str = True
    time_limit: float = 60
    spool_directory: str = field(default_factory=tempfile.gettempdir)
    threads: int = 4


class _Entry(msgspec.Struct):
    """An object, as a listing has it."""

    name: str
    bytes: int
    last_modified: str


class _Deletion(
    msgspec.Struct, rename={"status": "Response Status", "gone": "Number Not Found", "errors": "Errors"}
):
    """What came of the deletion of a large object with its parts."""

    status: str
    gone: int
    errors: list[tuple[str, str]]


class _Problems(msgspec.Struct, rename={"errors": "Errors"}):
    """What a manifest names and is not so."""

    errors: list[tuple[str, str]]


class _Refused(StorageError):
    """An answer that is no success, and has a meaning only for who asked."""

    def __init__(self, message: str, status: int, body: bytes) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class Swift(Parted):
    """A driver over one container, or over the objects below `root_directory` in it."""

    def __init__(self, settings: SwiftSettings) -> None:
        """Remember the settings; the first request logs in."""
        sizes = PartSizes(
            usual=settings.segment_size, shortest=_SHORTEST_SEGMENT, most=_MOST_SEGMENTS, growth=_GROWTH
        )
        super().__init__(sizes, spool_directory=settings.spool_directory, threads=settings.threads)
        self._settings = settings
        root = settings.root_directory.strip("/")
        self._prefix = f"{root}/" if root else ""
        self._web = Web("Swift", verify=settings.verify, time_limit=settings.time_limit)
        self._access: Access | None = None
        self._renew_at = 0.0
        self._logging_in = asyncio.Lock()
        self._info: dict[str, Any] | None = None
        self._key: str | None = None
        self._key_until = 0.0

    @asynccontextmanager
    async def _ask(self, location: str, offset: int, length: int | None) -> AsyncGenerator[Answer | None, None]:
        """See `Parted`."""
        headers = {}
        if offset or length is not None:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        try:
            answer = await self._send("GET", self._name(location), headers=headers)
        except _Refused as error:
            if error.status != 416:
                raise
            yield None  # none of these bytes are there
            return
        async with answer:
            content = self._web.content(answer, location)
            part = answer.headers.get("Content-Range", "")
            if headers and content.size and not part.startswith(f"bytes {offset}-"):
                raise StorageError(f"the store gives other bytes of {location} than it was asked for")
            yield content

    async def stat(self, location: str) -> int:
        """See `Driver`."""
        length = (await self._head(self._name(location))).get("Content-Length")
        if length is None:
            raise StorageError(f"the store does not say how long {location} is")
        return int(length)

    async def delete(self, location: str) -> None:
        """See `Driver`; with all that belongs to the object."""
        name = self._name(location)
        if upload_of(location) is not None:
            await self._delete_one(name)
            return
        deletion = await self._delete_large(name)
        if deletion is not None:
            if deletion.errors or not deletion.status.startswith("2"):
                await self._delete_other(name, deletion)
            elif deletion.gone:
                await self._require_container()
        await self._drop_aside(f"{location}.part.")

    async def list_uploads(self) -> AsyncGenerator[Stored, None]:
        """See `Driver`; what is put aside, except the parts of objects."""
        whole: list[str] = []  # objects with whose names the next one may begin
        unfinished = ""
        async with aclosing(self._list_everything("")) as everything:
            async for stored in everything:
                while whole and not stored.location.startswith(whole[-1]):
                    whole.pop()
                location = upload_of(stored.location)
                if location is None:
                    whole.append(stored.location)
                elif location == unfinished or (location not in whole and not await self._is_there(location)):
                    unfinished = location
                    yield replace(stored, location=location)
                elif location not in whole:  # a listing may lag behind the objects
                    whole.append(location)

    async def sign(self, location: str, ttl: int) -> str | None:
        """See `Driver`; None unless the account or the container has a key."""
        key = self._settings.temp_url_key or await self._find_key()
        features = (await self._read_info()).get("tempurl", {})
        if not key or "GET" not in features.get("methods", ("GET",)):
            return None
        # Clusters that do not tell which digests they take are old, or tell nothing at all.
        digests = features.get("allowed_digests", ("sha1",) if features else ("sha256",))
        digest = next((one for one in ("sha256", "sha512") if one in digests), "sha1")
        url = self._url(await self._log_in(), self._name(location))
        expires = int(time.time()) + ttl
        path = unquote("/" + url.partition("://")[2].partition("/")[2])
        signature = hmac.new(key.encode(), f"GET\n{expires}\n{path}".encode(), digest).hexdigest()
        return f"{url}?temp_url_sig={signature}&temp_url_expires={expires}"

    async def check(self) -> None:
        """See `Driver`; also that there are large objects, and that a key given for signed addresses is right."""
        features = await self._read_info()
        if features and "slo" not in features:
            raise StorageError("the cluster does not offer static large objects (SLO)")
        await super().check()
        if self._settings.temp_url_key:
            await self._check_signature()

    async def close(self) -> None:
        """See `Driver`."""
        await super().close()
        await self._web.close()

    # --- Parts ----------------------------------------------------------------------------------------------

    async def _put(self, location: str, data: Spool | io.BytesIO) -> None:
        await self._store(self._name(location), data)

    async def _add_part(self, state: UploadState, data: Spool) -> UploadState:
        location = aside(state.location, "part")
        etag = await self._store(self._name(location), data)
        part = Part(location.rpartition(".")[2], etag, len(data))
        return msgspec.structs.replace(state, parts=(*state.parts, part))

    async def _join_parts(self, state: UploadState) -> None:
        segments = [
            {
                "path": self._path(self._name(f"{state.location}.part.{part.name}")),
                "etag": part.etag,
                "size_bytes": part.size,
            }
            for part in state.parts
        ]
        most = (await self._read_info()).get("slo", {}).get("max_manifest_segments", _MOST_IN_MANIFEST)
        while len(segments) > most:
            segments = [
                await self._put_manifest(state.location, aside(state.location, "part"), segments[i : i + most])
                for i in range(0, len(segments), most)
            ]
        await self._put_manifest(state.location, state.location, segments)

    async def _drop_parts(self, state: UploadState) -> None:
        """Nothing: they all are put aside."""

    async def _put_manifest(self, upload: str, location: str, segments: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a large object of these segments; what another manifest says of it."""
        name = self._name(location)
        try:
            etag = await self._store(name, msgspec.json.encode(segments), query="?multipart-manifest=put")
        except _Refused as error:
            if error.status != 400:
                raise
            problems = [problem for _, problem in _decode(error.body, _Problems).errors]
            if problems and all(problem.startswith(("404", "Etag", "Size")) for problem in problems):
                raise ObjectMissing(upload) from error
            raise StorageUnavailable(f"{upload} cannot be put together: {', '.join(problems[:3])}") from error
        return {
            "path": self._path(name),
            "etag": etag,
            "size_bytes": sum(segment["size_bytes"] for segment in segments),
        }

    # --- Objects by their names -----------------------------------------------------------------------------

    def _name(self, location: str) -> str:
        return self._prefix + location

    def _path(self, name: str) -> str:
        return f"/{self._settings.container}/{name}"

    async def _store(self, name: str, data: Body, *, query: str = "") -> str:
        """Store an object; its checksum."""
        headers = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
        async with await self._send("PUT", name, query=query, headers=headers, data=data) as answer:
            return answer.headers.get("Etag", "").strip('"')

    async def _head(self, name: str | None, *, whole_account: bool = False) -> Mapping[str, str]:
        """The headers of an object, the container or the account."""
        async with await self._send("HEAD", name, whole_account=whole_account) as answer:
            return answer.headers

    async def _is_there(self, location: str) -> bool:
        try:
            await self._head(self._name(location))
        except ObjectMissing:
            return False
        return True

    async def _delete_one(self, name: str) -> None:
        """Delete an object without parts; of one with parts, only the manifest."""
        with suppress(ObjectMissing):
            async with await self._send("DELETE", name):
                pass

    async def _delete_large(self, name: str) -> _Deletion | None:
        """Delete a large object with its parts, by its manifest; what came of it, or None when it is gone."""
        try:
            async with await self._send(
                "DELETE", name, query="?multipart-manifest=delete", headers={"Accept": "application/json"}
            ) as answer:
                # A success only means that the deletion was tried. It may take a while, in which blanks come.
                text = await self._web.read(answer)
        except ObjectMissing:
            return None
        except _Refused as error:
            if error.status != 400:
                raise
            # Other stores than Swift itself say so that it is no large object.
            return _Deletion(str(error), 0, [])
        return _decode(text, _Deletion) if answer.status == 200 else None

    async def _delete_other(self, name: str, deletion: _Deletion) -> None:
        """Delete what could not be deleted as a large object: it is none, or the deletion failed."""
        try:
            headers = await self._head(name)
        except ObjectMissing:
            return
        if headers.get("X-Static-Large-Object", "").lower() == "true":
            problems = ", ".join(problem for _, problem in deletion.errors[:3])
            raise StorageUnavailable(f"{name} cannot be deleted: {problems or deletion.status}")
        container, _, prefix = unquote(headers.get("X-Object-Manifest", "")).partition("/")
        if prefix and container == self._settings.container:
            async with aclosing(self._list_names(prefix.rstrip("/") + "/")) as segments:
                async for segment in segments:
                    await self._delete_one(segment.name)
        await self._delete_one(name)

    async def _list_everything(self, prefix: str) -> AsyncGenerator[Stored, None]:
        async with aclosing(self._list_names(self._name(prefix))) as entries:
            async for entry in entries:
                location, size = entry.name.removeprefix(self._prefix), entry.bytes
                if size == 0:  # also what a listing says of a dynamic large object
                    with suppress(ObjectMissing):
                        size = await self.stat(location)
                yield Stored(location, size, datetime.fromisoformat(entry.last_modified).replace(tzinfo=UTC))

    async def _list_names(self, prefix: str) -> AsyncGenerator[_Entry, None]:
        after = ""
        while True:
            query = f"?format=json&limit={_LISTING}&prefix={quote(prefix, safe='')}&marker={quote(after, safe='')}"
            async with await self._send("GET", None, query=query) as answer:
                entries = _decode(await self._web.read(answer) or b"[]", list[_Entry])
            for entry in entries:
                yield entry
                after = entry.name
            if len(entries) < _LISTING:
                return

    async def _require_container(self) -> None:
        """Raise StorageUnavailable when the container is missing: answers about objects do not say what is."""
        await self._head(None)

    # --- The cluster ----------------------------------------------------------------------------------------

    async def _read_info(self) -> dict[str, Any]:
        """What the cluster says of itself, read once; nothing when it does not."""
        if self._info is None:
            # It stands two steps above the account: /v1/AUTH_x, or /swift/v1.
            account = urlsplit((await self._log_in()).url)
            above = "/".join(account.path.split("/")[:-2])
            url = account._replace(path=f"{above}/info").geturl()
            async with await self._web.send("GET", url, _no_headers) as answer:
                text = await self._web.read(answer)
            if answer.status in _BUSY:
                raise StorageUnavailable(f"Swift answered {answer.status} {answer.reason} to GET /info")
            self._info = _decode(text, dict[str, Any]) if answer.status == 200 else {}
        return self._info

    async def _find_key(self) -> str | None:
        """The key for signed addresses: of the container or else the account; who may not see it has none."""
        if time.monotonic() >= self._key_until:
            key = (await self._head(None)).get("X-Container-Meta-Temp-Url-Key")
            if not key:
                with suppress(AccessDenied):
                    key = (await self._head(None, whole_account=True)).get("X-Account-Meta-Temp-Url-Key")
            self._key, self._key_until = key, time.monotonic() + _KEY_SECONDS
        return self._key

    async def _check_signature(self) -> None:
        location = new_location()
        await self.put_small(location, b"signed")
        try:
            url = await self.sign(location, 60)
            if url is None:
                raise StorageError("the cluster does not offer signed addresses (TempURL)")
            async with await self._web.send("GET", url, _no_headers) as answer:
                if answer.status != 200:
                    raise AccessDenied(f"Swift answered {answer.status} to an address signed with the key given")
        finally:
            await self.delete(location)

    # --- Requests -------------------------------------------------------------------------------------------

    def _url(self, access: Access, name: str | None) -> str:
        """The address of an object, or of the container."""
        container = f"{access.url}/{quote(self._settings.container, safe='')}"
        return container if name is None else f"{container}/{quote(name)}"

    async def _send(
        self,
        method: str,
        name: str | None,
        *,
        whole_account: bool = False,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        data: Body = b"",
    ) -> ClientResponse:
        """
        The answer to a request for an object, the container, or the account, when it is a success.

        The caller closes it (``async with``). Raises `_Refused` for what has no meaning of its own.
        """
        refused = None
        for attempt in itertools.count():
            access = await self._log_in(instead_of=refused)
            url = access.url if whole_account else self._url(access, name)
            sent = {"X-Auth-Token": access.token, **(headers or {})}

            async def all_headers(sent: Mapping[str, str] = sent) -> Mapping[str, str]:
                return sent

            try:
                answer = await self._web.send(method, url + query, all_headers, data, again=_BUSY)
            except StorageUnavailable:
                if data:
                    # Perhaps it was refused, and the connection was gone before that could be read.
                    self._forget(access)
                raise
            if answer.status < 300:
                return answer
            if answer.status == 401 and attempt == 0:
                refused = access
                answer.close()
                continue
            break
        async with answer:
            body = await self._web.read(answer)
        if whole_account and answer.status == 404:
            raise AccessDenied("the account is not ours to see")
        raise await self._meaning(method, name, answer, body)

    async def _meaning(self, method: str, name: str | None, answer: ClientResponse, body: bytes) -> StorageError:
        """The error for an answer that is no success."""
        status, container = answer.status, self._settings.container
        text = f"Swift answered {status} {answer.reason} to {method}"
        if status == 404:
            if name is None:
                return StorageUnavailable(f"the container {container} is not there")
            await self._require_container()
            return ObjectMissing(name.removeprefix(self._prefix))
        if status in {413, 507} or b"quota" in body.lower():
            return StorageFull(f"no room is left in the container {container}: {text}")
        if status in {401, 403}:
            return AccessDenied(f"the container {container} is not ours to use: {text}")
        if status in _BUSY:
            return StorageUnavailable(text)
        return _Refused(text, status, body)

    async def _log_in(self, *, instead_of: Access | None = None) -> Access:
        """The token and the address of the account, known or anew; one task at a time asks."""
        if instead_of is not None:
            self._forget(instead_of)
        if self._access is not None and time.monotonic() < self._renew_at:
            return self._access
        async with self._logging_in:
            if self._access is None or time.monotonic() >= self._renew_at:
                self._access = None
                self._access = await self._ask_for_access()
            return self._access

    def _forget(self, access: Access) -> None:
        """Use this access no more; another task has perhaps another one already."""
        if access is self._access:
            self._access = None

    async def _ask_for_access(self) -> Access:
        credentials = self._settings.credentials
        service = f"the token service at {credentials.auth_url}"
        try:
            request = login_request(credentials)

            async def headers() -> Mapping[str, str]:
                return request.headers

            async with await self._web.send(request.method, request.url, headers, request.body) as answer:
                text = await self._web.read(answer)
            if answer.status in {401, 403}:
                raise AccessDenied(f"{service} refuses the credentials")
            if answer.status not in {200, 201, 204}:
                raise StorageUnavailable(f"{service} answered {answer.status} {answer.reason}")
            access = access_of(credentials, answer.headers, text)
        except LoginFailed as error:
            raise StorageError(f"{service}: {error}") from error
        # Renewed a little before it ends; one that ends at once was issued by another clock, and is tried.
        life = access.life if access.life is not None and access.life > 0 else float("inf")
        self._renew_at = time.monotonic() + max(life * 0.9, life - 60)
        return access


async def _no_headers() -> Mapping[str, str]:
    return {}


def _decode(text: bytes, shape: Any) -> Any:
    """What JSON says. Raises StorageError when it is none, or says other things."""
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.DecodeError as error:
        raise StorageError(f"Swift gave an answer that is none: {error}") from error
