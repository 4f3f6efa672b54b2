"""Every verifier that judges the bank, as a selector of the same samples; above all the outcome-reward model of base
samples beside the process-reward model.

Snell et al. 2024, Fig. 14, and in the version of 2025 Figs. 13 and 15.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import Aggregation, SweepConfig
from ttcjax.eval.records import verifier_scores
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.coding import key
from ttcjax.eval.report.drawing import figures, tables
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.report.verdicts import Claim, above, higher, judged, lower, unless
from ttcjax.eval.sections import accuracy, baseline
from ttcjax.eval.sections.paired import BySelector
from ttcjax.eval.stats.estimators import Samples, step_scores
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.text.terminal import Shown
from ttcjax.verify.aggregate import aggregate
from ttcjax.verify.quality import auroc

RULES = ("weighted", "best")
"""How a verifier selects: by votes that its scores weigh, or the sample with the highest score."""
PRM, ORM = "prm", "orm"
_TOLD_AS = {verifier_scores.PRM: PRM, verifier_scores.BASE_ORM: ORM}
"""Names in the result of verifiers that rows call otherwise, or as here."""
_NAMES = {PRM: "PRM", ORM: "ORM"}
_RULE_NAMES = {"weighted": "best-of-N weighted", "best": "best-of-N"}
_KEPT = -0.01
"""A loss in accuracy that is none: one point."""
_MANY = 256
"""Generations from which on the paper sees plain selection turn down; fewer cannot show that it does not."""


def comparable(records: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return why nothing follows from how the PRM and the ORM of base samples compare; `None` where something does.

    Both must have been trained on the same solutions, for as many steps, on as many tokens: else the better one may be
    better for having been trained more.

    Args:
        records: Those of the stages of a run, by name; of `prm` and `base_orm` the results are read.
    """
    results = [records.get(stage, {}).get("result") or {} for stage in ("prm", "base_orm")]
    for what, entry in (("steps", "steps"), ("tokens", "tokens_seen")):
        prm, orm = (result.get(entry) for result in results)
        if prm is None or orm is None:
            return f"it is not known on how many {what} each was trained"
        if prm != orm:
            return f"the PRM was trained on {prm:,} {what}, the ORM on {orm:,}"
    prm, orm = (result.get("learnt_from") for result in results)
    if prm is None or orm is None:
        return "it is not known which solutions each was trained on"
    return None if prm == orm else "they were trained on different solutions"


@dataclass(frozen=True, kw_only=True)
class Since(Estimate):
    """Gain at the largest budget.

    Attributes:
        start: Over how many generations.
    """

    start: int = field(metadata=key("from"))


@dataclass(frozen=True)
class Outcome:
    """Verifiers as selectors of the same samples: `prm`, `orm` and those of `sweep.verifiers` by their names.

    Attributes:
        incomparable: Why nothing follows from how PRM and ORM compare, see `comparable`.
        accuracy: By verifier, rule and budget.
        prm_minus_orm: By rule and budget, paired; nothing where there is no ORM.
        weighted_minus_best: By verifier and budget, paired.
        solution_auroc: How well the score of a whole sample tells right from wrong, by verifier.
        gap_growth: PRM less ORM, both weighted, at the largest budget, less the same at a smaller one.
        late_gain: Accuracy at the largest budget less that at a quarter of it, by verifier and rule.
        prm_minus: As `prm_minus_orm`, by verifier of `sweep.verifiers`.
    """

    incomparable: str | None
    accuracy: dict[str, dict[str, dict[int, Estimate]]]
    prm_minus_orm: list[BySelector]
    weighted_minus_best: dict[str, dict[int, Estimate]]
    solution_auroc: dict[str, float]
    gap_growth: Since | None = None
    late_gain: dict[str, dict[str, Since]] = field(default_factory=dict)
    prm_minus: dict[str, list[BySelector]] = field(default_factory=dict)

    @property
    def minus(self) -> dict[str, list[BySelector]]:
        """The PRM less every other verifier."""
        return {**({ORM: self.prm_minus_orm} if self.prm_minus_orm else {}), **self.prm_minus}


