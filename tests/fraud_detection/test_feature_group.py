"""The feature store, local and SageMaker's: the same claims for both, and what the second adds."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

import boto3
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlops.errors import BadConfiguration, BadData, NotFound
from mlops.storage import objects
from mlops.storage.feature_group import FeatureGroup
from mlops.storage.objects import Objects
from modules.fraud_detection import __main__ as module
from modules.fraud_detection import feature_group, settings
from modules.fraud_detection.src.features import build_features, feature_store
from tests.feature_store_runtime import Runtime
from tests.mlops.storage.test_feature_group import ROLE, delete

READ = settings.read(None, "local", {})
PARENTS = {"raw": "r", "processed": "p"}
EVER = datetime(2100, 1, 1)
STRANGER = "999999999"


@pytest.fixture(scope="module")
def rows(transactions: pl.DataFrame) -> pl.DataFrame:
    """Transactions, and beside each its features; some of them are not known."""
    table = transactions.head(120)
    built = build_features.build(table, READ.data, READ.features)
    return built.with_columns(
        pl.when(pl.int_range(pl.len()) % 3 > 0)
        .then(pl.col("customer_id_amount_mean_1d"))
        .alias("customer_id_amount_mean_1d")
    ).join(
        table.select("transaction_id", "timestamp", "customer_id", "terminal_id", "is_fraud", "label_known_at"),
        on="transaction_id",
    )


def saved(store: Objects, rows: pl.DataFrame, code: str = "c0de") -> str:
    """The name of a snapshot of rows."""
    own = [*READ.data.columns]
    features = rows.drop([name for name in own if name not in ("transaction_id", "amount")])
    return feature_store.save(store, features, rows.select(own), READ.data, PARENTS, code, "c0nf").name


class Place(Protocol):
    """A feature store as its users see it."""

    def put(self, rows: pl.DataFrame) -> None:
        """Keep rows."""

    def load(self, as_of: datetime) -> pl.DataFrame:
        """Give all rows as they were known at a moment."""

    def drop(self, ids: Sequence[int], at: datetime) -> None:
        """Take rows out."""

    def miss(self) -> None:
        """Ask for what is not there."""


class Local:
    """Snapshots, each of them made anew from all rows."""

    def __init__(self, store: Objects) -> None:
        self._store, self._rows = store, pl.DataFrame()

    def put(self, rows: pl.DataFrame) -> None:
        self._rows, self._name = rows, saved(self._store, rows)

    def load(self, as_of: datetime) -> pl.DataFrame:
        return feature_store.load(self._store, self._name, as_of)

    def drop(self, ids: Sequence[int], at: datetime) -> None:
        self.put(self._rows.filter(~pl.col("transaction_id").is_in(ids)))

    def miss(self) -> None:
        feature_store.load(self._store, "nobody")


class Shared:
    """A feature group, filled from snapshots and read back into them."""

    def __init__(self, store: Objects, group: FeatureGroup, runtime: Runtime) -> None:
        self._store, self._group, self._runtime = store, group, runtime

    def put(self, rows: pl.DataFrame) -> None:
        name = saved(self._store, rows)
        feature_group.create(self._store, self._group, name, ROLE)
        assert feature_group.put(self._store, self._group, name) == rows.height
        self._runtime.write_down()

    def load(self, as_of: datetime) -> pl.DataFrame:
        manifest = feature_group.snapshot(self._store, self._group, as_of)
        return feature_store.load(self._store, manifest.name, as_of)

    def drop(self, ids: Sequence[int], at: datetime) -> None:
        for id_ in ids:
            delete(self._group.name, str(id_), at)
        self._runtime.write_down()

    def miss(self) -> None:
        feature_group.record(self._store, self._group, "nobody")


@pytest.fixture
def store(bucket: str) -> Objects:
    return objects.connect(f"s3://{bucket}/p")


@pytest.fixture
def group(bucket: str, runtime: Runtime) -> FeatureGroup:
    return FeatureGroup(bucket)


@pytest.fixture(params=["local", "shared"])
def place(request: pytest.FixtureRequest, store: Objects, group: FeatureGroup, runtime: Runtime) -> Place:
    return Local(store) if request.param == "local" else Shared(store, group, runtime)


class TestBothPlaces:
    def test_what_is_put_comes_back_with_its_types_and_its_gaps(self, place: Place, rows: pl.DataFrame) -> None:
        place.put(rows)
        loaded = place.load(EVER)
        assert loaded["customer_id_amount_mean_1d"].null_count() == 40
        assert_frame_equal(
            loaded.sort("transaction_id"), rows.sort("transaction_id"), check_exact=True, check_column_order=False
        )

    def test_as_of_a_moment_nothing_later_is_known(self, place: Place, rows: pl.DataFrame) -> None:
        place.put(rows)
        times = rows["timestamp"].sort()
        for moment in (times[40], times[-1], times[60] + timedelta(days=7, hours=1)):
            loaded = place.load(moment)
            expected = rows.filter(pl.col("timestamp") <= moment).with_columns(
                pl.when(pl.col("label_known_at") <= moment).then(pl.col("is_fraud")).alias("is_fraud")
            )
            assert_frame_equal(
                loaded.sort("transaction_id"),
                expected.sort("transaction_id"),
                check_exact=True,
                check_column_order=False,
            )

    def test_to_put_the_same_again_changes_nothing(self, place: Place, rows: pl.DataFrame) -> None:
        place.put(rows)
        before = place.load(EVER)
        place.put(rows)
        assert_frame_equal(place.load(EVER), before)

    def test_rows_that_were_taken_out_are_gone_and_the_others_are_not(self, place: Place, rows: pl.DataFrame) -> None:
        place.put(rows)
        before, ids = place.load(EVER), rows["transaction_id"].head(5).to_list()
        place.drop(ids, EVER)
        assert_frame_equal(place.load(EVER), before.filter(~pl.col("transaction_id").is_in(ids)))

    def test_what_is_not_there_has_a_name_and_no_values(self, place: Place, rows: pl.DataFrame) -> None:
        place.put(rows)
        with pytest.raises(NotFound, match="there is no feature snapshot 'nobody'|has no record 'nobody'"):
            place.miss()


class TestGroup:
    @pytest.fixture
    def shared(self, store: Objects, group: FeatureGroup, runtime: Runtime, rows: pl.DataFrame) -> Shared:
        made = Shared(store, group, runtime)
        made.put(rows)
        return made

    def test_a_record_is_what_a_decision_saw_without_the_label(
        self, shared: Shared, store: Objects, group: FeatureGroup, rows: pl.DataFrame
    ) -> None:
        row = rows.row(0, named=True)
        found = feature_group.record(store, group, str(row["transaction_id"]))
        assert found == {name: value for name, value in row.items() if name not in ("is_fraud", "label_known_at")}
        assert found["customer_id_amount_mean_1d"] is None

    def test_a_deleted_record_is_told(
        self, shared: Shared, store: Objects, group: FeatureGroup, rows: pl.DataFrame
    ) -> None:
        id_ = rows["transaction_id"][0]
        shared.drop([id_], EVER)
        with pytest.raises(NotFound, match=f"has no record '{id_}'"):
            feature_group.record(store, group, str(id_))

    def test_a_correction_counts(self, shared: Shared, store: Objects, rows: pl.DataFrame) -> None:
        corrected = rows.with_columns(is_fraud=(1 - pl.col("is_fraud")).cast(pl.Int8))
        shared.put(corrected)
        assert shared.load(EVER)["is_fraud"].sum() == 120 - rows["is_fraud"].sum()

    def test_a_snapshot_says_which_group_and_which_snapshots_it_was_made_from(
        self, shared: Shared, store: Objects, group: FeatureGroup, rows: pl.DataFrame
    ) -> None:
        (first,) = feature_store.list_names(store)
        later = rows.with_columns(
            pl.col("transaction_id") + 1_000_000, pl.col("timestamp", "label_known_at") + pl.duration(days=30)
        )
        second = saved(store, later, "0ther")
        feature_group.put(store, group, second)
        shared._runtime.write_down()
        moment = datetime(2099, 1, 1)
        manifest = feature_group.snapshot(store, group, moment)
        assert manifest.rows == 240
        assert manifest.code == "0ther"
        assert manifest.parents == {
            **PARENTS, "feature_group": group.name, "snapshots": " ".join(sorted([first, second])),
            "as_of": moment.isoformat(),
        }  # fmt: skip
        assert feature_store.find(store, manifest.name) == manifest
        assert manifest.columns == feature_store.find(store, second).columns
        assert feature_group.snapshot(store, group, moment) == manifest

    def test_a_snapshot_of_a_moment_holds_no_label_that_became_known_later(
        self, shared: Shared, store: Objects, group: FeatureGroup, rows: pl.DataFrame
    ) -> None:
        moment = rows["timestamp"].sort()[60] + timedelta(days=7, hours=1)
        table = feature_store.load(store, feature_group.snapshot(store, group, moment).name)
        known = table["label_known_at"] <= moment
        assert 0 < known.sum() < table.height
        assert table["is_fraud"].is_not_null().to_list() == known.to_list()

    def test_before_anything_arrives_there_is_nothing_to_make_a_snapshot_of(
        self, store: Objects, group: FeatureGroup, rows: pl.DataFrame
    ) -> None:
        name = saved(store, rows)
        feature_group.create(store, group, name, ROLE)
        feature_group.put(store, group, name)
        with pytest.raises(NotFound, match="holds no record; what is put arrives within 15 minutes"):
            feature_group.snapshot(store, group)
        with pytest.raises(NotFound, match="holds no record up to 2020-01-01 00:00:00"):
            feature_group.snapshot(store, group, datetime(2020, 1, 1))

    def test_records_that_others_put_are_not_taken_for_ours(
        self, shared: Shared, store: Objects, group: FeatureGroup, runtime: Runtime
    ) -> None:
        record = [
            {"FeatureName": name, "ValueAsString": text}
            for name, text in (("transaction_id", STRANGER), ("timestamp", "9"))
        ]
        boto3.client("sagemaker-featurestore-runtime").put_record(FeatureGroupName=group.name, Record=record)  # type: ignore[arg-type]
        runtime.write_down()
        for ask in (lambda: feature_group.snapshot(store, group), lambda: feature_group.record(store, group, STRANGER)):
            with pytest.raises(BadData, match="has records that name no snapshot; they were not put from here"):
                ask()

    def test_rows_of_another_shape_are_not_put(
        self, shared: Shared, store: Objects, group: FeatureGroup, rows: pl.DataFrame
    ) -> None:
        other = saved(store, rows.drop("during_night").with_columns(new=pl.lit(1.0)))
        complaint = r"only the table has: new \(Fractional\); only the group has: during_night \(Fractional\)"
        with pytest.raises(BadData, match=complaint):
            feature_group.put(store, group, other)

    def test_a_folder_is_no_place_for_a_group(self, group: FeatureGroup, rows: pl.DataFrame, tmp_path: object) -> None:
        folder = objects.connect(f"file://{tmp_path}/store")
        with pytest.raises(BadConfiguration, match="needs a bucket and not .*; set platform.objects to s3://BUCKET"):
            feature_group.create(folder, group, saved(folder, rows), ROLE)


def test_the_word_makes_fills_and_reads_back_a_group_that_can_be_trained_from(
    bucket: str, store: Objects, runtime: Runtime, rows: pl.DataFrame, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    name = saved(store, rows)
    monkeypatch.setenv("MLOPS_PLATFORM__OBJECTS", f"s3://{bucket}/p")
    assert module.main(["feature-group", "--name", "cards", "--create", ROLE]) == 0
    assert module.main(["feature-group", "--name", "cards", "--put"]) == 0
    runtime.write_down()
    assert module.main(["feature-group", "--name", "cards", "--take", "--as-of", "2100-01-01"]) == 0
    made, put, taken = capsys.readouterr().out.splitlines()
    assert made == f"made feature group cards for snapshots like {name}"
    assert put == f"put {rows.height} rows of snapshot {name} into cards"
    assert f"with {rows.height} rows" in taken
    assert feature_store.load(store, taken.split()[2]).height == rows.height
    assert module.main(["feature-group", "--name", "nobody", "--take"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
