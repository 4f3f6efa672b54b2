import collections
import csv
import dataclasses
import io
import itertools
import json
import pathlib
import re
import time
import xml.etree.ElementTree

import numpy as np
import pyarrow as pa
import pytest
from etils import epath
from matplotlib.image import imread
from rich.console import Console

from ttcjax.config import DataConfig, ExperimentConfig, LabelConfig, SweepConfig, config_hash
from ttcjax.data import loader
from ttcjax.data.task import Example
from ttcjax.eval.collect.searches import cell_name
from ttcjax.eval.records import bundle, sample_rows
from ttcjax.eval.records import measured as measured_lib
from ttcjax.eval.records import trained as trained_lib
from ttcjax.eval.records.trained import Trained
from ttcjax.eval.report import catalogue, report, summary_file
from ttcjax.eval.report.coding import encode
from ttcjax.eval.report.drawing import figures, tables
from ttcjax.eval.sections import accuracy, paired
from ttcjax.eval.sections.spending import costs as ledger
from ttcjax.eval.sections.spending import larger_model
from ttcjax.eval.sections.verifying import outcome, verifier_quality
from ttcjax.model import flops
from ttcjax.runtime import parquet
from ttcjax.runtime.errors import UserError
from ttcjax.search import registry
from ttcjax.testing import folders
from ttcjax.verify.quality import VALIDATION_SCHEMA
from ttcjax.verify.select import choose_one

QUESTIONS, SAMPLES, BUDGETS = 20, 8, (1, 2, 4, 8)
STRATEGIES = ("majority", "best_of_n:select=weighted", "beam:width=4", "beam:width=sqrt")
CONFIG = ExperimentConfig(
    name="made_up",
    data=DataConfig(num_test=QUESTIONS),
    sweep=SweepConfig(samples=SAMPLES, budgets=BUDGETS, strategies=STRATEGIES, bootstrap=200, seeds=2),
)


def make_row(rng, q, strategy, n, seed, sample):
    right = rng.random() < (q + 1) / QUESTIONS
    truth = [True, bool(right)]
    return {
        "question": f"test-{q:03d}",
        "level": 1 + q * 5 // QUESTIONS,
        "subject": "algebra",
        "gold": "7",
        "strategy": strategy,
        "n": n,
        "seed": seed,
        "temperature": 1.0,
        "sample": sample,
        "text": "...",
        "answer": "7" if right else rng.choice(["8", "9", None]),
        "correct": bool(right),
        "finished": True,
        "step_scores": [float(np.clip(rng.normal(0.8 if t else 0.4, 0.2), 0, 1)) for t in truth],
        "step_truth": truth,
        "tokens": 10,
        "lookahead_tokens": 0,
        "verifier_tokens": 10,
        "logprob": -1.0 - sample % 3,
        "seconds": 0.1,
    }


def make_rows():
    rng = np.random.default_rng(0)
    bank = [make_row(rng, q, "sample", 0, 2, i) for q in range(QUESTIONS) for i in range(SAMPLES)]
    search = {
        (strategy, n): [
            make_row(rng, q, strategy, n, seed, i) for q in range(QUESTIONS) for seed in (2, 3) for i in range(n)
        ]
        for strategy in STRATEGIES[2:]
        for n in BUDGETS
        if not registry.named(strategy).is_best_of_n(n)
    }
    return bank, search


def write(workdir, bank, search):
    half = len(bank) // 2
    parquet.write_shard(parquet.shard_path(workdir / "bank", 0), bank[:half], sample_rows.SCHEMA)
    parquet.write_shard(parquet.shard_path(workdir / "bank", 1), bank[half:], sample_rows.SCHEMA)
    folders.complete(workdir / "bank", stage="bank")
    for (strategy, n), found in search.items():
        parquet.write_shard(
            parquet.shard_path(workdir / "search", 0, f"{cell_name(strategy)}_{n}"), found, sample_rows.SCHEMA
        )
    folders.complete(workdir / "search")
    parquet.write_shard(parquet.shard_path(workdir / "greedy", 0), greedy_rows(bank), sample_rows.SCHEMA)
    folders.complete(workdir / "greedy")


