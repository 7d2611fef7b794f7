"""From a decision or a model version back to what it came from: the steps that every module has, and their check."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rich.table import Table

from mlops.errors import Damaged, NotFound
from mlops.journaling.journal import Journal
from mlops.journaling.labels import DECISION, decode_record
from mlops.releasing.registry import Version


@dataclass(frozen=True)
class Step:
    """One link of the chain: what it is, its name or hash, and where it lies."""

    what: str
    name: str
    where: str


Trace = Callable[[str | int], Iterable[Step]]
"""Walks back from a version, given by alias or number."""


def walk(kept: Callable[[], Journal], which: str, decision: bytes | None, trace: Trace) -> Table:
    """Go from a decision, or from a version given by alias or number, to its end; return the steps as a table.

    Only a decision needs what the journal has `kept`. Raises `NotFound` or `Damaged` where a link is broken.
    """
    table = Table(title=f"lineage of {decision.hex() if decision else which}", title_justify="left")
    for heading in ("what", "name", "where"):
        table.add_column(heading, overflow="fold")
    version: str | int = int(which) if which.isdigit() else which
    if decision is not None:
        step, version = decided(kept(), decision)
        table.add_row(step.what, step.name, step.where)
    for step in trace(version):
        table.add_row(step.what, step.name, step.where)
    return table


def decided(journal: Journal, id_: bytes) -> tuple[Step, int]:
    """Find a decision and the number of the version that made it. Raises `NotFound`."""
    row = journal.find(id_)
    if row is None or row.entry.kind != DECISION:
        raise NotFound(f"there is no decision {id_.hex()} in the journal")
    record = decode_record(row.entry.body)
    model = record.model
    about = f"journal row {row.sequence}, arm {model.arm}, model {model.hash[:16]}, configuration {model.configuration}"
    return Step("decision", f"{id_.hex()} about {record.key}", about), model.version


def begun(version: Version) -> Iterator[Step]:
    """The first steps from a version."""
    yield Step("version", f"{version.name} {version.number}", f"MLflow run {version.run_id}")
    yield Step("code", version.tags["git_revision"], f"source hash {version.tags['code']}")
    yield Step("configuration", version.tags["configuration"], f"MLflow run {version.run_id}, run/configuration.json")


def same(what: str, expected: str, found: str) -> None:
    """Raise `Damaged` where a hash is not the one that was written down."""
    if expected != found:
        raise Damaged(f"{what} has hash {found}, not {expected}: it was changed after it was written")
