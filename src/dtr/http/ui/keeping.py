"""
Secrets that were typed into a form that comes back.

The page does not show them again: a hidden field keeps them, encrypted with a key that comes from the visitor's
session. So the next page of the form has them, of the same session, in whatever process; and who finds the page
somewhere has nothing. The macro `secret` of `templates/parts.html` makes the field, the hidden one, and the box by
which it is forgotten.
"""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dtr.http.api.caller import session_cookie

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from starlette.responses import Response

    from dtr.http.ui.visit import Visit

_NONCE_BYTES = 12
_PURPOSE = b"secrets in forms"


async def read_secrets(
    visit: Visit, names: Collection[str], form: str, *, forgotten: Collection[str] = (), strip: bool = True
) -> dict[str, str]:
    """
    What was typed into the fields `names`, or else was kept of them; empty: neither.

    `form` is the address by which the form is known. What is kept does not count for who ticks that it is to be
    forgotten, nor for the fields that are `forgotten` for another reason. `strip`: without the spaces around it.
    """
    sent = await visit.form()
    found: dict[str, str] = {}
    for name in names:
        typed = sent.get(name, "")
        text = typed if isinstance(typed, str) else ""
        text = text.strip() if strip else text
        if not text and name not in forgotten and f"forget_{name}" not in sent:
            text = _open(visit, await visit.text(f"kept_{name}"), form, name)
        found[name] = text
    return found


def keep_secrets(visit: Visit, typed: Mapping[str, str], form: str) -> dict[str, str]:
    """What the hidden fields of the form have, by the names of the fields in which something was typed."""
    if not _session(visit):
        return {}
    return {name: _seal(visit, text, form, name) for name, text in typed.items() if text}


def not_stored(response: Response) -> Response:
    """The page, which is not to be stored anywhere."""
    response.headers["cache-control"] = "no-store"
    return response


def _seal(visit: Visit, text: str, form: str, name: str) -> str:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = nonce + _cipher(visit).encrypt(nonce, text.encode(), _use(form, name))
    return base64.urlsafe_b64encode(sealed).decode()


def _open(visit: Visit, text: str, form: str, name: str) -> str:
    """What was kept; empty: nothing, or it is of another session, form or field."""
    if not text or not _session(visit):
        return ""
    try:
        sealed = base64.urlsafe_b64decode(text)
        return _cipher(visit).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _use(form, name)).decode()
    except (InvalidTag, ValueError):
        return ""


def _use(form: str, name: str) -> bytes:
    """For what a secret was typed: it is good for nothing else."""
    return f"{form}\n{name}".encode()


def _session(visit: Visit) -> str:
    """The secret of the session; empty: there is none, and nothing is kept."""
    return visit.request.cookies.get(session_cookie(visit.request), "")


def _cipher(visit: Visit) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive(_session(visit).encode()))
