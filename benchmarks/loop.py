"""python -m benchmarks.loop: how well the loop watches, over many simulated worlds, by the clock of the worlds.

How often the drift check alarms where nothing changed, and how soon where something did; what a bad candidate decides
before it is taken back, and what becomes of a good one; how far the estimate without labels is off. Worlds, models and
settings are those of `make demo`; nothing is served and nothing journalled, and checks and verdicts fall at midnight.
"""

import argparse
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import binomtest

from mlops.releasing.release import Flags, Plan, Stage, Trial, judge
from mlops.traffic import PRODUCTION, Traffic
from mlops.values import seconds
from modules.fraud_detection import settings
from modules.fraud_detection.history import micro
from modules.fraud_detection.settings import Settings
from modules.fraud_detection.src.data import synthetic
from modules.fraud_detection.src.features import build_features, declaration
from modules.fraud_detection.src.models import fit, split
from modules.fraud_detection.src.models.evaluate import choose_thresholds, clumping, costs
from modules.fraud_detection.src.models.fit import Fitted
from modules.fraud_detection.src.models.split import Split
from modules.fraud_detection.src.router.traffic_split import Routing, TrafficSplit
from modules.fraud_detection.src.utils.metrics import Ints
from monitoring import drift, performance
from monitoring.drift_report import DRIFTED
from monitoring.profile import profile
from monitoring.reference import Reference

DEMO, HANDBOOK = (settings.FILE.with_name(name) for name in ("demo.yaml", "handbook.yaml"))
DAY = timedelta(days=1)
LIVE, CHANGE, LATER, AFTER, END = 90, 105, 110, 121, 150
"""Days: the first version answers; what changes does; trials begin in a world without and with change; the end."""
CHANGES: Mapping[str, Mapping[str, int]] = {
    "prices and hours": {"drift_from": CHANGE},
    "a new fraud pattern": {"new_pattern_from": CHANGE},
    "both": {"drift_from": CHANGE, "new_pattern_from": CHANGE},
}
FEATURES, SCORE, LABELS, MEANING = PARTS = ("features", "score", "labels", "what the score means")
SAME, EQUAL, BETTER = "good: same model again", "good: same recipe, later data", "good: learned after a change"
LOST, FLAGS, MIXED, FAILS, SLOW = (
    "bad: half of the frauds lost", "bad: flags 10 x the capacity", "bad: 30 % of scores shuffled",
    "bad: fails on 5 %", "bad: slow on 10 %",
)  # fmt: skip
KINDS = (SAME, EQUAL, BETTER, LOST, FLAGS, MIXED, FAILS, SLOW)
SHUFFLED, FAILING, SLOWED = 0.3, 0.05, 0.1
USUAL, PATIENT = 5_000, Plan().patience
WEEKS, FIRST, EVERY = 4, 60, 14
"""On given data a version is trained every two weeks from this day on, and watched for so many weeks."""
WIDE = Console(width=160)


@dataclass(frozen=True)
class World:
    """Transactions with their features, and when each label became known."""

    settings: Settings
    table: pl.DataFrame
    start: datetime

    @classmethod
    def of(cls, table: pl.DataFrame, read: Settings) -> "World":
        """Make the features of a table of transactions."""
        built = build_features.build(table, read.data, read.features)
        known = read.data.known_at().alias(read.data.known_at_column)
        first = table[read.data.time.column].dt.truncate("1d").min()
        return cls(read, table.with_columns(*built.drop(read.data.id_column), known), first)  # type: ignore[arg-type]

    def at(self, day: float) -> datetime:
        """When a day begins."""
        return self.start + day * DAY

    def between(self, since: float, until: float) -> pl.DataFrame:
        """The rows from a day to before another."""
        time = pl.col(self.settings.data.time.column)
        return self.table.filter((time >= self.at(since)) & (time < self.at(until)))

    def known(self, day: int) -> pl.DataFrame:
        """What retraining takes as a day begins, with the labels known by then."""
        words, label = self.settings.retraining, self.settings.data.label.column
        until = day - seconds(words.maturity) / 86_400
        in_time = pl.col(self.settings.data.known_at_column) <= self.at(day)
        rows = self.between(until - seconds(words.window) / 86_400, until)
        return rows.with_columns(pl.when(in_time).then(pl.col(label)))


@dataclass(frozen=True)
class Version:
    """A model, from which score on it flags, and what is kept of its training to watch it by."""

    fitted: Fitted
    review: float
    profile: Mapping[str, Any]
    reference: Reference


