"""``…/upstream`` of a repository or a namespace: what it is a cache of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.errors import ApiError, errors
from dtr.http.api.models import Form, Record
from dtr.http.api.operations import Router
from dtr.http.api.remotes import require_usable
from dtr.http.api.repositories import ON_REPOSITORY, PathDep
from dtr.http.api.rooms import RoomsDep
from dtr.mirrors import Upstream, UpstreamInvalid, UpstreamUnknown

router = Router(prefix="/api/v0/repositories/{namespace}/{reponame:path}/upstream", tags=["repositories"])
namespace_router = Router(
    prefix="/api/v0/repositoryNamespaces/{namespace}/upstream", tags=["repositoryNamespaces"]
)

_SECOND, _DAY = 1000, 86_400_000
_ON_NAMESPACE = ("NOT_AUTHORIZED", "NO_SUCH_ACCOUNT")
_RemoteID = Annotated[str, Field(alias="remoteID", description="Id of a stored remote, the registry.")]
_Path = Annotated[
    str,
    Field(description="A repository there, as that registry calls it."),
]
_Prefix = Annotated[
    str,
    Field(
        description="What stands before the names of repositories there: with `library`, `NAMESPACE/alpine` is"
        " `library/alpine`; empty: nothing does."
    ),
]
_Patterns = Annotated[
    list[str],
    Field(description="Tags that are fetched; `*` is anything, `?` one character. Without any, all are."),
]
_MaxAge = Annotated[
    int, Field(description="Seconds that a tag is believed before the upstream is asked for it again.")
]
_KeepFor = Annotated[int, Field(description="Days after the last pull that a tag is kept; 0: for ever.")]
_Visibility = Annotated[
    Literal["public", "private"],
    Field(
        description="Of the repositories that come to be: what is private can be pulled by those who were granted"
        " reading in the namespace, what is public by everybody."
    ),
]


class RepositoryUpstreamRecord(Record):
    """What a repository is a cache of."""

    remote_id: _RemoteID
    remote_repository: _Path
    tag_patterns: _Patterns
    max_age: _MaxAge
    keep_for: _KeepFor

    @classmethod
    def of(cls, upstream: Upstream) -> RepositoryUpstreamRecord:
        """The record of an upstream."""
        return cls(
            remote_id=upstream.remote,
            remote_repository=upstream.remote_path,
            tag_patterns=list(upstream.tag_patterns),
            max_age=upstream.max_age // _SECOND,
            keep_for=(upstream.keep_for or 0) // _DAY,
        )


class NamespaceUpstreamRecord(Record):
    """What the repositories of a namespace are caches of."""

    remote_id: _RemoteID
    remote_repository: _Prefix
    tag_patterns: _Patterns
    max_age: _MaxAge
    keep_for: _KeepFor
    visibility: _Visibility

    @classmethod
    def of(cls, upstream: Upstream) -> NamespaceUpstreamRecord:
        """The record of an upstream."""
        return cls(
            **RepositoryUpstreamRecord.of(upstream).model_dump(by_alias=True), visibility=upstream.visibility
        )


class RepositoryUpstreamForm(Form):
    """What a repository is to be a cache of."""

    remote_id: _RemoteID
    remote_repository: _Path
    tag_patterns: _Patterns = Field(default_factory=list)
    max_age: _MaxAge = 3600
    keep_for: _KeepFor = 30


class NamespaceUpstreamForm(Form):
    """What the repositories of a namespace are to be caches of."""

    remote_id: _RemoteID
    remote_repository: _Prefix = ""
    tag_patterns: _Patterns = Field(default_factory=list)
    max_age: _MaxAge = 3600
    keep_for: _KeepFor = 30
    visibility: _Visibility = "private"


@router.get("", summary="Upstream of a repository", responses=errors(*ON_REPOSITORY, "NO_SUCH_UPSTREAM"))
async def get_repository_upstream(path: PathDep, caller: CallerDep, rooms: RoomsDep) -> RepositoryUpstreamRecord:
    """For whoever was granted something on the repository, and auditors."""
    repository = await caller.require_on(path, Operation.LIST_POLICIES)
    return RepositoryUpstreamRecord.of(await rooms.upstreams.of_repository(repository))


@router.put(
    "",
    summary="Make a repository a cache",
    responses=errors(*ON_REPOSITORY, "NO_SUCH_REMOTE", "INVALID_UPSTREAM"),
)
async def set_repository_upstream(
    path: PathDep, form: RepositoryUpstreamForm, caller: CallerDep, rooms: RoomsDep
) -> RepositoryUpstreamRecord:
    """
    For its administrators, with a remote that they may use. It has no images of its own.

    What is pulled from it, and is not here, is fetched from the upstream and stored.
    """
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    await require_usable(caller, rooms, form.remote_id, path)
    upstream = Upstream(
        repository=repository, remote=form.remote_id, remote_path=form.remote_repository, **_settings(form)
    )
    try:
        return RepositoryUpstreamRecord.of(await rooms.upstreams.put(upstream, by=caller.actor))
    except UpstreamInvalid as error:
        raise ApiError("INVALID_UPSTREAM", str(error)) from None


@router.delete(
    "", status_code=204, summary="Make a cache an ordinary repository", responses=errors(*ON_REPOSITORY)
)
async def delete_repository_upstream(path: PathDep, caller: CallerDep, rooms: RoomsDep) -> None:
    """For its administrators; also when it has none. What was fetched stays."""
    repository = await caller.require_on(path, Operation.EDIT_POLICIES)
    try:
        await rooms.upstreams.delete(await rooms.upstreams.of_repository(repository), by=caller.actor)
    except UpstreamUnknown:
        return


@namespace_router.get("", summary="Upstream of a namespace", responses=errors(*_ON_NAMESPACE, "NO_SUCH_UPSTREAM"))
async def get_namespace_upstream(namespace: str, caller: CallerDep, rooms: RoomsDep) -> NamespaceUpstreamRecord:
    """For whoever may make repositories in it, its members, and auditors."""
    owner = await caller.require_in(namespace, Operation.SEE_NAMESPACE_ACCESS)
    return NamespaceUpstreamRecord.of(await rooms.upstreams.of_namespace(owner.id))


@namespace_router.put(
    "",
    summary="Make a namespace a cache",
    responses=errors(*_ON_NAMESPACE, "NO_SUCH_REMOTE", "INVALID_UPSTREAM"),
)
async def set_namespace_upstream(
    namespace: str, form: NamespaceUpstreamForm, caller: CallerDep, rooms: RoomsDep
) -> NamespaceUpstreamRecord:
    """
    For whoever may make repositories in it, with a remote that they may use.

    A name in it that no repository has becomes one with the first pull, when the upstream has what is asked for;
    that stays an ordinary one which somebody makes there.
    """
    owner = await caller.require_in(namespace, Operation.CREATE_REPOSITORY)
    await require_usable(caller, rooms, form.remote_id, f"{owner.name}/")
    upstream = Upstream(
        namespace=owner.id,
        remote=form.remote_id,
        remote_path=form.remote_repository,
        visibility=form.visibility,
        **_settings(form),
    )
    try:
        return NamespaceUpstreamRecord.of(await rooms.upstreams.put(upstream, by=caller.actor))
    except UpstreamInvalid as error:
        raise ApiError("INVALID_UPSTREAM", str(error)) from None


@namespace_router.delete(
    "", status_code=204, summary="Make a namespace an ordinary one", responses=errors(*_ON_NAMESPACE)
)
async def delete_namespace_upstream(namespace: str, caller: CallerDep, rooms: RoomsDep) -> None:
    """
    For whoever may make repositories in it; also when it has none.

    What was fetched stays, in repositories that are ordinary ones from then on.
    """
    owner = await caller.require_in(namespace, Operation.CREATE_REPOSITORY)
    try:
        await rooms.upstreams.delete(await rooms.upstreams.of_namespace(owner.id), by=caller.actor)
    except UpstreamUnknown:
        return


def _settings(form: RepositoryUpstreamForm | NamespaceUpstreamForm) -> dict[str, Any]:
    return {
        "tag_patterns": tuple(form.tag_patterns),
        "max_age": form.max_age * _SECOND,
        "keep_for": form.keep_for * _DAY or None,
    }
