"""What opens an account: access tokens, sessions, and the public keys that sign in its name."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from msgspec import Struct

from dtr.http.api import sessions, tokens
from dtr.http.api.enzi import public_keys
from dtr.http.api.errors import ApiError
from dtr.http.api.models import NEVER
from dtr.http.ui.accounts import shown_once
from dtr.http.ui.pages import Pages
from dtr.http.ui.people import client_name, find_person
from dtr.http.ui.problems import Problems, Refused

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.api.enzi.public_keys import PublicKeyRecord
    from dtr.http.api.tokens import TokenRecord
    from dtr.http.ui.people import Person
    from dtr.http.ui.visit import Visit

pages = Pages()

LEVELS: dict[str, list[str]] = {
    "pull": ["pull"],
    "push": ["pull", "push"],
    "delete": ["pull", "push", "delete"],
    "admin": ["pull", "push", "delete", "admin"],
}
"""What a token may be good for, one more than the other; `all`: there is no scope."""
ENDS = {"7": 7, "30": 30, "90": 90, "365": 365}
"""In so many days a token ends."""
UNUSED = (30, 90, 180, 365)
"""Days without use after which tokens may be deleted together."""
_KINDS = ("user", "auto")


async def _whose(visit: Visit, *, manages: bool = False) -> Person:
    """The user, for who may see (or change) what opens the account. Raises ApiError."""
    person = await find_person(visit)
    if not (person.manages if manages else person.sees):
        raise ApiError("NOT_AUTHORIZED")
    return person


# --- access tokens ----------------------------------------------------------------------------------------------


@pages.get("/users/{name}/access-tokens")
async def list_tokens(visit: Visit) -> Response:
    """The tokens of a user, or the clients that are logged in."""
    person = await _whose(visit)
    kind = "auto" if visit.query.get("show") == "auto" else "user"
    listing = await visit.listing(
        tokens.list_tokens, count=True, username=person.name, generatedby=kind, order="newest"
    )
    other = await visit.listing(
        tokens.list_tokens,
        start="",
        size=25,
        count=True,
        username=person.name,
        generatedby="user" if kind == "auto" else "auto",
    )
    counts = {kind: listing.count, "user" if kind == "auto" else "auto": other.count}
    return visit.page(
        "account/tokens.html",
        person=person,
        listing=listing,
        kind=kind,
        counts=counts,
        now=dt.datetime.now(dt.UTC),
        level_of=level_of,
        client_name=client_name,
        NEVER=NEVER,
    )


def level_of(token: TokenRecord) -> str:
    """Which of `LEVELS` a token has; `all` without a scope, empty for another choice of actions."""
    if token.scope is None:
        return "all"
    return next((name for name, actions in LEVELS.items() if set(actions) == set(token.scope.actions)), "")


@pages.get("/users/{name}/access-tokens/new")
async def new_token(visit: Visit) -> Response:
    """The form for one."""
    person = await _whose(visit, manages=True)
    return visit.page("account/token_new.html", person=person, form=_FORM, ends=ENDS)


_FORM = {"label": "", "level": "push", "repositories": "", "end": "90", "day": ""}


@pages.post("/users/{name}/access-tokens/new")
async def create_token(visit: Visit) -> Response:
    """Make one; its secret is shown now, and never again."""
    person = await _whose(visit, manages=True)
    typed = {name: await visit.text(name) for name in _FORM}
    problems = Problems()
    data: dict[str, object] = {"tokenLabel": typed["label"]}
    if not typed["label"]:
        problems.add("label", visit._("Say what the token is for, so that you know later which one to delete."))
    if typed["level"] in LEVELS:
        paths = typed["repositories"].split() or ["*"]
        data["scope"] = {"repositories": paths, "actions": LEVELS[typed["level"]]}
    elif typed["level"] != "all":
        problems.add("level", visit._("Choose one of the values."))
    elif typed["repositories"].split():
        problems.add(
            "repositories", visit._("A token for everything is not bound to repositories. Leave this empty.")
        )
    end = _end(typed["end"], typed["day"])
    if end is None:
        problems.add("day", visit._("Choose a day in the future."))
    elif end:
        data["expiresAt"] = end
    try:
        if problems:
            raise Refused(problems)
        made = await visit.submit(
            tokens.create_token,
            form=tokens.TokenForm,
            data=data,
            fields={"INVALID_TOKEN_SCOPE": "repositories", "tokenLabel": "label"},
            username=person.name,
            user_agent=visit.request.headers.get("user-agent", ""),
        )
    except Refused as refused:
        return visit.refuse("account/token_new.html", refused, person=person, form=typed, ends=ENDS)
    return shown_once(visit.page("account/token_made.html", person=person, token=made))


def _end(choice: str, day: str) -> str | None:
    """The moment (RFC 3339) at which a token ends; empty: never; None: that is no day to come."""
    now = dt.datetime.now(dt.UTC)
    if choice == "never":
        return ""
    if choice in ENDS:
        return (now + dt.timedelta(days=ENDS[choice])).isoformat()
    try:
        end = dt.datetime.fromisoformat(day).replace(hour=23, minute=59, second=59, tzinfo=dt.UTC)
    except ValueError:
        return None
    return end.isoformat() if end > now else None


class Token(Struct, frozen=True):
    """The token that a page is about, and whose it is."""

    person: Person
    record: TokenRecord

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.person.url}/access-tokens/{self.record.hashed_token}"


async def _token(visit: Visit, *, manages: bool = False) -> Token:
    person = await _whose(visit, manages=manages)
    record = await visit.call(tokens.get_token, hashedtoken=visit.values["token"])
    if record.username != person.name:
        raise ApiError("NO_SUCH_API_TOKEN", record.hashed_token)
    return Token(person, record)


@pages.get("/users/{name}/access-tokens/{token}")
async def show_token(visit: Visit) -> Response:
    """One token."""
    return _show_token(visit, await _token(visit))


def _show_token(visit: Visit, token: Token, refused: Refused | None = None, label: str | None = None) -> Response:
    return visit.page(
        "account/token.html",
        refused.status if refused else 200,
        token=token,
        person=token.person,
        label=token.record.token_label if label is None else label,
        level=level_of(token.record),
        now=dt.datetime.now(dt.UTC),
        client=client_name(token.record.creator_ua),
        NEVER=NEVER,
        problems=refused.problems if refused else Problems(),
    )


@pages.post("/users/{name}/access-tokens/{token}")
async def change_token(visit: Visit) -> Response:
    """Rename it, switch it off or on."""
    token = await _token(visit, manages=True)
    active, label = await visit.text("active"), await visit.text("label")
    data: dict[str, object] = {"isActive": active == "on"} if active else {"tokenLabel": label}
    try:
        await visit.submit(
            tokens.update_token,
            form=tokens.TokenChange,
            data=data,
            fields={"INVALID_TOKEN": "label"},
            hashedtoken=token.record.hashed_token,
        )
    except Refused as refused:
        return _show_token(visit, token, refused, label)
    if active == "on":
        return visit.redirect(token.url, visit._("The token works again."), undo=(token.url, {"active": "off"}))
    if active:
        return visit.redirect(
            token.url, visit._("The token opens nothing now."), undo=(token.url, {"active": "on"})
        )
    return visit.redirect(token.url, visit._("Saved."))


@pages.get("/users/{name}/access-tokens/{token}/delete")
async def ask_to_delete_token(visit: Visit) -> Response:
    """What ends with a token."""
    token = await _token(visit, manages=True)
    label = token.record.token_label or token.record.hashed_token[:12]
    return visit.confirm(
        visit._("Delete the token {label}", label=label)
        if token.record.generated_by == "user"
        else visit._("Log this client out"),
        verb=visit._("Delete token") if token.record.generated_by == "user" else visit._("Log out"),
        text=visit._("What uses it can no longer pull or push, from this moment on. This cannot be undone."),
        back=token.url,
    )


@pages.post("/users/{name}/access-tokens/{token}/delete")
async def delete_token(visit: Visit) -> Response:
    """End it."""
    token = await _token(visit, manages=True)
    await visit.call(tokens.delete_token, hashedtoken=token.record.hashed_token)
    clients = token.record.generated_by == "auto"
    return visit.redirect(
        f"{token.person.url}/access-tokens{'?show=auto' if clients else ''}",
        visit._("The client is logged out.") if clients else visit._("The token is deleted."),
    )


@pages.get("/users/{name}/access-tokens/delete-unused")
async def ask_to_delete_unused(visit: Visit) -> Response:
    """Which tokens go because nobody uses them."""
    person = await _whose(visit, manages=True)
    days, kind = _unused(visit.query.get("days", ""), visit.query.get("show", ""))
    text = (
        visit.n_(
            "All access tokens of {name} that were not used in the last {n} day stop working.",
            "All access tokens of {name} that were not used in the last {n} days stop working.",
            days,
            name=person.name,
        )
        if kind == "user"
        else visit.n_(
            "All clients of {name} that did nothing in the last {n} day are logged out.",
            "All clients of {name} that did nothing in the last {n} days are logged out.",
            days,
            name=person.name,
        )
    )
    return visit.confirm(
        visit._("Delete what is not used"),
        verb=visit._("Delete unused"),
        text=text,
        items=[visit._("Those that were never used go when they were made before that. This cannot be undone.")],
        fields={"days": str(days), "show": kind},
        back=f"{person.url}/access-tokens?{urlencode({'show': kind})}",
    )


@pages.post("/users/{name}/access-tokens/delete-unused")
async def delete_unused(visit: Visit) -> Response:
    """Delete the tokens that nobody uses."""
    person = await _whose(visit, manages=True)
    days, kind = _unused(await visit.text("days"), await visit.text("show"))
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    done = await visit.call(
        tokens.delete_tokens, username=person.name, usedbefore=before.isoformat(), generatedby=kind
    )
    return visit.redirect(
        f"{person.url}/access-tokens?{urlencode({'show': kind})}",
        visit.n_("{n} deleted.", "{n} deleted.", done.deleted),
    )


def _unused(days: str, kind: str) -> tuple[int, str]:
    return (int(days) if days in map(str, UNUSED) else 90), (kind if kind in _KINDS else "user")


# --- sessions ---------------------------------------------------------------------------------------------------


@pages.get("/users/{name}/sessions")
async def list_sessions(visit: Visit) -> Response:
    """Where the user is logged in with the password."""
    person = await _whose(visit)
    listing = await visit.listing(sessions.list_sessions, count=True, username=person.name)
    return visit.page("account/sessions.html", person=person, listing=listing, client_name=client_name)


@pages.get("/users/{name}/sessions/end")
async def ask_to_end_sessions(visit: Visit) -> Response:
    """Ask before all of them end."""
    person = await _whose(visit, manages=True)
    if person.is_self:
        title, verb = visit._("End all your other sessions"), visit._("End other sessions")
        text = visit._("Whoever uses them has to log in again. This one goes on. Access tokens stay.")
    else:
        title, verb = visit._("End all sessions of {name}", name=person.name), visit._("End all sessions")
        text = visit._("Whoever uses them has to log in again. Access tokens stay.")
    return visit.confirm(title, verb=verb, text=text, back=f"{person.url}/sessions")


@pages.post("/users/{name}/sessions/end")
async def end_sessions(visit: Visit) -> Response:
    """End one, or all but the visitor's own."""
    person = await _whose(visit, manages=True)
    session = await visit.text("session")
    if session:
        ended = (await visit.call(sessions.delete_session, session=session)).ended
    else:
        ended = (await visit.call(sessions.delete_sessions, username=person.name)).ended
    return visit.redirect(
        f"{person.url}/sessions", visit.n_("{n} session is over.", "{n} sessions are over.", ended)
    )


