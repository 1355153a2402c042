"""
What the rooms say in detail (why a delivery failed, what is wrong with a signature), in the visitor's language.

Such details are texts in the database and in the API, in English. A page shows what it knows of them in the
visitor's words: a detail is known by a code, which stands for what the room says, with places for what varies. A
place may hold another detail. What is not known is shown as it was said.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dtr.http.ui.words import Words


def N_(text: str) -> str:  # noqa: N802 - the word by which texts are found
    """A text that is translated where it is shown."""
    return text


DETAILS = {
    # dtr.outbound
    "outbound.address": N_("the host has no address, or none that may be reached from here"),
    "outbound.invalid": N_("the address, or that of the proxy, is not one"),
    "outbound.untrusted": N_("the certificate of the host is not trusted: {reason}"),
    "outbound.no-tls": N_("there was no TLS connection"),
    "outbound.proxy": N_("the proxy answered {status}"),
    "outbound.failed": N_("the request failed: {reason}"),
    "outbound.no-http": N_("the host did not speak HTTP, or went away"),
    # the system's and OpenSSL's, which stand in those
    "system.refused": N_("Connection refused"),
    "system.reset": N_("Connection reset by peer"),
    "system.no-route": N_("No route to host"),
    "system.no-network": N_("Network is unreachable"),
    "system.timed-out": N_("Connection timed out"),
    "tls.self-signed": N_("self-signed certificate"),
    "tls.self-signed-chain": N_("self-signed certificate in certificate chain"),
    "tls.expired": N_("certificate has expired"),
    "tls.unknown-issuer": N_("unable to get local issuer certificate"),
    "tls.other-host": N_("Hostname mismatch, certificate is not valid for '{host}'."),
    # dtr.webhooks
    "webhook.answered": N_("the receiver answered {status}"),
    "webhook.no-answer": N_("there was no answer in {seconds} seconds"),
    "webhook.elsewhere": N_("it was redirected to another host, or to one without TLS"),
    "webhook.inactive": N_("the webhook is inactive"),
    "webhook.paused": N_("the receiver did not answer a moment ago"),
    # dtr.remotes
    "remote.said": N_("the remote: {reason}"),
    "remote.token-service": N_("the token service of the remote: {reason}"),
    "remote.silent": N_("the remote did not answer in time"),
    "remote.answered": N_("the remote answered {status}"),
    "remote.answered-with": N_("the remote answered {status} ({codes})"),
    "remote.tokens-answered": N_("the token service of the remote answered {status}"),
    "remote.tokens-answered-with": N_("the token service of the remote answered {status} ({codes})"),
    "remote.wants-credentials": N_("the remote wants credentials"),
    "remote.no-registry": N_("the remote is no registry: it has no /v2/"),
    "remote.redirects": N_("the registry is at another address: the remote redirects"),
    "remote.no-token": N_("the token service of the remote gives no token"),
    # dtr.mirrors
    "mirror.tags-failed": N_("{n} tags could not be mirrored"),
    "mirror.no-manifest": N_("manifest {digest} is not here"),
    "mirror.no-manifest-there": N_("manifest {digest} is named there, but is not there"),
    "mirror.no-blob": N_("blob {digest} is not here"),
    "mirror.waits-scan": N_("waits for a scan"),
    "mirror.waits-signature": N_("waits for a signature"),
    # dtr.signatures
    "signature.other": N_("it is a signature of something else"),
    "signature.over": N_("it is over: its signer wanted it to end"),
    "signature.other-key": N_("it was not made with the key of its certificate"),
    "signature.unread": N_("it is too large to be read, or not there"),
    "signature.unknown": N_("it is no signature of a kind that is known"),
    "signature.no-json": N_("{what} is not JSON"),
    "signature.missing": N_("{name} is missing, or is something else than it has to be"),
    "signature.no-statement": N_("the envelope has no statement of in-toto"),
    "signature.not-valid-now": N_("the certificate of {name} is not valid now"),
    # dtr.storage
    "storage.no-directory": N_("the storage directory {path} is not there"),
    "storage.silent": N_("no answer from {path} within {seconds} s"),
    "storage.no-bucket": N_("there is no bucket {name} ({message})"),
    "storage.clock": N_("the clock of this host and that of the store differ too much ({message})"),
    "storage.other-bytes": N_("storage gives back other bytes than were stored"),
}
"""By code: what a room says, with places for what varies."""

_DEEPEST = 4


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """The codes with what their details look like; those with the most of their own first."""
    found = []
    for code, text in DETAILS.items():
        pattern = "".join(
            re.escape(literal) + (f"(?P<{name}>.+?)" if name else "")
            for literal, name, _, _ in string.Formatter().parse(text)
        )
        found.append((sum(len(literal) for literal in literals(text)), code, re.compile(pattern, re.DOTALL)))
    return [(code, pattern) for _, code, pattern in sorted(found, key=lambda one: one[0], reverse=True)]


def literals(text: str) -> Iterator[str]:
    """What of a detail does not vary."""
    return (literal for literal, _, _, _ in string.Formatter().parse(text) if literal)


def code_of(said: str) -> tuple[str, dict[str, str]] | None:
    """The code of a detail, with what varies in it; None: it is not known."""
    for code, pattern in _patterns():
        match = pattern.fullmatch(said)
        if match is not None:
            return code, match.groupdict()
    return None


def told(words: Words, said: str, depth: int = 0) -> str | None:
    """A detail in the words of a language; with places it is safe HTML. None: it is not known."""
    found = code_of(said) if words.code != "en" else None
    if found is None:
        return None
    code, values = found
    inner = {
        name: (told(words, value, depth + 1) if depth < _DEEPEST else None) or value
        for name, value in values.items()
    }
    return words(DETAILS[code], **inner)
