"""From result rows to accuracies with intervals; nothing here runs a model.

Rows are laid out once as arrays over (question, run, sample). A row that should exist and does not is
unparsable and wrong there, and is listed by `Samples.missing`; it is never left out of an average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from ttcjax.runtime.errors import UserError
from ttcjax.verify.aggregate import Ragged, aggregate, token_likelihood
from ttcjax.verify.select import Selector, Votes, asks_verifier, group_answers

COLUMNS = (
    *("question", "level", "strategy", "n", "seed", "temperature", "sample"),
    *("answer", "correct", "step_scores", "step_truth", "tokens", "logprob"),
)
"""Columns the estimators read; the texts stay on disk."""
LIKELIHOOD = "likelihood"
"""Name of the scores that the policy itself gives, in place of a step aggregation: no verifier is asked."""
SHUFFLES = (4, 256)
"""Least and most permutations of a run that are averaged."""
LOOKED_AT = 1 << 20
"""Samples that all permutations together look at between the two: 39 permutations of 420 questions by 64."""
_KEPT_BYTES = 1 << 29
"""Bytes of places of samples in subsets, kept to be used again; what belongs to them takes as much again."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Rows laid out as arrays `[Q, R, N]`: question, independent run, sample of the run.

    Attributes:
        questions: Question ids, `[Q]`.
        seeds: Seed of each run, `[R]`.
        groups: Ids of groups of equal answers within a question; -1 is unparsable or missing.
        correct: Whether the answer is right; false where missing.
        row: Row of the table the sample was read from; -1 where missing.
        steps: Verifier scores of the steps, one row for each row of the table.
        likelihoods: The policy's scores of its solutions, see `token_likelihood`, one for each row of the table.
        shuffle: Seed of the permutations behind `repeats`.
    """

    questions: tuple[str, ...]
    seeds: tuple[int, ...]
    groups: np.ndarray
    correct: np.ndarray
    row: np.ndarray
    steps: Ragged
    likelihoods: np.ndarray
    shuffle: int = 0
    _kept: dict[tuple[object, ...], np.ndarray] = field(default_factory=dict, init=False, repr=False)
    """Results of before, by what they are."""
    _subsets: dict[int, tuple[Votes, np.ndarray]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_table(
        cls,
        table: pa.Table,
        questions: Sequence[str],
        samples: int,
        runs: int = 1,
        grade_equal: Callable[[str, str], bool] | None = None,
    ) -> Samples:
        """Lay out the rows of the bank, or of one search strategy at one budget.

        Args:
            table: Rows with `COLUMNS`, in any order.
            questions: All ids, those without rows included.
            samples: Samples N of a run that should be there.
            runs: Runs R (distinct seeds) that should be there.
            grade_equal: Tells whether two different answers are equal; `None` compares canonical strings.

        Raises:
            UserError: Two rows have the same place, or a row has none.
        """
        place = {question: i for i, question in enumerate(questions)}
        names = table["question"].combine_chunks().dictionary_encode()
        places = np.array([place.get(name, -1) for name in names.dictionary.to_pylist()], np.int64)
        question = places[names.indices.to_numpy()]
        seeds, run = np.unique(table["seed"].to_numpy(), return_inverse=True)
        sample = table["sample"].to_numpy().astype(np.int64)
        runs = max(runs, len(seeds))
        outside = (question < 0) | (sample < 0) | (sample >= samples)
        if outside.any():
            raise UserError(
                f"{int(outside.sum())} result rows do not belong to this config ({len(questions)} questions of "
                f"{samples} samples): move their folder away and run again"
            )
        at = (question, run, sample)
        row = np.full((len(questions), runs, samples), -1, np.int64)
        row[at] = np.arange(table.num_rows)
        if int((row >= 0).sum()) < table.num_rows:
            raise UserError("result rows hold the same sample twice: move their folder away and run again")
        groups = np.full(row.shape, -1, np.int64)
        groups[at] = _answer_groups(table, question, grade_equal)
        correct = np.zeros(row.shape, bool)
        correct[at] = table["correct"].to_numpy()
        # Runs that left no row at all have no seed to show.
        all_seeds = (*map(int, seeds), *[-1] * (runs - len(seeds)))
        return cls(tuple(questions), all_seeds, groups, correct, row, step_scores(table), likelihoods(table))

    def part(self, first: int, end: int) -> Samples:
        """Return some of the samples of each run, from the first to before the end."""
        at = (slice(None), slice(None), slice(first, end))
        arrays = {"groups": self.groups[at], "correct": self.correct[at], "row": self.row[at]}
        scores = {"steps": self.steps, "likelihoods": self.likelihoods}
        return Samples(self.questions, self.seeds, **arrays, **scores, shuffle=self.shuffle)

    @property
    def missing(self) -> list[tuple[str, int, int]]:
        """(question, seed, sample) of every row that should be there and is not."""
        return [(self.questions[q], self.seeds[r], int(n)) for q, r, n in zip(*np.nonzero(self.row < 0), strict=True)]

    def scores(self, how: str) -> np.ndarray:
        """Return solution scores `[Q, R, N]` from step scores, or the policy's own (`LIKELIHOOD`); 0 where missing."""
        key = ("scores", how)
        if key not in self._kept:
            of_rows = self.likelihoods if how == LIKELIHOOD else aggregate(self.steps, how)
            self._kept[key] = np.append(of_rows, 0.0)[self.row]
        return self._kept[key]

    def final_scores(self, how: str) -> np.ndarray:
        """Return how likely each sample is right by its score, `[Q, R, N]`: 0 where there is no answer to be right.

        A sample that was cut off ends in the middle: the score of its last whole step is of what might have become of
        it, and not of what it is.
        """
        return np.where(self.groups >= 0, self.scores(how), 0.0)

    def pass_at_1(self) -> np.ndarray:
        """Return the share of right samples of each question, `[Q]`."""
        return self.correct.mean(axis=(1, 2))

    def accuracy(
        self, rule: str, how: str = "last", n: int | None = None, ties: str | None = None, temperature: float = 1.0
    ) -> np.ndarray:
        """Return each question's chance that the selected answer is right, `[Q]`.

        With `n`, plain best-of-N (`best`) is computed in closed form over all sets of `n` samples of a run, see
        `best_of_k`; the other rules are averaged over random ones, see `repeats`.

        Args:
            rule: Selection rule.
            how: Step aggregation behind the scores, or `LIKELIHOOD`.
            n: Samples selected from; all of a run by default.
            ties: Which of two groups of equal weight wins, see `ttcjax.verify.select.choose`; the rule's own if
                not given.
            temperature: Of the rule `softmax`.

        Raises:
            UserError: A run has fewer than `n` samples.
        """
        size = self.row.shape[2] if n is None else n
        if rule == "best" and 0 < size < self.row.shape[2]:
            return (self._right_by_rank(how) @ _chances_of_ranks(self.row.shape[2], size)).mean(axis=1)
        return self._repeats(rule, how, n, ties, temperature).mean(axis=0)

    def chosen(self, choose: Callable[[np.ndarray, np.ndarray], np.ndarray], how: str) -> np.ndarray:
        """Return the place `[Q, R]` that a rule chooses among all samples of each run; -1 where none can be read.

        Args:
            choose: Returns the places of groups of equal answers and scores, both `[Q * R, N]`.
            how: What the scores are, see `scores`.
        """
        N = self.row.shape[2]
        return choose(self.groups.reshape(-1, N), self.scores(how).reshape(-1, N)).reshape(self.row.shape[:2])

    def right_at(self, place_QR: np.ndarray) -> np.ndarray:
        """Return each question's share of runs `[Q]` in which the sample at a place is right; at -1 none is."""
        right = np.take_along_axis(self.correct, np.maximum(place_QR, 0)[..., None], axis=2)[..., 0]
        return (right & (place_QR >= 0)).mean(axis=1)

    def accuracy_error(
        self, rule: str, how: str = "last", n: int | None = None, ties: str | None = None, temperature: float = 1.0
    ) -> float:
        """Return the Monte Carlo standard error of the mean of `accuracy` over questions; 0 where that is exact.

        It is what other permutations of the same samples would change, beside the intervals over questions.
        """
        if rule == "best" and n is not None:
            return 0.0
        return monte_carlo_error(self._repeats(rule, how, n, ties, temperature))

    def _repeats(self, rule: str, how: str, n: int | None, ties: str | None, temperature: float) -> np.ndarray:
        key = (rule, how, n, ties, temperature)
        if key not in self._kept:
            self._kept[key] = self.repeats(rule, self.scores(how), n, ties, temperature)
        return self._kept[key]

    def select(
        self, rule: str, scores: np.ndarray, n: int | None = None, ties: str | None = None, temperature: float = 1.0
    ) -> np.ndarray:
        """Return each question's accuracy `[Q]` under any scores `[Q, R, N]`: the mean of `repeats`."""
        return self.repeats(rule, scores, n, ties, temperature).mean(axis=0)

    def shuffles(self, n: int | None = None) -> int:
        """Return how many permutations are averaged for selecting from n: one where every one says the same."""
        if n in (None, 1, self.row.shape[2]):
            return 1
        return int(np.clip(LOOKED_AT // max(self.row.size, 1), *SHUFFLES))

    def repeats(
        self, rule: str, scores: np.ndarray, n: int | None = None, ties: str | None = None, temperature: float = 1.0
    ) -> np.ndarray:
        """Return each question's accuracy by permutation of its samples, `[shuffles(n), Q]`.

        Every run is cut into disjoint blocks of `n` samples (a rest is not used), the rule chooses within each block,
        and the blocks are averaged; so again after each of several random permutations of every run. A block is then a
        random set of n different samples, and the mean is unbiased at every n, for the mean over all such sets and
        so for n samples of the policy, which resampling with replacement is not (it repeats samples and so overstates
        agreement). The permutations depend on the shape of the bank and `shuffle` alone: rules, budgets and scores
        are compared on the same ones. Within a block samples keep their order, which decides the last ties; a
        majority's, which nothing but the order decides, are averaged over all orders, see `Votes.plurality`.

        Args:
            rule: Selection rule.
            scores: `[Q, R, N]`.
            n: Samples selected from; all of a run by default.
            ties: As for `accuracy`.
            temperature: Of the rule `softmax`.

        Raises:
            UserError: A run has fewer than `n` samples.
        """
        questions, _, samples = self.row.shape
        size = samples if n is None else n
        if not 0 < size <= samples:
            raise UserError(f"a budget of {size} needs as many samples, and there are {samples}: raise sweep.samples")
        votes, members = self._subsets.get(size) or self._cut(size)
        if sum(kept.nbytes for _, kept in self._subsets.values()) < _KEPT_BYTES:
            self._subsets[size] = votes, members
        repeats = self.shuffles(size)
        right = np.zeros(votes.count)
        if asks_verifier(rule, ties):
            weighed = scores.ravel()[members].astype(np.float64, copy=False)
            groups = votes.winners(weighed, rule, ties, temperature)
            won = votes.starts[groups] if self._equals_agree else votes.best_members(groups, weighed)
            right[votes.questions] = self.correct.ravel()[members[won]]
        else:
            right[votes.questions] = votes.plurality(self.correct.ravel()[members])
        return right.reshape(repeats, questions, -1).mean(axis=2)

    def _cut(self, size: int) -> tuple[Votes, np.ndarray]:
        """Return the votes of all blocks, permutation by permutation, and where their members stand in `[Q, R, N]`."""
        questions, runs, samples = self.row.shape
        blocks = samples // size
        repeats = self.shuffles(size)
        order = self._permutations if repeats > 1 else np.arange(samples, dtype=np.int32)[None]
        cut = np.sort(order[:, : blocks * size].reshape(-1, size), axis=1)
        cut = np.broadcast_to(cut.reshape(-1, blocks * size), (repeats * questions * runs, blocks * size))
        base = np.tile(np.arange(questions * runs) * samples, repeats)
        places = (cut + base[:, None]).reshape(-1, size)
        votes = Votes(self.groups.ravel()[places])
        members = places.ravel()[votes.members]
        return votes, members.astype(np.int32) if self.row.size <= np.iinfo(np.int32).max else members

    @cached_property
    def _permutations(self) -> np.ndarray:
        """Random orders of each run's samples, `[repeats * Q * R, N]`."""
        questions, runs, samples = self.row.shape
        rows = self.shuffles(2) * questions * runs
        order = np.tile(np.arange(samples, dtype=np.int32), (rows, 1))
        return np.random.default_rng(self.shuffle).permuted(order, axis=1, out=order)

    @cached_property
    def _equals_agree(self) -> bool:
        """Whether equal answers are all right or all wrong, as graders have it: then any member tells of its group."""
        votes = Votes(self.groups.reshape(len(self.groups), -1))
        correct = self.correct.ravel()[votes.members]
        return not len(correct) or bool(
            (np.logical_and.reduceat(correct, votes.starts) == np.logical_or.reduceat(correct, votes.starts)).all()
        )

    def _right_by_rank(self, how: str) -> np.ndarray:
        key = ("best", how)
        if key not in self._kept:
            runs = (x.reshape(-1, x.shape[2]) for x in (self.correct, self.scores(how), self.groups >= 0))
            self._kept[key] = _right_by_rank(*runs).reshape(self.row.shape)
        return self._kept[key]


def monte_carlo_error(values_PQ: np.ndarray) -> float:
    """Return the standard error of a mean over questions that comes from averaging P random repeats.

    The variance over repeats of each question, by P, summed over questions, by their number squared; the repeats of
    one question tell nothing of another's.

    Args:
        values_PQ: Each question's value in each repeat; a single repeat is taken for exact.
    """
    repeats, questions = values_PQ.shape
    return 0.0 if repeats < 2 else float(np.sqrt((values_PQ.var(axis=0, ddof=1) / repeats).sum()) / questions)


def pass_at_k(correct_QN: np.ndarray, k: int) -> np.ndarray:
    """Return the chance that one of k samples is right, `[Q]`: 1 - C(n - c, k) / C(n, k), unbiased.

    Source: Chen et al. 2021, section 2.1; here as the product of (1 - k / i) for i = n - c + 1 .. n.

    Args:
        correct_QN: Whether each sample is right, `[Q, N]`.
        k: At most N.

    Raises:
        UserError: k is not in 1 .. N.
    """
    n = correct_QN.shape[1]
    if not 0 < k <= n:
        raise UserError(f"pass@{k} needs at least {k} samples, and there are {n}: raise sweep.samples")
    factors = np.maximum(1 - k / np.arange(n, 0, -1), 0.0)
    all_wrong = np.concatenate([[1.0], np.cumprod(factors)])
    return 1 - all_wrong[correct_QN.sum(axis=1)]


def best_of_k(correct_QN: np.ndarray, scores_QN: np.ndarray, readable_QN: np.ndarray, k: int) -> np.ndarray:
    """Return the chance that the highest-scoring of k samples is right, `[Q]`: the mean over all sets of k, unbiased.

    In rising order of scores the i-th of n samples is the highest of a set of k in C(i - 1, k - 1) of C(n, k) sets.
    Samples of equal scores share their chances evenly.

    Args:
        correct_QN: Whether each sample is right, `[Q, N]`.
        scores_QN: The verifier's.
        readable_QN: Whether there is an answer; one without is taken only where no sample of the set has any.
        k: In 1 .. N.
    """
    return _right_by_rank(correct_QN, scores_QN, readable_QN) @ _chances_of_ranks(correct_QN.shape[1], k)


def _chances_of_ranks(n: int, k: int) -> np.ndarray:
    """Return how often the i-th lowest of n samples is the highest of a set of k of them, `[n]`."""
    # Backwards from k / n for the highest: C(i - 1, k - 1) / C(i, k - 1) = (i - k + 1) / i.
    i = np.arange(n - 1, 0, -1)
    return np.concatenate([[1.0], np.cumprod(np.maximum(i - k + 1, 0) / i)])[::-1] * k / n


def _right_by_rank(correct_QN: np.ndarray, scores_QN: np.ndarray, readable_QN: np.ndarray) -> np.ndarray:
    """Return the chance that the i-th lowest sample of each question is right, `[Q, N]`, shared among equal scores."""
    ranked = np.where(readable_QN, scores_QN, -np.inf)
    order = np.argsort(ranked, axis=1)
    scores, correct = (np.take_along_axis(x, order, axis=1) for x in (ranked, correct_QN & readable_QN))
    new = np.ones(ranked.shape, bool)
    new[:, 1:] = scores[:, 1:] != scores[:, :-1]
    level = np.cumsum(new.ravel()) - 1
    right = np.bincount(level, correct.ravel()) / np.bincount(level)
    return right[level].reshape(ranked.shape)


def scores_of(selector: Selector, aggregate: str) -> str:
    """Return which scores select: those of the steps as they are put together, or `LIKELIHOOD`."""
    return LIKELIHOOD if selector.by == LIKELIHOOD else aggregate


def step_scores(table: pa.Table) -> Ragged:
    """Return the verifier's step scores of every row."""
    return ragged(table["step_scores"].combine_chunks())


def likelihoods(table: pa.Table) -> np.ndarray:
    """Return the policy's own score of every row, see `token_likelihood`."""
    return token_likelihood(table["logprob"].to_numpy(), table["tokens"].to_numpy())


def with_step_truth(table: pa.Table) -> tuple[Ragged, Ragged, int]:
    """Return step scores and step truth of the rows whose steps were checked.

    Rows without any scored step say nothing of the verifier and are left out.

    Args:
        table: Rows with `step_scores` and `step_truth`.

    Returns:
        Scores and truth with equal row lengths, and how many checked rows were left out because they have
        another number of scores than of steps.
    """
    scores, truth = step_scores(table), ragged(table["step_truth"].combine_chunks())
    checked = table["step_truth"].is_valid().to_numpy()
    aligned = scores.lengths == truth.lengths
    keep = checked & aligned & (truth.lengths > 0)
    return scores.keep(keep), truth.keep(keep), int((checked & ~aligned).sum())


def ragged(lists: pa.ListArray) -> Ragged:
    """Return lists of numbers as they are put together; one that is null is empty."""
    lengths = lists.value_lengths().fill_null(0).to_numpy()
    return Ragged.from_lengths(lists.flatten().to_numpy(zero_copy_only=False), lengths)


def _answer_groups(table: pa.Table, question: np.ndarray, grade_equal: Callable[[str, str], bool] | None) -> np.ndarray:
    codes = table["answer"].combine_chunks().dictionary_encode()
    text = codes.dictionary.to_pylist()
    ids = codes.indices.fill_null(-1).to_numpy().astype(np.int64)
    if grade_equal is None:
        return ids
    order = np.argsort(question, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(question[order])) + 1):
        # Each string once: a grader is asked about strings, in the order they come in.
        seen, first, again = np.unique(ids[rows], return_index=True, return_inverse=True)
        by_place = np.argsort(first)
        grouped = np.empty(len(seen), np.int64)
        grouped[by_place] = group_answers([None if i < 0 else text[i] for i in seen[by_place]], grade_equal)
        ids[rows] = grouped[again]
    return ids
