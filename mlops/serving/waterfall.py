"""The picture of one explanation: from the base value, feature by feature, to the score. A PNG, drawn with Pillow."""

import io
import math
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

INK, MUTED, LINE, STRIPE, PAPER = "#1f2933", "#6b7785", "#b8c1cc", "#f5f7f9", "#ffffff"
RAISES, LOWERS = "#c2413b", "#3566a8"
WIDTH, ROW, TOP, BOTTOM, MARGIN = 1200, 46, 132, 56, 28
LEFT, RIGHT = 560, 96
"""Where the bars' area begins, and what stays free for numbers to the right of it."""
SHOWN = 10
SCALE = 2
"""The picture is drawn this much larger, and so is sharp on every screen."""


class Captions(NamedTuple):
    """What stands beside the bars: at the top, for bars to the left and to the right, at the base and at the end."""

    title: str
    about: str
    lowers: str
    raises: str
    base: str
    end: str


def draw(parts: Sequence[tuple[str, float]], base: float, margin: float, said: Captions) -> bytes:
    """Draw the strongest parts, given strongest first, and the others as one; values in log odds."""
    shown = list(parts[:SHOWN])
    if others := parts[SHOWN:]:
        together = math.fsum(contribution for _, contribution in others)
        shown.append((f"{len(others)} others" if len(others) > 1 else "1 other", together))
    steps = list(accumulate((contribution for _, contribution in shown), initial=base))
    canvas = _Canvas(len(shown), min(*steps, margin), max(*steps, margin))
    canvas.head(said)
    for place in range(0, len(shown), 2):
        canvas.stripe(place)
    canvas.level(base, f"{said.base} {_signed(base)}", TOP - 24)
    canvas.level(margin, f"{said.end} {_signed(margin)}", canvas.height - BOTTOM + 14)
    for place, ((sentence, contribution), (start, end)) in enumerate(zip(shown, pairwise(steps), strict=True)):
        canvas.sentence(place, sentence)
        canvas.bar(place, start, end, contribution)
        if place + 1 < len(shown):
            canvas.joint(place, end)
    return canvas.png()


class _Canvas:
    """Draws in points from the top left; a value between `low` and `high` lies across the bars' area."""

    def __init__(self, rows: int, low: float, high: float) -> None:
        self.height = TOP + ROW * rows + BOTTOM
        self._low, self._width = low, max(high - low, 1e-9)
        self._image = Image.new("RGB", (WIDTH * SCALE, self.height * SCALE), PAPER)
        self._pen = ImageDraw.Draw(self._image)

    def head(self, said: Captions) -> None:
        self._text(MARGIN, 22, _plain(said.title), 24, INK)
        self._text(MARGIN, 60, _plain(said.about), 14, MUTED)
        x = WIDTH - MARGIN
        for color, meaning in ((LOWERS, _plain(said.lowers)), (RAISES, _plain(said.raises))):
            x -= math.ceil(_wide(meaning, 14))
            self._text(x, 60, meaning, 14, MUTED)
            x -= 20
            self._box(x, 63, x + 12, 75, color, round_=2)
            x -= 22

    def stripe(self, place: int) -> None:
        self._box(0, TOP + ROW * place, WIDTH, TOP + ROW * (place + 1), STRIPE)

    def level(self, value: float, said: str, y: float) -> None:
        """Draw a dashed line at a value, with its name at `y`."""
        x, wide = self._across(value), _wide(said, 13)
        for top in range(TOP - 4, self.height - BOTTOM + 4, 8):
            self._box(x - 0.5, top, x + 0.5, top + 4, LINE)
        self._text(min(max(x - wide / 2, MARGIN), WIDTH - wide - MARGIN), y, said, 13, INK)

    def sentence(self, place: int, said: str) -> None:
        lines = _wrapped(said)
        for number, line in enumerate(lines):
            y = TOP + ROW * (place + 0.5) - 9 * len(lines) + 18 * number
            self._text(LEFT - 28 - _wide(line, 14), y, line, 14, INK)

    def bar(self, place: int, start: float, end: float, contribution: float) -> None:
        left, right = sorted((self._across(start), self._across(end)))
        y, color = TOP + ROW * place, RAISES if contribution > 0 else LOWERS if contribution < 0 else MUTED
        self._box(left, y + 11, max(right, left + 2), y + ROW - 11, color, round_=3)
        said, x = _signed(contribution), max(right, left + 2) + 8
        # The dashes of a level would strike the number through.
        self._box(x - 3, y + 13, x + _wide(said, 14) + 3, y + ROW - 13, PAPER if place % 2 else STRIPE)
        self._text(x, y + ROW / 2 - 9, said, 14, color)

    def joint(self, place: int, value: float) -> None:
        """Draw where one bar ends and the next begins."""
        x, y = self._across(value), TOP + ROW * (place + 1)
        self._box(x - 0.5, y - 11, x + 0.5, y + 11, LINE)

    def png(self) -> bytes:
        data = io.BytesIO()
        # Smaller would take five times as long, and a caller waits.
        self._image.save(data, "PNG", compress_level=1)
        return data.getvalue()

    def _across(self, value: float) -> float:
        return LEFT + (value - self._low) / self._width * (WIDTH - LEFT - RIGHT)

    def _box(self, left: float, top: float, right: float, bottom: float, color: str, round_: int = 0) -> None:
        corners = [round(left * SCALE), round(top * SCALE), round(right * SCALE) - 1, round(bottom * SCALE) - 1]
        self._pen.rounded_rectangle(corners, round_ * SCALE, fill=color)

    def _text(self, x: float, y: float, said: str, size: int, color: str) -> None:
        self._pen.text((x * SCALE, y * SCALE), said, fill=color, font=_font(size))


def _wrapped(said: str, widest: float = LEFT - 28 - MARGIN) -> list[str]:
    """Break a sentence into two lines where one is too short, of about the same length; cut what is longer still."""
    words = _plain(said).split()
    if _wide(" ".join(words), 14) <= widest:
        return [" ".join(words)]
    breaks = [(" ".join(words[:place]), " ".join(words[place:])) for place in range(1, len(words))]
    fitting = [lines for lines in breaks if _wide(lines[0], 14) <= widest]
    if not fitting:
        return [_cut(" ".join(words), widest)]
    first, second = min(fitting, key=lambda lines: max(_wide(line, 14) for line in lines))
    return [first, _cut(second, widest)]


def _cut(line: str, widest: float) -> str:
    if _wide(line, 14) <= widest:
        return line
    while line and _wide(f"{line}…", 14) > widest:
        line = line[:-1]
    return f"{line}…"


def _signed(value: float) -> str:
    return f"{value:+,.{2 if abs(value) < 1_000 else 0}f}"


def _plain(said: str) -> str:
    """The same in ASCII, all that the font has: letters without their accents, other signs as question marks."""
    apart = unicodedata.normalize("NFKD", said)
    return "".join(one for one in apart if not unicodedata.combining(one)).encode("ascii", "replace").decode()


def _wide(said: str, size: int) -> float:
    return _font(size).getlength(said) / SCALE


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size * SCALE)  # type: ignore[return-value]
