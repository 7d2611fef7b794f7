"""What a SageMaker endpoint is to be: a version's archive, an image, a role, an environment, and one name for them."""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from infra import sagemaker
from infra.sagemaker import Place, Request
from mlops import bootstrap
from mlops.errors import BadInput, Damaged, NotFound
from mlops.releasing import packed
from mlops.releasing.registry import Version
from mlops.settings import Platform
from mlops.storage import objects

REPOSITORY, VARIANT = "fraud-serve", "production"
CANNED = "canned.json"
PLATFORM, PLACES = "MLOPS_PLATFORM__", ("objects", "online", "journal")
JOURNAL, LOCAL = f"{PLATFORM}JOURNAL", ("file://", "sqlite://", "memory://")
VARIABLE = re.compile("MLOPS_[A-Z0-9_]+|PROFILE|REDIS_URL")
WAKING = 600
"""Seconds that a container may take until it is ready: it fills its past first."""


@dataclass(frozen=True)
class Plan:
    """An endpoint, the model and the configuration of one name, the version they serve, and a transaction to ask it."""

    endpoint: str
    name: str
    version: Version
    model: Request
    configuration: Request
    smoke: bytes

    @property
    def requests(self) -> Request:
        """All that is asked of SageMaker."""
        return {
            "create_model": {"ModelName": self.name, **self.model},
            "create_endpoint_config": {"EndpointConfigName": self.name, **self.configuration},
            "create_endpoint": {"EndpointName": self.endpoint, "EndpointConfigName": self.name},
            "invoke_endpoint": {"EndpointName": self.endpoint, "Body": self.smoke.decode(errors="replace")},
        }


def plan(words: argparse.Namespace, endpoint: str) -> Plan:
    """Find the version and its archive and say what is to be made of them. Raises any `MlopsError`.

    The name of the model and the configuration follows from all that is in them.
    """
    place = sagemaker.place(words)
    environment = _environment(words, place.platform)
    url, version, smoke = _archive(words, place)
    image, role = sagemaker.image_uri(words.image, REPOSITORY), sagemaker.role_arn(words.role)
    tags = sagemaker.tags(module=words.module, version=str(version.number), model=version.tags["model_hash"])
    model = {
        "PrimaryContainer": {"Image": image, "ModelDataUrl": url, "Environment": environment},
        "ExecutionRoleArn": role, "Tags": tags,
    }  # fmt: skip
    variant = {
        "VariantName": VARIANT, "InstanceType": words.instance, "InitialInstanceCount": 1, "InitialVariantWeight": 1.0,
        "ContainerStartupHealthCheckTimeoutInSeconds": WAKING,
    }  # fmt: skip
    name = sagemaker.named(f"{endpoint}-v{version.number}", {**model, **variant})
    configuration = {"ProductionVariants": [{**variant, "ModelName": name}], "Tags": tags}
    return Plan(endpoint, name, version, model, configuration, _file(words.smoke) if words.smoke else smoke)


def variable(text: str) -> tuple[str, str]:
    """Read a variable of the container, such as `MLOPS_PLATFORM__ONLINE=redis://cache:6379/0`."""
    name, separator, value = text.partition("=")
    if not separator or not VARIABLE.fullmatch(name):
        raise argparse.ArgumentTypeError("write MLOPS_..., PROFILE or REDIS_URL, an equals sign and the value")
    return name, value


def _environment(words: argparse.Namespace, platform: Platform) -> dict[str, str]:
    """What the container is told: the platform's places that it can reach, and over them what the words say."""
    places = {f"{PLATFORM}{name.upper()}": getattr(platform, name) for name in PLACES}
    told = {name: url for name, url in places.items() if not url.startswith(LOCAL)} | dict(words.environment)
    for name, value in told.items():
        # Who may describe the model can read them all.
        if _tells_a_password(value):
            raise BadInput(f"the value of {name} holds a password; name a secret instead: secret://NAME")
    if told.get(JOURNAL, LOCAL[0]).startswith(LOCAL):
        line = f"the journal lies in the container and ends with it; say --environment {JOURNAL}=..."
        print(f"warning: {line}", file=sys.stderr)
    return told


def _archive(words: argparse.Namespace, place: Place) -> tuple[str, Version, bytes]:
    """Where the archive lies, which version it is, and its canned transaction; every file in it is checked."""
    with objects.scratch() as folder:
        if words.archive:
            url, number = words.archive, None
            if not re.fullmatch(r"s3://[^/]+/.+\.tar\.gz", url):
                raise BadInput(f"'{url}' is no archive; write s3://BUCKET/KEY.tar.gz")
            copy = objects.fetch(url, folder / "archive")[0]
        else:
            number = _production(words.module, place) if words.version is None else words.version
            store, key = objects.connect(place.url), packed.key(words.module, number)
            copy, url = objects.download_all(store, [key], folder / "archive")[0], store.url(key)
        version = packed.unpack(copy, folder / "model").version
        if version.name != words.module or number not in (None, version.number):
            raise Damaged(f"{url} holds version {version.number} of '{version.name}'; make the version again")
        return url, version, _canned(folder / "model" / CANNED)


def _production(module: str, place: Place) -> int:
    """The version that the ledger sends the traffic to."""
    ledger = bootstrap.connect(place.platform).ledger
    try:
        traffic = ledger.traffic(module)
    finally:
        ledger.close()
    if traffic is None:
        raise NotFound(f"no version of '{module}' is in production; promote one, or name one: --version N")
    return traffic.production


def _canned(file: Path) -> bytes:
    try:
        said: Any = json.loads(_file(file))
        return json.dumps(said["transaction"]).encode()
    except (ValueError, TypeError, KeyError):
        raise Damaged(f"{file.name} of the version holds no transaction; make the version again") from None


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None


def _tells_a_password(value: str) -> bool:
    try:
        url = urlsplit(value)
    except ValueError:
        return False
    return url.password is not None or "password" in parse_qs(url.query)
