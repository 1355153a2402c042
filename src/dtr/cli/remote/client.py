"""
A server, spoken to over its public HTTP API alone.

An operation is called by a template of its path and the names that go into it; a refusal is told with the same
names, in one line that says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from msgspec import Struct

from dtr import __version__
from dtr.cli._common import Failure

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Mapping

    import httpx2

LARGEST_PAGE = 1000
_NEXT = "X-Next-Page-Start"
_COUNT = "X-Resource-Count"
_PARTS = frozenset({"repository"})
"""Names that have several parts, with slashes between."""

_SAYINGS: dict[str, tuple[str, ...]] = {
    "NO_SUCH_REPOSITORY": ("there is no repository {repository}, or you may not see it",),
    "NO_SUCH_TAG": ("{repository} has no tag {tag}",),
    "NO_SUCH_REF": ("{repository} has no tag or digest {tag}",),
    "NO_SUCH_SIGNATURE": ("content trust has no tag {tag} of {repository}",),
    "TAG_IN_NOTARY": (
        "{repository}:{tag} is signed in content trust: `dtr trust forget {repository} {tag}` lets it go",
        "the image is signed in content trust: `dtr trust forget` lets it go",
    ),
    "REPOSITORY_CONTAINS_TAGS_IN_NOTARY": (
        "tags of {repository} are signed in content trust: `dtr trust delete {repository}` ends that",
        "tags of repositories of {account} are signed in content trust: `dtr trust delete` ends that",
    ),
    "NO_SUCH_ENFORCEMENT_POLICY": (
        "{repository} wants nothing signed",
        "{account} wants nothing signed",
        "{server} wants nothing signed",
    ),
    "NO_SUCH_TEAM": ("{organization} has no team {team}",),
    "NO_SUCH_OPERATION": ("{server} cannot do that: its version is another one than that of this command",),
    "REPOSITORY_EXISTS": ("there is a repository {namespace}/{name} already",),
    "ACCOUNT_IN_USE": ("{account} has repositories: delete them first, or all together with --repositories",),
    "NOT_AUTHENTICATED": ("{server} does not take these credentials: `dtr login {server}` gets new ones",),
    "NOT_AUTHORIZED": ("{you} may not do that on {server}: it needs more rights",),
    "TOO_MANY_REQUESTS": ("{server} takes nothing now, after too many requests or wrong log-ins: try later",),
    "UNAVAILABLE": ("the database of {server} does not answer: try again, or look at `dtr status`",),
}
"""What to say, by the API's code: the first sentence all of whose names are known."""


class Refused(Failure):
    """The server understood, and does not do it: `status` is that of HTTP, `code` the API's."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Trust(Struct, frozen=True):
    """How the server's certificate is checked: by an authority (PEM), or not at all; else as the system does."""

    ca: str | None = None
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """The same for TLS. Raises Failure."""
        import ssl

        context = ssl.create_default_context()
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif self.ca is not None:
            try:
                context.load_verify_locations(cadata=self.ca)
            except ssl.SSLError:
                raise Failure("the authority's certificate cannot be read: it is not PEM") from None
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which server, and who asks it: `user` and a secret, or a token alone, or nobody."""

    server: str
    """``HOST[:PORT]``, or ``http://…`` without TLS."""
    user: str = ""
    secret: str = field(default="", repr=False)
    trust: Trust = field(default_factory=Trust)

    @property
    def url(self) -> str:
        """What all addresses begin with."""
        return self.server if "://" in self.server else f"https://{self.server}"


def server_name(text: str) -> str:
    """The server that is meant by ``HOST``, ``HOST:PORT`` or an address. Raises Failure."""
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.path.strip("/"):
        raise Failure(f"{text!r} is no server: HOST or HOST:PORT")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    name = host if port in {None, default} else f"{host}:{port}"
    return f"http://{name}" if parts.scheme == "http" else name


