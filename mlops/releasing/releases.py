"""Releasing versions of one module: each act stands in the ledger first, then the names in MLflow follow it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mlops import traffic
from mlops.journaling.ledger import Change, Done, Ledger
from mlops.releasing.registry import Registry, Version
from mlops.traffic import Mode, Traffic


class Releases:
    """What can be done with the versions of a module.

    Whoever does something says who it is, and why. With `only_after`, the number of an act, it is done only while that
    act is the last; `Overtaken` is raised where it is not. Raises `NotFound` for a version that is not registered,
    `BadInput` for what makes no sense.
    """

    def __init__(self, name: str, ledger: Ledger, registry: Callable[[], Registry]) -> None:
        self.name, self.ledger, self._registry = name, ledger, registry

    @property
    def traffic(self) -> Traffic | None:
        """Who answers now."""
        return self.ledger.traffic(self.name)

    def promote(
        self, version: int, who: str, why: str, figures: Mapping[str, Any] | None = None, only_after: int | None = None
    ) -> Done:
        """Let a version answer all."""
        return self._do("promoted", version, partial(traffic.promoted, version=version), who, why, figures, only_after)

    def trial(
        self, version: int, mode: Mode, weight: float, who: str, why: str, figures: Mapping[str, Any] | None = None,
        only_after: int | None = None,
    ) -> Done:  # fmt: skip
        """Let a version answer a share (0 to 1) as `canary` or in an `ab` test, or watch as `shadow`."""
        change = partial(traffic.on_trial, version=version, mode=mode, weight=weight)
        return self._do(mode, version, change, who, why, figures, only_after)

    def back(self, who: str, why: str, figures: Mapping[str, Any] | None = None, only_after: int | None = None) -> Done:
        """End the trial that runs, or let the previous version answer again."""
        now = self.traffic
        left = None if now is None else now.candidate or now.production
        return self._do("rolled back", left, traffic.back, who, why, figures, only_after, known=True)

    def note(self, act: str, version: int, who: str, why: str, figures: Mapping[str, Any] | None = None) -> Done:
        """Write down what moves no traffic: a registration, a verdict."""
        return self.ledger.record(self.name, act, version, who, why, figures=figures)

    def enter(self, version: Version, who: str) -> bool:
        """Write down that a version was registered; the first of a module answers at once. Tell whether it answers."""
        if self.done("registered", version.number) is None:
            self.note("registered", version.number, who, f"trained on snapshot {version.tags['snapshot']}")
        if self.traffic is None:
            self.promote(version.number, who, "the first version")
        return self.traffic is not None and self.traffic.production == version.number

    def done(self, act: str, version: int) -> Done | None:
        """The latest act of a kind about a version, if there is one."""
        acts = self.ledger.acts(self.name)
        return next((one for one in reversed(acts) if (one.act.act, one.act.version) == (act, version)), None)

    def follow(self) -> None:
        """Let MLflow's names say what the ledger says: after an act, and after a crash between the two."""
        now = self.traffic
        if now is not None:
            self._registry().call(self.name, now.arms)

    def _do(
        self, act: str, version: int | None, change: Change, who: str, why: str, figures: Mapping[str, Any] | None,
        only_after: int | None, known: bool = False,
    ) -> Done:  # fmt: skip
        if version is not None and not known:
            self._registry().find(self.name, version)
        done = self.ledger.record(self.name, act, version, who, why, change, figures, only_after)
        self.follow()
        return done
