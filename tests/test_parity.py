"""One definition, two executions, over the wire: history is replayed through HTTP and every feature is compared."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mlops.journaling import journal
from mlops.journaling.labels import DECISION, decode_record
from modules.fraud_detection import settings
from modules.fraud_detection.settings import Settings
from modules.fraud_detection.src.data import synthetic
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.data.synthetic import Simulation
from modules.fraud_detection.src.features import build_features, declaration, entity_past, online_kernels
from modules.fraud_detection.src.features.declaration import Declaration
from modules.fraud_detection.src.features.entity_past import EntityPast
from tests.api import Client, processes, serving, settings_of
from tests.conftest import SHARED, run, small_job
from tests.redis_server import RedisServer
from tests.services import LONG

pytestmark = pytest.mark.no_cover

HANDBOOK = SHARED / "fraud_handbook" / "transactions.parquet"
ROWS = 50_000
TRAINED_DAYS = 36
AT_ONCE = 100
LANES = 8
QUICK = {
    "split": {"train": "7d"},
    "model": {"parameters": {"xgb": {"rounds": 10, "max_depth": 3}}, "search": {"xgb": [{}]}},
}
SCAN = online_kernels.scan_events
FEW = 1_500
SMALL = Simulation(customers=300, terminals=100, days=TRAINED_DAYS + 8)
SIMULATED = Simulation(customers=1_200, terminals=500, days=TRAINED_DAYS + 33)


def history() -> tuple[pl.DataFrame, Path]:
    """A history and its configuration: a sixth of the handbook's terminals; where there is no handbook, simulated."""
    if HANDBOOK.exists():
        table = pl.read_parquet(HANDBOOK).filter(pl.col("TERMINAL_ID").cast(pl.Int64) % 6 == 0)
        return table, settings.FILE.parent / "handbook_own.yaml"
    return synthetic.simulate(SIMULATED), settings.FILE


def without_the_row_itself(words: Any, starts: Any, own: Any, *rest: Any) -> Any:
    """Scan events as if each row had come a microsecond before itself."""
    earlier = own.copy()
    earlier[:, online_kernels.TIME] -= 1
    return SCAN(words, starts, earlier, *rest)


def request(row: dict[str, Any], dataset: DataSet) -> dict[str, Any]:
    """A row as the API is asked about it."""
    names = [dataset.id_column, dataset.time.column, *dataset.entities, *dataset.numbers]
    return {name: row[name] for name in names} | {dataset.time.column: row[dataset.time.column].isoformat()}


@pytest.fixture(params=["memory", "redis"])
def online(request: pytest.FixtureRequest) -> str:
    """Where the live features remember."""
    if request.param == "memory":
        return "memory://"
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.patient_url


def test_transactions_see_live_what_the_batch_sees(
    online: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    table, file = history()
    # Both pasts are built by the same code, which the slower of them is asked to go through at length.
    rows = ROWS if LONG or online != "memory://" else ROWS // 5
    live, served, dataset, declared = served_after_training(table, file, rows, online, tmp_path)
    with processes(served, tmp_path) as (_, client), ThreadPoolExecutor(LANES) as pool:
        replay(client, live, dataset, pool)
    found, degraded = differences(served, table, live, dataset, declared)
    record_property("values compared", rows * len(found))
    assert degraded == 0
    assert {name: count for name, count in found.items() if count} == {}


SEEN_AT_THE_START = "a row is late for itself"
BUGS: dict[str, tuple[object, str, Any]] = {
    "cents are lost": (entity_past, "_number", lambda value: float("nan") if value is None else float(round(value))),
    "labels are lost": (EntityPast, "facts", lambda self, row, facts: []),
    SEEN_AT_THE_START: (online_kernels, "scan_events", without_the_row_itself),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_comparison_notices_a_planted_bug(bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = synthetic.simulate(SMALL)
    live, served, dataset, declared = served_after_training(table, settings.FILE, FEW, "memory://", tmp_path)
    if bug != SEEN_AT_THE_START:
        monkeypatch.setattr(*BUGS[bug])
    with serving(served) as client, ThreadPoolExecutor(LANES) as pool:
        # With this one from the start the version would not be served: its canned transaction would score wrong.
        monkeypatch.setattr(*BUGS[bug])
        replay(client, live, dataset, pool)
    found, _ = differences(served, table, live, dataset, declared)
    assert sum(found.values()) > 0


def served_after_training(
    table: pl.DataFrame, file: Path, rows: int, online: str, folder: Path
) -> tuple[pl.DataFrame, Settings, DataSet, Declaration]:
    """Train on the first days of a history; return the next rows, the settings to serve, and what is declared."""
    read = settings.read(file, "local", {})
    dataset, time = read.data, read.data.time.column
    begin = table[time].min()
    assert begin is not None
    cut = begin + timedelta(days=TRAINED_DAYS)  # type: ignore[operator]
    table.filter(pl.col(time) < cut).write_parquet(folder / "trained.parquet")
    live = table.filter(pl.col(time) >= cut).sort(time, dataset.id_column).head(rows)
    assert live.height == rows
    job = run(small_job(folder, str(folder / "trained.parquet"), file, **QUICK))
    return live, settings_of(job, folder, platform={"online": online}), dataset, read.features


def differences(
    served: Settings, table: pl.DataFrame, live: pl.DataFrame, dataset: DataSet, declared: Declaration
) -> tuple[dict[str, int], int]:
    """How many values of each feature differ between the journal and the batch; and how many rows were degraded."""
    columns, time = [feature.name for feature in declaration.features(declared, dataset)], dataset.time.column
    kept = journal.connect(served.platform.journal)
    seen = [decode_record(row.entry.body) for row in kept.since(0) if row.entry.kind == DECISION]
    kept.close()
    assert len(seen) == live.height
    found = pl.DataFrame([record.seen for record in seen], schema=columns, orient="row")
    rows = table.filter(pl.col(time) < live[time].max() + timedelta(days=1))  # type: ignore[operator]
    batch = build_features.build(rows, dataset, declared)
    ids = pl.DataFrame({"key": [record.key for record in seen]})
    expected = ids.join(
        batch.with_columns(pl.col(dataset.id_column).cast(pl.String).alias("key")), on="key", how="left"
    )
    different = {name: int((found[name].ne_missing(expected[name])).sum()) for name in columns}
    return different, sum(record.degraded for record in seen)


def replay(client: Client, live: pl.DataFrame, dataset: DataSet, pool: ThreadPoolExecutor) -> None:
    """Ask about every row in order of time, and say its label, known when the data says."""
    known = live.select(dataset.known_at()).to_series().to_list()
    rows = live.to_dicts()
    clients = [Client(client.port) for _ in range(LANES)]

    def label(lane: int, places: range) -> None:
        for place in places[lane::LANES]:
            row = rows[place]
            if row[dataset.label.column] is not None and known[place] is not None:
                body = {
                    "transaction_id": row[dataset.id_column], "is_fraud": row[dataset.label.column],
                    "known_at": known[place].isoformat(),
                }  # fmt: skip
                answer = clients[lane].post("/feedback", body)
                assert answer.status == 200, answer

    for start in range(0, len(rows), AT_ONCE):
        asked = [request(row, dataset) for row in rows[start : start + AT_ONCE]]
        results = client.post("/predict/batch", {"transactions": asked}).body["results"]
        assert not any("error" in result for result in results)
        list(pool.map(label, range(LANES), [range(start, start + len(asked))] * LANES))
    for each in clients:
        each.close()