def greedy_rows(bank, model="policy"):
    """One answer to each question of the bank, right where the question's number is no multiple of 3."""
    first = {row["question"]: row for row in bank}
    return [
        row | {"strategy": f"greedy:{model}", "n": 1, "seed": 0, "sample": 0, "correct": bool(i % 3)}
        for i, row in enumerate(first.values())
    ]


@pytest.fixture
def workdir(tmp_path):
    write(epath.Path(tmp_path), *make_rows())
    return epath.Path(tmp_path)


def run(workdir, config=CONFIG):
    """Return the summary, whose files are known to be there."""
    out = workdir / "report.partial"
    found = folders.run_stage(report.STAGE, config, workdir, out)
    assert sorted(found.pop("files")) == sorted(["../summary.json", *(path.name for path in out.iterdir())])
    assert found == json.loads((workdir / "summary.json").read_text())
    return told(found)


def told(encoded):
    """What a summary's file holds, its sections beside what stands at its head."""
    return {**encoded, **encoded["sections"]}


def summarise(workdir, config=CONFIG):
    """Return the summary without a file written: drawing is most of a report's work."""
    return told(summary_file.encode(report.results(config, workdir).summary))


def test_first_accuracies_are_those_of_the_report(workdir):
    """Printed when the bank is there, long before the report: no other stage's folder is read."""
    (workdir / "search").rmtree()
    console = Console(file=io.StringIO(), width=100)
    report.render_first(CONFIG, workdir, console)
    first = console.file.getvalue()  # type: ignore[attr-defined]
    write(workdir, *make_rows())
    found = summarise(workdir)
    for strategy in (name for name in STRATEGIES if not registry.named(name).searches):
        [line] = [line for line in first.splitlines() if line.strip().startswith(figures.label(strategy))]
        shown = [float(word) for word in line.replace(figures.label(strategy), "").split()]
        assert shown == pytest.approx(
            [100 * found["accuracy"]["strategies"][strategy][str(n)]["mean"] for n in BUDGETS], abs=0.051
        )
    assert "beam" not in first


def test_greedy_answers_are_told_before_the_report(workdir):
    console = Console(file=io.StringIO(), width=100)
    report.render_greedy(CONFIG, workdir, console)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    cell = summarise(workdir)["greedy"]["accuracy"]["policy"]
    assert told.startswith(f"greedy, one answer: right in {100 * cell['mean']:.1f}% ({100 * cell['low']:.0f} to ")
    assert told.endswith(f" of {QUESTIONS} test questions\n")


def without_times(summary):
    return {key: value for key, value in summary.items() if key not in report.TIMING_KEYS}


def expected_vote(block):
    """Share of right answers among the most frequent ones: ties go to the first sample, and any may be it."""
    right = {row["answer"]: row["correct"] for row in block if row["answer"] is not None}
    count = collections.Counter(row["answer"] for row in block if row["answer"] is not None)
    return np.mean([right[answer] for answer in count if count[answer] == max(count.values())] or [0.0])


def naive_accuracy(found, n, rule):
    """Mean over questions of the mean over all sets of n samples of a run, by dictionaries and loops."""
    runs = {}
    for row in sorted(found, key=lambda row: row["sample"]):
        runs.setdefault((row["question"], row["seed"]), []).append(row)
    by_question = {}
    for (question, _), run in runs.items():
        for block in itertools.combinations(run, n):
            if rule == "majority":
                by_question.setdefault(question, []).append(expected_vote(block))
                continue
            index = choose_one(
                [r["answer"] for r in block], np.array([r["step_scores"][-1] for r in block], np.float32), rule
            )
            by_question.setdefault(question, []).append(index is not None and block[index]["correct"])
    return np.mean([np.mean(right) for right in by_question.values()])


