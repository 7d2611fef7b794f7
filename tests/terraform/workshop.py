"""Copies of terraform/ in a test's own folder, the program that reads them, and where its provider lies."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from infra import lambda_package
from tests.conftest import ROOT
from tests.services import missing

SOURCE = ROOT / "terraform"
PROVIDER = "registry.terraform.io/hashicorp/aws"
PLACES = (
    str(ROOT / "var" / "terraform-providers"), "~/.terraform.d", "~/.terraform.d/*", "/usr/share/terraform/*",
    "/usr/local/share/terraform/*", "/opt/*", "/opt/*/*",
)  # fmt: skip
"""Where folders of plugins lie on most machines."""
PATIENCE = 280
"""Seconds that a command may take."""
ANSWERS = {"my_ip_cidr": "203.0.113.7/32", "repository_url": "https://example.com/team/mlops-platform.git"}
"""The two questions that have no answer of their own."""


class Copy:
    """A copy of terraform/ with what it reads from beside it, in which the program may write."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder, self._environment = folder / "terraform", dict(environment or {})
        copy_files(folder)

    def run(self, *words: str, good: tuple[int, ...] = (0,)) -> "subprocess.CompletedProcess[str]":
        """Run the program; a test fails where its exit code is none of the good ones."""
        done = terraform(self.folder, *words, environment=self._environment)
        assert done.returncode in good, f"terraform {words[0]}: {done.stdout[-4_000:]}"
        return done

    def init(self) -> "Copy":
        """Get the provider from its folder and nothing from anywhere else."""
        self.run("init", "-input=false", f"-plugin-dir={plugins()}")
        return self

    def show(self, *words: str) -> dict[str, Any]:
        """What a plan or the state holds."""
        found: dict[str, Any] = json.loads(self.run("show", "-json", *words).stdout)
        return found


def copy_files(folder: Path, name: str = "terraform") -> None:
    """Copy terraform/ as `name` and what it reads into a folder."""
    shutil.copytree(SOURCE, folder / name, ignore=shutil.ignore_patterns(".terraform", "*.tfstate*", "*.tfvars"))
    (folder / "infra").mkdir(exist_ok=True)
    shutil.copy(ROOT / "infra" / "bootstrap.sh", folder / "infra")
    (folder / "dist").mkdir(exist_ok=True)
    (folder / "dist" / "lambda.zip").write_bytes(lambda_package.packed(lambda_package.SOURCE.read_bytes()))


def terraform(
    folder: Path, *words: str, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run the program in a folder, without the caller's own settings and credentials."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TF_"))}
    told = {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "TF_CLI_ARGS": "-no-color"}
    return subprocess.run(
        [program(), *words], cwd=folder, env={**kept, **told, **(environment or {})}, text=True, timeout=PATIENCE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip


@cache
def program() -> str:
    """The program; no package registry has it."""
    found = shutil.which("terraform")
    if found is None:
        missing("there is no terraform on the PATH; see https://developer.hashicorp.com/terraform/install")
    return found


@cache
def plugins() -> Path:
    """The folder in which the provider lies unpacked."""
    if told := os.environ.get("TERRAFORM_PLUGIN_DIR"):
        return Path(told)
    places = (str(Path(place).expanduser()).lstrip("/") for place in PLACES)
    found = [folder for place in places for folder in sorted(Path("/").glob(place)) if (folder / PROVIDER).is_dir()]
    if not found:
        missing(
            "the provider hashicorp/aws lies in no folder; make one: "
            "terraform -chdir=terraform providers mirror FOLDER, and set TERRAFORM_PLUGIN_DIR=FOLDER"
        )
    return found[0]


def checkov(folder: Path) -> list[dict[str, Any]]:
    """What checkov says of a folder: each check with its result, the resource and the file."""
    beside = ROOT / ".venv-tools" / "bin" / "checkov"
    found = str(beside) if beside.exists() else shutil.which("checkov")
    if found is None:
        missing("there is no checkov; install it into .venv-tools: make tools")
    words = ["--framework", "terraform", "--skip-download", "--compact", "--output", "json", "--soft-fail"]
    done = subprocess.run(
        [found, "--directory", str(folder), *words], text=True, capture_output=True, timeout=PATIENCE, check=True
    )
    results = json.loads(done.stdout)["results"]
    return [one for kind in ("passed_checks", "failed_checks", "skipped_checks") for one in results[kind]]
