"""What the revision model and its verifiers learn from, token by token."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcjax.search.context import Context
from ttcjax.train.batches import JudgedAnswer, orm_examples, revision_examples
from ttcjax.train.models.orm import attempt_rows

TEXT = st.text("0123456789+=\n", max_size=8)


@pytest.mark.parametrize("restate", [False, True])
def test_the_loss_is_on_the_target_alone(tiny, restate, capsys):
    """Printed for readers: what an example looks like, its loss in brackets."""
    rows = [("What is 2+3*4?\n", ["2+3=5\n5*4=20\n20", "3*4=11\n2+11=13\n13"], "3*4=12\n2+12=14\n14")]
    context = Context(tiny.tokenizer, restate=restate)
    [example] = revision_examples(rows, context, tiny.tokenizer, 128)
    ids = [int(example["tokens"][0]), *example["targets"].tolist()]
    pieces = [
        ("".join(tiny.tokenizer.decode([t]) or ("<s>" if t == tiny.tokenizer.bos_id else "</s>") for t in group), on)
        for on, group in (
            (on, [ids[i] for i in part])
            for on, part in itertools.groupby(range(len(ids)), lambda i: i > 0 and example["weights"][i - 1] > 0)
        )
    ]
    with capsys.disabled():
        print("\n" + "".join(f"[{text}]" if on else text for text, on in pieces))
    assert [on for _, on in pieces] == [False, True], "the loss is not one stretch at the end"
    assert (
        tiny.tokenizer.decode([t for t, w in zip(example["targets"], example["weights"], strict=True) if w])
        == (rows[0][2])
    )
    assert example["targets"][-1] == tiny.tokenizer.eos_id, "the model must learn to end"
    assert set(np.unique(example["weights"])) == {0.0, 1.0}


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, max_size=5), TEXT, st.integers(40, 90), st.booleans())
def test_examples_are_what_a_chain_shows(tiny, answers, target, seq_len, restate):
    """The question, whole answers, the target, each with its end mark, and nothing of the answers that do not fit."""
    prompt = "How many?\n"
    context = Context(tiny.tokenizer, restate=restate)
    [example] = revision_examples([(prompt, answers, target)], context, tiny.tokenizer, seq_len)
    ids = (int(example["tokens"][0]), *example["targets"].tolist())
    question = tuple(tiny.tokenizer.encode(prompt))
    [end] = context.encode([target])
    shown = context.view(question, answers, seq_len - len(question) - len(end))
    assert ids == (tiny.tokenizer.bos_id, *question, *shown.tokens, *end)
    assert shown.answers <= 4
    assert len(example["tokens"]) <= max(seq_len, len(question) + len(end))
    assert example["weights"].sum() == len(end)


@pytest.mark.parametrize("every_step", [False, True])
def test_a_verifier_judges_the_answer_and_not_what_came_before(tiny, every_step):
    row = JudgedAnswer("q", "How many?\n", ("1+1=3\n3",), "1+1=2\n2", True)
    context = Context(tiny.tokenizer)
    [example] = orm_examples([row], context, tiny.tokenizer, 128, every_step=every_step)
    [tokens] = context.encode([row.answer])
    begin = len(example["tokens"]) - len(tokens)
    judged = np.flatnonzero(example["weights"])
    assert judged[-1] == len(example["tokens"]) - 1, "the end of the answer is judged"
    assert (judged >= begin).all()
    assert len(judged) == (2 if every_step else 1)
    assert (example["labels"][judged] == 1).all()
    np.testing.assert_array_equal(example["solution"], np.arange(len(example["tokens"])) >= begin)
    np.testing.assert_array_equal(example["right"], example["solution"])


@pytest.mark.parametrize("history", [True, False])
def test_attempts_are_judged_with_what_was_before_them(history):
    chain = {
        "question": "q",
        "prompt": "p\n",
        "answers": ["a", "b", "c"],
        "correct": [False, False, True],
        "parsable": [True, False, True],
    }
    rows = attempt_rows([chain], history=history)
    assert [(row.answer, row.correct) for row in rows] == [("a", False), ("c", True)], (
        "what has no answer is no candidate"
    )
    assert [row.before for row in rows] == ([(), ("a", "b")] if history else [(), ()])
