"""Whether a text is like those that a model was trained on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcjax.config import TokenizerConfig
from ttcjax.data import procmath
from ttcjax.text import tokenizer as tokenizers
from ttcjax.text.familiar import Familiar

SMALL = st.lists(st.lists(st.integers(0, 4), max_size=6), max_size=5)


def plain(train, tokens, vocab_size):
    """The same likelihood by counting over the training texts anew for every token."""
    padded = [[-1, -1, *text] for text in train]
    total = 0.0
    for place, token in enumerate(tokens):
        before = [-1, -1, *tokens[:place]]
        p = 1 / vocab_size
        for n in range(3):
            history = before[len(before) - n :]
            following = [
                text[i] for text in padded for i in range(2, len(text)) if n == 0 or text[i - n : i] == history
            ]
            if following:
                p = (following.count(token) + len(set(following)) * p) / (len(following) + len(set(following)))
        total += math.log(p)
    return total / max(1, len(tokens))


@given(train=SMALL, tokens=st.lists(st.integers(0, 4), max_size=6))
def test_likelihood_is_witten_and_bells(train, tokens):
    model = Familiar.fit(train, [], vocab_size=5)
    assert model.likelihood(tokens) == pytest.approx(plain(train, tokens, 5), rel=1e-9, abs=1e-12)


@given(train=SMALL, history=st.lists(st.integers(0, 4), max_size=3))
def test_what_may_follow_has_probability_one_in_sum(train, history):
    model = Familiar.fit(train, [], vocab_size=5)
    before = model.likelihood(history) * len(history)
    total = sum(math.exp(model.likelihood([*history, t]) * (len(history) + 1) - before) for t in range(5))
    assert total == pytest.approx(1, rel=1e-9)


@pytest.fixture(scope="module")
def questions():
    """Training, validation and test questions of the embedded domain, and a tokenizer of their text."""
    splits = (
        procmath.generate("train", 3000, 0),
        procmath.generate("valid", 200, 0),
        procmath.generate("test", 400, 0),
    )
    found = [[example.question for example in split] for split in splits]
    tokenizer = tokenizers.train(found[0], TokenizerConfig(vocab_size=600))
    return tokenizer, *found


def test_questions_of_the_same_kind_are_rarely_strange(questions, tmp_path):
    """The 30 least likely of 600 are all among these 400 with a chance below (2/3) ** 30, or 1 in 190,000."""
    tokenizer, train, valid, test = questions
    model = Familiar.fit(tokenizer.encode_batch(train), tokenizer.encode_batch(valid), tokenizer.vocab_size)
    model.save(tmp_path / "familiar.npz")
    again = Familiar.read((tmp_path / "familiar.npz").read_bytes())
    tokens = tokenizer.encode_batch(test)
    assert [again.likelihood(row) for row in tokens] == [model.likelihood(row) for row in tokens]
    np.testing.assert_array_equal(again.known, model.known)
    assert sum(again.is_strange(row) for row in tokens) < 30


@pytest.mark.parametrize(
    "text",
    [
        "Who was the first president of the United States?",
        "Natalia sold clips to 48 of her friends in April, and then half as many in May. How many did she sell?",
        "Erzähle mir eine Geschichte.",
        "asdf qwer zxcv",
        "SELECT * FROM users;",
        "π",
        "-----",
        "\x1b[31mred",
    ],
)
def test_other_texts_are_strange(questions, text):
    tokenizer, train, valid, _ = questions
    model = Familiar.fit(tokenizer.encode_batch(train), tokenizer.encode_batch(valid), tokenizer.vocab_size)
    assert model.is_strange(tokenizer.encode(text))
