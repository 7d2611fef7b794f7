"""python -m benchmarks.serving: decisions a second beside a no-op, a tutorial's application and MLflow, interleaved.

Then the same under overload: more connections than calls may be in work at once, each asking again as soon as it can.
"""

import argparse
import itertools
import json
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import load
from benchmarks.load import Load
from modules.fraud_detection.src.models.artifact import Artifact
from tests.redis_server import RedisServer, program

BEGINNING = datetime(2025, 5, 1)
ROOT = Path(__file__).parents[1]
UVICORN = ["-m", "uvicorn", "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
NOTHING, TUTORIAL, MLFLOW = "no-op ASGI application", "tutorial: FastAPI + DataFrame", "mlflow models serve"
CROWDS = (64, 512, 2_000)
MEMORY, REDIS = "ours, memory://", "ours, redis://"


def main() -> None:
    """Start everything once, measure in turns, print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=16)
    words = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        peers = dict(start(Path(folder), stack))
        results: dict[str, list[Load]] = {name: [] for name in peers}
        for port, path, body in peers.values():
            load.run(port, path, body, words.connections, 1.0)
        for _ in range(words.rounds):
            for name, (port, path, body) in peers.items():
                results[name].append(load.run(port, path, body, words.connections, words.seconds))
        many: dict[int, list[Load]] = {count: [] for count in (words.connections, *CROWDS)}
        for _ in range(words.rounds):
            for count, loads in many.items():
                loads.append(load.run(*peers[MEMORY], count, words.seconds))
    show(results, words.connections)
    show_crowds(many, words.seconds)


def start(folder: Path, stack: ExitStack) -> Iterator[tuple[str, tuple[int, str, Callable[[], bytes]]]]:
    """Train a version in `folder`, then start every server; give its name, port, path and bodies."""
    home = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", "modules.fraud_detection", "pipeline"], cwd=folder, env=home, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    model = next((folder / "var" / "models").glob("*/manifest.json")).parent
    names = Artifact.open(model).card.encoder.features
    row = json.dumps(dict.fromkeys(names, 1.5)).encode()
    rows = json.dumps({"dataframe_records": [dict.fromkeys(names, 1.5)]}).encode()
    peer = {**home, "PEER_FEATURES": ",".join(names), "PEER_MODEL": str(model)}

    for name, app in ((NOTHING, ["benchmarks.peers:nothing"]), (TUTORIAL, ["benchmarks.peers:tutorial", "--factory"])):
        port = stack.enter_context(running([*UVICORN, *app], folder, peer))
        yield name, (port, "/predict", lambda: row)
    uri = ["-m", "mlflow", "models", "serve", "-m", "models:/fraud_detection@production", "--env-manager", "local"]
    # MLflow looks for uvicorn on the path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{home.get('PATH', '')}"
    tracking = {**home, "PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/var/mlflow.db"}
    yield MLFLOW, (stack.enter_context(running(uri, folder, tracking, "/ping")), "/invocations", lambda: rows)
    serve = ["-m", "modules.fraud_detection", "serve"]
    yield MEMORY, (stack.enter_context(running(serve, folder, home, "/ready")), "/predict", transactions("m"))
    server = RedisServer(program())
    server.start()
    stack.callback(server.kill)
    shared = {**home, "REDIS_URL": server.url, "MLOPS_PLATFORM__JOURNAL": "sqlite:///var/journal_redis.db"}
    yield REDIS, (stack.enter_context(running(serve, folder, shared, "/ready")), "/predict", transactions("r"))


def transactions(name: str) -> Callable[[], bytes]:
    """New transactions as dense as in the handbook's data: 5,000 customers, 10,000 terminals, one in nine seconds."""
    draw, number = random.Random(name), itertools.count()

    def body() -> bytes:
        place = next(number)
        at = (BEGINNING + timedelta(seconds=9 * place)).isoformat().encode()
        customer, terminal, amount = int(draw.random() * 5_000), int(draw.random() * 10_000), draw.random() * 300
        return b'{"transaction_id":"%s-%d","timestamp":"%s","customer_id":%d,"terminal_id":%d,"amount":%.2f}' % (
            name.encode(), place, at, customer, terminal, amount,
        )  # fmt: skip

    return body


@contextmanager
def running(command: list[str], folder: Path, environment: dict[str, str], path: str = "/") -> Iterator[int]:
    """Run a server on a free port until the block ends; wait until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, *command, "--port", str(port)], cwd=folder, env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        wait(f"http://127.0.0.1:{port}{path}", process)
        yield port
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until something answers."""
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            if error.code != 503:
                return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"nothing answers at {url}")
        time.sleep(0.1)


def show(results: dict[str, list[Load]], connections: int) -> None:
    """Print medians over the rounds, and ratios to the no-op and to MLflow within each round."""
    table = Table(title=f"one row per request, {connections} connections", title_justify="left")
    for heading in (
        "",
        "a second",
        "of no-op",
        "min",
        "max",
        "x mlflow",
        "p50 ms",
        "p99 ms",
        "p99 x no-op",
        "failures",
    ):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for name, loads in results.items():
        share = [one.rate / base.rate for one, base in zip(loads, results[NOTHING], strict=True)]
        times = [one.rate / base.rate for one, base in zip(loads, results[MLFLOW], strict=True)]
        p50, p99 = (statistics.median(getattr(one, which) for one in loads) for which in ("p50", "p99"))
        tail = p99 / statistics.median(one.p99 for one in results[NOTHING])
        table.add_row(
            name, f"{statistics.median(one.rate for one in loads):,.0f}", f"{statistics.median(share):.3f}",
            f"{min(share):.3f}", f"{max(share):.3f}", f"{statistics.median(times):.1f}", f"{p50:.2f}", f"{p99:.2f}",
            f"{tail:.1f}", str(sum(one.failures for one in loads)),
        )  # fmt: skip
    Console(width=140).print(table)


def show_crowds(results: dict[int, list[Load]], seconds: float) -> None:
    """Print how many were decided and how many refused, as the connections grow beyond what is in work at once."""
    table = Table(title=f"{MEMORY}, connections that ask again at once", title_justify="left")
    for heading in ("connections", "decided a second", "of the best", "refused a second", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    rates = {count: statistics.median(one.rate for one in loads) for count, loads in results.items()}
    for count, loads in results.items():
        p50, p99 = (statistics.median(getattr(one, which) for one in loads) for which in ("p50", "p99"))
        refused = statistics.median(one.failures for one in loads) / seconds
        table.add_row(
            f"{count:,}", f"{rates[count]:,.0f}", f"{rates[count] / max(rates.values()):.2f}", f"{refused:,.0f}",
            f"{p50:.1f}", f"{p99:.1f}",
        )  # fmt: skip
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
