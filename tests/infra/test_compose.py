"""The compose file, read without an engine: what it pins, limits, publishes, confines and asks of .env."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import yaml

from infra import local_aws_setup
from mlops.settings import variables
from modules.fraud_detection import settings
from modules.fraud_detection.settings import Settings
from tests.conftest import ROOT

FILE = ROOT / "infra" / "compose.yaml"
TEXT = FILE.read_text(encoding="utf-8")
SPECIFIED = {"5000": "mlflow", "3000": "grafana", "9090": "prometheus", "8000": "api"}
BUILT = {"api", "worker", "scheduler", "watch", "train", "mlflow", "aws-setup"}
ONCE = {"train", "aws-setup"}
ROOM = 7 * 1024
"""MiB for all containers together: a t3.large has 8 GiB, and the system needs some."""
SET_BY_MAKE = {"GIT_COMMIT"}
Services = dict[str, dict[str, Any]]


def services() -> Services:
    return dict(yaml.safe_load(TEXT)["services"])


def test_it_has_every_service_that_the_platform_needs() -> None:
    found = services()
    assert BUILT | {
        "postgres", "redis", "prometheus", "alertmanager", "node-exporter", "grafana", "aws", "cloudwatch-exporter",
    } == found.keys()  # fmt: skip
    profiles = {name: service["profiles"] for name, service in found.items() if "profiles" in service}
    assert profiles == {
        "train": ["tools"], "aws": ["local-aws"], "aws-setup": ["local-aws"], "cloudwatch-exporter": ["cloudwatch"],
    }  # fmt: skip


def complaints(found: Services) -> Iterator[str]:
    """What is wrong with services, one line each."""
    for name, service in found.items():
        if name in BUILT:
            if not re.fullmatch(r"\$\{IMAGE_REGISTRY:-\}fraud-(train|serve):\$\{IMAGE_TAG:-local\}", service["image"]):
                yield f"{name} has another image than ours"
        elif not re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?[a-z-]*", service["image"]):
            yield f"{name} is not pinned"
        if name not in ONCE and "test" not in service.get("healthcheck", {}):
            yield f"{name} has no health check"
        if service["restart"] not in (("no", "on-failure") if name in ONCE else ("unless-stopped",)):
            yield f"{name} is not started again"
        if "mem_limit" not in service:
            yield f"{name} has no memory limit"
        if (service.get("cap_drop"), service.get("security_opt")) != (["ALL"], ["no-new-privileges:true"]):
            yield f"{name} has rights that it does not need"
        if not service.get("read_only"):
            yield f"{name} can write outside its volumes"
        if name in BUILT and service.get("user") != "mlops":
            yield f"{name} runs as root"
        if not {"max-size", "max-file"} <= service.get("logging", {}).get("options", {}).keys():
            yield f"{name} can fill the disk with its log"
        yield from _exposed(name, service)
    if (total := sum(megabytes(service.get("mem_limit", "0m")) for service in found.values())) >= ROOM:
        yield f"all limits together are {total} MiB"
    ports = {port.rsplit(":", 1)[1] for service in found.values() for port in service.get("ports", ())}
    if ports != SPECIFIED.keys():
        yield f"the published ports are {sorted(ports)}"


def _exposed(name: str, service: Mapping[str, Any]) -> Iterator[str]:
    for port in service.get("ports", ()):
        number = port.rsplit(":", 1)[1]
        if SPECIFIED.get(number) != name or port != f"${{BIND_ADDRESS:-127.0.0.1}}:{number}:{number}":
            yield f"{name} publishes {port}"
    if "network_mode" in service or "privileged" in service or "cap_add" in service:
        yield f"{name} steps out of its container"
    for volume in service.get("volumes", ()):
        source = str(volume).split(":", 1)[0]
        if source.startswith((".", "/")) and not str(volume).endswith(":ro"):
            yield f"{name} can write to {source} of this machine"
    others = {"postgres", "redis"} - {name}
    if name in others ^ {"postgres", "redis"} and service["networks"] != ["stores"]:
        yield f"{name} can be reached by those that have no business with it"
    for variable, value in (service.get("environment") or {}).items():
        if re.search("PASSWORD|AUTH$|HASH|SECRET_", variable) and not re.search(r"\$\{\w+(:\?|:\+local)", str(value)):
            yield f"{name} has a secret in {variable}"


def megabytes(limit: str) -> int:
    return int(limit.removesuffix("m"))


def test_nothing_is_wrong_with_any_service() -> None:
    assert list(complaints(services())) == []


def unpinned(found: Services) -> None:
    found["redis"]["image"] = "redis:latest"


def sick(found: Services) -> None:
    del found["worker"]["healthcheck"]


def greedy(found: Services) -> None:
    found["api"]["mem_limit"] = "4096m"


def boundless(found: Services) -> None:
    del found["grafana"]["mem_limit"]


def published(found: Services) -> None:
    found["postgres"]["ports"] = ["${BIND_ADDRESS:-127.0.0.1}:5432:5432"]


def open_to_all(found: Services) -> None:
    found["api"]["ports"] = ["8000:8000"]


def hidden(found: Services) -> None:
    del found["mlflow"]["ports"]


def rooted(found: Services) -> None:
    found["api"]["user"] = "root"


def privileged(found: Services) -> None:
    found["node-exporter"]["privileged"] = True


def writing(found: Services) -> None:
    found["node-exporter"]["volumes"] = ["/:/host"]


def told(found: Services) -> None:
    found["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"] = "admin"


def reachable(found: Services) -> None:
    found["redis"]["networks"] = ["outside", "stores"]


def talkative(found: Services) -> None:
    del found["mlflow"]["logging"]


def mortal(found: Services) -> None:
    found["worker"]["restart"] = "no"


@pytest.mark.parametrize(
    "spoil",
    [
        unpinned, sick, greedy, boundless, published, open_to_all, hidden, rooted, privileged, writing, told, reachable,
        talkative, mortal,
    ],
)  # fmt: skip
def test_each_damage_is_noticed(spoil: Callable[[Services], None]) -> None:
    found = copy.deepcopy(services())
    spoil(found)
    assert len(list(complaints(found))) >= 1


def test_every_variable_stands_in_the_template_and_has_no_secret_value_there() -> None:
    asked = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", TEXT)) - SET_BY_MAKE
    template = (ROOT / ".env.template").read_text(encoding="utf-8").splitlines()
    given = dict(line.split("=", 1) for line in template if re.match("[A-Z_]+=", line))
    assert asked <= given.keys()
    secret = {name for name in asked if re.search("PASSWORD|HASH", name)}
    assert {name: given[name] for name in secret} == dict.fromkeys(secret, "")
    required = set(re.findall(r"\$\{([A-Z_]+):\?is not set, say make \.env\}", TEXT))
    assert required == set(re.findall(r"\$\{([A-Z_]+):\?", TEXT)) == secret | {"ALERTS_TOPIC_ARN"}


def test_what_is_set_for_the_platform_are_settings_that_it_has() -> None:
    known = set(variables(Settings))
    for service in services().values():
        environment = service.get("environment") or {}
        assert {name for name in environment if name.startswith("MLOPS_")} <= known


def test_the_settings_are_taken_as_compose_writes_them() -> None:
    def filled(value: str) -> str:
        value = re.sub(r"\$\{(\w+):\+([^}]*)\}", "", value)
        value = re.sub(r"\$\{(\w+):-([^}]*)\}", r"\2", value)
        return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: "0" * 64 if "HASH" in found[1] else "arn:a", value)

    for name in ("api", "worker", "scheduler", "watch", "train"):
        environment = {key: filled(str(value)) for key, value in services()[name]["environment"].items()}
        read = settings.read(None, environment["PROFILE"], environment)
        assert read.platform.objects == "file:///app/var"
        assert [key.sha256 for key in read.serving.keys] == (["0" * 64] if name == "api" else [])
        assert read.monitoring.alerting.sinks == (
            ("log://", "sns://arn:a", "cloudwatch://mlops") if name == "scheduler" else ("log://",)
        )


def test_the_local_aws_has_what_the_services_name() -> None:
    found = services()
    assert f"kinesis://{local_aws_setup.STREAM}" in found["worker"]["command"]
    assert found["scheduler"]["environment"]["MLOPS_MONITORING__ALERTING__INBOX"] == f"sqs://{local_aws_setup.NAME}"
    template = (ROOT / ".env.template").read_text(encoding="utf-8")
    assert re.search(
        rf"^ALERTS_TOPIC_ARN=arn:aws:sns:us-east-1:\d{{12}}:{local_aws_setup.NAME}$", template, re.MULTILINE
    )


def test_mlflow_answers_to_the_names_of_the_node_and_to_no_other() -> None:
    hosts = services()["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert hosts == ["mlflow:5000", "localhost:*", "127.0.0.1:*", "${PUBLIC_HOST:-localhost}:5000"]


def test_prometheus_keeps_neither_more_than_fits_nor_less_than_its_objectives_look_back() -> None:
    command = services()["prometheus"]["command"]
    assert "--storage.tsdb.retention.size=4GB" in command
    (days,) = [int(word.split("=")[1].removesuffix("d")) for word in command if "retention.time" in word]
    assert days > 30


def test_redis_drops_nothing_and_keeps_room_below_its_limit() -> None:
    redis = services()["redis"]
    said = dict(line.split(" ", 1) for line in redis["command"][0].splitlines() if " " in line)
    assert said["maxmemory-policy"] == "noeviction"
    assert said["requirepass"] == "$$REDISCLI_AUTH"
    assert 2 * int(said["maxmemory"].removesuffix("mb")) <= megabytes(redis["mem_limit"])


def test_every_file_that_is_mounted_is_there() -> None:
    for service in services().values():
        for volume in service.get("volumes", ()):
            source = volume.split(":", 1)[0]
            assert not source.startswith(".") or (FILE.parent / source).exists(), source