# --- public keys ------------------------------------------------------------------------------------------------


class Key(Struct, frozen=True):
    """A public key, and what it is."""

    record: PublicKeyRecord
    kind: str
    """Like ``EC secp256r1`` or ``RSA 4096``."""


def key_of(record: PublicKeyRecord) -> Key:
    """What a key is."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key(record.public_key.encode())
    if isinstance(key, EllipticCurvePublicKey):
        return Key(record, f"EC {key.curve.name}")
    if isinstance(key, RSAPublicKey):
        return Key(record, f"RSA {key.key_size}")
    return Key(record, "Ed25519" if isinstance(key, Ed25519PublicKey) else "")


@pages.get("/users/{name}/keys")
async def list_keys(visit: Visit) -> Response:
    """The keys of a user; any user sees them."""
    person = await find_person(visit)
    listing = await visit.listing(public_keys.list_public_keys, account=person.name)
    keys = [key_of(one) for one in listing.records.account_pub_keys]
    return visit.page("account/keys.html", person=person, listing=listing, keys=keys)


_KEY_FIELDS = {"INVALID_PUBLIC_KEY": "publicKey", "PUBLIC_KEY_EXISTS": "publicKey"}


@pages.get("/users/{name}/keys/new")
async def new_key(visit: Visit) -> Response:
    """The form for one."""
    person = await _whose(visit, manages=True)
    return visit.page(
        "account/key_new.html", person=person, form={"label": "", "publicKey": "", "certificate": ""}
    )


@pages.post("/users/{name}/keys/new")
async def create_key(visit: Visit) -> Response:
    """Keep one."""
    person = await _whose(visit, manages=True)
    typed = {name: await visit.text(name) for name in ("label", "publicKey", "certificate")}
    data: dict[str, object] = {"publicKey": typed["publicKey"], "label": typed["label"]}
    if typed["certificate"]:
        data["certificates"] = [{"label": typed["label"], "cert": typed["certificate"]}]
    try:
        await visit.submit(
            public_keys.create_public_key,
            form=public_keys.PublicKeyForm,
            data=data,
            fields=_KEY_FIELDS,
            account=person.name,
        )
    except Refused as refused:
        return visit.refuse("account/key_new.html", refused, person=person, form=typed)
    return visit.redirect(f"{person.url}/keys", visit._("The key is added."))


@pages.get("/users/{name}/keys/{key}")
async def show_key(visit: Visit) -> Response:
    """One key."""
    return await _show_key(visit, await find_person(visit))


async def _show_key(visit: Visit, person: Person, refused: Refused | None = None, **typed: str) -> Response:
    record = await visit.call(public_keys.get_public_key, account=person.name, key_id=visit.values["key"])
    form = {
        "label": record.label,
        "certificates": "\n".join(one.cert.strip() for one in record.certificates),
        **typed,
    }
    return visit.page(
        "account/key.html",
        refused.status if refused else 200,
        person=person,
        key=key_of(record),
        form=form,
        problems=refused.problems if refused else Problems(),
    )


@pages.post("/users/{name}/keys/{key}")
async def change_key(visit: Visit) -> Response:
    """Its label, and its certificates."""
    person = await _whose(visit, manages=True)
    typed = {name: await visit.text(name) for name in ("label", "certificates")}
    old = await visit.call(public_keys.get_public_key, account=person.name, key_id=visit.values["key"])
    labels = {one.cert.strip(): one.label for one in old.certificates}
    data = {
        "label": typed["label"],
        "certificates": [
            {"label": labels.get(one, typed["label"]), "cert": one} for one in _certificates(typed["certificates"])
        ],
    }
    try:
        await visit.submit(
            public_keys.update_public_key,
            form=public_keys.PublicKeyChange,
            data=data,
            fields={"INVALID_PUBLIC_KEY": "certificates"},
            account=person.name,
            key_id=old.id,
        )
    except Refused as refused:
        return await _show_key(visit, person, refused, **typed)
    return visit.redirect(f"{person.url}/keys", visit._("Saved."))


def _certificates(text: str) -> list[str]:
    """The certificates (PEM) of a text; what is no certificate stays one piece, to be refused as a whole."""
    end = "-----END CERTIFICATE-----"
    pieces = text.replace("\r\n", "\n").split(end)
    found = [f"{one.strip()}\n{end}" for one in pieces[:-1]]
    rest = pieces[-1].strip()
    return [*found, rest] if rest else found


@pages.get("/users/{name}/keys/{key}/delete")
async def ask_to_delete_key(visit: Visit) -> Response:
    """Ask before a key is forgotten."""
    person = await _whose(visit, manages=True)
    record = await visit.call(public_keys.get_public_key, account=person.name, key_id=visit.values["key"])
    return visit.confirm(
        visit._("Remove the key {label}", label=record.label or record.id[:12]),
        verb=visit._("Remove key"),
        text=visit._("Signatures with this key no longer count as those of {name}.", name=person.name),
        items=[visit._("SHA-256 {digest}", digest=record.id)],
        back=f"{person.url}/keys/{quote(record.id)}",
    )


@pages.post("/users/{name}/keys/{key}/delete")
async def delete_key(visit: Visit) -> Response:
    """Forget it."""
    person = await _whose(visit, manages=True)
    await visit.call(public_keys.delete_public_key, account=person.name, key_id=visit.values["key"])
    return visit.redirect(f"{person.url}/keys", visit._("The key is removed."))
