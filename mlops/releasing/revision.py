"""Which code made something: the git revision where there is one, and the hash of a module's own source."""

import hashlib
import os
import subprocess
from pathlib import Path


def git(folder: Path) -> str:
    """The commit, `-dirty` where the files differ from it; in an image the one it was built from; else `unknown`."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("GIT_COMMIT", "unknown")
    return done.stdout.strip()


def code(folder: Path) -> str:
    """Sixteen hexadecimal digits over every Python file of a folder."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()[:16]
