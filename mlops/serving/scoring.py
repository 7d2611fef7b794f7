"""The online path: requests in, answers out. Requests that arrive together are decided together, in their order."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from mlops import logs
from mlops.contract import Answer, Explanation, Fact, Labelled, Predictor, Record, Request, Router, Stamp, Told
from mlops.errors import Damaged, MlopsError, NotFound, Refused, StorageFailed
from mlops.journaling import labels
from mlops.journaling.group_commit import GroupCommit
from mlops.journaling.journal import Entry, Kept
from mlops.journaling.labels import DECISION, LABEL, Restore, decode_fact, decode_record, encode
from mlops.logs import RequestId
from mlops.serving.answers import Answers, identify
from mlops.serving.arms import Arms, Awake, Deployed, Said
from mlops.serving.batches import Batches

UNAVAILABLE = 503
CONFLICT = 409

log = logging.getLogger("scoring")


Replay = Callable[[Restore, int], Awaitable[int]]
"""Hands what the journal holds after a sequence number to whom it is given, and tells how far that is."""


class Decided(NamedTuple):
    """An answer: the decision's id, its record, and whether it had been given before."""

    id: bytes
    record: Record
    replayed: bool


Outcome = Decided | Refused
Bodies = Sequence[bytes | msgspec.Raw]


class Versions(Protocol):
    """Where versions come from."""

    @property
    def deployed(self) -> Deployed | None:
        """What answers now."""

    def awake(self, number: int) -> Awake:
        """Wake an older version, to explain what it said. Slow the first time."""


class Watcher(Protocol):
    """Is told of every batch after it was decided, and can neither change nor slow an answer."""

    def answered(self, outcomes: Sequence[Outcome], seconds: Sequence[float]) -> None: ...

    def cache_failed(self) -> None: ...


class Shared(Protocol):
    """Answers that other workers have given."""

    async def get(self, keys: Sequence[str]) -> list[bytes | None]: ...

    async def put(self, bodies: Mapping[str, bytes]) -> None: ...


