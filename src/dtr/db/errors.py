"""What goes wrong at a database, whichever it is."""

from __future__ import annotations


class DatabaseError(Exception):
    """Base of this package's errors."""


class DatabaseUnavailable(DatabaseError):
    """The database does not answer, or its answer got lost: a write may or may not have happened."""


class DatabaseRefused(DatabaseError):
    """The database does not let us in, or is not there: waiting does not heal that."""


class DatabaseBusy(DatabaseUnavailable):
    """Others held the rows, or the whole database, for longer than a request may wait."""


class DatabaseFull(DatabaseError):
    """There is no room left for what was to be written; nothing of it was."""


class SchemaNewer(DatabaseError):
    """The data was written by a newer version of the program."""


class SchemaOutdated(DatabaseError):
    """The tables are older than the program: ``dtr migrate`` brings them up to date."""


class ConstraintViolated(DatabaseError):
    """A row contradicts a constraint of the schema: a name is taken, or what a row points at is gone."""
