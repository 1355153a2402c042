"""What is different between two images."""

from __future__ import annotations

from typing import Any

from dtr.http.api.manifests import ContainerRecord, DockerfileLine, ManifestDetail, ManifestView
from dtr.http.api.models import NEVER
from dtr.http.ui.comparison import Difference, compare


def image(*layers: tuple[str, int], labels: dict[str, str] | None = None, **container: Any) -> ManifestDetail:
    """An image of layers (digest and size; no digest: none)."""
    lines = [
        DockerfileLine(line=f"RUN {digest}", layer_digest=digest, size=size, is_empty=not digest)
        for digest, size in layers
    ]
    manifest = ManifestView(
        digest="sha256:" + "0" * 64,
        media_type="application/vnd.oci.image.manifest.v1+json",
        type="image",
        os="linux",
        os_version="",
        architecture="amd64",
        variant="",
        size=sum(size for _, size in layers),
        author="",
        created_at=NEVER,
        annotations={},
        labels=labels or {},
        dockerfile=lines,
        pulls=0,
        last_pulled_at=NEVER,
    )
    empty: dict[str, Any] = dict.fromkeys(("created", "author", "user", "working_dir", "stop_signal"), "")
    empty |= {name: [] for name in ("entrypoint", "cmd", "shell", "env", "exposed_ports", "volumes")}
    return ManifestDetail(
        manifest=manifest, tags=[], tag_count=0, container=ContainerRecord(**(empty | container))
    )


def test_layers_at_the_bottom_of_both_are_their_base():
    found = compare(image(("a", 10), ("", 0), ("b", 5), ("c", 1)), image(("a", 10), ("b", 5), ("d", 7), ("e", 2)))
    assert (found.base, found.base_size) == (2, 15)
    assert [one.digest for one in found.left] == ["c"]
    assert [one.digest for one in found.right] == ["d", "e"]
    assert (found.left_size, found.right_size, found.download) == (16, 24, 9)
    assert not found.is_same


def test_layers_of_both_in_other_places_are_not_downloaded_again():
    found = compare(image(("a", 10), ("b", 5)), image(("b", 5), ("a", 10), ("n", 3), ("n", 3)))
    assert (found.base, found.download) == (0, 3)
    assert [one.is_shared for one in found.right] == [True, True, False, False]
    assert [one.is_shared for one in found.left] == [True, True]


def test_of_two_that_are_alike_nothing_is_different():
    one = image(("a", 1), env=["A=b"], labels={"x": "y"})
    assert compare(one, one).is_same
    assert compare(image(), image()).is_same


def test_what_is_set_otherwise_is_told_from_what_is_not_set():
    left = image(env=["A=1", "B=", "SAME=s", "C"], labels={"x": "1"}, cmd=["serve", "-v"], user="0")
    right = image(
        env=["A=2", "SAME=s", "D=4"], labels={"x": "1", "y": ""}, cmd=["serve"], exposed_ports=["80/tcp"]
    )
    found = compare(left, right)
    assert found.environment == (
        Difference("A", "1", "2"),
        Difference("B", "", None),
        Difference("C", "", None),
        Difference("D", None, "4"),
    )
    assert found.labels == (Difference("y", None, ""),)
    assert found.settings == (
        Difference("cmd", "serve -v", "serve"),
        Difference("exposed_ports", None, "80/tcp"),
        Difference("user", "0", None),
    )


def test_what_has_no_configuration_can_be_compared():
    bare = ManifestDetail(manifest=image(("a", 1)).manifest, tags=[], tag_count=0)
    assert compare(bare, image(("a", 1), user="1")).settings == (Difference("user", None, "1"),)
