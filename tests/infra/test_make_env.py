"""The script that makes .env: passwords are made up once, what is there stays, and nothing is left half done."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SECRET = r"[0-9a-f]{64}"
PROGRAMS = ("basename", "bash", "cat", "chmod", "cmp", "cut", "dirname", "env", "grep", "mktemp", "mv", "rm", "sed")
TEMPLATE = """# Which profile.
PROFILE=local

# MLOPS_SPLIT__TRAIN=14d
BUCKET=
REDIS_PASSWORD=
API_KEY_HASH="""


class Checkout:
    """A folder with the script and a template in it, and the programs that it may call."""

    def __init__(self, folder: Path, *makers: str) -> None:
        self.folder, self._bin = folder / "checkout", folder / "bin"
        (self.folder / "infra").mkdir(parents=True)
        self._bin.mkdir()
        for name in (*PROGRAMS, *makers):
            found = shutil.which(name)
            assert found is not None, name
            (self._bin / name).symlink_to(found)
        shutil.copy(ROOT / "infra" / "make_env.sh", self.folder / "infra")
        (self.folder / ".env.template").write_text(TEMPLATE)

    @property
    def file(self) -> Path:
        return self.folder / ".env"

    @property
    def values(self) -> dict[str, str]:
        lines = [line for line in self.file.read_text().splitlines() if re.match("[A-Z]", line)]
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def make(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run the script from another folder."""
        script = str(self.folder / "infra" / "make_env.sh")
        environment = {"PATH": str(self._bin), "HOME": "/"}
        return subprocess.run([script, *words], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path, "openssl")


def test_passwords_and_a_key_are_made_up_and_only_the_hash_of_the_key_is_kept(checkout: Checkout) -> None:
    done = checkout.make()
    assert (done.returncode, done.stderr) == (0, "")
    said, key = done.stdout.splitlines()[0], done.stdout.split()[-1]
    assert said == "wrote .env"
    assert re.fullmatch(SECRET, key)
    assert re.fullmatch(SECRET, checkout.values["REDIS_PASSWORD"])
    assert checkout.values["API_KEY_HASH"] == hashlib.sha256(key.encode()).hexdigest()
    assert checkout.values["PROFILE"] == "local"
    assert checkout.values["BUCKET"] == ""
    assert key not in checkout.file.read_text()
    assert stat.S_IMODE(checkout.file.stat().st_mode) == 0o600


def test_a_second_time_changes_and_says_nothing(checkout: Checkout) -> None:
    checkout.make()
    before = checkout.file.read_bytes(), checkout.file.stat().st_mtime_ns
    done = checkout.make()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (checkout.file.read_bytes(), checkout.file.stat().st_mtime_ns) == before


def test_what_is_there_stays_and_what_is_missing_is_added(checkout: Checkout) -> None:
    checkout.file.write_text("# mine\nREDIS_PASSWORD=chosen\nMLOPS_SPLIT__TRAIN=14d\nPROFILE=aws")
    checkout.file.chmod(0o644)
    assert checkout.make().returncode == 0
    assert checkout.file.read_text().startswith("# mine\nREDIS_PASSWORD=chosen\nMLOPS_SPLIT__TRAIN=14d\nPROFILE=aws\n")
    assert checkout.values.keys() == {"REDIS_PASSWORD", "MLOPS_SPLIT__TRAIN", "PROFILE", "BUCKET", "API_KEY_HASH"}
    assert stat.S_IMODE(checkout.file.stat().st_mode) == 0o600


def test_a_template_that_was_copied_by_hand_is_filled_in(checkout: Checkout) -> None:
    shutil.copy(checkout.folder / ".env.template", checkout.file)
    assert "API key" in checkout.make().stdout
    assert re.fullmatch(SECRET, checkout.values["REDIS_PASSWORD"])


def test_an_argument_sets_a_variable_whatever_it_was(checkout: Checkout) -> None:
    checkout.make("BUCKET=first", "PROFILE=aws")
    kept = checkout.values["REDIS_PASSWORD"]
    done = checkout.make("BUCKET=second", "MLOPS_SPLIT__TRAIN=14d")
    assert (done.returncode, done.stdout) == (0, "wrote .env\n")
    assert checkout.values["BUCKET"] == "second"
    assert checkout.values["MLOPS_SPLIT__TRAIN"] == "14d"
    assert (checkout.values["PROFILE"], checkout.values["REDIS_PASSWORD"]) == ("aws", kept)
    assert checkout.make("BUCKET=").returncode == 0
    assert checkout.values["BUCKET"] == ""


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("BUKET=x", "error: .env.template knows no 'BUKET'; correct its spelling"),
        ("--force", "error: '--force' sets nothing; write NAME=VALUE"),
        ("bucket=x", "error: 'bucket=x' sets nothing; write NAME=VALUE"),
        ("BUCKET=a b", "error: 'BUCKET' can hold letters, digits and _./:@,+*- only, and not 'a b'"),
        ("BUCKET=$(x)", "error: 'BUCKET' can hold letters, digits and _./:@,+*- only, and not '$(x)'"),
        ("BUCKET=a\nPROFILE=b", "error: 'BUCKET' can hold letters, digits and _./:@,+*- only, and not 'a\nPROFILE=b'"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(checkout: Checkout, word: str, said: str) -> None:
    done = checkout.make("PROFILE=aws", word)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{said}\n")
    assert not checkout.file.exists()


def test_python_makes_passwords_where_there_is_no_openssl(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    (tmp_path / "bin" / "python3").symlink_to(os.path.realpath(sys.executable))
    done = checkout.make()
    assert (done.returncode, done.stderr) == (0, "")
    assert checkout.values["API_KEY_HASH"] == hashlib.sha256(done.stdout.split()[-1].encode()).hexdigest()


def test_without_either_and_without_a_template_it_says_what_is_missing(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    done = checkout.make()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: there is neither openssl nor python3 to make passwords with; install one of them\n"
    (checkout.folder / ".env.template").unlink()
    assert checkout.make().stderr == "error: there is no .env.template to make .env from\n"


def test_where_it_fails_in_the_middle_the_old_file_stays_and_nothing_lies_about(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    broken = tmp_path / "bin" / "openssl"
    broken.write_text("#!/usr/bin/env bash\nexit 1\n")
    broken.chmod(0o755)
    checkout.file.write_text("PROFILE=aws\n")
    done = checkout.make()
    said = "error: no password can be made: openssl, or python3 without it, does not work\n"
    assert (done.returncode, done.stderr) == (1, said)
    assert checkout.file.read_text() == "PROFILE=aws\n"
    assert sorted(path.name for path in checkout.folder.iterdir()) == [".env", ".env.template", "infra"]
