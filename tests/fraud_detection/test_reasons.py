"""Reasons are sentences that a person can be told, for any data set's names, and they say which way the score went."""

from typing import Any

import pytest

from modules.fraud_detection import settings
from modules.fraud_detection.src.data.dataset import DataSet
from modules.fraud_detection.src.explainability import phrases
from modules.fraud_detection.src.explainability.reasons import Words
from modules.fraud_detection.src.features.declaration import Declaration, features
from tests.conftest import ROOT
from tests.fraud_detection.test_features import DATA, DECLARED

CONFIGURATIONS = sorted((ROOT / "modules/fraud_detection/config").glob("*.yaml"))
READ = settings.read(None, "local", {})
WORDS = Words(READ.features, READ.data, {"amount": 53.1, "terminal_id_is_fraud_share_30d_7d_ago": 0.0064})


def said(feature: str, value: Any, contribution: float = 1.0, **others: Any) -> str:
    names = [one.name for one in features(READ.features, READ.data)]
    return WORDS.reason(feature, {**dict.fromkeys(names), feature: value, **others}, contribution).text


SHARE, COUNT = "terminal_id_is_fraud_share_30d_7d_ago", "terminal_id_is_fraud_count_30d_7d_ago"
BEFORE = "in the 30 days until 7 days ago"


@pytest.mark.parametrize(
    ("feature", "value", "text"),
    [
        ("amount", 312.4, "The amount is 312.40 (overall average 53.10)"),
        ("customer_id_amount_count_7d", 12.0, "This customer had 12 transactions in the last 7 days"),
        ("customer_id_amount_count_1d", 1.0, "This customer had 1 transaction in the last day"),
        ("customer_id_amount_count_7d", 0.0, "This customer had no transactions in the last 7 days"),
        ("customer_id_amount_mean_1d", 0.05, "This customer's 1-day average amount is 0.05"),
        ("customer_id_amount_max_30d", 1234.5, "This customer's largest amount in the last 30 days is 1,234.50"),
        ("customer_id_amount_max_30d", None, "This customer's largest amount in the last 30 days is not known"),
        (COUNT, 12.0, f"This terminal had 12 transactions of known outcome {BEFORE}"),
        ("during_weekend", 1.0, "The transaction took place at the weekend"),
        ("during_night", 0.0, "The transaction did not take place at night"),
    ],
)
def test_a_feature_is_said_in_plain_words(feature: str, value: Any, text: str) -> None:
    assert said(feature, value) == f"{text}: raises the risk"


@pytest.mark.parametrize(
    ("share", "count", "text"),
    [
        (0.25, 12.0, f"This terminal had 3 known frauds among 12 transactions of known outcome {BEFORE} (25%, "),
        (1.0, 1.0, f"This terminal had 1 known fraud among 1 transaction of known outcome {BEFORE} (100%, "),
        (0.0, 12.0, f"This terminal had no known fraud among 12 transactions of known outcome {BEFORE} ("),
        (0.0, 0.0, f"This terminal had no transactions of known outcome {BEFORE}"),
        (0.25, None, f"Of this terminal's transactions of known outcome {BEFORE} 25% were fraud ("),
        (0.0, None, f"This terminal had no known fraud {BEFORE} ("),
    ],
)
def test_a_share_of_fraud_is_said_with_the_numbers_behind_it(share: float, count: float | None, text: str) -> None:
    usual = "overall average 0.64%)" if text.endswith(("(", " ")) else ""
    others: dict[str, Any] = {COUNT: count}
    assert said(SHARE, share, **others) == f"{text}{usual}: raises the risk"


def test_a_ratio_is_said_as_so_many_times() -> None:
    text = said("amount_to_mean_30d", 5.2, amount=312.4)
    assert text == "Amount 312.40 is 5.2 times this customer's 30-day average: raises the risk"
    assert said("amount_to_mean_30d", 5.2).startswith("The amount is 5.2 times this customer's 30-day average:")
    unknown = "The amount cannot be compared with this customer's 30-day average, which is"
    assert said("amount_to_mean_30d", None, amount=3.0).startswith(f"{unknown} not known:")
    assert said("amount_to_mean_30d", None, amount=3.0, customer_id_amount_mean_30d=0.0).startswith(f"{unknown} 0:")
    assert said("amount_to_mean_30d", None, customer_id_amount_mean_30d=2.0).startswith("The amount is not known:")


OWN = {
    "time": {"column": "booked"}, "entities": ["sender", "accountId"], "amount": "euros",
    "categorical": ["billing-country"], "label": {"column": "bad", "delay": "1d"},
}  # fmt: skip
FEATURES = {
    "windows": [
        {"entity": "sender", "of": "euros", "aggregates": ["sum", "max"], "lengths": ["1h"]},
        {"entity": "sender", "of": "euros", "aggregates": ["mean"], "lengths": ["60d"], "delay": "14d"},
        {"entity": "accountId", "of": "billing-country", "aggregates": ["distinct"], "lengths": ["2d"]},
        {"entity": "accountId", "of": "bad", "aggregates": ["sum"], "lengths": ["2d"], "delay": "1d"},
    ],
    "gaps": ["sender"],
    "rows": [
        {"name": "c", "of": "billing-country"},
        {"name": "l", "kind": "log", "of": "euros"},
        {"name": "h", "kind": "hour", "of": "booked"},
        {"name": "w", "kind": "weekday", "of": "booked"},
        {"name": "r", "kind": "ratio", "of": "sender_euros_max_1h", "to": "sender_euros_mean_60d_14d_ago"},
        {"name": "d", "kind": "difference", "of": "euros", "to": "sender_euros_mean_60d_14d_ago"},
        {"name": "dr", "kind": "difference", "of": "d", "to": "r"},
    ],
}