class Remote:
    """A server, as one user sees it."""

    def __init__(self, access: Access, *, seconds: float = 60) -> None:
        import httpx2

        self.access = access
        headers = {"User-Agent": f"dtr/{__version__}", "Accept": "application/json"}
        auth: httpx2.Auth | None = None
        if access.user:
            auth = httpx2.BasicAuth(access.user, access.secret)
        elif access.secret:
            headers["Authorization"] = f"Bearer {access.secret}"
        self._http = httpx2.Client(
            base_url=access.url,
            auth=auth,
            headers=headers,
            verify=access.trust.context(),
            timeout=httpx2.Timeout(seconds, connect=min(seconds, 10)),
        )

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def whoami(self) -> str:
        """The name of the user who asks, which a token alone does not say. Raises Refused, Failure."""
        return self.access.user or str(self.call("GET", "/enzi/v0/id")["name"])

    def call(
        self,
        method: str,
        path: str,
        names: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        """
        Call an operation; what it answers, None when that is nothing.

        `names` go into the path. Query parameters that are None are left out. Raises Refused, Failure.
        """
        return self._document(self._send(method, path, names or {}, body, query))

    def health(self) -> dict[str, Any]:
        """What the server says of its own health, good or bad. Raises Failure."""
        import httpx2

        try:
            answer = self._http.get("/_ping")
        except httpx2.HTTPError as error:
            raise self._failure(error) from None
        document = self._document(answer)
        if not isinstance(document, dict) or "Healthy" not in document:
            raise self._no_dtr(answer)
        return document

    def count(self, path: str, names: Mapping[str, str]) -> int:
        """How many records a list of the API has in all. Raises Refused, Failure."""
        answer = self._send("GET", path, names, None, {"pageSize": 1, "count": True})
        return int(answer.headers.get(_COUNT, 0))

    def records(
        self,
        path: str,
        names: Mapping[str, str] | None = None,
        *,
        key: str | None = None,
        limit: int | None = None,
        page_size: int = LARGEST_PAGE,
        query: Mapping[str, Any] | None = None,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """
        The records of a list, page by page, as they are asked for.

        `key` is where the answer has them; None: it is the list itself. Raises Refused, Failure.
        """
        size = min(limit or page_size, page_size)
        pages = self._pages(path, names or {}, key, size, dict(query or {}), method, body)
        return islice(pages, limit)

    def lines(self, path: str, *, query: Mapping[str, Any] | None = None) -> Iterator[str]:
        """The lines of an answer, as they come. Raises Refused, Failure."""
        import httpx2

        try:
            with self._http.stream("GET", path, params=_given(query), headers={"Accept": "*/*"}) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._refusal(answer, {})
                yield from answer.iter_lines()
        except httpx2.HTTPError as error:
            raise self._failure(error) from None

    def _pages(
        self,
        path: str,
        names: Mapping[str, str],
        key: str | None,
        size: int,
        query: dict[str, Any],
        method: str,
        body: Mapping[str, Any] | None,
    ) -> Iterator[dict[str, Any]]:
        # The account service has other names for the parameters, and says in the body where the next page begins.
        start, most = ("start", "limit") if path.startswith("/enzi/") else ("pageStart", "pageSize")
        query[most] = size
        while True:
            answer = self._send(method, path, names, body, query)
            document = self._document(answer)
            yield from (document if key is None else document.get(key)) or ()
            following = answer.headers.get(_NEXT) or (key and document.get("nextPageStart"))
            if not following or following == query.get(start):
                return
            query[start] = following

    def _send(
        self,
        method: str,
        path: str,
        names: Mapping[str, str],
        body: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
    ) -> httpx2.Response:
        import httpx2

        try:
            answer = self._http.request(
                method,
                path.format_map({name: _quoted(name, value) for name, value in names.items()}),
                params=_given(query),
                json=None if body is None else dict(body),
            )
        except httpx2.HTTPError as error:
            raise self._failure(error) from None
        if not answer.is_success:
            raise self._refusal(answer, {**names, **{key: str(value) for key, value in (body or {}).items()}})
        return answer

    def _document(self, answer: httpx2.Response) -> Any:
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            raise self._no_dtr(answer) from None

    def _refusal(self, answer: httpx2.Response, names: Mapping[str, str]) -> Failure:
        try:
            first = answer.json()["errors"][0]
            code, message, detail = str(first["code"]), str(first.get("message", "")), first.get("detail")
        except (ValueError, KeyError, IndexError, TypeError):
            return self._no_dtr(answer)
        known = {**names, "server": self.access.server, "you": self.access.user or "you"}
        for saying in _SAYINGS.get(code, ()):
            try:
                return Refused(saying.format_map(known), answer.status_code, code)
            except KeyError:
                continue
        return Refused(_plain(message, detail), answer.status_code, code)

    def _no_dtr(self, answer: httpx2.Response) -> Failure:
        return Failure(
            f"{self.access.server} answered {answer.status_code} {answer.reason_phrase}, not as dtr does: "
            "is it the right address?"
        )

    def _failure(self, error: httpx2.HTTPError) -> Failure:
        import ssl

        server, url = self.access.server, self.access.url
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return Failure(
                    f"the certificate of {server} is not one that this machine trusts "
                    f"({cause.verify_message}): get its authority with `curl -k {url}/ca -o ca.pem`, compare the "
                    f"fingerprint with that which the server's administrator sees, and give it with `--ca ca.pem`"
                )
            if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, ssl.SSLError):
                return Failure(f"{server} cannot be reached: {cause.strerror}")
            cause = cause.__cause__ or cause.__context__
        return Failure(f"{server} does not answer: {str(error) or type(error).__name__}")


def _given(query: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (query or {}).items() if value is not None}


def _quoted(name: str, value: str) -> str:
    """A name as a part of a path, or several parts. Raises Failure for what would lead elsewhere."""
    if any(part in {"", ".", ".."} for part in value.split("/")):
        raise Failure(f"{value!r} is no {name}")
    return quote(value, safe="/" if name in _PARTS else "")


def _plain(message: str, detail: Any) -> str:
    """What the server itself says, in one line; of a form, which fields are wrong."""
    if isinstance(detail, str) and " " in detail:  # a sentence, which says more
        return detail
    if isinstance(detail, list):
        detail = "; ".join(
            f"{one.get('field')}: {one.get('message')}" if isinstance(one, dict) else str(one) for one in detail
        )
    if isinstance(detail, dict):
        detail = "; ".join(f"{key}: {value}" for key, value in detail.items())
    text = message[:1].lower() + message[1:].rstrip(".")
    return f"{text}: {detail}" if detail else text
