"""How a decision is made, over HTTP: a raw transaction in, a decision out; and what is known of it later."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from mlops.contract import Fact, Json, Record
from mlops.errors import NotFound, Refused
from mlops.serving.access import Serving
from mlops.serving.app import Call, Reply, Route, refusal
from mlops.serving.scoring import Decided, Outcome, Scorer
from modules.fraud_detection import program
from modules.fraud_detection.src.validation.requests import NAME, NUMBERED, moment, refused

TOP_REASONS = 3
ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)

encode = msgspec.json.Encoder().encode


class Body(msgspec.Struct):
    """A body that may carry many transactions."""

    transactions: list[Raw] | UnsetType = UNSET


class Feedback(msgspec.Struct, forbid_unknown_fields=True):
    """What the truth about a transaction turned out to be, and since when it is known; without a time, from now on."""

    transaction_id: NAME | NUMBERED
    is_fraud: bool | Annotated[int, Meta(ge=0, le=1)]
    known_at: str | None = None


read_body = msgspec.json.Decoder(Body).decode
read_feedback = msgspec.json.Decoder(Feedback).decode


class Predict:
    """The routes that decide, and those that ask about decisions."""

    def __init__(self, scorer: Scorer, limits: Serving) -> None:
        self._scorer, self._limits = scorer, limits

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
        """Decide one transaction the short way."""
        self._scorer.submit([call.body], lambda outcomes: done(_reply(outcomes[0])), call.request)

    async def predict(self, call: Call) -> Reply:
        """Decide one transaction, and give the strongest reasons where they are asked for."""
        outcome = (await self._scorer.decide([call.body]))[0]
        if isinstance(outcome, Refused) or b"explain=true" not in call.query.split(b"&"):
            return _reply(outcome)
        explanation = await self._scorer.explain(outcome.record, TOP_REASONS)
        return Reply(encode({**answer(outcome), "reasons": explanation.contributions}))

    async def batch(self, call: Call) -> Reply:
        """Decide transactions in order; each has its own result or error."""
        body = _read(call.body)
        if body.transactions is UNSET:
            raise Refused("is missing", "transactions")
        return await self._all(body.transactions)

    async def invocations(self, call: Call) -> Reply:
        """SageMaker's door: one transaction, or many under `transactions`."""
        body = _read(call.body)
        return await (self.predict(call) if body.transactions is UNSET else self._all(body.transactions))

    async def feedback(self, call: Call) -> Reply:
        """Record a label. Saying it again changes nothing; saying otherwise corrects it from then on."""
        try:
            given = read_feedback(call.body)
        except msgspec.ValidationError as error:
            raise refused(str(error), Feedback.__struct_fields__) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise Refused("the body is not one JSON object in UTF-8", status=400) from None
        known_at = None if given.known_at is None else moment(given.known_at, "known_at")
        fact, fresh = await self._scorer.learn(str(given.transaction_id), int(given.is_fraud), known_at)
        return Reply(encode({**label(fact), "transaction_id": fact.key, "recorded": fresh}))

    async def find(self, call: Call) -> Reply:
        """Give the journal's entry of a decision, with the label if it is known."""
        id_ = decision_id(call.rest)
        record, facts = await self._scorer.find(id_)
        return Reply(encode(entry(id_, record, facts, await self._scorer.names(record))))

    async def _all(self, bodies: Sequence[Raw]) -> Reply:
        if not 0 < len(bodies) <= self._limits.max_batch:
            raise Refused(f"holds not 1 to {self._limits.max_batch} transactions", "transactions")
        outcomes = await self._scorer.decide(bodies)
        return Reply(encode({"results": [_result(outcome) for outcome in outcomes]}))


def answer(decided: Decided) -> dict[str, Any]:
    """The answer to one transaction."""
    record = decided.record
    model = {"name": record.model.name, "version": record.model.version, "arm": record.model.arm}
    said = {
        "transaction_id": record.key, "decision_id": decided.id.hex(), **record.said, "model": model,
        "replayed": decided.replayed,
    }  # fmt: skip
    return said | {"degraded": True} if record.degraded else said


def entry(id_: bytes, record: Record, facts: Sequence[Fact], names: Sequence[str] | None) -> Json:
    """A decision as the journal has it: what came in, what the model saw, what was said, and the latest label."""
    latest = max(facts, key=lambda fact: fact.known_at, default=None)
    seen = record.seen if names is None else dict(zip(names, record.seen, strict=True))
    return {
        "decision_id": id_.hex(), "transaction_id": record.key, "transaction": record.row, "features": seen,
        **record.said, "model": record.model, "degraded": record.degraded, "took_microseconds": record.took,
        "label": None if latest is None else label(latest),
    }  # fmt: skip


def label(fact: Fact) -> Json:
    """A label and since when it is known."""
    return {"is_fraud": fact.label, "known_at": (ORIGIN + timedelta(microseconds=fact.known_at)).isoformat()}


def decision_id(text: str) -> bytes:
    """Read a decision's id. Raises `NotFound` for what cannot be one."""
    try:
        id_ = bytes.fromhex(text)
    except ValueError:
        id_ = b""
    if len(id_) != 16:
        raise NotFound("there is no decision with this id; ids are 32 hexadecimal digits")
    return id_


def _reply(outcome: Outcome) -> Reply:
    return refusal(outcome) if isinstance(outcome, Refused) else Reply(encode(answer(outcome)))


def _result(outcome: Outcome) -> Json:
    if isinstance(outcome, Refused):
        return {"error": {"field": outcome.field, "reason": outcome.reason, "status": outcome.status}}
    return answer(outcome)


def _read(body: bytes) -> Body:
    try:
        return read_body(body)
    except msgspec.ValidationError:
        raise Refused("is not a list of transactions", "transactions") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Refused("the body is not one JSON object in UTF-8", status=400) from None


if __name__ == "__main__":
    program.run("serve")
