"""What a test does where something it needs is missing: it is skipped by hand, and fails in CI."""

import os
from typing import NoReturn

import pytest

REQUIRED = "MLOPS_TEST_REQUIRE_SERVICES"


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where everything must be there."""
    (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)