def test_the_summary_holds_what_the_rows_say(workdir):
    summary = run(workdir)
    bank, search = make_rows()
    assert summary["questions"] == QUESTIONS
    assert summary["config_hash"] == config_hash(CONFIG)
    assert summary["policy"]["pass_at_1"] == pytest.approx(np.mean([row["correct"] for row in bank]), abs=1e-6)
    assert sum(summary["policy"]["pass_at_1_histogram"]) == QUESTIONS
    strategies, levels_told = summary["accuracy"]["strategies"], summary["accuracy"]["per_level"]
    assert list(strategies) == list(STRATEGIES)
    for strategy in STRATEGIES:
        for n in BUDGETS:
            # Narrower than its width, a beam is best-of-N, and the bank says how that does.
            found = search.get((strategy, n), bank)
            expected = naive_accuracy(found, n, "majority" if strategy == "majority" else "weighted")
            point = strategies[strategy][str(n)]
            # Of the bank's samples random sets stand for all; five times the error that they have here.
            by_chance = 0.012 if found is bank and 1 < n < SAMPLES else 1e-6
            assert point["mean"] == pytest.approx(expected, abs=by_chance), (strategy, n)
            assert point["low"] <= point["mean"] <= point["high"]
    assert summary["aggregation"]["accuracy"]["last"] == strategies["best_of_n:select=weighted"]
    assert set(summary["aggregation"]["accuracy"]) == {"last", "min", "product", "mean"}
    comparisons = summary["paired"]["comparisons"]
    alone = summary["weak_verifiers"]["accuracy"]["likelihood"]
    for pair in comparisons:
        a, b = ({**strategies, paired.ALONE: alone}[pair[k]][str(pair["n"])]["mean"] for k in "ab")
        assert pair["mean"] == pytest.approx(a - b, abs=2e-6)
        assert pair["low"] <= pair["mean"] <= pair["high"]
    assert {(pair["a"], pair["b"]) for pair in comparisons} >= {
        ("best_of_n:select=weighted", "majority"),
        ("best_of_n:select=weighted", paired.ALONE),
        ("beam:width=4", "best_of_n:select=weighted"),
    }
    assert [level["count"] for level in levels_told.values()] == [4] * 5
    for strategy in STRATEGIES:
        levels = [level["accuracy"][strategy]["mean"] for level in levels_told.values()]
        assert np.mean(levels) == pytest.approx(strategies[strategy]["8"]["mean"], abs=1e-6)
    prm = summary["prm"]
    assert 0.8 < prm["step_auroc"] <= 1
    assert 0 < prm["first_error_f1"] <= 1
    assert (prm["first_error_threshold"], prm["first_error_threshold_source"]) == (0.5, "default")
    assert sum(b["count"] for b in prm["reliability"]) == prm["steps"] == 2 * len(bank)
    assert summary["missing"] == 0


def calibrated(temperature):
    """What the report says of a verifier that is right of ends, and of prefixes as if the rest were written greedily.

    Of 40 finished samples 30 are right; prefixes score 1, ends what they are; five more were cut off.
    """
    row, found = make_rows()[0][0], []
    for i in range(45):
        finished, right = i < 40, i < 30
        found.append(
            row
            | {"sample": i, "answer": ("7" if right else "8") if finished else None, "correct": right}
            | {"finished": finished, "step_scores": [1.0, float(right) if finished else 1.0], "step_truth": None}
        )
    settings = bundle.settings_of(dataclasses.replace(CONFIG, labels=LabelConfig(temperature=temperature)))
    bank = pa.Table.from_pylist(found, schema=sample_rows.SCHEMA)
    return encode(verifier_quality.judge(bank, settings.aggregate, settings.temperature, settings.labels_temperature))


def test_what_is_chosen_is_compared_with_the_references_of_the_same_questions(workdir, monkeypatch):
    """A quarter of them repeats a step; a run whose models were trained elsewhere compares nothing."""
    assert summarise(workdir)["over_optimisation"]["references"] == {}
    test = [
        Example(f"test-{q:03d}", "", "1+1=2\n1+1=2\nAnswer: 7" if q % 4 == 0 else "1+1=2\nAnswer: 7", "7", 1, "algebra")
        for q in range(QUESTIONS)
    ]
    trained = {name: {"params": 10, "tokens_seen": 1000} for name in ("policy", "prm")}
    monkeypatch.setattr(trained_lib, "models", lambda workdir: trained)
    monkeypatch.setattr(trained_lib, "prompt_tokens", lambda config, workdir: {example.id: 5 for example in test})
    monkeypatch.setattr(bundle.loader, "load", lambda data, folder: (None, loader.Splits([], [], test)))
    summary = summarise(workdir)
    found = summary["over_optimisation"]
    assert found["references"]["repeated"]["mean"] == 0.25
    cell = found["chosen"]["beam:width=4"]["8"]
    assert cell["repeated_beyond_reference"]["mean"] == pytest.approx(cell["repeated"]["mean"] - 0.25, abs=0.05)
    claimed = [claim["measure"] for claim in summary["claims"] if claim["measure"].startswith("over_optimisation")]
    assert "over_optimisation.chosen[beam:width=4][8].repeated_beyond_reference" in claimed


