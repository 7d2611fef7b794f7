"""The feature store: immutable snapshots named by content, readable as of any moment, in a folder and in a bucket."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlops.errors import Damaged, NotFound
from mlops.storage import objects
from mlops.storage.objects import Objects
from modules.fraud_detection import settings
from modules.fraud_detection.src.features import build_features, feature_store
from modules.fraud_detection.src.features.feature_store import FOLDER, MANIFEST, TABLE, Manifest

READ = settings.read(None, "local", {})


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    if request.param == "file":
        return objects.connect(f"file://{tmp_path}/store")
    return objects.connect(f"s3://{request.getfixturevalue('bucket')}/some/prefix")


@pytest.fixture(scope="module")
def rows(transactions: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    table = transactions.head(500)
    return build_features.build(table, READ.data, READ.features), table


Rows = tuple[pl.DataFrame, pl.DataFrame]


def save(store: Objects, rows: Rows, code: str = "c0de", configuration: str = "c0nf") -> Manifest:
    return feature_store.save(store, *rows, READ.data, {"raw": "r", "processed": "p"}, code, configuration)


class TestBothStores:
    def test_what_is_saved_comes_back_with_its_types(self, store: Objects, rows: Rows) -> None:
        manifest = save(store, rows)
        loaded = feature_store.load(store, manifest.name)
        assert_frame_equal(loaded.select(rows[0].columns), rows[0], check_exact=True)
        assert loaded["label_known_at"].to_list() == rows[1]["label_known_at"].to_list()
        assert {name: str(kind) for name, kind in loaded.schema.items()} == manifest.columns

    def test_the_same_content_has_the_same_name_and_other_content_another(self, store: Objects, rows: Rows) -> None:
        first, again = save(store, rows), save(store, rows)
        assert first == again
        others = [save(store, (rows[0].head(9), rows[1].head(9))), save(store, rows, code="0ther")]
        assert len({first.name, *(other.name for other in others)}) == 3
        assert sorted(feature_store.list_names(store)) == sorted({first.name, *(other.name for other in others)})

    def test_the_manifest_says_where_the_rows_come_from(self, store: Objects, rows: Rows) -> None:
        manifest = feature_store.find(store, save(store, rows).name)
        assert manifest.parents == {"raw": "r", "processed": "p"}
        assert (manifest.code, manifest.configuration, manifest.rows) == ("c0de", "c0nf", 500)
        assert (manifest.since, manifest.until) == (rows[1]["timestamp"].min(), rows[1]["timestamp"].max())

    def test_as_of_a_moment_nothing_later_is_known(self, store: Objects, rows: Rows) -> None:
        name, moment = save(store, rows).name, datetime(2025, 1, 2)
        seen = feature_store.load(store, name, as_of=moment)
        assert 0 < seen.height < 500
        assert seen["timestamp"].max() <= moment  # type: ignore[operator]
        assert seen["is_fraud"].null_count() == seen.height
        later = feature_store.load(store, name, as_of=moment + timedelta(days=6))
        known = later["label_known_at"] <= moment + timedelta(days=6)
        assert known.any()
        assert (later["is_fraud"].is_not_null() == known).all()

    def test_the_latest_snapshot_is_the_one_whose_data_reaches_furthest(self, store: Objects, rows: Rows) -> None:
        whole = save(store, rows)
        save(store, (rows[0].head(400), rows[1].head(400)))
        assert feature_store.latest(store) == whole.name

    def test_a_snapshot_that_was_cut_short_is_named_and_not_loaded(self, store: Objects, rows: Rows) -> None:
        name = save(store, rows).name
        store.delete(f"{FOLDER}/{name}/{MANIFEST}")
        with pytest.raises(Damaged, match=f"snapshot {name} was cut short .* make it again"):
            feature_store.load(store, name)
        assert feature_store.list_names(store) == []

    def test_changed_bytes_are_found(self, store: Objects, rows: Rows) -> None:
        name = save(store, rows).name
        data = bytearray(objects.read(store, f"{FOLDER}/{name}/{TABLE}"))
        data[len(data) // 2] ^= 1
        objects.write(store, f"{FOLDER}/{name}/{TABLE}", bytes(data))
        with pytest.raises(Damaged, match="is not what was written"):
            feature_store.load(store, name)

    @pytest.mark.parametrize("change", [b"", b"{}", b'{"rows": 1'])
    def test_a_broken_manifest_is_found(self, store: Objects, rows: Rows, change: bytes) -> None:
        name = save(store, rows).name
        objects.write(store, f"{FOLDER}/{name}/{MANIFEST}", change)
        with pytest.raises(Damaged, match="is broken; make the snapshot again"):
            feature_store.load(store, name)

    def test_a_manifest_that_claims_other_parents_is_found(self, store: Objects, rows: Rows) -> None:
        manifest = save(store, rows)
        forged = manifest.model_copy(update={"parents": {"raw": "x", "processed": "p"}})
        objects.write(store, f"{FOLDER}/{manifest.name}/{MANIFEST}", forged.model_dump_json().encode())
        with pytest.raises(Damaged, match="was changed after it was written"):
            feature_store.find(store, manifest.name)

    def test_an_unknown_snapshot_is_refused_with_the_names_of_the_known(self, store: Objects, rows: Rows) -> None:
        with pytest.raises(NotFound, match="no feature snapshot 'x'; there is: none"):
            feature_store.load(store, "x")
        with pytest.raises(NotFound, match="no feature snapshot yet; make one"):
            feature_store.latest(store)
