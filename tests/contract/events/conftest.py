"""What the tests of the events share."""

from __future__ import annotations

import pytest

from dtr.db import Database
from dtr.events import Events


@pytest.fixture
def events(database: Database) -> Events:
    return Events(database)
