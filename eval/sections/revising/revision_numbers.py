"""The numbers on revisions, from chains of answers; nothing here runs a model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ttcjax.config import DraftsConfig, RevisionConfig
from ttcjax.eval.records.answer_chains import SELECTORS, AnswerChains, Splits, pairs, strategy_name
from ttcjax.eval.records.bundle import ReportSettings
from ttcjax.eval.report.coding import key
from ttcjax.eval.sections.paired import BySelector, Compared
from ttcjax.eval.stats.allocate import choose
from ttcjax.eval.stats.difficulty import quantile_bins
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.search.strategies.refine import Refine
from ttcjax.verify.select import CHAIN_RULES

PAPERS_MOST = 4
"""Most answers in view when the paper's revision model is trained."""


@dataclass(frozen=True, kw_only=True)
class AtStep(Estimate):
    """Pass@1 at a step of the chains.

    Attributes:
        step: From 1.
        chains: Those that long, of a question.
    """

    step: int
    chains: int


@dataclass(frozen=True, kw_only=True)
class Tried(Estimate):
    """Accuracy of what refining has kept.

    Attributes:
        tries: After so many.
    """

    tries: int


@dataclass(frozen=True)
class Flips:
    """Shares of answers that turn right or wrong.

    Attributes:
        step: Of the answer that may be another than the one before.
        right_to_wrong: Of right answers before it.
        wrong_to_right: Of wrong ones.
    """

    step: int
    right_to_wrong: Estimate
    wrong_to_right: Estimate


@dataclass(frozen=True, kw_only=True)
class Split(Estimate):
    """Accuracy of a chosen split of a budget: chosen on one half of the questions, judged on the other.

    Attributes:
        s: Answers of a chain of the split that is best on all questions; `None` over seeds that differ.
        p: Chains of that.
        minus_parallel: Less parallel answers, paired.
    """

    s: int | None
    p: int | None
    minus_parallel: Estimate


@dataclass(frozen=True, kw_only=True)
class SplitOfBudget(Split):
    """The same at a budget.

    Attributes:
        n: The budget.
        selector: One of `SELECTORS`.
    """

    n: int
    selector: str


@dataclass(frozen=True)
class Ratios:
    """Every split of a budget.

    Attributes:
        accuracy: By split.
        best: The best one.
    """

    accuracy: dict[str, Estimate]
    best: Split


@dataclass(frozen=True)
class Bin:
    """Questions of one difficulty.

    Attributes:
        questions: How many.
        n: The largest budget, which is split.
        pass_at_1: Of the first answer.
        hierarchical: Selected by the verifier.
        majority: Selected by majority.
    """

    questions: int
    n: int
    pass_at_1: Estimate
    hierarchical: Ratios
    majority: Ratios

    def by(self, rule: str) -> Ratios:
        """Return every split under one of `SELECTORS`."""
        return {"hierarchical": self.hierarchical, "majority": self.majority}[rule]


@dataclass(frozen=True)
class Easy:
    """Easy questions (bins 1 and 2): one chain less parallel answers, paired."""

    sequential_minus_parallel: Estimate


@dataclass(frozen=True)
class Hard:
    """Hard questions (bins 3 and up): splits with several chains of several answers, less each of the two ends, paired.

    They are chosen on one half of the questions and judged on the other.
    """

    between_minus_parallel: Estimate
    between_minus_sequential: Estimate


@dataclass(frozen=True)
class EasyAndHard:
    """Both under one selector; nothing of hard ones where the budget has no split in between."""

    easy: Easy
    hard: Hard | None = None


@dataclass(frozen=True)
class ByEase:
    """Gains of chains on easy questions and of splits in between on hard ones.

    Attributes:
        n: The largest budget.
        hierarchical: Selected by the verifier.
        majority: Selected by majority.
    """

    n: int
    hierarchical: EasyAndHard
    majority: EasyAndHard

    def by(self, rule: str) -> EasyAndHard:
        """Return both under one of `SELECTORS`."""
        return {"hierarchical": self.hierarchical, "majority": self.majority}[rule]


