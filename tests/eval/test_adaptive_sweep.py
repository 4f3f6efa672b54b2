"""A sweep of a strategy that may stop before its budget is spent."""

import dataclasses

import pyarrow.parquet as pq
import pytest
from etils import epath

from tests.eval.test_sweep_runs import CONFIG, ScriptedEngine
from ttcjax.data import loader
from ttcjax.data.task import Example
from ttcjax.eval import sweep


@pytest.mark.parametrize("select", ["majority", "weighted"])
def test_samples_that_a_settled_vote_left_undrawn_are_empty_and_cost_nothing(tiny, tmp_path, select):
    """Rows are those of best-of-N as far as they go; a vote is scored for the report, and no verifier is counted."""
    strategy = f"adaptive:wave=2,confidence=0.6{'' if select == 'majority' else ',select=weighted'}"
    base = dataclasses.replace(CONFIG.sweep, strategies=(strategy,), budgets=(8,), samples=8)
    config = dataclasses.replace(CONFIG, sweep=base)
    task = loader.task(config.data)
    asked = [Example(f"q{i}", f"What is {i}?", "", str(i), 1, "sums") for i in range(9)]
    engine, told = ScriptedEngine(tiny.tokenizer, config.sampler, "prm"), []
    engine.on_batch = told.append
    [shard, *_] = sweep.shards(config, len(asked))
    out = epath.Path(tmp_path)
    sweep.write(config, task, asked, engine, shard, out)
    found = pq.read_table(shard.paths(out)[0]).to_pylist()
    assert sum(told) == len(found) == 8 * shard.questions, "a question has another number of rows than its budget"
    whole = {
        (prompt.id, i): solution
        for prompt in (engine.encode_prompt(e.id, task.prompt(e.question)) for e in asked)
        for i, solution in enumerate(engine.sample([prompt], 8, shard.seed)[0])
    }
    undrawn = [row for row in found if not row["tokens"]]
    assert 0 < len(undrawn) < len(found)
    for row in found:
        if row["tokens"]:
            assert row["text"] == whole[row["question"], row["sample"]].text
            assert len(row["step_scores"]) == 2, "the report has nothing to judge it by"
            assert bool(row["verifier_tokens"]) == (select == "weighted")
        else:
            assert (row["text"], row["answer"], row["correct"], row["verifier_tokens"]) == ("", None, False, 0)
            later = [r for r in undrawn if r["question"] == row["question"] and r["sample"] > row["sample"]]
            assert len(later) == 7 - row["sample"], "a sample was drawn after one that was not"
