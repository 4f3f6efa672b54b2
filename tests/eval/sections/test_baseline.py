"""The greedy answer beside everything: in each table and figure the number that an independent count gives."""

import csv
import html
import io
import re

import numpy as np
import pytest
from etils import epath
from matplotlib.figure import Figure
from rich.console import Console

from tests.eval.report.test_report import BUDGETS, CONFIG, QUESTIONS, STRATEGIES, greedy_rows, make_rows, write
from ttcjax.eval.records import sample_rows
from ttcjax.eval.report import catalogue, report, summary_file
from ttcjax.eval.report.coding import encode
from ttcjax.eval.report.drawing import figures
from ttcjax.eval.report.section import Summary
from ttcjax.eval.sections import accuracy, baseline
from ttcjax.eval.sections.spending import larger_model
from ttcjax.eval.stats.difficulty import quantile_bins
from ttcjax.eval.stats.intervals import Estimate
from ttcjax.runtime import parquet
from ttcjax.testing import folders

SHARE = sum(bool(i % 3) for i in range(QUESTIONS)) / QUESTIONS
"""Greedy answers that are right."""


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A report with two models' greedy answers, and the figures as they were before they were saved."""
    workdir = epath.Path(tmp_path_factory.mktemp("reported"))
    bank, search = make_rows()
    write(workdir, bank, search)
    larger = [row | {"correct": True} for row in greedy_rows(bank, "larger")]
    parquet.write_shard(parquet.shard_path(workdir / "greedy", 1), larger, sample_rows.SCHEMA)
    folders.complete(workdir / "greedy")
    drawn: dict[str, Figure] = {}
    with pytest.MonkeyPatch.context() as patch:
        save = figures.save

        def kept(figure, folder, name):
            drawn[name] = figure
            return save(figure, folder, name)

        patch.setattr(figures, "save", kept)
        out = workdir / "report.partial"
        folders.run_stage(report.STAGE, CONFIG, workdir, out)
    return summary_file.read(workdir / "summary.json"), out, drawn


def strategies_of(summary):
    return summary.of(accuracy.SECTION).strategies


def horizontal(axes):
    """Heights of the lines that go from one side of the axes to the other, and of their bands."""
    heights = [line.get_ydata()[0] for line in axes.get_lines() if list(line.get_xdata()) == [0, 1]]
    return heights, [(box.get_y(), box.get_y() + box.get_height()) for box in axes.patches]


