"""Every call to AWS that the code makes, which right it takes and on what; and how the calls are found in the code."""

import ast
import re
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import botocore.session
from botocore import xform_name

from tests.conftest import ROOT

ACCOUNT = "123456789012"
BUCKET = "arn:aws:s3:::mlops-fraud-dev"
OBJECT = f"{BUCKET}/data/raw/x/000.parquet"
SERVICES = (
    "cloudwatch", "ecr", "iam", "kinesis", "s3", "sagemaker", "sagemaker-featurestore-runtime", "sagemaker-runtime",
    "secretsmanager", "sns", "sqs",
)  # fmt: skip
LOCAL = ("aws_local.py", "local_aws_setup.py", "local_servers.py")
"""Files that speak to a server on this machine alone."""


def _arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:us-east-1:{ACCOUNT}:{rest}"


STREAM, TOPIC = _arn("kinesis", "stream/fraud-transactions"), _arn("sns", "mlops-alerts")
QUEUE, SECRET = _arn("sqs", "mlops-alerts"), _arn("secretsmanager", "secret:mlops/redis-url-AbCdEf")
API_KEY = _arn("secretsmanager", "secret:mlops/api-key")
REPOSITORY = _arn("ecr", "repository/fraud-serve")
ROLE = f"arn:aws:iam::{ACCOUNT}:role/mlops-sagemaker"
JOB, MODEL = _arn("sagemaker", "training-job/fraud-detection-x"), _arn("sagemaker", "model/fraud-detection-v3-0a1b2c3d")
CONFIGURATION = _arn("sagemaker", "endpoint-config/fraud-detection-v3-0a1b2c3d")
ENDPOINT, GROUP = _arn("sagemaker", "endpoint/fraud-detection"), _arn("sagemaker", "feature-group/fraud-detection")
FUNCTION = _arn("lambda", "function:fraud-transactions")


class Right(NamedTuple):
    """An action on a resource, with what IAM is told about the call."""

    action: str
    resource: str
    context: Mapping[str, str] = {}


