"""
The API described in OpenAPI 3.1, made from the operations themselves.

The framework describes parameters, bodies and records of each; what holds for all is added here.
"""

from __future__ import annotations

import re
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
    "enforcement": "What has to be signed to be pulled, in the whole registry.",
    "events": "Who did what, and when.",
    "remote": "Other registries, tried out.",
    "remotes": "Other registries, and as whom they are asked, for mirrors and caches.",
    "sessions": "Who is logged in with a password.",
    "signatures": "Signatures of cosign and Notation: those of an image, and whose of them count.",
    "storages": "Where blobs are kept, and moving them from one storage to another.",
    "webhooks": "Who is told what happens, and how that went.",
    "index": "Search.",
    "jobs": "Work in the background: what was done, what is to be done and when, and who does it.",
    "meta": "The installation as a whole: settings, state, abilities.",
    "enzi": "The account service: users, organizations, teams, keys, sessions.",
}
_PARAMETERS = {
    "accept-language": "The languages of the browser.",
    "account": "Name or id of a user or an organization.",
    "action": "What is to be done.",
    "delivery": "Id of a delivery.",
    "digest": "The digest of a layer.",
    "hashedtoken": "Id of an access token.",
    "id": "Id of a worker.",
    "identity": "Name of a signing identity.",
    "jobID": "Id of a job.",
    "key_id": "Id of a public key.",
    "mirroringpolicyid": "Id of a mirroring policy.",
    "namespace": "Name of a user or an organization, whose repositories are meant.",
    "org": "Name or id of an organization.",
    "orgname": "Name of an organization.",
    "pollmirroringpolicyid": "Id of a poll mirroring policy.",
    "promotionpolicyid": "Id of a promotion policy.",
    "exceptionid": "Id of an exception.",
    "pruningpolicyid": "Id of a pruning policy.",
    "pushmirroringpolicyid": "Id of a push mirroring policy.",
    "reference": "A tag, or the digest of a manifest.",
    "remote": "Id of a remote.",
    "reponame": "Name of the repository in its namespace; it may have slashes.",
    "robot": "Short name of a robot of the organization.",
    "session": "Id of a session.",
    "storage": "Name of a storage.",
    "tag": "A tag.",
    "team": "Name or id of a team of the organization.",
    "teamname": "Name of a team of the organization.",
    "user": "Name or id of a user.",
    "username": "Name of a user.",
    "webhook": "Id of a webhook.",
}
"""What parameters mean wherever they are and nothing else is said."""
_FIELDS = {
    "accessLevel": "`read-only`, `read-write` or `admin`.",
    "accountID": "Id of the account that it belongs to.",
    "actions": "What it allows there.",
    "annotations": "Those of the manifest.",
    "architecture": "The processor that it is for.",
    "attempts": "How often it was tried.",
    "cert": "The certificate, and those that signed it, in PEM.",
    "certificates": "Certificates that were made for the key.",
    "configDigest": "Digest of its configuration.",
    "configMediaType": "Media type of its configuration.",
    "digest": "Digest of the manifest.",
    "enabled": "It is worked off; what is not enabled is kept, and does nothing.",
    "field": "What is looked at.",
    "isActive": "Opens something; what is not active is kept, and opens nothing.",
    "isAdmin": "Administers the whole system.",
    "isAuditor": "Sees everything, and changes nothing.",
    "isOrg": "It is an organization.",
    "label": "What it is called; for people.",
    "mediaType": "Media type of the content.",
    "membersCount": "How many members it has.",
    "namespaceType": "What owns the namespace.",
    "operator": "How it is compared.",
    "organization": "Name of the organization that it belongs to.",
    "os": "The operating system that it is for.",
    "osVersion": "The version of the operating system.",
    "repository": "The repository that it is of.",
    "shortDescription": "A line about it.",
    "status": "How it is.",
    "tags": "Names of tags.",
    "tokenLabel": "What it is for; for people.",
    "values": "What it is compared with.",
    "variant": "The variant of the processor.",
    "visibility": "`public`: everybody can read it; or `private`.",
}
"""What fields of records mean wherever they are and nothing else is said."""
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
    _describe_fields(schemas)
    document["paths"] = _merged(document["paths"])
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
        if parameter["name"] in _PARAMETERS:
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


def _describe_fields(schemas: dict[str, Any]) -> None:
    """A field that says nothing of itself means what others of its name do, if that is one thing."""
    meanings: dict[str, set[str]] = {}
    fields = [field for schema in schemas.values() for field in schema.get("properties", {}).items()]
    for name, field in fields:
        if "description" in field:
            meanings.setdefault(name, set()).add(field["description"])
    for name, field in fields:
        words = {_FIELDS[name]} if name in _FIELDS else meanings.get(name, set())
        if len(words) == 1 and not _says_itself(field, schemas):
            field.setdefault("description", *words)


def _says_itself(field: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """Whether a field is a record, or made of records, that are described."""
    inner = [field, *field.get("anyOf", ()), field.get("items", {})]
    return any("description" in schemas[one["$ref"].rpartition("/")[2]] for one in inner if "$ref" in one)


def _merged(paths: dict[str, Any]) -> dict[str, Any]:
    """
    Templates that differ in the names of their parameters only are one path.

    As the specification wants it (OpenAPI 3.1, Paths Object). In the order of the alphabet, reading first.
    """
    merged: dict[str, tuple[str, dict[str, Any]]] = {}
    for template, methods in sorted(paths.items()):
        first, known = merged.setdefault(re.sub(r"\{\w+\}", "{}", template), (template, {}))
        names = dict(zip(_parameters(template), _parameters(first), strict=True))
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["name"] = names[parameter["name"]]
        known.update(methods)
    order = ("get", "post", "put", "patch", "delete").index
    return {
        template: {one: methods[one] for one in sorted(methods, key=order)}
        for template, methods in merged.values()
    }


def _parameters(template: str) -> list[str]:
    return re.findall(r"\{(\w+)\}", template)


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
