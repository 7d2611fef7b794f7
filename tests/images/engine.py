"""A Docker engine for tests: containers, volumes and what goes in and out of them, always removed in the end."""

import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PATIENCE = 300.0


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run(*words: str, seconds: float = PATIENCE) -> Ended:
    """Run `docker` with these words, however it ends."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=seconds, check=False)
    return Ended(done.returncode, done.stdout.strip(), done.stderr.strip())


def docker(*words: str, seconds: float = PATIENCE) -> str:
    """Run `docker` with these words and return what it printed."""
    done = run(*words, seconds=seconds)
    assert done.code == 0, f"docker {' '.join(words)}\n{done.out}\n{done.err}"
    return done.out


class Container:
    """A container that was made; it need not be running."""

    def __init__(self, id_: str) -> None:
        self.id = id_

    def port(self, inside: int) -> int:
        """The port of this machine by which a port of the container is reached."""
        return int(docker("port", self.id, f"{inside}/tcp").splitlines()[0].rsplit(":", 1)[1])

    def stop(self) -> tuple[int, float]:
        """Ask it to end as an orchestrator does; return its exit code and the seconds that it took."""
        began = time.monotonic()
        docker("stop", "--time", "30", self.id)
        took = time.monotonic() - began
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", self.id)), took

    def logs(self) -> str:
        """All that it printed."""
        done = run("logs", self.id)
        return done.out + done.err

    def healths(self, since: float, until: str) -> list[str]:
        """What its health check found, in order, from a moment on until it found this."""
        words = ["--since", f"{since:.0f}", "--until", f"{since + PATIENCE:.0f}", "--filter", f"container={self.id}"]
        found: list[str] = []
        with subprocess.Popen(
            ["docker", "events", *words, "--filter", "event=health_status", "--format", "{{.Status}}"],
            stdout=subprocess.PIPE, text=True,
        ) as events:  # fmt: skip
            assert events.stdout is not None
            for line in events.stdout:
                found.append(line.strip().removeprefix("health_status: "))
                if found[-1] == until:
                    break
            events.terminate()
        return found

    def take(self, inside: str, folder: Path) -> Path:
        """Copy a file or folder out of it."""
        docker("cp", f"{self.id}:{inside}", str(folder))
        return folder / Path(inside).name


@contextmanager
def made(image: str, *words: str, options: Sequence[str] = ()) -> Iterator[Container]:
    """Make a container, and remove it in the end."""
    container = Container(docker("create", *options, image, *words))
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container.id)


@contextmanager
def started(image: str, *words: str, options: Sequence[str] = ()) -> Iterator[Container]:
    """Start a container, and remove it in the end."""
    with made(image, *words, options=options) as container:
        docker("start", container.id)
        yield container


@contextmanager
def volume() -> Iterator[str]:
    """Make a volume, and remove it in the end."""
    name = docker("volume", "create")
    try:
        yield name
    finally:
        docker("volume", "rm", name)


def inside(image: str, *command: str, options: Sequence[str] = ()) -> Ended:
    """Run a command of one's own in an image."""
    return run("run", "--rm", "--entrypoint", command[0], *options, image, *command[1:])


def listed(image: str, script: str, options: Sequence[str] = ()) -> list[str]:
    """The lines that a script of the shell prints in an image."""
    done = inside(image, "sh", "-ec", script, options=options)
    assert done.code == 0, done.err
    return done.out.splitlines()


def asked(image: str, program: str) -> dict[str, str]:
    """What a program prints as JSON in the Python of an image."""
    done = inside(image, "python", "-c", f"import json{program}")
    assert done.code == 0, done.err
    read: dict[str, str] = json.loads(done.out)
    return read
