"""The contract of a report's sections: one subject each, from records to numbers, figures and claims.

A section is one file under `ttcjax.eval.sections` and one line in `catalogue.SECTIONS`; files, terminal, page,
catalogue and claims walk that list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.verdicts import Claim
from ttcjax.eval.stats.intervals import Estimate

R = TypeVar("R")

VERSION = 1
"""Version of a summary's layout; 0 is that of summaries without a version."""


@dataclass(frozen=True)
class Seed:
    """One run of a study.

    Attributes:
        seed: Its number.
        workdir: Name of its folder.
        config_hash: Of its config.
        seconds: Of all its stages.
    """

    seed: int
    workdir: str
    config_hash: str
    seconds: float


@dataclass(frozen=True)
class Summary:
    """Everything that a report says in numbers.

    Attributes:
        name: Of the experiment.
        config_hash: Of its config.
        questions: Test questions, which intervals resample.
        missing: Results that should exist and do not, and count as wrong.
        sections: What each section found, by the section's name.
        claims: Claims of the paper, judged.
        seconds: Wall time of each stage.
        compile_seconds: Of it compiling.
        peak_rss_bytes: Largest memory of a stage.
        seeds: Runs of a study.
        version: Of its layout.
    """

    name: str
    config_hash: str
    questions: int
    missing: int
    sections: dict[str, Any] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    compile_seconds: float = 0.0
    peak_rss_bytes: int = 0
    seeds: tuple[Seed, ...] = ()
    version: int = VERSION

    def get(self, section: Section[R]) -> R | None:
        """Return what a section found; `None` where it was not wanted."""
        return self.sections.get(section.name)

    def of(self, section: Section[R]) -> R:
        """Return what a section found.

        Raises:
            KeyError: It was not wanted.
        """
        return self.sections[section.name]


Line = tuple[int, Estimate, int | None]
"""A horizontal line in a figure: place of its axes, height with interval, number of its colour if it has one."""


@dataclass(frozen=True)
class Entry:
    """Identity of a figure.

    Attributes:
        name: Of its files, without the ending.
        title: What it shows.
        claim: What the paper says there, in our words; for diagnostics, what to look for.
        switch: The setting that gives it, for runs that lack it.
        paper: Figures of the paper's first version that it answers, e.g. `3 left`; none for those of our own.
        iclr: Their number at ICLR where it is another, or where only that version has them.
        tables: CSV files with its numbers, without the ending.
    """

    name: str
    title: str
    claim: str
    switch: str
    paper: str = ""
    iclr: str = ""
    tables: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """Name of the figure in the paper, e.g. `Fig. 14 (ICLR 15)`; empty for those of our own."""
        if not self.paper:
            return f"ICLR {_figures(self.iclr)}" if self.iclr else ""
        return _figures(self.paper) + (f" (ICLR {self.iclr})" if self.iclr else "")

    def answers(self, source: str) -> bool:
        """Tell whether this is the figure that a source names, e.g. `Fig. 3 right` or `ICLR Fig. 13`."""
        place, _, number = source.partition(". ")
        known = self.iclr if place.startswith("ICLR") else self.paper
        return any(number == part or number.startswith(f"{part} ") for part in re.split(", | and ", known) if part)


def _figures(numbers: str) -> str:
    return f"Fig{'s' if ',' in numbers or ' and ' in numbers or ' to ' in numbers else ''}. {numbers}"


@dataclass(frozen=True)
class Drawing(Generic[R]):
    """A figure of a section.

    Attributes:
        entry: What it is.
        draw: Draws it from what the section found and the whole summary; `None` where there is nothing to draw.
        greedy: Heights at which one greedy answer stands in it, from the summary.
    """

    entry: Entry
    draw: Callable[[R, Summary], Figure | None]
    greedy: Callable[[Summary], list[Line]] | None = None


@dataclass(frozen=True)
class Table(Generic[R]):
    """A CSV file of a section.

    Attributes:
        name: Of the file, without the ending.
        columns: Their names, with blanks between.
        rows: Its cells, from what the section found and the whole summary; without any, there is no file.
    """

    name: str
    columns: str
    rows: Callable[[R, Summary], Iterable[tuple[Any, ...]]]


class Section(Generic[R]):
    """One subject of a report.

    Attributes:
        name: Its entry in `summary.json`.
        result: What it finds: a frozen dataclass whose fields are numbers, estimates, text, tables and lists of them.
        drawings: Its figures.
        tables: Its CSV files.
    """

    name: str
    result: type[R]
    drawings: tuple[Drawing[R], ...] = ()
    tables: tuple[Table[R], ...] = ()

    def wanted(self, records: Records) -> bool:
        """Tell whether a run has what the section needs."""
        del records
        return True

    def compute(self, records: Records) -> R:
        """Return what the records of a run say."""
        raise NotImplementedError

    def text(self, found: R, summary: Summary, console: Console) -> None:
        """Print what was found, in tables and lines."""

    def measures(self, found: R) -> Iterable[tuple[str, str]]:
        """Return (measure, value) of the page's table of diagnostics, both plain text."""
        del found
        return ()

    def html(self, found: R, summary: Summary) -> str:
        """Return what the page says under its diagnostics, beside the figures; see `markup`."""
        del found, summary
        return ""

    def costs(self, found: R) -> str:
        """Return what the page says under its costs; see `markup`."""
        del found
        return ""

    def claims(self, found: R, summary: Summary) -> Iterator[Claim]:
        """Yield claims of the paper, judged by what was found."""
        del found, summary
        return iter(())
