"""Connections to S3 that can be lent to threads (`dtr.storage.lending`): aiobotocore's, of another class."""

from __future__ import annotations

import asyncio

from aiobotocore.httpsession import (  # type: ignore[import-untyped]  # has none
    AIOHTTPSession,
    _ProxySSLTCPConnector,
)

from dtr.storage.lending import LendingConnector


class _Connector(LendingConnector, _ProxySSLTCPConnector):  # type: ignore[misc]  # it has no types
    pass


class Session(AIOHTTPSession):  # type: ignore[misc]  # it has no types
    """What sends the requests of a client."""

    async def _create_connector(self, proxy_url: str | None) -> _Connector:
        own, of_proxy = await asyncio.to_thread(self._build_ssl_contexts, proxy_url)
        return _Connector(  # type: ignore[call-arg]  # of the base without types
            limit=self._max_pool_connections, ssl=own, proxy_ssl_context=of_proxy, **self._connector_args
        )
