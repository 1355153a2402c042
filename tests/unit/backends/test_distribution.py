"""Configurations of the open-source registry, as documents and as parameters of ours, there and back."""

from __future__ import annotations

import base64
import contextlib
import json
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtr.backends.distribution import Configuration, parse, read, show, theirs
from dtr.storage.definitions import KINDS, DefinitionInvalid, parameters_of, plain_and_secret

TEXT = (
    st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_./+= ", min_size=1, max_size=20)
    .map(str.strip)
    .filter(bool)
)


@cache
def _service_account() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return json.dumps(
        {
            "type": "service_account",
            "client_email": "dtr@example.com",
            "token_uri": "https://oauth2.example.com/token",
            "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        }
    )


WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)
URL = st.builds("{}://{}:{}".format, st.sampled_from(["http", "https"]), WORD, st.integers(1, 65535))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "filesystem.root": WORD.map(lambda word: f"/srv/{word}"),
    "s3.endpoint": URL,
    "azure.account_name": st.text("abcxyz019", min_size=3, max_size=24),
    "azure.account_key": st.binary(max_size=64).map(lambda key: base64.b64encode(key).decode()).filter(bool),
    "azure.container": st.text("abcxyz019", min_size=3, max_size=63),
    "azure.realm": st.sampled_from(["core.windows.net", "core.chinacloudapi.cn"]),
    "azure.endpoint": URL,
    "gcs.bucket": WORD,
    "gcs.endpoint": URL,
    "gcs.key": st.builds(_service_account),
    "swift.auth_url": URL,
    "swift.auth_version": st.sampled_from(["1", "2", "3"]),
    "swift.endpoint_type": st.sampled_from(["public", "internal", "admin"]),
    "swift.container": WORD,
}
"""Of what is not any text, number or switch."""
NEEDED = {
    "filesystem": {"root"},
    "s3": {"bucket"},
    "gcs": {"bucket"},
    "azure": {"account_name", "account_key", "container"},
    "swift": {"auth_url", "container", "username", "password", "application_credential_secret"},
}


def of(kind: str, name: str) -> st.SearchStrategy[Any]:
    annotation = str(KINDS[kind].model_fields[name].annotation)
    if f"{kind}.{name}" in VALUES:
        return VALUES[f"{kind}.{name}"]
    if "bool" in annotation:
        return st.booleans()
    if "int" in annotation:
        return st.integers(5 * 2**20, 2**30)
    return TEXT


