"""The reference says what is in the program, and nothing else."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import itertools
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from tests.docs.pages import DOCS, ROOT, codes_in, tables_of
from tests.support.client import Client
from tests.support.images import make_image
from tests.support.jobs import ENDS
from tests.support.server import Server
from tests.support.wire import wait_until

from dtr.accounts import Facts, Level, Operation, may
from dtr.db.schema import metadata
from dtr.http import v2
from dtr.http.api import errors as api_errors
from dtr.http.api.jobs import JobRecord
from dtr.http.trust import routes as trust_routes
from dtr.http.v2.request import route
from dtr.jobs import JobRequest, Status

REFERENCE = DOCS / "reference"
SOURCE = ROOT / "src" / "dtr"


# --- settings and commands ------------------------------------------------------------------------------------


def _generate() -> object:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["settings.md", "commands.md"])
def test_generated_pages_are_up_to_date(page: str) -> None:
    generate = _generate()
    made: Callable[[], str] = generate.PAGES[page]  # type: ignore[attr-defined]
    assert (REFERENCE / page).read_text() == made(), f"out of date: {generate.RENEW} writes it"  # type: ignore[attr-defined]


# --- HTTP API -------------------------------------------------------------------------------------------------


def _requests() -> set[tuple[str, str]]:
    """Method and path of each row that names a request."""
    rows = itertools.chain.from_iterable(tables_of(REFERENCE / "api.md"))
    return {(match[1], match[2]) for row in rows if (match := re.fullmatch(r"`([A-Z]+) (/\S*)`", row[0]))}


def _handlers() -> Mapping[str, Mapping[str, object]]:
    """Of the registry's API, by kind and method."""
    nothing: Any = SimpleNamespace(service="", upstreams=None)
    return v2.RegistryAPI(
        tokens=nothing,
        accounts=nothing,
        repositories=nothing,
        blobs=nothing,
        uploads=nothing,
        manifests=nothing,
        configs=nothing,
        pulls=nothing,
        cache=nothing,
        enforcement=nothing,
        storage=nothing,
        settings=nothing,
        options=nothing,
    )._handlers


def test_every_endpoint_of_the_registry_is_in_the_reference() -> None:
    served = {(method, kind) for kind, handlers in _handlers().items() for method in handlers}
    documented = {(method, route(path)[0]) for method, path in _requests() if path.startswith("/v2")}
    assert documented | {("HEAD", kind) for method, kind in documented if method == "GET"} == served


def test_every_endpoint_for_operators_is_answered(server: Server) -> None:
    client = Client(server)
    paths = [path for method, path in _requests() if method == "GET" and not path.startswith("/v2")]
    assert len(paths) >= 7
    for path in paths:
        answer = client.send("GET", path)
        if path == "/":  # who is not logged in does that first
            assert answer.expect(303).headers["location"].startswith("/login?")
        else:
            answer.expect(200)


_NO_CODES = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def _codes_in_the_program() -> set[str]:
    return {
        node.value
        for file in (SOURCE / "http").rglob("*.py")
        if not {"api", "trust", "ui"} & set(file.parts)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[A-Z]{3,}(_[A-Z]+)*", node.value)
    } - _NO_CODES


def _documented_codes() -> dict[str, set[str]]:
    """Statuses by code."""
    rows = next(table for table in tables_of(REFERENCE / "api.md") if table[0][0] == "`UNAUTHORIZED`")
    return {codes_in(row[0])[0]: set(row[1].split(", ")) for row in rows}


def test_every_error_code_is_in_the_reference() -> None:
    others = set(codes_in((REFERENCE / "api.md").read_text().partition("have codes of DTR's API")[2][:200]))
    assert _documented_codes().keys() | (others & _codes_in_the_program()) == _codes_in_the_program()


def test_every_request_and_error_of_the_notary_protocol_is_in_the_reference() -> None:
    requests, errors = tables_of(REFERENCE / "notary.md")
    names = {"TUF": "/v2/h/a/b/_trust/tuf", "COLLECTION": "h/a/b", "ROLE": "root", "HASH": "0" * 64, "NUMBER": "1"}
    found = set()
    for text in itertools.chain.from_iterable(codes_in(row[0]) for row in requests):
        method, path = re.sub("|".join(names), lambda match: names[match[0]], text).split()
        route_found = trust_routes.find_route(method, path)
        assert route_found is not None, text
        found.add(route_found.operation)
    assert found == set(get_args(trust_routes.Operation)) - {"Other"}
    codes = {
        node.value
        for node in ast.walk(ast.parse("".join(file.read_text() for file in (SOURCE / "http/trust").glob("*.py"))))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[A-Z]{2,}(_[A-Z]+)*", node.value)
    }
    assert {codes_in(row[0])[0] for row in errors} == codes - _NO_CODES - {"GUN", "ID"}


def test_every_status_of_the_error_table_is_in_the_reference() -> None:
    documented = _documented_codes()
    tree = ast.parse((SOURCE / "http/v2/errors.py").read_text())
    pairs = [
        (str(call.args[0].value), str(call.args[1].value))
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "Answer"
        and len(call.args) > 1
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[1], ast.Constant)
    ]
    assert len(pairs) > 15
    assert [pair for pair in pairs if pair[0] not in documented[pair[1]]] == []


def test_every_error_code_of_the_management_is_in_the_reference() -> None:
    rows = next(
        table for table in tables_of(REFERENCE / "api-v0.md") if any(row[0] == "`INVALID_JSON`" for row in table)
    )
    documented = {codes_in(row[0])[0]: row[1] for row in rows}
    assert documented == {code: str(status) for code, (status, _) in api_errors._CODES.items()}


