"""
Secrets of others that the program has to know itself: encrypted in the database, with a key that is not in it.

AES-256-GCM (NIST SP 800-38D), a nonce for each text. The key is a file, 32 bytes in hexadecimal digits, made when
the first secret is kept. Hosts that share a database share the file, too.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import tempfile
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_BYTES, _NONCE_BYTES = 32, 12
_VERSION = "1:"


class VaultError(Exception):
    """The key is not there, or is another one than that of the secret."""


class Vault:
    """Seals and opens texts. What it does takes microseconds, but for the first time: then a file is read."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file

    def seal(self, text: str, purpose: str) -> str:
        """A text encrypted; it can be opened only for the same `purpose`. Raises VaultError."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), purpose.encode())
        return _VERSION + base64.b64encode(sealed).decode()

    def open(self, sealed: str, purpose: str) -> str:
        """The text that was sealed for this purpose. Raises VaultError."""
        from cryptography.exceptions import InvalidTag

        try:
            content = base64.b64decode(sealed.removeprefix(_VERSION), validate=True)
            return self._cipher.decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], purpose.encode()).decode()
        except (InvalidTag, ValueError):
            raise VaultError(f"{self._key_file} is not the key that a secret was kept with") from None

    @cached_property
    def _cipher(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            if not self._key_file.exists():
                self._make_key()
            key = binascii.unhexlify(self._key_file.read_text().strip())
        except OSError as error:
            raise VaultError(f"{self._key_file} cannot be used: {error.strerror}") from None
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise VaultError(f"{self._key_file} is not a key: {_KEY_BYTES} bytes in hexadecimal digits")
        return AESGCM(key)

    def _make_key(self) -> None:
        """Write a new key, whole and durable, unless another process was first. Raises OSError."""
        directory = self._key_file.parent
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=directory, prefix=".secret-") as made:
            made.write(secrets.token_hex(_KEY_BYTES) + "\n")
            made.flush()
            os.fsync(made.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(made.name, self._key_file)
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
