"""
What each kind of storage has to be told: the settings file says it, or the database.

A kind is a `Parameters` class, its entry in `KINDS`, and its section in `Storage`, which is what the settings call
``storage``. Parameters are values alone: nothing is opened, looked up or connected by making them.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dtr.storage.storages import Redirect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dtr.storage.driver import Driver

NAME = r"[a-z0-9][a-z0-9-]{0,31}"
"""A regular expression of the names of storages."""
DEFAULT = "default"
"""The name of the storage that the settings describe."""


class DefinitionInvalid(Exception):
    """A storage cannot be described so; `problems` says why, by parameter, and repeats no value."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" if name else text for name, text in problems.items()))
        self.problems = dict(problems)


class Section(BaseModel):
    """A part of the settings: nothing unknown, and no value in the text of an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Parameters(Section):
    """The parameters of one kind of storage."""

    needed: ClassVar[tuple[str, ...]] = ()
    """Those without a default that would do."""

    def missing(self) -> list[str]:
        """The names of those that are needed and not given."""
        return [name for name in self.needed if not getattr(self, name)]

    @property
    def place(self) -> str:
        """
        Where the objects are, with no secret in it: parameters that reach the same objects say the same.

        It is compared, and shown to people: ``s3://HOST/BUCKET/PREFIX``.
        """
        raise NotImplementedError

    def open(self, spool_directory: Path) -> Driver:
        """The driver. What waits to be sent waits below `spool_directory`. Raises StorageError."""
        raise NotImplementedError


class FileSystemStorage(Parameters):
    """Blobs as files, on a disk or an NFS mount."""

    needed = ("root",)

    root: Path | None = Field(None, description="The directory; by default `blobs` in the data directory.")

    @property
    def place(self) -> str:
        """``file:///DIRECTORY``."""
        return (self.root or Path()).absolute().as_uri()

    def open(self, spool_directory: Path) -> Driver:  # noqa: ARG002 - nothing waits to be sent
        """See `Parameters`."""
        from dtr.storage.filesystem import FileSystem

        return FileSystem((self.root or Path()).absolute())


class MemoryStorage(Parameters):
    """Blobs in the memory of one process, for tests."""

    @property
    def place(self) -> str:
        """``memory:``, whichever process it is."""
        return "memory:"

    def open(self, spool_directory: Path) -> Driver:  # noqa: ARG002 - nothing waits to be sent
        """See `Parameters`."""
        from dtr.storage.memory import Memory

        return Memory()


class ServerParameters(Parameters):
    """The parameters of a kind of storage that is reached over TLS."""

    ca_bundle: Path | None = Field(
        None, description="A file with the authorities to trust, instead of those that the system trusts."
    )
    ca_certificate: str | None = Field(None, description="The same, as certificates in PEM instead of a file.")
    verify: bool = Field(True, description="Check the certificates of servers.")

    @model_validator(mode="after")
    def _either(self) -> Self:
        if self.ca_bundle and self.ca_certificate:
            raise ValueError("of ca_bundle and ca_certificate, one is given")
        return self

    @property
    def trusted(self) -> bool | str:
        """Whether to check certificates, or with which authorities: the path of a file, or themselves in PEM."""
        return (self.ca_certificate or str(self.ca_bundle or "") or True) if self.verify else False


