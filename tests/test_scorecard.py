"""The scorecard: every test that it names is there, and a test that did not pass turns its row red."""

import ast
from pathlib import Path

import pytest

from scripts import scorecard
from scripts.scorecard import PRINCIPLES, Principle
from tests.conftest import ROOT

LINES = """
def test_good(): pass
def test_bad(): assert False
def test_left_out():
    import pytest
    pytest.skip("nothing here")
"""


def test_there_are_seven_principles_and_every_test_that_they_name_is_there() -> None:
    assert len({principle.name for principle in PRINCIPLES}) == 7
    for principle in PRINCIPLES:
        assert principle.chosen
        for file, tests in principle.tests.items():
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert set(tests) <= {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}, file


@pytest.mark.parametrize(("test", "code"), [("test_good", 0), ("test_bad", 1), ("test_left_out", 1), ("test_gone", 1)])
def test_what_did_not_pass_is_not_green(
    test: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_own.py").write_text(LINES)
    monkeypatch.setattr(scorecard, "ROOT", tmp_path)
    monkeypatch.setattr(scorecard, "PRINCIPLES", [Principle("one", "a claim", {"test_own.py": [test]})])
    assert scorecard.main() == code
    said = capsys.readouterr().out
    assert ("1 of 1" in said) == (code == 0)
