"""The verifier that selects among revisions: chosen by how it selects, and used by whoever asks for it."""

import dataclasses
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.eval.sections.test_revisions import row as chain_row
from ttcjax.config import (
    ChainsConfig,
    ConfigError,
    DataConfig,
    ExperimentConfig,
    ORMConfig,
    PRMConfig,
    RevisionConfig,
    SamplerConfig,
    to_dict,
)
from ttcjax.data import loader
from ttcjax.engine.engine import Engine, Prompt, Solution
from ttcjax.eval.collect import revision_chains
from ttcjax.eval.records import verifier_scores
from ttcjax.eval.records.answer_chains import AnswerChains
from ttcjax.pipeline import solve
from ttcjax.runtime.errors import UserError
from ttcjax.search import revision_verifiers
from ttcjax.search.chains import Answer
from ttcjax.search.revision_verifiers import Judges
from ttcjax.testing import folders
from ttcjax.train.models import verifier_choice
from ttcjax.verify.aggregate import aggregate

CONFIG = ExperimentConfig(
    sampler=SamplerConfig(max_tokens=24),  # Leaves room for answers in view.
    revision=RevisionConfig(enabled=True),
    orm=ORMConfig(variants=("history", "no_history")),
)

TASK = loader.task(DataConfig(name="gsm8k", dir="unset"))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4))
def test_selection_on_validation_is_that_of_the_report(seed, questions, parallel, sequential):
    """Of every head of the chains as `AnswerChains` has it, whose rows come from a table."""
    rng = np.random.default_rng(seed)
    shape = (questions, parallel, sequential)
    groups = rng.integers(-1, 3, shape)
    correct = (groups == 0) & (rng.random(shape) < 0.9)  # Equal answers may be judged differently, as graders may.
    scores = rng.integers(0, 4, shape) / 4
    rows = [
        chain_row(f"q{q}", c, s, None if groups[q, c, s] < 0 else f"a{groups[q, c, s]}", bool(correct[q, c, s]), 0.0)
        | {"scores": verifier_scores.nested({"history": [float(scores[q, c, s])]})}
        for q, c, s in np.ndindex(shape)
    ]
    laid_out = AnswerChains.from_table(
        pa.Table.from_pylist(rows, schema=revision_chains.SCHEMA), [sequential] * parallel
    )
    heads = [laid_out.accuracy(s, parallel, "hierarchical", "history").mean() for s in range(1, sequential + 1)]
    assert revision_verifiers.selection_accuracy(groups, correct, scores) == pytest.approx(np.mean(heads))


def test_nothing_that_can_be_read_is_wrong():
    shape = (2, 1, 3)
    assert revision_verifiers.selection_accuracy(np.full(shape, -1), np.ones(shape, bool), np.zeros(shape)) == 0


def test_of_equal_verifiers_the_first_is_best():
    assert revision_verifiers.best({"history": 0.5, "no_history": 0.75, "prm": 0.75}) == "no_history"


class Reader(Engine):
    """An engine that knows the truth of each text and scores by the verifier's own view of it."""

    texts: ClassVar[dict[str, bool]] = {}
    shown: ClassVar[dict[str, set[int]]] = {}

    def __init__(self, policy, tokenizer, sampler, verifier, steps=None):
        self.policy_config, self.tokenizer, self.sampler, self.verifier = policy.config, tokenizer, sampler, verifier

    def encode_prompt(self, question, text):
        return Prompt(question, (self.tokenizer.bos_id, *self.tokenizer.encode(text)))

    def score(self, prompts, solutions, before=None):
        self.shown[self.verifier] = {len(view) > 0 for views in before or () for view in views}
        found = []
        for group in solutions:
            right = [self.texts[s.text] for s in group]
            # The PRM's last step tells nothing, its lowest the truth; `history` likes what is wrong.
            steps = {
                "prm": [(0.9 if r else 0.1, 0.5) for r in right],
                "history": [(0.5, 0.2 if r else 0.8) for r in right],
                "no_history": [(0.1, 0.5) for _ in right],
            }[self.verifier]
            found.append([dataclasses.replace(s, step_scores=some) for s, some in zip(group, steps, strict=True)])
        return found


