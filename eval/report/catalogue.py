"""Every figure of a report: which of the paper's it is, what that one claims, and which setting gives it.

Figures are numbered as in the first version of Snell et al. 2024 (arXiv 2408.03314v1), with the number of the version
at ICLR 2025 beside it where that is another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One figure of a report.

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


_REVISIONS = "revision.enabled True"
_BINS = "data.num_test of 10 or more"

FIGURES = (
    Entry(
        "accuracy_vs_budget",
        "Accuracy by strategy and generation budget",
        "At low budgets beam search is best. As the budget grows its gains shrink and it falls below best-of-N "
        "weighted; lookahead does worst for what it costs. Majority is below all that ask the verifier.",
        "sweep.strategies, sweep.budgets",
        paper="3 left",
        tables=("accuracy", "greedy"),
    ),
    Entry(
        "by_difficulty",
        "Strategies by difficulty",
        "On easy questions (bins 1 and 2) beam search loses accuracy as the budget grows: it exploits the verifier. On "
        "harder ones (3 and 4) it is better throughout, and on the hardest nothing works.",
        _BINS,
        paper="3 right",
        tables=("by_difficulty",),
    ),
    Entry(
        "compute_optimal",
        "The strategy chosen by difficulty",
        "Choosing by difficulty reaches best-of-N's accuracy with up to 4 times fewer generations, with bins that need "
        "no labels too; at high budgets these gain less.",
        _BINS,
        paper="4",
        tables=("by_difficulty",),
    ),
    Entry(
        "revision_steps",
        "Revisions, step by step",
        "The share of right answers rises along a chain, past the four steps that training had. Yet 38% of the right "
        "answers turn wrong at the next step, so an answer must be selected from the chain.",
        _REVISIONS,
        paper="6 left",
        iclr="9 left",
        tables=("revision_steps",),
    ),
    Entry(
        "revision_budgets",
        "One chain of revisions against parallel answers",
        "One chain of N answers is slightly better than N parallel ones, under the verifier and under majority.",
        _REVISIONS,
        paper="6 right",
        iclr="9 right",
        tables=("revision_accuracy",),
    ),
    Entry(
        "revision_ratios",
        "Sequential against parallel, selected by the verifier",
        "At a given budget there is a best ratio of sequential to parallel. Easy questions are best revised in one "
        "chain; hard ones want a ratio in between.",
        _REVISIONS,
        paper="7",
        tables=("revision_accuracy", "revision_bins"),
    ),
    Entry(
        "revision_by_difficulty",
        "The ratio of sequential to parallel chosen by difficulty",
        "Choosing the ratio by difficulty beats parallel answers with up to 4 times fewer generations, and goes on "
        "rising where they level off, with predicted bins too.",
        _REVISIONS,
        paper="8",
        iclr="6",
        tables=("revision_by_difficulty",),
    ),
    Entry(
        "exchange",
        "Test-time compute against a larger model",
        "At equal FLOPs the small model with test-time compute beats one about 14 times as large on easy and medium "
        "questions, or where little inference is expected (R below 1). On hard ones, and where much is, the larger "
        "model wins: the two are not exchanged one for one.",
        "larger.enabled True",
        paper="9 and 1 right",
        iclr="8 and 1 right",
        tables=("exchange",),
    ),
    Entry(
        "revision_ratios_majority",
        "Sequential against parallel, selected by majority",
        "With majority in place of the verifier the ratio hardly matters on easy questions, and one in between is "
        "best on hard ones. After training on its own trajectories (revision.rest_em) the model gets worse with every "
        "revision instead (Fig. 16, ICLR 19).",
        _REVISIONS,
        paper="10",
        tables=("revision_accuracy", "revision_bins"),
    ),
    Entry(
        "revision_ratios_predicted",
        "Sequential against parallel, by predicted difficulty",
        "The same holds for bins of difficulty as the verifier predicts it, without labels.",
        _REVISIONS,
        paper="11",
        tables=("revision_bins",),
    ),
    Entry(
        "by_difficulty_predicted",
        "Strategies by predicted difficulty",
        "Bins of difficulty as the verifier predicts it, without labels, show the same as those of the truth.",
        _BINS,
        paper="12",
        tables=("by_difficulty",),
    ),
    Entry(
        "aggregation",
        "From step scores to the score of a solution",
        "The last step's score is the best score of a solution, the lowest step's comes next, and the product of all "
        "is worst, below the majority vote.",
        "sweep.strategies, sweep.budgets",
        paper="13",
        iclr="14",
        tables=("aggregation",),
    ),
    Entry(
        "verifiers",
        "Process-reward and outcome-reward model of base samples",
        "The process-reward model beats the outcome-reward model, the more the larger the budget, and both beat "
        "majority. Weighted votes beat the single best sample; by the outcome-reward model the latter turns down at "
        "large budgets.",
        "orm.base True",
        paper="14",
        iclr="13 and 15",
        tables=("verifiers",),
    ),
    Entry(
        "revision_verifiers",
        "Verifiers of revisions",
        "An outcome-reward model trained on revisions judges them better than the process-reward model of base "
        "samples; to have the answers before in view helps it slightly, and without them one chain still beats "
        "parallel answers.",
        f'{_REVISIONS}, orm.variants "history no_history"',
        paper="15",
        iclr="18",
        tables=("revision_verifiers",),
    ),
    Entry(
        "weak_verifiers",
        "Weak verifiers",
        "The better the verifier, the more test-time compute brings: random scores are no better than majority, with "
        "a fifth of its scores flipped the verifier still helps, and it is best as it is. The paper puts such "
        "verifiers into the exchange with a larger model; here they select among base samples. Beside them the policy "
        "judges itself: votes weighted by the likelihood of their tokens cost nothing, and a verifier must beat them.",
        "sweep.strategies, sweep.budgets",
        iclr="17",
        tables=("weak_verifiers",),
    ),
    Entry(
        "over_optimisation",
        "Signs that searches exploit the verifier",
        "Strong searches find solutions that the verifier likes and that are not right: steps repeated to the end, or "
        "one or two steps in all. The paper shows examples; here the same is counted. What stands at N = 1 is the "
        "policy's own; scores outrun the truth under best-of-N too, and references repeat steps too, so a search "
        "exploits its verifier by what it adds to those.",
        "sweep.strategies, sweep.budgets",
        paper="24 to 29",
        iclr="27 to 32",
        tables=("over_optimisation", "verifier_by_difficulty"),
    ),
    Entry(
        "accuracy_vs_flops",
        "Accuracy against compute",
        "The paper counts generations. Here every token is counted, the verifier's too, at two FLOPs a parameter.",
        "a policy and a verifier that this run trained",
        tables=("compute",),
    ),
    Entry(
        "budget",
        "What difficulty costs to know, and budgets shared out over questions",
        "The paper takes difficulty from 2048 samples a question and does not count them. Here it is estimated from a "
        "few, counted and not; and a total budget is shared out over the questions by difficulty.",
        _BINS,
        tables=("budget",),
    ),
    Entry(
        "quality",
        "Difficulty of the questions, and calibration of the verifier",
        "What the strategies start from: how often base samples are right, and whether a step's score is the chance "
        "that it ends right.",
        "sweep.samples",
    ),
    Entry(
        "revision_families",
        "Revisions by subject, and the swap control",
        "Where an attempt tells the next one something, the share of right answers rises along a chain, and with "
        "another question's answers in view it does not. Where it tells nothing, as in derivations, it stays flat.",
        _REVISIONS,
        tables=("revision_families", "luck"),
    ),
    Entry(
        "revision_trajectories",
        "What the revision model learned from",
        "The last answer before a right one should be near it, so that the model learns to mend and not to start over.",
        _REVISIONS,
    ),
)
"""In the order of the page: the paper's figures, then our own."""

