"""``/api/v0/meta``: what the whole installation is and has."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from dtr.accounts import Operation
from dtr.http.api.caller import CallerDep
from dtr.http.api.models import Record

router = APIRouter(prefix="/api/v0/meta", tags=["meta"])


class Features(Record):
    """What this installation can do. There are no licences: whatever was licensed once is."""

    scanning_enabled: bool = Field(description="Images are scanned for vulnerabilities.")
    scanning_licensed: bool = True
    promotion_licensed: bool = True
    mirroring_licensed: bool = True
    online_gc_enabled: bool = Field(True, alias="onlineGCEnabled")
    metadata_store_opted_in: bool = True
    db_version: int = Field(0, alias="db_version", description="Version of the vulnerability database; 0: none.")
    ucp_host: str = Field("", description="Always empty: accounts are kept here.")


@router.get("/features", summary="What this installation can do")
async def get_features(caller: CallerDep) -> Features:
    """For everybody who is logged in."""
    caller.require(Operation.SEE_FEATURES)
    return Features(scanning_enabled=False)
