"""What people see of tags and manifests, of real images and of hostile ones."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.support.images import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    OCI_LAYER,
    Image,
    descriptor,
    make_artifact,
    make_built_image,
    make_image,
    make_index,
    make_tar,
)
from tests.support.rooms import Counter, Rooms

from dtr.oci import Digest, parse_manifest
from dtr.registry import ManifestUnknown
from dtr.registry.image_configs import ImageConfig, Runtime, Step, read_config
from dtr.registry.images import dockerfile_line

FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


CONFIG = {
    "os": "windows",
    "os.version": "10.0.17763.1",
    "architecture": "arm",
    "variant": "v7",
    "config": {"Labels": {"org.acme.team": "web", "empty": None}},
    "history": [
        {"created_by": "/bin/sh -c #(nop) ADD file:abc in / "},
        {"created_by": '/bin/sh -c #(nop)  CMD ["bash"]', "empty_layer": True},
        {"created_by": "/bin/sh -c apt-get update"},
    ],
}


# --- reading configs ------------------------------------------------------------------------------------------


def test_of_a_config_is_kept_what_is_shown():
    assert read_config(json.dumps(CONFIG).encode())[0] == ImageConfig(
        "windows",
        "10.0.17763.1",
        "arm",
        "v7",
        (
            Step("/bin/sh -c #(nop) ADD file:abc in / ", is_empty=False),
            Step('/bin/sh -c #(nop)  CMD ["bash"]', is_empty=True),
            Step("/bin/sh -c apt-get update", is_empty=False),
        ),
        {"org.acme.team": "web", "empty": ""},
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 1_000_000,
        b'{"os":' + b'{"a":' * 100_000,
        b'{"os": 7}',
        b'{"history": "none"}',
        b'{"config": {"Labels": ["a"]}}',
        b'{"os": null, "history": null, "config": null, "architecture": null}',
        b'{"os": "\\ud800"}',
    ],
)
def test_what_is_no_config_says_nothing(data: bytes):
    assert read_config(data) == (ImageConfig(), Runtime())


def test_of_too_much_a_part_is_kept():
    found, _ = read_config(
        json.dumps(
            {
                "os": "x" * 5000,
                "architecture": "a\0b",
                "history": [{"created_by": "y" * 10_000}] * 5_000,
                "config": {"Labels": {f"{n:05}": "z" * 10_000 for n in range(1_000)}},
            }
        ).encode()
    )
    assert (len(found.os), found.architecture) == (100, "ab")
    assert len(found.history) == 1_000
    assert sum(len(step.created_by) for step in found.history) <= 65_536
    assert 1 <= sum(len(name) + len(value) for name, value in found.labels.items()) <= 32_768


RUNTIME = {
    "created": "2026-01-02T03:04:05Z",
    "author": "Ada",
    "config": {
        "User": "1000:1000",
        "WorkingDir": "/srv",
        "StopSignal": "SIGINT",
        "Entrypoint": ["/bin/app"],
        "Cmd": ["serve", "--port=80"],
        "Shell": None,
        "Env": ["PATH=/bin", "EMPTY="],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Volumes": {"/data": {}},
    },
}


def test_of_how_containers_run_is_kept_what_is_shown():
    assert read_config(json.dumps(RUNTIME).encode())[1] == Runtime(
        created="2026-01-02T03:04:05Z",
        author="Ada",
        user="1000:1000",
        working_dir="/srv",
        stop_signal="SIGINT",
        entrypoint=("/bin/app",),
        cmd=("serve", "--port=80"),
        env=("PATH=/bin", "EMPTY="),
        ports=("53/udp", "80/tcp"),
        volumes=("/data",),
    )


@pytest.mark.parametrize(
    "config",
    [
        {"Env": "A=b", "Cmd": [7, None, ["x"]], "ExposedPorts": ["80"], "User": 7, "Volumes": None},
        {"Env": ["A=b"], "Cmd": {}, "Entrypoint": 4.5, "Shell": True},
    ],
)
def test_what_is_not_as_it_has_to_be_says_nothing_and_the_rest_does(config: dict[str, object]):
    image, found = read_config(json.dumps({"os": "linux", "created": 7, "config": config}).encode())
    assert (found.env, found.user, found.created, "".join(found.cmd)) == (("A=b",), "", "", "")
    assert image.os == "linux"


def test_of_too_much_of_how_containers_run_a_part_is_kept():
    many = [f"{n:05}=" + "x" * 5_000 for n in range(2_000)]
    volumes = {f"/{n}": {} for n in range(2_000)}
    _, found = read_config(json.dumps({"config": {"Env": many, "Volumes": volumes, "Cmd": [""] * 9_000}}).encode())
    assert 1 <= sum(map(len, (*found.env, *found.volumes))) <= 32_768
    assert len(found.cmd) <= 500


async def test_how_containers_of_an_image_run_is_read_once_and_only_where_its_config_is(rooms: Rooms):
    repository, other = await rooms.make_repository(), await rooms.make_repository("acme/other")
    image = make_built_image(RUNTIME | {"os": "linux", "architecture": "amd64"}, make_tar("a", b"a"))
    digest = await rooms.push(repository, image, "v1")
    found = await rooms.images.get_manifest(repository, digest)
    runtime = await rooms.images.get_runtime(found)
    assert runtime == read_config(image.blobs[0])[1]
    watched = Counter().watch(rooms.database)
    assert await rooms.images.get_runtime(found) == runtime
    assert (watched.reads, watched.units) == (1, 0)
    chart = make_built_image(b"{}", config=descriptor("application/vnd.cncf.helm.config.v1+json", b"{}"))
    await rooms.push(other, chart, "v1")
    assert await rooms.images.get_runtime((await rooms.images.get_tag(other, "v1")).manifest) is None


@pytest.mark.parametrize(
    ("created_by", "line"),
    [
        ('/bin/sh -c #(nop)  CMD ["bash"]', 'CMD ["bash"]'),
        ("/bin/sh -c #(nop) ADD file:abc in / ", "ADD file:abc in /"),
        ("/bin/sh -c apt-get update", "RUN apt-get update"),
        ("|1 VERSION=1.2 /bin/sh -c make $VERSION", "RUN make $VERSION"),
        ("RUN /bin/sh -c make install # buildkit", "RUN make install"),
        ("COPY a b /app/ # buildkit", "COPY a b /app/"),
        ("", ""),
        ("bazel build ...", "bazel build ..."),
    ],
)
def test_a_step_is_shown_as_the_instruction_behind_it(created_by: str, line: str):
    assert dockerfile_line(created_by) == line


# --- records --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inline_limit", [0, 65_536])
async def test_an_image_is_shown_with_its_system_labels_and_layers(make_rooms, inline_limit: int):
    rooms: Rooms = make_rooms("filesystem", inline_limit=inline_limit)
    repository = await rooms.make_repository()
    layers = (make_tar("a", b"a"), make_tar("b", b"bb"))
    image = make_built_image(CONFIG, *layers, docker=True, annotations={"note": "here"})
    digest = await rooms.push(repository, image, "latest", author="ada")
    tag = await rooms.images.get_tag(repository, "latest")
    manifest = tag.manifest
    assert (tag.name, tag.author, tag.pulls, tag.last_pulled_at) == ("latest", "ada", 0, None)
    assert tag.created_at == tag.updated_at
    assert (manifest.digest, manifest.kind, manifest.media_type) == (digest, "image", DOCKER_MANIFEST)
    assert (manifest.author, manifest.annotations, manifest.is_index) == ("ada", {"note": "here"}, False)
    assert manifest.size == sum(len(blob) for blob in image.blobs)
    assert manifest.config == read_config(image.blobs[0])[0]
    assert [(line.text, line.layer and line.layer.digest) for line in manifest.lines] == [
        ("ADD file:abc in /", Digest.of(layers[0])),
        ('CMD ["bash"]', None),
        ("RUN apt-get update", Digest.of(layers[1])),
    ]
    assert await rooms.images.list_tags(repository, limit=10) == [tag]
    assert await rooms.images.get_manifest(repository, digest) == manifest


async def test_layers_that_no_step_tells_of_come_last_and_foreign_ones_with_their_addresses(rooms: Rooms):
    repository = await rooms.make_repository()
    layer = make_tar("a", b"a")
    foreign = descriptor(FOREIGN, b"far away", urls=["https://example.com/layer"])
    data = json.dumps({"os": "windows", "history": [{"created_by": "base"}, {"created_by": "copy"}]}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor(DOCKER_CONFIG, data),
        "layers": [foreign, descriptor(OCI_LAYER, layer), descriptor(OCI_LAYER, layer)],
    }
    image = Image(json.dumps(manifest).encode(), DOCKER_MANIFEST, (data, layer))
    await rooms.push(repository, image, "latest")
    lines = (await rooms.images.get_tag(repository, "latest")).manifest.lines
    assert [line.text for line in lines] == ["base", "copy", ""]
    assert lines[0].layer is not None
    assert (lines[0].layer.media_type, lines[0].layer.urls) == (FOREIGN, ("https://example.com/layer",))


async def test_an_index_is_shown_as_one_record_and_as_a_record_for_each_system(make_rooms):
    rooms: Rooms = make_rooms(sparse_manifests=True)
    repository = await rooms.make_repository()
    here, missing = make_built_image({"os": "linux", "architecture": "amd64", "variant": "v3"}), make_image()
    index = make_index(here, missing)
    await rooms.push(repository, here)
    await rooms.put(repository, index, "multi")
    found = (await rooms.images.get_tag(repository, "multi")).manifest
    assert (found.kind, found.is_index, found.size) == ("index", True, len(here.blobs[0]))
    systems = [("linux", "amd64"), ("linux", "arm64")]
    assert [(one.os, one.architecture) for one in found.platforms] == systems
    first, second = await rooms.images.list_children(repository, found)
    assert [(one.config.os, one.config.architecture) for one in (first, second)] == systems
    assert (first.digest, first.config.variant, first.size) == (here.digest, "v3", len(here.blobs[0]))
    assert (second.digest, second.created_at, second.size) == (missing.digest, None, 0)


async def test_an_empty_index_is_its_own_only_child(rooms: Rooms):
    repository = await rooms.make_repository()
    await rooms.push(repository, make_index(), "nothing")
    found = (await rooms.images.get_tag(repository, "nothing")).manifest
    assert await rooms.images.list_children(repository, found) == [found]


async def test_artifacts_are_shown_as_what_they_are(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    chart = "application/vnd.cncf.helm.config.v1+json"
    made = {
        "image": image,
        "index": make_index(image),
        "sbom": make_artifact("application/spdx+json", b"{}", subject=image),
        "signature": make_artifact("application/vnd.cncf.notary.signature", b"sig", subject=image),
        "chart": make_built_image(b"{}", config=descriptor(chart, b"{}")),
        "model": make_artifact("application/vnd.acme.model", b"weights"),
    }
    for name, one in made.items():
        await rooms.push(repository, one, name)
    found = {tag.name: tag.manifest.kind for tag in await rooms.images.list_tags(repository, limit=100)}
    assert found == {
        "image": "image",
        "index": "index",
        "sbom": "sbom",
        "signature": "signature",
        "chart": "helm chart",
        "model": "artifact",
    }


async def test_tags_and_manifests_come_in_pages_that_begin_with_their_start(rooms: Rooms):
    repository = await rooms.make_repository()
    names = ["A", "a", "b", "v1", "v1.0", "v2"]
    digests = sorted([str(await rooms.push(repository, make_image(), name)) for name in names])
    page = await rooms.images.list_tags(repository, start="a", limit=3)
    assert [tag.name for tag in page] == ["a", "b", "v1"]
    assert [tag.name for tag in await rooms.images.list_tags(repository, start="aa", limit=9)] == names[2:]
    assert await rooms.images.count_tags(repository) == 6
    found = await rooms.images.list_manifests(repository, start=digests[2], limit=2)
    assert [one.digest for one in found] == digests[2:4]
    assert await rooms.images.count_manifests(repository) == 6


async def test_a_digest_has_the_tags_that_name_it(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_image()
    digest = await rooms.push(repository, image, "b", "a")
    untagged = await rooms.push(repository, make_image())
    assert [tag.name for tag in await rooms.images.list_tags_of(repository, digest)] == ["a", "b"]
    assert await rooms.images.list_tags_of(repository, untagged) == []
    for missing in (
        rooms.images.list_tags_of(repository, Digest.of(b"")),
        rooms.images.get_tag(repository, "c"),
        rooms.images.get_manifest(repository, Digest.of(b"")),
    ):
        with pytest.raises(ManifestUnknown):
            await missing


async def test_a_page_of_tags_takes_the_same_queries_however_long_it_is(rooms: Rooms):
    repository = await rooms.make_repository()
    for n in range(30):
        await rooms.push(repository, make_built_image({"os": "linux", "n": n}), f"v{n}")
        await rooms.push(repository, make_index(make_built_image({"os": "linux", "index": n})), f"w{n}")
    counter = Counter().watch(rooms.database)
    await rooms.images.list_tags(repository, limit=100)
    first = counter.seen
    assert first[0] <= 5
    assert first[1] <= 1
    await rooms.images.list_tags(repository, limit=100)
    assert counter.seen == (4, 0)  # the configs are known by now


async def test_a_large_manifest_shows_less_in_lists_only(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_built_image({"os": "linux"}, make_tar("a", b"a"), annotations={"note": "x" * 20_000})
    digest = await rooms.push(repository, image, "large")
    (listed,) = await rooms.images.list_tags(repository, limit=1)
    single = await rooms.images.get_manifest(repository, digest)
    assert (listed.manifest.lines, listed.manifest.config.os, listed.manifest.kind) == ((), "linux", "image")
    assert len(single.lines) == 1


async def test_of_a_large_manifest_that_many_tags_name_each_tag_shows_less(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_built_image({"os": "linux"}, make_tar("a", b"a"), annotations={"note": "x" * 20_000})
    digest = await rooms.push(repository, image, "a")
    (alone,) = await rooms.images.list_tags_of(repository, digest)
    assert (len(alone.manifest.lines), len(alone.manifest.annotations["note"])) == (1, 20_000)
    await rooms.push(repository, image, "b")
    for one in await rooms.images.list_tags_of(repository, digest):
        assert (one.manifest.lines, one.manifest.annotations) == ((), {})


async def test_lists_leave_out_the_longest_annotations_when_they_are_too_much(rooms: Rooms):
    repository = await rooms.make_repository()
    subject = make_image()
    notes = {"a": "é" * 1000, "b": "x" * 4_000_000, "c": "short", "d": "y" * 12_000}
    await rooms.push(repository, subject, "image")
    noted = make_artifact("application/x-notes", subject=subject, annotations=notes)
    await rooms.push(repository, noted, "notes")
    kept = {"a": notes["a"], "c": "short"}
    (referrer,) = await rooms.manifests.list_referrers(repository, subject.digest, limit=2)
    (listed,) = await rooms.images.list_named(repository, ["notes"])
    assert referrer.annotations == listed.manifest.annotations == kept
    assert (await rooms.images.get_tag(repository, "notes")).manifest.annotations == notes
    await rooms.push(repository, make_artifact("application/x-long", annotations={"b": notes["b"]}), "long")
    (listed,) = await rooms.images.list_named(repository, ["long"])
    assert listed.manifest.annotations == {}


# --- configs --------------------------------------------------------------------------------------------------


async def test_a_config_that_another_repository_holds_tells_nothing_to_one_that_only_names_it(make_rooms):
    rooms: Rooms = make_rooms(sparse_manifests=True)
    secret, curious = await rooms.make_repository("acme/secret"), await rooms.make_repository("acme/curious")
    image = make_built_image({"os": "plan9", "config": {"Labels": {"password": "x"}}})
    await rooms.push(secret, image, "latest")
    await rooms.put(curious, image, "latest")
    assert (await rooms.images.get_tag(secret, "latest")).manifest.config.os == "plan9"
    assert (await rooms.images.get_tag(curious, "latest")).manifest.config == ImageConfig()


async def test_hostile_and_missing_configs_harm_nobody(make_rooms):
    rooms: Rooms = make_rooms("filesystem")
    repository = await rooms.make_repository()
    hostile = {
        "no-json": make_built_image(b"[" * 100_000),
        "too-large": make_built_image(b'{"os":"linux","x":"' + b"x" * 4 * 1024 * 1024 + b'"}'),
        "good": make_built_image({"os": "linux"}),
        "lost": make_built_image({"os": "lost"}),
    }
    for name, image in hostile.items():
        await rooms.push(repository, image, name)
    lost = await rooms.blobs.get("acme/app", Digest.of(hostile["lost"].blobs[0]))
    await rooms.storage.delete(lost.location)
    found = {tag.name: tag.manifest.config.os for tag in await rooms.images.list_tags(repository, limit=9)}
    assert found == {"good": "linux", "lost": "", "no-json": "", "too-large": ""}
    assert await rooms.count("image_configs") == 2  # what was read, whatever it said


async def test_a_config_is_read_once_and_goes_with_its_blob(rooms: Rooms):
    repository = await rooms.make_repository()
    image = make_built_image({"os": "linux"})
    digest = await rooms.push(repository, image, "latest")
    config = Digest.of(image.blobs[0])
    hosts = [rooms, rooms.another(), rooms.another()]
    many = await asyncio.gather(*(hosts[n % 3].image_configs.get_many([config]) for n in range(9)))
    assert all(one == {config: ImageConfig("linux")} for one in many)
    assert await rooms.count("image_configs") == 1
    counter = Counter().watch(rooms.database)
    await rooms.image_configs.get_many([config])
    assert counter.seen == (1, 0)
    await rooms.manifests.delete(repository, digest)
    await rooms.blobs.delete(repository, config)
    assert await rooms.count("image_configs") == 0
    assert await rooms.image_configs.get_many([config]) == {}


async def test_what_was_noted_after_a_push_is_read_in_the_background(rooms: Rooms):
    repository = await rooms.make_repository()
    images = [make_built_image({"os": "linux", "n": n}) for n in range(60)]
    for image in images:
        await rooms.push(repository, image)
        config = parse_manifest(image.payload, image.media_type).config
        assert config is not None
        rooms.image_configs.note(config.digest)
    async with asyncio.timeout(60):
        while await rooms.count("image_configs") < 60:
            await asyncio.sleep(0.05)
