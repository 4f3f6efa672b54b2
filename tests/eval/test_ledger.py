"""What a question costs, counted by hand on made-up rows."""

import dataclasses
import json

import pyarrow as pa
import pytest
from etils import epath

from tests.eval.test_report import BUDGETS, CONFIG, QUESTIONS, STRATEGIES, make_rows
from ttcjax.errors import UserError
from ttcjax.eval import ledger
from ttcjax.eval.rows import SCHEMA

ALONE = "majority:ties=first"
TRAINED = {"policy": {"params": 1000, "tokens_seen": 7}, "prm": {"params": 3000, "tokens_seen": 5}}
PROMPTS = {f"test-{q:03d}": 4 + q % 2 for q in range(QUESTIONS)}


def counted():
    bank, search = make_rows()
    for cell in search.values():
        for row in cell:
            row["lookahead_tokens"] = 2
    every = [row for cell in search.values() for row in cell]
    sampled, searched = (pa.Table.from_pylist(rows, schema=SCHEMA) for rows in (bank, every))
    sweep = dataclasses.replace(CONFIG.sweep, strategies=(ALONE, *STRATEGIES))
    return ledger.summarise(dataclasses.replace(CONFIG, sweep=sweep), sampled, searched, PROMPTS, TRAINED)


def test_costs_are_counted_by_question():
    """Every row has 10 tokens, all of them read by the verifier, those of a search 2 more of rollouts; prompts 4.5."""
    found = counted()["per_question"]
    assert set(found) == {ALONE, *STRATEGIES}
    for n in BUDGETS:
        read = 4.5 + 10 * n
        alone, majority, weighted, beam = (
            found[name][str(n)] for name in (ALONE, STRATEGIES[0], STRATEGIES[1], STRATEGIES[3])
        )
        assert alone["flops"] == pytest.approx(2 * 1000 * read)
        assert alone["verifier_tokens"] == 0
        assert majority == weighted, "ties go by the verifier's scores"
        assert weighted["flops"] == pytest.approx(2 * 1000 * read + 2 * 3000 * read)
        assert beam["flops"] == pytest.approx(2 * 1000 * (read + 2 * n) + 2 * 3000 * read)
        assert (beam["policy_tokens"], beam["lookahead_tokens"]) == (10 * n, 2 * n)
        assert {cell["generations"] for cell in (alone, majority, weighted, beam)} == {n}
    # Narrower than its width, a beam search is best-of-N.
    assert found["beam:width=4"]["2"] == found[STRATEGIES[1]]["2"]


def test_training_costs_six_a_parameter_and_token():
    assert counted()["training"]["prm"] == {"params": 3000, "tokens": 5, "flops": 6 * 3000 * 5}


def test_models_are_found_where_they_were_trained(tmp_path):
    workdir = epath.Path(tmp_path)
    model = {"params": 3, "tokens_seen": 4, "valid_loss": 0.5}
    records = {"policy": model, "prm": model, "orm": {"history": model, "no_history": model}, "data": {"train": 9}}
    for name, result in (records | {"revision.partial": model}).items():
        (workdir / name).mkdir()
        (workdir / name / "stage.json").write_text(json.dumps({"stage": name, "result": result}))
    found = ledger.models(workdir)
    assert found is not None
    assert set(found) == {"policy", "prm", "orm/history", "orm/no_history"}
    assert found["orm/history"] == {"params": 3, "tokens_seen": 4}
    (workdir / "prm" / "stage.json").unlink()
    assert ledger.models(workdir) is None
    (workdir / "prm" / "stage.json").write_text("{")
    with pytest.raises(UserError, match="is corrupt: delete"):
        ledger.models(workdir)


def test_it_is_drawn_and_written():
    point = {"mean": 0.5, "low": 0.4, "high": 0.6}
    summary = {
        "name": "made up",
        "compute": counted(),
        "accuracy": {strategy: {str(n): point for n in BUDGETS} for strategy in (ALONE, *STRATEGIES)},
    }
    ledger.figure(summary).canvas.draw()
    assert len(ledger.csv_rows(summary)) == (1 + len(STRATEGIES)) * len(BUDGETS) * 6
