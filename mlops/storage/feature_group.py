"""A feature group of SageMaker Feature Store: the newest record of each id to look up, and all of them in a bucket."""

import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl
from botocore.exceptions import ClientError
from polars.exceptions import PolarsError

from mlops import aws
from mlops.errors import BadConfiguration, BadData, Damaged, NotFound, StorageFailed, Unreachable
from mlops.storage import objects
from mlops.storage.objects import Objects

THREADS = 8
AT_ONCE = 512
"""Records that are put before the next are made ready."""
TRIES = 8
POLL, WAIT = 2.0, 300.0
"""Seconds between two looks at a group that is being made, and for all of them."""

NAME = re.compile(r"[a-zA-Z0-9]([-_]*[a-zA-Z0-9]){0,63}")
ADDED = {"api_invocation_time": pl.Datetime("us"), "write_time": pl.Datetime("us"), "is_deleted": pl.Boolean()}
"""What the service adds to a record in the bucket."""
TYPES: Mapping[str, pl.DataType] = {"Integral": pl.Int64(), "Fractional": pl.Float64(), "String": pl.String()}
READ: Mapping[str, type] = {"Integral": int, "Fractional": float, "String": str}


class Described(NamedTuple):
    """A group as the service describes it: two of its columns, the kind of each, and where the bucket's part lies."""

    id: str
    time: str
    kinds: Mapping[str, str]
    home: str


