"""From chains of answers to the numbers on revisions; nothing here runs a model.

Every pair of s answers a chain and p chains is answered from one set of chains: the first s answers of a chain are
a chain of s, and different groups of p chains are independent. Chains have the lengths that the config fixes
beforehand, whatever the answers, so the estimates are unbiased.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ttcjax.config import ExperimentConfig
from ttcjax.eval.collect.revision_chains import VERIFIERS
from ttcjax.eval.stats.allocate import choose
from ttcjax.eval.stats.difficulty import quantile_bins
from ttcjax.eval.stats.intervals import Bootstrap, Estimate, as_table
from ttcjax.runtime.errors import UserError
from ttcjax.search.strategies.refine import Refine
from ttcjax.verify.select import CHAIN_RULES, choose_in_chains, group_answers

SELECTORS = ("hierarchical", "majority")
"""The two that the paper compares (Snell et al. 2024, section 6.2); `last` and `best` are for reference."""

PAPERS_MOST = 4
"""Most answers in view when the paper's revision model is trained."""


def other_recipe(config: ExperimentConfig) -> str | None:
    """Return in what a revision model learns from other answers in view than the paper's; `None` where in nothing.

    The paper's sees 0 to 4 wrong answers before a right one, never a right one (Snell et al. 2024, section 6.1): what
    it makes of right answers in view follows from that. How the question stands beside them (`restate`) does not count.
    """
    revision, drafts = config.revision, config.drafts
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


@dataclass(frozen=True, eq=False)
class AnswerChains:
    """Answers laid out as arrays `[Q, C, S]`: question, chain, place; chains may be shorter than S.

    Attributes:
        questions: Question ids, `[Q]`.
        lengths: Answers of each chain, `[C]`, none longer than the one before.
        groups: Ids of groups of equal answers within a question; -1 is unparsable.
        correct: Whether the answer is right.
        scores: Of each verifier that read them; 0 where there is nothing.
        kept: Whether an answer took the place of the one before it, where a strategy decides that.
    """

    questions: tuple[str, ...]
    lengths: np.ndarray
    groups: np.ndarray
    correct: np.ndarray
    scores: dict[str, np.ndarray]
    kept: np.ndarray

    @classmethod
    def from_table(
        cls, table: pa.Table, lengths: Sequence[int], grade_equal: Callable[[str, str], bool] | None = None
    ) -> AnswerChains:
        """Lay out the rows of the chains stage.

        Args:
            table: Rows of `chains.SCHEMA`, in any order.
            lengths: Answers that each chain should have.
            grade_equal: Tells whether two different answers are equal; `None` compares canonical strings.

        Raises:
            UserError: A row is missing, stands twice, or has no place.
        """
        questions = sorted(set(table["question"].to_pylist()))
        place = {question: i for i, question in enumerate(questions)}
        q = np.array([place[name] for name in table["question"].to_pylist()], np.int64)
        c, s = (table[name].to_numpy().astype(np.int64) for name in ("chain", "place"))
        shape = (len(questions), len(lengths), max(lengths))
        wanted = np.broadcast_to(np.arange(shape[2]) < np.asarray(lengths)[:, None], shape)
        if len(q) and (c.max() >= shape[1] or s.max() >= shape[2]):
            raise UserError("the chains are longer or more than this config has: move their folder away and run again")
        count = np.zeros(shape, np.int64)
        np.add.at(count, (q, c, s), 1)
        if (count != wanted).any():
            raise UserError("answers of the chains are missing or stand twice: move their folder away and run again")

        def laid_out(values: np.ndarray, empty: float) -> np.ndarray:
            array = np.full(shape, empty, values.dtype)
            array[q, c, s] = values
            return array

        answers = np.array(table["answer"].to_pylist(), object)
        ids = np.full(len(q), -1, np.int64)
        for i in range(len(questions)):
            rows = np.flatnonzero(q == i)
            ids[rows] = group_answers(answers[rows].tolist(), grade_equal)
        scores = {}
        for name in VERIFIERS:
            column = table[f"score_{name}"]
            if not column.null_count:
                scores[name] = laid_out(column.to_numpy().astype(np.float64), 0.0)
        return cls(
            questions=tuple(questions),
            lengths=np.asarray(lengths),
            groups=laid_out(ids, -1),
            correct=laid_out(table["correct"].to_numpy(zero_copy_only=False), False),
            scores=scores,
            kept=laid_out(table["kept"].fill_null(False).to_numpy(zero_copy_only=False), False),
        )

    def pass_at_1(self, place: int) -> np.ndarray:
        """Return the share of right answers at one place of the chains, `[Q]`."""
        return self.correct[:, self.lengths > place, place].mean(axis=1)

    def turns(self, place: int) -> np.ndarray:
        """Return how often the answer after `place` is right and wrong, by what it follows.

        Returns:
            `[Q, 2, 2]` counts over the chains, index 1 for right: first of the answer at `place`, then of the next.
        """
        chains = self.lengths > place + 1
        before, after = self.correct[:, chains, place], self.correct[:, chains, place + 1]
        counts = np.zeros((len(self.questions), 2, 2))
        for a in (0, 1):
            for b in (0, 1):
                counts[:, a, b] = ((before == a) & (after == b)).sum(axis=1)
        return counts

    def standing(self, place: int) -> np.ndarray:
        """Return the share of right answers among those last kept up to a place, `[Q]`."""
        last = place - np.argmax(self.kept[:, :, place::-1], axis=2)
        return np.take_along_axis(self.correct, last[..., None], axis=2)[..., 0].mean(axis=1)

    def accuracy(self, sequential: int, parallel: int, rule: str, verifier: str | None = None) -> np.ndarray:
        """Return each question's chance that the answer chosen from p chains of s is right, `[Q]`.

        The chains that are long enough are cut into groups of p, a rest is not used, and the groups averaged.

        Args:
            sequential: s.
            parallel: p.
            rule: One of `ttcjax.verify.select.CHAIN_RULES`.
            verifier: Whose scores select; votes (`majority` and `last`) do without, the first of equals wins.

        Raises:
            UserError: There are not p chains of s answers.
        """
        enough = int((self.lengths >= sequential).sum())
        if enough < parallel:
            raise UserError(f"{parallel} chains of {sequential} answers are needed, and there are {enough}")
        Q, blocks = len(self.questions), enough // parallel
        scores = None if verifier is None else self.scores[verifier]

        def cut(values: np.ndarray) -> np.ndarray:
            return values[:, : blocks * parallel, :sequential].reshape(Q * blocks, parallel, sequential)

        chosen = choose_in_chains(cut(self.groups), None if scores is None else cut(scores), rule)
        right = cut(self.correct).reshape(Q * blocks, -1)[np.arange(Q * blocks), chosen] & (chosen >= 0)
        return right.reshape(Q, blocks).mean(axis=1)


