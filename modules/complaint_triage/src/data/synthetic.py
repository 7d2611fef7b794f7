"""A simulator of complaints: seeded, with products whose words overlap, and a new topic on request.

It shows that the platform works; it says nothing about how well a model reads what real customers write.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from pydantic import Field

from mlops.values import Group
from modules.complaint_triage.src.data.complaints import ID, PRODUCT, RECEIVED, TEXT

TOPICS: Mapping[str, Sequence[str]] = {
    "Credit card": (
        "the annual fee on my card was charged twice", "my credit limit was lowered without a word",
        "a merchant refund never reached my card statement", "the card was declined abroad although it is valid",
        "interest was added after I paid the whole balance", "the rewards points I earned have vanished",
    ),
    "Mortgage": (
        "my escrow account was calculated wrongly", "the loan modification was denied without a reason",
        "the servicer lost my payment and threatens foreclosure", "the closing costs are not what was agreed",
        "property taxes were not paid out of escrow", "the refinance of our home has been delayed for months",
    ),
    "Debt collection": (
        "a collector calls me at work about a debt that is not mine", "they refuse to validate the debt in writing",
        "I paid this old bill years ago and they still demand it", "the agency threatened to garnish my wages",
        "they told my neighbour about my debt", "letters come from a collection agency I never heard of",
    ),
    "Credit reporting": (
        "my report shows an account that I never opened", "the bureau verified wrong information again",
        "a late payment was reported although I paid on time", "an inquiry on my file was not authorised",
        "my score fell because of somebody else's account", "the dispute was closed without an investigation",
    ),
    "Bank account": (
        "overdraft fees were taken although I had money", "my checking account was closed without notice",
        "a deposit is on hold for two weeks", "the branch would not cash a cashier's check",
        "a transfer between my accounts has disappeared", "my debit card was copied at a cash machine",
    ),
}  # fmt: skip
NEW: Mapping[str, Sequence[str]] = {
    "Bank account": (
        "an instant payment went to a stranger and cannot be called back", "the app shows someone else's wallet",
        "a voice like my daughter's asked me to send money at once", "my crypto withdrawal is frozen in the app",
    ),
}  # fmt: skip
COMMON = (
    "I called customer service three times", "nobody could help me", "I want this corrected",
    "I have been a customer for years",
    "please look into this", "I asked for a supervisor and was put on hold", "they keep sending me letters",
    "I sent all documents by mail", "this has caused me a lot of stress", "I am still waiting for an answer",
)  # fmt: skip
OF_OTHERS = 0.18
"""The share of sentences that belong to another product: customers have several, and mix them up."""


class Simulation(Group):
    """The size of the simulated world and what changes in it."""

    complaints: int = Field(4_000, ge=1, description="How many complaints.")
    days: int = Field(90, ge=1, description="Over how many days they come in.")
    start: datetime = Field(datetime(2025, 1, 1), description="The first day.")
    seed: int = Field(0, ge=0, description="The same seed gives the same rows.")
    new_topic_from: int | None = Field(
        None, ge=0, description="The day from which most complaints are about payments in an app, in new words."
    )


def simulate(words: Simulation) -> pl.DataFrame:
    """Make the complaints in the order in which they came in, with the product that each was about."""
    draw = np.random.default_rng(words.seed)
    products = list(TOPICS)
    share = draw.dirichlet(np.full(len(products), 8.0))
    seconds = np.sort(draw.uniform(0, words.days * 86_400, words.complaints))
    rows = []
    for number, second in enumerate(seconds.tolist()):
        new = words.new_topic_from is not None and second >= words.new_topic_from * 86_400 and draw.random() < 0.7
        product = next(iter(NEW)) if new else products[draw.choice(len(products), p=share)]
        came = words.start + timedelta(seconds=second)
        rows.append((f"c-{words.seed}-{number}", came, _text(product, new, draw), product))
    return pl.DataFrame(rows, schema=[ID, RECEIVED, TEXT, PRODUCT], orient="row")


def _text(product: str, new: bool, draw: np.random.Generator) -> str:
    own = (NEW if new else TOPICS)[product]
    said = [_one(own, draw) for _ in range(int(draw.integers(1, 3)))]
    others = [name for name in TOPICS if name != product]
    for _ in range(int(draw.integers(1, 4))):
        strange = draw.random() < OF_OTHERS
        said.append(_one(TOPICS[_one(others, draw)] if strange else COMMON, draw))
    draw.shuffle(said)
    return " ".join(f"{_misspelt(sentence, draw).capitalize()}." for sentence in said)


def _one(sentences: Sequence[str], draw: np.random.Generator) -> str:
    return sentences[int(draw.integers(len(sentences)))]


def _misspelt(sentence: str, draw: np.random.Generator) -> str:
    """Drop a letter of a long word now and then, as people do."""
    words = sentence.split()
    for place, word in enumerate(words):
        if len(word) > 4 and draw.random() < 0.05:
            gone = int(draw.integers(1, len(word)))
            words[place] = word[:gone] + word[gone + 1 :]
    return " ".join(words)
