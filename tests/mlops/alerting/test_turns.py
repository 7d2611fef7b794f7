"""Turns: one holder at a time, done once, whoever asks, whoever dies."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mlops.alerting.turns import Turn, Turns
from mlops.errors import StorageFailed
from mlops.journaling.ledger import Ledger
from tests.mlops.alerting.test_alerts import NAME, Clock, line_of, python

LEASE = 60
SECOND = 1_000_000


@pytest.fixture
def ledger(database: str) -> Iterator[Ledger]:
    opened = Ledger(database)
    yield opened
    opened.verify()
    opened.close()


def taken(turns: Turns, what: str = "run 1") -> Turn:
    turn = turns.take(what)
    assert turn is not None
    return turn


def test_what_is_done_is_never_given_again(ledger: Ledger) -> None:
    clock = Clock()
    one, other = (Turns(ledger, NAME, clock, LEASE) for _ in range(2))
    turn = taken(one)
    assert (turn.what, turn.attempt) == ("run 1", 1)
    assert other.take("run 1") is None
    assert turn.done({"drifted": ["amount"]})
    clock.at += 1_000 * LEASE * SECOND
    assert one.take("run 1") is None
    assert Turns(ledger, NAME, clock, LEASE).take("run 1") is None
    assert (turn.renew(), turn.failed("no"), turn.done()) == (False, False, True)
    (work,) = other.known()
    assert (work.state, work.result, work.attempt) == ("done", {"drifted": ["amount"]}, 1)


def test_a_holder_that_renews_keeps_it_and_one_that_does_not_loses_it(ledger: Ledger) -> None:
    clock = Clock()
    one, other = (Turns(ledger, NAME, clock, LEASE) for _ in range(2))
    first = taken(one)
    for _ in range(5):
        clock.at += LEASE * SECOND - 1
        assert other.take("run 1") is None
        assert first.renew()
    clock.at += LEASE * SECOND
    second = taken(other)
    assert second.attempt == 2
    assert (first.renew(), first.done({"by": "the first"}), first.failed("late")) == (False, False, False)
    assert second.done({"by": "the second"})
    assert one.known()[0].result == {"by": "the second"}


def test_a_late_holder_whom_nobody_followed_may_still_end_it(ledger: Ledger) -> None:
    clock = Clock()
    turns = Turns(ledger, NAME, clock, LEASE)
    turn = taken(turns)
    clock.at += 2 * LEASE * SECOND
    assert turn.done()
    assert turns.take("run 1") is None


def test_work_that_fails_is_tried_again_a_few_times_and_then_given_up(ledger: Ledger) -> None:
    turns = Turns(ledger, NAME, Clock(), LEASE, attempts=3)
    for attempt in (1, 2, 3):
        turn = taken(turns)
        assert turn.attempt == attempt
        assert turn.failed(f"reason {attempt}")
        assert turn.renew() is False
        state = "given up" if attempt == 3 else "failed"
        assert [(work.state, work.reason) for work in turns.known()] == [(state, f"reason {attempt}")]
    assert turns.take("run 1") is None
    assert turns.last() is None


def test_work_whose_holders_die_is_given_up_too(ledger: Ledger) -> None:
    clock = Clock()
    turns = Turns(ledger, NAME, clock, LEASE, attempts=2)
    for attempt in (1, 2):
        assert taken(turns).attempt == attempt
        clock.at += LEASE * SECOND
    assert turns.take("run 1") is None
    (work,) = turns.known()
    assert (work.state, work.attempt, work.reason) == ("given up", 2, "none of 2 attempts came to an end")
    assert turns.take("run 1") is None


def test_what_was_done_last_is_known_by_its_beginning(ledger: Ledger) -> None:
    turns = Turns(ledger, NAME, Clock(), LEASE)
    for what in ("drift 1", "drift 2", "retrain 1", "drift 3"):
        assert taken(turns, what).done({"of": what})
    taken(turns, "drift 4").failed("no data")
    taken(Turns(ledger, "triage", Clock(), LEASE), "drift 5").done()
    last = turns.last("drift ")
    assert last is not None
    assert last.what == "drift 3"
    assert [(work.what, work.state) for work in turns.known("drift ")] == [
        ("drift 1", "done"), ("drift 2", "done"), ("drift 3", "done"), ("drift 4", "failed"),
    ]  # fmt: skip
    assert turns.last("nothing") is None


def test_what_an_error_hid_can_be_told_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal wrote it down and the answer was lost: the second time counts as the first."""
    clock = Clock()
    turns = Turns(ledger, NAME, clock, LEASE)
    turn = taken(turns)
    append = ledger.journal.append

    def lossy(entries: object) -> object:
        append(entries)  # type: ignore[arg-type]
        raise StorageFailed("the answer was lost")

    for told in (turn.renew, lambda: turn.done({"n": 1})):
        with monkeypatch.context() as patch:
            patch.setattr(ledger.journal, "append", lossy)
            with pytest.raises(StorageFailed):
                told()
        clock.at += SECOND
        assert told()
    assert [work.state for work in turns.known()] == ["done"]
    assert ledger.verify().count == 4