def test_calibration_compares_like_with_like():
    """Labels at another temperature say nothing of how often samples end right from a step before the last."""
    all_steps = (15 + 5) / 90  # prefixes of samples that are not right, and ends of those cut off
    for temperature in (None, 1.0):
        same = calibrated(temperature)
        assert (same["ece_steps"], same["temperatures"]) == ("all", {"labels": 1.0, "samples": 1.0})
        assert same["ece"] == same["ece_all_steps"] == pytest.approx(all_steps, abs=1e-6)
        assert sum(b["count"] for b in same["reliability"]) == 90
    other = calibrated(0.5)
    assert (other["ece_steps"], other["temperatures"]) == ("last", {"labels": 0.5, "samples": 1.0})
    assert (other["ece"], other["brier"]) == (0, 0)
    assert other["ece_all_steps"] == same["ece"]
    assert sum(b["count"] for b in other["reliability"]) == 40, "a sample without an answer has no last step"


def test_a_sample_that_was_cut_off_is_no_sign_of_an_easy_question():
    """Its steps so far score 1, and it has no answer that could be right."""
    bank, search = make_rows()
    for row in bank:
        if row["question"] == "test-019":
            row |= {"answer": None, "correct": False, "finished": False, "step_scores": [1.0], "step_truth": [True]}
    searched = [row for cell in search.values() for row in cell]
    tables_ = (pa.Table.from_pylist(found, schema=sample_rows.SCHEMA) for found in (bank, searched))
    measured = measured_lib.measure(measured_lib.Rules.of(CONFIG), *tables_)
    predicted = measured.ease("last")["predicted"]
    assert predicted["test-019"] == 0 == min(predicted.values())
    others = [row for row in bank if row["question"] == "test-004" and row["answer"] is not None]
    expected = sum(row["step_scores"][-1] for row in others) / SAMPLES
    assert predicted["test-004"] == pytest.approx(expected)
    assert len(others) < SAMPLES, "all samples of that question have an answer: the test shows less"


def test_differences_behind_claims_are_those_of_the_means(workdir):
    summary = summarise(workdir)
    strategies, found = summary["accuracy"]["strategies"], summary["paired"]
    for row in found["aggregation"]:
        means = (
            (strategies["majority"] if name == "majority" else summary["aggregation"]["accuracy"][name])[str(row["n"])][
                "mean"
            ]
            for name in (row["a"], row["b"])
        )
        assert row["mean"] == pytest.approx(np.subtract(*means), abs=2e-6)
        assert row["low"] <= row["mean"] <= row["high"]
    assert len(found["aggregation"]) == 4 * len(BUDGETS)
    assert {(row["a"], row["b"]) for row in found["strategies"]} == {("beam:width=4", "beam:width=sqrt")}
    for row in found["strategies"]:
        a, b = (strategies[row[key]][str(row["n"])]["mean"] for key in "ab")
        assert row["mean"] == pytest.approx(a - b, abs=2e-6)
    per_bin = summary["compute_optimal"]["per_bin"]["oracle"]
    for strategy in STRATEGIES:
        for name, numbers in (("all", "12345"), ("1-2", "12"), ("3-4", "34"), ("5", "5")):
            cell = found["growth"][strategy][name]
            assert (cell["from"], cell["to"]) == (4, 8)
            expected = np.mean([per_bin[b][strategy]["8"]["mean"] - per_bin[b][strategy]["4"]["mean"] for b in numbers])
            assert cell["mean"] == pytest.approx(expected, abs=2e-6), (strategy, name)
            assert cell["low"] <= cell["mean"] <= cell["high"]


