"""
Keyless signatures: sigstore's certificates live for some minutes, and a log says that they were used then.

The trust root (`trusted_root.json`: the authorities of the certificates, and the keys of the logs) is a file of
the operator's; nothing is fetched. sigstore's own library verifies, which is an extra of ours, for it brings much
with it: `pip install dtr[sigstore]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.signatures.errors import SignatureInvalid, TrustRootInvalid

if TYPE_CHECKING:
    from pathlib import Path


class Sigstore:
    """Verifies bundles with a trust root."""

    def __init__(self, trust_root: Path) -> None:
        """Read it. Raises TrustRootInvalid, also when sigstore's library is not there."""
        try:
            from sigstore.errors import Error
            from sigstore.models import TrustedRoot
            from sigstore.verify import Verifier
        except ImportError:
            raise TrustRootInvalid(
                "keyless signatures take sigstore's library: pip install dtr[sigstore]"
            ) from None
        try:
            self._verifier = Verifier(trusted_root=TrustedRoot.from_file(str(trust_root)))
        except (OSError, ValueError, Error) as error:
            what = str(error).partition("\n")[0]
            raise TrustRootInvalid(f"{trust_root} is no trust root of sigstore: {what}") from error

    def verify(self, bundle: bytes, *, issuer: str, subject: str) -> bool:
        """Whether who logged in there so signed it. Raises SignatureInvalid for a bundle that is none."""
        from sigstore.errors import VerificationError
        from sigstore.models import Bundle
        from sigstore.verify.policy import Identity

        try:
            self._verifier.verify_dsse(Bundle.from_json(bundle), Identity(identity=subject, issuer=issuer))
        except VerificationError:
            return False
        except Exception as error:  # noqa: BLE001 - the library lets out whatever it stumbles over in a bundle
            raise SignatureInvalid(f"sigstore cannot read the bundle: {str(error)[:200]}") from None
        return True
