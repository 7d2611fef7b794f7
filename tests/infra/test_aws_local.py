"""The profile `aws` from end to end on local servers, as `make aws-local` runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra import aws_local, local_servers
from mlops.errors import BadInput
from tests.conftest import ROOT
from tests.redis_server import program

LAYOUT = ["data/raw", "data/processed", "models", "monitoring", "drift_reports", "explanations"]
"""The folders of the bucket that the specification names."""


@pytest.mark.no_cover
def test_raw_data_becomes_a_version_a_stream_becomes_decisions_and_drift_becomes_a_candidate(tmp_path: Path) -> None:
    program()
    found = subprocess.run(
        [sys.executable, "-m", "infra.aws_local"], cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    steps = [line.split()[0] for line in found.stdout.splitlines()]
    assert steps == ["made", "trained", "decided", "alerted", "exported", "stored", "live", "secret"]
    assert "3,000 of 3,000 records" in found.stdout
    stored = next(line for line in found.stdout.splitlines() if line.startswith("stored"))
    assert re.findall(r"(\S+)/ \d+", stored) == LAYOUT


def test_a_step_that_fails_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing() -> str:
        raise BadInput("there is no redis-server; install it: make .venv/dev")

    monkeypatch.setattr(local_servers, "_redis_program", nothing)
    assert aws_local.main([]) == 1
    assert capsys.readouterr().err == "error: there is no redis-server; install it: make .venv/dev\n"
