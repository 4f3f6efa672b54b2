"""What strong searches choose: counted by hand, by loops, and on rows where the verifier is exploited on purpose."""

import io

import numpy as np
import pyarrow as pa
import pytest
from etils import epath
from rich.console import Console

from tests.eval.report.test_report import BUDGETS, CONFIG, QUESTIONS, SAMPLES, STRATEGIES, make_rows, write
from ttcjax.eval.records import sample_rows, solution_lines
from ttcjax.eval.records.bundle import settings_of
from ttcjax.eval.report.coding import encode
from ttcjax.eval.sections.verifying import overoptimisation as over
from ttcjax.eval.stats.estimators import Samples
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import shard_path
from ttcjax.text.steps import LINES, StepFormat
from ttcjax.verify.quality import auroc
from ttcjax.verify.select import choose_one

TEXTS = ("1+1=2\n2+2=4\nAnswer: 4", "1+1=2\n1+1=2\nAnswer: 2", "Answer: 7")
"""Three steps; three with a repeated one; one."""


def with_texts(found, seed=0):
    rng = np.random.default_rng(seed)
    return [row | {"text": TEXTS[rng.integers(3)]} for row in found]


@pytest.fixture
def tables(tmp_path):
    """The bank and the search as the report reads them, and their rows."""
    workdir = epath.Path(tmp_path)
    bank, search = make_rows()
    bank, search = with_texts(bank), {key: with_texts(found, i) for i, (key, found) in enumerate(search.items())}
    write(workdir, bank, search)
    read = [
        solution_lines.with_lines(sample_rows.read_folder(workdir / name), workdir / name, LINES)
        for name in ("bank", "search")
    ]
    return workdir, bank, search, *read


def with_counts(made):
    """Rows as a table, with what `with_lines` adds."""
    table = pa.Table.from_pylist(made, schema=sample_rows.SCHEMA)
    counted = zip(*(solution_lines.lines_of(row["text"], LINES) for row in made), strict=True)
    for name, values in zip(("lines", "repeated"), counted, strict=True):
        table = table.append_column(name, pa.array(values))
    return table


def measured(bank, search, references=None):
    at = {name: dict.fromkeys(BUDGETS, CONFIG.sampler.temperature) for name in STRATEGIES}
    return over.measure(settings_of(CONFIG), bank, search, {CONFIG.sampler.temperature: SAMPLES}, at, LINES, references)


def told(*args):
    return encode(measured(*args), places=15)


def test_steps_are_counted_by_hand():
    assert solution_lines.lines_of("a\nb\nc", LINES) == (3, False)
    assert solution_lines.lines_of("a\n\n a \nb\n", LINES) == (3, True), (
        "blanks around a step do not make it another, blank lines none"
    )
    assert solution_lines.lines_of("", LINES) == (0, False)
    assert solution_lines.lines_of("a\n\n\n", LINES) == (1, False), "blank lines repeat nothing"
    paragraphs = StepFormat("\n\n")
    assert solution_lines.lines_of("a\na\n\nb\n\na\na", paragraphs) == (3, True), "a step ends where the task says"
    assert over.reference_lines(["q"], {"q": "a\na\n\nb"}, paragraphs)["repeated_beyond_reference"] == [0]