def strategy_name(sequential: int, parallel: int) -> str:
    """Return how a split of a budget is called."""
    return f"revise:s={sequential},p={parallel}"


def pairs(budget: int) -> list[tuple[int, int]]:
    """Return (s, p) with s * p equal to a power of two, s a power of two, from parallel to sequential."""
    return [(1 << i, budget >> i) for i in range(budget.bit_length())]


@dataclass(frozen=True, eq=False)
class Splits:
    """Accuracies under every split of every budget.

    Attributes:
        chains: The answers.
        refined: Those of `refine`, a chain a question, where the config asks for them.
        accuracy: Each question's chance of a right answer `[Q]`, by s, p and rule.
        verifier: Whose scores select.
    """

    chains: AnswerChains
    refined: AnswerChains | None
    accuracy: dict[tuple[int, int, str], np.ndarray]
    verifier: str

    def by_ratio(self, rule: str) -> dict[int, dict[str, np.ndarray]]:
        """Return each question's accuracy under a rule, by budget N and split."""
        found: dict[int, dict[str, np.ndarray]] = {}
        for (s, p, name), values in self.accuracy.items():
            if name == rule:
                found.setdefault(s * p, {})[strategy_name(s, p)] = values
        return found


def splits(config: ExperimentConfig, table: pa.Table, questions: Collection[str], verifier: str) -> Splits:
    """Answer with every split of every budget.

    Args:
        config: The experiment.
        table: Rows of the chains stage.
        questions: Those of the bank.
        verifier: Whose scores select, see `ttcjax.search.revision_verifiers.chosen`.

    Raises:
        UserError: A question of the chains has no base samples, or one of the test has no chains.
    """
    settings = config.chains
    chains = AnswerChains.from_table(table.filter(pc.field("strategy") == "revise"), settings.lengths)
    missing = [question for question in chains.questions if question not in questions]
    if missing:
        raise UserError(f"the bank has no samples of {missing[0]}: move the bank and chains folders away and run again")
    expected = min(settings.questions or len(questions), len(questions))
    if len(chains.questions) != expected:
        raise UserError(
            f"the chains hold {len(chains.questions)} of {expected} test questions: move their folder away and "
            "run again"
        )
    refined = None
    if settings.refine:
        refined = AnswerChains.from_table(table.filter(pc.field("strategy") == "refine"), [1 + settings.refine])
    accuracy = {
        (s, p, rule): chains.accuracy(s, p, rule, verifier)
        for n in settings.budgets
        for s, p in pairs(n)
        for rule in CHAIN_RULES
    }
    return Splits(chains, refined, accuracy, verifier)


