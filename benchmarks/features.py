"""Batch features beside plain pandas: the same 15 features over 1.8 million rows, interleaved, results equal.

    python -m benchmarks.features [--data TRANSACTIONS.parquet] [--repeats 3]

Without data it simulates the handbook's shape: 5,000 customers, 10,000 terminals, 175 days. The pandas side is how the
field writes it: for each customer and terminal, `rolling` over a time index, as in the Fraud Detection Handbook.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from modules.fraud_detection import settings
from modules.fraud_detection.src.data import synthetic
from modules.fraud_detection.src.data.synthetic import Simulation
from modules.fraud_detection.src.features import build_features

HANDBOOK = settings.FILE.with_name("handbook.yaml")
DAYS = (1, 7, 30)
DELAY = 7


def main() -> None:
    """Run both sides in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    words = parser.parse_args()
    table = pl.read_parquet(words.data) if words.data else _simulated()
    read = settings.read(HANDBOOK, "local", {})
    table = table.select(read.data.columns)
    build_features.build(table.head(1_000), read.data, read.features)  # compiles the engine

    ours, pandas = [], []
    for _ in range(words.repeats):
        began = time.perf_counter()
        built = build_features.build(table, read.data, read.features)
        between = time.perf_counter()
        plain = _pandas(table.to_pandas())
        pandas.append(time.perf_counter() - between)
        ours.append(between - began)
    apart = _largest_difference(built, plain)
    ratios = [slow / fast for slow, fast in zip(pandas, ours, strict=True)]
    print(f"rows {table.height:,}, features {len(built.columns) - 1}, repeats {words.repeats}")
    print(f"ours    median {statistics.median(ours):8.2f} s")
    print(f"pandas  median {statistics.median(pandas):8.2f} s")
    print(f"ratio   median {statistics.median(ratios):8.1f}  min {min(ratios):.1f}  max {max(ratios):.1f}")
    print(f"largest difference of any value {apart:.1e}")
    assert apart < 1e-9, "the two sides disagree"


def _simulated() -> pl.DataFrame:
    names = {
        "transaction_id": "TRANSACTION_ID", "timestamp": "TX_DATETIME", "customer_id": "CUSTOMER_ID",
        "terminal_id": "TERMINAL_ID", "amount": "TX_AMOUNT", "is_fraud": "TX_FRAUD",
    }  # fmt: skip
    return synthetic.simulate(Simulation(customers=5_000, terminals=10_000, days=175)).rename(names)


def _pandas(table: pd.DataFrame) -> pd.DataFrame:
    table["TX_DURING_WEEKEND"] = (table["TX_DATETIME"].dt.day_of_week >= 5).astype(float)
    table["TX_DURING_NIGHT"] = (table["TX_DATETIME"].dt.hour <= 6).astype(float)
    table = pd.concat([_of_customer(rows) for _, rows in table.groupby("CUSTOMER_ID")])
    table = pd.concat([_of_terminal(rows) for _, rows in table.groupby("TERMINAL_ID")])
    return table.sort_values("TRANSACTION_ID")


def _of_customer(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.sort_values(["TX_DATETIME", "TRANSACTION_ID"])
    amounts = rows.set_index("TX_DATETIME")["TX_AMOUNT"]
    for days in DAYS:
        window = amounts.rolling(f"{days}D")
        count = window.count()
        rows[f"CUSTOMER_ID_TX_AMOUNT_count_{days}d"] = count.to_numpy()
        rows[f"CUSTOMER_ID_TX_AMOUNT_mean_{days}d"] = (window.sum() / count).to_numpy()
    return rows


def _of_terminal(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.sort_values(["TX_DATETIME", "TRANSACTION_ID"])
    frauds = rows.set_index("TX_DATETIME")["TX_FRAUD"]
    recent = frauds.rolling(f"{DELAY}D")
    for days in DAYS:
        window = frauds.rolling(f"{days + DELAY}D")
        count = window.count() - recent.count()
        rows[f"TERMINAL_ID_TX_FRAUD_count_{days}d_7d_ago"] = count.to_numpy()
        share = (window.sum() - recent.sum()) / count
        rows[f"TERMINAL_ID_TX_FRAUD_share_{days}d_7d_ago"] = share.fillna(0).to_numpy()
    return rows


def _largest_difference(ours: pl.DataFrame, plain: pd.DataFrame) -> float:
    ordered = ours.sort("TRANSACTION_ID")
    names = [name for name in ordered.columns if name != "TRANSACTION_ID"]
    return max(float(np.abs(ordered[name].to_numpy() - plain[name].to_numpy()).max()) for name in names)


if __name__ == "__main__":
    main()
