"""What a version says of itself for those who watch it: a file beside its model, the same for every module."""

import msgspec
import numpy as np
import polars as pl

from mlops.errors import Damaged
from monitoring.drift_report import Performance
from monitoring.performance import Calibration, Decisions, Floats

FILE = "reference.json"


class Reference(msgspec.Struct, frozen=True):
    """A version's score before it was put into use, and what its mistakes cost.

    `score` is the name of the score in what the version says; from `flagged_from` on a person looks, for `review` in
    money. A positive that passes costs `loss_share` of the column `amount` of what came in, or `loss_fixed` where there
    is none. `label_share` of `label_rows` training rows were positive, and they came `clumping` at a time.
    `calibration` and `performance` are of rows that were held out.
    """

    score: str
    flagged_from: float
    review: float
    amount: str | None
    loss_share: float
    loss_fixed: float
    label_share: float
    label_rows: int
    clumping: float
    calibration: Calibration
    performance: Performance

    def decisions(self, scores: Floats, amounts: pl.Series | None) -> Decisions:
        """What is decided at these scores (rows,), with the amounts of the same rows where there are any."""
        losses = np.full(scores.size, self.loss_fixed)
        if amounts is not None:
            losses = amounts.cast(pl.Float64).fill_null(0.0).to_numpy() * self.loss_share
        return Decisions(scores >= self.flagged_from, losses, self.review)


def encode(reference: Reference) -> bytes:
    """The file's bytes."""
    return msgspec.json.format(msgspec.json.encode(reference), indent=1)


def decode(data: bytes, of: str) -> Reference:
    """Read the file of the version that `of` names. Raises `Damaged`."""
    try:
        return msgspec.json.decode(data, type=Reference)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Damaged(f"{FILE} of {of} cannot be read: {error}; train it again") from None