class FeatureGroup:
    """Records by id, each with its event time (UTC). A record that is put again stands beside the one before.

    The service knows whole numbers, fractions and texts. Moments are kept as whole numbers, the event time as seconds
    since 1970, and `typed` gives a table its types back.
    """

    def __init__(self, name: str) -> None:
        self.name, self._place = name, f"feature group '{name}'"
        if not (NAME.fullmatch(name) and len(name) <= 64):
            raise BadConfiguration(f"'{name}' is no name of a feature group; write 1 to 64 letters, digits, - and _")
        self._control = aws.client("sagemaker", self._place)
        self._runtime = aws.client("sagemaker-featurestore-runtime", self._place, tries=TRIES, connections=THREADS)

    def create(self, schema: Mapping[str, pl.DataType], id_: str, time_: str, home: str, role: str) -> None:
        """Make the group for tables of this schema, unless it is there, and wait until it can be used.

        What is put goes to the online store, and below `home` (s3://BUCKET/PREFIX) by the rights of `role`, an ARN.
        Raises `BadData` where a column cannot be a feature or where the group is there with other columns.
        """
        if not home.startswith("s3://"):
            raise BadConfiguration(f"{self._place} needs a bucket and not {home}; set platform.objects to s3://BUCKET")
        kinds = _kinds(schema, time_)
        with self._translated():
            try:
                self._control.create_feature_group(
                    FeatureGroupName=self.name, RecordIdentifierFeatureName=id_, EventTimeFeatureName=time_,
                    FeatureDefinitions=[{"FeatureName": name, "FeatureType": kind} for name, kind in kinds.items()],
                    OnlineStoreConfig={"EnableOnlineStore": True},
                    OfflineStoreConfig={"S3StorageConfig": {"S3Uri": home}, "DisableGlueTableCreation": True},
                    RoleArn=role,
                )  # fmt: skip
            except ClientError as error:
                if aws.code(error) != "ResourceInUse":
                    raise
        self._wait()
        self._compare(kinds, self._described())

    def put(self, rows: pl.DataFrame) -> None:
        """Put every row. Raises `BadData` before any is put where they do not fit the group.

        Where it fails midway some are put; to put all again changes nothing that can be read.
        """
        group = self._described()
        self._compare(_kinds(rows.schema, group.time), group)
        plain = _plain(rows, group)
        with ThreadPoolExecutor(THREADS) as pool:
            for batch in plain.iter_slices(AT_ONCE):
                for _ in pool.map(self._put, batch.iter_rows(named=True)):
                    pass

    def get(self, id_: object) -> pl.DataFrame:
        """Return the newest record of an id as a table of one row. Raises `NotFound`; what is not known is null."""
        group = self._described()
        with self._translated():
            answer = self._runtime.get_record(FeatureGroupName=self.name, RecordIdentifierValueAsString=str(id_))
        found = {one["FeatureName"]: one["ValueAsString"] for one in answer.get("Record") or ()}
        if not found:
            raise NotFound(f"{self._place} has no record '{id_}'; put it first, or correct the id")
        row = {name: READ[kind](found[name]) if name in found else None for name, kind in group.kinds.items()}
        return _moments(pl.DataFrame([row], _schema(group)), group)

    def rows(self, as_of: datetime | None = None) -> pl.DataFrame:
        """Return the newest record of each id, of those whose event time is not after `as_of`, in the order of time.

        They come from the bucket, where what was put arrives within 15 minutes. Of two with one event time the one that
        was put later counts; an id that was deleted up to then is not there.
        """
        group = self._described()
        if not group.home:
            raise BadData(f"{self._place} keeps nothing in a bucket; make one with another name")
        parent, _, folder = group.home.rpartition("/")
        store = objects.connect(parent)
        keys = [key for key in store.list(folder) if key.endswith(".parquet") and _hour(key) <= _until(as_of)]
        with ThreadPoolExecutor(THREADS) as pool:
            tables = list(pool.map(lambda key: _read(store, key, group), keys))
        whole = _moments(pl.concat([pl.DataFrame(schema=_schema(group, ADDED)), *tables]), group)
        known = whole if as_of is None else whole.filter(pl.col(group.time) <= as_of)
        latest = known.sort(group.time, *ADDED).unique(group.id, keep="last")
        return latest.filter(~pl.col("is_deleted").fill_null(False)).select(*group.kinds).sort(group.time, group.id)

    def _put(self, row: Mapping[str, object]) -> None:
        record = [
            {"FeatureName": name, "ValueAsString": str(value)} for name, value in row.items() if value is not None
        ]
        with self._translated():
            self._runtime.put_record(FeatureGroupName=self.name, Record=record)

    def _wait(self) -> None:
        end = time.monotonic() + WAIT
        while (said := self._describe())["FeatureGroupStatus"] == "Creating":
            if time.monotonic() > end:
                raise Unreachable(f"{self._place} was not made in {WAIT:.0f} seconds; look at it and try again")
            time.sleep(POLL)
        if said["FeatureGroupStatus"] != "Created":
            why = said.get("FailureReason", "no reason is given")
            raise StorageFailed(f"{self._place} is {said['FeatureGroupStatus']}: {why}; delete it and try again")

    def _compare(self, kinds: Mapping[str, str], group: Described) -> None:
        """Raise `BadData` where a table has other columns than the group."""
        ours, theirs = set(kinds.items()), set(group.kinds.items())
        if ours != theirs:
            only = [
                " ".join(f"{name} ({kind})" for name, kind in sorted(one)) for one in (ours - theirs, theirs - ours)
            ]
            told = f"only the table has: {only[0] or 'none'}; only the group has: {only[1] or 'none'}"
            raise BadData(f"{self._place} has other columns; {told}; make a group with another name")

    def _described(self) -> Described:
        said = self._describe()
        kinds = {one["FeatureName"]: one["FeatureType"] for one in said["FeatureDefinitions"]}
        home = said.get("OfflineStoreConfig", {}).get("S3StorageConfig", {}).get("ResolvedOutputS3Uri", "")
        return Described(said["RecordIdentifierFeatureName"], said["EventTimeFeatureName"], kinds, home.rstrip("/"))

    def _describe(self) -> dict[str, Any]:
        with self._translated():
            found: dict[str, Any] = self._control.describe_feature_group(FeatureGroupName=self.name)
        return found

    def _translated(self) -> AbstractContextManager[None]:
        gone = f"there is no {self._place}; make it first, or correct its name"
        return aws.translated(self._place, dict.fromkeys(("ResourceNotFound", "ResourceNotFoundException"), gone))