@dataclass(frozen=True)
class LateSteps:
    """Gain in right answers past the steps that training had over others, paired.

    Attributes:
        start: First of the late steps, in whose mean pass@1 is taken.
        end: Last of them.
        trained: The last step that training had.
        minus_first: Less the first step.
        minus_trained: Less step `trained`.
    """

    start: int = field(metadata=key("from"))
    end: int = field(metadata=key("to"))
    trained: int
    minus_first: Estimate
    minus_trained: Estimate


@dataclass(frozen=True)
class Selection:
    """The verifiers on training questions that none was trained on.

    Attributes:
        questions: How many.
        accuracy: Of what each selects.
        chosen: The best one.
    """

    questions: int
    accuracy: dict[str, float]
    chosen: str


@dataclass(frozen=True)
class Trajectories:
    """Trajectories that the revision model learned from.

    Attributes:
        questions: Questions that were sampled.
        trajectories: Made of them.
        context: Trajectories by the number of answers in view.
        distance: Trajectories by edits from the last answer in view to the target, counted from that many on.
        others: Further numbers of the stage that made them, as its record has them.
    """

    questions: int
    trajectories: int
    context: list[int]
    distance: dict[int, int]
    others: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """An answer of a chain.

    Attributes:
        text: The solution.
        correct: Whether it is right.
        score: By the verifier that selects; NaN where that did not read it.
    """

    text: str
    correct: bool
    score: float


@dataclass(frozen=True)
class Chain:
    """The head of a chain in which an answer turns.

    Attributes:
        question: Its id.
        gold: The right answer.
        answers: The first ones.
    """

    question: str
    gold: str
    answers: list[Answer]


@dataclass(frozen=True)
class Revision:
    """Every number on revisions.

    Attributes:
        questions: How many have chains.
        verifier: Whose scores select.
        trained_answers: Most answers in view in training.
        other_recipe: See `other_recipe`.
        rest_em: Whether the model was trained on its own trajectories.
        accuracy: By strategy and selector, of splits (`answer_chains.strategy_name`) and of refining.
        pass_at_1_by_step: Along the chains.
        right_to_wrong: How often a right answer turns wrong at the next step.
        wrong_to_right: The other way round.
        flips_by_step: Both by step.
        sequential_minus_parallel: One chain less parallel answers, paired.
        best_split: Of each budget.
        refine: Of what refining has kept.
        per_bin: By bin of the share of right base samples.
        per_bin_predicted: By bin of what the verifier of base samples predicts.
        by_ease: Easy and hard questions apart.
        verifiers: Accuracy of one chain, by verifier and budget.
        verifier_differences: One chain under one verifier less under another, paired.
        late_steps: Past the steps that training had, where chains go there.
        selection: How the verifier was chosen, where several were trained.
        trajectories: What the model learned from, where it is known.
        examples: Chains in which an answer turns.
    """

    questions: int
    verifier: str
    trained_answers: int
    other_recipe: str | None
    rest_em: bool
    accuracy: dict[str, dict[str, Estimate]]
    pass_at_1_by_step: list[AtStep]
    right_to_wrong: Estimate
    wrong_to_right: Estimate
    flips_by_step: list[Flips]
    sequential_minus_parallel: list[BySelector]
    best_split: list[SplitOfBudget]
    refine: list[Tried]
    per_bin: dict[int, Bin]
    per_bin_predicted: dict[int, Bin]
    by_ease: ByEase
    verifiers: dict[str, dict[int, Estimate]]
    verifier_differences: list[Compared]
    late_steps: LateSteps | None = None
    selection: Selection | None = None
    trajectories: Trajectories | None = None
    examples: list[Chain] = field(default_factory=list)

    @property
    def budgets(self) -> list[int]:
        """Budgets that are split, rising."""
        return list(dict.fromkeys(row.n for row in self.best_split))


