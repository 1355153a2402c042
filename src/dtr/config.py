"""
The settings: one typed tree, read once, from defaults, a file, the environment and options, in this order.

The file is TOML or YAML. A variable of the environment is ``DTR_`` and the names on the way, joined by two
underscores: ``DTR_DATABASE__URL``. Every value remembers where it came from. What is unknown or wrong is an
error that names it, and never repeats the value: it may be a secret.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import tomllib
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator, model_validator

from dtr.storage.definitions import FileSystemStorage, Parameters, Section, Storage, checked_networks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic.fields import FieldInfo

PREFIX = "DTR_"
SPECIAL = frozenset({"DTR_ADMIN_PASSWORD", "DTR_SERVER", "DTR_USER", "DTR_TOKEN", "DTR_CA"})
"""Variables that begin with the prefix and are no settings: the first password, and those of a client."""

Component = Literal["registry", "garant", "api", "jobrunner"]
COMPONENTS: tuple[Component, ...] = get_args(Component)

_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:/\[\]\s]+)):([0-9]{1,5})")
_EXTERNAL = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?")
_DATABASE_AUTHORITY = re.compile(r"[a-z+]+://([^/?#]*)")
_DATABASE_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^:\[\]\s]*)(?::[0-9]{1,5})?")
_DNS_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
_LONGEST_DNS_NAME = 253
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_PASSWORD_IN_URL = re.compile(r"(?<=://)([^:/@]*):[^/]*@|(?<=[?&])([a-z]*password)=[^&]*")
# What Kubernetes and Docker put into the environment for a service that is called `dtr`, or `dtr-` and more.
_SERVICE_LINK = re.compile(
    r"DTR_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?)"
)
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://.*")


class ConfigError(Exception):
    """A setting is unknown or wrong; the message names it, where it was given, and what is expected."""


class TLS(Section):
    """The certificate that clients see."""

    certificate: Path | None = Field(None, description="Your own certificate with its chain (PEM).")
    key: Path | None = Field(None, description="The private key of your own certificate (PEM).")
    ca: Path | None = Field(None, description="The authority that signed your certificate (PEM), served at `/ca`.")
    names: tuple[str, ...] = Field(
        (), description="Further DNS names and IP addresses for the certificate that dtr makes itself."
    )
    reload_seconds: int = Field(
        60, ge=1, description="How often to look whether the certificate was renewed; connections to come use it."
    )

    @model_validator(mode="after")
    def _both(self) -> TLS:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls.certificate and tls.key belong together")
        return self

    @field_validator("names")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_hosts(value)


class Database(Section):
    """Where the metadata is."""

    url: str | None = Field(
        None,
        description="`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST[,HOST…]/NAME`; "
        "by default a SQLite file in the data directory.",
    )
    pool_size: int = Field(10, ge=1, le=1000, description="Most connections to PostgreSQL, per worker.")

    @field_validator("url")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("sqlite:///", "postgresql://", "postgres://")):
            raise ValueError("begins with sqlite:/// or postgresql://")
        if value is not None and value.startswith("postgres") and not _is_postgresql(value):
            raise ValueError(
                "is postgresql://USER:PASSWORD@HOST:PORT/NAME, with %-codes for what is no letter or digit in them"
            )
        return value


class Registry(Section):
    """What the registry takes and keeps."""

    manifest_limit: int = Field(4 * 1024 * 1024, ge=1024, description="Largest manifest, in bytes.")
    blob_limit: int | None = Field(None, ge=1, description="Largest blob, in bytes; by default any size.")
    inline_limit: int = Field(
        16 * 1024,
        ge=0,
        le=64 * 1024,
        description="Blobs of at most so many bytes that come in one piece are kept in the database; 0: none.",
    )
    chunk_minimum: int | None = Field(None, ge=1, description="The `OCI-Chunk-Min-Length` that clients are told.")
    sparse_manifests: bool = Field(
        False, description="Take manifests although blobs or manifests that they name are missing."
    )
    create_on_push: bool = Field(
        False,
        description="A push may create a repository, private, in an own namespace; until it is set while running.",
    )
    delete: bool = Field(True, description="Clients may delete manifests, tags and blobs.")
    page_size: int = Field(1000, ge=1, le=100_000, description="Most entries in one answer of a list.")
    lease_seconds: int = Field(86_400, ge=60, description="The longest push that must not fail.")
    slack_seconds: int = Field(43_200, ge=60, description="Added to every lease: clocks, replicas, transactions.")
    untagged_seconds: int = Field(604_800, ge=60, description="How long a manifest without tag is kept.")
    delete_delay_seconds: int = Field(
        86_400, ge=0, description="From the end of a blob to its deletion in the storage."
    )
    upload_seconds: int = Field(86_400, ge=60, description="When an upload without news is given up.")


class Auth(Section):
    """Log-ins and tokens."""

    service: str = Field("dtr", min_length=1, description="The name of the service in tokens and challenges.")
    token_seconds: int = Field(
        300, ge=60, le=300, description="Life of a token: so long may reading go on after a right was removed."
    )
    key_days: int = Field(30, ge=1, description="After so many days tokens are signed with a new key.")
    ended_token_days: int = Field(
        30, ge=1, description="How long a token that expired is still listed, before it is deleted."
    )
    hash_memory_kib: int = Field(19_456, ge=8, description="Memory of a password hash (Argon2id), in KiB.")
    hash_passes: int = Field(2, ge=1, description="Passes of a password hash.")


class Events(Section):
    """What happened: the audit trail."""

    syslog_address: str | None = Field(
        None,
        description="Send events to this syslog server: `udp://HOST:PORT`, `tcp://HOST:PORT` or `unix:///dev/log`.",
    )
    syslog_facility: Literal[
        "user", "daemon", "auth", "syslog", "authpriv", "audit",
        "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
    ] = Field("local0", description="The facility of the messages.")  # fmt: skip
    audit_days: int | None = Field(
        None,
        ge=1,
        description="How long events that happened in no repository are kept; by default for good.",
    )

    @field_validator("syslog_address")
    @classmethod
    def _syslog(cls, value: str | None) -> str | None:
        if value is None:
            return None
        scheme, _, rest = value.partition("://")
        try:
            if scheme in {"udp", "tcp"}:
                split_address(rest)
            elif scheme != "unix" or not rest.startswith("/"):
                raise ValueError
        except ValueError:
            raise ValueError("is udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH") from None
        return value


class Webhooks(Section):
    """Where webhooks may be sent."""

    allowed_networks: tuple[str, ...] = Field(
        (),
        description="Networks to which webhooks are sent although they are private, link-local, or of this host.",
    )

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_networks(value)


class Mirroring(Section):
    """Which other registries mirrors and caches may talk to."""

    allowed_networks: tuple[str, ...] = Field(
        (),
        description="Networks in which other registries may be although they are private, link-local, or of this "
        "host.",
    )

    @field_validator("allowed_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_networks(value)


class Secrets(Section):
    """Secrets of others that dtr has to know: of receivers and other registries."""

    key_file: Path | None = Field(
        None,
        description="The key that encrypts them in the database, made when it is missing; "
        "by default `secret.key` in the data directory.",
    )


class RemoteSigner(Section):
    """A signer of its own, which `dtr signer serve` runs somewhere, or a stock notary-signer."""

    address: str | None = Field(
        None, description="`HOST:PORT` of the signer; by default the server itself keeps the keys and signs."
    )
    ca: Path | None = Field(None, description="The authority that signed the signer's certificate (PEM).")
    certificate: Path | None = Field(None, description="The certificate that is shown to the signer (PEM).")
    key: Path | None = Field(None, description="The private key of that certificate (PEM).")

    @field_validator("address")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

    @model_validator(mode="after")
    def _mutual(self) -> RemoteSigner:
        if self.address is not None and None in {self.ca, self.certificate, self.key}:
            raise ValueError("trust.signer.ca, trust.signer.certificate and trust.signer.key are needed")
        return self


class Signatures(Section):
    """Signatures of cosign and Notation."""

    trust_root: Path | None = Field(
        None,
        description="A `trusted_root.json` of sigstore's: keyless signatures are verified with it. It takes the "
        "extra `dtr[sigstore]`.",
    )


class Trust(Section):
    """Content trust: the notary server, on the registry's own address."""

    enabled: bool = Field(True, description="Serve content trust (`docker trust`, `notary`).")
    names: tuple[str, ...] = Field(
        (),
        description="`HOST[:PORT]` that collections may begin with, beside the address that the client uses: "
        "names that this server had before, or has for others. No namespace can be used that is called so.",
    )
    key_algorithm: Literal["ecdsa", "ed25519"] = Field(
        "ecdsa", description="The kind of keys that are made for timestamps and snapshots."
    )
    current_age: int = Field(
        300,
        ge=0,
        le=31_536_000,
        description="How long caches may keep metadata that is asked for by its role, in seconds; 0: not at all.",
    )
    consistent_age: int = Field(
        2_592_000,
        ge=0,
        le=31_536_000,
        description="How long caches may keep metadata that is asked for by its hash or version, in seconds.",
    )
    update_limit: int = Field(
        16 * 1024 * 1024, ge=1024, description="Largest update of a collection, with all its files, in bytes."
    )
    changes_after_seconds: int = Field(
        60, ge=0, description="How old changes of collections are when the changefeed lists them."
    )
    signer: RemoteSigner = RemoteSigner()

    @field_validator("names")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            match = _EXTERNAL.fullmatch(one)
            if match is None or int(match[3] or 0) > 65535:
                raise ValueError("are HOST or HOST:PORT, without https://")
        return value


