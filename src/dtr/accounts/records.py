"""What the database keeps of an account, and how accounts are called."""

from __future__ import annotations

import re
import unicodedata
import uuid
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct
from sqlalchemy import bindparam, select

from dtr.accounts.errors import AccountNameInvalid, BadCredentials
from dtr.db import Statement
from dtr.db.schema import accounts
from dtr.events import Actor, Object

if TYPE_CHECKING:
    from dtr.db import Row, Transaction

AccountKind: TypeAlias = Literal["user", "organization", "robot"]

SHARED_ORGANIZATION = "docker-datacenter"
"""There from the start, as in DTR."""
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LONGEST_NAME = 100

ACCOUNT_COLUMNS = (
    accounts.c.id,
    accounts.c.name,
    accounts.c.kind,
    accounts.c.full_name,
    accounts.c.is_admin,
    accounts.c.is_active,
    accounts.c.is_auditor,
    accounts.c.is_imported,
    accounts.c.organization_id,
)
"""What `account_of` reads, in its order."""
_PROOF = Statement(
    lambda: (
        select(accounts.c.is_active, accounts.c.password_hash)
        .where(accounts.c.id == bindparam("account"))
        .with_for_update(key_share=True)
    )
)


class Account(Struct, frozen=True):
    """A user, an organisation, or a robot of an organisation, which is called ``organisation+robot``."""

    id: str
    name: str
    kind: AccountKind
    full_name: str
    is_admin: bool
    is_active: bool
    is_auditor: bool = False
    is_imported: bool = False
    organization_id: str | None = None

    def acting(self, address: str = "") -> Actor:
        """The account as the one who does something, from `address`."""
        return Actor("robot" if self.kind == "robot" else "user", self.id, self.name, address)

    def as_object(self, content: str = "") -> Object:
        """The account as what an event is about."""
        return Object("account", self.id, self.name, content)


def account_of(row: Row) -> Account:
    """The account of a row that begins with `ACCOUNT_COLUMNS`."""
    number, name, kind, full_name, is_admin, is_active, is_auditor, is_imported, organization, *_ = row
    return Account(
        number,
        name,
        kind,
        full_name,
        bool(is_admin),
        bool(is_active),
        bool(is_auditor),
        bool(is_imported),
        organization,
    )


async def require_proof(tx: Transaction, account: str, proof: str) -> None:
    """
    Let through a log-in whose password opens the account still; `proof` is the stored hash that it fitted.

    Who changes the password, or logs in, at the same time waits. Raises BadCredentials.
    """
    row = await tx.fetch_one(_PROOF, account=account)
    if row is None or not row[0] or row[1] != proof:
        raise BadCredentials


def new_id() -> str:
    """An id for an account or team."""
    return str(uuid.uuid4())


def is_id(text: str) -> bool:
    """Whether a text can only be an id: nothing is called so (`check_name`)."""
    return _ID.fullmatch(text) is not None


def check_name(name: str) -> None:
    """Raise AccountNameInvalid for what can be the name of no account or team."""
    if len(name) > _LONGEST_NAME or _NAME.fullmatch(name) is None:
        raise AccountNameInvalid(
            f"a name is lower-case letters and digits with single '.', '_', '-' between, at most {_LONGEST_NAME}"
        )
    if is_id(name):
        raise AccountNameInvalid("a name that looks like an id could mean something else")


def findable(name: str) -> str:
    """`name`, or what nothing is called: not every text can be sent to a database."""
    return name if name.isascii() and name.isprintable() else ""


def folded(text: str) -> str:
    """A text as it is compared when case and ways to write a letter do not count."""
    return unicodedata.normalize("NFKC", text).casefold()
