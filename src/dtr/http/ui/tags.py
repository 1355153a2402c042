"""The tags of a repository: the list, and what is done with several of them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, get_args

from msgspec import Struct
from starlette.responses import RedirectResponse

from dtr.http.api import listings, promotion, tags
from dtr.http.api.models import NEVER
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused
from dtr.policies.tag_search import Order, Trait

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Sequence

    from starlette.responses import Response

    from dtr.http.api.manifests import ManifestView
    from dtr.http.api.tags import TagCountsRecord, TagView
    from dtr.http.ui.visit import Repository, Visit
    from dtr.oci import ArtifactKind

pages = Pages()

REPOSITORY = "/repositories/{namespace}/{repo:path}"
_COUNTED_AT_ONCE = 2_000
"""In a repository with more tags the numbers on the filters come after the page."""
_MOST_AT_ONCE = 500
"""Tags with which something is done in one request."""
_NAMED = 20
"""Of many tags so many are named before something is done with them."""
_TARGETS = 50
_ALIASES = 3
"""Other names of an image that a row shows at most."""
_ALIAS = 60
"""Characters that a row has room for in them, all together."""

SignedState = Literal["signed", "mismatched", "unverified", "unsigned"]


class Signed(Struct, frozen=True):
    """Whether a tag is signed, as far as anybody who looks wants to know."""

    state: SignedState
    in_trust: bool
    """Content trust leads to what it names."""
    by: tuple[str, ...]
    """Names of identities whose signatures were verified, and of signers in content trust."""

    @classmethod
    def of(cls, tag: TagView) -> Signed:
        """What the record of a tag says."""
        in_trust = tag.in_notary and not tag.hash_mismatch
        signers = sorted({one.signer for one in tag.trust or () if one.signer and one.digest == tag.digest})
        verified = tag.signatures.verified_by if tag.signatures else []
        state: SignedState = "unsigned"
        if in_trust or verified:
            state = "signed"
        elif tag.hash_mismatch:
            state = "mismatched"
        elif tag.signatures and tag.signatures.signatures:
            state = "unverified"
        return cls(state, in_trust, tuple(dict.fromkeys([*verified, *(signers if in_trust else ())])))


class Row(Struct, frozen=True):
    """A tag in the list."""

    tag: TagView
    signed: Signed
    platforms: list[str]
    """A line for each operating system."""
    pull: str
    """The command that fetches it; empty: the one that the list begins for all, and the tag's name."""
    last_pulled_at: dt.datetime | None

    @property
    def aliases(self) -> list[str]:
        """Other tags of the same image, as many as there is room for."""
        shown: list[str] = []
        for one in (self.tag.aliases or [])[:_ALIASES]:
            if len(one) + sum(map(len, shown)) > _ALIAS:
                break
            shown.append(one)
        return shown

    @property
    def more_aliases(self) -> int:
        """How many aliases are not shown."""
        return (self.tag.alias_count or 0) - len(self.aliases)

    @property
    def key(self) -> str:
        """What the page calls the row, whatever comes before it; short, for names can have 128 characters."""
        return f"t{hashlib.blake2s(self.tag.name.encode(), digest_size=4).hexdigest()}"


def platform_name(os: str, architecture: str, variant: str) -> str:
    """``linux/arm/v7``; empty: it is for no system."""
    return "/".join(one for one in (os, architecture, variant) if one)


def platform_lines(manifest: ManifestView) -> list[str]:
    """The systems that something is for, grouped: ``linux/amd64, arm64``."""
    parts: Iterable[Any] = [manifest]
    if manifest.platforms is not None:
        parts = [one for one in manifest.platforms if one.is_image]
    lines: dict[str, list[str]] = {}
    for one in parts:
        if one.os or one.architecture:
            name = platform_name("", one.architecture, one.variant)
            known = lines.setdefault(one.os, [])
            if name not in known:
                known.append(name)
    return [f"{os}/{', '.join(known)}" if os else ", ".join(known) for os, known in lines.items()]


def pull_command(host: str, path: str, reference: str, kind: ArtifactKind) -> str:
    """The command that fetches what a tag or digest names, with a tool that can."""
    name = f"{host}/{path}@{reference}" if ":" in reference else f"{host}/{path}:{reference}"
    if kind in {"image", "index"}:
        return f"docker pull {name}"
    if kind == "plugin":
        return f"docker plugin install {name}"
    if kind == "helm chart" and ":" not in reference:
        return f"helm pull oci://{host}/{path} --version {reference}"
    return f"oras pull {name}"


def last_pull(tag: TagView) -> dt.datetime | None:
    """When it was pulled last, by its name or by the digest of what it names; None: never."""
    moments = [tag.last_pulled_at]
    if tag.manifest.digest == tag.digest:
        moments.append(tag.manifest.last_pulled_at)
    latest = max(moments)
    return None if latest == NEVER else latest


