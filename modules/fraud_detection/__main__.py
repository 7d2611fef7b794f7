"""python -m modules.fraud_detection WORD: every command of the module."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rich.console import Console

from mlops import bootstrap
from mlops.errors import MlopsError
from mlops.progress import Phases
from modules.fraud_detection import options, settings
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import Settings
from modules.fraud_detection.src.utils import logger

Words = argparse.Namespace

REFUSED, NOT_NOW = 3, 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one word; return 0, 3 for a refused candidate, or 1 after one line that says what is wrong and what to do."""
    said = {word: run.__doc__ for word, run in WORDS.items()}
    words = options.parser(said, __doc__).parse_args(arguments)
    try:
        return WORDS[words.word](words) or 0
    except MlopsError as error:
        print(f"error: {logger.masked(str(error))}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as missing:
        way = "use the image fraud-train, or make install"
        print(f"error: '{words.word}' needs {missing.name}, which is not installed here; {way}", file=sys.stderr)
        return 1


def pipeline(words: Words) -> None:
    """Make a model version from raw transactions."""
    # Each word imports only what it runs: a second saved at every start.
    from modules.fraud_detection import run_pipeline, summary
    from modules.fraud_detection.src.data.load_data import SIMULATED

    job = _job(words, str(_located(words.data)) if words.data else SIMULATED)
    console = Console(stderr=True)
    names = [words.only] if words.only else list(run_pipeline.PHASES)
    with Phases(names, job.logger, console) as progress:
        run_pipeline.run(job, progress, words.only, words.resume)
    if not words.only:
        summary.show(job, Console(soft_wrap=False))


def train(words: Words) -> None:
    """Train, evaluate, explain and register from a stored snapshot, or as a SageMaker training container."""
    from modules.fraud_detection import sagemaker
    from modules.fraud_detection.train import from_snapshot

    if (words.opt_ml / "input").is_dir():
        sagemaker.train(words.opt_ml, _settings(words))
    else:
        job = _job(words, words.snapshot or "the latest snapshot")
        from_snapshot(job, words.snapshot)
        print(f"registered version {job.records['register']['version']} of {settings.NAME}")


def features(words: Words) -> None:
    """Write the id and every feature of every row of a table."""
    from modules.fraud_detection import write_features

    rows, bad = write_features.write(words.data, Path(words.out), _settings(words))
    print(f"wrote {rows:,} rows to {words.out}" + (f"; {bad:,} bad ones have empty features" if bad else ""))


def benchmark(words: Words) -> None:
    """Repeat the Fraud Detection Handbook's protocol and print ours beside the published results."""
    from modules.fraud_detection import benchmark

    benchmark.run(words.data, Console(), words.choosing)


def lineage(words: Words) -> None:
    """Walk from a version or a decision back to the raw bytes and check every hash on the way."""
    from mlops.journaling import journal
    from mlops.releasing.lineage import walk
    from mlops.serving.deciding import decision_id
    from modules.fraud_detection import lineage

    platform = _settings(words).platform
    decision = decision_id(words.decision) if words.decision else None
    kept, trace = partial(journal.connect, platform.journal), partial(lineage.trace, bootstrap.connect(platform))
    Console().print(walk(kept, words.version, decision, trace))


def serve(words: Words) -> None:
    """Answer over HTTP: decide, explain, learn; as a SageMaker container with the version that was packed for it."""
    from mlops.releasing import packed
    from mlops.serving.api import SAGEMAKER_PORT, Reach
    from modules.fraud_detection import serve

    version = packed.unpacked(words.opt_ml / "model")
    sagemaker = words.sagemaker_port or SAGEMAKER_PORT if words.sagemaker or version else None
    reach = Reach(words.host, words.port, words.workers, sagemaker)
    serve.serve(_settings(words), reach, print, version)


def consume(words: Words) -> None:
    """Decide what a stream brings: Kinesis, or lines from standard input."""
    from modules.fraud_detection import consume

    given = {"source": words.stream, "start": words.start}
    changed = {"streaming": {name: value for name, value in given.items() if value is not None}}
    read = settings.read(words.config, words.profile, os.environ, changed)
    metrics = None if words.metrics_port is None else (words.metrics_host, words.metrics_port)
    consume.consume(read, metrics, partial(print, flush=True))


def replay_dlq(words: Words) -> int:
    """Decide dead letters again: as they are, or as they were mended; exit code 3 where some are refused still."""
    from modules.fraud_detection.replay_dlq import Replay

    replay = Replay(_settings(words))
    if words.list:
        for id_, letter in replay.waiting():
            where = f"{letter.stream} {letter.shard} {letter.sequence}"
            print(f"{id_.hex()}  {where}  {len(letter.data)} bytes  {letter.field or '-'}: {letter.reason}")
        return 0
    if words.out:
        print(f"wrote {replay.write(words.out):,} dead letters to {words.out}; mend `record`, then say --mended")
        return 0
    if words.drop:
        replay.drop(words.drop, words.who, words.why)
        return 0
    found = replay.mended(words.mended) if words.mended else replay.as_they_are()
    print(f"{found.decided:,} decided, {found.repeated:,} had been decided before, {found.refused.total():,} refused")
    for reason, count in found.refused.most_common():
        print(f"  {count:,} x {reason}")
    return REFUSED if found.refused else 0


def feature_group(words: Words) -> None:
    """Share features through SageMaker Feature Store: make a group, fill it, read it back as a snapshot."""
    from mlops.storage.feature_group import FeatureGroup
    from modules.fraud_detection import feature_group
    from modules.fraud_detection.src.features import feature_store

    store, group = bootstrap.connect(_settings(words).platform).objects, FeatureGroup(words.name)
    if words.take:
        manifest = feature_group.snapshot(store, group, words.as_of)
        print(f"stored snapshot {manifest.name} with {manifest.rows:,} rows; train from it: train --snapshot")
        return
    snapshot = words.snapshot or feature_store.latest(store)
    if words.create:
        feature_group.create(store, group, snapshot, words.create)
        print(f"made feature group {words.name} for snapshots like {snapshot}")
    else:
        print(f"put {feature_group.put(store, group, snapshot):,} rows of snapshot {snapshot} into {words.name}")


def demo(words: Words) -> None:
    """Live through 80 days in minutes: drift, retraining, promotion, a refused and a rolled-back candidate."""
    from modules.fraud_detection import demo, demo_result

    folder, console = Path("var/demo"), Console(highlight=False, width=110)
    read = settings.read(words.config or settings.FILE.with_name("demo.yaml"), words.profile, os.environ)
    result = demo.Demo(read, demo.STORY, folder, print).run()
    demo_result.draw(result, folder / "timeline.png")
    console.print(demo_result.table(result))
    console.print(f"picture: {folder / 'timeline.png'}")


def gate(words: Words) -> int:
    """Compare a version with production; refuse it with reasons and exit code 3, or pass it."""
    from mlops.journaling import journal
    from modules.fraud_detection import gate

    read, version = _settings(words), int(words.version)
    book = journal.connect(read.platform.journal)
    act = gate.judge(read, bootstrap.connect(read.platform), book, version, words.who, _now()).act
    for name, value in act.figures.items():
        print(f"{name:42} {value:.4f}" if isinstance(value, float) else f"{name:42} {value}")
    print(f"version {version} {'passed' if act.figures['passed'] else 'refused'}: {act.why}")
    return 0 if act.figures["passed"] else REFUSED


def retrain(words: Words) -> int:
    """Make a candidate from all that is known by now; exit code 3 if the gate refuses it, 4 if it is not the time."""
    from mlops.journaling import journal
    from modules.fraud_detection.retrain import NotNow, Retraining

    read = _settings(words)
    platform, book = bootstrap.connect(read.platform), journal.connect(read.platform.journal)
    try:
        found = Retraining(read, platform, book, Console(stderr=True)).run(words.why, _now(), words.force)
    except NotNow as later:
        print(f"not now: {later}", file=sys.stderr)
        return NOT_NOW
    print(f"version {found.version} {'watches in the shadow' if found.passed else 'refused'}: {found.why}")
    return 0 if found.passed else REFUSED


def watch(words: Words) -> None:
    """Judge the candidate on trial: move it on, hold it, promote it or roll it back."""
    from mlops.journaling import journal
    from modules.fraud_detection import watch

    read = _settings(words)
    watcher = watch.watcher(read, bootstrap.connect(read.platform), journal.connect(read.platform.journal))
    while True:
        verdict = watcher.look()
        print("nothing is on trial" if verdict is None else f"{verdict.step}: {verdict.why}", flush=True)
        if words.once:
            return
        time.sleep(words.every)


def key(words: Words) -> None:
    """Make an API key: its text to hand over, and the lines that let it in."""
    from mlops.serving import access

    text, hash_ = access.make()
    print(f"key, shown this once: {text}")
    print(f"serving: {{keys: [{{name: {words.name}, sha256: {hash_}}}]}}")


def verify(words: Words) -> None:
    """Walk the journal's chain and name the first row that is not what was written."""
    from mlops.journaling import journal

    head = journal.connect(_settings(words).platform.journal).verify()
    print(f"{head.count:,} rows, each as it was written; the last has hash {head.hash.hex()}")


def export(words: Words) -> None:
    """Write a day of the journal to monitoring/ as Parquet."""
    from mlops.journaling import journal, journal_export

    platform = _settings(words).platform
    connected = bootstrap.connect(platform)
    key = journal_export.write(journal.connect(platform.journal), connected.objects, words.day)
    print(f"no rows on {words.day}" if key is None else f"wrote {connected.objects.url(key)}")


WORDS: Mapping[str, Callable[[Words], int | None]] = {
    "pipeline": pipeline,
    "train": train,
    "features": features,
    "benchmark": benchmark,
    "lineage": lineage,
    "serve": serve,
    "consume": consume,
    "replay-dlq": replay_dlq,
    "feature-group": feature_group,
    "demo": demo,
    "gate": gate,
    "retrain": retrain,
    "watch": watch,
    "verify": verify,
    "export": export,
    "key": key,
}


def _settings(words: Words) -> Settings:
    return settings.read(words.config, words.profile, os.environ)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _job(words: Words, source: str) -> Job:
    read = _settings(words)
    return Job(read, bootstrap.connect(read.platform), logger.start(read.data.entities), source)


def _located(data: str) -> str:
    return data if "://" in data else str(Path(data).resolve())


if __name__ == "__main__":
    sys.exit(main())
