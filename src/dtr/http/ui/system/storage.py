"""
``/system/settings/storage``: where images are kept, and moving them.

A storage is described in the form of its kind, tried step by step, and saved; it goes on to be the place of
what is in it. What becomes of the images when new ones go elsewhere is asked on the same page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dtr.accounts import Operation
from dtr.events import Filter
from dtr.http.api import events, jobs, storages, system
from dtr.http.api.errors import ApiError
from dtr.http.api.models import NEVER
from dtr.http.api.storages import MigrationForm, StorageForm
from dtr.http.ui.keeping import keep_secrets, not_stored, read_secrets
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused
from dtr.http.ui.system.drivers import KINDS, MASK, Kind, shown_parameters, typed_parameters
from dtr.http.ui.system.soon import begin, soon

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.api.storages import StorageRecord, TrialRecord
    from dtr.http.api.system import GarbageRecord
    from dtr.http.ui.visit import Visit

pages = Pages()

_HERE = "/system/settings/storage"
_DAYS = 90
_WEEK = 7
_COUNT_SECONDS = 0.03
"""So long the page waits for what is counted row by row; then it comes by itself."""
_FEW = 5_000
"""Of so many repositories it is probably counted soon; of more it comes by itself, and is counted once."""
_GRACE = "10m"
_REDIRECT_SECONDS = "300"
_CHANGES = 5
_MEGABYTE = 1_000_000
_LONGEST_NUMBER = 9
MIGRATE = "storage_migrate"


def N_(text: str) -> str:  # noqa: N802 - the word by which texts are found
    """A text that is translated where it is shown."""
    return text


_SAYINGS = {
    "is needed": N_("Fill in this field."),
    "has to be given again for another place": N_("Type it again: it was given for another place."),
    "is https://HOST[:PORT]": N_("Type https://HOST[:PORT]."),
    "is https://HOST[:PORT][/ACCOUNT]": N_("Type https://HOST[:PORT][/ACCOUNT]."),
    "is https://HOST[:PORT]/PATH": N_("Type https://HOST[:PORT]/PATH."),
    "is what Azure shows as the key: base64": N_("This is no key of Azure: it is in base64."),
    "of ca_bundle and ca_certificate, one is given": N_(
        "Give the trusted authorities as a file or as text, not both."
    ),
    "of account_key, sas_token and identity, one is given": N_("Give one of account key, signature and identity."),
    "with an identity, the endpoint is https://": N_("With an identity, the address begins with https://."),
    "is given instead of key_file, not with it": N_("Give the key as text or as a file, not both."),
}
"""What the API says of a parameter, and what a page says."""


class Counted(NamedTuple):
    """What is counted row by row; `bytes` of the blobs of every repository, which they may share."""

    storages: dict[str, StorageRecord]
    garbage: GarbageRecord
    bytes: int


# --- all storages ---------------------------------------------------------------------------------------------


@pages.get(_HERE)
async def show_storages(visit: Visit) -> Response:
    """All of them, what they have, and what was changed last."""
    visit.caller.require(Operation.SEE_SYSTEM)
    return await _index(visit)


async def _index(visit: Visit, problems: Problems | None = None, status: int = 200, **typed: str) -> Response:
    usage = await visit.call(system.get_usage, days=_DAYS, counted=False)
    found = await visit.call(storages.list_storages, usage=False)
    moving = await visit.call(jobs.list_jobs, action=MIGRATE, limit=1)
    changes = await visit.listing(events.get_events, wanted=Filter(object_type="storage"), start="", size=_CHANGES)
    counted = None
    if "count" in visit.query:
        counted = await _count(visit)
    elif usage.repositories <= _FEW:
        counted = await soon(begin(_count(visit)), _COUNT_SECONDS)
    return visit.page(
        "system/storage.html",
        status,
        usage=usage,
        week=usage.bytes - usage.days[-_WEEK - 1].bytes,
        storages=found,
        names=[(one.name, one.name) for one in found],
        counted=counted,
        moving=moving.jobs[0] if moving.jobs else None,
        changes=changes.records.events,
        kinds=KINDS,
        admin=visit.may("ADMINISTER"),
        problems=problems or Problems(),
        typed={"namespace": "", "storage": "", **typed},
    )


async def _count(visit: Visit) -> Counted:
    found = await visit.call(storages.list_storages)
    garbage = await visit.call(system.get_garbage, grace=_GRACE)
    usage = await visit.call(system.get_usage, days=1)
    return Counted({one.name: one for one in found}, garbage, usage.counted_bytes or 0)


@pages.post(f"{_HERE}/namespaces")
async def assign_namespace(visit: Visit) -> Response:
    """Let a storage take the new images of a namespace, or with none the default one again."""
    visit.caller.require(Operation.ADMINISTER)
    namespace, storage = await visit.text("namespace"), await visit.text("storage")
    before = next(
        (one.name for one in await visit.call(storages.list_storages, usage=False) if namespace in one.namespaces),
        "",
    )
    fields = {"NO_SUCH_ACCOUNT": "namespace", "NO_SUCH_STORAGE": "storage"}
    try:
        if storage:
            await visit.submit(storages.put_storage_namespace, storage=storage, namespace=namespace, fields=fields)
            said = visit._("New images of {namespace} go to {storage}.", namespace=namespace, storage=storage)
        else:
            await visit.submit(
                storages.delete_storage_namespace, storage=before or "default", namespace=namespace, fields=fields
            )
            said = visit._("New images of {namespace} go to the default storage.", namespace=namespace)
    except Refused as refused:
        return await _index(visit, refused.problems, refused.status, namespace=namespace, storage=storage)
    undo = (f"{_HERE}/namespaces", {"namespace": namespace, "storage": before}) if before != storage else None
    return visit.redirect(_HERE, said, undo=undo)


# --- moving ---------------------------------------------------------------------------------------------------


@pages.get(f"{_HERE}/move")
async def show_move(visit: Visit) -> Response:
    """The form for moving images from storages to another one."""
    visit.caller.require(Operation.ADMINISTER)
    typed = {
        "to": visit.query.get("to", ""),
        "from": visit.queries("from"),
        "how": "copy",
        "rate": "",
        "parallel": "4",
    }
    return await _move(visit, typed)


async def _move(visit: Visit, typed: dict[str, Any], refused: Refused | None = None) -> Response:
    found = await visit.call(storages.list_storages, usage=False)
    context: dict[str, Any] = {
        "storages": found,
        "targets": [(one.name, one.name) for one in found],
        "typed": {"keep": "", "verify": "", **typed},
    }
    if refused is not None:
        return visit.refuse("system/storage_move.html", refused, **context)
    return visit.page("system/storage_move.html", **context)


@pages.post(f"{_HERE}/move")
async def move_images(visit: Visit) -> Response:
    """Queue the job that moves them."""
    visit.caller.require(Operation.ADMINISTER)
    typed: dict[str, Any] = {
        name: await visit.text(name) for name in ("to", "how", "rate", "parallel", "keep", "verify")
    }
    typed["from"] = await visit.texts("from")
    problems = Problems()
    rate, parallel = (_whole(visit, name, typed[name], problems) for name in ("rate", "parallel"))
    if not typed["to"]:
        problems.add("to", visit._("Choose one of the values."))
    try:
        if problems:
            raise Refused(problems)
        job = await visit.submit(
            storages.run_storage_migration,
            form=MigrationForm,
            data={
                "from": typed["from"],
                "rate": (rate or 0) * _MEGABYTE,
                "parallel": parallel or 4,
                "keepSource": bool(typed["keep"]),
                "copied": typed["how"] == "copied",
                "verify": bool(typed["verify"]),
            },
            fields={"NO_SUCH_STORAGE": "to", "STORAGE_IN_USE": "", "INVALID_STORAGE": "from"},
            storage=typed["to"],
        )
    except Refused as refused:
        return await _move(visit, typed, refused)
    return visit.redirect(f"/system/settings/jobs/{job.id}", visit._("The images are being moved."))


def _whole(visit: Visit, name: str, text: str, problems: Problems) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER):
        problems.add(name, visit._("Type a number."))
        return None
    return int(text)


# --- the configuration of a registry --------------------------------------------------------------------------


@pages.get(f"{_HERE}/yaml")
async def show_yaml(visit: Visit) -> Response:
    """The configuration as Docker's registry has it."""
    visit.caller.require(Operation.ADMINISTER)
    document = await visit.call(storages.get_registry_settings)
    import yaml

    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=False)
    return visit.page("system/storage_yaml.html", text=text, keep=False)


