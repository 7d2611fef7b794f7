"""Histograms then and now as SVG, to stand in a page whose style sheet colours `then`, `now`, `line` and text."""

from collections.abc import Sequence
from html import escape

from monitoring.drift_report import Bin

WIDTH, HEIGHT = 480, 150
TOP, FOOT = 16, 20
"""Room for the number above the highest bar, and for the names below the axis."""
ROW, NAMES, ENDS = 26, 130, 46
"""The height of a level, the width of its name, and of the number after its bar."""
LETTERS = 20


def upright(bins: Sequence[Bin], about: str) -> str:
    """Draw bins of numbers in their order: a wide bar for then, a narrow one before it for now."""
    highest, step, floor = _highest(bins), WIDTH / max(len(bins), 1), HEIGHT - FOOT
    parts = [f'<line class="line" x1="0" x2="{WIDTH}" y1="{floor}" y2="{floor}"/>']
    for place, bin_ in enumerate(bins):
        for kind, share, wide in (("then", bin_.then, 0.86), ("now", bin_.now, 0.46)):
            tall = share / highest * (floor - TOP)
            x = step * (place + (1 - wide) / 2)
            parts.append(_box(kind, x, floor - tall, step * wide, tall, _told(bin_)))
    peak = max(range(len(bins)), key=lambda place: max(bins[place].then, bins[place].now), default=0)
    parts.append(_text("middle", step * (peak + 0.5), TOP - 5, f"{highest:.0%}"))
    named = sorted({0, len(bins) // 2, len(bins) - 1}) if bins else []
    parts += [_text(*_side(place, len(bins), step), HEIGHT - 5, bins[place].label) for place in named]
    return _drawing(HEIGHT, about, parts)


def lying(bins: Sequence[Bin], about: str) -> str:
    """Draw bins of levels one below the other: a bar for then, and one for now below it."""
    highest, room = _highest(bins), WIDTH - NAMES - ENDS
    parts = []
    for place, bin_ in enumerate(bins):
        y = ROW * place + 4
        parts.append(_text("end", NAMES - 8, y + 13, bin_.label))
        parts.append(_box("then", NAMES, y, room * bin_.then / highest, 8, _told(bin_)))
        parts.append(_box("now", NAMES, y + 9, room * bin_.now / highest, 8, _told(bin_)))
        end = NAMES + room * max(bin_.then, bin_.now) / highest
        parts.append(_text("start", end + 6, y + 13, f"{bin_.now:.1%}"))
    return _drawing(ROW * len(bins) + 4, about, parts)


def _highest(bins: Sequence[Bin]) -> float:
    return max((max(bin_.then, bin_.now) for bin_ in bins), default=0) or 1


def _told(bin_: Bin) -> str:
    return f"{bin_.label}: {bin_.then:.1%} then, {bin_.now:.1%} now"


def _side(place: int, size: int, step: float) -> tuple[str, float]:
    """Anchor a name below its bin, or, at the ends, to the side of the picture, so that it stays inside."""
    if size == 1 or 0 < place < size - 1:
        return "middle", step * (place + 0.5)
    return ("end", WIDTH) if place else ("start", 0)


def _box(kind: str, x: float, y: float, wide: float, tall: float, told: str) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
    return f'<rect class="{kind}" {where} rx="1"><title>{escape(told)}</title></rect>'


def _text(anchor: str, x: float, y: float, said: str) -> str:
    short = said if len(said) <= LETTERS else f"{said[: LETTERS - 1]}…"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(short)}</text>'


def _drawing(height: int, about: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(about)}">'
    return f"{head}{''.join(parts)}</svg>"
