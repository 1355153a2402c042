"""Operations of the API: what is declared, what is made of it and when, and which one an address means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pytest
from fastapi import Form as FormField
from fastapi import Query
from pydantic import BaseModel

from dtr.http.api.app import ROUTERS
from dtr.http.api.models import Form, Record
from dtr.http.api.operations import Operation, Router
from dtr.http.api.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Iterator


def declared() -> list[Operation]:
    found = [one for router in ROUTERS for one in router.routes]
    assert all(isinstance(one, Operation) for one in found)
    return [one for one in found if isinstance(one, Operation)]


@pytest.mark.parametrize("operation", declared(), ids=lambda one: f"{'+'.join(one.methods)} {one.path}")
def test_the_framework_makes_a_route_of_every_operation(operation: Operation) -> None:
    route = operation.build()
    assert (route.path, route.methods) == (operation.path, operation.methods)
    assert [*route.param_convertors] == operation.parameters
    assert route.include_in_schema == operation.is_described


def models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in base.__subclasses__():
        yield one
        yield from models(one)


@pytest.mark.parametrize(
    "model", [*models(Record), *models(Form)], ids=lambda one: f"{one.__module__}.{one.__name__}"
)
def test_every_model_can_be_compiled(model: type[BaseModel]) -> None:
    assert model.model_rebuild() is not False
    assert model.__pydantic_complete__


def test_every_operation_has_an_address_of_its_own() -> None:
    operations = declared()
    paths = Paths(operations)
    for operation in operations:
        found = paths.find(operation.path)
        assert found is not None
        for method in operation.methods:
            assert found[0].operations[method] is operation


async def read_all(page: str = "") -> list[str]:
    return [page]


async def read_one(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


async def delete_one(owner: str, name: str) -> None:
    """Forget it."""


async def read_tags(namespace: str, name: str) -> list[str]:
    return [namespace, name]


async def put_form(title: Annotated[str, FormField()]) -> None:
    """Take a form."""


class Leaf(Record):
    """In others."""

    size: int


class Tree(Record):
    """Made of itself and of others."""

    leaves: list[Leaf]
    trees: list[Tree] | None = None


async def read_trees() -> dict[str, Tree]:
    return {}


async def read_wrongly(words: Annotated[dict[str, str], Query()]) -> None:
    """Nothing can be made of this."""


@pytest.fixture
def router() -> Router:
    router = Router(prefix="/things", tags=["things"])
    router.get("")(read_all)
    router.get("/{namespace}/{name:path}")(read_one)
    router.delete("/{owner}/{name:path}", status_code=204, include_in_schema=False)(delete_one)
    router.get("/{namespace}/{name:path}/tags", operation_id="tagsOf")(read_tags)
    router.put("", status_code=204)(put_form)
    return router


def the(router: Router, method: str, path: str) -> Operation:
    found = Paths(router.routes).find(path)
    assert found is not None
    return found[0].operations[method]


def test_what_is_declared_is_made_when_it_is_first_wanted(router: Router) -> None:
    operation = the(router, "GET", "/things")
    assert "route" not in vars(operation)
    route = operation.route
    assert route is operation.route
    assert operation.build() is not route
    assert (route.path, route.endpoint, route.tags) == ("/things", read_all, ["things"])


def test_models_are_compiled_with_the_first_operation_that_gives_them(router: Router) -> None:
    router.get("/trees")(read_trees)
    operation = the(router, "GET", "/things/trees")
    assert not Leaf.__pydantic_complete__
    assert not Tree.__pydantic_complete__
    answer = operation.build().response_field
    assert Leaf.__pydantic_complete__
    assert Tree.__pydantic_complete__
    assert answer is not None
    tree = Tree(leaves=[Leaf(size=1)], trees=[Tree(leaves=[])])
    assert answer.serialize({"a": tree}, exclude_none=True) == {
        "a": {"leaves": [{"size": 1}], "trees": [{"leaves": []}]}
    }


def test_an_operation_is_called_as_its_function_is_or_as_it_says(router: Router) -> None:
    assert the(router, "GET", "/things").route.operation_id == "readAll"
    assert the(router, "GET", "/things/acme/app/tags").route.operation_id == "tagsOf"


@pytest.mark.parametrize(
    ("path", "endpoint", "values"),
    [
        ("/things/acme/app", read_one, ("acme", "app")),
        ("/things/acme/app/web", read_one, ("acme", "app/web")),
        ("/things/acme/app/web/tags", read_tags, ("acme", "app/web")),
        ("/things/acme//tags", read_tags, ("acme", "")),
        ("/things/acme/app\n", read_one, ("acme", "app\n")),
        ("/things/acme/tags", read_one, ("acme", "tags")),
    ],
)
def test_the_most_specific_path_is_meant(
    router: Router, path: str, endpoint: object, values: tuple[str, ...]
) -> None:
    found = Paths(router.routes).find(path)
    assert found is not None
    assert found[0].operations["GET"].build().endpoint is endpoint
    assert found[1] == values


@pytest.mark.parametrize("path", ["/things/", "/things\n", "/thing", "/things/acme", "", "/x/things"])
def test_what_fits_no_template_is_no_path(router: Router, path: str) -> None:
    assert Paths(router.routes).find(path) is None


def test_operations_of_one_path_name_its_parameters_each_in_its_own_way(router: Router) -> None:
    assert the(router, "GET", "/things/a/b").parameters == ["namespace", "name"]
    assert the(router, "DELETE", "/things/a/b").parameters == ["owner", "name"]


def test_methods_are_allowed_that_are_described(router: Router) -> None:
    for path, allowed in (("/things", "GET, HEAD, PUT"), ("/things/a/b", "GET, HEAD")):
        found = Paths(router.routes).find(path)
        assert found is not None
        assert found[0].allowed == allowed


def test_an_operation_takes_what_its_function_reads(router: Router) -> None:
    assert the(router, "GET", "/things").takes("application/json; charset=utf-8")
    form = the(router, "PUT", "/things")
    assert form.takes("application/x-www-form-urlencoded")
    assert not form.takes("application/json")


def test_a_declaration_that_makes_no_sense_is_refused_when_it_is_made() -> None:
    router = Router()
    router.get("/wrong")(read_wrongly)
    with pytest.raises(AssertionError, match="words"):
        the(router, "GET", "/wrong").build()
