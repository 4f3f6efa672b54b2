"""Step labels, value by value, on a policy whose every completion is written down."""

import dataclasses

import pytest

from ttcjax.config import DataConfig, ExperimentConfig, LabelConfig, SamplerConfig
from ttcjax.data import loader
from ttcjax.data.task import Example
from ttcjax.engine.engine import Engine, Prompt, Solution
from ttcjax.text.steps import LINES
from ttcjax.train.collect import labels

CONFIG = ExperimentConfig(
    data=DataConfig(name="procmath"),
    sampler=SamplerConfig(max_tokens=40),
    labels=LabelConfig(samples=3, rollouts=4, seed=5, temperature=0.25),
)
EXAMPLE = Example(
    id="q", question="What is 3*4-2?", solution="3*4=12\n12-2=10\nAnswer: 10", answer="10", level=1, subject="algebra"
)
GOOD, BAD = "3*4=12\n12-2=10\nAnswer: 10", "3*4=12\n12-2=9\nAnswer: 9"


class ScriptedEngine(Engine):
    """Samples what it is told, and keeps what it was asked."""

    def __init__(self, tokenizer, samples, completions):
        self.tokenizer, self.samples, self.completions = tokenizer, samples, completions
        self.step_marks = LINES.marks(tokenizer)
        self.sampler = CONFIG.sampler
        self.asked = []

    def encode_prompt(self, question_id, text):
        return Prompt(question_id, (1, *self.tokenizer.encode(text)))

    def solution(self, text, finished=True):
        tokens = (*self.tokenizer.encode(text), *([self.tokenizer.eos_id] if finished else []))
        return Solution(tokens, text, finished, 0.0)

    def sample(self, prompts, n, seed, *, temperature=None):
        self.asked.append((prompts, n, seed, temperature))
        if len(self.asked) == 1:
            return [[self.solution(*s) for s in self.samples] for _ in prompts]
        start = self.tokenizer.encode("What is 3*4-2?\n")
        before = [self.tokenizer.decode(p.tokens[1 + len(start) :]) for p in prompts]
        return [[self.solution(*c) for c in self.completions[text]] for text in before]


@pytest.fixture
def task():
    return loader.task(CONFIG.data)


def labelled(tiny, task, samples, completions):
    engine = ScriptedEngine(tiny.tokenizer, samples, completions)
    counts = labels._Counts()
    return labels.label(engine, task, [EXAMPLE], CONFIG.labels, counts), engine, counts


def test_a_label_is_the_share_of_completions_that_end_right(tiny, task):
    right, wrong = ("Answer: 10",), ("Answer: 9",)
    completions = {
        "3*4=12\n": [("12-2=10\nAnswer: 10",)] * 3 + [wrong],
        "3*4=12\n12-2=10\n": [right] * 4,
        "3*4=12\n12-2=9\n": [right, wrong, wrong, wrong],
    }
    rows, engine, counts = labelled(tiny, task, [(GOOD,), (BAD,), (GOOD,)], completions)
    assert [row["step_values"] for row in rows] == [[0.75, 1.0, 1.0], [0.75, 0.25, 0.0], [0.75, 1.0, 1.0]]
    assert [row["correct"] for row in rows] == [True, False, True]
    prompts, n, seed, temperature = engine.asked[1]
    assert (n, seed, temperature) == (4, 6, 0.25)
    assert len(prompts) == 3 == len({p.id for p in prompts}), "a prefix that samples share is completed once"
    assert counts.rollouts == 12
    read = [len(prompt.tokens) for asked, *_ in engine.asked for prompt in asked]
    written = [(GOOD,), (BAD,), (GOOD,), *(text for texts in completions.values() for text in texts)]
    assert counts.tokens == sum(read) + sum(1 + len(tiny.tokenizer.encode(text)) for [text] in written)


def test_a_completion_that_was_cut_off_is_wrong(tiny, task):
    """`Answer: 10` may have been about to become 100."""
    cut = [("Answer: 10", False)] * 4
    rows, _, _ = labelled(tiny, task, [(GOOD,)], {"3*4=12\n": cut, "3*4=12\n12-2=10\n": cut})
    assert rows[0]["step_values"] == [0.0, 0.0, 1.0]


def test_completions_have_the_room_the_sample_had_left(tiny, task):
    any_end = [("Answer: 1",)] * 4
    _, engine, _ = labelled(tiny, task, [(GOOD,)], {"3*4=12\n": any_end, "3*4=12\n12-2=10\n": any_end})
    start = len(engine.asked[0][0][0].tokens)
    for prompt in engine.asked[1][0]:
        assert prompt.max_tokens == 40 - (len(prompt.tokens) - start)


def test_samples_without_an_answer_are_dropped(tiny, task):
    samples = [("3*4=12\nso",), (GOOD, False), (GOOD,)]
    any_end = [("Answer: 1",)] * 4
    rows, _, counts = labelled(tiny, task, samples, {"3*4=12\n": any_end, "3*4=12\n12-2=10\n": any_end})
    assert [row["sample"] for row in rows] == [2]
    assert dataclasses.astuple(counts)[:3] == (3, 2, 1)
