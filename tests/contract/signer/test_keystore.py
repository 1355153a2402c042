"""How keys are kept: encrypted with passphrases that are not in the database, and what happens to damaged ones."""

from __future__ import annotations

import asyncio
import base64
import re
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key
from joserfc import jwe
from joserfc.jwk import OctKey
from sqlalchemy import bindparam, select, update

from dtr.db import Database, Statement, open_database
from dtr.db.schema import signer_keys
from dtr.signer import LocalSigner, SignerFailed
from dtr.signer import local as local_module

CONTENT = b'{"_type":"Timestamp","version":1}'
_ALL = Statement(select(signer_keys).order_by(signer_keys.c.key_id))
_DAMAGE = Statement(
    update(signer_keys)
    .values(private=bindparam("private"), public=bindparam("public"), alias=bindparam("alias"))
    .where(signer_keys.c.key_id == bindparam("id"))
)


async def rows(database: Database) -> dict[str, dict]:
    names = [column.name for column in signer_keys.columns]
    return {row[0]: dict(zip(names, row, strict=True)) for row in await database.fetch_all(_ALL)}


async def damage(database: Database, key_id: str, **changes) -> None:
    row = (await rows(database))[key_id]
    values = {name: changes.get(name, row[name]) for name in ("private", "public", "alias")}

    async def work(tx):
        assert await tx.execute(_DAMAGE, id=key_id, **values) == 1

    await database.unit(work)


def entries(file: Path) -> dict[str, str]:
    return dict(line.split() for line in file.read_text().splitlines())


async def make(signer: LocalSigner, count: int, algorithm: str = "ecdsa") -> list[str]:
    return [(await signer.create_key(f"host/ada/app{n}", "timestamp", algorithm)).id for n in range(count)]


async def sign_all(signer: LocalSigner, keys: list[str]) -> None:
    for one in keys:
        key = await signer.find_key(one)
        signature = await signer.sign(one, CONTENT)
        assert key is not None
        assert key.verifies(signature.method, signature.content, CONTENT)


async def test_private_keys_are_encrypted_as_notary_does(
    local: LocalSigner, database: Database, passphrases: Path
):
    """Compact JWE, with the payload of section 5.2; opened here without the code that made it."""
    made = {algorithm: (await make(local, 1, algorithm))[0] for algorithm in ("ecdsa", "ed25519")}
    found = await rows(database)
    known = entries(passphrases)
    opened = {}
    for algorithm, key_id in made.items():
        row = found[key_id]
        algorithms = ["PBES2-HS256+A128KW", "A256GCM"]
        key = OctKey.import_key(known[row["alias"]].encode())
        plain = jwe.decrypt_compact(row["private"], key, algorithms=algorithms)
        assert (plain.protected["alg"], plain.protected["enc"]) == tuple(algorithms)
        opened[algorithm] = plain.plaintext
    ecdsa = load_der_private_key(opened["ecdsa"], None)
    assert isinstance(ecdsa, ec.EllipticCurvePrivateKey)
    assert b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01" not in opened["ecdsa"]  # SEC 1, not PKCS#8
    public = bytes(found[made["ed25519"]]["public"])
    assert (len(opened["ed25519"]), opened["ed25519"][:32], opened["ed25519"][64:]) == (96, public, public)
    # Neither the keys nor the passphrases are anywhere in the database.
    secret = ecdsa.private_numbers().private_value.to_bytes(32)
    secrets = [secret, opened["ed25519"][32:64], *(one.encode() for one in known.values())]
    everything = " ".join(str(value) for row in found.values() for value in row.values()).encode()
    for one in secrets:
        for form in (one, one.hex().encode(), base64.b64encode(one), base64.urlsafe_b64encode(one)):
            assert form not in everything
    if database.dialect == "sqlite":
        kept = b"".join(one.read_bytes() for one in passphrases.parent.parent.glob("metadata.db*"))
        assert made["ecdsa"].encode() in kept
        assert not any(one in kept for one in secrets)


async def test_the_passphrase_is_in_a_file_of_its_owner(local: LocalSigner, passphrases: Path):
    await make(local, 2)
    assert passphrases.stat().st_mode & 0o777 == 0o600
    ((_, made),) = entries(passphrases).items()
    assert len(made) == 64
    assert [one.name for one in passphrases.parent.iterdir()] == [passphrases.name]