def test_the_exchange_is_fed_with_what_was_measured(workdir, monkeypatch):
    """A larger model that is right where its number is even, and answers in 10 tokens after prompts of 5."""
    larger = [row | {"correct": i % 2 == 0} for i, row in enumerate(greedy_rows(make_rows()[0], "larger"))]
    parquet.write_shard(parquet.shard_path(workdir / "greedy", 1), larger, sample_rows.SCHEMA)
    folders.complete(workdir / "greedy")
    bank, search = (sample_rows.read_folder(workdir / name) for name in ("bank", "search"))
    ease = measured_lib.measure(measured_lib.Rules.of(CONFIG), bank, search).ease("last")["oracle"]
    trained: dict[str, Trained] = {
        name: {"params": size, "tokens_seen": 1000} for name, size in (("policy", 10), ("prm", 10), ("larger", 140))
    }
    monkeypatch.setattr(trained_lib, "models", lambda workdir: trained)
    monkeypatch.setattr(trained_lib, "prompt_tokens", lambda config, workdir: dict.fromkeys(ease, 5))
    records = bundle.Records(bundle.settings_of(CONFIG), workdir)
    costs = records.of(ledger.SECTION)
    exchanged = records.of(larger_model.SECTION)
    found = encode(exchanged, places=15)
    assert list(found["sources"]) == ["search"], "without revisions there is nothing to join"
    assert found["size_ratio"] == 14
    assert found["greedy"]["larger"]["mean"] == 0.5
    judged = found["sources"]["search"]
    assert judged["questions"] == QUESTIONS
    order = sorted(sorted(ease), key=lambda q: -ease[q])
    for number in range(5):
        inside = [sorted(ease).index(q) for q in order[4 * number : 4 * number + 4]]
        assert judged["larger"][str(number + 1)]["mean"] == np.mean([i % 2 == 0 for i in inside])
    assert judged["true_flops"]["inference"]["larger"] == flops.inference(140, 15)
    dearest = max(cells[8].flops for cells in costs.per_question.values())
    assert judged["true_flops"]["inference"]["smaller"]["8"] == dearest


def files_without_times(workdir):
    found = {path.name: path.read_bytes() for path in (workdir / "report.partial").iterdir()}
    page, costs = re.subn(rb'<section id="costs">.*?</section>', b"", found["index.html"], flags=re.DOTALL)
    assert costs == 1
    return found | {"index.html": page}


def test_a_second_run_differs_in_its_times_only(workdir):
    first = run(workdir)
    files = files_without_times(workdir)
    second = run(workdir)
    assert without_times(first) == without_times(second)
    assert files == files_without_times(workdir)
    assert set(first["seconds"]) == {"bank", "search", "greedy", "report"}
    assert first["peak_rss_bytes"] > 1 << 20


def test_files_can_be_opened(workdir):
    summary = run(workdir)
    out = workdir / "report.partial"
    assert imread(out / "accuracy_vs_budget.png").shape[1] >= 900
    assert imread(out / "quality.png").shape[1] >= 900
    for name in ("accuracy_vs_budget.svg", "quality.svg"):
        assert xml.etree.ElementTree.fromstring((out / name).read_bytes()).tag.endswith("svg")
    lines = list(csv.DictReader(io.StringIO((out / "accuracy.csv").read_text())))
    assert [line["strategy"] for line in lines[: -1 : len(BUDGETS)]] == [*STRATEGIES, paired.ALONE]
    assert len(lines) == (len(STRATEGIES) + 1) * len(BUDGETS) + 1
    assert float(lines[0]["mean"]) == summary["accuracy"]["strategies"]["majority"]["1"]["mean"]
    levels = list(csv.DictReader(io.StringIO((out / "per_level.csv").read_text())))
    assert len(levels) == 5 * (2 + len(STRATEGIES))
    assert (out / "missing.csv").read_text() == "strategy,budget,question,seed,sample\n"


def test_missing_samples_count_as_wrong_and_are_listed(tmp_path):
    workdir = epath.Path(tmp_path)
    bank, search = make_rows()
    gone = [row for row in bank if row["question"] == "test-019" and row["sample"] < 3]
    assert any(row["correct"] for row in gone)
    search["beam:width=4", 4] = [row for row in search["beam:width=4", 4] if row["question"] != "test-000"]
    write(workdir, [row for row in bank if row not in gone], search)
    found = report.results(CONFIG, workdir)
    summary = told(summary_file.encode(found.summary))
    right = sum(row["correct"] for row in bank) - sum(row["correct"] for row in gone)
    assert summary["policy"]["pass_at_1"] == pytest.approx(right / len(bank), abs=1e-6)
    listed = [tuple(row) for row in found.missing]
    assert len(listed) == summary["missing"] == 3 + 2 * 4
    assert listed[0] == ("sample", 0, "test-019", 2, 0)
    assert ("beam:width=4", 4, "test-000", 3, 1) in listed


