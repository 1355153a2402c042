"""Settings: where they come from, what wins, and what is told about wrong ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtr.config import COMPONENTS, ConfigError, Loaded, load, names, split_address

SECRET = "open-sesame"


def from_environment(**variables: str) -> Loaded:
    return load(None, {f"DTR_{name}": value for name, value in variables.items()}, {})


def refuse(
    match: str, file: Path | None = None, environment: Mapping[str, str] | None = None, **options: Any
) -> str:
    """The message of the error."""
    with pytest.raises(ConfigError, match=match) as caught:
        load(file, environment or {}, options)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def row(loaded: Loaded, name: str) -> tuple[str, str]:
    """Value and source as they are shown."""
    return next((value, source) for key, value, source in loaded.rows() if key == name)


@pytest.fixture
def write(tmp_path: Path):
    """A function that writes a settings file and gives its path."""

    def write(text: str, name: str = "dtr.toml") -> Path:
        file = tmp_path / name
        file.write_bytes(text.encode())
        return file

    return write


# --- where values come from ---------------------------------------------------------------------------------


def test_without_anything_all_values_are_defaults():
    loaded = load(None, {}, {})
    assert loaded.settings.https_address == "0.0.0.0:5443"
    assert {source for _, _, source in loaded.rows()} == {"default"}


TOML = """
https_address = "127.0.0.1:443"
workers = 3
components = ["registry", "garant"]
[database]
url = "postgresql://host/name"
[storage.s3]
bucket = "blobs"
path_style = true
"""
YAML = """
https_address: 127.0.0.1:443
workers: 3
components: [registry, garant]
database:
  url: postgresql://host/name
storage:
  s3:
    bucket: blobs
    path_style: true
