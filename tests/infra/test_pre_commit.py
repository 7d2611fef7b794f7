"""The hooks before a commit: each stops what it is there to stop, and lets the rest pass."""

from pathlib import Path

import yaml

from tests.conftest import ROOT
from tests.infra.house import WORKFLOW, House

HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
WORKFLOW_TEXT = (ROOT / WORKFLOW).read_text(encoding="utf-8")
UNTIDY = {
    "notebooks/much.csv": "\0" * 2**20 + "\n",
    "infra/.settings": "key: AKIA" + "Q3EGRT7YHUJ2K5LM\n",
    "docs/page.md": "<<<<<<< ours\none\n=======\nother\n>>>>>>> theirs\n",
    WORKFLOW: WORKFLOW_TEXT.replace("permissions: {}", "permissions: write-all"),
    "modules/other/Dockerfile": "FROM python\n",
}
SAID = {
    "notebooks/much.csv",
    "infra/.settings:1",
    "docs/page.md:1: leftover conflict marker",
    "excessive-permissions",
    "hadolint modules/fraud_detection/Dockerfile",
}


def commit(house: House) -> tuple[int, str]:
    """Run the hooks over all that git holds; without `make check`, which looks at the whole program."""
    cache = str(house.folder / ".git" / "pre-commit")
    done = house.run(".venv/bin/pre-commit", "run", "--all-files", SKIP="check", PRE_COMMIT_HOME=cache)
    return done.returncode, done.stdout


def test_a_tidy_commit_passes(tmp_path: Path) -> None:
    code, said = commit(House(tmp_path))
    assert code == 0, said
    assert "Failed" not in said


def test_what_is_untidy_is_stopped_each_by_its_hook_and_named(tmp_path: Path) -> None:
    house = House(tmp_path)
    for name, text in UNTIDY.items():
        house.write(name, text)
    code, said = commit(house)
    assert code != 0
    assert {one for one in SAID if one in said} == SAID
    assert said.count("Failed") == len(HOOKS) - 1


def test_every_word_of_make_in_a_hook_is_one_that_ci_runs() -> None:
    words = [hook["entry"] for hook in HOOKS if hook["entry"].startswith("make ")]
    assert words
    assert [word for word in words if f"run: {word}\n" not in WORKFLOW_TEXT] == []


def test_nothing_is_fetched() -> None:
    assert {hook["language"] for hook in HOOKS} == {"system"}
