"""How far the verifier can be trusted: its step scores against the truth of steps, and as chances of a right answer."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pyarrow as pa
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.drawing import figures, markup
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary
from ttcjax.eval.sections import base_samples
from ttcjax.eval.stats.estimators import step_scores, with_step_truth
from ttcjax.runtime.parquet import read_shard
from ttcjax.text.terminal import Shown
from ttcjax.verify.quality import VALIDATION_SCHEMA, auroc, best_threshold, brier, first_error, reliability

DEFAULT_THRESHOLD = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """Steps whose scores lie between two ends.

    Attributes:
        low: The lower end.
        high: The higher one.
        score: Mean of their scores; NaN without any.
        target: Share that ends right.
        count: How many.
    """

    low: float
    high: float
    score: float
    target: float
    count: int


@dataclass(frozen=True)
class Verifier:
    """Quality of the process-reward model; what cannot be told is NaN.

    Attributes:
        aggregate: Step aggregation behind the score of a solution.
        steps: Steps that were scored.
        checked_solutions: Solutions whose steps' truth is known.
        unaligned_solutions: Those with another number of scores than of steps, which are not judged.
        step_auroc: How well a score tells true from false steps.
        first_error_f1: F1 of finding the first false step.
        first_error_accuracy: Share of solutions with a false step where it is found.
        all_correct_accuracy: Share of solutions without one where none is found.
        first_error_threshold: Steps that score below it are called wrong.
        first_error_threshold_source: `validation` or `default`.
        ece: Expected calibration error.
        ece_target: What scores are compared with.
        ece_steps: `all`, or `last` where labels were completed at another temperature.
        ece_all_steps: The error over all steps.
        temperatures: Of `labels` and `samples`.
        brier: Brier score over the same steps as `ece`.
        reliability: Steps by score.
    """

    aggregate: str
    steps: int
    checked_solutions: int
    unaligned_solutions: int
    step_auroc: float
    first_error_f1: float
    first_error_accuracy: float
    all_correct_accuracy: float
    first_error_threshold: float
    first_error_threshold_source: str
    ece: float
    ece_target: str
    ece_steps: str
    ece_all_steps: float
    temperatures: dict[str, float]
    brier: float
    reliability: list[Calibration]


def first_error_threshold(path: epath.PathLike) -> tuple[float, str]:
    """Choose the first-error threshold on validation solutions.

    Args:
        path: Parquet file with the columns of `verify.metrics.VALIDATION_SCHEMA`; it may be absent.

    Returns:
        The threshold and where it comes from: `validation`, or `default` if the file is absent or holds no
        solution with (or none without) an error.

    Raises:
        UserError: The file is corrupt.
    """
    path = epath.Path(path)
    if not path.exists():
        return DEFAULT_THRESHOLD, "default"
    scores, truth, _ = with_step_truth(read_shard(path, VALIDATION_SCHEMA))
    solutions_wrong = np.unique(truth.row_of_value[~truth.values])
    if not 0 < len(solutions_wrong) < len(truth):
        return DEFAULT_THRESHOLD, "default"
    return best_threshold(scores, truth), "validation"


def judge(
    bank: pa.Table,
    aggregate: str,
    sampled: float,
    completed: float,
    threshold: float = DEFAULT_THRESHOLD,
    source: str = "default",
) -> Verifier:
    """Judge step scores against the step checker's truth, and as chances of a right answer.

    The PRM is trained to predict how often a solution continued from a step ends right, and a bank sample is
    one such continuation of each of its own steps; so calibration is measured against its final correctness. That is
    one thing only where labels were completed at the temperature of the bank: at a lower one a prefix ends right more
    often. Where temperatures differ, the last steps of samples with an answer are judged, after which nothing is left
    to sample, and what all steps give is said beside with the temperatures.

    Args:
        bank: Rows of the sample bank at the sampler's temperature.
        aggregate: Step aggregation behind the score of a solution.
        sampled: The sampler's temperature.
        completed: That at which labels were completed.
        threshold: Steps that score below it are called wrong.
        source: Where it comes from.
    """
    steps = step_scores(bank)
    correct = bank["correct"].to_numpy()
    outcome = np.repeat(correct, steps.lengths)
    everywhere = reliability(steps.values, outcome)
    if completed == sampled:
        bins, scored, ended = everywhere, steps.values, outcome
    else:
        whole = bank["answer"].is_valid().to_numpy() & (steps.lengths > 0)
        scored, ended = steps.values[steps.offsets[1:][whole] - 1], correct[whole]
        bins = reliability(scored, ended)
    scores, truth, unaligned = with_step_truth(bank)
    if unaligned:
        logger.warning("%d bank rows have another number of step scores than of steps and are not judged", unaligned)
    found = first_error(scores, truth, threshold)
    return Verifier(
        aggregate=aggregate,
        steps=len(steps.values),
        checked_solutions=len(truth),
        unaligned_solutions=unaligned,
        step_auroc=float(auroc(scores.values, truth.values)),
        first_error_f1=float(found.f1),
        first_error_accuracy=float(found.error_accuracy),
        all_correct_accuracy=float(found.correct_accuracy),
        first_error_threshold=threshold,
        first_error_threshold_source=source,
        ece=float(bins.error),
        ece_target="final answer is right",
        ece_steps="all" if completed == sampled else "last",
        ece_all_steps=float(everywhere.error),
        temperatures={"labels": completed, "samples": sampled},
        brier=float(brier(scored, ended)),
        reliability=[
            Calibration(*map(float, numbers), count=int(count))
            for *numbers, count in zip(
                bins.edges[:-1], bins.edges[1:], bins.scores, bins.targets, bins.counts, strict=True
            )
        ],
    )


def figure(found: Verifier, sampled: base_samples.Sampled) -> Figure:
    """Draw what the strategies start from: how hard the questions are, and how far the verifier can be trusted."""
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(7.5, 3.7)
        left, right = drawn.subplots(1, 2)
        counts = sampled.pass_at_1_histogram
        left.bar(
            (np.arange(len(counts)) + 0.5) / len(counts), counts, width=0.92 / len(counts), color=figures.COLOURS[1]
        )
        left.axvline(sampled.pass_at_1, color=figures.COLOURS[2], linewidth=1.5)
        left.annotate(
            f"mean {sampled.pass_at_1:.2f}",
            (sampled.pass_at_1, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            color=figures.COLOURS[2],
            va="top",
        )
        left.set_xlim(0, 1)
        left.set_xlabel("pass@1 of a question (share of right samples)")
        left.set_ylabel("questions")
        left.set_title("Difficulty of the questions")
        left.grid(axis="x", visible=False)
        _reliability(right, found)
        figures.legend_below(drawn)
        return drawn


def _reliability(axes: Axes, found: Verifier) -> None:
    bins = [b for b in found.reliability if b.count]
    axes.plot([0, 1], [0, 1], color=figures.MUTED, linewidth=1, linestyle=(0, (4, 3)), label="calibrated")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    last = found.ece_steps == "last"
    axes.set_xlabel("score of last steps" if last else "step score of the verifier")
    axes.set_ylabel("share that ends with a right answer")
    if not bins:
        axes.set_title("No step scores")
        return
    total = sum(b.count for b in bins)
    scores, targets = [b.score for b in bins], [b.target for b in bins]
    axes.plot(scores, targets, color=figures.COLOURS[1], linewidth=1.2)
    sizes = [10 + 300 * b.count / total for b in bins]
    axes.scatter(scores, targets, s=sizes, color=figures.COLOURS[1], zorder=3, label="verifier (area: share of steps)")
    axes.set_title(f"Reliability of the verifier, ECE {found.ece:.3f}")


class VerifierQuality(Section[Verifier]):
    """Quality of the process-reward model."""

    name = "prm"
    result = Verifier
    drawings = (
        Drawing[Verifier](
            Entry(
                "quality",
                "Difficulty of the questions, and calibration of the verifier",
                "What the strategies start from: how often base samples are right, and whether a step's score is the "
                "chance that it ends right.",
                "sweep.samples",
            ),
            draw=lambda found, summary: figure(found, summary.of(base_samples.SECTION)),
        ),
    )

    def compute(self, records: Records) -> Verifier:
        settings = records.settings
        threshold, source = first_error_threshold(records.workdir / "prm" / "validation_scores.parquet")
        sampled, completed = settings.temperature, settings.labels_temperature
        return judge(records.base, settings.aggregate, sampled, completed, threshold, source)

    def text(self, found: Verifier, summary: Summary, console: Console) -> None:
        text = (
            f"verifier: step AUROC {markup.number(found.step_auroc)}, ECE of {found.ece_steps} steps "
            f"{markup.number(found.ece)}, first-error F1 {markup.number(found.first_error_f1)} (threshold "
            f"{found.first_error_threshold:.2f}, {found.first_error_threshold_source})"
        )
        console.print(Shown(text), soft_wrap=True)

    def measures(self, found: Verifier) -> Iterable[tuple[str, str]]:
        threshold = f"{found.first_error_threshold:.2f} ({found.first_error_threshold_source})"
        return (
            ("verifier: step AUROC against the truth of steps", markup.number(found.step_auroc)),
            ("verifier: F1 of the first wrong step", markup.number(found.first_error_f1)),
            ("verifier: threshold of a wrong step", threshold),
            (f"verifier: expected calibration error, {found.ece_steps} steps", markup.number(found.ece)),
            (f"verifier: Brier score, {found.ece_steps} steps", markup.number(found.brier)),
        )


SECTION = VerifierQuality()
