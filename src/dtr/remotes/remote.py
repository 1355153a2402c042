"""What names a repository of another registry, and what it takes to get there. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from dtr.oci import NameInvalid, parse_repository_name
from dtr.outbound import find_fault, trusting
from dtr.remotes.errors import DefinitionInvalid

DOCKER_HUB = "https://registry-1.docker.io"
"""The registry behind the names by which people know Docker Hub."""
_HUB_NAMES = frozenset(
    {"docker.io", "index.docker.io", "registry-1.docker.io", "hub.docker.com", "registry.hub.docker.com"}
)
_LONGEST_SECRET, _LONGEST_USERNAME, _LONGEST_CERTIFICATE = 16_000, 255, 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """
    A repository of another registry, and as whom it is asked for.

    `host` is ``https://HOST[:PORT]``, without TLS ``http://…``; without a scheme TLS is meant. With neither user
    name nor token it is asked for as nobody.
    """

    host: str
    repository: str
    """As its registry calls it; of Docker Hub one part means ``library/…``."""
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    """With a user name an access token, which goes before the password; without one an identity token."""
    ca: str = ""
    """PEM: the server's certificate or an authority's; empty: the authorities of the system."""
    skip_tls_verification: bool = False
    """Whatever the server shows is trusted."""

    @property
    def url(self) -> str:
        """Where the registry is, without a slash at the end."""
        return registry_url(self.host)

    @property
    def name(self) -> str:
        """The repository as the registry itself calls it."""
        if self.url == DOCKER_HUB and "/" not in self.repository:
            return f"library/{self.repository}"
        return self.repository

    @property
    def full_name(self) -> str:
        """Host and repository as people write them: ``docker.io/library/alpine``, ``HOST:PORT/a/b``."""
        host = "docker.io" if self.is_docker_hub else urlsplit(self.url).netloc
        return f"{host}/{self.name}"

    @property
    def is_docker_hub(self) -> bool:
        """Whether it is Docker Hub."""
        return self.url == DOCKER_HUB

    def check(self) -> None:
        """Raise DefinitionInvalid for what is no remote. It reads certificates, and is for a thread."""
        check_host(self.host)
        try:
            parse_repository_name(self.repository)
        except NameInvalid:
            raise DefinitionInvalid("the remote repository is called like none") from None
        check_access(self.username, self.password, self.token, self.ca)


def registry_url(host: str) -> str:
    """The address of a registry that people call `host`, without a slash at the end."""
    url = host.strip()
    if "://" not in url:
        url = f"https://{url}"
    parts = urlsplit(url)
    if (parts.hostname or "") in _HUB_NAMES:
        return DOCKER_HUB
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def check_host(host: str) -> None:
    """Raise DefinitionInvalid for what is no address of a registry."""
    try:
        url = registry_url(host)
        fault = find_fault(url)
        parts = urlsplit(host)
    except ValueError:
        raise DefinitionInvalid("the remote host is https://HOST[:PORT]") from None
    if fault:
        raise DefinitionInvalid(f"the remote host {fault}")
    if urlsplit(url).path or parts.query or parts.fragment:
        raise DefinitionInvalid("the remote host is https://HOST[:PORT], without a path")


def check_access(username: str, password: str, token: str, ca: str) -> None:
    """Raise DefinitionInvalid for what are no credentials or no certificates. For a thread."""
    if len(username) > _LONGEST_USERNAME or ":" in username or not username.isprintable():
        raise DefinitionInvalid(f"a user name has at most {_LONGEST_USERNAME} characters, and no colon")
    if len(password) > _LONGEST_SECRET or len(token) > _LONGEST_SECRET:
        raise DefinitionInvalid(f"passwords and tokens have at most {_LONGEST_SECRET} characters")
    if password and not username:
        raise DefinitionInvalid("a password belongs to a user name")
    if len(ca) > _LONGEST_CERTIFICATE:
        raise DefinitionInvalid(f"certificates have at most {_LONGEST_CERTIFICATE} characters")
    if ca:
        try:
            trusting(ca)
        except ValueError:  # also ssl.SSLError's base for what is no PEM
            raise DefinitionInvalid("the certificate of the remote is not one in PEM") from None
        except OSError:
            raise DefinitionInvalid("the certificate of the remote is not one in PEM") from None
