"""The page on events says what the program writes down, and the page on audits works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from tests.docs.pages import DOCS, codes_in, follow, tables_of
from tests.support.client import Client
from tests.support.images import make_image
from tests.support.ports import free_port
from tests.support.server import PASSWORD, Server

from dtr.events import ActorType, EventType, Kind
from dtr.http.api.events import EventRecord, ObjectRecord
from dtr.settings import Values

PAGE = DOCS / "reference" / "events.md"
FIELDS, TYPES, OBJECTS, _, RETENTION = tables_of(PAGE)


def test_the_record_is_documented_field_by_field():
    documented = [codes_in(row[0])[0] for row in FIELDS]
    assert documented == [field.alias or name for name, field in EventRecord.model_fields.items()]
    parts = {code for row in FIELDS if row[0] == "`object`" for code in codes_in(row[1])}
    assert parts == set(ObjectRecord.model_fields)
    actors = {code for row in FIELDS if row[0] == "`actorType`" for code in codes_in(row[1])}
    assert actors == set(get_args(ActorType))


def test_types_and_objects_are_documented():
    assert {codes_in(row[0])[0] for row in TYPES} == set(get_args(EventType))
    assert [codes_in(row[0])[0] for row in OBJECTS] == list(get_args(Kind))
    assert {code for row in OBJECTS for code in codes_in(row[1])} <= set(get_args(EventType))


def test_settings_of_the_retention_are_there():
    names = {codes_in(row[0])[0] for row in RETENTION}
    assert names == {one for one in Values.__struct_encode_fields__ if one.startswith("repoEvent")}


def test_the_page_on_audits_works(tmp_path: Path, make_server: Callable[..., Server]) -> None:
    server = make_server()
    server.make_repository("admin/app")
    Client(server).push("admin/app", make_image(), "latest")
    follow(
        DOCS / "how-to" / "audit.md",
        tmp_path / "page",
        environment={"PASSWORD": PASSWORD},
        replaced={
            "/var/lib/dtr-2": f"{tmp_path}/dtr-2",
            "/var/lib/dtr": str(server.directory),
            "/etc/": f"{tmp_path}/etc/",
            "localhost:5443": server.address,
            "127.0.0.1:5444": f"127.0.0.1:{free_port()}",
            "127.0.0.1:6514": f"127.0.0.1:{free_port()}",
        },
    )
