"""The notebook: it runs from its first cell to its last and shows its pictures, and it is committed without outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

NOTEBOOK = ROOT / "notebooks" / "fraud_eda.ipynb"


def code_cells(text: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_runs_to_its_end_and_shows_its_pictures(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout", str(NOTEBOOK)]
    inline = "module://matplotlib_inline.backend_inline"
    environ = os.environ | {"PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path), "MPLBACKEND": inline}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    cells = code_cells(done.stdout)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5
    assert not [output for output in outputs if output["output_type"] in ("error", "stream")]


def test_the_notebook_is_committed_without_outputs_and_execution_counts() -> None:
    cells = code_cells(NOTEBOOK.read_text(encoding="utf-8"))
    assert cells
    assert not [cell for cell in cells if cell["outputs"] or cell["execution_count"] is not None]
