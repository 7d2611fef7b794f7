"""What the commands for SageMaker share: clients that give up, look-ups by name, waiting, one line for what fails."""

import argparse
import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from botocore.exceptions import ClientError

from mlops import aws, secrets, settings
from mlops.errors import BadConfiguration, BadInput, MlopsError, NotFound, Unreachable
from mlops.settings import Platform
from mlops.values import seconds

ROOT = Path(__file__).parents[1]
DONE, FAILED, TIMED_OUT, INTERRUPTED = 0, 1, 2, 130
PATIENCE, ANSWER = 5.0, 70.0
"""Seconds to wait for a connection, and for an answer: an endpoint may take sixty."""
TRIES = 4
GONE = ("ResourceNotFound", "RepositoryNotFoundException", "NoSuchEntity", "404")
NOT_THERE = re.compile("could not find|not found|does not exist", re.IGNORECASE)
ROLE = "mlops-sagemaker"
NAME = "[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"

Request = dict[str, Any]
Found = Mapping[str, Any]


class TimedOut(MlopsError):
    """What was waited for did not come in time."""


@dataclass(frozen=True)
class Pace:
    """How long to wait, and the clock that says so: between two looks `first` seconds, later up to `longest`."""

    first: float = 5.0
    longest: float = 60.0
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


PACE = Pace()


class Place(NamedTuple):
    """The platform's bucket, or the part of it below a prefix."""

    platform: Platform
    url: str


class Parser(argparse.ArgumentParser):
    """A parser whose complaint is one line like any other: its usual exit code 2 means a time-out here."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}; --help lists the options")


def parser(description: str | None, timeout: str) -> Parser:
    """The options that every command has; `timeout` is how long it waits where nothing is said."""
    made = Parser(description=description)
    made.add_argument("--module", default="fraud_detection", help="the folder in modules/; fraud_detection")
    made.add_argument("--image", help="its URI; without it the image that was pushed last")
    made.add_argument("--role", help=f"what it may do: an ARN; without it the role {ROLE}")
    made.add_argument(
        "--timeout", type=_length, default=timeout, metavar="TIME", help=f"the longest to wait, such as 90s; {timeout}"
    )
    made.add_argument("--dry-run", action="store_true", help="print the requests and create nothing")
    made.add_argument("--config", type=Path, help="a YAML file instead of the module's config/config.yaml")
    made.add_argument("--profile", default=os.environ.get("PROFILE", "aws"), help="of the configuration; aws")
    return made


def guarded(run: Callable[[], int]) -> int:
    """Run a command; what it raises becomes one line and an exit code: 2 for a time-out, 130 for Ctrl-C, 1 else."""
    try:
        return run()
    except TimedOut as late:
        print(f"timed out: {secrets.hidden(str(late))}", file=sys.stderr)
        return TIMED_OUT
    except MlopsError as error:
        print(f"error: {secrets.hidden(str(error))}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def place(words: argparse.Namespace) -> Place:
    """Where the platform keeps its files, which SageMaker has to reach. Raises `BadConfiguration`."""
    file = ROOT / "modules" / words.module / "config" / "config.yaml"
    platform = settings.section(Platform, "platform", words.config or file, words.profile, os.environ)
    if not platform.objects.startswith("s3://"):
        way = "say --profile aws or MLOPS_PLATFORM__OBJECTS=s3://BUCKET"
        raise BadConfiguration(f"platform.objects is '{platform.objects}', where SageMaker cannot read; {way}")
    return Place(platform, platform.objects.rstrip("/"))


def client(service: str) -> Any:
    """A client that gives up soon. Raises `BadConfiguration` where no region is set."""
    return aws.client(service, service, patience=PATIENCE, answer=ANSWER, tries=TRIES)


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what AWS says of `what` into an error of ours in one line; what is not there is `NotFound`."""
    with aws.translated(what, {}):
        try:
            yield
        except ClientError as error:
            # SageMaker says so in words alone.
            said = " ".join(error.response["Error"].get("Message", "").split())
            if aws.code(error) in GONE or NOT_THERE.search(said):
                raise NotFound(f"{what}: {said}") from None
            raise


def role_arn(given: str | None) -> str:
    """The role that SageMaker works as. Raises `NotFound`."""
    if given:
        return given
    try:
        with translated(f"role {ROLE}"):
            return str(client("iam").get_role(RoleName=ROLE)["Role"]["Arn"])
    except NotFound:
        raise NotFound(f"there is no role '{ROLE}'; Terraform makes it, or name another: --role ARN") from None


def image_uri(given: str | None, repository: str) -> str:
    """The image that was pushed last, by its digest, so that what runs is what was found. Raises `NotFound`."""
    if given:
        return given
    ecr = client("ecr")
    try:
        with translated(f"repository {repository}"):
            uri = ecr.describe_repositories(repositoryNames=[repository])["repositories"][0]["repositoryUri"]
            pages = ecr.get_paginator("describe_images").paginate(repositoryName=repository)
            images = [one for page in pages for one in page["imageDetails"] if one.get("imageTags")]
    except NotFound:
        raise NotFound(f"there is no repository '{repository}'; Terraform makes it, or say --image URI") from None
    if not images:
        raise NotFound(f"repository '{repository}' holds no image; push one: infra/ecr_push.sh")
    return f"{uri}@{max(images, key=lambda one: one['imagePushedAt'])['imageDigest']}"


def named(base: str, request: Request) -> str:
    """A name that says what is asked for: equal requests have equal names. Raises `BadInput` for too long a base."""
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{base.replace('_', '-')}-{digest}"
    if not re.fullmatch(NAME, name):
        raise BadInput(f"'{name}' is no name for SageMaker; it takes 63 letters, digits and single hyphens")
    return name


def tags(**values: str) -> list[dict[str, str]]:
    """Tags under `mlops:`, by which bills and people find what is ours."""
    return [{"Key": f"mlops:{name}", "Value": value} for name, value in values.items()]


def waited(
    look: Callable[[], Found], said: Callable[[Found], str], settled: Callable[[Found], bool], limit: int, pace: Pace
) -> Found:
    """Look again and again until it has settled, print every change, and return what was found last.

    A look that meets no answer is made again. Raises `TimedOut` after `limit` seconds.
    """
    until, pause, before = pace.clock() + limit, pace.first, ""
    while True:
        try:
            found = look()
            now = said(found)
            if settled(found):
                print(now, flush=True)
                return found
        except Unreachable as error:
            now = f"no answer, asking again: {error}"
        if now != before:
            print(now, flush=True)
            before = now
        left = until - pace.clock()
        if left <= 0:
            raise TimedOut(f"{now} after {limit} seconds")
        pace.pause(min(pause, left))
        pause = min(pause * 1.5, pace.longest)


def _length(text: str) -> int:
    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
