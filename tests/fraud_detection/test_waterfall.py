"""The waterfall: a picture that says what the numbers say."""

import io

import numpy as np
import pytest
from PIL import Image

from modules.fraud_detection.src.explainability import waterfall
from modules.fraud_detection.src.explainability.reasons import Reason

RED, BLUE = (194, 65, 59), (53, 102, 168)


def picture(contributions: list[float]) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    reasons = [
        Reason(f"f{place}", 1.0, part, "A feature is 1: raises the risk") for place, part in enumerate(contributions)
    ]
    data = waterfall.draw(reasons, -5.0, -5.0 + sum(contributions), 0.5)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def pixels(image: "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]", color: tuple[int, int, int]) -> int:
    return int((image == np.array(color)).all(axis=2).sum())


def test_bars_are_as_long_as_contributions_and_colored_by_direction() -> None:
    image = picture([3.0, -1.0])
    assert pixels(image, RED) / pixels(image, BLUE) == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("contributions", [[], [0.0], [1e-9] * 40, [1e6, -1e6], [0.1] * 11])
def test_any_explanation_can_be_drawn(contributions: list[float]) -> None:
    assert picture(contributions).std() > 5


def test_the_same_explanation_is_the_same_picture() -> None:
    assert (picture([1.0, -0.5]) == picture([1.0, -0.5])).all()
