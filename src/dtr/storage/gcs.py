"""
Objects in Google Cloud Storage, by its JSON API.

A part of an upload is an object of its own, ``<location>.part.<random>``. At the end the store makes the object of
them by itself (Google, "Composite objects"): no byte is sent again, and the parts are gone with it. One request
takes at most 32 sources, which may have been composed themselves; a blob of up to 1 GiB needs one request, one of
32 GiB some dozens. Google's own resumable uploads would not do: bytes at offsets that one of them has already are
silently ignored, so that continuing from an older state would keep bytes that are not of it.

Addresses are signed with version 4 (Google, "Signing URLs manually"), which takes the key of an account; without
one there are none.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from msgspec import Struct, field

from dtr.storage.access_tokens import AccessTokens
from dtr.storage.driver import Part, Stored
from dtr.storage.errors import AccessDenied, ObjectMissing, StorageError, StorageFull, StorageUnavailable
from dtr.storage.gcs_auth import ServiceAccount, TokenService
from dtr.storage.parted import Parted, PartSizes, aside, upload_of
from dtr.storage.web import Web, size_of

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence

    from aiohttp import ClientResponse

    from dtr.storage.driver import UploadState
    from dtr.storage.lending import Answer
    from dtr.storage.spool import Spool

T = TypeVar("T")

ENDPOINT = "https://storage.googleapis.com"
PART_SIZE = 32 * 1024 * 1024
_MOST_PARTS, _GROWTH = 5000, 500
"""500 parts of 32 MiB, 2,500 growing ones, and 500 of 5 GiB make 5 TiB, the longest object that there is."""
_SOURCES = 32
"""Objects that one request composes."""
_AT_ONCE = 16
"""Requests of one upload at a time, where it has many."""
_MACHINE = "http://metadata.google.internal"
_MACHINE_SECONDS = 5
_PAGE = 1000

_ATTEMPTS = 3
_FIRST_PAUSE = 0.5
_LIMITS = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "dailyLimitExceeded"})
"""Reasons of a 403 that are no matter of rights: too many requests, or bytes, in some time."""
_HOLDS = frozenset({"retentionPolicyNotMet", "objectUnderActiveHold"})
"""Reasons of a 403 for objects that nobody may delete or replace yet."""


class GCSSettings(Struct, frozen=True):
    """
    Where the bucket is, and who we are.

    Without an `account`, we are what the machine is, as its metadata server at `machine` says. `verify` is whether
    to check the certificates of the store and the token service, or the authorities to trust: the path of a file,
    or they themselves (PEM). Parts of `part_size` bytes wait below `spool_directory`, by default where the system
    has its temporary files, served by so many `threads`. `time_limit`, in seconds, holds for every single request,
    and begins anew with every piece that is sent or read.
    """

    bucket: str
    account: ServiceAccount | None = None
    root_directory: str = ""
    endpoint: str = ENDPOINT
    part_size: int = PART_SIZE
    verify: bool | str = True
    time_limit: float = 60
    machine: str = _MACHINE
    spool_directory: str = field(default_factory=tempfile.gettempdir)
    threads: int = 4


class _Refusal(NamedTuple):
    """An answer that is no success: what Google says of the reason, and the message for people."""

    status: int
    reason: str
    message: str


class _Reason(msgspec.Struct):
    reason: str = ""


class _Error(msgspec.Struct):
    message: str = ""
    errors: list[_Reason] = []  # msgspec makes a new one each time


class _Failure(msgspec.Struct):
    error: _Error


class _Object(msgspec.Struct):
    """An object, as the JSON API describes it: numbers are texts there."""

    name: str = ""
    size: str = "0"
    updated: datetime = datetime.fromtimestamp(0, UTC)


class _Page(msgspec.Struct, rename="camel"):
    """Some objects of a listing, and the way to those that come next."""

    items: list[_Object] = []
    next_page_token: str = ""


_decode_object = msgspec.json.Decoder(_Object).decode
_decode_page = msgspec.json.Decoder(_Page).decode
_decode_failure = msgspec.json.Decoder(_Failure).decode


class GCS(Parted):
    """A driver over one bucket, or over the objects below `root_directory` in it."""

    def __init__(self, settings: GCSSettings) -> None:
        """Remember the settings; the first request asks for a token."""
        sizes = PartSizes(usual=settings.part_size, most=_MOST_PARTS, growth=_GROWTH)
        super().__init__(sizes, spool_directory=settings.spool_directory, threads=settings.threads)
        self._settings = settings
        root = settings.root_directory.strip("/")
        self._prefix = f"{root}/" if root else ""
        self._endpoint = settings.endpoint.rstrip("/")
        self._objects = f"/storage/v1/b/{quote(settings.bucket, safe='')}/o"
        limit = settings.time_limit
        self._web = Web(f"the bucket {settings.bucket}", verify=settings.verify, time_limit=limit)
        if settings.account is not None:
            self._token_web = Web("Google's token service", verify=settings.verify, time_limit=limit)
        else:  # which is reached without a proxy, from the machine itself
            limit = min(limit, _MACHINE_SECONDS)
            self._token_web = Web("the metadata server", time_limit=limit, proxies=False)
        self._tokens = AccessTokens(TokenService(settings.account, self._token_web, settings.machine).ask)

    @asynccontextmanager
    async def _ask(self, location: str, offset: int, length: int | None) -> AsyncGenerator[Answer | None, None]:
        """See `Parted`."""
        headers = {}
        if offset or length is not None:
            headers["Range"] = f"bytes={offset}-{'' if length is None else offset + length - 1}"
        url = f"{self._url(location)}?alt=media"
        async with self._asked("GET", url, headers=headers, of=location, also=416) as answer:
            if answer.status == 416:  # no bytes there
                yield None
                return
            if offset and not answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                raise StorageError(f"the store gives other bytes of {location} than it was asked for")
            yield self._web.content(answer, location)

    async def stat(self, location: str) -> int:
        """See `Driver`."""
        async with self._asked("GET", f"{self._url(location)}?fields=size", of=location) as answer:
            return int(_decode_object(await self._web.read(answer)).size)

    async def delete(self, location: str) -> None:
        """See `Driver`."""
        with suppress(ObjectMissing):
            async with self._asked("DELETE", self._url(location), of=location):
                pass

    async def sign(self, location: str, ttl: int) -> str | None:
        """See `Driver`; None without the key of an account."""
        account, key = self._settings.account, self._prefix + location
        if account is None:
            return None
        path = f"/{quote(self._settings.bucket, safe='')}/{quote(key, safe='/')}"
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        scope = f"{stamp[:8]}/auto/storage/goog4_request"
        query = urlencode(
            {  # in the order of their names
                "X-Goog-Algorithm": "GOOG4-RSA-SHA256",
                "X-Goog-Credential": f"{account.email}/{scope}",
                "X-Goog-Date": stamp,
                "X-Goog-Expires": ttl,
                "X-Goog-SignedHeaders": "host",
            },
            quote_via=quote,
            safe="",
        )
        host = urlsplit(self._endpoint).netloc
        request = f"GET\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"GOOG4-RSA-SHA256\n{stamp}\n{scope}\n{digest}"
        signature = await asyncio.to_thread(account.sign, text.encode())
        return f"{self._endpoint}{path}?{query}&X-Goog-Signature={signature.hex()}"

    async def close(self) -> None:
        """See `Driver`."""
        await self._web.close()
        await self._token_web.close()
        await super().close()

    async def _put(self, location: str, data: Spool | io.BytesIO) -> None:
        """See `Parted`."""
        query = urlencode({"uploadType": "media", "name": self._prefix + location, "fields": "size"})
        headers = {"Content-Type": "application/octet-stream"}
        url = f"/upload{self._objects}?{query}"
        async with self._asked("POST", url, data=data, headers=headers) as answer:
            await self._check_size(answer, location, size_of(data))

    async def _add_part(self, state: UploadState, data: Spool) -> UploadState:
        """See `Parted`."""
        location = aside(state.location, "part")
        await self._put(location, data)
        part = Part(location.rpartition(".")[2], "", len(data))
        return msgspec.structs.replace(state, parts=(*state.parts, part))

    async def _join_parts(self, state: UploadState) -> None:
        """
        See `Parted`.

        Parts are kept until the object stands, so that this may be repeated. What was composed on the way is not.
        """
        sources = [f"{state.location}.part.{part.name}" for part in state.parts]
        made: list[str] = []
        try:
            while len(sources) > _SOURCES:
                groups = [sources[start : start + _SOURCES] for start in range(0, len(sources), _SOURCES)]
                sources = [aside(state.location, "part") for _ in groups]
                made += sources
                await _each(self._compose_group, zip(groups, sources, strict=True))
            await self._compose(sources, state.location, size=sum(part.size for part in state.parts))
        except BaseException:
            with suppress(StorageError):  # swept by abort
                await _each(self.delete, made)
            raise
        with suppress(StorageError):  # the object stands
            await self._drop_parts(state)

    async def _drop_parts(self, state: UploadState) -> None:
        """See `Parted`; those of other requests as well."""
        location = state.location
        async with aclosing(self._list_everything(f"{location}.part.")) as parts:
            found = [part.location async for part in parts if upload_of(part.location) == location]
        await _each(self.delete, found)

    async def _compose_group(self, group: tuple[Sequence[str], str]) -> None:
        await self._compose(*group)

    async def _compose(self, sources: Sequence[str], location: str, size: int | None = None) -> None:
        """
        Make an object of others; with a `size` it is the last one, of so many bytes, and the sources go.

        Raises ObjectMissing when a source is missing, or when there is an object already.
        """
        request = {
            "sourceObjects": [{"name": self._prefix + source} for source in sources],
            "destination": {"contentType": "application/octet-stream"},
            # Sources that go in this way cost no fee for going early, and are not kept for a time after it.
            "deleteSourceObjects": size is not None,
        }
        url = f"{self._url(location)}/compose?ifGenerationMatch=0&fields=size"
        headers, data = {"Content-Type": "application/json"}, msgspec.json.encode(request)
        async with self._asked("POST", url, data=data, headers=headers, of=location, also=412) as answer:
            if answer.status == 412:
                raise ObjectMissing(location)
            if size is not None:
                await self._check_size(answer, location, size)

    async def _check_size(self, answer: ClientResponse, location: str, size: int) -> None:
        stored = int(_decode_object(await self._web.read(answer)).size)
        if stored != size:
            raise StorageError(f"the store has {stored} bytes at {location} instead of {size}")

    async def _list_everything(self, prefix: str) -> AsyncGenerator[Stored, None]:
        """See `Parted`."""
        query = {
            "prefix": self._prefix + prefix,
            "maxResults": _PAGE,
            "fields": "nextPageToken,items(name,size,updated)",
        }
        while True:
            async with self._asked("GET", f"{self._objects}?{urlencode(query)}") as answer:
                page = _decode_page(await self._web.read(answer))
            for one in page.items:
                location = one.name.removeprefix(self._prefix)
                yield Stored(location, int(one.size), one.updated.astimezone(UTC))
            if not page.next_page_token:
                return
            query["pageToken"] = page.next_page_token

    def _url(self, location: str) -> str:
        return f"{self._objects}/{quote(self._prefix + location, safe='')}"

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        url: str,
        *,
        data: bytes | Spool | io.BytesIO = b"",
        headers: Mapping[str, str] | None = None,
        of: str = "",
        also: int = 0,
    ) -> AsyncGenerator[ClientResponse, None]:
        """
        The answer to a request, when it is a success, or of the status `also`.

        `url` begins after the endpoint; `of` is the location that the request is about, which may be missing.
        Raises StorageError for all other answers; some of them lead to another attempt before.
        """
        token = ""

        async def authorized() -> Mapping[str, str]:
            nonlocal token
            token = await self._tokens.get()
            return {"Authorization": f"Bearer {token}", **(headers or {})}

        for attempt in range(_ATTEMPTS):
            await self._tokens.get()  # a new one takes a request of its own, with a time limit of its own
            async with await self._web.send(method, self._endpoint + url, authorized, data) as answer:
                if answer.status < 300 or answer.status == also:
                    yield answer
                    return
                refusal = _explained(answer, await self._web.read(answer))
            if attempt == _ATTEMPTS - 1:
                break
            if refusal.status == 401:  # it ended early
                self._tokens.forget(token)
            elif refusal.status == 403 and refusal.reason in _LIMITS:
                await asyncio.sleep(_FIRST_PAUSE * 2**attempt)
            else:
                break
        if refusal.status == 404:
            await self._raise_missing(of, refusal)
        raise _translated(refusal)

    async def _raise_missing(self, location: str, refusal: _Refusal) -> NoReturn:
        """Raise ObjectMissing, or StorageUnavailable when it is the bucket that is missing."""
        if location and "bucket does not exist" not in refusal.message:
            async with self._asked("GET", f"{self._objects}?maxResults=1&fields=kind"):
                raise ObjectMissing(location)
        bucket = self._settings.bucket
        raise StorageUnavailable(f"the bucket {bucket} is not there, or hidden from these credentials")


def _explained(answer: ClientResponse, content: bytes) -> _Refusal:
    """What an answer says of why it is no success."""
    try:
        error = _decode_failure(content).error
    except (msgspec.DecodeError, UnicodeError):
        error = _Error()
    reason = error.errors[0].reason if error.errors else ""
    message = error.message or answer.reason or "it does not say why"
    return _Refusal(answer.status, reason, f"the store answers {answer.status}: {message}")


def _translated(refusal: _Refusal) -> StorageError:
    """The StorageError for an answer."""
    status, reason, message = refusal
    if status == 403 and reason in _HOLDS:
        return StorageError(message)
    if status in {408, 429} or (status >= 500 and status != 507) or reason in _LIMITS:
        return StorageUnavailable(message)
    if status in {401, 403}:
        return AccessDenied(message)
    if status == 507:
        return StorageFull(message)
    return StorageError(message)


async def _each(act: Callable[[T], Awaitable[None]], ones: Iterable[T]) -> None:
    """Act on each of these, some at a time; then raise the first error."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def take(one: T) -> None:
        async with turns:
            await act(one)

    done = await asyncio.gather(*(take(one) for one in ones), return_exceptions=True)
    for failure in filter(None, done):
        raise failure
