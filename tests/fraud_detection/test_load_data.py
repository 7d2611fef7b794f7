"""Reading transactions: CSV and Parquet, files and folders, disk and bucket, and one clear line for what is broken."""

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import boto3
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from mlops.errors import BadConfiguration, BadData, MlopsError, NotFound
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.data.load_data import load, open_source
from modules.fraud_detection.src.validation.data_validation import check
from modules.fraud_detection.src.validation.limits import Validation

DATA = DataSet.model_validate(
    {
        "id": "transaction_id",
        "time": {"column": "timestamp"},
        "entities": ["customer_id", "terminal_id"],
        "amount": "amount",
        "label": {"column": "is_fraud", "known_at": "label_known_at"},
    }
)
UNNUMBERED = DATA.model_copy(update={"id": None})
HEADER = ",".join(DATA.columns)


@pytest.fixture
def table(transactions: pl.DataFrame) -> pl.DataFrame:
    """Three hundred transactions whose ids are texts with leading zeros."""
    ids = [pl.format("00{}", name).alias(name) for name in ("transaction_id", "customer_id", "terminal_id")]
    return transactions.head(300).with_columns(ids).select(DATA.columns)


def read(where: Path | str, dataset: DataSet = DATA, labelled: bool = True) -> pl.DataFrame:
    with open_source(str(where)) as source:
        return load(source, dataset, labelled)


def hash_of(where: Path | str) -> str:
    with open_source(str(where)) as source:
        return source.hash


def put(bucket: str, key: str, data: bytes) -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=data)


def test_csv_and_parquet_of_one_table_are_equal_once_validated(tmp_path: Path, table: pl.DataFrame) -> None:
    table.write_csv(tmp_path / "in.csv")
    table.write_parquet(tmp_path / "in.parquet")
    now = datetime(2030, 1, 1)
    checked = [check(read(tmp_path / name), DATA, Validation(), now) for name in ("in.csv", "in.parquet")]
    assert_frame_equal(checked[0].good, checked[1].good)
    assert checked[0].bad_rows == checked[1].bad_rows == 0


