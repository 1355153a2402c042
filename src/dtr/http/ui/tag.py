"""One tag: what it names, how that is built, what is attached, what it named before; and what can be done."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgspec import Struct
from starlette.responses import Response

from dtr.http.api import files, manifests, mirroring, remotes, signatures, tags, trust
from dtr.http.api.errors import ApiError
from dtr.http.ui.comparison import compare
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused
from dtr.http.ui.tags import (
    REPOSITORY,
    Signed,
    copy_tag,
    copy_targets,
    last_pull,
    platform_name,
    pull_command,
)
from dtr.registry import ManifestUnknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dtr.http.api.manifests import AttachmentRecord, DockerfileLine, ManifestDetail, PlatformRecord
    from dtr.http.api.signatures import SignatureView
    from dtr.http.api.tags import TagView
    from dtr.http.ui.visit import Repository, Visit

pages = Pages()

TAG = f"{REPOSITORY}/tags/{{tag}}"
_LARGEST_TEXT = 24_000
"""Characters of a manifest that are shown in the page."""
_MOST_LINES = 200
_LONG_LINE = 140
_MOST_SUBJECTS = 8
"""Of what is attached: the signatures of so many are looked up."""
_CHANGES = 10
_CANDIDATES = 25
_ALIASES = 5
"""Other names of an image that are shown."""


class Platform(Struct, frozen=True):
    """A system that an index has an image for."""

    name: str
    digest: str
    href: str
    is_current: bool


class Step(Struct, frozen=True):
    """A line of the layers."""

    instruction: str
    arguments: str
    line: DockerfileLine
    share: float
    """Of the largest layer, in percent."""
    is_long: bool


class Node(Struct):
    """Something attached, and what is attached to that."""

    attachment: AttachmentRecord
    signatures: list[SignatureView]
    nodes: list[Node]
    predicates: list[str]
    """What is attested in it."""


class Named(Struct, frozen=True, kw_only=True):
    """What the address names: a tag, or a digest."""

    reference: str
    tag: TagView | None
    """None: no tag was asked for."""
    root: ManifestDetail
    """The index, or the image itself."""
    platforms: list[Platform]
    chosen: ManifestDetail | None
    """The image of the chosen platform; None: the repository does not hold it."""

    @property
    def digest(self) -> str:
        """Of what is named."""
        return self.root.manifest.digest


# --- looking --------------------------------------------------------------------------------------------------


@pages.get(
    TAG,
    f"{REPOSITORY}/{{tag}}/{{os}}/{{arch}}/layers",
    f"{REPOSITORY}/{{tag}}/{{os}}/{{arch}}/components",
    f"{REPOSITORY}/{{tag}}/{{os}}/{{arch}}/components/{{component:path}}",
)
async def show_tag(visit: Visit) -> Response:
    """All about a tag, or about what has a digest; links into DTR's pages of it lead here, too."""
    repo = await visit.repository()
    named = await _find(visit, repo, visit.values["tag"])
    attached = await visit.call(manifests.list_attachments, path=repo.path, reference=named.digest)
    changes = None
    if named.tag and repo.may("SEE_EVENTS"):
        changes = await visit.listing(
            tags.list_tag_history, path=repo.path, tag=named.reference, start="", size=_CHANGES
        )
    chosen = named.chosen
    content = chosen.content if chosen else named.root.content
    tag = named.tag
    box = chosen.container if chosen else None
    tree = await _tree(visit, repo, named, attached.attachments)
    return visit.page(
        "tags/tag.html",
        visible=visible,
        platform_tabs=[(one.href, one.name, one.is_current) for one in named.platforms],
        environment=[tuple(one.partition("=")[::2]) for one in (box.env if box else ())],
        has_attached=any(tree.values()),
        repo=repo,
        named=named,
        tag=tag,
        signed=Signed.of(tag) if tag else None,
        last_pulled_at=last_pull(tag) if tag else None,
        aliases=_aliases(named)[:_ALIASES],
        more_aliases=max(0, named.root.tag_count - bool(tag) - _ALIASES),
        pull=pull_command(visit.host, repo.path, named.reference, named.root.manifest.type),
        pull_digest=pull_command(visit.host, repo.path, named.digest, named.root.manifest.type),
        steps=_steps((chosen.manifest.dockerfile or ()) if chosen else ()),
        most_steps=_MOST_LINES,
        tree=tree,
        is_all=attached.is_all,
        changes=changes,
        manifest_text=_pretty(content)[:_LARGEST_TEXT] if content else "",
        is_cut=content is not None and len(_pretty(content)) > _LARGEST_TEXT,
        url=f"{repo.url}/tags/{quote(named.reference)}",
    )


