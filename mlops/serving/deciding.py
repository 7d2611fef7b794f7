"""How a decision is made, over HTTP: a raw request in, a decision out; and what is known of it later."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from mlops.contract import Fact, Json, Record, Told
from mlops.errors import NotFound, Refused
from mlops.serving.access import Serving
from mlops.serving.app import Call, Reply, Route, refusal
from mlops.serving.bodies import NO_OBJECT
from mlops.serving.scoring import Decided, Outcome, Scorer

TOP_REASONS = 3
ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)

encode = msgspec.json.Encoder().encode


class Nouns(NamedTuple):
    """What a module calls what it decides about: one, many, the id of one, and the field of its label."""

    one: str
    many: str
    id: str
    label: str


class Deciding:
    """The routes that decide, and those that ask about decisions.

    `read_told` reads what somebody says of the truth. Raises `Refused`.
    """

    def __init__(self, scorer: Scorer, limits: Serving, nouns: Nouns, read_told: Callable[[bytes], Told]) -> None:
        self._scorer, self._limits, self._nouns, self._read_told = scorer, limits, nouns, read_told
        # Of a body that may carry many only this is read; what one is, the version that decides reads.
        body = msgspec.defstruct("Body", [("many", list[Raw] | UnsetType, UNSET)], rename={"many": nouns.many})
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(body).decode

    def routes(self) -> list[Route]:
        """Every route, with what a key must open for it."""
        return [
            Route("POST", "/predict", self.predict, "predict", counts=True, begin=self.begin),
            Route("POST", "/predict/batch", self.batch, "predict", counts=True),
            Route("POST", "/invocations", self.invocations, "predict", counts=True),
            Route("POST", "/feedback", self.feedback, "feedback"),
            Route("GET", "/decisions/{decision_id}", self.find, "read"),
        ]

    def begin(self, call: Call, done: Callable[[Reply], None]) -> None:
        """Decide one request the short way."""
        self._scorer.submit([call.body], lambda outcomes: done(self._reply(outcomes[0])), call.request)

    async def predict(self, call: Call) -> Reply:
        """Decide one request, and give the strongest reasons where they are asked for."""
        outcome = (await self._scorer.decide([call.body]))[0]
        if isinstance(outcome, Refused) or b"explain=true" not in call.query.split(b"&"):
            return self._reply(outcome)
        explanation = await self._scorer.explain(outcome.record, TOP_REASONS)
        return Reply(encode({**answer(outcome, self._nouns), "reasons": explanation.contributions}))

    async def batch(self, call: Call) -> Reply:
        """Decide requests in order; each has its own result or error."""
        many = self._many(call.body)
        if many is None:
            raise Refused("is missing", self._nouns.many)
        return await self._all(many)

    async def invocations(self, call: Call) -> Reply:
        """SageMaker's door: one request, or many under their name."""
        many = self._many(call.body)
        return await (self.predict(call) if many is None else self._all(many))

    async def feedback(self, call: Call) -> Reply:
        """Record a label. Saying it again changes nothing; saying otherwise corrects it from then on."""
        fact, fresh = await self._scorer.learn(self._read_told(call.body))
        return Reply(encode({**label(fact, self._nouns), self._nouns.id: fact.key, "recorded": fresh}))

    async def find(self, call: Call) -> Reply:
        """Give the journal's entry of a decision, with the label if it is known."""
        id_ = decision_id(call.rest)
        record, facts = await self._scorer.find(id_)
        return Reply(encode(_entry(id_, record, facts, await self._scorer.names(record), self._nouns)))

    async def _all(self, bodies: Sequence[Raw]) -> Reply:
        if not 0 < len(bodies) <= self._limits.max_batch:
            raise Refused(f"holds not 1 to {self._limits.max_batch} {self._nouns.many}", self._nouns.many)
        outcomes = await self._scorer.decide(bodies)
        return Reply(encode({"results": [self._result(outcome) for outcome in outcomes]}))

    def _reply(self, outcome: Outcome) -> Reply:
        return refusal(outcome) if isinstance(outcome, Refused) else Reply(encode(answer(outcome, self._nouns)))

    def _result(self, outcome: Outcome) -> Json:
        if isinstance(outcome, Refused):
            return {"error": {"field": outcome.field, "reason": outcome.reason, "status": outcome.status}}
        return answer(outcome, self._nouns)

    def _many(self, body: bytes) -> Sequence[Raw] | None:
        try:
            found: Sequence[Raw] | UnsetType = self._decode(body).many
        except msgspec.ValidationError:
            raise Refused(f"is not a list of {self._nouns.many}", self._nouns.many) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise Refused(NO_OBJECT, status=400) from None
        return None if isinstance(found, UnsetType) else found


def answer(decided: Decided, nouns: Nouns) -> dict[str, Any]:
    """The answer to one request."""
    record = decided.record
    model = {"name": record.model.name, "version": record.model.version, "arm": record.model.arm}
    said = {
        nouns.id: record.key, "decision_id": decided.id.hex(), **record.said, "model": model,
        "replayed": decided.replayed,
    }  # fmt: skip
    return said | {"degraded": True} if record.degraded else said


def label(fact: Fact, nouns: Nouns) -> Json:
    """A label and since when it is known."""
    truth = fact.label if fact.truth is None else fact.truth
    return {nouns.label: truth, "known_at": (ORIGIN + timedelta(microseconds=fact.known_at)).isoformat()}


def decision_id(text: str) -> bytes:
    """Read a decision's id. Raises `NotFound` for what cannot be one."""
    try:
        id_ = bytes.fromhex(text)
    except ValueError:
        id_ = b""
    if len(id_) != 16:
        raise NotFound("there is no decision with this id; ids are 32 hexadecimal digits")
    return id_


def _entry(
    id_: bytes, record: Record, facts: Sequence[Fact], names: Sequence[str] | None, nouns: Nouns
) -> Mapping[str, Any]:
    """A decision as the journal has it: what came in, what the model saw, what was said, and the latest label."""
    latest = max(facts, key=lambda fact: fact.known_at, default=None)
    seen = record.seen if names is None else dict(zip(names, record.seen, strict=True))
    return {
        "decision_id": id_.hex(), nouns.id: record.key, nouns.one: record.row, "features": seen,
        **record.said, "model": record.model, "degraded": record.degraded, "took_microseconds": record.took,
        "label": None if latest is None else label(latest, nouns),
    }  # fmt: skip