def compare(
    settings: SweepConfig, tables: Mapping[str, tuple[pa.Table, Aggregation]], incomparable: str | None
) -> Outcome:
    """Compare verifiers as selectors of the same samples.

    Args:
        settings: `samples`, `judged`, `budgets` and `bootstrap` are used.
        tables: By verifier, `PRM` and others: rows of the bank with its scores, and the step aggregation behind the
            score of a solution.
        incomparable: What `comparable` returns of the training of PRM and ORM.
    """
    questions = sorted(set(tables[PRM][0]["question"].to_pylist()))
    bootstrap = Bootstrap(len(questions), settings.bootstrap, settings.bootstrap_seed)
    by_rule: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    told_apart: dict[str, float] = {}
    for name, (table, aggregation) in tables.items():
        samples = Samples.from_table(table, questions, settings.samples).part(0, settings.judged)
        by_rule[name] = {rule: {n: samples.accuracy(rule, aggregation, n) for n in settings.budgets} for rule in RULES}
        told_apart[name] = float(auroc(aggregate(step_scores(table), aggregation), table["correct"].to_numpy()))

    def less(other: str) -> list[BySelector]:
        return [
            bootstrap.paired(by_rule[PRM][rule][n], by_rule[other][rule][n]).as_a(BySelector, n=n, selector=rule)
            for rule in RULES
            for n in settings.budgets
        ]

    return Outcome(
        incomparable=incomparable,
        accuracy={
            name: {rule: {n: bootstrap(values) for n, values in by_budget.items()} for rule, by_budget in rules.items()}
            for name, rules in by_rule.items()
        },
        prm_minus_orm=less(ORM) if ORM in by_rule else [],
        prm_minus={name: less(name) for name in by_rule if name not in (PRM, ORM)},
        weighted_minus_best={
            name: {n: bootstrap.paired(rules["weighted"][n], rules["best"][n]) for n in settings.budgets}
            for name, rules in by_rule.items()
        },
        solution_auroc=told_apart,
        **_growth(settings.budgets, by_rule, bootstrap),
    )