class _Wanted(Struct, frozen=True):
    """What the address asks for."""

    text: str
    show: tuple[Trait, ...]
    sort: Order
    attached: bool
    refused: bool

    @classmethod
    def of(cls, visit: Visit) -> _Wanted:
        known: tuple[Trait, ...] = get_args(Trait)
        orders: tuple[Order, ...] = get_args(Order)
        sort = visit.query.get("sort", "")
        return cls(
            visit.query.get("q", "")[:1024],
            tuple(one for one in known if one in visit.queries("show")),
            next((one for one in orders if one == sort), "newest"),
            visit.query.get("attached") == "1",
            visit.query.get("refused") == "1",
        )

    @property
    def is_filtered(self) -> bool:
        return bool(self.text.strip() or self.show or self.refused)


@pages.get(f"{REPOSITORY}/tags")
async def list_tags(visit: Visit) -> Response:
    """The list; with ``part=counts`` only the filters, with their numbers."""
    repo = await visit.repository()
    wanted = _Wanted.of(visit)
    if visit.query.get("part") == "counts":
        found = await _count(visit, repo, wanted)
        return visit.page(
            "tags/chips.html",
            wanted=wanted,
            counts=found,
            is_late=False,
            repo=repo,
            shows_refused=_shows_refused(visit, repo),
        )
    listing = await visit.listing(
        tags.list_repo_tags,
        path=repo.path,
        count=True,
        q=wanted.text,
        show=list(wanted.show),
        sort=wanted.sort,
        attached=wanted.attached,
        with_aliases=True,
        refused=wanted.refused,
    )
    pull_start = pull_command(visit.host, repo.path, "", "image")
    rows = []
    for one in listing.records:
        pull = pull_command(visit.host, repo.path, one.name, one.manifest.type)
        if pull == f"{pull_start}{one.name}":
            pull = ""
        rows.append(Row(one, Signed.of(one), platform_lines(one.manifest), pull, last_pull(one)))
    counts: TagCountsRecord | None = None
    if not visit.is_partial:
        total = await _total(visit, repo, wanted) if wanted.is_filtered else listing.count or 0
        if total <= _COUNTED_AT_ONCE:
            counts = await _count(visit, repo, wanted)
    return visit.page(
        "tags/list.html",
        repo=repo,
        wanted=wanted,
        listing=listing,
        rows=rows,
        pull_start=pull_start,
        counts=counts,
        is_late=counts is None,
        shows_refused=any(one.tag.refused for one in rows) or _shows_refused(visit, repo),
    )


def _shows_refused(visit: Visit, repo: Repository) -> bool:
    """Whether to offer a look at what cannot be pulled: to administrators, if anything may have to be signed."""
    return repo.may("EDIT_POLICIES") and visit.rooms.enforcement.is_on


@pages.get(f"{REPOSITORY}/images")
async def show_old_address(visit: Visit) -> Response:
    """The list had this address before."""
    repo = await visit.repository()
    query = visit.request.url.query
    return visit.answer(RedirectResponse(f"{repo.url}/tags{f'?{query}' if query else ''}", 308))


async def _count(visit: Visit, repo: Repository, wanted: _Wanted) -> TagCountsRecord:
    return await visit.call(tags.get_repo_tag_counts, path=repo.path, attached=wanted.attached)


async def _total(visit: Visit, repo: Repository, wanted: _Wanted) -> int:
    everything = await visit.listing(
        tags.list_repo_tags, path=repo.path, start="", size=1, count=True, attached=wanted.attached, sort="newest"
    )
    return everything.count or 0


# --- several tags ---------------------------------------------------------------------------------------------


class Outcome(Struct, frozen=True):
    """What became of a tag."""

    tag: str
    done: bool
    reason: str = ""
    is_signed: bool = False


@pages.get(f"{REPOSITORY}/delete-tags", f"{REPOSITORY}/copy-tags")
async def return_to_list(visit: Visit) -> Response:
    """Nothing was picked, or a log-in came between: begin anew."""
    repo = await visit.repository()
    return visit.redirect(f"{repo.url}/tags")


