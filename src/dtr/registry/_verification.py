"""
That signatures are verified when they come: the registry does not do it, but queues who does.

The job is written in the transaction of what brings a signature to a repository, a push or a promotion, or brings
the repository to where the signatures of others count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtr.jobs import JobRequest, submit

if TYPE_CHECKING:
    from dtr.db import Transaction

VERIFY = "verify_signatures"
"""The job that finds out whose signatures are: in the manifest `manifest` of `repository`, or in all of it."""
_RETRIES = 3


async def verify_soon(tx: Transaction, repository: int, manifest: str | None = None) -> None:
    """Queue the job that finds out whose the signatures in a manifest are; None: in all of a repository."""
    parameters = {"repository": str(repository)}
    if manifest is not None:
        parameters["manifest"] = manifest
    await submit(tx, JobRequest(action=VERIFY, parameters=parameters, retries=_RETRIES))
