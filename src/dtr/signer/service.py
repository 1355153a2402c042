"""
The signer as a service: gRPC over mutual TLS, wire-compatible with notary v1 (section 5.1).

Whoever shows a certificate by the authority of the clients may have timestamps and snapshots signed; nobody else
gets further than the handshake of TLS. Certificates that are renewed on disk are used for the next connections.

| what happened                      | status           |
|------------------------------------|------------------|
| there is no such key               | NOT_FOUND        |
| keys of this algorithm are unknown | UNKNOWN          |
| what is asked for is refused       | INVALID_ARGUMENT |
| it failed                          | INTERNAL         |
"""

from __future__ import annotations

import errno
import logging
import ssl
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc import StatusCode, aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from msgspec import Struct

from dtr.db import DatabaseError
from dtr.signer.errors import AlgorithmUnsupported, KeyUnknown, RequestRefused, SignerError
from dtr.signer.proto import signer_pb2
from dtr.signer.proto.signer_pb2 import (
    Algorithm,
    CreateKeyRequest,
    GetKeyInfoResponse,
    KeyID,
    KeyInfo,
    PublicKey,
    Signature,
    SignatureRequest,
    Void,
)
from dtr.signer.remote import HEALTH_NAMES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from dtr.signer.local import LocalSigner

_log = logging.getLogger("dtr.signer")

_STATUS: dict[type[Exception], StatusCode] = {
    KeyUnknown: StatusCode.NOT_FOUND,
    AlgorithmUnsupported: StatusCode.UNKNOWN,
    RequestRefused: StatusCode.INVALID_ARGUMENT,
}
_AT_ONCE = 100
"""Calls under way; more wait."""
_HEALTH = "grpc.health.v1.Health"


class Credentials(Struct, frozen=True):
    """Files in PEM: the certificate with its chain, its key, and the authority of those who may ask."""

    certificate: Path
    key: Path
    client_ca: Path


