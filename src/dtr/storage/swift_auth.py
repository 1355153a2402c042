"""
Logging in to an OpenStack cluster: what is sent to its token service, and what the answer means.

Three versions are in use: the "v1" of Swift's own TempAuth and of many appliances (a GET with two headers), and
Keystone's v2.0 and v3 (Identity API, "Authenticate for access", "Password authentication with scoped
authorization", "Authenticating with an Application Credential"). All give a token, good for some hours, and the
address of the account; Keystone in a catalogue of services, by region and by who may use the address.

There is no I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

AuthVersion = Literal["1", "2", "3"]
EndpointType = Literal["public", "internal", "admin"]


class LoginFailed(Exception):
    """The credentials do not suffice to ask, or the answer is of no use; the message says why."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    Who asks, and for what.

    `auth_version` is by default what `auth_url` says. A user or project of v3 that is given by name is looked for
    in a domain, by name or id; the project's is by default the user's, and that the one with the id ``default``.
    An application credential has its project in itself; one that is given by name needs its user.
    """

    auth_url: str
    auth_version: AuthVersion | None = None
    username: str = ""
    user_id: str = ""
    password: str = field(default="", repr=False)
    user_domain: str = ""
    user_domain_id: str = ""
    project: str = ""
    project_id: str = ""
    project_domain: str = ""
    project_domain_id: str = ""
    trust_id: str = ""
    application_credential_id: str = ""
    application_credential_name: str = ""
    application_credential_secret: str = field(default="", repr=False)
    region: str = ""
    endpoint_type: EndpointType = "public"

    @property
    def version(self) -> AuthVersion:
        """The version of the token service; where nothing says which, there is v3."""
        if self.auth_version is not None:
            return self.auth_version
        for version, sign in (("3", "v3"), ("2", "v2"), ("1", "v1"), ("1", "/auth/1.0")):
            if sign in self.auth_url:
                return version  # type: ignore[return-value]  # the three above
        return "3"


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """A request to the token service."""

    method: str
    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """A token, good for `life` seconds (None: nothing said so) at the account at `url`."""

    token: str = field(repr=False)
    url: str
    life: float | None


def login_request(credentials: Credentials) -> LoginRequest:
    """What is to be sent. Raises LoginFailed when something lacks."""
    match credentials.version:
        case "1":
            headers = {"X-Auth-User": credentials.username, "X-Auth-Key": credentials.password}
            return LoginRequest("GET", credentials.auth_url, headers)
        case "2":
            url, auth = f"{_root(credentials, 'v2.0')}/tokens", _auth_of_v2(credentials)
        case _:
            url, auth = f"{_root(credentials, 'v3')}/auth/tokens", _auth_of_v3(credentials)
    return LoginRequest("POST", url, {"Content-Type": "application/json"}, msgspec.json.encode({"auth": auth}))


def access_of(credentials: Credentials, headers: Mapping[str, str], body: bytes) -> Access:
    """What a successful answer gives. Raises LoginFailed."""
    try:
        document: Any = None if credentials.version == "1" else msgspec.json.decode(body)
        match credentials.version:
            case "1":
                seconds = headers.get("X-Auth-Token-Expires")
                life = None if seconds is None else float(seconds)
                return Access(headers["X-Auth-Token"], headers["X-Storage-Url"].rstrip("/"), life)
            case "2":
                access = document["access"]
                token = access["token"]
                endpoints = [
                    {"interface": kind, "region": endpoint.get("region"), "url": endpoint.get(f"{kind}URL")}
                    for endpoint in _object_stores(access["serviceCatalog"])
                    for kind in ("public", "internal", "admin")
                ]
                life = _seconds(token.get("issued_at"), token.get("expires"))
                return Access(token["id"], _address(credentials, endpoints), life)
            case _:
                token = document["token"]
                life = _seconds(token.get("issued_at"), token.get("expires_at"))
                endpoints = _object_stores(token.get("catalog", ()))
                return Access(headers["X-Subject-Token"], _address(credentials, endpoints), life)
    except (KeyError, TypeError, ValueError, AttributeError, msgspec.DecodeError) as error:
        raise LoginFailed(f"the answer of {credentials.auth_url} is not one of a token service") from error


def _root(credentials: Credentials, version: str) -> str:
    """The address of the API, whether or not the settings say its version or go on to what is in it."""
    url = credentials.auth_url.rstrip("/")
    for ending in ("/tokens", "/auth"):
        url = url.removesuffix(ending)
    return url if url.rpartition("/")[2].startswith("v") else f"{url}/{version}"


def _auth_of_v2(credentials: Credentials) -> dict[str, Any]:
    if not credentials.username:
        raise LoginFailed("a user name is needed for version 2 of the token service")
    auth: dict[str, Any] = {
        "passwordCredentials": {"username": credentials.username, "password": credentials.password}
    }
    if credentials.project_id:
        auth["tenantId"] = credentials.project_id
    elif credentials.project:
        auth["tenantName"] = credentials.project
    if credentials.trust_id:
        auth["trust_id"] = credentials.trust_id
    return auth


def _auth_of_v3(credentials: Credentials) -> dict[str, Any]:
    secret = credentials.application_credential_secret
    if credentials.application_credential_id:
        application: dict[str, Any] = {"id": credentials.application_credential_id, "secret": secret}
        return {"identity": {"methods": ["application_credential"], "application_credential": application}}
    if credentials.application_credential_name:
        application = {
            "name": credentials.application_credential_name,
            "secret": secret,
            "user": _user(credentials),
        }
        return {"identity": {"methods": ["application_credential"], "application_credential": application}}
    user = _user(credentials) | {"password": credentials.password}
    auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
    if credentials.trust_id:
        auth["scope"] = {"OS-TRUST:trust": {"id": credentials.trust_id}}
    elif credentials.project_id:
        auth["scope"] = {"project": {"id": credentials.project_id}}
    elif credentials.project:
        domain = (
            _domain(credentials.project_domain, credentials.project_domain_id)
            or _domain(credentials.user_domain, credentials.user_domain_id)
            or {"id": "default"}
        )
        auth["scope"] = {"project": {"name": credentials.project, "domain": domain}}
    return auth


def _user(credentials: Credentials) -> dict[str, Any]:
    if credentials.user_id:
        return {"id": credentials.user_id}
    if not credentials.username:
        raise LoginFailed("a user, or an application credential, is needed for version 3 of the token service")
    domain = _domain(credentials.user_domain, credentials.user_domain_id) or {"id": "default"}
    return {"name": credentials.username, "domain": domain}


def _domain(name: str, identifier: str) -> dict[str, str]:
    if identifier:
        return {"id": identifier}
    return {"name": name} if name else {}


def _object_stores(catalogue: Any) -> list[dict[str, Any]]:
    return [
        endpoint for service in catalogue if service["type"] == "object-store" for endpoint in service["endpoints"]
    ]


def _address(credentials: Credentials, endpoints: list[dict[str, Any]]) -> str:
    """The address of the account, of a list of ``interface``, ``region`` and ``url``."""
    if not endpoints:
        raise LoginFailed("the catalogue has no object store: is a project (tenant) missing?")
    of_region = [
        endpoint
        for endpoint in endpoints
        if not credentials.region or credentials.region in {endpoint.get("region"), endpoint.get("region_id")}
    ]
    if not of_region:
        regions = sorted({str(endpoint.get("region")) for endpoint in endpoints})
        raise LoginFailed(f"no object store is in the region {credentials.region}, but in {', '.join(regions)}")
    for endpoint in of_region:
        # Old catalogues say "publicURL" in v3 as well.
        if endpoint["interface"].removesuffix("URL") == credentials.endpoint_type and endpoint["url"]:
            return str(endpoint["url"]).rstrip("/")
    raise LoginFailed(f"the object store has no {credentials.endpoint_type} address")


def _seconds(issued: str | None, expires: str | None) -> float | None:
    """How long a token is good; by the service's own clock, when it says when it was issued."""
    if expires is None:
        return None
    return (_time(expires) - (_time(issued) if issued else datetime.now(UTC))).total_seconds()


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
