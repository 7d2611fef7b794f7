"""The versions that the traffic names, awake: swapped between two answers, never in the middle of one."""

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
from typing import Generic, Protocol, TypeVar

import msgspec

from mlops.errors import Damaged, MlopsError, NotFound, StorageFailed
from mlops.releasing.registry import Version
from mlops.traffic import Traffic

P = TypeVar("P")

REMEMBERED = 4
"""Versions that stay awake: the latest that answered, and the latest that were asked why."""
PATIENCE = 60
"""Seconds after which a version that could not be woken is tried again."""
LATEST = "latest.json"

log = logging.getLogger("live")


class Store(Protocol):
    """Where versions are found, and their files fetched from: a registry, or what stands for one."""

    def find(self, name: str, which: int) -> Version: ...

    def fetch(self, version: Version, folder: Path) -> Path: ...


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


@dataclass(frozen=True)
class Deployed(Generic[P]):
    """What answers: production, and the candidate where it answers a share and could be woken."""

    traffic: Traffic
    production: Awake[P]
    candidate: Awake[P] | None


class Live(Generic[P]):
    """Keeps the versions that answer awake.

    A thread asks every `every` seconds what the `traffic` is to be. A new version is found in the registry, fetched
    into `cache`, woken (`wake` verifies its files), made ready (`prepare`), and only then takes its place. Where
    production cannot be woken what was deployed before stays; where a candidate cannot, production answers alone;
    `problem` says why. Versions that were left stay awake for a while, so that the way back takes no time. Where nobody
    tells the traffic at the start, the version that was in production last is taken from `cache`.
    """

    def __init__(
        self, traffic: Callable[[], Traffic | None], registry: Callable[[], Store], name: str,
        wake: Callable[[Path, Version], P], prepare: Callable[[P], None], cache: Path, every: float = 0.25,
    ) -> None:  # fmt: skip
        self._traffic, self._connect, self._name = traffic, registry, name
        self._wake, self._prepare, self._cache, self._every = wake, prepare, cache, every
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Awake[P]] = OrderedDict()
        self._ready: OrderedDict[int, Awake[P]] = OrderedDict()
        self._registry: Store | None = None
        self._refused: dict[int, tuple[str, float]] = {}
        self._thread = threading.Thread(target=self._watch, name="live", daemon=True)
        self.deployed: Deployed[P] | None = None
        self.problem: str | None = "no version has been woken yet"
        self.changed = threading.Condition()

    @property
    def current(self) -> Awake[P] | None:
        """The version in production."""
        return None if self.deployed is None else self.deployed.production

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
            found = self._ready.get(number) or self._kept.get(number)
            if found is None:
                version = self._version(number)
                found = Awake(version, self._open(version))
            _keep(self._kept, found)
            return found

    def _watch(self) -> None:
        while True:
            try:
                self._look()
            except MlopsError as error:
                self._tell(str(error))
                self._fall_back()
            except Exception:
                log.exception("the traffic could not be asked")
                self._tell("the traffic could not be asked; the log says more")
                self._fall_back()
            if self._stopping.wait(self._every):
                return

    def _look(self) -> None:
        """Ask who is to answer, and wake what does not yet."""
        traffic = self._traffic()
        if traffic is None:
            way = f"make one: python -m modules.{self._name} pipeline"
            raise NotFound(f"no version of '{self._name}' is in production; {way}")
        production, candidate, problem = self._made_ready(traffic.production), None, None
        if traffic.answering is not None:
            try:
                candidate = self._made_ready(traffic.answering)
            except MlopsError as error:
                problem = f"version {traffic.answering} is not served, production answers alone: {error}"
        self._deploy(Deployed(traffic, production, candidate), problem)

    def _made_ready(self, number: int) -> Awake[P]:
        """Wake a version; one that could not be woken is not tried again for a while. Raises `MlopsError`."""
        if (found := self._ready.get(number)) is None:
            reason, until = self._refused.get(number, ("", 0.0))
            if time.monotonic() < until:
                raise MlopsError(reason)
            try:
                version = self._version(number)
                found = Awake(version, self._open(version))
                self._prepare(found.predictor)
                _write(self._cache / f"{number}.json", version)
            except Exception as error:
                if not isinstance(error, MlopsError):
                    log.exception("version %s could not be woken", number, extra={"version": number})
                    error = MlopsError(f"version {number} could not be woken; the log says more")
                self._refused[number] = str(error), time.monotonic() + PATIENCE
                raise error from None
            self._refused.pop(number, None)
        _keep(self._ready, found)
        return found

    def _deploy(self, deployed: Deployed[P], problem: str | None) -> None:
        """Let it answer from now on, with what is still wrong."""
        before = self.deployed
        if before != deployed:
            _write(self._cache / LATEST, deployed.production.version)
            self.deployed = deployed
            log.info("the traffic changes", extra=msgspec.structs.asdict(deployed.traffic))
        self._tell(problem)

    def _fall_back(self) -> None:
        """At the start, serve what was served last."""
        if self.deployed is not None or (version := self._known("latest")) is None:
            return
        problem = self.problem
        try:
            self._deploy(Deployed(Traffic(version.number), self._made_ready(version.number), None), problem)
        except MlopsError as error:
            self._tell(f"{problem}; the version served last cannot be woken either: {error}")

    def _version(self, number: int) -> Version:
        try:
            return self._asked().find(self._name, number)
        except StorageFailed:
            if (known := self._known(number)) is None:
                raise
            return known

    def _asked(self) -> Store:
        if self._registry is None:
            self._registry = self._connect()
        return self._registry

    def _open(self, version: Version) -> P:
        """Wake from the cache; what is damaged there is fetched anew."""
        folder = self._cache / version.tags["model_hash"][:16]
        if folder.is_dir():
            try:
                return self._wake(folder, version)
            except Damaged:
                shutil.rmtree(folder)
        incoming = self._cache / f".incoming-{os.getpid()}-{version.number}"
        shutil.rmtree(incoming, ignore_errors=True)
        try:
            fetched = self._asked().fetch(version, incoming)
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


def _keep(kept: "OrderedDict[int, Awake[P]]", one: Awake[P]) -> None:
    """Keep one among the latest few."""
    kept[one.number] = one
    kept.move_to_end(one.number)
    if len(kept) > REMEMBERED:
        kept.popitem(last=False)


def _write(path: Path, version: Version) -> None:
    """Write down which version it is, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}-{os.getpid()}")
    incoming.write_text(json.dumps(asdict(version)), encoding="utf-8")
    incoming.replace(path)
