"""What a model sees of a text: the same as scikit-learn's, and the same for any spacing and case."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from mlops.errors import BadData
from modules.complaint_triage.src.data.complaints import clean
from modules.complaint_triage.src.features import words
from modules.complaint_triage.src.features.words import Learning, Vocabulary, Words

TEXTS = [
    "The bank charged a fee, and the fee was wrong.", "My mortgage payment: lost by the bank!", "a Fee a fee A FEE",
    "XXXX told me the debt isn't mine; XX/XX/2015.", "isn't it the bank?",
]  # fmt: skip


def test_a_text_is_seen_as_scikit_learn_sees_it() -> None:
    vocabulary = words.learn(TEXTS, Learning(most=100, least=1))
    peer = TfidfVectorizer(tokenizer=words.split, token_pattern=None, sublinear_tf=True).fit(TEXTS)
    assert list(vocabulary.words) == peer.get_feature_names_out().tolist()
    known = Words(vocabulary)
    for text in TEXTS:
        row, vector = peer.transform([text]).toarray()[0], known.vector(text)
        mine = np.zeros(row.size)
        mine[vector.places] = vector.values
        assert mine == pytest.approx(row, abs=1e-12)


def test_words_are_small_and_what_was_blackened_is_none() -> None:
    assert words.split(TEXTS[3]) == ["told", "me", "the", "debt", "isn't", "mine"]


def test_the_words_of_most_texts_are_kept_and_rare_ones_are_not() -> None:
    assert words.learn(TEXTS, Learning(most=2, least=1)).words == ("bank", "the")
    assert set(words.learn(TEXTS, Learning(most=100, least=2)).words) == {"a", "bank", "fee", "isn't", "the"}
    with pytest.raises(BadData, match="no word stands in 6 of 5 texts"):
        words.learn(TEXTS, Learning(least=6))


@given(st.text())
def test_any_text_is_a_vector_of_length_one_or_of_nothing(text: str) -> None:
    vector = Words(Vocabulary(words=("bank", "fee"), weights=(1.0, 2.0))).vector(f"{text} unheard")
    assert math.isclose(float(vector.values @ vector.values), 1.0) or vector.places.size == 0
    assert vector.total - vector.unknown == vector.counts.sum()
    assert 0 < vector.unknown_share <= 1


@given(st.text())
def test_cleaning_twice_is_cleaning_once_and_no_word_is_lost(text: str) -> None:
    assert clean(clean(text)) == clean(text)
    assert words.split(clean(text)) == words.split(text)
