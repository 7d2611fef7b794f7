"""The picture of one explanation: from the base value, feature by feature, to the score. A PNG, drawn with Pillow."""

import io
import math
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

from modules.fraud_detection.src.explainability.reasons import Reason

INK, MUTED, LINE, RAISES, LOWERS, PAPER = "#1f2933", "#7b8794", "#d9dee4", "#c2413b", "#3566a8", "#ffffff"
WIDTH, ROW, TOP, BOTTOM, LEFT, RIGHT = 1160, 44, 96, 70, 560, 90
SHOWN = 10
SCALE = 2
"""The picture is drawn this much larger, and so is sharp on every screen."""


def draw(reasons: Sequence[Reason], base: float, margin: float, probability: float) -> bytes:
    """Draw the strongest reasons, given strongest first, and the others as one; values in log odds."""
    shown, others = list(reasons[:SHOWN]), reasons[SHOWN:]
    parts = [(_wrapped(reason.text), reason.contribution) for reason in shown]
    if others:
        parts.append(([f"{len(others)} other features"], math.fsum(reason.contribution for reason in others)))
    steps = [base]
    for _, contribution in parts:
        steps.append(steps[-1] + contribution)
    height = TOP + ROW * len(parts) + BOTTOM
    image = Image.new("RGB", (WIDTH * SCALE, height * SCALE), PAPER)
    pen = ImageDraw.Draw(image)
    low, high = min(*steps, margin), max(*steps, margin)
    width = max(high - low, 1e-9)

    def across(value: float) -> float:
        return LEFT + (value - low) / width * (WIDTH - LEFT - RIGHT)

    _text(pen, 24, 20, f"Fraud probability {probability:.1%}", 22, INK)
    _text(pen, 24, 54, "What moved the score from the average transaction's, in log odds", 14, MUTED)
    _level(pen, across(base), height, f"average {base:+.2f}", below=True)
    _level(pen, across(margin), height, f"this transaction {margin:+.2f}", below=False)
    for place, ((lines, contribution), start, end) in enumerate(zip(parts, steps[:-1], steps[1:], strict=True)):
        y = TOP + ROW * place
        for number, line in enumerate(lines):
            _text(pen, LEFT - 28, y + ROW / 2 - 17 * len(lines) / 2 + 17 * number, line, 13, INK, right=True)
        color = RAISES if contribution > 0 else LOWERS
        left, right = sorted((across(start), across(end)))
        _box(pen, left, y + 10, max(right, left + 1), y + ROW - 10, color)
        said = f"{contribution:+.2f}"
        _box(pen, right + 3, y + 12, right + 8 + _font(13).getlength(said) / SCALE, y + ROW - 12, PAPER)
        _text(pen, right + 6, y + ROW / 2 - 8, said, 13, color)
        if place + 1 < len(parts):
            _box(pen, across(end) - 0.5, y + ROW - 10, across(end) + 0.5, y + ROW + 10, LINE)
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return data.getvalue()


def _wrapped(text: str, longest: int = 74) -> list[str]:
    """Break a sentence into at most two lines."""
    sentence = text.rsplit(":", 1)[0]
    if len(sentence) <= longest:
        return [sentence]
    half = sentence.find(" ", len(sentence) // 2)
    place = half if 0 < half <= longest else sentence.rfind(" ", 0, longest)
    rest = sentence[place + 1 :]
    return [sentence[:place], rest if len(rest) <= longest else rest[: longest - 1] + "…"]


def _level(pen: ImageDraw.ImageDraw, x: float, height: int, said: str, below: bool) -> None:
    for y in range(TOP - 6, height - BOTTOM + 12, 8):
        _box(pen, x - 0.5, y, x + 0.5, y + 4, MUTED)
    wide = _font(13).getlength(said) / SCALE
    left = min(max(x - wide / 2, LEFT - 40), WIDTH - wide - 16)
    _text(pen, left, height - BOTTOM + (38 if below else 16), said, 13, MUTED if below else INK)


def _box(pen: ImageDraw.ImageDraw, left: float, top: float, right: float, bottom: float, color: str) -> None:
    pen.rectangle([round(left * SCALE), round(top * SCALE), round(right * SCALE), round(bottom * SCALE)], fill=color)


def _text(pen: ImageDraw.ImageDraw, x: float, y: float, said: str, size: int, color: str, right: bool = False) -> None:
    font = _font(size)
    start = x * SCALE - (font.getlength(said) if right else 0)
    pen.text((start, y * SCALE), said, fill=color, font=font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size * SCALE)  # type: ignore[return-value]
