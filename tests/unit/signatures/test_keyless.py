"""Keyless signatures, by a sigstore of our own: who logged in where, with a trust root that is a file."""

from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fulcio import Fulcio
from tests.support.signing import BUNDLE, statement

from dtr.signatures import Identity
from dtr.signatures.envelopes import read_signature
from dtr.signatures.errors import SignatureInvalid, TrustRootInvalid
from dtr.signatures.judging import Judge, Judgement
from dtr.signatures.keyless import Sigstore

DIGEST = "sha256:" + "ab" * 32
ISSUER, ADA = "https://accounts.example", "ada@acme.example"
FULCIO = Fulcio()
SIGNED = FULCIO.bundle(statement(DIGEST), email=ADA, issuer=ISSUER)


NOW = dt.datetime.now(dt.UTC)
with NamedTemporaryFile("w") as _file:
    _file.write(FULCIO.trust_root)
    _file.flush()
    OURS = Sigstore(Path(_file.name))
pytestmark = [
    pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Attribute's length:UserWarning"),
]


@pytest.fixture
def sigstore() -> Sigstore:
    return OURS


def judge(sigstore: Sigstore | None, bundle: bytes, *, issuer: str = ISSUER, subject: str = ADA) -> Judgement:
    identity = Identity(id="ada", name="ada", kind="keyless", content=issuer, subject=subject)
    signature = read_signature(BUNDLE, {}, bundle)
    assert signature is not None
    return Judge((identity,), sigstore).judge(signature, DIGEST, dt.datetime.now(dt.UTC))


def test_who_logged_in_signed_long_after_the_certificate_is_over(sigstore: Sigstore) -> None:
    (proof,) = judge(sigstore, SIGNED).proofs
    assert (proof.identity, proof.until) == ("ada", None)
    assert judge(sigstore, SIGNED, subject="eve@acme.example") == Judgement()
    assert judge(sigstore, SIGNED, issuer="https://elsewhere.example") == Judgement()
    assert judge(None, SIGNED) == Judgement()


@pytest.mark.parametrize("what", ["authority", "log of certificates", "log of signatures"])
def test_others_vouch_for_nobody(sigstore: Sigstore, what: str) -> None:
    kept = {
        "root_key": FULCIO.root_key,
        "certificates_key": FULCIO.certificates_key,
        "signatures_key": FULCIO.signatures_key,
    }
    names = {
        "authority": "root_key",
        "log of certificates": "certificates_key",
        "log of signatures": "signatures_key",
    }
    del kept[names[what]]
    other = Fulcio(**kept, moment=FULCIO.moment)
    assert judge(sigstore, other.bundle(statement(DIGEST), email=ADA, issuer=ISSUER)) == Judgement()


def test_what_was_changed_is_nobodys(sigstore: Sigstore) -> None:
    document = json.loads(SIGNED)
    changed = json.loads(SIGNED)
    changed["dsseEnvelope"]["payload"] = base64.b64encode(statement(DIGEST, "https://slsa.dev/x")).decode()
    assert judge(sigstore, json.dumps(changed).encode()) == Judgement()
    later = Fulcio(FULCIO.root_key, FULCIO.certificates_key, FULCIO.signatures_key, moment=dt.datetime.now(dt.UTC))
    other = json.loads(later.bundle(statement(DIGEST), email=ADA, issuer=ISSUER))
    document["verificationMaterial"]["tlogEntries"] = other["verificationMaterial"]["tlogEntries"]
    assert judge(sigstore, json.dumps(document).encode()) == Judgement()
    document["verificationMaterial"]["tlogEntries"] = []
    assert not judge(sigstore, json.dumps(document).encode()).proofs


@given(data=st.data())
def test_whatever_is_changed_says_what_it_said_or_counts_for_nobody(data: st.DataObject) -> None:
    changed = bytearray(SIGNED)
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] = data.draw(st.integers(0, 255))
    try:
        signature = read_signature(BUNDLE, {}, bytes(changed))
    except SignatureInvalid:
        return
    assert signature is not None
    identity = Identity(id="ada", name="ada", kind="keyless", content=ISSUER, subject=ADA)
    if Judge((identity,), OURS).judge(signature, DIGEST, NOW).proofs:
        assert signature.subjects == {DIGEST}


def test_a_trust_root_is_read_at_once(tmp_path: Path) -> None:
    with pytest.raises(TrustRootInvalid, match="no trust root"):
        Sigstore(tmp_path / "none.json")
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(TrustRootInvalid, match="no trust root"):
        Sigstore(tmp_path / "none.json")
