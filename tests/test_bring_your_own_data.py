"""A new table needs a YAML file and no code: differently shaped tables, each from raw file to registered model."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mlops import bootstrap
from mlops.storage.objects import EXPLANATIONS
from modules.fraud_detection import settings
from modules.fraud_detection.__main__ import main
from modules.fraud_detection.settings import NAME
from modules.fraud_detection.src.features import feature_store

ROWS = 6_000
DAYS = 60
QUICK = """
split: {train: 21d, delay: 7d, valid: 7d, test: 7d}
model: {parameters: {xgb: {rounds: 30, max_depth: 3, tree_method: hist}}}
evaluation: {resamples: 10}
"""


@dataclass(frozen=True)
class Shape:
    """A table, its configuration, and the feature in which its fraud was planted."""

    make: Callable[[np.random.Generator, Path], Path]
    configuration: str
    planted: str


def no_entity_no_id_many_numbers(draw: np.random.Generator, folder: Path) -> Path:
    """Like the well-known European cards: seconds since the first row, anonymous components, an amount, a class."""
    parts = draw.normal(size=(ROWS, 12))
    table = pl.DataFrame(parts, schema=[f"V{place}" for place in range(1, 13)])
    fraud = (parts[:, 6] > 1.7).astype(int)
    seconds = np.sort(draw.uniform(0, DAYS * 86_400, ROWS).round())
    table = table.with_columns(
        Time=pl.Series(seconds), Amount=pl.Series(draw.lognormal(3, 1, ROWS).round(2)), Class=fraud
    )
    table.write_csv(folder / "creditcard.csv")
    return folder / "creditcard.csv"


def one_entity_dates_and_categories(draw: np.random.Generator, folder: Path) -> Path:
    """Insurance claims: a date, a policy, text categories with gaps, a label in words."""
    first = date(2024, 3, 1)
    garage = draw.choice(["city", "village", "mobile"], ROWS, p=[0.6, 0.3, 0.1])
    fraud = (garage == "mobile") & (draw.random(ROWS) < 0.7)
    table = pl.DataFrame(
        {
            "claim": [f"C-{place:05d}" for place in range(ROWS)],
            "day": [first + timedelta(days=int(day)) for day in np.sort(draw.integers(0, DAYS, ROWS))],
            "policy": [f"P{policy:04d}" for policy in draw.integers(0, 900, ROWS)],
            "garage": garage,
            "colour": [None if gap < 0.2 else "red" for gap in draw.random(ROWS)],
            "age": [
                None if gap < 0.1 else age
                for gap, age in zip(draw.random(ROWS), draw.integers(18, 90, ROWS), strict=True)
            ],
            "found_out": np.where(fraud, "true", "false"),
        }
    )
    table.write_parquet(folder / "claims.parquet")
    return folder / "claims.parquet"


def two_entities_own_time_pattern_and_known_labels(draw: np.random.Generator, folder: Path) -> Path:
    """Transfers in a folder of files: senders and receivers with leading zeros, day/month/year, a label known later."""
    start = datetime(2024, 3, 1)
    times = [start + timedelta(minutes=int(minute)) for minute in np.sort(draw.integers(0, DAYS * 1_440, ROWS))]
    amount = draw.lognormal(3, 0.5, ROWS).round(2)
    fraud = amount > np.quantile(amount, 0.97)
    table = pl.DataFrame(
        {
            "transfer": np.arange(ROWS),
            "booked": [time.strftime("%d/%m/%Y %H:%M") for time in times],
            "sender": [f"{sender:06d}" for sender in draw.integers(0, 500, ROWS)],
            "receiver": [f"{receiver:06d}" for receiver in draw.integers(0, 300, ROWS)],
            "euros": amount,
            "fraud": fraud.astype(int),
            "reported": [
                (time + timedelta(days=int(d))).isoformat()
                for time, d in zip(times, draw.integers(1, 9, ROWS), strict=True)
            ],
        }
    )
    home = folder / "transfers"
    home.mkdir()
    table[: ROWS // 2].write_csv(home / "march.csv")
    table[ROWS // 2 :].write_csv(home / "april.csv")
    return home


SHAPES = {
    "no entity": Shape(
        no_entity_no_id_many_numbers,
        """
data:
  time: {column: Time, unit: s, origin: 2013-09-01}
  amount: Amount
  numeric: [V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12]
  label: {column: Class, delay: 7d}
""",
        "V7",
    ),
    "one entity": Shape(
        one_entity_dates_and_categories,
        """
data:
  id: claim
  time: {column: day}
  entities: [policy]
  numeric: [age]
  categorical: [garage, colour]
  label: {column: found_out, delay: 7d}
""",
        "garage",
    ),
    "two entities": Shape(
        two_entities_own_time_pattern_and_known_labels,
        """
data:
  id: transfer
  time: {column: booked, pattern: "%d/%m/%Y %H:%M"}
  entities: [sender, receiver]
  amount: euros
  label: {column: fraud, known_at: reported}
features:
  windows:
    - {entity: sender, of: euros, aggregates: [count, sum, max], lengths: [12h, 7d]}
    - {entity: sender, of: receiver, aggregates: [distinct], lengths: [7d]}
    - {entity: receiver, of: fraud, aggregates: [count, share], lengths: [30d]}
  rows:
    - {name: euros, of: euros}
    - {name: hour, kind: hour, of: booked}
""",
        "euros",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_table_of_another_shape_becomes_a_model_by_a_yaml_file(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = SHAPES[name]
    data = shape.make(np.random.default_rng(1), tmp_path)
    configuration = tmp_path / "own.yaml"
    configuration.write_text(shape.configuration + QUICK)
    assert main(["pipeline", "--data", str(data), "--config", str(configuration)]) == 0
    assert "fraud probability" in capsys.readouterr().out
    platform = bootstrap.connect(settings.read(configuration, "local", {}).platform)
    version = platform.registry.find(NAME, "production")
    metrics = platform.tracking.client.get_run(version.run_id).data.metrics
    assert metrics["test_average_precision"] > 5 * metrics["test_fraud_share"]
    table = feature_store.load(platform.objects, version.tags["snapshot"])
    assert table.height == ROWS
    keys = [key for key in platform.objects.list(EXPLANATIONS) if key.endswith("mean_abs_shap.json")]
    with platform.objects.download(keys[0]) as path:
        assert pl.read_json(path)["feature"][0] == shape.planted
