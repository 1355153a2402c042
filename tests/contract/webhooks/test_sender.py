"""Where webhooks are sent, and where never."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.receiver import Receiver as Server
from tests.support.receiver import Reply, receiving

from dtr.outbound import Addresses, Outside
from dtr.pki import ensure_certificate
from dtr.webhooks import Receiver, Sender, WebhookInvalid
from dtr.webhooks.sender import Answer

LOOPBACK = ("127.0.0.0/8",)
UNREACHABLE = "the host has no address, or none that may be reached from here"


@pytest.fixture
def server() -> Iterator[Server]:
    with receiving() as made:
        yield made


async def send(url: str, sender: Sender | None = None, **receiver: Any) -> Answer:
    given = {"skip_tls_verification": url.startswith("http:"), **receiver}
    return await (sender or Sender(Outside(Addresses(LOOPBACK)), seconds=60)).send(
        Receiver(endpoint=url, **given), b"{}", {"X-A": "1"}
    )


# --- addresses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1",
        "192.0.0.1", "192.168.1.1", "192.88.99.1", "198.18.0.1", "203.0.113.9", "224.0.0.1", "239.1.1.1",
        "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8",
        "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2001::1", "2001:db8::1",
        "2002:7f00:1::", "2002:808:808::", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_these_addresses_are_refused(address: str):
    assert not Addresses().allows(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450::1"])
def test_public_addresses_are_allowed(address: str):
    assert Addresses().allows(address)


def test_the_administrator_allows_networks():
    addresses = Addresses(["10.0.0.0/8", "fd00::/8"])
    assert addresses.allows("10.1.2.3")
    assert addresses.allows("::ffff:10.1.2.3")
    assert addresses.allows("fd12::1")
    assert not addresses.allows("192.168.1.1")
    assert not addresses.allows("fe80::1")


@given(st.ip_addresses(v=4))
@settings(deadline=None)
def test_no_form_of_ipv4_in_ipv6_is_a_way_around(address: ipaddress.IPv4Address):
    number = int(address)
    for form in (number, 0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert not Addresses().allows(str(ipaddress.IPv6Address(form)))


# --- endpoints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endpoint",
    [
        "", "example.org", "ftp://example.org/", "https://", "https://user@example.org/", "https://a:b@example.org/",
        "https://example.org:0/", "https://example.org:99999/", "https://[::1/", "https://exa mple.org/",
        "https://%31%32%37.0.0.1/", "https://a.example\\b.example/", "https://a.example;b/", "https://[fe80::1%25a]/",
        "https://example.org/\n", "https://exämple.org/", "https://example.org/" + "a" * 2048, "http://example.org/",
    ],
)  # fmt: skip
async def test_what_is_no_endpoint(endpoint: str):
    with pytest.raises(WebhookInvalid):
        await Receiver(endpoint=endpoint).check()


async def test_plain_http_needs_that_tls_is_not_verified():
    await Receiver(endpoint="http://example.org/", skip_tls_verification=True).check()
    await Receiver(endpoint="https://example.org:8443/a?b=c").check()
    with pytest.raises(WebhookInvalid, match="PEM"):
        await Receiver(endpoint="https://example.org/", tls_cert="none").check()


# --- sending --------------------------------------------------------------------------------------------------


async def test_the_answer_is_told(server: Server):
    server.reply = lambda _: Reply(202, b"x" * 100_000)
    answer = await send(server.url())
    assert (answer.status, answer.text, answer.error) == (202, "x" * 1024, "")
    (received,) = server.received
    assert (received.path, received.body, received.headers["x-a"]) == ("/hook", b"{}", "1")
    server.reply = lambda _: Reply(500, b"\xff\x00no")
    answer = await send(server.url())
    assert (answer.status, answer.text, answer.error) == (500, "\ufffd\ufffdno", "the receiver answered 500")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
async def test_nothing_is_sent_to_this_host_unless_it_is_allowed(server: Server, host: str):
    answer = await send(server.url(host=host), Sender(Outside(Addresses())))
    assert (answer.status, answer.text) == (None, "")
    assert answer.error in {UNREACHABLE, "the address, or that of the proxy, is not one"}
    assert server.received == []


async def test_names_that_lead_nowhere_look_like_those_that_lead_inside():
    answer = await send("https://nowhere.invalid/", Sender(Outside(Addresses())))
    assert answer.error == UNREACHABLE


class Rebinding(AbstractResolver):
    """A name server that says something else each time."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[Any]:
        self.asked += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [{"hostname": host, "host": found, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


async def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(server: Server):
    """A name that leads to the outside first, and then inside."""
    resolver = Rebinding("127.0.0.1", "127.0.0.2")
    server.reply = lambda _: Reply(307, headers={"Location": "/again"})
    answer = await send(
        server.url(host="rebind.example"), Sender(Outside(Addresses(["127.0.0.1/32"]), resolver=resolver))
    )
    assert answer.error == UNREACHABLE
    assert resolver.asked == 2  # once for each connection, and never again
    assert len(server.received) == 1


async def test_redirections_are_followed_on_the_host(server: Server):
    places = {"/hook": "/second", "/second": server.url("/third")}
    server.reply = lambda received: (
        Reply(307, headers={"Location": places[received.path]}) if received.path in places else Reply(200, b"here")
    )
    answer = await send(server.url())
    assert (answer.status, answer.text) == (200, "here")
    assert [(one.path, one.body) for one in server.received] == [
        ("/hook", b"{}"),
        ("/second", b"{}"),
        ("/third", b"{}"),
    ]


async def test_redirections_lead_to_no_other_host(server: Server):
    for place in ("http://127.0.0.1:1/", "http://169.254.169.254/latest/meta-data/", "ftp://localhost/", "//[::1"):
        server.reply = lambda _, place=place: Reply(302, b"secret", headers={"Location": place})
        answer = await send(server.url())
        assert "redirected" in answer.error
        assert answer.text == ""


async def test_redirections_come_to_an_end(server: Server):
    server.reply = lambda _: Reply(308, headers={"Location": "/hook"})
    answer = await send(server.url())
    assert "more than 3 times" in answer.error
    assert len(server.received) == 4


async def test_a_receiver_that_hangs_is_given_up(server: Server):
    server.reply = lambda _: Reply(seconds=600)
    answer = await send(server.url(), Sender(Outside(Addresses(LOOPBACK)), seconds=0.5))
    assert (answer.status, answer.error) == (None, "there was no answer in 0.5 seconds")
    assert answer.duration < 20_000


async def test_a_receiver_that_is_not_there(server: Server):
    server.close()
    answer = await send(server.url(host="127.0.0.1"))
    assert answer.error == "the request failed: Connection refused"


async def test_tls(tmp_path: Path):
    own, other = (ensure_certificate(tmp_path / name, []) for name in ("own", "other"))
    assert own.authority is not None
    assert other.authority is not None
    with receiving(own) as server:
        trusted = await send(server.url(), tls_cert=own.authority.read_text())
        assert trusted.error == ""
        of_the_server_alone = await send(server.url(), tls_cert=own.chain.read_text())
        assert of_the_server_alone.error == ""
        for refused in (await send(server.url()), await send(server.url(), tls_cert=other.authority.read_text())):
            assert refused.error.startswith("the certificate of the host is not trusted")
        assert (await send(server.url(), skip_tls_verification=True)).error == ""
        assert len(server.received) == 3


async def test_through_a_proxy(server: Server):
    """It gets the whole address; what leads inside is not even asked of it."""
    proxied = Sender(Outside(Addresses(), proxy_of=lambda _: server.url("")))
    answer = await send("http://receiver.invalid/hook", proxied)
    assert (answer.error, server.received[0].path) == ("", "http://receiver.invalid/hook")
    for no_proxy in ("socks5://127.0.0.1:1", "127.0.0.1:1", "nonsense"):
        answer = await send(
            "http://receiver.invalid/", Sender(Outside(Addresses(), proxy_of=lambda _, one=no_proxy: one))
        )
        assert answer.error
    for inside in ("http://127.0.0.1:1/", "http://localhost/", "http://[::ffff:10.0.0.1]/"):
        assert (await send(inside, proxied)).error == UNREACHABLE
    assert len(server.received) == 1