@pages.post(f"{_HERE}/yaml")
async def save_yaml(visit: Visit) -> Response:
    """Take over what is typed, or what is in the file that was chosen."""
    visit.caller.require(Operation.ADMINISTER)
    form = await visit.form()
    text = await visit.text("document")
    file = form.get("file")
    if file is not None and not isinstance(file, str) and file.size:
        text = (await file.read()).decode("utf-8", "replace")
    keep = bool(await visit.text("keep_metadata"))
    try:
        change = await visit.submit(
            storages.update_registry_settings,
            document=_with_metadata(text, keep=keep),
            fields={"INVALID_JSON": "document", "STORAGE_REFUSED": "document"},
        )
    except Refused as refused:
        # Fields of a document have no fields on the page.
        problems = refused.problems
        problems.general += [f"{name}: {said}" for name, said in problems.fields.items() if name != "document"]
        problems.fields = {name: said for name, said in problems.fields.items() if name == "document"}
        return visit.refuse("system/storage_yaml.html", refused, text=text, keep=keep)
    if change.job_id:
        return visit.redirect(f"/system/settings/jobs/{change.job_id}")
    said = visit._("New images go to the storage {storage}.", storage=change.storage)
    if change.ignored:
        said = visit._(
            "New images go to the storage {storage}. What means nothing here: {names}.",
            storage=change.storage,
            names=", ".join(change.ignored),
        )
    return visit.redirect(_HERE, said)