"""


@pytest.mark.parametrize(("name", "text"), [("dtr.toml", TOML), ("dtr.yaml", YAML), ("dtr.yml", YAML)])
def test_a_file_is_toml_or_yaml(write, name: str, text: str):
    file = write(text, name)
    loaded = load(file, {}, {})
    found = loaded.settings
    assert (found.https_address, found.workers, found.components) == ("127.0.0.1:443", 3, ("registry", "garant"))
    assert found.database.url == "postgresql://host/name"
    assert (found.storage.s3.bucket, found.storage.s3.path_style) == ("blobs", True)
    assert loaded.sources["storage.s3.bucket"] == f"file {file}"
    assert row(loaded, "storage.s3.region") == ('"us-east-1"', "default")


@pytest.mark.parametrize(
    ("name", "text"), [("a.toml", ""), ("a.yaml", ""), ("a.yaml", "# nothing"), ("a.yaml", "{}")]
)
def test_an_empty_file_changes_nothing(write, name: str, text: str):
    assert load(write(text, name), {}, {}) == load(None, {}, {})


def test_the_environment_wins_over_the_file_and_options_over_both(write):
    file = write('data_dir = "a"\nhttps_address = "a:1"\nhttp_address = "a:2"\nworkers = 1\n')
    environment = {"DTR_DATA_DIR": "b", "DTR_HTTPS_ADDRESS": "b:1", "DTR_WORKERS": "2"}
    loaded = load(file, environment, {"data_dir": "c", "https_address": None, "workers": None})
    assert row(loaded, "data_dir") == ('"c"', "option --data-dir")
    assert row(loaded, "https_address") == ('"b:1"', "environment DTR_HTTPS_ADDRESS")
    assert row(loaded, "workers") == ("2", "environment DTR_WORKERS")
    assert row(loaded, "http_address") == ('"a:2"', f"file {file}")


def test_a_later_source_changes_only_what_it_names(write):
    file = write('[storage]\ndriver = "s3"\n[storage.s3]\nbucket = "blobs"\nregion = "eu"\n')
    found = load(file, {"DTR_STORAGE__S3__REGION": "us"}, {}).settings.storage
    assert (found.driver, found.s3.bucket, found.s3.region) == ("s3", "blobs", "us")


def test_a_value_of_the_environment_can_take_one_of_the_file_away(write):
    file = write('https_address = "a:1"\nhttp_address = "a:2"\n')
    assert load(file, {"DTR_HTTP_ADDRESS": ""}, {}).settings.http_address is None


def test_every_setting_can_be_given_in_the_environment():
    for name, (default, _) in names().items():
        if default is None:
            continue
        text = ",".join(default) if isinstance(default, tuple) else str(default)
        variable = f"DTR_{name.upper().replace('.', '__')}"
        loaded = load(None, {variable: text}, {})
        assert row(loaded, name)[1] == f"environment {variable}"
        assert row(loaded, name)[0] == row(load(None, {}, {}), name)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("registry", ("registry",)),
        ("registry,garant", ("registry", "garant")),
        (" registry , garant ,", ("registry", "garant")),
    ],
)
def test_lists_in_the_environment_are_separated_by_commas(text: str, expected: tuple[str, ...]):
    assert from_environment(COMPONENTS=text).settings.components == expected


def test_an_empty_list_in_the_environment_is_none():
    assert from_environment(TRUSTED_PROXIES="", TLS__NAMES=" , ").settings.trusted_proxies == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("true", True),
        ("1", True),
        ("yes", True),
        ("on", True),
        ("TRUE", True),
        ("false", False),
        ("0", False),
        ("no", False),
        ("off", False),
    ],
)
def test_truths_in_the_environment(text: str, expected: bool):
    assert from_environment(REGISTRY__CREATE_ON_PUSH=text).settings.registry.create_on_push is expected


def test_numbers_in_the_environment():
    assert from_environment(REGISTRY__MANIFEST_LIMIT="2048").settings.registry.manifest_limit == 2048
    assert from_environment(REGISTRY__BLOB_LIMIT="").settings.registry.blob_limit is None


def test_an_empty_text_is_a_text_where_a_setting_cannot_be_none(write):
    file = write('[storage.s3]\nprefix = "a/"\n')
    assert load(file, {"DTR_STORAGE__S3__PREFIX": ""}, {}).settings.storage.s3.prefix == ""


def test_other_variables_are_none_of_our_business():
    environment = {
        "PATH": "/bin",
        "DTRX": "1",
        "dtr_workers": "x",
        "XDTR_WORKERS": "x",
        "DTR_ADMIN_PASSWORD": SECRET,
    }
    assert load(None, environment, {}) == load(None, {}, {})


def test_what_kubernetes_says_of_services_is_no_setting():
    environment = {
        "DTR_SERVICE_HOST": "10.0.0.1",
        "DTR_SERVICE_PORT": "443",
        "DTR_SERVICE_PORT_HTTPS": "443",
        "DTR_PORT": "tcp://10.0.0.1:443",
        "DTR_PORT_443_TCP": "tcp://10.0.0.1:443",
        "DTR_PORT_443_TCP_ADDR": "10.0.0.1",
        "DTR_REGISTRY_SERVICE_HOST": "10.0.0.2",
        "DTR_REGISTRY_PORT": "tcp://10.0.0.2:443",
        "DTR_REGISTRY_PORT_443_TCP_PROTO": "tcp",
    }
    assert load(None, environment, {}) == load(None, {}, {})
    refuse("environment DTR_PORT: there is no setting port", environment={"DTR_PORT": "443"})


# --- unknown names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "match"),
    [
        ("DTR_WORKER", "environment DTR_WORKER: there is no setting worker; did you mean workers?"),
        ("DTR_DATABASE_URL", "there is no setting database_url; did you mean database.url?"),
        ("DTR_DATABASE__ULR", "there is no setting database.ulr; did you mean database.url?"),
        ("DTR_ZZZ", "environment DTR_ZZZ: there is no setting zzz$"),
        ("DTR_", "environment DTR_: there is no setting"),
        ("DTR___", "environment DTR___: there is no setting"),
        ("DTR_DATABASE", "there is no setting database"),
        ("DTR_DATABASE__URL__X", "there is no setting database.url.x"),
    ],
)
def test_an_unknown_variable_is_refused_and_a_near_name_offered(variable: str, match: str):
    refuse(match.replace(".", r"\.").replace("?", r"\?"), environment={variable: SECRET})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("worker = 1", "worker"),
        ("[registry]\ncreate_on_pull = true", "registry.create_on_pull"),
        ("[nothing]\n[nothing.more]\n", "nothing.more"),
        ("[nothing]\n", "nothing"),
        ("database = 1", "database"),
        ("[workers]\n", "workers"),
        ("[workers]\nx = 1\n", "workers.x"),
        ("[storage.s3.bucket]\nx = 1\n", "storage.s3.bucket.x"),
    ],
)
def test_an_unknown_key_of_a_file_is_refused_and_named(write, text: str, name: str):
    file = write(text)
    if name == "workers":
        refuse("workers", file)
    else:
        assert refuse("there is no setting", file).startswith(f"file {file}: there is no setting {name}")


def test_keys_of_yaml_may_be_anything_and_are_named(write):
    for text, name in (("1: 2", "1"), ("null: 2", "None"), ("[a, b]: 2", ""), ("2024-01-01: x", "2024-01-01")):
        refuse(f"there is no setting {name}" if name else "is not YAML", write(text, "dtr.yaml"))


def test_an_empty_section_is_no_setting_and_no_harm(write):
    assert load(write("[database]\n[storage.s3]\n"), {}, {}) == load(None, {}, {})


# --- wrong values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "text", "match"),
    [
        ("DTR_WORKERS", "many", "workers: .*valid integer"),
        ("DTR_WORKERS", "0", "workers: .*greater than or equal to 1"),
        ("DTR_WORKERS", "", "workers: .*valid integer"),
        ("DTR_HTTP_SERVES", "perhaps", "http_serves: .*valid boolean"),
        ("DTR_HTTP_SERVES", "", "http_serves: .*valid boolean"),
        ("DTR_HTTPS_ADDRESS", "nowhere", "https_address: is HOST:PORT"),
        ("DTR_HTTPS_ADDRESS", "https://a:1", "https_address: is HOST:PORT"),
        ("DTR_HTTP_ADDRESS", "a:70000", "http_address: is HOST:PORT"),
        ("DTR_HTTP_ADDRESS", "a b:1", "http_address: is HOST:PORT"),
        ("DTR_COMPONENTS", "registry,nginx", "components: .*'registry'.*'jobrunner'"),
        ("DTR_COMPONENTS", "", "components: .*at least 1 item"),
        ("DTR_TRUSTED_PROXIES", "10.0.0.0/8,proxy", "trusted_proxies: are networks"),
        ("DTR_TRUSTED_PROXIES", "10.0.0.1/8", "trusted_proxies: are networks"),
        ("DTR_EXTERNAL_ADDRESS", "https://registry.example.org", "external_address: is HOST or HOST:PORT"),
        ("DTR_EXTERNAL_ADDRESS", "registry.example.org/path", "external_address: is HOST or HOST:PORT"),
        ("DTR_EXTERNAL_ADDRESS", "registry.example.org:99999", "external_address: is HOST or HOST:PORT"),
        ("DTR_TLS__NAMES", "registry.example.org,b\u00fccher.example", "tls.names: are DNS names"),
        ("DTR_TLS__NAMES", "a..b", "tls.names: are DNS names"),
        ("DTR_TLS__NAMES", "x" * 64 + ".org", "tls.names: are DNS names"),
        ("DTR_DATABASE__URL", f"mysql://user:{SECRET}@host/name", "database.url: begins with sqlite:/// or postgresql://"),
        ("DTR_DATABASE__URL", SECRET, "database.url: begins with"),
        ("DTR_DATABASE__URL", f"postgresql://user:x@{SECRET}@host/name", "database.url: is postgresql://.*%-codes"),
        ("DTR_DATABASE__URL", f"postgresql://user:{SECRET}/x@host/name", "database.url: is postgresql://"),
        ("DTR_DATABASE__URL", "postgresql://host:port/name", "database.url: is postgresql://"),
        ("DTR_DATABASE__URL", "postgresql://host:5432,[::1/name", "database.url: is postgresql://"),
        ("DTR_STORAGE__DRIVER", "tape", "storage.driver: .*'filesystem'.*'s3'"),
        ("DTR_AUTH__TOKEN_SECONDS", "3600", "auth.token_seconds: .*less than or equal to 300"),
        ("DTR_AUTH__SERVICE", "", "auth.service: .*at least 1 character"),
        ("DTR_LOG__LEVEL", "loud", "log.level: .*'debug'"),
        ("DTR_SIGNER__ADDRESS", "7899", "signer.address: is HOST:PORT"),
        ("DTR_SIGNER__NAMES", "a..b", "signer.names: are DNS names"),
        ("DTR_SIGNER__KEY", "key.pem", "signer.certificate, signer.key and signer.client_ca belong together"),
        ("DTR_TRUST__SIGNER__ADDRESS", "signer", "trust.signer.address: is HOST:PORT"),
        ("DTR_TRUST__SIGNER__ADDRESS", "signer:7899", "trust.signer.ca, .*certificate and .*key are needed"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_name_and_its_source(variable: str, text: str, match: str):
    refuse(f"^environment {variable}: {match}", environment={variable: text})


def test_a_wrong_value_of_a_file_or_an_option_is_refused_with_its_source(write):
    file = write("[registry]\npage_size = 0\n")
    refuse(f"^file {file}: registry.page_size: ", file)
    refuse("^option --workers: workers: ", workers=0)
    refuse("^option --components: components: ", components=())


@pytest.mark.parametrize(
    "text", ["workers = [1]", 'components = "registry"', "https_address = 1", "[tls]\nnames = 1"]
)
def test_a_value_of_another_type_is_refused(write, text: str):
    refuse("should be a valid", write(text))


def test_what_does_not_go_together_is_refused_with_the_sources_of_both(write):
    message = refuse("belong together", environment={"DTR_TLS__KEY": "key.pem"})
    assert message == "environment DTR_TLS__KEY: tls.certificate and tls.key belong together"
    file = write('[storage]\ndriver = "s3"\n')
    message = refuse("bucket", file, {"DTR_STORAGE__S3__REGION": "eu"})
    expected = (
        f"file {file} and environment DTR_STORAGE__S3__REGION: storage.s3.bucket is needed for the driver s3"
    )
    assert message == expected
    refuse("^https_address or http_address is needed$", environment={"DTR_HTTPS_ADDRESS": ""})


def test_all_wrong_values_are_told_at_once():
    message = refuse("workers", environment={"DTR_WORKERS": "x", "DTR_LOG__FORMAT": "xml"})
    assert "log.format" in message


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.toml", f'secret = "{SECRET}\n', r"a\.toml is not TOML: .*line 1"),
        ("a.toml", "a = 1\na = 2", r"a\.toml is not TOML"),
        ("a.yaml", f'a: 1\nsecret: "{SECRET}\n', r"a\.yaml is not YAML: .*line 3"),
        ("a.yaml", f"a: [{SECRET}\n", r"a\.yaml is not YAML"),
        ("a.yaml", f"a: b: {SECRET}", r"a\.yaml is not YAML: .*line 1"),
        ("a.yaml", "!!python/object/apply:os.system ['true']", r"a\.yaml is not YAML"),
        ("a.yaml", "a: \0", r"a\.yaml is not YAML"),
        ("a.yaml", f"- {SECRET}", r"a\.yaml is not a table of settings"),
        ("a.yaml", SECRET, r"a\.yaml is not a table of settings"),
        ("a.json", "{}", r"a\.json: a settings file ends in \.toml, \.yaml or \.yml"),
        ("a", "", r"a: a settings file ends in"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_without_repeating_it(write, name: str, text: str, match: str):
    refuse(match, write(text, name))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    refuse("missing.toml cannot be read: No such file or directory", tmp_path / "missing.toml")
    refuse("cannot be read: Is a directory", tmp_path)
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    refuse("cannot be read: it is not in UTF-8", tmp_path / "a.toml")


# --- what is shown ------------------------------------------------------------------------------------------


def test_every_setting_is_shown_with_a_description():
    shown = [name for name, _, _ in load(None, {}, {}).rows()]
    assert shown == list(names())
    for name, (_, description) in names().items():
        assert description.endswith("."), name


def test_values_are_shown_as_json():
    for _, value, _ in load(None, {}, {}).rows():
        json.loads(value)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("STORAGE__S3__SECRET_KEY", SECRET),
        ("DATABASE__URL", f"postgresql://user:{SECRET}@host/name"),
        ("DATABASE__URL", f"postgresql://:{SECRET}@host/name"),
        ("DATABASE__URL", f"postgresql://host/name?user=u&password={SECRET}&sslmode=require"),
        ("DATABASE__URL", f"postgresql://host/name?sslpassword={SECRET}"),
        ("STORAGE__S3__ENDPOINT", f"https://user:{SECRET}@s3.example.org"),
    ],
)
def test_secrets_are_not_shown(variable: str, text: str):
    loaded = from_environment(**{variable: text})
    assert SECRET not in json.dumps(list(loaded.rows()))
    value, source = row(loaded, variable.lower().replace("__", "."))
    assert "********" in value
    assert source == f"environment DTR_{variable}"


def test_the_rest_of_an_address_with_a_password_is_shown():
    loaded = from_environment(DATABASE__URL=f"postgresql://user:{SECRET}@one,two:5433/name?sslmode=require")
    assert row(loaded, "database.url")[0] == '"postgresql://user:********@one,two:5433/name?sslmode=require"'


# --- what follows from settings -----------------------------------------------------------------------------


def test_the_data_directory_holds_what_is_not_put_elsewhere(tmp_path: Path):
    found = load(None, {}, {"data_dir": str(tmp_path)}).settings
    assert found.database_url == f"sqlite:///{tmp_path}/metadata.db"
    assert found.blob_directory == tmp_path / "blobs"
    elsewhere = from_environment(DATABASE__URL="postgresql://h/n", STORAGE__FILESYSTEM__ROOT="/srv/blobs").settings
    assert elsewhere.database_url == "postgresql://h/n"
    assert elsewhere.blob_directory == Path("/srv/blobs")


def test_all_components_run_unless_some_are_chosen():
    assert load(None, {}, {}).settings.components == COMPONENTS == ("registry", "garant", "api", "jobrunner")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host/name",
        "postgres://user:p%40ss%2Fword@host:5432/name?sslmode=require",
        "postgresql://user@one:5432,two,[2001:db8::1]:5433/name",
        "postgresql:///name?host=/run/postgresql",
        "postgresql://user@%2Frun%2Fpostgresql/name",
        "sqlite:////srv/dtr/metadata.db",
    ],
)
def test_addresses_of_databases(url: str):
    assert from_environment(DATABASE__URL=url).settings.database_url == url


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (None, None),
        ("registry.example.org", "registry.example.org"),
        ("registry.example.org:5443", "registry.example.org"),
        ("192.0.2.1:5443", "192.0.2.1"),
        ("[2001:db8::1]:5443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
    ],
)
def test_the_external_host_is_the_address_without_its_port(address: str | None, host: str | None):
    assert load(None, {}, {"external_address": address}).settings.external_host == host


@pytest.mark.parametrize(
    "name",
    ["a", "registry.example.org", "*.example.org", "a_b", "192.0.2.1", "2001:db8::1", "xn--bcher-kva.example"],
)
def test_names_for_the_certificate(name: str):
    assert from_environment(TLS__NAMES=name).settings.tls.names == (name,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost:80", ("localhost", 80)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::]:5443", ("::", 5443)),
        ("[fe80::1]:65535", ("fe80::1", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, expected: tuple[str, int]):
    assert split_address(text) == expected


@given(st.text(max_size=30) | st.from_regex(r"\[?[0-9a-z.:]*\]?:[0-9]{1,6}", fullmatch=True))
@settings(max_examples=300, deadline=None)
def test_any_text_is_an_address_or_a_value_error(text: str):
    try:
        host, port = split_address(text)
    except ValueError:
        return
    assert host
    assert 0 <= port <= 65535


@given(st.dictionaries(st.sampled_from(sorted(names())), st.text(max_size=20), max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_environment_gives_settings_or_a_config_error(given_values: dict[str, str]):
    environment = {f"DTR_{name.upper().replace('.', '__')}": text for name, text in given_values.items()}
    try:
        loaded = load(None, environment, {})
    except ConfigError as error:
        message = str(error)
    else:
        assert [name for name, _, _ in loaded.rows()] == list(names())
        return
    assert any(name in message for name in (*given_values, *environment)) or "is needed" in message
