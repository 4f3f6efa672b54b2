"""Revisions by the subject of a question: where an attempt informs the next one, and where it cannot.

Beside each subject stand what belongs to an honest reading: the swap control, in which the answers in view are another
question's; and how often an answer is right after a right and after a wrong one, beside the same with an answer of
another chain of the question, which knows nothing of this one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.eval.records.answer_chains import SELECTORS, AnswerChains, Splits
from ttcjax.eval.records.bundle import Records, ReportSettings
from ttcjax.eval.report.drawing import tables
from ttcjax.eval.report.drawing.figures import MUTED, STYLE, band, legend_below, new_figure
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.sections.paired import BySelector
from ttcjax.eval.sections.revising.revisions import ENABLED
from ttcjax.eval.stats.intervals import Bootstrap, Estimate


@dataclass(frozen=True, kw_only=True)
class AtPlace(Estimate):
    """Pass@1 at a step of the chains.

    Attributes:
        step: From 1.
    """

    step: int


@dataclass(frozen=True)
class Follows:
    """Shares of next answers that are right.

    Attributes:
        own: In the chain itself.
        other: Where the first answer of another chain of the question takes its place, which knows nothing of this
            one: what it would be were answers independent.
    """

    own: Estimate
    other: Estimate

    @property
    def both(self) -> dict[str, Estimate]:
        """Both by name."""
        return {"own": self.own, "other": self.other}


@dataclass(frozen=True)
class After:
    """Shares of right answers by the answer before.

    Attributes:
        wrong: After a wrong one.
        right: After a right one.
    """

    wrong: Follows
    right: Follows


@dataclass(frozen=True)
class Family:
    """Chains of one subject.

    Attributes:
        questions: How many.
        attempts_inform: `Task.attempts_inform`.
        pass_at_1_by_step: Along the chains.
        gain: From the first step to the last.
        after: By the answer before, at all steps.
        after_first: The same of second answers alone.
        sequential_minus_parallel: One chain less parallel answers, by selector and budget, paired.
        late: To the last step from the last that training had, where chains go beyond it.
        swap_by_step: Under the control, in which another question's answers are in view, where there is one.
        swap_gain: Gain of the control.
        beyond_swap: The chain's gain less the control's up to the same step.
    """

    questions: int
    attempts_inform: bool | None
    pass_at_1_by_step: list[AtPlace]
    gain: Estimate
    after: After
    after_first: After
    sequential_minus_parallel: list[BySelector]
    late: Estimate | None = None
    swap_by_step: list[AtPlace] = field(default_factory=list)
    swap_gain: Estimate | None = None
    beyond_swap: AtPlace | None = None


@dataclass(frozen=True)
class Families:
    """Chains by subject.

    Attributes:
        subjects: By name.
        trained_answers: Most answers in view in training.
    """

    subjects: dict[str, Family]
    trained_answers: int


def compare(
    report: ReportSettings,
    found: Splits,
    table: pa.Table,
    subjects: Mapping[str, str],
    informs: Callable[[str], bool | None],
) -> Families:
    """Compute what chains of revisions do by subject.

    Args:
        report: Settings of the report.
        found: The chains, and every split of every budget.
        table: Rows of the chains stage, for those of the control.
        subjects: Of every question, by its id.
        informs: `Task.attempts_inform`.
    """
    chains, trained = found.chains, report.revision.trajectories.most
    of = np.array([subjects[question] for question in chains.questions])
    bootstrap = Bootstrap(len(of), report.sweep.bootstrap, report.sweep.bootstrap_seed)
    swap = _swapped(table, chains.questions, report.chains.swap)
    return Families(
        {
            subject: Family(
                questions=int((of == subject).sum()),
                attempts_inform=informs(subject),
                after=_after(bootstrap, chains, of == subject, int(max(chains.lengths)) - 1),
                after_first=_after(bootstrap, chains, of == subject, 1),
                sequential_minus_parallel=[
                    bootstrap.difference(_less(found.accuracy, n, rule), of == subject).as_a(
                        BySelector, n=n, selector=rule
                    )
                    for rule in SELECTORS
                    for n in report.chains.budgets
                    if n > 1
                ],
                **_along(bootstrap, chains, swap, of == subject, trained),
            )
            for subject in sorted(set(of.tolist()))
        },
        trained,
    )


def _less(values: Mapping[tuple[int, int, str], np.ndarray], n: int, rule: str) -> np.ndarray:
    return values[n, 1, rule] - values[1, n, rule]


def _swapped(table: pa.Table, questions: Sequence[str], answers: int) -> np.ndarray | None:
    """Return which answers of the control are right, `[Q, S]`, NaN where a question has no partner."""
    rows = table.filter(pc.field("strategy") == "swap")
    if not answers or not len(rows):
        return None
    at = {question: i for i, question in enumerate(questions)}
    found = np.full((len(questions), answers), np.nan)
    q = [at[question] for question in rows["question"].to_pylist()]
    found[q, rows["place"].to_numpy()] = rows["correct"].to_numpy(zero_copy_only=False)
    return found


def _along(
    bootstrap: Bootstrap, chains: AnswerChains, swap: np.ndarray | None, inside: np.ndarray, trained: int
) -> dict[str, Any]:
    """Return pass@1 along the chains and under the control, and how much it gains."""
    steps = int(max(chains.lengths))
    right = np.stack([chains.pass_at_1(place) for place in range(steps)], axis=1)
    found: dict[str, Any] = {"pass_at_1_by_step": _by_step(bootstrap, right, inside)}
    found["gain"] = bootstrap.difference(right[:, -1] - right[:, 0], inside)
    if trained < steps - 1:
        found["late"] = bootstrap.difference(right[:, -1] - right[:, trained], inside)
    if swap is not None and (known := inside & ~np.isnan(swap).any(axis=1)).any():
        found["swap_by_step"] = _by_step(bootstrap, swap, known)
        gain_Q = swap[:, -1] - swap[:, 0]
        found["swap_gain"] = bootstrap.difference(gain_Q, known)
        at = min(swap.shape[1], steps) - 1
        beyond_Q = right[:, at] - right[:, 0] - (swap[:, at] - swap[:, 0])
        found["beyond_swap"] = bootstrap.difference(beyond_Q, known).as_a(AtPlace, step=at + 1)
    return found


def _by_step(bootstrap: Bootstrap, right_QS: np.ndarray, inside: np.ndarray) -> list[AtPlace]:
    return [bootstrap(right_QS[:, s], inside).as_a(AtPlace, step=s + 1) for s in range(right_QS.shape[1])]


def _after(bootstrap: Bootstrap, chains: AnswerChains, inside: np.ndarray, steps: int) -> After:
    """Return how often the next answer is right after a right and after a wrong one, `own` and `other`, within so many
    steps from the first answer.

    `other` takes the first answer of another chain of the same question in its place, which knows nothing of this one:
    what it would be were answers independent.
    """
    shape = (2, 2, len(inside))
    events, cases = np.zeros(shape), np.zeros(shape)  # Own or other; after wrong or right; question.
    for place in range(steps):
        among = chains.lengths > place + 1
        before, after = chains.correct[:, among, place], chains.correct[:, among, place + 1]
        if before.shape[1] < 2:
            continue  # Of a single chain there is no other to compare with.
        fresh = np.roll(chains.correct[:, among, 0], 1, axis=1)
        for i, follows in enumerate((after, fresh)):
            for ok in (0, 1):
                events[i, ok] += ((before == ok) & follows).sum(axis=1)
                cases[i, ok] += (before == ok).sum(axis=1)
    events, cases = events * inside, cases * inside
    wrong, right = (Follows(*(bootstrap.rate(events[i, ok], cases[i, ok]) for i in (0, 1))) for ok in (0, 1))
    return After(wrong, right)


def render(found: Families, console: Console) -> None:
    """Print pass@1 along the chains by subject, the control below it, and what an answer owes to the one before."""
    first = next(iter(found.subjects.values())).pass_at_1_by_step
    steps = [row.step for row in first if row.step & (row.step - 1) == 0]
    columns = ["subject", *map(str, steps), "gain", "beyond swap"]
    table = tables.table("revisions by subject: pass@1 in % by step, last less first", columns)
    for subject, family in found.subjects.items():
        beyond = family.beyond_swap
        cells = {row.step: tables.cell(row) for row in family.pass_at_1_by_step}
        more = [] if beyond is None else [tables.difference_cell(beyond)]
        table.add_row(subject, *(cells.get(s, "") for s in steps), tables.difference_cell(family.gain), *more)
        if family.swap_gain is not None:
            cells = {row.step: tables.cell(row) for row in family.swap_by_step}
            gain = tables.difference_cell(family.swap_gain)
            table.add_row("  swapped", *(cells.get(s, "") for s in steps), gain, style="dim")
    console.print(table)
    columns = ["subject", "after right", "another's first", "after wrong", "another's first"]
    table = tables.table("second answers that are right, in %, by the first", columns)
    for subject, family in found.subjects.items():
        after = family.after_first
        shares = [after.right.own, after.right.other, after.wrong.own, after.wrong.other]
        table.add_row(subject, *(tables.cell(share) if share.known else "" for share in shares))
    console.print(table)


def csv_rows(found: Families) -> list[tuple[Any, ...]]:
    """Return (subject, measure, at, mean, low, high) of every number."""
    rows: list[tuple[Any, ...]] = []
    for subject, family in found.subjects.items():
        rows += [(subject, "pass_at_1_by_step", row.step, *row.ends) for row in family.pass_at_1_by_step]
        rows += [(subject, "swap_by_step", row.step, *row.ends) for row in family.swap_by_step]
        gains = {"gain": family.gain, "late": family.late, "swap_gain": family.swap_gain}
        rows += [(subject, name, "", *gain.ends) for name, gain in gains.items() if gain is not None]
        if family.beyond_swap is not None:
            rows.append((subject, "beyond_swap", family.beyond_swap.step, *family.beyond_swap.ends))
        for after, at in ((family.after_first, 2), (family.after, "")):
            for what, follows in (("wrong", after.wrong), ("right", after.right)):
                rows += [(subject, f"right_after_{what}:{name}", at, *cell.ends) for name, cell in follows.both.items()]
        rows += [
            (subject, f"sequential_minus_parallel:{row.selector}", row.n, *row.ends)
            for row in family.sequential_minus_parallel
        ]
    return rows


def figure(families: Families) -> Figure:
    """Draw pass@1 along the chains of every subject, and under the swap control."""
    shown = list(families.subjects.items())
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    with mpl.rc_context(STYLE):
        drawn = new_figure(10.0, 2.9 * rows + 0.6)
        axes = drawn.subplots(rows, columns, sharex=True, squeeze=False)
        for where, (subject, found) in zip(axes.flat, shown, strict=False):
            points = found.pass_at_1_by_step
            band(where, [row.step for row in points], points, 0, "its own answers in view")
            if found.swap_by_step:
                points = found.swap_by_step
                band(where, [row.step for row in points], points, 1, "another question's in view")
            where.axvline(families.trained_answers + 1.5, color=MUTED, linewidth=1, label="last step that training had")
            inform = {True: "attempts inform", False: "attempts cannot inform", None: ""}[found.attempts_inform]
            where.set_title(f"{subject}, {found.questions} questions\n{inform}")
            where.set(ylim=(0, 100))
        for where in axes.flat[len(shown) :]:
            where.set_axis_off()
        for where in axes[:, 0]:
            where.set_ylabel("right answers (%)")
        for where in axes.flat[max(0, len(shown) - columns) : len(shown)]:  # The lowest of each column.
            where.set_xlabel("step of the chain")
            where.tick_params(labelbottom=True)
        legend_below(drawn)
        return drawn


class RevisionFamilies(Section[Families]):
    """Chains of revisions by subject, where a revision model was trained."""

    name = "revision_families"
    result = Families
    drawings = (
        Drawing[Families](
            Entry(
                "revision_families",
                "Revisions by subject, and the swap control",
                "Where an attempt tells the next one something, the share of right answers rises along a chain, and "
                "with another question's answers in view it does not. Where it tells nothing, as in derivations, it "
                "stays flat.",
                ENABLED,
                tables=("revision_families", "luck"),
            ),
            draw=lambda found, _: figure(found),
        ),
    )
    tables = (
        Table[Families]("revision_families", "subject measure at mean low high", lambda found, _: csv_rows(found)),
    )

    def wanted(self, records: Records) -> bool:
        return records.settings.revision.enabled

    def compute(self, records: Records) -> Families:
        informs = records.task.attempts_inform
        return compare(records.settings, records.splits, records.answers, records.subjects, informs)

    def text(self, found: Families, summary: Summary, console: Console) -> None:
        render(found, console)


SECTION = RevisionFamilies()