def other_recipe(revision: RevisionConfig, drafts: DraftsConfig) -> str | None:
    """Return in what a revision model learns from other answers in view than the paper's; `None` where in nothing.

    The paper's sees 0 to 4 wrong answers before a right one, never a right one (Snell et al. 2024, section 6.1): what
    it makes of right answers in view follows from that. How the question stands beside them (`restate`) does not count.
    """
    if drafts.several and drafts.kept:
        return "here the policy's own training has right answers in view and repeats them"
    if revision.rest_em.chains:
        return "here the model is trained on its own trajectories (ReST^EM)"
    if revision.trajectories.context != "wrong":
        return "here right answers are in view in training too, in the paper wrong ones alone"
    if revision.trajectories.kept:
        return "here the model also learns to repeat right answers, in the paper it never sees one in view"
    if revision.trajectories.most != PAPERS_MOST:
        return f"here training has up to {revision.trajectories.most} answers in view, in the paper {PAPERS_MOST}"
    return None


def compare(
    report: ReportSettings, found: Splits, ease: Mapping[str, float], predicted: Mapping[str, float] | None = None
) -> Revision:
    """Compute every number on revisions that rests on the chains.

    Args:
        report: Settings of the report.
        found: The chains and every split of them.
        ease: Share of right base samples of each question, for the bins.
        predicted: How easy the verifier of base samples takes each question to be; `ease` if not given.
    """
    settings, chains, values = report.chains, found.chains, found.accuracy
    bootstrap = Bootstrap(len(chains.questions), report.sweep.bootstrap, report.sweep.bootstrap_seed)
    accuracy = {
        strategy_name(s, p): {rule: bootstrap(values[s, p, rule]) for rule in CHAIN_RULES}
        for n in settings.budgets
        for s, p in pairs(n)
    }
    refined = []
    if found.refined is not None:
        for count in range(1 + settings.refine):
            estimate = bootstrap(found.refined.standing(count))
            refined.append(estimate.as_a(Tried, tries=count))
            if count:
                accuracy[Refine(count).name] = {"accepted": estimate}
    steps = int(max(chains.lengths))
    turns = [chains.turns(place) for place in range(steps - 1)]
    total = np.sum(turns, axis=0) if turns else np.zeros((len(chains.questions), 2, 2))
    bins, guessed = (
        quantile_bins(np.array([known[question] for question in chains.questions]))
        for known in (ease, ease if predicted is None else predicted)
    )
    one_chain = {
        name: {n: chains.accuracy(n, 1, "hierarchical", name) for n in settings.budgets} for name in chains.scores
    }
    return Revision(
        questions=len(chains.questions),
        verifier=found.verifier,
        trained_answers=report.revision.trajectories.most,
        other_recipe=other_recipe(report.revision, report.drafts),
        rest_em=report.revision.rest_em.chains > 0,
        accuracy=accuracy,
        pass_at_1_by_step=[
            bootstrap(chains.pass_at_1(place)).as_a(AtStep, step=place + 1, chains=int((chains.lengths > place).sum()))
            for place in range(steps)
        ],
        right_to_wrong=_flips(bootstrap, total, 1),
        wrong_to_right=_flips(bootstrap, total, 0),
        flips_by_step=[
            Flips(place + 2, _flips(bootstrap, counts, 1), _flips(bootstrap, counts, 0))
            for place, counts in enumerate(turns)
        ],
        sequential_minus_parallel=[
            bootstrap.paired(values[n, 1, rule], values[1, n, rule]).as_a(BySelector, n=n, selector=rule)
            for rule in SELECTORS
            for n in settings.budgets
            if n > 1
        ],
        best_split=[
            SplitOfBudget(
                **vars(_best(report, bootstrap, {(s, p): values[s, p, rule] for s, p in pairs(n)})), n=n, selector=rule
            )
            for rule in SELECTORS
            for n in settings.budgets
        ],
        refine=refined,
        per_bin=_per_bin(report, bins, values),
        per_bin_predicted=_per_bin(report, guessed, values),
        by_ease=_by_ease(report, bins, values),
        late_steps=_late_steps(bootstrap, chains, report.revision.trajectories.most),
        verifiers={
            name: {n: bootstrap(accuracy_Q) for n, accuracy_Q in cells.items()} for name, cells in one_chain.items()
        },
        verifier_differences=[
            bootstrap.paired(one_chain[a][n], one_chain[b][n]).as_a(Compared, a=a, b=b, n=n)
            for a, b in itertools.combinations(one_chain, 2)
            for n in settings.budgets
        ],
    )


