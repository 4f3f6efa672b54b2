"""Revisions: what a chain of answers gains, step by step and against parallel ones (Snell et al. 2024, section 6)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.drawing import markup
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.report.verdicts import Claim, higher, judged, lower, near, turned, unless
from ttcjax.eval.sections import baseline
from ttcjax.eval.sections.revising import revision_figures, revision_tables
from ttcjax.eval.sections.revising.revision_numbers import EasyAndHard, Revision, Selection, Trajectories, compare
from ttcjax.search import revision_verifiers

ENABLED = "revision.enabled True"
"""The setting that gives a run revisions."""
TURNED = 0.38
"""Share of right answers that the paper's revision model turns wrong."""
_NEAR = 0.10
"""Distance from `TURNED` that still counts as the same."""
_HARDLY = 0.02
"""A difference in accuracy that hardly matters."""
_BY = {"hierarchical": "the verifier", "majority": "majority"}


def trajectories_of(result: Mapping[str, Any]) -> Trajectories:
    """Return what the revision model learned from, as the record of the stage that made it says."""
    named = {key: result[key] for key in ("questions", "trajectories", "context")}
    distance = {int(edits): count for edits, count in result["distance"].items()}
    others = {key: value for key, value in result.items() if key not in (*named, "distance")}
    return Trajectories(**named, distance=distance, others=others)


class Revisions(Section[Revision]):
    """Chains of revisions, where a revision model was trained."""

    name = "revision"
    result = Revision
    drawings = (
        Drawing[Revision](
            Entry(
                "revision_steps",
                "Revisions, step by step",
                "The share of right answers rises along a chain, past the four steps that training had. Yet 38% of "
                "the right answers turn wrong at the next step, so an answer must be selected from the chain.",
                ENABLED,
                paper="6 left",
                iclr="9 left",
                tables=("revision_steps",),
            ),
            draw=lambda found, _: revision_figures.steps(found),
            greedy=baseline.once_on_chains(0),
        ),
        Drawing[Revision](
            Entry(
                "revision_budgets",
                "One chain of revisions against parallel answers",
                "One chain of N answers is slightly better than N parallel ones, under the verifier and under "
                "majority.",
                ENABLED,
                paper="6 right",
                iclr="9 right",
                tables=("revision_accuracy",),
            ),
            draw=lambda found, _: revision_figures.budgets(found),
            greedy=baseline.once_on_chains(0, 1),
        ),
        Drawing[Revision](
            Entry(
                "revision_ratios",
                "Sequential against parallel, selected by the verifier",
                "At a given budget there is a best ratio of sequential to parallel. Easy questions are best revised "
                "in one chain; hard ones want a ratio in between.",
                ENABLED,
                paper="7",
                tables=("revision_accuracy", "revision_bins"),
            ),
            draw=lambda found, _: revision_figures.ratios("hierarchical", found),
            greedy=baseline.once_on_chains(0),
        ),
        Drawing[Revision](
            Entry(
                "revision_ratios_majority",
                "Sequential against parallel, selected by majority",
                "With majority in place of the verifier the ratio hardly matters on easy questions, and one in "
                "between is best on hard ones. After training on its own trajectories (revision.rest_em) the model "
                "gets worse with every revision instead (Fig. 16, ICLR 19).",
                ENABLED,
                paper="10",
                tables=("revision_accuracy", "revision_bins"),
            ),
            draw=lambda found, _: revision_figures.ratios("majority", found),
            greedy=baseline.once_on_chains(0),
        ),
        Drawing[Revision](
            Entry(
                "revision_ratios_predicted",
                "Sequential against parallel, by predicted difficulty",
                "The same holds for bins of difficulty as the verifier predicts it, without labels.",
                ENABLED,
                paper="11",
                tables=("revision_bins",),
            ),
            draw=lambda found, _: revision_figures.predicted_ratios(found),
        ),
        Drawing[Revision](
            Entry(
                "revision_verifiers",
                "Verifiers of revisions",
                "An outcome-reward model trained on revisions judges them better than the process-reward model of base "
                "samples; to have the answers before in view helps it slightly, and without them one chain still beats "
                "parallel answers.",
                f'{ENABLED}, orm.variants "history no_history"',
                paper="15",
                iclr="18",
                tables=("revision_verifiers",),
            ),
            draw=lambda found, _: revision_figures.verifiers(found),
            greedy=baseline.once_on_chains(0),
        ),
        Drawing[Revision](
            Entry(
                "revision_trajectories",
                "What the revision model learned from",
                "The last answer before a right one should be near it, so that the model learns to mend and not to "
                "start over.",
                ENABLED,
            ),
            draw=lambda found, _: (
                None if found.trajectories is None else revision_figures.trajectories(found.trajectories)
            ),
        ),
    )
    tables = (
        Table[Revision](
            "revision_steps", "step chains measure mean low high", lambda found, _: revision_tables.step_rows(found)
        ),
        Table[Revision](
            "revision_accuracy",
            "strategy selector mean low high",
            lambda found, _: revision_tables.accuracy_rows(found),
        ),
        Table[Revision](
            "revision_bins",
            "bins bin selector strategy mean low high",
            lambda found, _: revision_tables.bin_rows(found),
        ),
        Table[Revision](
            "revision_verifiers", "verifier budget mean low high", lambda found, _: revision_tables.verifier_rows(found)
        ),
    )

    def wanted(self, records: Records) -> bool:
        return records.settings.revision.enabled

    def compute(self, records: Records) -> Revision:
        ease, splits, results = records.ease, records.splits, records.stages
        selection = None
        if "orm" in results and (selected := results["orm"]["result"][revision_verifiers.SELECTION]) is not None:
            selection = Selection(**selected)
        return dataclasses.replace(
            compare(records.settings, splits, ease["oracle"], ease["predicted"]),
            selection=selection,
            trajectories=trajectories_of(results["trajectories"]["result"]),
            examples=revision_tables.examples(records.answers, splits.verifier, records.settings.judges.aggregates),
        )

    def text(self, found: Revision, summary: Summary, console: Console) -> None:
        revision_tables.render(found, console)

    def html(self, found: Revision, summary: Summary) -> str:
        if not found.examples:
            return ""
        parts = []
        for chain in found.examples:
            rows = [
                [
                    str(number),
                    f'<span class="text">{markup.text(answer.text, lines=True)}</span>',
                    '<span class="yes">right</span>' if answer.correct else '<span class="no">wrong</span>',
                    markup.number(answer.score),
                ]
                for number, answer in enumerate(chain.answers, 1)
            ]
            caption = f"question {markup.text(chain.question)}"
            table = markup.table(["", "answer", "", "score"], rows, caption, words=True)
            gold = f'<p class="caption">The right answer is {markup.text(chain.gold)}.</p>'
            parts.append(f"<div>{table}{gold}</div>")
        return f'<h3>Revisions that turn an answer</h3><div class="side">{"".join(parts)}</div>'

    def claims(self, found: Revision, summary: Summary) -> Iterator[Claim]:
        yield from _revising(found)
        yield from _splitting(found)
        yield from _verifying(found)