def summarise(
    config: ExperimentConfig, found: Splits, ease: Mapping[str, float], predicted: Mapping[str, float] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compute every number on revisions.

    Args:
        config: The experiment.
        found: What `splits` returns.
        ease: Share of right base samples of each question, for the bins.
        predicted: How easy the verifier of base samples takes each question to be; `ease` if not given.

    Returns:
        The table `revision` of the summary, and accuracies by strategy and selector.
    """
    settings, chains, values = config.chains, found.chains, found.accuracy
    bootstrap = Bootstrap(len(chains.questions), config.sweep.bootstrap, config.sweep.bootstrap_seed)
    accuracy = {
        strategy_name(s, p): {rule: as_table(bootstrap(values[s, p, rule])) for rule in CHAIN_RULES}
        for n in settings.budgets
        for s, p in pairs(n)
    }
    refined = []
    if found.refined is not None:
        for count in range(1 + settings.refine):
            estimate = as_table(bootstrap(found.refined.standing(count)))
            refined.append({"tries": count, **estimate})
            if count:
                accuracy[Refine(count).name] = {"accepted": estimate}
    steps = int(max(chains.lengths))
    turns = [chains.turns(place) for place in range(steps - 1)]
    total = np.sum(turns, axis=0) if turns else np.zeros((len(chains.questions), 2, 2))
    bins, guessed = (
        quantile_bins(np.array([known[question] for question in chains.questions]))
        for known in (ease, ease if predicted is None else predicted)
    )
    return {
        "questions": len(chains.questions),
        "verifier": found.verifier,
        "trained_answers": config.revision.trajectories.most,
        "other_recipe": other_recipe(config),
        "pass_at_1_by_step": [
            {
                "step": place + 1,
                "chains": int((chains.lengths > place).sum()),
                **as_table(bootstrap(chains.pass_at_1(place))),
            }
            for place in range(steps)
        ],
        "right_to_wrong": as_table(_flips(bootstrap, total, 1)),
        "wrong_to_right": as_table(_flips(bootstrap, total, 0)),
        "flips_by_step": [
            {
                "step": place + 2,
                "right_to_wrong": as_table(_flips(bootstrap, counts, 1)),
                "wrong_to_right": as_table(_flips(bootstrap, counts, 0)),
            }
            for place, counts in enumerate(turns)
        ],
        "sequential_minus_parallel": [
            {"n": n, "selector": rule, **as_table(bootstrap.paired(values[n, 1, rule], values[1, n, rule]))}
            for rule in SELECTORS
            for n in settings.budgets
            if n > 1
        ],
        "best_split": [
            {"n": n, "selector": rule, **_best(config, bootstrap, {(s, p): values[s, p, rule] for s, p in pairs(n)})}
            for rule in SELECTORS
            for n in settings.budgets
        ],
        "refine": refined,
        "per_bin": _per_bin(config, bins, values),
        "per_bin_predicted": _per_bin(config, guessed, values),
        "by_ease": _by_ease(config, bins, values),
        "late_steps": _late_steps(bootstrap, chains, config.revision.trajectories.most),
        "verifiers": {
            name: {str(n): as_table(bootstrap(chains.accuracy(n, 1, "hierarchical", name))) for n in settings.budgets}
            for name in chains.scores
        },
        "verifier_differences": [
            {
                "a": a,
                "b": b,
                "n": n,
                **as_table(
                    bootstrap.paired(chains.accuracy(n, 1, "hierarchical", a), chains.accuracy(n, 1, "hierarchical", b))
                ),
            }
            for a, b in itertools.combinations(chains.scores, 2)
            for n in settings.budgets
        ],
    }, accuracy


def _flips(bootstrap: Bootstrap, counts: np.ndarray, before: int) -> Estimate | None:
    """Return how often the next answer is the other way round, of those that were right (1) or wrong (0)."""
    return bootstrap.rate(counts[:, before, 1 - before], counts[:, before].sum(axis=1))


def _best(config: ExperimentConfig, bootstrap: Bootstrap, values: dict[tuple[int, int], np.ndarray]) -> dict[str, Any]:
    """Return the split that is best on all questions, and what choosing one brings on questions that did not choose.

    The latter, `mean` with its interval, and `minus_parallel` (paired), choose on one half and judge on the other.
    """
    s, p = max(values, key=lambda pair: values[pair].mean())
    everything = np.stack(list(values.values()))
    choice = choose(config.sweep, everything, np.ones(everything.shape[1], np.int64), bootstrap)
    parallel = values[min(values)]
    return {"s": s, "p": p, **as_table(choice.estimate()), "minus_parallel": as_table(choice.less(parallel))}


def _per_bin(
    config: ExperimentConfig, bins: np.ndarray, values: dict[tuple[int, int, str], np.ndarray]
) -> dict[str, Any]:
    found = {}
    largest = max(config.chains.budgets)
    everyone = Bootstrap(len(bins), config.sweep.bootstrap, config.sweep.bootstrap_seed)
    for number in np.unique(bins):
        inside = bins == number
        bootstrap = everyone.within(inside)
        found[str(number)] = {
            "questions": int(inside.sum()),
            "n": largest,
            "pass_at_1": as_table(bootstrap(values[1, 1, "majority"][inside])),
            **{
                rule: {
                    "accuracy": {
                        strategy_name(s, p): as_table(bootstrap(values[s, p, rule][inside])) for s, p in pairs(largest)
                    },
                    "best": _best(config, bootstrap, {(s, p): values[s, p, rule][inside] for s, p in pairs(largest)}),
                }
                for rule in SELECTORS
            },
        }
    return found


def _by_ease(
    config: ExperimentConfig, bins: np.ndarray, values: dict[tuple[int, int, str], np.ndarray]
) -> dict[str, Any]:
    """Return what chains bring on easy questions (bins 1 and 2) and splits in between on hard ones (3 and up).

    By selector, at the largest budget, paired: `sequential_minus_parallel` on easy ones; on hard ones
    `between_minus_parallel` and `between_minus_sequential` of a split with several chains of several answers, chosen on
    one half of the questions and judged on the other, as far as the budget has one.
    """
    largest = max(config.chains.budgets)
    found: dict[str, Any] = {"n": largest}
    easy, hard = bins <= 2, bins > 2
    everyone = Bootstrap(len(bins), config.sweep.bootstrap, config.sweep.bootstrap_seed)
    for rule in SELECTORS:
        one, many = values[largest, 1, rule], values[1, largest, rule]
        found[rule] = {"easy": {"sequential_minus_parallel": as_table(everyone.difference(one - many, easy))}}
        between = [values[s, p, rule][hard] for s, p in pairs(largest) if s > 1 and p > 1]
        if between:
            chosen = choose(config.sweep, np.stack(between), bins[hard], everyone.within(hard))
            found[rule]["hard"] = {
                "between_minus_parallel": as_table(chosen.less(many[hard])),
                "between_minus_sequential": as_table(chosen.less(one[hard])),
            }
    return found


def _late_steps(bootstrap: Bootstrap, chains: AnswerChains, most: int) -> dict[str, Any] | None:
    """Return how much more often answers are right past the steps that training had than at others, paired.

    Training had up to `most` answers before one, so late steps are those from `most + 2` on; `minus_first` is their
    mean pass@1 less that of the first step, `minus_trained` less that of step `most + 1`, the last that training had.
    """
    last = int(max(chains.lengths))
    if last < most + 2:
        return None
    late = np.mean([chains.pass_at_1(place) for place in range(most + 1, last)], axis=0)
    return {
        "from": most + 2,
        "to": last,
        "trained": most + 1,
        "minus_first": as_table(bootstrap.paired(late, chains.pass_at_1(0))),
        "minus_trained": as_table(bootstrap.paired(late, chains.pass_at_1(most))),
    }
