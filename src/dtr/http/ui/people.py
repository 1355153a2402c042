"""The user that a page is about, and what the visitor has to do with that user."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from msgspec import Struct

from dtr.accounts import Operation, may
from dtr.http.api.enzi import accounts
from dtr.http.api.errors import ApiError

if TYPE_CHECKING:
    from dtr.http.api.enzi.records import DetailedAccountRecord
    from dtr.http.ui.visit import Visit


class Person(Struct, frozen=True):
    """A user."""

    record: DetailedAccountRecord
    """With its details when the visitor sees them."""
    is_self: bool
    sees: bool
    """The visitor is the user, or administers or audits the registry: sees what is not everybody's business."""
    administers: bool
    """The visitor administers the registry."""
    has_webhooks: bool
    """The visitor decides over the webhooks of the user's namespace."""

    @property
    def name(self) -> str:
        """What the user is called."""
        return self.record.name

    @property
    def url(self) -> str:
        """The address of the user's pages, without a slash at the end."""
        return f"/users/{quote(self.name)}"

    @property
    def manages(self) -> bool:
        """The visitor changes what is the user's own: tokens, sessions, keys."""
        return self.is_self or self.administers


async def find_person(visit: Visit) -> Person:
    """
    The user of the address, whose part is called `name`.

    Raises ApiError: NO_SUCH_ACCOUNT also for organisations and robots, which have other pages.
    """
    account = visit.require_login()
    name = visit.values["name"]
    is_self = name in {account.name, account.id}
    sees = is_self or visit.may("SEE_SYSTEM")
    record = await visit.call(accounts.get_account, account=name, details=sees)
    if record.is_org or "+" in record.name:
        raise ApiError("NO_SUCH_ACCOUNT", name)
    facts = (await visit.caller.standing(f"{record.name}/")).facts
    return Person(
        record,
        is_self,
        sees,
        visit.may("ADMINISTER"),
        may(facts, Operation.MANAGE_NAMESPACE_WEBHOOKS),
    )


# --- what clients call themselves -----------------------------------------------------------------------------

_BROWSERS = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)
_PRODUCT = re.compile(r"[\w.+-]+(?:/[\w.+-]+)?")


def client_name(user_agent: str) -> tuple[str, str]:
    """
    What a client is, by the header `User-Agent`, and on which system it runs: ``("Firefox", "Linux")``.

    Empty, what it does not tell. What is no browser is what it calls itself first, like ``docker/27.0``.
    """
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    if user_agent.startswith("Mozilla/"):
        return next((name for mark, name in _BROWSERS if mark in user_agent), ""), system
    product = _PRODUCT.match(user_agent)
    return (product.group() if product else user_agent[:40]), system