def test_lines_stand_beside_their_rows(tables):
    workdir, _, _, bank, search = tables
    for table, name in ((bank, "bank"), (search, "search")):
        texts = sample_rows.read_folder(workdir / name, ("text",))["text"].to_pylist()
        assert list(zip(table["lines"].to_pylist(), table["repeated"].to_pylist(), strict=True)) == [
            solution_lines.lines_of(text, LINES) for text in texts
        ]
        places = [table.num_rows - 1, 0, table.num_rows // 2, 0]
        assert solution_lines.texts_at(workdir / name, places) == [texts[i] for i in places]
    shard_path(workdir / "bank", 0).unlink()
    with pytest.raises(UserError, match="does not exist"):
        solution_lines.with_lines(bank, workdir / "bank", LINES)


def naive(found, n, rule, median):
    """Each measure over blocks by loops: sums over questions of a question's mean, chosen ones alone."""
    runs = {}
    for row in sorted(found, key=lambda row: row["sample"]):
        runs.setdefault((row["question"], row["seed"], row["sample"] // n), []).append(row)
    sums = {}
    for (question, _, _), block in runs.items():
        place = choose_one(
            [r["answer"] for r in block], np.array([r["step_scores"][-1] for r in block], np.float32), rule
        )
        values = np.zeros(7)
        if place is not None:
            row = block[place]
            lines, repeated = solution_lines.lines_of(row["text"], LINES)
            score, right = row["step_scores"][-1], row["correct"]
            values[:] = (repeated, lines <= 2, lines / median[question], score, right, score - right, 1)
        sums.setdefault(question, []).append(values)
    total = np.sum([np.mean(found, axis=0) for found in sums.values()], axis=0)
    return dict(zip(over.MEASURES, total[:-1] / total[-1], strict=True))


def test_measures_agree_with_loops(tables):
    _, bank_rows, search_rows, bank, search = tables
    found = told(bank, search)
    median = {}
    for q in range(QUESTIONS):
        name = f"test-{q:03d}"
        median[name] = np.median(
            [solution_lines.lines_of(r["text"], LINES)[0] for r in bank_rows if r["question"] == name]
        )
    assert list(found["chosen"]) == list(STRATEGIES)
    for strategy in STRATEGIES:
        for n in BUDGETS:
            rule = "majority" if strategy == "majority" else "weighted"
            expected = naive(search_rows.get((strategy, n), bank_rows), n, rule, median)
            for measure, value in expected.items():
                cell = found["chosen"][strategy][str(n)][measure]
                assert cell["mean"] == pytest.approx(value, abs=1e-6), (strategy, n, measure)
                assert cell["low"] <= cell["mean"] + 1e-12
                assert cell["mean"] <= cell["high"] + 1e-12
        for measure in over.MEASURES:
            ends = [found["chosen"][strategy][str(n)][measure]["mean"] for n in (max(BUDGETS), min(BUDGETS))]
            growth = found["growth"][strategy][measure]
            assert growth["mean"] == pytest.approx(ends[0] - ends[1], abs=1e-9)
            assert growth["low"] <= growth["mean"] <= growth["high"]


REFERENCES = {f"test-{q:03d}": TEXTS[1] if q % 4 == 0 else "Answer: 7" if q % 4 == 1 else TEXTS[0] for q in range(20)}
"""A quarter repeats a step, a quarter is short."""


def test_growth_is_beyond_that_of_baselines_and_repeats_beyond_those_of_references(tables):
    """By the means; and what grows in a baseline just as much is nothing beyond it, with no width at all."""
    _, bank_rows, _, bank, search = tables
    found = told(bank, search, REFERENCES)
    weighted, majority = over.BASELINES
    assert {name: set(beyond) for name, beyond in found["growth_beyond"].items()} == {
        majority: {weighted},
        weighted: {majority},
        **{beam: {majority, weighted} for beam in STRATEGIES[2:]},
    }
    for strategy, beyond in found["growth_beyond"].items():
        for baseline, measures in beyond.items():
            for measure, cell in measures.items():
                growth = [found["growth"][name][measure]["mean"] for name in (strategy, baseline)]
                assert cell["mean"] == pytest.approx(growth[0] - growth[1], abs=1e-9)
                assert cell["low"] <= cell["mean"] <= cell["high"]
    assert found["references"]["repeated"]["mean"] == found["references"]["short"]["mean"] == 0.25
    # A policy that writes the references repeats as many steps as they do.
    chosen = [row | {"text": REFERENCES[row["question"]]} for row in bank_rows]
    cells = told(with_counts(chosen), search, REFERENCES)["chosen"][weighted]
    for cell in cells.values():
        assert cell["repeated"]["mean"] == pytest.approx(0.25, abs=0.1)
        for measure in over.BEYOND:
            assert cell[measure] == dict.fromkeys(("mean", "low", "high", "se"), 0), "as the references do is no sign"


def test_what_best_of_n_does_too_is_nothing_that_a_search_adds(tables):
    """A search that finds the bank's own samples: its gap grows, as best-of-N's does in every resample."""
    _, bank_rows, _, bank, _ = tables
    largest = max(BUDGETS)
    alike = [
        row | {"strategy": beam, "n": largest, "seed": seed}
        for beam in STRATEGIES[2:]
        for seed in (2, 3)
        for row in bank_rows
    ]
    found = told(bank, with_counts(alike))
    for beam in STRATEGIES[2:]:
        assert found["growth"][beam]["gap"]["mean"] > 0.01
        beyond = found["growth_beyond"][beam]["best_of_n:select=weighted"]
        assert set(beyond) == set(over.MEASURES)
        for cell in beyond.values():
            assert list(cell.values()) == pytest.approx([0, 0, 0, 0])


def test_an_exploited_verifier_shows(tables):
    """A search whose every candidate repeats itself, scores 1 and is wrong, beside a bank that is what it was."""
    _, _, search_rows, bank, _ = tables
    bad = [
        row | {"text": TEXTS[1], "answer": "8", "correct": False, "step_scores": [0.1, 1.0]}
        for (strategy, n), found in search_rows.items()
        for row in found
        if n == max(BUDGETS)
    ]
    good = [row for (_, n), found in search_rows.items() for row in found if n < max(BUDGETS)]
    search = with_counts(good + bad)
    found = told(bank, search)
    cell = found["chosen"]["beam:width=4"]["8"]
    assert (cell["repeated"]["mean"], cell["gap"]["mean"], cell["right"]["mean"]) == (1.0, 1.0, 0.0)
    assert found["growth"]["beam:width=4"]["repeated"]["low"] > 0
    assert found["growth"]["beam:width=4"]["gap"]["low"] > 0
    assert found["growth_beyond"]["beam:width=4"]["majority"]["gap"]["low"] > 0
    assert len(found["exploited"]) == over.EXAMPLES
    for item in found["exploited"]:
        row = search.slice(item["row"], 1).to_pylist()[0]
        assert (row["strategy"], row["n"], row["correct"]) == (item["strategy"], max(BUDGETS), False)


def test_examples_are_the_texts_of_their_rows(tables):
    workdir, _, _, bank, search = tables
    found = told(bank, search)
    shown = encode(over.examples(measured(bank, search).exploited, search, workdir / "search", LINES), places=17)
    assert shown
    scores = []
    for item, example in zip(found["exploited"], shown, strict=True):
        row = search.slice(item["row"], 1).to_pylist()[0]
        assert example["question"] == row["question"]
        assert example["gold"] == "7" != example["answer"]
        assert [text for text, _ in example["steps"]] == row["text"].split("\n")[: len(row["step_scores"])]
        assert [score for _, score in example["steps"]] == row["step_scores"][: len(example["steps"])]
        scores.append(row["step_scores"][-1])
    assert len(scores) == over.EXAMPLES
    assert scores == sorted(scores, reverse=True)


def test_the_auroc_is_that_of_each_bin(tables):
    _, bank_rows, _, bank, search = tables
    found = told(bank, search)["auroc"]
    assert list(found) == ["1", "2", "3", "4", "5"]
    ease = {q: np.mean([r["correct"] for r in bank_rows if r["question"] == q]) for q in bank["question"].to_pylist()}
    order = sorted(sorted(ease), key=lambda q: -ease[q])
    for number, cell in found.items():
        names = order[4 * (int(number) - 1) : 4 * int(number)]
        inside = [r for r in bank_rows if r["question"] in names]
        pooled = auroc(
            np.array([r["step_scores"][-1] for r in inside], np.float32), np.array([r["correct"] for r in inside])
        )
        assert cell["pooled"] == pytest.approx(pooled, nan_ok=True) if cell["pooled"] is not None else np.isnan(pooled)
        mixed = [q for q in names if 0 < ease[q] < 1]
        assert cell["questions"] == len(mixed)
        if mixed:
            assert 0 <= cell["low"] <= cell["mean"] <= cell["high"] <= 1
        else:
            assert cell["mean"] is None


def test_nothing_readable_is_no_number(tables):
    """Without a readable answer nothing is chosen, and no share of it is made up."""
    _, _, _, bank, _ = tables
    nothing = pa.array([None] * bank.num_rows, pa.string())
    bank = bank.set_column(bank.schema.get_field_index("answer"), "answer", nothing)
    samples = Samples.from_table(bank, [f"test-{q:03d}" for q in range(QUESTIONS)], SAMPLES)
    assert (over.chosen_rows(samples, "weighted", "last", 2) == -1).all()
    found = measured(bank, bank.slice(0, 0))
    assert not found.chosen["majority"][8]["gap"].known
    assert not found.growth["majority"]["gap"].known
    assert found.exploited == []
    over.figure(found).canvas.draw()
    console = Console(file=io.StringIO(), width=80)
    over.render(found, console)
    assert "n/a" in console.file.getvalue()  # type: ignore[attr-defined]


def test_it_is_printed_drawn_and_written(tables):
    *_, bank, search = tables
    found = measured(bank, search, REFERENCES)
    assert len(over.csv_rows(found)) == len(STRATEGIES) * len(BUDGETS) * (len(over.MEASURES) + len(over.BEYOND))
    assert len(over.auroc_rows(found)) == 5
    over.figure(found).canvas.draw()
    console = Console(file=io.StringIO(), width=80)
    over.render(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert "score minus share right" in text
    assert "growth of that gap, N = 1 to 8 (points)" in text
    assert "(references: 25.0)" in text
