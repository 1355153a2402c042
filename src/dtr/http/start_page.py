"""
The page at ``/``: where a person who opens the address learns what this is and what to type.

It says nothing that is not the same for everybody.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dtr.http.types import Receive, Scope, Send
    from dtr.settings import LiveSettings

_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,255}")
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>dtr</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }}
body {{ max-width: 42rem; margin: 12vh auto; padding: 0 1.25rem; }}
pre {{ padding: 1rem; overflow-x: auto; border: 1px solid #8884; border-radius: .5rem; background: #8881; }}
</style>
<h1>dtr</h1>
<p>A trusted registry for container images is running here.</p>
<pre>docker login {address}
docker tag IMAGE {address}/NAMESPACE/REPOSITORY
docker push {address}/NAMESPACE/REPOSITORY</pre>
<p>When docker does not trust the certificate, give it the registry's
<a href="/ca">authority</a>: <code>/etc/docker/certs.d/{address}/ca.crt</code>.</p>
<p>Programs manage it through <a href="/api/v0/docs">its API</a>.</p>
</html>
"""


class StartPage:
    """The ASGI application of ``/``."""

    def __init__(self, settings: LiveSettings) -> None:
        """`settings` have the address that clients use; when they have none, it is what the request says."""
        self._settings = settings

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer one request."""
        facts = scope.get("dtr.facts")
        if facts is not None:
            facts.route = "start"
        headers: list[tuple[bytes, bytes]] = []
        status, body = 200, b""
        if scope["method"] in {"GET", "HEAD"}:
            body = _PAGE.format(address=html.escape(self._settings.current.dtr_host or _host(scope))).encode()
            policy = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
            headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", policy)]
        else:
            status = 405
            headers = [(b"allow", b"GET, HEAD")]
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _host(scope: Scope) -> str:
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    return host if _HOST.fullmatch(host) else "localhost"
