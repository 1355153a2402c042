"""
Block blobs in a container of Microsoft Azure, by the Blob service's REST interface.

The maker's library is not used: it reads pieces of megabytes whole into memory, one request each, and signs and
retries where our own time limits and states have to hold. What is needed of the interface is nine requests.

A part is a *block*: Put Block stores it under a random name, and Put Block List makes the blob of those that it
names; the others are dropped then. Blocks that no list named yet are all that there is of an unfinished upload;
they are listed as an "uncommitted" blob, which cannot be read, and Azure drops them after a week without news.
50,000 blocks make a blob, each of at most 4000 MiB.

Names of the interface's operations, headers and codes are those of "Blob Storage REST API" at Microsoft Learn;
signatures are those of "Authorize with Shared Key", "Create a service SAS" and "Create a user delegation SAS".
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import secrets
import tempfile
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree as ET

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dtr.storage.access_tokens import AccessTokens
from dtr.storage.azure_identity import METADATA, Identity
from dtr.storage.driver import Part, Stored
from dtr.storage.errors import AccessDenied, ObjectMissing, StorageError, StorageFull, StorageUnavailable
from dtr.storage.parted import Parted, PartSizes
from dtr.storage.web import Web, size_of

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncGenerator, Mapping

    from aiohttp import ClientResponse

    from dtr.storage.driver import UploadState
    from dtr.storage.lending import Answer
    from dtr.storage.spool import Spool
    from dtr.storage.web import Body

SIZES = PartSizes(usual=8 * 1024 * 1024, most=50_000, growth=2_500, longest=4000 * 1024 * 1024)
"""Parts of 8 MiB up to 20 GiB. Even 25,000 that are as short as parts get leave enough for an object of 30 TiB."""
PUBLIC = "core.windows.net"
"""The realm of the public cloud."""

_VERSION = "2021-08-06"
_PAGE = 1000
_OCTETS = "application/octet-stream"
_LONGEST_REASON = 300
_DELEGATED_HOURS = 24
_DELEGATED = {
    "skoid": "SignedOid",
    "sktid": "SignedTid",
    "skt": "SignedStart",
    "ske": "SignedExpiry",
    "sks": "SignedService",
    "skv": "SignedVersion",
}
"""How an address names what the answer to Get User Delegation Key says, in the order in which it is signed."""
_BEGUN = re.compile(r"[0-9]{8}/[0-9]{4}(?=/)")

_MISSING_CODES = frozenset({"BlobNotFound", "ResourceNotFound", "InvalidBlockList", "InvalidBlobOrBlock"})
_CONTAINER_CODES = frozenset({"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"})
_DENIED_CODES = frozenset(
    {
        "AccountIsDisabled",
        "BlobImmutableDueToPolicy",
        "InvalidAuthenticationInfo",
        "InsufficientAccountPermissions",
    }
)


@dataclass(frozen=True, slots=True)
class AzureSettings:
    """
    Where the container is and how to reach it.

    Requests carry a signature by `account_key`; or `sas_token` (a shared access signature: the text behind the
    question mark); or a token for `identity`, what the machine is at Azure (`dtr.storage.azure_identity`), for
    which the service at `metadata` is asked. Without `endpoint`, the service is ``https://<account>.blob.<realm>``.
    `verify` is whether to check the server's certificate, or the authorities to trust: the path of a file, or PEM.
    `time_limit`, in seconds, holds for every request, and anew for every piece that is sent or read. Parts of
    uploads wait below `spool_directory`, served by so many `threads`.
    """

    account: str
    container: str
    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)
    identity: str | None = None
    metadata: str = METADATA
    realm: str = PUBLIC
    endpoint: str | None = None
    root_directory: str = ""
    verify: bool | str = True
    time_limit: float = 60
    spool_directory: str = field(default_factory=tempfile.gettempdir)
    threads: int = 4

    @property
    def service(self) -> str:
        """The address of the Blob service of the account, without a slash at its end."""
        return (self.endpoint or f"https://{self.account}.blob.{self.realm}").rstrip("/")


class _BeyondTheEnd(StorageError):
    """The object has no bytes there."""


class Azure(Parted):
    """A driver over one container, or over the blobs below `root_directory` in it."""

    def __init__(self, settings: AzureSettings) -> None:
        """Remember the settings. Raises ValueError when the account key is none."""
        super().__init__(SIZES, spool_directory=settings.spool_directory, threads=settings.threads)
        self._settings = settings
        self._key = SharedKey(settings.account, settings.account_key) if settings.account_key else None
        self._sas = (settings.sas_token or "").lstrip("?")
        root = settings.root_directory.strip("/")
        self._prefix = f"{root}/" if root else ""
        self._name = f"the container {settings.container}"
        self._web = Web(self._name, verify=settings.verify, time_limit=settings.time_limit)
        self._metadata_web: Web | None = None
        self._tokens: AccessTokens | None = None
        self._delegated: DelegatedKey | None = None
        if settings.identity:
            web = Web("the metadata service of the machine", time_limit=settings.time_limit, proxies=False)
            self._metadata_web = web
            self._tokens = AccessTokens(Identity(settings.identity, web, settings.metadata).ask)

    @asynccontextmanager
    async def _ask(self, location: str, offset: int, length: int | None) -> AsyncGenerator[Answer | None, None]:
        """See `Parted`."""
        last = "" if length is None else offset + length - 1
        wanted = {"x-ms-range": f"bytes={offset}-{last}"} if offset or length is not None else {}
        try:
            async with self._answer("GET", location, headers=wanted) as answer:
                if wanted and not answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                    raise StorageError(f"the store gives other bytes of {location} than it was asked for")
                yield self._web.content(answer, location)
        except _BeyondTheEnd:
            yield None

    async def stat(self, location: str) -> int:
        """See `Driver`."""
        async with self._answer("HEAD", location) as answer:
            return int(answer.headers["Content-Length"])

    async def delete(self, location: str) -> None:
        """See `Driver`."""
        try:
            async with self._answer("DELETE", location, headers={"x-ms-delete-snapshots": "include"}):
                pass
        except ObjectMissing:
            pass

    async def list_uploads(self) -> AsyncGenerator[Stored, None]:
        """See `Driver`; how long an upload is, the store does not say; Azure itself not even when bytes came."""
        async with aclosing(self._list_blobs("", include="uncommittedblobs")) as blobs:
            async for blob in blobs:
                if not blob.is_committed and (since := blob.modified_at or _begun_at(blob.location)):
                    yield Stored(blob.location, 0, since)
        async with aclosing(super().list_uploads()) as put_aside:
            async for stored in put_aside:
                yield stored

    async def sign(self, location: str, ttl: int) -> str | None:
        """See `Driver`; a shared access signature that we were given would give away all of its rights."""
        until = datetime.now(UTC) + timedelta(seconds=ttl)
        key = self._key if self._tokens is None else await self._delegate(until)
        if key is None:
            return None
        resource = f"/blob/{self._settings.account}/{self._settings.container}/{self._prefix}{location}"
        is_secure = self._settings.service.startswith("https://")
        return f"{self._address(location)}?{key.grant_reading(resource, until, is_secure=is_secure)}"

    async def check(self) -> None:
        """See `Driver`; the right to list is needed, too."""
        await super().check()
        async with aclosing(self._list_blobs("", include="uncommittedblobs")) as blobs:
            await anext(blobs, None)

    async def close(self) -> None:
        """See `Driver`."""
        await self._web.close()
        if self._metadata_web is not None:
            await self._metadata_web.close()
        await super().close()

    # --- Parts ----------------------------------------------------------------------------------------------

    async def _put(self, location: str, data: Spool | io.BytesIO) -> None:
        headers = {"x-ms-blob-type": "BlockBlob", "Content-Type": _OCTETS}
        async with self._answer("PUT", location, headers=headers, data=data):
            pass

    async def _add_part(self, state: UploadState, data: Spool) -> UploadState:
        # Names of blocks of one blob have to be of one length, before they are encoded and after.
        name = base64.b64encode(secrets.token_bytes(12)).decode()
        query = {"comp": "block", "blockid": name}
        async with self._answer("PUT", state.location, query, {"Content-Type": _OCTETS}, data):
            return msgspec.structs.replace(state, parts=(*state.parts, Part(name, "", len(data))))

    async def _join_parts(self, state: UploadState) -> None:
        # By `Uncommitted`, not `Latest`: what was joined before is not joined again below a running read.
        await self._put_block_list(
            state.location, "".join(f"<Uncommitted>{part.name}</Uncommitted>" for part in state.parts)
        )

    async def _drop_parts(self, state: UploadState) -> None:
        # A deletion does not find a blob that has only blocks. An empty one has none any more; it is deleted next.
        await self._put_block_list(state.location, "")

    async def _put_block_list(self, location: str, blocks: str) -> None:
        text = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{blocks}</BlockList>'
        headers = {"x-ms-blob-content-type": _OCTETS, "Content-Type": "application/xml"}
        async with self._answer("PUT", location, {"comp": "blocklist"}, headers, text.encode()):
            pass

    # --- Listings -------------------------------------------------------------------------------------------

    async def _list_everything(self, prefix: str) -> AsyncGenerator[Stored, None]:
        previous = ""
        async with aclosing(self._list_blobs(prefix)) as blobs:
            async for blob in blobs:
                if blob.location <= previous:
                    raise StorageError(
                        f"{self._name} does not list its blobs in the order of their names: "
                        "accounts with a hierarchical namespace cannot be used"
                    )
                previous = blob.location
                yield Stored(blob.location, blob.size, blob.modified_at or datetime.fromtimestamp(0, UTC))

    async def _list_blobs(self, prefix: str, **more: str) -> AsyncGenerator[_Blob, None]:
        query = {"restype": "container", "comp": "list", "maxresults": str(_PAGE), **more}
        query["prefix"] = self._prefix + prefix
        while True:
            async with self._answer("GET", "", query) as answer:
                text = await self._web.read(answer)
            try:
                page, marker = await asyncio.to_thread(_read_page, text)
            except (ET.ParseError, ValueError, TypeError) as error:
                raise StorageError(f"{self._name} answers a listing that cannot be read") from error
            for blob in page:
                yield replace(blob, location=blob.location.removeprefix(self._prefix))
            if not marker:
                return
            query["marker"] = marker

    # --- Requests -------------------------------------------------------------------------------------------

    async def _delegate(self, until: datetime) -> DelegatedKey:
        """A key that the identity may sign with, good until then: the same one for a day."""
        if self._delegated is None or self._delegated.expires_at < until:
            now = datetime.now(UTC)
            start, end = (_iso(now + timedelta(hours=hours)) for hours in (-0.25, _DELEGATED_HOURS))
            text = f"<KeyInfo><Start>{start}</Start><Expiry>{end}</Expiry></KeyInfo>".encode()
            query = {"restype": "service", "comp": "userdelegationkey"}
            async with self._answer("POST", None, query, {"Content-Type": "application/xml"}, text) as answer:
                content = await self._web.read(answer)
            try:
                self._delegated = DelegatedKey.read(content)
            except (ET.ParseError, ValueError) as error:
                raise StorageError(f"{self._name}: the key for signatures cannot be read") from error
        return self._delegated

    def _address(self, location: str | None) -> str:
        """The address of a blob; of the container with the location ""; of the service with None."""
        if location is None:
            return f"{self._settings.service}/"
        path = f"{self._settings.service}/{self._settings.container}"
        return f"{path}/{quote(self._prefix + location)}" if location else path

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        location: str | None,
        query: Mapping[str, str] = MappingProxyType({}),
        headers: Mapping[str, str] = MappingProxyType({}),
        data: Body = b"",
    ) -> AsyncGenerator[ClientResponse, None]:
        """A successful answer about what `_address` names. Raises StorageError for all others."""
        address = self._address(location)
        asked = "&".join(filter(None, (urlencode(query, quote_via=quote), self._sas)))

        token = ""

        async def signed() -> Mapping[str, str]:
            nonlocal token
            date = format_datetime(datetime.now(UTC), usegmt=True)
            named = {**headers, "x-ms-date": date, "x-ms-version": _VERSION}
            if self._tokens is not None:
                token = await self._tokens.get()
                return {**named, "Authorization": f"Bearer {token}"}
            if self._key is not None:
                path = urlsplit(address).path
                named["Authorization"] = self._key.authorize(method, path, query, named, size_of(data))
            return named

        async with await self._web.send(
            method, f"{address}?{asked}" if asked else address, signed, data
        ) as answer:
            is_unknown = answer.status == 401 or answer.headers.get("x-ms-error-code") == "AuthenticationFailed"
            if is_unknown and self._tokens is not None:
                self._tokens.forget(token)
            if answer.status >= 300:
                raise await self._translated(answer, location or "")
            yield answer

    async def _translated(self, answer: ClientResponse, location: str) -> StorageError:
        """The StorageError for an error answer of the store."""
        code, reason = _read_error(answer, await self._web.read(answer))
        status = answer.status
        if code in _CONTAINER_CODES:
            return StorageUnavailable(f"{self._name} is not there: {code}")
        if code in _MISSING_CODES:  # a 404 without one is not of the service
            return ObjectMissing(location)
        if code in _DENIED_CODES or status in {401, 403}:
            return AccessDenied(f"{self._name}: {reason}")
        if status == 416:
            return _BeyondTheEnd(reason)
        if status == 507 or "QuotaExceeded" in code:
            return StorageFull(f"{self._name}: {reason}")
        if status >= 500 or status in {408, 429}:
            return StorageUnavailable(f"{self._name}: {reason}")
        return StorageError(f"{self._name}: {reason}")


class SharedKey:
    """The key of an account, which signs requests and what others may do without it."""

    def __init__(self, account: str, key: str) -> None:
        """Raises ValueError when the key is not base64."""
        self._account = account
        self._key = base64.b64decode(key, validate=True)

    def authorize(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], size: int
    ) -> str:
        """The Authorization of a request with a body of `size` bytes; `path` as it is sent, `query` decoded."""
        given = {name.lower(): value for name, value in headers.items()}
        lines = [
            method,
            *("", "", str(size or ""), "", given.get("content-type", ""), "", "", "", "", "", ""),
            *(f"{name}:{given[name]}" for name in sorted(given) if name.startswith("x-ms-")),
            f"/{self._account}{path}",
            *(f"{name}:{query[name]}" for name in sorted(query)),
        ]
        return f"SharedKey {self._account}:{_signature(self._key, lines)}"

    def grant_reading(self, resource: str, until: datetime, *, is_secure: bool) -> str:
        """The query of a URL by which anyone may read a blob, ``/blob/ACCOUNT/CONTAINER/NAME``, for some time."""
        given = _granted(until, is_secure=is_secure)
        lines = ["r", "", given["se"], resource, "", "", given["spr"], _VERSION, "b", *[""] * 7]
        return urlencode({**given, "sig": _signature(self._key, lines)}, quote_via=quote, safe="")


@dataclass(frozen=True, slots=True)
class DelegatedKey:
    """What signs for an identity, until it `expires_at`; `named` is how an address says which key it was."""

    value: bytes = field(repr=False)
    named: dict[str, str]
    expires_at: datetime

    @classmethod
    def read(cls, text: bytes) -> Self:
        """From the answer to Get User Delegation Key. Raises ParseError, ValueError."""
        answer = ET.fromstring(text)  # noqa: S314 - what entities grow to, expat bounds
        named = {name: answer.findtext(tag) or "" for name, tag in _DELEGATED.items()}
        expires_at = datetime.fromisoformat(named["ske"])
        return cls(base64.b64decode(answer.findtext("Value") or "", validate=True), named, expires_at)

    def grant_reading(self, resource: str, until: datetime, *, is_secure: bool) -> str:
        """See `SharedKey`."""
        given = _granted(until, is_secure=is_secure)
        lines = [
            *("r", "", given["se"], resource, *self.named.values(), "", "", "", ""),
            *(given["spr"], _VERSION, "b", *[""] * 7),
        ]
        return urlencode({**given, **self.named, "sig": _signature(self.value, lines)}, quote_via=quote, safe="")


def _granted(until: datetime, *, is_secure: bool) -> dict[str, str]:
    """The right to read one blob until then, without its signature."""
    return {"sp": "r", "se": _iso(until), "spr": "https" if is_secure else "https,http", "sv": _VERSION, "sr": "b"}


def _signature(key: bytes, lines: list[str]) -> str:
    return base64.b64encode(hmac.digest(key, "\n".join(lines).encode(), "sha256")).decode()


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class _Blob(Struct, frozen=True):
    """A blob as a listing shows it."""

    location: str
    size: int
    modified_at: datetime | None
    is_committed: bool
    """Otherwise only blocks of it are there."""


def _read_page(text: bytes) -> tuple[list[_Blob], str]:
    """The blobs of a page of a listing, and where the next begins. Raises ParseError, ValueError, TypeError."""
    listing = ET.fromstring(text)  # noqa: S314 - what entities grow to, expat bounds
    blobs = []
    for entry in listing.iterfind("Blobs/Blob"):
        modified = entry.findtext("Properties/Last-Modified")
        if entry.findtext("Properties/ResourceType") != "directory":
            blobs.append(
                _Blob(
                    location=entry.findtext("Name", ""),
                    size=int(entry.findtext("Properties/Content-Length") or 0),
                    modified_at=parsedate_to_datetime(modified) if modified else None,
                    # "Uncommitted blobs in the response do not include …" (List Blobs, remarks)
                    is_committed=bool(entry.findtext("Properties/Content-Type")),
                )
            )
    return blobs, listing.findtext("NextMarker") or ""


def _read_error(answer: ClientResponse, text: bytes) -> tuple[str, str]:
    """The code of an error answer, and what can be told of it. An answer to HEAD has the code alone."""
    code = answer.headers.get("x-ms-error-code", "")
    found = {}
    with suppress(ET.ParseError):
        found = {part.tag: (part.text or "") for part in ET.fromstring(text)}  # noqa: S314 - as above
    code = code or found.get("Code", "")
    said = [found.get(name, "").partition("\n")[0].strip() for name in ("Message", "AuthenticationErrorDetail")]
    return code, ": ".join(filter(None, (code or f"status {answer.status}", *said)))[:_LONGEST_REASON]


def _begun_at(location: str) -> datetime | None:
    """When an upload to a location of `new_location` began; None for the locations of others."""
    match = _BEGUN.match(location)
    try:
        return datetime.strptime(f"{match[0]}+0000", "%Y%m%d/%H%M%z") if match else None
    except ValueError:
        return None
