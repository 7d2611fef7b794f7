"""One life of the platform on a server that speaks AWS's protocols: planned, made, used, made again, destroyed."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3

from tests.terraform.workshop import ANSWERS, Copy

UBUNTU = {
    "ami_id": "ami-0a1b2c3d4e5f60718", "name": "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20250101",
    "description": "Ubuntu 22.04", "owner_id": "099720109477", "public": True, "virtualization_type": "hvm",
    "architecture": "x86_64", "state": "available", "platform": None, "image_type": "machine", "hypervisor": "xen",
    "root_device_name": "/dev/sda1", "root_device_type": "ebs", "sriov": "simple",
}  # fmt: skip
ON = {"lambda_enabled": "true", "force_destroy": "true", "alert_email": "ml@example.com"}
FORGOTTEN = {
    "aws_kinesis_stream.transactions": "tags_all",
    "aws_lambda_function.stream": "dead_letter_config",
    "aws_sqs_queue.inbox": "redrive_policy",
    "aws_vpc_security_group_ingress_rule.lambda": "description",
    "aws_vpc_security_group_ingress_rule.door": "description",
    "aws_vpc_security_group_egress_rule.lambda_to_api": "description",
    "aws_vpc_security_group_egress_rule.lambda_to_bucket": "description",
    "aws_vpc_security_group_egress_rule.lambda_to_door": "description",
}
"""What the server does not keep, or writes in another way; a second plan would want to change just this."""
WIDE = "-parallelism=40"
KINDS = {
    "s3": ("list_buckets", "Buckets"), "kinesis": ("list_streams", "StreamNames"), "sqs": ("list_queues", "QueueUrls"),
    "lambda": ("list_functions", "Functions"), "sns": ("list_topics", "Topics"),
    "logs": ("describe_log_groups", "logGroups"), "secretsmanager": ("list_secrets", "SecretList"),
    "ecr": ("describe_repositories", "repositories"),
    "iam": ("list_roles", "Roles"), "cloudwatch": ("describe_alarms", "MetricAlarms"),
    "scheduler": ("list_schedules", "Schedules"),
}  # fmt: skip
"""How each service lists what there is."""


class Life(NamedTuple):
    """What was seen: the plan, the state, what the second plan wanted, and what was left in the end."""

    planned: dict[str, Any]
    state: dict[str, Any]
    said: dict[str, str]
    files: dict[str, str]
    secret: str
    used: Any
    left: dict[str, list[Any]]

    def values(self, address: str) -> dict[str, Any]:
        """What the state says of a resource."""
        found = [one["values"] for one in self.state["values"]["root_module"]["resources"] if one["address"] == address]
        assert found, f"there is no {address} in the state"
        return dict(found[0])


def live(folder: Path, use: Any) -> Life:
    """Live it in a folder; `use` is done in the middle, with the state, and its result is kept."""
    with _server(folder) as address:
        answers = {f"TF_VAR_{name}": value for name, value in {**ANSWERS, **ON}.items()}
        environment = {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true", **answers,
        }  # fmt: skip
        copy = Copy(folder, environment).init()
        (copy.folder / "local_override.tf").write_text(_override())
        said = {"plan": copy.run("plan", "-out=plan", WIDE).stdout}
        planned = copy.show("plan")
        said["apply"] = copy.run("apply", WIDE, "plan").stdout
        secret = secrets.token_hex(16)
        _fill(address, secret)
        said["again"] = copy.run("apply", "-auto-approve", WIDE).stdout
        state = copy.show()
        used = use(address, state)
        files = {path.name: path.read_text() for path in copy.folder.glob("*.tfstate*")}
        said["destroy"] = copy.run("destroy", "-auto-approve", WIDE).stdout
        return Life(planned, state, said, files, secret, used, _left(address))


def client(address: str, service: Any) -> Any:
    """A client of the server."""
    return boto3.client(
        service, endpoint_url=address, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    (folder / "images.json").write_text(json.dumps([UBUNTU]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    told = {"MOTO_AMIS_PATH": str(folder / "images.json"), "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    with (folder / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "--port", str(port)]
        process = subprocess.Popen(command, env={**os.environ, **told}, stdout=log, stderr=log)
        try:
            _awaited(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _awaited(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, "the local AWS did not start"
            time.sleep(0.05)


def _override() -> str:
    """What the copy says otherwise: the server knows no bucket by its host name and no detailed monitoring."""
    blocks = [
        'provider "aws" {\n  s3_use_path_style = true\n}\n',
        'resource "aws_instance" "core" {\n  monitoring = false\n}\n',
    ]
    for address, attribute in FORGOTTEN.items():
        type_, name = address.split(".")
        blocks.append(f'resource "{type_}" "{name}" {{\n  lifecycle {{\n    ignore_changes = [{attribute}]\n  }}\n}}\n')
    return "\n".join(blocks)


def _fill(address: str, secret: str) -> None:
    """Do what people do after the first time."""
    manager = client(address, "secretsmanager")
    for one in manager.list_secrets()["SecretList"]:
        manager.put_secret_value(SecretId=one["Name"], SecretString=secret)


def _left(address: str) -> dict[str, list[Any]]:
    """Everything that the server still has, by service."""
    found: dict[str, list[Any]] = {}
    for service, (word, field) in KINDS.items():
        found[service] = getattr(client(address, service), word)().get(field, [])
    ec2, kms = client(address, "ec2"), client(address, "kms")
    found["vpc"] = [one for one in ec2.describe_vpcs()["Vpcs"] if not one["IsDefault"]]
    found["addresses"] = ec2.describe_addresses()["Addresses"]
    found["flow logs"] = ec2.describe_flow_logs()["FlowLogs"]
    machines = [one for each in ec2.describe_instances()["Reservations"] for one in each["Instances"]]
    found["machines"] = [one for one in machines if one["State"]["Name"] != "terminated"]
    # AWS makes keys of its own as soon as a disk is encrypted.
    theirs = {
        one.get("TargetKeyId") for one in kms.list_aliases()["Aliases"] if one["AliasName"].startswith("alias/aws/")
    }
    keys = [kms.describe_key(KeyId=one["KeyId"])["KeyMetadata"] for one in kms.list_keys()["Keys"]]
    found["keys"] = [one for one in keys if one["KeyState"] != "PendingDeletion" and one["KeyId"] not in theirs]
    owned = client(address, "ssm").list_documents(Filters=[{"Key": "Owner", "Values": ["Self"]}])
    found["documents"] = owned["DocumentIdentifiers"]
    return {kind: those for kind, those in found.items() if those}
