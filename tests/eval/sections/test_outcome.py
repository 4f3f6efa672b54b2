"""The outcome-reward model of base samples: its scores join the bank's rows, and it is judged as the other verifier."""

import dataclasses
import io
import random
import re

import numpy as np
import pyarrow as pa
import pytest
from etils import epath
from rich.console import Console

from tests.eval.report.test_report import BUDGETS, CONFIG, QUESTIONS, SAMPLES, make_rows, run, summarise, write
from ttcjax.config import ORMConfig
from ttcjax.eval.collect import rescore
from ttcjax.eval.records import sample_rows, verifier_scores
from ttcjax.eval.report import report, summary_file
from ttcjax.eval.sections import aggregation
from ttcjax.eval.sections.verifying import outcome
from ttcjax.eval.stats.estimators import LIKELIHOOD, Samples, pass_at_k
from ttcjax.runtime import parquet
from ttcjax.runtime.errors import UserError
from ttcjax.testing import folders

WITH_ORM = dataclasses.replace(CONFIG, orm=ORMConfig(base=True))


def scored(bank, score, verifier=verifier_scores.BASE_ORM):
    """Rows of the rescore stage, in another order than the bank's."""
    found = verifier_scores.rows(bank, verifier, map(score, bank))
    random.Random(0).shuffle(found)
    return found


def write_scores(workdir, found):
    half = len(found) // 2
    for number, piece in enumerate((found[:half], found[half:])):
        parquet.write_shard(parquet.shard_path(workdir / "rescore", number), piece, rescore.SCHEMA)
    folders.complete(workdir / "rescore")


TRAINED = {"steps": 240, "tokens_seen": 1_000, "learnt_from": {"examples": 9, "tokens": 90, "hash": "0123"}}


def trained(**changes):
    """Records of two verifiers, the ORM's changed."""
    return {"prm": {"result": TRAINED}, "base_orm": {"result": TRAINED | changes}}


@pytest.fixture
def judged(tmp_path):
    """A bank, and a verifier that knows every answer's truth in its last score and the contrary in the one before."""
    workdir = epath.Path(tmp_path)
    bank, search = make_rows()
    write(workdir, bank, search)
    write_scores(workdir, scored(bank, lambda row: [float(not row["correct"]), float(row["correct"])]))
    return workdir, bank


def test_a_verifier_that_knows_finds_every_right_answer(judged):
    workdir, bank = judged
    summary = summarise(workdir, WITH_ORM)
    found = summary["orm"]
    right = np.array([row["correct"] for row in bank]).reshape(QUESTIONS, SAMPLES)
    for n in BUDGETS:
        any_right = pass_at_k(right, n).mean()
        assert found["accuracy"]["orm"]["best"][str(n)]["mean"] == pytest.approx(any_right, abs=1e-6)
        # Here random sets of n stand for all; five times the error that they have.
        by_chance = 0.012 if 1 < n < SAMPLES else 1e-6
        assert found["accuracy"]["orm"]["weighted"][str(n)]["mean"] == pytest.approx(any_right, abs=by_chance)
        assert (
            found["accuracy"]["prm"]["weighted"][str(n)]
            == summary["accuracy"]["strategies"]["best_of_n:select=weighted"][str(n)]
        )
    assert found["solution_auroc"]["orm"] == 1
    for row in found["prm_minus_orm"]:
        prm, orm = (found["accuracy"][name][row["selector"]][str(row["n"])]["mean"] for name in ("prm", "orm"))
        assert row["mean"] == pytest.approx(prm - orm, abs=2e-6)
        assert row["low"] <= row["mean"] <= row["high"]


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (trained(), None),
        (trained(steps=64), "the PRM was trained on 240 steps, the ORM on 64"),
        (trained(tokens_seen=1_001), "the PRM was trained on 1,000 tokens, the ORM on 1,001"),
        (trained(learnt_from=TRAINED["learnt_from"] | {"hash": "4567"}), "they were trained on different solutions"),
        (trained(learnt_from=None), "it is not known which solutions each was trained on"),
        ({"prm": {"result": TRAINED}}, "it is not known on how many steps each was trained"),
        ({"prm": {"complete": False}, "base_orm": {"result": TRAINED}}, "it is not known on how many steps each was"),
    ],
)
def test_verifiers_compare_where_they_were_trained_alike(records, reason):
    found = outcome.comparable(records)
    assert found is None if reason is None else found is not None and found.startswith(reason)