def _with_metadata(text: str, *, keep: bool) -> bytes:
    """The document with the mark for contents that were copied by hand; what is none is for the API to refuse."""
    if keep:
        import yaml

        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError:
            document = None
        if isinstance(document, dict):
            return yaml.safe_dump(document | {"keep_metadata": True}, sort_keys=False).encode()
    return text.encode("utf-8", "replace")


# --- one storage ----------------------------------------------------------------------------------------------


@pages.get(f"{_HERE}/new")
async def show_new(visit: Visit) -> Response:
    """The form for one more storage; `driver` in the address says of which kind."""
    visit.caller.require(Operation.ADMINISTER)
    driver = visit.query.get("driver", "s3")
    return await _form(visit, driver if driver in KINDS else "s3", None)


@pages.post(f"{_HERE}/new")
async def make_storage(visit: Visit) -> Response:
    """Add a storage, and do with it and the images what was chosen."""
    driver = await visit.text("driver")
    return await _save(visit, await visit.text("name"), driver if driver in KINDS else "s3", None)


@pages.post(f"{_HERE}/new/test")
async def try_new(visit: Visit) -> Response:
    """Try a storage that is not saved yet."""
    driver = await visit.text("driver")
    return await _try(visit, await visit.text("name") or "new", driver if driver in KINDS else "s3", None)


@pages.get(f"{_HERE}/{{storage}}")
async def show_storage(visit: Visit) -> Response:
    """A storage: its form for administrators, its parameters for auditors."""
    record = await _get(visit)
    return await _form(visit, record.driver, record)


@pages.post(f"{_HERE}/{{storage}}")
async def change_storage(visit: Visit) -> Response:
    """Describe a storage anew."""
    record = await _get(visit)
    return await _save(visit, record.name, record.driver, record)


@pages.post(f"{_HERE}/{{storage}}/test")
async def try_storage(visit: Visit) -> Response:
    """Try a storage as the form describes it."""
    record = await _get(visit)
    return await _try(visit, record.name, record.driver, record)


@pages.post(f"{_HERE}/{{storage}}/default")
async def make_default(visit: Visit) -> Response:
    """Let a storage take new images."""
    name = visit.values["storage"]
    before = next(one.name for one in await visit.call(storages.list_storages, usage=False) if one.is_default)
    await visit.call(storages.set_default_storage, storage=name)
    undo: tuple[str, dict[str, str]] | None = (f"{_HERE}/{before}/default", {}) if before != name else None
    return visit.redirect(_HERE, visit._("New images go to the storage {storage}.", storage=name), undo=undo)


@pages.get(f"{_HERE}/{{storage}}/delete")
async def ask_to_forget(visit: Visit) -> Response:
    """Ask before a storage is forgotten."""
    visit.caller.require(Operation.ADMINISTER)
    return _confirm(visit, await _get(visit))


def _confirm(visit: Visit, record: StorageRecord, problems: Problems | None = None) -> Response:
    return visit.confirm(
        visit._("Forget the storage {storage}?", storage=record.name),
        verb=visit._("Forget the storage"),
        text=visit._(
            "Only one in which there is nothing can be forgotten. What else lies at its place stays there."
        ),
        items=[visit._("Its address and its keys are deleted here.")],
        back=f"{_HERE}/{record.name}",
        problems=problems,
    )


