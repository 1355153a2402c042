"""
``/orgs/{org}/settings``: its name, what has to be signed, other registries, whose signatures count, and its end.

Each part is for who may see it; members look, owners change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dtr.accounts import Operation
from dtr.http.api import listings, remotes, repositories, robots, signatures
from dtr.http.api.enzi import accounts
from dtr.http.api.errors import ApiError
from dtr.http.ui import enforcement
from dtr.http.ui.keeping import keep_secrets, not_stored, read_secrets
from dtr.http.ui.organizations import Organization, organization
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from dtr.http.ui.visit import Visit

pages = Pages()

_AT_ONCE = 25
_NAMED = 5
"""So many repositories are named that go with an organisation."""
_REMOTE = {
    "INVALID_REMOTE": "remote_host",
    "REMOTE_EXISTS": "name",
    "remoteHost": "remote_host",
    "authToken": "auth_token",
    "remoteCA": "remote_ca",
}
_SECRETS = ("password", "auth_token")


@pages.get("/orgs/{org}/settings")
async def show_settings(visit: Visit) -> Response:
    """All parts that the visitor may see."""
    return await _show(visit, await _seen(visit))


@pages.post("/orgs/{org}/settings")
async def change_settings(visit: Visit) -> Response:
    """Change the full name."""
    org = await _seen(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    full_name = await visit.text("full_name")
    try:
        await visit.submit(
            accounts.update_account,
            account=org.name,
            form=accounts.AccountChange,
            data={"fullName": full_name},
            fields={"fullName": "full_name"},
        )
    except Refused as refused:
        return await _show(visit, org, full_name, refused)
    return visit.redirect(f"{org.url}/settings", visit._("The full name was changed."))


async def _seen(visit: Visit) -> Organization:
    """The organisation of the address, when the visitor sees some of its settings. Raises ApiError."""
    org = await organization(visit)
    if not org.may("SEE_NAMESPACE_ACCESS"):
        raise ApiError("NOT_AUTHORIZED")
    return org


async def _show(
    visit: Visit, org: Organization, full_name: str | None = None, refused: Refused | None = None
) -> Response:
    others = None
    if org.may("SEE_REMOTES"):
        others = await visit.listing(
            remotes.list_remotes, start=visit.query.get("remotes", "")[:255], size=_AT_ONCE, namespace=org.name
        )
    identities = await visit.listing(
        signatures.list_signing_identities,
        start=visit.query.get("identities", "")[:255],
        size=_AT_ONCE,
        namespace=org.name,
    )
    context: dict[str, Any] = {
        "org": org,
        "policy": await enforcement.load(visit, _place(org)),
        "others": others,
        "identities": identities,
        "full_name": org.record.full_name if full_name is None else full_name,
    }
    if refused is None:
        return visit.page("organizations/settings.html", **context)
    return visit.refuse("organizations/settings.html", refused, **context)


# --- what has to be signed --------------------------------------------------------------------------------------


def _place(org: Organization) -> enforcement.Place:
    return enforcement.Place(
        kind="namespace",
        name=org.name,
        url=f"{org.url}/settings/signing",
        may_edit=org.may("MANAGE_NAMESPACE_ACCESS"),
        template="organizations/signing.html",
        context={"org": org},
    )


async def _find_place(visit: Visit) -> enforcement.Place:
    return _place(await _seen(visit))


enforcement.add(pages, "/orgs/{org}/settings/signing", _find_place)

# --- other registries -------------------------------------------------------------------------------------------


def _blank() -> dict[str, Any]:
    return {
        "name": "",
        "remote_host": "",
        "username": "",
        "remote_ca": "",
        "skip": False,
    }


async def _typed(visit: Visit) -> dict[str, Any]:
    typed: dict[str, Any] = {
        name: await visit.text(name) for name in ("name", "remote_host", "username", "remote_ca", "forget")
    }
    typed["skip"] = await visit.text("skip") == "on"
    forgotten = _SECRETS if typed["forget"] == "on" else ()
    return typed | await read_secrets(visit, _SECRETS, visit.path, forgotten=forgotten)


async def _remote(visit: Visit, right: str) -> tuple[Organization, remotes.RemoteRecord]:
    """The organisation and the remote of the address, on which the visitor has a right. Raises ApiError."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation[right])
    found = await visit.call(remotes.get_remote, remote=visit.values["remote"])
    if found.namespace != org.name:
        raise ApiError("NO_SUCH_REMOTE", visit.values["remote"][:255])
    return org, found


