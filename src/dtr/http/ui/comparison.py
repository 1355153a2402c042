"""
What is different between two images: rules without I/O, on the records of the API.

Layers that both have at the bottom, in the same order, are their common base. What of the others both have, too,
needs no second download.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dtr.http.api.manifests import ContainerRecord, DockerfileLine, ManifestDetail


class Difference(Struct, frozen=True):
    """A value that is not the same; None: it is missing there."""

    name: str
    left: str | None
    right: str | None


class Layer(Struct, frozen=True):
    """A layer of one side; `size` in bytes."""

    line: str
    digest: str
    size: int
    is_shared: bool
    """The other side has it, too."""


class Comparison(Struct, frozen=True, kw_only=True):
    """Two images, left and right."""

    base: int
    """So many layers are at the bottom of both."""
    base_size: int
    left: tuple[Layer, ...]
    """The layers above the base."""
    right: tuple[Layer, ...]
    left_size: int
    right_size: int
    download: int
    """Bytes of layers that who has the left one has not of the right one."""
    environment: tuple[Difference, ...] = ()
    labels: tuple[Difference, ...] = ()
    settings: tuple[Difference, ...] = field(default=())
    """Names are those of the record's fields."""

    @property
    def is_same(self) -> bool:
        """Whether the two are made of the same layers and run alike."""
        return not (self.left or self.right or self.environment or self.labels or self.settings)


def compare(left: ManifestDetail, right: ManifestDetail) -> Comparison:
    """What is different between two images."""
    layers = [_layers(one.manifest.dockerfile or ()) for one in (left, right)]
    base = 0
    for one, other in zip(*layers, strict=False):
        if one.layer_digest != other.layer_digest:
            break
        base += 1
    known = [{one.layer_digest for one in side} for side in layers]
    first, second = (
        tuple(
            Layer(one.line, one.layer_digest, one.size, one.layer_digest in known[1 - number])
            for one in side[base:]
        )
        for number, side in enumerate(layers)
    )
    missing = {one.layer_digest: one.size for one in layers[1] if one.layer_digest not in known[0]}
    return Comparison(
        base=base,
        base_size=sum(one.size for one in layers[0][:base]),
        left=first,
        right=second,
        left_size=left.manifest.size,
        right_size=right.manifest.size,
        download=sum(missing.values()),
        environment=_differences(_environment(left.container), _environment(right.container)),
        labels=_differences(left.manifest.labels, right.manifest.labels),
        settings=_differences(_settings(left.container), _settings(right.container)),
    )


def _layers(lines: Iterable[DockerfileLine]) -> list[DockerfileLine]:
    return [one for one in lines if one.layer_digest]


def _environment(container: ContainerRecord | None) -> dict[str, str]:
    found = {}
    for one in container.env if container else ():
        name, _, value = one.partition("=")
        found[name] = value
    return found


def _settings(container: ContainerRecord | None) -> dict[str, str]:
    if container is None:
        return {}
    given = {
        "entrypoint": " ".join(container.entrypoint),
        "cmd": " ".join(container.cmd),
        "user": container.user,
        "working_dir": container.working_dir,
        "exposed_ports": ", ".join(container.exposed_ports),
        "volumes": ", ".join(container.volumes),
        "stop_signal": container.stop_signal,
        "shell": " ".join(container.shell),
    }
    return {name: value for name, value in given.items() if value}


def _differences(left: Mapping[str, str], right: Mapping[str, str]) -> tuple[Difference, ...]:
    return tuple(
        Difference(name, left.get(name), right.get(name))
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    )
