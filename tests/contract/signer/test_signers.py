"""What every signer does: in this process on both databases, ours behind gRPC, and a stock notary-signer."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from tests.support.notary import canonical

from dtr.signer import AlgorithmUnsupported, KeyUnknown, RequestRefused, Signer

METHODS = {"ecdsa": "ecdsa", "ed25519": "eddsa"}
TYPES = {"timestamp": "Timestamp", "snapshot": "Snapshot"}
OURS = pytest.mark.parametrize("signer", ["local-sqlite", "local-postgresql", "remote"], indirect=True)
"""A stock signer with keys in memory is another: it makes a key each time, for any role, and signs everything."""
_counter = itertools.count()


def said(role: str, version: int = 1) -> bytes:
    return canonical({"_type": TYPES[role], "expires": "2030-01-01T00:00:00Z", "meta": {}, "version": version})


REFUSED = [
    said("snapshot"),
    canonical({"_type": "Root", "version": 1}),
    canonical({"_type": "Targets", "version": 1}),
    canonical({"_type": "timestamp", "version": 1}),
    canonical({"version": 1}),
    canonical({"_type": ["Timestamp"]}),
    canonical(["Timestamp"]),
    json.dumps({"_type": "Timestamp", "version": 1}).encode(),
    b'{"_type":"Root","_type":"Timestamp"}',
    b'{"_type":"Timestamp","version":1.0}',
    b'{"_type":"Timestamp"} ',
    b"[" * 100_000,
    b"\xff",
    b"",
]
"""What a key for timestamps does not sign."""


@pytest.fixture
def gun() -> str:
    """A collection that nobody used before: a stock signer lives longer than a test."""
    return f"localhost:5000/ada/app{next(_counter)}"


async def test_a_key_signs_for_its_role(signer: Signer, gun: str):
    for role, algorithm in itertools.product(TYPES, METHODS):
        key = await signer.create_key(gun, role, algorithm)
        assert key.type == algorithm
        assert await signer.find_key(key.id) == key
        content = said(role)
        signature = await signer.sign(key.id, content)
        assert (signature.key_id, signature.method, len(signature.content)) == (key.id, METHODS[algorithm], 64)
        assert key.verifies(signature.method, signature.content, content)
        assert not key.verifies(signature.method, signature.content, content + b" ")


@OURS
async def test_a_key_is_given_again_until_it_signed(signer: Signer, gun: str):
    first = await signer.create_key(gun, "timestamp", "ecdsa")
    assert await signer.create_key(gun, "timestamp", "ecdsa") == first
    others = [(gun, "snapshot", "ecdsa"), (gun, "timestamp", "ed25519"), (f"{gun}2", "timestamp", "ecdsa")]
    assert len({first.id, *[(await signer.create_key(*one)).id for one in others]}) == 4
    await signer.sign(first.id, said("timestamp"))
    second = await signer.create_key(gun, "timestamp", "ecdsa")
    assert second != first
    assert await signer.create_key(gun, "timestamp", "ecdsa") == second
    assert (await signer.sign(first.id, said("timestamp", 2))).key_id == first.id


@OURS
async def test_many_who_ask_at_once_get_one_key(signer: Signer, gun: str):
    made = await asyncio.gather(*(signer.create_key(gun, "timestamp", "ecdsa") for _ in range(12)))
    assert len({key.id for key in made}) == 1


async def test_a_key_is_forgotten(signer: Signer, gun: str):
    key = await signer.create_key(gun, "timestamp", "ecdsa")
    await signer.sign(key.id, said("timestamp"))
    await signer.delete_key(key.id)
    assert await signer.find_key(key.id) is None
    with pytest.raises(KeyUnknown):
        await signer.sign(key.id, said("timestamp"))
    await signer.delete_key(key.id)


async def test_an_unknown_key(signer: Signer):
    for key_id in ("0" * 64, "none", "", "\x00"):
        assert await signer.find_key(key_id) is None
        with pytest.raises(KeyUnknown):
            await signer.sign(key_id, said("timestamp"))
        await signer.delete_key(key_id)


async def test_other_algorithms_are_not_known(signer: Signer, gun: str):
    for algorithm in ("rsa", "ECDSA", ""):
        with pytest.raises(AlgorithmUnsupported):
            await signer.create_key(gun, "timestamp", algorithm)


@OURS
async def test_keys_of_clients_are_not_made(signer: Signer, gun: str):
    for role in ("root", "targets", "targets/releases", "", "Timestamp"):
        with pytest.raises(RequestRefused):
            await signer.create_key(gun, role, "ecdsa")
    for name in ("", "a" * 256, "a\x00b", "a\nb"):
        with pytest.raises(RequestRefused):
            await signer.create_key(name, "timestamp", "ecdsa")


@OURS
async def test_only_what_is_of_the_role_is_signed(signer: Signer, gun: str):
    key = await signer.create_key(gun, "timestamp", "ecdsa")
    for content in REFUSED:
        with pytest.raises(RequestRefused):
            await signer.sign(key.id, content)
    # What was refused was not the first signature.
    assert await signer.create_key(gun, "timestamp", "ecdsa") == key


async def test_it_says_that_it_could_sign(signer: Signer):
    await signer.check()
