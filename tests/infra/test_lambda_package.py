"""The zip that Lambda gets: the same bytes each time, small, and nothing but the handler is needed in it."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import boto3
import pytest

from infra import lambda_package
from infra.lambda_package import HANDLER, SOURCE, TARGET, packed
from tests.conftest import ROOT

SITE = Path(boto3.__file__).parents[1]
BOTO3 = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six.py", "urllib3")


def build(folder: Path, **environment: str) -> bytes:
    """Build it by its command, in a folder."""
    own = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    subprocess.run([sys.executable, "-m", "infra.lambda_package"], cwd=folder, env=own, check=True)
    return (folder / TARGET).read_bytes()


def test_the_same_source_gives_the_same_bytes_anywhere_and_at_any_time(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    mask = os.umask(0o077)
    try:
        first = build(tmp_path / "one", TZ="Asia/Tokyo")
    finally:
        os.umask(mask)
    assert build(tmp_path / "other", SOURCE_DATE_EPOCH="1") == build(tmp_path / "other", PYTHONHASHSEED="7") == first


def test_another_source_gives_other_bytes() -> None:
    source = SOURCE.read_bytes()
    assert packed(source) != packed(source + b"\n")


def test_its_path_size_and_hash_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert lambda_package.main() == 0
    body = TARGET.read_bytes()
    digest = hashlib.sha256(body).hexdigest()
    said = f"dist/lambda.zip  {len(body):,} bytes  sha256 {digest}  handler lambda_handler.handler\n"
    assert capsys.readouterr().out == said


def test_it_holds_one_small_file_that_everybody_may_read() -> None:
    lambda_package.main()
    assert TARGET.stat().st_size < 10_000
    with zipfile.ZipFile(TARGET) as opened:
        (file,) = opened.infolist()
        assert opened.testzip() is None
        assert (file.filename, file.external_attr >> 16) == ("lambda_handler.py", 0o100644)
        assert opened.read(file) == SOURCE.read_bytes()


def test_the_handler_is_found_in_the_zip_with_only_boto3_beside_it(tmp_path: Path) -> None:
    """As Lambda starts it: a fresh interpreter, the zip on its path, no settings, and nothing of ours or of others."""
    lambda_package.main()
    beside = tmp_path / "beside"
    beside.mkdir()
    for name in BOTO3:
        (beside / name).symlink_to(SITE / name)
    module, _, name = HANDLER.rpartition(".")
    program = f"""
import sys
sys.path[:0] = [{str(TARGET.absolute())!r}, {str(beside)!r}]
import {module}
print({module}.__file__, callable({module}.{name}))
"""
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], cwd=tmp_path, env={}, capture_output=True, text=True, check=False
    )
    assert found.stderr == ""
    assert found.stdout == f"{TARGET.absolute()}/lambda_handler.py True\n"
