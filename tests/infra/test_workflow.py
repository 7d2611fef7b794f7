"""The workflow of GitHub: it runs words of the Makefile, may do little, and every damage to it is noticed."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.infra.house import WORKFLOW, House

TEXT = (ROOT / WORKFLOW).read_text(encoding="utf-8")
WORDS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
MAIN, PULL = "refs/heads/main", "refs/pull/7/merge"
ROLE = "arn:aws:iam::123456789012:role/mlops-github"
EVENTS = {
    "a pull request": ("pull_request", PULL, ROLE, False),
    "a push to another branch": ("push", "refs/heads/other", ROLE, False),
    "a push to main": ("push", MAIN, ROLE, False),
    "a push to main without a role": ("push", MAIN, "", False),
    "a Monday": ("schedule", MAIN, ROLE, False),
    "by hand": ("workflow_dispatch", MAIN, ROLE, False),
    "by hand, to train": ("workflow_dispatch", MAIN, ROLE, True),
    "by hand, to train, without a role": ("workflow_dispatch", MAIN, "", True),
    "by hand on another branch, to train": ("workflow_dispatch", "refs/heads/other", ROLE, True),
}
CHECKS = {
    "check", "test", "infra-test", "monitoring-test", "images-test", "workflow-check", "docker-check", "secrets-scan",
    "audit", "sbom",
}  # fmt: skip
PUSHES = {"a push to main", "by hand", "by hand, to train"}
TRAINS = {"by hand, to train"}

CHECKOUT = next(line.partition("uses: ")[2] for line in TEXT.splitlines() if "actions/checkout@" in line)
WRITE = "contents: read # the checkout", "contents: write # the checkout"
MUTANTS = {
    "a tag in the place of a hash": (CHECKOUT, "actions/checkout@v6", "is not pinned"),
    "a short hash": (CHECKOUT, CHECKOUT.replace(CHECKOUT[24:57], ""), "is not pinned"),
    "a hash without its version": (CHECKOUT, CHECKOUT.partition(" #")[0], "is not pinned"),
    "rights to everything": ("permissions: {}", "permissions: write-all", "permissions at the top"),
    "a job that writes": (*WRITE, "check may contents: write"),
    "a token for the tests": (
        "contents: read # the checkout\n    strategy",
        "id-token: write\n    strategy",
        "test may id-token: write",
    ),
    "credentials that stay": ("persist-credentials: false", "persist-credentials: true", "keeps its credentials"),
    "logic in the workflow": ("run: make check", "run: curl -s example.org | sh", "is no word of the Makefile"),
    "a word that is not there": ("run: make check", "run: make chekc", "is no word of the Makefile"),
    "a branch's name in a shell": (
        "run: make check",
        "run: make check ${{ github.head_ref }}",
        "is no word of the Makefile",
    ),
    "a stored key": (
        "role-to-assume: ${{ vars.AWS_ROLE_ARN }}",
        "aws-secret-access-key: ${{ secrets.KEY }}",
        "names a secret",
    ),
    "a foreign pull request with our rights": ("  pull_request:\n", "  pull_request_target:\n", "events"),
    "a push from a pull request": (
        "github.ref == 'refs/heads/main' && github.event_name",
        "github.event_name",
        "push runs at",
    ),
    "a push without a role": (" && vars.AWS_ROLE_ARN != ''", "", "push runs at"),
    "training that nobody asked for": (" && inputs.train_on_sagemaker", "", "train runs at"),
    "a push before the tests": ("[check, test, infra, images, audit]", "[check, infra, images, audit]", "wait for"),
    "a push in spite of failures": ("if: github.ref", "if: always() && github.ref", "in spite of"),
    "a step that may fail": (
        "      - run: make check\n",
        "      - run: make check\n        continue-on-error: true\n",
        "may fail",
    ),
    "a job without an end": ("    timeout-minutes: 15\n", "", "has no time-out"),
    "a machine of somebody": ("runs-on: ubuntu-24.04", "runs-on: self-hosted", "runs on"),
}


def complaints(text: str) -> list[str]:
    """Say all that is wrong with a workflow."""
    flow = yaml.load(text, Loader=yaml.BaseLoader)
    found = [
        f"{line.strip()} is not pinned" for line in re.findall("^.*uses:.*$", text, re.MULTILINE) if not pinned(line)
    ]
    if set(flow["on"]) != {"pull_request", "push", "schedule", "workflow_dispatch"} or flow["on"]["push"] != {
        "branches": ["main"]
    }:
        found.append(f"events: {flow['on']}")
    if flow["permissions"] != {}:
        found.append("permissions at the top")
    if "secrets." in text:
        found.append("it names a secret")
    for name, job in flow["jobs"].items():
        found += complaints_of_job(name, job)
    gates = set(flow["jobs"]) - {"push", "train"}
    if set(flow["jobs"]["push"]["needs"]) != gates:
        found.append(f"push has to wait for {sorted(gates)}")
    for name, due in {"push": PUSHES, "train": TRAINS}.items():
        runs = {event for event in EVENTS if would_run(flow["jobs"], name, event)}
        if runs != due:
            found.append(f"{name} runs at {sorted(runs)}")
    return found


def pinned(line: str) -> bool:
    return re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line) is not None


def complaints_of_job(name: str, job: dict[str, Any]) -> Iterator[str]:
    rights = {"contents": "read"} | ({"id-token": "write"} if name in ("push", "train") else {})
    for right, kind in job.get("permissions", {"everything": "as the repository says"}).items():
        if rights.get(right) != kind:
            yield f"{name} may {right}: {kind}"
    if not int(job.get("timeout-minutes", 0)):
        yield f"{name} has no time-out"
    if not re.fullmatch(r"ubuntu-\d\d\.04", job["runs-on"]):
        yield f"{name} runs on {job['runs-on']}"
    if re.search(r"always|failure|cancelled", job.get("if", "")):
        yield f"{name} runs in spite of failures"
    for step in job["steps"]:
        if "uses" not in step and not (step["run"].startswith("make ") and step["run"][5:] in WORDS):
            yield f"{step['run']} is no word of the Makefile"
        if "checkout" in step.get("uses", "") and step.get("with", {}).get("persist-credentials") != "false":
            yield f"{name} keeps its credentials"
        if "continue-on-error" in {**job, **step}:
            yield f"{name} may fail"


def would_run(jobs: dict[str, Any], name: str, event: str) -> bool:
    """Say whether a job runs at an event, when every job succeeds: GitHub's conditions, read by Python."""
    job = jobs[name]
    needs = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
    kind, ref, role, train = EVENTS[event]
    names = {
        "github": SimpleNamespace(event_name=kind, ref=ref),
        "vars": SimpleNamespace(AWS_ROLE_ARN=role),
        "inputs": SimpleNamespace(train_on_sagemaker=train),
        "always": lambda: True,
    }
    condition = job.get("if", "True").replace("&&", "and").replace("||", "or")
    return bool(eval(condition, names)) and all(would_run(jobs, one, event) for one in needs)


