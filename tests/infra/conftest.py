"""What the tests of SageMaker's commands share: an account in which everything is that they need."""

import json
from collections.abc import Iterator
from contextlib import suppress

import boto3
import pytest
from botocore.exceptions import ClientError

from infra import sagemaker
from tests.infra.sagemaker_stage import Stage, forget, push

REPOSITORIES = ("fraud-train", "fraud-serve")
TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


@pytest.fixture
def stage(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """An account of which everything is there but a snapshot and a version, with the bucket as the platform's."""
    monkeypatch.setenv("MLOPS_PLATFORM__OBJECTS", f"s3://{bucket}")
    made, ecr, iam = Stage(), boto3.client("ecr"), boto3.client("iam")
    monkeypatch.setattr(sagemaker, "client", made.client)
    iam.create_role(RoleName=sagemaker.ROLE, AssumeRolePolicyDocument=TRUST)
    for name in REPOSITORIES:
        ecr.create_repository(repositoryName=name)
        push(name, "a" * 40, at=1)
    yield made
    # A test may have taken them away.
    with suppress(ClientError):
        iam.delete_role(RoleName=sagemaker.ROLE)
    for name in REPOSITORIES:
        with suppress(ClientError):
            ecr.delete_repository(repositoryName=name, force=True)
    forget()
