"""python -m modules.complaint_triage WORD: every command of the module."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from mlops import bootstrap, caller, logs
from mlops.errors import MlopsError
from mlops.progress import Phases
from modules.complaint_triage import settings
from modules.complaint_triage.settings import NAME, Settings

Words = argparse.Namespace

REFUSED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one word; return 0, 3 for a refused version, or 1 after one line that says what is wrong and what to do."""
    words = _parser().parse_args(arguments)
    try:
        return WORDS[words.word](words) or 0
    except MlopsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def pipeline(words: Words) -> None:
    """Make a model version from complaints."""
    # Each word imports only what it runs.
    from modules.complaint_triage import run_pipeline, summary
    from modules.complaint_triage.job import Job

    read = _settings(words)
    source = run_pipeline.SIMULATED if words.data is None else _located(words.data)
    job = Job(read, bootstrap.connect(read.platform), logs.start(NAME), source)
    names = [words.only] if words.only else list(run_pipeline.PHASES)
    with Phases(names, job.logger, Console(stderr=True)) as progress:
        run_pipeline.run(job, progress, words.only, words.resume)
    if not words.only:
        summary.show(job, Console(soft_wrap=False))


def lineage(words: Words) -> None:
    """Walk from a version or a decision back to the raw bytes and check every hash on the way."""
    from mlops.journaling import journal
    from mlops.releasing.lineage import walk
    from mlops.serving.deciding import decision_id
    from modules.complaint_triage import lineage

    platform = _settings(words).platform
    decision = decision_id(words.decision) if words.decision else None
    kept, trace = partial(journal.connect, platform.journal), partial(lineage.trace, bootstrap.connect(platform))
    Console().print(walk(kept, words.version, decision, trace))


def gate(words: Words) -> int:
    """Compare a version with production; refuse it with reasons and exit code 3, or pass it."""
    from modules.complaint_triage import gate

    read = _settings(words)
    act = gate.judge(read, bootstrap.connect(read.platform), words.version, words.who).act
    for name, value in act.figures.items():
        print(f"{name:32} {value:.2f}" if isinstance(value, float) else f"{name:32} {value}")
    print(f"version {words.version} {'passed' if act.figures['passed'] else 'refused'}: {act.why}")
    return 0 if act.figures["passed"] else REFUSED


def serve(words: Words) -> None:
    """Answer over HTTP: route, explain, learn."""
    from mlops.serving.api import Reach
    from modules.complaint_triage import serve

    serve.serve(_settings(words), Reach(words.host, words.port, words.workers, None), print)


WORDS: Mapping[str, Callable[[Words], int | None]] = {
    "pipeline": pipeline,
    "lineage": lineage,
    "gate": gate,
    "serve": serve,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modules.complaint_triage", description=__doc__)
    subparsers = parser.add_subparsers(dest="word", required=True, metavar="WORD")
    words = {
        word: subparsers.add_parser(word, help=run.__doc__, description=run.__doc__) for word, run in WORDS.items()
    }
    for each in words.values():
        each.add_argument("--config", type=Path, help="a YAML file instead of config/config.yaml")
        each.add_argument("--profile", default=os.environ.get("PROFILE", "local"), help="local or aws")
    words["pipeline"].add_argument("--data", help="CSV or Parquet: a file, a folder, an s3:// key; else a simulation")
    words["pipeline"].add_argument("--only", metavar="PHASE", help="run one phase from what the ones before it left")
    words["pipeline"].add_argument("--resume", action="store_true", help="go on after the last phase that was finished")
    words["lineage"].add_argument("--version", default="production", help="a number or an alias")
    words["lineage"].add_argument("--decision", help="a decision_id: begin with this decision, and its version")
    words["gate"].add_argument("--version", type=int, required=True, help="the number of a registered version")
    words["gate"].add_argument("--who", default=caller.name(), help="who asks; stands in the ledger")
    words["serve"].add_argument("--host", default="127.0.0.1", help="the address to listen on; others need keys")
    words["serve"].add_argument("--port", type=int, default=8000, help="the port; 0 takes a free one")
    words["serve"].add_argument("--workers", type=int, default=1, help="processes; more than one need Redis")
    return parser


def _settings(words: Words) -> Settings:
    return settings.read(words.config, words.profile, os.environ)


def _located(data: str) -> str:
    return data if "://" in data else str(Path(data).resolve())


if __name__ == "__main__":
    sys.exit(main())
