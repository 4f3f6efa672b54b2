"""A sweep of a strategy that may stop before its budget is spent."""

import collections
import dataclasses
import statistics
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from tests.eval.collect.test_sweep_runs import CONFIG, QUESTIONS, ScriptedEngine
from ttcjax.data import loader
from ttcjax.data.task import Example
from ttcjax.eval.collect import searches
from ttcjax.eval.collect.bank import result_rows
from ttcjax.eval.records import measured
from ttcjax.eval.sections.spending import costs
from ttcjax.runtime.stage import Inputs


def models_of(settings, task, engine):
    """Return models of which the policy and its verifier are a scripted engine."""
    models = searches.Models(settings, Inputs({}), task)
    models.base = engine
    return models


@pytest.mark.parametrize("select", ["majority", "weighted"])
def test_rows_are_what_was_drawn_until_the_vote_was_settled(tiny, tmp_path, select):
    """Rows are those of best-of-N as far as they go; a vote is scored for the report, and no verifier is counted."""
    strategy = f"adaptive:wave=2,confidence=0.6{'' if select == 'majority' else ',select=weighted'}"
    base = dataclasses.replace(CONFIG.sweep, strategies=(strategy,), budgets=(8,), samples=8)
    config = dataclasses.replace(CONFIG, sweep=base)
    task = loader.task(config.data)
    asked = [Example(f"q{i}", f"What is {i}?", "", str(i), 1, "sums") for i in range(9)]
    engine, told = ScriptedEngine(tiny.tokenizer, config.sampler, "prm"), []
    given, out = searches.Settings.of(config), epath.Path(tmp_path)
    [shard, *_] = searches.shards_of(given, len(asked), {})
    models = models_of(given, task, engine)
    models.on_batch = told.append
    searches.write(searches.by_answers(given)[shard.answers], models, asked, shard, out)
    found = pq.read_table(shard.paths(out)[0]).to_pylist()
    assert sum(told) == 8 * shard.questions, "progress does not end at what was due"
    whole = {
        (prompt.id, i): solution
        for prompt in (engine.encode_prompt(e.id, task.prompt(e.question)) for e in asked)
        for i, solution in enumerate(engine.sample([prompt], 8, shard.seed)[0])
    }
    assert 2 * shard.questions <= len(found) < 8 * shard.questions, "no question stopped early, or one drew nothing"
    for row in found:
        assert row["text"] == whole[row["question"], row["sample"]].text
        assert len(row["step_scores"]) == 2, "the report has nothing to judge it by"
        assert bool(row["verifier_tokens"]) == (select == "weighted")
    for question in {row["question"] for row in found}:
        samples = [row["sample"] for row in found if row["question"] == question]
        assert samples == list(range(len(samples))), "not the head of best-of-N"


def vote(rows):
    """Return how often the most frequent answer is right, over all answers as frequent."""
    answers = [row["answer"] for row in rows if row["answer"] is not None]
    most = [a for a, count in collections.Counter(answers).items() if count == max(map(answers.count, answers))]
    return statistics.mean([float(row["correct"]) for row in rows if row["answer"] in most]) if answers else 0.0


def test_the_report_counts_what_was_drawn(tiny, tmp_path):
    """Accuracies are of the samples there are, none is called missing or unreadable, and costs are theirs."""
    strategy = "adaptive:wave=2,confidence=0.6"
    config = dataclasses.replace(
        CONFIG, sweep=dataclasses.replace(CONFIG.sweep, strategies=("majority", strategy), budgets=(8,), samples=8)
    )
    task, out = loader.task(config.data), epath.Path(tmp_path)
    engine = ScriptedEngine(tiny.tokenizer, config.sampler, "prm")
    asked = [Example(f"q{i}", f"What is {i}?", "", "0", 1, "sums") for i in range(QUESTIONS)]
    # One answer of each question's is right, so that some are.
    asked = [dataclasses.replace(e, answer=task.extract(engine.solution(3, e.id, 0).text) or "0") for e in asked]
    given = searches.Settings.of(config)
    every = searches.shards_of(given, len(asked), {})
    for shard in every:
        searches.write(searches.by_answers(given)[shard.answers], models_of(given, task, engine), asked, shard, out)
    search = pa.concat_tables([pq.read_table(path) for shard in every for path in shard.paths(out)])
    prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in asked]
    samples = engine.score(prompts, engine.sample(prompts, 8, config.sweep.seed))
    bank = pa.Table.from_pylist(
        result_rows(task, asked, samples, strategy="sample", n=8, seed=0, temperature=1.0, seconds=0.0), searches.SCHEMA
    )
    found = measured.measure(measured.Rules.of(config), bank, search)
    assert not found.missing, "a sample that was never due is called missing"
    rows = search.to_pylist()
    seeds = sorted({row["seed"] for row in rows})
    assert len(seeds) == 2
    expected = {
        e.id: statistics.mean([vote([r for r in rows if (r["question"], r["seed"]) == (e.id, seed)]) for seed in seeds])
        for e in asked
    }
    got = dict(zip(found.samples.questions, found.accuracy[strategy][8], strict=True))
    assert got == pytest.approx(expected)
    assert 0 < sum(expected.values()) < len(asked)
    assert len(list(measured.unreadable(search))) == sum(row["answer"] is None for row in rows)

    lengths = {prompt.id: len(prompt.tokens) for prompt in prompts}
    trained: dict[str, Any] = {name: {"params": 1000, "tokens_seen": 1} for name in ("policy", "prm")}
    cost = costs.of_strategies(config.sweep, bank, search, lengths, trained, found.temperatures)[strategy][8]
    assert cost.generations == len(rows) / (2 * len(asked)) < 8
    assert cost.policy_tokens == pytest.approx(sum(row["tokens"] for row in rows) / (2 * len(asked)))
    assert cost.verifier_tokens == 0, "a vote asks no verifier"
