"""
What happened, in words: the activity of a repository, and sentences about events for whoever lists them.

A sentence is made for each kind of object and each type of event that there is. What it names may be gone: links
lead to lists, which have it or not, and to what else somebody did.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

from markupsafe import Markup

from dtr.events import EventType, Filter, Kind
from dtr.http.api import events
from dtr.http.ui.pages import Pages
from dtr.http.ui.repository import AT, N_

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from dtr.http.api.events import EventRecord, ObjectRecord
    from dtr.http.ui.visit import Repository, Visit

pages = Pages()

_TAGS = frozenset({"tag", "promotion", "push_mirroring", "poll_mirroring", "trust_tag"})
"""Objects that are called like a tag of the repository in which it happened."""
_DIGITS = 12
"""Of a digest, where it is only to be told from others."""


# --- the page -------------------------------------------------------------------------------------------------

TYPES = {
    "CREATE": N_("Made or pushed first"),
    "UPDATE": N_("Changed or pushed again"),
    "DELETE": N_("Deleted"),
    "GET": N_("Pulled"),
    "SEND": N_("Sent once more"),
    "FAIL": N_("Failed or refused"),
}
THINGS = {
    "tag": N_("Tags"),
    "manifest": N_("Manifests"),
    "repository": N_("The repository and its settings"),
    "grant": N_("Access"),
    "promotion": N_("Promotions"),
    "push_mirroring": N_("Mirroring to other registries"),
    "poll_mirroring": N_("Mirroring from other registries"),
    "promotion_policy": N_("Promotion policies"),
    "mirroring_policy": N_("Mirroring policies"),
    "pruning_policy": N_("Pruning policies"),
    "webhook": N_("Webhooks"),
    "trust_collection": N_("Content trust"),
    "trust_tag": N_("Signatures that were forgotten"),
    "enforcement_policy": N_("What must be signed"),
    "enforcement_exception": N_("Exceptions from what must be signed"),
    "pull": N_("Pulls that a policy objects to"),
    "upstream": N_("The upstream of a cache"),
    "blob": N_("Blobs"),
}
"""What happens in repositories, and how it is called; those of `EVERYBODYS` are told to everybody who sees it."""
EVERYBODYS = ("tag", "manifest", "repository", "blob")


@pages.get(f"{AT}/activity")
async def show_activity(visit: Visit) -> Response:
    """Who did what, the latest first."""
    repo = await visit.repository("SEE_EVENTS")
    wanted = _wanted(visit, repo)
    namespace, name = repo.record.namespace, repo.record.name
    listing = await visit.listing(events.list_repo_events, namespace=namespace, reponame=name, wanted=wanted)
    count: int | None = len(listing.records.events)
    if listing.next or visit.query.get("start"):
        counted = await visit.listing(
            events.list_repo_events,
            namespace=namespace,
            reponame=name,
            wanted=wanted,
            start="",
            size=1,
            count=True,
        )
        count = counted.count
    things = THINGS if repo.may("SEE_ALL_EVENTS") else {name: THINGS[name] for name in EVERYBODYS}
    types = TYPES if repo.may("SEE_ALL_EVENTS") else {name: TYPES[name] for name in ("CREATE", "UPDATE", "DELETE")}
    told = [
        {
            "text": tell(visit, one, here=repo.path, by=f"{repo.url}/activity?excludePull=false&actorId="),
            "at": one.published_at,
            "icon": _icon(one),
            "times": one.times,
            "address": one.remote_address,
            "refused": one.type == "FAIL",
        }
        for one in listing.records.events
    ]
    return visit.page(
        "repository/activity.html",
        repo=repo,
        listing=listing,
        count=count,
        told=told,
        types=[
            ("", visit._("Everything that was done")),
            *((name, visit._(text)) for name, text in types.items()),
        ],
        things=[("", visit._("Everything")), *((name, visit._(text)) for name, text in things.items())],
        with_pulls=not wanted.exclude_pulls,
        is_filtered=any(visit.query.get(name) for name in ("eventType", "objectType", "from", "until", "actorId")),
        actor=next((one.actor_name for one in listing.records.events), ""),
        csv=f"{repo.url}/activity.csv{visit.link().removeprefix(f'{repo.url}/activity')}",
    )


@pages.get(f"{AT}/activity.csv")
async def download_activity(visit: Visit) -> Response:
    """The same events, all of them, as a table for a spreadsheet."""
    repo = await visit.repository("SEE_EVENTS")
    given = {"namespace": repo.record.namespace, "reponame": repo.record.name, "wanted": _wanted(visit, repo)}
    return visit.answer(await visit.call(events.export_repo_events, form="csv", accept="", **given))


def _wanted(visit: Visit, repo: Repository) -> Filter:
    """What the address asks for; what it says that makes no sense asks for nothing special."""
    query = visit.query
    kind, thing = query.get("eventType", ""), query.get("objectType", "")
    without_pulls = query.get("excludePull", "true") != "false" and kind != "GET"
    return Filter(
        type=kind if kind in get_args(EventType) else None,  # type: ignore[arg-type]  # checked
        object_type=thing if thing in get_args(Kind) else None,  # type: ignore[arg-type]  # checked
        after=_day(query.get("from", ""), 0),
        before=_day(query.get("until", ""), 1),
        actor=query.get("actorId", "")[:100] or None,
        exclude_pulls=without_pulls or not repo.may("SEE_ALL_EVENTS"),
    )


def _day(text: str, later: int) -> int | None:
    """The beginning of a day in UTC, or of the one so much later, in milliseconds; None: it is none."""
    try:
        day = dt.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dt.UTC) + dt.timedelta(days=later)
    except (ValueError, OverflowError):
        return None
    return round(day.timestamp() * 1000)


# --- sentences ------------------------------------------------------------------------------------------------

SENTENCES = {
    ("repository", "CREATE"): N_("{who} made the repository {name}"),
    ("repository", "UPDATE"): N_("{who} changed the settings of {name}: {changes}"),
    ("repository", "DELETE"): N_("{who} deleted the repository {name}"),
    ("tag", "CREATE"): N_("{who} pushed {name} for the first time ({digest})"),
    ("tag", "UPDATE"): N_("{who} pushed {name} again ({digest}, before {before})"),
    ("tag", "GET"): N_("{who} pulled {name} ({digest})"),
    ("tag", "DELETE"): N_("{who} deleted the tag {name} ({digest})"),
    ("manifest", "CREATE"): N_("{who} pushed the manifest {digest}"),
    ("manifest", "GET"): N_("{who} pulled {digest}"),
    ("manifest", "DELETE"): N_("{who} deleted the manifest {digest}"),
    ("blob", "DELETE"): N_("{who} deleted the blob {digest}"),
    ("account", "CREATE"): N_("{who} made the account {name}"),
    ("account", "UPDATE"): N_("{who} changed the account {name}"),
    ("account", "DELETE"): N_("{who} deleted the account {name}"),
    ("account", "FAIL"): N_("Somebody failed to log in as {name}"),
    ("member", "CREATE"): N_("{who} took {name} into {target}"),
    ("member", "UPDATE"): N_("{who} changed what {name} is in {target}"),
    ("member", "DELETE"): N_("{who} took {name} out of {target}"),
    ("team", "CREATE"): N_("{who} made the team {name}"),
    ("team", "UPDATE"): N_("{who} changed the team {name}"),
    ("team", "DELETE"): N_("{who} deleted the team {name}"),
    ("team_member", "CREATE"): N_("{who} took {name} into the team {target}"),
    ("team_member", "UPDATE"): N_("{who} changed what {name} is in the team {target}"),
    ("team_member", "DELETE"): N_("{who} took {name} out of the team {target}"),
    ("grant", "CREATE"): N_("{who} gave {target} the level {level} on {name}"),
    ("grant", "UPDATE"): N_("{who} changed the level of {target} on {name} to {level}"),
    ("grant", "DELETE"): N_("{who} took away what {target} had on {name}"),
    ("token", "CREATE"): N_("{who} made the access token {name} of {target}"),
    ("token", "UPDATE"): N_("{who} changed the access token {name} of {target}"),
    ("token", "DELETE"): N_("{who} deleted the access token {name} of {target}"),
    ("token", "LOGIN"): N_("{who} logged a client in as {target}"),
    ("session", "LOGIN"): N_("{who} logged in"),
    ("session", "DELETE"): N_("{who} ended a session"),
    ("public_key", "CREATE"): N_("{who} added a public key to {target}"),
    ("public_key", "UPDATE"): N_("{who} changed a public key of {target}"),
    ("public_key", "DELETE"): N_("{who} removed a public key from {target}"),
    ("setting", "UPDATE"): N_("{who} changed the setting {name}"),
    ("job", "CREATE"): N_("{who} started the job {name}"),
    ("job", "UPDATE"): N_("{who} cancelled the job {name}"),
    ("job", "DELETE"): N_("{who} deleted the job {name}"),
    ("cron", "UPDATE"): N_("{who} changed the schedule of {name}"),
    ("cron", "DELETE"): N_("{who} removed the schedule of {name}"),
    ("action_config", "UPDATE"): N_("{who} changed the parameters of {name}"),
    ("action_config", "DELETE"): N_("{who} removed the parameters of {name}"),
    ("worker", "UPDATE"): N_("{who} changed what the worker {name} may use"),
    ("promotion", "CREATE"): N_("{who} promoted {name} to {target}"),
    ("promotion", "FAIL"): N_("{who} did not manage to promote {name} to {target}: {why}"),
    ("push_mirroring", "CREATE"): N_("{who} mirrored {name} to {target}"),
    ("push_mirroring", "DELETE"): N_("{who} deleted {target} in the other registry, because {name} is gone here"),
    ("push_mirroring", "FAIL"): N_("{who} did not manage to mirror {name} to {target}: {why}"),
    ("poll_mirroring", "CREATE"): N_("{who} mirrored {target} to {name}"),
    ("poll_mirroring", "DELETE"): N_("{who} deleted {name}, because {target} is gone in the other registry"),
    ("poll_mirroring", "FAIL"): N_("{who} did not manage to mirror {target} to {name}: {why}"),
    ("pruning_policy", "CREATE"): N_("{who} made a pruning policy"),
    ("pruning_policy", "UPDATE"): N_("{who} changed a pruning policy"),
    ("pruning_policy", "DELETE"): N_("{who} deleted a pruning policy"),
    ("promotion_policy", "CREATE"): N_("{who} made a promotion policy"),
    ("promotion_policy", "UPDATE"): N_("{who} changed a promotion policy"),
    ("promotion_policy", "DELETE"): N_("{who} deleted a promotion policy"),
    ("mirroring_policy", "CREATE"): N_("{who} made a mirroring policy"),
    ("mirroring_policy", "UPDATE"): N_("{who} changed or started a mirroring policy"),
    ("mirroring_policy", "DELETE"): N_("{who} deleted a mirroring policy"),
    ("upstream", "CREATE"): N_("{who} made it a cache of {name}"),
    ("upstream", "UPDATE"): N_("{who} changed what it is a cache of to {name}"),
    ("upstream", "DELETE"): N_("{who} ended that it is a cache of {name}"),
    ("remote", "CREATE"): N_("{who} added the registry {name}"),
    ("remote", "UPDATE"): N_("{who} changed the registry {name}"),
    ("remote", "DELETE"): N_("{who} removed the registry {name}"),
    ("webhook", "CREATE"): N_("{who} made the webhook {name}"),
    ("webhook", "UPDATE"): N_("{who} changed the webhook {name}"),
    ("webhook", "DELETE"): N_("{who} deleted the webhook {name}"),
    ("webhook", "SEND"): N_("{who} let the webhook {name} deliver once more"),
    ("webhook", "FAIL"): N_("The webhook {name} was switched off: its deliveries failed for days"),
    ("signing_identity", "CREATE"): N_("{who} added the signer {name}"),
    ("signing_identity", "UPDATE"): N_("{who} changed the signer {name}"),
    ("signing_identity", "DELETE"): N_("{who} removed the signer {name}"),
    ("enforcement_policy", "CREATE"): N_("{who} said what must be signed"),
    ("enforcement_policy", "UPDATE"): N_("{who} changed what must be signed"),
    ("enforcement_policy", "DELETE"): N_("{who} ended that something must be signed"),
    ("enforcement_exception", "CREATE"): N_("{who} made an exception from what must be signed"),
    ("enforcement_exception", "DELETE"): N_("{who} ended an exception from what must be signed"),
    ("pull", "FAIL"): N_("{who} pulled {name}, which is not signed as it must be: {why}"),
    ("trust_collection", "CREATE"): N_("{who} signed for the first time in content trust ({name})"),
    ("trust_collection", "UPDATE"): N_("{who} changed what is signed in content trust ({name})"),
    ("trust_collection", "DELETE"): N_("{who} deleted content trust ({name})"),
    ("trust_tag", "DELETE"): N_("{who} had the signature of {name} forgotten"),
    ("storage", "CREATE"): N_("{who} added the storage {name}"),
    ("storage", "UPDATE"): N_("{who} changed the storage {name}"),
    ("storage", "DELETE"): N_("{who} removed the storage {name}"),
}
"""By what it was done to and what was done; `docs/reference/events.md` has the same."""
_RENAMED = N_("{who} renamed the repository {name} to {target}")
_OTHER = N_("{who}: {type} {kind} {name}")
_REFUSED_PULL = N_("{who} was refused {name}, which is not signed as it must be: {why}")
_ICONS = {
    "tag": "tag", "manifest": "layers", "blob": "box", "repository": "package", "grant": "users",
    "webhook": "webhook", "promotion": "arrow-up-right", "push_mirroring": "cloud",
    "poll_mirroring": "download", "account": "user", "member": "users", "team": "users",
    "team_member": "users", "token": "key-round", "session": "user", "public_key": "key-round",
    "setting": "settings", "job": "workflow", "cron": "clock", "worker": "cpu",
    "trust_collection": "signature", "trust_tag": "signature", "signing_identity": "signature",
    "enforcement_policy": "shield", "enforcement_exception": "shield", "pull": "shield-alert",
    "storage": "hard-drive", "remote": "server", "upstream": "server",
}  # fmt: skip
_DOINGS = {"GET": "download", "DELETE": "trash-2", "FAIL": "circle-alert"}
_SETTINGS = {
    "visibility": N_("visibility"),
    "short_description": N_("short description"),
    "long_description": N_("README"),
    "scan_on_push": N_("scans on push"),
    "immutable_tags": N_("immutable tags"),
    "immutable_patterns": N_("patterns of immutable tags"),
    "tag_limit": N_("tag limit"),
}
_LEVELS = {
    "read-only": N_("read only"),
    "read-write": N_("read and write"),
    "admin": N_("manage"),
}


def tell(visit: Visit, event: EventRecord, *, here: str = "", by: str = "") -> Markup:
    """
    An event in a sentence.

    `here`: the repository whose page it is for; it need not be named, and may have had another name then.
    `by`: the address of a page with all that an account did, but for its id.
    """
    thing, target = event.object, event.target
    sentence = SENTENCES.get((thing.type, event.type), _OTHER)
    if thing.type == "repository" and event.type == "UPDATE" and target.type:
        sentence = _RENAMED
    if thing.type == "pull" and '"enforce"' in thing.content:
        sentence = _REFUSED_PULL
    digest = thing.id if thing.type in {"manifest", "blob"} else thing.content
    before = ""
    if thing.type == "tag" and event.type == "UPDATE" and target.content:
        digest, before = target.content, thing.content
    values: Mapping[str, Any] = {
        "who": _who(visit, event, by),
        "name": _name(event, here),
        "target": _target(target),
        "digest": _digest(digest),
        "before": _digest(before),
        "changes": _changes(visit, thing.content),
        "level": visit._(_LEVELS[thing.content]) if thing.content in _LEVELS else thing.content,
        "why": _isolated(_why(event)),
        "type": event.type,
        "kind": thing.type,
    }
    return Markup(visit.words(sentence, **values))  # noqa: S704 - what is filled in is escaped


def _who(visit: Visit, event: EventRecord, by: str) -> str:
    name, kind = event.actor_name, event.actor_type
    if kind == "anonymous":
        return visit._("Somebody without a log-in")
    if kind == "system":
        return visit._("The registry")
    if kind == "policy":
        return visit.words("The policy {name}", name=_isolated(name or event.actor[:8]))  # type: ignore[no-any-return]  # Markup
    if by and event.actor:
        return Markup('<a href="{}{}"><bdi>{}</bdi></a>').format(by, quote(event.actor, safe=""), name)
    return _isolated(name)


def _name(event: EventRecord, here: str) -> Markup:
    """The object: a tag with its repository, or as a link to the tags of that name here."""
    thing = event.object
    if thing.type not in _TAGS:
        return _isolated(thing.name or thing.id[:_DIGITS])
    if not here:
        return _isolated(f"{event.repository}:{thing.name}")
    return Markup('<a href="/repositories/{}/tags?q={}"><bdi>{}</bdi></a>').format(
        quote(here), quote(thing.name, safe=""), thing.name
    )


def _target(target: ObjectRecord) -> Markup:
    return _isolated(target.name or target.id[:_DIGITS])


def _isolated(text: str) -> Markup:
    """A foreign text, whose direction of writing is its own matter."""
    return Markup("<bdi>{}</bdi>").format(text)


def _digest(digest: str) -> Markup:
    kind, _, digits = digest.partition(":")
    return Markup('<code title="{}">{}</code>').format(digest, digits[:_DIGITS] or kind[:_DIGITS])


def _changes(visit: Visit, content: str) -> str:
    """The settings that were changed, and what they are since."""
    document = _document(content)
    parts = []
    for name, value in document.items():
        known = visit._(_SETTINGS[name]) if name in _SETTINGS else name
        if value is None or isinstance(value, (dict, list)):
            shown = " ".join(map(str, value)) if isinstance(value, list) else ""
        else:
            shown = {True: visit._("yes"), False: visit._("no")}[value] if isinstance(value, bool) else str(value)
        parts.append(f"{known} ({shown})" if shown else known)
    return ", ".join(parts) or content[:200]


def _why(event: EventRecord) -> str:
    """Why something failed, in the API's words."""
    if event.object.type == "pull":
        missing = _document(event.object.content).get("missing")
        return ", ".join(map(str, missing)) if isinstance(missing, list) else event.object.content[:500]
    return event.target.content[:500]


def _document(content: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _icon(event: EventRecord) -> str:
    return _DOINGS.get(event.type) or _ICONS.get(event.object.type, "activity")
