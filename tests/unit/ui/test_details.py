"""What rooms say in detail, in the words of a visitor's language."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dtr.http.ui.details import DETAILS, code_of, literals, told
from dtr.http.ui.words import words_of

ROOMS = Path(__file__).parents[3] / "src/dtr"
OPENSSL = {
    "tls.self-signed", "tls.self-signed-chain", "tls.expired", "tls.unknown-issuer", "tls.other-host",
}  # fmt: skip
"""As OpenSSL says it; it is not said anywhere in our sources."""
SYSTEM = {
    "system.refused": errno.ECONNREFUSED,
    "system.reset": errno.ECONNRESET,
    "system.no-route": errno.EHOSTUNREACH,
    "system.no-network": errno.ENETUNREACH,
    "system.timed-out": errno.ETIMEDOUT,
}
MADE = {
    "mirror.waits-scan": 'f"waits for a {decision.waits_for}"',
    "mirror.waits-signature": 'f"waits for a {decision.waits_for}"',
    **dict.fromkeys(
        (
            "remote.answered", "remote.answered-with", "remote.tokens-answered", "remote.tokens-answered-with",
        ),
        'f"{who} answered {status}" + (f" ({reason})"',
    ),
}  # fmt: skip
"""Those of which a room has a part alone."""


@pytest.fixture(scope="module")
def sources() -> str:
    """All that the rooms say: the code without the pages, lines joined as the parts of long texts are."""
    files = (one for one in ROOMS.rglob("*.py") if "http/ui" not in one.as_posix())
    return "\n".join(one.read_text(encoding="utf-8") for one in sorted(files))


@pytest.mark.parametrize("code", sorted(DETAILS.keys() - OPENSSL - SYSTEM.keys()))
def test_what_is_known_is_said_by_a_room(code: str, sources: str):
    """A text that a room changed is found here, not by somebody who reads English on a Japanese page."""
    for literal in [MADE[code]] if code in MADE else literals(DETAILS[code]):
        assert literal.strip("()") in sources, literal


@pytest.mark.parametrize("code", sorted(SYSTEM))
def test_what_the_system_says_is_as_it_says_it(code: str):
    assert os.strerror(SYSTEM[code]) == DETAILS[code]


@pytest.mark.parametrize("code", sorted(DETAILS))
def test_each_detail_is_found_again_with_what_varies_in_it(code: str):
    values = {name: f"<{name}>" for name in ("status", "reason", "codes", "digest", "name", "path", "n", "what")}
    values |= {"seconds": "10", "host": "h", "message": "m"}
    said = DETAILS[code].format(**values)
    found = code_of(said)
    assert found is not None
    assert found[0] == code
    assert DETAILS[code].format(**found[1]) == said
    assert told(words_of("en"), said) is None  # it is English already
    japanese = told(words_of("ja"), said)
    assert japanese is not None
    assert "<" not in japanese  # what varies is anybody's


def test_a_detail_in_a_detail_is_told_too():
    said = "the remote: the request failed: Connection refused"
    assert told(words_of("ja"), said) == "リモート: リクエストに失敗しました: 接続が拒否されました"
    said = "the remote: the certificate of the host is not trusted: certificate has expired"
    assert told(words_of("ja"), said) == "リモート: ホストの証明書を信頼できません: 証明書の有効期限が切れています"


@pytest.mark.parametrize(
    "said", ["", "something else", "Connection refused, somehow", "the remote: ", "the remote:" * 9]
)
def test_what_is_not_known_is_left_as_it_is(said: str):
    assert told(words_of("ja"), said) is None


def test_a_text_that_was_made_to_be_deep_or_long_ends():
    deep = "the remote: " * 2_000 + "x"
    assert told(words_of("ja"), deep) is not None
    assert told(words_of("ja"), "a" * 100_000) is None