def typed(rows: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Give rows of a group the columns and types of a schema back. Raises `BadData` where they do not fit."""
    try:
        return rows.select(pl.col(name).cast(type_) for name, type_ in schema.items())
    except PolarsError as error:
        raise BadData(f"the records are not of these types: {' '.join(str(error).split())}") from None


def _kinds(schema: Mapping[str, pl.DataType], time_: str) -> dict[str, str]:
    """The service's kind for each column. Raises `BadData` where a column has none."""
    if len({name.lower() for name in schema}) < len(schema):
        raise BadData("two columns have one name but for capitals, and features may not; rename one")
    return {name: _kind(name, type_, name == time_) for name, type_ in schema.items()}


def _kind(name: str, type_: pl.DataType, is_time: bool) -> str:
    """The service's kind for a column. Raises `BadData` where it has none, or where the name is not allowed."""
    if not NAME.fullmatch(name) or len(name) > 64 or name in ADDED:
        raise BadData(f"'{name}' cannot be a feature; name it with 1 to 64 letters, digits, - and _")
    if is_time or type_.is_float():
        kind = "Fractional"
    elif (type_.is_integer() and type_ not in (pl.UInt64, pl.Int128)) or type_.is_temporal() or type_ == pl.Boolean:
        kind = "Integral"
    elif type_ in (pl.String, pl.Categorical, pl.Enum):
        kind = "String"
    else:
        raise BadData(f"'{name}' is {type_}, which no feature can be; leave it out or change its type")
    if is_time and type_ != pl.Datetime("us"):
        raise BadData(f"'{name}' is {type_} and no event time; make it a time in microseconds, without a zone")
    return kind


def _plain(rows: pl.DataFrame, group: Described) -> pl.DataFrame:
    """The rows as whole numbers, fractions and texts. Raises `BadData` for what is missing or no finite number."""
    for name in (group.id, group.time):
        if rows[name].null_count():
            raise BadData(f"'{name}' is missing in {rows[name].null_count():,} rows; no record can be without it")
    for name, type_ in rows.schema.items():
        if type_.is_float() and not rows[name].drop_nulls().is_finite().all():
            raise BadData(f"'{name}' holds what is no finite number; leave such values empty")
    micro = pl.col(group.time).to_physical()
    whole = micro // 1_000_000
    # One division of it all would round twice.
    seconds = whole + (micro - whole * 1_000_000) / 1e6
    others = [pl.col(name).to_physical() if rows[name].dtype.is_temporal() else pl.col(name) for name in group.kinds]
    return rows.select(others).with_columns(
        seconds if name == group.time else pl.col(name).cast(TYPES[kind]) for name, kind in group.kinds.items()
    )


def _schema(group: Described, more: Mapping[str, pl.DataType] | None = None) -> dict[str, pl.DataType]:
    return {name: TYPES[kind] for name, kind in group.kinds.items()} | dict(more or {})


def _moments(rows: pl.DataFrame, group: Described) -> pl.DataFrame:
    """Make moments of the seconds of the event time again: a fraction keeps every microsecond until the year 2200."""
    seconds = pl.col(group.time).floor()
    micro = seconds.cast(pl.Int64) * 1_000_000 + ((pl.col(group.time) - seconds) * 1e6).round().cast(pl.Int64)
    return rows.with_columns(micro.cast(pl.Datetime("us")).alias(group.time))


def _hour(key: str) -> str:
    """The hour of event time that a file of the bucket is of, as it stands in its key."""
    return "/".join(part for part in key.split("/") if part.startswith(("year=", "month=", "day=", "hour=")))


def _until(as_of: datetime | None) -> str:
    return "z" if as_of is None else f"year={as_of:%Y}/month={as_of:%m}/day={as_of:%d}/hour={as_of:%H}"


def _read(store: Objects, key: str, group: Described) -> pl.DataFrame:
    """Read one file; a feature that came to the group after it was written is null in it."""
    with store.download(key) as path:
        try:
            found = pl.read_parquet(path, hive_partitioning=False)
            # Names of features are the same in capitals and small letters, and some writers know small letters only.
            names = {name.lower(): name for name in found.columns}
            wanted = _schema(group, ADDED)
            return found.select(
                (pl.col(names[name.lower()]) if name.lower() in names else pl.lit(None)).cast(type_).alias(name)
                for name, type_ in wanted.items()
            )
        except PolarsError as error:
            raise Damaged(f"{store.url(key)} is no file of a feature group: {' '.join(str(error).split())}") from None
