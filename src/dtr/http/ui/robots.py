"""Robots of an organisation: accounts of its programs, what they were granted, and their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dtr.accounts import Operation
from dtr.http.api import robots
from dtr.http.api.tokens import TokenForm
from dtr.http.ui import grants
from dtr.http.ui.organizations import Organization, after, organization
from dtr.http.ui.pages import Pages
from dtr.http.ui.problems import Problems, Refused

if TYPE_CHECKING:
    from starlette.responses import Response

    from dtr.http.api.robots import RobotRecord
    from dtr.http.ui.visit import Visit

pages = Pages()

ACTIONS = ("pull", "push", "delete", "admin")
_FIELDS = {"INVALID_ACCOUNT_NAME": "name", "ACCOUNT_EXISTS": "name"}
_SHOWN = 10
"""Grants on the robot's first page; the next ones are behind it."""


async def _find(visit: Visit) -> tuple[Organization, RobotRecord]:
    """The organisation and the robot of the address. Raises ApiError."""
    org = await organization(visit)
    return org, await visit.call(robots.get_robot, orgname=org.name, robot=visit.values["robot"])


def _url(org: Organization, robot: RobotRecord) -> str:
    return f"{org.url}/robots/{quote(robot.short_name)}"


@pages.get("/orgs/{org}/robots")
async def list_robots(visit: Visit) -> Response:
    """Its robots."""
    org = await organization(visit)
    listing = await visit.listing(robots.list_robots, orgname=org.name, count=True)
    return visit.page("organizations/robots.html", org=org, listing=listing)