async def test_many_processes_make_one_file(database: Database, passphrases: Path):
    signers = [LocalSigner(database, passphrases) for _ in range(8)]
    keys = await asyncio.gather(
        *(one.create_key(f"host/ada/app{n}", "timestamp", "ecdsa") for n, one in enumerate(signers))
    )
    assert len(entries(passphrases)) == 1
    await sign_all(LocalSigner(database, passphrases), [key.id for key in keys])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "holds no passphrase"),
        ("# nothing\n\n", "holds no passphrase"),
        ("alias\n", "line 1"),
        ("alias short\n", "at least 32"),
        (f"a {'x' * 32}\na {'y' * 32}\n", "line 2"),
        (f"-a {'x' * 32}\n", "line 1"),
        (b"\xff", "UTF-8"),
    ],
)
async def test_a_file_that_cannot_be_used(tmp_path: Path, content: str | bytes, reason: str):
    """Nothing is ever kept without encryption, and no message repeats what the file holds."""
    file = tmp_path / "passphrases"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    database = open_database(f"sqlite:///{tmp_path / 'none.db'}")
    try:
        with pytest.raises(SignerFailed, match=reason) as caught:
            await LocalSigner(database, file).check()
    finally:
        await database.close()
    assert "short" not in str(caught.value)
    assert "xxx" not in str(caught.value)


async def test_given_passphrases_are_used_as_they_are(local: LocalSigner, database: Database, passphrases: Path):
    passphrases.parent.mkdir()
    passphrases.write_text(f"# ours\nfirst   a passphrase with spaces, long enough\nsecond\t{'y' * 40}  \n")
    (key,) = await make(local, 1)
    assert (await rows(database))[key]["alias"] == "first"
    await sign_all(LocalSigner(database, passphrases), [key])
    assert "# ours" in passphrases.read_text()


async def test_another_passphrase_opens_nothing(local: LocalSigner, database: Database, passphrases: Path):
    (key,) = await make(local, 1)
    ((alias, right),) = entries(passphrases).items()
    passphrases.write_text(f"{alias} {'z' * 64}\n")
    fresh = LocalSigner(database, passphrases)
    with pytest.raises(SignerFailed, match="another passphrase") as caught:
        await fresh.sign(key, CONTENT)
    assert "zzz" not in str(caught.value)
    passphrases.write_text(f"other {'z' * 64}\n")
    with pytest.raises(SignerFailed, match=f"no passphrase {alias}"):
        await fresh.sign(key, CONTENT)
    with pytest.raises(SignerFailed, match=f"no passphrase {alias}"):
        await fresh.check()
    # A key that could not sign is a pending one, and signs when its passphrase is back.
    passphrases.write_text(f"{alias} {right}\n")
    assert await make(fresh, 1) == [key]
    await sign_all(fresh, [key])
    await fresh.check()


async def test_a_file_that_was_lost_is_not_made_anew(local: LocalSigner, database: Database, passphrases: Path):
    """A new one would hide that it was lost, or is on another host."""
    await local.check()
    assert not passphrases.exists()
    (key,) = await make(local, 1)
    passphrases.rename(passphrases.with_name("elsewhere"))
    fresh = LocalSigner(database, passphrases)
    for asked in (fresh.check(), fresh.create_key("host/ada/b", "timestamp", "ecdsa"), fresh.rotate_passphrase()):
        with pytest.raises(SignerFailed, match="share the file"):
            await asked
    with pytest.raises(SignerFailed, match="cannot be used"):
        await fresh.sign(key, CONTENT)
    assert not passphrases.exists()
    passphrases.with_name("elsewhere").rename(passphrases)
    await sign_all(fresh, [key])


async def test_damaged_rows_sign_nothing(local: LocalSigner, database: Database, passphrases: Path):
    keys = await make(local, 6)
    before = await rows(database)
    privates = [before[one]["private"] for one in keys]
    header, *rest = privates[2].split(".")
    many = base64.urlsafe_b64encode(
        re.sub(rb'"p2c":\s*\d+', b'"p2c":99999999', base64.urlsafe_b64decode(header + "=="))
    )
    await damage(database, keys[0], private="nothing")
    await damage(database, keys[1], private=f"{privates[1][:-4]}AAAA")
    await damage(database, keys[2], private=".".join([many.decode().rstrip("="), *rest]))
    await damage(database, keys[3], private=privates[4])  # the key of another
    await damage(database, keys[5], public=before[keys[4]]["public"])
    fresh = LocalSigner(database, passphrases)
    for one in keys[:4]:
        with pytest.raises(SignerFailed, match=one):
            await fresh.sign(one, CONTENT)
    with pytest.raises(SignerFailed, match=keys[5]):
        await fresh.find_key(keys[5])
    await sign_all(fresh, [keys[4]])


async def test_keys_in_memory_are_bounded(local: LocalSigner, monkeypatch):
    monkeypatch.setattr(local_module, "_REMEMBERED", 3)
    keys = await make(local, 5)
    await sign_all(local, keys)
    assert list(local._opened) == keys[2:]
    await sign_all(local, keys)