def _shown(visit: Visit, org: Organization, remote: object, form: Mapping[str, Any], refused: Refused) -> Response:
    """The form again; secrets are kept, not sent back."""
    kept = keep_secrets(visit, {name: form[name] for name in _SECRETS}, visit.path)
    shown = {name: value for name, value in form.items() if name not in _SECRETS}
    return not_stored(
        visit.refuse("organizations/remote.html", refused, org=org, remote=remote, form=shown, kept=kept)
    )


@pages.get("/orgs/{org}/settings/remotes/new")
async def new_remote(visit: Visit) -> Response:
    """The form for one."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_REMOTES)
    return visit.page("organizations/remote.html", org=org, remote=None, form=_blank(), kept={})


@pages.post("/orgs/{org}/settings/remotes/new")
async def create_remote(visit: Visit) -> Response:
    """Keep another registry, and as whom it is asked."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_REMOTES)
    form = await _typed(visit)
    try:
        made = await visit.submit(
            remotes.create_remote,
            form=remotes.RemoteForm,
            data={
                "name": form["name"],
                "namespace": org.name,
                "remoteHost": form["remote_host"],
                "username": form["username"],
                "password": form["password"],
                "authToken": form["auth_token"],
                "remoteCA": form["remote_ca"],
                "skipTLSVerification": form["skip"],
            },
            fields=_REMOTE,
        )
    except Refused as refused:
        return _shown(visit, org, None, form, refused)
    said = visit._("{name} is kept now. Try it out before policies use it.", name=made.name)
    return visit.redirect(f"{org.url}/settings/remotes/{made.id}/check", said)


@pages.get("/orgs/{org}/settings/remotes/{remote}")
async def show_remote(visit: Visit) -> Response:
    """The form to change one."""
    org, remote = await _remote(visit, "MANAGE_REMOTES")
    form = {
        **_blank(),
        "name": remote.name,
        "remote_host": remote.remote_host,
        "username": remote.username,
        "remote_ca": remote.remote_ca,
        "skip": remote.skip_tls_verification,
        "forget": "",
    }
    return visit.page("organizations/remote.html", org=org, remote=remote, form=form, kept={})


@pages.post("/orgs/{org}/settings/remotes/{remote}")
async def change_remote(visit: Visit) -> Response:
    """Change one; a secret that was not typed stays, unless it is to be forgotten."""
    org, remote = await _remote(visit, "MANAGE_REMOTES")
    form = await _typed(visit)
    data: dict[str, Any] = {
        "name": form["name"],
        "remoteHost": form["remote_host"],
        "username": form["username"],
        "remoteCA": form["remote_ca"],
        "skipTLSVerification": form["skip"],
    }
    for secret, key in (("password", "password"), ("auth_token", "authToken")):
        if form[secret] or form["forget"] == "on":
            data[key] = form[secret]
    try:
        changed = await visit.submit(
            remotes.update_remote, form=remotes.RemoteChanges, data=data, fields=_REMOTE, remote=remote.id
        )
    except Refused as refused:
        return _shown(visit, org, remote, form, refused)
    return visit.redirect(f"{org.url}/settings", visit._("{name} was changed.", name=changed.name))


@pages.get("/orgs/{org}/settings/remotes/{remote}/check")
async def try_remote(visit: Visit) -> Response:
    """The form to try one out."""
    org, remote = await _remote(visit, "USE_REMOTES")
    return visit.page("organizations/remote_check.html", org=org, remote=remote, repository="", result=None)


