"""python -m infra.lambda_package: the Lambda function as a zip; the same source and zlib give the same bytes."""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

SOURCE = Path(__file__).with_name("lambda_handler.py")
TARGET = Path("dist/lambda.zip")
HANDLER = "lambda_handler.handler"
"""What the function's `handler` has to be set to."""
FIRST_DAY = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can tell."""
READABLE = 0o100644
UNIX = 3


def main() -> int:
    """Write the zip below the folder in which the command was given, and say what it is."""
    body = packed(SOURCE.read_bytes())
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(body)
    print(f"{TARGET}  {len(body):,} bytes  sha256 {hashlib.sha256(body).hexdigest()}  handler {HANDLER}")
    return 0


def packed(source: bytes) -> bytes:
    """Pack the function's source: no time, no owner and no machine leaves a trace."""
    file = zipfile.ZipInfo(SOURCE.name, FIRST_DAY)
    file.external_attr, file.create_system = READABLE << 16, UNIX
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(file, source, zipfile.ZIP_DEFLATED, 9)
    return archive.getvalue()


if __name__ == "__main__":
    sys.exit(main())
