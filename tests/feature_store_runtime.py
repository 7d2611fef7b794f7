"""The runtime of SageMaker Feature Store, which moto has not: put, get and delete a record, and what then lies in S3.

It keeps to what AWS documents: the online store takes a record only if its event time is later than that of the one
before; the offline store gets every record and a marker for each deletion, in Parquet files by the hour of the event
time; nothing lies there before it is written down, which the service does within 15 minutes.
"""

import io
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import polars as pl
import pytest

from tests.between import running

TYPES = {"Integral": pl.Int64(), "Fractional": pl.Float64(), "String": pl.String()}
READ = {"Integral": int, "Fractional": float, "String": str}
ORIGIN = datetime(1970, 1, 1)


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Runtime:
    """One server; records of all groups."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, Any]] = {}
        self._online: dict[tuple[str, str], dict[str, str]] = {}
        self._waiting: dict[str, list[dict[str, Any]]] = {}
        self._lock, self._invoked = threading.Lock(), datetime.now(UTC).replace(tzinfo=None)
        self.asked = 0
        self.refusals: list[Refusal] = []
        runtime = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                try:
                    status, said, code = 200, runtime.answer(self.command, self.path, body), ""
                except Refusal as refusal:
                    status, said, code = refusal.status, {"Message": str(refusal)}, refusal.code
                data = json.dumps(said).encode()
                self.send_response_only(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Content-Type", "application/json")
                if code:
                    self.send_header("x-amzn-ErrorType", code)
                self.end_headers()
                self.wfile.write(data)

            do_PUT = do_GET = do_DELETE = answer  # noqa: N815 - the base class's words

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        """Answer a request, or raise what it is refused with."""
        split = urlsplit(path)
        name, query = unquote(split.path).removeprefix("/FeatureGroup/"), parse_qs(split.query)
        group = self._described(name)
        with self._lock:
            self.asked += 1
            if self.refusals:
                raise self.refusals.pop()
            if method == "PUT":
                self._put(group, {one["FeatureName"]: one["ValueAsString"] for one in json.loads(body)["Record"]})
                return {}
            id_ = query["RecordIdentifierValueAsString"][0]
            if method == "DELETE":
                self._delete(group, id_, query["EventTime"][0])
                return {}
            record = self._online.get((name, id_), {})
            return {"Record": [{"FeatureName": key, "ValueAsString": text} for key, text in record.items()] or None}

    def write_down(self) -> None:
        """Write what waits into the offline store, one file for each hour."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for name, rows in waiting.items():
            group, hours = self._described(name), dict[datetime, list[dict[str, Any]]]()
            for row in rows:
                moment = ORIGIN + timedelta(seconds=row[group["EventTimeFeatureName"]])
                hours.setdefault(moment.replace(minute=0, second=0, microsecond=0), []).append(row)
            for hour, inside in hours.items():
                self._write(group, hour, inside)

    def _described(self, name: str) -> dict[str, Any]:
        if name not in self._groups:
            self._groups[name] = dict(boto3.client("sagemaker").describe_feature_group(FeatureGroupName=name))
        return self._groups[name]

    def _put(self, group: dict[str, Any], record: dict[str, str]) -> None:
        kinds = {one["FeatureName"]: one["FeatureType"] for one in group["FeatureDefinitions"]}
        id_, time = group["RecordIdentifierFeatureName"], group["EventTimeFeatureName"]
        if record.keys() - kinds.keys() or not {id_, time} <= record.keys():
            raise Refusal(400, "ValidationError", f"features do not fit: {sorted(record)}")
        try:
            row = {name: READ[kind](record[name]) if name in record else None for name, kind in kinds.items()}
        except ValueError as error:
            raise Refusal(400, "ValidationError", f"a value does not fit: {error}") from None
        key = (group["FeatureGroupName"], record[id_])
        if float(record[time]) > float(self._online.get(key, {}).get(time, "-inf")):
            self._online[key] = record
        self._wait(group, row, is_deleted=False)

    def _delete(self, group: dict[str, Any], id_: str, time: str) -> None:
        kinds = {one["FeatureName"]: one["FeatureType"] for one in group["FeatureDefinitions"]}
        named = group["RecordIdentifierFeatureName"]
        self._online.pop((group["FeatureGroupName"], id_), None)
        marker = dict.fromkeys(kinds) | {named: READ[kinds[named]](id_)}
        self._wait(group, marker | {group["EventTimeFeatureName"]: float(time)}, is_deleted=True)

    def _wait(self, group: dict[str, Any], row: dict[str, Any], is_deleted: bool) -> None:
        self._invoked += timedelta(microseconds=1)
        added = {"api_invocation_time": self._invoked, "write_time": None, "is_deleted": is_deleted}
        self._waiting.setdefault(group["FeatureGroupName"], []).append({**row, **added})

    def _write(self, group: dict[str, Any], hour: datetime, rows: list[dict[str, Any]]) -> None:
        schema: dict[str, Any] = {one["FeatureName"]: TYPES[one["FeatureType"]] for one in group["FeatureDefinitions"]}
        schema |= {"api_invocation_time": pl.Datetime("us"), "write_time": pl.Datetime("us"), "is_deleted": pl.Boolean}
        table = pl.DataFrame(rows, schema).with_columns(write_time=datetime.now(UTC).replace(tzinfo=None))
        data = io.BytesIO()
        table.write_parquet(data)
        home = urlsplit(group["OfflineStoreConfig"]["S3StorageConfig"]["ResolvedOutputS3Uri"])
        latest = ORIGIN + timedelta(seconds=table[group["EventTimeFeatureName"]].max())
        key = f"{home.path.strip('/')}/year={hour:%Y}/month={hour:%m}/day={hour:%d}/hour={hour:%H}"
        name = f"{latest:%Y%m%dT%H%M%SZ}_{secrets.token_hex(8)}.parquet"
        boto3.client("s3").put_object(Bucket=home.netloc, Key=f"{key}/{name}", Body=data.getvalue())

    @contextmanager
    def open(self) -> Iterator["Runtime"]:
        """Serve until the block ends."""
        with running(self._server):
            yield self


@pytest.fixture
def runtime(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    with Runtime().open() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_FEATURESTORE_RUNTIME", server.url)
        yield server
