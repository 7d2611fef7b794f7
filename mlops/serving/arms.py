"""The arms of the traffic: which version decides a request, and what all versions that answer have to remember."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from mlops import logs
from mlops.contract import Answer, Labelled, Predictor, Request, Router, Stamp
from mlops.serving.answers import identify
from mlops.traffic import PRODUCTION, Traffic

log = logging.getLogger("arms")


class Awake(Protocol):
    """A version that is ready to decide."""

    @property
    def number(self) -> int: ...
    @property
    def hash(self) -> str: ...
    @property
    def configuration(self) -> str: ...
    @property
    def predictor(self) -> Predictor: ...


class Deployed(Protocol):
    """What answers."""

    @property
    def traffic(self) -> Traffic: ...
    @property
    def production(self) -> Awake: ...
    @property
    def candidate(self) -> Awake | None: ...


class Said(NamedTuple):
    """What a version says of a request, and the version that was to say it and failed."""

    answer: Answer
    predictor: Predictor
    stamp: Stamp
    instead_of: int | None = None


class Arms:
    """Asks the version of each request's arm; where a candidate fails, production answers.

    Versions that need other features remember another past. Every past that is in use is told of every decision and
    label, whichever version made it.
    """

    def __init__(self, name: str, router: Router) -> None:
        self._name, self._router = name, router
        self._pasts: dict[str, Predictor] = {}

    def choose(self, deployed: Deployed, row: Mapping[str, Any]) -> tuple[str, Awake]:
        """The arm that decides a row, and its version."""
        arm = self._router.arm(deployed.traffic, row)
        if deployed.candidate is None or arm == PRODUCTION:
            return PRODUCTION, deployed.production
        return arm, deployed.candidate

    async def predict(self, deployed: Deployed, requests: Sequence[Request]) -> list[Said]:
        """Decide requests in order, each with the ones before it in its past, whatever their arms."""
        if deployed.traffic.answering is None:
            return await self._ask(PRODUCTION, deployed.production, requests)
        said: list[Said] = []
        for arm, run in groupby(requests, lambda request: self._router.arm(deployed.traffic, request.row)):
            if arm == PRODUCTION:
                said += await self._ask(PRODUCTION, deployed.production, list(run))
            else:
                said += await self._try(arm, deployed, list(run))
        return said

    def know(self, deployed: Deployed) -> bool:
        """Whether the past of every version that answers is told of what is decided."""
        return all(predictor.past in self._pasts for predictor in _predictors(deployed))

    async def enter(self, deployed: Deployed) -> None:
        """Tell the pasts of these versions, and no others, from now on; while nothing else is decided."""
        entered = {}
        for predictor in _predictors(deployed):
            if predictor.past not in self._pasts:
                await predictor.catch_up()
            entered[predictor.past] = predictor
        self._pasts = entered

    async def decided(self, said: Iterable[tuple[Predictor, Request]]) -> None:
        """Tell each past what was decided with another."""
        if len(self._pasts) < 2:
            return
        told = list(said)
        for past, predictor in self._pasts.items():
            await predictor.restore([request.row for by, request in told if by.past != past])

    async def learn(self, deployed: Deployed, labelled: Labelled) -> None:
        """Tell each past a label."""
        for predictor in ({each.past: each for each in _predictors(deployed)} | self._pasts).values():
            await predictor.learn(labelled)

    def stamp(self, arm: str, awake: Awake) -> Stamp:
        """What a decision carries of the version that made it."""
        return Stamp(self._name, awake.number, arm, awake.hash, awake.configuration)

    async def _try(self, arm: str, deployed: Deployed, requests: Sequence[Request]) -> list[Said]:
        """Let the candidate decide; where it fails or could not be woken, production does, and that is told."""
        if deployed.candidate is not None:
            try:
                return await self._ask(arm, deployed.candidate, requests)
            except Exception:
                number = deployed.candidate.number
                ids = [identify(self._name, request.key.encode()).hex() for request in requests]
                known = {"version": number, **logs.each("decision_id", ids)}
                log.exception("version %s failed, production answers instead", number, extra=known)
        said = await self._ask(PRODUCTION, deployed.production, requests)
        return [one._replace(instead_of=deployed.traffic.candidate) for one in said]

    async def _ask(self, arm: str, awake: Awake, requests: Sequence[Request]) -> list[Said]:
        stamp = self.stamp(arm, awake)
        return [Said(answer, awake.predictor, stamp) for answer in await awake.predictor.predict(requests)]


def _predictors(deployed: Deployed) -> list[Predictor]:
    awake = [deployed.production, *([] if deployed.candidate is None else [deployed.candidate])]
    return [one.predictor for one in awake]
