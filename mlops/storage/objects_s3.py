"""Objects in a bucket (s3://): whole or not at all, checked on their way, and written once where they must be."""

import base64
import contextlib
import shutil
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from mlops import aws
from mlops.errors import Damaged
from mlops.storage.objects_folder import OTHER, checked, scratch

PATIENCE, ANSWER = 5.0, 20.0
"""Seconds to wait for a connection, and for each piece of an answer."""
TRIES = 5
PART = 1 << 26
"""Bytes that are sent at once; what is larger goes in parts, and appears when the last is there."""
CHUNK = 1 << 20

NO_KEY = ("404", "NoSuchKey", "NotFound")
TAKEN, CONFLICT = ("PreconditionFailed", "412"), ("ConditionalRequestConflict", "409")
BROKEN = (FlexibleChecksumError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError)


class Bucket:
    """A bucket, or the part of it below a prefix.

    Where it keeps versions, the latest is what is read, and a key that was deleted is not there; earlier versions stay
    for whoever has to look back.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._s3 = aws.client("s3", f"s3://{bucket}", patience=PATIENCE, answer=ANSWER, tries=TRIES)

    def upload(self, source: Path, key: str) -> None:
        with self._translated(key):
            self._send(source, key, {})

    def upload_once(self, source: Path, key: str) -> None:
        with self._translated(key):
            # What is there need not be sent to be refused.
            sends = self._head(key) is None
            if not (sends and aws.patiently(partial(self._send_once, source, key), _is_conflict, TRIES)):
                self._compare(source, key)

    @contextlib.contextmanager
    def download(self, key: str) -> Iterator[Path]:
        with scratch() as folder:
            path = folder / Path(key).name
            with self._translated(key):
                aws.patiently(partial(self._receive, key, path), _is_broken, TRIES)
            yield path

    def list(self, prefix: str) -> list[str]:
        below = self._prefix + checked(prefix) + "/"
        with self._translated(prefix):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=below)
            keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        # A key that ends in a slash is a mark by which consoles show an empty folder.
        return sorted(key.removeprefix(self._prefix) for key in keys if not key.endswith("/"))

    def exists(self, key: str) -> bool:
        with self._translated(key):
            return self._head(key) is not None

    def delete(self, key: str) -> None:
        with self._translated(key):
            self._s3.delete_object(**self._where(key))

    def url(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{checked(key)}"

    def _head(self, key: str) -> dict[str, Any] | None:
        """What the bucket says of an object, if there is one."""
        try:
            found: dict[str, Any] = self._s3.head_object(**self._where(key), ChecksumMode="ENABLED")
        except ClientError as error:
            if aws.code(error) in NO_KEY:
                return None
            raise
        return found

    def _compare(self, source: Path, key: str) -> None:
        """Raise `Damaged` where something else is stored than the file."""
        found, crc = self._head(key), _crc(source)
        size = source.stat().st_size
        if found is not None and (found["ContentLength"], found.get("ChecksumCRC32", crc)) != (size, crc):
            raise Damaged(f"{self.url(key)} {OTHER}")

    def _send_once(self, source: Path, key: str) -> bool:
        """Store a file, and tell whether it was stored: it is not where another was first."""
        try:
            self._send(source, key, {"IfNoneMatch": "*"})
        except ClientError as error:
            if aws.code(error) not in TAKEN:
                raise
            return False
        return True

    def _send(self, source: Path, key: str, condition: dict[str, str]) -> None:
        with source.open("rb") as file:
            if source.stat().st_size <= PART:
                self._s3.put_object(**self._where(key), Body=file, ChecksumAlgorithm="CRC32", **condition)
            else:
                self._send_parts(file, key, condition)

    def _send_parts(self, file: BinaryIO, key: str, condition: dict[str, str]) -> None:
        """Send a large file in parts, with one checksum over all of it, so that its readers can check it too."""
        begun = self._s3.create_multipart_upload(
            **self._where(key), ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT"
        )
        upload = {**self._where(key), "UploadId": begun["UploadId"]}
        parts: list[dict[str, Any]] = []
        try:
            while data := file.read(PART):
                number = len(parts) + 1
                sent = self._s3.upload_part(**upload, PartNumber=number, Body=data, ChecksumAlgorithm="CRC32")
                parts.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumCRC32": sent["ChecksumCRC32"]})
            self._s3.complete_multipart_upload(
                **upload, MultipartUpload={"Parts": parts}, ChecksumType="FULL_OBJECT", **condition
            )
        except BaseException:
            # Parts that nobody completes cost money.
            with contextlib.suppress(BotoCoreError, ClientError):
                self._s3.abort_multipart_upload(**upload)
            raise

    def _receive(self, key: str, path: Path) -> None:
        """Copy an object in one piece: pieces that are asked for one by one could be of two versions."""
        body = self._s3.get_object(**self._where(key))["Body"]
        with path.open("wb") as file, contextlib.closing(body):
            shutil.copyfileobj(body, file, CHUNK)

    def _where(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + checked(key)}

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        no_bucket = f"there is no bucket '{self._bucket}'; create it or correct platform.objects"
        gone = {**dict.fromkeys(NO_KEY, f"there is no {self.url(key)}"), "NoSuchBucket": no_bucket}
        with aws.translated(self.url(key), gone):
            yield


def _crc(path: Path) -> str:
    """The CRC-32 of a file, as S3 writes it."""
    crc = 0
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            crc = zlib.crc32(data, crc)
    return base64.b64encode(crc.to_bytes(4, "big")).decode()


def _is_conflict(error: Exception) -> bool:
    return aws.code(error) in CONFLICT


def _is_broken(error: Any) -> bool:
    return isinstance(error, BROKEN)