@pytest.fixture
def reader(tiny, monkeypatch):
    """Judge chains of two answers with scripted verifiers; returns a function of the aggregation."""
    monkeypatch.setattr(verifier_choice, "Engine", Reader)
    monkeypatch.setattr(Reader, "shown", {})
    rows, texts = [], {}
    for q in range(6):
        for c in range(2):
            # One chain begins right, the other ends right: the first one in two questions; in the last question none.
            begins = (c == 0) == (q < 2)
            right = [begins and q < 5, not begins and q < 5]
            answers = [f"{q} {c} {k}\n#### {q if r else 90 + c}" for k, r in enumerate(right)]
            texts |= dict(zip(answers, right, strict=True))
            rows.append(
                {
                    "question": f"q{q}",
                    "prompt": f"How many? {q}\n",
                    "chain": c,
                    "answers": answers,
                    "correct": right,
                    "parsable": [True, q != 4],
                }
            )
    monkeypatch.setattr(Reader, "texts", texts)

    def judge(**prm):
        config = dataclasses.replace(CONFIG, prm=PRMConfig(**prm))
        return verifier_choice.judge(
            Judges.of(config),
            config.sampler,
            config.revision.view,
            lambda name: name,  # type: ignore[arg-type]
            tiny.policy,
            tiny.tokenizer,
            TASK,
            rows[::-1],
        )

    return judge


def test_the_verifier_that_selects_best_on_held_out_chains_is_chosen(reader):
    found = reader(aggregate="min")
    assert found["chosen"] == "prm"
    assert found["questions"] == 6
    # Of one answer a chain, and of two, one chain each begins right; the truth finds it, the contrary never does.
    assert found["accuracy"]["prm"] == pytest.approx(5 / 6)
    assert found["accuracy"]["history"] == 0
    assert Reader.shown == {"history": {True, False}, "no_history": {False}, "prm": {False}}


def test_the_prm_is_judged_by_the_aggregate_of_its_steps(reader):
    """Its last steps say nothing, and then the first of equals is taken."""
    found = reader(aggregate="last")
    assert found["accuracy"]["prm"] == found["accuracy"]["no_history"] == pytest.approx(2 / 6)
    assert found["chosen"] == "no_history"


def judged(folder, **result):
    folders.complete(folder / "orm", result=result, config=to_dict(CONFIG))
    return epath.Path(folder)


def chosen(config, workdir):
    return Judges.of(config).chosen(config.chains.verifier, workdir / "orm")


@pytest.mark.parametrize("name", ["history", "no_history", "prm"])
def test_the_verifier_is_the_one_named_or_the_one_that_validation_chose(tmp_path, name):
    workdir = judged(tmp_path, selection={"chosen": name})
    assert chosen(CONFIG, workdir) == name
    for other in Judges.of(CONFIG).names:
        fixed = dataclasses.replace(CONFIG, chains=ChainsConfig(verifier=other))  # type: ignore[arg-type]
        assert chosen(fixed, workdir) == other
    assert revision_verifiers.stage_of(name) == ("prm" if name == "prm" else f"orm/{name}")


def test_a_workdir_that_does_not_say_is_refused(tmp_path):
    for result in ({"history": {"params": 3}}, {"selection": {"chosen": "another"}}):
        with pytest.raises(UserError, match=r"run the orm stage, or name one with --chains\.verifier"):
            chosen(CONFIG, judged(tmp_path, **result))
    with pytest.raises(UserError, match="run the orm stage"):
        chosen(CONFIG, epath.Path(tmp_path / "empty"))


def test_a_verifier_that_is_not_trained_cannot_be_named():
    with pytest.raises(ConfigError, match=r"chains\.verifier \(no_history\) must be validation, prm or one of"):
        dataclasses.replace(CONFIG, orm=ORMConfig(variants=("history",)), chains=ChainsConfig(verifier="no_history"))


def test_one_question_is_answered_with_the_verifier_of_the_run(tmp_path):
    """`chains.verifier` may have been set after the ORM stage was complete."""
    workdir = judged(tmp_path, selection={"chosen": "no_history"})
    assert solve._selecting(CONFIG, workdir) == "no_history"
    later = dataclasses.replace(CONFIG, chains=ChainsConfig(verifier="prm"))
    folders.complete(workdir / "chains", config=to_dict(later))
    assert solve._selecting(CONFIG, workdir) == "prm"


@pytest.mark.parametrize(("verifier", "how"), [("prm", "product"), ("history", "last")])
def test_a_reviser_scores_as_its_verifier_was_trained(tiny, verifier, how):
    config = dataclasses.replace(CONFIG, prm=PRMConfig(aggregate="product"))

    class Steps(Reader):
        def score(self, prompts, solutions, before):
            return [[dataclasses.replace(s, step_scores=(0.5, 0.75)) for s in group] for group in solutions]

    engine = Steps(tiny.policy, tiny.tokenizer, config.sampler, None)
    answer = Answer(Solution((5, tiny.tokenizer.eos_id), "5", finished=True, logprob=0.0), shown=0)
    prompts = [engine.encode_prompt("q", "How?\n")]
    reviser = Judges.of(config).reviser(engine, prompts, config.revision.view, verifier)
    [[[scored]]] = reviser.score([[[answer]]])
    assert scored.score == aggregate([(0.5, 0.75)], how)[0]