def test_the_error_of_random_subsets_is_stated(workdir):
    found = summarise(workdir)["accuracy"]["monte_carlo_error"]
    assert set(found) == {"majority", "best_of_n:select=weighted"}
    for by_budget in found.values():
        assert by_budget["1"] == by_budget[str(SAMPLES)] == 0, "exact where every sample or all of them are taken"
        assert 0 < by_budget["2"] < 0.02


def test_answers_that_cannot_be_read_are_listed_with_the_reason(tmp_path):
    workdir = epath.Path(tmp_path)
    bank, search = make_rows()
    bank[3] |= {"answer": None, "correct": False, "finished": False}
    searched = search["beam:width=4", 4][1]
    searched |= {"answer": None, "correct": False, "finished": True}
    write(workdir, bank, search)
    listed = [tuple(row) for row in report.results(CONFIG, workdir).unreadable]
    silent = [row for rows_ in (bank, *search.values()) for row in rows_ if row["answer"] is None]
    assert len(listed) == len(silent)
    assert ("sample", 0, bank[3]["question"], bank[3]["seed"], bank[3]["sample"], "cut off") in listed
    place = searched["question"], searched["seed"], searched["sample"]
    assert ("beam:width=4", 4, *place, "no answer found") in listed


def test_the_first_error_threshold_comes_from_validation_scores(workdir):
    # Good steps score 0.2 and more here, so 0.5 would call them all wrong.
    path = workdir / "prm" / "validation_scores.parquet"
    found = [
        {"step_scores": [0.2, 0.1], "step_truth": [True, False]},
        {"step_scores": [0.3], "step_truth": [True]},
    ]
    parquet.write_shard(path, found, VALIDATION_SCHEMA)
    prm = summarise(workdir)["prm"]
    assert prm["first_error_threshold_source"] == "validation"
    assert prm["first_error_threshold"] == pytest.approx(0.15)
    parquet.write_shard(path, found[1:], VALIDATION_SCHEMA)
    assert summarise(workdir)["prm"]["first_error_threshold_source"] == "default"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match=r"validation_scores.parquet is damaged"):
        summarise(workdir)


def test_times_are_those_of_the_current_stages(workdir):
    stages = {"policy": (10.0, 4.0, 1 << 50), "bank": (5.0, 1.5, 7), "bank.old-0123": (99.0, 9.0, 1 << 60)}
    for name, (seconds, compiling, memory) in stages.items():
        folders.complete(workdir / name, seconds=seconds, compile_seconds=compiling, peak_rss_bytes=memory)
    taken = report._timing(workdir, time.perf_counter())
    assert {k: v for k, v in taken["seconds"].items() if k != "report"} == {
        "bank": 5.0,
        "policy": 10.0,
        "search": 1.0,
        "greedy": 1.0,
    }
    assert (taken["compile_seconds"], taken["peak_rss_bytes"]) == (5.5, 1 << 50)


def test_a_data_set_without_step_truth_or_searches_is_reported_too(tmp_path):
    workdir = epath.Path(tmp_path)
    bank = [row | {"step_truth": None, "answer": None, "correct": False, "level": 0} for row in make_rows()[0]]
    write(workdir, bank, {})
    config = dataclasses.replace(
        CONFIG,
        data=DataConfig(name="gsm8k", dir="questions", num_test=1000),
        sweep=dataclasses.replace(CONFIG.sweep, strategies=STRATEGIES[:2]),
    )
    summary = run(workdir, config)
    assert summary["policy"]["pass_at_1"] == 0
    assert summary["policy"]["unparsable"] == 1
    assert summary["prm"]["step_auroc"] is None
    assert summary["prm"]["first_error_f1"] is None
    found = summary_file.read(workdir / "summary.json")
    bottom, top = accuracy.figure(found).axes[0].get_ylim()
    assert -1 < bottom < 0 < 1 <= top, "an axis of accuracies far below zero misleads"
    console = Console(file=io.StringIO(), width=80)
    report.render(found, console)
    assert "step AUROC n/a" in console.file.getvalue()  # type: ignore[attr-defined]


