"""What a model sees of a text: how much its words weigh. One function for a table and a request."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mlops.errors import BadData
from mlops.values import Group

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
MASKED = re.compile(r"x+")
"""What was blackened in published complaints."""

Places = NDArray[np.int64]
Floats = NDArray[np.float64]


class Learning(Group):
    """Which words are learned."""

    most: int = Field(5_000, gt=0, description="So many at most, those that stand in the most texts.")
    least: int = Field(3, gt=0, description="A word must stand in so many texts.")


class Vocabulary(Group):
    """The words that are known, and what each weighs: the rarer the more."""

    words: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Vector:
    """A text as it is seen: the places of its known words (n,), their share of it (n,), a vector of length 1.

    `counts` (n,) is how often each stands there; of all `total` words `unknown` are not in the vocabulary.
    """

    places: Places
    values: Floats
    counts: Places
    total: int
    unknown: int

    @property
    def unknown_share(self) -> float:
        """The share of words that are not known; 0 of none."""
        return self.unknown / self.total if self.total else 0.0


class Words:
    """Looks texts up in a vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._places = {word: place for place, word in enumerate(vocabulary.words)}
        self._weights = np.array(vocabulary.weights)

    def vector(self, text: str) -> Vector:
        """See a text: a word that stands there n times weighs 1 + ln n times its weight."""
        counted = Counter(split(text))
        known = sorted((self._places[word], count) for word, count in counted.items() if word in self._places)
        places = np.array([place for place, _ in known], np.int64)
        counts = np.array([count for _, count in known], np.int64)
        values = (1 + np.log(counts)) * self._weights[places]
        length = math.sqrt(float(values @ values)) or 1.0
        total = counted.total()
        return Vector(places, values / length, counts, total, total - int(counts.sum()))


def split(text: str) -> list[str]:
    """The words of a text, small, without what was blackened."""
    return [word for word in WORD.findall(text.lower()) if not MASKED.fullmatch(word)]


def learn(texts: Sequence[str], words: Learning) -> Vocabulary:
    """Choose the words of texts, and weigh each by ln((1 + texts) / (1 + texts with it)) + 1. Raises `BadData`."""
    standing = Counter(word for text in texts for word in set(split(text)))
    usual = [(count, word) for word, count in standing.items() if count >= words.least]
    if not usual:
        raise BadData(f"no word stands in {words.least} of {len(texts):,} texts; give more texts or lower words.least")
    chosen = sorted(sorted(usual, key=lambda pair: (-pair[0], pair[1]))[: words.most], key=lambda pair: pair[1])
    weights = tuple(math.log((1 + len(texts)) / (1 + count)) + 1 for count, _ in chosen)
    return Vocabulary(words=tuple(word for _, word in chosen), weights=weights)
