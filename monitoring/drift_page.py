"""A drift report as one page that needs nothing else: the verdict, what moved and how, what it does to performance."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from monitoring import drift_chart, drift_report
from monitoring.drift_report import (
    DRIFTED,
    STABLE,
    TOO_FEW,
    Bin,
    ColumnDrift,
    ConceptDrift,
    DriftReport,
    Performance,
    Verdict,
    spoken,
)
from monitoring.drift_style import STYLE

DRAWN = 24
"""Columns that are drawn at most; the table holds all."""
QUIET = 4
"""Columns that are drawn where none has drifted."""
MARKS = {DRIFTED: ("drifted", "▲ drifted"), STABLE: ("stable", "● stable"), TOO_FEW: ("few", "○ too few rows")}
NONE = '<span class="faint">–</span>'
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write(report: Mapping[str, Any]) -> str:
    """Write a stored report as a page that loads nothing and runs nothing. Raises `BadData`."""
    read = drift_report.read(report)
    columns = sorted(read.columns, key=_urgency)
    body = "".join(
        [_head(read), _tiles(read), _performance(read), _meaning(read.concept), _charts(read, columns), _table(columns)]
    )
    title = f"{escape(read.name)} version {read.version}: {escape(read.headline)}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _urgency(column: ColumnDrift) -> tuple[bool, float]:
    """Drifted columns first, then those that moved most."""
    return column.verdict != DRIFTED, -(column.psi or 0.0)


def _head(report: DriftReport) -> str:
    facts = {
        "Model": f"{report.name}, version {report.version}",
        "Rows": f"{report.rows:,}",
        "From": f"{report.since:%Y-%m-%d %H:%M}",
        "Until": f"{report.until:%Y-%m-%d %H:%M}",
        "Trained on snapshot": report.snapshot,
        "Check": f"number {report.look} of this version",
    }
    told = "".join(f"<div><dt>{name}</dt><dd>{escape(fact)}</dd></div>" for name, fact in facts.items())
    return f"{_mark(report.verdict)}<h1>{escape(report.headline)}</h1><dl>{told}</dl>"


def _tiles(report: DriftReport) -> str:
    tiles = []
    drifted = sum(column.verdict == DRIFTED for column in report.columns)
    verdict = drift_report.conclude(report.columns, None, None, None)[0]
    tiles.append(_tile("Columns", verdict, f"{drifted} of {len(report.columns)}", "have drifted from training"))
    if score := report.prediction:
        tiles.append(_tile("Score", score.verdict, f"PSI {_number(score.psi, '.3f')}", "of the scores given"))
    if label := report.label:
        shares = f"{_percent(label.share_then)} → {NONE if label.share_now is None else _percent(label.share_now)}"
        tiles.append(_tile("Positives", label.verdict, shares, f"of {label.labels:,} matured labels"))
    if concept := report.concept:
        told = f"of expected positives misplaced, by {concept.labels:,} labels"
        tiles.append(_tile("Meaning", concept.verdict, _number(concept.misplaced, ".1%"), told))
    return f'<section class="row">{"".join(tiles)}</section>'


def _tile(name: str, verdict: Verdict, value: str, told: str) -> str:
    return (
        f'<article class="tile"><header><h3>{name}</h3>{_mark(verdict)}</header><strong>{value}</strong>'
        f"<small>{told}</small></article>"
    )


def _performance(report: DriftReport) -> str:
    estimated = report.estimated
    if not (report.reference or estimated or report.realised):
        return ""
    known = (report.reference, estimated.expected if estimated else None, report.realised)
    rows = []
    for name, field, form in (
        ("Rows", "rows", ",.0f"), ("Positives", "positives", ",.0f"), ("Average precision", "average_precision", ".3f"),
        ("Area under the ROC curve", "roc_auc", ".3f"), ("Precision of decisions", "precision", ".3f"),
        ("Recall of decisions", "recall", ".3f"), ("Cost per 1,000 rows", "cost", ",.2f"),
    ):  # fmt: skip
        cells = [_number(_value(each, field), form) for each in known]
        if estimated and field != "rows":
            low, high = (_number(_value(end, field), form) for end in (estimated.low, estimated.high))
            cells[1] += f' <span class="faint">{low} to {high}</span>'
        rows.append([name, *cells])
    told = (
        "Estimated: from what the scores promise, before labels are known; beside it, where 95 % of outcomes would lie "
        "by chance. Realised: by the labels that matured. Where it lies far outside, look at what the score means."
    )
    return _section("Performance", told, _rows(["", "At training", "Estimated now", "Realised now"], rows))


def _value(performance: Performance | None, field: str) -> float | None:
    return None if performance is None else getattr(performance, field)


def _meaning(concept: ConceptDrift | None) -> str:
    if concept is None or not concept.labels:
        return ""
    judged = [bin_ for bin_ in (*concept.bins, concept.whole) if bin_.rows]
    names = [_range(bin_.low, bin_.high) for bin_ in judged]
    shares = [(bin_.expected / bin_.rows, bin_.positives / bin_.rows) for bin_ in judged]
    bins = [Bin(name, *pair) for name, pair in zip(names, shares, strict=True)][:-1]
    rows = [
        [name, f"{bin_.rows:,}", _percent(promised), _percent(seen), _chance(bin_.chance)]
        for name, bin_, (promised, seen) in zip(names, judged, shares, strict=True)
    ]
    told = (
        "The share of positives among matured labels, from low scores to high: what the score promised, and what came."
    )
    chart = drift_chart.upright(bins, "Share of positives by score, promised and seen")
    card = f"<article>{_key('promised', 'seen')}{chart}</article>"
    table = _rows(["Score", "Labels", "Promised", "Seen", "Chance"], rows)
    return _section("What the score means", told, f'<section class="charts">{card}{table}</section>')


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "all" if low == high else f"up to {high:.3g}" if low is None else f"over {low:.3g}"
    return f"{low:.3g} – {high:.3g}"


def _charts(report: DriftReport, columns: Sequence[ColumnDrift]) -> str:
    drifted = [column for column in columns if column.verdict == DRIFTED]
    shown = [column for column in drifted[:DRAWN] or columns[:QUIET] if column.bins]
    if report.prediction and report.prediction.bins:
        shown.insert(0, report.prediction)
    if not shown:
        return ""
    told = (
        "Shares of the rows that are not empty. Bins of numbers are cut so that each held a twentieth of the training "
        "rows where the values allow it: without a change, blue stands as high as grey."
    )
    cards = "".join(_chart(column) for column in shown)
    left = f"<p>{len(drifted) - DRAWN} more are in the table.</p>" if len(drifted) > DRAWN else ""
    key = _key("then, in training", "now")
    return _section("Then and now", told, f'{key}<section class="charts">{cards}</section>{left}')


def _chart(column: ColumnDrift) -> str:
    draw = drift_chart.upright if column.kind == "number" else drift_chart.lying
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in column.reasons)
    return (
        f"<article><header><h3>{escape(column.name)}</h3>{_mark(column.verdict)}</header><ul>{reasons}</ul>"
        f"{draw(column.bins, f'{column.name}, then and now')}</article>"
    )


def _table(columns: Sequence[ColumnDrift]) -> str:
    names = ["Column", "", "PSI", "Chance", "KS", "Moved (std)", "Mean", "Empty", "New levels"]
    told = (
        "Drifted is a change that is large and that chance would not bring. PSI is the population stability index, KS "
        "the largest distance of the cumulated shares; chance is corrected for the number of columns."
    )
    rows = [
        [
            escape(column.name), _mark(column.verdict), _number(column.psi, ".3f"), _chance(column.chance),
            _number(column.kolmogorov_smirnov, ".3f"), _number(column.wasserstein, ".2f"), _means(column),
            _change(column.null_share_then, column.null_share_now), _number(column.new_share, ".1%"),
        ]
        for column in columns
    ]  # fmt: skip
    return _section("All columns", told, _rows(names, rows))


def _chance(chance: float | None) -> str:
    return "&lt; 0.0001" if chance is not None and chance < 0.0001 else _number(chance, ".4f")


def _means(column: ColumnDrift) -> str:
    then, now = (spoken(moments.mean) if moments else NONE for moments in (column.then, column.now))
    return NONE if then == now == NONE else f"{then} → {now}"


def _change(then: float, now: float) -> str:
    return NONE if then == now == 0 else f"{then:.1%} → {now:.1%}"


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)


def _percent(share: float) -> str:
    """Shares of frauds are small: digits count, not places."""
    return f"{100 * share:.3g}%"


def _mark(verdict: Verdict) -> str:
    kind, said = MARKS[verdict]
    return f'<span class="mark {kind}">{said}</span>'


def _key(then: str, now: str) -> str:
    return f'<div class="key"><span><i class="then"></i>{then}</span><span><i class="now"></i>{now}</span></div>'


def _section(name: str, told: str, content: str) -> str:
    return f"<h2>{name}</h2><p>{told}</p>{content}"


def _rows(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