OTHERS = (
    ("Fig. 1 left", "the paper in short: lines of Figs. 4 and 8 again"),
    ("Figs. 2 and 5", "drawings of the methods"),
    ("Fig. 16 (ICLR 19)", "ReST^EM: the figure of Fig. 10 in a run with revision.rest_em.chains of 1 or more"),
    ("Figs. 17 to 23 (ICLR 20 to 26)", "examples of revisions: at the end of the diagnostics, with revision.enabled"),
    ("ICLR Fig. 16", "other base models: Fig. 3 right in a run with another model"),
)
"""Figures of the paper that no file of a report is, and where to find the like."""


def entry(name: str) -> Entry | None:
    """Return the entry of a figure's files, or `None` for one that is not listed."""
    return next((found for found in FIGURES if found.name == name), None)


def of_source(source: str, names: Iterable[str]) -> str | None:
    """Return which of the figures `names` a source means, see `Entry.answers`; `None` if it means none."""
    named = set(names)
    return next((found.name for found in FIGURES if found.name in named and found.answers(source)), None)


def line(name: str) -> str:
    """Return what a figure is in a few words, e.g. `Fig. 3 left: Accuracy by strategy and generation budget`."""
    found = entry(name)
    if found is None:
        return "figure"
    return f"{found.number}: {found.title}" if found.number else found.title


def in_order(names: Iterable[str]) -> list[str]:
    """Return the names of figures in the order of the page, those not listed last."""
    places = {found.name: i for i, found in enumerate(FIGURES)}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))
