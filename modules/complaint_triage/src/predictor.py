"""A model version, awake: complaints in, a product for each and why. It remembers nothing, so every past is empty."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from mlops.contract import Answer, Explanation, Labelled, Request
from mlops.errors import Damaged, Refused
from mlops.serving import bodies
from mlops.serving.bodies import NAME, NUMBERED, moment
from modules.complaint_triage.src.data.complaints import ID, RECEIVED, TEXT, clean
from modules.complaint_triage.src.models.artifact import Artifact

Seen = Sequence[float | str | None]

SCORE = "doubt"
WORDS, UNKNOWN, SAID = "words", "unknown_share", "product"
PORTRAYED = (WORDS, UNKNOWN, SAID)
"""What is seen of a complaint and compared with training; its text comes after."""
SKEW = 300_000_000
"""Microseconds that another's clock may be ahead."""

encode = msgspec.json.Encoder().encode


class Judged(NamedTuple):
    """What is said of a text: the product, the one that came next, and the probability that the product is wrong."""

    product: int
    next: int
    doubt: float
    seen: Seen


class Triage:
    """Reads, decides and explains with one artifact."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        text = Annotated[str, Meta(min_length=1, max_length=artifact.card.longest)]
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
            (ID, NAME | NUMBERED), (TEXT, text), (RECEIVED, str | None, None),
        ]  # fmt: skip
        self.request = msgspec.defstruct("Complaint", fields, forbid_unknown_fields=True)
        self._decode = msgspec.json.Decoder(self.request).decode

    @property
    def hash(self) -> str:
        """The hash of what it woke from."""
        return self.artifact.hash

    @property
    def past(self) -> str:
        """Name what is remembered."""
        return "nothing"

    @property
    def names(self) -> Sequence[str]:
        """Name what is seen of a complaint, in order."""
        return (*PORTRAYED, TEXT)

    def read(self, body: bytes | msgspec.Raw, now: int) -> Request:
        """Read a complaint. Raises `Refused`, which names the field."""
        given: Any = bodies.read(self._decode, body, self.request.__struct_fields__)
        text = clean(given.text)
        if not text:
            raise Refused("is empty", TEXT)
        received = None if given.received is None else moment(given.received, RECEIVED)
        if received is not None and received > now + SKEW:
            raise Refused("lies in the future", RECEIVED)
        key = str(given.complaint_id)
        row = {ID: key, TEXT: text, RECEIVED: received}
        return Request(key, hashlib.blake2b(encode(row), digest_size=16).hexdigest(), row)

    async def predict(self, requests: Sequence[Request], keep: bool = True) -> list[Answer]:  # noqa: ARG002
        """Decide complaints, each by itself."""
        return [self._answer(request.row[TEXT]) for request in requests]

    async def forget(self, requests: Sequence[Request]) -> None:
        """There is nothing to forget."""

    async def learn(self, labelled: Labelled) -> None:
        """What a label teaches, the next version learns."""

    async def restore(self, decided: Sequence[Mapping[str, Any]]) -> None:
        """There is nothing to remember."""

    async def catch_up(self) -> None:
        """There is nothing to catch up with."""

    def happened(self, row: Mapping[str, Any]) -> int:
        """When a complaint came in, in microseconds since 1970; long ago where nobody said."""
        received = row[RECEIVED]
        return 0 if received is None else int(received)

    def judge(self, text: str) -> Judged:
        """Find the product of a text, and how much there is to doubt it."""
        vector = self.artifact.words.vector(text)
        found = self.artifact.model.probabilities(vector)
        first, second = (int(place) for place in (-found).argsort(kind="stable")[:2])
        product = self.artifact.card.products[first]
        return Judged(
            first, second, float(1 - found[first]), (float(vector.total), vector.unknown_share, product, text)
        )

    def explain(self, seen: Seen, top: int | None = None) -> Explanation:
        """Explain by the words: what speaks for the product that was said, rather than for the one that came next."""
        text = str(seen[-1])
        judged, vector, card = self.judge(text), self.artifact.words.vector(text), self.artifact.card
        weights, bias = self.artifact.model.weights, self.artifact.model.bias
        apart = vector.values * (weights[vector.places, judged.product] - weights[vector.places, judged.next])
        base = float(bias[judged.product] - bias[judged.next])
        said, other = card.products[judged.product], card.products[judged.next]
        order = (-abs(apart)).argsort(kind="stable")
        parts = []
        for place in order[: len(order) if top is None else top]:
            word, contribution = card.vocabulary.words[vector.places[place]], float(apart[place])
            speaks = f"speaks for {said}" if contribution > 0 else f"speaks for {other}"
            count = int(vector.counts[place])
            times = "" if count == 1 else f", {count} times"
            parts.append(
                {"feature": word, "value": count, "contribution": contribution, "text": f"'{word}'{times}: {speaks}"}
            )
        return Explanation(base, parts, base + float(apart.sum()))

    def warm_up(self) -> None:
        """Decide the canned complaint. Raises `Damaged` when its doubt is not what it was where it was trained."""
        canned = self.artifact.canned
        request = self.read(json.dumps(canned.complaint).encode(), 1 << 62)
        answer = self._answer(request.row[TEXT])
        if answer.said[SCORE] != canned.doubt:
            here = f"the canned complaint has a doubt of {answer.said[SCORE]} here"
            raise Damaged(f"{here}, and {canned.doubt} where it was trained")
        self.explain(answer.seen)

    def _answer(self, text: str) -> Answer:
        judged = self.judge(text)
        decision = "review" if judged.doubt >= self.artifact.card.review_from else "route"
        said = {SAID: self.artifact.card.products[judged.product], SCORE: judged.doubt, "decision": decision}
        return Answer(said, judged.seen, False)


def wake(folder: Path) -> Triage:
    """Wake the version in `folder`. Raises `Damaged` when its files are not what was written."""
    return Triage(Artifact.open(folder))
