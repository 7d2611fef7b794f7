"""Phases as they run: a live list for a person at a terminal, JSON lines for everything else."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

NAME_WIDTH = 10


class Phases:
    """Tells of each phase when it starts and ends."""

    def __init__(self, names: Sequence[str], logger: logging.Logger, console: Console) -> None:
        self._logger = logger
        one_line = Column(no_wrap=True)
        self._live = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", table_column=one_line),
            TimeElapsedColumn(table_column=one_line),
            TextColumn("[dim]{task.fields[said]}", table_column=one_line),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks = {
            name: self._live.add_task(name.ljust(NAME_WIDTH), start=False, total=1, said="") for name in names
        }

    def __enter__(self) -> "Phases":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @contextmanager
    def phase(self, name: str) -> Iterator[list[str]]:
        """Run one phase; what the block appends to the list it gets is shown beside the name."""
        said: list[str] = []
        began = time.perf_counter()
        self._live.start_task(self._tasks[name])
        yield said
        self._live.update(self._tasks[name], completed=1, said=" ".join(said))
        if self._live.disable:
            seconds = round(time.perf_counter() - began, 3)
            self._logger.info(f"{name} done", extra={"phase": name, "seconds": seconds, "result": " ".join(said)})
