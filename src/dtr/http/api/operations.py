"""
The API's operations, as their modules declare them.

What the framework makes of one, its route, is read from the function's signature and compiled: a millisecond and
30 KiB. It is made when the operation is first asked for, as most of them never are.
"""

from __future__ import annotations

from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from starlette.routing import BaseRoute

from dtr.http.api.templates import names

if TYPE_CHECKING:
    from collections.abc import Callable

_JSON = "application/json"


class Router(APIRouter):
    """Operations below one path; `routes` are the `Operation`s that its decorators declared."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Declare one; `options` are those of `APIRouter`."""
        self.routes.append(Operation(self, path, endpoint, options))

    def make(self, path: str, endpoint: Callable[..., Any], options: dict[str, Any]) -> APIRoute:
        """The route of an operation of this router."""
        framework = copy(self)
        framework.routes = []
        super(Router, framework).add_api_route(path, endpoint, **options)
        (route,) = framework.routes
        assert isinstance(route, APIRoute)
        return route


class Operation(BaseRoute):
    """A function that answers one method of a path."""

    def __init__(self, router: Router, path: str, endpoint: Callable[..., Any], options: dict[str, Any]) -> None:
        self._router = router
        self._path = path
        self._endpoint = endpoint
        self._options = options
        self.path = router.prefix + path
        self.methods = frozenset(options["methods"])
        self.is_described = router.include_in_schema and options["include_in_schema"]
        self.parameters = names(self.path)

    def build(self) -> APIRoute:
        """
        What the framework makes of it, new with each call.

        Its id is the function's name. Raises what the framework raises about a declaration that makes no sense.
        """
        for annotation in get_type_hints(self._endpoint).values():
            _compile(annotation)
        route = self._router.make(self._path, self._endpoint, self._options)
        route.operation_id = route.operation_id or to_camel(route.name)
        return route

    @cached_property
    def route(self) -> APIRoute:
        """What answers its requests."""
        return self.build()

    def takes(self, content_type: str) -> bool:
        """Whether a body may be of this type."""
        kind = content_type.partition(";")[0].strip().lower()
        return not self._taken.isdisjoint({kind, "*/*"}) or (_JSON in self._taken and kind.endswith("+json"))

    def gives(self, accept: str) -> bool:
        """Whether a client that accepts this can have the answer (RFC 9110, section 12.5.1)."""
        ranges = [one.partition(";") for one in accept.lower().split(",")]
        accepted = {kind.strip() for kind, _, parameters in ranges if not _is_refused(parameters)}
        wanted = {"*/*", "", *self._given, *(f"{kind.partition('/')[0]}/*" for kind in self._given)}
        return not accepted.isdisjoint(wanted)

    @cached_property
    def _taken(self) -> set[str]:
        route = self.route
        if route.body_field is not None:
            return {getattr(route.body_field.field_info, "media_type", _JSON)}
        return set((route.openapi_extra or {}).get("requestBody", {}).get("content", {})) or {_JSON}

    @cached_property
    def _given(self) -> set[str]:
        answers = self.route.responses.items()
        contents = [one.get("content", {}) for status, one in answers if str(status).startswith("2")]
        return {_JSON, *(kind for content in contents for kind in content)}


def _compile(annotation: Any) -> None:
    """
    Compile the models in an annotation that wait for it (`defer_build`), those first that others are made of.

    What is compiled from them later refers to them. Of models that still wait it would have copies, and what the
    framework makes of them would wait, too.
    """
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    if is_model and annotation.model_config.pop("defer_build", False):
        for field in annotation.model_fields.values():
            _compile(field.annotation)
        annotation.model_rebuild()
    for inner in get_args(annotation):
        _compile(inner)


def _is_refused(parameters: str) -> bool:
    """Whether a media range has the weight 0."""
    weights = [
        value for name, _, value in (one.partition("=") for one in parameters.split(";")) if name.strip() == "q"
    ]
    return any(value.strip().rstrip("0") in {"", "."} for value in weights)
