"""How long what nobody holds is kept: the promises that let collection run while pushes run."""

from __future__ import annotations

from msgspec import Struct

HOUR = 3_600_000
DAY = 24 * HOUR


class Lifetimes(Struct, frozen=True):
    """
    Times in milliseconds.

    A blob or manifest that a client was told to be there stays for one `lease`, the longest push that must
    not fail. `slack` spares writes and covers the longest transaction, replica lag and steps of clocks.
    """

    lease: int = DAY
    slack: int = 12 * HOUR
    untagged_after: int = 7 * DAY
    """Until a manifest without tag may go; never less than lease and slack."""
    delete_delay: int = DAY
    """From the end of a blob to the deletion of its object: longer than the longest pull."""
    upload_ttl: int = DAY
    """Until an upload without news is given up."""

    @property
    def hold(self) -> int:
        """How far a promise for one lease pushes a review into the future."""
        return self.lease + self.slack

    @property
    def hold_manifest(self) -> int:
        """The same for a manifest that no tag holds."""
        return max(self.untagged_after, self.hold)
