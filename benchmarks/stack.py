"""python -m benchmarks.stack: the memory of every service of infra/compose.yaml under load, and if a t3.large holds it.

Batches, explanations, a stream and training runs of the default size go on together. What Docker counts of each
container, without the files that the system may drop, is read about once a second, and its highest value shown. An
image that cannot be pulled is reckoned with its limit.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.serving import transactions
from tests.stack.stack import DECISIONS, HERE, ROOT, Stack, awaited, lacking, started

PROJECT = "mlops-benchmark"
MACHINE, SYSTEM = 8 * 1024, 900
"""MiB of a t3.large, and of them what Ubuntu, Docker and a container's shim each take."""
UNITS = {"B": 2**-20, "KiB": 2**-10, "MiB": 1.0, "GiB": 1024.0}
ONLY_LOCAL = ("aws", "aws-setup")
"""What the node on AWS does not run."""


def main() -> int:
    """Start everything, load it, print the table; return 1 where it does not fit or something was killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0)
    words = parser.parse_args()
    if reason := lacking():
        print(f"error: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, started(Path(folder), PROJECT) as stack, peaks() as found:
        done = load(stack, 60 * words.minutes)
        killed = [one["Name"] for one in stack.containers() if one["ExitCode"] == 137]
    print(", ".join(f"{number:,} {what}" for what, number in sorted(done.items())))
    whole = show(found)
    for name in killed:
        print(f"{name} was killed")
    return 1 if killed or done["failures"] or whole > MACHINE - SYSTEM else 0


def load(stack: Stack, seconds: float) -> Counter[str]:
    """Let everybody have work for so long; count what was done."""
    done: Counter[str] = Counter(failures=0)
    end = time.monotonic() + seconds
    body, sent = transactions("load"), transactions("stream")

    def batch() -> None:
        status, said = stack.ask("api", "/predict/batch", {"transactions": [json.loads(body()) for _ in range(100)]})
        done["failures"] += status != 200
        done["decisions"] += 100
        for one in said["results"][:5]:
            status, _ = stack.ask("api", "/explain", {"decision_id": one["decision_id"]})
            done["failures"] += status != 200
            done["explanations"] += 1

    def stream() -> None:
        stack.put([json.loads(sent()) for _ in range(500)])
        done["records of the stream"] += 500

    def train() -> None:
        stack.run("run", "--rm", "train", "pipeline")
        done["training runs"] += 1
        time.sleep(seconds / 4)

    def again(do: Callable[[], None]) -> None:
        while time.monotonic() < end:
            try:
                do()
            except (AssertionError, OSError) as error:
                done["failures"] += 1
                print(error, file=sys.stderr)

    threads = [threading.Thread(target=again, args=[do]) for do in (batch, batch, stream, train)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not done["failures"]:
        made = done["decisions"] + done["records of the stream"]
        awaited(lambda: int(stack.journal(DECISIONS)[0]) == made, f"the journal has not {made:,} decisions")
    return done


@contextmanager
def peaks() -> Iterator[Mapping[str, float]]:
    """The highest memory of each service of the stack in MiB, while the block runs."""
    found: dict[str, float] = {}
    command = ["docker", "stats", "--format", "{{.Name}} {{.MemUsage}}"]
    with subprocess.Popen(command, env=HERE, stdout=subprocess.PIPE, text=True) as process:

        def read() -> None:
            for line in process.stdout or ():
                seen = re.search(rf"{PROJECT}-([a-z-]+?)-(?:run-\w+|\d+) ([\d.]+)([KMG]?i?B) /", line)
                if seen is not None:
                    found[seen[1]] = max(found.get(seen[1], 0.0), float(seen[2]) * UNITS[seen[3]])

        reading = threading.Thread(target=read)
        reading.start()
        try:
            yield found
        finally:
            process.terminate()
            reading.join()


def show(found: Mapping[str, float]) -> float:
    """Print what each service took beside what it may take; return what the node on AWS takes, in MiB."""
    table = Table(title="memory in MiB", title_justify="left")
    for heading in ("service", "highest", "limit", "of it"):
        table.add_column(heading, justify="left" if heading == "service" else "right")
    limits = limits_of(ROOT / "infra" / "compose.yaml")
    node = 0.0
    for name, limit in limits.items():
        took = found.get(name)
        table.add_row(name, "not run" if took is None else f"{took:.0f}", f"{limit}", f"{(took or 0) / limit:.0%}")
        node += 0 if name in ONLY_LOCAL else limit if took is None else took
    table.add_section()
    table.add_row("all that ran", f"{sum(found.values()):.0f}", f"{sum(limits.values())}", "")
    table.add_row("on the node, what did not run by its limit", f"{node:.0f}", f"{MACHINE - SYSTEM} are free", "")
    Console().print(table)
    return node


def limits_of(file: Path) -> dict[str, int]:
    """The limit of each service in MiB."""
    services: Mapping[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["services"]
    return {name: int(service["mem_limit"].removesuffix("m")) for name, service in services.items()}


if __name__ == "__main__":
    sys.exit(main())
