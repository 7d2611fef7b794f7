"""One definition, two executions: what live features say of a row is what the batch engine says of the rows so far."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars._typing import PolarsDataType

from mlops.errors import BadData, Damaged
from mlops.storage import online as logs_by_key
from mlops.storage import online_redis, redis_pipe
from mlops.storage.online import Ask, Layout, Logs, Memory
from mlops.storage.redis_pipe import RedisPipe
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.features import build_features, declaration, online_kernels
from modules.fraud_detection.src.features.declaration import Declaration, Window, features
from modules.fraud_detection.src.features.entity_past import LATE
from modules.fraud_detection.src.features.online_features import MOST, OnlineFeatures, layout
from tests.fraud_detection.test_features import DATA, DECLARED, START, tables
from tests.redis_server import RedisServer

KINDS: dict[str, PolarsDataType] = {
    "id": pl.String, "time": pl.Datetime("us"), "customer": pl.String, "terminal": pl.Int64, "amount": pl.Float64,
    "score": pl.Float64, "channel": pl.String, "fraud": pl.Int8, "known_at": pl.Datetime("us"),
}  # fmt: skip
MICROSECOND = timedelta(microseconds=1)
ORIGIN = datetime(1970, 1, 1)


def micro(at: datetime) -> int:
    return (at - ORIGIN) // MICROSECOND


def online(dataset: DataSet = DATA, declared: Declaration = DECLARED, most: int = MOST) -> OnlineFeatures:
    of = layout(dataset, declared, most)
    return OnlineFeatures(dataset, declared, of, Memory(of))


def as_row(values: Mapping[str, Any], dataset: DataSet = DATA) -> dict[str, Any]:
    """A row of a table as the API reads it: ids, entities and categories are text, the time is microseconds."""
    row = dict(values)
    row[dataset.time.column] = micro(row[dataset.time.column])
    for name in (dataset.id_column, *dataset.entities, *dataset.categorical):
        row[name] = None if row[name] is None else str(row[name])
    return row


def built(live: OnlineFeatures, row: Mapping[str, Any], keep: bool = True) -> dict[str, Any]:
    """The features of one row by name, as the batch engine gives them: empty is None; and whether its past is cut."""
    found = asyncio.run(live.build([row], keep))
    numbers = {
        name: None if np.isnan(value) else value for name, value in zip(live.names, found.values[0], strict=True)
    }
    return {**numbers, **{name: texts[0] for name, texts in found.texts.items()}, "cut": found.cut[0]}


def learn(live: OnlineFeatures, row: Mapping[str, Any], facts: Sequence[tuple[int, int]]) -> None:
    asyncio.run(live.learn(row, facts))


@st.composite
def histories(draw: st.DrawFn) -> tuple[pl.DataFrame, list[tuple[str, int]]]:
    """A table, and an order in which its rows arrive, each label at some moment after its row."""
    table = draw(tables())
    steps: list[tuple[str, int]] = []
    for place in draw(st.permutations(range(table.height))):
        steps.append(("row", place))
        if table["fraud"][place] is not None and table["known_at"][place] is not None:
            steps.insert(draw(st.integers(len(steps), len(steps) + 3)), ("label", place))
    arrived: set[int] = set()
    in_order = []
    for kind, place in steps:
        if kind == "row":
            arrived.add(place)
        if place in arrived:
            in_order.append((kind, place))
    return table, in_order


def differences(
    live: OnlineFeatures, table: pl.DataFrame, steps: Sequence[tuple[str, int]], declared: Declaration = DECLARED
) -> tuple[list[Any], list[int]]:
    """Live the history step by step; collect every feature that differs from the batch over what had arrived.

    A row that is told to be cut is not compared; those rows come second.
    """
    rows, found, cut = table.to_dicts(), [], []
    arrived: list[int] = []
    labelled: set[int] = set()
    for kind, place in steps:
        if kind == "label":
            labelled.add(place)
            learn(live, as_row(rows[place]), [(micro(rows[place]["known_at"]), rows[place]["fraud"])])
            continue
        arrived.append(place)
        known = [{**rows[one], **({} if one in labelled else {"fraud": None})} for one in arrived]
        batch = build_features.build(pl.DataFrame(known, schema=table.schema), DATA, declared).row(-1, named=True)
        mine = built(live, as_row(rows[place]))
        if mine.pop("cut"):
            cut.append(place)
        else:
            found += [(place, name, mine[name], batch[name]) for name in live.names if mine[name] != batch[name]]
    return found, cut


@given(histories())
@settings(max_examples=300, deadline=None)
def test_live_features_equal_the_batch_over_what_had_arrived(
    history: tuple[pl.DataFrame, list[tuple[str, int]]],
) -> None:
    """Late rows, rows out of order, at one instant and twice, and labels whenever they come: equal to the last bit."""
    table, steps = history
    assert differences(online(), table, steps) == ([], [])


@st.composite
def declarations(draw: st.DrawFn) -> Declaration:
    """Any windows over anything, near and far, with gaps and the row features of the usual declaration."""
    lengths, delays = ("1h", "3h", "1d", "20d"), ("0s", "1h", "2d")
    fitting = {
        "amount": ("count", "sum", "mean", "min", "max"), "score": ("count", "sum", "mean", "min", "max"),
        "channel": ("count", "distinct"), "terminal": ("count", "distinct"), "fraud": ("count", "sum", "share"),
    }  # fmt: skip
    kinds = st.tuples(st.sampled_from(DATA.entities), st.sampled_from(sorted(fitting)), st.sampled_from(delays))
    windows = [
        Window(
            entity=entity, of=of, delay=delay,
            aggregates=tuple(draw(st.lists(st.sampled_from(fitting[of]), min_size=1, unique=True))),
            lengths=tuple(draw(st.lists(st.sampled_from(lengths), min_size=1, max_size=2, unique=True))),
        )
        for entity, of, delay in draw(st.lists(kinds, min_size=1, max_size=4, unique=True))
    ]  # fmt: skip
    gaps = draw(st.lists(st.sampled_from(DATA.entities), unique=True))
    rows = [row for row in DECLARED.rows if row.to is None]
    return Declaration(windows=tuple(windows), gaps=tuple(gaps), rows=tuple(rows))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Declaration, pl.DataFrame, list[tuple[str, int]], int]:
    """A declaration, a history under numbers or texts for ids, over hours or over months, and the most of a log."""
    table, steps = draw(histories())
    stretch = draw(st.sampled_from([1, 40, 200]))
    early = timedelta(hours=draw(st.sampled_from([0, 0.5, 6])))
    table = table.with_columns(pl.col("known_at") - early)
    times = [(START + (pl.col(name) - START) * stretch).alias(name) for name in ("time", "known_at")]
    table = table.with_columns(times)
    if draw(st.booleans()):
        names = st.text("aZ0\u00e9\U0001f600", min_size=1, max_size=3)
        ids = draw(st.lists(names, min_size=table.height, max_size=table.height, unique=True))
        table = table.with_columns(pl.Series("id", ids))
    return draw(declarations()), table, steps, draw(st.sampled_from([3, MOST]))


@pytest.fixture(params=["memory", "redis"])
def empty(request: pytest.FixtureRequest) -> Iterator[Callable[[Layout], Logs]]:
    """Makes empty logs."""
    if request.param == "memory":
        yield Memory
        return
    server: RedisServer = request.getfixturevalue("redis_server")
    # The law is about values: a machine that is busy with other tests is no reason to give a server up.
    request.getfixturevalue("monkeypatch").setattr(redis_pipe, "TIMEOUT", 10.0)
    pipe = RedisPipe(server.patient_url, online_redis.SCRIPTS)

    def of(layout: Layout) -> Logs:
        with server.client() as client:
            client.flushall()
        logs = online_redis.Redis(pipe, layout)
        asyncio.run(logs.reach(0))
        return logs

    yield of
    pipe.close()


@pytest.fixture
def trimming_early(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (logs_by_key, online_redis):
        monkeypatch.setattr(module, "TRIMMED_FROM", 2)


@given(world=worlds())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.usefixtures("trimming_early")
def test_whatever_is_declared_a_row_is_equal_to_the_batch_or_told_to_be_cut(
    empty: Callable[[Layout], Logs], world: tuple[Declaration, pl.DataFrame, list[tuple[str, int]], int]
) -> None:
    declared, table, steps, most = world
    of = layout(DATA, declared, most)
    live = OnlineFeatures(DATA, declared, of, empty(of))
    different, cut = differences(live, table, steps, declared)
    assert different == []
    short = most == MOST and table["time"].max() - table["time"].min() < timedelta(days=1)  # type: ignore[operator]
    assert not (short and cut)


@given(histories(), st.data())
@settings(max_examples=100, deadline=None)
def test_a_row_or_label_that_comes_twice_counts_once(
    history: tuple[pl.DataFrame, list[tuple[str, int]]], data: st.DataObject
) -> None:
    table, steps = history
    repeated = list(steps)
    for step in data.draw(st.lists(st.sampled_from(steps), max_size=5)):
        repeated.insert(data.draw(st.integers(repeated.index(step) + 1, len(repeated))), step)
    rows, live, once = table.to_dicts(), online(), online()
    seen: dict[tuple[str, int], Any] = {}
    for step in repeated:
        kind, place = step
        row = as_row(rows[place])
        if kind == "label":
            fact = [(micro(rows[place]["known_at"]), rows[place]["fraud"])]
            learn(live, row, fact)
            if step not in seen:
                learn(once, row, fact)
            seen[step] = None
        elif step not in seen:
            seen[step] = built(live, row)
            assert seen[step] == built(once, row)
        else:
            built(live, row)


@given(histories(), st.integers(2, 6))
@settings(max_examples=100, deadline=None)
def test_rows_that_are_built_together_see_each_other_in_order(
    history: tuple[pl.DataFrame, list[tuple[str, int]]], size: int
) -> None:
    table, steps = history
    rows = [as_row(table.row(place, named=True)) for kind, place in steps if kind == "row"]
    one_by_one, together = online(), online()
    alone = [asyncio.run(one_by_one.build([row])) for row in rows]
    for start in range(0, len(rows), size):
        found = asyncio.run(together.build(rows[start : start + size]))
        for place, values in enumerate(found.values):
            np.testing.assert_array_equal(values, alone[start + place].values[0])
            assert {name: texts[place] for name, texts in found.texts.items()} == {
                name: texts[0] for name, texts in alone[start + place].texts.items()
            }


@given(histories())
@settings(max_examples=100, deadline=None)
def test_asking_what_if_leaves_no_trace(history: tuple[pl.DataFrame, list[tuple[str, int]]]) -> None:
    table, steps = history
    asked, plain = online(), online()
    for kind, place in steps:
        if kind == "row":
            row = as_row(table.row(place, named=True))
            what_if = built(asked, row, keep=False)
            assert what_if == built(asked, row) == built(plain, row)


@given(histories())
@settings(max_examples=100, deadline=None)
def test_a_row_that_is_forgotten_was_never_there(history: tuple[pl.DataFrame, list[tuple[str, int]]]) -> None:
    table, steps = history
    rows = [as_row(table.row(place, named=True)) for kind, place in steps if kind == "row"]
    forgetting, plain = online(), online()
    for place, row in enumerate(rows):
        built(forgetting, row)
        if place % 2:
            asyncio.run(forgetting.forget([row]))
        else:
            assert built(plain, row) == built(forgetting, row, keep=False)


@given(tables(), st.integers(0, 16))
@settings(max_examples=200, deadline=None)
def test_a_past_that_is_seeded_from_a_table_is_the_past_that_was_lived(table: pl.DataFrame, half_hours: int) -> None:
    cut = START + timedelta(minutes=30 * half_hours)
    past, future = table.filter(pl.col("time") < cut), table.filter(pl.col("time") >= cut).sort("time", "id")
    seeded, lived = online(), online()
    for row in past.iter_rows(named=True):
        built(lived, as_row(row))
        if row["fraud"] is not None and row["known_at"] is not None:
            learn(lived, as_row(row), [(micro(row["known_at"]), row["fraud"])])
    if past.height:
        asyncio.run(seeded.seed(past))
        asyncio.run(seeded.restore([as_row(row) for row in past.iter_rows(named=True)], []))
    for row in future.iter_rows(named=True):
        assert built(seeded, as_row(row)) == built(lived, as_row(row))


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 1)), min_size=1, max_size=8),
    st.lists(st.integers(0, 25), min_size=1, max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_a_label_is_the_latest_fact_known_by_then(facts: list[tuple[int, int]], moments: list[int]) -> None:
    """Labels are dated facts: however late and in whatever order corrections come, each moment has its own truth."""
    declared = Declaration(
        windows=(Window(entity="terminal", of="fraud", aggregates=("count", "sum"), lengths=("30d",)),)
    )
    live = online(declared=declared)
    labelled = {"id": "1", "time": 0, "customer": "a", "terminal": "7", "amount": 1.0, "score": None, "channel": None}
    for count in range(1, len(facts) + 1):
        learn(live, labelled, facts[:count])
        learn(live, labelled, facts[:count])
    for place, moment in enumerate(moments):
        known = [fact for fact in sorted(facts, key=lambda fact: fact[0]) if fact[0] <= moment]
        expected = (1.0, float(known[-1][1])) if known and moment > 0 else (0.0, 0.0)
        found = built(live, {**labelled, "id": f"later {place}", "time": moment})
        assert (found["terminal_fraud_count_30d"], found["terminal_fraud_sum_30d"]) == expected


def test_a_planted_bug_in_the_live_engine_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law's check can fail: a kernel that takes one microsecond too much at the far end is caught."""
    real = online_kernels.scan_events

    def wrong(words: Any, starts: Any, own: Any, views: Any, *others: Any) -> Any:
        longer = views.copy()
        longer[:, 2] += 1
        return real(words, starts, own, longer, *others)

    monkeypatch.setattr(online_kernels, "scan_events", wrong)
    rows = [(0, "a", 7, 1.0), (2, "a", 7, 2.0)]
    table = pl.DataFrame(
        [
            {
                "id": place, "time": START + timedelta(hours=row[0] / 2), "customer": row[1], "terminal": row[2],
                "amount": row[3], "score": None, "channel": None, "fraud": None, "known_at": None,
            }
            for place, row in enumerate(rows)
        ],
        schema_overrides={"score": pl.Float64, "channel": pl.String, "fraud": pl.Int8, "known_at": pl.Datetime("us")},
    )  # fmt: skip
    assert differences(online(), table, [("row", 0), ("row", 1)])[0]


