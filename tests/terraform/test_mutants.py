"""Small damages to the files, such as happen: each is caught, by the cheapest check that sees it."""

import re
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.terraform import rules
from tests.terraform.workshop import SOURCE, checkov, copy_files, plugins, terraform

pytestmark = pytest.mark.infra

ROOT_MODULE = """
terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}
"""
REFUSAL = """
run "a_whole_network" {
  command = plan
  variables {
    my_ip_cidr = "203.0.113.0/24"
  }
  expect_failures = [var.my_ip_cidr]
}
"""
OPERATOR = 'resource "aws_vpc_security_group_ingress_rule" "operator"'
REDIS = """
resource "aws_vpc_security_group_ingress_rule" "redis" {
  security_group_id = aws_security_group.node.id
  description       = "Redis"
  cidr_ipv4         = "0.0.0.0/1"
  ip_protocol       = "tcp"
  from_port         = 6379
  to_port           = 6379
}

"""


class Mutant(NamedTuple):
    """A damage: some text of a file is replaced, once."""

    name: str
    file: str
    find: str
    replace: str


WHOLE = Mutant("nothing", "ec2.tf", "t", "t")
"""No damage: were it caught, the others would be caught for nothing."""
MUTANTS = (
    Mutant("API open to the world", "network.tf", "= var.my_ip_cidr", '= "0.0.0.0/0"'),
    Mutant("Redis open to half of the world", "network.tf", OPERATOR, REDIS + OPERATOR),
    Mutant("somebody's address by default", "variables.tf", "  type        = string\n",
           '  type        = string\n  default     = "203.0.113.7/32"\n'),
    Mutant("another port opened", "network.tf", '9090 = "Prometheus"', '9090 = "Prometheus"\n    9100 = "Node"'),
    Mutant("any network accepted", "variables.tf", 'regex("/32$"', 'regex("/[0-9]+$"'),
    Mutant("metadata without a token", "ec2.tf", '"required"', '"optional"'),
    Mutant("containers without credentials", "ec2.tf", "hop_limit = 2", "hop_limit = 1"),
    Mutant("root disk not encrypted", "ec2.tf", "    encrypted   = true\n", ""),
    Mutant("a smaller disk", "ec2.tf", "volume_size = 30", "volume_size = 8"),
    Mutant("somebody else's Ubuntu", "ec2.tf", "099720109477", "679593333241"),
    Mutant("no versions", "s3.tf", 'status = "Enabled"', 'status = "Suspended"'),
    Mutant("a public bucket policy", "s3.tf", "block_public_policy     = true", "block_public_policy     = false"),
    Mutant("the rule of TLS turned round", "s3.tf", '["false"]', '["true"]'),
    Mutant("images that change", "ecr.tf", '"IMMUTABLE"', '"MUTABLE"'),
    Mutant("a whole service allowed", "iam.tf", '["sns:Publish"]', '["sns:*"]'),
    Mutant("PassRole for every role", "iam.tf", '"iam:PassRole"]\n    resources = [aws_iam_role.sagemaker.arn]',
           '"iam:PassRole"]\n    resources = ["arn:${local.aws}:iam::${local.account}:role/*"]'),
    Mutant("any branch pushes images", "github.tf", "ref:refs/heads/main", "*"),
    Mutant("full access by default", "iam.tf", "var.full_access ? local.full_access : []", "local.full_access"),
    Mutant("failures not told", "lambda.tf", '["ReportBatchItemFailures"]', "[]"),
    Mutant("retries for ever", "lambda.tf", "var.outage_hours * 60\n", "-1\n"),
    Mutant("records lost with the failure", "lambda.tf",
           "destination_arn = aws_s3_bucket.data.arn", "destination_arn = aws_sqs_queue.stream_dead.arn"),
    Mutant("others put alerts", "alerts.tf", '["sns.amazonaws.com"]', '["s3.amazonaws.com"]'),
    Mutant("a secret in the state", "secrets.tf", 'resource "aws_kms_alias"',
           'resource "aws_secretsmanager_secret_version" "x" {\n  secret_id     = "x"\n  secret_string = "x"\n}\n\n'
           'resource "aws_kms_alias"'),
    Mutant("the stream in the clear", "stream.tf", '"KMS"', '"NONE"'),
    Mutant("the topic in the clear", "alerts.tf", "  kms_master_key_id = aws_kms_key.main.arn\n", ""),
    Mutant("the queue hears what others say", "alerts.tf", "{ name = var.modules }", '{ state = ["raised"] }'),
    Mutant("an endpoint nobody asked for", "sagemaker.tf", "var.sagemaker_model == null ? {}", "false ? {}"),
    Mutant("a port of the wrong program", "outputs.tf", ":5000", ":3000"),
)  # fmt: skip