@pages.post("/orgs/{org}/settings/remotes/{remote}/check")
async def check_remote(visit: Visit) -> Response:
    """Ask the other registry what may be done there."""
    org, remote = await _remote(visit, "USE_REMOTES")
    repository = await visit.text("repository")
    try:
        result = await visit.submit(
            remotes.check_stored_remote,
            form=remotes.RemoteCheckForm,
            data={"remoteRepository": repository},
            fields={"remoteRepository": "repository", "INVALID_REMOTE": "repository"},
            remote=remote.id,
        )
    except Refused as refused:
        return visit.refuse(
            "organizations/remote_check.html", refused, org=org, remote=remote, repository=repository, result=None
        )
    return visit.page(
        "organizations/remote_check.html", org=org, remote=remote, repository=repository, result=result
    )


@pages.get("/orgs/{org}/settings/remotes/{remote}/delete")
async def ask_to_delete_remote(visit: Visit) -> Response:
    """Say what ends."""
    org, remote = await _remote(visit, "MANAGE_REMOTES")
    return _ask_about_remote(visit, org, remote)


def _ask_about_remote(
    visit: Visit, org: Organization, remote: remotes.RemoteRecord, problems: Problems | None = None
) -> Response:
    return visit.confirm(
        visit._("Delete the registry {name}", name=remote.name),
        verb=visit._("Delete the registry"),
        text=visit._(
            "Its address and what logs in there are forgotten. Nothing changes at {host}.", host=remote.remote_host
        ),
        problems=problems,
        back=f"{org.url}/settings",
    )


@pages.post("/orgs/{org}/settings/remotes/{remote}/delete")
async def delete_remote(visit: Visit) -> Response:
    """Forget one that no policy uses."""
    org, remote = await _remote(visit, "MANAGE_REMOTES")
    try:
        await visit.submit(remotes.delete_remote, remote=remote.id)
    except Refused as refused:
        return _ask_about_remote(visit, org, remote, refused.problems)
    return visit.redirect(f"{org.url}/settings", visit._("{name} was deleted.", name=remote.name))


# --- whose signatures count -------------------------------------------------------------------------------------


@pages.get("/orgs/{org}/settings/identities/new")
async def new_identity(visit: Visit) -> Response:
    """The form for one."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_SIGNING_IDENTITIES)
    form = {"name": "", "kind": "key", "content": "", "subject": ""}
    return visit.page("organizations/identity.html", org=org, identity=None, form=form)


@pages.get("/orgs/{org}/settings/identities/{identity}")
async def show_identity(visit: Visit) -> Response:
    """One, and the form to give it another key."""
    org = await _seen(visit)
    found = await visit.call(
        signatures.get_signing_identity, identity=visit.values["identity"], namespace=org.name
    )
    form = {"name": found.name, "kind": found.kind, "content": found.content, "subject": found.subject}
    return visit.page("organizations/identity.html", org=org, identity=found, form=form)


@pages.post("/orgs/{org}/settings/identities/new", "/orgs/{org}/settings/identities/{identity}")
async def put_identity(visit: Visit) -> Response:
    """Let somebody's signatures count."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_SIGNING_IDENTITIES)
    form = {name: await visit.text(name) for name in ("name", "kind", "content", "subject")}
    identity = None
    if "identity" in visit.values:
        identity = await visit.call(
            signatures.get_signing_identity, identity=visit.values["identity"], namespace=org.name
        )
        form["name"] = identity.name
    try:
        if not form["name"]:
            raise Refused(Problems(fields={"name": visit._("Fill in this field.")}))
        if identity is None:
            await _require_new(visit, org, form["name"])
        made = await visit.submit(
            signatures.put_signing_identity,
            form=signatures.SigningIdentityForm,
            data={name: form[name] for name in ("kind", "content", "subject")},
            identity=form["name"],
            namespace=org.name,
        )
    except Refused as refused:
        _find_field(refused.problems)
        return visit.refuse("organizations/identity.html", refused, org=org, identity=identity, form=form)
    said = visit._(
        "Signatures of {name} count in all repositories of {organization} now.",
        name=made.name,
        organization=org.name,
    )
    return visit.redirect(f"{org.url}/settings", said)


async def _require_new(visit: Visit, org: Organization, name: str) -> None:
    """Raise Refused when there is one of this name: a new one is not to take its place unseen."""
    listed = await visit.listing(signatures.list_signing_identities, start=name[:255], size=1, namespace=org.name)
    if listed.records and listed.records[0].name == name:
        raise Refused(Problems(fields={"name": visit._("There is an identity of this name.")}))


