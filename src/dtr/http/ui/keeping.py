"""
Secrets that were typed into a form that comes back.

The page does not show them again: a hidden field keeps them, encrypted with a key that comes from the visitor's
session. So the next page of the form has them, of the same session, in whatever process; and who finds the page
somewhere has nothing.
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
    from dtr.http.ui.visit import Visit

_NONCE_BYTES = 12
_PURPOSE = b"secrets in forms"


def keep(visit: Visit, text: str, form: str) -> str:
    """What the hidden field of a form has; empty: there is nothing to keep. `form` names where it is used."""
    if not text:
        return ""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = nonce + _cipher(visit).encrypt(nonce, text.encode(), form.encode())
    return base64.urlsafe_b64encode(sealed).decode()


def kept(visit: Visit, text: str, form: str) -> str:
    """What was kept; empty: nothing, or it is of another session or form."""
    try:
        sealed = base64.urlsafe_b64decode(text)
        return _cipher(visit).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], form.encode()).decode()
    except (InvalidTag, ValueError):
        return ""


def _cipher(visit: Visit) -> AESGCM:
    secret = visit.request.cookies.get(session_cookie(visit.request), "")
    return AESGCM(HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive(secret.encode()))
