"""The node's bootstrap in a throw-away root: programs that note how they are called, and a real Git."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.services import missing

pytestmark = pytest.mark.infra

SCRIPT = ROOT / "infra" / "bootstrap.sh"
URL = "https://example.com/team/mlops-platform.git"
HOME = "opt/mlops-platform"
TOLD = {
    "REPOSITORY_URL": URL, "REVISION": "main", "REGION": "eu-west-1", "PUBLIC_ADDRESS": "198.51.100.9",
    "BUCKET": "mlops-fraud-dev", "TOPIC_ARN": "arn:aws:sns:eu-west-1:123456789012:mlops-alerts",
}  # fmt: skip
REAL = (
    "basename", "bash", "cat", "chmod", "cmp", "cut", "dirname", "env", "git", "grep", "ln", "mkdir", "mktemp", "mv",
    "openssl", "rm", "sed",
)  # fmt: skip
FAKE = """#!/bin/bash
# A program that notes how it was called, keeps what it changes in files, and fails where it is told to.
name=${0##*/}
echo "$name $*" >>"$NOTES/calls"
[[ -e $NOTES/fails-$name ]] && exit 1
case "$name $*" in
    "id -u") cat "$NOTES/user" ;;
    "id -nG ubuntu") cat "$NOTES/groups" ;;
    "usermod --append --groups docker ubuntu") echo "ubuntu docker" >"$NOTES/groups" ;;
    "snap install aws-cli --classic") ln -s "$0" "${0%/*}/aws" ;;