def test_the_workflow_runs_words_of_the_makefile_with_few_rights_and_pushes_only_what_passed_on_main() -> None:
    assert complaints(TEXT) == []


@pytest.mark.parametrize("name", MUTANTS)
def test_a_damage_to_the_workflow_is_noticed(name: str) -> None:
    before, after, complaint = MUTANTS[name]
    assert before in TEXT
    found = complaints(TEXT.replace(before, after, 1))
    assert any(complaint in one for one in found), found


def test_all_checks_of_ci_run_at_every_pull_request() -> None:
    jobs = yaml.safe_load(TEXT)["jobs"]
    runs = {step["run"] for name, job in jobs.items() if "if" not in job for step in job["steps"] if "run" in step}
    assert runs >= {f"make {word}" for word in CHECKS}
    assert set(jobs["test"]["strategy"]["matrix"]["python"]) == {"3.11", "3.12", "3.13"}


def test_the_schemas_and_zizmor_find_nothing(tmp_path: Path) -> None:
    done = House(tmp_path).make("workflow-check")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        (CHECKOUT, "actions/checkout@v6", "unpinned-uses"),
        ("permissions: {}", "permissions: write-all", "excessive-permissions"),
        ("run: make check", "run: make check ${{ github.head_ref }}", "template-injection"),
        ("  pull_request:\n", "  pull_request_target:\n", "dangerous-triggers"),
        ("runs-on: ubuntu-24.04", "run-on: ubuntu-24.04", "runs-on"),
    ],
)
def test_the_schemas_and_zizmor_notice_a_damage(before: str, after: str, complaint: str, tmp_path: Path) -> None:
    house = House(tmp_path)
    house.write(WORKFLOW, TEXT.replace(before, after, 1))
    done = house.make("workflow-check")
    assert done.returncode != 0
    assert complaint in done.stdout