OURS = {"cloudwatch:namespace": "mlops"}
TO_SAGEMAKER = {"iam:PassedToService": "sagemaker.amazonaws.com"}
NODE: Mapping[str, tuple[Right, ...]] = {
    "s3.get_object": (Right("s3:GetObject", OBJECT), Right("kms:Decrypt", "KEY")),
    "s3.head_object": (Right("s3:GetObject", OBJECT),),
    "s3.put_object": (Right("s3:PutObject", OBJECT), Right("kms:GenerateDataKey", "KEY")),
    "s3.create_multipart_upload": (Right("s3:PutObject", OBJECT), Right("kms:Decrypt", "KEY")),
    "s3.upload_part": (Right("s3:PutObject", OBJECT),),
    "s3.complete_multipart_upload": (Right("s3:PutObject", OBJECT),),
    "s3.abort_multipart_upload": (Right("s3:AbortMultipartUpload", OBJECT),),
    "s3.delete_object": (Right("s3:DeleteObject", OBJECT),),
    "s3.list_objects_v2": (Right("s3:ListBucket", BUCKET),),
    "secretsmanager.get_secret_value": (Right("secretsmanager:GetSecretValue", SECRET), Right("kms:Decrypt", "KEY")),
    "kinesis.list_shards": (Right("kinesis:ListShards", STREAM),),
    "kinesis.get_shard_iterator": (Right("kinesis:GetShardIterator", STREAM),),
    "kinesis.get_records": (Right("kinesis:GetRecords", STREAM), Right("kms:Decrypt", "KEY")),
    "kinesis.put_records": (Right("kinesis:PutRecords", STREAM), Right("kms:GenerateDataKey", "KEY")),
    "sns.publish": (Right("sns:Publish", TOPIC), Right("kms:GenerateDataKey", "KEY"), Right("kms:Decrypt", "KEY")),
    "sqs.send_message": (Right("sqs:SendMessage", QUEUE),),
    "sqs.receive_message": (Right("sqs:ReceiveMessage", QUEUE),),
    "sqs.delete_message": (Right("sqs:DeleteMessage", QUEUE),),
    "sqs.get_queue_url": (Right("sqs:GetQueueUrl", QUEUE),),
    "cloudwatch.put_metric_data": (Right("cloudwatch:PutMetricData", "*", OURS),),
    "iam.get_role": (Right("iam:GetRole", ROLE),),
    "ecr.describe_repositories": (Right("ecr:DescribeRepositories", REPOSITORY),),
    "ecr.describe_images": (Right("ecr:DescribeImages", REPOSITORY),),
    "ecr.get_login_password": (Right("ecr:GetAuthorizationToken", "*"),),
    "sagemaker.create_training_job": (
        Right("sagemaker:CreateTrainingJob", JOB), Right("sagemaker:AddTags", JOB),
        Right("iam:PassRole", ROLE, TO_SAGEMAKER),
    ),
    "sagemaker.describe_training_job": (Right("sagemaker:DescribeTrainingJob", JOB),),
    "sagemaker.stop_training_job": (Right("sagemaker:StopTrainingJob", JOB),),
    "sagemaker.create_model": (
        Right("sagemaker:CreateModel", MODEL), Right("sagemaker:AddTags", MODEL),
        Right("iam:PassRole", ROLE, TO_SAGEMAKER),
    ),
    "sagemaker.describe_model": (Right("sagemaker:DescribeModel", MODEL),),
    "sagemaker.delete_model": (Right("sagemaker:DeleteModel", MODEL),),
    "sagemaker.list_models": (Right("sagemaker:ListModels", "*"),),
    "sagemaker.create_endpoint_config": (
        Right("sagemaker:CreateEndpointConfig", CONFIGURATION), Right("sagemaker:AddTags", CONFIGURATION),
    ),
    "sagemaker.describe_endpoint_config": (Right("sagemaker:DescribeEndpointConfig", CONFIGURATION),),
    "sagemaker.delete_endpoint_config": (Right("sagemaker:DeleteEndpointConfig", CONFIGURATION),),
    "sagemaker.list_endpoint_configs": (Right("sagemaker:ListEndpointConfigs", "*"),),
    "sagemaker.create_endpoint": (
        Right("sagemaker:CreateEndpoint", ENDPOINT), Right("sagemaker:CreateEndpoint", CONFIGURATION),
        Right("sagemaker:AddTags", ENDPOINT),
    ),
    "sagemaker.update_endpoint": (
        Right("sagemaker:UpdateEndpoint", ENDPOINT), Right("sagemaker:UpdateEndpoint", CONFIGURATION),
    ),
    "sagemaker.describe_endpoint": (Right("sagemaker:DescribeEndpoint", ENDPOINT),),
    "sagemaker.delete_endpoint": (Right("sagemaker:DeleteEndpoint", ENDPOINT),),
    "sagemaker.invoke_endpoint": (Right("sagemaker:InvokeEndpoint", ENDPOINT),),
    "sagemaker.create_feature_group": (
        Right("sagemaker:CreateFeatureGroup", GROUP), Right("iam:PassRole", ROLE, TO_SAGEMAKER),
    ),
    "sagemaker.describe_feature_group": (Right("sagemaker:DescribeFeatureGroup", GROUP),),
    "sagemaker.put_record": (Right("sagemaker:PutRecord", GROUP),),
    "sagemaker.get_record": (Right("sagemaker:GetRecord", GROUP),),
}  # fmt: skip
"""What the node asks of AWS. `sagemaker` stands for its runtimes too; KEY for the platform's own key."""

OTHERS = {
    # Docker, which infra/ecr_push.sh and the stack call.
    "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart",
    # The exporter of CloudWatch's metrics.
    "cloudwatch:GetMetricData", "cloudwatch:GetMetricStatistics", "cloudwatch:ListMetrics",
    # The agent of Systems Manager.
    "ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage", "ec2messages:GetEndpoint",
    "ec2messages:GetMessages", "ec2messages:SendReply", "ssm:ListInstanceAssociations", "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
}  # fmt: skip
"""What programs on the node ask that are not ours."""

