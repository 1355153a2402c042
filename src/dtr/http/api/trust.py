"""``/api/v0/repositories/{namespace}/{reponame}/trustData``: content trust of a repository, without its keys."""

from __future__ import annotations

import datetime as dt  # noqa: TC003 - records need it
from typing import TYPE_CHECKING

from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Record, moment
from dtr.http.api.operations import Router
from dtr.http.api.repositories import FROM_REPOSITORY, ON_REPOSITORY, DomainDep, PathDep, require_writable
from dtr.http.api.rooms import RoomsDep
from dtr.http.api.tags import is_tag
from dtr.trust import Collection

if TYPE_CHECKING:
    from dtr.trust.index import CollectionRecord, CollectionRole

router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}/trustData", tags=["repositories"])


class RoleView(Record):
    """A role of a collection."""

    name: str = Field(description="`root`, `snapshot`, `timestamp`, `targets`, or one below: `targets/NAME`.")
    version: int = Field(description="Of its current file.")
    stored_at: dt.datetime = Field(description="When that was published, or made.")
    expires_at: dt.datetime = Field(description="From when on clients do not take it.")
    tags: int = Field(description="So many tags it signs.")
    forgotten: int = Field(description="So many of them do not count here: an administrator had them forgotten.")

    @classmethod
    def of(cls, role: CollectionRole) -> RoleView:
        """The record of a role."""
        return cls(
            name=role.name,
            version=role.version,
            stored_at=moment(role.stored_at),
            expires_at=moment(role.expires_at),
            tags=role.tags,
            forgotten=role.forgotten,
        )


class CollectionView(Record):
    """What is signed of a repository under one address of the registry."""

    gun: str = Field(description="The address, and the name that the repository had when this was first signed.")
    roles: list[RoleView]

    @classmethod
    def of(cls, collection: CollectionRecord) -> CollectionView:
        """The record of a collection."""
        return cls(gun=collection.gun, roles=[RoleView.of(one) for one in collection.roles])


@router.get("", summary="Content trust of a repository", responses=errors(*FROM_REPOSITORY))
async def list_trust_collections(
    path: PathDep, caller: CallerDep, rooms: RoomsDep, domain: DomainDep = ""
) -> list[CollectionView]:
    """For everybody who may see the repository: its collections, by name. Tags show what is signed."""
    repository = await caller.require_on(path, Operation.SEE_TAGS)
    return [
        CollectionView.of(one)
        for one in await rooms.signed.list_collections(repository)
        if domain in {"", one.host}
    ]


@router.delete(
    "",
    summary="Delete content trust of a repository",
    status_code=204,
    responses=errors(*ON_REPOSITORY, "READ_ONLY"),
)
async def delete_trust_collections(
    path: PathDep, caller: CallerDep, rooms: RoomsDep, domain: DomainDep = ""
) -> None:
    """
    For those who administer it, without the keys of the signers. Afterwards nothing is signed.

    Clients that saw something signed trust the keys that signed it: who signs anew with others has to tell them.
    """
    repository = await caller.require_on(path, Operation.MANAGE_TRUST)
    require_writable(rooms)
    if not domain:
        await rooms.trust.delete_all(repository, by=caller.actor)
        return
    for one in await rooms.signed.list_collections(repository):
        if one.host == domain:
            await rooms.trust.delete(Collection(repository, one.gun), by=caller.actor)


@router.delete(
    "/{tag}",
    summary="Forget what is signed under the name of a tag",
    status_code=204,
    responses=errors(*ON_REPOSITORY, "NO_SUCH_SIGNATURE", "READ_ONLY"),
)
async def delete_trust_tag(path: PathDep, tag: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """
    For those who administer the repository, without the keys of the signers. The tag can be deleted then.

    Here it does not count any more, neither for rules nor for what must be signed to be pulled. The collection
    stays as it is, for only its signers can make another one: clients that verify it still find the tag in it,
    until they remove it. What a role signs for another digest, or anew after it was removed, counts again.
    """
    repository = await caller.require_on(path, Operation.MANAGE_TRUST)
    require_writable(rooms)
    if not (is_tag(tag) and await rooms.signed.forget(repository, tag, by=caller.actor)):
        raise ApiError("NO_SUCH_SIGNATURE", tag[:255])
