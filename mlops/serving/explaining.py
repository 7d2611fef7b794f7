"""Why a decision was made: the exact parts of a score, by the model of that day, as numbers, words or a picture."""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from mlops.contract import Explanation, Json
from mlops.errors import MlopsError
from mlops.serving.app import Call, Reply, Route
from mlops.serving.deciding import Nouns, answer, decision_id
from mlops.serving.scoring import Decided, Scorer
from mlops.storage import objects
from mlops.storage.objects import EXPLANATIONS, Objects

PNG = b"image/png"

Draw = Callable[[Json, Explanation], bytes]
"""Draws an explanation of what was said, as a PNG."""

encode = msgspec.json.Encoder().encode
log = logging.getLogger("serving")


class ByDecision(msgspec.Struct, forbid_unknown_fields=True):
    """Asks for the explanation of a decision that was made."""

    decision_id: str


read_by_decision = msgspec.json.Decoder(ByDecision).decode


class Explaining:
    """The route /explain. Every explanation of a decision is stored beside it; `draw` makes it a picture."""

    def __init__(self, scorer: Scorer, store: Objects, nouns: Nouns, draw: Draw) -> None:
        self._scorer, self._store, self._nouns, self._draw = scorer, store, nouns, draw
        self._keeping: set[asyncio.Task[None]] = set()

    def routes(self) -> list[Route]:
        """The route."""
        return [Route("POST", "/explain", self.explain, "explain")]

    async def explain(self, call: Call) -> Reply:
        """Explain a decision by its id, or a request: the decision about it, or what would be decided."""
        by_id = _by_decision(call.body)
        if by_id is not None:
            record, _ = await self._scorer.find(by_id)
            return await self._of_decision(call, Decided(by_id, record, True))
        found = await self._scorer.what_if(call.body)
        if isinstance(found, Decided):
            return await self._of_decision(call, found)
        would_be, explanation, model = found
        about = {**would_be.said, "model": model, **({"degraded": True} if would_be.degraded else {})}
        return await self._reply(call, about, explanation)

    async def _of_decision(self, call: Call, decided: Decided) -> Reply:
        about = {name: value for name, value in answer(decided, self._nouns).items() if name != "replayed"}
        reply = await self._reply(call, about, await self._scorer.explain(decided.record))
        if reply.kind != PNG:
            # Beside the answer, never before it: a store that fails cannot fail an explanation.
            task = asyncio.get_running_loop().create_task(self._keep(decided.id.hex(), reply.body))
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)
        return reply

    async def _reply(self, call: Call, about: Json, explanation: Explanation) -> Reply:
        if PNG in call.accept:
            # Drawing takes longer than a hundred decisions; they go on meanwhile.
            return Reply(await asyncio.to_thread(self._draw, about, explanation), kind=PNG)
        parts = {
            "base_value": explanation.base_value, "contributions": explanation.contributions,
            "margin": explanation.margin,
        }  # fmt: skip
        return Reply(encode({**about, **parts}))

    async def _keep(self, name: str, body: bytes) -> None:
        try:
            await asyncio.to_thread(objects.write, self._store, f"{EXPLANATIONS}/decisions/{name}.json", body)
        except MlopsError as error:
            log.warning("an explanation could not be stored", extra={"reason": str(error)})


def _by_decision(body: bytes) -> bytes | None:
    """Tell whether the body asks by id; everything else is read as a request."""
    try:
        return decision_id(read_by_decision(body).decision_id)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
