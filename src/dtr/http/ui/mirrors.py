"""Mirroring policies: the form with its connection test and rule tester, one policy with its tags and history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from dtr.events import Filter
from dtr.http.api import events, mirroring, remotes
from dtr.http.api.errors import ApiError, refusal
from dtr.http.api.mirroring import MirroringPolicyChanges, MirroringPolicyForm
from dtr.http.api.remotes import RemoteCheckForm, RemoteRegistryForm
from dtr.http.ui import rules
from dtr.http.ui.keeping import keep_secrets, not_stored, read_secrets
from dtr.http.ui.pages import Pages
from dtr.http.ui.policies import (
    NEWEST,
    Draft,
    Tested,
    Verdict,
    check_rows,
    find_job,
    form_context,
    is_edit,
    read_fields,
    try_out,
    version_of,
    waits_for_scan,
)
from dtr.http.ui.problems import Problems, Refused
from dtr.http.ui.promotions import fault_of_template
from dtr.http.ui.schedules import in_words

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.api.mirroring import MirroringPolicyRecord
    from dtr.http.api.remotes import RemoteCheckRecord, RemoteRecord
    from dtr.http.ui.visit import Repository, Visit

pages = Pages()

_AT = "/repositories/{namespace}/{repo:path}/mirrors"
_SECRETS = ("password", "token")
_FIELDS = {
    "INVALID_REMOTE": "host",
    "NO_SUCH_REMOTE": "remote",
    "REMOTE_REGISTRY_INVALID_PERMISSIONS": "host",
    "REMOTE_REGISTRY_FAILED": "host",
    "remoteHost": "host",
    "remoteRepository": "repository",
    "username": "username",
    "password": "password",
    "authToken": "token",
    "remoteCA": "ca",
    "tagTemplate": "template",
    "schedule": "schedule",
}
_STATES = ("mirrored", "failed", "waiting", "skipped")


class MirrorDraft(Draft):
    """A mirroring policy as it stands in the form."""

    direction: Literal["push", "poll"] = "poll"
    remote: str = ""
    """Id of a stored remote; empty: the fields below."""
    host: str = ""
    repository: str = ""
    username: str = ""
    password: str = ""
    token: str = ""
    ca: str = ""
    skip_tls: bool = False
    template: str = "%n"
    referrers: bool = False
    deletions: bool = False
    schedule: str = ""

    @property
    def has_secret(self) -> bool:
        """Whether a password or a token was typed."""
        return bool(self.password or self.token)


class Connection(Struct, frozen=True):
    """What came of trying a remote out."""

    record: RemoteCheckRecord | None = None
    error: str = ""
    """What the API said instead."""


# --- the form -------------------------------------------------------------------------------------------------


@pages.get(f"{_AT}/new")
async def new_mirror(visit: Visit) -> Response:
    """The form of a new policy."""
    repo = await visit.repository("EDIT_POLICIES")
    draft = MirrorDraft(direction="push" if visit.query.get("direction") == "push" else "poll")
    return await _form(visit, repo, draft)


@pages.post(f"{_AT}/new")
async def create_mirror(visit: Visit) -> Response:
    """Make the policy, or do what a button of the form says."""
    repo = await visit.repository("EDIT_POLICIES")
    return await _save(visit, repo, None)


@pages.get(f"{_AT}/{{id}}/edit")
async def edit_mirror(visit: Visit) -> Response:
    """The form of a policy that is there."""
    repo, record = await _found(visit, manage=True)
    return await _form(visit, repo, _draft_of(record), record=record)


@pages.post(f"{_AT}/{{id}}/edit")
async def change_mirror(visit: Visit) -> Response:
    """Change the policy, or do what a button of the form says."""
    repo, record = await _found(visit, manage=True)
    return await _save(visit, repo, record)


def _draft_of(record: MirroringPolicyRecord) -> MirrorDraft:
    return MirrorDraft(
        rules.rows_of(record.rules),
        enabled=record.enabled,
        was=version_of(record),
        direction=record.mirroring_type,
        remote=record.remote_id,
        host=record.remote_host,
        repository=record.remote_repository,
        username=record.username,
        ca=record.remote_ca,
        skip_tls=record.skip_tls_verification,
        template=record.tag_template,
        referrers=record.with_referrers,
        deletions=record.with_deletions,
        schedule=record.schedule,
    )


async def _save(visit: Visit, repo: Repository, record: MirroringPolicyRecord | None) -> Response:
    draft, action = await _read(visit, record), await visit.text("do")
    if is_edit(draft, action):
        return await _form(visit, repo, draft, action, record=record)
    problems, status = _check(draft, visit), 422
    if record is not None and draft.was != version_of(record):
        problems.add(
            "", visit._("Somebody else changed this policy meanwhile. To save yours all the same, save again.")
        )
        draft.was, status = version_of(record), 409
    if problems:
        return await _form(visit, repo, draft, record=record, refused=Refused(problems, status))
    try:
        made = await _store(visit, repo, draft, record, applies=action == "apply")
    except Refused as refused:
        # Whose fault it is that the remote refuses, the steps say.
        tries = "connect" if refused.problems.code.startswith("REMOTE_") else ""
        return await _form(visit, repo, draft, tries, record=record, refused=refused)
    said = visit._("The policy is there now.") if record is None else visit._("The policy was changed.")
    return visit.redirect(f"{repo.url}/mirrors/{made.id}", said)


async def _store(
    visit: Visit, repo: Repository, draft: MirrorDraft, record: MirroringPolicyRecord | None, *, applies: bool
) -> MirroringPolicyRecord:
    if record is None:
        create = {
            "push": mirroring.create_repo_push_mirroring_policy,
            "poll": mirroring.create_repo_poll_mirroring_policy,
        }[draft.direction]
        return await visit.submit(
            create,
            form=MirroringPolicyForm,
            data=_data(draft),
            fields=_FIELDS,
            path=repo.path,
            initial_evaluation=applies,
        )
    changes = _changes(draft, record)
    if draft.direction == "push":
        return await visit.submit(
            mirroring.update_repo_push_mirroring_policy,
            form=MirroringPolicyChanges,
            data=changes,
            fields=_FIELDS,
            path=repo.path,
            pushmirroringpolicyid=record.id,
            initial_evaluation=applies,
        )
    return await visit.submit(
        mirroring.update_repo_poll_mirroring_policy,
        form=MirroringPolicyChanges,
        data=changes,
        fields=_FIELDS,
        path=repo.path,
        pollmirroringpolicyid=record.id,
        initial_evaluation=applies,
    )


async def _found(visit: Visit, *, manage: bool = False) -> tuple[Repository, MirroringPolicyRecord]:
    """The policy of the address. Raises ApiError: there is none, or (`manage`) the visitor may not change it."""
    repo = await visit.repository("EDIT_POLICIES" if manage else "SEE")
    for get, name in (
        (mirroring.get_repo_poll_mirroring_policy, "pollmirroringpolicyid"),
        (mirroring.get_repo_push_mirroring_policy, "pushmirroringpolicyid"),
    ):
        try:
            return repo, await visit.call(get, path=repo.path, **{name: visit.values["id"]})
        except ApiError as error:
            if not error.code.startswith("NO_SUCH_P"):
                raise
    raise ApiError("NO_SUCH_MIRRORING_POLICY")


async def _read(visit: Visit, record: MirroringPolicyRecord | None) -> MirrorDraft:
    fields = await read_fields(visit)
    secrets = await read_secrets(visit, _SECRETS, visit.path, strip=False)
    draft = MirrorDraft(
        rules.read_rows(fields),
        enabled="enabled" in fields,
        was=fields.get("was", ""),
        remote=fields.get("remote", ""),
        host=fields.get("host", "").strip()[:500],
        repository=fields.get("repository", "").strip()[:300],
        username=fields.get("username", "").strip()[:300],
        password=secrets["password"],
        token=secrets["token"],
        ca=fields.get("ca", "").strip(),
        skip_tls="skip_tls" in fields,
        template=fields.get("template", "").strip()[:300],
        referrers="referrers" in fields,
        deletions="deletions" in fields,
        schedule=fields.get("schedule", "").strip()[:100],
    )
    draft.direction = record.mirroring_type if record else "push" if fields.get("direction") == "push" else "poll"
    return draft


def _remote_data(draft: MirrorDraft) -> dict[str, object]:
    """The fields of the remote, for the API."""
    if draft.remote:
        return {"remoteID": draft.remote, "remoteRepository": draft.repository}
    return {
        "remoteHost": draft.host,
        "remoteRepository": draft.repository,
        "username": draft.username,
        "password": draft.password,
        "authToken": draft.token,
        "remoteCA": draft.ca,
        "skipTLSVerification": draft.skip_tls,
    }


def _data(draft: MirrorDraft) -> dict[str, object]:
    return {
        **_remote_data(draft),
        "enabled": draft.enabled,
        "rules": draft.documents,
        "tagTemplate": draft.template,
        "withReferrers": draft.referrers,
        "withDeletions": draft.deletions,
        "schedule": draft.schedule,
    }


def _changes(draft: MirrorDraft, record: MirroringPolicyRecord) -> dict[str, object]:
    """What is to be different: credentials that were not typed again stay."""
    data = _data(draft)
    for field_name, typed in (("password", draft.password), ("authToken", draft.token)):
        if not typed:
            data.pop(field_name, None)
    if draft.remote and draft.remote == record.remote_id:
        data.pop("remoteID", None)
    return data


def _check(draft: MirrorDraft, visit: Visit) -> Problems:
    problems = Problems()
    if not draft.remote and not draft.host:
        problems.add("host", visit._("Type the address of the other registry."))
    if not draft.repository:
        problems.add("repository", visit._("Type the repository there, like acme/app."))
    if draft.password and not draft.username and not draft.remote:
        problems.add("username", visit._("A password belongs to a user name."))
    check_rows(draft, problems, visit)
    if draft.direction == "poll" and any(not _asks_for_tag(one) for one in draft.rows):
        problems.add("", visit._("Rules of a pull ask for the tag name alone: the image is not here yet."))
    fault = fault_of_template(draft.template, visit)
    if fault:
        problems.add("template", fault)
    return problems


def _asks_for_tag(item: rules.Item) -> bool:
    if isinstance(item, rules.Group):
        return all(_asks_for_tag(one) for one in item.rows)
    return item.field == "tag"


async def _form(
    visit: Visit,
    repo: Repository,
    draft: MirrorDraft,
    action: str = "",
    *,
    record: MirroringPolicyRecord | None = None,
    refused: Refused | None = None,
) -> Response:
    tested: Tested | None = None
    connection: Connection | None = None
    if action == "connect":
        connection = await _connect(visit, repo, draft, record)
    if draft.direction == "push":
        tested = await _try(visit, repo, draft, everything=action == "test-all")
    elif action == "remote-tags":
        tested, connection = await _try_remote(visit, repo, draft, record)
    found = await _remotes(visit, repo)
    response = visit.page(
        "policies/mirror_form.html",
        refused.status if refused else 200,
        problems=refused.problems if refused else Problems(),
        repo=repo,
        record=record,
        remotes=found,
        options=[(one.id, f"{one.name} ({one.remote_host})") for one in found],
        connection=connection,
        template_fault=fault_of_template(draft.template, visit) if action else "",
        kept=keep_secrets(visit, {"password": draft.password, "token": draft.token}, visit.path),
        **form_context(draft, tested),
    )
    return not_stored(response)


async def _remotes(visit: Visit, repo: Repository) -> list[RemoteRecord]:
    """The stored remotes that the visitor may use here."""
    namespace = repo.record.namespace
    found: list[RemoteRecord] = []
    if await visit.may_in(namespace, "USE_REMOTES"):
        found += await visit.call(remotes.list_remotes, namespace=namespace)
    if visit.may("ADMINISTER"):
        found += await visit.call(remotes.list_remotes, namespace="")
    return found


async def _connect(
    visit: Visit, repo: Repository, draft: MirrorDraft, record: MirroringPolicyRecord | None
) -> Connection:
    """Try the remote out: with what was typed, or with the credentials that are kept."""
    is_same = record is not None and not draft.has_secret and _is_at(draft, record)
    try:
        if record is not None and is_same:
            found = await visit.call(
                mirroring.check_mirroring_policy, path=repo.path, mirroringpolicyid=record.id, explain=True
            )
        elif draft.remote:
            found = await visit.call(
                remotes.check_stored_remote,
                remote=draft.remote,
                form=RemoteCheckForm(remote_repository=draft.repository),
                explain=True,
            )
        else:
            found = await visit.call(
                remotes.create_remote_registry_check,
                form=RemoteRegistryForm.model_validate(_remote_data(draft)),
                explain=True,
            )
    except Exception as error:
        refused = refusal(error)
        if refused is None or refused.status >= 500 or refused.code == "NOT_AUTHENTICATED":
            raise
        detail = f" {refused.detail}" if isinstance(refused.detail, str) else ""
        return Connection(error=f"{visit._(refused.message)}{detail}")
    return Connection(found)


def _is_at(draft: MirrorDraft, record: MirroringPolicyRecord) -> bool:
    """Whether the form has the remote that the policy has."""
    return (draft.remote, draft.host, draft.repository, draft.username, draft.ca, draft.skip_tls) == (
        record.remote_id,
        record.remote_host,
        record.remote_repository,
        record.username,
        record.remote_ca,
        record.skip_tls_verification,
    )


async def _try(visit: Visit, repo: Repository, draft: MirrorDraft, *, everything: bool) -> Tested | None:
    """What a push policy would do; the remote is not asked."""
    problems = Problems()
    check_rows(draft, problems, visit)
    if problems or fault_of_template(draft.template, visit):
        return None
    data = {**_data(draft), "remoteRepository": "any/name", "schedule": ""}  # the test does not look at them
    return await try_out(
        visit,
        repo.path,
        mirroring.try_push_mirroring_policy,
        MirroringPolicyForm.model_validate(data),
        draft.rows,
        everything=everything,
        meant=lambda one: one.mirror and one.target_tag is not None,
    )


async def _try_remote(
    visit: Visit, repo: Repository, draft: MirrorDraft, record: MirroringPolicyRecord | None
) -> tuple[Tested | None, Connection | None]:
    """What a poll would bring: the tags there are asked for."""
    problems = Problems()
    check_rows(draft, problems, visit)
    if problems or _check(draft, visit):
        return None, None
    form: Any = MirroringPolicyForm.model_validate(_data(draft))
    try:
        found = await visit.listing(
            mirroring.try_poll_mirroring_policy,
            path=repo.path,
            form=form,
            explain=True,
            start="",
            size=NEWEST,
            count=True,
            like=record.id if record else "",
        )
    except Exception as error:
        refused = refusal(error)
        if refused is None or (refused.status >= 500 and refused.code != "REMOTE_REGISTRY_FAILED"):
            raise
        return None, await _connect(visit, repo, draft, record)
    verdicts = [
        Verdict(
            one.name,
            "yes" if one.mirror else "no",
            visit.words("All rules hold.") if one.mirror else visit.words("A rule does not hold."),
            one.target_tag or "",
        )
        for one in found.records
    ]
    matches = sum(one.mirror for one in found.records)
    return Tested(verdicts, matches, len(verdicts), found.count or 0), None


# --- one policy -----------------------------------------------------------------------------------------------


@pages.get(f"{_AT}/{{id}}")
async def show_mirror(visit: Visit) -> Response:
    """A policy: what it does, and what became of its tags."""
    repo, record = await _found(visit)
    return await _show(visit, repo, record, None)


async def _show(
    visit: Visit, repo: Repository, record: MirroringPolicyRecord, connection: Connection | None
) -> Response:
    rows = rules.rows_of(record.rules)
    state = visit.query.get("state", "")
    status: Any = state if state in _STATES else None
    tags = await visit.listing(
        mirroring.list_mirrored_tags, path=repo.path, mirroringpolicyid=record.id, status=status
    )
    history = None
    if repo.may("SEE_ALL_EVENTS"):
        namespace, _, name = repo.path.partition("/")
        kind: Any = "push_mirroring" if record.mirroring_type == "push" else "poll_mirroring"
        history = await visit.call(
            events.list_repo_events,
            namespace=namespace,
            reponame=name,
            wanted=Filter(actor=record.id, object_type=kind),
        )
    return visit.page(
        "policies/mirror.html",
        repo=repo,
        record=record,
        sentences=rules.sentences(rows, visit.words),
        needs_scan=waits_for_scan(rows),
        job=await find_job(visit, record.last_status.job),
        tags=tags,
        state=state,
        in_words=lambda schedule: in_words(visit.words, schedule),
        states=[(one, getattr(record.tags, one)) for one in _STATES],
        history=history,
        connection=connection,
    )


@pages.post(f"{_AT}/{{id}}/check")
async def check_mirror(visit: Visit) -> Response:
    """Try the remote of a policy out, with the credentials that are kept."""
    repo, record = await _found(visit, manage=True)
    return await _show(visit, repo, record, await _connect(visit, repo, _draft_of(record), record))


@pages.post(f"{_AT}/{{id}}/switch")
async def switch_mirror(visit: Visit) -> Response:
    """Switch a policy on or off."""
    repo, record = await _found(visit, manage=True)
    enabled = await visit.text("enabled") == "true"
    form = MirroringPolicyChanges(enabled=enabled)
    if record.mirroring_type == "push":
        await visit.call(
            mirroring.update_repo_push_mirroring_policy,
            path=repo.path,
            pushmirroringpolicyid=record.id,
            form=form,
            initial_evaluation=False,
        )
    else:
        await visit.call(
            mirroring.update_repo_poll_mirroring_policy,
            path=repo.path,
            pollmirroringpolicyid=record.id,
            form=form,
            initial_evaluation=False,
        )
    here = f"{repo.url}/mirrors/{record.id}"
    said = visit._("The policy is on.") if enabled else visit._("The policy is off.")
    return visit.redirect(here, said, undo=(f"{here}/switch", {"enabled": str(not enabled).lower()}))


@pages.post(f"{_AT}/{{id}}/run")
async def run_mirror(visit: Visit) -> Response:
    """Have a policy work now."""
    repo, record = await _found(visit, manage=True)
    await visit.call(
        mirroring.run_mirroring_policy,
        path=repo.path,
        mirroringpolicyid=record.id,
        everything=await visit.text("everything") == "true",
        any_deletions=await visit.text("deletions") == "any",
    )
    return visit.redirect(
        f"{repo.url}/mirrors/{record.id}", visit._("The policy works. What becomes of the tags stands below.")
    )


@pages.get(f"{_AT}/{{id}}/delete-there")
async def ask_deletions(visit: Visit) -> Response:
    """Ask before many tags go at the target, because they are gone at the source."""
    repo, record = await _found(visit, manage=True)
    there = f"{record.remote_host}/{record.remote_repository}"
    target = there if record.mirroring_type == "push" else repo.path
    return visit.confirm(
        visit._("Delete what is gone at the source"),
        action=f"{repo.url}/mirrors/{record.id}/run",
        verb=visit._("Delete at the target"),
        text=str(record.last_status.detail),
        items=[visit._("Tags are deleted in {target}.", target=target)],
        fields={"deletions": "any"},
        back=f"{repo.url}/mirrors/{record.id}",
    )


@pages.get(f"{_AT}/{{id}}/delete")
async def ask_delete(visit: Visit) -> Response:
    """Ask before a policy goes."""
    repo, record = await _found(visit, manage=True)
    return visit.confirm(
        visit._("Delete the mirroring policy"),
        verb=visit._("Delete policy"),
        text=visit._("The tags that it mirrored stay, on both sides. Its credentials and its history of tags go."),
        items=[f"{record.remote_host} {record.remote_repository}"],
        back=f"{repo.url}/mirrors/{record.id}",
    )


@pages.post(f"{_AT}/{{id}}/delete")
async def delete_mirror(visit: Visit) -> Response:
    """Delete a policy."""
    repo, record = await _found(visit, manage=True)
    if record.mirroring_type == "push":
        await visit.call(
            mirroring.delete_repo_push_mirroring_policy, path=repo.path, pushmirroringpolicyid=record.id
        )
    else:
        await visit.call(
            mirroring.delete_repo_poll_mirroring_policy, path=repo.path, pollmirroringpolicyid=record.id
        )
    return visit.redirect(f"{repo.url}/policies", visit._("The policy is gone."))
