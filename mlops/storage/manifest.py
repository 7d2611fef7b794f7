"""The files of a model folder and their hashes: nothing in it is read before it is known to be what was written."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mlops.errors import Damaged
from mlops.storage.objects import digest

FILE = "manifest.json"
HASHES = TypeAdapter(dict[str, str])


def write(folder: Path) -> str:
    """Write down the hash of every file in the folder; return the hash of all of them."""
    hashes = {path.name: digest(path) for path in sorted(folder.iterdir())}
    (folder / FILE).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
    return _hash(hashes)


def verified(folder: Path, needed: Collection[str]) -> str:
    """Return the hash of all files of the folder. Raises `Damaged` when one is missing or not what was written."""
    try:
        hashes = HASHES.validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError):
        broken = f"{folder} holds no whole model: {FILE} is missing or broken"
        raise Damaged(f"{broken}; fetch or train it again") from None
    if set(needed) - hashes.keys():
        raise Damaged(f"{folder / FILE} does not name every file of a model; fetch or train it again")
    for name, expected in hashes.items():
        path = folder / Path(name).name
        if not path.is_file() or digest(path) != expected:
            raise Damaged(f"{path} is missing or not what was written; fetch or train the model again")
    return _hash(hashes)


def _hash(hashes: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
