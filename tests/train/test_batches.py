"""Packing loses nothing, mixes nothing, and comes back to its place."""

import itertools
import json
import logging
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcjax.config import TokenizerConfig
from ttcjax.runtime.errors import UserError
from ttcjax.text import tokenizer as tokenizers
from ttcjax.train.batches import PackedRows, pad_rows, policy_examples, prm_examples, train_batches, valid_batches


def _examples(lengths):
    """Example i of length n holds the tokens 1000 (i + 1) + 1 ... + n, so that each can be told apart."""
    return [
        {"tokens": 1000 * (i + 1) + np.arange(1, n + 1, dtype=np.int32), "weights": np.ones(n, np.float32)}
        for i, n in enumerate(lengths)
    ]


def _segments(rows):
    """Return the token tuples of all segments in some rows [R, T]."""
    found = []
    for tokens, segments, positions in zip(rows["tokens"], rows["segment_ids"], rows["positions"], strict=True):
        for segment in range(1, segments.max() + 1):
            place = np.flatnonzero(segments == segment)
            assert (np.diff(place) == 1).all(), "a segment must be contiguous"
            np.testing.assert_array_equal(positions[place], np.arange(len(place)), "positions restart at 0")
            found.append(tuple(tokens[place].tolist()))
        assert (tokens[segments == 0] == 0).all(), "padding is 0"
    return found


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 16), min_size=1, max_size=60))
def test_no_token_is_lost_doubled_or_cut(lengths):
    examples = _examples(lengths)
    packed = PackedRows(examples, 16)
    rows = [packed[i] for i in range(len(packed))]
    segments = _segments({key: np.stack([row[key] for row in rows]) for key in rows[0]})
    assert Counter(segments) == Counter(tuple(e["tokens"].tolist()) for e in examples)
    assert sum(row["weights"].sum() for row in rows) == sum(lengths)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 16), min_size=1, max_size=60))
def test_packing_is_never_worse_than_half_full(lengths):
    """Best fit leaves at most one row half empty, since two such rows would have been joined."""
    packed = PackedRows(_examples(lengths), 16)
    filled = sorted((packed[i]["segment_ids"] > 0).sum() for i in range(len(packed)))
    assert all(a + b > 16 for a, b in itertools.pairwise(filled))


def test_short_examples_fill_rows_nearly_whole():
    lengths = np.random.default_rng(0).integers(20, 90, 2000).tolist()
    assert sum(lengths) / (len(PackedRows(_examples(lengths), 128)) * 128) > 0.97


def test_too_long_examples_are_counted_in_one_warning(caplog):
    with caplog.at_level(logging.WARNING, "ttcjax.train.batches"):
        packed = PackedRows(_examples([5, 30, 6, 40]), 16)
    assert len(packed) == 1
    assert caplog.messages == ["left out 2 of 4 examples longer than seq_len=16 tokens"]


def test_all_too_long_names_the_shortest():
    with pytest.raises(UserError, match=r"all 2 examples .* seq_len=16 .* shortest has 17"):
        PackedRows(_examples([17, 30]), 16)


def test_no_examples_is_a_user_error():
    with pytest.raises(UserError, match="no training examples"):
        PackedRows([], 16)


def test_an_epoch_holds_every_example_once_and_the_next_has_another_order():
    examples = _examples(np.random.default_rng(0).integers(3, 16, 200).tolist())
    rows = len(PackedRows(examples, 16))
    batches = train_batches(examples, batch_size=1, seq_len=16, seed=5)
    epochs = [[_segments(next(batches)) for _ in range(rows)] for _ in range(2)]
    expected = Counter(tuple(e["tokens"].tolist()) for e in examples)
    for epoch in epochs:
        assert Counter(s for row in epoch for s in row) == expected
    assert epochs[0] != epochs[1]


