"""The push of the images: from the commit alone, once, with a password that nobody sees; by programs that note it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.services import missing

DOCKERFILE = "modules/fraud_detection/Dockerfile"
PASSWORD = "hunter2"  # the fake one
REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
FAKE = f"""#!{sys.executable}
import io, json, os, sys, tarfile
from pathlib import Path

home, program, words = Path(os.environ["NOTES"]), Path(sys.argv[0]).name, sys.argv[1:]
word = words[0] if program == "docker" else words[1]
note = {{"program": program, "word": word, "words": words, "buildx": os.environ.get("BUILDX_NO_DEFAULT_ATTESTATIONS")}}
if word == "login":
    note["stdin"] = sys.stdin.read()
if word == "build":
    note["stdin"] = tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())).getnames()
with (home / "notes").open("a") as notes:
    notes.write(json.dumps(note) + "\\n")
if (home / f"fails-{{word}}").exists():
    sys.exit(f"{{program}}: it does not work")
if word == "push":
    (home / words[1].replace("/", "_")).touch()
if word == "get-login-password":
    print("{PASSWORD}")
if word == "describe-repositories":
    print("{REGISTRY}/" + words[words.index("--repository-names") + 1])
if word == "describe-images":
    name, tag = (words[words.index(option) + 1] for option in ("--repository-name", "--image-ids"))
    if not (home / f"{REGISTRY}_{{name}}:{{tag.removeprefix('imageTag=')}}").exists():
        sys.exit("An error occurred (ImageNotFoundException)")
    print("sha256:of-" + name)