def _growth(
    budgets: Sequence[int], accuracy: dict[str, dict[str, dict[int, np.ndarray]]], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Return `gap_growth` and `late_gain` where there is a smaller budget to compare the largest with."""
    largest = max(budgets)
    found: dict[str, Any] = {}
    # The paper's comparison begins at 8.
    small = min(
        (n for n in budgets if 8 <= n < largest), default=min((n for n in budgets if 1 < n < largest), default=None)
    )
    if small is not None and ORM in accuracy:
        gap = {n: accuracy[PRM]["weighted"][n] - accuracy[ORM]["weighted"][n] for n in (small, largest)}
        found["gap_growth"] = bootstrap.paired(gap[largest], gap[small]).as_a(Since, start=small)
    quarter = largest // 4
    if largest % 4 == 0 and quarter in budgets:
        found["late_gain"] = {
            name: {
                rule: bootstrap.paired(by_budget[largest], by_budget[quarter]).as_a(Since, start=quarter)
                for rule, by_budget in rules.items()
            }
            for name, rules in accuracy.items()
        }
    return found


def figure(found: Outcome, majority: Mapping[int, Estimate] | None = None) -> Figure:
    """Draw accuracy against the budget, by verifier and by how it selects.

    Args:
        found: What `compare` returns.
        majority: Accuracy of the majority vote by budget, for comparison.
    """
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(10.0, 3.9)
        for i, (where, rule) in enumerate(zip(drawn.subplots(1, 2, sharey=True), RULES, strict=True)):
            for j, (name, rules) in enumerate(found.accuracy.items()):
                figures.band(where, list(rules[rule]), rules[rule].values(), j, told(name))
            if majority is not None:
                figures.band(where, list(majority), majority.values(), len(found.accuracy), "majority")
            figures.powers_of_two(where, list(found.accuracy[PRM][rule]))
            where.set(xlabel="generation budget N", title=_RULE_NAMES[rule])
            if not i:
                where.set_ylabel("accuracy (%)")
        figures.legend_below(drawn)
        return drawn


def render(found: Outcome, console: Console) -> None:
    """Print the verifiers' accuracies by budget, and the PRM's paired differences from the others."""
    budgets = map(str, found.accuracy[PRM][RULES[0]])
    table = tables.table("verifiers of base samples: accuracy in % by budget", ["N =", *budgets])
    for rule in RULES:
        for name, rules in found.accuracy.items():
            table.add_row(f"{_RULE_NAMES[rule]}, {told(name)}", *map(tables.cell, rules[rule].values()))
        for name, differences in found.minus.items():
            rows = [row for row in differences if row.selector == rule]
            if name != ORM or found.incomparable is None:
                table.add_row(f"PRM - {told(name)}", *map(tables.difference_cell, rows), style="dim")
    console.print(table)
    if found.prm_minus_orm and found.incomparable is not None:
        text = f"which of the two verifiers is better cannot be told: {found.incomparable}"
        console.print(Shown(text), soft_wrap=True)


def told(verifier: str) -> str:
    """Return how figures and tables call a verifier of the result."""
    return _NAMES.get(verifier, verifier)


def csv_rows(found: Outcome) -> list[tuple[Any, ...]]:
    """Return (verifier, selector, budget, mean, low, high)."""
    return [
        (name, rule, n, *cell.ends)
        for name, rules in found.accuracy.items()
        for rule, cells in rules.items()
        for n, cell in cells.items()
    ]


class OutcomeVerifier(Section[Outcome]):
    """Verifiers of base samples, where there are others than the PRM."""

    name = "orm"
    result = Outcome
    drawings = (
        Drawing[Outcome](
            Entry(
                "verifiers",
                "Process-reward and outcome-reward model of base samples",
                "The process-reward model beats the outcome-reward model, the more the larger the budget, and both "
                "beat majority. Weighted votes beat the single best sample; by the outcome-reward model the latter "
                "turns down at large budgets.",
                "orm.base True, or sweep.verifiers",
                paper="14",
                iclr="13 and 15",
                tables=("verifiers",),
            ),
            draw=lambda found, summary: figure(found, summary.of(accuracy.SECTION).strategies.get("majority")),
            greedy=baseline.once(0, 1),
        ),
    )
    tables = (Table[Outcome]("verifiers", "verifier selector budget mean low high", lambda found, _: csv_rows(found)),)

    def wanted(self, records: Records) -> bool:
        return len(records.settings.verifiers) > 1

    def compute(self, records: Records) -> Outcome:
        settings = records.settings
        judged: dict[str, tuple[pa.Table, Aggregation]] = {
            _TOLD_AS.get(verifier.name, verifier.name): (records.judged_by(verifier.name), verifier.aggregate)
            for verifier in settings.verifiers
        }
        return compare(settings.sweep, judged, comparable(records.stages) if ORM in judged else None)

    def text(self, found: Outcome, summary: Summary, console: Console) -> None:
        render(found, console)

    def claims(self, found: Outcome, summary: Summary) -> Iterator[Claim]:
        if not found.prm_minus_orm:  # The claims are of an ORM.
            return
        cells = {row.n: row for row in found.prm_minus_orm if row.selector == "weighted"}
        n, reason = max(cells), found.incomparable
        text = f"The PRM beats the ORM in best-of-N weighted (N = {n})"
        paper = "40% against 35% at 2048 generations"
        yield unless(reason, higher(text, "Fig. 14", paper, cells[n], "orm.prm_minus_orm"))
        if found.gap_growth is not None:
            text = f"The PRM's lead over the ORM grows with the budget (N = {found.gap_growth.start} to {n})"
            paper = "from 2 points at 8 generations to 5 at 2048"
            yield unless(reason, higher(text, "Fig. 14", paper, found.gap_growth, "orm.gap_growth"))
        for name in ("orm", "prm"):
            text = f"By the {name.upper()}, best-of-N weighted beats plain best-of-N (N = {n})"
            cell, paper = found.weighted_minus_best[name][n], "votes are better with either verifier"
            yield higher(text, "ICLR Fig. 13", paper, cell, "orm.weighted_minus_best")
        if not found.late_gain:
            return
        plain, weighted = found.late_gain["orm"]["best"], found.late_gain["orm"]["weighted"]
        paper = "plain selection by the ORM falls at high budgets, votes do not"
        text = f"Plain best-of-N by the ORM turns down at high budgets (N = {plain.start} to {n})"
        claim = lower(text, "ICLR Fig. 13", paper, plain, "orm.late_gain.orm.best")
        yield replace(claim, held="not measured") if claim.held == "no" and n < _MANY else claim
        text = f"Best-of-N weighted by the ORM does not turn down, or by a point at most (N = {weighted.start} to {n})"
        held = above(weighted.low, weighted.high, _KEPT)
        yield judged(text, "ICLR Fig. 13", paper, weighted, held, "orm.late_gain.orm.weighted")


SECTION = OutcomeVerifier()
