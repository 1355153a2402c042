"""
Secrets encrypted with a passphrase: compact JSON Web Encryption (RFC 7516), as notary v1 keeps private keys.

The key that encrypts the content (A256GCM) is wrapped with one that is derived from the passphrase
(PBES2-HS256+A128KW, RFC 7518 section 4.8). Both calls take some milliseconds of a processor: they belong in a
thread.
"""

from __future__ import annotations

from dtr.signer.errors import SignerFailed

_WRAP, _ENCRYPTION = "PBES2-HS256+A128KW", "A256GCM"
_ITERATIONS = 10_000
"""Rounds of PBKDF2. What protects is the passphrase, which is no word that somebody could think of."""
_LARGEST = 4_096


def seal(content: bytes, passphrase: str) -> str:
    """The content, encrypted."""
    from joserfc import jwe
    from joserfc.jwk import OctKey

    header = {"alg": _WRAP, "enc": _ENCRYPTION, "p2c": _ITERATIONS}
    key = OctKey.import_key(passphrase.encode())
    return jwe.encrypt_compact(header, content, key, algorithms=[_WRAP, _ENCRYPTION])


def unseal(sealed: str, passphrase: str) -> bytes:
    """What was sealed with this passphrase. Raises SignerFailed, which says nothing of either."""
    from joserfc import jwe
    from joserfc.jwk import OctKey

    try:
        if len(sealed) > _LARGEST:
            raise ValueError
        key = OctKey.import_key(passphrase.encode())
        content = jwe.decrypt_compact(sealed, key, algorithms=[_WRAP, _ENCRYPTION]).plaintext
    except Exception:  # noqa: BLE001 - damaged rows meet many errors of several libraries
        raise SignerFailed("the key was encrypted with another passphrase, or its row is damaged") from None
    return content or b""
