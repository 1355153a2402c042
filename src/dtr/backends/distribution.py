"""
Storages as Docker's open-source registry describes them, and as Docker Trusted Registry showed and took them.

That is a document in YAML or JSON: ``{"version": 0.1, "storage": {"s3": {…}, "delete": {…}, "redirect": {…}}, …}``
(https://distribution.github.io/distribution/about/configuration/, "storage"). Rules without I/O, both ways.

What a document says and means nothing here is told by its name, when it does no harm; what somebody would miss is
refused by its name. No value is repeated in an error: it may be a secret.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args

from msgspec import Struct
from pydantic import SecretStr

from dtr.storage.definitions import KINDS, DefinitionInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MASK = "********"
"""What is shown in place of a secret, and means the stored one when it is sent back."""

_LONGEST, _DEEPEST = 65_536, 32
_VERSIONS = {"0.1", "0.2"}
_HARMLESS = frozenset(
    {
        "log",
        "loglevel",
        "http",
        "auth",
        "health",
        "redis",
        "reporting",
        "compatibility",
        "validation",
        "catalog",
        "policy",
    }
)
"""Sections of the document that another program needs, and nobody misses here."""
_MISSED = {
    "notifications": "there are webhooks for that: nobody would be told",
    "proxy": "there are caches for that: nothing would be fetched",
    "middleware": "there is none: clients would not be sent there",
}
_OPTIONS = frozenset({"delete", "redirect", "maintenance", "cache", "tag"})
"""What stands beside the driver in the section `storage`."""


class _Form(Struct, frozen=True):
    """
    How a driver of the registry's is described: `names` are its parameters, and what ours are called.

    `harmless` mean nothing here. `read` and `show` turn what is not a matter of names alone, by the further names
    in `extra`, into ours, which are named in `made`, and back. Parameters of ours for which the registry has no
    name keep their own, and are shown when they are set.
    """

    kind: str
    names: Mapping[str, str]
    harmless: frozenset[str] = frozenset()
    extra: frozenset[str] = frozenset()
    made: frozenset[str] = frozenset()
    read: Callable[[dict[str, Any], dict[str, Any]], None] = lambda _given, _ours: None
    show: Callable[[dict[str, Any], dict[str, Any]], None] = lambda _ours, _shown: None

    @property
    def own(self) -> set[str]:
        """Parameters of ours for which the registry has no name."""
        return set(KINDS[self.kind].model_fields) - set(self.names.values()) - self.made


def _read_s3(given: dict[str, Any], ours: dict[str, Any]) -> None:
    endpoint, is_secure = given.get("regionendpoint"), _boolean("secure", given.get("secure", True))
    if endpoint:
        scheme, mark, host = str(endpoint).partition("://")
        ours["endpoint"] = f"{scheme}://{host}" if mark else f"{'https' if is_secure else 'http'}://{endpoint}"
        # As the registry does: few stores of others have a host name for each bucket.
        ours["path_style"] = _boolean("forcepathstyle", given.get("forcepathstyle", True))
    else:
        if "forcepathstyle" in given:
            ours["path_style"] = _boolean("forcepathstyle", given["forcepathstyle"])
        if not is_secure:
            raise DefinitionInvalid({"secure": "Amazon's stores are reached with TLS"})
    if "skipverify" in given:
        ours["verify"] = not _boolean("skipverify", given["skipverify"])
    if not _boolean("encrypt", given.get("encrypt", False)):
        ours.pop("kms_key", None)
    if given.get("objectacl") not in {None, "", "private"}:
        raise DefinitionInvalid({"objectacl": "objects are private"})


def _show_s3(ours: dict[str, Any], shown: dict[str, Any]) -> None:
    endpoint = ours.get("endpoint") or ""
    shown["regionendpoint"] = endpoint
    shown["secure"] = not endpoint.startswith("http://")
    shown["skipverify"] = not ours.get("verify", True)
    shown["forcepathstyle"] = ours.get("path_style", False)


def _read_oss(given: dict[str, Any], ours: dict[str, Any]) -> None:
    """Alibaba's store has an interface like S3's, with a host name for each bucket."""
    region, endpoint = given.get("region"), given.get("endpoint")
    is_secure = _boolean("secure", given.get("secure", True))
    if not endpoint:
        if not region:
            raise DefinitionInvalid({"region": "is needed"})
        inside = "-internal" if _boolean("internal", given.get("internal", False)) else ""
        endpoint = f"{region}{inside}.aliyuncs.com"
    host = str(endpoint).rpartition("://")[2].strip("/")
    bucket = given.get("bucket")
    ours["endpoint"] = f"{'https' if is_secure else 'http'}://{host.removeprefix(f'{bucket}.')}"
    ours["path_style"] = False


def _read_gcs(given: dict[str, Any], ours: dict[str, Any]) -> None:
    """The key of an account is in a file, or, as DTR wanted it, here."""
    credentials = given.get("credentials")
    if isinstance(credentials, dict):
        ours["key"] = json.dumps(credentials, default=str)
    elif credentials:
        raise DefinitionInvalid({"credentials": "is a table"})
    if str(ours.get("key_file", "")).lstrip().startswith("{"):
        ours["key"] = ours.pop("key_file")


def _read_skipping(given: dict[str, Any], ours: dict[str, Any]) -> None:
    if "insecureskipverify" in given:
        ours["verify"] = not _boolean("insecureskipverify", given["insecureskipverify"])


def _show_skipping(ours: dict[str, Any], shown: dict[str, Any]) -> None:
    shown["insecureskipverify"] = not ours.get("verify", True)


_S3_NAMES = {
    "bucket": "bucket",
    "region": "region",
    "accesskey": "access_key",
    "secretkey": "secret_key",
    "sessiontoken": "session_token",
    "rootdirectory": "prefix",
    "v4auth": "v4auth",
    "accelerate": "accelerate",
    "usedualstack": "dual_stack",
    "chunksize": "part_size",
    "storageclass": "storage_class",
    "encrypt": "encrypt",
    "keyid": "kms_key",
}
_SWIFT_NAMES = {
    "authurl": "auth_url",
    "authversion": "auth_version",
    "username": "username",
    "password": "password",
    "domain": "user_domain",
    "domainid": "user_domain_id",
    "tenant": "project",
    "tenantid": "project_id",
    "tenantdomain": "project_domain",
    "tenantdomainid": "project_domain_id",
    "trustid": "trust_id",
    "region": "region",
    "container": "container",
    "endpointtype": "endpoint_type",
    "prefix": "prefix",
    "chunksize": "segment_size",
    "secretkey": "temp_url_key",
}

_FORMS: dict[str, _Form] = {
    "filesystem": _Form("filesystem", {"rootdirectory": "root"}, harmless=frozenset({"maxthreads"})),
    "inmemory": _Form("memory", {}),
    "s3": _Form(
        "s3",
        _S3_NAMES,
        extra=frozenset({"regionendpoint", "secure", "skipverify", "forcepathstyle", "objectacl"}),
        made=frozenset({"endpoint", "verify", "path_style"}),
        harmless=frozenset(
            {
                "multipartcopychunksize",
                "multipartcopymaxconcurrency",
                "multipartcopythresholdsize",
                "useragent",
                "loglevel",
            }
        ),
        read=_read_s3,
        show=_show_s3,
    ),
    "azure": _Form(
        "azure",
        {
            "accountname": "account_name",
            "accountkey": "account_key",
            "container": "container",
            "realm": "realm",
            "rootdirectory": "prefix",
        },
        harmless=frozenset(
            {
                "copy_status_poll_max_retry",
                "copy_status_poll_delay",
                "maxretries",
                "retrydelay",
                "max_retries",
                "retry_delay",
            }
        ),
    ),
    "swift": _Form(
        "swift",
        _SWIFT_NAMES,
        extra=frozenset({"insecureskipverify"}),
        made=frozenset({"verify"}),
        harmless=frozenset({"accesskey", "tempurlcontainerkey", "tempurlmethods"}),
        read=_read_skipping,
        show=_show_skipping,
    ),
    "gcs": _Form(
        "gcs",
        {"bucket": "bucket", "keyfile": "key_file", "rootdirectory": "prefix", "chunksize": "part_size"},
        extra=frozenset({"credentials"}),
        harmless=frozenset({"maxconcurrency", "disablekeepalives"}),
        read=_read_gcs,
    ),
    "oss": _Form(
        "s3",
        {
            "bucket": "bucket",
            "region": "region",
            "accesskeyid": "access_key",
            "accesskeysecret": "secret_key",
            "rootdirectory": "prefix",
            "chunksize": "part_size",
            "encrypt": "encrypt",
        },
        extra=frozenset({"endpoint", "internal", "secure"}),
        made=frozenset({"endpoint", "path_style"}),
        read=_read_oss,
    ),
}
_SHOWN_AS = {form.kind: name for name, form in _FORMS.items() if name != "oss"}


class Configuration(Struct, frozen=True, kw_only=True):
    """
    What a document says of storage.

    `parameters` are those of our `driver` by our names, as JSON has them. A secret is None where the document says
    that there is none, and is not there where it does not say. What it does not say of the rest is None. `ignored`
    are the names of what means nothing here.
    """

    driver: str
    parameters: dict[str, Any]
    redirect: bool | None = None
    delete: bool | None = None
    read_only: bool | None = None
    ignored: tuple[str, ...] = ()


def parse(text: str) -> dict[str, Any]:
    """
    The document in a text of YAML, which JSON is as well. Raises DefinitionInvalid.

    It takes up to a second: for a thread.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """It reads nothing that is nested deeply, which takes it long."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1
            if self.depth > _DEEPEST:
                raise yaml.YAMLError
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

    if len(text) > _LONGEST:
        raise DefinitionInvalid({"": f"is longer than {_LONGEST} characters"})
    try:
        document = yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        # Its own text repeats the line, in which a secret may stand.
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise DefinitionInvalid(
            {"": f"is not YAML: {getattr(error, 'problem', None) or 'not readable'}{place}"}
        ) from None
    except ValueError:
        raise DefinitionInvalid({"": "is not YAML: not readable"}) from None
    if not isinstance(document, dict):
        raise DefinitionInvalid({"": "is not a registry's configuration"})
    return document


def read(document: Mapping[str, Any]) -> Configuration:
    """What a document says. Raises DefinitionInvalid, with the document's names."""
    problems: dict[str, str] = {}
    ignored: list[str] = []
    if "version" in document and str(document["version"]) not in _VERSIONS:
        problems["version"] = f"is one of {', '.join(sorted(_VERSIONS))}"
    for name, value in document.items():
        if name in _HARMLESS:
            ignored.append(str(name))
        elif name in _MISSED:
            if value:
                problems[str(name)] = _MISSED[name]
        elif name not in {"version", "storage"}:
            problems[str(name)] = "is not known"
    if problems:
        raise DefinitionInvalid(problems)
    storage = document.get("storage")
    if isinstance(storage, str):
        storage = {storage: {}}
    if not isinstance(storage, dict):
        raise DefinitionInvalid({"storage": "is needed"})
    return _read_storage(storage, ignored)


