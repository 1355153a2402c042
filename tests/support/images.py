"""Builders of images: small, but whole and valid."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
EMPTY = b"{}"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """``algorithm:hex`` of the bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    """A descriptor of the bytes."""
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


@dataclass(frozen=True)
class Image:
    """A manifest and the blobs that it names."""

    payload: bytes
    media_type: str
    blobs: tuple[bytes, ...] = ()
    children: tuple[Image, ...] = field(default=())

    @property
    def digest(self) -> str:
        return digest_of(self.payload)

    @property
    def descriptor(self) -> dict[str, Any]:
        return descriptor(self.media_type, self.payload)


def make_tar(name: str, content: bytes) -> bytes:
    """A tar archive with one file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.mode = 0o755
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def make_image(
    *, layers: int = 1, size: int = 100, docker: bool = False, subject: Image | None = None, **more: Any
) -> Image:
    """An image whose `layers` hold a random file of `size` bytes each; `more` goes into its manifest."""
    contents = tuple(make_tar(f"file{number}", os.urandom(size)) for number in range(layers))
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(one) for one in contents]},
        }
    ).encode()
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
        "config": descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, config),
        "layers": [descriptor(DOCKER_LAYER if docker else OCI_LAYER, one) for one in contents],
        **({"subject": subject.descriptor} if subject else {}),
        **more,
    }
    return Image(json.dumps(manifest).encode(), manifest["mediaType"], (config, *contents))


def make_built_image(
    config: dict[str, Any] | bytes, /, *layers: bytes, docker: bool = False, **more: Any
) -> Image:
    """An image with this config, and with `more` in its manifest."""
    data = config if isinstance(config, bytes) else json.dumps(config).encode()
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, data),
        "layers": [descriptor(OCI_LAYER, one) for one in layers],
        **more,
    }
    return Image(json.dumps(manifest).encode(), media_type, (data, *layers))


def make_artifact(artifact_type: str, content: bytes = b"", *, subject: Image | None = None, **more: Any) -> Image:
    """An artifact (SBOM, signature, chart, …) of one blob, with the empty config."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": descriptor("application/vnd.oci.empty.v1+json", EMPTY),
        "layers": [descriptor("application/octet-stream", content)],
        **({"subject": subject.descriptor} if subject else {}),
        **more,
    }
    return Image(json.dumps(manifest).encode(), OCI_MANIFEST, (EMPTY, content))


def make_index(*children: Image, docker: bool = False, **more: Any) -> Image:
    """An index (or Docker's list) of images, one a platform."""
    architectures = ("amd64", "arm64", "s390x", "ppc64le", "riscv64")
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_LIST if docker else OCI_INDEX,
        "manifests": [
            {
                **child.descriptor,
                "platform": {"os": "linux", "architecture": architectures[number % len(architectures)]},
            }
            for number, child in enumerate(children)
        ],
        **more,
    }
    return Image(json.dumps(manifest).encode(), manifest["mediaType"], children=children)


def write_layout(directory: Path, image: Image, tag: str) -> None:
    """Write an image with everything that it names as an OCI layout, in a new directory."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def write(one: Image) -> None:
        for content in (one.payload, *one.blobs):
            (blobs / hashlib.sha256(content).hexdigest()).write_bytes(content)
        for child in one.children:
            write(child)

    write(image)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entry = {**image.descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