def test_ids_with_leading_zeros_and_words_in_a_number_column_survive_csv(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(f"{HEADER}\n00123,2025-01-01,007,1e5,many,0,\n")
    assert read(path).row(0) == ("00123", "2025-01-01", "007", "1e5", "many", "0", None)


def test_columns_that_are_not_named_are_left_alone_and_the_order_of_the_file_does_not_matter(
    tmp_path: Path, table: pl.DataFrame
) -> None:
    noted = table.with_columns(note=pl.lit("x"))
    noted.select(reversed(noted.columns)).write_parquet(tmp_path / "in.parquet")
    assert_frame_equal(read(tmp_path / "in.parquet"), table)


def test_a_folder_is_read_as_one_table_in_the_order_of_its_names(tmp_path: Path, table: pl.DataFrame) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    table[200:].write_parquet(folder / "deep" / "c.parquet")
    table[100:200].write_parquet(folder / "b.parquet")
    table[:100].write_parquet(folder / "a.parquet")
    (folder / "README.txt").write_text("not a table")
    assert_frame_equal(read(folder), table)


def test_csv_and_parquet_in_one_folder_fit_together(tmp_path: Path, table: pl.DataFrame) -> None:
    table[:100].write_csv(tmp_path / "a.csv")
    table[100:].write_parquet(tmp_path / "b.parquet")
    good = check(read(tmp_path), DATA, Validation(), datetime(2030, 1, 1)).good
    assert good.select("transaction_id", "timestamp", "amount").rows() == (
        table.select("transaction_id", "timestamp", "amount").rows()
    )


def test_a_key_of_a_bucket_reads_as_the_file_does(bucket: str, tmp_path: Path, table: pl.DataFrame) -> None:
    path = tmp_path / "in.parquet"
    table.write_parquet(path)
    put(bucket, "landing/in.parquet", path.read_bytes())
    where = f"s3://{bucket}/landing/in.parquet"
    assert_frame_equal(read(where), table)
    assert hash_of(where) == hash_of(path)


def test_a_folder_of_a_bucket_reads_as_the_folder_does(bucket: str, tmp_path: Path, table: pl.DataFrame) -> None:
    table[:150].write_csv(tmp_path / "a.csv")
    (tmp_path / "deep").mkdir()
    table[150:].write_csv(tmp_path / "deep" / "b.csv")
    put(bucket, "landing/a.csv", (tmp_path / "a.csv").read_bytes())
    put(bucket, "landing/deep/b.csv", (tmp_path / "deep" / "b.csv").read_bytes())
    put(bucket, "landing/notes.txt", b"not a table")
    put(bucket, "landing-of-others/c.csv", b"not ours")
    where = f"s3://{bucket}/landing"
    assert_frame_equal(read(where), read(tmp_path))
    assert hash_of(where) == hash_of(tmp_path)


def test_a_key_that_a_bucket_has_not_is_named(bucket: str) -> None:
    with pytest.raises(NotFound, match=rf"there is nothing at s3://{bucket}/landing"):
        read(f"s3://{bucket}/landing")


def test_copies_from_a_bucket_are_gone_after_the_block(bucket: str, table: pl.DataFrame) -> None:
    put(bucket, "in.csv", table.write_csv().encode())
    with open_source(f"s3://{bucket}/in.csv") as source:
        assert all(file.exists() for file in source.files)
    assert not any(file.exists() for file in source.files)


def empty(path: Path) -> Path:
    path.with_suffix(".csv").write_bytes(b"")
    return path.with_suffix(".csv")


def header_only(path: Path) -> Path:
    path.with_suffix(".csv").write_text(HEADER + "\n")
    return path.with_suffix(".csv")


def empty_parquet(path: Path) -> Path:
    pl.DataFrame(schema=dict.fromkeys(DATA.columns, pl.String)).write_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def broken_parquet(path: Path) -> Path:
    pl.DataFrame({name: ["1"] for name in DATA.columns}).write_parquet(path.with_suffix(".parquet"))
    whole = path.with_suffix(".parquet").read_bytes()
    path.with_suffix(".parquet").write_bytes(whole[: len(whole) // 2])
    return path.with_suffix(".parquet")


def csv_called_parquet(path: Path) -> Path:
    path.with_suffix(".parquet").write_text(HEADER + "\n1,2025-01-01,3,4,5,0,\n")
    return path.with_suffix(".parquet")


def ragged_csv(path: Path) -> Path:
    path.with_suffix(".csv").write_text(HEADER + "\n1,2025-01-01,3,4,5,0,,8,9\n")
    return path.with_suffix(".csv")


def csv_not_in_utf8(path: Path) -> Path:
    path.with_suffix(".csv").write_bytes(HEADER.encode() + b"\n1,2025-01-01,caf\xe9,4,5,0,\n")
    return path.with_suffix(".csv")


def unknown_suffix(path: Path) -> Path:
    path.with_suffix(".xlsx").write_bytes(b"PK")
    return path.with_suffix(".xlsx")


def folder_without_tables(path: Path) -> Path:
    path.mkdir()
    (path / "readme.md").write_text("nothing here")
    return path


@pytest.mark.parametrize(
    ("make", "kind", "line"),
    [
        (Path, NotFound, r"there is no data at '.*/in'; give a CSV or Parquet file, a folder of them, or an s3:// key"),
        (unknown_suffix, NotFound, r"'.*/in\.xlsx' holds no \.parquet or \.csv file"),
        (folder_without_tables, NotFound, r"'.*/in' holds no \.parquet or \.csv file"),
        (empty, BadData, r"'.*/in\.csv' is empty"),
        (header_only, BadData, r"'.*/in\.csv' holds no rows"),
        (empty_parquet, BadData, r"'.*/in\.parquet' holds no rows"),
        (broken_parquet, BadData, r"'.*/in\.parquet' cannot be read as PARQUET: .+"),
        (csv_called_parquet, BadData, r"'.*/in\.parquet' cannot be read as PARQUET: .+"),
        (ragged_csv, BadData, r"'.*/in\.csv' cannot be read as CSV: .+"),
        (csv_not_in_utf8, BadData, r"'.*/in\.csv' cannot be read as CSV: .+"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], kind: type[MlopsError], line: str
) -> None:
    with pytest.raises(kind, match=f"^{line}$") as failed:
        read(make(tmp_path / "in"))
    assert "\n" not in str(failed.value)


def test_a_missing_column_is_named_with_the_closest_one_and_all_that_there_are(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text(HEADER.replace("customer_id", "customer") + "\n1,2025-01-01,3,4,5,0,\n")
    with pytest.raises(BadData) as failed:
        read(path)
    assert str(failed.value) == (
        f"'{path}' has no column 'customer_id'; did you mean 'customer'? It has: transaction_id, timestamp, customer, "
        "terminal_id, amount, is_fraud, label_known_at. Correct the group 'data' of the configuration"
    )


def test_the_file_of_a_folder_that_lacks_a_column_is_named(tmp_path: Path, table: pl.DataFrame) -> None:
    table.write_parquet(tmp_path / "a.parquet")
    table.drop("amount").write_parquet(tmp_path / "b.parquet")
    with pytest.raises(BadData, match=r"b\.parquet' has no column 'amount'"):
        read(tmp_path)


def test_files_whose_columns_do_not_fit_together_give_one_line(tmp_path: Path, table: pl.DataFrame) -> None:
    table.write_parquet(tmp_path / "a.parquet")
    table.with_columns(amount=pl.concat_list("amount")).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(BadData, match=r"the files do not fit together: .*; give files of one shape"):
        read(tmp_path)


def test_the_hash_is_of_the_bytes(tmp_path: Path, table: pl.DataFrame) -> None:
    path = tmp_path / "in.csv"
    table.write_csv(path)
    before = hash_of(path)
    assert before == hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(tmp_path / "other.csv")
    assert hash_of(tmp_path / "other.csv") == before
    (tmp_path / "other.csv").write_bytes((tmp_path / "other.csv").read_bytes() + b"\n")
    assert hash_of(tmp_path / "other.csv") != before


def test_labels_may_be_absent_only_where_nobody_learns_from_them(tmp_path: Path, table: pl.DataFrame) -> None:
    path = tmp_path / "in.csv"
    table.drop("is_fraud", "label_known_at").write_csv(path)
    with pytest.raises(BadData, match="has no column 'is_fraud'"):
        read(path)
    loaded = read(path, labelled=False)
    assert loaded["is_fraud"].null_count() == loaded["label_known_at"].null_count() == table.height
    assert loaded["customer_id"].to_list() == table["customer_id"].to_list()


def test_labels_that_are_there_are_read_also_where_they_may_be_absent(tmp_path: Path, table: pl.DataFrame) -> None:
    table.write_parquet(tmp_path / "in.parquet")
    assert_frame_equal(read(tmp_path / "in.parquet", labelled=False), table)


def test_without_an_id_rows_are_numbered_across_all_files(tmp_path: Path, table: pl.DataFrame) -> None:
    table[:100].write_parquet(tmp_path / "a.parquet")
    table[100:].write_parquet(tmp_path / "b.parquet")
    assert read(tmp_path, UNNUMBERED)[UNNUMBERED.id_column].to_list() == list(range(table.height))


def test_a_folder_that_has_the_name_of_a_table_is_looked_into(tmp_path: Path) -> None:
    inner = tmp_path / "data" / "out.parquet"
    inner.mkdir(parents=True)
    pl.DataFrame({"x": [1]}).write_parquet(inner / "part-0.parquet")
    with open_source(str(tmp_path / "data")) as source:
        assert [file.name for file in source.files] == ["part-0.parquet"]


def test_the_mark_of_a_folder_in_a_bucket_is_no_file_and_a_whole_bucket_is_refused(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")
    boto3.client("s3").put_object(Bucket=bucket, Key="landing/")
    boto3.client("s3").upload_file(str(tmp_path / "a.csv"), bucket, "landing/a#1.csv")
    with open_source(f"s3://{bucket}/landing") as source:
        assert [file.name for file in source.files] == ["a#1.csv"]
    with pytest.raises(BadConfiguration, match="names a whole bucket"), open_source(f"s3://{bucket}"):
        pass
