"""
A signer elsewhere, asked with gRPC over mutual TLS: dtr's own (`dtr signer serve`), or a stock notary-signer.

One connection, made with the first call and made again when it broke. Certificates that were renewed are used for
the next connection. The library of gRPC must not be used before the process was forked, so nothing is opened
before the first call.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from dtr.signer.errors import AlgorithmUnsupported, KeyUnknown, RequestRefused, SignerFailed, SignerUnavailable
from dtr.signer.signer import ALGORITHMS
from dtr.tuf import PublicKey, Signature

if TYPE_CHECKING:
    from pathlib import Path

    from grpc import aio

# The library writes to the standard error output by itself; what goes wrong is in the errors of calls.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

_METHODS = {
    "CreateKey": "KeyManagement",
    "GetKeyInfo": "KeyManagement",
    "DeleteKey": "KeyManagement",
    "Sign": "Signer",
}
HEALTH_NAMES = ("grpc.health.v1.Health.KeyManagement", "grpc.health.v1.Health.Signer")
"""What the health service calls the two services (section 5.1)."""
_DEADLINE_SECONDS = 5.0
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    # How long an attempt to connect may take, in spite of its name: some ways to and fro, to a busy signer.
    ("grpc.min_reconnect_backoff_ms", round(_DEADLINE_SECONDS * 1000)),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


class _Files(Struct, frozen=True):
    """What the files of TLS hold."""

    ca: bytes
    certificate: bytes
    key: bytes


class RemoteSigner:
    """A `Signer` behind gRPC."""

    def __init__(
        self, address: str, *, ca: Path, certificate: Path, key: Path, deadline_seconds: float = _DEADLINE_SECONDS
    ) -> None:
        """
        The signer at `address` (``HOST:PORT``), whose certificate is by `ca` and for HOST, files in PEM.

        We show `certificate`. No call takes longer than `deadline_seconds`.
        """
        self._address = address
        self._paths = (ca, certificate, key)
        self._deadline = deadline_seconds
        self._channel: aio.Channel | None = None
        self._files: _Files | None = None
        self._connecting = asyncio.Lock()

    async def create_key(self, gun: str, role: str, algorithm: str) -> PublicKey:
        """`Signer.create_key`."""
        from grpc import StatusCode

        from dtr.signer.proto.signer_pb2 import CreateKeyRequest

        if algorithm not in ALGORITHMS:
            raise AlgorithmUnsupported(algorithm)
        found = await self._ask(
            "CreateKey",
            CreateKeyRequest(algorithm=algorithm, gun=gun, role=role),
            {StatusCode.UNKNOWN: AlgorithmUnsupported(algorithm)},
        )
        return self._key(found)

    async def find_key(self, key_id: str) -> PublicKey | None:
        """`Signer.find_key`."""
        from dtr.signer.proto.signer_pb2 import KeyID

        try:
            found = self._key(await self._ask("GetKeyInfo", KeyID(ID=key_id), _unknown(key_id)))
        except KeyUnknown:
            return None
        if found.id != key_id:
            raise SignerFailed(f"{self._address} answered with key {found.id} for {key_id}")
        return found

    async def sign(self, key_id: str, content: bytes) -> Signature:
        """`Signer.sign`."""
        from dtr.signer.proto.signer_pb2 import KeyID, SignatureRequest

        request = SignatureRequest(keyID=KeyID(ID=key_id), content=content)
        made = await self._ask("Sign", request, _unknown(key_id))
        signed_with = made.keyInfo.keyID.ID
        if signed_with != key_id:
            raise SignerFailed(f"{self._address} signed with another key than {key_id}")
        return Signature(key_id, made.algorithm.algorithm, made.content)

    async def delete_key(self, key_id: str) -> None:
        """`Signer.delete_key`."""
        from dtr.signer.proto.signer_pb2 import KeyID

        await self._ask("DeleteKey", KeyID(ID=key_id), {})

    async def check(self) -> None:
        """`Signer.check`: what the signer's health service says."""
        from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

        for name in HEALTH_NAMES:
            answer = await self._call(
                "/grpc.health.v1.Health/Check", HealthCheckRequest(service=name), HealthCheckResponse, {}
            )
            if answer.status != HealthCheckResponse.SERVING:
                raise SignerUnavailable(f"the signer {self._address} cannot sign now")

    async def close(self) -> None:
        """Close the connection; the next call opens another."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _ask(self, method: str, request: Any, meanings: dict[Any, Exception]) -> Any:
        from dtr.signer.proto import signer_pb2

        service = signer_pb2.DESCRIPTOR.services_by_name[_METHODS[method]]
        answer = getattr(signer_pb2, service.methods_by_name[method].output_type.name)
        return await self._call(f"/{service.full_name}/{method}", request, answer, meanings)

    async def _call(self, path: str, request: Any, answer: Any, meanings: dict[Any, Exception]) -> Any:
        """
        Call a method within the deadline; again, once, when certificates were renewed.

        `meanings` are what status codes mean for this method, beside those that mean the same for all.
        """
        from grpc import StatusCode, aio

        until = asyncio.get_running_loop().time() + self._deadline
        while True:
            channel = await self._connected()
            call = channel.unary_unary(
                path, request_serializer=type(request).SerializeToString, response_deserializer=answer.FromString
            )
            try:
                left = max(0.0, until - asyncio.get_running_loop().time())
                return await call(request, timeout=left)
            except aio.AioRpcError as error:
                code, details = error.code(), error.details() or "no reason given"
            if code is StatusCode.UNAVAILABLE and await self._were_renewed():
                await self.close()
                continue
            if code in meanings:
                raise meanings[code]
            if code is StatusCode.INVALID_ARGUMENT:
                raise RequestRefused(details)
            if code in {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED}:
                raise SignerUnavailable(f"the signer {self._address} does not answer: {details}")
            raise SignerFailed(f"the signer {self._address} failed ({code.name}): {details}")

    async def _connected(self) -> aio.Channel:
        from grpc import aio, ssl_channel_credentials

        async with self._connecting:
            if self._channel is None:
                self._files = files = await asyncio.to_thread(self._read)
                self._channel = aio.secure_channel(
                    self._address,
                    ssl_channel_credentials(files.ca, files.key, files.certificate),
                    options=_OPTIONS,
                )
            return self._channel

    async def _were_renewed(self) -> bool:
        """Whether the files are others than those of the connection."""
        return await asyncio.to_thread(self._read) != self._files

    def _read(self) -> _Files:
        try:
            return _Files(*(one.read_bytes() for one in self._paths))
        except OSError as error:
            raise SignerUnavailable(f"{error.filename} cannot be read: {error.strerror}") from None

    def _key(self, found: Any) -> PublicKey:
        """The key of an answer, which names it. Raises SignerFailed."""
        key = PublicKey(found.keyInfo.algorithm.algorithm, found.publicKey)
        if key.id != found.keyInfo.keyID.ID:
            raise SignerFailed(f"{self._address} answered with a key that is not {found.keyInfo.keyID.ID}")
        return key


def _unknown(key_id: str) -> dict[Any, Exception]:
    from grpc import StatusCode

    return {StatusCode.NOT_FOUND: KeyUnknown(key_id)}