@pages.get("/orgs/{org}/robots/new")
async def new_robot(visit: Visit) -> Response:
    """The form for one."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    return visit.page("organizations/robot_new.html", org=org, form={"name": "", "description": ""})


@pages.post("/orgs/{org}/robots/new")
async def create_robot(visit: Visit) -> Response:
    """Make one."""
    org = await organization(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    form = {name: await visit.text(name) for name in ("name", "description")}
    name = form["name"].removeprefix(f"{org.name}+")
    try:
        made = await visit.submit(
            robots.create_robot,
            form=robots.RobotForm,
            data={"name": name, "description": form["description"]},
            fields=_FIELDS,
            orgname=org.name,
        )
    except Refused as refused:
        return visit.refuse("organizations/robot_new.html", refused, org=org, form=form)
    return visit.redirect(
        _url(org, made),
        visit._("{robot} is there now. Give it access, and make a token for it.", robot=made.name),
    )


@pages.get("/orgs/{org}/robots/{robot}")
async def show_robot(visit: Visit) -> Response:
    """What it is for, what it was granted, and its tokens."""
    org, robot = await _find(visit)
    return await _show(visit, org, robot, robot.description)


async def _show(
    visit: Visit, org: Organization, robot: RobotRecord, description: str, refused: Refused | None = None
) -> Response:
    where: dict[str, Any] = {"orgname": org.name, "robot": robot.short_name}
    tokens = await visit.listing(robots.list_robot_tokens, count=True, **where)
    access = await visit.listing(
        robots.list_robot_access, start=visit.query.get("grants", "")[:1_024], size=_SHOWN, count=True, **where
    )
    context: dict[str, Any] = {
        "url": _url(org, robot),
        "tokens": tokens,
        "access": access,
        "description": description,
    }
    if refused is None:
        return visit.page("organizations/robot.html", org=org, robot=robot, **context)
    return visit.refuse("organizations/robot.html", refused, org=org, robot=robot, **context)


@pages.post("/orgs/{org}/robots/{robot}")
async def change_robot(visit: Visit) -> Response:
    """Describe it anew, switch it off or on."""
    org, robot = await _find(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    form = await visit.form()
    data: dict[str, object] = {"description": await visit.text("description")} if "description" in form else {}
    if "state" in form:
        data["isActive"] = await visit.text("state") == "on"
    try:
        changed = await visit.submit(
            robots.update_robot,
            form=robots.RobotChange,
            data=data,
            fields={"INVALID_ACCOUNT_NAME": "description"},
            orgname=org.name,
            robot=robot.short_name,
        )
    except Refused as refused:
        return await _show(visit, org, robot, await visit.text("description"), refused)
    undo = None
    if changed.is_active is robot.is_active:
        said = visit._("The description was changed.")
    else:
        on, off = (
            visit._("{robot} can log in now.", robot=robot.name),
            visit._("{robot} is switched off: its tokens open nothing.", robot=robot.name),
        )
        said = on if changed.is_active else off
        undo = (_url(org, robot), {"state": "on" if robot.is_active else "off"})
    return visit.redirect(_url(org, robot), said, undo=undo)


@pages.get("/orgs/{org}/robots/{robot}/delete")
async def ask_to_delete(visit: Visit) -> Response:
    """Say what goes with it."""
    org, robot = await _find(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    where: dict[str, Any] = {"orgname": org.name, "robot": robot.short_name}
    tokens = await visit.listing(robots.list_robot_tokens, start="", size=1, count=True, **where)
    access = await visit.listing(robots.list_robot_access, start="", size=1, count=True, **where)
    return visit.confirm(
        visit._("Delete {robot}", robot=robot.name),
        verb=visit._("Delete the robot"),
        text=visit._("What it pushed stays."),
        items=[
            visit.n_("{n} token opens nothing any more.", "{n} tokens open nothing any more.", tokens.count or 0),
            visit.n_("{n} grant ends.", "{n} grants end.", access.count or 0),
        ],
        back=_url(org, robot),
    )


@pages.post("/orgs/{org}/robots/{robot}/delete")
async def delete_robot(visit: Visit) -> Response:
    """Remove it, with its tokens and grants."""
    org, robot = await _find(visit)
    await visit.call(robots.delete_robot, orgname=org.name, robot=robot.short_name)
    return visit.redirect(f"{org.url}/robots", visit._("{robot} was deleted.", robot=robot.name))


# --- access -----------------------------------------------------------------------------------------------------


@pages.get("/orgs/{org}/robots/{robot}/access/new")
async def new_access(visit: Visit) -> Response:
    """The form to give it something."""
    org, robot = await _find(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    form = {"on": "repository", "name": "", "level": "read-only"}
    return visit.page("organizations/robot_access.html", org=org, robot=robot, url=_url(org, robot), form=form)


@pages.post("/orgs/{org}/robots/{robot}/access/new", "/orgs/{org}/robots/{robot}/access/change")
async def change_access(visit: Visit) -> Response:
    """Give it a level on a repository, or on everything; `none` takes it away."""
    org, robot = await _find(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    form = await grants.typed(visit, "on", "name")
    path = org.name if form["on"] == "namespace" else f"{org.name}/{form['name'].removeprefix(f'{org.name}/')}"
    try:
        if path.endswith("/"):
            raise Refused(Problems(fields={"name": visit._("Fill in this field.")}))
        before = await grants.change(visit, "user", robot.name, form["level"], path)
    except Refused as refused:
        return visit.refuse(
            "organizations/robot_access.html", refused, org=org, robot=robot, url=_url(org, robot), form=form
        )
    undo = (f"{_url(org, robot)}/access/change", {**form, "level": before}) if before != form["level"] else None
    return after(visit, org, _url(org, robot), grants.said(visit, robot.name, form["level"], path), undo)


# --- tokens -----------------------------------------------------------------------------------------------------


@pages.get("/orgs/{org}/robots/{robot}/tokens/new")
async def new_token(visit: Visit) -> Response:
    """The form for one."""
    org, robot = await _find(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    form = {"label": "", "until": "", "repositories": "", "actions": []}
    return visit.page("organizations/robot_token.html", org=org, robot=robot, url=_url(org, robot), form=form)


@pages.post("/orgs/{org}/robots/{robot}/tokens/new")
async def create_token(visit: Visit) -> Response:
    """Make one, and show its secret, which nobody can see again."""
    org, robot = await _find(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    form: dict[str, object] = {name: await visit.text(name) for name in ("label", "until", "repositories")}
    actions = [one for one in await visit.texts("actions") if one in ACTIONS]
    form["actions"] = actions
    patterns = str(form["repositories"]).split()
    data: dict[str, object] = {"tokenLabel": form["label"]}
    if form["until"]:
        data["expiresAt"] = f"{form['until']}T23:59:59Z"
    if patterns or actions:
        data["scope"] = {"repositories": patterns or [f"{org.name}/*"], "actions": actions or list(ACTIONS)}
    fields = {
        "INVALID_TOKEN_SCOPE": "repositories",
        "INVALID_TOKEN": "until" if form["until"] else "label",
        "expiresAt": "until",
        "tokenLabel": "label",
    }
    try:
        made = await visit.submit(
            robots.create_robot_token,
            form=TokenForm,
            data=data,
            fields=fields,
            orgname=org.name,
            robot=robot.short_name,
            user_agent=visit.request.headers.get("user-agent", ""),
        )
    except Refused as refused:
        return visit.refuse(
            "organizations/robot_token.html", refused, org=org, robot=robot, url=_url(org, robot), form=form
        )
    response = visit.page(
        "organizations/robot_token_made.html", 201, org=org, robot=robot, url=_url(org, robot), token=made
    )
    response.headers["cache-control"] = "no-store"
    return response


@pages.get("/orgs/{org}/robots/{robot}/tokens/{token}/delete")
async def ask_to_delete_token(visit: Visit) -> Response:
    """Say what ends with it."""
    org, robot = await _find(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    return visit.confirm(
        visit._("Delete a token of {robot}", robot=robot.name),
        verb=visit._("Delete the token"),
        text=visit._("Programs that use it are refused from then on. This cannot be undone."),
        back=_url(org, robot),
    )


@pages.post("/orgs/{org}/robots/{robot}/tokens/{token}/delete")
async def delete_token(visit: Visit) -> Response:
    """End it; one that is gone already is no failure."""
    org, robot = await _find(visit)
    await visit.caller.require_in(org.name, Operation.MANAGE_ORGANIZATION)
    problems = Problems()
    try:
        await visit.submit(
            robots.delete_robot_token,
            orgname=org.name,
            robot=robot.short_name,
            hashedtoken=visit.values["token"],
        )
    except Refused as refused:
        problems = refused.problems
        if problems.code != "NO_SUCH_API_TOKEN":
            raise
    said = visit._("The token was deleted.") if not problems else visit._("The token was gone already.")
    return visit.redirect(_url(org, robot), said)
