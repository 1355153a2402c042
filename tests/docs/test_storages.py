"""The pages on moving blobs, and on what a configuration of Docker's registry may say."""

from __future__ import annotations

from pathlib import Path

from tests.docs.pages import DOCS, codes_in, follow, tables_of
from tests.support.ports import free_port

from dtr.backends import distribution

PAGE = DOCS / "reference" / "registry-configuration.md"


def test_every_name_of_every_driver_is_in_the_reference() -> None:
    documented = {row[0].strip("`"): [set(codes_in(cell)) for cell in row[1:]] for row in tables_of(PAGE)[1]}
    assert documented == {
        name: [{*form.names, *form.extra}, form.own, set(form.harmless)]
        for name, form in distribution._FORMS.items()
    }


def test_every_section_that_is_for_another_program_is_in_the_reference() -> None:
    said = set(codes_in(PAGE.read_text().rpartition("## What is refused")[2]))
    assert said >= distribution._HARMLESS | distribution._MISSED.keys()


def test_the_page_on_moving_blobs_works(tmp_path: Path) -> None:
    port = free_port()
    follow(
        DOCS / "how-to" / "move-storage.md",
        tmp_path,
        environment={
            "DTR_HTTPS_ADDRESS": f"127.0.0.1:{port}",
            "DTR_WORKERS": "1",
            "DTR_ADMIN_PASSWORD": "a password",
        },
        replaced={
            "/var/lib/dtr": f"{tmp_path}/dtr",
            "/srv/": f"{tmp_path}/srv/",
            "registry.example.org": f"localhost:{port}",
        },
        answers=["a password"],
    )
