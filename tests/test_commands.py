"""The commands as people type them: what they print, where they write, and one clear line for every bad input."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from modules.fraud_detection import __main__, settings
from modules.fraud_detection.__main__ import main
from modules.fraud_detection.job import Job
from modules.fraud_detection.settings import FILE
from modules.fraud_detection.src.features import build_features
from tests.conftest import ROOT, SMALL, shared

READ = settings.read(None, "local", {})


@pytest.fixture
def parquet(tmp_path: Path, transactions: pl.DataFrame) -> Path:
    path = tmp_path / "in.parquet"
    transactions.write_parquet(path)
    return path


def failure(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail, and return its one line."""
    assert main(words) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_word_that_needs_what_is_not_installed_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The image that serves has no training packages, and can be given the word `train` all the same."""
    monkeypatch.setitem(__main__.WORDS, "train", lambda _: __import__("not_installed_here"))
    said = failure(["train"], capsys)
    assert said.startswith("error: 'train' needs not_installed_here, which is not installed here; use the image fraud-")


def test_features_writes_the_id_and_every_feature_one_row_per_input_row_in_input_order(
    tmp_path: Path, parquet: Path, transactions: pl.DataFrame
) -> None:
    shuffled = transactions.sample(fraction=1, shuffle=True, seed=4)
    shuffled.write_parquet(parquet)
    assert main(["features", "--data", str(parquet), "--out", "out.parquet"]) == 0
    written = pl.read_parquet("out.parquet")
    assert_frame_equal(written, build_features.build(shuffled, READ.data, READ.features))
    assert written["transaction_id"].to_list() == shuffled["transaction_id"].to_list()


def test_features_keeps_the_place_of_a_bad_row_and_leaves_it_empty(
    parquet: Path, transactions: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = transactions.with_columns(amount=pl.when(pl.col("transaction_id") == 3).then(-5.0).otherwise("amount"))
    bad.write_parquet(parquet)
    assert main(["features", "--data", str(parquet), "--out", "deep/out.csv"]) == 0
    assert (
        capsys.readouterr().out
        == f"wrote {transactions.height:,} rows to deep/out.csv; 1 bad ones have empty features\n"
    )
    written = pl.read_csv("deep/out.csv")
    assert written.height == transactions.height
    assert written.row(2) == (3, *[None] * (len(written.columns) - 1))


def test_features_needs_no_labels(parquet: Path, transactions: pl.DataFrame) -> None:
    transactions.drop("is_fraud", "label_known_at").write_parquet(parquet)
    assert main(["features", "--data", str(parquet), "--out", "out.parquet"]) == 0
    written = pl.read_parquet("out.parquet")
    assert written["terminal_id_is_fraud_count_7d_7d_ago"].sum() == 0
    assert written["customer_id_amount_count_7d"].sum() > transactions.height


def test_features_of_the_handbook_data_are_those_of_its_configuration(tmp_path: Path) -> None:
    data = shared("fraud_handbook/transactions.parquet")
    pl.scan_parquet(data).head(50_000).sink_parquet(tmp_path / "some.parquet")
    handbook = str(FILE.with_name("handbook.yaml"))
    assert main(["features", "--data", "some.parquet", "--out", "out.parquet", "--config", handbook]) == 0
    written = pl.read_parquet("out.parquet")
    assert written.shape == (50_000, 16)
    assert (
        written["TX_DURING_NIGHT"].sum()
        == 50_000 - pl.read_parquet("some.parquet")["TX_DATETIME"].dt.hour().gt(6).sum()
    )


def test_train_from_a_stored_snapshot_registers_another_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small(monkeypatch)
    assert main(["pipeline"]) == 0
    assert "One transaction, scored and explained" in capsys.readouterr().out
    assert main(["train", "--opt-ml", "nowhere"]) == 0
    assert capsys.readouterr().out == "registered version 2 of fraud_detection\n"
    assert main(["lineage", "--version", "2"]) == 0
    printed = capsys.readouterr().out
    assert "raw data" in printed


@pytest.mark.parametrize(
    ("file", "word"), [("train", "train"), ("run_pipeline", "pipeline"), ("retrain", "retrain"), ("predict", "serve")]
)
def test_a_file_of_the_specification_is_a_program_wherever_one_stands(tmp_path: Path, file: str, word: str) -> None:
    program = ROOT / "modules" / "fraud_detection" / f"{file}.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, program, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith(f"usage: python -m modules.fraud_detection {word} ")


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SMALL.items():
        monkeypatch.setenv(f"MLOPS_SIMULATION__{name.upper()}", str(value))
    monkeypatch.setenv("MLOPS_SPLIT__TRAIN", "21d")
    monkeypatch.setenv("MLOPS_MODEL__PARAMETERS__XGB__ROUNDS", "20")


Spoil = Callable[[pl.DataFrame], pl.DataFrame]
BAD_TABLES: dict[str, tuple[Spoil, str]] = {
    "no rows": (lambda table: table.head(0), "holds no rows"),
    "a column of another name": (
        lambda table: table.rename({"amount": "amont"}),
        "has no column 'amount'; did you mean 'amont'?",
    ),
    "a label that is never 1": (lambda table: table.with_columns(is_fraud=pl.lit(0)), "'is_fraud' is never 1"),
    "text in a number column": (
        lambda table: table.with_columns(amount=pl.lit("twelve")),
        "column 'amount' is not a number (",
    ),
    "too short a time": (lambda table: table.head(500), "the data covers"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_one_clear_line_and_nothing_is_registered(
    name: str, tmp_path: Path, transactions: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, complaint = BAD_TABLES[name]
    spoil(transactions).write_parquet("bad.parquet")
    assert complaint in failure(["pipeline", "--data", "bad.parquet"], capsys)
    assert not (tmp_path / "var" / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "there is no data at"),
        (b"", "is empty"),
        (b"PAR1 not really", "cannot be read as PARQUET"),
    ],
)
def test_a_file_that_is_no_table_is_one_clear_line(
    content: bytes | None, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("x.parquet").write_bytes(content)
    assert complaint in failure(["pipeline", "--data", "x.parquet"], capsys)


def test_a_misspelt_key_is_named_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    tree = yaml.safe_load(FILE.read_text())
    tree["split"] = {"trian": "28d"}
    Path("own.yaml").write_text(yaml.safe_dump(tree))
    line = failure(["pipeline", "--config", "own.yaml"], capsys)
    assert "unknown key 'split.trian' (did you mean 'train'?)" in line


def test_a_misspelt_variable_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLOPS_PLATFORM__OBJECT", "file://x")
    assert "unknown key 'platform.object' (did you mean 'objects'?)" in failure(["pipeline"], capsys)


def test_an_unknown_profile_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "has no profile 'moon'; it has: aws, local" in failure(["pipeline", "--profile", "moon"], capsys)


def test_a_snapshot_cut_short_is_named(finished: Job, capsys: pytest.CaptureFixture[str]) -> None:
    home = Path("var/data/processed/features/0123456789abcdef")
    home.mkdir(parents=True)
    (home / "features.parquet").write_bytes(b"half")
    line = failure(["train", "--snapshot", "0123456789abcdef"], capsys)
    assert "snapshot 0123456789abcdef was cut short" in line
    assert "make it again" in line


def test_an_output_of_another_kind_is_refused(parquet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failure(["features", "--data", str(parquet), "--out", "out.xlsx"], capsys)
    assert "name a file that ends in .parquet or .csv" in line


def test_a_password_in_a_url_is_never_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLOPS_PLATFORM__OBJECTS", "ftp://me:geheim@host/x")
    line = failure(["pipeline"], capsys)
    assert "geheim" not in line
    assert "write file://FOLDER or s3://" in line


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Mounts a small disk; only root can, so without root the test is skipped."""
    mounted = []

    def mount(name: str, size: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=False, capture_output=True
        )
        if done.returncode:
            pytest.skip("mounting a small disk needs root")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize(("name", "size"), [("var", "200k"), ("var", "2m"), ("tmp", "300k"), ("tmp", "1m")])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing_half(
    name: str, size: str, tmp_path: Path, tiny_disk: Callable[[str, str], Path], transactions: pl.DataFrame
) -> None:
    disk = tiny_disk(name, size)
    ids = np.random.default_rng(0).permutation(transactions.height)
    transactions.with_columns(transaction_id=ids).write_parquet("in.parquet")
    done = subprocess.run(
        [sys.executable, "-m", "modules.fraud_detection", "pipeline", "--data", "in.parquet"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **({"TMPDIR": str(disk)} if name == "tmp" else {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert "error: no space left for" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "var").glob(".incoming/*"))
    assert not (tmp_path / "var" / "mlflow.db").exists()