def show(driver: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """
    The driver's part of the section `storage` for a storage of ours; every name of the form is there.

    `parameters` are as JSON has them, by our names; what is not given has its default.
    """
    name = _SHOWN_AS[driver]
    form = _FORMS[name]
    fields = KINDS[driver].model_fields
    ours = {key: parameters.get(key, info.default) for key, info in fields.items()}
    shown = {theirs: _plain(ours[mine]) for theirs, mine in form.names.items()}
    shown |= {mine: _plain(ours[mine]) for mine in sorted(form.own) if ours[mine] != fields[mine].default}
    form.show(ours, shown)
    return {name: shown}


def theirs(driver: str, problems: Mapping[str, str]) -> dict[str, str]:
    """Problems of parameters of ours, by the names that a document has for them."""
    name = _SHOWN_AS.get(driver, driver)
    names = {mine: one for one, mine in _FORMS[name].names.items()} if name in _FORMS else {}
    names |= {"verify": "skipverify", "endpoint": "regionendpoint", "path_style": "forcepathstyle"}
    return {f"storage.{name}.{names.get(mine, mine)}".rstrip("."): text for mine, text in problems.items()}


def _read_storage(storage: Mapping[str, Any], ignored: list[str]) -> Configuration:
    drivers = [name for name in storage if name not in _OPTIONS]
    unknown = [str(name) for name in drivers if name not in _FORMS]
    if unknown:
        raise DefinitionInvalid({f"storage.{name}": f"is none of {', '.join(_FORMS)}" for name in unknown})
    if len(drivers) != 1:
        raise DefinitionInvalid({"storage": f"has one of {', '.join(_FORMS)}, not {len(drivers)}"})
    name = drivers[0]
    try:
        parameters = _read_parameters(name, storage[name] or {}, ignored)
    except DefinitionInvalid as error:
        path = f"storage.{name}"
        raise DefinitionInvalid(
            {f"{path}.{key}" if key else path: text for key, text in error.problems.items()}
        ) from None
    is_disabled = _option("storage", storage, "redirect", "disable", ignored)
    ignored += [f"storage.{option}" for option in ("cache", "tag") if option in storage]
    return Configuration(
        driver=_FORMS[name].kind,
        parameters=parameters,
        redirect=None if is_disabled is None else not is_disabled,
        delete=_option("storage", storage, "delete", "enabled", ignored),
        read_only=_read_only(storage.get("maintenance"), ignored),
        ignored=tuple(ignored),
    )


def _read_parameters(name: str, given: Any, ignored: list[str]) -> dict[str, Any]:
    form = _FORMS[name]
    if not isinstance(given, dict):
        raise DefinitionInvalid({"": "is a table of parameters"})
    problems: dict[str, str] = {}
    ours: dict[str, Any] = {}
    for key, value in given.items():
        if key in form.names:
            ours[form.names[key]] = value
        elif key in form.own:
            ours[key] = value
        elif key in form.harmless:
            ignored.append(f"storage.{name}.{key}")
        elif key not in form.extra:
            problems[str(key)] = "is not known"
    fields = KINDS[form.kind].model_fields
    for key, value in list(ours.items()):
        annotation = fields[key].annotation
        if isinstance(value, dict | list):
            problems[key] = "is one value"
        elif value is None or value == "":
            ours[key] = None
            if not _takes(annotation, SecretStr):
                del ours[key]
        elif isinstance(value, int | float) and not isinstance(value, bool) and _is_text(annotation):
            ours[key] = f"{value:g}"
    if problems:
        raise DefinitionInvalid(problems)
    form.read(given, ours)
    return ours


def _read_only(maintenance: Any, ignored: list[str]) -> bool | None:
    if maintenance is None:
        return None
    if not isinstance(maintenance, dict):
        raise DefinitionInvalid({"storage.maintenance": "is a table"})
    ignored += [f"storage.maintenance.{name}" for name in maintenance if name != "readonly"]
    return _option("storage.maintenance", maintenance, "readonly", "enabled", ignored)


def _option(path: str, section: Mapping[str, Any], name: str, key: str, ignored: list[str]) -> bool | None:
    """The switch `key` in an option of the section at `path`; None when the document does not say."""
    option, path = section.get(name), f"{path}.{name}"
    if option is None:
        return None
    if not isinstance(option, dict):
        raise DefinitionInvalid({path: "is a table"})
    ignored += [f"{path}.{one}" for one in option if one != key]
    return None if option.get(key) is None else _boolean(f"{path}.{key}", option[key])


def _boolean(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false", "1", "0", "t", "f"}:
        return value.lower() in {"true", "1", "t"}
    if value in (None, ""):
        return False
    raise DefinitionInvalid({name: "is true or false"})


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    return value if isinstance(value, bool | int) else str(value)


def _is_text(annotation: Any) -> bool:
    return _takes(annotation, str) or _takes(annotation, SecretStr)


def _takes(annotation: Any, kind: type) -> bool:
    """Whether a field is of this type, or may be, or has values of it to choose from."""
    return (
        annotation is kind
        or isinstance(annotation, kind)
        or any(_takes(one, kind) for one in get_args(annotation))
    )