@pytest.mark.parametrize(
    ("feature", "value", "text"),
    [
        ("sender_euros_sum_1h", 5.0, "This sender's 1-hour total amount is 5"),
        ("accountId_billing-country_distinct_2d", 3.0,
         "This account had 3 different billing countries in the last 2 days"),
        ("accountId_bad_sum_2d_1d_ago", 1.0, "This account had 1 known fraud in the 2 days until 1 day ago"),
        ("sender_seconds_since_last", 725.0, "This transaction came 12 minutes after this sender's previous one"),
        ("sender_seconds_since_last", 0.2, "This transaction came within a second of this sender's previous one"),
        ("sender_seconds_since_last", None, "This sender had no other transaction in the 74 days before"),
        ("c", "at", "The billing country is at"),
        ("c", "a\nt\x1b", "The billing country is at"),
        ("c", None, "The billing country is not known"),
        ("l", 5.0, "The amount is 147.41"),
        ("h", 7.0, "The transaction took place between 7:00 and 7:59"),
        ("w", 6.0, "The transaction took place on a Sunday"),
        ("r", 0.5, "This sender's largest amount in the last hour is 0.5 times the 60-day average until 14 days ago"),
        ("d", -2.0, "The amount is 2 below this sender's 60-day average until 14 days ago"),
        ("d", 0.0, "The amount is equal to this sender's 60-day average until 14 days ago"),
    ],
)  # fmt: skip
def test_the_names_of_any_data_set_are_made_readable(feature: str, value: Any, text: str) -> None:
    declared, dataset = Declaration.model_validate(FEATURES), DataSet.model_validate(OWN)
    names = [one.name for one in features(declared, dataset)]
    reason = Words(declared, dataset, {}).reason(feature, {**dict.fromkeys(names), feature: value}, -0.1)
    assert reason.text == f"{text}: lowers the risk"


def test_the_direction_is_the_sign_of_the_contribution() -> None:
    assert said("amount", 1.0, -0.1).endswith(": lowers the risk")
    assert said("amount", 1.0, 0.0).endswith(": does not change the risk")


@pytest.mark.parametrize("value", [None, float("nan"), 0.0, 1.0, -3.0, 1e-9, 12.345678, 1e9, "web"])
@pytest.mark.parametrize("contribution", [-1.0, 1.0])
def test_every_feature_of_every_declaration_can_be_said(value: Any, contribution: float) -> None:
    declared = [(DECLARED, DATA)]
    for path in CONFIGURATIONS:
        read = settings.read(path, "local", {})
        declared.append((read.features, read.data))
    for declaration, dataset in declared:
        words = Words(declaration, dataset, {})
        names = [feature.name for feature in features(declaration, dataset)]
        categories = {feature.name for feature in features(declaration, dataset) if feature.is_category}
        for name in names:
            mine = value if isinstance(value, str) == (name in categories) else None
            if ("hour" in name or "log" in name) and isinstance(mine, float):
                mine = 3.0
            reason = words.reason(name, {**dict.fromkeys(names), name: mine}, contribution)
            assert reason.text.endswith(" the risk")
            assert reason.text[0].isupper()
            assert "_" not in reason.text.replace(str(mine), "")


def test_an_entity_is_named_without_its_id_and_the_amount_as_such() -> None:
    read = settings.read(CONFIGURATIONS[-2], "local", {})
    words = Words(read.features, read.data, {})
    names = [feature.name for feature in features(read.features, read.data)]
    text = words.reason("CUSTOMER_ID_TX_AMOUNT_mean_7d", dict.fromkeys(names, 1.0), 1.0).text
    assert text == "This customer's 7-day average amount is 1: raises the risk"


@pytest.mark.parametrize(
    ("said_", "text"),
    [
        (phrases.number(1e15), "1,000,000,000,000,000.00"), (phrases.number(0.004), "0.004"),
        (phrases.times(0.04), "0.04 times"), (phrases.times(1.0), "1.0 times"), (phrases.times(250.4), "250 times"),
        (phrases.percent(0.0995), "10%"), (phrases.percent(0.0064), "0.64%"), (phrases.percent(0.07), "7%"),
        (phrases.span(119), "119 seconds"), (phrases.span(1), "1 second"), (phrases.span(3 * 86_400), "3 days"),
        (phrases.plural("box"), "boxes"), (phrases.plural("day of rest"), "days of rest"),
        (phrases.name("TX_TYPE"), "tx type"), (phrases.name("__"), "__"), (phrases.text(" \t"), "empty"),
    ],
)  # fmt: skip
def test_numbers_and_names_are_written_as_a_person_writes_them(said_: str, text: str) -> None:
    assert said_ == text
