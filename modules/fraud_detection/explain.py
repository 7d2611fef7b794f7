"""Why a decision was made: the exact parts of a score, by the model of that day, as numbers, words or a picture."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from mlops.contract import Explanation, Json
from mlops.serving.app import Call, Reply, Route
from mlops.serving.scoring import Decided, Scorer
from modules.fraud_detection.predict import answer, decision_id
from modules.fraud_detection.src.explainability import waterfall
from modules.fraud_detection.src.explainability.reasons import Reason

PNG = b"image/png"

encode = msgspec.json.Encoder().encode


class ByDecision(msgspec.Struct, forbid_unknown_fields=True):
    """Asks for the explanation of a decision that was made."""

    decision_id: str


read_by_decision = msgspec.json.Decoder(ByDecision).decode


class Explain:
    """The route /explain. `kept` is handed every explanation of a decision, to be stored beside it."""

    def __init__(self, scorer: Scorer, kept: Callable[[str, bytes], Coroutine[Any, Any, None]]) -> None:
        self._scorer, self._kept = scorer, kept
        self._keeping: set[asyncio.Task[None]] = set()

    def routes(self) -> list[Route]:
        """The route."""
        return [Route("POST", "/explain", self.explain, "explain")]

    async def explain(self, call: Call) -> Reply:
        """Explain a decision by its id, or a transaction: the decision about it, or what would be decided."""
        by_id = _by_decision(call.body)
        if by_id is not None:
            record, _ = await self._scorer.find(by_id)
            found: Any = Decided(by_id, record, True)
        else:
            found = await self._scorer.what_if(call.body)
        if not isinstance(found, Decided):
            would_be, explanation, model = found
            about = {**would_be.said, "model": model, **({"degraded": True} if would_be.degraded else {})}
            return await self._reply(call, about, explanation)
        explanation = await self._scorer.explain(found.record)
        reply = await self._reply(call, _about(found), explanation)
        if reply.kind != PNG:
            self._keep(found.id.hex(), reply.body)
        return reply

    async def _reply(self, call: Call, about: Json, explanation: Explanation) -> Reply:
        if PNG in call.accept:
            probability = float(about["fraud_probability"])
            parts = [Reason(**part) for part in explanation.contributions]
            # Drawing takes longer than a hundred decisions; they go on meanwhile.
            data = await asyncio.to_thread(
                waterfall.draw, parts, explanation.base_value, explanation.margin, probability
            )
            return Reply(data, kind=PNG)
        parts_first = {
            "base_value": explanation.base_value, "contributions": explanation.contributions,
            "margin": explanation.margin,
        }  # fmt: skip
        return Reply(encode({**about, **parts_first}))

    def _keep(self, name: str, body: bytes) -> None:
        """Store beside the answer, never before it: a store that fails cannot fail an explanation."""
        task = asyncio.get_running_loop().create_task(self._kept(name, body))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)


def _about(decided: Decided) -> Json:
    return {name: value for name, value in answer(decided).items() if name != "replayed"}


def _by_decision(body: bytes) -> bytes | None:
    """Tell whether the body asks by id; everything else is read as a transaction."""
    try:
        return decision_id(read_by_decision(body).decision_id)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
