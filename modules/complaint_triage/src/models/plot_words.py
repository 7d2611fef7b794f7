"""Which words speak for which product: as a table, and as a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from modules.complaint_triage.src.features.words import Vector
from modules.complaint_triage.src.models.artifact import Artifact

matplotlib.use("Agg")

SHOWN = 8
ACROSS = 3
INK, FILL = "#1f2933", "#3566a8"

Telling = Mapping[str, Sequence[Mapping[str, Any]]]


def telling(artifact: Artifact, vectors: Sequence[Vector]) -> Telling:
    """For each product the words that speak for it most: their weight, over the mean of all products, as they stand.

    How they stand is the sum of their values in `vectors`, divided by how many there are.
    """
    stands = np.zeros(len(artifact.card.vocabulary.words))
    for vector in vectors:
        stands[vector.places] += vector.values / len(vectors)
    apart = (artifact.model.weights - artifact.model.weights.mean(axis=1, keepdims=True)) * stands[:, None]
    found = {}
    for place, product in enumerate(artifact.card.products):
        top = (-apart[:, place]).argsort(kind="stable")[:SHOWN]
        found[product] = [
            {"word": artifact.card.vocabulary.words[word], "contribution": float(apart[word, place])} for word in top
        ]
    return found


def draw(found: Telling, folder: Path) -> Path:
    """Draw the table into `folder`."""
    from matplotlib.figure import Figure

    down = math.ceil(len(found) / ACROSS)
    figure = Figure(figsize=(12, 0.6 + 2.5 * down), layout="constrained")
    panels = figure.subplots(down, ACROSS, squeeze=False).flatten()
    for panel, (product, top) in zip(panels, found.items(), strict=False):
        panel.barh([row["word"] for row in top], [row["contribution"] for row in top], color=FILL, height=0.68)
        panel.invert_yaxis()
        panel.set_title(product, loc="left", color=INK, fontsize=11)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelsize=8)
        panel.locator_params(axis="x", nbins=4)
    for panel in panels[len(found) :]:
        panel.set_visible(False)
    figure.suptitle("The words that speak for each product, in log odds of an average complaint", x=0.01, ha="left")
    path = folder / "words.png"
    figure.savefig(path, dpi=140)
    return path
