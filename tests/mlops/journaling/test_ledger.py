"""The ledger: acts follow each other, in one chain, whoever acts at once and whoever is killed."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops import traffic
from mlops.errors import BadInput, Damaged
from mlops.journaling.ledger import Ledger, Overtaken
from mlops.traffic import Traffic
from tests.conftest import ROOT
from tests.mlops.journaling.test_journal import change

NAME = "model"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    made: Callable[[], str] = request.getfixturevalue("postgres")
    return made()


def promote(ledger: Ledger, version: int, at_last: int | None = None) -> bool:
    change = partial(traffic.promoted, version=version)
    try:
        ledger.record(NAME, "promoted", version, "ada", "because", change, only_after=at_last)
    except Overtaken:
        return False
    return True


def test_the_traffic_at_any_moment_is_what_the_acts_before_it_made(tmp_path: Path) -> None:
    clock = iter(range(10, 100, 10))
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", lambda: next(clock))
    promote(ledger, 1)
    promote(ledger, 2)
    ledger.record(NAME, "canary", 3, "ada", "try", lambda now: traffic.on_trial(now, 3, "canary", 0.05))
    ledger.record(NAME, "rolled back", 3, "watch", "harm", traffic.back, {"evidence": 41.5})
    assert [ledger.traffic(NAME, at) for at in (9, 10, 19, 20, 30, 40)] == [
        None, Traffic(1), Traffic(1), Traffic(2, 1), Traffic(2, 1, "canary", 3, 0.05), Traffic(2, 1),
    ]  # fmt: skip
    assert ledger.traffic("another") is None
    last = ledger.acts(NAME)[-1]
    assert (last.number, last.at, last.act.who, last.act.why) == (4, 40, "watch", "harm")
    assert (last.act.before, last.act.after) == (Traffic(2, 1, "canary", 3, 0.05), Traffic(2, 1))
    assert last.act.figures == {"evidence": 41.5}


def test_what_makes_no_sense_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    promote(ledger, 1)
    with pytest.raises(BadInput, match="version 1 is in production already"):
        promote(ledger, 1)
    with pytest.raises(BadInput, match="weight 1.5 is no share; write a number from 0 to 1"):
        ledger.record(NAME, "canary", 2, "ada", "try", lambda now: traffic.on_trial(now, 2, "canary", 1.5))
    with pytest.raises(BadInput, match="there is no way back"):
        ledger.record(NAME, "rolled back", 1, "ada", "oh", traffic.back)
    assert len(ledger.acts(NAME)) == 1


def test_time_in_the_ledger_never_goes_back(tmp_path: Path) -> None:
    clock = iter([50, 20, 60])
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", lambda: next(clock))
    for version in (1, 2, 3):
        promote(ledger, version)
    assert [done.at for done in ledger.acts(NAME)] == [50, 50, 60]


def test_of_two_who_saw_the_same_one_acts(url: str) -> None:
    with closing(Ledger(url)) as one, closing(Ledger(url)) as two:
        promote(one, 1)
        assert len(two.acts(NAME)) == 1
        assert promote(one, 2, at_last=1)
        assert not promote(two, 3, at_last=1)
        assert two.traffic(NAME) == Traffic(2, 1)


def test_many_at_once_each_act_on_what_the_others_did(url: str) -> None:
    def act(first: int) -> None:
        with closing(Ledger(url)) as mine:
            for version in range(first, first + 10):
                promote(mine, version)

    threads = [threading.Thread(target=act, args=(first,)) for first in (100, 200, 300, 400)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with closing(Ledger(url)) as ledger:
        done = ledger.acts(NAME)
        ledger.verify()
    assert [one.number for one in done] == list(range(1, 41))
    assert all(after.act.before == before.act.after for before, after in pairwise(done))
    versions = [first + number for first in (100, 200, 300, 400) for number in range(10)]
    assert sorted(one.act.version or 0 for one in done) == versions


def test_killed_at_any_moment_the_chain_is_whole_and_one_version_is_in_production(tmp_path: Path) -> None:
    url, draw = f"sqlite:///{tmp_path}/ledger.db", random.Random(0)
    program = f"""
import itertools
from mlops.journaling.ledger import Ledger, Overtaken
from tests.mlops.journaling.test_ledger import NAME, promote
ledger = Ledger("{url}")
print("up", flush=True)
for version in itertools.count(len(ledger.acts(NAME)) + 1):
    promote(ledger, version)
    print(version, flush=True)
"""
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(draw.randrange(2, 30))]
        process.send_signal(signal.SIGKILL)
        process.wait()
        told += process.stdout.readlines()
        process.stdout.close()
        acknowledged = int([line for line in told if line.endswith("\n")][-1])
        ledger = Ledger(url)
        done = ledger.acts(NAME)
        assert len(done) in (acknowledged, acknowledged + 1)
        assert [one.act.after and one.act.after.production for one in done] == list(range(1, len(done) + 1))
        ledger.verify()
        ledger.close()


def test_a_changed_act_is_named(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    promote(ledger, 1)
    promote(ledger, 2)
    assert ledger.verify().count == 2
    change(ledger.journal, "UPDATE journal SET body = CAST(replace(body, 'ada', 'eve') AS BLOB) WHERE sequence = 1")
    with pytest.raises(Damaged, match="row 1 of the journal"):
        ledger.verify()


acts = st.one_of(
    st.tuples(st.just("promote"), st.integers(1, 4)),
    st.tuples(st.sampled_from(["shadow", "canary", "ab"]), st.integers(1, 4)),
    st.tuples(st.just("back"), st.just(0)),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(acts, max_size=30))
def test_whatever_is_done_one_version_answers_and_the_candidate_is_another(done: list[tuple[str, int]]) -> None:
    now: Traffic | None = None
    for act, version in done:
        before = now
        try:
            if act == "promote":
                now = traffic.promoted(now, version)
            elif act == "back":
                now = traffic.back(now)
            else:
                now = traffic.on_trial(now, version, act, 0.1)  # type: ignore[arg-type]
        except BadInput:
            assert now == before
        assert now is None or now.candidate != now.production
        assert now is None or (now.candidate is None) == (now.mode == "production")
        assert now is None or now.previous != now.production