class S3Storage(ServerParameters):
    """Blobs in a bucket of Amazon S3 or of a server that speaks its protocol."""

    needed = ("bucket",)

    bucket: str = Field("", description="The bucket; it must exist.")
    region: str = Field("us-east-1", description="The region.")
    endpoint: str | None = Field(None, description="The address of the server; by default Amazon's.")
    access_key: str | None = Field(
        None, description="The access key; by default what the host provides, for example the role of the machine."
    )
    secret_key: SecretStr | None = Field(None, description="The secret key.")
    session_token: SecretStr | None = Field(None, description="What belongs to keys that are lent for a while.")
    v4auth: bool = Field(
        True, description="Sign requests by version 4; stores that are too old for that know version 2."
    )
    prefix: str = Field("", description="What every key begins with.")
    path_style: bool = Field(False, description="Put the bucket into the path instead of the host name.")
    accelerate: bool = Field(False, description="Use Amazon's transfer acceleration.")
    dual_stack: bool = Field(False, description="Use Amazon's addresses that have IPv6 as well.")
    part_size: int = Field(
        5 * 1024**2,
        ge=5 * 1024**2,
        le=5 * 1024**3,
        description="Bytes of a part of an upload, of which two at a time wait on the disk; after 1,250 parts, "
        "they grow.",
    )
    storage_class: str = Field("", description="What class of storage the objects have; by default the store's.")
    encrypt: bool = Field(False, description="Have the store encrypt the objects.")
    kms_key: str = Field("", description="Have it done with this key of Amazon's key management.")

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and re.fullmatch(r"https?://[^/?#]+/?", value) is None:
            raise ValueError("is https://HOST[:PORT]")
        return value

    def missing(self) -> list[str]:
        """See `Parameters`; of the keys, both are given or neither."""
        lonely = bool(self.access_key) != bool(self.secret_key)
        return super().missing() + (["secret_key" if self.access_key else "access_key"] if lonely else [])

    @property
    def place(self) -> str:
        """``s3://HOST/BUCKET/PREFIX``; names of buckets are unique in all regions of Amazon's."""
        host = "amazonaws.com" if self.endpoint is None else self.endpoint.partition("://")[2].strip("/").lower()
        return "/".join(filter(None, (f"s3://{host}", self.bucket, self.prefix.strip("/"))))

    def open(self, spool_directory: Path) -> Driver:
        """See `Parameters`."""
        from dtr.storage.s3 import S3, S3Settings

        return S3(
            S3Settings(
                bucket=self.bucket,
                region=self.region,
                endpoint=self.endpoint,
                access_key=self.access_key,
                secret_key=self.secret_key.get_secret_value() if self.secret_key else None,
                session_token=self.session_token.get_secret_value() if self.session_token else None,
                v4auth=self.v4auth,
                root_directory=self.prefix,
                path_style=self.path_style,
                accelerate=self.accelerate,
                dual_stack=self.dual_stack,
                verify=self.trusted,
                part_size=self.part_size,
                storage_class=self.storage_class,
                encrypt=self.encrypt,
                kms_key=self.kms_key,
                spool_directory=str(spool_directory),
            )
        )


