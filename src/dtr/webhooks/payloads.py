"""
What receivers are told: types of webhooks, which events they tell, and how it is written.

DTR's form is ``{"type", "createdAt", "location", "contents"}``. The other one is CloudEvents 1.0, in the
structured mode of its JSON format: the contents are its `data`.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct, field

from dtr.events import Actor, Object, Recorded

if TYPE_CHECKING:
    from collections.abc import Mapping

Format: TypeAlias = Literal["dtr", "cloudevents"]

TYPES = {
    "TAG_PUSH": "an image was pushed under a tag",
    "TAG_PULL": "an image was pulled by a tag",
    "TAG_DELETE": "a tag was deleted, by somebody or by a policy",
    "MANIFEST_PUSH": "a manifest was pushed that the repository had not",
    "MANIFEST_PULL": "a manifest was pulled, by a tag or by its digest",
    "MANIFEST_DELETE": "a manifest was deleted",
    "REPO_CREATED": "a repository was made",
    "REPO_UPDATED": "the settings or the name of a repository were changed",
    "REPO_DELETED": "a repository was deleted",
    "REPO_EVENT": "each of the three",
    "PROMOTION": "an image was promoted from the repository",
    "PUSH_MIRRORING": "an image was mirrored from the repository",
    "POLL_MIRRORING": "an image was mirrored into the repository",
    "SCAN_COMPLETED": "an image was scanned; this does not happen yet",
    "SCAN_FAILED": "an image could not be scanned; this does not happen yet",
    "SCANNER_UPDATE_COMPLETED": "the scanner's database was renewed; this does not happen yet",
}
"""What can be subscribed to."""

_TOLD = {
    ("tag", "CREATE"): ("TAG_PUSH",),
    ("tag", "UPDATE"): ("TAG_PUSH",),
    ("tag", "GET"): ("TAG_PULL", "MANIFEST_PULL"),
    ("tag", "DELETE"): ("TAG_DELETE",),
    ("manifest", "CREATE"): ("MANIFEST_PUSH",),
    ("manifest", "GET"): ("MANIFEST_PULL",),
    ("manifest", "DELETE"): ("MANIFEST_DELETE",),
    ("promotion", "CREATE"): ("PROMOTION",),
    ("push_mirroring", "CREATE"): ("PUSH_MIRRORING",),
    ("poll_mirroring", "CREATE"): ("POLL_MIRRORING",),
    ("repository", "CREATE"): ("REPO_CREATED", "REPO_EVENT"),
    ("repository", "UPDATE"): ("REPO_UPDATED", "REPO_EVENT"),
    ("repository", "DELETE"): ("REPO_DELETED", "REPO_EVENT"),
}
_MOMENTS = {
    "TAG_PUSH": "pushedAt",
    "TAG_PULL": "pulledAt",
    "MANIFEST_PULL": "pulledAt",
    "PROMOTION": "promotedAt",
    "PUSH_MIRRORING": "mirroredAt",
    "POLL_MIRRORING": "mirroredAt",
} | dict.fromkeys(("TAG_DELETE", "MANIFEST_DELETE"), "deletedAt")
_POLICIES = {
    "promotion": "promotionPolicyID",
    "push_mirroring": "mirroringPolicyID",
    "poll_mirroring": "mirroringPolicyID",
}
"""What a policy did with a tag, and how its id is called."""
_TAGS = frozenset({"tag", *_POLICIES})
"""Events about a tag of the repository in which they happened."""
CONTENT_TYPES: Mapping[Format, str] = {
    "dtr": "application/json",
    "cloudevents": "application/cloudevents+json; charset=utf-8",
}


class Known(Struct, frozen=True, kw_only=True):
    """What has to be known beside an event, to tell it."""

    host: str = ""
    """``HOST[:PORT]`` of the registry; empty: unknown."""
    platforms: Mapping[tuple[int, str], tuple[str, str]] = field(default_factory=dict)
    """System and architecture by repository and digest."""
    repositories: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    """Those that are there, as the API shows them."""


def types_of(event: Recorded) -> tuple[str, ...]:
    """The types of webhooks that an event is told to."""
    if event.repository_id is None:
        return ()
    return _TOLD.get((event.object.kind, event.type), ())


def digest_of(event: Recorded) -> str:
    """The digest that an event about a tag or manifest is about: what a tag names then."""
    if event.object.kind == "manifest":
        return event.object.id
    if event.target is not None and event.type != "DELETE":  # it was moved there
        return event.target.content
    return event.object.content


def write(kind: str, form: Format, event: Recorded, known: Known) -> str:
    """What a webhook of this type and format is sent about an event."""
    place = f"/repositories/{event.repository}"
    if event.object.kind in _TAGS:
        place += f"/tags/{event.object.name}"
    number = (
        f"{event.id}-{kind.lower()}"  # an event may be told as several types, each of which is one for receivers
    )
    return _document(kind, form, event.published_at, place, _contents(kind, event, known), known.host, number)


def sample(kind: str, form: Format, now: int, host: str) -> str:
    """What a webhook of this type is sent to try it out; `now` in milliseconds since 1970 UTC."""
    if kind.startswith("SCAN"):
        place, contents = _scan_sample(kind, now, host)
        return _document(kind, form, now, place, contents, host, f"sample-{now}")
    digest = "sha256:" + "0" * 64
    what = kind.rpartition("_")[2]
    target = None
    if kind.startswith("REPO_"):
        what = "CREATED" if kind == "REPO_EVENT" else what
        about = Object("repository", "0", "foo/bar")
    elif kind == "PROMOTION" or what == "MIRRORING":
        about = Object(kind.lower(), "", "latest", digest)  # type: ignore[arg-type]  # types are called like kinds
        there = "foo/promoted:latest" if kind == "PROMOTION" else "remote.example/foo/bar:latest"
        target = Object("tag", "latest", there, digest)
    elif kind.startswith("MANIFEST_"):
        about = Object("manifest", digest)
    else:
        about = Object("tag", "latest", "latest", digest)
    types: dict[str, Any] = {"PULL": "GET", "DELETE": "DELETE", "DELETED": "DELETE", "UPDATED": "UPDATE"}
    event = Recorded(
        id=now,
        published_at=now,
        type=types.get(what, "CREATE"),
        actor=Actor("user", "", "foo"),
        repository_id=0,
        repository="foo/bar",
        object=about,
        target=target,
    )
    return write(kind, form, event, Known(host=host, platforms={(0, digest): ("linux", "amd64")}))


def _scan_sample(kind: str, now: int, host: str) -> tuple[str, dict[str, Any]]:
    """Where it is, and the contents; as DTR sent them, for nothing is scanned yet."""
    moment = _moment(now)
    if kind == "SCANNER_UPDATE_COMPLETED":
        replica = {"db_updated_at": moment, "version": "1", "replica_id": "000000000000"}
        return "/imagescan/status", {
            "scanner_version": 1,
            "scanner_updated_at": moment,
            "db_version": 1,
            "db_updated_at": moment,
            "success": True,
            "replicas": {"000000000000": replica},
        }
    where = {"namespace": "foo", "repository": "bar", "tag": "latest"}
    contents: dict[str, Any] = {**where, "imageName": f"{host}/foo/bar:latest" if host else "foo/bar:latest"}
    if kind == "SCAN_FAILED":
        contents["error"] = "a layer could not be read"
    else:
        counts = {"critical": 0, "major": 1, "minor": 2}
        completed = {
            "last_scan_status": 6,
            "check_completed_at": moment,
            "should_rescan": False,
            "has_foreign_layers": False,
        }
        contents["scanSummary"] = {**where, **counts, **completed}
    return "/repositories/foo/bar/tags/latest", contents


def _document(
    kind: str, form: Format, moment: int, place: str, contents: dict[str, Any], host: str, number: str
) -> str:
    created_at = _moment(moment)
    if form == "dtr":
        return json.dumps({"type": kind, "createdAt": created_at, "location": place, "contents": contents})
    return json.dumps(
        {
            "specversion": "1.0",
            "id": number,
            "source": f"https://{host}" if host else "dtr",
            "type": f"dtr.{kind.lower()}",
            "subject": place.removeprefix("/"),
            "time": created_at,
            "datacontenttype": "application/json",
            "data": contents,
        }
    )


def _contents(kind: str, event: Recorded, known: Known) -> dict[str, Any]:
    namespace, _, name = event.repository.partition("/")
    author = event.actor.name or event.actor.type
    where = {"namespace": namespace, "repository": name}
    if event.object.kind == "repository":
        happened = next(one for one in _TOLD["repository", event.type] if one != "REPO_EVENT")
        data = known.repositories.get(event.repository_id or 0)
        moved = {"newName": event.target.name} if event.target else {}
        return {**where, "event": happened, "author": author, "data": data, **moved}
    digest = digest_of(event)
    os, architecture = known.platforms.get((event.repository_id or 0, digest), ("", ""))
    image = f"{known.host}/{event.repository}" if known.host else event.repository
    is_tag = event.object.kind in _TAGS
    contents: dict[str, Any] = {
        **where,
        **({"tag": event.object.name} if is_tag else {}),
        "digest": digest,
        "imageName": f"{image}:{event.object.name}" if is_tag else f"{image}@{digest}",
        "os": os,
        "architecture": architecture,
        "author": author,
    }
    if event.object.kind in _POLICIES and event.target is not None:
        contents[_POLICIES[event.object.kind]] = event.object.id
        if event.object.kind == "promotion":
            contents["target"] = _tag_at(known.host, event.target.name)
        else:
            host, _, tag = event.target.name.partition("/")
            contents["remote"] = {"host": host, **_tag_at(host, tag)}
    if kind in _MOMENTS:
        contents[_MOMENTS[kind]] = _moment(event.published_at)
    return contents


def _tag_at(host: str, name: str) -> dict[str, str]:
    """A tag, ``namespace/repository:tag``, of a registry."""
    path, _, tag = name.rpartition(":")
    namespace, _, repository = path.partition("/")
    return {
        "namespace": namespace,
        "repository": repository,
        "tag": tag,
        "imageName": f"{host}/{name}" if host else name,
    }


def _moment(milliseconds: int) -> str:
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
