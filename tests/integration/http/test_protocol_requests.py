"""Requests without bodies, one behind the other on a connection: their headers seldom differ, their lines do."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.wire import Peer, Site, answer, request, wait_until

from dtr.http.bodies import ANSWER
from dtr.http.exchange import Doorbell, Exchange
from dtr.http.front import Facts, Front

Connect = Callable[..., Peer]
on_uvloop = pytest.mark.parametrize("loop_kind", ["uvloop"], indirect=True)
HEADERS = b"Host: localhost\r\nAccept: a/b\r\nX-Same: 1\r\n\r\n"


@pytest.fixture
def asked(site: Site) -> list[Any]:
    """What the application is told of each request, which it answers with that."""
    told: list[Any] = []

    async def tell(scope, receive, send) -> None:
        what = {
            name: scope[name].decode() if isinstance(scope[name], bytes) else scope[name]
            for name in ("method", "path", "raw_path", "query_string", "http_version")
        }
        what["headers"] = [[one.decode() for one in header] for header in scope["headers"]]
        what["body"] = (await receive())["body"].decode()
        told.append(what)
        await answer(send, 200, json.dumps(what).encode(), method=scope["method"])

    site.app = tell
    return told


# --- the same headers again ---


@on_uvloop
def test_lines_over_the_same_headers_are_told_apart(site: Site, connect: Connect, asked: list[Any]) -> None:
    peer = connect(site)
    for line, path, query in (
        (b"GET /first?a=1", "/first", "a=1"),
        (b"GET /first?a=1", "/first", "a=1"),
        (b"GET /second%2f%20x?b", "/second/ x", "b"),
        (b"HEAD /third", "/third", ""),
        (b"GET /?", "/", ""),
        (b'GET /~"<>\\^`{|}', '/~"<>\\^`{|}', ""),
    ):
        got = peer.ask(line + b" HTTP/1.1\r\n" + HEADERS)
        assert got.status == 200
        assert not got.closes
        one = asked.pop()
        assert one["method"] == line.partition(b" ")[0].decode()
        assert (one["path"], one["query_string"], one["http_version"], one["body"]) == (path, query, "1.1", "")
        assert one["raw_path"] == line.split(b" ")[1].partition(b"?")[0].decode()
        assert one["headers"] == [["host", "localhost"], ["accept", "a/b"], ["x-same", "1"]]


@on_uvloop
def test_other_headers_are_read_again(site: Site, connect: Connect, asked: list[Any]) -> None:
    peer = connect(site)
    for number in (1, 1, 2, 1, 3, 3):
        peer.ask(request("GET", "/", X_Number=str(number)))
    assert [dict(one["headers"])["x-number"] for one in asked] == ["1", "1", "2", "1", "3", "3"]


@on_uvloop
def test_what_an_application_does_to_its_headers_stays_with_it(site: Site, connect: Connect) -> None:
    seen = []

    async def spoil(scope, receive, send) -> None:
        seen.append(len(scope["headers"]))
        scope["headers"].append((b"authorization", b"mine"))
        await answer(send, 200, b"")

    site.app = spoil
    peer = connect(site)
    for _ in range(3):
        peer.ask(b"GET / HTTP/1.1\r\n" + HEADERS)
    assert seen == [3, 3, 3]


WRONG_LINES = {
    "another version": b"GET / HTTP/1.2",
    "no version": b"GET /",
    "an unknown method": b"BREW / HTTP/1.1",
    "a method in lower case": b"get / HTTP/1.1",
    "a space in the path": b"GET /a b HTTP/1.1",
    "a path without a root": b"GET file HTTP/1.1",
    "a path that is not ASCII": b"GET /\xff HTTP/1.1",
    "a control character": b"GET /\x01 HTTP/1.1",
    "a NUL": b"GET /\0 HTTP/1.1",
    "LF alone": b"GET / HTTP/1.1\nX: y",
    "CR alone": b"GET / HTTP/1.1\rX: y",
    "something before": b"X GET / HTTP/1.1",
    "another request before, without an end": b"GET /smuggled HTTP/1.1\r\nGET / HTTP/1.1",
    "a length before": b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2",
    "both framings before": b"GET / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
    "a host before": b"GET / HTTP/1.1\r\nHost: elsewhere",
}


@on_uvloop
@pytest.mark.parametrize("line", WRONG_LINES.values(), ids=WRONG_LINES)
def test_a_wrong_line_over_known_headers_is_refused(
    site: Site, connect: Connect, asked: list[Any], line: bytes
) -> None:
    peer = connect(site)
    for _ in range(2):
        peer.ask(b"GET / HTTP/1.1\r\n" + HEADERS)
    asked.clear()
    got = peer.ask(line + b"\r\n" + HEADERS)
    assert got.status == 400
    assert got.closes
    assert peer.is_ended()
    assert asked == []


@on_uvloop
def test_what_an_empty_line_hides_is_not_taken_for_headers(site: Site, connect: Connect, asked: list[Any]) -> None:
    """The parser skips an empty line before a request: what follows that is no block of headers."""
    peer = connect(site)
    assert peer.ask(b"\r\nGET / HTTP/1.1\r\n" + HEADERS).status == 200
    asked.clear()
    assert peer.ask(b"GET /smuggled HTTP/1.1\r\nGET / HTTP/1.1\r\n" + HEADERS).status == 400
    assert asked == []


@on_uvloop
def test_what_ends_a_connection_is_obeyed_each_time(site: Site, connect: Connect, asked: list[Any]) -> None:
    for _ in range(2):
        peer = connect(site)
        assert not peer.ask(b"GET / HTTP/1.1\r\n" + HEADERS).closes
        assert peer.ask(request("GET", "/", Connection="close")).closes
        assert peer.is_ended()
    peer = connect(site)
    assert not peer.ask(b"GET / HTTP/1.1\r\n" + HEADERS).closes
    assert peer.ask(b"GET / HTTP/1.0\r\n" + HEADERS).closes
    assert peer.is_ended()


@on_uvloop
def test_a_body_behind_the_same_headers_is_read(site: Site, connect: Connect, asked: list[Any]) -> None:
    peer = connect(site)
    for _ in range(3):
        peer.ask(request("GET", "/", b"body"))
        peer.ask(request("POST", "/", b"other"))
        peer.ask(request("GET", "/", b"", Transfer_Encoding="chunked") + b"3\r\nabc\r\n0\r\n\r\n")
    assert [one["body"] for one in asked] == ["body", "other", "abc"] * 3


@on_uvloop
def test_an_upgrade_is_passed_over_each_time(site: Site, connect: Connect, asked: list[Any]) -> None:
    peer = connect(site)
    for path in ("/a", "/b", "/c"):
        assert peer.ask(request("GET", path, Connection="upgrade", Upgrade="h2c")).status == 200
    assert [one["path"] for one in asked] == ["/a", "/b", "/c"]


def test_requests_in_one_write_are_answered_in_order(site: Site, connect: Connect, asked: list[Any]) -> None:
    peer = connect(site)
    peer.ask(b"GET / HTTP/1.1\r\n" + HEADERS)
    asked.clear()
    peer.send(b"".join(b"GET /%d HTTP/1.1\r\n%b" % (number, HEADERS) for number in range(20)))
    assert [peer.answer().json["path"] for _ in range(20)] == [f"/{number}" for number in range(20)]
    peer.ask(b"GET /last HTTP/1.1\r\n" + HEADERS)
    assert asked.pop()["path"] == "/last"


def test_a_head_that_is_cut_anywhere_is_understood(site: Site, connect: Connect, asked: list[Any]) -> None:
    whole = b"GET /cut HTTP/1.1\r\n" + HEADERS
    peer = connect(site)
    peer.ask(whole)
    for position in range(1, len(whole), 7):
        peer.send(whole[:position])
        wait_until(lambda: site.tasks == 0)
        assert peer.ask(whole[position:]).status == 200
    assert {one["path"] for one in asked} == {"/cut"}


# --- the task of a connection ---


def test_a_connection_has_one_task(site: Site, connect: Connect) -> None:
    tasks = weakref.WeakSet()
    seen = []

    async def note(scope, receive, send) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        seen.append(id(task))
        if scope["path"] == "/slow":
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:  # what needs a task of its own
            group.create_task(asyncio.sleep(0))
        await answer(send, 200, b"")

    site.app = note
    peer, other = connect(site), connect(site)
    for path in ("/", "/slow", "/"):
        peer.ask(request("GET", path))
    other.ask(request("GET", "/"))
    assert len(set(seen[:3])) == 1
    assert seen[3] != seen[0]
    peer.close()
    other.close()
    wait_until(lambda: site.connections == 0)
    wait_until(lambda: gc.collect() is not None and not tasks)


@on_uvloop
def test_a_request_is_answered_in_the_call_that_brings_it(site: Site, connect: Connect) -> None:
    turns = []

    def turn() -> None:
        turns.append("turn")

    async def note(scope, receive, send) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(turn)
        turns.append("request")
        scope["extensions"][ANSWER](200, [], b"")

    site.app = note
    peer = connect(site)
    peer.ask(request("GET", "/"))  # the first begins the task
    wait_until(lambda: turns == ["request", "turn"])
    peer.send(request("GET", "/") * 3)
    for _ in range(3):
        assert peer.answer().status == 200
    wait_until(lambda: turns == ["request", "turn", *["request"] * 3, *["turn"] * 3])


@on_uvloop
def test_a_request_waits_for_what_the_one_before_it_does_behind_its_answer(site: Site, connect: Connect) -> None:
    gate = asyncio.Event()
    done = []

    async def note(scope, receive, send) -> None:
        await answer(send, 200, b"")
        if scope["path"] == "/long":
            await gate.wait()
        done.append(scope["path"])

    site.app = note
    peer = connect(site)
    assert peer.ask(request("GET", "/long")).status == 200
    peer.send(request("GET", "/next"))
    assert connect(site).ask(request("GET", "/other")).status == 200
    wait_until(lambda: done == ["/other"])
    site.call(gate.set)
    assert peer.answer().status == 200
    wait_until(lambda: done == ["/other", "/long", "/next"])


@on_uvloop
def test_a_connection_that_ends_while_its_request_runs_ends_its_task(
    site: Site, connect: Connect, no_leak: None
) -> None:
    gate = asyncio.Event()

    async def wait(scope, receive, send) -> None:
        await gate.wait()
        await answer(send, 200, b"")

    site.app = wait
    peer = connect(site).send(request("GET", "/"))
    wait_until(lambda: site.tasks == 1)
    peer.reset()
    wait_until(lambda: site.connections == 0)
    assert site.tasks == 1
    site.call(gate.set)
    wait_until(lambda: site.tasks == 0)


@on_uvloop
def test_an_application_that_gives_no_answer_is_answered_for(
    site: Site, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    async def silent(scope, receive, send) -> None:
        if scope["path"] == "/fails":
            raise ValueError
        if scope["path"] == "/half":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})

    site.app = silent
    for path in ("/silent", "/fails"):
        peer = connect(site)
        got = peer.ask(request("GET", path))
        assert (got.status, got.body, got.closes) == (500, b"Internal Server Error", True)
        assert peer.is_ended()
    peer = connect(site)
    assert not peer.ask(request("GET", "/half")).is_whole
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.message for record in errors] == [
        "answer without an end",
        "answer failed",
        "answer without an end",
    ]
    caplog.clear()


@on_uvloop
@pytest.mark.parametrize("way", ["at once", "in messages"])
def test_a_request_leaves_nothing_to_the_collector(site: Site, connect: Connect, way: str) -> None:
    """What holds itself in a circle costs more to find than a request to answer."""

    async def quick(scope, receive, send) -> None:
        await receive()
        if way == "at once":
            scope["extensions"][ANSWER](200, [], b"hello")
        else:
            await answer(send, 200, b"hello")

    site.app = Front({}, quick, finished=lambda scope, facts: None, started=lambda: None)
    peer = connect(site)
    peer.ask(request("GET", "/"))
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(10):
            assert peer.ask(request("GET", "/")).body == b"hello"
        gc.collect()
        left = [type(one).__name__ for one in gc.garbage if isinstance(one, Exchange | Facts)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []


@on_uvloop
def test_an_answer_that_breaks_off_is_not_taken_for_whole(site: Site, connect: Connect, caplog) -> None:
    """To HTTP/1.0 an answer without a length ends with the connection: only a reset says that it did not."""

    async def breaks_off(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError

    site.app = breaks_off
    peer = connect(site).send(b"GET / HTTP/1.0\r\n\r\n")

    def read_all() -> None:
        while peer.socket.recv(65536):
            pass

    with pytest.raises(ConnectionResetError):
        read_all()
    wait_until(lambda: site.tasks == 0)
    caplog.clear()


@on_uvloop
@pytest.mark.parametrize(("target", "path", "query"), [
    ("http://localhost", "/", ""), ("http://localhost?a=1", "/", "a=1"), ("http://localhost:80/b?c", "/b", "c"),
])  # fmt: skip
def test_a_target_with_scheme_and_host_is_understood(
    site: Site, connect: Connect, asked: list[Any], target: str, path: str, query: str
) -> None:
    got = connect(site).ask(request("GET", target)).json
    assert (got["path"], got["raw_path"], got["query_string"]) == (path, path, query)


async def test_a_doorbell_lets_its_task_go_on_within_the_call() -> None:
    loop = asyncio.get_running_loop()
    bell = Doorbell(loop)
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="of others")
    heard = []

    async def listen() -> None:
        variable.set("of the task")
        while True:
            await bell
            heard.append((variable.get(), asyncio.current_task()))

    task = asyncio.create_task(listen())
    await asyncio.sleep(0)
    counts = []

    def ring() -> None:
        for _ in range(3):
            bell.ring()
            counts.append(len(heard))

    loop.call_soon(ring)
    await asyncio.sleep(0)
    assert counts == [1, 2, 3]
    assert heard == [("of the task", task)] * 3
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    loop.call_soon(bell.ring)  # nobody waits: nothing
    await asyncio.sleep(0)
    assert len(heard) == 3


async def test_a_doorbell_serves_the_task_after_a_cancelled_one() -> None:
    loop = asyncio.get_running_loop()
    bell = Doorbell(loop)

    async def listen() -> str:
        await bell
        return "heard"

    for _ in range(2):
        task = asyncio.create_task(listen())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        task = asyncio.create_task(listen())
        await asyncio.sleep(0)
        loop.call_soon(bell.ring)
        assert await task == "heard"