async def test_signing_asks_the_database_once(local: LocalSigner, database: Database):
    """And writes once: with the first signature."""
    (key,) = await make(local, 1)
    used: list[str] = []
    database.observe = lambda kind, _seconds: used.append(kind)
    await local.sign(key, CONTENT)
    assert sorted(used) == ["read", "write"]
    used.clear()
    await local.sign(key, CONTENT)
    assert used == ["read"]


async def test_a_passphrase_is_replaced_while_keys_are_made_and_sign(
    local: LocalSigner, database: Database, passphrases: Path
):
    keys = await make(local, 6)
    (old,) = entries(passphrases)
    going_on = True
    made: list[str] = []

    async def go_on(number: int) -> None:
        other = LocalSigner(database, passphrases)
        count = 0
        while going_on:
            key = await other.create_key(f"host/bob/app{number}-{count}", "snapshot", "ed25519")
            made.append(key.id)
            count += 1
            await other.sign(keys[count % len(keys)], CONTENT)
            await asyncio.sleep(0.02)

    others = [asyncio.create_task(go_on(number)) for number in range(2)]
    for _ in range(2):
        rotation = await LocalSigner(database, passphrases).rotate_passphrase()
        assert rotation.keys >= 6
        assert not rotation.failed
        assert list(entries(passphrases)) == [rotation.alias] != [old]
    going_on = False
    await asyncio.gather(*others)
    assert made
    assert {row["alias"] for row in (await rows(database)).values()} == {rotation.alias}
    fresh = LocalSigner(database, passphrases)
    await sign_all(fresh, keys)
    for one in made:
        assert await fresh.sign(one, b'{"_type":"Snapshot","version":1}')
    await sign_all(local, keys)  # those that it remembers, too


async def test_a_key_that_is_encrypted_anew_after_its_row_was_read_signs(
    local: LocalSigner, database: Database, passphrases: Path, monkeypatch
):
    (key,) = await make(local, 1)
    fresh = LocalSigner(database, passphrases)
    find = fresh._passphrases.find

    async def overtaken(alias: str) -> str:
        monkeypatch.undo()
        assert (await local.rotate_passphrase()).keys == 1
        return await find(alias)

    monkeypatch.setattr(fresh._passphrases, "find", overtaken)
    await sign_all(fresh, [key])


async def test_a_rotation_that_was_cut_off_is_begun_again(
    local: LocalSigner, database: Database, passphrases: Path, monkeypatch
):
    monkeypatch.setattr(local_module, "_BATCH", 2)
    monkeypatch.setattr(local_module, "_OLD", Statement(local_module._OLD.clause.limit(2)))
    keys = await make(local, 7)

    class Cut(Exception):
        pass

    def cut(rotation) -> None:
        if rotation.keys >= 4:
            raise Cut

    with pytest.raises(Cut):
        await local.rotate_passphrase(progress=cut)
    assert len({row["alias"] for row in (await rows(database)).values()}) == 2
    await sign_all(LocalSigner(database, passphrases), keys)
    rotation = await LocalSigner(database, passphrases).rotate_passphrase()
    assert (rotation.keys, len(rotation.unused)) == (7, 2)
    assert list(entries(passphrases)) == [rotation.alias]
    await sign_all(LocalSigner(database, passphrases), keys)


async def test_what_cannot_be_opened_keeps_its_passphrase(
    local: LocalSigner, database: Database, passphrases: Path
):
    keys = await make(local, 3)
    ((old, _),) = entries(passphrases).items()
    await damage(database, keys[1], private="damaged")
    rotation = await local.rotate_passphrase()
    assert (rotation.keys, list(rotation.failed), rotation.unused) == (2, [keys[1]], [])
    assert list(entries(passphrases)) == [rotation.alias, old]
    await sign_all(LocalSigner(database, passphrases), [keys[0], keys[2]])


async def test_a_file_that_others_distribute_stays_as_it_is(
    local: LocalSigner, database: Database, passphrases: Path
):
    keys = await make(local, 3)
    ((old, secret),) = entries(passphrases).items()
    given = f"2027 {'n' * 40}\n{old} {secret}\n"
    passphrases.write_text(given)
    rotation = await local.rotate_passphrase(make=False)
    assert (rotation.alias, rotation.keys, rotation.unused) == ("2027", 3, [old])
    assert passphrases.read_text() == given
    passphrases.write_text(given.splitlines()[0])
    await sign_all(LocalSigner(database, passphrases), keys)


async def test_a_signer_that_cannot_sign_says_so(database: Database, passphrases: Path):
    passphrases.parent.mkdir()
    passphrases.write_text("broken\n")
    signer = LocalSigner(database, passphrases)
    with pytest.raises(SignerFailed):
        await signer.check()
    with pytest.raises(SignerFailed):
        await signer.create_key("host/ada/app", "timestamp", "ecdsa")
    assert await rows(database) == {}
