"""
The API described in OpenAPI 3.1, made from the operations themselves.

The framework describes parameters, bodies and records of each; what holds for all is added here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from dtr import __version__
from dtr.http.api.errors import Problems, errors
from dtr.http.api.paging import COUNT, NEXT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastapi.routing import APIRoute

_DESCRIPTION = """
What a trusted registry has and does, for programs: accounts and their rights, repositories and their tags, events,
search, settings. It is the API of Docker Trusted Registry (`/api/v0`) and of its account service (`/enzi/v0`), and
what is new beside them. Images themselves are pushed and pulled through the registry's own API, `/v2/`.

**Who calls.** Name and password, or name and access token, by HTTP Basic; an access token or a session's token as
a bearer; or a session's cookie, and then, for all that changes something, the header `X-CSRF-Token`. Without any,
the caller is anonymous, and sees what is public. Wrong credentials are refused, never taken for none.

**Lists** come in pages. The answer's header `X-Next-Page-Start` says what to ask for as the start of the next
page; without it, this was the last one. Nobody is counted or listed who may not be seen.

**Refusals** have one form, `{"errors": [{"code", "message", "detail"}]}`. `code` never changes its meaning.
""".strip()

_TAGS = {
    "accounts": "What belongs to users and organizations, beside what the account service keeps.",
    "api_tokens": "Access tokens: passwords for programs, which may be good for a part only, and for a time.",
    "repositories": "Repositories, their settings, tags and manifests.",
    "repositoryNamespaces": "What holds for all repositories of an account.",
    "events": "Who did what, and when.",
    "index": "Search.",
    "meta": "The installation as a whole: settings, state, abilities.",
    "enzi": "The account service: users, organizations, teams, keys, sessions.",
}
_PARAMETERS = {
    "namespace": "Name of a user or an organization, whose repositories are meant.",
    "reponame": "Name of the repository in its namespace; it may have slashes.",
    "orgname": "Name of an organization.",
    "teamname": "Name of a team of the organization.",
    "username": "Name of a user.",
    "robot": "Name of a robot of the organization.",
    "reference": "A tag, or the digest of a manifest.",
    "tag": "A tag.",
    "hashedtoken": "Id of an access token.",
}
"""What is meant by the parts of paths that vary, wherever they are."""
_COMMON = {
    "401": ("NotAuthenticated", ("NOT_AUTHENTICATED",)),
    "403": ("ForgedRequest", ("CSRF_TOKEN_INVALID",)),
    "406": ("NotAcceptable", ("NOT_ACCEPTABLE",)),
    "413": ("TooLarge", ("TOO_LARGE",)),
    "415": ("UnsupportedMediaType", ("UNSUPPORTED_MEDIA_TYPE",)),
    "429": ("TooManyRequests", ("TOO_MANY_REQUESTS",)),
    "500": ("InternalError", ("INTERNAL_ERROR",)),
    "503": ("Unavailable", ("UNAVAILABLE",)),
    "507": ("StorageFull", ("STORAGE_FULL",)),
}
"""What every operation may answer, by status: the name of the description, and the codes."""
_ONLY_OF_CHANGES = {"403", "507"}
_SECURITY = {
    "basic": {"type": "http", "scheme": "basic", "description": "Name, and password or access token."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "An access token, or the token of a session."},
    "session": {"type": "apiKey", "in": "cookie", "name": "__Host-session", "description": "A browser's session."},
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRF-Token",
        "description": "With the cookie, for what changes something.",
    },
}
_HEADERS = {
    NEXT: {
        "description": "The start of the next page; on the last page it is missing.",
        "schema": {"type": "string"},
    },
    COUNT: {
        "description": "How many records there are on all pages.",
        "schema": {"type": "integer", "minimum": 0},
    },
}


def describe(routes: Sequence[APIRoute]) -> dict[str, Any]:
    """The document."""
    document = get_openapi(
        title="dtr",
        version=__version__,
        summary="API of a trusted registry",
        description=_DESCRIPTION,
        routes=routes,
        tags=[{"name": name, "description": words} for name, words in _TAGS.items()],
    )
    for method, operation in _operations(document):
        _complete(operation, method)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # the framework's own refusal is not ours
        schemas.pop(name, None)
    problems = Problems.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problems.pop("$defs") | {"Problems": problems}
    components["responses"] = {name: next(iter(errors(*codes).values())) for name, codes in _COMMON.values()}
    components["headers"] = _HEADERS
    components["securitySchemes"] = _SECURITY
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in document["paths"].values():
        yield from path.items()


def _complete(operation: dict[str, Any], method: str) -> None:
    """Add what the framework does not know of an operation."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path" and parameter["name"] in _PARAMETERS:
            parameter.setdefault("description", _PARAMETERS[parameter["name"]])
    responses = operation["responses"]
    responses.pop("422", None)
    for response in responses.values():
        if response.get("description") == "Successful Response":  # the framework's words
            response["description"] = "Done."
    codes = ["INVALID_PARAMETERS"] if "parameters" in operation else []
    codes += ["INVALID_JSON"] if "requestBody" in operation else []
    if codes:
        _add(responses, codes)
    for status, (name, common) in _COMMON.items():
        if method == "get" and status in _ONLY_OF_CHANGES:
            continue
        if status in responses:
            _add(responses, common)
        else:
            responses[status] = {"$ref": f"#/components/responses/{name}"}
    if any(one["name"] in {"pageStart", "start"} for one in operation.get("parameters", ())):
        success = next(one for status, one in responses.items() if status.startswith("2"))
        success["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
    session = ("session",) if method == "get" else ("session", "csrf")
    operation["security"] = [{name: [] for name in names} for names in (("basic",), ("bearer",), session, ())]
    operation["responses"] = dict(sorted(responses.items()))


def _add(responses: dict[str, Any], codes: Sequence[str]) -> None:
    """More codes of refusals of a status that may be there."""
    ((status, wanted),) = ((str(one), two) for one, two in errors(*codes).items())
    there = responses.get(status)
    known = _codes(there) if there else []
    responses[status] = wanted if there is None else next(iter(errors(*dict.fromkeys([*known, *codes])).values()))


def _codes(response: dict[str, Any]) -> list[str]:
    codes: list[str] = response["content"]["application/json"]["schema"]["properties"]["errors"]["items"][
        "properties"
    ]["code"]["enum"]
    return codes
