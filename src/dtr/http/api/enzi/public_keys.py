"""``/enzi/v0/accounts/{account}/publicKeys``: keys that sign in the name of an account."""

from __future__ import annotations

from fastapi import Response  # noqa: TC002 - operations need it
from pydantic import Field

from dtr.accounts import Certificate, PublicKey
from dtr.http.api.caller import CallerDep
from dtr.http.api.enzi.records import List, Route
from dtr.http.api.enzi.rights import managed, seen
from dtr.http.api.errors import errors
from dtr.http.api.models import Form, Record
from dtr.http.api.operations import Router
from dtr.http.api.paging import ListDep
from dtr.http.api.rooms import RoomsDep

router = Router(prefix="/enzi/v0/accounts/{account}/publicKeys", tags=["enzi"], route_class=Route)


class CertificateForm(Form):
    """A certificate of a key."""

    label: str = ""
    cert: str = Field(description="PEM; those that signed it may follow.")


class CertificateRecord(Record):
    """A certificate of a key."""

    label: str
    cert: str


class PublicKeyRecord(Record):
    """A public key of an account."""

    id: str = Field(description="SHA-256 of the key's DER form, hexadecimal.")
    account_id: str = Field(alias="accountID")
    public_key: str = Field(description="PEM.")
    label: str
    certificates: list[CertificateRecord]

    @classmethod
    def of(cls, key: PublicKey) -> PublicKeyRecord:
        """The record of a key."""
        return cls(
            id=key.id,
            account_id=key.account_id,
            public_key=key.public_key,
            label=key.label,
            certificates=[CertificateRecord(label=one.label, cert=one.cert) for one in key.certificates],
        )


class PublicKeyList(List):
    """A page of keys."""

    account_pub_keys: list[PublicKeyRecord]


class PublicKeyForm(Form):
    """A key to be kept."""

    public_key: str = Field(description="PEM.")
    label: str = ""
    certificates: list[CertificateForm] = Field([], description="Certificates that were made for the key.")


class PublicKeyChange(Form):
    """What of a key is to be changed; what is missing stays."""

    label: str | None = None
    certificates: list[CertificateForm] | None = None


@router.get("", summary="An account's public keys", responses=errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT"))
async def list_public_keys(
    account: str, page: ListDep, caller: CallerDep, rooms: RoomsDep, response: Response
) -> PublicKeyList:
    """For any user. In the order of ids."""
    owner = await seen(caller, rooms.accounts, account)
    found = await rooms.accounts.public_keys.list_keys(owner.id, start=page.start, limit=page.limit)
    listed = PublicKeyList(
        account_pub_keys=[PublicKeyRecord.of(one) for one in found[: page.size]],
        next_page_start=found[page.size].id if len(found) > page.size else "",
    )
    listed.told(response)
    return listed


@router.post(
    "",
    status_code=201,
    summary="Keep a public key",
    responses=errors("INVALID_PUBLIC_KEY", "PUBLIC_KEY_EXISTS", "NOT_AUTHORIZED", "NO_SUCH_ACCOUNT"),
)
async def create_public_key(
    account: str, form: PublicKeyForm, caller: CallerDep, rooms: RoomsDep
) -> PublicKeyRecord:
    """For the user itself, for owners of the organization, and for administrators."""
    owner = await managed(caller, rooms.accounts, account)
    made = await rooms.accounts.public_keys.create(
        owner.id,
        form.public_key,
        label=form.label,
        certificates=_certificates(form.certificates),
        by=caller.actor,
    )
    return PublicKeyRecord.of(made)


@router.get(
    "/{key_id}",
    summary="A public key",
    responses=errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT", "NO_SUCH_PUBLIC_KEY"),
)
async def get_public_key(account: str, key_id: str, caller: CallerDep, rooms: RoomsDep) -> PublicKeyRecord:
    """For any user."""
    owner = await seen(caller, rooms.accounts, account)
    return PublicKeyRecord.of(await rooms.accounts.public_keys.get(owner.id, key_id))


@router.patch(
    "/{key_id}",
    summary="Change the label and the certificates of a public key",
    responses=errors("INVALID_PUBLIC_KEY", "NOT_AUTHORIZED", "NO_SUCH_ACCOUNT", "NO_SUCH_PUBLIC_KEY"),
)
async def update_public_key(
    account: str, key_id: str, form: PublicKeyChange, caller: CallerDep, rooms: RoomsDep
) -> PublicKeyRecord:
    """For the user itself, for owners of the organization, and for administrators."""
    owner = await managed(caller, rooms.accounts, account)
    changed = await rooms.accounts.public_keys.update(
        owner.id,
        key_id,
        label=form.label,
        certificates=None if form.certificates is None else _certificates(form.certificates),
        by=caller.actor,
    )
    return PublicKeyRecord.of(changed)


@router.delete(
    "/{key_id}",
    status_code=204,
    summary="Forget a public key",
    responses=errors("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT", "NO_SUCH_PUBLIC_KEY"),
)
async def delete_public_key(account: str, key_id: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """For the user itself, for owners of the organization, and for administrators."""
    owner = await managed(caller, rooms.accounts, account)
    await rooms.accounts.public_keys.delete(owner.id, key_id, by=caller.actor)


def _certificates(forms: list[CertificateForm]) -> list[Certificate]:
    return [Certificate(one.label, one.cert) for one in forms]