esac
exit 0
"""
MAKE_ENV = '#!/bin/bash\nprintf "%s\\n" "$@" >"${BASH_SOURCE[0]%/*}/../.env"\n'


class Machine:
    """A root folder, programs on a PATH of its own, and a repository behind the URL."""

    def __init__(self, folder: Path) -> None:
        self.root, self.notes, self._bin, self.origin = (folder / name for name in ("root", "notes", "bin", "origin"))
        for made in (self.root / "etc", self.root / "usr/local/bin", self.notes, self._bin, self.origin / "infra"):
            made.mkdir(parents=True)
        self.write("etc/os-release", 'NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="22.04"\n')
        (self.notes / "user").write_text("0")
        (self.notes / "groups").write_text("ubuntu")
        for name in REAL:
            if (found := shutil.which(name)) is None:
                missing(f"there is no program '{name}'")
            (self._bin / name).symlink_to(found)
        fakes = ("apt-get", "docker", "id", "make", "python3", "sleep", "snap", "systemctl", "usermod")
        for name in fakes:
            (self._bin / name).write_text(FAKE)
            (self._bin / name).chmod(0o755)
        (self.origin / "infra" / "make_env.sh").write_text(MAKE_ENV)
        (self.origin / "infra" / "make_env.sh").chmod(0o755)
        (self.origin / ".gitignore").write_text("/.env\n")
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()
        (folder / "gitconfig").write_text(f'[url "file://{self.origin}"]\n\tinsteadOf = {URL}\n')
        self._environment = {
            "PATH": str(self._bin), "ROOT": str(self.root), "NOTES": str(self.notes), "HOME": str(folder),
            "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"), "GIT_CONFIG_NOSYSTEM": "1",
        }  # fmt: skip

    def git(self, *words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        return subprocess.run(
            ["git", *who, "-C", str(self.origin), *words], check=True, text=True, capture_output=True
        ).stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "x")
        return self.git("rev-parse", "HEAD")

    def write(self, path: str, text: str) -> None:
        (self.root / path).write_text(text)

    def up(self, **told: str) -> "subprocess.CompletedProcess[str]":
        (self.notes / "calls").unlink(missing_ok=True)
        return subprocess.run(
            ["bash", str(SCRIPT)], env={**self._environment, **told}, text=True, capture_output=True, timeout=60,
            check=False,
        )  # fmt: skip

    @property
    def calls(self) -> list[str]:
        path = self.notes / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def tree(self) -> dict[str, tuple[bytes, int]]:
        """Every file below the root but Git's own, with its bytes and the time of its last change."""
        files = [path for path in self.root.rglob("*") if path.is_file() and ".git" not in path.parts]
        return {str(path.relative_to(self.root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    @property
    def commit_there(self) -> str:
        return subprocess.run(
            ["git", "-C", str(self.root / HOME), "rev-parse", "HEAD"], check=True, text=True, capture_output=True
        ).stdout.strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_shellcheck_finds_nothing() -> None:
    beside = Path(sys.executable).with_name("shellcheck")
    found = str(beside) if beside.exists() else shutil.which("shellcheck")
    if found is None:
        missing("there is no shellcheck")
    done = subprocess.run([found, str(SCRIPT)], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_machine_becomes_the_node(machine: Machine) -> None:
    done = machine.up(**TOLD)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "mlops-core ready"
    assert machine.commit_there == machine.git("rev-parse", "main")
    installed = next(call for call in machine.calls if call.startswith("apt-get") and " install " in call)
    assert {word for word in installed.partition(" install ")[2].split() if not word.startswith("-")} == {
        "ca-certificates", "curl", "docker-buildx", "docker-compose-v2", "docker.io", "git", "make", "openssl",
        "python3", "python3-pip", "python3-venv", "python3-virtualenv",
    }  # fmt: skip
    # Its log ends with what came of it.
    assert [call for call in machine.calls if call.endswith("version")] == [
        "docker --version", "docker compose version", "python3 --version", "python3 -m pip --version",
        "python3 -m virtualenv --version", "aws --version",
    ]  # fmt: skip
    assert f"git version {machine.git('version').split()[-1]}" in done.stdout
    assert "systemctl enable --now docker.service mlops-prune.timer" in machine.calls
    assert "image prune --all" in (machine.root / "etc/systemd/system/mlops-prune.service").read_text()
    assert "snap install aws-cli --classic" in machine.calls
    assert "usermod --append --groups docker ubuntu" in machine.calls
    assert (machine.root / HOME / ".env").read_text().splitlines() == [
        "PROFILE=aws", "COMPOSE_PROFILES=", "LOCAL_AWS=", "BIND_ADDRESS=0.0.0.0", "AWS_REGION=eu-west-1",
        "PUBLIC_HOST=198.51.100.9", "BUCKET=mlops-fraud-dev",
        "ALERTS_TOPIC_ARN=arn:aws:sns:eu-west-1:123456789012:mlops-alerts",
    ]  # fmt: skip
    unit = (machine.root / "etc/systemd/system/mlops-platform.service").read_text()
    assert "ExecStart=/usr/bin/make up" in unit
    assert "WorkingDirectory=/opt/mlops-platform" in unit
    order = [machine.calls.index(f"systemctl {word}") for word in (
        "enable mlops-platform.service", "reload-or-restart mlops-platform.service",
    )]  # fmt: skip
    assert order == sorted(order)


def test_what_it_writes_is_what_the_stack_reads(machine: Machine) -> None:
    machine.up(**TOLD)
    written = {line.partition("=")[0] for line in (machine.root / HOME / ".env").read_text().splitlines()}
    read = re.findall(r"\$\{(\w+)", (ROOT / "infra" / "compose.yaml").read_text())
    assert written <= {*read, "COMPOSE_PROFILES"}


def test_with_the_real_settings_no_password_changes_the_second_time(machine: Machine) -> None:
    shutil.copy(ROOT / "infra" / "make_env.sh", machine.origin / "infra")
    shutil.copy(ROOT / ".env.template", machine.origin)
    machine.commit()
    first = machine.up(**TOLD)
    assert first.returncode == 0, first.stderr
    before = machine.tree()
    second = machine.up(**TOLD)
    assert second.returncode == 0, second.stderr
    assert machine.tree() == before
    text = before[f"{HOME}/.env"][0].decode()
    assert "\nBUCKET=mlops-fraud-dev\n" in text
    assert re.search(r"^GRAFANA_PASSWORD=[0-9a-f]{64}$", text, re.MULTILINE)


def test_twice_is_once(machine: Machine) -> None:
    machine.up(**TOLD)
    before, first = machine.tree(), machine.calls
    done = machine.up(**TOLD)
    assert done.returncode == 0, done.stderr
    after = machine.tree()
    # `make_env.sh`, which stands in for the real one here, writes its file again.
    assert {name: text for name, text in after.items() if not name.endswith(".env")} == {
        name: text for name, text in before.items() if not name.endswith(".env")
    }
    gone = {call for call in first if call.startswith(("snap install", "usermod", "systemctl restart docker"))}
    assert len(gone) == 3
    assert set(machine.calls) == set(first) - gone


def test_again_by_hand_without_a_word_it_follows_the_same_branch(machine: Machine) -> None:
    machine.git("branch", "release")
    machine.up(**TOLD | {"REVISION": "release"})
    machine.git("checkout", "--quiet", "release")
    newest = machine.commit()
    done = machine.up()
    assert done.returncode == 0, done.stderr
    assert machine.commit_there == newest


def test_a_tag_and_a_commit_are_revisions_too(machine: Machine) -> None:
    first = machine.git("rev-parse", "HEAD")
    machine.git("tag", "v1")
    machine.commit()
    for revision in ("v1", first):
        assert machine.up(**TOLD | {"REVISION": revision}).returncode == 0
        assert machine.commit_there == first


def test_what_a_network_that_comes_late_refuses_is_asked_for_again(machine: Machine) -> None:
    (machine.notes / "fails-apt-get").touch()
    done = machine.up(**TOLD)
    assert done.returncode == 1
    assert [call for call in machine.calls if call.startswith("sleep")] == [f"sleep {n}" for n in (5, 10, 20, 40, 0)]


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"REPOSITORY_URL": ""}, "REPOSITORY_URL is not set; say where to clone the platform from"),
        ({"REPOSITORY_URL": "git@example.com:x"}, "REPOSITORY_URL is 'git@example.com:x'; write https://HOST/PATH"),
        ({"REPOSITORY_URL": "https://127.0.0.1:9/x"}, "https://127.0.0.1:9/x cannot be cloned"),
        ({"REVISION": "nowhere"}, f"there is no branch, tag or commit 'nowhere' in {URL}"),
    ],
    ids=["no URL", "a URL of SSH", "a server that is away", "an unknown revision"],
)
def test_what_is_missing_or_wrong_is_said_in_one_line(machine: Machine, told: dict[str, str], line: str) -> None:
    done = machine.up(**TOLD | told)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {line}")
    assert "mlops-core ready" not in done.stdout


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("apt-get", "the lists of packages cannot be had; does the machine reach the internet?"),
        ("snap", "the AWS CLI cannot be installed from the snap aws-cli"),
    ],
)
def test_a_program_that_fails_is_named(machine: Machine, program: str, line: str) -> None:
    (machine.notes / f"fails-{program}").touch()
    done = machine.up(**TOLD)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, f"error: {line}")


def test_who_is_not_root_is_told_so(machine: Machine) -> None:
    (machine.notes / "user").write_text("1000")
    assert machine.up(**TOLD).stderr.strip() == "error: only root can set up a machine; say sudo before it"
    assert machine.calls == ["id -u"]


def test_another_system_than_ubuntu_22_04_is_refused(machine: Machine) -> None:
    machine.write("etc/os-release", "ID=debian\nVERSION_ID=12\n")
    line = "error: this is 'debian 12' and not 'ubuntu 22.04', which this script knows"
    assert machine.up(**TOLD).stderr.strip() == line


def test_changes_on_the_node_are_not_thrown_away(machine: Machine) -> None:
    machine.up(**TOLD)
    machine.write(f"{HOME}/infra/make_env.sh", MAKE_ENV + "# mine\n")
    (machine.origin / "infra" / "make_env.sh").write_text(MAKE_ENV + "# theirs\n")
    machine.commit()
    done = machine.up()
    assert done.returncode == 1
    assert "has changes of its own; take them away" in done.stderr
    assert (machine.root / HOME / "infra/make_env.sh").read_text().endswith("# mine\n")
