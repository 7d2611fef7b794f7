"""The version behind an alias, awake: swapped for the next one between two answers, never in the middle of one."""

import json
import logging
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

from mlops.errors import Damaged, MlopsError
from mlops.registry import Registry, Version

P = TypeVar("P")

REMEMBERED = 4
"""Older versions that stay awake to explain what they said."""
PATIENCE = 60
"""Seconds after which a version that could not be woken is tried again."""
LATEST = "latest.json"

log = logging.getLogger("live")


@dataclass(frozen=True)
class Awake(Generic[P]):
    """A version that is ready to decide."""

    version: Version
    predictor: P

    @property
    def number(self) -> int:
        """The version's number."""
        return self.version.number

    @property
    def hash(self) -> str:
        """The hash of its model files."""
        return self.version.tags["model_hash"]

    @property
    def configuration(self) -> str:
        """The hash of the configuration it was trained under."""
        return self.version.tags["configuration"]


class Live(Generic[P]):
    """Keeps the version that an alias names awake.

    A thread asks the registry every `every` seconds. A new version is fetched into `cache`, woken (`wake` verifies its
    files), made ready (`prepare`), and only then takes the place of the old one. What cannot be woken or asked leaves
    the old version in place, and `problem` says why. Where the registry does not answer at the start, the version that
    was served last is taken from `cache`.
    """

    def __init__(
        self, registry: Callable[[], Registry], name: str, alias: str, wake: Callable[[Path, Version], P],
        prepare: Callable[[P], None], cache: Path, every: float = 0.5,
    ) -> None:  # fmt: skip
        self._connect, self._name, self._alias = registry, name, alias
        self._wake, self._prepare, self._cache, self._every = wake, prepare, cache, every
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._older: OrderedDict[int, Awake[P]] = OrderedDict()
        self._registry: Registry | None = None
        self._refused: tuple[int, float] | None = None
        self._thread = threading.Thread(target=self._watch, name="live", daemon=True)
        self.current: Awake[P] | None = None
        self.problem: str | None = "no version has been woken yet"
        self.changed = threading.Condition()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until a version is awake, and tell whether one is."""
        with self.changed:
            return self.changed.wait_for(lambda: self.current is not None, seconds)

    def stop(self) -> None:
        """Watch no longer."""
        self._stopping.set()
        self._thread.join()

    def awake(self, number: int) -> Awake[P]:
        """Wake the version with this number, to explain what it said. Raises any `MlopsError`."""
        with self._lock:
            found = self._older.get(number)
            if found is None:
                version = self._known(number) or self._find(number)
                found = Awake(version, self._open(version))
                self._older[number] = found
                if len(self._older) > REMEMBERED:
                    self._older.popitem(last=False)
            self._older.move_to_end(number)
            return found

    def _watch(self) -> None:
        while True:
            try:
                self._look()
            except MlopsError as error:
                self._tell(str(error))
                self._fall_back()
            except Exception:
                log.exception("the registry could not be asked")
                self._tell("the registry could not be asked; the log says more")
                self._fall_back()
            if self._stopping.wait(self._every):
                return

    def _look(self) -> None:
        """Ask which version it is to be, and wake it where it is another one."""
        version = self._find(self._alias)
        if self.current is not None and self.current.version == version:
            self._tell(None)
            return
        now = time.monotonic()
        if self._refused is not None and self._refused[0] == version.number and now < self._refused[1]:
            self._tell(self.problem)
            return
        try:
            self._take(version)
        except Exception:
            self._refused = version.number, now + PATIENCE
            raise

    def _take(self, version: Version, problem: str | None = None) -> None:
        """Wake a version and serve it from now on, with what is still wrong."""
        predictor = self._open(version)
        self._prepare(predictor)
        _write(self._cache / f"{version.number}.json", version)
        _write(self._cache / LATEST, version)
        self._refused = None
        self.current = Awake(version, predictor)
        self._tell(problem)
        log.info("a version is served", extra={"version": version.number, "hash": self.current.hash})

    def _fall_back(self) -> None:
        """At the start, serve what was served last."""
        if self.current is not None or (version := self._known("latest")) is None:
            return
        try:
            self._take(version, self.problem)
        except MlopsError as error:
            self._tell(f"{self.problem}; the version served last cannot be woken either: {error}")

    def _find(self, which: str | int) -> Version:
        if self._registry is None:
            self._registry = self._connect()
        return self._registry.find(self._name, which)

    def _open(self, version: Version) -> P:
        """Wake from the cache; what is damaged there is fetched anew."""
        folder = self._cache / version.tags["model_hash"][:16]
        if folder.is_dir():
            try:
                return self._wake(folder, version)
            except Damaged:
                shutil.rmtree(folder)
        if self._registry is None:
            self._registry = self._connect()
        incoming = self._cache / f".incoming-{os.getpid()}-{version.number}"
        shutil.rmtree(incoming, ignore_errors=True)
        try:
            fetched = self._registry.fetch(version, incoming)
            predictor = self._wake(fetched, version)
            if not folder.exists():
                fetched.rename(folder)
            return predictor
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _known(self, name: int | str) -> Version | None:
        try:
            return Version(**json.loads((self._cache / f"{name}.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _tell(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            log.warning("the newest version is not served", extra={"reason": problem})
        with self.changed:
            self.problem = problem
            self.changed.notify_all()


def _write(path: Path, version: Version) -> None:
    """Write down which version it is, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}-{os.getpid()}")
    incoming.write_text(json.dumps(asdict(version)), encoding="utf-8")
    incoming.replace(path)
