"""Reading manifests: what is taken, what is refused and why."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.images import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, digest_of

from dtr.oci import Manifest, ManifestInvalid, ManifestUnsupported, OciError, parse_manifest

DIGEST = digest_of(b"{}")
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2}
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest_of(b"layer"), "size": 5}
CHILD = {"mediaType": OCI_MANIFEST, "digest": digest_of(b"child"), "size": 5}
IMAGE: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [CHILD]}
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


def parse(document: Any, content_type: str | None = None) -> Manifest:
    return parse_manifest(json.dumps(document).encode(), content_type)


def refuse(document: Any, match: str, content_type: str | None = None) -> ManifestInvalid:
    with pytest.raises(ManifestInvalid, match=match) as caught:
        parse(document, content_type)
    str(caught.value).encode()  # it is sent to the client
    return caught.value


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != key}


# --- the kinds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_an_image_names_its_config_and_its_layers(media_type: str):
    manifest = parse({**IMAGE, "mediaType": media_type}, media_type)
    assert (manifest.kind, manifest.media_type) == ("image", media_type)
    assert manifest.config is not None
    assert [blob.digest for blob in manifest.blobs] == [DIGEST, LAYER["digest"]]
    assert manifest.children == ()
    assert manifest.subject is None
    assert manifest.size == 7


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_an_index_names_its_children(media_type: str):
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    manifest = parse(
        {**INDEX, "mediaType": media_type, "manifests": [{**CHILD, "platform": platform}]}, media_type
    )
    assert (manifest.kind, manifest.media_type) == ("index", media_type)
    (child,) = manifest.children
    assert (child.digest, child.size, child.media_type, child.platform) == (
        CHILD["digest"],
        5,
        OCI_MANIFEST,
        platform,
    )
    assert manifest.blobs == ()
    assert manifest.config is None


@pytest.mark.parametrize("nothing", [[], None])
def test_an_index_may_be_empty(nothing: list[Any] | None):
    assert parse({**INDEX, "manifests": nothing}).children == ()


@pytest.mark.parametrize("nothing", [[], None])
def test_an_image_may_have_no_layers(nothing: list[Any] | None):
    assert parse({**IMAGE, "layers": nothing}).layers == ()


def test_an_artifact_says_its_own_type():
    manifest = parse({**IMAGE, "artifactType": "application/spdx+json"})
    assert manifest.artifact_type == "application/spdx+json"


def test_without_an_own_type_the_config_gives_it():
    assert parse(IMAGE).artifact_type == CONFIG["mediaType"]
    assert parse({**IMAGE, "artifactType": ""}).artifact_type == CONFIG["mediaType"]


def test_an_index_without_an_own_type_has_none():
    assert parse(INDEX).artifact_type is None


@pytest.mark.parametrize("document", [IMAGE, INDEX])
def test_a_manifest_may_have_a_subject(document: dict[str, Any]):
    manifest = parse({**document, "subject": CHILD})
    assert manifest.subject is not None
    assert manifest.subject.digest == CHILD["digest"]


def test_a_subject_of_null_is_none():
    assert parse({**IMAGE, "subject": None}).subject is None


def test_annotations_are_read():
    assert parse({**IMAGE, "annotations": {"a.b/c": "d ☃"}}).annotations == {"a.b/c": "d ☃"}


def test_sha512_digests_are_read():
    layer = {**LAYER, "digest": digest_of(b"layer", "sha512")}
    assert parse({**IMAGE, "layers": [layer]}).layers[0].digest.algorithm == "sha512"


def test_a_layer_that_is_named_twice_counts_once():
    assert parse({**IMAGE, "layers": [LAYER, LAYER]}).size == 7


def test_the_size_fits_a_column():
    layers = [{**LAYER, "digest": digest_of(bytes([n])), "size": 2**63 - 1} for n in range(3)]
    assert parse({**IMAGE, "layers": layers}).size == 2**63 - 1


# --- foreign layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("media_type", [FOREIGN, NONDISTRIBUTABLE])
def test_a_foreign_layer_with_addresses_need_not_be_here(media_type: str):
    layer = {**LAYER, "mediaType": media_type, "urls": ["https://vendor.example/layer"]}
    manifest = parse({**IMAGE, "layers": [layer]})
    assert manifest.layers[0].is_foreign
    assert [blob.digest for blob in manifest.blobs] == [DIGEST]


@pytest.mark.parametrize(
    "layer",
    [
        {**LAYER, "mediaType": FOREIGN},
        {**LAYER, "mediaType": FOREIGN, "urls": []},
        {**LAYER, "mediaType": FOREIGN, "urls": None},
        {**LAYER, "urls": ["https://elsewhere.example/layer"]},
    ],
)
def test_other_layers_have_to_be_here(layer: dict[str, Any]):
    manifest = parse({**IMAGE, "layers": [layer]})
    assert not manifest.layers[0].is_foreign
    assert LAYER["digest"] in {blob.digest for blob in manifest.blobs}


def test_a_config_has_to_be_here_even_when_it_looks_foreign():
    config = {**CONFIG, "mediaType": FOREIGN, "urls": ["https://elsewhere.example/config"]}
    assert DIGEST in {blob.digest for blob in parse({**IMAGE, "config": config}).blobs}


# --- media types --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type", [OCI_MANIFEST, OCI_MANIFEST.upper(), f"{OCI_MANIFEST}; charset=utf-8", f" {OCI_MANIFEST} "]
)
def test_the_header_gives_the_type_when_the_body_does_not(content_type: str):
    assert parse(without(IMAGE, "mediaType"), content_type).media_type == OCI_MANIFEST


@pytest.mark.parametrize("content_type", [None, "", "application/json", "application/octet-stream", "text/plain"])
def test_without_a_type_the_content_tells_it(content_type: str | None):
    assert parse(without(IMAGE, "mediaType"), content_type).media_type == OCI_MANIFEST
    assert parse(without(INDEX, "mediaType"), content_type).media_type == OCI_INDEX


@pytest.mark.parametrize("content_type", [None, "application/json"])
def test_the_body_gives_the_type_when_the_header_does_not(content_type: str | None):
    assert parse({**IMAGE, "mediaType": DOCKER_MANIFEST}, content_type).media_type == DOCKER_MANIFEST


@pytest.mark.parametrize("content_type", [DOCKER_MANIFEST, OCI_INDEX])
def test_header_and_body_may_not_disagree(content_type: str):
    refuse(IMAGE, "mediaType and Content-Type disagree", content_type)


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        ({**IMAGE, "mediaType": "application/vnd.oci.artifact.manifest.v1+json"}, None),
        ({**IMAGE, "mediaType": "application/json"}, None),
        (without(IMAGE, "mediaType"), "application/vnd.oci.artifact.manifest.v1+json"),
        (without(IMAGE, "mediaType"), "image/png"),
        (without(IMAGE, "mediaType"), "\xff\x00" * 1000),
    ],
)
def test_other_kinds_are_not_supported(document: dict[str, Any], content_type: str | None):
    assert isinstance(refuse(document, "not supported", content_type), ManifestUnsupported)


@pytest.mark.parametrize("fields", [{"config": CONFIG}, {"layers": []}, {"config": CONFIG, "layers": [LAYER]}])
@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_an_index_that_is_an_image_as_well_is_refused(media_type: str, fields: dict[str, Any]):
    refuse({**INDEX, "mediaType": media_type, **fields}, "neither config nor layers")


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_an_image_that_is_an_index_as_well_is_refused(media_type: str):
    refuse({**IMAGE, "mediaType": media_type, "manifests": [CHILD]}, "has no manifests")


# --- schema 1 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        ({"schemaVersion": 1, "name": "a/b", "tag": "c", "fsLayers": [], "history": []}, None),
        ({"schemaVersion": 1}, "application/json"),
        ({"fsLayers": []}, None),
        (IMAGE, "application/vnd.docker.distribution.manifest.v1+json"),
        (without(IMAGE, "mediaType"), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ({**IMAGE, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, None),
        ({**IMAGE, "fsLayers": [{"blobSum": DIGEST}]}, OCI_MANIFEST),
    ],
)
def test_schema_1_is_refused_with_advice(document: dict[str, Any], content_type: str | None):
    error = refuse(document, "schema 1 are not supported.*Docker 1.10 or later", content_type)
    assert isinstance(error, ManifestUnsupported)


# --- JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"{",
        b"{}x",
        b'{"schemaVersion": 2,}',
        b"\xff\xfe",
        b'{"a": "\xff"}',
        b"\xef\xbb\xbf{}",
        json.dumps(IMAGE).encode("utf-16"),
        b"\0",
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_what_is_no_json_is_refused(payload: bytes):
    with pytest.raises(ManifestInvalid):
        parse_manifest(payload)


@pytest.mark.parametrize("document", [None, 1, "text", [], [IMAGE], True])
def test_what_is_no_object_is_refused(document: Any):
    refuse(document, "not a JSON object")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_json_does_not_know_as_a_number_is_refused(number: str):
    payload = json.dumps({**IMAGE, "more": 1}).replace('"more": 1', f'"more": {number}')
    with pytest.raises(ManifestInvalid, match="NaN and Infinity"):
        parse_manifest(payload.encode())


@pytest.mark.parametrize(
    ("plain", "doubled"),
    [
        ('"schemaVersion": 2', '"schemaVersion": 2, "schemaVersion": 2'),
        ('"size": 5', '"size": 5, "size": 6'),
        ('"size": 5', '"size": 5, "\\u0073ize": 5'),
        ('"layers"', '"layers": [], "layers"'),
        ('"a": "b"', '"a": "b", "a": "c"'),
        ('"deep": 1', '"deep": 1, "deep": 1'),
    ],
)
def test_a_key_that_is_given_twice_is_refused_wherever_it_is(plain: str, doubled: str):
    payload = json.dumps({**IMAGE, "annotations": {"a": "b"}, "unknown": [{"deep": 1}]})
    assert plain in payload
    with pytest.raises(ManifestInvalid, match="given twice"):
        parse_manifest(payload.replace(plain, doubled).encode())


@pytest.mark.parametrize(
    "document",
    [
        {**IMAGE, "Layers": [LAYER]},
        {**IMAGE, "layer\u017f": [LAYER]},
        {**IMAGE, "MediaType": OCI_INDEX},
        {**without(IMAGE, "layers"), "LAYERS": []},
        {**INDEX, "Manifests": []},
        {**IMAGE, "Manifests": [CHILD]},
        {**IMAGE, "config": {**CONFIG, "Digest": digest_of(b"another")}},
        {**IMAGE, "layers": [{**LAYER, "SIZE": 5}]},
        {**IMAGE, "subject": {**CHILD, "mediatype": OCI_INDEX}},
    ],
)
def test_a_key_that_some_clients_take_for_a_known_one_is_refused(document: dict[str, Any]):
    refuse(document, "in case only")


def test_keys_that_differ_in_case_are_different_annotations():
    annotations = {"org.Example": "a", "org.example": "b", "Size": "c"}
    assert parse({**IMAGE, "annotations": annotations}).annotations == annotations


def test_nesting_up_to_a_bound_is_taken():
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    assert parse({**IMAGE, "unknown": deep}).kind == "image"


def test_nesting_beyond_the_bound_is_refused_whatever_the_stack_of_the_reader():
    deep: Any = 1
    for _ in range(80):
        deep = {"a": deep}
    refuse({**IMAGE, "unknown": deep}, "nested too deeply")
    limit = sys.getrecursionlimit()
    payload = json.dumps({**IMAGE, "unknown": 1}).replace("1}", "[" * (limit * 2) + "]" * (limit * 2) + "}")
    with pytest.raises(ManifestInvalid):
        parse_manifest(payload.encode())


def test_unknown_fields_are_left_alone():
    more = {"unknown": {"x": [1, None, 1e999, True]}, "config": {**CONFIG, "unknown": 1}, "x.y": "z"}
    assert parse_manifest(json.dumps({**IMAGE, **more}).replace("Infinity", "1e999").encode()).kind == "image"


def test_white_space_and_the_order_of_keys_do_not_matter():
    payload = json.dumps(dict(reversed(IMAGE.items())), indent=8).encode() + b"\r\n\t "
    assert parse_manifest(payload) == parse(IMAGE)


# --- every field with every wrong type ----------------------------------------------------------------------

WRONG = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    2.0,
    "",
    "text",
    "\0",
    "\ud800",
    [],
    {},
    [[]],
    [{}],
    [None],
    {"a": 1},
    {"a": None},
]
ALLOWED: dict[str, list[Any]] = {
    "schemaVersion": [],
    "mediaType": [None, ""],
    "artifactType": [None, "", "text"],
    "config": [],
    "layers": [None, []],
    "manifests": [None, []],
    "subject": [None],
    "annotations": [None, {}],
    "descriptor.mediaType": ["text"],
    "descriptor.digest": [],
    "descriptor.size": [0],
    "descriptor.urls": [None, []],
    "descriptor.data": [None],
    "descriptor.platform": [None, {}, {"a": 1}, {"a": None}],
    "descriptor.annotations": [None, {}],
    "descriptor.artifactType": [None, "", "text"],
}


def is_allowed(field: str, value: Any) -> bool:
    return any(type(value) is type(one) and value == one for one in ALLOWED[field])


def put(place: str, field: str, value: Any) -> dict[str, Any]:
    """A manifest whose `field`, at the top or in the descriptor at `place`, has a value."""
    name = field.rpartition(".")[2]
    if place == "top":
        return {**(INDEX if field == "manifests" else IMAGE), name: value}
    if place == "manifests":
        return {**INDEX, "manifests": [CHILD, {**CHILD, name: value}]}
    if place == "layers":
        return {**IMAGE, "layers": [LAYER, {**LAYER, name: value}]}
    return {**IMAGE, place: {**CONFIG, name: value}}


CASES = [
    (place, field, value)
    for field in ALLOWED
    for place in (("config", "layers", "manifests", "subject") if field.startswith("descriptor.") else ("top",))
    for value in WRONG
]


@pytest.mark.parametrize(
    ("place", "field", "value"), [case for case in CASES if not is_allowed(case[1], case[2])], ids=repr
)
def test_a_wrong_value_is_refused(place: str, field: str, value: Any):
    name = field.rpartition(".")[2]
    refuse(
        put(place, field, value),
        "of the type text" if (place, name, value) == ("top", "mediaType", "text") else name,
    )


@pytest.mark.parametrize(
    ("place", "field", "value"), [case for case in CASES if is_allowed(case[1], case[2])], ids=repr
)
def test_an_empty_value_is_taken_where_the_field_may_be_left_out(place: str, field: str, value: Any):
    assert parse(put(place, field, value), None).media_type in {OCI_MANIFEST, OCI_INDEX}


@pytest.mark.parametrize("key", ["schemaVersion", "config", "layers"])
def test_an_image_without_a_required_field_is_refused(key: str):
    refuse(without(IMAGE, key), key)


@pytest.mark.parametrize("key", ["schemaVersion", "manifests"])
def test_an_index_without_a_required_field_is_refused(key: str):
    refuse(without(INDEX, key), key)


@pytest.mark.parametrize("key", ["mediaType", "digest", "size"])
def test_a_descriptor_without_a_required_field_is_refused_and_the_place_is_named(key: str):
    refuse({**IMAGE, "layers": [LAYER, without(LAYER, key)]}, rf"layers\[1\]\.{key}")


@pytest.mark.parametrize("size", [2**63, 10**40, -(2**63)])
def test_a_size_that_no_content_has_is_refused(size: int):
    refuse({**IMAGE, "layers": [{**LAYER, "size": size}]}, "not a number of bytes")


@pytest.mark.parametrize("digest", ["md5:" + "0" * 32, "sha256:" + "0" * 63, "sha256:" + "\0" * 64])
def test_a_digest_that_is_none_is_refused_and_the_place_is_named(digest: str):
    refuse({**IMAGE, "config": {**CONFIG, "digest": digest}}, r"config\.digest")


# --- what databases and encoders cannot hold ----------------------------------------------------------------


@pytest.mark.parametrize("bad", ["a\0b", "a\ud800", "\udfffa", "a" * 256, "a b\n", "\N{SNOWMAN}"])
@pytest.mark.parametrize("own_type", [None, "application/x"])
@pytest.mark.parametrize("field", ["config.mediaType", "layers.mediaType", "artifactType", "mediaType"])
def test_a_type_that_is_no_printable_text_is_refused(field: str, own_type: str | None, bad: str):
    document = IMAGE if own_type is None else {**IMAGE, "artifactType": own_type}
    place, _, name = field.rpartition(".")
    if not place:
        document = {**document, name: bad}
    elif place == "layers":
        document = {**document, "layers": [{**LAYER, name: bad}]}
    else:
        document = {**document, place: {**CONFIG, name: bad}}
    refuse(document, "is not a media type")


@pytest.mark.parametrize("bad", ["a\0b", "\0", "\ud800", "x\udc00y"])
@pytest.mark.parametrize("as_key", [True, False])
@pytest.mark.parametrize("place", ["top", "layer"])
def test_annotations_that_no_database_holds_are_refused(place: str, as_key: bool, bad: str):
    annotations = {bad: "value"} if as_key else {"key": bad}
    if place == "top":
        refuse({**IMAGE, "annotations": annotations}, "annotations hold a NUL or half of a surrogate pair")
    else:
        refuse({**IMAGE, "layers": [{**LAYER, "annotations": annotations}]}, r"layers\[0\]\.annotations hold")


def test_annotations_may_hold_whole_surrogate_pairs():
    payload = json.dumps({**IMAGE, "annotations": {"a": "\N{SPOUTING WHALE}"}})
    assert "\\ud83d\\udc33" in payload
    assert parse_manifest(payload.encode()).annotations == {"a": "\N{SPOUTING WHALE}"}


# --- embedded data ------------------------------------------------------------------------------------------


def test_embedded_content_of_the_right_digest_and_size_is_taken():
    config = {**CONFIG, "data": base64.b64encode(b"{}").decode()}
    assert parse({**IMAGE, "config": config}).config is not None


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (base64.b64encode(b"[]").decode(), 2),
        (base64.b64encode(b"{}").decode(), 3),
        ("e30", 2),
        ("e3 0=", 2),
        ("e30=\n", 2),
        ("é30=", 2),
        ("", 0),
    ],
)
def test_embedded_content_that_is_another_one_is_refused(data: str, size: int):
    refuse({**IMAGE, "config": {**CONFIG, "data": data, "size": size}}, r"config\.data is not the content")


# --- properties ---------------------------------------------------------------------------------------------

values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from([2, DIGEST, OCI_MANIFEST, OCI_INDEX, FOREIGN, "application/x", CONFIG, LAYER, CHILD]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    [
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "manifests",
        "subject",
        "annotations",
        "fsLayers",
        "digest",
        "size",
        "urls",
        "data",
        "platform",
    ]
)


@given(
    st.sampled_from([IMAGE, INDEX]),
    st.dictionaries(keys, values, max_size=3),
    st.none() | st.sampled_from([OCI_MANIFEST, DOCKER_LIST, "application/json"]) | st.text(max_size=20),
)
@settings(max_examples=500, deadline=None)
def test_any_change_of_a_manifest_is_taken_or_an_error_of_this_package(
    document: dict[str, Any], changes: dict[str, Any], content_type: str | None
):
    try:
        manifest = parse({**document, **changes}, content_type)
    except OciError as error:
        str(error).encode()
        return
    columns = [
        manifest.media_type,
        manifest.artifact_type,
        *manifest.annotations,
        *manifest.annotations.values(),
        *(one.media_type for one in (*manifest.layers, *manifest.children)),
        manifest.config.media_type if manifest.config else None,
    ]
    assert not any("\0" in text for text in columns if text)
    for text in columns:
        (text or "").encode()
    assert 0 <= manifest.size < 2**63
    for blob in manifest.blobs:
        assert 0 <= blob.size < 2**63


@given(st.sampled_from([IMAGE, INDEX]), st.data())
@settings(max_examples=300, deadline=None)
def test_any_change_of_a_descriptor_is_taken_or_an_error_of_this_package(
    document: dict[str, Any], data: st.DataObject
):
    one = {**CONFIG, **data.draw(st.dictionaries(keys, values, max_size=3))}
    place = data.draw(st.sampled_from(["config", "layers", "manifests", "subject"]))
    try:
        parse({**document, place: [one] if place in {"layers", "manifests"} else one})
    except OciError as error:
        str(error).encode()


@given(
    st.binary(max_size=200)
    | st.integers(0, len(json.dumps(IMAGE))).flatmap(
        lambda place: st.binary(max_size=3).map(
            lambda junk: (
                json.dumps(IMAGE).encode()[:place] + junk + json.dumps(IMAGE).encode()[place + len(junk) :]
            )
        )
    )
)
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_a_manifest_or_an_error_of_this_package(payload: bytes):
    try:
        parse_manifest(payload)
    except OciError as error:
        str(error).encode()


def test_of_what_an_index_names_only_images_are_platforms():
    def child(number: int, **more: object) -> dict[str, object]:
        digest = f"sha256:{number:064x}"
        return {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1, **more}

    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            child(1, platform={"os": "linux", "architecture": "amd64"}),
            child(1, platform={"os": "linux", "architecture": "amd64", "variant": "v2"}),
            child(2),
            child(3, platform={"os": "unknown", "architecture": "unknown"}, annotations={"about": "1"}),
            child(4, artifactType="application/spdx+json"),
        ],
    }
    found = parse_manifest(json.dumps(document).encode())
    assert found.platforms == 2
    assert [one.is_image for one in found.children] == [True, True, True, False, False]
    assert found.children[3].annotations == {"about": "1"}
