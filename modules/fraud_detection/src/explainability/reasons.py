"""Reasons in plain words: what a feature says of a transaction, and whether that raises or lowers the risk."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.explainability import phrases, sentences
from modules.fraud_detection.src.explainability.sentences import OUTCOME, Say, Value, Values
from modules.fraud_detection.src.features.declaration import TIME_KINDS, Declaration, Row, Window, gap_name, reach

EXTREMES = {"min": "smallest", "max": "largest"}
LEVELS = {"mean": "average", "sum": "total"}


@dataclass(frozen=True)
class Reason:
    """One feature's part in one score: its value, what it adds to the log odds, and a sentence."""

    feature: str
    value: Value
    contribution: float
    text: str


@dataclass(frozen=True)
class Noun:
    """What a feature is called: whose it is, if anybody's, and what; `brief` is said beside its own column."""

    whose: str
    what: str
    brief: str
    column: str

    @property
    def full(self) -> str:
        """With whose it is, or an article."""
        return f"{self.whose}'s {self.what}" if self.whose else f"the {self.what}"

    def beside(self, other: "Noun") -> str:
        """The same in a comparison, with no word said twice."""
        what = self.brief if self.column == other.column else self.what
        return f"{self.whose}'s {what}" if self.whose and self.whose != other.whose else f"the {what}"


class Words:
    """Knows how to say each feature of a declaration. `usual` gives the average of a feature over the training rows."""

    def __init__(self, declaration: Declaration, dataset: DataSet, usual: Mapping[str, float]) -> None:
        self._dataset, self._usual = dataset, usual
        self._nouns: dict[str, Noun] = {}
        self._say: dict[str, Say] = {}
        for window in declaration.windows:
            for length in window.lengths:
                for aggregate in window.aggregates:
                    self._name_window(window, aggregate, length)
        for entity in declaration.gaps:
            name, who = gap_name(entity), f"this {self._plain(entity)}"
            self._nouns[name] = Noun("", f"time since {who}'s previous transaction", "time", name)
            self._say[name] = sentences.gap(who, reach(declaration, entity))
        for row in declaration.rows:
            self._name_row(row)

    def reason(self, feature: str, values: Values, contribution: float) -> Reason:
        """Say what a feature says, given the values of all features by name."""
        value = values[feature]
        said = self._say[feature](value, values)
        direction = "raises" if contribution > 0 else "lowers" if contribution < 0 else "does not change"
        return Reason(feature, value, contribution, f"{said[0].upper()}{said[1:]}: {direction} the risk")

    def _name_window(self, window: Window, aggregate: str, length: str) -> None:
        name, who, of = window.name(aggregate, length), f"this {self._plain(window.entity)}", self._plain(window.of)
        when, usual = phrases.when(length, window.delay), self._usual.get(name)
        over_label = window.of == self._dataset.label.column
        if aggregate == "share":
            what = brief = f"share of fraud {when}"
            self._say[name] = sentences.share(who, when, window.name("count", length), usual)
        elif over_label or aggregate in ("count", "distinct"):
            kinds = {"sum": "known fraud", "count": OUTCOME if over_label else "transaction"}
            thing = kinds.get(aggregate, f"different {of}")
            what = brief = f"number of {phrases.plural(thing)} {when}"
            self._say[name] = sentences.counted(who, thing, when, usual)
        else:
            what = brief = f"{EXTREMES.get(aggregate)} {of} {when}"
            if aggregate in LEVELS:
                level, until = f"{phrases.adjective(length)} {LEVELS[aggregate]}", phrases.until(window.delay)
                what, brief = f"{level} {of}{until}", f"{level}{until}"
            self._say[name] = sentences.amount(f"{who}'s {what}", usual)
        self._nouns[name] = Noun(who, what, brief, window.of)

    def _name_row(self, row: Row) -> None:
        first, other = self._noun(row.of), self._noun(row.to or "").beside(self._noun(row.of))
        what: str = row.kind
        if row.kind in TIME_KINDS:
            say = sentences.moment(row.kind)
        elif row.kind == "ratio":
            what = f"ratio of {first.full} to {other}"
            say = sentences.compared(first.full, other, row.of, row.to or "", phrases.times)
        elif row.kind == "difference":
            what = f"difference between {first.full} and {other}"
            say = sentences.compared(first.full, other, row.of, row.to or "", phrases.apart)
        elif row.kind == "log":
            what, say = f"logarithm of {first.full}", sentences.amount(first.full, unfold=math.expm1)
        else:
            what, say = first.what, sentences.amount(first.full, self._usual.get(row.name))
        self._say[row.name] = say
        self._nouns[row.name] = Noun("", what, what, row.of)

    def _noun(self, name: str) -> Noun:
        """A feature's, or else a column's."""
        return self._nouns.get(name) or Noun("", self._plain(name), self._plain(name), name)

    def _plain(self, column: str) -> str:
        """A column in plain words: the amount by the part it plays, an entity without its `id`."""
        if column == self._dataset.amount:
            return "amount"
        words = phrases.name(column)
        return words.removesuffix(" id") if column in self._dataset.entities else words


def strongest(contributions: Sequence[float], top: int) -> list[int]:
    """The places of the `top` contributions that move the score most, strongest first."""
    return sorted(range(len(contributions)), key=lambda place: -abs(contributions[place]))[:top]
