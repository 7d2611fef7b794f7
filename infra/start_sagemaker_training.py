"""python infra/start_sagemaker_training.py: train in SageMaker from a feature snapshot, with the image in ECR."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from infra import sagemaker
from infra.sagemaker import DONE, FAILED, INTERRUPTED, PACE, TIMED_OUT, Found, Pace, Request, TimedOut
from mlops.errors import BadInput, Damaged, MlopsError, NotFound
from mlops.storage import objects
from mlops.storage.objects import MODELS, PROCESSED

REPOSITORY, CHANNEL = "fraud-train", "train"
SNAPSHOTS, MANIFEST = f"{PROCESSED}/features", "manifest.json"
OUTPUT = f"{MODELS}/sagemaker/"
ENDED = ("Completed", "Failed", "Stopped")
GIGABYTES = 10


def main(arguments: Sequence[str] | None = None, pace: Pace = PACE) -> int:
    """Start a job, and wait for it with --wait.

    Returns 0 when it was started or completed, 1 when it failed or after one line on what is wrong, 2 when it took too
    long and was stopped, 130 after Ctrl-C, which leaves it running.
    """
    return sagemaker.guarded(lambda: _run(_parser().parse_args(arguments), pace))


def _run(words: argparse.Namespace, pace: Pace) -> int:
    asked = request(words)
    if words.dry_run:
        print(json.dumps(asked, indent=1))
        return DONE
    client = sagemaker.client("sagemaker")
    name = _start(client, asked, words.again, words.wait)
    return _end(client, name, words.timeout, pace) if words.wait else DONE


def request(words: argparse.Namespace) -> Request:
    """All that is asked of SageMaker; what the words leave open is looked up. Raises any `MlopsError`.

    The job's name follows from everything else in it. SageMaker gives a name once, so the same job does not start twice
    by mistake.
    """
    bucket = sagemaker.place(words).url
    snapshot = words.snapshot if words.snapshot and words.dry_run else _snapshot(bucket, words.snapshot)
    place = {
        "S3DataType": "S3Prefix", "S3Uri": f"{bucket}/{SNAPSHOTS}/{snapshot}/",
        "S3DataDistributionType": "FullyReplicated",
    }  # fmt: skip
    asked = {
        "AlgorithmSpecification": {
            "TrainingImage": sagemaker.image_uri(words.image, REPOSITORY), "TrainingInputMode": "File",
        },
        "RoleArn": sagemaker.role_arn(words.role),
        "HyperParameters": dict(words.hyperparameter),
        "InputDataConfig": [{"ChannelName": CHANNEL, "DataSource": {"S3DataSource": place}}],
        "OutputDataConfig": {"S3OutputPath": f"{bucket}/{OUTPUT}"},
        "ResourceConfig": {"InstanceType": words.instance, "InstanceCount": 1, "VolumeSizeInGB": GIGABYTES},
        "StoppingCondition": {"MaxRuntimeInSeconds": words.timeout},
        "Tags": sagemaker.tags(module=words.module, snapshot=snapshot),
    }  # fmt: skip
    return {"TrainingJobName": sagemaker.named(f"{words.module}-{snapshot}", asked), **asked}


def _snapshot(bucket: str, name: str | None) -> str:
    """The snapshot of this name, or the one whose data reaches furthest. Raises `NotFound`."""
    store = objects.connect(bucket)
    known = {key.split("/")[-2]: key for key in store.list(SNAPSHOTS) if key.endswith(f"/{MANIFEST}")}
    if name is not None:
        if name not in known:
            raise NotFound(f"there is no feature snapshot '{name}' in {bucket}; there is: {', '.join(known) or 'none'}")
        return name
    if not known:
        raise NotFound(f"there is no feature snapshot in {bucket} yet; make one with the word 'pipeline'")
    return max(known, key=lambda one: (_until(objects.read(store, known[one]), one), one))


def _until(manifest: bytes, snapshot: str) -> datetime:
    try:
        return datetime.fromisoformat(json.loads(manifest)["until"])
    except (ValueError, TypeError, KeyError):
        raise Damaged(f"the manifest of snapshot {snapshot} is broken; make the snapshot again") from None


def _start(client: Any, asked: Request, again: bool, wait: bool) -> str:
    """Start the job, or go on with one that runs, and return its name. Raises `BadInput` for one that has ended."""
    first = name = str(asked["TrainingJobName"])
    found, number = _find(client, name), 1
    while again and found is not None:
        number += 1
        name = f"{first}-{number}"
        found = _find(client, name)
    if found is None:
        with sagemaker.translated(f"training job {name}"):
            client.create_training_job(**{**asked, "TrainingJobName": name})
        print(f"started {name}", flush=True)
    elif wait and found["TrainingJobStatus"] not in ENDED:
        print(f"{name} runs already", flush=True)
    else:
        same = "the same snapshot, image and options make the same job"
        state = found["TrainingJobStatus"]
        raise BadInput(f"training job {name} was started before and is {state}: {same}; say --again for another")
    return name


def _end(client: Any, name: str, limit: int, pace: Pace) -> int:
    """Wait until the job has ended, and say how; stop one that takes too long."""
    try:
        found = sagemaker.waited(lambda: _look(client, name), _said, _has_ended, limit, pace)
    except TimedOut as late:
        found = _stop(client, name, late)
    except KeyboardInterrupt:
        print(f"{name} goes on; the same command with --wait waits for it again", file=sys.stderr)
        return INTERRUPTED
    if found["TrainingJobStatus"] == "Completed":
        print(f"model: {found['ModelArtifacts']['S3ModelArtifacts']}")
        return DONE
    print(f"error: {_said(found)}: {found.get('FailureReason', 'no reason was given')}", file=sys.stderr)
    return TIMED_OUT if found["SecondaryStatus"] == "MaxRuntimeExceeded" else FAILED


def _stop(client: Any, name: str, late: TimedOut) -> Found:
    """Tell the job to stop, and raise `TimedOut`; return how it stands where it has just ended by itself."""
    try:
        with sagemaker.translated(f"training job {name}"):
            client.stop_training_job(TrainingJobName=name)
    except MlopsError:
        found = _look(client, name)
        if _has_ended(found):
            return found
        raise
    raise TimedOut(f"{late}; it was told to stop")


def _find(client: Any, name: str) -> Found | None:
    try:
        return _look(client, name)
    except NotFound:
        return None


def _look(client: Any, name: str) -> Found:
    with sagemaker.translated(f"training job {name}"):
        return dict(client.describe_training_job(TrainingJobName=name))


def _has_ended(found: Found) -> bool:
    return found["TrainingJobStatus"] in ENDED


def _said(found: Found) -> str:
    return f"{found['TrainingJobName']}: {found['TrainingJobStatus']} ({found['SecondaryStatus']})"


def _parser() -> sagemaker.Parser:
    parser = sagemaker.parser(__doc__, "1h")
    parser.add_argument("--snapshot", help="the name of a feature snapshot; without it the latest")
    parser.add_argument(
        "--hyperparameter", type=_pair, action="append", default=[], metavar="NAME=VALUE", help="may come several times"
    )
    parser.add_argument("--instance", default="ml.m5.large", help="the machine; ml.m5.large")
    parser.add_argument("--wait", action="store_true", help="wait until it has ended; Ctrl-C leaves it running")
    parser.add_argument("--again", action="store_true", help="start the same job another time")
    return parser


def _pair(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"(\w+)=(.+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    return match[1], match[2]


if __name__ == "__main__":
    sys.exit(main())
