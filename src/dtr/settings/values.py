"""What can be set, with types and bounds. Rules without I/O."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta, Struct

from dtr.durations import to_milliseconds

_HOST = re.compile(r"(?:([A-Za-z0-9._-]{1,253})|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}))?")
_LARGEST = 2**63 - 1
_SHORTEST_SESSION = 10
_LONGEST_SESSION = 365 * 24 * 60


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


class Values(Struct, frozen=True, kw_only=True, rename="camel"):
    """A value of every live setting; they are called as in DTR's API, where DTR had them."""

    create_repository_on_push: bool = False
    """A push makes the repository that is missing, for whoever may make it."""
    read_only_registry: bool = False
    """Whatever changes the content of repositories is refused; pulls go on."""
    dtr_host: str = ""
    """``HOST[:PORT]`` that clients use; empty: the one in the request."""
    repo_event_history_compaction_enabled: bool = False
    """Old events are deleted, by the two bounds that follow."""
    repo_event_history_max_age: str = ""
    """Events are deleted when they are older, a duration such as ``720h``; empty: age does not count."""
    repo_event_history_to_keep: Annotated[int, Meta(ge=0, le=_LARGEST)] = 0
    """So many of the newest events stay, and older ones are deleted; 0: number does not count."""
    job_history_compaction_enabled: bool = False
    """Old jobs that ended are deleted with their logs, by the two bounds that follow."""
    job_history_max_age: str = ""
    """Jobs are deleted when they are older, a duration such as ``720h``; empty: age does not count."""
    job_history_to_keep: Annotated[int, Meta(ge=0, le=_LARGEST)] = 0
    """So many of the newest jobs stay, and older ones are deleted; 0: number does not count."""
    garbage_collection: Literal["continuous", "scheduled", "off"] = "continuous"
    """Whether what nothing holds is collected all the time, only by jobs, or (for backups) not at all."""
    session_lifetime_minutes: Annotated[int, Meta(ge=_SHORTEST_SESSION, le=_LONGEST_SESSION)] = 60
    """So long a log-in of a browser is good."""
    session_renewal_threshold_minutes: Annotated[int, Meta(ge=0)] = 20
    """A session that is used in its last so many minutes lives on for its whole life again; 0: none does."""
    sessions_per_user: Annotated[int, Meta(ge=0, le=_LARGEST)] = 10
    """One more, and the session that was used least recently ends; 0: any number."""

    def __post_init__(self) -> None:
        """Raise ValueError for what a type alone cannot say."""
        for name in ("repo_event_history_max_age", "job_history_max_age"):
            try:
                to_milliseconds(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{_camel(name)}: {error}") from None
        host = _HOST.fullmatch(self.dtr_host)
        if self.dtr_host and (host is None or int(host[3] or 0) > 65535):
            raise ValueError("dtrHost: is HOST or HOST:PORT, without https://")
        if self.session_renewal_threshold_minutes > self.session_lifetime_minutes - 5:
            raise ValueError("sessionRenewalThresholdMinutes: is at least 5 less than sessionLifetimeMinutes")

    @property
    def host_name(self) -> str:
        """The name or address in `dtr_host`, without port and brackets."""
        host = _HOST.fullmatch(self.dtr_host)
        return (host[1] or host[2]) if host else ""

    @property
    def repo_event_history_max_age_ms(self) -> int | None:
        """`repo_event_history_max_age` in milliseconds; None: age does not count."""
        return to_milliseconds(self.repo_event_history_max_age) or None

    @property
    def job_history_max_age_ms(self) -> int | None:
        """`job_history_max_age` in milliseconds; None: age does not count."""
        return to_milliseconds(self.job_history_max_age) or None
