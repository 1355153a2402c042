"""
Objects in Amazon S3 or a store that speaks its protocol (signature version 4).

An upload of less than a part is stored by one PUT when it is completed; a longer one is a multipart upload
(`dtr.storage.parted`), whose id is the `session` of its state. Parts but the last need 5 MiB, and there are at
most 10,000 (Amazon S3 user guide, "multipart upload limits"): a part is 5 MiB up to 6 GiB, then 1/1250 of what is
stored already, so that they make 5 TiB, the longest object that there is.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from dtr.storage.driver import Part, Stored, UploadState
from dtr.storage.errors import AccessDenied, ObjectMissing, StorageError, StorageFull, StorageUnavailable
from dtr.storage.parted import Parted, PartSizes, upload_of
from dtr.storage.spool import Spool

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from aiobotocore.session import AioSession  # type: ignore[import-untyped]  # has none
    from types_aiobotocore_s3 import S3Client

    from dtr.storage.lending import Answer

SMALLEST_PART = 5 * 1024 * 1024
SIZES = PartSizes(usual=SMALLEST_PART, shortest=SMALLEST_PART, most=10_000, growth=1250)
"""1,250 parts of 5 MiB, and 8,400 growing ones to 5 TiB."""

# InvalidPart: what is stored under a part's number is not what the state names.
_MISSING_CODES = frozenset({"NoSuchKey", "NoSuchUpload", "InvalidPart", "404", "NotFound"})
_DENIED_CODES = frozenset(
    {
        "AccessDenied",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidToken",
        "XAdminUserNotFound",
    }
)
_PATIENCE = 5
"""Time limits for joining parts, which may take minutes (API reference, "CompleteMultipartUpload")."""
_SKEWED_CODES = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_FULL_CODES = frozenset(
    {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}
)


@dataclass(frozen=True, slots=True)
class S3Settings:
    """
    Where the bucket is, how to reach it, and how it is to keep objects.

    Without keys, the usual places are asked (environment, profile, machine role); `session_token` belongs to keys
    that are lent for a while. `verify` is whether to check the server's certificate, or the authorities to trust:
    the path of a file, or the certificates themselves (PEM). Without `v4auth`, requests are signed by version 2.
    `storage_class` is not for tails, which go soon. The store encrypts objects when `encrypt` is true, or a key of
    Amazon's key management is named, `kms_key`.

    `time_limit`, in seconds, holds for every request, and begins anew with every piece that is sent or read. There
    are at most so many `connections` at a time. Parts of uploads, of `part_size` bytes or more, wait below
    `spool_directory`, by default where the system has its temporary files, served by so many `threads`.
    """

    bucket: str
    region: str = "us-east-1"
    endpoint: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    v4auth: bool = True
    root_directory: str = ""
    path_style: bool = False
    accelerate: bool = False
    dual_stack: bool = False
    verify: bool | str = True
    part_size: int = SMALLEST_PART
    storage_class: str = ""
    encrypt: bool = False
    kms_key: str = ""
    time_limit: float = 60
    connections: int = 256
    spool_directory: str = field(default_factory=tempfile.gettempdir)
    threads: int = 4


class _BeyondTheEnd(StorageError):
    """The object has no bytes there."""


class S3(Parted):
    """A driver over one bucket, or over the keys below `root_directory` in it."""

    def __init__(self, settings: S3Settings) -> None:
        """Remember the settings; the client is made by the first request."""
        sizes = replace(SIZES, usual=settings.part_size)
        super().__init__(sizes, spool_directory=settings.spool_directory, threads=settings.threads)
        self._settings = settings
        root = settings.root_directory.strip("/")
        self._prefix = f"{root}/" if root else ""
        self._resources = AsyncExitStack()
        self._client: S3Client | None = None
        self._connecting = asyncio.Lock()

    @asynccontextmanager
    async def _ask(self, location: str, offset: int, length: int | None) -> AsyncGenerator[Answer | None, None]:
        """See `Parted`."""
        from dtr.storage import lending

        last = "" if length is None else offset + length - 1
        try:
            async with self._requests(location) as client:
                answer = await client.get_object(
                    Bucket=self._settings.bucket, Key=self._key(location), Range=f"bytes={offset}-{last}"
                )
        except _BeyondTheEnd:
            yield None
            return
        async with answer["Body"] as body:
            if answer["ContentLength"] and not answer.get("ContentRange", "").startswith(f"bytes {offset}-"):
                raise StorageError(f"the store gives other bytes of {location} than it was asked for")
            limited = partial(self._requests, location)
            yield lending.Answer(body.raw_stream, location, limited, self._settings.time_limit)

    async def stat(self, location: str) -> int:
        """See `Driver`."""
        try:
            async with self._requests(location) as client:
                answer = await client.head_object(Bucket=self._settings.bucket, Key=self._key(location))
        except ObjectMissing:
            await self._require_bucket()
            raise
        return answer["ContentLength"]

    async def delete(self, location: str) -> None:
        """See `Driver`."""
        with suppress(ObjectMissing):
            async with self._requests(location) as client:
                await client.delete_object(Bucket=self._settings.bucket, Key=self._key(location))

    async def list_uploads(self) -> AsyncGenerator[Stored, None]:
        """See `Driver`; how long a multipart upload is, the store does not say."""
        after, after_upload = "", ""
        while True:
            async with self._requests("") as client:
                page = await client.list_multipart_uploads(
                    Bucket=self._settings.bucket,
                    Prefix=self._prefix,
                    KeyMarker=after,
                    UploadIdMarker=after_upload,
                )
            for upload in page.get("Uploads", ()):
                location = upload["Key"].removeprefix(self._prefix)
                yield Stored(location, 0, upload["Initiated"].astimezone(UTC))
            if not page.get("IsTruncated"):
                break
            after, after_upload = page["NextKeyMarker"], page["NextUploadIdMarker"]
        async with aclosing(super().list_uploads()) as put_aside:
            async for stored in put_aside:
                yield stored

    async def sign(self, location: str, ttl: int) -> str | None:
        """See `Driver`."""
        async with self._requests(location) as client:
            return await client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._settings.bucket, "Key": self._key(location)},
                ExpiresIn=ttl,
                HttpMethod="GET",
            )

    async def close(self) -> None:
        """See `Driver`."""
        self._client = None
        await self._resources.aclose()
        await super().close()

    async def _put(self, location: str, data: Spool | io.BytesIO) -> None:
        async with self._requests(location, data) as client:
            await client.put_object(
                Bucket=self._settings.bucket, Key=self._key(location), Body=data, **self._kept(location)
            )

    async def _add_part(self, state: UploadState, data: Spool) -> UploadState:
        number, bucket, key = len(state.parts) + 1, self._settings.bucket, self._key(state.location)
        session = state.session
        if not session:
            async with self._requests(state.location) as client:
                kept = self._kept(state.location)
                session = (await client.create_multipart_upload(Bucket=bucket, Key=key, **kept))["UploadId"]
        async with self._requests(state.location, data) as client:
            answer = await client.upload_part(
                Bucket=bucket, Key=key, UploadId=session, PartNumber=number, Body=data
            )
        return msgspec.structs.replace(
            state,
            session=session,
            parts=(*state.parts, Part(str(number), answer["ETag"], len(data))),
        )

    async def _join_parts(self, state: UploadState) -> None:
        async with self._requests(state.location, patience=_PATIENCE) as client:
            await client.complete_multipart_upload(
                Bucket=self._settings.bucket,
                Key=self._key(state.location),
                UploadId=state.session,
                MultipartUpload={
                    "Parts": [{"PartNumber": int(part.name), "ETag": part.etag} for part in state.parts]
                },
            )

    async def _drop_parts(self, state: UploadState) -> None:
        key = self._key(state.location)
        sessions = {state.session} - {""}
        async with self._requests(state.location) as client:
            # Also those that were begun by a request which did not live to save its state.
            pages = client.get_paginator("list_multipart_uploads")
            async for page in pages.paginate(Bucket=self._settings.bucket, Prefix=key):
                sessions.update(upload["UploadId"] for upload in page.get("Uploads", ()) if upload["Key"] == key)
        for session in sessions:
            with suppress(ObjectMissing):
                async with self._requests(state.location) as client:
                    await client.abort_multipart_upload(Bucket=self._settings.bucket, Key=key, UploadId=session)

    async def _list_everything(self, prefix: str) -> AsyncGenerator[Stored, None]:
        after = ""
        while True:
            async with self._requests(prefix) as client:
                page = await client.list_objects_v2(
                    Bucket=self._settings.bucket, Prefix=self._prefix + prefix, StartAfter=after
                )
            for entry in page.get("Contents", ()):
                location = entry["Key"].removeprefix(self._prefix)
                yield Stored(location, entry["Size"], entry["LastModified"].astimezone(UTC))
                after = entry["Key"]
            if not page["IsTruncated"]:
                return

    async def _require_bucket(self) -> None:
        """Raise what is wrong with bucket or keys, if anything is: answers to HEAD have no body that says it."""
        async with self._requests("") as client:
            await client.list_objects_v2(Bucket=self._settings.bucket, Prefix=self._prefix, MaxKeys=1)

    def _kept(self, location: str) -> dict[str, Any]:
        """How the store is to keep the object at `location`."""
        settings, kept = self._settings, {}
        if settings.storage_class and upload_of(location) is None:
            kept["StorageClass"] = settings.storage_class
        if settings.kms_key:
            kept |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings.kms_key}
        elif settings.encrypt:
            kept["ServerSideEncryption"] = "AES256"
        return kept

    def _key(self, location: str) -> str:
        return self._prefix + location

    @asynccontextmanager
    async def _requests(
        self, location: str, sent: Spool | io.BytesIO | None = None, *, patience: int = 1
    ) -> AsyncGenerator[S3Client, None]:
        """
        The client, for what must end within so many time limits; its errors become storage's own.

        With `sent`, the limit begins anew with each piece of it.
        """
        seconds = self._settings.time_limit * patience
        try:
            async with asyncio.timeout(seconds) as limit:
                if isinstance(sent, Spool):
                    sent.on_piece = partial(_begin_anew, limit, self._settings.time_limit)
                yield self._client or await self._connect()
        except TimeoutError as error:
            raise StorageUnavailable(f"no answer from the bucket within {seconds:g} s") from error
        except Exception as error:
            translated = self._of_library(error, location)
            if translated is None:
                raise
            raise translated from error

    def _of_library(self, error: Exception, location: str) -> StorageError | None:
        """The StorageError for what the client raises; None when it is nothing of the client's."""
        import aiohttp
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError  # type: ignore[import-untyped]  # has none

        if isinstance(error, ClientError):
            return self._translated(error.response, str(error), location)
        if isinstance(error, NoCredentialsError):
            return AccessDenied(str(error))
        if isinstance(error, (BotoCoreError, aiohttp.ClientError, OSError)):
            return StorageUnavailable(str(error) or type(error).__name__)
        return None

    def _translated(self, response: object, message: str, location: str) -> StorageError:
        """The StorageError for an error answer of the store."""
        error = response.get("Error", {}) if isinstance(response, dict) else {}
        metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
        code, status = error.get("Code", ""), metadata.get("HTTPStatusCode", 0)
        if code == "NoSuchBucket":
            return StorageUnavailable(f"there is no bucket {self._settings.bucket} ({message})")
        if code in _MISSING_CODES:
            return ObjectMissing(location)
        if code in _SKEWED_CODES:
            return AccessDenied(f"the clock of this host and that of the store differ too much ({message})")
        if code in _DENIED_CODES or status in {401, 403}:
            return AccessDenied(message)
        if code == "InvalidRange":
            return _BeyondTheEnd(message)
        if code in _FULL_CODES or status == 507:
            return StorageFull(message)
        if status >= 500 or status == 429:
            return StorageUnavailable(message)
        return StorageError(message)

    async def _connect(self) -> S3Client:
        """Make the client, once; the libraries are heavy and imported only by those who use S3."""
        async with self._connecting:
            if self._client is not None:
                connected = self._client
            else:
                from aiobotocore.config import AioConfig  # type: ignore[import-untyped]  # has none

                from dtr.storage.s3_session import Session

                settings = self._settings
                client: AbstractAsyncContextManager[S3Client] = _session().create_client(
                    "s3",
                    region_name=settings.region,
                    endpoint_url=settings.endpoint,
                    aws_access_key_id=settings.access_key,
                    aws_secret_access_key=settings.secret_key,
                    aws_session_token=settings.session_token,
                    verify=self._authorities(),
                    config=AioConfig(
                        signature_version="s3v4"
                        if settings.v4auth
                        else "s3",  # otherwise URLs are signed with "s3"
                        http_session_cls=Session,
                        connect_timeout=settings.time_limit,
                        read_timeout=settings.time_limit * _PATIENCE,  # ours is shorter for all but one
                        retries={"mode": "standard", "total_max_attempts": 3},
                        max_pool_connections=settings.connections,
                        # Stores other than Amazon's do not all know the newer checksums; blobs have digests
                        # of their own.
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                        s3={
                            "addressing_style": self._addressing,
                            # TLS protects the bytes; over plain HTTP nothing does but the digest that pulls check.
                            "payload_signing_enabled": False,
                            "use_accelerate_endpoint": settings.accelerate,
                            "use_dualstack_endpoint": settings.dual_stack,
                        },
                    ),
                )
                connected = await self._resources.enter_async_context(client)
                self._client = connected
            return connected

    @property
    def _addressing(self) -> str:
        """Where the bucket is said; left alone, the client puts it into the path wherever it is not Amazon's."""
        if self._settings.path_style:
            return "path"
        return "virtual" if self._settings.endpoint else "auto"

    def _authorities(self) -> bool | str:
        """What `verify` says, certificates in a file that has no name, for the client wants a path."""
        verify = self._settings.verify
        if not isinstance(verify, str) or "-----BEGIN" not in verify:
            return verify
        descriptor = os.memfd_create("authorities")
        self._resources.callback(os.close, descriptor)
        os.write(descriptor, verify.encode())
        return f"/proc/self/fd/{descriptor}"


def _begin_anew(limit: asyncio.Timeout, seconds: float) -> None:
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time() + seconds)


@lru_cache(maxsize=1)
def _session() -> AioSession:
    """One for all drivers of the process: the description of S3 that it reads takes a tenth of a second."""
    from aiobotocore.session import get_session

    return get_session()