def _find_field(problems: Problems) -> None:
    """Put what the API says of an identity beside the field that it is about."""
    if problems.code != "INVALID_SIGNING_IDENTITY" or not problems.general:
        return
    text = problems.general.pop()
    name = "content"
    if problems.detail.startswith("a name"):
        name = "name"
    elif "subject" in problems.detail:
        name = "subject"
    problems.add(name, text)


@pages.get("/orgs/{org}/settings/identities/{identity}/delete")
async def ask_to_delete_identity(visit: Visit) -> Response:
    """Say what ends."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_SIGNING_IDENTITIES)
    name = visit.values["identity"]
    await visit.call(signatures.get_signing_identity, identity=name, namespace=org.name)
    return visit.confirm(
        visit._("Delete the identity {name}", name=name),
        verb=visit._("Delete the identity"),
        action=quote(visit.path),
        text=visit._("Its signatures stay, and count no more. What only it signed may be refused from then on."),
        back=f"{org.url}/settings",
    )


@pages.post("/orgs/{org}/settings/identities/{identity}/delete")
async def delete_identity(visit: Visit) -> Response:
    """Let its signatures count no more."""
    org = await organization(visit)
    name = visit.values["identity"]
    await visit.call(signatures.delete_signing_identity, identity=name, namespace=org.name)
    return visit.redirect(f"{org.url}/settings", visit._("The identity {name} was deleted.", name=name))


# --- its end ----------------------------------------------------------------------------------------------------


@pages.get("/orgs/{org}/delete")
async def ask_to_delete(visit: Visit) -> Response:
    """Say what goes with it."""
    org = await organization(visit)
    visit.caller.require(Operation.ADMINISTER)
    return await _ask_to_delete(visit, org)


async def _ask_to_delete(visit: Visit, org: Organization, problems: Problems | None = None) -> Response:
    owned = await visit.listing(
        listings.search_repositories, start="", size=_NAMED, namespace=org.name, count=True
    )
    robots_of = await visit.listing(robots.list_robots, start="", size=1, orgname=org.name, count=True)
    items = [
        visit.n_(
            "{n} repository goes, with all of its tags.",
            "{n} repositories go, with all of their tags.",
            owned.count or 0,
        )
    ]
    names = [f"{one.repository.namespace}/{one.repository.name}" for one in owned.records.repositories]
    if names:
        more = (owned.count or 0) - len(names)
        items += names
        if more > 0:
            items.append(visit.n_("and {n} more", "and {n} more", more))
    items += [
        visit.n_(
            "{n} team goes, with what it was granted.",
            "{n} teams go, with what they were granted.",
            org.record.teams_count or 0,
        ),
        visit.n_("{n} robot goes, with its tokens.", "{n} robots go, with their tokens.", robots_of.count or 0),
    ]
    stay = visit.n_(
        "{n} person stays a user of the registry.",
        "{n} people stay users of the registry.",
        org.record.members_count or 0,
    )
    final = visit._("This cannot be undone. The space is freed by the next garbage collection.")
    return visit.confirm(
        visit._("Delete {organization} and all that it has", organization=org.name),
        verb=visit._("Delete the organization"),
        text=f"{stay} {final}",
        items=items,
        typed=org.name,
        problems=problems,
        back=f"{org.url}/settings",
    )


@pages.post("/orgs/{org}/delete")
async def delete_organization(visit: Visit) -> Response:
    """Remove it and its repositories, once its name was typed; signed tags keep it."""
    org = await organization(visit)
    visit.caller.require(Operation.ADMINISTER)
    if await visit.text("typed") != org.name:
        problems = Problems(fields={"typed": visit._("This is not the name.")})
        return await _ask_to_delete(visit, org, problems)
    try:
        await visit.submit(repositories.delete_namespace, namespace=org.name)
    except Refused as refused:
        return await _ask_to_delete(visit, org, refused.problems)
    return visit.redirect("/orgs", visit._("{name} was deleted.", name=org.name))
