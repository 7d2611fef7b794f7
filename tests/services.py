"""What a test is given: what it needs, or else it is skipped by hand and fails in CI; and how long it may take."""

import os
from typing import NoReturn

import pytest

LONG = bool(os.environ.get("MLOPS_TEST_LONG"))
"""Whether tests of many kills and many rows go their whole way, as they do once a week."""
SERVICES, DATA = "MLOPS_TEST_REQUIRE_SERVICES", "MLOPS_TEST_REQUIRE_DATA"


def missing(reason: str, required: str = SERVICES) -> NoReturn:
    """Skip the test, or fail it where everything of its kind must be there."""
    (pytest.fail if os.environ.get(required) else pytest.skip)(reason)
