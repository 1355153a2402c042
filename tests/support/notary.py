"""
A client of notary v1, in short: keys, files as clients write them, and the walk by which they verify a collection.

Nothing here uses the code that it tests: what a client makes and checks is done with `cryptography` and `json`
alone.
"""

from __future__ import annotations

import base64
import copy
import datetime as dt
import hashlib
import json
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Json = dict[str, Any]
ROLES = ("root", "targets", "snapshot", "timestamp")
YEAR = dt.timedelta(days=365)
_BARE = {"ecdsa-x509": "ecdsa", "rsa-x509": "rsa"}
_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)

SHA1_CERTIFICATE = b"""-----BEGIN CERTIFICATE-----
MIIBgzCCASmgAwIBAgIUSyhJwDNtevdI/zK3yUWcMmtgUDwwCQYHKoZIzj0EATAY
MRYwFAYDVQQDDA1kdHIuZXhhbXBsZS8qMCAXDTI2MTEyODAxNDAzMloYDzIxMjYx
MTA0MDE0MDMyWjAYMRYwFAYDVQQDDA1kdHIuZXhhbXBsZS8qMFkwEwYHKoZIzj0C
AQYIKoZIzj0DAQcDQgAERiBBGDbMKxI/Toh11bt5ajM2JfCeR497fM0mmqbgBYVT
Q0v2vc/lNYEVUQsl0CS8E4ExSNsy0PSXJ+KKXUr0NKNQME4wHQYDVR0OBBYEFCSI
te1eR4S0edxjNC9DULJN7FxaMB8GA1UdIwQYMBaAFCSIte1eR4S0edxjNC9DULJN
7FxaMAwGA1UdEwEB/wQCMAAwCQYHKoZIzj0EAQNJADBGAiEAsVHCA0HZUskoZqOq
Hs3eR6SZiDVLMSIRBY0I5ighjNoCIQDuSy2IX6+uKuMt3JEAIOJr4JHDtbRN5UuP
0LsIB0IA0Q==
-----END CERTIFICATE-----
"""
"""
Of the collections whose names begin with dtr.example/, valid for a hundred years, signed with SHA-1.

Today's libraries do not make such: openssl req -x509 -sha1 -newkey ec -pkeyopt ec_paramgen_curve:P-256 ...
"""


class ClientRefuses(Exception):
    """A client would not take this collection."""


def now() -> dt.datetime:
    """This moment."""
    return dt.datetime.now(dt.UTC)


# --- keys ---------------------------------------------------------------------------------------------------


@dataclass
class Key:
    """A key pair, of which `public` is as files hold it: DER, 32 bytes, or PEM certificates."""

    type: str
    public: bytes
    private: Any = None

    @classmethod
    def make(cls, kind: str = "ecdsa", *, curve: ec.EllipticCurve | None = None, bits: int = 2048) -> Key:
        """A bare key: ecdsa, rsa or ed25519."""
        if kind == "ed25519":
            private: Any = ed25519.Ed25519PrivateKey.generate()
            return cls(kind, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), private)
        private = _rsa(bits) if kind == "rsa" else ec.generate_private_key(curve or ec.SECP256R1())
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(kind, public, private)

    @classmethod
    def certified(
        cls,
        name: str,
        kind: str = "ecdsa",
        *,
        begin: dt.datetime | None = None,
        end: dt.datetime | None = None,
        is_ca: bool = False,
        bits: int = 2048,
    ) -> Key:
        """A key with a self-signed certificate, as clients make them for roots: its common name is the GUN."""
        bare = cls.make(kind, bits=bits)
        begin = begin or now() - dt.timedelta(hours=1)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False)])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(bare.private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end or begin + 10 * YEAR)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .sign(bare.private, hashes.SHA256())
        )
        return cls(f"{kind}-x509", made.public_bytes(Encoding.PEM), bare.private)

    @property
    def json(self) -> Json:
        """As files hold it."""
        return {
            "keytype": self.type,
            "keyval": {"private": None, "public": base64.b64encode(self.public).decode()},
        }

    @cached_property
    def id(self) -> str:
        """The key's id."""
        return hashlib.sha256(canonical(self.json)).hexdigest()

    @property
    def pem(self) -> str:
        """The private key, PKCS#8, not encrypted."""
        made: bytes = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return made.decode()

    @property
    def public_pem(self) -> str:
        """The bare public key in PEM."""
        made: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return made.decode()

    def sign(self, message: bytes, method: str | None = None) -> Json:
        """A signature as files hold it."""
        kind = _BARE.get(self.type, self.type)
        if kind == "ed25519":
            method, made = method or "eddsa", self.private.sign(message)
        elif kind == "rsa":
            method = method or "rsapss"
            scheme = _PSS if method == "rsapss" else padding.PKCS1v15()
            made = self.private.sign(message, scheme, hashes.SHA256())
        else:
            r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(hashes.SHA256())))
            size = (self.private.key_size + 7) // 8
            method, made = method or "ecdsa", r.to_bytes(size) + s.to_bytes(size)
        return {"keyid": self.id, "method": method, "sig": base64.b64encode(made).decode()}


