"""The log: always whole lines, never a secret."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dtr.http.front import Facts
from dtr.logs import access, configure, mask

pytestmark = pytest.mark.alone

SECRET = "hunter2-hunter2"
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.MEUCIQDx-_0"
TOKEN = "dtra_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"

Reader = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def _restored() -> Iterator[None]:
    """The log of the tests, as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    others = {name: logging.getLogger(name).level for name in ("botocore", "asyncio", "alembic", "sqlalchemy")}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, known in others.items():
        logging.getLogger(name).setLevel(known)


@pytest.fixture
def lines(_restored: None, capsys: pytest.CaptureFixture[str]) -> Reader:
    """A log in JSON; a function that gives the lines since the last call."""
    configure("info", "json")
    return lambda: [json.loads(line) for line in capsys.readouterr().err.split("\n")[:-1]]


@pytest.fixture
def texts(_restored: None, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """The same for a log for people."""
    configure("info", "console")
    return lambda: capsys.readouterr().err.split("\n")[:-1]


log = logging.getLogger("dtr.test")


def fail(*causes: str) -> None:
    try:
        if len(causes) > 1:
            fail(*causes[1:])
    except ValueError as error:
        raise ValueError(causes[0]) from error
    raise ValueError(causes[0])


# --- secrets ------------------------------------------------------------------------------------------------

SECRETS = [
    f"password={SECRET}",
    f"password: {SECRET}",
    f"Password = {SECRET}",
    f"PASSWORD={SECRET} next",
    f"DTR_ADMIN_PASSWORD={SECRET}",
    f"passwd={SECRET}",
    f"client_secret={SECRET}&grant_type=password",
    f"secret_key: '{SECRET}'",
    f"aws_secret_access_key = {SECRET}",
    f"refresh_token={SECRET}",
    f"token='{SECRET}'",
    f"api-key={SECRET}",
    f"x-api-key: {SECRET}",
    f'{{"password": "{SECRET}"}}',
    f'{{"password":"{SECRET} with spaces, commas & more"}}',
    f'{{"newPassword": "{SECRET}"}}',
    f"{{'password': '{SECRET} {SECRET}'}}",
    f'{{\\"password\\": \\"x {SECRET}\\"}}',
    f"Authorization: Basic {SECRET}",
    f"authorization: Bearer {SECRET}",
    f"Authorization: Digest {SECRET}",
    f"'Authorization': 'Basic {SECRET}'",
    f"[(b'host', b'x'), (b'authorization', b'Basic {SECRET}')]",
    f"[(b'cookie', b'session={SECRET}')]",
    f"Cookie: session={SECRET}",
    f"Basic {SECRET}",
    "Basic YTpi",
    f"bearer {SECRET}==",
    f"postgresql://user:{SECRET}@host/db",
    f"postgresql://user:x@{SECRET}@host/db",
    f"postgresql://:{SECRET}@host/db",
    f"https://ada:{SECRET}@registry:5000/v2/",
    f"https://s3/b/k?X-Amz-Signature={SECRET}&X-Amz-Expires=60",
    f"https://s3/b/k?X-Amz-Credential={SECRET}&a=b",
    JWT,
    f"token {JWT} is not valid",
    JWT.rpartition(".")[0] + ".",
    TOKEN,
    f"ada%3A{TOKEN}",
    f"x{TOKEN}",
    TOKEN.replace("dtra_", "dtrr_"),
    TOKEN.replace("dtra_", "dtrs_"),
    f"DETAIL: Failing row contains (ada, $argon2id$v=19$m=8,t=1,p=1${SECRET}${SECRET}).",
    f"-----BEGIN EC PRIVATE KEY-----\n{SECRET.replace('-', '')}\n-----END EC PRIVATE KEY-----",
    f"-----BEGIN PRIVATE KEY-----\n{SECRET.replace('-', '')}",
    f'{{"kty":"EC","d":"{SECRET}0123456789","x":"a"}}',
]
PARTS = [SECRET, SECRET.replace("-", ""), "MEUCIQDx", TOKEN[5:], "YTpi", JWT.split(".")[1]]


def assert_no_secret(text: str) -> None:
    for part in PARTS:
        assert part not in text


@pytest.mark.parametrize("text", [*SECRETS, f'{{"password": "a \\" {SECRET}"}}'])
def test_a_secret_is_masked_in_any_text(text: str):
    assert any(part in text for part in PARTS)
    masked = mask(text)
    assert_no_secret(masked)
    assert "********" in masked


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_masked_wherever_it_is_logged(lines: Reader, text: str):
    log.info(text.replace("%", "%%"))
    log.info("got %s", text)
    log.info("event", extra={"detail": text, "more": [text], "headers": {"x": text}})
    try:
        fail("outer", text)
    except ValueError:
        log.exception("failed")
    found = lines()
    assert len(found) == 4
    assert_no_secret(json.dumps(found, ensure_ascii=False))


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_masked_for_people_too(texts: Callable[[], list[str]], text: str):
    log.info("got %s", text, extra={"detail": text})
    try:
        fail(text, text)
    except ValueError:
        log.exception("failed")
    assert_no_secret("\n".join(texts()))


@pytest.mark.parametrize(
    "name", ["password", "new_password", "refresh_token", "Authorization", "cookie", "secret_key"]
)
def test_a_field_with_the_name_of_a_secret_is_masked_whatever_is_in_it(lines: Reader, name: str):
    for value in (SECRET, [SECRET], 4711, None):
        log.info("event", extra={name: value})
        assert lines()[0][name] == "********"


@pytest.mark.parametrize(
    "text",
    [
        "blob sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 is stored",
        "GET /v2/ada/hello/manifests/latest",
        "https://registry:5000/v2/",
        "the token has expired",
        "a password has 1 to 1024 characters",
        "worker 1 (process 17) ended with 0",
        "see https://example.org/a@b",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str):
    assert mask(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "eyJaaaaaa-",
        "token",
        "password=\\",
        "://a:",
        'token \\"',
        "Basic ",
        "'d':",
        'secret"',
        "a",
        "-----BEGIN ",
        "cookie', b",
        "\\",
        "key ",
        "$argon2",
    ],
)
def test_hostile_texts_are_masked_in_linear_time(piece: str):
    started = time.process_time()
    mask(piece * (200_000 // len(piece)))
    assert time.process_time() - started < 10


# --- lines --------------------------------------------------------------------------------------------------


def test_a_line_says_when_who_what_and_how_bad(lines: Reader):
    log.warning("blob %s is missing", "x", extra={"size": 3, "ratio": 0.5, "repository": "ada/hello", "empty": ""})
    (line,) = lines()
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "dtr.test",
        "event": "blob x is missing",
        "size": 3,
        "ratio": 0.5,
        "repository": "ada/hello",
    }


def test_an_error_brings_its_traceback_and_its_causes(lines: Reader):
    try:
        fail("outer", "inner")
    except ValueError:
        log.exception("failed")
    (line,) = lines()
    assert "ValueError: inner" in line["error"]
    assert line["error"].rstrip().endswith("ValueError: outer")


def test_what_is_below_the_level_is_not_written(lines: Reader):
    log.debug("detail")
    logging.getLogger("botocore").info("detail")
    logging.getLogger("asyncio").info("detail")
    assert lines() == []
    logging.getLogger("asyncio").warning("trouble")
    assert [line["event"] for line in lines()] == ["trouble"]


def test_a_field_does_not_take_the_place_of_what_every_line_has(lines: Reader):
    log.info("event", extra={"time": "x", "level": "x", "logger": "x", "event": "x", "error": "e"})
    (line,) = lines()
    assert (line["level"], line["logger"], line["event"]) == ("info", "dtr.test", "event")
    assert (line["level_"], line["error"]) == ("x", "e")


class Broken:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


ODD = [
    "\ud800",
    "a\udfffb",
    "\0\x1b[31m",
    "line\nbreak\r\n",
    "\u2028",
    float("nan"),
    float("inf"),
    2**80,
    -(2**80),
    b"\xff",
    {"a": {"b": "\ud800"}},
    [object],
    Broken(),
    None,
    True,
]


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_whatever_is_logged_is_one_line_of_json(lines: Reader, value: Any):
    configure("info", "json")  # takes the handlers of pytest away, which would fail
    log.info("event", extra={"value": value})
    log.info("%s", value)
    log.info(value)
    log.info("a", extra={"\ud800": value})
    assert len(lines()) == 4


@pytest.mark.parametrize("value", ODD, ids=lambda value: type(value).__name__)
def test_whatever_is_logged_is_one_line_for_people(texts: Callable[[], list[str]], value: Any):
    configure("info", "console")
    log.info("event", extra={"value": value})
    log.info("%s", value)
    found = texts()
    assert len(found) == 2
    assert all(text.isprintable() for text in found)


def test_arguments_that_do_not_fit_are_not_shown(lines: Reader):
    configure("info", "json")  # takes the handlers of pytest away, which would fail
    log.info("%d bytes", SECRET)
    log.info(*("one %s", "a", SECRET))
    found = lines()
    assert [line["event"] for line in found] == ["%d bytes", "one %s"]
    assert_no_secret(json.dumps(found))


@given(
    st.text(st.characters(exclude_categories=())),
    st.dictionaries(st.text(min_size=1), st.text() | st.floats() | st.integers()),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_and_fields_are_one_line_of_json(lines: Reader, text: str, fields: dict[str, Any]):
    configure("info", "json")  # takes the handlers of pytest away: its workers cannot report half characters
    standard = logging.makeLogRecord({}).__dict__.keys() | {"message", "asctime"}
    log.info("%s", text, extra={name: value for name, value in fields.items() if name not in standard})
    assert len(lines()) == 1


def test_lines_of_many_threads_are_whole_and_none_is_lost(lines: Reader):
    def work(number: int) -> None:
        for count in range(50):
            log.info("event", extra={"thread_number": number, "count": count})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert {(line["thread_number"], line["count"]) for line in lines()} == {
        (n, c) for n in range(8) for c in range(50)
    }


def test_a_log_that_cannot_be_written_does_not_break_the_program(lines: Reader, monkeypatch: pytest.MonkeyPatch):
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", SimpleNamespace(buffer=full))
        log.info("lost")
        for _ in range(2000):
            access(scope("/v2/" + "a" * 100), facts())
        monkeypatch.undo()
    log.info("written")
    assert lines()[-1]["event"] == "written"


# --- requests -----------------------------------------------------------------------------------------------


def scope(path: str, query: bytes = b"") -> dict[str, Any]:
    return {"method": "GET", "path": path, "query_string": query, "headers": [(b"authorization", SECRET.encode())]}


def facts(**given: Any) -> Facts:
    return Facts(
        **{
            "id": "id1",
            "remote": "192.0.2.1",
            "status": 200,
            "bytes_in": 1,
            "bytes_out": 2,
            "seconds": 0.00125,
            **given,
        }
    )


def test_a_request_is_a_line_without_its_query_and_headers(lines: Reader):
    access(scope("/auth/token", f"password={SECRET}".encode()), facts(actor="ada", repository="ada/hello"))
    (line,) = lines()
    assert_no_secret(json.dumps(line))
    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": "dtr.access",
        "event": "request",
        "request_id": "id1",
        "remote": "192.0.2.1",
        "method": "GET",
        "path": "/auth/token",
        "status": 200,
        "actor": "ada",
        "repository": "ada/hello",
        "bytes_in": 1,
        "bytes_out": 2,
        "ms": 1.25,
    }


def test_secrets_in_a_path_are_masked_and_long_paths_are_cut(lines: Reader):
    for path in (f"/v2/{TOKEN}/x", f"/x/password={SECRET}", "/" + "a" * 100_000 + SECRET, f"/{JWT}" * 50):
        access(scope(path), facts(repository=path))
    found = lines()
    assert len(found) == 4
    assert_no_secret(json.dumps(found))
    assert all(len(line["path"]) <= 2048 for line in found)


@pytest.mark.parametrize("path", ["/\ud800", "/a\nb", "/\0", "/\x1b[2J", "/é"])
def test_any_path_is_one_line(lines: Reader, path: str):
    access(scope(path), facts(repository=path))
    assert len(lines()) == 1


@pytest.mark.parametrize(
    "path", ["/\ud800", "/a\n12:00:00.000 INFO    dtr.access request status=200", "/\0", "/\x1b[2J"]
)
def test_nobody_makes_up_a_line_for_people(texts: Callable[[], list[str]], path: str):
    access(scope(path), facts(repository=path))
    (text,) = texts()
    assert text.isprintable()


async def test_lines_of_requests_are_written_together_after_a_moment(lines: Reader):
    for number in range(3):
        access(scope(f"/{number}"), facts())
    assert lines() == []
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(60):
        while len(found) < 3:
            await asyncio.sleep(0.01)
            found += lines()
    assert [line["path"] for line in found] == ["/0", "/1", "/2"]


async def test_another_line_takes_those_that_wait_with_it_in_order(lines: Reader):
    access(scope("/first"), facts())
    log.warning("second")
    assert [line["event"] for line in lines()] == ["request", "second"]


async def test_many_lines_do_not_wait(lines: Reader):
    for _ in range(1000):
        access(scope("/" + "a" * 100), facts())
    assert len(lines()) > 0


async def test_the_end_of_the_log_writes_what_waits(lines: Reader):
    access(scope("/last"), facts())
    for handler in logging.getLogger().handlers:
        handler.flush()
    assert [line["path"] for line in lines()] == ["/last"]
