"""
Tags with all that rules ask about.

The registry knows most of it. What scans found and what is signed in content trust comes from sources that are
given, asked once for each page; without a source nothing is scanned, and nothing is signed in that way. A tag is
signed, too, when a signature (cosign's, Notation's) refers to what it names, as a referrer or by cosign's tag.
That somebody signed is all that this says; whose signatures were verified is a fact of its own (`signed_by`).

Tags of what refers to an image of the repository (`companions`) are no images of their own, and are left out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy import BigInteger, bindparam, or_, select

from dtr.db import Statement, in_list
from dtr.db.schema import manifests, tags
from dtr.oci import SIGNATURES, artifact_kind, companion_of, companions
from dtr.policies.rules import TagFacts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from dtr.db import Database
    from dtr.policies.rules import Findings
    from dtr.registry import Images
    from dtr.registry.images import TagRecord

Scans: TypeAlias = "Callable[[int, Sequence[str]], Awaitable[Mapping[str, Findings]]]"
"""Asked with a repository and digests: what was found, by digest; those that were not scanned yet are missing."""
Trust: TypeAlias = "Callable[[int, Mapping[str, str]], Awaitable[Mapping[str, bool]]]"
"""Asked with a repository and tags, with what each names: which tags are in content trust, and signed for that."""
Signers: TypeAlias = "Callable[[int, Sequence[str]], Awaitable[Mapping[str, frozenset[str]]]]"
"""Asked with a repository and digests: the identities of which a signature was verified, by digest."""

_COMPANIONS = 4
PAGE = 500
"""Tags that are read at once."""

_repository = bindparam("repository", type_=BigInteger)
_HELD = Statement(
    lambda: select(manifests.c.digest).where(
        in_list(manifests.c.digest, "digests", within=(manifests.c.repository_id, _repository))
    )
)
_SIGNATURES = Statement(
    lambda: select(
        manifests.c.subject, manifests.c.media_type, manifests.c.artifact_type, manifests.c.annotations
    ).where(
        in_list(manifests.c.subject, "digests", within=(manifests.c.repository_id, _repository)),
        or_(*(manifests.c.artifact_type.startswith(beginning, autoescape=True) for beginning in SIGNATURES)),
    )
)
_SIGNATURE_TAGS = Statement(
    lambda: select(tags.c.name).where(in_list(tags.c.name, "names", within=(tags.c.repository_id, _repository)))
)


class TagReader:
    """Reads tags of all repositories, for rules to decide on."""

    def __init__(
        self,
        database: Database,
        images: Images,
        *,
        scans: Scans | None = None,
        trust: Trust | None = None,
        signers: Signers | None = None,
    ) -> None:
        self._database = database
        self._images = images
        self._scans = scans
        self._trust = trust
        self._signers = signers

    async def pages(self, repository: int) -> AsyncIterator[list[tuple[TagRecord, TagFacts]]]:
        """All tags of a repository, by name, in pages."""
        start = ""
        while page := await self._images.list_tags(repository, start=start, limit=PAGE):
            shown = await self._without_companions(repository, page)
            facts = await self._facts(repository, shown)
            yield list(zip(shown, facts, strict=True))
            start = page[-1].name + "\x01"  # no name has it: whatever comes next begins behind

    async def read(self, repository: int) -> AsyncIterator[tuple[TagRecord, TagFacts]]:
        """All tags of a repository, by name."""
        async for page in self.pages(repository):
            for one in page:
                yield one

    async def newest(self, repository: int, limit: int) -> list[tuple[TagRecord, TagFacts]]:
        """At most `limit` of the tags that were moved last, the newest first."""
        # Each image may have signatures and the like beside it, which are left out.
        page = await self._images.list_newest(repository, limit=_COMPANIONS * limit)
        shown = (await self._without_companions(repository, page))[:limit]
        return list(zip(shown, await self._facts(repository, shown), strict=True))

    async def get(self, repository: int, name: str) -> tuple[TagRecord, TagFacts]:
        """The tag of this name. Raises ManifestUnknown."""
        tag = await self._images.get_tag(repository, name)
        (facts,) = await self._facts(repository, [tag])
        return tag, facts

    async def _without_companions(self, repository: int, page: list[TagRecord]) -> list[TagRecord]:
        """Those without an image here stay: somebody may keep signatures of other repositories in this one."""
        subjects = {tag.name: digest for tag in page if (digest := companion_of(tag.name)) is not None}
        if not subjects:
            return page
        rows = await self._database.fetch_all(_HELD, repository=repository, digests=sorted(set(subjects.values())))
        held = {row[0] for row in rows}
        return [tag for tag in page if subjects.get(tag.name) not in held]

    async def _facts(self, repository: int, page: Sequence[TagRecord]) -> list[TagFacts]:
        digests = sorted({tag.manifest.digest for tag in page})
        if not digests:
            return []
        signed = await self._signed(repository, digests)
        signers = await self._signers(repository, digests) if self._signers else {}
        findings = await self._scans(repository, digests) if self._scans else {}
        named = {tag.name: tag.manifest.digest for tag in page}
        trusted = await self._trust(repository, named) if self._trust else {}
        return [
            facts_of(
                tag,
                is_signed=tag.manifest.digest in signed or trusted.get(tag.name, False),
                in_trust=tag.name in trusted,
                signed_by=signers.get(tag.manifest.digest, frozenset()),
                findings=findings.get(tag.manifest.digest),
            )
            for tag in page
        ]

    async def _signed(self, repository: int, digests: list[str]) -> set[str]:
        """Those of the digests to which a signature refers."""
        rows = await self._database.fetch_all(_SIGNATURES, repository=repository, digests=digests)
        signed = {
            subject
            for subject, media_type, artifact_type, notes in rows
            if _is_signature(media_type, artifact_type, json.loads(notes) if notes else {})
        }
        by_name = {companions(digest)[1]: digest for digest in digests}
        found = await self._database.fetch_all(_SIGNATURE_TAGS, repository=repository, names=sorted(by_name))
        return signed | {by_name[row[0]] for row in found}


def _is_signature(media_type: str, artifact_type: str, annotations: Mapping[str, str]) -> bool:
    kind = artifact_kind(media_type, artifact_type=artifact_type, annotations=annotations)
    return kind == "signature"


def facts_of(
    tag: TagRecord,
    *,
    is_signed: bool,
    findings: Findings | None,
    in_trust: bool = False,
    signed_by: frozenset[str] = frozenset(),
) -> TagFacts:
    """What rules ask about a tag."""
    manifest = tag.manifest
    platforms = (
        {"/".join(filter(None, (one.os, one.architecture, one.variant))) for one in manifest.platforms}
        if manifest.platforms
        else {"/".join(filter(None, (manifest.config.os, manifest.config.architecture, manifest.config.variant)))}
    )
    pulled = [one for one in (tag.last_pulled_at, manifest.last_pulled_at) if one is not None]
    return TagFacts(
        name=tag.name,
        updated_at=tag.updated_at,
        last_pulled_at=max(pulled, default=None),
        size=manifest.size,
        platforms=frozenset(platforms - {""}),
        labels=manifest.config.labels,
        is_signed=is_signed,
        in_trust=in_trust,
        signed_by=signed_by,
        findings=findings,
    )