SECTION = Revisions()


def _trajectories(found: Revision) -> Figure | None:
    return None if found.trajectories is None else revision_figures.trajectories(found.trajectories)


def _revising(found: Revision) -> Iterator[Claim]:
    late, flips = found.late_steps, found.right_to_wrong
    if late is not None:
        steps = f"steps {late.start} to {late.end} less"
        paper = "18% at step 1, 21.5% at 5, about 24% from 15 to 64"
        text = f"Revising raises pass@1 ({steps} the first)"
        yield higher(text, "Fig. 6 left", paper, late.minus_first, "revision.late_steps.minus_first")
        text = f"Revising raises pass@1 past the steps that training had ({steps} step {late.trained})"
        yield higher(text, "Fig. 6 left", paper, late.minus_trained, "revision.late_steps.minus_trained")
    if flips.known:
        text = f"Of right answers about {TURNED:.0%} turn wrong at the next step (within {100 * _NEAR:.0f} points)"
        held = near(flips.low, flips.high, TURNED, _NEAR)
        paper = f"{TURNED:.0%}, by a model that has seen wrong answers only"
        claim = judged(text, "Section 6.1", paper, flips, held, "revision.right_to_wrong", unit="%")
        yield unless(found.other_recipe, claim)
    rows = [row for row in found.sequential_minus_parallel if row.selector == "majority"]
    if found.rest_em and rows:
        text = f"After ReST^EM training one chain is worse than parallel answers (majority, N = {rows[-1].n})"
        paper = "about 34% against 38%"
        yield lower(text, "Fig. 16", paper, rows[-1], "revision.sequential_minus_parallel")


def _splitting(found: Revision) -> Iterator[Claim]:
    for rule, by in _BY.items():
        rows = [row for row in found.sequential_minus_parallel if row.selector == rule]
        if rows:
            text = f"One chain beats as many parallel answers, selected by {by} (N = {rows[-1].n})"
            paper = "narrowly: 41% against 39% at 64, selected by the verifier"
            yield higher(text, "Fig. 6 right", paper, rows[-1], "revision.sequential_minus_parallel")
    for rule, source in (("hierarchical", "Fig. 7 right"), ("majority", "Fig. 10 right")):
        yield from _by_ease(found.by_ease.by(rule), rule, source, f"{_BY[rule]}, N = {found.by_ease.n}")


def _by_ease(cells: EasyAndHard, rule: str, source: str, at: str) -> Iterator[Claim]:
    easy, hard = cells.easy.sequential_minus_parallel, cells.hard
    if rule == "hierarchical":
        text = f"On easy questions (bins 1-2) one chain is better than parallel answers ({at})"
        yield higher(text, source, "easy questions are best in one chain", easy, "revision.by_ease.easy")
    else:
        text = f"On easy questions (bins 1-2) one chain is as good as parallel answers, within 2 points ({at})"
        held = near(easy.low, easy.high, 0.0, _HARDLY)
        paper = "with majority the ratio hardly matters on easy questions"
        yield judged(text, source, paper, easy, held, "revision.by_ease.easy")
    if hard is not None:
        less = (("parallel answers", hard.between_minus_parallel), ("one chain", hard.between_minus_sequential))
        for other, cell in less:
            text = f"On hard questions (bins 3-5) a ratio in between beats {other} ({at})"
            yield higher(text, source, "hard questions want a ratio in between", cell, "revision.by_ease.hard")


def _verifying(found: Revision) -> Iterator[Claim]:
    rows = found.verifier_differences
    for other, text, paper in (
        ("prm", "On revisions an ORM trained on them beats the PRM of base samples", "41% against 40.5% at 64"),
        ("no_history", "The ORM of revisions gains from the answers before in view", "it gains slightly"),
    ):
        cells = {row.n: row for row in rows if (row.a, row.b) == ("history", other)}
        cells |= {row.n: turned(row) for row in rows if (row.a, row.b) == (other, "history")}
        if cells:
            n = max(cells)
            yield higher(f"{text} (one chain of {n})", "Fig. 15", paper, cells[n], "revision.verifier_differences")