@pages.post(f"{_HERE}/{{storage}}/delete")
async def forget_storage(visit: Visit) -> Response:
    """Forget a storage."""
    visit.caller.require(Operation.ADMINISTER)
    record = await _get(visit)
    try:
        await visit.submit(storages.delete_storage, storage=record.name)
    except Refused as refused:
        return _confirm(visit, record, refused.problems)
    return visit.redirect(_HERE, visit._("The storage {storage} is forgotten.", storage=record.name))


async def _get(visit: Visit) -> StorageRecord:
    """The storage of the address. Raises ApiError."""
    name = visit.values["storage"]
    visit.caller.require(Operation.SEE_SYSTEM)
    for one in await visit.call(storages.list_storages, usage=False):
        if one.name == name:
            return one
    raise ApiError("NO_SUCH_STORAGE", name[:255])


async def _form(
    visit: Visit,
    driver: str,
    record: StorageRecord | None,
    *,
    typed: dict[str, Any] | None = None,
    trial: TrialRecord | None = None,
    problems: Problems | None = None,
    status: int = 200,
) -> Response:
    """The page of a storage; `record` is None for one that is not there yet."""
    kind = KINDS.get(driver)
    known = record.parameters if record else {}
    if typed is None:
        typed = {**(shown_parameters(kind, known) if kind else {}), **_about(record)}
    problems = problems or Problems()
    kept: dict[str, str] = typed.get("kept", {})
    response = visit.page(
        "system/storage_form.html",
        status,
        driver=driver,
        kind=kind,
        kinds=KINDS,
        record=record,
        secrets={name for name, value in known.items() if value == MASK},
        typed=typed,
        kept=kept,
        trial=trial,
        problems=problems,
        here=_address(record),
        admin=visit.may("ADMINISTER"),
        more_open=kind is not None and any(problems.of(one.name) or one.name in kept for one in kind.more),
    )
    return not_stored(response) if kept else response


def _address(record: StorageRecord | None) -> str:
    """Of the form of a storage."""
    return f"{_HERE}/{record.name}" if record else f"{_HERE}/new"


def _about(record: StorageRecord | None) -> dict[str, Any]:
    """What the form shows beside the parameters."""
    if record is None:
        return {
            "name": "",
            "redirect": False,
            "redirect_seconds": _REDIRECT_SECONDS,
            "redirect_except": "",
            "use": "new",
            "changed_at": NEVER.isoformat(),
        }
    return {
        "name": record.name,
        "redirect": record.redirect_seconds is not None,
        "redirect_seconds": str(record.redirect_seconds or _REDIRECT_SECONDS),
        "redirect_except": "\n".join(record.redirect_except),
        "use": "",
        "changed_at": record.changed_at.isoformat(),
    }


class _Typed(NamedTuple):
    """A form of a storage that was sent: what it shows again, and what the API is given."""

    shown: dict[str, Any]
    data: dict[str, Any]
    problems: Problems


async def _typed(visit: Visit, driver: str, kind: Kind, record: StorageRecord | None) -> _Typed:
    problems = Problems()
    stored = frozenset(name for name, value in (record.parameters if record else {}).items() if value == MASK)
    names = [field.name for field in kind.all if field.is_secret]
    dropped = [name for name in names if await visit.text(f"drop-{name}")]
    secrets = await read_secrets(visit, names, _address(record), forgotten=dropped)
    parameters = await typed_parameters(visit, kind, secrets, stored, problems)
    shown: dict[str, Any] = {field.name: await visit.text(field.name) for field in kind.all}
    for field in kind.all:
        if field.kind == "switch":
            shown[field.name] = shown[field.name] == "on"
        elif field.is_secret:
            shown[field.name] = ""  # no secret is sent back to a browser
    for name in ("name", "redirect_seconds", "redirect_except", "use", "changed_at"):
        shown[name] = await visit.text(name)
    shown["redirect"] = await visit.text("redirect") == "on"
    shown["kept"] = keep_secrets(visit, secrets, _address(record))
    seconds = _whole(visit, "redirect_seconds", shown["redirect_seconds"], problems) if shown["redirect"] else None
    data = {
        "driver": driver,
        "parameters": parameters,
        "redirectSeconds": (seconds or int(_REDIRECT_SECONDS)) if shown["redirect"] else None,
        "redirectExcept": shown["redirect_except"].split(),
        "changedAt": shown["changed_at"] or NEVER.isoformat(),
    }
    return _Typed(shown, data, problems)