class Clock:
    """The time in microseconds since 1970, which never goes back while this process lives."""

    def __init__(self, wall: Callable[[], int] = time.time_ns) -> None:
        self._wall, self._latest = wall, 0

    def now(self) -> int:
        self._latest = max(self._latest, self._wall() // 1_000)
        return self._latest


class Scorer:
    """Decides, remembers, explains and learns, for one module."""

    def __init__(
        self, name: str, versions: Versions, router: Router, journal: GroupCommit, answers: Answers, clock: Clock,
        watchers: Sequence[Watcher] = (), shared: Shared | None = None,
    ) -> None:  # fmt: skip
        self._name, self._versions, self._journal, self._answers = name, versions, journal, answers
        self._arms = Arms(name, router)
        self._clock, self._watchers, self._shared = clock, watchers, shared
        self._sharing: set[asyncio.Task[None]] = set()
        self._batches: Batches[bytes | msgspec.Raw, Outcome] = Batches(self._go, self._watch, self._is_sure)
        self._deciding = 0
        self._switching = asyncio.Lock()
        self._unsure: list[tuple[Predictor, Request]] = []

    async def decide(self, bodies: Bodies) -> list[Outcome]:
        """Decide requests in order, one outcome each; an answer is in the journal before it is given."""
        return await self._batches.result(bodies)

    def submit(self, bodies: Bodies, told: Callable[[list[Outcome]], None], request: RequestId | None = None) -> None:
        """Decide requests like `decide`, and hand the outcomes to `told` on the loop: the way without a task.

        What the log says of them names the `request` that brought them.
        """
        self._batches.submit(bodies, told, request)

    async def find(self, id_: bytes) -> tuple[Record, Sequence[Fact]]:
        """Return a decision and the labels known of it. Raises `NotFound`."""
        logs.add(decision_id=id_.hex())
        row = await asyncio.to_thread(self._journal.journal.find, id_)
        if row is None or row.entry.kind != DECISION:
            raise NotFound(f"there is no decision {id_.hex()}")
        return decode_record(row.entry.body), await labels.facts(self._journal.journal, id_)

    async def explain(self, record: Record, top: int | None = None) -> Explanation:
        """Explain a decision by the model of that day: the strongest `top` contributions, or all."""
        logs.add(decision_id=self.id(record.key).hex(), version=record.model.version)
        return (await self._of_that_day(record)).explain(record.seen, top)

    async def names(self, record: Record) -> Sequence[str] | None:
        """Name what the model of that day saw, in the order of `record.seen`; nothing where it cannot be woken."""
        try:
            return (await self._of_that_day(record)).names
        except MlopsError as error:
            log.warning("a version could not be woken", extra={"version": record.model.version, "reason": str(error)})
            return None

    async def what_if(self, body: bytes) -> tuple[Answer, Explanation, Stamp] | Decided:
        """Explain what would be answered, and leave no trace; for a request that was answered, give that answer."""
        deployed = self._deployed()
        request = deployed.production.predictor.read(body, self._clock.now())
        logs.add(decision_id=self.id(request.key).hex())
        row = await asyncio.to_thread(self._journal.journal.find, self.id(request.key))
        if row is not None:
            return _repeated(request, row.entry.id, row.entry.body)
        arm, awake = self._arms.choose(deployed, request.row)
        logs.add(version=awake.number)
        answer = (await awake.predictor.predict([request], keep=False))[0]
        return answer, awake.predictor.explain(answer.seen), self._arms.stamp(arm, awake)

    async def learn(self, told: Told) -> tuple[Fact, bool]:
        """Record what the truth turned out to be; return the fact and whether it was new. Raises `NotFound`, `Refused`.

        Without `known_at` it is known from now on, and saying again what is known already records nothing.
        """
        key, known_at = told.key, told.known_at
        now, about = self._clock.now(), self.id(key)
        logs.add(decision_id=about.hex())
        near = self._answers.get(key)
        record = decode_record(near) if near is not None else (await self.find(about))[0]
        label = told.label(record) if callable(told.label) else told.label
        if known_at is None:
            latest = max(await labels.facts(self._journal.journal, about), key=lambda fact: fact.known_at, default=None)
            if latest is not None and (latest.label, latest.truth) == (label, told.truth):
                return latest, False
        deployed = self._deployed()
        happened = deployed.production.predictor.happened(record.row)
        if known_at is not None and known_at <= happened:
            raise Refused("is not after what it is about", "known_at")
        if known_at is not None and known_at > now:
            raise Refused("lies in the future", "known_at")
        fact = Fact(key, label, max(now, happened + 1) if known_at is None else known_at, told.truth)
        body = encode(fact)
        kept = (await self._journal.keep([Entry(LABEL, identify(self._name, body), body, now, about)]))[0]
        rows = await asyncio.to_thread(self._journal.journal.about, [about])
        # Each fact is counted on top of those before it in the journal, so that two at once cannot both be the first.
        known = [decode_fact(row.entry.body) for row in rows if row.sequence <= kept.row.sequence]
        await self._arms.learn(deployed, Labelled(record.row, [(each.known_at, each.label) for each in known]))
        return fact, kept.fresh

    async def replay(self, restore: Restore, after: int) -> int:
        """Hand what the journal holds of this model after a sequence number to `restore`; return how far that is."""
        return await labels.replay(self._journal.journal, self._name, restore, after)

    def id(self, key: str) -> bytes:
        """The id of the decision about `key`: the same through every door. 16 bytes."""
        return identify(self._name, key.encode())

    async def finish(self) -> None:
        """Wait until everything that was accepted is answered."""
        await self._batches.finish()

    async def _go(self, bodies: Bodies, arrived: float) -> list[Outcome]:
        """Decide a batch, whose first body arrived at that time; what fails is an outcome too."""
        try:
            return await self._decide(bodies, arrived)
        except Exception as error:
            return [_unavailable(error, {})] * len(bodies)

    def _watch(self, outcomes: Sequence[Outcome], seconds: Sequence[float]) -> None:
        for watcher in self._watchers:
            watcher.answered(outcomes, seconds)

    def _is_sure(self) -> bool:
        """Whether the past holds what the journal holds; after a failure nothing is decided beside anything else."""
        return not self._unsure

    async def _decide(self, bodies: Bodies, arrived: float) -> list[Outcome]:
        deployed, now = self._deployed(), self._clock.now()
        read = deployed.production.predictor.read
        outcomes: dict[int, Outcome] = {}
        asked: list[tuple[int, Request]] = []
        for place, body in enumerate(bodies):
            try:
                request = read(body, now)
                before = self._answers.get(request.key)
                if before is None:
                    asked.append((place, request))
                else:
                    outcomes[place] = _repeated(request, self.id(request.key), before)
            except Refused as refused:
                outcomes[place] = refused
        if asked:
            requests = [request for _, request in asked]
            fresh = await self._fresh(deployed, requests, now, arrived)
            outcomes.update(zip((place for place, _ in asked), fresh, strict=True))
        return [outcomes[place] for place in range(len(bodies))]

    async def _fresh(self, deployed: Deployed, requests: list[Request], now: int, arrived: float) -> list[Outcome]:
        try:
            if not self._arms.know(deployed):
                await self._switch(deployed)
            if self._unsure:
                await self._settle()
            self._deciding += 1
            try:
                return await self._judge(deployed, requests, now, arrived)
            finally:
                self._deciding -= 1
        except Exception as error:
            awake = [one.number for one in (deployed.production, deployed.candidate) if one is not None]
            ids = [self.id(request.key).hex() for request in requests]
            known = {**logs.each("decision_id", ids), **logs.each("version", awake)}
            return [_unavailable(error, known)] * len(requests)

    async def _judge(self, deployed: Deployed, requests: list[Request], now: int, arrived: float) -> list[Outcome]:
        failures = self._journal.failures
        if self._shared is None:
            said = await self._arms.predict(deployed, requests)
            return await self._write(requests, said, now, arrived, failures)
        # What other workers said is asked for in the same round trip as the past; nearly all is new.
        given, said = await asyncio.gather(self._given(self._shared, requests), self._arms.predict(deployed, requests))
        news = [place for place, body in enumerate(given) if body is None]
        outcomes = {
            place: await self._as_given(said[place].predictor, requests[place], self.id(requests[place].key), body)
            for place, body in enumerate(given)
            if body is not None
        }
        if news:
            asked, fresh = [requests[place] for place in news], [said[place] for place in news]
            outcomes.update(zip(news, await self._write(asked, fresh, now, arrived, failures), strict=True))
        return [outcomes[place] for place in range(len(requests))]

    async def _write(
        self, requests: list[Request], said: list[Said], now: int, arrived: float, failures: int
    ) -> list[Outcome]:
        took = round((time.perf_counter() - arrived) * 1e6)
        records = [_record(asked, one, took) for asked, one in zip(requests, said, strict=True)]
        entries = [Entry(DECISION, self.id(record.key), encode(record), now) for record in records]
        predictors = [one.predictor for one in said]
        try:
            kept = await self._journal.keep(entries, failures)
        except MlopsError:
            self._unsure += zip(predictors, requests, strict=True)
            raise
        self._share(requests, kept)
        outcomes: list[Outcome] = []
        for predictor, request, record, one in zip(predictors, requests, records, kept, strict=True):
            entry = one.row.entry
            if one.fresh:
                self._answers.put(request.key, entry.body)
                outcomes.append(Decided(entry.id, record, False))
            else:
                outcomes.append(await self._as_given(predictor, request, entry.id, entry.body))
        asked = zip(predictors, requests, kept, strict=True)
        await self._arms.decided((predictor, request) for predictor, request, one in asked if one.fresh)
        return outcomes

    async def _as_given(self, predictor: Predictor, request: Request, id_: bytes, body: bytes) -> Outcome:
        """Give the answer that was given before, or refuse a request that only has its id."""
        self._answers.put(request.key, body)
        try:
            return _repeated(request, id_, body)
        except Refused as refused:
            # Both may share a part of the past: take the refused one out, then make sure that the first is there.
            await predictor.forget([request])
            await predictor.restore([decode_record(body).row])
            return refused

    async def _given(self, shared: Shared, requests: Sequence[Request]) -> Sequence[bytes | None]:
        """What other workers answered; nothing where that cannot be asked, for the journal will tell."""
        try:
            return await shared.get([request.key for request in requests])
        except (StorageFailed, Damaged):
            self._cache_failed()
            return [None] * len(requests)

    def _share(self, requests: Sequence[Request], kept: Sequence[Kept]) -> None:
        """Let other workers know, beside the answer and never before it."""
        if self._shared is not None:
            bodies = {request.key: one.row.entry.body for request, one in zip(requests, kept, strict=True)}
            task = asyncio.get_running_loop().create_task(self._put(self._shared, bodies))
            self._sharing.add(task)
            task.add_done_callback(self._sharing.discard)

    async def _put(self, shared: Shared, bodies: Mapping[str, bytes]) -> None:
        try:
            await shared.put(bodies)
        except StorageFailed:
            self._cache_failed()

    def _cache_failed(self) -> None:
        for watcher in self._watchers:
            watcher.cache_failed()

    async def _switch(self, deployed: Deployed) -> None:
        """Go on with other pasts; what was decided while they were prepared is added before anything is asked."""
        async with self._switching:
            if not self._arms.know(deployed):
                while self._deciding:
                    await asyncio.sleep(0)
                await self._arms.enter(deployed)

    async def _settle(self) -> None:
        """Before anything is decided after a failure: take out of the past what the journal does not hold."""
        while self._unsure:
            predictor, request = self._unsure[0]
            if await asyncio.to_thread(self._journal.journal.find, self.id(request.key)) is None:
                await predictor.forget([request])
            self._unsure.pop(0)

    async def _of_that_day(self, record: Record) -> Predictor:
        deployed = self._versions.deployed
        for awake in () if deployed is None else (deployed.production, deployed.candidate):
            if awake is not None and awake.hash == record.model.hash:
                return awake.predictor
        return (await asyncio.to_thread(self._versions.awake, record.model.version)).predictor

    def _deployed(self) -> Deployed:
        deployed = self._versions.deployed
        if deployed is None:
            raise Refused("no model is awake yet; ask again soon", status=UNAVAILABLE)
        return deployed


def _record(request: Request, said: Said, took: int) -> Record:
    answer = said.answer
    return Record(
        request.key, request.digest, request.row, answer.seen, answer.said, said.stamp, took, answer.degraded,
        said.instead_of,
    )  # fmt: skip


def _repeated(request: Request, id_: bytes, body: bytes) -> Decided:
    record = decode_record(body)
    if record.digest != request.digest:
        raise Refused("this id was decided with other values; ids are given once", status=CONFLICT)
    return Decided(id_, record, True)


def _unavailable(error: Exception, known: Mapping[str, object]) -> Refused:
    """Say that requests could not be decided; the log says why, and what is `known` of them."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, MlopsError):
        log.error("not decided", extra={"reason": str(error), **known})
        return Refused("the decision could not be kept; ask again soon", status=UNAVAILABLE)
    log.exception("not decided", extra=known)
    return Refused("an error of ours; it was logged", status=500)
