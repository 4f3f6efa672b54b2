"""Lengths of answers: a section that stands for any new one."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.section import Section, Summary, Table
from ttcjax.eval.stats.intervals import Estimate


@dataclass(frozen=True)
class Lengths:
    """Shares of answers that can be read, by budget.

    Attributes:
        tokens: Mean tokens of an answer.
        readable: Share of samples with an answer, by budget.
    """

    tokens: float
    readable: dict[int, Estimate]


class LengthsSection(Section[Lengths]):
    """Lengths of the bank's answers."""

    name = "lengths"
    result = Lengths
    tables = (
        Table[Lengths](
            "lengths", "budget mean low high", lambda found, _: ((n, *cell.ends) for n, cell in found.readable.items())
        ),
    )

    def compute(self, records: Records) -> Lengths:
        samples = records.measured.samples
        bootstrap = records.bootstrap(len(samples.questions))
        readable = (samples.groups[:, 0] >= 0).astype(float)
        budgets = records.settings.sweep.budgets
        tokens = float(records.base["tokens"].to_numpy().mean())
        return Lengths(tokens, {n: bootstrap(readable[:, :n].mean(axis=1)) for n in budgets})

    def text(self, found: Lengths, summary: Summary, console: Console) -> None:
        console.print(f"answers have {found.tokens:.1f} tokens")


SECTION = LengthsSection()
