"""
``/system/settings/security``: what has to be signed, whose signatures count, sessions, and the certificate.

Signing identities of the whole registry are managed here; those of a namespace with the namespace.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from dtr.accounts import Operation
from dtr.http.api import signatures, system
from dtr.http.api.enzi import config
from dtr.http.api.errors import ApiError
from dtr.http.api.signatures import SigningIdentityForm
from dtr.http.ui import enforcement
from dtr.http.ui.enforcement import Place
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused
from dtr.signatures import IdentityUnknown

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.api.signatures import SigningIdentityRecord
    from dtr.http.ui.visit import Visit

pages = Pages()

_HERE = "/system/settings/security"
_SOON = dt.timedelta(days=30)
KINDS = ("key", "certificate", "keyless")


def N_(text: str) -> str:  # noqa: N802 - the word by which texts are found
    """A text that is translated where it is shown."""
    return text


_SAYINGS = (
    ("a name has at most", "name", N_("At most 100 letters, digits, spaces, “.”, “_” and “-”.")),
    ("a key has no subject", "subject", N_("A key has no subject: leave this empty.")),
    ("issuer of a keyless identity", "content", N_("Type the address of the issuer, with https://.")),
    ("a keyless identity has a subject", "subject", N_("Type the mail address or URL of who signs.")),
    (
        "no trust root of sigstore",
        "kind",
        N_("Log-ins count for nobody: the configuration names no trust root of sigstore."),
    ),
    ("subject", "subject", N_("This is no list of attributes like CN=release,O=Acme.")),
)
"""What the API says in a refusal, the field that it is about, and what a page says."""


async def _place(visit: Visit) -> Place:
    visit.caller.require(Operation.SEE_SYSTEM)
    return Place(
        kind="registry",
        name="",
        url=f"{_HERE}/signing",
        may_edit=visit.may("ADMINISTER"),
        template="system/signing.html",
    )


enforcement.add(pages, f"{_HERE}/signing", _place)


@pages.get(_HERE)
async def show_security(visit: Visit) -> Response:
    """What holds now."""
    visit.caller.require(Operation.SEE_SYSTEM)
    policy = await enforcement.load(visit, await _place(visit))
    identities = await visit.listing(signatures.list_signing_identities, count=True)
    tls = await visit.call(system.get_certificate)
    return visit.page(
        "system/security.html",
        policy=policy,
        identities=identities,
        sessions=await visit.call(config.get_session_settings),
        tls=tls,
        ends_soon=bool(tls.chain) and tls.chain[0].ends_at - dt.datetime.now(dt.UTC) < _SOON,
        admin=visit.may("ADMINISTER"),
    )


@pages.get(f"{_HERE}/identities/new")
async def show_new_identity(visit: Visit) -> Response:
    """The form for one more."""
    visit.caller.require(Operation.ADMINISTER)
    kind = visit.query.get("kind", "key")
    return _form(visit, None, {"name": "", "kind": kind if kind in KINDS else "key", "content": "", "subject": ""})


@pages.post(f"{_HERE}/identities/new")
async def make_identity(visit: Visit) -> Response:
    """Register whose signatures count; a name that is taken is refused."""
    visit.caller.require(Operation.ADMINISTER)
    typed = {name: await visit.text(name) for name in ("name", "kind", "content", "subject")}
    problems = Problems()
    if not typed["name"]:
        problems.add("name", visit._("Fill in this field."))
    elif await _find(visit, typed["name"]) is not None:
        problems.add("name", visit._("There is an identity of this name."))
    try:
        if problems:
            raise Refused(problems)
        await _put(visit, typed["name"], typed)
    except Refused as refused:
        return _form(visit, None, typed, refused)
    said = visit._(
        "Signatures of {name} count now. Those that are there are verified again soon.", name=typed["name"]
    )
    return visit.redirect(f"{_HERE}#identities", said)


@pages.get(f"{_HERE}/identities/{{identity}}")
async def show_identity(visit: Visit) -> Response:
    """An identity: its form for administrators."""
    record = await _get(visit)
    return _form(visit, record, {"kind": record.kind, "content": record.content, "subject": record.subject})


@pages.post(f"{_HERE}/identities/{{identity}}")
async def change_identity(visit: Visit) -> Response:
    """Give an identity another key."""
    visit.caller.require(Operation.ADMINISTER)
    record = await _get(visit)
    typed = {name: await visit.text(name) for name in ("kind", "content", "subject")}
    try:
        await _put(visit, record.name, typed)
    except Refused as refused:
        return _form(visit, record, typed, refused)
    return visit.redirect(f"{_HERE}#identities", visit._("The identity {name} is saved.", name=record.name))


@pages.get(f"{_HERE}/identities/{{identity}}/delete")
async def ask_to_revoke(visit: Visit) -> Response:
    """Ask before an identity is revoked."""
    visit.caller.require(Operation.ADMINISTER)
    record = await _get(visit)
    return visit.confirm(
        visit._("Revoke the signing identity {name}?", name=record.name),
        verb=visit._("Revoke the identity"),
        text=visit._("The signatures stay, and count again when the same key is registered again."),
        items=[
            visit._("What it signed counts as unsigned at once, in all repositories."),
            visit._("Where policies refuse what is unsigned, pulls of it fail."),
        ],
        back=_HERE,
    )


@pages.post(f"{_HERE}/identities/{{identity}}/delete")
async def revoke(visit: Visit) -> Response:
    """Revoke an identity."""
    name = visit.values["identity"]
    await visit.call(signatures.delete_signing_identity, identity=name)
    return visit.redirect(f"{_HERE}#identities", visit._("The signing identity {name} is revoked.", name=name))


async def _find(visit: Visit, name: str) -> SigningIdentityRecord | None:
    try:
        return await visit.call(signatures.get_signing_identity, identity=name)
    except IdentityUnknown:
        return None


async def _get(visit: Visit) -> SigningIdentityRecord:
    """The identity of the address. Raises ApiError."""
    visit.caller.require(Operation.SEE_SYSTEM)
    record = await _find(visit, visit.values["identity"])
    if record is None:
        raise ApiError("NO_SUCH_SIGNING_IDENTITY", visit.values["identity"][:255])
    return record


async def _put(visit: Visit, name: str, typed: dict[str, Any]) -> None:
    """Save an identity. Raises Refused, with the API's words in the visitor's."""
    data = {key: typed[key] for key in ("kind", "content", "subject")}
    try:
        await visit.submit(signatures.put_signing_identity, form=SigningIdentityForm, data=data, identity=name)
    except Refused as refused:
        problems = refused.problems
        for known, field, text in _SAYINGS:
            if known in problems.detail:
                problems.general.clear()
                problems.add(field, visit._(text))
                break
        else:
            if problems.code == "INVALID_SIGNING_IDENTITY":
                problems.general.clear()
                problems.add("content", visit._("This cannot be read as what was chosen."))
        raise


def _form(
    visit: Visit, record: SigningIdentityRecord | None, typed: dict[str, Any], refused: Refused | None = None
) -> Response:
    return visit.page(
        "system/identity.html",
        refused.status if refused else 200,
        record=record,
        typed=typed,
        problems=refused.problems if refused else Problems(),
        admin=visit.may("ADMINISTER"),
    )
