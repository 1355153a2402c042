"""Repositories with policies of every kind, for tests of their pages."""

from __future__ import annotations

from typing import Any

from tests.support.api import Api
from tests.support.images import make_image
from tests.support.rooms import annotated
from tests.support.server import PASSWORD

APP = "/api/v0/repositories/acme/app"
IMAGE = make_image()
TAGS = ("1.0", "1.1", "2.14.0-rc.2", "dev-1", "dev-2", "dev-3", "debug-shell")
"""The oldest first; each names an image of its own. `latest` is the oldest of all."""


def rule(field: str, operator: str, *values: str) -> dict[str, Any]:
    return {"field": field, "operator": operator, "values": list(values)}


def make_policies(api: Api) -> dict[str, str]:
    """
    ``acme/app`` with tags, and policies that are switched off, but for one; their ids.

    Ada owns `acme`, will pushes, rita reads, adam administers ``acme/app`` alone, pia has nothing to do with it.
    """
    api.make_users("ada", "will", "rita", "adam", "pia")
    api.make_organization("acme", owners=("ada",), members=("will", "rita", "adam"))
    for team, user in (("writers", "will"), ("readers", "rita"), ("app", "adam")):
        api.make_team(f"acme/{team}", user)
    for path in ("acme/app", "acme/prod", "acme/test"):
        api.make_repository(path)
    for team, level in (("writers", "read-write"), ("readers", "read-only"), ("app", "admin")):
        api.grant(f"acme/{team}", level, repository="acme/app")
    ada = api.as_("ada")
    ada.client.push("acme/app", IMAGE, "latest")
    for tag in TAGS:
        ada.client.put_manifest("acme/app", annotated(IMAGE, n=tag), tag).expect(201)
    critical = rule("vulnerability_critical", "eq", "0")
    grouped = {"any": [rule("tag", "sw", "dev-"), {"not": rule("label", "eq", "stage=production")}]}
    promotion = ada.post(
        f"{APP}/promotionPolicies",
        {
            "rules": [rule("tag", "sw", "1."), critical],
            "targetRepository": "acme/prod",
            "tagTemplate": "%n-%Y%m%d",
        },
        initialEvaluation="true",
    ).expect(201)
    arriving = ada.post(
        "/api/v0/repositories/acme/test/promotionPolicies",
        {"rules": [], "targetRepository": "acme/app", "tagTemplate": "%n", "enabled": False},
    ).expect(201)
    pruning = ada.post(
        f"{APP}/pruningPolicies",
        {"enabled": False, "keep": 2, "rules": [grouped, rule("last_pulled_at_duration", "bf", "720h")]},
    ).expect(201)
    mirror = ada.post(
        f"{APP}/pushMirroringPolicies",
        {
            "enabled": False,
            "remoteHost": f"https://127.0.0.1:{api.server.port}",
            "skipTLSVerification": True,
            "remoteRepository": "acme/test",
            "username": "ada",
            "password": PASSWORD,
            "rules": [rule("tag", "oo", "1.0", "1.1")],
        },
        initialEvaluation="false",
    ).expect(201)
    return {
        "promotion": promotion.json["id"],
        "arriving": arriving.json["id"],
        "pruning": pruning.json["id"],
        "mirror": mirror.json["id"],
    }
