"""
The interface of the signer: who holds the private keys of timestamps and snapshots.

There is no call that returns private bytes. `LocalSigner` is the one in this process, over the keystore;
`RemoteSigner` asks one elsewhere with gRPC, dtr's own or a stock notary-signer (notary-v1, section 5.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dtr.tuf import PublicKey, Signature

ALGORITHMS = ("ecdsa", "ed25519")
"""What keys can be made: ECDSA on P-256, and Ed25519."""


class Signer(Protocol):
    """
    Makes keys and signs with them.

    Every call raises SignerFailed and SignerUnavailable (none takes longer than a deadline); the signer in this
    process lets a DatabaseError through, like every room.
    """

    async def create_key(self, gun: str, role: str, algorithm: str) -> PublicKey:
        """
        A key for this role of this collection that signed nothing yet: a pending one, or a new one.

        Raises AlgorithmUnsupported, and RequestRefused for another role than timestamp and snapshot.
        """

    async def find_key(self, key_id: str) -> PublicKey | None:
        """The public half of a key, None when the signer does not have it."""

    async def sign(self, key_id: str, content: bytes) -> Signature:
        """
        A signature of `content`, the canonical JSON of what is signed; from now on the key is no pending one.

        Raises KeyUnknown, and RequestRefused for what is no Timestamp or Snapshot of the key's role.
        """

    async def delete_key(self, key_id: str) -> None:
        """Forget a key, for good; nothing happens when there is none."""

    async def check(self) -> None:
        """Whether the signer could sign at this moment: raises what is wrong."""

    async def close(self) -> None:
        """Give connections back."""
