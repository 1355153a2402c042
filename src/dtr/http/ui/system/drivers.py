"""The forms of the kinds of storage: their fields in the order of the page, and parameters from what is typed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dtr.http.ui.problems import Problems
    from dtr.http.ui.visit import Visit


def N_(text: str) -> str:  # noqa: N802 - the word by which texts are found
    """A text that is translated where it is shown."""
    return text


MASK = "********"
"""What the API shows in place of a secret."""
_MIB = 1024 * 1024
_LONGEST_NUMBER = 12


class Field(Struct, frozen=True):
    """A parameter: its name in the API, and how it is asked for."""

    name: str
    label: str
    hint: str = ""
    kind: Literal["text", "secret", "document", "certificate", "switch", "mib", "choice"] = "text"
    default: Any = ""
    """What it is when nobody says it."""
    options: tuple[tuple[str, str], ...] = ()
    optional: bool = True

    @property
    def is_secret(self) -> bool:
        """Whether nobody is shown what it is."""
        return self.kind in {"secret", "document"}


class Kind(Struct, frozen=True):
    """A kind of storage."""

    title: str
    text: str
    icon: str
    fields: tuple[Field, ...]
    more: tuple[Field, ...] = ()
    """What few need."""

    @property
    def all(self) -> tuple[Field, ...]:
        """All fields."""
        return self.fields + self.more


_PREFIX = Field("prefix", N_("Folder"), N_("What every name begins with. Empty: it starts at the top."))
_TLS = (
    Field("verify", N_("Check the certificate of the server"), kind="switch", default=True),
    Field("ca_bundle", N_("File with trusted authorities"), N_("A path on every host of the registry.")),
    Field(
        "ca_certificate",
        N_("Trusted authorities"),
        N_("Certificates in PEM, instead of a file."),
        kind="certificate",
    ),
)

KINDS: Mapping[str, Kind] = {
    "filesystem": Kind(
        N_("File system, NFS"),
        N_("A directory or mount"),
        "hard-drive",
        (
            Field(
                "root",
                N_("Directory"),
                N_("A path that every host of the registry sees as the same files."),
                optional=False,
            ),
        ),
    ),
    "s3": Kind(
        N_("Amazon S3"),
        N_("and compatible"),
        "cloud",
        (
            Field("bucket", N_("Bucket"), N_("It must exist."), optional=False),
            Field(
                "region", N_("Region"), N_("For Amazon, where the bucket is."), default="us-east-1", optional=False
            ),
            Field(
                "endpoint",
                N_("Address of the service"),
                N_("Only for services compatible with S3: https://HOST[:PORT]."),
                default=None,
            ),
            _PREFIX,
            Field(
                "access_key",
                N_("Access key"),
                N_("Leave both keys empty to use the role of the machine."),
                default=None,
            ),
            Field(
                "secret_key",
                N_("Secret key"),
                N_("Once it is stored, it is shown to nobody."),
                kind="secret",
                default=None,
            ),
        ),
        (
            Field("path_style", N_("Put the bucket into the path of the address"), kind="switch", default=False),
            Field("v4auth", N_("Sign requests by version 4"), kind="switch", default=True),
            Field("accelerate", N_("Use transfer acceleration"), kind="switch", default=False),
            Field("dual_stack", N_("Use addresses that have IPv6 as well"), kind="switch", default=False),
            Field("encrypt", N_("Have the store encrypt the objects"), kind="switch", default=False),
            Field("kms_key", N_("Key of the key management"), N_("With which it encrypts them.")),
            Field("storage_class", N_("Storage class"), N_("Empty: the store's own.")),
            Field("part_size", N_("Part of an upload, in MiB"), N_("At least 5."), kind="mib", default=5 * _MIB),
            Field(
                "session_token",
                N_("Session token"),
                N_("Belongs to keys that are lent for a while."),
                kind="secret",
                default=None,
            ),
            *_TLS,
        ),
    ),
    "azure": Kind(
        N_("Azure Blob"),
        N_("Storage account"),
        "cloud",
        (
            Field("account_name", N_("Storage account"), optional=False),
            Field("container", N_("Container"), N_("It must exist."), optional=False),
            Field(
                "account_key",
                N_("Account key"),
                N_("One of these three: key, signature, or identity."),
                kind="secret",
                default=None,
            ),
            Field(
                "sas_token",
                N_("Shared access signature"),
                N_("With the rights racwdl on the container. Pulls are not redirected then."),
                kind="secret",
                default=None,
            ),
            Field(
                "identity",
                N_("Identity of the machine"),
                N_("“machine”, or the client id of one that was assigned to it."),
            ),
            _PREFIX,
        ),
        (
            Field("realm", N_("Cloud"), N_("core.windows.net is the public one."), default="core.windows.net"),
            Field(
                "endpoint",
                N_("Address of the service"),
                N_("Empty: it follows from account and cloud."),
                default=None,
            ),
            *_TLS,
        ),
    ),
    "gcs": Kind(
        N_("Google Cloud"),
        N_("Storage bucket"),
        "cloud",
        (
            Field("bucket", N_("Bucket"), N_("It must exist."), optional=False),
            _PREFIX,
            Field(
                "key",
                N_("Key of a service account"),
                N_("The JSON text. Empty: the registry is what its machine is at Google."),
                kind="document",
                default=None,
            ),
            Field(
                "key_file",
                N_("File with the key"),
                N_("A path on every host of the registry, instead of the text."),
                default=None,
            ),
        ),
        (
            Field("endpoint", N_("Address of the service"), N_("Empty: Google's."), default=None),
            Field("part_size", N_("Part of an upload, in MiB"), N_("At least 5."), kind="mib", default=32 * _MIB),
            *_TLS,
        ),
    ),
    "swift": Kind(
        N_("Swift"),
        N_("OpenStack"),
        "database",
        (
            Field(
                "auth_url",
                N_("Address of the token service"),
                N_("Like https://keystone.example.com:5000/v3."),
                optional=False,
            ),
            Field("container", N_("Container"), N_("It must exist."), optional=False),
            Field("username", N_("User name"), N_("Of version 1, ACCOUNT:USER.")),
            Field(
                "password",
                N_("Password"),
                N_("Once it is stored, it is shown to nobody."),
                kind="secret",
                default=None,
            ),
            Field("project", N_("Project")),
            Field("region", N_("Region"), N_("Empty: the first of the catalogue.")),
            _PREFIX,
        ),
        (
            Field(
                "auth_version",
                N_("Version of the token service"),
                kind="choice",
                default=None,
                options=(("", N_("as its address says")), ("1", "1"), ("2", "2"), ("3", "3")),
            ),
            Field(
                "endpoint_type",
                N_("Address of the store in the catalogue"),
                kind="choice",
                default="public",
                options=(("public", "public"), ("internal", "internal"), ("admin", "admin")),
            ),
            Field("user_id", N_("Id of the user"), N_("Instead of the name.")),
            Field("user_domain", N_("Domain of the user")),
            Field("user_domain_id", N_("Id of the user's domain")),
            Field("project_id", N_("Id of the project")),
            Field("project_domain", N_("Domain of the project")),
            Field("project_domain_id", N_("Id of the project's domain")),
            Field("trust_id", N_("Trust"), N_("Instead of a project.")),
            Field("application_credential_id", N_("Id of an application credential"), N_("Instead of a user.")),
            Field("application_credential_name", N_("Name of an application credential")),
            Field(
                "application_credential_secret",
                N_("Secret of the application credential"),
                kind="secret",
                default=None,
            ),
            Field(
                "temp_url_key",
                N_("Key for signed addresses"),
                N_("For pulls that are redirected. Empty: the one of the container or account."),
                kind="secret",
                default=None,
            ),
            Field(
                "segment_size",
                N_("Part of a large blob, in MiB"),
                N_("From 1 to 1,024."),
                kind="mib",
                default=16 * _MIB,
            ),
            *_TLS,
        ),
    ),
}
"""By the names of the drivers. What is in memory alone is for tests, and not offered."""


async def typed_parameters(
    visit: Visit, kind: Kind, secrets: Mapping[str, str], stored: frozenset[str], problems: Problems
) -> dict[str, Any]:
    """
    The parameters that a form says, as the API takes them; of `secrets`, what was typed of each.

    A secret that is `stored` and not typed anew is left out, which keeps it; what is left empty is None.
    """
    found: dict[str, Any] = {}
    for field in kind.all:
        text = secrets[field.name] if field.is_secret else await visit.text(field.name)
        if field.is_secret:
            if text:
                found[field.name] = text
            elif await visit.text(f"drop-{field.name}") or field.name not in stored:
                found[field.name] = None
        elif field.kind == "switch":
            found[field.name] = text == "on"
        elif field.kind == "mib":
            found[field.name] = _bytes(visit, field, text, problems)
        else:
            found[field.name] = text or None
    return {name: value for name, value in found.items() if value is not None or name in stored}


def _bytes(visit: Visit, field: Field, text: str, problems: Problems) -> int | None:
    if not text:
        return None
    try:
        size = round(float(text) * _MIB) if len(text) <= _LONGEST_NUMBER else -1
    except (ValueError, OverflowError):
        size = -1
    if size < 0:
        problems.add(field.name, visit._("Type a number."))
        return None
    return size


def shown_parameters(kind: Kind, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the fields of a form show for parameters as the API has them; of secrets nothing."""
    shown: dict[str, Any] = {}
    for field in kind.all:
        value = parameters.get(field.name, field.default)
        if field.is_secret:
            shown[field.name] = ""
        elif field.kind == "mib":
            shown[field.name] = f"{value / _MIB:g}" if isinstance(value, (int, float)) else ""
        elif field.kind == "switch":
            shown[field.name] = bool(value)
        else:
            shown[field.name] = "" if value is None else value
    return shown
