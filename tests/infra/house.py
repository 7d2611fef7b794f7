"""A copy of the files that the words of make look at, in a repository of its own, where they may be damaged."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.conftest import ROOT
from tests.services import missing

TOOLS = ROOT / ".venv-tools"
FILES = ("Makefile", "pyproject.toml", ".gitignore", ".pre-commit-config.yaml", ".secrets.baseline", ".github")
WORKFLOW = ".github/workflows/train.yml"


class House:
    """The copy; its environments are those of the checkout, and are never made anew."""

    def __init__(self, folder: Path, *more: str) -> None:
        if not (TOOLS / "bin" / "zizmor").exists():
            missing("there is no .venv-tools; make tools")
        self.folder = folder
        for name in (*FILES, *more):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, folder / name)
        for name in (".venv", ".venv-tools"):
            (folder / name).mkdir()
            (folder / name / "bin").symlink_to(ROOT / name / "bin")
        self.run("git", "init", "--quiet")
        self.write("requirements/tools.txt", "")
        (folder / ".venv-tools" / "done").touch()

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the copy; its two outputs come as one."""
        # A hook of git that runs the tests names its own repository to all below it, and make what it was told.
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "MAKE"))}
        return subprocess.run(
            words, cwd=self.folder, env={**bare, **environment}, text=True, check=False, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def make(self, word: str) -> subprocess.CompletedProcess[str]:
        """Run a word of the Makefile."""
        return self.run("make", word)

    def write(self, name: str, text: str) -> None:
        """Write a file, and tell git of it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        self.run("git", "add", "--all")