"""


class Checkout:
    """A checkout with the script in it, and programs that note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes, self._bin = folder / "checkout", folder / "notes", folder / "bin"
        for made in (self.folder / "infra", (self.folder / DOCKERFILE).parent, self.notes, self._bin):
            made.mkdir(parents=True)
        for name in ("bash", "dirname", "env", "git", "sed"):
            found = shutil.which(name)
            assert found is not None
            (self._bin / name).symlink_to(found)
        for name in ("aws", "docker"):
            (self._bin / name).write_text(FAKE)
            (self._bin / name).chmod(0o755)
        shutil.copy(ROOT / "infra" / "ecr_push.sh", self.folder / "infra")
        (self.folder / DOCKERFILE).write_text("FROM scratch AS train\nFROM scratch AS serve\n")
        (self.folder / ".gitignore").write_text(".env\n")
        (self.folder / ".env").write_text("SECRET=1\n")
        self.git("init", "--quiet")
        self.commit()

    def git(self, *words: str) -> str:
        author = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        done = subprocess.run(["git", *author, *words], cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "all")

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def lacks(self, program: str) -> None:
        (self._bin / program).unlink()

    def fails(self, word: str) -> None:
        """Let a word of a program fail, from now on."""
        (self.notes / f"fails-{word}").touch()

    def works(self, word: str) -> None:
        (self.notes / f"fails-{word}").unlink()

    def push(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run the script from another folder."""
        environment = {"PATH": str(self._bin), "NOTES": str(self.notes), "HOME": os.environ.get("HOME", "/")}
        script = str(self.folder / "infra" / "ecr_push.sh")
        return subprocess.run([script, *words], env=environment, capture_output=True, text=True, check=False)

    @property
    def called(self) -> list[dict[str, Any]]:
        """What was called by now, in order."""
        notes = self.notes / "notes"
        return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []

    def words(self, word: str) -> list[list[str]]:
        return [one["words"] for one in self.called if one["word"] == word]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_both_images_are_built_from_the_commit_and_pushed_under_its_hash(checkout: Checkout) -> None:
    done = checkout.push()
    assert done.returncode == 0, done.stderr
    names = [f"{REGISTRY}/fraud-{target}:{checkout.head}" for target in ("train", "serve")]
    assert done.stdout.splitlines() == [
        f"{name} sha256:of-fraud-{target}" for name, target in zip(names, ("train", "serve"), strict=True)
    ]
    assert checkout.words("push") == [["push", name] for name in names]
    for words, name, target in zip(checkout.words("build"), names, ("train", "serve"), strict=True):
        assert words[words.index("--target") + 1] == target
        assert words[words.index("--tag") + 1] == name
        assert words[words.index("--file") + 1] == DOCKERFILE
        assert words[words.index("--platform") + 1] == "linux/amd64"
        assert f"GIT_COMMIT={checkout.head}" in words
        assert words[-1] == "-"
    order = [one["word"] for one in checkout.called if one["word"] != "describe-images"]
    logged_in = ["describe-repositories", "get-login-password", "login"]
    assert sorted(order[:3]) == sorted(logged_in)
    assert order[3:] == ["build", "push", "build", "push"]


def test_only_what_the_commit_holds_goes_into_an_image_and_no_list_is_made_of_it(checkout: Checkout) -> None:
    assert checkout.push().returncode == 0
    for build in (one for one in checkout.called if one["word"] == "build"):
        assert DOCKERFILE in build["stdin"]
        assert ".env" not in build["stdin"]
        assert build["buildx"] == "1"


def test_the_password_stands_in_no_argument_and_in_nothing_that_is_printed(checkout: Checkout) -> None:
    done = checkout.push()
    (login,) = [one for one in checkout.called if one["word"] == "login"]
    assert login["stdin"].strip() == PASSWORD
    assert login["words"] == ["login", "--username", "AWS", "--password-stdin", REGISTRY]
    assert PASSWORD not in json.dumps([one["words"] for one in checkout.called]) + done.stdout + done.stderr


def test_what_was_pushed_is_not_built_again(checkout: Checkout) -> None:
    first = checkout.push()
    assert checkout.push().stdout == first.stdout
    assert len(checkout.words("build")) == len(checkout.words("push")) == 2


def test_a_push_that_was_cut_short_is_gone_on_with(checkout: Checkout) -> None:
    checkout.fails("push")
    done = checkout.push()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == f"error: {REGISTRY}/fraud-train:{checkout.head} cannot be pushed"
    checkout.works("push")
    assert checkout.push().returncode == 0
    (checkout.notes / f"{REGISTRY}_fraud-serve:{checkout.head}").unlink()
    assert checkout.push().returncode == 0
    assert [words[words.index("--target") + 1] for words in checkout.words("build")] == [
        "train", "train", "serve", "serve",
    ]  # fmt: skip


def test_a_dry_run_prints_the_commands_and_calls_nobody(checkout: Checkout) -> None:
    done = checkout.push("--dry-run")
    assert (done.returncode, done.stderr, checkout.called) == (0, "", [])
    lines = done.stdout.splitlines()
    assert lines[0].startswith("aws ecr describe-repositories --repository-names fraud-train ")
    assert lines[1] == "aws ecr get-login-password | docker login --username AWS --password-stdin REGISTRY"
    for place, target in ((2, "train"), (4, "serve")):
        assert lines[place].startswith(f"git archive {checkout.head} | docker build --platform linux/amd64 ")
        assert f"--target {target} " in lines[place]
        assert lines[place + 1] == f"docker push REGISTRY/fraud-{target}:{checkout.head}"
    assert len(lines) == 6
    for program in ("aws", "docker"):
        checkout.lacks(program)
    assert checkout.push("--dry-run").stdout == done.stdout


def changed(checkout: Checkout) -> None:
    (checkout.folder / DOCKERFILE).write_text("FROM elsewhere\n")


def untracked(checkout: Checkout) -> None:
    (checkout.folder / "new.py").write_text("")


def no_dockerfile(checkout: Checkout) -> None:
    (checkout.folder / DOCKERFILE).unlink()
    checkout.commit()


def no_git(checkout: Checkout) -> None:
    shutil.rmtree(checkout.folder / ".git")


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (changed, f"error: some files are not what the commit holds; commit or stash them first:  M {DOCKERFILE}"),
        (untracked, "error: some files are not what the commit holds; commit or stash them first: ?? new.py"),
        (no_dockerfile, f"error: there is no {DOCKERFILE} to build from"),
        (no_git, "error: this is no checkout of git, and images are named after commits"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anybody_is_called(
    checkout: Checkout, spoil: Callable[[Checkout], None], said: str, words: list[str]
) -> None:
    spoil(checkout)
    done = checkout.push(*words)
    assert (done.returncode, done.stdout, checkout.called) == (1, "", [])
    assert done.stderr.splitlines()[-1] == said


@pytest.mark.parametrize("program", ["aws", "docker", "git"])
def test_a_program_that_is_not_there_is_named(checkout: Checkout, program: str) -> None:
    checkout.lacks(program)
    done = checkout.push()
    assert (done.returncode, done.stderr) == (1, f"error: there is no program '{program}'; install it\n")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("describe-repositories", "error: there is no repository 'fraud-train', or AWS does not let you see it"),
        ("get-login-password", f"error: docker cannot log in to {REGISTRY}"),
        ("login", f"error: docker cannot log in to {REGISTRY}"),
        ("build", "error: the image for 'train' cannot be built"),
    ],
)
def test_what_fails_ends_it_and_nothing_is_pushed(checkout: Checkout, word: str, said: str) -> None:
    checkout.fails(word)
    done = checkout.push()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(said)
    assert checkout.words("push") == []


def test_another_option_is_refused_and_help_is_given(checkout: Checkout) -> None:
    done = checkout.push("--dryrun")
    assert (done.returncode, done.stderr) == (1, "error: there is no option '--dryrun'; say --dry-run or nothing\n")
    assert checkout.push("--help").stdout.startswith("Build the training and the serving image")
    assert checkout.called == []


@pytest.mark.parametrize("script", sorted((ROOT / "infra").glob("*.sh")), ids=lambda script: script.name)
def test_a_shell_script_has_no_fault_that_shellcheck_knows(script: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    program = shutil.which("shellcheck", path=path)
    if program is None:
        missing("shellcheck is not installed")
    done = subprocess.run([program, script], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""
    assert os.access(script, os.X_OK)
