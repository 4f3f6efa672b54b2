"""Text of users and models in a report: its page, its tables on a terminal and on disk, and its figures."""

import csv
import dataclasses
import io
import itertools
import json
import pathlib
import re
import warnings
import xml.etree.ElementTree
from unicodedata import category

import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rich.console import Console

from tests.eval.report.test_page import Page
from tests.eval.report.test_report import CONFIG, make_rows, run, write
from ttcjax.eval.report import page, report, report_files, summary_file
from ttcjax.eval.report.drawing import figures
from ttcjax.eval.sections import accuracy, baseline
from ttcjax.eval.sections.verifying import overoptimisation, verifier_quality
from ttcjax.eval.stats.intervals import Estimate
from ttcjax.text.shown import shown

HOSTILE = "=1 [bold]π[/] $x_1$ \x1b[41m\x9b31m\x7f\r\u202eabc\u200b \u2028<b>&amp; 日本 😀 \\x1b"
"""What acts in a terminal, a browser, a spreadsheet or a figure."""
FORMULAS = (
    "=1+1",
    "+1+1",
    "-1+cmd|' /C calc'!A0",
    "@SUM(1)",
    "=HYPERLINK(0)",
    "\t=1",
    "\r=1",
    " =1",
    "\uff1d1+1",
    "--1",
)


def controls(text):
    return {c for c in text if category(c) in ("Cc", "Cs", "Zl", "Zp") and c != "\n"} | set(text) & set("\u202e\u200b")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A report of made-up rows with hostile names, ids and solutions; one sample is missing."""
    workdir = epath.Path(tmp_path_factory.mktemp("hostile"))
    bank, search = make_rows()
    for row in itertools.chain(bank, *search.values()):
        row["question"] = f"{row['question']}{HOSTILE}"
        row["text"] = f"1+1=2 {HOSTILE}\n{HOSTILE}"
    write(workdir, bank[:-1], search)
    run(workdir, dataclasses.replace(CONFIG, name=f"{HOSTILE}\n\udc9b"))
    return summary_file.read(workdir / "summary.json"), pathlib.Path(workdir) / "report.partial"


def test_the_page_shows_all_of_it_and_nothing_acts(reported):
    summary, folder = reported
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert not controls(text)
    found = Page(text)
    assert f"{shown(HOSTILE)}\\x0a\\udc9b: test-time compute" in found.text
    (example, *_) = summary.of(overoptimisation.SECTION).examples
    assert shown(HOSTILE) in found.text, "a step is not shown as the one function shows it"
    assert any(shown(example.question) in part for part in found.text)
    assert not any(tag == "b" and not attributes and "&" in text for tag, attributes in found.tags if tag == "x")
    cells = " ".join(found.text)
    assert "\\x5cx1b" in cells, "text that looks like an escape"
    assert "\\x5c\\x5c" not in cells
    assert "\\x5cx5c" not in cells, "a table was escaped twice"


def with_names(summary, level, of_level, strategy):
    """The summary with a level, a strategy in it, a strategy in all, and a threshold's source so called."""
    told, prm = summary.of(accuracy.SECTION), summary.of(verifier_quality.SECTION)
    once = summary.of(baseline.SECTION)
    (first,) = itertools.islice(told.per_level.values(), 1)
    (of_once,) = itertools.islice(once.per_level.values(), 1)
    at = dataclasses.replace(first, accuracy={of_level: first.pass_at_1, **first.accuracy})
    strategies = {strategy: told.strategies["majority"], **told.strategies}
    changed = {
        "accuracy": dataclasses.replace(told, per_level={level: at}, strategies=strategies),
        "greedy": dataclasses.replace(once, per_level={level: of_once}),
        "prm": dataclasses.replace(prm, first_error_threshold_source=level),
    }
    return dataclasses.replace(summary, sections={**summary.sections, **changed})


@pytest.mark.parametrize("level", ["<script>", "\x1b[2J", "\u202e4", "a & b"])
def test_names_of_levels_and_strategies_are_text_too(reported, level):
    summary, folder = reported
    changed = with_names(summary, level, f"beam:k={level}", level)
    text = page.html(changed, {"quality": (folder / "quality.svg").read_bytes()}, {}, {"data": {"name": level}})
    assert not controls(text)
    assert "<script" not in text
    assert [part for part in Page(text).text if part == shown(level)], "a level or a strategy is not there"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
