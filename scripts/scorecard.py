"""python scripts/scorecard.py: seven principles of MLOps, the tests that prove each here, run now, and how they went.

The principles are those of ml-ops.org. A row claims what its tests do; without a passed test it is not green.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as Xml

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
BAD = ("failure", "error", "skipped")


@dataclass(frozen=True)
class Principle:
    """A principle, what of it is claimed, and the tests of each file that prove the claim."""

    name: str
    claim: str
    tests: Mapping[str, Sequence[str]]

    @property
    def chosen(self) -> list[str]:
        """The tests as pytest names them."""
        return [f"{file}::{test}" for file, tests in self.tests.items() for test in tests]


PRINCIPLES = (
    Principle(
        "iterative, incremental",
        "another module, or another kind of model, is added without a change elsewhere; two versions are compared live",
        {
            "tests/test_contract.py": [
                "test_its_pipeline_makes_a_version_whose_files_lie_where_the_layout_says",
                "test_a_second_version_answers_its_share_and_is_taken_back",
            ],
            "tests/fraud_detection/test_models.py": ["test_a_third_kind_is_one_file"],
            "tests/test_canary.py": ["test_an_ab_test_has_a_challenger_and_a_shadow_answers_nobody"],
        },
    ),
    Principle(
        "automation",
        "one command makes a version; drift starts a retraining without a hand",
        {
            "tests/test_run_pipeline.py": ["test_every_phase_leaves_its_product_where_the_layout_says"],
            "tests/test_scheduler.py": ["test_drift_goes_to_a_topic_and_from_its_queue_to_a_real_retraining"],
        },
    ),
    Principle(
        "continuous deployment",
        "a gate refuses what is worse; a canary meets its share; every worker follows a rollback within two seconds",
        {
            "tests/test_loop.py": ["test_a_worse_version_is_refused_with_reasons_unless_forced_with_a_reason"],
            "tests/test_canary.py": [
                "test_a_canary_meets_its_share_and_everybody_stays_until_it_is_taken_back",
                "test_every_worker_follows_a_weight_and_a_rollback_within_two_seconds",
            ],
        },
    ),
    Principle(
        "versioning",
        "a decision leads back to the commit, the configuration, the model, the features and the raw bytes, by hash",
        {
            "tests/test_run_pipeline.py": [
                "test_a_decision_leads_back_to_the_raw_bytes", "test_changed_raw_bytes_break_the_chain_by_name",
            ],
        },
    ),
    Principle(
        "testing",
        "data, model and infrastructure: bad rows, the future, planted bugs and small damages are caught",
        {
            "tests/test_run_pipeline.py": ["test_too_many_bad_rows_stop_the_run_after_they_were_put_away"],
            "tests/fraud_detection/test_features.py": [
                "test_deleting_all_later_rows_and_labels_changes_no_earlier_feature",
            ],
            "tests/test_train.py": ["test_the_model_beats_guessing_and_the_loss_falls_as_trees_are_added"],
            "tests/infra/test_compose.py": ["test_nothing_is_wrong_with_any_service", "test_each_damage_is_noticed"],
        },
    ),
    Principle(
        "reproducibility",
        "the same data and settings make the same model; a decision is explained later as it was made",
        {
            "tests/test_contract.py": [
                "test_the_same_data_and_settings_make_the_same_model",
                "test_the_parts_of_a_decision_add_up_and_are_the_same_later",
            ],
            "tests/test_predict.py": ["test_a_decision_is_explained_exactly_as_it_was_made"],
        },
    ),
    Principle(
        "monitoring",
        "drift, slow answers and rollbacks are told, drift once; what is counted is right with two workers",
        {
            "tests/test_scheduler.py": [
                "test_drift_is_told_once_with_what_and_where_and_asks_for_retraining_while_it_lasts",
                "test_answers_that_are_slow_for_minutes_alarm_and_a_slow_one_does_not", "test_a_rollback_is_told",
            ],
            "tests/test_faults.py": ["test_several_workers_count_every_answer_once_even_when_one_is_killed"],
        },
    ),
)  # fmt: skip


def main() -> int:
    """Run the tests and print a row for each principle; return 0 where all are green."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        chosen = sorted({one for principle in PRINCIPLES for one in principle.chosen})
        options = ["-q", "-n", "auto", "--dist", "worksteal", "-p", "no:cacheprovider", f"--junitxml={report}"]
        done = subprocess.run([sys.executable, "-m", "pytest", *options, *chosen], cwd=ROOT, check=False, text=True,
            capture_output=True)  # fmt: skip
        if not report.exists():
            print(done.stdout + done.stderr, file=sys.stderr)
            return 1
        went = results(report)
    table = Table(title="Seven principles", title_justify="left", show_lines=True)
    for heading in ("principle", "what is claimed", "tests", "what proves it: python -m pytest"):
        table.add_column(heading, overflow="fold")
    green = True
    for principle in PRINCIPLES:
        mine = {name: well for name, well in went.items() if name.split("[")[0] in principle.chosen}
        whole = bool(mine) and all(mine.values())
        green &= whole
        counted = f"[{'green' if whole else 'red'}]{sum(mine.values())} of {len(mine)}"
        table.add_row(principle.name, principle.claim, counted, "\n".join(principle.chosen))
    Console().print(table)
    if not green:
        print(done.stdout, file=sys.stderr)
    return 0 if green else 1


def results(report: Path) -> dict[str, bool]:
    """Read from a report in JUnit's form whether each test passed, by its name with its file."""
    found = {}
    for case in Xml.parse(report).iter("testcase"):  # noqa: S314 - written a moment ago by our own process
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        found[name] = not any(case.find(kind) is not None for kind in BAD)
    return found


if __name__ == "__main__":
    sys.exit(main())
