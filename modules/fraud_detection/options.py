"""The options of every word of `python -m modules.fraud_detection`."""

import argparse
import os
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import get_args

from mlops import caller
from mlops.streaming.stream import Start

Parsers = Mapping[str, argparse.ArgumentParser]

TABLE = "CSV or Parquet: a file, a folder, an s3:// key"
OPT_ML = Path("/opt/ml")
WITHOUT_SETTINGS = ("benchmark", "key")


def parser(said: Mapping[str, str | None], about: str | None) -> argparse.ArgumentParser:
    """The parser of all words; `said` is what each does."""
    whole = argparse.ArgumentParser(prog="python -m modules.fraud_detection", description=about)
    subparsers = whole.add_subparsers(dest="word", required=True, metavar="WORD")
    words = {word: subparsers.add_parser(word, help=text, description=text) for word, text in said.items()}
    for word in words.keys() - set(WITHOUT_SETTINGS):
        words[word].add_argument("--config", type=Path, help="a YAML file instead of config/config.yaml")
        words[word].add_argument("--profile", default=os.environ.get("PROFILE", "local"), help="local or aws")
    for add in (_making, _serving, _streaming, _sharing, _watching, _looking):
        add(words)
    return whole


def _making(words: Parsers) -> None:
    words["pipeline"].add_argument("--data", help=f"{TABLE}; without it a simulation")
    words["pipeline"].add_argument("--only", metavar="PHASE", help="run one phase from what the ones before it left")
    words["pipeline"].add_argument("--resume", action="store_true", help="go on after the last phase that was finished")
    words["train"].add_argument("--snapshot", help="the name of a feature snapshot; without it the latest")
    words["train"].add_argument("--opt-ml", type=Path, default=OPT_ML, help="SageMaker's folder")
    words["features"].add_argument("--data", required=True, help=TABLE)
    words["features"].add_argument("--out", required=True, help="the .parquet or .csv file to write")
    words["benchmark"].add_argument("--data", required=True, help="the handbook's transactions")
    words["benchmark"].add_argument(
        "--choosing", action="store_true", help="on the folds our own features were chosen on"
    )


def _serving(words: Parsers) -> None:
    words["serve"].add_argument("--host", default="127.0.0.1", help="the address to listen on; others need keys")
    words["serve"].add_argument("--port", type=int, default=8000, help="the port; 0 takes a free one")
    words["serve"].add_argument("--workers", type=int, default=1, help="processes; more than one need Redis")
    words["serve"].add_argument("--sagemaker", action="store_true", help="answer on SageMaker's port as well")
    # SageMaker names another port where a container is one of several.
    named = os.environ.get("SAGEMAKER_BIND_TO_PORT")
    words["serve"].add_argument("--sagemaker-port", type=int, default=named, help="instead of 8080")
    words["serve"].add_argument(
        "--opt-ml", type=Path, default=OPT_ML, help="SageMaker's folder; a version in its model/ is served"
    )
    words["key"].add_argument("--name", required=True, help="whose key it is")


def _streaming(words: Parsers) -> None:
    words["consume"].add_argument("--stream", help="kinesis://NAME, or memory:// for standard input, one a line")
    words["consume"].add_argument(
        "--from", dest="start", choices=get_args(Start), help="where to begin in a stream that was never read"
    )
    words["consume"].add_argument("--metrics-port", type=int, help="serve metrics for Prometheus here; 0: a free port")
    words["consume"].add_argument("--metrics-host", default="127.0.0.1", help="the address that they are served at")
    what = words["replay-dlq"].add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="show the letters that wait")
    what.add_argument("--out", type=Path, help="write them to this file as lines of JSON, to be mended")
    what.add_argument("--mended", type=Path, help="decide the lines of this file")
    what.add_argument("--drop", metavar="ID", help="throw a letter away; needs --why")
    words["replay-dlq"].add_argument("--who", default=caller.name(), help="who drops it; stands in the journal")
    words["replay-dlq"].add_argument("--why", default="", help="the reason; stands in the journal")


def _sharing(words: Parsers) -> None:
    what = words["feature-group"].add_mutually_exclusive_group(required=True)
    what.add_argument("--create", metavar="ROLE", help="make the group; the ARN by whose rights it writes to S3")
    what.add_argument("--put", action="store_true", help="put every row of a snapshot")
    what.add_argument("--take", action="store_true", help="store what the group's part in S3 holds as a snapshot")
    words["feature-group"].add_argument("--name", required=True, help="the group's name")
    words["feature-group"].add_argument("--snapshot", help="a feature snapshot; without it the latest")
    words["feature-group"].add_argument("--as-of", type=datetime.fromisoformat, help="up to this moment (UTC)")


def _watching(words: Parsers) -> None:
    words["gate"].add_argument("--version", required=True, help="the number of a registered version")
    words["gate"].add_argument("--who", default=caller.name(), help="who asks; stands in the ledger")
    words["retrain"].add_argument("--why", default="by hand", help="the reason; stands in the ledger")
    words["retrain"].add_argument("--force", action="store_true", help="also during a trial or the cool-down")
    words["watch"].add_argument("--once", action="store_true", help="look once")
    words["watch"].add_argument("--every", type=float, default=60.0, help="seconds between two looks")


def _looking(words: Parsers) -> None:
    words["lineage"].add_argument("--version", default="production", help="a number or an alias")
    words["lineage"].add_argument("--decision", help="a decision_id: begin with this decision, and its version")
    today = datetime.now(UTC).date()
    words["export"].add_argument("--day", type=date.fromisoformat, default=today, help="such as 2026-01-31; UTC")
