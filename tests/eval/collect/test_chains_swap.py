"""The swap control in the stage of chains: what it costs, and its rows."""

import dataclasses

import pytest

from ttcjax.config import ChainsConfig, ConfigError, ExperimentConfig
from ttcjax.data.procmath import TASK, generate
from ttcjax.engine.engine import Solution
from ttcjax.eval.collect import revision_chains
from ttcjax.search.chains import Answer


def test_the_control_costs_its_answers_but_the_first():
    config = ExperimentConfig(chains=ChainsConfig(budgets=(1, 4), answers=4, chains=1, shard_questions=8))
    controlled = dataclasses.replace(config, chains=dataclasses.replace(config.chains, swap=4))
    [plain], [swap] = (
        revision_chains.shards_of(revision_chains.Settings.of(given), 8) for given in (config, controlled)
    )
    assert plain.answers == (("revise", 0),)
    assert swap.answers == (("revise", 0), ("swap", 0))
    assert swap.generations == plain.generations + 3, "the first answer has nothing in view and is the chain's own"
    with pytest.raises(ConfigError, match=r"chains\.swap \(5\) must not exceed the 4 answers of a chain"):
        ChainsConfig(budgets=(1, 4), answers=4, chains=1, swap=5)


def test_a_question_without_a_partner_has_no_rows():
    one, other = generate("test", 2, 0)
    answer = Answer(Solution(tokens=(), text=one.solution, finished=True, logprob=0.0, tokens_sampled=0), shown=1)
    rows = revision_chains.result_rows(TASK, [one, other], {"history": [[[answer, answer]], []]}, "swap", 0, 0.0)
    assert [(row["question"], row["strategy"], row["place"], row["correct"]) for row in rows] == [
        (one.id, "swap", 0, True),
        (one.id, "swap", 1, True),
    ]
