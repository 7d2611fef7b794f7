"""Phases as they run: a list that a person can read, JSON lines for everything else."""

import io
import json
import re

import pytest
from rich.console import Console

from mlops import logs
from mlops.progress import Phases


def run(console: Console, stream: io.StringIO) -> None:
    with Phases(["data", "train"], logs.start("test", stream), console) as progress:
        for name in ("data", "train"):
            with progress.phase(name) as said:
                said.append(f"{name} is fine")


def test_where_nobody_watches_each_phase_is_one_line_of_json() -> None:
    stream = io.StringIO()
    run(Console(file=io.StringIO()), stream)
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["phase"], line["result"]) for line in found] == [("data", "data is fine"), ("train", "train is fine")]
    assert all(line["seconds"] >= 0 for line in found)


def test_on_a_terminal_each_phase_stands_with_what_it_said_and_nothing_is_logged() -> None:
    screen, stream = io.StringIO(), io.StringIO()
    run(Console(file=screen, force_terminal=True, width=60), stream)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    for name in ("data", "train"):
        assert re.search(rf"✓ {name} +\d:\d\d:\d\d {name} is fine", plain)
    assert stream.getvalue() == ""


def test_a_phase_that_fails_is_not_called_done_and_its_error_goes_on() -> None:
    stream = io.StringIO()
    progress = Phases(["data"], logs.start("test", stream), Console(file=io.StringIO()))
    with pytest.raises(ValueError, match="planted"), progress, progress.phase("data"):
        raise ValueError("planted")
    assert stream.getvalue() == ""
