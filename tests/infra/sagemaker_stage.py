"""SageMaker for tests: moto's, with the time that things take, what goes wrong with them, and two calls it lacks.

moto knows neither `stop_training_job` nor `update_endpoint`; these two alone are played here.
"""

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from moto.ecr.models import ecr_backends
from moto.sagemaker.models import sagemaker_backends
from moto.sagemakerruntime.models import sagemakerruntime_backends

from infra.sagemaker import Pace
from mlops.storage import objects
from modules.fraud_detection.job import Job
from modules.fraud_detection.src.features.feature_store import FOLDER

ACCOUNT, REGION = "123456789012", "us-east-1"


class Stage:
    """Plays one act of `script` whenever somebody pauses between two looks; each pause moves the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.script: deque[Callable[[], None]] = deque()
        self.begins: Callable[[str], None] = lambda name: None
        """What becomes of a job, or of an endpoint that is created or updated, at once."""
        self.called: list[tuple[str, dict[str, Any]]] = []
        self.stops: Callable[[str], None] = lambda name: self.job(name, "Stopping", "Stopping")

    @property
    def pace(self) -> Pace:
        """How a command waits here."""
        return Pace(clock=lambda: self.now, pause=self._pause)

    def client(self, service: str) -> Any:
        """A client as the command would make it, whose calls are noted."""
        made = boto3.client(service)  # type: ignore[call-overload]
        if service == "sagemaker":
            for call in ("create_training_job", "create_endpoint"):
                setattr(made, call, self._begun(call, getattr(made, call)))
            made.update_endpoint = self._begun("update_endpoint", self._update)
            made.stop_training_job = self._stop
        return made

    def job(self, name: str, status: str, secondary: str, reason: str | None = None) -> None:
        """Let a job be so."""
        job: Any = sagemaker_backends[ACCOUNT][REGION].training_jobs[name]
        job.training_job_status, job.secondary_status, job.failure_reason = status, secondary, reason

    def endpoint(self, name: str, status: str, configuration: str | None = None, reason: str | None = None) -> None:
        """Let an endpoint be so."""
        endpoint: Any = sagemaker_backends[ACCOUNT][REGION].endpoints[name]
        endpoint.endpoint_status, endpoint.failure_reason = status, reason
        endpoint.endpoint_config_name = configuration or endpoint.endpoint_config_name

    def answer(self, body: Any) -> None:
        """What an endpoint says next; to the same question moto would always say the same."""
        runtime = sagemakerruntime_backends[ACCOUNT][REGION]
        runtime.results.clear()
        runtime.results_queue[:] = [(json.dumps(body), "application/json", "production", "")]

    def _pause(self, seconds: float) -> None:
        self.now += seconds
        if self.script:
            self.script.popleft()()

    def _begun(self, call: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def begun(**words: Any) -> Any:
            self.called.append((call, words))
            done = act(**words)
            self.begins(words.get("TrainingJobName") or words["EndpointName"])
            return done

        return begun

    def _update(self, **words: Any) -> None:
        self.endpoint(words["EndpointName"], "InService", words["EndpointConfigName"])

    def _stop(self, **words: Any) -> None:
        self.called.append(("stop_training_job", words))
        self.stops(words["TrainingJobName"])


def forget() -> None:
    """Take all away that is SageMaker's."""
    backend = sagemaker_backends[ACCOUNT][REGION]
    for kept in (backend.training_jobs, backend.endpoints, backend.endpoint_configs, backend._models):
        kept.clear()


def push(repository: str, tag: str, at: int | None = None) -> str:
    """Put an image into a repository, now or at a second since 1970, and return its digest."""
    layers = [{"digest": f"sha256:{repository} {tag}"}]
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers}
    ecr = boto3.client("ecr")
    image = ecr.put_image(repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag)["image"]
    if at is not None:
        ecr_backends[ACCOUNT][REGION].repositories[repository].images[-1].image_pushed_at = at
    return str(image["imageId"]["imageDigest"])


def store_snapshot(job: Job, bucket: str, folder: Path) -> str:
    """Copy the snapshot of a job into the bucket, and return its name."""
    name: str = job.records["features"]["snapshot"]
    copied = objects.download_folder(job.platform.objects, f"{FOLDER}/{name}", folder / name)
    objects.upload_folder(objects.connect(f"s3://{bucket}"), copied, f"{FOLDER}/{name}")
    return name