@pytest.mark.parametrize("name", ["[bold]b[/]", "[red", "[/]", "π\x1b[31m", "\u202eb"])
def test_tables_on_a_terminal_show_names_as_text(reported, encoding, name):
    summary, _ = reported
    changed = with_names(summary, name, name, name)
    sink = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    report.render(dataclasses.replace(changed, missing=1), Console(file=sink, width=250))
    sink.seek(0)
    out = sink.read()
    assert not controls(out)
    names = [line for line in out.splitlines() if shown(name, holds=encoding) in line]
    assert len(names) >= 4, "in the tables of budgets and levels, the head of the latter, and the threshold's source"


def test_every_table_is_read_back_and_none_is_a_formula(reported):
    _, folder = reported
    tables = {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.csv")}
    assert {"missing", "accuracy", "claims"} <= set(tables)
    for name, text in tables.items():
        assert not controls(text), name
        for row in csv.reader(io.StringIO(text)):
            for cell in row:
                assert not re.match(r"\s*[=+@]", cell), name
                if cell.startswith("-"):
                    float(cell)
    (missing,) = csv.DictReader(io.StringIO(tables["missing"]))
    assert missing["question"].endswith(shown(HOSTILE))
    assert {cells["mean"] for cells in csv.DictReader(io.StringIO(tables["accuracy"])) if float(cells["mean"]) > 0}


def table_of(tmp_path, *rows):
    files = report_files.Files(epath.Path(tmp_path))
    files.table("t", " ".join(f"c{i}" for i in range(len(rows[0]))), rows)
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == files.tables["t"]
    return files.tables["t"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_cell_of_text_is_no_formula(tmp_path, text):
    written = table_of(tmp_path, (text, "a", text))
    for cell in list(csv.reader(io.StringIO(written)))[1]:
        assert not re.match(r"\s*[=+\-@\uff1d]", cell), f"{cell!r} would be run"
    assert report_files.read_csv(written)[1] == [shown(text, lines=False), "a", shown(text, lines=False)]


def test_numbers_stay_numbers(tmp_path):
    numbers = [1, -2, 0.1, -1e-9, 1e300, True, None, "-3", "+4", "-1.5e-7", "16"]
    expected = ["1", "-2", "0.1", "-1e-09", "1e+300", "True", "", "-3", "+4", "-1.5e-7", "16"]
    assert list(csv.reader(io.StringIO(table_of(tmp_path, numbers))))[1] == expected


@given(
    cells=st.lists(st.text(st.one_of(st.characters(), st.sampled_from("='\"+-@,;\n\t\r 1\\"))), min_size=2, max_size=3)
)
def test_cells_are_read_back_as_they_are_shown(tmp_path_factory, cells):
    written = table_of(tmp_path_factory.mktemp("t"), cells)
    assert report_files.read_csv(written)[1:] == [[shown(cell, lines=False) for cell in cells]]
    for cell in list(csv.reader(io.StringIO(written)))[1]:
        assert not re.match(r"\s*[=@+\-]", cell) or re.fullmatch(r"[+-]\d+(\.\d+)?(e[+-]?\d+)?", cell, re.ASCII | re.I)


@pytest.mark.parametrize(
    "text", ["$x$", r"$\frac{1}{$", r"\$5 and $6", "a$b", "日本語 😀", "_hidden", "\x1b[31m\u202e\n", "एक \u200b", "$$"]
)
def test_figures_draw_names_as_they_are(text):
    """No mathematics between dollars, and no warning for want of a glyph; warnings are errors here."""
    drawn = Figure()
    axes = drawn.add_subplot()
    point = Estimate(0.5, 0.4, 0.6)
    figures.band(axes, [1, 2], [point, point], 0, text)
    axes.set_title(figures.words(text))
    figures.legend_below(drawn)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn.canvas.draw()
        drawn.savefig(io.BytesIO(), format="png")
        drawn.savefig(svg := io.BytesIO(), format="svg")
    xml.etree.ElementTree.fromstring(svg.getvalue())
    (legend,) = drawn.legends
    for name in (axes.title, *legend.get_texts()):
        seen, mathematics = name._preprocess_math(name.get_text())  # type: ignore[attr-defined]
        assert mathematics is False
        assert seen.strip() == figures.words(text).replace(r"\$", "$").strip()
        assert "$" in seen or "$" not in text


def test_figures_of_a_report_hold_its_name(reported):
    """The name is drawn as paths; that it was drawn is what a comment of the file tells."""
    _, folder = reported
    for path in folder.glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        xml.etree.ElementTree.fromstring(text)
        assert not controls(text), path
    assert r"$x_1$ \x1b[41m\x9b31m\x7f" in (folder / "accuracy_vs_budget.svg").read_text(encoding="utf-8")
    json.loads((folder.parent / "summary.json").read_text(encoding="ascii"))
