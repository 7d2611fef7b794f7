"""What a test does where something it needs is missing: it is skipped by hand, and fails in CI."""

import os
from typing import NoReturn

import pytest

SERVICES, DATA = "MLOPS_TEST_REQUIRE_SERVICES", "MLOPS_TEST_REQUIRE_DATA"


def missing(reason: str, required: str = SERVICES) -> NoReturn:
    """Skip the test, or fail it where everything of its kind must be there."""
    (pytest.fail if os.environ.get(required) else pytest.skip)(reason)