class Service:
    """The signer on an address."""

    def __init__(self, signer: LocalSigner, address: str, credentials: Credentials) -> None:
        """Bind `address` (``HOST:PORT``, port 0: any). Raises OSError."""
        self._signer = signer
        self._credentials = credentials
        self._loaded = self._read()
        self._check()
        self._server = aio.server(options=(("grpc.so_reuseport", 0),), maximum_concurrent_rpcs=_AT_ONCE)
        self._server.add_generic_rpc_handlers(
            (
                self._handlers(
                    "proto.KeyManagement", CreateKey=self._create, DeleteKey=self._delete, GetKeyInfo=self._info
                ),
                self._handlers("proto.Signer", Sign=self._sign),
                self._health(),
            )
        )
        try:
            self.port = self._server.add_secure_port(address, self._tls())
        except RuntimeError:
            what = "the address is taken, or is none of this host"
            raise OSError(errno.EADDRNOTAVAIL, what, address) from None

    async def start(self) -> None:
        """Answer."""
        await self._server.start()

    async def stop(self, drain_seconds: float) -> None:
        """Take no more calls, and give those under way so long to end."""
        await self._server.stop(drain_seconds)

    def _tls(self) -> grpc.ServerCredentials:
        """Certificates as they are on disk when a connection comes."""

        def configuration(loaded: tuple[bytes, bytes, bytes]) -> grpc.ServerCertificateConfiguration:
            certificate, key, client_ca = loaded
            return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)

        def renewed() -> Any:
            """Called for each handshake, by a thread of the library."""
            try:
                found = self._read()
                if found == self._loaded:
                    return None
                self._check()
            except OSError as error:  # when half of it is there, the one in use stays
                _log.error("certificate not reloaded", extra={"reason": str(error)})
                return None
            self._loaded = found
            _log.info("certificate reloaded", extra={"file": str(self._credentials.certificate)})
            return configuration(found)

        return grpc.dynamic_ssl_server_credentials(
            configuration(self._loaded), renewed, require_client_authentication=True
        )

    def _read(self) -> tuple[bytes, bytes, bytes]:
        files = self._credentials
        return files.certificate.read_bytes(), files.key.read_bytes(), files.client_ca.read_bytes()

    def _check(self) -> None:
        """Whether the library will be able to use the files. Raises OSError."""
        context, files = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._credentials
        try:
            context.load_cert_chain(files.certificate, files.key)
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError as error:
            what = f"with key {files.key} and authority {files.client_ca}: {error.reason or error}"
            raise OSError(errno.EINVAL, what, str(files.certificate)) from None

    async def _create(self, request: CreateKeyRequest) -> PublicKey:
        key = await self._signer.create_key(request.gun, request.role, request.algorithm)
        return PublicKey(keyInfo=_info(key.id, key.type), publicKey=key.public)

    async def _delete(self, request: KeyID) -> Void:
        await self._signer.delete_key(request.ID)
        return Void()

    async def _info(self, request: KeyID) -> GetKeyInfoResponse:
        found = await self._signer.find_key_and_role(request.ID)
        if found is None:
            raise KeyUnknown(request.ID)
        key, role = found
        return GetKeyInfoResponse(keyInfo=_info(key.id, key.type), publicKey=key.public, role=role)

    async def _sign(self, request: SignatureRequest) -> Signature:
        made = await self._signer.sign(request.keyID.ID, request.content)
        algorithm = "ed25519" if made.method == "eddsa" else made.method
        return Signature(
            keyInfo=_info(made.key_id, algorithm), algorithm=Algorithm(algorithm=made.method), content=made.content
        )

    def _handlers(self, service: str, **methods: Callable[[Any], Awaitable[Any]]) -> grpc.GenericRpcHandler:
        described = signer_pb2.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods_by_name
        return grpc.method_handlers_generic_handler(
            service,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    _answering(name, getattr(signer_pb2, described[name].input_type.name), method),
                    response_serializer=getattr(signer_pb2, described[name].output_type.name).SerializeToString,
                )
                for name, method in methods.items()
            },
        )

    def _health(self) -> grpc.GenericRpcHandler:
        """The standard health service: whether it could sign at this moment."""

        async def check(body: bytes, context: aio.ServicerContext[Any, Any]) -> HealthCheckResponse:
            try:
                if _read(HealthCheckRequest, body).service not in {"", *HEALTH_NAMES}:
                    await context.abort(StatusCode.NOT_FOUND, "there is no such service")
                await self._signer.check()
            except RequestRefused as error:
                await context.abort(StatusCode.INVALID_ARGUMENT, str(error))
            except (SignerError, DatabaseError) as error:
                _log.error("signer cannot sign", extra={"reason": str(error)})
                return HealthCheckResponse(status=HealthCheckResponse.NOT_SERVING)
            return HealthCheckResponse(status=HealthCheckResponse.SERVING)

        return grpc.method_handlers_generic_handler(
            _HEALTH,
            {
                "Check": grpc.unary_unary_rpc_method_handler(
                    check, response_serializer=HealthCheckResponse.SerializeToString
                )
            },
        )


def _answering(name: str, kind: Any, method: Callable[[Any], Awaitable[Any]]) -> Any:
    """The handler of a method: a line in the log of each call, and the status of what went wrong."""

    async def handle(body: bytes, context: aio.ServicerContext[Any, Any]) -> Any:
        remote = context.peer()
        try:
            request = _read(kind, body)
            answer = await method(request)
        except (KeyUnknown, AlgorithmUnsupported, RequestRefused) as error:
            _log.warning("signer refused", extra={"method": name, "remote": remote, "reason": str(error)})
            await context.abort(_STATUS[type(error)], str(error))
        except (SignerError, DatabaseError) as error:
            _log.error("signing failed", extra={"method": name, "remote": remote, "reason": str(error)})
            await context.abort(StatusCode.INTERNAL, str(error))
        except Exception:  # noqa: BLE001 - whoever asks is told, and the log says what
            _log.exception("signer failed", extra={"method": name, "remote": remote})
            await context.abort(StatusCode.INTERNAL, "an error in the signer; its log says more")
        _log.info("signer answered", extra={"method": name, "remote": remote, "key": _key_of(answer, request)})
        return answer

    return handle


def _read(kind: Any, body: bytes) -> Any:
    """The message of a request. Raises RequestRefused."""
    try:
        return kind.FromString(body)
    except DecodeError:
        raise RequestRefused(f"the request is no {kind.__name__}") from None


def _key_of(answer: Any, request: Any) -> str:
    """The id of the key that a call was about."""
    return str(answer.keyInfo.keyID.ID if hasattr(answer, "keyInfo") else request.ID)


def _info(key_id: str, algorithm: str) -> KeyInfo:
    return KeyInfo(keyID=KeyID(ID=key_id), algorithm=Algorithm(algorithm=algorithm))
