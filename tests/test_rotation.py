"""A password that changes while decisions are made: they go on, and it can be read nowhere."""

import time
from pathlib import Path

import boto3
import pytest
import redis

from modules.fraud_detection.__main__ import main
from tests.api import processes
from tests.conftest import run, small_job
from tests.mlops.test_secrets import put
from tests.redis_server import RedisServer
from tests.test_predict import transaction

PASSWORDS = ("first-Sesame-17", "second-Sesame-18")


def change(server: RedisServer, before: str | None, after: str) -> None:
    """Give the server another password, and let go of everybody who came in with the one before."""
    with redis.Redis(port=server.port, password=before) as client:
        client.config_set("requirepass", after)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


def test_decisions_go_on_when_a_password_changes_and_nobody_can_read_it(
    redis_server: RedisServer, bucket: str, tmp_path: Path
) -> None:
    """Everything that is left of training and serving is searched: objects, MLflow, the journal, the log, answers."""
    urls = [f"redis://:{password}@127.0.0.1:{redis_server.port}/0?socket_timeout=5" for password in PASSWORDS]
    secret = f"mlops/{bucket}"
    change(redis_server, None, PASSWORDS[0])
    put(secret, urls[0])
    platform = {
        "objects": f"s3://{bucket}", "online": f"secret://{secret}", "journal": f"sqlite:///{tmp_path}/var/journal.db",
        "ledger": f"sqlite:///{tmp_path}/var/ledger.db", "tracking": f"sqlite:///{tmp_path}/var/mlflow.db",
        "artifacts": f"{tmp_path}/var/mlartifacts",
    }  # fmt: skip
    job = run(small_job(tmp_path, platform=platform))
    answers: list[bytes] = []
    with processes(job.settings, tmp_path) as (process, client):

        def decide(name: str) -> None:
            answered = client.post("/predict", transaction(name))
            assert answered.status == 200
            answers.append(repr(answered.body).encode())

        def kept(password: str, name: str) -> bool:
            """Tell whether Redis holds an answer."""
            with redis.Redis(port=redis_server.port, password=password) as admin:
                return bool(admin.keys(f"*answer:*{name}*"))

        def decided(name: str, password: str) -> None:
            """Decide until an answer is kept."""
            deadline, number = time.monotonic() + 60, 0
            while not kept(password, name):
                assert time.monotonic() < deadline, "Redis was never used again"
                number += 1
                decide(f"{name} {number}")

        decided("early", PASSWORDS[0])
        change(redis_server, *PASSWORDS)
        decide("meanwhile")
        put(secret, urls[1])
        decided("late", PASSWORDS[1])
        for method, path, body in (
            ("POST", "/predict", b"{"), ("POST", "/predict", {"amount": 1}), ("GET", "/decisions/0", None),
            ("GET", "/ready", None), ("GET", "/model", None), ("GET", "/metrics", None), ("GET", "/openapi.json", None),
        ):  # fmt: skip
            answered = client.ask(method, path, body)
            answers.append(answered.body if isinstance(answered.body, bytes) else repr(answered.body).encode())
        process.stop()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"serve.log", "journal.db", "mlflow.db", "configuration.json", "records.json"} <= {one.name for one in files}
    s3 = boto3.client("s3")
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    stored = [s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys]
    for found in (*answers, *stored, *(path.read_bytes() for path in files)):
        assert b"Sesame" not in found


@pytest.mark.parametrize("value", ["redis://:Sesame@127.0.0.1:Sesame/0", "Sesame", "http://Sesame"])
def test_a_secret_that_is_no_url_of_redis_is_refused_at_the_start_and_not_shown(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLOPS_PLATFORM__ONLINE", "secret://mlops/redis-url")
    monkeypatch.setenv("SECRET_MLOPS_REDIS_URL", value)
    assert main(["serve", "--port", "0"]) == 1
    said = capsys.readouterr()
    assert said.err == "error: platform.online is no URL of Redis; write redis://HOST:PORT/NUMBER\n"
    assert "Sesame" not in said.out
