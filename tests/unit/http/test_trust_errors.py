"""What errors are on the wire of the notary protocol: notary-v1, section 2.4."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtr.db import DatabaseBusy, DatabaseFull, DatabaseUnavailable
from dtr.http.trust.errors import Refused, body_of, refusal, rejected
from dtr.http.trust.routes import clean, find_route
from dtr.signer import AlgorithmUnsupported, KeyUnknown, SignerFailed, SignerUnavailable
from dtr.trust import CannotSign, FileUnknown, RepositoryGone, VersionConflict
from dtr.tuf import Malformed, RuleBroken, StoredBroken

ERRORS = (
    (Malformed("x"), (400, "MALFORMED_JSON"), (400, "MALFORMED_JSON")),
    (RuleBroken("ErrBadRoot", "x"), (400, "INVALID_UPDATE"), None),
    (VersionConflict("targets"), (400, "VERSION"), None),
    (StoredBroken("x"), (400, "INVALID_UPDATE"), (500, "UNKNOWN")),
    (CannotSign("x"), (400, "INVALID_UPDATE"), (500, "UNKNOWN")),
    (RepositoryGone("h/a/b"), (400, "INVALID_GUN"), (404, "METADATA_NOT_FOUND")),
    (FileUnknown("root"), None, (404, "METADATA_NOT_FOUND")),
    (SignerUnavailable("x"), (400, "INVALID_UPDATE"), (500, "UNKNOWN")),
    (SignerFailed("x"), (400, "INVALID_UPDATE"), (500, "UNKNOWN")),
    (KeyUnknown("x"), (400, "INVALID_UPDATE"), (500, "UNKNOWN")),
    (AlgorithmUnsupported("x"), (400, "INVALID_UPDATE"), (500, "UNKNOWN")),
    (DatabaseFull("x"), (500, "UPDATING"), (500, "UNKNOWN")),
    (DatabaseBusy("x"), (500, "UPDATING"), (500, "UNKNOWN")),
    (DatabaseUnavailable("x"), (500, "UPDATING"), (500, "UNKNOWN")),
)


@pytest.mark.parametrize(("error", "of_update", "of_others"), ERRORS, ids=lambda one: type(one).__name__)
def test_the_table(error: Exception, of_update: tuple[int, str] | None, of_others: tuple[int, str] | None) -> None:
    for operation, expected in (("UpdateTUF", of_update), ("GetRole", of_others), ("GetKey", of_others)):
        if expected is not None:
            found = refusal(error, operation)  # type: ignore[arg-type]
            assert found is not None
            assert (found.status, found.code) == expected


def test_what_is_not_in_the_table_is_not_told() -> None:
    assert refusal(RuntimeError("secret"), "GetRole") is None
    for error in (DatabaseUnavailable("secret"), SignerUnavailable("secret"), StoredBroken("secret")):
        for operation in ("GetRole", "UpdateTUF"):
            found = refusal(error, operation)
            assert found is not None
            assert b"secret" not in body_of(found)


def test_the_details_of_validation() -> None:
    for error, expected in (
        (RuleBroken("ErrBadTargets", "no"), {"Name": "ErrBadTargets", "Error": {"Msg": "no"}}),
        (
            RuleBroken("ErrBadHierarchy", "no", "snapshot"),
            {"Name": "ErrBadHierarchy", "Error": {"Missing": "snapshot", "Msg": "no"}},
        ),
    ):
        found = refusal(error, "UpdateTUF")
        assert found is not None
        assert json.loads(body_of(found))["errors"][0]["detail"] == expected
    broken = refusal(StoredBroken("x"), "UpdateTUF")
    assert broken is not None
    assert "detail" not in json.loads(body_of(broken))["errors"][0]


texts = st.text(max_size=2000) | st.sampled_from(["\x00" * 900, "é" * 900, '"' * 900, "😀" * 400, "\ud800"])
details = st.recursive(
    st.none() | st.text(st.characters(codec="utf-8"), max_size=600), lambda inner: st.lists(inner, max_size=4)
)


@given(message=texts, detail=details)
def test_clients_read_all_of_an_error(message: str, detail: Any) -> None:
    for refused in (Refused(400, "INVALID_ROLE", message, detail), rejected("INVALID_GUN", message)):
        body = body_of(refused)
        assert len(body) < 1024
        (error,) = json.loads(body)["errors"]
        assert error["code"] == refused.code
        if refused.code == "INVALID_GUN":
            assert error["detail"]["Name"] == "ErrValidation"


@given(st.text(max_size=60), st.sampled_from(["GET", "POST", "DELETE", "HEAD"]))
def test_a_route_is_found_or_not(tail: str, method: str) -> None:
    route = find_route(method, f"/v2/h/a/b/_trust/tuf/{tail}")
    assert route is None or route.gun


def test_the_table_is_read_from_above() -> None:
    digest = "a" * 64
    for path, operation, gun, arguments in (
        (f"targets/x.{digest}.json", "GetRoleByHash", "h:1/a/b", {"role": "targets/x", "hash": digest}),
        ("7.targets/x.json", "GetRoleByVersion", "h:1/a/b", {"version": "7", "role": "targets/x"}),
        ("targets/7.root.json", "GetRole", "h:1/a/b", {"role": "targets/7.root"}),
        ("root.json", "GetRole", "h:1/a/b", {"role": "root"}),
        ("x/_trust/tuf/root.json", "GetRole", "h:1/a/b/_trust/tuf/x", {"role": "root"}),
    ):
        found = find_route("GET", f"/v2/h:1/a/b/_trust/tuf/{path}")
        assert found is not None
        assert (found.operation, found.gun, found.arguments) == (operation, gun, arguments)
    assert find_route("GET", "/v2/_trust/changefeed").operation == "GlobalChangefeed"  # type: ignore[union-attr]
    assert find_route("GET", "/v2/a*b/_trust/tuf/root.json") is None


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b"]), max_size=8), st.booleans())
def test_a_clean_path_is_clean(parts: list[str], ends: bool) -> None:
    path = "/" + "/".join(parts) + ("/" if ends else "")
    found = clean(path)
    assert clean(found) == found
    assert "//" not in found
    assert not {".", ".."} & set(found.split("/"))
    assert found.startswith("/")