def _fields(kind: Kind) -> dict[str, str]:
    """Where on the page a problem of the API belongs."""
    return {
        **{f"parameters.{field.name}": field.name for field in kind.all},
        "parameters": "",
        "driver": "",
        "changedAt": "",
        "redirectSeconds": "redirect_seconds",
        "redirectExcept": "redirect_except",
    }


def _translated(visit: Visit, problems: Problems) -> Problems:
    for name, text in problems.fields.items():
        problems.fields[name] = visit._(_SAYINGS[text]) if text in _SAYINGS else text
    problems.general = [visit._(_SAYINGS[text]) if text in _SAYINGS else text for text in problems.general]
    return problems


async def _try(visit: Visit, name: str, driver: str, record: StorageRecord | None) -> Response:
    """The form again, with how far one gets with what it says; nothing is saved."""
    visit.caller.require(Operation.ADMINISTER)
    kind = KINDS.get(driver)
    if kind is None:  # of a kind that has no form
        trial = await visit.call(storages.try_storage, storage=name)
        return await _form(visit, driver, record, trial=trial)
    typed = await _typed(visit, driver, kind, record)
    try:
        if typed.problems:
            raise Refused(typed.problems)
        trial = await visit.submit(
            storages.try_storage, form=StorageForm, data=typed.data, fields=_fields(kind), storage=name
        )
    except Refused as refused:
        return await _form(
            visit,
            driver,
            record,
            typed=typed.shown,
            problems=_translated(visit, refused.problems),
            status=refused.status,
        )
    return await _form(visit, driver, record, typed=typed.shown, trial=trial)


async def _save(visit: Visit, name: str, driver: str, record: StorageRecord | None) -> Response:
    """Save what the form says; a storage that does not work is not saved, and the steps say why."""
    visit.caller.require(Operation.ADMINISTER)
    kind = KINDS.get(driver)
    if kind is None:
        raise ApiError("NO_SUCH_STORAGE", name[:255])
    typed = await _typed(visit, driver, kind, record)
    if not name:
        typed.problems.add("name", visit._("Fill in this field."))
    trial = None
    try:
        if typed.problems:
            raise Refused(typed.problems)
        made = await visit.submit(
            storages.put_storage, form=StorageForm, data=typed.data, fields=_fields(kind), storage=name
        )
    except Refused as refused:
        problems = _translated(visit, refused.problems)
        if problems.code == "STORAGE_REFUSED":
            trial = await _steps(visit, name, typed.data)
        if problems.code == "STORAGE_CHANGED":
            problems = _conflict(visit, record, problems)
            if record is not None:
                typed.shown["changed_at"] = record.changed_at.isoformat()
        return await _form(
            visit,
            driver,
            record,
            typed=typed.shown,
            trial=trial,
            problems=problems,
            status=refused.status,
        )
    return await _use(visit, made.name, typed.shown["use"])


async def _steps(visit: Visit, name: str, data: dict[str, Any]) -> TrialRecord | None:
    """How far one gets with what was refused; None: it cannot even be tried."""
    try:
        return await visit.submit(storages.try_storage, form=StorageForm, data=data, storage=name)
    except Refused:
        return None


def _conflict(visit: Visit, record: StorageRecord | None, problems: Problems) -> Problems:
    """What is said when somebody else was quicker."""
    if record is None:
        problems.general.clear()
        problems.add("name", visit._("There is a storage of this name."))
    else:
        problems.add(
            "",
            visit._(
                "It is at {place} now, and pulls are {redirected}. Save again to replace that with yours.",
                place=record.place,
                redirected=visit._("redirected")
                if record.redirect_seconds is not None
                else visit._("not redirected"),
            ),
        )
    return problems


async def _use(visit: Visit, name: str, use: str) -> Response:
    """Do with a new storage, and the images in the others, what was chosen."""
    if use == "new":
        await visit.call(storages.set_default_storage, storage=name)
        return visit.redirect(_HERE, visit._("New images go to the storage {storage}.", storage=name))
    if use in {"copy", "copied"}:
        try:
            job = await visit.submit(
                storages.run_storage_migration,
                storage=name,
                form=MigrationForm,
                data={"copied": use == "copied", "verify": use == "copied"},
            )
        except Refused:  # the storage is there all the same
            said = visit._(
                "The storage {storage} is saved. Another move waits already: start this one later.", storage=name
            )
            return visit.redirect(f"{_HERE}/move?to={name}", said)
        return visit.redirect(f"/system/settings/jobs/{job.id}", visit._("The images are being moved."))
    return visit.redirect(f"{_HERE}/{name}", visit._("The storage {storage} is saved.", storage=name))