@cache
def _rsa(bits: int) -> rsa.RSAPrivateKey:
    """Making one takes long: there is one of a size."""
    return rsa.generate_private_key(65537, bits)


# --- files --------------------------------------------------------------------------------------------------


def canonical(value: Any) -> bytes:
    """Canonical JSON, of texts without control characters."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def seal(signed: Json, keys: Iterable[Key], *, message: bytes | None = None) -> bytes:
    """A file, in the form in which Go writes it; `message` is signed instead of what should be."""
    body = canonical(signed)
    signatures = [key.sign(body if message is None else message) for key in keys]
    text = body.decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'{{"signed":{text},"signatures":{json.dumps(signatures, separators=(",", ":"))}}}'.encode()


def meta_of(content: bytes) -> Json:
    """What a snapshot or a timestamp says of a file."""
    return {
        "hashes": {
            name: base64.b64encode(hashlib.new(name, content).digest()).decode() for name in ("sha256", "sha512")
        },
        "length": len(content),
    }


def target(digest: str, length: int) -> Json:
    """What docker says of a manifest; `digest` as ``sha256:hex``."""
    return {
        "hashes": {"sha256": base64.b64encode(bytes.fromhex(digest.partition(":")[2])).decode()},
        "length": length,
    }


def moment(when: dt.datetime) -> str:
    """As Go writes a moment, with a fraction of nine digits."""
    return when.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"


@dataclass
class Publisher:
    """
    Someone who publishes a collection. The methods change what is to be said, and give the files to upload, by
    role.

    `timestamp` is the server's key (see `Key.json`), `snapshot` the server's, too, or a `Key`: then snapshots are
    made here. What is said is in `root` and `roles`, each the `signed` of a file: tests bend it as they like, and
    `write`.
    """

    gun: str
    timestamp: Json
    snapshot: Json | Key
    root_keys: list[Key] = field(default_factory=list)
    targets_keys: list[Key] = field(default_factory=lambda: [Key.make()])
    retired: list[Key] = field(default_factory=list)
    """Root keys that sign the next root, too."""
    delegates: dict[str, list[Key]] = field(default_factory=dict)
    """Who signs for a delegation, by role."""
    root: Json = field(default_factory=dict)
    roles: dict[str, Json] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """What was written last, by role."""
    snapshot_version: int = 0

    def __post_init__(self) -> None:
        self.root_keys = self.root_keys or [Key.certified(self.gun)]
        self.root = {
            "_type": "Root",
            "consistent_snapshot": False,
            "expires": moment(now() + 10 * YEAR),
            "keys": {},
            "roles": {},
            "version": 0,
        }
        self.roles = {"targets": self._targets()}
        self._list_keys()

    # what is published

    def first(self, tags: Mapping[str, tuple[str, int]] | None = None) -> dict[str, bytes]:
        """The first publication: root, and targets with some tags by name (digest, length)."""
        self._tag("targets", tags or {})
        return self.write("root", "targets")

    def sign(self, tags: Mapping[str, tuple[str, int]], *roles: str) -> dict[str, bytes]:
        """Tags (digest, length) signed in some roles; none: in targets."""
        for role in roles or ("targets",):
            self._tag(role, tags)
        return self.write(*(roles or ("targets",)))

    def revoke(self, name: str, *roles: str) -> dict[str, bytes]:
        """A tag that some roles sign no longer; none: targets."""
        for role in roles or ("targets",):
            del self.roles[role]["targets"][name]
        return self.write(*(roles or ("targets",)))

    def delegate(
        self, role: str, keys: Sequence[Key], paths: Sequence[str] = ("",), threshold: int = 1
    ) -> dict[str, bytes]:
        """A delegation with these keys; what it signs is another publication."""
        parent = role.rpartition("/")[0]
        below = self.roles[parent]["delegations"]
        below["keys"] |= {key.id: key.json for key in keys}
        below["roles"] = [one for one in below["roles"] if one["name"] != role]
        below["roles"].append(
            {"keyids": [key.id for key in keys], "name": role, "paths": list(paths), "threshold": threshold}
        )
        self.delegates[role] = list(keys)
        self.roles.setdefault(role, self._targets())
        return self.write(parent)

    def withdraw(self, role: str) -> dict[str, bytes]:
        """A delegation that is no more."""
        parent = role.rpartition("/")[0]
        below = self.roles[parent]["delegations"]
        below["roles"] = [one for one in below["roles"] if one["name"] != role]
        return self.write(parent)

    def rotate_root(self) -> dict[str, bytes]:
        """A new root key; the retired one signs, too."""
        self.retired, self.root_keys = self.root_keys, [Key.certified(self.gun)]
        self._list_keys()
        return self.write("root")

    def rotate_targets(self) -> dict[str, bytes]:
        """A new targets key."""
        self.targets_keys = [Key.make()]
        self._list_keys()
        return self.write("root", "targets")

    def rotate_server_key(self, role: str, key: Json | Key) -> dict[str, bytes]:
        """
        The server's new key for timestamps or snapshots; a `Key` for snapshots: they are made here from now on.
        """
        if role == "snapshot":
            self.snapshot = key
        else:
            assert isinstance(key, dict)
            self.timestamp = key
        self._list_keys()
        return self.write("root")

    # how files are made

    def write(self, *roles: str, raise_version: bool = True) -> dict[str, bytes]:
        """The files of some roles, with their next versions, and a snapshot, if it is made here."""
        for role in roles:
            signed = self.root if role == "root" else self.roles[role]
            signed["version"] += raise_version
            self.files[role] = seal(copy.deepcopy(signed), self.signers_of(role))
        made = {role: self.files[role] for role in roles}
        self.retired = [] if "root" in roles else self.retired
        if isinstance(self.snapshot, Key):
            self.snapshot_version += 1
            made["snapshot"] = self.files["snapshot"] = seal(self.snapshot_of(self.files), [self.snapshot])
        return made

    def signers_of(self, role: str) -> list[Key]:
        """Who signs for a role."""
        if role == "root":
            return self.root_keys + self.retired
        return self.targets_keys if role == "targets" else self.delegates[role]

    def snapshot_of(self, files: Mapping[str, bytes]) -> Json:
        """The `signed` of a snapshot of these files."""
        meta = {role: meta_of(content) for role, content in files.items() if role not in {"snapshot", "timestamp"}}
        return {
            "_type": "Snapshot",
            "expires": moment(now() + 3 * YEAR),
            "meta": meta,
            "version": self.snapshot_version,
        }

    def _tag(self, role: str, tags: Mapping[str, tuple[str, int]]) -> None:
        self.roles[role]["targets"] |= {name: target(*found) for name, found in tags.items()}

    def _targets(self) -> Json:
        return {
            "_type": "Targets",
            "delegations": {"keys": {}, "roles": []},
            "expires": moment(now() + 3 * YEAR),
            "targets": {},
            "version": 0,
        }

    def _list_keys(self) -> None:
        """The root's keys; the certificates of retired ones stay."""
        snapshot = self.snapshot.json if isinstance(self.snapshot, Key) else self.snapshot
        listed = {
            "root": [key.json for key in self.root_keys],
            "targets": [key.json for key in self.targets_keys],
            "snapshot": [snapshot],
            "timestamp": [self.timestamp],
        }
        for role, keys in listed.items():
            named = {id_of(key): key for key in keys}
            self.root["keys"] |= named
            self.root["roles"][role] = {"keyids": list(named), "threshold": 1}