def test_the_table_of_jobs_says_which_states_are_an_end() -> None:
    rows = next(
        table for table in tables_of(REFERENCE / "api-v0.md") if any(row[0] == "`waiting`" for row in table)
    )
    documented = {row[0].strip("`"): row[1] for row in rows}
    assert documented == {state: "yes" if state in ENDS else "no" for state in get_args(Status)}
    described = JobRecord.model_fields["status"].description or ""
    assert set(codes_in(described.partition(": it ended")[0])) == ENDS


# --- permissions ----------------------------------------------------------------------------------------------

_ROWS = {
    "none": Facts(is_user=True),
    "`read-only`": Facts(is_user=True, repository_level=Level.READ),
    "`read-write`": Facts(is_user=True, repository_level=Level.WRITE),
    "`admin` on a repository": Facts(is_user=True, repository_level=Level.ADMIN),
    "`admin` on a namespace, or owner": Facts(is_user=True, namespace_level=Level.ADMIN),
}
_COLUMNS = (
    (Operation.PULL, Operation.SEE_TAGS),
    (Operation.PUSH, Operation.DELETE_TAG, Operation.DELETE_MANIFEST),
    (Operation.CREATE_REPOSITORY, Operation.CREATE_ON_PUSH),
)


def test_the_table_of_levels_is_the_rule_of_the_program() -> None:
    rows = {row[0]: row[1:] for row in tables_of(REFERENCE / "permissions.md")[1]}
    assert rows.keys() == _ROWS.keys()
    for name, facts in _ROWS.items():
        for cell, operations in zip(rows[name], _COLUMNS, strict=True):
            assert {may(facts, operation) for operation in operations} == {cell == "yes"}, name


# --- metrics and logs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def used(server: Server) -> Client:
    """A server that has done a bit of everything."""
    server.make_repository("admin/app")
    client = Client(server)
    image = make_image(size=300_000)
    client.push("admin/app", image, "latest")
    client.assert_whole("admin/app", image)
    client.send("GET", "/v2/").expect(401)
    client.send("GET", f"/v2/{server.address}/admin/app/_trust/tuf/root.json").expect(401)
    server.do(lambda application: application.jobs.submit(JobRequest(action="false")))
    wait_until(lambda: b"dtr_job_seconds_count" in client.send("GET", "/metrics").body)
    return client


def test_every_metric_is_in_the_reference_with_its_type_and_labels(used: Client) -> None:
    def shown() -> dict[str, tuple[str, set[str]]]:
        text = used.send("GET", "/metrics").expect(200).body.decode()
        metrics: dict[str, tuple[str, set[str]]] = {}
        for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
            labels = re.findall(rf"^{name}(?:_bucket|_sum|_count)?(?:\{{(.*)\}})? ", text, re.MULTILINE)
            found = {label for one in labels for label in re.findall(r'(\w+)="', one)} - {"le", "pid"}
            metrics[name] = (kind, found)
        return metrics

    documented = {
        codes_in(row[0])[0]: (row[1], set(codes_in(row[2]))) for row in tables_of(REFERENCE / "metrics.md")[0]
    }
    with contextlib.suppress(AssertionError):  # each worker tells about once a second what it counted
        wait_until(lambda: shown() == documented)
    assert shown() == documented


def test_every_route_of_the_metrics_is_in_the_reference(used: Client) -> None:
    for path in ("/health", "/_ping", "/metrics", "/ca", "/login", "/auth/jwks.json"):
        used.send("GET", path).expect(200)
    documented = {code for row in tables_of(REFERENCE / "metrics.md")[1] for code in codes_in(row[0])}
    text = used.send("GET", "/metrics").expect(200).body.decode()
    assert set(re.findall(r'route="([^"]*)"', text)) <= documented
    assert set(_handlers()) <= documented


def _logged() -> dict[str, set[str]]:
    """The events in the program, and their fields."""
    found: dict[str, set[str]] = {}
    for file in SOURCE.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if not (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and isinstance(call.func.value, ast.Name)
                and call.func.value.id == "_log"
            ):
                continue
            event = next(
                one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)
            )
            fields = {
                key.value
                for keyword in call.keywords
                if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict)
                for key in keyword.value.keys
                if isinstance(key, ast.Constant)
            }
            if call.func.attr == "exception":
                fields.add("error")
            found[re.sub(r"%[ds]", "…", event)] = fields
    return found


def test_every_event_of_the_log_is_in_the_reference_with_its_fields() -> None:
    documented = {codes_in(row[0])[0]: set(codes_in(row[2])) for row in tables_of(REFERENCE / "logs.md")[2]}
    assert documented == _logged()


def test_every_field_of_a_request_in_the_log_is_in_the_reference(used: Client) -> None:
    every, request, _ = tables_of(REFERENCE / "logs.md")
    documented = {code for row in (*every, *request) for code in codes_in(row[0])} - {
        "error",
        "reason",
    }  # nothing failed

    def fields() -> set[str]:
        lines = [line for line in used.server.log.splitlines() if '"event":"request"' in line]
        return {field for line in lines for field in re.findall(r'[{,]"(\w+)":', line)}

    with contextlib.suppress(AssertionError):  # lines of requests are written together, after a moment
        wait_until(lambda: fields() == documented)
    assert fields() == documented


# --- tables ---------------------------------------------------------------------------------------------------


def test_every_table_of_the_database_is_explained() -> None:
    rows = itertools.chain.from_iterable(tables_of(DOCS / "explanation" / "data-layout.md"))
    explained = [code for row in rows for code in codes_in(row[0])]
    assert sorted(set(explained) & set(metadata.tables)) == sorted(metadata.tables)
