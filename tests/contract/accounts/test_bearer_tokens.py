"""Signing keys and the tokens that they sign, on both databases."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from joserfc import jwe, jwt
from joserfc.jwk import ECKey
from sqlalchemy import BigInteger, bindparam, func, select, update

from dtr.accounts import SigningKeys, TokenExpired, TokenInvalid, Tokens
from dtr.db import Database, Statement, Transaction
from dtr.db.schema import signing_keys

MINUTE, DAY = 60_000, 86_400_000
LIFE = 300

_earlier = bindparam("milliseconds", type_=BigInteger)
SHIFT = Statement(
    update(signing_keys).values(
        created_at=signing_keys.c.created_at - _earlier,
        signs_from=signing_keys.c.signs_from - _earlier,
        expires_at=signing_keys.c.expires_at - _earlier,
    )
)
STORED = Statement(select(func.count()).select_from(signing_keys))


class Host:
    """What one host knows of the keys."""

    def __init__(self, database: Database) -> None:
        self.keys = SigningKeys(database, key_days=30)
        self.tokens = Tokens(self.keys, service="dtr", life_seconds=LIFE)

    async def issue(self) -> str:
        return await self.tokens.issue("id", "ada", {"ada/hello": frozenset({"pull"})})

    async def published(self) -> set[str]:
        return {key["kid"] for key in (await self.keys.jwks())["keys"]}

    async def signing(self) -> str:
        return (await self.keys.current())[0]


@pytest.fixture
async def host(database: Database) -> Host:
    made = Host(database)
    await made.keys.refresh()
    return made


@pytest.fixture
async def other(database: Database, host: Host) -> Host:
    made = Host(database)
    await made.keys.refresh()
    return made


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is not known is looked for again without a pause."""
    monkeypatch.setattr("dtr.accounts.tokens._UNKNOWN_KEY_PAUSE_SECONDS", 0.0)


async def later(database: Database, milliseconds: int) -> None:
    """Let time go by, as the keys in the database see it."""

    async def work(tx: Transaction) -> None:
        await tx.execute(SHIFT, milliseconds=milliseconds)

    await database.unit(work)


