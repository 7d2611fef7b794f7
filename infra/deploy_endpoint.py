"""python -m infra.deploy_endpoint: put a version behind a SageMaker endpoint, change it, take it away."""

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from infra import endpoint_plan, sagemaker
from infra.endpoint_plan import Plan
from infra.sagemaker import DONE, PACE, Found, Pace
from mlops.errors import MlopsError, NotFound

IN_SERVICE = "InService"
MOVING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
CONFIGURATION, MODEL = "EndpointConfigName", "ModelName"
DELETE = "infra/deploy_endpoint.sh --delete --endpoint"


def main(arguments: Sequence[str] | None = None, pace: Pace = PACE) -> int:
    """Deploy a version, or delete the endpoint with --delete.

    Returns 0 when the endpoint is in service with this version and has answered, or is gone; 1 after one line on what
    is wrong; 2 when it took too long; 130 after Ctrl-C.
    """
    return sagemaker.guarded(lambda: _run(_parser().parse_args(arguments), pace))


def _run(words: argparse.Namespace, pace: Pace) -> int:
    name = words.endpoint or words.module.replace("_", "-")
    if words.delete:
        endpoint = Endpoint(sagemaker.client("sagemaker"), name, words.timeout, pace)
        if words.dry_run:
            print(json.dumps(endpoint.belonging(), indent=1))
        else:
            endpoint.delete()
        return DONE
    plan = endpoint_plan.plan(words, name)
    if words.dry_run:
        print(json.dumps(plan.requests, indent=1))
        return DONE
    endpoint = Endpoint(sagemaker.client("sagemaker"), name, words.timeout, pace)
    try:
        endpoint.deploy(plan)
        _ask(plan)
        endpoint.sweep(kept=plan.name)
    finally:
        if endpoint.may_cost():
            _warn(name, words.instance)
    return DONE


class Endpoint:
    """An endpoint of SageMaker, whether it is there or not, and what belongs to it: configurations and models."""

    def __init__(self, client: Any, name: str, limit: int, pace: Pace) -> None:
        self._client, self._name, self._limit, self._pace = client, name, limit, pace

    def deploy(self, plan: Plan) -> None:
        """Bring it into service with this plan; where it has it already, it is left as it is."""
        before = self._settled()
        if before is not None and before["EndpointStatus"] != IN_SERVICE:
            raise MlopsError(f"{_told(before)}; take it away first: {DELETE} {self._name}")
        if before is not None and before[CONFIGURATION] == plan.name:
            print(f"{self._name} has this very version, image and environment already")
            return
        self._prepare(plan)
        with sagemaker.translated(f"endpoint {self._name}"):
            if before is None:
                tags = plan.model["Tags"]
                self._client.create_endpoint(EndpointName=self._name, EndpointConfigName=plan.name, Tags=tags)
            else:
                self._client.update_endpoint(EndpointName=self._name, EndpointConfigName=plan.name)
        found = self._settled()
        if found is None or (found["EndpointStatus"], found[CONFIGURATION]) != (IN_SERVICE, plan.name):
            how = "it is gone" if found is None else f"{_told(found)}; it is on {found[CONFIGURATION]}"
            raise MlopsError(f"version {plan.version.number} did not come into service: {how}")

    def delete(self) -> None:
        """Take it away with all that belongs to it; what is gone already is gone."""
        # SageMaker deletes no endpoint that is on its way to something.
        if self._settled() is not None:
            with sagemaker.translated(f"endpoint {self._name}"):
                self._client.delete_endpoint(EndpointName=self._name)
            if (found := self._settled()) is not None:
                raise MlopsError(f"{_told(found)}; it was to be deleted and is still there, say it again")
            print(f"deleted endpoint {self._name}")
        self.sweep()
        print(f"nothing of {self._name} is left, and it costs nothing")

    def sweep(self, kept: str | None = None) -> None:
        """Delete the configurations and models that belong to it, but for those of one name."""
        remove = {CONFIGURATION: self._client.delete_endpoint_config, MODEL: self._client.delete_model}
        belonging = self.belonging()
        for kind, act in remove.items():
            for name in belonging[kind]:
                if name != kept:
                    with contextlib.suppress(NotFound), sagemaker.translated(name):
                        act(**{kind: name})
                        print(f"deleted {kind.removesuffix('Name')} {name}")

    def belonging(self) -> dict[str, list[str]]:
        """The endpoint, where it is there, and its configurations and models, by name."""
        mine = re.compile(rf"{re.escape(self._name)}-v\d+-[0-9a-f]{{8}}")

        def those(listing: str, field: str, kind: str) -> list[str]:
            with sagemaker.translated(f"what belongs to {self._name}"):
                pages = self._client.get_paginator(listing).paginate(NameContains=f"{self._name}-v")
                return [one[kind] for page in pages for one in page[field] if mine.fullmatch(one[kind])]

        return {
            "EndpointName": [self._name] if self._is_there() else [],
            CONFIGURATION: those("list_endpoint_configs", "EndpointConfigs", CONFIGURATION),
            MODEL: those("list_models", "Models", MODEL),
        }

    def may_cost(self) -> bool:
        """Whether it is there, or nobody can say that it is not."""
        try:
            return self._is_there()
        except MlopsError:
            return True

    def _prepare(self, plan: Plan) -> None:
        """Create the model and its configuration, unless an attempt before this one has."""
        what, client = f"model {plan.name}", self._client
        if not _exists(what, lambda: client.describe_model(ModelName=plan.name)):
            with sagemaker.translated(what):
                client.create_model(ModelName=plan.name, **plan.model)
        what = f"endpoint configuration {plan.name}"
        if not _exists(what, lambda: client.describe_endpoint_config(EndpointConfigName=plan.name)):
            with sagemaker.translated(what):
                client.create_endpoint_config(EndpointConfigName=plan.name, **plan.configuration)

    def _settled(self) -> Found | None:
        """Wait while it is on its way to something; how it is then, or nothing where there is none."""
        try:
            return sagemaker.waited(self._look, _said, lambda found: not _moves(found), self._limit, self._pace)
        except NotFound:
            return None

    def _is_there(self) -> bool:
        return _exists(f"endpoint {self._name}", self._look)

    def _look(self) -> Found:
        with sagemaker.translated(f"endpoint {self._name}"):
            return dict(self._client.describe_endpoint(EndpointName=self._name))