class AzureStorage(ServerParameters):
    """Blobs as block blobs in a container of Microsoft Azure."""

    needed = ("account_name", "container")

    account_name: str = Field(
        "", pattern=r"^([a-z0-9]{3,24})?$", description="The storage account, without a hierarchical namespace."
    )
    account_key: SecretStr | None = Field(None, description="A key of the account.")
    sas_token: SecretStr | None = Field(
        None,
        description="A shared access signature instead of the key, with the rights `racwdl` on the container; "
        "pulls are not redirected then.",
    )
    identity: str = Field(
        "",
        pattern=r"^(machine|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?$",
        description="Instead of a key, what the machine is at Azure: `machine` is the identity that it has of its "
        "own, the client id is given of one that was assigned to it.",
    )
    container: str = Field(
        "", pattern=r"^([a-z0-9](-?[a-z0-9]){2,62})?$", description="The container; it must exist."
    )
    realm: str = Field(
        "core.windows.net",
        pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$",
        description="The cloud: `core.windows.net` is the public one, `core.chinacloudapi.cn` China's, "
        "`core.usgovcloudapi.net` that of the US government.",
    )
    endpoint: str | None = Field(
        None, description="The address of the Blob service; by default `https://ACCOUNT.blob.REALM`."
    )
    prefix: str = Field("", description="What every name begins with.")

    @field_validator("account_key")
    @classmethod
    def _base64(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            base64.b64decode((value or SecretStr("")).get_secret_value(), validate=True)
        except ValueError:
            raise ValueError("is what Azure shows as the key: base64") from None
        return value

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and re.fullmatch(r"https?://[^/?#@]+[^?#@]*", value) is None:
            raise ValueError("is https://HOST[:PORT][/ACCOUNT]")
        return value

    @model_validator(mode="after")
    def _together(self) -> AzureStorage:
        if sum(map(bool, (self.account_key, self.sas_token, self.identity))) > 1:
            raise ValueError("of account_key, sas_token and identity, one is given")
        if self.identity and (self.endpoint or "").startswith("http://"):
            raise ValueError("with an identity, the endpoint is https://")
        return self

    def missing(self) -> list[str]:
        """See `Parameters`; one of key, signature and identity is needed."""
        return super().missing() + ([] if self.account_key or self.sas_token or self.identity else ["account_key"])

    @property
    def place(self) -> str:
        """``azure://HOST/CONTAINER/PREFIX``."""
        host = (self.endpoint or f"https://{self.account_name}.blob.{self.realm}").partition("://")[2].rstrip("/")
        return "/".join(filter(None, (f"azure://{host.lower()}", self.container, self.prefix.strip("/"))))

    def open(self, spool_directory: Path) -> Driver:
        """See `Parameters`."""
        from dtr.storage.azure import Azure, AzureSettings

        return Azure(
            AzureSettings(
                account=self.account_name,
                container=self.container,
                account_key=self.account_key.get_secret_value() if self.account_key else None,
                sas_token=self.sas_token.get_secret_value() if self.sas_token else None,
                identity=self.identity or None,
                realm=self.realm,
                endpoint=self.endpoint,
                root_directory=self.prefix,
                verify=self.trusted,
                spool_directory=str(spool_directory),
            )
        )


class GCSStorage(ServerParameters):
    """
    Blobs in a bucket of Google Cloud Storage.

    The registry of Docker's distribution has the same parameters, by these names:

    ======================== ====================================================================================
    here                     there
    ======================== ====================================================================================
    `bucket`                 the same
    `key_file`               ``keyfile``
    `key`                    ``credentials``: the same fields, as a mapping instead of a JSON text
    `prefix`                 ``rootdirectory``
    `part_size`              ``chunksize``, in bytes; there from 256 KiB on, in multiples of that
    `endpoint`, `ca_bundle`, none
    `verify`
    none                     ``maxconcurrency``: of requests; here there are at most 64 connections
    ======================== ====================================================================================
    """

    needed = ("bucket",)

    bucket: str = Field("", pattern="^[^/]*$", description="The bucket; it must exist.")
    key_file: Path | None = Field(
        None,
        description="The key of a service account, as the JSON file that Google gives out; by default dtr is what "
        "the machine is at Google, and pulls are not redirected.",
    )
    key: SecretStr | None = Field(None, description="The same, as the text instead of a file.")
    prefix: str = Field("", description="What every name begins with.")
    endpoint: str | None = Field(
        None, description="The address of the store; by default `https://storage.googleapis.com`."
    )
    part_size: int = Field(
        32 * 1024**2,
        ge=5 * 1024**2,
        le=5 * 1024**3,
        description="Bytes of a part of an upload, of which two at a time wait on the disk; after 500 parts, they "
        "grow.",
    )

    @field_validator("key")
    @classmethod
    def _of_an_account(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return None
        if info.data.get("key_file") is not None:
            raise ValueError("is given instead of key_file, not with it")
        from dtr.storage.gcs_auth import KeyInvalid, ServiceAccount

        try:
            ServiceAccount.parse(value.get_secret_value())
        except KeyInvalid as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and re.fullmatch(r"https?://[^/?#@]+/?", value) is None:
            raise ValueError("is https://HOST[:PORT]")
        return value

    @property
    def place(self) -> str:
        """``gcs://HOST/BUCKET/PREFIX``."""
        host = (self.endpoint or "https://storage.googleapis.com").partition("://")[2].strip("/").lower()
        return "/".join(filter(None, (f"gcs://{host}", self.bucket, self.prefix.strip("/"))))

    def open(self, spool_directory: Path) -> Driver:
        """See `Parameters`; the key file is read now."""
        from dtr.storage.gcs import ENDPOINT, GCS, GCSSettings
        from dtr.storage.gcs_auth import ServiceAccount

        account = None
        if self.key is not None:
            account = ServiceAccount.parse(self.key.get_secret_value())
        elif self.key_file is not None:
            account = ServiceAccount.load(self.key_file)
        return GCS(
            GCSSettings(
                bucket=self.bucket,
                account=account,
                root_directory=self.prefix,
                endpoint=self.endpoint or ENDPOINT,
                part_size=self.part_size,
                verify=self.trusted,
                spool_directory=str(spool_directory),
            )
        )


class SwiftStorage(ServerParameters):
    """
    Blobs in a container of OpenStack Swift, or of a store that speaks its protocol.

    The registry of Docker's distribution has the same parameters, by these names:

    ======================== ====================================================================================
    here                     there
    ======================== ====================================================================================
    `auth_url`               ``authurl``
    `auth_version`           ``authversion``, a number
    `username`, `password`   the same
    `user_domain`            ``domain``
    `user_domain_id`         ``domainid``
    `project`                ``tenant``
    `project_id`             ``tenantid``
    `project_domain`         ``tenantdomain``
    `project_domain_id`      ``tenantdomainid``
    `trust_id`               ``trustid``
    `region`, `container`    the same
    `endpoint_type`          ``endpointtype``
    `prefix`                 ``prefix``, or ``rootdirectory``; its objects are below ``PREFIX/files``
    `segment_size`           ``chunksize``, in bytes
    `verify`                 ``insecureskipverify``, the opposite
    `temp_url_key`           ``secretkey``
    `user_id`, `ca_…`,       none
    `application_credential_…`
    none: both are asked     ``tempurlcontainerkey``: whether the key is the container's
    none: the cluster says   ``tempurlmethods``
    none                     ``accesskey``, of a cloud that is no more
    ======================== ====================================================================================
    """

    needed = ("auth_url", "container")

    auth_url: str = Field(
        "",
        description="The address of the token service, such as `https://keystone.example.com:5000/v3`, or "
        "`https://swift.example.com/auth/v1.0`.",
    )
    auth_version: Literal["1", "2", "3"] | None = Field(
        None, description="The version of the token service; by default what its address says."
    )
    username: str = Field("", description="The user; of version 1, `ACCOUNT:USER`.")
    user_id: str = Field("", description="The id of the user, instead of the name.")
    password: SecretStr | None = Field(None, description="The password, or the key of version 1.")
    user_domain: str = Field("", description="The domain of the user; by default the one with the id `default`.")
    user_domain_id: str = Field("", description="The id of the user's domain, instead of its name.")
    project: str = Field("", description="The project (tenant) whose container it is.")
    project_id: str = Field("", description="The id of the project, instead of its name.")
    project_domain: str = Field("", description="The domain of the project; by default the user's.")
    project_domain_id: str = Field("", description="The id of the project's domain, instead of its name.")
    trust_id: str = Field("", description="A trust, instead of a project.")
    application_credential_id: str = Field("", description="An application credential, instead of a user.")
    application_credential_name: str = Field("", description="The name of one of the user's, instead of its id.")
    application_credential_secret: SecretStr | None = Field(
        None, description="The secret of the application credential."
    )
    region: str = Field("", description="The region; by default the first that the catalogue has.")
    endpoint_type: Literal["public", "internal", "admin"] = Field(
        "public", description="Which address of the store is used, of those in the catalogue."
    )
    container: str = Field("", pattern="^[^/]*$", description="The container; it must exist.")
    prefix: str = Field("", description="What every name begins with.")
    segment_size: int = Field(
        16 * 1024 * 1024,
        ge=1024 * 1024,
        le=1024**3,
        description="Bytes of a part of a large blob; it waits on the local disk until it is full.",
    )
    temp_url_key: SecretStr | None = Field(
        None,
        description="The key that signs addresses for pulls that are redirected; by default the one that the "
        "container or the account has.",
    )

    @field_validator("auth_version", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @field_validator("auth_url")
    @classmethod
    def _http(cls, value: str) -> str:
        if value and re.fullmatch(r"https?://[^/?#@]+[^?#@]*", value) is None:
            raise ValueError("is https://HOST[:PORT]/PATH")
        return value

    def missing(self) -> list[str]:
        """See `Parameters`; who logs in, and with what, is needed as well."""
        if self.application_credential_id or self.application_credential_name:
            who = {
                "application_credential_secret": self.application_credential_secret,
                "username": self.application_credential_id or self.username or self.user_id,
            }
        else:
            who = {"username": self.username or self.user_id, "password": self.password}
        return super().missing() + [name for name, value in who.items() if not value]

    @property
    def place(self) -> str:
        """``swift://HOST of the token service/REGION/PROJECT/CONTAINER/PREFIX``, without what is not given."""
        host = self.auth_url.partition("://")[2].partition("/")[0].lower()
        # Of version 1, the user's name says the account. One who names no project has one in the credential.
        owner = self.project_id or self.project or self.trust_id or self.application_credential_id
        if not owner:
            owner = self.username.partition(":")[0] or self.user_id
        places = (self.region, owner, self.container, self.prefix.strip("/"))
        return "/".join(filter(None, (f"swift://{host}", *places)))

    def open(self, spool_directory: Path) -> Driver:
        """See `Parameters`."""
        from dtr.storage.swift import Swift, SwiftSettings
        from dtr.storage.swift_auth import Credentials

        def plain(secret: SecretStr | None) -> str:
            return secret.get_secret_value() if secret else ""

        return Swift(
            SwiftSettings(
                credentials=Credentials(
                    auth_url=self.auth_url,
                    auth_version=self.auth_version,
                    username=self.username,
                    user_id=self.user_id,
                    password=plain(self.password),
                    user_domain=self.user_domain,
                    user_domain_id=self.user_domain_id,
                    project=self.project,
                    project_id=self.project_id,
                    project_domain=self.project_domain,
                    project_domain_id=self.project_domain_id,
                    trust_id=self.trust_id,
                    application_credential_id=self.application_credential_id,
                    application_credential_name=self.application_credential_name,
                    application_credential_secret=plain(self.application_credential_secret),
                    region=self.region,
                    endpoint_type=self.endpoint_type,
                ),
                container=self.container,
                root_directory=self.prefix,
                segment_size=self.segment_size,
                temp_url_key=plain(self.temp_url_key) or None,
                verify=self.trusted,
                spool_directory=str(spool_directory),
            )
        )


KINDS: dict[str, type[Parameters]] = {
    "filesystem": FileSystemStorage,
    "memory": MemoryStorage,
    "s3": S3Storage,
    "azure": AzureStorage,
    "gcs": GCSStorage,
    "swift": SwiftStorage,
}
"""The parameters of each kind of storage, by the name of its driver."""


class Storage(Section):
    """Where the blobs are."""

    driver: Literal["filesystem", "memory", "s3", "azure", "gcs", "swift"] = Field(
        "filesystem", description="The kind of storage."
    )
    redirect_seconds: int | None = Field(
        None,
        ge=10,
        le=3600,
        description="Send pulls to signed addresses of the storage, good for so many seconds.",
    )
    redirect_except: tuple[str, ...] = Field(
        (), description="Networks of clients that cannot reach the storage: their pulls are not sent there."
    )
    filesystem: FileSystemStorage = FileSystemStorage()
    s3: S3Storage = S3Storage()
    azure: AzureStorage = AzureStorage()
    gcs: GCSStorage = GCSStorage()
    swift: SwiftStorage = SwiftStorage()

    @field_validator("redirect_except")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_networks(value)

    @model_validator(mode="after")
    def _needed(self) -> Storage:
        if self.driver != "filesystem":  # its root has a default, which the data directory says
            for name in self.parameters.missing():
                raise ValueError(f"storage.{self.driver}.{name} is needed for the driver {self.driver}")
        return self

    @property
    def redirect(self) -> Redirect | None:
        """Whether reading clients are sent there."""
        return redirect_of(self.redirect_seconds, self.redirect_except)

    @property
    def parameters(self) -> Parameters:
        """Those of the driver."""
        given: Parameters = MemoryStorage() if self.driver == "memory" else getattr(self, self.driver)
        return given


def parameters_of(kind: str, values: Mapping[str, Any]) -> Parameters:
    """Parameters from their names and values, as JSON has them. Raises DefinitionInvalid."""
    section = KINDS.get(kind)
    if section is None:
        raise DefinitionInvalid({"driver": f"is one of {', '.join(KINDS)}"})
    try:
        parameters = section.model_validate(dict(values))
    except ValidationError as error:
        raise DefinitionInvalid(
            {
                ".".join(map(str, one["loc"])): one["msg"].removeprefix("Value error, ")
                for one in error.errors(include_input=False, include_context=False, include_url=False)
            }
        ) from None
    if missing := parameters.missing():
        raise DefinitionInvalid(dict.fromkeys(missing, "is needed"))
    return parameters


def open_driver(kind: str, parameters: Parameters | Mapping[str, Any], *, spool_directory: Path) -> Driver:
    """The driver of a kind of storage with these parameters. Raises DefinitionInvalid, StorageError."""
    if not isinstance(parameters, Parameters):
        parameters = parameters_of(kind, parameters)
    return parameters.open(spool_directory)


def plain_and_secret(parameters: Parameters) -> tuple[dict[str, Any], dict[str, str]]:
    """What was given, as JSON has it: what anyone may see, and the secrets."""
    given = parameters.model_dump(mode="json", exclude_defaults=True)
    secrets = {
        name: value.get_secret_value()
        for name in given
        if isinstance(value := getattr(parameters, name), SecretStr)
    }
    return {name: value for name, value in given.items() if name not in secrets}, secrets


def redirect_of(seconds: int | None, excepted: Iterable[str]) -> Redirect | None:
    """To addresses good for so many seconds, but not in these networks; None: to none. Raises ValueError."""
    if seconds is None:
        return None
    return Redirect(seconds, tuple(ipaddress.ip_network(network) for network in excepted))


def checked_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """The same networks. Raises ValueError when they are none."""
    for one in value:
        try:
            ipaddress.ip_network(one)
        except ValueError:
            raise ValueError("are networks such as 10.0.0.0/8, or addresses") from None
    return value
