"""
The interface of the metadata database. `SQLite` and `PostgreSQL` fulfil it.

Reading runs one statement at a time, each on its own snapshot. Writing is a **unit of work**: a coroutine
function that gets a `Transaction` and commits whole or not at all. A unit

* awaits nothing but its transaction (on SQLite it is driven without suspending, in the thread of the writer,
  and shares its commit with other units);
* is idempotent: after a lost connection nobody knows whether it was committed, and it is run again;
* raises what its caller shall get; then nothing of it stays. An error of a statement ends it, even when it is
  caught.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dtr.db.statement import Dialect, Row, Statement

T = TypeVar("T")


class Reader(Protocol):
    """What answers questions. Raises any `DatabaseError`."""

    async def fetch_one(self, statement: Statement, /, **parameters: Any) -> Row | None:
        """The first row, or None."""

    async def fetch_all(self, statement: Statement, /, **parameters: Any) -> list[Row]:
        """All rows; the statement limits them."""


class Transaction(Reader, Protocol):
    """
    A unit of work under way.

    An error of a statement ends it, even when it is caught: each further one raises DatabaseError.
    """

    async def execute(self, statement: Statement, /, **parameters: Any) -> int:
        """Run a statement; the number of rows it changed."""

    async def execute_many(self, statement: Statement, parameters: list[dict[str, Any]], /) -> None:
        """Run a statement for each set of parameters."""

    async def notify(self, channel: str) -> None:
        """Wake those who watch the channel, when this is committed."""


class Database(Reader, Protocol):
    """A metadata database."""

    dialect: Dialect
    observe: Callable[[str, float], None] | None
    """Called after each statement ("read") and unit ("write") with the seconds it took."""

    async def unit(self, work: Callable[[Transaction], Coroutine[Any, Any, T]], /, *, durable: bool = True) -> T:
        """
        Run a unit of work and commit it durably; its result.

        One that is not `durable` may be lost with the power (never with a process): for what a client can be
        told to begin again. It waits for no disk.

        Raises what `work` raises, and DatabaseUnavailable, DatabaseBusy, DatabaseFull, ConstraintViolated.
        """

    async def watch(self, channel: str, wake: Callable[[], None]) -> None:
        """
        Call `wake` soon after each commit that notified the channel, until cancelled.

        It may be called without reason, and not be called while the database is away: whoever watches looks now
        and then by itself.
        """

    async def revision(self) -> str | None:
        """The revision of the schema, None when there are no tables yet."""

    async def close(self) -> None:
        """Give connections and threads back."""
