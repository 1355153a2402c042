"""
What receivers are told: types of webhooks, which events they tell, and how it is written.

DTR's form is ``{"type", "createdAt", "location", "contents"}``. The other one is CloudEvents 1.0, in the
structured mode of its JSON format: the contents are its `data`.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

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
    "PUSH_MIRRORING": "an image was mirrored from the repository; this does not happen yet",
    "POLL_MIRRORING": "an image was mirrored into the repository; this does not happen yet",
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
    ("repository", "CREATE"): ("REPO_CREATED", "REPO_EVENT"),
    ("repository", "UPDATE"): ("REPO_UPDATED", "REPO_EVENT"),
    ("repository", "DELETE"): ("REPO_DELETED", "REPO_EVENT"),
}
_MOMENTS = {
    "TAG_PUSH": "pushedAt",
    "TAG_PULL": "pulledAt",
    "MANIFEST_PULL": "pulledAt",
    "PROMOTION": "promotedAt",
} | dict.fromkeys(("TAG_DELETE", "MANIFEST_DELETE"), "deletedAt")
_TAGS = frozenset({"tag", "promotion"})
"""Events about a tag of the repository in which they happened."""
CONTENT_TYPES: Mapping[Format, str] = {
    "dtr": "application/json",
    "cloudevents": "application/cloudevents+json; charset=utf-8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
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
    created_at = _moment(event.published_at)
    place = f"/repositories/{event.repository}"
    if event.object.kind in _TAGS:
        place += f"/tags/{event.object.name}"
    contents = _contents(kind, event, known)
    if form == "dtr":
        return json.dumps({"type": kind, "createdAt": created_at, "location": place, "contents": contents})
    return json.dumps(
        {
            "specversion": "1.0",
            "id": str(event.id),
            "source": f"https://{known.host}" if known.host else "dtr",
            "type": f"dtr.{kind.lower()}",
            "subject": place.removeprefix("/"),
            "time": created_at,
            "datacontenttype": "application/json",
            "data": contents,
        }
    )


def sample(kind: str, form: Format, now: int, host: str) -> str:
    """What a webhook of this type is sent to try it out; `now` in milliseconds since 1970 UTC."""
    digest = "sha256:" + "0" * 64
    if kind.startswith("REPO_"):
        what, about = _event_of(kind), Object("repository", "0", "foo/bar")
    elif kind == "PROMOTION":
        what, about = "CREATED", Object("promotion", "", "latest", digest)
    elif kind.startswith("MANIFEST_"):
        what, about = kind.rpartition("_")[2], Object("manifest", digest)
    else:
        what, about = kind.rpartition("_")[2], Object("tag", "latest", "latest", digest)
    types: dict[str, Any] = {"PUSH": "CREATE", "PULL": "GET", "DELETE": "DELETE", "CREATED": "CREATE"}
    event = Recorded(
        id=0,
        published_at=now,
        type=types.get(what, "UPDATE"),
        actor=Actor("user", "", "foo"),
        repository_id=0,
        repository="foo/bar",
        object=about,
        target=Object("tag", "latest", "foo/promoted:latest", digest) if kind == "PROMOTION" else None,
    )
    return write(kind, form, event, Known(host=host, platforms={(0, digest): ("linux", "amd64")}))


def _event_of(kind: str) -> str:
    return "CREATED" if kind == "REPO_EVENT" else kind.removeprefix("REPO_")


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
    if event.object.kind == "promotion" and event.target is not None:
        path, _, tag = event.target.name.rpartition(":")
        contents["target"] = {
            "namespace": path.partition("/")[0],
            "repository": path.partition("/")[2],
            "tag": tag,
            "imageName": f"{known.host}/{path}:{tag}" if known.host else f"{path}:{tag}",
        }
        contents["promotionPolicyID"] = event.object.id
    if kind in _MOMENTS:
        contents[_MOMENTS[kind]] = _moment(event.published_at)
    return contents


def _moment(milliseconds: int) -> str:
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