def _flips(bootstrap: Bootstrap, counts: np.ndarray, before: int) -> Estimate:
    """Return how often the next answer is the other way round, of those that were right (1) or wrong (0)."""
    return bootstrap.rate(counts[:, before, 1 - before], counts[:, before].sum(axis=1))


def _best(report: ReportSettings, bootstrap: Bootstrap, values: dict[tuple[int, int], np.ndarray]) -> Split:
    """Return the split that is best on all questions, and what choosing one brings."""
    s, p = max(values, key=lambda pair: values[pair].mean())
    everything = np.stack(list(values.values()))
    choice = choose(report.sweep, everything, np.ones(everything.shape[1], np.int64), bootstrap)
    parallel = values[min(values)]
    return choice.estimate().as_a(Split, s=s, p=p, minus_parallel=choice.less(parallel))


def _per_bin(
    report: ReportSettings, bins: np.ndarray, values: dict[tuple[int, int, str], np.ndarray]
) -> dict[int, Bin]:
    largest = max(report.chains.budgets)
    everyone = Bootstrap(len(bins), report.sweep.bootstrap, report.sweep.bootstrap_seed)
    found = {}
    for number in np.unique(bins).tolist():
        inside = bins == number
        bootstrap = everyone.within(inside)

        def ratios(rule: str, inside: np.ndarray = inside, bootstrap: Bootstrap = bootstrap) -> Ratios:
            within = {(s, p): values[s, p, rule][inside] for s, p in pairs(largest)}
            accuracy = {strategy_name(s, p): bootstrap(accuracy_Q) for (s, p), accuracy_Q in within.items()}
            return Ratios(accuracy, _best(report, bootstrap, within))

        found[number] = Bin(
            questions=int(inside.sum()),
            n=largest,
            pass_at_1=bootstrap(values[1, 1, "majority"][inside]),
            hierarchical=ratios("hierarchical"),
            majority=ratios("majority"),
        )
    return found


def _by_ease(report: ReportSettings, bins: np.ndarray, values: dict[tuple[int, int, str], np.ndarray]) -> ByEase:
    """Return what chains bring on easy questions (bins 1 and 2) and splits in between on hard ones (3 and up)."""
    largest = max(report.chains.budgets)
    easy, hard = bins <= 2, bins > 2
    everyone = Bootstrap(len(bins), report.sweep.bootstrap, report.sweep.bootstrap_seed)

    def under(rule: str) -> EasyAndHard:
        one, many = values[largest, 1, rule], values[1, largest, rule]
        on_easy = Easy(everyone.difference(one - many, easy))
        between = [values[s, p, rule][hard] for s, p in pairs(largest) if s > 1 and p > 1]
        if not between:
            return EasyAndHard(on_easy)
        chosen = choose(report.sweep, np.stack(between), bins[hard], everyone.within(hard))
        return EasyAndHard(on_easy, Hard(chosen.less(many[hard]), chosen.less(one[hard])))

    return ByEase(largest, under("hierarchical"), under("majority"))


def _late_steps(bootstrap: Bootstrap, chains: AnswerChains, most: int) -> LateSteps | None:
    """Return the mean pass@1 of the steps past those that training had, less that of others.

    Training had up to `most` answers before one, so late steps are those from `most + 2` on.
    """
    last = int(max(chains.lengths))
    if last < most + 2:
        return None
    late = np.mean([chains.pass_at_1(place) for place in range(most + 1, last)], axis=0)
    return LateSteps(
        start=most + 2,
        end=last,
        trained=most + 1,
        minus_first=bootstrap.paired(late, chains.pass_at_1(0)),
        minus_trained=bootstrap.paired(late, chains.pass_at_1(most)),
    )