class Error(NamedTuple):
    """A week's performance without labels, with them, in the held-out rows, and whether the interval held it."""

    estimated: float
    realised: float
    before: float
    inside: bool


class Course(NamedTuple):
    """What became of a trial: its end, why, after how many days, what the candidate decided, and what it costs.

    `share` is of all decisions while it ran; `ratio` is the candidate's true cost over production's, for all the days
    that the trial could have had.
    """

    step: str
    why: str
    days: int
    decided: int
    share: float
    ratio: float


@dataclass
class Results:
    """What was measured over all worlds."""

    calm: list[list[frozenset[str]]]
    changed: dict[str, list[list[frozenset[str]]]]
    courses: dict[str, list[Course]]
    errors: dict[str, list[Error]]


def main() -> None:
    """Measure world after world, and print what came of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--data", type=Path, help="the handbook's transactions, for the estimate without labels")
    words = parser.parse_args()
    results = Results([], {name: [] for name in CHANGES}, {kind: [] for kind in KINDS}, {})
    for seed in track(range(words.seeds), "worlds", console=Console(stderr=True)):
        measure(seed, results)
    show_calm(results.calm)
    show_delays(results.changed)
    show_courses(results.courses)
    if words.data is not None:
        read = settings.read(HANDBOOK, "local", {})
        world = World.of(pl.read_parquet(words.data).select(read.data.columns), read)
        gather(results.errors, "the handbook's data", handbook_errors(world))
    show_errors(results.errors)


def measure(seed: int, results: Results) -> None:
    """Watch one world as it is, and as it is with each change."""
    calm = simulated(seed, {})
    production = trained(calm.between(0, LIVE), calm.settings, calm.settings.split)
    results.calm.append(checked(calm, production))
    gather(results.errors, "the simulation", errors(calm, production, LIVE, (END - LIVE) // 7))
    for kind in KINDS:
        if kind != BETTER:
            results.courses[kind].append(tried(kind, calm, production, LATER, seed))
    for name, change in CHANGES.items():
        world = simulated(seed, change)
        production = trained(world.between(0, LIVE), world.settings, world.settings.split)
        results.changed[name].append(checked(world, production))
        if name == "both":
            results.courses[BETTER].append(tried(BETTER, world, production, AFTER, seed))


def simulated(seed: int, change: Mapping[str, int]) -> World:
    """The world of the demo with another seed and other changes."""
    read = settings.read(DEMO, "local", {})
    size = {"seed": seed, "days": END, "drift_from": None, "new_pattern_from": None}
    return World.of(synthetic.simulate(read.simulation.model_copy(update={**size, **change})), read)


def trained(rows: pl.DataFrame, read: Settings, words: Split) -> Version:
    """Train as the pipeline does."""
    dataset, times = read.data, rows[read.data.time.column]
    periods = split.periods(words, times.min(), times.max())  # type: ignore[arg-type]
    features = declaration.features(read.features, dataset)
    choosing, valid, learned, unseen = (
        fit.labelled(rows, period, dataset)
        for period in (periods.choose_train, periods.valid, periods.train, periods.test)
    )
    chosen = fit.choose(choosing, valid, features, read.model.recipes, dataset)
    review = choose_thresholds(valid, chosen.scores, dataset, read.evaluation).review
    fitted = fit.fit(learned, features, chosen.recipe, dataset)
    scores, labels, share = fitted.score(unseen), fit.labels(unseen, dataset), fit.labels(learned, dataset).mean()
    later = rows.filter((times >= periods.train.until) & (times < periods.test.since))
    portrait = profile(pl.DataFrame({SCORE: fitted.score(later if later.height else unseen)}), [SCORE])
    said = Reference(
        score=SCORE, flagged_from=review, review=read.evaluation.review_cost, amount=dataset.amount,
        loss_share=read.evaluation.loss_share, loss_fixed=read.evaluation.loss_fixed, label_share=float(share),
        label_rows=learned.height, clumping=clumping(learned, dataset),
        calibration=performance.calibrate(scores, labels), performance=performance.realised(scores, labels),
    )  # fmt: skip
    return Version(fitted, review, profile(learned, fitted.encoder.features) | portrait, said)


def checked(world: World, version: Version) -> list[frozenset[str]]:
    """The parts that each daily check finds drifted, of a version that stays in production from the first day on."""
    mine = world.between(LIVE, END)
    mine = mine.with_columns(pl.Series(SCORE, version.fitted.score(mine)))
    return [frozenset(_drifted(world, version, mine, day)) for day in range(LIVE + 1, END + 1)]


def _drifted(world: World, version: Version, mine: pl.DataFrame, day: int) -> Iterator[str]:
    words, dataset, look = world.settings.monitoring, world.settings.data, day - LIVE
    window, maturity = (seconds(length) / 86_400 for length in (words.window, words.maturity))
    time, until = pl.col(dataset.time.column), day - maturity
    rows = mine.filter((time >= world.at(day - window)) & (time < world.at(day)))
    seen = (rows if look >= window else rows.clear()).select(list(version.profile))
    *columns, prediction = drift.compare(version.profile, seen, words.drift, look)
    matured = mine.filter(
        (time >= world.at(until - window)) & (time < world.at(until)),
        pl.col(dataset.known_at_column) <= world.at(day),
    )
    labels, said = fit.labels(matured, dataset), version.reference
    scores = matured[SCORE].to_numpy()
    known = int(labels.sum()), labels.size
    share = drift.label_drift(said.label_share, said.label_rows, *known, words.drift, look, said.clumping)
    concept = performance.concept_drift(said.calibration, scores, labels, words.drift, look, said.clumping)
    if any(column.verdict == DRIFTED for column in columns):
        yield FEATURES
    yield from (
        name for name, part in ((SCORE, prediction), (LABELS, share), (MEANING, concept)) if part.verdict == DRIFTED
    )


def errors(world: World, version: Version, since: int, weeks: int) -> Iterator[tuple[str, Error]]:
    """The estimate without labels beside the truth, week by week."""
    said, dataset = version.reference, world.settings.data
    rows = [world.between(since + 7 * week, since + 7 * week + 7) for week in range(-1, weeks)]
    performances = []
    for mine in rows:
        scores = version.fitted.score(mine)
        decisions = said.decisions(scores, None if dataset.amount is None else mine[dataset.amount])
        found = performance.estimate(said.calibration, scores, decisions)
        performances.append((found, performance.realised(scores, fit.labels(mine, dataset), decisions)))
    _, before = performances[0]  # the last week before, on which the calibration was learned
    for name in ("average_precision", "cost"):
        for found, truth in performances[1:]:
            low, high, true = getattr(found.low, name), getattr(found.high, name), getattr(truth, name)
            yield name, Error(getattr(found.expected, name), true, getattr(before, name), low <= true <= high)


def handbook_errors(world: World) -> Iterator[tuple[str, Error]]:
    """The errors of versions that were trained at different times, on the weeks after each."""
    days = world.table[world.settings.data.time.column].dt.date().n_unique()
    for day in range(FIRST, days - 7 * WEEKS, EVERY):
        version = trained(world.between(0, day), world.settings, world.settings.split)
        yield from errors(world, version, day, WEEKS)


def gather(found: dict[str, list[Error]], of: str, more: Iterator[tuple[str, Error]]) -> None:
    """Put errors to their likes."""
    for name, error in more:
        found.setdefault(f"{name.replace('_', ' ')}, {of}", []).append(error)


def tried(kind: str, world: World, production: Version, begin: int, seed: int) -> Course:
    """Put a candidate of some kind on trial."""
    draw, plan = np.random.default_rng(seed), world.settings.release.model_copy(update={"patience": PATIENT})
    dataset, words = world.settings.data, world.settings.evaluation
    rows = world.between(begin, begin + seconds(PATIENT) / 86_400)
    candidate = production if kind == SAME else _candidate(kind, world, begin)
    scores, review = candidate.fitted.score(rows).astype(np.float64), candidate.review
    before = production.fitted.score(rows).astype(np.float64)
    if kind == FLAGS:
        recent = np.sort(candidate.fitted.score(world.between(begin - 7, begin)))
        review = float(recent[-10 * 7 * words.reviews_per_day])
    if kind == MIXED:
        some = np.flatnonzero(draw.random(rows.height) < SHUFFLED)
        scores[some] = scores[draw.permutation(some)]
    late = draw.random(rows.height) < (SLOWED if kind == SLOW else 0)
    ours, theirs = scores >= review, before >= production.review
    whole = Trial(
        at=rows[dataset.time.column].dt.epoch("us").to_numpy(), met=np.zeros(rows.height, bool),
        failed=draw.random(rows.height) < (FAILING if kind == FAILS else 0),
        took=np.where(late, 2_000 * plan.slow, USUAL).astype(np.int64), same=np.ones(rows.height, bool),
        scores=scores, flagged=ours, costs=costs(rows, ours, dataset, words), production_scores=before,
        production_flagged=theirs, production_costs=costs(rows, theirs, dataset, words),
    )  # fmt: skip
    known = rows[dataset.known_at_column].dt.epoch("us").to_numpy()
    router = TrafficSplit(dataset, Routing(salt=str(seed)))
    return _watched(whole, known, partial(_meets, rows, dataset.entities[0], router), plan, micro(world.at(begin)))


def _candidate(kind: str, world: World, begin: int) -> Version:
    rows, words = world.known(begin), world.settings
    if kind == LOST:
        dataset, label = words.data, pl.col(words.data.label.column)
        lost = (label == 1) & (pl.col(dataset.id_column).hash(1) % 2 == 0)
        told = rows.with_columns(pl.when(lost).then(0).otherwise(label).cast(pl.Int8).alias(dataset.label.column))
        rows = World.of(told, words).table
    return trained(rows, words, words.retraining.split)


def _meets(rows: pl.DataFrame, entity: str, router: TrafficSplit, weight: float) -> Flags:
    """Where a canary of some weight answers."""
    traffic = Traffic(1, mode="canary", candidate=2, weight=weight)
    arms = {one: router.arm(traffic, {entity: one}) != PRODUCTION for one in rows[entity].unique()}
    return rows[entity].replace_strict(arms, return_dtype=pl.Boolean).to_numpy()


def _watched(whole: Trial, known: Ints, meets: Callable[[float], Flags], plan: Plan, begin: int) -> Course:
    """Judge at each midnight and do what is said, as `mlops.releasing.watch` does."""
    day, stage = DAY // timedelta(microseconds=1), Stage("shadow", 0.0, begin, begin)
    ratio = float(whole.costs.sum() / whole.production_costs.sum())
    met = np.zeros(len(whole.at), bool)
    days = 0
    while True:
        days += 1
        now = begin + days * day
        today = (whole.at >= now - day) & (whole.at < now)
        met |= today & meets(stage.weight)
        verdict = judge(_until(whole, met, known, now), stage, plan, now)
        if verdict.step in ("promote", "roll back"):
            made = int((met & ~whole.failed).sum())
            return Course(verdict.step, verdict.why, days, made, made / int((whole.at < now).sum()), ratio)
        if verdict.step == "advance":
            stage = Stage("canary", verdict.weight, begin, now)


def _until(whole: Trial, met: Flags, known: Ints, now: int) -> Trial:
    """What is seen of a trial at a time, with the labels that are known by then."""
    past = whole.at < now
    ours, theirs = (np.where(known <= now, each, np.nan) for each in (whole.costs, whole.production_costs))
    seen = replace(whole, met=met, failed=whole.failed & met, costs=ours, production_costs=theirs)
    return Trial(**{name: values[past] for name, values in vars(seen).items()})


def show_calm(found: Sequence[Sequence[frozenset[str]]]) -> None:
    """Print how often checks alarm where nothing has changed."""
    table = _table(f"false alarms: {len(found)} worlds without change, {len(found[0])} daily checks each", (
        "found by", "sequences with an alarm", "95 % interval", "checks that alarm", "least", "most", "first on day",
    ))  # fmt: skip
    for part in ("any", *PARTS):
        alarms = [[bool(check) if part == "any" else part in check for check in checks] for checks in found]
        shares = [statistics.mean(each) for each in alarms]
        first = [each.index(True) + 1 for each in alarms if any(each)]
        table.add_row(
            part, *_rate(len(first), len(alarms)), f"{statistics.mean(shares):.1%}", f"{min(shares):.1%}",
            f"{max(shares):.1%}", _spread(first),
        )  # fmt: skip
    WIDE.print(table)


def show_delays(found: Mapping[str, Sequence[Sequence[frozenset[str]]]]) -> None:
    """Print how many days after a change the first alarm comes, by what finds it.

    A part counts from the first check on whose rows of it are of days after the change, and not where it alarms before.
    """
    words = settings.read(DEMO, "local", {}).monitoring
    wait = seconds(words.maturity) // 86_400
    title = f"days from a change to the first alarm, of {END - CHANGE} watched: median (least - most)"
    table = _table(title, ("change", "found by", "found", "days", "was the first", "alarmed already"))
    for name, worlds in found.items():
        delays = [{part: _delay(checks, part, wait) for part in PARTS} for checks in worlds]
        firsts = [min([day for day in each.values() if day is not None], default=None) for each in delays]
        some = [day for day in firsts if day is not None]
        table.add_row(name, "any", f"{len(some)} of {len(worlds)}", _spread(some), "", "")
        for part in PARTS:
            days = [day for each in delays if (day := each[part]) is not None]
            first = sum(each[part] is not None and each[part] == day for each, day in zip(delays, firsts, strict=True))
            early = sum(part in checks[_blind(part, wait)] for checks in worlds)
            table.add_row("", part, f"{len(days)} of {len(worlds)}", _spread(days), str(first), str(early))
    WIDE.print(table)


def _blind(part: str, wait: int) -> int:
    """The place of the last check that no row after the change can have moved."""
    return CHANGE - LIVE - 1 + (wait if part in (LABELS, MEANING) else 0)


def _delay(checks: Sequence[frozenset[str]], part: str, wait: int) -> int | None:
    blind = _blind(part, wait)
    if part in checks[blind]:
        return None
    return next((LIVE + 1 + place - CHANGE for place in range(blind + 1, len(checks)) if part in checks[place]), None)


def show_courses(found: Mapping[str, Sequence[Course]]) -> None:
    """Print what became of candidates on trial, and what those decided that were not promoted."""
    short = settings.read(DEMO, "local", {}).release.patience
    ends = _table(f"{len(found[SAME])} candidates of each kind on trial for up to {PATIENT}: median (least - most)", (
        "candidate", "promoted", f"in {short}", "days", "taken back", "days", "not shown", "cost / production's",
    ))  # fmt: skip
    exposure = _table(f"what those decided that were taken back or not shown to be as good in {PATIENT}", (
        "candidate", "candidates", "decisions", "share of traffic while on trial",
    ))  # fmt: skip
    for kind, courses in found.items():
        up = [one for one in courses if one.step == "promote"]
        # What was promoted decides all from then on; how much it made before says nothing.
        out = [one for one in courses if one.step == "roll back"]
        back = [one for one in out if one.why.startswith("against")]
        ends.add_row(
            kind, str(len(up)), str(sum(one.days < seconds(short) / 86_400 for one in up)),
            _spread([one.days for one in up]), str(len(back)), _spread([one.days for one in back]),
            str(len(out) - len(back)), _spread([one.ratio for one in courses], ".2f"),
        )  # fmt: skip
        decided, shares = [one.decided for one in out], [one.share for one in out]
        exposure.add_row(kind, str(len(out)), _spread(decided), _spread(shares, ".1%"))
    WIDE.print(ends, exposure)
    for kind, courses in found.items():
        if reasons := Counter(one.why for one in courses if one.step == "roll back"):
            WIDE.print(f"{kind}: {'; '.join(f'{count} x {why}' for why, count in reasons.most_common())}")


def show_errors(found: Mapping[str, Sequence[Error]]) -> None:
    """Print how far estimates without labels are off, beside the guess that all is as it was in the last week."""
    table = _table("a week's performance, estimated without labels: the error, of cost as a share of the truth", (
        "", "weeks", "truth", "mean error", "mean |error|", "95 % below", "largest", "as before: |error|",
        "in interval",
    ))  # fmt: skip
    for name, errors_ in found.items():
        estimated, realised, before, inside = (np.array(each) for each in zip(*errors_, strict=True))
        unit = realised if name.startswith("cost") else np.ones(len(realised))
        off, form = (estimated - realised) / unit, "+.1%" if name.startswith("cost") else "+.3f"
        table.add_row(
            name, str(len(off)), f"{np.median(realised):.3g} ({realised.min():.3g} - {realised.max():.3g})",
            format(off.mean(), form), *(format(each, form[1:]) for each in (
                np.abs(off).mean(), np.quantile(np.abs(off), 0.95), np.abs(off).max(),
                np.abs((before - realised) / unit).mean(),
            )), f"{inside.mean():.0%}",
        )  # fmt: skip
    WIDE.print(table)


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    return table


def _rate(hits: int, of: int) -> tuple[str, str]:
    """Hits, and the interval of their true share."""
    ends = binomtest(hits, of).proportion_ci()
    return f"{hits} of {of}", f"{ends.low:.0%} - {ends.high:.0%}"


def _spread(values: Sequence[float], form: str = ",.0f") -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):{form}} ({min(values):{form}} - {max(values):{form}})"


if __name__ == "__main__":
    main()