def test_the_report_compares_verifiers_of_equal_training_alone(judged):
    workdir, _ = judged
    for changes, held in (({}, {"yes", "no", "undecided"}), ({"steps": 64}, {"not applicable"})):
        for stage, record in trained(**changes).items():
            (workdir / stage).mkdir(exist_ok=True)
            folders.complete(workdir / stage, result=record["result"])
        summary = summarise(workdir, WITH_ORM)
        versus = [claim for claim in summary["claims"] if re.match("The PRM.*the ORM", claim["claim"])]
        assert len(versus) == 2
        assert all(claim["held"] in held for claim in versus)
        assert all(("; the PRM was trained on 240 steps" in c["claim"]) is bool(changes) for c in versus)
        alone = [claim for claim in summary["claims"] if claim["claim"].startswith("By the ORM")]
        assert alone
        assert all(claim["held"] != "not applicable" for claim in alone), "what is of one verifier stays"
        console = Console(file=io.StringIO(), width=80)
        outcome.render(report.results(WITH_ORM, workdir).summary.of(outcome.SECTION), console)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert ("PRM - ORM" in text) is not bool(changes)
        assert ("cannot be told: the PRM was trained on 240 steps, the ORM on 64" in text) is bool(changes)


def test_what_the_largest_budget_brings_is_the_difference_of_the_means(judged):
    workdir, _ = judged
    found = summarise(workdir, WITH_ORM)["orm"]
    mean = {
        (name, rule, int(n)): cell["mean"]
        for name, rules in found["accuracy"].items()
        for rule, cells in rules.items()
        for n, cell in cells.items()
    }
    gap = {n: mean["prm", "weighted", n] - mean["orm", "weighted", n] for n in (2, 8)}
    assert found["gap_growth"]["from"] == 2, "one sample leaves nothing to select"
    assert found["gap_growth"]["mean"] == pytest.approx(gap[8] - gap[2], abs=3e-6)
    for name in ("prm", "orm"):
        for rule in outcome.RULES:
            late = found["late_gain"][name][rule]
            assert late["from"] == 2
            assert late["mean"] == pytest.approx(mean[name, rule, 8] - mean[name, rule, 2], abs=3e-6)
            assert late["low"] <= late["mean"] <= late["high"]
        for n, cell in found["weighted_minus_best"][name].items():
            expected = mean[name, "weighted", int(n)] - mean[name, "best", int(n)]
            assert cell["mean"] == pytest.approx(expected, abs=3e-6)