def pack(data: Any) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unpack(part: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


async def sign(host: Host, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token that our own key signed, with other claims than `Tokens` would write."""
    key_id, key = await host.keys.current()
    plain = unpack((await host.issue()).split(".")[1])
    return jwt.encode({"alg": "ES256", "kid": key_id, **(header or {})}, {**plain, **claims}, key)


async def refuse(host: Host, token: str) -> None:
    with pytest.raises(TokenInvalid) as caught:
        await host.tokens.verify(token)
    assert not isinstance(caught.value, TokenExpired)


# --- issuing and verifying ----------------------------------------------------------------------------------


async def test_a_token_says_what_was_granted(host: Host):
    access = {"ada/hello": frozenset({"pull", "push"}), "org/app": frozenset({"pull"})}
    claims = await host.tokens.verify(await host.tokens.issue("id", "ada", access))
    assert (claims.account_id, claims.account_name) == ("id", "ada")
    assert claims.access == access
    assert claims.catalog is False
    assert time.time() + LIFE - 60 < claims.expires_at <= time.time() + LIFE


async def test_an_anonymous_token_names_nobody(host: Host):
    claims = await host.tokens.verify(await host.tokens.issue(None, "", {}))
    assert (claims.account_id, claims.account_name, claims.access) == (None, "", {})


async def test_the_catalog_is_a_right_of_its_own(host: Host):
    claims = await host.tokens.verify(await host.tokens.issue("id", "ada", {}, catalog=True))
    assert claims.catalog is True
    assert claims.access == {}


async def test_two_tokens_are_never_the_same(host: Host):
    assert await host.issue() != await host.issue()


async def test_a_name_with_the_registrys_address_grants_nothing_here(host: Host):
    token = await host.tokens.issue(
        "id",
        "ada",
        {"localhost:5000/org/app": frozenset({"pull"}), "org/app": frozenset({"push"}), "x": frozenset({"pull"})},
        aliases={"localhost:5000/org/app": "org/app", "x": "org/other"},
    )
    claims = await host.tokens.verify(token)
    assert claims.access == {"org/app": frozenset({"push"})}
    assert claims.collections == {"localhost:5000/org/app": frozenset({"pull"}), "x": frozenset({"pull"})}
    entries = {entry["name"]: entry for entry in unpack(token.split(".")[1])["access"]}
    assert entries["localhost:5000/org/app"] == {
        "type": "repository",
        "name": "localhost:5000/org/app",
        "actions": ["pull"],
        "repository": "org/app",
    }
    assert "repository" not in entries["org/app"]


async def test_a_token_ends_with_its_life_also_when_it_was_verified_before(host: Host):
    with time_machine.travel(1_700_000_000, tick=False) as clock:
        token, unseen = await host.issue(), await host.issue()
        clock.shift(LIFE - 1)
        assert (await host.tokens.verify(token)).account_name == "ada"
        clock.shift(1)
        for one in (token, unseen, token):
            with pytest.raises(TokenExpired):
                await host.tokens.verify(one)


async def test_a_clock_that_is_a_little_late_takes_tokens_and_one_that_is_far_behind_does_not(host: Host):
    with time_machine.travel(1_700_000_000, tick=False) as clock:
        token = await host.issue()
        clock.shift(-10)
        assert (await host.tokens.verify(token)).account_name == "ada"
        another = await host.issue()
        clock.shift(-11)
        await refuse(host, another)


async def test_verifying_again_asks_nobody(host: Host, database: Database):
    token = await host.issue()
    asked: list[str] = []
    database.observe = lambda kind, _: asked.append(kind)
    first = await host.tokens.verify(token)
    assert await host.tokens.verify(token) is first
    assert asked == []


async def test_what_is_remembered_of_tokens_is_bounded(host: Host, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dtr.accounts.tokens._REMEMBERED", 10)
    issued = [await host.issue() for _ in range(30)]
    for token in issued * 2:
        assert (await host.tokens.verify(token)).account_name == "ada"
        assert len(host.tokens._verified) <= 10
    long = await host.tokens.issue("id", "ada", {f"ada/{n}": frozenset({"pull"}) for n in range(100)})
    for _ in range(2):
        assert len((await host.tokens.verify(long)).access) == 100
    assert long not in host.tokens._verified


async def test_the_published_keys_are_public(host: Host):
    document = await host.keys.jwks()
    (key,) = document["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")
    json.dumps(document)


async def test_others_can_verify_a_token_with_the_published_keys(host: Host):
    token = await host.issue()
    (key,) = (await host.keys.jwks())["keys"]
    decoded = jwt.decode(token, ECKey.import_key(key), algorithms=["ES256"])
    assert decoded.header["kid"] == key["kid"]
    assert decoded.claims["aud"] == "dtr"


# --- forgeries ----------------------------------------------------------------------------------------------


async def test_a_token_without_a_signature_is_refused(host: Host):
    header, payload, signature = (await host.issue()).split(".")
    for alg in ("none", "None", "NONE", "nOnE", "", None, "ES256"):
        forged = pack({**unpack(header), "alg": alg})
        await refuse(host, f"{forged}.{payload}.")
        if alg != "ES256":
            await refuse(host, f"{forged}.{payload}.{signature}")


async def test_the_public_key_is_no_shared_secret(host: Host):
    header, payload, _ = (await host.issue()).split(".")
    key_id, key = await host.keys.current()
    (public,) = (await host.keys.jwks())["keys"]
    secrets = [
        key.as_pem(private=False),
        key.as_der(private=False),
        json.dumps(public).encode(),
        key_id.encode(),
        b"",
    ]
    for alg, algorithm in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
        signed = f"{pack({**unpack(header), 'alg': alg})}.{payload}"
        for secret in secrets:
            mac = hmac.new(secret, signed.encode(), algorithm).digest()
            await refuse(host, f"{signed}.{pack(mac)}")


async def test_a_foreign_key_signs_nothing_for_us_whatever_the_header_says(host: Host):
    foreign = ECKey.generate_key("P-256", private=True)
    claims = unpack((await host.issue()).split(".")[1])
    ours = await host.signing()
    public = foreign.as_dict(private=False)
    for header in (
        {"kid": ours},
        {"kid": foreign.thumbprint()},
        {"kid": ours, "jwk": public},
        {"kid": ours, "jku": "https://attacker.example/keys", "x5u": "https://attacker.example/cert"},
    ):
        registry_free = {name: value for name, value in header.items() if name == "kid"}
        token = jwt.encode({"alg": "ES256", **registry_free}, claims, foreign)
        _, payload, _ = token.split(".")
        signed = f"{pack({'alg': 'ES256', **header})}.{payload}"
        await refuse(host, token)
        await refuse(host, f"{signed}.{token.split('.')[2]}")


async def test_content_that_is_encrypted_to_our_public_key_is_no_token(host: Host):
    claims = unpack((await host.issue()).split(".")[1])
    (public,) = (await host.keys.jwks())["keys"]
    key = ECKey.import_key({name: public[name] for name in ("kty", "crv", "x", "y")})
    for algorithm in ("ECDH-ES", "ECDH-ES+A128KW"):
        header = {"alg": algorithm, "enc": "A128CBC-HS256", "kid": public["kid"]}
        await refuse(host, jwe.encrypt_compact(header, json.dumps(claims), key))


async def test_a_token_for_another_service_or_by_another_issuer_is_refused(host: Host, database: Database):
    for claims in ({"aud": "other"}, {"iss": "other"}, {"aud": None}, {"iss": None}, {"aud": ["dtr"]}):
        await refuse(host, await sign(host, **claims))
    elsewhere = Tokens(host.keys, service="other")
    with pytest.raises(TokenInvalid):
        await elsewhere.verify(await host.issue())
    assert (await host.tokens.verify(await sign(host))).account_name == "ada"


async def test_a_token_that_is_over_or_not_yet_valid_is_refused(host: Host):
    moment = int(time.time())
    with pytest.raises(TokenExpired):
        await host.tokens.verify(await sign(host, exp=moment - 1))
    await refuse(host, await sign(host, nbf=moment + 3600))


async def test_a_changed_token_is_refused(host: Host):
    token = await host.issue()
    header, payload, signature = token.split(".")
    claims = unpack(payload)
    for changed in (
        {**claims, "uid": "another"},
        {**claims, "exp": claims["exp"] + 1_000_000},
        {**claims, "access": [{"type": "repository", "name": "org/app", "actions": ["push"]}]},
    ):
        await refuse(host, f"{header}.{pack(changed)}.{signature}")
    other = await host.issue()
    await refuse(host, f"{header}.{other.split('.')[1]}.{signature}")
    await refuse(host, f"{header}.{payload}.{other.split('.')[2]}")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    for place in (0, 31, 32, 63):
        bent = bytes(byte ^ (1 if number == place else 0) for number, byte in enumerate(raw))
        await refuse(host, f"{header}.{payload}.{pack(bent)}")
    await refuse(host, f"{header}.{payload}.{pack(bytes(64))}")


async def test_what_is_no_token_is_refused(host: Host):
    token = await host.issue()
    header, payload, signature = token.split(".")
    for text in (
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        token[:-1],
        token[: len(token) // 2],
        header,
        f"{header}.",
        f"{header}.{payload}",
        f"{header}..{signature}",
        f".{payload}.{signature}",
        f"{token}.",
        f"{token}.{signature}",
        f"{token}.x.y",
        f" {token} x",
        f"{token}\n.",
        token + "=" * 20_000,
        "x" * 1_000_000,
        f"{header}.{'A' * 1_000_000}.{signature}",
        "\ufffd\ufffd",
        "\ud800.a.b",
        f"{header}.{payload}.{signature}\0",
    ):
        await refuse(host, text)


async def test_a_header_that_is_none_is_refused(host: Host):
    header, payload, signature = (await host.issue()).split(".")
    plain = unpack(header)
    for bad in (
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b"\xff\xfe",
        b"[" * 10_000,
        {},
        {"alg": "ES256"},
        {**plain, "kid": None},
        {**plain, "kid": 1},
        {**plain, "kid": ["a"]},
        {**plain, "kid": {"a": 1}},
        {**plain, "kid": ""},
        {**plain, "kid": "../../../../etc/passwd"},
        {**plain, "kid": "' OR 1=1 --"},
        {**plain, "kid": "\0"},
        {**plain, "kid": "x" * 10_000},
        {**plain, "alg": "ES384"},
        {**plain, "alg": "RS256"},
        {**plain, "alg": ["ES256"]},
        {**plain, "crit": ["exp"]},
        {**plain, "crit": ["b64"], "b64": False},
    ):
        await refuse(host, f"{pack(bad)}.{payload}.{signature}")


async def test_a_header_that_demands_what_we_do_not_know_is_refused_although_we_signed_it(host: Host):
    key_id, key = await host.keys.current()
    _, payload, _ = (await host.issue()).split(".")
    signed = f"{pack({'alg': 'ES256', 'kid': key_id, 'crit': ['unknown'], 'unknown': 1})}.{payload}"
    from joserfc.jws import JWSRegistry

    algorithm = JWSRegistry(algorithms=["ES256"]).get_alg("ES256")
    await refuse(host, f"{signed}.{pack(algorithm.sign(signed.encode(), key))}")


def mutations(token: str, chance: random.Random) -> Iterator[str]:
    for _ in range(300):
        letters = list(token)
        for _ in range(chance.choice([1, 1, 2, 5])):
            place = chance.randrange(len(letters))
            match chance.randrange(3):
                case 0:
                    letters[place] = chance.choice("ABab01-_.=+/ \n\0é")
                case 1:
                    del letters[place]
                case _:
                    letters.insert(place, chance.choice("ABab01-_.="))
        yield "".join(letters)


async def test_no_change_of_some_characters_makes_another_token_or_an_error_of_another_kind(host: Host):
    token = await host.issue()
    claims = await host.tokens.verify(token)
    for changed in mutations(token, random.Random(7)):
        try:
            found = await host.tokens.verify(changed)
        except TokenInvalid:
            continue
        assert found == claims  # the last character of base64 has bits that mean nothing


# --- keys that change ---------------------------------------------------------------------------------------


async def test_all_hosts_sign_with_the_same_key(host: Host, other: Host):
    assert await host.signing() == await other.signing()
    assert (await other.tokens.verify(await host.issue())).account_name == "ada"
    assert (await host.tokens.verify(await other.issue())).account_name == "ada"


async def test_a_key_stays_as_long_as_it_is_not_old(host: Host, database: Database):
    first = await host.signing()
    await later(database, 29 * DAY)
    await host.keys.refresh()
    assert (await host.signing(), await host.published()) == (first, {first})


async def test_a_new_key_is_published_before_it_signs(host: Host, other: Host, database: Database):
    first = await host.signing()
    await later(database, 31 * DAY)
    await host.keys.refresh()
    await other.keys.refresh()
    published = await host.published()
    assert len(published) == 2
    assert await other.published() == published
    assert await host.signing() == await other.signing() == first
    await later(database, 9 * MINUTE)
    await host.keys.refresh()
    assert await host.signing() == first
    await later(database, MINUTE)
    await host.keys.refresh()
    assert {await host.signing()} == published - {first}
    assert await host.published() == published
    # The other host has not looked again, and knows the key all the same.
    assert (await other.tokens.verify(await host.issue())).account_name == "ada"


async def test_tokens_of_the_old_key_are_good_until_they_expire(host: Host, other: Host, database: Database):
    token = await host.issue()
    for step in (31 * DAY, 11 * MINUTE):
        await later(database, step)
        await host.keys.refresh()
        await other.keys.refresh()
    assert unpack((await host.issue()).split(".")[0])["kid"] != unpack(token.split(".")[0])["kid"]
    for one in (host, other):
        assert (await one.tokens.verify(token)).account_name == "ada"
    third = Host(database)
    assert (await third.tokens.verify(token)).account_name == "ada"


async def test_an_old_key_is_published_no_longer_once_nothing_it_signed_is_good(host: Host, database: Database):
    first = await host.signing()
    for step in (31 * DAY, 11 * MINUTE, 3 * DAY):
        await later(database, step)
        await host.keys.refresh()
    second = await host.signing()
    assert await host.published() == {second} != {first}
    await later(database, 28 * DAY)
    await host.keys.refresh()
    assert tuple((await database.fetch_all(STORED))[0]) == (2,)


async def test_a_host_that_did_not_look_for_long_finds_the_key_of_a_token(
    host: Host, other: Host, database: Database, at_once: None
):
    for step in (31 * DAY, 11 * MINUTE):
        await later(database, step)
        await host.keys.refresh()
    assert (await other.tokens.verify(await host.issue())).account_name == "ada"


async def test_after_a_long_rest_there_is_a_key_at_once(host: Host, database: Database):
    first = await host.signing()
    await later(database, 400 * DAY)
    await host.keys.refresh()
    assert await host.signing() != first
    assert (await host.tokens.verify(await host.issue())).account_name == "ada"


async def test_hosts_that_start_together_agree(database: Database, at_once: None):
    hosts = [Host(database) for _ in range(4)]
    await asyncio.gather(*(one.keys.refresh() for one in hosts))
    tokens = [await one.issue() for one in hosts]
    for one in hosts:
        for token in tokens:
            assert (await one.tokens.verify(token)).account_name == "ada"
    for one in hosts:
        await one.keys.refresh()
    assert len({await one.signing() for one in hosts}) == 1


async def test_hosts_that_change_keys_together_agree(host: Host, other: Host, database: Database, at_once: None):
    await later(database, 31 * DAY)
    await asyncio.gather(host.keys.refresh(), other.keys.refresh())
    await later(database, 11 * MINUTE)
    await asyncio.gather(host.keys.refresh(), other.keys.refresh())
    assert await host.signing() == await other.signing()
    assert await host.published() == await other.published()


async def test_a_host_that_never_looked_issues_and_verifies(database: Database):
    assert (await Host(database).tokens.verify(await Host(database).issue())).account_name == "ada"


async def test_a_flood_of_unknown_keys_is_one_look_a_second(host: Host, database: Database):
    header, payload, signature = (await host.issue()).split(".")
    plain = unpack(header)
    asked: list[str] = []
    started = time.monotonic()
    database.observe = lambda kind, _: asked.append(kind)
    await asyncio.gather(
        *(refuse(host, f"{pack({**plain, 'kid': f'unknown{n}'})}.{payload}.{signature}") for n in range(300))
    )
    assert len(asked) <= 1 + (time.monotonic() - started)


async def test_a_flood_on_a_host_that_never_looked_is_one_look(host: Host, database: Database):
    token = await host.issue()
    fresh = Host(database)
    asked: list[str] = []
    started = time.monotonic()
    database.observe = lambda kind, _: asked.append(kind)
    await asyncio.gather(*(fresh.tokens.verify(token) for _ in range(50)))
    assert len(asked) <= 1 + (time.monotonic() - started)