LAMBDA: Mapping[str, tuple[Right, ...]] = {
    "s3.put_object": (
        Right("s3:PutObject", f"{BUCKET}/monitoring/dead_letters/fraud-transactions/shardId-0/1.json"),
        Right("kms:GenerateDataKey", "KEY"),
    ),
    "secretsmanager.get_secret_value": (Right("secretsmanager:GetSecretValue", API_KEY), Right("kms:Decrypt", "KEY")),
    "sagemaker.invoke_endpoint": (Right("sagemaker:InvokeEndpoint", ENDPOINT),),
}  # fmt: skip
MAPPING = (
    Right("kinesis:DescribeStream", STREAM), Right("kinesis:DescribeStreamSummary", STREAM),
    Right("kinesis:GetRecords", STREAM), Right("kinesis:GetShardIterator", STREAM), Right("kinesis:ListShards", STREAM),
    Right("kinesis:ListStreams", "*"), Right("s3:ListBucket", BUCKET),
    Right("s3:PutObject", f"{BUCKET}/aws/lambda/x/shardId-0/2026/01/01/x"),
    Right("sqs:SendMessage", _arn("sqs", "fraud-transactions-dead-letters")),
    Right("logs:CreateLogStream", _arn("logs", "log-group:/aws/lambda/fraud-transactions:log-stream:x")),
    Right("logs:PutLogEvents", _arn("logs", "log-group:/aws/lambda/fraud-transactions:log-stream:x")),
)  # fmt: skip
"""What AWS itself does with the function's role."""

DENIED_TO_THE_NODE = (
    Right("s3:GetObject", "arn:aws:s3:::somebody-elses/x"), Right("s3:DeleteBucket", BUCKET),
    Right("s3:DeleteObjectVersion", OBJECT), Right("s3:PutBucketPolicy", BUCKET),
    Right("secretsmanager:GetSecretValue", _arn("secretsmanager", "secret:payroll/db-AbCdEf")),
    Right("secretsmanager:PutSecretValue", SECRET), Right("kms:Decrypt", _arn("kms", "key/another")),
    Right("kms:ScheduleKeyDeletion", "KEY"), Right("iam:PassRole", ROLE, {"iam:PassedToService": "ec2.amazonaws.com"}),
    Right("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin", TO_SAGEMAKER), Right("iam:CreateUser", "*"),
    Right("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/Lambda"}),
    Right("sagemaker:DeleteEndpoint", _arn("sagemaker", "endpoint/somebody-elses")),
    Right("sagemaker:CreateNotebookInstance", "*"), Right("ecr:DeleteRepository", REPOSITORY),
    Right("ecr:PutImage", _arn("ecr", "repository/somebody-elses")), Right("kinesis:DeleteStream", STREAM),
    Right("sns:Publish", _arn("sns", "payments")), Right("sqs:PurgeQueue", QUEUE), Right("ssm:GetParameter", "*"),
)  # fmt: skip
DENIED_TO_LAMBDA = (
    Right("s3:GetObject", OBJECT), Right("s3:PutObject", OBJECT), Right("secretsmanager:GetSecretValue", SECRET),
    Right("sagemaker:InvokeEndpoint", f"{ENDPOINT}-2"), Right("iam:PassRole", ROLE, TO_SAGEMAKER),
    Right("ec2:CreateNetworkInterface", "*", {"lambda:SourceFunctionArn": FUNCTION}),
)  # fmt: skip


def found() -> set[str]:
    """Every call that the code makes, as SERVICE.OPERATION."""
    calls: set[str] = set()
    for room in ("mlops", "modules", "monitoring", "infra", "scripts"):
        for file in (ROOT / room).rglob("*.py"):
            if file.name not in LOCAL:
                calls |= _called(file.read_text(encoding="utf-8"))
        for file in (ROOT / room).rglob("*.sh"):
            said = re.findall(r"\baws ([a-z-]+) ([a-z-]+)", file.read_text(encoding="utf-8"))
            calls |= {f"{service}.{word.replace('-', '_')}" for service, word in said if service in SERVICES}
    return calls


def _called(source: str) -> set[str]:
    """The attributes, and the words by which pages are asked for, that are operations of a service the file names."""
    nodes = list(ast.walk(ast.parse(source)))
    words = {str(node.value) for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = words | {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return {
        f"{service.removesuffix('-runtime').removesuffix('-featurestore')}.{name}"
        for service in words.intersection(SERVICES)
        for name in names & _operations(service)
    }


@cache
def _operations(service: str) -> frozenset[str]:
    return frozenset(map(xform_name, botocore.session.get_session().get_service_model(service).operation_names))