def id_of(key: Json) -> str:
    """The id of a public key, as a server gives it."""
    return hashlib.sha256(
        canonical({"keytype": key["keytype"], "keyval": {"private": None, "public": key["keyval"]["public"]}})
    ).hexdigest()


# --- the walk -----------------------------------------------------------------------------------------------


def walk(
    gun: str, files: Mapping[str, bytes], *, trusted: bytes | None = None, when: dt.datetime | None = None
) -> dict[str, dict[str, str]]:
    """
    What a client finds in the current files (by role): by role, the digests (``sha256:hex``) of tags.

    `trusted` is a root that it knew before. Raises ClientRefuses.
    """
    when = when or now()
    root = _signed(files, "root", "Root", when)
    if trusted is not None:
        before = json.loads(trusted)["signed"]
        if root["version"] < before["version"]:
            raise ClientRefuses("the root went back")
        _check(files["root"], *_listed(before, "root", gun))
    _check(files["root"], *_listed(root, "root", gun))
    timestamp = _signed(files, "timestamp", "Timestamp", when)
    _check(files["timestamp"], *_listed(root, "timestamp"))
    _match(timestamp["meta"]["snapshot"], files["snapshot"], "snapshot")
    snapshot = _signed(files, "snapshot", "Snapshot", when)
    _check(files["snapshot"], *_listed(root, "snapshot"))
    for role in ("root", "targets"):
        _match(snapshot["meta"][role], files[role], role)
    found: dict[str, dict[str, str]] = {}
    waiting = [("targets", *_listed(root, "targets"))]
    while waiting:
        role, keys, threshold = waiting.pop()
        if role not in snapshot["meta"]:
            continue
        _match(snapshot["meta"][role], files.get(role, b""), role)
        try:
            says = _signed(files, role, "Targets", when)
            _check(files[role], keys, threshold)
        except ClientRefuses:
            if role == "targets":
                raise
            continue
        found[role] = {
            name: f"sha256:{base64.b64decode(meta['hashes']['sha256']).hex()}"
            for name, meta in says["targets"].items()
        }
        below = says["delegations"]
        waiting += [
            (entry["name"], {one: below["keys"][one] for one in entry["keyids"]}, entry["threshold"])
            for entry in below["roles"]
        ]
    return found