class Signer(Section):
    """The keys of timestamps and snapshots, where they are kept: with the server, or with `dtr signer serve`."""

    passphrase_file: Path | None = Field(
        None,
        description="The passphrases that encrypt the keys in the database, made when it is missing; "
        "by default `signer.passphrases` in the data directory.",
    )
    address: str = Field("0.0.0.0:7899", description="Where `dtr signer serve` answers, `HOST:PORT`.")
    certificate: Path | None = Field(
        None,
        description="The certificate of `dtr signer serve` with its chain (PEM); by default it makes its own.",
    )
    key: Path | None = Field(None, description="The private key of that certificate (PEM).")
    client_ca: Path | None = Field(None, description="The authority of those who may have something signed (PEM).")
    names: tuple[str, ...] = Field(
        (), description="Further DNS names and IP addresses for the certificate that the signer makes itself."
    )

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        split_address(value)
        return value

    @field_validator("names")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_hosts(value)

    @model_validator(mode="after")
    def _together(self) -> Signer:
        if len({one is None for one in (self.certificate, self.key, self.client_ca)}) != 1:
            raise ValueError("signer.certificate, signer.key and signer.client_ca belong together")
        return self


class Nginx(Section):
    """nginx in front, which `dtr nginx` runs."""

    program: str = Field(
        "nginx", min_length=1, description="The program: its path, or its name on the search path."
    )
    https_address: str = Field("0.0.0.0:443", description="Where nginx serves TLS, `HOST:PORT`.")
    http_address: str | None = Field(
        "0.0.0.0:80", description="Where nginx sends plain HTTP to HTTPS, `HOST:PORT`."
    )
    upstreams: tuple[str, ...] = Field(
        (),
        description="`HOST:PORT` where dtr serves plain HTTP, on one host or several; by default `http_address`.",
    )
    registry: tuple[str, ...] = Field(
        (), description="Where the component `registry` is, when it is elsewhere, `HOST:PORT`."
    )
    garant: tuple[str, ...] = Field(
        (), description="Where the component `garant` is, when it is elsewhere, `HOST:PORT`."
    )
    api: tuple[str, ...] = Field(
        (), description="Where the component `api` is, when it is elsewhere, `HOST:PORT`."
    )
    client_certificates: Literal["off", "optional", "on"] = Field(
        "off",
        description="Whether clients have to show a certificate by `nginx.client_ca`; optional: whoever shows one "
        "has to show a good one.",
    )
    client_ca: Path | None = Field(None, description="The authorities of clients' certificates (PEM).")
    user: str | None = Field(
        None,
        description="Whom nginx's workers run as when root starts it; by default the owner of the data directory.",
    )

    @field_validator("https_address", "http_address")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

    @field_validator("upstreams", "registry", "garant", "api")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            host, _ = split_address(one)
            if not _is_host(host):
                raise ValueError("are HOST:PORT")
        return value

    @field_validator("client_certificates", mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value  # YAML has its own meaning

    @field_validator("user")
    @classmethod
    def _name(cls, value: str | None) -> str | None:
        if value is not None and not _USER.fullmatch(value):
            raise ValueError("is the name of a user")
        return value

    @model_validator(mode="after")
    def _authority(self) -> Nginx:
        if self.client_certificates != "off" and self.client_ca is None:
            raise ValueError("nginx.client_ca is needed for nginx.client_certificates")
        return self


class Limits(Section):
    """What one client may take. Each host counts by itself, for all its processes."""

    address_rate: float | None = Field(
        None, gt=0, description="Requests a second from one address; by default any."
    )
    address_burst: int = Field(
        100, ge=1, description="So many requests at once are within the rate of an address."
    )
    address_transfers: int | None = Field(
        None, ge=1, description="Pushes and pulls of blobs at once from one address; by default any number."
    )
    account_rate: float | None = Field(None, gt=0, description="Requests a second of one account; by default any.")
    account_burst: int = Field(
        100, ge=1, description="So many requests at once are within the rate of an account."
    )
    account_transfers: int | None = Field(
        None, ge=1, description="Pushes and pulls of blobs at once of one account; by default any number."
    )
    exempt_networks: tuple[str, ...] = Field(
        (), description="Networks whose addresses are not counted, such as those of proxies, caches and builders."
    )

    @field_validator("exempt_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_networks(value)


class Log(Section):
    """The log."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged.")
    format: Literal["json", "console"] = Field("json", description="Lines of JSON, or text for people.")


class Settings(Section):
    """All settings."""

    data_dir: Path = Field(Path("data"), description="Where dtr keeps what it has of its own.")
    components: tuple[Component, ...] = Field(
        COMPONENTS, min_length=1, description="Which components this process tree runs."
    )
    workers: int = Field(
        default_factory=lambda: min(4, len(os.sched_getaffinity(0))), ge=1, le=256, description="Worker processes."
    )
    https_address: str | None = Field("0.0.0.0:5443", description="Where TLS is served, `HOST:PORT`.")
    http_address: str | None = Field(None, description="Where plain HTTP is answered, `HOST:PORT`.")
    http_serves: bool = Field(
        False, description="Serve plain HTTP, for a proxy in front, instead of redirecting it."
    )
    external_address: str | None = Field(
        None, description="`HOST[:PORT]` that clients use, when it is another one."
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="Networks of proxies whose `X-Forwarded-*` are believed."
    )
    drain_seconds: int = Field(30, ge=0, description="Time for running transfers when the program is told to end.")
    tls: TLS = TLS()
    database: Database = Database()
    storage: Storage = Storage()
    registry: Registry = Registry()
    auth: Auth = Auth()
    events: Events = Events()
    webhooks: Webhooks = Webhooks()
    mirroring: Mirroring = Mirroring()
    secrets: Secrets = Secrets()
    trust: Trust = Trust()
    signatures: Signatures = Signatures()
    signer: Signer = Signer()
    nginx: Nginx = Nginx()
    limits: Limits = Limits()
    log: Log = Log()

    @field_validator("https_address", "http_address")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

    @field_validator("external_address")
    @classmethod
    def _external(cls, value: str | None) -> str | None:
        match = None if value is None else _EXTERNAL.fullmatch(value)
        if value is not None and (match is None or int(match[3] or 0) > 65535):
            raise ValueError("is HOST or HOST:PORT, without https://")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_networks(value)

    @model_validator(mode="after")
    def _somewhere(self) -> Settings:
        if self.https_address is None and self.http_address is None:
            raise ValueError("https_address or http_address is needed")
        return self

    @property
    def database_url(self) -> str:
        """The address of the database, with its default."""
        return self.database.url or f"sqlite:///{self.data_dir.absolute() / 'metadata.db'}"

    @property
    def secret_key_file(self) -> Path:
        """The key of the vault, with its default."""
        return (self.secrets.key_file or self.data_dir / "secret.key").absolute()

    @property
    def passphrase_file(self) -> Path:
        """The passphrases of the signer, with their default."""
        return (self.signer.passphrase_file or self.data_dir / "signer.passphrases").absolute()

    @property
    def external_host(self) -> str | None:
        """The name or address that clients use, without port and brackets, when it is another one."""
        match = _EXTERNAL.fullmatch(self.external_address or "")
        return (match[1] or match[2]) if match else None

    @property
    def blob_directory(self) -> Path:
        """The root of the file system storage, with its default."""
        return (self.storage.filesystem.root or self.data_dir / "blobs").absolute()

    @property
    def storage_parameters(self) -> Parameters:
        """Those of the storage, with their defaults."""
        if self.storage.driver == "filesystem":
            return FileSystemStorage(root=self.blob_directory)
        return self.storage.parameters


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each value came from, by its name: ``database.url`` → ``file dtr.toml``."""

    settings: Settings
    sources: Mapping[str, str]
    again: Callable[[], Loaded] = field(compare=False)
    """Loads them once more, from the same places. Raises ConfigError."""

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Name, value as JSON with secrets masked, and source of every setting."""
        for name, value in _leaves(self.settings.model_dump(mode="python")):
            yield name, json.dumps(_shown(value)), self.sources.get(name, "default")


def load(file: Path | None, environment: Mapping[str, str], options: Mapping[str, Any]) -> Loaded:
    """The settings; `options` by dotted name, None for those not given. Raises ConfigError."""
    tree: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if file is not None:
        for name, value in _leaves(_read(file)):
            _put(tree, sources, name, value, f"file {file}")
    for variable, text in environment.items():
        if variable.startswith(PREFIX) and variable not in SPECIAL:
            name = variable.removeprefix(PREFIX).lower().replace("__", ".")
            if name not in _fields() and _is_service_link(variable, text):
                continue
            _put(tree, sources, name, _parsed(name, text), f"environment {variable}")
    for name, value in options.items():
        if value is not None:
            _put(tree, sources, name, value, f"option --{name.replace('.', '-').replace('_', '-')}")
    try:
        return Loaded(Settings.model_validate(tree), sources, partial(load, file, environment, options))
    except ValidationError as error:
        raise ConfigError(
            "; ".join(_explained(one, sources) for one in error.errors(include_input=False))
        ) from None


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPv6]:PORT``. Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise ValueError("is HOST:PORT")
    return match[1] or match[2], int(match[3])


def names() -> dict[str, tuple[Any, str]]:
    """Every setting by its dotted name: default and description."""
    return {
        name: (info.default if info.default_factory is None else None, info.description or "")
        for name, info in _fields().items()
    }


def _checked_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    for one in value:
        if not _is_host(one):
            raise ValueError("are DNS names (international ones as xn--…, *. for a label) and IP addresses")
    return value


@cache
def _fields() -> dict[str, FieldInfo]:
    """Every setting by its dotted name."""
    found: dict[str, FieldInfo] = {}

    def walk(model: type[BaseModel], prefix: str) -> None:
        for key, info in model.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
                walk(info.annotation, f"{prefix}{key}.")
            else:
                found[prefix + key] = info

    walk(Settings, "")
    return found


def _is_postgresql(url: str) -> bool:
    # Not urllib's: it takes several hosts for one, and refuses them where one is in brackets.
    match = _DATABASE_AUTHORITY.match(url)
    if match is None:
        return False
    login, _, hosts = match[1].rpartition("@")
    return "@" not in login and all(_DATABASE_HOST.fullmatch(host) for host in hosts.split(","))


def _is_host(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return len(text) <= _LONGEST_DNS_NAME and _DNS_NAME.fullmatch(text) is not None
    return True


def _is_service_link(variable: str, text: str) -> bool:
    if _SERVICE_LINK.fullmatch(variable):
        return True
    return variable.endswith("_PORT") and _SERVICE_ADDRESS.fullmatch(text) is not None


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} cannot be read: it is not in UTF-8") from None
    if file.suffix == ".toml":
        content = _toml(file, text)
    elif file.suffix in {".yaml", ".yml"}:
        content = _yaml(file, text)
    else:
        raise ConfigError(f"{file}: a settings file ends in .toml, .yaml or .yml")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file} is not a table of settings")
    return content


def _toml(file: Path, text: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None


def _yaml(file: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        # Its own text repeats the line, in which a secret may stand.
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(
            f"{file} is not YAML: {getattr(error, 'problem', None) or 'not readable'}{place}"
        ) from None


def _put(tree: dict[str, Any], sources: dict[str, str], name: str, value: Any, source: str) -> None:
    known = _fields()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{source}: there is no setting {name}{hint}")
    *path, last = name.split(".")
    for key in path:
        tree = tree.setdefault(key, {})
    tree[last] = value
    sources[name] = source


def _parsed(name: str, text: str) -> Any:
    """A text of the environment: lists are separated by commas, empty is none where a setting may be none."""
    info = _fields().get(name)
    annotation = info.annotation if info else None
    if get_origin(annotation) is tuple:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text if text or NoneType not in get_args(annotation) else None


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and (value or any(one.startswith(f"{prefix}{key}.") for one in _fields())):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, str):
        return _PASSWORD_IN_URL.sub(_masked, value)
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _masked(match: re.Match[str]) -> str:
    return f"{match[2]}=********" if match[2] else f"{match[1]}:********@"


def _explained(error: Any, sources: Mapping[str, str]) -> str:
    name = ".".join(str(part) for part in error["loc"] if isinstance(part, str))
    # What is wrong with a section came from wherever something in it did.
    given = {source: None for key, source in sources.items() if key == name or key.startswith(f"{name}.")}
    message = error["msg"].removeprefix("Value error, ")
    subject = name if name in _fields() else ""
    return ": ".join(part for part in (" and ".join(given), subject, message) if part)