def test_every_kind_of_row_feature_and_a_text_id_are_equal_too() -> None:
    """Over some thousands of rows of the usual features, whatever the id and the entities are written as."""
    dataset = DataSet.model_validate(
        {
            "id": "id", "time": {"column": "at"}, "entities": ["card", "shop"], "amount": "euros",
            "categorical": ["channel"], "label": {"column": "bad", "delay": "1d"},
        }
    )  # fmt: skip
    declared = declaration.default(dataset)
    draw = np.random.default_rng(5)
    rows = 1_500
    table = pl.DataFrame(
        {
            "id": [f"t{number}" for number in draw.permutation(rows)],
            "at": [START + timedelta(seconds=float(second)) for second in np.sort(draw.integers(0, 50 * 86_400, rows))],
            "card": [f"c{number}" for number in draw.integers(0, 20, rows)],
            "shop": draw.integers(0, 9, rows),
            "euros": np.round(draw.lognormal(3, 2, rows), 2),
            "channel": draw.choice(["web", "shop", "post"], rows),
            "bad": draw.integers(0, 2, rows).astype(np.int8),
        },
        schema_overrides={"at": pl.Datetime("us")},
    )
    batch = build_features.build(table, dataset, declared).to_dicts()
    live = online(dataset, declared)
    due: list[tuple[datetime, dict[str, Any]]] = []
    different = []
    for place, row in enumerate(table.iter_rows(named=True)):
        for known_at, old in [one for one in due if one[0] <= row["at"]]:
            learn(live, as_row(old, dataset), [(micro(known_at), old["bad"])])
        due = [one for one in due if one[0] > row["at"]] + [(row["at"] + timedelta(days=1), row)]
        mine = built(live, as_row(row, dataset))
        different += [(place, name) for name in live.names if mine[name] != batch[place][name]]
    assert live.names == [feature.name for feature in features(declared, dataset)]
    assert different == []


