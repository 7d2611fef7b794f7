"""What can be said of the files without any AWS: form, validity, what they plan and refuse, checkov, our own rules."""

import re
from importlib.util import find_spec
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.terraform import rules
from tests.terraform.workshop import SOURCE, Copy, checkov, terraform

pytestmark = pytest.mark.infra

REQUIRED = {
    "CKV_AWS_7", "CKV_AWS_8", "CKV_AWS_21", "CKV_AWS_24", "CKV_AWS_26", "CKV_AWS_27", "CKV_AWS_51", "CKV_AWS_53",
    "CKV_AWS_54", "CKV_AWS_55", "CKV_AWS_56", "CKV_AWS_79", "CKV_AWS_88", "CKV_AWS_116", "CKV_AWS_117", "CKV_AWS_136",
    "CKV_AWS_145", "CKV_AWS_149", "CKV_AWS_158", "CKV_AWS_163", "CKV_AWS_173", "CKV_AWS_185", "CKV_AWS_297",
    "CKV_AWS_300", "CKV_AWS_356", "CKV_AWS_382", "CKV2_AWS_5", "CKV2_AWS_6", "CKV2_AWS_11", "CKV2_AWS_12",
    "CKV2_AWS_41", "CKV2_AWS_61", "CKV2_AWS_62", "CKV2_AWS_64",
}  # fmt: skip
"""Checks that have to be made and passed: one that is no longer made says nothing, and looks like one that passed."""
SKIPPED = {
    ("CKV_AWS_18", "aws_s3_bucket"), ("CKV_AWS_144", "aws_s3_bucket"), ("CKV_AWS_115", "aws_lambda_function"),
    ("CKV_AWS_272", "aws_lambda_function"), ("CKV_AWS_370", "aws_sagemaker_model"),
    ("CKV2_AWS_57", "aws_secretsmanager_secret"), ("CKV_AWS_109", "aws_iam_policy_document"),
    ("CKV_AWS_111", "aws_iam_policy_document"), ("CKV_AWS_356", "aws_iam_policy_document"),
}  # fmt: skip
"""Checks that are left out, each with its reason beside the resource."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("static")).init()


def test_the_files_are_in_their_form() -> None:
    done = terraform(SOURCE, "fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, done.stdout


def test_the_lock_file_names_the_provider_that_is_used(copy: Copy) -> None:
    name = ".terraform.lock.hcl"
    assert (copy.folder / name).read_text() == (SOURCE / name).read_text()


def test_the_configuration_is_valid(copy: Copy) -> None:
    copy.run("validate")


def test_it_plans_what_the_specification_says_and_refuses_what_is_wrong(copy: Copy) -> None:
    done = copy.run("test")
    assert "10 passed, 0 failed" in done.stdout
    print(done.stdout)


def test_checkov_finds_nothing_that_is_not_explained() -> None:
    by: dict[str, list[dict[str, Any]]] = {"PASSED": [], "FAILED": [], "SKIPPED": []}
    for one in checkov(SOURCE):
        by[one["check_result"]["result"]].append(one)
    print({kind: len(those) for kind, those in by.items()})
    assert [(one["check_id"], one["resource"]) for one in by["FAILED"]] == []
    assert {one["check_id"] for one in by["PASSED"]} >= REQUIRED
    assert {(one["check_id"], one["resource"].split(".")[0]) for one in by["SKIPPED"]} == SKIPPED
    assert all(len(one["check_result"]["suppress_comment"].strip()) >= 8 for one in by["SKIPPED"])


def test_the_daily_check_runs_a_service_of_the_stack() -> None:
    command = re.search(r"--entrypoint python (\S+) -m (\S+) --once", (SOURCE / "alerts.tf").read_text())
    assert command is not None
    assert command[1] in yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())["services"]
    assert find_spec(command[2]) is not None


def test_our_own_rules_find_nothing() -> None:
    assert rules.broken(SOURCE) == []