class Holders(RuleBasedStateMachine):
    """Three processes and a clock; after every step at most one of them may believe that it holds the work."""

    url = ""
    number = 0

    @initialize()
    def begin(self) -> None:
        type(self).number += 1
        self.what, self.clock = f"run {self.number}", Clock()
        self.ledgers = [Ledger(self.url) for _ in range(3)]
        self.turns = [Turns(ledger, NAME, self.clock, LEASE, attempts=4) for ledger in self.ledgers]
        self.held: list[tuple[Turn, int]] = []
        self.attempts: list[int] = []
        self.ended = False

    @rule(who=st.integers(0, 2))
    def take(self, who: int) -> None:
        free = not self.ended and not self.living()
        turn = self.turns[who].take(self.what)
        assert (turn is not None) == (free and len(self.attempts) < 4)
        if turn is not None:
            self.attempts.append(turn.attempt)
            self.held.append((turn, self.clock.at + LEASE * SECOND))
        elif free:
            self.ended = True

    @rule(seconds=st.sampled_from([1, LEASE - 1, LEASE]))
    def wait(self, seconds: int) -> None:
        self.clock.at += seconds * SECOND

    @precondition(lambda self: self.held)
    @rule(back=st.integers(1, 3), does=st.sampled_from(["renew", "done", "failed"]))
    def go_on(self, back: int, does: str) -> None:
        turn, _ = self.held[-back % len(self.held)]
        mine = turn is self.held[-1][0] and not self.ended and not self.over(turn)
        answer = turn.failed("x") if does == "failed" else turn.done() if does == "done" else turn.renew()
        if mine:
            assert answer
            self.held[-1] = turn, (self.clock.at + LEASE * SECOND if does == "renew" else 0)
            self.ended = does == "done" or (does == "failed" and turn.attempt == 4)
        elif turn is not self.held[-1][0]:
            assert answer == (turn._work.state == {"done": "done", "failed": "failed"}.get(does))

    @invariant()
    def attempts_count_up(self) -> None:
        if hasattr(self, "attempts"):
            assert self.attempts == list(range(1, len(self.attempts) + 1))

    def over(self, turn: Turn) -> bool:
        return self.held[-1] == (turn, 0)

    def living(self) -> bool:
        return bool(self.held) and self.clock.at < self.held[-1][1]

    def teardown(self) -> None:
        for ledger in getattr(self, "ledgers", ()):
            ledger.verify()
            ledger.close()


def test_there_is_never_more_than_one_holder(database: str) -> None:
    calm = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(type("OnThis", (Holders,), {"url": database}), settings=calm)


def test_processes_that_race_hold_it_one_at_a_time(database: str, tmp_path: Path) -> None:
    """Inside a turn each makes a file that must not be there; whoever finds it there ends with an error."""
    program = f"""
import os, sys
from mlops.journaling.ledger import Ledger
from mlops.alerting.turns import Turns
turns = Turns(Ledger(sys.argv[1]), "{NAME}", lease_seconds=600, attempts=10**9)
print("ready", flush=True)
sys.stdin.readline()
held = 0
while held < 15:
    turn = turns.take("run")
    if turn is not None:
        os.close(os.open(sys.argv[2], os.O_CREAT | os.O_EXCL))
        held += turn.renew()
        os.unlink(sys.argv[2])
        assert turn.failed("next, please")
print(sum(turns.take(str(number)) is not None for number in range(40)))
"""
    Ledger(database).close()
    running = [python(program, database, str(tmp_path / "inside")) for _ in range(3)]
    assert [line_of(one) for one in running] == ["ready"] * 3
    for one in running:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    won = [int(one.communicate(timeout=120)[0]) for one in running]
    assert [one.returncode for one in running] == [0] * 3
    assert sum(won) == 40
    opened = Ledger(database)
    assert next(work.attempt for work in Turns(opened, NAME).known("run")) == 45
    opened.close()


def test_the_turn_of_a_killed_process_is_taken_over_after_its_lease(ledger: Ledger, database: str) -> None:
    program = f"""
import sys
from mlops.journaling.ledger import Ledger
from mlops.alerting.turns import Turns
print(Turns(Ledger(sys.argv[1]), "{NAME}", lease_seconds={LEASE}).take("run").attempt, flush=True)
sys.stdin.readline()
"""
    running = python(program, database)
    assert line_of(running) == "1"
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=60)
    clock = Clock()
    clock.at = time.time_ns() // 1_000
    turns = Turns(ledger, NAME, clock, LEASE)
    assert turns.take("run") is None
    clock.at += LEASE * SECOND
    turn = taken(turns, "run")
    assert turn.attempt == 2
    assert turn.done()
