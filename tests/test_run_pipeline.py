"""The pipeline: phases that run in order, alone, after a break, twice, and two at once; and leave nothing half done."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from mlops.errors import BadData, BadInput, NotFound
from mlops.pipeline import Phase
from mlops.storage import objects
from mlops.storage.objects import EXPLANATIONS, MODELS, PROCESSED, RAW
from modules.fraud_detection import lineage, run_pipeline
from modules.fraud_detection.__main__ import main
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import NAME
from modules.fraud_detection.src.features import feature_store
from tests.api import serving, settings_of
from tests.conftest import ROOT, run, small_job
from tests.test_predict import transaction

COMMAND = [sys.executable, "-m", "modules.fraud_detection", "pipeline"]


def source(folder: Path, table: pl.DataFrame) -> str:
    path = folder / "transactions.parquet"
    table.write_parquet(path)
    return str(path)


def versions(job: Job) -> int:
    return len(job.platform.tracking.client.search_model_versions(f"name='{NAME}'"))


def test_every_phase_leaves_its_product_where_the_layout_says(finished: Job) -> None:
    store = finished.platform.objects
    for folder in (RAW, f"{PROCESSED}/transactions", f"{PROCESSED}/features", MODELS, EXPLANATIONS):
        assert store.list(folder), folder
    raw = store.list(RAW)[0]
    assert finished.records["data"]["hash"][:16] in raw


def test_a_snapshot_holds_every_good_row_and_every_declared_feature(finished: Job) -> None:
    table = feature_store.load(finished.platform.objects, finished.records["features"]["snapshot"])
    assert table.height == finished.records["validate"]["rows"]
    assert {"customer_id_amount_mean_30d", "terminal_id_is_fraud_share_7d_7d_ago", "amount_to_mean_30d"} <= set(
        table.columns
    )


def test_each_phase_runs_alone_from_what_the_ones_before_it_left(tmp_path: Path) -> None:
    for name in run_pipeline.PHASES:
        job = run(small_job(tmp_path), only=name)
        assert job.records[name]
    assert job.records["register"]["version"] == 1


def test_a_phase_whose_predecessor_has_not_run_says_which(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="phase 'train' needs 'data'"):
        run(small_job(tmp_path), only="train")


def test_an_unknown_phase_is_refused_with_the_names_of_the_known(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no phase 'fit'; the phases are: data, validate"):
        run(small_job(tmp_path), only="fit")


def test_when_a_phase_fails_no_later_one_runs_and_nothing_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Job) -> dict[str, object]:
        raise BadData("planted")

    monkeypatch.setitem(run_pipeline.PHASES, "evaluate", Phase(fail, str))
    job = small_job(tmp_path)
    with pytest.raises(BadData, match="planted"):
        run(job)
    assert list(job.records) == ["data", "validate", "features", "train"]
    assert not list((tmp_path / "var").glob("mlflow.db"))


def test_a_broken_run_goes_on_after_its_last_finished_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Job) -> dict[str, object]:
        raise BadData("planted")

    with monkeypatch.context() as planted:
        planted.setitem(run_pipeline.PHASES, "train", Phase(fail, str))
        with pytest.raises(BadData):
            run(small_job(tmp_path))
    record = next((tmp_path / "var" / PROCESSED / "runs").rglob("features.json"))
    written = record.stat().st_mtime_ns
    job = run(small_job(tmp_path), resume=True)
    assert job.records["register"]["version"] == 1
    assert record.stat().st_mtime_ns == written


def test_a_fresh_run_forgets_what_an_earlier_one_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(small_job(tmp_path))

    def fail(_: Job) -> dict[str, object]:
        raise BadData("planted")

    monkeypatch.setitem(run_pipeline.PHASES, "train", Phase(fail, str))
    with pytest.raises(BadData):
        run(small_job(tmp_path))
    with pytest.raises(BadInput, match="'register' needs 'train'"):
        run(small_job(tmp_path), only="register")


def test_bad_rows_go_to_quarantine_and_the_rest_is_trained_on(tmp_path: Path, transactions: pl.DataFrame) -> None:
    bad = transactions.with_columns(
        amount=pl.when(pl.col("transaction_id").is_in([5, 9])).then(-1.0).otherwise("amount")
    )
    job = run(small_job(tmp_path, source(tmp_path, bad)))
    checked = job.records["validate"]
    assert (checked["rows"], checked["bad_rows"]) == (transactions.height, 2)
    with job.platform.objects.download(checked["quarantine"]) as path:
        quarantine = pl.read_parquet(path)
    assert quarantine.rows() == [
        (4, "amount", "-1.0", "is not between 0 and 100000"),
        (8, "amount", "-1.0", "is not between 0 and 100000"),
    ]


def test_too_many_bad_rows_stop_the_run_after_they_were_put_away(tmp_path: Path, transactions: pl.DataFrame) -> None:
    bad = transactions.with_columns(amount=-pl.col("amount") - 1)
    job = small_job(tmp_path, source(tmp_path, bad))
    with pytest.raises(BadData, match=r"100\.0%, more than validation.max_bad_share"):
        run(job)
    assert job.platform.objects.list(f"{PROCESSED}/quarantine")
    assert list(job.records) == ["data"]


def test_csv_and_parquet_of_one_table_give_the_same_features(tmp_path: Path, transactions: pl.DataFrame) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    transactions[:9_000].write_csv(folder / "a.csv")
    transactions[9_000:].write_csv(folder / "b.csv")
    jobs = [small_job(tmp_path, str(folder)), small_job(tmp_path, source(tmp_path, transactions))]
    tables = []
    for job in jobs:
        for phase in ("data", "validate", "features"):
            run(job, only=phase)
        table = feature_store.load(job.platform.objects, job.records["features"]["snapshot"])
        tables.append(table.drop("transaction_id", "customer_id", "terminal_id"))
    assert tables[0].equals(tables[1])


def test_the_same_bytes_under_another_name_are_the_same_rows(tmp_path: Path, transactions: pl.DataFrame) -> None:
    first = Path(source(tmp_path, transactions))
    second = Path(shutil.copyfile(first, tmp_path / "again.parquet"))
    jobs = []
    for where in (first, second):
        jobs.append(small_job(tmp_path, str(where)))
        for phase in ("data", "validate"):
            run(jobs[-1], only=phase)
    assert [job.records["validate"]["rows"] for job in jobs] == [transactions.height] * 2
    assert jobs[0].records["data"]["hash"] == jobs[1].records["data"]["hash"]


def test_the_pipeline_reads_and_writes_a_bucket(tmp_path: Path, bucket: str, transactions: pl.DataFrame) -> None:
    import boto3

    boto3.client("s3").upload_file(source(tmp_path, transactions), bucket, "incoming/transactions.parquet")
    platform = {
        "objects": f"s3://{bucket}/platform",
        "tracking": f"sqlite:///{tmp_path}/mlflow.db",
        "artifacts": f"s3://{bucket}/mlartifacts",
    }
    job = run(small_job(tmp_path, f"s3://{bucket}/incoming/transactions.parquet", platform=platform))
    assert job.records["register"]["version"] == 1
    assert [step.what for step in lineage.trace(job.platform, "production")][-1] == "raw data"


def test_a_version_leads_back_to_the_raw_bytes(finished: Job) -> None:
    steps = {step.what: step.name for step in lineage.trace(finished.platform, "production")}
    assert list(steps) == ["version", "code", "configuration", "model", "features", "transactions", "raw data"]
    assert steps["raw data"] == finished.records["data"]["hash"]


def test_a_decision_leads_back_to_the_raw_bytes(
    finished: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(finished, tmp_path)
    with serving(settings) as client:
        said = client.post("/predict", transaction("traced")).body
    for name, value in settings.platform.model_dump(mode="json").items():
        if isinstance(value, str):
            monkeypatch.setenv(f"MLOPS_PLATFORM__{name.upper()}", value)
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["lineage", "--decision", said["decision_id"]]) == 0
    printed = capsys.readouterr().out
    for part in (
        f"{said['decision_id']} about traced", "arm production", finished.records["train"]["model"],
        finished.records["features"]["snapshot"], finished.records["data"]["hash"],
    ):  # fmt: skip
        assert part in printed
    assert main(["lineage", "--decision", "0" * 32]) == 1
    assert capsys.readouterr().err == f"error: there is no decision {'0' * 32} in the journal\n"


def test_changed_raw_bytes_break_the_chain_by_name(tmp_path: Path) -> None:
    job = run(small_job(tmp_path))
    raw = tmp_path / "var" / job.records["data"]["files"][0]
    raw.write_bytes(raw.read_bytes() + b"!")
    with pytest.raises(Exception, match="it was changed after it was written"):
        list(lineage.trace(job.platform, "production"))


def test_the_same_rows_from_other_raw_bytes_leave_the_first_lineage_as_it_was(
    tmp_path: Path, transactions: pl.DataFrame
) -> None:
    """The table is one and the same, and each of the two pages beside it names its own raw bytes."""
    jobs = []
    for compression in ("zstd", "snappy"):
        path = tmp_path / f"{compression}.parquet"
        transactions.write_parquet(path, compression=compression)
        jobs.append(small_job(tmp_path, str(path)))
        for phase in ("data", "validate"):
            run(jobs[-1], only=phase)
    (processed,) = {job.records["validate"]["processed"] for job in jobs}
    for job in jobs:
        raw = job.records["data"]["hash"]
        page = json.loads(objects.read(job.platform.objects, lineage.manifest_of(processed, raw)))
        assert (page["raw"], page["raw_files"]) == (raw, job.records["data"]["files"])


def test_lineage_of_an_unknown_version_says_how_to_make_one(finished: Job) -> None:
    with pytest.raises(NotFound, match="no version of 'fraud_detection' is numbered 99; make one"):
        list(lineage.trace(finished.platform, 99))


def environment(folder: Path) -> dict[str, str]:
    """The small world of the tests, for a process of its own."""
    small = small_job(folder).settings.simulation
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MLOPS_SIMULATION__CUSTOMERS": str(small.customers),
        "MLOPS_SIMULATION__TERMINALS": str(small.terminals),
        "MLOPS_SIMULATION__DAYS": str(small.days),
        "MLOPS_SPLIT__TRAIN": "21d",
        "MLOPS_MODEL__PARAMETERS__XGB__ROUNDS": "20",
    }


def test_two_pipelines_at_once_on_one_sqlite_make_two_versions(tmp_path: Path) -> None:
    started = [
        subprocess.Popen(
            COMMAND, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    assert versions(small_job(tmp_path)) == 2


def test_a_killed_pipeline_registers_nothing_and_a_second_run_works(tmp_path: Path) -> None:
    process = subprocess.Popen(
        COMMAND, cwd=tmp_path, env=environment(tmp_path), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    runs = tmp_path / "var" / PROCESSED / "runs"
    deadline = time.monotonic() + 120
    while not list(runs.rglob("features.json")) and time.monotonic() < deadline:
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(runs.rglob("register.json"))
    done = subprocess.run(
        COMMAND, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert versions(small_job(tmp_path)) == 1


def test_records_are_plain_json_with_the_names_of_everything_that_was_made(finished: Job) -> None:
    pages = [key for key in finished.platform.objects.list(f"{PROCESSED}/runs") if key.endswith("features.json")]
    with finished.platform.objects.download(pages[0]) as path:
        record = json.loads(path.read_text())
    assert record["snapshot"] == finished.records["features"]["snapshot"]
    assert datetime.fromisoformat(record["since"]) < datetime.fromisoformat(record["until"])