@pages.get(f"{TAG}/manifest.json")
async def send_manifest(visit: Visit) -> Response:
    """The manifest as it was pushed; of an index with ``platform`` that of its image."""
    repo = await visit.repository()
    named = await _find(visit, repo, visit.values["tag"])
    detail = named.chosen if visit.query.get("platform") and named.chosen else named.root
    if detail.content is None:
        raise ApiError("NO_SUCH_REF", named.reference[:255])
    return visit.answer(Response(detail.content, media_type="application/json"))


@pages.get(f"{TAG}/files/{{digest}}")
async def send_file(visit: Visit) -> Response:
    """One of the layers as a file to be saved, for who may pull it."""
    repo = await visit.repository()
    response = await visit.call(
        files.get_manifest_file, path=repo.path, reference=visit.values["tag"], digest=visit.values["digest"]
    )
    return visit.answer(response)


@pages.get(f"{TAG}/history")
async def show_history(visit: Visit) -> Response:
    """What a tag named, as far back as that is known."""
    repo = await visit.repository()
    name = visit.values["tag"]
    listing = await visit.listing(tags.list_tag_history, path=repo.path, tag=name)
    return visit.page(
        "tags/history.html",
        visible=visible,
        repo=repo,
        name=name,
        listing=listing,
        url=f"{repo.url}/tags/{quote(name)}",
    )


@pages.get(f"{TAG}/compare")
async def show_comparison(visit: Visit) -> Response:
    """What is different between what a tag names and something else."""
    repo = await visit.repository()
    named = await _find(visit, repo, visit.values["tag"])
    other_name = visit.query.get("with", "").strip()
    other: Named | None = None
    problems = Problems()
    if other_name:
        try:
            other = await _find(visit, repo, other_name, like=named)
        except (ApiError, ManifestUnknown):
            problems.add("with", visit._("The repository has no such tag or digest."))
    newest = await visit.listing(
        tags.list_repo_tags,
        path=repo.path,
        start="",
        size=_CANDIDATES,
        sort="newest",
        attached=False,
    )
    return visit.page(
        "tags/compare.html",
        422 if problems else 200,
        problems=problems,
        visible=visible,
        repo=repo,
        named=named,
        other=other,
        other_name=other_name,
        found=compare(named.chosen, other.chosen) if other and named.chosen and other.chosen else None,
        only_left=_only(named.platforms, other.platforms) if other else [],
        only_right=_only(other.platforms, named.platforms) if other else [],
        candidates=[one.name for one in newest.records if one.name != named.reference],
        url=f"{repo.url}/tags/{quote(named.reference)}",
    )


def _only(these: Iterable[Platform], others: Iterable[Platform]) -> list[str]:
    known = {one.name for one in others}
    return [one.name for one in these if one.name not in known]


async def _find(visit: Visit, repo: Repository, reference: str, *, like: Named | None = None) -> Named:
    """What a tag or digest names, with the platform of the address, or that of `like`. Raises ApiError."""
    root = await visit.call(manifests.get_repo_manifest, path=repo.path, reference=reference)
    view = None
    if ":" not in reference:
        found = await visit.call(tags.list_repo_tag, path=repo.path, reference=reference)
        view = found[0] if found else None
    if root.manifest.platforms is None:
        return Named(reference=reference, tag=view, root=root, platforms=[], chosen=root)
    images = [one for one in root.manifest.platforms if one.is_image]
    current = _choose(visit, images, like)
    chosen = None
    if current is not None:
        try:
            chosen = await visit.call(manifests.get_repo_manifest, path=repo.path, reference=current.digest)
        except ManifestUnknown:  # an index may name what the repository does not hold
            chosen = None
    platforms = [_platform(repo, reference, one, images, current) for one in images]
    return Named(reference=reference, tag=view, root=root, platforms=platforms, chosen=chosen)


