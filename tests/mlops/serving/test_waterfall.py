"""The waterfall: a picture that says what the numbers say."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlops.serving import waterfall
from mlops.serving.waterfall import Captions

CAPTIONS = Captions("Risk 2.0%", "What moved it", "lowers it", "raises it", "average", "this one")
RED, BLUE = (194, 65, 59), (53, 102, 168)


def picture(contributions: list[float]) -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]":
    parts = [("A feature is 1", part) for part in contributions]
    data = waterfall.draw(parts, -5.0, -5.0 + sum(contributions), CAPTIONS)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def of_text(text: str) -> bytes:
    return waterfall.draw([(text, 1.0)], -5.0, -4.0, CAPTIONS)


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


@given(st.text(max_size=300))
@settings(max_examples=40, deadline=None)
def test_any_text_can_be_drawn(text: str) -> None:
    assert of_text(text).startswith(b"\x89PNG")


def test_what_the_font_does_not_have_is_drawn_as_what_it_has() -> None:
    assert of_text("Zürich\n café") == of_text("Zurich cafe")
    assert of_text("東京") == of_text("??") != of_text("?")


def test_a_sentence_stays_between_the_margin_and_the_bars() -> None:
    image = np.asarray(Image.open(io.BytesIO(of_text("very long " * 60))).convert("RGB"))
    row = image[(waterfall.TOP + 4) * waterfall.SCALE : (waterfall.TOP + waterfall.ROW - 4) * waterfall.SCALE]
    margin, first = waterfall.MARGIN * waterfall.SCALE, waterfall.LEFT * waterfall.SCALE
    for free in (row[:, : margin - 4], row[:, first - 50 : first - 4]):
        assert len(np.unique(free.reshape(-1, 3), axis=0)) == 1
    assert row[:, margin : first - 50].std() > 5


def test_numbers_of_the_others_are_added_up_in_one_bar() -> None:
    shown = [1.0] * waterfall.SHOWN
    assert pixels(picture([*shown, 0.5, 0.5, -2.0]), BLUE) > pixels(picture([*shown, 0.5, 0.5]), BLUE)
