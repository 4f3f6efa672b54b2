"""A section of a report: one class and one line of a list give numbers, tables, figure, page, terminal and claims."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterator

import pytest
from etils import epath
from matplotlib.figure import Figure
from rich.console import Console

from tests.eval.report.test_report import BUDGETS, CONFIG, make_rows, write
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report import catalogue, report, study_report, summary_file
from ttcjax.eval.report.drawing import figures
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.report.verdicts import Claim, higher
from ttcjax.eval.sections import baseline
from ttcjax.eval.stats.intervals import Estimate
from ttcjax.testing import folders


@dataclasses.dataclass(frozen=True)
class Lengths:
    """How long answers are: what a section of tomorrow may find."""

    tokens: float
    readable: dict[int, Estimate]


def drawn(found: Lengths, summary: Summary) -> Figure:
    figure = figures.new_figure(4.0, 3.0)
    figures.band(figure.add_subplot(), list(found.readable), found.readable.values(), 0, summary.name)
    return figure


class OfTomorrow(Section[Lengths]):
    name = "of_tomorrow"
    result = Lengths
    drawings = (
        Drawing[Lengths](
            Entry("lengths", "How long answers are", "Look for short ones.", "always", tables=("lengths",)),
            draw=drawn,
            greedy=baseline.once(0),
        ),
    )
    tables = (
        Table[Lengths](
            "lengths", "budget mean low high", lambda found, _: ((n, *cell.ends) for n, cell in found.readable.items())
        ),
    )

    def compute(self, records: Records) -> Lengths:
        samples = records.measured.samples
        bootstrap = records.bootstrap(len(samples.questions))
        readable = (samples.groups[:, 0] >= 0).astype(float)
        return Lengths(
            tokens=float(records.base["tokens"].to_numpy().mean()),
            readable={n: bootstrap(readable[:, :n].mean(axis=1)) for n in records.settings.sweep.budgets},
        )

    def text(self, found: Lengths, summary: Summary, console: Console) -> None:
        console.print(f"answers have {found.tokens:.1f} tokens")

    def measures(self, found: Lengths) -> list[tuple[str, str]]:
        return [("tokens of an answer", f"{found.tokens:.1f}")]

    def html(self, found: Lengths, summary: Summary) -> str:
        return "<h3>Lengths in words</h3>"

    def claims(self, found: Lengths, summary: Summary) -> Iterator[Claim]:
        yield higher("Some answers can be read", "Fig. 99", "all of them", found.readable[1], "of_tomorrow.readable")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A report with one more section, which nothing but the list knows of."""
    workdir = epath.Path(tmp_path_factory.mktemp("reported"))
    write(workdir, *make_rows())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "SECTIONS", (*catalogue.SECTIONS, OfTomorrow()))
        folders.run_stage(report.STAGE, CONFIG, workdir, workdir / "report")
        yield workdir, summary_file.read(workdir / "summary.json")


def test_its_numbers_are_in_the_summary_and_are_read_with_their_types(reported):
    workdir, summary = reported
    entry = json.loads((workdir / "summary.json").read_text())["sections"]["of_tomorrow"]
    assert entry["tokens"] == 10
    assert list(entry["readable"]) == [str(n) for n in BUDGETS]
    found = summary.of(OfTomorrow())
    assert isinstance(found, Lengths)
    assert list(found.readable) == list(BUDGETS)
    cell = found.readable[8]
    assert entry["readable"]["8"] == {"mean": cell.mean, "low": cell.low, "high": cell.high, "se": cell.se}
    assert 0 < cell.low < cell.mean < cell.high < 1


def test_its_table_its_figure_and_its_words_are_in_files_and_page(reported):
    workdir, summary = reported
    found = summary.of(OfTomorrow())
    rows = list(csv.DictReader(io.StringIO((workdir / "report" / "lengths.csv").read_text())))
    assert [(int(row["budget"]), float(row["mean"])) for row in rows] == [
        (n, c.mean) for n, c in found.readable.items()
    ]
    assert {path.name for path in (workdir / "report").iterdir()} >= {"lengths.png", "lengths.svg"}
    page = (workdir / "report" / "index.html").read_text()
    for words in ("How long answers are", "Look for short ones.", "tokens of an answer", "<h3>Lengths in words</h3>"):
        assert words in page
    assert "Numbers of lengths.csv" in page
    assert "Some answers can be read" in page


def test_its_figure_is_in_the_catalogue_its_claim_judged_and_its_text_printed(reported):
    _, summary = reported
    assert catalogue.line("lengths") == "How long answers are"
    assert catalogue.figures()[-1].name == "lengths"
    claim = summary.claims[-1]
    assert (claim.claim, claim.held) == ("Some answers can be read", "yes")
    console = Console(file=io.StringIO(), width=100)
    report.render(summary, console)
    assert "answers have 10.0 tokens" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_study_has_it_over_seeds(reported):
    workdir, summary = reported
    draws, questions = summary_file.read_draws(workdir / "report" / summary_file.DRAWS)
    run: study_report.Run = (summary, draws, questions)
    over = study_report.over_seeds(CONFIG, {0: run, 1: run})
    cell = over.of(OfTomorrow()).readable[8]
    assert cell.per_seed == (cell.mean, cell.mean)
    assert over.claims[-1].held_per_seed == ("yes", "yes")
    assert any(row[0] == "of_tomorrow.readable.8" for row in study_report.csv_rows(over))


def test_a_section_that_is_not_wanted_is_nowhere(reported, monkeypatch):
    workdir, _ = reported
    monkeypatch.setattr(OfTomorrow, "wanted", lambda self, records: False)
    summary = report.results(CONFIG, workdir).summary
    assert summary.get(OfTomorrow()) is None
    assert "of_tomorrow" not in summary.sections
    assert "Some answers can be read" not in [claim.claim for claim in summary.claims]


def test_names_are_unique_and_figures_know_their_tables():
    sections = catalogue.SECTIONS
    tables = [table.name for section in sections for table in section.tables]
    drawings = [drawing.entry for section in sections for drawing in section.drawings]
    for names in ([s.name for s in sections], tables, [entry.name for entry in drawings]):
        assert len(names) == len(set(names))
    for entry in drawings:
        assert set(entry.tables) <= set(tables), f"{entry.name} names a table that no section writes"