def _choose(visit: Visit, images: Sequence[PlatformRecord], like: Named | None) -> PlatformRecord | None:
    wanted = visit.query.get("platform", "")
    if like is not None:
        wanted = next((one.name for one in like.platforms if one.is_current), "")
    elif "os" in visit.values:
        wanted = f"{visit.values['os']}/{visit.values['arch']}"
    for one in images:
        if wanted in {one.digest, platform_name(one.os, one.architecture, one.variant)}:
            return one
    for one in images:
        if wanted == platform_name(one.os, one.architecture, ""):
            return one
    return images[0] if images else None


def _platform(
    repo: Repository,
    reference: str,
    one: PlatformRecord,
    images: Sequence[PlatformRecord],
    current: PlatformRecord | None,
) -> Platform:
    name = platform_name(one.os, one.architecture, one.variant)
    alike = [other for other in images if platform_name(other.os, other.architecture, other.variant) == name]
    key = name if len(alike) == 1 and name else one.digest
    if len(alike) > 1:  # Windows has an image for each of its versions
        name = f"{name} {one.os_version}".strip()
    href = f"{repo.url}/tags/{quote(reference)}?platform={quote(key)}"
    return Platform(name or one.digest[7:19], one.digest, href, one is current)


def _aliases(named: Named) -> list[str]:
    """Other tags that name the same, as many as are known."""
    return [name for name in named.root.tags if name != named.reference]


def _steps(lines: Sequence[DockerfileLine]) -> list[Step]:
    largest = max((one.size for one in lines), default=0) or 1
    steps = []
    for one in lines[:_MOST_LINES]:
        instruction, _, arguments = one.line.partition(" ")
        if not (instruction.isalpha() and instruction.isupper()):
            instruction, arguments = "", one.line
        steps.append(
            Step(instruction, arguments, one, round(100 * one.size / largest, 1), len(arguments) > _LONG_LINE)
        )
    return steps