def test_incomplete_results_are_refused_with_the_fix(tmp_path):
    bank, search = make_rows()
    workdir = epath.Path(tmp_path / "a")
    with pytest.raises(UserError, match=r"run the bank stage first"):
        summarise(workdir)
    write(workdir, bank, {k: v for k, v in search.items() if k != ("beam:width=4", 8)})
    with pytest.raises(UserError, match=r"no rows of beam:width=4 at budget 8"):
        summarise(workdir)
    workdir = epath.Path(tmp_path / "b")
    lost = [row for row in bank if row["question"] != "test-003"]
    write(workdir, lost, {k: [r for r in v if r["question"] != "test-003"] for k, v in search.items()})
    with pytest.raises(UserError, match=r"19 of 20 test questions"):
        summarise(workdir)


def test_the_terminal_table_fits_80_columns(workdir):
    summary = report.results(CONFIG, workdir).summary
    console = Console(file=io.StringIO(), width=80)
    report.render(summary, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    for strategy in STRATEGIES:
        assert figures.label(strategy) in text
    assert f"{100 * summary.of(accuracy.SECTION).strategies['majority'][8].mean:.1f}" in text
    assert "missing" not in text


def test_titles_of_tables_stand_on_one_line():
    table = tables.table("a title that is wider than the whole of the table below it", ["N =", "1"])
    table.add_row("a", "2")
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    assert "wider than the whole of the table below it" in console.file.getvalue()  # type: ignore[attr-defined]


def test_legends_cover_no_lines(workdir):
    summary = report.results(CONFIG, workdir).summary
    majority = summary.of(accuracy.SECTION).strategies["majority"]
    orm = outcome.Outcome(None, {"orm": {"weighted": majority}}, [], {}, {})
    summary = dataclasses.replace(summary, sections={**summary.sections, "orm": orm})
    drawn = {
        drawing.entry.name: drawing.draw(found, summary)
        for section, found in catalogue.found(summary)
        for drawing in section.drawings
        if drawing.entry.name in ("aggregation", "quality", "weak_verifiers", "over_optimisation")
    }
    for name, figure in drawn.items():
        assert figure is not None
        figure.canvas.draw()
        assert not any(axes.get_legend() for axes in figure.axes), name
        (legend,) = figure.legends
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes), name
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width, f"the legend of {name} is cut off"
    assert drawn["aggregation"] is not None
    (legend,) = drawn["aggregation"].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *(f"PRM, {how}" for how in ("last", "min", "product", "mean")),
        "ORM",
        "majority",
    ]


def test_the_docs_list_the_figures_of_the_catalogue():
    text = (pathlib.Path(__file__).parents[3] / "docs" / "report.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", text, flags=re.MULTILINE)
    assert listed == [(e.name, e.number or "our own", e.title) for e in catalogue.figures()]


def test_figures_are_ordered_and_called_by_the_numbers_of_the_paper():
    assert len({e.name for e in catalogue.figures()}) == len(catalogue.figures())
    assert catalogue.in_order(["zz", "aa", "verifiers", "accuracy_vs_budget"]) == [
        "accuracy_vs_budget",
        "verifiers",
        "aa",
        "zz",
    ]
    numbers = [int(re.match(r"\d+", e.paper)[0]) for e in catalogue.figures() if e.paper]  # type: ignore[index]
    assert numbers == sorted(numbers)
    assert catalogue.line("accuracy_vs_budget") == "Fig. 3 left: Accuracy by strategy and generation budget"
    assert catalogue.line("weak_verifiers").startswith("ICLR Fig. 17: ")
    assert catalogue.line("quality") == "Difficulty of the questions, and calibration of the verifier"
    assert catalogue.line("aa") == "figure"


def test_labels_are_words():
    assert [figures.label(s) for s in STRATEGIES] == [
        "majority",
        "best-of-N weighted",
        "beam, width 4",
        "beam, width √N",
    ]
    assert figures.label("best_of_n:select=best,aggregate=min") == "best-of-N, aggregate min"
    assert figures.label(paired.ALONE) == "best-of-N weighted, by likelihood"
    assert figures.label("best_of_n:select=softmax,vote_temperature=0.5") == "best-of-N softmax, vote temperature 0.5"
    assert figures.label("beam:width=4,temperature=0.6") == "beam, width 4, temperature 0.6"
