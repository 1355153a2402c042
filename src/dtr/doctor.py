"""
The doctor: looks at everything that a server needs, and says what to do about what is wrong.

It makes nothing that is not there: what a start would make anew may be a mount that is missing.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import select

from dtr.app import open_signer, open_storage
from dtr.backends import DEFAULT, BackendRefused, Backends, Own
from dtr.db import DatabaseError, SchemaNewer, SchemaOutdated, Statement, now, open_database
from dtr.db.migrate import check
from dtr.db.schema import blobs
from dtr.db.texts import HAS_TEXTS
from dtr.pki import Certificate
from dtr.pki import examine as examine_certificate
from dtr.signer import SignerError
from dtr.storage import StorageError, StorageFull, Storages
from dtr.vault import Vault, VaultError

if TYPE_CHECKING:
    from dtr.config import Settings

_SQLITE = "sqlite:///"
_ASK = Statement(lambda: select(now()))
_SOME_BLOB = Statement(lambda: select(blobs.c.digest).limit(1))
_CLOCKS_MAY_DIFFER_MS = 5_000
_LEAST_FREE_SHARE = 0.05
_LEAST_FREE_BYTES = 1024**3


class Checked(Struct, frozen=True):
    """What was found about one subject."""

    good: bool
    subject: str
    text: str
    advice: str = ""


async def examine(settings: Settings) -> list[Checked]:
    """Check everything."""
    return [
        *await _database(settings),
        *await _storages(settings),
        *_certificates(settings),
        *await _signer(settings),
        *_space(settings),
    ]


def _lacks_database(settings: Settings) -> bool:
    """Whether there is no file to open: opening would make one."""
    url = settings.database_url
    return url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).exists()


async def _database(settings: Settings) -> list[Checked]:
    if _lacks_database(settings):
        advice = "`dtr serve` or `dtr migrate` makes it; --data-dir or database.url name another place"
        return [Checked(False, "database", f"there is no {settings.database_url.removeprefix(_SQLITE)}", advice)]
    try:
        database = open_database(settings.database_url)
    except DatabaseError as error:
        return [Checked(False, "database", _line(error), "check the file, its owner and its mode")]
    try:
        await check(database)
        before = time.time() * 1000
        row = await database.fetch_one(_ASK)
        after = time.time() * 1000
        has_texts = database.dialect == "sqlite" or await database.fetch_one(HAS_TEXTS) is not None
    except SchemaOutdated as error:
        return [Checked(False, "database", _line(error), "run `dtr migrate`")]
    except SchemaNewer as error:
        return [Checked(False, "database", _line(error), "start the version that wrote the data")]
    except DatabaseError as error:
        return [Checked(False, "database", _line(error), "check database.url, the server and the network")]
    finally:
        await database.close()
    found = [Checked(True, "database", f"{database.dialect} answers, its tables are current")]
    if not has_texts:
        advice = "CREATE EXTENSION pg_trgm in the database, as a role that may, and run `dtr migrate` again"
        found.append(Checked(True, "search", "has no index: the extension pg_trgm could not be made", advice))
    off = max(before - row[0], row[0] - after, 0) if row else 0
    if off > _CLOCKS_MAY_DIFFER_MS:
        advice = "synchronise the clocks of all hosts (chrony, systemd-timesyncd)"
        found.append(Checked(False, "clock", f"differs by {off / 1000:.0f} s from the database's", advice))
    else:
        found.append(Checked(True, "clock", "agrees with the database's"))
    return found


async def _signer(settings: Settings) -> list[Checked]:
    """Whether timestamps of content trust could be signed."""
    if not settings.trust.enabled or (settings.trust.signer.address is None and _lacks_database(settings)):
        return []
    remote = settings.trust.signer.address
    try:
        database = open_database(settings.database_url)
    except DatabaseError:  # that is found already
        return []
    signer = open_signer(settings, database)
    try:
        await signer.check()
    except SignerError as error:
        advice = f"restore {settings.passphrase_file}, or copy it from the host where the keys were made"
        if remote is not None:
            advice = "check trust.signer, that the signer runs, and that each trusts the other's certificate"
        return [Checked(False, "signer", _line(error), advice)]
    except DatabaseError:
        return []
    finally:
        await signer.close()
        await database.close()
    if remote is not None:
        return [Checked(True, "signer", f"{remote} answers"), *_shown_to_signer(settings)]
    found = [Checked(True, "signer", "has the passphrases of all keys")]
    file = settings.passphrase_file
    if file.exists() and file.stat().st_mode & 0o007:
        found.append(Checked(True, "signer", f"everybody on this host can read {file}", f"chmod 600 {file}"))
    return found


def _shown_to_signer(settings: Settings) -> list[Checked]:
    """What will soon be wrong with the certificate that the signer takes now."""
    given = settings.trust.signer
    assert given.certificate is not None
    assert given.key is not None
    shown = Certificate(given.certificate, given.key, None)
    advice = "bring a new one from the signer: `dtr signer certificates` makes it"
    return [
        Checked(not one.serious, "signer", f"{given.certificate}: {one.text}", advice)
        for one in examine_certificate(shown, (), dt.datetime.now(dt.UTC), "client")
    ]


async def _storages(settings: Settings) -> list[Checked]:
    """All storages of the installation; without tables, the one that the settings describe."""
    added = await _added_storages(settings)
    return [*([] if DEFAULT in added else await _storage(settings)), *added.values()]


async def _added_storages(settings: Settings) -> dict[str, Checked]:
    """What was found about each storage that the database describes; a database that fails is found already."""
    if _lacks_database(settings):
        return {}
    found: dict[str, Checked] = {}
    try:
        storages = Storages({DEFAULT: settings.storage_parameters.open(settings.data_dir.absolute())}, DEFAULT)
        database = open_database(settings.database_url)
    except (DatabaseError, StorageError):
        return {}
    own = Own(settings.storage.driver, settings.storage_parameters)
    key_file = settings.secret_key_file
    backends = Backends(database, Vault(key_file), storages, own, spool_directory=settings.data_dir.absolute())
    try:
        await check(database)
        for one in await backends.list_storages():
            if one.is_from_settings:
                continue
            if one.secrets and not key_file.exists():
                advice = "restore it, or give the storage its secrets again: `dtr storage set`"
                text = f"{one.name}: the key of its secrets, {key_file}, is missing"
                found[one.name] = Checked(False, "storage", text, advice)
                continue
            try:
                await backends.check(one.name)
            except (BackendRefused, VaultError) as error:
                advice = f"check {one.place}, its credentials (`dtr storage set`) and the network"
                found[one.name] = Checked(False, "storage", _line(error), advice)
            else:
                text = f"{one.name}, {one.driver}: wrote, read and deleted a small object"
                found[one.name] = Checked(True, "storage", text)
    except DatabaseError:
        pass
    finally:
        await storages.close()
        await database.close()
    return found


async def _storage(settings: Settings) -> list[Checked]:
    name = settings.storage.driver
    advice = "check the settings in storage, the credentials and the network"
    if name == "filesystem":
        root = settings.blob_directory
        advice = f"check the owner and the mode of {root}, and how it is mounted"
        if not root.is_dir():
            if settings.storage.filesystem.root is None and not await _holds_blobs(settings):
                return [Checked(True, "storage", f"`dtr serve` will make {root}")]
            advice = f"make {root}; when something was pushed already, mount or restore it"
            return [Checked(False, "storage", f"there is no directory {root}", advice)]
    try:
        storage = open_storage(settings)
    except StorageError as error:
        return [Checked(False, "storage", _line(error), advice)]
    try:
        await storage.check()
    except StorageFull as error:
        return [Checked(False, "storage", _line(error), "make room, then pushes go on by themselves")]
    except StorageError as error:
        return [Checked(False, "storage", _line(error), advice)]
    finally:
        await storage.close()
    return [Checked(True, "storage", f"{name}: wrote, read and deleted a small object")]


async def _holds_blobs(settings: Settings) -> bool:
    """Whether something was pushed, as far as is known: a database that fails is a finding of its own."""
    if _lacks_database(settings):
        return False
    try:
        database = open_database(settings.database_url)
        try:
            await check(database)
            return await database.fetch_one(_SOME_BLOB) is not None
        finally:
            await database.close()
    except DatabaseError:
        return False


def _certificates(settings: Settings) -> list[Checked]:
    if settings.https_address is None:
        return [Checked(True, "certificate", "none needed: TLS is done elsewhere")]
    own = settings.data_dir / "tls"
    if settings.tls.certificate is not None and settings.tls.key is not None:
        certificate = Certificate(settings.tls.certificate, settings.tls.key, settings.tls.ca)
        advice = "put a good certificate into the files of tls.certificate and tls.key, and restart"
    elif (own / "server.pem").exists():
        certificate = Certificate(own / "server.pem", own / "server-key.pem", own / "ca.pem")
        advice = f"restart: dtr renews what it made itself; {own} must be writable"
    else:
        return [Checked(True, "certificate", "`dtr serve` will make one")]
    names = [*settings.tls.names]
    if settings.external_host:
        names.append(settings.external_host)
    findings = examine_certificate(certificate, names, dt.datetime.now(dt.UTC))
    if not findings:
        return [Checked(True, "certificate", f"{certificate.chain} is good")]
    return [Checked(not one.serious, "certificate", one.text, advice) for one in findings]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _space(settings: Settings) -> list[Checked]:
    places = {"data": settings.data_dir}
    if settings.storage.driver == "filesystem":
        places["blobs"] = settings.blob_directory
    found = []
    for name, place in places.items():
        if not place.exists():
            continue
        status = os.statvfs(place)
        free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
        text = f"{name}: {free / 1024**3:.1f} GiB of {total / 1024**3:.1f} GiB free in {place}"
        if free < _LEAST_FREE_BYTES or free < total * _LEAST_FREE_SHARE:
            found.append(Checked(False, "space", text, "make room: pushes fail with 507 when there is none"))
        else:
            found.append(Checked(True, "space", text))
    return found