_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def visible(text: str) -> str:
    """A foreign text with what nobody sees written out: it may turn the order of what is read around."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _pretty(content: str) -> str:
    """JSON with an indent; what is none as it is."""
    try:
        return json.dumps(json.loads(content), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return content


_PREDICATES = {
    "https://slsa.dev/provenance/": "provenance",
    "https://spdx.dev/Document": "spdx",
    "https://cyclonedx.org/": "cyclonedx",
    "https://cosign.sigstore.dev/attestation/vuln/": "vulnerabilities",
    "https://in-toto.io/attestation/vulns": "vulnerabilities",
    "https://openvex.dev/": "vex",
}
"""What statements of a predicate type, which begins so, are about."""


def _predicate(text: str) -> str:
    return next((name for beginning, name in _PREDICATES.items() if text.startswith(beginning)), text)


async def _tree(
    visit: Visit, repo: Repository, named: Named, attached: Sequence[AttachmentRecord]
) -> dict[str, list[Node]]:
    """What is attached, by the digest of what it belongs to, with what is attached to that."""
    chosen = named.chosen.manifest.digest if named.chosen else ""
    others = {one.digest for one in named.platforms} - {chosen}
    # Of the other platforms only the numbers are shown.
    subjects = [one for one in dict.fromkeys([named.digest, chosen, *(a.subject for a in attached)]) if one]
    found: dict[str, list[SignatureView]] = {}
    for subject in [one for one in subjects if one not in others][:_MOST_SUBJECTS]:
        views = await visit.call(signatures.list_signatures, path=repo.path, reference=subject)
        for view in views:
            found.setdefault(view.manifest, []).append(view)

    def nodes(subject: str, depth: int) -> list[Node]:
        return [
            Node(
                one,
                found.get(one.digest, []),
                nodes(one.digest, depth - 1) if depth else [],
                list(
                    dict.fromkeys(
                        _predicate(text)
                        for text in (
                            *(view.predicate_type or "" for view in found.get(one.digest, [])),
                            *(file.predicate_type or "" for file in one.files),
                        )
                        if text
                    )
                ),
            )
            for one in attached
            if one.subject == subject
        ]

    return {subject: nodes(subject, 2) for subject in (named.digest, *(one.digest for one in named.platforms))}


# --- doing ----------------------------------------------------------------------------------------------------


@pages.get(f"{TAG}/delete")
async def ask_to_delete(visit: Visit) -> Response:
    """Ask before a tag is deleted; of a signed one say what helps."""
    repo = await visit.repository("DELETE_TAG")
    tag = await _tag(visit, repo)
    return _signed_page(visit, repo, tag) if tag.in_notary else await _confirm_delete(visit, repo, tag)


@pages.post(f"{TAG}/delete")
async def delete_tag(visit: Visit) -> Response:
    """Delete a tag."""
    repo = await visit.repository("DELETE_TAG")
    name = visit.values["tag"]
    try:
        await visit.submit(tags.delete_repo_tag, path=repo.path, tag=name)
    except Refused as refused:
        if refused.problems.code == "TAG_IN_NOTARY":
            return _signed_page(visit, repo, await _tag(visit, repo), 409)
        if refused.problems.code == "NO_SUCH_TAG":
            return visit.redirect(f"{repo.url}/tags", visit._("{tag} was deleted before.", tag=name))
        return await _confirm_delete(visit, repo, await _tag(visit, repo), refused.problems)
    return visit.redirect(f"{repo.url}/tags", visit._("{tag} is deleted.", tag=name))


async def _confirm_delete(
    visit: Visit, repo: Repository, tag: TagView, problems: Problems | None = None
) -> Response:
    found = await visit.call(manifests.get_repo_manifest, path=repo.path, reference=tag.digest)
    others = [name for name in found.tags if name != tag.name]
    if others:
        text = visit._("The image stays: {tags} name it, too.", tags=", ".join(others[:_ALIASES]))
    else:
        text = visit._(
            "No other tag names the image. It is kept for a while, and then collected with what is attached to it;"
            " layers that other images share stay."
        )
    return visit.confirm(
        visit._("Delete the tag {tag} of {repository}?", tag=tag.name, repository=repo.path),
        verb=visit._("Delete the tag"),
        text=text,
        back=f"{repo.url}/tags/{quote(tag.name)}",
        problems=problems,
    )


def _signed_page(visit: Visit, repo: Repository, tag: TagView, status: int = 200) -> Response:
    roles = sorted({(one.gun, one.role) for one in tag.trust or ()})
    return visit.page(
        "tags/signed.html", status, repo=repo, tag=tag, roles=roles, url=f"{repo.url}/tags/{quote(tag.name)}"
    )


@pages.get(f"{TAG}/forget-signatures")
async def ask_to_forget(visit: Visit) -> Response:
    """Ask before what is signed under a name counts no longer."""
    repo = await visit.repository("MANAGE_TRUST")
    return _confirm_forget(visit, repo)


@pages.post(f"{TAG}/forget-signatures")
async def forget_signatures(visit: Visit) -> Response:
    """Let what is signed under a name count no longer."""
    repo = await visit.repository("MANAGE_TRUST")
    name = visit.values["tag"]
    try:
        await visit.submit(trust.delete_trust_tag, path=repo.path, tag=name)
    except Refused as refused:
        return _confirm_forget(visit, repo, refused.problems)
    said = visit._("What is signed as {tag} counts no longer. You can delete the tag now.", tag=name)
    return visit.redirect(f"{repo.url}/tags/{quote(name)}", said)


def _confirm_forget(visit: Visit, repo: Repository, problems: Problems | None = None) -> Response:
    name = visit.values["tag"]
    return visit.confirm(
        visit._("Let the signatures of {tag} in content trust count no longer?", tag=name),
        verb=visit._("Forget the signatures"),
        text=visit._(
            "Here nothing counts as signed under this name any more, and the tag can be deleted. Clients that"
            " verify the collection still find the tag in it, until its signers remove it."
        ),
        back=f"{repo.url}/tags/{quote(name)}",
        problems=problems,
    )


@pages.get(f"{TAG}/copy")
async def ask_to_copy(visit: Visit) -> Response:
    """Ask where a tag is to be copied to."""
    repo = await visit.repository("PROMOTE_FROM")
    tag = await _tag(visit, repo)
    return visit.page("tags/copy.html", **await _copy_form(visit, repo, tag.name, "", tag.name))


@pages.post(f"{TAG}/copy")
async def copy_one_tag(visit: Visit) -> Response:
    """Copy a tag to another repository."""
    repo = await visit.repository("PROMOTE_FROM")
    name, target, target_tag = visit.values["tag"], await visit.text("target"), await visit.text("target_tag")
    try:
        await copy_tag(visit, repo, name, target, target_tag)
    except Refused as refused:
        shown = await _copy_form(visit, repo, name, target, target_tag)
        return visit.refuse("tags/copy.html", refused, **shown)
    copied = f"{target}:{target_tag}"
    said = visit._("{tag} is copied to {target}.", tag=name, target=copied)
    return visit.redirect(f"{repo.url}/tags/{quote(name)}", said)


async def _copy_form(visit: Visit, repo: Repository, name: str, target: str, target_tag: str) -> dict[str, Any]:
    url = f"{repo.url}/tags/{quote(name)}"
    return {
        "repo": repo,
        "names": [name],
        "some": [name],
        "target": target,
        "target_tag": target_tag or name,
        "targets": await copy_targets(visit, repo),
        "action": f"{url}/copy",
        "back": url,
    }


_PUSH_FIELDS = ("remote", "host", "repository", "target_tag", "username", "ca")


@pages.get(f"{TAG}/push")
async def ask_to_push(visit: Visit) -> Response:
    """Ask to which registry a tag is to be pushed."""
    repo = await visit.repository("MIRROR_TAG")
    tag = await _tag(visit, repo)
    typed = dict.fromkeys(_PUSH_FIELDS, "") | {"repository": repo.path, "target_tag": tag.name, "skip": ""}
    return visit.page("tags/push.html", **await _push_form(visit, repo, tag.name, typed))


@pages.post(f"{TAG}/push")
async def push_tag(visit: Visit) -> Response:
    """Have a tag pushed to another registry."""
    repo = await visit.repository("MIRROR_TAG")
    name = visit.values["tag"]
    typed = {one: await visit.text(one) for one in (*_PUSH_FIELDS, "skip")}
    stored = typed["remote"]
    data: dict[str, object] = {
        "remoteRepository": typed["repository"],
        "remoteTag": typed["target_tag"],
        **(
            {"remoteId": stored}
            if stored
            else {
                "remoteHost": typed["host"],
                "username": typed["username"],
                "password": await visit.text("password"),
                "remoteCA": typed["ca"],
                "skipTLSVerification": bool(typed["skip"]),
            }
        ),
    }
    try:
        made = await visit.submit(
            mirroring.create_repo_tag_push_mirroring,
            form=mirroring.PushMirroringForm,
            data=data,
            fields={
                "remoteId": "remote",
                "remoteHost": "host",
                "remoteRepository": "repository",
                "remoteTag": "target_tag",
                "remoteCA": "ca",
                "INVALID_TAG_NAME": "target_tag",
                "NO_SUCH_REMOTE": "remote",
                "INVALID_REMOTE": "host",
            },
            path=repo.path,
            tag=name,
        )
    except Refused as refused:
        return visit.refuse("tags/push.html", refused, **await _push_form(visit, repo, name, typed))
    to = f"{made.remote_repository}:{made.remote_tag}"
    said = visit._("{tag} is being pushed to {target}.", tag=name, target=to)
    return visit.redirect(f"{repo.url}/tags/{quote(name)}", said)


async def _push_form(visit: Visit, repo: Repository, name: str, typed: dict[str, str]) -> dict[str, Any]:
    namespace = repo.record.namespace
    places = [namespace] if await visit.may_in(namespace, "USE_REMOTES") else []
    places += [""] if visit.may("ADMINISTER") else []
    stored = [
        (one.id, f"{one.name} ({one.remote_host})")
        for place in places
        for one in await visit.call(remotes.list_remotes, namespace=place)
    ]
    return {"repo": repo, "name": name, "typed": typed, "stored": stored, "url": f"{repo.url}/tags/{quote(name)}"}


async def _tag(visit: Visit, repo: Repository) -> TagView:
    """The tag of the address. Raises ApiError."""
    name = visit.values["tag"]
    found = [] if ":" in name else await visit.call(tags.list_repo_tag, path=repo.path, reference=name)
    if not found:
        raise ApiError("NO_SUCH_TAG", name[:255])
    return found[0]