def _exists(what: str, look: Callable[[], Found]) -> bool:
    try:
        with sagemaker.translated(what):
            look()
    except NotFound:
        return False
    return True


def _moves(found: Found) -> bool:
    return found["EndpointStatus"] in MOVING


def _said(found: Found) -> str:
    return f"{found['EndpointName']}: {found['EndpointStatus']}"


def _told(found: Found) -> str:
    return f"{_said(found)}, {found.get('FailureReason', 'without a reason')}"


def _ask(plan: Plan) -> None:
    """Let the endpoint decide one transaction; it must answer, and as this version, unless it only repeats itself."""
    with sagemaker.translated(f"endpoint {plan.endpoint}"):
        answer = sagemaker.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=plan.endpoint, ContentType="application/json", Accept="application/json", Body=plan.smoke
        )
        text = answer["Body"].read().decode(errors="replace")
    print(text)
    try:
        said = json.loads(text)
        number, repeated = said["model"]["version"], said["replayed"]
    except (ValueError, TypeError, KeyError):
        raise MlopsError(f"{plan.endpoint} is in service and does not answer with a decision") from None
    # A journal that has this transaction gives the answer of that day.
    if number != plan.version.number and not repeated:
        raise MlopsError(f"{plan.endpoint} answers as version {number}, not {plan.version.number}")


def _warn(endpoint: str, instance: str) -> None:
    print(f"!! {endpoint} costs money every hour, asked or not: one {instance}, all day and night", file=sys.stderr)
    print(f"!! take it away when you are done: {DELETE} {endpoint}", file=sys.stderr)


def _parser() -> sagemaker.Parser:
    parser = sagemaker.parser(__doc__, "30m")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, help="a registered version; without it the one in production")
    which.add_argument("--archive", metavar="URL", help="an s3:// URL of a model.tar.gz, such as a training job's")
    which.add_argument("--delete", action="store_true", help="take away the endpoint and all that belongs to it")
    parser.add_argument("--endpoint", help="its name; without it the module's")
    parser.add_argument("--instance", default="ml.t2.medium", help="the machine; ml.t2.medium")
    parser.add_argument(
        "--environment", type=endpoint_plan.variable, action="append", default=[], metavar="NAME=VALUE",
        help="a setting of the container over the platform's; no secret; may come several times",
    )  # fmt: skip
    parser.add_argument("--smoke", type=Path, metavar="FILE", help="a transaction to ask it; without it the version's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