@st.composite
def parameters(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    fields = sorted(KINDS[kind].model_fields)
    names = draw(st.sets(st.sampled_from(fields)) if fields else st.just(set()))
    names |= NEEDED.get(kind, set())
    if kind == "s3":  # what goes together there
        names |= {"access_key", "secret_key"} if names & {"access_key", "secret_key"} else set()
    if {"ca_bundle", "ca_certificate"} <= names:
        names -= {"ca_certificate"}
    if "key_file" in names:
        names -= {"key"}
    if "account_key" in names:
        names -= {"sas_token", "identity"}
    made = {name: draw(of(kind, name)) for name in sorted(names)}
    return made | ({"encrypt": True} if "kms_key" in made else {})


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_form_can_be_sent_back_as_it_was_shown(kind: str, data: st.DataObject):
    """DTR 2.7.6 had to mend one with which that was not so."""
    ours = data.draw(parameters(kind))
    given = parameters_of(kind, ours)
    document = {"version": "0.1", "storage": {**show(kind, ours), "delete": {"enabled": True}}}
    said = read(document)
    assert said.driver == kind
    assert said.ignored == ()
    again = parameters_of(kind, {name: value for name, value in said.parameters.items() if value is not None})
    assert plain_and_secret(again) == plain_and_secret(given)


@pytest.mark.parametrize(
    ("storage", "driver", "expected"),
    [
        ({"filesystem": {"rootdirectory": "/storage", "maxthreads": 100}}, "filesystem", {"root": "/storage"}),
        ("inmemory", "memory", {}),
        (  # DTR's own example for Amazon
            {
                "delete": {"enabled": True},
                "maintenance": {"readonly": {"enabled": False}},
                "s3": {
                    "rootdirectory": "",
                    "region": "eu-west-1",
                    "regionendpoint": "",
                    "bucket": "images",
                    "accesskey": "",
                    "secretkey": "",
                    "secure": True,
                },
            },
            "s3",
            {
                "region": "eu-west-1",
                "bucket": "images",
                "secret_key": None,
            },
        ),
        (  # and for MinIO
            {
                "s3": {
                    "accesskey": "AKIA",
                    "secretkey": "secret",
                    "bucket": "dtr",
                    "region": "none",
                    "regionendpoint": "minio.example.com:9000",
                    "secure": "false",
                    "skipverify": True,
                }
            },
            "s3",
            {
                "access_key": "AKIA",
                "secret_key": "secret",
                "bucket": "dtr",
                "region": "none",
                "endpoint": "http://minio.example.com:9000",
                "path_style": True,
                "verify": False,
            },
        ),
        (
            {"s3": {"bucket": "b", "regionendpoint": "https://store.example.com", "forcepathstyle": False}},
            "s3",
            {"bucket": "b", "endpoint": "https://store.example.com", "path_style": False},
        ),
        (
            {
                "oss": {
                    "accesskeyid": 123,
                    "accesskeysecret": "secret",
                    "region": "oss-cn-beijing",
                    "bucket": "images",
                    "internal": True,
                }
            },
            "s3",
            {
                "access_key": "123",
                "secret_key": "secret",
                "region": "oss-cn-beijing",
                "bucket": "images",
                "endpoint": "https://oss-cn-beijing-internal.aliyuncs.com",
                "path_style": False,
            },
        ),
        (
            {
                "swift": {
                    "authurl": "https://keystone.example.com/v3",
                    "authversion": 3,
                    "username": "dtr",
                    "password": "secret",
                    "tenant": "images",
                    "tenantid": "",
                    "domain": "Default",
                    "container": "registry",
                    "insecureskipverify": True,
                    "chunksize": "20971520",
                    "tempurlmethods": ["GET"],
                }
            },
            "swift",
            {
                "auth_url": "https://keystone.example.com/v3",
                "auth_version": "3",
                "username": "dtr",
                "password": "secret",
                "project": "images",
                "user_domain": "Default",
                "container": "registry",
                "verify": False,
                "segment_size": "20971520",
            },
        ),
        (
            {"oss": {"region": "r", "bucket": "images", "endpoint": "images.oss.example.com", "secure": False}},
            "s3",
            {"region": "r", "bucket": "images", "endpoint": "http://oss.example.com", "path_style": False},
        ),
    ],
)
def test_what_a_document_says(storage: Any, driver: str, expected: dict[str, Any]):
    said = read({"version": 0.1, "storage": storage})
    assert (said.driver, said.parameters) == (driver, expected)


def test_a_key_of_google_is_in_a_file_or_in_the_document():
    key = {"type": "service_account", "client_email": "dtr@example.com"}
    for one in ({"keyfile": json.dumps(key)}, {"credentials": key}):
        said = read({"storage": {"gcs": {"bucket": "b", **one}}}).parameters
        assert (said.pop("bucket"), json.loads(said.pop("key")), said) == ("b", key, {})
    assert read({"storage": {"gcs": {"bucket": "b", "keyfile": "/etc/key.json", "disablekeepalives": True}}}) == (
        Configuration(
            driver="gcs",
            parameters={"bucket": "b", "key_file": "/etc/key.json"},
            ignored=("storage.gcs.disablekeepalives",),
        )
    )


def test_what_stands_beside_the_driver():
    said = read(
        {
            "version": 0.1,
            "log": {"level": "debug"},
            "http": {"addr": ":5000"},
            "proxy": {},
            "storage": {
                "inmemory": None,
                "redirect": {"disable": False},
                "delete": {"enabled": "false"},
                "cache": {"blobdescriptor": "redis"},
                "maintenance": {"uploadpurging": {"enabled": False}, "readonly": {"enabled": True}},
            },
        }
    )
    assert (said.redirect, said.delete, said.read_only) == (True, False, True)
    assert said.ignored == ("log", "http", "storage.cache", "storage.maintenance.uploadpurging")
    nothing = read({"storage": {"inmemory": {}}})
    assert (nothing.redirect, nothing.delete, nothing.read_only, nothing.ignored) == (None, None, None, ())


@pytest.mark.parametrize(
    ("document", "problems"),
    [
        ({}, {"storage": "is needed"}),
        ({"storage": {}}, {"storage": "has one of filesystem, inmemory, s3, azure, swift, gcs, oss, not 0"}),
        (
            {"storage": {"s3": {"bucket": "b"}, "inmemory": {}}},
            {"storage": "has one of filesystem, inmemory, s3, azure, swift, gcs, oss, not 2"},
        ),
        (
            {"storage": {"rados": {}}},
            {"storage.rados": "is none of filesystem, inmemory, s3, azure, swift, gcs, oss"},
        ),
        ({"storage": {"s3": {"buckett": "b"}}}, {"storage.s3.buckett": "is not known"}),
        ({"storage": {"s3": {"secure": "maybe"}}}, {"storage.s3.secure": "is true or false"}),
        ({"storage": {"s3": {"secure": False}}}, {"storage.s3.secure": "Amazon's stores are reached with TLS"}),
        ({"storage": {"s3": {"bucket": ["b"]}}}, {"storage.s3.bucket": "is one value"}),
        ({"storage": {"s3": "b"}}, {"storage.s3": "is a table of parameters"}),
        ({"storage": {"inmemory": {}, "delete": True}}, {"storage.delete": "is a table"}),
        (
            {"storage": {"inmemory": {}, "maintenance": {"readonly": 1}}},
            {"storage.maintenance.readonly": "is a table"},
        ),
        (
            {"storage": {"inmemory": {}, "redirect": {"disable": 7}}},
            {"storage.redirect.disable": "is true or false"},
        ),
        ({"version": 3, "storage": {"inmemory": {}}}, {"version": "is one of 0.1, 0.2"}),
        (
            {"storage": {"inmemory": {}}, "notifications": {"endpoints": []}, "whatever": 1},
            {"notifications": "there are webhooks for that: nobody would be told", "whatever": "is not known"},
        ),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(document: dict[str, Any], problems: dict[str, str]):
    with pytest.raises(DefinitionInvalid) as refused:
        read(document)
    assert refused.value.problems == problems


def test_texts():
    assert parse('{"version": 0.1, "storage": {"s3": {"bucket": "b"}}}') == {
        "version": 0.1,
        "storage": {"s3": {"bucket": "b"}},
    }
    assert read(parse("version: 0.1\nstorage:\n  s3:\n    bucket: b\n    skipverify: true\n")).parameters == {
        "bucket": "b",
        "verify": False,
    }


@pytest.mark.parametrize(
    "text",
    ["", "storage", "- a list", "a: b: secret", "!!python/object:os.system {}", "[" * 5000, "\0", "a: &a [*a"],
)
def test_what_is_no_document_is_refused_without_its_text(text: str):
    with pytest.raises(DefinitionInvalid) as refused:
        parse(text)
    assert "secret" not in str(refused.value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda one: (
            st.lists(one)
            | st.dictionaries(
                st.sampled_from(
                    ["storage", "s3", "oss", "bucket", "region", "delete", "enabled", "maintenance", "x"]
                )
                | st.text(),
                one,
            )
        ),
    )
)
def test_anything_is_read_or_refused(document: Any):
    with contextlib.suppress(DefinitionInvalid):
        assert read(document if isinstance(document, dict) else {"storage": document}).driver in KINDS


def test_problems_have_the_names_of_the_document():
    assert theirs("s3", {"secret_key": "is short", "verify": "is odd", "ca_bundle": "is not there"}) == {
        "storage.s3.secretkey": "is short",
        "storage.s3.skipverify": "is odd",
        "storage.s3.ca_bundle": "is not there",
    }