def lived(live: OnlineFeatures, hours: Sequence[float]) -> list[bool]:
    """Whether each of some rows of one customer may have had its past cut."""
    row = {"customer": "a", "terminal": "7", "amount": 1.0, "score": None, "channel": None}
    cut: list[bool] = []
    for place, hour in enumerate(hours):
        found = asyncio.run(live.build([{**row, "id": str(place), "time": micro(START + timedelta(hours=hour))}]))
        cut += found.cut
    return cut


def test_a_past_that_was_cut_is_told() -> None:
    assert lived(online(most=4), [0, 0.1, 0.2, 0.3, 0.4])[-2:] == [True, True]
    assert not any(lived(online(most=4), [0, 1000, 2000, 3000, 4000, 5000]))


def test_a_row_that_comes_too_late_to_see_its_whole_past_is_told() -> None:
    late = LATE / 3.6e9
    assert lived(online(), [1000, 1000 - late, 1000 - late - 0.1]) == [False, False, True]


def test_a_row_that_comes_too_late_to_see_its_labels_is_told() -> None:
    declared = Declaration(windows=(Window(entity="terminal", of="fraud", aggregates=("count",), lengths=("1d",)),))
    live, row = online(declared=declared), {"customer": "a", "terminal": "7", "amount": 1.0}
    row |= {"score": None, "channel": None}
    start = micro(START)
    learn(live, {**row, "id": "0", "time": start}, [(start + 1, 1)])
    for number in range(1, 130):
        at = start + 10 * LATE + number
        learn(live, {**row, "id": str(number), "time": at}, [(at + 1, 1)])
    assert built(live, {**row, "id": "late", "time": start + LATE // 2})["cut"]
    assert not built(live, {**row, "id": "new", "time": start + 10 * LATE + 200})["cut"]


@pytest.mark.parametrize("seeded", [False, True])
def test_texts_at_one_instant_are_ordered_by_their_letters_whatever_the_script(seeded: bool) -> None:
    names = ["\u00e9\u00e9", "z\u00e9", "zz", "\u00e9z", "z", "\u00e9", "\U0001f600", "zzz", "a\u00e9z", "\u00e9\u00ea"]
    empty = {"customer": "a", "terminal": 7, "score": None, "channel": None, "fraud": None, "known_at": None}
    rows = [{**empty, "id": name, "time": START, "amount": float(place)} for place, name in enumerate(names)]
    table = pl.DataFrame(rows, schema=KINDS)
    live = online()
    asyncio.run(live.seed(table) if seeded else live.restore([as_row(row) for row in rows], []))
    for row, batch in zip(rows, build_features.build(table, DATA, DECLARED).iter_rows(named=True), strict=True):
        mine = built(live, as_row(row), keep=False)
        assert {name: mine[name] for name in live.names} == {name: batch[name] for name in live.names}


def test_an_id_that_does_not_fit_a_record_is_refused_and_harms_nothing() -> None:
    live, row = online(), {"customer": "a", "terminal": "7", "amount": 1.0, "score": None, "channel": None}
    for id_ in ("x" * 65, "\u00e9" * 33):
        with pytest.raises(BadData, match="id.* 64 bytes"):
            built(live, {**row, "id": id_, "time": micro(START)})
    assert built(live, {**row, "id": "x" * 64, "time": micro(START)})["customer_amount_count_1h"] == 1.0


def test_a_past_is_trimmed_to_what_can_matter() -> None:
    live = online()
    assert not any(lived(live, [place * 24 for place in range(500)]))
    logs = live._logs
    assert isinstance(logs, Memory)
    assert max(len(log) for log in logs._logs.values()) // layout(DATA, DECLARED).size < 256


@pytest.mark.parametrize("poison", ["half a record", "nothing but zeros", "another's"])
def test_a_poisoned_past_is_noticed(poison: str) -> None:
    live = online()
    row = {"customer": "a", "terminal": "7", "amount": 1.0, "score": None, "channel": None, "id": "1"}
    asyncio.run(live.build([{**row, "time": micro(START)}, {**row, "customer": "b", "time": micro(START)}]))
    record = asyncio.run(live._logs.exchange([Ask("customer=b", b"")]))[0]
    poisons = {"half a record": b"x" * 7, "nothing but zeros": bytes(len(record)), "another's": record}
    asyncio.run(live._logs.exchange([Ask("customer=a", poisons[poison])]))
    with pytest.raises(Damaged, match="customer"):
        asyncio.run(live.build([{**row, "id": "2", "time": micro(START)}]))


def test_declarations_that_differ_do_not_share_a_past() -> None:
    assert layout(DATA, DECLARED).name != layout(DATA, DECLARED.model_copy(update={"gaps": ()})).name
    assert layout(DATA, DECLARED) == layout(DATA, DECLARED.model_copy())
