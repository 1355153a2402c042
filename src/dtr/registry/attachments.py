"""
What is attached to an image: signatures, bills of materials, attestations, and whatever else refers to it.

It is there in three ways: as a referrer (OCI distribution specification 1.1, "Listing Referrers"), by a tag that
cosign gives it (`companions`), or as a manifest of the same index that is for no system. What is attached may have
something attached itself. So it is looked for level by level, a few levels deep, up to a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from sqlalchemy import BigInteger, bindparam, select

from dtr.db import Statement, in_list
from dtr.db.schema import manifests
from dtr.oci import companion_of, companions
from dtr.registry._tags import tags_by_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dtr.db import Database
    from dtr.registry.images import Images, ManifestRecord

MOST = 200
_MOST_LEVELS = 3
_MOST_IMAGES = 100
"""Of an index: what is attached to further ones is not looked for."""

_REFERRERS = Statement(
    lambda: (
        select(manifests.c.digest, manifests.c.subject)
        .where(
            in_list(
                manifests.c.subject,
                "subjects",
                within=(manifests.c.repository_id, bindparam("repository", type_=BigInteger)),
            ),
            manifests.c.subject.is_not(None),
        )
        .order_by(manifests.c.subject, manifests.c.digest)
        .limit(MOST + 1)
    )
)
_TAGS = Statement(tags_by_name)


class Attachment(Struct, frozen=True):
    """A manifest that belongs to another one."""

    subject: str
    """Digest of that."""
    manifest: ManifestRecord
    tag: str
    """By which it is found; empty: it says itself what it refers to, or an index does."""


class Attachments:
    """What is attached to the images of all repositories."""

    def __init__(self, database: Database, images: Images) -> None:
        self._database = database
        self._images = images

    async def find(self, repository: int, image: ManifestRecord) -> tuple[list[Attachment], bool]:
        """What is attached to an image, or to an index and its images; and whether that is all."""
        parts = [one for one in image.platforms if one.is_image][:_MOST_IMAGES]
        level = list(dict.fromkeys([image.digest, *(one.digest for one in parts)]))
        places = [(one.digest, one.about or image.digest, "") for one in image.platforms if not one.is_image]
        seen, found, is_all = set(level), list[tuple[str, str, str]](), True
        for _ in range(_MOST_LEVELS):
            places += await self._places(repository, level)
            new = [one for one in places if one[0] not in seen]
            is_all = is_all and len(found) + len(new) <= MOST
            new = new[: MOST - len(found)]
            found += new
            level = list(dict.fromkeys(one[0] for one in new))
            seen.update(level)
            places = []
            if not level:
                break
        records = await self._images.find_many(repository, (digest for digest, _, _ in found))
        return [
            Attachment(subject, records[digest], tag) for digest, subject, tag in found if digest in records
        ], is_all

    async def _places(self, repository: int, subjects: Sequence[str]) -> list[tuple[str, str, str]]:
        """Digest, subject and tag of what refers to one of the subjects."""
        rows = await self._database.fetch_all(_REFERRERS, repository=repository, subjects=sorted(subjects))
        names = sorted({name for one in subjects for name in companions(one)[1:]})
        tagged = await self._database.fetch_all(_TAGS, repository=repository, names=names)
        return [
            *((digest, subject, "") for digest, subject in rows),
            *((digest, companion_of(name) or "", name) for name, digest in tagged),
        ]
