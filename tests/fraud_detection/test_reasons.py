"""Reasons are sentences that a person can be told, for any data set's names, and they say which way the score went."""

from typing import Any

import pytest

from modules.fraud_detection import settings
from modules.fraud_detection.src.explainability.reasons import Words
from modules.fraud_detection.src.features.declaration import features
from tests.conftest import ROOT
from tests.fraud_detection.test_features import DATA, DECLARED

CONFIGURATIONS = sorted((ROOT / "modules/fraud_detection/config").glob("*.yaml"))
READ = settings.read(None, "local", {})
WORDS = Words(READ.features, READ.data, {"amount": 53.1, "terminal_id_is_fraud_share_30d_7d_ago": 0.0064})


def said(feature: str, value: Any, contribution: float = 1.0, **others: Any) -> str:
    names = [one.name for one in features(READ.features, READ.data)]
    return WORDS.reason(feature, {**dict.fromkeys(names), feature: value, **others}, contribution).text


@pytest.mark.parametrize(
    ("feature", "value", "text"),
    [
        ("amount", 312.4, "The amount is 312.40, on average 53.10: raises the risk"),
        (
            "customer_id_amount_count_7d",
            12.0,
            "The number of transactions of this customer in 7 days is 12: raises the risk",
        ),
        ("customer_id_amount_mean_1d", 0.05, "The average amount of this customer in 1 day is 0.05: raises the risk"),
        (
            "customer_id_amount_max_30d",
            1234.5,
            "The largest amount of this customer in 30 days is 1,234.50: raises the risk",
        ),
        (
            "customer_id_amount_max_30d",
            None,
            "The largest amount of this customer in 30 days is not known: raises the risk",
        ),
        (
            "terminal_id_is_fraud_share_30d_7d_ago", 0.26,
            "The share of fraud among the known transactions of this terminal in the 30 days that ended 7 days ago "
            "is 26 %, on average 0.64 %: raises the risk",
        ),
        ("during_weekend", 1.0, "It took place at the weekend: raises the risk"),
        ("during_night", 0.0, "It did not take place at night: raises the risk"),
    ],
)  # fmt: skip
def test_a_feature_is_said_in_plain_words(feature: str, value: Any, text: str) -> None:
    assert said(feature, value) == text


def test_a_ratio_is_said_as_so_many_times() -> None:
    text = said("amount_to_mean_30d", 5.2, amount=312.4)
    assert text == "The amount 312.40 is 5.20 times the average amount of this customer in 30 days: raises the risk"
    assert "cannot be compared" in said("amount_to_mean_30d", None)


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
    assert text == "The average amount of this customer in 7 days is 1: raises the risk"
