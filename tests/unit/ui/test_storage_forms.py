"""Every parameter of every kind of storage has its field, with the default that it has."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from dtr.http.ui.system.drivers import KINDS, Field, shown_parameters
from dtr.storage.definitions import KINDS as THEIRS

FIELDS = [(name, field) for name, kind in KINDS.items() for field in kind.all]


def test_every_kind_has_a_form_but_the_one_for_tests():
    assert KINDS.keys() == THEIRS.keys() - {"memory"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_field(kind: str):
    names = [field.name for field in KINDS[kind].all]
    assert sorted(names) == sorted(THEIRS[kind].model_fields)


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=[f"{kind}.{field.name}" for kind, field in FIELDS])
def test_a_field_is_asked_for_as_what_it_is(kind: str, field: Field):
    theirs = THEIRS[kind].model_fields[field.name]
    is_secret = SecretStr in getattr(theirs.annotation, "__args__", ())
    assert is_secret == (field.kind in {"secret", "document"})
    assert (theirs.default or None) == (field.default or None)
    assert (field.kind == "switch") == (theirs.annotation is bool)


def test_what_is_shown_is_never_a_secret():
    shown = shown_parameters(KINDS["s3"], {"bucket": "b", "secret_key": "********", "part_size": 8 * 1024**2})
    assert (shown["bucket"], shown["secret_key"], shown["part_size"]) == ("b", "", "8")
    assert (shown["region"], shown["verify"], shown["encrypt"]) == ("us-east-1", True, False)
