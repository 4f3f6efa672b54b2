import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcjax.config import TokenizerConfig
from ttcjax.text import steps, tokenizer
from ttcjax.text.prompt import question_prompt

TOKENIZER = tokenizer.train(["a b\nx = 3\nAnswer: 4"], TokenizerConfig(vocab_size=400))


@given(st.text(alphabet="ab \n", max_size=30))
def test_steps_join_back_and_each_has_one_end_token(solution):
    parts = steps.split_steps(solution)
    assert steps.join_steps(parts) == solution
    row = [*TOKENIZER.encode(solution), TOKENIZER.eos_id]
    ends = steps.step_end_positions(row, TOKENIZER.step_end_ids)
    assert len(ends) == len(parts), "a solution of k lines has k step-end tokens"
    starts = [0, *(end + 1 for end in ends[:-1])]
    texts = [TOKENIZER.decode(row[a:b]) for a, b in zip(starts, ends, strict=True)]
    assert texts == parts, "the tokens between two ends are exactly one step"


def test_newlines_of_the_prompt_end_no_step():
    prompt = [TOKENIZER.bos_id, *TOKENIZER.encode(question_prompt("a\nb"))]
    row = [*prompt, *TOKENIZER.encode("x = 3\nAnswer: 4"), TOKENIZER.eos_id]
    ends = steps.step_end_positions(row, TOKENIZER.step_end_ids, len(prompt))
    assert min(ends) >= len(prompt)
    assert len(ends) == 2
    assert ends[-1] == len(row) - 1


@pytest.mark.parametrize("lengths", [0, 3, np.array([0, 4, 7])])
def test_mask_of_a_batch_equals_that_of_its_rows(lengths):
    tokens = np.random.default_rng(0).integers(0, 6, (3, 7))
    mask = steps.step_end_mask(tokens, (4, 2), lengths)
    rows = np.broadcast_to(lengths, 3)
    for b in range(3):
        expected = [t >= rows[b] and tokens[b, t] in (2, 4) for t in range(7)]
        assert mask[b].tolist() == expected


def test_prompt_ends_in_one_newline():
    assert question_prompt("What is 1 + 1?") == "What is 1 + 1?\n"
