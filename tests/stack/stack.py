"""The stack of infra/compose.yaml for tests and benchmarks: really started by Compose, under a project of its own."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]
ADDRESS = "127.0.0.77"
"""A loopback address that no server of the developer listens on."""
PORTS = {"mlflow": 5000, "api": 8000, "prometheus": 9090, "grafana": 3000}
PATIENCE = 600
"""Seconds that anything may take."""
DECISIONS = "select count(*) from journal where kind = 'decision'"
SMALL_IMAGE = "prom/node-exporter:v1.9.0"
HERE = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "DOCKER_"))}
"""What Compose may see of the environment: nothing that stands above .env."""


def lacking() -> str | None:
    """What is missing to start the stack; nothing where all is there."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        if shutil.which("docker") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            return f"'{' '.join(command)}' does not work: no Docker engine answers"
    return None


@dataclass(frozen=True)
class Stack:
    """A stack that runs. `whole` says that every image is the real one, and not Debian's stand-in."""

    compose: Sequence[str]
    key: str
    whole: bool

    def run(self, *words: str, text: str | None = None) -> str:
        """Let Compose do something; return what it printed. Fails with what it complained of."""
        done = self._done(words, text)
        assert done.returncode == 0, f"docker compose {' '.join(words)}: {done.stdout[-2_000:]}{done.stderr[-4_000:]}"
        return done.stdout

    def attempt(self, *words: str) -> str:
        """Let Compose try something that must fail; return what was complained of."""
        done = self._done(words)
        assert done.returncode != 0, f"docker compose {' '.join(words)} did not fail"
        return done.stderr

    def history(self, image: str) -> str:
        """All that an image tells of how it was made."""
        command = ["docker", "image", "history", "--no-trunc", image]
        return subprocess.run(command, env=HERE, capture_output=True, text=True, check=True).stdout

    def up(self) -> None:
        """Start what does not run, and wait until all is healthy."""
        done = self._done(["up", "--detach", "--wait", "--wait-timeout", str(PATIENCE)])
        ill = [one["Service"] for one in self.containers() if one["Health"] not in ("healthy", "")]
        assert done.returncode == 0, f"{done.stderr[-1_000:]}{self.run('logs', '--tail', '40', *ill)}"

    def python(self, service: str, program: str) -> str:
        """Run a program inside a service's container."""
        return self.run("exec", "--no-TTY", service, "python", "-", text=program)

    def containers(self) -> list[dict[str, Any]]:
        """What Compose knows of every container."""
        return [json.loads(line) for line in self.run("ps", "--all", "--format", "json").splitlines()]

    def restarts(self, service: str) -> int:
        """How often the engine has started a service's container again by itself."""
        (id_,) = [one["ID"] for one in self.containers() if one["Service"] == service]
        command = ["docker", "inspect", "--format", "{{.RestartCount}}", id_]
        return int(subprocess.run(command, env=HERE, capture_output=True, text=True, check=True).stdout)

    def ask(self, service: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Ask a published port, the API with its key; return the status and the JSON that came."""
        data = None if body is None else json.dumps(body).encode()
        said = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}", **headers}
        try:
            with urlopen(Request(f"http://{ADDRESS}:{PORTS[service]}{path}", data, said), timeout=30) as answer:
                return int(answer.status), json.load(answer)
        except HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def journal(self, query: str) -> list[str]:
        """Ask PostgreSQL's journal something; return the rows."""
        command = ["exec", "--no-TTY", "postgres", "psql", "-U", "postgres", "-d", "journal", "-Atc", query]
        return self.run(*command).splitlines()

    def put(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Put transactions into the stream."""
        lines = [{"PartitionKey": str(one["customer_id"]), "Data": json.dumps(one)} for one in records]
        self.python(
            "worker",
            "import boto3, json\nkinesis = boto3.client('kinesis')\n"
            f"records = json.loads({json.dumps(lines)!r})\n"
            "for start in range(0, len(records), 500):\n"
            "    some = records[start : start + 500]\n"
            "    answer = kinesis.put_records(StreamName='fraud-transactions', Records=some)\n"
            "    assert answer['FailedRecordCount'] == 0, answer\n",
        )

    def _done(self, words: Sequence[str], text: str | None = None) -> "subprocess.CompletedProcess[str]":
        command = [*self.compose, *words]
        return subprocess.run(command, env=HERE, input=text, capture_output=True, text=True, check=False)


@contextmanager
def started(folder: Path, project: str, **simulation: int) -> Iterator[Stack]:
    """Start everything on empty volumes, with a first version out of a simulation; remove it all in the end."""
    stack = _prepared(folder, project)
    try:
        words = [word for name, value in simulation.items() for word in ("-e", f"MLOPS_{name.upper()}={value}")]
        stack.run("run", "--rm", *words, "train", "pipeline")
        stack.up()
        yield stack
    finally:
        stack.run("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "20")


def awaited(look: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Look again and again until something is there, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


def _prepared(folder: Path, project: str) -> Stack:
    """Make .env in `folder` as `make up` does, and build what is missing."""
    (folder / "infra").mkdir()
    shutil.copy(ROOT / ".env.template", folder)
    shutil.copy(ROOT / "infra" / "make_env.sh", folder / "infra")
    own = [f"BIND_ADDRESS={ADDRESS}", f"PUBLIC_HOST={ADDRESS}", "IMAGE_TAG=stack-test"]
    said = subprocess.run([folder / "infra" / "make_env.sh", *own], capture_output=True, text=True, check=True).stdout
    whole = subprocess.run(["docker", "pull", "--quiet", SMALL_IMAGE], capture_output=True, check=False).returncode == 0
    files = [ROOT / "infra" / "compose.yaml"] + ([] if whole else [ROOT / "tests" / "stack" / "compose.debian.yaml"])
    compose = ["docker", "compose", "--project-name", project, "--env-file", str(folder / ".env")]
    stack = Stack([*compose, *(word for file in files for word in ("--file", str(file)))], said.split()[-1], whole)
    stack.run("--profile", "tools", "build", "--quiet")
    return stack