def test_the_summary_counts_greedy_answers_and_what_strategies_gain_over_them(reported):
    summary, _, _ = reported
    found, (bank, _) = encode(summary.of(baseline.SECTION)), make_rows()
    assert found["accuracy"]["policy"]["mean"] == pytest.approx(SHARE, abs=1e-6)
    assert found["accuracy"]["policy"]["low"] < SHARE < found["accuracy"]["policy"]["high"]
    assert found["accuracy"]["larger"]["mean"] == 1
    for strategy in STRATEGIES:
        for n in BUDGETS:
            cell = found["minus"][strategy][str(n)]
            assert cell["mean"] == pytest.approx(strategies_of(summary)[strategy][n].mean - SHARE, abs=2e-6)
            assert cell["low"] <= cell["mean"] <= cell["high"]
    for level in range(1, 6):
        inside = [bool(i % 3) for i in range(QUESTIONS) if 1 + i * 5 // QUESTIONS == level]
        assert found["per_level"][str(level)]["policy"]["mean"] == np.mean(inside)
    right = {
        f"test-{q:03d}": [r["correct"] for r in bank if r["question"] == f"test-{q:03d}"] for q in range(QUESTIONS)
    }
    bins = quantile_bins(np.array([np.mean(values) for values in right.values()]), 5)
    for number in range(1, 6):
        inside = [bool(i % 3) for i in range(QUESTIONS) if bins[i] == number]
        assert found["per_bin"]["oracle"][str(number)]["mean"] == np.mean(inside)


def test_a_difference_is_paired_over_questions():
    """A strategy that is right exactly where the greedy answer is gains nothing, whatever the questions."""
    right = {"policy": {f"q{i}": bool(i % 3) for i in range(20)}}
    same = {"copy": {4: np.array([float(bool(i % 3)) for i in range(20)])}}
    ease = {"oracle": {f"q{i}": i / 20 for i in range(20)}}
    found = baseline.compare(CONFIG.sweep, right, list(right["policy"]), np.ones(20, np.int64), same, ease)
    cell = found.minus["copy"][4]
    assert (cell.mean, cell.se) == (0.0, 0.0)
    assert -cell.low == pytest.approx(cell.high), "of 20 questions that agree, unseen ones may still differ"


def test_tables_on_disk_have_its_number(reported):
    summary, out, _ = reported
    tables = {
        name: list(csv.DictReader(io.StringIO((out / f"{name}.csv").read_text()))) for name in ("accuracy", "greedy")
    }
    [row] = [row for row in tables["accuracy"] if row["strategy"] == "greedy:policy"]
    assert (float(row["mean"]), row["budget"]) == (pytest.approx(SHARE), "1")
    assert float(row["low"]) == summary.of(baseline.SECTION).accuracy["policy"].low
    [row] = [row for row in tables["accuracy"] if row["strategy"] == "greedy:larger"]
    assert float(row["mean"]) == 1
    differences = [row for row in tables["greedy"] if row["measure"] == "strategy_minus_greedy"]
    assert len(differences) == len(STRATEGIES) * len(BUDGETS)
    for row in differences:
        expected = strategies_of(summary)[row["name"]][int(row["budget"])].mean - SHARE
        assert float(row["mean"]) == pytest.approx(expected, abs=2e-6)


def test_the_terminal_has_its_row_and_the_differences(reported):
    summary, _, _ = reported
    console = Console(file=io.StringIO(), width=100)
    report.render(summary, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    first, differences, levels = text.split("paired differences")[0], text.split("paired differences")[1], text
    assert re.search(rf"greedy, one answer +{100 * SHARE:.1f}\b", first)
    assert re.search(r"greedy, larger model +100\.0\b", first)
    for strategy in STRATEGIES:
        values = [100 * (strategies_of(summary)[strategy][n].mean - SHARE) for n in BUDGETS]
        shown = " +".join(re.escape(f"{value:+.1f}") for value in values)
        assert re.search(rf"{re.escape(figures.label(strategy))} +{shown} *\n- greedy", differences), strategy
    by_level = [np.mean([bool(i % 3) for i in range(QUESTIONS) if 1 + i * 5 // QUESTIONS == k]) for k in range(1, 6)]
    shown = " +".join(f"{100 * value:.1f}" for value in by_level)
    assert re.search(rf"greedy, one answer +{shown}\b", levels)


def test_the_page_has_its_row_and_the_differences(reported):
    summary, out, _ = reported
    text = html.unescape((out / "index.html").read_text())
    first = text[: text.index("Claims of the paper</h2>")]
    assert f"<td>greedy, one answer</td><td>{100 * SHARE:.1f}<small>" in first
    assert "<td>greedy, larger model</td><td>100.0<small>" in first
    difference = 100 * (strategies_of(summary)["majority"][1].mean - SHARE)
    assert f"<td>majority</td><td>{difference:+.1f}<small>" in first


DRAWINGS = {drawing.entry.name: drawing for section in catalogue.SECTIONS for drawing in section.drawings}
ONE_PANEL = ("accuracy_vs_budget", "aggregation", "weak_verifiers", "compute_optimal", "budget")


def test_every_figure_of_accuracies_has_its_line_and_its_interval(reported):
    summary, _, drawn = reported
    once = summary.of(baseline.SECTION)
    point = once.accuracy["policy"]
    for name in ONE_PANEL:
        heights, bands = horizontal(drawn[name].axes[0])
        assert heights == pytest.approx([100 * SHARE], abs=1e-4), name
        assert bands == [pytest.approx((100 * point.low, 100 * point.high))], name
        bottom, top = drawn[name].axes[0].get_ylim()
        assert bottom <= 100 * point.low <= 100 * point.high <= top, f"{name} cuts the line's band off"
    for name, notion in (("by_difficulty", "oracle"), ("by_difficulty_predicted", "predicted")):
        for axes, cell in zip(drawn[name].axes, once.per_bin[notion].values(), strict=True):
            assert 100 * cell.mean == pytest.approx(horizontal(axes)[0][0], abs=1e-4), name
    for name, figure in drawn.items():
        # What shows no accuracies has no line; what shows them is listed here, so that none is forgotten.
        lined = DRAWINGS[name].greedy is not None
        assert lined == (name in (*ONE_PANEL, "by_difficulty", "by_difficulty_predicted")), name
        about = any("accuracy (" in axes.get_ylabel() for axes in figure.axes)
        assert lined or not about, f"{name} shows accuracies without the greedy answer"


def test_chains_have_the_line_of_their_own_questions():
    """The chains ask some of the questions; the greedy answers to the others do not count there."""
    names = [f"q{i:03d}" for i in range(10)]
    right = {name: i < 3 for i, name in enumerate(names)} | {f"other{i}": True for i in range(10)}
    ratios = {"hierarchical": {4: {"revise:s=4,p=1": np.ones(10), "revise:s=1,p=4": np.full(10, 0.3)}}}
    ease = {"oracle": {name: i / 20 for i, name in enumerate(right)}}
    found = baseline.of_chains(CONFIG.sweep, right, names, ratios, ease)
    assert found.accuracy.mean == 0.3
    assert found.minus["revise:s=4,p=1"]["hierarchical"].mean == pytest.approx(0.7)
    assert found.minus["revise:s=1,p=4"]["hierarchical"].mean == pytest.approx(0)
    assert [cell.mean for cell in found.per_bin["oracle"].values()] == [0, 0, 0, 0.5, 1]
    summary = Summary("", "", 10, 0, {"greedy": baseline.Greedy({}, {}, {}, chains=found)})
    expected = {"revision_steps": [0], "revision_budgets": [0, 1], "revision_verifiers": [0], "revision_ratios": [0]}
    for name, panels in expected.items():
        lines = DRAWINGS[name].greedy
        assert lines is not None, name
        assert [(place, cell.mean) for place, cell, _ in lines(summary)] == [(p, 0.3) for p in panels]


def test_revisions_are_compared_with_it_on_the_terminal():
    names = [f"q{i}" for i in range(10)]
    right = {name: i < 3 for i, name in enumerate(names)}
    cells = {f"revise:s={s},p={p}": np.full(10, s / 10 + p / 100) for s, p in ((1, 1), (2, 1), (1, 2))}
    by_budget = {1: {k: v for k, v in cells.items() if k.endswith("s=1,p=1")}, 2: dict(list(cells.items())[1:])}
    ease = {"oracle": {name: i / 20 for i, name in enumerate(right)}}
    found = baseline.of_chains(CONFIG.sweep, right, names, {"hierarchical": by_budget, "majority": by_budget}, ease)
    console = Console(file=io.StringIO(), width=100)
    baseline.render_chains(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for rule in ("hierarchical", "majority"):
        assert re.search(rf"one chain, {rule} +-19\.0 +-9\.0\b", text)
        assert re.search(rf"parallel, {rule} +-19\.0 +-18\.0\b", text)
    assert re.search(r"greedy \(%\) +30\.0\b", text)


def test_the_exchange_has_a_line_for_each_bin_in_the_bins_colour():
    cells, other = ({i: Estimate(i / by, i / by, i / by) for i in range(1, 6)} for by in (10, 20))
    chains = baseline.OfChains(Estimate(0, 0, 0), {}, {"oracle": other})
    greedy = baseline.Greedy({}, {}, {}, {"oracle": cells}, chains)
    source = larger_model.Exchanged(
        5, {}, {}, {}, {}, {}, larger_model.TrueFlops({}, larger_model.Answering(0, {}), {})
    )
    exchange = larger_model.Exchange(14, [], {}, {}, {}, dict.fromkeys(("search", "revisions"), source))
    lines = DRAWINGS["exchange"].greedy
    assert lines is not None
    found = lines(Summary("", "", 5, 0, {"greedy": greedy, "exchange": exchange}))
    assert [(place, cell.mean, colour) for place, cell, colour in found] == [
        *((0, i / 10, i - 1) for i in range(1, 6)),
        *((2, i / 20, i - 1) for i in range(1, 6)),
    ]
