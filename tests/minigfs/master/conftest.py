"""Fixtures of the master's tests."""

import pytest

from tests.minigfs.master.harness import Driver


@pytest.fixture
def driver() -> Driver:
    return Driver()