def test_the_comparison_is_written_and_printed(judged):
    workdir, _ = judged
    summary = run(workdir, WITH_ORM)
    out = workdir / "report.partial"
    assert {"verifiers.png", "verifiers.svg", "verifiers.csv"} <= {path.name for path in out.iterdir()}
    assert len((out / "verifiers.csv").read_text().splitlines()) == 1 + 2 * 2 * len(BUDGETS)
    console = Console(file=io.StringIO(), width=80)
    outcome.render(summary_file.read(workdir / "summary.json").of(outcome.SECTION), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert f"{100 * summary['orm']['accuracy']['orm']['best']['8']['mean']:.1f}" in text


def as_table(bank):
    return pa.Table.from_pylist(bank, schema=sample_rows.SCHEMA)


def test_scores_find_their_rows(judged):
    workdir, bank = judged
    table = as_table(bank)
    joined = verifier_scores.judged_by(table, verifier_scores.BASE_ORM, workdir / "rescore")
    assert [scores[-1] for scores in joined["step_scores"].to_pylist()] == [float(row["correct"]) for row in bank]
    assert joined.drop_columns("step_scores").equals(table.drop_columns("step_scores"))


def test_the_scores_of_any_verifier_are_read_by_its_name(judged):
    """Each finds its own, whatever else the rows hold: other verifiers, seeds, budgets, temperatures."""
    workdir, bank = judged
    own = {name: [[k / 4, i / 256] for i in range(len(bank))] for k, name in enumerate(("base_orm", "judge", "pair"))}
    rows = [row for name, scores in own.items() for row in verifier_scores.rows(bank, name, scores)]
    others = verifier_scores.rows(bank, "judge", [[0.9]] * len(bank))
    for column, value in (("seed", 77), ("temperature", 0.5), ("n", 8), ("strategy", "beam")):
        rows += [row | {column: value} for row in others]
    random.Random(1).shuffle(rows)
    write_scores(workdir, rows)

    def read(name):
        return verifier_scores.judged_by(as_table(bank), name, workdir / "rescore")

    for name, want in own.items():
        assert read(name)["step_scores"].to_pylist() == want, name
    assert read("prm").equals(as_table(bank)), "the bank's own"
    questions = sorted({row["question"] for row in bank})
    by_policy, by_rows = (Samples.from_table(read(name), questions, SAMPLES) for name in ("likelihood", "prm"))
    assert np.array_equal(by_policy.scores("last"), by_rows.scores(LIKELIHOOD))
    with pytest.raises(UserError, match=rf"oracle has no scores of {len(bank)} of {len(bank)} samples"):
        read("oracle")
    write_scores(workdir, [*rows, rows[0]])
    with pytest.raises(UserError, match=rf"1 scores of {rows[0]['verifier']} stand twice"):
        read(rows[0]["verifier"])


@pytest.mark.parametrize("base", [True, False])
def test_a_further_verifier_is_compared_for_being_named(judged, base):
    """A setting alone puts it into numbers, table, text and figure of the report, with or without an ORM."""
    workdir, bank = judged
    rows = scored(bank, lambda row: [0.9, float(not row["correct"])], "judge")
    rows += scored(bank, lambda row: [0.0, 0.5, float(row["correct"])]) if base else []
    write_scores(workdir, rows)
    sweep = dataclasses.replace(CONFIG.sweep, verifiers=("judge:mean=elsewhere",))
    config = dataclasses.replace(CONFIG, sweep=sweep, orm=ORMConfig(base=base))
    summary = report.results(config, workdir).summary
    found = summary_file.encode(summary)["sections"]["orm"]
    assert list(found["accuracy"]) == ["prm", *["orm"] * base, "judge"]
    assert found["solution_auroc"]["judge"] == 0, "it has everything upside down"
    for row in found["prm_minus"]["judge"]:
        prm, own = (found["accuracy"][name][row["selector"]][str(row["n"])]["mean"] for name in ("prm", "judge"))
        assert row["mean"] == pytest.approx(prm - own, abs=2e-6)
    assert bool(found["prm_minus_orm"]) is base
    there = summary.of(outcome.SECTION)
    assert len(outcome.csv_rows(there)) == (2 + base) * 2 * len(BUDGETS)
    for figure in (outcome.figure(there), aggregation.figure(summary.of(aggregation.SECTION), summary)):
        labels = [line.get_label() for axes in figure.get_axes() for line in axes.get_lines()]
        assert "judge" in " ".join(map(str, labels))
    console = Console(file=io.StringIO(), width=80)
    outcome.render(there, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "PRM - judge" in text
    assert ("ORM" in text) is base


def test_rows_of_an_earlier_version_are_refused_in_a_line(judged):
    workdir, bank = judged
    columns = [verifier_scores.SCHEMA.field(name) for name in ("question", "seed", "sample", "step_scores")]
    row = {"question": "q", "seed": 0, "sample": 0, "step_scores": [0.5]}
    parquet.write_shard(parquet.shard_path(workdir / "rescore", 0), [row], pa.schema(columns))
    folders.complete(workdir / "rescore")
    with pytest.raises(UserError, match=r"was written by another version \(its columns differ\): move .* away"):
        verifier_scores.judged_by(as_table(bank), "base_orm", workdir / "rescore")


def test_a_sample_without_a_score_is_refused(judged):
    workdir, bank = judged
    write_scores(workdir, scored(bank, lambda row: [0.5])[2:])
    with pytest.raises(UserError, match=r"base_orm has no scores of 2 of 160 samples: move .*rescore away"):
        summarise(workdir, WITH_ORM)
