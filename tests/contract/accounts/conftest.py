"""What the tests of the accounts share."""

from __future__ import annotations

import pytest

from dtr.accounts import Accounts, Passwords
from dtr.db import Database
from dtr.registry import Repositories


@pytest.fixture
def accounts(database: Database) -> Accounts:
    """The accounts, with the cheapest hashes."""
    return Accounts(database, Passwords(memory_kib=8, passes=1))


@pytest.fixture
def repositories(database: Database) -> Repositories:
    return Repositories(database)
