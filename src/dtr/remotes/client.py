"""
A client of other registries: OCI distribution specification 1.1, and what older registries do.

Nothing is held beyond a piece (1 MiB) of a blob or one manifest. What breaks in the middle of a blob goes on where
it was, in both directions. Who says that it is busy is left alone for as long as it says, within bounds.

Credentials go to the registry itself, and to the token service that it names: never where a redirection leads.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from msgspec import Struct

from dtr.oci import Descriptor, Digest, OciError, Tag, media_types, parse_manifest, parse_reference
from dtr.outbound import find_fault
from dtr.remotes.answers import read_limited
from dtr.remotes.errors import RemoteBroken, RemoteDenied, RemoteRefused, RemoteUnknown, RemoteUnreachable
from dtr.remotes.session import Session, lead
from dtr.remotes.upload import ATTEMPTS, PIECE, Upload, cancel, pause_after

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from aiohttp import ClientResponse

    from dtr.outbound import Outside
    from dtr.remotes.remote import Remote

_CONNECT_SECONDS, _SILENCE_SECONDS = 10.0, 60.0
_PATIENCE_SECONDS = 30.0
_CONNECTIONS = 8
_LARGEST_PAGE = 8 * 1024 * 1024
_PAGE_SIZE, _MOST_PAGES = 1000, 2000
_MOST_REFERRERS = 10_000
_IN_A_THREAD = 64 * 1024
"""To hash so many bytes takes longer than to go to a thread and back."""

_ACCEPT = ", ".join(sorted(media_types.MANIFESTS | media_types.INDEXES))
_LINK = re.compile(r'<([^<>]*)>\s*;[^,<]*?rel="?next"?', re.IGNORECASE)
_SINCE = re.compile(r"bytes (\d{1,19})-")


class RemoteManifest(Struct, frozen=True):
    """A manifest as the remote gave it; its digest is right."""

    content: bytes
    media_type: str
    """As the remote said it, without parameters; what the content says itself may be another."""
    digest: Digest


class Permissions(Struct, frozen=True):
    """What may be done in a remote repository."""

    read: bool
    write: bool


class Remotes:
    """Connections to other registries."""

    def __init__(
        self,
        outside: Outside,
        *,
        user_agent: str = "dtr",
        manifest_limit: int = 4 * 1024 * 1024,
        connect_seconds: float = _CONNECT_SECONDS,
        silence_seconds: float = _SILENCE_SECONDS,
    ) -> None:
        self._outside = outside
        self._headers = {"User-Agent": user_agent}
        self._manifest_limit = manifest_limit
        self._connect_seconds = connect_seconds
        self._silence_seconds = silence_seconds

    @contextlib.asynccontextmanager
    async def connect(
        self, remote: Remote, *, patience: float = _PATIENCE_SECONDS
    ) -> AsyncIterator[RemoteRepository]:
        """
        A repository of another registry, until the end of the block; nothing is asked before the first use.

        `patience`: so many seconds in all are waited because the remote is busy, before RemoteBusy is raised.
        Raises DefinitionInvalid: there can be no such remote.
        """
        await asyncio.to_thread(remote.check)
        async with self._outside.client(
            certificate=remote.ca,
            skip_tls_verification=remote.skip_tls_verification,
            connect_seconds=self._connect_seconds,
            silence_seconds=self._silence_seconds,
            connections=_CONNECTIONS,
        ) as client:
            session = Session(
                client, remote, self._headers, patience=patience, silence_seconds=self._silence_seconds
            )
            yield RemoteRepository(session, remote, manifest_limit=self._manifest_limit)


class RemoteRepository:
    """
    A repository of another registry. Several requests may go on at once.

    Every method raises RemoteError: RemoteUnreachable, RemoteDenied, RemoteBusy, RemoteBroken, RemoteRefused, and
    RemoteUnknown where nothing else is said about what is not there.
    """

    def __init__(self, session: Session, remote: Remote, *, manifest_limit: int) -> None:
        """Made by `Remotes.connect`."""
        self.remote = remote
        self._session = session
        self._manifest_limit = manifest_limit
        self._base = f"{remote.url}/v2/{remote.name}/"
        self._pull = (f"repository:{remote.name}:pull",)
        self._push = (f"repository:{remote.name}:pull,push",)
        self._delete = (f"repository:{remote.name}:pull,push,delete",)

    @property
    def name(self) -> str:
        """Host and repository as people write them: ``docker.io/library/alpine``, ``HOST:PORT/a/b``."""
        return self.remote.full_name

    # --- manifests ---

    async def get_manifest(self, reference: str) -> RemoteManifest:
        """The manifest of a tag or digest. Raises RemoteBroken: it is too large, or its digest is another."""
        async with self._session.ask(
            "GET", self._manifest(reference), self._pull, {"Accept": _ACCEPT}
        ) as response:
            await self._session.expect(response, 200)
            content = await read_limited(response, self._manifest_limit)
            said = response.headers.get("Docker-Content-Digest", "")
        wanted = reference if ":" in reference else said
        algorithm = wanted.partition(":")[0]
        digest = Digest.of(content, algorithm if algorithm in Digest.ALGORITHMS else "sha256")
        if wanted and digest != wanted:
            raise RemoteBroken(f"the remote gives something else for {reference}: its digest is {digest}")
        return RemoteManifest(content, _media_type(response), digest)

    async def head_manifest(self, reference: str) -> Descriptor | None:
        """What the remote says of a manifest, without its content; None: it is not there."""
        async with self._session.ask(
            "HEAD", self._manifest(reference), self._pull, {"Accept": _ACCEPT}
        ) as response:
            if response.status == 404:
                return None
            await self._session.expect(response, 200)
            said, length = response.headers.get("Docker-Content-Digest", ""), response.content_length
        try:
            if length is not None:
                return Descriptor(_media_type(response), Digest.parse(said or reference), length)
        except OciError:
            pass
        found = await self.get_manifest(reference)  # a registry that says too little
        return Descriptor(found.media_type, found.digest, len(found.content))

    async def put_manifest(self, reference: str, content: bytes, media_type: str) -> None:
        """Give a manifest to the remote, whose blobs and children it has."""
        headers = {"Content-Type": media_type}
        async with self._session.ask(
            "PUT", self._manifest(reference), self._push, headers, data=content
        ) as response:
            await self._session.expect(response, 200, 201, 202)
            said = response.headers.get("Docker-Content-Digest", "")
        algorithm = said.partition(":")[0]
        if algorithm in Digest.ALGORITHMS and Digest.of(content, algorithm) != said:
            raise RemoteBroken(f"the remote took {reference} for something else: it tells another digest")

    async def delete_manifest(self, reference: str) -> bool:
        """Delete a tag, or a manifest by its digest; False: the remote cannot do that."""
        async with self._session.ask("DELETE", self._manifest(reference), self._delete) as response:
            if response.status in {400, 405, 501}:
                return False
            if response.status != 404:
                await self._session.expect(response, 200, 202, 204)
            return True

    # --- blobs ---

    async def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        async with self._session.ask("HEAD", f"{self._base}blobs/{digest}", self._pull) as response:
            if response.status == 404:
                return False
            await self._session.expect(response, 200)
            return True

    async def read_blob(self, digest: str, size: int, offset: int = 0) -> AsyncGenerator[bytes, None]:
        """
        The bytes of a blob of `size` bytes from `offset` on, in pieces of at most `PIECE`.

        What breaks goes on where it was. Read from its beginning, the last piece comes only when the digest is
        right. Raises RemoteBroken: digest or size is another.
        """
        wanted = Digest.parse(digest)
        hasher = hashlib.new(wanted.algorithm, usedforsecurity=False) if offset == 0 else None
        reached = offset
        failures = 0
        if size == 0 and Digest.of(b"", wanted.algorithm) != wanted:
            raise RemoteBroken(f"the remote gives something else for {digest}")
        while reached < size:
            before = reached
            try:
                async with contextlib.aclosing(self._pieces(digest, size, reached)) as pieces:
                    async for piece in pieces:
                        if hasher is not None:
                            await _digest_piece(hasher, piece)
                        reached += len(piece)
                        if reached == size and hasher is not None and hasher.hexdigest() != wanted.hex:
                            raise RemoteBroken(f"the remote gives something else for {digest}")
                        yield piece
            except RemoteUnreachable:
                failures = 1 if reached > before else failures + 1
                if failures >= ATTEMPTS:
                    raise
                await asyncio.sleep(pause_after(failures))

    async def _pieces(self, digest: str, size: int, offset: int) -> AsyncGenerator[bytes, None]:
        """One request for the bytes from `offset` on. Raises RemoteUnreachable: it broke; RemoteError."""
        headers = {"Range": f"bytes={offset}-{size - 1}"} if offset else {}
        async with self._session.ask("GET", f"{self._base}blobs/{digest}", self._pull, headers) as response:
            skipped = 0
            if response.status == 206:
                since = _SINCE.match(response.headers.get("Content-Range", ""))
                if since is None or int(since[1]) != offset:
                    raise RemoteBroken(f"the remote gives another part of {digest} than it was asked for")
            else:
                await self._session.expect(response, 200)
                skipped = offset
            length = response.content_length
            if length is not None and length != size - offset + skipped:
                raise RemoteBroken(f"the remote has another size of {digest} than {size} bytes")
            left = size - offset
            while piece := await response.content.readany():
                if skipped:
                    piece, skipped = piece[skipped:], max(0, skipped - len(piece))
                left -= len(piece)
                if left < 0:
                    raise RemoteBroken(f"the remote has another size of {digest} than {size} bytes")
                for begin in range(0, len(piece), PIECE):
                    yield piece[begin : begin + PIECE]
            if left:
                raise RemoteUnreachable("the remote ended in the middle of a blob")

    async def mount_blob(self, digest: str, source: str) -> bool:
        """Have a blob of another repository of the same registry here as well; whether the remote did it."""
        query = urlencode({"mount": digest, "from": source})
        scopes = (*self._push, f"repository:{source}:pull")
        async with self._session.ask("POST", f"{self._base}blobs/uploads/?{query}", scopes) as response:
            await self._session.expect(response, 201, 202)
            if response.status == 201:
                return True
            location = _location(response)
        await cancel(self._session, location, self._push)
        return False

    async def write_blob(self, digest: str, size: int, read: Callable[[int], AsyncIterator[bytes]]) -> None:
        """
        Give a blob of `size` bytes to the remote; `read` gives them from an offset on.

        What breaks goes on where the remote says that it is. Raises what `read` raises.
        """
        await Upload(self._session, self._base, self._push, digest, size, read).run()

    # --- lists ---

    async def tags(self) -> AsyncGenerator[str, None]:
        """All tags, as the remote orders them; those with names that tags cannot have are left out."""
        async for page in self._pages(f"{self._base}tags/list?n={_PAGE_SIZE}"):
            names = page.get("tags") or []
            if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
                raise RemoteBroken("the remote gives no list of tags")
            for name in names:
                if _is_tag(name):
                    yield name

    async def referrers(self, digest: str) -> list[Descriptor]:
        """
        What refers to a manifest: signatures, attestations and more.

        By the API for it, else by the tag that replaces it (distribution specification, "Referrers Tag Schema").
        """
        found: list[Descriptor] = []
        try:
            async for page in self._pages(f"{self._base}referrers/{digest}"):
                found += _descriptors(json.dumps(page).encode())
                if len(found) > _MOST_REFERRERS:
                    raise RemoteBroken(f"more than {_MOST_REFERRERS} manifests refer to {digest}")
        except (RemoteUnknown, RemoteRefused):
            try:
                manifest = await self.get_manifest(digest.replace(":", "-", 1))
            except RemoteUnknown:
                return []
            found = _descriptors(manifest.content)
        return found

    async def _pages(self, url: str) -> AsyncGenerator[dict[str, Any], None]:
        """The documents of a list, along its links."""
        seen = {url}
        for _ in range(_MOST_PAGES):
            async with self._session.ask("GET", url, self._pull, {"Accept": "application/json, */*"}) as response:
                await self._session.expect(response, 200)
                content = await read_limited(response, _LARGEST_PAGE)
                link = _LINK.search(", ".join(response.headers.getall("Link", [])))
            try:
                page = json.loads(content)
            except (ValueError, RecursionError):
                page = None
            if not isinstance(page, dict):
                raise RemoteBroken("the remote answers with what is no list")
            yield page
            if link is None:
                return
            url = lead(url, link[1])
            if not self._session.is_own(url):
                raise RemoteBroken("a list of the remote goes on at another host")
            if url in seen:
                break
            seen.add(url)
        raise RemoteBroken("the remote gives a list without an end")

    # --- rights ---

    async def permissions(self) -> Permissions:
        """
        What may be done there. Raises RemoteDenied: the credentials themselves are wrong.

        A token says what it is good for; where there is none, or one that cannot be read, it is tried out: an
        upload is begun, and cancelled.
        """
        read = await self._may_read()
        granted = await self._granted()
        return Permissions(read, await self._may_write() if granted is None else "push" in granted)

    async def _may_read(self) -> bool:
        try:
            async with self._session.ask("GET", f"{self._base}tags/list?n=1", self._pull) as response:
                if response.status != 404:  # it may be made by the first push
                    await self._session.expect(response, 200)
        except RemoteDenied:
            async with self._session.ask("GET", f"{self.remote.url}/v2/", ()) as response:
                await self._session.expect(response, 200)  # or the credentials themselves are wrong
            return False
        return True

    async def _may_write(self) -> bool:
        async with self._session.ask("POST", f"{self._base}blobs/uploads/", self._push) as response:
            if response.status in {401, 403, 404, 405}:
                return False
            await self._session.expect(response, 202)
            location = _location(response)
        await cancel(self._session, location, self._push)
        return True

    async def _granted(self) -> set[str] | None:
        """What a token for pushing is good for in the repository; None: it does not say."""
        challenge = self._session.authorization.challenge
        if challenge is None or challenge.scheme != "bearer":
            return None
        try:
            token = await self._session.authorization.token(self._push)
        except RemoteDenied:
            return set()
        return _actions(token.text, self.remote.name)

    async def kind(self) -> str:
        """What sort of registry it is, as far as it shows: `dockerhub`, `dtr` or `registry`."""
        if self.remote.is_docker_hub:
            return "dockerhub"
        await self._session.greet()
        challenge = self._session.authorization.challenge
        realm = challenge.parameters.get("realm", "") if challenge else ""
        is_own = not find_fault(realm) and self._session.is_own(realm)
        return "dtr" if is_own and urlsplit(realm).path == "/auth/token" else "registry"

    def _manifest(self, reference: str) -> str:
        return f"{self._base}manifests/{quote(reference, safe=':')}"


def _media_type(response: ClientResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _location(response: ClientResponse) -> str:
    """Where an upload goes on. Raises RemoteBroken."""
    place = response.headers.get("Location")
    if place is None:
        raise RemoteBroken("the remote does not say where the upload goes on")
    return lead(str(response.url), place)


def _is_tag(name: str) -> bool:
    try:
        return isinstance(parse_reference(name), Tag)
    except OciError:
        return False


def _descriptors(content: bytes) -> list[Descriptor]:
    """What an index names. Raises RemoteBroken."""
    try:
        found = parse_manifest(content)
    except OciError as error:
        raise RemoteBroken(f"the remote gives no list of referrers: {error}") from None
    return list(found.children)


def _actions(token: str, repository: str) -> set[str] | None:
    """What a token says that it is good for in a repository; None: it says nothing that can be read."""
    try:
        payload = token.split(".")[1]
        access = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["access"]
        found = [one["actions"] for one in access if (one["type"], one["name"]) == ("repository", repository)]
        return {"push" if action == "*" else str(action) for actions in found for action in actions}
    except (LookupError, ValueError, TypeError, RecursionError):
        return None


async def _digest_piece(hasher: Any, piece: bytes) -> None:
    if len(piece) < _IN_A_THREAD:
        hasher.update(piece)
    else:
        await asyncio.to_thread(hasher.update, piece)