def test_the_seed_alone_decides_the_order():
    examples = _examples([7] * 100)
    draw = [next(train_batches(examples, batch_size=8, seq_len=16, seed=seed))["tokens"] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(draw[0], draw[1])
    assert not np.array_equal(draw[0], draw[2])


def test_the_place_survives_json():
    examples = _examples([7] * 100)

    def fresh():
        return train_batches(examples, batch_size=8, seq_len=16, seed=1)

    batches = fresh()
    for _ in range(9):
        next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    resumed = fresh()
    resumed.set_state(state)
    for _ in range(3):
        np.testing.assert_array_equal(next(resumed)["tokens"], next(batches)["tokens"])


@pytest.mark.parametrize("processes", [2, 3, 5])
def test_every_process_draws_the_same_batches(monkeypatch, processes):
    """Each takes its devices' rows of them, so their number decides neither the rows of a batch nor their places."""
    examples = _examples([9] * 64)

    def drawn(process, count):
        monkeypatch.setattr("jax.process_index", lambda: process)
        monkeypatch.setattr("jax.process_count", lambda: count)
        train = train_batches(examples, batch_size=8, seq_len=16, seed=1)
        return [next(train), next(train), *valid_batches(examples, batch_size=8, seq_len=16)]

    alone = drawn(0, 1)
    for process in range(processes):
        for batch, want in zip(drawn(process, processes), alone, strict=True):
            for key in want:
                np.testing.assert_array_equal(batch[key], want[key], err_msg=f"{key} in process {process}")


@pytest.mark.parametrize(("rows", "multiple", "padded"), [(4, 6, 6), (4, 4, 4), (7, 3, 9), (1, 16, 16), (18, 12, 24)])
def test_rows_of_padding_come_last_and_weigh_nothing(rows, multiple, padded):
    batch = valid_batches(_examples([16] * rows), batch_size=rows, seq_len=16)[0]
    found = pad_rows(batch, multiple)
    for key, values in batch.items():
        assert found[key].shape == (padded, 16)
        assert found[key].dtype == values.dtype
        np.testing.assert_array_equal(found[key][:rows], values, err_msg="a real row has moved")
        assert not found[key][rows:].any()


def test_validation_is_one_padded_pass():
    examples = _examples([10] * 11)
    batches = valid_batches(examples, batch_size=4, seq_len=16)
    assert [batch["tokens"].shape for batch in batches] == [(4, 16)] * 3
    assert Counter(s for b in batches for s in _segments(b)) == Counter(tuple(e["tokens"].tolist()) for e in examples)
    assert batches[-1]["weights"][3].sum() == 0


@pytest.fixture(scope="module")
def tokenizer():
    lines = [f"What is {a} plus {b}?\n{a} + {b} = {a + b}\nAnswer: {a + b}" for a in range(30) for b in range(30)]
    return tokenizers.train(lines, TokenizerConfig(vocab_size=400))


PROMPT, SOLUTION = "What is 3 plus 4?\n", "3 + 4 = 7\nAnswer: 7"


def test_policy_loss_is_on_solution_and_end_mark_only(tokenizer):
    (example,) = policy_examples([(PROMPT, SOLUTION)], tokenizer)
    weighted = example["targets"][example["weights"] > 0]
    assert weighted.tolist() == [*tokenizer.encode(SOLUTION), tokenizer.eos_id]
    np.testing.assert_array_equal(example["tokens"][1:], example["targets"][:-1])
    assert example["tokens"].tolist() == [tokenizer.bos_id, *tokenizer.encode(PROMPT), *tokenizer.encode(SOLUTION)]


def test_policy_prompt_weight_applies_to_the_prompt(tokenizer):
    (example,) = policy_examples([(PROMPT, SOLUTION)], tokenizer, prompt_weight=0.25)
    prompt = len(tokenizer.encode(PROMPT))
    assert set(example["weights"][:prompt]) == {0.25}
    assert set(example["weights"][prompt:]) == {1.0}


def test_prm_labels_stand_at_the_ends_of_solution_steps(tokenizer):
    """The newline of the prompt ends no step; the last step ends at the end mark."""
    (example,) = prm_examples([(PROMPT, SOLUTION, [0.25, 0.75])], tokenizer)
    ends = np.flatnonzero(example["weights"])
    assert example["labels"][ends].tolist() == [0.25, 0.75]
    first, second = SOLUTION.split("\n")
    decoded = tokenizer.decode(example["tokens"][1 : ends[0] + 1].tolist())
    assert decoded == PROMPT + first + "\n"
    assert tokenizer.decode(example["tokens"][ends[0] + 1 : ends[1]].tolist()) == second
    assert example["tokens"][ends[1]] == tokenizer.eos_id
    marked = example["tokens"][example["solution"] > 0].tolist()
    assert tokenizer.decode(marked[:-1]) == SOLUTION, "a token of the solution is not marked as its own"
    assert example["right"].tolist() == (0.75 * example["solution"]).tolist()


def test_prm_rows_with_another_number_of_labels_are_counted(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, "ttcjax.train.batches"):
        kept = prm_examples([(PROMPT, SOLUTION, [0.5]), (PROMPT, SOLUTION, [0.5, 1.0])], tokenizer)
    assert len(kept) == 1
    assert "left out 1 of 2 labelled solutions" in caplog.text


def test_prm_labels_of_another_tokenizer_are_a_user_error(tokenizer):
    with pytest.raises(UserError, match="make the labels again"):
        prm_examples([(PROMPT, SOLUTION, [0.5, 0.5, 0.5])], tokenizer)