def _signed(files: Mapping[str, bytes], role: str, kind: str, when: dt.datetime) -> Json:
    if role not in files:
        raise ClientRefuses(f"there is no {role}")
    signed: Json = json.loads(files[role])["signed"]
    if signed["_type"] != kind or signed["version"] < 1:
        raise ClientRefuses(f"{role} is no {kind}")
    text = signed["expires"].removesuffix("Z")
    whole, _, fraction = text.partition(".")
    expires = dt.datetime.fromisoformat(f"{whole}.{fraction[:6].ljust(6, '0')}+00:00")
    if expires < when:
        raise ClientRefuses(f"{role} is expired")
    return signed


def _listed(root: Json, role: str, gun: str | None = None) -> tuple[dict[str, Json], int]:
    """Keys and threshold of a role in a root; with a GUN, only certificates for it."""
    entry = root["roles"][role]
    keys = {one: root["keys"][one] for one in entry["keyids"]}
    if gun is not None:
        keys = {one: key for one, key in keys.items() if _is_for(key, gun)}
    return keys, entry["threshold"]


def _is_for(key: Json, gun: str) -> bool:
    content = base64.b64decode(key["keyval"]["public"])
    if not content.startswith(b"-----BEGIN CERTIFICATE"):
        return False
    subject = x509.load_pem_x509_certificate(content).subject
    name = str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    return name == gun or (name.endswith("*") and gun.startswith(name[:-1]))


def _check(content: bytes, keys: Mapping[str, Json], threshold: int) -> None:
    file = json.loads(content)
    message = canonical(file["signed"])
    valid = {
        one["keyid"]
        for one in file["signatures"]
        if one["keyid"] in keys
        and id_of(keys[one["keyid"]]) == one["keyid"]
        and verifies(keys[one["keyid"]], one, message)
    }
    if threshold < 1 or len(valid) < threshold:
        raise ClientRefuses(f"{file['signed']['_type']} has {len(valid)} signatures of {threshold}")


def verifies(key: Json, signature: Json, message: bytes) -> bool:
    """Whether a signature, as files hold it, is by the key, as they hold it."""
    public, made = base64.b64decode(key["keyval"]["public"]), base64.b64decode(signature["sig"])
    try:
        if signature["method"] == "eddsa":
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(made, message)
            return True
        is_certificate = key["keytype"].endswith("-x509")
        loaded: Any = (
            x509.load_pem_x509_certificate(public).public_key() if is_certificate else load_der_public_key(public)
        )
        if signature["method"] == "ecdsa":
            half = len(made) // 2
            der = encode_dss_signature(int.from_bytes(made[:half]), int.from_bytes(made[half:]))
            loaded.verify(der, message, ec.ECDSA(hashes.SHA256()))
        else:
            scheme = _PSS if signature["method"] == "rsapss" else padding.PKCS1v15()
            loaded.verify(made, message, scheme, hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def _match(meta: Json, content: bytes, role: str) -> None:
    if meta["length"] != len(content) or meta["hashes"] != meta_of(content)["hashes"]:
        raise ClientRefuses(f"{role} is another file than the one that is current")