def test_every_small_damage_is_caught(tmp_path: Path) -> None:
    made = {mutant: tmp_path / f"m{number:02}" for number, mutant in enumerate((WHOLE, *MUTANTS))}
    for mutant, folder in made.items():
        _make(mutant, folder)
    caught: dict[Mutant, str] = {}
    for check in (_by_rules, _by_tests, _by_checkov):
        left = {mutant: folder for mutant, folder in made.items() if mutant not in caught}
        caught |= check(tmp_path, left)
    for mutant in made:
        print(f"{mutant.name:32} {caught.get(mutant, '-')}")
    assert WHOLE not in caught
    assert [mutant.name for mutant in MUTANTS if mutant not in caught] == []


def _make(mutant: Mutant, folder: Path) -> None:
    copy_files(folder.parent, folder.name)
    file = folder / mutant.file
    text = file.read_text()
    assert mutant.find in text, f"{mutant.name}: {mutant.file} does not hold {mutant.find!r}"
    file.write_text(text.replace(mutant.find, mutant.replace, 1))


def _by_rules(_folder: Path, left: Mapping[Mutant, Path]) -> dict[Mutant, str]:
    said = {mutant: rules.broken(folder) for mutant, folder in left.items()}
    return {mutant: f"own rule: {lines[0]}" for mutant, lines in said.items() if lines}


def _by_tests(folder: Path, left: Mapping[Mutant, Path]) -> dict[Mutant, str]:
    """One process plans all of them: to read the provider's schema takes longer than a plan."""
    root = folder / "root"
    (root / "tests").mkdir(parents=True)
    (root / "main.tf").write_text(ROOT_MODULE)
    shutil.copy(SOURCE / ".terraform.lock.hcl", root)
    for mutant, damaged in left.items():
        (root / "tests" / f"{damaged.name}.tftest.hcl").write_text(_asked_of(mutant, damaged.name))
    terraform(root, "init", "-input=false", f"-plugin-dir={plugins()}")
    said = terraform(root, "test").stdout
    parts = {name: said.partition(f"tests/{name}.tftest.hcl... in progress")[2] for name in map(_name, left.values())}
    assert all(parts.values()), said[-4_000:]
    return {mutant: f"terraform test: {why}" for mutant, damaged in left.items() if (why := _why(parts[damaged.name]))}


def _asked_of(mutant: Mutant, name: str) -> str:
    """The tests of the defaults, asked of a module; and a refusal, where it may not be what it was."""
    asked = (SOURCE / "tests" / "platform.tftest.hcl").read_text()
    if mutant.file in ("variables.tf", WHOLE.file):
        asked += REFUSAL
    return asked.replace("  command = plan\n", f'  command = plan\n\n  module {{\n    source = "../{name}"\n  }}\n')


def _why(said: str) -> str:
    """What the first failure of a test file says, if there is one."""
    own = said.partition("tearing down")[0]
    if "... fail" not in own:
        return ""
    known = re.findall(r'error_message = "(.+)"', (SOURCE / "tests" / "platform.tftest.hcl").read_text())
    errors = [line for line in own.splitlines() if line.startswith("Error: ")]
    return next((line for line in known if line in own), errors[0] if errors else "it fails")


def _by_checkov(folder: Path, left: Mapping[Mutant, Path]) -> dict[Mutant, str]:
    """One process looks at all of them."""
    shown = folder / "shown"
    shown.mkdir()
    for damaged in left.values():
        damaged.rename(shown / damaged.name)
    failed: dict[str, list[str]] = defaultdict(list)
    for one in checkov(shown):
        if one["check_result"]["result"] == "FAILED":
            failed[Path(one["file_path"]).parts[1]].append(f"{one['check_id']} {one['resource']}")
    return {mutant: f"checkov: {failed[damaged.name][0]}" for mutant, damaged in left.items() if failed[damaged.name]}


def _name(folder: Path) -> str:
    return folder.name
