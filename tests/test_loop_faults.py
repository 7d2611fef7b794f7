"""The loop, killed at random moments: the ledger's chain is whole, and exactly one version is in production."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import pytest

from mlops import bootstrap
from mlops.bootstrap import Connected
from mlops.releasing.registry import MADE_FOR
from mlops.releasing.releases import Releases
from modules.fraud_detection.settings import NAME
from tests.lived import DEMO, Lived
from tests.services import LONG

pytestmark = pytest.mark.no_cover

KILLS = 50 if LONG else 16
"""Of two runs together."""
LEASE = 2
"""Seconds: those who come after the dead take over soon."""
LONGEST = 9.0
"""Seconds that a program needs at most; they are killed before."""

MODULE, CONFIG = ("-m", "modules.fraud_detection"), ("--config", str(DEMO))
PROGRAMS: dict[str, Sequence[str]] = {
    "retrain": (*MODULE, "retrain", *CONFIG, "--force"),
    "watch": (*MODULE, "watch", *CONFIG, "--once"),
    "scheduler": ("-m", "monitoring.drift_report_scheduler", "--module", NAME, *CONFIG, "--once"),
}


def check(platform: Connected) -> None:
    """The chain is whole, each act goes on from the one before it, and one version is in production."""
    platform.ledger.verify()
    acts = platform.ledger.acts(NAME)
    assert [done.number for done in acts] == list(range(1, len(acts) + 1))
    assert all(after.act.before == before.act.after for before, after in pairwise(acts))
    traffic = platform.ledger.traffic(NAME)
    assert traffic is not None
    assert platform.registry.find(NAME, traffic.production).number == traffic.production


@pytest.mark.parametrize("seed", range(2))
def test_killed_again_and_again_the_loop_leaves_nothing_half_done(lived: Lived, seed: int) -> None:
    short = {"MLOPS_RETRAINING__LEASE": f"{LEASE}s", "MLOPS_MONITORING__LEASE": f"{LEASE}s"}
    lived.environment = {**lived.environment, **short}
    draw, platform = random.Random(seed), bootstrap.connect(lived.settings.platform)
    for _ in range(KILLS // 2):
        process = lived.start(*PROGRAMS[draw.choice(list(PROGRAMS))])
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=draw.uniform(0.5, LONGEST))
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        check(platform)

    for program in ("retrain", "scheduler", "watch"):
        time.sleep(LEASE)
        code, out, err = lived.run(*PROGRAMS[program])
        assert code in (0, 3, 4), (program, out, err)
    check(platform)
    Releases(NAME, platform.ledger, lambda: platform.registry).follow()
    traffic = platform.ledger.traffic(NAME)
    assert traffic is not None
    assert platform.registry.find(NAME, "production").number == traffic.production
    if traffic.candidate is not None:
        assert platform.registry.find(NAME, traffic.mode).number == traffic.candidate

    versions = platform.tracking.client.search_model_versions(f"name = '{NAME}'")
    made = Counter(version.tags[MADE_FOR] for version in versions if MADE_FOR in version.tags)
    assert set(made.values()) <= {1}
    acts = Counter((done.act.act, done.act.version) for done in platform.ledger.acts(NAME))
    assert all(count == 1 for (act, _), count in acts.items() if act in ("registered", "judged", "shadow"))
    platform.ledger.close()