@pages.post(f"{REPOSITORY}/delete-tags")
async def delete_tags(visit: Visit) -> Response:
    """Ask, and then delete the tags that were picked."""
    repo = await visit.repository("DELETE_TAG")
    names = await _picked(visit)
    if not names:
        return visit.redirect(f"{repo.url}/tags", visit._("Select tags first."))
    if await visit.text("confirmed") != "yes":
        return visit.confirm(
            visit.n_(
                "Delete {n} tag of {repository}?",
                "Delete {n} tags of {repository}?",
                len(names),
                repository=repo.path,
            ),
            verb=visit.n_("Delete {n} tag", "Delete {n} tags", len(names)),
            text=visit._(
                "The tags are gone at once. An image that another tag names stays; the others are kept for a"
                " while, and then collected. Tags that are signed in content trust stay."
            ),
            items=_some(visit, names),
            fields={"tag": names, "confirmed": "yes"},
            back=f"{repo.url}/tags",
        )
    done = await visit.call(tags.delete_repo_tags, path=repo.path, form=tags.TagNames(tags=names))
    outcomes = [
        Outcome(
            one.name,
            one.deleted,
            "" if one.deleted
            else visit._("It is signed in content trust.") if one.in_notary
            else visit._("There is no such tag any more."),
            is_signed=one.in_notary,
        )
        for one in done
    ]  # fmt: skip
    gone = sum(one.done for one in outcomes)
    if gone == len(outcomes):
        return visit.redirect(f"{repo.url}/tags", visit.n_("{n} tag is deleted.", "{n} tags are deleted.", gone))
    title = visit._(
        "{done} of {n} tags are deleted", done=visit.words.number(gone), n=visit.words.number(len(outcomes))
    )
    return visit.page("tags/result.html", repo=repo, title=title, outcomes=outcomes, target="")


@pages.post(f"{REPOSITORY}/copy-tags")
async def copy_tags(visit: Visit) -> Response:
    """Ask where to, and then copy the tags that were picked to another repository."""
    repo = await visit.repository("PROMOTE_FROM")
    names = await _picked(visit)
    if not names:
        return visit.redirect(f"{repo.url}/tags", visit._("Select tags first."))
    target = await visit.text("target")
    shown: dict[str, Any] = {
        "repo": repo,
        "names": names,
        "some": _some(visit, names),
        "target": target,
        "target_tag": "",
        "targets": await copy_targets(visit, repo),
        "action": f"{repo.url}/copy-tags",
        "back": f"{repo.url}/tags",
    }
    if await visit.text("step") != "copy":
        return visit.page("tags/copy.html", **shown)
    outcomes = []
    for name in names:
        try:
            await copy_tag(visit, repo, name, target, name)
        except Refused as refused:
            if "target" in refused.problems.fields:  # it is the same for all others
                return visit.refuse("tags/copy.html", refused, **shown)
            problems = refused.problems
            reasons = [*problems.general, *problems.fields.values()]
            outcomes.append(Outcome(name, done=False, reason=" ".join(reasons)))
        else:
            outcomes.append(Outcome(name, done=True))
    done = sum(one.done for one in outcomes)
    if done == len(outcomes):
        said = visit.n_("{n} tag is copied to {target}.", "{n} tags are copied to {target}.", done, target=target)
        return visit.redirect(f"{repo.url}/tags", said)
    title = visit._(
        "{done} of {n} tags are copied", done=visit.words.number(done), n=visit.words.number(len(outcomes))
    )
    return visit.page("tags/result.html", repo=repo, title=title, outcomes=outcomes, target=target)


async def copy_tag(visit: Visit, repo: Repository, tag: str, target: str, target_tag: str) -> None:
    """Let a tag of another repository name what a tag of this one names. Raises Refused."""
    problems = Problems()
    for field, value in (("target", target), ("target_tag", target_tag)):
        if not value:
            problems.add(field, visit._("Fill in this field."))
    if problems:
        raise Refused(problems)
    await visit.submit(
        promotion.create_repo_tag_promotion,
        form=promotion.PromotionForm,
        data={"targetRepository": target, "targetTag": target_tag},
        fields={
            "targetRepository": "target",
            "targetTag": "target_tag",
            "NO_SUCH_REPOSITORY": "target",
            "NOT_AUTHORIZED": "target",
            "INVALID_TAG_NAME": "target_tag",
            "TAG_IMMUTABLE": "target_tag",
        },
        path=repo.path,
        tag=tag,
    )


async def copy_targets(visit: Visit, repo: Repository) -> list[str]:
    """Repositories to which the visitor may copy tags, those that were pushed to last first."""
    found = await visit.call(listings.search_repositories, sort="pushed")
    paths = [
        f"{one.repository.namespace}/{one.repository.name}"
        for one in found.repositories
        if one.repository.your_access in {"read-write", "admin"}
    ]
    return sorted(paths, key=lambda one: one == repo.path)[:_TARGETS]


async def _picked(visit: Visit) -> list[str]:
    return list(dict.fromkeys(await visit.texts("tag")))[:_MOST_AT_ONCE]


def _some(visit: Visit, names: Sequence[str]) -> list[str]:
    """The names, or of very many the first, and how many more there are."""
    if len(names) <= _NAMED:
        return list(names)
    more = len(names) - _NAMED
    return [*names[:_NAMED], visit.n_("and {n} more", "and {n} more", more)]
